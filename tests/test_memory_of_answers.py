"""What answers recordings (evaluate, predict, doctor, report, verify) says beforehand that memory is too small."""

import numpy as np
import pytest
import runs
import torch
from runs import few, tiny

from snn_bp import Run, diagnose, evaluate, export, plots, predict, report, verify
from snn_bp.errors import SnnError
from snn_bp.runs import memory
from snn_bp.verification.stages import Recordings

few_digits, finished = runs.few_digits, runs.finished
pytestmark = pytest.mark.usefixtures("few_digits")

SWITCH = "To try it all the same: SNN_BP_CHECK_MEMORY=0."


@pytest.fixture
def run(finished) -> Run:
    """The finished run, opened anew."""
    return Run(finished.path)


@pytest.fixture
def room(monkeypatch):
    """Let there be memory for so many recordings at a time on a way, threads and weights left out."""
    monkeypatch.setattr(memory, "_THREADS", 0)
    monkeypatch.setattr(memory, "WAYS", {way: (taken, 0) for way, (taken, _) in memory.WAYS.items()})

    def leave(recordings: float, way: memory.Way = "counting", kept: int = 0) -> None:
        experiment, dataset = tiny(), few(tiny().data, quiet=True)
        none, one = (memory.estimate(experiment, dataset, count, way=way, kept=kept).total for count in (0, 1))
        monkeypatch.setattr(memory, "available", lambda: int(none + recordings * (one - none) + 100))  # rounded

    return leave


def refused(call) -> str:
    with pytest.raises(SnnError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_evaluation_that_does_not_fit_names_the_batch_that_does(run, room):
    room(9)

    message = refused(lambda: evaluate(run))

    assert message.startswith("evaluate: 50 recordings in batches of 32 would take about") and SWITCH in message
    assert "this process can have" in message and "--batch 9 fits." in message
    assert evaluate(run, batch=9).samples == 50


def test_an_evaluation_that_may_just_fit_is_let_through_with_a_word(run, room, capsys):
    room(28)

    found = evaluate(run)

    said = capsys.readouterr().err
    assert found.samples == 50 and "It may be killed. --batch 28 fits." in said


def test_where_not_even_one_recording_fits_a_larger_machine_is_named(run, room):
    room(0.5)

    assert "takes a machine with more" in refused(lambda: evaluate(run))


def test_an_evaluation_is_tried_all_the_same_where_that_is_asked_for(run, room, monkeypatch):
    room(1)
    monkeypatch.setenv("SNN_BP_CHECK_MEMORY", "0")

    assert evaluate(run).samples == 50


def test_weights_that_no_machine_holds_are_refused_before_they_are_read(run, room, monkeypatch):
    room(1)
    monkeypatch.setattr(Run, "network", lambda *_: pytest.fail("the weights were read"))

    refused(lambda: evaluate(run))
    refused(lambda: predict(run, _events(32)))


def test_another_batch_gives_the_same_answers(run):
    whole, parts = evaluate(run), evaluate(run, batch=7)

    assert (parts.correct, parts.confusion, parts.spikes, parts.operations) == (
        whole.correct, whole.confusion, whole.spikes, whole.operations
    )  # fmt: skip
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)  # single precision, added up over other batches


@pytest.mark.parametrize("batch", [0, -3, 2.5, "7", True, float("nan")], ids=repr)
def test_a_batch_that_is_no_number_of_recordings_is_refused(run, batch):
    for call in (lambda: evaluate(run, batch=batch), lambda: predict(run, _events(3), batch=batch)):
        assert "batch" in refused(call) and "from 1 up" in refused(call)


def _events(count: int) -> list[np.ndarray]:
    """Recordings of a camera of 34 x 34 pixels."""
    drawn = np.random.default_rng(0)
    dtype = [("x", "u2"), ("y", "u2"), ("t", "i8"), ("p", "u1")]
    found = []
    for _ in range(count):
        (x, y), t, p = drawn.integers(34, size=(2, 300)), drawn.integers(312_000, size=300), drawn.integers(2, size=300)
        found.append(np.rec.fromarrays((x, y, np.sort(t), p), dtype=dtype))
    return found


def test_predictions_that_do_not_fit_name_the_batch_that_does_and_are_the_same_in_it(run, room, monkeypatch):
    recordings = _events(40)
    whole = predict(run, recordings)
    room(5, "answering", kept=40)

    message = refused(lambda: predict(run, recordings))
    parts = predict(run, recordings, batch=5)

    assert message.startswith("predict: 40 recordings in batches of 32") and "--batch 5 fits." in message
    assert parts.names == whole.names and torch.allclose(parts.scores, whole.scores)


def test_the_doctor_says_that_a_backward_pass_does_not_fit(run, room):
    room(4, "tracing")

    assert refused(lambda: diagnose(run)).startswith("doctor: a backward pass on 32 recordings would take about")
    assert refused(lambda: diagnose(tiny())).startswith("doctor: a backward pass on 32 recordings would take about")


def test_a_page_says_which_part_of_it_does_not_fit(run, room):
    room(1)

    page = report(run).read_text(encoding="utf-8")

    assert page.count("would take about") >= 3 and "This part is missing: doctor:" in page


def test_a_page_of_a_split_that_was_not_evaluated_is_refused_where_it_does_not_fit(run, room):
    room(1)

    assert refused(lambda: report(run, split="train")).startswith("report: 150 recordings in batches of 32 would take")


def test_pictures_of_a_backward_pass_are_refused_where_it_does_not_fit(run, room):
    room(0.1, "tracing")

    assert "1 recording would take about" in refused(lambda: plots.raster(run))


def test_a_replay_that_does_not_fit_is_refused_before_anything_is_written(run, room, tmp_path):
    room(11, "replaying integers")

    for call in (lambda: export(run, tmp_path / "a.net"), lambda: verify(run, tmp_path / "a.net")):
        message = refused(call)
        assert message.startswith("verify: 50 recordings at a time would take") and "--samples 11 fits." in message
    assert not list(tmp_path.iterdir())


def test_recordings_that_are_replayed_are_made_batch_by_batch(run):
    dataset = run.dataset()
    made = Recordings(dataset, "train", dataset.ids["train"])

    (x, targets), found = dataset.batch("train", dataset.ids["train"][128:]), list(made)

    assert len(made) == len(found) == 3 and [part[0].shape[1] for part in found] == [64, 64, 22]
    assert torch.equal(found[2][0], x) and torch.equal(made[-1][1], targets) and found[2][2] is None
