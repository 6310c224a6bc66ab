"""The smooth spike belongs to its surrogate: S' is the slope in `equations.py`."""

import pytest
import torch
from catalogue import SURROGATES, UNIT_AREA, assert_same

from snn_bp import Surrogate
from snn_bp.instruments.smooth import kinks_and_edges, piece, smooth_spike
from snn_bp.kernels.reference import torch_slope

UNITS = tuple(Surrogate(each.shape, each.slope, per=per) for each in SURROGATES for per in ("threshold", "potential"))


@pytest.mark.parametrize("surrogate", UNITS, ids=repr)
def test_the_derivative_of_the_smooth_spike_is_the_surrogate(surrogate):
    u = torch.linspace(-4.01, 3.98, 2001, dtype=torch.float64).requires_grad_()
    theta = torch.tensor(1.7, dtype=torch.float64)

    derivative = torch.autograd.grad(smooth_spike(u, theta, surrogate).sum(), u)[0]

    # a difference of exponentials near 1, rounded to 1e-16
    assert_same(atol=1e-14, rtol=1e-12, slope=(derivative, torch_slope(surrogate)(u.detach(), theta).expand_as(u)))


@pytest.mark.parametrize("surrogate", UNITS, ids=repr)
def test_the_smooth_spike_is_a_half_at_threshold(surrogate):
    zero = torch.zeros((), dtype=torch.float64)

    assert float(smooth_spike(zero, zero + 1.7, surrogate)) == pytest.approx(0.5, abs=1e-15)


@pytest.mark.parametrize("shape", [shape for shape in UNIT_AREA if shape != "MultiGaussian"])
def test_a_surrogate_of_unit_area_is_the_slope_of_a_spike_from_0_to_1(shape):
    ends = torch.tensor([-1e8, 1e8], dtype=torch.float64)

    spikes = smooth_spike(ends, torch.ones((), dtype=torch.float64), Surrogate(shape, 2.3))

    assert_same(atol=1e-8, ends=(spikes, torch.tensor([0.0, 1.0], dtype=torch.float64)))


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_kinks_are_where_a_difference_of_slopes_jumps(surrogate):
    u = torch.arange(-40_001, 40_002, 2, dtype=torch.float64) / 1e4  # no kink is among them
    theta = torch.ones((), dtype=torch.float64)
    slopes = torch_slope(surrogate)(u, theta).expand_as(u)

    # a smooth slope's second difference is about f'' h^2 = 1e-6; over a kink the first jumps by 1e-4 and more
    jumps = (slopes[2:] - 2 * slopes[1:-1] + slopes[:-2]).abs() > 3e-5
    between = u[1:-1][jumps]

    kinks, _ = kinks_and_edges(surrogate)
    assert len(between) >= len(kinks)
    assert all(min(abs(float(at) - kink) for kink in kinks) < 3e-4 for at in between)
    crossed = piece(u, theta, surrogate).diff().count_nonzero()
    assert int(crossed) == len(kinks)
