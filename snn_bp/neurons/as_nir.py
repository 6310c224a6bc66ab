"""`AsNIR`: which node of NIR a neuron of one's own is, and with which numbers.

    def node(beta, threshold, step_s):
        return AsNIR("LIF", tau=step_s / (1 - beta), r=1 / (1 - beta), v_threshold=threshold)

    @neuron(decays=("beta",), positive=("threshold",), nir=node)
    def Mine(v, s, x, *, beta, threshold=1.0): ...

NIR's equations, step by step: v <- v + step_s / tau * (v_leak - v + r * x), of a CubaLIF its current first, in the same
way; a spike where v > v_threshold, and in that step v <- v_reset.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from snn_bp.errors import SnnError, check_choice, nearest, shown

NUMBERS: dict[str, dict[str, float | None]] = {  # those of each node, with what they are where nothing is said
    "I": {"r": None},
    "IF": {"r": None, "v_threshold": None, "v_reset": 0.0},
    "LI": {"tau": None, "r": None, "v_leak": 0.0},
    "LIF": {"tau": None, "r": None, "v_threshold": None, "v_leak": 0.0, "v_reset": 0.0},
    "CubaLI": {"tau_syn": None, "tau_mem": None, "r": None, "w_in": 1.0, "v_leak": 0.0},
    "CubaLIF": {
        "tau_syn": None, "tau_mem": None, "r": None, "w_in": 1.0, "v_threshold": None, "v_leak": 0.0, "v_reset": 0.0,
    },
}  # fmt: skip


class AsNIR:
    """A node of NIR by its name, with its numbers: one, or one for each neuron."""

    def __init__(self, kind: str, /, **numbers: Any) -> None:
        check_choice("AsNIR: the node", kind, tuple(NUMBERS))
        known = NUMBERS[kind]
        for name in numbers:
            if name not in known:
                raise SnnError(f"AsNIR({kind!r}, {name}=...): the node has no {name}. {nearest(name, list(known))}")
        missing = [name for name, default in known.items() if default is None and name not in numbers]
        if missing:
            raise SnnError(f"AsNIR({kind!r}): the node needs {', '.join(missing)}.")
        self.kind, self.numbers = kind, {**{name: default for name, default in known.items()}, **numbers}

    @property
    def fires(self) -> bool:
        """Whether the node gives out spikes."""
        return "v_threshold" in self.numbers


def check_mapping(name: str, mapping: Any, known: Sequence[str]) -> Any:
    """What `@neuron(nir=...)` was given; raises unless it is a function of the neuron's parameters and `step_s`."""
    if mapping is None:
        return None
    works = "as nir=lambda beta, step_s: AsNIR('LI', tau=step_s / (1 - beta), r=1 / (1 - beta))"
    if not callable(mapping) or isinstance(mapping, type):
        raise SnnError(f"{name}: nir={shown(mapping)} should be a function that returns an AsNIR, {works}.")
    for each, parameter in inspect.signature(mapping).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL or each not in (*known, "step_s"):
            raise SnnError(
                f"{name}: nir= asks for {each!r}; it takes parameters of the neuron by their names, and step_s, "
                f"{works}. {nearest(each, [*known, 'step_s'])}"
            )
    return mapping


def called_with(mapping: Callable[..., AsNIR], numbers: dict[str, Any]) -> AsNIR:
    """What a mapping returns for the values that it asks for."""
    asked = inspect.signature(mapping).parameters
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in asked.values())
    found = mapping(**{name: value for name, value in numbers.items() if every or name in asked})
    if not isinstance(found, AsNIR):
        raise SnnError(f"has a nir= that returned {shown(found)}. It should be an AsNIR('LIF', tau=..., ...).")
    return found
