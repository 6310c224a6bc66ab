"""Verilog of a run: exported, verified in a simulator, refused where something is not as export writes it."""

import errno
import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import runs
import torch

from export.test_verify import LOUD, cli, untrained
from snn_bp import LIF, BatchNorm, Dense, Experiment, Fixed, Flatten, Run, SnnError, Train
from snn_bp.files.folders import replace_folder
from snn_bp.reports.sections import exported
from snn_bp.trainer.loop import train
from snn_bp.verification.replayed import export, verify
from snn_bp.verification.result import Verification
from snn_bp.verification.simulators import Simulator, find_simulators, run_in, run_testbench, said_by
from snn_bp.verification.synthesis import Synthesis, taken
from snn_bp.verification.verilog import verify_verilog, write_circuit

verifying = importlib.import_module("snn_bp.verification.replayed")
few_digits = runs.few_digits
DATA = replace(runs.DIGITS, binary=True)
ZERO = LIF(beta=0.5, reset="zero")
SAID = """{first}layer 0: 12 compared, 0 different, 7 words of weights added
layer 1: 6 compared, {different} different, 5 words of weights added
output: {different} different
cycles: 2 recordings, 110 least, 230 in all, 120 most
{verdict}
"""
GOOD = SAID.format(different=0, first="", verdict="PASS")
FIRST = "layer 1: first difference: recording 1, step 2, neuron 0: potential 17 and spike 0, expected 18 and 0\n"
BAD = SAID.format(different=2, first=FIRST, verdict="FAIL")


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips where a program of Debian is not here."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not found; apt-get install it")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[Run]:
    model = (Flatten(), Dense(12), BatchNorm(), ZERO, Dense(10), BatchNorm(), ZERO)
    with runs.loading(runs.few):
        yield train(Experiment(DATA, model, Train(epochs=2, lr=5e-3, target=Fixed(weight_bits=6))),
                    tmp_path_factory.mktemp("runs") / "chip", quiet=True)  # fmt: skip


@pytest.fixture
def folder(run, tmp_path) -> Path:
    """The run's circuit, not verified."""
    export(run, tmp_path / "net.v", verification=False)
    return tmp_path / "net.v"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@needs("iverilog")
def test_the_circuit_of_a_run_is_verified(run, tmp_path):
    result = export(run, tmp_path / "net.v", samples=3, parallel=12)

    assert result is not None and result.holds, result
    assert result.accuracy.keys() == {"float", "quantised", "integer", "circuit"}
    assert result.accuracy["quantised"] == result.accuracy["integer"] == result.accuracy["circuit"]
    circuit = result.circuit
    assert (circuit["recordings"], circuit["row"], circuit["parallel"]) == (3, 2, 12)
    assert circuit["compared"] == 3 * 3 * (12 + 10) and result.compared == 2 * circuit["compared"]
    assert 0 < circuit["cycles"]["min"] <= circuit["cycles"]["mean"] <= circuit["cycles"]["max"]
    assert "3 recordings in iverilog" in str(result) and "No FPGA was tested" in str(result)
    assert json.loads((tmp_path / "net.v" / "network.json").read_text())["parallel"] == 12
    kept = json.loads((run.path / "export" / "net.v.json").read_text())
    assert kept["holds"] is True and kept["circuit"] == circuit
    rows = [row for table in exported(run).tables for row in table.rows if row[0] == "circuit"]
    assert [row[1] for row in rows] == circuit["says"]


@needs("iverilog")
def test_an_accuracy_of_fewer_recordings_than_the_others_says_so(run, folder, monkeypatch):
    monkeypatch.setattr(verifying, "verify_verilog", partial(verify_verilog, longest_s=0.0))

    result = verify(run, folder, samples=3)

    lines = {line.split()[1]: line for line in str(result).splitlines() if line.startswith("  accuracy")}
    assert lines["circuit"].endswith(", the first 1 of 3") and lines["integer"][-1].isdigit()
    rows = dict(row for table in exported(run).tables for row in table.rows if row[0].startswith("accuracy"))
    assert rows["accuracy, circuit"].endswith(", the first 1 of 3") and rows["accuracy, integer"][-1].isdigit()


@needs("iverilog")
def test_a_network_trained_in_floats_is_rounded_to_the_arithmetic_of_loihi(rounded, tmp_path):
    result = export(rounded, tmp_path / "net.v", samples=1)

    said = json.loads((tmp_path / "net.v" / "network.json").read_text())
    assert result is not None and (result.holds or str(result.difference).startswith("rounding")), result
    assert result.circuit["recordings"] == 1 and said["arithmetic"]["overflow"] == "wrap"


