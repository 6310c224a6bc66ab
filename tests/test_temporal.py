"""Layers that look back in time: each against a loop over steps in plain arithmetic, whole and in pieces."""

import json

import pytest
import torch
from catalogue import assert_near, assert_same

from snn_bp import (
    LI,
    LIF,
    CountCrossEntropy,
    Data,
    DelayedDense,
    Dense,
    Experiment,
    Flatten,
    Network,
    OnChip,
    SnnError,
    TemporalConv,
    check_gradients,
    diagnose,
    start_alive,
    trace,
)
from snn_bp.exchange.nir_write import write_nir
from snn_bp.exchange.snntorch import to_snntorch
from snn_bp.instruments.online import ottt
from snn_bp.model.finite import first_nonfinite
from snn_bp.model.operations import operations
from snn_bp.neurons import is_spiking
from snn_bp.runs.evaluation import layer_activity
from snn_bp.runs.experiment import Train, from_json, to_json
from snn_bp.trainer.optimizer import make_optimizer, sharpen_delays

NEURON = LIF(beta=0.9)
FLAT = (TemporalConv(6, 3, dilation=2), NEURON, DelayedDense(5, 4), NEURON, DelayedDense(3, 6), LI(beta=0.9))
MAPS = (
    TemporalConv(4, 2, (3, 2), stride=(2, 1), padding=1, groups=2),
    NEURON,
    TemporalConv(2, 3, 3),
    NEURON,
    Flatten(),
    Dense(3),
    LI(beta=0.9),
)
CASES = ((FLAT, (4,)), (MAPS, (2, 5, 4)), ((TemporalConv(3, 4, 2), NEURON, Flatten()), (2, 6)))
TARGETS = torch.tensor([0, 1, 2])


@pytest.mark.parametrize(("model", "shape"), CASES, ids=("flat", "maps", "line"))
@pytest.mark.parametrize("training", (False, True))
def test_a_recording_in_pieces_is_the_recording(model, shape, training, coin):
    network = Network(model, shape, seed=1).double().train(training)
    x = coin(11, 3, *shape, probability=0.5).double()

    whole, last = network.run(x)
    out, state, spikes, observed = [], None, [], None
    for piece in x.split(2):  # less than the layers look back
        part, state = network.run(piece, state)
        activities, observed = network.observe(piece, observed)
        out.append(part)
        spikes.append([each.spikes for each in activities if is_spiking(each.neuron)])

    # torch's product sums in an order that depends on the length: a delay's spread in training leaves a last bit open
    assert_near(share=1e-12, out=(torch.cat(out), whole))
    at_once = [each.spikes for each in network.observe(x)[0] if is_spiking(each.neuron)]
    for pieces, wanted in zip(zip(*spikes, strict=True), at_once, strict=True):
        assert torch.equal(torch.cat(pieces), wanted)
    assert len(state) == len(last)
    assert bool(network.observe(x)[0][0].spikes.any())
    activities, after = network.observe(x[:5])
    _, again = network.run(x[5:], after)
    assert_near(share=1e-12, v=(again[-1].v, last[-1].v))
    assert len(activities) == sum("LI" in str(layer) for layer in model)


@pytest.mark.parametrize("dilation", (1, 3))
def test_a_temporal_convolution_is_a_sum_over_the_last_steps(dilation, dyadic):
    layer = TemporalConv(5, 3, dilation=dilation).build((4,))
    x, weight, bias = dyadic(9, 2, 4), dyadic(5, 4, 3, seed=1), dyadic(5, seed=2)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)

    out, _ = layer(x)

    for t in range(9):
        wanted = bias.expand(2, 5).clone()
        for k in range(3):
            if t - k * dilation >= 0:
                wanted += x[t - k * dilation] @ weight[:, :, k].T
        assert torch.equal(out[t], wanted)


