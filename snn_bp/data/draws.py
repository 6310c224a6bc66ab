"""What augmentations draw for the recordings of a batch: numbers of a recording here, those of its events on the way.

Random numbers are counted, not drawn one after the other: number k of a key is a fixed function of both (splitmix64,
Steele, Lea & Flood 2014), and a key one of the seed, of what it is for, and of the recording's id. So a recording
becomes the same in any batch and in any process.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, TypeVar, cast

import numpy as np

from snn_bp.data.augmentations import (
    Augmentation,
    Blend,
    ChannelJitter,
    Classes,
    CutMix,
    EventDrop,
    Flip,
    NoiseEvents,
    SpatialJitter,
    TimeCrop,
    TimeJitter,
    mixing_classes,
)
from snn_bp.data.description import Data
from snn_bp.data.encode import DRAWN, DROP_BITS, QUANTILES, Changes, mixed
from snn_bp.data.store import LONGEST_US

_GOLDEN = 0x9E3779B97F4A7C15
# what a key is for; their order is part of what a seed gives
_FLIP, _DROP, _CROP, _MIX, _COUNT, _EVENTS, _PARTNER, _NOISE = range(8)
_SHIFT, _TURN = 1, 3  # streams of random numbers of all recordings, as `TRANSFORM` is
Kind = TypeVar("Kind", bound=Augmentation)


@dataclass(frozen=True, eq=False)
class Partners:
    """The training recordings, those of one class beside each other, from which a second one is drawn."""

    ids: np.ndarray
    ordered: np.ndarray  # their classes
    position: np.ndarray  # where each recording of the part stands among them, -1 where it does not
    labels: np.ndarray  # classes of the part

    @classmethod
    def of(cls, ids: np.ndarray, labels: np.ndarray) -> "Partners":
        """From the ids of the training split, and the class of each recording of the part."""
        ordered, position = ids[np.argsort(labels[ids], kind="stable")], np.full(len(labels), -1)
        position[ordered] = np.arange(len(ids))
        return cls(ordered, labels[ordered], position, labels)

    def of_each(self, ids: np.ndarray, drawn: np.ndarray, classes: Classes = "same") -> np.ndarray:
        """Another recording for each of `ids`, of the same class or any, by numbers in 0..1; -1 where there is none."""
        first, last = np.zeros(len(ids), np.int64), np.full(len(ids), len(self.ids))
        if classes == "same":
            first, last = (np.searchsorted(self.ordered, self.labels[ids], side=side) for side in ("left", "right"))
        own = self.position[ids]
        others = last - first - (own >= 0)
        chosen = first + (drawn * others).astype(np.int64)
        chosen += (own >= 0) & (chosen >= own)
        return np.where(others > 0, self.ids[np.minimum(chosen, len(self.ids) - 1)], -1)


def draw(
    augment: Sequence[Augmentation], ids: np.ndarray, *, seed: int, image: tuple[int, int], window: int,
    each_ms: float, partners: Partners | None, ends: np.ndarray | None,
) -> Changes:  # fmt: skip
    """What becomes of the recordings `ids`, of the width and height of `image`, in a window of time.

    Times are in microseconds or, of frames, in steps, so many in `each_ms`; `ends` are where recordings end, if known.
    """
    width, height = image
    drawn = np.zeros(len(ids), DRAWN)
    drawn["partner"], drawn["end"] = -1, -1
    for purpose, name in ((_EVENTS, "events"), (_PARTNER, "partners"), (_NOISE, "noise")):
        drawn[name] = _keys(seed, purpose, ids)
    if (flip := _find(augment, Flip)) is not None:
        drawn["flip"] = _numbers(seed, _FLIP, ids, 1)[0] < flip.p
    if (drop := _find(augment, EventDrop)) is not None:
        way, fraction, at, across, down = _numbers(seed, _DROP, ids, 5)
        fraction *= drop.fraction
        ways = ("events", "time", "area", "nothing")
        chosen = (way * len(ways)).astype(int) if drop.by == "any" else np.full(len(ids), ways.index(drop.by))
        drawn["drop"] = np.where(chosen == 0, np.rint(fraction * 2**DROP_BITS), 0)
        gap = np.where(chosen == 1, np.rint(fraction * window), 0).astype(np.int64)
        drawn["gap"] = (at * (window - gap + 1)).astype(np.int64)
        drawn["gap_end"] = drawn["gap"] + gap
        for low, high, size, where in (
            ("hole_left", "hole_right", width, across),
            ("hole_top", "hole_bottom", height, down),
        ):
            side = np.where(chosen == 2, np.rint(fraction * size) if size > 1 else 1, 0).astype(np.int64)
            drawn[low] = (where * (size - side + 1)).astype(np.int64)
            drawn[high] = drawn[low] + side
    if (crop := _find(augment, TimeCrop)) is not None:
        drawn["crop"] = _numbers(seed, _CROP, ids, 1)[0]
        drawn["reach"] = LONGEST_US if crop.ms is None else round(crop.ms * each_ms)
        if ends is not None:
            drawn["end"] = np.where(ends < LONGEST_US, ends, -1)
    if (mix := _find(augment, CutMix) or _find(augment, Blend)) is not None:
        whether, which, part, across, down = _numbers(seed, _MIX, ids, 5)
        assert partners is not None
        partner = np.where(whether < mix.p, partners.of_each(ids, which, mix.classes), -1)
        drawn["partner"], drawn["blend"] = partner, isinstance(mix, Blend) & (partner >= 0)
        drawn["fraction"] = drawn["blend"] / 2
        if isinstance(mix, CutMix):
            side = part if height == 1 else np.sqrt(part)
            for low, high, size, where in (("left", "right", width, across), ("top", "bottom", height, down)):
                half = side * size / 2 if size > 1 else np.ones(len(ids))
                middle = where * size
                drawn[low] = np.where(partner < 0, 0, np.clip(np.rint(middle - half), 0, size))
                drawn[high] = np.where(partner < 0, 0, np.clip(np.rint(middle + half), 0, size))
            covered = (drawn["right"] - drawn["left"]) * (drawn["bottom"] - drawn["top"])
            drawn["fraction"] = covered / (width * height)
    if (noise := _find(augment, NoiseEvents)) is not None:
        mean = noise.hz * width * height * window / (1000 * each_ms)
        least, chances = _poisson(mean)
        drawn["noises"] = least + np.searchsorted(chances, _numbers(seed, _COUNT, ids, 1)[0], side="right")
    time, channel, pixel = _find(augment, TimeJitter), _find(augment, ChannelJitter), _find(augment, SpatialJitter)
    distance = channel.channels if channel else pixel.px if pixel else 0.0
    return Changes(drawn, _normal(time.ms * each_ms if time else 0.0), _normal(distance), has_rows=height > 1)


def targets_changed(
    augment: Sequence[Augmentation], targets: np.ndarray, ids: np.ndarray, drawn: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """The targets of the recordings `ids`, of those of the part, as `draw` changed them: of a mirrored one the other
    class of its pair; where classes are mixed the fraction of each, float32 [len(ids), classes]."""
    mine, flip = targets[ids], _find(augment, Flip)
    if mixing_classes(augment) is None:
        return mine if flip is None else _mirrored(mine, drawn["flip"], flip, names)
    second = targets[np.where(drawn["partner"] < 0, ids, drawn["partner"])]
    if flip is not None:
        mine, second = (_mirrored(each, drawn["flip"], flip, names) for each in (mine, second))
    fractions, rows = np.zeros((len(ids), len(names))), np.arange(len(ids))
    fractions[rows, mine] = 1 - drawn["fraction"]
    fractions[rows, second] += drawn["fraction"]
    return fractions.astype(np.float32)


def _mirrored(targets: np.ndarray, flipped: np.ndarray, flip: Flip, names: Sequence[str]) -> np.ndarray:
    """The classes of recordings of which some are mirrored."""
    if not flip.classes:
        return targets
    other = np.arange(-1, len(names))  # from UNLABELLED on
    for pair in flip.classes:
        first, second = map(names.index, pair)
        other[[first + 1, second + 1]] = second, first
    return np.where(flipped.astype(bool).reshape(-1, *(1,) * (targets.ndim - 1)), other[targets + 1], targets)


def moves_of(
    data: Data, ids: np.ndarray, *, seed: int | None, recordings: int, has_rows: bool
) -> dict[str, np.ndarray]:
    """Shifts and turns of the recordings `ids`, drawn for all those of the part so that neighbours do not matter."""
    moves: dict[str, np.ndarray] = {}
    if seed is None:
        return moves
    if reach := data.translate_px:
        shifts = np.random.default_rng((seed, _SHIFT)).integers(-reach, reach + 1, (recordings, 2))[ids]
        moves["shifts"] = shifts * (1, 1 if has_rows else 0)  # a row of channels moves along itself
    if most := data.rotate_deg:
        turns = np.random.default_rng((seed, _TURN)).uniform(-most, most, recordings)
        moves["turns"] = np.deg2rad(turns[ids])
    return moves


def _find(augment: Sequence[Augmentation], kind: type[Kind]) -> Kind | None:
    return cast(Any, next((each for each in augment if type(each) is kind), None))


def _keys(seed: int, purpose: int, ids: np.ndarray) -> np.ndarray:
    """A key for each recording."""
    word = np.array([seed], np.uint64) + np.array([_GOLDEN], np.uint64) * np.uint64(purpose + 1)
    return mixed(mixed(word) + np.array([_GOLDEN], np.uint64) * (ids.astype(np.uint64) + np.uint64(1)))


def _numbers(seed: int, purpose: int, ids: np.ndarray, count: int) -> np.ndarray:
    """Numbers evenly in 0..1, below 1, [count, len(ids)]."""
    counted = np.array([_GOLDEN], np.uint64) * np.arange(1, count + 1, dtype=np.uint64)
    return (mixed(_keys(seed, purpose, ids) + counted[:, None]) >> np.uint64(11)) * 2.0**-53


@cache
def _poisson(mean: float) -> tuple[int, np.ndarray]:
    """The least count that is drawn, and the chances of at most it, of at most the next one, and so on."""
    reach = 12 * math.sqrt(mean) + 30  # what lies further off is rarer than 1e-25
    low = max(0, int(mean - reach))
    logs = np.cumsum(math.log(mean) - np.log(np.arange(low + 1, int(mean + reach) + 1)))
    first = low * math.log(mean) - mean - math.lgamma(low + 1)
    return low, np.cumsum(np.exp(first + np.concatenate([[0.0], logs])))


@cache
def _quantiles() -> np.ndarray:
    normal = NormalDist()
    return np.array([normal.inv_cdf((index + 0.5) / QUANTILES) for index in range(QUANTILES)])


def _normal(deviation: float) -> np.ndarray:
    """Quantiles of a normal distribution, rounded, which are equally likely; none for a deviation of 0."""
    return np.rint(deviation * _quantiles()).astype(np.int64) if deviation else np.empty(0, np.int64)
