"""Mapped arrays: what the disk is asked for is what is read, and it changes nothing."""

import os
from dataclasses import replace

import numpy as np
import pytest

from snn_bp import CutMix, EventDrop, TimeCrop, TimeJitter
from snn_bp.data import Dataset, mapped
from snn_bp.data.encode import stretches
from snn_bp.data.mapped import fetch, first_at

needs_call = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system cannot be told")


@pytest.fixture
def asked(monkeypatch):
    """Spans of bytes that are asked for, one list for each file."""
    spans, told = {}, os.posix_fadvise

    def noted(file, start, length, advice):
        told(file, start, length, advice)
        name = os.path.basename(os.readlink(f"/proc/self/fd/{file}"))
        spans.setdefault(name, []).append((start, start + length))

    monkeypatch.setattr(os, "posix_fadvise", noted)
    return spans


def on_disk(path, array) -> np.ndarray:
    np.save(path, array)
    return np.asarray(np.load(path, mmap_mode="r"))


@needs_call
def test_rows_are_asked_for_in_pieces_and_no_more_than_the_most(tmp_path, asked, monkeypatch):
    array = on_disk(tmp_path / "x.npy", np.zeros((100, 5), np.uint16))
    monkeypatch.setattr(mapped, "_PIECE", 64)
    monkeypatch.setattr(mapped, "_BUDGET", 200)

    fetch(array, np.array([3, 50, 7]), np.array([10, 50, 40]))

    first = 128  # behind the header
    assert asked["x.npy"] == [
        (first + 30, first + 94), (first + 94, first + 100),
        (first + 70, first + 134), (first + 134, first + 198), (first + 198, first + 200)
    ]  # fmt: skip


@pytest.mark.parametrize("without", ["in memory", "file", "call"])
def test_what_cannot_be_asked_for_is_read_all_the_same(tmp_path, without, monkeypatch):
    array = np.arange(9000, dtype=np.uint32)
    if without != "in memory":
        array = on_disk(tmp_path / "t.npy", array)
    if without == "file":
        (tmp_path / "t.npy").unlink()
    if without == "call":
        monkeypatch.delattr(os, "posix_fadvise", raising=False)

    fetch(array, np.array([5]), np.array([700]))

    assert first_at(array, np.array([0]), np.array([9000]), np.array([4321]), fetched=True) == 4321


@pytest.mark.parametrize("fetched", [False, True])
def test_the_first_index_is_that_of_a_search_in_each_stretch(tmp_path, fetched):
    rng = np.random.default_rng(0)
    lengths = np.array([0, 1, 2, 5000, 3, 1031, 0, 20_000])
    ends = np.cumsum(lengths)
    values = np.concatenate([np.sort(rng.integers(0, 50, length)) for length in lengths]).astype(np.uint32)
    array = on_disk(tmp_path / "t.npy", values)
    for limit in (-3, 0, 17, 49, 50, 2**33):
        limits = np.full(len(ends), limit)

        found = first_at(array, ends - lengths, ends, limits, fetched=fetched)

        for start, end, at in zip(ends - lengths, ends, found, strict=True):
            assert at == start + np.searchsorted(values[start:end].astype(np.int64), limit)


def recordings(rng):
    for number in range(12):
        one = np.zeros(rng.integers(0, 3000), [(name, int) for name in "xypt"])
        for name, high in (("x", 9), ("y", 7), ("p", 2), ("t", 20_000)):
            one[name] = rng.integers(0, high, len(one))
        yield one if number % 3 == 2 else np.sort(one, order="t")


@pytest.fixture
def dataset(tmp_path):
    """Events that are mapped, of which two in three recordings are in order."""
    how = {"sensor": (9, 7, 2), "steps": 4, "step_ms": 1, "batch": 4, "validation_fraction": 0.3}
    held = Dataset.of(train=(list(recordings(np.random.default_rng(1))), np.arange(12) % 2), **how)
    events = held.parts["train"].events
    columns = {name: on_disk(tmp_path / f"{name}.npy", getattr(events, name)) for name in "xypt"}
    part = replace(held.parts["train"], events=replace(events, **columns), folder=tmp_path)
    return replace(held, parts={"train": part, "test": held.parts["test"]})


EACH = {
    "plain": (), "crop": (TimeCrop(),), "crop at first": (TimeCrop(ms=2),), "jitter": (TimeCrop(), TimeJitter(0.5)),
    "partners": (TimeCrop(), CutMix(0.7)), "dropped": (TimeCrop(), EventDrop(0.9)),
}  # fmt: skip


@pytest.mark.parametrize("name", EACH)
def test_what_is_read_was_asked_for_and_a_batch_is_that_of_all_events(dataset, asked, name):
    dataset = replace(dataset, data=replace(dataset.data, augment=EACH[name]))
    part, ids = dataset.parts["train"], dataset.ids["train"][:4]
    blind = replace(part, events=replace(part.events, spans=None), beside=replace(part.beside, spans=None))
    for split, seed in (("train", 3), ("train", 4), ("validation", None)):
        asked.clear()

        dataset.fetch(split, ids, seed=seed)

        changes = dataset._changes(split, ids, seed=seed)
        events = dataset._events(split, changes)
        found = stretches(events, ids, changes, window=4000)
        for each, array in ((each, getattr(events, each)) for each in "xypt"):
            wanted = np.zeros(len(array), bool)
            for start, stop in zip(np.r_[found.starts, found.partner_starts],
                                   np.r_[found.stops, found.partner_stops], strict=True):  # fmt: skip
                wanted[start:stop] = True
            there = np.zeros(len(array) * array.itemsize, bool)
            for start, stop in asked.get(f"{each}.npy", []) if hasattr(os, "posix_fadvise") else [(0, 2**31)]:
                there[start - 128 : stop - 128] = True
            assert not (wanted & ~there.reshape(len(array), -1).all(1)).any()
            assert wanted.sum() < len(array) / 2
        whole = replace(dataset, parts={**dataset.parts, "train": blind})
        assert dataset.batch(split, ids, seed=seed)[0].equal(whole.batch(split, ids, seed=seed)[0])
