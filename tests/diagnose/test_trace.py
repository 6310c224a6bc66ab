"""The trace of a backward pass: exact, and without a trace left behind."""

import pytest
import torch
import witness
from catalogue import NEURON_COUNT, NEURONS, assert_near, assert_same
from torch import Tensor

from snn_bp import (
    ALIF,
    LI,
    LIF,
    BatchNorm,
    CubaLIF,
    Dense,
    Dropout,
    Gaussian,
    Network,
    OnChip,
    Recurrent,
    Spiking,
)
from snn_bp.instruments.traces import trace
from snn_bp.kernels import simulate
from snn_bp.kernels.reference import torch_slope
from snn_bp.model.losses import CountCrossEntropy
from snn_bp.neurons import is_spiking

TARGETS = torch.tensor([0, 3, 1])
STACK = (
    Dense(9),
    CubaLIF(alpha=0.5, beta=0.8, reset="zero"),
    Dense(6),
    ALIF(beta=0.9, rho=0.9, kappa=0.3),
    Dense(5),
    LI(beta=0.8),
)


def alone(neuron, noise) -> tuple[Network, Tensor]:
    network = Network((Dense(NEURON_COUNT), neuron), (5,), surrogate=Gaussian(1.3)).double()
    return network, noise(11, 3, 5, scale=2, dtype=torch.float64)


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
def test_the_error_is_what_the_adjoint_by_hand_gives(neuron, noise):
    network, x = alone(neuron, noise)

    layer = trace(network, x, TARGETS).layers[0]

    # the hand-written adjoint of one step, from the last step to the first; the trace comes from autograd of the step
    slope_at = torch_slope(network.surrogate)
    adjoint = witness.bound(
        witness.advance_vjp, neuron, real=float, slope_at=lambda u, theta, slope: slope_at(u, theta)
    )
    out = network(x).detach().requires_grad_()
    direct = torch.autograd.grad(CountCrossEntropy()(out, TARGETS), out)[0]
    values = [torch.as_tensor(value, dtype=torch.float64) for value in witness.values_of(neuron)]
    i, a, v, s = states(neuron, layer.inputs)
    gi = ga = gv = gs = torch.zeros_like(v[0])
    for t in reversed(range(len(x))):
        if is_spiking(neuron):
            gs = gs + direct[t]
            ours = gv + gs * slope_at(v[t + 1] - values[4] - values[3] * a[t + 1], values[4])
            assert_near(share=1e-12, spike_error=(layer.spike_error[t], gs.expand_as(layer.error[t])))
        else:
            gv = ours = gv + direct[t]
        assert_near(share=1e-12, error=(layer.error[t], ours))
        gi, ga, gv, gs, *_ = adjoint(gi, ga, gv, gs, i[t], a[t], v[t], s[t], i[t + 1], a[t + 1], v[t + 1], *values, 1.3)


def states(neuron, inputs: Tensor) -> list[Tensor]:
    """Each part of the state before the first step and after every one, by `simulate` one step at a time."""
    state, rows = None, [[torch.zeros_like(inputs[0])] * 4]
    for x in inputs:
        _, state = simulate(neuron, x[None], state)
        present = {name: part for name, part in state._asdict().items() if part is not None}
        rows.append(witness.state_of(neuron, present, torch.zeros_like(x), x))
    return [torch.stack(part) for part in zip(*rows, strict=True)]


@pytest.mark.parametrize("front", (LIF(beta=0.9), Recurrent(LIF(beta=0.9, detach_reset=False))), ids=repr)
def test_the_error_of_an_lif_is_what_the_fast_kernels_hand_to_its_input(front, noise):
    network = Network((Dense(7), front, Dense(5), LIF(beta=0.8)), (6,)).double()
    x = noise(13, 3, 6, scale=3, dtype=torch.float64)

    traced = trace(network, x, TARGETS)

    # v = beta * v + x - ..., so dL/dv = dL/dx; the kernels add an adjoint up in C++, autograd in torch
    z = network.layers[0](x).detach().requires_grad_()
    y = network.layers[2](network.layers[1](z)[0])
    wanted = torch.autograd.grad(CountCrossEntropy()(network.layers[3](y)[0], TARGETS), (z, y))
    for layer, want in zip(traced.layers, wanted, strict=True):
        assert_near(share=1e-12, error=(layer.error, want))


def test_spikes_potentials_and_loss_are_the_networks(noise):
    network, x = Network(STACK, (6,)), noise(12, 3, 6, scale=3)

    traced = trace(network, x, TARGETS)

    activities, _ = network.observe(x)
    for layer, activity in zip(traced.layers, activities, strict=True):
        assert layer.name == activity.name
        assert_near(share=1e-5, spikes=(layer.spikes, activity.spikes), v=(layer.potentials, activity.potentials))
    assert traced.loss == pytest.approx(CountCrossEntropy()(network(x), TARGETS).item(), rel=1e-5)


