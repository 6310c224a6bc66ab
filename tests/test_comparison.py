"""Runs side by side: what makes a group, the figures of one, and what differs between groups."""

import csv
import io
import json
import math
import os
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from catalogue import NEURONS, SURROGATES
from runs import tiny
from scipy import stats
from test_report import Page

from snn_bp import (
    LIF,
    BatchNorm,
    Conv,
    CountSquaredError,
    Data,
    Delay,
    Dense,
    Experiment,
    Flatten,
    Pool,
    RateBounds,
    Run,
    SnnError,
    Spiking,
)
from snn_bp.cli import app, guarded
from snn_bp.files import write_json, write_object
from snn_bp.model.names import written
from snn_bp.reports.comparison import compare, settings
from snn_bp.runs.changes import parse
from snn_bp.runs.interval import paired_t
from snn_bp.runs.paths import runs_under


@pytest.fixture
def made(tmp_path):
    """Make a run folder with results, or one that is not finished where no accuracy is given."""

    def make(name: str, experiment: Experiment, accuracy: float | None = None, **more: Any) -> Path:
        run = Run.create(experiment, tmp_path / name, command="made here", changes=())
        if accuracy is not None:
            split = {
                "accuracy": accuracy,
                "loss": 1 - accuracy,
                "spikes": {"a": 3.0, "b": 4.0},
                "operations": {"c": 50},
                "correct": 1, "samples": 2, "low": 0.0, "high": 1.0,
            }  # fmt: skip
            results = {"epochs": 2, "best_epoch": 1, "train_seconds": 5.0, "validation": split, "test": split}
            kept = {name: value for name, value in (results | more).items() if value is not None}
            write_json(run.path / "results.json", kept)
        return run.path

    return make


def test_runs_that_differ_in_their_seed_are_one_group_with_mean_and_sample_deviation(made):
    paths = [made(f"run{seed}", tiny(seed=seed), accuracy) for seed, accuracy in enumerate((0.7, 0.8, 0.9))]

    (group,) = compare(paths).groups

    assert group.seeds == (0, 1, 2) and group.settings == {}
    assert group.figures["test_accuracy"].mean == pytest.approx(0.8)
    assert group.figures["test_accuracy"].deviation == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2)
    assert group.figures["spikes"] == (7.0, 0.0, 3) and group.figures["operations"].mean == 50


def test_one_run_has_no_deviation(made):
    (group,) = compare([made("one", tiny(), 0.5)]).groups

    assert group.figures["test_accuracy"] == (0.5, None, 1)


