"""What a run says of itself while it trains: sums over an epoch, lines, the progress bar."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from snn_bp.model.blocks import every_part, own_weights, parts_of
from snn_bp.model.network import Network
from snn_bp.runs.folder import Run
from snn_bp.training.optimizer import Step


@dataclass
class Tally:
    """Sums over the steps of an epoch; part of a checkpoint."""

    loss: float = 0.0
    correct: int = 0
    samples: int = 0
    grad_norm: float = 0.0
    seconds: float = 0.0

    def add(self, step: Step, seconds: float) -> None:
        """Count one step that took `seconds`, its batch's loading included."""
        self.loss += step.loss * step.samples
        self.correct += step.correct
        self.samples += step.samples
        self.grad_norm += step.grad_norm * step.samples
        self.seconds += seconds

    def row(self) -> dict[str, float]:
        """The means, under the names of the columns in `metrics.csv`."""
        return {
            "train_loss": self.loss / self.samples,
            "train_accuracy": self.correct / self.samples,
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

    def step(self, step: Step, tally: Tally) -> None:
        """Move the bar by one batch."""
        if self.bar is None:
            return
        row = tally.row()
        shown = {
            "loss": f"{row['train_loss']:.3f}",
            "accuracy": f"{row['train_accuracy']:.3f}",
            "samples/s": f"{row['samples_per_s']:.0f}",
            "spikes": f"{step.spike_rate:.3f}",
            "grad": f"{step.grad_norm:.2g}",
        }
        try:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update()
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

    def epoch(self, row: dict[str, Any]) -> None:
        """Say how an epoch went."""
        validation = f"  validation {row['validation_accuracy']:.3f}" if "validation_accuracy" in row else ""
        self.say(
            f"epoch {row['epoch']:3d}/{self.run.experiment.train.epochs}  loss {row['train_loss']:.4f}  "
            f"accuracy {row['train_accuracy']:.3f}{validation}  spikes {row['spike_rate']:.3f}  "
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


def results_line(results: dict[str, Any]) -> str:
    """The results of a finished run in one line."""
    test, epochs = results.get("test"), results["epochs"]
    if test is None:
        return f"finished after {epochs} epochs; there is no test split, so no test accuracy"
    return (
        f"test accuracy {test['accuracy']:.4f} ({test['correct']} of {test['samples']}, 95 % interval "
        f"{test['low']:.3f} .. {test['high']:.3f}) at epoch {results['best_epoch']} of {epochs}"
    )
