"""How near does the estimate that `train` refuses by, and `--dry-run` shows, come to what a training takes?

    python experiments/benchmarks/memory.py [--estimates] [NAME ...]

Each row trains one epoch of two batches of the made digits in a process of its own, after a small training has compiled
everything, and compares the peak of resident memory beyond what was there with the estimate. Rows that are measured
replace those in experiments/results/memory.json; with `--estimates` peaks stay as they were measured, and are compared
with the estimate of today. Linux only.
"""

import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from torch import nn

from snn_bp import (
    ALIF,
    LI,
    LIF,
    BatchNorm,
    Conv,
    CubaLIF,
    Data,
    Delay,
    DelayedDense,
    Dense,
    Dropout,
    Experiment,
    Flatten,
    LayerNorm,
    Module,
    Pool,
    Recurrent,
    Residual,
    SEAdLIF,
    Tau,
    TemporalConv,
    Train,
)
from snn_bp import train as train_run
from snn_bp.data import Dataset, load
from snn_bp.equations.arithmetic import detach, spike
from snn_bp.files import write_json
from snn_bp.neurons import neuron
from snn_bp.runs.provenance import machine, version
from snn_bp.trainer import memory

RESULTS = Path(__file__).parents[1] / "results" / "memory.json"
NEURON = LIF(beta=0.9, reset="zero")


@neuron(decays=("beta", "rho"))
def Adaptive(v, w, s, x, *, beta=0.9, rho=0.95, a=0.1, b=0.2):
    """Two states, of which a backward pass needs every step."""
    w = rho * w + a * v + b * s
    v = beta * v * (1 - detach(s)) + x - w
    return v, w, spike(v - 1)


END = (Dense(10), BatchNorm(), NEURON)
WIDE = (Flatten(), Dense(10_000), NEURON, Dense(10), NEURON)
SE = Recurrent(SEAdLIF(beta=Tau(15), rho=Tau(150), q=120.0), learn=("beta", "rho", "a", "b"))
TRAIN = Train(epochs=1)


def digits(*model, steps: int = 300, batch: int = 64, how: Train = TRAIN) -> Experiment:
    """`steps` steps of 1 ms of digits of 17 x 17 pixels."""
    return Experiment(Data("digits", step_ms=1, steps=steps, batch=batch, downsample=2), model, how)


