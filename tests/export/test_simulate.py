"""The replay against a slow transcription of the specification, against closed forms, and what it refuses."""

import numpy as np
import pytest
import torch

from export import KINDS, random_graph, random_input
from snn_bp.chip import replay as module
from snn_bp.chip.graph import Graph, Population
from snn_bp.chip.replay import simulate
from snn_bp.errors import SnnError

HALF = 1 << 23  # of the 24 bits


def transcribed(graph: Graph, x: np.ndarray) -> list[list[np.ndarray]]:
    """Spikes, potentials before reset and currents of each population for one sample, step by step and sum by sum."""
    rows = len(x) + len(graph.populations)
    arriving = [np.zeros((rows + 64, *population.shape), np.int64) for population in graph.populations]
    states = [np.zeros((2, *population.shape), np.int64) for population in graph.populations]
    answers = [[np.zeros((rows, *population.shape), np.int64) for _ in range(3)] for population in graph.populations]
    for row in range(rows):
        sent = x[row] if row < len(x) else np.zeros_like(x[0])
        for place, population in enumerate(graph.populations):
            sums, state, answer = arriving[place], states[place], answers[place]
            if graph.cleared and row == place + 1:
                state[:] = 0
            bias = 0 if population.bias is None else population.bias
            values = population.current_decay, population.voltage_decay, population.threshold, bias
            each = (-1, 1, 1) if len(population.shape) == 3 else (-1,)
            current_decay, voltage_decay, threshold, bias = (np.asarray(value).reshape(each) for value in values)
            u, v = state
            u = toward_zero(u * (4096 - current_decay)) + (sums[row] << 6)
            u = np.where(u > HALF, u - 2 * HALF, np.where(u <= -HALF, u + 2 * HALF, u))
            v = np.clip(toward_zero(v * (4096 - voltage_decay)) + u + (bias << 6), 1 - HALF, HALF - 1)
            spikes = v > threshold << 6
            for kept, value in zip(answer, (spikes, v, u), strict=True):
                kept[row] = value
            state[:] = u, np.where(spikes, 0, v)
            deliver(population, sent, sums[row + 1 :])
            if population.recurrent is not None:
                sums[row + 1] += population.recurrent @ spikes
            sent = spikes.astype(np.int64)
    return answers


def toward_zero(product: np.ndarray) -> np.ndarray:
    return np.sign(product) * (np.abs(product) >> 12)


def deliver(population: Population, sent: np.ndarray, later: np.ndarray) -> None:
    """Add what is sent now to the sums of the steps to come."""
    weight = population.weight
    if population.kind == "dense":
        sent = sent.ravel()
        delay = np.broadcast_to(0 if population.delay is None else population.delay, weight.shape)
        for out, into in np.argwhere(weight * (sent != 0)):
            later[delay[out, into], out] += weight[out, into] * sent[into]
        return
    (pad_y, pad_x), (step_y, step_x), (apart_y, apart_x) = (
        population.padding,
        population.stride or (1, 1),
        population.dilation,
    )
    share = len(weight) // population.groups
    for channel, y, x in np.ndindex(*population.shape):
        total = 0
        for into, dy, dx in np.ndindex(*weight.shape[1:]):
            row, column = y * step_y + dy * apart_y - pad_y, x * step_x + dx * apart_x - pad_x
            if 0 <= row < sent.shape[1] and 0 <= column < sent.shape[2]:
                seen = sent[channel // share * weight.shape[1] + into, row, column]
                total += int(weight[channel, into, dy, dx]) * int(seen)
        later[0, channel, y, x] = (total + HALF) % (2 * HALF) - HALF


def dense(weight, **names) -> Population:
    weight = np.array(weight)
    return Population(shape=(len(weight),), weight=weight, **names)


def chain(*populations: Population, input_bits: int = 0) -> Graph:
    return Graph(input_shape=(populations[0].weight.shape[1],), populations=populations, input_bits=input_bits)


def assert_specified(graph: Graph, x: np.ndarray) -> None:
    """Every spike, potential and current of every sample is the transcription's."""
    found = simulate(graph, x, record=True)
    for sample in range(x.shape[1]):
        for place, expected in enumerate(transcribed(graph, x[:, sample])):
            answers = found.spikes[place], found.potentials[place], found.currents[place]
            for name, mine, theirs in zip(("spikes", "v", "u"), answers, expected, strict=True):
                np.testing.assert_array_equal(mine[:, sample], theirs, f"{name} of population {place}, sample {sample}")


@pytest.mark.parametrize("seed", (0, 1))
@pytest.mark.parametrize("kind", KINDS)
def test_the_replay_is_the_specification_bit_for_bit(kind, seed):
    graph = random_graph(kind, seed)
    rng = np.random.default_rng(seed)
    steps = 12 if "convolution" in kind else 50

    x = np.concatenate([random_input(graph, rng, steps) for _ in range(2)], axis=1)

    assert_specified(graph, x)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 5))
