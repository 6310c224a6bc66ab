"""The compiled kernels as one torch operator, forward and adjoint: autograd, `torch.compile` and autocast know it.

Tensors choose the kernel: `cpu.py` or `gpu.py`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from snn_bp.kernels.around import check_backward
from snn_bp.kernels.bind import Constants
from snn_bp.kernels.cpu import neuron as cpu
from snn_bp.kernels.cpu.aligned import empty
from snn_bp.kernels.gpu import neuron as gpu
from snn_bp.neurons import COEFFICIENTS
from snn_bp.surrogates import Unit

DEVICES = ("cpu", "cuda")  # cuda is ROCm's name too


def is_compiled(x: Tensor) -> bool:
    """Whether a compiled kernel is there for tensors like `x`."""
    return x.device.type == "cpu" or gpu.serves(x)


def run_neuron(
    x: Tensor, i: Tensor, a: Tensor, v: Tensor, s: Tensor,
    alpha: Tensor, beta: Tensor, rho: Tensor, kappa: Tensor, theta: Tensor,
    current: bool, adapts: bool, spiking: bool, reset: str, detach: bool,
    shape: str, slope: float, per: str, record: bool, saves_current: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Spikes, the traces v, a, i of every step (empty unless recorded), and the last i, a, v, s.

    `x` is `[time, ...]` in single or double precision; the state is shaped as one step of it; the parameters are
    all scalars or all shaped as the state.
    """
    state, parameters = (i, a, v, s), (alpha, beta, rho, kappa, theta)
    constants = Constants(current, adapts, spiking, reset, detach)
    spikes = _room(x, spiking)
    traces = [_room(x, given) for given in (record, record and adapts, record and saves_current)]
    run = gpu.run_forward if gpu.serves(x) else _forward_on_cpu
    last = run(x, state, parameters, constants, spikes, traces, record=record, saves_current=saves_current)
    return spikes, *traces, *last  # pyright: ignore[reportReturnType]


neuron = torch.library.custom_op("snn_bp::neuron", run_neuron, mutates_args=(), device_types=DEVICES)


@neuron.register_fake
def _(
    x, i, a, v, s, alpha, beta, rho, kappa, theta,
    current, adapts, spiking, reset, detach, shape, slope, per, record, saves_current,
):  # fmt: skip
    given = (spiking, record, record and adapts, record and saves_current)
    return *(_like(x, flag) for flag in given), *(torch.empty_like(part) for part in (i, a, v, s))


@torch.library.custom_op("snn_bp::neuron_adjoint", mutates_args=(), device_types=DEVICES)
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
    traces, state, parameters = (potentials, adaptations, currents), (i, a, v, s), (alpha, beta, rho, kappa, theta)
    run = gpu.run_backward if gpu.serves(potentials) else _backward_on_cpu
    gx, first, sums = run(
        traces, state, parameters, Constants(current, adapts, spiking, reset, detach),
        shape, slope, "threshold" if per == "threshold" else "potential",
        g_spikes, g_potentials, (gi, ga, gv, gs), saves_current=saves_current, learns=learns,
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
    check_backward("neurons", (g_spikes, g_potentials, gi, ga, gv, gs))
    assert ctx.record, "simulate() records whenever a gradient can be asked for"
    learns = any(ctx.needs_input_grad[5:10])
    gradients = neuron_adjoint(
        *ctx.saved_tensors, g_spikes, g_potentials, gi, ga, gv, gs, *ctx.constants, ctx.saves_current, learns
    )
    given = [g if need else None for g, need in zip(gradients, ctx.needs_input_grad, strict=False)]
    return *given, *(None for _ in range(10))


neuron.register_autograd(_backward, setup_context=_setup_context)


def _forward_on_cpu(
    x: Tensor, first: Sequence[Tensor], parameters: Sequence[Tensor], constants: Constants,
    spikes: Tensor, traces: Sequence[Tensor], *, record: bool, saves_current: bool,
) -> list[Tensor]:  # fmt: skip
    kernel = cpu.compiled_forward(
        constants, _dtype(x), uniform=parameters[0].dim() == 0, record=record, saves_current=saves_current
    )
    last = [part.clone(memory_format=torch.contiguous_format) for part in first]
    own = (*map(_flat, last), *map(cpu.flat_or_scalar, parameters))
    cpu.over_neurons(kernel, (_rows(x), *own, _rows(spikes), *map(_rows, traces)), first[0].numel())
    return last


def _backward_on_cpu(
    traces: Sequence[Tensor], first: Sequence[Tensor], parameters: Sequence[Tensor], constants: Constants,
    shape: str, slope: float, per: Unit, g_spikes: Tensor | None, g_potentials: Tensor | None,
    g_last: Sequence[Tensor | None], *, saves_current: bool, learns: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    potentials, v = traces[0], first[2]
    kernel = cpu.compiled_backward(
        constants,
        shape,
        per,
        _dtype(potentials),
        uniform=parameters[0].dim() == 0,
        GIVEN_SPIKES=g_spikes is not None,
        GIVEN_POTENTIALS=g_potentials is not None,
        SAVES_CURRENT=saves_current,
        LEARNS=learns,
    )
    empty = potentials.new_empty(0)
    gx = _room(potentials, True)
    g_first = [
        torch.zeros_like(v) if given is None else given.clone(memory_format=torch.contiguous_format)
        for given in g_last
    ]  # fmt: skip
    sums = [torch.zeros_like(v) if learns else empty.clone() for _ in parameters]
    own = (*map(_flat, first), *map(cpu.flat_or_scalar, parameters), _dtype(potentials).type(slope))
    given = (_rows(empty if part is None else part) for part in (g_spikes, g_potentials))
    arguments = (*map(_rows, traces), *own, *given, *map(_flat, g_first), _rows(gx), *map(_flat, sums))
    cpu.over_neurons(kernel, arguments, v.numel())
    return gx, g_first, sums


def _like(x: Tensor, given: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format) if given else x.new_empty(0)


def _room(x: Tensor, given: bool) -> Tensor:
    """As `_like`; on the CPU by NumPy, whose large arrays lie in huge pages."""
    if x.device.type != "cpu" or not given:
        return _like(x, given)
    return torch.from_numpy(empty(x.numel(), _dtype(x))).view(x.shape)


def _dtype(tensor: Tensor) -> np.dtype:
    return np.dtype(np.float32 if tensor.dtype == torch.float32 else np.float64)


def _rows(tensor: Tensor) -> np.ndarray:
    return tensor.detach().resolve_neg().contiguous().view(tensor.shape[0], math.prod(tensor.shape[1:])).numpy()


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().resolve_neg().contiguous().view(-1).numpy()
