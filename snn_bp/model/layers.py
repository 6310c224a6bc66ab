"""What a network is made of: frozen values that say what a layer is, and build it once the input's shape is known.

A layer without state becomes torch's own module and sees `[time * batch, ...]` at once. Layers with state (`Spiking`,
`Recurrent`) see `[time, batch, ...]` and take and return that state. `after(shape)` is the shape of one step behind a
layer that takes `shape`; a value without it is asked by running its module once.
"""

import math
from dataclasses import KW_ONLY, fields, replace
from typing import Annotated, Any, Literal, TypeAlias

import torch
from torch import nn

from snn_bp.errors import SnnError, shown
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Called, Within, check_fields
from snn_bp.model.constrained import Density, Excitatory, Sign, dense
from snn_bp.model.joints import Parallel, Residual
from snn_bp.model.modules import Delays, DropoutOverTime, Neurons, Per, Shape, SumPool, check_learned
from snn_bp.model.own_module import Module
from snn_bp.model.sizes import Count, Sizes, check_sizes, spatial, windows
from snn_bp.model.spatial import ConvTranspose, LayerNorm, Unflatten, Upsample
from snn_bp.model.temporal import DelayedDense, TemporalConv
from snn_bp.neurons import Neuron, at_step, is_spiking
from snn_bp.surrogates import Surrogate


@checked_dataclass(frozen=True)
class Dense:
    """Every neuron of the layer before to each of `units`: `[inputs]` becomes `[units]`.

    Parameters:
        units: how many values it gives.
        bias (True): whether each unit adds a learned constant.
        density (None): fraction of the inputs that each unit gets, as many for each, drawn from the seed. None: all.
        sign (None): keeps all weights "positive" or "negative", or by Dale's principle ("dale") those of each input:
            the first inputs excite, the others inhibit, in balance at the start.
        excitatory (0.8): with "dale", the fraction of the inputs that excites.

    A signed weight is |raw| times the sign (Song et al. 2016 rectify; here no weight can get stuck at zero).
    Constrained layers train, export and go on the chip as others do. Raises where the input is not flat: `Flatten()`
    goes before it.

    >>> Network((Dense(10, density=0.5), LIF(beta=0.9)), (700,)).output_shape
    (10,)
    """

    units: Count
    _: KW_ONLY
    bias: bool = True
    density: Density = None
    sign: Sign | None = None
    excitatory: Excitatory = 0.8

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """A `nn.Linear` for an input of `shape`, constrained where that is asked for."""
        if len(shape) != 1:
            raise SnnError(f"Dense({self.units}): it takes a flat input, found {list(shape)}. Put Flatten() before it.")
        options = {"density": self.density, "sign": self.sign, "excitatory": self.excitatory}
        return dense(shape[0], self.units, bias=self.bias, **options)  # type: ignore[arg-type]

    def after(self, shape: Shape) -> Shape:
        """One value for each unit."""
        return (self.units,)


@checked_dataclass(frozen=True)
class Conv:
    """Convolution in one dimension over `[channels, length]`, in two over `[channels, height, width]`.

    Parameters:
        channels: how many maps it gives.
        kernel: side of the window, in pixels; one integer, or one for each axis. So are the next three.
        stride (1): pixels from one window to the next.
        padding (0): pixels of zeros added at each end.
        dilation (1): pixels from one weight of a window to the next.
        groups (1): parts that the channels are divided into, each convolved by itself.
        bias (True): whether each map adds a learned constant.

    >>> Network((Conv(8, 3, padding=1), LIF(beta=0.9), Pool(2)), (2, 34, 34)).shapes
    [(8, 34, 34), (8, 34, 34), (8, 17, 17)]
    """

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
        check_sizes(self, shape, "kernel", "stride", "padding", "dilation")
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
        return self.channels, *windows(self, shape, self.kernel, self.stride, self.padding, self.dilation)


@checked_dataclass(frozen=True)
class Pool:
    """Sum, average or maximum over windows of `size` pixels, in one or two dimensions.

    Parameters:
        size: side of a window in pixels.
        kind ("average"): "sum", "average" or "max"; a chip has no maximum.
        stride (None): pixels from one window to the next; None: the size.

    >>> Network((Pool(2, kind="sum"),), (2, 34, 34))(torch.ones(5, 1, 2, 34, 34)).shape
    torch.Size([5, 1, 2, 17, 17])
    """

    size: Count
    _: KW_ONLY
    kind: Literal["sum", "average", "max"] = "average"
    stride: Annotated[int | None, Within(low=1)] = None

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
        return shape[0], *windows(self, shape, self.size, self.stride or self.size)


@checked_dataclass(frozen=True)
class Flatten:
    """`[channels, height, width]` to one axis, in torch's order.

    >>> Network((Flatten(), Dense(10)), (2, 8, 8)).shapes
    [(128,), (10,)]
    """

    def build(self, shape: Shape) -> nn.Module:
        """A `nn.Flatten`."""
        if not shape:
            raise SnnError("Flatten: a step of the input has no axes, it is one number. Give it [1].")
        return nn.Flatten(1)

    def after(self, shape: Shape) -> Shape:
        """All values on one axis."""
        return (math.prod(shape),)


@checked_dataclass(frozen=True)
class Dropout:
    """Silences each input with probability `p` (0.1, within 0..0.99) while training, the same ones at every time step
    of a recording. In evaluation it does nothing.

    >>> x = torch.ones(3, 1, 8)
    >>> torch.equal(Network((Dropout(0.5),), (8,)).eval()(x), x)
    True
    """

    p: Annotated[float, Within(0, 0.99)] = 0.1

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """The module; it draws from torch's generator."""
        return DropoutOverTime(self.p)

    def after(self, shape: Shape) -> Shape:
        """As it came."""
        return shape