@pytest.mark.parametrize("kind", KINDS)
def test_long_replays_are_the_specification_bit_for_bit(kind, seed):
    graph = random_graph(kind, seed)

    assert_specified(graph, random_input(graph, np.random.default_rng(seed), 40 if "convolution" in kind else 200))


def test_a_convolution_of_every_geometry_is_the_specification():
    rng = np.random.default_rng(3)
    geometries = (
        ((4, 4), (1, 3), (0, 2), (2, 1), 1),  # neurons, stride, padding, dilation, groups
        ((6, 5), (2, 1), (3, 0), (1, 2), 3),
        ((3, 4), (3, 2), (1, 1), (1, 1), 6),
    )
    for shape, stride, padding, dilation, groups in geometries:
        weight = rng.integers(-128, 128, (6, 6 // groups, 3, 2))
        population = Population(
            shape=(6, *shape), weight=weight, stride=stride, padding=padding, dilation=dilation, groups=groups,
            threshold=rng.integers(1, 200, 6), current_decay=rng.integers(0, 4097, 6), bias=rng.integers(-9, 9, 6),
        )  # fmt: skip
        graph = Graph(input_shape=(6, 8, 7), populations=(population,))

        assert_specified(graph, rng.integers(0, 2, (6, 1, 6, 8, 7)))


def test_a_convolutions_sum_wraps_in_24_bits():
    weight = np.full((1, 140, 1, 1), 255)
    graph = Graph(
        input_shape=(140, 1, 1), input_bits=8,
        populations=(Population(shape=(1, 1, 1), weight=weight, stride=(1, 1), threshold=131071),),
    )  # fmt: skip
    x = np.full((2, 1, 140, 1, 1), 255)
    assert HALF < 140 * 255 * 255

    assert_specified(graph, x)


def test_sums_beyond_float32_are_exact():
    weight = np.full((1, 300), 255)
    weight[0, 0] = 1
    graph = chain(dense(weight, current_decay=4096, voltage_decay=4096, threshold=131071), input_bits=8)
    x = np.full((1, 1, 300), 219)
    x[0, 0, 0] = 200

    total = int(weight[0] @ x[0, 0])

    assert 1 << 23 < total < 1 << 24 < 255 * 255 * 299
    assert simulate(graph, x, record=True).currents[0][1, 0, 0] == total * 64 - 2 * HALF  # one wrap, as lava's


def test_an_input_is_heard_one_row_later_in_each_population_and_after_its_delay():
    graph = chain(
        dense([[9]], delay=np.array([[3]]), threshold=5), dense([[9]], threshold=5), dense([[9]], threshold=5)
    )
    x = np.zeros((10, 1, 1))
    x[2] = 1

    found = simulate(graph, x, record=True)

    assert [int(np.flatnonzero(spikes.ravel()).item()) for spikes in found.spikes] == [6, 7, 8]
    assert len(found.out) == 13


def test_a_neuron_hears_itself_one_row_later():
    graph = chain(dense([[9]], recurrent=np.array([[9]]), threshold=5))
    x = np.zeros((5, 1, 1))
    x[0] = 1

    np.testing.assert_array_equal(simulate(graph, x).out.ravel(), [0, 1, 1, 1, 1, 1])


def test_the_bias_acts_in_every_population_from_the_first_row_on():
    still = {"bias": np.array([3]), "voltage_decay": 0, "threshold": 131071}
    graph = chain(dense([[1]], **still), dense([[1]], **still))

    found = simulate(graph, np.zeros((4, 1, 1)), record=True)

    for potentials in found.potentials:
        np.testing.assert_array_equal(potentials.ravel(), 3 * 64 * np.arange(1, 7))


def test_clearing_empties_registers_and_leaves_spikes_on_their_way():
    names = {
        "bias": np.array([100]),
        "recurrent": np.array([[9]]),
        "current_decay": 0,
        "voltage_decay": 0,
        "threshold": 50,
    }
    graph = Graph(input_shape=(1,), populations=(dense([[1]], **names),), cleared=True)

    found = simulate(graph, np.zeros((1, 1, 1)), record=True)

    np.testing.assert_array_equal(found.currents[0].ravel(), [0, 9 * 64])  # its own spike of row 0
    np.testing.assert_array_equal(found.potentials[0].ravel(), [6400, 6400 + 9 * 64])


def test_a_readout_gives_its_potentials():
    graph = chain(dense([[5]], voltage_decay=0, readout=True))

    found = simulate(graph, np.ones((3, 1, 1)))

    np.testing.assert_array_equal(found.out.ravel(), 5 * 64 * np.array([0, 1, 2, 3]))
    assert found.spikes == found.potentials == found.currents == ()


def test_samples_do_not_hear_each_other_however_they_are_grouped(monkeypatch):
    for kind in ("recurrent", "convolution, groups", "synapses' delays"):
        graph = random_graph(kind, 5)
        x = np.concatenate([random_input(graph, np.random.default_rng(n), 20) for n in range(5)], axis=1)
        together = simulate(graph, x, record=True)
        with monkeypatch.context() as patch:
            patch.setattr(
                module, "AT_ONCE", 2 * 23 * max(np.prod(graph.input_shape), *(p.size for p in graph.populations))
            )
            patch.setattr(module, "COLUMNS_AT_ONCE", 5000)
            grouped = simulate(graph, x, record=True)

        alone = [simulate(graph, x[:, n : n + 1]).out for n in range(5)]

        np.testing.assert_array_equal(together.out, np.concatenate(alone, axis=1))
        for first, second in zip(together.currents, grouped.currents, strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("of", (np.asarray, torch.as_tensor), ids=("numpy", "torch"))
@pytest.mark.parametrize("dtype", ("float32", "float64", "int64", "uint8", "bool"))
def test_the_type_of_the_input_does_not_matter(of, dtype):
    graph = random_graph("odd weights", 1)
    x = random_input(graph, np.random.default_rng(1), 30)

    found = simulate(graph, of(x.astype(dtype)))

    np.testing.assert_array_equal(found.out, simulate(graph, x).out)


@pytest.mark.parametrize(
    "x, words",
    (
        (np.full((4, 1, 2), 0.5), "integers in 0..1, found values in 0.5..0.5"),
        (np.full((4, 1, 2), -1), "found values in -1..-1"),
        (np.full((4, 1, 2), 2), "Counts need a graph of input_bits=8"),
        (np.full((4, 1, 2), np.nan), "found values in nan"),
        (np.full((4, 1, 2), "1"), "found <U1"),
        (np.zeros((4, 2)), r"\[time, batch, 2\], found \[4, 2\]"),
        (torch.zeros(4, 1, 3), r"\[time, batch, 2\], found \[4, 1, 3\]"),
    ),
)
def test_an_input_that_is_not_the_graphs_is_refused(x, words):
    with pytest.raises(SnnError, match=words):
        simulate(chain(dense([[1, 2]])), x)


def test_counts_beyond_the_inputs_bits_are_refused():
    with pytest.raises(SnnError, match=r"integers in 0\.\.255"):
        simulate(chain(dense([[1]]), input_bits=8), np.full((1, 1, 1), 256))


def test_a_sum_that_no_register_holds_is_refused():
    graph = chain(dense(np.full((1, 300), 255)), input_bits=8)

    with pytest.raises(SnnError, match="a sum of weights and counts reaches 19507500"):
        simulate(graph, np.full((1, 1, 300), 255))


def test_no_steps_and_no_samples_give_rows_without_spikes():
    graph = chain(dense([[1]]))

    assert simulate(graph, np.zeros((0, 2, 1))).out.shape == (1, 2, 1)
    assert simulate(graph, np.zeros((3, 0, 1))).out.shape == (4, 0, 1)
