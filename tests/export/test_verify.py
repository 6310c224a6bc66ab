"""`export` and `verify`: they agree on what was written, and names what differs where something was changed."""

import importlib
import json
import os
import runpy
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import runs
import torch

from snn_bp import (
    IF,
    LI,
    LIF,
    BatchNorm,
    CubaLIF,
    Data,
    Delay,
    Dense,
    Experiment,
    Flatten,
    Network,
    OnChip,
    Pool,
    Recurrent,
    Run,
    SnnError,
    Train,
    evaluate,
)
from snn_bp.chip.graph import same
from snn_bp.chip.lava_client import client_missing
from snn_bp.chip.loader import loader_path
from snn_bp.chip.netx_read import read_netx
from snn_bp.chip.netx_write import write_netx
from snn_bp.chip.quantize import quantize
from snn_bp.chip.replay import simulate
from snn_bp.cli import app, guarded
from snn_bp.exchange.nir_write import write_nir
from snn_bp.files.hdf5 import read_hdf5
from snn_bp.model.targets import Targets
from snn_bp.trainer.loop import train
from snn_bp.verification.netx import verify_netx
from snn_bp.verification.replayed import export, verify
from snn_bp.verification.result import Verification, first_difference
from snn_bp.verification.stages import apart

verifying = importlib.import_module("snn_bp.verification.replayed")

few_digits = runs.few_digits

ZERO = LIF(beta=0.7, reset="zero")
MODEL = (Flatten(), Dense(12), BatchNorm(), ZERO, Dense(10), BatchNorm(), ZERO)


@pytest.fixture(scope="module", params=["float", "loihi"])
def run(request, tmp_path_factory) -> Run:
    experiment = Experiment(runs.DIGITS, MODEL, Train(epochs=2, lr=5e-3, target=request.param))
    with runs.loading(runs.few):
        return train(experiment, tmp_path_factory.mktemp("runs") / request.param, quiet=True)


def test_a_test_split_that_was_left_alone_is_not_replayed(few_digits, tmp_path):
    run = train(Experiment(runs.DIGITS, MODEL, Train(epochs=1, test="never")), tmp_path / "run", quiet=True)

    found = [export(run, tmp_path / "x.nir", samples=8), verify(run, tmp_path / "x.nir", samples=8)]
    asked = verify(run, tmp_path / "x.nir", samples=8, split="train")

    assert [each.split for each in (*found, asked) if each] == ["validation", "validation", "train"]


def test_the_file_of_a_run_is_verified(run, tmp_path):
    result = export(run, tmp_path / "x.net", samples=40)

    assert result is not None and result.holds and result.samples == 40
    assert result.accuracy["quantised"] == result.accuracy["integer"]
    assert result.compared == 40 * 3 * (12 + 10)
    assert (result.row, result.pause) == (8, 0)
    assert json.loads((run.path / "export" / "x.net.json").read_text())["holds"] is True
    assert (run.path / "export" / "x.net.png").read_bytes().startswith(b"\x89PNG")
    assert sum(result.weights[run.network().name(3)].values()) == 12 * np.prod(run.dataset().shape)


def test_the_network_is_the_graph_of_its_file(run, tmp_path, coin):
    export(run, tmp_path / "x.net", verification=False)
    graph, network = read_netx(tmp_path / "x.net"), run.network()
    x = coin(9, 4, *network.input_shape, probability=0.2) * 3

    replay = simulate(graph, x)

    assert same(graph, quantize(network, input_bits=8)) is None
    if network.floats is not network:
        assert np.array_equal(replay.out[graph.latency :], network(x).detach().numpy())
    assert replay.out.any()


def test_a_changed_weight_is_named(run, tmp_path):
    export(run, tmp_path / "x.net", verification=False)
    with h5py.File(tmp_path / "x.net", "r+") as file:
        weight = next(layer for layer in file["layer"].values() if "weight" in layer)["weight"]
        weight[0, 0] = 1 - weight[0, 0]

    result = verify(run, tmp_path / "x.net", samples=10)

    assert not result.holds
    assert (
        "weight [0, 0]: " in str(result.difference) and "(1 of" in str(result.difference) and "DIFFERENT" in str(result)
    )


