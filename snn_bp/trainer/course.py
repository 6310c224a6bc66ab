"""What a training holds while it runs, all that its options ask for; and what it says of each step."""

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn_bp.chip.quantize import may_fire_alone, rounded_decays
from snn_bp.data import Dataset
from snn_bp.data.ahead import ahead
from snn_bp.errors import SnnError
from snn_bp.instruments import diagnose, diagnose_rate, only_new
from snn_bp.instruments.traces import traced
from snn_bp.model.followed import followed_later, take_in
from snn_bp.model.metrics import Accuracy, metric_for
from snn_bp.model.network import Network
from snn_bp.model.signatures import takes
from snn_bp.model.start import start_alive
from snn_bp.runs.checkpoint import Checkpoint
from snn_bp.runs.folder import Run
from snn_bp.runs.provenance import note_start
from snn_bp.runtime.gpu import seed_torch
from snn_bp.runtime.processes import processes, rank
from snn_bp.runtime.screen import on_screen
from snn_bp.runtime.signals import Stopped
from snn_bp.trainer.dealt import Dealt
from snn_bp.trainer.distributed import Team
from snn_bp.trainer.feasibility import check_chip
from snn_bp.trainer.memory import PROBED, traced_recordings
from snn_bp.trainer.optimizer import (
    Step,
    explain_nonfinite,
    joined,
    learning_rate,
    make_device,
    make_optimizer,
    run_batch,
    update,
)
from snn_bp.trainer.progress import Progress, Tally
from snn_bp.trainer.sampling import batches_of_epoch
from snn_bp.trainer.saving import repair_best
from snn_bp.trainer.weights import Average, freeze_layers, start_from


class Event(NamedTuple):
    """Where a training stands behind a step of the optimizer, or behind an epoch."""

    epoch: int  # 1 is the first
    batch: int  # batches of the epoch so far, `batches` of them in all
    batches: int
    step: Step  # figures of the last step: loss, correct, samples, grad_norm, spike_rate
    row: dict[str, Any] | None  # behind an epoch: its row of metrics.csv
    network: Network  # as it trains
    run: Run

    def __repr__(self) -> str:
        row = "" if self.row is None else f", {self.row}"
        return on_screen(f"Event(epoch {self.epoch}, batch {self.batch} of {self.batches}, {self.step}{row})")


