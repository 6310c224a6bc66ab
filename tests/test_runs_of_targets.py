"""Runs on every kind of target, with recordings of one length and of several: files, resume, figures, comparison."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import training
from scipy.stats import binomtest

from snn_bp import (
    F1,
    LI,
    LIF,
    R2,
    BatchNorm,
    BinaryCrossEntropy,
    CountCrossEntropy,
    Dense,
    Experiment,
    MeanSquaredPotential,
    MembraneCrossEntropy,
    Run,
    SnnError,
    Tau,
    Train,
    VanRossum,
    compare,
    diagnose,
    evaluate,
    report,
    resume,
    train,
)
from snn_bp.data import Dataset
from snn_bp.files import read_object, write_object
from snn_bp.instruments import diagnose_course
from snn_bp.model.metrics import metric_for, value_of
from snn_bp.model.targets import KINDS, PER_STEP, UNLABELLED, Targets
from snn_bp.runs.answers import Answers
from snn_bp.runs.evaluation import evaluate_network
from snn_bp.runs.interval import mcnemar, ratio_interval
from snn_bp.runs.records import results_line
from snn_bp.trainer.loop import is_best

TIME, CHANNELS, NAMES = 9, 5, ("a", "b", "c")
LOSSES = {
    "class": CountCrossEntropy(), "class per step": MembraneCrossEntropy(), "vector": MeanSquaredPotential(),
    "vector per step": MeanSquaredPotential(), "labels": BinaryCrossEntropy(), "spikes": VanRossum(tau=Tau(6)),
}  # fmt: skip
EVERY = pytest.mark.parametrize("kind", KINDS)
BOTH = pytest.mark.parametrize("masked", (pytest.param(False, marks=pytest.mark.slow), True), ids=("full", "masked"))


def part(kind, count, *, masked, seed):
    """Random spikes, and targets that are a linear function of them."""
    draw = np.random.default_rng(seed)
    x = (draw.random((count, TIME, CHANNELS)) < 0.4).astype(np.float32)
    lengths = draw.integers(4, TIME + 1, count)
    sums = x @ np.random.default_rng(7).normal(size=(CHANNELS, 3))
    sums -= sums.mean((0, 1))
    whole = sums.mean(1)
    y = {
        "class": whole.argmax(1),
        "class per step": np.where(draw.random((count, TIME)) < 0.3, UNLABELLED, sums.argmax(2)),
        "vector": whole.astype(np.float32), "vector per step": sums.astype(np.float32),
        "labels": (whole > 0).astype(np.float32), "spikes": (sums > 1).astype(np.float32),
    }[kind]  # fmt: skip
    return (x, y, lengths) if masked else (x, y)


def dataset_of(kind, masked=False):
    return Dataset.of(
        part(kind, 48, masked=masked, seed=1), part(kind, 20, masked=masked, seed=2),
        targets=Targets(kind, NAMES), step_ms=2.0, batch=12, validation_fraction=0.25,
    )  # fmt: skip


def experiment_of(dataset, seed=0, **how):
    kind = dataset.targets.kind
    readout = LIF(beta=0.8) if kind == "spikes" else LI(beta=Tau(10))
    model = (Dense(12), BatchNorm(), LIF(beta=0.8), Dense(3), readout)
    return Experiment(dataset.data, model, Train(**({"epochs": 2, "lr": 5e-3, "loss": LOSSES[kind]} | how)), seed=seed)


def rows_of(run: Run) -> list[dict[str, str]]:
    with open(run.path / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of a kind, trained once, with its data set."""
    made = {}

    def get(kind, masked=False, seed=0) -> tuple[Run, Dataset]:
        if (kind, masked, seed) not in made:
            dataset = dataset_of(kind, masked)
            out = tmp_path_factory.mktemp("runs") / f"{kind.replace(' ', '-')}-{masked}-{seed}"
            made[kind, masked, seed] = train(experiment_of(dataset, seed), out, quiet=True, dataset=dataset), dataset
        return made[kind, masked, seed]

    return get


