"""The sources of the complete sets in `experiments/`: what they give is what the files hold, or what is said of it."""

import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.io import loadmat

from snn_bp.data.loading import load
from snn_bp.model.losses.values import squared_distances
from snn_bp.runs.changes import override
from snn_bp.runs.experiment import Experiment
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.folder import Run
from snn_bp.trainer.loop import train

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def experiment(name: str, *changes: str) -> Experiment:
    """The experiment of a file, changed."""
    return override(read_file(EXPERIMENTS / f"{name}.py"), list(changes))[0]


@pytest.fixture
def source(shared_data, monkeypatch):
    """The source of an experiment's file, reading the shared recordings."""
    monkeypatch.setenv("SNN_BP_DATA", str(shared_data))
    return lambda name, *changes: experiment(name, *changes).data.source


def test_braille_is_split_by_repetition_and_holds_the_last_value(source, shared_data):
    file = np.load(shared_data / "braille_taxels.npz")

    parts = {part: source("braille").frames(part) for part in ("train", "test")}

    assert [len(x) for x, *_ in parts.values()] == [27 * 40, 27 * 10]
    for part, (x, labels, facts) in parts.items():
        numbers = np.flatnonzero((file["rep"] >= 40) == (part == "test"))
        for row in (0, 7, len(x) - 1):
            first, behind = file["offsets"][numbers[row]], file["offsets"][numbers[row] + 1]
            values = (file["x"][first:behind] - file["x"][first]) / 50
            assert np.array_equal(x[row, : behind - first], values)
            assert np.array_equal(x[row, behind - first :], np.tile(values[-1], (77 - len(values), 1)))
            assert labels[row] == file["label"][numbers[row]]
            assert facts["names"][row].endswith(f" {file['rep'][numbers[row]]}")


@pytest.mark.parametrize("unlabelled", [-1, 0])
def test_a_step_of_an_electrocardiogram_has_its_label_or_none(source, shared_data, unlabelled):
    file = loadmat(shared_data / "qtdb" / "QTDB_test.mat")

    x, y = source("qtdb", f"data.source.unlabelled={unlabelled}").frames("test")

    assert np.array_equal(x, file["x"]) and x.shape == (141, 1301, 4)
    recordings, steps, classes = np.nonzero(file["y"])
    assert (y[recordings, steps] == classes).all()
    without = file["y"].sum(2) == 0
    assert (y[without] == unlabelled).all() and 0.09 < without.mean() < 0.11


def test_time_constants_of_the_electrocardiogram_network_differ_by_neuron_within_their_bounds():
    layers = [layer for layer in experiment("qtdb").model if type(layer).__name__ == "Spiking"][:3]

    for layer in layers:
        for values, low, high in ((layer.neuron.beta, 2, 60), (layer.neuron.rho, 20, 600)):
            steps = np.sort(-1 / np.log(values))
            assert steps[[0, -1]] == pytest.approx([low, high], rel=1e-3)
            assert np.diff(np.log(steps)) == pytest.approx(np.log(high / low) / 127, rel=0.05)
    assert len({layer.neuron.beta for layer in layers}) == 3


def test_spoken_digits_are_the_events_of_the_file_with_their_speakers(source, shared_data):
    with h5py.File(shared_data / "fsdd" / "shd_test.h5") as file:
        times, units = file["spikes/times"][:], file["spikes/units"][:]
        labels, speakers = file["labels"][:], file["extra/speaker"][:]

    given = list(source("fsdd").recordings("test"))

    assert len(given) == len(labels) == 300
    for number, (events, label, facts) in enumerate(given):
        assert label == labels[number] and facts["group"] == f"speaker {speakers[number]}"
        assert np.abs(events["t"] / 1e6 - times[number]).max() < 1e-6
        assert np.array_equal(events["x"], units[number])


