"""The derived step and adjoint of the leaky family: those written by hand, bit for bit, and what autograd makes."""

import re
from itertools import product

import numpy as np
import pytest
import torch
import witness
from catalogue import EVERY_NEURON, NEURON_COUNT, NEURONS, quick_first
from hypothesis import given
from hypothesis import strategies as st

from snn_bp import ALIF, IF, LI, LIF, CubaLIF, Surrogate, rest, simulate
from snn_bp.kernels.bind import defined, slope_texts
from snn_bp.kernels.reference import torch_adjoint, torch_advance, torch_slope
from snn_bp.neurons import RESETS, is_spiking, numbers_of
from snn_bp.surrogates import Gaussian

FAMILY = (
    *EVERY_NEURON,
    *(IF(threshold=1.25, reset=r, detach_reset=d) for r, d in product(RESETS, (True, False))),
    LI(beta=0.9),
    LI(beta=0.9, alpha=0.5),
)
VALUES = 3_000  # random ones for each neuron, type and set of wanted parameters
EXACT = Surrogate("Triangular", 0.8, per="potential")  # no quotient: compilers may turn one into a product

real = st.floats(-3, 3)
share = st.floats(0, 1)


# Hand-written and derived: the same bits


def numpy_names(dtype, surrogate):
    """What the free names of the texts and of the witness mean to NumPy."""
    names = {
        "real": dtype, "abs": np.abs, "absolute": np.abs, "where": np.where, "exp": np.exp, "detach": lambda s: s,
        "either": lambda condition, yes, no, like: np.where(condition, yes, no),
        "heaviside": lambda u, scale: (u > 0).astype(dtype),
    }  # fmt: skip
    for name, text in slope_texts(surrogate.slope_of).items():
        names[name] = defined(text, name, names)
    return names


def torch_names(dtype, surrogate):
    slope_at = torch_slope(surrogate)
    names = {"real": float, "detach": lambda s: s, "heaviside": lambda u, scale: (u > 0).to(u.dtype)}
    return {**names, "where": torch.where, "slope_at": lambda u, theta, slope: slope_at(u, theta)}


def drawn(neuron, dtype, seed=0):
    """Random states, inputs, parameters and gradients, as arrays; among them zeros, spikes and large numbers."""
    numbers = np.random.default_rng(seed)
    equation = neuron.equation

    def number():
        wide = numbers.standard_normal(VALUES) * 10.0 ** numbers.integers(-3, 4, VALUES)
        return np.where(numbers.random(VALUES) < 0.05, 0.0, wide).astype(dtype)

    before = {name: number() for name in equation.full}
    if equation.spiking:
        before["s"] = (numbers.random(VALUES) < 0.4).astype(dtype)
    parameters = {name: numbers.random(VALUES).astype(dtype) for name in equation.parameters}
    if "theta" in parameters:
        parameters["theta"] += dtype(0.25)
    return before, number(), parameters, {name: number() for name in equation.full}


def by_hand(neuron, names, before, x, parameters, gradients, slope):
    """What the witness gives: the state after a step, and the gradient at everything before it, by name."""
    zero = x * 0
    full = witness.state_of(neuron, before, zero, x)
    known = dict(zip(witness.SYMBOLS, witness.values_of(neuron), strict=True))
    values = [parameters.get(name, zero + known[name]) for name in witness.SYMBOLS]
    after = witness.bound(witness.advance, neuron, **names)(*full, x, *values)
    pulled = [gradients.get(name, zero) for name in witness.STATE]
    found = witness.bound(witness.advance_vjp, neuron, **names)(*pulled, *full, *after[:3], *values, slope)
    return (
        dict(zip(witness.STATE, after, strict=True)),
        dict(zip((*witness.STATE, "x", *witness.SYMBOLS), found, strict=True)),
    )


def assert_equal_bits(name, got, wanted):
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.dtype == wanted.dtype or not got.any(), name
    assert np.array_equal(*np.broadcast_arrays(got, wanted)), f"{name}: {np.nanmax(np.abs(got - wanted))}"


@pytest.mark.parametrize("dtype", (np.float32, np.float64), ids=("float32", "float64"))
@pytest.mark.parametrize("neuron", FAMILY, ids=repr)
def test_the_derived_step_and_adjoint_are_those_written_by_hand(neuron, dtype):
    equation, slope = neuron.equation, dtype(1.7)
    before, x, parameters, gradients = drawn(neuron, dtype)
    names = numpy_names(dtype, Surrogate("ATan", 1.7))

    wanted, wanted_gradients = by_hand(neuron, names, before, x, parameters, gradients, slope)
    step = defined(equation.step_text, "advance", names)
    after = step(*before.values(), x, *parameters.values())
    for name, part in zip(equation.full, after, strict=True):
        assert_equal_bits(name, part, wanted[name])

    states = after[: len(equation.states)]
    if equation.refires:
        fired = defined(equation.fired_text, "fired", names)
        assert_equal_bits("fired", fired(*states, *parameters.values()), wanted["s"])
    for learned in (equation.parameters, equation.parameters[:1], ()):
        adjoint = defined(equation.adjoint_text(learned), "adjoint", names)
        found = adjoint(*gradients.values(), *before.values(), x, *states, *parameters.values(), slope)
        for name, part in zip((*equation.full, "x", *equation.parameters), found, strict=True):
            asked = name in learned or name not in equation.parameters
            assert_equal_bits(f"gradient of {name}", part, wanted_gradients[name] if asked else 0 * x)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("neuron", FAMILY, ids=repr)
