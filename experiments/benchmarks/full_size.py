"""Does a training wait for its recordings where a set has its full size, and does memory stay within the estimate?

    python experiments/benchmarks/full_size.py [--share 0.02] [--folder DIR]

makes sets of the shape and size of DVS128 Gesture (1,077 recordings of 300,000 events) and of SHD (8,156 recordings of
8,000 spikes in the mean), of noise, in a temporary folder (10 GB; DIR says where). Each is built into an empty cache by
a process of its own, and into another by one that is killed by SIGKILL halfway and one that goes on. Then processes of
their own train the network of experiments/dvs_gesture.py and shd.py for three epochs: with batches read ahead and
without, with the cache's files dropped from memory before each epoch ("cold"; how much was left is recorded) or in
it. What is read from disk is what the system says that this process had read. Memory is what is anonymous, sampled
every 5 ms, beyond what the process held behind a small training that compiled everything; pages of mapped files, which
the system takes back when it needs to, are not. Linux only. With the whole share it writes
experiments/results/full_size.json.
"""

import argparse
import ctypes
import gc
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from snn_bp.data import Dataset, load
from snn_bp.data.cache import cache_folder
from snn_bp.files import write_json
from snn_bp.runs.experiment import Experiment
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.folder import Run
from snn_bp.runs.provenance import machine, version
from snn_bp.trainer import memory
from snn_bp.trainer.loop import training

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "full_size.json"
EPOCHS = 3
GESTURES, EVENTS, LONG_MS, USERS = 1077, 300_000, 6000, 24
DIGITS, SPIKES, SPEAKERS, CLASSES = 8156, 8000, 10, 20


def main() -> None:
    """Make, build, train, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the recordings of both sets")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--only", choices=("dvs_gesture", "shd"))
    asked = parser.parse_args()
    rows = {}
    for name, make in (("dvs_gesture", make_gestures), ("shd", make_digits)):
        if asked.only in (None, name):
            with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
                rows[name] = measured(name, make, Path(folder), asked.share)
    if asked.share == 1 and asked.only is None:
        versions = {name: version(name) for name in ("snn_bp", "torch", "numba", "numpy", "h5py")}
        about = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions}
        write_json(RESULTS, about | {"sets": rows})


def measured(name: str, make: Callable[[Path, float], None], folder: Path, share: float) -> dict[str, Any]:
    """All figures of a set."""
    began = time.monotonic()
    make(folder / "data", share)
    row: dict[str, Any] = {"made_s": time.monotonic() - began, "bytes": _bytes(folder / "data")}
    print(f"{name}: {row['bytes'] / 2**30:.2f} GB made in {row['made_s']:.1f} s", flush=True)
    whole = _asked("build", name, folder, cache="anew")
    killed = _killed(name, folder, after_s=whole["seconds"] / 2)
    gone_on = _asked("build", name, folder, cache="cache")
    assert whole["sha256"] == gone_on["sha256"], "a build that goes on gives the same events"
    row["build"] = whole | {"killed_after_s": killed, "then_s": gone_on["seconds"]}
    row["build"]["events_per_s"] = whole["events"] / whole["seconds"]
    print(f"{name}: built in {whole['seconds']:.1f} s ({whole['cached_bytes'] / 2**30:.2f} GB), "
          f"{whole['peak_mb']:.0f} MB of memory; killed after {killed:.1f} s, then {gone_on['seconds']:.1f} s",
          flush=True)  # fmt: skip
    row["epochs"] = []
    for ahead in (False, True):
        for cold in (True, False):
            found = _asked("epochs", name, folder, cache="cache", ahead=ahead, cold=cold)
            row["epochs"].append({"read_ahead": ahead, "cold": cold, **found})
            both = zip(found["waited_s"], found["seconds"], strict=True)
            waits = ", ".join(f"{waited / seconds:.1%}" for waited, seconds in both)
            print(f"{name}: {'read ahead' if ahead else 'not ahead '} {'cold' if cold else 'warm'}  "
                  f"step {1000 * found['step_s']:.1f} ms, waiting {found['waiting']:.1%} ({waits}), "
                  f"{found['read_mb'] / EPOCHS:.0f} MB read an epoch, opened in {found['opened_s']:.1f} s, "
                  f"{found['peak_mb']:.0f} MB of memory taken, {found['estimate_mb']:.0f} MB estimated",
                  flush=True)  # fmt: skip
    return row


def make_gestures(root: Path, share: float) -> None:
    """Clips as tonic's class of DVS Gesture has them, tables of x, y, p and t in milliseconds."""
    times = np.linspace(0, LONG_MS, EVENTS, endpoint=False).astype(np.int32)
    for part, count in (("ibmGestureTrain", GESTURES), ("ibmGestureTest", 11)):
        for number in range(max(44, round(share * count)) if count == GESTURES else count):
            rng = np.random.default_rng((count, number))
            table = np.empty((EVENTS, 4), np.int32)
            table[:, 0], table[:, 1] = rng.integers(0, 128, (2, EVENTS), np.uint8)
            table[:, 2], table[:, 3] = rng.integers(0, 2, EVENTS, np.uint8), times
            clip, take = number % 11, number // 11
            file = root / "DVSGesture" / part / f"user{take % USERS + 1:02}_light{take // USERS}" / f"{clip}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, table)


