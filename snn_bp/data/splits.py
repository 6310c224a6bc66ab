"""Which recordings: the validation split, drawn from each class alike by a seed, and samples of a split."""

import numpy as np


def draw_validation(labels: np.ndarray, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Ids for training, ids for validation, both ascending, and a note where classes could not be kept alike.

    Each class of two or more gives `round(share * n)`, at least one and never all.
    """
    rng = np.random.default_rng(seed)
    everything = np.arange(len(labels))
    if share == 0:
        return everything, everything[:0], ""
    members = [everything[labels == label] for label in np.unique(labels)]
    if all(len(ids) == 1 for ids in members):
        taken = rng.permutation(everything)[: min(_share_of(len(labels), share), len(labels) - 1)]
        note = f"validation: every class has one recording, so {len(taken)} of {len(labels)} were drawn from all"
    else:
        drawn = [rng.permutation(ids)[: min(_share_of(len(ids), share), len(ids) - 1)] for ids in members]
        taken, note = np.concatenate(drawn), ""
    validation = np.sort(taken)
    return np.setdiff1d(everything, validation), validation, note


def spread(ids: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` of the ids, evenly spread over all of them."""
    return ids[np.linspace(0, len(ids) - 1, min(len(ids), count)).astype(int)]


def _share_of(count: int, share: float) -> int:
    return max(1, round(share * count))
