"""What a network is made of: frozen values that say what a layer is, and build it once the input's shape is known.

A layer without state becomes torch's own module and sees `[time * batch, ...]` at once. Layers with state (`Spiking`,
`Recurrent`) see `[time, batch, ...]` and take and return that state. `after(shape)` is the shape of one step behind a
layer that takes `shape`; a value without it is asked by running its module once.
"""

import math
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeAlias

import torch
from torch import nn

from snn_bp.errors import SnnError, shown
from snn_bp.errors.fields import Called, Within, check_fields
from snn_bp.model.joints import Parallel, Residual
from snn_bp.model.modules import Delays, DropoutOverTime, Neurons, Shape, SumPool, check_learned
from snn_bp.neurons import ALIF, IF, LI, LIF, CubaLIF, Neuron, at_step, is_spiking
from snn_bp.surrogates import Surrogate

Count: TypeAlias = Annotated[int, Within(low=1)]
Sizes: TypeAlias = Annotated[int | tuple[int, ...], Within(low=1)]  # one for all axes, or one for each


@dataclass(frozen=True)
class Dense:
    """Every neuron of the layer before to each of `units`."""

    units: Count
    _: KW_ONLY
    bias: bool = True

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """A `nn.Linear` for an input of `shape`."""
        if len(shape) != 1:
            raise SnnError(f"Dense({self.units}): it takes a flat input, found {list(shape)}. Put Flatten() before it.")
        return nn.Linear(shape[0], self.units, bias=self.bias)

    def after(self, shape: Shape) -> Shape:
        """One value for each unit."""
        return (self.units,)


@dataclass(frozen=True)
class Conv:
    """Convolution in one dimension over `[channels, length]`, in two over `[channels, height, width]`."""

    channels: Count
    kernel: Sizes
    _: KW_ONLY
    stride: Sizes = 1
    padding: Annotated[int | tuple[int, ...], Within(low=0)] = 0
    dilation: Sizes = 1
    groups: Count = 1
    bias: bool = True

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """A `nn.Conv1d` or `nn.Conv2d` for an input of `shape`."""
        dimensions = spatial("Conv", shape)
        for name in ("kernel", "stride", "padding", "dilation"):
            size = getattr(self, name)
            if isinstance(size, tuple) and len(size) != dimensions:
                raise SnnError(
                    f"Conv({name}={size}): the input {list(shape)} has {dimensions} spatial axes, one for each."
                )
        if shape[0] % self.groups or self.channels % self.groups:
            raise SnnError(
                f"Conv(groups={self.groups}): the groups should divide the {shape[0]} channels in, {self.channels} out."
            )
        kind = nn.Conv1d if dimensions == 1 else nn.Conv2d
        return kind(
            shape[0],
            self.channels,
            self.kernel,  # type: ignore[arg-type]
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            dilation=self.dilation,  # type: ignore[arg-type]
            groups=self.groups,
            bias=self.bias,
        )

    def after(self, shape: Shape) -> Shape:
        """The channels, and the windows that fit along each spatial axis."""
        return self.channels, *_windows(self, shape, self.kernel, self.stride, self.padding, self.dilation)


@dataclass(frozen=True)
class Pool:
    """Sum, average or maximum over windows of `size`, in one or two dimensions."""

    size: Count
    _: KW_ONLY
    kind: Literal["sum", "average", "max"] = "average"
    stride: Annotated[int | None, Within(low=1)] = None  # None: the size

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """The pooling module for an input of `shape`."""
        dimensions = spatial("Pool", shape)
        if self.kind == "sum":
            return SumPool(self.size, self.stride or self.size)
        kinds = {"average": (nn.AvgPool1d, nn.AvgPool2d), "max": (nn.MaxPool1d, nn.MaxPool2d)}
        return kinds[self.kind][dimensions - 1](self.size, self.stride)

    def after(self, shape: Shape) -> Shape:
        """The channels that came, and the windows that fit along each spatial axis."""
        return shape[0], *_windows(self, shape, self.size, self.stride or self.size)


