"""A deep network without batch norm starts alive on the default data."""

import pytest

from snn_bp import LIF, CubaLIF, Data, Dense, Flatten, Network, start_alive
from snn_bp.data import load
from snn_bp.runs.evaluation import layer_activity


@pytest.mark.parametrize("neuron", [LIF(beta=0.8), LIF(beta=0.5, reset="zero"), CubaLIF(alpha=0.5, beta=0.9)], ids=repr)
def test_no_layer_of_a_five_layer_network_starts_silent_on_the_default_data(neuron):
    dataset = load(Data("digits"), quiet=True)
    model = (Flatten(), *(layer for width in (128, 128, 128, 128, 10) for layer in (Dense(width), neuron)))
    network = Network(model, dataset.shape, seed=0)
    x, _ = dataset.batch("train", dataset.batches("train", seed=0)[0])

    start_alive(network, x)

    layers = layer_activity(network, x)
    assert len(layers) == 5
    assert all(0.01 < layer["rate"] < 0.9 and layer["silent"] < 0.5 for layer in layers), layers
