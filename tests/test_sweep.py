"""A sweep: the points of its grid, runs as by hand, kills that lose nothing, one look at the test split."""

import csv
import io
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runs import assert_same_run, cli, few, loading, same_weights, tiny

import snn_bp.reports
from snn_bp import Experiment, Run, SnnError, VanRossumDistance, sweep, train
from snn_bp.files import read_object, write_object
from snn_bp.files.lock import holder
from snn_bp.runs import definitions
from snn_bp.runs.definitions import _statement as made
from snn_bp.runs.evaluation import evaluate
from snn_bp.runtime.prepared import Prepared
from snn_bp.searches import jobs, processes, study, sweeping, trials
from snn_bp.searches.grid import name_of, points_of, values_of
from snn_bp.searches.jobs import check_jobs, commands_of, jobs_of, largest_of

GRID = ("train.lr=5e-3,1e-2", "seed=0,1")


@pytest.fixture
def file(tmp_path) -> Path:
    """An experiment as a Python file."""
    path = tmp_path / "small.py"
    path.write_text(f"from snn_bp import *\nexperiment = {tiny(epochs=1)!r}\n")
    return path


@pytest.fixture
def by_hand(monkeypatch):
    """Let a sweep find its runs trained, within this process and on few recordings, instead of training them."""

    def train_here(runs, *_, **__):
        for job in runs:
            if job.results() is None:
                train(job.experiment, job.path, quiet=True)
        return []

    monkeypatch.setenv("SNN_BP_FORKED_RUNS", "0")
    for module in (sweeping, trials):
        monkeypatch.setattr(module, "train_all", train_here)
    for module in (jobs, sweeping):
        monkeypatch.setattr(module, "load", few)
    with loading(few):
        yield


def test_a_run_imports_what_the_sweep_does_whatever_the_folder_holds(tmp_path):
    (tmp_path / "snn_bp").mkdir()  # as where the checkout is
    (tmp_path / "json.py").write_text("raise SystemExit('this is not the json of Python')")
    done = subprocess.run([*processes.program(), "--help"], cwd=tmp_path, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "") and "sweep" in done.stdout


@pytest.mark.parametrize(
    "text, values",
    [
        ("1e-3,3e-3", ["1e-3", "3e-3"]),
        ("0..4", ["0", "1", "2", "3", "4"]),
        ("-1..1,7", ["-1", "0", "1", "7"]),
        ("(0,1),()", ["(0,1)", "()"]),
        ("LIF(beta=0.9, reset='zero'),ALIF()", ["LIF(beta=0.9, reset='zero')", "ALIF()"]),
        ("'a,b',[1,(2,3)]", ["'a,b'", "[1,(2,3)]"]),
        ('"it\'s, so",{3: 0.1}', ['"it\'s, so"', "{3: 0.1}"]),
        ("../a,../b", ["../a", "../b"]),
        ("0.5..1", ["0.5..1"]),
    ],
)
def test_a_comma_outside_brackets_and_quotes_parts_values(text, values):
    assert values_of(text, at="key") == values


def test_the_grid_holds_every_combination_the_last_key_fastest():
    points = points_of(["train.epochs=3", *GRID])

    assert [(point["train.lr"], point["seed"]) for point in points] == [
        ("5e-3", "0"), ("5e-3", "1"), ("1e-2", "0"), ("1e-2", "1"),
    ]  # fmt: skip
    assert {point["train.epochs"] for point in points} == {"3"}


@pytest.mark.parametrize(
    "changes, told",
    [
        (["seed"], "key=a,b"),
        (["=1,2"], "key=a,b"),
        (["seed=0,"], "a value is missing"),
        (["seed="], "a value is missing"),
        (["seed=4..0"], "go upwards"),
        (["seed=0..1000000000000"], "by less than"),
        (["seed=0..2,1"], "1 stands there twice"),
        (["seed=0,1", "seed=2"], "seed stands there twice"),
        (["seed=0"], "2 to 10,000 runs, found 1"),
        ([], "2 to 10,000 runs, found 1"),
        (["seed=0..999", "train.epochs=1..11"], "found 11,000"),
    ],
)
def test_a_wrong_grid_is_one_error_that_says_what_would_work(changes, told):
    with pytest.raises(SnnError, match=told):
        points_of(changes)


