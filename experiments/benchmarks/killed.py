"""Does a run killed with SIGKILL at any moment end as one left alone? Every weight, every row of metrics.csv.

    python experiments/benchmarks/killed.py [--kills 10] [--seed 0]

Trains a small network on the default data, kills the process at random moments of its life (each time a fresh run),
resumes with `snn-bp resume` and compares with the run left alone. Writes experiments/results/killed.json.
"""

import argparse
import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from snn_bp import LIF, BatchNorm, Data, Dense, Dropout, Experiment, Flatten, Run, Train, train
from snn_bp.files import write_json
from snn_bp.provenance import machine, version

EXPERIMENT = Experiment(
    data=Data("digits", step_ms=52, steps=6, batch=64, shift=1, downsample=2),
    model=(Flatten(), Dense(64), BatchNorm(), LIF(beta=0.8), Dropout(0.2), Dense(10), BatchNorm(), LIF(beta=0.8)),
    train=Train(epochs=20, lr=4e-3),
)
EXACT = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr", "grad_norm")
START = "import sys; sys.path.insert(0, sys.argv[1]); import killed; killed.begin(sys.argv[2])"


def begin(out: str) -> None:
    """Train the experiment into `out`, saving often, so that kills meet checkpoints being written."""
    train(EXPERIMENT, out, quiet=True, save_seconds=0.05)


def begin_apart(out: Path) -> subprocess.Popen:
    """`begin` in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", START, str(Path(__file__).parent), str(out)])


def outcome(out: Path) -> tuple[dict[str, torch.Tensor], list[tuple[str, ...]]]:
    """The last weights of a run and the columns of its metrics that do not measure time."""
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    return Run(out).load("last").weights, [tuple(row[column] for column in EXACT) for row in rows]


def killed_and_resumed(out: Path, *, after: float) -> tuple[bool, str]:
    """Kill a fresh run `after` seconds and resume it; whether the kill met it alive, and how far it had come."""
    process = begin_apart(out)
    time.sleep(after)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not (out / "experiment.json").exists():
        begin_apart(out).wait()
        return alive, "before the run folder stood"
    checkpoint, _ = Run(out).latest()
    reached = f"epoch {checkpoint.epoch + 1}, batch {checkpoint.batch + 1}" if checkpoint else "before a checkpoint"
    subprocess.run([sys.executable, "-m", "snn_bp", "resume", str(out)], check=True, stdout=subprocess.DEVNULL)
    return alive, reached


def compare(kills: int, seed: int) -> list[dict[str, object]]:
    """One row for each kill: when, how far the run was, and whether the end is the same."""
    draw, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone"
        began = time.monotonic()
        begin_apart(alone).wait()
        lifetime = time.monotonic() - began
        weights, metrics = outcome(alone)
        while len(rows) < kills:
            out = Path(folder) / f"killed-{len(rows)}"
            after = draw.uniform(0.4 * lifetime, lifetime)  # what comes before is import and loading
            alive, reached = killed_and_resumed(out, after=after)
            if not alive:  # it had finished already: no kill
                shutil.rmtree(out)
                continue
            again, rows_again = outcome(out)
            equal = weights.keys() == again.keys() and all(torch.equal(weights[k], again[k]) for k in weights)
            rows.append({"after_s": round(after, 2), "reached": reached, "weights_equal": equal,
                         "metrics_equal": metrics == rows_again})  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = compare(arguments.kills, arguments.seed)
    same = sum(bool(row["weights_equal"] and row["metrics_equal"]) for row in rows)
    result = {
        "date": time.strftime("%Y-%m-%d"), "machine": machine(), "torch": version("torch"),
        "equal": same, "of": len(rows), "kills": rows,
    }  # fmt: skip
    write_json(Path(__file__).parents[1] / "results" / "killed.json", result)
    print(json.dumps({"equal": same, "of": len(rows)}))
    sys.exit(same != len(rows))


if __name__ == "__main__":
    main()
