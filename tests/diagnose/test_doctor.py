"""The doctor finds what is planted, names it, and is silent on what is healthy."""

import json
import math
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import runs
import torch

from snn_bp import (
    LI,
    LIF,
    ATan,
    Boxcar,
    Dense,
    Experiment,
    Flatten,
    Network,
    Recurrent,
    Run,
    SnnError,
    Spiking,
    StraightThrough,
    Train,
)
from snn_bp.data import load
from snn_bp.instruments import Finding, Report, diagnose, diagnose_updates, only_new, trace
from snn_bp.instruments.faults import find_leaked_state, find_shifted_labels, find_stale_cache, find_unrelated_labels
from snn_bp.instruments.findings import Kind
from snn_bp.model.losses import MaxCrossEntropy
from snn_bp.model.start import start_alive
from snn_bp.reports import sections
from snn_bp.runs.evaluation import layer_activity

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "benchmarks" / "doctor.py"))
finished, few_digits = runs.finished, runs.few_digits
TARGETS = torch.tensor([0, 3, 1])


def kinds(network, x, **how) -> dict[str, list[str]]:
    """What is found on a network, and in which layers."""
    found: dict[str, list[str]] = {}
    for finding in diagnose(trace(network, x, TARGETS, **how)).findings:
        found.setdefault(finding.kind, []).append(finding.where)
    return found


def deep(*, layers: int, neuron=LIF(beta=0.9), **how) -> Network:  # noqa: B008 - frozen
    return Network((Dense(20), neuron) * layers + (Dense(4), LIF(beta=0.9)), (6,), **how)


def alive(network: Network, x) -> Network:
    start_alive(network, x)
    return network


@pytest.mark.parametrize("fault", SCRIPT["PLANTED"])
def test_a_planted_fault_is_found_and_named(fault):
    plant, wanted = SCRIPT["PLANTED"][fault]

    assert wanted in plant()


def test_a_network_that_is_alive_has_no_findings(noise):
    x = noise(20, 3, 6)

    report = diagnose(trace(alive(deep(layers=4), x), x, TARGETS))

    assert report.ok, report
    assert str(report) == "trace: nothing is wrong"


def test_layers_that_torch_draws_fall_silent_and_each_is_named(noise):
    network, x = deep(layers=4, neuron=LIF(beta=0.5)), noise(6, 3, 6)

    found = kinds(network, x)

    shares = {layer.name: float((layer.spikes.sum((0, 1)) == 0).float().mean()) for layer in network.observe(x)[0]}
    assert found["silent"] == [name for name, share in shares.items() if share > 0.9]
    assert len(found["silent"]) >= 3


def test_the_advice_for_a_silent_layer_points_to_the_first_one(noise):
    findings = diagnose(trace(deep(layers=4, neuron=LIF(beta=0.5)), noise(6, 3, 6), TARGETS)).findings

    silent = [finding for finding in findings if finding.kind == "silent"]
    assert "start_alive(network, x)" in silent[0].advice
    assert all(finding.advice.startswith("Fix model.3 LIF(beta=0.5) first") for finding in silent[1:])


def test_a_layer_that_always_fires_is_saturated(noise):
    network = deep(layers=1)
    with torch.no_grad():
        network.layers[0].bias.fill_(50.0)

    assert kinds(network, noise(20, 3, 6))["saturated"] == [network.name(1)]


def test_a_narrow_surrogate_far_from_threshold_has_a_dead_window(noise):
    x = noise(20, 3, 6)

    found = kinds(alive(deep(layers=1, surrogate=Boxcar(slope=1000)), x), x)

    assert "model.1 LIF(beta=0.9)" in found["dead window"]


def with_active(counts: dict[int, int]) -> Network:
    """Two layers of which so many neurons fire in every step and the others never, by bias; the surrogate is narrow."""
    network = Network((Dense(20), LIF(beta=0.5), Dense(5), LIF(beta=0.5)), (6,), surrogate=Boxcar(slope=1000))
    with torch.no_grad():
        for index, count in counts.items():
            network.layers[index].weight.mul_(1e-3)
            network.layers[index].bias.fill_(-9.0)[:count] = 9.0
    return network


