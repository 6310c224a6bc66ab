"""What is there of a known set is counted, what is damaged is named, and where it comes from is what tonic says."""

import hashlib
import inspect
import re
import runpy
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from snn_bp.data import copies
from snn_bp.data.copies import KNOWN, lines_of, look, table_of
from snn_bp.data.origins import ORIGINS
from snn_bp.data.tonic_sets import SETS
from snn_bp.errors import SnnError

ROOT = Path(__file__).parents[2]
MADE = runpy.run_path(str(ROOT / "experiments" / "benchmarks" / "recipes.py"))


def put(file: Path, content: bytes = b"12345") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def test_every_set_of_classes_has_an_origin_and_its_parts():
    assert ORIGINS.keys() == SETS.keys()
    for name, origin in ORIGINS.items():
        assert origin.parts.keys() == SETS[name].parts.keys() and "train" in origin.parts
        assert origin.page.startswith("http") and origin.licence in ("", "CC BY 4.0", "CC BY-SA 4.0")


@pytest.mark.parametrize("name", ORIGINS)
def test_archives_are_those_that_tonic_names(name):
    import tonic.datasets

    kind = getattr(tonic.datasets, name)
    text = inspect.getsource(inspect.getmodule(kind))  # type: ignore[arg-type]
    bases = [base for base in (getattr(kind, "base_url", None), getattr(kind, "url", None)) if base]

    for archive in ORIGINS[name].archives:
        assert archive.md5 in text and archive.name.removesuffix(".gz") in text
        known = archive.url in text or any(archive.url.startswith(base) for base in bases)
        assert known or not archive.url


@pytest.mark.parametrize("name", MADE["SETS"])
def test_recordings_of_each_part_are_counted(name, tmp_path):
    parts = MADE["SETS"][name].parts
    counts = dict(zip(parts, (7, 3, 2), strict=False))
    MADE["write_set"](name, tmp_path, counts, events=10)

    copy = look(name, str(tmp_path))

    assert [part.recordings for part in copy.parts.values()] == list(counts.values())
    assert copy.state == "partial" and copy.can_train and not copy.damaged
    assert copy.bytes == sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())


def test_a_file_of_both_parts_is_counted_once(tmp_path):
    (tmp_path / "NTIDIGITS18").mkdir()
    with h5py.File(tmp_path / "NTIDIGITS18" / "n-tidigits.hdf5", "w") as file:
        file["train_labels"], file["test_labels"] = [b"ann-a-1", b"ann-b-12", b"bob-a-z"], [b"cyd-a-o"]

    copy = look("tonic:NTIDIGITS18", str(tmp_path))

    assert [part.recordings for part in copy.parts.values()] == [2, 1]  # sequences of digits are no class
    assert copy.bytes == (tmp_path / "NTIDIGITS18" / "n-tidigits.hdf5").stat().st_size


def test_a_whole_copy_is_told_from_a_part_of_it(tmp_path):
    for part, count in (("train", 48), ("test", 20)):
        for number in range(count):
            file = tmp_path / "POKERDVS" / f"pips_{part}" / ("cl", "he")[number % 2] / f"{number}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, np.zeros((3, 4), np.int64))

    whole = look("tonic:POKERDVS", str(tmp_path))
    file.unlink()
    part = look("tonic:POKERDVS", str(tmp_path))

    assert (whole.state, part.state) == ("whole", "partial")
    assert any(re.search(r"test +19 of 20 ", line) for line in lines_of(part))


@pytest.mark.parametrize(
    ("name", "file", "content", "said"),
    [
        ("nmnist", "NMNIST/Train/3/1.bin", b"1234567", "no multiple of 5"),
        ("nmnist", "NMNIST/Test/3/1.bin", b"", "it is empty"),
        ("shd", "SHD/shd_train.h5", b"cut short", "cannot be read"),
        ("dvs_gesture", "DVSGesture/ibmGestureTrain/user01_x/2.npy", b"\x93NUMPY", "cannot be read"),
        ("tonic:SMNIST", "smnist/train-images-idx3-ubyte", bytes(7) + b"\2" + bytes(90), "should have 1584 bytes"),
    ],
)
def test_a_damaged_file_is_named_and_the_copy_is_not_good_for_training(name, file, content, said, tmp_path):
    damaged = put(tmp_path / file, content)

    copy = look(name, str(tmp_path))

    (sentence,) = copy.damaged
    assert str(damaged) in sentence and said in sentence and not copy.can_train
    assert f"  damaged: {sentence}" in lines_of(copy)


def test_archives_are_compared_with_their_hashes(tmp_path, monkeypatch):
    archive = put(tmp_path / "NMNIST" / "train.zip", b"content")
    put(tmp_path / "NMNIST" / "Train" / "3" / "1.bin")

    unread, wrong = look("nmnist", str(tmp_path)), look("nmnist", str(tmp_path), hashes=True)
    right = replace(ORIGINS["NMNIST"].archives[0], md5=hashlib.md5(b"content").hexdigest())
    monkeypatch.setattr(copies, "ORIGINS", {"NMNIST": replace(ORIGINS["NMNIST"], archives=(right,))})

    assert unread.can_train and not wrong.can_train and str(archive) in wrong.damaged[0]
    compared = look("nmnist", str(tmp_path), hashes=True)
    assert compared.can_train and any("(it is there, compared with its hash)" in line for line in lines_of(compared))


def test_archives_that_are_not_unpacked_are_no_recordings(tmp_path):
    put(tmp_path / "SHD" / "shd_train.h5.zip")

    copy = look("shd", str(tmp_path))

    assert copy.state == "archives" and not copy.can_train
    assert lines_of(copy)[-1].startswith("next:    unpack the archives in")


def test_all_sets_stand_in_a_table_of_80_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_BP_DATA", str(tmp_path))

    head, *lines = table_of()

    assert len(lines) == len(SETS) and max(map(len, (head, *lines))) <= 80
    assert all("not here" in line for line in lines) and {line.split()[0] for line in lines} <= {*KNOWN}


def test_a_set_of_nobody_is_refused():
    with pytest.raises(SnnError, match="Did you mean 'tonic:NCALTECH101'"):
        look("tonic:NCALTECH")
