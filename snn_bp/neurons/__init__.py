"""Neurons: frozen values, each of a kind that `@neuron` made of one step. No state, no loop."""

from dataclasses import fields, replace
from typing import Any

from snn_bp.equations.nodes import Node
from snn_bp.errors import SnnError, nearest, shown
from snn_bp.neurons.as_nir import AsNIR as AsNIR
from snn_bp.neurons.leaky import ALIF as ALIF
from snn_bp.neurons.leaky import IF as IF
from snn_bp.neurons.leaky import LI as LI
from snn_bp.neurons.leaky import LIF as LIF
from snn_bp.neurons.leaky import RESETS as RESETS
from snn_bp.neurons.leaky import CubaLIF as CubaLIF
from snn_bp.neurons.leaky import Reset as Reset
from snn_bp.neurons.leaky import State as State
from snn_bp.neurons.library import BRF as BRF
from snn_bp.neurons.library import PLIF as PLIF
from snn_bp.neurons.library import QIF as QIF
from snn_bp.neurons.library import AdEx as AdEx
from snn_bp.neurons.library import AdLIF as AdLIF
from snn_bp.neurons.library import Alpha as Alpha
from snn_bp.neurons.library import AlphaLI as AlphaLI
from snn_bp.neurons.library import AlphaLIF as AlphaLIF
from snn_bp.neurons.library import GradedLIF as GradedLIF
from snn_bp.neurons.library import Izhikevich as Izhikevich
from snn_bp.neurons.library import Lapicque as Lapicque
from snn_bp.neurons.library import RefractoryLIF as RefractoryLIF
from snn_bp.neurons.library import SEAdLIF as SEAdLIF
from snn_bp.neurons.library import TwoCompartmentLIF as TwoCompartmentLIF
from snn_bp.neurons.making import Neuron as Neuron
from snn_bp.neurons.making import kind_of as kind_of
from snn_bp.neurons.making import neuron as neuron
from snn_bp.neurons.making import numbers_of as numbers_of
from snn_bp.neurons.making import range_of as range_of
from snn_bp.neurons.parameters import Decay as Decay
from snn_bp.neurons.parameters import Tau as Tau
from snn_bp.neurons.parameters import Values as Values
from snn_bp.neurons.parameters import decay as decay

KINDS = (IF, LIF, CubaLIF, ALIF, LI)  # the leaky family: what chips, other libraries and online rules know by name
LIBRARY = (
    AdEx, AdLIF, Alpha, AlphaLI, AlphaLIF, BRF, GradedLIF, Izhikevich, Lapicque, PLIF, QIF, RefractoryLIF, SEAdLIF,
    TwoCompartmentLIF,
)  # fmt: skip
SYMBOLS = {"alpha": 0.0, "beta": 1.0, "rho": 0.0, "kappa": 0.0, "theta": 1.0}  # where a kind has none


def check_neuron(neuron: Any) -> None:
    """Raise unless `neuron` is a value of a kind that `@neuron` made."""
    if Neuron.is_one(neuron):
        return
    names = [kind.__name__ for kind in (*KINDS, *LIBRARY)]
    if isinstance(neuron, type):
        advice = f"write {neuron.__name__}(...)" if kind_of(neuron) else nearest(neuron.__name__, names)
        raise SnnError(f"{neuron.__name__} is a class, not a neuron: {advice.rstrip('.')}.")
    parent = next((kind.__name__ for kind in type(neuron).__mro__ if "kind" in vars(kind)), None)
    below = f", which is not the {parent} below it," if parent else ""
    raise SnnError(
        f"{shown(neuron)}: {type(neuron).__name__}{below} is no neuron of snn_bp and would not run as one. "
        f"{nearest(type(neuron).__name__, names)} One of your own is a step under @neuron."
    )


def is_leaky(neuron: Any) -> bool:
    """Whether a neuron is one of the leaky family."""
    return type(neuron) in KINDS


def is_spiking(neuron: Neuron) -> bool:
    """Whether the neuron fires; if not, its output is its membrane potential."""
    check_neuron(neuron)
    return type(neuron).kind.spiking


def is_binary(neuron: Neuron) -> bool:
    """Whether the neuron gives out 0 or 1 at every step."""
    return is_spiking(neuron) and neuron.equation.binary


def counts_spikes(neuron: Neuron) -> bool:
    """Whether what a neuron gives out is a number of spikes, one or several in a step: none has a size of its own."""

    def counts(node: Node) -> bool:
        if node.op == "number":
            return node.value >= 0 and node.value == int(node.value)
        return node.op == "spike" or (node.op in ("+", "*") and all(map(counts, node.args)))

    out = neuron.equation.out
    return out is not None and counts(out)


def has_current(neuron: Neuron) -> bool:
    """Whether a synaptic current is part of a leaky neuron's state."""
    check_neuron(neuron)
    return is_leaky(neuron) and "i" in neuron.equation.states


def has_adaptation(neuron: Neuron) -> bool:
    """Whether the neuron's threshold rises with its spikes, as that of an `ALIF`."""
    check_neuron(neuron)
    return type(neuron) is ALIF


def coefficients(neuron: Neuron) -> dict[str, Any]:
    """The five numbers (or tuples of numbers, one for each neuron) of the leaky family; raises for other neurons."""
    check_neuron(neuron)
    if not is_leaky(neuron):
        raise SnnError(f"{neuron}: it is none of the leaky family, whose five numbers are known here.")
    return SYMBOLS | numbers_of(neuron)


def at_step(neuron: Neuron, *, step_ms: float) -> Neuron:
    """The neuron with every time constant turned into the decay of a step of `step_ms`."""
    check_neuron(neuron)
    decays = {
        field.name: decay(tau_ms=value.ms, step_ms=step_ms)
        for field in fields(neuron)  # type: ignore[arg-type]
        if isinstance(value := getattr(neuron, field.name), Tau)
    }
    return replace(neuron, **decays)  # type: ignore[type-var]
