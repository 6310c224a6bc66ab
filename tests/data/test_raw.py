"""Event files of every usual coding are read right; what none of them holds is refused by file, field and value."""

import io
from pathlib import Path

import numpy as np
import pytest

from snn_bp.data import Data, Dataset, load
from snn_bp.data.raw import Polarity, events_of_bytes, events_of_row, events_of_table
from snn_bp.errors import SnnError

ROWS = np.array([(5, 6, 0, 0), (5, 7, 1, 100), (6, 7, 0, 200), (7, 6, 1, 1450)])


def table(array: np.ndarray) -> np.ndarray:
    return events_of_table(array, unit_us=1000, polarity=Polarity(), source="0.npy")


def coded(values: tuple[int, int], dtype: type = np.int64) -> np.ndarray:
    array = ROWS.astype(dtype)
    array[:, 2] = np.array(values).astype(dtype)[ROWS[:, 2]]
    return array


def gestures(root: Path, events: np.ndarray | dict[str, np.ndarray]) -> Dataset:
    files = events if isinstance(events, dict) else {"0.npy": events}
    for part, user in (("ibmGestureTrain", "user01_led"), ("ibmGestureTest", "user24_led")):
        folder = root / "DVSGesture" / part / user
        folder.mkdir(parents=True)
        for name, array in files.items():
            np.save(folder / name, array)
    return load(Data("dvs_gesture", step_ms=50, steps=30, validation_fraction=0, root=str(root)), quiet=True)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((0, 1), np.int64), ((-1, 1), np.int16), ((1, 2), np.uint8), ((2**8 - 1, 1), np.uint16),
        ((2**16 - 1, 1), np.uint16), ((2**32 - 1, 1), np.uint32), ((2**64 - 1, 1), np.uint64), ((-1, 1), np.float32),
    ],
    ids=str,
)  # fmt: skip
def test_every_usual_coding_of_polarity_gives_zeros_and_ones(values, dtype):
    events = np.zeros(4, [("x", "i8"), ("y", "i8"), ("p", dtype), ("t", "i8")])
    events["p"] = np.array(values, dtype=object)[ROWS[:, 2]].astype(dtype)

    assert table(events)["p"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("values", [(0, 2), (0, 255), (-1, 0), (3, 4)], ids=str)
def test_other_values_of_polarity_are_refused_with_the_values(values):
    with pytest.raises(SnnError, match=rf"0\.npy: p should be a polarity.*found {min(values)}, {max(values)}"):
        table(coded(values))


def test_a_file_of_ones_is_read_as_the_others_of_its_set_are_coded():
    ones, both = coded((1, 1)), coded((1, 2))
    polarity = Polarity()

    read = [
        events_of_table(each, unit_us=1000, polarity=polarity, source=f"{n}.npy") for n, each in enumerate((both, ones))
    ]

    assert [each["p"].tolist() for each in read] == [[0, 1, 0, 1], [0, 0, 0, 0]]
    with pytest.raises(SnnError, match=r"coded 1/2 in 1\.npy and 0/1 \(or by ones alone\) in 0\.npy"):
        polarity = Polarity()
        for n, each in enumerate((ones, both)):
            events_of_table(each, unit_us=1000, polarity=polarity, source=f"{n}.npy")


def test_files_of_two_codings_in_one_set_are_refused(cache, tmp_path):
    with pytest.raises(SnnError, match=r"1/2 in .*1\.npy and 0/1 .* in .*0\.npy"):
        gestures(tmp_path, {"0.npy": coded((0, 1)), "1.npy": coded((1, 2))})


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, np.int16, np.uint64, np.float32, np.float64, ">i2"])
def test_times_are_the_same_in_every_type_that_holds_them(cache, tmp_path, dtype):
    x, _ = gestures(tmp_path, ROWS.astype(dtype)).batch("train", [0])

    assert x.sum((1, 2, 3, 4)).nonzero().ravel().tolist() == [0, 2, 4, 29]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_a_clock_that_has_wrapped_in_its_type_is_refused(dtype):
    array = np.zeros((300, 4), np.int64)
    array[:, 3] = np.linspace(0, 2.0 ** (8 * np.dtype(dtype).itemsize) + 100, 300)

    with pytest.raises(SnnError, match=r"0\.npy: t steps back .* has wrapped"):
        table(array.astype(dtype))


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        (0, np.nan, "x should be integers, found nan at event 2"),
        (1, np.inf, "y should be integers, found inf at event 2"),
        (0, 2.5, r"x should be integers, found 2\.5 at event 2"),
        (2, np.nan, "p should be integers, found nan at event 2"),
        (2, 0.5, r"p should be integers, found 0\.5"),
        (3, np.nan, "t should be finite, found nan at event 2"),
        (3, -1.0, r"t should be 0 or more, found -1\.0 at event 2"),
        (3, 1e300, "t should be 0 or more, found 1e"),
    ],
)
def test_a_value_that_no_event_has_is_refused_with_its_place(field, value, found):
    array = ROWS.astype(np.float64)
    array[2, field] = value

    with pytest.raises(SnnError, match=rf"0\.npy: {found}"):
        table(array)


@pytest.mark.parametrize("value", [-1, 128, 2**16, 2**16 + 5, 2**32 + 5, -(2**31)], ids=str)
@pytest.mark.parametrize("field", [0, 1])
def test_an_address_beyond_the_sensor_is_refused_before_any_cast(cache, tmp_path, field, value):
    array = ROWS.copy()
    array[1, field] = value

    with pytest.raises(SnnError, match=rf"0\.npy: {'xy'[field]} lies in 0\.\.127, found .*{value}"):
        gestures(tmp_path, array)


