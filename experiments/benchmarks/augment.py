"""What do augmentations cost, beside encoding without any, and beside tonic's transforms of the same names?

    python experiments/benchmarks/augment.py

One thread, recordings of DVS Gesture's size made here (128 x 128 pixels, 300,000 events in order of time), in batches
of 16 of 20 frames of 75 ms: of 6 s, as there, of which the window is a quarter, and of 1.5 s, as long as the window.
Ways are interleaved, medians of the thread's time taken. tonic's are those that come nearest, in `transforms`, as one
would write it without augmentations: a recording at a time, all of it, before the window is taken. Written to
experiments/results/augment.json.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import tonic.transforms
import torch
from encoding import _commit, _cpu

from snn_bp import CutMix, Dataset, EventDrop, Flip, NoiseEvents, SpatialJitter, TimeCrop, TimeJitter

RESULT = Path(__file__).resolve().parents[1] / "results" / "augment.json"
SENSOR, BATCH = (128, 128, 2), 16
OURS = {
    "drop": (EventDrop(0.3, "events"),),
    "time jitter": (TimeJitter(ms=2),),
    "spatial jitter": (SpatialJitter(px=1),),
    "noise": (NoiseEvents(hz=0.2),),
    "crop": (TimeCrop(),),
    "cutmix": (CutMix(p=1),),
}
OURS["all, and flip"] = (*(each for way in OURS.values() for each in way), Flip())
TONICS: dict[str, tuple[Any, ...]] = {
    "drop": (tonic.transforms.DropEvent(p=0.15),),
    "time jitter": (tonic.transforms.TimeJitter(std=2000, clip_negative=True),),
    "spatial jitter": (tonic.transforms.SpatialJitter(sensor_size=SENSOR, var_x=1, var_y=1, clip_outliers=True),),
    "noise": (tonic.transforms.UniformNoise(sensor_size=SENSOR, n=int(0.2 * 128 * 128 * 6)),),
}
TONICS["all four, and flip"] = (
    *(each for way in TONICS.values() for each in way),
    tonic.transforms.RandomFlipLR(sensor_size=SENSOR, p=0.5),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Times augmentations, none, and tonic's transforms.")
    parser.add_argument("--events", type=int, default=300_000, help="of a recording")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "question": "time of a batch of recordings of DVS Gesture's size: plain, augmented, by tonic's transforms",
        "command": f"python experiments/benchmarks/augment.py --events {asked.events} --repeats {asked.repeats}",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "load": os.getloadavg()[0], "system": platform.platform()},
        "versions": {name: version(name) for name in ("tonic", "numpy", "numba", "torch")},
        "python": platform.python_version(),
        "cases": {f"{length_s} s": compared(asked.events, length_s, asked.repeats) for length_s in (6, 1.5)},
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def compared(events: int, length_s: float, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a recording for each way, beside encoding alone, and how many times as long tonic's take."""
    plain = recordings(events, length_s)
    sets = {"none": plain}
    sets |= {f"ours: {name}": replace(plain, data=replace(plain.data, augment=each)) for name, each in OURS.items()}
    for name, each in TONICS.items():
        sets[f"tonic: {name}"] = replace(plain, data=replace(plain.data, transforms=each))
    ids = plain.ids["train"][:BATCH]
    ways = {name: partial(each.batch, "train", ids, seed=1, in_bytes=True) for name, each in sets.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + repeats):  # the first one compiles
        for name, way in ways.items():
            start = time.thread_time()  # others may compute beside
            way()
            times[name].append(time.thread_time() - start)
    seconds = {name: statistics.median(each[1:]) for name, each in times.items()}
    both = {name: seconds[f"tonic: {name}"] / seconds[f"ours: {name}"] for name in TONICS if name in OURS}
    both["tonic's four and flip over all of ours"] = (
        seconds["tonic: all four, and flip"] / seconds["ours: all, and flip"]
    )
    return {
        "ms_of_a_recording": {name: round(1000 * each / BATCH, 3) for name, each in seconds.items()},
        "times_none": {name: round(each / seconds["none"], 1) for name, each in seconds.items()},
        "tonic_over_ours": {name: round(each, 1) for name, each in both.items()},
    }


def recordings(events: int, length_s: float) -> Dataset:
    """32 recordings of two classes in memory."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(32):
        one = np.zeros(events, np.dtype([(name, int) for name in "xypt"]))
        for name, high in zip("xyp", SENSOR, strict=True):
            one[name] = rng.integers(0, high, events)
        one["t"] = np.sort(rng.integers(0, int(length_s * 1e6), events))
        made.append(one)
    return Dataset.of(
        train=(made, np.arange(32) % 2), sensor=SENSOR, steps=20, step_ms=75, batch=BATCH, validation_fraction=0
    )


if __name__ == "__main__":
    main()
