"""A neuron's equation to read: the text of known neurons, its truth against gradients of runs, and its formulas."""

import inspect
import math
import re
import xml.etree.ElementTree as xml
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from snn_bp import ALIF, LI, LIF, CubaLIF, Tau, simulate, use_backend
from snn_bp.equations.arithmetic import detach, exp, spike, where
from snn_bp.equations.lines import scales
from snn_bp.kernels.reference import torch_slope
from snn_bp.neurons import LIBRARY, at_step, neuron, numbers_of
from snn_bp.neurons.formulas import TEXT, write
from snn_bp.surrogates import FastSigmoid

STEPS = 23


@neuron(decays=("beta", "rho"), positive=("threshold",))
def AdLIF(v, w, s, x, *, beta, rho=Tau(100), a=0.1, b=0.2, threshold=1.0):
    w = rho * w + a * v + b * s
    v = beta * v * (1 - detach(s)) + x - w
    return v, w, spike(v - threshold, threshold)


@neuron(decays=("beta",), positive=("tau_m",))
def Winding(v, w, q, n, s, x, *, beta, tau_m=3.0, c=2.0, k2=0.1, hard: bool = True):
    """All that a step may hold."""
    drive = (x + c * v) / (tau_m + v**2)
    bent = exp(-drive) + abs(v) + max(v, w, 0.5) - min(v, w)
    n = where((v > 0.3) & (w < 2) | ~(q <= 1), 0.7 * n + v, x / 3)
    w = beta * w - drive + v**4 / (bent + v**4) + (drive * drive + 1) ** 0.5 + 0.1 * (q + 2) ** -2 if hard else w
    v = 0.3 * v + 0.2 * bent - k2 * (v > w) * v - s * c
    return v, w, 1 + v * v, n, spike(v - 0.5, 0.5) * v + spike(n - 1, 0.5)


@neuron(positive=("theta",))
def SameStep(v, last, s, x, *, theta=0.8):
    v = v * 0.9 + x
    fired = spike(v - theta, theta)
    return v - theta * fired, fired, fired


LEAKY = [
    LIF(beta=0.9),
    LIF(beta=0.9, reset="zero", detach_reset=False, threshold=0.7),
    CubaLIF(alpha=0.5, beta=0.8, reset="zero_all"),
    ALIF(beta=0.9, rho=0.8, kappa=0.3, detach_reset=False),
    LI(beta=0.8, alpha=0.2),
]
KNOWN = [kind() for kind in LIBRARY]
OWN = [AdLIF(beta=0.9, rho=0.95), Winding(beta=0.7), Winding(beta=0.7, hard=False), SameStep()]


def test_the_text_of_lif():
    text = str(LIF(beta=0.9).equations())

    assert (
        text
        == """\
step
    v[t] = beta * v[t-1] + x[t] - theta * detach(s[t-1])
    s[t] = H(v[t] - theta)
adjoint
    d_s[t] = e[t]
    d_v[t] = beta * d_v[t+1] + sigma'(v[t] - theta) * d_s[t]
    d_x[t] = d_v[t]
    d_beta = sum_t v[t-1] * d_v[t]
    d_theta = sum_t (-s[t-1] * d_v[t] - sigma'(v[t] - theta) * d_s[t])
H(u): 1 where u > 0, else 0.
d_: the gradient of the loss at a value; e[t]: what of it arrives at s[t] from behind.
sigma'(u): the slope of the surrogate, counted per unit of theta."""
    )


def test_the_text_of_alif():
    equations = ALIF(beta=0.9, rho=0.8, kappa=0.3).equations()

    assert equations.step == [
        "a[t] = rho * a[t-1] + s[t-1]",
        "v[t] = beta * v[t-1] + x[t] - theta * detach(s[t-1])",
        "s[t] = H(v[t] - theta - kappa * a[t])",
    ]
    assert equations.adjoint == [
        "d_s[t] = e[t] + d_a[t+1]",
        "d_v[t] = beta * d_v[t+1] + sigma'(v[t] - theta - kappa * a[t]) * d_s[t]",
        "d_a[t] = rho * d_a[t+1] - kappa * sigma'(v[t] - theta - kappa * a[t]) * d_s[t]",
        "d_x[t] = d_v[t]",
        "d_beta = sum_t v[t-1] * d_v[t]",
        "d_rho = sum_t a[t-1] * d_a[t]",
        "d_kappa = -sum_t a[t] * sigma'(v[t] - theta - kappa * a[t]) * d_s[t]",
        "d_theta = sum_t (-s[t-1] * d_v[t] - sigma'(v[t] - theta - kappa * a[t]) * d_s[t])",
    ]


