"""Layers: each against a formula or a loop that says the same in other words."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from catalogue import assert_near, assert_same
from torch import nn

from snn_bp import (
    ALIF,
    LI,
    LIF,
    ATan,
    BatchNorm,
    Conv,
    CubaLIF,
    Delay,
    Dense,
    Dropout,
    Flatten,
    Network,
    Pool,
    Recurrent,
    SnnError,
    Spiking,
    simulate,
)


@pytest.mark.parametrize(
    "layer, shape, wanted",
    (
        (Dense(5), (7,), nn.Linear),
        (Conv(5, 3), (2, 7), nn.Conv1d),
        (Conv(4, (3, 2), stride=2, padding=(1, 0), groups=2), (2, 7, 5), nn.Conv2d),
        (Pool(2), (2, 7), nn.AvgPool1d),
        (Pool(2, kind="max"), (2, 7, 5), nn.MaxPool2d),
        (Flatten(), (2, 7, 5), nn.Flatten),
        (BatchNorm(), (7,), nn.BatchNorm1d),
        (BatchNorm(), (2, 7, 5), nn.BatchNorm2d),
    ),
    ids=repr,
)
def test_a_layer_without_state_is_torchs_own_module(layer, shape, wanted):
    assert type(layer.build(shape)) is wanted


@pytest.mark.parametrize(
    "layer, shape",
    (
        (Dense(5), (7,)),
        (Conv(5, 3), (2, 7)),
        (Conv(4, (3, 2), stride=2, padding=(1, 0), groups=2), (2, 7, 5)),
        (Conv(3, (3, 2), stride=(1, 3), dilation=(2, 3)), (1, 9, 14)),
        (Conv(3, 7, padding=1), (1, 5, 5)),
        (Pool(2), (2, 7)),
        (Pool(2, kind="max"), (2, 7, 5)),
        (Pool(3, kind="sum", stride=2), (2, 8, 7)),
        (Flatten(), (2, 7, 5)),
        (Dropout(), (2, 7)),
        (BatchNorm(), (7,)),
        (BatchNorm(), (2, 7)),
        (BatchNorm(), (2, 7, 5)),
        (Delay(2), (2, 7)),
    ),
    ids=repr,
)
def test_the_shape_behind_a_layer_is_its_modules(layer, shape):
    assert layer.after(shape) == layer.build(shape).eval()(torch.zeros(1, *shape)).shape[1:]


@pytest.mark.parametrize("layer", (Conv(3, 6), Conv(3, 3, dilation=3), Pool(6), Conv(3, (1, 8), padding=1)), ids=repr)
def test_a_window_larger_than_its_input_is_refused(layer):
    with pytest.raises(SnnError, match=r"model\.0 .*window reaches over \d+ values, the input \[1, 5, 5\] has"):
        Network((layer, LIF(beta=0.9)), (1, 5, 5))


@pytest.mark.slow
def test_a_network_built_to_be_counted_loads_no_compiler():
    # torch's compiler, which takes 2 s to load, came in with any operation on the device "meta"
    command = [sys.executable, "-c", COUNTED]

    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout

    assert told.split() == ["3"]


COUNTED = """
import sys, torch
from snn_bp import LI, LIF, BatchNorm, Conv, Delay, Dense, Dropout, Flatten, Network, Pool, Recurrent, Spiking
model = (
    Conv(3, 3, padding=1), BatchNorm(), Spiking(LIF(beta=0.9), learn=("beta", "threshold")), Pool(2, kind="sum"),
    Pool(2, kind="max"), Flatten(), Dense(4), Delay(2, learn=True), Delay(1), Dropout(), Recurrent(LIF(beta=0.9)),
    Dense(3), LI(beta=0.9),
)
with torch.device("meta"):
    network = Network(model, (2, 9, 9))
