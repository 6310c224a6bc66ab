"""Sources of one's own: a frozen value that gives, for each part, recordings of events or frames; `Data` shows one.

What a source gives is read at every start, and compared by its hash with what a run has seen: it is never stale. A
source that says what it reads by `made_from()`, a list of paths and of values that JSON can hold, is read once for each
state of these files, of its own definition and of its fields.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np

from snn_bp.data.beside import checked_duration, checked_split, checked_target
from snn_bp.data.catalogue import ADDRESS_EVENT, ROW_EVENT, DataSetInfo, Sensor
from snn_bp.data.folder import Folder
from snn_bp.data.raw import Polarity, as_array, as_integers, events_of_table, microseconds, naming, order_of
from snn_bp.data.store import Recording
from snn_bp.data.tonic_sets import TonicSet
from snn_bp.errors import SnnError, is_number, nearest, shown
from snn_bp.model.targets import Targets

FRAME_MS = 1.0  # the width of a frame where neither a source nor Data says it
_OF_ONE = ("name", "group", "split", "duration_ms")
_OF_ALL = ("names", "groups", "splits")


@dataclass(frozen=True, eq=False)
class Frames:
    """What a source of frames gives for one part, checked: an entry a recording in each field."""

    each: list[np.ndarray]  # [steps, ...], or an image for an encoder
    targets: list[np.ndarray]
    names: tuple[str, ...]
    groups: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()


def gives_frames(source: Any) -> bool:
    """Whether a source gives frames; one that does not gives events."""
    return callable(getattr(source, "frames", None))


def info_of(source: Any) -> DataSetInfo:
    """The facts that a source of one's own states of itself; raises where it is none."""
    kind = type(source).__name__
    if isinstance(source, type):
        raise SnnError(f"Data({source.__name__}): that is what makes a source. Write Data({source.__name__}(...)).")
    frozen = is_dataclass(source) and source.__dataclass_params__.frozen  # type: ignore[attr-defined]
    if not frozen or not (gives_frames(source) or callable(getattr(source, "recordings", None))):
        raise SnnError(
            f"Data({shown(source)}): a source of one's own is a frozen dataclass with recordings(part), which yields "
            "(events, class), or with frames(part), which returns (x, targets)."
        )
    sensor = (1, 1, 1) if gives_frames(source) else checked_sensor(getattr(source, "sensor", None), source=kind)
    row = sensor[1] == 1
    return DataSetInfo(
        name=kind,
        sensor=None if row else sensor,
        channels=sensor[0],
        class_names=(),
        window_ms=_milliseconds(source, "window_ms"),
        step_ms=_milliseconds(source, "step_ms") or (FRAME_MS if gives_frames(source) else 0),
        totals={},
        event_dtype=ROW_EVENT if row else ADDRESS_EVENT,
    )


def checked_sensor(sensor: Any, *, source: str) -> Sensor:
    """A sensor as (width, height, polarities); a row of channels as (channels, 1, 1)."""
    sizes = sensor if isinstance(sensor, tuple | list) else (sensor,)
    whole = all(is_number(size, integer=True) and 1 <= size <= 2**16 for size in sizes)
    if not whole or len(sizes) not in (1, 3):
        raise SnnError(
            f"{source}: its sensor should be (width, height, polarities), as (346, 260, 2), or (channels, 1, 1), found "
            f"{shown(sensor)}."
        )
    width, height, polarities = sizes if len(sizes) == 3 else (*sizes, 1, 1)
    return int(width), int(height), int(polarities)


def targets_of(source: Any) -> Targets:
    """What a source asks of a network."""
    kind, targets = type(source).__name__, getattr(source, "targets", None)
    if isinstance(targets, Targets):
        return targets
    names = getattr(source, "class_names", None)
    if targets is not None or not isinstance(names, tuple | list):
        raise SnnError(
            f'{kind}: it should say what is asked for, by class_names = ("left", "right") or by targets = '
            f'Targets("vector", ("x", "y")), found {shown(names if targets is None else targets)}.'
        )
    return Targets("class", tuple(names))


