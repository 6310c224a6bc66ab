"""The training loop: backpropagation through time, exact to resume.

Every batch draws its order, augmentation and dropout from (seed, epoch, batch) alone. So the weights and a position
are all that a resumed run needs to go on as if it had never stopped.
"""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snn_bp.data import Dataset, load
from snn_bp.errors import SnnError, as_path, check_flag, check_kind, check_number, shown
from snn_bp.errors.calls import checked_call
from snn_bp.files import is_there, write_object
from snn_bp.instruments import diagnose_course
from snn_bp.model.metrics import columns_of
from snn_bp.runs.checkpoint import Checkpoint
from snn_bp.runs.evaluation import evaluate_and_keep, evaluate_network, layer_activity
from snn_bp.runs.experiment import Experiment, content_of
from snn_bp.runs.folder import Run
from snn_bp.runs.provenance import peak_memory_mb
from snn_bp.runs.records import results_line
from snn_bp.runtime.signals import Stopped as Stopped
from snn_bp.runtime.signals import noted_signals
from snn_bp.runtime.status import Status, announced, phase, told_to
from snn_bp.trainer.course import Course, Event
from snn_bp.trainer.feasibility import check_trainable
from snn_bp.trainer.logs import Log, TensorBoard, logged
from snn_bp.trainer.optimizer import Step, explain_nonfinite, freeze_norm, joined, sharpen_delays, train_step
from snn_bp.trainer.optimizer import learning_rate as learning_rate
from snn_bp.trainer.optimizer import make_optimizer as make_optimizer
from snn_bp.trainer.progress import Progress, Tally, layer_updates
from snn_bp.trainer.saving import is_best as is_best
from snn_bp.trainer.saving import newest_checkpoint, repair_best
from snn_bp.trainer.weights import start_from

SAVE_SECONDS = 20.0
SUCH = "As in Experiment(data=..., model=..., train=...)."


@checked_call
def train(
    experiment: Experiment, out: Path | str, *,
    command: str = "snn_bp.train", changes: Sequence[str] = (), quiet: bool = False,
    save_seconds: float = SAVE_SECONDS, numbered: bool = False, dataset: Dataset | None = None,
    log: TensorBoard | Log | None = None,
) -> Run:  # fmt: skip
    """Run `experiment` into the new folder `out`, the test split at the end included, and give the finished run.

    Parameters:
        experiment: what to train, on what, and how.
        out: the run's folder.
        command ("snn_bp.train"), changes (()): recorded with the run.
        quiet (False): leaves out all printing.
        save_seconds (20.0): a checkpoint is written after every epoch, and within one whenever so many seconds of work
            are not yet saved.
        numbered (False): where `out` is taken, the first free number is put behind it.
        dataset (None): recordings in memory, from `Dataset.of`, for an experiment with its description.
        log (None): where figures go too while it trains: `TensorBoard()`, `wandb.init(...)`, or any value with a method
            `log(row, step=...)`, a dict and the number of batches so far. One that fails is left out, with a line.

    Raises where `out` holds something, or the experiment cannot be trained.

    >>> x = np.random.default_rng(0).random((12, 5, 4)) < 0.3  # [recordings, steps, channels]
    >>> dataset = Dataset.of(train=(x, np.arange(12) % 2), test_fraction=0.25, step_ms=2)
    >>> experiment = Experiment(dataset.data, (Dense(2), LIF(beta=0.9, reset="zero")), Train(epochs=1))
    >>> run = train(experiment, "runs/a", dataset=dataset, quiet=True)
    """
    events = _begun(
        experiment, out, command=command, changes=changes, quiet=quiet, save_seconds=save_seconds, numbered=numbered,
        dataset=dataset,
    )  # fmt: skip
    return _to_the_end(logged(events, log, out, quiet=quiet), quiet=quiet)


@checked_call
def resume(
    out: Path | str, *, quiet: bool = False, save_seconds: float = SAVE_SECONDS, restart: bool = False,
    dataset: Dataset | None = None, log: TensorBoard | Log | None = None,
) -> Run:  # fmt: skip
    """Go on with a run from its newest good checkpoint; a finished run is given as it is.

    Parameters:
        out: the run's folder.
        quiet (False), save_seconds (20.0), log (None): as in `train`.
        restart (False): start it anew; what was trained is moved into the folder `before-1` (or the next number)
            within.
        dataset (None): the one that `train` was given, where it was given one; it is compared with what the run has
            seen.

    A run that was trained and has no checkpoint to go on from is refused.

    >>> resume("runs/a", quiet=True).path.name  # the run of `train`
    'a'
    """
    events = _resumed(Run(out), quiet=quiet, save_seconds=save_seconds, restart=restart, dataset=dataset)
    return _to_the_end(logged(events, log, out, quiet=quiet), quiet=quiet)


