"""Batches of recordings that are values, signals and images: cut, filled up, changed by transforms, and encoded."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp.data.augmentations import check_crop
from snn_bp.data.description import Data
from snn_bp.data.encode import Changes
from snn_bp.data.frames import CachedFrames
from snn_bp.data.transforms import apply_transforms
from snn_bp.errors import SnnError, shown
from snn_bp.kernels.lazy import kernel

TRANSFORM, ENCODE = 2, 4  # streams of random numbers drawn from one seed


def shape_of_values(data: Data, cached: CachedFrames) -> tuple[tuple[int, ...], int]:
    """The shape of one step, and how many steps the recordings have; tried on the first one."""
    check_crop(data.augment, data.name, step_ms=data.step_ms)
    first, given = encoded(data, cached, 0, seed=None, source="the first recording"), cached.one(0)
    if len(first) == len(given):
        return first.shape[1:], cached.frames.shape[1]
    if cached.beside.durations is not None:
        raise SnnError(
            f"{data.name}: recordings differ in their steps, and {data.encoder or data.transforms} makes "
            f"{len(first)} steps of {len(given)}. Use one that keeps them, or give recordings of equal length."
        )
    return first.shape[1:], len(first)


def values_of(
    data: Data, cached: CachedFrames, ids: np.ndarray, *, steps: int, recorded: int, shape: Sequence[int],
    seed: int | None, in_bytes: bool, source: str,
) -> Tensor:  # fmt: skip
    """Frames [steps, len(ids), *shape] of recordings that have `recorded` steps at most; zeros behind their end."""
    if not data.transforms and data.encoder is None:
        rows = np.asarray(cached.frames[ids, :steps])
        rows = rows.reshape(*rows.shape[:2], *shape)
        in_bytes &= rows.dtype == np.uint8
        frames = np.zeros((steps, len(ids), *shape), np.uint8 if in_bytes else np.float32)
        frames[: rows.shape[1]] = np.moveaxis(rows, 0, 1)
        return torch.from_numpy(frames)
    each = [
        encoded(data, cached, sample, seed=seed, source=f"recording {sample} of {source}") for sample in ids.tolist()
    ]
    in_bytes &= all(one.dtype == np.uint8 for one in each)
    frames = np.zeros((steps, len(ids), *shape), np.uint8 if in_bytes else np.float32)
    for number, (sample, one) in enumerate(zip(ids.tolist(), each, strict=True)):
        given = len(cached.one(sample))
        if one.shape[1:] != tuple(shape) or len(one) != (given if recorded == cached.frames.shape[1] else recorded):
            raise SnnError(
                f"encoder, transforms: recording {sample} of {source} became {list(one.shape)}, the first one "
                f"[{recorded}, {', '.join(map(str, shape))}]. Every recording has to become frames of one shape."
            )
        frames[: min(steps, len(one)), number] = one[:steps]
    return torch.from_numpy(frames)


def augmented(frames: Tensor, changes: Changes, *, steps: int) -> Tensor:
    """The first `len(changes.drawn)` of the recordings in `frames` as augmentations change them, `steps` long."""
    shape, count = frames.shape[2:], len(changes.drawn)
    given = frames.view(*frames.shape[:2], *(1,) * (3 - len(shape)), *shape).numpy()
    made = np.empty((steps, count, *given.shape[2:]), given.dtype)
    _change_frames(made, given, changes.drawn)
    return torch.from_numpy(made).view(steps, count, *shape)


@kernel()
def _change_frames(made, given, drawn):
    recorded, _, planes, height, width = given.shape
    steps, samples = made.shape[:2]
    for n in range(samples):
        each = drawn[n]
        room = min(each.reach, (recorded if each.end < 0 else each.end) - steps)
        start = np.int64(each.crop * (room + 1)) if room > 0 else np.int64(0)
        for step in range(steps):
            if start + step >= recorded or each.gap <= step < each.gap_end:
                made[step, n] = 0
                continue
            for plane in range(planes):
                for row in range(height):
                    for column in range(width):
                        source, value = n, given.dtype.type(0)
                        if each.left <= column < each.right and each.top <= row < each.bottom:
                            source = each.partner
                        in_hole = each.hole_left <= column < each.hole_right and each.hole_top <= row < each.hole_bottom
                        if not in_hole:
                            value = given[start + step, source, plane, row, column]
                        made[step, n, plane, row, width - 1 - column if each.flip else column] = value


def encoded(data: Data, cached: CachedFrames, sample: int, *, seed: int | None, source: str) -> np.ndarray:
    """The frames [steps, ...] of one recording, in bytes or floats, by transforms and encoder."""
    values, drawn = cached.one(sample), 0 if seed is None else seed + 1
    if data.transforms:
        values = apply_transforms(data.transforms, values, seed=(drawn, TRANSFORM, sample))
    if data.encoder is not None:
        values = data.encoder(values, np.random.default_rng((drawn, ENCODE, sample)))
    return _checked(values, source=source)


def _checked(frames: Any, *, source: str) -> np.ndarray:
    array = np.asarray(frames)
    if array.dtype.kind not in "biuf" or array.ndim < 1 or not len(array):
        raise SnnError(f"encoder, transforms: {source} should become frames [steps, ...], found {shown(frames)}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SnnError(f"encoder, transforms: {source} became frames with NaN or infinity.")
    array = array[:, None] if array.ndim == 1 else array
    return array.view(np.uint8) if array.dtype == bool else array
