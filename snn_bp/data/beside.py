"""What stands beside the input of each recording in the cache: its target, its group, its split, where it ends."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.errors import SnnError, is_number, nearest, shown
from snn_bp.model.targets import UNLABELLED, Targets

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Beside:
    """One entry a recording in each; None or empty where recordings have none."""

    targets: np.ndarray | None = None  # where they are no classes
    durations: np.ndarray | None = None  # microseconds of events, steps of frames
    groups: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    spans: np.ndarray | None = None  # first and last time of events in microseconds, and whether they are in order

    @property
    def digest(self) -> bytes:
        """The hash of targets and durations, empty where there are neither."""
        there = [array for array in (self.targets, self.durations) if array is not None]
        digest = hashlib.sha256()
        for array in there:
            digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.digest() if there else b""

    def write(self, folder: Path) -> None:
        """Add files to an entry of the cache that is being built."""
        for name in ("targets", "durations", "spans"):
            if (array := getattr(self, name)) is not None:
                np.save(folder / f"{name}.npy", array)
        for name in ("groups", "splits"):
            if words := getattr(self, name):
                (folder / f"{name}.json").write_text(json.dumps(words), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, record: dict[str, Any]) -> "Beside":
        """From an entry of the cache and its record; raises ValueError, OSError or TypeError where it is damaged."""
        files = record["files"]
        arrays = {name: np.load(folder / f"{name}.npy") if f"{name}.npy" in files else None
                  for name in ("targets", "durations", "spans")}  # fmt: skip
        words = {name: tuple(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))
                 for name in ("groups", "splits") if f"{name}.json" in files}  # fmt: skip
        groups, splits = words.get("groups", ()), words.get("splits", ())
        return cls(arrays["targets"], arrays["durations"], groups, splits, arrays["spans"])

    def is_of(self, count: int) -> bool:
        """Whether it is that of `count` recordings."""
        there = [each for each in (self.targets, self.durations, self.spans) if each is not None]
        return all(len(each) == count for each in (*there, *(each for each in (self.groups, self.splits) if each)))


NOTHING_BESIDE = Beside()


def checked_split(split: Any, *, source: str) -> str:
    """The split that a table or a source names for a recording; "" where it names none."""
    if split in (None, ""):
        return ""
    if split not in SPLITS:
        raise SnnError(f"{source}: its split is {shown(split)}. Known: {', '.join(SPLITS)}.")
    return split


def checked_target(value: Any, targets: Targets, *, source: str) -> np.ndarray:
    """The target of one recording in the type of its kind, without the batch: a class as an integer array []."""
    if targets.kind == "class" and isinstance(value, str):
        if value not in targets.names:
            raise SnnError(f"{source}: its class is {value!r}. {nearest(value, targets.names)}")
        return np.asarray(targets.names.index(value), np.int64)
    array = np.asarray(value)
    if targets.kind == "class" and not array.ndim and array.dtype.kind in "iu" and 0 <= array < targets.outputs:
        return array.astype(np.int64)  # nearly always
    wanted = _in_words(targets)
    axes = targets.is_per_step + (not targets.are_classes)
    if targets.kind == "class" and array.ndim == 1 and len(array) == 1:
        array = array.reshape(())  # an array of one number, as files hold it
    if not targets.are_classes and targets.outputs == 1 and array.ndim == axes - 1:
        array = array[..., None]  # one number
    if array.ndim != axes or (not targets.are_classes and array.shape[axes - 1] != targets.outputs):
        raise SnnError(
            f"{source}: its target should be {wanted}, found {shown(value)} of the shape {list(array.shape)}."
        )
    if array.dtype.kind not in "biuf":
        raise SnnError(f"{source}: its target should be {wanted}, found {shown(value)}.")
    if not targets.are_classes:
        array = array.astype(np.float32)
        allowed = np.isfinite(array) if targets.kind.startswith("vector") else (array == 0) | (array == 1)
        if not allowed.all():
            raise SnnError(f"{source}: its target should be {wanted}, found {array[~allowed][0]:g} among it.")
        return array
    low = UNLABELLED if targets.is_per_step else 0
    if (array != np.floor(array)).any() or (array < low).any() or (array >= targets.outputs).any():
        wrong = array[(array != np.floor(array)) | (array < low) | (array >= targets.outputs)].reshape(-1)[0]
        raise SnnError(f"{source}: its target should be {wanted}, found {wrong:g}.")
    return array.astype(np.int64)


def stacked(each: Sequence[np.ndarray]) -> np.ndarray:
    """The targets of all recordings as one array; those for each step are filled up to the longest."""
    shapes = [target.shape for target in each]
    if len(set(shapes)) == 1:
        return np.stack(each)
    fill = UNLABELLED if each[0].dtype.kind == "i" else 0
    filled = np.full((len(each), max(shape[0] for shape in shapes), *shapes[0][1:]), fill, each[0].dtype)
    for row, target in zip(filled, each, strict=True):
        row[: len(target)] = target
    return filled


def of_steps(array: np.ndarray, steps: int, targets: Targets) -> np.ndarray:
    """Targets `[batch, time, ...]` cut or filled up to `steps`; those of other kinds as they are."""
    if not targets.is_per_step or array.shape[1] == steps:
        return array
    cut = array[:, :steps]
    fill = UNLABELLED if targets.are_classes else 0
    return np.pad(cut, [(0, 0), (0, steps - cut.shape[1])] + [(0, 0)] * (array.ndim - 2), constant_values=fill)


def checked_duration(value: Any, *, source: str) -> int | None:
    """Microseconds from the milliseconds that a source gives; None where it gives none."""
    if value is None:
        return None
    if not is_number(value) or value <= 0:
        raise SnnError(f"{source}: its duration_ms is {shown(value)}. It should be a number above 0, or left out.")
    return round(float(value) * 1000)


def _in_words(targets: Targets) -> str:
    count, names = targets.outputs, targets.names
    few = ", ".join(names[:3]) + ", ..." * (count > 3)
    return {
        "class": f"one class, 0..{count - 1} ({few})",
        "class per step": f"a row [steps] of classes 0..{count - 1}, {UNLABELLED} where there is none",
        "vector": f"{count} finite numbers ({few})",
        "vector per step": f"finite numbers [steps, {count}] ({few})",
        "labels": f"{count} zeros and ones ({few})",
        "spikes": f"zeros and ones [steps, {count}] ({few})",
    }[targets.kind]
