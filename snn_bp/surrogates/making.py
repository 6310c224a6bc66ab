"""Surrogates of the user's own: `@surrogate` above one line of arithmetic makes a value like `ATan(slope=2)` of it."""

import functools
import inspect
import math
import types
from collections.abc import Callable
from dataclasses import field, fields, make_dataclass
from typing import Annotated, Any, TypeAlias, overload

import numpy as np

from snn_bp.equations.shapes import Shape
from snn_bp.errors import SnnError, is_number, shown
from snn_bp.errors.calls import checked_call
from snn_bp.errors.fields import Called, Within, check_fields
from snn_bp.surrogates.ours import TEXTS, Kind, Kinks, Surrogate, Unit

FARTHEST = 1e6  # up to this distance from threshold a slope is a finite number
Integral: TypeAlias = Callable[..., Any] | None


@overload
def surrogate(function: Callable[..., Any], /) -> Callable[..., Surrogate]: ...
@overload
def surrogate(
    *, integral: Integral = None, kinks: Kinks = None
) -> Callable[[Callable[..., Any]], Callable[..., Surrogate]]: ...


@checked_call
def surrogate(function: Any = None, /, *, integral: Integral = None, kinks: Kinks = None) -> Any:
    """A surrogate of one's own, made of a line of arithmetic: the slope that a spike is given at a distance `u`.

    >>> @surrogate
    ... def Cauchy(u, *, slope=2.0):
    ...     return slope / (1 + (slope * u) ** 2)
    >>> Cauchy(3, per="potential")
    Cauchy(slope=3, per='potential')

    Such values stand wherever `ATan(slope=3)` does. Behind the star are its parameters, numbers. All but `slope` become
    part of what is compiled: with other values it is compiled anew. The line knows `+ - * / **`, `abs`, `min`, `max`,
    `exp`, comparisons and `& | ~` of them, and `where(condition, a, b)`. A shape that is not finite up to a distance of
    1e6, or nowhere positive, is refused.

    Parameters:
        function: the line below the decorator.
        integral (None): of it from 0 to `u`, which checks of gradients need, as a function of a tensor and the
            parameters, `lambda u, *, slope: ...`; None: found by quadrature.
        kinks (None): the points where it or its derivatives jump, as numbers, or by a function, `lambda *, slope: (-1 /
            slope, 1 / slope)`; None: read from comparisons of straight lines in `u`, as `abs(u) < 1 / slope`.
    """
    if function is None:
        return lambda found: _made_of(found, integral, kinks)
    return _made_of(function, integral, kinks)


