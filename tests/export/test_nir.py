"""NIR files that we write: they come back bit for bit, and NIR's own equations give the network's spikes."""

import hashlib
import json

import h5py
import nir
import numpy as np
import pytest
import torch
from catalogue import assert_near, assert_same
from torch import nn

from snn_bp.chip.network import OnChip
from snn_bp.errors import SnnError
from snn_bp.exchange.nir_read import read_nir
from snn_bp.exchange.nir_replay import replay_nir
from snn_bp.exchange.nir_write import write_nir
from snn_bp.files import hdf5
from snn_bp.files.hdf5 import read_hdf5
from snn_bp.files.hdf5_child import content
from snn_bp.model.layers import BatchNorm, Conv, Delay, Dense, Dropout, Flatten, Pool, Recurrent, Spiking
from snn_bp.model.network import Network, has_state, neuron_of
from snn_bp.neurons import ALIF, IF, LI, LIF, CubaLIF

STEP = 1e-4
lif = LIF(beta=0.9, reset="zero")
cuba = CubaLIF(alpha=0.7, beta=0.85, reset="zero")
DECAYS = (0.0, 1e-8, 0.3, 0.55, 0.9, 0.95, 0.99)
own_decay = LIF(beta=DECAYS, threshold=(0.5, 0.75, 1, 1.1, 1.3, 0.7, 1), reset="zero")
head = (Flatten(), Dense(5), LIF(beta=0.3, threshold=0.1, reset="zero"))
NETWORKS = {
    "MLP, LIF": ((Dense(32), lif, Dense(7), own_decay), (24,)),
    "MLP, CubaLIF": ((Dense(32, bias=False), cuba, Dense(7), CubaLIF(alpha=0, beta=0, reset="zero")), (24,)),
    "recurrent": ((Dense(17), Recurrent(lif), Dense(9), Recurrent(cuba), Dense(7), Recurrent(own_decay)), (24,)),
    "Conv2d, sum pool": (
        (Conv(4, 3, padding=1), lif, Pool(2, kind="sum"), Conv(5, 3, stride=2), cuba, *head), (2, 11, 13)
    ),
    "Conv2d, average pool": ((Conv(4, 3, padding=1, bias=False), Pool(3, stride=2), lif, *head), (2, 11, 13)),
    "groups": ((Conv(6, 3, groups=2, padding=1), lif, Conv(6, 3, groups=6), lif, *head), (2, 11, 13)),
    "oblong kernels": (
        (Conv(4, (3, 5), padding=(1, 0)), lif, Conv(6, (5, 1), groups=2, dilation=2, stride=(1, 2)), cuba, *head),
        (2, 11, 13),
    ),
    "grouped Conv1d": ((Conv(4, 5, groups=2), lif, *head), (2, 15)),
    "Conv1d": ((Conv(4, 3, padding=2, dilation=2), lif, *head), (2, 15)),
    "IF": ((Dense(32), IF(reset="zero"), Dense(7), LIF(beta=1.0, reset="zero")), (24,)),
    "learned": (
        (Dense(32), Spiking(lif, learn=("beta", "threshold")), Dense(7), Spiking(cuba, learn=("alpha",))), (24,)
    ),
    "learned maps": ((Conv(3, 3), Spiking(lif, learn=("beta",)), *head), (2, 7, 9)),
    "delays": ((Delay(2), Dense(16), Delay(tuple(range(0, 80, 5)), max_steps=90), lif, Dense(5), lif), (24,)),
    "pool first": ((Pool(2, kind="sum"), lif, Pool(2), IF(threshold=0.75, reset="zero"), *head), (2, 12, 12)),
    "neurons first": ((LIF(beta=0.5, threshold=0.9, reset="zero"), Dropout(0.3), Dense(5), lif), (24,)),
    "LI": ((Dense(16), lif, Dense(5), LI(beta=0.9)), (24,)),
    "LI with current": ((Dense(5), LI(beta=0.9, alpha=0.6)), (24,)),
    "no neurons last": ((Dense(16), lif, Dense(5)), (24,)),
}  # fmt: skip
FOLDED = {
    "norms": ((Dense(32), BatchNorm(), lif, Dense(8), Dropout(), BatchNorm(), cuba), (24,)),
    "norms and pools": (
        (Conv(4, 3), Pool(2), BatchNorm(), lif, Conv(5, 2), Pool(2, kind="sum"), BatchNorm(), lif, *head), (2, 11, 13)
    ),
    "recurrent maps": ((Conv(3, 3), Flatten(), Recurrent(lif, bias=False), Dense(5), lif), (2, 6, 5)),
    "recurrent bias": ((Dense(16, bias=False), BatchNorm(), Recurrent(lif, bias=True), Dense(5), lif), (24,)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """HDF5 in this process: starting another for each file takes most of the time."""
    monkeypatch.setattr(hdf5, "_by_child", lambda path, attributes=(): content(str(path), attributes))


def build(model, shape, *, seed=3):
    """A network that spikes, with norms and learned values away from where they start."""
    network = Network(model, shape, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "learned" in name:
                parameter += 0.7 * torch.randn(parameter.shape, generator=generator)
            elif parameter.dim() > 1:
                parameter *= 3
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.running_mean.normal_(generator=generator)
                norm.running_var.uniform_(0.5, 2, generator=generator)
                norm.bias.uniform_(-0.5, 0.5, generator=generator)
    return network


def node(path, name):
    """The one node of `path` whose name ends so."""
    (found,) = [node for key, node in nir.read(path).nodes.items() if key.endswith(name)]
    return found


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_our_file_comes_back_bit_for_bit_and_does_the_same_by_nirs_equations(name, coin, tmp_path):
    network = build(*NETWORKS[name])
    x = coin(60, 3, *NETWORKS[name][1], probability=0.4)
    wanted = network(x)

    write_nir(network, tmp_path / "net.nir")
    back, replayed = read_nir(tmp_path / "net.nir")(x), replay_nir(tmp_path / "net.nir", x)

    assert float((wanted != 0).float().mean()) > 0.005
    assert_same(back=(back, wanted))
    if "LI" in name or name == "no neurons last":
        assert_near(share=1e-5, potentials=(replayed, wanted))
    else:
        assert_same(replayed=(replayed, wanted))


@pytest.mark.parametrize("name", FOLDED)
@torch.no_grad()
def test_what_folds_into_weights_spikes_alike_in_the_network_the_file_and_the_equations(name, coin, tmp_path):
    network = build(*FOLDED[name])
    x = coin(60, 3, *FOLDED[name][1], probability=0.4)
    wanted = network(x)

    write_nir(network, tmp_path / "net.nir")

    assert float(wanted.mean()) > 0.005
    back, replayed = read_nir(tmp_path / "net.nir")(x), replay_nir(tmp_path / "net.nir", x)
    assert_same(back=(back, wanted), replayed=(replayed, wanted))


def test_a_norm_folds_in_double_precision(tmp_path):
    network = build((Dense(7), BatchNorm(), cuba), (5,))
    dense, norm = network.layers[0], network.layers[1]
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()

    write_nir(network, tmp_path / "net.nir")

    affine = node(tmp_path / "net.nir", "affine")
    bias = (dense.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
    assert np.array_equal(affine.weight, (dense.weight.double() * scale[:, None]).float().detach().numpy())
    assert np.array_equal(affine.bias, bias.float().detach().numpy())


def test_lif_is_written_in_unit_r_form_and_cuba_lif_in_jump_form(tmp_path):
    write_nir(build((Dense(7), lif, Dense(3), cuba), (5,)), tmp_path / "net.nir")

    leaky, current = node(tmp_path / "net.nir", "_lif"), node(tmp_path / "net.nir", "_cubalif")
    assert np.allclose(leaky.tau, STEP / 0.1, rtol=1e-6) and (leaky.r == 1).all() and leaky.tau.shape == (7,)
    assert np.allclose(current.r, current.tau_mem / STEP, rtol=1e-6)
    assert np.allclose(current.w_in, current.tau_syn / STEP, rtol=1e-6)
    assert all(not each.v_reset.any() and not each.v_leak.any() for each in (leaky, current))


def test_recurrent_edges_stand_before_the_edge_forward_and_names_have_no_dots(tmp_path):
    write_nir(build((Dense(7), Recurrent(lif), Dense(3), lif), (5,)), tmp_path / "net.nir")

    graph = nir.read(tmp_path / "net.nir")
    hearing = [end for start, end in graph.edges if start == "layer1_lif"]
    assert hearing == ["layer1_lif_recurrent", "layer2_affine"]
    assert not [name for name in graph.nodes if "/" in name or "." in name]
    assert {"input", "output"} < graph.nodes.keys()


def test_the_metadata_stands_in_the_file_and_beside_it(tmp_path):
    path = tmp_path / "net.nir"

    metadata = write_nir(build((Dense(7), lif), (5,)), path, step_s=1e-3)

    beside = json.loads((tmp_path / "net.nir.json").read_text())
    assert json.loads(nir.read(path).metadata["snn_bp"]) == metadata
    assert beside == {**metadata, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert metadata["step_s"] == 1e-3 and metadata["input_shape"] == [5]
    assert metadata["neurons"] == {"layer1_lif": {"form": "unit-r", "beta": 0.9}} and "kernels" not in metadata


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for name in ("a.nir", "b.nir"):
        write_nir(build((Dense(7), lif), (5,)), tmp_path / name)

    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()
    assert not list(tmp_path.glob("*.writing"))


def test_decays_come_back_as_they_were_written(tmp_path):
    third, current = LIF(beta=1 / 3, reset="zero"), CubaLIF(alpha=0.1, beta=0.2, reset="zero")
    model = (Dense(7), third, Dense(7), own_decay, Dense(2), current)

    write_nir(build(model, (5,)), tmp_path / "net.nir")

    back = [layer for layer in read_nir(tmp_path / "net.nir").model if not isinstance(layer, Dense)]
    assert [layer.beta for layer in back] == [1 / 3, DECAYS, 0.2]
    assert back[2].alpha == 0.1


@pytest.mark.parametrize("name", ("MLP, LIF", "recurrent", "Conv2d, average pool", "oblong kernels", "learned maps"))
def test_weights_come_back_to_the_last_bit(name, tmp_path):
    network = build(*NETWORKS[name])

    write_nir(network, tmp_path / "net.nir")

    back = read_nir(tmp_path / "net.nir").state_dict()
    wanted = {key: value for key, value in network.state_dict().items() if "learned" not in key}
    assert back.keys() == wanted.keys()
    assert_same(**{key: (back[key], wanted[key]) for key in wanted})


def test_compatible_files_have_no_v_reset_and_read_back_the_same(coin, tmp_path):
    network, x = build((Dense(32), lif, Dense(7), lif), (24,)), coin(30, 2, 24, probability=0.4)

    write_nir(network, tmp_path / "net.nir", compatible="1.0.4")

    assert not [name for name in read_hdf5(tmp_path / "net.nir") if name.endswith("v_reset")]
    assert_same(back=(read_nir(tmp_path / "net.nir")(x), network(x)))


before = {"reset": "subtract_before_leak"}
SUBTRACTING = {
    "leaky": ((Dense(32), LIF(beta=0.9, **before), Dense(7, bias=False), LIF(beta=(0.2, *[0.8] * 6), **before)), (24,)),
    "currents": ((Dense(32), CubaLIF(alpha=0.5, beta=0.9, **before), Dense(7), IF(threshold=2.0, **before)), (24,)),
    "recurrent": ((Dense(16), Recurrent(LIF(beta=0.9, **before), bias=True), Dense(7), LI(beta=0.9)), (24,)),
    "images": ((Conv(4, 3), Pool(2, kind="sum"), LIF(beta=0.9, threshold=3, **before), Flatten(), Dense(3)), (2, 9, 9)),
}


@pytest.mark.parametrize("name", SUBTRACTING)
def test_networks_that_subtract_before_the_leak_are_written_for_nir_1_0_4(name, coin, tmp_path):
    file, (model, shape) = tmp_path / "net.nir", SUBTRACTING[name]
    network, x = build(model, shape), coin(60, 2, *shape, probability=0.4)

    said = write_nir(network, file, compatible="1.0.4")
    back = read_nir(file)

    assert [neuron_of(layer) for layer in back.layers if has_state(layer)] == [
        neuron_of(layer) for layer in network.layers if has_state(layer)
    ]
    assert_near(share=1e-5, back=(back(x), network(x)), equations=(replay_nir(file, x), network(x)))
    assert read_hdf5(file)["/version"] == "1.0.4" and said["reset"].startswith("v <- v - v_threshold")
    with h5py.File(file, "r+") as content:  # as a library of that time would have written it
        del content["node/metadata"]
    assert_near(share=1e-4, foreign=(read_nir(file, step_s=1e-4)(x), network(x)))


def test_two_ways_to_reset_are_refused_for_nir_1_0_4(tmp_path):
    network = Network((Dense(7), LIF(beta=0.9, **before), Dense(7), lif), (5,))

    with pytest.raises(SnnError, match="some layers reset by 'subtract_before_leak' and some by 'zero'"):
        write_nir(network, tmp_path / "net.nir", compatible="1.0.4")


@pytest.mark.parametrize(
    "model, says",
    [
        ((Dense(7), LIF(beta=0.9)), 'Train with reset="zero" or "subtract_before_leak"'),
        ((LIF(beta=0.9, **before), Dense(7)), "Put a Dense or Conv in front"),
    ],
)
def test_what_nir_1_0_4_cannot_say_is_refused_with_the_remedy(model, says, tmp_path):
    with pytest.raises(SnnError, match=says):
        write_nir(Network(model, (5,)), tmp_path / "net.nir", compatible="1.0.4")


@pytest.mark.parametrize(
    "model, shape, says",
    [
        ((Dense(7), LIF(beta=0.9, **before)), (5,), 'Write it with compatible="1.0.4"'),
        ((Dense(7), LIF(beta=0.9)), (5,), 'LIF(beta=0.9) resets by "subtract".* Train with reset="zero"'),
        ((Dense(7), LIF(beta=0.9, reset="zero_all")), (5,), "zero_all"),
        ((Dense(7), CubaLIF(alpha=0.5, beta=0.9, reset="none")), (5,), "none"),
        ((Dense(7), ALIF(beta=0.9, rho=0.9, kappa=0.1, reset="zero")), (5,), "adapts its threshold"),
        ((Dense(7), CubaLIF(alpha=0.5, beta=1.0, reset="zero")), (5,), "decay of 1"),
        ((Dense(2), LIF(beta=(0.5, 1.0), reset="zero")), (5,), "decay of 1"),
        ((Dense(7), LI(beta=1.0)), (5,), "decay of 1"),
        ((Conv(4, 3), Pool(2, kind="max"), lif), (2, 9, 9), "takes a maximum.*kind='sum'"),
        ((Pool(2), Conv(4, 3), lif), (2, 9), "pools in one dimension"),
        ((Pool(2, kind="sum"), Conv(4, 3), lif), (2, 9), "pools in one dimension"),
        ((Conv(4, (3, 2)), lif), (2, 9, 9), "kernel of 3 x 2.*sides that differ by an even number"),
        ((BatchNorm(), Dense(7), lif), (5,), "normalises no weighted sum"),
        ((Dense(7), Delay(1), BatchNorm(), lif), (5,), "normalises no weighted sum"),
        ((Recurrent(lif, bias=True),), (5,), "recurrent bias"),
    ],
)
def test_what_nir_cannot_say_is_refused_with_the_remedy(model, shape, says, tmp_path):
    with pytest.raises(SnnError, match=r"export to net\.nir: model\.") as raised:
        write_nir(Network(model, shape), tmp_path / "net.nir")

    assert raised.match("(?s)" + says.replace("(beta=0.9)", r"\(beta=0.9\)"))
    assert not list(tmp_path.iterdir())


def test_every_reason_to_refuse_is_named_at_once(tmp_path):
    network = Network((Dense(7), LIF(beta=0.9), Dense(3), ALIF(beta=0.9, rho=0.9, kappa=0.1, reset="zero")), (5,))
    nn.init.zeros_(network.layers[2].weight)

    with pytest.raises(SnnError, match=r"(?s)model\.1 .*model\.2 .*only weights of zero.*model\.3"):
        write_nir(network, tmp_path / "net.nir")


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Network((Dense(7), lif), (5,)).double(), "single precision"),
        (lambda: OnChip(Network((Dense(7), lif), (5,))), "a chip's integers"),
    ],
)
def test_networks_of_other_numbers_are_refused(make, says, tmp_path):
    with pytest.raises(SnnError, match=says):
        write_nir(make(), tmp_path / "net.nir")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = Network((Dense(7), lif), (5,))
    nn.init.constant_(network.layers[0].bias, float("nan"))

    with pytest.raises(SnnError, match="not finite"):
        write_nir(network, tmp_path / "net.nir")
