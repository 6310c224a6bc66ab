"""Splits and batches: which recordings, in which order, the same every time."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from encode_reference import encode_reference

from snn_bp.data import Data, describe, load
from snn_bp.data.splits import draw_validation
from snn_bp.errors import SnnError


def test_a_batch_is_time_first_and_equals_the_reference(digits):
    ids = digits.batches("train", seed=1)[0][:7]

    x, y = digits.batch("train", ids)

    events = digits.parts["train"].events
    assert x.shape == (31, 7, 2, 34, 34) and x.dtype == torch.float32
    assert y.dtype == torch.int64 and y.tolist() == events.labels[ids].tolist()
    assert torch.equal(x, encode_reference(events, ids, steps=31, step_us=10_000, shape=(2, 34, 34)))


def test_bytes_hold_what_the_floats_of_a_batch_hold(digits):
    ids = digits.batches("train", seed=1)[0]

    (frames, targets), (in_bytes, same) = (
        digits.batch("train", ids, seed=2, in_bytes=asked) for asked in (False, True)
    )

    assert frames.dtype == torch.float32 and in_bytes.dtype == torch.uint8
    assert torch.equal(in_bytes.float(), frames) and torch.equal(targets, same)


def test_splits_are_disjoint_and_cover_their_parts(digits):
    train, validation, test = (digits.ids[split].tolist() for split in ("train", "validation", "test"))

    assert sorted(train + validation) == list(range(1437))
    assert test == list(range(360))


def test_validation_takes_the_same_share_of_each_class(digits):
    counts = {split: np.bincount(digits.labels(split), minlength=10) for split in ("train", "validation")}

    assert np.array_equal(counts["validation"], np.round(0.1 * (counts["train"] + counts["validation"])))


def test_the_split_seed_alone_decides_the_split():
    labels = np.random.default_rng(0).integers(0, 5, 83)

    first, again, other = (draw_validation(labels, fraction=0.2, seed=seed)[1] for seed in (4, 4, 5))

    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.9])
def test_no_class_of_two_is_taken_whole_or_left_out(fraction):
    labels = np.repeat(np.arange(3), 2)

    train, validation, note = draw_validation(labels, fraction=fraction, seed=0)

    assert labels[train].tolist() == labels[validation].tolist() == [0, 1, 2] and note == ""


def test_classes_of_one_are_drawn_from_together_and_noted():
    train, validation, note = draw_validation(np.arange(10), fraction=0.1, seed=0)

    assert (len(train), len(validation)) == (9, 1) and "1 of 10" in note


def test_validation_may_be_empty():
    train, validation, _ = draw_validation(np.arange(10) % 2, fraction=0, seed=0)

    assert (len(train), len(validation)) == (10, 0)


def test_batches_hold_every_id_once(digits):
    batches = digits.batches("train", seed=3)

    assert [len(ids) for ids in batches[:-1]] == [64] * (len(batches) - 1)
    assert sorted(np.concatenate(batches)) == digits.ids["train"].tolist()


def test_a_seed_decides_the_order(digits):
    first, again, other = (np.concatenate(digits.batches("train", seed=seed)) for seed in (0, 0, 1))

    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(np.concatenate(digits.batches("train")), digits.ids["train"])


def test_a_shifted_recording_depends_on_its_id_and_the_seed_alone(digits):
    shifted = replace(digits, data=replace(digits.data, translate_px=3, rotate_deg=10.0))

    alone, _ = shifted.batch("train", [5], seed=2)
    among, _ = shifted.batch("train", [9, 5, 700], seed=2)
    other, _ = shifted.batch("train", [5], seed=3)

    assert torch.equal(alone[:, 0], among[:, 1]) and not torch.equal(alone, other)


def test_only_training_recordings_with_a_seed_are_shifted(digits):
    shifted = replace(digits, data=replace(digits.data, translate_px=3, rotate_deg=10.0))

    for split, seed in (("train", None), ("validation", 1), ("test", 1)):
        ids = digits.ids[split][:4]
        assert torch.equal(shifted.batch(split, ids, seed=seed)[0], digits.batch(split, ids)[0])


def test_without_a_shift_a_seed_changes_nothing(digits):
    assert torch.equal(digits.batch("train", [3, 4], seed=8)[0], digits.batch("train", [3, 4])[0])


def test_numpys_global_state_is_neither_read_nor_moved(digits):
    before = np.random.get_state()[1].copy()

    digits.batch("train", digits.batches("train", seed=0)[0], seed=0)

    assert np.array_equal(np.random.get_state()[1], before)


def test_an_empty_batch_has_the_shape_of_a_batch(digits):
    x, y = digits.batch("test", [])

    assert x.shape == (31, 0, 2, 34, 34) and y.shape == (0,)


@pytest.mark.parametrize("ids", [[360], [-1]])
def test_ids_of_another_part_are_refused(digits, ids):
    with pytest.raises(SnnError, match=r"0\.\.359"):
        digits.batch("test", ids)


def test_an_unknown_split_is_refused(digits):
    with pytest.raises(SnnError, match="'validation'"):
        digits.batches("valid")


def test_the_record_is_json_and_says_what_the_run_saw(digits):
    record = json.loads(json.dumps(describe(digits)))

    assert record["splits"]["test"]["ids"] == list(range(360))
    assert sum(record["splits"]["train"]["class_counts"]) == len(digits.ids["train"])
    assert record["parts"]["train"]["share_of_events_in_window"] == 1
    assert record["encoding"]["step_us"] == 10_000 and "scikit-learn" in record["versions"]


def test_the_record_tells_encodings_apart(digits):
    binary = replace(digits, data=replace(digits.data, binary=True))

    assert describe(binary)["encoding"]["sha256"] != describe(digits)["encoding"]["sha256"]


def test_a_shorter_window_is_recorded_as_such(digits):
    short = load(Data("digits", steps=10), quiet=True)

    share = describe(short)["parts"]["train"]["share_of_events_in_window"]

    times = digits.parts["train"].events.t
    assert share == (times < 100_000).mean()


@pytest.mark.parametrize("ids", ([True, False], [1.7], [[1, 2]], 3, ["1"], None), ids=str)
def test_ids_that_are_no_list_of_whole_numbers_are_refused(digits, ids):
    with pytest.raises(SnnError, match="ids should be a list of integers"):
        digits.batch("train", ids)
