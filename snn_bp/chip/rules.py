"""A network as blocks: neurons with all that lies between them and the neurons before, as a chip has them."""

from typing import Literal, NamedTuple, TypeAlias

from torch import nn

from snn_bp.errors import SnnError
from snn_bp.model.blocks import Layers
from snn_bp.model.exact import check_exact
from snn_bp.model.modules import Delays, DropoutOverTime, Neurons, SumPool
from snn_bp.neurons import IF, LI, LIF, CubaLIF, is_spiking

Target: TypeAlias = Literal["float", "loihi"]
LOIHI = "for Loihi"  # how refusals of the target and of .net files begin
NEURONS = (IF, LIF, CubaLIF, LI)  # that the chip has, by their exact class
PARTS = (
    nn.Linear,
    nn.Conv2d,
    SumPool,
    nn.AvgPool2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.Flatten,
    DropoutOverTime,
    Delays,
)
REFUSED = {  # of the layers we know, those that have no place on it, and what has
    nn.MaxPool1d: "a maximum cannot be a weighted sum. Use Pool(2, kind='sum') or a Conv with a stride.",
    nn.MaxPool2d: "a maximum cannot be a weighted sum. Use Pool(2, kind='sum') or a Conv with a stride.",
    nn.Conv1d: "the file has convolutions and pools of images only. Use Dense on a row of channels.",
    nn.AvgPool1d: "the file has convolutions and pools of images only. Use Dense on a row of channels.",
}


class Block(NamedTuple):
    """Neurons and all that lies between them and the neurons before."""

    places: range  # in the network; the last is the layer of neurons
    parts: tuple[nn.Module, ...]
    layer: Neurons
    shape: tuple[int, ...]  # of the input

    @property
    def neurons(self) -> Neurons:
        """The neurons, recurrent or not."""
        return self.layer

    @property
    def delays(self) -> tuple[Delays, ...]:
        """The axonal delays of what comes in, one behind the other; none, as a rule, or one."""
        return tuple(part for part in self.parts if isinstance(part, Delays))


def blocks(network: Layers) -> list[Block]:
    """The blocks of a `Network`; raises where a layer has no place on the chip, and says what has."""
    found, first, shape = [], 0, network.input_shape
    for place, layer in enumerate(network.layers):
        if isinstance(layer, Neurons):
            parts = tuple(network.layers[first:place])
            block = Block(range(first, place + 1), parts, layer, shape)
            _check(network, block)
            found.append(block)
            first, shape = place + 1, network.shapes[place]
    for place in range(first, len(network.layers)):  # behind the last neurons, which send what they send in any shape
        layer = network.layers[place]
        check_exact(LOIHI, network.name(place), layer)
        if not found or type(layer) is not nn.Flatten:
            raise SnnError(
                f"{LOIHI}, {network.name(place)} has no neurons behind it. End the model with a neuron, as LI or LIF."
            )
    return found


def check_surrogates(network: Layers, blocks: list[Block]) -> None:
    """Raise where a gradient on the chip would be in other units than the forward pass."""
    for block in blocks:
        if block.neurons.surrogate.per != "threshold":
            raise SnnError(
                f"{LOIHI}, {network.name(block.places[-1])}: its surrogate counts the slope in units of the potential, "
                "which the grid rescales. Use per='threshold'."
            )


def _check(network: Layers, block: Block) -> None:
    """Raise where a block cannot be on the chip, naming the layer and what can."""
    name, neuron = network.name(block.places[-1]), block.neurons.neuron
    reset = getattr(neuron, "reset", "zero")
    check_exact(LOIHI, name, block.layer)

    def refuse(why: str) -> SnnError:
        return SnnError(f"{LOIHI}, {name}: {why}")

    if type(neuron) not in NEURONS:
        raise refuse(
            f"the chip's neuron has no adaptation and is no {type(neuron).__name__}. It is one of "
            f"{', '.join(kind.__name__ for kind in NEURONS)}."
        )
    if reset != "zero":
        raise refuse(f'it resets by {reset!r}, the chip clears the membrane. Train with reset="zero".')
    if not is_spiking(neuron) and block.places[-1] != len(network.layers) - 1:
        raise refuse(
            "an LI sends potentials, the chip sends spikes; only the last layer can be read out. Use LIF here."
        )
    if len(block.neurons.shape) == 3 and len(block.neurons.learned):
        raise refuse("each neuron of a map would learn its own decay or threshold, a file holds one for each channel.")
    delays = sum(isinstance(part, Delays) for part in block.parts)
    if delays and block.layer.recurrence is not None:
        raise refuse("lava would delay the recurrence too. Put the Delay in front of a layer that is not recurrent.")
    if delays and not any(isinstance(part, nn.Linear) for part in block.parts):
        raise refuse("a Delay stands in front of a Dense; leave out that of a convolution or pool.")
    longest = sum(delay.longest() for delay in block.delays)
    if longest > 62:
        raise refuse(f"its delays reach {longest} steps, the chip holds 62. Use Delay(..., most=62).")
    synapses = norms = pools = 0
    for place, part in zip(block.places, block.parts, strict=False):
        if type(part) in REFUSED:
            raise refuse(REFUSED[type(part)])
        check_exact(LOIHI, network.name(place), part, *PARTS)
        if isinstance(part, SumPool) and len(block.shape) != 3:
            raise refuse(REFUSED[nn.AvgPool1d])
        if isinstance(part, nn.Conv2d) and (isinstance(part.padding, str) or part.padding_mode != "zeros"):
            raise refuse(
                f"{network.name(place)} has padding={part.padding!r}; use a number of rows, filled with zeros."
            )
        if isinstance(part, Delays) and (synapses or pools or any(isinstance(p, nn.Conv2d) for p in block.parts)):
            raise refuse(
                "a Delay stands right behind neurons (or the input), in front of a Dense; a convolution has none."
            )
        if isinstance(part, DropoutOverTime) and synapses:
            raise refuse("a Dropout of weighted sums; put it in front of the Dense or Conv, where it silences inputs.")
        synapses += isinstance(part, nn.Linear | nn.Conv2d)
        norms += isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)
        pools += isinstance(part, SumPool | nn.AvgPool2d)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and not synapses:
            raise refuse("a BatchNorm stands behind a Dense or Conv, into whose weights it folds.")
        if isinstance(part, nn.Flatten) and synapses and len(network.shapes[place]) != len(network.shapes[place - 1]):
            raise refuse("a Flatten between a Conv and its neurons; put it behind the neurons.")
    if synapses > 1:
        raise refuse("two weighted sums in a row; a neuron stands between them, or they are one.")
    if not synapses and not pools and block.places.start:  # at the input each neuron hears its own pixel
        raise refuse("no synapses lead to it. Put a Dense or Conv in front.")
    if not synapses and norms:
        raise refuse("a norm of a Pool alone; put a Conv between them.")
