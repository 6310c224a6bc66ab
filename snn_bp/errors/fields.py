"""Frozen values check themselves: each field against its annotation, when the value is made.

An annotation says what a field holds: `int`, `float | None`, `Literal["a", "b"]`, `tuple[int, ...]`, a type of ours.
`Annotated` adds bounds, `Annotated[float, Within(0, 1)]`, and words, `Annotated[Loss, Called("a loss, as ...")]`.
Numbers of NumPy become Python's; a list becomes a tuple; a subclass of a type of ours is not that type.
`OrOwn` opens a field: a frozen dataclass of the user's that has the methods asked for fits too.
"""

import types
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from snn_bp.errors import SnnError, a_number, is_number, nearest, shown

LARGEST_INTEGER = 2**31 - 1  # unless an annotation says otherwise: counts and indexes have 32 bits
LARGEST = 3.4e38  # a number beyond does not fit single precision
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Within:
    """Bounds of a number; those left out are the largest that fit. `nested`: tuples may lie in tuples."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    nested: bool = False


@dataclass(frozen=True)
class Called:
    """What a message calls the values that fit."""

    words: str


@dataclass(frozen=True)
class OrOwn:
    """A frozen dataclass of the user's fits as well, where it has all methods of one of these groups."""

    methods: tuple[tuple[str, ...], ...]

    def problem_of(self, value: Any) -> str | None:
        """Why a value is no such dataclass, in a sentence; None where it is one."""
        kind = type(value)
        name = kind.__name__
        if isinstance(value, type) or not is_dataclass(value):
            return f"{name} is no dataclass: write @dataclass(frozen=True) above its class."
        parent = next((each.__name__ for each in kind.__mro__ if _is_ours(each)), None)
        if parent is not None:
            return f"{name} is a class of its own on top of {parent}; write one that stands on none of ours."
        parameters = vars(kind).get("__dataclass_params__")
        if parameters is None or not parameters.frozen:
            return f"{name} can change: write @dataclass(frozen=True) above its class."
        if not any(all(callable(getattr(value, each, None)) for each in group) for group in self.methods):
            return f"{name} lacks {self}."
        return None

    def __str__(self) -> str:
        return ", or ".join(" and ".join(f"{name}()" for name in group) for group in self.methods)


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "snn_bp"


def check_fields(value: Any, *, but: tuple[str, ...] = ()) -> None:
    """Raise unless each field of a dataclass fits its annotation; fields named in `but` are left to others."""
    kind = type(value)
    for name, hint in _hints(kind):
        if name not in but:
            found = getattr(value, name)
            read = read_field(kind.__name__, name, found, hint)
            if read is not found:
                object.__setattr__(value, name, read)


def read_field(kind: str, name: str, value: Any, hint: Any) -> Any:
    """The value of one field as it is kept; raises unless it fits."""
    if get_origin(_bare(hint)) is tuple and isinstance(value, tuple | list):  # each its own index in the message
        item = get_args(_bare(hint))[0]
        return tuple(read_field(kind, f"{name}.{index}", each, item) for index, each in enumerate(value))
    fits, read = read_value(value, hint)
    if not fits:
        raise SnnError(f"{kind}({name}={shown(value)}): it should be {called(hint)}.{_advice(value, hint)}")
    return read


def read_words(kind: Any, content: dict[str, Any]) -> dict[str, Any]:
    """What text gives for the fields of `kind`, with words such as "no" read where a truth value belongs."""
    flags = {name for name, hint in _hints(kind) if _bare(hint) is bool} if isinstance(kind, type) else ()
    return {name: as_flag(value) if name in flags else value for name, value in content.items()}


def as_flag(value: Any) -> Any:
    """True or False for the words, and the numbers 0 and 1, that mean them; anything else as it is."""
    word = str(value).lower() if isinstance(value, str) or (type(value) is int and value in (0, 1)) else ""
    return WORDS.get(word.strip(), value)


