"""Run as a script by `hdf5.py`: one HDF5 file to standard output. It imports nothing of snn_bp, to start fast.

HDF5 files can name other files, contain themselves, claim sizes they do not hold and ask for plug-ins: each is refused.
"""

import io
import json
import math
import os
import sys
from typing import Any

MOST_ENTRIES, MOST_DEPTH = 50_000, 8
MOST_MEMORY = 4 * 2**30  # bytes, beyond what the content may take
MOST_CONTENT = 2**30  # bytes that a file may hold beyond its own size
INFLATES = 1100  # how many times deflate can make a file larger, at most (it is 1032)
FILTERS = (1, 2, 3, 4, 32000)  # deflate, shuffle, checksum, szip, lzf: those that HDF5 and h5py bring along


class Refused(Exception):
    """Why the file is not read."""


class Reading:
    """What is read so far, and how many bytes the file may still hold."""

    def __init__(self, size: int) -> None:
        self.left = most_content(size)
        self.entries: list[list[Any]] = []  # [path, kind, value]
        self.arrays: dict[str, Any] = {}

    def group(self, group: Any, depth: int) -> None:
        """Every entry of a group, and of the groups in it."""
        import h5py

        for name in group:
            path = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refused(f"{path} is a link to elsewhere.")
            if len(self.entries) >= MOST_ENTRIES or depth >= MOST_DEPTH:
                raise Refused(f"it has more than {MOST_ENTRIES} entries, or groups nested deeper than {MOST_DEPTH}.")
            entry = group[name]
            if isinstance(entry, h5py.Group):
                self.entries.append([path, "group", None])
                self.group(entry, depth + 1)
            elif isinstance(entry, h5py.Dataset):
                self.data(entry, path)
            else:
                raise Refused(f"{path} is neither a group nor data.")

    def attribute(self, file: Any, name: str) -> None:
        """A number among the root's attributes; of another kind it is only said to be there."""
        import numpy as np

        if name not in file.attrs:
            return
        data, kind = file.attrs.get_id(name), "group"
        if data.shape == () and data.dtype.kind in "iu" and data.dtype.itemsize <= 8:
            kind, self.arrays[name] = "array", np.asarray(int(file.attrs[name]))
        self.entries.append([f"@{name}", kind, name if kind == "array" else None])

    def data(self, data: Any, path: str) -> None:
        """One data set: numbers, or texts of at most two axes."""
        import h5py
        import numpy as np

        plan = data.id.get_create_plist()
        if data.is_virtual or data.external:
            raise Refused(f"{path} has its data in other files.")
        if any(plan.get_filter(index)[0] not in FILTERS for index in range(plan.get_nfilters())):
            raise Refused(f"{path} is compressed by a filter that is not HDF5's own.")
        if data.shape is None:
            raise Refused(f"{path} is empty.")
        self.take(max(8, data.dtype.itemsize) * max(math.prod(data.shape), math.prod(data.chunks or ())))
        if h5py.check_string_dtype(data.dtype):
            if data.ndim > 2:
                raise Refused(f"{path} has texts of {data.ndim} axes.")
            rows = [data[()]] if data.ndim == 0 else (data[row] for row in range(data.shape[0]))
            texts = [self.texts(row) for row in rows]  # one by one: many entries may name one long text
            self.entries.append([path, "text", texts[0] if data.ndim == 0 else texts])
        elif data.dtype.kind in "iufb" and data.dtype.itemsize <= 8 and data.ndim <= 8:
            self.arrays[str(len(self.arrays))] = np.asarray(data[()]).astype(data.dtype.newbyteorder("="))
            self.entries.append([path, "array", str(len(self.arrays) - 1)])
        else:
            raise Refused(f"{path} should hold numbers or text, found {data.dtype}.")

    def texts(self, row: Any) -> Any:
        """A text, or a list of them."""
        if not isinstance(row, bytes | str):
            return [self.texts(text) for text in row.tolist()]
        self.take(len(row))
        return row.decode("utf-8") if isinstance(row, bytes) else row

    def take(self, count: int) -> None:
        """Count what is about to be read."""
        self.left -= count
        if self.left < 0:
            raise Refused("it claims more data than its size can hold.")


def most_content(size: int) -> int:
    """How many bytes a file of `size` bytes may hold."""
    return min(INFLATES * size, MOST_CONTENT + size)


def content(path: str, attributes: tuple[str, ...] = ()) -> bytes:
    """The file's content, or why it is refused, as the arrays of an `.npz`."""
    import h5py
    import numpy as np

    reading, problem = Reading(os.path.getsize(path)), None
    try:
        with h5py.File(path, "r") as file:
            reading.group(file, 0)
            for name in attributes:
                reading.attribute(file, name)
    except Refused as cause:
        problem = str(cause)
    except Exception as cause:  # h5py raises whatever HDF5 raises where the file is broken
        said = str(cause).splitlines()[0][:120] if str(cause) else type(cause).__name__
        problem = f"it cannot be read as HDF5, it is broken or another format ({said})."
    index = json.dumps({"problem": problem, "entries": [] if problem else reading.entries}).encode()
    out = io.BytesIO()
    np.savez(out, index=np.frombuffer(index, np.uint8), **({} if problem else reading.arrays))  # type: ignore[arg-type]
    return out.getvalue()


def limit(size: int, seconds: int) -> None:
    """End this process, not the machine, where the library asks for more than a file of `size` bytes can need."""
    try:
        import resource  # not on Windows

        most = MOST_MEMORY + 3 * most_content(size)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    except (ImportError, ValueError, OSError):
        pass


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its files are no modules to import from here
    limit(os.path.getsize(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.buffer.write(content(sys.argv[1], tuple(sys.argv[3:])))
