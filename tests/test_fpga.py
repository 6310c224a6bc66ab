"""What runs while training for a circuit of one's own is its integers, and what it cannot hold is refused."""

import json

import numpy as np
import pytest
import torch
from catalogue import assert_near, assert_same
from runs import DIGITS

from snn_bp import (
    ALIF,
    LI,
    LIF,
    ATan,
    BatchNorm,
    Conv,
    CubaLIF,
    Delay,
    Dense,
    Experiment,
    Fixed,
    Flatten,
    Network,
    OnChip,
    Pool,
    Recurrent,
    SnnError,
    Spiking,
    Train,
    resume,
    train,
)
from snn_bp.chip.arithmetic import hardware_of
from snn_bp.chip.forward import _equation, _IntegerNeurons, _weights, on_grid, run_chip
from snn_bp.chip.graph import same
from snn_bp.chip.in_a_row import carried, in_a_row
from snn_bp.chip.netx_rules import check_netx
from snn_bp.chip.quantize import may_fire_alone, quantize, rounded_decays
from snn_bp.chip.replay import simulate
from snn_bp.chip.rules import chip_blocks
from snn_bp.kernels.reference import Spike, torch_slope
from snn_bp.model.network import deep_copy
from snn_bp.neurons.leaky import RESETS
from snn_bp.runs.changes import override
from snn_bp.runs.experiment import from_json, to_json

DENSE = (Dense(13), BatchNorm(), LIF(beta=0.7), Dense(4), LI(beta=0.9))


def models(reset: str) -> dict:
    """A few models, each with its input."""
    kind = {"reset": reset}
    delay, each = Delay(tuple(range(7))), Spiking(LIF(beta=0.9, **kind), learn=("beta", "threshold"))
    channels = Spiking(LIF(beta=0.5, **kind), learn=("threshold",), per="channel")
    return {
        "dense": ((9,), (Dense(13), BatchNorm(), LIF(beta=0.7, **kind), Dense(4), LI(beta=0.9))),
        "recurrent": (
            (9,),
            (Delay(2), Dense(7), Recurrent(CubaLIF(alpha=0.5, beta=1.0, **kind), bias=True), delay, Dense(4), each),
        ),
        "images": (
            (2, 9, 11),
            (
                *(Pool(2, kind="sum"), Conv(4, 3), BatchNorm(), channels),
                *(Conv(4, (2, 1), padding=1, groups=2), Pool(2), CubaLIF(alpha=0.3, beta=0.5, threshold=0.4, **kind)),
                *(Flatten(), Dense(3), LI(beta=0.5, alpha=0.25)),
            ),
        ),
    }  # fmt: skip


def on_chip(name: str, target, reset: str = "subtract") -> Network:
    shape, model = models(reset)[name]
    network = OnChip(Network(model, shape, seed=3), target)
    with torch.no_grad():
        for layer in network.layers:
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                layer.weight *= 2.5  # nobody is silent
            for raw in getattr(layer, "learned", {}).values():
                raw += 0.1 * torch.arange(raw.numel()).view_as(raw)
            if hasattr(layer, "running_mean"):
                layer.running_mean += 0.1
                layer.running_var *= 0.3
    return network


@pytest.mark.parametrize("name", models("zero"))
@pytest.mark.parametrize(
    "target, reset",
    [
        (Fixed(), "subtract"),
        (Fixed(weight_bits=4, state_bits=12, decay="multiply"), "zero"),
        (Fixed(weight_bits=6, state_bits=24), "none"),
        *(
            pytest.param(Fixed(weight_bits=5 + k % 4, state_bits=12 + k, decay=decay), reset, marks=pytest.mark.slow)
            for k, reset in enumerate(RESETS)
            for decay in ("shift", "multiply")
        ),
    ],
)
def test_the_forward_pass_is_the_replay_of_the_circuit(target, reset, name, coin):
    network = on_chip(name, target, reset).eval()
    x = coin(13, 3, *network.input_shape, probability=0.3) * 2

    graph = quantize(network, input_bits=8)
    replay = simulate(graph, x, record=True)

    for population, spikes, potentials, (_, out, membrane, _) in zip(
        graph.populations, replay.spikes, replay.potentials, run_chip(network, x), strict=True
    ):
        unit = graph.arithmetic.unit
        assert_same(potentials=(torch.from_numpy(potentials), (membrane.detach() * unit).int().view(potentials.shape)))
        if not population.readout:
            assert_same(spikes=(torch.from_numpy(spikes), out.detach().to(torch.int8).view(spikes.shape)))
            assert 0 < spikes.mean() < 1, "a silent layer would prove nothing"
        low, high = hardware_of(target).weights
        assert low <= population.weight.min() and high / 2 < population.weight.max() <= high


