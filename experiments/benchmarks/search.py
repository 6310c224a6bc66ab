"""Backpropagation, genetic algorithm, particle swarm and evolution strategy on one network, one loss and one budget.

    python experiments/benchmarks/search.py                       # minutes on a quiet core
    python experiments/benchmarks/search.py --budget 20000 --small-budget 20000 --out /tmp/search.json

Two questions. "digits": who learns the default data with a network of 2790 weights, for what cost? "price": who finds
weights where the loss knows nothing of the aim: 190 weights, the share of wrong votes plus 0.05 for every spike? There
backpropagation has the loss of the first part, and, as a stand-in found by hand, a squared error that wants one spike
from the right class. Each method in a process of its own with one thread. Writes experiments/results/search.json and
search.png.
"""

import argparse
import gc
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snn_bp import LIF, CountSquaredError, Data, Dense, Experiment, Flatten, Pool, Train
from snn_bp.data import load
from snn_bp.files import replace_file
from snn_bp.runs.provenance import commit, machine, version
from snn_bp.searches import OfOutput, search
from snn_bp.searches.methods import METHODS
from snn_bp.searches.searchers import Backpropagation, Population

RESULT = Path(__file__).resolve().parents[1] / "results" / "search.json"
DATA = Data("digits", step_ms=52, steps=6, downsample=2, batch=64, translate_px=1)  # of experiments/digits.py, coarser
PARTS = {
    "digits": Experiment(
        DATA, (Pool(2), Flatten(), Dense(20), LIF(beta=0.8), Dense(10), LIF(beta=0.8)), Train(lr=5e-3)
    ),
    "price": Experiment(replace(DATA, translate_px=0), (Pool(5), Flatten(), Dense(10), LIF(beta=0.8)), Train(lr=1e-2)),
}
OBJECTIVES = {"digits": "loss", "price": "spikes"}
PRICE = 0.05  # of a spike, in shares of right votes
LABELS = {"bptt": "backpropagation", "es": "evolution strategy", "ga": "genetic algorithm", "pso": "particle swarm",
          "stand-in": "backpropagation, stand-in loss"}  # fmt: skip
LOOKS = {"bptt": ("black", "-", "o"), "es": ("tab:blue", "--", "s"), "ga": ("tab:orange", "-.", "^"),
         "pso": ("tab:gray", ":", "D"), "stand-in": ("black", (0, (5, 1, 1, 1, 1, 1)), "P")}  # fmt: skip
NOTE = (
    "other programs used the machine: seconds of the wall are noise, cpu_seconds are those of this process; both are "
    "without validation and compiling. memory_mb: the most that two generations or steps hold beyond the loaded data"
)


