"""Metrics against scikit-learn and closed forms, over batches, with masks, and metrics of a user's own."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from snn_bp import (
    F1,
    R2,
    Accuracy,
    BalancedAccuracy,
    CountCrossEntropy,
    MeanAbsoluteError,
    SnnError,
    StepAccuracy,
    Tau,
    Train,
    VanRossum,
    VanRossumDistance,
)
from snn_bp.model.metrics import (
    METRICS,
    USUAL,
    Meter,
    check_metric,
    metric_for,
    metrics_for,
    parts_of_batch,
    value_of,
    value_of_parts,
)  # fmt: skip
from snn_bp.model.targets import KINDS, PER_STEP, Targets

N, TIME, SIZE = 50, 9, 4
NAMES = ("a", "b", "c", "d")
CASES = [(kind(), fit) for kind in METRICS for fit in kind.fits]
EVERY = pytest.mark.parametrize("metric, kind", CASES, ids=str)
LENGTHS = torch.randint(1, TIME + 1, (N,), generator=torch.Generator().manual_seed(9))
MASK = torch.arange(TIME)[:, None] < LENGTHS


def drawn(kind, *, seed=0):
    """Scores and targets that agree now and then; one class of four hardly occurs, one never."""
    draw = torch.Generator().manual_seed(seed)
    rows = (N, TIME) if kind in PER_STEP else (N,)
    scores = torch.randn(*rows, SIZE, generator=draw)
    if kind in ("class", "class per step"):
        targets = torch.multinomial(torch.tensor([0.6, 0.3, 0.1, 0.0]), math.prod(rows), True, generator=draw).view(
            rows
        )
        scores[..., 3] -= 2
        if kind == "class per step":
            targets[torch.rand(rows, generator=draw) < 0.3] = -1
        return scores, targets
    noise = torch.randn(*rows, SIZE, generator=draw)
    if kind.startswith("vector"):
        return scores, 2 * scores + 1 + noise
    return (scores if kind == "labels" else (scores > 0.5).float()), ((scores + noise) > 0.7).float()


def flat(kind, scores, targets, mask=None):
    """What counts, as rows of NumPy."""
    if kind not in PER_STEP:
        return scores.numpy(), targets.numpy()
    there = torch.ones(len(targets), TIME, dtype=torch.bool) if mask is None else mask.t()
    if kind == "class per step":
        there = there & (targets >= 0)
    return scores[there].numpy(), targets[there].numpy()


def by_sklearn(metric, scores, targets):
    if isinstance(metric, F1) and targets.ndim == 2:
        return sklearn.f1_score(targets, scores > metric.threshold, average="macro", zero_division=np.nan)
    if isinstance(metric, MeanAbsoluteError):
        return sklearn.mean_absolute_error(targets, scores)
    if isinstance(metric, R2):
        return sklearn.r2_score(targets, scores)
    predicted = scores.argmax(-1)
    if isinstance(metric, F1):
        return sklearn.f1_score(targets, predicted, average="macro", zero_division=np.nan)
    if isinstance(metric, BalancedAccuracy):
        return np.mean([(predicted[targets == one] == one).mean() for one in np.unique(targets)])
    return sklearn.accuracy_score(targets, predicted)


@EVERY
@pytest.mark.parametrize("masked", (False, True))
@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_scikit_learn(metric, kind, masked, seed):
    if kind == "spikes":
        return  # below
    scores, targets = drawn(kind, seed=seed)
    mask = MASK if masked else None

    # single precision scores, sums in another order
    assert metric(scores, targets, mask) == pytest.approx(
        by_sklearn(metric, *flat(kind, scores, targets, mask)), rel=1e-5
    )


@EVERY
@pytest.mark.parametrize("mask", (None, MASK), ids=("full", "masked"))
def test_batches_add_up_to_the_split(metric, kind, mask):
    scores, targets = drawn(kind)
    meter, total = Meter(metric), None
    for ids in torch.arange(N).split(7):
        batch = scores[ids], targets[ids], None if mask is None else mask[:, ids]
        meter.add(*batch)
        parts = parts_of_batch(metric, *batch)
        total = parts if total is None else [a + b for a, b in zip(total, parts, strict=True)]

    wanted = value_of(metric, scores, targets, mask)
    # van Rossum's distances are sums in single precision
    assert meter.value() == pytest.approx(wanted, rel=1e-7)
    assert value_of_parts(metric, total) == pytest.approx(wanted, rel=1e-7)


@EVERY
def test_steps_that_a_recording_does_not_have_do_not_count(metric, kind):
    scores, targets = drawn(kind)
    other = torch.where(MASK.t()[..., None], scores, 5.0) if kind in PER_STEP else scores

    assert metric(scores, targets, MASK) == metric(other, targets, MASK)


@EVERY
def test_a_right_answer_is_the_best_there_is(metric, kind):
    scores, targets = drawn(kind)
    right = torch.eye(SIZE)[targets.clamp(min=0)] if not targets.is_floating_point() else targets
    right = right - 0.5 if kind == "labels" else right

    best = metric(right, targets, None)
    assert best == (1 if metric.higher_is_better else 0)
    assert (metric(scores, targets, None) < best) == metric.higher_is_better


def test_the_distance_of_spike_trains_is_that_of_filtered_trains():
    scores, targets = drawn("spikes")
    tau, found = 3.0, []
    for train, wanted in zip(scores, targets, strict=True):
        apart = np.zeros((TIME, SIZE))
        trace = np.zeros(SIZE)
        for step in range(TIME):
            trace = trace * np.exp(-1 / tau) + (train[step] - wanted[step]).numpy()
            apart[step] = trace
        found.append(np.sqrt((apart**2).sum(0) / tau))

    assert VanRossumDistance(tau=tau)(scores, targets, None) == pytest.approx(np.mean(found), rel=1e-5)
    assert VanRossumDistance(tau=Tau(6)).at_step(2) == VanRossumDistance(tau=3.0)


def test_nothing_counted_gives_no_number():
    scores, targets = drawn("class per step")

    for metric in (StepAccuracy(), BalancedAccuracy(), F1()):
        assert math.isnan(metric(scores, torch.full_like(targets, -1), None)) or isinstance(metric, F1)


def test_an_output_whose_targets_are_all_the_same_explains_nothing_or_all():
    targets = torch.full((5, 2), 3.7)

    assert R2()(targets, targets, None) == 1
    assert R2()(targets + torch.tensor([0.0, 1.0]), targets, None) == 0.5


def test_each_kind_of_target_has_a_metric_of_its_own():
    train = Train()

    assert {kind: metric_for(train, Targets(kind, NAMES)).name for kind in KINDS} == {
        "class": "accuracy", "class per step": "step_accuracy", "vector": "mae", "vector per step": "mae",
        "labels": "f1", "spikes": "van_rossum",
    }  # fmt: skip
    assert metric_for(Train(metric=F1()), Targets("class", NAMES)) == F1()
    assert metric_for(Train(loss=VanRossum(tau=4)), Targets("spikes", NAMES)) == VanRossumDistance(tau=4)
    assert [each.name for each in metrics_for(F1(), Targets("class", NAMES))] == ["f1", "accuracy", "balanced_accuracy"]
    assert all(kind in USUAL[kind].fits for kind in KINDS)


# Metrics of a user's own


@dataclass(frozen=True)
class TopTwo:
    name: ClassVar = "top_two"
    higher_is_better: ClassVar = True

    def __call__(self, scores, targets):
        return (scores.topk(2, 1).indices == targets[:, None]).any(1).float().mean()


def test_a_metric_of_ones_own_sees_the_whole_split():
    scores, targets = drawn("class")
    meter, parts = Meter(TopTwo()), [0.0, 0.0]
    for ids in torch.arange(N).split(7):
        meter.add(scores[ids], targets[ids], None)
        parts = [a + b for a, b in zip(parts, parts_of_batch(TopTwo(), scores[ids], targets[ids]), strict=True)]

    assert meter.value() == float(TopTwo()(scores, targets))
    assert value_of_parts(TopTwo(), parts) == pytest.approx(meter.value(), rel=1e-6)  # a mean over recordings is exact
    check_metric(TopTwo(), Targets("class", NAMES), steps=5, masked=False)
    with pytest.raises(SnnError, match="TopTwo: recordings have different lengths"):
        check_metric(TopTwo(), Targets("class", NAMES), steps=5, masked=True)


def own(**parts):
    return type("Mine", (), {"name": "mine", "higher_is_better": True, "__call__": lambda self, s, t: 1.0} | parts)()


@pytest.mark.parametrize(
    "metric, message",
    (
        (own(name="with, comma"), "a name of letters"), (own(name="loss"), "not loss or accuracy"),
        (own(name="accuracy"), "not loss or accuracy"), (own(higher_is_better=None), "higher_is_better"),
        (Accuracy, "higher_is_better|as Accuracy"), (CountCrossEntropy(), "a frozen dataclass of your own with a name"),
        (own(fits=("labels",)), "for targets of the kind 'labels'.*train.metric=Accuracy"),
        (own(__call__=lambda self, s, t: s[99]), "Mine: it breaks on scores of zeros .* IndexError"),
        (StepAccuracy(), "StepAccuracy.*'class per step'.*'class'"),
    ),
    ids=lambda given: given if isinstance(given, str) else getattr(type(given), "__name__", ""),
)  # fmt: skip
def test_what_is_no_metric_or_does_not_fit_is_refused(metric, message):
    with pytest.raises(SnnError, match=message):
        check_metric(metric, Targets("class", NAMES), steps=5, masked=False)
