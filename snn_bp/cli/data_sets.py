"""The commands of `snn-bp data`: what is done with a set of recordings before anything is trained on it."""

from typing import Annotated

import typer

from snn_bp.cli.program import Changes, Trust, app, command, set_named

sets = typer.Typer(help="Recordings, before anything is trained on them.", rich_markup_mode=None)
app.add_typer(sets, name="data")

Set = Annotated[
    str,
    typer.Argument(
        metavar="FILE|NAME", help="An experiment's file, or a set: nmnist, shd, tonic:NCALTECH101.", callback=set_named
    ),
]


@command("snn-bp data build mine.py", "snn-bp data build dvs_gesture data.root=/data", group=sets)
def build(subject: Set, changes: Changes = None, trust_code: Trust = False) -> None:
    """Read a set into the cache, which trainings then start from.

    A build that was stopped or killed goes on where it stood.
    """
    from snn_bp.data.built import build as build_set
    from snn_bp.runs.experiment_file import data_named

    data, said = data_named(subject, changes or [], trust_code=trust_code)
    for line in said:
        print(line)
    for line in build_set(data):
        print(line)
