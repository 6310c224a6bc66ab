"""The cost of a gradient: memory that grows with the steps for BPTT, and not for truncated BPTT and online rules."""

import numpy as np
import pytest
import torch

from snn_bp import LI, LIF, BatchNorm, Dense, Network, SnnError
from snn_bp.instruments.cost import WAYS, cost_of_bptt, measured_memory

TARGETS = torch.arange(64) % 10


def made():
    return Network((Dense(64), LIF(beta=0.9), Dense(10), LI(beta=0.9)), (50,))


@pytest.fixture
def x(coin):
    return coin(40, 64, 50, probability=0.1)


def test_memory_grows_with_the_steps_for_bptt_alone(x):
    rows = cost_of_bptt(made(), x, TARGETS, steps=(10, 40), ways=WAYS, truncate=5, repeats=1)

    assert [(row.way, row.steps) for row in rows] == [(way, steps) for way in WAYS for steps in (10, 40)]
    costs = {(row.way, row.steps): row for row in rows}
    potentials = 30 * 64 * 64 * 4  # bytes of the hidden ones, of the 30 steps more
    assert costs["full", 40].held_bytes - costs["full", 10].held_bytes > potentials
    assert costs["low", 40].held_bytes - costs["low", 10].held_bytes < potentials
    for way in ("truncated", "ottt", "eprop"):
        assert costs[way, 40].peak_bytes < 1.15 * costs[way, 10].peak_bytes, way
    assert {costs[way, 40].held_bytes for way in ("ottt", "eprop")} == {0}
    assert all(row.seconds > 0 and row.peak_bytes >= row.held_bytes for row in rows)


def test_bytes_of_torch_and_of_numpy_are_counted_where_they_are_held_and_at_their_peak():
    mib = 2**20

    def gradient(mark):
        held = [torch.empty(3 * mib, dtype=torch.uint8), np.empty(5 * mib, np.uint8)]
        mark()
        held.append(torch.empty(7 * mib, dtype=torch.uint8))

    held, peak = measured_memory(gradient)

    assert held == pytest.approx(8 * mib, rel=0.01)  # and a few of Python's own objects
    assert peak == pytest.approx(15 * mib, rel=0.01)


def test_measuring_leaves_the_network_as_it_was(x):
    network = made()
    before = {name: part.clone() for name, part in network.state_dict().items()}

    cost_of_bptt(network, x, TARGETS, steps=(7,), ways=("low", "eprop"), repeats=1)

    assert network.memory == "full" and network.training
    assert all(torch.equal(before[name], part) for name, part in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_low_memory_without_a_chain_is_refused(x):
    network = Network((Dense(10), BatchNorm(), LIF(beta=0.9)), (50,))

    with pytest.raises(SnnError, match=r"this network has none. Leave it out: ways=\('full',\)"):
        cost_of_bptt(network, x, TARGETS, steps=(5,), ways=("full", "low"), repeats=1)


@pytest.mark.parametrize("wrong", ({"ways": ("fully",)}, {"steps": (0,)}, {"truncate": 0}, {"repeats": 0}))
def test_what_means_nothing_is_refused(x, wrong):
    with pytest.raises(SnnError, match=r"Did you mean 'full'|it should be an integer"):
        cost_of_bptt(made(), x, TARGETS, **wrong)
