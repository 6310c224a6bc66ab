"""One weighted sum for all between two layers of neurons: norms and pools folded into the weights, exactly."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.chip.rules import Block
from snn_bp.errors import SnnError
from snn_bp.model.modules import Delays, DropoutOverTime, SumPool

Pair = tuple[int, int]


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
    shape, weight, bias, geometry, pools = block.shape, None, None, None, []
    for part in block.parts:
        if isinstance(part, SumPool | nn.AvgPool2d) and weight is None:
            pools.append(part)
        elif isinstance(part, SumPool | nn.AvgPool2d):
            assert weight is not None
            weight, bias, geometry = _pooled_after(weight, bias, geometry, part)
        elif isinstance(part, nn.Linear | nn.Conv2d):
            weight, bias, geometry = _pooled_before(part, pools, shape)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert weight is not None
            total = Sum(weight, bias, geometry)
            scale, shift = _normed(part, total, x)
            weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
            bias = shift if bias is None else bias * scale + shift
        elif not isinstance(part, nn.Flatten | DropoutOverTime | Delays):  # these leave a sum as it is
            known = "Dense, Conv, Pool(kind='sum' or 'average'), BatchNorm, Flatten, Dropout and Delay"
            raise SnnError(f"a {type(part).__name__} folds into no weighted sum. Those that do: {known}.")
    if weight is None and not pools:  # neurons at the input, each with its own pixel
        weight, geometry = _each_its_own(block.neurons.shape, torch.zeros(()) if like is None else like)
    elif weight is None:  # a pool of spikes with its own neurons
        weight, geometry = _pool_kernel(pools[0], shape[0], torch.zeros(()) if like is None else like)
        for pool in pools[1:]:
            weight, bias, geometry = _pooled_after(weight, bias, geometry, pool)
    return Sum(weight, bias, geometry)


def _normed(norm: nn.Module, total: Sum, x: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scale and shift of a norm; with `x` by its statistics, which the running ones follow."""
    assert (
        isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        and norm.running_mean is not None
        and norm.running_var is not None
    )
    mean, variance = norm.running_mean, norm.running_var
    if x is not None:
        z = total(x)
        axes = [0, *range(2, z.dim())]
        if z.numel() == z.shape[1]:
            raise SnnError(
                "a BatchNorm in training has one value for each channel, which has no spread. Give it more recordings "
                "or more steps at once."
            )
        mean, variance = z.mean(axes), z.var(axes, unbiased=False)
        if total.bias is not None:
            mean = mean + total.bias
        count = z.numel() // z.shape[1]
        with torch.no_grad():
            assert norm.momentum is not None and norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * (count / max(1, count - 1)), norm.momentum)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return scale, norm.bias - mean * scale


def _pooled_before(
    part: nn.Module, pools: list[nn.Module], shape: tuple[int, ...]
) -> tuple[Tensor, Tensor | None, Geometry | None]:
    """Weights of a layer that go to what its pools go to: the same sums, without the pools."""
    assert isinstance(part, nn.Linear | nn.Conv2d)
    weight, geometry = part.weight, None
    if isinstance(part, nn.Conv2d):
        geometry = Geometry(part.stride, part.padding, part.dilation, part.groups)  # type: ignore[arg-type]
    sizes = [shape[1:]]
    for pool in pools:
        size, stride, _ = _window(pool)
        sizes.append(tuple((length - size) // stride + 1 for length in sizes[-1]))
    for pool, before, after in reversed(list(zip(pools, sizes, sizes[1:], strict=False))):
        size, stride, share = _window(pool)
        if geometry is None:
            kernel = weight.new_full((1, 1, size, size), share)
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
            weight = F.conv_transpose2d(
                spread.flatten(0, 1)[:, None], weight.new_full((1, 1, size, size), share)
            ).unflatten(0, spread.shape[:2])[:, :, 0]
            geometry = Geometry(
                (geometry.stride[0] * stride, geometry.stride[1] * stride),
                (geometry.padding[0] * stride, geometry.padding[1] * stride), (1, 1), geometry.groups,
            )  # fmt: skip
    return weight, part.bias, geometry


def _pooled_after(
    weight: Tensor, bias: Tensor | None, geometry: Geometry | None, pool: nn.Module
) -> tuple[Tensor, Tensor | None, Geometry]:
    """A convolution and the pool behind it as one convolution."""
    assert geometry is not None, "a pool takes images"
    size, stride, share = _window(pool)
    spread = _spread(weight, list(geometry.dilation))
    kernel = _spread(weight.new_full((1, 1, size, size), share), list(geometry.stride))
    joined = F.conv_transpose2d(spread.flatten(0, 1)[:, None], kernel).unflatten(0, spread.shape[:2])[:, :, 0]
    strides = (geometry.stride[0] * stride, geometry.stride[1] * stride)
    return (
        joined,
        None if bias is None else bias * (share * size * size),
        Geometry(strides, geometry.padding, (1, 1), geometry.groups),
    )


def _each_its_own(shape: tuple[int, ...], like: Tensor) -> tuple[Tensor, Geometry | None]:
    """Weights of 1 from each input to the neuron in its place."""
    if len(shape) == 3:
        return like.new_ones(shape[0], 1, 1, 1), Geometry((1, 1), (0, 0), (1, 1), shape[0])
    return torch.eye(shape[0], dtype=like.dtype, device=like.device), None


def _pool_kernel(pool: nn.Module, channels: int, like: Tensor) -> tuple[Tensor, Geometry]:
    """A pool as the convolution of each channel with itself alone."""
    size, stride, share = _window(pool)
    return like.new_full((channels, 1, size, size), share), Geometry((stride, stride), (0, 0), (1, 1), channels)


def _window(pool: nn.Module) -> tuple[int, int, float]:
    """Size and stride of a pool, and the weight of each of its inputs."""
    size, stride = int(pool.kernel_size if isinstance(pool, nn.AvgPool2d) else pool.size), int(pool.stride)  # type: ignore[arg-type]
    return size, stride, 1 / (size * size) if isinstance(pool, nn.AvgPool2d) else 1.0


def _spread(kernel: Tensor, distance: list[int]) -> Tensor:
    """A kernel with its dilation written out as zeros."""
    if distance == [1, 1]:
        return kernel
    tall, wide = ((length - 1) * step + 1 for length, step in zip(kernel.shape[2:], distance, strict=True))
    out = kernel.new_zeros(*kernel.shape[:2], tall, wide)
    out[:, :, :: distance[0], :: distance[1]] = kernel
    return out
