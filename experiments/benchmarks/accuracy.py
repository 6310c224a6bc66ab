"""Test figures and wall time of an experiment over seeds, each run by the command a user types.

    python experiments/benchmarks/accuracy.py experiments/digits.py --seeds 3 [key=value ...]
    python experiments/benchmarks/accuracy.py experiments/fsdd.py --name fsdd_speakers --seeds 1 \
        data.source.pooled=yes --each 'data.test_groups=("speaker 0",)' 'data.test_groups=("speaker 1",)'
    python experiments/benchmarks/accuracy.py experiments/braille.py --name braille_loihi train.target=loihi --export

Writes experiments/results/NAME.json: per seed, and per change of `--each`, the figures of the run's results.json and
the seconds of the whole command, start-up and building of the data included, with date, machine and versions; with
`--export` also what verifying the run's `.net` file on all test recordings found. The data's and numba's caches are
empty for the first run.
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
FIGURES = ("accuracy", "correct", "samples", "steps", "low", "high")
ALL = "1000000"  # test recordings
OF_A_MACHINE = ("data.root=", "data.source.root=")


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("changes", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--each", nargs="+", default=[], help="changes, each of which is made in turn")
    parser.add_argument("--name", help="of the result's file; that of the experiment unless given")
    parser.add_argument("--export", action="store_true", help="also write and verify a .net file of each run")
    arguments = parser.parse_intermixed_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for change in arguments.each or [None]:
            for seed in range(arguments.seeds):
                out = Path(folder) / f"run-{len(rows)}"
                changes = [*arguments.changes, *([change] if change else [])]
                row = measure(arguments.file, seed, changes, out, export=arguments.export)
                rows.append({"change": change, **row} if change else row)
                print(rows[-1], flush=True)
    metric = rows[0]["metric"]
    values = [row[metric] for row in rows]
    result = {
        "experiment": f"experiments/{arguments.file.name}",
        "changes": [change for change in arguments.changes if not change.startswith(OF_A_MACHINE)],
        f"mean_{metric}": statistics.mean(values),
        "longest_seconds": max(row["seconds"] for row in rows),
        "runs": rows,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    write_json(Path(__file__).parents[1] / "results" / f"{arguments.name or arguments.file.stem}.json", result)
    print(f"mean {metric} {statistics.mean(values):.4f}, longest {result['longest_seconds']} s")


def measure(file: Path, seed: int, changes: list[str], out: Path, *, export: bool) -> dict[str, Any]:
    """Train once in a process of its own, and export where that is asked for."""
    environment = os.environ | {
        "SNN_BP_CACHE": str(out.parent / "cache"),
        "NUMBA_CACHE_DIR": str(out.parent / "numba"),
    }
    command = [sys.executable, "-m", "snn_bp"]
    began = time.monotonic()
    training = [*command, "train", str(file), "--out", str(out), f"seed={seed}", *changes]
    subprocess.run(training, check=True, env=environment, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    results = json.loads((out / "results.json").read_text())
    test, validation = results["test"], results.get("validation")
    metric = test["metric"]
    row = {"metric": metric, metric: test["metrics"][metric]} | {key: test[key] for key in FIGURES if key in test}
    if validation:
        row["validation"] = validation["metrics"][metric]
    row |= {"best_epoch": results["best_epoch"], "parameters": results["parameters"]}
    row |= {"spikes": sum(test["spikes"].values()), "operations": sum(test["operations"].values())}
    if export:
        net = out / "network.net"
        writing = [*command, "export", str(out), str(net), "--samples", ALL]
        subprocess.run(writing, check=True, env=environment, stdout=subprocess.DEVNULL)
        record = json.loads(next((out / "export").glob("*.json")).read_text())
        row["exported"] = {key: value for key, value in record.items() if key not in ("weights", "file")}
    return {"seed": seed, **row, "seconds": round(seconds, 1), "notes": results["notes"]}


if __name__ == "__main__":
    main()
