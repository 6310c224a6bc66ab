"""Joints: branches that see the same input and what is made of their outputs, against the same written by hand."""

from dataclasses import dataclass

import pytest
import torch
from catalogue import assert_near, assert_same

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    Network,
    Recurrent,
    SnnError,
    Tau,
    decay,
    simulate,
)
from snn_bp.kernels import use_backend
from snn_bp.model.blocks import Block, Fork, blocks, every_part, parts_of, tree
from snn_bp.model.finite import first_nonfinite
from snn_bp.model.layers import with_step

HIDDEN = LIF(beta=0.8, threshold=0.4)


@dataclass(frozen=True)
class Residual:
    """`x + f(x)`: three small pieces make a joint of a value."""

    layers: tuple

    def branches(self):
        return (self.layers, ())

    def combine(self, outs):
        return outs[0] + outs[1]


@dataclass(frozen=True)
class Side:
    """The outputs of two branches side by side."""

    rows: tuple

    def branches(self):
        return self.rows

    def combine(self, outs):
        return torch.cat(outs, 2)


MODEL = (Dense(6), HIDDEN, Residual((Dense(6), HIDDEN)), Dense(3), LI(beta=0.9))
DEEP = (
    Dense(6),
    HIDDEN,
    Side(((Residual((Dense(6), BatchNorm(), HIDDEN)), Dense(4), HIDDEN), (Recurrent(HIDDEN),))),
    Dense(3),
    LI(beta=0.9),
)


def by_hand(network, x):
    """MODEL in plain torch, on the weights of a network of it."""
    first, _, joint, last, _ = network.layers
    hidden, _ = simulate(HIDDEN, first(x))
    inner, _ = simulate(HIDDEN, joint.branches[0][0](hidden))
    out, _ = simulate(LI(beta=0.9), last(hidden + inner))
    return out, [hidden.mean((0, 1)), inner.mean((0, 1))]


@pytest.mark.parametrize("backend", ["fastest", "reference"])
def test_a_step_of_training_equals_that_of_the_same_network_by_hand(backend, coin):
    x, targets = coin(20, 5, 7, probability=0.4).double(), torch.tensor([0, 1, 2, 0, 1])
    weights = []
    for run in (lambda network: network.rates(x)[:2], lambda network: by_hand(network, x)):
        network = Network(MODEL, (7,), seed=2).double()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        with use_backend(backend):
            out, rates = run(network)
            loss = torch.nn.functional.cross_entropy(out.mean(0), targets) + sum(rate.sum() for rate in rates)
            loss.backward()
        optimizer.step()
        weights.append([out, *rates, *network.parameters()])

    assert weights[0][2].any()
    for mine, wanted in zip(*weights, strict=True):
        assert_near(share=1e-11, weights=(mine.detach(), wanted.detach()))


def test_a_network_with_joints_streams_is_walked_and_observed_as_it_runs(coin):
    network = Network(DEEP, (7,), seed=1).double().eval()
    x = coin(30, 4, 7, probability=0.4).double()

    out, rates, _ = network.rates(x)
    first, state = network.run(x[:13])
    second, _ = network.run(x[13:], state)
    activities, last = network.observe(x)
    walked = list(network.walk(x))

    assert network.output_shape == (3,) and network.shapes[2] == (10,)
    assert_same(
        out=(torch.cat([first, second]), out), observed=(activities[-1].spikes, out), walked=(walked[-1][1][0], out)
    )
    assert [activity.name.partition(" ")[0] for activity in activities] == [
        "model.1", "model.2.0.0.0.2", "model.2.0.2", "model.2.1.0", "model.4",
    ]  # fmt: skip
    assert len(last) == len(state) == 5 and len(rates) == 4
    for activity, rate in zip(activities, rates, strict=False):
        assert_same(rate=(activity.spikes.mean((0, 1)), rate), atol=1e-12)
    assert [layer for layer, _ in walked] == [part.layer for part in every_part(parts_of(network))]


def test_layers_within_a_joint_run_as_one_kernel_and_are_named_by_their_path(coin):
    network = Network(DEEP, (7,)).eval()

    lines = network.plan(coin(9, 4, 7, probability=0.4))

    assert [line.partition(": one")[0] for line in lines if "one event-driven" in line] == [
        "model.0 Dense(6) - model.1 LIF(beta=0.8, threshold=0.4)",
        "model.2.0.0.0.0 Dense(6) - model.2.0.0.0.1 BatchNorm() - model.2.0.0.0.2 LIF(beta=0.8, threshold=0.4)",
        "model.2.0.1 Dense(4) - model.2.0.2 LIF(beta=0.8, threshold=0.4)",
        "model.2.1.0 Recurrent(LIF(beta=0.8, threshold=0.4))",
        "model.3 Dense(3) - model.4 LI(beta=0.9)",
    ]
    assert network.parameters_of((2, 0, 1))["layers.2.branches.0.1.weight"] is network.layers[2].branches[0][1].weight


def test_a_hook_on_a_joint_and_within_it_is_called(coin):
    network, seen = Network(MODEL, (7,)), []
    network.layers[2].register_forward_hook(lambda *_: seen.append("joint"))
    network.layers[2].branches[0][1].register_forward_hook(lambda *_: seen.append("within"))

    network(coin(9, 4, 7, probability=0.4))

    assert seen == ["within", "joint"]


def test_the_parse_of_a_model_with_joints_is_a_tree():
    network = Network((Flatten(), *DEEP), (1, 7))

    first, fork, last = tree(parts_of(network))

    assert isinstance(first, Block) and isinstance(fork, Fork) and isinstance(last, Block)
    assert [part.path for part in first.parts] == [(0,), (1,), (2,)]
    (inner, block), (recurrent,) = fork.branches
    assert isinstance(inner, Fork) and inner.joint.path == (3, 0, 0) and inner.joint.after == (6,)
    assert block.weights.path == (3, 0, 1) and recurrent.neurons is network.layers[3].branches[1][0]


def test_what_knows_rows_only_refuses_a_joint_by_name():
    network = Network(MODEL, (7,))

    with pytest.raises(SnnError, match=r"^export: model\.2 Residual\(.* joins branches"):
        blocks(network, "export")


def test_where_a_nan_stands_within_a_joint_is_said(coin):
    network = Network(MODEL, (7,))
    with torch.no_grad():
        network.layers[2].branches[0][0].weight[0, 0] = torch.nan

    assert first_nonfinite(network, coin(9, 4, 7, probability=0.4)) == "the weight of model.2.0.0 Dense(6)"


def test_a_layer_that_does_not_fit_within_a_joint_is_named_by_its_path():
    with pytest.raises(SnnError, match=r"^Network: model\.2\.0\.1 Conv\(3, 3\), on an input of \[6\]: Conv: it takes"):
        Network((Dense(6), HIDDEN, Residual((Dense(6), Conv(3, 3)))), (7,))


def test_branches_that_do_not_fit_each_other_are_refused_by_name():
    with pytest.raises(SnnError, match=r"^Network: model\.0 Residual\("):
        Network((Residual((Dense(5),)),), (7,))


def test_time_constants_within_a_joint_become_decays_too():
    inner = (Dense(6), LIF(beta=Tau(20)))

    model = with_step((Dense(6), Residual(inner), Side((inner, (Residual(inner),)))), step_ms=5)

    known = (Dense(6), LIF(beta=decay(tau_ms=20, step_ms=5)))
    assert model == (Dense(6), Residual(known), Side((known, (Residual(known),))))
