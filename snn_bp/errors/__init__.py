"""The one error a user meets, and the checks that raise it where a user's value enters."""

import difflib
import math
import numbers
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LONGEST = 100  # characters of a value in a message
LISTED = 60  # choices in a message


class SnnError(ValueError):
    """What was asked, what was found, and what would work: the one error that a user's value raises. A `ValueError`.

    >>> LIF(beta=1.3)
    Traceback (most recent call last):
        ...
    snn_bp.errors.SnnError: LIF(beta=1.3): a decay lies in 0..1. From a time constant: beta=decay(tau_ms=20, step_ms=1).
    """


def check_number(
    name: str, value: Any, *, integer: bool = False, low: float | None = None, high: float | None = None,
    above: float | None = None,
) -> None:  # fmt: skip
    """Raise unless `value` is a finite number (an integer) within the bounds given, the upper `high` included."""
    fits = is_number(value, integer=integer)
    fits = fits and (low is None or value >= low) and (high is None or value <= high)
    if not (fits and (above is None or above < value)):
        wanted = a_number(integer=integer, low=low, high=high, above=above)
        raise SnnError(f"{name}={shown(value)}: it should be {wanted}.")


def a_number(*, integer: bool, low: float | None = None, high: float | None = None, above: float | None = None) -> str:
    """What a number within bounds is called in a message."""
    bounds = [f"from {low} up"] * (low is not None and high is None) + [f"in {low}..{high}"] * (
        low is not None is not high
    )
    bounds += [f"above {above}"] * (above is not None) + [f"up to {high}"] * (low is None is not high)
    return f"{'an integer' if integer else 'a number'}{' ' * bool(bounds)}{' and '.join(bounds)}"


def is_number(value: Any, *, integer: bool = False) -> bool:
    """Whether `value` is a finite number (integer) of Python's or NumPy's that a double holds; truth values are not."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral if integer else numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except (OverflowError, TypeError, ValueError):
        return False


def check_seed(name: str, value: Any) -> None:
    """Raise unless `value` is a seed that torch and NumPy both take."""
    check_number(name, value, integer=True, low=0, high=2**64 - 1)


def check_flag(name: str, value: Any) -> None:
    """Raise unless `value` is True or False: any text, "no" too, would count as True."""
    if not isinstance(value, bool):
        raise SnnError(f"{name}={shown(value)}: it should be True or False.")


def check_kind(name: str, value: object, kind: type, hint: str) -> None:
    """Raise unless `value` is a `kind`; `hint` says how one is made."""
    if not isinstance(value, kind):
        a = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise SnnError(f"{name} should be {a} {kind.__name__}, found {shown(value)}. {hint}")


def as_path(name: str, value: object) -> Path:
    """The path of a file or folder that `value` names; raises where it names none."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str) or "\0" in os.fspath(value):
        raise SnnError(f"{name} should be a path, found {shown(value)}. As in 'runs/mine'.")
    return Path(value)


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise unless `value` is one of `choices`; the message names the nearest one."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        raise SnnError(
            f"{name}={shown(value)} is not known. {nearest(value if isinstance(value, str) else shown(value), choices)}"
        )


def in_home(name: str, path: Path | str) -> Path:
    """A path, with a home folder where it begins with `~`; raises where there is none. `name` says what it is of."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # neither HOME nor the system's list of users has it
        raise SnnError(f"{name}={str(path)!r}: nobody here has this home folder. Write the whole path.") from None


def no_folder(path: Path | str) -> str:
    """That a folder is not there, and from which working folder a relative path was followed."""
    if Path(path).is_absolute() or str(path).startswith("~"):
        return "there is no such folder"
    try:
        return f"there is no such folder, as seen from {Path.cwd()}"
    except OSError:  # it was removed
        return "there is no such folder, and no working folder from which to look"


def typed(path: Path | str) -> str:
    """A path as it is typed behind a command: in quotes where a shell would take it apart."""
    return shlex.quote(as_word(path))


def as_word(path: Path | str) -> str:
    """A path as a word of a command, which no one takes for an option."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text


def nearest(word: str, choices: Iterable[str]) -> str:
    """The sentence that points from a misspelt word to the nearest of `choices`, or lists the first of them."""
    choices = list(choices)
    close = difflib.get_close_matches(word[:LONGEST], choices, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    more = f", and {len(choices) - LISTED} more" if len(choices) > LISTED else ""
    return f"Known: {', '.join(choices[:LISTED])}{more}."


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, its middle left out where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a repr of another's, or a number of more digits than Python writes
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 30]} ... {text[-25:]}"
