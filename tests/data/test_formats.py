"""Files of every format are read event for event; what is cut short, mislabelled or impossible is refused by name."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from event_files import SIZE, WRITERS, some_events, write_evt3

from snn_bp.data.formats import FORMATS, read_events, read_file
from snn_bp.data.formats.matlab import read_arrays
from snn_bp.errors import SnnError


@pytest.fixture
def samples(recorded) -> Path:
    """The folder with a small real file of each format."""
    folder = recorded / "formats"
    if not folder.is_dir():
        pytest.skip(f"no files of other formats in {folder}")
    return folder


def written(tmp_path: Path, name: str, events: np.ndarray | None = None) -> tuple[Path, np.ndarray]:
    suffix, write, size = WRITERS[name]
    path = tmp_path / f"recording{suffix}"
    events = some_events(size=size) if events is None else events
    write(path, events)
    return path, events


def assert_same(found: np.ndarray, t, x, y, p) -> None:
    for name, expected in zip("txyp", (t, x, y, p), strict=True):
        np.testing.assert_array_equal(found[name], np.asarray(expected).astype(np.int64), err_msg=name)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_read(name, tmp_path):
    path, events = written(tmp_path, name)

    found = read_events(path, sensor=(*WRITERS[name][2], 2))

    assert_same(found, events["t"], events["x"], events["y"], events["p"])


def test_every_ending_has_a_writer_here():
    assert {suffix for suffix, _, _ in WRITERS.values()} | {".hdf5", ".aedat4"} == set(FORMATS)


@pytest.mark.parametrize("name", ["aedat2", "aedat3", "evt2", "evt3", "dat", "es"])
def test_a_file_that_states_its_sensor_is_read_with_it(name, tmp_path):
    path, _ = written(tmp_path, name)

    assert read_file(path).size == WRITERS[name][2]

    with pytest.raises(SnnError, match=r"it was recorded by a sensor of \d+x\d+, asked for was 128x128"):
        read_events(path, sensor=(128, 128, 2))


def test_vectors_of_evt3_are_rows_of_neighbours(tmp_path):
    events = np.unique(np.sort(some_events(300, size=(40, 3), until_us=50)))
    events = np.sort(events, order=("t", "y", "p", "x"))
    run = np.zeros(17, events.dtype)
    run["x"], run["y"], run["t"], run["p"] = np.arange(100, 117), 2, 9001, 1
    events = np.concatenate([events, run])

    write_evt3(path := tmp_path / "a.raw", events)

    assert_same(read_events(path), *(events[name] for name in "txyp"))


def test_the_clock_of_evt3_goes_round(tmp_path):
    t = np.array([5, 2**24 - 3, 2**24 + 1, 2**25 + 7])  # 24 bits, 16.8 s
    words = [w for time in t for w in (8 << 12 | time >> 12 & 0xFFF, 6 << 12 | time & 0xFFF, 3, 2 << 12 | 9)]
    words.insert(8, 8 << 12 | 0)  # the lap is seen by the word of time alone
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 3.0\n" + struct.pack(f"<{len(words)}H", *words))
    words_of_last_lap = struct.pack("<2H", 8 << 12 | 0xFFF, 6 << 12)
    content = path.read_bytes()
    path.write_bytes(content[:-8] + words_of_last_lap + content[-8:])

    assert read_events(path)["t"].tolist() == t.tolist()


def test_the_clock_of_evt2_goes_round(tmp_path):
    highs = [2**28 - 1, 0, 1]
    words = [word for high in highs for word in (8 << 28 | high, 1 << 28 | 5 << 22 | 3 << 11 | 2)]
    (path := tmp_path / "a.raw").write_bytes(b"% evt 2.0\n" + struct.pack("<6I", *words))

    assert read_events(path)["t"].tolist() == [(high << 6) + 5 for high in (2**28 - 1, 2**28, 2**28 + 1)]


def test_events_ahead_of_the_first_word_of_time_have_no_time_and_are_none(tmp_path):
    words = [2 << 12 | 9, 8 << 12, 6 << 12 | 4, 2 << 12 | 7]
    (path := tmp_path / "a.raw").write_bytes(b"% evt 3.0\n" + struct.pack("<4H", *words))

    assert read_events(path).tolist() == [(7, 0, 4, 0)]


def test_evt3_is_what_its_words_say(samples):
    """Against a plain loop over the words, and but for time against the file decoded by expelliarmus.

    expelliarmus takes each step back of the low word of time for a lap of 4,096 us, also where the high word tells the
    lap already, and where the camera sets its clock right by some microseconds: its times run six times as fast.
    """
    content = (samples / "evt3_sample.raw").read_bytes()
    while content.startswith(b"%"):
        content = content[content.index(b"\n") + 1 :]
    high = low = y = base = polarity = laps = 0
    rows, with_laps = [], []
    for word in np.frombuffer(content, "<u2").tolist():
        kind, value = word >> 12, word & 0xFFF
        if kind == 8:
            high = value
        elif kind == 6:
            laps, low = laps + (value < low), value
        elif kind == 0:
            y = value
        elif kind == 3:
            base, polarity = value & 2047, value >> 11
        elif kind in (2, 4, 5):
            width = {2: 1, 4: 12, 5: 8}[kind]
            at, sign, bits = (value & 2047, value >> 11, 1) if kind == 2 else (base, polarity, value)
            rows += [(high << 12 | low, at + bit, y, sign) for bit in range(width) if bits >> bit & 1]
            with_laps += [high + laps << 12 | low] * (len(rows) - len(with_laps))
            base += width

    found, decoded = read_events(samples / "evt3_sample.raw"), np.load(samples / "evt3_sample.npy")

    assert_same(found, *np.array(rows).T)
    assert_same(decoded, with_laps, *(found[name] for name in "xyp"))


@pytest.mark.parametrize(
    ("file", "encoding"),
    [("evt2_sample.raw", "evt2"), ("faery_evt2.raw", "evt2"), ("NCARS_obj_004397_td.dat", "dat"),
     ("tonic_sample_ncars.dat", "dat")],
)  # fmt: skip
def test_prophesees_files_are_what_expelliarmus_reads(samples, file, encoding):
    expelliarmus = pytest.importorskip("expelliarmus")

    theirs = expelliarmus.Wizard(encoding=encoding).read(samples / file)

    assert_same(read_events(samples / file), theirs["t"], theirs["x"], theirs["y"], theirs["p"])


def test_n_mnist_is_what_tonic_reads(samples):
    from tonic.io import read_mnist_file

    theirs = read_mnist_file(str(samples / "tonic_sample_nmnist.bin"), dtype=np.dtype([(f, int) for f in "xytp"]))

    assert_same(read_events(samples / "tonic_sample_nmnist.bin"), *(theirs[f] for f in "txyp"))


def test_event_stream_is_what_a_plain_loop_reads(samples):
    content, at, time, rows = (samples / "faery_dvs.es").read_bytes()[20:], 0, 0, []
    while at < len(content):
        if content[at] == 255:
            time, at = time + 127, at + 1
            continue
        first, x, y = struct.unpack_from("<BHH", content, at)
        time, at = time + (first >> 1), at + 5
        rows.append((time, x, 239 - y, first & 1))

    assert_same(read_events(samples / "faery_dvs.es", sensor=(320, 240)), *np.array(rows).T)


def test_text_is_what_python_reads(samples):
    lines = [line.split() for line in (samples / "slider_depth_events_chunk.txt").read_text().splitlines()]

    found = read_events(samples / "slider_depth_events_chunk.txt", sensor=(240, 180, 2))

    assert_same(found, [round(float(line[0]) * 1e6) for line in lines], *np.array([line[1:] for line in lines], int).T)


def test_st_mnist_has_an_event_for_each_change_of_a_taxel(samples):
    import scipy.io

    matrix = scipy.io.loadmat(samples / "tonic_sample_stmnist.mat")["spiketrain"]
    rows = [(round(matrix[-1, n] * 1e6), taxel % 10, taxel // 10, matrix[taxel, n] > 0)
            for n in range(matrix.shape[1]) for taxel in range(100) if matrix[taxel, n]]  # fmt: skip

    assert_same(read_events(samples / "tonic_sample_stmnist.mat"), *np.array(rows).T)


def test_aedat4_is_what_the_package_aedat_reads(samples):
    aedat = pytest.importorskip("aedat", reason="the extra [formats] is not installed")

    found = read_file(samples / "tonic_sample.aedat4", sensor=(320, 240, 2))

    packets = [packet["events"] for packet in aedat.Decoder(str(samples / "tonic_sample.aedat4")) if "events" in packet]
    theirs = np.concatenate(packets)
    assert found.size == (320, 240)
    assert_same(found.events, theirs["t"], theirs["x"], theirs["y"], theirs["on"])


def test_aedat4_without_its_package_says_what_to_install(samples, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "aedat", None)

    with pytest.raises(SnnError, match=r"pip install 'snn_bp\[formats\]'"):
        read_events(samples / "tonic_sample.aedat4")


def test_an_aedat_file_of_a_header_alone_has_no_events(samples):
    with pytest.raises(SnnError, match="it holds no events"):
        read_events(samples / "tonic_sample_aedat_header.aedat")


def test_a_dvs128_counts_from_the_right_and_from_below(tmp_path):
    address = 5 << 8 | 3 << 1 | 1  # y 5, x 3, polarity bit 1: OFF
    (path := tmp_path / "a.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + struct.pack(">II", address, 42))

    assert read_events(path).tolist() == [(124, 122, 42, 0)]


@pytest.mark.parametrize("name", ["bin", "dat", "evt2", "evt3", "es", "aedat2", "aedat3", "npy", "npz", "h5", "mat"])
def test_a_file_that_is_cut_short_is_refused(name, tmp_path):
    path, _ = written(tmp_path, name)
    content = path.read_bytes()

    path.write_bytes(content[:-13])

    with pytest.raises(SnnError, match=f"{path.name}.*(cut short|copy it anew)"):
        read_events(path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_refused_in_a_line_or_holds_events_that_can_be(name, tmp_path):
    path, _ = written(tmp_path, name, some_events(40, size=WRITERS[name][2]))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for number in range(60):
        changed, at = bytearray(content), int(rng.integers(len(content)))
        if number % 3 == 0:
            changed[at : at + 3] = rng.bytes(3)
        elif number % 3 == 1:
            changed = changed[:at]
        else:
            changed[at:at] = rng.bytes(int(rng.integers(1, 20)))
        path.write_bytes(changed)
        try:
            events = read_events(path)
        except SnnError as refusal:
            assert str(path) in str(refusal) and "\n" not in str(refusal)
            continue
        assert len(events) and events["p"].max() <= 1 and (np.diff(events["t"]) >= 0).all()


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_are_what_scipy_reads(compressed, tmp_path):
    import scipy.io

    rng = np.random.default_rng(0)
    arrays = {
        "wide": rng.random((3, 4)),
        "bytes": np.arange(5, dtype=np.uint8),
        "large": rng.integers(-(2**62), 2**62, (2, 3)),
        "one": np.array([[1]], np.int16),
        "events": {"x": np.arange(7.0), "p": np.arange(3, dtype=np.uint16), "told": "text"},
        "text": "left out",
    }
    scipy.io.savemat(path := tmp_path / "a.mat", arrays, do_compression=compressed)

    found, theirs = read_arrays(path), scipy.io.loadmat(path)

    assert set(found) == {"wide", "bytes", "large", "one", "events"}
    struct_of_scipy = theirs.pop("events").reshape(-1)[0]
    pairs = [(found[name], theirs[name]) for name in ("wide", "bytes", "large", "one")]
    pairs += [(found["events"][field], struct_of_scipy[field]) for field in ("x", "p")]
    assert all(mine.dtype == other.dtype and np.array_equal(mine, other) for mine, other in pairs)


@pytest.mark.parametrize("name", ["npy", "npz", "h5", "mat", "aedat3", "es"])
def test_another_format_inside_is_named(name, tmp_path):
    path, _ = written(tmp_path, name)
    for suffix in {".raw", ".csv", ".bin", ".npy", ".dat"} - {path.suffix}:
        path.rename(wrong := path.with_suffix(suffix))
        with pytest.raises(SnnError, match=rf"its ending says \{suffix}\. Rename it to \{path.suffix}\."):
            read_events(wrong)
        wrong.rename(path)


def test_words_of_another_version_are_noticed(tmp_path):
    path, _ = written(tmp_path, "evt3")
    content = path.read_bytes().replace(b"EVT3", b"EVT2")

    path.write_bytes(content + b"\0" * (-len(content[content.index(b"end") + 4 :]) % 4))

    with pytest.raises(SnnError, match=r"words are of no type of EVT 2\.0"):
        read_events(path)


@pytest.mark.parametrize(("header", "said"), [(b"% evt 2.1\n", "it is coded in EVT 2.1"), (b"", "no such line")])
def test_a_raw_file_states_a_version_that_is_read(header, said, tmp_path):
    (path := tmp_path / "a.raw").write_bytes(header + b"\1\2\3\4" * 8)

    with pytest.raises(SnnError, match=said):
        read_events(path)


@pytest.mark.parametrize("name", sorted({"npy", "csv", "h5", "dat"}))
def test_times_that_fall_are_refused_or_sorted_where_that_is_asked(name, tmp_path):
    events = some_events(50)
    events["t"] = np.arange(50) * 10
    shuffled = np.concatenate([events[:20], events[30:40], events[20:30], events[40:]])
    path, _ = written(tmp_path, name, shuffled)

    with pytest.raises(SnnError, match="times fall at 1 of 50 events, first from 390 to 200 us at event 30"):
        read_events(path)

    assert_same(read_events(path, sort=True), *(events[field] for field in "txyp"))


@pytest.mark.parametrize("name", ["npy", "npz", "csv", "txt", "mat"])
def test_addresses_off_the_sensor_are_refused(name, tmp_path):
    path, events = written(tmp_path, name)

    with pytest.raises(SnnError, match=rf"recording.*: x lies in 0\.\.345, found 0?\d*\.\.{events['x'].max()}"):
        read_events(path, sensor=(346, 480))


@pytest.mark.parametrize("name", ["npy", "npz", "h5", "dat", "evt2", "evt3", "es", "csv", "txt"])
def test_no_events_are_refused(name, tmp_path):
    path, _ = written(tmp_path, name, some_events(0))

    with pytest.raises(SnnError, match=r"it holds no events|it is empty"):
        read_events(path)


def test_an_array_without_names_needs_them(tmp_path):
    events = some_events()
    np.save(path := tmp_path / "a.npy", np.stack([events[name] for name in "xypt"], 1).astype(np.int64))

    with pytest.raises(SnnError, match="does not say which column is which"):
        read_events(path)

    assert_same(read_events(path, columns="xypt"), *(events[name] for name in "txyp"))


def test_a_unit_that_is_said_is_taken(tmp_path):
    events = some_events(until_us=90)
    in_ms = events.copy()
    np.save(path := tmp_path / "a.npy", in_ms)

    assert_same(read_events(path, unit="ms"), events["t"] * 1000, *(events[name] for name in "xyp"))


def test_fractions_without_a_unit_are_refused(tmp_path):
    events = some_events().astype([("x", "i4"), ("y", "i4"), ("t", "f8"), ("p", "?")])
    events["t"] /= 1e6
    np.save(path := tmp_path / "a.npy", events)

    with pytest.raises(SnnError, match=r"t has fractions, .* and no unit"):
        read_events(path)

    assert_same(read_events(path, unit="s"), *(some_events()[name] for name in "txyp"))


def test_a_file_with_events_in_two_places_needs_an_entry(tmp_path):
    events = some_events()
    with h5py.File(path := tmp_path / "a.h5", "w") as file:
        for side in ("left", "right"):
            file[f"davis/{side}/events"] = events if side == "left" else events[:7]

    with pytest.raises(SnnError, match=r"events in 2 places: davis/left/events, davis/right/events\. Name one"):
        read_events(path)

    assert len(read_events(path, entry="davis/right/events")) == 7


def test_text_may_state_its_size_and_name_its_columns(tmp_path):
    (path := tmp_path / "a.txt").write_text(f"{SIZE[0]} {SIZE[1]}\n0.5 600 400 1\n0.75 3 4 0\n")
    (other := tmp_path / "b.csv").write_text("# made by hand\nt;on;y;x\n7;1;4;3\n")

    assert read_file(path).size == SIZE
    assert read_events(path)["t"].tolist() == [500_000, 750_000]
    assert read_events(other).tolist() == [(3, 4, 7, 1)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1 2 3\n", "four numbers"),
        ("a b c d\n1 2 3 1\n", "t is named 0 times"),
        ("1 2 3 1\n1 2 x 1\n", "cannot be read"),
        ("1 2 3 1\n5 2\n", "cannot be read"),
        ("1 2 3 7\n", "p should be a polarity"),
    ],
)
def test_text_of_another_kind_is_refused(content, said, tmp_path):
    (path := tmp_path / "a.txt").write_text(content)

    with pytest.raises(SnnError, match=f"a.txt.*{said}"):
        read_events(path)


def test_unknown_endings_and_missing_files_are_refused(tmp_path):
    with pytest.raises(SnnError, match=r"its ending says no format of events. Known: \.npy"):
        read_events(tmp_path / "a.mp4")
    with pytest.raises(SnnError, match=r"a\.npy"):
        read_events(tmp_path / "a.npy")
    (tmp_path / "b.npy").mkdir()
    with pytest.raises(SnnError, match="it should be a recording, a file, found a folder"):
        read_events(tmp_path / "b.npy")
