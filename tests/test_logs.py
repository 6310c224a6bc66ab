"""Logs beside the run folder: what they are told, that they change nothing, and that none can end a training."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from runs import assert_same_run, cli, tiny

from snn_bp import Run, SnnError, TensorBoard, resume, train, training

few_digits, finished = runs.few_digits, runs.finished
pytestmark = pytest.mark.usefixtures("few_digits")
BATCHES = 5  # an epoch of 150 recordings


class Kept:
    """A log in memory; with `until` it fails from that row on."""

    def __init__(self, until=None):
        self.rows, self.until, self.ended = [], until, 0

    def log(self, row, step=None):
        if self.until is not None and len(self.rows) >= self.until:
            raise OSError("no space left")
        self.rows.append((step, dict(row)))

    def finish(self):
        self.ended += 1


class Meddling(Kept):
    """A log that draws random numbers, reseeds, and empties what it is given."""

    def log(self, row, step=None):
        super().log(row, step)
        row.clear()
        torch.manual_seed(step)
        torch.rand(3), np.random.rand(3)


def folder_of(run):
    return {str(file.relative_to(run.path)) for file in run.path.rglob("*")}


def texts(run):
    return [line[20:] for line in (run.path / "log.txt").read_text().splitlines()]


def test_a_log_is_told_of_every_step_every_row_and_the_test_split(tmp_path):
    kept = Kept()

    run = train(tiny(), tmp_path / "run", quiet=True, log=kept)

    steps = [step for step, row in kept.rows if "step/loss" in row]
    assert steps == list(range(1, 2 * BATCHES + 1)) and kept.ended == 1
    of_epochs = {step: row for step, row in kept.rows if "epoch" in row}
    assert list(of_epochs) == [BATCHES, 2 * BATCHES]
    for row, (_, told) in zip(run.metrics(), of_epochs.items(), strict=True):
        assert row == {name: pytest.approx(told[name]) for name in row}
    results = run.results()["test"]
    assert kept.rows[-1] == (
        2 * BATCHES,
        {"test_accuracy": results["accuracy"], "test_loss": results["loss"]},
    )


@pytest.mark.parametrize("log", [Kept, Meddling, lambda: Kept(until=3)], ids=["plain", "meddling", "failing"])
def test_a_log_changes_neither_the_run_nor_the_random_numbers_of_the_caller(log, finished, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()

    run = train(tiny(), tmp_path / "run", quiet=True, log=log())

    assert_same_run(run, finished)
    assert folder_of(run) == folder_of(finished)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_log_that_fails_is_one_line_and_is_asked_no_more(tmp_path, capsys):
    kept = Kept(until=3)

    run = train(tiny(), tmp_path / "run", log=kept)

    line = "log: Kept failed (OSError('no space left')); the run goes on and logs no more there"
    assert len(kept.rows) == 3 and kept.ended == 1
    assert texts(run).count(line) == 1 and capsys.readouterr().out.count(line) == 1
    assert run.results()["epochs"] == 2


def test_a_log_that_cannot_end_is_one_line(tmp_path):
    class Endless(Kept):
        def finish(self):
            raise RuntimeError("offline")

    run = train(tiny(epochs=1), tmp_path / "run", quiet=True, log=Endless())

    assert [line for line in texts(run) if "log: Endless failed (RuntimeError('offline'))" in line]
    assert run.results()


def test_a_log_without_an_end_and_a_module_that_logs_will_do(tmp_path):
    class Bare:
        rows = 0

        def log(self, row, step):
            self.rows += 1

    bare = Bare()
    train(tiny(epochs=1), tmp_path / "run", quiet=True, log=bare)

    assert bare.rows == BATCHES + 1


def test_a_loop_of_ones_own_logs_ends_its_log_at_break_and_goes_on_in_another(finished, tmp_path):
    first, second = Kept(), Kept()
    for event in training(tiny(), tmp_path / "run", quiet=True, log=first):
        if event.batch == 3:
            break
    assert [step for step, _ in first.rows] == [1, 2, 3] and first.ended == 1

    for _ in training(tiny(), tmp_path / "run", resume=True, quiet=True, log=second):
        pass

    assert [step for step, _ in second.rows] == [*range(4, 2 * BATCHES + 1), 2 * BATCHES] and second.ended == 1
    assert_same_run(Run(tmp_path / "run"), finished)


def test_a_finished_run_has_nothing_to_log(finished):
    kept = Kept()

    resume(finished.path, quiet=True, log=kept)

    assert kept.rows == [] and kept.ended == 1


@pytest.mark.parametrize("log", [3, "tensorboard", Kept, TensorBoard, print], ids=str)
def test_what_is_no_log_is_refused_before_a_folder_stands(log, tmp_path):
    with pytest.raises(SnnError, match=r"log=.*a method log\(row, step=\.\.\.\), found .*TensorBoard\(\)"):
        train(tiny(), tmp_path / "run", quiet=True, log=log)
    with pytest.raises(SnnError, match=r"log="):
        next(iter(training(tiny(), tmp_path / "run", quiet=True, log=log)))

    assert not (tmp_path / "run").exists()


# TensorBoard


@pytest.fixture
def board():
    """Reads scalars as TensorBoard does: a folder's tags, each with its steps and values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of protobuf and of setuptools
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        pytest.importorskip("torch.utils.tensorboard")

    def read(folder: Path) -> dict[str, dict[int, float]]:
        events = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        return {
            tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]
        }  # fmt: skip

    return read


