"""HDF5 files that may be broken or hostile, read in another process: on such files the library itself may hang."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import numpy as np

from snn_bp.errors import SnnError

Entry: TypeAlias = np.ndarray | str | list | None
SECONDS, SECONDS_PER_MB = 10.0, 0.1  # for a file before it counts as one that hangs the library


def read_hdf5(path: Path | str) -> dict[str, Entry]:
    """Every entry by its full path ("/node/type"): an array, a text, a list of texts, or None for a group.

    Raises `SnnError` where the file is broken, leads outside itself, or holds what is neither number nor text.
    """
    path = Path(path)
    if not path.is_file():
        raise SnnError(f"{path}: no file is here.")
    with np.load(io.BytesIO(_by_child(path)), allow_pickle=False) as content:
        index = json.loads(content["index"].tobytes())
        if index["problem"]:
            raise SnnError(f"{path}: {index['problem']}")
        return {name: content[value] if kind == "array" else value for name, kind, value in index["entries"]}


def _by_child(path: Path) -> bytes:
    """What the other process says of the file."""
    limit = SECONDS + SECONDS_PER_MB * path.stat().st_size / 2**20
    command = [sys.executable, str(Path(__file__).with_name("hdf5_child.py")), str(path.absolute())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        raise SnnError(f"{path}: it cannot be read, the HDF5 library was still at it after {limit:.0f} s.") from None
    if done.returncode:
        said = (done.stderr.decode(errors="replace").splitlines() or ["no word"])[-1][:200]
        raise SnnError(f"{path}: it cannot be read, the HDF5 library ended with code {done.returncode} ({said}).")
    return done.stdout
