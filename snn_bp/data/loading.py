"""`load`: from a description to recordings in the cache, their splits, and notes about them."""

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from snn_bp.data import saccades
from snn_bp.data.cache import cache_folder, file_sha256
from snn_bp.data.catalogue import DATA_SETS, IN_MEMORY, READING_FORMAT, SHD_CHANNELS, SHD_CLASSES, DataSetInfo, Sensor
from snn_bp.data.dataset import CachedPart, Dataset, assemble
from snn_bp.data.definition import made_from
from snn_bp.data.description import Data, check_downsample, source_of
from snn_bp.data.frames import store_frames
from snn_bp.data.recordings import download, files_of, find_root, find_set, read_part
from snn_bp.data.sources import count_of, frames_of, gives_frames, is_seekable, recordings_of, targets_of
from snn_bp.data.spoken import count_rows, read_keys
from snn_bp.data.store import EMPTY, CachedEvents, Recording, store
from snn_bp.errors import SnnError
from snn_bp.model.targets import Targets
from snn_bp.runtime.status import announced, in_phase, phase

_Loaded = tuple[dict[str, CachedEvents], Sensor, tuple[str, ...], list[str]]  # parts, sensor, class names, notes
_MOST_CHANNELS: Sensor = (2**16, 1, 1)  # the limit of a row whose length the files do not state


def load(data: Data, *, quiet: bool = False) -> Dataset:
    """The recordings that `data` describes, read or made once and then mapped from the cache.

    Unless `quiet`, what takes over a second is said.
    """
    with announced(not quiet):
        return _load(data, quiet=quiet)


def _load(data: Data, *, quiet: bool) -> Dataset:
    if data.name == IN_MEMORY:
        raise SnnError(
            "Data('in memory'): its recordings were handed to train, and are in no file. Hand the same ones in again: "
            "train(experiment, out, dataset=Dataset.of(...)), resume(out, dataset=...), Run(out).hold(dataset)."
        )
    if (source := source_of(data)) is not None:
        return _load_source(data, source)
    info = DATA_SETS[data.name]
    if info.tonic_class:
        parts, sensor, class_names, notes = _load_files(info, data, quiet=quiet)
    else:
        parts, sensor, class_names, notes = _load_digits(info)
    packages = ("numpy", "tonic" if info.tonic_class else "scikit-learn")
    return _dataset(data, parts, Targets("class", class_names), info, sensor, notes, packages)


def _load_source(data: Data, source: Any) -> Dataset:
    """A source's recordings: from the cache where it says what it reads, else read anew."""
    info, targets = data.info, targets_of(source)
    sensor = info.sensor or (info.channels, 1, 1)
    parts: dict[str, CachedPart] = {}
    for part in ("train", "test"):
        name, key = f"{data.name.replace(':', '-')}-{part}", made_from(source, part)
        asked = None if key is None else [key, targets.kind, targets.names]
        words = f"{data.name}: reading the {part} part" + ", once" * (key is not None)

        def make_frames(part: str = part, words: str = words) -> Any:
            with phase(words):
                return frames_of(source, part)

        with phase(f"{data.name}: opening the {part} part"):
            if gives_frames(source):
                parts[part] = store_frames(name, make_frames, made_from=asked)
                continue

            def read(first: int, coding: Sequence[str], part: str = part, words: str = words) -> Any:
                again = f" (again up to recording {first})" * (first > 0 and not is_seekable(source))
                recordings = recordings_of(source, part, first, coding)
                return in_phase(recordings, words + again, total=count_of(source, part), done=first)

            parts[part] = store(name, read, made_from=asked, sensor=sensor, classes=targets.outputs)
    if not len(parts["train"]):
        raise SnnError(
            f"{data.name}: the source gives no recordings for the part 'train'. See that its files are there."
        )
    notes = source.notes() if callable(getattr(source, "notes", None)) else []
    return _dataset(data, parts, targets, info, sensor, notes, ("numpy", *getattr(source, "packages", ())))


def _dataset(
    data: Data, parts: Mapping[str, CachedPart], targets: Targets, info: DataSetInfo, sensor: Sensor, notes: list[str],
    packages: tuple[str, ...],
) -> Dataset:  # fmt: skip
    notes = [*notes]
    if any(cached.folder is None for cached in parts.values() if len(cached)):
        shut = f"the cache folder {cache_folder()} cannot be written"
        notes.append(f"events are held in memory: {shut}; SNN_BP_CACHE names another")
    notes += [f"{part} part: {note}" for part, cached in parts.items() for note in cached.notes]
    versions = {package: importlib.metadata.version(package) for package in packages}
    return assemble(data, parts, targets, info, sensor=sensor, notes=notes, versions=versions)


