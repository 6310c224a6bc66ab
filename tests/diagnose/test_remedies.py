"""The doctor's remedies: changes that can be taken as they are, of what is not in the model already."""

import pytest
import runs
import torch

from snn_bp import (
    ALIF,
    LI,
    LIF,
    ATan,
    BatchNorm,
    Boxcar,
    Conv,
    CountCrossEntropy,
    CountSquaredError,
    Dense,
    Experiment,
    FastSigmoid,
    FirstSpike,
    Flatten,
    MaxCrossEntropy,
    Network,
    Recurrent,
    Sigmoid,
    Spiking,
    Train,
)
from snn_bp.instruments import diagnose, trace
from snn_bp.model.start import start_alive
from snn_bp.runs.changes import override

TARGETS = torch.tensor([0, 3, 1])
NORMED = (Dense(20), BatchNorm(), LIF(beta=0.9), Dense(4), BatchNorm(), LIF(beta=0.9))
BARE = (Dense(20), LIF(beta=0.9), Dense(4), LIF(beta=0.9))


def found_on(network, x, *, targets=TARGETS, **how) -> dict:
    return {finding.kind: finding for finding in reversed(diagnose(trace(network, x, targets, **how)).findings)}


def followed(model, changes, *, surrogate=None) -> Network:
    """The network of an experiment after the changes that a finding proposes."""
    experiment = Experiment(runs.DIGITS, tuple(model), Train(surrogate=surrogate or ATan()))
    changed, _ = override(experiment, list(changes))
    return Network(changed.model, (6,), surrogate=changed.train.surrogate)


def with_threshold(model, place, threshold):
    neuron = LIF(beta=0.9, threshold=threshold)
    return (*model[:place], neuron, *model[place + 1 :])


def test_no_batch_norm_is_advised_where_one_stands_and_the_lower_threshold_wakes_the_layer(noise):
    model, x = with_threshold(NORMED, 2, 500.0), noise(20, 3, 6)

    silent = found_on(Network(model, (6,)), x)["silent"]

    assert silent.where.startswith("model.2 ")
    assert "Put BatchNorm()" not in silent.advice
    assert silent.changes and silent.changes[0].startswith("model.2.threshold=")
    assert "silent" not in found_on(followed(model, silent.changes), x)


@pytest.mark.parametrize("wrap", [Spiking, Recurrent])
def test_a_threshold_inside_a_layer_is_changed_where_it_stands(wrap, noise):
    model, x = (Dense(20), BatchNorm(), wrap(LIF(beta=0.9, threshold=500.0)), Dense(4), LIF(beta=0.9)), noise(20, 3, 6)

    silent = found_on(Network(model, (6,)), x)["silent"]

    assert silent.changes[0].startswith("model.2.neuron.threshold=")
    assert "silent" not in found_on(followed(model, silent.changes), x)


def test_a_silent_layer_without_a_norm_gets_one_by_the_change_that_is_said(noise):
    model, x = with_threshold(BARE, 1, 100.0), noise(20, 3, 6)

    silent = found_on(Network(model, (6,)), x)["silent"]

    changed, _ = override(Experiment(runs.DIGITS, model), list(silent.changes))
    assert [type(layer).__name__ for layer in changed.model] == ["Dense", "BatchNorm", "LIF", "Dense", "LIF"]


def test_a_wide_surrogate_is_not_advised_to_one_that_is_it(noise):
    # errors that shrink with the weights: neither a norm nor an arc tangent is missing
    network, x = Network((Dense(20), BatchNorm(), LIF(beta=0.9)) * 5 + (Dense(4), LIF(beta=0.9)), (6,)), noise(20, 3, 6)
    with torch.no_grad():
        for place in range(3, 15, 3):
            network.layers[place + 1].weight.mul_(1e-3)

    for finding in diagnose(trace(network, x, TARGETS)).findings:
        assert "than ATan(slope=2.0), as ATan()" not in finding.advice
        assert not any("ATan(slope=2)" in change for change in finding.changes), finding