assert all(p.device.type == "meta" for p in network.parameters())
print(network.shapes[-1][0], *{"torch._dynamo", "sympy"} & set(sys.modules))
"""


@pytest.mark.parametrize("stride", (None, 1, 3))
def test_a_sum_pool_is_a_convolution_with_ones_in_two_dimensions(stride, dyadic):
    x = dyadic(3, 2, 11, 7)

    pooled = Pool(2, kind="sum", stride=stride).build((2, 11, 7))(x)

    wanted = F.conv2d(x, torch.ones(2, 1, 2, 2), stride=stride or 2, groups=2)
    assert_same(sums=(pooled, wanted))


@pytest.mark.parametrize("stride", (None, 1, 4))
def test_a_sum_pool_is_a_convolution_with_ones_in_one_dimension(stride, dyadic):
    x = dyadic(3, 2, 11)

    pooled = Pool(3, kind="sum", stride=stride).build((2, 11))(x)

    assert_same(sums=(pooled, F.conv1d(x, torch.ones(2, 1, 3), stride=stride or 3, groups=2)))


def test_batch_norm_normalises_over_time_and_batch(noise):
    network = Network((BatchNorm(scale=0.7), LI(beta=0.0)), (5,))
    x = 3 * noise(13, 4, 5) + 2

    out = network.train()(x)

    wanted = 0.7 * (x - x.mean((0, 1))) / (x.var((0, 1), unbiased=False) + 1e-5).sqrt()
    assert_same(out=(out, wanted), atol=1e-5)


def test_batch_norm_folds_into_the_weights_in_evaluation(noise):
    network = Network((Dense(5), BatchNorm(), LI(beta=0.0)), (7,)).double()
    dense, norm = network.layers[0], network.layers[1]
    assert isinstance(dense, nn.Linear) and isinstance(norm, nn.BatchNorm1d) and norm.running_var is not None
    network.train()(2 * noise(13, 4, 7, dtype=torch.float64) + 1)
    x = noise(11, 3, 7, dtype=torch.float64)

    out = network.eval()(x)

    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    folded = F.linear(x, gain[:, None] * dense.weight, gain * (dense.bias - norm.running_mean) + norm.bias)
    assert_same(out=(out, folded), atol=1e-13)  # a dozen roundings of numbers about 1


def test_dropout_silences_the_same_inputs_at_every_step():
    torch.manual_seed(0)
    network = Network((Dropout(0.4), LI(beta=0.0)), (101,)).train()

    out = network(torch.ones(13, 3, 101))

    assert_same(mask=(out, out[:1].expand_as(out)))
    assert set(out.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.6)}
    assert not torch.equal(out[0, 0], out[0, 1])
    assert 0.3 < float((out == 0).float().mean()) < 0.5


def test_dropout_does_nothing_in_evaluation(noise):
    x = noise(13, 3, 11)

    assert_same(out=(Network((Dropout(0.4), LI(beta=0.0)), (11,)).eval()(x), x))


# Recurrence


@pytest.mark.parametrize("neuron", (LIF(beta=0.9, reset="zero"), CubaLIF(alpha=0.7, beta=0.85)), ids=repr)
@pytest.mark.parametrize("bias", (False, True))
def test_a_recurrent_layer_equals_a_loop_over_its_steps(neuron, bias, noise):
    network = Network((Recurrent(neuron, bias=bias),), (7,), seed=1)
    layer = network.layers[0]
    x = noise(19, 3, 7).requires_grad_()

    out = network(x)
    state, spikes = None, torch.zeros(3, 7)
    steps = []
    for x_t in x:
        current = x_t + F.linear(spikes, layer.recurrence.weight, layer.recurrence.bias)
        (spikes,), state = simulate(neuron, current[None], state)
        steps.append(spikes)
    wanted = torch.stack(steps)

    assert 0 < float(out.detach().mean()) < 1
    assert_same(spikes=(out, wanted))
    for name, leaf in {"x": x, **dict(layer.named_parameters())}.items():
        gradients = [torch.autograd.grad(s.square().sum(), leaf, retain_graph=True)[0] for s in (out, wanted)]
        assert_near(share=1e-5, **{name: (gradients[0], gradients[1])})


def test_a_recurrent_layer_without_weights_is_its_neuron(noise):
    network = Network((Recurrent(LIF(beta=0.9, reset="zero")),), (7,))
    with torch.no_grad():
        network.layers[0].recurrence.weight.zero_()
    x = noise(19, 3, 7)

    assert_same(spikes=(network(x), simulate(LIF(beta=0.9, reset="zero"), x)[0]))


def test_a_recurrent_layer_behind_a_norm_in_training_keeps_its_recurrence(noise):
    neuron, x = LIF(beta=0.9, reset="zero"), noise(19, 3, 7)
    network = Network((BatchNorm(), Recurrent(neuron)), (7,), seed=1).train()
    norm, layer = network.layers
    with torch.no_grad():
        normed = F.batch_norm(x.flatten(0, 1), None, None, norm.weight, norm.bias, training=True).view_as(x)
        state, spikes, steps = None, torch.zeros(3, 7), []
        for x_t in normed:
            (spikes,), state = simulate(neuron, (x_t + F.linear(spikes, layer.recurrence.weight))[None], state)
            steps.append(spikes)

        out = network(x)

    assert_same(spikes=(out, torch.stack(steps)))
    assert not torch.equal(out, simulate(neuron, normed)[0])  # what it would be without


# Learned parameters


LEARNED = ALIF(alpha=0.3, beta=0.9, rho=0.97, kappa=0.4, threshold=1.3)
NAMES = ("alpha", "beta", "rho", "kappa", "threshold")


def test_learned_parameters_start_at_their_values():
    network = Network((Spiking(LEARNED, learn=NAMES),), (5,))

    values = network.layers[0].parameters_now()

    for name, symbol in zip(NAMES, ("alpha", "beta", "rho", "kappa", "theta"), strict=True):
        wanted = torch.full((5,), getattr(LEARNED, name))
        assert_same(**{name: (values[symbol], wanted)}, rtol=1e-6)  # a function and its inverse, a few roundings


def test_learned_parameters_start_at_each_neurons_own_value():
    beta = (0.01, 0.5, 0.999)

    network = Network((Spiking(LIF(beta=beta), learn=("beta",)),), (3,))

    assert_same(beta=(network.layers[0].parameters_now()["beta"], torch.tensor(beta)), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("step", (1e6, -1e6))
def test_learned_parameters_stay_in_range_after_huge_steps(step, noise):
    network = Network((Spiking(LEARNED, learn=NAMES),), (5,))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += step

    values = network.layers[0].parameters_now()
    x = noise(7, 3, 5).requires_grad_()
    spikes = network(x)
    gradient = torch.autograd.grad(spikes.sum(), x)[0]

    assert all(((values[name] >= 0) & (values[name] <= 1)).all() for name in ("alpha", "beta", "rho"))
    assert (values["theta"] > 0).all() and (values["kappa"] >= 0).all()
    assert torch.isfinite(spikes).all() and torch.isfinite(gradient).all()


def test_learned_parameters_receive_gradients_in_every_neuron(noise):
    network = Network((Spiking(LEARNED, learn=NAMES),), (5,))

    network(noise(31, 3, 5).abs()).square().sum().backward()

    assert all(parameter.grad is not None and parameter.grad.all() for parameter in network.parameters())


@pytest.mark.parametrize("name", ("gamma", "reset", "alpha"))
def test_what_the_neuron_lacks_cannot_be_learned(name):
    with pytest.raises(SnnError, match=rf"LIF: cannot learn '{name}'. It has: beta, threshold"):
        Network((Spiking(LIF(beta=0.9), learn=(name,)),), (5,))


@pytest.mark.parametrize("beta", (0.0, 1.0, (0.5, 1.0)))
def test_a_decay_at_the_end_of_its_range_cannot_be_learned(beta):
    with pytest.raises(SnnError, match=r"start inside 0\.\.1"):
        Network((Spiking(LIF(beta=beta), learn=("beta",)),), (2,))


def test_a_rise_that_starts_at_zero_cannot_be_learned():
    with pytest.raises(SnnError, match="kappa"):
        Network((Spiking(ALIF(beta=0.9, rho=0.9, kappa=0.0), learn=("kappa",)),), (2,))


# What is refused


@pytest.mark.parametrize(
    "layer, shape, message",
    (
        (Dense(5), (2, 7), r"Put Flatten\(\) before it"),
        (Conv(5, 3), (7,), "it takes.*channels"),
        (Conv(5, 3, groups=2), (4, 7), "groups should divide"),
        (Conv(5, 9), (2, 7), "model.0"),
        (Conv(5, (3, 3)), (2, 7), "has 1 spatial axes"),
        (Conv(5, 3, padding=(1,)), (2, 7, 7), "has 2 spatial axes"),
        (Delay((1, 2, 3)), (7,), "delays for neurons"),
        (Pool(2), (7,), "it takes.*channels"),
        (Recurrent(LIF(beta=0.9)), (2, 7), r"Put Flatten\(\) before it"),
    ),
    ids=repr,
)
def test_a_layer_that_does_not_fit_its_input_is_refused_with_its_place(layer, shape, message):
    with pytest.raises(SnnError, match=rf"(?s)model\.0 .*, on an input of .*{message}|{message}"):
        Network((layer,), shape)


def test_a_recurrent_neuron_spikes():
    with pytest.raises(SnnError, match="takes a spiking neuron"):
        Recurrent(LI(beta=0.9))


@pytest.mark.parametrize("wrong", ("beta", ("bta",), ("beta", "beta"), ("reset",), ("kappa",), (1,)))
def test_what_a_neuron_cannot_learn_is_refused_when_the_layer_is_made(wrong):
    with pytest.raises(SnnError, match=r"learn|It has: beta, threshold"):
        Spiking(LIF(beta=0.9), learn=wrong)


def test_the_surrogate_of_the_network_reaches_its_neurons(noise):
    x = noise(7, 3, 5).requires_grad_()

    gradients = [
        torch.autograd.grad(Network((LIF(beta=0.9, reset="zero"),), (5,), surrogate=ATan(slope))(x).sum(), x)[0]
        for slope in (1.0, 9.0)
    ]

    assert not torch.equal(*gradients)


def test_delays_of_images_lie_as_their_neurons(coin):
    steps = (((0, 1), (2, 3)), ((4, 0), (1, 2)))
    x = coin(9, 2, 2, 2, 2, probability=0.5)

    out = Network((Delay(steps),), (2, 2, 2))(x)

    assert Delay(np.array(steps)) == Delay(torch.tensor(steps).tolist()) == Delay(steps)
    assert out[4, 0, 1, 0, 0] == x[0, 0, 1, 0, 0] and out[3, 1, 0, 1, 1] == x[0, 1, 0, 1, 1]
    with pytest.raises(SnnError, match="rows differ in length"):
        Delay(((1, 2), (3,)))


def test_weights_of_a_recurrent_layer_saved_by_0_1_0_are_loaded():
    network = Network((Recurrent(LIF(beta=0.9), learn=("beta",)),), (3,), seed=1)
    other = Network((Recurrent(LIF(beta=0.8), learn=("beta",)),), (3,), seed=2)
    saved = {name.replace("0.learned", "0.neurons.learned"): value for name, value in network.state_dict().items()}

    other.load_state_dict(saved)

    assert "layers.0.neurons.learned.beta" in saved
    assert all(torch.equal(mine, other.state_dict()[name]) for name, mine in network.state_dict().items())
