"""How near do the estimates that `train`, `evaluate`, `predict` and others refuse by come to what these take?

    python experiments/benchmarks/memory.py [--estimates] [NAME ...]

Each row trains one epoch of two batches of the made digits in a process of its own, after a small training has compiled
everything, and compares the peak of resident memory beyond what was there with the estimate. A row `NAME, COMMAND` does
the same with what another command does on three batches, with the network of the row `NAME` that begins alive; reading
its checkpoint is in it, except where `doctor` looks at the experiment. Rows that are measured
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
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
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
    MeanSquaredPotential,
    MembraneCrossEntropy,
    Module,
    Pool,
    Recurrent,
    Residual,
    Run,
    SEAdLIF,
    Tau,
    TemporalConv,
    Train,
    diagnose,
    evaluate,
    export,
    predict,
    search,
    verify,
)
from snn_bp import train as train_run
from snn_bp.data import Dataset, load
from snn_bp.data.catalogue import IN_MEMORY
from snn_bp.equations.arithmetic import detach, spike
from snn_bp.files import write_json
from snn_bp.instruments.doctor import SAMPLES
from snn_bp.model.start import start_alive
from snn_bp.neurons import neuron
from snn_bp.runs import memory
from snn_bp.runs.checkpoint import Checkpoint
from snn_bp.runs.provenance import machine, version
from snn_bp.searches import memory as searching
from snn_bp.trainer import memory as training
from snn_bp.verification.stages import AT_ONCE

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
MANY = 290  # steps of the recordings with many answers
LABELLED = {"step_ms": 1.0, "batch": 64, "validation_fraction": 0.25}


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
    "a class for every step": Experiment(
        Data(IN_MEMORY, **LABELLED),
        (Dense(256), BatchNorm(), NEURON, Dense(256), NEURON, Dense(10), LI(beta=0.9)),
        Train(epochs=1, loss=MembraneCrossEntropy()),
    ),
    "four numbers for every step": Experiment(
        Data(IN_MEMORY, **LABELLED, steps=MANY), (Dense(16), NEURON, Dense(4), LI(beta=0.9)),
        Train(epochs=1, loss=MeanSquaredPotential()),
    ),
}  # fmt: skip


EVALUATED = ("dense", "current", "own", "convolutions", "convolutions, norms", "long", "whole numbers", "many weights",
             "recurrent, learned", "delays of synapses", "residual", "a module", "convolutions over time",
             "a class for every step")  # fmt: skip
PREDICTED = tuple(name for name in EVALUATED if name not in ("current", "convolutions"))
DIAGNOSED = ("dense", "own", "convolutions, norms", "long", "recurrent, learned", "residual")
REPLAYED = {"convolutions": "net.nir", "dense": "net.nir", "recurrent": "net.nir", "whole numbers": "net.net",
            "dense, norms": "net.net"}  # fmt: skip
WAYS: dict[str, memory.Way] = {"net.nir": "replaying", "net.net": "replaying integers"}
SEARCHED = {"dense": ("ga", "pso", "es", "bptt"), "long": ("es",), "convolutions": ("es",)}
COMMANDS: dict[str, tuple[str, Any, int | None]] = {  # row: command, its way or method, recordings (None: a batch)
    **{f"{name}, evaluate": ("evaluate", "counting", None) for name in EVALUATED},
    **{f"{name}, predict": ("predict", "answering", None) for name in PREDICTED},
    **{f"{name}, doctor": ("doctor", "tracing", SAMPLES) for name in DIAGNOSED},
    **{f"{name}, verify": ("verify", WAYS[file], AT_ONCE) for name, file in REPLAYED.items()},
    **{f"{name}, search {each}": ("search", each, None) for name, methods in SEARCHED.items() for each in methods},
}
ROWS = (*CASES, *COMMANDS)


def estimated(name: str) -> float:
    """The estimate of a row, in MB."""
    if name in CASES:
        return training.estimate(CASES[name], _load_few(CASES[name].data)).total / 2**20
    experiment, (command, way, recordings) = CASES[_case(name)], COMMANDS[name]
    dataset = _load_few(experiment.data)
    if command == "search":
        return searching.estimate(experiment, dataset, way).total / 2**20
    return memory.estimate(experiment, dataset, recordings or experiment.data.batch, way=way).total / 2**20


def measured(name: str) -> dict[str, float]:
    """Peak and estimate of a row, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        call = _called(name, Path(folder))
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = _status("VmRSS")
        call()
        return _row((_status("VmHWM") - before) / 2**20, estimated(name))


def _case(name: str) -> str:
    """The training whose network a row has."""
    return name.rpartition(", ")[0]


def _small(experiment: Experiment) -> Experiment:
    steps = MANY if experiment.data.steps == MANY else 3
    return replace(experiment, data=replace(experiment.data, steps=steps, batch=4))


def _called(name: str, folder: Path) -> Callable[[], object]:
    """What a command does, after it was called with little."""
    experiment, command = (CASES[name], "train") if name in CASES else (CASES[_case(name)], COMMANDS[name][0])
    if command == "train":
        _train(_small(experiment))
        return partial(_train, experiment)
    if command == "doctor":
        diagnose(_small(experiment))
        return partial(diagnose, experiment)
    if command == "search":
        _search(_small(experiment), COMMANDS[name][1], folder / "small")
        return partial(_search, experiment, COMMANDS[name][1], folder / "run")
    calls = []
    for each, path in ((_small(experiment), folder / "small"), (experiment, folder / "run")):
        run = _alive(each, path)
        if command == "evaluate":
            calls.append(partial(evaluate, run, "train"))
        elif command == "predict":
            calls.append(partial(predict, run, _recordings(run)))
        else:
            file = folder / f"{path.name}-{REPLAYED[_case(name)]}"
            export(run, file, verification=False)
            calls.append(partial(verify, run, file, split="train"))
        if len(calls) == 1:
            calls[0]()
    return calls[1]


