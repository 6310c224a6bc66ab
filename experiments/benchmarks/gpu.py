"""What a GPU gives: neurons beside what its memory allows, training steps beside peers, and whether both are the CPU's.

    python experiments/benchmarks/gpu.py [--repeats 20] [--parts neurons steps agreement]

`neurons`: one layer of 16,384 LIF neurons over 500 steps, forward alone and with backward, in batches of 1 to 16,
single precision. `share_of_copy` is 1 where the layer moves what it must (`STREAMS` arrays) at the speed with which
this card copies. `steps`: the works of `speed.py`, whole training steps. SpikingJelly chooses its kernels by itself
(CUDA's own where they can be built, else Triton's) and snnTorch loops over time. `agreement`: our step on the GPU
against our step on the CPU, same weights and input, with convolutions in TF32 (torch's default) and without. Writes
experiments/results/gpu.json; parts that are not asked for stay in the file as they are.
"""

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed.libraries import LIBRARIES, installed
from speed.ours import ours
from speed.works import TITLES, WORKS, Work, material
from torch import Tensor

from snn_bp import LIF, ATan, simulate
from snn_bp.files import write_json
from snn_bp.kernels.gpu import neuron as gpu
from snn_bp.runs.provenance import commit, machine, version

RESULT = Path(__file__).resolve().parents[1] / "results" / "gpu.json"
NEURONS, STEPS, BATCHES = 16_384, 500, (1, 2, 4, 8, 16)
BETA = 0.5  # a time constant of 2 steps, as SpikingJelly's default
SCALE = 0.5  # of the input: a few percent of the neurons fire at a step
STREAMS = {"forward": 2, "forward and backward": 6}  # x, s | x, s, v, and v, gradient of s, gradient of x
STEP_WORKS = ("W1", "W2", "W3", "W4")
STEPPING = ("snn_bp", "snntorch", "spikingjelly")
LONG_S = 3.0  # of one row: what takes longer is timed less often
CHECK_BATCH = 16
PACKAGES = ("snn_bp", "torch", "triton", "numba", "snntorch", "spikingjelly")


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--libraries", nargs="+", choices=STEPPING, default=list(STEPPING), metavar="LIBRARY")
    parser.add_argument("--arrays", type=Path, help="folder that keeps the arrays of the works")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu.py: it measures a GPU, and torch finds none here.")
    if not gpu.INSTALLED:
        sys.exit("gpu.py: it measures Triton kernels, and triton is not installed.")
    result = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for part in asked.parts:
            result |= PARTS[part](asked, asked.arrays or Path(folder))
            result[f"{part}_measured"] = {
                "date": time.strftime("%Y-%m-%d"),
                "commit": commit(),
                "machine": machine(),
                "versions": {name: version(name) for name in PACKAGES},
                "repeats": asked.repeats,
            }
            write_json(asked.out, result)


