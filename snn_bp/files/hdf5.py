"""HDF5 files that may be broken or hostile, read in another process: on such files the library itself may hang."""

import io
import json
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from snn_bp.errors import SnnError
from snn_bp.files import kind_of_entry
from snn_bp.files.hdf5_child import Reading

Entry: TypeAlias = np.ndarray | str | list | None
SECONDS, SECONDS_PER_MB = 10.0, 0.1  # computing time of a file before it counts as one that hangs the library
WAIT = 6  # times as long by the clock: on a busy machine a sound file takes its time
STOPPED = (getattr(signal, "SIGXCPU", None),)  # how the other process ends when its time is up


def read_hdf5(path: Path | str, *, attributes: tuple[str, ...] = ()) -> dict[str, Entry]:
    """Every entry by its full path ("/node/type"): an array, a text, a list of texts, or None for a group.

    `attributes` of the root that are asked for stand under "@name": a number as an array, None for anything else.
    Raises `SnnError` where the file is broken, leads outside itself, or holds what is neither number nor text.
    """
    path = Path(path)
    _check_kind(path)
    with np.load(io.BytesIO(_by_child(path, attributes)), allow_pickle=False) as content:
        index = json.loads(content["index"].tobytes())
        if index["problem"]:
            raise SnnError(f"{path}: {index['problem']}")
        return {name: content[value] if kind == "array" else value for name, kind, value in index["entries"]}


def entries_of(file: Any) -> dict[str, Entry]:
    """The same of a file of our own that h5py has open."""
    reading = Reading(2**40)
    reading.group(file, 0)
    return {name: reading.arrays[value] if kind == "array" else value for name, kind, value in reading.entries}


def _check_kind(path: Path) -> None:
    """Raise where something else than an ordinary file, or nothing, is there. Opens nothing, so it cannot hang."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as cause:  # no file, no rights, links in a cycle, a name that no system takes
        said = cause.strerror if isinstance(cause, OSError) else str(cause)
        raise SnnError(f"{path}: no file is here ({said}).") from None
    if not stat.S_ISREG(found.st_mode):
        raise SnnError(f"{path}: no file is here but {kind_of_entry(found.st_mode)}. Give the name of a file.")


def _by_child(path: Path, attributes: tuple[str, ...] = ()) -> bytes:
    """What the other process says of the file."""
    limit = SECONDS + SECONDS_PER_MB * path.stat().st_size / 2**20
    child = str(Path(__file__).with_name("hdf5_child.py"))
    command, quiet = (
        [sys.executable, child, str(path.absolute()), str(math.ceil(limit)), *attributes],
        subprocess.DEVNULL,
    )
    try:
        done = subprocess.run(command, capture_output=True, timeout=WAIT * limit, stdin=quiet, check=False)
    except subprocess.TimeoutExpired:
        done = None
    if done is None or -done.returncode in STOPPED:
        raise SnnError(f"{path}: it cannot be read, the HDF5 library was still at it after {limit:.0f} s.")
    if done.returncode:
        said = (done.stderr.decode(errors="replace").splitlines() or ["no word"])[-1][:200]
        raise SnnError(f"{path}: it cannot be read, the HDF5 library ended with code {done.returncode} ({said}).")
    return done.stdout
