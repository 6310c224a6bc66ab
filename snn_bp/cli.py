"""The command line, `snn-bp`: train, resume, evaluate and list runs. Errors are one line and a non-zero exit code."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from snn_bp.data import load
from snn_bp.data.cache import cache_entries, cache_folder, clean_cache
from snn_bp.errors import SnnError, check_number
from snn_bp.files import is_there
from snn_bp.instruments import check_gradients, diagnose
from snn_bp.model.start import start_alive
from snn_bp.reports.comparison import state_of
from snn_bp.runs.evaluation import evaluate as evaluate_run
from snn_bp.runs.experiment import Experiment, override
from snn_bp.runs.experiment_file import is_read, read_file, read_names
from snn_bp.runs.folder import Run
from snn_bp.runs.own_code import own_kinds_in
from snn_bp.runs.prediction import predict as predict_recordings
from snn_bp.runs.records import figure_in_words
from snn_bp.runtime.console import guarded, open_streams
from snn_bp.runtime.process import leave
from snn_bp.runtime.signals import end_with_interrupt
from snn_bp.searches import resume_search
from snn_bp.searches import search as search_weights
from snn_bp.trainer.dry_run import dry_run as show_dry_run
from snn_bp.trainer.loop import resume as resume_run
from snn_bp.trainer.loop import train as train_run
from snn_bp.trainer.progress import results_line

app = typer.Typer(
    name="snn-bp",
    help="Train spiking networks by backpropagation through time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

File = Annotated[Path, typer.Argument(help="A Python file that defines `experiment`, or an experiment.json.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a run.")]
Changes = Annotated[list[str] | None, typer.Argument(help="Changes such as train.lr=1e-3 or data.batch=32.")]
Out = Annotated[Path | None, typer.Option(help="The new run's folder; by default runs/NAME, or the next free number.")]
Subject = Annotated[Path, typer.Argument(help="The folder of a run, or an experiment's file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")]
Target = Annotated[Path, typer.Argument(help="The file: its ending .net or .nir says the format.")]
Split = Annotated[str, typer.Option(help="test, validation or train.")]
Samples = Annotated[int, typer.Option(help="How many recordings are replayed.")]
Checkpoint = Annotated[str, typer.Option(help="best or last.")]
Restart = Annotated[
    bool, typer.Option("--restart", help="Train anew from the start; what was trained is kept in a folder aside.")
]
Trust = Annotated[bool, typer.Option("--trust-code", help="Run the code that came with the folder of another's run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show shapes, parameters, memory and time; train nothing.")]


@app.command()
def train(
    file: File, changes: Changes = None, out: Out = None, dry_run: DryRun = False, trust_code: Trust = False
) -> None:
    """Train an experiment into a new run folder, and evaluate it on the test split at the end."""
    experiment, own = read_names(file, trust_code=trust_code)
    name = file.parent.name if file.stem == "experiment" else file.stem
    _train(experiment, own, name, changes or [], out, dry_run)


@app.command()
def resume(run: Folder, restart: Restart = False, trust_code: Trust = False) -> None:
    """Go on with a run that was stopped or killed, exactly as if it had not been."""
    opened = Run(run, trust_code=trust_code)
    finished = None if restart else opened.results()
    if finished is None and opened.is_search():
        if restart:
            raise SnnError(f"{run}: a search is not started anew in its folder. Search again with another --out.")
        resume_search(opened)
        return
    resume_run(run, restart=restart)
    if finished is not None:
        print(f"{run} is finished: {results_line(finished)}")


@app.command()
def clean(run: Folder, trust_code: Trust = False) -> None:
    """Remove from a run's folder what killed processes left: files half written, and nothing else."""
    opened = Run(run, trust_code=trust_code)
    with opened.locked():
        found = list(opened.leftovers())
        for file in found:
            file.unlink()
            print(f"removed {file}")
    if not found:
        print(f"{run}: nothing to remove")


@app.command()
def cache(
    clean: Annotated[float | None, typer.Option(metavar="DAYS", help="Remove what nobody opened for so long.")] = None,
) -> None:
    """The events that are kept for the next start: each entry, its size, and the days since it was last opened."""
    if clean is not None:
        for name, size in clean_cache(days=clean):
            print(f"removed {name}, {size / 2**20:,.1f} MB")
    entries = cache_entries()
    for folder, size, days in entries:
        print(f"{folder.name:44} {size / 2**20:10,.1f} MB, opened {days:.0f} days ago")
    print(f"{len(entries)} entries, {sum(size for _, size, _ in entries) / 2**20:,.1f} MB in {cache_folder()}")


