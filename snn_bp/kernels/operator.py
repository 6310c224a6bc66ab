"""The compiled kernels as one torch operator, forward and adjoint: autograd, `torch.compile` and autocast know it.

Where nothing looks on, `run_differentiable` is the same for autograd alone, and takes less time around small kernels.
State, coefficients and gradients come as lists in the order of `FullState` and `Coefficients`, the constants of the
equation as their `key`. Tensors choose the kernel: `cpu/neuron.py` or `gpu/neuron.py`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from snn_bp.kernels.around import check_backward, first_derivatives
from snn_bp.kernels.bind import Constants
from snn_bp.kernels.cpu import neuron as cpu_neuron
from snn_bp.kernels.cpu.aligned import aligned_empty
from snn_bp.kernels.cpu.compile import array, flat_or_scalar, specialised
from snn_bp.kernels.gpu import neuron as gpu_neuron
from snn_bp.surrogates import Unit

DEVICES = ("cpu", "cuda")  # cuda is ROCm's name too
TENSORS = "Tensor[] state, Tensor[] coefficients"
SURROGATE = "str key, str shape, float slope, str per"


def is_compiled(x: Tensor) -> bool:
    """Whether a compiled kernel is there for tensors like `x`."""
    return x.device.type == "cpu" or gpu_neuron.serves(x)


def run_neuron(
    x: Tensor, state: Sequence[Tensor], coefficients: Sequence[Tensor],
    key: str, shape: str, slope: float, per: str, record: bool, saves_current: bool,
) -> list[Tensor]:  # fmt: skip
    """Spikes, the traces v, a, i of every step (empty unless recorded), and the last i, a, v, s.

    `x` is `[time, ...]` in single or double precision; the state is shaped as one step of it; the coefficients are
    all scalars or all shaped as the state.
    """
    constants = Constants.of_key(key)
    spikes, *traces = (_empty(x, exists) for exists in _recorded(constants, record, saves_current))
    run = gpu_neuron.run_forward if gpu_neuron.serves(x) else _forward_on_cpu
    last = run(x, state, coefficients, constants, spikes, traces, record=record, saves_current=saves_current)
    return [spikes, *traces, *last]


neuron = torch.library.custom_op(
    "snn_bp::neuron", run_neuron, mutates_args=(), device_types=DEVICES,
    schema=f"(Tensor x, {TENSORS}, {SURROGATE}, bool record, bool saves_current) -> Tensor[]",
)  # fmt: skip


@neuron.register_fake
def _(x, state, coefficients, key, shape, slope, per, record, saves_current):
    recorded = _recorded(Constants.of_key(key), record, saves_current)
    return [*(_like(x, exists) for exists in recorded), *map(torch.empty_like, state)]


def _recorded(constants: Constants, record: bool, saves_current: bool) -> tuple[bool, ...]:
    """Whether there are spikes, and traces of v, a and i."""
    return constants.spiking, record, record and constants.adapts, record and saves_current


def run_adjoint(
    traces: Sequence[Tensor], state: Sequence[Tensor], coefficients: Sequence[Tensor],
    g_out: Sequence[Tensor | None], g_last: Sequence[Tensor | None],
    key: str, shape: str, slope: float, per: str, saves_current: bool, learns: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients of x, of the first state, and of the coefficients (zero unless `learns`).

    `traces` are v, a, i; `g_out` the gradients of spikes and potentials, `g_last` those of the last state.
    """
    gx, first, sums = _run_backward(
        traces, state, coefficients, g_out, g_last, key, shape, slope, per, saves_current, learns
    )
    if not learns:
        return [gx, *first, *map(torch.zeros_like, coefficients)]
    return [gx, *first, *(_over_neurons(total, coefficients) for total in sums)]


def _run_backward(
    traces: Sequence[Tensor], state: Sequence[Tensor], coefficients: Sequence[Tensor],
    g_out: Sequence[Tensor | None], g_last: Sequence[Tensor | None],
    key: str, shape: str, slope: float, per: str, saves_current: bool, learns: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    """As `run_adjoint`, with the gradients of the coefficients at each neuron, undefined unless `learns`."""
    run = gpu_neuron.run_backward if gpu_neuron.serves(traces[0]) else _backward_on_cpu
    unit: Unit = "threshold" if per == "threshold" else "potential"
    return run(
        traces, state, coefficients, Constants.of_key(key), (shape, unit), slope, g_out, g_last,
        saves_current=saves_current, learns=learns,
    )  # fmt: skip


def _over_neurons(total: Tensor, coefficients: Sequence[Tensor]) -> Tensor:
    """The gradient of a coefficient, of which `total` is the part of each neuron."""
    return total.sum() if coefficients[0].dim() == 0 else total


neuron_adjoint = torch.library.custom_op(
    "snn_bp::neuron_adjoint", run_adjoint, mutates_args=(), device_types=DEVICES,
    schema=f"(Tensor[] traces, {TENSORS}, Tensor?[] g_out, Tensor?[] g_last, {SURROGATE}, bool saves_current, "
    "bool learns) -> Tensor[]",
)  # fmt: skip


@neuron_adjoint.register_fake
def _(traces, state, coefficients, *_):
    return [torch.empty_like(traces[0]), *(_like(each, True) for each in (*state, *coefficients))]


def _setup_context(ctx, inputs, output) -> None:
    _, state, coefficients, *ctx.equation, ctx.record, ctx.saves_current = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:4], *state, *coefficients)
    ctx.mark_non_differentiable(*output[2:4])


