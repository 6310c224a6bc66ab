"""The cache: the same events again, never stale ones, and never half of them."""

from itertools import islice

import numpy as np
import pytest

from snn_bp.data.store import CachedEvents, Recording, store
from snn_bp.errors import SnnError

SENSOR = (300, 5, 2)


def make_recordings(*, count=3, label=1, **changes):
    rng = np.random.default_rng(0)
    for number in range(count):
        events = np.zeros(7 + number, dtype=[("t", np.int64), ("p", bool), ("x", np.int16), ("y", np.int16)])
        for field, high in (("x", 300), ("y", 5), ("p", 2), ("t", 10**6)):
            events[field] = rng.integers(0, high, len(events))
        for field, value in changes.items():
            events[field][0] = value
        yield Recording(f"recording {number}", events, label)


def keep(recordings, *, made_from="these", sensor=SENSOR) -> CachedEvents:
    return store(
        "test", lambda first, _: islice(recordings, first, None), made_from=made_from, sensor=sensor, classes=3
    )


def refuse_to_be_read():
    raise AssertionError("the cache should have had these")
    yield


def assert_same_events(first: CachedEvents, second: CachedEvents) -> None:
    for field in ("x", "y", "p", "t", "offsets", "labels"):
        assert np.array_equal(getattr(first.events, field), getattr(second.events, field)), field
    assert first.sha256 == second.sha256


def test_events_come_back_as_they_were(cache):
    events = keep(make_recordings()).events

    for number, recording in enumerate(make_recordings()):
        span = slice(events.offsets[number], events.offsets[number + 1])
        for field in "xypt":
            assert np.array_equal(getattr(events, field)[span], recording.events[field]), field
    assert events.x.dtype == np.uint16 and events.y.dtype == np.uint8  # the smallest that hold the sensor


def test_the_second_time_nothing_is_read(cache):
    first = keep(make_recordings())

    second = keep(refuse_to_be_read())

    assert_same_events(first, second)


def test_events_of_another_make_are_other_events(cache):
    first = keep(make_recordings(count=2), made_from="these")

    second = keep(make_recordings(count=3), made_from="those")

    assert (len(first.events), len(second.events)) == (2, 3)


@pytest.mark.parametrize("name", ["x.npy", "t.npy", "lengths.npy", "labels.npy", "record.json"])
def test_a_cut_file_is_made_again(cache, name):
    file = keep(make_recordings()).folder / name
    file.write_bytes(file.read_bytes()[:-3])

    again = keep(make_recordings())

    assert_same_events(again, keep(make_recordings(), made_from="others"))
    assert_same_events(again, keep(refuse_to_be_read()))


@pytest.mark.parametrize("name", ["x.npy", "record.json"])
def test_a_missing_file_is_made_again(cache, name):
    first = keep(make_recordings())
    (first.folder / name).unlink()

    assert_same_events(first, keep(make_recordings()))


def test_two_who_build_at_once_get_the_same(cache):
    inner = []

    def overtaken():
        yield from make_recordings(count=2)
        inner.append(keep(make_recordings()))  # another builder starts later and is done first
        yield list(make_recordings())[2]

    outer = keep(overtaken())

    assert_same_events(outer, inner[0])
    assert [folder.name for folder in cache.iterdir()] == [outer.folder.name]


def test_a_build_that_fails_leaves_nothing(cache):
    with pytest.raises(SnnError):
        keep(make_recordings(label=3))

    assert list(cache.iterdir()) == []


def test_without_a_cache_folder_events_stay_in_memory(tmp_path, monkeypatch, cache):
    kept = keep(make_recordings())
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "file" / "cache"))

    held = keep(make_recordings())

    assert held.folder is None
    assert_same_events(held, kept)


def test_the_cache_cannot_be_written_through(cache):
    events = keep(make_recordings()).events

    with pytest.raises(ValueError, match="read-only"):
        events.x[0] = 1


def test_recordings_without_events_are_kept(cache):
    silence = Recording("silence", np.empty(0, dtype=[("x", int), ("y", int), ("t", int), ("p", int)]), 0)

    for _ in range(2):
        events = keep([silence, silence]).events
        assert len(events) == 2 and len(events.t) == 0


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"x": 300}, "x lies in 0..299"),
        ({"y": -1}, "y lies in 0..4"),
        ({"t": -1}, "t lies in"),
        ({"t": 2**32}, "t reaches 71.6 minutes"),
        ({"label": -1}, "label"),
    ],
    ids=str,
)
def test_what_the_sensor_cannot_have_seen_is_refused(cache, change, found):
    with pytest.raises(SnnError) as error:
        keep(make_recordings(**change))

    assert "recording 0" in str(error.value) and found in str(error.value)
