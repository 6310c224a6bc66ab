"""The commands of `snn-bp data`: what is done with a set of recordings before anything is trained on it."""

import shlex
from typing import Annotated

import typer

from snn_bp.cli.program import Changes, Trust, app, command, set_named
from snn_bp.errors import SnnError
from snn_bp.runs.paths import is_path

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


AnySet = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE|NAME",
        help="An experiment's file, or a set; without it, all sets.",
        callback=lambda subject: subject and set_named(subject),
    ),
]
Hashes = Annotated[bool, typer.Option("--hash", help="Read the archives and compare their hashes.")]


@command("snn-bp data check", "snn-bp data check shd data.root=/data", "snn-bp data check nmnist --hash", group=sets)
def check(subject: AnySet = None, changes: Changes = None, hashes: Hashes = False, trust_code: Trust = False) -> None:
    """Show what is there of a set, and where it comes from.

    How many of its recordings, what is damaged, its licence, archives and mirrors,
    and the command that goes on. Of a folder of your own every file is read: its
    recordings by split and class. Exit code 1 where there is nothing to train on,
    or a file is damaged.
    """
    from snn_bp.data.copies import lines_of, look, table_of

    if subject is None:
        if hashes:
            raise SnnError("data check --hash: it reads the archives of one set. As in data check nmnist --hash.")
        for line in table_of():
            print(line)
        return
    if is_path(subject):
        told = _of_file(subject, changes or [], trust_code, hashes=hashes)
        if isinstance(told, int):
            raise typer.Exit(told)
        name, root = told
    else:
        name, root = subject, _root(subject, changes or [])
    if name == "digits":
        if hashes:
            raise SnnError("data check digits --hash: they are made here, of no archives. Leave --hash out.")
        print("digits: made here, of images that scikit-learn ships; no files are looked for")
        return
    copy = look(name, root, hashes=hashes)
    for line in lines_of(copy):
        print(line)
    if not copy.can_train:
        raise typer.Exit(1)


def _of_file(subject: str, changes: list[str], trust_code: bool, *, hashes: bool) -> tuple[str, str | None] | int:
    """The name of the set that an experiment's file names, and the folder of its files.

    Of recordings of the user's own what is there is printed; then it is the exit code.
    """
    from snn_bp.data.catalogue import IN_MEMORY
    from snn_bp.data.description import TONIC, source_of
    from snn_bp.data.folder import Folder
    from snn_bp.data.survey import look_through
    from snn_bp.data.tonic_sets import TonicSet
    from snn_bp.runs.experiment_file import data_named

    data, _ = data_named(subject, changes, trust_code=trust_code)
    source, build = source_of(data), shlex.join(["snn-bp", "data", "build", subject, *changes])
    if isinstance(source, TonicSet):
        return f"{TONIC}{source.name}", source.root
    if source is None and data.name != IN_MEMORY:
        return data.name, data.root
    if hashes:
        raise SnnError(f"data check {subject} --hash: hashes are known of published archives alone. Leave --hash out.")
    if isinstance(source, Folder):
        lines, can_train = look_through(source)
        for line in lines:
            print(line)
        print(f"next:    {'' if can_train else 'see to what is missing or damaged, then '}{build}")
        return int(not can_train)
    if source is None:
        print("in memory: its recordings are handed to train, by Dataset.of(...); there are no files to look for")
        return 0
    print(f"{data.name}: a source of your own, which alone knows its files; `{build}` reads all its recordings")
    return 0


def _root(subject: str, changes: list[str]) -> str | None:
    """The folder that changes name for a set by its name."""
    roots = [change.removeprefix("data.root=") for change in changes if change.startswith("data.root=")]
    if len(roots) < len(changes):
        raise SnnError(
            f"data check {subject} {' '.join(changes)}: of a set by its name, data.root=FOLDER is all to say."
        )
    return roots[-1] if roots else None