def _search(experiment: Experiment, method: Any, out: Path) -> None:
    """Two generations or more."""
    search(experiment, method=method, budget=250 * experiment.data.batch, out=out, quiet=True)


def _alive(experiment: Experiment, path: Path) -> Run:
    """A run whose network begins alive and was not trained."""
    dataset = _load_few(experiment.data, batches=3)
    network = experiment.network(dataset.shape)
    start_alive(network, dataset.batch("train", dataset.ids["train"][:4])[0])
    run = Run.create(experiment, path, command="memory", changes=())
    run.hold(dataset)
    run.check_data(dataset)
    run.save_best(Checkpoint(network.state_dict(), epoch=1))
    return run


def _recordings(run: Run) -> list[np.ndarray]:
    """The events of its training recordings, or their frames."""
    dataset = run.dataset()
    if dataset.data.name == IN_MEMORY:
        part: Any = dataset.parts["train"]
        return [part.frames[number] for number in dataset.ids["train"].tolist()]
    events: Any = dataset.parts["train"].events  # type: ignore[union-attr]
    found = []
    for number in dataset.ids["train"].tolist():
        some = slice(*events.offsets[number : number + 2])
        columns = [getattr(events, name)[some] for name in "xytp"]
        found.append(np.rec.fromarrays(columns, dtype=[("x", "u2"), ("y", "u2"), ("t", "i8"), ("p", "u1")]))
    return found


def _train(experiment: Experiment) -> None:
    with tempfile.TemporaryDirectory() as folder:
        held = _load_few(experiment.data) if experiment.data.name == IN_MEMORY else None
        train_run(experiment, Path(folder) / "run", quiet=True, dataset=held)


def _row(peak_mb: float, estimate_mb: float) -> dict[str, float]:
    return {"peak_mb": peak_mb, "estimate_mb": estimate_mb, "ratio": estimate_mb / peak_mb}


def _load_few(data: Data, *, quiet: bool = True, batches: int = 2) -> Dataset:
    """Some batches for training, one for each other split."""
    if data.name == IN_MEMORY:
        return _many_answers(data.batch) if data.steps == MANY else _labelled(data.steps, data.batch)
    dataset = load(data, quiet=quiet)
    ids = {split: each[: data.batch * (batches if split == "train" else 1)] for split, each in dataset.ids.items()}
    return replace(dataset, ids=ids)


@cache
def _labelled(steps: int | None, batch: int) -> Dataset:
    """Recordings of 150 to 300 steps of 500 channels, each step with a class; the first so many of them."""
    drawn, parts = np.random.default_rng(0), []
    for count in (256, 64):
        lengths = drawn.integers(150, 301, size=count)
        x = [(drawn.random((length, 500)) < 0.05).astype(np.uint8)[:steps] for length in lengths]
        parts.append((x, [drawn.integers(10, size=len(each)) for each in x]))
    more = {"batch": batch} if steps is None else {"batch": batch, "steps": steps}
    return Dataset.of(*parts, targets="class per step", **LABELLED | more)


@cache
def _many_answers(batch: int) -> Dataset:
    """A test part of 2000 recordings of 290 steps of 20 channels, each step with four numbers."""
    drawn, parts = np.random.default_rng(0), []
    for count in (256, 2000):
        x = (drawn.random((count, MANY, 20)) < 0.05).astype(np.uint8)
        parts.append((x, drawn.random((count, MANY, 4), dtype=np.float32)))
    return Dataset.of(*parts, targets="vector per step", **LABELLED | {"batch": batch, "steps": MANY})


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main() -> None:
    """Measure, print and write."""
    asked = [name for name in sys.argv[1:] if name != "--estimates"]
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
    for name in asked or [name for name in ROWS if "--estimates" not in sys.argv or name in kept["rows"]]:
        if "--estimates" in sys.argv:
            row = _row(kept["rows"][name]["peak_mb"], estimated(name))
        else:
            command = [sys.executable, __file__, "--one", name]
            row = json.loads(
                subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()[-1]
            )
        print(f"{name:34} {row['peak_mb']:8.0f} MB taken, {row['estimate_mb']:8.0f} MB estimated, "
              f"{row['ratio']:.2f} times", flush=True)  # fmt: skip
        rows = (json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}) | {name: row}
        versions = {name: version(name) for name in ("snn_bp", "torch", "numba")}
        write_json(RESULTS, {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions,
                             "rows": {each: rows[each] for each in ROWS if each in rows}})  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        import snn_bp.instruments.doctor
        import snn_bp.searches.loop
        import snn_bp.trainer.loop  # noqa: F401

        for module in ("snn_bp.trainer.loop", "snn_bp.searches.loop", "snn_bp.instruments.doctor"):
            sys.modules[module].load = _load_few  # type: ignore[attr-defined]
        print(json.dumps(measured(sys.argv[2])))
    else:
        main()
