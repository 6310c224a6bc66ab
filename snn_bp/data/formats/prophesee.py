"""Prophesee's files: `.raw` in EVT2 and EVT3, `.dat`, with which ATIS cameras' are alike.

Words as Prophesee documents them (docs.prophesee.ai, "EVT 2.0 Format", "EVT 3.0 Format", "DAT Format"). Times are those
of the words: where a camera corrects its clock by some microseconds they follow, and nothing is counted as a lap of the
clock but a step back by most of its range.
"""

import re
from pathlib import Path

import numpy as np

from snn_bp.data.formats.columns import Columns, Layout, cut_short
from snn_bp.errors import SnnError
from snn_bp.kernels.lazy import kernel

_LAPS_FROM = (2**12 - 1 - 10) << 12  # a step back of EVT3's clock of 24 bits that is a lap; Prophesee's own decoder's
_HIGH2, _HIGH3, _LOW3 = 8, 8, 6  # types of words that carry time


def read_raw(path: Path, layout: Layout) -> Columns:
    """Events of a `.raw` file, by the version that its header states."""
    header, begin = _header(path)
    version, size = _version(header, path), _size(header)
    if version == "2":
        return _evt2(np.fromfile(path, "<u4", offset=begin), path, size, begin)
    if version == "3":
        return _evt3(np.fromfile(path, "<u2", offset=begin), path, size, begin)
    raise SnnError(
        f"{path}: it is coded in EVT {version}; EVT 2.0 and EVT 3.0 are read. Convert it by metavision_file_to_dat, or "
        "record in one of these."
    )


def read_dat(path: Path, layout: Layout) -> Columns:
    """Events of a `.dat` file: eight bytes each, time and address."""
    header, begin = _header(path)
    content = np.fromfile(path, np.uint8, offset=begin)
    version = int(header.get("version", "1").split(".")[0] or 1)
    if not header or (version >= 2 and len(content) < 2):
        raise SnnError(f"{path}: a .dat file begins with lines of text and two bytes of type and size, found none.")
    if version >= 2:  # older ones have no two bytes
        kind, length = int(content[0]), int(content[1])
        if kind not in (0, 12) or length != 8:
            raise SnnError(
                f"{path}: it holds events of type {kind} and {length} bytes; those of change (types 0 and 12, "
                "8 bytes) are read."
            )
        content = content[2:]
    if len(content) % 8:
        raise cut_short(path, f"an event has 8 bytes, found {len(content)} bytes of events")
    words = content.view("<u4").reshape(-1, 2)
    address = words[:, 1]
    if version >= 2:
        x, y, p = address & 0x3FFF, address >> 14 & 0x3FFF, address >> 28 & 1
    else:
        x, y, p = address & 0x1FF, address >> 9 & 0xFF, address >> 17 & 1
    return Columns(x, y, words[:, 0], p, size=_size(header), unit="us", coded=False)


def _evt2(words: np.ndarray, path: Path, size: tuple[int, int] | None, begin: int) -> Columns:
    if (path.stat().st_size - begin) % 4:
        raise cut_short(path, f"a word has 4 bytes, found {path.stat().st_size - begin} bytes of words")
    kinds = words >> 28
    _check_kinds(kinds, (0, 1, _HIGH2, 0xA, 0xE, 0xF), path, "EVT 2.0")
    is_high, is_event = kinds == _HIGH2, kinds < 2
    highs = (words[is_high] & 0xFFFFFFF).astype(np.int64)
    highs += np.cumsum(np.diff(highs, prepend=highs[:1]) < -(2**27)) << 28  # laps of the clock, 4.8 hours each
    before = np.cumsum(is_high)[is_event]  # how many words of time stand before each event
    events, before = words[is_event][(known := before > 0)], before[known]  # ahead of the first, no time is known
    t = highs[before - 1] << 6 | (events >> 22 & 0x3F).astype(np.int64)
    return Columns(events >> 11 & 0x7FF, events & 0x7FF, t, events >> 28, size=size, unit="us", coded=False)


