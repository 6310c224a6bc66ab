"""What a caller hands to `simulate` beside its input: tensors for a neuron's parameters, and a state."""

from typing import Any

import torch
from torch import Tensor

from snn_bp.errors import SnnError, is_number, shown


def as_parameter(what: str, value: Any, x: Tensor) -> Tensor:
    """A value given in place of a neuron's own number, in the type of `x`; only plain numbers are checked for NaN."""
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


def as_part(what: str, part: Any, x: Tensor) -> Tensor:
    """A part of a state `[batch, ...]`, in the type of `x` `[time, batch, ...]`."""
    if part is None or (isinstance(part, Tensor) and part.shape != x.shape[1:]):
        found = "nothing" if part is None else list(part.shape)
        raise SnnError(
            f"{what} should have the shape {list(x.shape[1:])} of one step of the input, found {found}. None starts "
            "from rest."
        )
    if not isinstance(part, Tensor):
        raise SnnError(f"{what} should be a tensor, found {shown(part)}. None starts from rest.")
    return _like(part, x, what).to(x.dtype)


def _like(tensor: Tensor, x: Tensor, what: str) -> Tensor:
    """The tensor, with its values as they stand in memory; raises where it holds none that `x` could be added to."""
    if tensor.is_complex() or tensor.layout is not torch.strided:
        found = tensor.dtype if tensor.is_complex() else tensor.layout
        raise SnnError(f"{what} should be an ordinary tensor of numbers, found {found}.")
    if tensor.device != x.device and (tensor.dim() or tensor.is_meta):
        raise SnnError(f"{what} is on {tensor.device}, the input on {x.device}. Use .to({str(x.device)!r}).")
    return tensor.resolve_neg()
