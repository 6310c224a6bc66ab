"""Recordings in the cache: arrays end to end on disk, written once and mapped into memory.

A recording enters with integers as wide as they come, and leaves in the smallest types that hold the sensor's
addresses. What the sensor cannot have seen is refused before it becomes one of these types.
"""

import contextlib
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from snn_bp.data.beside import NOTHING_BESIDE, Beside, stacked
from snn_bp.data.cache import Damaged, seal_entry
from snn_bp.data.catalogue import Sensor
from snn_bp.data.encode import Events
from snn_bp.data.entries import kept
from snn_bp.data.journal import JOURNAL, Line, lines_of
from snn_bp.errors import SnnError
from snn_bp.files import json_sha256
from snn_bp.runtime.status import in_phase

FORMAT = 2
LONGEST_US = 2**32 - 1  # times are kept in 32 bits
FLUSHED_S = 1.0  # a build that is killed loses what it did in so many seconds


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
    coding: tuple[str, ...] = ()  # the state of `Polarity` behind it, where the reader goes on from that


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
    name: str,
    recordings: Callable[[int, Sequence[str]], Iterable[Recording]],
    *,
    made_from: Any | None,
    sensor: Sensor,
    classes: int,
) -> CachedEvents:
    """The events of recordings, from the cache if they were made from the same before.

    `recordings` gives those from a number on, and is told the `coding` of the one before it; it is not called when the
    cache has their events. `made_from` is any value JSON can write; None where nobody knows what they were made from:
    they are read at every start, and the entry is found by its content.
    """
    key = None if made_from is None else [FORMAT, made_from, sensor, classes]

    def build(folder: Path) -> str:
        return json_sha256([FORMAT, sensor, classes, _write(folder, recordings, sensor=sensor, classes=classes)])

    return kept(
        name,
        key,
        build=build,
        read=lambda folder, record, said: _mapped(folder, record, sensor, said),
        hold=lambda: hold(recordings(0, ()), sensor=sensor, classes=classes),
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
    return CachedEvents(_events(columns, lengths, labels, beside), sha256, folder, names, hashes, notes, beside)


def hold(recordings: Iterable[Recording], *, sensor: Sensor, classes: int) -> CachedEvents:
    """Events in memory."""
    columns: dict[str, list[bytes]] = {each: [] for each in _dtypes(sensor)}
    sinks, index = {each: parts.append for each, parts in columns.items()}, _Index()
    for recording in recordings:
        index.add(_passed(recording, sinks, index.digest, sensor=sensor, classes=classes))
    arrays = {each: np.frombuffer(b"".join(columns[each]), dtype) for each, dtype in _dtypes(sensor).items()}
    sha256, hashes, names = index.sha256(), np.array(index.of_each("hash"), dtype=np.uint64), index.of_each("name")
    beside = index.beside()
    events = _events(arrays, index.of_each("length"), index.of_each("label"), beside)
    return CachedEvents(events, sha256, None, tuple(names), hashes, index.notes(), beside)


def _write(
    folder: Path, recordings: Callable[[int, Sequence[str]], Iterable[Recording]], *, sensor: Sensor, classes: int
) -> str:
    """Events on disk, one recording at a time, so that the set need not fit into memory; gives the hash of it all.

    Behind those that the journal beside the folder knows of, where there is one.
    """
    dtypes, index, journal = _dtypes(sensor), _Index(), folder.parent / JOURNAL
    for left in set(folder.iterdir()) - {folder / f"{each}.npy" for each in dtypes}:
        left.unlink()
    with contextlib.ExitStack() as stack:
        files = {}
        for each, dtype in dtypes.items():
            (folder / f"{each}.npy").touch()
            files[each] = stack.enter_context(open(folder / f"{each}.npy", "r+b"))
            _write_header(files[each], dtype, 0)
        notes = stack.enter_context(journal.open("r+b") if journal.exists() else io.BytesIO())
        _go_on(files, dtypes, notes, index)
        sinks, flushed = {each: file.write for each, file in files.items()}, time.monotonic()
        coding = index.lines[-1].coding if index.lines else ()
        for recording in recordings(len(index.lines), coding):
            line = _passed(recording, sinks, index.digest, sensor=sensor, classes=classes)
            index.add(line)
            notes.write(line.text())
            if time.monotonic() - flushed > FLUSHED_S:
                for file in (*files.values(), notes):
                    file.flush()
                flushed = time.monotonic()
        for each, file in files.items():
            _write_header(file, dtypes[each], sum(index.of_each("length")))
    for name, kind, dtype in (("lengths", "length", "i8"), ("labels", "label", "i8"), ("hashes", "hash", "u8")):
        np.save(folder / f"{name}.npy", np.array(index.of_each(kind), dtype=dtype))
    names, sha256, beside = index.of_each("name"), index.sha256(), index.beside()
    (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")
    beside.write(folder)
    seal_entry(folder, {"sha256": sha256, "notes": index.notes()})
    return json_sha256([sha256, names, index.of_each("group"), index.of_each("split"), index.notes()])


def _go_on(files: Mapping[str, IO[bytes]], dtypes: Mapping[str, np.dtype], journal: IO[bytes], index: "_Index") -> None:
    """Add to the index what a build that was stopped has written, and cut off what is not as its journal says."""
    lines = list(lines_of(journal))
    ends, end = {each: file.tell() for each, file in files.items()}, 0
    for line in in_phase(lines, f"checking {len(lines):,} recordings that were read before"):
        contents = {each: file.read(line.length * dtypes[each].itemsize) for each, file in files.items()}
        if int.from_bytes(hashlib.sha256(b"".join(contents.values())).digest()[:8], "big") != line.hash:
            break
        for content in contents.values():
            index.digest.update(content)
        index.add(line)
        end += len(line.text())
        ends = {each: file.tell() for each, file in files.items()}
    for each, file in files.items():
        file.seek(ends[each])
        file.truncate()
    journal.seek(end)
    journal.truncate()


def _write_header(file: IO[bytes], dtype: np.dtype, count: int) -> None:
    # NumPy pads headers so that the first axis can grow: the second header is as long as the first.
    file.seek(0)
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, description)


@dataclass
class _Index:
    """What is kept of the recordings besides their events, and the hash of these so far."""

    lines: list[Line] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, line: Line) -> None:
        self.lines.append(line)

    def of_each(self, name: str) -> list[Any]:
        return [getattr(line, name) for line in self.lines]

    def sha256(self) -> str:
        """The hash of all events and targets."""
        digest = self.digest.copy()
        digest.update(np.array([self.of_each("length"), self.of_each("label")], dtype=np.int64).tobytes())
        digest.update(self.beside().digest)  # nothing where recordings have classes alone
        return digest.hexdigest()

    def beside(self) -> Beside:
        """What is there besides events and classes."""
        durations, groups, splits = (self.of_each(name) for name in ("duration_us", "group", "split"))
        targets = [line.target for line in self.lines if line.target is not None]
        whole = [LONGEST_US if each is None else each for each in durations]
        return Beside(
            targets=stacked(targets) if targets else None,
            durations=np.array(whole, np.int64) if any(each is not None for each in durations) else None,
            groups=tuple(groups) if any(groups) else (),
            splits=tuple(splits) if any(splits) else (),
            spans=np.array(self.of_each("span"), np.int64).reshape(-1, 3),
        )

    def notes(self) -> tuple[str, ...]:
        """The remarks, each with how many recordings it is of, and the first of them."""
        named: dict[str, list[str]] = {}
        for line in self.lines:
            if line.remark:
                named.setdefault(line.remark, []).append(line.name)
        return tuple(
            f"{remark} ({names[0]})"
            if len(names) == 1
            else f"{remark} ({len(names)} recordings, the first is {names[0]})"
            for remark, names in named.items()
        )


