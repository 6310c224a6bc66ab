"""Do runs on what is the user's own, killed with SIGKILL at random moments, end as runs left alone? Bit for bit.

    python experiments/benchmarks/killed_own.py [--kills 10] [--only CASE]

Each file of `own/` is an experiment with something of its own: recordings in five forms, layers, neurons, a loss, a
metric, a residual network. Each is trained once undisturbed, then killed and gone on with, each time afresh: a first
kill at a random moment of the run, a second one, of what went on, in every other trial. Compared are the last and best
weights, rows, layers and results. Writes experiments/results/killed_own.json; with `--only` that case in it alone.
"""

import argparse
import json
import os
import random
import runpy
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forked import Ended, command, fork
from killed import told

from snn_bp import Dataset, resume, train
from snn_bp.files import read_object, write_json
from snn_bp.runs.changes import override
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.provenance import machine, version

ROOT = Path(__file__).resolve().parents[2]
OWN = Path(__file__).parent / "own"
SIZE = (346, 260)


@dataclass(frozen=True)
class Case:
    """An experiment file of `own/`, and what makes the files that it reads, below a folder that `data.root` names."""

    file: str
    make: Callable[[Path], None] | None = None

    def dataset(self) -> Dataset | None:
        """The recordings that the file holds in memory, made anew; None where it names them."""
        return runpy.run_path(str(OWN / self.file))["dataset"] if self.file == "memory.py" else None

    def begin(self, out: Path, root: Path) -> None:
        """Train into `out`, saving often, so that kills meet checkpoints being written."""
        dataset = self.dataset()
        changes = [f"data.root={root}"] if self.make else []
        train(override(read_file(OWN / self.file), changes)[0], out, quiet=True, save_seconds=0.05, dataset=dataset)

    def go_on(self, out: Path, root: Path, **options: Any) -> Ended:
        """Go on as `snn-bp resume` does, or start where no run stood yet."""
        if not (out / "experiment.json").exists():
            return fork(lambda: self.begin(out, root), **options)
        if self.file == "memory.py":
            return fork(lambda: resume(out, quiet=True, dataset=self.dataset()), **options)
        return command("resume", out, **options)


def draw_bars(folder: Path, *, ending: str) -> None:
    """Events of bars that move right or down, a folder for each class, as files of a camera."""
    sys.path.insert(0, str(ROOT / "tests" / "data"))
    from event_files import write_evt3  # type: ignore[import-not-found]

    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 8)):
        for number in range(2 * count):
            direction = ("right", "down")[number % 2]
            events = np.zeros(400, [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "u1")])
            events["t"] = 5_000_000 + np.sort(rng.integers(0, 200_000, 400))
            events["x"], events["y"] = rng.integers(0, SIZE[0], 400), rng.integers(0, SIZE[1], 400)
            axis = "x" if direction == "right" else "y"
            events[axis] = (events["t"] - 5_000_000) * SIZE[axis == "y"] // 200_000
            events["p"] = rng.integers(0, 2, 400)
            file = folder / part / direction / f"{number}{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            if ending == ".npy":
                np.save(file, events)
            else:
                write_evt3(file, events)
                file.write_bytes(file.read_bytes().replace(b"height=480;width=640", b"height=260;width=346"))


CASES = {
    "folder of .npy, 346 x 260": Case("camera.py", partial(draw_bars, ending=".npy")),
    "EVT3 files, 346 x 260": Case("camera.py", partial(draw_bars, ending=".raw")),
    "tensor by Dataset.of": Case("memory.py"),
    "analog series by a source of one's own": Case("series.py"),
    "targets for every step, lengths that differ": Case("steps.py"),
    "layers of one's own": Case("layer.py"),
    "neurons of one's own": Case("neuron.py"),
    "loss of one's own": Case("loss.py"),
    "metric of one's own": Case("metric.py"),
    "residual network, joint of one's own": Case("residual.py"),
}


def kill_all(name: str, folder: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """Train a case undisturbed, and `kills` times killed: what came of each."""
    case, root, draw = CASES[name], folder / "recordings", random.Random(f"{seed} {name}")
    if case.make:
        case.make(root)
    checked(fork(lambda: case.begin(folder / "warm", root), limit_s=600))  # compiles, and fills the cache
    seconds = checked(fork(lambda: case.begin(folder / "alone", root), limit_s=600)).seconds
    alone, out, trials = told(folder / "alone"), folder / "killed", []
    print(f"{name}: {seconds:.1f} s left alone", flush=True)
    while len(trials) < kills:
        shutil.rmtree(out, ignore_errors=True)
        moments = [draw.uniform(0, seconds)]
        ended = fork(lambda: case.begin(out, root), kill_after_s=moments[0])
        if ended.code == 0:  # it had finished already: no kill
            continue
        if len(trials) % 2:
            at = draw.uniform(0, seconds)
            if case.go_on(out, root, kill_after_s=at).code != 0:
                moments.append(at)
        ended = case.go_on(out, root, limit_s=600)
        row: dict[str, Any] = {"after_s": [round(at, 2) for at in moments], "equal": told(out) == alone}
        if ended.code != 0:
            row |= {"equal": False, "said": (ended.err + ended.out)[-300:]}
        trials.append(row)
        print(f"  {row}", flush=True)
    return {"equal": sum(row["equal"] for row in trials), "of": len(trials), "trials": trials}


def checked(ended: Ended) -> Ended:
    """What ended well; raises where it did not."""
    if ended.code != 0:
        raise SystemExit(ended.err + ended.out)
    return ended


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=CASES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases: dict[str, Any] = {}
    for name in CASES if arguments.only is None else [arguments.only]:
        with tempfile.TemporaryDirectory() as temporary:
            os.environ["SNN_BP_CACHE"] = str(Path(temporary) / "cache")
            cases[name] = kill_all(name, Path(temporary), kills=arguments.kills, seed=arguments.seed)
    equal, of = (sum(case[key] for case in cases.values()) for key in ("equal", "of"))
    made = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "torch": version("torch")}
    result: dict[str, Any] = {**made, "equal": equal, "of": of, "cases": cases}
    file = ROOT / "experiments" / "results" / "killed_own.json"
    if arguments.only is not None and file.exists():
        result = read_object(file)
        result["cases"][arguments.only] = made | cases[arguments.only]
        result |= {key: sum(case[key] for case in result["cases"].values()) for key in ("equal", "of")}
    if arguments.kills >= 10:
        write_json(file, result)
    print(json.dumps({"equal": equal, "of": of}))
    sys.exit(equal != of)


if __name__ == "__main__":
    main()
