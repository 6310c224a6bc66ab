"""Augmented recordings the obvious way, event after event in Python's integers, which the compiled pass must equal."""

import numpy as np
import torch
from encode_reference import encode_reference
from torch import Tensor

from snn_bp.data.encode import Changes, Events

BITS = 2**64 - 1


def random_bits(key: int, number: int) -> int:
    """Number `number` of splitmix64 from the state `key`, as Steele, Lea and Flood write it."""
    z = (key + number * 0x9E3779B97F4A7C15) & BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & BITS
    return z ^ (z >> 31)


def augment_reference(
    events: Events, ids: np.ndarray, changes: Changes, *, steps: int, step_us: int, shape: tuple[int, ...],
    downsample: int = 1, binary: bool = False, shifts=None, turns=None,
) -> Tensor:  # fmt: skip
    """What `encode` gives with `changes`."""
    has_rows = len(events.y) > 0
    polarities, height, width = shape[0], shape[1] * downsample if has_rows else 1, shape[2] * downsample
    kept, added = [], []
    for sample, drawn in zip(ids.tolist(), changes.drawn, strict=True):
        own, window = of(events, sample), steps * step_us
        last = int(drawn["end"]) if drawn["end"] >= 0 else max((event[3] + 1 for event in own), default=0)
        room = min(int(drawn["reach"]), last - window)
        start = int(drawn["crop"] * (room + 1)) if room > 0 else 0
        sources = [(own, int(drawn["events"]), False)]
        if drawn["partner"] >= 0:
            sources.append((of(events, int(drawn["partner"])), int(drawn["partners"]), True))
        kept.append([])
        for recording, key, is_partner in sources:
            for number, (x, y, p, t) in enumerate(recording, 1):
                bits, t = random_bits(key, number), t - start
                in_box = drawn["left"] <= x < drawn["right"] and drawn["top"] <= y < drawn["bottom"]
                if drawn["partner"] >= 0 and (bits >> 63 if drawn["blend"] else in_box != is_partner):
                    continue
                if (bits >> 36) % 2**27 < drawn["drop"] or drawn["gap"] <= t < drawn["gap_end"]:
                    continue
                if drawn["hole_left"] <= x < drawn["hole_right"] and drawn["hole_top"] <= y < drawn["hole_bottom"]:
                    continue
                t += int(changes.time_us[bits % 4096]) if len(changes.time_us) else 0
                if len(changes.pixels):
                    x += int(changes.pixels[(bits >> 12) % 4096])
                    y += int(changes.pixels[(bits >> 24) % 4096]) if has_rows else 0
                if 0 <= t < window and 0 <= x < width and 0 <= y < height:
                    kept[-1].append((width - 1 - x if drawn["flip"] else x, y, p, t))
        added.append([])
        for number in range(int(drawn["noises"])):
            where, when = (random_bits(int(drawn["noise"]), 2 * number + each) for each in (1, 2))
            x, y, p = (
                (where >> 21 * axis) % 2**21 * size >> 21 for axis, size in enumerate((width, height, polarities))
            )
            added[-1].append((x, y, p, int((when >> 11) * 2.0**-53 * window)))
    everyone = np.arange(len(ids))
    how = {"steps": steps, "step_us": step_us, "shape": shape, "downsample": downsample}
    frames = encode_reference(joined(kept), everyone, shifts=shifts, turns=turns, **how)
    frames = frames + encode_reference(joined(added), everyone, **how)
    return (frames > 0).float() if binary else torch.as_tensor(frames)


def fractions_reference(classes: list[int], drawn, ids: np.ndarray, size: tuple[int, int], outputs: int) -> Tensor:
    """Targets of recordings whose classes are mixed: of each, how much it covers of the pixels, one by one."""
    made = torch.zeros(len(ids), outputs)
    for row, (sample, one) in enumerate(zip(ids.tolist(), drawn, strict=True)):
        pixels = [(x, y) for x in range(size[0]) for y in range(size[1])]
        inside = sum(one["left"] <= x < one["right"] and one["top"] <= y < one["bottom"] for x, y in pixels)
        second = 0.5 if one["blend"] else inside / len(pixels)
        if one["partner"] < 0 or classes[sample] == classes[one["partner"]]:
            made[row, classes[sample]] = 1
        else:
            made[row, classes[sample]], made[row, classes[one["partner"]]] = 1 - second, second
    return made


def of(events: Events, sample: int) -> list[tuple[int, int, int, int]]:
    """x, y, p, t of the events of a recording."""
    span = range(events.offsets[sample], events.offsets[sample + 1])
    rows = len(events.y) > 0
    return [(int(events.x[e]), int(events.y[e]) if rows else 0, int(events.p[e]) if rows else 0, int(events.t[e]))
            for e in span]  # fmt: skip


def joined(recordings: list) -> Events:
    """Recordings end to end."""
    rows = np.array([event for recording in recordings for event in recording], np.int64).reshape(-1, 4)
    offsets = np.cumsum([0, *map(len, recordings)])
    return Events(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], offsets, np.zeros(len(recordings), np.int64))
