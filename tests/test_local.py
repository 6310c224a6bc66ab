"""OTTT and e-prop: equal to BPTT where they leave nothing out, to their equations elsewhere; constant memory."""

from functools import partial

import pytest
import torch
from catalogue import EVERY_NEURON, NEURON_COUNT, NEURONS, assert_near

from snn_bp import (
    ALIF,
    IF,
    LI,
    LIF,
    BatchNorm,
    Conv,
    CountCrossEntropy,
    CountSquaredError,
    CubaLIF,
    Delay,
    Dense,
    Dropout,
    FirstSpike,
    Flatten,
    MaxCrossEntropy,
    MembraneCrossEntropy,
    Network,
    OnChip,
    Pool,
    Recurrent,
    SnnError,
    Spiking,
)
from snn_bp.instruments.online import compare_to_bptt, eprop, objective, ottt
from snn_bp.kernels import use_backend
from snn_bp.kernels.reference import torch_slope
from snn_bp.surrogates import ATan

TARGETS = torch.tensor([2, 0, 3])
LOSS = CountCrossEntropy()
ERRORS = ("step", "total")
SHARE = 1e-10  # of the largest gradient: double precision, sums of some hundred terms in another order
UNRESET = (
    IF(),
    LIF(beta=0.9),
    LIF(beta=0.9, reset="subtract_before_leak"),
    LIF(beta=0.8, reset="none"),
    CubaLIF(alpha=0.7, beta=0.85),
    LI(beta=0.9, alpha=0.5),
)
MEMORYLESS = LI(beta=0.0)


@pytest.fixture
def x(coin):
    return coin(13, 3, 5, probability=0.5).double()


def made(*model, shape=(5,)):
    network = Network(model, shape, seed=2).double().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 2  # so that small layers spike
    return network


def bptt(network, x, error="step", loss=LOSS):
    """Gradients of backpropagation through time by the torch reference."""
    names, weights = zip(*network.named_parameters(), strict=True)
    with use_backend("reference"):
        out = network(x)
    return dict(zip(names, torch.autograd.grad(objective(out, TARGETS, loss, error), weights), strict=True))


def assert_equal(got, wanted, *, names=None):
    """Raise unless both hold the same gradients, those of layers 0, 1, 2 where `names` starts with these."""
    assert got.keys() == wanted.keys()
    for name in got:
        if names is None or name.startswith(names):
            assert wanted[name].abs().max() > 0, f"{name}: nothing to compare"
            assert_near(share=SHARE, **{name.replace(".", "_"): (got[name], wanted[name])})


def differ(got, wanted, name):
    return float((got[name] - wanted[name]).norm() / wanted[name].norm()) > 0.01


# Equal to BPTT where nothing is left out


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
def test_eprop_of_one_layer_is_bptt(neuron, error, x):
    network = made(Dense(NEURON_COUNT), neuron)

    assert_equal(eprop(network, x, TARGETS, LOSS, error=error), bptt(network, x, error))


@pytest.mark.parametrize("readout", (LI(beta=0.7), LI(beta=0.7, alpha=0.4), LIF(beta=0.7), IF()), ids=repr)
@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
def test_eprop_of_the_layer_below_the_readout_is_bptt(neuron, readout, x):
    network = made(Dense(NEURON_COUNT), neuron, Dense(4), readout)

    assert_equal(eprop(network, x, TARGETS, LOSS), bptt(network, x))


@pytest.mark.slow
@pytest.mark.parametrize("neuron", EVERY_NEURON, ids=repr)
def test_eprop_of_the_layer_below_the_readout_is_bptt_for_every_neuron(neuron, x):
    network = made(Dense(NEURON_COUNT), neuron, Dense(4), LI(beta=0.7))

    assert_equal(eprop(network, x, TARGETS, LOSS), bptt(network, x))


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("neuron", UNRESET, ids=repr)
def test_ottt_of_one_layer_is_bptt(neuron, error, x):
    network = made(Dense(4), neuron)

    assert_equal(ottt(network, x, TARGETS, LOSS, error=error), bptt(network, x, error))


@pytest.mark.parametrize("neuron", UNRESET, ids=repr)
def test_ottt_below_a_readout_without_memory_is_bptt(neuron, x):
    network = made(Dense(7), neuron, Dense(4), MEMORYLESS)

    assert_equal(ottt(network, x, TARGETS, LOSS), bptt(network, x))


