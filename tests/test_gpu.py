"""The Triton kernels run by Triton's interpreter, and on a GPU where there is one: both are the reference."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from catalogue import (
    EVERY_NEURON,
    NEURON_COUNT,
    NEURONS,
    STEP_SHAPES,
    SURROGATES,
    assert_near,
    assert_same,
    quick_first,
)
from own_neurons import OWN, AdLIF, ResetAtOnce, any_state
from test_simulate import ROUNDING, forward_and_back, parameters_of, present
from torch._subclasses.fake_tensor import FakeTensorMode

from snn_bp import ALIF, LIF, ATan, CubaLIF, Surrogate, simulate, use_backend
from snn_bp.kernels import simulate_layer
from snn_bp.kernels.gpu import neuron as gpu
from snn_bp.kernels.gpu.recurrent import recurrent, serves_recurrent, simulate_recurrent_gpu
from snn_bp.model.layers import Recurrent
from snn_bp.model.modules import Neurons
from snn_bp.neurons import is_spiking, neuron

needs_triton = pytest.mark.skipif(not gpu.INSTALLED, reason="triton is not installed: pip install triton (Linux)")
needs_gpu = pytest.mark.skipif(not (torch.cuda.is_available() and gpu.INSTALLED), reason="no GPU, or no triton")
SINGLE_ROUNDING = 1e-6  # 6e-8 for each of a dozen operations
SPIKING = [neuron for neuron in (*NEURONS, *OWN) if is_spiking(neuron)]
RECURRENT_FIRST = (NEURONS[2], NEURONS[9], AdLIF(beta=0.9), ResetAtOnce())  # between them, all that is kept


@pytest.fixture
def interpreted(monkeypatch):
    """Within the test, Triton's interpreter runs the GPU kernels on CPU tensors."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(gpu, "serves", lambda tensor: True)
    forget_kernels()
    yield
    forget_kernels()


def forget_kernels():
    gpu.compiled_forward.cache_clear()
    gpu.compiled_backward.cache_clear()


def assert_gpu_kernel_is_the_reference(neuron, noise, surrogate=ATan(), *, steps=4, dtype=torch.float64):  # noqa: B008
    x = noise(steps, 3, NEURON_COUNT, dtype=dtype)
    state = any_state(neuron, x, noise)

    wanted, wanted_gradients = forward_and_back(neuron, x, state, noise, surrogate, backend="reference")
    got, gradients = forward_and_back(neuron, x, state, noise, surrogate)

    assert_same(**{name: (got[name], wanted[name]) for name in wanted})
    return gradients, wanted_gradients


# By the interpreter: equal to the reference


@needs_triton
@pytest.mark.parametrize("neuron", (*NEURONS, *OWN), ids=repr)
def test_in_double_precision_the_gpu_kernel_equals_the_reference_and_its_gradients_autograd(
    neuron, noise, interpreted
):  # fmt: skip
    gradients, wanted = assert_gpu_kernel_is_the_reference(neuron, noise)

    assert_near(share=ROUNDING, **{name: (gradients[name], g) for name, g in wanted.items()})


@needs_triton
@pytest.mark.parametrize("neuron", quick_first((*NEURONS, *OWN), *NEURONS[2::3], *OWN[::3]), ids=repr)
def test_in_single_precision_the_gpu_kernel_equals_the_reference_bit_for_bit(neuron, noise, interpreted):
    gradients, wanted = assert_gpu_kernel_is_the_reference(neuron, noise, dtype=torch.float32)

    # parameters are sums over time and batch that may nearly cancel: those are compared in double precision, above
    entries = {name: (gradients[name], g) for name, g in wanted.items() if name not in parameters_of(neuron)}
    assert_near(share=SINGLE_ROUNDING, **entries)


@needs_triton
@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_every_surrogate_on_the_gpu_gives_the_gradients_of_the_reference(surrogate, noise, interpreted):
    gradients, wanted = assert_gpu_kernel_is_the_reference(LIF(beta=0.9, threshold=0.8), noise, surrogate, steps=3)

    assert_near(share=ROUNDING, **{name: (gradients[name], g) for name, g in wanted.items()})


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("neuron", EVERY_NEURON, ids=repr)
@pytest.mark.parametrize("surrogate", SURROGATES[:3], ids=repr)
def test_every_reset_of_every_neuron_on_the_gpu_agrees_with_the_reference(neuron, surrogate, noise, interpreted):
    gradients, wanted = assert_gpu_kernel_is_the_reference(neuron, noise, surrogate, steps=7)

    assert_near(share=ROUNDING, **{name: (gradients[name], g) for name, g in wanted.items()})


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_every_surrogate_per_potential_on_the_gpu_agrees_with_the_reference(surrogate, noise, interpreted):
    surrogate = Surrogate(surrogate.shape, surrogate.slope, per="potential")

    gradients, wanted = assert_gpu_kernel_is_the_reference(LIF(beta=0.9, threshold=0.8), noise, surrogate)

    assert_near(share=ROUNDING, **{name: (gradients[name], g) for name, g in wanted.items()})


