"""Events in files that hold arrays by name: NumPy's `.npy` and `.npz`, HDF5, MATLAB.

Events are one structured array, four arrays side by side, or an array [events, 4] whose columns the caller names.
ST-MNIST's `.mat` (See et al. 2020) is known too: a matrix `spiketrain` of 100 taxels by change times, whose last row
are seconds.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.data.formats.columns import Columns, Layout, by_name, columns_of_array, columns_of_mapping
from snn_bp.data.formats.matlab import read_arrays
from snn_bp.errors import SnnError, nearest, shown

_TAXELS = 10  # ST-MNIST's sensor is 10 x 10


def read_npy(path: Path, layout: Layout) -> Columns:
    """Events of one array."""
    with path.open("rb") as file:
        return columns_of_array(np.asarray(np.load(file, allow_pickle=False)), str(path), layout)


def read_npz(path: Path, layout: Layout) -> Columns:
    """Events of an archive of arrays."""
    if not zipfile.is_zipfile(path):
        raise SnnError(f"{path}: it is no archive, or cut short. Copy it anew.")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        return _among({name: content[name] for name in content.files}, path, layout)


def read_h5(path: Path, layout: Layout) -> Columns:
    """Events of an HDF5 file: of the one group or array that looks like events, or of `entry`."""
    import h5py  # only these files need it

    with h5py.File(path, "r") as file:
        groups: dict[str, Mapping[str, Any]] = {"/": file}
        arrays: dict[str, Any] = {}

        def sort_in(name: str, node: Any) -> None:
            if hasattr(node, "keys"):
                groups[name] = node
            else:
                arrays[name] = node

        file.visititems(sort_in)
        return _chosen(groups, arrays, path, layout)


def read_mat(path: Path, layout: Layout) -> Columns:
    """Events of a MATLAB file; those of version 7.3 are HDF5 files."""
    with path.open("rb") as file:
        begin = file.read(1024)
    if b"\x89HDF\r\n\x1a\n" in (begin[:8], begin[512:520]):  # MATLAB leaves 512 bytes to text
        return read_h5(path, layout)
    content = read_arrays(path)
    if set(content) == {"spiketrain"} and isinstance(content["spiketrain"], np.ndarray):
        return _of_taxels(content["spiketrain"], path)
    return _among(content, path, layout)


def _among(content: Mapping[str, Any], path: Path, layout: Layout) -> Columns:
    """The events among arrays by name; structs count as groups."""
    groups: dict[str, Mapping[str, Any]] = {"/": {n: v for n, v in content.items() if isinstance(v, np.ndarray)}}
    groups |= {name: value for name, value in content.items() if isinstance(value, dict)}
    return _chosen(groups, dict(groups["/"]), path, layout)


def _chosen(groups: Mapping[str, Mapping[str, Any]], arrays: Mapping[str, Any], path: Path, layout: Layout) -> Columns:
    """The columns of the one group or array that holds events, or of the one the caller names."""
    fitting = {name: found for name, group in groups.items() if (found := by_name(_arrays_in(group)))}
    tables = {name: array for name, array in arrays.items() if by_name(dict.fromkeys(array.dtype.names or ()))}
    if not fitting and not tables:
        tables = {name: array for name, array in arrays.items() if len(array.shape) == 2 and array.shape[1] == 4}
    there = [*fitting, *tables]
    wanted = layout.entry
    if wanted is not None and wanted.strip("/") not in [name.strip("/") for name in there]:
        raise SnnError(f"{path}: entry={shown(wanted)} holds no events there. {nearest(wanted, there or ['none'])}")
    if wanted is not None:
        there = [name for name in there if name.strip("/") == wanted.strip("/")]
    if len(there) != 1:
        names = [*(name for name in groups if name != "/"), *arrays]
        found = f"events in {len(there)} places: {', '.join(there[:8])}" if there else ", ".join(names[:12])
        raise SnnError(
            f"{path}: it should hold x, y, t and p once, as four arrays or the fields of one, found "
            f"{found or 'nothing'}. " + ("Name one, entry=" + shown(there[0]) + "." if there else "Rename them.")
        )
    if (name := there[0]) in fitting:
        group = groups[name]
        named = fitting[name]
        return columns_of_mapping(
            {each: np.asarray(group[each][()]) for each in named.values()}, named, str(path), layout
        )
    return columns_of_array(np.asarray(tables[name][()]), f"{path}, {name}", layout)


def _arrays_in(group: Mapping[str, Any]) -> dict[str, None]:
    return {name: None for name in group if hasattr(group[name], "shape") and not hasattr(group[name], "keys")}


def _of_taxels(matrix: np.ndarray, path: Path) -> Columns:
    """ST-MNIST: each column is a moment, each row but the last a taxel with 1, -1 or 0."""
    if matrix.ndim != 2 or matrix.shape[0] != _TAXELS**2 + 1:
        raise SnnError(
            f"{path}: spiketrain should be [{_TAXELS**2 + 1}, moments], taxels and a row of seconds, found "
            f"{list(matrix.shape)}."
        )
    moments, taxels = np.nonzero(matrix[:-1].T)
    signs = matrix[:-1].T[moments, taxels]
    return Columns(
        taxels % _TAXELS, taxels // _TAXELS, matrix[-1][moments], signs, size=(_TAXELS, _TAXELS), unit="s"
    )  # fmt: skip