def test_a_file_of_another_network_is_refused(run, tmp_path):
    other = Network((Flatten(), Dense(5), LIF(beta=0.5, reset="zero")), run.network().input_shape)
    write_netx(quantize(other, input_bits=8), tmp_path / "x.net")

    with pytest.raises(SnnError, match=r"does not hold the integers of .*: 2 populations and 1\. Export the run again"):
        verify(run, tmp_path / "x.net", samples=5)

    for shape, outputs in (((2, 4, 4), 10), (run.network().input_shape, 5)):
        write_nir(Network((Flatten(), Dense(outputs), LIF(beta=0.5, reset="zero")), shape).eval(), tmp_path / "x.nir")
        with pytest.raises(SnnError, match=rf"x\.nir: it makes \[{outputs}\] of .* Name the run that the file is of"):
            verify(run, tmp_path / "x.nir", samples=5)


def test_a_float_network_is_verified_in_nir(run, tmp_path):
    if run.experiment.train.target == "loihi":
        with pytest.raises(SnnError, match=r"integers.*net file"):
            export(run, tmp_path / "x.nir")
        return

    result = export(run, tmp_path / "x.nir", samples=40)

    assert result is not None and result.holds
    assert len(set(result.accuracy.values())) == 1


def test_the_command_line_takes_the_step_and_the_version_of_nir(run, few_digits, tmp_path, capsys, monkeypatch):
    if run.experiment.train.target == "loihi":
        return
    at, file, given = str(run.path), str(tmp_path / "x.nir"), ["--samples", "9", "--step", "1e-3"]

    code, said, _ = cli(["export", at, file, *given, "--compatible", "1.0.4"], capsys, monkeypatch)

    assert code == 0 and "by NIR 1.0.4 it is v <- v - v_threshold" in said
    assert not [name for name in read_hdf5(file) if name.endswith("v_reset")]
    assert json.loads((tmp_path / "x.nir.json").read_text())["step_s"] == 1e-3
    assert cli(["verify", at, file, *given], capsys, monkeypatch)[0] == 0
    assert cli(["export", at, file, "--compatible", "1.0.5"], capsys, monkeypatch)[0] == 2
    with pytest.raises(SnnError, match=r"written for steps of 0\.001 s"):
        verify(run, tmp_path / "x.nir", samples=9, step_s=1.0)
    for option in ({"step_s": 1e-3}, {"compatible": "1.0.4"}):
        with pytest.raises(SnnError, match=r"is for \.nir files"):
            export(run, tmp_path / "x.net", **option)
    assert not (tmp_path / "x.net").exists()


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


def untrained(*model, target="float", weights=None, shape=(1,), data=runs.DIGITS) -> Run:
    """What of a run `verify_netx` looks at, around a network that was never trained."""
    experiment = Experiment(replace(data, binary=True), model, Train(target=target), seed=1)

    def network(checkpoint: str = "best") -> Network:
        built = experiment.network(shape).eval()
        with torch.no_grad():
            for name, value in (weights or {}).items():
                built.get_parameter(name).fill_(value)
        return built

    dataset = SimpleNamespace(targets=Targets("class", ("a", "b")))
    run = object.__new__(Run)
    vars(run).update(
        path=Path("run"), experiment=experiment, network=network, shape=lambda: shape, dataset=lambda: dataset
    )
    return run


LOUD = {
    "delay": (
        (Dense(1), IF(reset="zero"), Delay(3), Dense(1, bias=False), IF(reset="zero")),
        {"layers.0.weight": 1, "layers.0.bias": 1.5, "layers.3.weight": 1.5},
    ),
    "recurrence": (
        (Dense(1), Recurrent(IF(reset="zero"))),
        {"layers.0.weight": 1, "layers.0.bias": 1.2, "layers.1.recurrence.weight": -1},
    ),
}


@pytest.mark.parametrize("target", ["float", "loihi"])
@pytest.mark.parametrize("through", LOUD)
def test_spikes_from_before_the_recording_are_differences(through, target, tmp_path):
    model, weights = LOUD[through]
    run = untrained(*model, weights=weights, target=target)
    with pytest.warns(UserWarning, match="fires without input"):
        graph = quantize(run.network())
    write_netx(graph, tmp_path / "x.net")

    with pytest.warns(UserWarning, match="fires without input"):
        result = verify_netx(run, "best", tmp_path / "x.net", [(torch.zeros(6, 2, 1), torch.zeros(2).long(), None)])

    assert not result.holds
    assert "in the file" in str(result.difference) and "fires without input" in str(result.difference)