@pytest.mark.parametrize("loss", (LOSS, MembraneCrossEntropy(), CountSquaredError()), ids=repr)
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("rule", (ottt, eprop))
def test_every_loss_of_a_sum_over_time_has_an_error_of_each_step(rule, error, loss, x):
    network = made(Dense(4), LIF(beta=0.9))

    assert_equal(rule(network, x, TARGETS, loss, error=error), bptt(network, x, error, loss))


@pytest.mark.parametrize("rule", (ottt, eprop))
def test_convolutions_pools_and_folded_norms_have_the_gradients_of_bptt(rule, coin):
    x = coin(9, 3, 2, 7, 7, probability=0.5).double()
    network = made(
        *(Pool(2, kind="max", stride=1), Conv(3, 3, stride=2, padding=1), BatchNorm(), LIF(beta=0.8)),
        *(Pool(3, kind="sum"), Flatten(), Dropout(), Dense(4, bias=False), BatchNorm(), MEMORYLESS),
        shape=(2, 7, 7),
    )
    network.train()(x)  # statistics of norms

    network.eval()

    assert_equal(rule(network, x, TARGETS, LOSS), bptt(network, x))


@pytest.mark.parametrize("rule", (ottt, eprop))
def test_convolutions_in_one_dimension_have_the_gradients_of_bptt(rule, coin):
    x = coin(9, 3, 2, 8, probability=0.5).double()
    network = made(Conv(3, 3, stride=2, dilation=2), LIF(beta=0.8), Flatten(), Dense(4), MEMORYLESS, shape=(2, 8))

    assert_equal(rule(network, x, TARGETS, LOSS), bptt(network, x))


def test_ottt_knows_groups(coin):
    x = coin(9, 3, 2, 5, 5, probability=0.5).double()
    network = made(Conv(4, 3, groups=2), LIF(beta=0.8), Flatten(), Dense(4), MEMORYLESS, shape=(2, 5, 5))

    assert_equal(ottt(network, x, TARGETS, LOSS), bptt(network, x))


# What they leave out


@pytest.mark.parametrize("neuron", (LIF(beta=0.9, reset="zero"), ALIF(beta=0.9, rho=0.9, kappa=0.4)), ids=repr)
def test_ottt_differs_from_bptt_where_its_trace_knows_no_reset_or_adaptation(neuron, x):
    network = made(Dense(4), neuron)

    assert differ(ottt(network, x, TARGETS, LOSS), bptt(network, x), "layers.0.weight")


@pytest.mark.parametrize("rule", (ottt, eprop))
def test_deep_layers_differ_from_bptt(rule, x):
    network = made(Dense(9), LIF(beta=0.9), Dense(7), LIF(beta=0.9), Dense(4), LI(beta=0.7))

    assert differ(rule(network, x, TARGETS, LOSS), bptt(network, x), "layers.0.weight")


@pytest.mark.parametrize(
    "neuron", (LIF(beta=0.9), ALIF(beta=0.9, rho=0.9, kappa=0.4, alpha=0.3, reset="zero", detach_reset=False)), ids=repr
)
def test_eprop_leaves_out_what_goes_through_other_neurons(neuron, x):
    network = made(Dense(7), Recurrent(neuron, bias=True), Dense(4), LI(beta=0.7))

    found = eprop(network, x, TARGETS, LOSS)

    layer = network.layers[1]
    forward, layer.recurrence.forward = layer.recurrence.forward, lambda s: forward(s.detach())
    assert_equal(found, bptt(network, x))
    layer.recurrence.forward = forward
    assert differ(found, bptt(network, x), "layers.1.recurrence.weight")


def test_a_recurrent_layer_on_the_input_itself_learns(x):
    network = made(Recurrent(LIF(beta=0.9)), Dense(4), MEMORYLESS)
    with torch.no_grad():
        network.layers[0].recurrence.weight += 0.3

    first, second = ottt(network, 2 * x, TARGETS, LOSS), eprop(network, 2 * x, TARGETS, LOSS)

    assert_equal(first, second)  # no readout leak, no reset in the trace: the same equations


