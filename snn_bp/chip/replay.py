"""The replay of a graph in integers: every spike, current and potential that the chip or circuit would have.

What arrives at a population in all its steps is one product, exact in floats; the neurons are `kernels/fixed.py`.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn_bp.chip.graph import DECAY_ONE, Graph, Population
from snn_bp.errors import SnnError
from snn_bp.kernels.fixed import Arithmetic, compiled_run

AT_ONCE = 1 << 25  # numbers of one layer that are held at a time: samples are replayed in groups
COLUMNS_AT_ONCE = 1 << 22  # numbers of a convolution's columns
EXACT_IN_FLOAT32 = 1 << 24  # integers up to here; in float64 up to 2**53
LARGEST_SUM = 1 << 24  # beyond, 32-bit registers overflow in Lava's client too, and training in floats is not exact
CONV_RANGE = 1 << 24  # a convolution's sum is two's complement of 24 bits
SUM_LOW, SUM_HIGH = -(1 << 15), (1 << 15) - 1  # what a sum of 16 bits holds; lava's CPU models take larger ones too


class Overflow(NamedTuple):
    """How often the numbers of a population left their registers; the last two are known where they were recorded."""

    sums: int  # on Loihi, those of weights beyond 16 bits: the client goes on with them, a chip may not
    wraps: int = 0  # a current that came in at the other end of its bits, or a convolution's sum
    saturations: int = 0  # a membrane at the end of its bits, or a current that saturates

    def __add__(self, other: "Overflow") -> "Overflow":  # type: ignore[override]
        return Overflow(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True, eq=False)
class Replay:
    """What a graph answered; row r is what happens in step r, lava's step r + 1.

    `out` is `[rows, batch, *shape]` of the last population: spikes (int8), or the potentials (int32) of a readout.
    Where recorded, `spikes`, `potentials` (before reset) and `currents` hold the same of each population.
    """

    out: np.ndarray
    spikes: tuple[np.ndarray, ...] = ()
    potentials: tuple[np.ndarray, ...] = ()
    currents: tuple[np.ndarray, ...] = ()
    overflows: tuple[Overflow, ...] = ()  # one for each population


def simulate(graph: Graph, x: Tensor | np.ndarray, *, record: bool = False, every: int | None = None) -> Replay:
    """The replay of integers `x` `[time, batch, *input_shape]`, from rest, for time + `graph.latency` rows.

    On Loihi input row t arrives at the first population in row t + 1, a spike sent in row r at the next one in row
    r + 1 + delay and back in its own in row r + 1; the bias acts from row 0 on (where the graph is `cleared`, nothing
    is left of what it did before the input arrived). `every`: the input is recordings in a row, one in so many rows,
    and a graph that is `cleared` is so for each of them (`in_a_row.py`). Bit-exact with lava's CPU models, `fixed_pt`.
    In another arithmetic a spike reaches the next population in the row in which it is sent, or its delay later.
    """
    x = _checked(graph, x)
    rows, batch = len(x) + graph.latency, x.shape[1]
    every = rows if every is None else every
    largest = max([x[0, 0].size if x.size else 1, *(population.size for population in graph.populations)])
    group = max(1, AT_ONCE // (rows * largest))
    parts = [_replay(graph, x[:, low : low + group], rows, every, record) for low in range(0, max(1, batch), group)]
    arrays = (zip(*lists, strict=True) for lists in zip(*(part[:-1] for part in parts), strict=True))
    (out,), *recorded = (tuple(np.concatenate(group, axis=1) for group in lists) for lists in arrays)
    overflows = [sum(found, Overflow(0)) for found in zip(*(part[-1] for part in parts), strict=True)]
    return Replay(out, *recorded, overflows=tuple(overflows))


def _checked(graph: Graph, x: Tensor | np.ndarray) -> np.ndarray:
    """The input as uint8."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = (x.to(torch.float64) if x.is_floating_point() else x).numpy()
    x = np.asarray(x)
    shape = list(graph.input_shape)
    if x.ndim != 2 + len(shape) or list(x.shape[2:]) != shape:
        raise SnnError(
            f"simulate: the input should be [time, batch, {', '.join(map(str, shape))}], found {list(x.shape)}."
        )
    most = largest_input(graph)
    fits = x.dtype.kind in "buif" and bool(((x >= 0) & (x <= most) & (x == np.trunc(x))).all())
    if not fits:
        found = f"values in {x.min()}..{x.max()}" if x.dtype.kind in "buif" else f"{x.dtype}"
        hint = "Counts need a graph of input_bits=8." if graph.input_bits == 0 else "Bin in shorter steps."
        if x.dtype.kind == "f" and bool((x != np.trunc(x)).any()):
            hint = "The chip counts spikes: make some of these values, by data.encoder=Delta(0.1), Rate or Latency."
        raise SnnError(f"simulate: this graph takes integers in 0..{most}, found {found} ({x.dtype}). {hint}")
    return x.astype(np.uint8)


def largest_input(graph: Graph) -> int:
    """The largest number that the graph's input may hold."""
    return 2**graph.input_bits - 1 if graph.input_bits else 1


