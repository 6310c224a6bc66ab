"""Test accuracy and wall time of an experiment over seeds, each run by the command a user types.

    python experiments/benchmarks/accuracy.py experiments/digits.py --seeds 3 [key=value ...]

Writes experiments/results/NAME.json: per seed the figures of the run's results.json and the seconds of the whole
command, start-up and building of the data included, with date, machine and versions. The data's and numba's caches are
empty for the first seed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from snn_bp.files import write_json
from snn_bp.runs.provenance import machine, version

PACKAGES = ("snn_bp", "torch", "numpy", "numba", "tonic")


def measure(file: Path, seed: int, changes: list[str], folder: Path) -> dict[str, Any]:
    """Train once in a process of its own."""
    out = folder / f"run-{seed}"
    caches = {"SNN_BP_CACHE": str(folder / "cache"), "NUMBA_CACHE_DIR": str(folder / "numba")}
    command = [sys.executable, "-m", "snn_bp", "train", str(file), "--out", str(out), f"seed={seed}", *changes]
    began = time.monotonic()
    subprocess.run(command, check=True, env=os.environ | caches, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    results = json.loads((out / "results.json").read_text())
    test = results["test"]
    row = {key: test[key] for key in ("accuracy", "correct", "samples", "low", "high")}
    row |= {"validation": results["validation"]["accuracy"], "best_epoch": results["best_epoch"]}
    row |= {"spikes": sum(test["spikes"].values()), "operations": sum(test["operations"].values())}
    return {"seed": seed, **row, "seconds": round(seconds, 1), "notes": results["notes"]}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("changes", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_intermixed_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            rows.append(measure(arguments.file, seed, arguments.changes, Path(folder)))
            print(rows[-1], flush=True)
    shown = [change for change in arguments.changes if not change.startswith("data.root=")]  # no machine's paths
    result = {
        "experiment": f"experiments/{arguments.file.name}",
        "changes": shown,
        "mean_accuracy": statistics.mean(row["accuracy"] for row in rows),
        "longest_seconds": max(row["seconds"] for row in rows),
        "runs": rows,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    write_json(Path(__file__).parents[1] / "results" / f"{arguments.file.stem}.json", result)
    print(f"mean accuracy {result['mean_accuracy']:.4f}, longest {result['longest_seconds']} s")


if __name__ == "__main__":
    main()
