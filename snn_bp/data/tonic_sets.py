"""`TonicSet`: any classification set that tonic knows, by tonic's own class, whole copies and partial ones.

tonic takes a partial copy for none and starts a download, and lists some sets in the file system's order; here what is
there is read, in the order of the files' names, and said.
"""

import contextlib
import io
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import numpy as np

from snn_bp.data.catalogue import Sensor
from snn_bp.data.raw import naming
from snn_bp.data.recordings import DOWNLOAD_TIMEOUT_S, find_root
from snn_bp.data.tonic_module import tonic_module, tonic_version
from snn_bp.errors import SnnError, nearest, shown
from snn_bp.errors.fields import check_fields
from snn_bp.model.targets import Targets

READING_FORMAT = 1  # raised when the same files would give other events
_LATEST_MS = 1000  # where a set has no usual window, a recording that begins later is cut out of a longer one


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What tonic's class does not say, or says only once the files are there."""

    sensor: Sensor
    parts: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"train": {"train": True}, "test": {"train": False}}
    )
    totals: dict[str, int]  # recordings in a whole copy of each part; empty where that is not known
    window_ms: float | None = None
    step_ms: float | None = None
    is_cut: bool = False  # out of longer recordings: each starts at its first event
    more: dict[str, Any] = field(default_factory=dict)  # what its class is called with


_ONE_PART: dict[str, dict[str, Any]] = {"train": {}}
SETS = MappingProxyType({
    "ASLDVS": _Facts(sensor=(240, 180, 2), parts=_ONE_PART, totals={"train": 100_800}, is_cut=True),
    "CIFAR10DVS": _Facts(
        sensor=(128, 128, 2), parts=_ONE_PART, totals={"train": 10_000}, window_ms=1300, step_ms=100, is_cut=True
    ),
    "DVSGesture": _Facts(
        sensor=(128, 128, 2), totals={"train": 1077, "test": 264}, window_ms=1500, step_ms=75, is_cut=True
    ),
    "DVSLip": _Facts(sensor=(128, 128, 2), totals={"train": 14_896, "test": 4975}, is_cut=True),
    "NCALTECH101": _Facts(
        sensor=(240, 180, 2), parts=_ONE_PART, totals={"train": 8709}, window_ms=300, step_ms=10
    ),
    "NMNIST": _Facts(sensor=(34, 34, 2), totals={"train": 60_000, "test": 10_000}, window_ms=310, step_ms=10),
    "NTIDIGITS18": _Facts(
        sensor=(64, 1, 1), totals={}, more={"single_digits": True}
    ),
    "POKERDVS": _Facts(sensor=(35, 35, 2), totals={"train": 48, "test": 20}, window_ms=30, step_ms=1, is_cut=True),
    "SHD": _Facts(sensor=(700, 1, 1), totals={"train": 8156, "test": 2264}, window_ms=1000, step_ms=10),
    "SMNIST": _Facts(sensor=(99, 1, 1), totals={"train": 60_000, "test": 10_000}, window_ms=1568, step_ms=8),
    "SSC": _Facts(
        sensor=(700, 1, 1), totals={"train": 75_466, "validation": 9981, "test": 20_382}, window_ms=1000, step_ms=10,
        parts={"train": {"split": "train"}, "validation": {"split": "valid"}, "test": {"split": "test"}},
    ),
})  # fmt: skip
_NO_CLASSES = ("DAVISDATA", "DSEC", "EBSSA", "MVSEC", "NERDD", "ThreeET_Eyetracking", "TUMVIE", "VPR")