def test_recordings_in_a_row_are_as_each_alone(coin):
    graph = quantize(on_chip("recurrent", "fpga").eval())
    x = coin(11, 9, 9, probability=0.4)

    assert (graph.latency, graph.pause, carried(graph)) == (0, 0, ())
    together = in_a_row(graph, x)

    for number in range(9):
        alone = simulate(graph, x[:, number : number + 1])
        np.testing.assert_array_equal(alone.out[:, 0], together.out[:, number])
    assert len(together.out) == len(x)


@pytest.mark.parametrize(
    "kind", [LIF(beta=0.5), CubaLIF(alpha=0.5, beta=0.5), LIF(beta=0.5, reset="zero_all")], ids=repr
)
def test_gradients_are_those_of_the_equation_in_weights_of_the_network(kind, noise):
    """Integers far from their ends round by so little that autograd of the same steps in floats gives the same."""
    hardware = hardware_of(Fixed(state_bits=24, fraction_bits=8, decay="multiply"))
    sums = (noise(9, 2, 5, dtype=torch.float64, scale=60).round()).requires_grad_()
    bias = (256 * torch.tensor([3.0, -2, 0, 8, 1], dtype=torch.float64)).requires_grad_()
    current = isinstance(kind, CubaLIF)
    kept = [torch.full((5,), share, dtype=torch.float64, requires_grad=True) for share in (2048.0 * current, 2048.0)]
    threshold = torch.full((5,), 70.0 * 256, dtype=torch.float64, requires_grad=True)
    leaves = (sums, *(torch.zeros(2, 5, dtype=torch.float64) for _ in range(3)), bias, *kept, threshold)
    weigh = [noise(9, 2, 5, seed=7 + k, dtype=torch.float64) for k in range(2)]
    wanted = [sums, bias, kept[1], threshold]

    spikes, potentials, *_ = _IntegerNeurons.apply(*leaves, ATan(), _equation(kind), kind.reset, hardware)
    got = torch.autograd.grad((spikes * weigh[0] + potentials * weigh[1]).sum(), wanted)

    u = v = s = torch.zeros(2, 5, dtype=torch.float64)
    theta, rows = threshold / 256, []
    for step in sums:
        u = u * kept[0] / 4096 + step
        free, r = v * kept[1] / 4096 + u + bias / 256, s.detach()
        v = free * (1 - r) if kind.reset == "zero_all" else free - theta * r
        s = Spike.apply(v - theta, theta, torch_slope(ATan()))
        rows.append((s, v))
    loss = sum((s * weigh[0][t] + v * weigh[1][t]).sum() for t, (s, v) in enumerate(rows))
    for mine, theirs in zip(got, torch.autograd.grad(loss, wanted), strict=True):
        assert_near(share=2e-3, gradients=(mine, theirs))
    assert spikes.mean() > 0.02


def test_what_is_observed_is_in_units_of_the_network(coin):
    network = on_chip("images", "fpga").eval()
    x = coin(13, 3, *network.input_shape, probability=0.3)

    activities, _ = network.observe(x)

    for activity, layer in zip(activities[:2], (network.layers[3], network.layers[6]), strict=True):
        theta = layer.parameters_now().get("theta", torch.tensor(layer.neuron.threshold))
        theta = theta.view(-1, 1, 1) if theta.dim() == 1 else theta
        below = (activity.potentials < theta * 0.999) & (activity.spikes > 0)
        above = (activity.potentials > theta * 1.001) & (activity.spikes == 0)
        assert activity.spikes.any() and not below.any() and not above.any()


