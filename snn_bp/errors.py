"""The one error a user meets, and the checks that raise it where a user's value enters."""

import difflib
import math
from collections.abc import Iterable
from typing import Any


class SnnError(ValueError):
    """What was asked, what was found, and what would work."""


def check_range(name: str, value: float, low: float, high: float, *, hint: str = "") -> None:
    """Raise unless `value` is a finite number in `low..high`."""
    if not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        raise SnnError(f"{name}={value!r}: it lies in {low}..{high}.{' ' + hint if hint else ''}")


def check_number(
    name: str, value: Any, *, whole: bool = False, low: float | None = None, high: float | None = None,
    above: float | None = None,
) -> None:  # fmt: skip
    """Raise unless `value` is a number (a whole one) within the bounds given, the upper `high` included."""
    kinds = int if whole else (int, float)
    fits = isinstance(value, kinds) and not isinstance(value, bool) and value == value
    fits = fits and (low is None or value >= low) and (high is None or value <= high)
    if not (fits and (above is None or above < value < float("inf"))):
        bounds = [f"from {low} up"] * (low is not None and high is None) + [f"in {low}..{high}"] * (high is not None)
        bounds += [f"above {above}"] * (above is not None)
        raise SnnError(f"{name}={value!r}: it should be a {'whole ' * whole}number {', '.join(bounds)}.")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise unless `value` is one of `choices`; the message names the nearest one."""
    choices = list(choices)
    if value not in choices:
        raise SnnError(f"{name}={value!r} is not known. {nearest(str(value), choices)}")


def nearest(word: str, choices: Iterable[str]) -> str:
    """The sentence that points from a misspelt word to the nearest of `choices`, or lists them."""
    choices = list(choices)
    close = difflib.get_close_matches(word, choices, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(choices)}."