def make_digits(root: Path, share: float) -> None:
    """Files of SHD's schema."""
    for part, count in (("train", max(200, round(share * DIGITS))), ("test", 100)):
        rng = np.random.default_rng(count)
        (root / "SHD").mkdir(parents=True, exist_ok=True)
        with h5py.File(root / "SHD" / f"shd_{part}.h5", "w") as file:
            lengths = rng.normal(SPIKES, SPIKES / 3, count).clip(SPIKES / 8, 3 * SPIKES).astype(int)
            times = file.create_dataset("spikes/times", (count,), h5py.vlen_dtype(np.float16))
            units = file.create_dataset("spikes/units", (count,), h5py.vlen_dtype(np.uint16))
            for n, length in enumerate(lengths.tolist()):
                times[n] = np.sort(rng.random(length, np.float32)).astype(np.float16)
                units[n] = rng.integers(0, 700, length, np.uint16)
            file["labels"] = np.arange(count, dtype=np.uint16) % CLASSES
            file["extra/speaker"] = np.arange(count, dtype=np.uint16) // CLASSES % SPEAKERS
            file["extra/keys"] = [f"class {number}".encode() for number in range(CLASSES)]


def build(experiment: Experiment) -> dict[str, Any]:
    """Seconds of a build, and what came out."""
    began = time.monotonic()
    with _peak() as peak:
        part = load(experiment.data, quiet=True).parts["train"]
    return {
        "seconds": time.monotonic() - began, "peak_mb": peak[0] / 2**20, "cached_bytes": _bytes(cache_folder()),
        "recordings": len(part), "events": len(part.events.t), "sha256": part.sha256,  # type: ignore[union-attr]
    }  # fmt: skip


def epochs(experiment: Experiment, *, cold: bool) -> dict[str, Any]:
    """Seconds and memory of some epochs of training, validation at their ends included."""
    small = load(experiment.data, quiet=True)
    ids = {split: each[: 2 if split == "train" else 1] for split, each in small.ids.items()}
    short, experiment = (replace(experiment, train=replace(experiment.train, epochs=count, test="never"))
                         for count in (1, EPOCHS))  # fmt: skip
    _train(short, replace(small, ids=ids))
    if cold:
        _drop(small)
    else:
        for each in _mapped(small):
            np.add.reduce(each)  # reads it all
    del small
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    left, read, began = _in_memory(), _read(), time.monotonic()
    with _peak() as peak:
        dataset = load(experiment.data, quiet=True)
        opened_s = time.monotonic() - began
        rows = _train(experiment, dataset, behind_epoch=_drop if cold else None)
    seconds, waited = ([row[name] for row in rows] for name in ("seconds", "wait_seconds"))
    steps = len(dataset.batches("train"))
    return {
        "steps": steps, "seconds": seconds, "waited_s": waited, "step_s": sum(seconds) / EPOCHS / steps,
        "waiting": sum(waited) / sum(seconds), "opened_s": opened_s, "left_in_memory_mb": left / 2**20,
        "read_mb": (_read() - read) / 2**20, "peak_mb": peak[0] / 2**20,
        "estimate_mb": memory.estimate(experiment, dataset).total / 2**20, "threads": torch.get_num_threads(),
    }  # fmt: skip


