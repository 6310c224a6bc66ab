"""What hardware can hold of a network: a rule for each role that a layer can have; where there is none, a refusal."""

from collections.abc import Callable

from torch import nn

from snn_bp.chip.arithmetic import FOR_LOIHI, Hardware
from snn_bp.errors import SnnError
from snn_bp.model.blocks import Block, LayerAt, Layers, Role, blocks
from snn_bp.model.exact import check_exact
from snn_bp.model.modules import Delays, Neurons
from snn_bp.neurons import IF, LI, LIF, CubaLIF, is_leaky, is_spiking

NEURONS = (IF, LIF, CubaLIF, LI)  # the neurons that there are in integers; a subclass is another neuron
NO_MAXIMUM = "a maximum cannot be a weighted sum. Use Pool(2, kind='sum') or a Conv with a stride."
IMAGES_ONLY = "the file has convolutions and pools of images only. Use Dense on a row of channels."
KNOWN = "Known: Dense, Conv, Pool(kind='sum' or 'average'), BatchNorm, Flatten, Dropout, Delay and neurons."
REFUSED = {
    nn.MaxPool1d: NO_MAXIMUM,
    nn.MaxPool2d: NO_MAXIMUM,
    nn.Conv1d: IMAGES_ONLY,
    nn.AvgPool1d: IMAGES_ONLY,
}


def chip_blocks(network: Layers, hardware: Hardware | None = None) -> list[Block]:
    """The blocks of a network, neurons at the end of each; raises where a layer has no place on the hardware.

    Without one it is that of an `OnChip`, and Loihi for a network in floats.
    """
    hardware = hardware or hardware_for(network)
    where = hardware.where
    found = blocks(network, where)
    if found[-1].neurons is None:
        _check_behind(network, where, found.pop(), first=not found)
    for block in found:
        if not is_spiking(neurons_of(block).neuron) and block.indexes[-1] != len(network.layers) - 1:
            raise SnnError(
                f"{where}, {name_of(network, block)}: it sends potentials, not spikes; only the last "
                "layer can be read out. Use LIF here."
            )
        for part in block.parts:
            check_exact(where, network.name(part.index), part.layer)
            if part.role not in RULES:
                raise SnnError(f"{where}, {network.name(part.index)}: in integers there is nothing like it. {KNOWN}")
            if why := RULES[part.role](hardware, block, part):
                raise SnnError(f"{where}, {name_of(network, block)}: {why}")
    return found


def hardware_for(network: Layers) -> Hardware:
    """What a network is made for: that of an `OnChip`; Loihi of one in floats."""
    hardware = getattr(network, "hardware", FOR_LOIHI)
    if not isinstance(hardware, Hardware):
        raise SnnError(
            f"{hardware.where}: the network is in that chip's integers, no other format holds them. Use a .xylo file."
        )
    return hardware


def neurons_of(block: Block) -> Neurons:
    """The neurons at the end of a block, which every block in integers has."""
    assert block.neurons is not None
    return block.neurons


def name_of(network: Layers, block: Block) -> str:
    """What a message calls a block: by its neurons."""
    return network.name(block.indexes[-1])


def delays_of(block: Block) -> list[Delays]:
    """The axonal delays of what comes in, one behind the other; none, as a rule, or one."""
    return [part.layer for part in block.of("delay")]  # type: ignore[misc]


def _check_behind(network: Layers, where: str, behind: Block, *, first: bool) -> None:
    """Behind the last neurons, which send what they send in any shape, there may be a Flatten."""
    for part in behind.parts:
        check_exact(where, network.name(part.index), part.layer)
        if first or part.role != "flatten":
            raise SnnError(
                f"{where}, {network.name(part.index)} has no neurons behind it. End the model with a neuron, as LI or "
                "LIF."
            )


def _neurons(hardware: Hardware, block: Block, part: LayerAt) -> str | None:
    neurons = neurons_of(block)
    neuron, known = neurons.neuron, ", ".join(kind.__name__ for kind in NEURONS)
    if not is_leaky(neuron):
        return f"{type(neuron).__name__} is none of the neurons of the chip: use {known} there, or train.target=float."
    if type(neuron) not in NEURONS:
        return f"in integers a neuron has no adaptation and is no {type(neuron).__name__}. It is one of {known}."
    if (reset := getattr(neuron, "reset", "zero")) not in hardware.resets:
        return (
            f"it resets by {reset!r}, the chip clears the membrane. "
            'Train with reset="zero", or for a circuit with target="fpga".'
        )
    if len(neurons.shape) == 3 and any(raw[0].numel() > 1 for raw in neurons.learned.values()):
        return (
            "each neuron of a map would learn its own decay or threshold, a file holds one for each channel. Use "
            'per="channel".'
        )
    if not block.of("weights", "pool") and block.parts[0].index:  # at the input each neuron has a pixel of its own
        return "no synapses lead to it. Put a Dense or Conv in front."
    return None


def _weights(hardware: Hardware, block: Block, part: LayerAt) -> str | None:
    if type(part.layer) in REFUSED:
        return REFUSED[type(part.layer)]
    padding = getattr(part.layer, "padding", 0)
    if isinstance(padding, str) or getattr(part.layer, "padding_mode", "zeros") != "zeros":
        return f"its Conv has padding={padding!r}; use a number of rows, filled with zeros."
    if len(block.of("weights")) > 1:
        return "two weighted sums in a row. Put a neuron, as LIF, between them, or leave one out."
    return None


def _pool(hardware: Hardware, block: Block, part: LayerAt) -> str | None:
    return REFUSED.get(type(part.layer)) or (None if len(part.before) == 3 else IMAGES_ONLY)


def _norm(hardware: Hardware, block: Block, part: LayerAt) -> str | None:
    if not is_behind_weights(block, part):
        return "a BatchNorm stands behind a Dense or Conv, into whose weights it folds."
    return None


def _flatten(hardware: Hardware, block: Block, part: LayerAt) -> str | None:
    if is_behind_weights(block, part) and len(part.before) != len(part.after):
        return "a Flatten between a Conv and its neurons; put it behind the neurons."
    return None


def _dropout(hardware: Hardware, block: Block, part: LayerAt) -> str | None:
    if is_behind_weights(block, part):
        return "a Dropout of weighted sums; put it in front of the Dense or Conv, where it silences inputs."
    return None


def _delay(hardware: Hardware, block: Block, part: LayerAt) -> str | None:
    if hardware == FOR_LOIHI and neurons_of(block).recurrence is not None:
        return "lava would delay the recurrence too. Put the Delay in front of a layer that is not recurrent."
    if not any(len(weights.after) == 1 for weights in block.of("weights")):
        return "a Delay stands in front of a Dense; leave out that of a convolution or pool."
    longest = sum(delays.longest() for delays in delays_of(block))
    if longest > (most := hardware.longest_delay):
        return f"its delays reach {longest} steps, at most {most} are held. Use Delay(..., max_steps={most})."
    if any(other.index < part.index or len(other.after) > 1 for other in block.of("weights", "pool")):
        return "a Delay stands right behind neurons (or the input), in front of a Dense; a convolution has none."
    return None


def is_behind_weights(block: Block, layer: LayerAt) -> bool:
    """Whether weights of the block stand in front of one of its layers."""
    return any(weights.index < layer.index for weights in block.of("weights"))


RULES: dict[Role, Callable[[Hardware, Block, LayerAt], str | None]] = {
    "neurons": _neurons, "weights": _weights, "pool": _pool, "norm": _norm, "flatten": _flatten, "dropout": _dropout,
    "delay": _delay,
}  # fmt: skip
