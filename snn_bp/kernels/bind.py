"""Gives the equations a backend: a copy of a function whose free names mean that backend's operations."""

import functools
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

    @property
    def key(self) -> str:
        """The constants as a word, which a torch operator can take; `of_key` reads it."""
        return f"{self.current:d}{self.adapts:d}{self.spiking:d}{self.detach:d}{self.reset}"

    @staticmethod
    @functools.cache
    def of_key(key: str) -> "Constants":
        """The constants that `key` says."""
        current, adapts, spiking, detach = (flag == "1" for flag in key[:4])
        return Constants(current=current, adapts=adapts, spiking=spiking, reset=key[4:], detach=detach)

    @property
    def clears_input(self) -> bool:
        """Whether a reset that is differentiated takes the input off the membrane: its gradient needs the current."""
        return self.reset == "zero_all" and not self.detach

    def needs_current(self, alpha_learns: bool) -> bool:
        """Whether the backward pass needs the synaptic current of every step."""
        return (self.current and alpha_learns) or self.clears_input

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
    """A copy of `function` in which the given free names have the given meaning.

    Other equations that an equation calls are bound likewise, unless they are among the names.
    """
    if function.__module__ == equations.__name__:
        for name in set(function.__code__.co_names) - names.keys():
            if isinstance(called := getattr(equations, name, None), types.FunctionType):
                names = {**names, name: bind(called, **names)}
    return types.FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__
    )


def slope_functions(shape: str, per: Unit) -> tuple[Callable, Callable]:
    """The equations of a surrogate: its shape, and the function that counts its slope in the right unit."""
    unit = equations.relative_slope if per == "threshold" else equations.absolute_slope
    return getattr(equations, SHAPES[shape]), unit
