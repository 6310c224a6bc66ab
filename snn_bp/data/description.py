"""`Data`, the value that says which recordings to use and how they become frames."""

from dataclasses import KW_ONLY
from fractions import Fraction
from pathlib import PurePath
from typing import Annotated, Any, Literal, get_args

from snn_bp.data.augmentations import Augmentation, as_augmentations, check_crop, check_recordings
from snn_bp.data.catalogue import ADDRESS_EVENT, DATA_SETS, IN_MEMORY, DataSetInfo
from snn_bp.data.encoders import Encoder
from snn_bp.data.folder import Folder
from snn_bp.data.sources import FRAME_MS, gives_frames, info_of
from snn_bp.data.tonic_sets import TonicSet
from snn_bp.errors import SnnError, is_number, nearest, shown
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Called, Within, check_fields

_AUGMENTATIONS = "an augmentation, as EventDrop(0.3); your own go into transforms"


@checked_dataclass(frozen=True)
class Data:
    """A set of recordings, and how each becomes `steps` frames of `step_ms` from the start of the recording.

    A recording starts at time 0 of its file; one cut out of a longer one (all of DVS Gesture, and N-MNIST's where the
    first event comes later than the usual window) starts at its first event. Events outside the window are not
    counted, and a run says how many there are. A frame counts events.

    Parameters:
        name: a set, `Data("shd")`; files, `Data("folder", root="/data/lab", sensor=(346, 260, 2), step_ms=10,
            steps=40)`, where `Data(Folder(...))` says more; any set of classes that tonic has,
            `Data("tonic:NCALTECH101")`; a source of your own, `Data(Lab("/data"))`. Those of `Dataset.of(...)` are
            handed to `train` beside the experiment.
        step_ms (None): width of a frame in ms, an integer number of microseconds; None: the set's usual one.
        steps (None): frames; None: as many as cover the set's usual window. A source of frames has steps of its own:
            `steps` cuts them or adds silence.
        batch (64): recordings at a time.
        root (None): the folder of the files, a relative one from the working folder on; None: that which the
            environment variable SNN_BP_DATA names, else `~/.cache/snn_bp/data`. What is not there tonic downloads to
            the same place.
        sensor (None): width, height and polarities of what a folder's files were recorded by, in pixels.
        downsample (1): divides coordinates; the counts of joined pixels add up.
        binary (False): keeps only whether there was an event.
        translate_px (0): moves training recordings by up to so many pixels of the sensor, drawn anew for each seed.
        rotate_deg (0.0): turns them by up to so many degrees, likewise.
        augment (()): what else is done to training recordings, drawn anew for each seed, as `(Flip(), EventDrop(0.3))`;
            there are `TimeJitter`, `ChannelJitter`, `SpatialJitter`, `TimeCrop`, `NoiseEvents`, `CutMix`, `Blend` too.
        validation_fraction (0.1): of each class of the training part, 0..0.9.
        split_seed (0): what the splits are drawn from.
        transforms (()): tonic's, or any callables, for every split: structured events in and out; the last one may
            return frames `[time, ...]`, used as they are.
        source (None): where a source of your own is kept; its class gives the name.
        encoder (None): makes frames of signals and images: `Delta`, `Current`, `Rate`, `Latency`, `Repeat`, or a value
            of your own that is called with a recording and a generator of random numbers.
        split_by ("recording"): "group" keeps the recordings of a group (a speaker, a session) on one side of every
            split.
        test_groups (()): where there is no test part, the groups, by name, that are the test split.
        test_fraction (0.0): or the fraction of each class (or of the groups) that is, 0..0.9.
        folds (None), fold (0): or number `fold` of `folds` equal parts; where there is a test part, that fold is the
            validation split.

    What counts events (`downsample`, `binary`, `translate_px`, `rotate_deg`) is for events only. A source is a frozen
    dataclass, which reads files as a rule:

    >>> @dataclasses.dataclass(frozen=True)
    ... class Lab:
    ...     sensor, class_names, step_ms, window_ms = (8, 8, 2), ("left", "right"), 10, 50
    ...     def recordings(self, part):  # "train" or "test"
    ...         for n in range(20):  # x, y, p, t (microseconds) of events, and their class
    ...             yield np.array([[n % 8, 3, 1, 2000], [5, n % 8, 0, 9000]]), self.class_names[n % 2]
    >>> data = Data(Lab(), batch=8)
    >>> data.name, data.steps
    ('Lab', 5)

    `(channels, 1, 1)` is the sensor of a row of channels. For other targets it has `targets = Targets("vector", ("x",
    "y"))` in place of `class_names`; for frames, `frames(self, part)` in place of `recordings` and `sensor`, which
    returns `(x, targets)` or `(x, targets, lengths)`, x `[recordings, steps, ...]`. A dictionary behind says more:
    "name", "group", "split" and "duration_ms" of a recording, "names", "groups" and "splits" of all frames. A source is
    read at every start and its hash compared with what a run has seen; where it has `made_from()`, which lists the
    paths that it reads, it is read again only where these, its fields or its definition have changed.
    """

    name: Any  # a source is moved to `source`, and its class gives the name
    _: KW_ONLY
    step_ms: float | None = None
    steps: Annotated[int | None, Within(low=1)] = None
    batch: Annotated[int, Within(low=1)] = 64
    root: str | None = None
    sensor: tuple[int, ...] | None = None
    downsample: Annotated[int, Within(low=1)] = 1
    binary: bool = False
    translate_px: Annotated[int, Within(low=0)] = 0
    rotate_deg: Annotated[float, Within(0, 180), Called("an angle in degrees, 0..180")] = 0.0
    validation_fraction: Annotated[float, Within(0, 0.9), Called("a fraction of the training part, 0..0.9")] = 0.1
    split_seed: Annotated[int, Within(0, 2**64 - 1)] = 0
    transforms: tuple[Any, ...] = ()  # tonic's callables have no common type
    source: Any = None
    encoder: Any = None
    split_by: Literal["recording", "group"] = "recording"
    test_groups: Annotated[tuple[str, ...], Called("names of groups, as ('ann', 'bob')")] = ()
    test_fraction: Annotated[float, Within(0, 0.9), Called("a fraction of the recordings, 0..0.9")] = 0.0
    folds: Annotated[int | None, Within(low=2)] = None
    fold: Annotated[int, Within(low=0)] = 0
    augment: tuple[Annotated[Augmentation, Called(_AUGMENTATIONS)], ...] = ()

    def __post_init__(self) -> None:
        if self.source is None and not isinstance(self.name, str):
            info_of(self.name)
            object.__setattr__(self, "source", self.name)
        if isinstance(self.root, PurePath):
            object.__setattr__(self, "root", str(self.root))
        if isinstance(self.sensor, list):
            object.__setattr__(self, "sensor", tuple(self.sensor))
        if self.source is not None:
            info_of(self.source)
            object.__setattr__(self, "name", type(self.source).__name__)
        elif source_of(self) is None and self.name not in DATA_SETS and self.name != IN_MEMORY:
            known = nearest(self.name, (*DATA_SETS, IN_MEMORY, FOLDER))
            told = "" if known.startswith("Did") else f" {_YOUR_OWN}"
            raise SnnError(f"Data: name={shown(self.name)} is not known. {known}{told}")
        info, source = self.info, source_of(self)
        is_timed = (
            self.step_ms is not None
            or getattr(source, "step_ms", None) is not None
            or (self.has_events and self.name != IN_MEMORY)
        )
        if self.step_ms is None:
            object.__setattr__(self, "step_ms", info.step_ms or None)
        if self.sensor is not None and self.name != FOLDER:
            raise SnnError(f"{self.name}: sensor={shown(self.sensor)} is for Data('folder'); a source states its own.")
        if self.step_ms is None:
            raise SnnError(f"{self.name}: it states no step_ms, the width of a frame. Give Data(..., step_ms=10).")
        _check_step(self.step_ms)
        object.__setattr__(self, "augment", as_augmentations(self.augment))
        check_fields(self, but=("name", "transforms", "source", "encoder"))
        if self.steps is None and info.window_ms:
            window = Fraction(str(info.window_ms)) * 1000
            object.__setattr__(self, "steps", int(-(-window // self.step_us)))  # rounded up
        _check_encoder(self.encoder)
        if self.has_events and self.steps is None:
            raise SnnError(f"{self.name}: it states no window_ms, how long a recording is. Give Data(..., steps=50).")
        if self.has_events and self.encoder is not None:
            raise SnnError(f"{self.name}: encoder={shown(self.encoder)} makes frames of values, and these are events.")
        if source is not None and not self.has_events:
            self.check_counting()
        if not (is_timed and self.has_events):
            check_crop(self.augment, self.name, step_ms=self.step_ms if is_timed else None)
        if self.name != IN_MEMORY:
            axes = None if not self.has_events else 1 if info.sensor is None else 3
            name = f"{TONIC}{source.name}" if isinstance(source, TonicSet) else self.name
            check_recordings(self.augment, name, are_events=self.has_events, axes=axes)
        if self.folds is not None and self.fold >= self.folds:
            raise SnnError(f"Data(fold={self.fold}): of {self.folds} folds it is one of 0..{self.folds - 1}.")
        if self.folds is not None and (self.test_groups or self.test_fraction):
            raise SnnError("Data(folds): a fold is the test split where nothing else is; leave the others out.")
        if self.test_groups and self.test_fraction:
            raise SnnError("Data(test_groups, test_fraction): both draw the test split. Give one of them.")
        if self.rotate_deg and info.sensor is None and self.name != IN_MEMORY:
            raise SnnError(
                f"{self.name}: rotate_deg={self.rotate_deg} turns images; a row of channels can only be shifted."
            )
        object.__setattr__(self, "transforms", _as_tuple(self.transforms))
        if info.sensor is not None and not self.transforms:
            check_downsample(self, info.sensor[:2])

    @property
    def info(self) -> DataSetInfo:
        """What those who recorded the set, or a source of one's own, state of it."""
        source = source_of(self)
        return DATA_SETS.get(self.name, _IN_MEMORY) if source is None else info_of(source)

    @property
    def has_events(self) -> bool:
        """Whether recordings are events that are counted; where they are handed in, the data set knows."""
        source = source_of(self)
        return self.name != IN_MEMORY if source is None else not gives_frames(source)

    def check_counting(self) -> None:
        """Raise where something is asked that acts on events only."""
        for field, left_out in (("translate_px", 0), ("rotate_deg", 0), ("downsample", 1), ("binary", False)):
            if getattr(self, field) != left_out:
                raise SnnError(
                    f"{self.name}: {field}={getattr(self, field)!r} acts on events, and these are frames. Leave "
                    f"{field} out, or do it in a transform of your own."
                )

    @property
    def step_us(self) -> int:
        """One step in microseconds, exactly."""
        return _microseconds(self.step_ms or 0)

    @property
    def window_us(self) -> int:
        """Length of what is encoded, from the start of a recording."""
        return (self.steps or 0) * self.step_us


def source_of(data: Data) -> Any:
    """What gives the recordings: a source of one's own, or that which the name stands for; None for sets read here."""
    if data.source is not None:
        return data.source
    if data.name == FOLDER:
        if data.root is None:
            raise SnnError("Data('folder'): root is missing. As in Data('folder', root='/data', sensor=(346, 260, 2)).")
        return Folder(data.root, sensor=data.sensor or ())
    if data.name.startswith(TONIC):
        return TonicSet(data.name.removeprefix(TONIC), data.root)
    return None


FOLDER, TONIC = "folder", "tonic:"  # the names of sets in files of one's own, and how those of tonic's begin
_IN_MEMORY = DataSetInfo(
    name=IN_MEMORY,
    sensor=None,
    class_names=(),
    window_ms=0,
    step_ms=FRAME_MS,
    totals={},
    event_dtype=ADDRESS_EVENT,
)
_YOUR_OWN = (
    "Your own recordings come as files, Data('folder', root='/data', sensor=(346, 260, 2), step_ms=10, steps=40); as a "
    "source, Data(Mine()), a frozen dataclass with sensor = (346, 260, 2), class_names, step_ms, window_ms and "
    "recordings(self, part), which yields (events, class), see help(snn_bp.Data); or as arrays, by train(experiment, "
    "out, dataset=Dataset.of(train=(x, y)))."
)


def _check_encoder(encoder: Any) -> None:
    if isinstance(encoder, type):
        raise SnnError(f"Data(encoder): {encoder.__name__} is a class. Write {encoder.__name__}(...).")
    ours = type(encoder).__module__.partition(".")[0] == "snn_bp"
    if encoder is not None and (not callable(encoder) or (ours and type(encoder) not in get_args(Encoder))):
        raise SnnError(
            f"Data(encoder={shown(encoder)}): it should be an encoder, as Delta(threshold=0.1), or a value of your own "
            "that is called with a recording and a generator of random numbers."
        )


def check_downsample(data: Data, size: tuple[int, ...]) -> None:
    """Raise unless `data.downsample` divides the sensor's width and height, or its number of channels."""
    if all(length % data.downsample == 0 for length in size):
        return
    works = [str(n) for n in range(1, max(size) + 1) if all(length % n == 0 for length in size)]
    shown = "x".join(str(length) for length in size)
    raise SnnError(
        f"{data.name}: downsample={data.downsample} does not divide the sensor's {shown}. These do: {', '.join(works)}."
    )


def _microseconds(step_ms: float) -> int:
    # The decimal the user wrote, not its binary neighbour: 0.3 ms is 300 us.
    return int(Fraction(str(float(step_ms))) * 1000)


def _check_step(step_ms: Any) -> None:
    if not is_number(step_ms) or not 0.001 <= step_ms <= 1_000_000:
        raise SnnError(
            f"Data(step_ms={shown(step_ms)}): it lies in 0.001..1000000 ms. Events are timed in microseconds."
        )
    if Fraction(str(float(step_ms))) * 1000 != _microseconds(step_ms):
        nearest = round(step_ms * 1000) / 1000
        raise SnnError(f"step_ms={step_ms!r}: a step is a whole number of microseconds. step_ms={nearest} would do.")


def _as_tuple(transforms: Any) -> tuple[Any, ...]:
    given = (transforms,) if callable(transforms) else transforms
    for transform in given if isinstance(given, tuple | list) else (given,):
        if isinstance(transform, type):
            raise SnnError(f"Data(transforms): {transform.__name__} is a class. Write {transform.__name__}(...).")
        if not callable(transform):
            raise SnnError(
                f"Data(transforms): {shown(transform)} cannot be called with events. "
                "Give a tuple of tonic transforms, such as Denoise(filter_time=10000)."
            )
    return tuple(given)