def test_the_torch_reference_is_the_witness_on_tensors(neuron, dtype):
    equation, surrogate = neuron.equation, Surrogate("FastSigmoid", 1.7)
    as_tensor = lambda part: torch.from_numpy(part)  # noqa: E731
    kind = np.float32 if dtype == torch.float32 else np.float64
    before, x, parameters, gradients = drawn(neuron, kind, seed=1)
    before, parameters, gradients = (
        {name: as_tensor(part) for name, part in parts.items()} for parts in (before, parameters, gradients)
    )
    x = as_tensor(x)

    wanted, wanted_gradients = by_hand(
        neuron, torch_names(dtype, surrogate), before, x, parameters, gradients, surrogate.slope
    )
    after = torch_advance(equation, surrogate)(*before.values(), x, *parameters.values())
    states = after[: len(equation.states)]
    found = torch_adjoint(equation, surrogate, equation.parameters)(
        *gradients.values(), *before.values(), x, *states, *parameters.values(), surrogate.slope
    )

    for name, part in zip(equation.full, after, strict=True):
        assert_equal_bits(name, part, wanted[name])
    for name, part in zip((*equation.full, "x", *equation.parameters), found, strict=True):
        assert_equal_bits(f"gradient of {name}", part, wanted_gradients[name])


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("neuron", quick_first(FAMILY, NEURONS[2], NEURONS[9]), ids=repr)
def test_the_compiled_kernels_are_loops_over_the_witness(neuron, dtype, noise):
    kind = np.float32 if dtype == torch.float32 else np.float64
    x = noise(19, 1, NEURON_COUNT, dtype=dtype).requires_grad_()
    values = {
        name: torch.as_tensor(value, dtype=dtype).expand(NEURON_COUNT).clone().requires_grad_()
        for name, value in numbers_of(neuron).items()
    }
    pull_out, pull_v = (noise(*x.shape, seed=seed, dtype=dtype) for seed in (1, 2))

    out, last, v = simulate(
        neuron, x, rest(neuron, (1, NEURON_COUNT), like=x), EXACT, potentials=True, parameters=values
    )
    pulled = (pull_out * out).sum() + (pull_v * v).sum()
    gradients = torch.autograd.grad(pulled, [x, *values.values()], materialize_grads=True)

    names, slope = numpy_names(kind, EXACT), kind(EXACT.slope)
    step, adjoint = (witness.bound(each, neuron, **names) for each in (witness.advance, witness.advance_vjp))
    zero = np.zeros((1, NEURON_COUNT), kind)
    known = dict(zip(witness.SYMBOLS, witness.values_of(neuron), strict=True))
    numbers = [
        values[name].detach().numpy() if name in values else zero + kind(known[name]) for name in witness.SYMBOLS
    ]
    rows, given = [(zero,) * 4], x.detach().numpy()
    for x_t in given:
        rows.append(step(*rows[-1], x_t, *numbers))
    assert_equal_bits("out", out.detach(), np.stack([row[3 if is_spiking(neuron) else 2] for row in rows[1:]]))
    assert_equal_bits("potentials", v.detach(), np.stack([row[2] for row in rows[1:]]))
    for name in neuron.equation.full:
        assert_equal_bits(f"last {name}", getattr(last, name).detach(), rows[-1][witness.STATE.index(name)])

    back, sums, gx = [zero] * 4, [zero] * 5, np.empty_like(given)
    for t in reversed(range(len(given))):
        gi, ga, gv, gs = back
        if is_spiking(neuron):
            gs, gv = gs + pull_out[t].numpy(), gv + pull_v[t].numpy()
        else:
            gv = gv + (pull_out[t] + pull_v[t]).numpy()  # one tensor is both
        *back, gx[t], g_0, g_1, g_2, g_3, g_4 = adjoint(gi, ga, gv, gs, *rows[t], *rows[t + 1][:3], *numbers, slope)
        sums = [total + part for total, part in zip(sums, (g_0, g_1, g_2, g_3, g_4), strict=True)]
    assert_equal_bits("gradient of x", gradients[0], gx)
    for name, got in zip(values, gradients[1:], strict=True):
        assert_equal_bits(f"gradient of {name}", got, sums[witness.SYMBOLS.index(name)][0])


