"""What a network takes, checked where it enters: the input of every step, and the states of its neurons."""

from typing import Any

import torch
from torch import Tensor

from snn_bp.errors import SnnError, shown
from snn_bp.neurons import State

WIDER = {torch.float64: "double", torch.float16: "half", torch.bfloat16: "bfloat16"}


def check_input(x: Any, shape: tuple[int, ...], weight: Tensor | None) -> None:
    """Raise unless `x` is `[time, batch, *shape]`, in floats as wide as the weight and on its device, or in bytes."""
    if not isinstance(x, Tensor):
        raise SnnError(
            f"network: input should be a torch tensor, found {type(x).__module__}.{type(x).__qualname__}. Use "
            "torch.as_tensor(x)."
        )
    if x.layout is not torch.strided:
        raise SnnError(f"network: input should be an ordinary tensor, found {x.layout}. Use x.to_dense().")
    if x.dim() < 2 or tuple(x.shape[2:]) != shape:
        raise SnnError(
            f"network: input should be [time, batch, {', '.join(map(str, shape))}], found {list(x.shape)}. "
            "Loaders give time first."
        )
    if len(x) == 0:
        raise SnnError(f"network: input should have a time step at least, found {list(x.shape)}.")
    if x.is_meta or (weight is not None and weight.device != x.device):
        _refuse_device(x, weight)
    if x.dtype in (torch.uint8, torch.bool):
        return
    if not x.is_floating_point():
        raise SnnError(f"network: input should be a tensor of floats, or of bytes, found {x.dtype}. Use x.float().")
    dtype = x.dtype if weight is None else weight.dtype
    cast = torch.is_autocast_enabled(x.device.type) and torch.float64 not in (x.dtype, dtype)
    if x.dtype != dtype and dtype.is_floating_point and not cast:
        raise SnnError(
            f"network: input is {x.dtype}, the weights are {dtype}. Use x.to({dtype}), or "
            f"network.{WIDER.get(x.dtype, 'float')}() for weights as wide as the input."
        )


def _refuse_device(x: Tensor, weight: Tensor | None) -> None:
    if x.is_meta:
        raise SnnError("network: input is on the device meta, which holds no numbers. Give a tensor of the CPU or GPU.")
    assert weight is not None
    to = "network.to_empty(device='cpu') and load its weights" if weight.is_meta else f"x.to({str(weight.device)!r})"
    raise SnnError(f"network: input is on {x.device}, the weights are on {weight.device}. Use {to}.")


def check_states(state: Any, count: int) -> None:
    """Raise unless `state` has a part for each of `count` layers with state."""
    if not isinstance(state, tuple | list) or isinstance(state, State):
        raise SnnError(
            f"network.run: the state should be a tuple of a State for each layer of neurons, found {shown(state)}. "
            "None starts from rest."
        )
    if len(state) != count:
        raise SnnError(f"network.run: the state should have {count} parts, found {len(state)}. None starts from rest.")