def test_every_point_has_a_folder_of_its_own_whatever_its_values_are():
    values = ["ATan(slope=2)", "ATan(slope=3)", "ATan[slope=2]", "../a", "x" * 300, "x" * 301]
    names = [name_of({"key": value}, ["key"]) for value in values]

    assert len(set(names)) == len(names) and not any("/" in name or len(name) > 120 for name in names)
    assert name_of({"train.lr": "1e-3", "seed": "0"}, ["train.lr", "seed"]) == "train.lr=1e-3,seed=0"


@pytest.mark.parametrize(
    "changes, told",
    [
        (["train.lr=1e-3,0.001"], "is the same run as"),
        (["seed=0,1", "train.test=never"], "Leave it out"),
        (["train.metric=None,F1()"], "train.metric says which setting is best"),
        (["train.rate=1,2"], "there is no 'rate'"),
    ],
)
def test_what_a_sweep_cannot_be_is_told_before_anything_is_trained(changes, told, file, tmp_path):
    with pytest.raises(SnnError, match=told):
        jobs_of(file, changes, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_the_test_split_is_looked_at_once_for_the_setting_that_validation_chose(file, tmp_path, by_hand, monkeypatch):
    looks = []
    monkeypatch.setattr(sweeping, "evaluate", lambda run, split: looks.append(run.path) or evaluate(run, split))
    runs = jobs_of(file, GRID, tmp_path / "out")

    found = sweeping.run_sweep(runs, file, tmp_path / "out")
    again = sweeping.run_sweep(runs, file, tmp_path / "out")

    results = [Run(job.path).results() or {} for job in runs]
    figures = [each["validation"]["accuracy"] for each in results]
    best = runs[:2] if sum(figures[:2]) >= sum(figures[2:]) else runs[2:]
    assert looks == [job.path for job in best] and again == found
    assert found["chosen"] == {"train.lr": best[0].point["train.lr"]}
    assert found["test"] == {job.path.name: evaluate(Run(job.path), "test").record() for job in best}
    assert [each["untouched"] for each in results] == [["test"]] * 4
    assert "over 2 runs" in str(sweep(file, GRID, out=tmp_path / "out", quiet=True))


def test_a_sweep_killed_between_two_evaluations_repeats_none(file, tmp_path, by_hand, monkeypatch):
    looks = []

    def killed_at_the_second(run, split):
        looks.append(run.path)
        if len(looks) == 2:
            raise KeyboardInterrupt
        return evaluate(run, split)

    monkeypatch.setattr(sweeping, "evaluate", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        sweep(file, ["seed=0..2"], out=tmp_path / "out", quiet=True)
    (first,) = read_object(tmp_path / "out" / sweeping.SWEPT)["test"].items()

    found = sweep(file, ["seed=0..2"], out=tmp_path / "out", quiet=True)

    assert [path.name for path in looks] == ["seed=0", "seed=1", "seed=1", "seed=2"]
    assert len(found.test or ()) == 3 and first in read_object(tmp_path / "out" / sweeping.SWEPT)["test"].items()


def test_without_a_test_split_there_is_nothing_to_look_at(file, tmp_path, by_hand, monkeypatch):
    def without(data, *, quiet=False):
        dataset = few(data)
        return replace(dataset, ids=dataset.ids | {"test": dataset.ids["test"][:0]})

    monkeypatch.setattr(sweeping, "load", without)

    for _ in range(2):
        found = sweep(file, ["seed=0,1"], out=tmp_path / "out", quiet=True)
        assert found.test is None and "there is no test split" in str(found)


def test_a_sweep_gathers_what_a_job_array_trained_from_its_list(file, tmp_path, by_hand, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["sweep", str(file), "train.lr=5e-3,1e-2"]
    cli.guarded(cli.app, [*asked, "--list"])
    for line in capsys.readouterr().out.splitlines():
        cli.guarded(cli.app, shlex.split(line)[1:])
    capsys.readouterr()
    cli.guarded(cli.app, [*asked, "--list"])
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sweeping, "train_all", lambda runs, *_, **__: [job for job in runs if job.results() is None])

    cli.guarded(cli.app, asked)

    assert "looked at once" in capsys.readouterr().out
    with (tmp_path / "runs/small-sweep/compared.csv").open() as table:
        first = next(csv.DictReader(table))  # which the others are compared with
    chosen = read_object(tmp_path / "runs/small-sweep/sweep.json")["chosen"]
    assert float(first["train.lr"]) == float(chosen["train.lr"])


def test_an_experiment_that_is_a_value_is_swept_by_its_file_in_the_folder(tmp_path, by_hand):
    found = sweep(tiny(epochs=1), ["train.lr=5e-3,1e-2"], out=tmp_path / "out", quiet=True)

    assert (
        found.chosen["train.lr"] in ("5e-3", "1e-2") and [path.parent for path in found.paths] == [tmp_path / "out"] * 2
    )
    assert sweep(tiny(epochs=1), ["train.lr=5e-3,1e-2"], out=tmp_path / "out", quiet=True) == found
    assert jobs_of(tmp_path / "out" / "base.json", ["seed=0,1"], tmp_path)[0].experiment.model == tiny().model
    with pytest.raises(SnnError, match="a sweep over another experiment is here"):
        sweep(tiny(epochs=2), ["train.lr=5e-3,1e-2"], out=tmp_path / "out", quiet=True)


@pytest.mark.parametrize(
    "told, gpus, parallel, devices",
    [
        (None, 2, 3, ["0", "1", "0"]),
        ("3,GPU-a1,7", 3, 4, ["3", "GPU-a1", "7", "3"]),
        ("5", 1, 2, []),
        ("", 0, 2, []),
        (None, 1, 2, []),
        (None, 0, 2, []),
    ],
)
def test_runs_at_the_same_time_have_the_visible_gpus_in_turn(told, gpus, parallel, devices, monkeypatch):
    monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if told is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)

    assert processes.devices_of_each(parallel) == devices


def test_a_run_that_names_its_gpu_keeps_it(file, tmp_path):
    asked = ["train.device=cuda:1,cuda,auto,cpu"]

    assert [job.takes_any_gpu for job in jobs_of(file, asked, tmp_path)] == [False, True, True, False]


def test_a_finished_sweep_takes_no_more_runs_and_one_that_is_not_does(file, tmp_path, by_hand):
    few_jobs = jobs_of(file, ["seed=0,1"], tmp_path / "out")
    train(few_jobs[0].experiment, few_jobs[0].path, quiet=True)
    more = jobs_of(file, ["seed=0..2"], tmp_path / "out")

    sweeping.run_sweep(more, file, tmp_path / "out")

    with pytest.raises(SnnError, match="finished, with other runs"):
        sweeping.run_sweep(few_jobs, file, tmp_path / "out")


def test_runs_stay_where_values_are_taken_away_or_added(file, tmp_path):
    whole, narrow, wide = (
        {job.path for job in jobs_of(file, [rates, "seed=0,1"], tmp_path)}
        for rates in ("train.lr=5e-3,1e-2", "train.lr=5e-3", "train.lr=5e-3,1e-2,2e-2")
    )

    assert narrow < whole < wide


@pytest.mark.parametrize(
    "change",
    [{"chosen": {"train.lr": "7"}}, {"chosen": None}, {"metric": 3}, {"higher_is_better": 1}, {"test": 5},
     {"test": {"other": {"accuracy": 1}}}, {"test": {"train.lr=5e-3,seed=0": {}}}],
    ids=str,
)  # fmt: skip
def test_a_file_of_a_sweep_that_holds_something_else_is_one_error(change, file, tmp_path, by_hand):
    runs = jobs_of(file, GRID, tmp_path)
    kept = {"runs": {job.path.name: job.point for job in runs}, "chosen": {"train.lr": "1e-2"}, "metric": "accuracy"}
    write_object(tmp_path / sweeping.SWEPT, {**kept, "higher_is_better": True, "test": {}, **change})

    with pytest.raises(SnnError, match="does not hold what a sweep writes"):
        sweeping.run_sweep(runs, file, tmp_path)
    (tmp_path / sweeping.SWEPT).write_text("{")
    with pytest.raises(SnnError, match=r"not JSON.*Put it back"):
        sweeping.run_sweep(runs, file, tmp_path)


def test_figures_that_are_no_numbers_are_shown_and_choose_nothing(file, tmp_path, by_hand, monkeypatch):
    epochs_of = {"1": math.nan, "2": 0.5}
    monkeypatch.setattr(sweeping, "figure_on_validation", lambda job: epochs_of[job.point["train.epochs"]])
    (none, some) = (jobs_of(file, [f"train.epochs={epochs}", "seed=0,1"], tmp_path) for epochs in ("1", "1,2"))

    with pytest.raises(SnnError, match="accuracy on validation is a finite number in no setting"):
        sweeping.choose(none)

    assert sweeping.choose(some)["chosen"] == {"train.epochs": "2"}
    assert study.spread([math.nan, 0.5]) == "nan ± nan over 2 runs"


def test_a_run_whose_folder_is_gone_is_trained_again_and_nothing_is_chosen_anew(file, tmp_path, by_hand, monkeypatch):
    runs = jobs_of(file, GRID, tmp_path / "out")
    before = sweeping.run_sweep(runs, file, tmp_path / "out")
    kept = Run(runs[0].path).load("best").weights
    shutil.rmtree(runs[0].path)
    monkeypatch.setattr(sweeping, "choose", None)

    found = sweep(file, GRID, out=tmp_path / "out", quiet=True)

    assert read_object(tmp_path / "out" / sweeping.SWEPT) == before and len(found.paths) == 4
    assert same_weights(Run(runs[0].path).load("best").weights, kept)


def test_settings_that_are_measured_otherwise_are_not_compared(file, tmp_path, by_hand, monkeypatch):
    monkeypatch.setattr(jobs, "metric_for", lambda train, _: VanRossumDistance(tau=1000 * train.lr))
    with pytest.raises(SnnError, match=r"tau=5.0\) and VanRossumDistance\(tau=10.0\), which do not compare"):
        check_jobs(jobs_of(file, GRID, tmp_path), 1)


def test_a_run_of_another_experiment_in_its_place_is_refused(file, tmp_path, by_hand):
    runs = jobs_of(file, GRID, tmp_path / "out")
    experiment: Experiment = runs[1].experiment
    train(replace(experiment, train=replace(experiment.train, clip=2.0)), runs[1].path, quiet=True)

    with pytest.raises(SnnError, match="of another experiment"):
        sweeping.run_sweep(runs, file, tmp_path / "out")
    with pytest.raises(SnnError, match="of another experiment"):
        commands_of(runs, file)


def test_a_loss_of_the_users_is_swept_and_its_runs_are_known_again(tmp_path, by_hand):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from snn_bp import *\n"
        "import torch.nn.functional as F\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        "    size: float = 1.0\n\n"
        "    def __call__(self, out, targets):\n"
        "        return self.size * F.cross_entropy(out.sum(0), targets)\n\n"
        "    def scores(self, out):\n"
        "        return out.sum(0)\n\n\n"
        f"experiment = {tiny(epochs=1)!r}\n"
    )
    values = ["train.loss=Mine(),Mine(size=0.5),CountCrossEntropy()"]
    out = tmp_path / "out"

    sweeping.run_sweep(jobs_of(file, values, out), file, out)

    runs = jobs_of(file, values, out)
    assert [type(Run(job.path).experiment.train.loss).__name__ for job in runs] == ["Mine", "Mine", "CountCrossEntropy"]
    assert all(job.results() for job in runs)
    file.write_text(file.read_text().replace("self.size *", "2 * self.size *"))
    with pytest.raises(SnnError, match="of another experiment"):
        commands_of(jobs_of(file, values, out), file)