@needs("iverilog")
@pytest.mark.parametrize("target", ["float", "loihi", "fpga"])
@pytest.mark.parametrize("through", LOUD)
def test_no_spike_of_one_recording_reaches_the_next_one(through, target, tmp_path):
    model, weights = LOUD[through]
    run = untrained(*model, weights=weights, target=target)
    x = torch.zeros(6, 2, 1)

    write_circuit(run, "best", tmp_path / "net.v", x, parallel=8)
    result = verify_verilog(run, "best", tmp_path / "net.v", [(x, torch.zeros(2).long(), None)], simulator="iverilog")

    assert result.holds and not result.warnings, result
    assert all(result.spikes.values())


@needs("iverilog")
@pytest.mark.parametrize("file", ["weights_0.hex", "net.v", "network.json"])
def test_an_edited_folder_is_named_by_file_and_line_and_not_simulated(run, folder, file):
    text = (folder / file).read_text().splitlines()
    text[3] = text[3].replace("0", "1") + " "
    (folder / file).write_text("\n".join(text) + "\n")

    result = verify(run, folder, samples=2)

    assert not result.holds and result.circuit == {}
    assert f"does not hold the integers of {run.path}: {file}, line 4" in str(result.difference)


@needs("iverilog")
def test_a_folder_of_another_run_is_refused_and_a_missing_memory_named(run, folder, tmp_path, rounded):
    result = verify(rounded, folder, samples=2)
    (folder / "weights_1.hex").unlink()

    assert not result.holds and "name the run that the folder is of" in str(result.difference)
    assert "weights_1.hex is not there" in str(verify(run, folder, samples=2).difference)


@pytest.fixture(scope="module")
def rounded(tmp_path_factory) -> Iterator[Run]:
    with runs.loading(runs.few):
        experiment = Experiment(
            DATA, (Flatten(), Dense(10), BatchNorm(), ZERO), Train(epochs=1, target="float"), seed=3
        )
        yield train(experiment, tmp_path_factory.mktemp("runs") / "other", quiet=True)


@pytest.mark.parametrize("fault", ["result", "refusal", "disk"])
def test_what_is_refused_or_differs_leaves_nothing_and_an_older_folder_alone(fault, run, folder, monkeypatch):
    (folder / "README.md").write_text("older")
    before, beside = contents(folder), set(folder.parent.iterdir())
    for target in (folder, folder.with_name("new.v")):
        with monkeypatch.context() as patch:
            if fault == "result":
                patch.setattr(verifying, "find_simulators", lambda: [])
                patch.setattr(verifying, "_verified", lambda *_: Verification("", "", 0, {}, "it differs", 0))
                assert not export(run, target).holds  # type: ignore[union-attr]
            else:
                if fault == "refusal":
                    patch.setattr(type(run), "network", refused)
                else:
                    patch.setattr(os, "fsync", full)
                with pytest.raises(SnnError, match=r"refused here|cannot be written \(No space left"):
                    export(run, target, verification=False)

        assert contents(folder) == before
        assert set(folder.parent.iterdir()) == beside


def refused(*_):
    raise SnnError("refused here")


def full(_):
    raise OSError(28, "No space left on device")


def test_a_new_folder_takes_the_place_of_the_old_one_whole(run, folder):
    (folder / "net.v").write_text("older")
    (folder / "build").mkdir()

    export(run, folder, verification=False, parallel=2)

    assert "older" not in (folder / "net.v").read_text() and not (folder / "build").exists()
    assert {"net.v", "testbench.v", "vectors/input.hex", "weights_0.hex"} <= contents(folder).keys()
    assert [path.name for path in folder.parent.iterdir()] == ["net.v"]


def test_what_is_no_folder_of_an_export_is_not_replaced(run, folder, tmp_path):
    (tmp_path / "file.v").write_text("module")
    (tmp_path / "link.v").symlink_to(folder)
    (tmp_path / "own.v").mkdir()
    (tmp_path / "number.v").mkdir()
    (tmp_path / "number.v" / "network.json").write_text('{"files": 3}')
    (folder / "board.pcf").write_text("set_io clk 35")
    reasons = {
        "file.v": "should be a folder, found a file", "link.v": "should be a folder, found a link",
        "own.v": "network.json is not there", "net.v": "board.pcf in it is not of an export and would be lost",
        "none/x.v": "there is no folder", "number.v": "network.json in it is not of an export",
    }  # fmt: skip

    for name, reason in reasons.items():
        with pytest.raises(SnnError, match=reason):
            export(run, tmp_path / name, verification=False)
    assert (folder / "board.pcf").exists() and (tmp_path / "file.v").read_text() == "module"
    for name in ("file.v", "own.v", "none.v"):
        with pytest.raises(SnnError, match=name):
            verify(run, tmp_path / name)


