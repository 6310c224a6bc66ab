"""Is every planted fault found and named, does the advice work, is health left alone? What does the doctor cost?

    python experiments/benchmarks/doctor.py [--epochs 12] [--seeds 3] [--root FOLDER] [--shd FOLDER] [--only PART ...]

Eight faults are planted one by one and looked for by their instrument, ten more in whole runs (`doctor_runs.py`), in
which what the doctor says is followed. The experiments of this folder are trained and examined: digits always, those
of real recordings where `--root` (or SNN_BP_DATA) has them. A network of five dense layers as torch
draws them (no norm, no scaling) is examined before its first step, and trained on the default data as it is and as the
doctor says. Accuracies are of the validation split. Writes experiments/results/doctor.json; `--only faults runs` for
one measures those parts anew.
"""

import argparse
import importlib
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from snn_bp import LIF, ATan, BatchNorm, Boxcar, Data, Dense, FastSigmoid, Flatten, Network, Recurrent, Surrogate, Train
from snn_bp.data import Dataset, load
from snn_bp.data.store import CachedEvents, Recording
from snn_bp.files import write_json
from snn_bp.instruments import check_gradients, diagnose, trace
from snn_bp.instruments.faults import find_leaked_state, find_stale_cache, find_unrelated_labels
from snn_bp.kernels.cpu import chain_shard
from snn_bp.model.modules import Neurons
from snn_bp.model.start import start_alive
from snn_bp.runs.evaluation import evaluate_network
from snn_bp.runs.provenance import machine, version
from snn_bp.trainer.loop import learning_rate, make_optimizer, train_step

sys.path.insert(0, str(Path(__file__).parent))
from doctor_runs import RUNS, healthy, planted, shipped

SHORTER = {"digits": 14, "nmnist": 40, "nmnist_mlp": 40, "shd": 3, "dvs_gesture": 10}  # epochs of the healthy runs
DATA = Data("digits", step_ms=52, steps=6, batch=32, translate_px=2)
HOW = Train(epochs=12, lr=2e-3)
SURROGATES = (ATan(), FastSigmoid(), Boxcar())  # heavy tails, a steep peak, exactly zero outside
SAMPLED = 16  # recordings of the trace that a training run takes each epoch


