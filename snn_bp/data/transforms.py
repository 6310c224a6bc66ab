"""tonic's transforms: recordings in, other recordings or frames out, the cache untouched; and their form in JSON."""

import copy
import dataclasses
import math
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from snn_bp.data.catalogue import Sensor
from snn_bp.data.description import Data, check_downsample
from snn_bp.data.encode import Events
from snn_bp.data.store import LONGEST_US
from snn_bp.data.tonic_module import tonic_module
from snn_bp.errors import SnnError, check_choice, is_number, nearest, shown
from snn_bp.errors.fields import as_flag

DEEPEST = 20  # Compose within Compose
_numpy_state = threading.Lock()


def apply_transforms(transforms: Sequence[Any], events: np.ndarray, *, seed: tuple[int, ...]) -> np.ndarray:
    """What `transforms` make of one recording, a pure function of the events and `seed`.

    tonic draws from NumPy's global state, and some of its transforms remember the first recording they met
    (`CropTime()`, `DropPixel(hot_pixel_frequency=...)`): the state is set for each recording and put back,
    and each recording meets a fresh copy.
    """
    events = events.copy()
    with _numpy_seeded(seed):
        for transform in transforms:
            events = copy.deepcopy(transform)(events)
    if not isinstance(events, np.ndarray):
        raise SnnError(
            f"transforms: the last one gave a {type(events).__name__}. "
            "Give events (a structured array) or frames (an array [time, ...]); ToFrame makes the latter."
        )
    return events


def structured(events: Events, sample: int, *, dtype: np.dtype) -> np.ndarray:
    """One recording as tonic would give it; a row of channels has polarity 1 throughout, as in tonic."""
    span = slice(events.offsets[sample], events.offsets[sample + 1])
    array = np.ones(span.stop - span.start, dtype=dtype)
    for field in dtype.names or ():
        values = getattr(events, field)
        if len(values):
            array[field] = values[span]
    return array


def flatten(recordings: Sequence[np.ndarray], labels: np.ndarray, *, like: Events, sensor: Sensor) -> Events:
    """Transformed recordings end to end, in the types of `like`; what lies off the sensor is left out.

    Fractions of a pixel or a microsecond, which some transforms make, count for the whole one they lie in. What is no
    number, and polarities that the sensor has not, are refused: nothing moves an event there.
    """
    limits = dict(zip("xyp", sensor, strict=True)) | {"t": LONGEST_US}
    fields = [field for field in "xypt" if len(getattr(like, field))]
    columns: dict[str, list[np.ndarray]] = {field: [] for field in fields}
    lengths = []
    for recording in recordings:
        whole = {field: _floored(recording, field, polarities=sensor[2]) for field in fields}
        inside = np.ones(len(recording), dtype=bool)
        for field in fields:
            inside &= (whole[field] >= 0) & (whole[field] < limits[field])
        for field in fields:
            columns[field].append(whole[field][inside].astype(getattr(like, field).dtype))
        lengths.append(int(inside.sum()))
    arrays = {field: np.concatenate(parts) for field, parts in columns.items()}
    for field in "xypt":
        arrays.setdefault(field, np.empty(0, np.uint8)).flags.writeable = False
    return Events(**arrays, offsets=np.cumsum([0, *lengths]), labels=labels)


def _floored(recording: np.ndarray, field: str, *, polarities: int) -> np.ndarray:
    if field not in (recording.dtype.names or ()):
        raise SnnError(f"transforms: the events that came out have no {field}, they have {recording.dtype.names}.")
    values = np.floor(np.asarray(recording[field], dtype=np.float64))
    wrong = ~np.isfinite(values)
    if field == "p":
        wrong |= (values < 0) | (values >= polarities)
    if wrong.any():
        found, allowed = recording[field][wrong.argmax()], f" in 0..{polarities - 1}" if field == "p" else ""
        raise SnnError(f"transforms: {field} of an event became {found}. It should be a number{allowed}.")
    return values