def test_the_interval_of_a_mean_and_the_paired_test_are_those_of_scipy(made):
    figures = {1e-3: (0.71, 0.78, 0.74, 0.80), 2e-3: (0.75, 0.80, 0.74, 0.86), 3e-3: (0.5, 0.5, 0.5, 0.5)}
    runs = [
        made(f"{lr}-{seed}", tiny(lr=lr, seed=seed), value)
        for lr, values in figures.items()
        for seed, value in enumerate(values)
    ]

    comparison = compare(runs)

    first, second = figures[1e-3], figures[2e-3]
    spread = stats.t(3, statistics.fmean(first), stats.sem(first))
    assert comparison.groups[0].figures["test_accuracy"].interval == pytest.approx(spread.interval(0.95))
    expected = stats.ttest_rel(second, first)
    pair = comparison.by_seed[0]
    assert (pair.groups, pair.measure, pair.seeds) == ((1, 2), "test_accuracy", 4)
    assert pair.p == pytest.approx(expected.pvalue)
    assert (pair.low, pair.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert f"paired t-test p = {pair.p:.3g}" in " ".join(str(comparison).split())
    assert "not corrected" in str(comparison) and len(comparison.record()["by_seed"]) == 2


def test_groups_on_other_recordings_are_not_paired_and_it_is_said(made):
    def of(content: str) -> dict:
        part = {"recordings": 2, "each_recording": ["a/0 0 00aa", f"a/1 1 {content}"]}
        splits = {split: {"ids": [1, 0]} for split in ("validation", "test")}
        return {"parts": {"train": part, "test": {"recordings": 2, "same_as": "train"}}, "splits": splits}

    runs = [made(f"{lr}-{seed}", tiny(seed=seed, lr=lr), 0.5 + lr) for lr in (0.1, 0.2, 0.3) for seed in (0, 1)]
    for row, run in enumerate(runs):
        write_json(run / "data.json", of("00cc" if row == 3 else "00bb"))

    comparison = compare(runs)

    assert [pair.groups for pair in comparison.by_seed] == [(1, 3)]
    assert "groups 1 and 2 are not compared by seed: a/1 of test has other contents" in comparison.notes


@pytest.mark.parametrize("seeds", [(0, 2), (0, 0), (0,), (0, 1, 2)])
def test_groups_of_other_seeds_are_not_paired(seeds, made):
    runs = [made(f"a{seed}", tiny(seed=seed), 0.5) for seed in (0, 1)]
    runs += [made(f"b{row}", tiny(seed=seed, lr=0.1), 0.6) for row, seed in enumerate(seeds)]

    assert compare(runs).by_seed == ()


@pytest.mark.parametrize("first, second", [((0.5, 0.6), (0.5, 0.6)), ((0.7, 0.8, 0.1), (0.8, 0.9, 0.2))])
def test_differences_that_do_not_vary_are_no_case_for_a_test_and_it_is_said(first, second, made):
    sides = {1e-3: first, 2e-3: second}
    runs = [
        made(f"{lr}-{seed}", tiny(lr=lr, seed=seed), value)
        for lr, values in sides.items() for seed, value in enumerate(values)
    ]  # fmt: skip

    comparison = compare(runs)

    (pair,) = comparison.by_seed
    assert pair.p is None and paired_t([y - x for x, y in zip(first, second, strict=True)]) is None
    assert "the differences do not vary" in " ".join(str(comparison).split()) and "p =" not in str(comparison)
    assert comparison.record()["by_seed"][0]["p"] is None


def test_groups_are_told_apart_by_the_settings_in_which_they_differ_alone(made):
    slow, fast = tiny(lr=1e-3), tiny(lr=2e-3)
    longer = replace(fast, model=(*fast.model, Flatten()))

    comparison = compare([made("slow", slow, 0.5), made("fast", fast, 0.6), made("longer", longer, 0.7)])

    assert [group.settings for group in comparison.groups] == [
        {"train.lr": "0.001", "model.7": "-"},
        {"train.lr": "0.002", "model.7": "-"},
        {"train.lr": "0.002", "model.7": "Flatten()"},
    ]


def test_where_the_data_lie_and_how_a_number_is_written_make_no_groups(made):
    experiment = tiny()
    moved = replace(experiment, data=replace(experiment.data, root="elsewhere", step_ms=104.0), seed=1)

    comparison = compare([made("here", experiment, 0.5), made("there", moved, 0.7)])

    assert len(comparison.groups) == 1 and comparison.groups[0].settings == {}


def test_of_files_of_ones_own_the_folder_says_which_recordings_they_are(made):
    here, there = (Data("folder", root=name, sensor=(8, 8, 2), step_ms=10, steps=4) for name in ("lab/a", "lab/b"))
    paths = [made(f"run{seed}", tiny(data=here, seed=seed), 0.5) for seed in (0, 1)]

    comparison = compare([*paths, made("other", tiny(data=there), 0.5), made("digits", tiny(), 0.5)])

    assert [group.seeds for group in comparison.groups] == [(0, 1), (0,), (0,)]
    assert [group.settings["data.root"] for group in comparison.groups] == ["'lab/a'", "'lab/b'", "-"]


def test_an_unfinished_run_is_listed_and_counts_in_no_figure(made):
    paths = [made("done", tiny(), 0.5), made("started", tiny(seed=1))]

    comparison = compare(paths)

    assert comparison.unfinished == {str(paths[1]): "not started"}
    assert comparison.groups[0].seeds == (0,) and "not started" in " ".join(str(comparison).split())


def test_a_folder_named_twice_counts_once(made):
    path = made("one", tiny(), 0.5)

    assert compare([path, Run(path), path / ".." / "one"]).groups[0].paths == (str(path),)


def test_a_seed_that_stands_twice_is_said(made):
    comparison = compare([made("one", tiny(), 0.5), made("again", tiny(), 0.5)])

    assert "seed 0 2 times" in str(comparison)


def test_a_figure_that_some_runs_lack_is_said(made):
    comparison = compare([made("one", tiny(), 0.5), made("no test", tiny(seed=1), 0.6, test=None)])

    assert comparison.groups[0].figures["test_accuracy"] == (0.5, None, 1)
    assert comparison.notes == ["group 1: 1 of 2 runs have a test accuracy", "group 1: 1 of 2 runs have a test loss"]


def test_files_hold_what_the_comparison_holds(made, tmp_path):
    comparison = compare([made("slow", tiny(lr=1e-3), 0.5), made("fast", tiny(), 0.6), made("more", tiny(seed=4), 0.7)])

    comparison.write(tmp_path / "table.csv")
    comparison.write(tmp_path / "table.json")

    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["train.lr"], row["seeds"]) for row in rows] == [("0.001", "0"), ("0.005", "0, 4")]
    assert float(rows[1]["test_accuracy_mean"]) == comparison.groups[1].figures["test_accuracy"].mean
    assert rows[0]["test_accuracy_deviation"] == rows[0]["test_accuracy_low"] == ""
    ends = tuple(float(rows[1][f"test_accuracy_{end}"]) for end in ("low", "high"))
    assert ends == comparison.groups[1].figures["test_accuracy"].interval
    assert json.loads((tmp_path / "table.json").read_text()) == json.loads(json.dumps(comparison.record()))


