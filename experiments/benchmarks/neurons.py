"""Does a neuron of one's own run as fast as `LIF`, for what it carries, and how much faster than a loop in torch?

    python experiments/benchmarks/neurons.py                     # everything, a quarter of an hour
    python experiments/benchmarks/neurons.py --pairs 5 --loops 1 --only AdLIF AdEx --out /tmp/neurons.json

Forward and backward of 16,384 neurons over 500 steps in single precision, one thread, all in one process and in turns:
`LIF` by the package's kernel, another neuron by the kernel that its step becomes, the same step called in a loop with
torch's operations, and that loop under `torch.compile`. Every neuron gets noise that makes it fire at about 5 %. A
variable is what is carried from step to step: each state, and the spike (`LIF` has two, v and s).

`torch.compile` takes the loop in pieces, as 500 unrolled steps do not compile in any useful time: of one step, and of
`PIECE` steps, each called until all 500 are done; nothing is scaled, and the faster one counts. Ratios are taken within
a pair, their medians and quartiles over pairs. Writes experiments/results/neurons.json, a row after the other.
"""

import argparse
import functools
import math
import statistics
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp import LIF, detach, exp, neuron, simulate, spike, where
from snn_bp.files import write_json
from snn_bp.kernels.cpu.aligned import aligned_empty
from snn_bp.neurons import Neuron, numbers_of
from snn_bp.runs.provenance import commit, machine, version

RESULT = Path(__file__).resolve().parents[1] / "results" / "neurons.json"
NEURONS, STEPS, RATE = 16384, 500, 0.05
PIECE = 20  # steps that torch compiles at once
PACKAGES = ("snn_bp", "torch", "numpy", "numba")


@neuron(decays=("beta",))
def Leaky(v, s, x, *, beta=0.9, threshold=1.0):
    """What `LIF` is, as one's own."""
    v = beta * v + x - threshold * detach(s)
    return v, spike(v - threshold, threshold)


@neuron
def Quadratic(v, s, x, *, rate=0.1, critical=0.5, peak=2.0):
    """Quadratic integrate and fire."""
    v = where(s > 0, 0.0, v)
    v = v + rate * v * (v - critical) + x
    return v, spike(v - peak, peak)


@neuron(decays=("beta", "rho"))
def AdLIF(v, w, s, x, *, beta=0.9, rho=0.97, a=0.05, b=0.2, threshold=1.0):
    """Leaky, with an adaptation current."""
    w = rho * w + a * v + b * s
    v = beta * v * (1 - detach(s)) + x - w
    return v, w, spike(v - threshold, threshold)


@neuron
def Izhikevich(v, u, s, x, *, a=0.02, b=0.2, c=-65.0, d=8.0, step=0.5, peak=30.0, gain=20.0):
    """Izhikevich's, in his numbers; v counts from -65, u from -13."""
    v, u = where(s > 0, c + 65.0, v), u + d * s
    v = v + step * (0.04 * v * v - 0.2 * v - u - 3 + gain * x)
    u = u + step * a * (b * v - u)
    return v, u, spike(v - 65 - peak, 100.0)


@neuron(decays=("beta", "rho"))
def AdEx(v, w, s, x, *, beta=0.9, delta=0.2, rho=0.97, a=0.02, b=0.1, threshold=1.0, peak=1.5):
    """Adaptive exponential integrate and fire."""
    v, w = where(s > 0, 0.0, v), w + b * s
    away = delta * exp(min((v - threshold) / delta, 5.0)) - w
    v, w = beta * v + (1 - beta) * away + x, rho * w + a * v
    return v, w, spike(v - peak, peak)


@neuron(decays=("alpha", "beta"))
def AlphaSynapse(h, i, v, s, x, *, alpha=0.8, beta=0.9, threshold=1.0):
    """Leaky, behind a synapse of second order."""
    h = alpha * h + x
    i = alpha * i + (1 - alpha) * h
    v = beta * v * (1 - detach(s)) + i
    return h, i, v, spike(v - threshold, threshold)


@neuron(decays=("gamma",), potential="u")
def Resonator(u, v, q, s, x, *, omega=0.2, offset=0.1, gamma=0.9, threshold=1.0):
    """Resonate and fire, damped and held back by its own spikes (BRF)."""
    q = gamma * q + s
    b = -offset - 0.1 * q
    u, v = u + b * u - omega * v + x, v + omega * u + b * v
    return u, v, q, spike(u - threshold - q, threshold)


