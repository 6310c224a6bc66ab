"""Neurons in the integers of Xylo, spike by spike: a current saturates at each weight that is added to it.

Its arithmetic is none of `fixed.py`'s: the input joins the current before its decay, a decay takes 1 at least, a neuron
fires as often as it reaches its threshold, and what saturates depends on the order in which spikes arrive. So this
takes spikes and weights, not their sums. Equal to `chip/xylo/replay.py`, and to xylosim.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from snn_bp.kernels import cpu
from snn_bp.kernels.bind import bind

LOW, HIGH = -(1 << 15), (1 << 15) - 1  # ends of a current and a potential


def run(sent, weight, bias, dash_syn, dash_mem, threshold, max_spikes, u, v, s, spikes, potentials, currents):
    """Neurons `[rows, neurons]` through all steps of what is sent to them, counts `[time, rows, inputs]`.

    `weight` `[inputs, neurons]` is shifted already. `u, v, s` hold current, membrane (before its reset) and the last
    count, in and out. All are integers, spikes, weights and currents in single precision, which adds several at once.
    """
    for t in range(sent.shape[0]):
        for row in range(sent.shape[1]):
            i = u[row]
            for index in range(sent.shape[2]):
                count = sent[t, row, index]
                if count != 0:  # the sum of one sign saturates once, as its parts do
                    for m in range(i.shape[0]):
                        i[m] = min(max(i[m] + np.rint(count * weight[index, m]), np.float32(LOW)), np.float32(HIGH))
            for m in range(i.shape[0]):
                current = np.int64(i[m])
                current -= decayed(current, dash_syn[m])
                potential = v[row, m] - s[row, m] * threshold[m]
                lost = -decayed(potential, dash_mem[m])
                if lost > HIGH:
                    lost = LOW  # what 16 bits make of 32768
                change = saturated(saturated(lost + current) + bias[m])
                potential = saturated(potential + change)
                i[m] = current
                v[row, m] = potential
                s[row, m] = min(max(potential // threshold[m], 0), max_spikes)
                spikes[t, row, m] = s[row, m]
                potentials[t, row, m] = potential
                currents[t, row, m] = current


def decayed(x, dash):
    """What a decay takes: `x` shifted, rounded down, and 1 at least where it is above 0."""
    lost = x >> dash
    return 1 if lost == 0 and x > 0 else lost


def saturated(x):
    """Within 16 bits."""
    return min(max(x, LOW), HIGH)


def simulate_xylo(
    sent: Tensor, weight: Tensor, bias: Tensor, dashes: tuple[Tensor, Tensor], threshold: Tensor, max_spikes: int,
    state: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """Counts of spikes, potentials (before reset) and currents of every step, and the last (u, v, s), as floats.

    `sent` is `[time, batch, inputs]`, `weight` `[neurons, inputs]`; bias, shifts of current and membrane and threshold
    have one number for each neuron, the state `[batch, neurons]`. All hold integers.
    """
    shape = (*sent.shape[:2], len(weight))

    def floats(values: Tensor) -> np.ndarray:
        return values.detach().to("cpu", torch.float32).numpy()

    def integers(values: Tensor) -> np.ndarray:
        return values.detach().to("cpu", torch.int64).numpy()

    u, v, s = np.array(floats(state[0])), np.array(integers(state[1])), np.array(integers(state[2]))
    numbers = [integers(values) for values in (bias, *dashes, threshold)]
    recorded = [np.empty(shape, np.float32) for _ in range(3)]
    rows = np.ascontiguousarray(floats(sent)), np.ascontiguousarray(floats(weight.T))
    _compiled()(*rows, *numbers, max_spikes, u, v, s, *recorded)
    spikes, potentials, currents = (torch.from_numpy(each).to(sent) for each in recorded)
    return spikes, potentials, currents, tuple(torch.from_numpy(each).to(sent) for each in (u, v, s))


@functools.cache
def _compiled() -> Callable:
    inner = {function.__name__: cpu.compile.inner(function) for function in (decayed, saturated)}
    return cpu.compile.compiled(bind(run, **inner), ("xylo",))
