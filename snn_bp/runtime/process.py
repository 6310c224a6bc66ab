"""How the process waits, keeps memory, runs other programs and ends."""

import atexit
import ctypes
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from snn_bp.runtime import is_on
from snn_bp.runtime.signals import raised_signals

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


class _Heap(ctypes.Structure):
    """What mallinfo2(3) tells of the main heap."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("size", "a", "b", "c", "mapped", "d", "e", "used", "freed", "f")]


def freed_memory() -> int:
    """Bytes that the process holds and has freed, so that it can have them again; 0 where nobody says so."""
    try:
        mallinfo = ctypes.CDLL("libc.so.6").mallinfo2  # glibc 2.33
    except (OSError, AttributeError):
        return 0
    mallinfo.restype = _Heap
    return int(mallinfo().freed)


def run_program(
    command: Sequence[str], *, timeout_s: float, folder: Path | None, environment: dict[str, str] | None = None
) -> tuple[int | None, str] | None:
    """Exit code (None: out of time) and all that another program said; None where it cannot be started.

    It gets no input, and ends with all processes that it started, also where SIGTERM or SIGHUP ends ours.
    """
    code: int | None = None
    with raised_signals() as begun:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                cwd=folder, env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError:
            begun()
            return None
        try:
            begun()
            said, _ = process.communicate(timeout=timeout_s)
            code = process.returncode
        except subprocess.TimeoutExpired:
            _end(process)
            said, _ = process.communicate()
        finally:
            _end(process)
    return code, said.decode(errors="replace")


def _end(process: subprocess.Popen) -> None:
    """End a program and the processes it started, which are a group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


leaving = False  # whether this process ends without finalisation


def leave(code: int) -> NoReturn:
    """End a command without interpreter finalisation, a second for what the system frees anyway. `SNN_BP_FAST_EXIT`."""
    if not is_on("FAST_EXIT"):
        sys.exit(code)
    global leaving
    leaving = True
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # who read it may have gone, and an experiment may have closed it
            stream.flush()
    os._exit(code)