def recordings_of(source: Any, part_name: str, first: int = 0, coding: Sequence[str] = ()) -> Iterator[Recording]:
    """The recordings of a part, checked, numbered in the order in which they come, from number `first` on.

    `coding` is the state of `Polarity` behind those before. Of a source of one's own these are read again.
    """
    info, targets, kind = info_of(source), targets_of(source), type(source)
    polarity = Polarity.of(coding if is_seekable(source) else ())
    if kind is Folder:
        given = source.recordings(part_name, first, polarity)
    elif kind is TonicSet:
        given = source.recordings(part_name, first)
    else:
        given = _recordings_of_own(source, part_name)
    start = first if is_seekable(source) else 0
    for number, one in enumerate(given, start):
        seen = Polarity() if kind is Folder else polarity  # which has read zeros and ones already
        recording = recording_of(one, number, info, targets, seen, source=f"{info.name}, {part_name} part")
        if number >= first:
            yield replace(recording, coding=polarity.state)


def _recordings_of_own(source: Any, part_name: str) -> Iterator[Any]:
    with _reading(source, part_name):
        given = source.recordings(part_name)
        yield from () if given is None else given


@contextlib.contextmanager
def _reading(source: Any, part_name: str) -> Iterator[None]:
    """Errors of the files that a source of one's own reads, which are not those of the cache that is written."""
    try:
        yield
    except OSError as cause:
        raise SnnError(
            f"{type(source).__name__}, {part_name} part: a file cannot be read ({cause}). See that it is there and "
            "start again."
        ) from cause


def is_seekable(source: Any) -> bool:
    """Whether the recordings of a source can be read from any one on, without those before."""
    return type(source) in (Folder, TonicSet)


def count_of(source: Any, part_name: str) -> int | None:
    """How many recordings a part has, None where only reading them says that."""
    if type(source) is Folder:
        return len(source.of_part(part_name))
    return sum(map(len, source.of_part(part_name).values())) if type(source) is TonicSet else None


def recording_of(
    one: Any, number: int, info: DataSetInfo, targets: Targets, polarity: Polarity, *, source: str
) -> Recording:
    """One recording from what a source yields: (events, target), or a dictionary behind."""
    if not isinstance(one, tuple | list) or len(one) not in (2, 3):
        raise SnnError(f"{source}: recording {number} should be (events, target), found {shown(one)}.")
    facts = checked_facts(one[2] if len(one) == 3 else {}, _OF_ONE, source=f"{source}, recording {number}")
    name = str(facts.get("name", f"recording {number}"))
    where = f"{source}, {name}"
    target = checked_target(one[1], targets, source=where)
    events = _events(one[0], info, polarity, source=where)
    is_class = targets.kind == "class"
    return Recording(
        where,
        events,
        int(target) if is_class else 0,
        name,
        order_of(events),
        target=None if is_class else target,
        group=str(facts.get("group", "")),
        split=checked_split(facts.get("split"), source=where),
        duration_us=checked_duration(facts.get("duration_ms"), source=where),
    )


def frames_of(source: Any, part_name: str) -> Frames | None:
    """What a source of frames gives for a part, checked; None where it has none."""
    with _reading(source, part_name):
        given = source.frames(part_name)
    targets, kind = targets_of(source), f"{type(source).__name__}, {part_name} part"
    if given is None:
        return None
    if not isinstance(given, tuple | list) or len(given) < 2 or len(given) > 4:
        raise SnnError(f"{kind}: frames should return (x, targets) or (x, targets, lengths), found {shown(given)}.")
    x, y, *more = given
    facts = more.pop() if more and isinstance(more[-1], Mapping) else {}
    lengths = more[0] if more else None
    return checked_frames(x, y, targets, lengths=lengths, facts=facts, source=kind)


