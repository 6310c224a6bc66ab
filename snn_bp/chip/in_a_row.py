"""Recordings in a row, as the chip sees them: how long a pause they need, and their replay through one simulation.

Registers are cleared when a recording reaches a population. What is not cleared are spikes under way: those that a
delay still holds, and those that a recurrent population sent in the step before. A pause lets them arrive, if the
population that sends them is silent by then.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from snn_bp.chip.graph import DECAY_ONE, Graph, Population
from snn_bp.chip.replay import Replay, largest_input, simulate
from snn_bp.kernels.fixed import Arithmetic

ROW = 8  # recordings that follow one another in a replay
LONGEST = 5000  # steps: a current that takes longer to fade counts as one that never does
LISTEN = 256  # steps at least, in which a population that could go on for ever is watched


class Carried(NamedTuple):
    """A population whose spikes can be under way when the next recording begins, and which may not fall silent."""

    population: int
    fires_alone: bool  # its bias lifts it above the threshold without any input
    through: str  # what carries its spikes

    def __str__(self) -> str:
        if self.fires_alone:
            return (
                f"its bias (or norm's shift) fires without input, and {self.through} carries those spikes into the "
                "next recording. Train it with Dense(..., bias=False) and no BatchNorm in front."
            )
        return (
            f"nothing says when it falls silent, and {self.through} carries its spikes into the next recording. "
            "The pause is twice as long as it was seen to fire."
        )


def carried(graph: Graph) -> tuple[Carried, ...]:
    """The populations whose spikes no pause is sure to keep from the next recording."""
    found, ends = [], 0.0
    if not graph.latency:  # everything is emptied
        return ()
    for index, population in enumerate(graph.populations):
        ends = _silent_after(population, ends + _longest_delay(population), graph, index)
        ways = ["its recurrence"] if population.recurrent is not None else []
        if any(map(_longest_delay, graph.populations[index + 1 : index + 2])):
            ways.append(f"the delay in front of population {index + 1}")
        if ends == np.inf and ways:
            found.append(Carried(index, _fires_alone(population, graph.arithmetic), " and ".join(ways)))
    return tuple(found)


def pause_for(graph: Graph, x: Tensor | np.ndarray | None = None) -> int:
    """Steps without input between two recordings, after which none of the first one's spikes reaches the second.

    It follows from delays, decays and weights alone where every population is sure to fall silent. One that could go on
    by itself (a recurrence, a bias above the threshold) is given twice as long after the recording's end as it was seen
    to fire on the recordings `x`; without them, or where it goes on all the time, it is taken to end with its input,
    and `verify` finds what that does.
    """
    if not graph.latency:
        return 0
    seen = _last_spikes(graph, x) if x is not None and carried(graph) else None
    pause, ends = 0, 0
    for index, population in enumerate(graph.populations):
        delay = _longest_delay(population)
        if delay:
            pause = max(pause, ends + delay)
        sure = _silent_after(population, ends + delay, graph, index)
        ends = ends + delay if sure == np.inf else int(sure)
        if sure == np.inf and seen is not None:
            ends = max(ends, seen[index])
        if population.recurrent is not None:
            pause = max(pause, ends + 1)
    return pause


def in_a_row(graph: Graph, x: Tensor | np.ndarray, *, row: int = ROW) -> Replay:
    """The replay of recordings `x` `[time, recordings, ...]`, `row` of them after one another, cut apart again.

    `spikes`, `potentials`, `currents` and `out` hold the steps in which a recording reaches a population, `[time,
    recordings, ...]`. The rows between are left out; what overflows there is counted all the same.
    """
    steps, recordings = x.shape[:2]
    if not graph.latency:  # everything is emptied in between: alone is as in a row
        return simulate(graph, x, record=True)
    ran = simulate(graph, one_after_the_other(graph, x, row=row), record=True, every=steps + graph.pause)

    def cut(rows: np.ndarray, index: int) -> np.ndarray:
        begins = [number % row * (steps + graph.pause) + index + 1 for number in range(recordings)]
        return np.stack(
            [rows[begin : begin + steps, number // row] for number, begin in enumerate(begins)], axis=1
        )  # fmt: skip

    lists = {name: getattr(ran, name) for name in ("spikes", "potentials", "currents")}
    return Replay(
        out=cut(ran.out, len(graph.populations) - 1),
        **{name: tuple(cut(rows, index) for index, rows in enumerate(arrays)) for name, arrays in lists.items()},
        overflows=ran.overflows,
    )


def one_after_the_other(graph: Graph, x: Tensor | np.ndarray, *, row: int = ROW) -> np.ndarray:
    """Recordings `x` `[time, recordings, ...]` as rows `[rows, lanes, ...]`: up to `row` of them in each lane."""
    steps, recordings = x.shape[:2]
    long, lanes = steps + graph.pause, -(-recordings // row)
    rows = np.zeros((min(row, recordings) * long, lanes, *x.shape[2:]), np.asarray(x[:0]).dtype)
    for number in range(recordings):
        begin = number % row * long
        rows[begin : begin + steps, number // row] = x[:, number]
    return rows


def _last_spikes(graph: Graph, x: Tensor | np.ndarray) -> list[int]:
    """How long after a recording's end each population is to be waited for: twice as long as it was seen to fire.

    0 where it still fires when nobody listens any more: no pause helps.
    """
    listen, after = max(LISTEN, 2 * len(x)), [0] * len(graph.populations)
    for first in range(0, x.shape[1], ROW):
        some = x[:, first : first + ROW]
        longer = np.zeros((len(x) + listen, *some.shape[1:]), np.asarray(x[:0]).dtype)
        longer[: len(x)] = some
        for index, spikes in enumerate(simulate(graph, longer, record=True).spikes):
            window = spikes[index + 1 :][: len(longer)]
            fired = np.flatnonzero(window.reshape(len(window), -1).any(1))
            after[index] = max(after[index], int(fired[-1]) + 1 - len(x) if len(fired) else 0)
    return [2 * steps if steps < listen // 2 else 0 for steps in after]


def _longest_delay(population: Population) -> int:
    return 0 if population.delay is None else int(population.delay.max(initial=0))


def _silent_after(population: Population, input_ends: float, graph: Graph, index: int) -> float:
    """How many steps after a recording's end it can still fire, where its input goes on for `input_ends` of them.

    While its membrane is not above the threshold, a neuron without input fires only if the rest of its current lifts it
    there within a step, which ends when that has faded. inf where nothing says that it ends.
    """
    if input_ends == np.inf or population.recurrent is not None or _fires_alone(population, graph.arithmetic):
        return np.inf
    kept = np.broadcast_to(DECAY_ONE - np.asarray(population.current_decay), len(population.weight)).astype(np.int64)
    if not kept.any():
        return input_ends
    most = largest_input(graph) if index == 0 else 1
    weight = population.weight.reshape(len(population.weight), -1)
    arriving = most * np.maximum(weight, 0).sum(1) * graph.arithmetic.unit
    full = arriving * DECAY_ONE // np.maximum(DECAY_ONE - kept, 1) + graph.arithmetic.unit
    current = np.minimum(full, graph.arithmetic.highest + 1)  # where it could wrap, it can be anything
    needed = _missing(population, graph.arithmetic)
    for step in range(LONGEST):
        current = current * kept >> 12
        if not (current > needed).any():
            return input_ends + step
    return np.inf


def _fires_alone(population: Population, arithmetic: Arithmetic) -> bool:
    """Whether its bias lifts it above the threshold without any input."""
    return bool((_missing(population, arithmetic) < 0).any())


def _missing(population: Population, arithmetic: Arithmetic) -> np.ndarray:
    """What a neuron just at its threshold needs of current in a step to fire, in steps of a state."""
    threshold = np.asarray(population.threshold, np.int64) * arithmetic.held
    kept = DECAY_ONE - np.asarray(population.voltage_decay, np.int64)
    bias = 0 if population.bias is None else population.bias * arithmetic.held
    return np.broadcast_to(threshold - bias - (threshold * kept >> 12), len(population.weight))
