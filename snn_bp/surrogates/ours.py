"""The surrogate as a value, and the nine shapes that `snntorch.surrogate` knows: one line of arithmetic each."""

import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from snn_bp.equations.arithmetic import exp, where
from snn_bp.equations.shapes import Shape
from snn_bp.errors import SnnError, check_choice, shown
from snn_bp.errors.calls import checked_call, checked_dataclass
from snn_bp.errors.fields import Called, Within, check_fields

Unit: TypeAlias = Literal["threshold", "potential"]
Kinks: TypeAlias = tuple[float, ...] | Callable[..., tuple[float, ...]] | None

SHAPES: dict[str, "Kind"] = {}  # ours, by their names
TEXTS: dict[str, str] = {}  # texts of own shapes, by the keys of all surrogates that were made in this process


class SlopeOf(NamedTuple):
    """What of a surrogate a kernel is compiled for: all but the number of its slope."""

    shape: str  # a name in `SHAPES`, or the key of an own one
    per: str

    @property
    def text(self) -> str:
        """The text of the shape."""
        return SHAPES[self.shape].recorded(()).text if self.shape in SHAPES else TEXTS[self.shape]


@dataclass(frozen=True, eq=False)
class Kind:
    """A line of arithmetic, and what is said of it."""

    function: Callable[..., Any]
    numbers: Mapping[str, Any]  # parameters but the slope, and their defaults
    integral: Callable[..., Any] | None = None
    kinks: Kinks = None

    @functools.lru_cache(maxsize=256)  # noqa: B019 - kinds live as long as the process
    def recorded(self, numbers: tuple[tuple[str, float], ...]) -> Shape:
        """Its shape, for these numbers of its parameters."""
        return Shape.of(self.function, dict(numbers))


@checked_dataclass(frozen=True, repr=False)
class Surrogate:
    """What a spike's derivative is replaced by: one of the shapes in `SHAPES` with its slope. Own ones, which
    `@surrogate` makes, are classes below this one.

    Parameters:
        shape: its name, "ATan" for one; `ATan(slope=2)` says the same.
        slope: how steep, per unit of threshold; positive.
        per ("threshold"): "potential" counts the slope per unit of potential, as snnTorch does.

    >>> Surrogate("ATan", 2.0) == ATan(slope=2.0)
    True
    """

    shape: str
    slope: Annotated[float, Within(above=0), Called("a positive number, as in ATan(slope=2.0)")]
    per: Unit = "threshold"

    kind: ClassVar[Kind]  # an own one has it

    def __post_init__(self) -> None:
        check_choice("surrogate shape", self.shape, SHAPES)
        check_fields(self)

    @staticmethod
    def is_one(value: Any) -> bool:
        """Whether a value is one of ours or of `@surrogate`, and not of a class below these."""
        return type(value) is Surrogate or (isinstance(value, Surrogate) and "kind" in vars(type(value)))

    @property
    def slope_of(self) -> SlopeOf:
        """What a kernel is compiled for."""
        return SlopeOf(self.shape, self.per)

    @property
    def recorded(self) -> Shape:
        """What it computes."""
        return SHAPES[self.shape].recorded(())

    @property
    def kinks(self) -> tuple[float, ...]:
        """All distances from threshold at which its slope, or a derivative of it, may jump."""
        found = self.recorded.switches(self.slope)
        assert found is not None
        return found

    @property
    def peak(self) -> float:
        """The distance from threshold at which its slope is largest."""
        return 0.0

    def __repr__(self) -> str:
        return f"{self.shape}(slope={self.slope}{self._unit()})"

    def _unit(self) -> str:
        return "" if self.per == "threshold" else f", per={self.per!r}"


def check_surrogate(surrogate: Any) -> None:
    """Raise unless `surrogate` is one of ours or of the user's, made and not merely named."""
    if not Surrogate.is_one(surrogate):
        name = getattr(surrogate, "__name__", "")
        named = name in SHAPES or (isinstance(surrogate, type) and issubclass(surrogate, Surrogate))
        advice = f"write {name}()" if named else "it should be a surrogate, as ATan(slope=2)"
        raise SnnError(f"surrogate={name if named else shown(surrogate)}: {advice}.")


class Maker(Protocol):
    """What makes a surrogate of one shape."""

    def __call__(self, slope: float = ..., *, per: Unit = ...) -> Surrogate: ...


