"""Evaluation: figures that agree with each other, with closed forms, and with counting by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import runs
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import DIGITS, few, loading
from torch import nn

from snn_bp import (
    ALIF,
    LI,
    LIF,
    BatchNorm,
    Boxcar,
    CountCrossEntropy,
    CubaLIF,
    Dense,
    Dropout,
    Flatten,
    MaxCrossEntropy,
    MembraneCrossEntropy,
    Network,
    Recurrent,
    SnnError,
    Spiking,
    evaluate,
    trace,
    use_backend,
)  # fmt: skip
from snn_bp.model.operations import operations
from snn_bp.runs.evaluation import evaluate_network, layer_activity
from snn_bp.runs.interval import wilson_interval

few_digits, finished = runs.few_digits, runs.finished
pytestmark = pytest.mark.usefixtures("few_digits")

MODEL = (Flatten(), Dense(9), BatchNorm(), LIF(beta=0.7), Dropout(0.3), Dense(10), LIF(beta=0.7))


def network(model=MODEL) -> Network:
    return Network(model, (2, 17, 17))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_accuracy_is_the_trace_of_the_confusion(split, finished):
    figures = evaluate(finished, split)

    confusion = np.array(figures.confusion)
    data = few(finished.experiment.data)
    assert figures.samples == confusion.sum() == len(data.ids[split])
    assert figures.correct == confusion.trace()
    assert figures.accuracy == figures.correct / figures.samples
    assert (figures.low, figures.high) == wilson_interval(figures.correct, figures.samples)
    assert confusion.sum(1).tolist() == np.bincount(data.labels(split), minlength=10).tolist()  # rows: true classes


@pytest.mark.parametrize(
    ("loss", "readout"),
    [(CountCrossEntropy(), LIF(beta=0.7)), (MaxCrossEntropy(), LI(beta=0.7)), (MembraneCrossEntropy(), LI(beta=0.7))],
)
def test_figures_do_not_depend_on_how_recordings_are_batched(loss, readout):
    alive = network((Flatten(), Dense(10), readout))
    figures = []
    for batch in (1, 7, 50):
        dataset = few(replace(DIGITS, batch=batch))
        figures.append(evaluate_network(alive, dataset, "test", loss))

    assert figures[0].confusion == figures[1].confusion == figures[2].confusion
    assert figures[0].spikes == figures[1].spikes and figures[0].operations == figures[2].operations
    # single precision: some tens of roundings of 6e-8 on each of the samples' losses
    assert figures[0].loss == pytest.approx(figures[2].loss, rel=1e-5)


def test_the_loss_is_the_mean_over_the_recordings():
    dataset = few(DIGITS)
    still = network().eval()
    x, targets = dataset.batch("test", dataset.ids["test"])

    figures = evaluate_network(still, dataset, "test", CountCrossEntropy())

    assert figures.loss == pytest.approx(CountCrossEntropy()(still(x), targets).item(), rel=1e-5)


def test_the_figures_of_training_are_found_again(finished):
    assert evaluate(finished, "test").record() == finished.results()["test"]
    assert evaluate(finished, "validation", checkpoint="last").loss == pytest.approx(
        finished.load("last").metrics[-1]["validation_loss"]
    )


# Wilson's interval

Z2 = 1.959963984540054**2


@pytest.mark.parametrize(
    ("correct", "samples", "low", "high"),
    [
        (0, 10, 0.0, Z2 / (10 + Z2)),
        (10, 10, 10 / (10 + Z2), 1.0),
        (50, 100, 0.5 - math.sqrt(Z2 / (100 + Z2)) / 2, 0.5 + math.sqrt(Z2 / (100 + Z2)) / 2),
        (81, 263, 0.2553, 0.3662),  # this and the next: Newcombe 1998, table I, four digits
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_known_intervals(correct, samples, low, high):
    assert wilson_interval(correct, samples) == pytest.approx((low, high), abs=5.1e-5)


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_wilson_solves_its_equation_and_mirrors(samples, correct):
    correct = min(correct, samples)
    low, high = wilson_interval(correct, samples)

    share, z = correct / samples, 1.959963984540054
    assert 0 <= low <= share <= high <= 1 or math.isclose(low, share) or math.isclose(high, share)
    for bound in (low, high):  # |share - p| = z sqrt(p (1 - p) / n)
        assert (share - bound) ** 2 == pytest.approx(z * z * bound * (1 - bound) / samples, abs=1e-9)
    mirrored = wilson_interval(samples - correct, samples)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


# Spikes and operations


def by_hand(layer: nn.Conv2d, x: torch.Tensor) -> int:
    """Synaptic operations, counted weight by weight."""
    (stride_y, stride_x), (pad_y, pad_x), (step_y, step_x) = layer.stride, layer.padding, layer.dilation
    channels, height, width = x.shape[2:]
    out_height, out_width = layer(x.flatten(0, 1)).shape[-2:]
    inputs, outputs = channels // layer.groups, layer.out_channels // layer.groups
    count = 0
    for out_y in range(out_height):
        for out_x in range(out_width):
            for tap_y in range(layer.kernel_size[0]):
                for tap_x in range(layer.kernel_size[1]):
                    y = out_y * stride_y - pad_y + tap_y * step_y
                    at = out_x * stride_x - pad_x + tap_x * step_x
                    if 0 <= y < height and 0 <= at < width:
                        count += int((x[..., y, at] != 0).sum()) * outputs
    assert inputs * layer.groups == channels  # each input meets the outputs of its own group
    return count


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"padding": 1},
        {"groups": 2},
        {"dilation": 2},
        {"stride": (2, 1), "padding": (0, 2), "groups": 4, "dilation": (1, 2), "bias": False},
    ],
)
def test_operations_of_a_convolution_are_those_counted_by_hand(options, coin):
    layer = nn.Conv2d(4, 8, (3, 2), **options)
    x = coin(3, 2, 4, 7, 6, probability=0.3) * 2.5  # a graded input costs what a spike costs

    assert operations(layer, x) == by_hand(layer, x)


def test_operations_of_a_convolution_along_one_axis_are_those_of_a_flat_one(coin):
    layer = nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2)
    flat = nn.Conv2d(4, 6, (1, 3), stride=(1, 2), padding=(0, 1), groups=2)
    x = coin(3, 2, 4, 9, probability=0.3)

    assert operations(layer, x) == by_hand(flat, x.unsqueeze(3))


def test_operations_of_a_dense_layer_are_active_inputs_times_outputs(coin):
    x = coin(5, 3, 7, probability=0.4)

    assert operations(nn.Linear(7, 11), x) == int((x != 0).sum()) * 11


def test_spikes_and_operations_are_those_of_the_layers_outputs():
    alive, dataset = network(), few(DIGITS)
    x, _ = dataset.batch("test", dataset.ids["test"])
    activities, _ = alive.eval().observe(x)
    hidden, out = (activity.spikes for activity in activities)

    figures = evaluate_network(alive, dataset, "test", CountCrossEntropy())

    count = len(dataset.ids["test"])
    assert figures.spikes == {alive.name(3): hidden.sum().item() / count, alive.name(6): out.sum().item() / count}
    active = int((x != 0).sum())
    wanted = {alive.name(1): active * 9 / count, alive.name(5): int(hidden.sum()) * 10 / count}
    assert figures.operations == wanted


def test_a_readout_has_no_spikes_and_recurrent_ones_count_once_more_a_step_later():
    alive = network((Flatten(), Dense(6), Recurrent(LIF(beta=0.5, threshold=0.1)), Dense(10), LI(beta=0.9)))
    dataset = few(DIGITS)
    x, _ = dataset.batch("test", dataset.ids["test"])
    spikes = alive.eval().observe(x)[0][0].spikes

    figures = evaluate_network(alive, dataset, "test", MaxCrossEntropy())

    assert figures.spikes == {alive.name(2): spikes.sum().item() / 50} and spikes.sum() > 0
    assert figures.operations[alive.name(2)] == spikes[:-1].sum().item() * 6 / 50
    assert figures.operations[alive.name(3)] == spikes.sum().item() * 10 / 50


# Leaving things as they were


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_mode_gradients_and_weights_as_they_were(training):
    alive, dataset = network().train(training), few(DIGITS)
    x, targets = dataset.batch("train", dataset.ids["train"][:8])
    CountCrossEntropy()(alive(x), targets).backward()
    gradients = {name: weight.grad.clone() for name, weight in alive.named_parameters()}
    before = {name: weight.clone() for name, weight in alive.state_dict().items()}
    state = torch.random.get_rng_state()

    evaluate_network(alive, dataset, "validation", CountCrossEntropy())
    layer_activity(alive, x)

    assert all(module.training == training for module in alive.modules())
    assert all(torch.equal(weight.grad, gradients[name]) for name, weight in alive.named_parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in alive.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state) and torch.is_grad_enabled()


def test_an_empty_split_and_an_unknown_one_are_refused(finished):
    dataset = few(replace(DIGITS, validation_fraction=0))

    with pytest.raises(SnnError, match="'validation' split of digits is empty"):
        evaluate_network(network(), dataset, "validation", CountCrossEntropy())
    with loading(few), pytest.raises(SnnError, match="'test'"):
        evaluate(finished, "tset")


def test_the_activity_of_layers_counts_silence_and_saturation():
    model = (LIF(beta=0.5, threshold=(1e9, 1e-9, 2.5, 1e9), reset="none"),)
    x = torch.ones(8, 3, 4)

    (row,) = layer_activity(Network(model, (4,)), x)

    # with beta 1/2 the membrane climbs 1, 1.5, 1.75, .. towards 2: only the second neuron fires, at every step
    assert row == {
        "layer": "model.0 LIF(beta=0.5, threshold=(1e+09, ..., 1e+09), reset='none')",
        "rate": 0.25,
        "silent": 0.75,
        "saturated": 0.25,
        "window": row["window"],
    }
    assert 0.25 <= row["window"] <= 0.5  # the third comes near its threshold, the second leaves it behind


@pytest.mark.parametrize(
    "neuron",
    [
        ALIF(beta=0.9, rho=0.9, kappa=2.0, threshold=0.3),
        ALIF(beta=0.8, rho=0.7, kappa=(0.1, 5.0, 0.0, 1.0, 2.0), reset="zero", threshold=(0.1, 0.2, 0.3, 9.0, 0.5)),
        Spiking(LIF(beta=0.9), learn=("threshold",)),
        Spiking(ALIF(beta=0.9, rho=0.9, kappa=0.5), learn=("threshold", "kappa", "rho")),
        Recurrent(ALIF(beta=0.9, rho=0.9, kappa=2.0), learn=("threshold",)),
        CubaLIF(alpha=0.5, beta=0.9, threshold=0.2),
    ],
    ids=repr,
)
def test_layers_are_as_silent_saturated_and_near_threshold_for_the_run_as_for_the_doctor(neuron, noise):
    alive, x = Network((Dense(5), neuron, Dense(3), LIF(beta=0.5)), (4,)).eval(), noise(30, 3, 4, scale=2)
    with torch.no_grad():  # learned parameters away from where the neuron says they started
        for name, weight in alive.named_parameters():
            if ".learned." in name:
                weight += 1.5

    with use_backend("reference"):  # a sum in another order may flip a spike
        rows = layer_activity(alive, x)
    traced = trace(alive, x, torch.tensor([0, 2, 1])).layers

    for row, layer in zip(rows, traced, strict=True):
        assert layer.rates is not None
        assert row == {
            "layer": layer.name, "rate": float(layer.rates.mean()), "silent": layer.silent,
            "saturated": layer.saturated, "window": layer.window,
        }  # fmt: skip


def test_the_window_of_an_adaptive_neuron_lies_around_its_raised_threshold():
    # every step 0.35 above the threshold in force: 1 + 2 a with a = rho a + s, s = 1; a box of half-width 0.3 is left
    rho, raised, x, a = 0.5, [], [], 0.0
    for step in range(6):
        a = rho * a + (step > 0)
        raised.append(1 + 2 * a)
        x.append(raised[-1] + 0.35)
    network = Network((ALIF(beta=0.0, rho=rho, kappa=2.0, reset="none"),), (1,), surrogate=Boxcar(slope=1 / 0.3))

    (row,) = layer_activity(network, torch.tensor(x).view(6, 1, 1))
    (near,) = layer_activity(network, torch.tensor(x).view(6, 1, 1) - 0.1)  # 0.25 above: inside

    assert (row["rate"], row["window"]) == (1.0, 0.0)
    assert (near["rate"], near["window"]) == (1.0, 1.0)