def _replay(graph: Graph, x: np.ndarray, rows: int, every: int, record: bool) -> tuple[list, ...]:
    """Outputs, where recorded spikes, potentials and currents of each population, and overflows, of a few samples."""
    batch, most = x.shape[1], largest_input(graph)
    sent = np.zeros((rows, *x.shape[1:]), np.uint8)
    sent[: len(x)] = x
    recorded: tuple[list[np.ndarray], ...] = ([], [], [])
    out, overflows = sent, []
    for index, population in enumerate(graph.populations):
        late, sums, wrapped = graph.arithmetic.synapse_steps, *_sums(graph.arithmetic, population, sent, most)
        cleared = range((index + 1) * late % every, rows, every) if graph.cleared else range(0)
        sums = _late(sums, late)
        answers = _neurons(graph.arithmetic, population, sums, record=record or population.readout, cleared=cleared)
        overflows.append(_overflow(graph.arithmetic, population, sums, wrapped, answers, cleared))
        answers = [array.reshape(rows, batch, *population.shape) for array in answers]
        sent, most = answers[0], 1
        out = answers[1] if population.readout else sent
        if record:
            for arrays, array in zip(recorded, answers, strict=True):
                arrays.append(array)
    return [out], *recorded, overflows


def _overflow(
    arithmetic: Arithmetic, population: Population, sums: np.ndarray, wrapped: int, answers: list[np.ndarray],
    cleared: range,
) -> Overflow:  # fmt: skip
    """How often the sums that arrived, and currents and potentials where they are among the answers, were too large."""
    highest, unit = arithmetic.highest, arithmetic.unit
    if arithmetic.overflow == "saturate":
        return Overflow(0, 0, sum(int(np.count_nonzero(np.abs(each) == highest)) for each in answers[1:]))
    beyond = int(np.count_nonzero((sums > SUM_HIGH) | (sums < SUM_LOW))) if sums.size else 0
    if len(answers) == 1 or not sums.size:
        return Overflow(beyond, wrapped)
    _, potentials, currents = answers
    arrived = unit * int(max(sums.max(), -int(sums.min())))
    if int(max(currents.max(), -int(currents.min()))) + arrived > highest:  # else none can have wrapped
        kept = DECAY_ONE - _each(population, population.current_decay)
        before = np.zeros(currents.shape[1:], np.int64)
        for row, (now, arriving) in enumerate(zip(currents, sums, strict=True)):
            before = before * (row not in cleared)
            total = np.sign(before) * (np.abs(before) * kept >> 12) + arriving.astype(np.int64) * unit
            wrapped += int(np.count_nonzero((total > highest + 1) | (total < -highest)))
            before = now.astype(np.int64)
    return Overflow(beyond, wrapped, int(np.count_nonzero(np.abs(potentials) == highest)))


def _neurons(
    arithmetic: Arithmetic, population: Population, sums: np.ndarray, *, record: bool, cleared: range
) -> list[np.ndarray]:
    """Spikes, and where `record` potentials and currents, `[rows, batch, size]` as the sums that arrive.

    Before each row in `cleared`, currents and potentials are emptied; spikes that are on their way arrive all the same.
    """
    u, v, s = (np.zeros(sums.shape[1:], np.int64) for _ in range(3))
    spikes = np.empty(sums.shape, np.int8)
    potentials, currents = (np.empty(sums.shape if record else (0, 0, 0), np.int32) for _ in range(2))
    run = compiled_run(arithmetic, population.reset, record=record)
    bias = _each(population, 0 if population.bias is None else population.bias)
    kept = [_each(population, DECAY_ONE - decay) for decay in (population.current_decay, population.voltage_decay)]
    threshold = _each(population, arithmetic.highest_threshold if population.readout else population.threshold)
    for low, high in pairwise((*(cleared if 0 in cleared else (0, *cleared)), len(sums))):
        u[:] = v[:] = 0
        stretches = [slice(low, high)]
        if population.recurrent is not None:
            stretches = [slice(row, row + 1) for row in range(low, high)]
        for now in stretches:
            if population.recurrent is not None:
                sums[now] += _product(s != 0, population.recurrent, 1)
            run(sums[now], bias, u, v, s, *kept, threshold, spikes[now], potentials[now], currents[now])
    return [spikes, potentials, currents] if record else [spikes]


