"""Milliseconds of one layer of 16,384 LIF neurons over 500 steps on a GPU, beside what its memory allows.

    python experiments/benchmarks/gpu.py [--repeats 20]

Forward alone, and forward with backward, in batches of 1 to 16, single precision. `share_of_copy` is 1 where the layer
moves what it must (`STREAMS` arrays) at the speed with which this card copies. Beside ours, SpikingJelly's multi-step
neuron where it is installed, with its Triton or CuPy kernels. Writes experiments/results/gpu.json. NEVER MEASURED YET:
no GPU was at hand when this was written.
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snn_bp import LIF, ATan, simulate
from snn_bp.files import write_json
from snn_bp.kernels.gpu import neuron as gpu
from snn_bp.runs.provenance import machine, version

NEURONS, STEPS, BATCHES = 16_384, 500, (1, 2, 4, 8, 16)
BETA = 0.5  # a time constant of 2 steps, as SpikingJelly's default
SCALE = 0.5  # of the input: a few percent of the neurons fire at a step
STREAMS = {"forward": 2, "forward and backward": 6}  # x, s | x, s, v, and v, gradient of s, gradient of x


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    if not torch.cuda.is_available():
        sys.exit("gpu.py: it measures a GPU, and torch finds none here.")
    if not gpu.INSTALLED:
        sys.exit("gpu.py: it measures Triton kernels, and triton is not installed.")
    speed = copy_speed(repeats)
    rows = [row for batch in BATCHES for row in rows_of(batch, repeats, speed)]
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in ("snn_bp", "torch", "triton", "spikingjelly", "cupy")},
        "neurons": NEURONS,
        "steps": STEPS,
        "copy_gb_per_s": round(speed / 1e9, 1),
        "rows": rows,
    }
    write_json(Path(__file__).parents[1] / "results" / "gpu.json", result)
    for row in rows:
        print(row)


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
    return rows


def work(layer: Callable[[Tensor], Tensor], x: Tensor, *, graded: bool) -> Callable[[], object]:
    """What is timed: the layer alone without a graph, or the gradient of x under a given cotangent too."""
    if not graded:
        return torch.no_grad()(lambda: layer(x))
    leaf, cotangent = x.clone().requires_grad_(), torch.ones_like(x)
    return lambda: torch.autograd.grad(layer(leaf), leaf, cotangent)


def layers() -> dict[str, Callable[[Tensor], Tensor]]:
    """Ours, and SpikingJelly's with each backend that is installed."""
    neuron, surrogate = LIF(beta=BETA, reset="zero"), ATan(slope=2.0)
    found: dict[str, Callable[[Tensor], Tensor]] = {"snn_bp": lambda x: simulate(neuron, x, surrogate=surrogate)[0]}
    try:
        peer = importlib.import_module("spikingjelly.activation_based.neuron")
        functional = importlib.import_module("spikingjelly.activation_based.functional")
    except ImportError:
        return found
    for backend in ("triton", "cupy"):
        try:
            layer = peer.LIFNode(
                tau=1 / (1 - BETA), decay_input=False, v_reset=0.0, detach_reset=True, step_mode="m", backend=backend
            ).cuda()
            layer(torch.zeros(2, 1, 8, device="cuda"))
        except Exception as cause:  # a peer that is not installed whole fails in ways of its own
            print(f"spikingjelly, {backend}: left out, {cause}", file=sys.stderr)
            continue

        def run(x: Tensor, layer: Any = layer) -> Tensor:
            functional.reset_net(layer)
            return layer(x)

        found[f"spikingjelly {backend}"] = run
    return found


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
    times = []
    for _ in range(repeats):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        run()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended))
    return times


if __name__ == "__main__":
    main()