def test_a_temporal_convolution_over_maps_is_a_sum_of_convolutions(dyadic):
    layer = TemporalConv(4, 2, (3, 2), stride=(2, 1), padding=(1, 0), groups=2).build((2, 5, 4))
    x = dyadic(6, 3, 2, 5, 4)
    with torch.no_grad():
        layer.weight.copy_(dyadic(*layer.weight.shape, seed=1))
        layer.bias.copy_(dyadic(4, seed=2))

    out, _ = layer(x)

    for t in range(6):
        wanted = layer.bias[:, None, None]
        for k in range(min(2, t + 1)):
            wanted = wanted + torch.nn.functional.conv2d(x[t - k], layer.weight[:, :, k], None, (2, 1), (1, 0), 1, 2)
        assert torch.equal(out[t], wanted)


def test_delays_are_rounded_in_evaluation_and_each_synapse_has_its_own(dyadic):
    layer = DelayedDense(3, 5).build((4,)).eval()
    x, weight = dyadic(9, 2, 4), dyadic(3, 4, seed=1)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()
    delays = layer.steps_now()

    out, _ = layer(x)

    assert len(delays.unique()) > 2 and bool((delays >= 0).all() and (delays <= 5).all())
    for t in range(9):
        for unit in range(3):
            wanted = torch.zeros(2)
            for j in range(4):
                if t - delays[unit, j] >= 0:
                    wanted += weight[unit, j] * x[t - delays[unit, j], :, j]
            assert torch.equal(out[t, :, unit], wanted)


def test_delays_are_gaussians_in_training(noise):
    layer = DelayedDense(3, 5, spread=1.5).build((4,)).double().train()
    x = noise(9, 2, 4, dtype=torch.float64)

    out, _ = layer(x)

    delays = 5 / (1 + torch.exp(-layer.learned["delay"]))
    wanted = layer.bias.expand(9, 2, 3).clone()
    near = [torch.exp(-((k - delays) ** 2) / (2 * 1.5**2)) for k in range(6)]
    for k in range(6):
        kernel = layer.weight * near[k] / sum(near)
        wanted[k:] += x[: 9 - k] @ kernel.T
    assert_same(atol=1e-12, out=(out, wanted))


def test_the_spread_of_delays_falls_over_a_training_and_then_stays():
    network = Network((DelayedDense(3, 20), NEURON, DelayedDense(2, 20, spread=2.0), NEURON), (4,))
    first, second = network.layers[0], network.layers[2]
    seen = []

    for done in (0, 10, 75, 90, 100):
        sharpen_delays(network, done, of=100)
        seen.append((first.spread, second.spread))

    assert seen[0] == (10.0, 2.0) and seen[2] == seen[3] == seen[4] == (0.5, 0.5)
    assert 0.5 < seen[1][0] < 10 and seen[1][0] == pytest.approx(10 * 0.05 ** (0.1 / 0.75))


def test_a_delay_is_learned_from_when_the_input_comes():
    # the input comes 2 steps before the unit should fire: its delay goes from 5 to 2
    network = Network((DelayedDense(1, 8, bias=False, spread=3.0), LI(beta=0.0)), (1,)).train()
    layer = network.layers[0]
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.learned["delay"].fill_(torch.logit(torch.tensor(5 / 8)))
    x, wanted = torch.zeros(12, 1, 1), torch.zeros(12, 1, 1)
    x[3], wanted[5] = 1, 1
    optimizer = torch.optim.Adam([layer.learned["delay"]], lr=0.05)

    for step in range(300):
        sharpen_delays(network, step, of=300)
        optimizer.zero_grad()
        (network(x) - wanted).square().sum().backward()
        optimizer.step()

    assert layer.steps_now().item() == 2
    assert torch.equal(network.eval()(x), wanted)


@pytest.mark.parametrize(("model", "shape"), CASES[:2], ids=("flat", "maps"))
def test_gradients_are_right_and_traces_see_the_neurons(model, shape, coin):
    network = Network(model, shape, seed=1)
    x = coin(6, 3, *shape, probability=0.5)

    report = check_gradients(network, x.double(), TARGETS, directions=1, truncations=(3,))
    seen = trace(network, x, TARGETS)

    assert report.ok and any(row.conclusive for row in report.differences), report
    assert [layer.name for layer in seen.layers] == [network.name(n) for n, v in enumerate(model) if "LI" in str(v)]
    assert set(seen.gradients) == {
        network.name(n) for n, layer in enumerate(network.layers) if list(layer.parameters())
    }
    diagnose(seen)
    assert first_nonfinite(network, x) is None and len(layer_activity(network, x)) == 2