def batch(steps: int = 20) -> tuple[Tensor, Tensor]:
    """Events of 12 inputs and four classes, from a generator in sight."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(steps, 8, 12, generator=generator) < 0.3).float(), torch.arange(8) % 4


def network(
    *, reset: Any = "subtract", detach: bool = True, threshold: float = 1.0, recurrent: bool = False
) -> Network:
    """Two layers that are alive."""
    first = LIF(beta=0.9, reset=reset, detach_reset=detach, threshold=threshold)
    made = Network((Dense(16), Recurrent(first) if recurrent else first, Dense(4), LIF(beta=0.9)), (12,))
    if threshold == 1.0:
        start_alive(made, batch()[0])
    return made


def wrong_reset_adjoint() -> str:
    """The kernel leaves out what goes through a reset that is not detached."""
    right, examined = chain_shard.specialised, network(reset="zero", detach=False)
    neuron: Any = examined.layers[1].neuron
    detached = replace(neuron, detach_reset=True).equation

    def wrong(loop: Callable, form: Any, *arguments: Any, **flags: Any) -> Callable:
        form = replace(form, equation=detached) if form.equation is neuron.equation else form
        return right(loop, form, *arguments, **flags)

    with mock.patch.object(chain_shard, "specialised", wrong):
        report = check_gradients(examined, *batch(), directions=1, truncations=())
    return " ".join(report.problems)


def nan_surrogate() -> str:
    """A surrogate whose slope is not a number."""
    broken = network()
    surrogate = replace(broken.surrogate)
    object.__setattr__(surrogate, "slope", float("nan"))
    broken.layers[1].surrogate = surrogate  # type: ignore[assignment]
    return str(diagnose(trace(broken, *batch())))


def dead_layer() -> str:
    """A threshold that nothing reaches."""
    return str(diagnose(trace(network(threshold=100.0), *batch())))


def leaked_state() -> str:
    """A module that goes on where the last batch ended."""
    whole = Neurons.forward

    def leaky(self: Any, x: Tensor, state: Any = None) -> Any:
        out, left = whole(self, x, getattr(self, "left", state))
        self.left = left
        return out, left

    with mock.patch.object(Neurons, "forward", leaky):
        return _said(find_leaked_state(network(), batch()[0]))


def exploding_recurrence() -> str:
    """Recurrent weights a hundred times too large."""
    made = network(recurrent=True)
    with torch.no_grad():
        made.layers[1].recurrence.weight *= 100  # type: ignore[union-attr]
    return str(diagnose(trace(made, *batch(steps=40))))


def events_part(dataset: Dataset, name: str) -> CachedEvents:
    """A part of a data set, which holds events."""
    part = dataset.parts[name]
    assert isinstance(part, CachedEvents)
    return part


def stale_cache() -> str:
    """A cache, whole and with the hash of what it holds, that was made from other events than its source has now."""
    loading = importlib.import_module("snn_bp.data.loading")
    held = events_part(load(DATA, quiet=True), "test")
    assert held.folder is not None

    def mirrored(first: int, last: int) -> Iterator[Recording]:
        kind = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
        for number, span in enumerate(itertools.pairwise(held.events.offsets), start=first):
            events = np.empty(span[1] - span[0], kind)
            for field in "xytp":
                events[field] = getattr(held.events, field)[slice(*span)]
            events["x"] = 33 - events["x"]
            yield Recording(f"digit {number}", events, int(held.events.labels[number - first]))

    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"SNN_BP_CACHE": folder}):
        for source in held.folder.parent.glob("digits-train-*"):
            shutil.copytree(source, Path(folder, source.name))
        with mock.patch.object(loading, "_simulated", mirrored):
            load(DATA, quiet=True)
        return _said(find_stale_cache(load(DATA, quiet=True)))


def shifted_labels() -> str:
    """Test labels counted from one, training labels from zero."""
    dataset = load(DATA, quiet=True)
    part = events_part(dataset, "test")
    shifted = replace(part, events=replace(part.events, labels=(part.events.labels + 1) % 10))
    return _said(find_unrelated_labels(_without_validation(replace(dataset, parts={**dataset.parts, "test": shifted}))))


def misplaced_labels() -> str:
    """Labels in the order of the recordings, one place further."""
    dataset = load(DATA, quiet=True)
    part = events_part(dataset, "train")
    moved = replace(part, events=replace(part.events, labels=np.random.default_rng(0).permutation(part.events.labels)))
    return _said(find_unrelated_labels(replace(dataset, parts={**dataset.parts, "train": moved})))


PLANTED: dict[str, tuple[Callable[[], str], str]] = {  # fault -> how to plant and look for it, what must be said
    "wrong reset adjoint": (wrong_reset_adjoint, "adjoint of the reset is wrong"),
    "NaN surrogate": (nan_surrogate, "model.1 LIF(beta=0.9): not finite. fraction of its surrogate's slopes"),
    "dead layer": (dead_layer, "model.1 LIF(beta=0.9, threshold=100): silent"),
    "leaked state": (leaked_state, "model.1 LIF(beta=0.9): leaked state"),
    "exploding recurrence": (exploding_recurrence, "model.1 Recurrent(LIF(beta=0.9)): exploding over time"),
    "stale cache": (stale_cache, "the test part: stale cache"),
    "shifted labels": (shifted_labels, "the test split: shifted labels"),
    "misplaced labels": (misplaced_labels, "the validation split: unrelated labels"),
}


def five_layers(mend: str) -> tuple:
    """Five dense layers and their neurons, with norms if that is what is mended."""
    norm = (BatchNorm(),) if mend == "BatchNorm" else ()
    hidden = (Dense(128), *norm, LIF(beta=0.8)) * 4
    return (Flatten(), *hidden, Dense(10), *norm, LIF(beta=0.8))


def trained(
    mend: str, dataset: Dataset, *, surrogate: Surrogate = SURROGATES[0], seed: int = 0, epochs: int
) -> dict[str, Any]:
    """What the doctor says before the first step, and the accuracy after each epoch of training."""
    made, how = Network(five_layers(mend), dataset.shape, surrogate=surrogate, seed=seed), replace(HOW, epochs=epochs)
    x, targets = dataset.batch("train", dataset.batches("train", seed=seed)[0])
    if mend == "start_alive":
        start_alive(made, x)
    report = diagnose(trace(made, x, targets))
    optimizer, accuracies = make_optimizer(made, how), []
    for epoch in range(epochs):
        batches = dataset.batches("train", seed=1000 * seed + epoch)
        for place, ids in enumerate(batches):
            step = epoch * len(batches) + place
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(how, step=step, steps=epochs * len(batches), batches=len(batches))
            train_step(made, optimizer, *dataset.batch("train", ids, seed=step), how)
        accuracy = evaluate_network(made, dataset, "validation", how.loss, counts=False).accuracy
        accuracies.append(round(accuracy or 0.0, 4))
    silent = [finding.where for finding in report.findings if finding.kind == "silent"]
    return {"silent": silent, "report": str(report), "validation_accuracy": accuracies}


def cost(dataset: Dataset) -> dict[str, float]:
    """Milliseconds of a training step of the default experiment's kind, and of a doctor's visit, in turns."""
    made = Network(five_layers("BatchNorm"), dataset.shape)
    optimizer, batches = make_optimizer(made, HOW), dataset.batches("train", seed=0)
    x, targets = dataset.batch("train", batches[0])
    seconds: dict[str, list[float]] = {"step": [], "visit": []}
    for _ in range(21):
        began = time.monotonic()
        train_step(made, optimizer, x, targets, HOW)
        between = time.monotonic()
        diagnose(trace(made, x[:, :SAMPLED], targets[:SAMPLED]))
        seconds["step"].append(between - began)
        seconds["visit"].append(time.monotonic() - between)
    step, visit = (1e3 * statistics.median(seconds[name][1:]) for name in ("step", "visit"))
    share = visit / (step * len(batches))
    return {
        "step_ms": round(step, 2),
        "visit_ms": round(visit, 2),
        "steps": len(batches),
        "share_of_a_step": round(share, 4),
    }


def _said(findings: list) -> str:
    return " ".join(map(str, findings))


def _without_validation(dataset: Dataset) -> Dataset:
    return replace(dataset, ids={**dataset.ids, "validation": dataset.ids["validation"][:0]})


def find_planted() -> dict[str, Any]:
    """What is said of each of the first eight faults."""
    faults = {}
    for name, (plant, wanted) in PLANTED.items():
        said = plant()
        faults[name] = {"found": wanted in said, "said": said}
        print(f"{name}: {'found' if wanted in said else 'MISSED'}. {said}", flush=True)
    return faults


def find_in_runs() -> dict[str, Any]:
    """What is said of each of the ten in runs, and what comes of following it."""
    runs = {}
    for name, fault in RUNS.items():
        runs[name] = row = planted(fault)
        print(f"{name}: {'named' if row['named'] else 'MISSED'}, mended {row['mended']}. {row}", flush=True)
    return runs


def find_nothing(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is said of the experiments as they are."""
    roots = dict.fromkeys(("nmnist", "nmnist_mlp", "dvs_gesture"), arguments.root) | {"shd": arguments.shd}
    well = {}
    for name, experiment in shipped(roots, seeds=range(arguments.seeds), epochs=SHORTER):
        well[name] = {"epochs": experiment.train.epochs, **healthy(experiment)}
        print(f"{name}: {len(well[name]['alarms'])} alarms, {well[name]}", flush=True)
    return well