def _ours(function: types.FunctionType) -> Maker:
    """What makes a surrogate of a shape of ours, which files and pickles know by its name."""
    name = function.__name__
    assert function.__kwdefaults__ is not None
    usual = function.__kwdefaults__["slope"]

    def make(slope: float = usual, *, per: Unit = "threshold") -> Surrogate:
        return Surrogate(name, slope, per)

    SHAPES[name] = Kind(function, {})
    make.__name__ = make.__qualname__ = name
    make.__doc__ = function.__doc__
    return checked_call(make)


@_ours
def ATan(u, *, slope=2.0):
    """Derivative of an arc tangent; half its height at 2 / (pi slope) from threshold. Our default. Fang et al. 2021.

    `slope` (2.0) and `per` ("threshold") are those of `Surrogate`, as in all surrogates.

    >>> ATan(slope=4)
    ATan(slope=4)
    """
    y = 1.5707963267948966 * slope * u
    return 0.5 * slope / (1 + y * y)


@_ours
def FastSigmoid(u, *, slope=25.0):
    """1 / (1 + slope |u|)^2: height 1 at threshold whatever the slope, heavy tails.

    Zenke & Ganguli 2018 (SuperSpike). `slope` is 25.0 by default; `per` is as in `Surrogate`.

    >>> FastSigmoid(10, per="potential")
    FastSigmoid(slope=10, per='potential')
    """
    y = 1 + slope * abs(u)
    return 1 / (y * y)


@_ours
def Sigmoid(u, *, slope=25.0):
    """Derivative of the logistic function of slope * u, in a form that overflows nowhere.

    `slope` is 25.0 by default; `per` is as in `Surrogate`.

    >>> Sigmoid()
    Sigmoid(slope=25.0)
    """
    e = exp(-abs(slope * u))
    return slope * e / ((1 + e) * (1 + e))


@_ours
def Triangular(u, *, slope=1.0):
    """A triangle of half-width 1 / slope, slope * max(0, 1 - slope |u|). Esser et al. 2016; Bellec et al. 2018.

    snnTorch's function of this name is not a triangle. `slope` is 1.0 by default; `per` is as in `Surrogate`.

    >>> Triangular(slope=2).kinks
    (-0.5, 0.0, 0.5)
    """
    y = slope * abs(u)
    return where(y < 1, slope * (1 - y), 0)


@_ours
def Boxcar(u, *, slope=2.0):
    """A box of half-width 1 / slope: slope / 2 inside, exactly zero outside.

    `slope` is 2.0 by default; `per` is as in `Surrogate`.

    >>> Boxcar().kinks
    (-0.5, 0.0, 0.5)
    """
    return where(slope * abs(u) < 1, 0.5 * slope, 0)


@_ours
def StraightThrough(u, *, slope=1.0):
    """1 everywhere; `slope` has no effect, nor has `per`. Bengio et al. 2013.

    >>> StraightThrough()
    StraightThrough(slope=1.0)
    """
    return 1.0


@_ours
def Exponential(u, *, slope=5.0):
    """A two-sided exponential, slope / 2 * exp(-slope |u|). Shrestha & Orchard 2018 (SLAYER).

    `slope` is 5.0 by default; `per` is as in `Surrogate`.

    >>> Exponential(slope=3)
    Exponential(slope=3)
    """
    return 0.5 * slope * exp(-slope * abs(u))


@_ours
def Gaussian(u, *, slope=2.0):
    """A normal density of standard deviation 1 / slope.

    `slope` is 2.0 by default; `per` is as in `Surrogate`.

    >>> Gaussian().peak
    0.0
    """
    y = slope * u
    return 0.3989422804014327 * slope * exp(-0.5 * y * y)


@_ours
def MultiGaussian(u, *, slope=2.0):
    """A normal density of standard deviation 1 / slope, with two negative side lobes.

    Yin et al. 2021: h = 0.15, lobes six times as wide. `slope` is 2.0 by default; `per` is as in `Surrogate`.

    >>> MultiGaussian()
    MultiGaussian(slope=2.0)
    """
    y = slope * u
    centre = 1.15 * exp(-0.5 * y * y)
    left, right = (y + 1) / 6, (y - 1) / 6
    lobes = 0.15 / 6 * (exp(-0.5 * left * left) + exp(-0.5 * right * right))
    return 0.3989422804014327 * slope * (centre - lobes)
