"""Xylo: our integers are the simulator's, training runs in them, and what the chip cannot hold is refused."""

import importlib
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import runs
import torch

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    CountCrossEntropy,
    CubaLIF,
    Data,
    Delay,
    Dense,
    Dropout,
    Experiment,
    Flatten,
    Module,
    Network,
    OnChip,
    Recurrent,
    Residual,
    SnnError,
    Spiking,
    TemporalConv,
    Train,
    evaluate,
    export,
    resume,
    train,
    verify,
)
from snn_bp.chip.xylo.configuration import Configuration, read_xylo, same, write_xylo
from snn_bp.chip.xylo.forward import run_xylo
from snn_bp.chip.xylo.quantize import configuration_of
from snn_bp.chip.xylo.replay import simulate
from snn_bp.chip.xylo.simulator import run_simulator, simulator_missing
from snn_bp.kernels.reference import torch_slope
from snn_bp.kernels.xylo import simulate_xylo
from snn_bp.model.network import deep_copy
from snn_bp.runs.evaluation import count_activity

finished = runs.finished  # trained in floats
training = importlib.import_module("snn_bp.trainer.loop")

RESET = "subtract_before_leak"
NEURON = CubaLIF(alpha=0.75, beta=0.875, reset=RESET)
OPEN = replace(NEURON, detach_reset=False)
SLOW = CubaLIF(alpha=0.5, beta=(0.9375, 0.0, 0.5, 0.75, 0.5, 0.5, 0.5), threshold=0.7, reset=RESET)
MODELS = {
    "one hidden layer": (Dense(9), NEURON, Dense(4), NEURON),
    "norms and a row of layers": (
        *(Dense(9), BatchNorm(), NEURON, Dense(7), BatchNorm(), SLOW, Dropout(0.5)),
        *(Dense(8, bias=False), NEURON, Dense(3), NEURON),
    ),
    "gradients through the reset": (Dense(9), OPEN, Dense(8), Recurrent(OPEN), Dense(4), OPEN),
    "recurrence": (Dense(9), Recurrent(NEURON), Dense(7), Recurrent(SLOW), Dense(4), NEURON),
}
MOST = 31


def network_of(model, inputs=6, scale=0.4, seed=0):
    """A network with numbers in every parameter, large enough that hidden neurons fire several times."""
    network = Network(model, (inputs,), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for part in network.parameters():
        part.data += scale * torch.randn(part.shape, generator=generator)
    return network.eval()


def counts_of(steps=25, batch=3, inputs=6, seed=0, rate=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full((steps, batch, inputs), rate), generator=generator).clamp(max=15)


def drawn(seed):
    """A network of random numbers within all limits, and counts that drive it."""
    generator = np.random.default_rng(seed)
    hidden, inputs, outputs = (int(generator.integers(5, 20)), 3), int(generator.integers(1, 17)), 2
    sizes, largest = sum(hidden), (7, 127)[seed % 2]

    def within(low, high, *shape):
        return generator.integers(low, high + 1, shape)

    numbers = {
        f"{name}{part}": within(low, high, count)
        for part, count in (("", sizes), ("_out", outputs))
        for name, low, high in (("dash_syn", 0, 15), ("dash_mem", 0, 15), ("threshold", 1, 3000))
    }
    configuration = Configuration(
        hidden=hidden, step_ms=1.0,
        weights_in=within(-largest - 1, largest, inputs, sizes), weights_rec=within(-largest, largest, sizes, sizes),
        weights_out=within(-largest, largest, sizes, outputs), bias_hidden=within(-3000, 3000, sizes),
        bias_out=within(0, 30000, outputs), weight_shift_in=seed % 8, weight_shift_rec=seed % 5,
        weight_shift_out=seed % 3, **numbers,
    )  # fmt: skip
    return configuration, within(0, 15, 30, 2, inputs) * (generator.random((30, 2, inputs)) < 0.3)


def one_neuron(**given):
    """One input, one hidden neuron, one output."""
    zero, one = np.zeros(1, np.int64), np.ones(1, np.int64)
    numbers = {
        "weights_in": 10 * one[None], "weights_rec": zero[None], "weights_out": one[None], "dash_syn": 15 * one,
        "dash_mem": 15 * one, "threshold": 1000 * one, "bias_hidden": zero, "dash_syn_out": one, "dash_mem_out": one,
        "threshold_out": one, "bias_out": zero,
    }  # fmt: skip
    return Configuration(hidden=(1,), step_ms=1.0, **(numbers | given))


@pytest.mark.parametrize("seed", range(8))
def test_every_number_is_that_of_the_simulator(seed):
    if missing := simulator_missing():
        pytest.skip(missing)
    configuration, x = drawn(seed)

    ours, theirs = vars(simulate(configuration, x)), vars(run_simulator(configuration, x))

    assert ours["spikes"].max() == MOST and ours["out"].any()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)


