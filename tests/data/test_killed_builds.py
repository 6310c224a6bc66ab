"""A build that was killed goes on where it stood, and ends as one that was left alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pytest
from event_files import some_events, write_bin

from snn_bp.data import Data, Folder, TonicSet, load
from snn_bp.data import cache as cache_files
from snn_bp.data import store as stores
from snn_bp.data.cache import cache_entries, clean_cache
from snn_bp.data.catalogue import DATA_SETS
from snn_bp.data.recordings import read_part
from snn_bp.data.sources import recordings_of
from snn_bp.data.store import CachedEvents, Recording, store
from snn_bp.errors import SnnError

COUNT = 6
DTYPE = np.dtype([("t", int), ("x", int), ("y", int), ("p", int)])


def recordings(first: int = 0):
    """With all that may stand beside events."""
    for number in range(first, COUNT):
        rng = np.random.default_rng(number)
        events = np.zeros(30 * (number != 3), DTYPE)
        for field, high in (("x", 300), ("y", 5), ("p", 2), ("t", 10**6)):
            events[field] = rng.integers(1, high, len(events))
        events.sort(order="t")
        events = events[::-1] if number == 2 else events
        remark, target = "odd" * (number % 2), rng.random(2, np.float32)
        yield Recording(
            f"file {number}", events, 0, f"{number}.bin", remark, target, f"user {number % 2}",
            "train" if number else "validation", 700 + number, ("by two",) * number,
        )  # fmt: skip


def build(read=lambda first, _: recordings(first)) -> CachedEvents:
    return store("test", read, made_from="these", sensor=(300, 5, 2), classes=1)


def files_of(entry: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in entry.iterdir() if file.name != "verified.json"}


@pytest.fixture
def killed(cache, tmp_path, monkeypatch) -> list[Path]:
    """What stands in the cache if a build is killed ahead of each recording, and at the end of all but its rename."""
    monkeypatch.setattr(stores, "FLUSHED_S", -1.0)
    states = []

    def keep_state():
        (folder,) = cache.iterdir()
        states.append(shutil.copytree(folder, tmp_path / f"{len(states)}" / folder.name, ignore=lambda *_: ["lock"]))

    def read(first, _):
        for recording in recordings(first):
            keep_state()
            yield recording
        keep_state()

    publish = cache_files.publish_entry
    monkeypatch.setattr("snn_bp.data.entries.publish_entry", lambda *each: keep_state() or publish(*each))
    build(read)
    monkeypatch.setattr("snn_bp.data.entries.publish_entry", publish)
    return states


def after(state: Path, cache: Path) -> tuple[dict[str, bytes], int]:
    """The entry that is built where a build was killed, and from which recording on the source was read."""
    shutil.rmtree(cache)
    shutil.copytree(state, cache / state.name)
    asked = []

    def read(first, coding):
        assert coding == ("by two",) * (first - 1) if first else coding == ()
        asked.append(first)
        return recordings(first)

    found = build(read)
    assert [folder.name for folder in cache.iterdir()] == [found.folder.name]
    return files_of(found.folder), *asked


def test_the_entry_is_the_same_bit_for_bit_wherever_it_was_killed(cache, killed):
    whole = files_of(next(cache.iterdir()))

    found = [after(state, cache) for state in killed]

    assert [first for _, first in found] == [0, 1, 2, 3, 4, 5, 6, 6]
    assert all(files == whole for files, _ in found)
    held = stores.hold(recordings(), sensor=(300, 5, 2), classes=1)
    assert held.sha256.encode() in whole["record.json"] and held.notes == build().notes


DAMAGES = {
    "cut column": lambda folder: os.truncate(folder / "entry" / "t.npy", 128 + 4 * 70),
    "lost column": lambda folder: (folder / "entry" / "x.npy").unlink(),
    "flipped bit": lambda folder: flip(folder / "entry" / "y.npy", 128 + 65),
    "journal cut": lambda folder: os.truncate(folder / "journal.jsonl", (folder / "journal.jsonl").stat().st_size - 9),
    "journal flipped": lambda folder: flip(folder / "journal.jsonl", 50),
    "journal of zeros": lambda folder: (folder / "journal.jsonl").write_bytes(bytes(999)),
    "more behind": lambda folder: os.truncate(folder / "entry" / "p.npy", 9999),
    "files of others": lambda folder: (folder / "entry" / "other.json").write_text("{}"),
}


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", DAMAGES)
def test_what_a_killed_build_left_is_believed_as_far_as_its_hashes_go(name, cache, killed):
    whole = files_of(next(cache.iterdir()))
    DAMAGES[name](killed[5])

    files, first = after(killed[5], cache)

    assert files == whole
    assert first == {"cut column": 2, "lost column": 0, "flipped bit": 2, "journal cut": 4, "journal flipped": 0,
                     "journal of zeros": 0}.get(name, 5)  # fmt: skip


def test_an_interrupted_build_is_kept_listed_and_cleaned(cache):
    def read(first, _):
        yield from islice(recordings(first), 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(read)

    ((folder, size, days),) = cache_entries()
    assert folder.name.startswith("building-test-") and size > 128 * 4 and days < 1
    assert clean_cache(days=1) == [] and [name for name, _ in clean_cache(days=0)] == [folder.name]
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "Input/output error"), SnnError("4.bin: cut short")], ids=repr
)
def test_what_was_read_before_an_error_is_gone_on_with(cache, error):
    asked = []

    def read(first, _):
        asked.append(first)
        yield from islice(recordings(first), 4 - first)
        if len(asked) == 1:
            raise error
        yield from recordings(4)

    with pytest.raises((MemoryError, SnnError)):
        build(read)
    found = build(read)

    assert asked == [0, 4] and [folder.name for folder in cache.iterdir()] == [found.folder.name]
    assert found.sha256 == stores.hold(recordings(), sensor=(300, 5, 2), classes=1).sha256


def test_an_error_ahead_of_the_first_recording_leaves_nothing(cache):
    with pytest.raises(MemoryError):
        build(lambda first, _: (_ for _ in ()).throw(MemoryError()))

    assert not list(cache.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of a file's size")
def test_a_full_disk_says_what_is_left_and_what_removes_it(cache):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))  # writing beyond fails amid a recording
    try:
        with pytest.raises(SnnError, match=r"Make room there.*stays in building-test-.*`snn-bp cache --clean 0` rem"):
            build()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    ((left, _, _),) = cache_entries()
    asked = []

    found = build(lambda first, _: asked.append(first) or recordings(first))

    assert left.name.startswith("building-test-") and 0 < asked[0] < COUNT and not left.exists()
    assert found.sha256 == stores.hold(recordings(), sensor=(300, 5, 2), classes=1).sha256


def test_what_was_read_of_files_that_have_changed_since_is_not_used(cache, tmp_path):
    root = tmp_path / "lab"
    coded(root)
    whole = (root / "right" / "3.npy").read_bytes()
    (root / "right" / "3.npy").write_bytes(whole[:-40])
    data = Data("folder", root=str(root), sensor=(346, 260, 2), step_ms=1, steps=2)
    with pytest.raises(SnnError, match=r"3\.npy"):
        load(data, quiet=True)
    assert len(cache_entries()) == 1

    np.save(root / "left" / "0.npy", np.load(root / "left" / "2.npy"))
    (root / "right" / "3.npy").write_bytes(whole)
    found = load(data, quiet=True).parts["train"]

    shutil.rmtree(cache)
    assert found.sha256 == load(data, quiet=True).parts["train"].sha256


def test_two_who_go_on_at_once_get_the_same(cache, killed):
    whole, inner = files_of(next(cache.iterdir())), []

    def overtaken(first, _):
        assert first == 3
        for recording in recordings(first):
            inner.append(after_all(build))
            yield recording

    def after_all(made):
        found = made(lambda first, _: recordings(first))
        return files_of(found.folder)

    shutil.rmtree(cache)
    shutil.copytree(killed[3], cache / killed[3].name)
    outer = build(overtaken)

    assert all(files == whole for files in (files_of(outer.folder), *inner))
    assert [folder.name for folder in cache.iterdir()] == [outer.folder.name]


def test_without_locks_nobody_goes_on_with_what_may_be_anothers(cache, killed, monkeypatch):
    whole = files_of(next(cache.iterdir()))
    monkeypatch.setattr("snn_bp.files.lock.fcntl", None)
    shutil.rmtree(cache)
    shutil.copytree(killed[3], cache / killed[3].name)
    asked = []

    found = build(lambda first, _: asked.append(first) or recordings(first))

    assert asked == [0] and files_of(found.folder) == whole and (cache / killed[3].name).is_dir()


def _same(first: Recording, second: Recording) -> bool:
    named = all(getattr(first, name) == getattr(second, name) for name in ("label", "name", "remark", "split", "group"))
    return named and first.coding == second.coding and np.array_equal(first.events, second.events)


def coded(root: Path) -> None:
    """Recordings of which the first tell how polarity is coded, and others that are ones alone."""
    for number in range(5):
        events = some_events(20, size=(34, 34), seed=number)
        codes = np.zeros(20, [("x", int), ("y", int), ("t", int), ("p", int)])
        for field in "xyt":
            codes[field] = events[field]
        codes["p"] = 1 if number in (1, 3) else events["p"] + 1
        file = root / ("left", "right")[number % 2] / f"{number}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, codes)


@pytest.mark.parametrize("name", ["nmnist", "dvs_gesture", "shd", "folder", "tonic"])
def test_every_reader_goes_on_from_any_recording(name, tmp_path):
    if name in ("nmnist", "tonic"):
        for number in range(5):
            file = tmp_path / "NMNIST" / "Train" / str(number % 3) / f"{number}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bin(file, some_events(20, size=(34, 34), seed=number))
    elif name == "dvs_gesture":
        for user in range(2):
            folder = tmp_path / "DVSGesture" / "ibmGestureTrain" / f"user{user}"
            coded(tmp_path / "made")
            folder.mkdir(parents=True)
            for number, file in enumerate(sorted((tmp_path / "made").rglob("*.npy"))):
                shutil.copy(file, folder / f"{number}.npy")
    elif name == "shd":
        with h5py.File(tmp_path / "shd_train.h5", "w") as file:
            rows = [some_events(9 + n, seed=n) for n in range(5)]
            for field, kind in (("times", np.float64), ("units", np.int64)):
                made = file.create_dataset(f"spikes/{field}", (5,), h5py.vlen_dtype(kind))
                for n, row in enumerate(rows):
                    made[n] = row["t"] / 1e6 if field == "times" else row["x"]
            file["labels"], file["extra/keys"] = np.arange(5), [b"a", b"b", b"c", b"d", b"e"]
    else:
        coded(tmp_path / "lab")
    if name == "folder":
        source = Folder(str(tmp_path / "lab"), sensor=(346, 260, 2))
    elif name == "tonic":
        source = TonicSet("NMNIST", str(tmp_path))

    def read(first=0, coding=()):
        if name in ("folder", "tonic"):
            return list(recordings_of(source, "train", first, coding))
        info = DATA_SETS[name]
        folder = tmp_path / info.tonic_class if info.suffix != ".h5" else tmp_path
        return list(read_part(info, folder, "train", first, coding))

    whole = read()

    for first in range(1, len(whole)):
        rest = read(first, whole[first - 1].coding)
        assert len(rest) == len(whole) - first >= 1 and all(map(_same, rest, whole[first:]))


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_reads_a_folder_loses_a_second(tmp_path, monkeypatch):
    root = tmp_path / "lab"
    for number in range(400):
        file = root / ("left", "right")[number % 2] / f"{number}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, some_events(3000, size=(346, 260), seed=number))
    words = f"from snn_bp.data import Data, load; load(Data('folder', root={str(root)!r}, sensor=(346, 260, 2), " \
            "step_ms=1, steps=2), quiet=True)"  # fmt: skip
    slowed = "import time, snn_bp.data.folder as f; r, c = f.read_file, []\n" \
             "def slow(*a, **k):\n    c.append(0)\n    time.sleep(0.01 if len(c) < 200 else 600)\n" \
             "    return r(*a, **k)\nf.read_file = slow\n"  # fmt: skip
    read = 0
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", slowed + words])
        before, until = read, time.monotonic() + 300
        while read < before + 50:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
            journals = (tmp_path / "cache").glob("building-*/journal.jsonl")
            read = sum(len(each.read_bytes().splitlines()) for each in journals)
        process.send_signal(signal.SIGKILL)
        process.wait()
    data = Data("folder", root=str(root), sensor=(346, 260, 2), step_ms=1, steps=2)

    resumed = load(data, quiet=True)
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "other"))
    whole = load(data, quiet=True)

    assert 100 <= read < 400 and resumed.parts["train"].sha256 == whole.parts["train"].sha256
    assert files_of(resumed.parts["train"].folder) == files_of(whole.parts["train"].folder)