@pytest.mark.parametrize("surrogate", [Boxcar(1000), FastSigmoid(1e4), Sigmoid(1e4), ATan(1e4)], ids=repr)
def test_the_wider_surrogate_that_is_advised_opens_the_window(surrogate, noise):
    x = noise(20, 3, 6)
    network = Network(NORMED, (6,), surrogate=surrogate)

    found = found_on(network, x)

    dead = found["dead window"]
    assert dead.changes and dead.changes[0].startswith("train.surrogate=ATan(")
    assert "dead window" not in found_on(followed(NORMED, dead.changes, surrogate=surrogate), x)


def test_a_saturated_layer_calms_down_by_the_change_that_is_said(noise):
    x, model = noise(20, 3, 6), NORMED
    network = Network(model, (6,))
    with torch.no_grad():
        network.layers[1].bias.fill_(50.0)

    saturated = found_on(network, x)["saturated"]

    assert "Put BatchNorm()" not in saturated.advice
    calmer = followed(model, saturated.changes)
    calmer.load_state_dict(network.state_dict())
    assert "saturated" not in found_on(calmer, x)


@pytest.mark.parametrize(
    ("loss", "wanted"), [(MaxCrossEntropy(), "train.loss=CountCrossEntropy()"), (None, "model.1.beta=")], ids=repr
)
def test_a_loss_on_every_step_is_advised_where_it_is_not_the_loss(loss, wanted, noise):
    x = torch.zeros(40, 3, 6)
    x[-1] = 3 + noise(3, 6).abs()
    model = (Dense(20, bias=False), LIF(beta=0.3, reset="none"), Dense(4, bias=False), LI(beta=0.3))
    network = Network(model, (6,), surrogate=ATan(1))
    with torch.no_grad():
        network.layers[0].weight.abs_()
        network.layers[2].weight.abs_()
    if loss is None:
        loss = _CountOfTheLast()

    found = found_on(network, x, loss=loss)["vanishing over time"]

    assert found.changes[0].startswith(wanted)


class _CountOfTheLast(CountCrossEntropy):
    def __call__(self, out, targets):
        return super().__call__(out[-1:], targets)


# No crying wolf

HEALTHY = {
    "one layer": (Dense(4), LIF(beta=0.9)),
    "two classes": (Dense(8), LIF(beta=0.9), Dense(2), LIF(beta=0.9)),
    "readout": (Dense(20), LIF(beta=0.9), Dense(4), LI(beta=0.9)),
    "readout alone": (Dense(4), LI(beta=0.5)),
    "adaptive": (Dense(20), ALIF(beta=0.9, rho=0.95, kappa=0.1), Dense(4), LI(beta=0.9)),
    "recurrent": (Dense(20), Recurrent(LIF(beta=0.9)), Dense(4), LIF(beta=0.9)),
    "norms": NORMED,
}


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        pytest.param(model, loss, id=f"{name}-{loss}")
        for name, model in HEALTHY.items()
        for loss in (MaxCrossEntropy(), CountSquaredError(), FirstSpike())
        if not (isinstance(loss, FirstSpike) and isinstance(model[-1], LI))
    ],
)
def test_small_and_unusual_networks_that_are_alive_have_no_findings(model, loss, noise):
    x = noise(20, 3, 6)
    network = Network(model, (6,))
    start_alive(network, x)
    targets = TARGETS if network.output_shape[0] > 3 else TARGETS % 2

    report = diagnose(trace(network, x, targets, loss=loss))

    assert report.ok, report


def test_a_regression_that_is_alive_has_no_findings(noise):
    class SquaredError:
        def scores(self, out):
            return out.mean(0)

        def __call__(self, out, targets):
            return (out.mean(0)[:, 0] - targets).square().mean()

    network, x = Network((Dense(20), LIF(beta=0.9), Dense(1), LI(beta=0.9)), (6,)), noise(20, 3, 6)
    start_alive(network, x)

    report = diagnose(trace(network, x, torch.tensor([0.5, -1.0, 2.0]), loss=SquaredError()))  # type: ignore[arg-type]

    assert report.ok, report


