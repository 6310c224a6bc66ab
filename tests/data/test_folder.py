"""Recordings in files below a folder: classes by folder or table, splits, groups, and what is refused."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from event_files import some_events, write_csv, write_evt3, write_npy

from snn_bp.data import Data, Folder, describe, first_difference, load
from snn_bp.data.survey import survey
from snn_bp.data.unlabelled import _frames_of
from snn_bp.errors import SnnError
from snn_bp.runs.experiment import from_json, to_json

SENSOR = (346, 260, 2)


def fill(root: Path, *names: str, write=write_npy) -> None:
    """A recording for each name, every one with events of its own."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
        if write is not write_npy or name.endswith(".npy"):
            write(root / name, some_events(50 + number, size=(346, 260), seed=sum(name.encode())))


def load_folder(root: Path, **fields):
    data = {name: fields.pop(name) for name in ("validation_fraction", "split_by", "test_fraction") if name in fields}
    source = Folder(str(root), **{"sensor": SENSOR} | fields)
    return load(Data(source, step_ms=10, steps=6, **{"validation_fraction": 0} | data), quiet=True)


def events_of(dataset, part: str, number: int) -> list[np.ndarray]:
    events = dataset.parts[part].events
    span = slice(events.offsets[number], events.offsets[number + 1])
    return [getattr(events, name)[span] for name in "txyp"]


def test_a_folder_for_each_class_is_a_set(cache, tmp_path):
    fill(tmp_path / "set", "right/a.npy", "left/b.npy", "left/a.npy")

    dataset = load_folder(tmp_path / "set")

    assert dataset.class_names == ("left", "right") and dataset.shape == (2, 260, 346)
    assert dataset.names("train") == ["left/a.npy", "left/b.npy", "right/a.npy"]
    assert dataset.labels("train").tolist() == [0, 0, 1]
    written = some_events(52, size=(346, 260), seed=sum(b"left/a.npy"))
    t, x, y, p = events_of(dataset, "train", 0)
    assert np.array_equal(t, written["t"] - written["t"][0])
    assert all(np.array_equal(found, written[name]) for found, name in zip((x, y, p), "xyp", strict=True))


def test_the_short_form_is_the_same_set(cache, tmp_path):
    fill(tmp_path / "set", "a/1.npy", "b/1.npy")

    short = Data("folder", root=str(tmp_path / "set"), sensor=SENSOR, step_ms=10, steps=6, validation_fraction=0)

    dataset, other = load(short, quiet=True), load_folder(tmp_path / "set")
    assert dataset.batch("train", [0, 1])[0].equal(other.batch("train", [0, 1])[0])
    assert dataset.parts["train"].sha256 == other.parts["train"].sha256
    assert from_json(json.loads(json.dumps(to_json(short)))) == short


def test_a_folder_is_written_to_json_and_back():
    data = Data(Folder("/data/lab", sensor=SENSOR, suffix=".raw", masked=True), step_ms=5, steps=9)

    assert from_json(json.loads(json.dumps(to_json(data)))) == data


@pytest.mark.parametrize("names", [("train", "test", "validation"), ("Train", "Test", "val")])
def test_folders_above_the_classes_are_the_splits(names, cache, tmp_path):
    train, test, validation = names
    fill(tmp_path / "set", f"{train}/a/1.npy", f"{train}/b/1.npy", f"{validation}/a/2.npy", f"{test}/b/3.npy")

    dataset = load_folder(tmp_path / "set")

    assert [dataset.names(split) for split in ("train", "validation", "test")] == [
        [f"{train}/a/1.npy", f"{train}/b/1.npy"], [f"{validation}/a/2.npy"], [f"{test}/b/3.npy"]
    ]  # fmt: skip


