"""`simulate`: the compiled kernel is the reference, and both obey what the equation promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from catalogue import (
    BACKENDS,
    EVERY_NEURON,
    NEURON_COUNT,
    NEURONS,
    STEP_SHAPES,
    SURROGATES,
    assert_near,
    assert_same,
    quick_first,
)

from snn_bp import ALIF, IF, LI, LIF, ATan, CubaLIF, SnnError, State, Surrogate, Tau, rest, simulate, use_backend
from snn_bp.kernels import simulate_layer
from snn_bp.kernels.cpu import vectors
from snn_bp.neurons import is_spiking, numbers_of

ADJOINTS = quick_first(NEURONS, *NEURONS[1:4], *NEURONS[7:9], *NEURONS[10:])  # each reset but "none", each kind
SPIKING = [neuron for neuron in NEURONS if is_spiking(neuron)]
COMPILED_FIRST = ("FastSigmoid", "Boxcar", "MultiGaussian")  # one with each kind of operation; ATan runs everywhere
ROUNDING = 1e-12  # double precision: 2.2e-16 for each of a few hundred operations, with room for their growth


def random_state(neuron, x, noise):
    """A state in the middle of things, each part a leaf."""
    v, i, a = (noise(*x.shape[1:], seed=seed, dtype=x.dtype).requires_grad_() for seed in (11, 12, 13))
    s = (noise(*x.shape[1:], seed=14, dtype=x.dtype) > 0).to(x.dtype).requires_grad_()
    every = {"v": v, "s": s, "i": i, "a": a}
    return State(**{name: every[name] for name in neuron.equation.full})


def parameters_of(neuron, dtype=torch.float64):
    """The neuron's own coefficients as leaves."""
    return {name: torch.tensor(value, dtype=dtype, requires_grad=True) for name, value in numbers_of(neuron).items()}


def present(state):
    return {name: part for name, part in state._asdict().items() if part is not None}


def forward_and_back(neuron, x, state, noise, surrogate=ATan(), backend="fastest"):  # noqa: B008 - frozen
    """Everything that comes out, and the gradient of everything that goes in, under random cotangents."""
    parameters = parameters_of(neuron, x.dtype)
    leaves = {"x": x.clone().requires_grad_(), **{f"first {k}": p for k, p in present(state).items()}, **parameters}
    with use_backend(backend):
        out, last, v = simulate(neuron, leaves["x"], state, surrogate, potentials=True, parameters=parameters)
    outputs = {"out": out, "potentials": v, **{f"last {k}": part for k, part in present(last).items()}}
    pulled = sum((noise(*o.shape, seed=k, dtype=x.dtype) * o).sum() for k, o in enumerate(outputs.values()))
    gradients = torch.autograd.grad(pulled, list(leaves.values()), materialize_grads=True)
    return outputs, dict(zip(leaves, gradients, strict=True))


def assert_backends_agree(neuron, noise, surrogate=ATan()):  # noqa: B008 - frozen
    x = noise(23, 3, NEURON_COUNT, dtype=torch.float64)
    state = random_state(neuron, x, noise)

    wanted, wanted_gradients = forward_and_back(neuron, x, state, noise, surrogate, backend="reference")
    got, gradients = forward_and_back(neuron, x, state, noise, surrogate)

    assert_same(**{name: (got[name], wanted[name]) for name in wanted})
    assert_near(share=ROUNDING, **{name: (gradients[name], g) for name, g in wanted_gradients.items()})


# The kernel is the reference


@pytest.mark.parametrize("neuron", ADJOINTS, ids=repr)
def test_in_double_precision_the_kernel_equals_the_reference_and_its_gradients_autograd(neuron, noise):
    assert_backends_agree(neuron, noise)


@pytest.mark.slow
@pytest.mark.parametrize("neuron", EVERY_NEURON, ids=repr)
def test_every_reset_of_every_neuron_agrees_with_the_reference(neuron, noise):
    assert_backends_agree(neuron, noise)


@pytest.mark.parametrize(
    "surrogate",
    [s if s.shape in COMPILED_FIRST else pytest.param(s, marks=pytest.mark.slow) for s in SURROGATES],
    ids=repr,
)
def test_every_surrogate_gives_the_gradients_of_the_reference(surrogate, noise):
    assert_backends_agree(LIF(beta=0.9, threshold=0.8), noise, surrogate)


