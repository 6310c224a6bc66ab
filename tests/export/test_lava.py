"""Netx files: what is written is read back, what lava would not run is refused, and no file does harm."""

import os
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from export import KINDS, compare, random_graph
from snn_bp.chip import lava_client as client
from snn_bp.chip.graph import Graph, Population, same
from snn_bp.chip.lava_client import client_missing, run_client
from snn_bp.chip.netx_read import read_netx
from snn_bp.chip.netx_write import write_netx
from snn_bp.errors import SnnError
from snn_bp.files import hdf5
from snn_bp.files.hdf5_child import content


@pytest.fixture(autouse=True)
def one_process(monkeypatch, request):
    """HDF5 in this process, but where a file is hostile to the library itself."""
    if "mutated" not in request.node.name:
        monkeypatch.setattr(hdf5, "_by_child", lambda path, attributes=(): content(str(path), attributes))


def dense(weight, **names) -> Population:
    weight = np.array(weight)
    return Population(shape=(len(weight),), weight=weight, **names)


def graph_of(*populations: Population, **names) -> Graph:
    return Graph(**{"input_shape": (populations[0].weight.shape[1],), "populations": populations, **names})


def conv(**names) -> Population:
    return Population(**{"shape": (2, 3, 3), "weight": np.ones((2, 1, 2, 2)), "stride": (1, 1), **names})


def image(*populations: Population) -> Graph:
    return Graph(input_shape=(1, 4, 4), populations=populations)


IMAGE = image(conv(bias=np.array([3, -2])), dense(np.ones((2, 18)), threshold=np.array([4, 5])))
FULL = graph_of(dense([[1, -2], [3, 4]], bias=np.array([1, 2])), dense([[7, 8]], delay=np.array([[1, 2]])))


def file_of(graph: Graph, tmp_path: Path) -> Path:
    path = tmp_path / "graph.net"
    write_netx(graph, path)
    return path


def put(path: Path, name: str, value) -> None:
    """Replace or remove (None) one member of a file."""
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_graph_is_read_back_equal(kind, tmp_path):
    graph = random_graph(kind, 1)

    assert same(graph, read_netx(file_of(graph, tmp_path))) is None


@pytest.mark.parametrize("size", ((2, 2), (3, 2), (1, 1), (1, 3)), ids=repr)
@pytest.mark.parametrize("of", ("inputs", "neurons", "synapses"))
def test_delays_are_read_back_equal_whatever_they_belong_to(size, of, tmp_path):
    shape = {"inputs": (1, size[1]), "neurons": (size[0], 1), "synapses": size}[of]
    graph = graph_of(dense(np.ones(size), delay=np.arange(np.prod(shape)).reshape(shape)))

    assert same(graph, read_netx(file_of(graph, tmp_path))) is None


@pytest.mark.parametrize(
    "graph", (IMAGE, FULL, graph_of(dense([[3]], readout=True), input_bits=8)), ids=("image", "full", "readout")
)
def test_shapes_bits_and_a_readout_are_read_back_equal(graph, tmp_path):
    assert same(graph, read_netx(file_of(graph, tmp_path))) is None


def test_a_dense_population_right_behind_an_image_is_read_back_equal(tmp_path):
    graph = Graph(input_shape=(1, 4, 2), populations=(dense(np.ones((3, 8))),))

    assert same(graph, read_netx(file_of(graph, tmp_path))) is None


def test_the_file_has_the_entries_and_types_that_lava_reads(tmp_path):
    with h5py.File(file_of(IMAGE, tmp_path), "r") as opened:
        file: Any = opened
        assert [file[f"layer/{n}/type"][0] for n in range(4)] == [b"input", b"conv", b"flatten", b"dense"]
        assert len(file["layer"]) == 4
        assert "neuron" not in file["layer/0"]
        assert file["layer/1/weight"].dtype == "float32"
        assert list(file["layer/1/shape"][()]) == [2, 3, 3]
        neuron = file["layer/1/neuron"]
        assert "messageBits" not in neuron
        assert {neuron[name].dtype.kind for name in ("iDecay", "vDecay", "vThMant")} == {"i"}
        assert neuron["vThMant"].shape == ()
        assert file["layer/1/groups"].shape == ()


def test_a_readout_is_written_with_the_highest_threshold(tmp_path):
    with h5py.File(file_of(graph_of(dense([[3]], readout=True)), tmp_path), "r") as opened:
        file: Any = opened
        assert file["layer/1/neuron/vThMant"][()] == 131071


@pytest.mark.parametrize(
    "graph, words",
    (
        (graph_of(dense([[129, -1]])), "weights in -1..129 with odd ones are off the chip's 8 bits"),
        (graph_of(dense([[256, -2]])), "off the chip's 8 bits"),
        (graph_of(dense([[256, 2]])), "off the chip's 8 bits"),
        (graph_of(dense([[-256, -2]])), "off the chip's 8 bits"),
        (graph_of(dense([[-129, 0]])), "off the chip's 8 bits"),
        (graph_of(dense([[129, 2]], recurrent=np.array([[-1]]))), "off the chip's 8 bits"),
        (graph_of(dense([[0, 0]])), "all its weights are 0"),
        (graph_of(dense([[-128, -1]])), "in the place of the lowest, -128. Make it -127"),
        (graph_of(dense([[-256, 0]])), "the lowest, -256. Make it -254"),
        (graph_of(dense([[1]], bias=np.array([4096]))), r"the bias lies in -4096\.\.4095, found 4096"),
        (graph_of(dense([[1]], bias=np.array([1, 2]))), r"the bias has one number or 1, found \[2\]"),
        (graph_of(dense([[1]], threshold=131072)), r"the threshold lies in 1\.\.131071, found 131072"),
        (graph_of(dense([[1]], threshold=0)), "the threshold lies in 1"),
        (graph_of(dense([[1]], current_decay=4097)), r"the current's decay lies in 0\.\.4096, found 4097"),
        (graph_of(dense([[1]], voltage_decay=-1)), "the membrane's decay lies in"),
        (graph_of(dense([[1]], delay=np.array([[63]]))), r"a delay lies in 0\.\.62, found 63"),
        (graph_of(dense([[1]], delay=np.array([[-1]]))), r"a delay lies in 0\.\.62, found -1"),
        (graph_of(dense([[1]], delay=np.array([[1]]), recurrent=np.array([[1]]))), "lava delays the recurrence too"),
        (image(conv(delay=np.array([[1]]))), "lava ignores delays on a convolution"),
        (image(conv(recurrent=np.ones((18, 18)))), "a convolution has no recurrence in netx"),
        (image(conv(shape=(2, 3, 4))), r"give neurons \(2, 3, 3\), not \(2, 3, 4\)"),
        (image(conv(padding=(0, 128))), "lava keeps each in 8 bits"),
        (graph_of(dense([[1]], readout=True), dense([[1]])), "only the last population can be a readout"),
        (graph_of(dense([[1]]), dense([[1, 2]])), r"need weights \[1, 1\], found \[1, 2\]"),
        (graph_of(dense([[1]]), input_bits=9), "input_bits=9"),
        (Graph(input_shape=(1,), populations=()), "no population"),
    ),
    ids=str,
)
def test_what_lava_or_the_chip_cannot_hold_is_refused_and_nothing_is_written(graph, words, tmp_path):
    path = tmp_path / "graph.net"
    path.write_text("old")

    with pytest.raises(SnnError, match=words) as raised:
        write_netx(graph, path)

    assert str(path) in str(raised.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_error(tmp_path):
    for path, reason in ((tmp_path / "none" / "graph.net", "cannot be written"), (tmp_path, "found a folder")):
        with pytest.raises(SnnError, match=reason):
            write_netx(FULL, path)


def slayers_file(path: Path) -> None:
    """As lava-dl's slayer exports it: vlen words, weights of five and of one axis, decays as arrays of one."""
    words = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file["simulation/Ts"] = 1
        layers = (
            {"type": np.array([b"input"], "S10"), "shape": [1, 4, 4]},
            {
                "type": np.array([b"conv"], "S10"), "shape": [2, 3, 3], "weight": np.full((2, 1, 2, 2, 1), 2, "f4"),
                "stride": 1, "padding": [0, 0], "dilation": [1, 1], "groups": 1, "inChannels": 1, "kernelSize": [2, 2],
            },
            {"type": np.array([b"flatten"], "S10")},
            {
                "type": np.bytes_(b"dense"), "shape": [2, 1, 1], "weight": np.full(36, 3.0, "f4"),
                "delay": np.float32(3), "bias": [5.0],
            },
        )  # fmt: skip
        for number, layer in enumerate(layers):
            for name, value in layer.items():
                file[f"layer/{number}/{name}"] = value
        for number, kind in ((1, "CUBA"), (3, "LOIHI")):
            neuron = {
                "iDecay": np.array([1024]),
                "vDecay": 128,
                "vThMant": 80,
                "refDelay": 1,
                "wgtExp": 5,
                "theta": 0.5,
            }
            for name, value in neuron.items():
                file[f"layer/{number}/neuron/{name}"] = value
            file[f"layer/{number}/neuron/gradedSpike"] = False
            file.create_dataset(f"layer/{number}/neuron/type", data=[kind], dtype=words)


def test_a_file_in_the_ways_of_slayer_is_read(tmp_path):
    slayers_file(tmp_path / "slayer.net")
    decays = {"current_decay": 1024, "voltage_decay": 128, "threshold": 80}
    last = dense(np.full((2, 18), 3), delay=np.full((1, 18), 3), bias=np.array([5, 5]), **decays)

    read = read_netx(tmp_path / "slayer.net")

    assert same(read, image(conv(weight=np.full((2, 1, 2, 2), 2), **decays), last)) is None


@pytest.mark.parametrize(
    "word", (b"dense", np.array([b"dense"], "S10"), "dense", np.array(["dense"], h5py.string_dtype())), ids=repr
)
def test_a_type_is_read_in_every_form_that_lava_reads(word, tmp_path):
    path = file_of(FULL, tmp_path)

    put(path, "layer/1/type", word)

    assert same(FULL, read_netx(path)) is None


@pytest.mark.parametrize(
    "name, value, words",
    (
        ("layer/1/type", b"pool", "the type 'pool', which lava does not load"),
        ("layer/1/type", b"average", "'average', which lava does not load"),
        ("layer/1/type", b"add", "'add', which lava silently leaves out"),
        ("layer/1/type", b"Dense", "'Dense', which lava silently leaves out"),
        ("layer/1/type", b"d" * 99, "should be one word of at most 64 letters"),
        ("layer/1/type", 3, "should be one word"),
        ("layer/1/type", [b"dense", b"dense"], "should be one word"),
        ("layer/1/neuron/type", b"SDNN", "'SDNN'; only 'CUBA' and 'LOIHI'"),
        ("layer/1/neuron/type", b"RF_PHASE", "'RF_PHASE'; only 'CUBA' and 'LOIHI'"),
        ("layer/1/neuron/type", b"cuba", "'cuba'; only 'CUBA' and 'LOIHI'"),
        ("layer/1/neuron/iDecay", 4096.0, "iDecay should have an integer type, found float64; lava would hang"),
        ("layer/1/neuron/vThMant", np.float32(5), "vThMant should have an integer type"),
        ("layer/1/neuron/vThMant", None, "vThMant is missing"),
        ("layer/1/neuron/vThMant", [5, 5, 6], r"the threshold has one number or 2, found \[3\]"),
        ("layer/1/neuron/messageBits", 8, "'messageBits', on which lava crashes"),
        ("layer/1/neuron/refDelay", 5, "a refractory period of 5 steps, which lava ignores"),
        ("layer/1/neuron/gradedSpike", True, "graded spikes"),
        ("layer/1/neuron", None, "it has no 'neuron'"),
        ("layer/1/weight", None, "weight is missing"),
        ("layer/1/weight", [[1.5, 2], [3, 4]], "should hold integers"),
        ("layer/1/weight", [[np.nan, 2], [3, 4]], "should hold integers"),
        ("layer/1/weight", [[1j, 2], [3, 4]], "should hold numbers or text, found complex128"),
        ("layer/1/weight", [[1, 2, 3]], r"2 neurons need weights \[2, in\], found \[1, 3\]"),
        ("layer/1/weight", [[1000, 2], [3, 4]], "off the chip's 8 bits"),
        ("layer/1/weight", np.zeros((2, 2)), "all its weights are 0"),
        ("layer/1/weight/imag", 1, "weight should be a data set of numbers"),
        ("layer/1/weight_rec", np.ones((2, 2)), "'weight_rec' belongs to the type 'dense_rec'"),
        ("layer/1/bias", [5000, 1], "the bias lies in"),
        ("layer/1/shape", [3], r"3 neurons need weights"),
        ("layer/1/shape", [-2], "neurons need weights"),
        ("layer/1/shape", [2**31 - 1, 2**31 - 1], "neurons need weights"),
        ("layer/1/delay", [1, 2, 3], "delays .3. fit neither"),
        ("layer/2/delay", [63, 1], r"a delay lies in 0\.\.62"),
        ("layer/0/neuron/type", b"CUBA", "an input with neurons, which lava connects to nothing"),
        ("layer/0/type", b"flatten", "'flatten' stands behind neurons None"),
        ("layer/1", None, "layer/1 is missing. Entries are numbered from 0 without a gap"),
        ("layer/extra/type", b"dense", "layer/3 is missing. Entries are numbered"),
        ("layer/3/type", b"input", "lava ignores an input that is not the first entry"),
        ("layer/3/type", b"flatten", "'flatten' stands behind neurons"),
        ("layer", None, "layer is missing"),
        ("layer", 5, "layer should be a group"),
    ),
    ids=str,
)  # fmt: skip
def test_what_lava_would_ignore_change_or_crash_on_is_refused(name, value, words, tmp_path):
    path = file_of(FULL, tmp_path)
    if name == "layer/1/weight/imag":
        put(path, "layer/1/weight", None)

    put(path, name, value)

    with pytest.raises(SnnError, match=words) as raised:
        read_netx(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    "name, value, words",
    (
        ("layer/2", None, "layer/2 is missing"),
        ("layer/2/type", b"input", "lava ignores an input"),
        ("layer/1/delay", [1, 1], "delays on a convolution, which lava ignores"),
        ("layer/1/groups", [1], "'groups' should be one number"),
        ("layer/1/groups", 0, "groups 0: lava keeps each in 8 bits"),
        ("layer/1/stride", [0, 1], "lava keeps each in 8 bits"),
        ("layer/1/stride", [1, 1, 1], "'stride' should be one number"),
        ("layer/1/weight", np.ones((2, 1, 2)), r"weights are \[out, in, height, width\]"),
        ("layer/1/bias", np.ones((3, 3, 2)), "the bias has one number or 2"),
        ("layer/1/shape", [2, 3, 4], "give neurons"),
        ("layer/0/shape", [1, 2**31 - 1, 2**31 - 1], "the input: its shape is"),
        ("layer/0/type", b"skipped", "'skipped', which lava silently leaves out"),
    ),
    ids=str,
)
def test_what_lava_would_ignore_in_a_network_of_images_is_refused(name, value, words, tmp_path):
    path = file_of(IMAGE, tmp_path)

    put(path, name, value)

    with pytest.raises(SnnError, match=words):
        read_netx(path)


def test_a_dense_entry_behind_a_convolution_needs_a_flatten(tmp_path):
    path = file_of(IMAGE, tmp_path)
    with h5py.File(path, "r+") as file:
        del file["layer/2"]
        file.move("layer/3", "layer/2")

    with pytest.raises(SnnError, match="needs a 'flatten' entry"):
        read_netx(path)


def elsewhere(file: h5py.File, other: Path) -> dict[str, object]:
    """Weights that are not in the file, by the ways HDF5 has."""
    layout = h5py.VirtualLayout((2, 2), "f4")
    layout[:] = h5py.VirtualSource(str(other), "weight", (2, 2))
    return {
        "external link": h5py.ExternalLink(str(other), "weight"),
        "soft link": h5py.SoftLink("/layer/2/weight"),
        "virtual": lambda name: file.create_virtual_dataset(name, layout),
        "external storage": lambda name: file.create_dataset(name, (2, 2), "f4", external=[(str(other), 0, 16)]),
    }


@pytest.mark.parametrize("way", ("external link", "soft link", "virtual", "external storage"))
def test_data_from_elsewhere_are_refused(way, tmp_path):
    path, other = file_of(FULL, tmp_path), tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["weight"] = np.ones((2, 2), "f4")
    with h5py.File(path, "r+") as file:
        del file["layer/1/weight"]
        value = elsewhere(file, other)[way]
        if callable(value):
            value("layer/1/weight")
        else:
            file["layer/1/weight"] = value

    with pytest.raises(SnnError, match=r"is a link to elsewhere|has its data in other files"):
        read_netx(path)


def test_a_huge_shape_in_a_small_file_is_refused_before_it_is_read(tmp_path):
    path = file_of(FULL, tmp_path)
    for options in ({}, {"chunks": (1, 2**20)}, {"chunks": (1, 2**20), "compression": "gzip"}):
        put(path, "layer/1/weight", None)
        with h5py.File(path, "r+") as file:
            file.create_dataset("layer/1/weight", (2, 2**40), "f4", **options)

        with pytest.raises(SnnError, match="claims more data than its size can hold"):
            read_netx(path)


def test_a_huge_chunk_in_a_small_file_is_refused_before_it_is_read(tmp_path):
    path = file_of(FULL, tmp_path)
    put(path, "layer/1/weight", None)
    with h5py.File(path, "r+") as file:
        file.create_dataset(
            "layer/1/weight", (2, 2), "f4", chunks=(2**14, 2**14), maxshape=(None, None), compression="gzip"
        )

    with pytest.raises(SnnError, match="claims more data than its size can hold"):
        read_netx(path)


def test_groups_that_hold_themselves_and_objects_are_refused(tmp_path):
    path = file_of(FULL, tmp_path)
    with h5py.File(path, "r+") as file:
        del file["layer/1/neuron"]
        file["layer/1/neuron"] = file["layer/1"]
        del file["layer/2/weight"]
        file.create_dataset("layer/2/weight", (2, 2), dtype=h5py.ref_dtype)

    with pytest.raises(SnnError, match="groups nested deeper than"):
        read_netx(path)
    with h5py.File(path, "r+") as file:
        file.copy("layer/2/neuron", "layer/3")
        del file["layer/1"]
        file.move("layer/2", "layer/1")
    with pytest.raises(SnnError, match="should hold numbers or text, found object"):
        read_netx(path)


@pytest.mark.parametrize(
    "content", (b"", b"no file of HDF5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 600), ids=("empty", "text", "head")
)
def test_a_file_that_is_no_hdf5_is_one_error(content, tmp_path):
    path = tmp_path / "graph.net"
    path.write_bytes(content)

    with pytest.raises(SnnError, match="it is broken or another format"):
        read_netx(path)


def test_what_is_no_file_is_one_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for path in (tmp_path / "none.net", tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(SnnError, match="no file is here"):
            read_netx(path)


def fuzz(path: Path, rng: np.random.Generator, mutations: int) -> int:
    """How many of the mutated files were refused; the others have to be graphs, and none may hang."""
    whole, refused = path.read_bytes(), 0
    for _ in range(mutations):
        content = bytearray(whole)
        if rng.random() < 0.2:
            del content[int(rng.integers(len(content))) :]
        for _ in range(int(rng.choice([1, 2, 8, 64]))):
            if content:
                content[int(rng.integers(len(content)))] = int(rng.choice([0, 1, 127, 255, int(rng.integers(256))]))
        path.write_bytes(content)
        began = time.monotonic()
        try:
            assert isinstance(read_netx(path), Graph)
        except SnnError:
            refused += 1
        assert time.monotonic() - began < 60
    path.write_bytes(whole)
    return refused


@pytest.mark.parametrize("value", (0.5, "8", [8]), ids=repr)
def test_an_attribute_that_is_no_integer_is_refused(value, tmp_path):
    path = file_of(FULL, tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs["snn_bp_pause"] = value

    with pytest.raises(SnnError, match="snn_bp_pause should be one integer"):
        read_netx(path)


@pytest.mark.slow
def test_a_mutated_string_is_one_error(tmp_path):
    path = tmp_path / "slayer.net"
    slayers_file(path)
    whole = path.read_bytes()
    heap = whole.index(b"GCOL")
    for place, value in ((heap, b"X"), (heap + 8, bytes(8)), (heap + 16, b"\xff\xff"), (heap + 24, b"\xff" * 8)):
        path.write_bytes(whole[:place] + value + whole[place + len(value) :])

        with pytest.raises(SnnError, match=r"cannot be read"):
            read_netx(path)


@pytest.mark.slow
@pytest.mark.parametrize("graph", (FULL, IMAGE), ids=("dense", "image"))
def test_a_mutated_file_is_a_graph_or_one_error(graph, tmp_path):
    refused = fuzz(file_of(graph, tmp_path), np.random.default_rng(0), 40)

    assert refused > 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_hundreds_of_mutated_files_are_graphs_or_one_error(seed, tmp_path):
    slayers_file(tmp_path / "slayer.net")
    for path in (file_of(FULL, tmp_path), file_of(IMAGE, tmp_path), tmp_path / "slayer.net"):
        assert fuzz(path, np.random.default_rng(seed), 150)


def test_where_there_is_no_client_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv(client.PYTHON, str(tmp_path / "no python"))

    with pytest.raises(SnnError, match=r"no client of lava in .*pip install lava-nc==0\.10\.0"):
        run_client(file_of(FULL, tmp_path), np.zeros((3, 2)))


def state_of(process: Path) -> str:
    try:
        return process.read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def test_a_client_that_hangs_is_ended_with_all_its_processes(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho thinking\nsleep 600 & echo $! > {tmp_path / 'child'}\nwait\n")
    python.chmod(0o755)
    monkeypatch.setenv(client.PYTHON, str(python))

    with pytest.raises(SnnError, match=r"gave no answer in 2 s.* It said: thinking"):
        run_client(file_of(FULL, tmp_path), np.zeros((3, 2)), timeout_s=2)

    child, until = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat"), time.monotonic() + 60
    while state_of(child) not in ("gone", "Z"):  # a killed process ends when it has its turn
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("recurrent, bias, one by one", "convolution, groups"))
def test_lavas_client_runs_our_file_spike_for_spike(kind):
    missing = client_missing()
    if missing:
        pytest.skip(missing)

    counts = compare(kind, 0, 60)

    assert counts["spikes_fired"] > 0
    assert counts["u_compared"] > 0
    assert {name: count for name, count in counts.items() if name.endswith("different") and count} == {}