def test_each_neuron_has_a_scale_of_its_own_and_a_threshold_that_goes_with_it():
    floats = Network((Dense(3), LIF(beta=0.5, threshold=(0.5, 1.0, 2.0)), Dense(2), LI(beta=0.5)), (4,))
    with torch.no_grad():
        floats.layers[0].weight *= torch.tensor([[0.2], [1.0], [3.0]])

    blocks = chip_blocks(floats, hardware_of("fpga"))
    grid, readout = (on_grid(block, hardware=hardware_of("fpga")) for block in blocks)

    assert grid.scale.shape == (3,) and isinstance(readout.scale, float)
    weight, unit = grid.sum.weight.detach(), hardware_of("fpga").arithmetic.unit
    assert_near(share=0.01, threshold=(grid.threshold / unit / grid.scale, torch.tensor([0.5, 1.0, 2.0])))
    assert weight.abs().amax(1).min() > 30, "the smallest row is as fine as the others"


@pytest.mark.parametrize(
    "beta, kept",
    [
        (0.0, 0),
        (0.2, 0),
        (0.3, 2048),
        (0.5, 2048),
        (0.8, 3072),
        (0.9, 3584),
        (0.9995, 4094),
        (0.9998, 4095),
        (1.0, 4096),
    ],
)
def test_a_shift_is_the_nearest_power_of_two_that_is_lost(beta, kept):
    network = OnChip(Network((Dense(3), Spiking(LIF(beta=beta or 0.0)), Dense(3), LIF(beta=beta)), (4,)), "fpga")

    assert {4096 - population.voltage_decay for population in quantize(network).populations} == {kept}


def test_a_decay_that_a_shift_changes_is_said():
    network = Network((Dense(3), CubaLIF(alpha=0.5, beta=0.8), Dense(3), LIF(beta=0.752)), (4,))

    (said,) = rounded_decays(OnChip(network, "fpga"))

    assert "model.1 CubaLIF" in said and "its beta, 0.8, becomes 0.75" in said
    assert rounded_decays(OnChip(network, Fixed(decay="multiply"))) == []


def test_a_decay_learns_through_its_shift(coin):
    network = OnChip(Network((Dense(9), Spiking(LIF(beta=0.8), learn=("beta", "threshold"))), (4,)), "fpga")

    network(coin(11, 3, 4, probability=0.7)).sum().backward()

    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.parameters())


def test_a_target_comes_back_from_json_and_is_changed_by_its_parts():
    experiment = Experiment(DIGITS, (Flatten(), Dense(10), LIF(beta=0.5)), Train(target=Fixed(weight_bits=6)))

    again = from_json(json.loads(json.dumps(to_json(experiment))))
    changed, _ = override(experiment, ["train.target.weight_bits=4"])
    named, _ = override(experiment, ["train.target=Fixed(decay='multiply')"])

    assert again == experiment
    assert changed.train.target == Fixed(weight_bits=4)
    assert named.train.target == Fixed(decay="multiply")
    assert override(experiment, ["train.target=fpga"])[0].train.target == "fpga"
    with pytest.raises(SnnError, match="Did you mean 'fpga'"):
        override(experiment, ["train.target=fgpa"])


@pytest.mark.slow
def test_a_run_for_a_circuit_is_resumed_as_if_it_had_not_stopped(tmp_path):
    experiment = Experiment(DIGITS, (Flatten(), *DENSE[:3], Dense(10), LI(beta=0.5)), Train(epochs=2, target=Fixed(6)))

    whole = train(experiment, tmp_path / "whole")
    for event in _steps(experiment, tmp_path / "halves"):
        if event.epoch == 2:
            break
    halves = resume(tmp_path / "halves")

    graphs = [quantize(run.network("last")) for run in (whole, halves)]
    assert same(*graphs) is None
    assert graphs[0].arithmetic == Fixed(6).arithmetic


def _steps(experiment, out):
    from snn_bp import training

    return training(experiment, out)


