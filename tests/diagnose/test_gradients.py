"""Gradient checks: right gradients pass, and each planted fault is found."""

import json
import math
from dataclasses import replace

import pytest
import torch
from catalogue import EVERY_NEURON, NEURONS, SURROGATES, quick_first
from torch import nn

from snn_bp import (
    ALIF,
    LI,
    LIF,
    ATan,
    BatchNorm,
    Boxcar,
    Conv,
    CubaLIF,
    Delay,
    Dense,
    Dropout,
    Flatten,
    Network,
    Pool,
    Recurrent,
    SnnError,
    Spiking,
    Surrogate,
)
from snn_bp.instruments import smooth
from snn_bp.instruments.differences import differences
from snn_bp.instruments.gradients import SMOOTH_LIMIT, check_gradients, near_ties
from snn_bp.instruments.smooth import at_edges
from snn_bp.instruments.unroll import copied
from snn_bp.kernels import reference, runs_reference
from snn_bp.kernels.cpu import chain_shard
from snn_bp.kernels.reference import torch_slope
from snn_bp.model.losses import CountCrossEntropy, FirstSpike
from snn_bp.model.start import start_alive
from snn_bp.trainer.progress import layer_updates

TARGETS = torch.tensor([0, 2, 1])


def smoothed_error(network, noise, *, loss=CountCrossEntropy(), steps=6, directions=1) -> float:  # noqa: B008
    """The largest error of the smoothed network against finite differences; no kink may be crossed."""
    work = copied(network, double=True)
    rows = differences(work, noise(steps, 3, 4, dtype=torch.float64), TARGETS, loss, directions=directions, seed=0)
    assert all(row.conclusive for row in rows), [row for row in rows if not row.conclusive]
    return max(row.error for row in rows)


def two_layers(neuron, surrogate=None) -> Network:
    return Network((Dense(5), neuron, Dense(3), LI(beta=0.8)), (4,), surrogate=surrogate)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_every_surrogate_has_the_gradient_of_its_smoothed_network(surrogate, noise):
    assert smoothed_error(two_layers(EVERY_NEURON[-5], surrogate), noise) < SMOOTH_LIMIT


@pytest.mark.parametrize("neuron", quick_first(EVERY_NEURON, *EVERY_NEURON[::3]), ids=repr)
def test_every_neuron_and_reset_has_the_gradient_of_its_smoothed_network(neuron, noise):
    assert smoothed_error(two_layers(neuron), noise) < SMOOTH_LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
@pytest.mark.parametrize("neuron", EVERY_NEURON, ids=repr)
def test_every_neuron_reset_and_surrogate_has_the_gradient_of_its_smoothed_network(neuron, surrogate, noise):
    assert smoothed_error(two_layers(neuron, surrogate), noise) < SMOOTH_LIMIT


@pytest.mark.parametrize("surrogate", quick_first(SURROGATES, *SURROGATES[::4]), ids=repr)
def test_learned_parameters_recurrence_and_norms_have_the_gradient_of_the_smoothed_network(surrogate, noise):
    learned = Spiking(ALIF(beta=0.8, rho=0.7, kappa=0.3, alpha=0.4, reset="zero", detach_reset=False),
                      learn=("alpha", "beta", "rho", "kappa", "threshold"))  # fmt: skip
    recurrent = Recurrent(CubaLIF(alpha=0.4, beta=0.8, threshold=1.3), learn=("beta", "threshold"), bias=True)
    model = (Dense(6), BatchNorm(), learned, Dropout(0.3), Dense(5), recurrent, Dense(3), LIF(beta=0.9))

    assert smoothed_error(Network(model, (4,), surrogate=surrogate), noise, loss=FirstSpike()) < SMOOTH_LIMIT


@pytest.mark.parametrize("detach", (True, False))
def test_a_wrong_slope_is_found(detach, noise, monkeypatch):
    make_slopes_wrong(monkeypatch, by=1.0001)

    error = smoothed_error(two_layers(LIF(beta=0.9, reset="zero", detach_reset=detach)), noise)

    assert error > 1e-5


def make_slopes_wrong(monkeypatch, *, by):
    """Every surrogate's slope is this many times what belongs to its smooth spike."""

    def wrong(surrogate):
        slope_at = torch_slope(surrogate)
        return lambda u, scale: by * slope_at(u, scale)

    for module in (reference, smooth):
        monkeypatch.setattr(module, "torch_slope", wrong)


