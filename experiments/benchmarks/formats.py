"""Are events of files of every format those that other readers see, and how long does a file of 100 MB take?

Real files of `shared/data/formats` (or the folder in SNN_BP_SHARED) are read by `read_events` and by a second reader:
expelliarmus, tonic, evt3, faery, dv-processing, scipy or NumPy. Where no real file with events is at hand (AEDAT 2 and
3.1), one is written word by word. Files of 100 MB hold events drawn at random, times rising.

    pip install 'snn_bp[formats]' evt3 faery dv-processing
    python experiments/benchmarks/formats.py

writes experiments/results/formats.json. A second reader that is not installed is named there as missing.
"""

import argparse
import datetime
import importlib
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.data.formats import read_events

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "experiments" / "results" / "formats.json"
SAMPLES = Path(os.environ.get("SNN_BP_SHARED") or ROOT.parent / "shared" / "data") / "formats"
SIZE = (1280, 720)
LARGE = 100 * 2**20
Columns = tuple[Any, Any, Any, Any]  # t, x, y, p


def expelliarmus(path: Path) -> Columns:
    encoding = "dat" if path.suffix == ".dat" else "evt2"
    found = importlib.import_module("expelliarmus").Wizard(encoding=encoding).read(path)
    return found["t"], found["x"], found["y"], found["p"]


def evt3(path: Path) -> Columns:
    found = importlib.import_module("evt3").decode_file(str(path))
    return found.timestamp, found.x, found.y, found.polarity


def faery(path: Path) -> Columns:
    found = importlib.import_module("faery").events_stream_from_file(str(path)).to_array()
    return found["t"], found["x"], found["y"], found["on"]


def dv_processing(path: Path) -> Columns:
    reader = importlib.import_module("dv_processing").io.MonoCameraRecording(str(path))
    parts = []
    while reader.isRunning() and (batch := reader.getNextEventBatch()) is not None:
        parts.append(batch.numpy())
    found = np.concatenate(parts)
    return found["timestamp"], found["x"], found["y"], found["polarity"]


def tonic_bin(path: Path) -> Columns:
    found = importlib.import_module("tonic.io").read_mnist_file(str(path), np.dtype([(name, int) for name in "xytp"]))
    return found["t"], found["x"], found["y"], found["p"]


def tonic_davis(path: Path) -> Columns:
    _, _, found = importlib.import_module("tonic.io").read_davis_346(str(path))
    return found["t"], found["x"], found["y"], found["p"]


def scipy_mat(path: Path) -> Columns:
    """ST-MNIST: taxel by taxel, then put in order of time and taxel."""
    matrix = importlib.import_module("scipy.io").loadmat(str(path))["spiketrain"]
    rows = [(round(matrix[-1, n] * 1e6), n, taxel, matrix[taxel, n] > 0)
            for taxel in range(100) for n in np.flatnonzero(matrix[taxel])]  # fmt: skip
    rows.sort(key=lambda row: (row[1], row[2]))
    t, _, taxels, p = np.array(rows).T
    return t, taxels % 10, taxels // 10, p


def numpy_text(path: Path) -> Columns:
    t, x, y, p = np.genfromtxt(path).T
    return np.rint(t * 1e6), x, y, p


def numpy_npy(path: Path) -> Columns:
    found = np.load(path)
    return found["t"], found["x"], found["y"], found["p"]


PAIRS: tuple[tuple[str, Callable[[Path], Columns], str], ...] = (
    ("evt2_sample.raw", expelliarmus, "expelliarmus"), ("evt2_sample.raw", faery, "faery"),
    ("faery_evt2.raw", expelliarmus, "expelliarmus"), ("faery_evt2.raw", faery, "faery"),
    ("evt3_sample.raw", evt3, "evt3"), ("evt3_sample.npy", numpy_npy, "numpy"),
    ("NCARS_obj_004397_td.dat", expelliarmus, "expelliarmus"), ("tonic_sample_ncars.dat", expelliarmus, "expelliarmus"),
    ("faery_dvs.es", faery, "faery"), ("tonic_sample.aedat4", dv_processing, "dv-processing"),
    ("tonic_sample.aedat4", faery, "faery"), ("tonic_sample_nmnist.bin", tonic_bin, "tonic"),
    ("tonic_sample_stmnist.mat", scipy_mat, "scipy"), ("slider_depth_events_chunk.txt", numpy_text, "numpy"),
    ("written davis346.aedat", tonic_davis, "tonic"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares readers of events, and times files of 100 MB.")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "question": "events of files against a second reader's, and seconds for a file of 100 MB",
            "command": "python experiments/benchmarks/formats.py",
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": _commit(),
            "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform()},
            "versions": dict(_versions()),
            "python": platform.python_version(),
            "equal": [compare(name, read, reader, Path(folder)) for name, read, reader in PAIRS],
            "evt3_against_its_decoded_file": against_decoded(),
            "large": list(timed(Path(folder))),
        }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in ("equal", "evt3_against_its_decoded_file", "large")}, indent=1))
    if not all(case["equal"] for case in result["equal"]):
        sys.exit("some events differ")