def _load_digits(info: DataSetInfo) -> _Loaded:
    assert info.sensor is not None
    images = saccades.digits_file()
    made_from = [
        file_sha256(Path(saccades.__file__)),
        importlib.metadata.version("scikit-learn"),
        file_sha256(images) if images.exists() else "",
    ]
    spans = {"train": (0, saccades.TRAINING), "test": (saccades.TRAINING, sum(info.totals.values()))}
    parts = {}
    for part, (first, last) in spans.items():
        count, made_here = last - first, [made_from, first, last]

        def read(done: int, _: Sequence[str], first: int = first, last: int = last, count: int = count) -> Any:
            words = f"digits: simulating {count} recordings, once"
            return in_phase(_simulated(first + done, last), words, total=count, done=done)

        with phase(f"digits: opening the {part} part"):
            parts[part] = store(f"digits-{part}", read, made_from=made_here, sensor=info.sensor, classes=10)
    return parts, info.sensor, info.class_names, []


def _simulated(first: int, last: int) -> Iterator[Recording]:
    images, labels = saccades.digit_images()
    simulated = saccades.simulate_recordings(images[first:last], first=first)
    for number, events in enumerate(simulated, start=first):
        yield Recording(f"digit {number}", events, int(labels[number]), f"digit {number}")


def _load_files(info: DataSetInfo, data: Data, *, quiet: bool) -> _Loaded:
    root = find_root(data.root)
    folder = find_set(info, root)
    if folder is None:
        download(info, root, quiet=quiet)
        folder = find_set(info, root)
    if folder is None or not files_of(info, folder, "train"):
        raise SnnError(
            f"{info.name}: no training recordings in {folder or root}. Put {info.layout} into {root}, "
            "or name the folder that has them with root= or the environment variable SNN_BP_DATA."
        )
    class_names = info.class_names or read_keys(files_of(info, folder, "train")[0])[0]
    parts = {part: _store_part(info, folder, part, len(class_names)) for part in info.parts}
    if not len(parts["train"].events):
        raise SnnError(f"{info.name}: the training part in {folder} holds no recordings. Copy its files anew.")
    if info.sensor is not None:
        return parts, info.sensor, class_names, _count_notes(info, parts)
    return _row_of_channels(info, data, folder, parts, class_names)


def _store_part(info: DataSetInfo, folder: Path, part: str, classes: int) -> CachedEvents:
    files = files_of(info, folder, part)
    if not files:
        return EMPTY
    try:
        stats = [(str(file.relative_to(folder)), file.stat()) for file in files]
    except OSError as cause:
        raise SnnError(f"{cause.filename}: it vanished while the set was being read. Start again.") from None
    sizes = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    message = f"{info.name}: reading the {part} part in {folder}, once"

    def read(first: int, coding: Sequence[str]) -> Iterator[Recording]:
        total = len(files) if info.suffix != ".h5" else count_rows(files[0])
        return in_phase(read_part(info, folder, part, first, coding), message, total=total, done=first)

    with phase(f"{info.name}: opening the {part} part"):
        return store(
            f"{info.name}-{part}",
            read,
            made_from=[READING_FORMAT, str(folder.resolve()), sizes, *([info.group] if info.group else [])],
            sensor=info.sensor or _MOST_CHANNELS,
            classes=classes,
        )


def _row_of_channels(
    info: DataSetInfo, data: Data, folder: Path, parts: dict[str, CachedEvents], class_names: tuple[str, ...]
) -> _Loaded:
    channels = 1 + max(int(cached.events.x.max(initial=0)) for cached in parts.values())
    if len(class_names) == SHD_CLASSES and channels <= SHD_CHANNELS:
        channels, notes = SHD_CHANNELS, _count_notes(info, parts)
    else:
        source = read_keys(files_of(info, folder, "train")[0])[1]
        notes = [
            f"not the Heidelberg digits, but files of their schema with {channels} channels and "
            f"{len(class_names)} classes; they call themselves {source!r}"
        ]
    check_downsample(data, (channels,))
    return parts, (channels, 1, 1), class_names, notes


def _count_notes(info: DataSetInfo, parts: dict[str, CachedEvents]) -> list[str]:
    found = {part: len(cached.events) for part, cached in parts.items()}
    if found == info.totals:
        return []
    train, test = (f"{found[part]} of {info.totals[part]}" for part in ("train", "test"))
    return [f"partial copy: {train} training and {test} test recordings"]
