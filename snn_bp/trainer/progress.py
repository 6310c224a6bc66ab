"""What a run says of itself while it trains: sums over an epoch, lines, the progress bar."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

from torch import Tensor

from snn_bp.errors import SnnError
from snn_bp.model.blocks import every_part, own_weights, parts_of
from snn_bp.model.metrics import columns_of, value_of_parts
from snn_bp.model.network import Network
from snn_bp.model.targets import Targets
from snn_bp.runs.folder import Run
from snn_bp.runtime.processes import is_first
from snn_bp.runtime.status import Bar, Status, clock, drawing, say
from snn_bp.trainer.optimizer import Step


@dataclass
class Tally:
    """Sums over the steps of an epoch; part of a checkpoint."""

    loss: float = 0.0
    correct: int = 0
    samples: int = 0
    grad_norm: float = 0.0
    seconds: float = 0.0
    parts: list[float] = field(default_factory=list)  # what batches add to a metric other than the accuracy
    wait_seconds: float = 0.0

    def add(self, step: Step, seconds: float, *, waited: float = 0.0) -> None:
        """Count one step that took `seconds`, of which it `waited` so many for its batches."""
        self.loss += step.loss * step.samples
        self.correct += step.correct
        self.samples += step.samples
        self.grad_norm += step.grad_norm * step.samples
        self.seconds += seconds
        self.wait_seconds += waited
        self.parts = [a + b for a, b in zip_longest(self.parts, step.parts, fillvalue=0.0)]

    def row(self, metric: Any, targets: Targets) -> dict[str, float]:
        """The means, under the names of the columns in `metrics.csv`; the metric is that of the batches together."""
        figures = {
            f"train_{name}": self.correct / self.samples if name == "accuracy" else value_of_parts(metric, self.parts)
            for name in columns_of(metric, targets)
        }
        return {
            "train_loss": self.loss / self.samples,
            **figures,
            "grad_norm": self.grad_norm / self.samples,
            "seconds": round(self.seconds, 3),
            "wait_seconds": round(self.wait_seconds, 3),
            "samples_per_s": round(self.samples / self.seconds, 1),
        }

    def record(self) -> dict[str, Any]:
        """The sums as JSON holds them."""
        return asdict(self)


class _Behind(NamedTuple):
    """What lies behind a training at one moment; samples and seconds are those of the epoch."""

    epoch: int
    batches: int
    time: float
    samples: int
    seconds: float


class Progress:
    """A bar on a terminal or in a notebook, plain lines elsewhere, and every line in the run's log too."""

    def __init__(self, run: Run, *, quiet: bool) -> None:
        self.run, self.quiet = run, quiet
        self._status: Status | None = None
        self._batches = self._of_epoch = 0
        self._first: _Behind | None = None  # which compiles, so that rates count from its end

    @contextmanager
    def showing(self, done: int, *, of_epoch: int) -> Iterator[None]:
        """Within the block, show the bar, `done` batches behind, so many of each epoch."""
        with drawing() as self._status:
            self._batches, self._of_epoch = done, of_epoch
            yield

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Within the block, an error that ends the training stands in the run's log too, where that can be written."""
        try:
            yield
        except SnnError as problem:
            with suppress(SnnError):
                self._log(f"ended: {problem}")
            raise

    def step(self, step: Step, tally: Tally, metric: Any, targets: Targets, *, batches: int = 1) -> None:
        """Move the bar by the batches of a step."""
        self._batches += batches
        if self._status is not None and self._status.is_due():
            self._status.draw(self._bar(step, tally, tally.row(metric, targets), metric.name))

    def _bar(self, step: Step, tally: Tally, row: dict[str, float], name: str) -> Bar:
        done, size, epochs = self._batches, self._of_epoch, self.run.experiment.train.epochs
        epoch = (done - 1) // size + 1
        now = _Behind(epoch, done, time.monotonic(), tally.samples, tally.seconds)
        first = self._first = self._first or now
        samples, seconds = now.samples, now.seconds
        if now.epoch == first.epoch:
            samples, seconds = samples - first.samples, seconds - first.seconds
        figures = [f"loss {row['train_loss']:.3f}", f"{name.replace('_', ' ')} {_three(row[f'train_{name}'])}"]
        if done > first.batches:
            left = (epochs * size - done) * (now.time - first.time) / (done - first.batches)
            figures += [f"{samples / max(seconds, 1e-9):.0f}/s", f"ETA {clock(left)}"]
        details = (
            f"batch {done - (epoch - 1) * size:{len(str(size))}}/{size}",
            f"spikes {step.spike_rate:.3f}",
            f"grad {step.grad_norm:.2g}",
        )
        return Bar(f"epoch {epoch:{len(str(epochs))}}/{epochs}", done / (epochs * size), figures, details)

    def say(self, line: str, *, is_row: bool = False) -> None:
        """Print a line, or a row of a table, and log it."""
        self._log(line)
        if self.quiet:
            return
        try:
            say(line, is_row=is_row)
        except (OSError, ValueError) as cause:  # a closed pipe or window is no reason to end a training
            self.quiet, self._status = True, None
            self._log(f"nothing can be printed any more ({cause}); the run goes on, its lines stand here")

    def _log(self, line: str) -> None:
        if is_first():  # one process of several writes
            self.run.log(line)

    def epoch(self, row: dict[str, Any], name: str = "accuracy") -> None:
        """Say how an epoch went, by the metric of this name."""
        validation = f"  validation {_three(row[f'validation_{name}'])}" if f"validation_{name}" in row else ""
        self.say(
            f"epoch {row['epoch']:3d}/{self.run.experiment.train.epochs}  loss {row['train_loss']:.4f}  "
            f"{name.replace('_', ' ')} {_three(row[f'train_{name}'])}{validation}  spikes {row['spike_rate']:.3f}  "
            f"grad {row['grad_norm']:.2g}  {row['samples_per_s']:.0f} samples/s",
            is_row=True,
        )


def layer_updates(network: Network, before: list[Tensor]) -> list[dict[str, Any]]:
    """Size of the gradient, and of the last update over that of the weights, of each layer that has weights.

    `before` are the network's parameters ahead of the update. Learned parameters of neurons and delays count from one
    unit up: behind a logistic function or softplus 0 is a value like any other.
    """
    old = dict(zip(map(id, network.parameters()), before, strict=True))  # layers may share weights
    rows = []
    for part in every_part(parts_of(network)):
        grad = update = size = 0.0
        for name, weight in own_weights(part).items():
            was = old[id(weight)]
            grad += 0.0 if weight.grad is None else float(weight.grad.square().sum())
            update += float((weight.detach() - was).square().sum())
            size += float((was.square().clamp_min(1) if "learned." in name else was.square()).sum())
        if size > 0:
            ratio = math.sqrt(update / size)
            rows.append({"layer": network.name(part.path), "grad": math.sqrt(grad), "update_over_weight": ratio})
    return rows


def _three(value: float) -> str:
    return f"{value:.3f}" if not value or abs(value) >= 0.01 else f"{value:.2g}"
