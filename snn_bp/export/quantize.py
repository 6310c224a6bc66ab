"""`quantize`: the integers of a trained network, the very ones that its forward pass with `target="loihi"` uses."""

import numpy as np
import torch
from torch import Tensor

from snn_bp.blocks import Block, blocks
from snn_bp.chip import on_grid
from snn_bp.errors import SnnError
from snn_bp.export.graph import DECAY_ONE, Graph, Population
from snn_bp.network import Network
from snn_bp.neurons import has_current, is_spiking


@torch.no_grad()
def quantize(network: Network, *, input_bits: int = 0) -> Graph:
    """The network on the chip's grid, norms by their running statistics; `input_bits=8` where counts come in.

    A network trained in floats is rounded after training. Its biases act no longer than the input, while the chip's act
    from the first step on, before the input reaches the later layers: so registers are cleared when it does.
    """
    populations = []
    for block in blocks(network):
        name = network.name(block.places[-1])
        try:
            populations.append(_population(block, network, place=len(populations)))
        except SnnError as cause:
            raise SnnError(f"export, {name}: {cause}") from cause
    biased = any(population.bias is not None for population in populations)
    return Graph(
        input_shape=network.input_shape,
        populations=tuple(populations),
        input_bits=input_bits,
        cleared=biased and network.target == "float",
    )


def _population(block: Block, network: Network, *, place: int) -> Population:
    grid, neuron, shape = on_grid(block), block.neurons.neuron, block.neurons.shape
    bias, geometry = grid.sum.bias, grid.sum.geometry
    if network.target == "float" and has_current(neuron) and bias is not None and bool((bias != 0).any()):
        raise SnnError(
            "its bias (or norm's shift) passes the synaptic current, on the chip it goes to the membrane. Train with "
            'target="loihi", where it does so too, or without: Dense(..., bias=False) and no BatchNorm.'
        )
    delays = block.delays
    moves = {} if geometry is None else geometry._asdict()
    return Population(
        shape=shape,
        weight=_whole(grid.sum.weight),
        bias=None if bias is None or not bool((bias != 0).any()) else _whole(bias),
        recurrent=None if grid.recurrent is None else _whole(grid.recurrent),
        delay=None if delays is None else delays.steps_now().flatten().cpu().numpy()[None],
        current_decay=_decay(grid.current_kept, shape),
        voltage_decay=_decay(grid.voltage_kept, shape),
        threshold=_each(grid.threshold, shape),
        readout=not is_spiking(neuron),
        **moves,
    )


def _decay(kept: Tensor, shape: tuple[int, ...]) -> int | np.ndarray:
    found = _each(kept, shape)
    return DECAY_ONE - found


def _each(value: Tensor, shape: tuple[int, ...]) -> int | np.ndarray:
    """One number where all are equal, else one for each neuron of a row, or each channel of an image."""
    value = value.detach().cpu()
    if value.numel() == 1 or bool((value == value.flatten()[0]).all()):
        return int(value.flatten()[0])
    value = value.expand(shape)
    if len(shape) == 3:
        if not bool((value == value[:, :1, :1]).all()):
            raise SnnError("each neuron of a map has its own decay or threshold; a file holds one for each channel.")
        value = value[:, 0, 0]
    return _whole(value)


def _whole(values: Tensor) -> np.ndarray:
    return values.detach().cpu().round().to(torch.int64).numpy()