@EVERY
@BOTH
def test_a_run_of_any_kind_is_resumed_to_the_same_bits(kind, masked, finished, tmp_path, monkeypatch):
    whole, dataset = finished(kind, masked)
    steps, original = 0, training.train_step

    def step(*arguments, **named):
        nonlocal steps
        steps += 1
        if steps == 5:  # in the second epoch
            raise KeyboardInterrupt
        return original(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_step", step)
        with pytest.raises(KeyboardInterrupt):
            train(experiment_of(dataset), tmp_path / "run", quiet=True, save_seconds=0, dataset=dataset)
    run = resume(tmp_path / "run", quiet=True, dataset=dataset)

    for name, weight in whole.load("last").weights.items():
        assert torch.equal(weight, run.load("last").weights[name]), name
    times = {"seconds", "wait_seconds", "samples_per_s", "peak_memory_mb"}
    both = [[{k: v for k, v in row.items() if k not in times} for row in rows_of(each)] for each in (whole, run)]
    assert both[0] == both[1]
    for split in ("validation", "test"):
        assert whole.results()[split] == run.results()[split]
        for end in ("csv", "safetensors"):
            files = [each.path / "predictions" / f"{split}.{end}" for each in (whole, run)]
            assert files[0].read_bytes() == files[1].read_bytes()


@EVERY
@BOTH
def test_files_and_figures_speak_of_the_metric_of_the_kind(kind, masked, finished):
    run, dataset = finished(kind, masked)
    name = metric_for(run.experiment.train, dataset.targets).name
    results = run.results()

    assert list(rows_of(run)[0])[:5] == [
        "epoch",
        "train_loss",
        f"train_{name}",
        "validation_loss",
        f"validation_{name}",
    ]
    assert results["test"]["metric"] == name and math.isfinite(results["test"]["metrics"][name])
    assert ("accuracy" in results["test"]) == ("confusion" in results["test"]) == kind.startswith("class")
    assert results_line(results).startswith(f"test {name.replace('_', ' ')} ")
    best = rows_of(run)[results["best_epoch"] - 1]
    assert float(best[f"validation_{name}"]) == pytest.approx(results["validation"]["metrics"][name], rel=1e-6)
    assert evaluate_again(run, dataset).metrics == results["test"]["metrics"]


def evaluate_again(run, dataset):
    opened = Run(run.path)
    opened.hold(dataset)
    return evaluate(opened)


@EVERY
@BOTH
def test_predictions_give_the_figures_again(kind, masked, finished):
    run, dataset = finished(kind, masked)
    kept = Answers.read(run.path, "test")
    metric = metric_for(run.experiment.train_at_step(), dataset.targets)

    assert kept.names == tuple(dataset.names("test"))
    assert np.array_equal(kept.values.numpy(), dataset.labels("test"))
    assert (kept.mask is not None) == masked
    figure = run.results()["test"]["metrics"][metric.name]
    assert value_of(metric, kept.scores, kept.values, kept.mask) == pytest.approx(figure, rel=1e-6)
    with open(run.path / "predictions" / "test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["recording"] for row in rows] == list(kept.names)
    if kind == "class":
        assert np.mean([row["target"] == row["prediction"] for row in rows]) == figure
    if kind == "class per step":
        assert sum(int(row["right"]) for row in rows) / sum(int(row["labelled"]) for row in rows) == figure
        assert len(rows[0]["target"].split()) == (TIME if kept.mask is None else int(kept.mask[:, 0].sum()))


@EVERY
@BOTH
def test_the_loss_of_a_split_does_not_depend_on_its_batches(kind, masked, finished):
    run, dataset = finished(kind, masked)
    loss, network = run.experiment.train_at_step().loss, run.network()
    found = []
    for batch in (1, 7, 20):
        other = replace(dataset, data=replace(dataset.data, batch=batch))
        found.append(evaluate_network(network, other, "test", loss, counts=False))

    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-5) == pytest.approx(found[2].loss, rel=1e-5)
    assert found[0].metrics == pytest.approx(found[2].metrics, rel=1e-6)


@EVERY
def test_a_masked_recording_counts_as_if_it_were_cut(kind, finished):
    run, dataset = finished(kind, True)
    loss, network = run.experiment.train_at_step().loss, run.network()
    total, amount, spikes = 0.0, 0, 0.0
    for id_ in dataset.ids["test"]:
        x, targets = dataset.batch("test", [id_])
        length = int(dataset.mask("test", [id_]).sum())
        mine = targets[:, :length] if kind in PER_STEP else targets
        counts = (
            int((mine != UNLABELLED).sum()) if kind == "class per step" else length if kind == "vector per step" else 1
        )
        with torch.no_grad():
            out = network(x[:length])
            total += float(loss(out, mine)) * counts
            activities, _ = network.observe(x[:length])
        spikes += float(activities[0].spikes.sum())
        amount += counts

    figures = evaluate_again(run, dataset)
    assert figures.loss == pytest.approx(total / amount, rel=1e-5)
    assert next(iter(figures.spikes.values())) == pytest.approx(spikes / figures.samples, rel=1e-6)


@EVERY
@pytest.mark.slow
def test_doctor_and_page_speak_of_any_kind(kind, finished):
    run, dataset = finished(kind, True)
    opened = Run(run.path)
    opened.hold(dataset)

    found = diagnose(opened)
    page = report(opened).read_text()

    assert all(
        finding.kind in ("chance level", "overfitting", "silent", "vanishing over time") for finding in found.findings
    )
    name = run.results()["test"]["metric"].replace("_", " ")
    assert f"test {name}" in page and "This part is missing" not in page
    assert ("true classes down" in page) == kind.startswith("class")


@pytest.mark.parametrize(
    "kind, metric", (("class per step", F1()), ("vector", None), ("labels", None), ("class", None)), ids=str
)
def test_a_course_no_better_than_one_answer_for_all_is_at_chance(kind, metric):
    dataset = dataset_of(kind)
    experiment = experiment_of(dataset, **({} if metric is None else {"metric": metric}))
    name = metric_for(experiment.train, dataset.targets).name
    bad, good = (1e9, 0.0) if name == "mae" else (0.0, 1.0)

    for value, kinds in ((bad, ["chance level"]), (good, [])):
        rows = [{f"{split}_{name}": value for split in ("train", "validation")}] * 5
        assert [each.kind for each in diagnose_course(rows, dataset, experiment, finished=True)] == kinds


def test_two_runs_on_recordings_of_the_same_names_and_other_contents_are_no_pair(finished, tmp_path):
    run = finished("class", seed=0)[0]
    other = Path(shutil.copytree(run.path, tmp_path / "other"))
    described = read_object(other / "data.json")
    for part in described["parts"].values():
        part["each_recording"] = [line[:-1] + "xyz"[index % 3] for index, line in enumerate(part["each_recording"])]
    write_object(other / "data.json", described)

    assert isinstance(compare([run, other]).pair, str)
    assert "not tested on the same recordings: " in str(compare([run, other])).replace("\n    ", " ")


@EVERY
def test_two_runs_are_compared_on_the_same_recordings(kind, finished):
    runs = [finished(kind, seed=seed)[0] for seed in (0, 1)]
    found = compare(runs)
    first, second = (Answers.read(run.path, "test") for run in runs)

    pair = found.record()["pair"]
    name = runs[0].results()["test"]["metric"]
    values = [run.results()["test"]["metrics"][name] for run in runs]
    assert pair["metric"] == name and pair["values"] == pytest.approx(values, rel=1e-6)
    assert pair["low"] <= pair["difference"] <= pair["high"]
    assert f"test: {name.replace('_', ' ')} " in str(found) and "paired bootstrap" in str(found)
    json.dumps(found.record())
    if kind == "class":
        right = [(each.scores.argmax(1) == each.values).numpy() for each in (first, second)]
        alone = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
        assert [pair["first_alone"], pair["second_alone"]] == alone
        assert "McNemar" in str(found)
    else:
        assert "p" not in pair


def test_runs_on_other_recordings_are_not_paired(finished, tmp_path):
    run, _ = finished("class")
    other = Dataset.of(
        part("class", 48, masked=False, seed=1), part("class", 20, masked=False, seed=3),
        targets=Targets("class", NAMES), step_ms=2.0, batch=12, validation_fraction=0.25,
    )  # fmt: skip
    moved = train(experiment_of(other, 1), tmp_path / "moved", quiet=True, dataset=other)

    assert "not tested on the same recordings" in compare([run, moved]).notes[-1]
    assert "pair" not in compare([run, moved]).record()


@pytest.mark.parametrize("first, second", ((0, 0), (3, 3), (1, 9), (12, 2), (40, 61), (0, 5)))
def test_mcnemars_test_is_the_exact_binomial_one(first, second):
    wanted = binomtest(first, first + second).pvalue if first + second else 1.0

    assert mcnemar(first, second) == pytest.approx(wanted, rel=1e-12)


def test_the_interval_of_a_step_accuracy_counts_recordings():
    draw = np.random.default_rng(3)
    inside = 0
    for _ in range(400):
        skill = draw.beta(8, 2, 60)  # recordings differ: their steps are all easy, or all hard
        steps = draw.integers(5, 80, 60)
        right = draw.binomial(steps, skill)
        low, high = ratio_interval(right.astype(float), steps.astype(float))
        inside += low <= 0.8 <= high

    assert 0.91 <= inside / 400 <= 0.98  # 95 % and two standard errors of 1.1 %
    assert ratio_interval(np.array([3.0]), np.array([4.0])) == (0.0, 1.0)


def test_the_best_epoch_is_the_one_by_the_metric():
    def best(metric, *values):
        return is_best([{f"validation_{metric.name}": value} for value in values], metric)

    error = metric_for(Train(loss=MeanSquaredPotential()), Targets("vector", NAMES))
    assert best(error, 0.3, 0.2) and best(error, 0.3, 0.3) and not best(error, 0.2, 0.3)
    assert best(F1(), 0.2, 0.3) and not best(F1(), 0.3, 0.2)
    assert not best(R2(), 0.1, math.nan) and best(R2(), math.nan, 0.1)
    assert is_best([{"epoch": 1}, {"epoch": 2}], error)  # without validation the last


def test_keep_follows_a_metric_that_is_named(tmp_path):
    dataset = dataset_of("class")
    experiment = experiment_of(dataset, epochs=4, metric=F1())

    run = train(experiment, tmp_path / "run", quiet=True, dataset=dataset)

    rows = rows_of(run)
    assert [name for name in rows[0] if name.startswith("validation")] == [
        "validation_loss", "validation_accuracy", "validation_f1",
    ]  # fmt: skip
    figures = [float(row["validation_f1"]) for row in rows]
    assert run.results()["best_epoch"] == max(range(4), key=lambda index: (figures[index], index)) + 1
    assert run.results()["test"]["metric"] == "f1" and "accuracy" in run.results()["test"]
    assert "test f1" in results_line(run.results()) and "accuracy" in results_line(run.results())


def test_truncated_training_takes_targets_of_steps_and_lengths(tmp_path):
    for kind in KINDS:
        dataset = dataset_of(kind, True)
        run = train(experiment_of(dataset, truncate=5), tmp_path / kind.replace(" ", "-"), quiet=True, dataset=dataset)
        assert all(math.isfinite(float(row["train_loss"])) for row in rows_of(run))


# Refused


def test_a_loss_that_does_not_fit_is_refused_before_a_folder_stands(tmp_path):
    dataset = dataset_of("vector")

    with pytest.raises(SnnError, match=r"CountCrossEntropy.*'vector'.*train.loss=MeanSquaredPotential"):
        train(experiment_of(dataset, loss=CountCrossEntropy()), tmp_path / "run", quiet=True, dataset=dataset)
    with pytest.raises(SnnError, match=r"F1.*'vector'.*train.metric=MeanAbsoluteError"):
        train(experiment_of(dataset, metric=F1()), tmp_path / "run", quiet=True, dataset=dataset)
    assert not (tmp_path / "run").exists()


def test_damaged_predictions_are_named(finished, tmp_path):
    run, _ = finished("labels")
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / "test.safetensors").write_bytes((run.path / "predictions/test.safetensors").read_bytes()[:-9])

    assert Answers.read(Path(tmp_path / "none"), "test") is None
    with pytest.raises(SnnError, match="the predictions are damaged"):
        Answers.read(tmp_path, "test")