@checked_call
def training(
    experiment: Experiment, out: Path | str, *, resume: bool = False, quiet: bool = False,
    save_seconds: float = SAVE_SECONDS, dataset: Dataset | None = None, log: TensorBoard | Log | None = None,
) -> Iterator[Event]:  # fmt: skip
    """The same as `train`, as a loop of your own: an `Event` behind every step of the optimizer and every epoch.

    An event has `epoch`, `batch`, `batches`, `step` (loss, grad_norm, ...), `row` (of `metrics.csv`; None within an
    epoch), `network` and `run`. After `break` the run is saved, and `resume` goes on with it to the same bits, unless
    the body changed the network: what it does is not repeated. `finish` evaluates it as it is. A loop that ends by
    itself has finished the run.

    Parameters:
        experiment, out, quiet (False), save_seconds (20.0), dataset (None), log (None): as in `train`.
        resume (False): goes on with the run in `out` where one of this experiment is.

    >>> for event in training(experiment, "runs/loop", dataset=dataset, quiet=True):  # those of `train`
    ...     if event.row and event.row["validation_accuracy"] < 0.9:
    ...         break
    """
    check_kind("training: the experiment", experiment, Experiment, SUCH)
    check_flag("training: resume", resume)
    check_flag("training: quiet", quiet)
    content_of(experiment)
    if resume and is_there(as_path("training: the folder", out) / "experiment.json"):
        run = Run(out)
        if content_of(run.experiment) != content_of(experiment):
            raise SnnError(f"{run.path}: the run there is of another experiment. Name another folder.")
        events = _resumed(run, quiet=quiet, save_seconds=save_seconds, dataset=dataset)
    else:
        events = _begun(
            experiment, out, command="snn_bp.training", quiet=quiet, save_seconds=save_seconds, dataset=dataset
        )
    events = logged(events, log, out, quiet=quiet)
    ours, opened = torch.get_rng_state(), None if quiet else Status()
    try:
        while True:
            theirs = torch.get_rng_state()  # the caller's random numbers go on as if nothing were between
            torch.set_rng_state(ours)
            try:
                with told_to(opened):
                    event = next(events)
            except StopIteration:
                return
            finally:
                ours = torch.get_rng_state()
                torch.set_rng_state(theirs)
            yield event
    finally:
        events.close()
        if opened is not None:
            opened.close()


@checked_call
def finish(run: Run, why: str = "", *, quiet: bool = False) -> Run:
    """End a training where it stands: evaluate its best checkpoint and write `results.json`, with `why` it ended.

    `run` is the folder's, as `event.run` in a loop of `training`; one that has results already is given as it is.
    `quiet` leaves out all printing.

    >>> finish(run, why="no hope").path.name  # the run of `train`
    'a'
    """
    check_kind("finish: the run", run, Run, "As in finish(event.run), or finish(Run('runs/a')).")
    if not isinstance(why, str):
        raise SnnError(f"finish: why={shown(why)}: it should be a text, as 'no hope'.")
    check_flag("finish: quiet", quiet)
    if run.results() is not None:
        return run
    with announced(not quiet), run.locked():
        progress = Progress(run, quiet=quiet)
        at = newest_checkpoint(run, progress)
        if at is None:
            raise SnnError(f"{run.path}: nothing was trained yet, there is nothing to evaluate.")
        run.check_data(run.dataset())
        run.cut_tables(at)
        if not at.metrics:
            progress.say("no epoch is complete; the weights of the last step are evaluated")
            run.save_best(at)
        _finish(run, at, progress, why)
    return run


def _to_the_end(events: Generator[Event, None, Run], *, quiet: bool) -> Run:
    """The run that a training leaves, torch's random numbers as they were."""
    check_flag("train: quiet", quiet)
    with announced(not quiet), torch.random.fork_rng(devices=[]):
        while True:
            try:
                next(events)
            except StopIteration as end:
                return end.value