@pytest.mark.parametrize("seed", range(8))
def test_the_compiled_step_is_the_replay(seed):
    configuration, x = drawn(seed)
    wanted = simulate(configuration, x)
    weight = [(configuration.weights_in << configuration.weight_shift_in)]
    weight.append(configuration.weights_rec << configuration.weight_shift_rec)
    weight = torch.from_numpy(np.concatenate(weight)).float().T
    names = ("bias_hidden", "dash_syn", "dash_mem", "threshold")
    bias, syn, mem, threshold = (torch.from_numpy(getattr(configuration, name)).float() for name in names)

    state, rows = tuple(torch.zeros(x.shape[1], len(bias)) for _ in range(3)), []
    for step in torch.from_numpy(x).float():
        sent = torch.cat([step, state[2]], dim=1)[None]
        *row, state = simulate_xylo(sent, weight, bias, (syn, mem), threshold, MOST, state)
        rows.append(row)
    spikes, potentials, currents = (torch.cat(each).numpy() for each in zip(*rows, strict=True))

    np.testing.assert_array_equal(spikes, wanted.spikes)
    np.testing.assert_array_equal(potentials - spikes * configuration.threshold, wanted.potentials)
    np.testing.assert_array_equal(currents, wanted.currents)


def test_a_decay_takes_one_at_least_and_rounds_down():
    x = np.zeros((4, 1, 1))
    x[0] = 1

    up = simulate(one_neuron(), x)
    down = simulate(one_neuron(weights_in=np.array([[-10]])), x)

    assert up.currents.ravel().tolist() == [9, 8, 7, 6]  # 10 >> 15 is 0, so 1
    assert down.currents.ravel().tolist() == [-9, -8, -7, -6]  # -10 >> 15 is -1


def test_a_neuron_fires_as_often_as_it_reaches_its_threshold_up_to_31_and_an_output_once():
    bias = np.array([100])

    few = simulate(one_neuron(bias_hidden=bias, threshold=np.array([20])), np.zeros((2, 1, 1)))
    many = simulate(one_neuron(bias_hidden=bias, threshold=np.array([2])), np.zeros((2, 1, 1)))

    assert few.spikes[0].item() == 5 and few.potentials[0].item() == 0
    assert many.spikes[0].item() == MOST and many.potentials[0].item() == 100 - 2 * MOST
    assert many.out.max() == 1


def test_a_current_saturates_at_each_weight_so_that_the_order_counts():
    weights = np.array([[127], [-128]])
    x = np.full((1, 1, 2), 15)

    found = simulate(one_neuron(weights_in=weights, weight_shift_in=5), x)
    other = simulate(one_neuron(weights_in=weights[::-1], weight_shift_in=5), x)

    assert found.currents.item() == 32767 - 15 * 128 * 32 + 1 and other.currents.item() == -32768 + 15 * 127 * 32 - 1


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_forward_pass_is_the_replay_of_what_is_exported(model):
    network, x = network_of(model), counts_of()
    configuration = configuration_of(network, step_ms=1.0)

    with torch.no_grad():
        ran = list(run_xylo(network, x))
    later = configuration.latency
    replay = simulate(configuration, np.concatenate([x.numpy(), np.zeros((later, *x.shape[1:]))]))

    assert max(float(spikes.max()) for _, spikes, _, _ in ran) > 1
    ends = np.cumsum([0, *configuration.hidden])
    for index, (_, spikes, potentials, grid) in enumerate(ran):
        rows, after = slice(index, index + len(x)), (potentials - spikes * grid.threshold).numpy()
        columns = slice(*ends[index : index + 2]) if index < later else slice(None)
        of = (replay.spikes, replay.potentials) if index < later else (replay.out, replay.out_potentials)
        np.testing.assert_array_equal(spikes.numpy(), of[0][rows, :, columns])
        np.testing.assert_array_equal(after, of[1][rows, :, columns])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_gradients_are_those_of_the_equation_with_the_surrogate_at_the_nearest_threshold(model, noise):
    network, x = network_of(model, scale=0.2), counts_of(steps=12)
    ran = list(run_xylo(network, x))
    g = noise(*ran[-1][1].shape)

    (ran[-1][1] * g).sum().backward()
    found = [part.grad.clone() for part in network.parameters()]
    network.zero_grad()
    (_in_torch(network, x, ran) * g).sum().backward()

    assert sum(float(part.grad.abs().sum()) for part in network.parameters()) > 0
    for mine, part in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(mine, part.grad, rtol=1e-3, atol=1e-4 * float(part.grad.abs().max()))


