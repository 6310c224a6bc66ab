"""Files of neurons of one's own: the NIR node that `nir=` names is proven by replay, all else is refused by name."""

import importlib
import math
from types import SimpleNamespace

import nir
import numpy as np
import pytest
import runs
import torch
from catalogue import assert_near, assert_same

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    CountCrossEntropy,
    Dense,
    Experiment,
    Flatten,
    Network,
    OnChip,
    Recurrent,
    SnnError,
    Spiking,
    Train,
)
from snn_bp.chip.quantize import quantize
from snn_bp.equations.arithmetic import detach, spike
from snn_bp.exchange.nir_read import read_nir
from snn_bp.exchange.nir_replay import replay_nir
from snn_bp.exchange.nir_write import write_nir
from snn_bp.exchange.snntorch import to_snntorch
from snn_bp.files import hdf5
from snn_bp.files.hdf5_child import content
from snn_bp.kernels import use_backend
from snn_bp.neurons import AsNIR, neuron
from snn_bp.trainer.loop import train

verifying = importlib.import_module("snn_bp.verification.replayed")
few_digits = runs.few_digits
STEP = 1e-4


def as_lif(beta, threshold, step_s):
    return AsNIR("LIF", tau=step_s / (1 - beta), r=1 / (1 - beta), v_threshold=threshold)


@neuron(decays=("beta",), positive=("threshold",), nir=as_lif)
def Cleared(v, s, x, *, beta=0.9, threshold=1.0):
    """NIR's LIF in other words."""
    v = x + beta * v * (1 - detach(s))
    return v, spike(v - threshold, threshold)


@neuron(decays=("beta",), positive=("threshold",), nir=as_lif)
def Subtracted(v, s, x, *, beta=0.9, threshold=1.0):
    """What NIR's LIF is not, though it says so."""
    v = beta * v + x - threshold * detach(s)
    return v, spike(v - threshold, threshold)


@neuron(
    decays=("fast", "slow"),
    nir=lambda fast, slow, height, step_s: AsNIR(
        "CubaLIF", tau_syn=step_s / (1 - fast), tau_mem=step_s / (1 - slow), w_in=1 / (1 - fast), r=1 / (1 - slow),
        v_threshold=height,
    ),
)  # fmt: skip
def TwoStage(current, soma, s, x, *, fast=0.7, slow=0.85, height=1.0):
    current = fast * current + x
    soma = slow * soma * (1 - s) + current
    return current, soma, spike(soma - height, height)


@neuron(nir=lambda height, step_s: AsNIR("IF", r=1 / step_s, v_threshold=height))
def Counter(v, s, x, *, height=1.0):
    v = v * (1 - s) + x
    return v, spike(v - height, height)


@neuron(decays=("beta",), nir=lambda beta, step_s: AsNIR("LI", tau=step_s / (1 - beta), r=1))
def Smoothed(v, x, *, beta=0.9):
    v = beta * v + (1 - beta) * x
    return v, v


@neuron(decays=("beta",))
def Nameless(v, s, x, *, beta=0.9):
    v = beta * v + x - s
    return v, spike(v - 1.0)


@neuron(decays=("beta",))
def NamelessReadout(v, x, *, beta=0.9):
    v = beta * v + x
    return v, v


last = LIF(beta=0.85, reset="zero")
NETWORKS = {
    "LIF": (Dense(32), Cleared(threshold=0.75), Dense(7), last),
    "LIF, each its own": (Dense(5), Cleared(beta=(0.0, 0.3, 0.9, 0.95, 0.99), threshold=(0.5, 1, 1.5, 1, 0.7))),
    "LIF, learned": (Dense(32), BatchNorm(), Spiking(Cleared(), learn=("beta", "threshold")), Dense(7), last),
    "LIF, recurrent": (Dense(17), Recurrent(Cleared(beta=0.8)), Dense(7), Cleared()),
    "CubaLIF": (Dense(32, bias=False), TwoStage(), Dense(7), TwoStage(height=0.5)),
    "IF": (Dense(32), Counter(), Dense(7), last),
    "LI": (Dense(16), Cleared(), Dense(5), Smoothed()),
}


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """HDF5 in this process: starting another for each file takes most of the time."""
    monkeypatch.setattr(hdf5, "_by_child", lambda path, attributes=(): content(str(path), attributes))


