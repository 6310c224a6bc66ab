"""The NIR node that a neuron of one's own says it is, by `@neuron(nir=...)`; whether it is that one, a replay tells."""

from typing import Any

import nir
import numpy as np
import torch

from snn_bp.errors import SnnError, shown
from snn_bp.exchange.nir_node import UNIT_GAIN
from snn_bp.model.modules import Neurons
from snn_bp.neurons.as_nir import AsNIR, called_with

OWN_KEY = "own"  # under which the metadata says that a node stands for a neuron of another equation


def own_node(layer: Neurons, *, step_s: float, compatible: str | None) -> tuple[nir.NIRNode, dict[str, Any]]:
    """The node of a layer of neurons of one's own, and what the metadata says about them."""
    kind, name = type(layer.neuron).kind, type(layer.neuron).__name__
    assert kind.nir is not None
    found = called_with(kind.nir, {**_parameters(layer), "step_s": step_s})
    if found.fires != kind.spiking:
        does, node = ("fires", "does not") if kind.spiking else ("does not fire", "does")
        raise SnnError(f"{does}, and a {found.kind} of NIR {node}. Give {name} another nir=.")
    if compatible and found.kind == "CubaLI":
        raise SnnError("is a CubaLI by its nir=, which NIR up to 1.0.4 does not know. Leave out compatible.")
    fields = {each: _each(name, found, each, value, layer.shape) for each, value in found.numbers.items()}
    if compatible and fields.get("v_reset", np.zeros(1)).any():
        raise SnnError("resets to another value than 0, which NIR up to 1.0.4 does not know. Leave out compatible.")
    return getattr(nir, found.kind)(**fields), {OWN_KEY: repr(layer.neuron), "form": UNIT_GAIN}


def _parameters(layer: Neurons) -> dict[str, Any]:
    """Its parameters by their names: numbers for each neuron, as kernels take them, learned ones as they are now."""
    neuron, kind, learned = layer.neuron, type(layer.neuron).kind, layer.parameters_now()
    given: dict[str, Any] = {name: getattr(neuron, name) for name in kind.choices}
    for name in kind.numbers:
        value = torch.as_tensor(learned.get(kind.symbol(name), getattr(neuron, name))).detach().cpu()
        given[name] = np.broadcast_to(value.float().double().numpy(), layer.shape)
    return given


def _each(name: str, node: AsNIR, field: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A number of the node for each neuron, in double precision."""
    try:
        numbers = np.broadcast_to(np.asarray(value, np.float64), shape).copy()
    except (TypeError, ValueError):
        what = f"the {field} {shown(value)}, and {list(shape)} neurons"
        raise SnnError(f"has by nir= {what}. Give one number, or one for each.") from None
    if not np.isfinite(numbers).all() or (field.startswith("tau") and not (numbers > 0).all()):
        wanted = "a positive time" if field.startswith("tau") else "a finite number"
        raise SnnError(
            f"has by nir= a {field} of {float(numbers.flat[0]):g}, which should be {wanted}. "
            f"See the mapping of {name} to {node.kind}: a decay of 1 has no time constant."
        )
    return numbers
