"""What a run says of its recordings before it starts.

Events outside the window, recordings without any inside, classes without recordings, duplicates: none of these need be
an error, but each is worth a line.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from snn_bp.data.augmentations import TimeCrop
from snn_bp.data.store import CachedEvents

if TYPE_CHECKING:
    from snn_bp.data.dataset import CachedPart, Dataset

SAID_FROM = 0.01  # fraction of events outside the window; a smaller one is in data.json only
FEW = 50  # a recording with so many times fewer events than the median is named
LONG = 100  # recordings that last so many usual windows have times in another unit, or are not of this set


def notes_of(dataset: Dataset) -> list[str]:
    """What a run says of its recordings before it starts."""
    notes = []
    for part, cached in dataset.parts.items():
        if isinstance(cached, CachedEvents) and len(cached) and not _is_the_same(dataset, part):
            notes += _of_window(dataset, part) + _of_counts(dataset, part, cached)
    if dataset.targets.kind == "class":
        notes += _of_classes(dataset)
    return notes + _of_copies(dataset)


def _of_window(dataset: Dataset, part: str) -> list[str]:
    found, data = dataset.window[part], dataset.data
    window = f"the window of {_ms(data.window_us / 1000)}" + (" (before transforms)" if data.transforms else "")
    total = len(dataset.parts[part])
    notes = []
    if found.events and not found.events_inside:
        assert found.first_ms is not None and found.last_ms is not None
        notes.append(
            f"{part} part: no event of any recording lies in {window}; the first is at {_ms(found.first_ms)}, the last "
            f"at {_ms(found.last_ms)}: every frame is zero. Lengthen step_ms or steps, or repair the times in the files"
        )
    elif found.recordings_without:
        notes.append(
            f"{part} part: {found.recordings_without} of {total} recordings have no event in {window}; the first is "
            f"{_name(dataset, part, found.first_without or 0)}"
        )
    if found.events_inside and 1 - (found.fraction or 0) >= SAID_FROM:
        notes.append(f"{part} part: {1 - (found.fraction or 0):.1%} of events lie outside {window}")
    usual_ms = dataset.info.window_ms
    last_ms = found.last_ms
    crop = next((each for each in data.augment if isinstance(each, TimeCrop)), None)
    if crop and part == "train" and not data.transforms and last_ms is not None and last_ms * 1000 < data.window_us:
        notes.append(f"train part: {crop} moves nothing, no recording is longer than {window}")
    if usual_ms and last_ms is not None and (last_ms > LONG * usual_ms or last_ms * LONG < usual_ms):
        notes.append(
            f"{part} part: events up to {_ms(last_ms)}{' only' * (last_ms < usual_ms)}, where recordings of "
            f"{data.name} last about {_ms(usual_ms)}: the files may give times in another unit than the set's"
        )
    return notes


def _of_counts(dataset: Dataset, part: str, cached: CachedEvents) -> list[str]:
    lengths = np.diff(cached.events.offsets)
    notes, median = [], float(np.median(lengths))
    empty, few = np.flatnonzero(lengths == 0), np.flatnonzero((lengths > 0) & (lengths * FEW < median))
    if len(empty):
        notes.append(
            f"{part} part: {len(empty)} of {len(lengths)} recordings have no events; the first is "
            f"{_name(dataset, part, int(empty[0]))}"
        )
    if len(few):
        first = int(few[0])
        notes.append(
            f"{part} part: {len(few)} of {len(lengths)} recordings have few events; the first is "
            f"{_name(dataset, part, first)} with {lengths[first]}, half of all have {median:.0f} or more"
        )
    return notes


def _of_classes(dataset: Dataset) -> list[str]:
    notes = []
    for part, cached in dataset.parts.items():
        if _is_the_same(dataset, part):
            continue
        counts = np.bincount(cached.targets, minlength=dataset.classes)
        empty = [dataset.class_names[label] for label in np.flatnonzero(counts == 0)]
        if empty and len(cached):
            notes.append(f"{part} part: no recording of {len(empty)} of {dataset.classes} classes: {_few(empty)}")
        usual, times = Counter(counts.tolist()).most_common(1)[0]
        odd = [label for label in range(dataset.classes) if counts[label] not in (0, usual)]
        if 0 < len(odd) <= 0.2 * dataset.classes and times >= 0.8 * dataset.classes and usual > 1:
            shown = _few([f"{dataset.class_names[label]!r} has {counts[label]}" for label in odd])
            notes.append(f"{part} part: {usual} recordings of each class, but {shown}")
    return notes


def _of_copies(dataset: Dataset) -> list[str]:
    """Recordings, by their events, that stand in two places."""
    train, test = dataset.parts["train"], dataset.parts["test"]
    if train.sha256 and train.sha256 == test.sha256 and train is not test:
        return [f"training and test part are the same {len(train)} recordings: the test figure means nothing"]
    notes, unit = [], "event" if dataset.has_events else "value"
    hashes = {part: cached.hashes * _have_content(cached).astype(np.uint64)
              for part, cached in dataset.parts.items() if len(cached.hashes) == len(cached)}  # fmt: skip
    if len(hashes) < len(dataset.parts):
        return []
    if train is test:
        hashes["test"] = hashes["test"][:0]  # one pool: what stands twice in it is said below
    shared = np.isin(hashes["test"], hashes["train"]) & (hashes["test"] != 0)
    if shared.any():
        first = int(shared.argmax())
        copy = int(np.flatnonzero(hashes["train"] == hashes["test"][first])[0])
        notes.append(
            f"{int(shared.sum())} of {len(shared)} test recordings stand in the training part too, {unit} for {unit}; "
            f"the first is {_name(dataset, 'test', first)}, there {_name(dataset, 'train', copy)}"
        )
    for part, each in hashes.items():
        copies = len(each[each != 0]) - len(np.unique(each[each != 0]))
        if copies:
            notes.append(f"{part} part: {copies} recordings equal an earlier one {unit} for {unit}")
    return notes


def _is_the_same(dataset: Dataset, part: str) -> bool:
    """Whether the test part is the training part, from which its recordings were drawn."""
    return part == "test" and dataset.parts["test"] is dataset.parts["train"]


def _have_content(cached: CachedPart) -> np.ndarray:
    """Which recordings hold anything."""
    if isinstance(cached, CachedEvents):
        return np.diff(cached.events.offsets) > 0
    return np.ones(len(cached), bool)


def _name(dataset: Dataset, part: str, number: int) -> str:
    names = dataset.parts[part].names
    return names[number] if number < len(names) else f"recording {number}"


def _few(words: list[str]) -> str:
    return ", ".join(words[:5]) + f" and {len(words) - 5} more" * (len(words) > 5)


def _ms(value: float) -> str:
    return f"{value:,.10g} ms" if value < 1000 else f"{value:,.0f} ms"
