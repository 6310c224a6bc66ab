"""`Graph`: the integers of a chip or circuit, neutral between file formats: a chain of populations of neurons.

The arithmetic is one of `kernels/fixed.py`. Decays are 4096ths; biases and thresholds are in steps of a weight where
the arithmetic is Loihi's, as in a netx file, else in those of a state.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np

from snn_bp.errors import SnnError
from snn_bp.kernels.fixed import LOIHI, Arithmetic
from snn_bp.neurons.leaky import Reset

Pair: TypeAlias = tuple[int, int]
Shape: TypeAlias = tuple[int, ...]

DECAY_ONE = 4096  # a decay of this leaves nothing
BIAS_LOW, BIAS_HIGH = -4096, 4095
THRESHOLD_HIGH, DELAY_HIGH = 131071, 62


@dataclass(frozen=True, eq=False, kw_only=True)
class Population:
    """Neurons of one kind with the synapses into them; every array holds integers (int64).

    Numbers that say the same are kept in one form: a threshold or decay equal in all neurons as an int, a delay in the
    smallest shape that says it (`[1, in]` where two do), and a readout has the threshold 131071, which Loihi uses.

    `weight` is `[out, in]`, or `[out, in / groups, height, width]` of a convolution, which has a `stride`. A spike sent
    at step t arrives at t + `synapse_steps` of the arithmetic + `delay`, a recurrent one at t + 1. A dense layer behind
    an image takes it in the order channel, row, column.
    """

    shape: tuple[int, ...]  # (n,), or (channels, height, width) of the neurons
    weight: np.ndarray
    bias: np.ndarray | None = None  # [n] or [channels]: added to the membrane in every step, from the first on
    recurrent: np.ndarray | None = None  # [n, n]: from neuron to neuron, delay 0; dense only
    delay: np.ndarray | None = None  # [1, in] of each input, [out, 1] of each neuron, or [out, in]; dense only
    stride: Pair | None = None  # (height, width) of a convolution; None: dense
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    current_decay: int | np.ndarray = DECAY_ONE  # 4096: no synaptic current is held; an array has one for each neuron
    voltage_decay: int | np.ndarray = DECAY_ONE  # ... of a dense population, or for each channel of a convolution
    threshold: int | np.ndarray = 1  # a neuron fires strictly above it
    reset: Reset = "zero"
    readout: bool = False  # its output is the membrane potential; it has the highest threshold there is

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, field.name, _integers(field.name, value))
        if self.readout:
            object.__setattr__(self, "threshold", THRESHOLD_HIGH)
        for name in ("current_decay", "voltage_decay", "threshold"):
            object.__setattr__(self, name, _one_for_all(getattr(self, name)))
        if self.delay is not None and self.delay.ndim == 2:
            object.__setattr__(self, "delay", _shortest(self.delay, self.weight.shape[1]))

    @property
    def kind(self) -> Literal["dense", "conv"]:
        """Which kind of synapses it has."""
        return "dense" if self.stride is None else "conv"

    @property
    def size(self) -> int:
        """How many neurons."""
        return int(np.prod(self.shape))


@dataclass(frozen=True, eq=False, kw_only=True)
class Graph:
    """A chain of populations behind an input of `input_shape`: (n,), or (channels, height, width).

    `input_bits` = 0: the input is spikes, 1 or 0; 8: counts of events in 0..255 that multiply the weights (graded
    spikes). The output is that of the last population, one row for each step. `cleared`: the registers of population n
    are emptied at row n + 1, in which the input reaches it, and again with every further recording (lava's
    `reset_interval` with `reset_offset=1`), so nothing is left in them of what was before. Spikes that are under way
    (delays, recurrence) are not cleared: they need a `pause`, steps without input between two recordings.

    That is Loihi, where a synapse takes a step. In another arithmetic it takes none: row t of each population is the
    step in which the input of row t reaches it, and between recordings everything is emptied, spikes under way too.
    """

    input_shape: tuple[int, ...]
    populations: tuple[Population, ...]
    input_bits: int = 0
    cleared: bool = False
    pause: int = 0
    arithmetic: Arithmetic = LOIHI
    scale: float | None = None  # how many steps of a weight a readout's potential of 1 in the network is, where known

    @property
    def latency(self) -> int:
        """Steps from an input to the first output it can cause: on Loihi one for each population, else none."""
        return len(self.populations) * self.arithmetic.synapse_steps


def same(first: Graph, second: Graph) -> str | None:
    """None where two graphs hold the same numbers, else where they first differ, in words."""
    for name in ("input_shape", "input_bits", "cleared", "arithmetic"):
        if getattr(first, name) != getattr(second, name):
            return f"{name}: {getattr(first, name)} and {getattr(second, name)}"
    if len(first.populations) != len(second.populations):
        return f"{len(first.populations)} populations and {len(second.populations)}"
    for index, (one, other) in enumerate(zip(first.populations, second.populations, strict=True)):
        for field in fields(Population):
            mine, yours = getattr(one, field.name), getattr(other, field.name)
            if (mine is None) != (yours is None) or (mine is not None and not np.array_equal(mine, yours)):
                return f"population {index}, {field.name}{_first_difference(mine, yours)}"
    return None


def _first_difference(mine: Any, yours: Any) -> str:
    """Where two values first differ, in words."""
    if not (isinstance(mine, np.ndarray) and isinstance(yours, np.ndarray)):
        return f": {mine} and {yours}" if np.ndim(mine) == np.ndim(yours) == 0 else ": one number, and one for each"
    if mine.shape != yours.shape:
        return f": shapes {list(mine.shape)} and {list(yours.shape)}"
    differing = np.argwhere(mine != yours)
    where = tuple(differing[0].tolist())
    return f" {list(where)}: {mine[where]} and {yours[where]} ({len(differing)} of {mine.size} differ)"


def _integers(name: str, values: np.ndarray) -> np.ndarray:
    """The values as int64; refused where one is no integer."""
    if values.dtype.kind not in "iuf" or not np.array_equal(values, np.trunc(values)):
        raise SnnError(f"{name}: a graph holds integers, found {values.dtype} {values.ravel()[:3]}. Round them first.")
    return values.astype(np.int64)


def _one_for_all(values: int | np.ndarray) -> int | np.ndarray:
    """The one number that all values are, else the values."""
    flat = np.ravel(values)
    return int(flat[0]) if flat.size and (flat == flat[0]).all() else values


def _shortest(delay: np.ndarray, inputs: int) -> np.ndarray:
    """`[1, in]` where the delay is the same for every neuron, `[out, 1]` where for every input, else as it is."""
    if (delay == delay[:1]).all() and delay.shape[1] in (1, inputs):
        return np.broadcast_to(delay[:1], (1, inputs)).copy()
    return delay[:, :1] if (delay == delay[:, :1]).all() else delay
