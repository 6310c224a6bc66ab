"""`Dataset.of`: arrays, tensors, torch's data sets, lists and generators; handed to a run, and again to go on."""

import numpy as np
import pytest
import runs
import torch
from torch.utils.data import TensorDataset

from snn_bp import BatchNorm, Dense, Experiment, SnnError, Targets, Train, evaluate, resume, train
from snn_bp.data import Data, Dataset, Delta, Repeat
from snn_bp.runs.folder import Run

RNG = np.random.default_rng(0)
X, Y = (RNG.random((40, 12, 6)) < 0.3).astype(np.float32), np.arange(40) % 3
EVENTS = [np.zeros(3, [("t", np.int64), ("x", np.int16)]) for _ in range(2)]


def same(first: Dataset, second: Dataset) -> bool:
    """Whether all batches are equal bit for bit."""
    return all(
        torch.equal(one, other)
        for split in ("train", "test")
        for one, other in zip(first.batch(split, first.ids[split]), second.batch(split, second.ids[split]), strict=True)
    )


def pairs():
    yield from zip(X, Y, strict=True)


@pytest.mark.parametrize(
    "content",
    (
        (torch.from_numpy(X), torch.from_numpy(Y)),
        (list(X), Y.tolist()),
        TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
        list(pairs()),
        tuple(pairs()),
        pairs(),
    ),
    ids=("tensors", "lists", "TensorDataset", "list of pairs", "tuple of pairs", "generator"),
)
def test_whatever_recordings_come_as_they_are_the_same(content):
    plain = Dataset.of(train=(X, Y), test=(X[:5], Y[:5]), batch=8)

    other = Dataset.of(train=content, test=(X[:5], Y[:5]), batch=8)

    assert same(plain, other) and plain.parts["train"].sha256 == other.parts["train"].sha256
    assert plain.targets == other.targets == Targets("class", ("0", "1", "2"))
    assert plain.shape == (6,) and plain.steps == 12 and len(plain.ids["train"]) == 37


def test_events_in_memory_are_counted():
    dtype = [("t", np.int64), ("x", np.int16)]
    recordings = [np.array([(1000 * n, n), (9000, 4)], dtype) for n in range(4)]

    dataset = Dataset.of(train=(recordings, [0, 1, 0, 1]), sensor=(5, 1, 1), steps=2, step_ms=5, validation_fraction=0)

    x, y = dataset.batch("train", range(4))
    assert x.shape == (2, 4, 5) and y.tolist() == [0, 1, 0, 1]
    assert x[0].nonzero().tolist() == [[n, n] for n in range(4)] and (x[1, :, 4] == 1).all() and x.sum() == 8


def test_lists_of_different_lengths_are_masked():
    x = [np.ones((length, 2)) for length in (3, 5, 4)]

    dataset = Dataset.of(train=(x, [0.5, 1.0, 2.0]), targets="vector", validation_fraction=0)

    mask = dataset.mask("train", range(3))
    assert mask is not None and mask.sum(0).tolist() == [3, 5, 4]
    assert torch.equal(dataset.batch("train", range(3))[0][..., 0], mask.float())


@pytest.mark.parametrize(
    "asked, message",
    (
        ({"train": (X, Y[:5])}, "40 recordings, and 5 targets"),
        ({"train": (X, Y + 0.5)}, "no classes"),
        ({"train": (X, Y), "targets": "classes"}, "'class'"),
        ({"train": []}, "no recording"),
        ({"train": 3}, r"\(x, target\)"),
        ({"train": (X, Y), "names": ["a"]}, "40 recordings want as many names, found 1"),
        ({"train": (X, Y), "binary": True}, "acts on events"),
        ({"train": (np.full_like(X, np.nan), Y)}, "NaN"),
        ({"train": (X, Y), "test": (X[..., :3], Y)}, r"\[6\] in the train part, \[3\]"),
        ({"train": (X, Y, np.full(40, 13))}, "its length is 13, it has 12 steps"),
        ({"train": (EVENTS, [0, 1]), "names": ["a"]}, "2 recordings want as many names, found 1"),
        ({"train": [(EVENTS[0], 0, {"name": "a"}), (EVENTS[1], 1)]}, "2 recordings want as many names, found 1"),
        ({"train": (EVENTS, [0, 1], [5, 6]), "sensor": (5, 1, 1)}, "these are events. Leave the lengths out"),
        ({"train": (X, Y), "step": 3}, "step"),
    ),
)
def test_what_is_no_data_set_is_refused(asked, message):
    with pytest.raises((SnnError, TypeError), match=message):
        Dataset.of(**asked)


