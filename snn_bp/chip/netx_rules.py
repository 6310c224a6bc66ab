"""What a netx file may hold: the numbers that Loihi's synapses and neurons take, and that lava's client runs unchanged.

Read from lava-nc 0.10.0 and lava-dl 0.6.0, and checked with the client. A graph that passes runs there as it stands.
"""

import numpy as np

from snn_bp.chip.graph import BIAS_HIGH, BIAS_LOW, DECAY_ONE, DELAY_HIGH, THRESHOLD_HIGH, Graph, Population, Shape
from snn_bp.errors import SnnError
from snn_bp.kernels.fixed import LOIHI

NEURONS_HIGH = 1 << 24  # in one population: more than any chip has
GEOMETRY_HIGH = 127  # kernel, stride, padding, dilation and groups of a convolution: the client keeps them in 8 bits
PAUSE_HIGH = 1 << 16  # steps between two recordings: more is no way to run a chip
GRID = "Weights are integers in -128..127 or even ones in -256..254; without a negative one, in 0..255."


def check_netx(graph: Graph) -> None:
    """Raise where a netx file cannot hold the graph, or lava's client would not run it as it stands."""
    if graph.arithmetic != LOIHI or any(population.reset != "zero" for population in graph.populations):
        raise SnnError(
            "the graph is not of Loihi's arithmetic and reset, which a netx file is for. Train with "
            "train.target=loihi, or write a folder of Verilog (net.v)."
        )
    if not graph.populations:
        raise SnnError("the graph has no population. Give at least one.")
    if graph.input_bits not in range(9):
        raise SnnError(f"input_bits={graph.input_bits}: 0 for spikes, or up to 8 for counts in 0..255.")
    if not 0 <= graph.pause <= PAUSE_HIGH:
        raise SnnError(f"pause={graph.pause}: steps between two recordings, 0 to {PAUSE_HIGH}.")
    _check_shape("the input", graph.input_shape)
    shape = graph.input_shape
    for index, population in enumerate(graph.populations):
        name = f"population {index}"
        _check_shape(name, population.shape)
        if population.readout and index + 1 < len(graph.populations):
            raise SnnError(f"{name}: only the last population can be a readout.")
        (_check_conv if population.kind == "conv" else _check_dense)(name, population, shape)
        _check_neurons(name, population)
        shape = population.shape


def _check_shape(name: str, shape: Shape) -> None:
    fits = len(shape) in (1, 3) and all(isinstance(size, int) and size > 0 for size in shape)
    if not fits or int(np.prod(shape, dtype=object)) > NEURONS_HIGH:
        raise SnnError(
            f"{name}: its shape is (n,) or (channels, height, width) with up to {NEURONS_HIGH} in all, found {shape}."
        )


def _check_dense(name: str, population: Population, shape: Shape) -> None:
    weight, recurrent, delay = population.weight, population.recurrent, population.delay
    inputs = int(np.prod(shape))
    if len(population.shape) != 1 or weight.shape != (population.size, inputs):
        raise SnnError(
            f"{name}: {inputs} inputs and neurons {population.shape} need weights [{population.size}, {inputs}], "
            f"found {list(weight.shape)}."
        )
    if recurrent is not None:
        if recurrent.shape != (population.size, population.size):
            raise SnnError(f"{name}: recurrent weights are [{population.size}] * 2, found {list(recurrent.shape)}.")
        if delay is not None and delay.any():
            raise SnnError(
                f"{name}: it has delays and recurrence; lava delays the recurrence too. Delay the population before it."
            )
    if delay is not None:
        if delay.shape not in ((1, inputs), (population.size, 1), (population.size, inputs)):
            raise SnnError(f"{name}: delays are [1, in], [out, 1] or [out, in], found {list(delay.shape)}.")
        _check_values(f"{name}: a delay", delay, 0, DELAY_HIGH)
    matrices = [weight] if recurrent is None else [weight, recurrent]
    joint = np.concatenate(matrices, axis=1)
    _check_grid(name, joint)
    for matrix in matrices:
        _check_delivered(name, matrix, joint)


