"""Recordings in the cache: arrays end to end on disk, written once and mapped into memory.

A recording enters with integers as wide as they come, and leaves in the smallest types that hold the sensor's
addresses. What the sensor cannot have seen is refused before it becomes one of these types.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from snn_bp.data.beside import NOTHING_BESIDE, Beside, stacked
from snn_bp.data.cache import Damaged, seal_entry
from snn_bp.data.catalogue import Sensor
from snn_bp.data.encode import Events
from snn_bp.data.entries import kept
from snn_bp.errors import SnnError
from snn_bp.files import json_sha256

FORMAT = 2
LONGEST_US = 2**32 - 1  # times are kept in 32 bits


@dataclass(frozen=True)
class Recording:
    """One recording on its way into the cache; `source` names it in messages."""

    source: str
    events: np.ndarray  # structured: x, t and, from a sensor with rows, y and p
    label: int  # its class; 0 where it has another target
    name: str = ""  # the recording's within its part, short
    remark: str = ""  # what a reader should know of how it was read, in words that many recordings can share
    target: np.ndarray | None = None  # where it is no class
    group: str = ""  # speaker, subject, session
    split: str = ""  # "train", "validation" or "test" where a table says it
    duration_us: int | None = None  # where the recording ends before the window does


@dataclass(frozen=True)
class CachedEvents:
    """Events in the cache, or in memory where no cache can be written (`folder` is None)."""

    events: Events
    sha256: str  # the hash of events and targets
    folder: Path | None
    names: tuple[str, ...] = ()  # one for each recording
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))  # one for the events of each recording
    notes: tuple[str, ...] = ()  # what was said while they were read, and what became of a damaged cache
    beside: Beside = NOTHING_BESIDE

    def __len__(self) -> int:
        return len(self.events)

    @property
    def targets(self) -> np.ndarray:
        """The target of each recording, its class where nothing else is asked for."""
        return self.events.labels if self.beside.targets is None else self.beside.targets

    def lengths(self, *, steps: int, step_us: int) -> np.ndarray | None:
        """How many steps each recording has; None where all of them fill the window."""
        durations = self.beside.durations
        return None if durations is None else np.clip(-(-durations // step_us), 1, steps)


_NOTHING = np.empty(0, np.uint8)
EMPTY = CachedEvents(
    Events(_NOTHING, _NOTHING, _NOTHING, _NOTHING, np.zeros(1, np.int64), np.empty(0, np.int64)), sha256="", folder=None
)


def store(
    name: str, recordings: Iterable[Recording], *, made_from: Any | None, sensor: Sensor, classes: int
) -> CachedEvents:
    """The events of `recordings`, from the cache if they were made from the same before.

    `made_from` is any value JSON can write. `recordings` is not touched when the cache has its events. None where
    nobody knows what they were made from: they are read at every start, and the entry is found by its content.
    """
    key = None if made_from is None else [FORMAT, made_from, sensor, classes]

    def build(folder: Path) -> str:
        return json_sha256([FORMAT, sensor, classes, _write(folder, recordings, sensor=sensor, classes=classes)])

    return kept(
        name,
        key,
        build=build,
        read=lambda folder, record, said: _mapped(folder, record, sensor, said),
        hold=lambda: hold(recordings, sensor=sensor, classes=classes),
    )


def _mapped(folder: Path, record: dict[str, Any], sensor: Sensor, said: tuple[str, ...]) -> CachedEvents:
    """The arrays of an entry, mapped; raises `Damaged` where they are not those of `sensor`."""
    try:
        columns = {each: np.load(folder / f"{each}.npy", mmap_mode="r") for each in _dtypes(sensor)}
        lengths, labels, hashes = (np.load(folder / f"{each}.npy") for each in ("lengths", "labels", "hashes"))
        names = tuple(json.loads((folder / "names.json").read_text(encoding="utf-8")))
        sha256, notes, beside = record["sha256"], (*said, *record["notes"]), Beside.read(folder, record)
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError) as cause:
        raise Damaged(str(cause)) from cause
    whole = all(columns[each].dtype == dtype and columns[each].shape == (lengths.sum(),)
                for each, dtype in _dtypes(sensor).items())  # fmt: skip
    if not (whole and len(lengths) == len(labels) == len(hashes) == len(names) and beside.is_of(len(lengths))):
        raise Damaged("its arrays differ in length")
    return CachedEvents(_events(columns, lengths, labels), sha256, folder, names, hashes, notes, beside)


def hold(recordings: Iterable[Recording], *, sensor: Sensor, classes: int) -> CachedEvents:
    """Events in memory."""
    columns: dict[str, list[bytes]] = {each: [] for each in _dtypes(sensor)}
    sinks = {each: parts.append for each, parts in columns.items()}
    index = _stream_into(sinks, recordings, sensor=sensor, classes=classes)
    arrays = {each: np.frombuffer(b"".join(columns[each]), dtype) for each, dtype in _dtypes(sensor).items()}
    events = _events(arrays, index.lengths, index.labels)
    hashes = np.array(index.hashes, dtype=np.uint64)
    return CachedEvents(events, index.sha256, None, tuple(index.names), hashes, index.notes(), index.beside())


def _write(folder: Path, recordings: Iterable[Recording], *, sensor: Sensor, classes: int) -> str:
    """Events on disk, one recording at a time, so that the set need not fit into memory; gives the hash of it all."""
    dtypes = _dtypes(sensor)
    with contextlib.ExitStack() as stack:
        files = {each: stack.enter_context(open(folder / f"{each}.npy", "wb")) for each in dtypes}
        for each, file in files.items():
            _write_header(file, dtypes[each], 0)
        sinks = {each: file.write for each, file in files.items()}
        index = _stream_into(sinks, recordings, sensor=sensor, classes=classes)
        for each, file in files.items():
            _write_header(file, dtypes[each], sum(index.lengths))
    np.save(folder / "lengths.npy", np.array(index.lengths, dtype=np.int64))
    np.save(folder / "labels.npy", np.array(index.labels, dtype=np.int64))
    np.save(folder / "hashes.npy", np.array(index.hashes, dtype=np.uint64))
    (folder / "names.json").write_text(json.dumps(index.names), encoding="utf-8")
    index.beside().write(folder)
    seal_entry(folder, {"sha256": index.sha256, "notes": index.notes()})
    return json_sha256([index.sha256, index.names, index.groups, index.splits, index.notes()])


def _write_header(file: BinaryIO, dtype: np.dtype, count: int) -> None:
    # NumPy pads headers so that the first axis can grow: the second header is as long as the first.
    file.seek(0)
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, description)


@dataclass
class _Index:
    """What is kept of the recordings besides their events."""

    lengths: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    remarks: dict[str, tuple[int, str]] = field(default_factory=dict)  # how many recordings, and the first of them
    targets: list[np.ndarray] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    durations: list[int | None] = field(default_factory=list)
    sha256: str = ""

    def beside(self) -> Beside:
        """What is there besides events and classes."""
        whole = [LONGEST_US if each is None else each for each in self.durations]
        return Beside(
            targets=stacked(self.targets) if self.targets else None,
            durations=np.array(whole, np.int64) if any(each is not None for each in self.durations) else None,
            groups=tuple(self.groups) if any(self.groups) else (),
            splits=tuple(self.splits) if any(self.splits) else (),
        )

    def notes(self) -> tuple[str, ...]:
        return tuple(
            f"{remark} ({name})" if count == 1 else f"{remark} ({count} recordings, the first is {name})"
            for remark, (count, name) in self.remarks.items()
        )


def _stream_into(
    sinks: Mapping[str, Callable[[bytes], Any]], recordings: Iterable[Recording], *, sensor: Sensor, classes: int
) -> _Index:
    """Pass the bytes of each field to its sink; gives lengths, labels, names and hashes."""
    index, digest = _Index(), hashlib.sha256()
    for recording in recordings:
        own = hashlib.sha256()
        for each, values in _checked(recording, sensor=sensor, classes=classes).items():
            content = values.tobytes()
            sinks[each](content)
            digest.update(content)
            own.update(content)
        name = recording.name or recording.source
        index.lengths.append(len(recording.events))
        index.labels.append(recording.label)
        index.hashes.append(int.from_bytes(own.digest()[:8], "big"))
        index.names.append(name)
        index.groups.append(recording.group)
        index.splits.append(recording.split)
        index.durations.append(recording.duration_us)
        if recording.target is not None:
            index.targets.append(recording.target)
        if recording.remark:
            count, first = index.remarks.get(recording.remark, (0, name))
            index.remarks[recording.remark] = (count + 1, first)
    digest.update(np.array([index.lengths, index.labels], dtype=np.int64).tobytes())
    digest.update(index.beside().digest)  # nothing where recordings have classes alone
    index.sha256 = digest.hexdigest()
    return index


def _checked(recording: Recording, *, sensor: Sensor, classes: int) -> dict[str, np.ndarray]:
    """The fields of one recording in the cache's types; raises where the sensor cannot have seen them."""
    events, limits = recording.events, dict(zip("xyp", sensor, strict=True)) | {"t": LONGEST_US}
    dtypes = _dtypes(sensor)
    for each in dtypes if len(events) else ():
        low, high = events[each].min(), events[each].max()
        if each == "t" and high >= limits[each] and low >= 0:
            raise SnnError(
                f"{recording.source}: t reaches {high / 60e6:,.1f} minutes from the start of the recording, at most "
                f"{LONGEST_US / 60e6:.1f} can be kept. Cut it into shorter ones, or see that its times are in "
                "the unit of the set."
            )
        if low < 0 or high >= limits[each]:
            raise SnnError(
                f"{recording.source}: {each} lies in 0..{limits[each] - 1}, found {low}..{high}. "
                "The file belongs to another sensor or data set, its columns are in another order, or it is damaged."
            )
    if not 0 <= recording.label < classes:
        raise SnnError(
            f"{recording.source}: a label lies in 0..{classes - 1}, found {recording.label}. "
            "The file is misplaced, or belongs to another data set."
        )
    return {each: events[each].astype(dtype) for each, dtype in dtypes.items()}


def _dtypes(sensor: Sensor) -> dict[str, np.dtype]:
    """The smallest types that hold the sensor's addresses; a row of channels has no y and no p."""
    width, height, polarities = sensor
    dtypes = {"x": np.min_scalar_type(width - 1), "t": np.dtype(np.uint32)}
    if height > 1:
        dtypes |= {"y": np.min_scalar_type(height - 1), "p": np.min_scalar_type(polarities - 1)}
    return dtypes


def _events(columns: dict[str, np.ndarray], lengths: Any, labels: Any) -> Events:
    none = np.empty(0, np.uint8)
    arrays = {each: np.asarray(columns.get(each, none)) for each in "xypt"}
    arrays["offsets"] = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)
    arrays["labels"] = np.asarray(labels, dtype=np.int64)
    for array in arrays.values():
        array.flags.writeable = False
    return Events(**arrays)