def test_a_reset_whose_gradient_is_left_out_is_found_by_differences(noise, monkeypatch):
    right, double = two_layers(LIF(beta=0.9, reset="zero", detach_reset=False)), torch.float64
    work = copied(right, double=True)
    right_text = reference.defined

    def forgetful(text, name, names):  # keeps the reset out of the gradient though nobody asked for it
        assert name != "advance" or "real(1.0) - s" in text or "heaviside" not in text
        return right_text(text.replace("real(1.0) - s", "real(1.0) - s.detach()"), name, names)

    monkeypatch.setattr(reference, "defined", forgetful)

    rows = differences(work, noise(6, 3, 4, dtype=double), TARGETS, CountCrossEntropy(), directions=1, seed=0)

    assert {row.name for row in rows if row.error > SMOOTH_LIMIT} == {"input", "layers.0.weight", "layers.0.bias"}


def test_fast_kernels_pass(noise):
    for neuron in (NEURONS[1], NEURONS[10]):
        report = check_gradients(two_layers(neuron), noise(6, 3, 4, scale=2), TARGETS, directions=1)

        assert [check.precision for check in report.kernels] == ["float32", "float64"]
        assert all(check.conclusive and check.ok for check in report.kernels)
        assert report.ok, report.problems
        assert str(report).endswith("all right")


def test_a_wrong_reset_adjoint_is_found_and_named(noise, monkeypatch):
    right, detached = chain_shard.specialised, LIF(beta=0.9, reset="zero").equation

    def wrong(loop, form, *arguments, **flags):  # a reset that clears the membrane, as if it were detached
        form = replace(form, equation=detached) if form.equation.spiking else form
        return right(loop, form, *arguments, **flags)

    monkeypatch.setattr(chain_shard, "specialised", wrong)
    network = two_layers(LIF(beta=0.9, reset="zero", detach_reset=False))
    report = check_gradients(network, noise(6, 3, 4, scale=3), TARGETS, directions=1, truncations=())

    assert not report.ok
    assert all("adjoint of the reset is wrong" in problem for problem in report.problems)
    assert "layers.0.weight" in report.problems[0]


def test_a_surrogate_that_is_no_number_is_found(noise):
    network = two_layers(LIF(beta=0.9))
    network.layers[1].surrogate = replace(network.surrogate)
    object.__setattr__(network.layers[1].surrogate, "slope", math.nan)

    report = check_gradients(network, noise(6, 3, 4), TARGETS, directions=1, truncations=())

    assert not report.ok
    assert any("layers.0.weight" in problem for problem in report.problems)


def test_a_bias_in_front_of_a_norm_is_no_false_alarm(noise):
    network = Network((Dense(6), BatchNorm(), LIF(beta=0.9), Dense(3), LIF(beta=0.9)), (4,))

    report = check_gradients(network, noise(6, 3, 4, scale=2), TARGETS, directions=1, truncations=())

    assert report.ok, report.problems


def test_a_norm_of_what_does_not_vary_is_no_false_alarm():
    network = Network((Dense(6), BatchNorm(), LIF(beta=0.9), Dense(3), LI(beta=0.9)), (4,))

    report = check_gradients(network, torch.zeros(60, 3, 4), TARGETS, directions=1, truncations=())

    assert report.ok, report.problems
    assert "6 channels do not vary ahead of a norm" in str(report)


@pytest.mark.slow
def test_a_reset_that_does_nothing_has_no_part_in_the_gradient(noise):
    none, zero = (
        check_gradients(two_layers(LIF(beta=0.9, reset=reset)), noise(6, 3, 4, scale=3), TARGETS, directions=1)
        for reset in ("none", "zero")
    )

    assert none.layers[0].attached.cosine == pytest.approx(1, abs=1e-12)
    assert none.layers[0].attached.norm_ratio == pytest.approx(1, abs=1e-12)
    assert zero.layers[0].attached.cosine < 0.999
    assert zero.layers[1].attached.cosine == pytest.approx(1, abs=1e-12)  # a readout resets nothing


def test_a_surrogate_whose_network_is_linear_is_its_own_smoothed_network(noise):
    # 1 everywhere: the gradient does not depend on the spikes, as long as no reset and a loss linear in the output
    class Sum:
        def scores(self, out):
            return out.sum(0)

        def __call__(self, out, targets):
            return out.sum(0).gather(1, targets[:, None]).sum()

    network = Network((Dense(5), LIF(beta=0.9, reset="none")), (4,), surrogate=Surrogate("StraightThrough", 1.0))

    report = check_gradients(network, noise(6, 3, 4), TARGETS, loss=Sum(), directions=1)  # type: ignore[arg-type]

    assert report.layers[0].smoothed.cosine == pytest.approx(1, abs=1e-12)
    assert report.layers[0].smoothed.norm_ratio == pytest.approx(1, abs=1e-12)


