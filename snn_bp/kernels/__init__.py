"""`simulate`: one neuron model over a whole time axis, by the fastest backend that equals the reference."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, overload

import torch
from torch import Tensor

from snn_bp.errors import SnnError, check_choice, check_flag, shown
from snn_bp.kernels.around import PLAIN, is_transformed, is_watched
from snn_bp.kernels.bind import Constants
from snn_bp.kernels.given import as_parameter, as_part
from snn_bp.kernels.operator import is_compiled, run_neuron
from snn_bp.kernels.operator import neuron as compiled_neuron
from snn_bp.kernels.reference import simulate_reference
from snn_bp.neurons import (
    COEFFICIENTS,
    Neuron,
    State,
    check_neuron,
    coefficients,
    has_adaptation,
    has_current,
    is_spiking,
)  # fmt: skip
from snn_bp.surrogates import ATan, Surrogate, check_surrogate

BACKENDS = ("fastest", "reference")
LAST, FIRST = (0, 1, 3, 4, 2), (0, 1, 4, 2, 3)  # channels last in memory, and back
_chosen = ["fastest"]  # the innermost `use_backend` is last; a ContextVar would stop torch.compile


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block, every neuron runs by the backend of this name: "reference" or "fastest"."""
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


def simulate(neuron, x, state=None, surrogate=ATan(), *, potentials=False, parameters=None):  # noqa: B008 - frozen
    """Spikes of `neuron` under the input `x` `[time, batch, ...]`, and the state after the last step.

    `state` is what an earlier call returned; None starts from rest. With `potentials=True` a third value holds the
    membrane potential of every step, before reset, shaped as `x`. `LI` does not spike: its first value is that
    potential. `parameters` gives tensors in place of the neuron's own numbers, under the names `alpha, beta, rho,
    kappa, theta`; gradients flow to them, to `x` and to `state`.

    Half precision in: spikes in the same type, state and potentials in single precision. On the CPU, and on a GPU
    where Triton is installed, the loop is compiled; elsewhere, and within `use_backend("reference")`, it is the torch
    reference. All spike alike, bit for bit.
    """
    _check_input(neuron, x)
    check_surrogate(surrogate)
    check_flag("simulate: potentials", potentials)
    x = x.resolve_neg()  # a view that negates: kernels read memory as it is
    y = x if x.dtype in (torch.float32, torch.float64) else x.float()
    constants = Constants.of(neuron)
    values = parameters_of(neuron, y, parameters or {})
    first = first_state(neuron, y, state, constants)
    channels_last = lies_channels_last(y)
    if channels_last:  # neurons do not care about their order: as they lie in memory, nothing is copied
        y, first, values = y.permute(LAST), permuted(first, LAST), permuted(values, LAST)
    if _chosen[-1] == "reference" or not is_compiled(x) or is_transformed():
        spikes, v, last = simulate_reference(y, first, values, constants, surrogate)
    else:
        graded = torch.is_grad_enabled() and any(part.requires_grad for part in (y, *first, *values))
        # the adjoint needs i where alpha learns, and where a reset that clears it is differentiated
        saves_current = graded and (
            (constants.current and values[0].requires_grad)
            or (constants.reset == "zero_all" and not constants.detach)
        )  # fmt: skip
        record = graded or potentials or not constants.spiking
        # a function where nothing is differentiated or traced: an operator's first call loads torch's compiler
        alone = not graded and type(y) is Tensor and not torch.compiler.is_compiling() and not is_watched()
        run: Callable = run_neuron if alone else compiled_neuron
        spikes, v, _, _, *last = run(
            y, *first, *values,
            constants.current, constants.adapts, constants.spiking, constants.reset, constants.detach,
            surrogate.shape, float(surrogate.slope), surrogate.per, record, saves_current,
        )  # fmt: skip
    if channels_last:
        (spikes, v), last = permuted((spikes, v), FIRST), permuted(last, FIRST)
    after = state_of(last, constants)
    out = (spikes if constants.spiking else v).to(x.dtype)
    return (out, after, v) if potentials else (out, after)


def lies_channels_last(x: Tensor) -> bool:
    """Whether the images of `x` `[time, batch, channels, height, width]` lie channels last in memory."""
    return x.dim() == 5 and not x.is_contiguous() and x.permute(LAST).is_contiguous()


