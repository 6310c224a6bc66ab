"""The compiled kernels as one torch operator, forward and adjoint: autograd, `torch.compile` and autocast know it.

Where nothing looks on, `run_differentiable` is the same for autograd alone, and takes less time around small kernels.
State, parameters and gradients come as lists in the order of the equation, which its `key` names; so do the names of
what is kept of every step, and of the parameters whose gradients are asked for, with commas between. Tensors choose the
kernel: `cpu/neuron.py` or `gpu/neuron.py`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from snn_bp.equations.derive import Equation
from snn_bp.kernels import cpu
from snn_bp.kernels.around import check_backward, first_derivatives
from snn_bp.kernels.expand import Form
from snn_bp.kernels.gpu import neuron as gpu_neuron
from snn_bp.surrogates import SlopeOf

DEVICES = ("cpu", "cuda")  # cuda is ROCm's name too
TENSORS = "Tensor[] state, Tensor[] values"
EQUATION = "str key, str shape, float slope, str per"


def is_compiled(x: Tensor) -> bool:
    """Whether a compiled kernel is there for tensors like `x`."""
    return x.device.type == "cpu" or gpu_neuron.serves(x)


def form_of(key: str, learned: str, kept: str) -> Form:
    """The form of a kernel, from the words that an operator takes."""
    learned_names, kept_names = (tuple(filter(None, names.split(","))) for names in (learned, kept))
    return Form(Equation.of_key(key), learned_names, kept_names)


def words_of(equation: Equation, learned: str, graded: bool, potentials: bool) -> tuple[str, str]:
    """The key of an equation, and what is kept of every step: what a backward pass needs, and the potential.

    The potential is kept where it is given out, or where a backward pass needs nothing else.
    """
    kept = equation.saved(tuple(filter(None, learned.split(",")))) if graded else ()
    shown = potentials or not equation.spiking or (graded and not kept)
    return equation.key, ",".join(dict.fromkeys((*kept, equation.potential)) if shown else kept)


words_of._dynamo_marked_constant = True  # type: ignore[attr-defined] - torch.compile calls it, and reads no line of it


def run_neuron(
    x: Tensor, state: Sequence[Tensor], values: Sequence[Tensor],
    key: str, shape: str, slope: float, per: str, learned: str, kept: str,
) -> list[Tensor]:  # fmt: skip
    """Spikes (nothing of a neuron that does not fire), what is `kept` of every step but the input, and the last state.

    `x` is `[time, ...]` in single or double precision; the state is shaped as one step of it; the values of the
    parameters are all scalars or all shaped as the state.
    """
    form = form_of(key, "", kept)
    spikes, *traces = (_empty(x, exists) for exists in (form.equation.spiking, *(True for _ in form.traces)))
    run = gpu_neuron.run_forward if gpu_neuron.serves(x) else _forward_on_cpu
    last = run(x, state, values, Form(form.equation, kept=form.traces), spikes, traces)
    return [spikes, *traces, *last]


neuron = torch.library.custom_op(
    "snn_bp::neuron", run_neuron, mutates_args=(), device_types=DEVICES,
    schema=f"(Tensor x, {TENSORS}, {EQUATION}, str learned, str kept) -> Tensor[]",
)  # fmt: skip


@neuron.register_fake
def _(x, state, values, key, shape, slope, per, learned, kept):
    form = form_of(key, learned, kept)
    recorded = (form.equation.spiking, *(True for _ in form.traces))
    return [*(_like(x, exists) for exists in recorded), *map(torch.empty_like, state)]


def run_adjoint(
    traces: Sequence[Tensor], state: Sequence[Tensor], values: Sequence[Tensor],
    g_out: Sequence[Tensor | None], g_last: Sequence[Tensor | None],
    key: str, shape: str, slope: float, per: str, learned: str, kept: str,
) -> list[Tensor]:  # fmt: skip
    """Gradients of x, of the first state, and of the parameters that are `learned`.

    `traces` are what was `kept`, the input too; `g_out` the gradients of spikes and potentials, `g_last` those of the
    last state.
    """
    form = form_of(key, learned, kept)
    gx, first, sums = _run_backward(traces, state, values, g_out, g_last, form, slope, SlopeOf(shape, per))
    each_learned = zip(sums, form.of_learned(values), strict=True)
    return [gx, *first, *(total.sum() if value.dim() == 0 else total for total, value in each_learned)]


def _run_backward(
    traces: Sequence[Tensor], state: Sequence[Tensor], values: Sequence[Tensor],
    g_out: Sequence[Tensor | None], g_last: Sequence[Tensor | None],
    form: Form, slope: float, slope_of: SlopeOf,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    """As `run_adjoint`, with the gradients of the parameters at each neuron."""
    run = gpu_neuron.run_backward if gpu_neuron.serves(traces[0]) else _backward_on_cpu
    return run(traces, state, values, form, slope_of, slope, g_out, g_last)


neuron_adjoint = torch.library.custom_op(
    "snn_bp::neuron_adjoint", run_adjoint, mutates_args=(), device_types=DEVICES,
    schema=f"(Tensor[] traces, {TENSORS}, Tensor?[] g_out, Tensor?[] g_last, {EQUATION}, str learned, "
    "str kept) -> Tensor[]",
)  # fmt: skip


@neuron_adjoint.register_fake
def _(traces, state, values, g_out, g_last, key, shape, slope, per, learned, kept):
    each_learned = form_of(key, learned, kept).of_learned(values)
    return [_like(each, True) for each in (traces[0], *state, *each_learned)]


def _setup_context(ctx, inputs, output) -> None:
    x, state, values, *ctx.equation, learned, kept = inputs
    ctx.words, ctx.form = (learned, kept), form_of(ctx.equation[0], learned, kept)
    _keep(ctx, x, output, state, values)


def _backward(ctx, gradients):
    check_backward("neurons", _checked(ctx.form, gradients))
    needs_x, needs_state, needs_values, *_ = ctx.needs_input_grad
    traces, state, values = _kept(ctx)
    g_out, g_last = _split(ctx.form, gradients)
    gx, *others = neuron_adjoint(traces, state, values, g_out, g_last, *ctx.equation, *ctx.words)
    first = [g if need else None for g, need in zip(others[: len(state)], needs_state, strict=True)]
    each_learned = dict(zip(ctx.form.learned, others[len(state) :], strict=True))
    names = zip(ctx.form.equation.parameters, needs_values, strict=True)
    return (
        gx if needs_x else None,
        first,
        [each_learned.get(name) if need else None for name, need in names],
        *(None,) * 6,
    )


neuron.register_autograd(_backward, setup_context=_setup_context)


def run_differentiable(
    x: Tensor, state: Sequence[Tensor], values: Sequence[Tensor],
    key: str, shape: str, slope: float, per: str, learned: str, kept: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    """As `run_neuron`, with gradients."""
    return _Neuron.apply((key, shape, slope, per), learned, kept, len(state), x, *state, *values)


class _Neuron(torch.autograd.Function):
    @staticmethod
    def forward(ctx, equation: tuple[str, str, float, str], learned: str, kept: str, carried: int, x: Tensor, *tensors):
        state, values = tensors[:carried], tensors[carried:]
        out = run_neuron(x, state, values, *equation, learned, kept)
        ctx.equation, ctx.form = equation, form_of(equation[0], learned, kept)
        _keep(ctx, x, out, state, values)
        return tuple(out)

    @staticmethod
    @first_derivatives("neurons")
    def backward(ctx, *gradients):
        traces, state, values = _kept(ctx)
        g_out, g_last = _split(ctx.form, gradients)
        _, shape, slope, per = ctx.equation
        gx, first, sums = _run_backward(traces, state, values, g_out, g_last, ctx.form, slope, SlopeOf(shape, per))
        needs = ctx.needs_input_grad[4:]
        given = [g if need else None for g, need in zip((gx, *first), needs, strict=False)]
        each_learned = {
            name: total.sum() if value.dim() == 0 else total
            for name, total, value in zip(ctx.form.learned, sums, ctx.form.of_learned(values), strict=True)
        }
        return None, None, None, None, *given, *(each_learned.get(name) for name in ctx.form.equation.parameters)


def _keep(ctx, x: Tensor, output: Sequence[Tensor], state: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """What the backward pass reads. Of what is kept the potential alone carries a gradient of its own."""
    traces = output[1 : 1 + len(ctx.form.traces)]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*([x] if "x" in ctx.form.kept else []), *traces, *state, *values)
    potential = ctx.form.equation.potential
    ctx.mark_non_differentiable(
        *(trace for name, trace in zip(ctx.form.traces, traces, strict=True) if name != potential)
    )


def _kept(ctx) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """What `_keep` kept: traces, the first state, and the values of the parameters."""
    saved, equation = list(ctx.saved_tensors), ctx.form.equation
    ends = len(ctx.form.kept), len(ctx.form.kept) + len(equation.full)
    return saved[: ends[0]], saved[ends[0] : ends[1]], saved[ends[1] :]


def _split(form: Form, gradients: Sequence[Tensor | None]) -> tuple[list[Tensor | None], Sequence[Tensor | None]]:
    """The gradients of spikes and potentials, and those of the last state."""
    count = len(form.traces)
    of_traces = dict(zip(form.traces, gradients[1 : 1 + count], strict=True))
    spikes = gradients[0] if form.equation.spiking else None  # torch may give one of what is empty
    return [spikes, of_traces.get(form.equation.potential)], gradients[1 + count :]


def _checked(form: Form, gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    g_out, g_last = _split(form, gradients)
    return (*g_out, *g_last)


def _forward_on_cpu(
    x: Tensor, first: Sequence[Tensor], values: Sequence[Tensor], form: Form, spikes: Tensor, traces: Sequence[Tensor]
) -> list[Tensor]:
    kernel = cpu.compile.specialised(
        cpu.neuron.forward, form, _dtype(x), uniform=all(value.dim() == 0 for value in values)
    )
    last = [part.clone(memory_format=torch.contiguous_format) for part in first]
    own = (*map(_flat, last), *map(cpu.compile.flat_or_scalar, values))
    cpu.neuron.over_neurons(kernel, (_rows(x), *own, _rows(spikes), *map(_rows, traces)), first[0].numel())
    return last


def _backward_on_cpu(
    traces: Sequence[Tensor], first: Sequence[Tensor], values: Sequence[Tensor], form: Form, slope_of: SlopeOf,
    slope: float, g_out: Sequence[Tensor | None], g_last: Sequence[Tensor | None],
) -> tuple[Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    like, dtype = traces[0], _dtype(traces[0])
    kernel = cpu.compile.specialised(
        cpu.neuron.backward, form, dtype, uniform=all(value.dim() == 0 for value in values), adjoint=slope_of,
        GIVEN_SPIKES=g_out[0] is not None, GIVEN_POTENTIALS=g_out[1] is not None,
    )  # fmt: skip
    empty, gx = like.new_empty(0), _empty(like, True)
    g_first = [
        torch.zeros_like(part, memory_format=torch.contiguous_format) if g is None
        else g.clone(memory_format=torch.contiguous_format)
        for g, part in zip(g_last, first, strict=True)
    ]  # fmt: skip
    sums = [torch.zeros_like(g_first[0]) for _ in form.learned]
    own = (*map(_flat, first), *map(cpu.compile.flat_or_scalar, values), dtype.type(slope))
    given = (_rows(empty if g is None else g) for g in g_out)
    arguments = (*map(_rows, traces), *own, *given, *map(_flat, g_first), _rows(gx), *map(_flat, sums))
    cpu.neuron.over_neurons(kernel, arguments, g_first[0].numel())
    return gx, g_first, sums


def _like(x: Tensor, exists: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format) if exists else x.new_empty(0)


def _empty(x: Tensor, exists: bool) -> Tensor:
    """As `_like`; on the CPU by NumPy, whose large arrays lie in huge pages."""
    if x.device.type != "cpu" or not exists:
        return _like(x, exists)
    return torch.from_numpy(cpu.aligned.aligned_empty(x.numel(), _dtype(x))).view(x.shape)


def _dtype(tensor: Tensor) -> np.dtype:
    return np.dtype(np.float32 if tensor.dtype == torch.float32 else np.float64)


def _rows(tensor: Tensor) -> np.ndarray:
    return cpu.compile.array(tensor.resolve_neg()).reshape(len(tensor), math.prod(tensor.shape[1:]))


def _flat(tensor: Tensor) -> np.ndarray:
    return cpu.compile.array(tensor.resolve_neg()).reshape(-1)