def test_the_spoken_digits_of_xylo_are_eight_of_them_in_sixteen_channels(source):
    all_given, given = (list(source(name).recordings("test")) for name in ("fsdd", "fsdd_xylo"))

    kept = [(events, label) for events, label, _ in all_given if label < 8]
    assert len(given) == len(kept) == 240
    for (events, label, _), (wanted, digit) in zip(given, kept, strict=True):
        assert label == digit and np.array_equal(events["t"], wanted["t"])
        assert np.array_equal(events["x"], wanted["x"].astype(int) * 16 // 140) and events["x"].max() < 16


def test_a_speaker_who_is_held_out_is_in_no_other_split(shared_data, monkeypatch):
    monkeypatch.setenv("SNN_BP_DATA", str(shared_data))

    dataset = load(experiment("fsdd", "data.source.pooled=yes", 'data.test_groups=("speaker 3",)').data, quiet=True)

    assert dataset.groups("test") == ["speaker 3"] * 500
    others = {*(dataset.groups("train") or ()), *(dataset.groups("validation") or ())}
    assert others == {f"speaker {number}" for number in (0, 1, 2, 4, 5)}


@pytest.mark.parametrize("pixels", [1, 28])
def test_the_pixels_of_a_digit_are_told_in_order(source, shared_data, pixels):
    content = (shared_data / "smnist" / "t10k-images-idx3-ubyte").read_bytes()
    labels = (shared_data / "smnist" / "t10k-labels-idx1-ubyte").read_bytes()

    x, y = source("smnist", f"data.source.pixels={pixels}").frames("test")

    assert x.shape == (10000, 784 // pixels, pixels) and list(y) == list(labels[8:])
    for number in (0, 1234, 9999):
        image = content[16 + 784 * number : 16 + 784 * (number + 1)]
        assert (x[number].reshape(-1) * 255).round().astype(int).tolist() == list(image)


def test_a_spike_train_of_the_picture_has_the_spikes_of_its_file(source, shared_data):
    content = (shared_data / "oxford" / "output.bs1").read_bytes()
    spikes = set()
    for start in range(0, len(content), 5):
        unit = int.from_bytes(content[start : start + 2], "big")
        spikes.add(((int.from_bytes(content[start + 2 : start + 5], "big") % 2**23) // 1000, unit))

    given, wanted = source("oxford").frames("test")

    assert wanted[0].shape == given[0].shape == (1900, 200)
    assert set(zip(*map(np.ndarray.tolist, np.nonzero(wanted[0])), strict=True)) == spikes


@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_unit_of_a_random_manifold_spikes_once_and_classes_differ(dimensions):
    source = experiment("randman", f"data.source.dimensions={dimensions}").data.source

    (x, y), (test, _) = source.frames("train"), source.frames("test")

    assert len(x) == 8000 and len(test) == 2000 and (x.sum(1) == 1).all() and (test.sum(1) == 1).all()
    assert np.bincount(y).tolist() == [800] * 10
    steps = x.argmax(1)  # [recordings, units]
    assert steps.min() == 0 and steps.max() == 99
    pairs = ~np.eye(20, dtype=bool)
    within, among = (np.abs(np.corrcoef(some.T))[pairs].mean() for some in (steps[np.array(y) == 0], steps))
    assert within > 1.5 * among  # units of one class move together, each class in its way


def test_halves_of_the_sign_are_equal_and_change_places_when_it_is_turned():
    x, y = np.random.default_rng(0).random((2, 200_000))
    which = runpy.run_path(str(EXPERIMENTS / "yin_yang.py"))["which"]

    classes, turned = which(x, y), which(1 - x, 1 - y)

    assert np.array_equal(np.array([-1, 1, 0, 2])[classes + 1], turned)
    inside = classes >= 0
    assert inside.mean() == pytest.approx(np.pi / 4, abs=0.005)  # a disc in its square
    assert (classes == 2).sum() / inside.sum() == pytest.approx(2 * 0.1**2 / 0.5**2, abs=0.005)
    assert which(np.array([0.25, 0.75, 0.5]), np.array([0.5, 0.5, 0.95])).tolist() == [2, 2, 1]


def test_the_spikes_of_a_point_tell_where_it_is():
    x, y = experiment("yin_yang").data.source.frames("test")

    steps = x.argmax(1)  # [points, inputs]

    assert (x.sum(1) == 1).all() and (steps[:, 0] == 0).all()
    assert (np.abs(steps[:, 1:3] + steps[:, 3:5] - 99) <= 1).all()
    assert np.bincount(y).tolist() == [334, 333, 333]
    dots = steps[y == 2][:, 1:3] / 99  # a dot is at (0.25, 0.5) or at (0.75, 0.5)
    assert (np.hypot(np.abs(dots[:, 0] - 0.5) - 0.25, dots[:, 1] - 0.5) < 0.1 + 0.01).all()


def test_the_side_with_more_cues_is_asked_for_at_recall_alone():
    x, y = experiment("cues", "data.source.recordings=200").data.source.frames("train")

    right = 0
    for frames, target in zip(x, y, strict=True):
        assert (target[:-15] == -1).all() and len({*target[-15:]}) == 1 and len(frames) == len(target)
        assert 105 + 50 + 15 <= len(frames) <= 105 + 100 + 15
        cues = frames[:105].reshape(7, 15, 4, 10)[:, :10].sum((1, 3))  # spikes of each cue and group
        right += int((cues[:, 1] > cues[:, 0]).sum() > 3.5) == target[-1]
        assert frames[:105, 20:30].sum() == 0 and frames[-15:, 20:30].sum() > 0
    assert right >= 198  # by the counts of spikes, some of which are drawn to be few


SHORT = {
    "braille": ("train.epochs=4",),
    "fsdd": ("train.epochs=1",),
    "fsdd_xylo": ("train.epochs=3",),
    "smnist": ("train.epochs=2",),
    "randman": ("train.epochs=2",),
    "yin_yang": ("train.epochs=20",),
    "qtdb": ("train.epochs=1",),
    "cues": ("train.epochs=3",),
}
CHANCE = {
    "braille": 1 / 27, "fsdd": 0.1, "fsdd_xylo": 1 / 8, "smnist": 0.1, "randman": 0.1, "yin_yang": 1 / 3,
    "qtdb": 1 / 6, "cues": 0.5,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_short_run_is_better_than_chance(name, shared_data, monkeypatch, tmp_path):
    monkeypatch.setenv("SNN_BP_DATA", str(shared_data))

    run = train(experiment(name, *SHORT[name]), tmp_path / "run", quiet=True)

    results = Run(run.path).results()
    assert results is not None
    assert results["test"]["accuracy"] > min(3 * CHANCE[name], 0.65)


@pytest.mark.slow
def test_a_network_learns_when_to_spike(shared_data, monkeypatch, tmp_path):
    monkeypatch.setenv("SNN_BP_DATA", str(shared_data))

    run = train(experiment("oxford", "train.epochs=20"), tmp_path / "run", quiet=True)

    dataset = load(experiment("oxford").data, quiet=True)
    _, targets = dataset.batch("test", dataset.ids["test"])
    silence = squared_distances(torch.zeros(1900, 1, 200), targets, None, tau=10).sqrt().mean()
    results = Run(run.path).results()
    assert results is not None
    assert results["test"]["metrics"]["van_rossum"] < 0.9 * silence
