"""Freed memory kept for the next step of training, instead of given back to the system and asked for again.

glibc maps every large tensor anew; the system then clears its pages one by one, which costs a training step more than
its arithmetic. `SNN_BP_KEEP_MEMORY=0` leaves the allocator as it is.
"""

import ctypes
import functools
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the options of mallopt(3)
_LARGEST = 2**31 - 1


@functools.cache
def keep_freed_memory() -> bool:
    """Ask glibc to keep what the process frees, once; whether it will. Peak memory stays as it is."""
    if os.environ.get("SNN_BP_KEEP_MEMORY") == "0":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False  # not glibc
    return bool(mallopt(_MMAP_THRESHOLD, 2**30)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
