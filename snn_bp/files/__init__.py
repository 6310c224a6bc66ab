"""Files that are read and written safely, in UTF-8 whatever the locale.

A file is replaced in one step: a reader sees the old content or the new, never a mixture, also after a power failure.
Only regular files are read, and nothing is written through a link.
"""

import csv
import hashlib
import io
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from snn_bp.errors import SnnError

TEXT_MB = 256  # a file of JSON or rows that is larger is not ours
SEAL = "checksum"  # the key of a JSON object under which its hash stands
UNFINISHED = ".writing"  # how names of files end that are not complete
_PLAIN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # where the system has it
_KINDS = (
    (stat.S_ISREG, "a file"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISLNK, "a link"),
)  # fmt: skip


def is_there(path: Path) -> bool:
    """Whether anything has this name, a broken link included; reading it refuses what is no regular file.

    Raises where this user may not know: what cannot be looked at is not taken for missing.
    """
    try:
        os.lstat(path)
    except PermissionError as cause:
        why = f"it cannot be looked at ({cause.strerror})"
        raise SnnError(f"{path}: {why}. Give the right to read its folder.") from None
    except (OSError, ValueError):
        return False
    return True


def kind_of_entry(mode: int) -> str:
    """What a message calls an entry of this mode (`st_mode` of `os.stat`)."""
    return next((name for test, name in _KINDS if test(mode)), "something else")


def read_bytes(path: Path, *, limit_mb: float | None = None) -> bytes:
    """The content of a regular file; a pipe or device in its place is refused at once instead of waited for."""
    try:
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _PLAIN)
    except FileNotFoundError:
        raise SnnError(f"{path}: there is no such file.") from None
    except OSError as cause:
        raise SnnError(f"{path}: it cannot be read ({_kind_at(path) or cause.strerror}).") from None
    found = os.fstat(opened)
    problem = None
    if not stat.S_ISREG(found.st_mode):
        problem = f"it should be a file, found {kind_of_entry(found.st_mode)}"
    elif limit_mb is not None and found.st_size > limit_mb * 2**20:
        problem = f"it should hold at most {limit_mb:g} MB, found {found.st_size / 2**20:,.0f} MB"
    if problem is not None:
        os.close(opened)
        raise SnnError(f"{path}: {problem}.")
    try:
        with open(opened, "rb") as file:
            return file.read()
    except OSError as cause:
        raise SnnError(f"{path}: it cannot be read ({cause.strerror}).") from None


def read_text(path: Path) -> str:
    """The text of a file."""
    try:
        return read_bytes(path, limit_mb=TEXT_MB).decode("utf-8")
    except UnicodeDecodeError as cause:
        raise SnnError(f"{path}: it is not text in UTF-8 (byte {cause.start}).") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds."""
    text = read_text(path)
    try:
        return json.loads(text)
    except RecursionError:
        raise SnnError(f"{path}: it is not JSON that we wrote; it is nested too deep.") from None
    except ValueError as cause:
        raise SnnError(f"{path}: it is not JSON ({cause}).") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; refused where `write_object` wrote it and it was altered since."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise SnnError(f"{path}: it should hold a JSON object, found {json.dumps(content)[:40]}.")
    sealed = content.pop(SEAL, None)
    if sealed is not None and sealed != _seal_of(content):
        raise SnnError(
            f"{path}: it was altered since it was written, its {SEAL!r} does not fit. Put it back, or take that line "
            "out to use it as it stands."
        )
    return content


def replace_file(path: Path, content: bytes, *, keep: Path | None = None) -> None:
    """Put a whole file in the place of an old one, in one step; the old one is moved to `keep` where that is given.

    The new one is on disk before the old one goes. It is written under a name that nobody can foresee.
    """
    _check_target(path)
    fresh = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}{UNFINISHED}")
    try:
        opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | _PLAIN, 0o666)
        try:
            with open(opened, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and is_there(path):
                os.replace(path, keep)
            os.replace(fresh, path)
        except BaseException:
            with suppress(OSError):
                fresh.unlink()
            raise
    except OSError as cause:
        raise SnnError(
            f"{path}: it cannot be written ({cause.strerror}). What was saved before is untouched."
        ) from cause
    sync_folder(path.parent)


def append(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Add to the end of a file, never through a link; `sync` waits until it is on disk."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | _NO_LINK | _PLAIN
    _check_target(path, links=False)
    try:
        with open(os.open(path, flags, 0o666), "ab") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SnnError(f"{path}: it should be a file, found something else.")
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as cause:
        raise SnnError(f"{path}: it cannot be written ({cause.strerror}).") from cause


def check_can_write(path: Path, remedy: str, *, is_folder: bool = False) -> None:
    """Raise where a file, or files of a folder, cannot be put at a path, ahead of what takes time and ends there.

    Where its folder is not there yet, the nearest above it is asked. Nothing is left behind.
    """
    folder = next((each for each in path.parents if is_there(each)), path.parent)
    if is_folder and is_there(path):
        make_folder(folder := path)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as cause:
        raise SnnError(f"{path}: it cannot be written ({cause.strerror}). {remedy}") from cause
    if not is_folder:
        _check_target(path)


def make_folder(path: Path) -> None:
    """Make a folder if there is none; a link to one is refused, so that nothing is written outside the run."""
    try:
        path.mkdir(exist_ok=True)
    except FileExistsError:
        found = kind_of_entry(os.lstat(path).st_mode)
        raise SnnError(f"{path}: it should be a folder, found {found}. Move it away.") from None
    except OSError as cause:
        raise SnnError(f"{path}: the folder cannot be made ({_kind_at(path) or cause.strerror}).") from None
    if path.is_symlink():
        raise SnnError(f"{path}: it should be a folder, found a link. Move the whole run where there is room.")


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk, where the system can."""
    with suppress(OSError):
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _PLAIN)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file."""
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())


def write_object(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file by an object with its checksum, which `read_object` checks."""
    write_json(path, content | {SEAL: _seal_of(content)})


def json_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """One JSON object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_lines(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows of a table; a column that a row lacks stays empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row.get(column) for column in columns] for row in rows)
    return text.getvalue().encode(errors="backslashreplace")  # a name of a folder may be in no coding


def json_sha256(content: Any) -> str:
    """The hash of a value as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def json_key(content: Any) -> Any:
    """A value as JSON holds it, as the key of a dictionary, in which 52 is 52.0."""
    if isinstance(content, dict):
        return frozenset((name, json_key(value)) for name, value in content.items())
    return tuple(map(json_key, content)) if isinstance(content, list) else content


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Replace a table with a header."""
    replace_file(path, csv_lines(columns, [dict(zip(columns, columns, strict=True)), *rows]))


def _seal_of(content: dict[str, Any]) -> str:
    """The hash of an object as JSON gives it back."""
    return json_sha256(json.loads(json.dumps(content)))


def _check_target(path: Path, *, links: bool = True) -> None:
    """Raise where a pipe, a device or a folder stands in place of a file; a link is replaced, not followed."""
    with suppress(OSError):
        mode = os.lstat(path).st_mode
        if not (stat.S_ISREG(mode) or (links and stat.S_ISLNK(mode))):
            raise SnnError(f"{path}: it should be a file, found {kind_of_entry(mode)}. Move it away, or name another.")


def _kind_at(path: Path) -> str | None:
    """What stands at `path` in place of a file; None where it is one, or nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else f"it is {kind_of_entry(mode)}"
