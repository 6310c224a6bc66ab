"""Layers that bring space back or normalise a step: each against a formula or a loop in other words."""

import json

import pytest
import torch
from catalogue import assert_same
from torch import nn

from snn_bp import (
    LI,
    LIF,
    Conv,
    ConvTranspose,
    Data,
    Dense,
    Experiment,
    Flatten,
    LayerNorm,
    Network,
    OnChip,
    SnnError,
    Unflatten,
    Upsample,
    check_gradients,
    start_alive,
)
from snn_bp.exchange.nir_write import write_nir
from snn_bp.exchange.snntorch import to_snntorch
from snn_bp.model.operations import operations
from snn_bp.runs.experiment import from_json, to_json

NEURON = LIF(beta=0.9, reset="zero")
CASES = (
    (ConvTranspose(5, 3), (2, 7)),
    (ConvTranspose(4, (3, 2), stride=2, padding=(1, 0), output_padding=(1, 0), bias=False), (3, 4, 5)),
    (Upsample(2), (3, 5)),
    (Upsample(3), (2, 4, 5)),
    (Unflatten((2, 3, 4)), (24,)),
    (LayerNorm(), (6,)),
    (LayerNorm(scale=0.5), (2, 3, 4)),
)


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=repr)
def test_the_shape_behind_a_layer_is_its_modules(layer, shape):
    assert layer.after(shape) == layer.build(shape)(torch.zeros(1, *shape)).shape[1:]


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=repr)
def test_a_layer_comes_back_from_json(layer, shape):
    experiment = Experiment(Data("digits"), (layer, NEURON))

    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment


def test_a_transposed_convolution_adds_each_input_times_its_kernel(dyadic):
    layer = ConvTranspose(2, (3, 2), stride=(2, 1), padding=(1, 0)).build((3, 4, 5))
    x, weight = dyadic(1, 3, 4, 5), dyadic(3, 2, 3, 2, seed=1)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()

    out = layer(x)[0]

    wide = torch.zeros(2, (4 - 1) * 2 + 3, 5 - 1 + 2)
    for channel in range(3):
        for row in range(4):
            for column in range(5):
                wide[:, 2 * row : 2 * row + 3, column : column + 2] += x[0, channel, row, column] * weight[channel]
    assert_same(out=(out, wide[:, 1:-1]))


