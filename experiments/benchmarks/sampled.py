"""What a surrogate that is zero outside a window spares a training step, and what it could spare at most.

    python experiments/benchmarks/sampled.py
    NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma python experiments/benchmarks/sampled.py \
        --parts steps products --out experiments/results/sampled_avx2.json

One thread; milliseconds of its processor time, the least of interleaved repeats. `steps`: W1 and W4 of speed.py by
surrogate, with its window and with the same code told that it has none; how many of the errors are within; what the
products take that give the errors of spikes, and how fast the step were without them; how far the gradients are apart.
`runs`: whole trainings of dense networks without norms in the same two ways. `products`: the sampled product, as a
fraction of the whole one's time, over units and the share within; `kernels.cpu.dense` takes it up to `SAMPLED_TO` and
from `SAMPLED_FROM_UNITS` on. `bfloat16`: torch's product of W1 in both precisions. `memory`: as in speed.py. Writes
experiments/results/sampled.json; parts that are not asked for stay as they are. The second command compiles as for a
processor without AVX-512.
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from speed.libraries import LIBRARIES, Library
from speed.measure import peak_memory
from speed.ours import ours
from speed.process import WARM_STEPS
from speed.works import WORKS, material

from snn_bp import (
    LI,
    LIF,
    Boxcar,
    Data,
    Dense,
    Experiment,
    FastSigmoid,
    Flatten,
    MembraneCrossEntropy,
    Surrogate,
    Tau,
    Train,
    Triangular,
    train,
)
from snn_bp.equations.shapes import Shape
from snn_bp.files import write_json
from snn_bp.kernels.cpu import dense
from snn_bp.kernels.cpu.aligned import aligned_zeros
from snn_bp.kernels.cpu.chain_shard import Shard
from snn_bp.kernels.cpu.compile import compiled_plain
from snn_bp.kernels.cpu.vectors import blocked, padded, panels
from snn_bp.runs.provenance import commit, machine, version
from snn_bp.runtime.process import keep_freed_memory

EXPERIMENTS = Path(__file__).resolve().parents[1]
PACKAGES = ("snn_bp", "torch", "numpy", "numba")
SURROGATES = (FastSigmoid(10.0), Boxcar(10.0), Boxcar(2.0), Triangular(10.0), Triangular(2.0), Triangular(1.0))
SHARES = (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
SIZES = ((20, 256), (64, 256), (128, 256), (256, 256), (512, 512), (1024, 512))  # units, inputs
ROWS = 512  # of a chunk


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=EXPERIMENTS / "results" / "sampled.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    result: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for part in asked.parts:
        rows = PARTS[part](asked.repeats)
        origin = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "machine": machine()}
        origin |= {"compiled_for": os.environ.get("NUMBA_CPU_FEATURES", "the processor")}
        origin |= {"versions": {name: version(name) for name in PACKAGES}}
        result |= {part: rows, f"{part}_measured": origin}
        for row in rows:
            print(part, row, flush=True)
        write_json(asked.out, result)


@contextmanager
def without_windows() -> Iterator[None]:
    """Within the block no surrogate is known to be zero anywhere."""
    with patch.object(Shape, "is_compact", False):
        yield


def steps(repeats: int) -> list[dict[str, Any]]:
    """A training step of W1 and W4 by surrogate, in both ways."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            _step(name, surrogate, Path(folder), repeats)
            for name, surrogates in (("W1", SURROGATES), ("W4", SURROGATES[:3]))
            for surrogate in surrogates
        ]


def _step(name: str, surrogate: Surrogate, folder: Path, repeats: int) -> dict[str, Any]:
    work, products, shares = WORKS[name], [0.0], {}
    step = ours(work, material(work, folder), surrogate=surrogate)
    made, backward = Shard._input_gradient, Shard.backward

    def timed(self: Shard, *arguments: Any) -> Callable:
        run = made(self, *arguments)

        def measured(start: int, stop: int) -> None:
            began = time.process_time()
            run(start, stop)
            products[0] += time.process_time() - began

        return measured

    def counted(self: Shard, *arguments: Any) -> Any:
        for layer, window in enumerate(self.windows):
            if window.size:
                shares.setdefault(layer, []).append(np.unpackbits(window.view(np.uint8)).mean())
        return backward(self, *arguments)

    def once() -> tuple[float, float]:
        products[0] = 0.0
        return _seconds(step.run), products[0]

    with patch.object(Shard, "_input_gradient", timed):
        with patch.object(Shard, "backward", counted):
            sampled = step.read(step.run())[1]
        with without_windows():
            whole = step.read(step.run())[1]
        taken: list[list[tuple[float, float]]] = [[], []]
        for _ in range(repeats):
            taken[0].append(once())
            with without_windows():
                taken[1].append(once())
    (now, _), (before, product) = ([min(each) for each in zip(*way, strict=True)] for way in taken)
    bound = {"products_ms": round(1e3 * product, 1), "bound_of_sampling": round(before / (before - product), 3)}
    return {
        "work": name,
        "surrogate": repr(surrogate),
        "ms_without_window": round(1e3 * before, 1),
        "ms": round(1e3 * now, 1),
        "times_as_fast": round(before / now, 3),
        **({} if "recurrent" in work.plan else bound),
        "share_within": {layer: round(float(np.mean(each)), 3) for layer, each in shares.items()},
        "gradients_apart": max(
            float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(sampled, whole, strict=True)
        ),
    }


