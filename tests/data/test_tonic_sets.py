"""Sets by tonic's classes: partial copies are read and said, files are sorted, fields addressed by name."""

from pathlib import Path

import h5py
import numpy as np
import pytest
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
