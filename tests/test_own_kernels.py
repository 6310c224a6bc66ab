"""Neurons of one's own by every backend: torch finds no fault in the operator, and roots are the nearest numbers."""

import math
from itertools import product

import pytest
import torch
from catalogue import assert_near, assert_same, quick_first
from own_neurons import OWN, Everything, Graded, NoNumbers, ResetAtOnce, TwoTraces, any_state
from test_simulate import ROUNDING, forward_and_back, parameters_of

from snn_bp import ALIF, SnnError, simulate
from snn_bp.equations.arithmetic import spike
from snn_bp.kernels.reference import torch_advance
from snn_bp.neurons import neuron
from snn_bp.surrogates import ATan

FIRST = (
    (Everything(), torch.float32),
    (Everything(), torch.float64),
    (ResetAtOnce(), torch.float64),
    (Graded(), torch.float64),
)


@pytest.mark.parametrize(
    "neuron, dtype",
    [
        pytest.param(n, dtype, marks=() if (n, dtype) in FIRST else pytest.mark.slow)
        for n, dtype in product(OWN, (torch.float32, torch.float64))
    ],
    ids=str,
)
def test_a_compiled_neuron_of_ones_own_is_the_reference(neuron, dtype, noise):
    x = noise(23, 3, 7, dtype=dtype)
    state = any_state(neuron, x, noise)

    wanted, wanted_gradients = forward_and_back(neuron, x, state, noise, backend="reference")
    got, gradients = forward_and_back(neuron, x, state, noise)

    assert_same(**{name: (got[name], wanted[name]) for name in wanted})
    if dtype == torch.float64:
        assert_near(share=ROUNDING, **{name: (gradients[name], g) for name, g in wanted_gradients.items()})


# torch 2.13 asks for the .grad of its own copies, and warns itself of it
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("neuron", quick_first((ResetAtOnce(), TwoTraces(), NoNumbers()), NoNumbers()), ids=repr)
def test_torch_finds_no_fault_in_the_operator_of_a_neuron_of_ones_own(neuron, noise):
    equation = neuron.equation
    x = noise(5, 2, 3, dtype=torch.float64).requires_grad_()
    state = [torch.zeros(2, 3, dtype=torch.float64) for _ in equation.full]
    values = list(parameters_of(neuron).values())
    kept = dict.fromkeys((*equation.saved(equation.parameters), equation.potential))

    torch.library.opcheck(
        torch.ops.snn_bp.neuron.default,
        (x, state, values, equation.key, "ATan", 2.0, "threshold", ",".join(equation.parameters), ",".join(kept)),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "neuron", quick_first((ALIF(beta=0.9, rho=0.8, kappa=0.3), ResetAtOnce(), TwoTraces()), TwoTraces()), ids=repr
)
def test_torch_compile_takes_a_neuron_whole_that_nothing_ran_before(neuron, noise):
    torch.compiler.reset()  # what an earlier test compiled

    def function(x):
        out, _, v = simulate(neuron, 0.5 * x, potentials=True)
        return out + 0.1 * v

    x = noise(7, 3, 5, dtype=torch.float64).requires_grad_()
    out = torch.compile(function, fullgraph=True, backend="aot_eager")(x)
    gradient = torch.autograd.grad(out.square().sum(), x)[0]

    wanted = function(x)
    assert_same(out=(out, wanted))
    assert_near(x=(gradient, torch.autograd.grad(wanted.square().sum(), x)[0]), share=ROUNDING)


@neuron
def Kept(v, level, s, x, *, beta=0.9, threshold=1.0):
    v = beta * v + x - s
    return v, threshold, spike(v - threshold, threshold)


def test_a_backward_pass_reads_a_parameter_itself_where_a_state_is_one():
    equation = Kept().equation

    assert equation.saved(equation.parameters) == ("v",)


@neuron
def Root(v, x):
    v = x**0.5
    return v, v


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_the_root_of_the_reference_is_the_nearest_number(dtype, noise):
    """Where torch has it from MKL, a sixth of all roots in single precision are not."""
    x = noise(10_007, dtype=dtype).abs()

    advance = torch_advance(Root().equation, ATan())
    (root,) = advance(x, x)
    (special,) = advance(x, torch.tensor([0.0, -0.0, math.inf], dtype=dtype))

    nearest = torch.tensor([math.sqrt(value) for value in x.tolist()], dtype=torch.float64).to(dtype)
    assert_same(root=(root, nearest))
    assert [math.copysign(1, value) for value in special.tolist()] == [1, -1, 1]
    assert special.tolist() == [0, 0, math.inf]


@pytest.mark.parametrize("name", ("slope", "g_v", "after_w", "t3_", "_v", "detach", "heaviside", "quotient", "spikes"))
def test_a_name_that_a_kernel_would_mistake_is_refused(name):
    scope = {"neuron": neuron}

    with pytest.raises(SnnError, match=f"Mine: '{name}' is no name"):
        exec(f"@neuron\ndef Mine(v, x, *, {name}=1.0):\n    v = {name} * v + x\n    return v, v", scope)
