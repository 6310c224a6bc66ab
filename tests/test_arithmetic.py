"""What a step may be written in: the rest is refused with its line; what it computes, and its adjoint, are right."""

import math
import random
from itertools import count, pairwise

import numpy as np
import pytest
import torch
from catalogue import quick_first
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from snn_bp import Gaussian, SnnError, simulate, use_backend
from snn_bp.equations.arithmetic import IN_A_STEP
from snn_bp.kernels.reference import torch_adjoint, torch_advance
from snn_bp.neurons import neuron

NUMBER = count()  # of files, each with a name of its own: Python remembers their lines


@pytest.fixture
def written(tmp_path):
    """A kind of neuron whose step is the given text in a file, as users write it."""

    def make(text, **asked):
        path = tmp_path / f"step_{next(NUMBER)}.py"
        path.write_text(text, encoding="utf-8")
        scope = {"math": math, "np": np, "torch": torch, "random": random, **IN_A_STEP}
        exec(compile(text, str(path), "exec"), scope)
        return neuron(**asked)(scope["Own"])

    return make


def with_line(line):
    return f"def Own(v, s, x, *, beta=0.5, threshold=1.0):\n    {line}\n    return v, spike(v - threshold, threshold)\n"


# Refused, with the line


@pytest.mark.parametrize(
    "line, found, instead",
    (
        ("v = v if x > 0 else 0.0", "`if`", "where(condition, a, b)"),
        ("v = v and x", "`and`", "& | ~"),
        ("v = x or v", "`or`", "& | ~"),
        ("v = 1.0 if not v else 0.0", "`not`", "& | ~"),
        ("v = where(0 < v < 1, v, x)", "a chain of comparisons".removeprefix("a "), "& | ~"),
        ("assert v > 0", "`if`", "where(condition, a, b)"),
        ("v = 1.0 if v in (0, 1) else v", "`if`", "where(condition, a, b)"),
        ("v = x if any([v > 0, x > 0]) else v", "`or`", "& | ~"),
        ("v = max([v, x])", "`if`", "where(condition, a, b)"),
        ("v = math.exp(v)", "math.exp", "exp"),
        ("v = math.sqrt(v)", "a number", "**"),
        ("v = float(v)", "a number", "where"),
        ("v = round(v)", "a number", "where"),
        ("v = math.floor(v)", "a number", "where"),
        ("v = np.exp(v)", "NumPy's exp", "exp"),
        ("v = np.maximum(v, x)", "NumPy's maximum", "max"),
        ("v = np.where(v > 0, v, x)", "NumPy", "where"),
        ("v = np.clip(v, 0, 1)", "clip", "min, max"),
        ("v = np.asarray(v)", "NumPy", "where"),
        ("v = torch.exp(v)", "torch's exp", "exp"),
        ("v = torch.where(v > 0, v, x)", "torch's where", "where"),
        ("v = torch.ones(3) * v", "torch's", "where"),
        ("v = v * torch.ones(3)", "tensor([1., 1., 1.])", "a number"),
        ("v = v.clamp(0, 1)", "`.clamp`", "min, max"),
        ("v = v.detach()", "`.detach`", "detach"),
        ("v = v % 1.0", "`%`", "where(value >= period"),
        ("v = 7 % v", "`%`", "where(value >= period"),
        ("v = divmod(v, 2)[1]", "`%`", "where(value >= period"),
        ("v = v // 1.0", "`//`", "/"),
        ("v = v ** 1.5", "power of 1.5", "exp"),
        ("v = v ** 17", "power of 17", "up to 16"),
        ("v = v ** 0", "power of 0", "up to 16"),
        ("v = v ** math.inf", "power of inf", "up to 16"),
        ("v = v ** x", "power that is no plain number", "exp"),
        ("v = 2 ** v", "2 to the power", "exp(value * c)"),
        ("v = v @ x", "`@`", "layer of weights"),
        ("v = v[0]", "an index", "one name for each number"),
        ("for part in v: x = x + part", "loop", "one name for each number"),
        ("v = sum(v)", "loop", "one name for each number"),
        ("v = v * len(x)", "length", "one name for each number"),
        ("v = v(x)", "called", "exp"),
        ("v = v ^ 2", "`^`", "**"),
        ("v = 1 << v", "`<<`", "**"),
        ("v = where(v, x, 0)", "condition that is a number", "a comparison"),
        ("v = where((v > 0) & x, x, 0)", "condition that is a number", "a comparison"),
        ("v = where(True & v, x, 0)", "condition that is a number", "a comparison"),
        ("v = where(~v, x, 0)", "condition that is a number", "a comparison"),
        ("v = v + '1'", "'1'", "a number"),
        ("v = v + None", "None", "a number"),
        ("v = v + [1.0]", "[1.0]", "a number"),
        ("v = v + 1j", "1j", "a number"),
        ("v = v * math.inf", "inf", "a finite number"),
        ("v = v + math.nan", "nan", "a finite number"),
    ),
    ids=lambda each: each if "=" in each or ":" in each or " " in each else "-",
)
def test_what_the_arithmetic_does_not_know_is_refused_with_its_line_and_a_way_out(line, found, instead, written):
    with pytest.raises(SnnError) as error:
        written(with_line(line))

    said = str(error.value)
    assert said.startswith(f"Own, line 2 (`{line}`): a step has no ")
    problem, _, advice = said.partition(" Write ")
    assert found.removeprefix("a ").removeprefix("an ") in problem and instead in advice
    assert "\n" not in said and "Symbol" not in said