def test_a_folder_between_class_and_file_is_a_group(cache, tmp_path):
    people = ("ann", "bob", "cyd", "dan")
    fill(tmp_path / "set", *(f"{name}/{who}/{n}.npy" for name in "ab" for who in people for n in range(2)))

    dataset = load_folder(tmp_path / "set", split_by="group", test_fraction=0.25, validation_fraction=0.25)

    groups = {split: set(dataset.groups(split)) for split in ("train", "validation", "test")}
    assert set.union(*groups.values()) == set(people) and sum(map(len, groups.values())) == 4


def test_classes_that_are_numbers_are_in_the_order_of_their_values(cache, tmp_path):
    fill(tmp_path / "set", *(f"{number}/a.npy" for number in (10, 9, 0)))

    assert load_folder(tmp_path / "set").class_names == ("0", "9", "10")


def test_a_table_names_files_labels_splits_and_groups(cache, tmp_path):
    fill(tmp_path / "set", "a.npy", "b.npy", "c.npy", "deep/d.npy", "unlisted.npy")
    table = (
        "file,label,split,group\na.npy,up,train,ann\nb.npy,down,train,bob\nc.npy,up,val,ann\ndeep/d.npy,up,test,cyd\n"
    )
    (tmp_path / "set" / "table.csv").write_text(table)

    dataset = load_folder(tmp_path / "set", table="table.csv")

    assert dataset.class_names == ("down", "up")
    assert [dataset.names(split) for split in ("train", "validation", "test")] == [
        ["a.npy", "b.npy"], ["c.npy"], ["deep/d.npy"]
    ]  # fmt: skip
    assert dataset.labels("train").tolist() == [1, 0] and dataset.groups("train") == ["ann", "bob"]
    assert any("1 files below" in note and "unlisted.npy" in note for note in dataset.notes)


