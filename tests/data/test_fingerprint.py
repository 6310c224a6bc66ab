"""`data.json` names every recording, so that a later start says which one has changed."""

import json
import os

import numpy as np
import pytest

from snn_bp.data import Data, describe, first_difference, load


def few(root, **changes):
    return load(Data("nmnist", root=str(root), **changes), quiet=True)


def written(dataset) -> dict:
    return json.loads(json.dumps(describe(dataset)))


@pytest.fixture
def record(cache, few_nmnist) -> dict:
    return written(few(few_nmnist))


def third(root, part="Train"):
    return sorted((root / "NMNIST" / part).glob("*/*.bin"))[2]


def test_the_same_recordings_differ_in_nothing(record, few_nmnist):
    for file in (few_nmnist / "NMNIST").rglob("*.bin"):
        os.utime(file)  # copied anew

    assert first_difference(record, few(few_nmnist)) is None


@pytest.mark.parametrize("part", ["Train", "Test"])
def test_a_changed_recording_is_named(record, few_nmnist, part):
    file = sorted((few_nmnist / "NMNIST" / part).glob("*/*.bin"))[2]
    file.write_bytes(file.read_bytes()[:-5])

    found = first_difference(record, few(few_nmnist))

    name = f"{file.parent.name}/{file.name}"
    assert found == f"{part.lower()} part: recording 2, {name}, has changed in its events"


def test_a_recording_that_is_gone_or_new_is_named(record, few_nmnist):
    file = third(few_nmnist)
    name, fresh = f"{file.parent.name}/{file.name}", file.with_name("zz.bin")
    fresh.write_bytes(file.read_bytes())
    found = first_difference(record, few(few_nmnist))
    assert found == f"train part: recording {fresh.parent.name}/zz.bin was not there then"

    fresh.unlink()
    file.unlink()

    assert first_difference(record, few(few_nmnist)) == f"train part: recording 2, {name}, is not there any more"


def test_a_recording_in_another_class_is_named(record, few_nmnist):
    file = sorted((few_nmnist / "NMNIST" / "Train" / "3").glob("*.bin"))[0]
    file.rename(file.parent.parent / "8" / file.name)

    assert f"recording 0, 3/{file.name}, is not there any more" in str(first_difference(record, few(few_nmnist)))


def test_a_record_of_an_older_version_is_compared_in_what_it_has(record, few_nmnist):
    for part in record["parts"].values():
        for field in ("each_recording", "reading_format", "recordings_without_event_in_window"):
            del part[field]
    assert first_difference(record, few(few_nmnist)) is None

    third(few_nmnist).unlink()

    found = str(first_difference(record, few(few_nmnist)))
    assert found.startswith("train part: 6 recordings with ") and "5 recordings with" in found
    assert "another version of snn_bp" in found


@pytest.mark.parametrize(
    "change", [{"step_ms": 20.0}, {"steps": 7}, {"binary": True}, {"translate_px": 2}, {"split_seed": 5}]
)
def test_other_frames_or_splits_of_the_same_recordings_are_told(record, few_nmnist, change):
    found = str(first_difference(record, few(few_nmnist, **change)))

    field = {"step_ms": "step_us", "split_seed": "drawn otherwise"}.get(*change, *change)
    assert field in found


@pytest.mark.parametrize("damage", [None, [], "text", {"parts": None}, {"parts": {"train": 3}}, {"splits": []}, {}])
def test_a_record_that_is_damaged_ends_in_a_word_or_in_nothing(few_nmnist, cache, damage):
    found = first_difference(damage, few(few_nmnist))

    assert (found is None) == isinstance(damage, dict)


@pytest.mark.parametrize("lines", [[3], ["one word"], "text", {"a": 1}])
def test_recordings_that_are_not_named_rightly_are_compared_by_count(record, few_nmnist, lines):
    record["parts"]["train"]["each_recording"] = lines
    third(few_nmnist).unlink()

    assert "6 recordings with" in str(first_difference(record, few(few_nmnist)))


def test_every_recording_has_a_name_a_class_and_a_hash_of_its_events(digits):
    lines = written(digits)["parts"]["test"]["each_recording"]

    assert len(lines) == 360 and lines[0].startswith(f"digit 1437 {digits.parts['test'].events.labels[0]} ")
    assert len({line.split()[-1] for line in lines}) == 360


def test_no_two_of_the_made_digits_have_the_same_hash(digits):
    assert not np.isin(digits.parts["test"].hashes, digits.parts["train"].hashes).any()
