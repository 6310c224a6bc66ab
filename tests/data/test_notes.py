"""What a run says of its recordings before it starts: what the window leaves out, what is empty, what stands twice."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snn_bp import TimeCrop
from snn_bp.data import Data, Dataset, describe, load
from snn_bp.data.encode import Events
from snn_bp.data.window import inside


def event(t: int, *, x: int = 5) -> bytes:
    return bytes([x, 5, 128 | t >> 16, t >> 8 & 255, t & 255])


def digits_on_disk(root: Path, recordings: dict[str, bytes], *, twins: bool = False, **changes) -> Dataset:
    """N-MNIST files of the given content for each class, in both parts, which differ unless `twins`."""
    for part in ("Train", "Test"):
        for digit in range(10):
            for name, content in recordings.items():
                file = root / "NMNIST" / part / str(digit) / name
                file.parent.mkdir(parents=True, exist_ok=True)
                mark = digit + 10 * (part == "Test" and not twins)
                file.write_bytes(bytes([mark]) + content[1:])
    return load(Data("nmnist", validation_fraction=0, root=str(root), **changes), quiet=True)


def said(dataset: Dataset, words: str) -> list[str]:
    return [note for note in dataset.notes if words in note]


@pytest.mark.parametrize("last_us, moves", [(2999, False), (3000, True)])
def test_a_window_that_no_recording_is_longer_than_is_not_moved_and_it_is_said(tmp_path, last_us, moves):
    recordings = {"1.bin": event(5) + event(900), "2.bin": event(6) + event(last_us)}

    dataset = digits_on_disk(tmp_path, recordings, step_ms=1, steps=3, augment=TimeCrop())

    told = "train part: TimeCrop(ms=None) moves nothing, no recording is longer than the window of 3 ms"
    assert said(dataset, "TimeCrop") == [told] * (not moves)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("window_us", [1, 500, 1000, 10**6])
@pytest.mark.parametrize("is_known", [True, False], ids=["spans known", "all read"])
def test_the_figures_of_the_window_are_those_of_a_count(monkeypatch, seed, window_us, is_known):
    import snn_bp.data.window as window

    monkeypatch.setattr(window, "_AT_ONCE", 7)  # pieces of a few recordings
    rng = np.random.default_rng(seed)
    recordings = [rng.integers(0, 1500, rng.integers(0, 9)).astype(np.uint32) for _ in range(31)]
    recordings[::2] = map(np.sort, recordings[::2])
    times, none = np.concatenate(recordings), np.empty(0, np.uint8)
    offsets = np.cumsum([0, *(len(each) for each in recordings)])
    spans = [(each.min(), each.max(), n % 2 == 0) if len(each) else (0, 0, 1) for n, each in enumerate(recordings)]

    events = Events(times, none, none, times, offsets, np.zeros(31, np.int64))
    found = inside(events, window_us, np.array(spans, np.int64) if is_known else None)

    within = [int((each < window_us).sum()) for each in recordings]
    without = [n for n, each in enumerate(recordings) if len(each) and not within[n]]
    assert (found.events, found.events_inside) == (len(times), sum(within))
    assert (found.recordings_without, found.recordings_empty) == (
        len(without),
        sum(not len(each) for each in recordings),
    )
    assert (found.first_ms, found.last_ms) == (times.min() / 1000, times.max() / 1000)
    assert found.first_without == (without[0] if without else None)


@pytest.mark.parametrize("steps", [1, 3])
def test_frames_without_what_is_behind_the_window_are_those_of_all_events(steps):
    rng, events = np.random.default_rng(0), []
    for number in range(12):
        one = np.zeros(rng.integers(0, 400), [(field, int) for field in "xypt"])
        one["x"], one["y"], one["t"] = (
            rng.integers(0, 3, len(one)),
            rng.integers(0, 2, len(one)),
            rng.integers(0, 4000, len(one)),
        )
        events.append(one if number % 3 else np.sort(one, order="t"))
    dataset = Dataset.of(train=(events, np.arange(12) % 2), sensor=(3, 2, 2), step_ms=1, steps=steps, test_fraction=0.2)
    part = dataset.parts["train"]

    cut = dataset._in_window["train"]
    whole = replace(dataset, parts={**dataset.parts, "train": replace(part, beside=replace(part.beside, spans=None))})

    assert (cut.ends < part.events.offsets[1:]).sum() >= 4 and whole._in_window["train"].ends is None
    assert dataset.batch("train", range(12))[0].equal(whole.batch("train", range(12))[0])


def test_recordings_that_lie_in_the_window_are_not_spoken_of(cache, tmp_path):
    dataset = digits_on_disk(tmp_path, {"0.bin": event(0), "1.bin": event(300_000)})

    assert dataset.notes == ("partial copy: 20 of 60000 training and 20 of 10000 test recordings",)


def test_events_outside_the_window_are_counted_and_said(cache, tmp_path):
    dataset = digits_on_disk(
        tmp_path, {"0.bin": event(0) + event(50_000) + event(150_000) + event(200_000)}, step_ms=10, steps=10
    )

    assert said(dataset, "train part: 50.0% of events lie outside the window of 100 ms")
    record = json.loads(json.dumps(describe(dataset)))["parts"]["train"]
    assert record["share_of_events_in_window"] == 0.5 and record["last_event_ms"] == 200
    assert record["recordings_without_event_in_window"] == 0


def test_a_window_that_holds_no_event_at_all_is_said_with_the_times(cache, tmp_path):
    dataset = digits_on_disk(tmp_path, {"0.bin": event(100_000) + event(200_000)}, step_ms=0.1, steps=5)

    note = "no event of any recording lies in the window of 0.5 ms; the first is at 100 ms, the last at 200 ms"
    assert len(said(dataset, note)) == 2
    assert describe(dataset)["parts"]["test"]["recordings_without_event_in_window"] == 10


def test_recordings_without_an_event_inside_are_named(cache, tmp_path):
    digits_on_disk(tmp_path, {"0.bin": event(0)})
    late = tmp_path / "NMNIST" / "Train" / "7" / "1.bin"
    late.write_bytes(event(200_000))

    dataset = load(Data("nmnist", step_ms=10, steps=10, validation_fraction=0, root=str(tmp_path)), quiet=True)

    assert said(dataset, "train part: 1 of 11 recordings have no event in the window of 100 ms; the first is 7/1.bin")


def test_a_camera_that_had_been_running_is_counted_from_the_first_event(cache, tmp_path):
    late = b"".join(event(t) for t in (5_000_000, 5_010_000))
    for part in ("Train", "Test"):
        for digit in range(10):
            file = tmp_path / "NMNIST" / part / str(digit) / "0.bin"
            file.parent.mkdir(parents=True)
            file.write_bytes(late)

    dataset = load(Data("nmnist", step_ms=10, steps=31, validation_fraction=0, root=str(tmp_path)), quiet=True)

    x, _ = dataset.batch("train", range(10))
    assert x.sum((1, 2, 3, 4)).nonzero().ravel().tolist() == [0, 1] and x.sum() == 20
    assert said(dataset, "train part: the clock starts later than 310 ms, so time is counted from the first event (10")
    assert load(dataset.data, quiet=True).notes == dataset.notes  # the cache tells it again


def test_the_first_event_of_a_usual_recording_keeps_its_time(cache, tmp_path):
    dataset = digits_on_disk(tmp_path, {"0.bin": event(309_999)})

    assert dataset.parts["train"].events.t[0] == 309_999


def test_test_recordings_that_were_trained_on_are_named(cache, tmp_path):
    dataset = digits_on_disk(tmp_path, {"0.bin": event(0)})
    (tmp_path / "NMNIST" / "Test" / "4" / "9.bin").write_bytes(
        (tmp_path / "NMNIST" / "Train" / "3" / "0.bin").read_bytes()
    )
    leaked = load(dataset.data, quiet=True)

    assert not said(dataset, "stand in the training part")
    [note] = said(leaked, "1 of 11 test recordings stand in the training part too, event for event")
    assert note.endswith("the first is 4/9.bin, there 3/0.bin")


def test_parts_that_are_the_same_are_said_to_be(cache, tmp_path):
    dataset = digits_on_disk(tmp_path, {"0.bin": event(0)}, twins=True)

    assert said(dataset, "training and test part are the same 10 recordings")


def test_a_recording_that_stands_twice_in_a_part_is_counted(cache, tmp_path):
    dataset = digits_on_disk(tmp_path, {"0.bin": event(0), "1.bin": event(0)})

    assert said(dataset, "train part: 10 recordings equal an earlier one event for event")


def test_one_event_left_of_a_recording_is_noticed(cache, tmp_path):
    long = b"".join(event(t) for t in range(100, 300))
    digits_on_disk(tmp_path, {"0.bin": long, "1.bin": long})
    file = tmp_path / "NMNIST" / "Train" / "3" / "1.bin"
    file.write_bytes(file.read_bytes()[:5])

    dataset = load(Data("nmnist", validation_fraction=0, root=str(tmp_path)), quiet=True)

    [note] = said(dataset, "train part: 1 of 20 recordings have few events")
    assert note.endswith("the first is 3/1.bin with 1, half of all have 200 or more")


def test_a_recording_that_vanished_leaves_its_class_short(cache, tmp_path):
    digits_on_disk(tmp_path, {"0.bin": event(0), "1.bin": event(10)})
    (tmp_path / "NMNIST" / "Train" / "3" / "1.bin").unlink()

    dataset = load(Data("nmnist", validation_fraction=0, root=str(tmp_path)), quiet=True)

    assert said(dataset, "train part: 2 recordings of each class, but '3' has 1")


def test_classes_without_recordings_are_named(cache, tmp_path):
    digits_on_disk(tmp_path, {"0.bin": event(0)})
    for digit in (4, 6):
        (tmp_path / "NMNIST" / "Test" / str(digit) / "0.bin").unlink()

    dataset = load(Data("nmnist", validation_fraction=0, root=str(tmp_path)), quiet=True)

    assert said(dataset, "test part: no recording of 2 of 10 classes: 4, 6") and not said(dataset, "train part: no")


def test_the_made_digits_need_no_word(digits):
    assert digits.notes == ()


def test_a_window_too_short_for_the_made_digits_is_said(digits):
    from snn_bp.data.notes import notes_of

    short = replace(digits, data=replace(digits.data, step_ms=1, steps=4))

    assert any("of events lie outside the window of 4 ms" in note for note in notes_of(short))


def test_times_that_step_back_are_said(cache, tmp_path):
    ordered = b"".join(event(t) for t in range(100, 120))
    digits_on_disk(tmp_path, {"0.bin": ordered})
    file = tmp_path / "NMNIST" / "Train" / "3" / "0.bin"
    file.write_bytes(file.read_bytes()[:50] + bytes(50))  # as a file that was being written when the power went

    dataset = load(Data("nmnist", validation_fraction=0, root=str(tmp_path)), quiet=True)

    assert said(dataset, "train part: times step back, as where part of a file was overwritten (3/0.bin)")
    assert not said(dataset, "test part: times step back")


def test_times_much_too_short_for_the_set_are_said(cache, tmp_path):
    dataset = digits_on_disk(tmp_path, {"0.bin": event(0) + event(150) + event(300)})

    assert len(said(dataset, "events up to 0.3 ms only, where recordings of nmnist last about 310 ms")) == 2
