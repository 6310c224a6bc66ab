"""Files on disk: whole and partial copies, their order, their faults, and a download that fails."""

import os
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from snn_bp.data import Data, describe, load
from snn_bp.errors import SnnError


def load_few(root: Path, name: str = "nmnist", **changes):
    return load(Data(name, root=str(root), **changes), quiet=True)


def write_gestures(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        file = root / "DVSGesture" / "ibmGestureTrain" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.array([[number, 2, 1, 500 + number], [3, 4, 0, 900]], dtype=np.int32))


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_a_partial_copy_is_read_and_noted(cache, few_nmnist):
    dataset = load_few(few_nmnist)

    assert [len(dataset.ids[split]) for split in ("train", "validation", "test")] == [4, 2, 4]
    assert dataset.notes == (
        "partial copy: 6 of 60000 training and 4 of 10000 test recordings",
        "train part: no recording of 8 of 10 classes: 0, 1, 2, 4, 5 and 3 more",
        "test part: no recording of 8 of 10 classes: 0, 1, 2, 4, 5 and 3 more",
    )
    assert describe(dataset)["notes"] == list(dataset.notes)


def test_events_are_those_that_tonic_reads(cache, recorded):
    from tonic.io import read_mnist_file

    dataset = load_few(recorded)

    events = dataset.parts["test"].events
    files = sorted((recorded / "NMNIST" / "Test").glob("*/*.bin"))
    for number in (0, 57, 99):
        span = slice(events.offsets[number], events.offsets[number + 1])
        real = read_mnist_file(str(files[number]), dtype=np.dtype([(field, int) for field in "xytp"]))
        assert all(np.array_equal(getattr(events, field)[span], real[field]) for field in "xytp")
        assert events.labels[number] == int(files[number].parent.name)


def test_nothing_is_written_where_the_files_are(cache, few_nmnist):
    before = listing(few_nmnist)

    load_few(few_nmnist)

    assert listing(few_nmnist) == before


def test_a_changed_file_gives_its_new_events(cache, few_nmnist):
    first = load_few(few_nmnist).parts["train"].events
    file = sorted((few_nmnist / "NMNIST" / "Train").glob("*/*.bin"))[0]
    file.write_bytes(file.read_bytes()[: 5 * 100])

    second = load_few(few_nmnist).parts["train"].events

    assert first.offsets[1] > 100 >= second.offsets[1]


def test_a_file_touched_at_the_same_size_is_read_again(cache, few_nmnist):
    first = load_few(few_nmnist).parts["train"].folder
    file = sorted((few_nmnist / "NMNIST" / "Train").glob("*/*.bin"))[0]
    os.utime(file, ns=(1, 1))

    assert load_few(few_nmnist).parts["train"].folder != first


def test_the_sets_own_folder_may_be_named(cache, few_nmnist):
    assert len(load_few(few_nmnist / "NMNIST").ids["test"]) == 4


def test_the_environment_names_the_folder(cache, few_nmnist, monkeypatch):
    monkeypatch.setenv("SNN_BP_DATA", str(few_nmnist))

    assert len(load(Data("nmnist"), quiet=True).ids["test"]) == 4


def test_gestures_are_numbered_by_path_and_start_at_zero(cache, tmp_path):
    write_gestures(tmp_path, "user10_led/7.npy", "user02_lab/10.npy", "user02_lab/2.npy")

    events = load_few(tmp_path, "dvs_gesture").parts["train"].events

    assert events.labels.tolist() == [10, 2, 7]
    assert events.t.tolist() == [0, 399_000, 0, 398_000, 0, 400_000]  # ms in the file


def test_a_missing_test_part_stays_empty(cache, recorded):
    dataset = load_few(recorded, "dvs_gesture")

    assert [len(dataset.ids[split]) for split in ("train", "validation", "test")] == [9, 1, 0]
    assert dataset.batches("test") == [] and dataset.classes == 11
    assert "0 of 264 test" in dataset.notes[0] and "1 of 10" in dataset.notes[1]
    assert describe(dataset)["splits"]["test"]["class_counts"] == [0] * 11


