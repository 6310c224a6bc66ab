"""The torch modules that layers build: neurons with their state, pools of sums, dropout over time, delays."""

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.errors import SnnError
from snn_bp.kernels import parameters_of, potential_of, rest, runs_reference, simulate_layer
from snn_bp.kernels.around import is_untouched
from snn_bp.kernels.delay import delayed
from snn_bp.kernels.gpu.recurrent import serves_recurrent, simulate_recurrent_gpu
from snn_bp.model.constrained import ConstrainedLinear
from snn_bp.model.shard import shard
from snn_bp.neurons import Neuron, State, check_neuron, numbers_of, range_of
from snn_bp.neurons.parameters import Range
from snn_bp.surrogates import Surrogate, check_surrogate

Shape = tuple[int, ...]
Per: TypeAlias = Literal["neuron", "channel", "layer"]  # for which neurons a value is learned
SMALLEST_LEARNED = 1e-6  # threshold or kappa: softplus underflows to 0, which is no threshold


class Neurons(nn.Module):
    """A layer of one neuron model, `[time, batch, *shape]` in and out: learned parameters and recurrence if any."""

    def __init__(
        self, neuron: Neuron, shape: Shape, surrogate: Surrogate, *,
        learn: tuple[str, ...] = (), recurrence: nn.Linear | None = None, per: Per = "neuron",
    ) -> None:  # fmt: skip
        super().__init__()
        check_surrogate(surrogate)
        check_learned(neuron, learn)
        values = numbers_of(neuron)
        parameters_of(
            neuron, torch.empty(1, 1, *shape, device="meta"), {}
        )  # raises where they are not for such a shape
        self.neuron, self.shape, self.surrogate = neuron, shape, surrogate
        self.learned = nn.ParameterDict()
        for name in learn:
            symbol = type(neuron).kind.symbol(name)
            start = torch.as_tensor(values[symbol], dtype=torch.get_default_dtype(), device="cpu")
            raw = _raw(type(neuron).__name__, name, start, range_of(neuron, symbol))
            self.learned[symbol] = nn.Parameter(_placed(raw, _shape_of_learned(name, raw, shape, per)))
        self.recurrence: nn.Linear | None = recurrence

    def parameters_now(self) -> dict[str, Tensor]:
        """The learned parameters in their own units, under the symbols of the equation."""
        return {symbol: _in_range(raw, range_of(self.neuron, symbol)) for symbol, raw in self.learned.items()}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Spikes (potentials of a neuron that does not spike) of every step, and the last state."""
        if self.recurrence is None:
            return simulate_layer(self.neuron, x, state, self.surrogate, parameters=self.parameters_now())
        spikes, state, _ = self._run_recurrent(self.recurrence, x, state, potentials=False)
        return spikes, state

    def observe(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State, Tensor]:
        """As `forward`, and the potentials of every step."""
        if self.recurrence is None:
            return simulate_layer(
                self.neuron, x, state, self.surrogate, potentials=True, parameters=self.parameters_now()
            )
        return self._run_recurrent(self.recurrence, x, state, potentials=True)

    def extra_repr(self) -> str:
        return f"{self.neuron}, shape={list(self.shape)}"

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest) -> None:
        """Weights of 0.1.0 too, where the neurons of a recurrent layer were a module of their own."""
        old = f"{prefix}neurons."
        for name in [name for name in state_dict if name.startswith(old)]:
            state_dict[prefix + name.removeprefix(old)] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _run_recurrent(
        self, recurrence: nn.Linear, x: Tensor, state: State | None, *, potentials: bool
    ) -> tuple[Tensor, State, Tensor]:
        neuron, surrogate, learned = self.neuron, self.surrogate, self.parameters_now()
        if len(x) == 0:
            raise SnnError(
                f"Recurrent: input should be [time, batch, ...] with a step at least, found {list(x.shape)}."
            )
        plain = type(recurrence) in (nn.Linear, ConstrainedLinear) and is_untouched(recurrence)
        if plain and serves_recurrent(x) and not runs_reference():
            return simulate_recurrent_gpu(
                neuron, x, recurrence.weight, recurrence.bias, state, surrogate, parameters=learned
            )
        last: State = state or rest(neuron, tuple(x.shape[1:]), like=x if x.dtype == torch.float64 else x.float())
        spikes, membranes = [], []
        for x_t in x.unbind(0):
            assert last.s is not None
            current = x_t + recurrence(last.s.to(x.dtype)).to(x.dtype)
            s, last = simulate_layer(neuron, current[None], last, surrogate, parameters=learned)
            spikes.append(s)
            membranes.append(potential_of(neuron, last))
        return torch.cat(spikes), last, torch.stack(membranes) if potentials else x.new_empty(0)


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

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """`x` with a fraction `p` of its inputs silenced and the others scaled up, in training only."""
        if not self.training or self.p == 0:
            return x
        keep, mine = 1 - self.p, shard()
        drawn = torch.empty_like(x[0]).bernoulli_(keep) if mine is None else mine.kept(x[0], keep)
        return x * (drawn / keep)


class Delays(nn.Module):
    """Delays of one layer's neurons; sees `[time, batch, *shape]`, and starts from silence."""

    start: Tensor

    def __init__(self, start: Tensor, max_steps: int, *, learn: bool) -> None:
        super().__init__()
        self.max_steps = max_steps
        self.learned = nn.ParameterDict()
        if learn:
            raw = torch.logit(start / max_steps)
            self.learned["delay"] = nn.Parameter(_placed(raw, tuple(start.shape)))
        else:
            self.register_buffer("start", _placed(start, tuple(start.shape)), persistent=False)

    def steps_now(self) -> Tensor:
        """The delay of each neuron in whole steps, `[*shape]`."""
        return self._exact().detach().round().long()

    def longest(self) -> int:
        """The longest delay there is, or may come to be."""
        return self.max_steps if len(self.learned) else int(self.start.max())

    def forward(self, x: Tensor) -> Tensor:
        """`x` delayed; what would arrive after its last step is lost."""
        return delayed(x, self._exact(), learns=len(self.learned) > 0)

    def _exact(self) -> Tensor:
        return self.max_steps * torch.sigmoid(self.learned["delay"]) if len(self.learned) else self.start


