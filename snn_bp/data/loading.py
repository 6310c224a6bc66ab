"""`load`: from a description to recordings in the cache, their splits, and notes about them."""

import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.data import saccades
from snn_bp.data.cache import cache_folder, file_sha256
from snn_bp.data.catalogue import ENTRIES, READING_FORMAT, SHD_CHANNELS, SHD_CLASSES, Entry, Sensor
from snn_bp.data.dataset import Dataset, draw_validation
from snn_bp.data.description import Data, check_downsample
from snn_bp.data.notes import notes_of
from snn_bp.data.recordings import download, files_of, find_root, find_set, read_part
from snn_bp.data.spoken import read_keys
from snn_bp.data.store import EMPTY, Recording, Stored, store
from snn_bp.data.transforms import shape_after
from snn_bp.errors import SnnError

_MOST_CHANNELS: Sensor = (2**16, 1, 1)  # of a row whose length the files do not state


def load(data: Data, *, quiet: bool = False) -> Dataset:
    """The recordings that `data` describes, read or made once and then mapped from the cache."""
    entry = ENTRIES[data.name]
    if entry.tonic_class:
        parts, sensor, class_names, notes = _load_files(entry, data, quiet=quiet)
    else:
        parts, sensor, class_names, notes = _load_digits(entry, quiet=quiet)
    if any(stored.folder is None for part, stored in parts.items() if len(stored.events)):
        notes.append(f"events are held in memory: the cache folder {cache_folder()} cannot be written")
    notes += [f"{part} part: {note}" for part, stored in parts.items() for note in stored.notes]
    sensor, shape = shape_after(data, parts["train"].events, sensor, dtype=entry.event_dtype)
    train, validation, note = draw_validation(
        parts["train"].events.labels, fraction=data.validation_fraction, seed=data.split_seed
    )
    ids = {"train": train, "validation": validation, "test": _all_ids(parts["test"])}
    packages = ("numpy", "tonic" if entry.tonic_class else "scikit-learn")
    dataset = Dataset(
        data=data,
        shape=shape,
        classes=len(class_names),
        class_names=class_names,
        ids=ids,
        notes=tuple([*notes, note] if note else notes),
        sensor=sensor,
        parts=parts,
        versions={package: importlib.metadata.version(package) for package in packages},
    )
    return replace(dataset, notes=(*dataset.notes, *notes_of(dataset)))


def _load_digits(entry: Entry, *, quiet: bool) -> tuple[dict[str, Stored], Sensor, tuple[str, ...], list[str]]:
    assert entry.sensor is not None
    made_from = [file_sha256(Path(saccades.__file__)), *_digits_origin()]
    spans = {"train": (0, saccades.TRAINING), "test": (saccades.TRAINING, sum(entry.totals.values()))}
    parts = {}
    for part, (first, last) in spans.items():
        recordings = _announced(
            _simulated(first, last),
            f"digits: simulating {last - first} recordings, once",
            last - first,
            quiet=quiet,
        )
        parts[part] = store(
            f"digits-{part}", recordings, made_from=[made_from, first, last], sensor=entry.sensor, classes=10
        )
    return parts, entry.sensor, entry.class_names, []


def _simulated(first: int, last: int) -> Iterator[Recording]:
    images, labels = saccades.digit_images()
    simulated = saccades.simulate_recordings(images[first:last], first=first)
    for number, events in enumerate(simulated, start=first):
        yield Recording(f"digit {number}", events, int(labels[number]), f"digit {number}")


def _digits_origin() -> list[str]:
    """What the images come from."""
    images = saccades.digits_file()
    return [importlib.metadata.version("scikit-learn"), file_sha256(images) if images.exists() else ""]


def _load_files(
    entry: Entry, data: Data, *, quiet: bool
) -> tuple[dict[str, Stored], Sensor, tuple[str, ...], list[str]]:
    root = find_root(data.root)
    folder = find_set(entry, root)
    if folder is None:
        download(entry, root, quiet=quiet)
        folder = find_set(entry, root)
    if folder is None or not files_of(entry, folder, "train"):
        raise SnnError(
            f"{entry.name}: no training recordings in {folder or root}. Put {entry.layout} into {root}, "
            "or name the folder that has them with root= or the environment variable SNN_BP_DATA."
        )
    class_names = entry.class_names or read_keys(files_of(entry, folder, "train")[0])[0]
    parts = {part: _store_part(entry, folder, part, len(class_names), quiet=quiet) for part in entry.parts}
    if not len(parts["train"].events):
        raise SnnError(f"{entry.name}: the training part in {folder} holds no recordings. Copy its files anew.")
    if entry.sensor is not None:
        return parts, entry.sensor, class_names, _count_notes(entry, parts)
    return _row_of_channels(entry, data, folder, parts, class_names)


def _store_part(entry: Entry, folder: Path, part: str, classes: int, *, quiet: bool) -> Stored:
    files = files_of(entry, folder, part)
    if not files:
        return EMPTY
    try:
        stats = [(str(file.relative_to(folder)), file.stat()) for file in files]
    except OSError as cause:
        raise SnnError(f"{cause.filename}: it vanished while the set was being read. Start again.") from None
    made_from = [
        READING_FORMAT,
        str(folder.resolve()),
        [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
    ]
    message = f"{entry.name}: reading the {part} part in {folder}, once"
    total = len(files) if entry.suffix != ".h5" else None
    return store(
        f"{entry.name}-{part}",
        _announced(read_part(entry, folder, part), message, total, quiet=quiet),
        made_from=made_from,
        sensor=entry.sensor or _MOST_CHANNELS,
        classes=classes,
    )


def _row_of_channels(
    entry: Entry, data: Data, folder: Path, parts: dict[str, Stored], class_names: tuple[str, ...]
) -> tuple[dict[str, Stored], Sensor, tuple[str, ...], list[str]]:
    channels = 1 + max(int(stored.events.x.max(initial=0)) for stored in parts.values())
    if len(class_names) == SHD_CLASSES and channels <= SHD_CHANNELS:
        channels, notes = SHD_CHANNELS, _count_notes(entry, parts)
    else:
        source = read_keys(files_of(entry, folder, "train")[0])[1]
        notes = [
            f"not the Heidelberg digits, but files of their schema with {channels} channels and "
            f"{len(class_names)} classes; they call themselves {source!r}"
        ]
    check_downsample(data, (channels,))
    return parts, (channels, 1, 1), class_names, notes


def _count_notes(entry: Entry, parts: dict[str, Stored]) -> list[str]:
    found = {part: len(stored.events) for part, stored in parts.items()}
    if found == entry.totals:
        return []
    train, test = (f"{found[part]} of {entry.totals[part]}" for part in ("train", "test"))
    return [f"partial copy: {train} training and {test} test recordings"]


def _announced(recordings: Iterable[Recording], message: str, total: int | None, *, quiet: bool) -> Iterator[Recording]:
    """The same recordings; says on standard error, when the first is asked for, what takes the time."""
    if quiet:
        yield from recordings
        return
    from tqdm import tqdm  # only when there is something to wait for

    print(message, file=sys.stderr)
    yield from tqdm(recordings, total=total, delay=1, leave=False, disable=None, file=sys.stderr)


def _all_ids(stored: Stored) -> Any:
    return np.arange(len(stored.events))
