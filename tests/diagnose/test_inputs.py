"""What the doctor says of recordings: the window, empty frames, one class, the same recordings twice, changed ones."""

from dataclasses import replace

import numpy as np
import pytest
import runs

from snn_bp import Data, Dataset, Targets
from snn_bp.data import load
from snn_bp.instruments.inputs import (
    find_changed_recordings,
    find_faults_of_recordings,
    find_one_class,
    find_shared_recordings,
    find_window,
)
from snn_bp.model.targets import UNLABELLED
from snn_bp.runs.changes import override

finished = runs.finished


@pytest.fixture(scope="module")
def dataset():
    return runs.few(runs.DIGITS, quiet=True)


def with_events(dataset, part="train", **columns):
    held = dataset.parts[part]
    return replace(dataset, parts={**dataset.parts, part: replace(held, events=replace(held.events, **columns))})


def with_data(dataset, **changes):
    return replace(dataset, data=replace(dataset.data, **changes))


def test_recordings_in_their_window_have_no_faults(dataset):
    assert find_faults_of_recordings(dataset) == []


def test_a_window_of_4_of_310_ms_is_too_short_and_the_change_covers_the_recordings(dataset):
    (found,) = find_window(with_data(dataset, step_ms=1, steps=4))

    assert found.kind == "window too short"
    assert found.value < 0.05
    changed, _ = override(runs.tiny(), list(found.changes))
    assert 310 <= changed.data.window_us / 1000 < 400
    assert find_window(with_data(dataset, step_ms=changed.data.step_ms, steps=changed.data.steps)) == []


def test_a_window_that_holds_an_eighth_of_the_events_is_a_choice(dataset):
    assert find_window(with_data(dataset, step_ms=25, steps=4)) == []


def test_events_behind_the_window_are_no_input_and_the_change_brings_them_in(dataset):
    late = with_events(dataset, t=np.asarray(dataset.parts["train"].events.t) + 400_000)

    (found,) = find_window(late)

    assert (found.kind, found.value) == ("no input", 1.0)
    assert "the first is at 400" in found.advice
    changed, _ = override(runs.tiny(), list(found.changes))
    assert find_window(with_data(late, step_ms=changed.data.step_ms, steps=changed.data.steps)) == []


def test_recordings_without_events_are_no_input_and_no_window_helps(dataset):
    events = dataset.parts["train"].events
    nothing = {column: np.asarray(getattr(events, column))[:0] for column in "xypt"}

    (found,) = find_window(with_events(dataset, **nothing, offsets=np.zeros_like(events.offsets)))

    assert (found.kind, found.changes) == ("no input", ())
    assert "They hold no events" in found.advice


def test_transforms_that_take_every_event_away_are_named():
    dataset = runs.few(replace(runs.DIGITS, transforms=(lambda events: events[:0],)), quiet=True)

    (found,) = find_window(dataset)

    assert (found.kind, found.changes) == ("no input", ("data.transforms=()",))


def test_one_class_is_found_and_two_are_not(dataset):
    labels = np.zeros_like(dataset.parts["train"].events.labels)
    one, two = with_events(dataset, labels=labels), labels.copy()
    two[dataset.ids["train"][3]] = 1

    (found,) = find_one_class(one)

    assert (found.kind, found.where, found.value) == ("one class", "the train split", 1)
    assert find_one_class(with_events(dataset, labels=two)) == []


def test_recordings_that_stand_in_training_and_test_are_found(dataset):
    shared = replace(
        dataset, parts={**dataset.parts, "test": dataset.parts["train"]},
        ids={**dataset.ids, "test": np.concatenate((dataset.ids["train"][:9], dataset.ids["validation"][:1]))},
    )  # fmt: skip

    (found,) = find_shared_recordings(shared)

    assert (found.kind, found.where, found.value) == ("shared recordings", "the test split", 0.9)


def test_recordings_that_changed_since_the_run_are_found(finished):
    run = runs.Run(finished.path)
    whole = runs.few(run.experiment.data, quiet=True)
    run.hold(whole)
    assert find_changed_recordings(run) == []

    part = whole.parts["train"]
    run.hold(replace(whole, parts={**whole.parts, "train": replace(part, sha256="0" * 64)}))

    (found,) = find_changed_recordings(run)
    assert found.kind == "changed recordings"
    assert "train part" in found.advice


def test_a_gesture_window_of_a_quarter_of_the_recordings_is_no_fault():
    # the usual 1.5 s of gestures that last 6 s
    assert Data("dvs_gesture").window_us == 1_500_000
    dataset = load(runs.DIGITS, quiet=True)
    assert find_window(with_data(dataset, step_ms=310 / 4, steps=1)) == []


def test_frames_that_are_zero_are_no_input_and_others_are():
    frames, labels = np.random.default_rng(0).random((30, 8, 4)), np.arange(30) % 3
    frames[: len(frames) // 3] = 0

    (found,) = find_faults_of_recordings(Dataset.of(train=(frames, labels), validation_fraction=0))

    assert (found.kind, found.value) == ("no input", pytest.approx(1 / 3))
    assert find_window(Dataset.of(train=(frames + 1, labels))) == []


def test_one_class_is_looked_for_where_there_are_classes():
    frames = np.random.default_rng(0).random((12, 5, 2))
    steps = np.full((12, 5), 1)
    steps[:, 3] = UNLABELLED

    (found,) = find_one_class(Dataset.of(train=(frames, steps), targets=Targets("class per step", ("a", "b"))))

    assert "All are 'b'" in found.advice
    assert find_one_class(Dataset.of(train=(frames, np.ones(12)), targets="vector")) == []
