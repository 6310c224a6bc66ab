"""`@neuron` itself: what names and parameters a step may have, and what is refused when it is defined."""

import re
from typing import Literal

import pytest
import torch
from catalogue import assert_near, assert_same

from snn_bp import LI, BatchNorm, Dense, Network, SnnError, Spiking, Tau, exp, neuron, simulate, spike, use_backend
from snn_bp.kernels import BACKENDS


@neuron(decays=("low",))
def Odd(row, out, t, s, x, *, neurons=0.5, low=0.9, bias=0.1, rate=1.0):
    """States and parameters called as kernels call their own."""
    row = low * row + x * rate
    out = low * out + row + bias
    t = 0.2 * t + out - s
    return row, out, t, spike(t - neurons)


@pytest.mark.slow
def test_names_that_kernels_use_are_no_others(noise, coin):
    x, found = noise(20, 2, 5, dtype=torch.float64), {}
    rows = (Dense(6), BatchNorm(), Spiking(Odd(), learn=("bias", "rate")), Dense(3), LI(beta=0.9))
    for backend in BACKENDS:
        network, current = Network(rows, (5,), seed=0).double(), x.clone().requires_grad_()
        with use_backend(backend):
            out, _ = simulate(Odd(), current)
            (out * x).sum().backward()
            network(coin(9, 2, 5, probability=0.4).double()).sum().backward()
        found[backend] = out.detach(), current.grad, network.layers[2].learned["rate"].grad

    (mine, gx, rate), (wanted, other, known) = found["fastest"], found["reference"]
    assert_same(out=(mine, wanted))
    assert_near(share=1e-12, x=(gx, other), rate=(rate, known))


def test_what_chooses_may_be_a_word_a_number_or_a_truth_value():
    @neuron
    def Choosing(v, s, x, *, reset: Literal["zero", "none"] = "zero", times: Literal[1, 2] = 1, twice: bool = False):
        for _ in range(times):
            v = v + x * (2 if twice else 1)
        return v * (1 - s) if reset == "zero" else v, spike(v - 1)

    x = torch.full((1, 1, 1), 0.25)
    with use_backend("reference"):
        found = [
            float(simulate(Choosing(times=times, twice=twice), x)[1].v) for times in (1, 2) for twice in (False, True)
        ]

    assert found == [0.25, 0.5, 0.5, 1.0]
    assert repr(Choosing(times=2)) == "Choosing(reset='zero', times=2, twice=False)".replace(
        "Choosing", Choosing.__qualname__
    )
    with pytest.raises(SnnError, match="should be one of 1, 2"):
        Choosing(times=True)


def refused(make, *words):
    with pytest.raises(SnnError) as refusal:
        make()
    assert "\n" not in str(refusal.value)
    assert all(re.search(word, str(refusal.value)) for word in words), str(refusal.value)


def test_what_a_step_cannot_be_is_refused_when_it_is_defined():
    def word(v, s, x, *, reset="zero"):
        return v + x, spike(v - 1)

    def out_of_range(v, s, x, *, beta=1.5):
        return beta * v + x, spike(v - 1)

    def module_name(v, s, x, *, train=1.0):
        return v + x, spike(v - train)

    def private(_v, s, x):
        return _v + x, spike(_v - 1)

    def operation(sqrt, s, x):
        return sqrt + x, spike(sqrt - 1)

    def plain(i, v, s, x, *, alpha=0.5):
        i = alpha * i + x
        return i, v + i, spike(v - 1)

    refused(lambda: neuron(word), "chooses by a word", r"reset: Literal\['zero', ...\]")
    refused(lambda: neuron(decays=("beta",))(out_of_range), r"beta=1.5\): a decay lies in 0..1")
    refused(lambda: neuron(module_name), "'train' is no name")
    refused(lambda: neuron(private), "'_v' is no name")
    refused(lambda: neuron(operation), "'sqrt' is no name")
    refused(lambda: neuron(decays=("alpha",), positive=("alpha",))(plain), "'alpha' is named twice")
    refused(lambda: neuron(fractions=("alhpa",))(plain), "'alhpa' is no parameter", "alpha")
    refused(lambda: neuron(optional={"j": "alpha"})(plain), "states i, v", "parameters alpha")


def test_a_fraction_is_no_time_constant():
    @neuron(fractions=("share",))
    def Sharing(v, s, x, *, share=0.5):
        v = share * v + exp(-x)
        return v, spike(v - 1)

    refused(lambda: Sharing(share=1.5), "it lies in 0..1")
    refused(lambda: Sharing(share=Tau(5)), "a time constant becomes a decay")


def test_a_state_without_its_optional_part_detaches():
    @neuron(decays=("alpha",), optional={"i": "alpha"})
    def Optional(i, v, s, x, *, alpha=0.0):
        i = alpha * i + x
        v = 0.5 * v + i
        return i, v, spike(v - 1)

    with use_backend("reference"):
        _, without = simulate(Optional(), torch.ones(3, 1, 2))
        _, whole = simulate(Optional(alpha=0.5), torch.ones(3, 1, 2))

    assert without.detach().i is None and whole.detach().i is not None
