"""`Dataset`: recordings in three splits, given batch by batch as frames."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp.data.catalogue import DATA_SETS, Sensor
from snn_bp.data.description import Data
from snn_bp.data.encode import Events, encode
from snn_bp.data.store import CachedEvents
from snn_bp.data.transforms import apply_transforms, check_frames, flatten, structured
from snn_bp.data.window import Inside, inside
from snn_bp.errors import SnnError, check_choice
from snn_bp.runtime.capacity import check_room

_SHUFFLE, _SHIFT, _TRANSFORM, _TURN = 0, 1, 2, 3  # streams of random numbers drawn from one seed


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Recordings split in three, given as frames; `load` makes one.

    The ids of "train" and "validation" number the recordings of the training part, those of "test" the test
    part. "test" may be empty: nothing is taken from one part to fill another.
    """

    data: Data
    shape: tuple[int, ...]  # one time step: (C, H, W), or (N,) for a row of channels
    classes: int
    class_names: tuple[str, ...]
    ids: dict[str, np.ndarray]
    notes: tuple[str, ...]
    sensor: Sensor  # as the encoder sees it, after transforms and before downsampling
    parts: dict[str, CachedEvents]  # "train" and "test"
    versions: dict[str, str]

    @cached_property
    def window(self) -> dict[str, Inside]:
        """How much of each part lies in the window that is encoded, before transforms."""
        return {part: inside(cached.events, self.data.window_us) for part, cached in self.parts.items()}

    def batches(self, split: str, *, seed: int | None = None) -> list[np.ndarray]:
        """Ids of each batch, the last one maybe short; in order, or shuffled by a seed."""
        check_choice("split", split, self.ids)
        ids = self.ids[split]
        if seed is not None:
            ids = np.random.default_rng((seed, _SHUFFLE)).permutation(ids)
        return [ids[start : start + self.data.batch] for start in range(0, len(ids), self.data.batch)]

    def batch(self, split: str, ids: Any, *, seed: int | None = None, in_bytes: bool = False) -> tuple[Tensor, Tensor]:
        """Frames [steps, len(ids), *shape], floats or where asked for and possible bytes, and classes [len(ids)].

        With a seed, training recordings are shifted and turned, and random transforms drawn anew. What a recording
        becomes depends on its id and the seed alone, not on its neighbours in the batch.
        """
        events = self._events(split)
        ids = np.asarray(ids)
        if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):  # a mask would be read as ids 0 and 1
            raise SnnError(
                f"batch: ids should be a list of integers, found {ids.dtype} {list(ids.shape)}. "
                f"batches({split!r}) gives those of the split."
            )
        ids = ids.astype(np.int64)
        if len(ids) and (ids.min() < 0 or ids.max() >= len(events)):
            raise SnnError(
                f"batch: ids {ids.min()}..{ids.max()} asked of {split!r}, its part has 0..{len(events) - 1}. "
                f"batches({split!r}) gives those of the split."
            )
        targets = torch.from_numpy(events.labels[ids])
        moves = self._moves(split, ids, seed=seed)
        if not self.data.transforms or not len(ids):
            return self._encode(events, ids, moves=moves, in_bytes=in_bytes), targets
        changed = [self._transformed(events, sample, seed=seed) for sample in ids.tolist()]
        if changed[0].dtype.names is None:
            for sample, frames in zip(ids, changed, strict=True):
                check_frames(frames, (self.data.steps, *self.shape), source=f"recording {sample} of {split!r}")
            return torch.from_numpy(np.stack(changed, axis=1)).float(), targets
        flat = flatten(changed, events.labels[ids], like=events, sensor=self.sensor)
        return self._encode(flat, np.arange(len(ids)), moves=moves, in_bytes=in_bytes), targets

    def labels(self, split: str) -> np.ndarray:
        """Classes of the split, in the order of its ids."""
        return self._events(split).labels[self.ids[split]]

    def spread(self, split: str, count: int) -> np.ndarray:
        """Up to `count` ids of the split, evenly spread over all of them."""
        ids = self.ids[split]
        return ids[np.linspace(0, len(ids) - 1, min(len(ids), count)).astype(int)]

    def _events(self, split: str) -> Events:
        check_choice("split", split, self.ids)
        return self.parts["test" if split == "test" else "train"].events

    def _moves(self, split: str, ids: np.ndarray, *, seed: int | None) -> dict[str, np.ndarray]:
        """The shifts and turns of the recordings, drawn for all of the part so that neighbours do not matter."""
        moves: dict[str, np.ndarray] = {}
        if seed is None or split != "train":
            return moves
        reach, recordings = self.data.translate_px, len(self.parts["train"].events)
        if reach:
            shifts = np.random.default_rng((seed, _SHIFT)).integers(-reach, reach + 1, (recordings, 2))[ids]
            moves["shifts"] = shifts * (1, 1 if self.sensor[1] > 1 else 0)  # a row of channels moves along itself
        if most := self.data.rotate_deg:
            turns = np.random.default_rng((seed, _TURN)).uniform(-most, most, recordings)
            moves["turns"] = np.deg2rad(turns[ids])
        return moves

    def _transformed(self, events: Events, sample: int, *, seed: int | None) -> np.ndarray:
        array = structured(events, sample, dtype=DATA_SETS[self.data.name].event_dtype)
        drawn = 0 if seed is None else seed + 1
        return apply_transforms(self.data.transforms, array, seed=(drawn, _TRANSFORM, sample))

    def _encode(self, events: Events, ids: np.ndarray, *, moves: dict[str, np.ndarray], in_bytes: bool) -> Tensor:
        check_room(
            (self.data.steps or 0) * len(ids) * math.prod(self.shape) * (1 if in_bytes else 4),
            what=f"a batch of {len(ids)} recordings of {self.data.steps} steps",
            remedy="Fewer recordings, fewer data.steps or data.downsample bring it down.",
        )
        frames = encode(
            events,
            ids,
            steps=self.data.steps or 0,
            step_us=self.data.step_us,
            shape=(1,) * (3 - len(self.shape)) + self.shape,
            downsample=self.data.downsample,
            binary=self.data.binary,
            in_bytes=in_bytes,
            **moves,
        )
        return frames.view(*frames.shape[:2], *self.shape)


def draw_validation(labels: np.ndarray, *, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Ids for training, ids for validation, both ascending, and a note where classes could not be kept alike.

    Each class of two or more gives `round(fraction * n)`, at least one and never all.
    """
    everything = np.arange(len(labels))
    if fraction == 0:
        return everything, everything[:0], ""
    rng = np.random.default_rng(seed)
    groups, note = [everything[labels == label] for label in np.unique(labels)], ""
    alone = all(len(ids) == 1 for ids in groups)
    if alone:
        groups = [everything]
    drawn = [rng.permutation(ids)[: min(max(1, round(fraction * len(ids))), len(ids) - 1)] for ids in groups]
    validation = np.sort(np.concatenate(drawn))
    if alone:
        note = f"validation: every class has one recording, so {len(validation)} of {len(labels)} were drawn from all"
    return np.setdiff1d(everything, validation), validation, note
