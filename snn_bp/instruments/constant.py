"""Whether a network answers better than one that always says the same, for every kind of target."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp.data import Dataset
from snn_bp.instruments.findings import Finding
from snn_bp.instruments.learning import EARLY, has_learned
from snn_bp.model.metrics import metric_for, value_of
from snn_bp.model.targets import PER_STEP, UNLABELLED
from snn_bp.runs.experiment import Train

PERFECT = {
    "mae": 0.0,
    "van_rossum": 0.0,
    "r2": 1.0,
    "f1": 1.0,
    "balanced_accuracy": 1.0,
}  # what a metric of a user's can reach nobody knows


def has_accuracies(rows: Sequence[dict[str, float]], dataset: Dataset) -> bool:
    """Whether the rows of `metrics.csv` hold the accuracy of classes, of recordings or steps."""
    name = {"class": "train_accuracy", "class per step": "train_step_accuracy"}.get(dataset.targets.kind)
    return any(name in row for row in rows)


def accuracies(
    rows: Sequence[dict[str, float]], dataset: Dataset
) -> tuple[list[dict[str, float]], dict[str, np.ndarray], dict[str, int]]:
    """The rows with accuracies, also where every step may have a class; the labels; and how many recordings."""
    labels = {split: dataset.labels(split) for split in ("train", "validation")}
    counts = {split: len(each) for split, each in labels.items()}
    if dataset.targets.kind == "class":
        return list(rows), labels, counts
    labels = {split: each[each != UNLABELLED] for split, each in labels.items()}
    renamed = [{name.replace("_step_accuracy", "_accuracy"): value for name, value in row.items()} for row in rows]
    return renamed, labels, counts


def answers_well(rows: Sequence[dict[str, float]], dataset: Dataset, train: Train) -> bool:
    """Whether the best epoch is half way from one answer for all to a perfect one."""
    if has_accuracies(rows, dataset):
        rows, labels, _ = accuracies(rows, dataset)
        return has_learned(rows, labels)
    metric = metric_for(train, dataset.targets)
    found, perfect = _best(rows, metric), PERFECT.get(metric.name)
    if found is None or perfect is None:
        return False
    best, split = found
    return abs(best - perfect) <= abs(constant_value(metric, dataset, split) - perfect) / 2


def find_constant_answer(
    rows: Sequence[dict[str, float]], dataset: Dataset, train: Train, *, finished: bool, causes: bool
) -> list[Finding]:  # fmt: skip
    """Whether the best epoch is no better than always giving the same answer, learned from the training targets."""
    metric = metric_for(train, dataset.targets)
    found = _best(rows, metric)
    if found is None or (len(rows) < EARLY and not finished):
        return []
    best, split = found
    constant = constant_value(metric, dataset, split)
    if (best > constant) if metric.higher_is_better else (best < constant):
        return []
    advice = (
        "Always the same answer is as good: train longer, at another train.lr, and see that inputs tell of targets."
    )
    if causes:
        advice = "Always the same answer is as good: fix the other findings, each may be the cause."
    measure = f"{metric.name.replace('_', ' ')} of the best epoch"
    return [Finding("chance level", f"the {split} split", measure, best, constant, advice)]


def constant_value(metric: Any, dataset: Dataset, split: str) -> float:
    """The best figure on a split of an answer that is always the same."""
    if dataset.targets.are_classes:
        labels, wanted = dataset.labels("train"), torch.from_numpy(dataset.labels(split))
        usual = int(np.bincount(labels[labels != UNLABELLED]).argmax())
        scores = torch.eye(dataset.classes)[usual].expand(*wanted.shape, dataset.classes)
        return value_of(metric, scores, wanted, dataset.mask(split, dataset.ids[split]))
    train, wanted = (torch.from_numpy(dataset.labels(name)).float() for name in ("train", split))
    there, mask = _there(dataset, "train"), dataset.mask(split, dataset.ids[split])
    rows = (
        train[there] if dataset.targets.kind in PER_STEP and there is not None else train.reshape(-1, train.shape[-1])
    )
    figures = [value_of(metric, answer.expand(wanted.shape), wanted, mask) for answer in _constants(rows, dataset)]
    figures = [figure for figure in figures if not math.isnan(figure)]
    return (max if metric.higher_is_better else min)(figures, default=math.nan)


def _constants(rows: Tensor, dataset: Dataset) -> list[Tensor]:
    """Answers that somebody could always give, `[outputs]` each."""
    none = torch.zeros(rows.shape[-1])
    if dataset.targets.kind == "spikes":
        return [none]
    if dataset.targets.kind == "labels":
        return [2 * (rows.mean(0) > 0.5).float() - 1, none + 1]
    return [rows.mean(0), rows.median(0).values]


def _there(dataset: Dataset, split: str) -> Tensor | None:
    mask = dataset.mask(split, dataset.ids[split])
    return None if mask is None else mask.t()


def _best(rows: Sequence[dict[str, float]], metric: Any) -> tuple[float, str] | None:
    """The best figure of all epochs, in validation where there is one, and of which split it is."""
    split = "validation" if any(f"validation_{metric.name}" in row for row in rows) else "train"
    values = [row[f"{split}_{metric.name}"] for row in rows if f"{split}_{metric.name}" in row]
    values = [value for value in values if not math.isnan(value)]
    return ((max if metric.higher_is_better else min)(values), split) if values else None
