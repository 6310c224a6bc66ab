"""The cache of raw events, kept between starts and shared by users: whole entries, checked against their hashes.

An entry is a folder. It is built beside its place and renamed into it, so that a reader never sees half of one; a
build that was killed goes on at the next start. Its files are hashed when it is opened; `verified.json` says of which
files (size, times, inode) that has been done.
"""

import contextlib
import functools
import hashlib
import json
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snn_bp.data.journal import JOURNAL
from snn_bp.errors import SnnError, in_home
from snn_bp.files import json_sha256, read_json, write_json
from snn_bp.files.lock import holder, locked
from snn_bp.runtime.status import phase

RECORD, VERIFIED = "record.json", "verified.json"
KEPT_DAYS = 90
_ABANDONED_S = 7 * 86_400  # idle time after which a build of another machine, or of an older version, was killed
_BLOCK = 2**24


class Damaged(Exception):
    """An entry that stands there and does not hold what was written."""


def cache_folder() -> Path:
    """Where events are kept: the environment variable SNN_BP_CACHE, else `~/.cache/snn_bp`."""
    return in_home("SNN_BP_CACHE", os.environ.get("SNN_BP_CACHE") or "~/.cache/snn_bp")


@contextlib.contextmanager
def building(name: str | None) -> Iterator[Path]:
    """Within the block, a folder in which the entry `name` is built.

    What a build of it wrote that was killed, interrupted or ended by an error is there, if it kept a journal beside
    that folder. Where another process builds the same, or the entry has no name before it is built, the folder is one's
    own.
    """
    cache_folder().mkdir(parents=True, exist_ok=True)
    remove_leftovers()
    with contextlib.ExitStack() as held:
        outer = None if name is None else _taken(cache_folder() / f"building-{name}", held)
        if is_own := outer is None:
            outer = cache_folder() / f"building-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(8)}"
            outer.mkdir()  # with the rights that the user's mask gives: others may read what they share
        entry = outer / "entry"
        try:
            if is_own or not (outer / JOURNAL).exists():
                remove(entry)
            entry.mkdir(exist_ok=True)
            if not is_own:
                (outer / JOURNAL).touch()
            yield entry
        except BaseException:
            if not goes_on(entry):
                remove(outer)
            raise
        remove(outer)


def goes_on(entry: Path) -> bool:
    """Whether the next start goes on with what stands in the folder of an entry that is built."""
    with contextlib.suppress(OSError):
        return entry.exists() and (entry.parent / JOURNAL).stat().st_size > 0
    return False


def _taken(folder: Path, held: contextlib.ExitStack) -> Path | None:
    """The folder of a build, locked until `held` ends; None where that cannot be, or another process has it."""
    try:
        folder.mkdir(exist_ok=True)
        held.callback(_remove_empty, folder)
        held.enter_context(locked(folder))
    except (OSError, SnnError):
        return None
    return folder if holder(folder) else None  # on a file system without locks it might be another's too


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def seal_entry(folder: Path, facts: dict[str, Any]) -> None:
    """Write the record of a folder whose files are complete: their sizes and hashes, and `facts`."""
    files = {file.name: {"size": file.stat().st_size, "sha256": file_sha256(file)} for file in folder.iterdir()}
    record = {"files": files, **facts}
    (folder / RECORD).write_text(json.dumps({"sha256": json_sha256(record), "record": record}), encoding="utf-8")
    _note_verified(folder, record)


def open_entry(folder: Path) -> dict[str, Any] | None:
    """The record of an entry whose files are what was written; None where none stands.

    Raises `Damaged` where a file is missing, cut, changed or no file at all, PermissionError where this user may not
    read it.
    """
    if not os.path.lexists(folder):
        return None
    try:
        _check_regular(folder / RECORD)
        told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        record = told["record"]
        if told["sha256"] != json_sha256(record):
            raise Damaged(RECORD)
        for name, file in record["files"].items():
            if _check_regular(folder / name).st_size != file["size"]:
                raise Damaged(name)
        stamps = _stamps(folder, record)
        if _verified(folder) != stamps:
            for name, file in record["files"].items():
                if _sha256_once(folder / name, tuple(stamps[name])) != file["sha256"]:
                    raise Damaged(name)
            _note_verified(folder, record)
        with contextlib.suppress(OSError):
            os.utime(folder)  # its time says when it was last used
        return record
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
        raise Damaged(RECORD) from cause


