"""Arrays that begin on a cache line: a vector register filled from two lines takes twice as long."""

import numpy as np

from snn_bp.kernels.cpu.llvm import LINE, inner


def empty(size: int, dtype: np.dtype) -> np.ndarray:
    """`size` numbers, not set."""
    return _from_a_line(np.empty(size + LINE // dtype.itemsize, dtype), size)


def zeros(size: int, dtype: np.dtype) -> np.ndarray:
    """`size` zeros."""
    return _from_a_line(np.zeros(size + LINE // dtype.itemsize, dtype), size)


@inner
def room(size, like):
    """`empty` in a kernel: `size` numbers of the type of `like`."""
    width = like.itemsize
    whole = np.empty(size + LINE // width, like.dtype)
    first = (LINE - np.int64(whole.ctypes.data) % LINE) % LINE // width
    return whole[first : first + size]


@inner
def cleared(size, like):
    """`zeros` in a kernel."""
    values = room(size, like)
    for k in range(values.size):
        values[k] = 0
    return values


def _from_a_line(whole: np.ndarray, size: int) -> np.ndarray:
    first = -whole.__array_interface__["data"][0] % LINE // whole.itemsize
    return whole[first : first + size]
