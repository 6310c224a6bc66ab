"""Layers without state: one call for all time steps, by our kernels where they take exactly what the layer computes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError
from snn_bp.kernels import runs_compiled
from snn_bp.kernels.cpu.pool import max_pool
from snn_bp.kernels.cpu.sparse_ops import convolve, linear, worth_events
from snn_bp.model.exact import runs_here
from snn_bp.model.modules import Delays, DropoutOverTime


def pool_behind(layers: Sequence[nn.Module], place: int, x: Tensor) -> nn.MaxPool2d | None:
    """The max pooling behind the convolution at `place`, where both can run as one."""
    layer, *behind = layers[place : place + 2]
    pool = behind[0] if behind else None
    if type(layer) is not nn.Conv2d or type(pool) is not nn.MaxPool2d or not _by_events(layer, x):
        return None
    return pool if runs_here(pool, _floats(x)) else None


def _by_events(layer: nn.Module, x: Tensor) -> bool:
    """Whether our kernels take the layer's input `x`: the layer is exactly torch's own, and their sizes fit."""
    if type(layer) not in (nn.Linear, nn.Conv2d, nn.MaxPool2d):
        return False
    if not runs_compiled(x) or x.numel() == 0 or not runs_here(layer, _floats(x)):
        return False
    if isinstance(layer, nn.Linear):
        return x.dim() == 3 and x.shape[2] == layer.weight.shape[1]
    if not isinstance(layer, nn.Conv2d):
        return x.dim() == 5
    return x.dim() == 5 and x.shape[2] == layer.weight.shape[1] * layer.groups and len(layer.weight.shape) == 4


def _floats(x: Tensor) -> torch.dtype:
    """The type in which a layer computes on `x`."""
    return x.dtype if x.is_floating_point() else torch.float32


def apply_stateless(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer without state on `[time, batch, ...]`: one call for all steps."""
    if isinstance(layer, Delays | DropoutOverTime):
        return layer(x)
    rows = x.flatten(0, 1)
    if not _by_events(layer, x):
        check_norm(layer, x)
        out = layer(rows)
    elif isinstance(layer, nn.Linear):
        out = linear(rows, layer)
    elif isinstance(layer, nn.Conv2d):
        out = convolve(rows, layer)
    else:
        assert isinstance(layer, nn.MaxPool2d)
        out = max_pool(rows, layer)
    return out.unflatten(0, x.shape[:2])


def check_norm(layer: nn.Module, x: Tensor) -> None:
    """Raise where a batch norm would take the spread of one value."""
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.training and 0 < x.numel() == x.shape[2]:
        raise SnnError(
            f"{type(layer).__name__} in training: each channel has one value in {list(x.shape)}, which has no spread. "
            "Give it more recordings or more steps at once, or network.eval()."
        )


def sums_of(layer: nn.Module, share: float, x: Tensor) -> str:
    """How a layer without state takes an input `x` of which this share is not zero."""
    if not isinstance(layer, nn.Linear | nn.Conv2d) or not _by_events(layer, x):
        return "as it is"
    most = worth_events(layer)
    return f"{'events' if share <= most else 'a product'} (events up to {most:.0%})"
