"""What a gradient costs: seconds and memory against the number of time steps, for BPTT and for online rules.

Memory is measured, not computed: torch's allocations by its profiler, those of the compiled kernels, which are numpy's,
by tracemalloc.
"""

import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from snn_bp.errors import SnnError, check_choice, check_number
from snn_bp.instruments.online import eprop, ottt
from snn_bp.model.blocks import parts_of
from snn_bp.model.losses import CountCrossEntropy, Loss, loss_of
from snn_bp.model.network import Network, deep_copy
from snn_bp.model.plan import has_chain
from snn_bp.model.targets import pieces_of

WAYS = ("full", "low", "truncated", "ottt", "eprop")
MARK = "snn_bp: between forward and backward"


class Cost(NamedTuple):
    """Of one gradient of all weights on one batch."""

    way: str
    steps: int
    seconds: float  # median
    held_bytes: int  # kept from the forward pass for the backward pass; 0 for a rule that has none
    peak_bytes: int  # the most above what was there before


def cost_of_bptt(
    network: Network, x: Tensor, targets: Tensor, *,
    steps: Sequence[int] = (25, 50, 100, 200), ways: Sequence[str] = ("full", "truncated", "ottt", "eprop"),
    loss: Loss = CountCrossEntropy(), truncate: int = 25, repeats: int = 3,  # noqa: B008 - frozen
) -> list[Cost]:  # fmt: skip
    """A row for each way and number of steps; `x` is cut, or repeated from its start, to that length.

    Ways: BPTT in "full", with memory="low" (dense layers compute their potentials again), "truncated" every `truncate`
    steps, and the rules "ottt" and "eprop", with norms as in evaluation. A gradient is a whole one: forward, loss,
    backward. The optimizer's step, the same at any length, is left out. `peak_bytes` adds the peaks of torch and of
    numpy, and so is a bound where they come at different moments. For tensors on the CPU; the network stays as it is.
    """
    for way in ways:
        check_choice("cost_of_bptt: way", way, WAYS)
    for name, value in {"truncate": truncate, "repeats": repeats, **{f"steps {n}": n for n in steps}}.items():
        check_number(f"cost_of_bptt: {name}", value, integer=True, low=1)
    if x.device.type != "cpu":
        raise SnnError(f"cost_of_bptt: it measures memory of the CPU, found x on {x.device}. Use x.cpu().")
    rows = []
    for way in ways:
        work = deep_copy(network)
        if way == "low":
            if not has_chain(parts_of(work)):
                raise SnnError(
                    "cost_of_bptt: 'low' spares the potentials of dense layers that their neurons follow directly, "
                    f"this network has none. Leave it out: ways={tuple(other for other in ways if other != 'low')}."
                )
            work.memory = "low"
        for count in steps:
            piece = x.repeat(-(-count // len(x)), *(1,) * (x.dim() - 1))[:count]
            if way in ("ottt", "eprop"):
                rule = ottt if way == "ottt" else eprop
                gradient = partial(_online, rule, work.eval(), piece, targets, loss)
            else:
                gradient = partial(_bptt, work, piece, targets, loss, truncate if way == "truncated" else count)
            gradient(_nothing)  # compiles
            seconds = statistics.median(_seconds(gradient) for _ in range(repeats))
            rows.append(Cost(way, count, seconds, *measured_memory(gradient)))
    return rows


def measured_memory(gradient: Callable[[Callable[[], None]], None]) -> tuple[int, int]:
    """Bytes held where the gradient calls its `mark` (the most of all calls; 0 without one), and at its peak."""
    of_numpy: list[int] = []

    def mark() -> None:
        of_numpy.append(tracemalloc.get_traced_memory()[0] - first)
        with torch.profiler.record_function(MARK):
            pass

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        tracemalloc.start()
        try:
            first = tracemalloc.get_traced_memory()[0]
            gradient(mark)
            peak_of_numpy = tracemalloc.get_traced_memory()[1] - first
        finally:
            tracemalloc.stop()
    of_torch, now, peak = [], 0, 0
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == MARK:
            of_torch.append(now)
        elif event.name() == "[memory]":
            now += event.nbytes()  # type: ignore[attr-defined]
            peak = max(peak, now)
    held = max((sum(pair) for pair in zip(of_torch, of_numpy, strict=True)), default=0)
    return held, peak + peak_of_numpy


def _bptt(network: Network, x: Tensor, targets: Tensor, loss: Loss, truncate: int, mark: Callable[[], None]) -> None:
    """Gradients of all weights; `mark` is called between each piece's forward and backward pass."""
    state = None
    pieces = x.split(truncate)
    for piece, part in zip(pieces, pieces_of(targets, None, [len(piece) for piece in pieces]), strict=True):
        out, state = network.run(piece, state)
        total = loss_of(loss, out, part.targets) * part.fraction
        mark()
        total.backward()
        state = tuple(part.detach() for part in state)
    network.zero_grad(set_to_none=True)


def _online(rule: Callable, network: Network, x: Tensor, targets: Tensor, loss: Loss, mark: Callable[[], None]) -> None:
    rule(network, x, targets, loss)


def _nothing() -> None:
    pass


def _seconds(gradient: Callable[[Callable[[], None]], None]) -> float:
    began = time.perf_counter()
    gradient(_nothing)
    return time.perf_counter() - began
