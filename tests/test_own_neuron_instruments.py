"""Every instrument on neurons of one's own: firing conditions, gradient checks, remedies, online rules, searches."""

import math

import numpy as np
import pytest
import runs
import torch
from catalogue import assert_near, assert_same

from snn_bp import (
    LI,
    LIF,
    AdEx,
    BatchNorm,
    CountCrossEntropy,
    Dense,
    Experiment,
    Network,
    Recurrent,
    SnnError,
    Spiking,
    Tau,
    Train,
)
from snn_bp.equations.arithmetic import detach, spike, where
from snn_bp.instruments import check_gradients, diagnose, trace
from snn_bp.instruments.differences import differences
from snn_bp.instruments.faults import find_leaked_state
from snn_bp.instruments.gradients import SMOOTH_LIMIT, compare_smoothed
from snn_bp.instruments.landscape import loss_slice
from snn_bp.instruments.online import eprop, objective, ottt
from snn_bp.instruments.remedies import calm, hold, remember, wake
from snn_bp.instruments.unroll import Variant, unroll
from snn_bp.kernels import use_backend
from snn_bp.model.activity import threshold_name
from snn_bp.model.start import start_alive
from snn_bp.neurons import library, neuron
from snn_bp.reports.plots.backward import surrogate_window
from snn_bp.runs.changes import override
from snn_bp.runs.evaluation import layer_activity
from snn_bp.searches.objective import OfOutput
from snn_bp.searches.population import load_point, runs_together, value_points

TARGETS = torch.tensor([2, 0, 3])
LOSS = CountCrossEntropy()


@neuron(decays=("beta", "rho"), positive=("threshold",))
def AdLIF(v, w, s, x, *, beta=0.9, rho=0.95, a=0.1, b=0.2, threshold=1.0):
    """Adaptive; its reset is detached."""
    w = rho * w + a * v + b * s
    v = beta * v * (1 - detach(s)) + x - w
    return v, w, spike(v - threshold, threshold)


@neuron(decays=("beta", "rho"), positive=("threshold",))
def AttachedAdLIF(v, w, s, x, *, beta=0.9, rho=0.95, a=0.1, b=0.2, threshold=1.0):
    """The same, with gradients through its reset."""
    w = rho * w + a * v + b * s
    v = beta * v * (1 - s) + x - w
    return v, w, spike(v - threshold, threshold)


@neuron(decays=("beta", "gamma"), positive=("height",), potential="soma")
def TwoCompartment(dendrite, soma, s, x, *, beta=0.9, gamma=0.8, g=0.2, height=0.7):
    """A dendrite that takes the input, and a soma that fires."""
    dendrite = gamma * dendrite + x + g * (soma - dendrite)
    soma = beta * soma + g * (dendrite - soma) - height * s
    return dendrite, soma, spike(soma - height, height)


@neuron
def Graded(v, s, x, *, keep=0.9):
    """Up to three spikes a step, and no parameter that is a threshold."""
    v = keep * v + x - s
    return v, spike(v - 1.0) + spike(v - 2.0) + spike(v - 3.0)


@neuron(positive=("threshold",))
def Refractory(v, r, s, x, *, keep=0.9, threshold=1.0, pause=2.0):
    """Deaf for some steps after a spike; nothing of it is a decay."""
    r = where(s > 0, pause, where(r > 0, r - 1, 0.0))
    v = where(r > 0, 0.0, keep * v + x)
    return v, r, spike(v - threshold, threshold)


@neuron(decays=("beta",))
def Inside(v, s, x, *, beta=0.9):
    """Fires from a potential that it resets within the step."""
    v = beta * v + x
    s = spike(v - 1.0)
    return v * (1 - detach(s)), s


@neuron(decays=("beta",), positive=("threshold",))
def Copied(v, s, x, *, beta=0.9, threshold=1.0):
    """An LIF in a user's words."""
    v = beta * v + x - threshold * detach(s)
    return v, spike(v - threshold, threshold)