def _check_conv(name: str, population: Population, shape: Shape) -> None:
    weight, groups = population.weight, population.groups
    assert population.stride is not None
    if population.recurrent is not None:
        raise SnnError(f"{name}: a convolution has no recurrence in netx. Put it on a dense population.")
    if population.delay is not None:
        raise SnnError(f"{name}: lava ignores delays on a convolution. Put them on a dense population.")
    sizes = [*weight.shape[2:], *population.stride, *population.dilation, groups]
    fits = all(1 <= size <= GEOMETRY_HIGH for size in sizes) and all(
        0 <= size <= GEOMETRY_HIGH for size in population.padding
    )
    if not fits:
        raise SnnError(
            f"{name}: kernel {weight.shape[2:]}, stride {population.stride}, padding {population.padding}, dilation "
            f"{population.dilation}, groups {groups}: lava keeps each in 8 bits, up to {GEOMETRY_HIGH}. "
            "Split the channels into more populations, or use a smaller kernel."
        )
    out = conv_shape(population, shape)
    if out != population.shape:
        raise SnnError(
            f"{name}: weights {list(weight.shape)} on an input {shape} give neurons {out}, not {population.shape}."
        )
    _check_grid(name, weight)


def conv_shape(population: Population, shape: Shape) -> Shape | None:
    """(channels, height, width) of a convolution's neurons behind `shape`; None where it cannot stand there."""
    weight, groups = population.weight, population.groups
    if len(shape) != 3 or weight.ndim != 4 or shape[0] != weight.shape[1] * groups or len(weight) % groups:
        return None
    assert population.stride is not None
    positions = [
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, padding, dilation in zip(
            shape[1:], weight.shape[2:], population.stride, population.padding, population.dilation, strict=True
        )
    ]
    return (len(weight), *positions) if min(positions) > 0 else None


def _check_neurons(name: str, population: Population) -> None:
    each = population.shape[0]  # neurons of a dense population, channels of a convolution
    for what, values, low, high in (
        ("the current's decay", population.current_decay, 0, DECAY_ONE),
        ("the membrane's decay", population.voltage_decay, 0, DECAY_ONE),
        ("the threshold", population.threshold, 1, THRESHOLD_HIGH),
        ("the bias", population.bias, BIAS_LOW, BIAS_HIGH),
    ):
        if values is None:
            continue
        if np.ndim(values) and np.shape(values) != (each,):
            raise SnnError(f"{name}: {what} has one number or {each}, found {list(np.shape(values))}.")
        _check_values(f"{name}: {what}", np.asarray(values), low, high)


def _check_values(name: str, values: np.ndarray, low: int, high: int) -> None:
    if values.size and not low <= values.min() <= values.max() <= high:
        found = f"{values.min()}..{values.max()}" if values.size > 1 else f"{values.item()}"
        raise SnnError(f"{name} lies in {low}..{high}, found {found}. Quantize with another scale.")


def _check_grid(name: str, weight: np.ndarray) -> None:
    if not weight.any():
        raise SnnError(
            f"{name}: all its weights are 0, which lava cannot load. Leave the population out, or train it more."
        )
    low, high = int(weight.min()), int(weight.max())
    if low >= 0:
        fits = high <= 255
    elif high < 0:
        fits = low >= -255
    else:
        fits = (low >= -128 and high <= 127) or (low >= -256 and high <= 254 and not (weight % 2).any())
    if not fits:
        odd = " with odd ones" if (weight % 2).any() else ""
        raise SnnError(f"{name}: weights in {low}..{high}{odd} are off the chip's 8 bits. {GRID}")


def _check_delivered(name: str, weight: np.ndarray, joint: np.ndarray) -> None:
    """Raise where lava's synapse would hold other weights than the file: it scales by the joint range, then clips.

    It happens where no weight is positive and the lowest is a power of two: scaled it would be -256, which is no
    magnitude of 8 bits.
    """
    low, high = int(joint.min()), int(joint.max())
    mixed = low < 0 <= high
    scales = [127 / high if high else np.inf, -128 / low] if mixed else [255 / high if high > 0 else -256 / low]
    shift = int(np.floor(np.log2(min(scales)))) + mixed
    twos = next(n for n in range(8, -1, -1) if n == 0 or not (joint % 2**n).any())
    signed = bool((weight < 0).any() and (weight > 0).any())
    sign = -1 if (weight < 0).any() and not signed else 1
    dropped = shift + twos + signed - mixed
    scaled = sign * (weight << shift)
    held = (np.clip(scaled, -256 if signed else 0, 255) >> dropped) << dropped
    if not np.array_equal(held, scaled):
        index = tuple(np.argwhere(held != scaled)[0])
        lowest = int(weight[index])
        raise SnnError(
            f"{name}: none of its weights is positive, and lava would hold {sign * int(held[index]) / 2**shift:g} "
            f"in the place of the lowest, {lowest}. Make it {lowest + (2 if lowest < -128 else 1)}."
        )
