"""The sets of recordings that `load` knows: what each is, where its files lie, and its usual window."""

from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

READING_FORMAT = 2  # raised when the same files would give other events
Sensor = tuple[int, int, int]  # (width, height, polarities), in tonic's order

DIGITS = tuple("0123456789")
GESTURES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter-clockwise",
    "left arm clockwise", "left arm counter-clockwise", "arm roll", "air drums", "air guitar", "other gestures",
)  # fmt: skip
SHD_CHANNELS, SHD_CLASSES = 700, 20  # the Heidelberg set itself; other files share its schema
ADDRESS_EVENT = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
ROW_EVENT = np.dtype([("t", int), ("x", int), ("p", int)])
IN_MEMORY = "in memory"  # the name of data that are handed to `train`, see `Dataset.of`


@dataclass(frozen=True, kw_only=True)
class DataSetInfo:
    """One set: facts fixed by those who recorded it, and the window we encode unless told otherwise."""

    name: str
    sensor: Sensor | None  # None: a row of channels, or no events at all
    class_names: tuple[str, ...]
    window_ms: float
    step_ms: float
    totals: dict[str, int]  # recordings in a full copy of each part, where that is known
    event_dtype: np.dtype  # what transforms see: structured arrays with tonic's order of fields
    tonic_class: str = ""  # empty: made here, no files
    parts: dict[str, str] = field(default_factory=dict)  # below the set's folder: what tonic reads for each part
    suffix: str = ""
    channels: int = 0  # where it is a row; 0: as many as the files hold
    clock: str = "of the recording"  # where a file's time 0 lies: see `recordings.from_start`
    group: str = ""  # whom the files name for each recording; empty: nobody

    @property
    def layout(self) -> str:
        """Where the files belong below the root, for messages."""
        return " and ".join(f"{self.tonic_class}/{self.parts[part]}" for part in ("train", "test"))


_INFOS = (
    DataSetInfo(
        name="digits",
        sensor=(34, 34, 2),
        class_names=DIGITS,
        window_ms=310,
        step_ms=10,
        totals={"train": 1437, "test": 360},
        event_dtype=ADDRESS_EVENT,
        parts={},
    ),
    DataSetInfo(
        name="nmnist",
        sensor=(34, 34, 2),
        class_names=DIGITS,
        window_ms=310,
        step_ms=10,
        totals={"train": 60_000, "test": 10_000},
        event_dtype=ADDRESS_EVENT,
        tonic_class="NMNIST",
        parts={"train": "Train", "test": "Test"},
        suffix=".bin",
        clock="of the camera",
    ),
    DataSetInfo(
        name="dvs_gesture",
        sensor=(128, 128, 2),
        class_names=GESTURES,
        window_ms=1500,
        step_ms=75,
        totals={"train": 1077, "test": 264},
        event_dtype=np.dtype([("x", np.int16), ("y", np.int16), ("p", bool), ("t", np.int64)]),
        tonic_class="DVSGesture",
        parts={"train": "ibmGestureTrain", "test": "ibmGestureTest"},
        suffix=".npy",
        clock="of a longer recording",
        group="user",
    ),
    DataSetInfo(
        name="shd",
        sensor=None,
        class_names=(),  # the files carry their own
        window_ms=1000,
        step_ms=10,
        totals={"train": 8156, "test": 2264},
        event_dtype=ROW_EVENT,
        tonic_class="SHD",
        parts={"train": "shd_train.h5", "test": "shd_test.h5"},
        suffix=".h5",
        group="speaker",
    ),
)
DATA_SETS = MappingProxyType({info.name: info for info in _INFOS})
# where a mirrored recording is none of its class: why, and the pairs of classes that a mirror turns into each other
MIRRORED: MappingProxyType[str, tuple[str, tuple[tuple[str, str], ...]]] = MappingProxyType({
    "digits": ("it is no digit", ()),
    "nmnist": ("it is no digit", ()),
    "tonic:NMNIST": ("it is no digit", ()),
    "tonic:ASLDVS": ("its letters are signs of one hand", ()),
    "dvs_gesture": ("its gestures are of the left or right hand", (
        ("right hand wave", "left hand wave"),
        ("right arm clockwise", "left arm counter-clockwise"),
        ("right arm counter-clockwise", "left arm clockwise"),
    )),
    "tonic:DVSGesture": ("its gestures are of the left or right hand", (
        ("Right hand wave", "Left hand wave"),
        ("Right arm cw", "Left arm ccw"),
        ("Right arm ccw", "Left arm cw"),
    )),
})  # fmt: skip
