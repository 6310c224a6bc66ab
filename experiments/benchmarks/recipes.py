"""Do the recipes in `experiments/` run at the size of their sets, and what do they take?

    python experiments/benchmarks/recipes.py [--whole] [NAME ...]

Each set is made up in the files of the real one: as many events a recording, addresses and times even, no sense in
them. Of each recipe a process of its own reads two batches of it and trains an epoch of them: seconds of a step, the
peak of memory beside the estimate that `train` refuses by, bytes of files and cache. Where a batch is more than this
machine can take it is smaller (`batch_here`). Figures of the whole set are extrapolated from these, and named so; with
`--whole` files and cache of the whole set are made, and their bytes and seconds measured. Linux only. Writes
experiments/results/recipes.json; no accuracy can be measured on such recordings.
"""

import argparse
import ctypes
import gc
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import snn_bp.trainer.loop  # noqa: F401 - `_train` hands its data in
from snn_bp.data import Dataset, load
from snn_bp.data.tonic_module import tonic_module
from snn_bp.files import write_json
from snn_bp.runs.experiment import Experiment
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.provenance import commit, machine, version
from snn_bp.runtime.capacity import available
from snn_bp.trainer import memory
from snn_bp.trainer.optimizer import make_optimizer, train_step

EXPERIMENTS = Path(__file__).parents[1]
RESULTS = EXPERIMENTS / "results" / "recipes.json"


