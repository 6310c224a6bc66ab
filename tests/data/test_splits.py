"""Splits by group, by table, by fraction and by fold: nobody on both sides, everybody somewhere."""

import json

import numpy as np
import pytest

from snn_bp.data import Data, Dataset, describe, first_difference, load
from snn_bp.errors import SnnError

COUNT = 60
RNG = np.random.default_rng(1)
X, Y = RNG.random((COUNT, 4, 2)), np.arange(COUNT) % 3
SPEAKERS = [f"speaker {number}" for number in RNG.integers(0, 7, COUNT)]


def made(*, test=None, groups=SPEAKERS, **how) -> Dataset:
    return Dataset.of(train=(X, Y), test=test, groups=groups, **how)


def sets(dataset: Dataset) -> list[set[int]]:
    return [set(dataset.ids[split].tolist()) for split in ("train", "validation", "test")]


def assert_partition(dataset: Dataset) -> None:
    train, validation, test = sets(dataset)
    assert len(train) + len(validation) + len(test) == COUNT and train | validation | test == set(range(COUNT))


@pytest.mark.parametrize("seed", range(4))
def test_no_group_stands_in_two_splits(seed):
    dataset = made(split_by="group", validation_fraction=0.2, test_fraction=0.3, split_seed=seed)

    groups = [set(dataset.groups(split) or ()) for split in ("train", "validation", "test")]
    assert all(groups) and set.union(*groups) == set(SPEAKERS)
    assert sum(map(len, groups)) == 7
    assert_partition(dataset)


def test_held_out_groups_are_the_test_split_and_no_other_recording_is():
    dataset = made(test_groups=("speaker 2", "speaker 5"))

    test = dataset.ids["test"]
    assert test.tolist() == [number for number, name in enumerate(SPEAKERS) if name in ("speaker 2", "speaker 5")]
    assert_partition(dataset)
    x, y = dataset.batch("test", test)
    assert np.allclose(x.numpy(), np.moveaxis(X[test], 0, 1).astype(np.float32)) and y.tolist() == Y[test].tolist()


@pytest.mark.parametrize("split_by", ("recording", "group"))
@pytest.mark.parametrize("has_test_part", (False, True))
def test_folds_cover_every_recording_once(split_by, has_test_part):
    test = (X[:5], Y[:5]) if has_test_part else None
    folds = [made(test=test, split_by=split_by, folds=5, fold=fold, validation_fraction=0.1) for fold in range(5)]

    judged = [dataset.ids["validation" if has_test_part else "test"] for dataset in folds]

    assert sorted(np.concatenate(judged)) == list(range(COUNT))
    for dataset, ids in zip(folds, judged, strict=True):
        assert not set(ids) & set(dataset.ids["train"])
        assert len(dataset.ids["test"]) == (5 if has_test_part else len(ids))
        if split_by == "recording":
            assert len(ids) == 12 and np.bincount(Y[ids]).tolist() == [4, 4, 4]
        else:
            assert not {SPEAKERS[number] for number in ids} & set(dataset.groups("train") or ())


def test_a_fraction_for_the_test_split_takes_the_same_of_each_class():
    dataset = made(test_fraction=0.25, validation_fraction=0.2)

    assert np.bincount(dataset.labels("test")).tolist() == [5, 5, 5]
    assert np.bincount(dataset.labels("validation")).tolist() == [3, 3, 3]
    assert_partition(dataset)


def test_a_table_decides_where_it_says_something():
    table = ["validation" if number % 5 == 1 else "test" if number % 5 == 2 else "train" for number in range(COUNT)]
    content = [(X[number], int(Y[number]), {"split": table[number]}) for number in range(COUNT)]

    dataset = Dataset.of(train=content)

    assert [dataset.ids[split].tolist() for split in ("train", "validation", "test")] == [
        [number for number in range(COUNT) if table[number] == split] for split in ("train", "validation", "test")
    ]


def test_without_a_test_part_and_unasked_there_is_no_test_split():
    assert len(made().ids["test"]) == 0


@pytest.mark.parametrize(
    "asked, message",
    (
        ({"test_groups": ("speaker 9",)}, "Did you mean 'speaker"),
        ({"test_groups": ("speaker 1",), "groups": None}, "names no groups"),
        ({"split_by": "group", "groups": None}, "names no groups"),
        ({"split_by": "group", "groups": ["one"] * COUNT}, "1 group left to split"),
        ({"test_groups": tuple(set(SPEAKERS))}, "nothing is left to train on"),
        ({"test_fraction": 0.2, "test": (X, Y)}, "has a test part of 60 recordings"),
        ({"folds": 5, "fold": 5}, r"0\.\.4"),
        ({"folds": 5, "test_fraction": 0.1}, "leave the others out"),
        ({"folds": 61, "fold": 60}, "fold 60 is empty"),
        ({"split_by": "speaker"}, "'recording'"),
        ({"test_groups": "ann"}, "names of groups"),
    ),
)
def test_a_split_that_cannot_be_made_is_refused(asked, message):
    with pytest.raises(SnnError, match=message):
        made(**asked)


@pytest.mark.parametrize(
    "change",
    ({"test_fraction": 0.3}, {"split_seed": 3}, {"folds": 3}, {"split_by": "group"}, {"test_groups": ("speaker 3",)}),
)
def test_the_record_holds_ids_and_hashes_and_tells_other_splits(change):
    record = json.loads(json.dumps(describe(made(test_fraction=0.2))))

    assert record["splits"]["test"]["ids"] == made(test_fraction=0.2).ids["test"].tolist()
    assert record["splits"]["test"]["groups"] == sorted(
        {SPEAKERS[number] for number in record["splits"]["test"]["ids"]}
    )
    assert first_difference(record, made(test_fraction=0.2)) is None
    other = made(**({"test_fraction": 0.2} if set(change) <= {"split_seed", "split_by"} else {}) | change)
    assert "drawn otherwise" in str(first_difference(record, other))


def test_recordings_of_one_pool_are_not_taken_for_copies_of_each_other():
    dataset = made(test_fraction=0.2)

    assert dataset.notes == () and dataset.parts["test"] is dataset.parts["train"]
    assert any("equal an earlier one" in note for note in Dataset.of(train=(np.repeat(X, 2, 0), np.repeat(Y, 2))).notes)


def test_a_shipped_set_takes_folds_for_validation_and_knows_no_groups(digits):
    folds = [load(Data("digits", folds=4, fold=fold), quiet=True) for fold in range(4)]

    assert sorted(np.concatenate([dataset.ids["validation"] for dataset in folds])) == list(range(1437))
    assert all(np.array_equal(dataset.ids["test"], digits.ids["test"]) for dataset in folds)
    with pytest.raises(SnnError, match="digits names no groups"):
        load(Data("digits", split_by="group"), quiet=True)
