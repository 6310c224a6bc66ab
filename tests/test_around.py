"""What torch does around an operation: derivatives of derivatives, transforms, buffers written again, counters."""

import subprocess
import sys

import pytest
import torch
from catalogue import NEURON_COUNT, NEURONS, assert_same, quick_first
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from snn_bp import (
    ALIF,
    LI,
    LIF,
    BatchNorm,
    Conv,
    CubaLIF,
    Delay,
    Dense,
    Flatten,
    Network,
    OnChip,
    Pool,
    Recurrent,
    SnnError,
    Spiking,
    simulate,
    use_backend,
)
from snn_bp.chip.folding import folded
from snn_bp.chip.rules import chip_blocks
from snn_bp.kernels.arguments import parameters_of
from snn_bp.kernels.cpu.conv import MAX_TABLES, footprints
from snn_bp.kernels.operator import neuron as operator
from snn_bp.kernels.operator import run_differentiable

# torch itself loads its decompositions for forward mode by what it has since deprecated
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
IMAGE = (2, 7, 7)
MODELS = {
    "chain": ((Dense(5), LIF(beta=0.9, threshold=0.4), Dense(3), LI(beta=0.8)), (6,)),
    "neurons behind a norm": ((Dense(5), BatchNorm(), LIF(beta=0.9, threshold=0.4)), (6,)),
    "neurons alone": ((Spiking(LIF(beta=0.9, threshold=0.4), learn=("beta",)),), (6,)),
    "convolution": ((Conv(3, 3), CubaLIF(alpha=0.5, beta=0.9, threshold=0.3)), IMAGE),
    "convolution and maximum": ((Conv(3, 2), Pool(2, kind="max"), LIF(beta=0.9, threshold=0.3)), IMAGE),
    "maximum alone": ((Conv(3, 2, stride=2), LIF(beta=0.9), Pool(2, kind="max"), Flatten(), Dense(2)), IMAGE),
    "recurrent": ((Dense(5), Recurrent(LIF(beta=0.9, threshold=0.4)), Dense(3), LI(beta=0.8)), (6,)),
    "learned delay": ((Delay(2, learn=True, max_steps=4), Dense(3), LI(beta=0.8)), (6,)),
    "Dense alone": ((Dense(5), BatchNorm(), Dense(3), BatchNorm(), ALIF(beta=0.9, rho=0.9, kappa=0.2)), (6,)),
}  # fmt: skip


def made(name, *, share=0.1, dtype=torch.float64):
    model, shape = MODELS[name]
    drawn = torch.Generator().manual_seed(2)
    x = (torch.rand(6, 4, *shape, generator=drawn) < share).to(dtype)
    return Network(model, shape, seed=1).to(dtype), x


@pytest.mark.parametrize("name", MODELS)
def test_a_gradient_of_a_gradient_is_refused_in_one_sentence(name):
    network, x = made(name)
    out = network(x.requires_grad_()).square().sum()

    with pytest.raises(SnnError, match="gradient of a gradient") as error:
        torch.autograd.grad(out, [x, *network.parameters()], create_graph=True, allow_unused=True)
    assert "\n" not in str(error.value)


def test_the_way_that_a_refusal_names_gives_the_closed_form():
    """Dense and LI are linear: out = sum_t sum_{k<=t} beta^(t-k) (W x_k + b), d out/d x_k = c_k (sum of rows of W)."""
    network = Network((Dense(4), LI(beta=0.9)), (5,)).double()
    x = torch.rand(6, 3, 5, dtype=torch.float64, requires_grad=True)
    with use_backend("reference"):
        out = network(x).sum()
        (first,) = torch.autograd.grad(out, x, create_graph=True)
        first.square().sum().backward()

    kept = torch.tensor([sum(0.9 ** (t - k) for t in range(k, 6)) for k in range(6)], dtype=torch.float64)
    rows = network.layers[0].weight.detach().sum(0)
    right = (2 * 3 * kept.square().sum() * rows).expand(4, 5)
    torch.testing.assert_close(network.layers[0].weight.grad, right)


def test_a_given_delay_has_a_gradient_of_its_gradient():
    network = Network((Delay(2),), (3,))
    x = torch.rand(6, 2, 3, requires_grad=True)

    (first,) = torch.autograd.grad(network(x).pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)

    right = torch.zeros_like(x)
    right[:4] = 6 * x.detach()[:4]
    torch.testing.assert_close(second, right)


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_gradients_is_refused_in_one_sentence(name):
    network, x = made(name)
    out = network(x.requires_grad_()).flatten()[:2]

    with pytest.raises(SnnError, match="batch of gradients"):
        torch.autograd.grad(
            out, [x, *network.parameters()], torch.eye(2).double(), is_grads_batched=True, allow_unused=True
        )


