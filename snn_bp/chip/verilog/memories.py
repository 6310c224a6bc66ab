"""Files of memories: lines of hexadecimal, as `$readmemh` reads them."""

from pathlib import Path

import numpy as np

from snn_bp.errors import SnnError
from snn_bp.files import replace_file

BITS_AT_ONCE = 1 << 22
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def put(folder: Path, files: dict[str, str | bytes]) -> None:
    """Write files by their names in a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            replace_file(folder / file, content.encode() if isinstance(content, str) else content)
    except OSError as cause:
        raise SnnError(f"export to {folder}: it cannot be written ({cause.strerror}). Choose another.") from cause


def in_hex(*fields: tuple[np.ndarray, int]) -> bytes:
    """A line for each word: arrays `[words, values]` and the bits of a value, the first value of the first lowest."""
    block = max(1, BITS_AT_ONCE // sum(values.shape[1] * width for values, width in fields))
    starts = range(0, len(fields[0][0]), block)
    return b"".join(_lines([(values[low : low + block], width) for values, width in fields]) for low in starts)


def _lines(fields: list[tuple[np.ndarray, int]]) -> bytes:
    bits = np.concatenate([_bits(values, width) for values, width in fields], axis=1)
    nibbles = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 4))).reshape(len(bits), -1, 4)
    digits = nibbles @ np.array([1, 2, 4, 8], np.uint8)
    lines = np.full((len(bits), digits.shape[1] + 1), ord("\n"), np.uint8)
    lines[:, :-1] = DIGITS[digits[:, ::-1]]
    return lines.tobytes()


def _bits(values: np.ndarray, width: int) -> np.ndarray:
    """`[words, values]` as `[words, values * width]` bits, two's complement, the lowest first."""
    return (np.asarray(values, np.int64)[..., None] >> np.arange(width) & 1).astype(np.uint8).reshape(len(values), -1)
