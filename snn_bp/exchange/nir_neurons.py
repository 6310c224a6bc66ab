"""What the neurons of a NIR file are here: their decays, their input gain, their threshold above rest.

An Euler step of a neuron is v <- beta v + g x with beta = 1 - step / tau and the gain g = step / tau * r (of CubaLIF
that of both stages). With the metadata of snn_bp, all numbers are exactly those the file was written from.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from snn_bp.exchange.nir_node import UNIT_R, Node, simple
from snn_bp.model.layers import Shape
from snn_bp.neurons import IF, LI, LIF, CubaLIF, Neuron

MAX_MOVED = 9  # units in the last place by which nir_ties moves a threshold, at most
ROUNDING = 2.0**-21  # relative: a gain, the product of up to four rounded numbers, is 1 when this near to it


class Kind(NamedTuple):
    """A kind of neuron of NIR: its fields, the time constants of its decays, and what it is here."""

    fields: set[str]
    taus: dict[str, str]
    make: Callable[..., Neuron]

    @property
    def spikes(self) -> bool:
        """Whether it fires."""
        return "v_threshold" in self.fields


SPIKES, CURRENT = {"v_threshold", "v_reset"}, {"alpha": "tau_syn", "beta": "tau_mem"}
KINDS = {
    "I": Kind({"r"}, {}, partial(LI, beta=1.0)),
    "IF": Kind({"r", *SPIKES}, {}, IF),
    "LI": Kind({"tau", "r", "v_leak"}, {"beta": "tau"}, LI),
    "LIF": Kind({"tau", "r", "v_leak", *SPIKES}, {"beta": "tau"}, LIF),
    "CubaLI": Kind({"tau_syn", "tau_mem", "r", "v_leak", "w_in"}, CURRENT, LI),
    "CubaLIF": Kind({"tau_syn", "tau_mem", "r", "v_leak", "w_in", *SPIKES}, CURRENT, CubaLIF),
}


def threshold(node: Node, metadata: dict[str, Any] | None, shape: Shape) -> np.ndarray | None:
    """Thresholds above rest, those that were moved off a tie as they were; None for neurons that do not spike."""
    rest = _rest(node, shape)
    if not KINDS[node.kind].spikes:
        return None
    theta = node.each("v_threshold", shape)
    if metadata is None or metadata.get("threshold") is None:
        return (theta - rest).astype(np.float32)
    exact = _exact(node, metadata["threshold"], shape)
    if not (np.abs(theta - exact) <= MAX_MOVED * np.spacing(np.abs(exact).astype(np.float32))).all():
        raise node.refuse("its v_threshold is not what the metadata of snn_bp says: the file was changed.")
    return exact


def _rest(node: Node, shape: Shape) -> np.ndarray:
    """The potential to which a neuron leaks and resets, from which ours are counted."""
    known = KINDS[node.kind].fields
    leak, reset = (
        node.each(name, shape) if name in known and name in node.fields else np.zeros(shape)
        for name in ("v_leak", "v_reset")
    )
    if (leak.any() or reset.any()) and not (known > {"v_leak", "v_reset"} and (leak == reset).all()):
        name = "v_leak" if leak.any() else "v_reset"
        raise node.refuse(f"its {name} is not 0; only a leak and a reset to one and the same value are read.")
    return leak


def dynamics(
    node: Node, metadata: dict[str, Any] | None, shape: Shape, step: float
) -> tuple[dict[str, Any], np.ndarray]:
    """The decays and the input gain of neurons."""
    decays, gain, fractions = {}, np.ones(shape), np.ones(shape)
    for symbol, name in KINDS[node.kind].taus.items():
        tau = node.each(name, shape)
        if not (tau >= step * (1 - ROUNDING)).all():
            raise node.refuse(
                f"its {name} is as small as {tau.min():.4g} s, below the step of {step:g} s: an Euler step "
                "jumps over its target. Another step_s may fit."
            )
        decay, fraction = np.maximum(1 - step / tau, 0.0), step / tau
        if metadata is not None:
            decay = _exact(node, metadata.get(symbol), shape)
            fraction = 1 - decay.astype(np.float32).astype(np.float64)  # as the kernels take it
            changed = not ((fraction > 0) & (fraction <= 1)).all()
            if changed or ((step / fraction).astype(np.float32) != tau.astype(np.float32)).any():
                raise node.refuse(f"its {name} is not what the metadata of snn_bp says: the file was changed.")
        decays[symbol] = simple(decay)
        fractions = fractions * fraction
        gain = gain * (node.each("w_in", shape) if symbol == "alpha" and "w_in" in node.fields else 1)
    gain = gain * fractions * node.each("r", shape) * (1 if decays else step)
    gain = np.where(np.abs(gain - 1) < ROUNDING, 1.0, gain)
    if metadata is not None:
        exact = fractions if metadata.get("form") == UNIT_R else np.ones(shape)
        if not np.allclose(gain, exact, rtol=ROUNDING, atol=0):
            raise node.refuse("its gain is not what the metadata of snn_bp says: the file was changed.")
        gain = exact
    if (gain == 0).any():
        raise node.refuse("its input gain is 0: nothing reaches it.")
    return decays, gain


def _exact(node: Node, value: Any, shape: Shape) -> np.ndarray:
    """A coefficient of the metadata for each neuron."""
    try:
        return np.broadcast_to(np.asarray(value).astype(np.float64, casting="safe"), shape)
    except (TypeError, ValueError, OverflowError):
        raise node.refuse("the metadata of snn_bp in the file has no numbers for it: the file was changed.") from None
