"""A recurrent layer on the GPU in one launch: its input is x[t] + V s[t-1] + c, then comes the neuron of `gpu.py`.

A program owns a few samples and all their neurons. What they said one step before is read back from the output and
multiplied with tiles of V: equal to the layer's own loop up to the order of a sum.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from snn_bp.kernels import first_state, parameters_of, state_of
from snn_bp.kernels.around import check_backward
from snn_bp.kernels.bind import Constants
from snn_bp.kernels.gpu import neuron as gpu
from snn_bp.neurons import COEFFICIENTS, Neuron, State
from snn_bp.surrogates import Surrogate

LARGEST = 512  # neurons whose state fits the registers of one program
OLDEST = (3, 5)  # release of Triton that multiplies blocks of fewer than 16 rows


def serves_recurrent(x: Tensor) -> bool:
    """Whether `simulate_recurrent_gpu` takes the input `x` of a recurrent layer."""
    fits = x.dim() == 3 and x.numel() > 0 and x.shape[2] <= LARGEST
    return fits and gpu.serves(x) and gpu.release() >= OLDEST


def simulate_recurrent_gpu(
    neuron: Neuron, x: Tensor, weight: Tensor, bias: Tensor | None, state: State | None, surrogate: Surrogate,
    *, parameters: Mapping[str, Tensor],
) -> tuple[Tensor, State, Tensor]:  # fmt: skip
    """As `simulate(potentials=True)`, for spiking neurons that also hear each other through `weight` `[to, from]`.

    Limits (`serves_recurrent`): `x` is `[time, batch, neurons]`, none of them zero, at most `LARGEST` neurons, a Triton
    from `OLDEST` up. Every program reads all of V at every step, so large layers gain least; traces are recorded also
    where no gradient is asked for; double precision spills registers above 128 neurons. Half precision runs in single.
    Gradients flow to x, weight, bias, state and parameters.
    """
    y = x if x.dtype in (torch.float32, torch.float64) else x.float()
    constants = Constants.of(neuron)
    values = [value[0] if value.dim() else value for value in parameters_of(neuron, y, parameters)]
    first = first_state(neuron, y, state, constants)
    constant = y.new_zeros(y.shape[2]) if bias is None else bias.to(y.dtype)
    spikes, v, _, _, *last = recurrent(
        y, weight.to(y.dtype), constant, *first, *values,
        constants.current, constants.adapts, constants.reset, constants.detach,
        surrogate.shape, float(surrogate.slope), surrogate.per,
    )  # fmt: skip
    return spikes.to(x.dtype), state_of(last, constants), v


@torch.library.custom_op("snn_bp::recurrent", mutates_args=())
def recurrent(
    x: Tensor, weight: Tensor, bias: Tensor, i: Tensor, a: Tensor, v: Tensor, s: Tensor,
    alpha: Tensor, beta: Tensor, rho: Tensor, kappa: Tensor, theta: Tensor,
    current: bool, adapts: bool, reset: str, detach: bool, shape: str, slope: float, per: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Spikes, the traces v, a, i of every step (empty where the neuron has none), and the last i, a, v, s.

    The parameters are all scalars or all `[neurons]`.
    """
    spikes, *traces = (_like(x, given) for given in (True, True, adapts, current))
    last = gpu.run_forward(
        x, (i, a, v, s), (alpha, beta, rho, kappa, theta), Constants(current, adapts, True, reset, detach),
        spikes, traces, record=True, saves_current=current, matrix=weight.t(), bias=bias,
    )  # fmt: skip
    return spikes, *traces, *last  # pyright: ignore[reportReturnType]


@recurrent.register_fake
def _(x, weight, bias, i, a, v, s, alpha, beta, rho, kappa, theta, current, adapts, *_):
    return *(_like(x, given) for given in (True, True, adapts, current)), *(_like(v, True) for _ in range(4))


@torch.library.custom_op("snn_bp::recurrent_adjoint", mutates_args=())
def recurrent_adjoint(
    potentials: Tensor, adaptations: Tensor, currents: Tensor, weight: Tensor,
    i: Tensor, a: Tensor, v: Tensor, s: Tensor,
    alpha: Tensor, beta: Tensor, rho: Tensor, kappa: Tensor, theta: Tensor,
    g_spikes: Tensor | None, g_potentials: Tensor | None,
    gi: Tensor | None, ga: Tensor | None, gv: Tensor | None, gs: Tensor | None,
    current: bool, adapts: bool, reset: str, detach: bool, shape: str, slope: float, per: str, learns: bool,
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor
]:  # fmt: skip
    """Gradients of x, of the first i, a, v, s, and of alpha, beta, rho, kappa, theta (zero unless `learns`)."""
    gx, first, sums = gpu.run_backward(
        (potentials, adaptations, currents), (i, a, v, s), (alpha, beta, rho, kappa, theta),
        Constants(current, adapts, True, reset, detach),
        shape, slope, "threshold" if per == "threshold" else "potential",
        g_spikes, g_potentials, (gi, ga, gv, gs), saves_current=current, learns=learns, matrix=weight,
    )  # fmt: skip
    if not learns:
        sums = [torch.zeros_like(theta) for _ in sums]
    elif theta.dim() == 0:
        sums = [total.sum() for total in sums]
    else:
        sums = [total.sum(0) for total in sums]
    return gx, *first, *sums  # pyright: ignore[reportReturnType]


@recurrent_adjoint.register_fake
def _(potentials, adaptations, currents, weight, i, a, v, s, alpha, beta, rho, kappa, theta, *_):
    return _like(potentials, True), *(_like(v, True) for _ in range(4)), *(_like(theta, True) for _ in COEFFICIENTS)


def _setup_context(ctx, inputs, output) -> None:
    _, weight, _, *rest = inputs
    ctx.set_materialize_grads(False)
    ctx.constants = rest[9:]
    ctx.save_for_backward(*output[:4], weight, *rest[:9])
    ctx.mark_non_differentiable(*output[2:4])


def _backward(ctx, g_spikes, g_potentials, _a, _i, gi, ga, gv, gs):
    check_backward("Recurrent", (g_spikes, g_potentials, gi, ga, gv, gs))
    spikes, *saved = ctx.saved_tensors
    first_spikes, learns = saved[7], any(ctx.needs_input_grad[7:12])
    gx, *gradients = recurrent_adjoint(*saved, g_spikes, g_potentials, gi, ga, gv, gs, *ctx.constants, learns)
    g_weight = gx[0].t() @ first_spikes + gx[1:].flatten(0, 1).t() @ spikes[:-1].flatten(0, 1)
    given = zip((gx, g_weight, gx.sum((0, 1)), *gradients), ctx.needs_input_grad, strict=False)
    return *(gradient if need else None for gradient, need in given), *(None for _ in ctx.constants)


recurrent.register_autograd(_backward, setup_context=_setup_context)


def _like(x: Tensor, given: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format) if given else x.new_empty(0)
