"""Seconds until something is there: help and typing errors, an import, the default experiment's first training step.

    python experiments/benchmarks/startup.py [--starts 5]

The command's answers count from the start of Python, the import of four names and the step beyond `import torch`. A
first start compiles the kernels and makes the data (empty caches), later ones find them. Each start is a process of its
own, interleaved with one that only imports torch. Writes experiments/results/startup.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from snn_bp.files import write_json
from snn_bp.runs.provenance import machine, version

TORCH = "import torch"
NAMES = "import torch; from snn_bp import LIF, Dense, Network, train"
ANSWERS = ("--help", "train --help", "trian", "train nothing.py", "evaluate --splitt")  # the last three are wrong
ANSWER = "import sys; sys.argv = ['snn-bp', *{words!r}]; from snn_bp.cli import entry; entry()"
STEP = """
import runpy
from snn_bp.data import load
from snn_bp.model.start import start_alive
from snn_bp.trainer.loop import make_optimizer, train_step
experiment = runpy.run_path({file!r})["experiment"]
dataset = load(experiment.data, quiet=True)
network = experiment.network(dataset.shape)
x, targets = dataset.batch("train", dataset.batches("train", seed=0)[0], seed=0)
start_alive(network, x)
train_step(network, make_optimizer(network, experiment.train), x, targets, experiment.train)
"""


def seconds(code: str, environment: dict[str, str], *, ends: tuple[int, ...] = (0,)) -> float:
    """How long a fresh Python takes for `code`, which ends with one of these exit codes."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    took = time.monotonic() - began
    if done.returncode not in ends:
        raise SystemExit(done.stderr.decode())
    return took


def median(numbers: Iterable[float]) -> float:
    """To a hundredth of a second."""
    return round(statistics.median(numbers), 2)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5)
    starts = parser.parse_args().starts
    step = STEP.format(file=str(Path(__file__).parents[1] / "digits.py"))
    with tempfile.TemporaryDirectory() as folder:
        caches = {"SNN_BP_CACHE": f"{folder}/cache", "NUMBA_CACHE_DIR": f"{folder}/numba"}
        environment = os.environ | caches
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is there in bytecode
        for code in (TORCH, NAMES):  # their files are now in memory
            seconds(code, environment)
        rows = [
            (seconds(TORCH, environment), seconds(NAMES, environment), seconds(step, environment))
            for _ in range(starts + 1)
        ]
        answers = {
            words: [seconds(ANSWER.format(words=words.split()), environment, ends=(0, 2)) for _ in range(starts + 1)]
            for words in ANSWERS
        }
    beyond = [round(whole - torch, 2) for torch, _, whole in rows]
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in ("snn_bp", "torch", "numba")},
        "answers_s": {words: median(times[1:]) for words, times in answers.items()},
        "import_torch_s": median(torch for torch, _, _ in rows),
        "import_of_names_beyond_torch_s": median(names - torch for torch, names, _ in rows[1:]),
        "first_start_beyond_torch_s": beyond[0],
        "later_starts_beyond_torch_s": median(beyond[1:]),
        "later_starts": beyond[1:],
    }
    write_json(Path(__file__).parents[1] / "results" / "startup.json", result)
    print({key: value for key, value in result.items() if key.endswith("_s")})


if __name__ == "__main__":
    main()
