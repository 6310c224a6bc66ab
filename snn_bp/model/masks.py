"""Recordings of different length in one batch: means and norms that count only the steps that there are.

A mask `[time, batch]` is True where a recording has a step; short recordings are padded at their end, and since all
that has state looks back only, what is there computes as it would alone.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError, shown
from snn_bp.model.blocks import LayerAt, Path, every_part, follow, role_of, scale_and_shift
from snn_bp.model.exact import is_exact
from snn_bp.model.shard import check_spread, statistics


def check_mask(x: Tensor, mask: Any, row: Iterable[LayerAt], name: Callable[[int | Path], str]) -> None:
    """Raise unless `mask` fits `x` `[time, batch, ...]`, and layers in training know how to count by it."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != x.shape[:2]:
        found = f"{list(mask.shape)} of {mask.dtype}" if isinstance(mask, Tensor) else shown(mask)
        raise SnnError(
            f"network: the mask should be [time, batch] of torch.bool, {list(x.shape[:2])} here, found {found}. It is "
            "True where a recording has a step; None where all have every step."
        )
    if mask.device != x.device:
        raise SnnError(f"network: the mask is on {mask.device}, the input on {x.device}. Use mask.to(x.device).")
    for part in every_part(row):
        known = part.role in ("neurons", "joint") or (part.role == "norm" and is_exact(part.layer))
        if part.layer.training and not known and takes_statistics(part.layer):
            raise SnnError(
                f"network: {name(part.path)} takes statistics over all steps while training, and with a mask some are "
                "not there. BatchNorm() counts those that are; LayerNorm() takes none over steps."
            )
        if part.role == "over time" and not part.layer.takes_mask:  # type: ignore[operator]
            raise SnnError(
                f"network: {name(part.path)} sees all steps, and with a mask some are not there. Its forward can ask "
                "for it, as forward(self, x, mask=None)."
            )


def takes_statistics(layer: nn.Module) -> bool:
    """Whether a part of the layer keeps running statistics, as a batch norm does."""
    return any("running_mean" in part._buffers for part in layer.modules())


def mean_of(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of `x` `[time, batch, ...]` over time and batch; with a mask over the steps that there are."""
    if mask is None:
        return x.mean((0, 1))
    there = x[mask]
    return there.sum(0) / max(1, len(there))


def run_counted_norm(norm: nn.Module, mask: Tensor | None, x: Tensor, states: list) -> tuple[Tensor, list, list]:
    """A batch norm in training by the statistics of the steps that there are, in all processes that train together.

    Its running statistics follow those. Where a piece of a recording has no step at all, by the running ones, which
    then stay.
    """
    rows = x.flatten(0, 1)
    mean, variance, count = statistics(rows if mask is None else rows[mask.flatten()], [0, *range(2, rows.dim())])
    check_spread(norm, count)
    if count:
        follow(norm, mean, variance, count=count)
    affine = scale_and_shift(norm, mean, variance) if count else scale_and_shift(norm)
    scale, shift = (value.view(-1, *(1,) * (rows.dim() - 2)) for value in affine)
    return (rows * scale + shift).unflatten(0, x.shape[:2]), [], []


def is_training_norm(layer: nn.Module) -> bool:
    """Whether a layer is a norm that takes the statistics of its input."""
    return layer.training and role_of(layer) == "norm"


def present(x: Tensor, mask: Tensor | None) -> Tensor:
    """What a layer sends, `[time, batch, ...]`, zero at steps that a recording does not have."""
    return x if mask is None else x * mask.view(*mask.shape, *(1,) * (x.dim() - 2))


def by_length(x: Tensor, mask: Tensor | None) -> Iterator[Tensor]:
    """The recordings of `x` `[time, batch, ...]` without what they are padded with, those of one length together."""
    lengths = torch.full(x.shape[1:2], len(x)) if mask is None else mask.sum(0)
    for length in lengths[lengths > 0].unique().tolist():
        yield x[:length, lengths == length]
