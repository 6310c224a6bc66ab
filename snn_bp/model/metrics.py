"""Metrics: what an answer is worth, from its scores and the targets of a whole split.

A metric is a frozen value with a `name`, `higher_is_better` and a call `(scores, targets, mask)` that gives a number:
scores `[batch, outputs]` or, of targets for every step, `[batch, time, outputs]`, as `scores_of` of a loss gives them,
`mask` `[time, batch]` or None. Ours are sums over recordings at heart: `parts` gives what each recording adds, `of` the
figure of their sum. So they can be added up batch by batch, and recordings be drawn anew for an interval.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_bp.errors import SnnError, shown
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Called, Within, check_fields
from snn_bp.model.losses import VanRossum
from snn_bp.model.losses.checks import check_scores
from snn_bp.model.losses.values import squared_distances, tau_in_steps
from snn_bp.model.signatures import called, takes
from snn_bp.model.targets import PER_STEP, UNLABELLED, Kind, Targets
from snn_bp.neurons import Tau
from snn_bp.runtime.own_lines import in_words


def _value(metric: Any, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> float:
    """The figure of these recordings."""
    check_scores(metric, scores, targets, mask)
    return metric.of(metric.parts(scores, targets, mask).sum(0))


@checked_dataclass(frozen=True)
class Accuracy:
    """The fraction of recordings whose class has the highest score: scores `[batch, classes]`, targets `[batch]`.

    >>> Accuracy()(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
    0.5
    """

    name: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    fits: ClassVar[tuple[Kind, ...]] = ("class",)

    def parts(self, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """For each recording: whether it is right, and 1."""
        return torch.stack([scores.argmax(1) == targets, torch.ones_like(targets)], 1).double()

    def of(self, total: Tensor) -> float:
        """The figure of summed parts."""
        return _ratio(total)

    __call__ = _value


@checked_dataclass(frozen=True)
class StepAccuracy:
    """The fraction of steps with a label whose class has the highest score, over all recordings together.

    >>> StepAccuracy()(torch.eye(3)[None], torch.tensor([[0, 1, -1]]))  # [batch, time, classes]; -1: no label
    1.0
    """

    name: ClassVar[str] = "step_accuracy"
    higher_is_better: ClassVar[bool] = True
    fits: ClassVar[tuple[Kind, ...]] = ("class per step",)

    def parts(self, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """For each recording: how many steps are right, and how many have a label."""
        labelled = counted(targets, mask)
        right = (scores.argmax(2) == targets) & labelled
        return torch.stack([right.sum(1), labelled.sum(1)], 1).double()

    def of(self, total: Tensor) -> float:
        """The figure of summed parts."""
        return _ratio(total)

    __call__ = _value


@checked_dataclass(frozen=True)
class BalancedAccuracy:
    """The mean over classes of the fraction of their recordings (steps) that is right; classes that occur alone count.

    Always giving one class is worth 1 / classes, however frequent that class is.

    >>> BalancedAccuracy()(torch.tensor([[1.0, 0.0]]).repeat(4, 1), torch.tensor([0, 0, 0, 1]))
    0.5
    """

    name: ClassVar[str] = "balanced_accuracy"
    higher_is_better: ClassVar[bool] = True
    fits: ClassVar[tuple[Kind, ...]] = ("class", "class per step")

    def parts(self, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """For each recording and class: how many are right, and how many there are."""
        wanted, predicted = _one_hot(scores, targets, mask)
        return torch.cat([(wanted & predicted).sum(1), wanted.sum(1)], 1).double()

    def of(self, total: Tensor) -> float:
        """The figure of summed parts."""
        right, there = total.view(2, -1)
        return _mean((right / there)[there > 0])

    __call__ = _value


@checked_dataclass(frozen=True)
class F1:
    """The mean over classes, or labels, of 2 TP / (2 TP + FP + FN); those that neither occur nor are predicted are left
    out. Of several labels, one is predicted where its score is above `threshold` (0.0).

    As scikit-learn's f1_score(average="macro", zero_division=nan).

    >>> F1()(torch.tensor([[2.0, -1.0], [2.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    0.8333333333333333
    """

    threshold: float = 0.0
    name: ClassVar[str] = "f1"
    higher_is_better: ClassVar[bool] = True
    fits: ClassVar[tuple[Kind, ...]] = ("class", "class per step", "labels")

    __post_init__ = check_fields

    def parts(self, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """For each recording and class: twice the true positives, and those with all that is wrong on top."""
        if targets.is_floating_point():
            wanted, predicted = (targets > 0.5)[:, None], (scores > self.threshold)[:, None]
        else:
            wanted, predicted = _one_hot(scores, targets, mask)
        return torch.cat([2 * (wanted & predicted).sum(1), wanted.sum(1) + predicted.sum(1)], 1).double()

    def of(self, total: Tensor) -> float:
        """The figure of summed parts."""
        right, there = total.view(2, -1)
        return _mean((right / there)[there > 0])

    __call__ = _value


@checked_dataclass(frozen=True)
class MeanAbsoluteError:
    """The mean distance of scores from targets, over outputs, recordings and steps alike.

    >>> MeanAbsoluteError()(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.5, 2.0]]))
    0.25
    """

    name: ClassVar[str] = "mae"
    higher_is_better: ClassVar[bool] = False
    fits: ClassVar[tuple[Kind, ...]] = ("vector", "vector per step")

    def parts(self, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """For each recording: the sum of distances, and how many there are."""
        there = _entries(targets, mask)
        away = ((scores.double() - targets.double()).abs() * there).flatten(1).sum(1)
        return torch.stack([away, there.flatten(1).sum(1)], 1)

    def of(self, total: Tensor) -> float:
        """The figure of summed parts."""
        return _ratio(total)

    __call__ = _value


@checked_dataclass(frozen=True)
class R2:
    """The fraction of the targets' variance that scores explain, mean over outputs; 0 where always giving the mean is
    as good. An output whose targets are all the same counts as 1 where it is met, else as 0, as in scikit-learn.

    >>> R2()(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[1.0], [2.0], [4.0]]))
    0.7857142857142858
    """

    name: ClassVar[str] = "r2"
    higher_is_better: ClassVar[bool] = True
    fits: ClassVar[tuple[Kind, ...]] = ("vector", "vector per step")

    def parts(self, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """For each recording and output: how many targets, their sum, that of their squares, and of squared errors."""
        there, wanted = _entries(targets, mask), targets.double()
        parts = (there, wanted * there, wanted.square() * there, (scores.double() - wanted).square() * there)
        return torch.cat([part.reshape(len(part), -1, part.shape[-1]).sum(1) for part in parts], 1)

    def of(self, total: Tensor) -> float:
        """The figure of summed parts."""
        count, mean, squares, errors = total.view(4, -1)
        spread = squares - mean.square() / count
        varies = spread > 1e-12 * squares  # below, it is what rounding leaves
        explained = 1 - errors / torch.where(varies, spread, 1.0)
        return _mean(torch.where(varies, explained, (errors == 0).double()))

    __call__ = _value


@checked_dataclass(frozen=True)
class VanRossumDistance:
    """The distance of spike trains of van Rossum 2001, mean over recordings and outputs; `VanRossum` has the formula.

    `tau` (10.0) is in steps, or in ms as Tau(10).

    >>> VanRossumDistance(tau=5.0)(torch.zeros(1, 50, 1), torch.zeros(1, 50, 1))
    0.0
    """

    tau: Annotated[float | Tau, Within(above=0), Called("a positive number of steps, or ms as Tau(10)")] = 10.0
    name: ClassVar[str] = "van_rossum"
    higher_is_better: ClassVar[bool] = False
    fits: ClassVar[tuple[Kind, ...]] = ("spikes",)

    __post_init__ = check_fields

    def at_step(self, step_ms: float) -> "VanRossumDistance":
        """With `tau` in steps of `step_ms`."""
        return replace(self, tau=tau_in_steps(self.tau, step_ms))

    def parts(self, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """For each recording: the sum of its outputs' distances, and how many there are."""
        with torch.no_grad():
            distances = squared_distances(scores.transpose(0, 1).float(), targets, mask, tau=self.tau).double().sqrt()
        return torch.stack([distances.sum(1), torch.full_like(distances[:, 0], distances.shape[1])], 1)

    def of(self, total: Tensor) -> float:
        """The figure of summed parts."""
        return _ratio(total)

    __call__ = _value


