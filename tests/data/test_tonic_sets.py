"""Sets by tonic's classes: partial copies are read and said, files are sorted, fields addressed by name."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from event_files import some_events, write_bin

from snn_bp.data import Data, TonicSet, load
from snn_bp.data.tonic_sets import SETS
from snn_bp.errors import SnnError


def load_set(name: str, root: Path, **fields):
    return load(Data(f"tonic:{name}", root=str(root), **{"validation_fraction": 0} | fields), quiet=True)


def test_facts_are_tonics_own():
    import tonic.datasets

    for name, facts in SETS.items():
        kind = getattr(tonic.datasets, name)
        assert tuple(getattr(kind, "sensor_size", None) or facts.sensor) == facts.sensor


def test_a_partial_copy_is_read_and_said(cache, recorded):
    dataset = load_set("NMNIST", recorded)
    ours = load(Data("nmnist", root=str(recorded), validation_fraction=0), quiet=True)

    assert any("partial copy: 340 of 60000 train recordings, 100 of 10000 test" in note for note in dataset.notes)
    assert dataset.class_names[3] == "3 - three"
    for split in ("train", "test"):
        assert np.array_equal(dataset.labels(split), ours.labels(split))
        assert dataset.batch(split, [0, 57])[0].equal(ours.batch(split, [0, 57])[0])


def test_gestures_are_those_that_are_read_here(cache, recorded):
    dataset = load_set("DVSGesture", recorded)
    ours = load(Data("dvs_gesture", root=str(recorded), validation_fraction=0), quiet=True)

    assert len(dataset.ids["test"]) == 0 and dataset.groups("train") == ["user 1"] * 10
    assert dataset.labels("train").tolist() == ours.labels("train").tolist()
    assert dataset.batch("train", range(10))[0].equal(ours.batch("train", range(10))[0])


def test_images_become_the_spikes_that_tonic_makes(cache, recorded, tmp_path):
    (tmp_path / "smnist").mkdir()
    for kind, header, each in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
        for part in ("train", "t10k"):
            content = (recorded / "smnist" / f"{part}-{kind}-ubyte").read_bytes()
            few = content[:4] + (20).to_bytes(4, "big") + content[8 : header + 20 * each]
            (tmp_path / "smnist" / f"{part}-{kind}-ubyte").write_bytes(few)

    dataset = load_set("SMNIST", tmp_path)

    from tonic.datasets import SMNIST

    events, label = SMNIST(str(tmp_path))[7]
    frames, targets = dataset.batch("train", [7])
    counts = np.zeros((dataset.steps, 99))
    np.add.at(counts, (events["t"] // 8000, events["x"]), 1)
    assert int(targets[0]) == label and np.array_equal(frames[:, 0].numpy(), counts)


def test_a_set_without_an_official_split_takes_a_drawn_one(cache, tmp_path):
    for name in ("chair", "airplanes", "lamp"):
        for number in range(4):
            file = tmp_path / "NCALTECH101" / "Caltech101" / name / f"image_{number:04}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bin(file, some_events(40, size=(200, 150), seed=number))

    dataset = load_set("NCALTECH101", tmp_path, test_fraction=0.25)
    again = load_set("NCALTECH101", tmp_path, test_fraction=0.25)

    assert dataset.class_names == ("airplanes", "chair", "lamp")
    assert len(dataset.ids["test"]) == 3 and dataset.ids["test"].tolist() == again.ids["test"].tolist()
    assert dataset.names("train")[0].startswith("Caltech101/airplanes/image_")
    assert dataset.shape == (2, 180, 240)


def test_three_parts_of_a_set_are_its_splits(cache, tmp_path):
    (tmp_path / "SSC").mkdir()
    for part, count in (("train", 4), ("valid", 2), ("test", 3)):
        with h5py.File(tmp_path / "SSC" / f"ssc_{part}.h5", "w") as file:
            ragged = {"times": h5py.vlen_dtype(np.float16), "units": h5py.vlen_dtype(np.uint16)}
            for field, kind in ragged.items():
                rows = file.create_dataset(f"spikes/{field}", (count,), dtype=kind)
                for number in range(count):
                    rows[number] = [0.1, 0.25] if field == "times" else [number, 699]
            file["labels"] = np.arange(count) % 2
            file["extra/keys"], file["extra/speaker"] = [b"yes", b"no"], np.arange(count)

    dataset = load_set("SSC", tmp_path)

    assert [len(dataset.ids[split]) for split in ("train", "validation", "test")] == [4, 2, 3]
    assert dataset.class_names == ("yes", "no") and dataset.shape == (700,)
    assert dataset.groups("train") == [f"speaker {number}" for number in range(4)]


def put_events(file: Path, seed: int, size: tuple[int, int]) -> np.ndarray:
    """Events for a set that keeps them as arrays; saved in the order of fields that tonic's class wants."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return some_events(40, size=size, seed=seed, until_us=9000)


