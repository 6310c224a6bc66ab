"""The README's Python runs, its commands exist, and its figures are those of the result files."""

import json
import re
from pathlib import Path

import pytest

from snn_bp import Run, cli
from snn_bp.chip.rules import chip_blocks

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SPEED = (ROOT / "notebooks/site/speed.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    names: dict = {}
    for block in blocks("python"):
        exec(block, names)

    assert names["run"].results()["test"]["samples"] == 360
    assert names["potentials"].shape == (100, 8, 50)
    assert len(chip_blocks(names["network"])) == 2  # what the table exports can be exported


def test_the_experiment_with_code_of_its_own_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    text = next(block for block in blocks("py") if "EveryStep" in block)
    (tmp_path / "mine.py").write_text(text)

    cli.train(tmp_path / "mine.py", ["train.loss.penalty=0.1", "train.epochs=1"], out=tmp_path / "run")

    assert Run(tmp_path / "run").experiment.train.loss.penalty == 0.1


def test_every_command_is_named_and_every_name_is_a_command():
    named = set(re.findall(r"snn-bp (\w+)", README))

    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    known |= {group.name for group in cli.app.registered_groups}

    assert named == known


def test_options_that_say_how_a_run_goes_on_or_is_written_are_named():
    assert all(option in README for option in ("--dry-run", "--out", "--restart", "--step", "--compatible", "--lava"))


def test_every_file_named_in_a_command_or_link_exists():
    named = re.findall(r"experiments/\w+(?:/\w+)?\.(?:py|json)", README) + re.findall(r"\]\((?!http)([^)#]+)\)", README)

    assert named
    assert all((ROOT / name).exists() for name in named), [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize(
    "row", re.findall(r"^\| `experiments/.*", README, flags=re.MULTILINE), ids=lambda row: row[:40]
)
def test_accuracies_in_the_table_are_those_of_the_result_files(row):
    file, shown = re.search(r"\((experiments/results/[\w.]+)\)", row), re.search(r"\| ([\d.]+) \(", row)
    assert file and shown

    results = json.loads((ROOT / file[1]).read_text())

    assert f"{next(value for name, value in results.items() if name.startswith('mean_')):.3f}" == shown[1]


@pytest.mark.parametrize("row", re.findall(r"^\| W\d: .*", README, flags=re.MULTILINE), ids=lambda row: row[2:4])
def test_times_in_the_table_are_those_of_the_result_file(row):
    work, (ours, *peers) = row[2:4], [cell.strip() for cell in row.strip("|").split("|")[1:]]
    times = json.loads((ROOT / "experiments/results/speed.json").read_text())["times"]
    ms = {line["library"]: line["ms"] for line in times if line["work"] == work and line["threads"] == 1}
    names = ("snntorch", "snntorch, compiled", "spikingjelly", "norse", "sinabs", "spyx")

    assert ours == f"{ms['snn_bp']:.0f} ms"
    assert peers == [f"{ms[name] / ms['snn_bp']:.1f}x" for name in names]


@pytest.mark.parametrize("row", re.findall(r"^\| `(?:Boxcar|Triangular)\(.*", SPEED, flags=re.MULTILINE))
def test_times_with_windows_are_those_of_the_result_files(row):
    name, *shown = (cell.strip(" `") for cell in row.strip("|").split("|"))
    files = [json.loads((ROOT / f"experiments/results/sampled{end}.json").read_text()) for end in ("", "_avx2")]
    found = [
        next(step for step in file["steps"] if step["work"] == "W1" and step["surrogate"].replace(".0)", ")") == name)
        for file in files
    ]

    ms = [
        text
        for step in found
        for text in (f"{step['ms_without_window']:.0f}", f"{step['ms']:.0f} ({step['times_as_fast']:.2f}x)")
    ]
    assert shown == [f"{100 * found[0]['share_within']['0']:.0f} %", *ms]
    assert all(step["gradients_apart"] < 2.05e-7 for step in found)
    if name == "Boxcar(slope=2)":
        first, second = (f"{step['times_as_fast']:.2f}" for step in found)
        assert f"W1 is {first} times as fast with a `{name}`" in " ".join(README.split())
        assert f"without its window, {second} times on AVX2" in " ".join(README.split())


def test_accuracies_with_windows_are_those_of_the_result_files():
    text, means = " ".join(SPEED.split()), []
    for name in ("digits", "nmnist"):
        runs = json.loads((ROOT / f"experiments/results/windows_{name}.json").read_text())["runs"]
        for surrogate in ("ATan(slope=2)", "Boxcar(slope=2)", "Boxcar(slope=10)"):
            found = [run["accuracy"] for run in runs if run["change"] == f"train.surrogate={surrogate}"]
            means.append(f"{sum(found) / len(found):.3f}")

    digits = "reaches {} over five seeds with `ATan(slope=2)`, {} with `Boxcar(slope=2)` and {} with `Boxcar(slope=10)`"
    assert digits.format(*means[:3]) in text
    assert "on 340 recordings {}, {} and {} over three".format(*means[3:]) in text


def test_what_windows_and_short_numbers_could_spare_is_that_of_the_result_files():
    files = [json.loads((ROOT / f"experiments/results/sampled{end}.json").read_text()) for end in ("", "_avx2")]
    (share, bound), (share_2, bound_2) = (
        (100 * step["products_ms"] / step["ms_without_window"], step["bound_of_sampling"])
        for step in (file["steps"][0] for file in files)
    )
    without, boxcar = (row["mb"] for row in files[0]["memory"][:2])
    text = " ".join(SPEED.split())

    assert f"spared are {share:.0f} % of that step ({share_2:.0f} % by AVX2)" in text
    assert f"at most {bound:.2f} ({bound_2:.2f}) times as fast" in text
    assert f"takes a step from {without:.0f} to {boxcar:.0f} MB" in text
    assert f"product takes {1 / files[0]['bfloat16'][0]['times_as_fast']:.1f} times as long" in text


@pytest.mark.parametrize("row", re.findall(r"^\| W\d, GPU.*", README, flags=re.MULTILINE), ids=lambda row: row[2:4])
def test_times_on_a_gpu_are_those_of_the_result_file(row):
    work, (ours, *peers) = row[2:4], [cell.strip() for cell in row.strip("|").split("|")[1:]]
    found = json.loads((ROOT / "experiments/results/gpu.json").read_text())["step_rows"]
    ms = {line["library"]: line["ms"] for line in found if line["work"] == work}

    assert ours == f"{ms['snn_bp']:.1f} ms"
    assert peers == [f"{ms[name] / ms['snn_bp']:.1f}x" for name in ("snntorch", "spikingjelly")]


@pytest.mark.parametrize(
    "row", re.findall(r"^\| `\w+.py`, \d+ .*", README, flags=re.MULTILINE), ids=lambda row: row[3:20]
)
def test_accuracies_of_exported_files_are_those_of_the_result_file(row):
    name, samples = re.findall(r"`(\w+)\.py`, (\d+)", row)[0]
    found = json.loads((ROOT / "experiments/results/exported.json").read_text())["rows"][name]
    floats, whole = found["trained in float, .net"], found["trained in loihi, .net"]

    shown = [floats["accuracy"]["float"], floats["accuracy"]["integer"], whole["accuracy"]["integer"]]
    assert re.findall(r"\| (0\.\d+)", row) == [f"{value:.3f}" for value in shown]
    assert floats["samples"] == whole["samples"] == int(samples)
    assert floats["holds"] and whole["holds"] and "50 recordings in a row are equal" in whole["client"]


def test_figures_of_circuits_are_those_of_the_result_file():
    found = json.loads((ROOT / "experiments/results/verilog.json").read_text())
    random, trained, text = found["random"], found["trained"], " ".join(README.split())

    def cell(made: dict | None) -> str:
        if made is None:
            return "not run"
        return f"{made['luts']:,} LUTs, {made['block_rams']:g} RAMs" + ("" if made["fits"] else ": too many")

    for name, row in trained.items():
        cells = [cell(row["synthesis"].get(family)) for family in ("ice40", "ecp5", "xc7")]
        figures = [f"{row['accuracy']['circuit']:.3f}", f"{row['verilator']['cycles']['mean']:,.0f}", *cells]
        shown = next(line for line in README.splitlines() if line.startswith(f"| {name} |"))
        assert shown.endswith(f" | {' | '.join(figures)} |")
    compared = sum(row["iverilog"]["compared"] for row in random)
    numbers = sum(row["verilator"]["compared"] for row in trained.values())
    assert f"{len(random)} random networks" in text and f"{compared:,} spikes and as many potentials" in text
    assert f"{len(trained)} trained ones" in text and f"{numbers:,} of each" in text
    assert all(row["equal"] and not row["lint"] for row in (*random, *trained.values()))


@pytest.mark.parametrize("row", re.findall(r"^\| `\w+=\d+` .*", README, flags=re.MULTILINE))
def test_accuracies_in_few_bits_are_those_of_the_result_file(row):
    name, floats, decay, *shown = (cell.strip(" `") for cell in row.strip("|").split("|"))
    found = json.loads((ROOT / "experiments/results/fixed.json").read_text())["experiments"][name]["targets"]
    means = [found[f"{bits} bits, {decay}"]["mean"] for bits in (8, 6, 4)]

    assert [floats, *shown] == [f"{mean:.3f}" for mean in (found["float"]["mean"], *means)]
    assert all(len(target["accuracy"]) == 3 for target in found.values())


def test_figures_of_own_neurons_are_those_of_the_result_file():
    rows = json.loads((ROOT / "experiments/results/neurons.json").read_text())["rows"]
    pieces = [row["compiled_by_piece"] for row in rows]
    ends = [
        [row["times_lif_per_variable"] for row in rows],
        [row["loop_over_own"] for row in rows],
        *([piece[size]["over_own"] for piece in pieces] for size in ("1", "20")),
    ]
    lif, loop, step, piece = ([each["median"] for each in column] for column in ends)
    text = " ".join(README.split())

    assert len(rows) == 8
    assert f"take {min(lif):.2f} to {max(lif):.2f} times as long as `LIF`'s" in text
    assert f"take {min(loop):.1f} to {max(loop):.0f} times as long as our kernels" in text
    assert f"each step {min(step):.1f} to {max(step):.1f} times" in text
    assert f"pieces of 20 steps {min(piece):.1f} to {max(piece):.1f} times" in text
