"""The program `snn-bp`: how a command comes into it, what arguments and options commands share; and `main`.

What is wrong with these is told before anything heavy is imported.
"""

import functools
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snn_bp.errors import SnnError, check_choice, check_number, typed
from snn_bp.files import check_can_write, is_there
from snn_bp.runs.paths import CHECKPOINTS, experiment_at, is_path, new_experiment_at, run_at, runs_at
from snn_bp.runtime.console import guarded
from snn_bp.runtime.processes import check_alone, interrupted_later
from snn_bp.runtime.signals import end_with_interrupt
from snn_bp.runtime.status import phase, say

if TYPE_CHECKING:
    from snn_bp.runs.experiment import Experiment
    from snn_bp.trainer.logs import TensorBoard

TOGETHER = ("train", "resume")  # the commands that several processes run as one
EXPORTED = (".net", ".xylo", ".nir", ".v")  # the formats of export


def examples(*lines: str) -> str:
    """What stands below a help text, line by line as it is."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


app = typer.Typer(
    name="snn-bp",
    help="Train spiking networks by backpropagation through time.",
    epilog=examples(
        "snn-bp train experiments/digits.py    # the default experiment, no download",
        "snn-bp init recordings                # an experiment for files of your own",
        "snn-bp train --help                   # a command, with examples",
    ),
    rich_markup_mode=None,  # 80 columns of plain text; Rich takes longer to import than the rest
    pretty_exceptions_enable=False,
)


def show_version(value: bool) -> None:
    """Print the versions of the package, of torch and of Python, and end."""
    if value:
        python = ".".join(map(str, sys.version_info[:3]))
        print(f"snn-bp {version('snn_bp')}, torch {version('torch')}, Python {python}")
        raise typer.Exit


@app.callback()
def versions(
    version: Annotated[
        bool, typer.Option("--version", help="Print the versions, and end.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Train spiking networks by backpropagation through time."""


