"""Events out of recordings' files, each format by its own reader, checked alike whatever the format.

`FORMATS` says by a file's ending who reads it. What a reader gives are columns as they stand in the file; here they
become events, or one error that names the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snn_bp.data.formats import containers, event_stream, inivation, prophesee, text
from snn_bp.data.formats.columns import Columns, Layout, other_inside
from snn_bp.data.raw import Polarity, as_integers, events_of_bytes, microseconds, naming
from snn_bp.errors import SnnError, as_path, check_choice, check_flag, is_number, shown
from snn_bp.errors.calls import checked_call
from snn_bp.files import is_there, kind_of_entry

EVENTS = np.dtype([("x", np.uint16), ("y", np.uint16), ("t", np.int64), ("p", np.uint8)])
_UNITS_US = {"us": 1, "ms": 1000, "s": 1_000_000}


def _n_mnist(path: Path, layout: Layout) -> Columns:
    events = events_of_bytes(np.fromfile(path, np.uint8), source=str(path))
    return Columns(events["x"], events["y"], events["t"], events["p"], unit="us", coded=False)


FORMATS = {
    ".npy": containers.read_npy,
    ".npz": containers.read_npz,
    ".h5": containers.read_h5,
    ".hdf5": containers.read_h5,
    ".mat": containers.read_mat,
    ".bin": _n_mnist,
    ".aedat4": inivation.read_aedat4,
    ".aedat": inivation.read_aedat,
    ".raw": prophesee.read_raw,
    ".dat": prophesee.read_dat,
    ".es": event_stream.read_es,
    ".csv": text.read_text,
    ".txt": text.read_text,
}


@dataclass(frozen=True)
class FileEvents:
    """The events of a file, and width and height of the sensor where the file says them."""

    events: np.ndarray
    size: tuple[int, int] | None


@checked_call
def read_events(
    path: Path | str, *, sensor: Sequence[int] | None = None, columns: str | None = None, unit: str | None = None,
    entry: str | None = None, sort: bool = False,
) -> np.ndarray:  # fmt: skip
    """The events of a recording's file: a structured array with the fields x, y, t (microseconds) and p (0 or 1).

    The file's ending says its format: `.npy .npz .h5 .hdf5 .mat`, `.bin` (N-MNIST, 40 bits an event), `.aedat4`,
    `.aedat` (versions 2 and 3.1), `.raw` (Prophesee EVT2, EVT3), `.dat` (ATIS, Prophesee), `.es` (Event Stream), `.csv`
    and `.txt`. Times are those of the file's clock. Fields are addressed by name (t, ts, time, timestamp; p, pol,
    polarity, on).

    Parameters:
        path: the file.
        sensor (None): (width, height) with or without polarities, in pixels, what addresses must lie on; None: the size
            that the file states, if it does.
        columns (None): names the columns of an array or text without names: "txyp" for one.
        unit (None): of times in arrays and text: "us" (the default for integers), "ms" or "s" (that for fractions in
            text).
        entry (None): the group or array within a file that holds several.
        sort (False): puts events in order of time where they stand otherwise.

    Raises where the file is cut short, of another format, without events, or against any of these.

    >>> np.save("a.npy", np.array([[3, 4, 1000, 1], [5, 6, 2500, 0]]))  # x, y, t, p
    >>> read_events("a.npy", columns="xytp")["t"].tolist()
    [1000, 2500]
    """
    return read_file(path, sensor=sensor, columns=columns, unit=unit, entry=entry, sort=sort).events


def read_file(
    path: Path | str, *, sensor: Sequence[int] | None = None, columns: str | None = None, unit: str | None = None,
    entry: str | None = None, sort: bool = False, polarity: Polarity | None = None,
) -> FileEvents:  # fmt: skip
    """What `read_events` gives, with the size that the file states.

    `polarity` is shared by the files of one set, so that all are read in one coding.
    """
    path = as_path("read_events: the file", path)
    check_options(columns=columns, unit=unit, sort=sort)
    if sensor is not None:
        size_of(sensor)
    if entry is not None and not isinstance(entry, str):
        raise SnnError(f"entry={shown(entry)}: it is the name of a group or array within the file, as 'events'.")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise SnnError(f"{path}: its ending says no format of events. Known: {' '.join(FORMATS)}.")
    if not is_there(path):
        raise SnnError(f"{path}: there is no such file. Give the path of a recording.")
    with naming(str(path)):
        mode = path.stat().st_mode
        if kind_of_entry(mode) != "a file":
            raise SnnError(f"{path}: it should be a recording, a file, found {kind_of_entry(mode)}.")
        other_inside(path, suffix)
        found = FORMATS[suffix](path, Layout(columns=columns, unit=unit, entry=entry))
        return _checked(found, str(path), sensor=sensor, sort=sort, polarity=polarity or Polarity())


def check_options(*, columns: str | None, unit: str | None, sort: bool) -> None:
    """Raise unless these are what `read_events` takes."""
    if columns is not None and (not isinstance(columns, str) or sorted(columns) != sorted("txyp")):
        raise SnnError(f"columns={shown(columns)}: it names the four columns, each by a letter, as 'txyp' or 'xytp'.")
    if unit is not None:
        check_choice("unit", unit, _UNITS_US)
    check_flag("sort", sort)


def size_of(sensor: Sequence[int]) -> tuple[int, int]:
    """Width and height of a sensor, given with or without its polarities."""
    whole = isinstance(sensor, tuple | list) and len(sensor) in (2, 3)
    if not whole or not all(is_number(length, integer=True) and 1 <= length <= 2**16 for length in sensor):
        raise SnnError(f"sensor={shown(sensor)}: it should be (width, height, polarities), as (346, 260, 2).")
    return int(sensor[0]), int(sensor[1])


def _checked(
    found: Columns, source: str, *, sensor: Sequence[int] | None, sort: bool, polarity: Polarity
) -> FileEvents:
    """Events of columns; raises where there are none, or where they cannot be what the sensor saw."""
    size = found.size
    if sensor is not None:
        size = size_of(sensor)
        if found.size not in (None, size):
            raise SnnError(
                f"{source}: it was recorded by a sensor of {found.size[0]}x{found.size[1]}, asked for was "
                f"{size[0]}x{size[1]}. Give the sensor that recorded it."
            )
    lengths = {len(column) for column in (found.x, found.y, found.t, found.p)}
    if len(lengths) > 1:
        raise SnnError(f"{source}: x, y, t and p should be as many, found {len(found.x)}, {len(found.y)}, "
                       f"{len(found.t)} and {len(found.p)}.")  # fmt: skip
    if lengths == {0}:
        raise SnnError(f"{source}: it holds no events. Leave it out, or record it anew.")
    events = np.empty(len(found.t), EVENTS)
    for name, limit in zip("xy", size or (2**16, 2**16), strict=True):
        values = as_integers(getattr(found, name), name, source=source)
        if values.min() < 0 or values.max() >= limit:
            raise SnnError(
                f"{source}: {name} lies in 0..{limit - 1}, found {values.min()}..{values.max()}. The file belongs to "
                "another sensor, its columns are in another order, or it is damaged."
            )
        events[name] = values
    p = found.p.astype(np.int64) if found.p.dtype.kind == "b" or found.p.dtype == np.uint64 else found.p
    events["p"] = polarity.read(as_integers(p, "p", source=source), source=source) if found.coded else p
    unit_us = _UNITS_US[found.unit or _guessed_unit(found, source)]
    events["t"] = microseconds(found.t, unit_us=unit_us, source=source)
    return FileEvents(_in_order(events, source, sort=sort), found.size)


def _guessed_unit(found: Columns, source: str) -> str:
    """Integers are microseconds; fractions are seconds in text, where everybody writes them so."""
    if found.t.dtype.kind != "f" or not len(found.t) or not np.isfinite(found.t).all():
        return "us"
    if (np.floor(found.t) == found.t).all():
        return "us"
    if found.is_text:
        return "s"
    raise SnnError(
        f"{source}: t has fractions, {found.t[0]:.10g} to {found.t[-1]:.10g}, and no unit. "
        "Say unit='s' or unit='ms', as in `snn-bp init FOLDER unit=s`; integers are microseconds."
    )


def _in_order(events: np.ndarray, source: str, *, sort: bool) -> np.ndarray:
    falls = events["t"][1:] < events["t"][:-1]
    if not falls.any():
        return events
    if sort:
        return events[np.argsort(events["t"], kind="stable")]
    at, t = int(falls.argmax()), events["t"]
    raise SnnError(
        f"{source}: times fall at {int(falls.sum())} of {len(events)} events, first from {t[at]} to {t[at + 1]} us at "
        f"event {at + 1}. sort=True puts them in order; where the clock was set anew, cut the recording there."
    )


__all__ = ["EVENTS", "FORMATS", "FileEvents", "read_events", "read_file", "size_of"]
