"""A batch of which each of several processes has a shard: what depends on all recordings is asked of all processes.

Within `in_shard` batch norms take the statistics of the whole batch, and a dropout draws for it what one process would.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError


class Shard:
    """What one process has of a batch: about as many of its recordings as each other process.

    Where there are fewer recordings than processes some shards are empty: the first recording stands in, and counts
    nothing.
    """

    def __init__(self, batch: int, *, rank: int, processes: int, seed: int, device: torch.device) -> None:
        self.batch, self.rows = batch, rows_of(batch, rank=rank, processes=processes)
        self.size = _end(batch, rank + 1, processes) - _end(batch, rank, processes)
        self.generator = torch.Generator(device).manual_seed(seed)

    @property
    def is_empty(self) -> bool:
        """Whether a recording only stands in."""
        return self.size == 0

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over all processes of what each has added up, `[...]` in doubles."""
        mine = torch.from_numpy(values)
        return gather(0 * mine if self.is_empty else mine).sum(0).numpy()

    def kept(self, like: Tensor, chance: float) -> Tensor:
        """Which values of `like` `[batch, ...]` are kept, 1 or 0, as they are drawn for the whole batch."""
        layout = torch.channels_last if _lies_channels_last(like) else torch.contiguous_format
        drawn = torch.empty((self.batch, *like.shape[1:]), dtype=like.dtype, device=like.device, memory_format=layout)
        return drawn.bernoulli_(chance, generator=self.generator)[self.rows]


def rows_of(batch: int, *, rank: int, processes: int) -> slice:
    """The recordings of a batch that a process runs."""
    low, high = _end(batch, rank, processes), _end(batch, rank + 1, processes)
    return slice(low, high) if low < high else slice(0, 1)


def check_spread(norm: nn.Module, count: int) -> None:
    """Raise where a norm in training takes the spread of one value."""
    if count == 1:
        raise SnnError(
            f"{type(norm).__name__}: in training with one value for each channel, which has no spread. Give it more "
            "recordings or more steps at once, or network.eval()."
        )


_shard: ContextVar[Shard | None] = ContextVar("shard", default=None)


def shard() -> Shard | None:
    """What this process has of the batch that runs; None where it has all of it."""
    return _shard.get()


@contextmanager
def in_shard(mine: Shard | None) -> Iterator[None]:
    """Within the block, what runs is a shard of a batch."""
    token = _shard.set(mine)
    try:
        yield
    finally:
        _shard.reset(token)


def statistics(rows: Tensor, axes: list[int]) -> tuple[Tensor, Tensor, int]:
    """Mean and variance over `axes` of `rows` `[rows, channels, ...]`, and how many values a channel has.

    In a shard they are those of all processes' rows, and gradients flow to all of them.
    """
    count = rows.numel() // max(1, rows.shape[1])
    if count:
        variance, mean = torch.var_mean(rows, axes, correction=0)
    else:
        mean = variance = rows.sum(axes)
    mine = shard()
    if mine is None:
        return mean, variance, count
    counted = mean.new_tensor([0 if mine.is_empty else count], dtype=torch.float64)
    means, variances, counts = gather(torch.cat((mean.double(), variance.double(), counted))).split(
        (len(mean), len(mean), 1), 1
    )
    total = counts.sum()
    whole = (counts * means).sum(0) / total.clamp(min=1)
    spread = (counts * (variances + (means - whole).square())).sum(0) / total.clamp(min=1)
    return whole.to(rows.dtype), spread.to(rows.dtype), int(total)


def gather(values: Tensor) -> Tensor:
    """The `values` `[...]` of each process, in order: `[processes, ...]`; gradients flow back to each."""
    return _Gathered.apply(values)  # type: ignore[return-value]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        found = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(found, values.contiguous())
        return torch.stack(found)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        (of_all,) = (each.contiguous().clone() for each in gradients)
        torch.distributed.all_reduce(of_all)
        return of_all[torch.distributed.get_rank()]


def _end(batch: int, rank: int, processes: int) -> int:
    return batch * rank // processes


def _lies_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