@pytest.fixture(autouse=True)
def in_the_reference():
    """Networks in torch, which kernels equal bit for bit (`test_own_kernels.py`): no kernel is compiled here."""
    with use_backend("reference"):
        yield


def build(model, shape=(24,)):
    """A network that spikes, with learned values away from where they start."""
    network = Network(model, shape, seed=3).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "learned" in name:
                parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
            elif parameter.dim() > 1:
                parameter *= 3
    return network


def proof(network, file, x):
    """What `verify` says of a file, of these recordings."""
    run = SimpleNamespace(
        network=lambda checkpoint: network,
        experiment=SimpleNamespace(train=SimpleNamespace(loss=CountCrossEntropy())),
        dataset=lambda: SimpleNamespace(targets=SimpleNamespace(kind="class")),
    )
    return verifying._verify_nir(run, "best", file, [(x, torch.zeros(x.shape[1], dtype=torch.long), None)], None)


# The node that nir= names


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_node_that_a_neuron_says_it_is_spikes_alike_in_the_file_and_by_nirs_equations(name, coin, tmp_path):
    network, file = build(NETWORKS[name]), tmp_path / "net.nir"
    x = coin(60, 3, 24, probability=0.4)

    write_nir(network, file)

    wanted, found = network(x), proof(network, file, x)
    assert float((wanted != 0).float().mean()) > 0.005
    if name == "LI":
        assert_near(share=1e-5, replayed=(replay_nir(file, x), wanted), back=(read_nir(file)(x), wanted))
    else:
        assert found.holds and found.compared == 2 * wanted.numel(), found.difference
        assert_same(replayed=(replay_nir(file, x), wanted), back=(read_nir(file)(x), wanted))


@torch.no_grad()
def test_a_neuron_that_names_another_node_is_reported_as_a_difference(coin, tmp_path):
    network, file = build((Dense(32), Subtracted(), Dense(7), last)), tmp_path / "net.nir"

    write_nir(network, file)
    found = proof(network, file, coin(60, 3, 24, probability=0.4))

    assert not found.holds and found.difference is not None
    assert "in the file" in found.difference and "in the network" in found.difference


@torch.no_grad()
def test_wrong_numbers_of_the_right_node_are_a_difference(coin, tmp_path):
    wrong = neuron(decays=("beta",), positive=("threshold",), nir=lambda beta, threshold, step_s: AsNIR(
        "LIF", tau=step_s / (1 - beta), r=1, v_threshold=threshold  # the gain of its input left out
    ))(Cleared.kind.step)  # fmt: skip
    network, file = build((Dense(32), wrong(), Dense(7), last)), tmp_path / "net.nir"

    write_nir(network, file)

    assert not proof(network, file, coin(60, 3, 24, probability=0.4)).holds


def test_the_file_has_the_numbers_of_the_mapping_and_says_whose_they_are(tmp_path):
    network = build(NETWORKS["LIF, each its own"])

    metadata = write_nir(network, tmp_path / "net.nir", step_s=STEP)

    (written,) = [each for each in nir.read(tmp_path / "net.nir").nodes.values() if isinstance(each, nir.LIF)]
    decays = np.float32((0.0, 0.3, 0.9, 0.95, 0.99)).astype(float)
    assert np.array_equal(written.tau, STEP / (1 - decays)) and np.array_equal(written.v_reset, np.zeros(5))
    assert np.array_equal(written.v_threshold, np.float32((0.5, 1, 1.5, 1, 0.7)))
    assert metadata["neurons"]["layer1_lif"]["own"].startswith("Cleared(beta=(0.0, 0.3")


def test_numbers_for_each_neuron_of_a_map_are_shaped_as_the_map(coin, tmp_path):
    network, x = (
        build((Conv(3, 3), Cleared(), Flatten(), Dense(4), last), (2, 6, 5)),
        coin(20, 2, 2, 6, 5, probability=0.4),
    )

    write_nir(network, tmp_path / "net.nir")

    assert_same(replayed=(replay_nir(tmp_path / "net.nir", x), network(x).detach()))


