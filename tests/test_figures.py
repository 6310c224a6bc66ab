"""The figures of README and of the pages are those of the result files that stand beside them."""

import json
import re
import runpy
from pathlib import Path
from statistics import mean

import pytest
from documents import DOCUMENTS, PAGES, README, ROOT, numbers, on_one_line

SPEED = PAGES["speed"]
MEANS = ("accuracy", "step_accuracy", "van_rossum")
OURS = r"^\| `experiments/.*"


def results(name: str) -> dict:
    return json.loads((ROOT / f"experiments/results/{name}.json").read_text())


def thousandths(values) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def rows(pattern: str, text: str, count: int) -> list[str]:
    """The rows of a table, of which a test must see each."""
    found = re.findall(pattern, text, flags=re.MULTILINE)
    assert len(found) == count, f"{len(found)} rows like {pattern}, not {count}"
    return found


@pytest.mark.parametrize("row", rows(OURS, README, 7) + rows(OURS, PAGES["sets"], 7), ids=lambda row: row[:60])
def test_accuracies_in_the_tables_are_those_of_the_result_files(row):
    file, shown = re.search(r"experiments/results/(\w+)\.json\)", row), re.search(r"\| ([\d.]+) \(([\d., ]+)\)", row)
    assert file and shown
    found = results(file[1])
    metric = next(name for name in MEANS if f"mean_{name}" in found)
    parameters = re.search(r"\| ([\d,]+) \| \[file\]", row) if "parameters" in found["runs"][0] else None

    assert f"{found[f'mean_{metric}']:.3f}" == shown[1]
    assert [float(value) for value in shown[2].split(", ")] == pytest.approx(
        [run[metric] for run in found["runs"]], abs=5.01e-4
    )  # a half is rounded up there
    assert f"`{found['experiment']}`" in row
    if row in PAGES["sets"]:
        assert parameters and {f"{run['parameters']:,}" for run in found["runs"]} == {parameters[1]}


def test_what_stands_beside_the_accuracies_is_that_of_the_result_files():
    readme, page = on_one_line(README), on_one_line(PAGES["sets"])
    for name, said in (("digits", "The digits take"), ("nmnist", "N-MNIST")):
        found = results(name)
        later = mean([run["seconds"] for run in found["runs"][1:]])
        assert f"{said} {found['longest_seconds']:.0f} s" in readme and f"({later:.0f} s" in readme
    for name in ("braille", "qtdb", "fsdd", "smnist", "yin_yang"):
        assert f"`{name}.py` {results(name)['runs'][0]['parameters']:,}" in page

    beside, first = results("beside"), results("qtdb")["runs"][0]
    regression = [beside[f"{name}, linear"]["accuracy"] for name in ("braille_current", "braille", "yin_yang")]
    gru = [run["step_accuracy"] for run in beside["qtdb, gru"]["runs"]]
    assert regression[0] == 1 and "logistic regression on the signals makes no error" in readme
    assert "reaches {:.3f} on Braille's signals and {:.3f} on their level crossings".format(*regression) in page
    assert f"{regression[2]:.3f} on Yin-Yang's spikes" in page
    assert f"reaches {mean(gru):.3f} ({thousandths(gru)})" in page
    assert f"{first['low']:.3f} .. {first['high']:.3f}" in page


def test_counts_of_trials_are_those_of_the_result_files():
    text, page = on_one_line(README), on_one_line(PAGES["runs"])
    killed, own, mutated, wishes = (results(name) for name in ("killed", "killed_own", "mutations", "wishes"))
    twice = [len(trial["after_s"]) > 1 for case in own["cases"].values() for trial in case["trials"]]

    assert f"Killed with SIGKILL {killed['of']} times" in text and f"a run ended {killed['equal']} times" in text
    assert f"So did {own['equal']} of {own['of']} runs" in text and f"In the {own['of']} runs" in page
    assert 0.3 < sum(twice) / len(twice) < 0.4 and "a third of the runs was killed twice" in page
    assert f"Of {mutated['trials']:,} files" in page and mutated["faults"] == 0
    kinds = {kind: len(found) for kind, found in wishes["wishes"].items()}
    assert f"Of {sum(kinds.values())} ordinary wishes of a researcher" in text
    assert "({data} of data, {networks} of networks, {training} of training)".format(**kinds) in text
    assert f"{wishes['states']['works']} work inside a run" in text


