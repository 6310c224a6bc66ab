"""Whole batches dealt to processes, where a step has one for each: batch n of the step runs in process n mod N.

There it runs as it would in one process: with its own loss, statistics and random numbers. Gradients are then added,
and norms follow, in the order of the batches, so that all bits are those of one process.
"""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError
from snn_bp.model.blocks import LayerAt
from snn_bp.model.followed import followed_later, take_in
from snn_bp.model.network import Network, deep_copy
from snn_bp.runs.training_options import Train
from snn_bp.runtime.processes import processes, rank
from snn_bp.trainer.kept import not_ours

Figures = TypeVar("Figures")
CHUNK = 16 * 2**20  # bytes of gradients that are sent at once
NOTHING = -0.0  # which changes no bit of what it is added to; 0.0 would make 0.0 of -0.0
TRIED = (3, 4)  # steps and recordings on which layers are tried


def takes_whole(config: Train) -> bool:
    """Whether the batches of a step are dealt whole to the processes that torchrun started."""
    return 1 < processes() <= config.accumulate


class Dealt:
    """What this process does of each step: its batches, and a slice of the sum of all gradients.

    `of_each` gives the values of all processes, in order.
    """

    def __init__(self, network: Network, of_each: Callable[[Any], list[Any]]) -> None:
        as_first([*network.parameters(), *network.buffers()])
        self._network, self._of_each = network, of_each
        self._modules = list(network.modules())
        self._unknown = not_ours(network)
        kinds: dict[Any, list[nn.Parameter]] = {}
        for weight in network.parameters():
            if weight.requires_grad:
                kinds.setdefault((weight.dtype, weight.device), []).append(weight)
        self._sums = [_Sum(weights) for weights in kinds.values()]

    def steps(self, count: int, run: Callable[[int], Figures]) -> list[Figures]:
        """The figures of all `count` batches of a step, of which `run` runs one by its number, forward and backward.

        Behind it the gradients of all are added up in every process, and norms have followed all.
        """
        mine = []
        for first in range(0, count, processes()):
            self._network.zero_grad(set_to_none=True)
            if (number := first + rank()) < count:
                mine.append(self._run(run, number))
            for each in self._sums:
                each.add(min(processes(), count - first), is_first=first == 0)
        of_each = self._of_each(mine)
        figures, there, seen = zip(*(of_each[n % processes()][n // processes()] for n in range(count)), strict=True)
        for number, each in enumerate(self._sums):
            each.give([any(had) for had in zip(*(has[number] for has in there), strict=True)])
        device = next(self._network.parameters()).device
        for norm, mean, variance in chain(*seen):
            take_in(self._modules[norm], mean.to(device), variance.to(device))
        return list(figures)

    def _run(self, run: Callable[[int], Figures], number: int) -> tuple[Figures, list[list[bool]], list[tuple]]:
        """Figures of a batch, which weights it gives gradients, and what norms have seen of it."""
        before = [_contents(part.layer) for part in self._unknown]
        with followed_later() as followed:
            step = run(number)
        for part, was in zip(self._unknown, before, strict=True):
            _check_same(self._network, part, was, part.layer)
        there = [[weight.grad is not None for weight in each.weights] for each in self._sums]
        index = {id(module): n for n, module in enumerate(self._modules)}
        return step, there, [(index[id(each.norm)], each.mean.cpu(), each.variance.cpu()) for each in followed]


class _Sum:
    """The sum of gradients of weights of one type over the batches of a step, of which each process has a slice."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self.weights = weights
        size = sum(weight.numel() for weight in weights)
        self._row = weights[0].detach().new_zeros(-(-size // processes()) * processes())  # all of them one by one
        self._chunk = max(1, CHUNK // self._row.element_size() // processes()) * processes()
        self._mine = [chunk.new_zeros(len(chunk) // processes()) for chunk in self._chunks()]

    def add(self, count: int, *, is_first: bool) -> None:
        """Add what the first `count` processes have in `.grad`, in order; `is_first`: to nothing."""
        for weight, part in zip(self.weights, self._parts(), strict=True):
            part.copy_(weight.grad) if weight.grad is not None else part.fill_(NOTHING)
        for chunk, mine in zip(self._chunks(), self._mine, strict=True):
            found = torch.empty_like(chunk)
            torch.distributed.all_to_all_single(found.view(torch.uint8), chunk.view(torch.uint8))
            for n, each in enumerate(found.view(processes(), -1)[:count]):
                mine.copy_(each) if is_first and n == 0 else mine.add_(each)

    def give(self, there: list[bool]) -> None:
        """Put the sum of all batches into `.grad` of each weight that is `there`: to which one of them gave any."""
        for chunk, mine in zip(self._chunks(), self._mine, strict=True):
            torch.distributed.all_gather(list(chunk.view(processes(), -1).unbind()), mine)
        for weight, part, has in zip(self.weights, self._parts(), there, strict=True):
            weight.grad = torch.empty_like(weight).copy_(part) if has else None

    def _chunks(self) -> tuple[Tensor, ...]:
        return self._row.split(self._chunk)

    def _parts(self) -> list[Tensor]:
        """Where each weight's gradient lies in the row, in its shape."""
        sizes = [weight.numel() for weight in self.weights]
        parts = self._row[: sum(sizes)].split(sizes)
        return [part.view(weight.shape) for part, weight in zip(parts, self.weights, strict=True)]


def check_dealt(network: Network) -> None:
    """Raise where a layer changes something of its own in a forward pass, which here no other process would see."""
    if not (unknown := not_ours(network)):
        return
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (*TRIED, *network.input_shape), generator=draw, dtype=torch.uint8)
    tried = deep_copy(network).train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]), followed_later():
        tried.rates(x)
    for was, now in zip(unknown, not_ours(tried), strict=True):
        _check_same(network, was, _contents(was.layer), now.layer)


def as_first(values: Iterable[Tensor]) -> None:
    """Put what the first process has into tensors, of any type and layout."""
    for value in values:
        sent = value.detach().clone(memory_format=torch.contiguous_format)
        torch.distributed.broadcast(sent.view(-1).view(torch.uint8), 0)  # gloo does not know all types
        if rank():
            value.detach().copy_(sent)


@torch.inference_mode()  # in which an evaluation may have made a buffer
def take_buffers(layer: nn.Module, held: dict[str, Tensor]) -> None:
    """Put into a layer's buffers what another process has there, of another shape where the layer gave it one."""
    now = dict(layer.named_buffers())
    for name, value in held.items():
        if name in now and now[name].shape == value.shape:
            now[name].copy_(value)
        else:
            at, _, last = name.rpartition(".")
            layer.get_submodule(at)._buffers[last] = value


def _contents(layer: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in (*layer.named_parameters(), *layer.named_buffers())}


def _check_same(network: Network, at: LayerAt, before: dict[str, Tensor], layer: nn.Module) -> None:
    now = _contents(layer)
    if changed := [name for name in {**before, **now} if not is_same(before.get(name), now.get(name))]:
        raise SnnError(
            f"train: {network.name(at.path)} changes its {', '.join(changed)} while it trains, and of the batches of a "
            f"step each of {processes()} processes runs only some. BatchNorm() follows all of them in order; a layer "
            "that keeps nothing goes; or train in one process."
        )


def is_same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors have the same shape, type and values."""
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
