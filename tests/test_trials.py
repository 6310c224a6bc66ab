"""A sweep by trials: the space, points that depend on what was known alone, kills that change none of them."""

import importlib.util
import math
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import cli, few, tiny
from test_sweep import trained_by

from snn_bp import Run, SnnError, compare, sweep
from snn_bp.files import read_object, write_object
from snn_bp.runs.changes import override
from snn_bp.searches import jobs, processes, space, sweeping, trials
from snn_bp.searches.space import Choice, Range, proposed, space_of

SPACE = ("train.lr=log(1e-4,1e-1)", "model.1.units=choice(8,12,16)")
needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


@pytest.fixture
def file(tmp_path) -> Path:
    """An experiment as a Python file."""
    path = tmp_path / "small.py"
    path.write_text(f"from snn_bp import *\nexperiment = {tiny(epochs=1)!r}\n")
    return path


class Trainer:
    """What stands for the training of runs: a result that the rate, the width and the seed say, and a count of runs."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.stop_after = math.inf
        self.looks: list[str] = []
        self.failing = lambda job: False
        self.is_refused = True

    def train_all(self, runs, file, out, **_):
        kept = [trial["point"] for trial in read_object(out / trials.FILE)["trials"]] if runs else []
        failed = []
        for job in [job for job in runs if job.results() is None]:
            assert {key: value for key, value in job.point.items() if key != "seed"} in kept
            if len(self.trained) >= self.stop_after:
                raise KeyboardInterrupt
            self.trained.append(job.path.name)
            if self.failing(job):
                failed.append(processes.Failure(job, "the loss is nan", self.is_refused))
                continue
            run = Run.create(job.experiment, job.path, command="made here", changes=())
            figure = {
                "accuracy": accuracy(job.experiment),
                "loss": 1.0,
                "correct": 1,
                "samples": 2,
                "low": 0,
                "high": 1,
            }
            write_object(run.path / "results.json", {"epochs": 1, "best_epoch": 1, "validation": figure})
        return failed


def accuracy(experiment) -> float:
    """The best rate is 0.01, the best width 12."""
    width = abs(experiment.model[1].units - 12) / 40
    return max(0.0, 0.9 - (math.log10(experiment.train.lr) + 2) ** 2 / 5 - width - experiment.seed / 100)


@pytest.fixture
def trainer(monkeypatch):
    """Let runs be trained by a `Trainer`."""
    found = Trainer()

    class Seen:
        def __init__(self, run, split):
            found.looks.append(run.path.name)

        def record(self):
            return {"accuracy": 0.5}

    monkeypatch.setattr(sweeping, "evaluate", Seen)
    monkeypatch.setenv("SNN_BP_FORKED_RUNS", "0")
    for module in (sweeping, trials):
        monkeypatch.setattr(module, "train_all", found.train_all)
    monkeypatch.setattr(trials, "largest_of", lambda *_: 0)
    for module in (jobs, sweeping):
        monkeypatch.setattr(module, "load", few)
    return found


def points_in(out: Path) -> list[dict[str, str]]:
    return [trial["point"] for trial in read_object(out / trials.FILE)["trials"]]


def takes(changes):
    """What an experiment takes."""
    return override(tiny(), list(changes))


@pytest.mark.parametrize(
    "change, dimension",
    [
        ("train.lr=log(1e-4,1e-2)", Range(1e-4, 1e-2, True, False)),
        ("train.lr= uniform(1e-4, 0.5) ", Range(1e-4, 0.5, False, False)),
        ("train.clip=uniform(1,3)", Range(1.0, 3.0, False, False)),  # which takes 1.5 too
        ("data.batch=log(8,256)", Range(8, 256, True, True)),
        ("model.1.units=uniform(4,9)", Range(4, 9, False, True)),
        ("model.1.units=choice(64,128,256)", Choice(("64", "128", "256"))),
        ("train.epochs=choice(1..3)", Choice(("1", "2", "3"))),
        ("train.surrogate=choice(ATan(slope=2),Boxcar())", Choice(("ATan(slope=2)", "Boxcar()"))),
    ],
)
def test_a_range_or_a_choice_is_read_and_integers_are_searched_where_the_setting_takes_no_other(change, dimension):
    found = space_of([change, "train.clip=1.0", "seed=0..2"] if "clip" not in change else [change], takes)

    assert found.dimensions[change.partition("=")[0]] == dimension
    assert found.axes == [change.partition("=")[0]] + ["seed"] * ("clip" not in change)


@pytest.mark.parametrize(
    "changes, told",
    [
        (["train.lr=log(0,1)"], r"above 0. uniform\(0,1\)"),
        (["train.lr=log(1e-2,1e-4)"], "the lower first"),
        (["train.lr=log(1e-2)"], "two numbers"),
        (["train.lr=uniform(a,b)"], "two numbers"),
        (["train.lr=uniform(nan,1)"], "two numbers"),
        (["train.lr=1e-3,1e-2"], r"train.lr=choice\(1e-3,1e-2\)"),
        (["train.lr=uniform(-1,1)"], "a number above 0"),
        (["data.batch=uniform(1.5,8)"], "an integer"),
        (["train.lrr=uniform(1,2)"], "Did you mean 'lr'"),
        (["train.optimizer=choice(adam,adamm)"], "Did you mean"),
        (["seed=choice(0,1)"], "seed=0..2"),
        (["seed=0..2"], "none is given"),
        (["train.lr=choice(0.1)"], "none is given"),
        (["train.lr=log(1e-4,1)", "train.lr=0.1"], "stands there twice"),
    ],
)
def test_a_wrong_space_is_one_error_that_says_what_would_work(changes, told):
    with pytest.raises(SnnError, match=told):
        space_of(changes, takes)


@pytest.mark.parametrize(
    "size, value, text", [((1e-4, 1e-2), 0.00123456, "0.001235"), ((0.12341, 1), 0.12341, "0.12341")]
)
def test_a_value_has_four_digits_unless_they_lie_outside(size, value, text):
    assert Range(*size, True, False).written(value) == text


def test_without_optuna_it_is_said_what_installs_it(file, tmp_path, monkeypatch):
    monkeypatch.setattr(space, "find_spec", lambda name: None)

    with pytest.raises(SnnError, match=r"pip install 'snn_bp\[optuna\]'"):
        sweep(file, SPACE, out=tmp_path / "out", trials=3)

    assert not (tmp_path / "out").exists()


@needs_optuna
@pytest.mark.parametrize(
    "parallel, count", [(2, 4), *[pytest.param(each, 13, marks=pytest.mark.slow) for each in (1, 3)]]
)
def test_points_are_those_of_a_sweep_that_nobody_killed_whenever_it_was(parallel, count, file, tmp_path, trainer):
    how = {"jobs": parallel, "trials": count, "quiet": True}
    whole = sweep(file, SPACE, out=tmp_path / "whole", **how)
    trainer.trained.clear()
    for stop in (1, count - 1):
        trainer.stop_after = stop
        with pytest.raises(KeyboardInterrupt):
            sweep(file, SPACE, out=tmp_path / "killed", **how)
    trainer.stop_after = math.inf

    killed = sweep(file, SPACE, out=tmp_path / "killed", **how)

    assert points_in(tmp_path / "killed") == points_in(tmp_path / "whole")
    assert [each.values for each in killed.settings] == [each.values for each in whole.settings]
    assert len(trainer.trained) == count and len(trainer.looks) == 2  # of each sweep one


@needs_optuna
def test_each_point_follows_from_what_its_proposal_knew(file, tmp_path, trainer):
    found = sweep(file, [*SPACE, "seed=3"], out=tmp_path / "out", trials=12, jobs=3, quiet=True)

    kept = read_object(tmp_path / "out" / trials.FILE)["trials"]
    spanned = space_of([*SPACE, "seed=3"], takes)
    figures = {tuple(each.values.items()): -each.validation[0] for each in found.settings}
    assert [trial["known"] for trial in kept] == [3 * (number // 3) for number in range(12)]
    for number in (0, 4, 9, 11):
        before = [
            (trial["point"], figures[tuple(trial["point"].items())] if row < kept[number]["known"] else None)
            for row, trial in enumerate(kept[:number])
        ]
        assert proposed(spanned, before, seed=3) == kept[number]["point"]
    assert len({tuple(point.items()) for point in points_in(tmp_path / "out")}) == 12


@needs_optuna
def test_the_first_ten_points_are_drawn_whatever_is_known():
    spanned, known = space_of(SPACE, takes), []
    for number in range(10):
        point = proposed(spanned, known, seed=0)
        assert point == proposed(spanned, [(each, None) for each, _ in known], seed=0)
        known.append((point, float(number)))

    assert proposed(spanned, known, seed=0) != proposed(spanned, [(each, None) for each, _ in known], seed=0)
    assert proposed(spanned, known, seed=0) != proposed(spanned, known, seed=1)


@needs_optuna
def test_the_mean_over_seeds_chooses_and_its_runs_alone_are_looked_at(file, tmp_path, trainer):
    found = sweep(file, [*SPACE, "seed=0..2"], out=tmp_path / "out", trials=3, quiet=True)

    means = [sum(each.validation) / 3 for each in found.settings]
    assert (
        means == sorted(means, reverse=True)
        and len(means) == 3
        and all(len(each.paths) == 3 for each in found.settings)
    )
    assert trainer.looks == [path.name for path in found.settings[0].paths] and len(found.test or ()) == 3
    assert all(
        name.startswith("train.lr=") and name.endswith(f",seed={row % 3}") for row, name in enumerate(trainer.trained)
    )
    assert "looked at once" in str(found) and "train.lr" in found._repr_html_()


@needs_optuna
def test_a_trial_of_which_a_run_fails_counts_as_bad_and_is_not_repeated(file, tmp_path, trainer):
    trainer.failing = lambda job: job.experiment.train.lr > 0.01

    found = sweep(file, SPACE, out=tmp_path / "out", trials=6, quiet=True)
    count = len(trainer.trained)
    again = sweep(file, SPACE, out=tmp_path / "out", trials=6, quiet=True)

    assert len(found.settings) + len(found.failed) == 6 and found.failed and again == found
    assert all(float(each.values["train.lr"]) <= 0.01 for each in found.settings)
    assert len(trainer.trained) == count == 6 and "failed: train.lr=" in str(found)


@needs_optuna
def test_a_run_that_something_else_ended_fails_no_trial(file, tmp_path, trainer):
    trainer.failing, trainer.is_refused = (lambda job: len(trainer.trained) == 3), False

    with pytest.raises(SnnError, match=r"1 of 1 runs failed.*The same command goes on"):
        sweep(file, SPACE, out=tmp_path / "out", trials=5, quiet=True)
    trainer.failing = lambda job: False

    assert not sweep(file, SPACE, out=tmp_path / "out", trials=5, quiet=True).failed


@needs_optuna
def test_where_all_trials_fail_nothing_is_chosen(file, tmp_path, trainer):
    trainer.failing = lambda job: True

    with pytest.raises(SnnError, match="all 3 trials failed, the first: the loss is nan"):
        sweep(file, SPACE, out=tmp_path / "out", trials=3, quiet=True)


@needs_optuna
def test_a_setting_that_cannot_be_trained_is_a_failed_trial(file, tmp_path, trainer, monkeypatch):
    monkeypatch.setattr(trials, "largest_of", jobs.largest_of)
    spanned = ["model.6.beta=uniform(0.1,0.9)", "model.4.units=choice(10,7)"]  # there are 10 classes

    found = sweep(file, spanned, out=tmp_path / "out", trials=4, quiet=True)

    assert {each.values["model.4.units"] for each in found.settings} == {"10"} and found.failed
    assert all("10 classes" in why for why in found.failed.values())


@needs_optuna
@pytest.mark.parametrize(
    "more, told",
    [
        ({"trials": 4}, "finished after 3 trials, not 4.*--trials 3 shows it"),
        ({"trials": 2}, "finished after 3 trials, not 2"),
        ({"changes": ["train.lr=log(1e-4,1e-3)"]}, "another search is here"),
        ({"changes": ["model.1.units=choice(8,12,16)"]}, r"--trials 3 of a space of 3 points.*leave --trials out"),
        ({"changes": ["train.metric=choice(None,F1())", SPACE[0]]}, "train.metric says which setting is best"),
        ({"changes": ["train.test=choice(never,once)", SPACE[0]]}, "Leave it out|test"),
        ({"changes": SPACE[0]}, "a list of texts"),
        ({"trials": 1}, "from 2 up"),
    ],
)
def test_what_a_finished_search_is_not_is_refused(more, told, file, tmp_path, trainer):
    sweep(file, SPACE, out=tmp_path / "out", trials=3, quiet=True)

    with pytest.raises(SnnError, match=told):
        sweep(file, **({"changes": SPACE, "out": tmp_path / "out", "trials": 3, "quiet": True} | more))


@needs_optuna
def test_fewer_runs_at_a_time_go_on_where_memory_holds_no_more(file, tmp_path, trainer, monkeypatch):
    at_a_time = []
    monkeypatch.setattr(trials, "largest_of", lambda runs, refused: 100 * len(runs))
    monkeypatch.setattr(trials, "available", lambda *, others: 200 * 4 * others)
    monkeypatch.setattr(
        trials, "train_all", lambda *runs, parallel, **how: at_a_time.append(parallel) or trainer.train_all(*runs)
    )

    sweep(file, SPACE, out=tmp_path / "out", trials=4, jobs=4, quiet=True)

    assert at_a_time == [4, 2, 4][: len(at_a_time)] and 2 in at_a_time
    assert [trial["known"] for trial in read_object(tmp_path / "out" / trials.FILE)["trials"]] == [0] * 4


@needs_optuna
@pytest.mark.slow
def test_a_search_that_is_killed_and_goes_on_has_the_runs_of_one_that_is_not(file, tmp_path):
    asked = ["sweep", str(file), "train.lr=log(1e-3,1e-1)", "seed=0,1", "--trials", "3", "--jobs", "2", "--out"]
    start = [sys.executable, "-m", "snn_bp"]
    file.write_text(file.read_text().replace("epochs=1", "epochs=4"))  # long enough to be seen at work, and killed
    whole = subprocess.run([*start, *asked, str(tmp_path / "whole")], capture_output=True, text=True, timeout=300)
    for kill in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen([*start, *asked, str(tmp_path / "killed")], stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 90
        while not trained_by(process, tmp_path / "killed"):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        process.send_signal(kill)
        _, errors = process.communicate(timeout=60)
        assert kill == signal.SIGKILL or f"Go on with: snn-bp {shlex.join(asked)}" in errors
    killed = subprocess.run([*start, *asked, str(tmp_path / "killed")], capture_output=True, text=True, timeout=300)

    assert whole.returncode == killed.returncode == 0, whole.stderr + killed.stderr
    assert "chosen by validation: train.lr=" in killed.stdout
    mine, theirs = (
        [{name: part for name, part in group.figures.items() if name != "train_seconds"} for group in found.groups]
        for found in (compare(tmp_path / "whole"), compare(tmp_path / "killed"))
    )
    assert mine == theirs and points_in(tmp_path / "whole") == points_in(tmp_path / "killed")


@needs_optuna
@pytest.mark.parametrize("key, value", [("point", {"train.lr": "x"}), ("point", {"train.lr": "1e-2"}), ("known", "u")])
def test_a_file_of_trials_that_holds_something_else_is_one_error(key, value, file, tmp_path):
    point = {"train.lr": "0.01", "model.1.units": "8"}
    trial = {"point": point, "known": 0, "failed": ""}
    space = {key: text for key, _, text in (change.partition("=") for change in SPACE)}
    write_object(tmp_path / trials.FILE, {"space": space, "trials": [trial]})
    assert trials.Trials.of(file, SPACE, tmp_path, 3).trials == [trials.Trial(point, 0)]
    write_object(tmp_path / trials.FILE, {"space": space, "trials": [trial | {key: value}]})

    with pytest.raises(SnnError, match="does not hold what a sweep writes"):
        trials.Trials.of(file, SPACE, tmp_path, 3)


def test_a_list_of_commands_knows_no_trials(file, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        cli.guarded(cli.app, ["sweep", str(file), *SPACE, "--trials", "3", "--list"])

    assert "--list knows no trials" in capsys.readouterr().err
