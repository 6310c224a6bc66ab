"""What a run's `data.json` says: which recordings and which frames the run saw."""

import hashlib
import json
from typing import Any

import numpy as np

from snn_bp.data.catalogue import ENTRIES
from snn_bp.data.dataset import Dataset
from snn_bp.data.transforms_json import transform_to_json

ENCODING_FORMAT = 1  # raised when the same events would give other frames


def describe(dataset: Dataset) -> dict[str, Any]:
    """Everything about `dataset` that JSON can hold: counts, ids, hashes and versions."""
    data = dataset.data
    encoding = {
        "format": ENCODING_FORMAT,
        "step_us": data.step_us,
        "steps": data.steps,
        "shape": list(dataset.shape),
        "downsample": data.downsample,
        "binary": data.binary,
        "shift": data.shift,
        "turn": data.turn,
        "transforms": [transform_to_json(transform) for transform in data.transforms],
    }
    return {
        "name": data.name,
        "sensor": list(dataset.sensor),
        "classes": dataset.classes,
        "class_names": list(dataset.class_names),
        "encoding": encoding | {"sha256": _sha256(encoding)},
        "splits": {split: _describe_split(dataset, split) for split in dataset.ids},
        "parts": {part: _describe_part(dataset, part) for part in dataset.parts},
        "notes": list(dataset.notes),
        "versions": dataset.versions,
    }


def _describe_split(dataset: Dataset, split: str) -> dict[str, Any]:
    ids = dataset.ids[split]
    labels = dataset.labels(split)
    counts = np.bincount(labels, minlength=dataset.classes)
    return {"ids": ids.tolist(), "sha256": _sha256(ids.tolist()), "class_counts": counts.tolist()}


def _describe_part(dataset: Dataset, part: str) -> dict[str, Any]:
    stored = dataset.parts[part]
    times, window = stored.events.t, dataset.data.window_us
    inside = 0
    for start in range(0, len(times), 10_000_000):  # the set need not fit into memory
        inside += int(np.count_nonzero(times[start : start + 10_000_000] < window))
    return {
        "recordings": len(stored.events),
        "recordings_in_full_copy": ENTRIES[dataset.data.name].totals[part],
        "events": len(times),
        "share_of_events_in_window": inside / len(times) if len(times) else None,
        "sha256": stored.sha256,
    }


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