def some_events(count: int, size: tuple[int, int], until_us: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Even events in the order of time."""
    x, y = (rng.integers(0, length, count) for length in size)
    return {"x": x, "y": y, "t": np.sort(rng.integers(0, until_us, count)), "p": rng.integers(0, 2, count)}


def write_bin(path: Path, events: dict[str, np.ndarray]) -> None:
    """N-MNIST's and N-Caltech101's five bytes an event."""
    t, rows = events["t"] | events["p"] << 23, np.empty((len(events["t"]), 5), np.uint8)
    for column, values in enumerate((events["x"], events["y"], t >> 16, t >> 8, t)):
        rows[:, column] = values & 255
    path.write_bytes(rows.tobytes())


def write_gesture(path: Path, events: dict[str, np.ndarray]) -> None:
    """An array [events, 4] of x, y, polarity and milliseconds, as tonic's copy of DVS Gesture has it."""
    np.save(path, np.stack([events["x"], events["y"], events["p"], events["t"] // 1000], 1).astype(np.int32))


def write_aedat4(path: Path, events: dict[str, np.ndarray]) -> None:
    """AEDAT4 without compression, one packet; the tables of its flatbuffers are laid out by hand."""
    node = '<node name="0"><attr key="typeIdentifier">EVTS</attr><node name="info">{}</node></node>'
    sizes = '<attr key="sizeX">128</attr><attr key="sizeY">128</attr>'
    words = f'<dv version="2.0"><node name="outInfo">{node.format(sizes)}</node></dv>'.encode()
    header = struct.pack("<I4sHHHHHHiII", 20, b"IOHE", 10, 8, 0, 0, 4, 0, 12, 4, len(words)) + words
    header += bytes(4 - len(header) % 4)
    rows = np.zeros(len(events["t"]), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("pad", "u1", 3)])
    for field in "txyp":
        rows[field] = events[field]
    packet = struct.pack("<I4sHHHHiII", 16, b"EVTS", 0, 6, 8, 4, 6, 4, len(rows)) + rows.tobytes()
    packet = struct.pack("<I", len(packet)) + packet
    path.write_bytes(
        b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(header)) + header + struct.pack("<II", 0, len(packet)) + packet
    )


@dataclass(frozen=True)
class Made:
    """What a made-up set is like, and how one recording of it is written."""

    parts: dict[str, int]  # recordings of each part of the whole set
    events: int  # of a recording; assumed unless the parts at hand say so
    length_us: int
    size: tuple[int, int]
    classes: tuple[str, ...]
    file: str  # of a recording, below the root; empty: rows of one file for each part
    write: Callable[[Path, dict[str, np.ndarray]], None] | None = None


DIGITS = tuple("0123456789")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SETS = {
    "nmnist": Made(
        {"Train": 60_000, "Test": 10_000}, 4100, 310_000, (34, 34), DIGITS, "NMNIST/{part}/{kind}/{n:06}.bin", write_bin
    ),
    "dvs_gesture": Made(
        {"Train": 1077, "Test": 264}, 300_000, 4_000_000, (128, 128), tuple(map(str, range(11))),
        "DVSGesture/ibmGesture{part}/user{user:02}_light{n:05}/{kind}.npy", write_gesture,
    ),
    "shd": Made({"train": 8156, "test": 2264}, 8000, 1_000_000, (700, 1), tuple(f"word {n}" for n in range(20)), ""),
    "tonic:SSC": Made(
        {"train": 75_466, "valid": 9981, "test": 20_382}, 8000, 1_000_000, (700, 1),
        tuple(f"word {n}" for n in range(35)), "",
    ),
    "tonic:CIFAR10DVS": Made(
        {"": 10_000}, 200_000, 1_300_000, (128, 128), THINGS, "CIFAR10DVS/{kind}/cifar10_{n}.aedat4", write_aedat4
    ),
    "tonic:NCALTECH101": Made(
        {"": 8709}, 100_000, 300_000, (240, 180), tuple(f"thing {n:03}" for n in range(101)),
        "NCALTECH101/Caltech101/{kind}/image_{n:04}.bin", write_bin,
    ),
}  # fmt: skip
USERS = 10  # who are recorded, or speak


def write_set(name: str, root: Path, counts: dict[str, int], *, events: int | None = None, seed: int = 0) -> int:
    """Write so many recordings of each part of a set, classes in turn; gives the bytes of the files."""
    made, rng, total = SETS[name], np.random.default_rng(seed), 0
    for part, count in counts.items():
        each = (some_events(events or made.events, made.size, made.length_us, rng) for _ in range(count))
        if made.write is None:
            total += _write_rows(root / name.removeprefix("tonic:").upper(), part, count, each, made.classes)
            continue
        for number, recording in enumerate(each):
            kind, user = made.classes[number % len(made.classes)], number // len(made.classes) % USERS + 1
            path = root / made.file.format(part=part, kind=kind, n=number, user=user)
            path.parent.mkdir(parents=True, exist_ok=True)
            made.write(path, recording)
            total += path.stat().st_size
    return total


def _write_rows(folder: Path, part: str, count: int, each: Any, classes: tuple[str, ...]) -> int:
    """A part in one file of SHD's schema."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{folder.name.lower()}_{part}.h5"
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (count,), h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (count,), h5py.vlen_dtype(np.uint16))
        for number, events in enumerate(each):
            times[number], units[number] = (events["t"] / 1e6).astype(np.float16), events["x"].astype(np.uint16)
        file["labels"] = np.arange(count) % len(classes)
        file["extra/speaker"] = np.arange(count) // len(classes) % USERS
        file["extra/keys"] = [name.encode() for name in classes]
    return path.stat().st_size


# recipe: the batch that this machine takes where its own is too large, and the parameters that are published
RECIPES: dict[str, dict[str, Any]] = {
    "nmnist_mlp": {},
    "nmnist": {},
    "dvs_gesture": {},
    "dvs_gesture_gpu": {"batch": 1, "published": "1.7 M"},
    "shd_lif": {},
    "shd_recurrent": {"published": "108.8 k"},
    "shd": {},
    "shd_delays": {"batch": 32, "published": "0.20 M"},
    "ssc": {"batch": 16, "published": "1.6 M"},
    "cifar10_dvs": {"batch": 2},
    "ncaltech101": {"batch": 2},
}


def recipe(name: str, root: Path) -> Experiment:
    """The experiment of a file, reading below `root`, one epoch of it."""
    experiment = read_file(EXPERIMENTS / f"{name}.py")
    return replace(experiment, data=replace(experiment.data, root=str(root)), train=replace(experiment.train, epochs=1))


def counts_for(experiment: Experiment, batch: int) -> dict[str, int]:
    """Recordings of each part that make at least two batches to train on and one of each other split."""
    made, data = SETS[experiment.data.name], experiment.data
    few = max(4 * batch, USERS * len(made.classes) if data.split_by == "group" else 3 * len(made.classes))
    return {part: min(few, count) for part, count in made.parts.items()}


def measured(name: str, *, whole: bool) -> dict[str, Any]:
    """What one recipe takes here."""
    known = RECIPES[name]
    with tempfile.TemporaryDirectory(dir=os.environ.get("SNN_BP_BENCHMARK")) as folder:
        root = Path(folder)
        os.environ["SNN_BP_CACHE"] = str(root / "cache")
        full = recipe(name, root / "data")
        batch = known.get("batch", full.data.batch)
        made = SETS[full.data.name]
        counts = made.parts if whole else counts_for(full, batch)
        began = time.monotonic()
        files = write_set(full.data.name, root / "data", counts)
        wrote = time.monotonic() - began
        tonic_module("tonic.datasets")  # which takes seconds to import
        used = time.process_time()
        dataset = load(full.data, quiet=True)
        read, recordings = time.process_time() - used, sum(counts.values())
        cached = sum(file.stat().st_size for file in (root / "cache").rglob("*") if file.is_file())
        shutil.rmtree(root / "data")
        here = replace(full, data=replace(full.data, batch=batch))
        few = few_of(replace(dataset, data=here.data))
        row = taken(here, few)
        seconds, memory_mb = row["step_s"], row["peak_mb"]
        ofall, scale = sum(made.parts.values()), sum(made.parts.values()) / recordings
        learned = round(made.parts.get("Train", made.parts.get("train", ofall)) * training_fraction(full))
        return {
            "set": full.data.name, "recordings": made.parts, "events_of_each": made.events,
            "input": [dataset.steps, *dataset.shape], "step_ms": full.data.step_ms, "batch": full.data.batch,
            "parameters": row["parameters"], "published_parameters": known.get("published"),
            "estimate_mb": memory.estimate(full, as_whole(dataset, full)).total / 2**20,
            "batch_here": batch, "estimate_here_mb": row["estimate_mb"], "peak_here_mb": memory_mb,
            "step_here_s": seconds, "step_here_cpu_s": row["step_cpu_s"], "frames_of_a_batch_s": row["frames_s"],
            "epoch_extrapolated_cpu_s": row["step_cpu_s"] * learned / batch, "threads": torch.get_num_threads(),
            "load_average": os.getloadavg()[0],
            "read": {"recordings": recordings, "whole": whole, "write_s": wrote, "read_cpu_s": read,
                     "files_mb": files / 2**20, "cache_mb": cached / 2**20},
            "whole_extrapolated": {"read_cpu_s": read * scale, "files_mb": files * scale / 2**20,
                                   "cache_mb": cached * scale / 2**20},
        }  # fmt: skip


def training_fraction(experiment: Experiment) -> float:
    """The fraction of the training part that is learned from."""
    data = experiment.data
    own = any(part == "valid" for part in SETS[data.name].parts)
    return (1 - data.test_fraction) * (1 if own else 1 - data.validation_fraction)


def few_of(dataset: Dataset) -> Dataset:
    """Two batches for training, one for each other split."""
    batch = dataset.data.batch
    return replace(dataset, ids={split: ids[: batch * (1 + (split == "train"))] for split, ids in dataset.ids.items()})


def as_whole(dataset: Dataset, experiment: Experiment) -> Dataset:
    """The data set as if it had a whole batch, for an estimate."""
    ids = np.resize(dataset.ids["train"], experiment.data.batch)
    return replace(dataset, data=experiment.data, ids={**dataset.ids, "train": ids})


def taken(experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    """Peak and estimate of a training in MB, and the seconds of a step once all is compiled."""
    network = experiment.network(dataset.shape)
    parameters = sum(weight.numel() for weight in network.parameters())
    ids = dataset.batches("train", seed=experiment.seed)[0]
    optimizer = make_optimizer(network, experiment.train)
    times = []
    for _ in range(3):
        began = time.monotonic()
        x, targets = dataset.batch("train", ids, seed=1, in_bytes=True)
        made, used = time.monotonic(), time.process_time()
        train_step(network, optimizer, x, targets, experiment.train)
        times.append((made - began, time.monotonic() - made, time.process_time() - used))
    frames, step, cpu = (min(each) for each in zip(*times[1:], strict=True))
    del network, optimizer, x, targets
    short = replace(dataset.data, steps=3, batch=4)
    _train(replace(experiment, data=short), few_of(replace(dataset, data=short)))
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    peak = peak_of(lambda: _train(experiment, dataset)) / 2**20
    guess = memory.estimate(experiment, dataset).total / 2**20
    return {"parameters": parameters, "peak_mb": peak, "estimate_mb": guess, "step_s": step, "step_cpu_s": cpu,
            "frames_s": frames}  # fmt: skip


def _train(experiment: Experiment, dataset: Dataset) -> None:
    loop = sys.modules["snn_bp.trainer.loop"]
    loop.load = lambda *_, **__: dataset  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        loop.train(experiment, Path(folder) / "run", quiet=True)


def peak_of(run: Callable[[], None]) -> int:
    """The most bytes that the process takes beyond what it had, without the pages of mapped files."""
    before, most, done = _anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.003):
            most = max(most, _anonymous())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        run()
    finally:
        done.set()
        watching.join()
    return most - before


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def main() -> None:
    """Measure, print and write; what is measured of some of the recipes replaces their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(RECIPES))
    parser.add_argument("--whole", action="store_true", help="make files and cache of the whole set")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.names[0], whole=given.whole)))
        return
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    for name in given.names or list(RECIPES):
        asked = [sys.executable, __file__, "--one", name, *(["--whole"] if given.whole else [])]
        row = json.loads(subprocess.run(asked, capture_output=True, check=True, text=True).stdout.splitlines()[-1])
        rows[name] = {**row, "date": time.strftime("%Y-%m-%d"), "commit": commit()}
        print(f"{name:16} step of {row['batch_here']} {row['step_here_cpu_s']:.2f} s, {row['peak_here_mb']:.0f} MB of "
              f"{row['estimate_here_mb']:.0f} estimated", flush=True)  # fmt: skip
        versions = {each: version(each) for each in ("snn_bp", "torch", "numpy", "numba", "tonic", "h5py")}
        write_json(RESULTS, {"machine": machine(), "memory_mb": (available() or 0) / 2**20, "versions": versions,
                             "rows": {key: rows[key] for key in RECIPES if key in rows}})  # fmt: skip


if __name__ == "__main__":
    main()