def test_upsampling_repeats_each_spike():
    x = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])

    out = Upsample(2).build((1, 2, 2))(x)

    assert torch.equal(out, x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_unflatten_undoes_flatten(noise):
    x = noise(5, 2, 24).reshape(5, 2, 2, 3, 4)
    network = Network((Flatten(), Unflatten((2, 3, 4)), LI(beta=0.0)), (2, 3, 4))

    assert torch.equal(network(x), x)


@pytest.mark.parametrize("training", (True, False))
def test_a_layer_norm_normalises_each_step_by_itself(training, noise):
    network = Network((LayerNorm(scale=0.7), LI(beta=0.0)), (2, 5)).train(training)
    x = 3 * noise(6, 4, 2, 5) + 2

    out = network(x)

    rows = x.flatten(2)
    mean = rows.mean(2, keepdim=True)
    wanted = 0.7 * (rows - mean) / ((rows - mean).square().mean(2, keepdim=True) + 1e-5).sqrt()
    assert_same(atol=1e-5, out=(out, wanted.reshape(x.shape)))


U_SHAPED = (
    Conv(3, 3, padding=1), NEURON, Conv(4, 2, stride=2), LayerNorm(), NEURON, ConvTranspose(3, 2, stride=2), NEURON,
    Upsample(2), Flatten(), Dense(12), Unflatten((3, 2, 2)), Flatten(), LI(beta=0.9),
)  # fmt: skip


def test_a_recording_in_pieces_is_the_recording(coin):
    network = Network(U_SHAPED, (2, 4, 6), seed=0)
    x = coin(9, 3, 2, 4, 6, probability=0.4)

    whole, last = network.run(x)
    first, state = network.run(x[:4])
    second, after = network.run(x[4:], state)

    assert_same(atol=1e-5, out=(torch.cat((first, second)), whole), v=(after[-1].v, last[-1].v))


def test_gradients_through_all_of_them_are_right(coin):
    network = Network(U_SHAPED, (2, 4, 6), seed=0)
    x = coin(5, 2, 2, 4, 6, probability=0.5).double()

    report = check_gradients(network, x, torch.tensor([0, 1]), directions=1, truncations=())

    assert report.ok, report
    assert any(row.conclusive for row in report.differences)


REFUSED = {
    "ConvTranspose": (ConvTranspose(3, 2), NEURON, Flatten()),
    "LayerNorm": (Conv(3, 2), LayerNorm(), NEURON, Flatten()),
    "Upsample": (Upsample(2), Conv(3, 2), NEURON, Flatten()),
    "Unflatten": (Flatten(), Dense(12), NEURON, Unflatten((3, 2, 2)), Conv(3, 2), NEURON, Flatten()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_file_and_no_chip_holds_is_refused_by_name(name, tmp_path):
    network = Network((*REFUSED[name], Dense(3), LI(beta=0.9)), (2, 4, 4)).eval()

    for attempt in (lambda: OnChip(network), lambda: write_nir(network, tmp_path / "a.nir")):
        with pytest.raises(SnnError, match=name):
            attempt()
    assert not list(tmp_path.iterdir())


def test_snntorch_runs_them_as_they_are(coin):
    model = (
        Conv(3, 2),
        LIF(beta=0.9),
        ConvTranspose(2, 3),
        LayerNorm(),
        LIF(beta=0.8),
        Upsample(2),
        Flatten(),
        Dense(12),
    )
    network = Network((*model, Unflatten((3, 2, 2)), LIF(beta=0.9)), (2, 4, 4), seed=1)
    x = coin(6, 2, 2, 4, 4, probability=0.6)

    net = to_snntorch(network)

    out = torch.stack([net(step) for step in x])
    assert torch.equal(out, network(x)) and bool(out.any())


def test_start_alive_leaves_weights_in_front_of_a_layer_norm(coin):
    network = Network((Dense(6), LayerNorm(), NEURON, Dense(5), NEURON), (4,), seed=0)
    before = [network.layers[0].weight.clone(), network.layers[3].weight.clone()]

    start_alive(network, coin(20, 4, 4, probability=0.5))

    assert torch.equal(network.layers[0].weight, before[0])
    assert not torch.equal(network.layers[3].weight, before[1])


@pytest.mark.parametrize("shape", ((3, 5), (2, 4, 3)))
def test_operations_of_a_transposed_convolution_are_those_counted_by_hand(shape, coin):
    layer = ConvTranspose(4, 3, stride=2, padding=1, output_padding=1).build(shape)
    x = coin(3, 2, *shape, probability=0.4) * 2

    met = 0
    for row in (x != 0).flatten(0, 1).nonzero().tolist():
        one = torch.zeros(1, *shape)
        one[(0, *row[1:])] = 1
        met += int((type(layer).__call__(ones_like(layer), one) != 0).sum())
    assert operations(layer, x) == met


def ones_like(layer):
    """The layer with weights of 1 and no bias."""
    kind = nn.ConvTranspose1d if layer.weight.dim() == 3 else nn.ConvTranspose2d
    ones = kind(
        layer.in_channels, layer.out_channels, layer.kernel_size, stride=layer.stride, padding=layer.padding,
        output_padding=layer.output_padding, bias=False,
    )  # fmt: skip
    nn.init.ones_(ones.weight)
    return ones


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    (
        (ConvTranspose(2, 3), (5,), r"ConvTranspose: it takes \[channels, length\]"),
        (ConvTranspose(2, 3, output_padding=1), (2, 4, 4), r"output_padding=1.*less than the stride, 1"),
        (ConvTranspose(2, 1, padding=3), (2, 4, 4), r"padding=3.*nothing is left of a side of 4"),
        (ConvTranspose(2, (3, 3)), (2, 4), r"kernel=\(3, 3\).*1 spatial axes"),
        (Upsample(2), (5,), r"Upsample: it takes \[channels, length\]"),
        (Unflatten((2, 3)), (5,), r"it makes 6 values of a flat input of as many, found \[5\]"),
        (Unflatten((2, 3)), (2, 3), r"it makes 6 values"),
    ),
    ids=repr,
)
def test_what_does_not_fit_is_refused_with_what_would(layer, shape, words):
    with pytest.raises(SnnError, match=rf"model\.0 .*{words}"):
        Network((layer, LIF(beta=0.9)), shape)