@neuron(decays=("alpha", "beta", "rho"))
def FourStates(i, d, v, w, s, x, *, alpha=0.8, beta=0.9, rho=0.97, coupling=0.1, b=0.2, threshold=1.0):
    """A synaptic current, a dendrite, a soma and an adaptation current."""
    i = alpha * i + x
    d, before = beta * d + coupling * (v - d) + i, d
    w = rho * w + b * s
    v = beta * v * (1 - detach(s)) + coupling * (before - v) - w
    return i, d, v, w, spike(v - threshold, threshold)


OWN: tuple[Neuron, ...] = (
    Leaky(), Quadratic(), AdLIF(), Izhikevich(), AdEx(), AlphaSynapse(), Resonator(), FourStates(),
)  # fmt: skip
OURS = LIF(beta=0.9)
Run = Callable[[], tuple[Tensor, Tensor]]  # spikes, and the gradient of the input


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [type(each).__name__ for each in OWN]
    parser.add_argument("--pairs", type=int, default=25, help="of LIF and another neuron")
    parser.add_argument("--loops", type=int, default=5, help="of kernel, loop and compiled loop")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NEURON")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pull = torch.randn(STEPS, 1, NEURONS)
    rows: list[dict[str, Any]] = []
    for each in OWN:
        if type(each).__name__ in asked.only:
            rows.append(row(each, pull, asked.pairs, asked.loops))
            print(rows[-1], flush=True)
            write_json(asked.out, result(rows, asked))


def result(rows: list[dict[str, Any]], asked: argparse.Namespace) -> dict[str, Any]:
    """What is written."""
    return {
        "question": "time of a compiled step of one's own neuron beside LIF's and beside loops in torch",
        "neurons": NEURONS, "steps": STEPS, "precision": "float32", "threads": 1, "steps_compiled_at_once": PIECE,
        "pairs": asked.pairs, "loops": asked.loops, "rows": rows,
        "date": time.strftime("%Y-%m-%d"), "commit": commit(), "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
    }  # fmt: skip


def row(own: Neuron, pull: Tensor, pairs: int, loops: int) -> dict[str, Any]:
    """Everything about one neuron."""
    lif, kernel = (step_of(each, noise(each), pull, compiled) for each in (OURS, own))
    loop = step_of(own, noise(own), pull, looped)
    spikes, gradient = kernel()
    found: dict[str, Any] = {
        "neuron": repr(own), "states": list(own.equation.states), "carried": len(own.equation.full),
        "rate": round(spikes.mean().item(), 3),
    }  # fmt: skip
    lif()
    loop()
    lif_s, own_s = in_turns((lif, kernel), pairs)
    times = [mine / theirs for theirs, mine in zip(lif_s, own_s, strict=True)]
    per = len(OURS.equation.full) / len(own.equation.full)
    found |= {"lif_ms": ms(lif_s), "own_ms": ms(own_s), "times_lif": spread(times)}
    found["times_lif_per_variable"] = spread([each * per for each in times])
    found["loop_differs"] = difference(loop(), spikes, gradient)
    own_s, loop_s = in_turns((kernel, loop), loops)
    found |= {"loop_ms": ms(loop_s), "loop_over_own": spread([b / a for a, b in zip(own_s, loop_s, strict=True)])}
    pieces = {}
    for size in (1, PIECE):
        torch._dynamo.reset()  # one neuron's compiled pieces count against the next's
        try:
            piece = torch.compile(piece_of(own), dynamic=False)
            step = step_of(own, noise(own), pull, functools.partial(in_pieces, piece=piece, size=size))
            began = time.perf_counter()
            differs = difference(step(), spikes, gradient)
            first_s = time.perf_counter() - began
        except Exception as error:  # what torch cannot compile is a finding too
            pieces[str(size)] = {"error": f"{type(error).__name__}: {error}"[:300]}
            continue
        own_s, loop_s = in_turns((kernel, step), loops)
        ratios = spread([b / a for a, b in zip(own_s, loop_s, strict=True)])
        pieces[str(size)] = {"ms": ms(loop_s), "over_own": ratios, "first_s": round(first_s, 1), "differs": differs}
    over = [each["over_own"]["median"] for each in pieces.values() if "over_own" in each]
    return found | {"compiled_by_piece": pieces, "compiled_loop_over_own": min(over, default=None)}


