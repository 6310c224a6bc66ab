"""Faults of the recordings as a network sees them: events outside the window, one class, the same ones twice."""

from typing import cast

import numpy as np

from snn_bp.data import Dataset
from snn_bp.data.store import CachedEvents
from snn_bp.instruments.findings import Finding
from snn_bp.model.targets import UNLABELLED
from snn_bp.runs.folder import Run
from snn_bp.runs.records import differing_data
from snn_bp.runtime.status import phase

LOOKED_AT = 500  # recordings of a split
INSIDE = 0.05  # fraction of the events; a window of 1.5 s, usual for gestures of 6 s, holds a quarter
EMPTY, ALL = 0.1, 0.9  # fractions of the recordings
SHARED = 0.01  # fraction of the recordings: two may be equal by chance where they have few events
COVERED = 95  # percent of the recordings that a proposed window covers whole
FEW = 6  # steps at least of a proposed window


@phase("looking at the recordings")
def find_faults_of_recordings(dataset: Dataset) -> list[Finding]:
    """What is wrong with the recordings, whatever the network is."""
    return [*find_window(dataset), *find_one_class(dataset), *find_shared_recordings(dataset)]


def find_window(dataset: Dataset, *, inside: float = INSIDE) -> list[Finding]:
    """Whether events of the training recordings lie in the window that becomes frames, or frames hold anything."""
    if not dataset.has_events:
        return find_empty_frames(dataset)
    ids = dataset.spread("train", LOOKED_AT)
    if not len(ids):
        return []
    empty = 1.0 - float(np.mean([_has_input(dataset, part) for part in np.array_split(ids, max(1, len(ids) // 32))]))
    times = [_times(dataset, sample) for sample in ids.tolist()]
    window, where = dataset.data.window_us, "the train split"
    events = sum(len(t) for t in times)
    fraction = sum(int(np.count_nonzero((t >= 0) & (t < window))) for t in times) / events if events else 0.0
    lasts = [int(t.max()) for t in times if len(t)]
    first = min((int(t.min()) for t in times if len(t)), default=0)
    change, covers = _window_change(dataset, lasts)
    missed = f"The window of {window / 1000:g} ms misses their events, the first is at {first / 1000:g} ms. {covers}"
    if fraction < inside and change and empty <= ALL:
        measure = f"fraction of events in the window of {window / 1000:g} ms"
        return [Finding("window too short", where, measure, fraction, inside, covers, change)]
    if empty <= EMPTY:
        return []
    advice = "Frames are empty though there are events in the window: see how they are made."
    if sum(not len(t) for t in times) >= len(times) * EMPTY:
        advice, change = "They hold no events: see that the files are whole and in the layout that is read.", ()
    elif fraction < inside or not dataset.data.transforms:
        advice = missed if change else advice
    else:
        advice, change = "Their events lie in the window, and the transforms take them away.", ("data.transforms=()",)
    return [Finding("no input", where, "fraction of recordings with frames all zero", empty, EMPTY, advice, change)]


def find_empty_frames(dataset: Dataset) -> list[Finding]:
    """Whether recordings that are frames hold anything."""
    ids = dataset.spread("train", LOOKED_AT)
    if not len(ids):
        return []
    empty = 1.0 - float(np.mean([_has_input(dataset, part) for part in np.array_split(ids, max(1, len(ids) // 32))]))
    advice = "They are zero at every step: see what the source gives, and what its encoder makes of that."
    measure = "fraction of recordings with frames all zero"
    return [Finding("no input", "the train split", measure, empty, EMPTY, advice)] if empty > EMPTY else []


def find_changed_recordings(run: Run) -> list[Finding]:
    """Whether the recordings are those that the run's `data.json` holds."""
    file = run.path / "data.json"
    differs = differing_data(file, run.dataset()) if file.is_file() else None
    if differs is None:
        return []
    advice = f"They are not those of the run's data.json ({differs}): put those back, or train anew."
    return [Finding("changed recordings", "the recordings", "differences", 1, 0, advice)]


def find_one_class(dataset: Dataset) -> list[Finding]:
    """Whether training has more than one class."""
    if not dataset.targets.are_classes:
        return []
    labels = dataset.labels("train")
    labels = labels[labels != UNLABELLED]
    if len(np.unique(labels)) != 1 or len(labels) < 2:
        return []
    only = dataset.class_names[int(labels[0])]
    advice = (
        f"All are {only!r}, and a network that always says so is right: see how labels are read, and that the "
        "files of the other classes are there."
    )
    return [Finding("one class", "the train split", "classes among its recordings", 1, 2, advice)]


def find_shared_recordings(dataset: Dataset) -> list[Finding]:
    """Whether recordings that judge the network were learned from, event for event."""
    learned, found = _hashes(dataset, "train"), []
    for split in ("validation", "test"):
        judged = _hashes(dataset, split)
        fraction = float(np.mean(np.isin(judged, learned) & (judged != 0))) if len(judged) else 0.0
        if fraction > SHARED:
            advice = "Accuracy there says nothing of new recordings: give each split its own files."
            measure = "fraction of its recordings that are in training too"
            found.append(Finding("shared recordings", f"the {split} split", measure, fraction, SHARED, advice))
    return found


def _window_change(dataset: Dataset, lasts: list[int]) -> tuple[tuple[str, ...], str]:
    """Steps and their width that cover most recordings, and that in words; empty where the window does already."""
    if not lasts:
        return (), ""
    end_us = int(np.percentile(lasts, COVERED)) + 1
    if usual_us := round(dataset.info.window_ms * 1000):
        end_us = min(end_us, max(usual_us, dataset.data.window_us))
    if min(lasts) >= end_us:  # the clock starts late: the set's usual window is of no help
        end_us = int(np.percentile(lasts, COVERED)) + 1
    if end_us <= dataset.data.window_us:
        return (), ""
    steps = max(FEW, min(dataset.data.steps or FEW, 100))
    step_ms = -(-end_us // (1000 * steps))
    steps = max(FEW, -(-end_us // (1000 * step_ms)))
    covers = f"Recordings end at {np.percentile(lasts, COVERED) / 1000:.0f} ms: take {steps} steps of {step_ms} ms."
    return (f"data.step_ms={step_ms}", f"data.steps={steps}"), covers


def _has_input(dataset: Dataset, ids: np.ndarray) -> float:
    frames, _ = dataset.batch("train", ids)
    return float((frames != 0).flatten(2).any(2).any(0).float().mean())


def _times(dataset: Dataset, sample: int) -> np.ndarray:
    """Times of a training recording's events in microseconds, before transforms."""
    events = cast(CachedEvents, dataset.parts["train"]).events
    return np.asarray(events.t[events.offsets[sample] : events.offsets[sample + 1]])


def _hashes(dataset: Dataset, split: str) -> np.ndarray:
    """A number for the events of each recording of a split, 0 without any; empty where they are not known."""
    stored = dataset.parts["test" if split == "test" else "train"]
    return stored.hashes[dataset.ids[split]] if len(stored.hashes) == len(stored) else stored.hashes[:0]
