"""What reaches how far without spikes, on the very recordings and splits of an experiment.

    python experiments/benchmarks/beside.py linear experiments/braille.py experiments/yin_yang.py [key=value ...]
    python experiments/benchmarks/beside.py gru experiments/qtdb.py --seeds 3 --epochs 18
    python experiments/benchmarks/beside.py silence experiments/oxford.py

`linear`: logistic regression on all frames laid flat (scikit-learn; counts and currents over their standard deviation).
`gru`: torch's causal GRU of 64 units and a linear layer, trained on the labels of every step as the network is: AdamW,
one cycle, the epoch of the best validation accuracy. `silence`: the van Rossum distance of a network that never spikes.
Each figure goes into experiments/results/beside.json with date, machine and versions.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from snn_bp.data import Dataset
from snn_bp.data.loading import load
from snn_bp.files import write_json
from snn_bp.model.losses.values import squared_distances
from snn_bp.model.targets import UNLABELLED
from snn_bp.runs.changes import override
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.interval import wilson_interval
from snn_bp.runs.provenance import machine, version

TARGET = Path(__file__).parents[1] / "results" / "beside.json"
PACKAGES = ("snn_bp", "torch", "numpy", "scikit-learn")
UNITS, RATE, BATCH = 64, 5e-3, 32


def main() -> None:
    """Measure and add to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("linear", "gru", "silence"))
    parser.add_argument("file", type=Path)
    parser.add_argument("changes", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--name", help="of the figure; that of the experiment unless given")
    arguments = parser.parse_intermixed_args()
    experiment, _ = override(read_file(arguments.file), arguments.changes)
    dataset, began = load(experiment.data), time.monotonic()
    if arguments.what == "linear":
        figure = linear(dataset)
    elif arguments.what == "silence":
        figure = {"van_rossum": silence(dataset)}
    else:
        runs = [gru(dataset, seed, epochs=arguments.epochs) for seed in range(arguments.seeds)]
        figure = {"mean_step_accuracy": float(np.mean([run["step_accuracy"] for run in runs])), "runs": runs}
    figures = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    shown = [change for change in arguments.changes if not change.startswith("data.source.root=")]
    figures[f"{arguments.name or arguments.file.stem}, {arguments.what}"] = {
        "changes": shown,
        **figure,
        "seconds": round(time.monotonic() - began, 1),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    write_json(TARGET, figures)
    print({key: value for key, value in figure.items() if key != "runs"})


def linear(dataset: Dataset) -> dict[str, Any]:
    """Logistic regression, fitted to the training split with the validation split."""
    x, y = (np.concatenate(both) for both in zip(flat(dataset, "train"), flat(dataset, "validation"), strict=True))
    test, wanted = flat(dataset, "test")
    spread = x.std() or 1
    model = LogisticRegression(max_iter=1000).fit(x / spread, y)
    correct = int((model.predict(test / spread) == wanted).sum())
    low, high = wilson_interval(correct, len(wanted))
    return {"accuracy": correct / len(wanted), "correct": correct, "samples": len(wanted), "low": low, "high": high}


def flat(dataset: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All frames of each recording in one row, and its class."""
    frames, targets = whole(dataset, split)
    return frames.transpose(0, 1).flatten(1).numpy(), targets.numpy()


def gru(dataset: Dataset, seed: int, *, epochs: int) -> dict[str, Any]:
    """One training of a GRU on a class for every step; its test accuracy over the steps that have a label."""
    torch.manual_seed(seed)
    (x, y), validation, test = whole(dataset, "train"), whole(dataset, "validation"), whole(dataset, "test")
    model = nn.ModuleList([nn.GRU(x.shape[2], UNITS), nn.Linear(UNITS, dataset.classes)])
    batches = math.ceil(len(y) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * batches)
    best, kept = 0.0, {}
    for epoch in range(epochs):
        for ids in np.array_split(np.random.default_rng((seed, epoch)).permutation(len(y)), batches):
            out = answers(model, x[:, ids])
            loss = F.cross_entropy(out.flatten(0, 1), y[ids].t().flatten(), ignore_index=UNLABELLED)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        found = step_accuracy(model, *validation)
        if found > best:
            best, kept = found, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"seed": seed, "step_accuracy": step_accuracy(model, *test), "validation": best, "parameters": parameters}


def answers(model: nn.ModuleList, x: Tensor) -> Tensor:
    """Scores [time, batch, classes]."""
    recurrent, readout = model
    return readout(recurrent(x)[0])


@torch.inference_mode()
def step_accuracy(model: nn.ModuleList, x: Tensor, y: Tensor) -> float:
    """The fraction of steps with a label that are right."""
    right = (answers(model, x).argmax(2).t() == y)[y != UNLABELLED]
    return float(right.double().mean())


def silence(dataset: Dataset) -> float:
    """The van Rossum distance (tau of 10 steps) of the test targets from silence."""
    _, targets = whole(dataset, "test")
    return float(squared_distances(torch.zeros_like(targets).transpose(0, 1), targets, None, tau=10).sqrt().mean())


def whole(dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    """All recordings of a split: frames [steps, recordings, ...] and targets."""
    return dataset.batch(split, dataset.ids[split])


if __name__ == "__main__":
    main()
