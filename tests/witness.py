"""The leaky family's step and adjoint written by hand: an independent witness of what the package derives.

`advance` and `advance_vjp` are the equations that the package ran on before one recorded step gave it both. They stay
as they were, in plain arithmetic over free names; `bound` gives these a meaning.
"""

# pyright: reportUndefinedVariable=false
# ruff: noqa: F821

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snn_bp.neurons import RESETS, Neuron, coefficients, has_adaptation, has_current, is_spiking

SUBTRACT, SUBTRACT_BEFORE_LEAK, ZERO, ZERO_ALL, NONE = range(5)  # the values of RESET
STATE = ("i", "a", "v", "s")
SYMBOLS = ("alpha", "beta", "rho", "kappa", "theta")


def advance(i, a, v, s, x, alpha, beta, rho, kappa, theta):
    """One time step: synaptic current, adaptation trace, membrane *before* reset, and spike after input `x`.

    i <- alpha * i + x
    a <- rho * a + s
    v <- reset(beta * v + i, s)           s is the spike of the step before: the reset acts one step later
    s <- H(v - theta - kappa * a)         strictly above threshold
    """
    r = detach(s) if DETACH else s
    i = alpha * i + x if CURRENT else x
    if RESET == SUBTRACT:
        v = beta * v + i - theta * r
    elif RESET == SUBTRACT_BEFORE_LEAK:
        v = beta * (v - theta * r) + i
    elif RESET == ZERO:
        v = beta * v * (real(1) - r) + i
    elif RESET == ZERO_ALL:
        v = (beta * v + i) * (real(1) - r)
    else:
        v = beta * v + i
    if ADAPTS:
        a = rho * a + s
    if SPIKING:
        s = heaviside(distance(a, v, kappa, theta), theta)
    return i, a, v, s


def distance(a, v, kappa, theta):
    """How far a membrane `v` lies above its threshold, which adaptation raises."""
    return v - theta - kappa * a if ADAPTS else v - theta


def advance_vjp(gi, ga, gv, gs, i0, a0, v0, s0, i1, a1, v1, alpha, beta, rho, kappa, theta, slope):
    """Chain rule through one `advance`: gradients at its outputs in, gradients at its inputs out.

    `i0, a0, v0, s0` are the state before the step, `i1, a1, v1` after it. Returns the gradients of
    `i0, a0, v0, s0, x` and of `alpha, beta, rho, kappa, theta`.
    """
    g_alpha = g_rho = g_kappa = g_theta = gs0 = ga0 = real(0)
    if SPIKING:
        gu = gs * slope_at(distance(a1, v1, kappa, theta), theta, slope)
        gv = gv + gu
        g_theta = -gu
        if ADAPTS:
            ga = ga - kappa * gu
            g_kappa = -a1 * gu
            ga0 = rho * ga
            gs0 = ga
            g_rho = a0 * ga
    gi = gi + (gv * (real(1) - s0) if RESET == ZERO_ALL else gv)
    kept = gv * (real(1) - s0) if RESET in (ZERO, ZERO_ALL) else gv
    g_beta = (v0 - theta * s0 if RESET == SUBTRACT_BEFORE_LEAK else v0) * kept
    gv0 = beta * kept
    if RESET == SUBTRACT:
        g_theta = g_theta - s0 * gv
    elif RESET == SUBTRACT_BEFORE_LEAK:
        g_theta = g_theta - s0 * gv0
    if not DETACH:
        if RESET == SUBTRACT:
            gs0 = gs0 - theta * gv
        elif RESET == SUBTRACT_BEFORE_LEAK:
            gs0 = gs0 - theta * gv0
        elif RESET == ZERO:
            gs0 = gs0 - beta * v0 * gv
        elif RESET == ZERO_ALL:
            gs0 = gs0 - (beta * v0 + i1) * gv
    gi0 = alpha * gi if CURRENT else real(0)
    if CURRENT:
        g_alpha = i0 * gi
    return gi0, ga0, gv0, gs0, gi, g_alpha, g_beta, g_rho, g_kappa, g_theta


@dataclass(frozen=True)
class Parts:
    """Which parts of the equations a neuron has."""

    current: bool
    adapts: bool
    spiking: bool
    reset: str
    detach: bool

    @classmethod
    def of(cls, neuron: Neuron) -> "Parts":
        """Those of a neuron of the leaky family."""
        return cls(
            current=has_current(neuron),
            adapts=has_adaptation(neuron),
            spiking=is_spiking(neuron),
            reset=getattr(neuron, "reset", "none"),
            detach=getattr(neuron, "detach_reset", True),
        )

    def names(self) -> dict[str, Any]:
        """The upper-case names of the equations."""
        return {
            "CURRENT": self.current,
            "ADAPTS": self.adapts,
            "SPIKING": self.spiking,
            "RESET": RESETS.index(self.reset),  # type: ignore[arg-type]
            "DETACH": self.detach,
        }


def bound(function: Callable, neuron: Neuron, compiler: Callable = lambda made: made, **names: Any) -> Callable:
    """A copy of an equation for a neuron, in which free names have the given meaning; `compiler` compiles it."""
    names = {**Parts.of(neuron).names(), **names}
    given = {**names, "distance": compiler(_copy(distance, names))}
    return compiler(_copy(function, given))


def state_of(neuron: Neuron, full: Mapping[str, Any], zero: Any, x: Any) -> list[Any]:
    """The four parts of the witness's state from those that the neuron has; its current is the input without one."""
    missing = {"i": x, "a": zero, "s": zero}
    return [full[name] if name in full else missing[name] for name in STATE]


def values_of(neuron: Neuron) -> list[Any]:
    """The five numbers of the witness."""
    known = coefficients(neuron)
    return [known[name] for name in SYMBOLS]


def _copy(function: Callable, names: Mapping[str, Any]) -> types.FunctionType:
    return types.FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
