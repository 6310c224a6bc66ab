"""Where experiments and runs are. Nothing heavy is imported here: a path that leads nowhere is told at once."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from snn_bp.errors import SnnError
from snn_bp.files import check_can_write, is_there

CHECKPOINTS = ("last", "previous", "best")
SWEPT = "sweep.json"  # written when a sweep has chosen, and again behind each evaluation
COPY_IT = "Copy the run to where you may write."  # behind an error that it cannot be written into


def experiment_at(path: Path) -> Path:
    """The file of an experiment: `path` itself, or `experiment.json` in the folder of a run; raises without one."""
    file = path / "experiment.json" if path.is_dir() else path
    if not file.is_file():
        found = "it is no regular file" if is_there(file) else "there is no such file"
        raise SnnError(
            f"{file}: {found}. experiments/digits.py is the default experiment; `snn-bp init FOLDER` writes one for "
            "recordings of yours."
        )
    return file


def is_path(subject: str) -> bool:
    """Whether what somebody named is a path to an experiment or a run, not the name of a set of recordings."""
    path = Path(subject)
    return len(path.parts) != 1 or path.suffix in (".py", ".json") or is_there(path / "experiment.json")


def new_experiment_at(file: Path) -> Path:
    """`file`, the name of a Python file that can be written; raises where it cannot, or where one is there."""
    if file.suffix != ".py" or not re.fullmatch(r"[\w.-]+", file.name):
        raise SnnError(f"{file}: an experiment's file has a name of letters, digits, - and _, and ends in .py.")
    if is_there(file):
        raise SnnError(f"{file}: it is there already, and nothing is written over it. Name another --out.")
    if not file.parent.is_dir():
        raise SnnError(f"{file}: there is no folder {file.parent}. Make it, or name another --out.")
    check_can_write(file, "Name another --out.")
    return file


def run_at(path: Path) -> Path:
    """`path`, the folder of a run; raises where none is in it."""
    if is_there(path / "experiment.json"):
        return path
    found = "it is a file" if path.is_file() else "experiment.json is missing" if path.is_dir() else "it is not there"
    raise SnnError(f"{path}: no run is here, {found}. `snn-bp list` shows the runs.")


def runs_under(folder: Path) -> list[Path]:
    """The folders of runs from a folder down, in the order of their names; not what a run set aside within its own.

    Links to folders are followed, and each folder is one, whatever leads to it. A folder that cannot be read is among
    them, since it may be one: `Run` says why it is not opened.
    """
    found, seen = [], set()

    def note(problem: OSError) -> None:
        found.append(Path(problem.filename))

    for name, below, _ in os.walk(folder, followlinks=True, onerror=note):
        below.sort()
        path = Path(name)
        if (real := os.path.realpath(path)) in seen:
            below.clear()
            continue
        seen.add(real)
        is_run = is_there(path / "experiment.json") or is_there(path / "results.json")
        if is_run and not is_there(path.parent / "experiment.json"):
            found.append(path)
    return sorted(found)


def runs_at(paths: Sequence[Path]) -> list[Path]:
    """The folders of runs that paths name: each itself, or all below one that is no run."""
    found: list[Path] = []
    for path in paths:
        below = [path] if is_there(path / "experiment.json") else runs_under(path) if path.is_dir() else []
        found += [run for run in below if is_there(run / "experiment.json")] or [run_at(path)]
    return found
