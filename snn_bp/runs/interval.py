"""How far a fraction of few recordings can be trusted."""

import math

Z = 1.959963984540054  # standard deviations that hold 95 % of a normal distribution


def wilson_interval(correct: int, samples: int) -> tuple[float, float]:
    """The 95 % interval of a fraction, by Wilson's score (1927)."""
    fraction = correct / samples
    middle = (fraction + Z * Z / (2 * samples)) / (1 + Z * Z / samples)
    half = Z / (1 + Z * Z / samples) * math.sqrt(fraction * (1 - fraction) / samples + Z * Z / (4 * samples * samples))
    return max(0.0, middle - half), min(1.0, middle + half)