def _in_torch(network, x, ran):
    """The last counts by autograd through the equations, with the numbers of the integers put in their place."""
    configuration, sent = configuration_of(network, step_ms=1.0), x
    later, ends = configuration.latency, np.cumsum([0, *configuration.hidden])
    replay = simulate(configuration, np.concatenate([x.numpy(), np.zeros((later, *x.shape[1:]))]))
    for index, ((block, *_), (*_, grid)) in enumerate(zip(ran, run_xylo(network, x), strict=True)):
        columns, last = slice(*ends[index : index + 2]), index == later
        of = (
            (replay.out, replay.out_potentials)
            if last
            else (replay.spikes[..., columns], replay.potentials[..., columns])
        )
        counts, theta = torch.from_numpy(of[0]).float(), grid.threshold.detach()
        potentials = torch.from_numpy(of[1]).float() + theta * counts
        slope = torch_slope(block.neurons.surrogate)
        alpha, beta = (1 - torch.exp2(-dash).float() for dash in grid.dashes)
        i = v = s = torch.zeros_like(potentials[0])
        out = []
        for t, step in enumerate(sent):
            arriving = step @ grid.weight.T + (0 if grid.recurrent is None else s @ grid.recurrent.T)
            i = alpha * (i + arriving)
            v = beta * (v - theta * (s.detach() if block.neurons.neuron.detach_reset else s)) + i + grid.bias
            nearest = (potentials[t] / theta).round().clamp(1, 1 if last else MOST)
            s = counts[t] + slope(potentials[t] - nearest * theta, theta) * (v - v.detach())
            out.append(s)
        sent = torch.stack([torch.zeros_like(s), *out])
    return sent[later + 1 :]


@pytest.mark.parametrize(
    "model, said",
    [
        ((Dense(8), NEURON), "outputs get spikes of hidden neurons only, found one layer"),
        ((Dense(8), NEURON, Dense(9), NEURON), "9 outputs, the chip 8"),
        ((Dense(700), NEURON, Dense(301), NEURON, Dense(8), NEURON), "1001 hidden neurons, the chip 1000"),
        ((Dense(8), NEURON, Dense(4), Recurrent(NEURON)), "without Recurrent"),
        ((Dense(8), NEURON, Dense(4), LI(beta=0.5)), "LI is not the chip's neuron"),
        ((Dense(8), LIF(beta=0.5, reset=RESET), Dense(4), NEURON), "LIF is not the chip's neuron"),
        ((Dense(8), CubaLIF(alpha=0.5, beta=0.5), Dense(4), NEURON), "resets by 'subtract'"),
        ((Dense(8), replace(NEURON, beta=0.9), Dense(4), NEURON), "The nearest is beta=0.875"),
        ((Dense(8), replace(NEURON, alpha=0.0), Dense(4), NEURON), "alpha=0: the chip decays by a shift"),
        ((Dense(8), replace(NEURON, beta=1.0), Dense(4), NEURON), "beta=1: the chip decays by a shift"),
        ((Dense(8), Spiking(NEURON, learn=("beta",)), Dense(4), NEURON), "a decay is a shift"),
        ((Dense(8), NEURON, Delay(2), Dense(4), NEURON), "the chip has nothing like it"),
        ((NEURON, Dense(4), NEURON), "Put a Dense in front"),
        ((Dense(8), NEURON, Dense(8), Dense(4), NEURON), "two weighted sums in a row"),
        ((Dense(8), Dropout(0.2), NEURON, Dense(4), NEURON), "Dropout of weighted sums"),
        ((BatchNorm(), Dense(8), NEURON, Dense(4), NEURON), "a BatchNorm stands behind a Dense"),
        ((Dense(8), NEURON, Dense(4)), "no neurons behind it"),
        ((Dense(8), NEURON, Module(torch.nn.ReLU), Dense(4), NEURON), "Module(ReLU) is of the class"),
        ((Dense(8), NEURON, TemporalConv(8, 2), Dense(4), NEURON), "the chip has nothing like it"),
        ((Residual(Dense(6), NEURON), Dense(8), NEURON, Dense(4), NEURON), "joins branches"),
    ],
)
def test_what_the_chip_does_not_have_is_refused_with_what_would_do(model, said):
    with pytest.raises(SnnError, match="for Xylo") as refused:
        list(run_xylo(Network(model, (6,)), counts_of()))

    assert said in str(refused.value)


