"""Neurons in Loihi's integers against a plain transcription of the chip's arithmetic, and at its edges."""

import numpy as np
import pytest

from snn_bp.kernels.fixed import LOIHI, compiled_run, times, wrapped

HIGHEST = 1 << 23


def run(sums, *, bias=0, current_kept=0, voltage_kept=0, threshold=1):
    """Spikes, potentials before reset and currents of neurons from rest; `sums` is [time, rows, neurons]."""
    sums = np.asarray(sums, np.int32)
    neurons = sums.shape[2]
    each = [np.full(neurons, value, np.int64) for value in (bias, current_kept, voltage_kept, threshold)]
    u, v, s = (np.zeros(sums.shape[1:], np.int64) for _ in range(3))
    spikes, potentials, currents = (np.empty(sums.shape, kind) for kind in (np.int8, np.int32, np.int32))
    compiled_run(record=True)(sums, each[0], u, v, s, *each[1:], spikes, potentials, currents)
    return spikes, potentials, currents


def transcribed(sums, *, bias, current_kept, voltage_kept, threshold):
    """The same, from lava's arithmetic step by step: everything is an integer, products are cut off toward zero."""
    u = v = np.zeros(sums.shape[1:], np.int64)
    rows = []
    for a in sums:
        u = np.sign(u) * (np.abs(u * current_kept) >> 12) + (a << 6)
        u = np.where(u > HIGHEST, u - 2 * HIGHEST, u)
        u = np.where(u <= -HIGHEST, u + 2 * HIGHEST, u)
        v = np.sign(v) * (np.abs(v * voltage_kept) >> 12) + u + (bias << 6)
        v = np.clip(v, 1 - HIGHEST, HIGHEST - 1)
        spike = v > threshold << 6
        rows.append((spike, v, u))
        v = np.where(spike, 0, v)
    return [np.array(values) for values in zip(*rows, strict=True)]


@pytest.mark.parametrize("scale", (30, 3000, 90_000), ids=("usual", "large", "wraps and saturates"))
@pytest.mark.parametrize("kept", ((0, 0), (3000, 3900), (4095, 1), (4096, 4096)), ids=repr)
def test_neurons_are_the_chips_bit_for_bit(scale, kept):
    sums = np.random.default_rng(0).integers(-scale, scale + scale // 8, (300, 3, 41))
    names = {"current_kept": kept[0], "voltage_kept": kept[1], "bias": -7, "threshold": 2 * scale // 3}

    found = run(sums, **names)

    for mine, theirs in zip(found, transcribed(sums, **names), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert 0 < found[0].mean() < 1


def test_a_neuron_fires_strictly_above_its_threshold():
    spikes, _, _ = run([[[9, 10, 11]]], threshold=10)

    np.testing.assert_array_equal(spikes, [[[0, 0, 1]]])


def test_a_spike_clears_the_membrane_and_leaves_the_current():
    spikes, potentials, currents = run([[[100]], [[0]]], current_kept=4096, voltage_kept=4096, threshold=10)

    np.testing.assert_array_equal(spikes.ravel(), [1, 1])
    np.testing.assert_array_equal(currents.ravel(), [6400, 6400])
    np.testing.assert_array_equal(potentials.ravel(), [6400, 6400])  # twice that without the reset


def test_a_decaying_state_loses_at_least_one_and_reaches_zero():
    steps = np.zeros((200, 1, 2), np.int64)
    steps[0] = 1, -1

    _, _, currents = run(steps, current_kept=4095)

    assert (np.diff(np.abs(currents[:65, 0]), axis=0) == -1)[:64].all()
    assert not currents[64:].any()


def test_the_membrane_saturates_and_then_fires():
    spikes, potentials, _ = run(np.full((3, 1, 2), [131000, -131000]), voltage_kept=4096, threshold=131071)

    np.testing.assert_array_equal(potentials[:, 0, 0], [131000 * 64, HIGHEST - 1, 131000 * 64])
    np.testing.assert_array_equal(potentials[:, 0, 1], [-131000 * 64, 1 - HIGHEST, 1 - HIGHEST])
    np.testing.assert_array_equal(spikes[:, 0, 0], [0, 1, 0])


@pytest.mark.parametrize(
    "u, expected",
    (
        (HIGHEST, HIGHEST),
        (HIGHEST + 1, 1 - HIGHEST),
        (-HIGHEST, HIGHEST),
        (1 - HIGHEST, 1 - HIGHEST),
        (-HIGHEST - 5, HIGHEST - 5),
    ),
)
def test_a_current_leaves_its_24_bits_at_one_end_and_comes_in_at_the_other(u, expected):
    assert wrapped(u, LOIHI.highest) == expected


@pytest.mark.parametrize("u, kept, expected", ((1, 4095, 0), (-1, 4095, 0), (4097, 4095, 4095), (-4097, 4095, -4095)))
def test_a_product_is_cut_off_toward_zero(u, kept, expected):
    assert times(u, kept) == expected
