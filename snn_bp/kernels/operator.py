"""The compiled kernel as one torch operator, forward and adjoint: autograd, `torch.compile` and autocast know it."""

import math

import numpy as np
import torch
from torch import Tensor

from snn_bp.kernels import cpu
from snn_bp.kernels.bind import Constants
from snn_bp.neurons import COEFFICIENTS


@torch.library.custom_op("snn_bp::neuron", mutates_args=(), device_types="cpu")
def neuron(
    x: Tensor, i: Tensor, a: Tensor, v: Tensor, s: Tensor,
    alpha: Tensor, beta: Tensor, rho: Tensor, kappa: Tensor, theta: Tensor,
    current: bool, adapts: bool, spiking: bool, reset: str, detach: bool,
    shape: str, slope: float, per: str, record: bool, saves_current: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Spikes, the traces v, a, i of every step (empty unless recorded), and the last i, a, v, s.

    `x` is `[time, ...]` in single or double precision; the state is shaped as one step of it; the parameters are
    all scalars or all shaped as the state.
    """
    parameters = (alpha, beta, rho, kappa, theta)
    kernel = cpu.compiled_forward(
        Constants(current, adapts, spiking, reset, detach),
        _dtype(x),
        uniform=theta.dim() == 0,
        record=record,
        saves_current=saves_current,
    )
    spikes = torch.empty_like(x, memory_format=torch.contiguous_format) if spiking else x.new_empty(0)
    traces = [_like(x, given) for given in (record, record and adapts, record and saves_current)]
    last = [part.clone(memory_format=torch.contiguous_format) for part in (i, a, v, s)]
    kernel(
        _rows(x), *map(_flat, last), *map(_flat, parameters), _rows(spikes), *map(_rows, traces), 0, v.numel()
    )  # fmt: skip
    return spikes, *traces, *last  # pyright: ignore[reportReturnType]


@neuron.register_fake
def _(
    x, i, a, v, s, alpha, beta, rho, kappa, theta,
    current, adapts, spiking, reset, detach, shape, slope, per, record, saves_current,
):  # fmt: skip
    given = (spiking, record, record and adapts, record and saves_current)
    return *(_like(x, flag) for flag in given), *(torch.empty_like(part) for part in (i, a, v, s))


@torch.library.custom_op("snn_bp::neuron_adjoint", mutates_args=(), device_types="cpu")
def neuron_adjoint(
    potentials: Tensor, adaptations: Tensor, currents: Tensor,
    i: Tensor, a: Tensor, v: Tensor, s: Tensor,
    alpha: Tensor, beta: Tensor, rho: Tensor, kappa: Tensor, theta: Tensor,
    g_spikes: Tensor | None, g_potentials: Tensor | None,
    gi: Tensor | None, ga: Tensor | None, gv: Tensor | None, gs: Tensor | None,
    current: bool, adapts: bool, spiking: bool, reset: str, detach: bool,
    shape: str, slope: float, per: str, saves_current: bool, learns: bool,
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor
]:  # fmt: skip
    """Gradients of x, of the first i, a, v, s, and of alpha, beta, rho, kappa, theta (zero unless `learns`)."""
    parameters = (alpha, beta, rho, kappa, theta)
    kernel = cpu.compiled_backward(
        Constants(current, adapts, spiking, reset, detach),
        shape,
        "threshold" if per == "threshold" else "potential",
        _dtype(potentials),
        uniform=theta.dim() == 0,
        GIVEN_SPIKES=g_spikes is not None,
        GIVEN_POTENTIALS=g_potentials is not None,
        SAVES_CURRENT=saves_current,
        LEARNS=learns,
    )
    empty = potentials.new_empty(0)
    gx = torch.empty_like(potentials)
    first = [
        torch.zeros_like(v) if given is None else given.clone(memory_format=torch.contiguous_format)
        for given in (gi, ga, gv, gs)
    ]
    sums = [torch.zeros_like(v) if learns else empty.clone() for _ in parameters]
    kernel(
        _rows(potentials), _rows(adaptations), _rows(currents), *map(_flat, (i, a, v, s)),
        *map(_flat, parameters), _dtype(potentials).type(slope),
        _rows(empty if g_spikes is None else g_spikes), _rows(empty if g_potentials is None else g_potentials),
        *map(_flat, first), _rows(gx), *map(_flat, sums), 0, v.numel(),
    )  # fmt: skip
    gradients = [total.sum() if theta.dim() == 0 else total for total in sums] if learns else [
        torch.zeros_like(theta) for _ in sums
    ]  # fmt: skip
    return gx, *first, *gradients  # pyright: ignore[reportReturnType]


@neuron_adjoint.register_fake
def _(potentials, adaptations, currents, i, a, v, s, alpha, beta, rho, kappa, theta, *_):
    return (
        torch.empty_like(potentials),
        *(torch.empty_like(part, memory_format=torch.contiguous_format) for part in (i, a, v, s)),
        *(torch.empty_like(theta, memory_format=torch.contiguous_format) for _ in COEFFICIENTS),
    )


def _setup_context(ctx, inputs, output) -> None:
    _, *rest = inputs
    state, parameters, (*constants, record, saves_current) = rest[:4], rest[4:9], rest[9:]
    _, potentials, adaptations, currents, *_ = output
    ctx.set_materialize_grads(False)
    ctx.constants, ctx.record, ctx.saves_current = constants, record, saves_current
    ctx.save_for_backward(potentials, adaptations, currents, *state, *parameters)
    ctx.mark_non_differentiable(adaptations, currents)


def _backward(ctx, g_spikes, g_potentials, _a, _i, gi, ga, gv, gs):
    assert ctx.record, "simulate() records whenever a gradient can be asked for"
    learns = any(ctx.needs_input_grad[5:10])
    gradients = neuron_adjoint(
        *ctx.saved_tensors, g_spikes, g_potentials, gi, ga, gv, gs, *ctx.constants, ctx.saves_current, learns
    )
    given = [g if need else None for g, need in zip(gradients, ctx.needs_input_grad, strict=False)]
    return *given, *(None for _ in range(10))


neuron.register_autograd(_backward, setup_context=_setup_context)


def _like(x: Tensor, given: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format) if given else x.new_empty(0)


def _dtype(tensor: Tensor) -> np.dtype:
    return np.dtype(np.float32 if tensor.dtype == torch.float32 else np.float64)


def _rows(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().view(tensor.shape[0], math.prod(tensor.shape[1:])).numpy()


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().view(-1).numpy()
