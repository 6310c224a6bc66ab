"""How images lie in memory: neurons do not care about their order, so kernels take them as they lie.

Orders of axes: `CHANNELS_LAST` of `[time, batch, channels, height, width]`, and `CHANNELS_FIRST` back.
"""

from collections.abc import Iterable

from torch import Tensor

CHANNELS_LAST, CHANNELS_FIRST = (0, 1, 3, 4, 2), (0, 1, 4, 2, 3)


def lies_channels_last(x: Tensor, *, dims: int) -> bool:
    """Whether `x`, of so many axes that end in `channels, height, width`, lies channels last in memory."""
    return x.dim() == dims and not x.is_contiguous() and x.movedim(-3, -1).is_contiguous()


def permuted(tensors: Iterable[Tensor], order: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Tensors `[time, batch, ...]` with their axes in another order; of those for one step, and scalars, likewise."""
    one_step = tuple(axis - 1 for axis in order[1:])
    return tuple(
        tensor if tensor.dim() < 4 else tensor.permute(order if tensor.dim() == 5 else one_step) for tensor in tensors
    )