@needs_triton
@pytest.mark.parametrize("shape", (*STEP_SHAPES, (5, 61), (1, 128), (0, 3)), ids=str)
def test_any_shape_gives_the_spikes_of_the_reference(shape, noise, interpreted):
    neuron = LIF(beta=0.9, reset="zero")
    x = noise(*reversed(shape), 4).permute(-1, *reversed(range(len(shape))))  # not contiguous

    with use_backend("reference"):
        wanted, wanted_last, wanted_v = simulate(neuron, x, potentials=True)
    spikes, last, v = simulate(neuron, x, potentials=True)
    plain, _ = simulate(neuron, x)

    assert_same(spikes=(spikes, wanted), potentials=(v, wanted_v), plain=(plain, wanted))
    assert_same(last_v=(last.v, wanted_last.v), last_s=(last.s, wanted_last.s))


@needs_triton
@pytest.mark.parametrize("used", ("spikes", "potentials", "last"))
def test_the_gradient_of_one_output_alone_on_the_gpu_is_that_of_the_reference(used, noise, interpreted):
    x = noise(5, 3, 5, dtype=torch.float64).requires_grad_()

    def gradient(backend):
        with use_backend(backend):
            spikes, last, v = simulate(ALIF(beta=0.9, rho=0.9, kappa=0.4), x, potentials=True)
        return torch.autograd.grad({"spikes": spikes, "potentials": v, "last": last.a}[used].sum(), x)[0]

    assert_near(x=(gradient("fastest"), gradient("reference")), share=ROUNDING)


@needs_triton
def test_a_potential_equal_to_the_threshold_does_not_fire_on_the_gpu(interpreted):
    at = torch.tensor(1.25)
    x = torch.stack([at, torch.nextafter(at, torch.tensor(2.0))]).expand(1, 1, 2)

    spikes, _ = simulate(LIF(beta=0.5, threshold=1.25), x)

    assert spikes.tolist() == [[[0.0, 1.0]]]


@needs_triton
def test_a_nan_on_the_gpu_stays_visible_and_stays_where_it_is(noise, interpreted):
    x = noise(7, 3, 5)
    broken = x.clone()
    broken[4, 1, 2] = torch.nan

    _, _, v = simulate_layer(LIF(beta=0.9, reset="zero"), broken, None, ATan(), potentials=True)
    _, _, wanted = simulate(LIF(beta=0.9, reset="zero"), x, potentials=True)

    wanted[4:, 1, 2] = torch.nan
    assert_same(potentials=(v, wanted))


@neuron
def Turned(v, x):
    v = -x
    return v, v


@needs_triton
def test_the_negative_of_zero_keeps_its_sign_on_the_gpu(interpreted):
    v, _ = simulate(Turned(), torch.zeros(2, 1, 3))

    assert bool(torch.signbit(v).all())


# By the interpreter: recurrent layers


def recurrent_layer(neuron, neurons, weight, *, bias=None, learn=()):
    """The layer of `layers.py` with these weights."""
    layer = Recurrent(neuron, learn=learn, bias=bias is not None).build((neurons,), ATan()).to(weight.dtype)
    layer.recurrence.weight = torch.nn.Parameter(weight.clone())
    if bias is not None:
        layer.recurrence.bias = torch.nn.Parameter(bias.clone())
    return layer


def on_gpu(layer: Neurons, x, state=None):
    recurrence = layer.recurrence
    return simulate_recurrent_gpu(
        layer.neuron, x, recurrence.weight, recurrence.bias, state, layer.surrogate,
        parameters=layer.parameters_now(),
    )  # fmt: skip