def test_a_folder_stands_for_the_runs_under_it(made, tmp_path):
    first, second = made("deep/er/one", tiny(), 0.5), made("two", tiny(seed=1), 0.7)
    (first / "before-1").mkdir()
    (first / "before-1" / "results.json").write_text("{}")  # what a run put aside
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "results.json").write_text("{}")

    comparison = compare([tmp_path, second])

    assert [group.paths for group in comparison.groups] == [(str(first), str(second))]
    assert list(comparison.unfinished) == [str(tmp_path / "lost")]


def test_runs_are_found_through_links_each_once_and_links_in_a_circle_end(made, tmp_path):
    made("disk/one", tiny(), 0.5)
    (tmp_path / "runs").mkdir()
    for name, to in (("a", "../disk/one"), ("b", "../disk"), ("self", "."), ("nowhere", "gone")):
        (tmp_path / "runs" / name).symlink_to(to)

    assert runs_under(tmp_path / "runs") == [tmp_path / "runs" / "a"]


@pytest.mark.parametrize("metric", ("accuracy", "a_long_name_of_a_metric_of_ones_own"))
def test_what_is_printed_fits_80_columns(metric, made):
    split = (Run(made("plain", tiny(), 0.5)).results() or {})["test"]
    split = {name: value for name, value in split.items() if name != "correct"}
    split |= {"accuracy": 0.25, "metric": metric, "metrics": {metric: 0.25, "f1": 123456.7}}
    runs = [made(f"{lr}-{seed}", tiny(lr=lr, seed=seed), 0.5, test=split) for lr in (1e-3, 2e-3) for seed in range(3)]
    longer = replace(tiny(), model=(Flatten(), *(Dense(12) for _ in range(12)), LIF(beta=0.7)))

    text = str(compare([*runs, made("longer", longer, 0.5)]))

    too_long = [line for line in text.splitlines() if len(line) > 80 and str(runs[0].parent) not in line]
    assert too_long == [] and "0.2500 ± 0.0000" in text and "operations" in text


def test_the_page_of_a_comparison_has_figures_curves_and_what_differs(made, tmp_path):
    slow, fast = made("slow", tiny(lr=1e-3), 0.5), made("fast", tiny(lr=2e-3), 0.6)
    rows = (
        "epoch,train_loss,validation_loss,train_accuracy,validation_accuracy\n1,2.5,2.5,0.1,0.2\n2,1.25,1.5,0.6,0.7\n"
    )
    (slow / "metrics.csv").write_text(rows)
    (fast / "metrics.csv").write_text("damaged")

    compare([slow, fast, made("<b>begun", tiny(seed=3))]).write(tmp_path / "table.html")

    page = Page((tmp_path / "table.html").read_text())
    assert {"0.5000", "0.6000", "train.lr", "0.001", "0.002", "not started"} <= set(page.words)
    assert "fast is not drawn: " in page.text and page.all("b") == page.all("script") == []
    assert [image["alt"] for image in page.all("img")] == ["Training loss of each run in its last epoch: group 1 1.25."]


def test_the_page_of_a_sweep_says_what_was_chosen_and_calls_groups_by_their_settings(made, tmp_path):
    table = compare([made("slow", tiny(lr=1e-3), 0.5), made("fast", tiny(lr=2e-3), 0.6)])
    chosen = replace(table, chosen=("chosen by validation: train.lr=2e-3",))

    chosen.write(tmp_path / "table.html")

    page = Page((tmp_path / "table.html").read_text())
    assert "Chosen by validation: train.lr=2e-3." in page.text and "group 2: lr = 0.002" in page.text
    assert str(chosen) == f"{table}\nchosen by validation: train.lr=2e-3"
    assert chosen.record() == table.record() | {"chosen": list(chosen.chosen)}


def test_many_groups_are_rows_and_a_column_has_as_many_digits_in_each(made, tmp_path):
    rows = "epoch,train_loss,validation_loss,train_accuracy,validation_accuracy\n1,2.5,2.5,0.1,0.2\n"
    paths = [made(str(lr), tiny(lr=lr), 0.5, train_seconds=9000 * lr) for lr in (1e-3, 2e-3, 3e-3)]
    for path in paths:
        (path / "metrics.csv").write_text(rows)
    table = compare(paths)

    table.write(tmp_path / "table.html")

    assert dict(table.columns())["seconds of training"] == ["9.0", "18.0", "27.0"]
    assert "group train.lr group 1 0.001 group 2 0.002" in " ".join(
        Page((tmp_path / "table.html").read_text()).text.split()
    )


