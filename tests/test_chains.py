"""Dense layers with their neurons as one event-driven operation, against the same layers in the reference."""

from itertools import product

import catalogue
import pytest
import torch
from catalogue import assert_near, assert_same, quick_first

from snn_bp import (
    ALIF,
    IF,
    LI,
    LIF,
    ATan,
    BatchNorm,
    Boxcar,
    Conv,
    CubaLIF,
    Dense,
    Network,
    Pool,
    Recurrent,
    Spiking,
    Surrogate,
    Triangular,
)
from snn_bp.kernels import use_backend
from snn_bp.kernels.cpu import chain as kernel
from snn_bp.kernels.cpu import dense, subnormals
from snn_bp.model import steps
from snn_bp.model.network import has_state

FAST = Surrogate("FastSigmoid", slope=5.0)
MODELS = {
    "feed-forward": (Dense(70), LIF(beta=0.9), Dense(13), LIF(beta=0.8, reset="zero", detach_reset=False)),
    "readout": (Dense(37), CubaLIF(alpha=0.5, beta=0.9, reset="zero"), Dense(5, bias=False), LI(beta=0.9, alpha=0.4)),
    "recurrent": (
        *(Dense(70), Recurrent(LIF(beta=0.8), bias=True)),
        *(Dense(9), Recurrent(ALIF(beta=0.9, rho=0.9, kappa=0.2))),
    ),
    "undetached": (
        *(Dense(21), CubaLIF(alpha=0.5, beta=0.9, reset="zero_all", detach_reset=False)),
        *(Dense(9), LIF(beta=0.8, reset="zero_all", detach_reset=False)),
        *(Dense(9), LIF(beta=0.8, reset="subtract_before_leak", detach_reset=False)),
        *(Dense(9), IF(detach_reset=False)),
    ),
    "learned": (
        *(Dense(33), Spiking(ALIF(beta=0.8, rho=0.9, kappa=0.3, alpha=0.4), learn=("alpha", "beta", "rho", "kappa"))),
        *(Dense(10), Recurrent(LIF(beta=0.7, reset="zero"), learn=("beta", "threshold"))),
    ),
    "no dense layer in front": (Recurrent(LIF(beta=0.8), bias=True), Dense(6), LIF(beta=0.7)),
    "own parameters": (Dense(7), catalogue.NEURONS[2], Dense(3), LIF(beta=(0.5, 0.7, 0.9))),
}  # fmt: skip


def build(name, *, memory="full", inputs=19, surrogate=FAST):
    """The network in double precision, its weights in multiples of 1 / 64 and large enough that all layers fire."""
    network = Network((MODELS | WINDOWED)[name], (inputs,), surrogate=surrogate, seed=1, memory=memory).double()
    with torch.no_grad():
        for parameter_name, parameter in network.named_parameters():
            if ".learned." not in parameter_name:
                parameter.copy_(torch.round(256 * parameter) / 64)
    return network


