"""An evaluation by two processes beside one: seconds, processor time of each, and whether figures and scores are equal.

    python experiments/benchmarks/evaluation.py

A convolutional network on the test digits, once as behind an epoch (loss and metrics) and once as at the end (spikes,
operations and scores too), by one gloo process and by two under torchrun, of one thread each, in turns. Each start
evaluates several times and gives the least; the median of the turns is told. On a machine with other work two
processes get more of it than one, so that processor seconds say more. Writes experiments/results/evaluation.json.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from snn_bp import LIF, BatchNorm, Conv, CountCrossEntropy, Data, Dense, Flatten, Network, Train
from snn_bp.data import load
from snn_bp.files import write_json
from snn_bp.runs.evaluation import Measurement
from snn_bp.runs.provenance import machine, version
from snn_bp.runtime.console import guarded
from snn_bp.runtime.processes import rank
from snn_bp.trainer.distributed import joined_processes
from snn_bp.trainer.together import evaluate_together

PACKAGES = ("snn_bp", "torch", "numpy", "numba")
DIGITS = Data("digits", step_ms=10, steps=30, batch=16)
NEURON = LIF(beta=0.9)
MODEL = (Conv(16, 5, stride=2, padding=2), BatchNorm(), NEURON, Conv(16, 3, stride=2, padding=1), BatchNorm(), NEURON,
         Flatten(), Dense(10), NEURON)  # fmt: skip
ASKED = {"behind an epoch": {"counts": False, "keep": False}, "at the end": {"counts": True, "keep": True}}
PROCESSES, EVALUATIONS = (1, 2), 4  # of each start, whose first one also compiles


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "evaluation.json")
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    turns = [{count: run_in(count) for count in PROCESSES} for _ in range(arguments.turns)]
    result: dict[str, Any] = {"turns": arguments.turns, "batches": turns[0][1]["batches"], "load_before": load}
    for what in ASKED:
        one, two = ([turn[count][what] for turn in turns] for count in PROCESSES)
        pairs = list(zip(one, two, strict=True))
        result[what] = {
            "seconds": [round(statistics.median(each["seconds"] for each in of), 3) for of in (one, two)],
            "times_as_fast": round(statistics.median(a["seconds"] / b["seconds"] for a, b in pairs), 2),
            "processor_seconds_of_each": [middle(one), middle(two)],
            "times_less_for_each": round(statistics.median(most(a) / most(b) for a, b in pairs), 2),
            "equal": len({each["sha256"] for each in (*one, *two)}) == 1,
        }
    result |= {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    write_json(arguments.out, result)
    print(json.dumps({what: result[what] for what in ASKED}, indent=2))


def most(measured: dict[str, Any]) -> float:
    """The processor seconds of the process that works longest."""
    return max(measured["processor_seconds"])


def middle(turns: list[dict[str, Any]]) -> list[float]:
    """The median of the turns for each process."""
    return [
        round(statistics.median(each), 3) for each in zip(*(turn["processor_seconds"] for turn in turns), strict=True)
    ]


def run_in(count: int) -> dict[str, Any]:
    """What so many processes of one thread each measure."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "measured.json"
        command = [sys.executable, *torchrun, __file__, "--member", str(file)]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return json.loads(file.read_text())


def member(file: Path) -> None:
    """Each process: evaluate, and let the first write the least seconds and what was found."""
    dataset = load(DIGITS, quiet=True)
    torch.manual_seed(0)
    network = Network(MODEL, dataset.shape).eval()
    with joined_processes(Train()) as team:
        if team is not None:
            team.begin_run(None) if team.is_first else team.awaited()
        measured: dict[str, Any] = {"batches": len(dataset.batches("test"))}
        for what, how in ASKED.items():
            seconds, processor, found = [], [], None
            for _ in range(EVALUATIONS):
                if team is not None:
                    team.wait()
                began, used = time.perf_counter(), time.process_time()
                found = evaluate_together(network, Measurement(dataset, "test", CountCrossEntropy(), **how), team)
                seconds.append(time.perf_counter() - began)
                processor.append(time.process_time() - used)
            mine = round(min(processor), 3)
            measured[what] = {
                "seconds": round(min(seconds), 3),
                "processor_seconds": [mine] if team is None else team.of_each(mine),
                "sha256": digest(found),
            }
    if rank() == 0:
        file.write_text(json.dumps(measured))


def digest(found: Any) -> str:
    """The hash of all figures and scores; empty where there are none."""
    if found is None:
        return ""
    figures, kept = found
    scores = b"" if kept is None else kept.scores.numpy().tobytes() + kept.values.numpy().tobytes()
    return hashlib.sha256(repr(figures.record()).encode() + scores).hexdigest()


if __name__ == "__main__":
    if "--member" in sys.argv:
        guarded(lambda *_, **__: member(Path(sys.argv[2])))
    else:
        main()