def test_options_of_another_format_and_odd_values_are_refused(run, folder, tmp_path):
    with pytest.raises(SnnError, match=r"--parallel is for \.v files"):
        export(run, tmp_path / "x.net", parallel=4)
    with pytest.raises(SnnError, match=r"--step is for \.nir files"):
        export(run, tmp_path / "x.v", step_s=1e-3)
    with pytest.raises(SnnError, match=r"--simulator is for \.v files"):
        verify(run, tmp_path / "x.net", simulator="iverilog")
    with pytest.raises(SnnError, match=r"reads \.net files only"):
        verify(run, folder, lava=1)
    with pytest.raises(SnnError, match=r"simulator='vcs' is not known.*iverilog"):
        verify(run, folder, simulator="vcs")  # type: ignore[arg-type]
    with pytest.raises(SnnError, match=r"synthesis='virtex' is not known.*ecp5"):
        verify(run, folder, synthesis="virtex")  # type: ignore[arg-type]
    for parallel in (0, 65, 2.5, "8"):
        with pytest.raises(SnnError, match="parallel="):
            export(run, tmp_path / "x.v", parallel=parallel, verification=False)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["net.v"]


@needs("iverilog")
def test_the_command_line_exports_verifies_and_fails_where_the_folder_does(run, tmp_path, capsys, monkeypatch):
    at, folder = str(run.path), tmp_path / "net.v"

    first = cli(["export", at, str(folder), "--samples", "1", "--parallel", "16"], capsys, monkeypatch)
    second = cli(
        ["verify", at, str(folder), "--samples", "1", "--simulator", "iverilog", "--json"], capsys, monkeypatch
    )
    (folder / "weights_0.hex").write_text("00\n")
    third = cli(["verify", at, str(folder), "--samples", "1"], capsys, monkeypatch)

    assert first[0] == 0 and "1 recording in iverilog" in first[1], first
    assert second[0] == 0 and json.loads(second[1])["circuit"]["parallel"] == 16
    assert third[0] == 2 and "weights_0.hex" in third[2] and "Traceback" not in third[2]
    assert cli(["export", at, str(folder), "--parallel", "0"], capsys, monkeypatch)[0] == 2


def test_without_a_simulator_nothing_is_written_and_the_package_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SnnError, match=r"neither iverilog nor verilator\. On Debian: apt-get install iverilog"):
        export(run, tmp_path / "net.v")
    assert list(tmp_path.iterdir()) == []
    for name in ("iverilog", "verilator"):
        with pytest.raises(SnnError, match=rf"simulator='{name}': {name} and .*apt-get install {name}"):
            find_simulators(name)
    with pytest.raises(SnnError, match=r"yosys cannot be started\. On Debian: apt-get install yosys"):
        run_in(tmp_path, ["yosys"], timeout_s=1)
    export(run, tmp_path / "net.v", verification=False)
    assert (tmp_path / "net.v" / "net.v").exists()


def test_what_a_testbench_says_is_read():
    good, bad = said_by(GOOD), said_by(BAD)

    assert (good.recordings, good.cycles, good.compared) == (2, (110, 230, 120), (12, 6))
    assert (good.different, good.words, good.in_words(["a", "b"])) == ((0, 0), (7, 5), None)
    assert bad.in_words(["a", "b"], first=64) == (
        "the circuit, b, recording 65, step 2, neuron 0: potential 17 and spike 0, expected 18 and 0"
    )


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ("", r"did not come to its end\. It said: nothing"),
        (GOOD.replace("PASS", ""), "did not come to its end"),
        (GOOD.replace("PASS", "FAIL"), "failed"),
        (BAD.replace("FAIL", "PASS"), "failed"),
        (GOOD.replace("cycles: 2", "cycles: 0"), "failed"),
        ("net.v:3: syntax error", "syntax error"),
    ],
    ids=range(6),
)
def test_a_testbench_that_breaks_off_or_contradicts_itself_is_no_verification(said, match):
    with pytest.raises(SnnError, match=match):
        said_by(said)


def test_a_program_that_hangs_or_fails_is_one_error(tmp_path):
    shell = ["sh", "-c"]  # which begins within a moment

    with pytest.raises(SnnError, match=r"did not end within 2 s, and was ended\. It said: begun"):
        run_in(tmp_path, [*shell, "echo begun; sleep 600"], timeout_s=2)
    with pytest.raises(SnnError, match=r"failed with code 3\. It said: why"):
        run_in(tmp_path, [*shell, "echo why; exit 3"], timeout_s=60)


