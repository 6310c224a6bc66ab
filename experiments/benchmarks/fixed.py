"""Test accuracy of a network trained in fixed point, at several widths of its weights, beside the same in floats.

    python experiments/benchmarks/fixed.py digits=14 nmnist_mlp=30 --seeds 3

Trains experiments/NAME.py for so many epochs with train.target "float", and Fixed(weight_bits=8, 6, 4) of 16-bit states
with decays by shift and by product, each with every seed; N-MNIST is read from SNN_BP_DATA. Writes
experiments/results/fixed.json: the accuracy of each run, and for each target how many points its mean lies below that
of floats, with the spread of the difference seed by seed. Beside it why `Fixed` leaves five bits between weight and
state: digits trained for 4 epochs in floats, rounded with so many fraction_bits, and the share of spikes that are
others then, a layer's mean. Experiments of an earlier call stay in the file, and each target is written as it is done.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snn_bp import Experiment, Fixed, train
from snn_bp.chip.quantize import quantize
from snn_bp.chip.replay import simulate
from snn_bp.files import write_json
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.provenance import machine, version

EXPERIMENTS = Path(__file__).parents[1]
PACKAGES = ("snn_bp", "torch", "numpy", "numba", "tonic")
WIDTHS = (8, 6, 4)
SHIFTS = [Fixed(weight_bits=bits, state_bits=16, decay="shift") for bits in WIDTHS]
PRODUCTS = [Fixed(weight_bits=bits, state_bits=16, decay="multiply") for bits in WIDTHS]


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", metavar="NAME=EPOCHS")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    file = EXPERIMENTS / "results" / "fixed.json"
    fraction_bits = fractions(read_file(EXPERIMENTS / "digits.py"))
    for asked in arguments.experiments:
        began, (name, _, epochs) = time.monotonic(), asked.partition("=")
        experiment = read_file(EXPERIMENTS / f"{name}.py")
        experiment = replace(experiment, train=replace(experiment.train, epochs=int(epochs)))
        for found in measure(experiment, arguments.seeds):
            others = json.loads(file.read_text())["experiments"] if file.exists() else {}
            result = {
                "experiments": others | {asked: found | {"seconds": round(time.monotonic() - began)}},
                "fraction_bits": fraction_bits,
                "date": time.strftime("%Y-%m-%d"),
                "machine": machine(),
                "versions": {name: version(name) for name in PACKAGES},
            }
            write_json(file, result)


def measure(experiment: Experiment, seeds: int) -> Iterator[dict[str, Any]]:
    """The accuracies of each target, and how far below floats they lie; again with every target that is done."""
    rows: dict[str, Any] = {}
    results: dict[str, Any] = {}
    for target in ("float", *SHIFTS, *PRODUCTS):
        accuracies = []
        for seed in range(seeds):
            changed = replace(experiment, seed=seed, train=replace(experiment.train, target=target))
            with tempfile.TemporaryDirectory() as folder:
                run = train(changed, Path(folder) / "run", quiet=True)
                results = json.loads((run.path / "results.json").read_text())
            accuracies.append(results["test"]["accuracy"])
        said = f"{target.weight_bits} bits, {target.decay}" if isinstance(target, Fixed) else "float"
        rows[said] = {"accuracy": accuracies, "mean": statistics.mean(accuracies)}
        below = [100 * (mine - its) for mine, its in zip(rows["float"]["accuracy"], accuracies, strict=True)]
        rows[said] |= {"points_below_float": statistics.mean(below), "spread": statistics.pstdev(below)}
        print(said, rows[said], file=sys.stderr, flush=True)
        yield {
            "epochs": experiment.train.epochs,
            "test_recordings": results["test"]["samples"],
            "notes": list(results["notes"]),
            "targets": rows,
        }


def fractions(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """For widths of weight and state: which fraction_bits are taken, and the share of other spikes with each."""
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = train(replace(experiment, train=replace(experiment.train, epochs=4)), Path(folder) / "run", quiet=True)
        network, dataset = run.network("last").eval(), run.dataset()
        x, _ = dataset.batch("test", dataset.ids["test"][:180])
    with torch.no_grad():
        wanted = [activity.spikes.numpy() for activity in network.observe(x)[0]]
    for weight_bits, state_bits in ((8, 16), (6, 16), (4, 16), (6, 12), (4, 12)):
        usual, others = Fixed(weight_bits, state_bits).arithmetic.fraction_bits, {}
        for fraction_bits in range(max(0, usual - 3), usual + 4):
            target = Fixed(weight_bits, state_bits, decay="multiply", fraction_bits=fraction_bits)
            spikes = simulate(quantize(network, input_bits=8, target=target), x, record=True).spikes
            apart = [np.mean(mine != its.reshape(mine.shape)) for mine, its in zip(spikes, wanted, strict=True)]
            others[str(fraction_bits)] = round(float(np.mean(apart)), 5)
        rows[f"{weight_bits} and {state_bits} bits"] = {"taken": usual, "other_spikes": others}
    return rows


if __name__ == "__main__":
    main()
