"""A sweep that is killed several times beside the same runs one after another: equal bits, and how much faster it is.

    python experiments/benchmarks/sweep.py experiments/digits.py train.lr=4e-3,8e-3,1.6e-2 seed=0..4 --jobs 2 --kills 5

The runs by hand are the lines of `snn-bp sweep ... --list`, each in a process of its own; the time of the sweep is that
of one more that nobody kills. All find data and kernels in their caches. Writes experiments/results/sweep.json.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

from snn_bp import Run, compare
from snn_bp.files import write_json
from snn_bp.runs.provenance import machine, version

PACKAGES = ("snn_bp", "torch", "numpy", "numba")
PROGRAM = [sys.executable, "-m", "snn_bp"]
TIMES = ("train_seconds",)  # figures that differ between equal runs


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("values", nargs="+")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "sweep.json")
    arguments = parser.parse_intermixed_args()
    asked = ["sweep", str(arguments.file), *arguments.values]
    with tempfile.TemporaryDirectory() as folder:
        hand, whole, killed = (Path(folder) / name for name in ("hand", "whole", "killed"))
        listed = subprocess.run(
            [*PROGRAM, *asked, "--list", "--out", str(hand)], check=True, capture_output=True, text=True
        )
        lines = listed.stdout.splitlines()
        before, began, computed = os.getloadavg()[0], time.monotonic(), of_processor()
        for line in lines:
            subprocess.run([*PROGRAM, *shlex.split(line)[1:]], check=True, stdout=subprocess.DEVNULL)
        by_hand, of_hand = time.monotonic() - began, of_processor() - computed
        asked += ["--jobs", str(arguments.jobs)]
        began, computed = time.monotonic(), of_processor()
        subprocess.run([*PROGRAM, *asked, "--out", str(whole)], check=True, stdout=subprocess.DEVNULL)
        swept, of_sweep = time.monotonic() - began, of_processor() - computed
        moments = kill(asked, killed, kills=arguments.kills, seconds=swept)
        subprocess.run([*PROGRAM, *asked, "--out", str(killed)], check=True, stdout=subprocess.DEVNULL)
        result = {
            "experiment": f"experiments/{arguments.file.name}",
            "values": arguments.values,
            "runs": len(lines),
            "jobs": arguments.jobs,
            "killed_after_seconds": moments,
            "equal": {each.name: is_equal(hand, each) for each in (whole, killed)},
            "seconds_by_hand": round(by_hand, 1),
            "seconds_of_sweep": round(swept, 1),
            "faster": round(by_hand / swept, 2),
            "processor_seconds_by_hand": round(of_hand, 1),
            "processor_seconds_of_sweep": round(of_sweep, 1),
            "load_before": round(before, 2),
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": {name: version(name) for name in PACKAGES},
        }
    write_json(arguments.out, result)
    print(f"equal: {result['equal']}; {result['faster']} times as fast with {arguments.jobs} jobs")


def of_processor() -> float:
    """Seconds that the processes begun here have computed, those that have ended."""
    return sum(os.times()[2:4])


def kill(asked: list[str], out: Path, *, kills: int, seconds: float) -> list[float]:
    """Start the sweep and kill it and all that it started, at moments spread over its time."""
    moments = []
    for _ in range(kills):
        sweep = subprocess.Popen([*PROGRAM, *asked, "--out", str(out)], stdout=subprocess.DEVNULL)
        moments.append(round(seconds / (kills + 1), 1))
        time.sleep(moments[-1])
        begun = begun_by(sweep.pid)
        sweep.kill()
        for process in begun:
            with suppress(ProcessLookupError):  # it ended by itself
                os.kill(process, signal.SIGKILL)
        sweep.wait()
    return moments


def begun_by(process: int) -> list[int]:
    """The processes that one began, and those that they began."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True)
    return [each for child in map(int, found.stdout.split()) for each in (child, *begun_by(child))]


def is_equal(hand: Path, other: Path) -> bool:
    """Whether both folders hold the same runs: weights of both checkpoints, and the table without its times."""
    for path in sorted(file.parent for file in hand.glob("*/experiment.json")):
        for checkpoint in ("last", "best"):
            mine, theirs = (Run(folder / path.name).load(checkpoint).weights for folder in (hand, other))
            if mine.keys() != theirs.keys() or not all(torch.equal(mine[name], theirs[name]) for name in mine):
                return False
    figures = [
        [
            {name: spread for name, spread in group.figures.items() if name not in TIMES}
            for group in compare([folder]).groups
        ]
        for folder in (hand, other)
    ]
    return figures[0] == figures[1]


if __name__ == "__main__":
    main()