def runs(repeats: int) -> list[dict[str, Any]]:
    """Whole trainings, of a dense network of W1's form without norms, in both ways."""
    return [
        _run(name, replace(experiment, train=replace(experiment.train, surrogate=surrogate)), min(repeats, 2))
        for name, experiment in _experiments().items()
        for surrogate in (Boxcar(2.0), Triangular(2.0))
    ]


def _experiments() -> dict[str, Experiment]:
    sys.path.insert(0, str(EXPERIMENTS))
    spoken = import_module("fsdd").experiment
    layers = (Dense(256), LIF(beta=Tau(20)), Dense(256), LIF(beta=Tau(20)), Dense(10), LI(beta=Tau(100)))
    pictures = Data("nmnist", step_ms=5, batch=32, downsample=2, root=os.environ.get("SNN_BP_DATA"))
    return {
        "FSDD, dense": replace(spoken, model=layers, train=Train(epochs=5, lr=1e-3, loss=MembraneCrossEntropy())),
        "N-MNIST, dense": Experiment(
            data=pictures, model=(Flatten(), *layers), train=Train(epochs=10, lr=1e-3, loss=MembraneCrossEntropy())
        ),
    }


def _run(name: str, experiment: Experiment, repeats: int) -> dict[str, Any]:
    taken: list[list[float]] = [[], []]
    scores: list[float] = []
    with tempfile.TemporaryDirectory() as folder:

        def once(way: int, repeat: int) -> None:
            out = Path(folder) / f"{way} {repeat}"
            with redirect_stdout(None), redirect_stderr(io.StringIO()):
                taken[way].append(_seconds(partial(train, experiment, out)))
            if not way:
                scores.append(json.loads((out / "results.json").read_text())["test"]["accuracy"])

        for repeat in range(1 + repeats):  # the first one compiles
            once(0, repeat)
            with without_windows():
                once(1, repeat)
    now, before = (min(each[1:]) for each in taken)
    return {
        "run": name,
        "surrogate": repr(experiment.train.surrogate),
        "seconds_without_window": round(before, 2),
        "seconds": round(now, 2),
        "times_as_fast": round(before / now, 3),
        "accuracy": scores[0],
    }


def products(repeats: int) -> list[dict[str, Any]]:
    """The sampled product's time as a fraction of the whole one's."""
    return [_product(units, inputs, 4 * repeats) for units, inputs in SIZES]


def _product(units: int, inputs: int, repeats: int) -> dict[str, Any]:
    draw, dtype, width = np.random.default_rng(0), np.dtype(np.float32), padded(units)
    weight = draw.normal(size=(units, inputs)).astype(dtype)
    d, below = aligned_zeros(ROWS * width, dtype), aligned_zeros(ROWS * inputs, dtype)
    d.reshape(ROWS, width)[:, :units] = draw.normal(size=(ROWS, units))
    sizes = (inputs, units, width, ROWS, 0, 1)
    whole = partial(compiled_plain(dense.input_gradient), below, d, panels(weight, units, inputs), *sizes)
    sampled, rows = compiled_plain(dense.sampled_input_gradient), blocked(weight.T, width)
    fractions = {}
    for share in SHARES:
        within = np.packbits(draw.random((ROWS, inputs)) < share, axis=1, bitorder="little").view(np.uint64)
        part = partial(sampled, below, d, rows, within.reshape(-1), within.shape[1], 1.0, *sizes)
        part()
        pairs = [(_seconds(part), _seconds(whole)) for _ in range(repeats)]
        mine, theirs = (min(each) for each in zip(*pairs, strict=True))
        fractions[share] = round(mine / theirs, 2)
    return {"units": units, "inputs": inputs, "sampled_to_whole": fractions}


def bfloat16(repeats: int) -> list[dict[str, Any]]:
    """torch's product for the errors behind W1's second layer, in single precision and in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn(size, generator=generator) for size in ((32000, 256), (256, 256))]
    short = [each.bfloat16() for each in pair]
    taken = [(_seconds(partial(torch.mm, *pair)), _seconds(partial(torch.mm, *short))) for _ in range(1 + repeats)]
    single, half = (1e3 * min(each) for each in zip(*taken, strict=True))
    exact, rounded = torch.mm(*pair).flatten().double(), torch.mm(*short).flatten().double()
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    return [
        {
            "ms": round(single, 1),
            "ms_bfloat16": round(half, 1),
            "times_as_fast": round(single / half, 2),
            "one_minus_cosine": float(1 - exact @ rounded / (exact.norm() * rounded.norm())),
            "instructions": sorted({flag for flag in flags if "bf16" in flag}),
        }
    ]


def memory(repeats: int) -> list[dict[str, Any]]:
    """Most megabytes of a step of W1 beyond inputs and weights, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return [
            {"surrogate": repr(surrogate)} | pool.apply(_memory, (surrogate, Path(folder)))
            for surrogate in SURROGATES[:3]
        ]


def _memory(surrogate: Surrogate, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    LIBRARIES["ours"] = Library("snn_bp", ours, {"surrogate": surrogate})
    found = peak_memory(WORKS["W1"], replace(WORKS["W1"], steps=WARM_STEPS), "ours", folder=folder)
    return {"mb": found["mb"]}


def _seconds(run: Callable[[], Any]) -> float:
    """Processor time of this process."""
    began = time.process_time()
    run()
    return time.process_time() - began


PARTS = {"steps": steps, "products": products, "bfloat16": bfloat16, "memory": memory, "runs": runs}

if __name__ == "__main__":
    main()
