"""What a caller hands to `simulate`, checked: the input, coefficients in place of the neuron's own, and a state."""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from snn_bp.errors import SnnError, is_number, shown
from snn_bp.kernels.around import is_plain, is_readable
from snn_bp.neurons import SYMBOLS, Neuron, State, check_neuron, is_leaky, numbers_of


def check_input(neuron: Neuron, x: Tensor) -> None:
    """Raise unless `neuron` is one of ours and `x` an input that it takes."""
    check_neuron(neuron)
    name = type(neuron).__name__
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        use = "x.float()" if isinstance(x, Tensor) else "torch.as_tensor(x).float()"
        raise SnnError(f"{name}: input should be a tensor of floats, found {found}. Use {use}.")
    if x.layout is not torch.strided:
        raise SnnError(f"{name}: input should be an ordinary tensor, found {x.layout}. Use x.to_dense().")
    if x.dim() < 2 or x.shape[0] == 0:
        raise SnnError(f"{name}: input should be [time, batch, ...] with a step at least, found {list(x.shape)}.")


def parameters_of(neuron: Neuron, x: Tensor, replacements: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of the equation, in its order, all scalars or all shaped as one step of `x`."""
    if not isinstance(replacements, Mapping):
        raise SnnError(
            f"simulate: parameters should be a tensor under each name, as {{'beta': ...}}, found {shown(replacements)}."
        )
    values = numbers_of(neuron)
    known = SYMBOLS if is_leaky(neuron) else values
    unknown = [name for name in replacements if name not in known]
    if unknown:
        raise SnnError(f"simulate: parameter {unknown[0]!r} is not known. Known: {', '.join(known)}.")
    for name in replacements:
        if name not in values:
            raise SnnError(f"simulate: {neuron} has no {name}, so the parameter would change nothing. Leave it out.")
    tensors = {
        name: _parameter(f"{type(neuron).__name__}: {name}", replacements[name], x) if name in replacements
        else number(value, x)
        for name, value in values.items()
    }  # fmt: skip
    if all(tensor.dim() == 0 for tensor in tensors.values()):
        return tensors
    shape = x.shape[1:]
    for name, tensor in tensors.items():
        if tensor.dim() > len(shape) - 1 or any(
            have not in (1, want) for have, want in zip(reversed(tensor.shape), reversed(shape), strict=False)
        ):
            raise SnnError(
                f"{type(neuron).__name__}: {name} has the shape {list(tensor.shape)}, the layer's neurons have "
                f"{list(shape[1:])}. Give one number, or one for each neuron."
            )
    return {name: tensor.expand(shape) for name, tensor in tensors.items()}


def first_state(neuron: Neuron, x: Tensor, state: State | None) -> tuple[Tensor, ...]:
    """The state before the first step, in the order of the equation."""
    names = neuron.equation.full
    if state is None:
        zero = x.new_zeros(x.shape[1:])
        return (zero,) * len(names)
    kind = type(neuron).kind.state_class
    if not isinstance(state, kind):
        raise SnnError(
            f"{type(neuron).__name__}: the state should be a {kind.__name__}, as simulate returns it, found "
            f"{shown(state)}. None starts from rest."
        )
    return tuple(_component(f"{type(neuron).__name__}: state.{name}", getattr(state, name), x) for name in names)


def check_finite(asker: str, x: Tensor, others: Mapping[str, Any] | None = None, after: Iterable[Any] = ()) -> None:
    """Raise where an input, or one of `others` under its name, holds NaN or infinity.

    `after`: states that they led to. What is not finite stays in a potential, which is as large as one step of an
    input: while these are finite the input is not looked at. Nor is it where that would cost more, or change what is
    done: on a GPU, and where something compiles, transforms or watches.
    """
    parts = [part for state in after for name, part in zip(state._fields, state, strict=True) if name != "s"]
    if not is_readable(x) or (parts and all(map(_is_finite, parts))):
        return
    for name, tensor in {"input": x, **(others or {})}.items():
        if not _is_finite(tensor) and not (finite := torch.isfinite(tensor)).all():
            first = int((~finite).flatten(1).any(1).nonzero()[0]) if name == "input" and x.dim() > 1 else None
            where = "" if first is None else f", first at time step {first}"
            raise SnnError(
                f"{asker}: {name} holds NaN or infinity{where}. Leave such recordings out, or use torch.nan_to_num "
                "where 0 is meant."
            )


def _is_finite(tensor: Any) -> bool:
    """Whether something is no tensor of numbers that are not finite; a sum is one pass over memory."""
    real = isinstance(tensor, Tensor) and tensor.is_floating_point()
    return not real or math.isfinite(tensor.detach().sum().item())


def number(value: Any, x: Tensor) -> Tensor:
    """A number, or numbers, as a tensor in the type of `x` and on its device.

    On a GPU a number is copied once and kept: each copy waits for all that runs there.
    """
    if not (x.is_cuda and isinstance(value, int | float) and is_plain(x)):
        return torch.as_tensor(value, dtype=x.dtype, device=x.device)
    if torch.cuda.is_current_stream_capturing():  # nothing can be copied from here, and what is made stays the graph's
        return x.new_full((), value)
    return _kept(float(value), x.dtype, x.device)


@functools.lru_cache(maxsize=4096)
def _kept(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device=device)


def _parameter(what: str, value: Any, x: Tensor) -> Tensor:
    """A value given in place of a neuron's own number, in the type of `x`."""
    if isinstance(value, Tensor):
        return _like(value, x, what).to(x)
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        tensor = torch.empty(0)
    flag = tensor.dtype == torch.bool
    if not (is_number(value) or tensor.dim()) or flag or tensor.is_complex() or not torch.isfinite(tensor).all():
        raise SnnError(f"{what} should be a finite number, or one for each neuron, found {shown(value)}.")
    return tensor.to(x)


def _component(what: str, values: Any, x: Tensor) -> Tensor:
    """A component of a state `[batch, ...]`, in the type of `x` `[time, batch, ...]`."""
    if values is None or (isinstance(values, Tensor) and values.shape != x.shape[1:]):
        found = "nothing" if values is None else list(values.shape)
        raise SnnError(
            f"{what} should have the shape {list(x.shape[1:])} of one step of the input, found {found}. None starts "
            "from rest."
        )
    if not isinstance(values, Tensor):
        raise SnnError(f"{what} should be a tensor, found {shown(values)}. None starts from rest.")
    return _like(values, x, what).to(x.dtype)


def _like(tensor: Tensor, x: Tensor, what: str) -> Tensor:
    """The tensor, with its values as they stand in memory; raises where it holds none that `x` could be added to."""
    if tensor.is_complex() or tensor.layout is not torch.strided:
        found = tensor.dtype if tensor.is_complex() else tensor.layout
        raise SnnError(f"{what} should be an ordinary tensor of numbers, found {found}.")
    if tensor.device != x.device and (tensor.dim() or tensor.is_meta):
        raise SnnError(f"{what} is on {tensor.device}, the input on {x.device}. Use .to({str(x.device)!r}).")
    return tensor.resolve_neg()