@neuron(decays=("alpha", "beta"))
def SlowReadout(i, v, x, *, alpha=0.6, beta=0.9):
    """A readout with a gain of its own."""
    i = alpha * i + (1 - alpha) * x
    v = beta * v + (1 - beta) * i
    return i, v, v


@neuron
def Late(v, held, x):
    """A readout that an input reaches one step later."""
    v = 0.5 * v + held
    return v, 1 * x, v


OWN = {kind.__name__: kind for kind in (AdLIF, TwoCompartment, Graded)}
LIBRARY = tuple(
    kind() for kind in vars(library).values() if isinstance(kind, type) and kind.__module__ == library.__name__
)
SPIKING = (AdLIF(), TwoCompartment(), Graded(), Refractory(), Inside())


@pytest.fixture
def x(coin):
    return coin(13, 3, 5, probability=0.5).double()


def made(*model, shape=(5,), gain=2.0):
    network = Network(model, shape, seed=2).double().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight *= gain  # so that small layers spike
    return network


def two_layers(own):
    return made(Dense(6), own, Dense(4), own)


# The firing condition


def test_a_trace_measures_from_the_threshold_of_the_neurons_own_equation(x):
    for own, threshold in ((AdLIF(threshold=0.8), 0.8), (TwoCompartment(height=0.6), 0.6), (Graded(), 1.0)):
        layer = trace(two_layers(own), x, TARGETS).layers[0]

        assert_near(share=1e-12, distances=(layer.distances, layer.potentials - threshold))
        assert bool(((layer.distances > 0) == (layer.spikes > 0)).all()) and layer.spikes.any()
        slopes = 1 / threshold / (1 + (math.pi * layer.distances / threshold) ** 2)
        if own != Graded():
            assert_near(share=1e-6, slopes=(layer.slopes, slopes))


def test_evaluation_and_trace_say_the_same_of_a_layers_window(x):
    for own in (*SPIKING, Recurrent(AdLIF(), bias=False)):
        network = made(Dense(6), own, Dense(4), LIF(beta=0.9))

        with use_backend("reference"):
            layer, row = trace(network, x, TARGETS).layers[0], layer_activity(network, x)[0]

        found = {name: row[name] for name in ("silent", "saturated", "window")}
        assert found == {"silent": layer.silent, "saturated": layer.saturated, "window": layer.window}
        assert 0 < layer.window < 1


def test_several_spikes_a_step_are_one_step_in_which_a_neuron_fires(x):
    @neuron
    def Signed(v, s, x, *, keep=0.0):
        v = keep * v + x
        return v, spike(v - 1.0) + spike(v - 2.0) - spike(-v - 1.0)

    given = torch.zeros(20, 1, 3).double()
    given[::2, :, 0], given[:, :, 1], given[:10, :, 2], given[10:, :, 2] = 3.0, 1.5, 1.5, -1.5
    network = Network((Signed(), Dense(4), LI(beta=0.9)), (3,), seed=2).double()

    with use_backend("reference"):
        layer, row = trace(network, given, TARGETS[:1]).layers[0], layer_activity(network, given)[0]

    assert layer.rates.tolist() == layer.fired.tolist() == [0.5, 1.0, 1.0]  # of spikes with a sign each counts once
    assert (layer.silent, layer.saturated) == pytest.approx((0.0, 2 / 3))
    assert (row["rate"], row["silent"], row["saturated"]) == pytest.approx((2.5 / 3, 0.0, 2 / 3))