@needs_triton
@pytest.mark.parametrize("steps, batch, neurons", ((11, 5, 7), (1, 1, 1), (5, 3, 37)), ids=str)
def test_a_recurrent_layer_on_the_gpu_gives_the_spikes_of_its_own_loop(steps, batch, neurons, dyadic, interpreted):
    # sums of multiples of 1 / 64 are exact in any order, and 0.5 keeps a few steps of decay exact
    weight, bias = dyadic(neurons, neurons, seed=1, scale=0.5), dyadic(neurons, seed=2, scale=0.1)
    layer = recurrent_layer(LIF(beta=0.5, reset="zero"), neurons, weight, bias=bias)
    x = dyadic(steps, batch, neurons)

    with torch.no_grad():
        wanted, wanted_last, wanted_v = layer.observe(x)
        spikes, last, v = on_gpu(layer, x)

    assert_same(potentials=(v, wanted_v), spikes=(spikes, wanted), last=(last.v, wanted_last.v))


@needs_triton
@pytest.mark.parametrize(
    "neuron",
    [n if n in RECURRENT_FIRST else pytest.param(n, marks=pytest.mark.slow) for n in SPIKING],
    ids=repr,
)
def test_a_recurrent_layer_on_the_gpu_has_the_gradients_of_its_own_loop(neuron, noise, interpreted):
    double = torch.float64
    weight, bias = noise(7, 7, seed=1, scale=0.4, dtype=double), noise(7, seed=2, scale=0.1, dtype=double)
    layer = recurrent_layer(neuron, NEURON_COUNT, weight, bias=bias, learn=learnable(neuron))
    x = noise(4, 5, NEURON_COUNT, dtype=double).requires_grad_()
    state = any_state(neuron, x, noise)
    leaves = [x, *present(state).values(), *layer.parameters()]

    def outcome(run):
        spikes, last, v = run(x, state)
        outputs = (spikes, v, *present(last).values())
        pulled = sum((noise(*o.shape, seed=k, dtype=double) * o).sum() for k, o in enumerate(outputs))
        return outputs, torch.autograd.grad(pulled, leaves)

    wanted, wanted_gradients = outcome(layer.observe)
    got, gradients = outcome(lambda x, state: on_gpu(layer, x, state))

    assert_same(spikes=(got[0], wanted[0]))
    assert_near(share=ROUNDING, **{str(k): pair for k, pair in enumerate(zip(got[1:], wanted[1:], strict=True))})
    assert_near(share=ROUNDING, **{str(k): g for k, g in enumerate(zip(gradients, wanted_gradients, strict=True))})


def learnable(neuron):
    """Its single numbers, but for decays at an end of their range, where nothing is learned."""
    kind = type(neuron).kind
    values = {name: getattr(neuron, name) for name in kind.numbers}
    single = {name: value for name, value in values.items() if isinstance(value, float)}
    return tuple(name for name, value in single.items() if kind.ranges[name] != "decay" or 0 < value < 1)


@needs_triton
def test_a_recurrent_layer_on_the_gpu_can_stop_halfway(dyadic, interpreted):
    layer = recurrent_layer(ALIF(beta=0.5, rho=0.5, kappa=0.25), 7, dyadic(7, 7, seed=1))
    x = dyadic(9, 3, 7)

    with torch.no_grad():
        whole, _, _ = on_gpu(layer, x)
        first, state, _ = on_gpu(layer, x[:4])
        second, _, _ = on_gpu(layer, x[4:], state)

    assert_same(spikes=(torch.cat([first, second]), whole))


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("neuron", (NEURONS[9], ResetAtOnce()), ids=repr)
def test_torch_finds_no_fault_in_the_recurrent_operator(neuron, noise, interpreted):
    double = torch.float64
    x, weight, bias = (noise(*shape, dtype=double).requires_grad_() for shape in ((3, 2, 5), (5, 5), (5,)))
    state = [torch.zeros(2, 5, dtype=double) for _ in neuron.equation.full]
    values = list(parameters_of(neuron).values())
    equation = neuron.equation
    words = ",".join(equation.parameters), ",".join(equation.saved(equation.parameters))

    torch.library.opcheck(recurrent, (x, weight, bias, state, values, equation.key, "ATan", 2.0, "threshold", *words))


@pytest.mark.parametrize("shape, served", (((3, 2, 512), 1), ((3, 2, 513), 0), ((3, 0, 5), 0), ((3, 2, 1, 5), 0)))
def test_a_recurrent_layer_says_what_it_can_take(shape, served, monkeypatch):
    monkeypatch.setattr(gpu, "serves", lambda tensor: True)
    monkeypatch.setattr(gpu, "release", lambda: (3, 7))

    assert serves_recurrent(torch.zeros(shape)) == bool(served)
    monkeypatch.setattr(gpu, "release", lambda: (3, 4))
    assert not serves_recurrent(torch.zeros(shape))


# Dispatch


