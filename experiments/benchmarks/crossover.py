"""At which share of inputs that are not zero does torch's own product become faster than ours over events?

    python experiments/benchmarks/crossover.py

One thread, forward and backward, ours and torch's interleaved, medians. For a dense layer the package takes a product
from `kernels.cpu.dense.PRODUCT_FROM` on, for a convolution from `kernels.cpu.sparse_ops.worth_events`; both figures
stand beside the measured ones. Writes experiments/results/crossover.json.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from snn_bp.files import write_json
from snn_bp.kernels.cpu import sparse_ops
from snn_bp.runs.provenance import machine, version
from snn_bp.runtime.process import keep_freed_memory

SHARES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
LAYERS = {
    "dense 700-256": (nn.Linear(700, 256), (8000, 700)),
    "dense 256-256": (nn.Linear(256, 256), (8000, 256)),
    "dense 256-20": (nn.Linear(256, 20), (8000, 256)),
    "conv 2-12, 5x5": (nn.Conv2d(2, 12, 5), (400, 2, 34, 34)),
    "conv 12-32, 5x5": (nn.Conv2d(12, 32, 5), (400, 12, 15, 15)),
    "conv 2-16, 5x5, stride 2": (nn.Conv2d(2, 16, 5, stride=2, padding=2), (400, 2, 34, 34)),
    "conv 16-32, 3x3, stride 2": (nn.Conv2d(16, 32, 3, stride=2, padding=1), (400, 16, 17, 17)),
    "conv 64-64, 3x3": (nn.Conv2d(64, 64, 3, padding=1), (100, 64, 16, 16)),
}


def main() -> None:
    """Measure and write the result."""
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = [measure(name, layer, shape) for name, (layer, shape) in LAYERS.items()]
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in ("snn_bp", "torch", "numba")},
        "layers": rows,
    }
    write_json(Path(__file__).parents[1] / "results" / "crossover.json", result)
    for row in rows:
        print(f"{row['layer']:28} measured {row['crossover']}, taken {row['taken']:.3f}, ms {row['ms']}")


def measure(name: str, layer: nn.Linear | nn.Conv2d, shape: tuple[int, ...]) -> dict:
    """Milliseconds of ours and of torch's at each share, and where the two lines cross."""
    ms: dict[float, tuple[float, float]] = {}
    for share in SHARES:
        generator = torch.Generator().manual_seed(0)
        x = (torch.rand(shape, generator=generator) < share).float()
        if isinstance(layer, nn.Conv2d):
            x = x.contiguous(memory_format=torch.channels_last)
        taken = found(layer, x)
        error = torch.randn(layer(x).shape, generator=generator)
        x.requires_grad_()
        ms[share] = interleaved(partial(step, layer, x, error, taken), partial(step, layer, x, error, None))
    faster = [share for share in SHARES if ms[share][0] < ms[share][1]]
    above = [share for share in SHARES if share > max(faster, default=0.0)]
    return {
        "layer": name,
        "crossover": [max(faster, default=0.0), min(above, default=1.0)],
        "taken": sparse_ops.worth_events(layer),
        "ms": {share: [round(value, 2) for value in pair] for share, pair in ms.items()},
    }


def step(layer: nn.Linear | nn.Conv2d, x: Tensor, error: Tensor, events: list | None) -> None:
    """Forward and backward, over events where they are given."""
    x.grad = None
    if events is None:
        out = layer(x)
    else:
        found(layer, x)  # finding them is part of the price
        form = sparse_ops.convolve_events if isinstance(layer, nn.Conv2d) else sparse_ops.linear_sparse
        out = form(x, layer, events)  # type: ignore[arg-type]
    out.backward(error)


def found(layer: nn.Linear | nn.Conv2d, x: Tensor) -> list:
    """What is not zero in the input, as the layer takes it."""
    encode = sparse_ops.encode_images if isinstance(layer, nn.Conv2d) else sparse_ops.encode_sparse
    sparse = encode(x, max_fraction=1.0)
    assert sparse is not None
    return sparse


def interleaved(*ways: Callable[[], None], repeats: int = 9) -> tuple[float, float]:
    """Median milliseconds of two ways, one after the other in every repeat; a first round is not counted."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(1 + repeats):
        for run, measured in zip(ways, seconds, strict=True):
            began = time.perf_counter()
            run()
            measured.append(time.perf_counter() - began)
    first, second = (1000 * statistics.median(measured[1:]) for measured in seconds)
    return first, second


if __name__ == "__main__":
    main()
