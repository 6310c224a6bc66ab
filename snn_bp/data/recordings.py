"""Recordings on disk, part by part, whole copies and partial ones: which files, which class, where each starts.

Files lie as tonic's classes lay them out, and tonic downloads what is missing. They are read here: tonic casts before
it checks, takes the last letter of a folder for its class, and starts a download over a partial copy.
"""

import contextlib
import io
import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from snn_bp.data.catalogue import DataSetInfo
from snn_bp.data.raw import Polarity, events_of_bytes, events_of_table, naming, order_of
from snn_bp.data.spoken import read_rows
from snn_bp.data.store import Recording
from snn_bp.data.tonic_module import tonic_module
from snn_bp.errors import SnnError, in_home, no_folder
from snn_bp.files import is_there, kind_of_entry

DOWNLOAD_TIMEOUT_S = 30


def find_root(root: str | None) -> Path:
    """The folder that holds data sets: `root`, else SNN_BP_DATA, else `~/.cache/snn_bp/data`."""
    named = root or os.environ.get("SNN_BP_DATA")
    if not named:
        return in_home("SNN_BP_DATA", "~/.cache/snn_bp/data")
    origin = "root" if root else "SNN_BP_DATA"
    folder = in_home(origin, named)
    if not folder.is_dir():
        raise SnnError(f"{origin}={named!r}: {no_folder(named)}. Give one that holds the data set.")
    return folder


def find_set(info: DataSetInfo, root: Path) -> Path | None:
    """The set's own folder: `<root>/<tonic's name>`, or `root` itself; None where neither has files of it."""
    for folder in (root / info.tonic_class, root):
        if any(files_of(info, folder, part) for part in info.parts):
            return folder
    return None


def files_of(info: DataSetInfo, folder: Path, part_name: str) -> list[Path]:
    """The files of one part in the order of their paths; empty where there are none.

    Links are followed. What bears a recording's name and is no file (a pipe, a device, a folder, a link to nothing)
    is refused: opening it might wait for ever. Names that begin with a dot, as macOS leaves beside files, are none.
    """
    path = folder / info.parts[part_name]
    if not is_there(path):
        return []
    is_file = info.suffix == ".h5"
    kind = _kind(path)
    if kind != ("a file" if is_file else "a folder"):
        raise SnnError(
            f"{info.name}: {path} should be {'a file' if is_file else 'a folder of recordings'}, found {kind}. "
            f"Put {info.layout} into one folder."
        )
    if is_file:
        return [path]
    found = list(_walk(path, info.suffix, ()))
    return sorted(found, key=lambda file: file.relative_to(path).parts)


def read_part(
    info: DataSetInfo, folder: Path, part_name: str, first: int = 0, coding: Sequence[str] = ()
) -> Iterator[Recording]:
    """The recordings of one part, with times from their starts, in the order of the files.

    From number `first` on; `coding` is the state of `Polarity` behind those before.
    """
    path, polarity = folder / info.parts[part_name], Polarity.of(coding)
    if info.suffix == ".h5":
        yield from read_rows(path, first)
        return
    for file in files_of(info, folder, part_name)[first:]:
        label = label_of(info, file, path)
        events, remarks = read_one(info, file, polarity)
        name, coding = file.relative_to(path), polarity.state
        yield Recording(str(file), events, label, name.as_posix(), remarks, group=group_of(info, name), coding=coding)


def read_one(info: DataSetInfo, file: Path, polarity: Polarity) -> tuple[np.ndarray, str]:
    """The events of one file, with times from the start of the recording, and what a reader should know of them."""
    with naming(str(file)):
        if info.suffix == ".bin":
            events = events_of_bytes(np.fromfile(file, np.uint8), source=str(file))
        else:
            events = events_of_table(_table(file), unit_us=1000, polarity=polarity, source=str(file))
    events, late = from_start(info, events)
    return events, "; ".join(filter(None, (late, order_of(events))))


