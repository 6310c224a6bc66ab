"""Files of every format, written word by word as their makers document them: an independent second side of the readers.

Each writer takes a path and events, a structured array with x, y, t (microseconds) and p (0 or 1), times rising.
"""

import struct
from pathlib import Path

import h5py
import numpy as np
import scipy.io

SIZE = (640, 480)


def some_events(count: int = 500, *, size: tuple[int, int] = SIZE, seed: int = 0, until_us: int = 60_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events = np.empty(count, [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "u1")])
    events["x"], events["y"] = (rng.integers(0, length, count) for length in size)
    events["t"], events["p"] = np.sort(rng.integers(0, until_us, count)), rng.integers(0, 2, count)
    return events


def moving_bar(direction: str, rng: np.random.Generator, *, size: tuple[int, int] = (346, 260)) -> np.ndarray:
    """Events of a bar's two edges while it crosses the sensor in 200 ms, and noise."""
    (width, height), until_us, count, noise = size, 200_000, 1500, 200
    t = np.sort(rng.integers(0, until_us, count))
    forth = t * (width if direction in ("left", "right") else height) // until_us
    across = rng.integers(0, height if direction in ("left", "right") else width, count)
    x, y = (forth, across) if direction in ("left", "right") else (across, forth)
    if direction in ("left", "up"):
        x, y = (width - 1 - x, y) if direction == "left" else (x, height - 1 - y)
    events = np.empty(count + noise, [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "u1")])
    events["x"] = np.concatenate([x, rng.integers(0, width, noise)])
    events["y"] = np.concatenate([y, rng.integers(0, height, noise)])
    events["t"] = 10_000_000 + np.concatenate([t, rng.integers(0, until_us, noise)])  # the camera had been running
    events["p"] = rng.integers(0, 2, len(events))
    return np.sort(events, order="t")


def write_npy(path: Path, events: np.ndarray) -> None:
    np.save(path, events)


def write_npz(path: Path, events: np.ndarray) -> None:
    np.savez(path, ts=events["t"], x=events["x"], y=events["y"], pol=2 * events["p"].astype(int) - 1)


def write_h5(path: Path, events: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name in "xytp":
            file[f"events/{name}"] = events[name]
        file["images"] = np.zeros((3, 4))


def write_mat(path: Path, events: np.ndarray) -> None:
    struct_of_columns = {"x": events["x"], "y": events["y"], "ts": events["t"].astype(float), "p": events["p"] + 1}
    scipy.io.savemat(path, {"TD": struct_of_columns})


def write_bin(path: Path, events: np.ndarray) -> None:
    rows = bytearray()
    for event in events:
        rows += bytes([event["x"], event["y"]]) + int(event["t"] | int(event["p"]) << 23).to_bytes(3, "big")
    path.write_bytes(rows)


def write_dat(path: Path, events: np.ndarray) -> None:
    content = b"% Data file containing CD events.\n% Version 2\n% Height 480\n% Width 640\n" + bytes([0, 8])
    for x, y, t, p in events.tolist():
        content += struct.pack("<II", t, x | y << 14 | p << 28)
    path.write_bytes(content)


def write_evt2(path: Path, events: np.ndarray) -> None:
    content, high = b"% evt 2.0\n% geometry 640x480\n% end\n", -1
    for x, y, t, p in events.tolist():
        if t >> 6 != high:
            high = t >> 6
            content += struct.pack("<I", 8 << 28 | high)
        content += struct.pack("<I", p << 28 | (t & 63) << 22 | x << 11 | y)
    path.write_bytes(content)


def write_evt3(path: Path, events: np.ndarray) -> None:
    """Single events, and vectors of 12 and 8 wherever neighbours in the array stand beside each other in the row."""
    content = b"% format EVT3;height=480;width=640\n% end\n"
    high, low, row = -1, -1, -1
    rows, at = events.tolist(), 0
    while at < len(rows):
        x, y, t, p = rows[at]
        if t >> 12 & 0xFFF != high:
            high, low = t >> 12 & 0xFFF, -1
            content += struct.pack("<H", 8 << 12 | high)
        if t & 0xFFF != low:
            low = t & 0xFFF
            content += struct.pack("<H", 6 << 12 | low)
        if y != row:
            row = y
            content += struct.pack("<H", row)
        run = [rows[at]]
        while (after := at + len(run)) < len(rows) and rows[after] == (run[-1][0] + 1, y, t, p) and len(run) < 20:
            run.append(rows[after])
        if len(run) > 1:
            bits = (1 << len(run)) - 1
            content += struct.pack("<HHH", 3 << 12 | p << 11 | x, 4 << 12 | bits & 0xFFF, 5 << 12 | bits >> 12)
        else:
            content += struct.pack("<H", 2 << 12 | p << 11 | x)
        at += len(run)
    path.write_bytes(content)


def write_es(path: Path, events: np.ndarray) -> None:
    content = b"Event Stream" + bytes([2, 0, 0, 1]) + struct.pack("<HH", *SIZE)
    before = 0
    for x, y, t, p in events.tolist():
        overflows, rest = divmod(t - before, 127)
        content += b"\xff" * overflows + struct.pack("<BHH", rest << 1 | p, x, SIZE[1] - 1 - y)
        before = t
    path.write_bytes(content)


def write_aedat2(path: Path, events: np.ndarray) -> None:
    """A DAVIS346's, with a pixel's value and a trigger between the events."""
    content = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.Davis346red\r\n"
    for x, y, t, p in events.tolist():
        content += struct.pack(">II", (259 - y) << 22 | (345 - x) << 12 | p << 11, t)
    content += struct.pack(">IIII", 1 << 31 | 77, 5, 1 << 10, 6)
    path.write_bytes(content)


def write_aedat3(path: Path, events: np.ndarray) -> None:
    """Packets of 100 events; the last of each is marked as not valid, and a packet of another type lies between."""
    content = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DAVIS346\r\n#!END-HEADER\r\n"
    for begin in range(0, len(events), 99):
        part = events[begin : begin + 99].tolist()
        content += struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, len(part) + 1, len(part) + 1, len(part))
        for x, y, t, p in part:
            content += struct.pack("<Ii", x << 17 | y << 2 | p << 1 | 1, t)
        content += struct.pack("<Ii", 5 << 17, 9)
        content += struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8)
    path.write_bytes(content)


def write_csv(path: Path, events: np.ndarray) -> None:
    lines = ["polarity,x,timestamp,y"] + [f"{2 * int(p) - 1},{x},{t},{y}" for x, y, t, p in events.tolist()]
    path.write_text("\n".join(lines) + "\n")


def write_txt(path: Path, events: np.ndarray) -> None:
    path.write_text("".join(f"{t / 1e6:.6f} {x} {y} {p}\n" for x, y, t, p in events.tolist()))


WRITERS = {  # name of a format: ending, writer, and the sensor that it can hold
    "npy": (".npy", write_npy, SIZE),
    "npz": (".npz", write_npz, SIZE),
    "h5": (".h5", write_h5, SIZE),
    "mat": (".mat", write_mat, SIZE),
    "bin": (".bin", write_bin, (240, 180)),
    "aedat2": (".aedat", write_aedat2, (346, 260)),
    "aedat3": (".aedat", write_aedat3, (346, 260)),
    "evt2": (".raw", write_evt2, SIZE),
    "evt3": (".raw", write_evt3, SIZE),
    "dat": (".dat", write_dat, SIZE),
    "es": (".es", write_es, SIZE),
    "csv": (".csv", write_csv, SIZE),
    "txt": (".txt", write_txt, SIZE),
}