def test_gradient_norms_are_those_of_a_backward_pass(noise):
    network, x = Network(STACK, (6,)).double(), noise(12, 3, 6, scale=3, dtype=torch.float64)

    traced = trace(network, x, TARGETS)

    CountCrossEntropy()(network(x), TARGETS).backward()
    for index in (0, 2, 4):
        size = sum(float(weight.grad.square().sum()) for weight in network.layers[index].parameters()) ** 0.5
        assert traced.gradients[network.name(index)] == pytest.approx(size, rel=1e-10)


@pytest.mark.parametrize("training", (True, False))
def test_a_trace_leaves_the_training_path_as_it_was(training, noise):
    network = Network((Dense(8), BatchNorm(), LIF(beta=0.9), Dropout(0.5), Dense(4), LIF(beta=0.9)), (6,)).train(
        training
    )
    x = noise(7, 3, 6)
    CountCrossEntropy()(network(x), TARGETS).backward()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gradients, drawn = [weight.grad.clone() for weight in network.parameters()], torch.get_rng_state()

    trace(network, x, TARGETS)

    assert_same(**{name: (value, before[name]) for name, value in network.state_dict().items()})
    assert_same(**{str(n): (w.grad, g) for n, (w, g) in enumerate(zip(network.parameters(), gradients, strict=True))})
    assert torch.equal(torch.get_rng_state(), drawn)
    assert network.training == training
    assert not x.requires_grad


def test_a_trace_goes_on_from_a_state(noise):
    network, x = Network(STACK, (6,)).double(), noise(12, 3, 6, scale=3, dtype=torch.float64)
    _, state = network.run(x[:5])

    traced = trace(network, x[5:], TARGETS, state=state)

    whole = trace(network, x, TARGETS)
    for late, layer in zip(traced.layers, whole.layers, strict=True):
        assert_near(share=1e-12, potentials=(late.potentials, layer.potentials[5:]))


def test_a_network_for_a_chip_is_traced_in_floats_with_its_weights():
    model, x = (Dense(7), LIF(beta=0.9, reset="zero"), Dense(4), LIF(beta=0.8, reset="zero")), torch.ones(8, 3, 6)

    chip, plain = (trace(kind(Network(model, (6,))), x, TARGETS) for kind in (OnChip, lambda network: network))

    assert chip.loss == plain.loss
    assert_same(errors=(chip.errors, plain.errors))


def test_the_error_map_and_its_gains_are_norms(noise):
    network, x = Network(STACK, (6,)).double(), noise(12, 3, 6, scale=3, dtype=torch.float64)

    traced = trace(network, x, TARGETS)

    assert traced.errors.shape == (3, 12)
    assert float(traced.errors[1, 4]) == pytest.approx(float(traced.layers[1].error[4].norm()))
    assert traced.gains[0] == pytest.approx(float(traced.layers[0].error.norm() / traced.layers[1].error.norm()))
    assert traced.time_gains[2] == pytest.approx(float(traced.errors[2, :3].max() / traced.errors[2, -3:].max()))


def test_the_window_counts_potentials_near_the_threshold_in_force():
    # without a leak each step adds 0.5: u = v - 1 is -0.5, 0, 0.5 - 1 * 0, ...; a box of half-width 0.4 sees zeros
    network = Network((LIF(beta=1.0, reset="none"),), (1,), surrogate=Gaussian(5.0))
    x = torch.full((4, 1, 1), 0.5)

    layer = trace(network, x, torch.zeros(1, dtype=torch.long)).layers[0]

    # u = -0.5, 0, 0.5, 1; a Gaussian of deviation 0.2 is above a tenth of its height within 0.43
    assert layer.window == 0.25
    assert layer.distances.flatten().tolist() == [-0.5, 0.0, 0.5, 1.0]


def test_learned_decays_are_part_of_a_trace(noise):
    network = Network((Dense(4), Spiking(LIF(beta=0.9), learn=("beta",))), (6,))

    layer = trace(network, noise(5, 3, 6), TARGETS).layers[0]

    assert_same(rtol=1e-6, beta=(layer.decays["beta"], torch.full((4,), 0.9)))


def test_a_trace_is_told_as_a_table_and_as_json(noise):
    traced = trace(Network(STACK, (6,)), noise(12, 3, 6, scale=3), TARGETS)

    first = [line.split()[0] for line in str(traced).splitlines()]
    assert first == ["loss", "layer", "model.1", "model.3", "model.5"]
    assert len(traced.record()["layers"][0]["error"]) == 12
