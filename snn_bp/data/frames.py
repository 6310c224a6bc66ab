"""Frames in the cache: one array of all recordings, mapped into memory, with targets and lengths beside it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.data.beside import NOTHING_BESIDE, Beside, stacked
from snn_bp.data.cache import Damaged, seal_entry
from snn_bp.data.entries import kept
from snn_bp.data.sources import Frames
from snn_bp.errors import SnnError
from snn_bp.files import json_sha256

FORMAT = 1


@dataclass(frozen=True)
class CachedFrames:
    """Frames `[recordings, steps, ...]` as a source gave them, before any encoder; zeros behind the end of one."""

    frames: np.ndarray  # uint8 or float32
    sha256: str  # the hash of frames, targets and lengths
    folder: Path | None
    names: tuple[str, ...] = ()
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))  # one for the frames of each recording
    notes: tuple[str, ...] = ()
    beside: Beside = NOTHING_BESIDE

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def targets(self) -> np.ndarray:
        """The target of each recording."""
        return np.empty(0, np.int64) if self.beside.targets is None else self.beside.targets

    def lengths(self, *, steps: int, step_us: int) -> np.ndarray | None:
        """How many of `steps` each recording has; None where all of them have every one."""
        durations = self.beside.durations
        return None if durations is None or (durations >= steps).all() else np.minimum(durations, steps)

    def one(self, number: int) -> np.ndarray:
        """What the source gave for a recording, without the zeros behind its end."""
        frames, durations = self.frames[number], self.beside.durations
        return frames if durations is None else frames[: durations[number]]


def store_frames(name: str, make: Callable[[], Frames | None], *, made_from: Any | None) -> CachedFrames:
    """The frames that `make` gives, from the cache if they were made from the same before, as `store` does."""
    key = None if made_from is None else [FORMAT, "frames", made_from]

    def build(folder: Path) -> str:
        held = hold_frames(make())
        np.save(folder / "frames.npy", held.frames)
        np.save(folder / "hashes.npy", held.hashes)
        (folder / "names.json").write_text(json.dumps(held.names), encoding="utf-8")
        held.beside.write(folder)
        seal_entry(folder, {"sha256": held.sha256})
        return json_sha256([FORMAT, held.sha256, held.names, held.beside.groups, held.beside.splits])

    return kept(name, key, build=build, read=_mapped, hold=lambda: hold_frames(make()))


def hold_frames(recordings: Frames | None) -> CachedFrames:
    """Frames in memory; recordings of fewer steps than the longest are filled up with zeros."""
    if recordings is None or not recordings.each:
        return CachedFrames(np.empty((0, 0), np.float32), sha256="", folder=None)
    shapes = {array.shape[1:] for array in recordings.each}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise SnnError(
            f"frames: one step has the shape {list(first)} in some recordings and {list(second)} in others. "
            "Recordings may differ in their number of steps, not in the shape of one."
        )
    steps = np.array([len(array) for array in recordings.each], np.int64)
    dtype = np.result_type(*{array.dtype for array in recordings.each})
    frames = np.zeros((len(recordings.each), int(steps.max()), *shapes.pop()), dtype)
    digest, hashes = hashlib.sha256(f"{dtype.str}{frames.shape}".encode()), []
    for row, array in zip(frames, recordings.each, strict=True):
        row[: len(array)] = array
        content = np.ascontiguousarray(array, dtype).tobytes()
        digest.update(content)
        hashes.append(int.from_bytes(hashlib.sha256(content).digest()[:8], "big"))
    beside = Beside(
        targets=stacked(recordings.targets),
        durations=None if (steps == steps.max()).all() else steps,
        groups=recordings.groups,
        splits=recordings.splits,
    )
    digest.update(beside.digest)
    for array in (frames, beside.targets):
        assert array is not None
        array.flags.writeable = False
    return CachedFrames(frames, digest.hexdigest(), None, recordings.names, np.array(hashes, np.uint64), beside=beside)


def _mapped(folder: Path, record: dict[str, Any], said: tuple[str, ...]) -> CachedFrames:
    """An entry of the cache, mapped."""
    try:
        frames, hashes = np.load(folder / "frames.npy", mmap_mode="r"), np.load(folder / "hashes.npy")
        names = tuple(json.loads((folder / "names.json").read_text(encoding="utf-8")))
        beside, sha256 = Beside.read(folder, record), record["sha256"]
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError) as cause:
        raise Damaged(str(cause)) from cause
    if not (len(frames) == len(hashes) == len(names) and beside.is_of(len(frames))):
        raise Damaged("its arrays differ in length")
    return CachedFrames(frames, sha256, folder, names, hashes, said, beside)
