"""Gives the equations a backend: a copy of a function whose free names mean that backend's operations."""

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snn_bp import equations
from snn_bp.neurons import RESETS, Neuron, has_adaptation, has_current, is_spiking
from snn_bp.surrogates import SHAPES, Unit


@dataclass(frozen=True)
class Constants:
    """What is fixed when a kernel is compiled: which parts of the equation a neuron has."""

    current: bool
    adapts: bool
    spiking: bool
    reset: str
    detach: bool

    @classmethod
    def of(cls, neuron: Neuron) -> "Constants":
        return cls(
            current=has_current(neuron),
            adapts=has_adaptation(neuron),
            spiking=is_spiking(neuron),
            reset=getattr(neuron, "reset", "none"),
            detach=getattr(neuron, "detach_reset", True),
        )

    def names(self) -> dict[str, Any]:
        """The upper-case names of `equations.py`."""
        return {
            "CURRENT": self.current,
            "ADAPTS": self.adapts,
            "SPIKING": self.spiking,
            "RESET": RESETS.index(self.reset),  # type: ignore[arg-type]
            "DETACH": self.detach,
        }


def bind(function: Callable, **names: Any) -> types.FunctionType:
    """A copy of `function` in which the given free names have the given meaning."""
    return types.FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__
    )


def slope_functions(shape: str, per: Unit) -> tuple[Callable, Callable]:
    """The equations of a surrogate: its shape, and the function that counts its slope in the right unit."""
    unit = equations.relative_slope if per == "threshold" else equations.absolute_slope
    return getattr(equations, SHAPES[shape]), unit
