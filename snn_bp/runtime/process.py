"""How the process waits, keeps memory and ends."""

import atexit
import ctypes
import functools
import os
import sys
from contextlib import suppress
from typing import NoReturn

from snn_bp.runtime import is_on

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the options of mallopt(3)
_MAX_THRESHOLD = 2**31 - 1


def let_waiting_threads_sleep() -> None:
    """Before torch starts its threads: waiting ones sleep, unless `OMP_WAIT_POLICY` is set.

    Spinning, as they would, they make a step twice as long where other processes keep the cores busy, and no shorter
    where none does (experiments/benchmarks/busy.py).
    """
    if is_on("SLEEPING_THREADS"):
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@functools.cache
def keep_freed_memory() -> bool:
    """Ask glibc to keep what the process frees for its next step, once; whether it will. `SNN_BP_KEEP_MEMORY`.

    glibc maps every large tensor anew; the system then clears its pages one by one, which costs a training step more
    than its arithmetic. Peak memory stays as it is.
    """
    if not is_on("KEEP_MEMORY"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False  # not glibc
    return bool(mallopt(_MMAP_THRESHOLD, 2**30)) and bool(mallopt(_TRIM_THRESHOLD, _MAX_THRESHOLD))


def leave(code: int) -> NoReturn:
    """End a command without interpreter finalisation, a second for what the system frees anyway. `SNN_BP_FAST_EXIT`."""
    if not is_on("FAST_EXIT"):
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # who read it may have gone, and an experiment may have closed it
            stream.flush()
    os._exit(code)