def test_a_network_in_floats_is_rounded_to_the_target_asked_for():
    floats = Network(DENSE, (9,)).eval()

    graph = quantize(floats, target=Fixed(weight_bits=5))

    assert same(graph, quantize(OnChip(floats, Fixed(weight_bits=5)))) is None
    assert "arithmetic" in same(graph, quantize(floats, target="fpga"))
    with pytest.raises(SnnError, match=r"export: .*weight_bits=5.*Leave target out"):
        quantize(OnChip(floats, Fixed(weight_bits=5)), target="fpga")


@pytest.mark.parametrize(
    "model, said",
    [
        ((Dense(3), ALIF(beta=0.5, rho=0.5, kappa=0.1)), "for an FPGA, model.1 ALIF.*no adaptation"),
        ((Dense(3), LIF(beta=0.5), Pool(2, kind="max")), "."),
        ((Dense(3), LI(beta=0.5), Dense(3), LIF(beta=0.5)), "sends potentials"),
        ((Delay(300, max_steps=400), Dense(3), LIF(beta=0.5)), "reach 300 steps, at most 255 are held"),
        ((Dense(3),), "no neurons behind"),
    ],
)
def test_what_no_circuit_holds_is_refused(model, said):
    with pytest.raises(SnnError, match=said):
        OnChip(Network(model, (4,)), "fpga")


def test_a_threshold_beyond_half_the_state_makes_the_weights_smaller():
    network = Network((Dense(3), LIF(beta=0.5, threshold=100.0)), (4,))

    population = quantize(network, target=Fixed(state_bits=12)).populations[0]

    assert np.max(population.threshold) <= 1023
    assert np.abs(population.weight).max() < 20
    with pytest.raises(SnnError, match="round to zero"):
        quantize(Network((Dense(3), LIF(beta=0.5, threshold=1e5)), (4,)), target=Fixed(state_bits=12))


@pytest.mark.parametrize("target, lowest", [("loihi", -127), ("fpga", -128)])
def test_a_copy_keeps_to_the_hardware(target, lowest):
    network = Network((Dense(1), LIF(beta=0.5, reset="zero")), (4,))

    copy = deep_copy(OnChip(network, target))

    below = _weights(torch.tensor([[-1000.0, -1.0]]), 1.0, copy.hardware)
    assert copy.hardware == hardware_of(target)
    assert below.tolist() == [[lowest, -1]]  # lava misreads -128 where no weight is positive


@pytest.mark.parametrize("target", ["loihi", "fpga"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_floats_that_cannot_hold_a_state_are_refused(target, dtype):
    network = Network((Dense(5), LIF(beta=0.75, reset="zero")), (3,)).to(dtype)

    with pytest.raises(SnnError, match=r"holds no integers .* Use network\.float\(\)"):
        OnChip(network, target)(torch.ones(2, 1, 3, dtype=dtype))


def test_another_reset_than_loihis_is_said_to_have_a_circuit():
    with pytest.raises(SnnError, match='Train with reset="zero", or for a circuit with target="fpga"'):
        quantize(Network((Dense(5), LIF(beta=0.75)), (3,)))


def test_what_would_have_no_circuit_is_refused_before_training(monkeypatch, tmp_path):
    monkeypatch.setattr("snn_bp.chip.verilog.rules.NEURONS_HIGH", 9)
    experiment = Experiment(DIGITS, (Flatten(), Dense(10), LIF(beta=0.5)), Train(target="fpga"))

    with pytest.raises(SnnError, match="for a circuit, population 0: its shape"):
        train(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_netx_file_holds_loihis_arithmetic_only():
    network = Network((Dense(3), LIF(beta=0.5, reset="zero")), (4,))

    check_netx(quantize(network))

    with pytest.raises(SnnError, match="not of Loihi's arithmetic"):
        check_netx(quantize(network, target="fpga"))


@pytest.mark.parametrize("options", [{"weight_bits": 3}, {"state_bits": 25}, {"decay": "float"}, {"fraction_bits": 9}])
def test_a_circuit_of_other_widths_is_refused(options):
    with pytest.raises(SnnError, match=next(iter(options))):
        Fixed(**options)


def test_nothing_is_carried_into_the_next_recording():
    recurrent = Network((Dense(3), Recurrent(LIF(beta=0.5), bias=True)), (4,))

    assert may_fire_alone(OnChip(recurrent, "fpga")) == []
