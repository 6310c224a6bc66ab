"""Event Stream, `.es`: one byte of time and polarity, four of address (github.com/neuromorphicsystems/event_stream)."""

from pathlib import Path

import numpy as np

from snn_bp.data.formats.columns import Columns, Layout, cut_short
from snn_bp.errors import SnnError
from snn_bp.kernels.lazy import kernel

_KINDS = {0: "generic", 1: "dvs", 2: "atis", 4: "color"}
_HEADER = 20  # signature, version, type, width, height


def read_es(path: Path, layout: Layout) -> Columns:
    """Events of change of a file of version 2, from a DVS or an ATIS."""
    content = np.fromfile(path, np.uint8)
    if content[:12].tobytes() != b"Event Stream" or len(content) < _HEADER:
        raise SnnError(f"{path}: an .es file begins with 'Event Stream', its version and its size; this one does not.")
    version, kind = content[12:15].tolist(), _KINDS.get(int(content[15]), "unknown")
    if version[0] != 2 or kind not in ("dvs", "atis"):
        raise SnnError(
            f"{path}: version 2 of the types dvs and atis is read, found version {'.'.join(map(str, version))} of the "
            f"type {kind}."
        )
    width, height = content[16:20].view("<u2").tolist()
    none, times = np.empty(0, np.uint16), np.empty(0, np.int64)
    count, rest = _decode(content[_HEADER:], kind == "atis", none, none, none, times)
    if rest:
        raise cut_short(path, "it ends within an event")
    x, y, p, t = (
        np.empty(count, np.uint16),
        np.empty(count, np.uint16),
        np.empty(count, np.uint16),
        np.empty(count, int),
    )
    _decode(content[_HEADER:], kind == "atis", x, y, p, t)
    y = height - 1 - y.astype(np.int32)  # these files count from the lower edge
    return Columns(x, y, t, p, size=(width, height), unit="us", coded=False)


@kernel()
def _decode(content, is_atis, xs, ys, ps, ts):
    """The number of events, and of bytes behind the last whole one; events are written where the arrays have room."""
    count, time, at, writes = 0, np.int64(0), 0, len(ts) > 0
    while at < len(content):
        byte = np.int64(content[at])
        is_change = True
        if is_atis:
            if byte & 0xFC == 0xFC:  # no event: time passes
                time += 63 * (byte & 3)
                at += 1
                continue
            time_step, polarity, is_change = byte >> 2, byte >> 1 & 1, byte & 1 == 0
        else:
            if byte >= 0xFE:
                time += 127 * (byte == 0xFF)
                at += 1
                continue
            time_step, polarity = byte >> 1, byte & 1
        if at + 5 > len(content):
            return count, len(content) - at
        time += time_step
        if is_change:
            if writes:
                xs[count] = np.int64(content[at + 1]) | np.int64(content[at + 2]) << 8
                ys[count] = np.int64(content[at + 3]) | np.int64(content[at + 4]) << 8
                ps[count], ts[count] = polarity, time
            count += 1
        at += 5
    return count, 0
