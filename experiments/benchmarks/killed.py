"""Does work killed with SIGKILL at any moment end as work left alone? Every weight, row, figure and file.

    python experiments/benchmarks/killed.py [--kills 100] [--seed 0]

Kills, each time afresh: training and the making of its data at random moments, the end of the last epoch at each of
its file operations, exporting and writing the page at random moments. Resumes (or, where no run stood yet, starts
again) with the command line and compares with what was left alone. Writes experiments/results/killed.json.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from forked import Ended, command, count_operations, fork, kill_at_operation

from snn_bp import LIF, BatchNorm, Data, Dense, Dropout, Experiment, Flatten, Run, Train, train
from snn_bp.files import write_json
from snn_bp.runs.provenance import machine, version

EXPERIMENT = Experiment(
    data=Data("digits", step_ms=52, steps=6, batch=64, translate_px=1, downsample=2),
    model=(
        *(Flatten(), Dense(64), BatchNorm(), LIF(beta=0.8, reset="zero"), Dropout(0.2)),
        *(Dense(10), BatchNorm(), LIF(beta=0.8, reset="zero")),
    ),
    train=Train(epochs=8, lr=4e-3),
)
TIMED = ("seconds", "wait_seconds", "samples_per_s", "peak_memory_mb")
PHASES = {"training": 40, "data": 15, "last epoch": 25, "export": 12, "report": 8}  # of every 100 kills


def begin(out: Path, *, save_seconds: float = 0.05) -> None:
    """Train the experiment into `out`, saving often, so that kills meet checkpoints being written."""
    train(EXPERIMENT, out, quiet=True, save_seconds=save_seconds)


def outcome(out: Path) -> str:
    """A text that is equal for equal runs: last and best weights, rows without times, results."""
    run = Run(out)
    rows = [{name: value for name, value in row.items() if name not in TIMED} for row in run.metrics()]
    results = {name: value for name, value in (run.results() or {}).items() if name in ("validation", "test")}
    weights = {
        f"{name} {key}": tensor.double().tolist()
        for name in ("last", "best")
        for key, tensor in run.load(name).weights.items()
    }
    return json.dumps([rows, run.layers(), results, weights], sort_keys=True)


def told(out: Path) -> str:
    """`outcome`, read in a fork: this process loads nothing that a later fork would inherit."""
    ended = fork(lambda: print(outcome(out)))
    return ended.out if ended.code == 0 else f"cannot be read: {ended.err[-300:]}"


def resumed(out: Path) -> Ended:
    """What `snn-bp resume` says, or a new start into the same folder where no run stood yet."""
    if (out / "experiment.json").exists():
        return command("resume", out)
    return fork(lambda: begin(out))


def of_training(folder: Path, alone: Path, draw: random.Random, seconds: float) -> dict[str, Any]:
    """Kill training at a random moment."""
    out = folder / "killed"
    at = draw.uniform(0, seconds)
    ended = fork(lambda: begin(out), kill_after_s=at)
    reached = len(Run(out).metrics()) if (out / "experiment.json").exists() else None
    return {"met_alive": ended.code != 0, "after_s": round(at, 2), "epochs": reached, **compared(out, alone)}


def of_last_epoch(folder: Path, alone: Path, index: int, operations: int) -> dict[str, Any]:
    """Kill at one of the file operations of the last epoch and of what follows it, each in its turn."""
    out = folder / "killed"
    number = operations - index % (2 * operations // EXPERIMENT.train.epochs)

    def work() -> None:
        kill_at_operation(number)
        begin(out, save_seconds=1e9)

    ended = fork(work)
    return {"met_alive": ended.code != 0, "operation": f"{number} of {operations}", **compared(out, alone)}


def of_data(folder: Path, alone: Path, draw: random.Random, seconds: float) -> dict[str, Any]:
    """Kill while the data are made into an empty cache, and use the same cache again."""
    out, at = folder / "killed", draw.uniform(0, seconds)
    elsewhere = {"SNN_BP_CACHE": str(folder / "cache")}
    ended = fork(lambda: begin(out), kill_after_s=at, environment=elsewhere)
    before = os.environ["SNN_BP_CACHE"]
    os.environ.update(elsewhere)
    try:
        return {"met_alive": ended.code != 0, "after_s": round(at, 2), **compared(out, alone)}
    finally:
        os.environ["SNN_BP_CACHE"] = before


def compared(out: Path, alone: Path) -> dict[str, Any]:
    """Whether the run in `out`, gone on with, ends like the one left alone."""
    ended = resumed(out)
    if ended.code != 0:
        return {"equal": False, "said": (ended.err + ended.out)[-300:]}
    return {"equal": told(out) == told(alone)}


def of_file(folder: Path, alone: Path, draw: random.Random, writes: "Writes") -> dict[str, Any]:
    """Kill a command that writes a file: it is whole or not there, and the command run again writes it."""
    shutil.copytree(alone, folder / "run")
    at, written = draw.uniform(0, writes.seconds), folder / writes.file
    ended = command(*writes.arguments, cwd=folder, kill_after_s=at)
    whole = not written.exists() or lines_of(written) == writes.right
    again = command(*writes.arguments, cwd=folder)
    same = again.code == 0 and lines_of(written) == writes.right and told(folder / "run") == told(alone)
    row = {"met_alive": ended.code != 0, "after_s": round(at, 2), "equal": whole and same}
    return row if row["equal"] else row | {"said": f"whole: {whole}; {again.err[-300:]}"}


@dataclass(frozen=True)
class Writes:
    """A command, the file that it writes, and what it wrote when left alone."""

    arguments: tuple[str, ...]
    file: str
    right: list[bytes]
    seconds: float


def left_alone(folder: Path, *arguments: str, file: str) -> Writes:
    """Let a command write its file."""
    ended = command(*arguments, cwd=folder)
    if ended.code != 0:
        raise SystemExit(f"{arguments}: {ended.err}")
    return Writes(arguments, file, lines_of(folder / file), ended.seconds)


def lines_of(file: Path) -> list[bytes]:
    """The lines of a file; of a page those that do not hold its time of day or the clock of a process."""
    lines = file.read_bytes().splitlines()
    return [line for line in lines if b"<time" not in line] if file.suffix == ".html" else lines


def prepare(folder: Path) -> dict[str, Callable[[Path, random.Random], dict[str, Any]]]:
    """For each phase what kills it, and compares with the run left alone."""
    alone = folder / "alone"
    fork(lambda: begin(folder / "warm"))  # compiles, and makes the data
    train_s = fork(lambda: begin(alone)).seconds
    counted = fork(lambda: print(count_operations(lambda: begin(folder / "counted", save_seconds=1e9))))
    operations, index = int(counted.out.split()[-1]), count()
    data_s = fork(lambda: begin(folder / "made"), environment={"SNN_BP_CACHE": str(folder / "empty")}).seconds - train_s
    shutil.copytree(alone, folder / "run")
    page = left_alone(
        folder, "report", "run", "--no-plots", file="run/report.html"
    )  # before there is an export to show
    export = left_alone(folder, "export", "run", "a.net", "--samples", "20", file="a.net")
    shutil.rmtree(folder / "run")
    print(f"left alone: training {train_s:.1f} s ({operations} operations), data {data_s:.1f} s, export "
          f"{export.seconds:.1f} s, page {page.seconds:.1f} s")  # fmt: skip
    return {
        "training": lambda at, draw: of_training(at, alone, draw, train_s),
        "data": lambda at, draw: of_data(at, alone, draw, max(data_s, 0.5)),
        "last epoch": lambda at, draw: of_last_epoch(at, alone, next(index), operations),
        "export": lambda at, draw: of_file(at, alone, draw, export),
        "report": lambda at, draw: of_file(at, alone, draw, page),
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=PHASES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["SNN_BP_CACHE"] = str(Path(temporary) / "cache")
        kill = prepare(Path(temporary))
        for phase, share in PHASES.items():
            draw = random.Random(f"{arguments.seed} {phase}")
            wanted = 0 if arguments.only not in (None, phase) else round(arguments.kills * share / 100)
            while sum(row["phase"] == phase for row in rows) < wanted:
                folder = Path(tempfile.mkdtemp(dir=temporary))
                row = {"phase": phase, **kill[phase](folder, draw)}
                shutil.rmtree(folder)
                if row.pop("met_alive"):  # else it had finished already: no kill
                    rows.append(row)
                    print(rows[-1], flush=True)
    same = sum(bool(row["equal"]) for row in rows)
    result = {
        "date": time.strftime("%Y-%m-%d"), "machine": machine(), "torch": version("torch"),
        "equal": same, "of": len(rows), "phases": dict(Counter(row["phase"] for row in rows)), "kills": rows,
    }  # fmt: skip
    if arguments.only is None and arguments.kills >= 100:
        write_json(Path(__file__).parents[1] / "results" / "killed.json", result)
    print(json.dumps({"equal": same, "of": len(rows)}))
    sys.exit(same != len(rows))


if __name__ == "__main__":
    main()
