"""Does a neuron of one's own run as fast as `LIF`, for what it carries, and how much faster than a loop in torch?

    python experiments/benchmarks/neurons.py                     # everything, about half an hour
    python experiments/benchmarks/neurons.py --pairs 5 --loops 1 --only AdLIF AdEx --out /tmp/neurons.json

Forward and backward of 16,384 neurons over 500 steps in single precision, one thread, all in one process and in turns:
`LIF` by the package's kernel, another neuron by the kernel that its step becomes, the same step as a loop in torch (the
reference backend), and that loop under `torch.compile`. Every neuron gets noise that makes it fire at about 5 %. A
variable is what is carried from step to step: each state, and the spike (`LIF` has two, v and s).

`torch.compile` takes the loop in pieces, as 500 unrolled steps do not compile in any useful time: of one step, and of
`PIECE` steps, each called until all 500 are done; nothing is scaled, and the faster one counts. Ratios are taken within
a pair, their medians and quartiles over pairs. Writes experiments/results/neurons.json, a row after the other.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snn_bp import ATan, detach, neuron, simulate, spike, use_backend
from snn_bp.files import write_json
from snn_bp.kernels.reference import torch_advance, whole
from snn_bp.neurons import BRF, LIF, QIF, AdEx, AdLIF, AlphaLIF, Izhikevich, Neuron, numbers_of
from snn_bp.runs.provenance import commit, machine, version

RESULT = Path(__file__).resolve().parents[1] / "results" / "neurons.json"
NEURONS, STEPS, RATE = 16384, 500, 0.05
PIECE = 20  # steps that torch compiles at once
PACKAGES = ("snn_bp", "torch", "numpy", "numba")


@neuron(decays="beta")
def Leaky(v, s, x, *, beta=0.9, threshold=1.0):
    """What `LIF` is, as one's own."""
    v = beta * v + x - threshold * detach(s)
    return v, spike(v - threshold, threshold)


@neuron(decays=("alpha", "beta", "rho"))
def FourStates(i, d, v, w, s, x, *, alpha=0.8, beta=0.9, rho=0.97, coupling=0.1, b=0.2, threshold=1.0):
    """A synaptic current, a dendrite, a soma and an adaptation current."""
    i = alpha * i + x
    d, before = beta * d + coupling * (v - d) + i, d
    w = rho * w + b * s
    v = beta * v * (1 - detach(s)) + coupling * (before - v) - w
    return i, d, v, w, spike(v - threshold, threshold)


OWN: tuple[Neuron, ...] = (
    Leaky(), QIF(), AdLIF(), Izhikevich(), AdEx(), AlphaLIF(), BRF(), FourStates(),
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
    lif(), loop()
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
        try:
            step = step_of(own, noise(own), pull, functools.partial(in_pieces, piece=piece_of(own), size=size))
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
    x = x.requires_grad_()

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
    with use_backend("reference"):
        return simulate(each, x)[0]


def piece_of(each: Neuron) -> Callable:
    """Some steps of a neuron, compiled by torch: states and spikes in, spikes and states out."""
    advance = torch_advance(each.equation, ATan())
    values = [torch.tensor(value) for value in numbers_of(each).values()]

    @functools.partial(torch.compile, dynamic=False)
    def piece(x: Tensor, *carried: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        spikes = []
        for x_t in x.unbind(0):
            carried = whole(advance(*carried, x_t, *values), x_t)
            spikes.append(carried[-1])
        return torch.stack(spikes), carried

    return piece


def in_pieces(each: Neuron, x: Tensor, piece: Callable, size: int) -> Tensor:
    """Spikes by a loop over compiled pieces."""
    carried = tuple(torch.zeros_like(x[0]) for _ in each.equation.full)
    found = []
    for part in x.split(size):
        spikes, carried = piece(part, *carried)
        found.append(spikes)
    return torch.cat(found)


@functools.cache
def noise(each: Neuron) -> Tensor:
    """An input that makes a neuron fire at about `RATE`: noise of a mean, its size found by bisection on some neurons."""
    x = 0.3 + torch.randn(STEPS, 1, NEURONS, generator=torch.Generator().manual_seed(1))
    low, high = 1e-3, 1e3
    for _ in range(20):
        middle = (low * high) ** 0.5
        rate = simulate(each, middle * x[:, :, :512])[0].mean()
        low, high = (middle, high) if rate < RATE else (low, middle)
    return low * x


def in_turns(runs: Sequence[Callable], count: int) -> list[list[float]]:
    """Seconds of each, in turns; which goes first changes."""
    found: list[list[float]] = [[] for _ in runs]
    for number in range(count):
        order = range(len(runs)) if number % 2 else reversed(range(len(runs)))
        for which in order:
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
