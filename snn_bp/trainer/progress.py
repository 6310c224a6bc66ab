"""What a run says of itself while it trains: sums over an epoch, lines, the progress bar."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from snn_bp.model.blocks import every_part, own_weights, parts_of
from snn_bp.model.metrics import columns_of, value_of_parts
from snn_bp.model.network import Network
from snn_bp.model.targets import Targets
from snn_bp.runs.folder import Run
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

    def add(self, step: Step, seconds: float) -> None:
        """Count one step that took `seconds`, its batch's loading included."""
        self.loss += step.loss * step.samples
        self.correct += step.correct
        self.samples += step.samples
        self.grad_norm += step.grad_norm * step.samples
        self.seconds += seconds
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
            "samples_per_s": round(self.samples / self.seconds, 1),
        }

    def record(self) -> dict[str, Any]:
        """The sums as JSON holds them."""
        return asdict(self)


class Progress:
    """A bar on a terminal or in a notebook, plain lines elsewhere, and every line in the run's log too."""

    def __init__(self, run: Run, *, quiet: bool) -> None:
        self.run, self.quiet = run, quiet
        self.bar: tqdm | None = None

    @contextmanager
    def showing(self, done: int, total: int) -> Iterator[None]:
        """Within the block, show the bar, `done` of `total` batches behind."""
        if not self.quiet and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            self.bar = tqdm(initial=done, total=total, unit="batch", dynamic_ncols=True)
        try:
            yield
        finally:
            if self.bar is not None:
                self.bar.close()
                self.bar = None

    def step(self, step: Step, tally: Tally, metric: Any, targets: Targets, *, batches: int = 1) -> None:
        """Move the bar by the batches of a step."""
        if self.bar is None:
            return
        row = tally.row(metric, targets)
        shown = {
            "loss": f"{row['train_loss']:.3f}",
            metric.name: _three(row[f"train_{metric.name}"]),
            "samples/s": f"{row['samples_per_s']:.0f}",
            "spikes": f"{step.spike_rate:.3f}",
            "grad": f"{step.grad_norm:.2g}",
        }
        try:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(batches)
        except (OSError, ValueError) as cause:
            self._go_on_quietly(cause)

    def say(self, line: str) -> None:
        """Print a line, and log it."""
        self.run.log(line)
        try:
            if self.bar is not None:
                self.bar.write(line)
            elif not self.quiet:
                show(line)
        except (OSError, ValueError) as cause:
            self._go_on_quietly(cause)

    def _go_on_quietly(self, cause: Exception) -> None:
        """Go on without a terminal: a closed pipe or window is no reason to end a training."""
        self.quiet = True
        if self.bar is not None:
            self.bar.disable = True  # else it writes again when it closes
            self.bar = None
        self.run.log(f"nothing can be printed any more ({cause}); the run goes on, its lines stand here")

    def epoch(self, row: dict[str, Any], name: str = "accuracy") -> None:
        """Say how an epoch went, by the metric of this name."""
        validation = f"  validation {_three(row[f'validation_{name}'])}" if f"validation_{name}" in row else ""
        self.say(
            f"epoch {row['epoch']:3d}/{self.run.experiment.train.epochs}  loss {row['train_loss']:.4f}  "
            f"{name.replace('_', ' ')} {_three(row[f'train_{name}'])}{validation}  spikes {row['spike_rate']:.3f}  "
            f"grad {row['grad_norm']:.2g}  {row['samples_per_s']:.0f} samples/s"
        )


def show(line: str) -> None:
    """Print a line; characters that standard output has no code for are shown as escapes."""
    try:
        print(line, flush=True)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


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