def test_a_scale_that_changes_from_step_to_step_widens_the_window_with_it(x):
    @neuron
    def Scaled(v, grown, s, x, *, keep=0.9):
        grown = grown + 1.0
        v = keep * v + x
        return v, grown, spike(v - 1.0, grown)

    layer = trace(made(Dense(6), Scaled(), Dense(4), LI(beta=0.9)), x, TARGETS).layers[0]

    scale = torch.arange(1.0, 14.0).double().view(-1, 1, 1)
    near = ((layer.distances / scale).abs() * math.pi) ** 2 < 9  # the arc tangent's slope is a tenth there
    assert layer.window == pytest.approx(float(near.double().mean()))
    with use_backend("reference"):
        row = layer_activity(made(Dense(6), Scaled(), Dense(4), LI(beta=0.9)), x)[0]
    assert row["window"] == pytest.approx(layer.window)


@pytest.mark.parametrize("own", (AdLIF(), Graded(), Refractory(), Inside()), ids=repr)
def test_the_error_of_a_layer_is_that_of_its_input_through_all_later_steps(own, x):
    network = made(Dense(6), own, Dense(4), LI(beta=0.9))
    traced = trace(network, x, TARGETS)

    given = traced.layers[0].inputs.clone().requires_grad_()
    with use_backend("reference"):
        behind = Network((own, Dense(4), LI(beta=0.9)), (6,), seed=2).double()
        behind.layers[1].load_state_dict(network.layers[2].state_dict())
        (by_input,) = torch.autograd.grad(LOSS(behind(given), TARGETS), given)

    heard = by_input != 0 if own == Refractory() else torch.ones_like(by_input)  # v takes the input as it is, or not
    assert_near(share=1e-12, error=(traced.layers[0].error * heard, by_input))
    assert by_input.abs().max() > 0


def test_which_parameter_is_the_threshold_is_read_from_the_equation():
    found = {own: threshold_name(own) for own in (*SPIKING, LIF(beta=0.9), SlowReadout())}

    assert found == {
        AdLIF(): "threshold", TwoCompartment(): "height", Graded(): None, Refractory(): "threshold", Inside(): None,
        LIF(beta=0.9): "threshold", SlowReadout(): None,
    }  # fmt: skip


# The doctor and its remedies


def advised(own, x, remedy, *, normed=False, loss=LOSS):
    model = (Dense(6), BatchNorm(), own, Dense(4), LI(beta=0.9)) if normed else (Dense(6), own, Dense(4), LI(beta=0.9))
    traced = trace(made(*model).train(), x, TARGETS, loss=loss)
    return remedy(traced.layers[0], traced), model


def test_a_silent_layer_of_ones_own_is_found_and_start_alive_wakes_it(x):
    for own in (AdLIF(), Graded()):
        network = made(Dense(6), own, Dense(4), LI(beta=0.9), gain=1e-3)
        before = {finding.kind: finding for finding in diagnose(trace(network, x, TARGETS)).findings}

        start_alive(network, x)

        after = {finding.kind for finding in diagnose(trace(network, x, TARGETS)).findings}
        assert before["silent"].where.startswith("model.1 ") and "silent" not in after


def test_remedies_change_parameters_that_the_neuron_has_under_their_own_names(x):
    (advice, changes), model = advised(TwoCompartment(height=50.0), x, wake, normed=True)

    assert "its height is 50" in advice and changes[0].startswith("model.2.height=")
    changed, _ = override(Experiment(runs.DIGITS, model, Train()), list(changes), own_kinds=OWN)
    assert 0 < changed.model[2].height < 50

    (advice, changes), _ = advised(AdLIF(), x, calm, normed=True)
    assert "Raise its threshold" in advice and changes[0].startswith("model.2.threshold=")


def test_a_threshold_that_is_not_counted_from_rest_moves_by_as_much_as_is_missing(x):
    @neuron(positive=("height",))
    def Shifted(v, s, x, *, leak=0.1, rest=-65.0, peak=-20.0, height=45.0):
        v = v + leak * (-v) + x - height * detach(s)
        return v, spike(v + rest - peak, height)

    (advice, changes), model = advised(Shifted(), x, wake, normed=True)

    assert "from rest, and its peak is 45 from rest. Lower the peak" in advice and changes[0].startswith(
        "model.2.peak="
    )
    changed, _ = override(Experiment(runs.DIGITS, model, Train()), list(changes), own_kinds={"Shifted": Shifted})
    assert -65 < changed.model[2].peak < -55  # potentials are some 5 from rest