@pytest.mark.slow
def test_files_of_shds_schema_are_not_taken_for_shd(recorded):
    dataset = load_few(recorded / "fsdd", "shd")

    x, _ = dataset.batch("test", [0, 1])

    assert dataset.shape == (140,) and x.shape == (100, 2, 140)
    assert dataset.class_names[:2] == ("zero", "one") and dataset.classes == 10
    assert "not the Heidelberg digits" in dataset.notes[0] and "FSDD" in dataset.notes[0]


def test_channels_can_be_joined_and_shifted(recorded):
    whole = load_few(recorded / "fsdd", "shd")
    joined = load_few(recorded / "fsdd", "shd", downsample=7, translate_px=5)
    ids = whole.ids["train"][:3]

    fine, coarse = whole.batch("train", ids)[0], joined.batch("train", ids)[0]
    shifted = joined.batch("train", ids, seed=0)[0]

    assert coarse.equal(fine.reshape(100, 3, 20, 7).sum(dim=3))
    assert not shifted.equal(coarse) and shifted.sum() <= coarse.sum()


def test_channels_divide_evenly_or_are_refused(recorded):
    with pytest.raises(SnnError, match="140"):
        load_few(recorded / "fsdd", "shd", downsample=3)


def test_a_cut_file_is_named(cache, few_nmnist):
    file = sorted((few_nmnist / "NMNIST" / "Test").glob("*/*.bin"))[1]
    file.write_bytes(file.read_bytes()[:-2])

    with pytest.raises(SnnError) as error:
        load_few(few_nmnist)

    assert f"{file}: an event has 5 bytes, found" in str(error.value) and "cut short" in str(error.value)


def test_a_class_folder_behind_a_link_is_read(cache, few_nmnist):
    whole = load_few(few_nmnist).parts["train"]
    folder = few_nmnist / "NMNIST" / "Train" / "8"
    folder.rename(few_nmnist / "elsewhere")
    folder.symlink_to(few_nmnist / "elsewhere")

    linked = load_few(few_nmnist).parts["train"]

    assert linked.sha256 == whole.sha256 and linked.names == whole.names


def test_a_recording_behind_a_link_is_read_and_one_behind_a_broken_link_named(cache, few_nmnist):
    whole = load_few(few_nmnist).parts["train"]
    file = sorted((few_nmnist / "NMNIST" / "Train" / "3").iterdir())[1]
    file.rename(few_nmnist / "elsewhere")
    file.symlink_to(few_nmnist / "elsewhere")
    assert load_few(few_nmnist).parts["train"].sha256 == whole.sha256

    (few_nmnist / "elsewhere").unlink()

    with pytest.raises(SnnError, match=rf"{file.name}: it should be a recording, a file, found a link to nothing"):
        load_few(few_nmnist)


@pytest.mark.parametrize("place", ["Train/lost", "Train/3", "Train"])
def test_a_folder_behind_a_broken_link_is_named(cache, few_nmnist, place):
    link = few_nmnist / "NMNIST" / place
    if link.exists():
        link.rename(few_nmnist / "elsewhere")
    link.symlink_to(few_nmnist / "nowhere")

    with pytest.raises(SnnError, match=rf"{link}.*link to nothing"):
        load_few(few_nmnist)


def test_a_link_that_leads_back_is_refused(cache, few_nmnist):
    (few_nmnist / "NMNIST" / "Train" / "3" / "again").symlink_to(few_nmnist / "NMNIST" / "Train")

    with pytest.raises(SnnError, match="leads back"):
        load_few(few_nmnist)


@pytest.mark.parametrize(
    ("name", "place", "kind"),
    [
        *(("nmnist", "NMNIST/Train/3/00.bin", kind) for kind in ("pipe", "folder")),
        *(("dvs_gesture", "DVSGesture/ibmGestureTrain/user01_led/0.npy", kind) for kind in ("pipe", "folder")),
        *(("shd", "SHD/shd_train.h5", kind) for kind in ("pipe", "folder")),
        ("nmnist", "NMNIST/Test", "pipe"),
    ],
)
def test_what_stands_in_the_place_of_a_recording_is_refused_and_not_opened(cache, few_nmnist, name, place, kind):
    path = few_nmnist / place
    if path.exists():
        path.rename(few_nmnist / "elsewhere")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if kind == "folder" else os.mkfifo(path)

    with pytest.raises(SnnError, match=rf"{path}.* found a {kind}"):
        load_few(few_nmnist, name)