Metric: TypeAlias = Accuracy | StepAccuracy | BalancedAccuracy | F1 | MeanAbsoluteError | R2 | VanRossumDistance
METRICS: tuple[type, ...] = Metric.__args__  # type: ignore[attr-defined]
USUAL: dict[Kind, type] = {
    "class": Accuracy,
    "class per step": StepAccuracy,
    "vector": MeanAbsoluteError,
    "vector per step": MeanAbsoluteError,
    "labels": F1,
    "spikes": VanRossumDistance,
}
TRIED = 2  # recordings of silence on which a metric of a user's is tried


class MetricAndLoss(Protocol):
    """What of a `Train` the metric depends on."""

    @property
    def metric(self) -> Any: ...

    @property
    def loss(self) -> Any: ...


def metric_for(train: MetricAndLoss, targets: Targets) -> Any:
    """The metric in force: the one that is named, else what is usual for the targets."""
    return usual_metric(train.loss, targets) if train.metric is None else train.metric


def usual_metric(loss: Any, targets: Targets) -> Any:
    """What is usual for the kind of the targets; of spike trains with the time constant of the loss `VanRossum`."""
    if targets.kind == "spikes" and type(loss) is VanRossum:
        return VanRossumDistance(tau=loss.tau)
    return USUAL[targets.kind]()