def test_tensorboard_has_the_rows_of_the_run_and_leaves_its_folder_alone(board, finished, tmp_path):
    run = train(tiny(), tmp_path / "run", quiet=True, log=TensorBoard())

    seen = board(tmp_path / "tensorboard/run")
    for name in ("train_loss", "validation_accuracy", "spike_rate", "lr"):
        assert [value for _, value in seen[name]] == pytest.approx([row[name] for row in run.metrics()], rel=1e-6)
    assert [step for step, _ in seen["train_loss"]] == [BATCHES, 2 * BATCHES]
    assert [step for step, _ in seen["step/loss"]] == list(range(1, 2 * BATCHES + 1))
    assert folder_of(run) == folder_of(finished)
    assert_same_run(run, finished)


def test_a_resumed_run_goes_on_in_the_same_curves(board, tmp_path):
    log = TensorBoard(tmp_path / "curves")
    train(tiny(), tmp_path / "whole", quiet=True, log=TensorBoard(tmp_path / "all"))
    for event in training(tiny(), tmp_path / "run", quiet=True, log=log):
        if (event.epoch, event.batch) == (2, 2):
            break
    saved = Run(tmp_path / "run").load("last")
    assert (saved.epoch, saved.batch) == (1, 2)

    resume(tmp_path / "run", quiet=True, log=log)

    seen, wanted = board(tmp_path / "curves"), board(tmp_path / "all")
    same = [name for name in wanted if name not in runs.TIMES]
    assert {name: seen[name] for name in same} == {name: wanted[name] for name in same}


def test_what_a_killed_process_logged_and_did_not_save_is_logged_once(board, tmp_path, monkeypatch):
    log, real, calls = TensorBoard(tmp_path / "curves"), runs.training.train_step, []

    def step(*arguments, **options):
        calls.append(1)
        if len(calls) > 8:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(runs.training, "train_step", step)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), tmp_path / "run", quiet=True, log=log)  # saved behind epoch 1 alone

    resume(tmp_path / "run", quiet=True, log=log)

    assert [step for step, _ in board(tmp_path / "curves")["step/loss"]] == list(range(1, 2 * BATCHES + 1))


def test_a_run_killed_in_its_last_evaluation_logs_it_when_resumed(board, tmp_path, monkeypatch):
    log, kept = TensorBoard(tmp_path / "curves"), Kept()

    def die(*arguments):
        raise KeyboardInterrupt

    for number in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(runs.training, "end_run", die)
            with pytest.raises(KeyboardInterrupt):
                train(tiny(), tmp_path / f"run{number}", quiet=True, log=(log, kept)[number])

    run = resume(tmp_path / "run0", quiet=True, log=log)
    resume(tmp_path / "run1", quiet=True, log=kept)

    accuracy = run.results()["test"]["accuracy"]
    seen = board(tmp_path / "curves")
    assert [step for step, _ in seen["train_loss"]] == [BATCHES, 2 * BATCHES]
    assert seen["test_accuracy"] == [(2 * BATCHES, pytest.approx(accuracy))]
    assert (kept.rows[-1][0], kept.rows[-1][1]["test_accuracy"]) == (2 * BATCHES, accuracy)


def test_a_folder_that_cannot_be_written_ends_no_training(board, tmp_path):
    (tmp_path / "file").write_text("")

    run = train(tiny(epochs=1), tmp_path / "run", quiet=True, log=TensorBoard(tmp_path / "file"))

    assert [line for line in texts(run) if line.startswith("log: TensorBoard failed (")] and run.results()


def test_without_tensorboard_it_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("snn_bp.trainer.logs.find_spec", lambda name: None)

    with pytest.raises(SnnError, match=r"pip install 'snn_bp\[tensorboard\]'"):
        train(tiny(), tmp_path / "run", quiet=True, log=TensorBoard())

    assert not (tmp_path / "run").exists()


def test_the_command_line_logs_and_refuses_a_log_that_it_does_not_know(board, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("small.py").write_text(f"from snn_bp import *\nexperiment = {tiny(epochs=1)!r}\n")

    cli.guarded(cli.app, ["train", "small.py", "--log", "tensorboard"])
    assert [step for step, _ in board(tmp_path / "runs/tensorboard/small")["train_loss"]] == [BATCHES]

    with pytest.raises(SystemExit):
        cli.guarded(cli.app, ["train", "small.py", "--log", "tensorbord"])
    assert "tensorboard" in capsys.readouterr().err
