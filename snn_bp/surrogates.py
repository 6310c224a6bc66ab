"""Surrogate spike derivatives: what the backward pass uses in place of the step's zero or infinite derivative.

The shapes stand in `equations/shapes.py`; a surrogate names one and holds its slope. Names and default slopes are those of
`snntorch.surrogate`. Slopes count per unit of threshold, so that a network behaves the same when weights and
threshold are scaled together; `per="potential"` counts them as snnTorch does. At threshold 1 both are the same.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from snn_bp.errors import SnnError, check_choice, shown
from snn_bp.errors.fields import Called, Within, check_fields

Unit: TypeAlias = Literal["threshold", "potential"]

SHAPES = {
    "ATan": "atan",
    "FastSigmoid": "fast_sigmoid",
    "Sigmoid": "sigmoid",
    "Triangular": "triangular",
    "Boxcar": "boxcar",
    "StraightThrough": "straight_through",
    "Exponential": "exponential",
    "Gaussian": "gaussian",
    "MultiGaussian": "multi_gaussian",
}


class SlopeOf(NamedTuple):
    """What of a surrogate a kernel is compiled for: all but the number of its slope."""

    shape: str
    per: str


@dataclass(frozen=True, repr=False)
class Surrogate:
    """One of the shapes in `SHAPES` with its slope; made by the functions below."""

    shape: str
    slope: Annotated[float, Within(above=0), Called("a positive number, as in ATan(slope=2.0)")]
    per: Unit = "threshold"

    def __post_init__(self) -> None:
        check_choice("surrogate shape", self.shape, SHAPES)
        check_fields(self)

    @property
    def slope_of(self) -> SlopeOf:
        """What a kernel is compiled for."""
        return SlopeOf(self.shape, self.per)

    def __repr__(self) -> str:
        unit = "" if self.per == "threshold" else f", per={self.per!r}"
        return f"{self.shape}(slope={self.slope}{unit})"


def check_surrogate(surrogate: Any) -> None:
    """Raise unless `surrogate` is one of ours, made and not merely named."""
    if type(surrogate) is not Surrogate:
        name = getattr(surrogate, "__name__", "")
        advice = f"write {name}()" if name in SHAPES else "it should be a surrogate, as ATan(slope=2)"
        raise SnnError(f"surrogate={name if name in SHAPES else shown(surrogate)}: {advice}.")


def ATan(slope: float = 2.0, *, per: Unit = "threshold") -> Surrogate:
    """Derivative of an arc tangent; half its height at 2 / (pi slope) from threshold. Our default."""
    return Surrogate("ATan", slope, per)


def FastSigmoid(slope: float = 25.0, *, per: Unit = "threshold") -> Surrogate:
    """1 / (1 + slope |u|)^2: height 1 at threshold whatever the slope, heavy tails."""
    return Surrogate("FastSigmoid", slope, per)


def Sigmoid(slope: float = 25.0, *, per: Unit = "threshold") -> Surrogate:
    """Derivative of the logistic function."""
    return Surrogate("Sigmoid", slope, per)


def Triangular(slope: float = 1.0, *, per: Unit = "threshold") -> Surrogate:
    """A triangle of half-width 1 / slope. (snnTorch's function of this name is not a triangle.)"""
    return Surrogate("Triangular", slope, per)


def Boxcar(slope: float = 2.0, *, per: Unit = "threshold") -> Surrogate:
    """A box of half-width 1 / slope: exactly zero outside."""
    return Surrogate("Boxcar", slope, per)


def StraightThrough(slope: float = 1.0, *, per: Unit = "threshold") -> Surrogate:
    """1 everywhere; the slope has no effect."""
    return Surrogate("StraightThrough", slope, per)


def Exponential(slope: float = 5.0, *, per: Unit = "threshold") -> Surrogate:
    """A two-sided exponential, as in SLAYER."""
    return Surrogate("Exponential", slope, per)


def Gaussian(slope: float = 2.0, *, per: Unit = "threshold") -> Surrogate:
    """A normal density of standard deviation 1 / slope."""
    return Surrogate("Gaussian", slope, per)


def MultiGaussian(slope: float = 2.0, *, per: Unit = "threshold") -> Surrogate:
    """A normal density with negative side lobes; standard deviation 1 / slope."""
    return Surrogate("MultiGaussian", slope, per)