@app.command()
def evaluate(
    run: Folder,
    split: Split = "test",
    checkpoint: Checkpoint = "best",
    as_json: AsJson = False,
    trust_code: Trust = False,
) -> None:
    """Figures of a run's network on a split: accuracy and its interval, spikes and operations of each inference."""
    figures = evaluate_run(_opened(run, trust_code), split, checkpoint=checkpoint)
    if as_json:
        print(json.dumps(figures.record(), indent=2))
        return
    print(f"{split} {figure_in_words(figures.record())}, loss {figures.loss:.4f}")
    for name, count in figures.spikes.items():
        print(f"  {name}: {count:.1f} spikes for each inference")
    for name, count in figures.operations.items():
        print(f"  {name}: {count:.0f} synaptic operations for each inference")
    for name in figures.not_counted:
        print(f"  {name}: what it computes is its own, and its operations are not counted")


@app.command()
def predict(
    run: Folder,
    files: Annotated[list[Path], typer.Argument(help="Files of events, of any format that `read_events` knows.")],
    checkpoint: Checkpoint = "best",
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Write it to FILE.csv or FILE.json too.")] = None,
    trust_code: Trust = False,
) -> None:
    """What a run's network says of recordings that nobody labelled: the class of each file, with scores."""
    found = predict_recordings(_opened(run, trust_code), files, checkpoint=checkpoint)
    _print(found, as_json)
    if out is not None:
        found.write(out)


@app.command()
def export(
    run: Folder, file: Target, split: Split = "test", samples: Samples = 256, checkpoint: Checkpoint = "best",
    verification: Annotated[bool, typer.Option("--verify/--no-verify", help="Replay recordings.")] = True,
    step: Annotated[float | None, typer.Option(help="Of a .nir file: seconds of a time step (1e-4).")] = None,
    compatible: Annotated[str | None, typer.Option(help="Of a .nir file: 1.0.4, for NIR up to that version.")] = None,
    trust_code: Trust = False,
) -> None:  # fmt: skip
    """Write a run's network to FILE.net (Lava netx, for Loihi) or FILE.nir, and verify that the file does the same."""
    from snn_bp.verification.replayed import export as export_run  # h5py and nir, only where they are asked for

    if compatible not in (None, "1.0.4"):
        raise SnnError(f"--compatible {compatible}: it should be 1.0.4. Newer versions read the file without it.")
    found = export_run(_opened(run, trust_code), file, split=split, samples=samples, checkpoint=checkpoint,
                       verification=verification, step_s=step, compatible=compatible)  # fmt: skip
    print(f"{file} is written" if found is None else found)
    if compatible:
        print("  NIR 1.0.4 knows no reset value, there a spike takes the threshold off: for readers that reset to 0.")
    if found is not None and not found.holds:
        raise SnnError(f"{file}: it does not do what the network does: {found.difference}")