def test_the_doctor_and_the_page_of_a_run_give_a_layer_the_same_figures(noise):
    network, x = with_active({0: 1, 2: 3}), noise(9, 3, 6)

    found = diagnose(trace(network, x, TARGETS)).findings

    rows = [{"epoch": 1, **row} for row in layer_activity(network, x)]
    table = sections.layers(SimpleNamespace(layers=lambda: rows)).tables[0]
    page = {(name, kind): cell for name, *cells in table.rows for kind, cell in zip(table.head[1:], cells, strict=True)}
    columns = {"silent": "silent", "saturated": "saturated", "dead window": "in the window"}
    figures = {(each.where, columns[each.kind]): f"{each.value:.1%}" for each in found if each.kind in columns}
    first, last = network.name(1), network.name(3)
    assert figures == {key: page[key] for key in figures}
    assert figures[first, "silent"] == "95.0%" and figures[last, "saturated"] == "60.0%"
    assert (first, "in the window") in figures


def test_the_doctor_says_where_only_neurons_with_input_count_as_silent(noise):
    network, x = with_active({0: 10}), noise(9, 3, 6)
    silent = "fraction of neurons that never fire"

    def measure() -> tuple[str, float]:
        return next((each.measure, each.value) for each in diagnose(trace(network, x, TARGETS)).findings
                    if (each.kind, each.where) == ("silent", network.name(1)))  # fmt: skip

    with torch.no_grad():
        network.layers[0].weight[:10] = 0  # these fire by their bias, and get no input
    assert measure() == (f"{silent}, of those with input", 1.0)

    with torch.no_grad():
        network.layers[0].bias[:10] = -9
    assert measure() == (silent, 1.0)


def test_an_error_that_shrinks_or_grows_over_depth_is_found_where_it_leaves_the_limits(noise):
    x = noise(20, 3, 6)
    for factor, kind in ((0.05, "vanishing error"), (20, "exploding error")):
        network = deep(
            layers=6, surrogate=StraightThrough()
        )  # every layer's error is its weights' times the next one's
        with torch.no_grad():
            for place in range(2, 14, 2):
                network.layers[place].weight *= factor

        sizes = trace(network, x, TARGETS).errors.norm(dim=1)
        left = [place for place, size in enumerate(sizes / sizes[-1]) if not 1e-2 <= size <= 1e3]
        assert kinds(network, x)[kind] == [network.name(2 * left[-1] + 1)]


def test_a_loss_that_sees_nothing_is_a_vanished_error(noise):
    network = Network((Dense(4), LIF(beta=0.9)), (6,), surrogate=Boxcar(slope=1e9))

    assert kinds(network, noise(5, 3, 6))["vanishing error"] == [network.name(1)]


def test_an_error_that_does_not_reach_the_first_steps_is_vanishing_over_time(noise):
    x = torch.zeros(40, 3, 6)
    x[-1] = 3 + noise(3, 6).abs()  # the maximum over time, and so the error, is at the last step
    network = Network(
        (Dense(20, bias=False), LIF(beta=0.3, reset="none"), Dense(4, bias=False), LI(beta=0.3)),
        (6,),
        surrogate=ATan(1),
    )
    with torch.no_grad():
        network.layers[0].weight.abs_()
        network.layers[2].weight.abs_()

    found = kinds(network, x, loss=MaxCrossEntropy())

    assert found["vanishing over time"] == [network.name(1), network.name(3)]


def test_learned_decays_at_their_bound_are_found(noise):
    x = noise(20, 3, 6)
    network = alive(deep(layers=1, neuron=Spiking(LIF(beta=0.9), learn=("beta",))), x)
    before = kinds(network, x)
    with torch.no_grad():
        network.layers[1].learned["beta"].fill_(12.0)

    assert "decay at its bound" not in before
    assert kinds(network, x)["decay at its bound"] == [network.name(1)]


@pytest.mark.parametrize(
    "plant, where",
    [
        (lambda network, x: x[3].fill_(3e38), 1),
        (lambda network, x: network.layers[2].weight[0].fill_(math.nan), 3),
    ],
)
def test_a_number_that_is_none_is_named_where_it_first_stands(plant, where, noise):
    x, network = noise(20, 3, 6), deep(layers=2)
    with torch.no_grad():
        plant(network, x)

    found = diagnose(trace(network, x, TARGETS)).findings

    assert [(finding.kind, finding.where) for finding in found] == [("not finite", network.name(where))]


def test_updates_are_judged_by_the_largest_of_the_run():
    rows = [
        {"epoch": 1, "layer": "a", "update_over_weight": 1e-2}, {"epoch": 9, "layer": "a", "update_over_weight": 1e-9},
        {"epoch": 1, "layer": "b", "update_over_weight": 1e-7}, {"epoch": 9, "layer": "c", "update_over_weight": 0.9},
        {"epoch": 1, "layer": "d", "rate": 0.1},
    ]  # fmt: skip

    found = [(finding.kind, finding.where) for finding in diagnose_updates(rows)]

    assert found == [("update too small", "b"), ("update too large", "c")]