def _neurons(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    repeats = asked.repeats
    speed = copy_speed(repeats)
    rows = [row for batch in BATCHES for row in rows_of(batch, repeats, speed)]
    return {"neurons": NEURONS, "steps": STEPS, "copy_gb_per_s": round(speed / 1e9, 1), "rows": rows}


def rows_of(batch: int, repeats: int, speed: float) -> list[dict[str, Any]]:
    """Every library's milliseconds for a batch, and the share of the copy's speed that they come to."""
    generator = torch.Generator(device="cuda").manual_seed(0)
    x = SCALE * torch.randn(STEPS, batch, NEURONS, device="cuda", generator=generator)
    rows = []
    for name, layer in layers().items():
        for part, streams in STREAMS.items():
            times = milliseconds(work(layer, x, graded=part != "forward"), repeats)
            floor = 1e3 * streams * x.numel() * x.element_size() / speed
            row = {"library": name, "part": part, "batch": batch, "ms": round(statistics.median(times), 4)}
            rows.append(row | {"ms_fastest": round(min(times), 4), "share_of_copy": round(floor / row["ms"], 3)})
            print(rows[-1], flush=True)
    return rows


def work(layer: Callable[[Tensor], Tensor], x: Tensor, *, graded: bool) -> Callable[[], object]:
    """What is timed: the layer alone without a graph, or the gradient of x under a given cotangent too."""
    if not graded:
        return torch.no_grad()(lambda: layer(x))
    leaf, cotangent = x.clone().requires_grad_(), torch.ones_like(x)
    return lambda: torch.autograd.grad(layer(leaf), leaf, cotangent)


def layers() -> dict[str, Callable[[Tensor], Tensor]]:
    """Ours, and SpikingJelly's where it is installed."""
    neuron, surrogate = LIF(beta=BETA, reset="zero"), ATan(slope=2.0)
    found: dict[str, Callable[[Tensor], Tensor]] = {"snn_bp": lambda x: simulate(neuron, x, surrogate=surrogate)[0]}
    try:
        peer = importlib.import_module("spikingjelly.activation_based.neuron")
        functional = importlib.import_module("spikingjelly.activation_based.functional")
        atan = importlib.import_module("spikingjelly.activation_based.surrogate").ATan(alpha=2.0)
    except ImportError:
        return found
    layer = peer.LIFNode(1 / (1 - BETA), False, 1.0, 0.0, atan, detach_reset=True, step_mode="m").cuda()

    def run(x: Tensor) -> Tensor:
        functional.reset_net(layer)
        return layer(x)

    return found | {"spikingjelly": run}


def _steps(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for name in STEP_WORKS:
        for library in [library for library in asked.libraries if library in installed()]:
            rows.append(
                {"work": name, "title": TITLES[name], "library": library, **_step(name, library, asked.repeats, folder)}
            )
            ours = next(row["ms"] for row in rows if row["work"] == name)
            rows[-1]["times_ours"] = round(rows[-1]["ms"] / ours, 2) if rows[-1].get("ms") and ours else None
            print(rows[-1], flush=True)
    return {"step_rows": rows}


def _step(name: str, library: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Milliseconds of a whole training step, and the most memory of the GPU that it holds, input and weights too."""
    try:
        step = LIBRARIES[library].build(WORKS[name], material(WORKS[name], folder), torch.float32, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        times = milliseconds(step.run, repeats)
    except Exception as error:  # a peer may fail in any way; the others are measured all the same
        return {"ms": None, "error": f"{type(error).__name__}: {error}"[:300]}
    peak = torch.cuda.max_memory_allocated() / 2**20
    return {
        "ms": round(statistics.median(times), 3), "ms_fastest": round(min(times), 3), "runs": len(times),
        "peak_mb": round(peak, 1),
    }  # fmt: skip


def _agreement(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows = []
    for name in STEP_WORKS:
        for dtype in (torch.float64, torch.float32):
            expected = _outcome(WORKS[name], dtype, folder, "cpu")
            convolves = "conv" in WORKS[name].plan and dtype == torch.float32
            for tf32 in (False, True) if convolves else (None,):
                allowed = torch.backends.cudnn.allow_tf32
                torch.backends.cudnn.allow_tf32 = bool(tf32)
                rows.append(_compared(name, dtype, tf32, _outcome(WORKS[name], dtype, folder, "cuda"), expected))
                torch.backends.cudnn.allow_tf32 = allowed
                print(rows[-1], flush=True)
    return {"agreement": rows}


def _outcome(work: Work, dtype: torch.dtype, folder: Path, device: str) -> tuple[np.ndarray, list[np.ndarray]]:
    given = material(work, folder)
    cut = replace(work, batch=min(work.batch, CHECK_BATCH))
    few = given._replace(x=given.x[:, : cut.batch], targets=given.targets[: cut.batch])
    step = ours(cut, few, dtype, device=device)
    return step.read(step.run())


def _compared(
    name: str, dtype: torch.dtype, tf32: bool | None, got: tuple[np.ndarray, list[np.ndarray]],
    wanted: tuple[np.ndarray, list[np.ndarray]],
) -> dict[str, Any]:  # fmt: skip
    size = sum(np.square(gradient, dtype=np.float64).sum() for gradient in wanted[1])
    pairs = zip(got[1], wanted[1], strict=True)
    apart = sum(np.square(np.subtract(a, b, dtype=np.float64)).sum() for a, b in pairs)
    return {
        "work": name, "precision": str(dtype).removeprefix("torch."), "tf32_in_convolutions": tf32,
        "spikes": int(wanted[0].sum()), "differing_spikes": int((got[0] != wanted[0]).sum()),
        "gradient_error": float(np.sqrt(apart / size)),
    }  # fmt: skip


def copy_speed(repeats: int) -> float:
    """Bytes a second, read and written, of a copy too large for the cache."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    times = milliseconds(lambda: target.copy_(source), repeats)
    return 2 * source.numel() * source.element_size() / (1e-3 * statistics.median(times))


def milliseconds(run: Callable[[], object], repeats: int) -> list[float]:
    """The GPU's own clock around each run, after runs that compile and warm up."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < repeats and sum(times) < 1e3 * LONG_S:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        run()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended))
    return times


PARTS = {"neurons": _neurons, "steps": _steps, "agreement": _agreement}

if __name__ == "__main__":
    main()