class OwnSurrogate(Surrogate):
    """What the classes that `@surrogate` makes have in common."""

    def __post_init__(self) -> None:
        check_fields(self, but=("shape",))
        for name in type(self).kind.numbers:
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "shape", self.recorded.key)
        TEXTS[self.shape] = self.recorded.text
        _peak_of(self)

    @property
    def parameters(self) -> dict[str, float]:
        """Its numbers by their names."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.init and each.name != "per"}

    @property
    def recorded(self) -> Shape:
        """What it computes."""
        return type(self).kind.recorded(tuple((name, getattr(self, name)) for name in type(self).kind.numbers))

    @property
    def kinks(self) -> tuple[float, ...]:
        """All distances from threshold at which its slope, or a derivative of it, may jump."""
        name, kinks = type(self).__name__, type(self).kind.kinks
        if kinks is None:
            found = self.recorded.switches(self.slope)
            if found is None:
                raise SnnError(
                    f"{name}: where it switches cannot be read, as a comparison or an abs in it is of no straight line "
                    "in u. Write it of one, abs(u) < 1, or name the points u: @surrogate(kinks=(-1.0, 1.0))."
                )
            return found
        points = kinks(**self.parameters) if callable(kinks) else kinks
        if not isinstance(points, tuple | list) or not all(map(is_number, points)):
            raise SnnError(
                f"{name}: kinks={shown(points)} should be points u, as (-1.0, 1.0), or a function that gives them."
            )
        return tuple(sorted({float(point) for point in points}))

    @property
    def peak(self) -> float:
        """The distance from threshold at which its slope is largest."""
        return _peak_of(self)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({(parts + self._unit()).removeprefix(', ')})"

    def __reduce__(self) -> Any:  # making it anew says again what the key of its shape stands for
        return _anew, (type(self), {**self.parameters, "per": self.per})


def _anew(kind: Callable[..., Surrogate], values: dict[str, Any]) -> Surrogate:
    return kind(**values)


def _made_of(function: Any, integral: Integral, kinks: Kinks) -> type[OwnSurrogate]:
    if not isinstance(function, types.FunctionType):
        raise SnnError(
            f"@surrogate: it stands above a function, found {shown(function)}. "
            "As in: @surrogate def Cauchy(u, *, slope=2.0): ..."
        )
    name = function.__name__
    parameters = _parameters(name, inspect.signature(function))
    numbers = {each: default for each, default in parameters.items() if each != "slope"}
    positive = Annotated[float, Within(above=0), Called(f"a positive number, as in {name}(slope=2.0)")]
    slope = _field(parameters["slope"]) if "slope" in parameters else field(default=1.0, init=False)
    made = make_dataclass(
        name,
        [
            ("shape", str, field(default="", init=False)),
            ("slope", positive, slope),
            ("per", Unit, field(default="threshold", kw_only=True)),
            *((each, float, _field(default, kw_only=True)) for each, default in numbers.items()),
        ],
        bases=(OwnSurrogate,), frozen=True, repr=False,
        namespace={"kind": Kind(function, numbers, integral, kinks), "__doc__": function.__doc__},
    )  # fmt: skip
    made.__module__, made.__qualname__ = function.__module__, function.__qualname__
    _check_kind(checked_call(made), parameters)
    return made


_NONE = inspect.Parameter.empty


def _field(default: Any, **options: Any) -> Any:
    return field(**options) if default is _NONE else field(default=default, **options)


def _parameters(name: str, signature: inspect.Signature) -> dict[str, Any]:
    """The parameters behind the star and their defaults; raises where a function takes other things."""
    first, others = next(iter(signature.parameters.values()), None), [*signature.parameters.values()][1:]
    written = f"It is written `def {name}(u, *, slope=2.0)`: the distance from threshold, a star, numbers."
    if first is None or (first.name, first.kind, first.default) != ("u", first.POSITIONAL_OR_KEYWORD, _NONE):
        raise SnnError(f"{name}{signature}: a surrogate is a function of `u`. {written}")
    for each in others:
        if each.kind is not each.KEYWORD_ONLY:
            raise SnnError(f"{name}: {str(each)!r} is no parameter of a surrogate. {written}")
        if each.default is not _NONE and not is_number(each.default):
            raise SnnError(f"{name}({each.name}={shown(each.default)}): a parameter of a surrogate is a number.")
        if each.name in ("shape", "kind") or (each.name != "slope" and hasattr(OwnSurrogate, each.name)):
            raise SnnError(f"{name}: {each.name!r} is no name for a parameter of a surrogate. Give it another.")
    return {each.name: each.default for each in others}


def _check_kind(made: type[OwnSurrogate], parameters: dict[str, Any]) -> None:
    """Raise where the line is no surrogate, or what was said beside it does not fit."""
    name, kind = made.__name__, made.kind
    for what, given, first in (("integral", kind.integral, ("u",)), ("kinks", kind.kinks, ())):
        if given is None or (what == "kinks" and isinstance(given, tuple | list)):
            continue
        try:
            inspect.signature(given).bind(*first, **parameters)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            takes = ", ".join([*first, *("*",) * bool(parameters), *parameters])
            raise SnnError(f"{name}: {what}={shown(given)} should be a function of ({takes}).") from None
    if _NONE not in parameters.values():
        made()  # type: ignore[call-arg]


@functools.lru_cache(maxsize=256)
def _peak_of(surrogate: OwnSurrogate) -> float:
    """Where it is largest; raises where it is not finite, or nowhere positive, or its kinks are not known."""
    kinks = np.asarray(surrogate.kinks)
    sides = [np.nextafter(kinks, side) for side in (-math.inf, math.inf)]
    steps = np.concatenate([np.linspace(0, 10, 10_001), np.geomspace(1e-9, FARTHEST, 301)])
    steps = np.concatenate([steps, steps / surrogate.slope])
    u = np.concatenate([[0.0], steps, -steps, (kinks[1:] + kinks[:-1]) / 2, kinks, *sides])
    u = u[np.abs(u) <= FARTHEST]
    values = u
    for dtype, precision in ((np.float32, "single"), (np.float64, "double")):
        values = surrogate.recorded.at(u.astype(dtype), surrogate.slope)
        if not np.isfinite(values).all():
            at = int(np.argmin(np.isfinite(values)))
            raise SnnError(
                f"{surrogate!r}: at u={u[at]:.6g} it is {values[at]} in {precision} precision. A surrogate is finite "
                f"up to {FARTHEST:g} from threshold: exp(-abs(slope * u)) overflows nowhere, exp(slope * u) does."
            )
    largest = int(np.argmax(values))
    if not values[largest] > 0:
        raise SnnError(
            f"{surrogate!r}: it is nowhere above 0, and so no error comes through. It should be the slope of a spike "
            "that rises with u; is a sign missing?"
        )
    return float(u[largest])