def test_a_small_figure_beside_large_ones_is_not_shown_as_none(made):
    paths = [made(str(lr), tiny(lr=lr), 0.5, train_seconds=took) for lr, took in ((1e-3, 51.6), (2e-3, 0.0132))]

    assert dict(compare(paths).columns())["seconds of training"] == ["51.6000", "0.0132"]


def test_a_file_is_written_where_nobody_reads_what_is_printed(made, tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(SystemExit):
        guarded(app, ["compare", str(made("one", tiny(), 0.5)), "--out", str(tmp_path / "table.csv")])

    assert (tmp_path / "table.csv").is_file()


def test_a_comparison_of_runs_that_are_not_finished_has_a_page_too(made, tmp_path):
    compare([made("begun", tiny())]).write(tmp_path / "table.html")

    page = Page((tmp_path / "table.html").read_text())
    assert "None of the runs is finished; there is nothing to compare yet." in page.words and page.all("img") == []


def test_what_cannot_be_compared_or_written_is_refused(made, tmp_path):
    with pytest.raises(SnnError, match="no run is named"):
        compare([])
    with pytest.raises(SnnError, match=r"\.csv, \.json or \.html"):
        compare([made("one", tiny(), 0.5)]).write(tmp_path / "table.txt")
    with pytest.raises(SnnError, match="no run is here"):
        compare([tmp_path / "nothing"])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("results.json", '{"epochs": 2, "best_epoch": 1, "test": null}', "'test'"),
        ("results.json", '{"epochs": 2, "best_epoch": 1, "test": {"accuracy": null}}', "'test.accuracy'"),
        ("results.json", '{"epochs": 2, "best_epoch": 1, "test": {"accuracy": NaN}}', "'test.accuracy'"),
        (
            "results.json",
            '{"epochs": 2, "best_epoch": 1, "test": {"metric": "f1", "metrics": {"f1": 1}, "samples": 1, "loss": 0, '
            '"neurobench": {"Footprint": 4}}}',
            "'test.neurobench'",
        ),
        ("results.json", '{"epochs": "2", "best_epoch": 1}', "'epochs'"),
        ("results.json", '{"epochs": 2, "best_epoch": 1, "notes": 3}', "'notes'"),
        ("results.json", "[" * 100_000, "nested too deep"),
        ("experiment.json", '{"is": "Experiment", "data": null}', "experiment.json"),
        ("experiment.json", "[" * 100_000, "nested too deep"),
        ("experiment.json", "a pipe", "a pipe"),
        ("results.json", "a pipe", "a pipe"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_a_damaged_run_costs_its_own_line_alone(name, content, told, made):
    good, bad = made("good", tiny(), 0.5), made("bad", tiny(seed=1), 0.6)
    (bad / name).unlink()
    if content == "a pipe":
        os.mkfifo(bad / name)
    else:
        (bad / name).write_text(content)

    comparison = compare([good, bad])

    assert [group.paths for group in comparison.groups] == [(str(good),)]
    state = comparison.unfinished[str(bad)]
    assert state.startswith("cannot be read") and name in state and told in state and "\n" not in state


def test_a_figure_changed_by_hand_is_no_result(made):
    path = made("one", tiny(), 0.5)
    results = Run(path).results() or {}
    write_object(path / "results.json", results)
    assert Run(path).results() == results

    text = (path / "results.json").read_text()
    (path / "results.json").write_text(text.replace("0.5", "0.9", 1))

    with pytest.raises(SnnError, match=r"results\.json: it was altered"):
        Run(path).results()


def test_a_loss_without_a_value_counts_in_no_figure(made):
    split = (Run(made("one", tiny(), 0.5)).results() or {})["test"]
    other = made("two", tiny(seed=1), 0.6, test=split | {"loss": math.nan}, validation=split | {"loss": math.inf})

    group = compare([other]).groups[0]

    assert "test_loss" not in group.figures and "validation_loss" not in group.figures


@pytest.mark.parametrize(
    "value",
    [*NEURONS, *SURROGATES, Conv(8, 3, stride=2), Dense(7), Pool(2), BatchNorm(), Delay(3), Spiking(NEURONS[1]),
     CountSquaredError(right=0.9), RateBounds(lower=(0.1, 0.2))],
    ids=repr,
)  # fmt: skip
def test_a_setting_reads_back_as_the_value(value):
    assert parse(written(value), at="here") == value


def test_settings_name_every_part_of_an_experiment():
    found = settings(tiny(seed=3, lr=0.5))

    assert found["seed"] == "3" and found["train.lr"] == "0.5" and found["data.name"] == "'digits'"
    assert found["model.1"] == "Dense(units=12)"
