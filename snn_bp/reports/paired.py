"""Two runs on the same recordings, or two groups of the same seeds: how far apart, and how much of it is chance."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from snn_bp.model.metrics import METRICS, metric_for, usual_metric, value_of
from snn_bp.runs.answers import Answers
from snn_bp.runs.folder import Run
from snn_bp.runs.interval import mcnemar, mean_interval, paired_t
from snn_bp.runs.records import differing_contents, digits

DRAWS, DRAWS_OF_OWN = 2000, 200  # samples of recordings; a metric of the user's is called for each


@dataclass(frozen=True)
class Pair:
    """Two runs on the same recordings of a split.

    The interval is that of a paired bootstrap: recordings are drawn with replacement, for both runs alike. Where a
    recording has one class, `p` is that of McNemar's exact test of those that one run alone gets right.
    """

    runs: tuple[str, str]
    split: str
    samples: int
    metric: str
    values: tuple[float, float]
    difference: float  # the second run's figure less the first's
    low: float  # 95 % interval of the difference
    high: float
    first_alone: int | None = None  # recordings that the first run alone gets right
    second_alone: int | None = None
    p: float | None = None

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        first, second = map(digits, self.values)
        text = (
            f"{self.runs[0]} and {self.runs[1]} on the same {self.samples} recordings of {self.split}: "
            f"{self.metric.replace('_', ' ')} {first} and {second}, a difference of {_signed(self.difference)} "
            f"(95 % interval by paired bootstrap {_signed(self.low)} .. {_signed(self.high)})"
        )
        if self.p is None:
            return text + "."
        return (
            f"{text}. {self.first_alone} recordings the first alone gets right, {self.second_alone} the second: "
            f"McNemar's exact test p = {self.p:.3g}."
        )


@dataclass(frozen=True)
class SeedPair:
    """Two groups of runs with the same seeds, compared seed by seed: Student's paired t-test of a figure.

    The interval is that of the mean difference over seeds. `p` is None where the differences do not vary.
    """

    groups: tuple[int, int]  # counted from 1
    measure: str
    seeds: int
    difference: float  # the second group's figure less the first's
    low: float  # 95 % interval of the difference
    high: float
    p: float | None

    @classmethod
    def of(
        cls, groups: tuple[int, int], measure: str, first: Mapping[int, float], second: Mapping[int, float]
    ) -> "SeedPair":
        """The pair of two groups, by their figures for each seed."""
        differences = [second[seed] - first[seed] for seed in first]
        low, high = mean_interval(fmean(differences), stdev(differences), len(differences))
        return cls(groups, measure, len(first), fmean(differences), low, high, paired_t(differences))

    def __str__(self) -> str:
        text = (
            f"group {self.groups[1]} less group {self.groups[0]}, {self.seeds} seeds: {self.measure.replace('_', ' ')} "
            f"{_signed(self.difference)}"
        )
        if self.p is None:
            return f"{text} of each seed; the differences do not vary, so that a t-test has nothing to go by."
        return f"{text} (95 % interval {_signed(self.low)} .. {_signed(self.high)}), paired t-test p = {self.p:.3g}."


def pair_of(first: Run, second: Run, split: str = "test") -> Pair | str:
    """The pair of two finished runs; why there is none, in a sentence, where they have not met the same recordings."""
    found = [Answers.read(run.path, split) for run in (first, second)]
    for run, predictions in zip((first, second), found, strict=True):
        if predictions is None:
            return (
                f"{run.path} keeps no predictions of {split}: it has no such split, or is of a version that kept none"
            )
    mine, other = (predictions for predictions in found if predictions is not None)
    other = _in_the_order_of(mine, other)
    if other is None:
        return f"{first.path} and {second.path} were not tested on the same recordings and targets"
    if (name := differing_contents(first.path, second.path, split)) is not None:
        return f"{first.path} and {second.path} were not tested on the same recordings: {name} has other contents"
    asked = [metric_for(run.experiment.train_at_step(), mine.targets) for run in (first, second)]
    metric = asked[0] if asked[0] == asked[1] else usual_metric(first.experiment.train.loss, mine.targets)
    values = tuple(value_of(metric, each.scores, each.values, each.mask) for each in (mine, other))
    low, high = _interval(_differences(metric, mine, other))
    pair = Pair(
        (str(first.path), str(second.path)), split, len(mine.names), metric.name, (values[0], values[1]),
        values[1] - values[0], low, high,
    )  # fmt: skip
    if mine.targets.kind != "class":
        return pair
    right = [each.scores.argmax(1) == each.values for each in (mine, other)]
    alone = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return Pair(**(asdict(pair) | {"first_alone": alone[0], "second_alone": alone[1], "p": mcnemar(*alone)}))


def _in_the_order_of(mine: Answers, other: Answers) -> Answers | None:
    """The other's recordings in the order of the first's; None where recordings or targets are not the same."""
    if sorted(mine.names) != sorted(other.names) or mine.targets != other.targets:
        return None
    if mine.names != other.names:
        if len(set(mine.names)) < len(mine.names):
            return None
        index = {name: row for row, name in enumerate(other.names)}
        rows = torch.tensor([index[name] for name in mine.names])
        mask = None if other.mask is None else other.mask[:, rows]
        other = Answers(other.targets, mine.names, other.scores[rows], other.values[rows], mask)
    same = torch.equal(mine.values, other.values) and (mine.mask is None) == (other.mask is None)
    if not same or (mine.mask is not None and other.mask is not None and not torch.equal(mine.mask, other.mask)):
        return None
    return other


def _differences(metric: Any, mine: Answers, other: Answers) -> np.ndarray:
    """The second run's figure less the first's, on recordings drawn with replacement."""
    draw, count = np.random.default_rng(0), len(mine.names)
    figures: list[Callable[[np.ndarray], float]] = []
    for each in (mine, other):
        if type(metric) in METRICS:
            parts = metric.parts(each.scores, each.values, each.mask).double()
            figures.append(lambda times, parts=parts: metric.of(torch.from_numpy(times).double() @ parts))
        else:
            figures.append(lambda times, each=each: _drawn(metric, each, times))
    found = []
    for _ in range(DRAWS if type(metric) in METRICS else DRAWS_OF_OWN):
        times = draw.multinomial(count, np.full(count, 1 / count))
        found.append(figures[1](times) - figures[0](times))
    return np.array(found)


def _drawn(metric: Any, predictions: Answers, times: np.ndarray) -> float:
    rows = torch.from_numpy(np.repeat(np.arange(len(times)), times))
    mask = None if predictions.mask is None else predictions.mask[:, rows]
    return value_of(metric, predictions.scores[rows], predictions.values[rows], mask)


def _interval(differences: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(differences, (0.025, 0.975))
    return float(low), float(high)


def _signed(value: float) -> str:
    return f"{value:+.4f}" if not value or abs(value) >= 0.01 else f"{value:+.3g}"
