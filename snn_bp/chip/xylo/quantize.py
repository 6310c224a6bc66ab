"""`configuration_of`: Xylo's integers of a trained network, the very ones that its forward pass uses."""

import math

import numpy as np
import torch
from torch import Tensor

from snn_bp.chip.rules import neurons_of
from snn_bp.chip.xylo.configuration import Configuration
from snn_bp.chip.xylo.forward import on_grid, shifts_of
from snn_bp.chip.xylo.rules import xylo_blocks
from snn_bp.model.network import Network


@torch.no_grad()
def configuration_of(network: Network, *, step_ms: float) -> Configuration:
    """The network on the chip's grids, norms by their running statistics."""
    found = xylo_blocks(network)
    shifts = shifts_of(network, found)
    grids = [on_grid(network, found, index, shifts) for index in range(len(found))]
    sizes = [math.prod(neurons_of(block).shape) for block in found[:-1]]
    starts = np.cumsum([0, *sizes])
    weights_rec = np.zeros((starts[-1], starts[-1]), np.int64)
    for index, grid in enumerate(grids[:-1]):
        own = slice(starts[index], starts[index + 1])
        if index:
            weights_rec[starts[index - 1] : starts[index], own] = _integers(grid.weight).T >> shifts.recurrent
        if grid.recurrent is not None:
            weights_rec[own, own] = _integers(grid.recurrent).T >> shifts.recurrent
    weights_in = np.zeros((grids[0].weight.shape[1], starts[-1]), np.int64)
    weights_in[:, : sizes[0]] = _integers(grids[0].weight).T >> shifts.input
    weights_out = np.zeros((starts[-1], len(grids[-1].weight)), np.int64)
    weights_out[starts[-2] :] = _integers(grids[-1].weight).T >> shifts.output

    def hidden(tensors: list[Tensor]) -> np.ndarray:
        return np.concatenate([_integers(each) for each in tensors])

    last = grids[-1]
    return Configuration(
        hidden=tuple(sizes), step_ms=step_ms,
        weights_in=weights_in, weights_rec=weights_rec, weights_out=weights_out,
        weight_shift_in=shifts.input, weight_shift_rec=shifts.recurrent, weight_shift_out=shifts.output,
        dash_syn=hidden([grid.dashes[0] for grid in grids[:-1]]),
        dash_mem=hidden([grid.dashes[1] for grid in grids[:-1]]),
        threshold=hidden([grid.threshold for grid in grids[:-1]]),
        bias_hidden=hidden([grid.bias for grid in grids[:-1]]),
        dash_syn_out=_integers(last.dashes[0]), dash_mem_out=_integers(last.dashes[1]),
        threshold_out=_integers(last.threshold), bias_out=_integers(last.bias),
    )  # fmt: skip


def _integers(values: Tensor) -> np.ndarray:
    return values.detach().cpu().round().to(torch.int64).numpy()