def test_a_table_of_several_labels_asks_for_labels(cache, tmp_path):
    fill(tmp_path / "set", "a.npy", "b.npy", "c.npy")
    (tmp_path / "set" / "t.csv").write_text("file,labels\na.npy,car; bus\nb.npy,\nc.npy,bus\n")

    dataset = load_folder(tmp_path / "set", table="t.csv")

    assert (dataset.targets.kind, dataset.class_names) == ("labels", ("bus", "car"))
    assert dataset.labels("train").tolist() == [[1, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize(("suffix", "write"), [(".raw", None), (".csv", write_csv)])
def test_files_of_any_format_are_read(suffix, write, cache, tmp_path):
    def evt3(path, events):
        write_evt3(path, events)
        path.write_bytes(path.read_bytes().replace(b"height=480;width=640", b"height=260;width=346"))

    fill(tmp_path / "npy", "a/1.npy", "b/2.npy")
    fill(tmp_path / "other", *(f"{n}{suffix}" for n in ("a/1", "b/2")), write=write or evt3)
    for name in ("a/1", "b/2"):  # the same events as the .npy files have
        (write or evt3)(tmp_path / "other" / f"{name}{suffix}", np.load(tmp_path / "npy" / f"{name}.npy"))

    datasets = [load_folder(tmp_path / which) for which in ("npy", "other")]

    assert datasets[0].parts["train"].sha256 == datasets[1].parts["train"].sha256


def test_a_recording_may_end_before_the_window_does(cache, tmp_path):
    for name, last_us in (("a/1.npy", 25_000), ("b/1.npy", 59_000)):
        fill(tmp_path / "set", name)
        events = np.load(tmp_path / "set" / name)
        events["t"] = np.linspace(0, last_us, len(events)).astype(int)
        np.save(tmp_path / "set" / name, events)

    dataset = load_folder(tmp_path / "set", masked=True)

    mask = dataset.mask("train", dataset.ids["train"])
    assert mask.sum(0).tolist() == [3, 6]


def test_files_are_read_once_and_a_changed_one_is_noticed(cache, tmp_path, monkeypatch):
    fill(tmp_path / "set", "a/1.npy", "b/1.npy")
    first = load_folder(tmp_path / "set")
    described = json.loads(json.dumps(describe(first)))
    assert first_difference(described, load_folder(tmp_path / "set")) is None
    reads = []
    monkeypatch.setattr(Folder, "read", lambda self, file, polarity=None: reads.append(file))
    load_folder(tmp_path / "set")
    assert reads == []
    monkeypatch.undo()

    np.save(tmp_path / "set" / "a" / "1.npy", np.load(tmp_path / "set" / "a" / "1.npy")[:-1])

    assert "a/1.npy, has changed in its events" in str(first_difference(described, load_folder(tmp_path / "set")))


def test_a_changed_table_is_noticed(cache, tmp_path):
    fill(tmp_path / "set", "a.npy", "b.npy")
    (tmp_path / "set" / "t.csv").write_text("file,label\na.npy,up\nb.npy,down\n")
    described = json.loads(json.dumps(describe(load_folder(tmp_path / "set", table="t.csv"))))

    (tmp_path / "set" / "t.csv").write_text("file,label\na.npy,down\nb.npy,down\nb2.npy,up\n")
    os.link(tmp_path / "set" / "b.npy", tmp_path / "set" / "b2.npy")

    assert "a.npy, has changed in its class" in str(
        first_difference(described, load_folder(tmp_path / "set", table="t.csv"))
    )


def test_links_are_followed_and_hidden_files_are_none(cache, tmp_path):
    fill(tmp_path / "elsewhere", "1.npy", "2.npy")
    fill(tmp_path / "set", "b/1.npy")
    (tmp_path / "set" / "b" / ".DS_Store").write_text("x")
    (tmp_path / "set" / "a").symlink_to(tmp_path / "elsewhere")

    assert load_folder(tmp_path / "set").names("train") == ["a/1.npy", "a/2.npy", "b/1.npy"]


@pytest.mark.parametrize(
    ("names", "fields", "said"),
    [
        (("a.npy",), {}, "a recording lies in a folder that is named by its class"),
        (("a/1.npy", "a/readme.md"), {}, r"its files should have one ending, found 1 \.npy, 1 \.md\. suffix='\.npy'"),
        (("a/1.npy", "a/2.raw"), {}, "its files should have one ending"),
        (("train/a/1.npy", "left/1.npy"), {}, "train and left stand beside each other"),
        (("a/1.npy",), {"suffix": ".raw"}, "no recordings are below it"),
        (("a/1.npy",), {"sensor": (128, 128, 2)}, "a/1.npy: x lies in 0..127"),
        (("a/1.npy",), {"table": "missing.csv"}, r"the table .*missing\.csv: there is no such file\. It is a csv file"),
    ],
)
def test_what_is_no_set_is_refused(names, fields, said, cache, tmp_path):
    fill(tmp_path / "set", *names)

    with pytest.raises(SnnError, match=said):
        load_folder(tmp_path / "set", **fields)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("name,label\na.npy,up\n", "its columns should be file, label or labels"),
        ("file,label,age\na.npy,up,3\n", "found 'file, label, age'. Rename or remove"),
        ("file;label\na.npy;up\n", "found 'file;label'. Part them by commas"),
        ("file\tlabel\na.npy\tup\n", "Part them by commas"),
        ("file,label\nä.npy,up\n".encode("latin-1"), "the table .*t.csv: it is not text in UTF-8"),
        ("file,label\na.npy\n", "line 2 has more or fewer values"),
        ("file,label\na.npy,\n", "line 2 names no label"),
        ("file,label\na.npy,up\na.npy,down\n", "a.npy stands there twice"),
        ("file,label\nb.npy,up\n", "1 of 1 files are not there, the first is b.npy"),
        ("file,label,split\na.npy,up,dev\n", "its split is 'dev'"),
    ],
)
def test_a_table_that_says_something_else_is_refused(table, said, cache, tmp_path):
    fill(tmp_path / "set", "a.npy")
    (tmp_path / "set" / "t.csv").write_bytes(table if isinstance(table, bytes) else table.encode("utf-8-sig"))

    with pytest.raises(SnnError, match=said):
        load_folder(tmp_path / "set", table="t.csv")


