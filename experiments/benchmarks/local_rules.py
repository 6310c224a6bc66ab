"""How far do OTTT and e-prop get on the digits beside BPTT, how near are their gradients, and what do they hold?

    python experiments/benchmarks/local_rules.py

Two small networks learn from the same start, batches and objective (the mean over time of the cross entropy of each
step's output) with the same optimizer by BPTT and by each rule. Before training and after every epoch the rule's
gradient is compared with BPTT's on one batch, at the weights that the rule has learned. Then the seconds and bytes of
one gradient are measured against the number of steps. One thread; writes experiments/results/local_rules.json.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snn_bp import LI, LIF, CountCrossEntropy, Data, Dense, Flatten, Network, Recurrent, Train
from snn_bp.data import Dataset, load
from snn_bp.files import write_json
from snn_bp.instruments.cost import WAYS, cost_of_bptt
from snn_bp.instruments.online import compare_to_bptt, eprop, objective, ottt
from snn_bp.model.start import start_alive
from snn_bp.runs.evaluation import evaluate_network
from snn_bp.runs.provenance import machine, version
from snn_bp.trainer.loop import make_optimizer

DATA = Data(
    "digits", step_ms=26, steps=12, downsample=2, batch=64, translate_px=2
)  # those of experiments/digits.py, smaller
HOW = Train(lr=5e-3)
LOSS = CountCrossEntropy()
MODELS = {
    "two hidden layers": (Flatten(), Dense(32), LIF(beta=0.8), Dense(32), LIF(beta=0.8), Dense(10), LI(beta=0.9)),
    "recurrent": (Flatten(), Dense(32), Recurrent(LIF(beta=0.8)), Dense(10), LI(beta=0.9)),
}
STEPS = (12, 24, 48, 96, 192)


def bptt(network: Network, x: Tensor, targets: Tensor, loss: CountCrossEntropy) -> dict[str, Tensor]:
    """The gradients of the objective by backpropagation through time."""
    names, weights = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(objective(network(x), targets, loss, "step"), weights)
    # a fused optimizer walks through weight and gradient as they lie in memory: they should lie alike
    return {name: gradient.contiguous() for name, gradient in zip(names, found, strict=True)}


RULES: dict[str, Callable[..., dict[str, Tensor]]] = {
    "bptt": bptt,
    "ottt": ottt,
    "eprop": eprop,
    "eprop, random feedback": partial(eprop, feedback="random"),
}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load(DATA)
    rows = []
    for name, model in MODELS.items():
        for seed in range(asked.seeds):
            for rule in RULES:
                row = learn(dataset, model, rule, seed=seed, epochs=asked.epochs)
                rows.append({"network": name, **row})
                print(name, rule, seed, row["test_accuracy"], f"{row['cpu_seconds']} s", flush=True)
    probe = dataset.batch("train", dataset.batches("train", seed=0)[0])
    network = Network(MODELS["two hidden layers"], dataset.shape, surrogate=HOW.surrogate)
    start_alive(network, probe[0])
    result = {
        "question": __doc__.splitlines()[0] if __doc__ else "",
        "command": f"python experiments/benchmarks/local_rules.py --epochs {asked.epochs} --seeds {asked.seeds}",
        "data": {"name": DATA.name, "steps": DATA.steps, "step_ms": DATA.step_ms, "shape": list(dataset.shape)},
        "test_samples": len(dataset.ids["test"]),
        "epochs": asked.epochs,
        "mean_test_accuracy": {name: {rule: mean_accuracy(rows, name, rule) for rule in RULES} for name in MODELS},
        "runs": rows,
        "cost_of_a_gradient": {
            "network": "two hidden layers",
            "batch": DATA.batch,
            "rows": [
                {**row._asdict(), "seconds": round(row.seconds, 5)}
                for row in cost_of_bptt(network, *probe, steps=STEPS, ways=WAYS, loss=LOSS, truncate=12)
            ],
        },
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in ("snn_bp", "torch", "numba")},
    }
    write_json(Path(__file__).parents[1] / "results" / "local_rules.json", result)
    for row in result["cost_of_a_gradient"]["rows"]:
        print(row)


def learn(dataset: Dataset, model: tuple, rule: str, *, seed: int, epochs: int) -> dict[str, Any]:
    """Train by one rule: its accuracy, and its gradient beside BPTT's before training and after every epoch."""
    network = Network(model, dataset.shape, surrogate=HOW.surrogate, seed=seed)
    probe = dataset.batch("train", dataset.batches("train", seed=0)[0])
    start_alive(network, probe[0])
    network.eval()
    optimizer = make_optimizer(network, HOW)
    weights = dict(network.named_parameters())
    agreements, seconds = [agreement(network, rule, *probe)], 0.0
    for epoch in range(epochs):
        for place, ids in enumerate(dataset.batches("train", seed=epoch + 1)):
            x, targets = dataset.batch("train", ids, seed=1000 * epoch + place)
            began = time.process_time()
            for name, gradient in RULES[rule](network, x, targets, LOSS).items():
                weights[name].grad = gradient
            optimizer.step()
            seconds += time.process_time() - began
        agreements.append(agreement(network, rule, *probe))
    return {
        "rule": rule,
        "seed": seed,
        "test_accuracy": evaluate_network(network, dataset, "test", LOSS, counts=False).accuracy,
        "agreement_with_bptt": agreements,
        "cpu_seconds": round(seconds, 1),
    }


def agreement(network: Network, rule: str, x: Tensor, targets: Tensor) -> dict[str, list[float]]:
    """Cosine and norm ratio of the rule's gradient to BPTT's, of each layer with weights."""
    rows = compare_to_bptt(network, x, targets, LOSS, RULES[rule](network, x, targets, LOSS))
    return {layer: [round(row.cosine, 4), round(row.norm_ratio, 4)] for layer, row in rows.items()}


def mean_accuracy(rows: list[dict[str, Any]], network: str, rule: str) -> float:
    """Over seeds."""
    found = [row["test_accuracy"] for row in rows if (row["network"], row["rule"]) == (network, rule)]
    return round(sum(found) / len(found), 4)


if __name__ == "__main__":
    main()