def compare(name: str, second: Callable[[Path], Columns], reader: str, folder: Path) -> dict[str, Any]:
    """Whether time, address and polarity of every event are the second reader's."""
    path = _written_davis(folder) if name.startswith("written") else SAMPLES / name
    ours = read_events(path)
    try:
        theirs = second(path)
    except ImportError as cause:
        return {"file": name, "reader": reader, "equal": None, "missing": str(cause)}
    pairs = [(ours[field], np.asarray(column)) for field, column in zip("txyp", theirs, strict=True)]
    equal = all(np.array_equal(mine.astype(np.int64), other.astype(np.int64)) for mine, other in pairs)
    return {"file": name, "reader": reader, "events": len(ours), "equal": equal}


def against_decoded() -> dict[str, bool]:
    """The decoded file beside the EVT3 sample: its addresses are ours; its times count laps that the clock has not."""
    ours, decoded = read_events(SAMPLES / "evt3_sample.raw"), read_events(SAMPLES / "evt3_sample.npy")
    return {field: bool(np.array_equal(ours[field], decoded[field])) for field in "xypt"}


def timed(folder: Path) -> Iterator[dict[str, Any]]:
    """Seconds by the clock and of computing for files of 100 MB, each read twice: the first may compile a kernel."""
    for name, write in LARGE_FILES.items():
        path = folder / name
        write(path)
        seconds, computing = [], []
        for _ in range(2):
            start, busy = time.perf_counter(), time.process_time()
            events = read_events(path)
            seconds.append(round(time.perf_counter() - start, 2))
            computing.append(round(time.process_time() - busy, 2))
        size = round(path.stat().st_size / 2**20)
        yield {"file": name, "megabytes": size, "events": len(events), "s": seconds, "computing_s": computing}
        path.unlink()


def drawn(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    events = np.empty(count, [("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
    events["t"] = np.cumsum(rng.integers(0, 3, count))
    events["x"], events["y"], events["p"] = (rng.integers(0, n, count) for n in (*SIZE, 2))
    return events


def large_npy(path: Path) -> None:
    np.save(path, drawn(LARGE // 13))


def large_h5(path: Path) -> None:
    events = drawn(LARGE // 13)
    with importlib.import_module("h5py").File(path, "w") as file:
        for name in "txyp":
            file[f"events/{name}"] = events[name]


def large_txt(path: Path) -> None:
    events = drawn(LARGE // 17)
    with path.open("w") as file:
        for begin in range(0, len(events), 100_000):
            file.writelines(f"{t} {x} {y} {p}\n" for t, x, y, p in events[begin : begin + 100_000].tolist())


def large_dat(path: Path) -> None:
    events = drawn(LARGE // 8)
    address = events["x"].astype(np.uint32) | events["y"].astype(np.uint32) << 14 | events["p"].astype(np.uint32) << 28
    words = np.stack([events["t"].astype(np.uint32), address], 1)
    path.write_bytes(b"% Version 2\n" + bytes([0, 8]) + words.tobytes())


def large_evt2(path: Path) -> None:
    events = drawn(LARGE // 8)
    words = np.empty((len(events), 2), np.uint32)
    words[:, 0] = 8 << 28 | events["t"] >> 6
    words[:, 1] = (
        events["p"].astype(np.int64) << 28 | (events["t"] & 63) << 22 | events["x"].astype(np.int64) << 11 | events["y"]
    )
    path.write_bytes(b"% evt 2.0\n" + words.tobytes())


def large_evt3(path: Path) -> None:
    events = drawn(LARGE // 8)
    words = np.empty((len(events), 4), np.uint16)
    words[:, 0], words[:, 1] = 8 << 12 | events["t"] >> 12 & 0xFFF, 6 << 12 | events["t"] & 0xFFF
    words[:, 2], words[:, 3] = events["y"], 2 << 12 | events["p"].astype(int) << 11 | events["x"]
    path.write_bytes(b"% evt 3.0\n" + words.tobytes())


def large_es(path: Path) -> None:
    events = drawn(LARGE // 5)
    rows = np.empty((len(events), 5), np.uint8)
    rows[:, 0] = np.diff(events["t"], prepend=0) << 1 | events["p"]
    rows[:, 1:3], rows[:, 3:5] = (_bytes(events[name]) for name in "xy")
    path.write_bytes(b"Event Stream" + bytes([2, 0, 0, 1]) + struct.pack("<HH", *SIZE) + rows.tobytes())


LARGE_FILES: dict[str, Callable[[Path], None]] = {
    "large.npy": large_npy, "large.h5": large_h5, "large.dat": large_dat, "evt2.raw": large_evt2,
    "evt3.raw": large_evt3, "large.es": large_es, "large.txt": large_txt,
}  # fmt: skip


def _bytes(column: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(column).view(np.uint8).reshape(-1, 2)


def _written_davis(folder: Path) -> Path:
    events = drawn(5000)
    x, y = events["x"].astype(np.int64) % 346, events["y"].astype(np.int64) % 260
    words = np.stack([(259 - y) << 22 | (345 - x) << 12 | events["p"].astype(np.int64) << 11, events["t"]], 1).astype(
        ">u4"
    )
    header = b"#!AER-DAT2.0\r\n# AEChip: Davis346red\r\n# Creation time: System.currentTimeMillis() 1695355587880\r\n"
    (path := folder / "davis346.aedat").write_bytes(header + words.tobytes())
    return path


def _versions() -> Iterator[tuple[str, str]]:
    for name in ("snn_bp", "numpy", "tonic", "expelliarmus", "evt3", "faery", "dv-processing", "aedat", "scipy"):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "missing"


def _commit() -> str:
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "none"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
