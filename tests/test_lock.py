"""One process at a time trains a run, the others read; a dead one holds nothing."""

import errno
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import runs
from runs import cli, tiny, training

from snn_bp import Run, SnnError, train
from snn_bp.files.lock import holder, locked

few_digits, finished = runs.few_digits, runs.finished
HOLD = (
    "import sys, pathlib, time\nfrom snn_bp.files.lock import locked\nwith locked(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n    time.sleep(600)"
)


@pytest.fixture
def other(tmp_path):
    """Another process at work on `tmp_path`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_is_there_and_a_dead_one_holds_nothing(other, tmp_path):
    with pytest.raises(SnnError, match=f"process {other.pid} on .* since 20.* is at work on it"), locked(tmp_path):
        pytest.fail("it went in")
    assert str(other.pid) in (holder(tmp_path) or "")

    other.send_signal(signal.SIGKILL)
    other.wait()

    assert (tmp_path / "lock").exists() and holder(tmp_path) is None
    with locked(tmp_path):
        assert holder(tmp_path) is not None
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_locked_all_the_same(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)

    with locked(tmp_path):
        assert holder(tmp_path) == "another process"
    assert holder(tmp_path) is None


@pytest.mark.usefixtures("few_digits")
def test_nothing_writes_into_a_run_that_is_being_trained_and_what_reads_says_so(finished, tmp_path, capsys):
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    (run.path / "results.json").unlink()

    with run.locked():
        before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
        for refused in (
            lambda: training.resume(run.path, quiet=True),
            lambda: training.resume(run.path, quiet=True, restart=True),
            lambda: cli.clean(run.path),
        ):
            with pytest.raises(SnnError, match=r"is at work on it\. Nothing was changed"):
                refused()
        cli.evaluate(run.path, split="validation", checkpoint="best", as_json=True)
        assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before

    assert "is being trained by process" in capsys.readouterr().err
    assert training.resume(run.path, quiet=True).results() is not None


@pytest.mark.usefixtures("few_digits")
def test_simultaneous_starts_each_get_a_folder_of_their_own(tmp_path):
    together = threading.Barrier(3)
    made: list[Path] = []

    def begin() -> None:
        together.wait()
        with Run.claim(tmp_path / "runs" / "one", numbered=True) as path:
            made.append(path)
            Run.create(tiny(), path, command="", changes=())
            together.wait()

    threads = [threading.Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(path.name for path in made) == ["one", "one-2", "one-3"]


@pytest.mark.usefixtures("few_digits")
def test_a_folder_that_is_named_goes_to_one_of_two_starts(tmp_path):
    with Run.claim(tmp_path / "run"), pytest.raises(SnnError, match="at work on it"):
        train(tiny(epochs=1), tmp_path / "run", quiet=True)


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("step", ("provenance.json", "experiment.json"))
def test_a_start_that_dies_early_leaves_a_folder_that_the_next_one_takes(step, tmp_path, monkeypatch):
    run_module = sys.modules["snn_bp.runs.folder"]
    write = "write_object" if step == "provenance.json" else "write_json"
    real = getattr(run_module, write)

    def dying(file: Path, content: object) -> None:
        if file.name == step:
            (file.parent / f".{file.name}.0123.writing").write_bytes(b"{")
            raise InterruptedError
        real(file, content)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(run_module, write, dying)
        train(tiny(epochs=1), tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "checkpoints").is_dir()

    run = train(tiny(epochs=1), tmp_path / "run", quiet=True)

    assert run.results() is not None
    cli.clean(run.path)
    assert not run.leftovers()


@pytest.mark.usefixtures("few_digits")
def test_weights_load_where_the_recordings_are_not(finished, monkeypatch):
    def missing(*arguments: object, **named: object) -> None:
        raise SnnError("no recordings are here")

    wanted = finished.network().state_dict()
    monkeypatch.setattr(sys.modules["snn_bp.runs.folder"], "load", missing)

    network = Run(finished.path).network()

    assert runs.same_weights(network.state_dict(), wanted)
    with pytest.raises(SnnError, match="no recordings"):
        Run(finished.path).dataset()


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("became", ("moved", "removed", "replaced", "linked elsewhere"))
def test_nothing_is_written_in_the_place_of_a_run_that_was_moved_while_it_trained(became, finished, tmp_path):
    path, other = tmp_path / "run", shutil.copytree(finished.path, tmp_path / "other")
    before = {file: file.read_bytes() for file in other.rglob("*") if file.is_file()}

    with pytest.raises(SnnError, match=r"run: the folder was moved, removed or replaced .* `snn-bp resume` goes on"):
        for event in training.training(tiny(), path, quiet=True, save_seconds=0):
            if (event.epoch, event.batch) != (1, 2):
                continue
            shutil.rmtree(path) if became == "removed" else path.rename(tmp_path / "moved")
            if became == "replaced":
                other.rename(path)
            elif became == "linked elsewhere":
                path.symlink_to(other)

    now = {other / file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert now == (before if became in ("replaced", "linked elsewhere") else {})
    if became != "removed":
        runs.assert_same_run(training.resume(tmp_path / "moved", quiet=True), finished)