def test_truncation_as_long_as_the_recording_cuts_nothing(noise):
    network = two_layers(LIF(beta=0.95))

    report = check_gradients(network, noise(8, 3, 4, scale=2), TARGETS, directions=1, truncations=(8, 4, 1))

    whole, *shorter = report.truncated
    assert whole.same_loss.cosine == pytest.approx(1, abs=1e-12)
    assert whole.as_trained is not None
    assert whole.as_trained.cosine == pytest.approx(1, abs=1e-12)
    assert [row.steps for row in shorter] == [4, 1]
    assert 1 > shorter[0].same_loss.cosine > shorter[1].same_loss.cosine


def test_truncation_of_one_step_is_the_gradient_without_memory(noise):
    # a readout that sums x[t] W with beta: dL/dW of each step alone is sum_t g x[t], of all sum_t g sum_k beta^k x[t-k]
    network, x = Network((Dense(3, bias=False), LI(beta=0.5)), (4,)), noise(6, 3, 4, dtype=torch.float64)

    report = check_gradients(network, x.float(), TARGETS, directions=1, truncations=(1,))

    out = torch.zeros(6, 3, 3, dtype=torch.float64)
    v = out[0]
    for t in range(6):
        v = 0.5 * v + x[t].float().double() @ network.layers[0].weight.detach().double().T
        out[t] = v
    g = torch.softmax(out.sum(0), 1) - nn.functional.one_hot(TARGETS, 3)
    alone = torch.einsum("bk,tbi->ki", g, x)
    memory = torch.stack([2 - 0.5 ** torch.tensor(5.0 - t, dtype=torch.float64) for t in range(6)])
    whole = torch.einsum("bk,t,tbi->ki", g, memory, x)
    assert report.truncated[0].same_loss.norm_ratio == pytest.approx(float(alone.norm() / whole.norm()), rel=1e-5)


def test_a_learned_delay_is_left_out_of_the_differences(noise):
    network = Network((Dense(5), LIF(beta=0.9), Delay(1.4, learn=True, max_steps=4), Dense(3), LI(beta=0.8)), (4,))

    report = check_gradients(network, noise(6, 3, 4, scale=2), TARGETS, directions=1)

    assert report.ok, report.problems
    assert not any("delay" in row.name for row in report.differences)
    assert report.truncated[0].as_trained is None


def test_a_check_leaves_the_network_as_it_was(noise):
    network = Network((Dense(6), BatchNorm(), LIF(beta=0.9), Dense(3), LIF(beta=0.9)), (4,))
    before, drawn = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()

    check_gradients(network, noise(6, 3, 4), TARGETS, directions=1, truncations=(2,))

    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.slow
def test_a_report_is_json_even_where_a_cosine_is_not_a_number(noise):
    network = Network((Dense(5), LIF(beta=0.9), Dense(3), LIF(beta=0.9)), (4,), surrogate=Surrogate("Boxcar", 1e6))

    report = check_gradients(network, noise(6, 3, 4), TARGETS, directions=1)

    assert json.loads(json.dumps(report.record(), allow_nan=False))["layers"][0]["smoothed"]["cosine"] is None


def test_a_network_without_parameters_is_refused(noise):
    with pytest.raises(SnnError, match="no parameters"):
        check_gradients(Network((LIF(beta=0.9),), (4,)), noise(6, 3, 4), TARGETS)


def binary(*shape: int, seed: int = 0) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ((Conv(4, 3), Pool(2, kind="max"), LIF(beta=0.9), Flatten(), Dense(3), LIF(beta=0.9)), (2, 10, 10)),
        ((Pool(2, kind="max"), Flatten(), Dense(3), LIF(beta=0.9)), (2, 8, 8)),
        ((Conv(4, 3), LIF(beta=0.9), Pool(2, kind="max"), Flatten(), Dense(3), LIF(beta=0.9)), (2, 16)),
        ((Delay(1), Dense(8), LIF(beta=0.9), Delay(2), Dense(3), LIF(beta=0.9)), (6,)),
    ],
    ids=["conv-max", "max-of-ties", "max-1d", "delay-first"],
)
def test_valid_networks_with_ties_and_delays_are_not_called_wrong(model, shape, seed):
    network = Network(model, shape)
    x = binary(6, 4, *shape, seed=seed)
    start_alive(network, x)

    report = check_gradients(network, x, torch.arange(4) % 3, directions=1, truncations=())

    assert report.ok, report.problems