def sensor_after(transforms: Sequence[Any], sensor: Sensor) -> Sensor:
    """The sensor as later steps see it: some of tonic's transforms crop, shrink or merge."""
    for transform in transforms:
        width, height, polarities = sensor
        kind = type(transform).__name__
        if kind == "Compose":
            sensor = sensor_after(transform.transforms, sensor)
        elif kind == "MergePolarities":
            sensor = (width, height, 1)
        elif kind == "CenterCrop":
            size = transform.size
            sensor = (size, size, polarities) if isinstance(size, int) else (*size[:2], polarities)
        elif getattr(transform, "target_size", None) is not None:  # RandomCrop, Downsample, EventDownsampling
            sensor = (*transform.target_size[:2], polarities)
        elif kind == "Downsample":
            across, down = transform.get_params(transform.spatial_factor)
            sensor = (_shrunk(width, across), _shrunk(height, down), polarities)
    return sensor


def shape_after(data: Data, events: Events, sensor: Sensor, *, dtype: np.dtype) -> tuple[Sensor, tuple[int, ...]]:
    """The sensor as the encoder sees it, and the shape of one time step; tried on the first recording."""
    if data.transforms:
        first = apply_transforms(data.transforms, structured(events, 0, dtype=dtype), seed=(0,))
        if first.dtype.names is None:
            _refuse_encoding_of_frames(data)
            check_frames(first, (data.steps, *first.shape[1:]), source="the first recording")
            return sensor, first.shape[1:]
        sensor = sensor_after(data.transforms, sensor)
    width, height, polarities = sensor
    if "y" not in (dtype.names or ()):
        check_downsample(data, (width,))
        return sensor, (width // data.downsample,)
    check_downsample(data, (width, height))
    return sensor, (polarities, height // data.downsample, width // data.downsample)


def check_frames(frames: np.ndarray, shape: Sequence[Any], *, source: str) -> None:
    """Raise unless a transform gave frames of `shape`, [steps, ...]."""
    if frames.dtype.kind == "f" and not np.isfinite(frames).all():
        raise SnnError(f"transforms: {source} became frames with NaN or infinity. Frames hold finite numbers.")
    if frames.dtype == np.int16 and frames.size and frames.min() < 0:
        raise SnnError(
            f"transforms: {source} has counts below 0. tonic's ToFrame counts in 16 bits, and more than 32,767 "
            "events fell into one cell: leave ToFrame out."
        )
    found = list(frames.shape)
    if found != list(shape) or len(shape) < 2:
        raise SnnError(
            f"transforms: {shape[0]} frames of {list(shape[1:])} were asked for, {source} became "
            f"{found}. Set steps={found[0] if found else 1}, give ToFrame "
            f"n_time_bins={shape[0]} and the sensor's size, or leave it out: events are counted without it."
        )


def _refuse_encoding_of_frames(data: Data) -> None:
    for field, left_out in (
        ("translate_px", 0), ("rotate_deg", 0), ("downsample", 1), ("binary", False), ("augment", ())
    ):  # fmt: skip
        if getattr(data, field) != left_out:
            raise SnnError(
                f"{field}={getattr(data, field)!r}: it acts on events, and the last of the transforms makes "
                f"frames. Leave {field} or that transform out."
            )


def _shrunk(length: int, factor: float) -> int:
    return math.floor((length - 1) * factor) + 1


@contextmanager
def _numpy_seeded(seed: tuple[int, ...]) -> Iterator[None]:
    with _numpy_state:
        before = np.random.get_state()
        np.random.seed(np.random.SeedSequence(seed).generate_state(4))
        try:
            yield
        finally:
            np.random.set_state(before)


def transform_record(transform: Any) -> dict[str, Any]:
    """What `data.json` says of a transform; `experiment.json` says what one of the user's own is made of."""
    is_own = not isinstance(transform, type) and dataclasses.is_dataclass(transform) and not _of_tonic(transform)
    if is_own or isinstance(transform, types.FunctionType):
        return {"own": repr(transform) if is_own else getattr(transform, "__qualname__", "")}
    return transform_to_json(transform)


def _of_tonic(transform: Any) -> bool:
    return type(transform).__module__.partition(".")[0] == "tonic"


def transform_to_json(transform: Any) -> dict[str, Any]:
    """Class name and fields of one of tonic's transforms, as values JSON can hold."""
    kind = type(transform).__name__
    if kind == "Compose" and _tonic_class(kind) is type(transform):
        return {"name": kind, "transforms": [transform_to_json(part) for part in transform.transforms]}
    if _tonic_class(kind) is not type(transform) or not dataclasses.is_dataclass(transform):
        raise SnnError(
            f"transform {transform!r}: a run folder names transforms by their class in tonic.transforms. "
            "Use one of those, or write the recordings changed by yours to files."
        )
    fields = {field.name: getattr(transform, field.name) for field in dataclasses.fields(transform)}
    plain = {name: _plain(value, kind=kind, field=name) for name, value in fields.items()}
    _checked(type(transform), plain)  # what could not be read back is not written
    return {"name": kind} | plain


def transform_from_json(described: Any, *, depth: int = 0) -> Any:
    """The transform that `transform_to_json` described."""
    transforms = tonic_module("tonic.transforms")
    if not isinstance(described, dict) or depth > DEEPEST:
        raise SnnError(f"transforms: {shown(described)} should be an object that names a transform of tonic.")
    fields = dict(described)
    kind = fields.pop("name", None)
    known = [name for name, found in vars(transforms).items() if _is_transform(found)]
    check_choice("transform", kind, known)
    if kind == "Compose":
        parts = fields.pop("transforms", None)
        if not isinstance(parts, list) or fields:
            raise SnnError(
                f"transform Compose: it holds a list, transforms, and nothing else; found {shown(described)}."
            )
        return transforms.Compose([transform_from_json(part, depth=depth + 1) for part in parts])
    made = _tonic_class(str(kind))
    try:
        return made(**{name: _tupled(value) for name, value in _checked(made, fields).items()})
    except SnnError:
        raise
    except Exception as cause:  # each of tonic's transforms looks at its fields in its own way
        raise SnnError(f"transform {kind}: {' '.join(str(cause).split()) or type(cause).__name__}.") from cause


def _checked(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Fields of one of tonic's transforms, refused where one is unknown or of another kind than its annotation."""
    fields, hints = {field.name: field for field in dataclasses.fields(kind)}, _hints(kind)
    checked = {}
    for name, value in given.items():
        if name not in fields:
            raise SnnError(f"transform {kind.__name__}: there is no {name!r}. {nearest(name, fields)}")
        value = as_flag(value) if hints[name] is bool else value
        if not _of_kind(value, hints[name]) and not (value is None and fields[name].default is None):
            wanted = hints[name].__name__ if isinstance(hints[name], type) else hints[name]
            raise SnnError(f"transform {kind.__name__}: {name}={shown(value)} should be of the type {wanted}.")
        checked[name] = value
    return checked


def _of_kind(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of the kind of an annotation of tonic's; where it says int, a float is taken too."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_of_kind(value, part) for part in get_args(hint))
    if get_origin(hint) in (tuple, list):
        parts, each = get_args(hint), isinstance(value, list) and value
        if get_origin(hint) is list:
            return isinstance(value, list) and all(_of_kind(one, parts[0]) for one in value)
        return bool(each) and len(value) == len(parts) and all(map(_of_kind, value, parts))
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return is_number(value)
    return value is None if hint is type(None) else isinstance(value, str)


_hints = cache(get_type_hints)


def _is_transform(found: Any) -> bool:
    return isinstance(found, type) and found.__module__.startswith("tonic.")


def _tonic_class(name: str) -> Any:
    return getattr(tonic_module("tonic.transforms"), name, None)


def _plain(value: Any, *, kind: str, field: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple | list):
        return [_plain(part, kind=kind, field=field) for part in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise SnnError(f"transform {kind}: {field}={value!r} cannot be written to JSON. Numbers, text and tuples can.")


def _tupled(value: Any) -> Any:
    return tuple(_tupled(part) for part in value) if isinstance(value, list) else value