@app.command()
def verify(
    run: Folder, file: Target, split: Split = "test", samples: Samples = 256, checkpoint: Checkpoint = "best",
    lava: Annotated[int, typer.Option(help="Replay so many recordings in Lava's real client too.")] = 0,
    step: Annotated[float | None, typer.Option(help="Of a .nir file of others: seconds of a time step.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    trust_code: Trust = False,
) -> None:  # fmt: skip
    """Replay recordings through a run's network and through an exported file, and name the first difference."""
    from snn_bp.verification.replayed import verify as verify_run  # h5py and nir, only where they are asked for

    found = verify_run(
        _opened(run, trust_code), file, split=split, samples=samples, checkpoint=checkpoint, lava=lava, step_s=step
    )
    _print(found, as_json)
    if not found.holds:
        raise SnnError(f"{file}: it does not do what the network does: {found.difference}")


@app.command()
def doctor(subject: Subject, as_json: AsJson = False, trust_code: Trust = False) -> None:
    """Why a network does not learn, in words, with the change to make; exit code 1 where something is found."""
    report = diagnose(_opened(subject, trust_code) if subject.is_dir() else read_file(subject, trust_code=trust_code))
    _print(report, as_json)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def gradcheck(
    subject: Subject,
    recordings: Annotated[int, typer.Option(help="How many recordings of the first training batch to take.")] = 4,
    as_json: AsJson = False,
    trust_code: Trust = False,
) -> None:
    """Check every gradient: kernels, finite differences, surrogate, reset, truncation; exit code 1 if one is wrong."""
    check_number("--recordings", recordings, integer=True, low=1)
    if subject.is_dir():
        run = _opened(subject, trust_code)
        experiment, dataset, network = run.experiment, run.dataset(), run.network("last").train()
    else:
        experiment = read_file(subject, trust_code=trust_code)
        dataset = load(experiment.data)
        network = experiment.network(dataset.shape)
        start_alive(network, dataset.batch("train", dataset.batches("train")[0])[0])
    x, targets = dataset.batch("train", dataset.batches("train")[0][:recordings])
    report = check_gradients(network, x, targets, loss=experiment.train_at_step().loss)
    _print(report, as_json)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def search(
    file: File,
    changes: Changes = None,
    method: Annotated[str, typer.Option(help="ga, pso, es or bptt.")] = "es",
    budget: Annotated[int, typer.Option(help="Sample evaluations: a forward is 1, its backward 2 more.")] = 100_000,
    objective: Annotated[str, typer.Option(help="loss, accuracy or spikes.")] = "loss",
    spike_penalty: Annotated[float, typer.Option(help="The price of a spike, for the objective spikes.")] = 1e-4,
    population: Annotated[int | None, typer.Option(help="Points of a generation.")] = None,
    out: Out = None,
    trust_code: Trust = False,
) -> None:
    """Search for weights by a genetic algorithm, particle swarm, evolution strategy or backpropagation."""
    read, own = read_names(file, trust_code=trust_code)
    experiment, said = override(read, changes or [], own)
    for line in said:
        print(line)
    search_weights(
        experiment, method=method, budget=budget, objective=objective, spike_penalty=spike_penalty,  # type: ignore[arg-type] - checked there
        population=population, out=out or Path("runs") / f"{file.stem}-{method}", numbered=out is None,
        command=shlex.join(["snn-bp", *sys.argv[1:]]),
    )  # fmt: skip


@app.command()
def report(
    run: Folder, split: Split = "test",
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Write the pictures into plots/ too.")] = True,
    trust_code: Trust = False,
) -> None:  # fmt: skip
    """Write a run's page, RUN/report.html: results, curves, doctor, error map, spikes and verified exports."""
    from snn_bp.reports import report as report_run
    from snn_bp.reports.plots import save_plots  # matplotlib, only where it is asked for

    opened = _opened(run, trust_code)
    print(report_run(opened, split=split))
    if plots:
        save_plots(opened)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Write it to FILE.csv or FILE.json too.")] = None,
    trust_code: Trust = False,
) -> None:
    """Runs side by side: mean and deviation over seeds, and the settings in which they differ."""
    from snn_bp.reports.comparison import compare as compare_runs

    for run in runs if trust_code else ():
        Run(run, trust_code=True)
    found = compare_runs(runs)
    _print(found, as_json)
    if out is not None:
        found.write(out)


@app.command(name="list")
def list_runs(folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs")) -> None:
    """The runs under a folder, with their results."""
    if not folder.is_dir():
        raise SnnError(f"{folder}: there is no such folder. `snn-bp list FOLDER` looks elsewhere.")
    files = [file for name in ("experiment.json", "results.json") for file in folder.rglob(name)]
    found = sorted({file.parent for file in files if not is_there(file.parent.parent / "experiment.json")})
    if not found:
        print(f"no runs under {folder}")
    width = max((len(str(path)) for path in found), default=0)
    for path in found:
        try:
            run = Run(path)
            results = run.results()
            state = state_of(run) if results is None else results_line(results)
        except SnnError as problem:
            state = f"cannot be read: {problem}"
        print(f"{path!s:{width}}  {state}")


def main(experiment: Experiment, arguments: Sequence[str] | None = None) -> None:
    """Turn an experiment file into a script: `python FILE [--out DIR] [--dry-run] [key=value ...]`.

    `experiment` is what it trains; `arguments` (None) stand for those of the command line.

    >>> experiment = Experiment(Data("digits"), (Flatten(), Dense(10), LIF(beta=Tau(100))))
    >>> if __name__ == "__main__":  # at the end of the file
    ...     main(experiment)
    """
    names = sys._getframe(1).f_globals
    if is_read(names):
        return  # a file that `snn-bp` reads to get at its experiment is no program
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @script.command(help=(sys.modules["__main__"].__doc__ or "").strip() or None)
    def command(changes: Changes = None, out: Out = None, dry_run: DryRun = False) -> None:
        _train(experiment, own_kinds_in(names), Path(sys.argv[0]).stem, changes or [], out, dry_run)

    guarded(script, arguments)


def entry() -> None:
    """What the console script `snn-bp` calls; it ends by `leave`, without interpreter finalisation."""
    open_streams()
    try:
        end_with_interrupt()
        guarded(app)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:  # ahead of what `guarded` guards
        code = 130
    leave(code)


def _print(found: Any, as_json: bool) -> None:
    print(json.dumps(found.record(), indent=2) if as_json else found)


def _train(
    experiment: Experiment, own: dict[str, type], name: str, changes: list[str], out: Path | None, dry_run: bool
) -> None:
    experiment, said = override(experiment, changes, own)
    for line in said:
        print(line)
    if dry_run:
        show_dry_run(experiment, load(experiment.data))
        return
    command = shlex.join(["snn-bp", *sys.argv[1:]])
    train_run(experiment, out or Path("runs") / name, command=command, changes=said, numbered=out is None)


def _opened(path: Path, trust_code: bool) -> Run:
    """The run, to read only; says on standard error where a process trains it at this moment."""
    run = Run(path, trust_code=trust_code)
    if note := run.note():
        print(f"note: {note}", file=sys.stderr)
    return run