class InSinglePrecision:
    """A loss that rounds: what it is fed in double precision it computes in single."""

    def scores(self, out):
        return out.sum(0)

    def __call__(self, out, targets):
        return nn.functional.cross_entropy(out.float().sum(0), targets)


class RoundedThenCast(InSinglePrecision):
    def __call__(self, out, targets):
        return super().__call__(out, targets).double()


@pytest.mark.parametrize("loss", [InSinglePrecision(), RoundedThenCast()], ids=["single", "cast"])
@pytest.mark.parametrize("seed", quick_first([0, 1, 2], 0))
def test_a_loss_in_single_precision_is_not_a_wrong_adjoint(loss, seed, noise):
    network = Network((Dense(8), LIF(beta=0.9), Dense(3), LI(beta=0.9)), (6,), seed=seed)

    report = check_gradients(network, binary(12, 4, 6, seed=seed), torch.arange(4) % 3, loss=loss, truncations=())

    assert report.ok, report.problems


def test_a_wrong_slope_is_found_under_a_loss_in_single_precision(noise, monkeypatch):
    make_slopes_wrong(monkeypatch, by=1.2)
    network = two_layers(LIF(beta=0.9, reset="zero"))

    report = check_gradients(network, noise(6, 3, 4), TARGETS, loss=InSinglePrecision(), truncations=())

    assert any("finite differences" in problem for problem in report.problems)


def test_spikes_that_come_a_step_later_are_another_run_not_a_wrong_adjoint(noise, monkeypatch):
    # the same rates and other gradients: what rounding does to a membrane that stands at its threshold
    network, x = two_layers(LIF(beta=0.9)), noise(8, 3, 4, scale=2)
    right = Network.rates

    def later(self, x, state=None):
        if runs_reference():
            return right(self, x, state)
        out, rates, after = right(self, x.roll(1, 0), state)
        return out, rates, after

    monkeypatch.setattr(Network, "rates", later)

    report = check_gradients(network, x, TARGETS, directions=1, truncations=())

    assert all(check.spikes_differ > 0 and not check.conclusive for check in report.kernels)
    assert report.ok, report.problems
    assert "not conclusive" in str(report)


def test_a_slope_on_the_edge_of_a_box_is_not_judged_by_rounding():
    # potentials of exactly threshold + 1 / slope: a sum in another order moves them in or out of the box
    u = torch.tensor([0.5, 0.5 + 1e-7, 0.4, -0.5])

    assert at_edges(u, torch.tensor(1.0), Boxcar(2.0), rounding=1e-5) == 3
    assert at_edges(u, torch.tensor(1.0), Boxcar(2.0), rounding=1e-13) == 2
    assert at_edges(u, torch.tensor(1.0), ATan(2.0), rounding=1e-5) == 0


def test_maxima_that_differ_by_rounding_only_are_counted():
    pool = nn.MaxPool2d(2)
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, :2] = torch.tensor([1.0, 1.0 + 1e-6])  # nearly a tie
    x[0, 0, 2, 2:] = torch.tensor([1.0, 1.0])  # a tie: the first counts, in every backend
    x[0, 0, 2, :2] = torch.tensor([1.0, 0.5])

    assert near_ties(pool, x, rounding=1e-5) == 1
    assert near_ties(nn.MaxPool1d(2), x[:, :, 0], rounding=1e-5) == 1


def test_shared_weights_are_checked_once_and_shown_in_each_layer(noise):
    network = Network((Dense(4), LIF(beta=0.9), Dense(4), LIF(beta=0.8)), (4,))
    network.layers[2].weight = network.layers[0].weight
    before = [weight.detach().clone() for weight in network.parameters()]
    with torch.no_grad():
        network.layers[0].weight *= 1.5

    report = check_gradients(network, noise(6, 3, 4, scale=2), TARGETS, directions=1)

    assert report.ok, report.problems
    assert [row.layer for row in report.layers] == [network.name(0), network.name(2)]
    moved = {row["layer"]: row["update_over_weight"] for row in layer_updates(network, before)}
    assert moved.keys() == {network.name(0), network.name(2)}
    assert all(0.3 < ratio <= 0.5 for ratio in moved.values())