@pytest.mark.slow
@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_every_surrogate_per_potential_gives_the_gradients_of_the_reference(surrogate, noise):
    assert_backends_agree(LIF(beta=0.9, threshold=0.8), noise, Surrogate(surrogate.shape, 2.3, per="potential"))


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
def test_in_single_precision_the_kernel_equals_the_reference_bit_for_bit(neuron, noise):
    x = noise(301, 5, NEURON_COUNT)

    with use_backend("reference"):
        wanted, wanted_last, wanted_v = simulate(neuron, x, potentials=True)
    out, last, v = simulate(neuron, x, potentials=True)

    assert not is_spiking(neuron) or 0.02 < float(out.mean()) < 0.9
    assert_same(potentials=(v, wanted_v), out=(out, wanted))
    assert_same(**{name: (part, present(wanted_last)[name]) for name, part in present(last).items()})


@pytest.mark.parametrize("shape", STEP_SHAPES, ids=str)
def test_any_number_of_dimensions_gives_the_neurons_one_by_one(shape, noise):
    neuron = LIF(beta=0.9, reset="zero")
    x = noise(19, *shape)

    spikes, last, v = simulate(neuron, x, potentials=True)
    flat, flat_last, flat_v = simulate(neuron, x.flatten(1)[:, None], potentials=True)

    assert_same(spikes=(spikes.flatten(1), flat[:, 0]), potentials=(v.flatten(1), flat_v[:, 0]))
    assert_same(last=(last.v.flatten(), flat_last.v[0]))


def test_more_neurons_than_a_block_of_the_kernel_are_all_simulated(noise):
    neuron = LIF(beta=0.9, reset="zero")
    x = noise(3, 9, 1031)

    with use_backend("reference"):
        wanted, _, wanted_v = simulate(neuron, x, potentials=True)
    spikes, _, v = simulate(neuron, x, potentials=True)

    assert_same(spikes=(spikes, wanted), potentials=(v, wanted_v))