def permuted(tensors: Sequence[Tensor], order: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Tensors `[time, batch, ...]` with their axes in another order; of those for one step, and scalars, likewise."""
    one_step = tuple(axis - 1 for axis in order[1:])
    return tuple(
        tensor if tensor.dim() < 4 else tensor.permute(order if tensor.dim() == 5 else one_step) for tensor in tensors
    )


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


def rest(neuron: Neuron, shape: tuple[int, ...], *, like: Tensor) -> State:
    """The state of silence, `shape` = `[batch, *neurons]`, in the type and on the device of `like`."""
    constants = Constants.of(neuron)
    if not isinstance(like, Tensor) or not like.is_floating_point():
        found = like.dtype if isinstance(like, Tensor) else shown(like)
        raise SnnError(f"rest: like should be a tensor of floats, found {found}.")
    try:
        zero = like.new_zeros(shape)
    except (TypeError, RuntimeError):
        raise SnnError(f"rest: shape should be (batch, *neurons), as (8, 50), found {shown(shape)}.") from None
    return State(
        v=zero,
        s=zero if constants.spiking else None,
        i=zero if constants.current else None,
        a=zero if constants.adapts else None,
    )


def _check_input(neuron: Neuron, x: Tensor) -> None:
    check_neuron(neuron)
    name = type(neuron).__name__
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise SnnError(f"{name}: input should be a tensor of floats, found {found}. Use x.float().")
    if x.layout is not torch.strided:
        raise SnnError(f"{name}: input should be an ordinary tensor, found {x.layout}. Use x.to_dense().")
    if x.dim() < 2 or x.shape[0] == 0:
        raise SnnError(f"{name}: input should be [time, batch, ...] with a step at least, found {list(x.shape)}.")


def parameters_of(neuron: Neuron, x: Tensor, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The five coefficients, all scalars or all shaped as one step of `x`."""
    if not isinstance(given, Mapping):
        raise SnnError(
            f"simulate: parameters should be a tensor under each name, as {{'beta': ...}}, found {shown(given)}."
        )
    unknown = [name for name in given if name not in COEFFICIENTS]
    if unknown:
        raise SnnError(f"simulate: parameter {unknown[0]!r} is not known. Known: {', '.join(COEFFICIENTS)}.")
    idle = {"alpha": not has_current(neuron), "theta": not is_spiking(neuron)}
    idle |= dict.fromkeys(("rho", "kappa"), not has_adaptation(neuron))
    for name in given:
        if idle.get(name):
            raise SnnError(f"simulate: {neuron} has no {name}, so the parameter would change nothing. Leave it out.")
    values = {**coefficients(neuron), **given}
    tensors = [
        as_parameter(f"{type(neuron).__name__}: {name}", values[name], x) if name in given
        else torch.as_tensor(values[name], dtype=x.dtype, device=x.device)
        for name in COEFFICIENTS
    ]  # fmt: skip
    if all(tensor.dim() == 0 for tensor in tensors):
        return tuple(tensors)
    shape = x.shape[1:]
    for name, tensor in zip(COEFFICIENTS, tensors, strict=True):
        if tensor.dim() > len(shape) - 1 or any(
            have not in (1, want) for have, want in zip(reversed(tensor.shape), reversed(shape), strict=False)
        ):
            raise SnnError(
                f"{type(neuron).__name__}: {name} has the shape {list(tensor.shape)}, the layer's neurons have "
                f"{list(shape[1:])}. Give one number, or one for each neuron."
            )
    return tuple(tensor.expand(shape) for tensor in tensors)


def state_of(parts: Sequence[Tensor], constants: Constants) -> State:
    """The state from its parts i, a, v, s, without those that the neuron lacks."""
    i, a, v, s = parts
    return State(
        v=v,
        s=s if constants.spiking else None,
        i=i if constants.current else None,
        a=a if constants.adapts else None,
    )


def first_state(neuron: Neuron, x: Tensor, state: State | None, constants: Constants) -> tuple[Tensor, ...]:
    """The parts i, a, v, s of the state before the first step; zeros for what the neuron lacks."""
    zero = x.new_zeros(x.shape[1:])
    if state is None:
        return zero, zero, zero, zero
    needed = {"i": constants.current, "a": constants.adapts, "v": True, "s": constants.spiking}
    if not isinstance(state, State):
        raise SnnError(
            f"{type(neuron).__name__}: the state should be a State, as simulate returns it, found {shown(state)}. None "
            "starts from rest."
        )
    return tuple(
        as_part(f"{type(neuron).__name__}: state.{name}", getattr(state, name), x) if need else zero
        for name, need in needed.items()
    )
