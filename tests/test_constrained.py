"""Sparse and sign-constrained weights: plain numbers to whoever reads them, learned through what they are made of."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from catalogue import assert_same
from torch import nn

from snn_bp import (
    ALIF,
    LI,
    LIF,
    BatchNorm,
    Conv,
    CountCrossEntropy,
    CubaLIF,
    Data,
    Dense,
    Experiment,
    Flatten,
    Network,
    OnChip,
    Recurrent,
    SnnError,
    Spiking,
    check_gradients,
    simulate,
    start_alive,
    use_backend,
)
from snn_bp.chip.quantize import quantize
from snn_bp.exchange.nir_read import read_nir
from snn_bp.exchange.nir_write import write_nir
from snn_bp.exchange.snntorch import to_snntorch
from snn_bp.instruments.online import ottt
from snn_bp.model.constrained import ConstrainedLinear
from snn_bp.model.operations import operations
from snn_bp.runs.evaluation import count_activity
from snn_bp.runs.experiment import from_json, to_json
from snn_bp.searches.objective import OfOutput
from snn_bp.searches.population import value_points

NEURON = LIF(beta=0.9, reset="zero")
MODEL = (
    Dense(40, density=0.25, sign="dale"), NEURON, Dense(30, sign="dale"),
    Recurrent(NEURON, density=0.2, sign="negative"), Dense(5, density=0.5, bias=False), LI(beta=0.9),
)  # fmt: skip
TARGETS = torch.tensor([0, 1, 2, 4])


@pytest.fixture
def network():
    return Network(MODEL, (20,), seed=1)


def plain(network):
    """The network of dense layers with the weights that there are."""
    model = tuple(Dense(layer.units, bias=layer.bias) if isinstance(layer, Dense) else layer for layer in network.model)
    model = tuple(Recurrent(NEURON) if isinstance(layer, Recurrent) else layer for layer in model)
    copied = Network(model, network.input_shape)
    with torch.no_grad():
        for mine, theirs in zip(copied.modules(), network.modules(), strict=True):
            if isinstance(mine, nn.Linear):
                mine.weight.copy_(theirs.weight)
                if mine.bias is not None:
                    mine.bias.copy_(theirs.bias)
    return copied


def test_each_unit_has_as_many_inputs_and_each_input_one_sign(network):
    first, second, loop, last = (m for m in network.modules() if isinstance(m, ConstrainedLinear))

    assert torch.equal((first.weight != 0).sum(1), torch.full((40,), 5))
    assert torch.equal((loop.weight != 0).sum(1), torch.full((30,), 6))
    assert torch.equal((last.weight != 0).sum(1), torch.full((5,), 15))
    assert bool((first.weight[:, :16] >= 0).all()) and bool((first.weight[:, 16:] <= 0).all())
    assert bool((second.weight[:, :32] > 0).all()) and bool((second.weight[:, 32:] < 0).all())
    assert bool((loop.weight <= 0).all()) and bool((last.weight < 0).any()) and bool((last.weight > 0).any())


def test_inhibition_balances_excitation_at_the_start():
    weight = Dense(4000, sign="dale", excitatory=0.75).build((40,)).weight.detach()

    # each sum of excitation has 120,000 terms uniform up to a bound: its mean is known to 0.002 of itself
    excitation, inhibition = float(weight[:, :30].sum()), float(weight[:, 30:].sum())
    assert excitation == pytest.approx(-inhibition, rel=0.02)
    assert float(weight.square().mean()) == pytest.approx(1 / 40 / 3, rel=0.02)  # as a nn.Linear's


def test_the_same_seed_draws_the_same_connections_and_another_others():
    masks = [Network(MODEL, (20,), seed=seed).layers[0].mask for seed in (1, 1, 2)]

    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_no_constraint_is_torchs_own_layer():
    assert type(Dense(3).build((4,))) is nn.Linear
    assert type(Recurrent(NEURON).build((4,), Network((NEURON,), (4,)).surrogate).recurrence) is nn.Linear


def test_a_constrained_network_is_the_dense_one_with_these_weights(network, coin):
    x = coin(12, 4, 20, probability=0.3)
    network.zero_grad()

    out, other = network(x), plain(network)
    out.square().sum().backward()
    right = other(x)
    right.square().sum().backward()

    assert torch.equal(out, right) and bool(network.observe(x)[0][1].spikes.any())
    assert "one event-driven operation" in network.plan(x)[0] and len(network.plan(x)) == 1
    for mine, theirs in zip(network.modules(), other.modules(), strict=True):
        if isinstance(mine, ConstrainedLinear):
            sign = 1 if mine.signs is None else mine.raw.detach().sign() * mine.signs
            exists = 1 if mine.mask is None else mine.mask
            torch.testing.assert_close(mine.raw.grad, theirs.weight.grad * sign * exists)


def test_training_keeps_signs_and_connections(network, coin):
    x, before = coin(12, 4, 20, probability=0.3), [w.weight.detach().clone() for w in constrained(network)]
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, weight_decay=0.1)

    for _ in range(5):
        optimizer.zero_grad()
        CountCrossEntropy()(network(x), TARGETS).backward()
        optimizer.step()

    for layer, was in zip(constrained(network), before, strict=True):
        assert not torch.equal(layer.weight, was)
        assert torch.equal(layer.weight == 0, was == 0)
        if layer.signs is not None:
            assert torch.equal(layer.weight.sign(), was.sign())


def constrained(network):
    return [module for module in network.modules() if isinstance(module, ConstrainedLinear)]


def test_weights_masks_and_json_come_back(network):
    experiment = Experiment(Data("digits"), MODEL)
    other = Network(MODEL, (20,), seed=5)

    other.load_state_dict(network.state_dict())

    for mine, theirs in zip(constrained(network), constrained(other), strict=True):
        assert torch.equal(mine.weight, theirs.weight)
    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment
    old = {"is": "Dense", "units": 3, "bias": True}  # of a version without constraints
    assert from_json(old) == Dense(3)


def test_gradients_are_right(network, coin):
    report = check_gradients(network, coin(6, 4, 20, probability=0.4).double(), TARGETS, directions=1, truncations=())

    assert report.ok, report
    assert all(row.conclusive for row in report.differences if "raw" in row.name)


def test_start_alive_scales_them_where_they_come_from(network, coin):
    x = coin(40, 4, 20, probability=0.3)
    masks = [weight.weight == 0 for weight in constrained(network)]

    start_alive(network, x)

    sums = F.linear(x, network.layers[0].weight)
    free, _ = simulate(LI(beta=0.9), sums)
    assert float(free.detach().square().mean().sqrt()) == pytest.approx(1.0, rel=1e-3)
    assert all(torch.equal(layer.weight == 0, was) for layer, was in zip(constrained(network), masks, strict=True))


def test_nir_holds_the_weights_that_there_are(network, coin, tmp_path):
    x = coin(12, 4, 20, probability=0.3)

    write_nir(network.eval(), tmp_path / "a.nir")
    again = read_nir(tmp_path / "a.nir")

    assert torch.equal(again(x), network(x))
    assert torch.equal(again.layers[0].weight == 0, network.layers[0].weight == 0)


def test_snntorch_spikes_and_learns_with_them(coin):
    network = Network(
        (Dense(8, density=0.5, sign="dale"), LIF(beta=0.9), Dense(3, density=0.5), LIF(beta=0.8)), (6,), seed=1
    )
    x = coin(7, 2, 6, probability=0.5)
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 4  # so that the last neurons fire

    net = to_snntorch(network)

    out = torch.stack([net(step) for step in x])
    out.sum().backward()
    network(x).sum().backward()
    assert_same(out=(out, network(x)))
    assert bool(out.any()) and net[0].raw is not network.layers[0].raw
    assert_same(atol=1e-5, gradient=(net[0].raw.grad, network.layers[0].raw.grad))


def test_the_chip_holds_them_as_integers(coin):
    model = (
        Dense(40, density=0.25, sign="dale", bias=False), BatchNorm(), NEURON, Dense(30, sign="dale", bias=False),
        Recurrent(NEURON, density=0.2, sign="negative"), Dense(5, density=0.5, bias=False), LI(beta=0.9),
    )  # fmt: skip
    network, x = Network(model, (20,), seed=1), coin(12, 4, 20, probability=0.3)
    start_alive(network, x, spread=3.0)
    chip = OnChip(network).train()

    CountCrossEntropy()(chip(x), TARGETS).backward()
    graph = quantize(chip.eval())

    assert all(layer.raw.grad is not None and bool(layer.raw.grad.any()) for layer in constrained(network))
    weights = [graph.populations[0].weight, graph.populations[1].recurrent, graph.populations[2].weight]
    masks = [constrained(network)[n].mask.numpy() for n in (0, 2, 3)]
    for weight, mask in zip(weights, masks, strict=True):
        assert not weight[~mask].any() and weight[mask].any()
    assert (graph.populations[1].weight[:, :32] >= 0).all() and (graph.populations[1].weight[:, 32:] <= 0).all()
    assert (np.asarray(weights[1]) <= 0).all()


def test_a_search_values_the_weights_that_there_are(coin):
    network = Network((Dense(8, density=0.5), NEURON, Dense(3, sign="dale"), LI(beta=0.9)), (6,), seed=2)
    x, targets = coin(9, 3, 6, probability=0.5), torch.tensor([0, 1, 2])
    point = nn.utils.parameters_to_vector(network.parameters()).detach()
    right = CountCrossEntropy()(network.eval()(x), targets).item()

    objective = OfOutput("loss", CountCrossEntropy(), None, 0.0)
    found = value_points(network, torch.stack([point, 3 * point]), objective, x, targets)

    assert float(found[0]) == pytest.approx(right, rel=1e-5) and float(found[1]) != pytest.approx(right, rel=1e-3)


def test_an_online_rule_leads_its_gradient_on_to_what_is_learned(coin):
    network = Network((Dense(8, density=0.5, sign="dale"), LIF(beta=0.9), Dense(3), LI(beta=0.9)), (6,)).eval()
    x, targets = coin(9, 3, 6, probability=0.5), torch.tensor([0, 1, 2])

    found = ottt(network, x, targets, CountCrossEntropy())
    other = ottt(plain(network).eval(), x, targets, CountCrossEntropy())

    layer = network.layers[0]
    chain = layer.raw.detach().sign() * layer.signs * layer.mask
    torch.testing.assert_close(found["layers.0.raw"], other["layers.0.weight"] * chain)


def test_operations_are_those_of_connections_that_exist(network, coin):
    x = coin(12, 4, 20, probability=0.3)
    counted = {}

    with torch.no_grad():
        count_activity(network, x, {}, counted)

    layer = network.layers[0]
    assert operations(layer, x) == float(((x != 0).sum((0, 1)) * layer.mask.sum(0)).sum())
    spikes = network.observe(x)[0][1].spikes
    wanted = float((spikes[:-1].detach().sum((0, 1)) * network.layers[3].recurrence.mask.sum(0)).sum())
    assert counted[network.name(3)] == wanted > 0


# Parameters of neurons, learned for a channel or a layer


@pytest.mark.parametrize("neuron", (LIF(beta=0.9), CubaLIF(alpha=0.5, beta=0.8), ALIF(beta=0.9, rho=0.8, kappa=0.2)))
@pytest.mark.parametrize(("per", "learned"), (("channel", (3, 1, 1)), ("layer", (1, 1, 1)), ("neuron", (3, 4, 2))))
def test_neurons_learn_one_value_together(neuron, per, learned, noise):
    network = Network((Spiking(neuron, learn=("beta",), per=per),), (3, 4, 2)).double()
    x = noise(9, 2, 3, 4, 2, dtype=torch.float64, scale=2)
    layer = network.layers[0]
    with torch.no_grad():
        layer.learned["beta"] += noise(*learned, dtype=torch.float64, seed=1)
    beta = torch.sigmoid(layer.learned["beta"]).detach().expand(3, 4, 2).clone().requires_grad_()

    network(x).sum().backward()
    with use_backend("reference"):
        out, _ = simulate(neuron, x, surrogate=network.surrogate, parameters={"beta": beta})
    out.sum().backward()

    assert layer.learned["beta"].shape == learned and torch.equal(network(x), out)
    each = beta.grad * beta.detach() * (1 - beta.detach())  # through the logistic function
    axes = [axis for axis in range(3) if learned[axis] == 1]
    wanted = each.sum(axes, keepdim=True) if axes else each
    assert_same(atol=1e-9, gradient=(layer.learned["beta"].grad, wanted))


@pytest.mark.parametrize("per", ("channel", "layer", "neuron"))
def test_kernels_take_shared_parameters_as_the_reference_does(per, coin, noise):
    model = (Spiking(LIF(beta=0.9), learn=("beta", "threshold"), per=per),)
    network, x = Network(model, (3, 8, 4)), noise(20, 2, 3, 8, 4, scale=1.5)
    outs, gradients = [], []
    for backend in ("reference", None):
        network.zero_grad()
        if backend:
            with use_backend(backend):
                out = network(x)
                out.square().sum().backward()
        else:
            out = network(x)
            out.square().sum().backward()
        outs.append(out.detach())
        gradients.append([weight.grad.clone() for weight in network.parameters()])

    assert torch.equal(*outs) and bool(outs[0].any())
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_recurrent_neurons_may_share_what_they_learn(coin):
    network = Network((Dense(6), Recurrent(LIF(beta=0.9), learn=("beta",), per="layer")), (4,))
    x = coin(9, 2, 4, probability=0.5)

    out = network(x)
    out.sum().backward()

    assert network.layers[1].learned["beta"].grad.shape == (1,)
    with use_backend("reference"):
        assert torch.equal(network(x), out) and bool(out.any())


def test_a_channel_that_starts_from_different_values_is_refused():
    thresholds = tuple(((1.0 + n, 2.0),) for n in range(3))

    with pytest.raises(SnnError, match=r"per='channel': threshold is given as \[3, 1, 2\]"):
        Network((Spiking(LIF(beta=0.9, threshold=thresholds), learn=("threshold",), per="channel"),), (3, 1, 2))


@pytest.mark.parametrize("per", ("channel", "layer"))
def test_the_chip_holds_what_a_channel_learns(per, coin):
    neuron = Spiking(LIF(beta=0.9, reset="zero"), learn=("beta", "threshold"), per=per)
    network = Network((Conv(3, 3, bias=False), neuron, Flatten(), Dense(4, bias=False), LI(beta=0.9)), (2, 6, 6))
    with torch.no_grad():
        network.layers[1].learned["beta"] += torch.linspace(-1, 1, 3)[:, None, None] if per == "channel" else 0.5

    graph = quantize(network)

    decays = graph.populations[0].voltage_decay
    assert (len(set(decays.tolist())) == 3) if per == "channel" else isinstance(decays, int)


def test_neurons_of_a_map_that_learn_each_their_own_are_refused_by_the_chip():
    neuron = Spiking(LIF(beta=0.9, reset="zero"), learn=("beta",))
    with pytest.raises(SnnError, match="one for each channel"):
        OnChip(Network((Conv(3, 3, bias=False), neuron), (2, 6, 6)))