def _passed(
    recording: Recording, sinks: Mapping[str, Callable[[Any], Any]], digest: Any, *, sensor: Sensor, classes: int
) -> Line:
    """Pass the bytes of each field of a recording to its sink and to the hash of all; gives what else is kept."""
    columns, own = _checked(recording, sensor=sensor, classes=classes), hashlib.sha256()
    for each, values in columns.items():
        content = values.data
        sinks[each](content)
        digest.update(content)
        own.update(content)
    times = columns["t"]
    is_ordered = bool((times[1:] >= times[:-1]).all())
    return Line(
        len(times),
        int(recording.label),
        int.from_bytes(own.digest()[:8], "big"),
        recording.name or recording.source,
        (int(times.min()), int(times.max()), is_ordered) if len(times) else (0, 0, True),
        recording.remark,
        recording.target,
        recording.group,
        recording.split,
        recording.duration_us,
        tuple(recording.coding),
    )


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


def _events(columns: dict[str, np.ndarray], lengths: Any, labels: Any, beside: Beside) -> Events:
    none = np.empty(0, np.uint8)
    arrays = {each: np.asarray(columns.get(each, none)) for each in "xypt"}
    arrays["offsets"] = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)
    arrays["labels"] = np.asarray(labels, dtype=np.int64)
    for array in arrays.values():
        array.flags.writeable = False
    return Events(**arrays, spans=beside.spans)
