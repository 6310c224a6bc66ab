"""Recordings in a row: a file does with the second and all further ones what the network does with each alone."""

import numpy as np
import pytest
import torch

from export import random_graph, random_input
from snn_bp import (
    IF,
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
    Spiking,
)
from snn_bp.chip.graph import Graph, Population
from snn_bp.chip.in_a_row import carried, in_a_row, one_after_the_other, pause_for
from snn_bp.chip.quantize import quantize
from snn_bp.chip.replay import simulate

ZERO = LIF(beta=0.8, reset="zero")
SLOW = CubaLIF(alpha=0.9, beta=0.95, reset="zero")
MODELS = {
    "dense": ((9,), (Dense(13), ZERO, Dense(4), ZERO)),
    "currents": ((9,), (Dense(13), SLOW, Dense(4), LI(beta=0.9))),
    "images": (
        (2, 9, 8),
        (Conv(4, 3), BatchNorm(), ZERO, Pool(2, kind="sum"), Conv(3, 2), ZERO, Flatten(), Dense(5), ZERO),
    ),
    "recurrent": ((9,), (Dense(13, bias=False), Recurrent(ZERO), Dense(4), ZERO)),
    "delays": ((9,), (Delay(2), Dense(8, bias=False), ZERO, Delay((0, 1, 2, 3, 0, 1, 2, 3)), Dense(3), ZERO)),
    "delayed currents": (
        (9,),
        (Dense(8, bias=False), SLOW, Delay(5), Dense(6, bias=False), SLOW, Delay(1), Dense(3), ZERO),
    ),
    "neurons at the input": ((2, 5, 4), (LIF(beta=0.6, threshold=1.5, reset="zero"), Conv(3, 2), ZERO, Flatten())),
    "two delays": ((9,), (ZERO, Delay(1), Delay((0, 1, 2, 3, 0, 1, 2, 3, 0)), Dense(5), ZERO)),
    "learned": ((9,), (Dense(7), Spiking(ZERO, learn=("beta", "threshold")), Dense(3), ZERO)),
}  # fmt: skip


@pytest.fixture(params=MODELS, ids=str)
def network(request) -> Network:
    shape, model = MODELS[request.param]
    network = OnChip(Network(model, shape, seed=3)).eval()
    with torch.no_grad():
        for layer in network.layers:
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                layer.weight.mul_(2.5).add_(0.1)  # nobody is silent
            elif getattr(layer, "recurrence", None) is not None:
                layer.recurrence.weight *= 0.5  # type: ignore[union-attr]
    return network


def test_every_recording_of_a_row_gives_what_it_gives_alone(network, coin):
    x = coin(9, 11, *network.input_shape, probability=0.4)
    graph = quantize(network)
    if carried(graph):
        graph = Graph(**{**vars(graph), "pause": pause_for(graph, x)})

    replay = in_a_row(graph, x, row=5)

    readout = graph.populations[-1].readout
    activities, _ = network.observe(x)
    for place, activity in enumerate(activities):
        assert activity.potentials.any()
        if not (readout and place == len(activities) - 1):
            assert activity.spikes.any(), "a silent layer would prove nothing"
            theirs = activity.spikes.detach().reshape(replay.spikes[place].shape).numpy()
            np.testing.assert_array_equal(replay.spikes[place], theirs, str(place))
    out = network(x).detach()
    assert tuple(out.shape[2:]) == network.output_shape
    if not readout:
        np.testing.assert_array_equal(replay.out.reshape(out.shape), out.numpy())


@pytest.mark.parametrize("name", ["delays", "delayed currents", "recurrent"])
def test_a_shorter_pause_lets_spikes_through(name, coin):
    shape, model = MODELS[name]
    network = OnChip(Network(model, shape, seed=3)).eval()
    with torch.no_grad():
        for layer in network.layers:
            if isinstance(layer, torch.nn.Linear):
                layer.weight *= 4
    x = coin(9, 10, *shape, probability=0.6)
    graph = quantize(network)

    without = in_a_row(Graph(**{**vars(graph), "pause": 0}), x)

    assert graph.pause > 0
    assert not np.array_equal(without.spikes[-1], network(x).detach().numpy())


def test_the_pause_of_plain_delays_is_their_sum():
    """Input 2 steps late, neurons without current, then up to 3 steps: what is under way has arrived after 5."""
    shape, model = MODELS["delays"]

    assert quantize(OnChip(Network(model, shape))).pause == 2 + 3
    assert quantize(OnChip(Network(MODELS["dense"][1], (9,)))).pause == 0


def chain(*populations: Population) -> Graph:
    return Graph(input_shape=(1,), populations=populations, cleared=True)


def one(weight: int, **names) -> Population:
    return Population(shape=(1,), weight=np.array([[weight]]), **names)