def test_what_systems_leave_beside_recordings_is_no_recording(cache, few_nmnist):
    whole = load_few(few_nmnist).parts["train"]
    train = few_nmnist / "NMNIST" / "Train"
    for name in ("3/._r00001.bin", ".DS_Store", "__MACOSX/3/._r00001.bin", ".cache/x.bin", "3/notes.txt"):
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        (train / name).write_bytes(b"\0\5\x16\7")

    assert load_few(few_nmnist).parts["train"].folder == whole.folder


@pytest.mark.parametrize("name", ["a", "10", "03", "digit3", "3/deeper", "."])
def test_a_folder_that_is_no_class_is_named(cache, few_nmnist, name):
    folder = few_nmnist / "NMNIST" / "Train" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "r0.bin").write_bytes(bytes([5, 5, 128, 3, 232]))

    with pytest.raises(SnnError, match=r"r0\.bin: recordings lie in a folder named by their class, Train/0 to Train/9"):
        load_few(few_nmnist)


@pytest.mark.parametrize("name", ["clap.npy", "0_copy.npy", "00.npy", "-1.npy", "1.5.npy", "²" + ".npy"])
def test_a_gesture_whose_name_is_no_class_is_named(cache, tmp_path, name):
    write_gestures(tmp_path, f"user01_lab/{name}")

    with pytest.raises(SnnError, match=r"a recording is named by its class, 0\.npy to 10\.npy"):
        load_few(tmp_path, "dvs_gesture")


def test_a_recording_that_vanishes_while_the_set_is_read_is_named(cache, few_nmnist, monkeypatch):
    import snn_bp.data.recordings as recordings

    def vanish(file, *arguments):
        Path(file).unlink()
        return np.load(file)

    monkeypatch.setattr(recordings.np, "fromfile", vanish)

    with pytest.raises(SnnError, match=r"\.bin: it vanished while the set was being read"):
        load_few(few_nmnist)


def test_a_file_of_another_kind_is_named(cache, tmp_path):
    write_gestures(tmp_path, "user01_lab/1.npy", "user01_lab/2.npy")
    (tmp_path / "DVSGesture" / "ibmGestureTrain" / "user01_lab" / "2.npy").write_bytes(b"these are no events")

    with pytest.raises(SnnError, match=r"2\.npy"):
        load_few(tmp_path, "dvs_gesture")


def test_a_label_out_of_range_is_named(cache, tmp_path):
    write_gestures(tmp_path, "user01_lab/11.npy")

    with pytest.raises(SnnError, match=r"11\.npy: a label lies in 0\.\.10"):
        load_few(tmp_path, "dvs_gesture")


def test_h5_files_that_are_none_are_named(cache, tmp_path):
    (tmp_path / "shd_train.h5").write_text("no spikes")

    with pytest.raises(SnnError, match=r"shd_train\.h5"):
        load_few(tmp_path, "shd")


@pytest.mark.parametrize("name", ["nmnist", "dvs_gesture", "shd"])
@pytest.mark.parametrize(
    "failure", [URLError("no network"), SystemExit(1), RuntimeError("File not found or corrupted.")]
)
def test_a_failed_download_says_what_belongs_where(tmp_path, monkeypatch, name, failure):
    import tonic

    def fail(reader):
        print("Downloading ...")
        raise failure

    monkeypatch.setattr(tonic.dataset.Dataset, "download", fail)

    with pytest.raises(SnnError) as error:
        load_few(tmp_path, name)

    message = str(error.value)
    assert str(tmp_path) in message and "SNN_BP_DATA" in message
    assert {"nmnist": "NMNIST/Train", "dvs_gesture": "ibmGestureTrain", "shd": "shd_train.h5"}[name] in message


def test_a_download_can_be_interrupted(tmp_path, monkeypatch):
    import tonic

    def interrupt(reader):
        raise KeyboardInterrupt

    monkeypatch.setattr(tonic.dataset.Dataset, "download", interrupt)

    with pytest.raises(KeyboardInterrupt):
        load_few(tmp_path)


def test_a_root_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SnnError, match="no such folder"):
        load_few(tmp_path / "missing")


def test_a_test_part_alone_is_not_enough(cache, few_nmnist):
    (few_nmnist / "NMNIST" / "Train").rename(few_nmnist / "elsewhere")

    with pytest.raises(SnnError, match="no training recordings"):
        load_few(few_nmnist)
