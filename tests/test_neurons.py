"""Neurons are values: what they accept, what they refuse, and time constants turned into decays."""

import math
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from catalogue import BACKENDS, NEURONS

from snn_bp import (
    ALIF,
    IF,
    LI,
    LIF,
    ATan,
    CubaLIF,
    Dense,
    Network,
    SnnError,
    State,
    Surrogate,
    Tau,
    decay,
    simulate,
    use_backend,
)  # fmt: skip
from snn_bp.kernels import rest
from snn_bp.model.modules import Neurons
from snn_bp.neurons import at_step, coefficients, has_adaptation, has_current, is_spiking


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
def test_a_neuron_survives_pickling_as_an_equal_and_hashable_value(neuron):
    copied = pickle.loads(pickle.dumps(neuron))

    assert copied == neuron
    assert hash(copied) == hash(neuron)
    assert eval(repr(neuron)) == neuron


@pytest.mark.parametrize(
    "values",
    ([0.25, 0.5], (0.25, 0.5), np.array([0.25, 0.5]), torch.tensor([0.25, 0.5])),
    ids=lambda v: type(v).__name__,
)
def test_arrays_become_the_same_tuple(values):
    assert LIF(beta=values) == LIF(beta=(0.25, 0.5))


def test_an_array_without_dimensions_is_a_number():
    assert LIF(beta=torch.tensor(0.5), threshold=np.float64(2)) == LIF(beta=0.5, threshold=2.0)


@pytest.mark.parametrize("value", (-0.1, 1.1, math.nan, math.inf, (0.5, 1.5), (0.5, math.nan)))
@pytest.mark.parametrize("name", ("alpha", "beta", "rho"))
def test_a_decay_outside_0_to_1_is_refused(name, value):
    with pytest.raises(SnnError, match=rf"ALIF\({name}=.*lies in 0..1.*decay\(tau_ms=20"):
        ALIF(**{"alpha": 0.5, "beta": 0.5, "rho": 0.5, "kappa": 0.1, name: value})


@pytest.mark.parametrize("threshold", (0.0, -1.0, math.nan, math.inf, (1.0, 0.0)))
def test_a_threshold_that_is_not_positive_is_refused(threshold):
    with pytest.raises(SnnError, match="threshold"):
        IF(threshold=threshold)


@pytest.mark.parametrize("kappa", (-0.1, math.nan, math.inf))
def test_a_threshold_that_would_fall_with_spikes_is_refused(kappa):
    with pytest.raises(SnnError, match="kappa"):
        ALIF(beta=0.9, rho=0.9, kappa=kappa)


@pytest.mark.parametrize("value", ("fast", None, [], [[0.5], [0.5, 0.5]], {}))
def test_a_parameter_that_is_no_number_is_refused(value):
    with pytest.raises(SnnError, match=r"LIF\(beta="):
        LIF(beta=value)


def test_a_misspelt_reset_is_answered_with_the_nearest():
    with pytest.raises(SnnError, match="Did you mean 'subtract'"):
        LIF(beta=0.9, reset="substract")  # type: ignore[arg-type]


def test_detach_reset_is_a_truth_value():
    with pytest.raises(SnnError, match="True or False"):
        LIF(beta=0.9, detach_reset="yes")  # type: ignore[arg-type]


def test_decays_multiply_as_steps_add():
    assert decay(tau_ms=20, step_ms=3) == pytest.approx(decay(tau_ms=20, step_ms=1) ** 3, rel=1e-15)
    assert decay(tau_ms=1, step_ms=1) == math.exp(-1)


@pytest.mark.parametrize("tau_ms, step_ms", ((0, 1), (20, 0), (-20, 1), (math.nan, 1)))
def test_decay_refuses_what_is_no_time(tau_ms, step_ms):
    with pytest.raises(SnnError, match="positive times"):
        decay(tau_ms=tau_ms, step_ms=step_ms)


@pytest.mark.parametrize("ms", (0, -1, math.inf, math.nan, "20"))
def test_a_time_constant_is_a_positive_number(ms):
    with pytest.raises(SnnError, match="positive number of ms"):
        Tau(ms)


def test_a_step_turns_every_time_constant_into_a_decay():
    neuron = ALIF(alpha=Tau(5), beta=Tau(20), rho=Tau(200), kappa=0.3, reset="zero")

    resolved = at_step(neuron, step_ms=4)

    expected = {"alpha": math.exp(-4 / 5), "beta": math.exp(-4 / 20), "rho": math.exp(-4 / 200)}
    assert resolved == ALIF(**expected, kappa=0.3, reset="zero")


def test_a_step_leaves_decays_alone():
    assert at_step(LIF(beta=0.9), step_ms=4) == LIF(beta=0.9)


def test_coefficients_of_an_unresolved_time_constant_ask_for_the_step():
    with pytest.raises(SnnError, match=r"LIF\(beta=Tau\(ms=20\)\).*at_step"):
        coefficients(LIF(beta=Tau(20)))


