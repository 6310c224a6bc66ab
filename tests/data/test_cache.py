"""The cache is checked before it is believed, shared without harm, and cleared of what killed builds leave."""

import json
import os
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from snn_bp.data import cache as cache_files
from snn_bp.data.cache import building, cache_entries, clean_cache
from snn_bp.data.store import CachedEvents, Recording, store
from snn_bp.errors import SnnError

DTYPE = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])


def recordings(count: int = 3):
    rng = np.random.default_rng(0)
    for number in range(count):
        events = np.zeros(40 + number, DTYPE)
        for field, high in (("x", 300), ("y", 5), ("p", 2), ("t", 10**6)):
            events[field] = rng.integers(1, high, len(events))
        yield Recording(f"file {number}", events, number % 2, f"{number}.bin")


def keep(made_from: str = "these", source=recordings) -> CachedEvents:
    return store(
        "test", lambda first, _: islice(source(), first, None), made_from=made_from, sensor=(300, 5, 2), classes=2
    )


def not_read():
    raise AssertionError("the cache should have had these")
    yield


def same(first: CachedEvents, second: CachedEvents) -> bool:
    fields = ("x", "y", "p", "t", "offsets", "labels")
    equal = all(np.array_equal(getattr(first.events, field), getattr(second.events, field)) for field in fields)
    return equal and (first.sha256, first.names) == (second.sha256, second.names)


@pytest.mark.parametrize(
    "name", ["x.npy", "y.npy", "p.npy", "t.npy", "lengths.npy", "labels.npy", "hashes.npy", "names.json"]
)
def test_overwritten_content_of_the_same_size_is_read_again_and_said(cache, name):
    right = keep("others")
    file = keep().folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    file.write_bytes(content)

    mended = keep()

    assert same(mended, right) and any("was damaged" in note and name in note for note in mended.notes)
    assert same(keep(source=not_read), right) and not keep(source=not_read).notes


@pytest.mark.parametrize("byte", [0, 40, -1])
def test_one_flipped_bit_is_noticed_though_the_time_of_the_file_is_set_back(cache, byte):
    right, file = keep("others"), keep().folder / "t.npy"
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert same(keep(), right)


@pytest.mark.parametrize(
    "damage",
    ["{}", "[1]", "null", "not json", '{"sha256": "", "record": {"files": {}}}', "[" * 100_000],
    ids=["empty", "list", "null", "text", "foreign", "deep"],
)
def test_a_record_that_is_none_is_no_reason_to_stop(cache, damage):
    right, folder = keep("others"), keep().folder
    (folder / "record.json").write_text(damage)

    assert same(keep(), right)


def test_a_changed_hash_in_the_record_is_noticed(cache):
    right, file = keep("others"), keep().folder / "record.json"
    told = json.loads(file.read_text())
    told["record"]["sha256"] = "0" * 64
    file.write_text(json.dumps(told))

    assert same(keep(), right)


@pytest.mark.parametrize("name", ["t.npy", "record.json", "verified.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_file_is_never_opened(cache, tmp_path, name, kind):
    right, file = keep("others"), keep().folder / name
    other = tmp_path / "other"
    other.write_text("untouched")
    file.unlink()
    {"pipe": lambda: os.mkfifo(file), "folder": file.mkdir, "link": lambda: file.symlink_to(other)}[kind]()

    assert same(keep(), right) and other.read_text() == "untouched"


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_what_stands_in_the_place_of_an_entry_is_replaced(cache, kind):
    right, folder = keep("others"), keep().folder
    cache_files.remove(folder)
    os.mkfifo(folder) if kind == "pipe" else folder.write_text("no entry")

    assert same(keep(), right) and folder.is_dir()


def test_content_is_looked_through_once_and_again_when_it_changes(cache, monkeypatch):
    read = []
    real = cache_files.file_sha256
    monkeypatch.setattr(cache_files, "file_sha256", lambda path: read.append(path.name) or real(path))
    cache_files._sha256_once.cache_clear()

    folder = keep().folder
    built = len(read)
    keep(source=not_read)
    assert len(read) == built
    written = (folder / "t.npy").stat().st_mtime_ns
    os.utime(folder / "t.npy", ns=(written + 10**9,) * 2)  # the clock of files may stand for some milliseconds
    keep(source=not_read)

    assert read[built:].count("t.npy") == 1
    keep(source=not_read)
    assert read[built:].count("t.npy") == 1


def test_a_cache_that_cannot_be_written_serves_what_it_has(cache, monkeypatch):
    kept = keep()

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    for name in ("mkdir", "utime", "replace", "rename"):
        monkeypatch.setattr(os, name, refuse)

    assert same(keep(source=not_read), kept)
    assert same(keep("others"), kept) and keep("others").folder is None


def test_an_entry_that_another_user_keeps_to_himself_is_no_reason_to_stop(cache, monkeypatch):
    theirs = keep()
    real = cache_files.open_entry

    def private(folder: Path):
        if folder == theirs.folder:
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(cache_files, "open_entry", private)
    monkeypatch.setattr("snn_bp.data.entries.open_entry", private)

    mine = keep()

    assert same(mine, theirs) and mine.folder not in (None, theirs.folder)
    assert keep(source=not_read).folder == mine.folder


def test_entries_may_be_read_by_those_whom_the_users_mask_lets_read(cache):
    before = os.umask(0o022)
    try:
        folder = keep().folder
    finally:
        os.umask(before)

    assert folder.stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


def test_what_a_killed_build_left_is_removed_and_a_running_one_is_not(cache):
    dead = 2**22 + 1  # no process has this number, and none will
    with building(None) as entry:  # of this process
        running = entry.parent
        left = running.with_name(running.name.replace(f"-{os.getpid()}-", f"-{dead}-"))
        left.mkdir()
        (left / "t.npy").write_bytes(b"half")

        keep()

        assert running.is_dir() and not left.exists()


def test_leftovers_of_older_versions_go_after_a_week(cache):
    old, new = cache / "building-x2f_9a", cache / "building-q81kd_"
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 8 * 86_400,) * 2)

    with building(None):
        pass

    assert not old.exists() and new.exists()


def test_entries_long_unused_are_removed_when_asked(cache):
    old, new = keep().folder, keep("others").folder
    os.utime(old, (time.time() - 100 * 86_400,) * 2)

    assert [folder.name for folder, _, _ in cache_entries()] == [old.name, new.name]
    removed = clean_cache(days=90)

    assert [name for name, _ in removed] == [old.name] and removed[0][1] > 100
    assert not old.exists() and same(keep("others", not_read), keep())


def test_opening_an_entry_counts_as_use(cache):
    folder = keep().folder
    os.utime(folder, (time.time() - 100 * 86_400,) * 2)
    keep(source=not_read)

    assert clean_cache(days=90) == []


def test_cleaning_never_follows_a_link(cache, tmp_path):
    keep()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "record.json").write_text("mine")
    (cache / "linked").symlink_to(elsewhere)
    os.utime(elsewhere, (0, 0))

    clean_cache(days=0)

    assert (elsewhere / "record.json").read_text() == "mine"


@pytest.mark.parametrize("days", [-1, "soon", float("nan")])
def test_days_that_are_none_are_refused(cache, days):
    with pytest.raises(SnnError, match="days"):
        clean_cache(days=days)