# Derived and autograd


@pytest.mark.parametrize("neuron", FAMILY, ids=repr)
@given(data=st.data())
def test_the_adjoint_is_what_autograd_makes_of_the_step(neuron, data):
    equation, surrogate = neuron.equation, Gaussian(1.5)
    ranges = {"s": st.sampled_from((0.0, 1.0)), "theta": st.floats(0.25, 2), "kappa": real}
    inputs = (*equation.full, "x", *equation.parameters)
    values = {
        name: torch.tensor(
            data.draw(ranges.get(name, share if name in equation.parameters else real), label=name),
            dtype=torch.float64, requires_grad=True,
        )
        for name in inputs
    }  # fmt: skip
    cotangents = [torch.tensor(data.draw(real, label=f"g_{name}"), dtype=torch.float64) for name in equation.full]

    after = torch_advance(equation, surrogate)(*values.values())
    pulled = sum((g * out for g, out in zip(cotangents, after, strict=True)), torch.zeros((), dtype=torch.float64))
    by_autograd = torch.autograd.grad(pulled, list(values.values()), allow_unused=True)
    states, parameters = after[: len(equation.states)], list(values.values())[len(equation.full) + 1 :]
    derived = torch_adjoint(equation, surrogate, equation.parameters)(
        *cotangents, *(values[name] for name in (*equation.full, "x")), *states, *parameters, surrogate.slope
    )

    for name, got, want in zip(inputs, derived, by_autograd, strict=True):
        want = torch.zeros(()) if want is None else want
        # a few dozen operations on values below 100, each rounded to 2.2e-16 of its size
        assert float(torch.as_tensor(got).detach()) == pytest.approx(float(want), rel=1e-12, abs=1e-12), name


@given(parts=st.tuples(real, real, st.sampled_from((0.0, 1.0)), real, share, st.floats(0.25, 2)))
def test_a_step_without_a_part_is_a_step_with_its_decay_at_zero(parts):
    a, v, s, x, beta, theta = (torch.tensor(value, dtype=torch.float64) for value in parts)
    zero = torch.zeros((), dtype=torch.float64)
    lif, alif = LIF(beta=0.5, reset="zero").equation, ALIF(beta=0.5, rho=0, kappa=0, alpha=0.5, reset="zero").equation
    whole = {"i": zero, "a": a, "v": v, "s": s, "alpha": zero, "beta": beta, "rho": zero, "kappa": zero, "theta": theta}

    lean = torch_advance(lif, Gaussian())(v, s, x, beta, theta)
    full = torch_advance(alif, Gaussian())(
        *(whole[name] for name in alif.full), x, *(whole[name] for name in alif.parameters)
    )

    assert lean == full[2:]


def test_the_texts_say_what_a_neuron_does_in_lines_that_can_be_read():
    equation = LIF(beta=0.9, reset="zero").equation
    text = f"{equation.step_text}\n\n{equation.adjoint_text(equation.parameters)}"
    text = re.sub(r"\b[tg]\d+_", "_", text)  # what has no name in the step

    assert (
        text
        == """\
def advance(v, s, x, beta, theta):
    _ = beta * v * (real(1.0) - detach(s)) + x
    return (_, heaviside(_ - theta, theta))


def adjoint(g_v, g_s, v, s, x, after_v, beta, theta, slope):
    _ = g_s * slope_at(after_v - theta, theta, slope)
    _ = g_v + _
    _ = _ * (real(1.0) - detach(s))
    return (_ * beta, real(0.0), _, _ * v, -_)
"""
    )


@pytest.mark.parametrize(
    "neuron, unlearned, learned",
    (
        (LIF(beta=0.9), ("v",), ("v",)),  # the spike follows from the membrane
        (CubaLIF(alpha=0.5, beta=0.9), ("v",), ("i", "v")),
        (CubaLIF(alpha=0.5, beta=0.9, reset="zero_all", detach_reset=False), ("i", "v"), ("i", "v")),
        (ALIF(beta=0.9, rho=0.5, kappa=0.2), ("a", "v"), ("a", "v")),
        (LI(beta=0.9), (), ("v",)),
        (LI(beta=0.9, alpha=0.5), (), ("i", "v")),
    ),
    ids=str,
)
def test_only_what_the_adjoint_reads_is_kept(neuron, unlearned, learned):
    equation = neuron.equation

    assert equation.saved(()) == unlearned
    assert equation.saved(equation.parameters) == learned


def test_one_equation_stands_for_all_neurons_that_differ_in_numbers_alone():
    one, other = LIF(beta=0.9, reset="zero"), LIF(beta=(0.1, 0.2), threshold=3.0, reset="zero")

    assert one.equation is other.equation
    assert one.equation.key != LIF(beta=0.9, reset="subtract").equation.key
