"""A recurrent layer on the GPU in one launch: its input is x[t] + V s[t-1] + c, then comes the neuron of `neuron.py`.

A program owns a few samples and all their neurons. Their spikes of the step before are read back from the output and
multiplied with tiles of V: equal to the layer's own loop up to the order of a sum.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from snn_bp.kernels.arguments import first_state, parameters_of
from snn_bp.kernels.around import check_backward, first_derivatives, is_plain
from snn_bp.kernels.bind import Constants
from snn_bp.kernels.gpu import neuron as gpu_neuron
from snn_bp.kernels.operator import SURROGATE, TENSORS
from snn_bp.kernels.state import state_of
from snn_bp.neurons import FullState, Neuron, State
from snn_bp.surrogates import Surrogate

MAX_NEURONS = 512  # neurons whose state fits the registers of one program
MIN_TRITON = (3, 5)  # release of Triton that multiplies blocks of fewer than 16 rows


def serves_recurrent(x: Tensor) -> bool:
    """Whether `simulate_recurrent_gpu` takes the input `x` of a recurrent layer."""
    fits = x.dim() == 3 and x.numel() > 0 and x.shape[2] <= MAX_NEURONS
    return fits and gpu_neuron.serves(x) and gpu_neuron.release() >= MIN_TRITON


def simulate_recurrent_gpu(
    neuron: Neuron, x: Tensor, weight: Tensor, bias: Tensor | None, state: State | None, surrogate: Surrogate,
    *, parameters: Mapping[str, Tensor],
) -> tuple[Tensor, State, Tensor]:  # fmt: skip
    """As `simulate(potentials=True)`, for spiking neurons that are also connected by `weight` `[to, from]`.

    Limits (`serves_recurrent`): `x` is `[time, batch, neurons]`, none of them zero, at most `MAX_NEURONS` neurons, a
    Triton from `MIN_TRITON` up. Every program reads all of V at every step, so large layers gain least; traces are
    recorded also where no gradient is asked for; double precision spills registers above 128 neurons. Half precision
    runs in single. Gradients flow to x, weight, bias, state and parameters.
    """
    y = x if x.dtype in (torch.float32, torch.float64) else x.float()
    constants = Constants.of(neuron)
    values = [value[0] if value.dim() else value for value in parameters_of(neuron, y, parameters)]
    first = first_state(neuron, y, state, constants)
    constant = y.new_zeros(y.shape[2]) if bias is None else bias.to(y.dtype)
    given = (y, weight.to(y.dtype), constant, *first, *values)
    equation = constants.key, surrogate.shape, float(surrogate.slope), surrogate.per
    if is_plain(y, *given[2:]):
        spikes, v, _, _, *last = _Recurrent.apply(equation, *given)
    else:
        spikes, v, _, _, *last = recurrent(*given[:3], list(first), values, *equation)
    return spikes.to(x.dtype), state_of(FullState(*last), constants), v


def _run(
    x: Tensor, weight: Tensor, bias: Tensor, state: Sequence[Tensor], coefficients: Sequence[Tensor],
    key: str, shape: str, slope: float, per: str,
) -> list[Tensor]:  # fmt: skip
    """Spikes, the traces v, a, i of every step (empty where the neuron has none), and the last i, a, v, s.

    The coefficients are all scalars or all `[neurons]`.
    """
    constants = Constants.of_key(key)
    spikes, *traces = (_like(x, exists) for exists in _recorded(constants))
    last = gpu_neuron.run_forward(
        x, state, coefficients, constants, spikes, traces,
        record=True, saves_current=constants.current, matrix=weight.t(), bias=bias,
    )  # fmt: skip
    return [spikes, *traces, *last]


recurrent = torch.library.custom_op(
    "snn_bp::recurrent", _run, mutates_args=(),
    schema=f"(Tensor x, Tensor weight, Tensor bias, {TENSORS}, {SURROGATE}) -> Tensor[]",
)  # fmt: skip


@recurrent.register_fake
def _(x, weight, bias, state, coefficients, key, *_):
    return [*(_like(x, exists) for exists in _recorded(Constants.of_key(key))), *(_like(each, True) for each in state)]


def _recorded(constants: Constants) -> tuple[bool, ...]:
    """Whether there are spikes, and traces of v, a and i."""
    return True, True, constants.adapts, constants.current


def _run_adjoint(
    traces: Sequence[Tensor], weight: Tensor, state: Sequence[Tensor], coefficients: Sequence[Tensor],
    g_out: Sequence[Tensor | None], g_last: Sequence[Tensor | None],
    key: str, shape: str, slope: float, per: str, learns: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients of x, of the first state, and of the coefficients (zero unless `learns`)."""
    constants = Constants.of_key(key)
    gx, first, sums = gpu_neuron.run_backward(
        traces, state, coefficients, constants, (shape, "threshold" if per == "threshold" else "potential"), slope,
        g_out, g_last, saves_current=constants.current, learns=learns, matrix=weight,
    )  # fmt: skip
    if not learns:
        return [gx, *first, *map(torch.zeros_like, coefficients)]
    return [gx, *first, *(total.sum() if coefficients[0].dim() == 0 else total.sum(0) for total in sums)]