class Joint(nn.Module):
    """Rows of layers that see the same input, and `combine`, which makes one output of theirs.

    `shapes` has the shape of one step behind each layer of each branch. A branch without layers hands its input on.
    `kind` is the name of a `combine` of ours, as "add".
    """

    def __init__(
        self, branches: Iterable[Iterable[nn.Module]], shapes: list[list[Shape]],
        combine: Callable[[list[Tensor]], Tensor], kind: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.branches = nn.ModuleList(nn.ModuleList(layers) for layers in branches)
        self.shapes, self.combine, self.kind = shapes, combine, kind

    def forward(self, x: Tensor, run: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The joined output, `[time, batch, ...]`; `run(n, x)` is the output of branch `n`, which the network runs."""
        return self.combine([run(n, x) for n in range(len(self.branches))])


def _raw(kind: str, name: str, start: Tensor, within: Range) -> Tensor:
    """What is learned for a parameter that starts at `start`: any number, of which the parameter is a function."""
    if within in ("decay", "fraction"):
        if not bool(((start > 0) & (start < 1)).all()):
            raise SnnError(f"{kind}: to be learned, {name} should start inside 0..1, not at its end.")
        return torch.logit(start)
    if within == "any":
        return start.clone()
    if not bool((start > 0).all()):
        raise SnnError(f"{kind}: to be learned, {name} should start above 0, 0.1 for one.")
    return start + torch.log(-torch.expm1(-start))


def _in_range(raw: Tensor, within: Range) -> Tensor:
    """The parameter of what is learned."""
    if within in ("decay", "fraction"):
        return torch.sigmoid(raw)
    return raw if within == "any" else F.softplus(raw).clamp_min(SMALLEST_LEARNED)


def check_learned(neuron: Neuron, learn: tuple[str, ...]) -> None:
    """Raise unless the neuron has each of the parameters that are to be learned, named once."""
    check_neuron(neuron)
    kind, equation = type(neuron).kind, neuron.equation
    known = list(kind.numbers)
    for name in learn:
        if name not in known or learn.count(name) > 1:
            twice = " twice" if name in known else ""
            raise SnnError(f"{type(neuron).__name__}: cannot learn {name!r}{twice}. It has: {', '.join(known)}.")
        if kind.symbol(name) in equation.parameters and kind.symbol(name) not in equation.learnable:
            others = ", ".join(each for each in known if kind.symbol(each) in equation.learnable)
            raise SnnError(
                f"{type(neuron).__name__}: cannot learn {name!r}, which stands in conditions or in detach(...) alone: "
                f"no gradient reaches it. It can learn: {others}."
            )


def _shape_of_learned(name: str, start: Tensor, shape: Shape, per: Per) -> Shape:
    """`shape` with 1 for each axis along which neurons learn one value together."""
    learned = {"neuron": shape, "channel": (*shape[:1], *(1,) * len(shape[1:])), "layer": (1,) * len(shape)}[per]
    given = (1,) * (len(shape) - start.dim()) + tuple(start.shape)
    if any(have not in (1, want) for have, want in zip(given, learned, strict=False)):
        raise SnnError(
            f"per={per!r}: {name} is given as {list(start.shape)}, and one value is learned for {list(learned)} of the "
            f"neurons {list(shape)}. Give one number to start from."
        )
    return learned


def _placed(values: Tensor, shape: Shape) -> Tensor:
    """Values computed on the CPU, expanded to `shape` on the device that torch builds on."""
    return torch.empty(shape, dtype=values.dtype).copy_(values)
