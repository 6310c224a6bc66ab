"""`Data`, the value that says which recordings to use and how they become frames."""

from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from pathlib import PurePath
from typing import Annotated, Any

from snn_bp.data.catalogue import DATA_SETS
from snn_bp.errors import SnnError, check_choice, is_number, shown
from snn_bp.errors.fields import Called, Within, check_fields


@dataclass(frozen=True)
class Data:
    """A set of recordings, and how each becomes `steps` frames of `step_ms` from the start of the recording.

    A recording starts at time 0 of its file; one cut out of a longer one (all of DVS Gesture, and N-MNIST's where the
    first event comes later than the usual window) starts at its first event. Events outside the window are not
    counted, and a run says how many there are.

    `step_ms` and `steps` left out become the set's usual step, and as many steps as cover its usual window.
    A step is a whole number of microseconds, the resolution of the events; other steps are refused.

    A frame counts events. `downsample` divides coordinates, and the counts of joined pixels add up; `binary`
    keeps only whether there was an event. `translate_px` moves training recordings by up to that many pixels of the
    sensor and `rotate_deg` turns them by up to that many degrees, both drawn anew for each seed. `validation_fraction`
    is taken from each class. `transforms` are
    tonic's, or any callables, and apply to every split: structured events in and out; the last one may return
    frames [time, ...], used as they are.

    Files are looked for in `root`, else in the folder that the environment variable SNN_BP_DATA names,
    else in `~/.cache/snn_bp/data`. What is not there tonic downloads to the same place.
    """

    name: str
    _: KW_ONLY
    step_ms: float | None = None
    steps: Annotated[int | None, Within(low=1)] = None
    batch: Annotated[int, Within(low=1)] = 64
    root: str | None = None
    downsample: Annotated[int, Within(low=1)] = 1
    binary: bool = False
    translate_px: Annotated[int, Within(low=0)] = 0
    rotate_deg: Annotated[float, Within(0, 180), Called("an angle in degrees, 0..180")] = 0.0
    validation_fraction: Annotated[float, Within(0, 0.9), Called("a fraction of the training part, 0..0.9")] = 0.1
    split_seed: Annotated[int, Within(0, 2**64 - 1)] = 0
    transforms: tuple[Any, ...] = ()  # callables; tonic's have no common type

    def __post_init__(self) -> None:
        check_choice("Data: name", self.name, DATA_SETS)
        info = DATA_SETS[self.name]
        if self.step_ms is None:
            object.__setattr__(self, "step_ms", info.step_ms)
        if isinstance(self.root, PurePath):
            object.__setattr__(self, "root", str(self.root))
        _check_step(self.step_ms)
        check_fields(self, but=("transforms",))
        if self.steps is None:
            object.__setattr__(self, "steps", -(-info.window_ms * 1000 // self.step_us))  # rounded up
        if self.rotate_deg and info.sensor is None:
            raise SnnError(
                f"{self.name}: rotate_deg={self.rotate_deg} turns images; a row of channels can only be shifted."
            )
        object.__setattr__(self, "transforms", _as_tuple(self.transforms))
        if info.sensor is not None and not self.transforms:
            check_downsample(self, info.sensor[:2])

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
