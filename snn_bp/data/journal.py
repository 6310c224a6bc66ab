"""What a build has read so far: a line for each recording, written behind its events.

A build that was killed goes on behind the last line whose events are on disk as it says. Lines carry a hash of
themselves: a disk that lost power may hold any part of them.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

JOURNAL = "journal.jsonl"  # beside the entry that is built


@dataclass(frozen=True)
class Line:
    """What is kept of a recording besides its events."""

    length: int
    label: int
    hash: int
    name: str
    span: tuple[int, int, bool]  # the first and the last of its times, and whether they are in order
    remark: str = ""
    target: np.ndarray | None = None
    group: str = ""
    split: str = ""
    duration_us: int | None = None
    coding: tuple[str, ...] = ()  # the state of `Polarity` behind it

    def text(self) -> bytes:
        """The line as it is written."""
        target = None if (given := self.target) is None else [given.dtype.str, given.shape, given.tobytes().hex()]
        text = json.dumps({**vars(self), "target": target})
        return f"{_digest(text)} {text}\n".encode()

    @classmethod
    def read(cls, line: bytes) -> "Line | None":
        """The line of a text; None where it is cut, or none of this version."""
        try:
            digest, text = line.decode().removesuffix("\n").split(" ", 1)
            if digest != _digest(text) or not line.endswith(b"\n"):
                return None
            content: dict[str, Any] = json.loads(text)
            if content["target"] is not None:
                dtype, shape, values = content["target"]
                content["target"] = np.frombuffer(bytes.fromhex(values), dtype).reshape(shape)
            content |= {name: tuple(content[name]) for name in ("span", "coding")}
            return cls(**content)
        except (ValueError, KeyError, TypeError):
            return None


def lines_of(journal: IO[bytes]) -> Iterator[Line]:
    """The whole lines of a journal from its beginning, up to the first that is none."""
    journal.seek(0)
    for text in journal:
        line = Line.read(text)
        if line is None:
            return
        yield line


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