def publish_entry(building: Path, folder: Path) -> dict[str, Any]:
    """Rename `building` to `folder`; where a whole entry stands there already, that one is taken."""
    damaged = building.with_name(f"{building.name}-damaged")
    try:
        for _ in range(3):  # others may be doing the same
            with contextlib.suppress(OSError):
                os.rename(building, folder)
            with contextlib.suppress(Damaged):
                found = open_entry(folder)
                if found is not None:
                    return found
            with contextlib.suppress(OSError):
                os.rename(folder, damaged)
        raise PermissionError(f"{folder} could not be put in place")
    finally:
        remove(damaged)


def remove_leftovers() -> None:
    """Remove the folders of builds that were killed: of dead processes here; others, which may go on, after a week."""
    with contextlib.suppress(OSError):
        for folder in list(cache_folder().glob("building-*")):
            if _is_abandoned(folder):
                remove(folder)


def clean_cache(*, days: float = KEPT_DAYS) -> list[tuple[str, int]]:
    """Remove entries that nobody has opened for so many days; gives the name and size in bytes of each."""
    if not (isinstance(days, int | float) and days >= 0):
        raise SnnError(f"cache: days={days!r}: it is a number of days, 0 or more.")
    remove_leftovers()
    removed = []
    for folder, size, age_days in cache_entries():
        if age_days >= days:
            remove(folder)
            if not folder.exists():
                removed.append((folder.name, size))
    return removed


def cache_entries() -> list[tuple[Path, int, float]]:
    """Each entry with its size in bytes and the days since it was last opened, the oldest first.

    Among them what is left of builds that were killed, interrupted or ended by an error, and may go on.
    """
    found, cache = [], cache_folder()
    if cache.is_dir():
        try:
            os.listdir(cache)
        except OSError as cause:
            raise SnnError(
                f"{cache}: the cache folder cannot be read ({cause.strerror}). Give the right to read it, or name "
                "another in the environment variable SNN_BP_CACHE."
            ) from None
    with contextlib.suppress(OSError):
        stopped = [file for file in cache_folder().glob(f"building-*/{JOURNAL}") if holder(file.parent) is None]
        for record in (*cache_folder().glob(f"*/{RECORD}"), *stopped):
            with contextlib.suppress(OSError):
                folder = record.parent
                if folder.is_symlink() or (folder.name.startswith("building-") and record.name == RECORD):
                    continue
                size = sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
                used = (folder if record.name == RECORD else record).stat().st_mtime
                found.append((folder, size, max(0.0, (time.time() - used) / 86_400)))
    return sorted(found, key=lambda entry: -entry[2])


def remove(path: Path) -> None:
    """Remove an entry, or whatever has its name; a link is removed, not what it points to."""
    with contextlib.suppress(OSError):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """The hash of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file, phase(f"checking {path}", total=path.stat().st_size) as checking:
        while block := file.read(_BLOCK):
            digest.update(block)
            checking.done += len(block)
    return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _sha256_once(path: Path, stamp: tuple[int, ...]) -> str:
    """The hash of a file as of `stamp`; a process that may not write `verified.json` computes it once."""
    return file_sha256(path)


def _check_regular(path: Path) -> os.stat_result:
    """The `lstat` of a plain file; raises `Damaged` for anything else, a pipe for one, that opening might wait for."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise Damaged(path.name)
    return found


def _stamps(folder: Path, record: dict[str, Any]) -> dict[str, list[int]]:
    """Size, times and inode of each file: if any of them changed, the content is hashed again."""
    stats = {name: (folder / name).lstat() for name in record["files"]}
    return {name: [one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino] for name, one in stats.items()}


def _verified(folder: Path) -> Any:
    with contextlib.suppress(SnnError):
        return read_json(folder / VERIFIED)


def _note_verified(folder: Path, record: dict[str, Any]) -> None:
    with contextlib.suppress(SnnError):  # another user's cache: looked through again by each process
        write_json(folder / VERIFIED, _stamps(folder, record))


def _is_abandoned(folder: Path) -> bool:
    words = folder.name.removesuffix("-damaged").split("-")  # building, host (which may have a dash), process, random
    if len(words) >= 4 and words[-2].isdigit() and "-".join(words[1:-2]) == socket.gethostname():
        return not _is_alive(int(words[-2]))
    with contextlib.suppress(OSError):
        newest = max(path.lstat().st_mtime for path in (folder, *folder.iterdir()))
        return time.time() - newest > _ABANDONED_S
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