def test_a_trace_that_goes_on_from_a_state_is_the_network(coin):
    network = Network(FLAT, (4,), seed=1).eval()
    x = coin(11, 3, 4, probability=0.5)
    _, state = network.run(x[:5])

    seen = trace(network, x[5:], TARGETS, state=state)

    activities, _ = network.observe(x[5:], state)
    assert_same(atol=1e-5, potentials=(seen.layers[-1].potentials, activities[-1].potentials.detach()))


def test_delays_do_not_decay():
    network = Network(FLAT, (4,))

    groups = make_optimizer(network, Train()).param_groups

    decaying = {id(weight) for weight in groups[0]["params"]}
    assert id(network.layers[2].weight) in decaying and id(network.layers[2].learned["delay"]) not in decaying


@pytest.mark.parametrize("value", (TemporalConv(4, 2, (3, 2), groups=2), DelayedDense(5, 4, spread=1.0)), ids=repr)
def test_a_layer_comes_back_from_json(value):
    experiment = Experiment(Data("digits"), (value, NEURON))

    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment


def test_start_alive_leaves_them_as_they_are(coin):
    network = Network((*FLAT[:2], Dense(4), NEURON), (4,), seed=1)
    before = network.layers[0].weight.clone()

    start_alive(network, coin(9, 3, 4, probability=0.5))

    assert torch.equal(network.layers[0].weight, before)


@pytest.mark.parametrize(("model", "name"), ((FLAT, "TemporalConv"), ((DelayedDense(5, 4), NEURON), "DelayedDense")))
def test_what_files_chips_and_online_rules_do_not_hold_is_refused_by_name(model, name, coin, tmp_path):
    network = Network((*model[:2], Dense(3), LI(beta=0.9)), (4,)).eval()

    for attempt in (
        lambda: OnChip(network),
        lambda: write_nir(network, tmp_path / "a.nir"),
        lambda: to_snntorch(network),
        lambda: ottt(network, coin(5, 3, 4, probability=0.5), TARGETS, CountCrossEntropy()),
    ):
        with pytest.raises(SnnError, match=name):
            attempt()
    assert not list(tmp_path.iterdir())


def test_operations_are_those_counted_by_hand(coin):
    conv = TemporalConv(4, 2, (3, 2), stride=(2, 1), padding=1, groups=2).build((2, 5, 4))
    delayed = DelayedDense(3, 5).build((4,))
    x, flat = coin(6, 2, 2, 5, 4, probability=0.4), coin(9, 2, 4, probability=0.4)

    met = 0
    with torch.no_grad():
        for t, _, *at in x.nonzero().tolist():
            one = torch.zeros_like(x[:, :1])
            one[(t, 0, *at)] = 1
            ones = torch.ones_like(conv.weight)
            padded = torch.cat((torch.zeros_like(one[:1]), one))
            met += int(conv.convolve(padded, ones, None, conv.groups).sum())
    assert operations(conv, x) == met

    arrived = sum(int((t + delayed.steps_now()[:, j] < 9).sum()) for t, _, j in flat.nonzero().tolist())
    assert operations(delayed, flat) == arrived


@pytest.mark.parametrize(
    ("value", "shape", "words"),
    (
        (TemporalConv(4, 2, 3), (5,), r"kernel=3.*is flat"),
        (TemporalConv(4, 2, groups=3), (5,), r"groups=3.*divide the 5 channels in, 4 out"),
        (TemporalConv(4, 2, 6), (1, 5, 5), r"window reaches over 6 values"),
        (DelayedDense(4), (2, 3), r"DelayedDense\(4\): it takes a flat input"),
    ),
    ids=repr,
)
def test_what_does_not_fit_is_refused_with_what_would(value, shape, words):
    with pytest.raises(SnnError, match=rf"model\.0 .*{words}"):
        Network((value, NEURON), shape)


def test_a_state_of_another_shape_is_refused(coin):
    network = Network(FLAT, (4,))
    _, state = network.run(coin(5, 3, 4, probability=0.5))

    with pytest.raises(SnnError, match=r"the state of a layer over time should be \[4, 2, 4\]"):
        network.run(coin(5, 2, 4, probability=0.5), state)
