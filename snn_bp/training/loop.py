"""The training loop: backpropagation through time, exact to resume.

Every batch draws its order, augmentation and dropout from (seed, epoch, batch) alone. So the weights and a position
are all that a resumed run needs to go on as if it had never stopped.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp.chip.quantize import may_fire_alone
from snn_bp.data import Dataset, load
from snn_bp.errors import SnnError, check_kind
from snn_bp.files import write_object
from snn_bp.instruments import diagnose, diagnose_course, diagnose_rate, only_new, trace
from snn_bp.model.metrics import Accuracy, columns_of, metric_for
from snn_bp.model.network import Network
from snn_bp.model.start import start_alive
from snn_bp.runs.checkpoint import Checkpoint
from snn_bp.runs.evaluation import evaluate_and_keep, evaluate_network, layer_activity
from snn_bp.runs.experiment import Experiment, Train
from snn_bp.runs.folder import Run, content_of
from snn_bp.runs.provenance import peak_memory_mb
from snn_bp.runtime.signals import Stopped as Stopped
from snn_bp.runtime.signals import noted_signals
from snn_bp.training.feasibility import check_chip, check_trainable
from snn_bp.training.memory import PROBED, TRACED
from snn_bp.training.optimizer import (
    explain_nonfinite,
    freeze_norm,
    learning_rate,
    make_device,
    make_optimizer,
    sharpen_delays,
    train_step,
)
from snn_bp.training.progress import Progress, Tally, layer_updates, results_line

SAVE_SECONDS = 20.0


def train(
    experiment: Experiment, out: Path | str, *,
    command: str = "snn_bp.train", changes: Sequence[str] = (), quiet: bool = False,
    save_seconds: float = SAVE_SECONDS, numbered: bool = False, dataset: Dataset | None = None,
) -> Run:  # fmt: skip
    """Run `experiment` into the new folder `out`, the test split at the end included, and give the finished run.

    `command` and `changes` are recorded with the run; `quiet` leaves out all printing. A checkpoint is written after
    every epoch, and within one whenever `save_seconds` of work are not yet saved. `numbered`: where `out` is taken,
    the first free number is put behind it. `dataset`: recordings in memory, from `Dataset.of`, for an experiment with
    its description, `Experiment(dataset.data, ...)`.
    """
    check_kind("train: the experiment", experiment, Experiment, "As in Experiment(data=..., model=..., train=...).")
    if not numbered:
        Run.check_free(out)
    content_of(experiment)  # what cannot be written is refused before a folder stands
    dataset = load(experiment.data, quiet=quiet) if dataset is None else dataset.checked(experiment.data)
    check_trainable(experiment, dataset)
    with Run.claim(out, numbered=numbered) as path:
        run = Run.create(experiment, path, command=command, changes=changes)
        run.hold(dataset)
        progress = Progress(run, quiet=quiet)
        if numbered:
            if path != Path(out):
                progress.say(f"{out} holds a run already; `snn-bp resume {out}` goes on with it")
            progress.say(f"run folder {path}")
        return _run_epochs(run, None, progress, save_seconds)


def resume(
    out: Path | str, *, quiet: bool = False, save_seconds: float = SAVE_SECONDS, restart: bool = False,
    dataset: Dataset | None = None,
) -> Run:  # fmt: skip
    """Go on with a run from its newest good checkpoint; a finished run is given as it is.

    A run that was trained and has no checkpoint to go on from is refused. `restart=True` starts it anew: what was
    trained is moved into the folder `before-1` (or the next number) within the run's. `dataset`: the one that `train`
    was given, where it was given one; it is compared with what the run has seen.
    """
    run = Run(out)
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
            return _run_epochs(run, None, progress, save_seconds)
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
        return _run_epochs(run, checkpoint, progress, save_seconds)


def _held(run: Run, dataset: Dataset | None, *, quiet: bool) -> Dataset:
    """The recordings of a run that goes on: those that were handed in, or loaded."""
    if dataset is None:
        run.hold(dataset := load(run.experiment.data, quiet=quiet))
    return dataset


def _run_epochs(run: Run, checkpoint: Checkpoint | None, progress: Progress, save_seconds: float) -> Run:
    """Train from a checkpoint, or from the start, to the last epoch."""
    config, seed, dataset = run.experiment.train_at_step(), run.experiment.seed, run.dataset()
    metric, kind = metric_for(config, dataset.targets), dataset.targets.kind
    measured = None if type(metric) is Accuracy else metric  # the accuracy of classes is counted anyhow
    run.check_data(dataset)
    for note in dataset.notes:
        progress.say(note)
    if config.target == "loihi" and checkpoint is None:
        for each in check_chip(run.experiment, run.experiment.network(dataset.shape)):
            progress.say(f"{sum(each.cores)} cores of {each.chip} at least. {' '.join(each.problems)}".rstrip())
        for each in may_fire_alone(run.experiment.network(dataset.shape)):
            progress.say(each)
    device = make_device(config)
    probe, targets_of_probe, mask_of_probe = _probe(dataset, device)
    already_reported: set[tuple[str, str]] = set()
    network = run.experiment.network(dataset.shape).to(device)
    optimizer = make_optimizer(network, config)
    at = checkpoint or Checkpoint(weights={})
    if checkpoint is None:
        start_alive(network, probe)
        _report_findings(
            network, probe, targets_of_probe, mask_of_probe, config, progress, already_reported,
            batches=len(dataset.batches("train")),
        )  # fmt: skip
        run.save(_filled(at, run, network, optimizer))
        run.begin_tables()  # behind a checkpoint: where there are tables and no checkpoint, it was taken away
    else:
        try:
            network.load_state_dict(at.weights)
            optimizer.load_state_dict(at.optimizer)
        except (RuntimeError, ValueError, KeyError):
            raise SnnError(f"{run.path}: its checkpoint does not fit the model in experiment.json.") from None
        run.cut_tables(at)
        if lost := repair_best(run, at, progress):
            progress.say(f"{lost} Unless a later epoch is better, the last one will be evaluated in its place.")

    batches, saved = len(dataset.batches("train")), time.monotonic()
    bar = progress.showing(at.epoch * batches + at.batch, config.epochs * batches)
    with noted_signals() as stop, torch.random.fork_rng(devices=[]), bar:
        while at.epoch < config.epochs:
            freeze_norm(network, config, at.epoch, of=config.epochs)
            sharpen_delays(network, at.epoch, of=config.epochs)
            tally, order = Tally(**at.sums), dataset.batches("train", seed=_draw(seed, at.epoch))
            before, lr = [], 0.0
            while at.batch < batches:
                began, drawn = time.monotonic(), _draw(seed, at.epoch, at.batch)
                batch = dataset.batch("train", order[at.batch], seed=drawn, in_bytes=True)
                x, targets = (tensor.to(device) for tensor in batch)
                mask = dataset.mask("train", order[at.batch])
                plain = mask is None and kind == "class" and measured is None
                more: Any = () if plain else (None if mask is None else mask.to(device), kind, measured)
                torch.manual_seed(drawn)
                done = at.epoch * batches + at.batch
                lr = learning_rate(config, step=done, steps=config.epochs * batches, batches=batches)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                if at.batch == batches - 1:
                    before = [weight.detach().clone() for weight in network.parameters()]
                step = train_step(network, optimizer, x, targets, config, *more)
                if not (math.isfinite(step.loss) and math.isfinite(step.grad_norm)):
                    raise SnnError(explain_nonfinite(step, network, x, epoch=at.epoch + 1, batch=at.batch + 1))
                at.batch += 1
                tally.add(step, time.monotonic() - began)
                progress.step(step, tally, metric, dataset.targets)
                if at.batch < batches and (stop or time.monotonic() - saved > save_seconds):
                    at.sums = tally.record()
                    run.save(_filled(at, run, network, optimizer))
                    saved = time.monotonic()
                    if stop:
                        raise Stopped(run.path, stop[0])

            layers = layer_activity(network, probe, mask_of_probe)
            at.epoch, at.batch, at.sums = at.epoch + 1, 0, {}
            row = {
                "epoch": at.epoch,
                **tally.row(metric, dataset.targets),
                "lr": lr,
                "peak_memory_mb": peak_memory_mb(device),
            }
            row["spike_rate"] = float(np.mean([layer["rate"] for layer in layers])) if layers else 0.0
            if len(dataset.ids["validation"]):
                seen = evaluate_network(network, dataset, "validation", config.loss, metric=metric, counts=False)
                named = columns_of(metric, dataset.targets)
                row |= {"validation_loss": seen.loss} | {f"validation_{name}": seen.metrics[name] for name in named}
            run.add_rows(row, [{"epoch": at.epoch, **layer} for layer in (*layers, *layer_updates(network, before))])
            at.seconds, best = at.seconds + row["seconds"], at.metrics[:1]
            at.metrics = [*best, row]
            if config.keep == "last" or is_best(at.metrics, metric):
                at.metrics = [row]
                run.save_best(_filled(at, run, network, optimizer))
            run.save(_filled(at, run, network, optimizer))
            saved = time.monotonic()
            progress.epoch(row, metric.name)
            _report_findings(network, probe, targets_of_probe, mask_of_probe, config, progress, already_reported)
            if stop and at.epoch < config.epochs:
                raise Stopped(run.path, stop[0])
    _finish(run, at, progress)
    return run


def newest_checkpoint(run: Run, progress: Progress) -> Checkpoint | None:
    """The checkpoint to resume from; None if nothing was trained yet. Raises if something was, and none can be read."""
    checkpoint, problems = run.latest()
    if checkpoint is None and run.results() is None:
        remedy = f"start anew with `snn-bp resume {run.path} --restart`, which keeps what is there in a folder aside"
        check_nothing_trained(run, problems, remedy=remedy)
    for problem in problems:
        progress.say(problem + " The one before it is used." * (checkpoint is not None))
    return checkpoint


def check_nothing_trained(run: Run, problems: list[str], *, remedy: str) -> None:
    """Raise if a run has trained although no checkpoint of it can be read; `problems` says what is wrong with each."""
    if problems or run.has_trained():
        why = " ".join(problems) or f"{run.path / 'checkpoints'}: the checkpoints of what was trained are missing."
        raise SnnError(f"{why} Nothing was changed. Repair that, or {remedy}.")


def repair_best(run: Run, at: Checkpoint, progress: Progress) -> str | None:
    """Write the checkpoint "best" anew if it is damaged and "last" or "previous" holds its epoch.

    Gives what is wrong with it, in a sentence, if no other checkpoint has its weights; else None.
    """
    if not at.metrics:
        return None
    best = at.metrics[-1] if run.experiment.train.keep == "last" else at.metrics[0]
    problem = run.problem_of("best")
    if problem is None and run.load("best").epoch >= best["epoch"]:  # later: saved just before the run was killed
        return None
    problem = problem or f"{run.path}: its checkpoint 'best' is older than epoch {best['epoch']}."
    for name in ("last", "previous"):
        whole = run.problem_of(name) is None
        if whole and ((found := run.load(name)).epoch, found.batch) == (best["epoch"], 0):
            found.metrics = [best]
            run.save_best(found)
            progress.say(f"{problem} It was made anew from {name!r}, which holds the same epoch.")
            return None
    return problem


def is_best(rows: list[dict[str, Any]], metric: Any = Accuracy()) -> bool:  # noqa: B008 - frozen
    """Whether the last epoch is the best so far in validation, by the metric; of equal epochs the later is better.

    The later one has been trained at the lower rate, while the loss of a network that is right mostly measures how
    sure it is. A figure that is no number is worse than any.
    """
    values = [row.get(f"validation_{metric.name}", 0.0) * (1 if metric.higher_is_better else -1) for row in rows]
    values = [-math.inf if math.isnan(value) else value for value in values]
    return max(values) <= values[-1]


def _finish(run: Run, at: Checkpoint, progress: Progress) -> None:
    """Evaluate the best checkpoint, on the test split for the only time, and write `results.json`."""
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
    for split in ("validation", "test"):
        if len(dataset.ids[split]):
            found, kept = evaluate_and_keep(network, dataset, split, config.loss, metric=config.metric)
            results[split] = found.record()
            if kept is not None:
                kept.write(run.path, split)
    write_object(run.path / "results.json", results)
    progress.say(results_line(results))
    for finding in diagnose_course(run.metrics(), dataset, run.experiment, finished=True):
        progress.say(f"doctor: {finding}")
    progress.say(f"pictures and page: snn-bp report {run.path}")


def _report_findings(
    network: Network, x: Tensor, targets: Tensor, mask: Tensor | None, config: Train, progress: Progress,
    already_reported: set[tuple[str, str]], *, batches: int | None = None,
) -> None:  # fmt: skip
    """Say what the doctor finds in a backward pass on a few recordings, each finding once.

    Before the first step, with the `batches` of an epoch, also whether the learning rate fits the weights.
    """
    there = None if mask is None else mask[:, :TRACED]
    traced = trace(network.train(), x[:, :TRACED], targets[:TRACED], loss=config.loss, mask=there)
    rate = [] if batches is None else diagnose_rate(network, traced, config, batches=batches)
    for finding in only_new([*rate, *diagnose(traced).findings], already_reported):
        progress.say(f"doctor: {finding}")


def _probe(dataset: Dataset, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Training recordings spread over the split, their targets and mask, on which layers are looked at."""
    ids = dataset.spread("train", min(dataset.data.batch, PROBED))
    (x, targets), mask = dataset.batch("train", ids, in_bytes=True), dataset.mask("train", ids)
    return x.to(device), targets.to(device), None if mask is None else mask.to(device)


def _draw(*words: int) -> int:
    """A seed that depends on all the given numbers."""
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def _filled(at: Checkpoint, run: Run, network: Network, optimizer: torch.optim.Optimizer) -> Checkpoint:
    at.weights, at.optimizer, at.tables = network.state_dict(), optimizer.state_dict(), run.marks()
    return at
