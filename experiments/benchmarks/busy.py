"""How long is a step of the default experiment on all cores while other processes keep one of them, or all, busy?

    python experiments/benchmarks/busy.py

Each process with threads that spin while they wait (`OMP_WAIT_POLICY=active`) and with threads that sleep, as importing
snn_bp asks of them; alone and beside loops of Python. Medians of a process each, interleaved. Writes
experiments/results/busy.json.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from snn_bp.files import write_json
from snn_bp.runs.provenance import machine, version

ROUNDS = 3
STEPS = """
import runpy, statistics, time
from snn_bp.data import load
from snn_bp.trainer.loop import make_optimizer, train_step
experiment = runpy.run_path({file!r})["experiment"]
dataset = load(experiment.data, quiet=True)
network = experiment.network(dataset.shape)
optimizer = make_optimizer(network, experiment.train)
batches = [dataset.batch("train", ids, seed=0, in_bytes=True) for ids in dataset.batches("train", seed=0)]
seconds = []
for x, targets in batches * 2:
    began = time.perf_counter()
    train_step(network, optimizer, x, targets, experiment.train)
    seconds.append(time.perf_counter() - began)
print(1000 * statistics.median(seconds[len(batches):]))
"""


def step_ms(policy: str, *, busy: int) -> float:
    """Median milliseconds of a step in a fresh process, with so many busy ones beside it."""
    code = STEPS.format(file=str(Path(__file__).parents[1] / "digits.py"))
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        asked = os.environ | {"OMP_WAIT_POLICY": policy}
        return float(subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, check=True).stdout)
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Measure, print and write."""
    loads = (0, 1, os.cpu_count() or 2)
    cases = {f"{policy}, {busy} busy": (policy, busy) for busy in loads for policy in ("active", "passive")}
    step_ms("passive", busy=0)  # compiles, and makes the data
    rows: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, (policy, busy) in cases.items():
            rows[name].append(step_ms(policy, busy=busy))
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in ("snn_bp", "torch", "numba")},
        "step_ms": {name: round(statistics.median(values), 1) for name, values in rows.items()},
        "rounds": {name: [round(value, 1) for value in values] for name, values in rows.items()},
    }
    write_json(Path(__file__).parents[1] / "results" / "busy.json", result)
    print(result["step_ms"])


if __name__ == "__main__":
    main()
