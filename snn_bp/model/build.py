"""The torch modules of a model: each value builds its own, for the shape that comes to it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from snn_bp.errors import SnnError, check_choice
from snn_bp.model.joints import COMBINES
from snn_bp.model.layers import Recurrent, Spiking
from snn_bp.model.modules import Joint, Shape
from snn_bp.model.names import name_of
from snn_bp.neurons import Neuron
from snn_bp.surrogates import Surrogate


def build_row(
    model: Sequence[Any], shape: Shape, surrogate: Surrogate, path: tuple[int, ...] = ()
) -> tuple[list[nn.Module], list[Shape]]:
    """The modules of layers one after the other, and the shape of one step behind each."""
    row, shapes = [], []
    for index, value in enumerate(model):
        try:
            layer, after = _build(value, shape, surrogate, (*path, index))
        except (SnnError, RuntimeError, AttributeError, TypeError, IndexError) as cause:
            if str(cause).startswith("Network: "):
                raise  # a layer within a joint has said it
            name = name_of((*path, index), value)
            raise SnnError(f"Network: {name}, on an input of {list(shape)}: {cause}") from cause
        row.append(layer)
        shapes.append(shape := after)
    return row, shapes


def _build(value: Any, shape: Shape, surrogate: Surrogate, path: tuple[int, ...]) -> tuple[nn.Module, Shape]:
    if hasattr(value, "branches"):
        return _joint(value, shape, surrogate, path)
    if isinstance(value, Neuron):
        value = Spiking(value)
    if isinstance(value, Spiking | Recurrent):
        return value.build(shape, surrogate), shape
    layer = value.build(shape)
    if hasattr(value, "after"):
        return layer, value.after(shape)
    training = layer.training
    with torch.no_grad():
        out = layer.eval()(torch.zeros(1, *shape))  # the module knows its output's shape
    layer.train(training)
    return layer, tuple(out.shape[1:])


def _joint(value: Any, shape: Shape, surrogate: Surrogate, path: tuple[int, ...]) -> tuple[Joint, Shape]:
    """The joint of a value that has `branches()`, a row of layers each, and `combine`: its own, or a name of ours."""
    rows = [build_row(row, shape, surrogate, (*path, n)) for n, row in enumerate(value.branches())]
    combine, kind = value.combine, None
    if isinstance(combine, str):
        check_choice("combine", combine, COMBINES)
        combine, kind = COMBINES[combine], combine
    out = combine([torch.zeros(1, 1, *(shapes[-1] if shapes else shape)) for _, shapes in rows])
    return Joint([row for row, _ in rows], [shapes for _, shapes in rows], combine, kind), tuple(out.shape[2:])
