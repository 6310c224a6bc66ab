"""`export` and `verify`: the proof holds for what was written, and names what differs where something was changed."""

import json
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import runs
import torch

from snn_bp import LI, LIF, BatchNorm, CubaLIF, Data, Dense, Experiment, Flatten, Network, Pool, Run, SnnError, Train
from snn_bp.cli import app, guarded
from snn_bp.export.graph import same
from snn_bp.export.lava_read import read_netx
from snn_bp.export.quantize import quantize
from snn_bp.export.simulate import simulate
from snn_bp.export.verify import export, first_difference, verify
from snn_bp.train import train

ZERO = LIF(beta=0.7, reset="zero")
MODEL = (Flatten(), Dense(12), BatchNorm(), ZERO, Dense(10), BatchNorm(), ZERO)


@pytest.fixture(scope="module", params=["float", "loihi"])
def run(request, tmp_path_factory) -> Run:
    experiment = Experiment(runs.DIGITS, MODEL, Train(epochs=2, lr=5e-3, target=request.param))
    with runs.loading(runs.few):
        return train(experiment, tmp_path_factory.mktemp("runs") / request.param, quiet=True)


def test_the_file_of_a_run_is_proven(run, tmp_path):
    proof = export(run, tmp_path / "x.net", samples=40)

    assert proof is not None and proof.holds and proof.samples == 40
    assert proof.accuracy["quantised"] == proof.accuracy["integer"]
    assert proof.compared == 40 * (3 + 2) * (12 + 10)
    assert json.loads((run.path / "export" / "x.net.json").read_text())["holds"] is True
    assert (run.path / "export" / "x.net.png").read_bytes().startswith(b"\x89PNG")
    assert sum(proof.weights["layer 3 (LIF)"].values()) == 12 * np.prod(run.dataset().shape)


def test_the_network_is_the_graph_of_its_file(run, tmp_path, coin):
    export(run, tmp_path / "x.net", proof=False)
    graph, network = read_netx(tmp_path / "x.net"), run.network()
    x = coin(9, 4, *network.input_shape, probability=0.2) * 3

    replay = simulate(graph, x)

    assert same(graph, quantize(network, input_bits=8)) is None
    if network.target == "loihi":
        assert np.array_equal(replay.out, network(x).detach().numpy())
    assert replay.out.any()


def test_a_changed_weight_is_named(run, tmp_path):
    export(run, tmp_path / "x.net", proof=False)
    with h5py.File(tmp_path / "x.net", "r+") as file:
        weight = next(layer for layer in file["layer"].values() if "weight" in layer)["weight"]
        weight[0, 0] = 1 - weight[0, 0]

    proof = verify(run, tmp_path / "x.net", samples=10)

    assert not proof.holds
    assert "weight [0, 0]: " in str(proof.difference) and "(1 of" in str(proof.difference) and "DIFFERENT" in str(proof)


def test_a_float_network_is_proven_in_nir(run, tmp_path):
    if run.experiment.train.target == "loihi":
        with pytest.raises(SnnError, match=r"whole numbers.*net file"):
            export(run, tmp_path / "x.nir")
        return

    proof = export(run, tmp_path / "x.nir", samples=40)

    assert proof is not None and proof.holds
    assert len(set(proof.accuracy.values())) == 1


def test_first_difference_names_step_neuron_and_recording():
    mine = np.zeros((4, 3, 2, 2))
    theirs = mine.copy()
    theirs[2, 1, 0, 1] = theirs[3, 0, 0, 0] = 1

    said = first_difference(mine, theirs, layer="layer 3 (LIF)", first=64)

    assert (
        said == "layer 3 (LIF), step 2, neuron (0, 1), recording 65: 0 in the file, 1 in the network (2 of 48 differ)"
    )
    assert first_difference(mine, mine, layer="x") is None


def test_other_endings_and_empty_splits_are_refused(run, tmp_path):
    with pytest.raises(SnnError, match=r"\.net.*\.nir"):
        export(run, tmp_path / "x.onnx")
    with pytest.raises(SnnError, match="samples"):
        verify(run, tmp_path / "x.net", samples=0)
    with pytest.raises(SnnError, match="split='nothing' is not known"):
        verify(run, tmp_path / "x.net", split="nothing")
    with pytest.raises(SnnError, match=r"x\.net"):
        verify(run, tmp_path / "x.net")


def test_a_bias_behind_a_synaptic_current_is_refused_after_training():
    network = Network((Dense(3), BatchNorm(), CubaLIF(alpha=0.5, beta=0.5, reset="zero")), (4,)).eval()
    with torch.no_grad():
        network.layers[1].bias += 0.3  # type: ignore[operator]

    with pytest.raises(SnnError, match=r'goes to the membrane.*target="loihi"'):
        quantize(network)


def test_a_readout_gives_potentials(coin):
    network = Network((Dense(6), ZERO, Dense(3), LI(beta=0.8)), (9,), target="loihi", seed=1).eval()
    graph, x = quantize(network), coin(8, 5, 9, probability=0.5)

    replay = simulate(graph, x)

    scale = torch.as_tensor(replay.out).float() / network(x)
    assert graph.populations[-1].readout and graph.populations[-1].threshold == 131071
    assert torch.allclose(scale[scale.isfinite()], scale[scale.isfinite()].median(), rtol=1e-4)


def test_maximum_pooling_is_refused_by_name(tmp_path):
    network = Network((Pool(2, kind="max"), Flatten(), Dense(3), ZERO), (1, 4, 4))

    with pytest.raises(SnnError, match="maximum"):
        quantize(network)


def cli(arguments: list[str], capsys, monkeypatch) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["snn-bp", *arguments])
    code = 0
    try:
        guarded(app, arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


def test_the_command_line_exports_proves_and_fails_where_the_proof_does(run, tmp_path, capsys, monkeypatch):
    file = str(tmp_path / "x.net")

    with runs.loading(runs.few):
        first = cli(["export", str(run.path), file, "--samples", "20"], capsys, monkeypatch)
        second = cli(["verify", str(run.path), file, "--samples", "20", "--json"], capsys, monkeypatch)
        with h5py.File(file, "r+") as content:
            layers = [layer for layer in content["layer"].values() if "neuron" in layer]
            layers[0]["neuron/vThMant"][...] += 1
        third = cli(["verify", str(run.path), file, "--samples", "20"], capsys, monkeypatch)

    assert first[0] == 0 and "all 2,200 outputs of neurons are equal" in first[1]
    assert second[0] == 0 and json.loads(second[1])["holds"] is True
    assert third[0] == 2 and "threshold" in third[2] and "Traceback" not in third[2]


def test_counts_need_graded_spikes_and_binary_data_does_not(run, tmp_path):
    counted = export(run, tmp_path / "x.net", samples=5)

    assert counted is not None and "binary" in counted.chips["loihi1"] and "binary" not in counted.chips["loihi2"]
    assert read_netx(tmp_path / "x.net").input_bits == 8
    assert quantize(run.network()).input_bits == 0
    assert replace(run.experiment.data, binary=True) != Data("digits")
