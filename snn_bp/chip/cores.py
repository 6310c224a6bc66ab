"""What a chip can hold: the limits of Loihi 1 and 2, and how many cores a graph takes at least.

Loihi 1's figures are those of nengo-loihi's hardware description (its authors mark some as to be checked) after Davies
et al. 2018, IEEE Micro; Loihi 2's are Intel's public ones. We found no source for the memory of a Loihi 2 core, so its
cores are counted by neurons alone. Nothing here was tried on silicon.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from snn_bp.chip.graph import BIAS_HIGH, BIAS_LOW, DELAY_HIGH, THRESHOLD_HIGH, Graph, Population
from snn_bp.errors import check_choice


@dataclass(frozen=True)
class Chip:
    """Limits of one chip; None where no source gives one."""

    neurons: int  # in a core
    cores: int
    inputs: int | None = None  # axons into a core
    outputs: int | None = None  # axons out of a core: one for each neuron and core that it reaches
    synapse_bytes: int | None = None  # in a core
    decays: int | None = None  # pairs of decays in a core
    thresholds: int | None = None  # in a core
    graded: bool = True  # whether a spike can carry a number


CHIPS = {
    "loihi1": Chip(
        neurons=1024, cores=128, inputs=4096, outputs=4096, synapse_bytes=128 * 1024, decays=32, thresholds=8,
        graded=False,
    ),
    "loihi2": Chip(neurons=8192, cores=128),
}  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """How a graph lies on a chip; `problems` is empty where nothing known forbids it."""

    chip: str
    cores: tuple[int, ...]  # how many each population takes, at least
    lines: tuple[str, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((*self.lines, *(f"problem: {problem}" for problem in self.problems)))


def placement(graph: Graph, chip: str) -> Placement:
    """What `graph` takes of "loihi1" or "loihi2", and what of it the chip cannot hold."""
    check_choice("chip", chip, CHIPS)
    limits, problems, lines = CHIPS[chip], [], []
    if graph.input_bits and not limits.graded:
        problems.append("The input counts events, its spikes carry no number. Use data.binary=True.")
    shapes = [graph.input_shape, *(population.shape for population in graph.populations)]
    cores, reached = [], 0  # from the last to the first: what a neuron reaches decides how many share a core
    for index, population in reversed(list(enumerate(graph.populations))):
        count, cores_per_input, found = _cores(population, shapes[index], limits)
        if limits.outputs:
            count = max(
                count,
                math.ceil(population.size * (reached + count * (population.recurrent is not None)) / limits.outputs),
            )
        cores.insert(0, count)
        reached = cores_per_input
        problems[:0] = [f"population {index}: {each}" for each in (*found, *_out_of_range(population))]
        synapses = _fan_in(population) * population.size
        line = f"population {index}: {population.size:,} neurons, {synapses:,} synapses of 8 bits, "
        lines.insert(0, line + f"at least {count} core{'s' * (count > 1)}")
    total = sum(cores)
    lines.append(
        f"{total} of {limits.cores} cores of {chip}, at least"
        + " (counted by neurons)" * (limits.synapse_bytes is None)
    )
    if total > limits.cores:
        problems.append(f"{total} cores are needed, a chip has {limits.cores}.")
    return Placement(chip, tuple(cores), tuple(lines), tuple(problems))


def _cores(population: Population, shape: tuple[int, ...], limits: Chip) -> tuple[int, int, list[str]]:
    """The fewest cores that hold a population, how many of them one input reaches, and what cannot be split further."""
    fan_in, problems = _fan_in(population), []

    def fits(neurons: int, inputs: int) -> bool:
        held = limits.synapse_bytes is None or neurons * fan_in <= limits.synapse_bytes
        return held and neurons <= limits.neurons and (limits.inputs is None or inputs <= limits.inputs)

    cuts = list(_cuts(population, shape))
    parts, cores_per_input, *_ = next((cut for cut in cuts if fits(*cut[2:])), cuts[-1])
    if not fits(*cuts[-1][2:]):
        problems.append(
            f"one neuron alone has {cuts[-1][3]:,} inputs and {fan_in:,} synapses, a core holds {limits.inputs} and "
            f"{limits.synapse_bytes}. Use fewer inputs: a Pool, a stride, data.downsample."
        )
    for name, most in (("decay", limits.decays), ("threshold", limits.thresholds)):
        values = [population.threshold] if name == "threshold" else [population.current_decay, population.voltage_decay]
        kinds = len(np.unique(np.stack(np.broadcast_arrays(*map(np.atleast_1d, values))), axis=1).T)
        if most and kinds > most:
            problems.append(f"{kinds} different {name}s, a core holds {most}. Do not learn them for each neuron.")
    return parts, cores_per_input, problems


def _cuts(population: Population, shape: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Ways to cut a population over cores, the coarsest first.

    Each is how many cores, how many of them one input reaches, neurons of one core, inputs of one core.
    """
    size, recurrent = population.size, population.recurrent is not None
    if population.kind == "dense":
        inputs = int(np.prod(shape)) + (size if recurrent else 0)
        for neurons in sorted({math.ceil(size / parts) for parts in range(1, size + 1)}, reverse=True):
            yield math.ceil(size / neurons), math.ceil(size / neurons), neurons, inputs
        return
    channels, height, width = population.shape
    assert population.stride is not None
    reach = (population.weight.shape[2] - 1) * population.dilation[0] + 1
    for rows in range(height, 0, -1):
        for maps in range(channels, 0, -1):
            seen = min(shape[1], (rows - 1) * population.stride[0] + reach)
            groups = math.ceil(maps * population.groups / channels)
            inputs = groups * shape[0] // population.groups * seen * shape[2]
            strips, sets = math.ceil(height / rows), math.ceil(channels / maps)
            cores_per_input = min(strips, math.ceil((reach - 1) / (rows * population.stride[0])) + 1) * math.ceil(
                sets / population.groups
            )
            yield strips * sets, cores_per_input, rows * maps * width, inputs


def _fan_in(population: Population) -> int:
    own = population.size if population.recurrent is not None else 0
    return int(np.prod(population.weight.shape[1:])) + own


def _out_of_range(population: Population) -> list[str]:
    """Numbers beyond what a register holds."""
    found = []
    if np.min(population.current_decay) < 1:
        found.append("current_decay 0: the chip adds 1 to the register, which holds no -1. Use alpha below 1.")
    for name, low, high in (("bias", BIAS_LOW, BIAS_HIGH), ("threshold", 1, THRESHOLD_HIGH), ("delay", 0, DELAY_HIGH)):
        values = getattr(population, name)
        if values is not None and (np.min(values) < low or np.max(values) > high):
            found.append(f"{name} {np.min(values)}..{np.max(values)}, the register holds {low}..{high}.")
    return found
