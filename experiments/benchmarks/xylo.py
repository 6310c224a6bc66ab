"""Our integers of Xylo against SynSense's own simulator, xylosim: random networks and trained ones, number by number.

    pip install -e ".[xylo]"
    python experiments/benchmarks/xylo.py --data FOLDER [--networks 50] [--seeds 3]

Every spike, current and potential of `chip/xylo/replay.py` and of xylosim, on networks of 1 to 3 hidden populations
whose numbers are drawn from all that the chip holds; recordings drive some of them into saturation. Then
`fsdd_xylo.py` is trained in floats and in the chip's integers, exported, and verified on all test recordings; FOLDER is
the one that it names. Writes experiments/results/xylo.json, with how often the corners were met.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp import SnnError, evaluate, export, train
from snn_bp.chip.xylo.configuration import STATE_HIGH, STATE_LOW, Configuration
from snn_bp.chip.xylo.replay import simulate
from snn_bp.chip.xylo.simulator import run_simulator, simulator_missing
from snn_bp.files import write_json
from snn_bp.runs.changes import override
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.provenance import machine, version


def main() -> None:
    """Draw, run both, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    if missing := simulator_missing():
        raise SnnError(missing)
    rows = [measure(np.random.default_rng(seed)) for seed in range(asked.networks)]
    totals = {name: sum(row[name] for row in rows) for name in rows[0]}
    print(totals, flush=True)
    trained = [measure_trained(asked.data, seed) for seed in range(asked.seeds)] if asked.data else []
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in ("snn_bp", "torch", "numpy", "xylosim")},
        "networks": len(rows),
        "totals": totals,
        "trained": trained,
    }
    write_json(Path(__file__).parents[1] / "results" / "xylo.json", result)
    if totals["differing"] or not all(row["holds"] for row in trained):
        raise SystemExit("not all numbers are equal")


def measure(generator: np.random.Generator) -> dict[str, Any]:
    """One network on three recordings: numbers compared, how many differ, and corners that were met."""
    configuration = drawn(generator)
    shape = (60, 3, len(configuration.weights_in))
    x = generator.integers(0, 16, shape) * (generator.random(shape) < generator.choice([0.02, 0.2, 0.8]))
    ours, theirs = vars(simulate(configuration, x)), vars(run_simulator(configuration, x))
    states = np.concatenate([ours[name].ravel() for name in ours if "s" in name])
    return {
        "numbers": sum(each.size for each in ours.values()),
        "differing": sum(int((ours[name] != theirs[name]).sum()) for name in ours),
        "31 spikes": int((ours["spikes"] == 31).sum()),
        "spikes of outputs": int(ours["out"].sum()),
        "negative currents": int((ours["currents"] < 0).sum()),
        "at an end of 16 bits": int(((states == STATE_LOW) | (states == STATE_HIGH)).sum()),
    }


def measure_trained(data: Path, seed: int) -> dict[str, Any]:
    """Spoken digits in floats and on the chip: test accuracies, and what the verification said."""
    row: dict[str, Any] = {"seed": seed}
    for target in ("float", "xylo"):
        changes = [f"data.source.root={data}", f"train.target={target}", f"seed={seed}"]
        experiment, _ = override(read_file(Path(__file__).parents[1] / "fsdd_xylo.py"), changes)
        with tempfile.TemporaryDirectory() as folder:
            run = train(experiment, Path(folder) / "run", quiet=True)
            row[f"{target}, test accuracy"] = evaluate(run).accuracy
            if target == "xylo":
                found = export(run, Path(folder) / "digits.xylo", samples=1000)
                assert found is not None
                said = found.record()
                names = ("samples", "accuracy", "holds", "difference", "compared", "chips", "spikes", "operations")
                row |= {name: said[name] for name in names}
    print(row, flush=True)
    return row


def drawn(generator: np.random.Generator) -> Configuration:
    """A random network within the chip's limits."""
    hidden = tuple(map(int, generator.integers(1, 60, generator.integers(1, 4))))
    inputs, sizes, outputs = int(generator.integers(1, 17)), sum(hidden), int(generator.integers(1, 9))
    largest = int(generator.choice([8, 127]))

    def within(low: int, high: int, *shape: int) -> np.ndarray:
        return generator.integers(low, high + 1, shape)

    def weights(*shape: int) -> np.ndarray:
        return within(-largest - 1, largest, *shape) * (generator.random(shape) < generator.random())

    shifts = {f"weight_shift_{part}": int(generator.integers(0, 8)) for part in ("in", "rec", "out")}
    highest, bias = int(generator.choice([300, 3000, STATE_HIGH])), int(generator.choice([0, 50, 30000]))
    return Configuration(
        hidden=hidden, step_ms=1.0,
        weights_in=weights(inputs, sizes), weights_rec=weights(sizes, sizes), weights_out=weights(sizes, outputs),
        dash_syn=within(0, 15, sizes), dash_mem=within(0, 15, sizes), threshold=within(1, highest, sizes),
        bias_hidden=within(-bias, bias, sizes), dash_syn_out=within(0, 15, outputs),
        dash_mem_out=within(0, 15, outputs), threshold_out=within(1, highest, outputs),
        bias_out=within(-bias, bias, outputs), **shifts,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
