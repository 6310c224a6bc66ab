"""Batches of recordings that are values, signals and images: cut, filled up, changed by transforms, and encoded."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp.data.description import Data
from snn_bp.data.frames import CachedFrames
from snn_bp.data.transforms import apply_transforms
from snn_bp.errors import SnnError, shown

TRANSFORM, ENCODE = 2, 4  # streams of random numbers drawn from one seed


def shape_of_values(data: Data, cached: CachedFrames) -> tuple[tuple[int, ...], int]:
    """The shape of one step, and how many steps the recordings have; tried on the first one."""
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
