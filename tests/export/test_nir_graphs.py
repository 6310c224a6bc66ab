"""Branches in NIR files: joints come back as joints, NIR's equations give the same spikes, other graphs are refused."""

from dataclasses import dataclass
from itertools import pairwise

import nir
import numpy as np
import pytest
import torch
from catalogue import assert_near, assert_same

from export.test_nir import build, one_process
from export.test_nir_foreign import affine, leaky
from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    CubaLIF,
    Delay,
    Dense,
    Dropout,
    Flatten,
    Parallel,
    Pool,
    Recurrent,
    Residual,
    SnnError,
)
from snn_bp.exchange.nir_read import read_nir
from snn_bp.exchange.nir_replay import replay_nir
from snn_bp.exchange.nir_write import write_nir
from snn_bp.verification.result import first_difference

one_process = one_process
N = LIF(beta=0.9, threshold=0.5, reset="zero")
CUBA = CubaLIF(alpha=0.6, beta=0.85, reset="zero")
FLAT, IMAGE = (24,), (2, 9, 8)
first, last = (Dense(12), N), (Dense(5), LIF(beta=0.3, threshold=0.1, reset="zero"))
head = (Flatten(), *last)


def conv(channels, kernel=3, **how):
    return Conv(channels, kernel, padding=kernel // 2, **how), N


NETWORKS = {
    "residual": ((*first, Residual(*first), *last), FLAT),
    "one after the other": (
        (*first, Residual(*first), Residual(*first), Residual(*first, Dense(12), CUBA), *last), FLAT
    ),
    "one within the other": ((*first, Residual(*first, Residual(*first), *first), *last), FLAT),
    "from the input": ((Residual(Dense(24), N), *last), FLAT),
    "at the end": ((*first, Residual(*first)), FLAT),
    "before neurons": ((*first, Residual(Dense(12)), LIF(beta=0.5, threshold=1.5, reset="zero"), *last), FLAT),
    "sums of weighted sums": (
        (*first, Parallel((Dense(6),), (Dense(6),), (Dense(6),), combine="add"), N, *last), FLAT
    ),
    "convolutions": ((*conv(4), Residual(*conv(4), *conv(4)), Pool(2, kind="sum"), Residual(*conv(4)), *head), IMAGE),
    "concat": ((*first, Parallel((Dense(5), N), (), (Dense(3), N, Residual(Dense(3), N))), *last), FLAT),
    "concat of maps": ((*conv(4), Parallel(conv(3), (), (Conv(2, 5, padding=2, groups=2), CUBA)), *head), IMAGE),
    "concat of rows": ((*conv(4), Residual(*conv(4)), Parallel(conv(2), ()), *head), (2, 15)),
    "dense skips": ((*conv(4), Parallel((), conv(3)), Parallel((), conv(2)), Parallel((), conv(3)), *head), IMAGE),
    "U": ((*conv(4), Parallel((), (*conv(6), Parallel((), (*conv(8), *conv(6))), *conv(4))), *conv(3), *head), IMAGE),
    "concat in concat": (
        (*first, Parallel((Parallel((Dense(3), N), (Dense(4), N)),), (Parallel((Dense(5), N), ()),)), *last), FLAT
    ),
    "sums of concats": (
        (*first, Parallel((Parallel((Dense(7), N), (Dense(8), N)),), (Parallel((Dense(9), N), (Dense(6), N)),),
                          combine="add"), *last), FLAT
    ),
    "added to a concat": (
        (*first, Parallel((Dense(7), N), (Parallel((Dense(3), N), (Dense(4), N)),), combine="add"), *last), FLAT
    ),
    "recurrent": (
        (*first, Residual(Recurrent(N)), Parallel((Recurrent(N),), (Dense(3), Recurrent(CUBA))), *last), FLAT
    ),
    "delays": ((*first, Residual(Delay(3)), Residual(Delay(2), *first), *last), FLAT),
    "the same twice": ((*first, Parallel((), (), (), combine="add"), *last), FLAT),
    "the same in a branch": ((*first, Parallel((), (Residual(*first),), combine="add"), *last), FLAT),
    "LI": ((*first, Residual(*first), Dense(5), LI(beta=0.9)), FLAT),
}  # fmt: skip
OTHERWISE = {  # the same network in another writing: norms fold, dropout is left out, nested sums lie flat
    "norms": (
        *conv(4), Residual(Conv(4, 3, padding=1), BatchNorm(), N, Dropout(0.2), Conv(4, 1), BatchNorm(), N),
        Residual(Conv(6, 3, padding=1, stride=2), N, shortcut=(Conv(6, 1, stride=2), BatchNorm(), N)), *head,
    ),
    "joints in joints": (*conv(4), Residual(Residual(*conv(4))), Parallel((), (Parallel((), conv(4)),)), *head),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_network_with_joints_comes_back_bit_for_bit_and_does_the_same_by_nirs_equations(name, coin, tmp_path):
    network = build(*NETWORKS[name])
    x = coin(40, 3, *NETWORKS[name][1], probability=0.4)
    wanted = network(x)

    write_nir(network, tmp_path / "net.nir")
    back, replayed = read_nir(tmp_path / "net.nir"), replay_nir(tmp_path / "net.nir", x)

    for activity in network.observe(x)[0]:
        assert float((activity.spikes != 0).float().mean()) > 0.005, activity.name
    assert len(list(back.parameters())) == len(list(network.parameters()))
    for mine, other in zip(network.parameters(), back.parameters(), strict=True):
        assert_same(weights=(other, mine))
    assert_same(back=(back(x), wanted))
    if name == "LI":
        assert_near(share=1e-5, potentials=(replayed, wanted))
    else:
        assert_same(replayed=(replayed, wanted))


@pytest.mark.parametrize("name", OTHERWISE)
@torch.no_grad()
def test_what_folds_within_joints_spikes_alike_in_the_network_the_file_and_the_equations(name, coin, tmp_path):
    network = build(OTHERWISE[name], IMAGE)
    x = coin(40, 3, *IMAGE, probability=0.4)
    wanted = network(x)

    write_nir(network, tmp_path / "net.nir")

    assert float(wanted.mean()) > 0.005
    back, replayed = read_nir(tmp_path / "net.nir")(x), replay_nir(tmp_path / "net.nir", x)
    assert_same(back=(back, wanted), replayed=(replayed, wanted))


def test_our_joints_have_their_own_kind_again(tmp_path):
    model = (
        *first,
        Residual(*first),
        Parallel((), (Dense(3), N)),
        Parallel((Dense(4), N), (Dense(4), N), combine="add"),
    )
    write_nir(build((*model, *last), FLAT), tmp_path / "net.nir")

    assert read_nir(tmp_path / "net.nir").model[:5] == model


def test_an_edge_skips_and_places_stand_in_weights_of_zeros_and_ones(tmp_path):
    write_nir(build((*first, Residual(*first), Parallel((), (Dense(3), N)), *last), FLAT), tmp_path / "net.nir")

    graph = nir.read(tmp_path / "net.nir")

    assert ("layer1_lif", "layer3_0_linear") in graph.edges and ("layer2_0_1_lif", "layer3_0_linear") in graph.edges
    assert graph.nodes["layer3_1_linear"].weight.tolist() == np.eye(15, 3, k=-12).tolist()
    assert {kind for kind in map(type, graph.nodes.values()) if kind is nir.Scale} == set()


@dataclass(frozen=True)
class Mean:
    """A joint of a user's own."""

    def branches(self):
        return (first, ())

    def combine(self, outs):
        return (outs[0] + outs[1]) / 2


@pytest.mark.parametrize(
    ("joint", "says"),
    [
        (Residual(*first, combine="and"), r"model\.2 Residual.* multiplies spikes \('and'\).*Use combine='add'"),
        (Residual(*first, combine="iand"), "multiplies spikes"),
        (Mean(), r"model\.2 Mean.* combine or forward of its own"),
        (Residual(Dense(12), LIF(beta=0.9)), r"model\.2\.0\.1 LIF.* resets by \"subtract\""),
        (Parallel((BatchNorm(),), (), combine="add"), r"model\.2\.0\.0 BatchNorm.* normalises no weighted sum"),
    ],
)
def test_what_edges_cannot_say_is_refused_by_path(joint, says, tmp_path):
    with pytest.raises(SnnError, match=says):
        write_nir(build((*first, joint, *last), FLAT), tmp_path / "net.nir")

    assert list(tmp_path.iterdir()) == []


def graph_of(edges, size=12, **nodes):
    """A graph of others; nodes that are not given are dense, those whose name begins with n are neurons."""
    named = {name: None for edge in edges for name in edge if name not in ("in", "out")}
    made = {
        name: nodes.get(name) or (leaky(size) if name[0] == "n" else affine(size, size, len(name) + ord(name[-1])))
        for name in named
    }
    ends = {"in": nir.Input({"input": np.array([size])}), "out": nir.Output({"output": np.array([size])})}
    return nir.NIRGraph({**ends, **made}, edges, type_check=False)


def path_of(*names):
    return list(pairwise(names))


FOREIGN = {
    "an edge past neurons": [*path_of("in", "a", "n1", "b", "n2", "c", "n3", "out"), ("n1", "c")],
    "an edge past weights": [*path_of("in", "a", "n1", "out"), ("in", "n1")],
    "two weighted sums into neurons": [*path_of("in", "a", "n1", "b", "n2", "out"), *path_of("in", "c", "n2")],
    "every layer to all behind it": [
        *path_of("in", "a", "n1", "b", "n2", "c", "n3", "d", "n4", "out"),
        ("n1", "c"), ("n1", "d"), ("n2", "d"),
    ],
    "recurrent in a branch": [
        *path_of("in", "a", "n1"), ("n1", "r"), ("r", "n1"), *path_of("n1", "b", "n2", "out"), ("in", "b"),
    ],
    "to the output": [*path_of("in", "a", "n1", "out"), *path_of("in", "b", "n2", "out"), ("in", "out")],
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
@torch.no_grad()
def test_a_graph_of_others_does_what_nirs_equations_say(name, coin, tmp_path):
    nir.write(tmp_path / "net.nir", graph_of(FOREIGN[name]))
    x = coin(50, 3, 12, probability=0.4)

    found = read_nir(tmp_path / "net.nir", step_s=1e-4)(x)

    wanted = replay_nir(tmp_path / "net.nir", x, step_s=1e-4)
    assert float(wanted.mean()) > 0.005
    assert first_difference(found.numpy(), wanted.numpy(), layer="out", first=0) is None


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        # the inside of one branch reaches into the other: no nesting
        (
            [*path_of("in", "a", "n1", "out"), *path_of("in", "b", "n2", "out"), *path_of("n1", "c", "n2")],
            "adds up .*nested as Residual",
        ),
        (
            [*path_of("in", "a", "n1", "b", "n2", "out"), ("n1", "n2"), ("in", "n2"), ("n1", "out")],
            "nested as Residual",
        ),
        ([*path_of("in", "a", "n1", "b", "n2", "out"), ("n2", "a")], "close a cycle"),
        ([*path_of("in", "a", "n1", "out"), *path_of("in", "s", "n1")], "Scale at the end of a branch"),
    ],
)
def test_a_graph_that_is_no_nesting_of_branches_is_refused_by_node(edges, says, tmp_path):
    nodes = {"s": nir.Scale(np.full(12, 2, np.float32))}
    nir.write(tmp_path / "net.nir", graph_of(edges, **nodes))

    with pytest.raises(SnnError, match=f"(?s)net.nir: .*{says}"):
        read_nir(tmp_path / "net.nir", step_s=1e-4)


def test_branches_that_give_other_shapes_are_refused(tmp_path):
    edges = [*path_of("in", "a", "b", "out"), *path_of("in", "c", "b")]
    nir.write(tmp_path / "net.nir", graph_of(edges, c=affine(7, 12)))

    with pytest.raises(SnnError, match=r"'in' \(Input\): the branches behind it give \[12\], \[7\]"):
        read_nir(tmp_path / "net.nir", step_s=1e-4)


@pytest.mark.slow
def test_long_and_wide_graphs_are_read_or_refused_in_time(tmp_path):
    long = path_of("in", *(f"n{at}" for at in range(300)), "out")
    skips = [(f"n{at}", f"n{at + 2}") for at in range(0, 297, 3)]
    wide = [edge for at in range(200) for edge in path_of("in", f"n{at}", "z")] + [("z", "out")]

    for edges in ([*long, *skips], wide):
        nir.write(tmp_path / "net.nir", graph_of(edges, size=2))
        assert len(list(read_nir(tmp_path / "net.nir", step_s=1e-4).modules())) > 400