def test_the_text_of_adlif_has_the_names_of_its_step():
    equations = AdLIF(beta=0.9).equations()

    assert equations.step == [
        "w[t] = rho * w[t-1] + a * v[t-1] + b * s[t-1]",
        "v[t] = beta * v[t-1] * (1 - detach(s[t-1])) + x[t] - w[t]",
        "s[t] = H(v[t] - threshold)",
    ]
    assert equations.adjoint == [
        "d_s[t] = e[t] + b * d_w[t+1]",
        "d_v[t] = a * d_w[t+1] + beta * (1 - s[t]) * d_v[t+1] + sigma'(v[t] - threshold) * d_s[t]",
        "d_w[t] = rho * d_w[t+1] - d_v[t]",
        "d_x[t] = d_v[t]",
        "d_beta = sum_t v[t-1] * (1 - s[t-1]) * d_v[t]",
        "d_rho = sum_t w[t-1] * d_w[t]",
        "d_a = sum_t v[t-1] * d_w[t]",
        "d_b = sum_t s[t-1] * d_w[t]",
        "d_threshold = -sum_t sigma'(v[t] - threshold) * d_s[t]",
    ]


def test_a_value_that_is_used_twice_is_a_line_under_its_own_name():
    step = Winding(beta=0.7).equations().step

    assert step[0] == "drive[t] = (x[t] + c * v[t-1]) / (tau_m + v[t-1]**2)"
    assert step[1] == "bent[t] = exp(-drive[t]) + abs(v[t-1]) + max(max(v[t-1], w[t-1]), 0.5) - min(v[t-1], w[t-1])"


def test_a_readout_takes_the_error_at_its_potential():
    assert LI(beta=0.9).equations().adjoint == [
        "d_v[t] = e[t] + beta * d_v[t+1]", "d_x[t] = d_v[t]", "d_beta = sum_t v[t-1] * d_v[t]"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [*LEAKY, *OWN, *KNOWN], ids=repr)
def test_the_lines_compute_the_spikes_and_gradients_of_a_run(kind):
    generator = np.random.default_rng(3)
    x, error = generator.normal(0.4, 0.8, STEPS), generator.normal(0, 1, STEPS)
    surrogate, equations = FastSigmoid(slope=3.0), kind.equations()
    inputs = torch.tensor(x)[:, None, None].requires_grad_()
    values = {name: torch.tensor(float(value), dtype=torch.float64, requires_grad=True)
              for name, value in numbers_of(kind).items()}  # fmt: skip
    with use_backend("reference"):
        out, _ = simulate(kind, inputs, None, surrogate, parameters=values)
    (out.flatten() * torch.tensor(error)).sum().backward()

    found = run_lines(equations, x, error, numbers_of(kind), surrogate)

    given_out = found["s" if equations.equation.spiking else equations.equation.potential]
    assert [given_out[t] for t in range(STEPS)] == pytest.approx(out.flatten().tolist(), abs=1e-12)
    assert [found["d_x"][t] for t in range(STEPS)] == pytest.approx(inputs.grad.flatten().tolist(), rel=1e-9, abs=1e-12)
    for name, value in values.items():
        gradient = 0.0 if value.grad is None else float(value.grad)
        assert found[f"d_{name}"] == pytest.approx(gradient, rel=1e-9, abs=1e-12), name


class No:
    """Turns what stands behind it into its opposite, as `~` does a comparison."""

    def __matmul__(self, other: bool) -> bool:
        return not other


