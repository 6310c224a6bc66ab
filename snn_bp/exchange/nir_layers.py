"""What `nir_write` asks of the layers of a network: their coefficients now, the weighted sum in front of a place."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from snn_bp.model.modules import Neurons, SumPool
from snn_bp.model.network import Network, neuron_of
from snn_bp.neurons import IF, coefficients, has_current

Synapse = nn.Linear | nn.Conv1d | nn.Conv2d
Norm = nn.BatchNorm1d | nn.BatchNorm2d
Pool = SumPool | nn.AvgPool2d


def synapse_before(network: Network, place: int, passes: Any) -> int | None:
    """The place of the weighted sum in front of `place` with only layers of the kinds `passes` between, if there is."""
    for at in range(place - 1, -1, -1):
        if isinstance(network.layers[at], Synapse):
            return at
        if not isinstance(network.layers[at], passes):
            return None
    return None


def values_now(layer: nn.Module) -> Mapping[str, Any]:
    """The coefficients of a layer of neurons, learned ones as they are now."""
    assert isinstance(layer, Neurons)
    learned = {name: value.detach().double().cpu().numpy() for name, value in layer.parameters_now().items()}
    return {**coefficients(layer.neuron), **learned}


def keeps_all(layer: nn.Module) -> bool:
    """Whether the layer integrates without a leak."""
    neuron = neuron_of(layer)
    return isinstance(neuron, IF) or (
        not has_current(neuron) and bool((np.float32(values_now(layer)["beta"]) == 1).all())
    )
