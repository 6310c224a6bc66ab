"""A layer that is not exactly ours runs by its own forward, and is refused where its weights are read instead."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    CubaLIF,
    Delay,
    Dense,
    Flatten,
    Network,
    OnChip,
    Pool,
    Recurrent,
    SnnError,
    start_alive,
    trace,
    use_backend,
)
from snn_bp.chip.quantize import quantize
from snn_bp.chip.rules import chip_blocks
from snn_bp.exchange.nir_write import write_nir
from snn_bp.exchange.snntorch import from_snntorch, to_snntorch
from snn_bp.instruments.online.blocks import online_blocks
from snn_bp.model.exact import is_exact, why_strange
from snn_bp.model.modules import Neurons
from snn_bp.model.plan import apply_stateless
from snn_bp.reports.plots.filters import weight_filters
from snn_bp.runs.evaluation import count_activity
from snn_bp.searches.population import runs_together


def doubled(kind):
    """A subclass whose output is twice its parent's."""

    class Doubled(kind):
        def forward(self, x, *state):
            out = super().forward(x, *state)
            return (2 * out[0], *out[1:]) if isinstance(out, tuple) else 2 * out

    return Doubled


def as_class(place):
    """The layer at `place` becomes one of a subclass of its own."""

    def change(network):
        network.layers[place].__class__ = doubled(type(network.layers[place]))

    return change


def as_patched(place):
    def change(network):
        layer, forward = network.layers[place], network.layers[place].forward
        layer.forward = lambda x: 2 * forward(x)

    return change


def as_parametrised(place):
    class Twice(nn.Module):
        def forward(self, weight):
            return 2 * weight

    return lambda network: parametrize.register_parametrization(network.layers[place], "weight", Twice())


def as_hooked(place):
    return lambda network: network.layers[place].register_forward_hook(lambda *given: 2 * given[2])


def with_recurrence_of_a_subclass(network):
    recurrence = network.layers[1].recurrence
    recurrence.__class__ = doubled(type(recurrence))


DENSE = (Dense(5), LIF(beta=0.9, threshold=0.3), Dense(3), LI(beta=0.9))
NORMED = (Dense(5), BatchNorm(), LIF(beta=0.9, threshold=0.3), Dense(3), LI(beta=0.9))
LOOP = (Dense(5), Recurrent(LIF(beta=0.9, threshold=0.3)), Dense(3), LI(beta=0.9))
IMAGES = (Conv(4, 3), Pool(2, kind="max"), LIF(beta=0.9, threshold=0.3), Flatten(), Dense(3), LI(beta=0.9))
AVERAGED = (Conv(4, 3), BatchNorm(), LIF(beta=0.9, threshold=0.3), Pool(2), Flatten(), Dense(3), LI(beta=0.9))
CHANGES = {
    "a Linear of a subclass": (DENSE, as_class(0)),
    "a Linear further on": (DENSE, as_class(2)),
    "neurons of a subclass": (DENSE, as_class(1)),
    "a readout of a subclass": (DENSE, as_class(3)),
    "a patched Linear": (DENSE, as_patched(0)),
    "a parametrised Linear": (DENSE, as_parametrised(0)),
    "a hooked Linear": (DENSE, as_hooked(2)),
    "a norm of a subclass": (NORMED, as_class(1)),
    "a patched norm": (NORMED, as_patched(1)),
    "a recurrence of a subclass": (LOOP, with_recurrence_of_a_subclass),
    "recurrent neurons of a subclass": (LOOP, as_class(1)),
    "a hook within a recurrent layer": (
        LOOP,
        lambda n: n.layers[1].recurrence.register_forward_hook(lambda *given: 2 * given[2]),
    ),
    "a convolution of a subclass": (IMAGES, as_class(0)),
    "a patched convolution": (IMAGES, as_patched(0)),
    "a maximum of a subclass": (IMAGES, as_class(1)),
    "a Flatten of a subclass": (IMAGES, as_class(3)),
    "a norm of images of a subclass": (AVERAGED, as_class(1)),
    "an average of a subclass": (AVERAGED, as_class(3)),
}


