"""The command line, `snn-bp`: train, resume, evaluate and list runs. Errors are one line and a non-zero exit code.

torch is imported when a command runs: help, and what is wrong with a command line, are there before it.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snn_bp.cli.program import (
    Ann,
    AsJson,
    Batch,
    Below,
    Budget,
    Changes,
    Checkpoint,
    Compared,
    Compatible,
    Count,
    DryRun,
    Exported,
    File,
    Folder,
    Lava,
    Logged,
    Method,
    NewFile,
    Objective,
    Out,
    Parallel,
    Population,
    Recordings,
    Restart,
    Runs,
    Samples,
    Settings,
    Simulator,
    Sort,
    Source,
    Split,
    Step,
    Subject,
    Synthesis,
    Table,
    Target,
    Trust,
    app,
    command,
    log_named,
    train_named,
)
from snn_bp.errors import SnnError
from snn_bp.runs.paths import new_experiment_at
from snn_bp.runtime.console import guarded, open_streams
from snn_bp.runtime.process import leave
from snn_bp.runtime.status import say

if TYPE_CHECKING:
    from snn_bp.runs.folder import Run


@command("snn-bp init recordings", "snn-bp init recordings --out lab.py", "snn-bp init recordings columns=txyp unit=us")
def init(folder: Source, settings: Settings = None, out: NewFile = None) -> None:
    """Write an experiment for a folder of recordings.

    The folder holds a folder for each class, or a table of files and labels. Its
    files say the sensor, and how long recordings last; both stand in the new file,
    with a small model to start from.
    """
    from snn_bp.data.survey import survey
    from snn_bp.runs.proposal import file_name, folder_fields, write_proposal

    file = new_experiment_at(out or Path(file_name(folder)))
    print(write_proposal(survey(folder.resolve(), **folder_fields(settings or [])), file))
    print(f"next: snn-bp train {shlex.quote(str(file))}")


@command(
    "snn-bp train experiments/digits.py",
    "snn-bp train mine.py train.lr=1e-3 model.1.units=64 --out runs/wide",
    "snn-bp train mine.py --dry-run",
    "snn-bp train mine.py --log tensorboard --ann summed",
)
def train(
    file: File, changes: Changes = None, out: Out = None, dry_run: DryRun = False, log: Logged = None,
    ann: Ann = None, trust_code: Trust = False,
) -> None:  # fmt: skip
    """Train an experiment into a new run folder.

    At the end the best epoch's network is evaluated on the test split, once.
    """
    from snn_bp.runs.experiment_file import read_names

    experiment, own = read_names(file, trust_code=trust_code)
    name = file.parent.name if file.stem == "experiment" else file.stem
    train_named(experiment, own, name, changes or [], out, dry_run, log, ann)


@command("snn-bp resume runs/mine", "snn-bp resume runs/mine --restart")
def resume(run: Folder, restart: Restart = False, log: Logged = None, trust_code: Trust = False) -> None:
    """Go on with a run that was stopped or killed.

    It ends as it would have without the stop. A search goes on in the same way.
    """
    from snn_bp.runs.folder import Run
    from snn_bp.runs.records import results_line
    from snn_bp.searches import resume_search
    from snn_bp.trainer.loop import resume as resume_run

    opened = Run(run, trust_code=trust_code)
    finished = None if restart else opened.results()
    if finished is None and opened.is_search():
        if restart:
            raise SnnError(f"{run}: a search is not started anew in its folder. Search again with another --out.")
        if log is not None:
            raise SnnError(f"{run}: a search is not logged to {log}; search.json has its figures. Leave --log out.")
        resume_search(opened)
        return
    resume_run(run, restart=restart, log=log_named(log))
    if finished is not None:
        say(f"{run} is finished: {results_line(finished)}")


@command("snn-bp list", "snn-bp list runs/sweep --sort metric", "snn-bp list --json", name="list")
def list_runs(folder: Below = Path("runs"), sort: Sort = "run", as_json: AsJson = False) -> None:
    """The runs under a folder: date, data and result.

    By date the newest comes first, by metric the best.
    """
    from snn_bp.reports.listing import listing

    _print(listing(folder, sort=sort), as_json)


@command("snn-bp evaluate runs/mine", "snn-bp evaluate runs/mine --split validation --json")
def evaluate(
    run: Folder, split: Split = "test", checkpoint: Checkpoint = "best", batch: Batch = None, as_json: AsJson = False,
    trust_code: Trust = False,
) -> None:  # fmt: skip
    """A run's figures on a split.

    Metric, its 95 % interval, spikes and synaptic operations of an inference, its cost as NeuroBench counts it.
    """
    from snn_bp.runs.evaluation import evaluate as evaluate_run

    _print(evaluate_run(_opened(run, trust_code), split, checkpoint=checkpoint, batch=batch), as_json)


@command("snn-bp predict runs/mine new/*.raw", "snn-bp predict runs/mine new/*.npy --out answers.csv")
def predict(
    run: Folder, files: Recordings, checkpoint: Checkpoint = "best", batch: Batch = None, as_json: AsJson = False,
    out: Table = None, trust_code: Trust = False,
) -> None:  # fmt: skip
    """What a run's network says of new recordings.

    The class of each file, with scores.
    """
    from snn_bp.runs.prediction import predict as predict_recordings

    found = predict_recordings(_opened(run, trust_code), files, checkpoint=checkpoint, batch=batch)
    if out is not None:  # first, since nobody may read what is printed
        found.write(out)
    _print(found, as_json)


@command("snn-bp report runs/mine", "snn-bp report runs/mine --split validation --no-plots")
def report(
    run: Folder, split: Split = "test",
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Write the pictures into plots/ too.")] = True,
    trust_code: Trust = False,
) -> None:  # fmt: skip
    """Write a run's page, RUN/report.html.

    Results, curves, doctor, error map, spikes and verified exports in one file.
    """
    from snn_bp.reports import report as report_run
    from snn_bp.reports.plots import save_plots

    opened = _opened(run, trust_code)
    print(report_run(opened, split=split))
    if plots:
        save_plots(opened)


@command("snn-bp compare runs/a runs/b", "snn-bp compare runs", "snn-bp compare runs --out compared.html")
def compare(runs: Runs, as_json: AsJson = False, out: Compared = None, trust_code: Trust = False) -> None:
    """Runs side by side.

    Mean and deviation over seeds, and the settings in which runs differ. A page,
    FILE.html, lays their curves over each other.
    """
    from snn_bp.reports import compare as compare_runs
    from snn_bp.runs.folder import Run

    for run in runs if trust_code else ():
        Run(run, trust_code=True)
    found = compare_runs(runs)
    if out is not None:
        found.write(out)
    _print(found, as_json)


@command("snn-bp doctor runs/mine", "snn-bp doctor mine.py")
def doctor(subject: Subject, as_json: AsJson = False, trust_code: Trust = False) -> None:
    """Why a network does not learn, in words.

    Each finding comes with the change to make. An experiment is examined before
    its first step. Exit code 1 where something is found.
    """
    from snn_bp.instruments import diagnose
    from snn_bp.runs.experiment_file import read_file

    found = diagnose(_opened(subject, trust_code) if subject.is_dir() else read_file(subject, trust_code=trust_code))
    _print(found, as_json)
    if not found.ok:
        raise typer.Exit(1)


@command("snn-bp gradcheck mine.py", "snn-bp gradcheck runs/mine --recordings 8")
def gradcheck(subject: Subject, recordings: Count = 4, as_json: AsJson = False, trust_code: Trust = False) -> None:
    """Check every gradient of a network.

    Kernels, finite differences, surrogate, reset and truncation. Exit code 1 if
    one is wrong.
    """
    from snn_bp.data import load
    from snn_bp.instruments import check_gradients
    from snn_bp.model.start import start_alive
    from snn_bp.runs.experiment_file import read_file

    if subject.is_dir():
        run = _opened(subject, trust_code)
        experiment, dataset, network = run.experiment, run.dataset(), run.network("last").train()
    else:
        experiment = read_file(subject, trust_code=trust_code)
        dataset = load(experiment.data)
        network = experiment.network(dataset.shape)
        start_alive(network, dataset.batch("train", dataset.batches("train")[0])[0])
    x, targets = dataset.batch("train", dataset.spread("train", recordings))  # not all of one class
    found = check_gradients(network, x, targets, loss=experiment.train_at_step().loss)
    _print(found, as_json)
    if not found.ok:
        raise typer.Exit(1)


@command("snn-bp search mine.py --method es --budget 100000", "snn-bp search mine.py seed=1 --method ga --out runs/ga")
def search(
    file: File,
    changes: Changes = None,
    method: Method = "es",
    budget: Budget = 100_000,
    objective: Objective = "loss",
    spike_penalty: Annotated[float, typer.Option(help="The price of a spike, for the objective spikes.")] = 1e-4,
    population: Population = None,
    out: Out = None,
    trust_code: Trust = False,
) -> None:
    """Search for weights with or without gradients.

    By a genetic algorithm (ga), a particle swarm (pso), an evolution strategy (es)
    or backpropagation (bptt), all on one budget.
    """
    from snn_bp.runs.changes import override
    from snn_bp.runs.experiment_file import read_names
    from snn_bp.searches import search as search_weights

    read, own = read_names(file, trust_code=trust_code)
    experiment, said = override(read, changes or [], own)
    for line in said:
        print(line)
    search_weights(
        experiment, method=method, budget=budget, objective=objective, spike_penalty=spike_penalty,  # type: ignore[arg-type] - checked there
        population=population, out=out or Path("runs") / f"{file.stem}-{method}", numbered=out is None,
        command=shlex.join(["snn-bp", *sys.argv[1:]]),
    )  # fmt: skip


@command("snn-bp export runs/chip chip.net", "snn-bp export runs/mine mine.nir --step 1e-3", "snn-bp export runs/a a.v")
def export(
    run: Folder, file: Target, split: Split = "test", samples: Samples = 256, checkpoint: Checkpoint = "best",
    verification: Annotated[bool, typer.Option("--verify/--no-verify", help="Replay recordings.")] = True,
    step: Step = None,
    compatible: Compatible = None,
    parallel: Parallel = None,
    trust_code: Trust = False,
) -> None:  # fmt: skip
    """Write a run's network for a chip, as NIR or as a circuit.

    The file's ending says which: .net for Loihi, .xylo for Xylo, .nir, or .v, a folder of Verilog. Recordings are
    replayed through the file, and every spike is compared.
    """
    from snn_bp.verification.replayed import export as export_run

    found = export_run(_opened(run, trust_code), file, split=split, samples=samples, checkpoint=checkpoint,
                       verification=verification, step_s=step, compatible=compatible, parallel=parallel)  # type: ignore[arg-type]  # fmt: skip
    say(f"{file} is written" if found is None else str(found))
    if compatible:
        print(f"  Reset: {json.loads(Path(f'{file}.json').read_text(encoding='utf-8'))['reset']}.")
    if found is not None and not found.holds:
        raise SnnError(f"{file}: it does not do what the network does: {found.difference}")


@command("snn-bp verify runs/chip chip.net --samples 50 --lava 3", "snn-bp verify runs/chip chip.v --synthesis ecp5")
def verify(
    run: Folder, file: Exported, split: Split = "test", samples: Samples = 256, checkpoint: Checkpoint = "best",
    lava: Lava = 0,
    step: Step = None,
    simulator: Simulator = None,
    synthesis: Synthesis = None,
    as_json: AsJson = False,
    trust_code: Trust = False,
) -> None:  # fmt: skip
    """Replay recordings through a run's network and a file.

    The first difference between the network and the exported file is named.
    """
    from snn_bp.verification.replayed import verify as verify_run

    found = verify_run(
        _opened(run, trust_code), file, split=split, samples=samples, checkpoint=checkpoint, lava=lava, step_s=step,
        simulator=simulator, synthesis=synthesis,  # type: ignore[arg-type] - checked there
    )  # fmt: skip
    _print(found, as_json)
    if not found.holds:
        raise SnnError(f"{file}: it does not do what the network does: {found.difference}")


@command("snn-bp clean runs/mine")
def clean(run: Folder, trust_code: Trust = False) -> None:
    """Remove what killed processes left in a run's folder.

    That is files half written, and nothing else.
    """
    from snn_bp.runs.folder import Run

    opened = Run(run, trust_code=trust_code)
    with opened.locked():
        found = list(opened.leftovers())
        for file in found:
            file.unlink()
            print(f"removed {file}")
    if not found:
        print(f"{run}: nothing to remove")


@command("snn-bp cache", "snn-bp cache --clean 90")
def cache(
    clean: Annotated[float | None, typer.Option(metavar="DAYS", help="Remove what nobody opened for so long.")] = None,
) -> None:
    """The events that are kept for the next start.

    Each entry, its size, and the days since it was last opened.
    """
    from snn_bp.data.cache import cache_entries, cache_folder, clean_cache

    if clean is not None:
        for name, size in clean_cache(days=clean):
            print(f"removed {name}, {size / 2**20:,.1f} MB")
    entries = cache_entries()
    for folder, size, days in entries:
        print(f"{folder.name:44} {size / 2**20:10,.1f} MB, opened {days:.0f} days ago")
    print(f"{len(entries)} entries, {sum(size for _, size, _ in entries) / 2**20:,.1f} MB in {cache_folder()}")


def entry() -> None:
    """What the console script `snn-bp` calls; it ends by `leave`, without interpreter finalisation."""
    open_streams()
    try:
        guarded(app)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:  # ahead of what `guarded` guards
        code = 130
    leave(code)


def _print(found: Any, as_json: bool) -> None:
    print(json.dumps(found.record(), indent=2)) if as_json else say(str(found))


def _opened(path: Path, trust_code: bool) -> "Run":
    """The run, to read only; says on standard error where a process trains it at this moment."""
    from snn_bp.runs.folder import Run

    run = Run(path, trust_code=trust_code)
    if note := run.note():
        print(f"note: {note}", file=sys.stderr)
    return run


from snn_bp.cli import data_sets, planning, study, watching  # noqa: E402, F401 - their commands stand behind those above in the help
