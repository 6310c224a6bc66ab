"""What the files of a folder hold, looked at before there is an experiment: classes, sensor, lengths and rates."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.data.beside import checked_split
from snn_bp.data.folder import Folder
from snn_bp.data.formats import read_file
from snn_bp.data.raw import Polarity
from snn_bp.data.sources import checked_sensor
from snn_bp.data.store import Recording, hold
from snn_bp.errors import SnnError
from snn_bp.model.targets import Targets
from snn_bp.runtime.capacity import size
from snn_bp.runtime.status import in_phase

NAMED = 10  # classes in a line
READ_MB = 256  # files are read up to here, evenly chosen ones where there are more
CAMERAS = {  # width and height of usual sensors, the smallest first
    (34, 34): "N-MNIST", (128, 128): "DVS128", (240, 180): "DAVIS240", (304, 240): "ATIS", (320, 320): "GenX320",
    (346, 260): "DAVIS346", (640, 480): "a VGA sensor", (1280, 720): "an HD sensor",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A folder of recordings as it was found."""

    source: Folder  # with the sensor that was found
    targets: Targets
    counts: dict[str, int]  # recordings by class; of several labels by label
    splits: Counter[str]  # recordings by the split that a folder or a table names, "" where none does
    groups: list[str]
    read: int  # files
    sensor_from: str  # what says so
    durations_ms: np.ndarray  # from the first event to the last of each file that was read
    events: np.ndarray

    @property
    def recordings(self) -> int:
        """How many there are."""
        return sum(self.splits.values())


def survey(root: Path, **fields: Any) -> Survey:
    """What the recordings below a folder are; `fields` are those of `Folder`, where it cannot do without.

    Without a sensor in `fields` it is what the files state, else the usual one that the events nearly fill, else as
    large as their addresses. A table is found by itself where a csv file beside the recordings names them.
    """
    sensor, table = fields.pop("sensor", None), fields.pop("table", None) or _table(root)
    source = Folder(str(root), sensor=sensor or (2**16, 2**16, 2), table=table, **fields)
    listed, several = source.listed()
    targets, polarity = source.targets, Polarity()
    labels = [label.strip() for one in listed for label in (one.label.split(";") if several else [one.label])]
    sizes, largest, durations, counts = set(), [0, 0], [], []
    chosen = _chosen([one.file for one in listed])
    for file in in_phase(chosen, "looking at the recordings"):
        found = read_file(
            file, sensor=sensor, columns=source.columns, unit=source.unit, entry=source.entry, sort=source.sort,
            polarity=polarity,
        )  # fmt: skip
        sizes |= {found.size} - {None}
        largest = [max(most, int(found.events[axis].max()) + 1) for most, axis in zip(largest, "xy", strict=True)]
        durations.append((int(found.events["t"].max()) - int(found.events["t"].min()) + 1) / 1000)
        counts.append(len(found.events))
    if len(sizes) > 1:
        first, other = sorted(sizes)[:2]
        raise SnnError(
            f"{root}: its files state sensors of {first[0]}x{first[1]} and {other[0]}x{other[1]}. Keep recordings of "
            "one sensor in a folder."
        )
    size, sensor_from = _size(sizes, largest) if sensor is None else (sensor[:2], "as it was given")
    if size[1] == 1:
        raise SnnError(
            f"{root}: all its events lie in one row, {size[0]} channels. Files are read as images; a row of channels "
            "comes in by a source of your own, see help(snn_bp.Data)."
        )
    return Survey(
        source=Folder(str(root), sensor=sensor or (*size, 2), table=table, **fields),
        targets=targets,
        counts={name: labels.count(name) for name in targets.names},
        splits=Counter(one.split for one in listed),
        groups=sorted({one.group for one in listed} - {""}),
        read=len(chosen),
        sensor_from=sensor_from,
        durations_ms=np.array(durations),
        events=np.array(counts),
    )


def look_through(source: Folder) -> tuple[list[str], bool]:
    """What is there of each split and class of a folder, line by line, every file read as a build reads it.

    Also whether there is a recording to train on, and no file is damaged.
    """
    (listed, several), names = source.listed(), source.targets.names
    sensor = checked_sensor(source.sensor, source=source.root)
    counts: dict[str, Counter[str]] = {}
    recordings: Counter[str] = Counter()
    damaged = []
    for part in ("train", "test"):
        polarity = Polarity()
        for one in in_phase(source.of_part(part), f"{source.root}: looking at the {part} part"):
            try:
                split = checked_split(one.split or None, source=one.name) or part
                hold([Recording(one.name, source.read(one.file, polarity), 0)], sensor=sensor, classes=1)
            except SnnError as problem:
                damaged.append(str(problem))
                continue
            recordings[split] += 1
            labels = {label.strip() for label in one.label.split(";")} - {""} if several else {one.label}
            counts.setdefault(split, Counter()).update(labels)
    taken, kind = (
        sum(one.file.stat().st_size for one in listed if one.file.exists()),
        "labels" if several else "classes",
    )
    lines = [f"{source.root}: {len(listed):,} recordings of {len(names)} {kind}, {size(taken)}"]
    for split in ("train", "validation", "test"):
        if split in counts or split == "train":
            found = ", ".join(f"{name} {counts.get(split, Counter())[name]:,}" for name in names[:NAMED])
            lines.append(f"  {split:12}{recordings[split]:>9,}   {found}{', ...' * (len(names) > NAMED)}")
    lines += [f"  damaged: {sentence}" for sentence in damaged]
    return lines, recordings["train"] > 0 and not damaged


def _table(root: Path) -> str | None:
    """The one csv file beside the recordings whose first line names a column of files."""
    tables = []
    for file in filter(Path.is_file, sorted(root.glob("*.csv"))):  # a pipe would be waited for
        with file.open(encoding="utf-8-sig", errors="replace") as content:
            columns = {column.strip().strip('"').lower() for column in content.readline().split(",")}
        if "file" in columns and columns & {"label", "labels"}:
            tables.append(file.name)
    return tables[0] if len(tables) == 1 else None


def _chosen(files: list[Path]) -> list[Path]:
    """All files, or evenly chosen ones where they hold more than `READ_MB`."""
    try:
        total = sum(file.stat().st_size for file in files)
    except OSError as cause:  # a link that leads nowhere
        raise SnnError(f"{cause.filename}: it cannot be read ({cause.strerror}). Put it back, or remove it.") from None
    every = -(-total // (READ_MB * 2**20)) or 1
    return files[::every]


def _size(stated: set[tuple[int, int]], largest: list[int]) -> tuple[tuple[int, int], str]:
    """Width and height of the sensor, and how they were found."""
    if stated:
        return next(iter(stated)), "as the files state it"
    for (width, height), name in CAMERAS.items():
        if largest[0] <= width and largest[1] <= height and 4 * largest[0] > 3 * width and 4 * largest[1] > 3 * height:
            return (width, height), f"that of {name}; the files do not state it, addresses reach {_by(largest)}"
    return (largest[0], largest[1]), f"the files do not state it, addresses reach {_by(largest)}"


def _by(size: list[int]) -> str:
    return f"x = {size[0] - 1}, y = {size[1] - 1}"