def made(model, dtype=torch.float64):
    shape = (2, 8, 8) if isinstance(model[0], Conv) else (6,)
    return Network(model, shape, seed=3).to(dtype), shape


def events(shape, dtype=torch.float64, steps=7):
    drawn = torch.Generator().manual_seed(1)
    return (torch.rand(steps, 3, *shape, generator=drawn) < 0.1).to(dtype)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_that_is_not_exactly_ours_runs_by_its_own_forward(change, training):
    model, alter = CHANGES[change]
    network, shape = made(model)
    network.train(training)
    x = events(shape)
    plain = network(x)

    alter(network)
    twin = copy.deepcopy(network)
    found = network(x)
    with use_backend("reference"):
        right = twin(x)

    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found, plain, rtol=1e-3)


@pytest.mark.parametrize("change", ["a Linear of a subclass", "a convolution of a subclass"])
def test_bytes_reach_a_layer_of_a_subclass_as_floats(change):
    model, alter = CHANGES[change]
    network, shape = made(model, torch.float32)
    alter(network)
    x = events(shape, torch.float32)

    torch.testing.assert_close(network(x.to(torch.uint8)), network(x))


def test_a_class_patched_for_all_is_noticed(monkeypatch):
    network, shape = made(DENSE)
    x, forward = events(shape), nn.Linear.forward
    plain = network(x)

    monkeypatch.setattr(nn.Linear, "forward", lambda self, z: 2 * forward(self, z))
    found = network(x)
    with use_backend("reference"):
        right = network(x)

    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found, plain)


def test_a_layer_of_another_size_is_not_read_beyond_its_end():
    network, shape = made(DENSE)
    network.layers[2] = nn.Linear(9, 3).double()

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        network(events(shape))


def test_weights_of_another_type_are_not_computed_in_that_of_the_first():
    network, shape = made(DENSE)
    network.layers[2].float()

    with pytest.raises(RuntimeError, match="dtype"):
        network(events(shape))


def test_a_norm_without_running_statistics_is_not_folded():
    network, shape = made(NORMED)
    network.layers[1] = nn.BatchNorm1d(5, track_running_stats=False).double()
    x = events(shape)

    found = network.eval()(x)
    with use_backend("reference"):
        right = network(x)

    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)


def test_a_pruned_layer_computes_with_its_mask():
    network, shape = made(DENSE)
    prune.random_unstructured(network.layers[0], "weight", amount=0.5)
    x = events(shape)

    found = network(x)
    with use_backend("reference"):
        right = network(x)

    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)


def test_potentials_of_neurons_with_a_forward_of_their_own_are_refused():
    network, shape = made(DENSE)
    as_class(1)(network)

    with pytest.raises(SnnError, match=r"model\.1 .* forward of its own"):
        network.observe(events(shape))


def test_a_hook_that_only_looks_sees_what_is_observed():
    network, shape = made(DENSE)
    seen = []
    network.layers[1].register_forward_hook(lambda *given: seen.append(given[2][0]))

    activities, _ = network.observe(events(shape))

    assert torch.equal(seen[0], activities[0].spikes)


class Strange(nn.Module):
    """A layer that nothing has ever seen: it keeps the shape, and has a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.weight.abs()


class StrangeValue:
    def build(self, shape):
        return Strange()


class StrangeNeurons(Neurons):
    """Neurons that nothing has ever seen."""


def with_strange_layer():
    return Network((Dense(5, bias=False), StrangeValue(), LIF(beta=0.9, reset="zero"), Dense(3), LI(beta=0.9)), (6,))


def with_strange_neurons():
    network = Network((Dense(5, bias=False), LIF(beta=0.9, reset="zero"), Dense(3), LI(beta=0.9)), (6,))
    network.layers[1].__class__ = StrangeNeurons
    return network


def chip_run(network):
    return OnChip(network)(events((6,), torch.float32))


def nir_of(network):
    return write_nir(network.eval(), "unwritten.nir", step_s=1e-3)


CONSUMERS = {
    "NIR": nir_of,
    "chip rules": chip_blocks,
    "quantize": quantize,
    "target": chip_run,
    "to_snntorch": to_snntorch,
    "online rules": lambda network: online_blocks(network.eval(), events((6,), torch.float32), "e-prop"),
}


@pytest.mark.parametrize("make", [with_strange_layer, with_strange_neurons])
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_what_reads_layers_refuses_one_that_it_has_never_seen(consumer, make):
    with pytest.raises(SnnError, match=r"model\.1 .*(not known here|NIR has no node)"):
        CONSUMERS[consumer](make())


class Beyond(Network):
    """A network that does more than its layers."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("consumer", ["quantize", "to_snntorch", "online rules", "NIR"])