def test_an_answer_that_is_right_and_sure_sends_no_error_back_and_is_no_fault(noise):
    network, x = Network((Dense(4), LI(beta=0.9)), (6,)), noise(20, 3, 6).abs()
    with torch.no_grad():
        network.layers[0].weight.zero_()
        network.layers[0].bias.copy_(torch.tensor([500.0, 0, 0, 0]))

    traced = trace(network, x, torch.zeros(3, dtype=torch.long))

    assert float(traced.errors.abs().max()) == 0
    assert diagnose(traced).ok


def test_neurons_that_see_only_the_dark_border_are_not_silent(noise):
    x = torch.zeros(20, 3, 1, 40, 40)
    x[..., 18:22, 18:22] = noise(20, 3, 1, 4, 4).abs()  # a hundredth of the sensor
    network = Network(
        (Conv(4, 3, padding=1, bias=False), LIF(beta=0.9), Flatten(), Dense(4), LIF(beta=0.9)), (1, 40, 40)
    )
    start_alive(network, x)

    traced = trace(network, x, TARGETS)

    assert traced.layers[0].silent > 0.9
    assert "silent" not in {finding.kind for finding in diagnose(traced).findings}


def test_many_classes_of_which_a_batch_holds_few_are_not_silent():
    network = Network((Dense(50), LIF(beta=0.5)), (3,))
    with torch.no_grad():
        network.layers[0].weight.zero_()
        network.layers[0].bias.zero_()
        for place in range(3):
            network.layers[0].weight[place, place] = 1.5
    x = torch.eye(3).expand(8, 3, 3).contiguous()

    traced = trace(network, x, torch.arange(3))

    assert traced.layers[0].silent == pytest.approx(47 / 50)
    assert "silent" not in {finding.kind for finding in diagnose(traced).findings}


def test_a_layer_that_learns_nothing_is_frozen_by_name(noise):
    network, x = Network(BARE, (6,)), noise(20, 3, 6)
    start_alive(network, x)
    network.layers[0].requires_grad_(False)

    (found,) = diagnose(trace(network, x, TARGETS)).findings

    assert (found.kind, found.where) == ("frozen layer", network.name(0))
    network.layers[0].requires_grad_(True)
    assert diagnose(trace(network, x, TARGETS)).ok


def test_every_change_that_is_said_can_be_taken_as_it_is(noise):
    # whatever the doctor finds on networks drawn without care, its changes make an experiment
    x, count = noise(20, 3, 6), 0
    for scale in (1e-3, 1.0, 50.0):
        for surrogate in (ATan(), Boxcar(50), FastSigmoid(100)):
            for model in HEALTHY.values():
                network = Network(model, (6,), surrogate=surrogate)
                with torch.no_grad():
                    for weight in network.parameters():
                        weight.mul_(scale)
                targets = TARGETS if network.output_shape[0] > 3 else TARGETS % 2
                for finding in diagnose(trace(network, x, targets)).findings:
                    for change in finding.changes:
                        followed(model, [change], surrogate=surrogate)
                        count += 1
    assert count > 20


def test_a_loss_that_looks_at_the_first_steps_is_no_explosion(noise):
    class Early:
        """Nearly all of the loss is in the first steps, as that of first spikes is."""

        def scores(self, out):
            return out.sum(0)

        def __call__(self, out, targets):
            return 1 - out[:5].sum() - 1e-6 * out[-1].sum()

    network, x = Network((Dense(8), LIF(beta=0.5), Dense(2), LIF(beta=0.5)), (4,)), 3 * noise(40, 3, 4).abs()
    start_alive(network, x)

    traced = trace(network, x, TARGETS % 2, loss=Early())  # type: ignore[arg-type]

    assert max(traced.time_gains) > 1e3
    assert "exploding over time" not in {finding.kind for finding in diagnose(traced).findings}


def test_an_output_that_hears_itself_may_explode():
    network, x = Network((Dense(4), Recurrent(LIF(beta=0.9))), (6,)), torch.randn(40, 3, 6, generator=seeded(0))
    start_alive(network, x)
    with torch.no_grad():
        network.layers[1].recurrence.weight *= 100

    assert found_on(network, x)["exploding over time"].where == network.name(1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