def test_what_an_outlier_rounds_to_zero_is_counted_warned_of_and_an_error():
    run = untrained(Dense(4, bias=False), ZERO, weights={"layers.0.weight": 0.3}, shape=(6,))
    build = run.network

    def spoilt(checkpoint: str = "best") -> Network:
        network = build()
        with torch.no_grad():
            network.layers[0].weight[0, 0] = 100.0  # type: ignore[index, operator]
        return network

    run.network = spoilt
    x = torch.ones(10, 2, 6)
    x[:, :, 0] = 0

    with pytest.warns(UserWarning, match="23 of 24 weights round to 0: the largest, 100"):
        graph = quantize(spoilt())

    assert graph.populations[0].weight.astype(bool).sum() == 1
    with tempfile.TemporaryDirectory() as folder:
        write_netx(graph, Path(folder) / "x.net")
        with pytest.warns(UserWarning, match="round to 0"):
            result = verify_netx(run, "best", Path(folder) / "x.net", [(x, torch.zeros(2).long(), None)])
    name = run.network().name(1)
    assert result.lost == {name: 23}
    assert f"rounding: {name} sends 40.0 spikes" in str(result.difference)
    assert f"warning: {name}: 23 of 24" in str(result)


def test_sums_beyond_16_bits_are_counted_and_warned_of(tmp_path):
    run = untrained(Dense(1, bias=False), ZERO, weights={"layers.0.weight": 0.01}, target="loihi", shape=(600,))
    write_netx(quantize(run.network()), tmp_path / "x.net")

    result = verify_netx(run, "best", tmp_path / "x.net", [(torch.ones(3, 2, 600), torch.zeros(2).long(), None)])

    assert result.holds
    name = run.network().name(1)
    assert result.overflows == {name: {"sums": 6, "wraps": 0, "saturations": 0}}
    assert f"warning: {name}: 6 sums of weights beyond 16 bits" in str(result)


def test_floats_and_whole_numbers_may_part_by_rounding_alone():
    spikes = {"a": 100.0, "b": 0.4}

    assert apart(1, 8, spikes, {"a": 60.0, "b": 0.0}) is None
    assert apart(10, 100, spikes, {"a": 199.0, "b": 0.9}) is None
    assert "a sends 100.0 spikes" in str(apart(0, 100, spikes, {"a": 0.0, "b": 0.4}))
    assert "b sends 0.4 spikes" in str(apart(0, 100, spikes, {"a": 100.0, "b": 3.0}))
    assert "11 of 100 recordings" in str(apart(11, 100, spikes, spikes))


@pytest.mark.parametrize("name", ["x.net", "x.nir"])
def test_what_is_refused_or_not_proven_leaves_no_file_and_an_older_one_alone(name, run, tmp_path, monkeypatch):
    if name == "x.nir" and run.experiment.train.target == "loihi":
        return
    file = tmp_path / name
    file.write_text("older")

    for fault in ("result", "refusal"):
        with monkeypatch.context() as patch:
            if fault == "result":
                patch.setattr(verifying, "_verified", lambda *_: Verification("", "", 0, {}, "it differs", 0))
                assert not export(run, file).holds  # type: ignore[union-attr]
            else:
                patch.setattr(type(run), "network", refuse)
                with pytest.raises(SnnError, match="refused here"):
                    export(run, file)
        assert file.read_text() == "older"
        assert [path.name for path in tmp_path.iterdir()] == [name]


def refuse(*_):
    raise SnnError("refused here")


