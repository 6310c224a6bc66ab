"""MATLAB's files of version 5 to 7.2: numeric arrays, and structs of them, by their names.

Read here, as MathWorks documents them ("MAT-File Format"): scipy's compiled reader ends the process on damaged files.
What is neither number nor struct (text, cells, sparse matrices, complex parts) is left out.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.data.formats.columns import cut_short
from snn_bp.errors import SnnError

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_MATRIX, _COMPRESSED, _STRUCT = 14, 15, 2
_HEADER, _DEEPEST = 128, 8


def read_arrays(path: Path) -> dict[str, Any]:
    """Each numeric array by its name, each struct as a dictionary of its fields."""
    content = path.read_bytes()
    mark = content[126:128]
    if len(content) < _HEADER or mark not in (b"IM", b"MI"):
        raise SnnError(f"{path}: it is no MATLAB file of version 5 to 7.3. Save it anew, by save(..., '-v7').")
    order, found = "<" if mark == b"IM" else ">", {}
    try:
        for kind, data in _elements(content[_HEADER:], order):
            if kind == _COMPRESSED:
                (kind, data), *_ = _elements(zlib.decompress(data), order)
            if kind == _MATRIX:
                name, value = _matrix(data, order, 0)
                if value is not None:
                    found[name] = value
    except (struct.error, IndexError, ValueError, EOFError, zlib.error, UnicodeDecodeError) as cause:
        raise cut_short(path, f"its arrays cannot be read ({cause})") from None
    return found


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each element; those of up to four bytes stand in their tag."""
    at = 0
    while at < len(content):
        kind, length = struct.unpack_from(f"{order}II", content, at)
        if kind >> 16:
            kind, length, begin = kind & 0xFFFF, kind >> 16, at + 4
            after = at + 8
        else:
            begin = at + 8
            after = begin + length + (-length % 8 if kind != _COMPRESSED else 0)
        if begin + length > len(content):
            raise EOFError("an element is longer than the file")
        yield kind, content[begin : begin + length]
        at = after


def _matrix(content: bytes, order: str, depth: int) -> tuple[str, Any]:
    """Name and value of an array; None for what is neither number nor struct."""
    if depth > _DEEPEST:
        raise ValueError("structs are nested too deep")
    elements = list(_elements(content, order))
    flags = np.frombuffer(elements[0][1], f"{order}u4")[0]
    kind, is_complex = int(flags & 0xFF), bool(flags >> 11 & 1)
    shape = tuple(np.frombuffer(elements[1][1], f"{order}i4").tolist())
    name = elements[2][1].decode("latin-1")
    if kind == _STRUCT and int(np.prod(shape)) == 1:
        length = int(np.frombuffer(elements[3][1], f"{order}i4")[0])
        names = [elements[4][1][n : n + length].split(b"\0")[0].decode("latin-1")
                 for n in range(0, len(elements[4][1]), length)]  # fmt: skip
        fields = dict(zip(names, (_matrix(data, order, depth + 1)[1] for _, data in elements[5:]), strict=True))
        return name, {field: value for field, value in fields.items() if value is not None}
    if kind not in _CLASSES or is_complex:
        return name, None
    stored, data = elements[3]
    if stored not in _TYPES:
        raise ValueError(f"numbers are stored as type {stored}")
    values = np.frombuffer(data, order + _TYPES[stored]).astype(_CLASSES[kind])
    return name, values.reshape(shape, order="F")
