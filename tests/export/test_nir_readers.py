"""NIR files between libraries: what older versions, double precision and foreign habits of writing make of them."""

import json
import os
import stat
import subprocess
from itertools import pairwise

import h5py
import nir
import numpy as np
import pytest
import torch
from catalogue import assert_near, assert_same
from torch import nn

from snn_bp.errors import SnnError
from snn_bp.exchange.nir_read import read_nir
from snn_bp.exchange.nir_replay import replay_nir
from snn_bp.exchange.nir_write import write_nir
from snn_bp.files import hdf5
from snn_bp.files.hdf5 import read_hdf5
from snn_bp.files.hdf5_child import content
from snn_bp.model.layers import Conv, Delay, Dense, Flatten, Pool, Recurrent
from snn_bp.model.network import Network
from snn_bp.neurons import IF, LI, LIF, CubaLIF

STEP = 1e-4
lif = LIF(beta=0.9, reset="zero")
cuba = CubaLIF(alpha=0.7, beta=0.85, reset="zero")
head = (Flatten(), Dense(5), LIF(beta=0.3, threshold=0.1, reset="zero"))
# what the nodes of nir 1.0.4 are made from; its reader passes on every field of a node by name
ARGUMENTS = {
    "Affine": {"weight", "bias", "metadata"},
    "Linear": {"weight"},
    "Conv1d": {"input_shape", "weight", "stride", "padding", "dilation", "groups", "bias", "metadata"},
    "Conv2d": {"input_shape", "weight", "stride", "padding", "dilation", "groups", "bias"},
    "SumPool2d": {"kernel_size", "stride", "padding"},
    "AvgPool2d": {"kernel_size", "stride", "padding"},
    "Delay": {"delay", "metadata"},
    "Flatten": {"input_type", "start_dim", "end_dim", "metadata"},
    "Input": {"shape"},
    "Output": {"shape"},
    "IF": {"r", "v_threshold", "metadata"},
    "LI": {"tau", "r", "v_leak", "metadata"},
    "LIF": {"tau", "r", "v_leak", "v_threshold", "metadata"},
    "CubaLIF": {"tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "w_in", "metadata"},
}
OLDER = {
    "affine": ((Dense(4), lif), (3,)),
    "linear": ((Dense(4, bias=False), lif), (3,)),
    "recurrent": ((Dense(4), Recurrent(cuba), Delay(2), Dense(3), IF(reset="zero")), (3,)),
    "images": ((Conv(2, 3), Pool(2, kind="sum"), lif, Pool(2), *head), (1, 11, 11)),
    "groups": ((Conv(4, (3, 5), groups=2), lif, *head), (2, 9, 9)),
    "lengths": ((Conv(2, 3), lif, Flatten(), Dense(4), LI(beta=0.9)), (1, 9)),
    "subtracting": ((Dense(4), LIF(beta=0.9, reset="subtract_before_leak")), (3,)),
}


@pytest.fixture(autouse=True)
def one_process(monkeypatch, request):
    """HDF5 in this process, but where a test is about the other one."""
    if "hostile" not in request.node.name:
        monkeypatch.setattr(hdf5, "_by_child", lambda path, attributes=(): content(str(path), attributes))


def full(value, *shape):
    return np.full(shape, value, np.float32)


def weights(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(0.2, 0.6, (rows, columns)).astype(np.float32)


def leaky(n, *, tau=1e-3, r=1.0, threshold=0.3, v_leak=0.0, v_reset=0.0):
    given = {"tau": tau, "r": r, "v_leak": v_leak, "v_threshold": threshold, "v_reset": v_reset}
    return nir.LIF(**{name: full(value, n) for name, value in given.items()})


def graph(nodes, edges=None):
    """A graph by names, one node after the other unless edges are given."""
    return nir.NIRGraph(nodes, edges or list(pairwise(nodes)), type_check=False)


def ends(before, behind):
    return {"in": nir.Input({"input": np.array(before)})}, {"out": nir.Output({"output": np.array(behind)})}


# nir 1.0.4


@pytest.mark.parametrize("name", OLDER)
def test_a_compatible_file_holds_only_what_nir_1_0_4_makes_its_nodes_from(name, coin, tmp_path):
    network, x = Network(*OLDER[name]).eval(), coin(20, 2, *OLDER[name][1], probability=0.5)
    file = tmp_path / "net.nir"

    write_nir(network, file, compatible="1.0.4")

    with h5py.File(file) as held:
        assert held["node"].keys() == {"type", "nodes", "edges", "metadata"}
        for node in held["node/nodes"].values():
            assert set(node) - {"type"} <= ARGUMENTS[node["type"][()].decode()]
        assert all(isinstance(entry, h5py.Dataset) for entry in held["node/metadata"].values())
    assert_same(back=(read_nir(file)(x), network(x)))
    kept = {key: value for key, value in network.state_dict().items() if key != "layers.2.start"}
    assert_same(**{key: (read_nir(file).state_dict()[key], value) for key, value in kept.items()})


@pytest.mark.skipif("SNN_BP_NIR104_PYTHON" not in os.environ, reason="SNN_BP_NIR104_PYTHON: a Python with nir 1.0.4")
@pytest.mark.parametrize("name", OLDER)
def test_nir_1_0_4_reads_a_compatible_file(name, tmp_path):
    write_nir(Network(*OLDER[name]).eval(), tmp_path / "net.nir", compatible="1.0.4")
    program = "import nir, sys; print(nir.version, len(nir.read(sys.argv[1]).nodes))"

    command = [os.environ["SNN_BP_NIR104_PYTHON"], "-c", program, str(tmp_path / "net.nir")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert said == ["1.0.4", str(len(nir.read(tmp_path / "net.nir").nodes))]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # norse calls nirtorch by its older name
@pytest.mark.parametrize("front", (Dense(16), Dense(16, bias=False)), ids=("bias", "no bias"))
def test_norse_reads_a_file_whose_spikes_subtract(front, coin, tmp_path):
    norse = pytest.importorskip("norse.torch", reason='needs norse: pip install -e ".[benchmark]"')
    from norse.torch.functional.reset import reset_subtract

    before = CubaLIF(alpha=0.7, beta=0.85, reset="subtract_before_leak")
    network, x = Network((front, before, Dense(5), before), (24,)).eval(), coin(60, 1, 24, probability=0.4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 3
        wanted = network(x)
    write_nir(network, tmp_path / "net.nir", compatible="1.0.4")

    module, state = norse.from_nir(nir.read(tmp_path / "net.nir"), dt=STEP, reset_method=reset_subtract), None
    for step, spikes in zip(x[:, 0], wanted[:, 0], strict=True):
        found, state = module(step, state)
        assert torch.equal(found, spikes)
    assert wanted.mean() > 0.01


# neurons that meet their threshold exactly


def in_double(file, x):
    """NIR's equations in double precision on the one node of neurons in a file, as a reader of its arrays does it."""
    (node,) = [node for node in nir.read(file).nodes.values() if hasattr(node, "v_threshold")]
    i = v = np.zeros(x.shape[1:])
    out = []
    for now in x.double().numpy():
        if isinstance(node, nir.IF):
            v = v + STEP * (node.r * now)
        elif isinstance(node, nir.LIF):
            v = v + STEP / node.tau * (node.r * now - v)
        else:
            i = i + STEP / node.tau_syn * (node.w_in * now - i)
            v = v + STEP / node.tau_mem * (node.r * i - v)
        s = v > node.v_threshold
        v = np.where(s, node.v_reset, v)
        out.append(s)
    return torch.from_numpy(np.stack(out).astype(np.float32))


BETAS = (*(round(0.05 * place, 2) for place in range(1, 20)), 0.97, 0.99)
ALONE = {
    **{f"LIF {theta}": LIF(beta=BETAS, threshold=theta, reset="zero") for theta in (0.5, 0.95, 1.0)},
    **{f"LIF {beta} tie": LIF(beta=beta, threshold=1 + beta, reset="zero") for beta in (0.5, 0.8, 0.9)},
    **{f"IF {theta}": IF(threshold=theta, reset="zero") for theta in (1, 2, 3, 7)},
    "CubaLIF": CubaLIF(alpha=0.5, beta=0.75, threshold=2.0, reset="zero"),
    "CubaLIF one": CubaLIF(alpha=0.7, beta=0.9, threshold=1.0, reset="zero"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
@torch.no_grad()
def test_no_rounding_decides_for_neurons_without_weights_in_front(name, coin, tmp_path):
    network, x = Network((ALONE[name],), (len(BETAS),)).eval(), coin(200, 25, len(BETAS), probability=0.3)

    write_nir(network, tmp_path / "net.nir")

    wanted = network(x)
    assert 0 < float(wanted.mean()) < 1
    assert_same(
        double=(in_double(tmp_path / "net.nir", x), wanted), replay=(replay_nir(tmp_path / "net.nir", x), wanted)
    )
    assert read_nir(tmp_path / "net.nir").model == network.model


@torch.no_grad()
def test_windows_without_weights_behind_them_meet_no_threshold_by_rounding(coin, tmp_path):
    model = (
        Conv(3, 3),
        lif,
        Pool(2, kind="sum"),
        LIF(beta=0.5, threshold=2.0, reset="zero"),
        Pool(2),
        IF(reset="zero"),
    )
    network, x = Network(model, (1, 14, 14), seed=1).eval(), coin(60, 4, 1, 14, 14, probability=0.5)
    network.layers[0].weight *= 3

    write_nir(network, tmp_path / "net.nir")

    assert float(network(x).mean()) > 0.01
    assert_same(replay=(replay_nir(tmp_path / "net.nir", x), network(x)))


# what others write


def test_without_a_step_the_one_that_keeps_layers_alive_is_proposed(tmp_path):
    before, behind = ends((24,), (5,))
    ones = full(1, 16)
    nodes = {**before, "w": nir.Linear(weights(16, 24)), "a": nir.IF(ones, ones), "v": nir.Linear(weights(5, 16)),
             "b": nir.IF(ones[:5], ones[:5]), **behind}  # fmt: skip
    nir.write(tmp_path / "net.nir", graph(nodes))

    with pytest.raises(SnnError, match="Only 1 keeps every layer alive") as raised:
        read_nir(tmp_path / "net.nir")

    lines = str(raised.value).rstrip(".").split("; ")
    shown = {line.split("step_s=")[1].split(" ")[0]: line.split(": ")[-1].split(", ") for line in lines}
    assert set(shown) == {"0.0001", "0.001", "1"}
    assert [float(rate) for rate in shown["0.0001"]] == [0, 0]
    assert all(float(rate) > 0.01 for rate in shown["1"])


def test_the_step_at_which_inputs_count_once_is_tried_too(tmp_path):
    before, behind = ends((24,), (16,))
    nodes = {**before, "w": nir.Linear(weights(16, 24)), "n": leaky(16, tau=0.02, r=5, threshold=1), **behind}
    nir.write(tmp_path / "net.nir", graph(nodes))

    with pytest.raises(SnnError, match=r"step_s=0\.004 \(where r counts once in 'n'\)"):
        read_nir(tmp_path / "net.nir")


def test_a_gain_of_zero_is_no_candidate_for_the_step(tmp_path):
    before, behind = ends((24,), (16,))
    nir.write(tmp_path / "net.nir", graph({**before, "w": nir.Linear(weights(16, 24)), "n": leaky(16, r=0), **behind}))

    with pytest.raises(SnnError, match=r"No candidate keeps every layer alive.*its input gain is 0"):
        read_nir(tmp_path / "net.nir")


def test_an_old_leaky_neuron_subtracts_before_it_leaks(coin, tmp_path):
    before, behind = ends((24,), (6,))
    file, x = tmp_path / "net.nir", coin(40, 2, 24, probability=0.4)
    nir.write(file, graph({**before, "w": nir.Linear(weights(6, 24)), "n": leaky(6), **behind}))
    with h5py.File(file, "r+") as held:
        del held["node/nodes/n/v_reset"], held["version"]
        held["version"] = "1.0.4"

    v, wanted = np.zeros((2, 6)), []
    for now in x.double().numpy():
        v = v + 0.1 * (now @ weights(6, 24).astype(float).T - v)
        wanted.append(v > np.float32(0.3))
        v = v - np.float32(0.3) * wanted[-1]
    assert np.array_equal(replay_nir(file, x, step_s=STEP).numpy(), np.stack(wanted))
    assert np.array_equal(read_nir(file, step_s=STEP)(x).detach().numpy(), np.stack(wanted))


def recurrent_inside(bias):
    """A layer that hears itself in a graph of its own, as snnTorch writes it."""
    own = {
        "input": nir.Input({"input": np.array([16])}), "lif": leaky(16, r=10, threshold=1),
        "w_rec": nir.Affine(weights(16, 16, 3) - 0.4, bias), "output": nir.Output({"output": np.array([16])}),
    }  # fmt: skip
    inside = graph(own, [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")])
    before, behind = ends((24,), (4,))
    nodes = {
        **before, "0": nir.Affine(weights(16, 24), full(0.1, 16)), "1": inside,
        "2": nir.Affine(weights(4, 16), full(0.1, 4)), "3": leaky(4, r=10, threshold=1), **behind,
    }  # fmt: skip
    return graph(nodes)


@pytest.mark.parametrize("bias", (full(0, 16), weights(1, 16, 8)[0]), ids=("no bias", "bias"))
@torch.no_grad()
def test_a_recurrence_in_an_inner_graph_is_read_with_its_bias_as_snntorch_runs_it(bias, coin, tmp_path):
    snn = pytest.importorskip("snntorch")
    file, x = tmp_path / "net.nir", coin(60, 3, 24, probability=0.4)
    made = {"reset_mechanism": "zero", "reset_delay": False}
    layers = [
        nn.Linear(24, 16), snn.RLeaky(beta=0.9, threshold=1.0, linear_features=16, **made),
        nn.Linear(16, 4), snn.Leaky(beta=0.9, threshold=1.0, **made),
    ]  # fmt: skip
    held = recurrent_inside(bias).nodes
    inner = held["1"].nodes["w_rec"]
    for linear, node in ((layers[0], held["0"]), (layers[1].recurrent, inner), (layers[2], held["2"])):
        linear.weight.copy_(torch.from_numpy(node.weight))
        linear.bias.copy_(torch.from_numpy(node.bias))

    nir.write(file, recurrent_inside(bias))

    spikes, first, last, wanted = torch.zeros(3, 16), torch.zeros(3, 16), torch.zeros(3, 4), []
    for now in x:
        spikes, first = layers[1](layers[0](now), spikes, first)
        out, last = layers[3](layers[2](spikes), last)
        wanted.append(out)
    network = read_nir(file, step_s=STEP)
    assert 0.01 < float(torch.stack(wanted).mean()) < 0.99
    assert network.model[1] == Recurrent(network.model[1].neuron, bias=bool(bias.any()))
    assert_same(read=(network(x), torch.stack(wanted)))
    assert_same(replayed=(replay_nir(file, x, step_s=STEP), torch.stack(wanted)))


def test_graphs_in_graphs_in_graphs_are_one_flat_graph(coin, tmp_path):
    x = coin(30, 2, 24, probability=0.4)
    before, behind = ends((16,), (16,))
    inside = graph({**before, "n": leaky(16), **behind})
    inside = graph({**before, "again": inside, **behind})
    before, behind = ends((24,), (16,))
    nodes = {**before, "w": nir.Linear(weights(16, 24)), "g": inside, **behind}

    nir.write(tmp_path / "deep.nir", graph(nodes))
    nir.write(tmp_path / "flat.nir", graph({**nodes, "g": leaky(16)}))

    flat = read_nir(tmp_path / "flat.nir", step_s=STEP)
    assert_same(read=(read_nir(tmp_path / "deep.nir", step_s=STEP)(x), flat(x)))
    assert_same(replayed=(replay_nir(tmp_path / "deep.nir", x, step_s=STEP), flat(x)))


BATCHED = {
    "dense": ((1, 24), (1, 6), {"w": nir.Linear(weights(6, 24)), "n": leaky(6)}, (24,)),
    "neurons": ((1, 24), (1, 24), {"n": leaky(24, r=10)}, (24,)),
    "images": (
        (1, 2, 6, 6), (1, 4),
        {"c": nir.Conv2d((6, 6), weights(3, 18).reshape(3, 2, 3, 3), 1, 0, 1, 1, full(0, 3)),
         "n": nir.LIF(*(full(value, 3, 4, 4) for value in (1e-3, 1, 0, 0.3))),
         "f": nir.Flatten({"input": np.array([1, 3, 4, 4])}, 1, -1), "w": nir.Linear(weights(4, 48)), "m": leaky(4)},
        (2, 6, 6),
    ),
    "flat first": (
        (1, 5, 6), (4,), {"f": nir.Flatten({"input": np.array([1, 5, 6])}, 1), "w": nir.Linear(weights(4, 30)),
                          "m": leaky(4)}, (5, 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BATCHED)
@torch.no_grad()
def test_a_batch_axis_of_one_is_taken_off(name, coin, tmp_path):
    shape, last, nodes, sample = BATCHED[name]
    before, behind = ends(shape, last)
    nir.write(tmp_path / "net.nir", graph({**before, **nodes, **behind}))
    x = coin(40, 3, *sample, probability=0.4)

    network = read_nir(tmp_path / "net.nir", step_s=STEP)

    assert network.input_shape == sample
    assert 0.005 < float(network(x).mean()) < 1
    assert_same(replayed=(replay_nir(tmp_path / "net.nir", x, step_s=STEP), network(x)))


def test_one_channel_is_no_batch_axis(tmp_path):
    before, behind = ends((1, 6, 6), (3, 4, 4))
    kernel = nir.Conv2d((6, 6), weights(3, 9).reshape(3, 1, 3, 3), 1, 0, 1, 1, full(0, 3))
    maps = nir.LIF(*(full(value, 3, 4, 4) for value in (1e-3, 1, 0, 0.3)))
    nir.write(tmp_path / "net.nir", graph({**before, "c": kernel, "n": maps, **behind}))

    assert read_nir(tmp_path / "net.nir", step_s=STEP).input_shape == (1, 6, 6)


@pytest.mark.parametrize("at", (-0.25, 0.125))
@pytest.mark.parametrize("kind", ("LIF", "CubaLIF"))
@torch.no_grad()
def test_a_leak_and_reset_to_one_value_shift_the_threshold(kind, at, coin, tmp_path):
    x, n = coin(60, 3, 24, probability=0.4), 8
    neurons = leaky(n, v_leak=at, v_reset=at, threshold=0.5)
    if kind == "CubaLIF":
        values = {"tau_syn": 3e-4, "tau_mem": 8e-4, "r": 1.5, "v_leak": at, "v_threshold": 0.5, "v_reset": at}
        neurons = nir.CubaLIF(**{name: full(value, n) for name, value in values.items()}, w_in=full(1, n))
    before, behind = ends((24,), (n,))
    nir.write(tmp_path / "net.nir", graph({**before, "w": nir.Linear(weights(n, 24)), "n": neurons, **behind}))

    network = read_nir(tmp_path / "net.nir", step_s=STEP)

    assert network.model[1].threshold == 0.5 - at
    assert 0.005 < float(network(x).mean()) < 1
    assert_same(replayed=(replay_nir(tmp_path / "net.nir", x, step_s=STEP), network(x)))


# what is refused, and what is left then


class Quantised(nn.Linear):
    """A layer that is not quite a Linear."""

    def forward(self, x):
        return super().forward(x).round()


class Double:
    """A description of a layer that the package does not know."""

    def build(self, shape):
        return nn.Sequential(nn.Linear(shape[0], 4), nn.ReLU())


def with_layer(layer):
    network = Network((Dense(4), lif), (4,)).eval()
    network.layers[0] = layer
    return network


def with_convolution(**given):
    network = Network((Conv(3, 3, padding=1), lif), (1, 6, 6)).eval()
    network.layers[0] = nn.Conv2d(1, 3, 3, **given)
    return network


def hooked():
    network = Network((Dense(4), lif), (4,)).eval()
    network.layers[0].register_forward_hook(lambda layer, given, out: out * 2)
    return network


def patched():
    network = Network((Dense(4), lif), (4,)).eval()
    network.layers[0].forward = lambda x: x
    return network


class Bursting(LIF):
    """A neuron that is not quite a LIF."""


STRANGE = {
    "unknown": (lambda: Network((Double(), lif), (4,)).eval(), "Sequential"),
    "subclass": (lambda: with_layer(Quantised(4, 4)), "Quantised"),
    "padding mode": (lambda: with_convolution(padding=1, padding_mode="circular"), "circular"),
    "padding in words": (lambda: with_convolution(padding="same"), "padding='same'"),
    "hook": (hooked, "hooks"),
    "patched": (patched, "forward"),
    "part of a Flatten": (lambda: with_layer(nn.Flatten(0)), "flattens some"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_a_layer_that_is_not_exactly_known_is_refused_by_name(name, tmp_path):
    make, says = STRANGE[name]

    with pytest.raises(SnnError, match=rf"export to net\.nir: model\.0 (?s:.*){says}"):
        write_nir(make(), tmp_path / "net.nir")

    assert not list(tmp_path.iterdir())


def test_a_neuron_that_is_not_exactly_known_is_refused_by_name(tmp_path):
    network = Network((Dense(4), lif), (4,)).eval()
    network.layers[1].neuron = Bursting(beta=0.9, reset="zero")

    with pytest.raises(SnnError, match=r"model\.1 .*Bursting"):
        write_nir(network, tmp_path / "net.nir")


def test_a_refused_export_leaves_the_file_that_is_there(tmp_path):
    good, bad = (Network((Dense(4), LIF(beta=0.9, reset=reset)), (4,)).eval() for reset in ("zero", "subtract"))
    write_nir(good, tmp_path / "net.nir")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(SnnError, match="subtract"):
        write_nir(bad, tmp_path / "net.nir")

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ("net.nir", "net.nir.json"))
def test_where_one_of_two_files_cannot_be_written_none_is(name, tmp_path):
    (tmp_path / name).mkdir()

    with pytest.raises(SnnError, match="no file that can be replaced"):
        write_nir(Network((Dense(4), lif), (4,)).eval(), tmp_path / "net.nir")

    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_whose_numbers_were_changed_is_refused_and_one_that_nir_wrote_again_is_not(coin, tmp_path):
    network, x = (
        Network((Conv(4, (3, 5), groups=2), lif, *head), (2, 9, 9)).eval(),
        coin(9, 2, 2, 9, 9, probability=0.4),
    )
    file = tmp_path / "net.nir"
    write_nir(network, file)

    nir.write(file, nir.read(file))
    assert_same(again=(read_nir(file)(x), network(x)))

    with h5py.File(file, "r+") as held:
        held["node/nodes/layer0_conv2d/bias"][1] += np.float32(1e-3)
    for reads in (read_nir, lambda path: replay_nir(path, x)):
        with pytest.raises(SnnError, match="changed or damaged"):
            reads(file)


@pytest.mark.parametrize("path", ("neurons/layer1_lif/beta", "step_s", "input_shape"))
def test_a_metadata_that_was_changed_is_refused(path, tmp_path):
    write_nir(Network((Dense(4), lif), (4,)).eval(), tmp_path / "net.nir")
    with h5py.File(tmp_path / "net.nir", "r+") as held:
        metadata = json.loads(held["node/metadata/snn_bp"][()])
        *parts, last = path.split("/")
        at = metadata
        for part in parts:
            at = at[part]
        at[last] = [5] if last == "input_shape" else at[last] * (1 + 1e-9)
        del held["node/metadata/snn_bp"]
        held["node/metadata/snn_bp"] = json.dumps(metadata)

    with pytest.raises(SnnError, match="changed or damaged"):
        read_nir(tmp_path / "net.nir")


def pipe(path):
    os.mkfifo(path)


def circle(path):
    path.symlink_to(path)


def device(path):
    path.symlink_to("/dev/zero")


HOSTILE = {
    "pipe": (pipe, "but a pipe"),
    "folder": (lambda path: path.mkdir(), "but a folder"),
    "link to itself": (circle, "no file is here"),
    "device": (device, "but a device"),
    "link to nothing": (lambda path: path.symlink_to("nothing"), "no file is here"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_places_are_refused_at_once(name, tmp_path):
    make, says = HOSTILE[name]
    make(tmp_path / "net.nir")

    for reads in (read_nir, read_hdf5, lambda path: replay_nir(path, np.zeros((1, 1, 1)))):
        with pytest.raises(SnnError, match=says):
            reads(tmp_path / "net.nir")

    if name == "pipe":
        with pytest.raises(SnnError, match="no file that can be replaced"):
            write_nir(Network((Dense(4), lif), (4,)).eval(), tmp_path / "net.nir")
        assert stat.S_ISFIFO((tmp_path / "net.nir").stat().st_mode)


def outside(file):
    file["node/nodes/more"] = h5py.ExternalLink("net.nir", "/node")


def around(file):
    file["node/nodes/more"] = h5py.SoftLink("/node/nodes/more")


def wide(file):
    file["node/nodes"].create_dataset("more/weight", (2**40, 2**20), "f4", chunks=(2**10, 2**10))


def zeros(file):
    file["node/nodes"].create_dataset("more/weight", (2**15, 2**15), "f4", chunks=(2**15, 2**9), compression="gzip")
    file["node/nodes/more/weight"][:, :512] = 0


@pytest.mark.parametrize("make", (outside, around, wide, zeros))
def test_hostile_content_is_refused_without_being_read(make, tmp_path):
    write_nir(Network((Dense(4), lif), (4,)).eval(), tmp_path / "net.nir")
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        make(file)

    with pytest.raises(SnnError, match=r"link to elsewhere|more data than"):
        read_nir(tmp_path / "net.nir")


PADDED = {"padding": np.array([2**23, 2**23]), "stride": np.array([0, 0]), "dilation": np.array([99, 99]), "groups": 3}


@pytest.mark.parametrize("field", PADDED)
def test_nodes_that_do_not_fit_together_are_one_error_of_the_equations_too(field, tmp_path):
    write_nir(Network((Conv(4, 3), lif), (2, 6, 6)).eval(), tmp_path / "net.nir")
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        del file["node/metadata/snn_bp"], file["node/nodes/layer0_conv2d"][field]
        file["node/nodes/layer0_conv2d"][field] = PADDED[field]

    for reads in (read_nir, lambda path, step_s: replay_nir(path, np.zeros((2, 1, 2, 6, 6)), step_s=step_s)):
        with pytest.raises(SnnError):
            reads(tmp_path / "net.nir", step_s=STEP)


@torch.no_grad()
def test_potentials_by_the_equations_are_near_those_of_the_network(coin, tmp_path):
    network, x = Network((Dense(6), lif, Dense(3), LI(beta=0.9)), (9,)).eval(), coin(30, 2, 9, probability=0.4)
    write_nir(network, tmp_path / "net.nir")

    for precision in ("double", "single"):
        found = replay_nir(tmp_path / "net.nir", x, precision=precision)
        assert_near(share=1e-5, potentials=(found, network(x)))
