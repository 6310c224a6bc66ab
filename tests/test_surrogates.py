"""Surrogate derivatives: their shape on the whole axis, and snnTorch's where the name is shared."""

import math

import pytest
import torch
from catalogue import SURROGATES, UNIT_AREA, assert_same
from snntorch import surrogate as snntorch_surrogate

from snn_bp import ATan, FastSigmoid, Sigmoid, SnnError, StraightThrough, Surrogate, surrogate, where
from snn_bp.kernels.reference import torch_slope
from snn_bp.surrogates import SHAPES

EXTREMES = (0.0, 1e-45, 1e-30, 1e-3, 1.0, 1e3, 1e30, math.inf)
SHARED = (
    (ATan(2.0, per="potential"), snntorch_surrogate.atan(2.0)),
    (ATan(7.3, per="potential"), snntorch_surrogate.atan(7.3)),
    (FastSigmoid(25.0, per="potential"), snntorch_surrogate.fast_sigmoid(25)),
    (FastSigmoid(0.7, per="potential"), snntorch_surrogate.fast_sigmoid(0.7)),
    (Sigmoid(25.0, per="potential"), snntorch_surrogate.sigmoid(25)),
    (StraightThrough(), snntorch_surrogate.straight_through_estimator()),
)


def slope_at(surrogate: Surrogate, u: torch.Tensor, theta: float = 1.0) -> torch.Tensor:
    return torch.as_tensor(torch_slope(surrogate)(u, torch.tensor(theta, dtype=u.dtype))).expand(u.shape)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_the_slope_is_finite_everywhere(surrogate, dtype):
    u = torch.tensor([*EXTREMES, *(-value for value in EXTREMES)], dtype=dtype)

    slopes = slope_at(surrogate, u, theta=0.7)

    assert slopes.dtype == dtype
    assert torch.isfinite(slopes).all()


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_the_slope_is_symmetric_about_the_threshold(surrogate):
    u = torch.linspace(0, 5, 101, dtype=torch.float64)

    assert_same(slope=(slope_at(surrogate, -u), slope_at(surrogate, u)), atol=1e-15)  # two lobes add in either order


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_the_slope_is_largest_at_the_threshold(surrogate):
    u = torch.linspace(-5, 5, 101, dtype=torch.float64)

    slopes = slope_at(surrogate, u)

    assert slopes.max() == slopes[50]


@pytest.mark.parametrize("surrogate", [s for s in SURROGATES if s.shape != "MultiGaussian"], ids=repr)
def test_the_slope_is_never_negative(surrogate):
    u = torch.linspace(-5, 5, 101, dtype=torch.float64)

    assert (slope_at(surrogate, u) >= 0).all()


def test_a_multi_gaussian_has_negative_lobes():
    u = torch.linspace(-5, 5, 101, dtype=torch.float64)

    assert (slope_at(Surrogate("MultiGaussian", 2.3), u) < 0).any()


@pytest.mark.parametrize("shape", UNIT_AREA)
def test_the_area_under_the_slope_is_one_spike(shape):
    half = 400.0
    u = torch.linspace(-half, half, 800_001, dtype=torch.float64)

    slopes = slope_at(Surrogate(shape, 2.3), u)
    area = float(torch.trapezoid(slopes, u))

    tail = 2 / (math.pi**2 * 2.3 * half) * 2 if shape == "ATan" else 0.0  # 1 - 2/pi atan(pi/2 slope half), twice
    edge = 2.3 * 1e-3 if shape == "Boxcar" else 0.0  # the box's edges fall between two points of the sum
    height = 1.15 - 2 * 6 * 0.15 / 6 if shape == "MultiGaussian" else 1.0
    assert area == pytest.approx(height, abs=1e-5 + tail + edge)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_a_slope_per_threshold_scales_with_the_threshold(surrogate):
    u = torch.linspace(-3, 3, 101, dtype=torch.float64)

    scaled = slope_at(surrogate, 4 * u, theta=4.0)  # a power of two: exact

    assert_same(slope=(4 * scaled, slope_at(surrogate, u)))


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_at_threshold_one_both_units_agree(surrogate):
    u = torch.linspace(-3, 3, 101)

    per_potential = Surrogate(surrogate.shape, surrogate.slope, per="potential")

    assert_same(slope=(slope_at(per_potential, u), slope_at(surrogate, u)))


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_the_slope_keeps_its_digits_in_double_precision(surrogate):
    u = torch.tensor([0.0, 0.1], dtype=torch.float64)

    exact = slope_at(Surrogate(surrogate.shape, 2.3), u)
    rounded = slope_at(Surrogate(surrogate.shape, float(torch.tensor(2.3))), u)

    if surrogate.shape not in ("StraightThrough",):
        # 2.3 differs from its rounding to single precision by 5e-8; at 0 a fast sigmoid has no slope in it
        assert (exact != rounded)[1]


@pytest.mark.parametrize("mine, theirs", SHARED, ids=[repr(mine) for mine, _ in SHARED])
def test_the_slope_equals_snntorch(mine, theirs):
    # further out snnTorch's sigmoid overflows: to 0 from -44 / slope, to NaN from -89 / slope
    u = torch.cat([torch.linspace(-1.7, 1.7, 601), torch.zeros(1)]).requires_grad_()

    wanted = torch.autograd.grad(theirs(u).sum(), u)[0]

    # one rounding of 6e-8 for each of a few operations, the exponential's argument up to 43
    assert_same(slope=(slope_at(mine, u.detach()), wanted), rtol=1e-5)


@pytest.mark.parametrize("slope", (0.0, -1.0, math.nan, math.inf, "steep"))
def test_a_slope_that_is_no_positive_number_is_refused(slope):
    with pytest.raises(SnnError, match="positive number"):
        ATan(slope)


def test_a_misspelt_shape_is_answered_with_the_nearest():
    with pytest.raises(SnnError, match="Did you mean 'FastSigmoid'"):
        Surrogate("FastSigmiod", 25.0)


def test_an_unknown_unit_is_refused():
    with pytest.raises(SnnError, match="per='volt'"):
        ATan(per="volt")  # type: ignore[arg-type]


def test_two_of_our_shapes_are_zero_outside_a_window_and_one_of_them_is_a_box():
    compact = {name for name, kind in SHAPES.items() if kind.recorded(()).is_compact}

    assert compact == {"Triangular", "Boxcar"}
    assert {name for name, kind in SHAPES.items() if kind.recorded(()).is_box(2.0)} == {"Boxcar"}


def test_a_box_that_leaves_out_the_threshold_is_no_box_around_it():
    @surrogate
    def Beside(u, *, slope=1.0):
        return where(slope * abs(u - 2) < 1, 0.5, 0)

    assert Beside().recorded.is_compact and not Beside().recorded.is_box(1.0)
