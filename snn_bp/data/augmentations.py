"""Augmentations: how training recordings are changed while they become frames, and where each of them is refused.

An augmentation is a frozen value. All of them are done in the compiled pass that counts events, whatever their order:
a second recording is mixed in, events are dropped and moved, the window is cut, the recording is mirrored, then turned
and shifted (`rotate_deg`, `translate_px`); noise is added last. Of frames, whole rectangles and steps can be dropped,
mixed, cut and mirrored. What is drawn depends on the recording's id and the seed alone.

Where the second recording may be of another class, targets are soft: fractions of two classes, `[batch, classes]`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias, get_args

from snn_bp.data.catalogue import MIRRORED
from snn_bp.errors import SnnError, nearest
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Within, check_fields
from snn_bp.model.targets import Targets

Probability = Annotated[float, Within(0, 1)]
Fraction = Annotated[float, Within(above=0, high=1)]
Classes = Literal["same", "any"]
Milliseconds = Annotated[float, Within(0.001, 1_000_000)]  # events are timed in microseconds
Distance = Annotated[float, Within(0.14, 65_536)]  # all that a smaller one draws rounds to 0


@checked_dataclass(frozen=True)
class Flip:
    """Mirrors a recording left to right, with the probability `p` (0.5).

    `classes` names pairs that a mirror turns into each other: a mirrored recording of one gets the other as its target.
    Refused for rows of channels, for digits and letters, and for DVS Gesture unless all its pairs are named. Of
    recordings of your own you know whether a mirrored one is right.

    >>> Data("tonic:CIFAR10DVS", augment=Flip()).augment
    (Flip(p=0.5, classes=()),)
    """

    p: Probability = 0.5
    classes: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        names = [name for pair in self.classes for name in pair]
        if any(len(pair) != 2 for pair in self.classes) or len(set(names)) < len(names):
            raise SnnError(
                f"Flip(classes={self.classes!r}): it should be pairs of names, each name once, as in "
                "classes=(('left', 'right'),)."
            )


@checked_dataclass(frozen=True)
class EventDrop:
    """Drops events (EventDrop, Gu et al. 2021), up to the `fraction` given, which is drawn for each recording.

    `by` ("any"): "events" drops each event with that probability, "time" a stretch of the window that is that fraction
    of it long, "area" a rectangle whose sides are that fraction of the sensor's (cutout; a band of a row of channels).
    "any" does one of these three or nothing, each equally often, as published.

    >>> Data("nmnist", augment=EventDrop(0.3)).augment
    (EventDrop(fraction=0.3, by='any'),)
    """

    fraction: Fraction
    by: Literal["any", "events", "time", "area"] = "any"

    def __post_init__(self) -> None:
        check_fields(self)


@checked_dataclass(frozen=True)
class TimeJitter:
    """Moves each event in time, by a normal number of `ms` standard deviation (rounded to microseconds).

    What leaves the window is not counted.

    >>> TimeJitter(ms=2)
    TimeJitter(ms=2)
    """

    ms: Milliseconds

    def __post_init__(self) -> None:
        check_fields(self)


@checked_dataclass(frozen=True)
class ChannelJitter:
    """Moves each event of a row of channels by a normal number of `channels` standard deviation (Cramer et al. 2022).

    The number is rounded; what leaves the row is not counted. All events of a recording together are shifted by
    `Data(translate_px=)`.

    >>> Data("shd", augment=ChannelJitter(20)).augment
    (ChannelJitter(channels=20),)
    """

    channels: Distance

    def __post_init__(self) -> None:
        check_fields(self)


@checked_dataclass(frozen=True)
class SpatialJitter:
    """Moves each event of a camera in x and in y by normal numbers of `px` standard deviation, in pixels, rounded.

    What leaves the sensor is not counted. All events of a recording together are shifted by `Data(translate_px=)`.

    >>> SpatialJitter(px=1)
    SpatialJitter(px=1)
    """

    px: Distance

    def __post_init__(self) -> None:
        check_fields(self)


@checked_dataclass(frozen=True)
class TimeCrop:
    """Takes the window from within the recording: it starts up to `ms` after the recording does (None: anywhere).

    Never so late that it would end behind the recording: a recording that is shorter than the window stays. In
    validation and test the window starts with the recording. Of frames `ms` is at least one of them, rounded to whole
    ones.

    >>> Data("dvs_gesture", augment=TimeCrop()).augment
    (TimeCrop(ms=None),)
    """

    ms: Milliseconds | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@checked_dataclass(frozen=True)
class NoiseEvents:
    """Adds events that are independent of each other, `hz` a second at each pixel or channel on average (Poisson).

    Polarities are equally likely. Noise belongs to the sensor: it is not shifted or turned.

    >>> NoiseEvents(hz=0.5)
    NoiseEvents(hz=0.5)
    """

    hz: Annotated[float, Within(above=0, high=100_000)]

    def __post_init__(self) -> None:
        check_fields(self)


@checked_dataclass(frozen=True)
class CutMix:
    """Puts a rectangle of a second recording in the place of the first one's, with the probability `p` (0.5).

    The rectangle (a band of a row of channels) lies anywhere; its fraction of the sensor, before the sensor's edge cuts
    it, is drawn evenly from 0..1.

    `classes` ("any", as published: Yun et al. 2019, on events Li et al. 2022): the second one is any other training
    recording, and the target is soft: the fraction of each class, of the second one's that of the sensor which it takes
    in the end. Losses on classes take such targets, one of your own where it says so by `takes_soft_targets`; accuracy
    in training is counted against the class with the larger fraction. "same": the second one is of the same class, and
    targets stay labels, which any loss takes. On digits "any" lost accuracy (the page on recordings has the figures).

    >>> Data("tonic:CIFAR10DVS", augment=(Flip(), CutMix())).augment
    (Flip(p=0.5, classes=()), CutMix(p=0.5, classes='any'))
    """

    p: Probability = 0.5
    classes: Classes = "any"

    def __post_init__(self) -> None:
        check_fields(self)


@checked_dataclass(frozen=True)
class Blend:
    """Makes one recording of two, with the probability `p` (0.5): of the events of each, every one stays by chance 0.5.

    `classes` ("same", after Nowotny et al. 2022, who align the two first; here they stay where they are): the second is
    another training recording of the same class. "any": of any class, and the target soft, as of `CutMix`, a half of
    each: every recording gives half of itself, however many events that are (as mixup, Zhang et al. 2018, at 1/2; Shen
    et al. 2023 count events). Of two halves accuracy in training is counted against the first class by number.

    >>> Data("shd", translate_px=40, augment=Blend()).augment
    (Blend(p=0.5, classes='same'),)
    """

    p: Probability = 0.5
    classes: Classes = "same"

    def __post_init__(self) -> None:
        check_fields(self)


Augmentation: TypeAlias = (
    Flip | EventDrop | TimeJitter | ChannelJitter | SpatialJitter | TimeCrop | NoiseEvents | CutMix | Blend
)


def as_augmentations(augment: Any) -> Any:
    """A tuple of them, also from one alone; raises where two exclude each other."""
    augment = (augment,) if isinstance(augment, get_args(Augmentation)) else augment
    if not isinstance(augment, tuple | list):
        return augment
    kinds = [type(each).__name__ for each in augment]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise SnnError(f"Data(augment): {kind} is there {kinds.count(kind)} times. Each is done once.")
    if {"CutMix", "Blend"} <= set(kinds):
        raise SnnError("Data(augment): CutMix and Blend both mix a recording with a second one. Give one of them.")
    return tuple(augment)


def mixing_classes(augment: Sequence[Augmentation]) -> CutMix | Blend | None:
    """The augmentation that mixes recordings of any classes, by which targets become soft; None where none does."""
    return next((each for each in augment if isinstance(each, CutMix | Blend) and each.classes == "any"), None)


def check_recordings(augment: Sequence[Augmentation], name: str, *, are_events: bool, axes: int | None) -> None:
    """Raise where an augmentation is wrong for the recordings of the set `name`.

    `axes` of one step: 1 of a row of channels, 3 of an image [C, H, W]; None: not known yet.
    """
    for each in augment:
        kind = type(each).__name__
        if not are_events:
            by_chance = isinstance(each, EventDrop) and each.by in ("any", "events")
            if by_chance or not isinstance(each, Flip | EventDrop | TimeCrop | CutMix):
                works = "EventDrop(..., by='time') or by='area' acts on both." if by_chance else "Leave it out."
                raise SnnError(f"{name}: {each} acts on single events, and these are frames. {works}")
            if axes not in (None, 1, 3):
                raise SnnError(
                    f"{name}: {kind} acts on rows of channels and images [C, H, W], and a step has {axes} axes here. "
                    "Leave it out."
                )
        if axes == 1 and isinstance(each, Flip | SpatialJitter):
            works = "Leave Flip out." if isinstance(each, Flip) else "ChannelJitter(channels=...) is for those."
            raise SnnError(f"{name}: {kind} is for images, and these are rows of channels. {works}")
        if axes == 3 and isinstance(each, ChannelJitter):
            raise SnnError(f"{name}: ChannelJitter is for rows of channels. SpatialJitter(px=...) is for cameras.")
        if isinstance(each, Flip) and name in MIRRORED:
            reason, pairs = MIRRORED[name]
            if not pairs:
                raise SnnError(f"{name}: a mirrored recording is wrong, {reason}. Leave Flip out.")
            if set(map(frozenset, each.classes)) != set(map(frozenset, pairs)):
                raise SnnError(f"{name}: a mirrored recording may be wrong, {reason}. Flip(classes={pairs}) is right.")


def check_crop(augment: Sequence[Augmentation], name: str, *, step_ms: float | None) -> None:
    """Raise where the window would start by no frame later, or how long a frame is has not been said (None)."""
    for each in augment:
        if not isinstance(each, TimeCrop) or each.ms is None:
            continue
        if step_ms is None:
            raise SnnError(
                f"{name}: {each} counts milliseconds, and how long a frame is has not been said. Give step_ms, or "
                "TimeCrop(), which starts anywhere in the recording."
            )
        if each.ms < step_ms:
            raise SnnError(
                f"{name}: {each} is shorter than a frame of {step_ms:g} ms, so the window would not move. "
                f"TimeCrop(ms={step_ms:g}) moves it by one, TimeCrop() starts anywhere in the recording."
            )


def check_targets(augment: Sequence[Augmentation], name: str, targets: Targets) -> None:
    """Raise where an augmentation would make the targets of the set `name` wrong."""
    for each in augment:
        kind = type(each).__name__
        if isinstance(each, CutMix | Blend) and targets.kind != "class":
            raise SnnError(
                f"{name}: {kind} mixes recordings that have a class each, and targets are of the kind "
                f"{targets.kind!r}. Leave it out."
            )
        if isinstance(each, TimeCrop) and targets.is_per_step:
            raise SnnError(f"{name}: TimeCrop moves the window, and every step has a target of its own. Leave it out.")
        if isinstance(each, Flip):
            if not (targets.are_classes or targets.kind == "labels"):
                raise SnnError(
                    f"{name}: Flip leaves targets as they are, which for {targets.kind!r} may be wrong. Leave it out."
                )
            if each.classes and not targets.are_classes:
                raise SnnError(f"{name}: Flip(classes=...) is for classes, not for {targets.kind!r}. Leave it out.")
            for class_name in (name for pair in each.classes for name in pair):
                if class_name not in targets.names:
                    raise SnnError(
                        f"{name}: Flip(classes=...) names {class_name!r}. {nearest(class_name, targets.names)}"
                    )
