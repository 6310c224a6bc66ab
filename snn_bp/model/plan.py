"""The plan of a network: which layers run as one kernel, decided once for an input; running it decides nothing.

Dense layers each followed by its neurons are one event-driven operation, as are neurons behind their norm. A norm
between weights and neurons folds into the weights in evaluation; in training it needs the whole weighted sum first,
and parts the chain. All equals the layers one by one up to the order of summation.

A plan reaches as far as what is known: behind a layer that computes by a forward of its own, the rest is planned when
its output is there.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from snn_bp.kernels import cpu, runs_compiled
from snn_bp.kernels.cpu import Memory
from snn_bp.model import steps
from snn_bp.model.blocks import LayerAt, role_of
from snn_bp.model.exact import has_all_parts, is_exact, runs_here
from snn_bp.model.masks import is_training_norm, run_counted_norm
from snn_bp.model.modules import Neurons, Shape
from snn_bp.model.shard import shard
from snn_bp.neurons import is_spiking

LONG = 50  # steps: above, potentials are kept sooner than computed again where no norm keeps the input anyway


class Step(NamedTuple):
    """Layers that run as one operation: `run(x, states)` gives its output, means if it has them, and states.

    A joint has no `run`: its branches are rows with plans of their own.
    """

    parts: tuple[LayerAt, ...]
    words: str
    run: steps.Run | None
    is_known: bool  # whether what comes out is what its class says, so that the plan goes on


class Input(NamedTuple):
    """What comes to a layer, as far as a plan asks."""

    steps: int
    batch: int
    shape: Shape  # one step of one sample
    dtype: torch.dtype  # in which a layer computes on it
    kernels: bool  # whether kernels on the CPU take it
    mask: Tensor | None  # the steps that there are; None: all of them
    is_shard: bool  # whether other processes have more of the batch

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None = None) -> "Input":
        """The input `x` `[time, batch, ...]`, in floats or bytes."""
        dtype = x.dtype if x.is_floating_point() else torch.float32
        return cls(
            len(x), x.shape[1], tuple(x.shape[2:]), dtype, runs_compiled(x) and x.numel() > 0, mask, shard() is not None
        )


class Link(NamedTuple):
    """A dense layer, a norm that only scales, and neurons; recurrent neurons may stand without the dense layer."""

    weights: nn.Linear | None
    norm: nn.BatchNorm1d | None
    neurons: Neurons


def plan(row: Sequence[LayerAt], entering: Input, memory: Memory) -> list[Step]:
    """The operations that a row of layers is on this input, up to the first layer with a forward of its own."""
    found: list[Step] = []
    index = 0
    while index < len(row) and (not found or found[-1].is_known):
        step = None
        if entering.kernels:
            step = (
                _chain(row, index, entering, memory) or _normed(row, index, entering) or _pooled(row, index, entering)
            )
        step = step or _alone(row[index], entering)
        found.append(step)
        index += len(step.parts)
        if index < len(row):
            entering = entering._replace(shape=step.parts[-1].after)
    return found


def reads_bytes(row: Iterable[LayerAt]) -> bool:
    """Whether the first layer that computes looks for what is not zero, so that bytes may stay bytes."""
    first = next((part for part in row if part.role != "flatten" or not is_exact(part.layer)), None)
    if first is None or steps.KERNELS.get(type(first.layer)) not in (steps.linear, steps.convolve):
        return False
    return runs_here(first.layer, torch.float32)


def has_chain(row: Sequence[LayerAt]) -> bool:
    """Whether any layers can run as a chain, in the mode they are in; those within joints too."""
    found = (_link(row, index, first=True) for index in range(len(row)))
    if any(link is not None and all(is_exact(layer) for layer in link if layer is not None) for link in found):
        return True
    return any(has_chain(branch) for part in row for branch in part.branches)


def apply_stateless(layer: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """A layer without state on `[time, batch, ...]`: one call for all steps."""
    given = Input.of(x, mask)
    return _alone(LayerAt(0, layer, role_of(layer), given.shape, (), (0,)), given).run(x, [])[0]  # type: ignore[misc]


def in_words(step: Step, fraction: float) -> str:
    """How a step runs on an input of which this fraction is not zero."""
    layer = step.parts[0].layer
    if step.words != steps.BY_EVENTS:
        return step.words
    limit = cpu.sparse_ops.worth_events(layer)  # type: ignore[arg-type]
    return f"{'events' if fraction <= limit else 'a product'} (events up to {limit:.0%})"


def _chain(row: Sequence[LayerAt], index: int, given: Input, memory: Memory) -> Step | None:
    """Dense layers each with its neurons, from `index` on."""
    if len(given.shape) != 1:
        return None
    links: list[Link] = []
    first, (inputs,) = index, given.shape
    while (link := _link(row, index, first=not links)) is not None and _fits(link, inputs, given.dtype):
        links.append(link)
        index += sum(layer is not None for layer in link)
        (inputs,) = link.neurons.shape
        if not is_spiking(link.neurons.neuron) or given.mask is not None:
            break  # with a mask, each layer's spikes are there to be averaged over its steps
    if not links:
        return None
    return Step(tuple(row[first:index]), steps.CHAIN, partial(steps.run_chain, links, memory), True)


def _link(row: Sequence[LayerAt], index: int, *, first: bool) -> Link | None:
    """The layers at `index` that would be a link of a chain if each of them is what its class says."""
    found = list(row[index : index + 3])
    dense = bool(found) and steps.KERNELS.get(type(found[0].layer)) is steps.linear
    weights = found.pop(0).layer if dense else None
    folds = dense and bool(found) and type(found[0].layer) is nn.BatchNorm1d and not found[0].layer.training
    norm = found.pop(0).layer if folds else None
    if not found or found[0].role != "neurons":
        return None
    neurons: Neurons = found[0].layer  # type: ignore[assignment]
    if is_spiking(neurons.neuron) and not neurons.neuron.equation.binary:
        return None  # a chain hands spikes on as bits
    starts = dense or (first and neurons.recurrence is not None)
    return Link(weights, norm, neurons) if starts else None  # type: ignore[arg-type]


def _fits(link: Link, inputs: int, dtype: torch.dtype) -> bool:
    """Whether a link is exactly ours, in numbers of `dtype`, and its sizes fit each other and its inputs."""
    weights, norm, neurons = link
    shape = tuple(neurons.shape)
    if not runs_here(neurons, dtype):
        return False
    if weights is not None:
        if not runs_here(weights, dtype):
            return False
        given = weights._parameters
        weight = given["weight"] if "weight" in given else given["raw"]  # a constrained one is made of it
        if _misfits(weight, (*shape, inputs)) or _misfits(given["bias"], shape):
            return False
    elif shape != (inputs,):
        return False
    if norm is not None and not (runs_here(norm, dtype) and has_all_parts(norm) and norm.weight.shape == shape):
        return False
    loop = neurons.recurrence
    return loop is None or not (_misfits(loop.weight, shape * 2) or _misfits(loop.bias, shape))


def _misfits(values: Tensor | None, shape: tuple[int, ...]) -> bool:
    return values is not None and values.shape != shape


def _normed(row: Sequence[LayerAt], index: int, given: Input) -> Step | None:
    """The neurons at `index`, with the norm in front of them if it is in training."""
    if not given.shape:
        return None
    averages = row[index].role == "norm" and given.mask is None and _averages(row[index].layer, given)
    norm = row[index].layer if averages else None
    found = row[index : index + 1 + (norm is not None)]
    if found[-1].role != "neurons" or not all(runs_here(part.layer, given.dtype) for part in found):
        return None
    neurons: Neurons = found[-1].layer  # type: ignore[assignment]
    if neurons.recurrence is not None or (norm is None and given.steps > LONG):
        return None
    return Step(tuple(found), steps.COMPILED, partial(steps.run_normed, norm, neurons), True)


def _averages(norm: nn.Module, given: Input) -> bool:
    """Whether a norm takes the statistics of its input, in the way that `run_normed` knows."""
    if not norm.training:
        return False
    known = has_all_parts(norm) and norm.track_running_stats and norm.momentum is not None
    images = (len(given.shape) == 3) == (type(norm) is nn.BatchNorm2d) and len(given.shape) <= 3
    channels, rest = given.shape[0], given.shape[1:]  # type: ignore[misc]
    has_spread = given.is_shard or given.steps * given.batch * math.prod(rest) > 1  # else all have, or none
    return bool(known and images and has_spread and channels == norm.num_features)


def _pooled(row: Sequence[LayerAt], index: int, given: Input) -> Step | None:
    """The convolution at `index` and the max pooling behind it."""
    pair = row[index : index + 2]
    kernels = [steps.KERNELS.get(type(part.layer)) for part in pair]
    if kernels != [steps.convolve, steps.max_pool] or not _by_events(pair[0].layer, given):
        return None
    if not runs_here(pair[1].layer, given.dtype):
        return None
    return Step(tuple(pair), steps.BY_EVENTS, steps.on_rows(steps.convolve, *[part.layer for part in pair]), True)


def _alone(part: LayerAt, given: Input) -> Step:
    """One layer: by a kernel where there is one, else by its own forward."""
    layer = part.layer
    if part.role == "joint":
        return Step((part,), steps.JOINED, None, False)
    if given.kernels and _by_events(layer, given):
        words = steps.BY_EVENTS if part.role == "weights" else steps.AS_IT_IS
        return Step((part,), words, steps.on_rows(steps.KERNELS[type(layer)], layer), True)
    is_known = not given.kernels or runs_here(layer, given.dtype)
    if (given.mask is not None or given.is_shard) and is_training_norm(layer):
        return Step((part,), steps.MASKED, partial(run_counted_norm, layer, given.mask), is_known)
    if part.role == "neurons":
        return Step((part,), steps.ONE_BY_ONE, partial(steps.run_neurons, layer), is_known)
    if part.role == "stateful":
        return Step((part,), steps.AS_IT_IS, partial(steps.run_stateful, layer), is_known)
    if part.role == "over time":
        return Step((part,), steps.AS_IT_IS, steps.over_time(partial(layer, mask=given.mask)), is_known)
    run = steps.over_time(layer) if part.role in ("delay", "dropout") else steps.on_rows(steps.by_itself, layer)
    return Step((part,), steps.AS_IT_IS, run, is_known)


def _by_events(layer: nn.Module, given: Input) -> bool:
    """Whether a kernel takes this input of a layer without state: it is exactly torch's own, and their sizes fit."""
    kernel = steps.KERNELS.get(type(layer))
    if kernel is None or not runs_here(layer, given.dtype):
        return False
    if kernel is steps.max_pool:
        return len(given.shape) == 3
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if kernel is steps.linear:
        return len(given.shape) == 1 and given.shape[0] == weight.shape[1]
    inputs = weight.shape[1] * layer.groups  # type: ignore[operator]
    return len(given.shape) == 3 and given.shape[0] == inputs and weight.dim() == 4