def test_a_decay_of_a_state_that_is_absent_is_not_raised(x):
    (advice, changes), _ = advised(AdEx(beta=0.5), x, remember)

    assert advice == "Raise its decays (beta, rho)." and changes == ("model.1.beta=0.838",)


def test_remedies_do_not_speak_of_what_a_neuron_has_not(x):
    for remedy in (wake, calm, remember, hold):
        for normed in (True, False):
            (advice, changes), model = advised(Graded(), x, remedy, normed=normed)

            assert "decays" not in advice.replace("decays slowly", "") and "ALIF" not in advice, advice
            assert not any(word in advice for word in ("its threshold", "beta", "theta")), advice
            override(Experiment(runs.DIGITS, model, Train()), list(changes), own_kinds=OWN)
    (advice, changes), model = advised(AdLIF(beta=0.5), x, remember)
    assert advice == "Raise its decays (beta, rho)." and "model.1.beta=0.838" in changes
    override(Experiment(runs.DIGITS, model, Train()), list(changes), own_kinds=OWN)


def test_a_layer_of_ones_own_leaks_no_state(x):
    with use_backend("reference"):
        assert find_leaked_state(two_layers(AdLIF()), x) == []


def test_the_picture_of_the_window_names_distances_of_other_neurons_so(x):
    drawn = surrogate_window(trace(made(Dense(6), AdLIF(), Dense(4), LIF(beta=0.9)), x, TARGETS))

    assert [axis.get_xlabel() for axis in drawn.axes[:2]] == ["distance from threshold", "v - theta"]


# Weights that start alive


def test_weights_in_front_of_an_lif_in_other_words_start_as_those_of_an_lif(x):
    both = (Copied(threshold=1.5), LIF(beta=0.9, threshold=1.5))
    mine, ours = (made(Dense(6), each, Dense(4), LI(beta=0.9)) for each in both)

    with use_backend("reference"):
        start_alive(mine, x)
        start_alive(ours, x)

    assert_near(share=1e-9, weight=(mine.layers[0].weight, ours.layers[0].weight))


# Gradients


@pytest.mark.parametrize("own", SPIKING, ids=repr)
def test_the_smoothed_networks_gradient_agrees_with_finite_differences(own, x):
    rows = differences(two_layers(own), x[:8], TARGETS, LOSS, directions=1, seed=0)

    assert len(rows) == 5
    assert all(row.conclusive and row.within(SMOOTH_LIMIT) for row in rows), rows


def test_a_smoothed_gradient_that_leaves_something_out_is_found(x, monkeypatch):
    from snn_bp.instruments.smooth import SmoothSpike

    right = SmoothSpike.backward
    monkeypatch.setattr(SmoothSpike, "backward", staticmethod(lambda ctx, grad: right(ctx, 1.1 * grad)))
    rows = differences(two_layers(AdLIF()), x[:8], TARGETS, LOSS, directions=1, seed=0)

    assert not all(row.within(SMOOTH_LIMIT) for row in rows)


def test_a_kink_of_the_step_itself_is_counted_and_says_nothing_against_the_gradient(x):
    @neuron
    def Rectified(v, s, x, *, keep=0.9):
        v = keep * v + where(x > 0, x, 0.0)
        return v, spike(v - 1.0)

    network = Network((Rectified(), Dense(4), LI(beta=0.9)), (5,), seed=2).double()
    row = differences(network, x[:8], TARGETS, LOSS, directions=1, seed=0)[0]  # inputs are exactly 0 or 1

    assert row.name == "input" and row.crossed > 0 and not row.conclusive