def test_each_kind_knows_its_parts():
    parts = {
        IF(): (True, False, False),
        LIF(beta=0.9): (True, False, False),
        CubaLIF(alpha=0.5, beta=0.9): (True, True, False),
        CubaLIF(alpha=0.0, beta=0.9): (True, True, False),
        ALIF(beta=0.9, rho=0.9, kappa=0.1): (True, False, True),
        ALIF(beta=0.9, rho=0.9, kappa=0.1, alpha=Tau(5)): (True, True, True),
        LI(beta=0.9): (False, False, False),
        LI(beta=0.9, alpha=0.5): (False, True, False),
    }

    found = {neuron: (is_spiking(neuron), has_current(neuron), has_adaptation(neuron)) for neuron in parts}

    assert found == parts


def test_a_detached_state_has_the_same_values_and_no_gradient():
    v = torch.ones(2, 3, requires_grad=True)

    state = State(v=2 * v, i=3 * v).detach()

    assert state.s is None and state.a is None and state.i is not None
    assert not state.v.requires_grad and not state.i.requires_grad
    assert torch.equal(state.v, torch.full((2, 3), 2.0))


# Only ours


class Leaky(LIF):
    pass


@dataclass(frozen=True)
class Izhikevich:
    beta: float = 0.9
    threshold: float = 1.0
    reset: str = "subtract"
    detach_reset: bool = True


ANOTHERS = (Leaky(beta=0.9), Izhikevich(), LIF, None, 0.9, "LIF", ATan(), type("LIF", (LIF,), {})(beta=0.9))


@pytest.mark.parametrize("another", ANOTHERS, ids=lambda another: getattr(another, "__name__", type(another).__name__))
def test_what_is_no_neuron_of_ours_is_refused_wherever_one_is_taken(another):
    x = torch.ones(5, 2, 3)
    takes = (
        is_spiking, has_current, has_adaptation, coefficients, lambda neuron: at_step(neuron, step_ms=1),
        lambda neuron: simulate(neuron, x), lambda neuron: rest(neuron, (2, 3), like=x),
        lambda neuron: Neurons(neuron, (3,), ATan()),
    )  # fmt: skip

    for take in takes:
        with pytest.raises(SnnError, match=r"no neuron of snn_bp|is a class, not a neuron: write LIF"):
            take(another)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unknown_neuron_does_not_run_as_a_known_one(backend):
    with use_backend(backend), pytest.raises(SnnError, match="Leaky, which is not the LIF below it"):
        simulate(Leaky(beta=0.9), torch.ones(5, 2, 3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_surrogate_that_was_not_called_is_answered_with_the_call(backend):
    for make in (
        lambda: simulate(LIF(beta=0.9), torch.ones(5, 2, 3), None, ATan),  # type: ignore[call-overload]
        lambda: Network((Dense(3), LIF(beta=0.9)), (3,), surrogate=ATan),  # type: ignore[arg-type]
        lambda: Neurons(LIF(beta=0.9), (3,), ATan),  # type: ignore[arg-type]
    ):
        with use_backend(backend), pytest.raises(SnnError, match=r"surrogate=ATan: write ATan\(\)"):
            make()


@pytest.mark.parametrize("wrong", (0, False, "ATan", Leaky(beta=0.9), type("S", (Surrogate,), {})("ATan", 2.0)))
def test_what_is_no_surrogate_is_refused_by_a_network(wrong):
    with pytest.raises(SnnError, match="it should be a surrogate"):
        Network((Dense(3), LIF(beta=0.9)), (3,), surrogate=wrong)


@pytest.mark.parametrize(
    "values",
    (True, "0.5", ["0.5"], [True, 0.5], np.array([True]), torch.tensor([True]), [None], 10**400, [0.5, "x"], 1j, b"1"),
    ids=repr,
)
def test_text_and_truth_values_are_no_parameters(values):
    with pytest.raises(SnnError, match=r"LIF\(beta=.*it should be a number, or one number for each neuron"):
        LIF(beta=values)


def test_a_parameter_that_should_learn_is_not_cut_off_silently():
    with pytest.raises(SnnError, match=r"Spiking\(LIF\(...\), learn=\('threshold',\)\)"):
        LIF(beta=0.9, threshold=torch.ones(3, requires_grad=True))


@pytest.mark.parametrize("threshold", (1e300, 1e-300, (1.0, 1e39)))
def test_a_threshold_that_single_precision_does_not_hold_is_refused(threshold):
    with pytest.raises(SnnError, match="threshold"):
        LIF(beta=0.9, threshold=threshold)


def test_a_time_constant_is_no_threshold():
    with pytest.raises(SnnError, match=r"LIF\(threshold=Tau"):
        LIF(beta=0.9, threshold=Tau(20))  # type: ignore[arg-type]
