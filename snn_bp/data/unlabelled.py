"""Recordings that nobody labelled, read and encoded as those of a data description."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from snn_bp.data.catalogue import DATA_SETS, DataSetInfo, Sensor
from snn_bp.data.dataset import Dataset, assemble
from snn_bp.data.description import TONIC, Data, source_of
from snn_bp.data.folder import Folder
from snn_bp.data.formats import read_events
from snn_bp.data.frames import hold_frames
from snn_bp.data.raw import Polarity, naming
from snn_bp.data.recordings import read_one
from snn_bp.data.sources import checked_frames, recording_of
from snn_bp.data.spoken import read_rows
from snn_bp.data.store import EMPTY, Recording, hold
from snn_bp.errors import SnnError, shown
from snn_bp.files import read_bytes
from snn_bp.model.targets import UNLABELLED, Targets


def unlabelled(
    data: Data, recordings: Any, *, targets: Targets, sensor: Sensor, events: bool, names: Sequence[str] | None = None
) -> Dataset:
    """A data set whose "train" split is these recordings, in their order, encoded as `data` says.

    `recordings` are files, or events (structured arrays of x, y, p and t in microseconds, from the start of the
    recording), or frames: an array or tensor `[recordings, steps, ...]`, or a list of arrays. `sensor` is that of the
    description, `events` whether it counts any.
    """
    each = _listed(recordings, events=events)
    if not each:
        raise SnnError("predict: there are no recordings. Give files, events or frames.")
    if names is not None and not isinstance(names, tuple | list):
        raise SnnError(f"predict: names={shown(names)}: it should be a list of texts, one for each recording.")
    if names is not None and len(names) != len(each):
        raise SnnError(f"predict: {len(each)} recordings, and {len(names)} names. Give as many.")
    plain = replace(
        data, validation_fraction=0.0, split_by="recording", test_groups=(), test_fraction=0.0, folds=None, fold=0
    )
    if events:
        info = _info(data.info, sensor)
        found = [one for part in _read(each, data, info, targets, names) for one in part]
        part: Any = hold(found, sensor=sensor, classes=targets.outputs)
    else:
        info, frames = data.info, [_frames_of(one) for one in each]
        called = [_name(one, number, names) for number, one in enumerate(each)]
        nothing = [_no_target(targets, len(one)) for one in frames]
        part = hold_frames(checked_frames(frames, nothing, targets, facts={"names": called}, source="predict"))
    parts = {"train": part, "test": EMPTY if events else hold_frames(None)}
    return assemble(plain, parts, targets, info, sensor=sensor)


def _listed(recordings: Any, *, events: bool) -> list[Any]:
    """Recordings one by one: of an array of frames its rows, of anything else that is one recording that alone."""
    is_one = isinstance(recordings, str | PurePath | Mapping) or getattr(recordings, "dtype", None) is not None
    if is_one and (events or not getattr(recordings, "ndim", 0)):
        return [recordings]
    if not isinstance(recordings, Iterable) or isinstance(recordings, PurePath):
        raise SnnError(f"predict: {shown(recordings)} is no recording. Give files, events or frames.")
    return [_plain(one) for one in recordings]


def _read(
    each: list[Any], data: Data, info: DataSetInfo, targets: Targets, names: Sequence[str] | None
) -> Iterable[Iterable[Recording]]:
    """The recordings of each file or array: one, or of a file of SHD's schema all of its rows."""
    polarity, folder = Polarity(), source_of(data)
    for number, one in enumerate(each):
        name = _name(one, number, names)
        if not isinstance(one, str | PurePath):
            yield [_recording(one, name, number, info, targets, polarity)]
            continue
        path = Path(one)
        if info.sensor is None and path.suffix.lower() in (".h5", ".hdf5"):
            yield (replace(row, name=f"{name}, {row.name}", label=0) for row in read_rows(path))
            continue
        events = _reader(data, info)(path)
        facts = folder.facts(events) if isinstance(folder, Folder) else {}
        yield [_recording(events, name, number, info, targets, polarity, facts)]


def _reader(data: Data, info: DataSetInfo) -> Callable[[Path], Any]:
    """How files become events as those of the description did; refused where nobody can say that."""
    source = source_of(data)
    if data.name.startswith(TONIC) or type(source).__name__ == "TonicSet":
        raise SnnError(
            f"predict: files of {data.name} are read by tonic's own class, in ways of its own. Give events: structured "
            "arrays with the fields x, y, p and t in microseconds."
        )
    if callable(read := getattr(source, "read", None)):
        return read
    known = DATA_SETS.get(data.name)
    if known is not None and known.suffix:
        return lambda path: (
            read_one(known, path, Polarity())[0]
            if path.suffix.lower() == known.suffix
            else read_events(path, sensor=info.sensor)
        )
    return lambda path: read_events(path, sensor=info.sensor)


def _recording(
    events: Any, name: str, number: int, info: DataSetInfo, targets: Targets, polarity: Polarity,
    facts: Mapping[str, Any] | None = None,
) -> Recording:  # fmt: skip
    about = {"name": name, **(facts or {})}
    return recording_of((events, _no_target(targets, 1), about), number, info, targets, polarity, source="predict")


def _no_target(targets: Targets, steps: int) -> np.ndarray:
    """What stands for a target that nobody knows, in the type of its kind."""
    shape = targets.shape(1, steps)[1:]
    return np.full(shape, UNLABELLED if targets.kind == "class per step" else 0)


def _frames_of(one: Any) -> np.ndarray:
    """The frames of one recording, which may lie in a file of NumPy's."""
    if not isinstance(one, str | PurePath):
        return np.asarray(one)
    path = Path(one)
    if path.suffix.lower() != ".npy":
        raise SnnError(f"{path}: frames are read from .npy, one array [steps, ...] a file. Give them as arrays.")
    with naming(str(path)):
        return np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)


def _info(info: DataSetInfo, sensor: Sensor) -> DataSetInfo:
    """The facts of a set; of one that was handed in, and of a row of channels, with the sensor that the run saw."""
    if sensor[1] == 1:
        return replace(info, sensor=None, channels=sensor[0])
    return info if info.sensor is not None else replace(info, sensor=sensor)


def _name(one: Any, number: int, names: Sequence[str] | None) -> str:
    if names is not None:
        return str(names[number])
    return str(one) if isinstance(one, str | PurePath) else f"recording {number}"


def _plain(value: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "cpu") and hasattr(value, "detach") else value
