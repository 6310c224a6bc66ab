"""From values to frames: how analog signals and images become the input of a network.

An encoder is a frozen value that is called with one recording, an array of numbers, and a generator of random numbers,
and gives frames `[steps, ...]`. Of one's own, any such value will do. What it draws depends on the seed, the epoch and
the recording alone: training recordings are drawn anew in every epoch, others are always the same.
"""

from typing import Annotated, TypeAlias

import numpy as np

from snn_bp.errors import SnnError, check_kind
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Within, check_fields
from snn_bp.kernels.lazy import kernel

Count = Annotated[int, Within(low=1)]
Above = Annotated[float, Within(above=0)]


@checked_dataclass(frozen=True)
class Current:
    """A signal `[steps, ...]` as it is, the input current of the first layer.

    >>> Current()(np.ones((5, 3)), np.random.default_rng(0)).shape
    (5, 3)
    """

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The same values."""
        _check_array(self, x)
        return x


@checked_dataclass(frozen=True)
class Delta:
    """Level crossings of a signal `[steps, channels]`: frames `[steps, 2 * channels]`, those upwards first.

    Levels lie `threshold` apart, in the signal's unit, the first value of each channel upon one. A frame counts the
    levels that its step has crossed since the last one crossed, upwards or downwards, as a delta modulator sends them.

    >>> Delta(threshold=0.5)(np.array([[0.0], [1.2], [0.4]]), np.random.default_rng(0)).tolist()
    [[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]
    """

    threshold: Above

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Counts of levels."""
        _check_array(self, x)
        if x.ndim != 2:
            raise SnnError(f"Delta: a signal is [steps, channels], found {list(x.shape)}.")
        signal = np.ascontiguousarray(x, np.float64)
        if not np.isfinite(signal.sum()):
            raise SnnError("Delta: the signal holds NaN or infinity. Leave such recordings out, or repair them.")
        counts = np.zeros((len(x), 2 * x.shape[1]), np.float32)
        _cross(signal, float(self.threshold), counts)
        return counts


@checked_dataclass(frozen=True)
class Rate:
    """Spikes of an image (or any array) for `steps` steps, independent of each other, as likely as the value is large.

    A value of `largest` (1.0) spikes at every step, 0 at none; others in between, in proportion.

    >>> Rate(steps=4)(np.array([0.0, 1.0]), np.random.default_rng(0)).tolist()
    [[0, 1], [0, 1], [0, 1], [0, 1]]
    """

    steps: Count
    largest: Above = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Zeros and ones `[steps, ...]`."""
        check_kind("Rate: rng", rng, np.random.Generator, "As in np.random.default_rng(0).")
        fractions = _fractions(self, x, self.largest)
        return (rng.random((self.steps, *x.shape)) < fractions).astype(np.uint8)


@checked_dataclass(frozen=True)
class Latency:
    """One spike for each value of an image, the sooner the larger it is: `largest` (1.0) at the first of `steps`.

    The time falls linearly with the value, to the last step for the smallest above 0; a value of 0 is silent.

    >>> Latency(steps=3)(np.array([1.0, 0.5, 0.0]), np.random.default_rng(0)).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    """

    steps: Count
    largest: Above = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Zeros and ones `[steps, ...]`."""
        fractions = _fractions(self, x, self.largest)
        times = np.floor((1 - fractions) * (self.steps - 1) + 0.5)
        steps = np.arange(self.steps).reshape(-1, *(1,) * x.ndim)
        return ((steps == times) & (fractions > 0)).astype(np.uint8)


@checked_dataclass(frozen=True)
class Repeat:
    """The same image as input current at each of `steps` steps.

    >>> Repeat(steps=3)(np.array([0.2, 0.7]), np.random.default_rng(0)).tolist()
    [[0.2, 0.7], [0.2, 0.7], [0.2, 0.7]]
    """

    steps: Count

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Values `[steps, ...]`."""
        _check_array(self, x)
        return np.broadcast_to(x, (self.steps, *x.shape))


Encoder: TypeAlias = Current | Delta | Rate | Latency | Repeat


def _check_array(encoder: Encoder, x: object) -> None:
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
        raise SnnError(
            f"{encoder}: it takes a recording as an array of numbers, found a {type(x).__name__}. Use np.asarray."
        )


def _fractions(encoder: Rate | Latency, x: np.ndarray, largest: float) -> np.ndarray:
    """The values as fractions of the largest; raises where one lies outside 0..1."""
    _check_array(encoder, x)
    fractions = x.astype(np.float64) / largest
    if fractions.size and not (fractions.min() >= 0 and fractions.max() <= 1):
        if not np.isfinite(fractions).all():
            raise SnnError(f"{encoder}: the values hold NaN or infinity. Leave such recordings out, or repair them.")
        raise SnnError(
            f"{encoder}: values lie in 0..{largest:g}, found {x.min():g}..{x.max():g}. Give largest={x.max():g}, or "
            "shift the values above 0."
        )
    return fractions


@kernel()
def _cross(signal, threshold, counts):
    steps, channels = signal.shape
    for channel in range(channels):
        start, level = signal[0, channel], 0.0
        for step in range(1, steps):
            crossed = (signal[step, channel] - start) / threshold - level
            if crossed >= 1:
                counts[step, channel] = np.floor(crossed)
                level += np.floor(crossed)
            elif crossed <= -1:
                counts[step, channels + channel] = np.floor(-crossed)
                level -= np.floor(-crossed)
