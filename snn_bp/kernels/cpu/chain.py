"""A chain of dense layers and their neurons as one operation: spikes stay bits, and the error signal stays in cache.

Forward goes layer by layer; backward goes through all layers over a chunk of time before it goes to the chunk before.
The batch is split into shards that do not depend on the number of threads, so neither does any result.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn_bp.equations.derive import Equation
from snn_bp.kernels.around import first_derivatives
from snn_bp.kernels.cpu import Memory
from snn_bp.kernels.cpu.aligned import aligned_empty
from snn_bp.kernels.cpu.chain_shard import Shard
from snn_bp.kernels.cpu.compile import array
from snn_bp.kernels.cpu.packed_layer import Gradients, LayerTensors, PackedLayer, Parts, widened
from snn_bp.kernels.cpu.threads import parallel_for, split_rows
from snn_bp.surrogates import Surrogate


class Chain(NamedTuple):
    """What the layers of a chain are, beside their tensors."""

    equations: tuple[Equation, ...]
    surrogates: tuple[Surrogate, ...]
    memory: Memory


def run_layers(x: Tensor, layers: Sequence[LayerTensors], chain: Chain) -> tuple[Tensor, list[Tensor], list[Parts]]:
    """Output `[time, batch, units]` of the last layer, mean output of each neuron of each layer, and last states.

    All three carry gradients. `x` is `[time, batch, inputs]` in single or double precision, as all tensors are, or in
    bytes; only the last neuron may be one that does not spike. Equal to the layers one by one up to the order of
    summation.
    """
    flat = [tensor for layer, equation in zip(layers, chain.equations, strict=True) for tensor in layer.flat(equation)]
    out, *rest = _Chain.apply(chain, torch.is_grad_enabled(), x, *flat)  # type: ignore[misc]
    count = len(layers)
    return out, rest[:count], _states(rest[count:], chain.equations)


def _states(flat: Sequence[Any], equations: Sequence[Equation]) -> list[Parts]:
    parts = iter(flat)
    return [tuple(islice(parts, len(equation.full))) for equation in equations]


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx, chain: Chain, graded: bool, x: Tensor, *flat: Tensor | None):
        graded = graded and any(ctx.needs_input_grad)
        parts = iter(flat)
        layers = [
            PackedLayer.of(
                equation,
                chain.surrogates[n],
                x,
                LayerTensors.from_flat(parts, equation),
                back=graded and (n > 0 or ctx.needs_input_grad[2]),
            )
            for n, equation in enumerate(chain.equations)
        ]
        steps, batch = x.shape[:2]
        rows, dtype = array(x), layers[0].bias.dtype
        # products of torch's, behind what computes by a forward of its own, differ with where their input begins
        units = layers[-1].units
        out = aligned_empty(steps * batch * units, dtype).reshape(steps, batch, units)
        shards = [
            Shard(layers, steps, batch, *ends, graded=graded, recompute=_recomputed_layers(layers, n, chain.memory))
            for n, ends in enumerate(split_rows(batch))
        ]
        if layers[0].has_no_weights and layers[0].units < layers[0].width:
            rows = np.pad(rows, ((0, 0), (0, 0), (0, layers[0].width - layers[0].units)))
        parallel_for([partial(shard.find_sparsity, rows) for shard in shards])
        sparse = all(shard.input is not None for shard in shards)
        rows = rows[:0] if sparse else rows.astype(dtype, copy=False)
        parallel_for([partial(shard.forward, rows, out) for shard in shards])
        rates = [
            np.sum([shard.counts[n] for shard in shards], 0) / (steps * batch) if each.spiking else out.mean((0, 1))
            for n, each in enumerate(chain.equations)
        ]
        last = [
            each for n, layer in enumerate(layers) for each in layer.joined_state([shard.state[n] for shard in shards])
        ]
        ctx.layers, ctx.shards, ctx.shape = layers, shards, x.shape
        shared = not sparse and x.is_contiguous() and np.may_share_memory(rows, array(x))
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
        layers, shards = ctx.layers, ctx.shards
        (saved,) = ctx.saved_tensors
        x = array(saved) if ctx.x is None else ctx.x
        count, (steps, batch, inputs) = len(layers), ctx.shape
        g_rates, g_states = others[:count], _states(others[count:], [layer.equation for layer in layers])
        dtype = layers[0].bias.dtype
        needs_x = ctx.needs_input_grad[2]
        g_x = aligned_empty(steps * batch * inputs, dtype).reshape(steps, batch, inputs) if needs_x else None
        if g_out is None:
            g_last = np.zeros((1, batch, layers[-1].units), dtype)
        else:  # behind a sum or mean over time every step has the same gradient
            g_last = array(g_out[:1] if g_out.stride(0) == 0 else g_out)
        rate_grads = [
            np.zeros(layer.width, dtype) if g is None else widened(array(g), layer.width) / dtype.type(steps * batch)
            for layer, g in zip(layers, g_rates, strict=True)
        ]
        totals = _Totals()
        parallel_for(
            [
                partial(totals.add, n, partial(shard.backward, x, g_last, rate_grads, g_states, g_x))
                for n, shard in enumerate(shards)
            ]
        )
        gradients: list[Any] = [None, None, None if g_x is None else torch.from_numpy(g_x)]
        for n, layer in enumerate(layers):
            gradients += layer.gradients(totals.sums[n], [shard.state_grads[n] for shard in shards])
        needed = ctx.needs_input_grad
        return tuple(g if need else None for g, need in zip(gradients, needed, strict=True))


class _Totals:
    """The sums of all shards, added in the order of the shards, each as soon as those before it are there."""

    def __init__(self) -> None:
        self.sums: list[Gradients] = []
        self._lock, self._next, self._waiting = Lock(), 0, {}

    def add(self, shard: int, backward: Callable[[], list[Gradients]]) -> None:
        """Run a shard backward, and add what it gives."""
        gradients = backward()
        with self._lock:
            self._waiting[shard] = gradients
            while (layers := self._waiting.pop(self._next, None)) is not None:
                self._next += 1
                if not self.sums:
                    self.sums = layers
                    continue
                for total, more in zip(self.sums, layers, strict=True):
                    total.add(more)


def _recomputed_layers(layers: list[PackedLayer], shard: int, memory: Memory) -> list[bool]:
    """Which layers recompute their potentials in the backward pass of a shard, instead of keeping them.

    Behind the first layer that is cheap, by spikes and in cache: there every second shard does, which takes a fifth off
    the memory of W1 (`experiments/benchmarks/speed.py`) for a twentieth of its time.
    """
    cheap = [n > 0 and not layer.recurrent.size for n, layer in enumerate(layers)]
    return [
        bool(layer.form.kept) and (memory == "low" or (shard % 2 == 1 and each))
        for layer, each in zip(layers, cheap, strict=True)
    ]