def _evt3(words: np.ndarray, path: Path, size: tuple[int, int] | None, begin: int) -> Columns:
    if (path.stat().st_size - begin) % 2:
        raise cut_short(path, f"a word has 2 bytes, found {path.stat().st_size - begin} bytes of words")
    _check_kinds(words >> 12, (0, 2, 3, 4, 5, 6, 7, 8, 0xA, 0xE, 0xF), path, "EVT 3.0")
    x, y, p, t = np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.uint8), np.empty(0, np.int64)
    count = _decode3(words, _LAPS_FROM, x, y, p, t)  # first only counted
    x, y, p, t = np.empty(count, np.uint16), np.empty(count, np.uint16), np.empty(count, np.uint8), np.empty(count, int)
    _decode3(words, _LAPS_FROM, x, y, p, t)
    return Columns(x, y, t, p, size=size, unit="us", coded=False)


@kernel()
def _decode3(words, laps_from, xs, ys, ps, ts):
    """The number of events of EVT3 words, written to the four arrays where these are long enough."""
    count, y, base, polarity = 0, 0, 0, 0
    laps, high, time, known = np.int64(0), np.int64(0), np.int64(0), False
    writes = len(ts) > 0
    for n in range(len(words)):
        word = np.int64(words[n])
        kind, value = word >> 12, word & 0xFFF
        if kind == 8:
            now = (laps << 24) + (value << 12)
            if known and high - now >= laps_from:
                laps += 1
                now += 1 << 24
            high, time, known = now, now, True
        elif kind == 6:
            time = high + value
        elif kind == 0:
            y = value & 0x7FF
        elif kind == 3:
            base, polarity = value & 0x7FF, value >> 11
        elif kind == 2 or kind == 4 or kind == 5:
            width = 12 if kind == 4 else 8 if kind == 5 else 1
            bits = 1 if kind == 2 else value & ((1 << width) - 1)
            start = value & 0x7FF if kind == 2 else base
            sign = value >> 11 if kind == 2 else polarity
            if known:  # ahead of the first word of time, no time is known
                for bit in range(width):
                    if bits >> bit & 1:
                        if writes:
                            xs[count], ys[count], ps[count], ts[count] = start + bit, y, sign, time
                        count += 1
            if kind != 2:
                base += width
    return count


def _check_kinds(kinds: np.ndarray, known: tuple[int, ...], path: Path, what: str) -> None:
    """Raise where a word is of a type that the format does not have: its words are shifted, or another's."""
    counts = np.bincount(kinds, minlength=16)
    counts[list(known)] = 0
    if counts.any():
        raise SnnError(
            f"{path}: {int(counts.sum())} of {len(kinds)} words are of no type of {what}, the first 0x"
            f"{int(np.flatnonzero(counts)[0]):X}. The file is damaged, or its header states another format than it has."
        )


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The lines of text ahead of the events, by their first word in lower case, and where they end."""
    lines: dict[str, str] = {}
    with path.open("rb") as file:
        while True:
            begin = file.tell()
            line = file.readline(10_000)
            if not line.startswith(b"%") or not line.endswith(b"\n"):
                return lines, begin
            word, _, rest = line[1:].decode("latin-1").strip().partition(" ")
            lines[word.lower()] = rest.strip()
            if word.lower() == "end":
                return lines, file.tell()


def _version(header: dict[str, str], path: Path) -> str:
    """The version of EVT that a header states: "2", "2.1", "3", ..."""
    stated = re.search(r"EVT(\d+)", header.get("format", ""))
    if stated:
        digits = stated[1]
        return digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    if found := re.fullmatch(r"(\d+)(?:\.0)?|(\d+\.\d+)", header.get("evt", "")):
        return found[1] or found[2]
    raise SnnError(
        f"{path}: a .raw file of Prophesee's begins with lines of text, one of them `% evt 3.0` or `% format EVT3`, "
        f"found {', '.join(header) or 'no such line'}. It is of another camera, or damaged."
    )


def _size(header: dict[str, str]) -> tuple[int, int] | None:
    """Width and height, where a header states them in one of three ways."""
    if found := re.fullmatch(r"(\d+)x(\d+)", header.get("geometry", "")):
        return int(found[1]), int(found[2])
    sides = {**header, **{key.lower(): value for key, value in re.findall(r"(\w+)=(\w+)", header.get("format", ""))}}
    width, height = (sides.get(side, "") for side in ("width", "height"))
    return (int(width), int(height)) if width.isdigit() and height.isdigit() else None