def test_more_than_16_inputs_and_images_are_refused():
    with pytest.raises(SnnError, match="17 inputs, the chip 16"):
        list(run_xylo(Network((Dense(8), NEURON, Dense(4), NEURON), (17,)), counts_of(inputs=17)))
    with pytest.raises(SnnError, match="no convolutions"):
        list(
            run_xylo(Network((Conv(2, 3), NEURON, Flatten(), Dense(4), NEURON), (1, 4, 4)), torch.zeros(5, 2, 1, 4, 4))
        )


@pytest.mark.parametrize("value", [16.0, -1.0, 0.5])
def test_an_input_that_is_no_count_of_up_to_15_is_refused(value):
    x = counts_of()
    x[3, 1, 2] = value
    network = network_of(MODELS["one hidden layer"])

    with pytest.raises(SnnError, match=r"integers in 0\.\.15"):
        list(run_xylo(network, x))
    with pytest.raises(SnnError, match=r"integers in 0\.\.15"):
        simulate(configuration_of(network, step_ms=1.0), x.numpy())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["layers.0.weight", "layers.2.bias"])
def test_a_number_that_is_none_is_refused(name, value):
    network = network_of(MODELS["one hidden layer"])
    dict(network.named_parameters())[name].data[1] = value

    with pytest.raises(SnnError, match="NaN or infinity"):
        configuration_of(network, step_ms=1.0)


def test_weights_that_are_all_zero_and_thresholds_far_below_them_are_refused():
    network = network_of(MODELS["one hidden layer"])
    network.layers[2].weight.data[:] = 0
    with pytest.raises(SnnError, match="all zero"):
        configuration_of(network, step_ms=1.0)

    small = (Dense(9), replace(NEURON, threshold=1e-6), Dense(4), NEURON)
    with pytest.raises(SnnError, match="less than a step of its weights"):
        configuration_of(network_of(small), step_ms=1.0)


def test_weights_over_alpha_and_biases_over_the_rest_stand_in_the_configuration_to_half_a_step():
    network = network_of(MODELS["one hidden layer"])  # alpha = 0.75, threshold = 1
    held, hidden, last = configuration_of(network, step_ms=1.0), network.layers[0], network.layers[2]

    for layer, weights, shift, threshold, bias in (
        (hidden, held.weights_in, held.weight_shift_in, held.threshold, held.bias_hidden),
        (last, held.weights_out, held.weight_shift_out, held.threshold_out, held.bias_out),
    ):
        assert (threshold == threshold[0]).all() and 512 <= threshold[0] <= 1024
        wanted = layer.weight.detach().numpy().T / 0.75 * threshold[0] / 2**shift
        assert np.abs(weights - wanted).max() <= 0.5 + 1e-3 and np.abs(weights).max() >= 126
        assert np.abs(bias - layer.bias.detach().numpy() / 0.25 * threshold[0]).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("silent", [0, 1])
