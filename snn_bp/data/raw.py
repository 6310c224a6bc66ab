"""Raw columns of event files, checked before any cast: whole addresses, times in microseconds, polarities 0 and 1.

Nothing is believed because a type could hold it: narrow integers wrap, floats hold NaN, and polarities are coded in
several ways. The usual ones are read right, the rest is refused with file, field and value.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snn_bp.errors import SnnError, shown

_FIELDS = "xypt"
_LARGEST = 2**62
_COARSEST_US = 10_000  # between neighbours of the largest float time; coarser ones have lost the order
_EVENTS = np.dtype([(name, np.int64) for name in _FIELDS])
_ROW_EVENTS = np.dtype([("t", np.int64), ("x", np.int64)])


@dataclass
class Polarity:
    """How the files of one part code polarity: by 0/1, -1/1 (also wrapped into an unsigned type) or 1/2.

    A file of ones alone leaves open whether its 1 is the upper or the lower of two values: the others tell.
    """

    by_two: str = ""  # the first file coded 1/2
    by_one: str = ""  # the first one coded 0/1 or -1/1
    open: list[str] = field(default_factory=list)  # files of ones alone, read as the upper value

    @classmethod
    def of(cls, state: Sequence[str]) -> "Polarity":
        """That of which `state` was the state; () where no file was read yet."""
        by_two, by_one, *others = state or ("", "")
        return cls(by_two, by_one, others)

    @property
    def state(self) -> tuple[str, ...]:
        """What reading on depends on."""
        return (self.by_two, self.by_one, *self.open[:1])

    def read(self, values: np.ndarray, *, source: str) -> np.ndarray:
        """Zeros and ones; raises where the values are none of the usual codings, or not those of other files."""
        if not len(values):
            return values
        low, high = int(values.min()), int(values.max())
        few = high - low < 2**16  # counted in a tenth of the time that it takes to sort or hash them
        found = {low + n for n in np.flatnonzero(np.bincount(values - low))} if few else set(np.unique(values).tolist())
        wrapped = {2**bits - 1 for bits in (8, 16, 32)}  # -1 in an unsigned type of so many bits
        if found <= {0, 1} and found != {1}:
            coding, upper = "by_one", values
        elif (-1 in found and found <= {-1, 1}) or (len(found) == 2 and 1 in found and found & wrapped):
            coding, upper = "by_one", values == 1
        elif 2 in found and found <= {1, 2}:
            coding, upper = "by_two", values == 2
        elif found == {1}:
            if not self.by_two:
                self.open.append(source)
            return np.zeros_like(values) if self.by_two else values
        else:
            told = ", ".join(str(value) for value in sorted(found)[:5]) + ", ..." * (len(found) > 5)
            raise SnnError(
                f"{source}: p should be a polarity coded 0/1, -1/1 or 1/2, found {told}. "
                "Another field may stand there; write the recording with polarities 0 and 1."
            )
        if not getattr(self, coding):
            setattr(self, coding, source)
        if self.by_two and (self.by_one or self.open):
            other = self.by_one or self.open[0]
            raise SnnError(
                f"{source}: p is coded 1/2 in {self.by_two} and 0/1 (or by ones alone) in {other}. "
                "One set has one coding; write these recordings with polarities 0 and 1."
            )
        return np.asarray(upper).astype(np.int64)


def events_of_table(array: np.ndarray, *, unit_us: int, polarity: Polarity, source: str) -> np.ndarray:
    """Events of an array as event files hold it: columns x, y, p, t, or a structured array with these names."""
    if array.dtype.names is not None:
        if sorted(array.dtype.names) != sorted(_FIELDS):
            raise SnnError(
                f"{source}: its fields should be x, y, p and t, found {', '.join(array.dtype.names)}. "
                "Rename or drop the others."
            )
        columns = {name: array[name].reshape(-1) for name in _FIELDS}
        if len({len(column) for column in columns.values()}) > 1:
            raise SnnError(f"{source}: x, y, p and t should be one number an event each, found {array.dtype}.")
    else:
        if array.ndim != 2 or array.shape[1] != 4:
            turned = " It looks transposed." if array.ndim == 2 and array.shape[0] == 4 else ""
            raise SnnError(
                f"{source}: it should be an array [events, 4] with the columns x, y, p, t, or a structured one with "
                f"these names, found {array.dtype} {list(array.shape)}.{turned}"
            )
        columns = dict(zip(_FIELDS, array.T, strict=True))
    events = np.empty(len(columns["t"]), _EVENTS)
    for name in "xy":
        events[name] = as_integers(columns[name], name, source=source)
    if columns["p"].dtype == np.uint64:
        columns["p"] = columns["p"].astype(np.int64)  # where the largest number is -1 again
    events["p"] = polarity.read(as_integers(columns["p"], "p", source=source), source=source)
    events["t"] = microseconds(columns["t"], unit_us=unit_us, source=source)
    return events


def events_of_bytes(content: np.ndarray, *, source: str) -> np.ndarray:
    """Events of an N-MNIST file: five bytes each, x, y, then polarity and 23 bits of microseconds (Orchard 2015).

    The row 240 stands for no event: the clock of those behind it is 8,192 us further.
    """
    if len(content) == 0 or len(content) % 5:
        raise SnnError(
            f"{source}: an event has 5 bytes, found {len(content)} bytes. The file is cut short, or no N-MNIST file; "
            "copy it anew."
        )
    rows = content.reshape(-1, 5).astype(np.int64)
    marks = rows[:, 1] == 240
    times = ((rows[:, 2] & 127) << 16 | rows[:, 3] << 8 | rows[:, 4]) + 8192 * np.cumsum(marks)
    if not marks.any() and len(times) > 1 and np.diff(times).min() < -(2**22):
        raise SnnError(
            f"{source}: t steps back by {-np.diff(times).min() / 1e6:.1f} s: its clock of 23 bits has wrapped. "
            "Cut the recording into pieces shorter than 8.4 s."
        )
    events = np.empty(len(rows), _EVENTS)
    events["x"], events["y"], events["p"], events["t"] = rows[:, 0], rows[:, 1], rows[:, 2] >> 7, times
    return events[~marks]


def events_of_row(times: Any, units: Any, *, source: str) -> np.ndarray:
    """Events of a row of channels: times in seconds as floats, and the channel of each (SHD's schema)."""
    times, units = np.asarray(times), np.asarray(units)
    if times.ndim != 1 or units.ndim != 1 or len(times) != len(units):
        raise SnnError(
            f"{source}: spikes/times and spikes/units should have one number an event each, found "
            f"{list(times.shape)} and {list(units.shape)}."
        )
    if len(times) and times.dtype.kind != "f":
        raise SnnError(
            f"{source}: spikes/times should be seconds as floats, found {times.dtype} up to {times.max()}. "
            "Write them in seconds."
        )
    events = np.empty(len(times), _ROW_EVENTS)
    events["t"] = microseconds(times, unit_us=1_000_000, source=source, name="spikes/times")
    events["x"] = as_integers(units, "spikes/units", source=source)
    return events


@contextlib.contextmanager
def naming(source: str) -> Iterator[None]:
    """Errors of readers become one that names the file."""
    try:
        yield
    except FileNotFoundError as cause:
        raise SnnError(
            f"{source}: it vanished while the set was being read. Start again when the set is whole."
        ) from cause
    except PermissionError as cause:
        raise SnnError(f"{source}: it cannot be read ({cause.strerror}). Give the right to read it.") from cause
    except (Exception, SystemExit) as cause:
        if isinstance(cause, SnnError):
            raise
        raise SnnError(
            f"{source}: it cannot be read ({cause}). It is cut short, or of another format than its name says; "
            "copy it anew."
        ) from cause


def order_of(events: np.ndarray) -> str:
    """A remark where times step back: no event is lost by that, but recordings are written in order."""
    steps_back = len(events) > 1 and bool((np.diff(events["t"]) < 0).any())
    return "times step back, as where part of a file was overwritten" if steps_back else ""


def as_array(value: Any, source: str) -> np.ndarray:
    """An array of what somebody gave; raises where its rows differ in length, or no array holds it."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as cause:
        raise SnnError(f"{source}: it should be an array of numbers, found {shown(value)} ({cause}).") from None


def as_integers(values: np.ndarray, name: str, *, source: str) -> np.ndarray:
    """The values as int64; raises where one is no integer, or beyond 62 bits."""
    if not len(values):
        return np.empty(0, np.int64)
    if values.dtype.kind not in "biuf":
        raise SnnError(f"{source}: {name} should be integers, found the type {values.dtype}.")
    if values.dtype.kind == "f":
        wrong = ~np.isfinite(values) | (np.floor(values) != values)
        _refuse_first(values, wrong, name, source, expected="integers")
    if values.dtype.kind in "uf":
        _refuse_first(values, np.abs(values) >= _LARGEST, name, source, expected="integers below 2**62")
    return values.astype(np.int64)


def microseconds(values: np.ndarray, *, unit_us: int, source: str, name: str = "t") -> np.ndarray:
    """Times in units of `unit_us` as whole microseconds, floats to the nearest; multiplied only when wide enough."""
    if not len(values):
        return np.empty(0, np.int64)
    if values.dtype.kind not in "iuf":
        raise SnnError(f"{source}: {name} should be numbers, found the type {values.dtype}.")
    if values.dtype.kind == "f":
        wide = values.astype(np.float64)
        _refuse_first(values, ~np.isfinite(wide), name, source, expected="finite")
        _refuse_first(values, (wide < 0) | (wide * unit_us >= _LARGEST), name, source, expected="0 or more")
        step_us = float(np.spacing(values.max())) * unit_us
        if step_us > _COARSEST_US:
            raise SnnError(
                f"{source}: {name} reaches {values.max():.10g}, where {values.dtype} tells times {step_us / 1000:,.0f} "
                "ms apart only. Write the times in int64, or count them from the start of the recording."
            )
        return np.rint(wide * unit_us).astype(np.int64)
    bits = 8 * values.dtype.itemsize
    if bits <= 32 and len(values) > 1:
        steps = np.diff(values.astype(np.int64))
        if steps.min() < -(2 ** (bits - 1)):
            at = int(steps.argmin())
            raise SnnError(
                f"{source}: {name} steps back from {values[at]} to {values[at + 1]}: its type, {values.dtype}, is too "
                "narrow and has wrapped. Write the times in int64."
            )
    if values.dtype.kind == "i":
        _refuse_first(values, values < 0, name, source, expected="0 or more")
    _refuse_first(values, values >= _LARGEST // unit_us, name, source, expected=f"below {_LARGEST // unit_us}")
    return values.astype(np.int64) * unit_us


def _refuse_first(values: np.ndarray, wrong: np.ndarray, name: str, source: str, *, expected: str) -> None:
    if wrong.any():
        at = int(wrong.argmax())
        raise SnnError(
            f"{source}: {name} should be {expected}, found {values[at]} at event {at} "
            f"({int(wrong.sum())} of {len(values)} events). Leave such events out, or repair the file."
        )