def main() -> None:
    """Search, write, plot and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=400_000)
    parser.add_argument("--small-budget", type=int, default=150_000, help='of the part "price"')
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--plot", action="store_true", help="draw the figure of a result again, search nothing")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.task:
        print(json.dumps(measure(**json.loads(asked.task))))
        return
    if asked.plot:
        plot(json.loads(asked.out.read_text()), asked.out.with_suffix(".png"))
        return
    result: dict[str, Any] = {
        "question": "accuracy of four ways to find weights, against sample evaluations, seconds and memory",
        "command": shlex.join(["python", "experiments/benchmarks/search.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine() | {"threads": 1},
        "versions": {name: version(name) for name in ("snn_bp", "torch", "numpy", "numba")},
        "note": NOTE,
        "objectives": OBJECTIVES | {"price_of_a_spike": PRICE},
        "searches": [],
    }
    for part, budget in (("digits", asked.budget), ("price", asked.small_budget)):
        for label in LABELS if part == "price" else list(LABELS)[:4]:
            task = {"part": part, "label": label, "budget": budget, "seeds": asked.seeds}
            found = in_own_process(task)
            result["searches"] += found
            write(result, asked.out)
            for one in found:
                print(part, label, {key: one[key] for key in ("seed", "value", "test_accuracy", "spikes")}, flush=True)
    plot(result, asked.out.with_suffix(".png"))


def in_own_process(task: dict[str, Any]) -> list[dict[str, Any]]:
    """What `measure` gives, from a process with one thread."""
    command = [sys.executable, __file__, "--task", json.dumps(task)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, env=one_thread, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(part: str, label: str, budget: int, seeds: int) -> list[dict[str, Any]]:
    """A search for each seed, its curve in columns."""
    experiment, method = PARTS[part], label
    if label == "stand-in":
        loss, method = CountSquaredError(right=1 / 6, wrong=0.0), "bptt"
        experiment = replace(experiment, train=replace(experiment.train, loss=loss))
    how: dict[str, Any] = {"method": method, "objective": OBJECTIVES[part], "spike_penalty": PRICE, "quiet": True}
    memory = working_memory(experiment, method, part)
    search(experiment, budget=6000, seed=seeds, **how)  # compiles
    rows = []
    for seed in range(seeds):
        found = search(experiment, budget=budget, seed=seed, **how)
        curve: dict[str, list[Any]] = {}
        for row in found.curve:
            for name, value in asdict(row).items():
                curve.setdefault(name, []).append(round(value, 4))
        del curve["peak_memory_mb"]  # of the process: mostly libraries and data, alike for all
        assert found.test is not None
        rows.append(
            {
                **{"part": part, "label": label, "method": method, "seed": seed, "budget": budget},
                **{"population": found.population, "weights": sum(part.numel() for part in found.weights.values())},
                **{"value": curve["best_value"][-1], "test_accuracy": found.test.accuracy},
                **{"memory_mb": memory},
                **{"spikes": round(sum(found.test.spikes.values()), 2), "curve": curve},
            }
        )
    return rows


def working_memory(experiment: Experiment, method: str, part: str) -> float:
    """The most memory, in MB, that two generations (steps) hold beyond the data and what a tiny one left (Linux)."""
    dataset = load(experiment.data, quiet=True)
    aim = OfOutput(OBJECTIVES[part], experiment.train.loss, spike_penalty=PRICE)  # type: ignore[arg-type]
    x, targets = dataset.batch("train", dataset.batches("train")[0])

    def step(times: int, batch: int, **population: int) -> None:
        network = experiment.network(dataset.shape)
        if method == "bptt":
            searcher: Any = Backpropagation(network, experiment.train, steps=10, batches=10)
        else:
            size = sum(weight.numel() for weight in network.parameters())
            searcher = Population(network, METHODS[method](size, torch.Generator().manual_seed(0), **population), aim)
        for _ in range(times):
            searcher.step(x[:, :batch].contiguous(), targets[:batch])

    step(2, 2, **({} if method == "bptt" else {"population": 5}))  # compiles, loads code
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    held = status_mb("VmRSS")
    step(2, len(targets))
    return round(status_mb("VmHWM") - held, 2)


def status_mb(key: str) -> float:
    """A figure of this process from Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))


def write(result: dict[str, Any], out: Path) -> None:
    """The result as JSON, a line for each search."""
    lines = ",\n".join("    " + json.dumps(one) for one in result["searches"])
    head = json.dumps(result | {"searches": []}, indent=2)
    replace_file(out, (head.replace('"searches": []', f'"searches": [\n{lines}\n  ]') + "\n").encode())


def plot(result: dict[str, Any], out: Path) -> None:
    """Two rows, a part each, of three panels, a cost each; readable in grey by line and marker."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = (
        ("digits", "validation_accuracy", "validation accuracy"),
        ("price", "best_value", "wrong votes + spikes' price"),
    )
    costs = (
        ("sample_evaluations", "sample evaluations"),
        ("cpu_seconds", "CPU seconds"),
        ("memory_mb", "peak memory, MB"),
    )
    figure, panels = plt.subplots(2, 3, figsize=(11, 6.4), sharey="row", layout="constrained")
    for line, (part, measured, said) in zip(panels, rows, strict=True):
        for label in LABELS:
            searches = [one for one in result["searches"] if one["part"] == part and one["label"] == label]
            if not searches:
                continue
            color, style, marker = LOOKS[label]
            look = {"color": color, "linestyle": style, "marker": marker, "markevery": 6, "markersize": 5}
            heights = np.array([one["curve"][measured] for one in searches])
            for panel, (cost, _) in zip(line[:2], costs, strict=False):
                x = np.mean([one["curve"][cost] for one in searches], axis=0)
                panel.fill_between(x, heights.min(0), heights.max(0), color=color, alpha=0.12, linewidth=0)
                panel.plot(x, heights.mean(0), label=LABELS[label], **look)
            most = searches[0]["memory_mb"]
            ends = heights[:, -1]
            line[2].errorbar(most, ends.mean(), [[ends.mean() - ends.min()], [ends.max() - ends.mean()]],
                             color=color, marker=marker, markersize=8, capsize=4)  # fmt: skip
        weights = next(one["weights"] for one in result["searches"] if one["part"] == part)
        line[0].set_ylabel(f"{said}\n({part}, {weights} weights)")
        for panel, (_, name) in zip(line, costs, strict=True):
            panel.set_xlabel(name)
            panel.grid(alpha=0.25)
        line[0].set_xscale("log")
        line[1].set_xscale("log")
        line[2].set_xlim(left=0)
    shown = panels[1, 0].get_legend_handles_labels()
    figure.legend(*shown, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.suptitle("Mean and range of seeds; higher is better above, lower below", fontsize=10)
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    main()
