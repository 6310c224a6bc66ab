"""The training loop: backpropagation through time, exact to resume.

Every batch draws its order, augmentation and dropout from (seed, epoch, batch) alone. So the weights and a position
are all that a resumed run needs to go on as if it had never stopped.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from snn_bp.data import Dataset, load
from snn_bp.errors import SnnError, as_path, check_flag, check_kind, check_number, shown, typed
from snn_bp.errors.calls import checked_call
from snn_bp.files import is_there
from snn_bp.runs.checkpoint import Checkpoint
from snn_bp.runs.experiment import Experiment, content_of, is_same
from snn_bp.runs.folder import Run
from snn_bp.runtime.processes import check_alone, is_first
from snn_bp.runtime.signals import Stopped as Stopped
from snn_bp.runtime.signals import noted_signals
from snn_bp.runtime.status import Status, announced, phase, told_to
from snn_bp.trainer.course import Course, Event
from snn_bp.trainer.distributed import Team, joined_processes
from snn_bp.trainer.ending import end_run, follow_end, rows_of_epoch, validation_of
from snn_bp.trainer.feasibility import check_trainable
from snn_bp.trainer.logs import Log, TensorBoard, logged
from snn_bp.trainer.optimizer import Step, freeze_norm, sharpen_delays, train_step
from snn_bp.trainer.optimizer import learning_rate as learning_rate
from snn_bp.trainer.optimizer import make_optimizer as make_optimizer
from snn_bp.trainer.progress import Progress, Tally
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

    Raises where `out` holds something, or the experiment cannot be trained. In processes that torchrun started all
    train this one run, each on a part of every batch, or on whole ones where `train.accumulate` has a batch for each;
    all evaluate, the first writes and prints.

    >>> x = np.random.default_rng(0).random((12, 5, 4)) < 0.3  # [recordings, steps, channels]
    >>> dataset = Dataset.of(train=(x, np.arange(12) % 2), test_fraction=0.25, step_ms=2)
    >>> experiment = Experiment(dataset.data, (Dense(2), LIF(beta=0.9, reset="zero")), Train(epochs=1))
    >>> run = train(experiment, "runs/a", dataset=dataset, quiet=True)
    """
    check_kind("train: the experiment", experiment, Experiment, SUCH)
    begin = partial(
        _begun, experiment, out, command=command, changes=changes, quiet=quiet, save_seconds=save_seconds,
        numbered=numbered, dataset=dataset,
    )  # fmt: skip
    events = _in_team(begin, experiment, out, dataset)
    return _to_the_end(logged(events, log if is_first() else None, out, quiet=quiet), quiet=quiet)


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
    run = Run(out)
    begin = partial(_resumed, run, quiet=quiet, save_seconds=save_seconds, restart=restart, dataset=dataset)
    events = _in_team(begin, run.experiment, out, dataset)
    return _to_the_end(logged(events, log if is_first() else None, out, quiet=quiet), quiet=quiet)


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
    check_alone("training", advice="train(...) and `snn-bp train` run in all of them.")
    content_of(experiment)
    if resume and is_there(as_path("training: the folder", out) / "experiment.json"):
        run = Run(out)
        if not is_same(run.experiment, experiment):
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
    check_alone("finish")
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
        end_run(run, at, progress, why)
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


def _in_team(
    begin: Callable[..., Generator[Event, None, Run]], experiment: Experiment, out: Path | str, dataset: Dataset | None
) -> Generator[Event, None, Run]:
    """A training by the processes that torchrun started, or by this one alone."""
    with joined_processes(experiment.train) as team:
        if team is None or team.is_first:
            return (yield from begin(team=team))
        return (yield from _followed(team, experiment, out, dataset))


def _begun(
    experiment: Experiment, out: Path | str, *, command: str, changes: Sequence[str] = (), quiet: bool,
    save_seconds: float, numbered: bool = False, dataset: Dataset | None, team: Team | None = None,
) -> Generator[Event, None, Run]:  # fmt: skip
    """A run from its start, event by event."""
    _check_options(dataset, save_seconds, quiet=quiet, numbered=numbered)
    Run.check_free(out, numbered=numbered)
    content_of(experiment)  # what cannot be written is refused before a folder stands
    dataset = _loaded(experiment, dataset, team, quiet=quiet)
    check_trainable(experiment, dataset)
    if experiment.train.start is not None:
        start_from(experiment.network(dataset.shape), experiment.train.start)
    with Run.claim(out, numbered=numbered) as path:
        run = Run.create(experiment, path, command=command, changes=changes)
        run.hold(dataset)
        progress = Progress(run, quiet=quiet)
        if numbered:
            if path != Path(out):
                progress.say(f"{out} holds a run already; `snn-bp resume {typed(out)}` goes on with it")
            progress.say(f"run folder {path}")
        return (yield from _run_epochs(run, None, progress, save_seconds, team))


