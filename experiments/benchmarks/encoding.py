"""How much faster than tonic's ToFrame do events become frames, and are the counts the same?

One thread, from events in memory to an array of frames; ours gives float32, tonic's int16. Single recordings
are compared with single recordings, repeats interleaved, medians taken. A batch of 64 of ours, which is what
training asks for, is timed beside them.

    python experiments/benchmarks/encoding.py --root DIR      # DIR holds NMNIST/ and DVSGesture/

writes experiments/results/encoding.json. Counts are compared with `time_window`, whose bins are ours; with
`n_time_bins` tonic rounds the window down and leaves the last events out, so that one is only timed.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import torch
from tonic.transforms import ToFrame

from snn_bp.data import Data, Dataset, load
from snn_bp.data.catalogue import DATA_SETS
from snn_bp.data.encode import encode
from snn_bp.data.store import CachedEvents
from snn_bp.data.transforms import structured

RESULT = Path(__file__).resolve().parents[1] / "results" / "encoding.json"


def main() -> None:
    parser = argparse.ArgumentParser(description="Times our encoder and tonic's ToFrame on the same recordings.")
    parser.add_argument("--root", required=True, help="folder that holds NMNIST/ and DVSGesture/")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "question": "time of encoding one recording, ours against tonic's ToFrame, one thread",
        "command": f"python experiments/benchmarks/encoding.py --root DIR --repeats {asked.repeats}",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {name: version(name) for name in ("tonic", "numpy", "numba", "torch")},
        "python": platform.python_version(),
        "cases": [
            compare(load(Data(name, root=asked.root), quiet=True), ids=ids, repeats=asked.repeats)
            for name, ids in (("nmnist", range(0, 340, 34)), ("dvs_gesture", range(10)))
        ],
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["cases"], indent=1))


def compare(dataset: Dataset, *, ids: range, repeats: int) -> dict:
    """Milliseconds for each recording, mean over recordings of medians, and whether the counts are the same."""
    data, part = dataset.data, dataset.parts["train"]
    assert isinstance(part, CachedEvents)
    events = part.events
    by_time = ToFrame(dataset.sensor, time_window=data.step_us, start_time=0, end_time=data.window_us)
    by_count = ToFrame(dataset.sensor, n_time_bins=data.steps)
    medians: dict[str, list[float]] = {"ours": [], "time_window": [], "n_time_bins": []}
    same = True
    for sample in ids:
        one, array = np.array([sample]), structured(events, sample, dtype=DATA_SETS[data.name].event_dtype)
        ways = {
            "ours": partial(encode, events, one, steps=data.steps or 0, step_us=data.step_us, shape=dataset.shape),
            "time_window": partial(by_time, array),
            "n_time_bins": partial(by_count, array),
        }
        same &= np.array_equal(ways["ours"]()[:, 0].numpy(), ways["time_window"]())
        for way, seconds in time_interleaved(ways, repeats=repeats).items():
            medians[way].append(seconds)
    ms = {way: 1000 * statistics.mean(seconds) for way, seconds in medians.items()}
    batch = np.resize(dataset.ids["train"], data.batch)
    whole = time_interleaved({"batch": partial(dataset.batch, "train", batch)}, repeats=repeats)["batch"]
    ms["ours_in_a_batch"] = 1000 * whole / len(batch)
    return {
        "data": data.name,
        "recordings": len(ids),
        "events_per_recording": float(np.mean([events.offsets[n + 1] - events.offsets[n] for n in ids])),
        "frames": [data.steps, *dataset.shape],
        "batch": len(batch),
        "ms_per_recording": {way: round(value, 4) for way, value in ms.items()},
        "times_as_fast_as_time_window": round(ms["time_window"] / ms["ours"], 1),
        "times_as_fast_as_n_time_bins": round(ms["n_time_bins"] / ms["ours"], 1),
        "counts_equal_time_window": bool(same),
    }


def time_interleaved(ways: dict[str, Callable[[], Any]], *, repeats: int) -> dict[str, float]:
    """Median seconds of each way, one after the other in every repeat; a first round is not counted."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + repeats):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - start)
    return {way: statistics.median(measured[1:]) for way, measured in seconds.items()}


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
