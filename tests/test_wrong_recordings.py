"""Which recordings are wrong: those that are, the farthest first, with what the network saw of them and did."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import runs
import torch
from test_report import Page

from snn_bp import CountCrossEntropy, MeanSquaredPotential, MembraneCrossEntropy, Run, SnnError, VanRossum
from snn_bp.model.targets import KINDS, UNLABELLED, Targets
from snn_bp.reports.page import Section, render
from snn_bp.reports.plots.answers import StepCounts, answer, scores_so_far
from snn_bp.reports.wrong import LISTED, _counts, _Pictures, wrong
from snn_bp.runs.answers import Answers

few_digits, finished = runs.few_digits, runs.finished
pytestmark = pytest.mark.usefixtures("few_digits")

NAMES = ("a", "b", "c")
BATCH, STEPS = 4, 6
SCORES = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 1.5, 9.0], [0.5, 0.25, 0.0]])
VALUES = torch.tensor([0, 2, 0, 0])  # right, wrong by 1, wrong by 8, right
EVERY_STEP = torch.linspace(-1, 1, BATCH * STEPS * 3).view(BATCH, STEPS, 3)
KEPT = {
    "class": (SCORES, VALUES),
    "class per step": (
        torch.nn.functional.one_hot(torch.zeros(BATCH, STEPS, dtype=torch.long), 3).float(),
        torch.tensor([[0] * 6, [0, 0, 0, 1, 1, 1], [1] * 6, [UNLABELLED] * 5 + [0]]),
    ),
    "vector": (SCORES, SCORES + torch.tensor([0.0, 1.0, 5.0, 0.0])[:, None]),
    "vector per step": (EVERY_STEP, EVERY_STEP + torch.tensor([0.0, 1.0, 5.0, 0.0])[:, None, None]),
    "labels": (SCORES - 0.75, torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]])),
    "spikes": (
        torch.zeros(BATCH, STEPS, 3),
        torch.zeros(BATCH, STEPS, 3).index_put((torch.tensor([1, 2, 2, 2]), torch.tensor([2, 0, 2, 4])), torch.ones(3)),
    ),
}
LOSSES = {"class per step": MembraneCrossEntropy(), "spikes": VanRossum(tau=2.0), "class": CountCrossEntropy()}


def without_recordings(run: Run, kind: str, monkeypatch) -> Run:
    """The run with another loss, and its recordings not here."""
    opened = Run(run.path)
    train = replace(run.experiment.train, loss=LOSSES.get(kind, MeanSquaredPotential()))
    monkeypatch.setattr(opened, "experiment", replace(run.experiment, train=train))

    def dataset():
        raise SnnError("they lie elsewhere.")

    monkeypatch.setattr(opened, "dataset", dataset)
    return opened


def kept_of(kind):
    scores, values = KEPT[kind]
    return Answers(Targets(kind, NAMES), tuple("pqrs"), scores, values, None)


def rows_of(section: Section) -> list[str]:
    return [row[0] for row in section.tables[0].rows]


@pytest.mark.parametrize("kind", KINDS)
def test_the_recordings_of_any_kind_of_target_come_with_the_farthest_first(kind, finished, monkeypatch):
    section = wrong(without_recordings(finished, kind, monkeypatch), "test", kept_of(kind))

    assert rows_of(section)[:2] == ["r", "q"]
    assert not {"p", "s"} & set(rows_of(section)) or kind == "labels"
    assert section.sentences[-1] == "They cannot be drawn: they lie elsewhere."


def test_labels_that_differ_are_counted(finished, monkeypatch):
    section = wrong(without_recordings(finished, "labels", monkeypatch), "test", kept_of("labels"))

    assert section.tables[0].rows == [("r", "none", "a, b, c"), ("q", "b", "b, c")]
    assert section.sentences[0].startswith("2 of 4 recordings of the test split have a wrong label")


def test_recordings_that_are_all_right_are_said_to_be(finished, monkeypatch):
    kept = replace(kept_of("class"), values=SCORES.argmax(1))

    section = wrong(without_recordings(finished, "class", monkeypatch), "test", kept)

    assert section.sentences == ["All 4 recordings of the test split are right."] and not section.tables


def test_a_run_that_kept_no_predictions_says_so(finished):
    assert wrong(finished, "train", None).sentences[0] == "The run keeps no predictions of the train split."


def test_other_recordings_than_those_that_were_evaluated_are_not_drawn(finished):
    kept = Answers.read(finished.path, "test")
    assert kept is not None

    section = wrong(finished, "test", replace(kept, names=kept.names[::-1]))

    assert not section.images and "are not those that were evaluated" in section.sentences[-1]


@pytest.fixture(scope="module")
def drawn(finished):
    with runs.loading(runs.few):
        return wrong(finished, "test", Answers.read(finished.path, "test"))


def test_the_table_has_the_recordings_that_the_predictions_have_as_wrong(drawn, finished):
    with (finished.path / "predictions" / "test.csv").open() as file:
        missed = {row["recording"]: row for row in csv.DictReader(file) if row["right"] == "0"}

    rows = drawn.tables[0].rows
    assert len(rows) == min(LISTED, len(missed))
    for name, true, said, highest, score, rank in rows:
        assert (missed[name]["target"], missed[name]["prediction"]) == (true, said)
        assert float(highest) >= float(score) and int(rank) >= 2
    ahead = [float(row[3]) - float(row[4]) for row in rows]
    assert ahead == sorted(ahead, reverse=True)


def test_pictures_are_of_confusions_that_differ_and_say_what_happened(drawn):
    said = [image.caption for image in drawn.images]
    pairs = {tuple(part.split("(")[0] for part in caption.split(": ")[1].split(", answer")) for caption in said}

    assert len(said) == len(pairs) == 4
    assert all("was ahead at no step" in each or "was last ahead at step" in each for each in said)
    assert all("model.3 LIF(beta=0.7)" in image.alt and "events" in image.alt for image in drawn.images)
    Page(render(title="", lead="", sections=[drawn]))


def test_a_wrong_recording_is_compared_with_right_ones_of_its_class(finished):
    kept, dataset = Answers.read(finished.path, "test"), finished.dataset()
    assert kept is not None
    is_wrong = kept.scores.argmax(1) != kept.values
    known = set(kept.values[~is_wrong].tolist())
    row = next(row for row in is_wrong.nonzero()[:, 0].tolist() if int(kept.values[row]) in known)
    pictures = _Pictures(finished.network(), dataset, "test", kept, CountCrossEntropy(), is_wrong.float(), is_wrong)

    others = pictures._compared_with(row)
    x = dataset.batch("test", dataset.ids["test"][[row, *others]])[0]
    (seen, hidden, last), out = pictures._activity(x, None)

    assert others and all(kept.values[other] == kept.values[row] and not is_wrong[other] for other in others)
    assert seen.usual is not None
    np.testing.assert_allclose(seen.counts, x[:, 0].flatten(1).sum(1))
    np.testing.assert_allclose(seen.usual, x[:, 1:].flatten(2).sum(2).mean(1), rtol=1e-5)
    out = out.detach()
    np.testing.assert_allclose(last.counts, out[:, 0].sum(1))
    assert hidden.name == "model.3 LIF(beta=0.7)"
    np.testing.assert_allclose(scores_so_far(out[:, 0], kept.targets, CountCrossEntropy())[-1], kept.scores[row])


def test_steps_that_a_recording_does_not_have_are_not_counted():
    values = torch.ones(5, 3, 2)
    there = torch.tensor([[1.0, 1, 1], [1, 1, 1], [1, 1, 0], [0, 1, 0]])  # the output comes a step late

    found = _counts("input", "events", values, there)

    assert found.counts.tolist() == [2, 2, 2]
    assert found.usual is not None and found.usual.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "kind, shape", [*((kind, (7,)) for kind in KINDS), ("class", (2, 5, 4)), ("class", (3, 3, 3, 3))], ids=str
)
def test_nothing_is_cut_in_the_picture_of_an_answer(kind, shape):
    names = ("an unusually long name of a class", "b", "c")
    x = torch.rand(STEPS, *shape, generator=torch.Generator().manual_seed(0))
    out = torch.rand(STEPS, 3, generator=torch.Generator().manual_seed(1))
    long = "model.2 Spiking(ALIF(beta=(0.98257, ..., 0.961493), rho=(0.995399, ..., 0.998335), kappa=0.1))"
    activity = [
        StepCounts("input", "events", np.arange(6.0), np.ones(6)),
        StepCounts(long, "spikes", np.zeros(6), None),
    ]
    target = KEPT[kind][1][2]

    figure = answer(
        x,
        activity,
        out,
        target,
        targets=Targets(kind, names),
        loss=LOSSES.get(kind, MeanSquaredPotential()),
        step_ms=2.0,
    )

    figure.draw_without_rendering()
    taken, page = figure.get_tightbbox(), figure.bbox_inches.padded(0.01)
    assert page.x0 <= taken.x0 and page.y0 <= taken.y0 and taken.x1 <= page.x1 and taken.y1 <= page.y1
