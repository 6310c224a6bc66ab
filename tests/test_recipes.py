"""The recipes of known sets: each reads the set's own files, has the shape that is published, and takes a step."""

import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from snn_bp.data import Data, load
from snn_bp.runs.changes import override
from snn_bp.runs.experiment import Experiment
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.folder import Run
from snn_bp.trainer.loop import train

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
MADE = runpy.run_path(str(EXPERIMENTS / "benchmarks" / "recipes.py"))
SETS, RECIPES, write_set = MADE["SETS"], MADE["RECIPES"], MADE["write_set"]
PARAMETERS = {  # of a published network of the same shape, in the digits in which they are published
    "dvs_gesture_gpu": ("1.7 M", 1_698_304),
    "shd_recurrent": ("108.8 k", 108_692),
    "shd_delays": ("0.20 M", 214_016),
    "ssc": ("1.6 M", 1_688_435),
}


def experiment(name: str, *changes: str) -> Experiment:
    """The experiment of a file, changed."""
    return override(read_file(EXPERIMENTS / f"{name}.py"), list(changes))[0]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_published_network_has_as_many_parameters(name):
    said, count = PARAMETERS[name]
    shape = {"dvs_gesture_gpu": (2, 128, 128), "shd_recurrent": (700,)}.get(name, (140,))

    network = experiment(name).network(shape)

    published = float(said.split()[0]) * {"k": 1e3, "M": 1e6}[said.split()[1]]
    assert sum(weight.numel() for weight in network.parameters()) == count
    assert count == pytest.approx(published, rel=0.08) and RECIPES[name]["published"] == said
    assert f"{count:,}" in (EXPERIMENTS / f"{name}.py").read_text()


@pytest.mark.parametrize("name", SETS)
def test_a_made_up_set_is_read_as_the_real_one(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    made = SETS[name]
    count = 2 * len(made.classes)

    write_set(name, tmp_path / "data", dict.fromkeys(made.parts, count), events=50)
    dataset = load(Data(name, root=str(tmp_path / "data")), quiet=True)

    assert len(dataset.parts["train"]) == count * (2 if "valid" in made.parts else 1)
    assert dataset.classes == len(made.classes) and dataset.window["train"].recordings_empty == 0
    assert dataset.window["train"].events <= 50 * len(dataset.parts["train"])
    assert sum(map(len, dataset.ids.values())) == count * len(made.parts)


@pytest.mark.parametrize(("name", "group"), [("shd", "speaker"), ("dvs_gesture", "user")])
def test_whoever_is_in_the_validation_split_is_not_learned_from(name, group, tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    write_set(name, tmp_path / "data", dict.fromkeys(SETS[name].parts, 60), events=20)

    dataset = load(Data(name, root=str(tmp_path / "data"), split_by="group"), quiet=True)

    learned, held = (set(dataset.groups(split) or ()) for split in ("train", "validation"))
    assert learned and held and not learned & held
    assert all(word.startswith(f"{group} ") for word in learned | held)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_on_the_files_of_its_set(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    data = experiment(name).data
    made = SETS[data.name]
    counts = dict.fromkeys(made.parts, (3 if data.test_fraction else 2) * len(made.classes))
    write_set(data.name, tmp_path / "data", counts, events=min(made.events, 2000))
    few = experiment(name, f"data.root={tmp_path / 'data'}", "train.epochs=1", "data.batch=4", "data.steps=5")
    dataset = load(few.data, quiet=True)
    short = replace(dataset, ids={split: ids[:8] for split, ids in dataset.ids.items()})
    monkeypatch.setattr("snn_bp.trainer.loop.load", lambda *_, **__: short)

    run = train(few, tmp_path / "run", quiet=True)

    results = Run(run.path).results()
    assert results is not None and results["test"]["samples"] == len(short.ids["test"]) > 0
    assert all(len(ids) for ids in short.ids.values())


def size(mb: float) -> str:
    return f"{mb:,.0f} MB" if mb < 10_000 else f"{mb / 1024:.0f} GB"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 300 else f"{seconds / 60:.0f} min"


def cells(row: dict) -> str:
    """What the page says of a recipe, behind its input."""
    published = f" ({row['published_parameters']} published)" if row["published_parameters"] else ""
    told = (
        row["batch"],
        f"{row['parameters']:,}{published}",
        size(row["estimate_mb"]),
        row["batch_here"],
        f"{row['peak_here_mb']:,.0f} MB, {row['estimate_here_mb']:,.0f} MB",
        f"{row['step_here_cpu_s']:.2f} s",
        duration(row["epoch_extrapolated_cpu_s"]),
    )
    return " | ".join(map(str, told))


def cells_of_set(row: dict) -> str:
    """What it says of the files of a recipe's set."""
    whole, counts = row["whole_extrapolated"], " + ".join(f"{count:,}" for count in row["recordings"].values())
    sizes = [f"{whole[f'{name}_mb'] / 1024:.1f} GB" for name in ("files", "cache")]
    made = "measured whole" if row["read"]["whole"] else "extrapolated"
    return " | ".join([counts, f"{row['events_of_each']:,}", *sizes, f"{whole['read_cpu_s']:.0f} s", made])


def test_figures_on_the_page_are_those_of_the_result_file():
    page = (EXPERIMENTS.parent / "notebooks" / "site" / "recipes.md").read_text()
    found = json.loads((EXPERIMENTS / "results" / "recipes.json").read_text())
    rows = found["rows"]

    assert rows.keys() == RECIPES.keys()
    assert {row["date"] for row in rows.values()} <= {*re.findall(r"2026-\d\d-\d\d", page)}
    for name, row in rows.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}.py` "))
        assert line.endswith(f" | {cells(row)} |")
        assert f"```{{literalinclude}} ../../experiments/{name}.py" in page
    ratios = [row["estimate_here_mb"] / row["peak_here_mb"] for row in rows.values()]
    assert f"it is {min(ratios):.2f} to {max(ratios):.2f} times what was taken" in page
    for name in SETS:
        row = max((row for row in rows.values() if row["set"] == name), key=lambda row: row["read"]["whole"])
        assert f"| `{name}` | {cells_of_set(row)} |" in page
    for name in ("shd_lif", "shd_recurrent", "shd"):
        found = json.loads((EXPERIMENTS / "results" / f"{name}_fsdd.json").read_text())
        runs = [", ".join(f"{run[key]:.3f}" for run in found["runs"]) for key in ("accuracy", "validation")]
        assert f"| `{name}.py` | {found['mean_accuracy']:.3f} ({runs[0]}) | {runs[1]} |" in page