def test_figures_of_gradients_and_of_the_doctor_are_those_of_the_result_files():
    text, page = on_one_line(README), on_one_line(PAGES["backward"])
    gradients, doctor, graphs = (results(name) for name in ("gradients", "doctor", "graphs"))
    healthy = [run for runs in doctor["healthy"].values() for run in (runs if isinstance(runs, list) else [runs])]
    equal = [row for row in graphs.values() if isinstance(row, dict) and "float64" in row]

    assert f"within {gradients['largest_error']:.1e} for {gradients['combinations']} combin" in text.replace(
        "e-9 ", "e-09 "
    )
    assert all(fault["found"] for fault in doctor["faults"].values())
    assert all(run["named"] for run in doctor["runs"].values())
    assert len(doctor["faults"]) + len(doctor["runs"]) == 18 and len(doctor["runs"]) == 10
    assert "Eighteen injected faults are named" in text and "Eighteen injected faults are named" in page
    assert "ten of them repaired by what is said" in text and "repairs each of these ten" in page
    assert len(healthy) == 15 and "15 healthy runs" in text and "Of 15 healthy runs" in page
    assert equal and all(row[kind]["spikes_differ"] == 0 for row in equal for kind in ("float64", "float32"))
    assert f"gradients agree within {max(row['float64']['gradient_error'] for row in equal):.1e} of" in page


@pytest.mark.parametrize("row", rows(r"^\| W\d: .*", README, 4), ids=lambda row: row[2:4])
def test_times_in_the_table_are_those_of_the_result_file(row):
    work, (ours, *peers) = row[2:4], [cell.strip() for cell in row.strip("|").split("|")[1:]]
    times = results("speed")["times"]
    ms = {line["library"]: line["ms"] for line in times if line["work"] == work and line["threads"] == 1}
    names = ("snntorch", "snntorch, compiled", "spikingjelly", "norse", "sinabs", "spyx")

    assert ours == f"{ms['snn_bp']:.0f} ms"
    assert peers == [f"{ms[name] / ms['snn_bp']:.1f}x" for name in names]


def test_times_on_the_other_machine_are_those_of_its_result_file():
    found = results("speed_xeon")
    ms = {(row["work"], row["library"]): row["ms"] for row in found["times"] if row["threads"] == 1}
    works = ("W1", "W2", "W3", "W4")
    ours = "{:.0f}, {:.0f}, {:.0f} and {:.0f}".format(*(ms[work, "snn_bp"] for work in works))
    peer = "{:.1f}, {:.1f}, {:.1f} and {:.1f}".format(*(ms[work, "snntorch"] / ms[work, "snn_bp"] for work in works))

    assert f"an older version took {ours} ms, and snnTorch {peer} times as long" in on_one_line(README)
    assert {found["times_measured"][key] == results("speed")["times_measured"][key] for key in ("command", "date")} == {
        True
    }