def _begun(
    experiment: Experiment, out: Path | str, *, command: str, changes: Sequence[str] = (), quiet: bool,
    save_seconds: float, numbered: bool = False, dataset: Dataset | None,
) -> Generator[Event, None, Run]:  # fmt: skip
    """A run from its start, event by event."""
    check_kind("train: the experiment", experiment, Experiment, SUCH)
    _check_options(dataset, save_seconds, quiet=quiet, numbered=numbered)
    if not numbered:
        Run.check_free(out)
    content_of(experiment)  # what cannot be written is refused before a folder stands
    dataset = load(experiment.data, quiet=quiet) if dataset is None else dataset.checked(experiment.data)
    check_trainable(experiment, dataset)
    if experiment.train.start is not None:
        start_from(experiment.network(dataset.shape), experiment.train.start)
    with Run.claim(out, numbered=numbered) as path:
        run = Run.create(experiment, path, command=command, changes=changes)
        run.hold(dataset)
        progress = Progress(run, quiet=quiet)
        if numbered:
            if path != Path(out):
                progress.say(f"{out} holds a run already; `snn-bp resume {out}` goes on with it")
            progress.say(f"run folder {path}")
        return (yield from _run_epochs(run, None, progress, save_seconds))


def _resumed(
    run: Run, *, quiet: bool, save_seconds: float, restart: bool = False, dataset: Dataset | None
) -> Generator[Event, None, Run]:
    """A run from its newest checkpoint, event by event."""
    _check_options(dataset, save_seconds, quiet=quiet, restart=restart)
    if dataset is not None:
        run.hold(dataset.checked(run.experiment.data))
    if run.is_search() and (restart or run.results() is None):
        raise SnnError(f"{run.path}: it holds a search, no training. `snn-bp resume {run.path}` goes on with it.")
    if not restart and run.results() is not None and run.problem_of("best") is None:
        run.check_tables()
        return run
    with run.locked():
        progress = Progress(run, quiet=quiet)
        if restart:
            dataset = _held(run, dataset, quiet=quiet)
            check_trainable(run.experiment, dataset)  # refused before anything is moved
            aside = run.start_again()
            progress.say(f"started anew; what was trained before lies in {aside}" if aside else "started anew")
            return (yield from _run_epochs(run, None, progress, save_seconds))
        checkpoint = newest_checkpoint(run, progress)
        if run.results() is not None:
            lost = repair_best(run, checkpoint, progress) if checkpoint else run.problem_of("best")
            if lost:
                progress.say(f"{lost} No other checkpoint holds its weights; `--restart` trains them again.")
            return run
        dataset = _held(run, dataset, quiet=quiet)
        check_trainable(run.experiment, dataset)
        run.check_data(dataset)
        where = f"epoch {checkpoint.epoch + 1}, batch {checkpoint.batch + 1}" if checkpoint else "the beginning"
        progress.say(f"resumed at {where}")
        if note := run.note_version():
            progress.say(note)
        return (yield from _run_epochs(run, checkpoint, progress, save_seconds))


def _check_options(dataset: object, save_seconds: object, **flags: object) -> None:
    if dataset is not None:
        check_kind("train: the dataset", dataset, Dataset, "As in Dataset.of(train=(x, y)).")
    check_number("train: save_seconds", save_seconds, low=0)
    for name, flag in flags.items():
        check_flag(f"train: {name}", flag)


def _held(run: Run, dataset: Dataset | None, *, quiet: bool) -> Dataset:
    """The recordings of a run that goes on: those that were handed in, or loaded."""
    if dataset is None:
        run.hold(dataset := load(run.experiment.data, quiet=quiet))
    return dataset