@pytest.mark.parametrize(
    "line, words",
    (
        ("v = undefined_name + v", "NameError: name 'undefined_name' is not defined"),
        ("v = 1 / 0 * v", "ZeroDivisionError"),
        ("v = pow(v, 2, 3)", "TypeError"),
        ("v.rest = 0", "AttributeError"),
    ),
)
def test_what_python_itself_refuses_comes_with_the_line_too(line, words, written):
    with pytest.raises(SnnError) as error:
        written(with_line(line))

    assert str(error.value).startswith(f"Own, line 2 (`{line}`): {words}")


def test_a_fault_in_a_function_that_a_step_calls_names_the_line_of_the_step(written):
    text = "def bent(v):\n    return math.tanh(v)\n\n\ndef Own(v, x):\n    v = x + bent(v)\n    return v, v\n"

    with pytest.raises(
        SnnError, match=r"Own, line 6 \(`v = x \+ bent\(v\)`\): a step has no function that needs a num"
    ):
        written(text)


@pytest.mark.parametrize("line", ("v = v + random.random()", "v = v + torch.rand(()).item()", "v = v + next(NUMBER)"))
def test_a_step_that_draws_or_counts_is_refused(line, written):
    text = with_line(line).replace("    return", "    v = beta * v + x\n    return")
    if "NUMBER" in line:
        text = f"from itertools import count\nNUMBER = count()\n{text}"

    with pytest.raises(SnnError, match=r"called twice, its step does not do the same.*no random numbers"):
        written(text)


# Refused, for its form


@pytest.mark.parametrize(
    "text, words",
    (
        ("def Own(v, s, x, *, beta=0.5): pass", "its step returns nothing"),
        ("def Own(v, s, x): return [v, spike(v - 1)]", "returns a list"),
        ("def Own(v, s, x): return spike(v + x - 1)", r"returns 1 value, and has 1 state \(v\)"),
        ("def Own(v, w, s, x): return v + x, spike(v - 1)", r"returns 2 values, and has 2 states \(v, w\)"),
        ("def Own(v, s, x): return v, w, spike(v - 1)", "NameError"),
        ("def Own(v, x): return v + x, 2 * v", r"one of its new states where nothing fires.*return ..., v, v"),
        ("def Own(v, s, x): return v, v", r"takes `s` and returns no spike"),
        ("def Own(v, x): return v + x, spike(v - 1)", r"returns a spike and does not take `s`"),
        ("def Own(v, s, x, *inputs): return v, spike(v)", r"'\*inputs' is neither a state nor a parameter"),
        ("def Own(v, s, x, **rest): return v, spike(v)", r"'\*\*rest' is neither"),
        ("def Own(v, s, x, beta=0.5): return v, spike(v)", r"'beta=0.5' is neither.*a star, parameters"),
        ("def Own(v, s): return v, spike(v)", r"Own\(v, s\): a step takes its states"),
        ("def Own(x): return x, x", r"Own\(x\): a step takes its states"),
        ("def Own(s, x): return spike(x)", r"Own\(s, x\): a step takes its states"),
        ("def Own(x, v, s): return v, spike(v)", r"Own\(x, v, s\): a step takes its states"),
        ("def Own(s, v, x): return v, spike(v)", r"Own\(s, v, x\): a step takes its states"),
        ("def Own(*, beta=0.5): return beta", r"Own\(\): a step takes its states"),
        ("Own = 3", "it stands above a function, found 3"),
        ("class Own: pass", "it stands above a function"),
    ),
)
def test_a_step_of_another_form_is_refused(text, words, written):
    with pytest.raises(SnnError, match=words) as error:
        written(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    ("real", "slope", "where", "exp", "either", "heaviside", "slope_at", "sqrt", "absolute", "opposite", "detach",
     "spike", "g_v", "after_v", "t3_", "g12_", "_v", "kind", "equation", "equations", "v_F"),
)  # fmt: skip
@pytest.mark.parametrize("place", ("state", "parameter"))
def test_a_name_that_means_something_else_is_refused(name, place, written):
    text = f"def Own(v, {name}, s, x):" if place == "state" else f"def Own(v, s, x, *, {name}=0.5):"
    given = f"v + x, {name}" if place == "state" else "v + x"

    with pytest.raises(SnnError, match=f"Own: '{name}' is no name for a state or parameter"):
        written(f"{text}\n    return {given}, {given[:1]} > 0\n")