def test_the_list_has_a_command_for_each_run_that_is_left(file, tmp_path, by_hand):
    runs = jobs_of(file, GRID, tmp_path / "out")
    train(runs[0].experiment, runs[0].path, quiet=True)
    begun = train(runs[1].experiment, runs[1].path, quiet=True)
    (begun.path / "results.json").unlink()

    words = [shlex.split(line) for line in commands_of(runs, file)]

    assert words[0] == ["snn-bp", "resume", str(runs[1].path)]
    assert [line[1] for line in words[1:]] == ["train", "train"]
    assert words[1][2:] == [str(file), *runs[2].changes, "--out", str(runs[2].path)]


def test_no_path_in_a_list_is_taken_for_an_option(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file.rename(tmp_path / "-odd.py")

    (line, _) = commands_of(jobs_of(Path("-odd.py"), ["seed=0,1"], Path("-out")), Path("-odd.py"))

    assert shlex.split(line)[2::3] == ["./-odd.py", "--out"] and line.endswith("./-out/seed=0")


def test_the_command_prints_the_list_and_makes_no_folder(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    cli.guarded(cli.app, ["sweep", str(file), *GRID, "--list"])

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and not (tmp_path / "runs").exists()
    assert lines[3].endswith("train.lr=1e-2 seed=1 train.test=never --out runs/small-sweep/train.lr=1e-2,seed=1")


def test_a_sweep_of_which_a_run_failed_chooses_nothing(file, tmp_path, by_hand, monkeypatch):
    runs = jobs_of(file, GRID, tmp_path / "out")
    failures = [processes.Failure(run, "the loss is nan", True) for run in runs]
    for count, told in ((1, "1 of 4 runs failed.*seed=0: the loss is nan The same"), (4, "seed=0: .* And 1 more. The")):
        monkeypatch.setattr(sweeping, "train_all", lambda *_, count=count, **__: failures[:count])
        with pytest.raises(SnnError, match=told):
            sweeping.run_sweep(runs, file, tmp_path / "out")

    assert not (tmp_path / "out" / sweeping.SWEPT).exists()


def test_more_runs_at_a_time_than_memory_holds_are_refused_with_a_number_that_fits(
    file, tmp_path, by_hand, monkeypatch
):
    runs = jobs_of(file, GRID, tmp_path / "out")
    needed = largest_of(runs)
    monkeypatch.setattr(jobs, "available", lambda *, others: others * (3 * needed + 1))

    check_jobs(runs, 3)
    with pytest.raises(SnnError, match=r"4 runs at a time.*--jobs 3 fits"):
        check_jobs(runs, 4)


def test_without_a_validation_split_nothing_could_choose(file, tmp_path, by_hand):
    runs = jobs_of(file, ["data.validation_fraction=0", *GRID], tmp_path / "out")

    with pytest.raises(SnnError, match="no validation split"):
        sweeping.run_sweep(runs, file, tmp_path / "out")


@pytest.mark.parametrize("asked, threads", [(None, 4), ("1", 1), ("2", 2), ("64", 4), ("many", 4)])
def test_runs_share_the_cores_and_take_no_more_than_a_user_allows(asked, threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)

    assert processes.threads_of_each(2) == threads
    assert processes.threads_of_each(20) == 1


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core is not to be shared")
@pytest.mark.parametrize("forks", ["0", "1"])
def test_the_runs_left_over_share_all_cores_in_every_sweep(forks, file, tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_BP_FORKED_RUNS", forks)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    runs = jobs_of(file, ["seed=0..2"], tmp_path / "out")
    train(runs[0].experiment, runs[0].path, quiet=True)  # as a sweep that was killed may have left it

    sweeping.run_sweep(runs, file, tmp_path / "out", parallel=2, quiet=True)

    threads = [read_object(run.path / "provenance.json")["machine"]["threads"] for run in runs]
    assert threads[1:] == [1, 2]


def trained_by(sweep: subprocess.Popen, out: Path) -> list[int]:
    """The processes that train runs for a sweep at this moment; not those that another one left at work."""
    held = [holder(lock.parent) for lock in out.glob("*/lock")]
    processes = [int(words.split()[1]) for words in held if words and words.startswith("process")]
    return [each for each in processes if parent_of(parent_of(each)) == sweep.pid]  # between them is the prepared one


def parent_of(process: int) -> int:
    """The process that began another; 0 where there is none."""
    asked = ["ps", "-o", "ppid=", "-p", str(process)]
    return int(subprocess.run(asked, capture_output=True, text=True).stdout or 0)


@pytest.mark.slow
def test_a_sweep_that_is_killed_and_goes_on_has_the_runs_that_one_trains_by_hand(file, tmp_path):
    out = tmp_path / "out"
    file.write_text(file.read_text().replace("epochs=1", "epochs=4"))  # long enough to be seen at work, and killed
    grid = ("train.lr=5e-3,1e-2", "seed=0..2")
    command = [sys.executable, "-m", "snn_bp", "sweep", str(file), *grid, "--jobs", "2", "--out", str(out)]
    for kill in ("sweep", "gently", "all"):
        sweep = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 120
        while not (begun := trained_by(sweep, out)):
            assert time.monotonic() < until and sweep.poll() is None
            time.sleep(0.02)
        sweep.send_signal(signal.SIGTERM if kill == "gently" else signal.SIGKILL)
        for process in begun if kill == "all" else ():
            with suppress(ProcessLookupError):  # it may have ended by now
                os.kill(process, signal.SIGKILL)
        _, errors = sweep.communicate(timeout=60)
        if kill == "gently":
            assert f"Go on with: snn-bp {shlex.join(command[3:])}" in errors
            assert [run for run in out.iterdir() if run.is_dir() and holder(run)] == []
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)

    runs = jobs_of(file, grid, out)
    assert done.returncode == again.returncode == 0, done.stderr
    assert "chosen by validation: train.lr=" in done.stdout
    assert done.stdout.endswith(again.stdout) and "looked at once" in again.stdout
    assert "group 2 less group 1, 3 seeds" in " ".join(done.stdout.split())
    for number, job in enumerate(runs):
        by_hand = train(job.experiment, tmp_path / f"hand-{number}", quiet=True)
        assert_same_run(Run(job.path), by_hand)
    assert "Training loss of each run in its last epoch" in (out / "compared.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_that_another_process_has_begun_is_waited_for(file, tmp_path):
    out = tmp_path / "out"
    runs = jobs_of(file, ["seed=0,1"], out)
    words = [sys.executable, "-m", "snn_bp", *runs[0].command(file, trust_code=False)]
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    found = sweeping.run_sweep(runs, file, out, parallel=2)  # its own process meets the first in the same folder

    assert first.wait() in (0, 2) and set(found["runs"]) == {job.path.name for job in runs}


def test_a_run_that_another_process_finishes_as_it_is_looked_at_is_no_failure(file, tmp_path, by_hand, monkeypatch):
    job = jobs_of(file, ["seed=0,1"], tmp_path / "out")[0]
    begun = []

    def start(job, slot, *_):
        begun.append(job)
        ended = SimpleNamespace(poll=lambda: 2, wait=lambda: 2, kill=lambda: None, returncode=2)
        return processes._Running(job, slot, ended, io.BytesIO(b"error: a process is at work on it"))  # type: ignore[arg-type]

    def ends_now(path):
        if begun and job.results() is None:
            train(job.experiment, path, quiet=True)

    monkeypatch.setattr(processes._Running, "start", start)
    monkeypatch.setattr(processes, "holder", ends_now)
    prepared: Any = SimpleNamespace(begin=lambda _: None, is_preparing=lambda: False)

    (tmp_path / "out").mkdir()
    assert processes.train_all([job], file, tmp_path / "out", prepared=prepared, quiet=True) == []
    assert begun == [job] and job.results() is not None


@pytest.mark.slow
def test_a_run_that_ends_by_itself_is_told_from_one_that_something_ends(file, tmp_path, monkeypatch):
    run = jobs_of(file, ["seed=0,1"], tmp_path / "out")[0]
    run.path.mkdir(parents=True)
    (run.path / "mine.txt").write_text("no run")

    with Prepared(file) as prepared:
        (forked,) = processes.train_all([run], file, tmp_path / "out", prepared=prepared, quiet=True)
    monkeypatch.setenv("SNN_BP_FORKED_RUNS", "0")
    with Prepared(file) as none:
        (refused,) = processes.train_all([run], file, tmp_path / "out", prepared=none, quiet=True)
        ended = "import os, signal; os.write(2, b'a warning'); os.kill(os.getpid(), signal.SIGKILL)"
        monkeypatch.setattr(processes, "program", lambda: [sys.executable, "-c", ended])
        (killed,) = processes.train_all([run], file, tmp_path / "out", prepared=none, quiet=True)

        monkeypatch.setattr(processes, "program", lambda: [sys.executable, "-c", ended.replace("os.write", "")])
        (silent,) = processes.train_all([run], file, tmp_path / "out", prepared=none, quiet=True)

    assert silent.why == "a signal ended it (code -9)."
    assert forked == refused and refused.is_refused and "not an empty folder" in refused.why
    assert not killed.is_refused and killed.why == "a signal ended it (code -9). It had said: a warning"


@pytest.mark.parametrize("changed", ["small.py", "parts.py"])
def test_a_sweep_whose_files_are_changed_begins_no_more_runs(changed, file, tmp_path):
    (tmp_path / "parts.py").write_text("lr = 5e-3\n")
    file.write_text(f"from parts import lr\n{file.read_text()}")
    first, second = jobs_of(file, ["seed=0,1"], tmp_path / "out")
    train(first.experiment, first.path, quiet=True, command="snn-bp train")
    before = (tmp_path / changed).read_text()
    prepared: Any = SimpleNamespace(begin=lambda _: None, is_preparing=lambda: False)

    sweeping.make(tmp_path / "out")
    (tmp_path / changed).write_text(before + "# another\n")
    with pytest.raises(SnnError, match=rf"{changed}: it was changed while a sweep is at work"):
        processes.train_all([first, second], file, tmp_path / "out", prepared=prepared, quiet=True)

    assert not second.path.exists()
    first.check_source()  # goes on by its own copy
    (tmp_path / changed).write_text(before)
    second.check_source()


def test_settings_that_are_as_good_as_the_chosen_one_are_told():
    def found(*figures):
        settings = tuple(study.Setting({"train.lr": str(each)}, (), (each,)) for each in figures)
        return study.Sweep(Path("out"), "accuracy", True, settings, None, {}).lines()

    assert "one other setting is as good" in found(0.5, 0.5, 0.25)[1]
    assert "2 other settings are as good" in found(0.5, 0.5, 0.5)[1]
    assert found(0.5, 0.25) == [found(0.5, 0.25)[0], "there is no test split"]


def test_the_definitions_of_a_file_are_read_once_for_a_whole_grid(tmp_path, monkeypatch):
    path = tmp_path / "own.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom snn_bp import *\n\n@dataclass(frozen=True)\nclass Score:\n"
        "    name = 'score'\n    higher_is_better = True\n    def __call__(self, scores, targets): return 0.5\n"
        f"experiment = {tiny(epochs=1)!r}\n"
    )
    parsed = []
    monkeypatch.setattr(definitions, "_statement", lambda *given: parsed.append(given) or made(*given))

    jobs_of(path, ["seed=0..29", "train.metric=Score()"], tmp_path / "out")

    assert 0 < len(parsed) < 20


@pytest.mark.slow
def test_a_sweep_whose_folder_was_moved_begins_no_more_runs(file, tmp_path, monkeypatch):
    out = sweeping.make(tmp_path / "out")
    begun = []

    def start(job, slot, *_):
        begun.append(job)
        out.rename(tmp_path / "moved")
        ended = SimpleNamespace(poll=lambda: 2, wait=lambda: 2, kill=lambda: None, returncode=2)
        return processes._Running(job, slot, ended, io.BytesIO(b"error: moved"))  # type: ignore[arg-type]

    monkeypatch.setattr(processes._Running, "start", start)
    prepared: Any = SimpleNamespace(begin=lambda _: None, is_preparing=lambda: False)

    with pytest.raises(SnnError, match=r"out: the folder was moved, .* its --out where it lies now"):
        processes.train_all(jobs_of(file, ["seed=0..3"], out), file, out, prepared=prepared, quiet=True)
    assert len(begun) == 1 and not out.exists()


def test_a_run_that_fails_is_named_and_the_others_are_trained(file, tmp_path):
    out = tmp_path / "out"
    runs = jobs_of(file, ["seed=0,1"], out)
    runs[0].path.mkdir(parents=True)
    (runs[0].path / "mine.txt").write_text("no run")

    with pytest.raises(SnnError, match=r"1 of 2 runs failed.*not an empty folder"):
        sweeping.run_sweep(runs, file, out, parallel=2)

    assert runs[1].results() is not None and not (out / sweeping.SWEPT).exists()


@pytest.mark.parametrize(("signum", "late"), [(signal.SIGTERM, "look"), (signal.SIGINT, "compare")])
def test_a_signal_behind_the_runs_is_told_and_the_command_goes_on(signum, late, file, by_hand, monkeypatch, capsys):
    words = ["sweep", str(file), "train.lr=5e-3,1e-2", "--out", str(file.parent / "swept")]
    module, name = {"look": (sweeping, "evaluate"), "compare": (snn_bp.reports, "compare")}[late]
    real = getattr(module, name)

    def signalled(*given: Any) -> Any:
        os.kill(os.getpid(), signum)
        return real(*given)

    monkeypatch.setattr(sys, "argv", ["snn-bp", *words])
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as leaving:
        patch.setattr(module, name, signalled)
        cli.guarded(cli.app, words)
    assert leaving.value.code == 128 + signum
    assert capsys.readouterr().err.endswith(f"stopped and saved. Go on with: snn-bp {shlex.join(words)}\n")

    cli.guarded(cli.app, words)

    assert "chosen by validation" in capsys.readouterr().out


@pytest.mark.parametrize("differ", ("names", "contents"))
def test_settings_on_two_data_sets_of_the_same_size_do_not_compare_in_silence(differ, file, monkeypatch, capsys):
    def other(data):
        dataset = few(data)
        if data.steps == 3:
            field = {"names": "names", "contents": "hashes"}[differ]
            change = {
                "names": lambda part: tuple(f"b/{name}" for name in part.names),
                "hashes": lambda part: part.hashes + 1,
            }
            parts = {name: replace(part, **{field: change[field](part)}) for name, part in dataset.parts.items()}
            dataset = replace(dataset, parts=parts)
        return dataset

    monkeypatch.setattr(jobs, "load", other)
    swept = jobs_of(file, ["data.steps=2,3"], file.parent / "swept")

    if differ == "names":
        with pytest.raises(SnnError, match="hold out different recordings"):
            jobs.check_comparable(swept)
    else:
        jobs.check_comparable(swept)
        assert "recordings of the same names with other contents" in capsys.readouterr().out


def test_a_last_look_that_memory_is_too_small_for_names_what_a_sweep_has(file, by_hand, monkeypatch):
    said = {}

    def full(task, *_, option="", **__):
        said[task] = option
        raise SnnError(f"{task}: too much")

    monkeypatch.setattr("snn_bp.runs.memory.check_room_for", full)

    with pytest.raises(SnnError, match="sweep: evaluating the test split"):
        sweep(file, ["train.lr=5e-3,1e-2"], out=file.parent / "swept", quiet=True)
    assert list(said.values()) == [""]
