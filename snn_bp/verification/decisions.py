"""What a network decides on, so that two versions of it can be compared by their decisions."""

from typing import Any

from torch import Tensor

from snn_bp.model.losses import scores_of
from snn_bp.model.metrics import counted
from snn_bp.model.targets import Kind


def decisions(loss: Any, out: Tensor, mask: Tensor | None, kind: Kind) -> Tensor | None:
    """The class of each recording or step, or which labels are said; None where the answer is a number or a spike."""
    if kind == "labels":
        return scores_of(loss, out, mask, kind) > 0
    return scores_of(loss, out, mask, kind).argmax(-1) if kind in ("class", "class per step") else None


def right_of(decided: Tensor | None, targets: Tensor, mask: Tensor | None) -> tuple[int, int]:
    """How many classes are right, of how many; of other targets none."""
    if decided is None or targets.is_floating_point():
        return 0, 0
    if targets.dim() == 1:
        return int((decided == targets).sum()), len(targets)
    labelled = counted(targets, mask)
    return int(((decided == targets) & labelled).sum()), int(labelled.sum())


def differing(first: Tensor | None, second: Tensor | None) -> int:
    """How many recordings are decided otherwise."""
    if first is None or second is None:
        return 0
    other = first != second
    return int((other.flatten(1).any(1) if other.dim() > 1 else other).sum())
