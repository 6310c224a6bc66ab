"""The definition of correct: the equation in torch, one step after the other, differentiated by autograd."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from snn_bp.equations.derive import Equation, Learned
from snn_bp.equations.exponential import exponential_double, exponential_single
from snn_bp.kernels.around import is_transformed
from snn_bp.kernels.bind import bind, defined, slope_texts
from snn_bp.surrogates import SlopeOf, Surrogate, Unit

Step = tuple[tuple[Tensor, ...], Tensor]  # what is carried on, and the potential


def torch_slope(surrogate: Surrogate, per: Unit | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """The derivative that `surrogate` gives to a spike at distance `u` from threshold `theta`, on tensors.

    `per` is the unit that counts, in place of the surrogate's own.
    """
    slope_at = _slope_at(SlopeOf(surrogate.shape, per or surrogate.per))
    return lambda u, theta: slope_at(u, theta, u.new_full((), surrogate.slope))  # in u's type, as kernels have it


@functools.cache
def _slope_at(of: SlopeOf) -> Callable:
    names = {**_OPERATIONS, "exp": torch.exp}
    for name, text in slope_texts(of).items():
        names[name] = defined(text, name, names)
    return names["slope_at"]


def torch_advance(
    equation: Equation, surrogate: Surrogate, *,
    spike: Callable[[Tensor, Tensor], Tensor] | None = None, detach: Callable[[Tensor], Tensor] = Tensor.detach,
    seen: Callable[[Tensor], None] | None = None,
) -> Callable:  # fmt: skip
    """A step of the equation on tensors; autograd goes through it, through the spike by the surrogate.

    `spike` of distance and scale replaces that spike, `detach` what a detached reset sees of one. `seen` is called with
    each condition of the step, as it turns out for each neuron.
    """
    if spike is None:
        slope_at, kind = torch_slope(surrogate), TransformedSpike if is_transformed() else Spike
        spike = lambda u, scale: kind.apply(u, scale, slope_at)  # noqa: E731
    names = {**_OPERATIONS, "heaviside": lambda u, scale: spike(u, _like(scale, u)), "detach": detach}
    return defined(equation.step_text, "advance", names if seen is None else {**names, **_looking(seen)})


def torch_adjoint(equation: Equation, surrogate: Surrogate, learned: Learned = ()) -> Callable:
    """The adjoint of a step on tensors, as `Equation.adjoint_text` says; its slope is the surrogate's."""
    slope_at = torch_slope(surrogate)
    names = {
        **_OPERATIONS,
        "slope_at": lambda u, scale, _: slope_at(u, _like(scale, u)),
        "heaviside": lambda u, _: (u > 0).to(u.dtype),
        "detach": Tensor.detach,
    }
    return defined(equation.adjoint_text(learned), "adjoint", names)


