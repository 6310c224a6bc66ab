"""The cache of raw events: arrays end to end on disk, written once and mapped into memory.

A folder of the cache is named by what its events were made from. It is written beside its place and renamed
into it, so that a reader never sees half of it; one that does not fit its own sizes is made again.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from snn_bp.data.catalogue import Sensor
from snn_bp.data.encode import Events
from snn_bp.errors import SnnError

FORMAT = 1
LONGEST_US = 2**31 - 1  # times are kept in 32 bits


@dataclass(frozen=True)
class Recording:
    """One recording on its way into the cache; `source` names it in messages."""

    source: str
    events: np.ndarray  # structured: x, t and, from a sensor with rows, y and p
    label: int


@dataclass(frozen=True)
class Stored:
    """Events in the cache, or in memory where no cache can be written (`folder` is None)."""

    events: Events
    sha256: str  # of the events and labels
    folder: Path | None


_NOTHING = np.empty(0, np.uint8)
EMPTY = Stored(
    Events(_NOTHING, _NOTHING, _NOTHING, _NOTHING, np.zeros(1, np.int64), np.empty(0, np.int64)), sha256="", folder=None
)


def cache_folder() -> Path:
    """Where events are kept: the environment variable SNN_BP_CACHE, else `~/.cache/snn_bp`."""
    return Path(os.environ.get("SNN_BP_CACHE") or "~/.cache/snn_bp").expanduser()


def store(name: str, recordings: Iterable[Recording], *, made_from: Any, sensor: Sensor, classes: int) -> Stored:
    """The events of `recordings`, from the cache if they were made from the same before.

    `made_from` is any value JSON can write. `recordings` is not touched when the cache has its events.
    """
    key = hashlib.sha256(json.dumps([FORMAT, made_from, sensor, classes]).encode()).hexdigest()
    folder = cache_folder() / f"{name}-{key[:20]}"
    found = _open(folder)
    if found is not None:
        return found
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix="building-", dir=cache_folder()))
    except OSError:
        return _hold(recordings, sensor=sensor, classes=classes)
    try:
        _write(building, recordings, sensor=sensor, classes=classes)
        return _move(building, folder)
    except OSError as cause:
        raise SnnError(
            f"cache {cache_folder()}: writing {name} failed ({cause}). Make room there, or name another folder "
            "in the environment variable SNN_BP_CACHE."
        ) from cause
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _hold(recordings: Iterable[Recording], *, sensor: Sensor, classes: int) -> Stored:
    """Events in memory."""
    columns: dict[str, list[bytes]] = {field: [] for field in _dtypes(sensor)}
    takers = {field: parts.append for field, parts in columns.items()}
    lengths, labels, sha256 = _pour(recordings, takers, sensor=sensor, classes=classes)
    arrays = {field: np.frombuffer(b"".join(columns[field]), dtype) for field, dtype in _dtypes(sensor).items()}
    return Stored(_events(arrays, lengths, labels), sha256, None)


def _write(folder: Path, recordings: Iterable[Recording], *, sensor: Sensor, classes: int) -> None:
    """Events on disk, one recording at a time, so that the set need not fit into memory."""
    dtypes = _dtypes(sensor)
    with contextlib.ExitStack() as stack:
        files = {field: stack.enter_context(open(folder / f"{field}.npy", "wb")) for field in dtypes}
        for field, file in files.items():
            _write_header(file, dtypes[field], 0)
        takers = {field: file.write for field, file in files.items()}
        lengths, labels, sha256 = _pour(recordings, takers, sensor=sensor, classes=classes)
        for field, file in files.items():
            _write_header(file, dtypes[field], sum(lengths))
    np.save(folder / "lengths.npy", np.array(lengths, dtype=np.int64))
    np.save(folder / "labels.npy", np.array(labels, dtype=np.int64))
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    (folder / "record.json").write_text(json.dumps({"sizes": sizes, "sha256": sha256}))


def _write_header(file: BinaryIO, dtype: np.dtype, count: int) -> None:
    # NumPy pads headers so that the first axis can grow: the second header is as long as the first.
    file.seek(0)
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, description)


def _pour(
    recordings: Iterable[Recording], takers: Mapping[str, Callable[[bytes], Any]], *, sensor: Sensor, classes: int
) -> tuple[list[int], list[int], str]:
    """Hand the bytes of every field to its taker; gives lengths, labels, and the hash of it all."""
    lengths: list[int] = []
    labels: list[int] = []
    digest = hashlib.sha256()
    for recording in recordings:
        for field, values in _checked(recording, sensor=sensor, classes=classes).items():
            takers[field](values.tobytes())
            digest.update(values.tobytes())
        lengths.append(len(recording.events))
        labels.append(recording.label)
    digest.update(np.array([lengths, labels], dtype=np.int64).tobytes())
    return lengths, labels, digest.hexdigest()


def _checked(recording: Recording, *, sensor: Sensor, classes: int) -> dict[str, np.ndarray]:
    """The fields of one recording in the cache's types; raises where the sensor cannot have seen them."""
    events, limits = recording.events, dict(zip("xyp", sensor, strict=True)) | {"t": LONGEST_US}
    dtypes = _dtypes(sensor)
    for field in dtypes if len(events) else ():
        low, high = events[field].min(), events[field].max()
        if low < 0 or high >= limits[field]:
            raise SnnError(
                f"{recording.source}: {field} lies in 0..{limits[field] - 1}, found {low}..{high}. "
                "The file is damaged, or belongs to another data set."
            )
    if not 0 <= recording.label < classes:
        raise SnnError(
            f"{recording.source}: a label lies in 0..{classes - 1}, found {recording.label}. "
            "The file is misplaced, or belongs to another data set."
        )
    return {field: events[field].astype(dtype) for field, dtype in dtypes.items()}