def command(
    *lines: str, name: str | None = None, group: typer.Typer = app, starts: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command of `snn-bp`, or of a group of its commands, with examples in its help.

    With `starts` it calls `start` itself, behind what it begins before.
    """

    def registered(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(**given: Any) -> None:
            check_folder()
            if not starts:
                start(name or function.__name__)
            function(**given)

        group.command(name, epilog=examples(*lines))(run)
        return function

    return registered


def start(name: str) -> None:
    """Import what every command takes, and raise where several processes run one that only one can."""
    with phase("starting"), interrupted_later():
        import torch  # noqa: F401 - here, where Ctrl-C still ends it in silence

        import snn_bp.runs.experiment_file  # noqa: F401

    end_with_interrupt()
    if name not in TOGETHER:
        check_alone(f"snn-bp {name}", advice="Start it without torchrun.")


def check_folder() -> None:
    """Raise where the shell stands in a folder that was removed: libraries, looked for from there, fail to load."""
    try:
        os.getcwd()
    except OSError:
        raise SnnError("the folder that this shell stands in was removed. `cd` to one that is there.") from None


def one_of(name: str, *choices: str, help: str) -> Any:
    """An option that is one of a few words, which the shell completes."""

    def checked(value: str | None) -> str | None:
        if value is not None:
            check_choice(name, value, choices)
        return value

    return typer.Option(help=help, callback=checked, autocompletion=lambda: list(choices))


def number(name: str, help: str, **bounds: Any) -> Any:
    """An option that is a number, or left out, within bounds as `check_number` takes them."""

    def checked(value: float | None) -> float | None:
        if value is not None:
            check_number(name, value, **bounds)
        return value

    return typer.Option(help=help, callback=checked)


def ending(*known: str) -> Callable[[Path | None], Path | None]:
    """Raises where a file's ending is none of these."""

    def checked(file: Path | None) -> Path | None:
        if file is not None and file.suffix not in known:
            raise SnnError(f"{file}: the ending says the format, {' or '.join(known)}.")
        return file

    return checked


def writable(*known: str) -> Callable[[Path | None], Path | None]:
    """Raises where a file's ending is none of these, or it cannot be written where it would lie."""

    def checked(file: Path | None) -> Path | None:
        if ending(*known)(file) is not None and file is not None:
            if not file.parent.is_dir():
                raise SnnError(f"{file}: there is no folder {file.parent}. Make it, or name another --out.")
            check_can_write(file, "Name another --out.")
        return file

    return checked


def experiment_named(file: Path) -> Path:
    """Raise where a path leads to no experiment."""
    experiment_at(file)
    return file


def set_named(subject: str) -> str:
    """A set's name, or a path to an experiment; raises where such a path leads to none."""
    if is_path(subject):
        experiment_at(Path(subject))
    return subject


def runs_named(paths: Any) -> list[Path]:  # typer and Python 3.10 fail on a callback's `list[Path]`
    """The runs that paths lead to; raises where there is none."""
    return runs_at(paths)


def subject_named(path: Path) -> Path:
    """Raise where a path leads to no run and no experiment."""
    return run_at(path) if path.is_dir() else experiment_named(path)


def folder_at(folder: Path) -> Path:
    """Raise where a folder of runs is not there."""
    if not folder.is_dir():
        raise SnnError(f"{folder}: there is no such folder. `snn-bp list FOLDER` looks elsewhere.")
    return folder


def new_file(file: Path | None) -> Path | None:
    """Raise where a new experiment's file cannot be written."""
    return file and new_experiment_at(file)


def recordings_below(folder: Path) -> Path:
    """Raise where a folder of recordings is not there."""
    if not folder.is_dir():
        found = "it is a file" if folder.is_file() else "there is no such folder"
        raise SnnError(f"{folder}: {found}. Name the one that holds a folder for each class, or a table.")
    return folder


def recordings_at(files: Any) -> list[Path]:  # likewise
    """Raise where a file of events is not there."""
    for file in files:
        if not is_there(file) or file.is_dir():
            found = "it is a folder" if file.is_dir() else "there is no such recording"
            raise SnnError(f"{file}: {found}. Name files that are there, as new/*.npy.")
    return files


def exported_at(file: Path) -> Path:
    """Raise where an exported file is not there, or its name is none of one."""
    ending(*EXPORTED)(file)
    if not is_there(file):
        raise SnnError(f"{file}: there is no such file. `snn-bp export RUN {typed(file)}` writes one.")
    return file


File = Annotated[
    Path,
    typer.Argument(help="A Python file that defines `experiment`, or an experiment.json.", callback=experiment_named),
]
Folder = Annotated[Path, typer.Argument(help="The folder of a run.", callback=run_at)]
Changes = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes, as train.lr=1e-3 or data.batch=32.")
]
Out = Annotated[Path | None, typer.Option(help="The new run's folder; by default runs/NAME, or the next free number.")]
Subject = Annotated[Path, typer.Argument(help="The folder of a run, or an experiment's file.", callback=subject_named)]
AsJson = Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")]
Table = Annotated[
    Path | None, typer.Option(help="Write it to FILE.csv or FILE.json too.", callback=writable(".csv", ".json"))
]
Compared = Annotated[
    Path | None,
    typer.Option(
        help="Write it to FILE.csv or FILE.json too, or to a page, FILE.html.",
        callback=writable(".csv", ".json", ".html"),
    ),
]
Target = Annotated[
    Path,
    typer.Argument(help="The file: its ending .net, .xylo, .nir or .v says the format.", callback=ending(*EXPORTED)),
]
Compatible = Annotated[
    str | None, one_of("--compatible", "1.0.4", help="Of a .nir file: 1.0.4, for NIR up to that version.")
]
Exported = Annotated[Path, typer.Argument(help="The exported file, .net, .xylo, .nir or .v.", callback=exported_at)]
Parallel = Annotated[int | None, number("--parallel", "Of .v: neurons of a layer at once (8).", integer=True, low=1)]
Simulator = Annotated[str | None, one_of("--simulator", "iverilog", "verilator", help="Of .v: iverilog or verilator.")]
Synthesis = Annotated[
    str | None, one_of("--synthesis", "ice40", "ecp5", "xc7", help="Of .v: what it takes of an FPGA, by yosys.")
]
Step = Annotated[float | None, number("--step", "Of a .nir file: seconds of a time step (1e-4).", above=0)]
Count = Annotated[int, number("--recordings", "How many training recordings to take.", integer=True, low=1)]
Budget = Annotated[int, number("--budget", "Sample evaluations: forward 1, backward 2.", integer=True, low=1)]
Population = Annotated[int | None, number("--population", "Points of a generation.", integer=True, low=1)]
Lava = Annotated[int, number("--lava", "Replay so many recordings in Lava's client too.", integer=True, low=0)]
Split = Annotated[str, one_of("--split", "test", "validation", "train", help="test, validation or train.")]
Samples = Annotated[int, number("--samples", "How many recordings are replayed.", integer=True, low=1)]
Batch = Annotated[
    int | None, number("--batch", "Recordings at a time; by default as in training.", integer=True, low=1)
]
Checkpoint = Annotated[str, one_of("--checkpoint", *CHECKPOINTS, help="best, last or previous.")]
Recordings = Annotated[
    list[Path], typer.Argument(help="Files of events, of any format that `read_events` knows.", callback=recordings_at)
]
Runs = Annotated[list[Path], typer.Argument(help="Folders of runs, or folders that hold them.", callback=runs_named)]
Sort = Annotated[str, one_of("--sort", "run", "date", "data", "metric", help="run, date, data or metric.")]
Method = Annotated[str, one_of("--method", "ga", "pso", "es", "bptt", help="ga, pso, es or bptt.")]
Objective = Annotated[str, one_of("--objective", "loss", "accuracy", "spikes", help="loss, accuracy or spikes.")]
Below = Annotated[Path, typer.Argument(help="Where to look.", callback=folder_at)]
NewFile = Annotated[Path | None, typer.Option(help="The new file; by default named as the folder.", callback=new_file)]
Source = Annotated[Path, typer.Argument(help="A folder of recordings.", callback=recordings_below)]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="How files are read: columns, unit, suffix, table.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Train anew from the start; what was trained is kept in a folder aside.")
]
Trust = Annotated[bool, typer.Option("--trust-code", help="Run the code that came with the folder of another's run.")]
Logged = Annotated[
    str | None, one_of("--log", "tensorboard", help="tensorboard: logs to tensorboard/NAME beside the run.")
]
Port = Annotated[
    int | None, number("--port", "Where the page is; by default a free port.", integer=True, low=1, high=65535)
]
Ann = Annotated[
    str | None,
    one_of("--ann", "summed", "frames", help="The ANN of the same shape too; it sees events summed, or frames."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show shapes, parameters, memory and time; train nothing.")]


def main(experiment: "Experiment", arguments: Sequence[str] | None = None) -> None:
    """Turn an experiment file into a script, `python FILE [key=value ...]`, with --out, --dry-run, --log and --ann.

    `experiment` is what it trains; `arguments` (None) stand for those of the command line.

    >>> experiment = Experiment(Data("digits"), (Flatten(), Dense(10), LIF(beta=Tau(100))))
    >>> if __name__ == "__main__":  # at the end of the file
    ...     main(experiment)
    """
    from snn_bp.runs.experiment_file import is_read
    from snn_bp.runs.own_code import own_kinds_in

    names = sys._getframe(1).f_globals
    if is_read(names):
        return  # a file that `snn-bp` reads to get at its experiment is no program
    script = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

    @script.command(help=(sys.modules["__main__"].__doc__ or "").strip() or None)
    def command(
        changes: Changes = None, out: Out = None, dry_run: DryRun = False, log: Logged = None, ann: Ann = None
    ) -> None:
        train_named(experiment, own_kinds_in(names), Path(sys.argv[0]).stem, changes or [], out, dry_run, log, ann)

    guarded(script, arguments)


def train_named(
    experiment: "Experiment", kinds: dict[str, type], name: str, changes: list[str], out: Path | None, dry_run: bool,
    log: str | None = None, ann: str | None = None,
) -> None:  # fmt: skip
    """Train an experiment with changes into a folder, `runs/NAME` where none is given; beside it the ANN, if asked."""
    from snn_bp.data import load
    from snn_bp.runs.changes import override
    from snn_bp.trainer.dry_run import dry_run as show_dry_run
    from snn_bp.trainer.loop import train as train_run

    experiment, said = override(experiment, changes, kinds)
    for line in said:
        say(line)
    artificial: Experiment | None = None
    if ann or dry_run:
        check_alone("--dry-run" if dry_run else "--ann", advice="Start it without torchrun.")
    if ann:
        from snn_bp.runs.ann import ann_of

        artificial = ann_of(experiment, sees=ann)  # type: ignore[arg-type] - checked there
    if dry_run:
        for each in filter(None, (experiment, artificial)):
            show_dry_run(each, load(each.data))
        return
    command = shlex.join(["snn-bp", *sys.argv[1:]])
    if artificial is not None:
        from snn_bp.cli.beside import train_both

        train_both(experiment, artificial, out or Path("runs") / name, command=command, changes=said,
                   log=log_named(log))  # fmt: skip
        return
    train_run(experiment, out or Path("runs") / name, command=command, changes=said, numbered=out is None,
              log=log_named(log))  # fmt: skip


def log_named(name: str | None) -> "TensorBoard | None":
    """The log of this name."""
    from snn_bp.trainer.logs import TensorBoard

    return TensorBoard() if name == "tensorboard" else None
