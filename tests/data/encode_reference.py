"""Events to frames the obvious way, which the compiled pass must equal."""

import numpy as np
import torch
from torch import Tensor

from snn_bp.data.encode import Events


def encode_reference(
    events: Events,
    ids: np.ndarray,
    *,
    steps: int,
    step_us: int,
    shape: tuple[int, ...],
    downsample: int = 1,
    binary: bool = False,
    shifts: np.ndarray | None = None,
    turns: np.ndarray | None = None,
) -> Tensor:
    """What `encode` must equal, one recording after the other."""
    _, height, width = shape
    frames = np.zeros((steps, len(ids), *shape), dtype=np.int64)
    for position, sample in enumerate(ids):
        span = slice(events.offsets[sample], events.offsets[sample + 1])
        step = events.t[span].astype(np.int64) // step_us
        column = events.x[span].astype(np.int64)
        row = events.y[span].astype(np.int64) if len(events.y) else np.zeros_like(column)
        polarity = events.p[span].astype(np.int64) if len(events.p) else np.zeros_like(column)
        if turns is not None:
            right, down = column - (width * downsample - 1) / 2, row - (height * downsample - 1) / 2
            cosine, sine = np.cos(turns)[position], np.sin(turns)[position]
            column = np.floor(cosine * right - sine * down + width * downsample / 2).astype(np.int64)
            row = np.floor(sine * right + cosine * down + height * downsample / 2).astype(np.int64)
            on_sensor = (column >= 0) & (column < width * downsample) & (row >= 0) & (row < height * downsample)
            column = np.where(on_sensor, column, -1 << 40)  # a turn off the sensor is not undone by a shift
        if shifts is not None:
            column = column + shifts[position, 0]
            row = row + shifts[position, 1]
        inside = (step >= 0) & (step < steps) & (column >= 0) & (column < width * downsample)
        inside &= (row >= 0) & (row < height * downsample)
        where = (step, position, polarity, row // downsample, column // downsample)
        np.add.at(frames, tuple(np.broadcast_to(index, step.shape)[inside] for index in where), 1)
    return torch.from_numpy(frames > 0 if binary else frames).float()