@pytest.mark.parametrize("smooth", (False, True))
def test_not_to_detach_is_the_gradient_of_the_step_without_detach(smooth, x):
    def gradient(own, cut):
        network = two_layers(own)
        out, _ = unroll(network, x, variant=Variant(smooth=smooth, detach=cut))
        return torch.autograd.grad(LOSS(out, TARGETS), list(network.parameters()))[0]

    written, kept = gradient(AdLIF(), None), gradient(AttachedAdLIF(), None)

    assert_same(true=(gradient(AdLIF(), True), written), false=(gradient(AdLIF(), False), kept))
    assert float((written - kept).norm()) > 0.01 * float(kept.norm())


def test_check_gradients_passes_a_neuron_of_ones_own_and_tells_what_its_detach_leaves_out(x):
    report = check_gradients(made(Dense(4), AdLIF()), x[:8], TARGETS, directions=1)

    assert report.ok and report.conclusive, str(report)
    assert report.layers[0].attached.cosine < 0.9999 and report.truncated[0].same_loss.cosine < 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("own", SPIKING, ids=repr)
def test_check_gradients_passes_every_shape_of_neuron_in_both_precisions(own, x):
    report = check_gradients(two_layers(own).float(), x.float(), TARGETS)

    assert report.ok and report.conclusive, str(report)
    assert [check.precision for check in report.kernels] == ["float32", "float64"]
    assert report.kernels[1].worst < 1e-12


def test_the_smoothed_landscape_runs_through_the_smoothed_loss(x):
    network = two_layers(Graded())
    found = loss_slice(network, x, TARGETS, LOSS, span=0.1, points=3, smoothed=True)

    out, _ = unroll(network, x, variant=Variant(smooth=True))
    assert float(found.losses[1]) == pytest.approx(float(LOSS(out, TARGETS).detach()), rel=1e-12)
    assert compare_smoothed(network, x, TARGETS, LOSS)["model.0 Dense(6)"].cosine < 1


# e-prop, against derivatives carried forward with every value


class Dual:
    """A number with its derivatives by every weight: `value` `[batch, n]`, `by` `[weights, batch, n]`."""

    def __init__(self, value, by):
        self.value, self.by = value, by

    def __add__(self, other):
        if isinstance(other, Dual):
            return Dual(self.value + other.value, self.by + other.by)
        return Dual(self.value + other, self.by)

    def __mul__(self, other):
        if isinstance(other, Dual):
            return Dual(self.value * other.value, self.by * other.value + self.value * other.by)
        return Dual(self.value * other, self.by * other)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other):
        return self + -1 * other

    def __rsub__(self, other):
        return -1 * self + other

    def constant(self):
        return Dual(self.value, 0 * self.by)

    def fired(self, threshold):
        u = self.value - threshold
        slope = 1 / threshold / (1 + (np.pi * u / threshold) ** 2)  # ATan(2)
        return Dual((u > 0).astype(float), slope * self.by)


def adlif(state, s, x):
    v, w = state
    w = 0.95 * w + 0.1 * v + 0.2 * s
    v = 0.9 * v * (1 - s.constant()) + x - w
    return (v, w), v.fired(1.0)


def two_compartment(state, s, x):
    dendrite, soma = state
    dendrite = 0.8 * dendrite + x + 0.2 * (soma - dendrite)
    soma = 0.9 * soma + 0.2 * (dendrite - soma) - 0.7 * s
    return (dendrite, soma), soma.fired(0.7)