def columns_of(metric: Any, targets: Targets) -> list[str]:
    """The names under which an epoch's row has figures: the metric's, and of classes the accuracy ahead of it."""
    return list(dict.fromkeys(["accuracy"] * (targets.kind == "class") + [metric.name]))


def metrics_for(metric: Any, targets: Targets) -> list[Any]:
    """The metric in force, and behind it those of ours that fit the targets."""
    fitting = [kind() for kind in METRICS if targets.kind in kind.fits]
    return [metric, *(each for each in fitting if each.name != metric.name)]


def value_of(metric: Any, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> float:
    """The figure of a metric of ours or of the user's; one that takes no mask is refused where there is one."""
    if takes(metric, "mask"):
        return float(metric(scores, targets, mask=mask))
    if mask is not None:
        raise SnnError(
            f"{called(metric)}: recordings have different lengths, and it takes no mask. Let it be called with "
            "(self, scores, targets, mask): mask is bool [time, batch], true where a recording has a step."
        )
    return float(metric(scores, targets))


def parts_of_batch(metric: Any, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> list[float]:
    """What a batch adds to a metric that is summed up; of a user's metric, its figure times the recordings, and those.

    So a metric of the user's that is no mean over recordings is given as the mean over batches.
    """
    if type(metric) in METRICS:
        return metric.parts(scores, targets, mask).sum(0).tolist()
    value = value_of(metric, scores, targets, mask)
    return [value * len(targets), float(len(targets))] if math.isfinite(value) else [0.0, 0.0]


def value_of_parts(metric: Any, parts: Sequence[float]) -> float:
    """The figure of parts that were added up."""
    total = torch.tensor(parts, dtype=torch.float64)
    return metric.of(total) if type(metric) in METRICS else _ratio(total)


class Meter:
    """A metric over the batches of a split, exact whatever the batches are."""

    def __init__(self, metric: Any) -> None:
        self.metric, self.total = metric, torch.zeros(())
        self.batches: list[tuple[Tensor, Tensor, Tensor | None]] = []  # for a user's metric, which sees all at once

    def add(self, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> None:
        """Take in a batch."""
        if type(self.metric) in METRICS:
            self.take(self.metric.parts(scores, targets, mask).sum(0).cpu())
        else:
            self.take((scores.cpu(), targets.cpu(), None if mask is None else mask.cpu()))

    def take(self, batch: Any) -> None:
        """Take in a batch by the sums of a metric of ours, or by scores, targets and mask."""
        if type(self.metric) in METRICS:
            self.total = self.total + batch
        else:
            self.batches.append(batch)

    def value(self) -> float:
        """The figure of all that was taken in."""
        is_ours = type(self.metric) in METRICS
        return self.metric.of(self.total) if is_ours else value_of(self.metric, *joined(self.batches))


def joined(batches: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Scores, targets and masks of all batches as those of one."""
    scores, targets, masks = zip(*batches, strict=True)
    mask = None if masks[0] is None else torch.cat(masks, 1)
    return torch.cat(scores), torch.cat(targets), mask


def check_metric(metric: Any, targets: Targets, *, steps: int, masked: bool) -> None:
    """Raise unless a metric fits the targets, and one of the user's has what is asked of it and gives a number."""
    known, name = type(metric) in METRICS, getattr(metric, "name", None)
    words = isinstance(name, str) and name.isidentifier() and (known or name not in ("loss", "accuracy"))
    if not words or not isinstance(getattr(metric, "higher_is_better", None), bool) or not callable(metric):
        raise SnnError(
            f"metric={shown(metric)}: it should be a metric, as Accuracy(), or a frozen dataclass of your own with a "
            "name of letters, digits and _ (not loss or accuracy), higher_is_better=True or False, and a call "
            "(scores, targets, mask) that gives a number."
        )
    if (fits := getattr(metric, "fits", None)) is not None and targets.kind not in fits:
        raise SnnError(
            f"{metric}: it is for targets of the kind {' or '.join(map(repr, fits))}, these are of the kind "
            f"{targets.kind!r}. train.metric={USUAL[targets.kind].__name__}() works."
        )
    if known:
        return
    shape = (TRIED, steps, targets.outputs) if targets.kind in PER_STEP else (TRIED, targets.outputs)
    mask = torch.ones(steps, TRIED, dtype=torch.bool) if masked else None
    try:
        value_of(metric, torch.zeros(shape), targets.silence(TRIED, steps), mask)
    except SnnError:
        raise
    except Exception as cause:  # whatever a user's code may raise
        raise SnnError(
            f"{called(metric)}: it breaks on scores of zeros {list(shape)} and targets of the kind {targets.kind!r} "
            f"{list(targets.shape(TRIED, steps))}: {in_words(cause)}"
        ) from cause


def counted(targets: Tensor, mask: Tensor | None) -> Tensor:
    """Which steps `[batch, time]` of classes for every step have a label, within the recording."""
    return targets != UNLABELLED if mask is None else (targets != UNLABELLED) & mask.t()


def _one_hot(scores: Tensor, targets: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """True and predicted classes `[batch, 1 or time, classes]`; steps that do not count have neither."""
    if targets.dim() == 1:
        scores, targets, mask = scores[:, None], targets[:, None], None
    there, classes = counted(targets, mask)[..., None], scores.shape[-1]
    wanted, predicted = F.one_hot(targets.clamp(min=0), classes), F.one_hot(scores.argmax(-1), classes)
    return (wanted > 0) & there, (predicted > 0) & there


def _entries(targets: Tensor, mask: Tensor | None) -> Tensor:
    """1 for each entry of a vector that counts, 0 for those of steps that a recording does not have."""
    ones = torch.ones_like(targets, dtype=torch.float64)
    return ones if mask is None or targets.dim() == 2 else ones * mask.t()[..., None]


def _ratio(total: Tensor) -> float:
    """The first sum over the second; NaN where nothing was counted."""
    right, there = total.tolist()
    return right / there if there else math.nan


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan
