"""NIR files of others: read where our neurons say the same as NIR's equations, else refused; broken ones always."""

import copy
import json
import random
import shutil
import sys
from itertools import pairwise

import h5py
import nir
import numpy as np
import pytest
import torch
from catalogue import assert_near
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_bp.errors import SnnError
from snn_bp.exchange import nir_file
from snn_bp.exchange.nir_read import read_nir
from snn_bp.exchange.nir_replay import replay_nir
from snn_bp.exchange.nir_write import write_nir
from snn_bp.files import hdf5, hdf5_child
from snn_bp.files.hdf5 import read_hdf5
from snn_bp.files.hdf5_child import content
from snn_bp.model.layers import Conv, Dense, Flatten, Recurrent
from snn_bp.model.network import Network
from snn_bp.neurons import LIF, CubaLIF, Neuron

STEP = 1e-4


def by_child(test):
    """Mark a test that reads files in another process, as a user does."""
    test.reads_by_child = True
    return test


@pytest.fixture(autouse=True)
def one_process(monkeypatch, request):
    """HDF5 in this process: starting another for each file takes most of the time; `by_child` keeps it."""
    if not getattr(request.function, "reads_by_child", False):
        monkeypatch.setattr(hdf5, "_by_child", lambda path, attributes=(): content(str(path), attributes))


def full(value, *shape):
    return np.full(shape, value, np.float32)


def chain(*nodes, shape=(24,), metadata=None):
    """A graph of nodes one after the other."""
    named = {f"n{place}": each for place, each in enumerate(nodes)}
    last = read_shape(nodes, shape)
    named = {"in": nir.Input({"input": np.array(shape)}), **named, "out": nir.Output({"output": np.array(last)})}
    names = list(named)
    return nir.NIRGraph(named, list(pairwise(names)), metadata=metadata or {}, type_check=False)


def read_shape(nodes, shape):
    """The shape behind the last node, as nir infers it."""
    graph = nir.NIRGraph.from_list(nir.Input({"input": np.array(shape)}), *nodes, type_check=False)
    graph.infer_types()
    return graph.nodes[list(graph.nodes)[-2]].output_type["output"]


def weights(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(0.2, 0.6, (rows, columns)).astype(np.float32)


def affine(rows, columns, seed=0):
    return nir.Affine(
        weights(rows, columns, seed), np.random.default_rng(seed + 9).normal(0, 0.1, rows).astype(np.float32)
    )


def leaky(n, *, tau=1e-3, r=1.0, threshold=0.3, v_leak=0.0, v_reset=0.0):
    given = {"tau": tau, "r": r, "v_leak": v_leak, "v_threshold": threshold, "v_reset": v_reset}
    return nir.LIF(**{name: full(value, n) for name, value in given.items()})


def random_map(shape, seed=2):
    return np.random.default_rng(seed).uniform(0.5, 1.5, shape).astype(np.float32)


kernel = np.random.default_rng(5).normal(0.2, 0.6, (4, 2, 3, 3)).astype(np.float32)
image = nir.Conv2d((9, 9), kernel, 1, 1, 1, 1, full(0.1, 4))
MAPPED = {"tau": 1e-3, "r": 1.3, "v_leak": 0, "v_threshold": 0.4}
mapped = nir.LIF(**{name: full(value, 4, 9, 9) for name, value in MAPPED.items()})
flat = nir.Flatten({"input": np.array([4, 4, 4])}, 0, -1)
pair = np.array([2, 2])
FOREIGN = {
    "unit-r": (affine(16, 24), leaky(16), affine(5, 16, 1), leaky(5)),
    "jump": (affine(16, 24), leaky(16, r=10, threshold=2), affine(5, 16, 1), leaky(5, r=10, threshold=2)),
    "any gain": (affine(16, 24), leaky(16, r=2.7), nir.Linear(weights(5, 16)), leaky(5, r=0.4, threshold=0.1)),
    "gain without weights": (leaky(24, r=3.3, threshold=0.5), affine(5, 24), leaky(5)),
    "IF": (affine(16, 24), nir.IF(full(1e4, 16), full(3, 16)), affine(5, 16, 1), nir.IF(full(3e3, 5), full(1, 5))),
    "CubaLIF": (
        affine(16, 24),
        nir.CubaLIF(full(3e-4, 16), full(8e-4, 16), full(1.5, 16), full(0, 16), full(0.3, 16), w_in=full(0.8, 16)),
        affine(5, 16, 1), leaky(5),
    ),
    "Scale": (
        nir.Scale(random_map(24)), affine(16, 24), nir.Scale(random_map(16)), leaky(16), nir.Scale(random_map(16)),
        affine(5, 16), leaky(5),
    ),
    "Threshold": (affine(16, 24), nir.Threshold(full(1.5, 16)), affine(5, 16, 1), leaky(5)),
    "Delay": (
        nir.Delay(np.arange(24) * STEP), affine(16, 24), leaky(16), nir.Delay(full(3e-4, 16)), affine(5, 16, 1),
        leaky(5),
    ),
    "I": (affine(5, 24), nir.I(full(2e3, 5))),
    "LI": (affine(16, 24), leaky(16), affine(5, 16, 1), nir.LI(full(2e-3, 5), full(3, 5), full(0, 5))),
    "CubaLI": (affine(5, 24), nir.CubaLI(full(3e-4, 5), full(1e-3, 5), full(7, 5), full(0, 5))),
    "Scale last": (affine(5, 24), nir.Scale(random_map(5))),
    "images": (
        nir.Scale(np.broadcast_to(random_map((2, 1, 1)), (2, 9, 9)).copy()), image, mapped,
        nir.SumPool2d(pair, pair, pair * 0), flat, affine(5, 64), leaky(5, threshold=1),
    ),
    "averages": (
        image, nir.AvgPool2d(pair, pair, pair * 0), nir.Scale(random_map((4, 4, 4))), flat, affine(5, 64), leaky(5),
    ),
    "same": (
        nir.Conv1d(24, kernel[:, :, 0], 1, "same", 2, 1, full(0.1, 4)), nir.Flatten({"input": np.array([4, 24])}, 0),
        affine(5, 96), leaky(5),
    ),
}  # fmt: skip
POTENTIALS = ("I", "LI", "CubaLI", "Scale last")
FOREIGN_SHAPES = {"images": (2, 9, 9), "averages": (2, 9, 9), "same": (2, 24)}


def assert_reads_as_replayed(path, x, *, spiking=True):
    """Raise unless our network gives what NIR's equations give."""
    with torch.no_grad():
        found = read_nir(path, step_s=STEP)(x)
    wanted = replay_nir(path, x, step_s=STEP)
    assert float((wanted != 0).float().mean()) > 0.005
    assert_near(share=1e-5 if not spiking else 1e-9, found=(found, wanted))


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_others_does_what_nirs_equations_say(name, coin, tmp_path):
    shape = FOREIGN_SHAPES.get(name, (24,))
    nir.write(tmp_path / "net.nir", chain(*FOREIGN[name], shape=shape))

    assert_reads_as_replayed(tmp_path / "net.nir", coin(60, 3, *shape, probability=0.4), spiking=name not in POTENTIALS)


@settings(max_examples=4)
@given(tau=st.floats(1e-4, 1e-1), r=st.floats(0.1, 1e3))
def test_any_leaky_integrator_of_others_is_read_as_its_equation(tau, r, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "net.nir"
    x = (torch.rand(40, 2, 24, generator=torch.Generator().manual_seed(1)) < 0.3).float()

    nir.write(path, chain(nir.Linear(weights(5, 24)), nir.LI(full(tau, 5), full(r, 5), full(0, 5))))

    assert_reads_as_replayed(path, x, spiking=False)


def recurrent(loop, *, neurons=None):
    """Neurons that hear themselves through `loop`."""
    n = loop.weight.shape[0]
    nodes = {
        "in": nir.Input({"input": np.array([24])}), "w": affine(n, 24), "lif": neurons or leaky(n, r=2.5), "loop": loop,
        "out": nir.Output({"output": np.array([n])}),
    }  # fmt: skip
    edges = [("in", "w"), ("w", "lif"), ("lif", "out"), ("lif", "loop"), ("loop", "lif")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def test_recurrent_edges_of_others_are_one_step_late(coin, tmp_path):
    nir.write(tmp_path / "net.nir", recurrent(nir.Affine(weights(16, 16) - 0.3, full(0, 16))))

    assert_reads_as_replayed(tmp_path / "net.nir", coin(60, 3, 24, probability=0.4))
    assert isinstance(read_nir(tmp_path / "net.nir", step_s=STEP).model[1], Recurrent)


def test_gains_without_weights_before_a_recurrence_go_into_thresholds(coin, tmp_path):
    graph = recurrent(nir.Linear(weights(24, 24) - 0.2), neurons=leaky(24, r=3.3, threshold=0.5))
    del graph.nodes["w"]
    graph.nodes["scale"] = nir.Scale(random_map(24))
    graph.edges = [("in", "scale"), ("scale", "lif"), ("lif", "out"), ("lif", "loop"), ("loop", "lif")]
    nir.write(tmp_path / "net.nir", graph)

    assert_reads_as_replayed(tmp_path / "net.nir", coin(60, 3, 24, probability=0.4))


def old(path, version="1.0.5"):
    """Make a file look as NIR before 1.0.6 wrote it."""
    with h5py.File(path, "r+") as file:
        del file["version"]
        file["version"] = version
        for node in file["node/nodes"].values():
            if "v_reset" in node:
                del node["v_reset"]


OLD = ("unit-r", "jump", "any gain", "gain without weights", "IF", "CubaLIF", "Scale", "images")


@pytest.mark.parametrize("name", OLD)
def test_neurons_from_before_reset_values_take_their_threshold_off(name, coin, tmp_path):
    shape = FOREIGN_SHAPES.get(name, (24,))
    nir.write(tmp_path / "net.nir", chain(*FOREIGN[name], shape=shape))
    old(tmp_path / "net.nir")

    neurons = [each for each in read_nir(tmp_path / "net.nir", step_s=STEP).model if isinstance(each, Neuron)]
    assert {each.reset for each in neurons} == {"subtract_before_leak"}
    assert_reads_as_replayed(tmp_path / "net.nir", coin(60, 3, *shape, probability=0.4))


def test_a_recurrence_from_before_reset_values_is_read_as_its_equations(coin, tmp_path):
    nir.write(tmp_path / "net.nir", recurrent(nir.Affine(weights(16, 16) - 0.3, full(0, 16))))
    old(tmp_path / "net.nir", "0.2.0")

    assert_reads_as_replayed(tmp_path / "net.nir", coin(60, 3, 24, probability=0.4))


def test_an_old_file_is_read_with_resets_to_0_where_that_is_asked_for(coin, tmp_path):
    x, file = coin(60, 3, 24, probability=0.4), tmp_path / "net.nir"
    nir.write(file, chain(*FOREIGN["CubaLIF"]))
    newer = replay_nir(file, x, step_s=STEP)
    old(file)

    assert torch.equal(read_nir(file, step_s=STEP, reset="zero")(x), newer)
    assert torch.equal(replay_nir(file, x, step_s=STEP, reset="zero"), newer)
    assert not torch.equal(replay_nir(file, x, step_s=STEP), newer)


def test_a_file_that_says_its_resets_is_read_with_no_other(ours, tmp_path):
    newer = tmp_path / "newer.nir"
    nir.write(newer, chain(*FOREIGN["unit-r"]))

    for file, step in (ours, None), (newer, STEP):
        with pytest.raises(SnnError, match=r"this one says what it resets to\. Leave reset out"):
            read_nir(file, step_s=step, reset="zero")
    with pytest.raises(SnnError, match="reset='subtract'"):
        read_nir(newer, step_s=STEP, reset="subtract")  # type: ignore[arg-type]


def test_a_leak_to_another_potential_from_before_reset_values_is_refused(tmp_path):
    nir.write(tmp_path / "net.nir", chain(affine(5, 24), leaky(5, v_leak=0.1)))
    old(tmp_path / "net.nir")

    with pytest.raises(SnnError, match=r"node 'n1' \(LIF\): its v_leak is not 0"):
        read_nir(tmp_path / "net.nir", step_s=STEP)


def replace_in(node, **fields):
    """A copy of a node with other fields, whatever they are."""
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def nested():
    """A graph inside the graph, with two ways out."""
    graph, inside = chain(affine(5, 24), leaky(5)), chain(leaky(5), shape=(5,))
    inside.nodes["again"] = nir.Output({"output": np.array([5])})
    inside.edges.append(("n0", "again"))
    graph.nodes["n1"] = inside
    return graph


images = (2, 9, 9)
REFUSED = {
    "bias of another shape": (
        lambda: chain(nir.Affine(weights(5, 24), full(0, 5, 1))), r"its bias has the shape \[5, 1\], its weight \[5, 24"
    ),
    "bias of another shape, images": (
        lambda: chain(replace_in(image, bias=full(0, 4, 1)), shape=images), r"its bias has the shape \[4, 1\]"
    ),
    "v_leak": (lambda: chain(affine(5, 24), leaky(5, v_leak=0.2)), r"node 'n1' \(LIF\): its v_leak is not 0"),
    "v_reset": (lambda: chain(affine(5, 24), leaky(5, v_reset=-0.3)), r"node 'n1' \(LIF\): its v_reset is not 0"),
    "tau below a step": (lambda: chain(affine(5, 24), leaky(5, tau=5e-5)), "below the step"),
    "threshold": (lambda: chain(affine(5, 24), leaky(5, threshold=0)), "node 'n1'.*threshold"),
    "nested": (nested, "the graph 'n1' inside it has 2 nodes Output"),
    "reset without a leak": (
        lambda: chain(affine(5, 24), nir.IF(full(1e4, 5), full(3, 5), full(0.5, 5))), "its v_reset is not 0"
    ),
    "leak above the threshold": (
        lambda: chain(affine(5, 24), leaky(5, v_leak=0.5, v_reset=0.5)), "node 'n1'.*threshold"
    ),
    "leak of potentials": (
        lambda: chain(affine(5, 24), nir.LI(full(1e-3, 5), full(1, 5), full(0.1, 5))), "its v_leak is not 0"
    ),
    "recurrence of potentials": (
        lambda: recurrent(nir.Linear(weights(5, 5)), neurons=nir.LI(full(1e-3, 5), full(1, 5), full(0, 5))),
        "neurons that spike",
    ),
    "fraction of a step": (lambda: chain(nir.Delay(full(1.5e-4, 24)), affine(5, 24)), "integer numbers of steps"),
    "padded pool": (lambda: chain(nir.SumPool2d(pair, pair, pair), shape=images), "without padding"),
    "oblong pool": (lambda: chain(nir.SumPool2d(np.array([2, 1]), pair, pair * 0), shape=images), "square windows"),
    "half a Flatten": (lambda: chain(nir.Flatten({"input": np.array(images)}, 1), shape=images), "flattens all"),
    "negative gain": (lambda: chain(leaky(24, r=-2)), "input gain is not 1"),
    "Scale last": (lambda: chain(affine(5, 24), leaky(5), nir.Scale(full(2, 5))), "a Scale at the end"),
    "Scale in a kernel": (lambda: chain(nir.Scale(random_map(images)), image, shape=images), "within a channel"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_our_neurons_cannot_say_is_refused_by_node(name, tmp_path):
    make, says = REFUSED[name]
    nir.write(tmp_path / "net.nir", make())

    with pytest.raises(SnnError, match=f"(?s)net.nir: .*{says}"):
        read_nir(tmp_path / "net.nir", step_s=STEP)


def test_a_file_without_metadata_needs_a_time_step(tmp_path):
    nir.write(tmp_path / "net.nir", chain(affine(5, 24), leaky(5)))

    for reads in (read_nir, lambda path: replay_nir(path, np.zeros((2, 1, 24)))):
        with pytest.raises(SnnError, match=r"NIR stores no time step.*Give step_s"):
            reads(tmp_path / "net.nir")
    with pytest.raises(SnnError, match="positive number of seconds"):
        read_nir(tmp_path / "net.nir", step_s=-1)


# broken, changed and hostile files


@pytest.fixture
def ours(tmp_path):
    """A small file of ours."""
    model = (Dense(6), Recurrent(LIF(beta=0.9, reset="zero")), Dense(4), CubaLIF(alpha=0.5, beta=0.8, reset="zero"))
    write_nir(Network(model, (5,)), tmp_path / "net.nir")
    return tmp_path / "net.nir"


@pytest.fixture
def pictures(tmp_path):
    """A small file of ours with a convolution."""
    write_nir(Network((Conv(3, 3), LIF(beta=0.9, reset="zero"), Flatten(), Dense(4)), (2, 6, 6)), tmp_path / "net.nir")
    return tmp_path / "net.nir"


def replace(file, name, value):
    """Put another value in the place of a data set."""
    del file[name]
    file[name] = value


LIF_, CUBA = "node/nodes/layer1_lif", "node/nodes/layer3_cubalif"
NO_DECAY = json.dumps({"format": 1, "step_s": 1e-4, "neurons": {"layer1_lif": {"beta": "x"}}})


def signed(path):
    """Put the hash of what the file holds now into its metadata, as a clever change would."""
    with h5py.File(path, "r+") as file:
        try:
            metadata = json.loads(file["node/metadata/snn_bp"][()])
            metadata["digest"] = nir_file.digest_of(hdf5.entries_of(file), metadata)
        except (KeyError, ValueError, TypeError, RecursionError, hdf5_child.Refused):
            return  # so broken that no hash is asked for
        replace(file, "node/metadata/snn_bp", json.dumps(metadata))


def raw_outside(file):
    """Put data in the place of a data set that lies in another file."""
    del file[f"{LIF_}/tau"]
    file.create_dataset(f"{LIF_}/tau", (6,), "f4", external=[("/etc/hostname", 0, 24)])


def huge(file):
    """A data set without content that claims 4 TB."""
    file.create_dataset(f"{LIF_}/x", (2**40,), "f4", chunks=(2**20,))


CHANGES = {
    "tau": (lambda file: replace(file, f"{LIF_}/tau", full(2e-3, 6)), "the file was changed"),
    "r": (lambda file: replace(file, f"{CUBA}/r", full(3, 4)), "the file was changed"),
    "name": (lambda file: file.move(LIF_, "node/nodes/x"), "names the node 'layer1_lif'"),
    "slash": (lambda file: file.move(LIF_, "node/nodes/x/lif"), "a '/' falls apart"),
    "type": (lambda file: replace(file, f"{CUBA}/type", "X"), r"'layer3_cubalif' \(X\): snn_bp has no"),
    "infinite": (lambda file: replace(file, f"{LIF_}/v_threshold", full(np.inf, 6)), "finite numbers"),
    "no nodes": (lambda file: file.__delitem__("node/nodes"), "names the node"),
    "no version": (lambda file: file.__delitem__("version"), "/version should be a text"),
    "version": (lambda file: replace(file, "version", "latest"), "no version of NIR"),
    "metadata": (lambda file: replace(file, "node/metadata/snn_bp", "{"), "not JSON"),
    "deep metadata": (lambda file: replace(file, "node/metadata/snn_bp", "[" * 100_000), "not JSON"),
    "newer metadata": (lambda file: replace(file, "node/metadata/snn_bp", '{"format": 99}'), "Update snn_bp"),
    "no decay": (lambda file: replace(file, "node/metadata/snn_bp", NO_DECAY), "has no numbers"),
    "link outside": (lambda file: replace(file, f"{LIF_}/tau", h5py.ExternalLink("x.h5", "/tau")), "link to elsewhere"),
    "soft link": (lambda file: replace(file, f"{LIF_}/tau", h5py.SoftLink("/node")), "link to elsewhere"),
    "contains itself": (lambda file: file["node/nodes"].__setitem__("again", file["node"]), "nested deeper|more than"),
    "raw file": (raw_outside, "in other files"),
    "huge": (huge, "more data than"),
}


BY_NETWORK = ("the file was changed", "has no numbers", r"'layer3_cubalif' \(X\): snn_bp has no")


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file_is_refused(name, ours):
    change, says = CHANGES[name]
    with h5py.File(ours, "r+") as file:
        change(file)
    signed(ours)

    for reads in (read_nir, lambda path: replay_nir(path, np.zeros((2, 1, 5)))):
        if reads is read_nir or says not in BY_NETWORK:
            with pytest.raises(SnnError, match=says):
                reads(ours)


@pytest.mark.parametrize(
    "field, value, says",
    [
        ("padding", np.array([2**23, 2**23]), "too much"),
        ("stride", np.array([0, 0]), "1 or more"),
        ("dilation", np.array([9, 9]), "nothing, or too much"),
        ("padding", "wide", "padding 'wide'"),
        ("groups", 0, "groups"),
        ("input_shape", np.array([7, 7]), "input_shape"),
        ("stride", np.array([0.5, 1]), "integers"),
    ],
)
def test_a_convolution_beyond_reason_is_refused(field, value, says, pictures):
    with h5py.File(pictures, "r+") as file:
        replace(file, f"node/nodes/layer0_conv2d/{field}", value)
    signed(pictures)

    with pytest.raises(SnnError, match=says):
        read_nir(pictures)


@by_child
def test_no_file_and_a_folder_and_another_format_are_refused(tmp_path):
    (tmp_path / "text.nir").write_text("not HDF5")
    (tmp_path / "empty.nir").write_bytes(b"")
    h5py.File(tmp_path / "net.h5", "w").close()

    for name, says in {
        "no.nir": "no file is here",
        ".": "no file is here but a folder",
        "text.nir": "HDF5",
        "empty.nir": "HDF5",
        "net.h5": "no NIR",
    }.items():
        with pytest.raises(SnnError, match=says):
            read_nir(tmp_path / name)


@by_child
def test_a_file_on_which_hdf5_never_ends_is_refused(ours, monkeypatch, tmp_path):
    stuck = tmp_path / "stuck"
    start = "sys.path.insert(0, os.path.dirname(sys.argv[1]))\nfrom hdf5_child import limit\nlimit(1, int(sys.argv[3]))"
    stuck.write_text(f"#!{sys.executable}\nimport os, sys\n{start}\nwhile True:\n    pass\n")
    stuck.chmod(0o755)
    monkeypatch.setattr(hdf5.sys, "executable", str(stuck))
    monkeypatch.setattr(hdf5, "SECONDS", 1.0)
    monkeypatch.setattr(hdf5, "WAIT", 30)  # so that the time it computed ends it, not the clock

    with pytest.raises(SnnError, match="the HDF5 library was still at it after 1 s"):
        read_nir(ours)


@by_child
def test_a_crash_of_hdf5_is_refused(ours, monkeypatch):
    monkeypatch.setattr(hdf5.sys, "executable", shutil.which("false"))

    with pytest.raises(SnnError, match="ended with code 1"):
        read_hdf5(ours)


def mutated(content, rng):
    """The content with a random fault in it."""
    content = bytearray(content)
    place, length = rng.randrange(len(content)), rng.choice((1, 4, 8, 64, 512))
    fault = rng.randrange(5)
    if fault == 0:
        return content[:place]
    if fault == 1:
        for _ in range(length):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif fault == 2:
        content[place : place + length] = bytes([rng.choice((0, 255))]) * length
    elif fault == 3:
        content[place : place + 8] = rng.choice((2**63 - 1, 2**40, 2**32, 1, 0, len(content))).to_bytes(8, "little")
    else:
        other = rng.randrange(len(content))
        content[place : place + length] = content[other : other + length]
    return content


def fuzz(file, count, seed):
    """Read `count` mutations; anything but a network or an `SnnError` comes through."""
    rng, content = random.Random(seed), file.read_bytes()
    refused = 0
    for _ in range(count):
        file.write_bytes(mutated(content, rng))
        try:
            read_nir(file)
        except SnnError:
            refused += 1
    assert refused > 0


@by_child
def test_broken_files_give_a_network_or_one_error(ours, monkeypatch):
    monkeypatch.setattr(hdf5, "SECONDS", 2)
    fuzz(ours, 10, seed=0)


@by_child
@pytest.mark.slow
def test_many_broken_files_give_a_network_or_one_error(ours, monkeypatch):
    monkeypatch.setattr(hdf5, "SECONDS", 3)
    fuzz(ours, 300, seed=1)


@by_child
@pytest.mark.slow
def test_many_broken_pictures_give_a_network_or_one_error(pictures, monkeypatch):
    monkeypatch.setattr(hdf5, "SECONDS", 3)
    fuzz(pictures, 300, seed=2)