def test_a_recurrence_of_zeros_is_no_obstacle(silent):
    network = network_of(MODELS["recurrence"])
    network.layers[1 + 2 * silent].recurrence.weight.data[:] = 0

    held = configuration_of(network, step_ms=1.0)

    assert not held.weights_rec[9 * silent :, 9 * silent :][: 9 - 2 * silent, : 9 - 2 * silent].any()
    assert held.weights_rec.any() and held.weights_in.any()


def test_a_file_holds_what_was_written_under_the_names_of_rockpool(tmp_path):
    configuration = configuration_of(network_of(MODELS["recurrence"]), step_ms=2.5)
    file = tmp_path / "chip.xylo"

    write_xylo(configuration, file)

    assert same(configuration, read_xylo(file)) is None
    content = json.loads(file.read_text())
    assert content["step_ms"] == 2.5 and content["hidden"] == [9, 7]
    assert np.shape(content["specification"]["weights_in"]) == (6, 16, 1)
    assert np.shape(content["specification"]["weights_rec"]) == (16, 16, 1)
    assert np.shape(content["specification"]["weights_out"]) == (16, 4)
    assert set(content["specification"]) == {
        "weights_in", "weights_rec", "weights_out", "dash_mem", "dash_mem_out", "dash_syn", "dash_syn_out", "threshold",
        "threshold_out", "bias_hidden", "bias_out", "weight_shift_in", "weight_shift_rec", "weight_shift_out",
    }  # fmt: skip


