"""Two processes beside one on the same batches: how far weights and figures are from each other after three epochs.

    python experiments/benchmarks/distributed.py --data FOLDER [--only parts | whole]
    python experiments/benchmarks/distributed.py --only speed [--turns 5]

FOLDER holds NMNIST/Train and NMNIST/Test. Networks that are dense, convolutional and recurrent, with batch norms and
without, on the digits and on N-MNIST, each trained by one gloo process and by two under torchrun, in doubles and in
singles; in singles a sum in another order may flip a spike on the threshold, and what follows differs. How far that
goes is measured beside it: one process in singles, whose first weights are larger by a part in ten million. Then a
process of two is killed, and the run goes on in one, two and three. The same in singles where four batches make a step
and are dealt whole, to two and to three processes: there weights and figures are equal.

Speed: two batches make a step, by one process of two threads and by two of one thread, in turns, and by one of one
thread, whose weights are those of the two. Told is the median over turns of the seconds of a step, without the first
epoch, and of the ratio within a turn. Writes experiments/results/distributed.json; `--only` keeps the other parts.
"""

import argparse
import json
import os
import runpy
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    Data,
    Dense,
    Experiment,
    Flatten,
    Network,
    Recurrent,
    Run,
    Tau,
    Train,
    start_alive,
)
from snn_bp.files import write_json
from snn_bp.runs.provenance import machine, version
from snn_bp.runtime.console import guarded
from snn_bp.trainer import course

PACKAGES = ("snn_bp", "torch", "numpy", "numba")
NEURON = LIF(beta=Tau(100))
DIGITS, NMNIST = Data("digits", step_ms=52, steps=6), Data("nmnist", step_ms=52, steps=6, batch=16, downsample=2)
DENSE = (Flatten(), Dense(64), NEURON, Dense(10), NEURON)
RECURRENT = (Flatten(), Dense(64), Recurrent(NEURON), Dense(10), LI(beta=Tau(100)))
CONVOLVED = (Conv(8, 5, stride=2, padding=2), NEURON, Flatten(), Dense(10), NEURON)
NORMED = (  # without biases in front of norms: their gradient is rounding alone, of which Adam makes steps
    Conv(8, 5, stride=2, padding=2, bias=False), BatchNorm(), NEURON, Flatten(),
    Dense(32, bias=False), BatchNorm(), NEURON, Dense(10), NEURON,
)  # fmt: skip
CASES = {
    f"{kind}, {data.name}": Experiment(data, model, Train(epochs=3, lr=1e-3))
    for data in (DIGITS, NMNIST)
    for kind, model in (("dense", DENSE), ("convolved", CONVOLVED), ("recurrent", RECURRENT), ("normed", NORMED))
}
LONG = Experiment(DIGITS, DENSE, Train(epochs=10, lr=1e-3))  # one to be killed
NUDGED, NUDGE = "float32, nudged", 1e-7
WHOLE, ACCUMULATED = "float32, whole batches", 4
TIMED, PAIRED = "float32, timed", 2  # batches that make a step
LARGE = (Flatten(), Dense(1024), NEURON, Dense(1024), NEURON, Dense(10), NEURON)
FAST = {
    "digits.py": runpy.run_path(str(Path(__file__).parents[1] / "digits.py"))["experiment"],
    "two dense layers of 1024": Experiment(Data("digits", step_ms=10, steps=30), LARGE, Train(lr=1e-3)),
}
WAYS = {"1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1), "1 process, 1 thread": (1, 1)}
FIGURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "grad_norm")


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "distributed.json")
    parser.add_argument("--only", choices=("parts", "whole", "speed"))
    parser.add_argument("--turns", type=int, default=5, help="of speed")
    arguments = parser.parse_args()
    asked = (arguments.only,) if arguments.only else ("parts", "whole", "speed")
    if arguments.data is not None:
        os.environ["SNN_BP_DATA"] = str(arguments.data)
    elif arguments.only != "speed":
        parser.error("--data is missing: the folder that holds NMNIST/Train and NMNIST/Test")
    result: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.only else {}
    with tempfile.TemporaryDirectory() as name:
        if "parts" in asked:
            result |= in_parts(Path(name) / "parts") | made()
            for dtype in ("float64", "float32", NUDGED):
                print(dtype, {case: f"{each['weights']:.1e}" for case, each in result[dtype].items()})
            print(result["killed"])
        if "whole" in asked:
            result["whole batches"] = whole(Path(name) / "whole") | made()
            print(result["whole batches"])
        if "speed" in asked:
            result["speed"] = speed(Path(name) / "speed", arguments.turns) | made()
            print(json.dumps(result["speed"], indent=2))
    write_json(arguments.out, result)


def made() -> dict[str, Any]:
    """When, where and by what."""
    versions = {name: version(name) for name in PACKAGES}
    return {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions}


def in_parts(folder: Path) -> dict[str, Any]:
    """Each of two processes runs a part of every batch."""
    result: dict[str, Any] = {"processes": 2, "epochs": 3}
    for dtype in ("float64", "float32"):
        for count in (1, 2):
            run_in(count, folder / f"{dtype}-{count}", dtype, *CASES)
        result[dtype] = {
            case: differences(*(Run(folder / f"{dtype}-{count}" / case) for count in (1, 2))) for case in CASES
        }
    run_in(1, folder / "nudged", NUDGED, *CASES)
    result[NUDGED] = {case: differences(*(Run(folder / of / case) for of in ("float32-1", "nudged"))) for case in CASES}
    return result | {"killed": killed(folder, "float64")}


