"""Neuron models: frozen parameters of the one equation in `equations.py`. No state, no loop.

Every parameter is one number, or one value for each neuron (nested tuples, lists, arrays; they broadcast to the
layer's shape). A decay may be written as a time constant, `beta=Tau(20)`: it becomes a number once the bin width
of the data is known, and from that width only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from snn_bp.errors import SnnError, check_choice

Reset: TypeAlias = Literal["subtract", "zero", "zero_all", "none"]
RESETS: tuple[Reset, ...] = ("subtract", "zero", "zero_all", "none")
DECAYS = ("alpha", "beta", "rho")
COEFFICIENTS = ("alpha", "beta", "rho", "kappa", "theta")


def decay(*, tau_ms: float, step_ms: float) -> float:
    """Fraction that survives one step of an exponential with time constant `tau_ms`."""
    if not (tau_ms > 0 and step_ms > 0):
        raise SnnError(f"decay(tau_ms={tau_ms}, step_ms={step_ms}): both should be positive times in ms.")
    return math.exp(-step_ms / tau_ms)


@dataclass(frozen=True)
class Tau:
    """A time constant in ms, in place of a decay per step."""

    ms: float

    def __post_init__(self) -> None:
        if not (isinstance(self.ms, int | float) and 0 < self.ms < math.inf):
            raise SnnError(f"Tau({self.ms!r}): a time constant is a positive number of ms, as in Tau(20).")


Decay: TypeAlias = float | Sequence[Any] | np.ndarray | Tensor | Tau
Values: TypeAlias = float | Sequence[Any] | np.ndarray | Tensor


@dataclass(frozen=True, kw_only=True)
class IF:
    """Integrate and fire: the membrane keeps everything (beta = 1)."""

    threshold: Values = 1.0
    reset: Reset = "subtract"
    detach_reset: bool = True

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class LIF:
    """Leaky integrate and fire: v[t] = beta * v[t-1] + x[t], less what a spike at t-1 resets.

    `reset`: "subtract" takes the threshold off; "zero" clears the membrane and keeps this step's input (Loihi, NIR);
    "zero_all" clears both; "none" leaves it. `detach_reset=True` keeps gradients out of the reset.
    """

    beta: Decay
    threshold: Values = 1.0
    reset: Reset = "subtract"
    detach_reset: bool = True

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class CubaLIF:
    """Current-based LIF: i[t] = alpha * i[t-1] + x[t] feeds the membrane of an `LIF`. A reset leaves `i` alone."""

    alpha: Decay
    beta: Decay
    threshold: Values = 1.0
    reset: Reset = "subtract"
    detach_reset: bool = True

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class ALIF:
    """LIF whose threshold rises with its own recent spikes.

        a[t] = rho * a[t-1] + s[t-1]
        s[t] = 1 if v[t] > theta + kappa * a[t] else 0

    Bellec et al. 2018 (LSNN); their factor 1 - rho is absorbed into `kappa`. `alpha` adds a synaptic current.
    A subtracting reset takes off `theta`, not the raised threshold. No refractory period.
    """

    beta: Decay
    rho: Decay
    kappa: Values
    alpha: Decay = 0.0
    threshold: Values = 1.0
    reset: Reset = "subtract"
    detach_reset: bool = True

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class LI:
    """Leaky integrator, the readout: never spikes, its output is the membrane potential itself."""

    beta: Decay
    alpha: Decay = 0.0

    def __post_init__(self) -> None:
        check(self)


Neuron: TypeAlias = IF | LIF | CubaLIF | ALIF | LI


class State(NamedTuple):
    """What a layer carries from step to step: `[batch, *neurons]` each, None where the neuron has no such part."""

    v: Tensor
    s: Tensor | None = None
    i: Tensor | None = None
    a: Tensor | None = None

    def detach(self) -> "State":
        """The same state with no gradient through it: where truncated backpropagation cuts."""
        s, i, a = (part if part is None else part.detach() for part in self[1:])
        return State(self.v.detach(), s, i, a)


def is_spiking(neuron: Neuron) -> bool:
    """Whether the neuron fires; if not, its output is its membrane potential."""
    return not isinstance(neuron, LI)


def has_current(neuron: Neuron) -> bool:
    """Whether a synaptic current is part of the neuron's state."""
    return isinstance(neuron, CubaLIF) or getattr(neuron, "alpha", 0.0) != 0.0


def has_adaptation(neuron: Neuron) -> bool:
    """Whether an adaptation trace is part of the neuron's state."""
    return isinstance(neuron, ALIF)


def coefficients(neuron: Neuron) -> dict[str, Any]:
    """The five numbers (or tuples of numbers, one for each neuron) that the equation takes."""
    values = {
        "alpha": getattr(neuron, "alpha", 0.0),
        "beta": getattr(neuron, "beta", 1.0),
        "rho": getattr(neuron, "rho", 0.0),
        "kappa": getattr(neuron, "kappa", 0.0),
        "theta": getattr(neuron, "threshold", 1.0),
    }
    for name, value in values.items():
        if isinstance(value, Tau):
            raise SnnError(
                f"{type(neuron).__name__}({name}={value}): a time constant needs the width of a step. "
                f"Use it in an Experiment, or at_step(neuron, step_ms=1)."
            )
    return values


def at_step(neuron: Neuron, *, step_ms: float) -> Neuron:
    """The neuron with every time constant turned into the decay of a step of `step_ms`."""
    decays = {
        field.name: decay(tau_ms=value.ms, step_ms=step_ms)
        for field in fields(neuron)
        if isinstance(value := getattr(neuron, field.name), Tau)
    }
    return replace(neuron, **decays)


def check(neuron: Neuron) -> None:
    """Store arrays as tuples, and raise where a parameter lies outside its range."""
    kind = type(neuron).__name__
    for field in fields(neuron):
        value = getattr(neuron, field.name)
        if field.name == "reset":
            check_choice(f"{kind}: reset", value, RESETS)
        elif field.name == "detach_reset":
            if not isinstance(value, bool):
                raise SnnError(f"{kind}(detach_reset={value!r}): it is True or False.")
        elif not isinstance(value, Tau):
            value = _as_numbers(kind, field.name, value)
            object.__setattr__(neuron, field.name, value)
            _check_values(kind, field.name, value)


def _as_numbers(kind: str, name: str, value: Any) -> Any:
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise SnnError(f"{kind}({name}={value!r}): it should be a number, or one number for each neuron.") from None
    if array.size == 0:
        raise SnnError(f"{kind}({name}={value!r}): it is empty; give a number, or one for each neuron.")
    return float(array) if array.ndim == 0 else _nested(array.tolist())


def _nested(values: list) -> tuple:
    return tuple(_nested(value) if isinstance(value, list) else value for value in values)


def _check_values(kind: str, name: str, value: Any) -> None:
    lowest, highest = (value, value) if isinstance(value, float) else (float(np.min(value)), float(np.max(value)))
    shown = f"{lowest:g}" if isinstance(value, float) else f"{lowest:g} .. {highest:g}"
    if name in DECAYS and not (lowest >= 0 and highest <= 1):  # a NaN fails too
        raise SnnError(
            f"{kind}({name}={shown}): a decay lies in 0..1. From a time constant: {name}=decay(tau_ms=20, step_ms=1)."
        )
    if name == "threshold" and not (lowest > 0 and highest < math.inf):
        raise SnnError(f"{kind}(threshold={shown}): a threshold is a positive number, 1 by default.")
    if name == "kappa" and not (lowest >= 0 and highest < math.inf):
        raise SnnError(f"{kind}(kappa={shown}): the rise of the threshold per spike is a number from 0 up.")