def test_what_reads_layers_refuses_a_network_that_does_more_than_they(consumer):
    network = Beyond((Dense(5, bias=False), LIF(beta=0.9, reset="zero"), Dense(3), LI(beta=0.9)), (6,))

    with pytest.raises(SnnError, match="Beyond"):
        CONSUMERS[consumer](network)


def test_operations_of_a_layer_that_nobody_knows_are_not_counted_as_none():
    with pytest.raises(SnnError, match=r"model\.1 .*counts=False"):
        count_activity(with_strange_layer(), events((6,), torch.float32), {}, {})


@pytest.mark.parametrize("make", [with_strange_layer, with_strange_neurons])
def test_a_network_for_the_chip_may_not_be_made_of_unknown_layers(make):
    with pytest.raises(SnnError, match=r"model\.1"):
        OnChip(make())(events((6,), torch.float32))


@pytest.mark.parametrize("make", [with_strange_layer, with_strange_neurons])
def test_a_search_values_points_of_unknown_layers_one_by_one(make):
    assert runs_together(Network((Dense(5), LIF(beta=0.9)), (6,)))
    assert not runs_together(make())


def test_a_picture_of_the_first_weights_is_not_one_of_the_second():
    network = Network((StrangeValue(), Dense(5), LIF(beta=0.9)), (6,))

    with pytest.raises(SnnError, match=r"model\.0"):
        weight_filters(network)