def _each(population: Population, values: int | np.ndarray) -> np.ndarray:
    """One value for each neuron from one for all, for each neuron or for each channel."""
    values = np.atleast_1d(np.asarray(values, np.int64))
    return np.repeat(values, population.size // values.size)


def _sums(arithmetic: Arithmetic, population: Population, sent: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """The sums of a population in the row where they would arrive at once, and how many of them wrapped."""
    if population.kind == "dense":
        return _dense(population, sent, most), 0
    return _convolution(population, sent, most, wraps=arithmetic.overflow == "wrap")


def _dense(population: Population, sent: np.ndarray, most: int) -> np.ndarray:
    """The sums of a dense population, `[rows, batch, size]` (int32)."""
    weight, delay = population.weight, population.delay
    sent = sent.reshape(*sent.shape[:2], weight.shape[1])
    if delay is None:
        return _product(sent, weight, most)
    if delay.shape[0] == 1:
        return _product(_late(sent, delay[0]), weight, most)
    if delay.shape[1] == 1:
        return _late(_product(sent, weight, most), delay[:, 0])
    total = np.zeros((*sent.shape[:2], len(weight)), np.int32)
    for step in np.unique(delay):
        total += _late(_product(sent, np.where(delay == step, weight, 0), most), step)
    return total


def _late(values: np.ndarray, steps: int | np.ndarray) -> np.ndarray:
    """`[rows, batch, n]` later by whole rows, the same for all or for each of n; what leaves the last row is lost."""
    out = np.zeros(values.shape, values.dtype)
    if np.ndim(steps) == 0:
        out[steps:] = values[: max(0, len(values) - int(steps))]
        return out
    for step in np.unique(steps):
        chosen = np.flatnonzero(steps == step)
        out[step:, :, chosen] = values[: max(0, len(values) - int(step)), :, chosen]
    return out


def _product(x: np.ndarray, weight: np.ndarray, most: int) -> np.ndarray:
    """`x` `[..., in]` times `weight` `[out, in]`, exact, in int32."""
    bound = most * int(np.abs(weight).sum(1).max(initial=0))
    dtype = np.float32 if bound < EXACT_IN_FLOAT32 else np.float64
    total = (x.reshape(-1, x.shape[-1]).astype(dtype) @ weight.T.astype(dtype)).reshape(*x.shape[:-1], len(weight))
    _check_sums(total, bound)
    return total.astype(np.int32)


def _check_sums(total: np.ndarray, bound: int) -> None:
    """Raise where a sum, of which none can be above `bound`, is beyond what is exact in single precision."""
    if bound >= LARGEST_SUM and total.size and np.abs(total).max() >= LARGEST_SUM:
        raise SnnError(
            f"simulate: a sum of weights and counts reaches {int(np.abs(total).max())}, and Loihi adds up to 32767, "
            f"another circuit to {LARGEST_SUM - 1}. Use smaller weights, or bin in shorter steps."
        )


def _convolution(population: Population, sent: np.ndarray, most: int, *, wraps: bool) -> tuple[np.ndarray, int]:
    """The sums of a convolution, and how many wrapped to 24 bits: products with the inputs that a neuron sees.

    Not torch's convolution: it may choose an algorithm whose sums are not exact.
    """
    weight, groups = population.weight, population.groups
    assert population.stride is not None
    positions = int(np.prod(population.shape[1:]))
    kernels = weight.reshape(groups, len(weight) // groups, -1)  # [groups, out, seen]
    bound = most * int(np.abs(kernels).sum(-1).max(initial=0))
    dtype = np.float32 if bound < EXACT_IN_FLOAT32 else np.float64
    kernels = kernels.transpose(0, 2, 1).astype(dtype)
    inputs = sent.reshape(-1, *sent.shape[2:])
    sums = np.empty((len(inputs), population.size), np.int32)
    block, wrapped = max(1, COLUMNS_AT_ONCE // (groups * kernels.shape[1] * positions)), 0
    for low in range(0, len(inputs), block):
        seen = _seen(population, inputs[low : low + block])
        total = (seen.astype(dtype) @ kernels).astype(np.int64)  # [groups, samples * positions, out]
        if not wraps:
            _check_sums(total, bound)
        elif bound >= CONV_RANGE // 2:
            wrapped += int(np.count_nonzero((total >= CONV_RANGE // 2) | (total < -CONV_RANGE // 2)))
            total = (total + CONV_RANGE // 2) % CONV_RANGE - CONV_RANGE // 2
        total = total.reshape(groups, -1, positions, total.shape[-1]).transpose(1, 0, 3, 2)
        sums[low : low + block] = total.reshape(-1, population.size)
    return sums.reshape(*sent.shape[:2], population.size), wrapped


def _seen(population: Population, inputs: np.ndarray) -> np.ndarray:
    """The inputs under the kernel at every position, `[groups, samples * positions, seen]`."""
    (pad_y, pad_x), (apart_y, apart_x), groups = population.padding, population.dilation, population.groups
    step_y, step_x = population.stride or (1, 1)
    height, width = population.weight.shape[2:]
    padded = np.pad(inputs, ((0, 0), (0, 0), (pad_y, pad_y), (pad_x, pad_x)))
    extent = apart_y * (height - 1) + 1, apart_x * (width - 1) + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(2, 3))
    windows = windows[:, :, ::step_y, ::step_x, ::apart_y, ::apart_x]  # [samples, channels, y, x, height, width]
    samples, channels, y, x = windows.shape[:4]
    grouped = windows.reshape(samples, groups, channels // groups, y, x, height, width)
    return grouped.transpose(1, 0, 3, 4, 2, 5, 6).reshape(groups, samples * y * x, -1)
