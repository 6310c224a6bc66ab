"""A sweep that is killed several times beside the same runs one after another: equal bits, and how much faster it is.

    python experiments/benchmarks/sweep.py experiments/digits.py train.lr=4e-3,8e-3,1.6e-2 seed=0..4 --jobs 2 --kills 5

The runs by hand are the lines of `snn-bp sweep ... --list`, each in a process of its own; the time of the sweep is that
of one more that nobody kills. Both are timed `--repeats` times in turn, and the medians count: other work on a machine
that is shared meets both. All find data and kernels in their caches. Writes experiments/results/sweep.json.
"""

import argparse
import os
import shlex
import signal
import statistics
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
FIGURES = ("seconds", "processor_seconds")
TIMES = ("train_seconds",)  # figures that differ between equal runs


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("values", nargs="+")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "sweep.json")
    arguments = parser.parse_intermixed_args()
    asked = ["sweep", str(arguments.file), *arguments.values]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        lines = {}
        for turn in range(arguments.repeats):
            listed = subprocess.run(
                [*PROGRAM, *asked, "--list", "--out", str(out / f"hand {turn}")],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            lines[turn] = [shlex.split(line)[1:] for line in listed.stdout.splitlines()]
        asked += ["--jobs", str(arguments.jobs)]
        before, turns = os.getloadavg()[0], []
        for turn, by_hand in lines.items():
            turns.append(
                {
                    "by_hand": timed(by_hand),
                    "sweep": timed([[*asked, "--out", str(out / f"sweep {turn}")]]),
                }
            )
            print(turns[-1], flush=True)
        medians = {
            name: {figure: round(statistics.median(turn[name][figure] for turn in turns), 1) for figure in FIGURES}
            for name in ("by_hand", "sweep")
        }
        moments = kill(asked, out / "killed", kills=arguments.kills, seconds=medians["sweep"]["seconds"])
        subprocess.run([*PROGRAM, *asked, "--out", str(out / "killed")], check=True, stdout=subprocess.DEVNULL)
        swept = [out / "killed", *(out / f"sweep {turn}" for turn in lines)]
        result = {
            "experiment": f"experiments/{arguments.file.name}",
            "values": arguments.values,
            "runs": len(lines[0]),
            "jobs": arguments.jobs,
            "killed_after_seconds": moments,
            "equal": {each.name: is_equal(out / "hand 0", each) for each in swept},
            "medians": medians,
            "faster": round(medians["by_hand"]["seconds"] / medians["sweep"]["seconds"], 2),
            "turns": turns,
            "load_before": round(before, 2),
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": {name: version(name) for name in PACKAGES},
        }
    write_json(arguments.out, result)
    print(f"equal: {result['equal']}; {result['faster']} times as fast with {arguments.jobs} jobs")


def timed(commands: list[list[str]]) -> dict[str, float]:
    """Seconds that commands take one after another, and those that they compute."""
    began, computed = time.monotonic(), sum(os.times()[2:4])
    for words in commands:
        subprocess.run([*PROGRAM, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return dict(
        zip(FIGURES, (round(time.monotonic() - began, 1), round(sum(os.times()[2:4]) - computed, 1)), strict=True)
    )


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
