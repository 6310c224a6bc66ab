"""What the running statistics of batch norms follow: each batch at once, or those of one step in order at its end.

Within `followed_later` they stay as they are, and what they would follow is noted. So they come to the same bits
wherever each of the batches runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_FORWARD = _BatchNorm.forward  # torch's own; a subclass may have another


class Followed(NamedTuple):
    """What a norm has seen of one batch: mean and variance (without bias) of each channel, `[channels]`."""

    norm: nn.Module
    mean: Tensor
    variance: Tensor


_later: ContextVar[list[Followed] | None] = ContextVar("later", default=None)


@contextmanager
def followed_later() -> Iterator[list[Followed]]:
    """Within the block norms in training keep their running statistics; the list has what those would follow."""
    found: list[Followed] = []
    token = _later.set(found)
    try:
        yield found
    finally:
        _later.reset(token)


@torch.no_grad()
def take_in(norm: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """Move a norm's running statistics towards those of a batch by its momentum, or note them for later."""
    later = _later.get()
    if later is not None:
        later.append(Followed(norm, mean.detach().clone(), variance.detach().clone()))
        return
    norm.num_batches_tracked.add_(1)  # type: ignore[operator, union-attr]
    momentum = norm.momentum
    momentum = 1 / float(norm.num_batches_tracked) if momentum is None else momentum  # type: ignore[arg-type]
    norm.running_mean.lerp_(mean, momentum)  # type: ignore[operator, union-attr]
    norm.running_var.lerp_(variance, momentum)  # type: ignore[operator, union-attr]


def by_torch(norm: nn.Module, rows: Tensor) -> Tensor:
    """A norm by its own forward; what torch would make of its running statistics is noted where they follow later."""
    buffers = norm._buffers
    keeps = norm.training and buffers.get("running_mean") is not None and type(norm).forward is _FORWARD
    if _later.get() is None or not keeps:
        return norm(rows)
    kept, momentum = dict(buffers), norm.momentum
    buffers.update({name: torch.zeros_like(value) for name, value in kept.items() if value is not None})
    norm.momentum = 1.0  # type: ignore[assignment] - so that they become what this batch has
    try:
        out = norm(rows)
        mean, variance = buffers["running_mean"], buffers["running_var"]
    finally:
        buffers.update(kept)
        norm.momentum = momentum
    assert mean is not None and variance is not None
    take_in(norm, mean, variance)
    return out
