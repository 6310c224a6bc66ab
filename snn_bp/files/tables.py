"""Files of rows that grow by appending; a mark (length and hash) says how much of one a checkpoint vouches for."""

import hashlib
from pathlib import Path
from typing import Any

from snn_bp.errors import SnnError, typed
from snn_bp.files import append, is_there, read_bytes, replace_file


class Table:
    """A file of rows. Rows after the mark of the checkpoint that a run resumes from are cut off and written again."""

    def __init__(self, file: Path) -> None:
        self.file, self.length, self._sha256 = file, 0, hashlib.sha256()

    @property
    def mark(self) -> list[Any]:
        """The number of bytes and their hash, both kept up to date by `add`: the file is not read."""
        return [self.length, self._sha256.hexdigest()]

    def begin(self, content: bytes) -> None:
        """Start the file with this content, in place of any other."""
        replace_file(self.file, content)
        self.length, self._sha256 = len(content), hashlib.sha256(content)

    def add(self, content: bytes) -> None:
        """Append, and wait until it is on disk."""
        append(self.file, content, sync=True)
        self.length += len(content)
        self._sha256.update(content)

    def cut(self, mark: Any, *, run: Path) -> None:
        """Cut the file back to a mark; raises if the bytes up to it are not the ones that were written."""
        kept, content = self._parts(mark, run)
        if len(content) > len(kept):
            replace_file(self.file, kept)
        self.length, self._sha256 = len(kept), hashlib.sha256(kept)

    def read(self, mark: Any, *, run: Path) -> bytes:
        """The content; raises unless it is exactly what was written up to the mark."""
        kept, content = self._parts(mark, run)
        if len(content) > len(kept):
            raise SnnError(f"{self.file}: it is longer than what the run wrote. {_remedy(run)}")
        return kept

    def _parts(self, mark: Any, run: Path) -> tuple[bytes, bytes]:
        """The content up to the mark, and all of it."""
        try:
            length, wanted = int(mark[0]), str(mark[1])
        except (ValueError, TypeError, IndexError, KeyError):
            raise SnnError(f"{self.file}: its checkpoint has no mark for it. {_remedy(run)}") from None
        if not is_there(self.file):
            raise SnnError(f"{self.file}: it is missing, and held rows of epochs behind us. {_remedy(run)}")
        content = read_bytes(self.file)
        kept = content[:length]
        if len(kept) < length or hashlib.sha256(kept).hexdigest() != wanted:
            raise SnnError(f"{self.file}: its first {length:,} bytes are not what the run wrote. {_remedy(run)}")
        return kept, content


def _remedy(run: Path) -> str:
    return f"Put it back as it was, or start anew with `snn-bp resume {typed(run)} --restart`."