def _train(
    experiment: Experiment, dataset: Dataset, *, behind_epoch: Callable[[Dataset], None] | None = None
) -> list[dict[str, Any]]:
    """The rows of a training."""
    sys.modules["snn_bp.trainer.loop"].load = lambda *_, **__: dataset  # type: ignore[attr-defined]
    try:
        with tempfile.TemporaryDirectory() as folder:
            for event in training(experiment, Path(folder) / "run", quiet=True):
                if event.row is not None and behind_epoch is not None:
                    behind_epoch(dataset)
            return Run(Path(folder) / "run").metrics()
    finally:
        sys.modules["snn_bp.trainer.loop"].load = load  # type: ignore[attr-defined]


def _drop(dataset: Dataset) -> None:
    """Take the cache's files out of memory, first out of this process's tables, whose pages the system keeps."""
    for each in _mapped(dataset):
        each.base.base.madvise(mmap.MADV_DONTNEED)
    for file in cache_folder().rglob("*.npy"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _mapped(dataset: Dataset) -> list[Any]:
    """The arrays of events."""
    return [
        array for part in dataset.parts.values() for array in vars(part.events).values()  # type: ignore[union-attr]
        if isinstance(array, np.ndarray) and isinstance(array.base, np.memmap)
    ]  # fmt: skip


def _in_memory() -> int:
    """Bytes of the cache's arrays of which the system holds the pages."""
    held = 0
    for file in cache_folder().rglob("*.npy"):
        pages = np.zeros(-(-file.stat().st_size // mmap.PAGESIZE), np.uint8)
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            content = np.frombuffer(mapped, np.uint8)
            where = [ctypes.c_void_p(each.ctypes.data) for each in (content, pages)]
            ctypes.CDLL("libc.so.6").mincore(where[0], ctypes.c_size_t(len(content)), where[1])
            held += int((pages & 1).sum()) * mmap.PAGESIZE
            del content
    return held


def _read() -> int:
    """Bytes that this process had read from disk so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


@contextmanager
def _peak() -> Iterator[list[int]]:
    """The most anonymous memory within the block, in bytes beyond what there was before."""
    over, before = threading.Event(), _anonymous()
    found = [0]

    def watch() -> None:
        while not over.wait(0.005):
            found[0] = max(found[0], _anonymous() - before)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        over.set()
        watching.join()


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _command(what: str, name: str, folder: Path, **options: Any) -> list[str]:
    return [sys.executable, __file__, "--one", json.dumps({"what": what, "name": name, "root": str(folder), **options})]


def _asked(what: str, name: str, folder: Path, *, cache: str, ahead: bool = True, **options: Any) -> dict[str, Any]:
    """What a process of its own answers."""
    environment = os.environ | {"SNN_BP_CACHE": str(folder / cache), "SNN_BP_READ_AHEAD": str(int(ahead))}
    command = _command(what, name, folder, **options)
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(answer.stderr)
    return json.loads(answer.stdout.splitlines()[-1])


def _killed(name: str, folder: Path, *, after_s: float) -> float:
    """Kill a build so many seconds after its first recordings are there; gives the seconds."""
    process = subprocess.Popen(
        _command("build", name, folder), env=os.environ | {"SNN_BP_CACHE": str(folder / "cache")},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < 1 + after_s:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return time.monotonic() - began


def _one(asked: dict[str, Any]) -> dict[str, Any]:
    experiment = read_file(ROOT / f"{asked['name']}.py")
    experiment = replace(experiment, data=replace(experiment.data, root=str(Path(asked["root"]) / "data")))
    return build(experiment) if asked["what"] == "build" else epochs(experiment, cold=asked["cold"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(_one(json.loads(sys.argv[2]))))
    else:
        main()
