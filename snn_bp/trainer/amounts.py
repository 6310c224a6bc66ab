"""What a loss is the mean over: parts of a batch, each with what it counts for, make the loss of the whole."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from snn_bp.data import Dataset
from snn_bp.data.augmentations import mixing_classes
from snn_bp.errors import SnnError
from snn_bp.model.losses import loss_of
from snn_bp.model.metrics import counted
from snn_bp.model.signatures import called
from snn_bp.model.targets import Targets
from snn_bp.runtime.processes import processes

CLOSE, DRAWN = 1e-5, 6  # to which two losses agree; recordings on which one is tried


class Amount(NamedTuple):
    """What a loss is the mean over: recordings, or steps that count; by the weights of their classes if there are."""

    by_step: bool
    weights: tuple[float, ...] | None

    def __call__(self, targets: Tensor, mask: Tensor | None) -> float:
        """The sum over such targets."""
        there = torch.ones(len(targets), 1, dtype=torch.bool, device=targets.device)
        if self.by_step and targets.dim() == 2 and not targets.is_floating_point():
            there = counted(targets, mask)
        elif self.by_step and mask is not None:
            there = mask.t()
        if self.weights is None:
            return float(there.sum())
        weights = torch.tensor(self.weights, dtype=torch.float64, device=targets.device)
        if targets.is_floating_point():  # fractions of classes
            return float(((targets.double() @ weights)[:, None] * there).sum())
        return float((weights[targets.clamp(min=0)].view(len(targets), -1) * there).sum())


def amount_of(loss: Any, dataset: Dataset) -> Amount:
    """What a loss is the mean over, of the targets that a training set has."""
    masked = dataset.mask("train", dataset.ids["train"][:1]) is not None
    soft = mixing_classes(dataset.data.augment) is not None
    return mean_over(loss, dataset.targets, steps=dataset.steps, masked=masked, soft=soft)


def mean_over(loss: Any, targets: Targets, *, steps: int, masked: bool, soft: bool = False) -> Amount:
    """What a loss is the mean over, found on a batch that is drawn; raises where it is no such mean.

    `soft`: of targets that are fractions of classes.
    """
    draw = torch.Generator().manual_seed(0)
    out = torch.rand(steps, DRAWN, targets.outputs, generator=draw, dtype=torch.float64).round()
    values = torch.rand(targets.shape(DRAWN, steps), generator=draw)
    if soft:
        values = torch.rand(DRAWN, targets.outputs, generator=draw).softmax(1)
    elif targets.are_classes:
        values = (values * (targets.outputs + targets.is_per_step)).long() - int(targets.is_per_step)
    elif targets.kind in ("labels", "spikes"):
        values = values.round()
    lengths = torch.randint(1, steps + 1, (DRAWN,), generator=draw)
    mask = torch.arange(steps)[:, None] < lengths if masked else None
    weights = getattr(loss, "class_weights", None) if targets.are_classes else None

    def value_and_amounts(of: slice) -> tuple[float, list[float]]:
        there = None if mask is None else mask[:, of]
        return float(loss_of(loss, out[:, of], values[of], there)), [each(values[of], there) for each in candidates]

    candidates = [Amount(by_step, by) for by in {None: 0, weights: 0} for by_step in (False, True)]
    whole, _ = value_and_amounts(slice(None))
    (first, of_first), (second, of_second) = (value_and_amounts(of) for of in (slice(0, 2), slice(2, None)))
    for each, a, b in zip(candidates, of_first, of_second, strict=True):
        if a + b > 0 and abs((a * first + b * second) / (a + b) - whole) <= CLOSE * max(1e-9, abs(whole)):
            return each
    raise SnnError(
        f"{called(loss)}: on {processes()} processes a loss should be the mean over recordings, or over steps that "
        f"have a label: of {DRAWN} it is {whole:.6g}, {first:.6g} of the first two, {second:.6g} of the others. "
        f"train.accumulate={processes()} deals whole batches, of which any loss goes; or train in one process."
    )