def results(network, x, state=None):
    """Output, rates, last states, and the gradients of a sum of all three that weighs every number differently."""
    leaves = [x, *network.parameters()]
    if state is not None:
        leaves += [part for layer in state for part in layer if part is not None]
    out, rates, after = network.rates(x, state)
    ends = [part for layer in after for part in layer if part is not None]
    generator = torch.Generator().manual_seed(0)
    total = sum(
        (part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum() for part in (out, *rates, *ends)
    )
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    return out, rates, ends, [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]


def assert_equal_to_reference(network, x, state=None):
    """Compare with the layers one by one: spikes exactly, sums of floats to 1e-11 of the largest."""
    with use_backend("reference"):
        wanted = results(network, x, state)
    got = results(network, x, state)

    assert_near(share=1e-13, out=(got[0], wanted[0]))
    for place, pair in enumerate(zip(got[1], wanted[1], strict=True)):
        assert_same(atol=1e-13, **{f"rates {place}": pair})
    for place, pair in enumerate(zip(got[2], wanted[2], strict=True)):
        assert_near(share=1e-12, **{f"state {place}": pair})
    for place, pair in enumerate(zip(got[3], wanted[3], strict=True)):
        assert_near(share=1e-11, **{f"gradient {place}": pair})
    assert all(rate.mean() > 0 for rate in wanted[1])


@pytest.fixture
def taken(monkeypatch):
    """How many blocks each call of the fused operation held."""
    calls = []
    real = kernel.run_layers

    def count(x, layers, chain):
        calls.append(len(layers))
        return real(x, layers, chain)

    monkeypatch.setattr("snn_bp.kernels.cpu.chain.run_layers", count)
    return calls


@pytest.mark.parametrize("memory", ("full", "low"))
@pytest.mark.parametrize("name", quick_first(MODELS, "feed-forward", "recurrent"))
def test_a_chain_equals_its_layers_in_the_reference(name, memory, coin, taken):
    x = coin(83, 35, 19, probability=0.2).double().requires_grad_()  # more steps and samples than one chunk or part

    assert_equal_to_reference(build(name, memory=memory), x)

    assert taken == [sum(has_state(layer) for layer in build(name).layers)]


WINDOWS = {  # by how many of the errors are within the window of a surrogate
    "none": Boxcar(slope=1e5), "few": Boxcar(slope=8.0), "many": Boxcar(slope=0.7), "all": Boxcar(slope=1e-3),
    "few, of a triangle": Triangular(slope=8.0), "all, of a triangle": Triangular(slope=1e-3),
}  # fmt: skip
WINDOWED = {
    "reset detached": (Dense(70), Recurrent(LIF(beta=0.8)), Dense(21), LIF(beta=0.8)),
    "zero": (Dense(70), LIF(beta=0.9, reset="zero"), Dense(21), Recurrent(LIF(beta=0.8, reset="zero"))),
    "zero, not detached": (
        *(Dense(70), CubaLIF(alpha=0.5, beta=0.9, reset="zero_all", detach_reset=False)),
        *(Dense(21), Recurrent(ALIF(beta=0.9, rho=0.9, kappa=0.2))),
    ),
    "learned, one neuron": (
        *(Dense(33), Spiking(ALIF(beta=0.8, rho=0.9, kappa=0.3, alpha=0.4), learn=("alpha", "beta", "rho", "kappa"))),
        *(Dense(10), Recurrent(LIF(beta=0.7), learn=("beta", "threshold"))),
    ),
    "many thresholds": (Dense(3), LIF(beta=0.8, threshold=(0.5, 0.75, 1.25)), Dense(5), IF()),
}  # fmt: skip


@pytest.mark.parametrize("limit", (None, 2.0, -1.0), ids=("as measured", "always sampled", "never"))
@pytest.mark.parametrize("memory", quick_first(("full", "low"), "full"))
@pytest.mark.parametrize("window", quick_first(WINDOWS, "few", "many"))
@pytest.mark.parametrize("name", quick_first(WINDOWED, "reset detached"))
def test_errors_outside_the_window_of_a_surrogate_are_zero_however_they_are_computed(
    name, window, memory, limit, coin, monkeypatch
):
    if limit is not None:
        monkeypatch.setattr(dense, "SAMPLED_TO", limit)
        monkeypatch.setattr(dense, "SAMPLED_FROM_UNITS", 0)
    x = coin(40, 35, 19, probability=0.2).double().requires_grad_()

    assert_equal_to_reference(build(name, memory=memory, surrogate=WINDOWS[window]), x)


@pytest.mark.slow
@pytest.mark.parametrize("surrogate", (Boxcar(slope=4.0), Triangular(slope=4.0)), ids=repr)
def test_sampled_errors_are_the_same_bits_for_any_number_of_threads(surrogate, coin):
    x, found = coin(50, 64, 40, probability=0.1), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        network = Network((Dense(70), Recurrent(LIF(beta=0.9)), Dense(9), LIF(beta=0.9)), (40,), surrogate=surrogate)
        network(x).sum(0).square().sum().backward()
        found.append([parameter.grad for parameter in network.parameters()])
    torch.set_num_threads(1)

    assert found[0][0].any()
    assert all(torch.equal(one, two) and torch.equal(one, three) for one, two, three in zip(*found, strict=True))


@pytest.mark.parametrize("probability", (0.0, 0.02, 0.3, 0.4, 1.0))
def test_any_density_of_the_input_gives_the_same_values(probability, coin, noise):
    x = (coin(40, 17, 19, probability=probability) * noise(40, 17, 19).mul(4).round().div(4)).double().requires_grad_()
    network = build("recurrent")
    with torch.no_grad():
        network.layers[0].bias += 0.5  # the first layer fires without input

    assert_equal_to_reference(network, x)


def test_layers_that_fire_almost_always_are_multiplied_as_matrices(coin):
    network = Network((Dense(30), LIF(beta=0.5), Dense(8), LIF(beta=0.5)), (19,), surrogate=FAST).double()
    with torch.no_grad():
        network.layers[0].weight.copy_(torch.round(64 * network.layers[0].weight) / 64)
        network.layers[0].bias.fill_(2.0)
        network.layers[2].weight.copy_(torch.round(64 * network.layers[2].weight) / 64)
        network.layers[2].bias.fill_(0.25)
    x = coin(40, 17, 19, probability=0.05).double().requires_grad_()

    assert_equal_to_reference(network, x)

    assert network.layers[1](network.layers[0](x))[0].mean() > dense.PRODUCT_FROM


@pytest.mark.parametrize(
    "name", quick_first(("feed-forward", "recurrent", "learned", "undetached"), "recurrent", "undetached")
)
def test_a_state_goes_in_and_its_gradient_comes_out(name, coin):
    network = build(name)
    x = coin(12, 5, 19, probability=0.3).double()
    with torch.no_grad():
        _, state = network.run(x)
    state = tuple(type(layer)(*(None if part is None else part.requires_grad_() for part in layer)) for layer in state)

    assert_equal_to_reference(network, x.requires_grad_(), state)


@pytest.mark.parametrize("name", MODELS)
def test_stopping_halfway_changes_nothing(name, coin):
    network, x = build(name), coin(41, 20, 19, probability=0.3).double()

    whole, after = network.run(x)
    first, state = network.run(x[:20])
    second, last = network.run(x[20:], state)

    assert_same(out=(torch.cat([first, second]), whole))
    for place, (mine, wanted) in enumerate(zip(last, after, strict=True)):
        for part, pair in zip(mine._fields, zip(mine, wanted, strict=True), strict=True):
            if pair[0] is not None:
                assert_same(**{f"{place} {part}": pair})


def test_any_number_of_threads_gives_the_same_bits(noise, coin):
    x, found = coin(50, 64, 40, probability=0.1), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        network = Network((Dense(70), Recurrent(LIF(beta=0.9)), Dense(9), LIF(beta=0.9)), (40,))
        out = network(x)
        out.sum(0).square().sum().backward()
        found.append([out, *(parameter.grad for parameter in network.parameters())])
    torch.set_num_threads(1)

    for one, two, three in zip(*found, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


def test_low_memory_gives_the_same_bits(coin):
    x, found = coin(150, 40, 30, probability=0.1), []
    for memory in ("full", "low"):
        network = Network((Dense(50), Recurrent(LIF(beta=0.9)), Dense(9), LIF(beta=0.9)), (30,), memory=memory)
        network(x).sum(0).square().sum().backward()
        found.append([parameter.grad for parameter in network.parameters()])

    assert all(torch.equal(full, low) for full, low in zip(*found, strict=True))


def test_a_gradient_that_is_the_same_at_every_step_need_not_be_laid_out(coin, noise):
    x, network, pull = coin(60, 20, 19, probability=0.2), build("feed-forward").float(), noise(20, 13)
    out = network(x)

    once = torch.autograd.grad(out, list(network.parameters()), pull.expand_as(out), retain_graph=True)
    each = torch.autograd.grad(out, list(network.parameters()), pull.repeat(60, 1, 1))

    assert all(torch.equal(one, other) and one.any() for one, other in zip(once, each, strict=True))


def test_subnormal_numbers_are_zero_within_a_chain_and_nowhere_else(coin):
    tiny, network = torch.tensor(1e-40), build("feed-forward").float()
    out = network(coin(30, 4, 19, probability=0.2))

    gradients = torch.autograd.grad(out, list(network.parameters()), tiny.expand_as(out))

    assert out.any() and tiny * 2 > 0 and subnormals.are_kept()
    assert all(not gradient.any() for gradient in gradients)


def test_the_gradient_can_be_taken_twice(coin):
    x, network = coin(30, 4, 19, probability=0.2).double(), build("feed-forward", memory="low")
    loss = network(x).sum(0).square().sum()

    first = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(network.parameters()))

    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


@torch.no_grad()
def test_a_norm_in_evaluation_folds_into_the_weights(coin, noise, taken):
    model = (Dense(30), BatchNorm(), LIF(beta=0.9), Dense(8), BatchNorm(), LI(beta=0.8))
    network = Network(model, (19,)).double()
    for norm in (network.layers[1], network.layers[4]):
        for name, value in (("running_mean", 0.1), ("weight", 2.0), ("bias", 0.5)):
            getattr(norm, name).copy_(value * (1 + 0.1 * noise(norm.num_features, dtype=torch.float64)))
    x = coin(40, 17, 19, probability=0.2).double()

    got = network.eval()(x)
    with use_backend("reference"):
        wanted = network(x)

    assert_same(out=(got, wanted), atol=1e-12)
    assert taken == [2]


def test_a_norm_in_training_parts_the_chain(coin, taken):
    model = (Dense(30), BatchNorm(), LIF(beta=0.9), Dense(8), LIF(beta=0.8))
    network = Network(model, (19,)).double().train()
    x = coin(40, 17, 19, probability=0.2).double()

    got = network(x)
    with use_backend("reference"):
        wanted = network(x)

    assert_same(out=(got, wanted))
    assert taken == [1]


def test_a_layer_with_a_hook_is_called(coin, taken):
    network, seen = Network((Dense(30), LIF(beta=0.9)), (19,)), []
    network.layers[0].register_forward_hook(lambda *_: seen.append("called"))

    network(coin(10, 4, 19, probability=0.2))

    assert seen == ["called"] and taken == []


def test_single_precision_agrees_with_the_reference_where_spikes_do(coin):
    network = Network((Dense(256), LIF(beta=0.9), Dense(10), LIF(beta=0.9)), (100,), surrogate=ATan())
    x = coin(50, 33, 100, probability=0.1)
    with use_backend("reference"):
        wanted = network(x)
        g_wanted = torch.autograd.grad(wanted.sum(0).square().sum(), list(network.parameters()))

    out = network(x)
    g = torch.autograd.grad(out.sum(0).square().sum(), list(network.parameters()))

    assert torch.equal(out, wanted), "rounding moved a spike: choose another seed for this test"
    for pair in zip(g, g_wanted, strict=True):
        assert_near(share=1e-5, gradient=pair)


@pytest.mark.slow
@pytest.mark.parametrize(
    "neuron, surrogate", tuple(product(catalogue.EVERY_NEURON, catalogue.SURROGATES[:2])), ids=repr
)
def test_every_neuron_in_a_chain_equals_the_reference(neuron, surrogate, coin):
    network = Network((Dense(9), Recurrent(neuron), Dense(5), neuron), (19,), surrogate=surrogate, seed=1).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.round(256 * parameter) / 64)
    x = coin(23, 3, 19, probability=0.3).double().requires_grad_()

    assert_equal_to_reference(network, x)


