"""Recordings read from disk by tonic's own classes, part by part, whole copies and partial ones.

tonic 1.7 starts a download unless it sees an archive and a minimum of files; `_reader` takes what is there.
It also lists some sets in the file system's order; here samples are numbered by the sorted paths.
"""

import contextlib
import io
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snn_bp.data.catalogue import Entry
from snn_bp.data.store import Recording
from snn_bp.errors import SnnError

DOWNLOAD_TIMEOUT_S = 30


def find_root(root: str | None) -> Path:
    """The folder that holds data sets: `root`, else SNN_BP_DATA, else `~/.cache/snn_bp/data`."""
    named = root or os.environ.get("SNN_BP_DATA")
    if not named:
        return Path("~/.cache/snn_bp/data").expanduser()
    folder = Path(named).expanduser()
    if not folder.is_dir():
        origin = "root" if root else "SNN_BP_DATA"
        raise SnnError(f"{origin}={named!r}: there is no such folder. Give one that holds the data set.")
    return folder


def find_set(entry: Entry, root: Path) -> Path | None:
    """The set's own folder: `<root>/<tonic's name>`, or `root` itself; None where neither has files of it."""
    for folder in (root / entry.tonic_class, root):
        if any(files_of(entry, folder, part) for part in entry.parts):
            return folder
    return None


def files_of(entry: Entry, folder: Path, part: str) -> list[Path]:
    """The files of one part in the order of their paths; empty where there are none."""
    place = folder / entry.parts[part]
    if place.is_file():
        return [place]
    found = []
    for path, _, names in os.walk(place):
        found += [Path(path, name) for name in names if name.endswith(entry.suffix)]
    return sorted(found, key=lambda file: file.relative_to(place).parts)


def read_part(entry: Entry, folder: Path, part: str) -> Iterator[Recording]:
    """Every recording of one part, with times from its start, numbered by the order of the files."""
    with _naming(f"{folder / entry.parts[part]}"):
        reader = _reader(entry, folder)(str(folder.parent), train=part == "train")
    if entry.suffix == ".h5":
        yield from _read_rows(reader, folder / entry.parts[part])
        return
    order = sorted(range(len(reader.data)), key=lambda n: Path(reader.data[n]).parts)
    for n in order:
        file = Path(reader.data[n])
        _check_file(file)
        with _naming(str(file)):
            events, label = reader[n]
        if entry.name == "dvs_gesture" and len(events):  # cut out of longer ones: the clock is not at 0
            events["t"] -= events["t"].min()
        yield Recording(str(file), events, int(label))


def download(entry: Entry, root: Path, *, quiet: bool) -> None:
    """Let tonic fetch the set into `root`; one error, with the layout, where it cannot."""
    import tonic  # slow to import

    printed = io.StringIO() if quiet else sys.stderr
    timeout = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
        with contextlib.redirect_stdout(printed):
            for part in entry.parts:
                getattr(tonic.datasets, entry.tonic_class)(str(root), train=part == "train")
    except (Exception, SystemExit) as cause:  # whatever tonic, gdown or the archive's reader raise
        raise SnnError(
            f"{entry.name}: no files of it in {root}, and the download failed ({cause}). Put {entry.layout} "
            "there, or name the folder that has them with root= or the environment variable SNN_BP_DATA."
        ) from cause
    finally:
        socket.setdefaulttimeout(timeout)


def read_keys(file: Path) -> tuple[tuple[str, ...], str]:
    """Class names and origin, as a file of SHD's schema states them."""
    import h5py  # only these files need it

    with _naming(str(file)), h5py.File(file, "r") as opened:
        content: Any = opened  # h5py's types do not tell groups from arrays
        names = tuple(key.decode() for key in content["extra/keys"][()])
        source = "extra/meta_info/source"
        return names, content[source][()].decode() if source in content else "nothing"


def _reader(entry: Entry, folder: Path) -> Any:
    """tonic's class for the set, under its own name, reading from `folder` whatever is there."""
    import numpy.lib.recfunctions  # noqa: F401  tonic uses it without importing it
    import tonic  # slow to import

    original = getattr(tonic.datasets, entry.tonic_class)

    def _check_exists(reader: Any) -> bool:
        reader.location_on_system = str(folder)
        return True

    return type(original.__name__, (original,), {"_check_exists": _check_exists})


def _read_rows(reader: Any, file: Path) -> Iterator[Recording]:
    with _naming(str(file)):
        rows = len(reader)
    for n in range(rows):
        with _naming(f"{file}, row {n}"):
            events, label = reader[n]
        yield Recording(f"{file}, row {n}", events, int(label))


def _check_file(file: Path) -> None:
    size = file.stat().st_size
    if size == 0 or (file.suffix == ".bin" and size % 5):
        raise SnnError(f"{file}: no whole recording has {size} bytes. The file is cut short; copy it anew.")


@contextlib.contextmanager
def _naming(source: str) -> Iterator[None]:
    """Errors of readers become one that names the file."""
    try:
        yield
    except (Exception, SystemExit) as cause:
        if isinstance(cause, SnnError):
            raise
        raise SnnError(f"{source}: cannot be read ({cause}). The file is damaged; copy it anew.") from cause
