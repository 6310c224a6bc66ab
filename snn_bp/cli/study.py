"""The command `sweep`: a run for each point of a grid, then the table and the curves of all."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from snn_bp.cli.program import File, Out, Trust, number

Values = Annotated[list[str], typer.Argument(metavar="KEY=A,B", help="Values, as train.lr=1e-3,3e-3 or seed=0..4.")]
Jobs = Annotated[int, number("--jobs", "How many runs at a time; they share the cores.", integer=True, low=1)]


def sweep(
    file: File,
    changes: Values,
    jobs: Jobs = 1,
    list_: Annotated[
        bool, typer.Option("--list", help="Print a command for each run that is left; train none.")
    ] = False,
    out: Out = None,
    trust_code: Trust = False,
) -> None:
    """Train a run for each combination of values.

    In one folder, runs/NAME-sweep, which the same command goes on with after any
    stop. The setting that is best on validation is evaluated on the test split, once.
    """
    from snn_bp.reports import compare
    from snn_bp.searches import sweeping

    folder = out or Path("runs") / f"{file.parent.name if file.stem == 'experiment' else file.stem}-sweep"
    runs = sweeping.jobs_of(file, changes, folder, trust_code=trust_code)
    if list_:
        for line in sweeping.commands_of(runs, file, trust_code=trust_code):
            print(line)
        return
    command = shlex.join(["snn-bp", *sys.argv[1:]])
    found = sweeping.run_sweep(runs, file, folder, parallel=jobs, command=command, trust_code=trust_code)
    table = compare([job.path for job in runs])
    print(table)
    for line in sweeping.lines_of(found):
        print(line)
    for ending in ("csv", "html"):
        table.write(folder / f"compared.{ending}")
    print(f"table and curves of all runs: {folder / 'compared.html'}")