def forward_mode(network, x, step, *, recurrent=False):
    """Gradients of the objective by derivatives carried forward with the state; e-prop cuts those of a recurrence."""
    named = {name: value.detach().numpy() for name, value in network.named_parameters()}
    total = sum(value.size for value in named.values())
    weights, start = {}, 0
    for name, value in named.items():
        by = np.zeros((total, *value.shape))
        by[start : start + value.size].reshape(value.size, -1)[np.diag_indices(value.size)] = 1
        weights[name], start = Dual(value, by), start + value.size

    def summed(entering, name):
        weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
        value = entering.value @ weight.value.T
        by = entering.by @ weight.value.T + np.einsum("bi,poi->pbo", entering.value, weight.by)
        out = Dual(value, by)
        return out if bias is None else Dual(value + bias.value, by + bias.by[:, None])

    batch, hidden = x.shape[1], len(named["layers.0.weight"])
    zero = Dual(np.zeros((batch, hidden)), np.zeros((total, batch, hidden)))
    state, s, v, outs, tangents = (zero, zero), zero, None, [], []
    for x_t in x.numpy():
        current = summed(Dual(x_t, np.zeros((total, *x_t.shape))), "layers.0")
        if recurrent:
            current = current + summed(s.constant(), "layers.1.recurrence")
        state, s = step(state, s, current)
        out = s
        if not recurrent:
            entering = summed(s, "layers.2")
            v = entering if v is None else 0.9 * v + entering
            out = v
        outs.append(out.value)
        tangents.append(out.by)
    leaf = torch.tensor(np.stack(outs), requires_grad=True)
    (g,) = torch.autograd.grad(objective(leaf, TARGETS, LOSS, "step"), leaf)
    flat = np.einsum("tbo,tpbo->p", g.numpy(), np.stack(tangents))
    sizes = np.cumsum([value.size for value in named.values()])[:-1]
    pieces = zip(named.items(), np.split(flat, sizes), strict=True)
    return {name: torch.tensor(piece.reshape(value.shape)) for (name, value), piece in pieces}


CASES = ((AdLIF(), adlif), (TwoCompartment(), two_compartment))


@pytest.mark.parametrize(("own", "step"), CASES, ids=("AdLIF", "TwoCompartment"))
def test_eprop_is_the_exact_gradient_by_derivatives_carried_forward(own, step, x):
    network = made(Dense(6), own, Dense(4), LI(beta=0.9))

    found, wanted = eprop(network, x, TARGETS, LOSS), forward_mode(network, x, step)

    assert found.keys() == wanted.keys()
    for name in found:
        assert wanted[name].abs().max() > 1e-3
        assert_near(share=1e-12, **{name.replace(".", "_"): (found[name], wanted[name])})


@pytest.mark.parametrize(("own", "step"), CASES, ids=("AdLIF", "TwoCompartment"))
def test_eprop_of_a_recurrent_layer_leaves_out_the_ways_through_other_neurons_alone(own, step, x):
    network = made(Dense(4), Recurrent(own, bias=True))

    found, wanted = eprop(network, x, TARGETS, LOSS), forward_mode(network, x, step, recurrent=True)

    for name in found:
        assert wanted[name].abs().max() > 1e-3
        assert_near(share=1e-12, **{name.replace(".", "_"): (found[name], wanted[name])})


def bptt(network, x, error):
    names, weights = zip(*network.named_parameters(), strict=True)
    with use_backend("reference"):
        out = network(x)
    return dict(zip(names, torch.autograd.grad(objective(out, TARGETS, LOSS, error), weights), strict=True))


@pytest.mark.parametrize("own", (Graded(), Refractory(), Inside()), ids=repr)
def test_eprop_of_one_layer_of_any_step_is_bptt(own, x):
    network = made(Dense(4), own)

    found, wanted = eprop(network, x, TARGETS, LOSS), bptt(network, x, "step")

    assert wanted["layers.0.weight"].abs().max() > 0
    assert_near(share=1e-12, weight=(found["layers.0.weight"], wanted["layers.0.weight"]))


