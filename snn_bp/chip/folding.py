"""One weighted sum for all between two layers of neurons: norms and pools folded into the weights, exactly."""

from functools import singledispatch
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.chip.graph import Pair
from snn_bp.chip.rules import neurons_of
from snn_bp.errors import SnnError
from snn_bp.model.blocks import Block, follow, scale_and_shift
from snn_bp.model.modules import SumPool
from snn_bp.model.shard import shard, statistics

KNOWN = "Dense, Conv, Pool(kind='sum' or 'average'), BatchNorm, Flatten, Dropout and Delay"


class Geometry(NamedTuple):
    """How the kernel of a convolution moves; the arguments of `F.conv2d`."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


class Sum(NamedTuple):
    """A weighted sum with all norms and pools folded in: dense without a geometry, else a convolution."""

    weight: Tensor
    bias: Tensor | None
    geometry: Geometry | None

    def __call__(self, x: Tensor) -> Tensor:
        """The sum, without bias, of `x` `[rows, ...]`."""
        if self.geometry is None:
            return F.linear(x.flatten(1), self.weight)
        return F.conv2d(x, self.weight, None, *self.geometry)


def folded(block: Block, x: Tensor | None = None, *, like: Tensor | None = None) -> Sum:
    """The block's weighted sum in floats; norms take the statistics of `x` `[rows, ...]` where it is given.

    A pool without weights behind it is made in the type and on the device of `like`.
    """
    shape, like = block.parts[0].before, torch.zeros(()) if like is None else like
    total: Sum | None = None
    pools: list[nn.Module] = []  # those in front of the weights
    for part in block.parts[:-1]:
        if part.role == "weights":
            total = _pooled_before(part.layer, pools, shape)
        elif part.role == "pool" and total is None:
            pools.append(part.layer)
        elif part.role == "pool" and total is not None:
            total = _pooled_after(total, part.layer)
        elif part.role == "norm":
            total = _normed(part.layer, total, x)
        elif part.role not in ("flatten", "dropout", "delay"):  # these leave a sum as it is
            raise SnnError(f"a {type(part.layer).__name__} folds into no weighted sum. Those that do: {KNOWN}.")
    if total is None:  # neurons at the input, each with its own pixel, or behind pools of spikes
        total = _each_its_own(shape if pools else neurons_of(block).shape, like)
        for pool in pools:
            total = _pooled_after(total, pool)
    return total


def _normed(norm: nn.Module, total: Sum | None, x: Tensor | None) -> Sum:
    """A sum and the norm behind it; with `x` by its statistics, which the running ones follow."""
    assert total is not None
    weight, bias, geometry = total
    mean = variance = None
    count = 0
    if x is not None:
        z = total(x)
        axes, count = [0, *range(2, z.dim())], z.numel() // z.shape[1]
        if shard() is not None:
            mean, variance, count = statistics(z, axes)
        if count == 1:
            raise SnnError(
                "a BatchNorm in training has one value for each channel, which has no spread. Give it more recordings "
                "or more steps at once."
            )
        if mean is None:
            mean, variance = z.mean(axes), z.var(axes, unbiased=False)
    if count:
        assert mean is not None and variance is not None
        mean = mean if bias is None else mean + bias
        follow(norm, mean, variance, count=count)
    scale, shift = scale_and_shift(norm, mean, variance) if count else scale_and_shift(norm)
    weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    return Sum(weight, shift if bias is None else bias * scale + shift, geometry)


def _pooled_before(layer: nn.Module, pools: list[nn.Module], shape: tuple[int, ...]) -> Sum:
    """Weights of a layer that go to what its pools go to: the same sums, without the pools."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    geometry = None
    if weight.dim() == 4:
        geometry = Geometry(layer.stride, layer.padding, layer.dilation, layer.groups)  # type: ignore[arg-type]
    sizes = [shape[1:]]
    for pool in pools:
        size, stride, _ = _window(pool)
        sizes.append(tuple((length - size) // stride + 1 for length in sizes[-1]))
    for pool, before, after in reversed(list(zip(pools, sizes, sizes[1:], strict=False))):
        size, stride, each = _window(pool)
        if geometry is None:
            kernel = weight.new_full((1, 1, size, size), each)
            maps = F.conv_transpose2d(weight.reshape(-1, 1, *after), kernel, stride=stride)
            margin = [length - have for length, have in zip(before, maps.shape[2:], strict=True)]
            weight = F.pad(maps, (0, margin[1], 0, margin[0])).reshape(weight.shape[0], -1)
        else:
            leftover = [(length - size) % stride for length in before]
            if any(geometry.padding) and (any(leftover) or stride < size):
                raise SnnError(
                    f"a padded Conv behind a Pool of {size} by steps of {stride} on {list(before)}: the pool's windows "
                    "overlap or leave out an edge, and one kernel cannot say both. Use padding=0, or a pool whose "
                    "stride is its size and divides the image."
                )
            spread = _spread(weight, [d * stride for d in geometry.dilation])
            weight = _joined(spread, weight.new_full((1, 1, size, size), each))
            geometry = Geometry(
                (geometry.stride[0] * stride, geometry.stride[1] * stride),
                (geometry.padding[0] * stride, geometry.padding[1] * stride), (1, 1), geometry.groups,
            )  # fmt: skip
    return Sum(weight, layer.bias, geometry)  # type: ignore[arg-type]


def _pooled_after(total: Sum, pool: nn.Module) -> Sum:
    """A convolution and the pool behind it as one convolution."""
    weight, bias, geometry = total
    assert geometry is not None, "a pool takes images"
    size, stride, each = _window(pool)
    kernel = _spread(weight.new_full((1, 1, size, size), each), list(geometry.stride))
    joined = _joined(_spread(weight, list(geometry.dilation)), kernel)
    strides = (geometry.stride[0] * stride, geometry.stride[1] * stride)
    moves = Geometry(strides, geometry.padding, (1, 1), geometry.groups)
    return Sum(joined, None if bias is None else bias * (each * size * size), moves)


def _joined(kernels: Tensor, pool: Tensor) -> Tensor:
    """Kernels `[out, in, height, width]`, each with that of a pool in one."""
    return F.conv_transpose2d(kernels.flatten(0, 1)[:, None], pool).unflatten(0, kernels.shape[:2])[:, :, 0]


def _each_its_own(shape: tuple[int, ...], like: Tensor) -> Sum:
    """Weights of 1 from each input to the neuron at its index."""
    if len(shape) == 3:
        return Sum(like.new_ones(shape[0], 1, 1, 1), None, Geometry((1, 1), (0, 0), (1, 1), shape[0]))
    return Sum(torch.eye(shape[0], dtype=like.dtype, device=like.device), None, None)


@singledispatch
def _window(pool: nn.Module) -> tuple[int, int, float]:
    """Size and stride of a pool, and the weight of each of its inputs."""
    raise SnnError(f"a {type(pool).__name__} folds into no weighted sum. Those that do: {KNOWN}.")


@_window.register
def _(pool: SumPool) -> tuple[int, int, float]:
    return int(pool.size), int(pool.stride), 1.0


@_window.register
def _(pool: nn.AvgPool2d) -> tuple[int, int, float]:
    size = int(pool.kernel_size)  # type: ignore[arg-type]
    return size, int(pool.stride), 1 / (size * size)  # type: ignore[arg-type]


def _spread(kernel: Tensor, distance: list[int]) -> Tensor:
    """A kernel with its dilation written out as zeros."""
    if distance == [1, 1]:
        return kernel
    height, width = ((length - 1) * step + 1 for length, step in zip(kernel.shape[2:], distance, strict=True))
    out = kernel.new_zeros(*kernel.shape[:2], height, width)
    out[:, :, :: distance[0], :: distance[1]] = kernel
    return out