def test_a_pipe_where_a_table_or_frames_should_be_is_not_waited_for(cache, tmp_path):
    fill(tmp_path / "set", "a/1.npy", "b/1.npy")
    os.mkfifo(tmp_path / "set" / "t.csv")
    os.mkfifo(tmp_path / "frames.npy")

    assert survey(tmp_path / "set", suffix=".npy").source.table is None
    with pytest.raises(SnnError, match=r"t\.csv: it should be a file, found a pipe"):
        survey(tmp_path / "set", table="t.csv")
    with pytest.raises(SnnError, match=r"frames\.npy: it should be a file, found a pipe"):
        _frames_of(tmp_path / "frames.npy")


def test_a_link_that_leads_nowhere_is_named(cache, tmp_path):
    fill(tmp_path / "set", "a/1.npy", "b/1.npy")
    (tmp_path / "set" / "b" / "2.npy").symlink_to("gone.npy")

    with pytest.raises(SnnError, match=r"b/2\.npy: it cannot be read .* Put it back, or remove it"):
        survey(tmp_path / "set")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sensor": (700, 1, 1)}, "A row of channels comes in by a source of your own"),
        ({"sensor": (346, 260)}, r"as in sensor=\(346, 260, 2\)"),
        ({"suffix": ".mp4"}, "is no format of events"),
        ({"columns": "abcd"}, "names the four columns"),
        ({"start": "noon"}, "start"),
        ({"step_ms": -1}, "step_ms"),
    ],
)
def test_a_folder_checks_its_fields(fields, said):
    with pytest.raises(SnnError, match=said):
        Folder("/data/lab", **{"sensor": SENSOR} | fields)


def test_a_folder_without_a_sensor_says_what_is_missing(tmp_path):
    with pytest.raises(SnnError, match=r"sensor=\(346, 260, 2\)"):
        Data("folder", root=str(tmp_path), step_ms=10, steps=5)
    with pytest.raises(SnnError, match="root"):
        Data("folder", sensor=SENSOR, step_ms=10, steps=5)
    with pytest.raises(SnnError, match="sensor"):
        Data("digits", sensor=SENSOR)


def test_a_missing_root_is_named(cache, tmp_path):
    with pytest.raises(SnnError, match="there is no such folder"):
        load_folder(tmp_path / "nowhere")


def test_a_set_is_opened_and_a_batch_made_without_reading_it_whole(cache, tmp_path):
    for number in range(16):
        events = some_events(50_000, size=(346, 260), seed=number, until_us=900_000)
        file = tmp_path / "lab" / ("left", "right")[number % 2] / f"{number}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, events)
    data = Data(Folder(str(tmp_path / "lab"), sensor=SENSOR), step_ms=1, steps=3, downsample=2, validation_fraction=0)
    built = load(data, quiet=True)
    built.batch("train", [0], in_bytes=True)  # which compiles
    size = sum(file.stat().st_size for file in built.parts["train"].folder.iterdir())

    tracemalloc.start()
    dataset = load(data, quiet=True)
    dataset.batch("train", [3], in_bytes=True)
    describe(dataset)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert dataset.window["train"].events_inside < dataset.window["train"].events == 800_000
    assert size > 6_000_000 and peak < size / 10


@pytest.mark.parametrize("name", ["folder", "shd"])
def test_a_relative_folder_that_is_not_there_is_named_with_the_working_folder(name, tmp_path, monkeypatch):
    def missing(root: str) -> Data:
        return Data(name, root=root, step_ms=10, steps=2, sensor=SENSOR if name == "folder" else None)

    monkeypatch.chdir(tmp_path)

    with pytest.raises(SnnError, match=f"no such folder, as seen from {tmp_path}. Give"):
        load(missing("nowhere"))
    with pytest.raises(SnnError, match=r"no such folder\. Give"):
        load(missing(str(tmp_path / "nowhere")))