def test_ottt_of_two_layers_is_its_equation(x):
    beta, surrogate = 0.8, torch_slope(ATan())
    network = made(Dense(7, bias=False), LIF(beta=beta), Dense(4, bias=False), LIF(beta=beta))
    (hidden, out), _ = network.observe(x)

    found = ottt(network, x, TARGETS, LOSS)

    leaf = out.spikes.detach().requires_grad_()
    (error,) = torch.autograd.grad(objective(leaf, TARGETS, LOSS, "step"), leaf)
    one = torch.ones(()).double()
    g2 = error * surrogate(out.potentials - 1, one)
    g1 = (g2 @ network.layers[2].weight) * surrogate(hidden.potentials - 1, one)
    lags = torch.arange(len(x))[:, None] - torch.arange(len(x))
    kernel = torch.where(lags >= 0, beta ** lags.double(), 0.0)  # [step, earlier step]
    for name, g, given in (("layers.0.weight", g1, x), ("layers.2.weight", g2, hidden.spikes)):
        wanted = torch.einsum("tbj,tk,kbi->ji", g, kernel, given)
        assert_near(share=SHARE, gradient=(found[name], wanted.detach()))


def test_random_feedback_leads_the_error_of_the_readout_by_weights_of_its_own(x):
    network = made(Dense(7, bias=False), LIF(beta=0.8), Dense(4, bias=False), LI(beta=0.6))
    rule = partial(eprop, network, x, TARGETS, LOSS, feedback="random")

    first, same, other, symmetric = rule(seed=1), rule(seed=1), rule(seed=2), eprop(network, x, TARGETS, LOSS)

    deep, last = "layers.0.weight", "layers.2.weight"
    assert torch.equal(first[deep], same[deep]) and differ(first, other, deep) and differ(first, symmetric, deep)
    assert torch.equal(first[last], symmetric[last])