def test_what_is_said_below_the_table_of_times_is_that_of_the_result_file():
    found, readme, page = results("speed"), on_one_line(README), on_one_line(SPEED)
    mb = {row["library"]: row["mb"] for row in found["memory"]}
    peers = [mb[library] for library in mb if not library.startswith("snn_bp")]
    ms = {(row["work"], row["library"], row["threads"]): row["ms"] for row in found["times"]}
    ours, low = (ms["W1", library, 1] for library in ("snn_bp", "snn_bp, low memory"))
    cores = [f"{work} {ms[work, 'snn_bp', 1] / ms[work, 'snn_bp', 2]:.1f}" for work in ("W1", "W2", "W3", "W4")]
    dense = [row for row in found["growth_over_density"] if row["density"] == 0.2 and row["library"] != "snn_bp"]
    apart = [row for row in found["check"] if row["differing_spikes"]]
    errors = [
        max(row["gradient_error"] for row in found["check"] if row["precision"] == precision and row not in apart)
        for precision in ("float32", "float64")
    ]

    assert f"takes {mb['snn_bp']:.0f} MB beyond inputs" in readme
    assert f"and {mb['snn_bp, low memory']:.0f} MB (and {low / ours:.1f} times the time)" in readme
    assert f"snnTorch takes {mb['snntorch']:.0f} MB, the leanest peer {min(peers):.0f} MB" in readme
    assert f"the quickest peer takes {min(row['times_ours'] for row in dense):.1f} times as long as ours" in readme
    assert f"takes torch alone {found['product_ms']:.0f} ms" in page
    assert f"A second core makes {', '.join(cores[:3])} and {cores[3]} times as fast" in page
    assert [(row["work"], row["library"], row["precision"]) for row in apart] == [("W2", "spyx", "float32")]
    assert f"where {apart[0]['differing_spikes']} of {apart[0]['spikes']:,} spikes differ" in page
    bounds = re.search(r"within (\S+) in single precision and (\S+) in double", page)
    assert bounds and all(
        0.95 * float(bound) < error <= float(bound) for bound, error in zip(bounds.groups(), errors, strict=True)
    )


