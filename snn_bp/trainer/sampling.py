"""Which training recordings an epoch sees, and in which order."""

import numpy as np

from snn_bp.data import Dataset
from snn_bp.errors import SnnError
from snn_bp.runs.training_options import Train

_BALANCED = 4  # a stream of random numbers beside those that a data set draws


def batches_of_epoch(dataset: Dataset, train: Train, *, seed: int) -> list[np.ndarray]:
    """The ids of each batch: all recordings once in an order drawn by `seed`, or as many draws, each class as often."""
    if train.sampler == "shuffled":
        return dataset.batches("train", seed=seed)
    chances = class_chances(dataset)
    ids = dataset.ids["train"]
    drawn = np.random.default_rng((seed, _BALANCED)).choice(ids, size=len(ids), p=chances)
    return [drawn[start : start + dataset.data.batch] for start in range(0, len(drawn), dataset.data.batch)]


def class_chances(dataset: Dataset) -> np.ndarray:
    """The chance of each training recording by which every class that occurs is drawn as often."""
    if dataset.targets.kind != "class":
        raise SnnError(
            f"train.sampler='balanced': it balances classes, these targets are of the kind {dataset.targets.kind!r}. "
            "Use 'shuffled'."
        )
    labels = dataset.labels("train")
    counts = np.bincount(labels, minlength=1)
    chances = 1.0 / counts[labels]
    return chances / chances.sum()
