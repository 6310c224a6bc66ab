"""The replay of a configuration in integers, in plain NumPy: every spike, current and potential that Xylo would have.

In a step the weights of all spikes that arrive are added to a current of 16 bits, one after the other, each time
saturating; then current and membrane decay, the membrane takes up current and bias, and fires as often as it reaches
the threshold. Equal to `xylosim` (`simulator.py`), which it was read from.
"""

from dataclasses import dataclass

import numpy as np

from snn_bp.chip.xylo.configuration import (
    HIDDEN_MOST,
    INPUT_MOST,
    OUTPUT_MOST,
    STATE_HIGH,
    STATE_LOW,
    Configuration,
)  # fmt: skip
from snn_bp.errors import SnnError


@dataclass(frozen=True, eq=False)
class Replay:
    """What a configuration answered, `[time, batch, neurons]` each, hidden neurons and outputs.

    Currents are those after the decay, potentials those after the threshold has been taken off.
    """

    spikes: np.ndarray
    currents: np.ndarray
    potentials: np.ndarray
    out: np.ndarray  # spikes of the outputs
    out_currents: np.ndarray
    out_potentials: np.ndarray


def simulate(configuration: Configuration, x: np.ndarray) -> Replay:
    """The replay of counts of spikes `x` `[time, batch, inputs]`, 0..15 of a step, from rest."""
    given, inputs = configuration, len(configuration.weights_in)
    if x.ndim != 3 or x.shape[2] != inputs or not ((x >= 0) & (x <= INPUT_MOST) & (x == np.trunc(x))).all():
        raise SnnError(
            f"simulate: the input should be [time, batch, {inputs}] of integers in 0..{INPUT_MOST}, found "
            f"{list(x.shape)} in {x.min(initial=0)}..{x.max(initial=0)}. Bin in shorter steps, or use data.binary=True."
        )
    matrices = (
        given.weights_in << given.weight_shift_in,
        given.weights_rec << given.weight_shift_rec,
        given.weights_out << given.weight_shift_out,
    )
    hidden = given.dash_syn, given.dash_mem, given.bias_hidden, given.threshold, HIDDEN_MOST
    outputs = given.dash_syn_out, given.dash_mem_out, given.bias_out, given.threshold_out, OUTPUT_MOST
    i, v, sent = (np.zeros((x.shape[1], sum(given.hidden)), np.int64) for _ in range(3))
    i_out, v_out = (np.zeros((x.shape[1], len(given.bias_out)), np.int64) for _ in range(2))
    rows = []
    for step in x.astype(np.int64):
        i = _received(_received(i, step, matrices[0]), sent, matrices[1])
        i_out = _received(i_out, sent, matrices[2])
        i, v, sent = _evolved(i, v, *hidden)
        i_out, v_out, out = _evolved(i_out, v_out, *outputs)
        rows.append((sent, i, v, out, i_out, v_out))
    if not rows:
        rows, x = [(sent, i, v, np.zeros_like(v_out), i_out, v_out)], x[:0]
    return Replay(*(np.stack(each)[: len(x)] for each in zip(*rows, strict=True)))


def _received(i: np.ndarray, spikes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Currents after spikes `[batch, from]`, one neuron after the other; spikes of one saturate once, as together."""
    for index in np.flatnonzero(spikes.any(0)):
        i = _saturated(i + spikes[:, index, None] * weights[index])
    return i


def _evolved(i, v, dash_syn, dash_mem, bias, threshold, most) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Currents, potentials and counts of spikes after a step."""
    i = i - _decay(i, dash_syn)
    change = -_decay(v, dash_mem)
    change = _saturated(np.where(change > STATE_HIGH, STATE_LOW, change) + i)  # what 16 bits make of 32768
    v = _saturated(v + _saturated(change + bias))
    count = np.clip(v // threshold, 0, most)
    return i, v - count * threshold, count


def _decay(x: np.ndarray, dash: np.ndarray) -> np.ndarray:
    """What is lost in a step: a shift, rounded down, and 1 at least; a negative number's is so by itself."""
    return np.where(x > 0, np.maximum(x >> dash, 1), x >> dash)


def _saturated(x: np.ndarray) -> np.ndarray:
    return x.clip(STATE_LOW, STATE_HIGH)
