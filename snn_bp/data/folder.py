"""`Folder`: recordings in files, a folder for each class, or a table that names files with their classes."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import numpy as np

from snn_bp.data.formats import FORMATS, check_options, read_file
from snn_bp.data.raw import Polarity
from snn_bp.errors import SnnError, in_home, nearest, no_folder, shown
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Called, Within, check_fields
from snn_bp.files import read_text
from snn_bp.model.targets import Targets

READING_FORMAT = 1  # raised when the same files would give other events
_PARTS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_COLUMNS = ("file", "label", "labels", "split", "group")


@dataclass(frozen=True)
class Listed:
    """One file, before it is read."""

    file: Path
    name: str
    label: str  # several by semicolons, where the table has a column `labels`
    split: str = ""
    group: str = ""


@checked_dataclass(frozen=True)
class Folder:
    """Recordings in files below a folder, a source for `Data(Folder("/data/lab", sensor=(346, 260, 2)), steps=40)`.

    Without a table the first folder names the class, and folders between it and a file name the group (who was
    recorded, in which session): `left/a.npy`, `left/ann/b.npy`. Above the classes there may stand `train`, `test` and
    `validation`. Classes are in the order of their names, numbers by value.

    Parameters:
        root: the folder; a relative one from the working folder on.
        sensor: width, height and polarities, in pixels.
        table (None): a csv file below the folder with the columns `file` and `label` (or `labels`, several by
            semicolons), and, where they are known, `split` and `group`.
        suffix (None): the ending of the files, where there are others too; `read_events` says which formats are known.
        columns (None), unit (None), entry (None), sort (False): as in `read_events`.
        start ("first event"): where a recording starts; "clock": where the file's clock is 0.
        masked (False): whether steps behind a recording's last event do not count.
        step_ms (None), window_ms (None): usual width of a frame and length of a recording, in ms; `Data` asks for those
            that are not here.

    Files are read once for each state of their names, sizes and times. Links are followed; names that begin with a dot
    are none.

    >>> Data(Folder("/data/lab", sensor=(346, 260, 2), step_ms=10, window_ms=400)).steps
    40
    """

    root: str
    _: KW_ONLY
    sensor: tuple[int, ...]
    table: str | None = None
    suffix: str | None = None
    columns: str | None = None
    unit: str | None = None
    entry: str | None = None
    sort: bool = False
    start: Literal["first event", "clock"] = "first event"
    masked: bool = False
    step_ms: Annotated[float | None, Within(above=0), Called("a time in milliseconds, above 0")] = None
    window_ms: Annotated[float | None, Within(above=0), Called("a time in milliseconds, above 0")] = None

    def __post_init__(self) -> None:
        if isinstance(self.root, PurePath):
            object.__setattr__(self, "root", str(self.root))
        if isinstance(self.sensor, list):
            object.__setattr__(self, "sensor", tuple(self.sensor))
        check_fields(self, but=("sensor",))
        check_options(columns=self.columns, unit=self.unit, sort=self.sort)
        whole = isinstance(self.sensor, tuple) and all(type(size) is int and size > 0 for size in self.sensor)
        if not whole or len(self.sensor) != 3 or self.sensor[1] == 1:
            raise SnnError(
                f"Folder(sensor={shown(self.sensor)}): say (width, height, polarities), as in sensor=(346, 260, 2). A "
                "row of channels comes in by a source of your own."
            )
        if self.suffix is not None and self.suffix not in FORMATS:
            raise SnnError(f"Folder(suffix={self.suffix!r}) is no format of events. {nearest(self.suffix, FORMATS)}")

    @property
    def targets(self) -> Targets:
        """The classes, or the labels of which a recording has several."""
        listed, several = self.listed()
        labels = {part.strip() for one in listed for part in (one.label.split(";") if several else [one.label])} - {""}
        names = sorted(labels, key=int) if all(map(_is_number, labels)) else sorted(labels)
        return Targets("labels" if several else "class", tuple(names))

    def recordings(
        self, part_name: str, first: int = 0, polarity: Polarity | None = None
    ) -> Iterator[tuple[np.ndarray, Any, dict[str, Any]]]:
        """Events, class and facts of each recording of "train" (validation among them) or "test".

        From number `first` on; `polarity` is how those before coded theirs.
        """
        names, polarity, several = self.targets.names, polarity or Polarity(), self.listed()[1]
        for one in self.of_part(part_name)[first:]:
            events = self.read(one.file, polarity)
            target = _zeros_and_ones(one.label, names) if several else one.label
            split = "" if part_name == "test" else one.split
            facts = {"name": one.name, "group": one.group or None, "split": split or None} | self.facts(events)
            yield events, target, facts

    def of_part(self, part_name: str) -> list[Listed]:
        """The files of "train" (validation among them) or "test"."""
        listed, has_parts = self.listed()[0], self._part_folders()
        if has_parts:
            return [one for one in listed if (one.split == "test") == (part_name == "test")]
        return [] if part_name == "test" else listed  # one pool; the table's splits, if any, are drawn from it

    def read(self, file: Path, polarity: Polarity | None = None) -> np.ndarray:
        """The events of one file as those of the folder are read, with times from the start of the recording."""
        events = read_file(
            file, sensor=self.sensor, columns=self.columns, unit=self.unit, entry=self.entry, sort=self.sort,
            polarity=polarity,
        ).events  # fmt: skip
        if self.start == "first event":
            events["t"] -= events["t"].min()
        return events

    def facts(self, events: np.ndarray) -> dict[str, Any]:
        """What is said of a recording besides its events: when it ends, where that counts."""
        return {"duration_ms": (int(events["t"].max()) + 1) / 1000} if self.masked else {}

    def made_from(self) -> list[Any]:
        """The names, sizes and times of all files, and of the table."""
        listed, _ = self.listed()
        table = [in_home("root", self.root) / self.table] if self.table else []
        try:
            states = [(str(file), os.stat(file)) for file in (*table, *(one.file for one in listed))]
        except OSError as cause:
            raise SnnError(
                f"{cause.filename}: it cannot be read ({cause.strerror}). See that the set is whole."
            ) from None
        root = str(in_home("root", self.root).resolve())
        return [READING_FORMAT, root, *((name, stat.st_size, stat.st_mtime_ns) for name, stat in states)]

    def notes(self) -> list[str]:
        """What of the folder is no recording of it."""
        if self.table is None:
            return []
        root = in_home("root", self.root)
        below = {root.joinpath(*parts) for parts in _files(root) if _ending(parts) in FORMATS}
        rest = sorted(below - {root / self.table} - {one.file for one in self.listed()[0]})
        if not rest:
            return []
        return [f"{len(rest)} files below {root} are not in {self.table}; the first is {rest[0].relative_to(root)}"]

    def listed(self) -> tuple[list[Listed], bool]:
        """The files in the order of their names, and whether a recording has several labels."""
        root = in_home("root", self.root)
        if not root.is_dir():
            raise SnnError(f"Folder({self.root!r}): {no_folder(self.root)}. Give the one that holds the recordings.")
        listed, several = (self._of_folders(root), False) if self.table is None else self._of_table(root, self.table)
        if not listed:
            raise SnnError(f"{root}: no recordings are below it. Files end in one of {' '.join(FORMATS)}.")
        return listed, several

    def _part_folders(self) -> dict[str, str]:
        """The folders that name a split, with the split of each; none where classes stand at the top, or a table is."""
        if self.table is not None:
            return {}
        root = in_home("root", self.root)
        folders = [entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
        parts = {name: _PARTS[name.lower()] for name in folders if name.lower() in _PARTS}
        if parts and (others := sorted(set(folders) - set(parts))):
            raise SnnError(
                f"{root}: {next(iter(parts))} and {others[0]} stand beside each other, a split and a class. Put the "
                "classes below train and test, or name them in a table."
            )
        return parts

    def _of_folders(self, root: Path) -> list[Listed]:
        files, parts, listed = _of_one_ending(_files(root), root, self.suffix), self._part_folders(), []
        for file in files:
            inner = file[1:] if parts else file
            if len(inner) < 2:
                raise SnnError(
                    f"{root.joinpath(*file)}: a recording lies in a folder that is named by its class, "
                    f"{'train/' * bool(parts)}left/{file[-1]}. Move it there, or name it in a table."
                )
            split = parts[file[0]] if parts else ""
            listed.append(Listed(root.joinpath(*file), "/".join(file), inner[0], split, "/".join(inner[1:-1])))
        return listed

    def _of_table(self, root: Path, table: str) -> tuple[list[Listed], bool]:
        path = root / table
        try:
            rows = list(csv.DictReader(io.StringIO(read_text(path).removeprefix("\ufeff"), newline="")))
        except SnnError as cause:
            raise SnnError(f"the table {cause} It is a csv file below the folder.") from None
        except csv.Error as cause:
            raise SnnError(f"the table {path}: {cause}. It is a csv file below the folder.") from None
        columns = [str(column).strip().lower() for column in (rows[0] if rows else ())]
        if "file" not in columns or len({"label", "labels"} & set(columns)) != 1 or set(columns) - set(_COLUMNS):
            parted = any(sign in "".join(columns) for sign in ";\t") and len(columns) == 1
            raise SnnError(
                f"{path}: its columns should be file, label or labels, and maybe split and group, found "
                f"{shown(', '.join(columns)) if columns else 'none'}. "
                + ("Part them by commas." if parted else "Rename or remove the others.")
            )
        listed, several = [], "labels" in columns
        for number, row in enumerate(rows, 2):
            if None in row or None in row.values():
                raise SnnError(f"{path}: line {number} has more or fewer values than the first. Repair it.")
            one = {name: str(value).strip() for name, value in zip(columns, row.values(), strict=True)}
            split = _PARTS.get(one.get("split", "").lower(), one.get("split", ""))
            label = one["labels" if several else "label"]
            if not one["file"] or not (label or several):
                raise SnnError(f"{path}: line {number} names no {'file' if not one['file'] else 'label'}.")
            listed.append(Listed(root / one["file"], one["file"], label, split, one.get("group", "")))
        if twice := [name for name, count in Counter(one.name for one in listed).items() if count > 1]:
            raise SnnError(f"{path}: {twice[0]} stands there twice.")
        if missing := [one for one in listed if not one.file.exists()]:
            raise SnnError(
                f"{path}: {len(missing)} of {len(listed)} files are not there, the first is {missing[0].name}. Names "
                f"count from {root}."
            )
        return listed, several


def _files(root: Path) -> list[tuple[str, ...]]:
    """Folders and name of every file below a folder, links followed, those that begin with a dot left out, in order."""
    seen: set[tuple[int, int]] = set()
    found: list[tuple[str, ...]] = []
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:
            raise SnnError(f"{folder}: this link leads back to a folder that was read already. Remove it.")
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        inner = Path(folder).relative_to(root).parts
        found += [(*inner, name) for name in files if not name.startswith(".")]
    return sorted(found)


def _refuse(cause: OSError) -> None:
    raise SnnError(f"{cause.filename}: this folder cannot be read ({cause.strerror}). Give the right to read it.")


def _ending(parts: tuple[str, ...]) -> str:
    return os.path.splitext(parts[-1])[1].lower()


def _of_one_ending(files: list[tuple[str, ...]], root: Path, suffix: str | None) -> list[tuple[str, ...]]:
    """The files with `suffix`; without it all, which then have one ending that is a format of events."""
    if suffix is not None:
        return [parts for parts in files if _ending(parts) == suffix]
    endings = Counter(map(_ending, files))
    if len(endings) > 1 or any(ending not in FORMATS for ending in endings):
        few = ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in endings.most_common(5))
        known = [ending for ending, _ in endings.most_common() if ending in FORMATS]
        raise SnnError(
            f"{root}: its files should have one ending, found {few}. "
            + (f"suffix={known[0]!r} reads those alone." if known else f"Known: {' '.join(FORMATS)}.")
        )
    return files


def _is_number(label: str) -> bool:
    return label.isascii() and label.removeprefix("-").isdigit()


def _zeros_and_ones(label: str, names: tuple[str, ...]) -> np.ndarray:
    wanted = {part.strip() for part in label.split(";")} - {""}
    return np.array([name in wanted for name in names], np.float32)