def test_diagnose_refuses_neurons_it_has_never_seen():
    with pytest.raises(SnnError, match=r"model\.1"):
        trace(with_strange_neurons(), events((6,), torch.float32), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("change", [c for c in CHANGES if "further" not in c])
def test_why_a_layer_is_strange_is_said(change):
    model, alter = CHANGES[change]
    network, _ = made(model)
    assert all(why_strange(layer) is None for layer in network.layers)

    alter(network)

    strange = [layer for layer in network.layers if not is_exact(layer)]
    assert len(strange) == 1
    assert why_strange(strange[0])


def test_a_pruned_layer_is_refused_by_the_export_with_its_remedy():
    network = Network((Dense(5, bias=False), LIF(beta=0.9, reset="zero")), (6,))
    prune.random_unstructured(network.layers[0], "weight", amount=0.5)

    with pytest.raises(SnnError, match=r"model\.0 .*prune.remove"):
        quantize(network)
    prune.remove(network.layers[0], "weight")
    graph = quantize(network)

    assert (graph.populations[0].weight == 0).sum() >= 15


def test_snntorch_networks_with_one_module_at_two_places_are_refused():
    import snntorch as snn

    shared = nn.Linear(4, 4)
    net = nn.Sequential(shared, snn.Leaky(0.9), shared, snn.Leaky(0.9))

    with pytest.raises(SnnError, match="shares weights with layer 0"):
        from_snntorch(net, (4,))


@pytest.mark.parametrize("touch", ["hook", "patched", "hook on the whole"])
def test_snntorch_networks_with_hooks_or_patches_are_refused(touch):
    import snntorch as snn

    net = nn.Sequential(nn.Linear(4, 4), snn.Leaky(0.9))
    if touch == "patched":
        net[1].forward = lambda *given: given[0]
    else:
        (net[0] if touch == "hook" else net).register_forward_hook(lambda *given: None)

    with pytest.raises(SnnError, match="hooks, a forward"):
        from_snntorch(net, (4,))


def test_tied_weights_do_not_go_to_snntorch_as_two():
    network = Network((Dense(4), LIF(beta=0.9), Dense(4), LIF(beta=0.9)), (4,))
    network.layers[2].weight = network.layers[0].weight

    with pytest.raises(SnnError, match="shares weights with layer 0"):
        to_snntorch(network)


# start_alive, trace


def spread_of(network, x, place):
    """How far the free membrane of the neurons at `place` fluctuates, in thresholds."""
    with torch.no_grad(), use_backend("reference"):
        for layer in network.layers[:place]:
            x = layer(x)[0] if isinstance(layer, Neurons) else apply_stateless(layer, x)
        v, beta = torch.zeros_like(x[0]), network.layers[place].neuron.beta
        potentials = []
        for x_t in x:
            v = beta * v + x_t
            potentials.append(v)
        return float((torch.stack(potentials) / network.layers[place].neuron.threshold).square().mean().sqrt())


def pruned(network):
    prune.random_unstructured(network.layers[0], "weight", amount=0.4)
    prune.random_unstructured(network.layers[0], "bias", amount=0.4)


def weight_normed(network):
    nn.utils.parametrizations.weight_norm(network.layers[0])


@pytest.mark.parametrize("alter", [pruned, weight_normed, as_class(0), as_class(2)])
def test_start_alive_scales_weights_where_they_come_from(alter):
    network, shape = made(DENSE)
    alter(network)
    x = events(shape, steps=20)

    start_alive(network, x)

    assert spread_of(network, x, 1) == pytest.approx(1, rel=1e-6)
    assert not network.layers[0].bias.any()


def test_start_alive_says_where_a_parametrisation_takes_no_scale():
    network, shape = made(DENSE)
    nn.utils.parametrizations.orthogonal(network.layers[0])

    with pytest.raises(SnnError, match=r"model\.0 .*parametrised weight"):
        start_alive(network, events(shape))
    assert network.training


def test_start_alive_refuses_one_weight_in_front_of_two_neurons():
    network = Network((Dense(6), LIF(beta=0.9), Dense(6), LIF(beta=0.9)), (6,))
    network.layers[2].weight = network.layers[0].weight

    with pytest.raises(SnnError, match=r"model\.0 .* and model\.2 .* share weights"):
        start_alive(network, events((6,), torch.float32))


def test_start_alive_leaves_momentum_and_mode_also_where_it_raises():
    network = Network((Dense(5), BatchNorm(momentum=0.3), LIF(beta=0.9)), (6,)).eval()

    with pytest.raises(SnnError, match="one value"):
        start_alive(network, events((6,), torch.float32)[:1, :1])

    assert network.layers[1].momentum == 0.3
    assert not network.training


def test_diagnose_gives_tied_weights_their_one_gradient():
    network = Network((Dense(6), LIF(beta=0.9, threshold=0.2), Dense(6), LIF(beta=0.9, threshold=0.2)), (6,))
    network.layers[2].weight = network.layers[0].weight
    x, targets = events((6,), torch.float32, steps=12), torch.tensor([0, 1, 2])

    traced = trace(network, x, targets)

    assert set(traced.gradients) == {network.name(0), network.name(2)}
    assert traced.weights[network.name(0)] > 0


def test_diagnose_takes_a_pruned_network_that_has_run():
    network, shape = made(DENSE, torch.float32)
    pruned(network)
    network(events(shape, torch.float32)).sum().backward()

    traced = trace(network, events(shape, torch.float32), torch.tensor([0, 1, 2]))

    assert traced.gradients[network.name(0)] > 0


def test_delays_and_current_neurons_are_exact():
    network = Network((Delay(2), Dense(5), CubaLIF(alpha=0.5, beta=0.9), Dense(3), LI(beta=0.9)), (6,))

    assert all(map(is_exact, network.layers))
