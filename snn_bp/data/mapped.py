"""Arrays that are mapped from files: which of their pages the disk is asked for before somebody waits for them.

A page that is touched and not in memory is read then, one behind the other. The system reads many at the same time,
and while others compute, where it is told of them before (`posix_fadvise`); where it cannot be told, as on macOS and
Windows, they are read when they are touched. What is computed is the same.
"""

import contextlib
import mmap
import os
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

_PIECE = 2**17  # bytes of a file that Linux reads at a time, by its default, however many it is asked for
_BUDGET = 2**28  # bytes that are asked for at a time, so that those of a large batch do not push each other out
_PAGE = 2**12


def fetch(array: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
    """Have the rows `starts:stops` of a mapped array read; returns while they are. Nothing happens to other arrays."""
    if (file := _file_of(array)) is None or not hasattr(os, "posix_fadvise"):
        return
    row, first, most = array.strides[0], file.offset, _BUDGET
    with (
        contextlib.suppress(OSError),
        open(cast(str, file.filename), "rb") as opened,
    ):  # whoever needs them reads them anyhow
        for start, stop in zip((first + starts * row).tolist(), (first + stops * row).tolist(), strict=True):
            stop = min(stop, start + most)
            most -= stop - start
            for at in range(start, stop, _PIECE):
                os.posix_fadvise(opened.fileno(), at, min(_PIECE, stop - at), os.POSIX_FADV_WILLNEED)


def first_at(
    values: np.ndarray, starts: np.ndarray, stops: np.ndarray, limits: np.ndarray, *, fetched: bool = False
) -> np.ndarray:
    """The first index in each of the stretches `starts:stops` of `values`, in order there, that is not below a limit.

    Where there is none, the stretch's end. All are searched together; with `fetched` the pages that each of them looks
    at next are asked for before any of these is read, and none around them.
    """
    low, high, page = starts.copy(), stops.copy(), _PAGE // values.itemsize
    with _here_and_there(values) if fetched else contextlib.nullcontext():
        while len(rest := np.flatnonzero(low < high)):
            middle = (low[rest] + high[rest]) // 2
            if fetched:
                far = middle[high[rest] - low[rest] > page]
                fetch(values, far, far + 1)
            is_below = values[middle] < limits[rest]
            low[rest[is_below]] = middle[is_below] + 1
            high[rest[~is_below]] = middle[~is_below]
    return low


@contextlib.contextmanager
def _here_and_there(array: np.ndarray) -> Iterator[None]:
    """Within the block, a page of a mapped array that is touched is read without those around it."""
    file = _file_of(array)
    mapped = None if file is None or not hasattr(mmap, "MADV_RANDOM") else cast(mmap.mmap, file.base)
    if mapped is not None:
        mapped.madvise(mmap.MADV_RANDOM)
    try:
        yield
    finally:
        if mapped is not None:
            mapped.madvise(mmap.MADV_NORMAL)


def _file_of(array: Any) -> np.memmap | None:
    """The mapping of a file that an array is the whole of; None for one in memory."""
    while not isinstance(array, np.memmap):
        if not isinstance(array, np.ndarray):
            return None
        array = array.base
    return array
