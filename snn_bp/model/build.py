"""The torch modules of a model: each value builds its own, for the shape that comes to it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from snn_bp.errors import SnnError, check_choice
from snn_bp.model.blocks import role_of
from snn_bp.model.joints import COMBINES
from snn_bp.model.layers import Recurrent, Spiking
from snn_bp.model.modules import Joint, Shape
from snn_bp.model.names import name_of
from snn_bp.neurons import Neuron
from snn_bp.runtime.own_lines import own_line
from snn_bp.surrogates import Surrogate


def build_row(
    model: Sequence[Any], shape: Shape, surrogate: Surrogate, path: tuple[int, ...] = ()
) -> tuple[list[nn.Module], list[Shape]]:
    """The modules of layers one after the other, and the shape of one step behind each."""
    row, shapes = [], []
    for index, value in enumerate(model):
        try:
            layer, after = _build(value, shape, surrogate, (*path, index))
        except (SnnError, RuntimeError, AttributeError, TypeError, IndexError, ValueError, AssertionError) as cause:
            if str(cause).startswith("Network: "):
                raise  # a layer within a joint has said it
            name, line = name_of((*path, index), value), own_line(cause)
            told = f"Network: {name}, on an input of {list(shape)}: {cause}"
            raise SnnError(told + f" ({line})" * bool(line)) from cause
        row.append(layer)
        shapes.append(shape := after)
    return row, shapes


def _build(value: Any, shape: Shape, surrogate: Surrogate, path: tuple[int, ...]) -> tuple[nn.Module, Shape]:
    if hasattr(value, "branches") and not isinstance(value, type):
        return _joint(value, shape, surrogate, path)
    if isinstance(value, Neuron):
        value = Spiking(value)
    if isinstance(value, type) or not hasattr(value, "build"):
        raise SnnError(f"it is no layer. {_advice(value)}")
    if isinstance(value, Spiking | Recurrent):
        return value.build(shape, surrogate), shape
    if hasattr(value, "after"):
        return value.build(shape), value.after(shape)
    device = torch.get_default_device()
    with torch.device("cpu"):  # not every module runs on the device "meta"
        layer = value.build(shape)
        after = _shape_behind(layer, shape)
        return layer.to(device), after


def _advice(value: Any) -> str:
    """What to write in place of what is no layer."""
    if isinstance(value, nn.Module | type):
        kind = value if isinstance(value, type) else type(value)
        made = "Module({0}, ...) with what it is made of" if issubclass(kind, nn.Module) else "{0}(...)"
        return f"Write {made.format(kind.__name__)}."
    return "As in (Dense(10), LIF(beta=0.9))."


@torch.no_grad()
def _shape_behind(layer: nn.Module, shape: Shape) -> Shape:
    """The shape of one step behind a layer, which the module itself knows: it is run once, on zeros."""
    training, role = layer.training, role_of(layer)
    layer.eval()
    if role in ("over time", "stateful"):
        out = layer(torch.zeros(2, 3, *shape))
        out = (out[0] if role == "stateful" else out).flatten(0, 1)
    else:
        out = layer(torch.zeros(6, *shape))
    layer.train(training)
    if len(out) != 6:
        raise SnnError(f"its module gives {len(out)} rows for 6 rows of {list(shape)}; each row is for itself.")
    return tuple(out.shape[1:])


def _joint(value: Any, shape: Shape, surrogate: Surrogate, path: tuple[int, ...]) -> tuple[Joint, Shape]:
    """The joint of a value that has `branches()`, a row of layers each, and `combine`: its own, or a name of ours."""
    rows = [build_row(row, shape, surrogate, (*path, n)) for n, row in enumerate(value.branches())]
    combine, kind = value.combine, None
    if isinstance(combine, str):
        check_choice("combine", combine, COMBINES)
        combine, kind = COMBINES[combine], combine
    out = combine([torch.zeros(1, 1, *(shapes[-1] if shapes else shape)) for _, shapes in rows])
    return Joint([row for row, _ in rows], [shapes for _, shapes in rows], combine, kind), tuple(out.shape[2:])