def test_a_network_that_starts_from_rest_leaks_nothing(noise):
    network = Network((Dense(8), Recurrent(LIF(beta=0.9)), Dense(4), LIF(beta=0.9)), (6,))

    assert find_leaked_state(network, noise(12, 3, 6, scale=3)) == []


def test_right_votes_and_chance_are_no_shift_and_two_exchanged_classes_are():
    right, chance = [[10 * (a == b) for b in range(4)] for a in range(4)], [[3] * 4] * 4
    exchanged = [right[1], right[0], right[2], right[3]]

    assert find_shifted_labels(right, where="test") == []
    assert find_shifted_labels(chance, where="test") == []
    (found,) = find_shifted_labels(exchanged, where="test")
    assert "label 0 is class 1 of training, label 1 is class 0 of training" in found.advice


def test_a_shift_says_by_how_many():
    counted_from_one = [[10 * (vote == (label - 1) % 10) for vote in range(10)] for label in range(10)]

    (found,) = find_shifted_labels(counted_from_one, where="test")

    assert "each label is +1 from the class it is in training" in found.advice


def test_honest_data_has_no_findings():
    dataset = load(runs.DIGITS, quiet=True)

    assert find_stale_cache(dataset) == []
    assert find_unrelated_labels(dataset) == []


def test_a_run_that_learned_has_no_findings(finished):
    report = diagnose(finished)

    assert report.ok, report
    assert report.subject == str(finished.path)


def test_a_run_with_labels_shifted_behind_its_back_is_found(finished):
    run = Run(finished.path)
    dataset = runs.few(run.experiment.data, quiet=True)
    part = dataset.parts["train"]
    labels = (part.events.labels + 1) % 10
    run.hold(
        replace(dataset, parts={**dataset.parts, "train": replace(part, events=replace(part.events, labels=labels))})
    )

    found = {finding.kind: finding for finding in diagnose(run).findings}

    assert found["shifted labels"].where == "the validation split"


def test_an_experiment_is_examined_as_it_would_start(few_digits):
    model = (Flatten(), Dense(12), LIF(beta=0.7), Dense(10), LIF(beta=0.7))

    report = diagnose(Experiment(runs.DIGITS, model, Train(surrogate=Boxcar(slope=1e7))))

    assert {finding.where for finding in report.findings if finding.kind == "dead window"} == {
        "model.2 LIF(beta=0.7)",
        "model.4 LIF(beta=0.7)",
    }


def test_examining_anything_else_is_refused():
    with pytest.raises(SnnError, match="found 'runs/digits'"):
        diagnose("runs/digits")  # type: ignore[arg-type]


def test_a_report_is_words_and_json():
    finding = Finding("silent", "model.1 LIF(beta=0.9)", "share", math.nan, 0.9, "Do this.")
    report = Report("it", (finding,))

    assert str(report) == "it: 1 findings\n  model.1 LIF(beta=0.9): silent. share: nan (limit 0.9). Do this."
    assert json.loads(json.dumps(report.record(), allow_nan=False))["findings"][0]["value"] is None


def test_what_was_said_is_not_said_again():
    first, second = (Finding("silent", name, "share", 1.0, 0.9, "Do this.") for name in "ab")
    already_reported: set[tuple[str, str]] = set()

    assert only_new([first], already_reported) == [first]
    assert only_new([first, second], already_reported) == [second]


@pytest.mark.slow
def test_five_silent_layers_learn_once_the_advice_is_followed():
    dataset = load(SCRIPT["DATA"], quiet=True)

    mended = SCRIPT["trained"]("start_alive", dataset, epochs=12)

    assert mended["silent"] == []
    assert mended["validation_accuracy"][-1] > 0.9


def test_the_faults_that_the_benchmark_plants_are_eighteen_and_their_kinds_are_the_doctors():
    assert len(SCRIPT["PLANTED"]) + len(SCRIPT["RUNS"]) == 18
    assert {fault.kind for fault in SCRIPT["RUNS"].values()} <= set(get_args(Kind))


@pytest.mark.slow
@pytest.mark.parametrize("fault", SCRIPT["RUNS"])
def test_a_fault_planted_in_a_run_is_named_and_what_is_said_mends_it(fault):
    found = SCRIPT["planted"](SCRIPT["RUNS"][fault])

    assert found["named"] and found["mended"], found
    assert found["named_before_the_first_step"] == SCRIPT["RUNS"][fault].before