recurrent_adjoint = torch.library.custom_op(
    "snn_bp::recurrent_adjoint", _run_adjoint, mutates_args=(),
    schema=f"(Tensor[] traces, Tensor weight, {TENSORS}, Tensor?[] g_out, Tensor?[] g_last, {SURROGATE}, bool learns) "
    "-> Tensor[]",
)  # fmt: skip


@recurrent_adjoint.register_fake
def _(traces, weight, state, coefficients, *_):
    return [_like(each, True) for each in (traces[0], *state, *coefficients)]


def _setup_context(ctx, inputs, output) -> None:
    _, weight, _, state, coefficients, *ctx.equation = inputs
    _keep(ctx, output, weight, *state, *coefficients)


def _backward(ctx, gradients):
    check_backward("Recurrent", tuple(gradients[:2]) + tuple(gradients[4:]))
    needs_x, needs_weight, needs_bias, needs_state, needs_coefficients = ctx.needs_input_grad[:5]
    found = _gradients(
        ctx, recurrent_adjoint, gradients, needs_x, needs_weight, needs_bias, *needs_state, *needs_coefficients
    )
    return *found[:3], found[3:7], found[7:], *(None for _ in ctx.equation)


recurrent.register_autograd(_backward, setup_context=_setup_context)


class _Recurrent(torch.autograd.Function):
    """As `recurrent` where nothing looks on: an operator's machinery takes longer than a small kernel."""

    @staticmethod
    def forward(ctx, equation: tuple[str, str, float, str], x: Tensor, weight: Tensor, bias: Tensor, *tensors: Tensor):
        out = _run(x, weight, bias, tensors[:4], tensors[4:], *equation)
        ctx.equation = equation
        _keep(ctx, out, weight, *tensors)
        return tuple(out)

    @staticmethod
    @first_derivatives("Recurrent")
    def backward(ctx, *gradients):
        return None, *_gradients(ctx, _run_adjoint, gradients, *ctx.needs_input_grad[1:])


def _keep(ctx, output: Sequence[Tensor], *tensors: Tensor) -> None:
    """What the backward pass reads: spikes and traces, weight, first state and coefficients."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[:4], *tensors)
    ctx.mark_non_differentiable(*output[2:4])


def _gradients(ctx, adjoint: Callable, gradients: Sequence[Tensor | None], *needs: bool) -> list[Tensor | None]:
    """Gradients of x, weight, bias, first state and coefficients, None where none is needed."""
    g_spikes, g_potentials, _, _, *g_last = gradients
    spikes, *traces = ctx.saved_tensors[:4]
    weight, state, coefficients = ctx.saved_tensors[4], ctx.saved_tensors[5:9], ctx.saved_tensors[9:]
    gx, *others = adjoint(
        traces, weight, state, coefficients, [g_spikes, g_potentials], g_last, *ctx.equation, any(needs[7:])
    )
    g_weight = g_bias = None
    if needs[1]:
        g_weight = gx[0].t() @ state[3] + gx[1:].flatten(0, 1).t() @ spikes[:-1].flatten(0, 1)
    if needs[2]:
        g_bias = gx.sum((0, 1))
    return [g if need else None for g, need in zip((gx, g_weight, g_bias, *others), needs, strict=True)]


def _like(x: Tensor, exists: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format) if exists else x.new_empty(0)
