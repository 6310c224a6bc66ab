"""What is measured in a process of its own: seconds, peak memory, agreement with ours, copy bandwidth.

`process.py` starts the process, its threads and cores already limited.
"""

import ctypes
import gc
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speed.libraries import LIBRARIES
from speed.ours import ours
from speed.steps import Step
from speed.works import Work, material


def row(work: Work, library: str, taken: list[float], *, error: str | None) -> dict[str, Any]:
    """What is written of the seconds that a library's steps took."""
    found = {"work": work.name, "steps": work.steps, "batch": work.batch, "density": work.density, "library": library}
    if error is not None:
        return found | {"ms": None, "error": error}
    ms = [1000 * each for each in taken]
    return found | {"ms": round(statistics.median(ms), 2), "least_ms": round(min(ms), 2), "runs": len(ms)}


def build(name: str, work: Work, folder: Path) -> Step:
    """The training step of a library on a work."""
    library = LIBRARIES[name]
    return library.build(work, material(work, folder), torch.float32, **library.options)


def seconds(step: Step) -> float:
    """How long one step takes."""
    gc.collect()
    start = time.perf_counter()
    step.run()
    return time.perf_counter() - start


def peak_memory(work: Work, short: Work, library: str, *, folder: Path) -> dict[str, Any]:
    """The most memory that two steps hold beyond what the process held before them, inputs and weights included there.

    A step on the few time steps of `short` comes first, so that code which is loaded once does not count.
    """
    build(library, short, folder).run()
    step = build(library, work, folder)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what making the arrays left behind is no room for the step
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status_kb("VmRSS")
    step.run()
    step.run()
    return {"library": library, "mb": round((_status_kb("VmHWM") - before) / 1024, 1)}


def _status_kb(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def agreement(work: Work, library: str, *, dtype: torch.dtype, folder: Path) -> dict[str, Any]:
    """Whether a peer and ours with the same reset spike alike, and how far the gradients are apart."""
    peer, given = LIBRARIES[library], material(work, folder)
    row = {"work": work.name, "library": library, "precision": str(dtype).removeprefix("torch.")}
    try:
        step = peer.build(work, given, dtype, **peer.options, **peer.exact)
        spikes, gradients = step.read(step.run())
    except Exception as error:  # what a peer cannot do in this precision, the other one may show
        return row | {"error": f"{type(error).__name__}: {error}"[:300]}
    step = ours(work, given, dtype, **peer.equal)
    expected, expected_gradients = step.read(step.run())
    size = sum(np.square(gradient, dtype=np.float64).sum() for gradient in expected_gradients)
    pairs = zip(gradients, expected_gradients, strict=True)
    apart = sum(np.square(np.subtract(a, b, dtype=np.float64)).sum() for a, b in pairs)
    return row | {
        "ours": peer.equal or "default",
        "spikes": int(spikes.sum()),
        "our_spikes": int(expected.sum()),
        "differing_spikes": int((spikes != expected).sum()),
        "gradient_error": float(np.sqrt(apart / size)),
    }


def product(work: Work, *, repeats: int = 9) -> float:
    """Milliseconds of torch's product for the gradient of the second dense layer's input: no spike shortens it."""
    below, units = work.units[:2]
    errors, weights = torch.randn(work.steps * work.batch, units), torch.randn(units, below)
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.mm(errors, weights)
        taken.append(time.perf_counter() - start)
    return round(1e3 * statistics.median(taken[1:]), 1)


def copy_bandwidth(*, megabytes: int = 512, repeats: int = 9) -> float:
    """GB/s read and written together by copying a large array on this process's cores (torch's copy)."""
    source = torch.ones(megabytes * 2**20 // 4)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - start)
    return round(2 * megabytes * 2**20 / statistics.median(seconds[1:]) / 1e9, 2)