@pytest.mark.parametrize("neuron", quick_first(NEURONS, *NEURONS[::4]), ids=repr)
def test_the_operator_gives_what_autograd_alone_gives(neuron, noise):
    equation = neuron.equation
    shapes = [(5, 3, NEURON_COUNT), *[(3, NEURON_COUNT)] * len(equation.full)]
    x, *state = (noise(*shape, seed=n).requires_grad_() for n, shape in enumerate(shapes))
    values = [value.detach().clone().requires_grad_() for value in parameters_of(neuron, x, {}).values()]
    leaves, pull = (x, *state, *values), noise(5, 3, NEURON_COUNT, seed=9)
    kept = equation.saved(equation.parameters)
    words = (equation.key, "ATan", 2.0, "threshold", ",".join(equation.parameters), ",".join(kept))
    traces = [name for name in kept if name != "x"]  # of which the potential alone has a gradient of its own
    free = [n for n, name in enumerate(traces, start=1) if name != equation.potential]

    def outcome(run):
        out = run(x, state, values, *words)
        pulled = sum(
            (pull[: len(each)] * each).sum()
            for n, each in enumerate(out)
            if n not in free and each.numel() and each.requires_grad
        )
        return [*out, *torch.autograd.grad(pulled, leaves, allow_unused=True)]

    pairs = zip(outcome(run_differentiable), outcome(operator), strict=True)
    assert_same(**{str(n): pair for n, pair in enumerate(pairs) if pair[1] is not None})