def _dtypes(sensor: Sensor) -> dict[str, np.dtype]:
    """The smallest types that hold the sensor's addresses; a row of channels has no y and no p."""
    width, height, polarities = sensor
    dtypes = {"x": np.min_scalar_type(width - 1), "t": np.dtype(np.int32)}
    if height > 1:
        dtypes |= {"y": np.min_scalar_type(height - 1), "p": np.min_scalar_type(polarities - 1)}
    return dtypes


def _move(building: Path, folder: Path) -> Stored:
    """Rename `building` to `folder`; where a whole one stands there already, that one is taken."""
    damaged = building.with_name(f"{building.name}-damaged")
    try:
        for _ in range(3):  # others may be doing the same
            with contextlib.suppress(OSError):
                os.rename(building, folder)
            found = _open(folder)
            if found is not None:
                return found
            with contextlib.suppress(OSError):
                os.rename(folder, damaged)
        raise OSError(f"{folder} could not be put in place")
    finally:
        shutil.rmtree(damaged, ignore_errors=True)


def _open(folder: Path) -> Stored | None:
    """What `folder` holds, or None where it is missing, cut short or of another make."""
    try:
        record = json.loads((folder / "record.json").read_text())
        if any((folder / name).stat().st_size != size for name, size in record["sizes"].items()):
            return None
        columns = {name[:-4]: np.load(folder / name, mmap_mode="r") for name in record["sizes"]}
        lengths, labels = columns.pop("lengths"), columns.pop("labels")
        stored = Stored(_events(columns, lengths, labels), record["sha256"], folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if len(lengths) != len(labels) or any(len(column) != lengths.sum() for column in columns.values()):
        return None
    return stored


def _events(columns: dict[str, np.ndarray], lengths: Any, labels: Any) -> Events:
    none = np.empty(0, np.uint8)
    arrays = {field: np.asarray(columns.get(field, none)) for field in "xypt"}
    arrays["offsets"] = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)
    arrays["labels"] = np.asarray(labels, dtype=np.int64)
    for array in arrays.values():
        array.flags.writeable = False
    return Events(**arrays)
