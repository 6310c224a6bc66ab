"""What the doctor says of a course of training: chance level, overfitting, learning rates, layers that stay."""

import math
from dataclasses import replace

import numpy as np
import pytest
import runs
import torch

from snn_bp import LIF, BatchNorm, Data, Dense, Dropout, EventDrop, Flatten, Network, NoiseEvents, Spiking, Train, trace
from snn_bp.instruments import diagnose_course, diagnose_rate, diagnose_updates
from snn_bp.instruments.learning import at_chance, best_constant, find_chance_level, find_overfitting
from snn_bp.model.start import start_alive
from snn_bp.runs.changes import override
from snn_bp.trainer.progress import layer_updates

TEN = np.arange(400) % 10
MODEL = (Flatten(), Dense(12), BatchNorm(), LIF(beta=0.7), Dense(10), BatchNorm(), LIF(beta=0.7))


def labels(train=400, validation=140) -> dict[str, np.ndarray]:
    return {"train": np.arange(train) % 10, "validation": np.arange(validation) % 10}


def course(train, validation, epochs=5) -> list[dict[str, float]]:
    return [{"train_accuracy": train, "validation_accuracy": validation} for _ in range(epochs)]


def chance(rows, held, *, finished=True) -> list[str]:
    return [found.kind for found in find_chance_level(rows, held, finished=finished, causes=False)]


def overfitting(rows, held, data=runs.DIGITS, model=MODEL):
    return find_overfitting(rows, held, data, model)


@pytest.mark.parametrize(("validation", "said"), [(0.13, True), (0.10, True), (0.0, True), (0.3, False), (0.97, False)])
def test_the_best_epoch_is_held_against_one_answer_for_all(validation, said):
    assert (chance(course(validation, validation), labels()) == ["chance level"]) == said


def test_what_few_recordings_cannot_tell_is_not_said():
    assert chance(course(0.9, 0.0), labels(validation=1)) == []
    assert chance(course(0.9, 0.3), labels(validation=10)) == []
    assert overfitting(course(1.0, 0.0), labels(validation=1)) == []
    assert overfitting(course(1.0, 0.6), labels(validation=5)) == []


def test_a_start_at_chance_is_not_ill_before_it_had_time_to_learn():
    assert chance(course(0.1, 0.1, epochs=1), labels(), finished=False) == []
    assert chance(course(0.1, 0.1, epochs=1), labels(), finished=True) == ["chance level"]
    assert chance([], labels()) == []


def test_augmentations_are_named_where_only_the_training_recordings_were_learned():
    for data, named in ((runs.DIGITS, False), (replace(runs.DIGITS, augment=NoiseEvents(hz=100)), True)):
        (found,) = find_chance_level(course(0.4, 0.1), labels(), finished=True, causes=False, data=data)
        assert "see the labels" in found.advice and ("data.augment" in found.advice) == named


def test_without_validation_training_recordings_say_it():
    rows = [{"train_accuracy": 0.1}] * 5

    assert chance(rows, labels(validation=0)) == ["chance level"]
    assert chance([{"train_accuracy": 0.6}] * 5, labels(validation=0)) == []


def test_a_majority_class_is_the_chance_of_unbalanced_data():
    skewed = {
        "train": np.r_[np.zeros(360, int), np.ones(40, int)],
        "validation": np.r_[np.zeros(90, int), np.ones(10, int)],
    }

    assert best_constant(skewed["validation"]) == 0.9
    assert chance(course(0.9, 0.9), skewed) == ["chance level"]
    assert chance(course(0.99, 0.98), skewed) == []


def test_one_class_has_no_chance_level():
    assert not at_chance(100, 100, 1.0)


def test_two_classes_learned_to_nine_tenths_are_healthy():
    two = {"train": np.arange(60) % 2, "validation": np.arange(40) % 2}

    assert chance(course(1.0, 0.9), two) == []
    assert overfitting(course(1.0, 0.9), two) == []
    assert chance(course(0.5, 0.5), two) == ["chance level"]


def test_a_gap_that_validation_cannot_explain_is_overfitting():
    (found,) = overfitting(course(1.0, 0.7), labels(train=50))

    assert (found.kind, found.where) == ("overfitting", "the validation split")
    assert overfitting(course(1.0, 0.95), labels()) == []
    assert overfitting(course(1.0, 0.77), labels(validation=30)) == []  # of a partial N-MNIST, tested to 0.87
    assert overfitting(course(1.0, 0.5), labels(validation=30)) != []
    assert overfitting(course(0.72, 0.7), labels()) == []


