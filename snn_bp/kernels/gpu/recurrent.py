"""A recurrent layer on the GPU in one launch: its input is x[t] + V s[t-1] + c, then comes the neuron of `neuron.py`.

A program owns a few samples and all their neurons. Their spikes of the step before are read back from the output and
multiplied with tiles of V: equal to the layer's own loop up to the order of a sum.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from snn_bp.kernels.arguments import first_state, parameters_of
from snn_bp.kernels.around import check_backward, first_derivatives, is_plain
from snn_bp.kernels.gpu import neuron as gpu_neuron
from snn_bp.kernels.operator import EQUATION, TENSORS, form_of, words_of
from snn_bp.kernels.state import state_of
from snn_bp.neurons import Neuron, State
from snn_bp.surrogates import SlopeOf, Surrogate

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
    given_values = parameters_of(neuron, y, parameters)
    values = [value[0] if value.dim() else value for value in given_values.values()]
    first = first_state(neuron, y, state)
    learned = ",".join(name for name, value in zip(given_values, values, strict=True) if value.requires_grad)
    key, kept = words_of(neuron.equation, learned, True, True)
    constant = y.new_zeros(y.shape[2]) if bias is None else bias.to(y.dtype)
    given = (y, weight.to(y.dtype), constant, *first, *values)
    equation = key, surrogate.shape, float(surrogate.slope), surrogate.per, learned, kept
    if is_plain(y, *given[2:]):
        spikes, *others = _Recurrent.apply(equation, len(first), *given)
    else:
        spikes, *others = recurrent(*given[:3], list(first), values, *equation)
    traces = kept.split(",")
    return spikes.to(x.dtype), state_of(neuron, others[len(traces) :]), others[traces.index(neuron.equation.potential)]


def _run(
    x: Tensor, weight: Tensor, bias: Tensor, state: Sequence[Tensor], values: Sequence[Tensor],
    key: str, shape: str, slope: float, per: str, learned: str, kept: str,
) -> list[Tensor]:  # fmt: skip
    """Spikes, what is kept of every step, and the last state. The values are all scalars or all `[neurons]`."""
    form = form_of(key, "", kept)
    spikes, *traces = (_like(x) for _ in ("spikes", *form.kept))
    last = gpu_neuron.run_forward(x, state, values, form, spikes, traces, matrix=weight.t(), bias=bias)
    return [spikes, *traces, *last]


recurrent = torch.library.custom_op(
    "snn_bp::recurrent", _run, mutates_args=(),
    schema=f"(Tensor x, Tensor weight, Tensor bias, {TENSORS}, {EQUATION}, str learned, str kept) -> Tensor[]",
)  # fmt: skip


@recurrent.register_fake
def _(x, weight, bias, state, values, key, shape, slope, per, learned, kept):
    return [*(_like(x) for _ in ("spikes", *form_of(key, "", kept).kept)), *map(_like, state)]


def _run_adjoint(
    traces: Sequence[Tensor], weight: Tensor, state: Sequence[Tensor], values: Sequence[Tensor],
    g_out: Sequence[Tensor | None], g_last: Sequence[Tensor | None],
    key: str, shape: str, slope: float, per: str, learned: str, kept: str,
) -> list[Tensor]:  # fmt: skip
    """Gradients of x, of the first state, and of the parameters that are learned."""
    form = form_of(key, learned, kept)
    gx, first, sums = gpu_neuron.run_backward(
        traces, state, values, form, SlopeOf(shape, per), slope, g_out, g_last, matrix=weight
    )
    each_learned = zip(sums, form.of_learned(values), strict=True)
    return [gx, *first, *(total.sum() if value.dim() == 0 else total.sum(0) for total, value in each_learned)]


recurrent_adjoint = torch.library.custom_op(
    "snn_bp::recurrent_adjoint", _run_adjoint, mutates_args=(),
    schema=f"(Tensor[] traces, Tensor weight, {TENSORS}, Tensor?[] g_out, Tensor?[] g_last, {EQUATION}, str learned, "
    "str kept) -> Tensor[]",
)  # fmt: skip


@recurrent_adjoint.register_fake
def _(traces, weight, state, values, g_out, g_last, key, shape, slope, per, learned, kept):
    return [_like(each) for each in (traces[0], *state, *form_of(key, learned, kept).of_learned(values))]


def _setup_context(ctx, inputs, output) -> None:
    _, weight, _, state, values, *ctx.equation = inputs
    _keep(ctx, output, weight, state, values)


def _backward(ctx, gradients):
    count = len(ctx.form.kept)
    check_backward("Recurrent", (gradients[0], *gradients[1 + count :]))
    needs_x, needs_weight, needs_bias, needs_state, needs_values = ctx.needs_input_grad[:5]
    found = _gradients(
        ctx, recurrent_adjoint, gradients, needs_x, needs_weight, needs_bias, *needs_state, *needs_values
    )
    carried = len(ctx.form.equation.full)
    return *found[:3], found[3 : 3 + carried], found[3 + carried :], *(None for _ in ctx.equation)


recurrent.register_autograd(_backward, setup_context=_setup_context)


class _Recurrent(torch.autograd.Function):
    """As `recurrent` where nothing looks on: an operator's machinery takes longer than a small kernel."""

    @staticmethod
    def forward(ctx, equation: tuple, carried: int, x: Tensor, weight: Tensor, bias: Tensor, *tensors: Tensor):
        out = _run(x, weight, bias, tensors[:carried], tensors[carried:], *equation)
        ctx.equation = equation
        _keep(ctx, out, weight, tensors[:carried], tensors[carried:])
        return tuple(out)

    @staticmethod
    @first_derivatives("Recurrent")
    def backward(ctx, *gradients):
        return None, None, *_gradients(ctx, _run_adjoint, gradients, *ctx.needs_input_grad[2:])


def _keep(ctx, output: Sequence[Tensor], weight: Tensor, state: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """What the backward pass reads: spikes and traces, weight, first state and values of the parameters."""
    ctx.form = form_of(ctx.equation[0], *ctx.equation[-2:])
    kept, potential = ctx.form.kept, ctx.form.equation.potential
    traces = output[1 : 1 + len(kept)]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], *traces, weight, *state, *values)
    ctx.mark_non_differentiable(*(trace for name, trace in zip(kept, traces, strict=True) if name != potential))


def _gradients(ctx, adjoint: Callable, gradients: Sequence[Tensor | None], *needs: bool) -> list[Tensor | None]:
    """Gradients of x, weight, bias, first state and parameters, None where none is needed."""
    form, carried, saved = ctx.form, len(ctx.form.equation.full), list(ctx.saved_tensors)
    count = len(form.kept)
    spikes, traces, weight = saved[0], saved[1 : 1 + count], saved[1 + count]
    state, values = saved[2 + count : 2 + count + carried], saved[2 + count + carried :]
    g_potentials = dict(zip(form.kept, gradients[1 : 1 + count], strict=True))[form.equation.potential]
    gx, *others = adjoint(
        traces, weight, state, values, [gradients[0], g_potentials], gradients[1 + count :], *ctx.equation
    )
    g_weight = g_bias = None
    if needs[1]:
        g_weight = gx[0].t() @ state[-1] + gx[1:].flatten(0, 1).t() @ spikes[:-1].flatten(0, 1)
    if needs[2]:
        g_bias = gx.sum((0, 1))
    each_learned = dict(zip(form.learned, others[carried:], strict=True))
    every = (gx, g_weight, g_bias, *others[:carried], *(each_learned.get(name) for name in form.equation.parameters))
    return [g if need else None for g, need in zip(every, needs, strict=True)]


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
