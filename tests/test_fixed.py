"""Neurons in integers against plain transcriptions of Loihi's arithmetic and of a circuit's, and at their edges."""

import math

import numpy as np
import pytest

from snn_bp.kernels.fixed import LOIHI, Arithmetic, compiled_run, times, wrapped
from snn_bp.neurons.leaky import RESETS

HIGHEST = 1 << 23


def run(sums, *, bias=0, current_kept=0, voltage_kept=0, threshold=1, arithmetic=LOIHI, reset="zero"):
    """Spikes, potentials before reset and currents of neurons from rest; `sums` is [time, rows, neurons]."""
    sums = np.asarray(sums, np.int32)
    neurons = sums.shape[2]
    each = [np.full(neurons, value, np.int64) for value in (bias, current_kept, voltage_kept, threshold)]
    u, v, s = (np.zeros(sums.shape[1:], np.int64) for _ in range(3))
    spikes, potentials, currents = (np.empty(sums.shape, kind) for kind in (np.int8, np.int32, np.int32))
    compiled_run(arithmetic, reset, record=True)(sums, each[0], u, v, s, *each[1:], spikes, potentials, currents)
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


def circuit(sums, *, bias, current_kept, voltage_kept, threshold, arithmetic, reset):
    """One neuron of a circuit, in Python's integers, which have no end; lists of its spikes, potentials, currents."""
    top = 2 ** (arithmetic.state_bits - 1) - 1

    def kept(x, share):
        if arithmetic.decay == "multiply":
            return int(math.copysign(abs(x) * share // 4096, x))
        shift = {4096 >> k: k for k in range(13)}.get(4096 - share)
        return x if shift is None else x - math.floor(x / 2**shift)

    i = v = s = 0
    rows = []
    for a in sums:
        i = max(-top, min(top, kept(i, current_kept) + a * 2**arithmetic.fraction_bits))
        x = i + bias
        match reset:
            case "zero":
                v = x if s else kept(v, voltage_kept) + x
            case "zero_all":
                v = 0 if s else kept(v, voltage_kept) + x
            case "subtract":
                v = kept(v, voltage_kept) + x - threshold * s
            case "subtract_before_leak":
                v = kept(v - threshold * s, voltage_kept) + x
            case "none":
                v = kept(v, voltage_kept) + x
        v = max(-top, min(top, v))
        s = int(v > threshold)
        rows.append((s, v, i))
    return zip(*rows, strict=True)


PAIRS = [
    pytest.param(reset, decay, marks=[pytest.mark.slow] * ((number + with_shift) % 2), id=f"{reset}-{decay}")
    for number, reset in enumerate(RESETS)
    for with_shift, decay in enumerate(("multiply", "shift"))
]  # each is compiled; half of them shows the rest every day


@pytest.mark.parametrize("reset, decay", PAIRS)
def test_neurons_are_the_circuits_bit_for_bit(reset, decay):
    rng = np.random.default_rng(3)
    seen = []
    for state_bits in (12, 16, 24):
        arithmetic = Arithmetic(state_bits, int(rng.integers(0, 6)), decay, "saturate")
        top, shifts = arithmetic.highest, [0, *(4096 - (4096 >> k) for k in range(1, 13)), 4096]
        for scale in (top // 40, top // 3, top):
            kept = rng.choice(shifts, 2) if decay == "shift" else rng.integers(0, 4097, 2)
            sums = rng.integers(-scale, scale + scale // 8, (120, 2, 3)) >> arithmetic.fraction_bits
            names = {
                "current_kept": int(kept[0]), "voltage_kept": int(kept[1]), "bias": int(rng.integers(-scale, scale)),
                "threshold": int(rng.integers(1, top // 2)), "arithmetic": arithmetic, "reset": reset,
            }  # fmt: skip

            found = run(sums, **names)

            for row in range(2):
                for m in range(3):
                    wanted = circuit(sums[:, row, m].tolist(), **names)
                    for mine, theirs in zip(found, wanted, strict=True):
                        np.testing.assert_array_equal(mine[:, row, m], theirs)
            seen.append((found[0].mean(), (abs(found[1]) == top).any(), (abs(found[2]) == top).any()))
    rates, *saturated = zip(*seen, strict=True)
    assert 0 < np.mean(rates) < 1
    assert all(map(any, saturated)), "membrane and current should have met their ends"


def test_a_shift_rounds_down_and_leaves_a_positive_state_short_of_zero():
    steps = np.zeros((9, 1, 2), np.int64)
    steps[0] = 20, -20

    _, potentials, _ = run(
        steps, voltage_kept=4096 - (4096 >> 2), threshold=100, arithmetic=Arithmetic(16, 0, "shift", "saturate")
    )

    np.testing.assert_array_equal(potentials[:, 0, 0], [20, 15, 12, 9, 7, 6, 5, 4, 3])
    np.testing.assert_array_equal(potentials[:, 0, 1], [-20, -15, -11, -8, -6, -4, -3, -2, -1])


def test_a_neuron_with_the_highest_threshold_never_fires_in_a_circuit():
    arithmetic = Arithmetic(12, 0, "multiply", "saturate")

    spikes, potentials, _ = run(
        np.full((5, 1, 1), 5000), voltage_kept=4096, threshold=arithmetic.highest_threshold, arithmetic=arithmetic
    )

    assert not spikes.any()
    np.testing.assert_array_equal(potentials.ravel(), [2047] * 5)
