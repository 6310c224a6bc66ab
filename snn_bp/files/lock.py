"""Locks that let one process at a time work on a folder. A lock ends with its process: a dead one holds none."""

import json
import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snn_bp.errors import SnnError
from snn_bp.files import read_object

try:
    import fcntl
except ImportError:  # not on Windows: nothing is locked there
    fcntl = None

TRIES, PAUSE_S = 10, 0.03  # `holder` takes the lock for a moment to see whether it is free
_FLAGS = os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
LOCK = "lock"  # the file's name; a killed process leaves the file, which then locks nothing


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder within the block; raises if another process holds it."""
    if fcntl is None:
        yield
        return
    path = folder / LOCK
    opened = _take(folder)
    if opened is None:
        raise SnnError(f"{folder}: {holder(folder) or 'another process'} is at work on it. Nothing was changed.")
    try:
        said = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):  # a full disk: it is locked all the same, and nobody is told by whom
            os.ftruncate(opened, 0)
            os.pwrite(opened, json.dumps(said).encode(), 0)
        yield
    finally:
        with suppress(OSError):
            os.unlink(path)  # before the lock is given up: who waits for it sees that the file is another
        os.close(opened)


def holder(folder: Path) -> str | None:
    """Which process holds the lock of a folder, in words; None if none does."""
    path = folder / LOCK
    if fcntl is None:
        return None
    try:
        opened = os.open(path, _FLAGS & ~os.O_RDWR | os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        with suppress(SnnError):
            said = read_object(path)
            return f"process {said.get('pid')} on {said.get('host')}, since {said.get('since')},"
        return "another process"
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(opened)


def _take(folder: Path) -> int | None:
    """The lock file of a folder, opened and locked; None where another process holds it."""
    assert fcntl is not None
    path = folder / LOCK
    for attempt in range(TRIES):
        try:
            opened = os.open(path, _FLAGS | os.O_CREAT, 0o644)
        except OSError as cause:
            raise SnnError(
                f"{path}: it cannot be written ({cause.strerror}). Copy {folder} to where you may write."
            ) from None
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise SnnError(f"{path}: it should be a file, found something else. Move it away.")
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(opened), os.stat(path)):
                    return opened
        except BlockingIOError:
            if attempt == TRIES - 1:
                os.close(opened)
                return None
            time.sleep(PAUSE_S)
        except OSError:  # a file system without locks: as before there were any
            return opened
        os.close(opened)
    return None