@pytest.mark.parametrize(
    "asked, words",
    (
        ({"decays": ("betta",)}, r"Own: 'betta' is no parameter of its step. Did you mean 'beta'"),
        ({"positive": ("v",)}, "Own: 'v' is no parameter"),
        ({"potential": "w"}, "potential='w' is no state"),
        ({"decays": ("beta",), "positive": ("beta",)}, "named twice"),
    ),
)
def test_what_is_said_of_parameters_that_are_not_there_is_refused(asked, words, written):
    with pytest.raises(SnnError, match=words):
        written(with_line("v = beta * v + x"), **asked)


# Known


@pytest.mark.parametrize(
    "expression, right",
    (
        ("v + x", lambda v, x: v + x),
        ("1 - v", lambda v, x: 1 - v),
        ("-v + +x", lambda v, x: -v + x),
        ("2 / (x * x + 1)", lambda v, x: 2 / (x * x + 1)),
        ("abs(v) - abs(x)", lambda v, x: v.abs() - x.abs()),
        ("v ** 2", lambda v, x: v * v),
        ("v ** 3", lambda v, x: v * (v * v)),
        ("v ** -1", lambda v, x: 1 / v),
        ("(v * v) ** 0.5", lambda v, x: (v * v).sqrt()),
        ("(v * v) ** -0.5", lambda v, x: 1 / (v * v).sqrt()),
        ("np.float64(2) * v", lambda v, x: 2 * v),
        ("v + True", lambda v, x: v + 1),
        ("v - torch.tensor(0.5)", lambda v, x: v - 0.5),
        ("min(v, x)", torch.minimum),
        ("max(v, 0.25, x)", lambda v, x: torch.maximum(v.clamp(min=0.25), x)),
        ("where(v > x, v, x)", torch.maximum),
        ("where(True, v, x)", lambda v, x: v),
        ("(v > 0) + (x >= 0)", lambda v, x: (v > 0).double() + (x >= 0).double()),
        ("where((v > 0) & ~(x > 0) | (v == x), 1, 2)", lambda v, x: 2 - ((v > 0) & ~(x > 0) | (v == x)).double()),
        ("detach(v) + 0 * x", lambda v, x: v),
        ("sum([v, x, 1])", lambda v, x: v + x + 1),
        ("exp(-1) * v", lambda v, x: math.exp(-1) * v),
    ),
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_known_computes_what_python_means_by_it(expression, right, written, noise):
    made = written(f"def Own(v, x):\n    v = {expression}\n    return v, v\n")
    v, x = (noise(997, seed=seed, dtype=torch.float64) for seed in (1, 2))

    (found,) = torch_advance(made().equation, Gaussian())(v, x)

    torch.testing.assert_close(found, right(v, x) + 0 * v, rtol=1e-15, atol=0)


def test_names_of_a_step_mean_its_arithmetic_whatever_the_file_calls_so(written):
    text = "from math import exp\nspike = None\n\n\ndef Own(v, s, x):\n    v = exp(v) + x\n    return v, spike(v)\n"

    assert "exp(v)" in written(text)().equation.step_text


# The adjoint of any expression

LEAVES = ("v", "w", "s", "x", "a", "b", "0.75 * x", "a - 1.5")
BINARY = ("{} + {}", "{} - {}", "{} * {}", "{} / (1.5 + {} ** 2)", "min({}, {})", "max({}, {})")
UNARY = (
    "-{}", "abs({})", "exp(min({}, 0.5))", "exp(-abs({}))", "{} ** 2", "{} ** 3", "(1 + {} ** 2) ** 0.5",
    "(1 + {} ** 2) ** -0.5", "(2 + {} ** 2) ** -1", "detach({})", "spike({} - 0.25, 0.5)",
)  # fmt: skip
CHOICES = (
    "where({0} + v > {1}, {2}, {3})",
    "where(({0} <= {1} + x) | ~({1} - x < {3}), {2}, {3})",
    "where(({0} + w > 0) & ({1} - v > 0), {2}, {3})",
)


def expression(choice, leaves):
    """A random expression that holds so many names and numbers."""
    if leaves == 1:
        form, parts = choice.choice(("{}", *UNARY)), 1
    elif leaves < 4 or choice.random() < 0.7:
        form, parts = choice.choice(BINARY), 2
    else:
        form, parts = choice.choice(CHOICES), 4
    if parts == 1:
        return f"({form.format(choice.choice(LEAVES))})"
    cuts = [0, *sorted(choice.sample(range(1, leaves), parts - 1)), leaves]
    inside = [expression(choice, high - low) for low, high in pairwise(cuts)]
    made = f"({form.format(*inside)})"
    return f"({choice.choice(UNARY).format(made)})" if choice.random() < 0.3 else made


@pytest.mark.parametrize("part", quick_first(range(3), 0))
@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), learned=st.sets(st.sampled_from(("a", "b"))))
def test_the_derived_adjoint_of_any_expression_is_what_autograd_gives(part, seed, learned):
    choice = random.Random(seed + (part << 32))
    first, second, distance = (expression(choice, choice.randint(1, 9)) for _ in range(3))
    text = f"def Own(v, w, s, x, *, a=0.5, b=0.5):\n    w = {first}\n    v = {second}\n"
    scope = dict(IN_A_STEP)
    exec(f"{text}    return v, w, spike({distance}, 1 + a * a)\n", scope)
    equation, surrogate = neuron(scope["Own"])().equation, Gaussian(1.5)
    numbers = torch.Generator().manual_seed(seed)
    names = ("v", "w", "s", "x", "a", "b")
    values = {name: torch.rand(11, generator=numbers, dtype=torch.float64) * 4 - 2 for name in names}
    values["s"] = (values["s"] > 0).double()
    leaves = [value.requires_grad_() for value in values.values()]
    cotangents = [torch.rand(11, generator=numbers, dtype=torch.float64) - 0.5 for _ in range(3)]
    wanted = tuple(sorted(learned))

    after = [part + 0 * leaves[0] for part in torch_advance(equation, surrogate)(*leaves)]
    right = torch.autograd.grad(after, leaves, cotangents, materialize_grads=True)
    assume(all(part.abs().max() < 1e6 for part in (*after, *right)))
    found = torch_adjoint(equation, surrogate, wanted)(
        *cotangents, *leaves[:4], *after[:2], *leaves[4:], surrogate.slope
    )

    # two orders of the same few dozen products and sums, each rounded to 1.1e-16 of the largest among them
    largest = max(1.0, *(float(part.detach().abs().max()) for part in (*after, *right)))
    for name, got, want in zip(names, found, right, strict=True):
        want = want if name in "vwsx" or name in learned else torch.zeros(11, dtype=torch.float64)
        got = torch.as_tensor(got, dtype=torch.float64).expand(11)
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12 * largest, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_a_step_of_all_operations_is_alike_in_kernel_and_reference(dtype, noise):
    x = noise(23, 3, 7, scale=2, dtype=dtype)
    weights, found = noise(*x.shape, seed=1, dtype=dtype), []
    for backend in ("reference", "fastest"):
        given = x.clone().requires_grad_()
        values = {
            name: torch.tensor(value, dtype=dtype, requires_grad=True) for name, value in (("beta", 0.8), ("a", 0.3))
        }
        with use_backend(backend):
            spikes, last, v = simulate(Everything(), given, potentials=True, parameters=values)
        pulled = (weights * (spikes + 0.3 * v)).sum() + last.w.square().sum()
        found.append((spikes, v, last.v, last.w, torch.autograd.grad(pulled, [given, *values.values()])))

    (*wanted, wanted_gradients), (*got, gradients) = found
    assert 0.05 < float(got[0].detach().mean()) < 0.9
    for mine, theirs in zip(got, wanted, strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(gradients, wanted_gradients, strict=True):
        share = float(theirs.abs().max()) * (1e-12 if dtype == torch.float64 else 1e-5)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=share)


@neuron(decays=("beta",), positive=("threshold",))
def Everything(v, w, s, x, *, beta=0.8, a=0.3, threshold=1.0):
    """Every operation that a step knows, in one."""
    r = detach(s)  # noqa: F821
    w = beta * w * (1 - s / 2) + a * abs(v) - min(v, x, 0.5) ** 3 / (2 + w**2)
    v = where((v > 0.2) & ~(x < -1) | (r == 1), beta * v * (1 - r) + x, x - w / 4) - a * exp(-(w**2))  # noqa: F821
    v = max(v, -2.0) + 0.1 * (1 + v * v) ** -0.5 + 0.1 * (x >= 1) - 0.1 * (1 + w * w) ** 0.5
    return v, w, spike(v - threshold, threshold)  # noqa: F821
