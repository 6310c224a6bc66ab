"""How far a figure of few recordings can be trusted, and the difference of two runs on the same recordings."""

import math
import statistics
from collections.abc import Sequence

import numpy as np

Z = 1.959963984540054  # standard deviations that hold 95 % of a normal distribution
ROUNDING = 1e-9  # the part of differences by which those that are the same vary, in doubles


def wilson_interval(correct: int, samples: int) -> tuple[float, float]:
    """The 95 % interval of a fraction, by Wilson's score (1927)."""
    fraction = correct / samples
    middle = (fraction + Z * Z / (2 * samples)) / (1 + Z * Z / samples)
    half = Z / (1 + Z * Z / samples) * math.sqrt(fraction * (1 - fraction) / samples + Z * Z / (4 * samples * samples))
    return max(0.0, middle - half), min(1.0, middle + half)


def ratio_interval(parts: np.ndarray, totals: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of sum(parts) / sum(totals), each recording's part and total being one draw.

    Steps of one recording are not independent: what counts is by how much recordings differ. Linearised, with Student's
    t; 0..1 for a single recording.
    """
    from scipy.special import stdtrit  # comes with scikit-learn; slow to import

    count = len(totals)
    if count < 2 or not totals.sum():
        return 0.0, 1.0
    ratio = float(parts.sum() / totals.sum())
    spread = math.sqrt(count / (count - 1) * float(np.square(parts - ratio * totals).sum())) / float(totals.sum())
    half = float(stdtrit(count - 1, 0.975)) * spread
    return max(0.0, ratio - half), min(1.0, ratio + half)


def mean_interval(mean: float, deviation: float, count: int) -> tuple[float, float]:
    """The 95 % interval of the mean of two or more values, by Student's t with `count` - 1 degrees of freedom."""
    from scipy.special import stdtrit  # likewise

    half = float(stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)
    return mean - half, mean + half


def paired_t(differences: Sequence[float]) -> float | None:
    """How likely so large a mean of two or more differences would be, were there none: Student's test of two sides.

    None where the differences do not vary, but for the rounding of the figures: the test takes its measure from that.
    """
    from scipy.special import stdtr  # likewise

    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    if deviation <= ROUNDING * max(map(abs, differences)):
        return None
    return float(2 * stdtr(len(differences) - 1, -abs(mean) / deviation * math.sqrt(len(differences))))


def mcnemar(first_alone: int, second_alone: int) -> float:
    """How likely so uneven a split would be, were both equally good: McNemar's exact test of two sides.

    Of the recordings that one of two networks alone gets right, `first_alone` are the first's. 1 where there are none.
    """
    count, fewer = first_alone + second_alone, min(first_alone, second_alone)
    tail = sum(math.comb(count, index) for index in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**count)) if count else 1.0
