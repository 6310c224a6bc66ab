"""What the parameters of a neuron may be: a number, or one for each neuron, within a range; a time constant.

A decay may be written as a time constant, `beta=Tau(20)`: it becomes a number once the bin width of the data is known,
and from that width only.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from snn_bp.errors import SnnError, is_number, shown
from snn_bp.errors.calls import checked_call, checked_dataclass
from snn_bp.errors.fields import LARGEST, Called, Within, check_fields

SMALLEST = 1e-37  # the smallest positive number that single precision holds as well as any
Range: TypeAlias = Literal["decay", "fraction", "positive", "from 0", "any"]


@checked_call
def decay(*, tau_ms: float, step_ms: float) -> float:
    """Fraction that survives one step of `step_ms` of an exponential with time constant `tau_ms`: exp(-step_ms /
    tau_ms).

    >>> decay(tau_ms=20, step_ms=1)
    0.951229424500714
    """
    for time in (tau_ms, step_ms):
        if not ((is_number(time) or isinstance(time, float)) and time > 0):  # without end it keeps all
            raise SnnError(
                f"decay(tau_ms={shown(tau_ms)}, step_ms={shown(step_ms)}): both should be positive times in ms."
            )
    return math.exp(-step_ms / tau_ms)


@checked_dataclass(frozen=True)
class Tau:
    """A time constant of so many `ms`, in place of a decay per step: it becomes one by the bin width of the data.

    >>> LIF(beta=Tau(20))
    LIF(beta=Tau(ms=20), threshold=1.0, reset='subtract', detach_reset=True)
    """

    ms: Annotated[float, Within(above=0), Called("a positive number of ms, as in Tau(20)")]

    __post_init__ = check_fields


Decay: TypeAlias = float | Sequence[Any] | np.ndarray | Tensor | Tau
Values: TypeAlias = float | Sequence[Any] | np.ndarray | Tensor


def as_numbers(kind: str, name: str, value: Any) -> Any:
    """A number, or nested tuples of numbers, one for each neuron; raises where it is neither."""
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


def check_range(kind: str, name: str, value: Any, within: Range, default: Any = None) -> None:
    """Raise where a number, or one of several, lies outside its range; NaN lies in none."""
    lowest, highest = (value, value) if isinstance(value, float) else (float(np.min(value)), float(np.max(value)))
    found = f"{lowest:g}" if isinstance(value, float) else f"{lowest:g} .. {highest:g}"
    if within == "decay" and not (lowest >= 0 and highest <= 1):
        raise SnnError(
            f"{kind}({name}={found}): a decay lies in 0..1. From a time constant: {name}=decay(tau_ms=20, step_ms=1)."
        )
    if within == "fraction" and not (lowest >= 0 and highest <= 1):
        raise SnnError(f"{kind}({name}={found}): it lies in 0..1.")
    example = f", {default:g} by default" if isinstance(default, int | float) else ""
    if within == "positive" and not (lowest >= SMALLEST and highest <= LARGEST):
        a = "a threshold" if name == "threshold" else "it"
        raise SnnError(f"{kind}({name}={found}): {a} is a positive number{example}.")
    if within == "from 0" and not (lowest >= 0 and highest <= LARGEST):
        raise SnnError(f"{kind}({name}={found}): it is a number from 0 up{example}.")
    if within == "any" and not (lowest >= -LARGEST and highest <= LARGEST):
        raise SnnError(f"{kind}({name}={found}): it is a finite number that single precision holds{example}.")


def _holds_flags(value: Any) -> bool:
    """Whether a truth value stands among numbers, where NumPy would make it one."""
    if isinstance(value, tuple | list):
        return any(_holds_flags(part) for part in value)
    return isinstance(value, bool | np.bool_)


def _nested(values: list) -> tuple:
    return tuple(_nested(value) if isinstance(value, list) else value for value in values)