def follow_on_five_layers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Five layers that start silent, as they are and with each remedy."""
    dataset, five = load(DATA, quiet=True), {}
    for surrogate, mend in itertools.product(SURROGATES, ("nothing", "start_alive", "BatchNorm")):
        rows = [
            trained(mend, dataset, surrogate=surrogate, seed=seed, epochs=arguments.epochs)
            for seed in range(arguments.seeds)
        ]
        last = [row["validation_accuracy"][-1] for row in rows]
        passed = [row["report"].endswith("nothing is wrong") for row in rows]
        five.setdefault(repr(surrogate), {})[mend] = {"last": last, "nothing_found": passed, "runs": rows}
        silent = rows[0]["silent"]
        print(f"five layers, {surrogate}, {mend}: silent {silent}, nothing found {passed}, accuracy {last}", flush=True)
    return five


PARTS = ("faults", "runs", "healthy", "five_layers", "cost")


def main() -> None:
    """Measure and write the result; with `--only`, some parts of it, each with its date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=HOW.epochs)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", type=Path, default=os.environ.get("SNN_BP_DATA"))
    parser.add_argument("--shd", type=Path, help="files of SHD's schema, FSDD's for one")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="keep the other parts as they stand")
    arguments = parser.parse_args()
    file = Path(__file__).parents[1] / "results" / "doctor.json"
    result = json.loads(file.read_text(encoding="utf-8")) if arguments.only != PARTS else {"dates": {}}
    measure = {
        "faults": find_planted,
        "runs": find_in_runs,
        "healthy": lambda: find_nothing(arguments),
        "five_layers": lambda: follow_on_five_layers(arguments),
        "cost": lambda: cost(load(DATA, quiet=True)),
    }
    for part in arguments.only:
        result[part] = measure[part]()
        result["dates"][part] = time.strftime("%Y-%m-%d")
    result |= {"machine": machine(), "versions": {name: version(name) for name in ("snn_bp", "torch")}}
    found = [row["found"] for row in result["faults"].values()] + [row["named"] for row in result["runs"].values()]
    result["summary"] = {
        "faults": len(found),
        "named": sum(found),
        "mended_in_runs": sum(row["mended"] for row in result["runs"].values()),
        "healthy_runs": len(result["healthy"]),
        "false_alarms": sum(len(row["alarms"]) for row in result["healthy"].values()),
    }
    print(result["summary"], result["cost"])
    write_json(file, result)


if __name__ == "__main__":
    main()