def test_random_feedback_by_the_readout_s_own_weights_is_symmetric_feedback(x):
    network = made(Dense(7), LIF(beta=0.8), Dense(4), LI(beta=0.6))
    drawn = torch.randn(4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 7**0.5
    network.load_state_dict(network.state_dict() | {"layers.2.weight": drawn})

    assert_equal(eprop(network, x, TARGETS, LOSS, feedback="random", seed=1), eprop(network, x, TARGETS, LOSS))


# Memory, and the network afterwards


@pytest.mark.parametrize("rule", (ottt, eprop))
def test_nothing_is_saved_for_a_backward_pass_from_step_to_step(rule, coin):
    network = made(Dense(7), Recurrent(LIF(beta=0.8)), Dense(4), LI(beta=0.6))
    most = []
    for steps in (5, 50):
        alive, peak = [0], [0]

        class Held:
            def __init__(self, tensor, alive=alive, peak=peak):
                self.tensor, self.alive = tensor, alive
                alive[0] += 1
                peak[0] = max(peak[0], alive[0])

            def __del__(self):
                self.alive[0] -= 1

        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            rule(network, coin(steps, 3, 5, probability=0.5).double(), TARGETS, LOSS)
        most.append(peak[0])

    assert most[0] == most[1] > 0


@pytest.mark.parametrize("rule", (ottt, eprop))
def test_a_rule_leaves_the_network_as_it_was(rule, x):
    network = made(Dense(7), LIF(beta=0.8), Dense(4), LI(beta=0.6))
    before = {name: part.clone() for name, part in network.state_dict().items()}

    found = rule(network, x, TARGETS, LOSS)

    assert found.keys() == dict(network.named_parameters()).keys()
    assert all(weight.grad is None for weight in network.parameters())
    assert all(torch.equal(before[name], part) for name, part in network.state_dict().items())
    assert not any(part.requires_grad for part in found.values())


@pytest.mark.parametrize("rule", (ottt, eprop))
def test_weights_that_are_held_get_no_gradient(rule, x):
    network = made(Dense(7), LIF(beta=0.8), Dense(4), LI(beta=0.6))
    wanted = rule(network, x, TARGETS, LOSS)
    network.layers[0].weight.requires_grad_(False)

    found = rule(network, x, TARGETS, LOSS)

    assert found.keys() == wanted.keys() - {"layers.0.weight"}
    assert all(torch.equal(found[name], wanted[name]) for name in found)


# The comparison


def test_a_gradient_agrees_with_itself_and_with_its_half(x):
    network = made(Dense(7), LIF(beta=0.8), Dense(4), LI(beta=0.6))
    wanted = bptt(network, x)

    rows = compare_to_bptt(network, x, TARGETS, LOSS, {name: part / 2 for name, part in wanted.items()})

    assert list(rows) == [network.name(0), network.name(2)]
    assert [(row.cosine, row.norm_ratio) for row in rows.values()] == [(pytest.approx(1), pytest.approx(0.5))] * 2


def test_the_comparison_is_with_the_objective_that_is_asked_for(x):
    network = made(Dense(4), LIF(beta=0.8))

    found = eprop(network, x, TARGETS, LOSS, error="total")

    (same,) = compare_to_bptt(network, x, TARGETS, LOSS, found, error="total").values()
    (other,) = compare_to_bptt(network, x, TARGETS, LOSS, found, error="step").values()
    assert same.norm_ratio == pytest.approx(1) != pytest.approx(other.norm_ratio, rel=0.01)


# Refusals


@pytest.mark.parametrize("rule", (ottt, eprop))
@pytest.mark.parametrize(
    "model, message",
    (
        ((Dense(4), BatchNorm(), LIF(beta=0.8)), r"model\.1 BatchNorm\(\) takes the statistics of all time steps"),
        ((Dropout(), Dense(4), LIF(beta=0.8)), r"model\.0 Dropout\(\) .* Dropout in evaluation"),
        ((Delay(2), Dense(4), LIF(beta=0.8)), r"model\.0 Delay\(2\) is not what a time step takes by itself"),
        ((Dense(4), Dense(4), LIF(beta=0.8)), r"model\.1 Dense\(\d+\) is not what a time step takes"),
        ((Dense(4), Spiking(LIF(beta=0.8), learn=("beta",))), r"model\.1 Spiking\(.*\) learns parameters"),
        ((LIF(beta=0.8), Dense(4)), r"should end in neurons"),
    ),
)
def test_what_a_step_cannot_take_by_itself_is_refused(rule, model, message, x):
    with pytest.raises(SnnError, match=message):
        rule(Network(model, (5,)).double().train(), x, TARGETS, LOSS)


def test_a_trace_for_all_neurons_needs_decays_for_all(x):
    own = LIF(beta=(0.5, 0.6, 0.7, 0.8))
    with pytest.raises(SnnError, match=r"ottt: model\.1 LIF\(.*?\) has decays of its own"):
        ottt(made(Dense(4), own), x, TARGETS, LOSS)
    with pytest.raises(SnnError, match=r"eprop: model\.3 LIF\(.*?\) has decays of its own"):
        eprop(made(Dense(7), LIF(beta=0.8), Dense(4), own), x, TARGETS, LOSS)


@pytest.mark.parametrize("loss", (MaxCrossEntropy(), FirstSpike()), ids=repr)
@pytest.mark.parametrize("rule", (ottt, eprop))
def test_a_loss_of_when_something_happens_is_refused(rule, loss, x):
    with pytest.raises(SnnError, match="a step has no error of its own"):
        rule(made(Dense(4), LIF(beta=0.8)), x, TARGETS, loss)


def test_groups_targets_and_words_that_are_not_known_are_refused(x, coin):
    network = made(Dense(4), LIF(beta=0.8))
    with pytest.raises(SnnError, match="Did you mean 'total'"):
        ottt(network, x, TARGETS, LOSS, error="totals")
    with pytest.raises(SnnError, match="Did you mean 'random'"):
        eprop(network, x, TARGETS, LOSS, feedback="randomly")
    with pytest.raises(SnnError, match=r"input should be \[time, batch, 5\]"):
        ottt(network, x[..., :4], TARGETS, LOSS)
    grouped = made(Conv(4, 3, groups=2), LIF(beta=0.8), Flatten(), Dense(4), MEMORYLESS, shape=(2, 5, 5))
    with pytest.raises(SnnError, match="groups; use groups=1, or ottt"):
        eprop(grouped, coin(3, 3, 2, 5, 5, probability=0.5).double(), TARGETS, LOSS)
    with pytest.raises(SnnError, match="float equations only"):
        ottt(OnChip(Network((Dense(4), LIF(beta=0.8, reset="zero")), (5,))), x.float(), TARGETS, LOSS)
