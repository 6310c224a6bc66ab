"""AEDAT: versions 2 and 3.1 (jAER, cAER) are read here, version 4 (DV) by the package aedat.

Layouts as iniVation documents them (docs.inivation.com, "AEDAT file formats"). Version 4 is compressed flatbuffers;
aedat (MIT, wheels for every Python of today) reads them.
"""

import re
from pathlib import Path

import numpy as np

from snn_bp.data.formats.columns import Columns, Layout, cut_short
from snn_bp.errors import SnnError

_PACKET = np.dtype([("kind", "<i2"), ("source", "<i2"), ("size", "<i4"), ("time_at", "<i4"), ("laps", "<i4"),
                    ("capacity", "<i4"), ("number", "<i4"), ("valid", "<i4")])  # fmt: skip
_CHIPS = {  # version 2: chip's name, and how its addresses are laid out
    "dvs128": (128, 128),
    "davis240": (240, 180),
    "davis346": (346, 260),
    "davis128": (128, 128),
    "davis640": (640, 480),
}


def read_aedat4(path: Path, layout: Layout) -> Columns:
    """Events of a file of DV's, of its first stream of events."""
    try:
        import aedat  # pyright: ignore[reportMissingImports] - an extra: only these files need it
    except ImportError:
        raise SnnError(f"{path}: AEDAT4 is read by the package aedat. pip install 'snn_bp[formats]'") from None
    decoder = aedat.Decoder(str(path))
    streams = {number: stream for number, stream in decoder.id_to_stream().items() if stream["type"] == "events"}
    if not streams:
        raise SnnError(f"{path}: it holds no stream of events.")
    first = min(streams)
    if len(streams) > 1:
        raise SnnError(f"{path}: it holds {len(streams)} streams of events, of several cameras. Write each to a file.")
    packets = [packet["events"] for packet in decoder if packet["stream_id"] == first]
    size = int(streams[first]["width"]), int(streams[first]["height"])
    if not packets:
        nothing = np.empty(0, np.int64)
        return Columns(nothing, nothing, nothing, nothing, size=size, unit="us", coded=False)
    events = np.concatenate(packets)
    return Columns(events["x"], events["y"], events["t"], events["on"], size=size, unit="us", coded=False)


def read_aedat(path: Path, layout: Layout) -> Columns:
    """Events of a file of version 2 or 3.1."""
    version, header, begin = _header(path)
    content = np.fromfile(path, np.uint8, offset=begin)
    if version.startswith("2"):
        return _version_2(content, header, path)
    if version == "3.1":
        return _version_3(content, header, path)
    raise SnnError(
        f"{path}: it is AEDAT {version}; versions 2, 3.1 and 4 (.aedat4) are read. Convert it by DV or jAER."
    )


def _version_2(content: np.ndarray, header: str, path: Path) -> Columns:
    """Pairs of address and time, 32 bits each, big-endian; the address is laid out as the chip has it."""
    if len(content) % 8:
        raise cut_short(path, f"an event has 8 bytes, found {len(content)} bytes of events")
    words = content.view(">u4").reshape(-1, 2)
    address, t = words[:, 0].astype(np.uint32), words[:, 1].astype(np.int64)
    named = re.search(r"AEChip:\s*(\S+)", header)
    chip = named[1].rpartition(".")[2].lower() if named else "dvs128"  # jAER's own, older files name none
    known = [name for name in _CHIPS if name in chip]
    if not known:
        raise SnnError(
            f"{path}: its chip is {named[1] if named else ''}; known are {', '.join(_CHIPS)}. Convert it by jAER."
        )
    width, height = size = _CHIPS[known[0]]
    if known[0] == "dvs128":
        is_event, x, y, off = address < 2**15, address >> 1 & 0x7F, address >> 8 & 0x7F, address & 1
        x, p = width - 1 - x, 1 - off  # jAER counts from the right, and its bit says OFF
    else:
        is_event = (address >> 31 == 0) & (address >> 10 & 1 == 0)  # the rest are pixels' values, motion and triggers
        x, y, p = width - 1 - (address >> 12 & 0x3FF), address >> 22 & 0x1FF, address >> 11 & 1
    y = height - 1 - y  # and from below
    return Columns(x[is_event], y[is_event], t[is_event], p[is_event], size=size, unit="us", coded=False)


def _version_3(content: np.ndarray, header: str, path: Path) -> Columns:
    """Packets of 28 bytes of header; in those of polarities (type 1) an event is address and time, little-endian."""
    found, at = [], 0
    while at < len(content):
        if at + _PACKET.itemsize > len(content):
            raise cut_short(path, "it ends within the header of a packet")
        packet = content[at : at + _PACKET.itemsize].view(_PACKET)[0]
        length, begin = int(packet["size"]) * int(packet["capacity"]), at + _PACKET.itemsize
        if length < 0 or packet["number"] > packet["capacity"] or packet["kind"] < 0:
            raise SnnError(f"{path}: the packet at byte {at} of its events has no sound header. The file is damaged.")
        if begin + length > len(content):
            raise cut_short(path, "it ends within a packet")
        if packet["kind"] == 1:
            words = content[begin : begin + length].view("<u4").reshape(-1, 2)[: int(packet["number"])]
            found.append((words[:, 0], words[:, 1].astype(np.int64) + (int(packet["laps"]) << 31)))
        at = begin + length
    address = np.concatenate([part for part, _ in found]) if found else np.empty(0, np.uint32)
    t = np.concatenate([part for _, part in found]) if found else np.empty(0, np.int64)
    valid = address & 1 == 1
    address, t = address[valid], t[valid]
    named = re.search(r"#Source \d+: *(\w+)", header)
    size = next((_CHIPS[name] for name in _CHIPS if named and name in named[1].lower()), None)
    return Columns(address >> 17, address >> 2 & 0x7FFF, t, address >> 1 & 1, size=size, unit="us", coded=False)


def _header(path: Path) -> tuple[str, str, int]:
    """The version, the lines of text, and where the events begin."""
    lines = []
    with path.open("rb") as file:
        first = file.readline(100).decode("latin-1")
        found = re.match(r"#!AER-DAT(\d+(?:\.\d+)?)", first)
        if not found:
            raise SnnError(f"{path}: an .aedat file begins with #!AER-DAT and its version, found {first[:20]!r}.")
        version = found[1].removesuffix(".0")
        while True:
            begin = file.tell()
            line = file.readline(100_000)
            if not line.startswith(b"#"):
                return version, "\n".join(lines), begin
            lines.append(line.decode("latin-1").strip())
            if version.startswith("3") and lines[-1].startswith("#!END-HEADER"):
                return version, "\n".join(lines), file.tell()
