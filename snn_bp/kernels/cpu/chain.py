"""A chain of dense layers and their neurons as one operation: spikes stay bits, and the error signal stays in cache.

Forward goes layer by layer; backward goes through all layers over a chunk of time before it goes to the chunk before.
The batch is cut into parts that do not depend on the number of threads, so neither does any result.
"""

from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from snn_bp.kernels.around import first_derivatives
from snn_bp.kernels.bind import Constants
from snn_bp.kernels.cpu.chain_part import Part, Prepared, Sums, wide
from snn_bp.kernels.cpu.neuron import array
from snn_bp.kernels.cpu.threads import cut, in_threads
from snn_bp.surrogates import Surrogate

Memory: TypeAlias = Literal["full", "low"]


class Chain(NamedTuple):
    """What the layers of a chain are, beside their tensors."""

    neurons: tuple[Constants, ...]
    surrogates: tuple[Surrogate, ...]
    memory: Memory


class Layer(NamedTuple):
    """The tensors of one dense layer and its neurons."""

    weight: Tensor | None  # [units, inputs]; None, of the first layer: the input is the weighted sum itself
    bias: Tensor | None  # [units]
    recurrent: Tensor | None  # [units, units]
    state: tuple[Tensor, Tensor, Tensor, Tensor] | None  # i, a, v, s [batch, units]; None is rest
    parameters: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # alpha, beta, rho, kappa, theta; scalars or [units]


PER_LAYER = 12  # tensors: weight, bias, recurrent, i, a, v, s, alpha, beta, rho, kappa, theta


def run_layers(
    x: Tensor, layers: Sequence[Layer], chain: Chain
) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, ...]]]:
    """Output `[time, batch, units]` of the last layer, mean output of each neuron of each layer, and last states.

    All three carry gradients. `x` is `[time, batch, inputs]` in single or double precision, as all tensors are, or in
    bytes; only the last neuron may be one that does not spike. Equal to the layers one by one up to the order of
    summation.
    """
    flat = []
    for layer in layers:
        flat += [layer.weight, layer.bias, layer.recurrent, *(layer.state or (None,) * 4), *layer.parameters]
    out, *rest = _Chain.apply(chain, torch.is_grad_enabled(), x, *flat)  # type: ignore[misc]
    count = len(layers)
    return out, rest[:count], [tuple(rest[at : at + 4]) for at in range(count, 5 * count, 4)]


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx, chain: Chain, graded: bool, x: Tensor, *flat: Tensor | None):
        graded = graded and any(ctx.needs_input_grad)
        layers = [
            Prepared.of(
                chain.neurons[n],
                chain.surrogates[n],
                x,
                flat[at : at + PER_LAYER],
                back=graded and (n > 0 or ctx.needs_input_grad[2]),
            )
            for n, at in enumerate(range(0, len(flat), PER_LAYER))
        ]
        steps, batch = x.shape[:2]
        rows, dtype = array(x), layers[0].bias.dtype
        out = np.empty((steps, batch, layers[-1].units), dtype)
        parts = [
            Part(layers, steps, batch, *ends, graded=graded, again=_computed_again(layers, n, chain.memory))
            for n, ends in enumerate(cut(batch))
        ]
        if layers[0].given and layers[0].units < layers[0].width:
            rows = np.pad(rows, ((0, 0), (0, 0), (0, layers[0].width - layers[0].units)))
        in_threads([partial(part.listen, rows) for part in parts])
        heard = all(part.input is not None for part in parts)
        rows = rows[:0] if heard else rows.astype(dtype, copy=False)
        in_threads([partial(part.forward, rows, out) for part in parts])
        rates = [
            np.sum([part.counts[n] for part in parts], 0) / (steps * batch) if kind.spiking else out.mean((0, 1))
            for n, kind in enumerate(chain.neurons)
        ]
        last = [each for n in range(len(layers)) for each in _joined(parts, n)]
        ctx.layers, ctx.parts, ctx.shape = layers, parts, x.shape
        shared = not heard and x.is_contiguous() and np.may_share_memory(rows, array(x))
        ctx.save_for_backward(x if shared else None)  # torch notices where it is written to before it is read again
        ctx.x = None if shared else rows
        ctx.set_materialize_grads(False)
        return (
            torch.from_numpy(out),
            *(torch.from_numpy(rate[: layer.units].astype(dtype)) for layer, rate in zip(layers, rates, strict=True)),
            *last,
        )

    @staticmethod
    @first_derivatives("Dense and its neurons")
    def backward(ctx, g_out, *others):
        layers, parts = ctx.layers, ctx.parts
        (saved,) = ctx.saved_tensors
        x = array(saved) if ctx.x is None else ctx.x
        count, (steps, batch, inputs) = len(layers), ctx.shape
        g_rates, g_states = others[:count], others[count:]
        dtype = layers[0].bias.dtype
        g_x = np.empty((steps, batch, inputs), dtype) if ctx.needs_input_grad[2] else None
        if g_out is None:
            given = np.zeros((1, batch, layers[-1].units), dtype)
        else:  # behind a sum or mean over time every step has the same gradient
            given = array(g_out[:1] if g_out.stride(0) == 0 else g_out)
        shares = [
            np.zeros(layer.width, dtype) if g is None else wide(array(g), layer.width) / dtype.type(steps * batch)
            for layer, g in zip(layers, g_rates, strict=True)
        ]
        totals = _Totals()
        in_threads(
            [
                partial(totals.add, n, partial(part.backward, x, given, shares, g_states, g_x))
                for n, part in enumerate(parts)
            ]
        )
        gradients: list[Any] = [None, None, None if g_x is None else torch.from_numpy(g_x)]
        for n, layer in enumerate(layers):
            gradients += layer.gradients(totals.sums[n], [part.carried[n] for part in parts])
        needed = ctx.needs_input_grad
        return tuple(g if need else None for g, need in zip(gradients, needed, strict=True))


class _Totals:
    """The sums of all parts, added in the order of the parts, each as soon as those before it are there."""

    def __init__(self) -> None:
        self.sums: list[Sums] = []
        self._lock, self._next, self._waiting = Lock(), 0, {}

    def add(self, part: int, backward: Callable[[], list[Sums]]) -> None:
        """Run a part backward, and add what it gives."""
        given = backward()
        with self._lock:
            self._waiting[part] = given
            while (layers := self._waiting.pop(self._next, None)) is not None:
                self._next += 1
                if not self.sums:
                    self.sums = layers
                    continue
                for total, more in zip(self.sums, layers, strict=True):
                    for mine, theirs in zip(total, more, strict=True):
                        mine += theirs


def _computed_again(layers: list[Prepared], part: int, memory: Memory) -> list[bool]:
    """Of which layers the backward pass computes the potentials again in a part of the batch, instead of keeping them.

    Behind the first layer that is cheap, by spikes and in cache: there every second part does, which takes a fifth off
    the memory of W1 (`experiments/benchmarks/speed.py`) for a twentieth of its time.
    """
    cheap = [n > 0 and not layer.recurrent.size for n, layer in enumerate(layers)]
    return [memory == "low" or (part % 2 == 1 and each) for each in cheap]


def _joined(parts: list[Part], n: int) -> list[Tensor]:
    layer = parts[0].layers[n]
    return [
        torch.from_numpy(
            np.concatenate([part.state[n][k].reshape(-1, layer.width)[:, : layer.units] for part in parts])
        )
        for k in range(4)
    ]