def test_a_program_that_had_no_room_is_told_so_and_where_there_may_be_some(tmp_path, monkeypatch):
    vvp = tmp_path / "bin" / "vvp"
    vvp.parent.mkdir()
    vvp.write_text("#!/bin/sh\necho syntax error in $TMPDIR\n")
    vvp.chmod(0o755)
    monkeypatch.setenv("PATH", f"{vvp.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    fails = [lambda: run_in(tmp_path, [sys.executable, "-c", "raise SystemExit(3)"], timeout_s=60),
             lambda: run_testbench(Simulator("iverilog", "12"), tmp_path, timeout_s=60)]  # fmt: skip

    for fail, said in zip(fails, ("with code 3", f"to its end. It said: syntax error in {tmp_path}"), strict=True):
        with pytest.raises(SnnError, match=rf"1\.0 MB are left there.*TMPDIR names a folder.*{said}") as failed:
            fail()
        assert failed.value.__cause__.errno == errno.ENOSPC  # so that a command ends with code 3


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path, monkeypatch):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    rename, calls = os.rename, []

    def second_fails(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(13, "Permission denied")
        rename(*paths)

    monkeypatch.setattr(os, "rename", second_fails)

    with pytest.raises(SnnError, match="Permission denied"):
        replace_folder(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "old" / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_a_folder_says_why_its_first_file_cannot_be_copied(tmp_path, monkeypatch):
    def full(*paths):
        raise shutil.Error([("new/a", "old/a", "[Errno 28] No space left on device"), ("new/b", "old/b", "another")])

    monkeypatch.setattr(shutil, "copytree", full)

    with pytest.raises(SnnError, match=r"it cannot be written \(\[Errno 28\] No space left on device\)"):
        replace_folder(tmp_path / "old", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_yosys_is_said_before_anything_is_simulated(run, folder, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "yosys" else program)

    with pytest.raises(SnnError, match=r"yosys cannot be started\. On Debian: apt-get install yosys"):
        verify(run, folder, samples=1, synthesis="ecp5")


def test_formats_without_the_arithmetic_of_a_circuit_name_the_one_that_has_it(run, tmp_path):
    for name in ("a.nir", "a.net"):
        with pytest.raises(SnnError, match=r"\.v\b"):
            export(run, tmp_path / name)


def test_cells_are_counted_and_broken_limits_named():
    ice = taken("ice40", {"SB_LUT4": 6000, "SB_DFFE": 3, "SB_DFFSR": 4, "SB_CARRY": 9, "SB_RAM40_4K": 31})
    xc7 = taken("xc7", {"LUT6": 5, "LUT2": 1, "FDRE": 7, "RAMB36E1": 1, "RAMB18E1": 3, "RAM32M": 2, "DSP48E1": 1})

    assert ice == {"luts": 6000, "flip_flops": 7, "block_rams": 31, "multipliers": 0}
    assert xc7 == {"luts": 14, "flip_flops": 7, "block_rams": 2.5, "multipliers": 1}
    said = str(Synthesis("ice40", yosys="0.23", **ice))
    assert "does not fit an iCE40 UP5K: 6,000 LUTs of 5,280 and 31 block RAMs of 30" in said
    assert "fits an Artix-7 35T" in str(Synthesis("xc7", yosys="0.23", **xc7))
    with pytest.raises(SnnError, match="RAM512X1S are not known"):
        taken("xc7", {"RAM512X1S": 1})


@pytest.mark.slow
@needs("iverilog", "verilator", "yosys")
@pytest.mark.parametrize("synthesis", ["ice40", "ecp5", "xc7"])
def test_both_simulators_and_yosys_take_the_circuit(run, folder, synthesis):
    result = verify(run, folder, samples=40, synthesis=synthesis)

    assert result.holds, result
    assert result.circuit["synthesis"]["luts"] > 0 and "LUTs" in str(result)
    assert verify(run, folder, samples=5, simulator="verilator").holds


@pytest.mark.slow
@needs("make", "yosys")
@pytest.mark.parametrize("family", ["ice40", "ecp5", "xc7"])
def test_the_makefile_of_the_folder_synthesises(folder, family, tmp_path):
    shutil.copytree(folder, tmp_path / "net")

    run_in(tmp_path / "net", ["make", "-s", family], timeout_s=600)

    assert "LUT" in (tmp_path / "net" / "build" / f"{family}.txt").read_text()
