"""The command `sweep`: a run for each point of a grid or each trial, then the table and the curves of all."""

import shlex
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from snn_bp.cli.program import File, Out, Trust, command, number, start
from snn_bp.errors import SnnError
from snn_bp.files import is_there
from snn_bp.runs.paths import SWEPT
from snn_bp.runtime.prepared import Prepared, environment_of_each
from snn_bp.runtime.signals import stopped_at_once

Values = Annotated[list[str], typer.Argument(metavar="KEY=A,B", help="Values, as train.lr=1e-3,3e-3 or seed=0..4.")]
Jobs = Annotated[int, number("--jobs", "How many runs at a time; they share the cores.", integer=True, low=1)]
Trials = Annotated[int | None, number("--trials", "How many points Optuna proposes.", integer=True, low=2)]


@command(
    "snn-bp sweep mine.py train.lr=1e-3,3e-3 seed=0..4 --jobs 2",
    "snn-bp sweep mine.py 'train.lr=log(1e-4,1e-2)' seed=0..2 --trials 30",
    "snn-bp sweep mine.py seed=0..99 --list",
    starts=True,
)
def sweep(
    file: File,
    changes: Values,
    jobs: Jobs = 1,
    trials: Trials = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Print a command for each run that is left; train none.")
    ] = False,
    out: Out = None,
    trust_code: Trust = False,
) -> None:
    """Train a grid of settings, or search for the best one.

    In one folder, runs/NAME-sweep, which the same command goes on with after any
    stop. The setting that is best on validation is evaluated on the test split, once.
    With --trials, values are log(1e-4,1e-2), uniform(0.5,1) or choice(64,128), and
    each trial has a run for every seed.
    """
    folder = out or Path("runs") / f"{file.parent.name if file.stem == 'experiment' else file.stem}-sweep"
    with Prepared(file) as begun:
        if not (list_ or is_there(folder / SWEPT)):
            begun.begin(environment_of_each(jobs))  # beside what is imported here
        start("sweep")
        if list_:
            _list(file, changes, folder, trials, trust_code)
        else:
            _sweep(file, changes, folder, jobs, trials, trust_code, begun)


def _list(file: Path, changes: list[str], folder: Path, trials: int | None, trust_code: bool) -> None:
    from snn_bp.searches import jobs as runs

    if trials is not None:
        raise SnnError("sweep: --list knows no trials, each is proposed by what those before it found. Leave one.")
    listed = runs.jobs_of(file, changes, folder, trust_code=trust_code)
    with redirect_stdout(sys.stderr):
        runs.check_comparable(listed)
    for line in runs.commands_of(listed, file, trust_code=trust_code):
        print(line)


def _sweep(
    file: Path, changes: list[str], folder: Path, jobs: int, trials: int | None, trust_code: bool, begun: Prepared
) -> None:
    from snn_bp.reports import compare
    from snn_bp.searches.study import sweep_over

    again = shlex.join(["snn-bp", *sys.argv[1:]])
    with stopped_at_once(folder, command=again):
        found = sweep_over(
            file, changes, folder, parallel=jobs, trials=trials, command=again, trust_code=trust_code, begun=begun
        )
        table = replace(compare(found.paths), chosen=tuple(found.lines()))
        for ending in ("csv", "html"):
            table.write(folder / f"compared.{ending}")
    print(table if trials is None else found)
    print(f"table and curves of all runs: {folder / 'compared.html'}")
