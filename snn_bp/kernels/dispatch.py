"""`simulate`: one neuron model over a whole time axis, by the fastest backend that equals the reference."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, overload

import torch
from torch import Tensor

from snn_bp.errors import check_choice, check_flag
from snn_bp.errors.calls import checked_call
from snn_bp.kernels.arguments import check_finite, check_input, first_state, parameters_of
from snn_bp.kernels.around import PLAIN, is_plain, is_transformed, is_watched
from snn_bp.kernels.layout import CHANNELS_FIRST, CHANNELS_LAST, lies_channels_last, permuted
from snn_bp.kernels.operator import is_compiled, run_differentiable, run_neuron, words_of
from snn_bp.kernels.operator import neuron as compiled_neuron
from snn_bp.kernels.reference import simulate_reference
from snn_bp.kernels.state import state_of
from snn_bp.neurons import Neuron, State
from snn_bp.surrogates import ATan, Surrogate, check_surrogate

BACKENDS = ("fastest", "reference")
_chosen = ["fastest"]  # the innermost `use_backend` is last; a ContextVar would stop torch.compile


@checked_call
@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block, every neuron runs by the backend of this `name`: "reference", torch step by step, or "fastest".

    >>> with use_backend("reference"):
    ...     spikes, _ = simulate(LIF(beta=0.9), torch.rand(10, 2, 3))
    """
    check_choice("backend", name, BACKENDS)
    _chosen.append(name)
    try:
        yield
    finally:
        _chosen.pop()


@overload
def simulate(
    neuron: Neuron, x: Tensor, state: State | None = None, surrogate: Surrogate = ..., *,
    potentials: Literal[False] = False, parameters: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, State]: ...  # fmt: skip
@overload
def simulate(
    neuron: Neuron, x: Tensor, state: State | None = None, surrogate: Surrogate = ..., *,
    potentials: Literal[True], parameters: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, State, Tensor]: ...  # fmt: skip


@checked_call
def simulate(neuron, x, state=None, surrogate=ATan(), *, potentials=False, parameters=None):  # noqa: B008 - frozen
    """Spikes of `neuron` under the input `x` `[time, batch, ...]`, and the state after the last step.

    Parameters:
        neuron: a value as `LIF(beta=0.9)`; `LI` does not spike: its first value is its potential.
        x: what reaches each neuron at each step, `[time, batch, ...]`, floats.
        state (None): what an earlier call returned; None starts from rest.
        surrogate (ATan()): what a spike's derivative is replaced by.
        potentials (False): whether a third value holds the membrane potential of every step, before reset, shaped as
            `x`.
        parameters (None): tensors in place of the neuron's own numbers, under the names of its equation (`alpha, beta,
            rho, kappa, theta` in the leaky family); gradients flow to them, to `x` and to `state`.

    Half precision in: spikes in the same type, state and potentials in single precision. On the CPU, and on a GPU
    where Triton is installed, the loop is compiled; elsewhere, and within `use_backend("reference")`, it is the torch
    reference. All spike alike, bit for bit. NaN and infinity are refused; not on a GPU, where a look would wait for it.

    >>> spikes, state = simulate(LIF(beta=0.9), torch.rand(100, 8, 50))
    >>> spikes.shape, state.v.shape
    (torch.Size([100, 8, 50]), torch.Size([8, 50]))
    """
    ran = simulate_layer(neuron, x, state, surrogate, potentials=potentials, parameters=parameters)
    parts = {} if state is None else {f"state.{name}": part for name, part in state._asdict().items()}
    check_finite(type(neuron).__name__, x, {**parts, **(parameters or {})}, after=(ran[1],))
    return ran


def simulate_layer(
    neuron: Neuron, x: Tensor, state: Any, surrogate: Surrogate, *,
    potentials: bool = False, parameters: Mapping[str, Tensor] | None = None,
) -> Any:  # fmt: skip
    """As `simulate`, of numbers that may not be finite: whoever trains a network says where that began."""
    check_input(neuron, x)
    check_surrogate(surrogate)
    check_flag("simulate: potentials", potentials)
    x = x.resolve_neg()  # a view that negates: kernels read memory as it is
    y = x if x.dtype in (torch.float32, torch.float64) else x.float()
    equation = neuron.equation
    values = parameters_of(neuron, y, {} if parameters is None else parameters)
    first, given = first_state(neuron, y, state), tuple(values.values())
    channels_last = lies_channels_last(y, dims=5)
    if channels_last:
        y, first, given = y.permute(CHANNELS_LAST), permuted(first, CHANNELS_LAST), permuted(given, CHANNELS_LAST)
    if _chosen[-1] == "reference" or not is_compiled(x) or is_transformed():
        out, v, last = simulate_reference(y, first, given, equation, surrogate)
    else:
        graded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (y, *first, *given))
        learned = ",".join(name for name, value in zip(values, given, strict=True) if graded and value.requires_grad)
        key, kept = words_of(equation, learned, graded, potentials)
        # an operator where something looks on: its first call loads torch's compiler, and every call takes longer
        run: Callable = compiled_neuron
        if is_plain(y, *first, *given):
            run = run_differentiable if graded else run_neuron
        spikes, *others = run(
            y, list(first), list(given), key, surrogate.shape, float(surrogate.slope), surrogate.per,
            learned, kept,
        )  # fmt: skip
        traces = [name for name in kept.split(",") if name not in ("x", "")]
        last = others[len(traces) :]
        v = others[traces.index(equation.potential)] if equation.potential in traces else y[:0]
        out = spikes if equation.spiking else v
    if channels_last:
        out, v = (each if each.dim() < 5 else each.permute(CHANNELS_FIRST) for each in (out, v))
        last = permuted(last, CHANNELS_FIRST)
    after = state_of(neuron, last)
    out = out.to(x.dtype)
    return (out, after, v) if potentials else (out, after)


def runs_reference() -> bool:
    """Whether layers run one by one in torch: in `use_backend("reference")`, transformed, or watched."""
    return _chosen[-1] == "reference" or is_transformed() or is_watched()


def runs_compiled(x: Tensor) -> bool:
    """Whether CPU kernels take `x`, floats or bytes: not where `runs_reference`, nor in autocast or a compiler."""
    return (
        x.device.type == "cpu"
        and _chosen[-1] == "fastest"
        and x.dtype in (torch.float32, torch.float64, torch.uint8)
        and not torch.is_autocast_enabled("cpu")
        and type(x) in PLAIN
        and not torch.compiler.is_compiling()
        and not x.is_neg()
        and not is_transformed()
        and not is_watched()
    )
