"""`Data`, the value that says which recordings to use and how they become frames."""

from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from typing import Any

from snn_bp.data.catalogue import ENTRIES
from snn_bp.errors import SnnError, check_choice, check_range


@dataclass(frozen=True)
class Data:
    """A set of recordings, and how each becomes `steps` frames of `step_ms` from the start of the recording.

    A recording starts at time 0 of its file; one cut out of a longer one (all of DVS Gesture, and N-MNIST's where the
    first event comes later than the usual window) starts at its first event. Events outside the window are not
    counted, and a run says how many there are.

    `step_ms` and `steps` left out become the set's usual step, and as many steps as cover its usual window.
    A step is a whole number of microseconds, the resolution of the events; other steps are refused.

    A frame counts events. `downsample` divides coordinates, and the counts of joined pixels add up; `binary`
    keeps only whether there was an event. `shift` moves training recordings by up to that many pixels of the
    sensor and `turn` turns them by up to that many degrees, both drawn anew for each seed. `transforms` are
    tonic's, or any callables, and apply to every split: structured events in and out; the last one may return
    frames [time, ...], used as they are.

    Files are looked for in `root`, else in the folder that the environment variable SNN_BP_DATA names,
    else in `~/.cache/snn_bp/data`. What is not there tonic downloads to the same place.
    """

    name: str
    _: KW_ONLY
    step_ms: float | None = None
    steps: int | None = None
    batch: int = 64
    root: str | None = None
    downsample: int = 1
    binary: bool = False
    shift: int = 0
    turn: float = 0.0
    validation: float = 0.1  # share of the training part, drawn from each class alike
    split_seed: int = 0
    transforms: tuple[Any, ...] = ()  # callables; tonic's have no common type

    def __post_init__(self) -> None:
        check_choice("data set", self.name, ENTRIES)
        entry = ENTRIES[self.name]
        if self.step_ms is None:
            object.__setattr__(self, "step_ms", entry.step_ms)
        _check_step(self.step_ms)
        if self.steps is None:
            object.__setattr__(self, "steps", -(-entry.window_ms * 1000 // self.step_us))  # rounded up
        for field, low in (("steps", 1), ("batch", 1), ("downsample", 1), ("shift", 0), ("split_seed", 0)):
            _check_count(field, getattr(self, field), low=low)
        check_range("turn", self.turn, 0, 180, hint="It is an angle in degrees.")
        check_range("validation", self.validation, 0, 0.9, hint="It is a share of the training part.")
        if self.turn and entry.sensor is None:
            raise SnnError(f"{self.name}: turn={self.turn} turns images; a row of channels can only be shifted.")
        object.__setattr__(self, "root", None if self.root is None else str(self.root))
        object.__setattr__(self, "transforms", _as_tuple(self.transforms))
        if entry.sensor is not None and not self.transforms:
            check_downsample(self, entry.sensor[:2])

    @property
    def step_us(self) -> int:
        """One step in microseconds, exactly."""
        return _microseconds(self.step_ms or 0)

    @property
    def window_us(self) -> int:
        """Length of what is encoded, from the start of a recording."""
        return (self.steps or 0) * self.step_us


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
    hint = "Events are timed in microseconds."
    check_range("step_ms", step_ms, 0.001, 1_000_000, hint=hint)
    if Fraction(str(float(step_ms))) * 1000 != _microseconds(step_ms):
        nearest = round(step_ms * 1000) / 1000
        raise SnnError(f"step_ms={step_ms!r}: a step is a whole number of microseconds. step_ms={nearest} would do.")


def _check_count(field: str, value: Any, *, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise SnnError(f"{field}={value!r}: it is a whole number, {low} or more.")


def _as_tuple(transforms: Any) -> tuple[Any, ...]:
    transforms = (transforms,) if callable(transforms) else tuple(transforms)
    for transform in transforms:
        if not callable(transform):
            raise SnnError(
                f"transforms: {transform!r} cannot be called with events. "
                "Give tonic transforms, such as Denoise(filter_time=10000)."
            )
    return transforms