CASES = {
    "dense": digits(Flatten(), Dense(512), NEURON, Dense(512), NEURON, Dense(10), NEURON),
    "dense, low": digits(Flatten(), Dense(512), NEURON, Dense(10), NEURON, how=replace(TRAIN, memory="low")),
    "dense, norms": digits(Flatten(), Dense(512), BatchNorm(), NEURON, *END),
    "current": digits(Flatten(), Dense(512), BatchNorm(), CubaLIF(alpha=0.8, beta=0.9), Dense(10), LI(beta=0.9)),
    "adaptive": digits(Flatten(), Dense(512), ALIF(beta=0.9, rho=0.99, kappa=0.1), Dense(10), LI(beta=0.9)),
    "recurrent": digits(Flatten(), Dense(512), Recurrent(NEURON), Dense(10), NEURON),
    "recurrent, norms": digits(Flatten(), Dense(256), BatchNorm(), Recurrent(NEURON), *END),
    "own": digits(Flatten(), Dense(512), Adaptive(), Dense(10), LI(beta=0.9)),
    "own, norms": digits(Flatten(), Dense(512), BatchNorm(), Adaptive(), *END),
    "own, recurrent": digits(Flatten(), Dense(512), Recurrent(Adaptive()), Dense(10), NEURON),
    "convolutions": digits(
        *(Conv(16, 5, padding=2), NEURON, Pool(2), Conv(32, 3, padding=1), NEURON, Pool(2), Flatten()),
        *(Dense(10), NEURON), steps=40,
    ),
    "convolutions, norms": digits(
        *(Conv(16, 5, padding=2), BatchNorm(), NEURON, Pool(2, kind="max")),
        *(Conv(32, 3, padding=1), BatchNorm(), NEURON, Flatten(), *END), steps=40,
    ),
    "long": digits(Flatten(), Dense(64), BatchNorm(), NEURON, *END, steps=5000, batch=32),
    "dropout and delays": digits(Flatten(), Dropout(0.2), Dense(256), BatchNorm(), NEURON, Delay(3), *END),
    "in pieces": digits(Flatten(), Dense(512), BatchNorm(), NEURON, *END, how=replace(TRAIN, truncate=30)),
    "whole numbers": digits(Flatten(), Dense(256), NEURON, Dense(10), NEURON, how=replace(TRAIN, target="loihi")),
    "many weights": digits(Flatten(), Dense(20_000), NEURON, Dense(10), NEURON, steps=5, batch=4),
    "many weights, sgd": digits(*WIDE, steps=5, batch=4, how=replace(TRAIN, optimizer="sgd")),
    "many weights, average": digits(*WIDE, steps=5, batch=4, how=replace(TRAIN, average=0.99)),
    "many weights, recurrent": digits(
        Flatten(), Dense(3000), Recurrent(NEURON), Dense(10), NEURON, steps=5, batch=4
    ),
    "recurrent, learned": digits(
        Flatten(), Dense(256), SE, Dropout(0.15), Dense(256), SE, Dropout(0.15), Dense(10), LI(beta=0.9), batch=16
    ),
    "learned delays": digits(Flatten(), Dense(256), NEURON, Delay(10.5, learn=True), *END, steps=100),
    "delays of synapses": digits(Flatten(), DelayedDense(128, 25), BatchNorm(), NEURON, *END, steps=100),
    "residual": digits(
        *(Conv(16, 3, padding=1), BatchNorm(), NEURON, Residual(Conv(16, 3, padding=1), BatchNorm(), NEURON)),
        *(Pool(2), Flatten()), *END, steps=40, batch=32,
    ),
    "a module": digits(
        Flatten(), Dense(256), LayerNorm(), NEURON, Module(nn.Linear, 256, 256), NEURON, *END, steps=100
    ),
    "convolutions over time": digits(
        Flatten(), TemporalConv(128, 5), BatchNorm(), NEURON, TemporalConv(128, 5), NEURON, *END, steps=48
    ),
    "in short pieces": digits(
        *(Flatten(), Dense(512), BatchNorm(), NEURON, Dense(256), BatchNorm(), NEURON), *END, steps=48,
        how=replace(TRAIN, truncate=20),
    ),
    "fixed point": digits(
        Flatten(), Dense(256), NEURON, Dense(10), NEURON, steps=100, how=replace(TRAIN, target="fpga")
    ),
}  # fmt: skip


def measured(experiment: Experiment) -> dict[str, float]:
    """Peak and estimate of a training, in MB."""
    few = _load_few(experiment.data)
    _train(replace(experiment, data=replace(experiment.data, steps=3, batch=4)))
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    _train(experiment)
    return _row((_status("VmHWM") - before) / 2**20, memory.estimate(experiment, few).total / 2**20)


def _row(peak_mb: float, estimate_mb: float) -> dict[str, float]:
    return {"peak_mb": peak_mb, "estimate_mb": estimate_mb, "ratio": estimate_mb / peak_mb}


def _train(experiment: Experiment) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train_run(experiment, Path(folder) / "run", quiet=True)


def _load_few(data: Data, *, quiet: bool = True) -> Dataset:
    """Two batches for training, one for each other split."""
    dataset = load(data, quiet=quiet)
    ids = {split: each[: data.batch * (1 + (split == "train"))] for split, each in dataset.ids.items()}
    return replace(dataset, ids=ids)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main() -> None:
    """Measure, print and write."""
    asked = [name for name in sys.argv[1:] if name != "--estimates"]
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
    for name in asked or [name for name in CASES if "--estimates" not in sys.argv or name in kept["rows"]]:
        if "--estimates" in sys.argv:
            peak, experiment = kept["rows"][name]["peak_mb"], CASES[name]
            row = _row(peak, memory.estimate(experiment, _load_few(experiment.data)).total / 2**20)
        else:
            command = [sys.executable, __file__, "--one", name]
            row = json.loads(
                subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()[-1]
            )
        print(f"{name:24} {row['peak_mb']:8.0f} MB taken, {row['estimate_mb']:8.0f} MB estimated, "
              f"{row['ratio']:.2f} times", flush=True)  # fmt: skip
        rows = (json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}) | {name: row}
        versions = {name: version(name) for name in ("snn_bp", "torch", "numba")}
        write_json(RESULTS, {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions,
                             "rows": {each: rows[each] for each in CASES if each in rows}})  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        import snn_bp.trainer.loop  # noqa: F401

        sys.modules["snn_bp.trainer.loop"].load = _load_few  # type: ignore[attr-defined]
        print(json.dumps(measured(CASES[sys.argv[2]])))
    else:
        main()
