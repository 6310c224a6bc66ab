"""A metric of one's own, which decides on the checkpoint that is kept: the worst class counts."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from snn_bp import LIF, BatchNorm, Data, Dense, Experiment, Flatten, Train


@dataclass(frozen=True)
class WorstClass:
    """The accuracy on the class that is known worst."""

    name: ClassVar[str] = "worst_class"
    higher_is_better: ClassVar[bool] = True

    def __call__(self, scores: Tensor, targets: Tensor, mask: Tensor | None) -> float:
        """The figure of a split."""
        right = scores.argmax(1) == targets
        return min(float(right[targets == each].float().mean()) for each in targets.unique())


experiment = Experiment(
    Data("digits", step_ms=52, steps=6, batch=64, downsample=2),
    (Flatten(), Dense(48), BatchNorm(), LIF(beta=0.8), Dense(10), BatchNorm(), LIF(beta=0.8)),
    Train(epochs=3, lr=8e-3, metric=WorstClass()),
)