@pytest.mark.slow
def test_a_first_gradient_leaves_torchs_compiler_alone():
    program = (
        "import sys, torch; from snn_bp import *; x = torch.ones(3, 2, 4, requires_grad=True);"
        "simulate(LIF(beta=0.5), x)[0].sum().backward();"
        "OnChip(Network((Dense(2), LIF(beta=0.5, reset='zero')), (4,)))(x).sum().backward();"
        "print('torch._dynamo' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("neuron", [LIF(beta=0.9, reset="zero"), CubaLIF(alpha=0.5, beta=0.9), LI(beta=0.9)], ids=repr)
def test_simulate_is_right_under_vmap(neuron, noise):
    x = noise(5, 7, 2, 3)

    found = vmap(lambda z: simulate(neuron, z)[0])(x)

    assert torch.equal(found, torch.stack([simulate(neuron, z)[0] for z in x]))


@pytest.mark.slow
@pytest.mark.parametrize("how", quick_first(["torch.func", "dual numbers"], "torch.func"))
@pytest.mark.parametrize("name", [name for name in MODELS if name != "learned delay"])
def test_forward_mode_gives_what_the_backward_pass_gives(name, how):
    network, x = made(name)
    network.eval()
    tangent = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
    if how == "torch.func":
        _, found = jvp(lambda z: network(z).sum(), (x,), (tangent,))
    else:
        with forward_ad.dual_level():
            found = forward_ad.unpack_dual(network(forward_ad.make_dual(x, tangent)).sum()).tangent

    given = x.clone().requires_grad_()
    network(given).sum().backward()

    torch.testing.assert_close(found, (given.grad * tangent).sum(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["chain", "convolution", "recurrent"])
def test_functional_gradients_are_those_of_backward(name):
    network, x = made(name)
    weights = {name: weight.detach() for name, weight in network.named_parameters()}

    found = grad(lambda given: functional_call(network, given, (x,)).square().sum())(weights)
    network(x).square().sum().backward()

    for key, weight in network.named_parameters():
        torch.testing.assert_close(found[key], weight.grad, rtol=1e-9, atol=1e-9)


def test_a_learned_delay_is_refused_under_transforms():
    network, x = made("learned delay")

    with pytest.raises(SnnError, match="Delay"):
        jvp(network, (x,), (x,))


def test_a_network_for_the_chip_is_refused_where_it_has_no_derivative():
    model = (Dense(5), LIF(beta=0.9, reset="zero"))
    network = OnChip(Network(model, (6,)))
    x = (torch.rand(6, 4, 6) < 0.3).float()

    with pytest.raises(SnnError, match="target"):
        jvp(network, (x,), (x,))
    with pytest.raises(SnnError, match="gradient of a gradient"):
        torch.autograd.grad(network(x).sum(), network.layers[0].weight, create_graph=True)


def assert_noticed_or_harmless(network, out, right):
    """The backward pass either fails, as torch's own does, or gives the gradients `right`."""
    try:
        out.backward()
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
        return
    for found, weight in zip(network.parameters(), right, strict=True):
        torch.testing.assert_close(found.grad, weight)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share", [0.1, pytest.param(0.9, marks=pytest.mark.slow)], ids=["few", "many"])
def test_an_input_written_again_before_the_backward_pass_is_noticed_or_does_no_harm(name, share):
    network, x = made(name, share=share)
    x = x * 1.5  # not zeros and ones alone
    network(x.clone()).square().sum().backward()
    right = [weight.grad for weight in network.parameters()]
    network.zero_grad(set_to_none=True)
    buffer = x.clone()
    out = network(buffer).square().sum()

    buffer.fill_(3.0)

    assert_noticed_or_harmless(network, out, right)


def test_an_input_that_is_read_again_is_noticed():
    network, x = made("chain", share=0.9)
    buffer = x * 1.5
    out = network(buffer).sum()
    buffer.zero_()

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


@pytest.mark.parametrize("name", MODELS)
def test_weights_written_before_the_backward_pass_are_noticed_or_do_no_harm(name):
    network, x = made(name, share=0.4)
    network(x).square().sum().backward()
    right = [None if weight.grad is None else weight.grad.clone() for weight in network.parameters()]
    network.zero_grad(set_to_none=True)
    out = network(x).square().sum()

    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(0.7)

    assert_noticed_or_harmless(network, out, right)


@pytest.mark.parametrize("name", MODELS)
def test_a_second_backward_pass_over_one_graph_gives_the_same(name):
    network, x = made(name, share=0.4)
    out = network(x.requires_grad_()).square().sum()
    weights = [x, *network.parameters()]

    first = torch.autograd.grad(out, weights, retain_graph=True, allow_unused=True)
    second = torch.autograd.grad(out, weights, retain_graph=True, allow_unused=True)

    for mine, again in zip(first, second, strict=True):
        assert (mine is None and again is None) or torch.equal(mine, again)


@pytest.mark.parametrize("name", MODELS)
def test_a_counter_of_operations_sees_what_the_reference_does(name):
    network, x = made(name)

    with FlopCounterMode(display=False) as found:
        network(x)
    with use_backend("reference"), FlopCounterMode(display=False) as right:
        network(x)

    assert found.get_total_flops() == right.get_total_flops()


def test_hooks_on_every_module_see_every_layer():
    network, x = made("chain")
    seen = []
    hook = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    try:
        network(x)
    finally:
        hook.remove()

    assert seen == ["Linear", "Neurons", "Linear", "Neurons", "Network"]


def test_hooks_on_every_module_see_the_parts_of_a_recurrent_layer():
    network, x = made("recurrent")
    seen = []
    hook = nn.modules.module.register_module_forward_pre_hook(lambda module, *_: seen.append(type(module).__name__))
    try:
        network(x[:1])
    finally:
        hook.remove()

    assert seen == ["Network", "Linear", "Neurons", "Linear", "Linear", "Neurons"]


def test_a_chosen_device_watches_nothing():
    network, x = made("chain")

    with torch.device("cpu"):
        lines = network.plan(x)

    assert "one event-driven operation" in lines[0]


def test_tables_of_places_are_bounded():
    assert footprints.cache_info().maxsize == MAX_TABLES


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda x: x.bfloat16(), "float32"),
        (lambda x: x.half(), "float32"),
        (lambda x: x.double(), "float32"),
        (lambda x: x.numpy(), "torch.as_tensor"),
        (lambda x: x.tolist(), "torch.as_tensor"),
        (lambda x: x[:0], "a time step"),
        (lambda x: x[0], "time, batch"),
        (lambda x: x.to_sparse(), "to_dense"),
    ],
)
def test_what_a_network_cannot_take_is_said_in_our_words(given, words):
    network, x = made("recurrent", dtype=torch.float32)

    with pytest.raises(SnnError, match=words):
        network(given(x))


def test_a_recurrent_layer_by_itself_asks_for_a_step():
    network, _ = made("recurrent", dtype=torch.float32)

    with pytest.raises(SnnError, match="a step at least"):
        network.layers[1](torch.zeros(0, 2, 5))


def test_half_precision_passes_where_the_weights_are_half():
    network = Network((Dense(5), LIF(beta=0.9)), (6,)).bfloat16()

    assert network(torch.ones(3, 2, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("model", [(Dense(5), BatchNorm(), LIF(beta=0.9)), (Dense(5), BatchNorm(), Dense(3))])
def test_a_norm_that_meets_one_value_says_so(model):
    network = Network(model, (6,))

    with pytest.raises(SnnError, match="one value"):
        network(torch.ones(1, 1, 6))


def test_a_norm_on_the_chip_that_meets_one_value_says_so():
    network = OnChip(Network((Dense(5), BatchNorm(), LIF(beta=0.9, reset="zero")), (6,)))
    (block,) = chip_blocks(network)

    with pytest.raises(SnnError, match="one value"):
        folded(block, torch.ones(1, 6))