@dataclass(frozen=True)
class Flatten:
    """`[channels, height, width]` to one axis, in torch's order."""

    def build(self, shape: Shape) -> nn.Module:
        """A `nn.Flatten`."""
        if not shape:
            raise SnnError("Flatten: a step of the input has no axes, it is one number. Give it [1].")
        return nn.Flatten(1)

    def after(self, shape: Shape) -> Shape:
        """All values on one axis."""
        return (math.prod(shape),)


@dataclass(frozen=True)
class Dropout:
    """Silences each input with probability `p` while training, the same ones at every time step of a sample."""

    p: Annotated[float, Within(0, 0.99)] = 0.1

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """The module; it draws from torch's generator."""
        return DropoutOverTime(self.p)

    def after(self, shape: Shape) -> Shape:
        """As it came."""
        return shape


@dataclass(frozen=True)
class Delay:
    """Axonal delays: what each neuron of the layer before sends arrives `steps` time steps later.

    One integer for all, or one for each neuron. With `learn`, each neuron learns its own within 0..`max_steps`,
    starting at `steps`, which then lies between; it is rounded in the forward pass, and its gradient is minus the
    difference in time of what is delayed (as in SLAYER, Shrestha & Orchard 2018). Chips hold up to 62.
    """

    steps: Annotated[float | tuple[float, ...], Within(low=0, nested=True)] = 1
    _: KW_ONLY
    learn: bool = False
    max_steps: Count = 62

    def __post_init__(self) -> None:
        check_fields(self)
        told = f"Delay(steps={shown(self.steps)}"
        try:
            start = torch.as_tensor(self.steps, dtype=torch.float32)
        except ValueError:
            raise SnnError(f"{told}): its rows differ in length. Give one number, or one for each neuron.") from None
        if self.learn and not bool(((start > 0) & (start < self.max_steps)).all()):
            raise SnnError(f"{told}, learn=True): it should start inside 0..{self.max_steps}, not at an end.")
        if not self.learn and not bool(((start == start.round()) & (start <= self.max_steps)).all()):
            raise SnnError(f"{told}): integers in 0..{self.max_steps}.")

    def build(self, shape: Shape) -> nn.Module:
        """The module for an input of `shape`."""
        start = torch.as_tensor(self.steps, dtype=torch.get_default_dtype(), device="cpu")
        try:
            start = start.expand(shape)
        except RuntimeError:
            told = f"Delay: {list(start.shape)} delays for neurons {list(shape)}. Give one, or each its own."
            raise SnnError(told) from None
        return Delays(start, self.max_steps, learn=self.learn)

    def after(self, shape: Shape) -> Shape:
        """As it came."""
        return shape