def _run_epochs(
    run: Run, checkpoint: Checkpoint | None, progress: Progress, save_seconds: float
) -> Generator[Event, None, Run]:
    """Train from a checkpoint, or from the start, to the last epoch."""
    with phase("preparing the network"):
        course = Course(run, checkpoint, progress)
    config, dataset, at, network, metric = course.config, course.dataset, course.at, course.network, course.metric
    batches, saved, why = course.batches, time.monotonic(), ""
    bar = progress.showing(at.epoch * batches + at.batch, of_epoch=batches)
    beginning: Any = phase("taking the first step")
    with noted_signals() as stop, bar, closing(course):
        while at.epoch < config.epochs and not (why := course.why_enough()):
            freeze_norm(network, config, at.epoch, of=config.epochs)
            sharpen_delays(network, at.epoch, of=config.epochs)
            tally, order = Tally(**at.sums), course.order()
            before, lr, step = [], 0.0, Step(0.0, 0, 0, 0.0, 0.0)
            while at.batch < batches:
                began, group = time.monotonic(), order[at.batch : at.batch + config.accumulate]
                lr = course.set_rates(done=at.epoch * batches + at.batch + len(group) - 1)
                if at.batch + len(group) == batches:
                    before = [weight.detach().clone() for weight in network.parameters()]
                steps = []
                with beginning:
                    for ids in group:
                        x, targets, more, options = course.batch(ids, group)
                        each = train_step(network, course.optimizer, x, targets, config, *more, **options)
                        if not (math.isfinite(each.loss) and math.isfinite(each.grad_norm)):
                            raise SnnError(explain_nonfinite(each, network, x, epoch=at.epoch + 1, batch=at.batch + 1))
                        at.batch += 1
                        steps.append(each)
                step, beginning = joined(steps), nullcontext()
                course.follow()
                tally.add(step, time.monotonic() - began, waited=course.waited)
                progress.step(step, tally, metric, dataset.targets, batches=len(group))
                if at.batch == batches:
                    break
                if stop or time.monotonic() - saved > save_seconds:
                    course.save(tally)
                    saved = time.monotonic()
                    if stop:
                        raise Stopped(run.path, stop[0])
                try:
                    yield Event(at.epoch + 1, at.batch, batches, step, None, network, run)
                except GeneratorExit:
                    course.save(tally)
                    raise

            layers = layer_activity(network, course.probe, course.mask_of_probe)
            at.epoch, at.batch, at.sums = at.epoch + 1, 0, {}
            row = {
                "epoch": at.epoch,
                **tally.row(metric, dataset.targets),
                "lr": lr,
                "peak_memory_mb": peak_memory_mb(course.device),
            }
            row["spike_rate"] = float(np.mean([layer["rate"] for layer in layers])) if layers else 0.0
            if len(dataset.ids["validation"]):
                with course.averaged():
                    seen = evaluate_network(network, dataset, "validation", config.loss, metric=metric, counts=False)
                named = columns_of(metric, dataset.targets)
                row |= {"validation_loss": seen.loss} | {f"validation_{name}": seen.metrics[name] for name in named}
            run.add_rows(row, [{"epoch": at.epoch, **layer} for layer in (*layers, *layer_updates(network, before))])
            at.seconds, best = at.seconds + row["seconds"], at.metrics[:1]
            at.metrics = [*best, row]
            if config.keep == "last" or is_best(at.metrics, metric):
                at.metrics = [row]
                run.save_best(course.filled())
            course.save()
            saved = time.monotonic()
            progress.epoch(row, metric.name)
            course.report_findings()
            if stop and at.epoch < config.epochs:
                raise Stopped(run.path, stop[0])
            yield Event(at.epoch, batches, batches, step, row, network, run)
    _finish(run, at, progress, why)
    return run


def _finish(run: Run, at: Checkpoint, progress: Progress, why: str = "") -> None:
    """Evaluate the best checkpoint, on the test split for the only time, and write `results.json`.

    `why`: what ended the training before its last epoch.
    """
    notes = list(run.dataset().notes)
    if lost := repair_best(run, at, progress):
        notes.append(f"{lost} Evaluated: the last epoch, in its place.")
        progress.say(notes[-1])
        run.save_best(run.load("last"))
    network, dataset, config = run.network("best"), run.dataset(), run.experiment.train_at_step()
    results: dict[str, Any] = {
        "epochs": at.epoch,
        "best_epoch": run.load("best").epoch,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "train_seconds": round(at.seconds, 3),
        "notes": notes,
        "tables": run.marks(),
    }
    if why:
        results["ended"] = why
    untouched = ["test"] if config.test == "never" and len(dataset.ids["test"]) else []
    if untouched:
        results["untouched"] = untouched
    for split in ("validation", "test"):
        if len(dataset.ids[split]) and split not in untouched:
            found, kept = evaluate_and_keep(network, dataset, split, config.loss, metric=config.metric)
            results[split] = found.record()
            if kept is not None:
                kept.write(run.path, split)
    write_object(run.path / "results.json", results)
    progress.say(results_line(results))
    for finding in diagnose_course(run.metrics(), dataset, run.experiment, finished=True):
        progress.say(f"doctor: {finding}")
    progress.say(f"pictures and page: snn-bp report {run.path}")