NORMED = {
    "dense": ((Dense(30), BatchNorm(), LIF(beta=0.9), Dense(7), BatchNorm(scale=0.7), LI(beta=0.8)), (19,)),
    "convolution": (
        (Conv(5, 3), BatchNorm(), LIF(beta=0.8, reset="zero", detach_reset=False), Conv(3, 3), BatchNorm(), IF()),
        (2, 9, 8),
    ),
    "in a row": ((Conv(4, 3), BatchNorm(), CubaLIF(alpha=0.4, beta=0.9), Pool(2), LIF(beta=0.7)), (2, 12)),
    "undetached": (
        (Dense(12), BatchNorm(), CubaLIF(alpha=0.5, beta=0.9, reset="zero_all", detach_reset=False)),
        (19,),
    ),
    "learned": (
        *((Dense(12), BatchNorm(), Spiking(ALIF(beta=0.8, rho=0.9, kappa=0.3), learn=("beta", "rho", "kappa"))),),
        (19,),
    ),
    "without a norm": ((Conv(5, 3), Pool(2, kind="max"), ALIF(beta=0.9, rho=0.8, kappa=0.2, alpha=0.3)), (2, 9, 8)),
}


@pytest.mark.parametrize("name", quick_first(NORMED, "dense", "convolution"))
def test_neurons_behind_a_norm_in_training_equal_the_reference(name, coin, monkeypatch):
    model, shape = NORMED[name]
    x = coin(23, 6, *shape, probability=0.3).double().requires_grad_()
    found, calls = [], []
    real = steps.run_normed
    monkeypatch.setattr("snn_bp.model.steps.run_normed", lambda *given: (calls.append(given[0]), real(*given))[1])
    for backend in ("fastest", "reference"):
        network = Network(model, shape, surrogate=FAST, seed=1).double().train()
        with use_backend(backend):
            out, rates, ends, gradients = results(network, x)
        found.append(([out], rates, ends, gradients, list(network.buffers())))

    assert len(calls) == sum(has_state(layer) for layer in network.layers)
    names = ("out", "rates", "state", "gradient", "buffer")
    for part, mine, wanted in zip(names, *found, strict=True):
        largest = max(
            (float(each.detach().abs().max()) for each in wanted), default=0.0
        )  # a bias before a norm has no gradient
        for pair in zip(mine, wanted, strict=True):
            assert_same(atol=1e-10 * largest, **{part: pair})
    assert any(rate.mean() > 0 for rate in found[0][1]) or found[0][0][0].any()


def test_neurons_without_a_norm_spike_as_the_reference_to_the_bit(noise):
    network = Network((Pool(2, kind="sum"), LIF(beta=0.9)), (3, 8, 6))
    x = noise(40, 5, 3, 8, 6)

    out, state = network.run(x)
    with use_backend("reference"):
        wanted, wanted_state = network.run(x)

    assert_same(out=(out, wanted), state=(state[0].v, wanted_state[0].v))


def test_a_norm_and_its_neurons_go_on_from_a_state(coin):
    network = Network((Conv(5, 3), BatchNorm(), LIF(beta=0.8)), (2, 9, 8)).double().eval()
    x = coin(20, 6, 2, 9, 8, probability=0.3).double()

    whole, _ = network.run(x)
    first, state = network.run(x[:9])
    second, _ = network.run(x[9:], state)

    assert_same(out=(torch.cat([first, second]), whole))