@dataclass(frozen=True)
class BatchNorm:
    """Normalises the synaptic current over time and batch: each neuron its own, each channel after a `Conv`.

    Stands between a `Dense` or `Conv` and its neuron. Evaluation uses running means, so streaming and export are
    exact: scale and shift fold into the weights. Ioffe & Szegedy 2015; over time as in Zheng et al. 2021 (tdBN).
    """

    momentum: Annotated[float, Within(0, 1)] = 0.1
    scale: Annotated[float, Within(above=0)] = 1.0  # initial spread of the current

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """A `nn.BatchNorm1d` or `nn.BatchNorm2d`."""
        if len(shape) not in (1, 2, 3):
            raise SnnError(
                f"BatchNorm: it takes [neurons], [channels, length] or [channels, height, width], found {list(shape)}."
            )
        norm = (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(shape[0], momentum=self.momentum)
        nn.init.constant_(norm.weight, self.scale)
        return norm

    def after(self, shape: Shape) -> Shape:
        """As it came."""
        return shape


@dataclass(frozen=True)
class Spiking:
    """A neuron of which parameters are learned, one value for each neuron: `Spiking(LIF(beta=0.9), learn=("beta",))`.

    Decays stay in 0..1 (as a logistic function of what is learned), thresholds and `kappa` above 0 (softplus).
    """

    neuron: Annotated[Neuron, Called("a neuron, as LIF(beta=0.9)")]
    _: KW_ONLY
    learn: Annotated[tuple[str, ...], Called('names of parameters, as ("beta",)')] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        check_learned(self.neuron, self.learn)

    def build(self, shape: Shape, surrogate: Surrogate) -> Neurons:
        """The layer of neurons for an input of `shape`."""
        return Neurons(self.neuron, shape, surrogate, learn=self.learn)


@dataclass(frozen=True)
class Recurrent:
    """A neuron with dense recurrence: its input is x[t] + V s[t-1] + c, before anything else."""

    neuron: Annotated[Neuron, Called("a neuron, as LIF(beta=0.9)")]
    _: KW_ONLY
    learn: Annotated[tuple[str, ...], Called('names of parameters, as ("beta",)')] = ()
    bias: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        check_learned(self.neuron, self.learn)
        if not is_spiking(self.neuron):
            raise SnnError(f"Recurrent(neuron={self.neuron}): it takes a spiking neuron, as LIF(beta=0.9).")

    def build(self, shape: Shape, surrogate: Surrogate) -> Neurons:
        """The recurrent layer for an input of `shape`."""
        if len(shape) != 1:
            raise SnnError(f"Recurrent: it takes a flat input, found {list(shape)}. Put Flatten() before it.")
        recurrence = nn.Linear(shape[0], shape[0], bias=self.bias)
        return Neurons(self.neuron, shape, surrogate, learn=self.learn, recurrence=recurrence)


Layer: TypeAlias = (
    Dense
    | Conv
    | Pool
    | Flatten
    | Dropout
    | Delay
    | BatchNorm
    | Spiking
    | Recurrent
    | Residual
    | Parallel
    | IF
    | LIF
    | CubaLIF
    | ALIF
    | LI
)


def spatial(layer: str, shape: Shape) -> int:
    """How many spatial dimensions `shape` has, 1 or 2."""
    if len(shape) not in (2, 3):
        raise SnnError(
            f"{layer}: it takes [channels, length] or [channels, height, width], found {list(shape)}. "
            "A Flatten() or Dense before it removes the space it works on."
        )
    return len(shape) - 1


def _windows(
    layer: Conv | Pool, shape: Shape, size: Sizes, stride: Sizes, padding: Sizes = 0, dilation: Sizes = 1
) -> list[int]:
    """How many windows fit along each spatial axis of `shape`, as torch counts them."""
    axes = shape[1:]
    each = [value if isinstance(value, tuple) else (value,) * len(axes) for value in (size, stride, padding, dilation)]
    counts = []
    for length, window, step, halo, apart in zip(axes, *each, strict=True):
        reach, padded = apart * (window - 1) + 1, length + 2 * halo
        if reach > padded:
            raise SnnError(
                f"{type(layer).__name__}: its window reaches over {reach} values, the input {list(shape)} has {padded} "
                "with its padding. Make the window smaller, or the input larger."
            )
        counts.append((padded - reach) // step + 1)
    return counts


def with_step(model: Any, *, step_ms: float) -> Any:
    """The model with every time constant turned into the decay of a step of `step_ms`, within joints too."""
    if isinstance(model, tuple):
        return tuple(with_step(layer, step_ms=step_ms) for layer in model)
    if isinstance(model, Neuron):
        return at_step(model, step_ms=step_ms)
    if isinstance(model, Spiking | Recurrent):
        return replace(model, neuron=at_step(model.neuron, step_ms=step_ms))
    if hasattr(model, "branches"):
        return replace(
            model, **{field.name: with_step(getattr(model, field.name), step_ms=step_ms) for field in fields(model)}
        )
    return model