def test_the_remedy_against_overfitting_is_what_is_not_there_yet():
    def changes(data, model=MODEL) -> tuple[str, ...]:
        (found,) = overfitting(course(1.0, 0.5), labels(), data, model)
        return found.changes

    assert changes(Data("digits", validation_fraction=0.85)) == ("data.validation_fraction=0.1",)
    assert changes(Data("digits")) == ("data.translate_px=2", "data.rotate_deg=10")
    assert changes(Data("digits", rotate_deg=5)) == ("data.translate_px=2",)
    assert changes(Data("digits", translate_px=3)) == ("data.augment=EventDrop(0.3)",)
    assert changes(Data("in memory")) == ()  # perhaps frames, and not described on the command line
    varied = Data("digits", translate_px=3, augment=EventDrop(0.3))
    (found,) = overfitting(course(1.0, 0.5), labels(), varied, MODEL)
    assert found.changes == () and "Dropout(0.3)" in found.advice
    (found,) = overfitting(course(1.0, 0.5), labels(), varied, (*MODEL, Dropout(0.2)))
    assert "Dropout" not in found.advice


def test_a_course_is_judged_once_by_its_first_fault():
    dataset, experiment = runs.few(runs.DIGITS, quiet=True), runs.tiny()

    found = diagnose_course(course(1.0, 0.1), dataset, experiment, finished=True)

    assert [each.kind for each in found] == ["chance level"]
    assert "see the labels" in found[0].advice
    assert diagnose_course(course(0.99, 0.95), dataset, experiment, finished=True) == []


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({"lr": 10.0}, "learning rate too high"),
        ({"lr": 10.0, "optimizer": "adam"}, "learning rate too high"),
        ({"lr": 1e3, "optimizer": "sgd"}, "learning rate too high"),
        ({"lr": 1e-8}, "learning rate too low"),
        ({"lr": 8e-3}, None),
        ({"lr": 1e-4}, None),
        ({"lr": 0.1, "optimizer": "sgd"}, None),
    ],
    ids=repr,
)
def test_a_rate_is_held_against_the_weights_before_the_first_step(how, kind, noise):
    network, x, how = Network((Dense(20), LIF(beta=0.9), Dense(4), LIF(beta=0.9)), (6,)), noise(20, 3, 6), Train(**how)
    start_alive(network, x)
    traced = trace(network, x, torch.tensor([0, 3, 1]))

    found = diagnose_rate(network, traced, how, batches=20)

    assert [each.kind for each in found] == ([] if kind is None else [kind])
    for each in found:
        changed, _ = override(runs.tiny(**{"optimizer": how.optimizer}), list(each.changes))
        assert diagnose_rate(network, traced, changed.train, batches=20) == []


def test_a_layer_that_never_moved_while_others_did_is_frozen():
    rows = [
        {"layer": f"model.{n} Dense(5)", "update_over_weight": ratio} for n, ratio in ((1, 0.0), (4, 1e-2), (6, 1e-7))
    ]

    found = [(each.kind, each.where) for each in diagnose_updates(rows)]

    assert found == [("frozen layer", "model.1 Dense(5)"), ("update too small", "model.6 Dense(5)")]


def test_too_large_an_update_names_the_rate_to_take():
    (found,) = diagnose_updates([{"layer": "model.1 Dense(5)", "update_over_weight": 0.9}], Train(lr=0.05))

    assert found.changes == ("train.lr=0.005",)


def test_an_update_of_a_learned_threshold_counts_in_its_own_units():
    # behind softplus a threshold of ln 2 is 0: a step of 0.004 is no rewriting
    network = Network((Dense(5), Spiking(LIF(beta=0.9, threshold=math.log(2) + 1e-4), learn=("threshold",))), (4,))
    before = [weight.detach().clone() for weight in network.parameters()]
    with torch.no_grad():
        network.layers[1].learned["theta"] += 0.004

    rows = {row["layer"]: row["update_over_weight"] for row in layer_updates(network, before)}

    assert rows[network.name(1)] == pytest.approx(0.004, rel=1e-3)
    assert diagnose_updates([{"layer": network.name(1), "update_over_weight": rows[network.name(1)]}]) == []
