"""The exponential of a step: the same bits from every backend, as near to the exact one as its docstring says."""

import numpy as np
import pytest
import torch
from numba import njit

from snn_bp import simulate, use_backend
from snn_bp.equations.exponential import exponential_double, exponential_single
from snn_bp.kernels.bind import bind
from snn_bp.kernels.cpu.compile import _operations
from snn_bp.kernels.reference import _OPERATIONS
from snn_bp.neurons import neuron

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
ENDS = {SINGLE: (-103.97, 88.722), DOUBLE: (-745.13, 709.78)}  # between them the result is neither 0 nor infinite
SUBNORMAL = {SINGLE: -87.4, DOUBLE: -708.4}  # below, the result is subnormal
POINTS = 200_001
types = pytest.mark.parametrize("dtype", (SINGLE, DOUBLE), ids=str)


def grid(dtype):
    """From both ends to the middle, densely about 0 and where results are subnormal; and what no number is."""
    low, high = ENDS[dtype]
    tiny, largest = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    edges = [edge + step for edge in (low, high, SUBNORMAL[dtype], -104, 89, -746, 710) for step in (-0.01, 0, 0.01)]
    parts = (
        np.linspace(low - 2, high + 2, POINTS),
        np.linspace(-1, 1, POINTS),
        np.linspace(low, SUBNORMAL[dtype], POINTS // 4),
        np.log(2) * (np.arange(-1100, 1100) + 0.5),  # where one power of two takes over from the next
        [0.0, -0.0, tiny, -tiny, 1e-30, -1e-30, largest, -largest, np.inf, -np.inf, np.nan, 1e4, -1e4, *edges],
    )
    return np.concatenate([np.asarray(part, np.float64) for part in parts]).astype(dtype)


def compiled(dtype):
    """The function that kernels call, in a loop over an array."""
    exp = _operations(dtype, uniform=True)["exp"]

    @njit(error_model="numpy")
    def loop(x, out):
        for n in range(len(x)):
            out[n] = exp(x[n])

    def run(x):
        out = np.empty_like(x)
        loop(x, out)
        return out

    return run


def by_torch(x):
    return _OPERATIONS["exp"](torch.from_numpy(x)).numpy()


def by_numpy(x):
    whole, bias, shift = (np.int32, 127, 23) if x.dtype == SINGLE else (np.int64, 1023, 52)
    function = exponential_single if x.dtype == SINGLE else exponential_double
    power = lambda k: ((k.astype(whole) + whole(bias)) << whole(shift)).view(x.dtype)  # noqa: E731
    with np.errstate(all="ignore"):  # infinity and NaN are among what is asked
        return bind(function, real=x.dtype.type, where=np.where, power_of_two=power)(x)


@types
def test_every_backend_gives_the_same_bits(dtype):
    x = grid(dtype)
    found, wanted = {"numba": compiled(dtype)(x), "torch": by_torch(x)}, by_numpy(x)

    for name, got in found.items():
        assert got.dtype == dtype
        same = (got.view(f"u{dtype.itemsize}") == wanted.view(f"u{dtype.itemsize}")) | (
            np.isnan(got) & np.isnan(wanted)
        )
        assert same.all(), f"{name}: {x[~same][:5]}: {got[~same][:5]}, wanted {wanted[~same][:5]}"


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="nothing here is more exact than double precision")
@types
def test_it_lies_as_near_to_the_exact_result_as_it_says(dtype):
    x = grid(dtype)
    x = x[(x > ENDS[dtype][0]) & (x < ENDS[dtype][1])]

    exact = np.exp(x.astype(np.longdouble))
    units = np.abs(by_torch(x) - exact) / np.spacing(exact.astype(dtype)).astype(np.longdouble)

    assert 0.5 < float(units.max()) < (1 if dtype == SINGLE else 2)
    assert "one unit in the last place" in exponential_single.__doc__ and "two units" in exponential_double.__doc__


@types
def test_its_ends_are_zero_and_infinity_and_a_nan_stays_one(dtype):
    low, high = ENDS[dtype]
    x = np.array([0.0, -0.0, -np.inf, low - 0.5, -np.finfo(dtype).max, high + 0.5, np.finfo(dtype).max, np.inf], dtype)

    assert by_torch(x).tolist() == [1, 1, 0, 0, 0, np.inf, np.inf, np.inf]
    assert np.isnan(by_torch(np.array([np.nan, -np.nan], dtype))).all()
    assert 0 < by_torch(np.array([low + 0.01], dtype))[0] < np.finfo(dtype).tiny
    assert np.isfinite(by_torch(np.array([high - 0.01], dtype))).all()


@types
def test_it_does_not_fall_where_its_argument_rises(dtype):
    x = np.unique(grid(dtype))
    result = by_torch(x[np.isfinite(x)])

    assert (result[1:] >= result[:-1]).all()


@pytest.mark.slow
@types
def test_a_neuron_with_an_exponential_spikes_alike_in_kernel_and_reference(dtype, noise):
    x = noise(41, 3, 7, scale=2, dtype=torch.float32 if dtype == SINGLE else torch.float64)
    found = []
    for backend in ("reference", "fastest"):
        given = x.clone().requires_grad_()
        with use_backend(backend):
            spikes, _, v = simulate(Steep(), given, potentials=True)
        found.append((spikes, v, *torch.autograd.grad((spikes + 0.1 * v).sum(), given)))

    (wanted, wanted_v, wanted_g), (spikes, v, g) = found
    assert 0.02 < float(spikes.detach().mean()) < 0.9
    assert torch.equal(spikes, wanted) and torch.equal(v, wanted_v)
    # each gradient is a sum of some dozen products, rounded to half a unit of its type
    torch.testing.assert_close(
        g,
        wanted_g,
        rtol=1e-12 if dtype == DOUBLE else 1e-5,
        atol=float(wanted_g.abs().max()) * (1e-13 if dtype == DOUBLE else 1e-6),
    )


@neuron(decays=("beta",), positive=("threshold",))
def Steep(v, s, x, *, beta=0.8, sharp=0.5, threshold=1.0):
    """A membrane that an exponential drives up, as far as its threshold."""
    v = beta * v * (1 - detach(s)) + x + 0.2 * exp(min((v - threshold) / sharp, 1.0))  # noqa: F821
    return v, spike(v - threshold, threshold)  # noqa: F821
