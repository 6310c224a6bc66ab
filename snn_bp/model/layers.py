"""What a network is made of: frozen values that say what a layer is, and build it once the input's shape is known.

A layer without state becomes torch's own module and sees `[time * batch, ...]` at once. Layers with state (`Spiking`,
`Recurrent`) see `[time, batch, ...]` and take and return that state.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.errors import SnnError, shown
from snn_bp.errors.fields import Called, Within, check_fields
from snn_bp.kernels import rest, runs_reference, simulate
from snn_bp.kernels.around import has_hooks_on_every_module, is_untouched
from snn_bp.kernels.delay import delayed
from snn_bp.kernels.gpu.recurrent import serves_recurrent, simulate_recurrent_gpu
from snn_bp.neurons import ALIF, DECAYS, IF, LI, LIF, CubaLIF, Neuron, State, coefficients, is_spiking
from snn_bp.surrogates import Surrogate, check_surrogate

Shape: TypeAlias = tuple[int, ...]
Count: TypeAlias = Annotated[int, Within(low=1)]
Sizes: TypeAlias = Annotated[int | tuple[int, ...], Within(low=1)]  # one for all axes, or one for each
LEAST = 1e-6  # of a learned threshold or kappa: softplus underflows to 0, which is no threshold


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


@dataclass(frozen=True)
class Flatten:
    """`[channels, height, width]` to one axis, in torch's order."""

    def build(self, shape: Shape) -> nn.Module:
        """A `nn.Flatten`."""
        return nn.Flatten(1)


@dataclass(frozen=True)
class Dropout:
    """Silences a share of the inputs while training, the same ones at every time step of a sample."""

    share: Annotated[float, Within(0, 0.99)] = 0.1

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """The module; it draws from torch's generator."""
        return DropoutOverTime(self.share)