def test_a_network_that_ends_without_neurons_is_one_error_and_no_file(tmp_path):
    run = untrained(Dense(4), ZERO, Dense(3), shape=(6,))

    with pytest.raises(SnnError, match="End the model with a neuron"):
        export(run, tmp_path / "x.net", verification=False)
    assert list(tmp_path.iterdir()) == []
    export(run, tmp_path / "x.nir", verification=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.nir", "x.nir.json"]


def test_evaluate_and_the_proof_count_alike(run, tmp_path):
    with runs.loading(runs.few):
        result = export(run, tmp_path / "x.net", samples=50)
        figures = evaluate(run, "test")

    assert result is not None and result.samples == figures.samples == 50
    if run.experiment.train.target == "loihi":
        assert (result.spikes, result.operations) == (figures.spikes, figures.operations)
    else:
        assert result.spikes.keys() == figures.spikes.keys() and result.rounding["spikes"] == figures.spikes


@pytest.mark.parametrize("name", ['a"""b.net', "a\\x.net", os.fsdecode(b"b\xffd.net")])
def test_the_loader_is_a_program_whatever_the_name_of_the_file(run, tmp_path, name):
    export(run, tmp_path / name, verification=False)

    script = runpy.run_path(str(loader_path(tmp_path / name)))

    assert script["FILE"] == name


def test_the_loader_beside_the_file_says_what_lava_does_not_know(run, tmp_path):
    result = export(run, tmp_path / "chip.net", samples=5)

    script = runpy.run_path(str(tmp_path / "chip.load.py"))

    graph = read_netx(tmp_path / "chip.net")
    assert (script["FILE"], script["INPUT_SHAPE"], script["INPUT_BITS"]) == ("chip.net", graph.input_shape, 8)
    assert (script["CLEARED"], script["PAUSE"], script["READOUT"]) == (True, 0, False)
    call = "netx.hdf5.Network(net_config='chip.net', input_message_bits=8, reset_interval=3, reset_offset=1)"
    assert result is not None and result.load == call and call in str(result)
    assert "channel, row, column" in script["__doc__"] and "python chip.load.py RECORDINGS.npy" in script["__doc__"]
    with pytest.raises(SystemExit, match=r"whole numbers in 0\.\.255"):
        script["checked"](np.full((2, 3, *graph.input_shape), 256))
    with pytest.raises(SystemExit, match=r"found \[3, 5\]"):
        script["checked"](np.zeros((3, 5)))


def test_another_script_beside_the_file_is_not_run(run, tmp_path, monkeypatch):
    export(run, tmp_path / "x.net", verification=False)
    (tmp_path / "x.load.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setenv("SNN_BP_LAVA_PYTHON", sys.executable)

    with pytest.raises(SnnError, match="it is not the script that export writes"):
        verify(run, tmp_path / "x.net", samples=5, lava=1)

    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_lavas_client_runs_recordings_in_a_row_by_the_script_beside_the_file(run, tmp_path):
    missing = client_missing()
    if missing:
        pytest.skip(missing)
    export(run, tmp_path / "x.net", samples=8)

    result = verify(run, tmp_path / "x.net", samples=8, lava=8)

    assert result.holds and "8 recordings in a row are equal" in str(result.client)


def test_a_bias_behind_a_synaptic_current_is_refused_after_training():
    network = Network((Dense(3), BatchNorm(), CubaLIF(alpha=0.5, beta=0.5, reset="zero")), (4,)).eval()
    with torch.no_grad():
        network.layers[1].bias += 0.3  # type: ignore[operator]

    with pytest.raises(SnnError, match=r'goes to the membrane.*target="loihi"'):
        quantize(network)


def test_a_readout_gives_potentials(coin):
    network = OnChip(Network((Dense(6), ZERO, Dense(3), LI(beta=0.8)), (9,), seed=1)).eval()
    graph, x = quantize(network), coin(8, 5, 9, probability=0.5)

    replay = simulate(graph, x)

    scale = torch.as_tensor(replay.out[graph.latency :]).float() / network(x)
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

    assert first[0] == 0 and "all 1,320 outputs of neurons are equal, 8 recordings in a row" in first[1]
    assert second[0] == 0 and json.loads(second[1])["holds"] is True
    assert third[0] == 2 and "threshold" in third[2] and "Traceback" not in third[2]


def test_counts_need_graded_spikes_and_binary_data_does_not(run, tmp_path):
    counted = export(run, tmp_path / "x.net", samples=5)

    assert counted is not None and "binary" in counted.chips["loihi1"] and "binary" not in counted.chips["loihi2"]
    assert read_netx(tmp_path / "x.net").input_bits == 8
    assert quantize(run.network()).input_bits == 0
    assert replace(run.experiment.data, binary=True) != Data("digits")
