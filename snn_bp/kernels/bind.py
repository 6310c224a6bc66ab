"""Gives equations a backend: functions whose free names mean that backend's operations."""

import types
from collections.abc import Callable, Mapping
from typing import Any

from snn_bp.equations import shapes
from snn_bp.surrogates import SHAPES, SlopeOf


def bind(function: Callable, **names: Any) -> types.FunctionType:
    """A copy of `function` in which the given free names have the given meaning."""
    return types.FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__
    )


def defined(text: str, name: str, names: Mapping[str, Any]) -> types.FunctionType:
    """The function `name` of a text that `equations.derive` wrote, in which free names have the given meaning."""
    scope = {"__name__": __name__, **names}
    exec(compile(text, f"<{name}>", "exec"), scope)  # a text of ours: names, numbers and arithmetic
    return scope[name]


def slope_functions(of: SlopeOf) -> tuple[Callable, Callable]:
    """A surrogate's shape, and the function that counts its slope in the right unit."""
    unit = shapes.relative_slope if of.per == "threshold" else shapes.absolute_slope
    return getattr(shapes, SHAPES[of.shape]), unit