def checked_frames(
    x: Any, y: Any, targets: Targets, *, lengths: Any = None, facts: Mapping[str, Any], source: str
) -> Frames:
    """Frames and targets of a part, an entry a recording; raises where they are not as many, or no numbers."""
    facts = checked_facts(facts, _OF_ALL, source=source)
    with naming(source):
        each, wanted = [np.asarray(one) for one in x], list(y)
    count = len(each)
    if lengths is not None and as_array(lengths, f"{source}, lengths").ndim != 1:
        raise SnnError(f"{source}: lengths should be an integer for each recording, found {shown(lengths)}.")
    if lengths is not None:
        lengths = [int(length) for length in as_integers(np.asarray(lengths), "lengths", source=source)]
    named = {"targets": wanted, **({} if lengths is None else {"lengths": lengths}), **facts}
    for name, values in named.items():
        if not isinstance(values, Sequence | np.ndarray) or len(values) != count:
            found = f"{len(values)}" if isinstance(values, Sequence | np.ndarray) else shown(values)
            raise SnnError(f"{source}: {count} recordings want as many {name}, found {found}.")
    names = tuple(map(str, facts.get("names", ()))) or tuple(f"recording {number}" for number in range(count))
    for number, (name, array) in enumerate(zip(names, each, strict=True)):
        where = f"{source}, {name}"
        if array.dtype.kind not in "biuf" or array.ndim < 1 or not len(array):
            raise SnnError(
                f"{where}: frames are numbers [steps, ...], found {array.dtype} {list(array.shape)}. Events come from "
                "a source with recordings(part)."
            )
        if lengths is not None:
            if not 1 <= lengths[number] <= len(array):
                raise SnnError(f"{where}: its length is {lengths[number]}, it has {len(array)} steps.")
            array = array[: lengths[number]]
        with np.errstate(over="ignore"):
            array = array.astype(np.uint8 if array.dtype in (bool, np.uint8) else np.float32, copy=False)
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise SnnError(
                f"{where}: its frames hold NaN, infinity or what single precision cannot hold. Leave such recordings "
                "out, or repair them."
            )
        each[number] = array
    return Frames(
        each,
        [checked_target(one, targets, source=f"{source}, {name}") for name, one in zip(names, wanted, strict=True)],
        names,
        tuple(map(str, facts.get("groups", ()))),
        tuple(checked_split(split, source=source) for split in facts.get("splits", ())),
    )


def checked_facts(facts: Any, known: Iterable[str], *, source: str) -> dict[str, Any]:
    """What a source says besides, refused where a word is unknown."""
    if not isinstance(facts, Mapping):
        raise SnnError(
            f"{source}: behind the target a dictionary may stand, as {{'group': 'ann'}}, found {shown(facts)}."
        )
    for name in facts:
        if name not in known:
            raise SnnError(f"{source}: there is no {name!r}. {nearest(str(name), known)}")
    return {name: value for name, value in facts.items() if value is not None}


def _events(given: Any, info: DataSetInfo, polarity: Polarity, *, source: str) -> np.ndarray:
    """Events in microseconds, from a structured array, a dictionary of columns, or [events, 4] of x, y, p, t."""
    with naming(source):
        array = np.asarray(_structured(given) if isinstance(given, Mapping) else given)
    if info.sensor is not None:
        return events_of_table(array, unit_us=1, polarity=polarity, source=source)
    if not {"t", "x"} <= set(array.dtype.names or ()):
        raise SnnError(
            f"{source}: events of a row of channels have the fields t and x, found {array.dtype}. "
            "As in {'t': microseconds, 'x': channels}."
        )
    events = np.empty(array.size, np.dtype([("t", np.int64), ("x", np.int64)]))
    events["t"] = microseconds(array["t"].reshape(-1), unit_us=1, source=source)
    events["x"] = as_integers(array["x"].reshape(-1), "x", source=source)
    return events


def _structured(columns: Mapping[str, Any]) -> np.ndarray:
    arrays = {name: np.asarray(column).reshape(-1) for name, column in columns.items()}
    length = {len(array) for array in arrays.values()}
    if len(length) != 1:
        raise SnnError(f"columns of events should be as long as each other, found {sorted(length)}.")
    events = np.empty(length.pop(), [(name, array.dtype) for name, array in arrays.items()])
    for name, array in arrays.items():
        events[name] = array
    return events


def _milliseconds(source: Any, name: str) -> float:
    value = getattr(source, name, None)
    if value is None:
        return 0
    if not is_number(value) or not 0 < value < math.inf:
        raise SnnError(f"{type(source).__name__}: {name}={shown(value)}: it is a time in milliseconds, above 0.")
    return value
