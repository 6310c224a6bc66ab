"""Splits: which recordings are learned from, which judge while learning, and which are kept for the end.

They are drawn by a seed, by a table that comes with the recordings, by groups (a speaker, a subject, a session) that
never stand on both sides, or as one of several folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from snn_bp.data.beside import Beside
from snn_bp.errors import SnnError, nearest, shown

_TEST, _FOLDS = 1, 2  # streams of random numbers besides that of the validation split


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The recordings of the training part as a split is drawn from them."""

    labels: np.ndarray  # classes to be kept alike; zeros where targets are none
    beside: Beside
    source: str  # in messages

    def __len__(self) -> int:
        return len(self.labels)


def draw_splits(data: Any, pool: Pool, *, test: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Ids of each split, ascending, and what is worth a note; `test` recordings are in a test part of their own.

    Without any, the test split is drawn from the pool where it is asked for: by the table, `test_groups`, `folds` or
    `test_fraction`.
    """
    table, everything = np.array(pool.beside.splits), np.arange(len(pool))
    told, notes = len(table) > 0, []
    asked = [name for name in ("test_groups", "test_fraction") if getattr(data, name)]
    if asked and (test or (told and (table == "test").any())):
        by = f"a test part of {test} recordings" if test else "a table that names the test split"
        raise SnnError(f"data.{asked[0]}={getattr(data, asked[0])!r}: {pool.source} has {by}. Leave {asked[0]} out.")
    held = everything[:0]
    if told and not test:
        held = everything[table == "test"]
    if data.test_groups:
        held = _of_groups(pool, data.test_groups)
    elif data.test_fraction:
        held, note = _drawn(pool, everything, data, fraction=data.test_fraction, seed=(data.split_seed, _TEST))
        notes += [f"test split: {note}"] * bool(note)
    folded = _fold(pool, everything, data) if data.folds else None
    if folded is not None and not test and not len(held):
        held, folded = folded, None
    rest = np.setdiff1d(everything, held)
    if told and (table[rest] == "validation").any():
        validation, note = rest[table[rest] == "validation"], ""
    elif folded is not None:
        validation, note = np.setdiff1d(folded, held), ""
    else:
        validation, note = _drawn(pool, rest, data, fraction=data.validation_fraction, seed=data.split_seed)
    ids = {"train": np.setdiff1d(rest, validation), "validation": validation}
    notes += [f"validation: {note}"] * bool(note)
    return ids | {"test": held if not test else np.arange(test)}, notes


def draw_validation(labels: np.ndarray, *, fraction: float, seed: Any) -> tuple[np.ndarray, np.ndarray, str]:
    """Ids for training, ids for validation, both ascending, and a note where classes could not be kept alike.

    Each class of two or more gives `round(fraction * n)`, at least one and never all.
    """
    everything = np.arange(len(labels))
    if fraction == 0:
        return everything, everything[:0], ""
    rng = np.random.default_rng(seed)
    groups, note = [everything[labels == label] for label in np.unique(labels)], ""
    alone = all(len(ids) == 1 for ids in groups)
    if alone:
        groups = [everything]
    drawn = [rng.permutation(ids)[: min(max(1, round(fraction * len(ids))), len(ids) - 1)] for ids in groups]
    validation = np.sort(np.concatenate(drawn))
    if alone:
        note = f"every class has one recording, so {len(validation)} of {len(labels)} were drawn from all"
    return np.setdiff1d(everything, validation), validation, note


def _drawn(pool: Pool, among: np.ndarray, data: Any, *, fraction: float, seed: Any) -> tuple[np.ndarray, str]:
    """Ids drawn from some of the pool: of each class, or whole groups."""
    if data.split_by == "recording" or not fraction:
        _, drawn, note = draw_validation(pool.labels[among], fraction=fraction, seed=seed)
        return among[drawn], note
    groups = _groups(pool)[among]
    names = np.unique(groups)
    if len(names) < 2:
        raise SnnError(
            f"data.split_by='group': {pool.source} has {len(names)} group left to split ({', '.join(names)}). "
            "Two at least are needed, or a fraction of 0."
        )
    taken: list[str] = []
    for name in np.random.default_rng(seed).permutation(names)[:-1]:
        if taken and np.isin(groups, taken).sum() >= fraction * len(among):
            break
        taken.append(str(name))
    return among[np.isin(groups, taken)], f"whole groups, {', '.join(sorted(taken))}"


def _of_groups(pool: Pool, wanted: Sequence[str]) -> np.ndarray:
    groups = _groups(pool)
    for name in wanted:
        if name not in groups:
            raise SnnError(
                f"data.test_groups: there is no group {shown(name)}. {nearest(name, sorted(set(pool.beside.groups)))}"
            )
    held = np.flatnonzero(np.isin(groups, list(wanted)))
    if len(held) == len(groups):
        raise SnnError(f"data.test_groups={tuple(wanted)}: nothing is left to train on. Name fewer groups.")
    return held


def _fold(pool: Pool, among: np.ndarray, data: Any) -> np.ndarray:
    """The ids of one of `data.folds` parts of about equal size, classes alike in each, or groups whole."""
    rng = np.random.default_rng((data.split_seed, _FOLDS))
    fold = np.empty(len(among), np.int64)
    if data.split_by == "recording":
        dealt = 0
        for label in np.unique(pool.labels):
            ids = rng.permutation(among[pool.labels == label])
            fold[ids] = (dealt + np.arange(len(ids))) % data.folds
            dealt += len(ids)
    else:
        groups, sizes = _groups(pool), np.zeros(data.folds, np.int64)
        names, counts = np.unique(groups, return_counts=True)
        order = rng.permutation(len(names))
        for number in order[np.argsort(-counts[order], kind="stable")]:  # large ones first, each to the smallest fold
            smallest = int(sizes.argmin())
            fold[groups == names[number]] = smallest
            sizes[smallest] += counts[number]
    found = among[fold == data.fold]
    if not len(found):
        raise SnnError(f"data.folds={data.folds}: {pool.source} is too small, fold {data.fold} is empty. Use fewer.")
    return found


def _groups(pool: Pool) -> np.ndarray:
    if not pool.beside.groups:
        raise SnnError(
            f"data.split_by, test_groups: {pool.source} names no groups. Let the source yield "
            "(events, target, {'group': 'ann'}), or split by recording."
        )
    return np.array(pool.beside.groups)