def _backward(ctx, gradients):
    g_spikes, g_potentials, _, _, *g_last = gradients
    check_backward("neurons", (g_spikes, g_potentials, *g_last))
    assert ctx.record, "simulate() records whenever a gradient can be asked for"
    needs_x, needs_state, needs_coefficients, *_ = ctx.needs_input_grad
    saved = ctx.saved_tensors
    gx, *others = neuron_adjoint(
        saved[:3], saved[3:7], saved[7:], [g_spikes, g_potentials], g_last,
        *ctx.equation, ctx.saves_current, any(needs_coefficients),
    )  # fmt: skip
    first = [g if need else None for g, need in zip(others[:4], needs_state, strict=True)]
    learned = [g if need else None for g, need in zip(others[4:], needs_coefficients, strict=True)]
    return gx if needs_x else None, first, learned, *(None,) * 6


neuron.register_autograd(_backward, setup_context=_setup_context)


def run_differentiable(
    x: Tensor, state: Sequence[Tensor], coefficients: Sequence[Tensor],
    key: str, shape: str, slope: float, per: str, record: bool, saves_current: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """As `run_neuron`, with gradients."""
    assert record, "simulate() records whenever a gradient can be asked for"
    return _Neuron.apply((key, shape, slope, per), saves_current, x, *state, *coefficients)


class _Neuron(torch.autograd.Function):
    @staticmethod
    def forward(ctx, equation: tuple[str, str, float, str], saves_current: bool, x: Tensor, *tensors: Tensor):
        out = run_neuron(x, tensors[:4], tensors[4:], *equation, True, saves_current)
        ctx.equation, ctx.saves_current = equation, saves_current
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*out[1:4], *tensors)
        ctx.mark_non_differentiable(*out[2:4])
        return tuple(out)

    @staticmethod
    @first_derivatives("neurons")
    def backward(ctx, g_spikes, g_potentials, _, __, *g_last):
        needs, saved = ctx.needs_input_grad[2:], ctx.saved_tensors
        traces, state, coefficients = saved[:3], saved[3:7], saved[7:]
        key, shape, slope, per = ctx.equation
        gx, first, sums = _run_backward(
            traces, state, coefficients, (g_spikes, g_potentials), g_last,
            key, shape, slope, per, ctx.saves_current, any(needs[5:]),
        )  # fmt: skip
        given = [g if need else None for g, need in zip((gx, *first), needs[:5], strict=True)]
        learned = [
            _over_neurons(total, coefficients) if need else None for total, need in zip(sums, needs[5:], strict=True)
        ]
        return None, None, *given, *learned


def _forward_on_cpu(
    x: Tensor, first: Sequence[Tensor], coefficients: Sequence[Tensor], constants: Constants,
    spikes: Tensor, traces: Sequence[Tensor], *, record: bool, saves_current: bool,
) -> list[Tensor]:  # fmt: skip
    kernel = specialised(
        cpu_neuron.forward, constants, _dtype(x), uniform=coefficients[0].dim() == 0,
        RECORD=record, SAVES_CURRENT=saves_current,
    )  # fmt: skip
    last = [values.clone(memory_format=torch.contiguous_format) for values in first]
    own = (*map(_flat, last), *map(flat_or_scalar, coefficients))
    cpu_neuron.over_neurons(kernel, (_rows(x), *own, _rows(spikes), *map(_rows, traces)), first[0].numel())
    return last


def _backward_on_cpu(
    traces: Sequence[Tensor], first: Sequence[Tensor], coefficients: Sequence[Tensor], constants: Constants,
    surrogate: tuple[str, Unit], slope: float, g_out: Sequence[Tensor | None], g_last: Sequence[Tensor | None],
    *, saves_current: bool, learns: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    potentials, v, dtype = traces[0], first[2], _dtype(traces[0])
    kernel = specialised(
        cpu_neuron.backward, constants, dtype, uniform=coefficients[0].dim() == 0, adjoint=surrogate,
        GIVEN_SPIKES=g_out[0] is not None, GIVEN_POTENTIALS=g_out[1] is not None,
        SAVES_CURRENT=saves_current, LEARNS=learns,
    )  # fmt: skip
    empty = potentials.new_empty(0)
    gx = _empty(potentials, True)
    g_first = [
        torch.zeros_like(v) if g is None else g.clone(memory_format=torch.contiguous_format) for g in g_last
    ]  # fmt: skip
    sums = [torch.zeros_like(v) if learns else empty.clone() for _ in coefficients]
    own = (*map(_flat, first), *map(flat_or_scalar, coefficients), dtype.type(slope))
    given = (_rows(empty if g is None else g) for g in g_out)
    arguments = (*map(_rows, traces), *own, *given, *map(_flat, g_first), _rows(gx), *map(_flat, sums))
    cpu_neuron.over_neurons(kernel, arguments, v.numel())
    return gx, g_first, sums


def _like(x: Tensor, exists: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format) if exists else x.new_empty(0)


def _empty(x: Tensor, exists: bool) -> Tensor:
    """As `_like`; on the CPU by NumPy, whose large arrays lie in huge pages."""
    if x.device.type != "cpu" or not exists:
        return _like(x, exists)
    return torch.from_numpy(aligned_empty(x.numel(), _dtype(x))).view(x.shape)


def _dtype(tensor: Tensor) -> np.dtype:
    return np.dtype(np.float32 if tensor.dtype == torch.float32 else np.float64)


def _rows(tensor: Tensor) -> np.ndarray:
    return array(tensor.resolve_neg()).reshape(len(tensor), math.prod(tensor.shape[1:]))


def _flat(tensor: Tensor) -> np.ndarray:
    return array(tensor.resolve_neg()).reshape(-1)
