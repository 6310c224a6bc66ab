"""Arrays that begin on a cache line: a vector register filled from two lines takes twice as long."""

import numpy as np

from snn_bp.kernels.cpu.compile import inner

LINE = 64  # bytes of a cache line


def aligned_empty(size: int, dtype: np.dtype) -> np.ndarray:
    """`size` numbers, not set."""
    return _from_a_line(np.empty(size + LINE // dtype.itemsize, dtype), size)


def aligned_zeros(size: int, dtype: np.dtype) -> np.ndarray:
    """`size` zeros."""
    return _from_a_line(np.zeros(size + LINE // dtype.itemsize, dtype), size)


@inner
def kernel_empty(size, like):
    """`aligned_empty` in a kernel: `size` numbers of the type of `like`."""
    width = like.itemsize
    whole = np.empty(size + LINE // width, like.dtype)
    first = (LINE - np.int64(whole.ctypes.data) % LINE) % LINE // width
    return whole[first : first + size]


@inner
def kernel_zeros(size, like):
    """`aligned_zeros` in a kernel."""
    values = kernel_empty(size, like)
    for k in range(values.size):
        values[k] = 0
    return values


def _from_a_line(whole: np.ndarray, size: int) -> np.ndarray:
    first = -whole.__array_interface__["data"][0] % LINE // whole.itemsize
    return whole[first : first + size]