class Course:
    """A training under way. Every batch depends on (seed, epoch, batch) alone, so its position is all there is to save
    beside weights and optimizer."""

    def __init__(self, run: Run, checkpoint: Checkpoint | None, progress: Progress, team: Team | None = None) -> None:
        self.run, self.progress, self.at = run, progress, checkpoint or Checkpoint(weights={})
        self.team = team
        self.writes = team is None or team.is_first  # the run folder
        if team is not None and team.is_first:
            team.begin_run((run.path, checkpoint))
        self.config, self.dataset = run.experiment.train_at_step(), run.dataset()
        config, dataset = self.config, self.dataset
        self.metric = metric_for(config, dataset.targets)
        if self.writes:
            run.check_data(dataset)
            for note in dataset.notes:
                progress.say(note)
            if config.target != "float" and checkpoint is None:
                self._say_placement()
        self.device = make_device(config)
        self.probe, self.targets_of_probe, self.mask_of_probe = _probe(dataset, self.device)
        self.network = run.experiment.network(dataset.shape).to(self.device)
        self.frozen = freeze_layers(self.network, config.freeze)  # norms that keep their statistics
        self.optimizer = make_optimizer(self.network, config)
        self.batches = len(dataset.batches("train"))
        self.waited = 0.0  # seconds that the last step waited for its batches
        self._ahead: Generator[tuple[Tensor, Tensor], None, None] | None = None
        self._average: Average | None = None
        self._reported: set[tuple[str, str]] = set()
        if checkpoint is None:
            self._begin()
        else:
            self._go_on()
        if team is not None:
            progress.say(team.join(self.network, config, dataset))

    def order(self) -> list[np.ndarray]:
        """The ids of each batch of the epoch under way, which are read ahead from here on."""
        seed, epoch = self.run.experiment.seed, self.at.epoch
        order = batches_of_epoch(self.dataset, self.config, seed=_draw(seed, epoch))
        is_gpu = self.device.type == "cuda"
        ours = [n for n in range(self.at.batch, len(order)) if self._runs(n % self.config.accumulate)]

        def make(number: int) -> tuple[Tensor, Tensor]:
            drawn = _draw(seed, epoch, number)
            x, targets = self.dataset.batch("train", self._run_here(order[number]), seed=drawn, in_bytes=True)
            return (x.pin_memory(), targets.pin_memory()) if is_gpu else (x, targets)

        def fetch(number: int) -> None:
            self.dataset.fetch("train", self._run_here(order[number]), seed=_draw(seed, epoch, number))

        self.close()
        if self.team is not None:
            self.team.begin_epoch(self.network)
        self._ahead = ahead(make, ours, on=self.dataset.can_be_read_ahead, fetch=fetch)
        return order

    def close(self) -> None:
        """End reading ahead."""
        if self._ahead is not None:
            self._ahead.close()

    def step(self, group: Sequence[np.ndarray], train: Callable[..., Step]) -> Step:
        """The figures of one step of the optimizer, on the batches of `group`, which come next.

        `train` is `train_step`. Norms follow several batches at the end. Raises where a loss or gradient is not finite.
        """
        self.waited = 0.0
        if self._dealt is not None:
            step = self._dealt_step(self._dealt, group)
        elif self.config.accumulate == 1:
            step = self._one_of(group, 0, train)
        else:
            with followed_later() as followed:
                step = joined([self._one_of(group, number, train) for number in range(len(group))])
            for each in followed:
                take_in(*each)
        self.at.batch += len(group)
        if self.team is not None:
            self.team.end_step(batches=len(group), last=self.at.batch == self.batches)
        return step

    def _one_of(self, group: Sequence[np.ndarray], number: int, train: Callable[..., Step]) -> Step:
        """The figures of one batch of a group, in this process or in shards of all."""
        x, targets, more, options = self._batch(group, number)
        if len(group) > 1:
            options |= {"first": number == 0, "last": number == len(group) - 1}
        if self._in_shards:
            options["team"] = self.team
        step = train(self.network, self.optimizer, x, targets, self.config, *more, **options)
        self._check_finite(step, x, number)
        return step

    def _dealt_step(self, dealt: Dealt, group: Sequence[np.ndarray]) -> Step:
        """The figures of a step whose batches all processes share out."""
        inputs: dict[int, Tensor] = {}  # those of the last batch, and of one whose loss is not finite

        def run(number: int) -> Step:
            x, targets, more, options = self._batch(group, number)
            step = run_batch(self.network, x, targets, self.config, *more, **options)
            if number == len(group) - 1 or not math.isfinite(step.loss):
                inputs[number] = x
            return step

        *before, last = dealt.steps(len(group), run)
        if all(math.isfinite(step.loss) for step in before):
            last = last._replace(grad_norm=update(self.network, self.optimizer, self.config, last.loss))
        for number, step in enumerate((*before, last)):
            self._check_finite(step, inputs.get(number), number)
        return joined([*before, last])

    def _check_finite(self, step: Step, x: Tensor | None, number: int) -> None:
        if not (math.isfinite(step.loss) and math.isfinite(step.grad_norm)):
            at: dict[str, Any] = {"epoch": self.at.epoch + 1, "batch": self.at.batch + number + 1, "team": self.team}
            raise SnnError(explain_nonfinite(step, self.network, x, **at))

    def _batch(
        self, group: Sequence[np.ndarray], number: int
    ) -> tuple[Tensor, Tensor, tuple[Any, ...], dict[str, Any]]:
        """Inputs and targets of a batch of a group, the next that this process runs, and what it is run with.

        Its random numbers are seeded.
        """
        assert self._ahead is not None
        kind, ids = self.dataset.targets.kind, group[number]
        drawn = _draw(self.run.experiment.seed, self.at.epoch, self.at.batch + number)
        options: dict[str, Any] = {"frozen": self.frozen} if self.frozen else {}
        if len(group) > 1:
            options["fraction"] = len(ids) / sum(map(len, group))
        if self._in_shards:
            assert self.team is not None
            self.team.begin_batch(len(ids), seed=drawn)
        began = time.monotonic()
        x, targets = next(self._ahead)
        self.waited += time.monotonic() - began
        ids = self._run_here(ids)
        mask = self.dataset.mask("train", ids)
        measured = None if type(self.metric) is Accuracy else self.metric  # the accuracy of classes is counted anyhow
        plain = mask is None and kind == "class" and measured is None
        more = () if plain else (None if mask is None else mask.to(self.device), kind, measured)
        x, targets = x.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)
        seed_torch(_draw(drawn, rank()) if self._in_shards and rank() else drawn)  # for layers of the user's own
        return x, targets, more, options

    @property
    def _dealt(self) -> Dealt | None:
        return None if self.team is None else self.team.dealt

    @property
    def _in_shards(self) -> bool:
        """Whether each process has a part of every batch."""
        return self.team is not None and self.team.dealt is None

    def _runs(self, number: int) -> bool:
        """Whether this process runs anything of a batch with this number in its group."""
        return self._dealt is None or number % processes() == rank()

    def _run_here(self, ids: np.ndarray) -> np.ndarray:
        """Those of a batch that this process runs."""
        return ids[self.team.rows(len(ids))] if self.team is not None and self._in_shards else ids

    def set_rates(self, *, done: int) -> float:
        """The learning rate behind so many batches, put into the optimizer."""
        total = self.config.epochs * self.batches
        lr = learning_rate(self.config, step=done, steps=total, batches=self.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        return lr

    def follow(self) -> None:
        """Let the averaged weights follow the step that was just taken."""
        if self._average is not None:
            steps = -(-self.batches // self.config.accumulate)
            self._average.follow(self.network, self.at.epoch * steps + (self.at.batch - 1) // self.config.accumulate)

    def averaged(self) -> AbstractContextManager[None]:
        """Within the block, the network has the weights that are evaluated."""
        return nullcontext() if self._average is None else self._average.within(self.network)

    def why_enough(self) -> str:
        """Why the training ends behind the epochs that there are, in words; empty where it goes on."""
        if self.config.stop is None or self.at.batch or not self.at.epoch:
            return ""
        return self._why_enough() if self.team is None else self.team.agreed(self._why_enough)

    def _why_enough(self) -> str:
        stop = self.config.stop
        rows, sign = self.run.metrics(), 1 if self.metric.higher_is_better else -1
        history = [sign * row[f"validation_{self.metric.name}"] for row in rows]
        said: Any = stop  # ours take no rows
        enough = said(history, rows) if takes(stop, "rows") else said(history)
        return f"stopped early behind epoch {self.at.epoch} by {stop}" if enough else ""

    def asked_to_stop(self, noted: Sequence[int]) -> int:
        """The signal that asks this training to stop, in whichever process it was noted; 0 for none."""
        mine = noted[0] if noted else 0
        return mine if self.team is None else self.team.largest(mine)

    def stop(self, signum: int) -> None:
        """Raise `Stopped` if there is a signal, once all is saved."""
        if signum and self.team is not None:
            self.team.wait()
        if signum:
            raise Stopped(self.run.path, signum)

    def filled(self) -> Checkpoint:
        """The checkpoint of this moment."""
        at = self.at
        at.weights, at.optimizer, at.tables = self.network.state_dict(), self.optimizer.state_dict(), self.run.marks()
        at.averaged = {} if self._average is None else self._average.weights
        return at

    def save(self, tally: Tally | None = None) -> None:
        """Write the checkpoint of this moment; `tally`: the sums of an epoch under way."""
        if tally is not None:
            self.at.sums = tally.record()
        if self.writes:
            self.run.save(self.filled())

    def report_findings(self, *, first: bool = False) -> None:
        """Say what the doctor finds in a backward pass on a few recordings, each finding once.

        `first`: before the first step, also whether the learning rate fits the weights.
        """
        if not self.writes:
            return
        few = traced_recordings(self.network, len(self.probe))
        mask = None if self.mask_of_probe is None else self.mask_of_probe[:, :few]
        self.network.train()
        for norm in self.frozen:
            norm.eval()
        x, targets = self.probe[:, :few], self.targets_of_probe[:few]
        seed_torch(_draw(self.run.experiment.seed, self.at.epoch))  # not as the last batch here has left it
        trace = traced(self.network, x, targets, self.config.loss, mask=mask)
        rate = diagnose_rate(self.network, trace, self.config, batches=self.batches) if first else []
        found = [each for each in (*rate, *diagnose(trace).findings) if not self._is_asked_for(each.kind)]
        for finding in only_new(found, self._reported):
            self.progress.say(f"doctor: {finding}")

    def _is_asked_for(self, kind: str) -> bool:
        """Whether a finding is what the experiment asks for: layers that are frozen."""
        return kind == "frozen layer" and bool(self.config.freeze)

    def _begin(self) -> None:
        """The weights before the first step, saved."""
        if self.config.start is None:
            start_alive(self.network, self.probe, mask=self.mask_of_probe)
        else:
            record = start_from(self.network, self.config.start)
            if self.writes:
                note_start(self.run.path / "provenance.json", record)
                self.progress.say(f"begins with the weights of {record['run']}, checkpoint {record['checkpoint']!r}")
        if self.config.average is not None:
            self._average = Average(self.network, self.config.average)
        self.report_findings(first=True)
        self.save()
        if self.writes:
            self.run.begin_tables()  # behind a checkpoint: where there are tables and no checkpoint, it was taken away

    def _go_on(self) -> None:
        """The weights of the checkpoint; what was written behind it is taken away."""
        at = self.at
        try:
            self.network.load_state_dict(at.weights)
            self.optimizer.load_state_dict(at.optimizer)
            if self.config.average is not None:
                self._average = Average(self.network, self.config.average, at.averaged)
        except (RuntimeError, ValueError, KeyError):
            raise SnnError(f"{self.run.path}: its checkpoint does not fit the model in experiment.json.") from None
        if not self.writes:
            return
        self.run.cut_tables(at)
        if lost := repair_best(self.run, at, self.progress):
            self.progress.say(f"{lost} Unless a later epoch is better, the last one will be evaluated in its place.")

    def _say_placement(self) -> None:
        network = self.run.experiment.network(self.dataset.shape)
        for each in check_chip(self.run.experiment, network):
            self.progress.say(f"{sum(each.cores)} cores of {each.chip} at least. {' '.join(each.problems)}".rstrip())
        for each in (*may_fire_alone(network), *rounded_decays(network)) if self.config.target != "xylo" else ():
            self.progress.say(each)


def _probe(dataset: Dataset, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Training recordings spread over the split, their targets and mask, on which layers are looked at."""
    ids = dataset.spread("train", min(dataset.data.batch, PROBED))
    (x, targets), mask = dataset.batch("train", ids, in_bytes=True), dataset.mask("train", ids)
    return x.to(device), targets.to(device), None if mask is None else mask.to(device)


def _draw(*words: int) -> int:
    """A seed that depends on all the given numbers."""
    return int(np.random.SeedSequence(words).generate_state(1)[0])
