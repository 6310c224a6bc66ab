"""A folder that is replaced as a whole: a reader sees the old one or the new, and an old one stays where that fails."""

import os
import secrets
import shutil
import weakref
from contextlib import suppress
from pathlib import Path

from snn_bp.errors import SnnError
from snn_bp.files import UNFINISHED, is_there, sync_folder


def replace_folder(path: Path, fresh: Path) -> None:
    """Put a copy of the folder `fresh` in the place of an old one."""
    new, old = (path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}{UNFINISHED}") for _ in range(2))
    try:
        shutil.copytree(fresh, new)
        for each in new.rglob("*"):
            _sync(each)
        sync_folder(new)
        if is_there(path):
            os.rename(path, old)
        try:
            os.rename(new, path)
        except OSError:
            with suppress(OSError):
                os.rename(old, path)
            raise
    except OSError as cause:
        raise SnnError(f"{path}: it cannot be written ({_why(cause)}). What was saved before is untouched.") from cause
    finally:
        for each in (new, old):
            shutil.rmtree(each, ignore_errors=True)
    sync_folder(path.parent)


class SameFolder:
    """A folder where it stands when it is first written into; later writes ask whether it still stands there.

    It is held open, so that what is found in its place is known for another whatever the file system counts by.
    """

    def __init__(self, path: Path, *, remedy: str) -> None:
        self.path, self._remedy, self._opened = path, remedy, None
        with suppress(OSError):  # not on Windows
            self._opened = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
            weakref.finalize(self, os.close, self._opened)

    def check(self) -> None:
        """Raise where the folder was moved, removed or replaced."""
        if self._opened is None:
            return
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._opened), os.stat(self.path)):
                return
        raise SnnError(
            f"{self.path}: the folder was moved, removed or replaced while it was written into, and nothing more is. "
            f"{self._remedy}"
        )


def names_in(folder: Path) -> list[str]:
    """The names of what a folder holds, in order."""
    return sorted(os.listdir(folder))


def _why(cause: OSError) -> str:
    """What the system said; where a copy of several files failed, of the first."""
    if isinstance(cause, shutil.Error) and isinstance(cause.args[0], list):
        return str(cause.args[0][0][2])
    return str(cause.strerror)


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
        return
    with open(path, "rb") as file:
        os.fsync(file.fileno())