@pytest.mark.parametrize(
    "change, said",
    [
        ({"format": "other"}, "its format is 'other'"),
        ({"hidden": [9, 8]}, "there should be integers"),
        ({"specification": {}}, "no Xylo configuration"),
        ({"specification.threshold": [0] * 16}, "threshold: Xylo holds 1..32767, found 0..0"),
        ({"specification.dash_mem": [16] * 16}, "dash_mem: Xylo holds 0..15"),
        ({"specification.weights_out": [[0.5] * 4] * 16}, "weights_out: there should be integers"),
        ({"specification.weight_shift_in": 8}, "weight_shift_in: Xylo holds 0..7"),
        ({"specification.bias_out": [40000] * 4}, "bias_out: Xylo holds -32768..32767"),
        ({"specification.weights_in": [[[1]] * 16] * 17}, "inputs: Xylo has 1..16, found 17"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, change, said):
    file = tmp_path / "chip.xylo"
    write_xylo(configuration_of(network_of(MODELS["recurrence"]), step_ms=1.0), file)
    content = json.loads(file.read_text())
    for name, value in change.items():
        *path, last = name.split(".")
        (content[path[0]] if path else content)[last] = value
    file.write_text(json.dumps(content))

    with pytest.raises(SnnError) as refused:
        read_xylo(file)

    assert said in str(refused.value) and str(file) in str(refused.value)


@dataclass(frozen=True)
class Counts:
    """Counts of spikes in 6 channels, of which the first or the last three are busy."""

    class_names = ("first", "last")
    step_ms = 5.0

    def frames(self, part):
        generator, labels = np.random.default_rng(len(part)), np.arange(48) % 2
        rates = np.where((np.arange(6) < 3) == (labels[:, None] == 0), 1.5, 0.2)
        return generator.poisson(rates[:, None], (48, 12, 6)).clip(0, 15).astype(np.float32), labels


MODEL = (Dense(12), BatchNorm(), NEURON, Dense(8), Recurrent(NEURON), Dropout(0.1), Dense(2), NEURON)
TRAIN = Train(epochs=2, lr=1e-2, loss=CountCrossEntropy(), target="xylo")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(
        Experiment(Data(Counts(), batch=16), MODEL, TRAIN), tmp_path_factory.mktemp("xylo") / "run", quiet=True
    )


def test_a_run_is_exported_and_verified_down_to_every_potential(run, tmp_path):
    file = tmp_path / "chip.xylo"

    found = export(run, file)

    assert found.holds and found.compared == 2 * 48 * 12 * (12 + 8 + 2)
    assert found.accuracy["integer"] == found.accuracy["quantised"] == evaluate(run).accuracy
    assert read_xylo(file).step_ms == 5.0 and read_xylo(file).hidden == (12, 8)
    assert verify(run, file, samples=7).holds
    asked = [said for name, said in found.chips.items() if name.startswith("xylosim")]
    assert len(asked) == 1 and ("are equal" in asked[0] or "pip install" in asked[0])


def test_operations_count_each_spike_of_a_count(run, tmp_path):
    found, said = export(run, tmp_path / "chip.xylo"), evaluate(run)
    held, (x, _) = read_xylo(tmp_path / "chip.xylo"), run.dataset().batch("test", run.dataset().ids["test"])

    assert said.operations["model.0 Dense(12)"] == pytest.approx(float(x.sum()) * 12 / 48)
    sent = run.network("best").eval().observe(x)[0][1].spikes.detach()
    recurrent = next(count for name, count in said.operations.items() if "model.4" in name)
    assert sent.max() > 1 and recurrent == pytest.approx(float(sent[:-1].sum()) * 8 / 48)
    met = x.sum((0, 1)).numpy() @ (held.weights_in != 0).sum(1)
    assert found.operations["weights_in"] == pytest.approx(met / 48)


def test_a_copy_of_a_network_counts_the_same_operations():
    network, x = OnChip(network_of(MODELS["one hidden layer"]), "xylo"), torch.full((9, 2, 6), 3.0)
    counts: tuple[dict, dict] = {}, {}

    for each, operations in zip((network, deep_copy(network)), counts, strict=True):
        with torch.no_grad():
            count_activity(each, x, {}, operations)

    assert counts[0] == counts[1] and counts[0]["model.0 Dense(9)"] == x.sum() * 9


def test_a_file_with_another_number_is_not_what_the_network_does(run, tmp_path):
    file = tmp_path / "chip.xylo"
    export(run, file, verification=False)
    content = json.loads(file.read_text())
    content["specification"]["threshold_out"][1] += 1
    file.write_text(json.dumps(content))

    found = verify(run, file)

    assert not found.holds and "threshold_out: other numbers" in found.difference


def test_a_file_of_another_network_is_refused(run, tmp_path):
    file = tmp_path / "chip.xylo"
    write_xylo(configuration_of(network_of(MODELS["recurrence"]), step_ms=1.0), file)

    with pytest.raises(SnnError, match="name the run that the file is of"):
        verify(run, file)


def test_other_formats_are_refused_for_the_run_and_the_format_for_another_run(run, finished, tmp_path):
    for ending, said in ((".net", "Use a .xylo file"), (".nir", "whose shifts NIR does not have")):
        with pytest.raises(SnnError, match=said):
            export(run, tmp_path / f"chip{ending}")
    with pytest.raises(SnnError, match=r"Train with train\.target=xylo"):
        export(finished, tmp_path / "chip.xylo")

    assert list(tmp_path.iterdir()) == []


def test_a_training_on_xylo_that_was_killed_goes_on_to_the_same_end(run, tmp_path, monkeypatch):
    steps, original = 0, training.train_step

    def step(*arguments, **named):
        nonlocal steps
        steps += 1
        if steps == 4:  # in the second epoch
            raise KeyboardInterrupt
        return original(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_step", step)
        with pytest.raises(KeyboardInterrupt):
            train(run.experiment, tmp_path / "run", quiet=True, save_seconds=0)
    whole = resume(tmp_path / "run", quiet=True)

    first, second = (each.load("last").weights for each in (run, whole))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_network_on_the_chip_takes_the_calls_of_a_network(run):
    network = run.network("last").eval()
    assert isinstance(network, OnChip)
    x, _ = run.dataset().batch("test", np.arange(3))

    out, rates, _ = network.rates(x)
    activities, _ = network.observe(x)

    assert torch.equal(out, network(x)) and torch.equal(out, activities[-1].spikes)
    assert [tuple(rate.shape) for rate in rates] == [(12,), (8,)]
    for activity in activities:  # a count that is not at its end says between which thresholds the potential is
        free = activity.spikes < (1 if activity is activities[-1] else MOST)
        below = (activity.potentials / activity.neuron.threshold + 1e-4).floor().clamp(min=0)
        assert torch.equal(activity.spikes[free], below[free])