@pytest.mark.parametrize("row", rows(r"^\| `(?:Boxcar|Triangular)\(.*", SPEED, 4))
def test_times_with_windows_are_those_of_the_result_files(row):
    name, *shown = (cell.strip(" `") for cell in row.strip("|").split("|"))
    found = [
        next(step for step in file["steps"] if step["work"] == "W1" and step["surrogate"].replace(".0)", ")") == name)
        for file in (results("sampled"), results("sampled_avx2"))
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
        assert f"W1 is {first} times as fast with a `{name}`" in on_one_line(SPEED)
        assert f"without its window, {second} times on AVX2" in on_one_line(SPEED)


def test_accuracies_with_windows_are_those_of_the_result_files():
    text, means = on_one_line(SPEED), []
    for name in ("digits", "nmnist"):
        runs = results(f"windows_{name}")["runs"]
        for surrogate in ("ATan(slope=2)", "Boxcar(slope=2)", "Boxcar(slope=10)"):
            found = [run["accuracy"] for run in runs if run["change"] == f"train.surrogate={surrogate}"]
            means.append(f"{mean(found):.3f}")

    digits = "reaches {} over five seeds with `ATan(slope=2)`, {} with `Boxcar(slope=2)` and {} with `Boxcar(slope=10)`"
    assert digits.format(*means[:3]) in text
    assert "on 340 recordings {}, {} and {} over three".format(*means[3:]) in text


def test_what_windows_and_short_numbers_could_spare_is_that_of_the_result_files():
    files = [results("sampled"), results("sampled_avx2")]
    (share, bound), (share_2, bound_2) = (
        (100 * step["products_ms"] / step["ms_without_window"], step["bound_of_sampling"])
        for step in (file["steps"][0] for file in files)
    )
    without, boxcar = (row["mb"] for row in files[0]["memory"][:2])
    text = on_one_line(SPEED)

    assert f"spared are {share:.0f} % of that step ({share_2:.0f} % by AVX2)" in text
    assert f"at most {bound:.2f} ({bound_2:.2f}) times as fast" in text
    assert f"takes a step from {without:.0f} to {boxcar:.0f} MB" in text
    assert f"product takes {1 / files[0]['bfloat16'][0]['times_as_fast']:.1f} times as long" in text


@pytest.mark.parametrize("row", rows(r"^\| W\d, GPU.*", SPEED, 4), ids=lambda row: row[2:4])
def test_times_on_a_gpu_are_those_of_the_result_file(row):
    work, (ours, *peers) = row[2:4], [cell.strip() for cell in row.strip("|").split("|")[1:]]
    ms = {line["library"]: line["ms"] for line in results("gpu")["step_rows"] if line["work"] == work}
    ratios = [f"{ms[name] / ms['snn_bp']:.1f}" for name in ("snntorch", "spikingjelly")]

    assert ours == f"{ms['snn_bp']:.1f} ms"
    assert peers == [f"{ratio}x" for ratio in ratios]
    if work == "W1":
        said = "a step of W1 takes {}, snnTorch {} times as long and SpikingJelly with its Triton kernels {} times"
        assert said.format(ours, *ratios) in on_one_line(README)


def test_spikes_on_a_gpu_are_those_of_the_result_file():
    agreement = [row for row in results("gpu")["agreement"] if not row["tf32_in_convolutions"]]
    for precision in ("float64", "float32"):
        found = [row for row in agreement if row["precision"] == precision]
        assert {row["work"] for row in found} == {"W1", "W2", "W3", "W4"}
        assert not any(row["differing_spikes"] for row in found)
        spikes = f"{sum(row['spikes'] for row in found):,}"
        assert f"Of {spikes} spikes of W1 to W4 none differs" in on_one_line(README)
        assert f"Of the {spikes} spikes that W1 to W4 put out" in on_one_line(SPEED)


@pytest.mark.parametrize("row", rows(r"^\| `\w+.py`, \d+ .*", README, 3), ids=lambda row: row[3:20])
def test_accuracies_of_exported_files_are_those_of_the_result_file(row):
    name, samples = re.findall(r"`(\w+)\.py`, (\d+)", row)[0]
    found = results("exported")["rows"][name]
    floats, whole = found["trained in float, .net"], found["trained in loihi, .net"]

    shown = [floats["accuracy"]["float"], floats["accuracy"]["integer"], whole["accuracy"]["integer"]]
    assert re.findall(r"\| (0\.\d+)", row) == [f"{value:.3f}" for value in shown]
    assert floats["samples"] == whole["samples"] == int(samples)
    assert floats["holds"] and whole["holds"] and "50 recordings in a row are equal" in whole["client"]


def test_figures_of_files_for_other_tools_are_those_of_the_result_files():
    text, lava, peers, chips = on_one_line(PAGES["chip"]), *map(results, ("lava_client", "nir_peers", "nir_chips"))
    assert f"{lava['nets']} random networks" in text and f"of {lava['steps']} steps are equal" in text
    assert lava["nets_different"] == lava["spikes_different"] == lava["u_different"] == lava["v_different"] == 0

    compared = [
        cell
        for kind in ("ours", "trained", "theirs")
        for row in peers[kind].values()
        for name, cell in row.items()
        if name not in ("entries", "mean_output", "step_s", "test_accuracy") and not isinstance(cell, dict | str)
    ]
    assert f"In {len(compared)} comparisons of NIR files" in text and not any(compared)

    for tool, sentence in (
        ("snn-mlir, float, more passes", "in all {:,} outputs of twelve"),
        ("hls4ml, float", "in all {:,} of seven"),
    ):
        found = [row for kind in ("drawn", "trained") for row in chips[kind].values() if row.get(tool) == 0]
        assert sentence.format(sum(row["entries"] for row in found)) in text


def test_figures_of_xylo_are_those_of_the_result_file():
    found, text = results("xylo"), on_one_line(PAGES["xylo"])
    for arithmetic, words in (("xylo", "in the chip's integers"), ("float", "in floats")):
        each = [run[f"{arithmetic}, test accuracy"] for run in found["trained"]]
        assert f"{mean(each):.3f} {words} ({thousandths(each)})" in text
    equal = [re.search(r"all ([\d,]+) spikes", run["chips"]["xylosim 0.1.3"]) for run in found["trained"]]

    assert f"{found['totals']['numbers']:,} spikes, currents and potentials of {found['networks']} random" in text
    assert found["totals"]["differing"] == 0
    assert f"all {sum(int(match[1].replace(',', '')) for match in equal if match):,} numbers equal" in text


def test_figures_of_circuits_are_those_of_the_result_file():
    found, page = results("verilog"), PAGES["fpga"]
    random, trained, text = found["random"], found["trained"], on_one_line(page)

    def cell(made: dict | None) -> str:
        if made is None:
            return "not run"
        return f"{made['luts']:,} LUTs, {made['block_rams']:g} RAMs" + ("" if made["fits"] else ": too many")

    for name, row in trained.items():
        cells = [cell(row["synthesis"].get(family)) for family in ("ice40", "ecp5", "xc7")]
        figures = [f"{row['accuracy']['circuit']:.3f}", f"{row['verilator']['cycles']['mean']:,.0f}", *cells]
        shown = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
        assert shown.endswith(f" | {' | '.join(figures)} |")
    compared = sum(row["iverilog"]["compared"] for row in random)
    numbers = sum(row["verilator"]["compared"] for row in trained.values())
    assert f"{len(random)} random networks" in text and f"{compared:,} spikes and as many potentials" in text
    assert f"{len(trained)} trained ones" in text and f"{numbers:,} of each" in text
    assert all(row["equal"] and not row["lint"] for row in (*random, *trained.values()))


@pytest.mark.parametrize("row", rows(r"^\| `\w+=\d+` .*", PAGES["fpga"], 4))
def test_accuracies_in_few_bits_are_those_of_the_result_file(row):
    name, floats, decay, *shown = (cell.strip(" `") for cell in row.strip("|").split("|"))
    found = results("fixed")["experiments"][name]["targets"]
    means = [found[f"{bits} bits, {decay}"]["mean"] for bits in (8, 6, 4)]

    assert [floats, *shown] == [f"{mean:.3f}" for mean in (found["float"]["mean"], *means)]
    assert all(len(target["accuracy"]) == 3 for target in found.values())


def test_figures_of_own_neurons_are_those_of_the_result_file():
    found = results("neurons")["rows"]
    pieces = [row["compiled_by_piece"] for row in found]
    ends = [
        [row["times_lif_per_variable"] for row in found],
        [row["loop_over_own"] for row in found],
        *([piece[size]["over_own"] for piece in pieces] for size in ("1", "20")),
    ]
    lif, loop, step, piece = ([each["median"] for each in column] for column in ends)
    text = on_one_line(PAGES["own"])

    assert len(found) == 8
    assert f"take {min(lif):.2f} to {max(lif):.2f} times as long as `LIF`'s" in text
    assert f"take {min(loop):.1f} to {max(loop):.0f} times as long as our kernels" in text
    assert f"each step {min(step):.1f} to {max(step):.1f} times" in text
    assert f"pieces of 20 steps {min(piece):.1f} to {max(piece):.1f} times" in text


def test_figures_of_full_sets_and_of_a_sweep_are_those_of_the_result_files():
    sets, sweep = results("full_size")["sets"].values(), results("sweep")
    lines = [line for line in PAGES["data"].splitlines() if line.startswith("| ")]
    builds = [made["build"] for made in sets]
    after = [f"{build['seconds']:.0f} s; {build['then_s']:.0f} s" for build in builds]
    peaks = [f"{build['peak_mb']:.0f} MB" for build in builds]

    assert f"| build; killed halfway, the rest | {' | '.join(after)} |" in lines
    assert f"| memory of the build | {' | '.join(peaks)} |" in lines
    for words, ahead in (("read when asked for", False), ("read ahead", True)):
        (line,) = (line for line in lines if line.startswith(f"| a step waits, {words} "))
        for made, cell in zip(sets, line.strip("|").split("|")[1:], strict=True):
            waits = [100 * epoch["waiting"] for epoch in made["epochs"] if epoch["read_ahead"] == ahead]
            shown = [float(value) for value in re.findall(r"[\d.]+(?= %)", cell)]
            assert len(shown) == len(waits) == 2
            assert sorted(shown) == pytest.approx(sorted(waits), abs=0.5)
    text = on_one_line(PAGES["runs"])
    assert f"A sweep of {sweep['runs']} runs" in text and all(sweep["equal"].values())
    assert (
        f"took {sweep['medians']['sweep']['seconds']:.0f} s on two cores" in text
        and f"took {sweep['medians']['by_hand']['seconds']:.0f} s" in text
        and f"{sweep['faster']} times as fast" in text
    )


def test_what_augmentations_cost_is_that_of_the_result_file():
    quarter, whole = results("augment")["cases"].values()
    ours = [case["times_none"]["ours: all, and flip"] for case in (quarter, whole)]
    over = [case["tonic_over_ours"]["tonic's four and flip over all of ours"] for case in (quarter, whole)]
    page, changes = (on_one_line(text) for text in (PAGES["data"], (ROOT / "CHANGELOG.md").read_text()))

    assert "take {} times as long as none where the window is a quarter of a recording, {} times".format(*ours) in page
    assert "take {:.0f} and {:.0f} times as long as that".format(*over) in page
    assert "take {:.0f} times as long on recordings of which the window is a quarter, {:.0f}".format(*over) in changes


def test_what_mixing_recordings_gives_is_that_of_the_result_file():
    def cell(less: dict | None) -> str:
        return "{difference:+.3f} ({low:+.3f} .. {high:+.3f})".format(**less) if less else "not run"

    compared = runpy.run_path(str(ROOT / "experiments/benchmarks/mixing.py"))["compared"]
    lines = [line for line in PAGES["data"].splitlines() if line.startswith("| ")]
    for case in results("mixing")["cases"].values():
        epochs = next((change.partition("=")[2] for change in case["changes"] if "epochs" in change), None)
        name = f"`{Path(case['file']).name}`" + (f", {epochs} epochs" if epochs else "")
        ways = [
            case["less"].get(f"{way} less none") for way in ("CutMix same", "CutMix any", "Blend same", "Blend any")
        ]
        across = [case["less"].get(f"{kind} any less {kind} same") for kind in ("CutMix", "Blend")]
        assert f"| {name} | {case['means']['none']['accuracy']:.3f} | {' | '.join(map(cell, ways + across))} |" in lines
        assert {len(runs) for runs in case["runs"].values()} == {case["seeds"]} == {5}
        assert json.loads(json.dumps(compared(case["runs"]))) == {name: case[name] for name in ("means", "less")}


OTHERS = {  # published, of other files, or said and tested above as a mean or a setting
    "fpga": {"0.003"},
    "sets": {"0.844", "0.859", "0.873", "0.896", "0.004", "0.850", "0.876"},
    "speed": {"0.979", "0.973", "0.860", "0.750"},
    "xylo": {"0.875", "0.994", "0.989"},
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_paragraph_shows_fractions_of_the_files_that_it_links_to(name):
    paragraphs = [each for each in re.split(r"\n\n", DOCUMENTS[name]) if not each.startswith("|")]
    for paragraph in paragraphs:
        files = re.findall(r"experiments/results/(\w+)\.json", paragraph)
        known = [number for file in files for number in numbers(results(file))]
        shown = {*re.findall(r"\b0\.\d{3}\b", paragraph)} - OTHERS.get(name, set())
        lost = [text for text in shown if files and not any(abs(float(text) - value) < 6e-4 for value in known)]
        assert lost == [], paragraph


def test_fractions_of_the_estimates_of_memory_are_those_of_the_result_file():
    fractions = {}
    for name, row in results("memory")["rows"].items():
        command = name.rpartition(", ")[2].split()[0]
        command = command if command in ("evaluate", "predict", "doctor", "verify", "search") else "train"
        fractions.setdefault(command, []).append(row["peak_mb"] / row["estimate_mb"])
    shown = re.findall(r"^\| `(\w+)`.*? \| (\d+) \| ([\d.]+) to ([\d.]+) \|", PAGES["runs"], flags=re.MULTILINE)

    assert sorted(fractions) == sorted(command for command, *_ in shown)
    for command, count, low, high in shown:
        found = fractions[command]
        assert (int(count), low, high) == (len(found), f"{min(found):.2f}", f"{max(found):.2f}")