def simulate_reference(
    x: Tensor, state: Sequence[Tensor], values: Sequence[Tensor], equation: Equation, surrogate: Surrogate
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Outputs and potentials of every step `[time, ...]`, and the last state."""
    advance, at = torch_advance(equation, surrogate), equation.states.index(equation.potential)
    carried, spikes, potentials = tuple(state), [], []
    for x_t in x.unbind(0):
        carried = as_tensors(advance(*carried, x_t, *values), x_t)
        potentials.append(carried[at])
        spikes.append(carried[-1])
    potential = torch.stack(potentials)
    return torch.stack(spikes) if equation.spiking else potential, potential, carried


def as_tensors(parts: Sequence[Any], like: Tensor) -> tuple[Tensor, ...]:
    """The parts of a state as tensors shaped as one step: a step may give a plain number, or one of its parameters."""
    return tuple(
        part if isinstance(part, Tensor) and part.shape == like.shape else _like(part, like).expand(like.shape)
        for part in parts
    )


def _like(value: Any, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else like.new_full((), value)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    if not isinstance(condition, Tensor):
        return yes if condition else no
    return torch.where(condition, yes, no)


def _either(condition: Any, yes: float, no: float, like: Any) -> Any:
    """One of two numbers, in the type of `like`."""
    if not isinstance(condition, Tensor):
        return yes if condition else no
    return torch.where(condition, like.new_full((), yes), like.new_full((), no))


def _exp(x: Any) -> Any:
    if not isinstance(x, Tensor):
        x = torch.tensor(x, dtype=torch.float64)
    value, finite = _exponential(x.dtype)(x.detach()), torch.where(torch.isfinite(x), x, 0)
    slope = torch.where(torch.isfinite(value), value, 0)
    return value + slope * (finite - finite.detach())  # whose derivative is the value


@functools.cache
def _exponential(dtype: torch.dtype) -> Callable:
    whole_type, bias, shift = (torch.int32, 127, 23) if dtype == torch.float32 else (torch.int64, 1023, 52)

    def power_of_two(exponent: Tensor) -> Tensor:
        return ((exponent.to(whole_type) + bias) << shift).view(dtype)

    function = exponential_single if dtype == torch.float32 else exponential_double
    return bind(function, real=float, where=_where, power_of_two=power_of_two)


def _root(x: Any) -> Any:
    """The number nearest to the root, as processors have it: that of torch is not, where MKL computes it."""
    if not isinstance(x, Tensor):
        return x**0.5
    if x.dtype == torch.float32:
        return torch.sqrt(x.double()).float()
    y = torch.sqrt(x)
    high, low = _halves(y.detach())
    rest = x.detach() - high * high - 2.0 * high * low - low * low  # exact: x - y * y
    return y + torch.where(torch.isfinite(rest) & (y != 0), rest / (2.0 * y.detach()), -0.0)


def _halves(y: Tensor) -> tuple[Tensor, Tensor]:
    """Two numbers of half the digits, in double precision, whose sum is `y`. Veltkamp 1968."""
    scaled = y * 134217729.0
    high = scaled - (scaled - y)
    return high, y - high


_OPERATIONS = {
    "real": float, "abs": abs, "absolute": abs, "exp": _exp, "where": _where, "either": _either,
    "sqrt": _root,
    "opposite": lambda condition: ~condition if isinstance(condition, Tensor) else not condition,
}  # fmt: skip


def _looking(seen: Callable[[Tensor], None]) -> dict[str, Callable]:
    """The operations with a kink, that let `seen` know on which side of it each neuron is."""

    def told(condition: Any) -> Any:
        if isinstance(condition, Tensor):
            seen(condition)
        return condition

    def absolute(x: Any) -> Any:
        told(x > 0)
        return abs(x)

    return {
        "where": lambda condition, yes, no: _where(told(condition), yes, no),
        "either": lambda condition, yes, no, like: _either(told(condition), yes, no, like),
        "absolute": absolute,
    }


class Spike(torch.autograd.Function):
    """1 above zero, 0 elsewhere; backward by the surrogate."""

    @staticmethod
    def forward(ctx, u: Tensor, theta: Tensor, slope_at: Callable) -> Tensor:
        ctx.save_for_backward(u, theta)
        ctx.slope_at = slope_at
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        u, theta = ctx.saved_tensors
        return grad * ctx.slope_at(u, theta), None, None


class TransformedSpike(torch.autograd.Function):
    """The same for `torch.func` and forward-mode differentiation, in the form that these ask for.

    `torch.compile` cannot read that form.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, theta: Tensor, slope_at: Callable) -> Tensor:
        return (u > 0).to(u.dtype)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        u, theta, ctx.slope_at = inputs
        ctx.save_for_backward(u, theta)
        ctx.save_for_forward(u, theta)

    @staticmethod
    def backward(ctx, grad: Tensor):
        u, theta = ctx.saved_tensors
        return grad * ctx.slope_at(u, theta), None, None

    @staticmethod
    def jvp(ctx, u_tangent: Tensor | None, *_):
        u, theta = ctx.saved_tensors
        return torch.zeros_like(u) if u_tangent is None else u_tangent * ctx.slope_at(u, theta)