def test_any_number_of_threads_gives_the_same_bits(noise):
    neuron, found = CubaLIF(alpha=0.8, beta=0.9), []
    for threads in (1, 2, 3):  # parts of 6,151 and of 4,100 or 4,101 neurons, which leave other rests to vectors of 8
        torch.set_num_threads(threads)
        x = noise(4, 1, 12_301).requires_grad_()
        spikes, state = simulate(neuron, x)
        ((spikes * x.detach()).sum() + state.v.sum()).backward()
        found.append((spikes, state.v, x.grad))
    torch.set_num_threads(1)

    assert found[0][0].any()
    for one, two, three in zip(*found, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


@pytest.mark.parametrize("reset", ("subtract", "zero_all"))
def test_arrays_that_no_cache_holds_equal_the_reference(reset, noise):
    neuron = CubaLIF(alpha=0.8, beta=0.9, reset=reset)  # rows of 30,001 numbers begin anywhere on a line
    found = []
    for backend in ("reference", "fastest"):
        x = noise(40, 1, 30_001).requires_grad_()
        with use_backend(backend):
            spikes, state, v = simulate(neuron, x, potentials=True)
        ((spikes * x.detach()).sum() + state.v.sum()).backward()
        found.append((spikes, v, state.v, x.grad))

    (wanted, wanted_v, wanted_last, wanted_g), (spikes, v, last, g) = found
    assert v.nbytes >= vectors.STREAM_FROM_BYTES
    assert_same(spikes=(spikes, wanted), potentials=(v, wanted_v), last=(last, wanted_last))
    assert_same(atol=1e-5, gradient=(g, wanted_g))


def test_an_empty_batch_gives_an_empty_output():
    spikes, last, v = simulate(LIF(beta=0.9, reset="zero"), torch.zeros(5, 0, 7), potentials=True)

    assert spikes.shape == v.shape == (5, 0, 7)
    assert last.v.shape == (0, 7)


def test_a_view_with_other_strides_gives_what_its_copy_gives(noise):
    x = noise(14, 6, 17).transpose(0, 2)[:, ::2]
    neuron = LIF(beta=0.9, reset="zero")
    assert not x.is_contiguous()

    spikes, _, v = simulate(neuron, x, potentials=True)
    wanted, _, wanted_v = simulate(neuron, x.contiguous(), potentials=True)

    assert_same(spikes=(spikes, wanted), potentials=(v, wanted_v))


# Laws


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
@pytest.mark.parametrize("backend", BACKENDS)
def test_silence_in_gives_silence_out(neuron, backend):
    x = torch.zeros(13, 3, NEURON_COUNT)

    with use_backend(backend):
        out, last, v = simulate(neuron, x, potentials=True)

    assert not out.any() and not v.any()
    assert not any(part.any() for part in present(last).values())


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
@pytest.mark.parametrize("backend", BACKENDS)
def test_stopping_halfway_changes_nothing(neuron, backend, noise):
    x = noise(41, 3, NEURON_COUNT)

    with use_backend(backend):
        whole, last, v = simulate(neuron, x, potentials=True)
        first, middle, first_v = simulate(neuron, x[:20], potentials=True)
        second, end, second_v = simulate(neuron, x[20:], middle, potentials=True)

    assert_same(out=(torch.cat([first, second]), whole), potentials=(torch.cat([first_v, second_v]), v))
    assert_same(**{name: (part, present(last)[name]) for name, part in present(end).items()})


@pytest.mark.parametrize("neuron", ADJOINTS, ids=repr)
@pytest.mark.parametrize("backend", BACKENDS)
def test_stopping_halfway_leaves_the_gradients_as_they_are(neuron, backend, noise):
    x = noise(31, 3, NEURON_COUNT, dtype=torch.float64).requires_grad_()
    parameters = parameters_of(neuron)
    leaves = [x, *parameters.values()]
    weights = noise(*x.shape, seed=1, dtype=torch.float64)

    def gradients(*parts):
        state, pulled = None, torch.zeros((), dtype=torch.float64)
        for start, stop in parts:
            out, state, v = simulate(neuron, x[start:stop], state, potentials=True, parameters=parameters)
            pulled = pulled + (weights[start:stop] * (out + 0.3 * v)).sum()
        return torch.autograd.grad(pulled, leaves)

    with use_backend(backend):
        whole = gradients((0, 31))
        halves = gradients((0, 13), (13, 31))

    names = ("x", *parameters)
    assert_near(share=ROUNDING, **{name: (h, w) for name, h, w in zip(names, halves, whole, strict=True)})


@pytest.mark.parametrize("neuron", SPIKING, ids=repr)
def test_scaling_input_and_threshold_together_leaves_every_spike(neuron, noise):
    x = noise(29, 3, NEURON_COUNT, dtype=torch.float64)
    scaled_neuron = replace(neuron, threshold=tuple(4 * np.broadcast_to(neuron.threshold, NEURON_COUNT)))
    if isinstance(neuron, ALIF):
        scaled_neuron = replace(scaled_neuron, kappa=4 * neuron.kappa)
    weights = noise(*x.shape, seed=1, dtype=torch.float64)

    def run(neuron, x):
        x = x.clone().requires_grad_()
        spikes, _, v = simulate(neuron, x, potentials=True, parameters=parameters_of(neuron))
        return spikes, v, torch.autograd.grad((weights * spikes).sum() + 0 * v.sum(), x)[0]

    with use_backend("reference"):
        spikes, v, gradient = run(neuron, x)
        scaled_spikes, scaled_v, scaled_gradient = run(scaled_neuron, 4 * x)

    # 4 is a power of two: no rounding changes
    assert_same(spikes=(scaled_spikes, spikes), potentials=(scaled_v, 4 * v), gradient=(4 * scaled_gradient, gradient))


def test_one_value_for_each_neuron_gives_what_each_alone_gives(noise):
    neuron = NEURONS[2]
    assert isinstance(neuron, LIF) and isinstance(neuron.beta, tuple) and isinstance(neuron.threshold, tuple)
    x = noise(101, 3, NEURON_COUNT)

    together, _, v = simulate(neuron, x, potentials=True)

    for k, (beta, threshold) in enumerate(zip(neuron.beta, neuron.threshold, strict=True)):
        alone, _, alone_v = simulate(LIF(beta=beta, threshold=threshold), x[:, :, k], potentials=True)
        assert_same(spikes=(together[:, :, k], alone), potentials=(v[:, :, k], alone_v))


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_nan_in_the_input_stays_visible_and_stays_where_it_is(neuron, backend, noise):
    x = noise(11, 3, NEURON_COUNT)
    broken = x.clone()
    broken[4, 1, 2] = torch.nan

    with use_backend(backend):
        _, _, v = simulate_layer(
            neuron, broken, None, ATan(), potentials=True
        )  # within a network; `simulate` refuses it
        _, _, wanted = simulate(neuron, x, potentials=True)

    assert v[4:, 1, 2].isnan().all()
    wanted[4:, 1, 2] = torch.nan
    assert_same(potentials=(v, wanted))


# Closed forms


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_potential_equal_to_the_threshold_does_not_fire(backend):
    at = torch.tensor(1.25)
    x = torch.stack([at, torch.nextafter(at, torch.tensor(2.0))]).expand(1, 1, 2)

    with use_backend(backend):
        spikes, _, _ = simulate(IF(threshold=1.25), x, potentials=True)

    assert spikes.tolist() == [[[0.0, 1.0]]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_integrator_fires_once_for_each_threshold_passed(backend, dyadic):
    x = dyadic(97, 3, 5).abs().clamp(max=1.0)  # never a threshold at once, sums exact
    neuron = IF(threshold=1.25)

    with use_backend(backend):
        spikes, _, _ = simulate(neuron, x, potentials=True)

    total = x.sum(0)
    assert_same(count=(spikes.sum(0), torch.clamp(torch.ceil(total / 1.25) - 1, min=0)))  # floor, but strictly above


def test_an_impulse_decays_as_a_power_of_beta():
    x = torch.zeros(31, 1, 1, dtype=torch.float64)
    x[0] = 1

    v, _, _ = simulate(LI(beta=0.9), x, potentials=True)

    wanted = 0.9 ** torch.arange(31, dtype=torch.float64)
    assert_same(potentials=(v[:, 0, 0], wanted), rtol=31 * 2.3e-16)  # a rounding for each step


def test_an_impulse_through_a_current_is_a_difference_of_two_powers():
    x = torch.zeros(31, 1, 1, dtype=torch.float64)
    x[0] = 1
    steps = torch.arange(31, dtype=torch.float64)

    v, _, _ = simulate(LI(alpha=0.5, beta=0.9), x, potentials=True)

    wanted = (0.9 ** (steps + 1) - 0.5 ** (steps + 1)) / 0.4
    assert_same(potentials=(v[:, 0, 0], wanted), rtol=1e-14)


def test_a_constant_input_settles_at_its_geometric_sum():
    v, _, _ = simulate(LI(beta=0.5), torch.ones(80, 1, 1, dtype=torch.float64), potentials=True)

    assert v[-1].item() == 2.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_spikes_raise_the_threshold_of_an_adaptive_neuron(backend, noise):
    neuron = ALIF(beta=0.9, rho=0.95, kappa=0.4)
    x = noise(101, 3, 7).abs()

    with use_backend(backend):
        spikes, last, v = simulate(neuron, x, potentials=True)

    rise = torch.zeros(3, 7)
    for t in range(101):
        rise = 0.95 * rise + (spikes[t - 1] if t else 0)
        assert_same(spikes=(spikes[t], (v[t] - 1 - 0.4 * rise > 0).float()))
    assert last.a is not None
    assert_same(trace=(last.a, rise))


@pytest.mark.parametrize(
    "reset, after",
    {
        "subtract": 0.5 * 3 + 2 - 1,
        "subtract_before_leak": 0.5 * (3 - 1) + 2,
        "zero": 2.0,
        "zero_all": 0.0,
        "none": 0.5 * 3 + 2,
    }.items(),
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reset_acts_on_the_step_after_the_spike(reset, after, backend):
    x = torch.tensor([3.0, 2.0]).view(2, 1, 1)

    with use_backend(backend):
        _, _, v = simulate(LIF(beta=0.5, reset=reset), x, potentials=True)

    assert v.flatten().tolist() == [3.0, after]


# Gradients


def test_a_detached_reset_keeps_gradients_of_later_steps_out_of_the_spike():
    x = torch.tensor([1.5, 0.1], dtype=torch.float64).view(2, 1, 1).requires_grad_()

    def gradient(detach):
        _, _, v = simulate(LIF(beta=0.5, reset="subtract", detach_reset=detach), x, potentials=True)
        return torch.autograd.grad(v[1].sum(), x)[0][0].item()

    with use_backend("reference"):
        slope = ATan()
        height = 1 / (1 + (torch.pi / 2 * slope.slope * 0.5) ** 2)
        assert gradient(True) == 0.5
        assert gradient(False) == pytest.approx(0.5 - height, rel=1e-14)


@pytest.mark.parametrize("used", (("spikes",), ("potentials",), ("last",)), ids=str)
def test_the_gradient_of_one_output_alone_is_that_of_the_reference(used, noise):
    x = noise(17, 3, 5, dtype=torch.float64).requires_grad_()

    def gradient(backend):
        with use_backend(backend):
            spikes, last, v = simulate(LIF(beta=0.9, reset="zero"), x, potentials=True)
        outputs = {"spikes": spikes, "potentials": v, "last": last.v}
        return torch.autograd.grad(sum(outputs[name].square().sum() for name in used), x)[0]

    assert_near(x=(gradient("fastest"), gradient("reference")), share=ROUNDING)


def test_a_gradient_flows_to_the_first_state_alone(noise):
    x = noise(17, 3, 5, dtype=torch.float64)
    neuron = LIF(beta=0.9, reset="zero")

    def gradient(backend):
        v0 = noise(3, 5, seed=2, dtype=torch.float64).requires_grad_()
        with use_backend(backend):
            spikes, _, v = simulate(neuron, x, State(v=v0, s=torch.zeros_like(v0)), potentials=True)
        return torch.autograd.grad(spikes.sum() + v.square().sum(), v0)[0]

    assert gradient("fastest").any()
    assert_near(v=(gradient("fastest"), gradient("reference")), share=ROUNDING)


def test_without_grad_nothing_is_kept_for_the_way_back(noise):
    x = noise(7, 3, 5).requires_grad_()

    with torch.no_grad():
        spikes, last, v = simulate(LIF(beta=0.9, reset="zero"), x, potentials=True)

    assert not (spikes.requires_grad or v.requires_grad or last.v.requires_grad)


def test_spikes_do_not_depend_on_whether_a_gradient_is_asked_for(noise):
    x = noise(37, 3, 5)
    neuron = LIF(beta=0.9, reset="zero")

    plain, _ = simulate(neuron, x)
    graded, _ = simulate(neuron, x.clone().requires_grad_())

    assert_same(spikes=(plain, graded))


# Types and torch's machinery


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_gives_the_spikes_of_the_same_input_in_single(dtype, backend, noise):
    x = noise(37, 3, 5, dtype=dtype)
    neuron = LIF(beta=0.9, reset="zero")

    with use_backend(backend):
        spikes, last, v = simulate(neuron, x, potentials=True)
        wanted, wanted_last, wanted_v = simulate(neuron, x.float(), potentials=True)

    assert_same(spikes=(spikes, wanted.to(dtype)), potentials=(v, wanted_v), last=(last.v, wanted_last.v))


def test_autocast_changes_nothing(noise):
    x = noise(37, 3, 5)
    neuron = LIF(beta=0.9, reset="zero")

    wanted, _, wanted_v = simulate(neuron, x, potentials=True)
    with torch.autocast("cpu", torch.bfloat16):
        spikes, _, v = simulate(neuron, x, potentials=True)

    assert_same(spikes=(spikes, wanted), potentials=(v, wanted_v))


# torch 2.13 asks for the .grad of its own copies, and warns itself of it
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("neuron", (NEURONS[1], NEURONS[6]), ids=repr)
def test_torch_finds_no_fault_in_the_operator(neuron, noise):
    equation = neuron.equation
    x = noise(5, 2, 3, dtype=torch.float64).requires_grad_()
    state = [torch.zeros(2, 3, dtype=torch.float64) for _ in equation.full]
    values = list(parameters_of(neuron).values())
    wanted, kept = ",".join(equation.parameters), ",".join(equation.saved(equation.parameters))

    torch.library.opcheck(
        torch.ops.snn_bp.neuron.default, (x, state, values, equation.key, "ATan", 2.0, "threshold", wanted, kept)
    )


def check_compiled(compiler, noise):
    neuron = LIF(beta=0.9, reset="zero")

    def function(x):
        spikes, last, v = simulate(neuron, 0.5 * x, potentials=True)
        return spikes + 0.1 * v, last.v

    x = noise(17, 3, 5, dtype=torch.float64).requires_grad_()
    wanted, wanted_last = function(x)
    wanted_gradient = torch.autograd.grad(wanted.square().sum(), x)[0]
    out, last = torch.compile(function, fullgraph=True, backend=compiler)(x)
    gradient = torch.autograd.grad(out.square().sum(), x)[0]

    assert_same(out=(out, wanted), last=(last, wanted_last))
    assert_near(x=(gradient, wanted_gradient), share=ROUNDING)


@pytest.mark.slow
def test_torch_compile_takes_it_whole(noise):
    check_compiled("aot_eager", noise)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method.:DeprecationWarning")  # torch's own, on import
def test_the_inductor_takes_it_whole(noise):
    check_compiled("inductor", noise)


# What is refused


@pytest.mark.parametrize(
    "x, use",
    [(torch.ones(3, 2, 1).long(), "x"), (torch.ones(3, 2, 1).bool(), "x"), ([[1.0]], r"torch\.as_tensor\(x\)")],
)
def test_an_input_that_is_no_tensor_of_floats_is_refused(x, use):
    with pytest.raises(SnnError, match=rf"LIF: input should be a tensor of floats.* Use {use}\.float\(\)"):
        simulate(LIF(beta=0.9), x)


@pytest.mark.parametrize("shape", ((), (3,), (0, 2, 3)), ids=str)
def test_an_input_without_time_and_batch_is_refused(shape):
    with pytest.raises(SnnError, match=r"\[time, batch, ...\]"):
        simulate(LIF(beta=0.9), torch.zeros(shape))


@pytest.mark.parametrize("shape", ((2, 4), (2, 3, 1), (3,)), ids=str)
def test_a_state_of_another_shape_is_refused(shape):
    state = State(v=torch.zeros(shape), s=torch.zeros(2, 3))

    with pytest.raises(SnnError, match=r"state.v should have the shape \[2, 3\]"):
        simulate(LIF(beta=0.9), torch.zeros(5, 2, 3), state)


def test_a_state_without_a_part_the_neuron_has_is_refused():
    x = torch.zeros(5, 2, 3)
    state = rest(LIF(beta=0.9), (2, 3), like=x)

    with pytest.raises(SnnError, match=r"state.i.*found nothing"):
        simulate(CubaLIF(alpha=0.5, beta=0.9), x, state)


@pytest.mark.parametrize("beta", ((0.5, 0.6), ((0.5, 0.6, 0.7),)), ids=str)
def test_values_for_another_number_of_neurons_are_refused(beta):
    with pytest.raises(SnnError, match=r"beta has the shape .* neurons have \[3\]"):
        simulate(LIF(beta=beta), torch.zeros(5, 2, 3))


def test_an_unknown_parameter_is_refused():
    with pytest.raises(SnnError, match="parameter 'betta' is not known"):
        simulate(LIF(beta=0.9), torch.zeros(5, 2, 3), parameters={"betta": torch.tensor(0.5)})


@pytest.mark.parametrize(
    "neuron, name", ((LIF(beta=0.9), "alpha"), (LIF(beta=0.9), "kappa"), (LI(beta=0.9), "theta")), ids=str
)
def test_a_parameter_that_the_neuron_would_ignore_is_refused(neuron, name):
    with pytest.raises(SnnError, match=f"has no {name}"):
        simulate(neuron, torch.zeros(5, 2, 3), parameters={name: torch.tensor(0.5)})


def test_a_time_constant_without_a_step_is_refused():
    with pytest.raises(SnnError, match="needs the width of a step"):
        simulate(LIF(beta=Tau(20)), torch.zeros(5, 2, 3))


def test_an_unknown_backend_is_refused():
    with pytest.raises(SnnError, match="Did you mean 'reference'"), use_backend("refrence"):
        pass


def test_a_backend_lasts_for_its_block_only():
    with pytest.raises(RuntimeError), use_backend("reference"):
        raise RuntimeError

    from snn_bp.kernels import dispatch

    assert dispatch._chosen == ["fastest"]