def _resumed(
    run: Run,
    *,
    quiet: bool,
    save_seconds: float,
    restart: bool = False,
    dataset: Dataset | None,
    team: Team | None = None,
) -> Generator[Event, None, Run]:
    """A run from its newest checkpoint, event by event."""
    _check_options(dataset, save_seconds, quiet=quiet, restart=restart)
    if dataset is not None:
        run.hold(dataset.checked(run.experiment.data))
    if run.is_search() and (restart or run.results() is None):
        raise SnnError(
            f"{run.path}: it holds a search, no training. `snn-bp resume {typed(run.path)}` goes on with it."
        )
    if not restart and run.results() is not None and run.problem_of("best") is None:
        run.check_tables()
        return run
    with run.locked():
        progress = Progress(run, quiet=quiet)
        if restart:
            run.hold(dataset := _loaded(run.experiment, dataset, team, quiet=quiet))
            check_trainable(run.experiment, dataset)  # refused before anything is moved
            aside = run.start_again()
            progress.say(f"started anew; what was trained before lies in {aside}" if aside else "started anew")
            return (yield from _run_epochs(run, None, progress, save_seconds, team))
        checkpoint = newest_checkpoint(run, progress)
        if run.results() is not None:
            lost = repair_best(run, checkpoint, progress) if checkpoint else run.problem_of("best")
            if lost:
                progress.say(f"{lost} No other checkpoint holds its weights; `--restart` trains them again.")
            return run
        run.hold(dataset := _loaded(run.experiment, dataset, team, quiet=quiet))
        check_trainable(run.experiment, dataset)
        run.check_data(dataset)
        where = f"epoch {checkpoint.epoch + 1}, batch {checkpoint.batch + 1}" if checkpoint else "the beginning"
        progress.say(f"resumed at {where}")
        if note := run.note_version():
            progress.say(note)
        return (yield from _run_epochs(run, checkpoint, progress, save_seconds, team))


def _followed(
    team: Team, experiment: Experiment, out: Path | str, dataset: Dataset | None
) -> Generator[Event, None, Run]:
    """What a process does that is not the first: the same steps, and nothing is written or said."""
    if team.awaited() is not None:
        dataset = _loaded(experiment, dataset, team, quiet=True)
        if (given := team.awaited()) is not None:
            path, checkpoint = given
            run = Run(path)
            run.hold(dataset)
            return (yield from _run_epochs(run, checkpoint, Progress(run, quiet=True), math.inf, team))
    return Run(out)


def _check_options(dataset: object, save_seconds: object, **flags: object) -> None:
    if dataset is not None:
        check_kind("train: the dataset", dataset, Dataset, "As in Dataset.of(train=(x, y)).")
    check_number("train: save_seconds", save_seconds, low=0)
    for name, flag in flags.items():
        check_flag(f"train: {name}", flag)


def _loaded(experiment: Experiment, dataset: Dataset | None, team: Team | None, *, quiet: bool) -> Dataset:
    """The recordings of a run: those that were handed in, or loaded."""
    if dataset is not None:
        dataset = dataset.checked(experiment.data)
    read = partial(load, experiment.data, quiet=quiet) if dataset is None else lambda: dataset
    return read() if team is None else team.load(read)


def _run_epochs(
    run: Run, checkpoint: Checkpoint | None, progress: Progress, save_seconds: float, team: Team | None
) -> Generator[Event, None, Run]:
    """Train from a checkpoint, or from the start, to the last epoch."""
    with phase("preparing the network"):
        course = Course(run, checkpoint, progress, team)
    config, dataset, at, network, metric = course.config, course.dataset, course.at, course.network, course.metric
    batches, saved, why = course.batches, time.monotonic(), ""
    bar = progress.showing(at.epoch * batches + at.batch, of_epoch=batches)
    beginning: Any = phase("taking the first step")
    with noted_signals() as stop, bar, closing(course), progress.ending():
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
                with beginning:
                    step, beginning = course.step(group, train_step), nullcontext()
                course.follow()
                tally.add(step, time.monotonic() - began, waited=course.waited)
                progress.step(step, tally, metric, dataset.targets, batches=len(group))
                if at.batch == batches:
                    break
                asked = course.asked_to_stop(stop)
                if asked or time.monotonic() - saved > save_seconds:
                    course.save(tally)
                    saved = time.monotonic()
                    course.stop(asked)
                try:
                    yield Event(at.epoch + 1, at.batch, batches, step, None, network, run)
                except GeneratorExit:
                    course.save(tally)
                    raise

            at.epoch, at.batch, at.sums = at.epoch + 1, 0, {}
            if not course.writes:
                validation_of(course)
                asked = course.asked_to_stop(stop)
                if at.epoch < config.epochs:
                    course.stop(asked)
                continue
            row, layers = rows_of_epoch(course, tally, lr=lr, before=before)
            run.add_rows(row, layers)
            at.seconds, best = at.seconds + row["seconds"], at.metrics[:1]
            at.metrics = [*best, row]
            if config.keep == "last" or is_best(at.metrics, metric):
                at.metrics = [row]
                run.save_best(course.filled())
            course.save()
            saved = time.monotonic()
            progress.epoch(row, metric.name)
            course.report_findings()
            asked = course.asked_to_stop(stop)
            if at.epoch < config.epochs:
                course.stop(asked)
            yield Event(at.epoch, batches, batches, step, row, network, run)
    if team is None or team.is_first:
        end_run(run, at, progress, why, team)
    else:
        follow_end(run, team)
    if team is not None:
        team.wait()
    return run