@pytest.mark.parametrize("error", ("step", "total"))
def test_eprop_filters_as_a_linear_readout_of_ones_own_does(error, x):
    network = made(Dense(6), AdLIF(), Dense(4), SlowReadout())

    found, wanted = eprop(network, x, TARGETS, LOSS, error=error), bptt(network, x, error)

    for name in found:
        assert_near(share=1e-12, **{name.replace(".", "_"): (found[name], wanted[name])})


@pytest.mark.slow
@pytest.mark.parametrize("own", LIBRARY, ids=repr)
def test_neurons_of_the_library_pass_finite_differences_and_eprop_is_bptt_behind_a_readout(own, x):
    network = made(Dense(6), own, Dense(4), LI(beta=0.9))
    with use_backend("reference"):
        start_alive(network, x)

    rows = differences(network, x[:8], TARGETS, LOSS, directions=1, seed=0)
    found, wanted = eprop(network, x, TARGETS, LOSS), bptt(network, x, "step")

    assert all(row.conclusive and row.within(SMOOTH_LIMIT) for row in rows), rows
    for name in found:
        assert_near(share=1e-12, **{name.replace(".", "_"): (found[name], wanted[name])})


def test_eprop_filters_as_a_last_layer_does_that_fires_by_a_step_of_ones_own(x):
    mine, ours = (
        eprop(made(Dense(6), AdLIF(), Dense(4), last), x, TARGETS, LOSS) for last in (Copied(), LIF(beta=0.9))
    )

    assert mine["layers.0.weight"].abs().max() > 0
    for name in mine:
        assert_near(share=1e-13, **{name.replace(".", "_"): (mine[name], ours[name])})


def test_eprop_names_a_last_layer_for_which_no_filter_stands(x):
    for last, why in (
        (TwoCompartment(gamma=(0.5, 0.6, 0.7, 0.8)), "has numbers of its own for each neuron"),
        (Refractory(), "does not follow its input linearly"),
        (Late(), "does not answer an input in the step"),
    ):
        with pytest.raises(SnnError, match=rf"eprop: model.3 .*{type(last).__name__} {why}.*LI\(beta=0.9\)"):
            eprop(made(Dense(6), AdLIF(), Dense(4), last), x, TARGETS, LOSS)


def test_ottt_names_the_neuron_that_has_no_leak_and_what_would_work(x):
    for model in ((Dense(4), AdLIF()), (Dense(6), TwoCompartment(), Dense(4), LI(beta=0.9))):
        with pytest.raises(SnnError, match=r"ottt: model.1 .*(AdLIF|TwoCompartment) has no alpha and beta.*LIF.*eprop"):
            ottt(made(*model), x, TARGETS, LOSS)


def test_online_rules_take_no_learned_parameters_of_ones_own_neuron(x):
    with pytest.raises(SnnError, match="learns parameters of its neurons"):
        eprop(made(Dense(4), Spiking(AdLIF(), learn=("rho",))), x, TARGETS, LOSS)


# Searches, and time constants


def test_points_of_a_search_run_together_as_they_do_alone(x):
    network = made(Dense(6), AdLIF(), Dense(4), TwoCompartment())
    points = torch.nn.utils.parameters_to_vector(network.parameters()).detach() * torch.tensor([[0.5], [1.0], [2.0]])
    assert runs_together(network)

    for objective_ in (OfOutput("loss", LOSS), OfOutput("spikes", LOSS)):
        with use_backend("reference"):
            together, alone = value_points(network, points, objective_, x, TARGETS), []
            for point in points:
                load_point(network, point)
                alone.append(objective_(network, x, TARGETS))
        assert_near(share=1e-6, values=(together, torch.stack(alone).float().detach()))
        assert len(set(together.tolist())) == 3


def test_time_constants_of_ones_own_neuron_become_decays_of_the_datas_step():
    experiment = Experiment(runs.DIGITS, (Dense(10), AdLIF(rho=Tau(50))), Train())
    network = experiment.network((5,))

    assert 0 < network.layers[1].neuron.rho < 1