def test_signs_in_matlab_files(cache, tmp_path):
    for letter in "ca":
        for number in range(2):
            file = tmp_path / "ASLDVS" / letter / f"{letter}_{number:04}.mat"
            events = put_events(file, number, (240, 180))
            columns = {
                name: events[field][:, None] for name, field in zip(("ts", "x", "y", "pol"), "txyp", strict=True)
            }
            scipy.io.savemat(file, columns)

    dataset = load_set("ASLDVS", tmp_path, step_ms=1, steps=10)

    assert dataset.class_names == tuple("abcdefghijklmnopqrstuvwxyz")
    assert dataset.names("train") == ["a/a_0000.mat", "a/a_0001.mat", "c/c_0000.mat", "c/c_0001.mat"]
    assert dataset.labels("train").tolist() == [0, 0, 2, 2]
    assert float(dataset.batch("train", range(4))[0].sum()) == 160


def test_lips_in_structured_arrays(cache, tmp_path):
    for part in ("train", "test"):
        for number, word in enumerate(("young", "accused")):
            file = tmp_path / "DVSLip" / "DVS-Lip" / part / word / f"{number}.npy"
            np.save(file, put_events(file, number, (128, 128)))

    dataset = load_set("DVSLip", tmp_path, step_ms=1, steps=10)

    assert [dataset.class_names[label] for label in dataset.labels("test")] == ["accused", "young"]
    assert any("2 of 14896 train recordings, 2 of 4975 test recordings" in note for note in dataset.notes)


def test_cards_in_plain_arrays(cache, tmp_path):
    for part in ("train", "test"):
        for number, suit in enumerate(("sp", "cl")):
            file = tmp_path / "POKERDVS" / f"pips_{part}" / suit / f"{number}.npy"
            events = put_events(file, number, (35, 35))
            np.save(file, np.stack([events[field].astype(np.int64) for field in "txyp"], 1))

    dataset = load_set("POKERDVS", tmp_path)

    assert dataset.class_names == ("cl", "he", "di", "sp") and sorted(dataset.labels("train")) == [0, 3]
    assert dataset.shape == (2, 35, 35) and float(dataset.batch("test", [0, 1])[0].sum()) == 80


def test_spoken_digits_of_a_cochlea(cache, tmp_path):
    (tmp_path / "NTIDIGITS18").mkdir()
    with h5py.File(tmp_path / "NTIDIGITS18" / "n-tidigits.hdf5", "w") as file:
        for part, samples in (("train", ("ann-a-1", "bob-a-z", "ann-b-12")), ("test", ("cyd-a-o",))):
            file[f"{part}_labels"] = np.array([sample.encode() for sample in samples])
            for sample in samples:
                file[f"{part}_addresses/{sample}"] = np.array([3, 63])
                file[f"{part}_timestamps/{sample}"] = np.array([0.25, 0.5])

    dataset = load_set("NTIDIGITS18", tmp_path, step_ms=10, steps=100)

    assert dataset.labels("train").tolist() == [1, 10] and dataset.labels("test").tolist() == [0]
    assert dataset.groups("train") == ["ann", "bob"]  # sequences of several digits are no class
    frames = dataset.batch("train", [0])[0]
    assert frames.shape == (100, 1, 64) and frames[25, 0, 3] == frames[50, 0, 63] == 1 and frames.sum() == 2


def test_a_file_that_vanished_or_changed_is_read_anew(cache, tmp_path):
    def put(number):
        file = tmp_path / "NCALTECH101" / "Caltech101" / "chair" / f"{number}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bin(file, some_events(40, size=(200, 150), seed=number))

    put(1)
    before = load_set("NCALTECH101", tmp_path)

    put(2)

    assert len(load_set("NCALTECH101", tmp_path).ids["train"]) == len(before.ids["train"]) + 1


def test_a_set_that_is_not_there_says_where_it_belongs(cache, tmp_path, monkeypatch):
    import tonic.datasets

    def fail(self):
        raise OSError("no network")

    monkeypatch.setattr(tonic.datasets.CIFAR10DVS, "download", fail)

    with pytest.raises(SnnError, match=r"no files of it in .*CIFAR10DVS, and the download failed \(no network\)"):
        load_set("CIFAR10DVS", tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [("DSEC", "its targets are no classes"), ("NCALTECH", "Did you mean 'NCALTECH101'"), ("", "no such set")],
)
def test_other_names_are_refused(name, said):
    with pytest.raises(SnnError, match=said):
        Data(f"tonic:{name}")


def test_a_set_whose_recordings_differ_in_length_needs_a_window():
    with pytest.raises(SnnError, match="step_ms"):
        Data("tonic:DVSLip")

    assert Data("tonic:DVSLip", step_ms=10, steps=100).info.sensor == (128, 128, 2)
    assert Data(TonicSet("SHD")).steps == Data("tonic:SHD").steps == 100
