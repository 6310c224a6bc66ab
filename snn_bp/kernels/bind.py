"""Gives equations a backend: functions whose free names mean that backend's operations."""

import types
from collections.abc import Callable, Mapping
from typing import Any

from snn_bp.equations.shapes import PER_POTENTIAL, PER_THRESHOLD
from snn_bp.surrogates import SlopeOf


def bind(function: Callable, **names: Any) -> types.FunctionType:
    """A copy of `function` in which the given free names have the given meaning."""
    return types.FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__
    )


def defined(text: str, name: str, names: Mapping[str, Any]) -> types.FunctionType:
    """The function `name` of a text that `equations.derive` wrote, in which free names have the given meaning."""
    scope = dict(names)
    exec(compile(text, f"<{name}>", "exec"), scope)  # a text of ours: names, numbers and arithmetic
    scope[name].__module__ = __name__  # not among its globals: torch's compiler would look for them here
    return scope[name]


def slope_texts(of: SlopeOf) -> dict[str, str]:
    """The text of a surrogate's shape, and that of `slope_at`, which calls it and knows the unit of its slope."""
    return {"shape": of.text, "slope_at": PER_THRESHOLD if of.per == "threshold" else PER_POTENTIAL}
