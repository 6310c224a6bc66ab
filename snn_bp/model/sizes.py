"""Sizes of layers that work on space: `[channels, length]` or `[channels, height, width]`, checked by name."""

from typing import Annotated, Any, TypeAlias

from snn_bp.errors import SnnError
from snn_bp.errors.fields import Within
from snn_bp.model.modules import Shape

Count: TypeAlias = Annotated[int, Within(low=1)]
Counts: TypeAlias = Annotated[int | tuple[int, ...], Within(low=0)]
Sizes: TypeAlias = Annotated[int | tuple[int, ...], Within(low=1)]  # one for all axes, or one for each


def spatial(layer: str, shape: Shape) -> int:
    """How many spatial dimensions `shape` has, 1 or 2."""
    if len(shape) not in (2, 3):
        raise SnnError(
            f"{layer}: it takes [channels, length] or [channels, height, width], found {list(shape)}. "
            "A Flatten() or Dense before it removes the space it works on; Unflatten(shape) makes one."
        )
    return len(shape) - 1


def check_sizes(layer: Any, shape: Shape, *names: str) -> None:
    """Raise unless each of these fields of a layer is one size, or one for each spatial axis of `shape`."""
    kind, dimensions = type(layer).__name__, spatial(type(layer).__name__, shape)
    for name in names:
        size = getattr(layer, name)
        if isinstance(size, tuple) and len(size) != dimensions:
            raise SnnError(
                f"{kind}({name}={size}): the input {list(shape)} has {dimensions} spatial axes, one for each."
            )


def each_axis(shape: Shape, *sizes: int | tuple[int, ...]) -> list[tuple[int, ...]]:
    """Sizes for each spatial axis of `shape`, the axes in order, with the axis' own length first."""
    axes = shape[1:]
    return list(zip(axes, *(size if isinstance(size, tuple) else (size,) * len(axes) for size in sizes), strict=True))


def windows(
    layer: Any, shape: Shape, size: int | tuple[int, ...], stride: int | tuple[int, ...],
    padding: int | tuple[int, ...] = 0, dilation: int | tuple[int, ...] = 1,
) -> list[int]:  # fmt: skip
    """How many windows fit along each spatial axis of `shape`, as torch counts them."""
    counts = []
    for length, window, step, halo, apart in each_axis(shape, size, stride, padding, dilation):
        reach, padded = apart * (window - 1) + 1, length + 2 * halo
        if reach > padded:
            raise SnnError(
                f"{type(layer).__name__}: its window reaches over {reach} values, the input {list(shape)} has {padded} "
                "with its padding. Make the window smaller, or the input larger."
            )
        counts.append((padded - reach) // step + 1)
    return counts