# What is refused


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ((Dense(8), Nameless(), Dense(4), last), "model.1 Nameless.* is a neuron of your own, Nameless"),
        ((Dense(8), last, Dense(4), NamelessReadout()), "model.3 NamelessReadout.* is a neuron of your own"),
        ((Dense(8), Recurrent(Nameless()), Dense(4), last), "model.1 Recurrent.* is a neuron of your own, Nameless"),
    ],
)
def test_a_neuron_that_names_no_node_is_no_file(model, named, tmp_path):
    with pytest.raises(SnnError, match=rf"export to net.nir: {named}.*Known: IF, LIF, CubaLIF, LI.*nir=.*AsNIR"):
        write_nir(build(model), tmp_path / "net.nir")

    assert not list(tmp_path.iterdir())


def test_what_a_mapping_gives_is_checked_when_the_file_is_written(tmp_path):
    def refused(own, **options):
        with pytest.raises(SnnError) as caught:
            write_nir(build((Dense(5), own, Dense(4), LI(beta=0.9))), tmp_path / "net.nir", **options)
        assert str(caught.value).startswith("export to net.nir: model.1 ") and "\n" not in str(caught.value)
        return str(caught.value)

    def by(mapping, step=Cleared.kind.step):
        return neuron(nir=mapping)(step)(beta=1.0)

    assert "tau of inf, which should be a positive time" in refused(
        by(lambda beta: AsNIR("LIF", tau=math.inf, r=1, v_threshold=1))
    )
    assert "tau of -1" in refused(by(lambda: AsNIR("LIF", tau=-1, r=1, v_threshold=1)))
    assert "[5] neurons" in refused(by(lambda: AsNIR("LIF", tau=[1, 2], r=1, v_threshold=1)))
    assert "returned 3" in refused(by(lambda: 3))
    assert "fires, and a LI of NIR does not" in refused(by(lambda: AsNIR("LI", tau=1, r=1)))
    assert "does not fire, and a LIF" in refused(
        by(lambda: AsNIR("LIF", tau=1, r=1, v_threshold=1), Smoothed.kind.step)
    )
    another = by(lambda: AsNIR("LIF", tau=1, r=1, v_threshold=1, v_reset=0.5))
    assert "resets to another value than 0" in refused(another, compatible="1.0.4")


def test_a_mapping_is_checked_when_the_neuron_is_defined():
    def step(v, s, x, *, beta=0.9):
        v = beta * v * (1 - s) + x
        return v, spike(v - 1.0)

    for mapping, why in (
        ("LIF", "nir='LIF' should be a function that returns an AsNIR"),
        (lambda tau, step_s: None, "nir= asks for 'tau'; it takes parameters of the neuron by their names, and step_s"),
        (lambda *all_of_them: None, "nir= asks for 'all_of_them'"),
    ):
        with pytest.raises(SnnError, match=why):
            neuron(nir=mapping)(step)
    for kind, numbers, why in (
        ("ALIF", {}, "ALIF"),
        ("LIF", {"tau": 1, "r": 1}, r"AsNIR\('LIF'\): the node needs v_threshold"),
        ("LI", {"tau": 1, "r": 1, "theta": 1}, "the node has no theta"),
    ):
        with pytest.raises(SnnError, match=why):
            AsNIR(kind, **numbers)


@pytest.mark.parametrize("own", (Nameless(), Cleared(), NamelessReadout()), ids=repr)
def test_the_chip_and_snntorch_name_the_neuron_that_they_have_not(own):
    network = Network((Dense(8), LIF(beta=0.9, reset="zero"), Dense(4), own), (24,))
    name = type(own).__name__

    for asker, said in ((OnChip, "for Loihi"), (quantize, "for Loihi"), (to_snntorch, "to_snntorch")):
        with pytest.raises(SnnError, match=rf"{said}.* model.3 {name}.*{name}.*LIF, CubaLIF, LI"):
            asker(network)


def test_training_for_the_chip_refuses_a_neuron_of_ones_own_at_its_start_in_one_sentence(few_digits, tmp_path):
    experiment = Experiment(runs.DIGITS, (Flatten(), Dense(10), Nameless()), Train(epochs=1, target="loihi"))

    with pytest.raises(SnnError) as caught:
        train(experiment, tmp_path / "run", quiet=True)

    said = "Nameless is none of the neurons of the chip: use IF, LIF, CubaLIF, LI there, or train.target=float."
    assert str(caught.value).endswith(said) and "model.2" in str(caught.value)
    assert not (tmp_path / "run").exists()