@checked_dataclass(frozen=True)
class Delay:
    """Axonal delays: what each neuron of the layer before sends arrives `steps` time steps later.

    Parameters:
        steps (1): one number of time steps for all, or one for each neuron.
        learn (False): whether each neuron learns its own delay within 0..`max_steps`, from `steps` on, which lies
            between.
        max_steps (62): the longest delay; chips hold up to 62.

    A learned delay is rounded in the forward pass; its gradient is minus the difference in time of what is delayed (as
    in SLAYER, Shrestha & Orchard 2018).

    >>> Network((Delay(2),), (1,))(torch.tensor([1.0, 0, 0, 0]).view(4, 1, 1)).flatten().tolist()
    [0.0, 0.0, 1.0, 0.0]
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


@checked_dataclass(frozen=True)
class BatchNorm:
    """Normalises the synaptic current over time and batch: each neuron its own, each channel after a `Conv`.

    Stands between a `Dense` or `Conv` and its neuron. `momentum` (0.1) is how far a batch moves the running statistics,
    `scale` (1.0) the spread of the current at first, in thresholds of 1. Evaluation uses the running ones, so streaming
    and export are exact: scale and shift fold into the weights. Ioffe & Szegedy 2015; over time as Zheng et al. 2021
    (tdBN).

    >>> Network((Dense(10), BatchNorm(scale=0.5), LIF(beta=0.9)), (700,)).output_shape
    (10,)
    """

    momentum: Annotated[float, Within(0, 1)] = 0.1
    scale: Annotated[float, Within(above=0)] = 1.0

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


@checked_dataclass(frozen=True)
class Spiking:
    """A `neuron` of which the parameters named in `learn` are learned, with the weights.

    `per` says for whom a value is learned: "neuron", each its own; "channel", one for all neurons of a map; "layer",
    one for all (as PLIF, Fang et al. 2021). In a flat layer each neuron is a channel. Decays stay in 0..1 (as a
    logistic function of what is learned), thresholds and `kappa` above 0 (softplus).

    >>> network = Network((Dense(3), Spiking(LIF(beta=0.9), learn=("beta",))), (5,))
    >>> [(name, list(weight.shape)) for name, weight in network.named_parameters()]
    [('layers.0.weight', [3, 5]), ('layers.0.bias', [3]), ('layers.1.learned.beta', [3])]
    """

    neuron: Annotated[Neuron, Called("a neuron, as LIF(beta=0.9)")]
    _: KW_ONLY
    learn: Annotated[tuple[str, ...], Called('names of parameters, as ("beta",)')] = ()
    per: Per = "neuron"

    def __post_init__(self) -> None:
        check_fields(self)
        check_learned(self.neuron, self.learn)

    def build(self, shape: Shape, surrogate: Surrogate) -> Neurons:
        """The layer of neurons for an input of `shape`."""
        return Neurons(self.neuron, shape, surrogate, learn=self.learn, per=self.per)


@checked_dataclass(frozen=True)
class Recurrent:
    """A `neuron` with dense recurrence: its input is x[t] + V s[t-1] + c, before anything else.

    `bias` (False) adds the learned constant c. `density`, `sign` and `excitatory` constrain V as in `Dense`, where the
    first neurons excite: the same ones as in a `Dense` behind them. `sign="negative"` is lateral inhibition. `learn`
    and `per` are as in `Spiking`.

    >>> Network((Dense(20), Recurrent(LIF(beta=0.9)), Dense(2), LI(beta=0.9)), (5,)).output_shape
    (2,)
    """

    neuron: Annotated[Neuron, Called("a neuron, as LIF(beta=0.9)")]
    _: KW_ONLY
    learn: Annotated[tuple[str, ...], Called('names of parameters, as ("beta",)')] = ()
    bias: bool = False
    per: Per = "neuron"
    density: Density = None
    sign: Sign | None = None
    excitatory: Excitatory = 0.8

    def __post_init__(self) -> None:
        check_fields(self)
        check_learned(self.neuron, self.learn)
        if not is_spiking(self.neuron):
            raise SnnError(f"Recurrent(neuron={self.neuron}): it takes a spiking neuron, as LIF(beta=0.9).")

    def build(self, shape: Shape, surrogate: Surrogate) -> Neurons:
        """The recurrent layer for an input of `shape`."""
        if len(shape) != 1:
            raise SnnError(f"Recurrent: it takes a flat input, found {list(shape)}. Put Flatten() before it.")
        options = {"density": self.density, "sign": self.sign, "excitatory": self.excitatory}
        recurrence = dense(shape[0], shape[0], bias=self.bias, **options)  # type: ignore[arg-type]
        return Neurons(self.neuron, shape, surrogate, learn=self.learn, recurrence=recurrence, per=self.per)


Layer: TypeAlias = (
    Dense
    | Conv
    | Pool
    | Flatten
    | Dropout
    | Delay
    | BatchNorm
    | LayerNorm
    | ConvTranspose
    | Upsample
    | Unflatten
    | TemporalConv
    | DelayedDense
    | Module
    | Residual
    | Parallel
    | Spiking
    | Recurrent
    | Neuron
)


def with_step(model: Any, *, step_ms: float) -> Any:
    """The model with every time constant turned into the decay of a step of `step_ms`, within joints too.

    A layer of the user's with a method `at_step(step_ms)` gives its own.
    """
    if hasattr(model, "at_step"):
        return model.at_step(step_ms)
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