def experiment(dataset: Dataset) -> Experiment:
    model = (Dense(12), BatchNorm(), runs.LIF(beta=0.8), Dense(3), BatchNorm(), runs.LIF(beta=0.8))
    return Experiment(dataset.data, model, Train(epochs=3, lr=5e-3))


def test_a_run_on_them_stops_and_goes_on_bit_for_bit(tmp_path, monkeypatch):
    def made():
        return Dataset.of(train=(X, Y), test=(X[:10], Y[:10]), batch=8, step_ms=4)

    whole = train(experiment(made()), tmp_path / "whole", quiet=True, dataset=made())
    real, seen = Dataset.batch, []

    def stopping(self, split, ids, **how):
        seen.append(split)
        if seen.count("train") == 9:
            raise KeyboardInterrupt
        return real(self, split, ids, **how)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Dataset, "batch", stopping)
        train(experiment(made()), tmp_path / "part", quiet=True, dataset=made(), save_seconds=0)
    part = resume(tmp_path / "part", quiet=True, dataset=made())

    runs.assert_same_run(part, whole)
    reopened = Run(tmp_path / "part")
    with pytest.raises(SnnError, match=r"Hand the same ones in again"):
        evaluate(reopened, "test")
    with pytest.warns(UserWarning, match="recording 3, has changed in its class"):
        reopened.hold(
            Dataset.of(train=(X, np.where(np.arange(40) == 3, 2, Y)), test=(X[:10], Y[:10]), batch=8, step_ms=4)
        )
    reopened.hold(made())
    assert evaluate(reopened, "test").record() == whole.results()["test"]


def test_other_recordings_are_noticed_by_name_when_a_run_goes_on(tmp_path):
    dataset = Dataset.of(train=(X, Y), batch=8)
    train(experiment(dataset), tmp_path / "run", quiet=True, dataset=dataset)
    (tmp_path / "run" / "results.json").unlink()
    changed = X.copy()
    changed[17, 3] += 1

    with pytest.warns(UserWarning), pytest.raises(SnnError, match="recording 17, has changed in its frames"):
        resume(tmp_path / "run", quiet=True, dataset=Dataset.of(train=(changed, Y), batch=8))
    with pytest.raises(SnnError, match=r"data\.batch is 8, this data set's 16"):
        resume(tmp_path / "run", quiet=True, dataset=Dataset.of(train=(X, Y), batch=16))
    with pytest.raises(SnnError, match=r"Hand the same ones in again"):
        resume(tmp_path / "run", quiet=True)


def test_an_experiment_with_another_description_is_refused(tmp_path):
    dataset = Dataset.of(train=(X, Y), step_ms=4)

    with pytest.raises(SnnError, match=r"data\.name is 'digits', this data set's 'in memory'"):
        train(runs.tiny(), tmp_path / "run", dataset=dataset)

    assert not (tmp_path / "run").exists()


def test_a_run_file_names_encoders(tmp_path):
    images = RNG.random((20, 1, 5, 5))
    dataset = Dataset.of(train=(images, np.arange(20) % 3), encoder=Repeat(4), batch=8)
    run = train(
        Experiment(dataset.data, (runs.Flatten(), Dense(3), runs.LIF(beta=0.8)), Train(epochs=1)),
        tmp_path / "run", quiet=True, dataset=dataset,
    )  # fmt: skip

    again = Run(run.path)

    assert again.experiment.data == dataset.data and again.experiment.data.encoder == Repeat(4)
    with pytest.raises(SnnError, match=r"data\.encoder is Repeat\(steps=4\), this data set's Repeat\(steps=5\)"):
        dataset_of_5 = Dataset.of(train=(images, np.arange(20) % 3), encoder=Repeat(5), batch=8)
        resume(run.path, dataset=dataset_of_5)


def test_data_in_memory_are_not_loaded_by_name():
    with pytest.raises(SnnError, match="handed to train"):
        runs.load(Data("in memory", encoder=Delta(0.5)))
