"""How a graph is laid out in a circuit: words of neurons, memories of weights, and how many bits each number takes.

A word is `lanes` neurons side by side. In an image the channels at one position stand together: the order of neurons is
row, column, channel, and that of a dense row of weights behind it too.
"""

from dataclasses import dataclass
from math import gcd

import numpy as np

from snn_bp.chip.graph import Graph, Population, Shape
from snn_bp.chip.replay import largest_input
from snn_bp.chip.verilog.ranges import Ranges, ranges


@dataclass(frozen=True, eq=False, kw_only=True)
class Memory:
    """A memory that is only read: `words` `[depth, values]`, the first value in the lowest bits."""

    name: str
    words: np.ndarray
    bits: int  # each value takes, two's complement

    @property
    def width(self) -> int:
        """Bits of a word."""
        return self.words.shape[1] * self.bits

    @property
    def address(self) -> int:
        """Bits of an address."""
        return address_bits(len(self.words))


@dataclass(frozen=True, eq=False, kw_only=True)
class Window:
    """Where a spike at each row, or column, of an image reaches: positions of neurons and of the kernel.

    Position `first + n * step` of the neurons sees the spike through `kernel - n * kernel_step` of the kernel.
    """

    count: np.ndarray
    first: np.ndarray
    kernel: np.ndarray
    step: int
    kernel_step: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Layout:
    """One population in the circuit."""

    population: Population
    before: Shape  # shape of what sends to it
    lanes: int
    ranges: Ranges
    weights: Memory  # one word for each input and word of neurons (dense), or each input channel, kernel row and column
    delays: Memory | None  # one for each row of a dense population's weights
    rows: Window | None  # where it is a convolution
    columns: Window | None

    @property
    def channels(self) -> int:
        """Neurons that stand together at one position; all, where they stand in a row."""
        return self.population.shape[0]

    @property
    def channel_words(self) -> int:
        """Words at one position."""
        return -(-self.channels // self.lanes)

    @property
    def words(self) -> int:
        """Words of neurons."""
        return self.channel_words * (self.population.size // self.channels)

    @property
    def slots(self) -> int:
        """Steps for which spikes can be under way, this one included; a power of two."""
        return 1 if self.delays is None else 1 << self.delays.bits

    @property
    def cells(self) -> int:
        """Words of sums."""
        return self.words if self.slots == 1 else self.slots << address_bits(self.words)


def address_bits(count: int) -> int:
    """Bits that tell `count` things apart, 1 at least."""
    return max(1, (count - 1).bit_length())


def signed_bits(low: int, high: int) -> int:
    """Bits of two's complement that hold `low` to `high`."""
    return max(int(high).bit_length(), int(-low - 1).bit_length() if low < 0 else 0) + 1


def layouts(graph: Graph, parallel: int) -> list[Layout]:
    """The populations of a graph, up to `parallel` neurons of each at a time."""
    found, shape, image = [], graph.input_shape, False
    for index, population in enumerate(graph.populations):
        most = largest_input(graph) if index == 0 else 1
        lanes = min(parallel, population.shape[0])
        held = ranges(population, graph.arithmetic, most)
        weight_bits = signed_bits(*_extremes(population))
        rows = columns = delays = None
        if population.kind == "conv":
            words = _conv_words(population, lanes)
            sizes = zip(
                shape[1:],
                population.shape[1:],
                population.weight.shape[2:],
                population.stride or (1, 1),
                population.padding,
                population.dilation,
                strict=True,
            )
            rows, columns = (_window(*each) for each in sizes)
        else:
            weight, delay = population.weight, population.delay
            if image:  # the sender's order
                order = np.arange(int(np.prod(shape))).reshape(shape).transpose(1, 2, 0).ravel()
                weight, delay = weight[:, order], None if delay is None else delay[:, order]
            if population.recurrent is not None:
                weight = np.concatenate([weight, population.recurrent], axis=1)
            words = _in_words(weight.T, lanes)
            if delay is not None and delay.any():
                later = np.zeros((weight.shape[1], 1), np.int64)
                later[: delay.shape[1], 0] = delay[0]
                delays = Memory(name=f"delays_{index}", words=later, bits=int(later.max()).bit_length())
        weights = Memory(name=f"weights_{index}", words=words, bits=weight_bits)
        found.append(
            Layout(
                population=population,
                before=shape,
                lanes=lanes,
                ranges=held,
                weights=weights,
                delays=delays,
                rows=rows,
                columns=columns,
            )
        )
        shape, image = population.shape, len(population.shape) == 3
    return found


def _extremes(population: Population) -> tuple[int, int]:
    """The lowest and the highest weight, 0 among them."""
    matrices = [population.weight] + ([] if population.recurrent is None else [population.recurrent])
    return min(int(each.min(initial=0)) for each in matrices), max(int(each.max(initial=0)) for each in matrices)


def _in_words(rows: np.ndarray, lanes: int) -> np.ndarray:
    """`[rows, neurons]` as `[words, lanes]`, zeros beside the last neurons."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % lanes)))
    return padded.reshape(-1, lanes)


def _conv_words(population: Population, lanes: int) -> np.ndarray:
    """The weights of a convolution in the order input channel, kernel row and column, word of the group's channels."""
    weight, (first, words) = population.weight, group_words(population, lanes)
    out, inputs = len(weight) // population.groups, weight.shape[1]
    held = np.zeros((population.groups, inputs, *weight.shape[2:], words * lanes), np.int64)
    for group, begin in enumerate(first):
        offset = group * out - begin * lanes
        mine = weight[group * out : (group + 1) * out]
        held[group, ..., offset : offset + out] = mine.transpose(1, 2, 3, 0)
    return held.reshape(-1, lanes)


def group_words(population: Population, lanes: int) -> tuple[np.ndarray, int]:
    """The first word of each group's channels, and how many words a group takes at most."""
    out = len(population.weight) // population.groups
    first = np.arange(population.groups) * out // lanes
    last = ((np.arange(population.groups) + 1) * out - 1) // lanes
    words = int((last - first).max()) + 1
    return np.minimum(first, -(-len(population.weight) // lanes) - words), words


def _window(size: int, neurons: int, kernel: int, stride: int, padding: int, dilation: int) -> Window:
    common = gcd(stride, dilation)
    count, first, at = (np.zeros(size, np.int64) for _ in range(3))
    for position in range(size):
        for neuron in range(neurons):
            inside = position + padding - neuron * stride
            if inside >= 0 and inside % dilation == 0 and inside // dilation < kernel:
                if not count[position]:
                    first[position], at[position] = neuron, inside // dilation
                count[position] += 1
    return Window(count=count, first=first, kernel=at, step=dilation // common, kernel_step=stride // common)