def label_of(info: DataSetInfo, file: Path, path: Path) -> int:
    """The class that a file's path names: its folder in N-MNIST, the file itself in DVS Gesture."""
    if info.suffix == ".bin":
        inner = file.relative_to(path).parts
        if len(inner) != 2 or inner[0] not in info.class_names:
            raise SnnError(
                f"{file}: recordings lie in a folder named by their class, {path.name}/0 to {path.name}/9, found "
                f"{'/'.join((path.name, *inner))}. Rename or move it."
            )
        return info.class_names.index(inner[0])
    if not (file.stem.isascii() and file.stem.isdigit() and str(int(file.stem)) == file.stem):
        raise SnnError(
            f"{file}: a recording is named by its class, 0.npy to {len(info.class_names) - 1}.npy, found {file.name}. "
            "Rename or move it."
        )
    return int(file.stem)


def group_of(info: DataSetInfo, name: Path) -> str:
    """Whom the path of a recording names: the user in DVS Gesture; an empty word where it names nobody."""
    found = re.match(rf"{info.group}0*(\d+)_", name.parts[0]) if info.group else None
    return f"{info.group} {found[1]}" if found else ""


def from_start(info: DataSetInfo, events: np.ndarray) -> tuple[np.ndarray, str]:
    """The events with times from the start of the recording, and a remark where that is not where the clock starts.

    A recording starts at time 0 of its file. Two exceptions: DVS Gesture's files are cut out of longer recordings, and
    start at their first event; and a camera whose first event comes later than the set's whole usual window had been
    running, its recording starts at the first event too.
    """
    if info.clock == "of the recording" or not len(events):
        return events, ""
    first, is_cut_out = int(events["t"].min()), info.clock == "of a longer recording"
    if not is_cut_out and first < info.window_ms * 1000:
        return events, ""
    events["t"] -= first
    late = f"the clock starts later than {info.window_ms} ms, so time is counted from the first event"
    return events, "" if is_cut_out else late


def download(info: DataSetInfo, root: Path, *, quiet: bool) -> None:
    """Let tonic fetch the set into `root`; one error, with the layout, where it cannot."""
    datasets = tonic_module("tonic.datasets")
    printed = io.StringIO() if quiet else sys.stderr
    timeout = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
        with contextlib.redirect_stdout(printed):
            for part in info.parts:
                getattr(datasets, info.tonic_class)(str(root), train=part == "train")
    except (Exception, SystemExit) as cause:  # whatever tonic, gdown or the archive's reader raise
        raise SnnError(
            f"{info.name}: no files of it in {root}, and the download failed ({cause}). Put {info.layout} "
            "there, or name the folder that has them with root= or the environment variable SNN_BP_DATA."
        ) from cause
    finally:
        socket.setdefaulttimeout(timeout)


def _kind(path: Path) -> str:
    """What stands at a path, behind links."""
    try:
        return kind_of_entry(path.stat().st_mode)
    except OSError as cause:
        found = "a link to nothing" if path.is_symlink() else "nothing to be read"
        return f"{found} ({cause.strerror})"


def _walk(folder: Path, suffix: str, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """The files with `suffix` in a folder and those below, links followed; raises where one cannot be looked into."""
    try:
        here, entries = folder.stat(), list(os.scandir(folder))
    except OSError as cause:
        raise SnnError(f"{folder}: this folder cannot be read ({cause.strerror}). Give the right to read it.") from None
    if (here.st_dev, here.st_ino) in above:
        raise SnnError(f"{folder}: this link leads back to a folder it lies in. Remove it.")
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.name.lower().endswith(suffix):
            if not entry.is_file() and (kind := _kind(path)) != "a file":
                raise SnnError(f"{path}: it should be a recording, a file, found {kind}. Remove it.")
            yield path
        elif entry.is_dir():
            yield from _walk(path, suffix, (*above, (here.st_dev, here.st_ino)))
        elif entry.is_symlink() and not path.exists():
            raise SnnError(f"{path}: it is a link to nothing, so its recordings would be missing. Repair or remove it.")


def _table(file: Path) -> np.ndarray:
    with open(file, "rb") as content:
        array = np.load(content, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise SnnError(
                f"{file}: it should hold one array, found an archive of several. Save the array by numpy.save."
            )
        if (more := len(content.read())) > 0:
            raise SnnError(
                f"{file}: it should hold one array, found {more} bytes behind it, as where arrays were saved into one "
                "file. Save one array of all events."
            )
    return array