def test_a_current_is_waited_for_until_it_can_lift_no_neuron_above_its_threshold():
    """u = 128, 64, 32, ...: halves; a neuron at its threshold 8 that keeps all of it fires while u > 0."""
    first = one(2, current_decay=2048, voltage_decay=0, threshold=8)
    late = one(1, delay=np.array([[3]]), threshold=1)
    x = np.zeros((1, 2, 1), np.uint8)
    x[0, 0] = 1
    spikes = simulate(chain(first, late), np.concatenate((x, np.zeros((40, 2, 1), np.uint8)))).out

    graph = chain(first, late)

    assert not spikes.any()
    # at most 64 * 2 * 4096 / 2048 + 64 = 320 of current: 160, 80, 40, 20, 10, 5, 2, 1, 0
    assert pause_for(graph) == 8 + 3
    assert carried(graph) == ()


@pytest.mark.parametrize("through", ["recurrence", "delay"])
def test_a_bias_that_fires_alone_is_named_and_no_pause_is_believed_in(through):
    loud = one(1, bias=np.array([5]), threshold=4, recurrent=np.array([[-9]]) if through == "recurrence" else None)
    behind = one(1, delay=None if through == "recurrence" else np.array([[2]]))

    (found,) = carried(chain(loud, behind))

    assert found.population == 0 and found.fires_alone and through in found.through
    assert carried(chain(one(1, bias=np.array([4]), threshold=4), behind)) == ()


def test_a_recurrence_that_rings_on_is_given_twice_as_long_as_it_was_heard():
    ring = np.zeros((4, 4), int)
    ring[1, 0] = ring[2, 1] = ring[3, 2] = 9  # a spike goes on from neuron to neuron, and ends at the fourth
    graph = chain(Population(shape=(4,), weight=np.array([[9], [0], [0], [0]]), recurrent=ring, threshold=5))
    x = np.ones((2, 3, 1), np.uint8)

    assert pause_for(graph) == 1
    assert pause_for(graph, x) == 2 * 3 + 1
    assert len(carried(graph)) == 1 and "nothing says when it falls silent" in str(carried(graph)[0])


@pytest.mark.parametrize("kind", ["bias, cleared", "recurrent, bias, cleared", "convolution, groups, cleared"])
def test_rows_of_a_row_are_those_of_one_long_recording_cleared_every_so_often(kind):
    graph = random_graph(kind, 1)
    rng = np.random.default_rng(0)
    x = np.concatenate([random_input(graph, rng, 7) for _ in range(5)], axis=1)
    graph = Graph(**{**vars(graph), "pause": 2})

    rows = one_after_the_other(graph, x, row=3)
    whole = simulate(graph, rows, record=True, every=9)
    cut = in_a_row(graph, x, row=3)

    assert rows.shape[:2] == (27, 2)
    for place in range(len(graph.populations)):
        begin = 9 + place + 1  # recording 1 is the second of the first lane
        np.testing.assert_array_equal(cut.currents[place][:, 1], whole.currents[place][begin : begin + 7, 0])
        np.testing.assert_array_equal(cut.potentials[place][:, 4], whole.potentials[place][begin : begin + 7, 1])


def test_sums_wraps_and_saturations_are_counted():
    """600 weights of 127 are a sum of 76,200; times 64 it leaves 23 bits after two steps that keep all of it."""
    many = Population(
        shape=(1,), weight=np.full((1, 600), 127), current_decay=0, voltage_decay=0, threshold=131071, readout=True
    )
    graph = Graph(input_shape=(600,), populations=(many,), cleared=True)

    (found,) = simulate(graph, np.ones((3, 1, 600), np.uint8), record=True).overflows

    u, wraps = 0, 0
    for _ in range(3):
        u += 600 * 127 * 64
        wraps += u > 1 << 23
        u -= (u > 1 << 23) * (1 << 24)
    assert (found.sums, found.wraps) == (3, wraps) and wraps > 0
    assert found.saturations == 0
    quiet = Graph(input_shape=(600,), populations=(Population(shape=(1,), weight=np.full((1, 600), 50)),))
    assert not any(simulate(quiet, np.ones((3, 1, 600), np.uint8), record=True).overflows[0])


def test_a_membrane_at_its_end_is_counted():
    full = one(127, bias=np.array([4000]), voltage_decay=0, threshold=131071)

    (found,) = simulate(chain(full), np.ones((60, 1, 1), np.uint8), record=True).overflows

    assert found.wraps == found.sums == 0
    # 4127 * 64 a step: it passes 131071 * 64 in the 32nd step and is then emptied; only that step is cut to 2**23 - 1
    potentials = simulate(chain(full), np.ones((60, 1, 1), np.uint8), record=True).potentials[0]
    assert found.saturations == int((potentials == (1 << 23) - 1).sum())
    assert found.saturations >= 1


def test_integrators_need_no_pause_where_nothing_is_under_way():
    network = OnChip(Network((Dense(4), IF(reset="zero"), Dense(3), IF(reset="zero")), (5,)))

    assert quantize(network).pause == 0
