"""Neuron models: frozen parameters of the one equation in `equations.py`. No state, no loop.

Every parameter is one number, or one value for each neuron (nested tuples, lists, arrays; they broadcast to the
layer's shape). A decay may be written as a time constant, `beta=Tau(20)`: it becomes a number once the bin width
of the data is known, and from that width only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from snn_bp.errors import SnnError, is_number, nearest, shown
from snn_bp.errors.fields import LARGEST, Called, Within, check_fields

Reset: TypeAlias = Literal["subtract", "zero", "zero_all", "none"]
RESETS: tuple[Reset, ...] = ("subtract", "zero", "zero_all", "none")
DECAYS = ("alpha", "beta", "rho")
SMALLEST = 1e-37  # the smallest threshold: single precision holds it


def decay(*, tau_ms: float, step_ms: float) -> float:
    """Fraction that survives one step of an exponential with time constant `tau_ms`."""
    for time in (tau_ms, step_ms):
        if not ((is_number(time) or isinstance(time, float)) and time > 0):  # without end it keeps all
            raise SnnError(
                f"decay(tau_ms={shown(tau_ms)}, step_ms={shown(step_ms)}): both should be positive times in ms."
            )
    return math.exp(-step_ms / tau_ms)


@dataclass(frozen=True)
class Tau:
    """A time constant in ms, in place of a decay per step."""

    ms: Annotated[float, Within(above=0), Called("a positive number of ms, as in Tau(20)")]

    __post_init__ = check_fields


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
KINDS = (IF, LIF, CubaLIF, ALIF, LI)


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


class FullState(NamedTuple):
    """All that the equation carries from step to step, in its order: zeros for what the neuron lacks."""

    i: Any  # tensors, or the kernels' arrays
    a: Any
    v: Any
    s: Any


class Coefficients(NamedTuple):
    """What the equation takes beside state and input, in its order: all scalars, or all a value for each neuron."""

    alpha: Any  # tensors, or the kernels' arrays and numbers
    beta: Any
    rho: Any
    kappa: Any
    theta: Any


def check_neuron(neuron: Any) -> None:
    """Raise unless `neuron` is one of ours: the equation would run anything else as what it is not."""
    if type(neuron) in KINDS:
        return
    names = [kind.__name__ for kind in KINDS]
    if isinstance(neuron, type):
        advice = f"write {neuron.__name__}(...)" if neuron in KINDS else nearest(neuron.__name__, names)
        raise SnnError(f"{neuron.__name__} is a class, not a neuron: {advice.rstrip('.')}.")
    parent = next((f", which is not the {kind.__name__} below it," for kind in KINDS if isinstance(neuron, kind)), "")
    raise SnnError(
        f"{shown(neuron)}: {type(neuron).__name__}{parent} is no neuron of snn_bp and would not run as one. "
        f"{nearest(type(neuron).__name__, names)}"
    )


def is_spiking(neuron: Neuron) -> bool:
    """Whether the neuron fires; if not, its output is its membrane potential."""
    check_neuron(neuron)
    return type(neuron) is not LI


def has_current(neuron: Neuron) -> bool:
    """Whether a synaptic current is part of the neuron's state."""
    check_neuron(neuron)
    return type(neuron) is CubaLIF or getattr(neuron, "alpha", 0.0) != 0.0


def has_adaptation(neuron: Neuron) -> bool:
    """Whether an adaptation trace is part of the neuron's state."""
    check_neuron(neuron)
    return type(neuron) is ALIF


def coefficients(neuron: Neuron) -> dict[str, Any]:
    """The five numbers (or tuples of numbers, one for each neuron) that the equation takes."""
    check_neuron(neuron)
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
    check_neuron(neuron)
    decays = {
        field.name: decay(tau_ms=value.ms, step_ms=step_ms)
        for field in fields(neuron)
        if isinstance(value := getattr(neuron, field.name), Tau)
    }
    return replace(neuron, **decays)


def check(neuron: Neuron) -> None:
    """Store arrays as tuples, and raise where a parameter lies outside its range."""
    kind = type(neuron).__name__
    numbers = tuple(field.name for field in fields(neuron) if field.name not in ("reset", "detach_reset"))
    check_fields(neuron, but=numbers)
    for name in numbers:
        value = getattr(neuron, name)
        if type(value) is not Tau or name not in DECAYS:
            value = _as_numbers(kind, name, value)
            object.__setattr__(neuron, name, value)
            _check_values(kind, name, value)


def _as_numbers(kind: str, name: str, value: Any) -> Any:
    if is_number(value):
        return float(value)
    if isinstance(value, Tensor) and value.requires_grad:
        raise SnnError(
            f"{kind}({name}=a tensor that requires a gradient): a neuron holds numbers, no gradient reaches them. "
            f"To learn it: Spiking({kind}(...), learn=({name!r},)); to fix it: {name}=tensor.detach()."
        )
    try:
        value = value.tolist() if isinstance(value, Tensor) else value
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # ragged, or a tensor without values
        array = np.asarray(None)
    if array.dtype.kind not in "iuf" or _holds_flags(value):
        raise SnnError(f"{kind}({name}={shown(value)}): it should be a number, or one number for each neuron.")
    if array.size == 0:
        raise SnnError(f"{kind}({name}={shown(value)}): it is empty; give a number, or one for each neuron.")
    array = array.astype(np.float64)
    return float(array) if array.ndim == 0 else _nested(array.tolist())


def _holds_flags(value: Any) -> bool:
    """Whether a truth value stands among numbers, where NumPy would make it one."""
    if isinstance(value, tuple | list):
        return any(_holds_flags(part) for part in value)
    return isinstance(value, bool | np.bool_)


def _nested(values: list) -> tuple:
    return tuple(_nested(value) if isinstance(value, list) else value for value in values)


def _check_values(kind: str, name: str, value: Any) -> None:
    lowest, highest = (value, value) if isinstance(value, float) else (float(np.min(value)), float(np.max(value)))
    found = f"{lowest:g}" if isinstance(value, float) else f"{lowest:g} .. {highest:g}"
    if name in DECAYS and not (lowest >= 0 and highest <= 1):  # a NaN fails too
        raise SnnError(
            f"{kind}({name}={found}): a decay lies in 0..1. From a time constant: {name}=decay(tau_ms=20, step_ms=1)."
        )
    if name == "threshold" and not (lowest >= SMALLEST and highest <= LARGEST):
        raise SnnError(f"{kind}(threshold={found}): a threshold is a positive number, 1 by default.")
    if name == "kappa" and not (lowest >= 0 and highest <= LARGEST):
        raise SnnError(f"{kind}(kappa={found}): the rise of the threshold per spike is a number from 0 up.")
