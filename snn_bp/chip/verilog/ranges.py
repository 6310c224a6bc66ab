"""The ranges of the numbers of a population, whatever the recording: from them follow the widths of registers.

Bounds, not what occurs: the sums are those of all positive and of all negative weights, the states their limits under
the decay. A register of these many bits cannot overflow, and what cannot overflow is neither wrapped nor saturated.
"""

from typing import NamedTuple

import numpy as np

from snn_bp.chip.graph import DECAY_ONE, Population
from snn_bp.errors import SnnError
from snn_bp.kernels.fixed import Arithmetic

SUM_BITS = 24  # a convolution's sum of Loihi's is two's complement of these
Range = tuple[int, int]


class Ranges(NamedTuple):
    """Lowest and highest numbers; sums in steps of a weight, the others in those of a state."""

    sums: Range
    current: Range
    potential: Range
    level: Range  # thresholds and biases
    wraps_sum: bool
    current_overflows: bool
    potential_saturates: bool


def ranges(population: Population, arithmetic: Arithmetic, count: int) -> Ranges:
    """Those of a population whose inputs send up to `count` spikes in a step."""
    weight = population.weight.reshape(len(population.weight), -1)
    low, high = count * np.minimum(weight, 0).sum(1), count * np.maximum(weight, 0).sum(1)
    if population.recurrent is not None:
        low = low + np.minimum(population.recurrent, 0).sum(1)
        high = high + np.maximum(population.recurrent, 0).sum(1)
    sums = int(low.min()), int(high.max())

    wrapping = arithmetic.overflow == "wrap"
    end = 1 << (SUM_BITS - 1)
    wraps_sum = wrapping and population.kind == "conv" and (sums[0] < -end or sums[1] >= end)
    if wraps_sum:
        low, high = np.full_like(low, -end), np.full_like(high, end - 1)
    decay = np.broadcast_to(np.asarray(population.current_decay), low.shape)
    gained = low * arithmetic.unit, high * arithmetic.unit
    low, high = (_limit(values, decay, arithmetic) for values in gained)
    overflows = bool((high > arithmetic.highest).any() or (low < -arithmetic.highest).any())
    if overflows and wrapping:
        high = _wrapped(np.maximum(-gained[0], gained[1]), decay, arithmetic)
        low = -high
    elif overflows:
        low, high = np.maximum(low, -arithmetic.highest), np.minimum(high, arithmetic.highest)
    current = int(low.min()), int(high.max())

    bias = np.asarray(0 if population.bias is None else population.bias) * arithmetic.held
    theta = np.asarray(threshold_of(population, arithmetic))
    low, high = low + np.minimum(bias, 0), high + np.maximum(bias, 0)
    decay = np.broadcast_to(np.asarray(population.voltage_decay), low.shape)
    lowest, highest = _limit(low, decay, arithmetic), _limit(high, decay, arithmetic)
    if population.reset in ("zero", "zero_all"):  # above the threshold nothing stays
        highest = np.minimum(highest, theta + high)
    elif population.reset == "subtract":
        lowest = np.minimum(lowest, low - theta)
    saturates = bool((highest > arithmetic.highest).any() or (lowest < -arithmetic.highest).any())
    potential = max(int(lowest.min()), -arithmetic.highest), min(int(highest.max()), arithmetic.highest)
    levels = [np.min(bias), np.max(bias), np.min(theta), np.max(theta), 0]
    return Ranges(
        sums, current, potential, (int(min(levels)), int(max(levels))), wraps_sum, overflows, saturates
    )  # fmt: skip


def threshold_of(population: Population, arithmetic: Arithmetic) -> int | np.ndarray:
    """The threshold in steps of a state; a readout has the highest there is."""
    return (arithmetic.highest_threshold if population.readout else population.threshold) * arithmetic.held


def _limit(step: np.ndarray, decay: np.ndarray, arithmetic: Arithmetic) -> np.ndarray:
    """Where a state ends up that gains `step` in every step and decays; beyond any register where it does not."""
    away = step + np.sign(step) * (arithmetic.decay == "shift")  # a shift rounds by less than 1
    never = np.sign(step) * (4 * arithmetic.highest)
    return np.where(decay > 0, -(-np.abs(away) * DECAY_ONE // np.maximum(decay, 1)) * np.sign(away), never)


def _wrapped(step: np.ndarray, decay: np.ndarray, arithmetic: Arithmetic) -> np.ndarray:
    """Where a current ends up that comes in at the other end, once in a step: further out where `step` is larger."""
    end = arithmetic.highest + 1
    beyond = np.maximum(step - 2 * end, 0)
    if (beyond[decay == 0] > 0).any():
        raise SnnError(
            f"sums of weights reach {int(beyond.max()) // arithmetic.unit}, and a synaptic current without decay would "
            "leave any register. Use smaller weights or fewer inputs, or data.binary=True where counts come in."
        )
    return np.maximum(end, _limit(beyond, decay, arithmetic))
