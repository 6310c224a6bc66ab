"""The fingerprint of a data set in a run's `data.json`: which recordings and which frames the run saw."""

import hashlib
import json
from typing import Any

import numpy as np

from snn_bp.data.catalogue import READING_FORMAT
from snn_bp.data.dataset import Dataset
from snn_bp.data.store import CachedEvents
from snn_bp.data.transforms import transform_record
from snn_bp.files import json_sha256

ENCODING_FORMAT = 1  # raised when the same events would give other frames
_FIELDS = {"shift": "translate_px", "turn": "rotate_deg"}  # names in data.json, and those of `Data` today


def describe(dataset: Dataset) -> dict[str, Any]:
    """Everything about `dataset` that JSON can hold: counts, ids, hashes and versions."""
    data = dataset.data
    encoding = {
        "format": ENCODING_FORMAT,
        "step_us": data.step_us,
        "steps": dataset.steps,
        "shape": list(dataset.shape),
        "downsample": data.downsample,
        "binary": data.binary,
        "shift": data.translate_px,
        "turn": data.rotate_deg,
        "transforms": [transform_record(transform) for transform in data.transforms],
    }
    if data.encoder is not None:
        encoding["encoder"] = f"{type(data.encoder).__name__} {_fields(data.encoder)}"
    if data.augment:
        encoding["augment"] = [repr(each).replace(", classes='same'", "") for each in data.augment]  # as before "any"
    asked = {} if dataset.targets.kind == "class" else {"targets": dataset.targets.kind}
    return {
        "name": data.name,
        "sensor": list(dataset.sensor),
        **asked,
        "classes": dataset.classes,
        "class_names": list(dataset.class_names),
        "encoding": encoding | {"sha256": json_sha256(encoding)},
        "splits": {split: _describe_split(dataset, split) for split in dataset.ids},
        "parts": {part: _describe_part(dataset, part) for part in dataset.parts},
        "notes": list(dataset.notes),
        "versions": dataset.versions,
    }


def first_difference(described: Any, dataset: Dataset) -> str | None:
    """The first thing in which the recordings of `dataset` are not those of `described`, a run's `data.json`, in words.

    None where nothing differs. What `described` lacks, as one written by an older version, is not compared.
    """
    if not isinstance(described, dict):
        return "data.json holds no description of recordings"
    today = describe(dataset)
    for part in dataset.parts:
        before, now = (_at(each, "parts", part) for each in (described, today))
        if isinstance(before, dict) and before.get("sha256", now["sha256"]) != now["sha256"]:
            return f"{part} part: {_which_differs(before, now)}{_other_reading(before)}"
    if (before := described.get("targets", "class")) != (now := today.get("targets", "class")):
        return f"the targets: {_short(before)} then, {_short(now)} now"
    outputs = "the classes" if dataset.targets.are_classes else "the outputs"
    for key, what in (("name", "the set"), ("sensor", "the sensor"), ("class_names", outputs)):
        if key in described and described[key] != today[key]:
            return f"{what}: {_short(described[key])} then, {_short(today[key])} now"
    for split in dataset.ids:
        before, now = (_at(each, "splits", split, "sha256") for each in (described, today))
        if before not in (None, now):
            return f"{split} split: its recordings were drawn otherwise then"
    if _at(described, "encoding", "steps") is not None:
        before, now = (each["encoding"].get("encoder") for each in (described, today))
        if before != now:
            return f"frames: the encoder was {before} then, it is {now} now"
        before, now = (each["encoding"].get("augment", []) for each in (described, today))
        if before != now:
            return f"frames: augment was {_short(before)} then, it is {_short(now)} now"
    for field, now in today["encoding"].items():
        before = _at(described, "encoding", field)
        if field != "sha256" and before is not None and before != now:
            return f"frames: {_FIELDS.get(field, field)} was {_short(before)} then, it is {_short(now)} now"
    return None


def _which_differs(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first recording in which two parts differ, where they name them; else their counts."""
    old, new = (_by_name(part.get("each_recording")) for part in (before, now))
    if old and new:
        for number, (name, content) in enumerate(old.items()):
            if name not in new:
                return f"recording {number}, {name}, is not there any more"
            if new[name] != content:
                differs = "its events" if "events" in now else "its frames"
                if new[name][1] == content[1]:
                    differs = "its target" if content[0].startswith("#") else "its class"
                return f"recording {number}, {name}, has changed in {differs}"
        for name in new:
            if name not in old:
                return f"recording {name} was not there then"
        return "the same recordings stand in another order" if list(old) != list(new) else "a recording ends elsewhere"
    counts = [
        f"{part.get('recordings', '?')} recordings with {part.get('events', '?')} events" for part in (before, now)
    ]
    if counts[0] == counts[1]:
        return f"{counts[0]}, as many as then, but not the same"
    return f"{counts[0]} then, {counts[1]} now"


def _by_name(lines: Any) -> dict[str, tuple[str, str]]:
    """Class and hash of each recording; empty where they are not recorded."""
    if not isinstance(lines, list) or not all(isinstance(line, str) and line.count(" ") >= 2 for line in lines):
        return {}
    parts = (line.rsplit(" ", 2) for line in lines)
    return {name: (label, digest) for name, label, digest in parts}


def _other_reading(before: dict[str, Any]) -> str:
    if before.get("reading_format", 1) == READING_FORMAT:
        return ""
    return " (it was read by another version of snn_bp, which may have read the same files otherwise)"


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fields(value: Any) -> str:
    """The fields of a frozen value of one's own, in their order."""
    return ", ".join(f"{name}={each!r}" for name, each in getattr(value, "__dict__", {}).items())


def _describe_split(dataset: Dataset, split: str) -> dict[str, Any]:
    ids = dataset.ids[split]
    described = {"ids": ids.tolist(), "sha256": json_sha256(ids.tolist())}
    if dataset.targets.kind == "class":
        described["class_counts"] = np.bincount(dataset.labels(split), minlength=dataset.classes).tolist()
    if (groups := dataset.groups(split)) is not None:
        described["groups"] = sorted(set(groups))
    return described


def _describe_part(dataset: Dataset, part: str) -> dict[str, Any]:
    cached = dataset.parts[part]
    if part == "test" and cached is dataset.parts["train"]:
        return {"recordings": len(cached), "sha256": cached.sha256, "same_as": "train"}
    targets = cached.targets
    labels = targets.tolist() if dataset.targets.kind == "class" else [_word(target) for target in targets]
    each = zip(cached.names, labels, cached.hashes.tolist(), strict=True)
    described: dict[str, Any] = {"recordings": len(cached)}
    if isinstance(cached, CachedEvents):
        found = dataset.window[part]
        described |= {
            "recordings_in_full_copy": dataset.info.totals.get(part),
            "events": found.events,
            "share_of_events_in_window": found.fraction,
            "recordings_without_event_in_window": found.recordings_without,
            "recordings_without_event": found.recordings_empty,
            "first_event_ms": found.first_ms,
            "last_event_ms": found.last_ms,
        }
    return described | {
        "reading_format": READING_FORMAT,
        "sha256": cached.sha256,
        "each_recording": [f"{name} {label} {number:016x}" for name, label, number in each],  # name, target, content
    }


def _word(target: np.ndarray) -> str:
    """A target that is no class as a word: its hash."""
    return "#" + hashlib.sha256(np.ascontiguousarray(target).tobytes()).hexdigest()[:8]
