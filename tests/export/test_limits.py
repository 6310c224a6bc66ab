"""What a chip can hold, against figures that can be counted by hand."""

import numpy as np
import pytest

from snn_bp import SnnError
from snn_bp.chip.cores import placement
from snn_bp.chip.graph import Graph, Population


def dense(neurons: int, inputs: int, **numbers) -> Population:
    return Population(shape=(neurons,), weight=np.ones((neurons, inputs), np.int64), **numbers)


def chain(*populations: Population, shape=(10,), **numbers) -> Graph:
    return Graph(input_shape=shape, populations=populations, **numbers)


@pytest.mark.parametrize("neurons, inputs, cores", [
    (1024, 10, 1),  # neurons of a core
    (1025, 10, 2),
    (100, 1310, 1),  # 131,000 synapses of 131,072
    (100, 1311, 2),
    (32, 4096, 1),
    (2048, 700, 11),  # 1,433,600 bytes over 131,072, 187 neurons a core
])  # fmt: skip
def test_cores_are_counted_by_neurons_and_synapses(neurons, inputs, cores):
    assert placement(chain(dense(neurons, inputs), shape=(inputs,)), "loihi1").cores == (cores,)


def test_a_neuron_with_too_many_inputs_fits_nowhere():
    found = placement(chain(dense(3, 4097), shape=(4097,)), "loihi1")

    assert (
        "4,097 inputs" in found.problems[0] and not placement(chain(dense(3, 4097), shape=(4097,)), "loihi2").problems
    )
    assert found.problems[0].startswith("population 0") and str(found).endswith(found.problems[0])


def test_a_convolution_is_cut_into_strips_and_maps():
    conv = Population(shape=(16, 17, 17), weight=np.ones((16, 2, 5, 5), np.int64), stride=(2, 2), padding=(2, 2))

    found = placement(chain(conv, shape=(2, 34, 34)), "loihi1")

    assert found.cores == (6,)  # 4,624 neurons; strips of 3 rows hold 816 of them
    assert not found.problems


def test_axons_out_of_a_core_count_the_cores_they_reach():
    """1000 neurons that each reach 11 cores need 11,000 axons: three cores of at most 4,096."""
    graph = chain(dense(1000, 10), dense(1400, 1000))

    assert placement(graph, "loihi1").cores == (3, 11)


def test_recurrence_counts_as_synapses_inputs_and_axons():
    population = dense(300, 100, recurrent=np.ones((300, 300), np.int64))

    assert placement(chain(population, shape=(100,)), "loihi1").cores == (1,)
    assert placement(chain(dense(400, 100, recurrent=np.ones((400, 400), np.int64)), shape=(100,)), "loihi1").cores == (
        2,
    )


@pytest.mark.parametrize("numbers, says", [
    ({"bias": np.array([5000])}, "bias"),
    ({"threshold": 131072}, "threshold"),
    ({"threshold": 0}, "threshold"),
    ({"delay": np.array([[63]])}, "delay"),
])  # fmt: skip
def test_registers_have_ends(numbers, says):
    found = placement(chain(dense(1, 1, **numbers), shape=(1,)), "loihi2")

    assert says in found.problems[0]


def test_many_decays_are_too_many_for_a_core():
    population = dense(50, 3, voltage_decay=np.arange(50), current_decay=4096)

    assert "50 different decays" in placement(chain(population, shape=(3,)), "loihi1").problems[0]
    assert not placement(chain(population, shape=(3,)), "loihi2").problems


def test_counts_are_no_spikes_for_the_first_chip():
    assert "binary" in placement(chain(dense(2, 10), input_bits=8), "loihi1").problems[0]


def test_a_network_beyond_the_chip_is_told():
    layers = [dense(1024, 1024) for _ in range(17)]

    found = placement(chain(*layers, shape=(1024,)), "loihi1")

    assert sum(found.cores) > 128 and "a chip has 128" in found.problems[-1]
    with pytest.raises(SnnError, match=r"chip.*not known"):
        placement(chain(dense(2, 10)), "loihi3")