def test_a_structured_array_is_read_by_its_names(cache, tmp_path):
    events = np.zeros(4, [("t", "u4"), ("p", "?"), ("y", "i2"), ("x", "i2")])
    for column, name in enumerate("xypt"):
        events[name] = ROWS[:, column]

    assert np.array_equal(table(events), table(ROWS))
    assert gestures(tmp_path, events).parts["train"].events.y.tolist() == [6, 7, 7, 6]


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (ROWS.T[:, :3], r"found int64 \[4, 3\]. It looks transposed"),
        (ROWS[:, :3], r"found int64 \[4, 3\]"),
        (np.zeros(3, [("x", "i2"), ("y", "i2"), ("pol", "?"), ("ts", "i8")]), "found x, y, pol, ts"),
        (np.zeros(3, [("x", "i2"), ("y", "i2"), ("p", "?"), ("t", "i8"), ("noise", "?")]), "found x, y, p, t, noise"),
        (np.array([["a", "b", "c", "d"]]), "x should be integers, found the type <U1"),
    ],
    ids=["transposed", "three columns", "other names", "one more name", "letters"],
)
def test_another_layout_is_refused_with_what_is_expected(array, found):
    with pytest.raises(SnnError, match=found) as error:
        table(array)

    assert "damaged" not in str(error.value) and "copy it anew" not in str(error.value)


def test_pickled_events_are_never_loaded(cache, tmp_path):
    with pytest.raises(SnnError, match=r"0\.npy: it cannot be read .*allow_pickle"):
        gestures(tmp_path, np.array([{"x": 1}], dtype=object))


def test_a_recording_of_forty_minutes_is_read_and_its_length_said(cache, tmp_path):
    dataset = gestures(tmp_path, np.array([(5, 6, 1, 0), (5, 6, 1, 2_400_000)]))

    assert dataset.parts["train"].events.t.tolist() == [0, 2_400_000_000]
    assert dataset.batch("train", [0])[0].sum() == 1
    assert any("events up to 2,400,000 ms" in note and "another unit" in note for note in dataset.notes)


def test_seconds_become_the_nearest_microsecond():
    whole_ms = np.arange(1, 1000)

    for dtype in (np.float32, np.float64):
        events = events_of_row((whole_ms / 1000).astype(dtype), np.zeros(999, np.uint16), source="row 0")
        assert np.array_equal(events["t"], 1000 * whole_ms)


@pytest.mark.parametrize(
    ("times", "units", "found"),
    [
        ([0.1, np.nan], [1, 2], "spikes/times should be finite, found nan at event 1"),
        ([0.1, -0.5], [1, 2], r"spikes/times should be 0 or more, found -0\.5"),
        ([0.1, 0.2], [1, np.nan], "spikes/units should be integers, found nan"),
        ([0.1, 0.2], [1, 2, 3], r"found \[2\] and \[3\]"),
        ([100, 200], [1, 2], "should be seconds as floats, found int64 up to 200"),
    ],
    ids=str,
)
def test_a_row_that_no_recording_has_is_refused(times, units, found):
    with pytest.raises(SnnError, match=f"row 3: .*{found}"):
        events_of_row(np.array(times), np.array(units), source="row 3")


def test_five_bytes_are_an_event_and_row_240_moves_the_clock():
    from tonic.io import read_mnist_file

    content = np.array(
        [1, 2, 128 | 1, 0, 5, 0, 240, 0, 0, 0, 3, 4, 1, 0, 6, 0, 240, 0, 0, 0, 5, 6, 129, 0, 7], np.uint8
    )

    events = events_of_bytes(content, source="0.bin")

    real = read_mnist_file(io.BytesIO(content.tobytes()), dtype=np.dtype([(f, int) for f in "xytp"]), is_stream=True)
    assert all(np.array_equal(events[field], real[field]) for field in "xytp")


def test_a_clock_of_23_bits_that_has_wrapped_is_refused():
    rows = np.array([(1, 1, 127, 255, 255), (1, 1, 0, 0, 5)], np.uint8)

    with pytest.raises(SnnError, match=r"0\.bin: t steps back by 8\.4 s"):
        events_of_bytes(rows.reshape(-1), source="0.bin")


@pytest.mark.parametrize(
    ("dtype", "unit_us", "start"), [(np.float32, 1000, 1_700_000_000_000), (np.float16, 1_000_000, 40.0)], ids=str
)
def test_float_times_too_coarse_to_tell_events_apart_are_refused(dtype, unit_us, start):
    from snn_bp.data.raw import microseconds

    times = start + np.array([0.0, 0.25, 0.5]) * 1_000_000 / unit_us
    assert len(set(microseconds(times, unit_us=unit_us, source="0.npy"))) == 3  # doubles tell them apart

    with pytest.raises(SnnError, match=r"0\.npy: t reaches .* apart only"):
        microseconds(times.astype(dtype), unit_us=unit_us, source="0.npy")


def test_events_behind_the_first_array_of_a_file_are_not_dropped_in_silence(cache, tmp_path):
    gestures(tmp_path, ROWS)
    for file in sorted(tmp_path.rglob("0.npy")):
        with open(file, "ab") as more:
            np.save(more, ROWS)

    with pytest.raises(SnnError, match=r"0\.npy: it should hold one array, found 256 bytes behind it"):
        load(Data("dvs_gesture", validation_fraction=0, root=str(tmp_path)), quiet=True)
