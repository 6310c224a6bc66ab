"""The adjoint is the chain rule of `advance`, term by term."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snn_bp import equations
from snn_bp.kernels.bind import Constants, bind
from snn_bp.kernels.reference import torch_advance, torch_slope
from snn_bp.neurons import RESETS
from snn_bp.surrogates import Gaussian

KINDS = [
    *(
        Constants(current=current, adapts=adapts, spiking=True, reset=reset, detach=detach)
        for current, adapts, reset, detach in product((True, False), (True, False), RESETS, (True, False))
    ),
    *(Constants(current=current, adapts=False, spiking=False, reset="none", detach=True) for current in (True, False)),
]
NAMES = ("i", "a", "v", "s", "x", "alpha", "beta", "rho", "kappa", "theta")

real = st.floats(-3, 3)
share = st.floats(0, 1)
inputs = st.tuples(real, real, real, st.sampled_from((0.0, 1.0)), real, share, share, share, real, st.floats(0.25, 2))
cotangents = st.tuples(real, real, real, real)


@pytest.mark.parametrize("constants", KINDS, ids=repr)
@given(inputs=inputs, cotangents=cotangents)
def test_the_adjoint_is_what_autograd_makes_of_the_step(constants, inputs, cotangents):
    surrogate = Gaussian(1.5)
    values = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in inputs]
    wanted = [torch.tensor(value, dtype=torch.float64) for value in cotangents]
    for place, exists in ((1, constants.adapts), (3, constants.spiking)):
        wanted[place] = wanted[place] * exists  # no gradient comes back to a part that the neuron lacks

    after = torch_advance(constants, surrogate)(*values)
    pulled = sum((g * out for g, out in zip(wanted, after, strict=True)), torch.zeros((), dtype=torch.float64))
    by_autograd = torch.autograd.grad(pulled, values, allow_unused=True)
    slope_at = torch_slope(surrogate)
    adjoint = bind(
        equations.advance_vjp, **constants.names(), real=float, slope_at=lambda u, theta, slope: slope_at(u, theta)
    )
    by_hand = adjoint(*wanted, *values[:4], *after[:3], *values[5:], surrogate.slope)

    for name, got, want in zip(NAMES, by_hand, by_autograd, strict=True):
        want = torch.zeros(()) if want is None else want
        # a few dozen operations on values below 100, each rounded to 2.2e-16 of its size
        assert float(torch.as_tensor(got).detach()) == pytest.approx(float(want), rel=1e-12, abs=1e-12), name


@given(inputs=inputs)
def test_a_step_without_a_part_is_a_step_with_its_decay_at_zero(inputs):
    i, a, v, s, x, _, beta, _, _, theta = (torch.tensor(value, dtype=torch.float64) for value in inputs)
    zero = torch.zeros((), dtype=torch.float64)
    lif = Constants(current=False, adapts=False, spiking=True, reset="zero", detach=True)
    alif = Constants(current=True, adapts=True, spiking=True, reset="zero", detach=True)

    lean = torch_advance(lif, Gaussian())(i, a, v, s, x, zero, beta, zero, zero, theta)
    full = torch_advance(alif, Gaussian())(i, a, v, s, x, zero, beta, zero, zero, theta)

    assert lean[2:] == full[2:]