def run_lines(equations, x, error, numbers, surrogate):
    """What the lines of the text say, step for step."""
    scale = set(scale_numbers(equations, numbers))
    assert len(scale) <= 1
    slope_at, theta = torch_slope(surrogate), torch.tensor([*scale, 1.0][0], dtype=torch.float64)
    names = {
        "H": lambda u: float(u > 0), "exp": math.exp, "sqrt": math.sqrt, "No": No, "abs": abs, "min": min, "max": max,
        "sign": lambda u: (u > 0) - (u < 0), "detach": lambda u: u,
        "where": lambda condition, a, b: a if condition else b,
        "slope": lambda u: float(slope_at(torch.tensor(u, dtype=torch.float64), theta)),
        **numbers,
    }  # fmt: skip
    found = defaultdict(lambda: defaultdict(float))
    found["x"].update(enumerate(x.tolist()))
    found["e"].update(enumerate(error.tolist()))

    def run(line, t):
        left, right = line.replace("sigma'", "slope").replace("~", "No() @ ").split(" = ", 1)
        summed, sign = "sum_t " in right, -1 if right.startswith("-sum_t") else 1
        scope = {**names, "t": t, **{name: found[name] for name in re.findall(r"(\w+)\[t", line)}}
        value = eval(right.split("sum_t ")[-1], scope)
        if summed:
            found[left] = sign * value + found.get(left, 0.0)
        elif "[" in left:
            found[left.partition("[")[0]][t] = value
        else:
            found[left] = value

    for t in range(STEPS):
        for line in equations.step:
            run(line, t)
    found["x"][STEPS] = 0.0
    for t in reversed(range(STEPS)):
        for line in equations.adjoint:
            run(line, t)
    return found


def scale_numbers(equations, numbers) -> Iterator[float]:
    for term in scales(equations.equation):
        yield eval(write(term, TEXT), dict(numbers))


@pytest.mark.parametrize("kind", [*LEAKY, *OWN, *KNOWN], ids=repr)
def test_formulas_are_well_formed_and_say_no_name_twice(kind):
    equations = kind.equations()

    step, adjoint = equations.mathml()
    latex = equations._repr_latex_()

    assert len(step) == len(equations.step) and len(adjoint) == len(equations.adjoint)
    for left, right in [*step, *adjoint]:
        assert xml.fromstring(left).tag == "math" and xml.fromstring(right)[0].text == "="
    assert latex.count("{") == latex.count("}") and latex.count(r"\left") == latex.count(r"\right")
    assert latex.count("&=") == len(step) + len(adjoint)


def test_formulas_of_lif_in_latex():
    latex = LIF(beta=0.9).equations()._repr_latex_()

    for part in (
        r"v[t] &= \beta\,v[t-1] + x[t] - \theta\,\overline{s[t-1]}",
        r"s[t] &= H\left(v[t] - \theta\right)",
        r"\delta_{v}[t] &= \beta\,\delta_{v}[t+1] + \sigma'\left(v[t] - \theta\right)\,\delta_{s}[t]",
        r"\frac{\partial L}{\partial \beta} &= \sum_t v[t-1]\,\delta_{v}[t]",
    ):
        assert part in latex


def test_a_name_of_several_letters_is_one_word_with_what_is_below_it():
    latex = Winding(beta=0.7).equations()._repr_latex_()

    assert r"\tau_{\mathrm{m}}" in latex and r"\mathrm{drive}[t]" in latex and r"k_{\mathrm{2}}" in latex
    assert r"\frac{x[t] + c\,v[t-1]}{\tau_{\mathrm{m}} + v[t-1]^{2}}" in latex


def test_help_shows_the_equation_and_a_short_signature():
    assert str(inspect.signature(AdLIF)) == "(*, beta, rho=Tau(ms=100), a=0.1, b=0.2, threshold=1.0)"
    assert "w[t] = rho * w[t-1] + a * v[t-1] + b * s[t-1]" in inspect.getdoc(AdLIF)
    assert inspect.getdoc(Winding).startswith("All that a step may hold.\n\nWith hard=True:\n\nstep\n")
    assert "a[t] = rho * a[t-1] + s[t-1]" in inspect.getdoc(ALIF)


def test_time_constants_do_not_stand_in_the_way():
    assert str(AdLIF(beta=Tau(20)).equations()) == str(at_step(AdLIF(beta=Tau(20)), step_ms=1).equations())


def test_under_a_profiler_such_lines_have_a_number():
    import cProfile

    measured = cProfile.Profile()
    measured.enable()
    try:
        kind = neuron(Winding.kind.step)
    finally:
        measured.disable()

    assert kind(beta=0.7).equations().step[0].startswith("h1[t] = ")
