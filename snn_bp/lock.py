"""One process at a time works on a folder; a lock goes with its process, so a dead one holds none."""

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
LOCK = "lock"  # the name of the file in the folder; it stays behind a process that was killed, and locks nothing then


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within the block no other process gets past this line for the same folder; raises where one is there."""
    if fcntl is None:
        yield
        return
    path = folder / LOCK
    opened = _take(path)
    if opened is None:
        raise SnnError(f"{folder}: {holder(folder) or 'another process'} is at work on it. Nothing was changed.")
    try:
        said = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(opened, 0)
        os.pwrite(opened, json.dumps(said).encode(), 0)
        yield
    finally:
        with suppress(OSError):
            os.unlink(path)  # before the lock is given up: who waits for it sees that the file is another
        os.close(opened)


def holder(folder: Path) -> str | None:
    """Who works on a folder, in words; None where nobody does."""
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


def _take(path: Path) -> int | None:
    """The lock file, opened and locked; None where another process holds it."""
    assert fcntl is not None
    for attempt in range(TRIES):
        try:
            opened = os.open(path, _FLAGS | os.O_CREAT, 0o644)
        except OSError as cause:
            raise SnnError(f"{path}: it cannot be written ({cause.strerror}).") from None
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
