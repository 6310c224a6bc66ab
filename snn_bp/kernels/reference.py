"""The definition of correct: the equation in torch, one step after the other, differentiated by autograd."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from snn_bp import equations
from snn_bp.kernels.around import is_transformed
from snn_bp.kernels.bind import Constants, bind, slope_functions
from snn_bp.neurons import FullState
from snn_bp.surrogates import Surrogate


def torch_slope(surrogate: Surrogate) -> Callable[[Tensor, Tensor], Tensor]:
    """The derivative that `surrogate` gives to a spike at distance `u` from threshold `theta`, on tensors."""
    shape, unit = slope_functions(surrogate.shape, surrogate.per)
    operations = {"abs": torch.abs, "exp": torch.exp, "where": torch.where, "real": float}
    slope_at = bind(unit, shape=bind(shape, **operations))
    return lambda u, theta: slope_at(u, theta, u.new_full((), surrogate.slope))  # in u's type, as kernels have it


def torch_advance(
    constants: Constants, surrogate: Surrogate, *,
    spike: Callable[[Tensor, Tensor], Tensor] | None = None, detach: Callable[[Tensor], Tensor] = Tensor.detach,
) -> Callable:  # fmt: skip
    """`equations.advance` on tensors; autograd goes through it, through the spike by the surrogate.

    `spike` of distance and threshold replaces that spike, `detach` what a detached reset sees of one.
    """
    if spike is None:
        slope_at, kind = torch_slope(surrogate), TransformedSpike if is_transformed() else Spike
        spike = lambda u, theta: kind.apply(u, theta, slope_at)  # noqa: E731
    return bind(equations.advance, **constants.names(), heaviside=spike, detach=detach, real=float)


def simulate_reference(
    x: Tensor, state: FullState, coefficients: Sequence[Tensor], constants: Constants, surrogate: Surrogate
) -> tuple[Tensor, Tensor, FullState]:
    """Spikes and potentials of every step `[time, ...]`, and the last state."""
    advance = torch_advance(constants, surrogate)
    spikes, potentials = [], []
    for x_t in x.unbind(0):
        state = FullState(*advance(*state, x_t, *coefficients))
        potentials.append(state.v)
        spikes.append(state.s)
    return torch.stack(spikes), torch.stack(potentials), state


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