@dataclass(frozen=True)
class Delay:
    """Axonal delays: what each neuron of the layer before sends arrives `steps` time steps later.

    One whole number for all, or one for each neuron. With `learn`, each neuron learns its own within 0..`most`,
    starting at `steps`, which then lies between; it is rounded in the forward pass, and its gradient is minus the
    difference in time of what is delayed (as in SLAYER, Shrestha & Orchard 2018). Chips hold up to 62.
    """

    steps: Annotated[float | tuple[float, ...], Within(low=0, nested=True)] = 1
    _: KW_ONLY
    learn: bool = False
    most: Count = 62

    def __post_init__(self) -> None:
        check_fields(self)
        told = f"Delay(steps={shown(self.steps)}"
        try:
            start = torch.as_tensor(self.steps, dtype=torch.float32)
        except ValueError:
            raise SnnError(f"{told}): its rows differ in length. Give one number, or one for each neuron.") from None
        if self.learn and not bool(((start > 0) & (start < self.most)).all()):
            raise SnnError(f"{told}, learn=True): it should start inside 0..{self.most}, not at an end.")
        if not self.learn and not bool(((start == start.round()) & (start <= self.most)).all()):
            raise SnnError(f"{told}): whole numbers of steps in 0..{self.most}.")

    def build(self, shape: Shape) -> nn.Module:
        """The module for an input of `shape`."""
        start = torch.as_tensor(self.steps, dtype=torch.get_default_dtype())
        try:
            start = start.expand(shape)
        except RuntimeError:
            told = f"Delay: {list(start.shape)} delays for neurons {list(shape)}. Give one, or each its own."
            raise SnnError(told) from None
        return Delays(start, self.most, learn=self.learn)


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
        norm = (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(shape[0], momentum=self.momentum)
        nn.init.constant_(norm.weight, self.scale)
        return norm


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

    def build(self, shape: Shape, surrogate: Surrogate) -> "Neurons":
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

    def build(self, shape: Shape, surrogate: Surrogate) -> "RecurrentNeurons":
        """The recurrent layer for an input of `shape`."""
        if len(shape) != 1:
            raise SnnError(f"Recurrent: it takes a flat input, found {list(shape)}. Put Flatten() before it.")
        return RecurrentNeurons(Neurons(self.neuron, shape, surrogate, learn=self.learn), bias=self.bias)


Layer: TypeAlias = (
    Dense | Conv | Pool | Flatten | Dropout | Delay | BatchNorm | Spiking | Recurrent | IF | LIF | CubaLIF | ALIF | LI
)


class Neurons(nn.Module):
    """A layer of one neuron model, `[time, batch, *shape]` in and out, with its learned parameters if any."""

    def __init__(self, neuron: Neuron, shape: Shape, surrogate: Surrogate, *, learn: tuple[str, ...] = ()) -> None:
        super().__init__()
        check_surrogate(surrogate)
        values = coefficients(neuron)
        check_learned(neuron, learn)
        self.neuron, self.shape, self.surrogate = neuron, shape, surrogate
        self.learned = nn.ParameterDict()
        for name in learn:
            symbol = "theta" if name == "threshold" else name
            start = torch.as_tensor(values[symbol], dtype=torch.get_default_dtype())
            if symbol in DECAYS and not bool(((start > 0) & (start < 1)).all()):
                raise SnnError(
                    f"{type(neuron).__name__}: to be learned, {name} should start inside 0..1, not at its end."
                )
            if symbol == "kappa" and not bool((start > 0).all()):
                raise SnnError(f"{type(neuron).__name__}: to be learned, kappa should start above 0, 0.1 for one.")
            raw = torch.logit(start) if symbol in DECAYS else start + torch.log(-torch.expm1(-start))
            self.learned[symbol] = nn.Parameter(raw.expand(shape).clone())

    def parameters_now(self) -> dict[str, Tensor]:
        """The learned parameters in their own units, under the symbols of the equation."""
        return {
            symbol: torch.sigmoid(raw) if symbol in DECAYS else F.softplus(raw).clamp_min(LEAST)
            for symbol, raw in self.learned.items()
        }

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Spikes (potentials of a neuron that does not spike) of every step, and the last state."""
        return simulate(self.neuron, x, state, self.surrogate, parameters=self.parameters_now())

    def observe(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State, Tensor]:
        """As `forward`, and the potentials of every step."""
        return simulate(self.neuron, x, state, self.surrogate, potentials=True, parameters=self.parameters_now())

    def extra_repr(self) -> str:
        return f"{self.neuron}, shape={list(self.shape)}"


class RecurrentNeurons(nn.Module):
    """A layer of neurons that hear each other one step later."""

    def __init__(self, neurons: Neurons, *, bias: bool) -> None:
        super().__init__()
        self.neurons = neurons
        self.recurrence = nn.Linear(neurons.shape[0], neurons.shape[0], bias=bias)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Spikes of every step, and the last state."""
        spikes, state, _ = self._run(x, state, potentials=False)
        return spikes, state

    def observe(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State, Tensor]:
        """As `forward`, and the potentials of every step."""
        return self._run(x, state, potentials=True)

    def _run(self, x: Tensor, state: State | None, *, potentials: bool) -> tuple[Tensor, State, Tensor]:
        neurons = self.neurons
        own = type(neurons) is Neurons and is_untouched(neurons)
        plain = own and type(self.recurrence) is nn.Linear and is_untouched(self.recurrence)
        given = neurons.parameters_now()
        if len(x) == 0:
            raise SnnError(
                f"Recurrent: input should be [time, batch, ...] with a step at least, found {list(x.shape)}."
            )
        if plain and serves_recurrent(x) and not runs_reference():
            weight, bias = self.recurrence.weight, self.recurrence.bias
            return simulate_recurrent_gpu(
                neurons.neuron, x, weight, bias, state, neurons.surrogate, parameters=given
            )  # fmt: skip
        state = state or rest(neurons.neuron, tuple(x.shape[1:]), like=x if x.dtype == torch.float64 else x.float())
        spikes, membranes, seen = [], [], not own or has_hooks_on_every_module()
        for x_t in x.unbind(0):
            assert state.s is not None
            current = x_t + self.recurrence(state.s.to(x.dtype)).to(x.dtype)
            if seen:  # by its own forward, or by a hook
                s, state = cast(tuple[Tensor, State], neurons(current[None], state))
            else:
                s, state = simulate(neurons.neuron, current[None], state, neurons.surrogate, parameters=given)
            spikes.append(s)
            membranes.append(state.v)
        return torch.cat(spikes), state, torch.stack(membranes) if potentials else x.new_empty(0)


class SumPool(nn.Module):
    """The exact sum over windows, over the last axis or the last two."""

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        """Sums, shaped as an average pooling's output."""
        if x.dim() == 3:
            return x.unfold(-1, self.size, self.stride).sum(-1)
        return F.avg_pool2d(x, self.size, self.stride, divisor_override=1)


class DropoutOverTime(nn.Module):
    """Dropout with one mask for all time steps of a sample; sees `[time, batch, ...]`."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """`x` with a share of its inputs silenced and the others scaled up, in training only."""
        if not self.training or self.share == 0:
            return x
        keep = 1 - self.share
        return x * (torch.empty_like(x[0]).bernoulli_(keep) / keep)


class Delays(nn.Module):
    """Delays of one layer's neurons; sees `[time, batch, *shape]`, and starts from silence."""

    start: Tensor

    def __init__(self, start: Tensor, most: int, *, learn: bool) -> None:
        super().__init__()
        self.most = most
        self.learned = nn.ParameterDict()
        if learn:
            self.learned["delay"] = nn.Parameter(torch.logit(start / most))
        else:
            self.register_buffer("start", start.clone(), persistent=False)

    def steps_now(self) -> Tensor:
        """The delay of each neuron in whole steps, `[*shape]`."""
        return self._exact().detach().round().long()

    def longest(self) -> int:
        """The longest delay there is, or may come to be."""
        return self.most if len(self.learned) else int(self.start.max())

    def forward(self, x: Tensor) -> Tensor:
        """`x` delayed; what would arrive after its last step is lost."""
        return delayed(x, self._exact(), learns=len(self.learned) > 0)

    def _exact(self) -> Tensor:
        return self.most * torch.sigmoid(self.learned["delay"]) if len(self.learned) else self.start


def neurons_of(layer: nn.Module) -> Neurons:
    """The neurons of a layer with state, recurrent or not."""
    assert isinstance(layer, Neurons | RecurrentNeurons)
    return layer.neurons if isinstance(layer, RecurrentNeurons) else layer


def check_learned(neuron: Neuron, learn: tuple[str, ...]) -> None:
    """Raise unless the neuron has each of the parameters that are to be learned, named once."""
    known = [name for name in (*DECAYS, "kappa", "threshold") if hasattr(neuron, name)]
    for name in learn:
        if name not in known or learn.count(name) > 1:
            twice = " twice" if name in known else ""
            raise SnnError(f"{type(neuron).__name__}: cannot learn {name!r}{twice}. It has: {', '.join(known)}.")


def spatial(layer: str, shape: Shape) -> int:
    """How many spatial dimensions `shape` has, 1 or 2."""
    if len(shape) not in (2, 3):
        raise SnnError(
            f"{layer}: it takes [channels, length] or [channels, height, width], found {list(shape)}. "
            "A Flatten() or Dense before it removes the space it works on."
        )
    return len(shape) - 1
