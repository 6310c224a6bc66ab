"""What readers of formats share: columns of events, what a caller said of them, and what a file begins with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.errors import SnnError

FIELDS = {  # names of a column in files of others, in lower case
    "x": ("x", "xs", "x_pos"),
    "y": ("y", "ys", "y_pos"),
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
FORMAT_NAMES = {  # what a file of another format than its ending says begins with
    b"\x93NUMPY": (".npy", "a NumPy array"),
    b"PK\x03\x04": (".npz", "a NumPy or zip archive"),
    b"\x89HDF\r\n\x1a\n": (".h5", "an HDF5 file"),
    b"MATLAB": (".mat", "a MATLAB file"),
    b"#!AER-DAT4": (".aedat4", "an AEDAT4 file"),
    b"#!AER-DAT": (".aedat", "an AEDAT file"),
    b"Event Stream": (".es", "an Event Stream file"),
}


@dataclass(frozen=True)
class Layout:
    """What the caller says of columns that a file does not name."""

    columns: str | None = None
    unit: str | None = None
    entry: str | None = None


@dataclass(frozen=True)
class Columns:
    """Columns of one file, as they stand there."""

    x: np.ndarray
    y: np.ndarray
    t: np.ndarray
    p: np.ndarray
    size: tuple[int, int] | None = None  # width and height of the sensor, where the file says them
    unit: str | None = None  # the unit of times; None where it follows from their numbers
    coded: bool = True  # whether p may be coded otherwise than by 0 and 1
    is_text: bool = False


def other_inside(path: Path, suffix: str) -> None:
    """Raise where a file is empty, or begins as one of another format does."""
    with path.open("rb") as file:
        begin = file.read(16)
    if not begin:
        raise SnnError(f"{path}: it is empty, 0 bytes. Copy it anew.")
    for magic, (ending, name) in FORMAT_NAMES.items():
        if begin.startswith(magic):
            also = {".h5": (".hdf5", ".mat")}.get(ending, ())  # MATLAB 7.3 writes HDF5
            if suffix not in (ending, *also):
                raise SnnError(f"{path}: it is {name}, its ending says {suffix}. Rename it to {ending}.")
            return


def cut_short(path: Path, what: str) -> SnnError:
    """The error of a file that ends within an event."""
    return SnnError(f"{path}: {what}. The file is cut short; copy it anew.")


def by_name(content: Mapping[str, Any]) -> dict[str, str] | None:
    """For each of x, y, t and p the one name in `content` that stands for it; None where one has none or two."""
    names: dict[str, str] = {}
    for field, known in FIELDS.items():
        there = [name for name in content if name.lower() in known]
        if len(there) != 1:
            return None
        names[field] = there[0]
    return names


def columns_of_array(array: np.ndarray, source: str, layout: Layout, *, is_text: bool = False) -> Columns:
    """Columns of a structured array by their names, of one [events, 4] in the order that `layout` says."""
    if array.dtype.names is not None:
        names = by_name({name: None for name in array.dtype.names if name})
        if names is None:
            raise SnnError(
                f"{source}: its fields should be x, y, t and p, found {', '.join(filter(None, array.dtype.names))}. "
                "Rename them."
            )
        parts = {field: np.asarray(array[name]).reshape(-1) for field, name in names.items()}
    else:
        if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "iufb":
            turned = " It looks transposed." if array.ndim == 2 and array.shape[0] == 4 else ""
            raise SnnError(
                f"{source}: it should be an array [events, 4], or a structured one with the fields x, y, t and p, "
                f"found {array.dtype} {list(array.shape)}.{turned}"
            )
        if layout.columns is None:
            raise SnnError(
                f"{source}: an array [events, 4] does not say which column is which. Give columns='xytp' or another "
                "order of these letters to read_events or Folder, `snn-bp init FOLDER columns=xytp` on a command line, "
                "or save a structured array with these names."
            )
        parts = dict(zip(layout.columns, array.T, strict=True))
    return _of_parts(parts, layout, is_text=is_text)


def columns_of_mapping(content: Mapping[str, Any], names: dict[str, str], source: str, layout: Layout) -> Columns:
    """Columns that stand apart, one array each, which `by_name` has found."""
    parts = {}
    for field, name in names.items():
        part = np.asarray(content[name])
        if part.ndim > 2 or (part.ndim == 2 and 1 not in part.shape):
            raise SnnError(f"{source}: {name} should be one number an event, found {list(part.shape)}.")
        parts[field] = part.reshape(-1)
    return _of_parts(parts, layout)


def _of_parts(parts: Mapping[str, np.ndarray], layout: Layout, *, is_text: bool = False) -> Columns:
    return Columns(parts["x"], parts["y"], parts["t"], parts["p"], unit=layout.unit, is_text=is_text)
