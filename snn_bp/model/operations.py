"""How many synaptic operations a layer does: an operation is a weight that an input other than zero meets."""

from functools import singledispatch
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.model.blocks import LayerAt, convolve, own_weights
from snn_bp.model.constrained import ConstrainedLinear
from snn_bp.model.exact import has_known_class, why_strange
from snn_bp.model.temporal import CausalConv, DelayedLinear


def why_uncounted(at: LayerAt) -> str | None:
    """Why the operations of a layer are not known, in a sentence about it; None where they are."""
    if at.role in ("weights", "neurons") or has_known_class(at.layer) or not own_weights(at):
        return None
    return why_strange(at.layer)


@singledispatch
def operations(layer: nn.Module, x: Tensor, counted: Tensor | None = None) -> float | None:
    """The operations of a layer of a known class on `x` `[time, batch, ...]`; None where it has no synapses.

    `counted`, shaped as the weights, is True where a weight counts; None: all that exist do.
    """
    return None


def has_synapses(layer: nn.Module) -> bool:
    """Whether `operations` knows those of the layer's class."""
    return operations.dispatch(type(layer)) is not operations.dispatch(object)


def fan_out(layer: Any) -> Tensor | int:
    """How many weights lead on from each input of a dense layer, `[inputs]`, or the one number of all."""
    return layer.fan_out() if hasattr(layer, "fan_out") else layer.out_features


@operations.register
def _dense(layer: nn.Linear, x: Tensor, counted: Tensor | None = None) -> float:
    if counted is None:
        return float(x.count_nonzero()) * layer.out_features  # a sum of truth values would need 8 bytes for each
    return _met(x, counted.sum(0))


@operations.register
def _constrained(layer: ConstrainedLinear, x: Tensor, counted: Tensor | None = None) -> float:
    return _met(x, layer.fan_out() if counted is None else counted.sum(0))


@operations.register(nn.Conv1d)
@operations.register(nn.Conv2d)
def _conv(layer: Any, x: Tensor, counted: Tensor | None = None) -> float:
    active = (x != 0).flatten(0, 1).to(x.dtype)
    if counted is not None:  # in doubles, whose sums of integers are exact
        return float(convolve(layer, active.double(), counted.double().unflatten(0, (layer.groups, -1)).sum(1)).sum())
    met = convolve(layer, active, torch.ones_like(layer.weight[: layer.groups]))
    return float(met.double().sum()) * layer.out_channels / layer.groups


@operations.register(nn.ConvTranspose1d)
@operations.register(nn.ConvTranspose2d)
def _transposed(layer: Any, x: Tensor, counted: Tensor | None = None) -> float:
    function = F.conv_transpose1d if layer.weight.dim() == 3 else F.conv_transpose2d
    every = torch.ones_like(layer.weight, dtype=torch.bool) if counted is None else counted
    active, kernel = (x != 0).flatten(0, 1).double(), every.double().sum(1, keepdim=True)
    return float(function(active, kernel, None, layer.stride, layer.padding, layer.output_padding).sum())


@operations.register(CausalConv)
@operations.register(DelayedLinear)
def _over_time(layer: Any, x: Tensor, counted: Tensor | None = None) -> float:
    return layer.operations(x, counted)


def _met(x: Tensor, leading_on: Tensor | int) -> float:
    """The weights that inputs other than zero meet, of those that lead on from each input."""
    return float(((x != 0).flatten(0, -2).sum(0) * leading_on).sum())