def step_of(each: Neuron, x: Tensor, pull: Tensor, forward: Callable) -> Run:
    """Forward and backward of a neuron on all steps."""
    # large pages for all: whether torch's own memory has them is luck, which the ratios would show
    x = torch.from_numpy(aligned_empty(x.numel(), np.dtype(np.float32))).view(x.shape).copy_(x).requires_grad_()

    def run() -> tuple[Tensor, Tensor]:
        x.grad = None
        spikes = forward(each, x)
        spikes.backward(pull)
        assert x.grad is not None
        return spikes.detach(), x.grad

    return run


def compiled(each: Neuron, x: Tensor) -> Tensor:
    """Spikes by the kernel."""
    return simulate(each, x)[0]


def looped(each: Neuron, x: Tensor) -> Tensor:
    """Spikes by a loop in torch."""
    return in_pieces(each, x, piece_of(each), STEPS)


def in_pieces(each: Neuron, x: Tensor, piece: Callable, size: int) -> Tensor:
    """Spikes of all steps, some at a time."""
    carried = tuple(torch.zeros_like(x[0]) for _ in each.equation.full)
    found = []
    for part in x.split(size):
        spikes, carried = piece(part, *carried)
        found.append(spikes)
    return torch.cat(found)


def piece_of(each: Neuron) -> Callable:
    """Some steps of a neuron in torch: input and state in, spikes and state out."""
    step: Any = type(each).kind.step
    values = numbers_of(each)
    names = {**step.__globals__, **IN_TORCH}  # as its user would have written it
    del names["__name__"]  # torch.compile would look the names up in that module
    advance = types.FunctionType(step.__code__, names)

    def piece(x: Tensor, *carried: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        spikes = []
        for x_t in x.unbind(0):
            carried = advance(*carried, x_t, **values)
            spikes.append(carried[-1])
        return torch.stack(spikes), carried

    return piece


class Spike(torch.autograd.Function):
    """1 above zero, and the slope of `ATan`, which `simulate` takes unless told otherwise."""

    @staticmethod
    def forward(ctx, u: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.scale = scale
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return grad / (1 + (math.pi * u / ctx.scale) ** 2) / ctx.scale, None


IN_TORCH = {
    "exp": lambda x: x.exp(), "where": lambda condition, yes, no: torch.where(condition, yes, no),
    "detach": lambda x: x.detach(), "spike": lambda u, scale: Spike.apply(u, scale),
    "min": lambda x, highest: x.clamp(max=highest),
}  # fmt: skip


@functools.cache
def noise(each: Neuron) -> Tensor:
    """Noise that makes a neuron fire at about `RATE`: how large it has to be, bisection on a few neurons finds."""
    x = 0.3 + torch.randn(STEPS, 1, NEURONS, generator=torch.Generator().manual_seed(1))
    low, high = 1e-3, 1e3
    for _ in range(20):
        middle = (low * high) ** 0.5
        rate = simulate(each, middle * x[:, :, :512])[0].mean()
        low, high = (middle, high) if rate < RATE else (low, middle)
    return low * x


def in_turns(runs: Sequence[Callable], count: int) -> list[list[float]]:
    """Seconds of each, in turns; which goes first changes. A call before each is not timed: it takes the memory back
    that the other one let go, megabytes that the system has to clear first."""
    found: list[list[float]] = [[] for _ in runs]
    for number in range(count):
        order = range(len(runs)) if number % 2 else reversed(range(len(runs)))
        for which in order:
            runs[which]()
            began = time.perf_counter()
            runs[which]()
            found[which].append(time.perf_counter() - began)
    return found


def difference(other: tuple[Tensor, Tensor], spikes: Tensor, gradient: Tensor) -> dict[str, float]:
    """How many spikes differ, and by what fraction of its norm the gradient does."""
    apart = (other[1].double() - gradient.double()).norm() / gradient.double().norm()
    return {"spikes": int((other[0] != spikes).sum()), "gradient": float(f"{apart:.1e}")}


def ms(seconds: Sequence[float]) -> float:
    """The median in milliseconds."""
    return round(1000 * statistics.median(seconds), 1)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    chosen = {"median": statistics.median(ordered), "low": ordered[quarter], "high": ordered[-1 - quarter]}
    return {name: round(value, 3) for name, value in chosen.items()}


if __name__ == "__main__":
    main()