def whole(folder: Path) -> dict[str, Any]:
    """Each of two or three processes runs some of the batches of a step."""
    for count in (1, 2, 3):
        run_in(count, folder / str(count), WHOLE, *CASES)
    beside = {
        str(count): {case: differences(*(Run(folder / str(n) / case) for n in (1, count))) for case in CASES}
        for count in (2, 3)
    }
    return {"accumulate": ACCUMULATED, "epochs": 3, "processes": beside, "killed": killed(folder, WHOLE)}


def speed(folder: Path, turns: int) -> dict[str, Any]:
    """How long a step of whole batches takes, in two processes and in one."""
    load = round(os.getloadavg()[0], 1)
    for turn in range(turns):
        for way, (count, threads) in WAYS.items():
            run_in(count, folder / way / str(turn), TIMED, *FAST, threads=threads)
    cases = {}
    for case in FAST:
        runs = {way: [Run(folder / way / str(turn) / case) for turn in range(turns)] for way in WAYS}
        seconds = {way: [seconds_of_step(run) for run in of] for way, of in runs.items()}
        one, two, _ = seconds.values()
        ratios = [a / b for a, b in zip(one, two, strict=True)]
        cases[case] = {
            "ms_of_a_step": {way: round(1e3 * statistics.median(of), 2) for way, of in seconds.items()},
            "times_as_fast": round(statistics.median(ratios), 2),
            "of_each_turn": [round(ratio, 2) for ratio in ratios],
            "equal_to_one_thread": max(differences(*(runs[way][0] for way in list(WAYS)[1:])).values()) == 0,
        }
    return {"accumulate": PAIRED, "turns": turns, "load_before": load, "cases": cases}


def seconds_of_step(run: Run) -> float:
    """The mean over epochs behind the first, in which kernels are compiled."""
    rows, batches = run.metrics()[1:], len(run.dataset().batches("train"))
    return statistics.mean(row["seconds"] for row in rows) / -(-batches // PAIRED)


def command(count: int, folder: Path, dtype: str, *cases: str) -> list[str]:
    """The command line of a training of the cases, in so many processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    return [sys.executable, *torchrun, __file__, "--member", str(folder), dtype, *cases]


def run_in(count: int, *words: Any, threads: int = 1) -> None:
    """Train in so many processes, of so many threads each."""
    subprocess.run(command(count, *words), check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})


def member(folder: Path, dtype: str, cases: list[str]) -> None:
    """Each process of a training: train the cases, or go on with them."""
    from snn_bp import resume, train

    torch.set_default_dtype(getattr(torch, dtype.partition(",")[0]))
    if dtype == NUDGED:
        course.start_alive = nudged
    for case in cases:
        if (folder / case / "experiment.json").exists():
            resume(folder / case, quiet=True)
        else:
            experiment = LONG if case == "killed" else (CASES | FAST)[case]
            options = {WHOLE: {"accumulate": ACCUMULATED}, TIMED: {"accumulate": PAIRED, "epochs": 3}}.get(dtype, {})
            experiment = replace(experiment, train=replace(experiment.train, **options))
            train(experiment, folder / case, quiet=True)


def nudged(network: Network, *given: Any, **options: Any) -> None:
    """The usual start, and then all weights a little larger."""
    start_alive(network, *given, **options)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1 + NUDGE)


def differences(one: Run, other: Run) -> dict[str, float]:
    """The largest differences of a weight, and of a figure, in the end."""
    mine, theirs = (run.load("last").weights for run in (one, other))
    rows = zip(one.metrics(), other.metrics(), strict=True)
    test = [run.results()["test"] for run in (one, other)]  # type: ignore[index]
    return {
        "weights": max(float((mine[name].double() - theirs[name].double()).abs().max()) for name in mine),
        "figures": max(abs(a[name] - b[name]) for a, b in rows for name in FIGURES),
        "test_accuracy": abs(test[0]["accuracy"] - test[1]["accuracy"]),
        "test_loss": abs(test[0]["loss"] - test[1]["loss"]),
    }


def killed(folder: Path, dtype: str) -> dict[str, Any]:
    """A run of two processes of which one is killed, and how far one that goes on ends from one left alone."""
    run_in(1, folder / "left", dtype, "killed")
    found: dict[str, Any] = {"seconds_until_all_had_ended": [], "lines": [], "resumed": {}}
    for count in (1, 2, 3):
        run = folder / f"on-{count}" / "killed"
        started = subprocess.Popen(
            command(2, run.parent, dtype, "killed"), stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        table = run / "metrics.csv"
        while started.poll() is None and not (table.exists() and len(table.read_text().splitlines()) > 4):
            time.sleep(0.1)
        members = subprocess.run(["ps", "-o", "pid=", "--ppid", str(started.pid)], capture_output=True, text=True)
        began = time.monotonic()
        os.kill(int(members.stdout.split()[count % 2]), signal.SIGKILL)
        _, said = started.communicate()
        found["seconds_until_all_had_ended"].append(round(time.monotonic() - began, 1))
        found["lines"].append(sum(line.startswith("error: ") for line in said.splitlines()))
        run_in(count, run.parent, dtype, "killed")
        found["resumed"][str(count)] = differences(Run(folder / "left" / "killed"), Run(run))
    return found


if __name__ == "__main__":
    if "--member" in sys.argv:
        where, precision, *asked = sys.argv[2:]
        guarded(lambda *_, **__: member(Path(where), precision, asked))
    else:
        main()
