"""What a network is asked for: a class, a vector, labels or spikes, for a recording or for every step.

Targets are tensors that begin with the batch; the output of a network is `[time, batch, outputs]` for every kind. A
mask `[time, batch]` is true where a recording has a step, None where every recording has all of them.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from snn_bp.errors import SnnError, check_choice
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Called, check_fields

Kind: TypeAlias = Literal["class", "class per step", "vector", "vector per step", "labels", "spikes"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PER_STEP: tuple[Kind, ...] = ("class per step", "vector per step", "spikes")
UNLABELLED = -1  # the class of a step that has none: losses and metrics leave it out


@checked_dataclass(frozen=True)
class Targets:
    """What recordings are labelled with, and the names of the network's outputs, one for each.

    | kind | tensor |
    |---|---|
    | class | int64 [batch]; where recordings of two classes are mixed, the fraction of each, floats [batch, classes] |
    | class per step | int64 [batch, time], -1 where a step has no label |
    | vector | floats [batch, outputs] |
    | vector per step | floats [batch, time, outputs] |
    | labels | floats 0 or 1 [batch, outputs], several at once |
    | spikes | floats 0 or 1 [batch, time, outputs] |

    `kind` is one of these, `names` a tuple of texts.

    >>> Targets("vector per step", ("x", "y")).shape(batch=16, steps=50)
    (16, 50, 2)
    """

    kind: Kind
    names: Annotated[tuple[str, ...], Called("names of the outputs, as ('left', 'right')")]

    def __post_init__(self) -> None:
        check_choice("Targets: kind", self.kind, KINDS)
        check_fields(self)
        if not self.names:
            raise SnnError("Targets: names is empty. Give the name of each class or output, as ('left', 'right').")

    @property
    def outputs(self) -> int:
        """How many outputs the network should have."""
        return len(self.names)

    @property
    def is_per_step(self) -> bool:
        """Whether every time step has a target of its own."""
        return self.kind in PER_STEP

    @property
    def are_classes(self) -> bool:
        """Whether one of several classes is asked for, in the end or at every step."""
        return self.kind in ("class", "class per step")

    def shape(self, batch: int, steps: int) -> tuple[int, ...]:
        """The shape of the targets of a batch."""
        rows = (batch, steps) if self.is_per_step else (batch,)
        return rows if self.are_classes else (*rows, self.outputs)

    def silence(self, batch: int, steps: int) -> Tensor:
        """Targets of this kind that any loss can take: the first class, zeros."""
        return torch.zeros(self.shape(batch, steps), dtype=torch.long if self.are_classes else torch.float32)


def classes_of(targets: Tensor) -> Tensor:
    """Classes `[batch]` of targets that are classes, or fractions of them: the one with the largest, of equal ones the
    first by number."""
    return targets.argmax(1) if targets.is_floating_point() else targets


class Piece(NamedTuple):
    """The targets of some steps of a batch that is trained in pieces, and what this piece counts for."""

    targets: Tensor
    mask: Tensor | None
    fraction: float  # fractions of all pieces add up to 1, or to 0 where nothing has a label
    rows: Tensor | None  # the recordings that have such steps, where others have ended; None: all
    count: int  # the steps of all recordings that it counts by


def pieces_of(targets: Tensor, mask: Tensor | None, lengths: Sequence[int]) -> Iterator[Piece]:
    """A batch's targets cut into pieces of so many steps.

    A target for the whole recording goes with every piece in which that recording still has steps. Pieces count by
    their steps, of classes for every step by the steps that have a label.
    """
    steps, start = sum(lengths), 0
    per_step = targets.dim() == (3 if targets.is_floating_point() else 2)
    counted = mask
    if per_step and not targets.is_floating_point():
        counted = (targets != UNLABELLED).t() if mask is None else (targets != UNLABELLED).t() & mask
    total = None if counted is None else max(1, int(counted.sum()))
    for length in lengths:
        some = slice(start, start + length)
        count = length * len(targets) if counted is None else int(counted[some].sum())
        fraction = length / steps if total is None else count / total
        mine, there, rows = targets[:, some] if per_step else targets, None if mask is None else mask[some], None
        if there is not None and not per_step and not bool(there.any(0).all()):
            rows = there.any(0)
            mine, there = mine[rows], there[:, rows]
        yield Piece(mine, there, fraction, rows, count)
        start += length
