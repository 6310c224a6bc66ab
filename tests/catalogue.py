"""What every test runs over: neurons, surrogates, backends and shapes. A new entry is tested everywhere at once.

Each distinct kernel costs about a second when first compiled, so `NEURONS` holds one neuron for each code path;
`EVERY_NEURON`, for slow tests, is the whole cross product.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from snn_bp import (
    ALIF,
    BRF,
    IF,
    LI,
    LIF,
    PLIF,
    QIF,
    AdEx,
    AdLIF,
    Alpha,
    AlphaLI,
    AlphaLIF,
    CubaLIF,
    GradedLIF,
    Izhikevich,
    Lapicque,
    RefractoryLIF,
    SEAdLIF,
    Surrogate,
    TwoCompartmentLIF,
)
from snn_bp.kernels import BACKENDS as BACKENDS
from snn_bp.neurons import RESETS
from snn_bp.surrogates import SHAPES

NEURONS = (
    IF(threshold=1.25),
    LIF(beta=0.9, reset="zero"),
    LIF(beta=(0.0, 0.3, 0.55, 0.9, 0.95, 0.99, 1.0), threshold=(0.5, 0.75, 1, 1.1, 1.3, 1.7, 2), reset="subtract"),
    LIF(beta=0.8, reset="subtract_before_leak", detach_reset=False),
    LIF(beta=0.8, reset="zero_all"),
    LIF(beta=0.8, reset="none"),
    CubaLIF(alpha=0.7, beta=0.85, reset="subtract"),
    CubaLIF(alpha=0.7, beta=0.85, reset="zero_all", detach_reset=False),
    CubaLIF(alpha=(0, 0.2, 0.4, 0.6, 0.8, 0.9, 1), beta=0.7, reset="zero", detach_reset=False),
    ALIF(beta=0.9, rho=0.95, kappa=0.4),
    ALIF(beta=0.9, rho=0.95, kappa=0.4, alpha=0.3, reset="zero", detach_reset=False),
    LI(beta=0.9),
    LI(beta=0.9, alpha=0.5),
)
NEURON_COUNT = 7  # what the neurons above with a value for each take

EVERY_NEURON = (
    *(LIF(beta=0.9, reset=r, detach_reset=d) for r, d in product(RESETS, (True, False))),
    *(CubaLIF(alpha=0.7, beta=0.85, reset=r, detach_reset=d) for r, d in product(RESETS, (True, False))),
    *(ALIF(beta=0.9, rho=0.9, kappa=0.4, reset=r, detach_reset=d) for r, d in product(RESETS, (True, False))),
    *(
        ALIF(beta=0.9, rho=0.9, kappa=0.4, alpha=0.3, reset=r, detach_reset=d)
        for r, d in product(RESETS, (True, False))
    ),
)

LIBRARY = (  # one of each kind of the library, with numbers that let it fire in normal noise
    AdEx(beta=0.8, rho=0.9, a=0.2, b=0.3, alpha=0.4),
    AdLIF(beta=0.6, rho=0.8, a=0.3, b=0.5),
    Alpha(),
    AlphaLI(),
    AlphaLIF(alpha=0.6, beta=0.8),
    BRF(omega=0.4, offset=0.05, damping=0.1),
    GradedLIF(beta=0.9, levels=3),
    Izhikevich(a=0.1, gain=20),
    Lapicque(R=3, C=1),
    PLIF(beta=0.4),
    QIF(a=0.3),
    RefractoryLIF(beta=0.8, period=2),
    SEAdLIF(beta=0.6, rho=0.8, a=0.5, b=1, q=4),
    TwoCompartmentLIF(),
)
EVERY_OF_LIBRARY = tuple(
    replace(neuron, **dict(zip(type(neuron).kind.choices, chosen, strict=True)))
    for neuron in LIBRARY
    for chosen in product(*type(neuron).kind.choices.values())
)

SURROGATES = tuple(Surrogate(shape, slope=2.3) for shape in SHAPES)
UNIT_AREA = ("ATan", "Sigmoid", "Triangular", "Boxcar", "Exponential", "Gaussian", "MultiGaussian")

STEP_SHAPES = ((1, 1), (3, 7), (2, 3, 5), (2, 2, 3, 5))  # [batch, *neurons]


def quick_first(values: Iterable[Any], *quick: Any) -> list[Any]:
    """The values for `parametrize`, of which the default tests take `quick` and `pytest -m slow` the others."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]


def assert_same(*, rtol: float = 0.0, atol: float = 0.0, **pairs: tuple[Tensor, Tensor]) -> None:
    """Raise unless each pair (got, wanted) is equal; the message names the pair, the first step and the neuron."""
    for name, (got, wanted) in pairs.items():
        assert got.shape == wanted.shape, f"{name}: shape {list(got.shape)}, wanted {list(wanted.shape)}"
        assert got.dtype == wanted.dtype, f"{name}: {got.dtype}, wanted {wanted.dtype}"
        got, wanted = got.detach(), wanted.detach()
        same = torch.isclose(got, wanted, rtol=rtol, atol=atol, equal_nan=True)
        if not bool(same.all()):
            first = (~same).nonzero()[0].tolist()
            step, place = (first[0], first[1:]) if first else ("-", [])
            raise AssertionError(
                f"{name}: {int((~same).sum())} of {same.numel()} differ, first at step {step}, place {place}: "
                f"{got[tuple(first)].item()!r}, wanted {wanted[tuple(first)].item()!r}"
            )


def assert_near(*, share: float, **pairs: tuple[Tensor, Tensor]) -> None:
    """Raise unless each pair differs by less than `share` of the largest value wanted."""
    for name, (got, wanted) in pairs.items():
        assert_same(atol=share * max(float(wanted.detach().abs().max()), 1e-30), **{name: (got, wanted)})