def read_value(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value fits an annotation, and the value as it is kept."""
    bare, within = _bare(hint), _bounds(hint)
    if bare is Any:
        return True, value
    if (own := _or_own(hint)) is not None and own.problem_of(value) is None:
        return True, value
    if bare is None or bare is type(None):
        return value is None, None
    if bare is bool:
        return isinstance(value, bool | np.bool_), bool(value) if isinstance(value, np.bool_) else value
    if bare is int or bare is float:
        return _number(value, within, integer=bare is int)
    if bare is str:
        text = isinstance(value, str) and "\0" not in value
        return text, str.__str__(value) if text else value
    if get_origin(bare) is Literal:
        value = str.__str__(value) if isinstance(value, str) else value
        value = int(value) if isinstance(value, np.integer) else value
        return any(type(value) is type(each) and value == each for each in get_args(bare)), value
    if get_origin(bare) in (Union, types.UnionType):
        for part in get_args(bare):
            fits, read = read_value(value, Annotated[part, within] if within and part is not type(None) else part)
            if fits:
                return True, read
        return False, value
    if get_origin(bare) is tuple:
        nested = within is not None and within.nested
        if isinstance(value, np.ndarray) and (value.ndim == 1 or nested) and value.ndim:
            value = value.tolist()
        if not isinstance(value, tuple | list):
            return False, value
        part = Annotated[get_args(bare)[0], within] if within else get_args(bare)[0]
        parts = [read_value(each, hint if nested and isinstance(each, tuple | list) else part) for each in value]
        return all(fits for fits, _ in parts), tuple(read for _, read in parts)
    if (family := getattr(bare, "is_one", None)) is not None:  # values of many kinds, which the type itself tells apart
        return family(value), value
    return type(value) is bare, value  # not isinstance: JSON would keep a subclass as its parent


def called(hint: Any) -> str:
    """What a message calls the values that fit an annotation."""
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, Called):
            return extra.words + (f", or a frozen dataclass of yours with {own}" if (own := _or_own(hint)) else "")
    bare, within = _bare(hint), _bounds(hint)
    if bare in (None, type(None)):
        return "None"
    if bare is int or bare is float:
        within = within or Within()
        return a_number(integer=bare is int, low=within.low, high=within.high, above=within.above)
    if bare is bool or bare is str:
        return "True or False" if bare is bool else "a text"
    if get_origin(bare) is Literal:
        return f"one of {', '.join(map(repr, get_args(bare)))}"
    if get_origin(bare) in (Union, types.UnionType):
        parts = [part for part in get_args(bare) if part is not type(None)]
        words = [called(Annotated[part, within] if within else part) for part in parts]
        return ", or ".join(words + ["None"] * (len(parts) < len(get_args(bare))))
    if get_origin(bare) is tuple:
        part = get_args(bare)[0]
        return f"a tuple, each {called(Annotated[part, within] if within else part)}"
    return f"a {bare.__name__}"


def _number(found: Any, within: Within | None, *, integer: bool) -> tuple[bool, Any]:
    if not is_number(found, integer=integer):
        return False, found
    if type(found) not in (int, float):
        found = int(found) if is_number(found, integer=True) else float(found)
    within = within or Within()
    largest = LARGEST_INTEGER if integer else LARGEST
    low, high = (-largest if within.low is None else within.low), (largest if within.high is None else within.high)
    return low <= found <= high and (within.above is None or found > within.above), found


def _advice(found: Any, hint: Any) -> str:
    """The sentence behind a refusal: the nearest word, or what to write instead."""
    bare = _bare(hint)
    parts = [
        part for part in (get_args(bare) or (bare,)) if get_origin(part) is None
    ]  # Python 3.10: list[int] is a type
    kinds = [part for part in parts if isinstance(part, type) and part is not Any]
    if isinstance(found, str) and bare is bool:
        word = as_flag(found)
        return f" Write {word}." if isinstance(word, bool) else f" {nearest(found.lower(), WORDS)}"
    words = [word for part in (bare, *get_args(bare)) if get_origin(part) is Literal for word in get_args(part)]
    if isinstance(found, str) and words:
        return f" {nearest(found, list(map(str, words)))}"
    if isinstance(found, type | types.FunctionType):
        return f" That is what makes one: write {found.__name__}(...)."
    parent = next((kind for kind in kinds if kind not in (int, float, str, bool) and isinstance(found, kind)), None)
    if (own := _or_own(hint)) is not None and hasattr(found, "__dict__"):
        return f" {own.problem_of(found)}"
    if parent is not None:
        return f" {type(found).__name__} is a class of its own on top of {parent.__name__}; snn_bp knows its own only."
    largest = LARGEST_INTEGER if int in kinds else LARGEST
    within = _bounds(hint)
    if isinstance(found, int | float) and (int in kinds or float in kinds) and abs(found) > largest:
        return "" if within and within.high is not None else f" The largest that fits is {largest}."
    return ""


def _bare(hint: Any) -> Any:
    """An annotation without what `Annotated` adds."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _bounds(hint: Any) -> Within | None:
    return next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Within)), None)


def _or_own(hint: Any) -> OrOwn | None:
    return next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, OrOwn)), None)


@cache
def _hints(kind: type) -> tuple[tuple[str, Any], ...]:
    """The annotation of each field of a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple((field.name, hints[field.name]) for field in fields(kind))
