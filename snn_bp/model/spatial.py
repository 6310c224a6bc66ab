"""Layers that bring space back or normalise a step by itself: what a U-shaped network, or one of frames, needs.

Each builds torch's own module, which trains, streams and resumes; neither Loihi nor NIR has their like, so they are
refused there by name.
"""

import math
from dataclasses import KW_ONLY
from typing import Annotated

from torch import nn

from snn_bp.errors import SnnError
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Within, check_fields
from snn_bp.model.modules import Shape
from snn_bp.model.sizes import Count, Counts, Sizes, check_sizes, each_axis, spatial


@checked_dataclass(frozen=True)
class ConvTranspose:
    """Transposed convolution, which makes maps larger: in one or two dimensions, from `[channels, ...]`.

    Its gradient by the input is a `Conv` of the same kernel, stride and padding (Dumoulin & Visin 2016). A side of n
    becomes (n - 1) * stride - 2 * padding + kernel + output_padding.

    Parameters:
        channels: how many maps it gives.
        kernel: side of the window, in pixels; one integer, or one for each axis. So are the next three.
        stride (1): pixels from one window to the next, in the output.
        padding (0): pixels cut off at each end.
        output_padding (0): pixels added at the end of each side; less than the stride.
        bias (True): whether each map adds a learned constant.

    >>> Network((ConvTranspose(4, 2, stride=2), LIF(beta=0.9)), (8, 5, 5)).output_shape
    (4, 10, 10)
    """

    channels: Count
    kernel: Sizes
    _: KW_ONLY
    stride: Sizes = 1
    padding: Counts = 0
    output_padding: Counts = 0
    bias: bool = True

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """A `nn.ConvTranspose1d` or `nn.ConvTranspose2d` for an input of `shape`."""
        self.after(shape)  # which checks the sizes
        kind = nn.ConvTranspose1d if spatial("ConvTranspose", shape) == 1 else nn.ConvTranspose2d
        return kind(
            shape[0],
            self.channels,
            self.kernel,  # type: ignore[arg-type]
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            output_padding=self.output_padding,  # type: ignore[arg-type]
            bias=self.bias,
        )

    def after(self, shape: Shape) -> Shape:
        """The channels, and the side that each axis becomes."""
        check_sizes(self, shape, "kernel", "stride", "padding", "output_padding")
        sides = []
        for side, window, step, cut, added in each_axis(
            shape, self.kernel, self.stride, self.padding, self.output_padding
        ):
            sides.append((side - 1) * step - 2 * cut + window + added)
            if added >= step:
                raise SnnError(f"ConvTranspose(output_padding={added}): it should be less than the stride, {step}.")
            if sides[-1] < 1:
                raise SnnError(f"ConvTranspose(padding={cut}): nothing is left of a side of {side}. Use less padding.")
        return self.channels, *sides


@checked_dataclass(frozen=True)
class Upsample:
    """Every value `factor` times along each spatial axis: the nearest neighbour, so spikes stay spikes.

    >>> Network((Upsample(2),), (8, 5, 5)).output_shape
    (8, 10, 10)
    """

    factor: Count

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """A `nn.Upsample`, for `[channels, length]` or `[channels, height, width]`."""
        spatial("Upsample", shape)
        return nn.Upsample(scale_factor=self.factor, mode="nearest")

    def after(self, shape: Shape) -> Shape:
        """The channels that came, each side `factor` times as long."""
        return shape[0], *(side * self.factor for side in shape[1:])


@checked_dataclass(frozen=True)
class Unflatten:
    """A flat input as `shape`, `[channels, length]` or `[channels, height, width]`, in torch's order: `Flatten` undone.

    >>> Network((Dense(50), Unflatten((2, 5, 5)), Conv(4, 3)), (7,)).shapes
    [(50,), (2, 5, 5), (4, 3, 3)]
    """

    shape: Annotated[tuple[int, ...], Within(low=1)]

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """A `nn.Unflatten`."""
        if len(shape) != 1 or not self.shape or math.prod(self.shape) != shape[0]:
            raise SnnError(
                f"Unflatten({self.shape}): it makes {math.prod(self.shape)} values of a flat input of as many, found "
                f"{list(shape)}."
            )
        return nn.Unflatten(1, self.shape)

    def after(self, shape: Shape) -> Shape:
        """The shape that it gives."""
        return self.shape


@checked_dataclass(frozen=True)
class LayerNorm:
    """Normalises each step of each recording by itself, over all its neurons; a gain and a shift for each are learned.

    Ba et al. 2016: (x - mean) / sqrt(variance + 1e-5), then gain and shift; the gain begins at `scale` (1.0), in
    thresholds of 1. It takes no statistics over batch or time, so training and evaluation are the same, and recordings
    of different length need no mask here. It needs all neurons of a step at once: no chip and no NIR file holds it,
    where `BatchNorm` folds into weights.

    >>> Network((Dense(10), LayerNorm(), LIF(beta=0.9)), (5,)).output_shape
    (10,)
    """

    scale: Annotated[float, Within(above=0)] = 1.0

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """A `nn.LayerNorm` over the axes of a step."""
        norm = nn.LayerNorm(list(shape))
        nn.init.constant_(norm.weight, self.scale)
        return norm

    def after(self, shape: Shape) -> Shape:
        """As it came."""
        return shape
