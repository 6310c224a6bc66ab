"""The command line: what it prints, what it leaves, and one line for everything that goes wrong."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from runs import assert_same_run, cli, damage, json_of, tiny, training, without_phases

from snn_bp import Dense, Run, main, train
from snn_bp.files import write_json, write_object
from snn_bp.runs.experiment import to_json

few_digits, finished = runs.few_digits, runs.finished
pytestmark = pytest.mark.usefixtures("few_digits")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Run a command line in an empty folder; gives its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("snn_bp.runtime.status.LONG", 3600.0)  # no phase is said, however slow the machine is

    def run(*arguments: Any) -> tuple[int, str, str]:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["snn-bp", *words])
        capsys.readouterr()
        try:
            cli.guarded(cli.app, words)
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def file(tmp_path) -> Path:
    """An experiment as a Python file."""
    path = tmp_path / "small.py"
    path.write_text(f"from snn_bp import *\nexperiment = {tiny()!r}\n")
    return path


def assert_fails(outcome: tuple[int, str, str], *told: str) -> None:
    """Raise unless the command failed with one line that holds every text in `told`."""
    code, _, errors = outcome
    assert code != 0
    assert errors.startswith("error: ") and errors.count("\n") == 1 and "Traceback" not in errors, errors
    for text in told:
        assert text in errors


# What works


def test_train_is_what_the_function_does_and_names_its_folder(call, file, finished):
    code, printed, errors = call("train", file)

    assert code == 0 and not errors
    assert printed.splitlines()[0] == "run folder runs/small" and "test accuracy" in printed.splitlines()[-2]
    assert_same_run(Run("runs/small"), finished)
    assert json_of(Path("runs/small/provenance.json"))["command"] == f"snn-bp train {file}"


def test_a_second_run_takes_the_next_free_number_and_says_so(call, file):
    for number in ("", "-2"):
        _, printed, _ = call("train", file, "train.epochs=1")
        assert f"run folder runs/small{number}\n" in printed

    assert "runs/small holds a run already; `snn-bp resume runs/small`" in printed


def test_an_override_is_printed_trained_and_saved(call, file):
    code, printed, _ = call("train", file, "train.epochs=1", "model.1=Dense(7)", "--out", "here")

    run = Run("here")
    said = ["train.epochs=1 (was 2)", f"model.1={Dense(7)!r} (was {tiny().model[1]!r})"]
    assert code == 0 and printed.splitlines()[:2] == said
    assert json_of(run.path / "provenance.json")["changes"] == said
    assert run.experiment.train.epochs == 1 and run.load("best").weights["layers.1.weight"].shape[0] == 7


def test_the_experiment_of_a_run_folder_trains_again(call, finished):
    code, _, _ = call("train", finished.path / "experiment.json", "--out", "file")
    assert code == 0
    code, _, _ = call("train", finished.path, "--out", "folder")
    assert code == 0

    assert_same_run(Run("file"), finished)
    assert_same_run(Run("folder"), finished)


def test_resume_finishes_a_run_stopped_by_a_signal(call, file, finished, monkeypatch):
    def step(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    real = training.train_step
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_step", step)
        code, _, errors = call("train", file)
    assert code == 128 + signal.SIGTERM
    assert errors == "stopped and saved. Go on with: snn-bp resume runs/small\n"

    code, printed, _ = call("resume", "runs/small")

    assert code == 0 and "resumed at epoch 1, batch 2" in printed
    assert_same_run(Run("runs/small"), finished)


def test_resume_of_a_finished_run_repeats_its_results(call, finished):
    code, printed, _ = call("resume", finished.path)

    assert code == 0 and "is finished: test accuracy" in printed


def test_evaluate_prints_figures_and_as_json_the_same(call, finished):
    code, printed, _ = call("evaluate", finished.path)
    json_code, as_json, errors = call("evaluate", finished.path, "--json")

    figures = json.loads(as_json)
    assert code == json_code == 0 and not errors
    assert figures == finished.results()["test"]
    assert f"test accuracy {figures['accuracy']:.4f} ({figures['correct']} of 50" in printed
    assert printed.count("spikes for each inference") == printed.count("synaptic operations") == 2


def test_evaluate_names_the_batch_that_fits_and_takes_it(call, finished, monkeypatch):
    monkeypatch.setattr("snn_bp.runs.memory._THREADS", 0)
    monkeypatch.setattr("snn_bp.runs.memory.available", lambda: 300_000)

    outcome = call("evaluate", finished.path)
    fits = outcome[2].partition(" fits.")[0].split()[-2:]
    code, printed, errors = call("evaluate", finished.path, *fits)

    assert_fails(outcome, "evaluate: 50 recordings in batches of 32 would take", "To try it all the same")
    assert fits[0] == "--batch" and code == 0 and not errors and printed.startswith("test accuracy")


def test_evaluate_takes_a_split_and_a_checkpoint(call, finished):
    _, printed, _ = call("evaluate", finished.path, "--split", "validation", "--checkpoint", "last", "--json")

    figures, last = json.loads(printed), finished.load("last").metrics[-1]
    assert figures["samples"] == 40 and figures["accuracy"] == last["validation_accuracy"]


def test_a_dry_run_shows_shapes_and_leaves_nothing(call, file):
    code, printed, _ = call("train", file, "model.1.units=7", "--dry-run")

    assert code == 0 and "[7]" in printed and f"{578 * 7 + 7:,} parameters" in printed
    assert "input [time, batch, 2, 17, 17]" in printed and "about" in printed
    assert [entry.name for entry in Path().iterdir()] == [file.name]


def test_list_shows_every_kind_of_run(call, finished):
    shutil.copytree(finished.path, "runs/finished")
    shutil.copytree(finished.path, "runs/deep/unfinished")
    Path("runs/deep/unfinished/results.json").unlink()
    shutil.copytree(finished.path, "runs/damaged")
    Path("runs/damaged/experiment.json").write_text("{")
    shutil.copytree(finished.path, "runs/odd")
    Path("runs/odd/results.json").write_text('{"epochs": 2, "best_epoch": 1, "test": {}}')
    shutil.copytree(finished.path, "runs/started")
    shutil.rmtree("runs/started/checkpoints")
    Path("runs/started/results.json").unlink()
    shutil.copytree(finished.path, "runs/headless")
    Path("runs/headless/experiment.json").unlink()
    shutil.copytree(finished.path / "checkpoints", "runs/finished/before-1/checkpoints")
    shutil.copy(finished.path / "results.json", "runs/finished/before-1")
    Path("runs/no run").mkdir()

    code, printed, errors = call("list")

    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in printed.splitlines()}
    day = json_of(finished.path / "provenance.json")["started"][:10]
    assert code == 0 and not errors
    assert lines["runs/finished"].startswith(f"{day} digits test accuracy 0.")
    assert lines["runs/deep/unfinished"] == f"{day} digits not finished, epoch 2 of 2"
    assert lines["runs/damaged"].startswith(f"{day} - cannot be read")
    assert lines["runs/odd"].startswith(f"{day} digits cannot be read")
    assert lines["runs/started"].endswith("cannot go on: its checkpoints are missing.")
    assert "experiment.json is missing" in lines["runs/headless"] and len(lines) == 7
    assert lines["run"] == "date data result"


def test_list_sorts_and_gives_json(call, finished):
    for name, accuracy, started in (("a", 0.5, "2026-02-01 00:00:00"), ("b", 0.9, "2026-01-01 00:00:00")):
        shutil.copytree(finished.path, f"runs/{name}")
        results = finished.results()
        test = results["test"] | {"accuracy": accuracy, "metrics": {"accuracy": accuracy}}
        write_object(Path(f"runs/{name}/results.json"), results | {"test": test})
        write_object(Path(f"runs/{name}/provenance.json"), {"started": started})
    shutil.copytree("runs/a", "runs/c")
    Path("runs/c/results.json").unlink()
    Path("runs/c/provenance.json").unlink()

    found = {key: json.loads(call("list", "--sort", key, "--json")[1]) for key in ("run", "date", "metric", "data")}

    order = {key: [Path(each["run"]).name for each in entries] for key, entries in found.items()}
    assert order == {
        "run": ["a", "b", "c"],
        "date": ["a", "b", "c"],
        "metric": ["b", "a", "c"],
        "data": ["a", "b", "c"],
    }
    assert found["run"][1] == {
        "run": "runs/b", "state": "finished", "date": "2026-01-01 00:00:00", "data": "digits", "split": "test",
        "metric": "accuracy", "value": 0.9, "higher_is_better": True,
        "best_epoch": finished.results()["best_epoch"], "epochs": 2,
    }  # fmt: skip
    assert json.loads(call("list", "runs/none", "--json")[1] or "[]") == []


def test_compare_takes_the_folder_that_holds_the_runs(call, finished):
    for name in ("one", "two"):
        shutil.copytree(finished.path, f"runs/{name}")

    assert call("compare", "runs") == call("compare", "runs/one", "runs/two")


def test_cache_shows_entries_and_removes_those_long_unused(call, tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path))
    entry = tmp_path / "digits-train-0123"
    entry.mkdir()
    (entry / "record.json").write_text("{}")
    os.utime(entry, (0, 0))

    assert "digits-train-0123" in call("cache")[1]
    removed = call("cache", "--clean", "90")[1]

    assert "removed digits-train-0123" in removed and "0 entries" in removed and not entry.exists()


def test_a_set_is_built_once_before_anything_is_trained(call, tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    lab = "Data('folder', root='lab', sensor=(8, 8, 2), step_ms=1, steps=2)"
    (tmp_path / "mine.py").write_text(
        f"from snn_bp import *\nexperiment = Experiment({lab}, (Dense(2), LIF(beta=0.5)))\n"
    )
    events = np.array([(1, 2, 0, 0), (3, 4, 1, 900)], [(field, int) for field in "xypt"])
    for name in ("left/a", "left/b", "right/c"):
        (tmp_path / "lab" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "lab" / f"{name}.npy", events)

    first = call("data", "build", "mine.py", "data.step_ms=2")
    second = call("data", "build", "folder", "data.root=lab", "data.sensor=8,8,2", "data.step_ms=1", "data.steps=9")

    (entry,) = (tmp_path / "cache").glob("folder-train-*")
    assert first[0] == second[0] == 0
    assert f"train part: 3 recordings, 6 events, 0 MB in {entry} (built)\n" in first[1]
    assert f"{entry} (was there already)\n" in second[1]


def test_what_is_there_of_a_set_is_shown_and_nothing_to_train_on_is_an_exit_code(call, tmp_path):
    file = tmp_path / "data" / "NMNIST" / "Train" / "3" / "1.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(10))
    (tmp_path / "mine.py").write_text(
        "from snn_bp import *\nexperiment = Experiment(Data('nmnist', root='data'), (Dense(2), LIF(beta=0.5)))\n"
    )

    by_file, by_name = call("data", "check", "mine.py"), call("data", "check", "nmnist", "data.root=data")
    none, made = call("data", "check", "shd", "data.root=data"), call("data", "check", "digits")

    assert by_file == by_name and by_file[0] == 0
    assert "nmnist: Orchard et al. 2015; partial, 0 MB in data/NMNIST\n" in by_file[1]
    assert "licence: CC BY-SA 4.0" in by_file[1] and by_file[1].endswith("nmnist data.root=data reads what is there\n")
    assert none[0] == 1 and "next:    snn-bp data build shd data.root=data" in none[1]
    assert made[0] == 0 and made[1].startswith("digits: made here")


def test_what_is_there_of_recordings_of_ones_own_is_shown_by_split_and_class(call, tmp_path):
    for name in ("train/left/a", "train/left/b", "train/right/c", "test/right/d"):
        file = tmp_path / "lab" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.array([(3, 4, 0, 1), (5, 6, 900, 0)], [("x", int), ("y", int), ("t", int), ("p", int)]))
    (tmp_path / "mine.py").write_text(
        "import dataclasses\nfrom snn_bp import *\nmodel = Flatten(), Dense(2), LIF(beta=0.5)\n"
        "lab = Data('folder', root='lab', sensor=(8, 8, 2), step_ms=1, steps=2)\n"
        "@dataclasses.dataclass(frozen=True)\nclass Lab:\n    class_names, step_ms = ('a', 'b'), 1\n"
        "    def frames(self, part): return None\n"
        "experiment = Experiment(lab, model)\n"
    )
    mine = (tmp_path / "mine.py").read_text()
    (tmp_path / "own.py").write_text(mine + "experiment = Experiment(Data(Lab()), model)\n")
    (tmp_path / "held.py").write_text(mine + "experiment = Experiment(Data('in memory'), model)\n")

    whole, own, held = (call("data", "check", f"{name}.py") for name in ("mine", "own", "held"))
    hashes = call("data", "check", "mine.py", "--hash")
    (tmp_path / "lab" / "train" / "left" / "a.npy").write_bytes(b"cut")
    np.save(tmp_path / "lab" / "train" / "left" / "b.npy", np.array([(9, 4, 0, 1)], [(each, int) for each in "xytp"]))
    damaged = call("data", "check", "mine.py", "data.steps=3")
    shutil.rmtree(tmp_path / "lab" / "train")
    none = call("data", "check", "mine.py")

    assert whole == (
        0,
        "lab: 4 recordings of 2 classes, 0 MB\n  train               3   left 2, right 1\n"
        "  test                1   left 0, right 1\nnext:    snn-bp data build mine.py\n",
        "",
    )
    assert own[0] == 0 and own[1].startswith("Lab: a source of your own, which alone knows its files; `snn-bp data bui")
    assert held[0] == 0 and "handed to train" in held[1]
    assert hashes[0] == 2 and "known of published archives alone. Leave --hash out." in hashes[2]
    assert damaged[0] == 1 and "  train               1   left 0, right 1\n" in damaged[1]
    assert "damaged: lab/train/left/a.npy: " in damaged[1] and "damaged: lab/train/left/b.npy: x" in damaged[1]
    assert damaged[1].endswith("then snn-bp data build mine.py data.steps=3\n")
    assert none[0] == 1 and "  train               0   right 0\n" in none[1]


def test_list_of_an_empty_folder_says_so(call, tmp_path):
    assert call("list", tmp_path) == (0, f"no runs under {tmp_path}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["list", "--help"]])
def test_help_is_no_error(call, arguments):
    code, printed, errors = call(*arguments)

    assert code == 0 and "Usage" in printed and not errors


# What goes wrong

BAD_FILES = {
    "no experiment": ("x = 3", "experiment = Experiment(...)"),
    "not an experiment": ("experiment = 3", "found int"),
    "raises": ("x = 3\nraise KeyError('lost')", "KeyError: 'lost'", "line 2"),
    "raises in several lines": ("raise RuntimeError('one\\ntwo')", "RuntimeError: one two"),
    "syntax": ("experiment = (", "SyntaxError"),
    "zero bytes": ("\0", "bad.py"),
    "missing module": ("import no_such_module", "no_such_module"),
    "a wrong value": ("from snn_bp import LIF\nLIF(beta=3)", "0..1"),
    "our error within": ("from snn_bp import Data\nData('digit')", "Did you mean 'digits'?"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_gives_no_experiment_fails_in_one_line(name, call, tmp_path):
    text, *told = BAD_FILES[name]
    (tmp_path / "bad.py").write_text(text)

    assert_fails(call("train", "bad.py"), "bad.py", *told)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "nothing.py"], "nothing.py: there is no such file"),
        (["train", "."], "experiment.json: there is no such file"),
        (["train", "small.py", "train.lrr=1"], "Did you mean 'lr'?"),
        (["train", "small.py", "train.lr"], "key=value"),
        (["train", "small.py", "model.99.units=3"], "0..6"),
        (["train", "small.py", "train.loss=open('victim', 'w')"], "open is not a type of snn_bp"),
        (["train", "small.py", "model.4.units=9"], "10 classes"),
        (["train", "small.py", "train.device=warp", "--dry-run"], "train.device"),
        (["train", "small.py", "--out", "small.py"], "not an empty folder"),
        (["train", "small.py", "--out", "small.py/run"], "Name another --out"),
        (["resume", "nowhere"], "no run is here"),
        (["evaluate", "nowhere"], "no run is here"),
        (["evaluate", "."], "no run is here"),
        (["list", "nowhere"], "no such folder"),
        (["trian", "small.py"], "Did you mean 'train'?"),
        (["train", "small.py", "--otu", "x"], "--out"),
        (["train"], "file"),
        ([], "command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_command_fails_in_one_line_that_helps(arguments, told, call, file):
    assert_fails(call(*arguments), told)
    assert [entry.name for entry in Path().iterdir()] == [file.name]


def test_a_folder_that_holds_a_run_fails_and_names_resume(call, file, finished):
    assert_fails(call("train", file, "--out", finished.path), f"snn-bp resume {finished.path}")


@pytest.mark.parametrize(
    ("options", "told"), [(["--split", "tset"], "'test'"), (["--checkpoint", "first"], "last, previous, best")]
)
def test_a_wrong_option_of_evaluate_fails(options, told, call, finished):
    assert_fails(call("evaluate", finished.path, *options), told)


@pytest.mark.parametrize("command", ["resume", "evaluate", "train"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"is": "Dense", "units": 3}', '{"is": "Experiment"}'])
def test_a_damaged_experiment_json_fails(command, content, call, finished):
    shutil.copytree(finished.path, "run")
    Path("run/experiment.json").write_text(content)

    assert_fails(call(command, "run"), "experiment.json")


def test_damaged_results_and_checkpoints_fail(call, finished):
    shutil.copytree(finished.path, "run")
    Path("run/results.json").write_text("{")
    assert_fails(call("resume", "run"), "results.json", "resume")

    damage(Path("run/checkpoints/best.safetensors"))
    assert_fails(call("evaluate", "run"), "best.safetensors", "damaged")
    Path("run/checkpoints/best.safetensors").unlink()
    assert_fails(call("evaluate", "run"), "no such checkpoint")


def test_another_experiment_in_the_folder_of_a_run_fails(call, finished):
    shutil.copytree(finished.path, "run")
    write_json(Path("run/experiment.json"), to_json(tiny(seed=9)))

    assert_fails(call("evaluate", "run"), "another experiment")


@pytest.mark.parametrize(
    "line",
    ("train small.py", "train small.py --out a/b/c", "search small.py --out new", "report run", "export run a.nir",
     "verify run b.nir", "predict run b.npy --out a.csv", "compare run --out a.html", "init run --out new.py"),
)  # fmt: skip
def test_where_nothing_can_be_written_nothing_is_computed(line, call, file, finished, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    def late(*_, **__):
        raise AssertionError("it has begun to compute")

    shutil.copytree(finished.path, "run")
    for name in ("b.nir", "b.npy"):
        Path(name).write_text("never read")
    before = sorted(Path.cwd().rglob("*"))
    for name in ("snn_bp.model.network.Network.forward", "snn_bp.data.survey.survey"):
        monkeypatch.setattr(name, late)
    monkeypatch.setattr("snn_bp.files.tempfile.TemporaryFile", refuse)

    outcome = call(*line.split())

    assert_fails(outcome, "it cannot be written (Read-only file system). ")
    assert outcome[0] == 3 and sorted(Path.cwd().rglob("*")) == before


@pytest.mark.parametrize("line", ("report run", "export run a.nir", "verify run b.nir"))
def test_a_file_where_a_folder_or_a_page_would_stand_is_told_before_anything_is_computed(line, call, finished):
    shutil.copytree(finished.path, "run")
    Path("run/report.html").mkdir()
    Path("run/export").touch()
    Path("b.nir").write_text("never read")

    found = "should be a file, found a folder" if line == "report run" else "should be a folder, found a file"
    assert_fails(call(*line.split()), found)


def test_a_shell_in_a_folder_that_was_removed_is_told_so(call, file, monkeypatch):
    folder = Path("gone")
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path.cwd().rmdir()

    assert_fails(call("train", file), "was removed", "cd")


def test_a_number_that_breaks_fails_in_one_line(call, file, monkeypatch):
    real = training.train_step
    monkeypatch.setattr(training, "train_step", lambda *arguments: real(*arguments)._replace(loss=float("nan")))

    assert_fails(call("train", file), "epoch 1, batch 1", "train.lr")


def test_ctrl_c_at_once_ends_without_a_traceback(call, file, monkeypatch):
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_step", interrupt)

    code, _, errors = call("train", file)

    assert code == 130 and "Traceback" not in errors


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys; sys.exit()", "sys.exit(None)"),
        ("import sys; sys.exit(3)", "sys.exit(3)"),
        ("raise BaseException('of no usual kind')", "of no usual kind (odd.py, line 1: "),
        ("def (", "SyntaxError: invalid syntax (odd.py, line 1)\n"),
    ],
)
def test_an_experiment_file_that_ends_in_any_way_is_one_line_and_code_2(call, tmp_path, code, told):
    (tmp_path / "odd.py").write_text(code)

    outcome = call("train", "odd.py")

    assert_fails(outcome, "odd.py: ", told)
    assert outcome[0] == 2


def test_a_pipe_in_place_of_an_experiment_is_not_called_missing(call, tmp_path):
    os.mkfifo(tmp_path / "pipe.py")

    assert_fails(call("train", "pipe.py"), "no regular file")


def test_a_file_with_main_at_its_end_is_read_like_one_without(call, file):
    file.write_text(file.read_text() + "from snn_bp import main\nmain(experiment)\n")

    code, printed, errors = call("train", file, "train.epochs=3", "--dry-run")

    assert code == 0 and not errors
    assert printed.count("parameters\n") == 1 and "for 3 epochs" in printed


@pytest.mark.parametrize("count", [0, -1])
def test_recordings_are_counted_from_one(call, file, count):
    assert_fails(call("gradcheck", file, "--recordings", count), f"--recordings={count}", "from 1 up")


def test_recordings_for_the_client_are_counted(call, finished):
    Path("a.net").touch()

    assert_fails(call("verify", finished.path, "a.net", "--lava", -1), "lava=-1", "from 0 up")


def test_clean_says_so_where_nothing_is_left(call, finished):
    assert call("clean", finished.path) == (0, f"{finished.path}: nothing to remove\n", "")


@pytest.mark.slow
def test_a_run_in_a_folder_whose_name_is_no_text_has_its_page_and_table(call, finished, tmp_path):
    moved = tmp_path / os.fsdecode(b"b\xffd")
    shutil.copytree(finished.path, moved)

    assert call("report", moved, "--no-plots")[0] == 0
    assert call("compare", moved, "--out", "table.csv")[0] == 0

    assert r"b\udcffd" in (moved / "report.html").read_text(encoding="utf-8")
    assert r"b\udcffd" in (tmp_path / "table.csv").read_text(encoding="utf-8")


# As programs


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_a_stream_that_was_closed_before_the_start_is_no_error(tmp_path, closed):
    command = f'exec "$0" -m snn_bp cache {closed}'

    ended = subprocess.run(["sh", "-c", command, sys.executable], cwd=tmp_path, capture_output=True, timeout=120)

    assert (ended.returncode, ended.stdout, without_phases(ended.stderr.decode())) == (0, b"", "")


def test_an_experiment_file_is_a_program(tmp_path, capsys, monkeypatch, finished):
    monkeypatch.setattr(sys, "argv", ["small.py", "--out", str(tmp_path / "run"), "train.epochs=2"])

    main(tiny(), ["--out", str(tmp_path / "run"), "train.epochs=2"])

    assert "train.epochs=2 (was 2)" in capsys.readouterr().out
    assert_same_run(Run(tmp_path / "run"), finished)


@pytest.mark.slow
def test_the_programs_start_and_fail_as_said(tmp_path):
    def start(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120)

    digits = start(str(ROOT / "experiments" / "digits.py"), "--dry-run", "train.epochs=3")
    typo, told = start("-m", "snn_bp", "trian"), start("-m", "snn_bp", "--help")

    assert digits.returncode == 0 and not without_phases(digits.stderr)
    assert "train.epochs=3 (was" in digits.stdout and "for 3 epochs" in digits.stdout
    assert told.returncode == 0 and not told.stderr and "gradcheck" in told.stdout  # all of it, though it leaves early
    assert typo.returncode == 2 and typo.stderr.startswith("error: ") and typo.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_of_the_function_is_listed_as_one_of_the_command(call):
    train(tiny(epochs=1), "runs/mine", quiet=True)

    assert "test accuracy" in call("list")[1].splitlines()[1]
