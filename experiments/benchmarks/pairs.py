"""Whether a change of the code changed its speed: steps and starts of two checkouts, in turns in one run.

    python experiments/benchmarks/pairs.py OLD NEW [--pairs 40] [--starts 3] [--only W1 ...]

OLD and NEW are folders of two checkouts, each in a process of its own on one thread. A step is a whole training step of
one of the speed benchmark's works; the two take turns, the first of a pair changing, so that what disturbs the machine
meets both. A start is a command that trains one epoch of the default experiment, with empty caches and with filled
ones. Given are medians and the median of NEW over OLD within a pair. Writes experiments/results/pairs.json.
"""

import argparse
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

WORKS = ("W1", "W2", "W3", "W4")
WORKER = """
import sys, time
from pathlib import Path
checkout, name, folder = sys.argv[1:]
sys.path[:0] = [checkout, checkout + "/experiments/benchmarks"]
import torch
torch.set_num_threads(1)
from speed.ours import ours
from speed.works import WORKS, material
step = ours(WORKS[name], material(WORKS[name], Path(folder)))
for _ in range(3):
    step.run()
print("ready", flush=True)
for _ in sys.stdin:
    began = time.perf_counter()
    step.run()
    print(time.perf_counter() - began, flush=True)
"""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--starts", type=int, default=3, help="starts with filled caches, behind one with empty ones")
    parser.add_argument("--only", nargs="*", choices=WORKS, default=WORKS)
    arguments = parser.parse_args()
    checkouts = (arguments.old.resolve(), arguments.new.resolve())
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            rows[name] = compared(steps(checkouts, name, folder, arguments.pairs), 1000)
            print(name, rows[name], flush=True)
        if arguments.starts:
            first, *later = starts(checkouts, Path(folder), arguments.starts)
            rows |= {"first start": compared([first], 1), "later start": compared(later, 1)}
            print(rows["first start"], rows["later start"], flush=True)
    commits = [
        subprocess.run(["git", "-C", folder, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
        for folder in checkouts
    ]
    result = {
        "rows": rows, "pairs": arguments.pairs, "commits": [commit.strip() for commit in commits],
        "date": time.strftime("%Y-%m-%d"), "machine": machine(),
        "versions": {name: version(name) for name in ("torch", "numba", "numpy")},
    }  # fmt: skip
    write_json(Path(__file__).parents[1] / "results" / "pairs.json", result)


def compared(pairs: list[tuple[float, float]], unit: float) -> dict[str, float]:
    """Medians in ms (steps) or s (starts), and the middle and quartiles of NEW over OLD."""
    ratios = sorted(new / old for old, new in pairs)
    old, new = (statistics.median(values) * unit for values in zip(*pairs, strict=True))
    quarter = len(ratios) // 4
    return {
        "old": round(old, 2), "new": round(new, 2), "new_over_old": round(statistics.median(ratios), 3),
        "low": round(ratios[quarter], 3), "high": round(ratios[-1 - quarter], 3),
    }  # fmt: skip


def steps(checkouts: tuple[Path, Path], name: str, folder: str, pairs: int) -> list[tuple[float, float]]:
    """Seconds of a step of each checkout, pair by pair."""
    workers = []
    for checkout in checkouts:
        line = [sys.executable, "-c", WORKER, str(checkout), name, folder]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        workers.append(subprocess.Popen(line, env=environment(checkout), **pipes))
        assert workers[-1].stdout.readline() == "ready\n", f"{checkout} could not run {name}"
    found = []
    for number in range(pairs):
        seconds = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            workers[which].stdin.write("again\n")
            workers[which].stdin.flush()
            seconds[which] = float(workers[which].stdout.readline())
        found.append((seconds[0], seconds[1]))
    for worker in workers:
        worker.communicate()
    return found


def starts(checkouts: tuple[Path, Path], folder: Path, later: int) -> list[tuple[float, float]]:
    """Seconds of a command that trains one epoch: the first with empty caches, later ones with filled ones."""
    found = []
    for number in range(1 + later):
        seconds = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            caches = {"SNN_BP_CACHE": f"{folder}/cache{which}", "NUMBA_CACHE_DIR": f"{folder}/numba{which}"}
            checkout, run = checkouts[which], folder / f"run{which}_{number}"
            line = [
                sys.executable,
                "-m",
                "snn_bp",
                "train",
                "experiments/digits.py",
                "--out",
                str(run),
                "train.epochs=1",
            ]
            began = time.monotonic()
            subprocess.run(
                [*line, "train.epochs=1"],
                check=True,
                cwd=checkout,
                env=environment(checkout) | caches,
                capture_output=True,
            )
            seconds[which] = time.monotonic() - began
        found.append((seconds[0], seconds[1]))
    return found


def environment(checkout: Path) -> dict[str, str]:
    """Of a process that uses this checkout, on one thread; its modules are there in bytecode, as installed ones are."""
    chosen = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    chosen.pop("PYTHONDONTWRITEBYTECODE", None)
    return chosen


if __name__ == "__main__":
    main()