@dataclass(frozen=True)
class TonicSet:
    """A set of tonic's by the name of its class, a source for `Data`; `Data("tonic:NCALTECH101")` is the short form.

    Files lie below `root`, else the folder in SNN_BP_DATA, in a folder of the class's name, as tonic lays them out;
    what is missing wholly tonic downloads. Where tonic has no test part, draw one by `test_fraction`, `folds` or
    `test_groups`; groups are the speakers or users that a set names.
    """

    name: str
    root: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.root, PurePath):
            object.__setattr__(self, "root", str(self.root))
        check_fields(self)
        if self.name in _NO_CLASSES:
            raise SnnError(
                f"tonic:{self.name}: its targets are no classes but depths, boxes, positions or images. Bring it in by "
                "a source of your own, which says what is asked for."
            )
        if self.name not in SETS:
            raise SnnError(
                f"TonicSet({shown(self.name)}): tonic has no such set of classes. {nearest(self.name, SETS)}"
            )

    @property
    def sensor(self) -> Sensor:
        """Width, height and polarities; a row of channels has one of the latter two."""
        return SETS[self.name].sensor

    @property
    def step_ms(self) -> float | None:
        """The usual width of a frame, None where there is none."""
        return SETS[self.name].step_ms

    @property
    def window_ms(self) -> float | None:
        """How long recordings usually are, None where that differs."""
        return SETS[self.name].window_ms

    @property
    def packages(self) -> tuple[str, ...]:
        """What the events depend on besides the files."""
        return ("tonic",)

    @property
    def targets(self) -> Targets:
        """The classes by the names that tonic, or the files, have for them."""
        return Targets("class", _class_names(self._opened("train")))

    def recordings(self, part_name: str, first: int = 0) -> Iterator[tuple[np.ndarray, int, dict[str, Any]]]:
        """Events, class and facts of each recording from number `first` on, in the order of files' names or of rows."""
        facts, opened = SETS[self.name], self.of_part(part_name)
        names = _class_names(next(iter(opened.values()))) if opened else ()
        classes = {name: number for number, name in enumerate(names)}
        for split, found in opened.items():
            order = _order(found)
            for index in order[first:]:
                name = _name(found, index)
                with naming(f"tonic:{self.name}, {name}"):
                    events, target = found[index]
                label = int(target) if isinstance(target, int | np.integer) else classes[_text(target)]
                about = {"name": name, "group": _group(found, index), "split": split if len(facts.parts) > 2 else None}
                yield self._from_start(events), label, about | ({"split": None} if split == "test" else {})
            first = max(0, first - len(order))

    def of_part(self, part_name: str) -> dict[str, Any]:
        """tonic's sets of what is there of "train" (validation among it) or "test"."""
        splits = ("train", "validation") if part_name == "train" else ("test",)
        opened = {split: self._opened(split) for split in splits if split in SETS[self.name].parts}
        return {split: found for split, found in opened.items() if found is not None}

    def made_from(self) -> list[Any]:
        """The names, sizes and times of all files of the set, and tonic's version."""
        folder = self._folder()
        files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
        states = [(str(file.relative_to(folder)), file.stat()) for file in files]
        versions = [READING_FORMAT, tonic_version(), str(folder.resolve())]
        return [*versions, *((name, stat.st_size, stat.st_mtime_ns) for name, stat in states)]

    def notes(self) -> list[str]:
        """Of how many recordings the copy is, where it is partial."""
        totals, opened = SETS[self.name].totals, {part: self._opened(part) for part in SETS[self.name].parts}
        counts = {part: 0 if found is None else len(found) for part, found in opened.items()}
        if not totals or counts == totals:
            return []
        return ["partial copy: " + ", ".join(f"{counts[part]} of {totals[part]} {part} recordings" for part in totals)]

    def _opened(self, part: str) -> Any:
        """tonic's set of what is there of a part; None where nothing of it is, though something is of others."""
        found = self._there(part)
        if found is not None:
            return found
        if part != "train" and self._there("train") is not None:
            return None
        self._download(part)
        found = self._there(part)
        if found is None:
            raise SnnError(
                f"tonic:{self.name}: no recordings in {self._folder()}. Put its files there, as tonic has them."
            )
        return found

    def _there(self, part: str) -> Any:
        """tonic's set of what is there, downloading nothing; None where nothing is."""
        kind = getattr(tonic_module("tonic.datasets"), self.name)
        here = type(self.name, (kind,), {"_check_exists": lambda _: True})  # which asks for a whole copy
        try:
            found = here(str(find_root(self.root)), **SETS[self.name].parts[part], **SETS[self.name].more)
        except FileNotFoundError:
            return None
        except (Exception, SystemExit) as cause:
            raise SnnError(
                f"tonic:{self.name}: its files in {self._folder()} cannot be read by tonic ({cause}). Copy them anew."
            ) from cause
        return found if len(found) else None

    def _download(self, part: str) -> None:
        """Let tonic fetch the set; one error, with the place of the files, where it cannot."""
        datasets = tonic_module("tonic.datasets")
        root, timeout = find_root(self.root), socket.getdefaulttimeout()
        try:
            root.mkdir(parents=True, exist_ok=True)
            socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
            with contextlib.redirect_stdout(io.StringIO()):
                getattr(datasets, self.name)(str(root), **SETS[self.name].parts[part], **SETS[self.name].more)
        except (Exception, SystemExit) as cause:  # whatever tonic, gdown or the archive's reader raise
            raise SnnError(
                f"tonic:{self.name}: no files of it in {self._folder()}, and the download failed ({cause}). Put them "
                "there as tonic has them, or name another folder with root= or the environment variable SNN_BP_DATA."
            ) from cause
        finally:
            socket.setdefaulttimeout(timeout)

    def _folder(self) -> Path:
        return find_root(self.root) / ("smnist" if self.name == "SMNIST" else self.name)

    def _from_start(self, events: np.ndarray) -> np.ndarray:
        """Times from the first event, where a recording is cut out of a longer one."""
        events, facts = events.reshape(-1), SETS[self.name]
        first = int(events["t"].min()) if len(events) else 0
        if facts.is_cut or first >= (facts.window_ms or _LATEST_MS) * 1000:
            events = events.copy()
            events["t"] -= events["t"].dtype.type(first)
        return events


def _order(found: Any) -> list[int]:
    """The recordings in the order of their files' names; of one file, in that of its rows."""
    if not _has_paths(found):
        return list(range(len(found)))
    return sorted(range(len(found)), key=lambda index: Path(found.data[index]).parts)


def _has_paths(found: Any) -> bool:
    return isinstance(found.data, list) and bool(found.data) and all(isinstance(each, str) for each in found.data)


def _name(found: Any, index: int) -> str:
    if _has_paths(found):
        return Path(os.path.relpath(found.data[index], found.location_on_system)).as_posix()
    samples = getattr(found, "_samples", None)
    return samples[index] if samples is not None else f"row {index}"


def _group(found: Any, index: int) -> str | None:
    """Who was recorded, where the set says so."""
    if (users := getattr(found, "users", None)) is not None:
        return f"user {users[index]}"
    if (speakers := getattr(found, "_speaker", None)) is not None:  # SSC has no other name for them
        return f"speaker {int(speakers[index])}"
    if (samples := getattr(found, "_samples", None)) is not None:
        return samples[index].split("-")[0]
    return None


def _class_names(found: Any) -> tuple[str, ...]:
    """The names of classes, by tonic's list, dictionary or files; else those of the targets that are there."""
    classes = next(
        (each for name in ("classes", "class_map") if (each := getattr(found, name, None)) is not None), None
    )
    if isinstance(classes, dict):
        return tuple(sorted(classes, key=lambda name: classes[name]))
    if classes is not None:
        return tuple(map(_text, classes))
    return tuple(sorted({_text(target) for target in found.targets}))


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