@needs_triton
def test_tensors_on_a_gpu_go_to_the_operator_and_stay_there(monkeypatch):
    monkeypatch.delattr("snn_bp.kernels.dispatch.simulate_reference")

    with FakeTensorMode(), torch.no_grad():
        x = torch.empty(5, 2, 3, device="cuda")
        spikes, last, v = simulate(CubaLIF(alpha=0.5, beta=0.9), x, potentials=True)

    assert {part.device.type for part in (spikes, v, last.v, last.i)} == {"cuda"}
    assert spikes.shape == v.shape == x.shape


def test_without_triton_a_gpu_runs_the_reference(monkeypatch):
    monkeypatch.setattr(gpu, "INSTALLED", False)

    assert not gpu.serves(SimpleNamespace(is_cuda=True))


@pytest.mark.slow
def test_the_package_works_without_triton():
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, snn_bp\n"
        "from snn_bp.kernels.gpu import neuron as gpu\n"
        "print(gpu.INSTALLED, int(snn_bp.simulate(snn_bp.IF(), 2 * torch.ones(1, 1, 1))[0].sum()))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "1"]


# On a GPU


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("neuron", (*NEURONS, *OWN), ids=repr)
def test_a_gpu_spikes_as_the_cpu_does_bit_for_bit(neuron, dtype, noise):
    x = noise(301, 37, NEURON_COUNT, dtype=dtype).requires_grad_()
    there = x.detach().cuda().requires_grad_()

    wanted, wanted_last, wanted_v = simulate(neuron, x, potentials=True)
    got, last, v = simulate(neuron, there, potentials=True)
    gradient = torch.autograd.grad((got + 0.1 * v).sum(), there)[0]
    wanted_gradient = torch.autograd.grad((wanted + 0.1 * wanted_v).sum(), x)[0]

    assert_same(out=(got.cpu(), wanted), potentials=(v.cpu(), wanted_v))
    assert_same(**{name: (part.cpu(), present(wanted_last)[name]) for name, part in present(last).items()})
    # 301 steps of a contraction; a division or exponential of the GPU is good to 2 units in the last place
    assert_near(share=1e-5 if dtype == torch.float32 else ROUNDING, x=(gradient.cpu(), wanted_gradient))


@pytest.mark.gpu
@needs_gpu
def test_a_potential_below_the_smallest_normal_number_is_kept_on_a_gpu():
    x = torch.zeros(200, 1, 1)
    x[0] = 1e-30

    _, _, wanted = simulate(LIF(beta=0.5), x, potentials=True)
    _, _, v = simulate(LIF(beta=0.5), x.cuda(), potentials=True)

    assert 0 < float(wanted[40]) < torch.finfo(torch.float32).smallest_normal
    assert_same(potentials=(v.cpu(), wanted))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("neurons", (7, 37, 128, 500))
def test_a_recurrent_layer_on_a_gpu_spikes_as_its_own_loop_on_the_cpu(neurons, dyadic):
    weight, bias = dyadic(neurons, neurons, seed=1, scale=0.5), dyadic(neurons, seed=2, scale=0.1)
    layer = recurrent_layer(LIF(beta=0.5, reset="zero"), neurons, weight, bias=bias)
    x = dyadic(9, 13, neurons)

    with torch.no_grad():
        wanted, _, wanted_v = layer.observe(x)
        spikes, _, v = on_gpu(layer.cuda(), x.cuda())

    assert_same(spikes=(spikes.cpu(), wanted), potentials=(v.cpu(), wanted_v))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("neurons", (37, 256))
def test_a_recurrent_layer_on_a_gpu_has_the_gradients_of_its_own_loop(neurons, noise):
    double = torch.float64
    weight = noise(neurons, neurons, seed=1, scale=neurons**-0.5, dtype=double)
    layer = recurrent_layer(CubaLIF(alpha=0.5, beta=0.9, detach_reset=False), neurons, weight).cuda()
    x = noise(23, 5, neurons, dtype=double).cuda().requires_grad_()
    leaves = (x, layer.recurrence.weight)

    spikes, _, v = on_gpu(layer, x)
    wanted, _, wanted_v = layer.observe(x)

    assert_same(spikes=(spikes, wanted))
    gradients = torch.autograd.grad((spikes + 0.1 * v).sum(), leaves)
    wanted_gradients = torch.autograd.grad((wanted + 0.1 * wanted_v).sum(), leaves)
    pairs = zip(("x", "weight"), zip(gradients, wanted_gradients, strict=True), strict=True)
    assert_near(share=1e-10, **dict(pairs))  # a sum of 256 products in another order, 23 times over
