"""`quantize`: the integers of a trained network, the very ones that the forward pass of `OnChip` uses."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn_bp.chip.arithmetic import Hardware, Target, hardware_of
from snn_bp.chip.folding import folded
from snn_bp.chip.forward import decays_on_grid, on_grid
from snn_bp.chip.graph import DECAY_ONE, Graph, Population
from snn_bp.chip.in_a_row import carried, pause_for
from snn_bp.chip.network import OnChip
from snn_bp.chip.rules import chip_blocks, delays_of, hardware_for, name_of, neurons_of
from snn_bp.errors import SnnError
from snn_bp.kernels.fixed import ONE
from snn_bp.model.blocks import Block
from snn_bp.model.exact import check_whole
from snn_bp.model.network import Network
from snn_bp.neurons import has_current, is_spiking

MANY_LOST = 0.25  # fraction of a layer's weights; some hundredths of evenly spread ones always round to zero


@torch.no_grad()
def quantize(network: Network, *, input_bits: int = 0, target: Target | None = None) -> Graph:
    """The network on the grid, norms by their running statistics; `input_bits=8` where counts come in.

    A network trained in floats is rounded after training, to `target` ("loihi"). Registers are cleared when a recording
    reaches them, and `pause` is what delays and recurrence are known to need between recordings (`in_a_row.py`). Warns
    where a layer loses more than a quarter of its weights to the grid, and where no pause keeps recordings apart.
    """
    check_whole("export", network, Network, OnChip)
    populations, hardware = [], hardware_for(network) if target is None else hardware_of(target)
    if target is not None and network.floats is not network and hardware != hardware_for(network):
        raise SnnError(
            f"export: the network was trained with {hardware_for(network).target}, its integers are those. Leave "
            "target out, or give network.floats."
        )
    found = chip_blocks(network, hardware)
    for block in found:
        try:
            populations.append(_population(block, network, hardware))
        except SnnError as cause:
            raise SnnError(f"export, {name_of(network, block)}: {cause}") from cause
    for lost in lost_weights(network, populations, hardware):
        if lost.is_many:
            warnings.warn(f"export, {lost}", stacklevel=3)
    graph = Graph(
        input_shape=network.input_shape, populations=tuple(populations), input_bits=input_bits, cleared=True,
        arithmetic=hardware.arithmetic,
        scale=float(on_grid(found[-1], hardware=hardware).scale) if populations[-1].readout else None,
    )  # fmt: skip
    for each in carried(graph):
        if each.fires_alone:
            warnings.warn(f"export, {name_of(network, found[each.population])}: {each}", stacklevel=3)
    return replace(graph, pause=pause_for(graph))


def may_fire_alone(network: Network) -> list[str]:
    """In words, which layers could come to fire without input and whose spikes then reach the next recording."""
    said, found = [], chip_blocks(network) if hardware_for(network).arithmetic.synapse_steps else []
    for index, block in enumerate(found):
        behind = any(delays_of(next_block) for next_block in found[index + 1 : index + 2])
        recurrence = neurons_of(block).recurrence
        carries = "its recurrence" if recurrence is not None else "the Delay behind" if behind else None
        shifted = folded(block).bias is not None or (recurrence is not None and recurrence.bias is not None)
        if carries and shifted:
            said.append(
                f"{name_of(network, block)}: a bias or BatchNorm in front can make it fire without input, and "
                f"{carries} would carry that into the next recording, which export refuses. Dense(..., bias=False) "
                "and no BatchNorm in front rule it out."
            )
    return said


@torch.no_grad()
def rounded_decays(network: Network) -> list[str]:
    """In words, which decays a shift makes others, by more than a hundredth."""
    said, hardware = [], hardware_for(network)
    for block in chip_blocks(network) if hardware.arithmetic.decay == "shift" else ():
        for name, asked, kept in decays_on_grid(block, hardware):
            found = kept / ONE
            if bool(((found - asked).abs() > 0.01).any()):
                said.append(
                    f"{name_of(network, block)}: its {name}, {float(asked.mean()):.3g}, becomes "
                    f"{float(found.mean()):.3g} by a shift; Fixed(decay='multiply') keeps it."
                )
    return said


class Lost(NamedTuple):
    """How many weights of a layer round to zero, of those that are not zero before."""

    name: str
    count: int
    of: int
    largest: float  # the weight that sets the grid
    step: float  # between two values of the grid

    def __str__(self) -> str:
        said = f"{self.name}: {self.count:,} of {self.of:,} weights round to 0"
        if not self.is_many:
            return said + "."
        return (
            f"{said}: the largest, {self.largest:.3g}, sets the steps of the grid, {self.step:.2g}. BatchNorm(), "
            "weight decay or training with the target keep outliers away."
        )

    @property
    def is_many(self) -> bool:
        """Whether it is more than evenly spread weights would lose."""
        return self.count > MANY_LOST * self.of


@torch.no_grad()
def lost_weights(network: Network, populations: Sequence[Population], hardware: Hardware | None = None) -> list[Lost]:
    """For each population how many of its weights round to zero, pools and norms folded in."""
    found, hardware = [], hardware or hardware_for(network)
    for block, population in zip(chip_blocks(network, hardware), populations, strict=True):
        weights, recurrence = [(folded(block).weight, population.weight)], neurons_of(block).recurrence
        if recurrence is not None and population.recurrent is not None:
            weights.append((recurrence.weight, population.recurrent))
        before = [(weight.detach().cpu() != 0).numpy() for weight, _ in weights]
        largest = max(float(weight.abs().max()) for weight, _ in weights)
        found.append(
            Lost(
                name=name_of(network, block),
                count=sum(int((was & (held == 0)).sum()) for was, (_, held) in zip(before, weights, strict=True)),
                of=sum(int(was.sum()) for was in before),
                largest=largest,
                step=float(1 / torch.as_tensor(on_grid(block, hardware=hardware).scale).min()),
            )
        )
    return found


def _population(block: Block, network: Network, hardware: Hardware) -> Population:
    grid, neuron, shape = on_grid(block, hardware=hardware), neurons_of(block).neuron, neurons_of(block).shape
    bias, geometry = grid.sum.bias, grid.sum.geometry
    if network.floats is network and has_current(neuron) and bias is not None and bool((bias != 0).any()):
        raise SnnError(
            "its bias (or norm's shift) passes the synaptic current, in integers it goes to the membrane. Train with "
            'target="loihi", where it does so too, or without: Dense(..., bias=False) and no BatchNorm.'
        )
    delays = [each.steps_now().flatten().cpu().numpy() for each in delays_of(block)]
    moves = {} if geometry is None else geometry._asdict()
    return Population(
        shape=shape,
        weight=_integers(grid.sum.weight),
        bias=None if bias is None or not bool((bias != 0).any()) else _integers(bias),
        recurrent=None if grid.recurrent is None else _integers(grid.recurrent),
        delay=np.asarray(sum(delays))[None] if delays else None,  # one behind the other
        current_decay=DECAY_ONE - _each(grid.current_kept, shape),
        voltage_decay=DECAY_ONE - _each(grid.voltage_kept, shape),
        threshold=_each(grid.threshold, shape),
        reset=getattr(neuron, "reset", "zero"),
        readout=not is_spiking(neuron),
        **moves,
    )


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
    return _integers(value)


def _integers(values: Tensor) -> np.ndarray:
    return values.detach().cpu().round().to(torch.int64).numpy()
