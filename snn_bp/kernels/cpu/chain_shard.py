"""A shard of the batch on its way through a chain of dense layers, forward and backward in chunks of time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from snn_bp.kernels.cpu import dense
from snn_bp.kernels.cpu.aligned import aligned_empty
from snn_bp.kernels.cpu.compile import array, compiled_plain, specialised
from snn_bp.kernels.cpu.packed_layer import Gradients, PackedLayer, Parts
from snn_bp.kernels.cpu.sparse import Bits, Events, find_bits, find_events
from snn_bp.kernels.cpu.subnormals import without_subnormals
from snn_bp.kernels.cpu.vectors import padded
from snn_bp.kernels.expand import Form

CHUNK_ROWS = 512  # time steps x samples of a backward chunk: its error signal fits the second-level cache
Run: TypeAlias = Callable[[int, int], None]  # a kernel with all it needs but the first step and the one behind the last


class Shard:
    """A shard of the batch on its way through all layers, and what its backward pass needs."""

    def __init__(
        self, layers: list[PackedLayer], steps: int, batch: int, low: int, high: int, *,
        graded: bool, recompute: list[bool],
    ) -> None:  # fmt: skip
        """`recompute` says of which layers the backward pass computes the potentials anew, a chunk at a time."""
        self.layers, self.steps, self.batch, self.low, self.rows = layers, steps, batch, low, high - low
        self.chunk = max(1, CHUNK_ROWS // self.rows)
        self.graded, self.recompute = graded, recompute
        self.dtype = layers[0].bias.dtype
        self.samples = slice(low, high)
        self.state = [
            layer.padded_state(layer.state or (None,) * len(layer.equation.full), self.samples) for layer in layers
        ]
        self.nothing = np.empty(0, self.dtype)
        self.first_spikes = [
            state[-1].copy() if layer.equation.spiking else np.zeros_like(state[-1])
            for layer, state in zip(layers, self.state, strict=True)
        ]
        self.fired = [self._packed_spikes(*each) for each in zip(layers, self.first_spikes, strict=True)]
        self.traces = [  # made here, in the main thread: the allocator keeps its memory for the next step
            self._empty_traces(layer, steps, state) if graded and not anew else [self.nothing] * len(layer.form.kept)
            for layer, state, anew in zip(layers, self.state, recompute, strict=True)
        ]
        self.windows = [  # where the error of a spike goes on
            np.empty(fired[1:].size if graded and self._has_window(n) else 0, np.uint64)
            for n, fired in enumerate(self.fired)
        ]
        self.saved: list[list[Parts]] = []  # [layer][chunk] the state before it, where the layer is recomputed
        self.input: Bits | Events | None = None  # None where it is neither zeros and ones nor mostly zero
        self.counts: list[np.ndarray] = []  # spikes of each neuron of each layer
        self.state_grads: list[Parts] = []  # the last state's, which the backward pass turns into the first's

    def _has_window(self, n: int) -> bool:
        """Whether layer `n` keeps where its surrogate is not zero: in place of potentials, or for a product behind."""
        layer = self.layers[n]
        units = [each.units for each in self.layers[n + 1 : n + 2]] + [layer.units] * (layer.recurrent.size > 0)
        return layer.form.boxed or (layer.is_windowed and max(units, default=0) >= dense.SAMPLED_FROM_UNITS)

    def find_sparsity(self, x: np.ndarray) -> None:
        """Find what is not zero in the input."""
        if not self.layers[0].has_no_weights:
            self.input = find_bits(x, self.low, self.rows)
            if self.input is None:
                self.input = find_events(x, self.low, self.rows, max_fraction=dense.PRODUCT_FROM)

    @without_subnormals()
    def forward(self, x: np.ndarray, out: np.ndarray) -> None:
        """All layers, one after the other, over all time; `x` counts where `find_sparsity` found it dense."""
        for n, layer in enumerate(self.layers):
            last = layer is self.layers[-1]
            weighted_sum, advance = self._advance(
                n, x, out.reshape(-1) if last else self.nothing, self.traces[n], full_trace=True
            )
            self.saved.append([])
            for start, stop in self._chunks():
                if self.graded and self.recompute[n]:
                    self.saved[n].append(tuple(part.copy() for part in self.state[n]))
                weighted_sum(start, stop)
                advance(start, stop)
        self.counts = [self._counted(fired) for fired in self.fired]

    @without_subnormals()
    def backward(
        self, x: np.ndarray, g_out: np.ndarray, g_rates: list[np.ndarray], g_states: Sequence[Parts],
        g_x: np.ndarray | None,
    ) -> list[Gradients]:  # fmt: skip
        """Gradients of each layer: chunk after chunk from the last, through all layers from the last.

        `g_out` of one step is that of every step. `g_x` is filled; gradients of the first states stay in `state_grads`.
        """
        sums = [Gradients.zero(layer) for layer in self.layers]
        self.state_grads = [
            layer.padded_state([None if g is None else array(g) for g in g_state], self.samples)
            for layer, g_state in zip(self.layers, g_states, strict=True)
        ]
        inputs, first, last = padded(self.layers[0].inputs), self.layers[0], self.layers[-1]
        below = self._empty_chunk(inputs if g_x is not None and not first.has_no_weights else 0)
        errors = [self._empty_chunk(layer.width) for layer in self.layers]
        every = g_out[0].size if len(g_out) > 1 else 0
        runs: list[Run] = [
            partial(
                compiled_plain(dense.load_output_grad), errors[-1], g_out.reshape(-1), every, last.units, last.width,
                self.low, self.rows,
            )
        ]  # fmt: skip
        for n in reversed(range(len(self.layers))):
            runs += self._adjoint(n, x, errors[n], errors[n - 1] if n else below, g_rates[n], sums[n])
        for start, stop in reversed(self._chunks()):
            for run in runs:
                run(start, stop)
            if g_x is not None:
                error = (errors[0] if first.has_no_weights else below)[: (stop - start) * self.rows * inputs]
                g_x[start:stop, self.samples] = error.reshape(stop - start, self.rows, inputs)[:, :, : g_x.shape[2]]
        return sums

    def _counted(self, fired: np.ndarray) -> np.ndarray:
        """Spikes of each neuron of a layer, over time and this shard of the batch."""
        words = fired.shape[2]
        counts = np.zeros(64 * words, np.int64)
        compiled_plain(dense.count_spikes)(counts, fired[1:].reshape(-1), words)
        return counts

    def _chunks(self) -> list[tuple[int, int]]:
        """The first step of each chunk of time, and the one behind its last."""
        return [(start, min(start + self.chunk, self.steps)) for start in range(0, self.steps, self.chunk)]

    def _empty_chunk(self, width: int) -> np.ndarray:
        """An array for `width` numbers of each row of a chunk."""
        return aligned_empty(self.chunk * self.rows * width, self.dtype)

    def _advance(
        self, n: int, x: np.ndarray, out: np.ndarray, traces: list[np.ndarray], *, full_trace: bool
    ) -> tuple[Run, Run]:
        """The weighted sums of layer `n`'s input, and its neurons; `traces` are of all steps, or of a chunk alone."""
        layer = self.layers[n]
        # the sums of a chunk lie where its potentials go, which follow them: half the space in cache
        in_trace = traces and not full_trace
        z = traces[0][self.rows * layer.width :] if in_trace else self._empty_chunk(layer.width)
        windowed = full_trace and self.windows[n].size > 0
        kernel = specialised(
            dense.forward, Form(layer.equation, kept=layer.form.kept), self.dtype, uniform=layer.uniform,
            window=layer.surrogate.slope_of if windowed else None, RECURRENT=layer.recurrent.size > 0,
            WINDOWED=windowed,
        )  # fmt: skip
        return self._weighted_sum(n, x, z), partial(
            kernel, z, layer.recurrent, *self.state[n], *layer.values, self.dtype.type(layer.surrogate.slope),
            self.fired[n].reshape(-1), self.windows[n], out, *traces, full_trace, layer.units, layer.width, self.batch,
            self.low, self.rows,
        )  # fmt: skip

    def _weighted_sum(self, n: int, x: np.ndarray, z: np.ndarray) -> Run:
        """Fills `z` with the weighted sums of layer `n`'s input."""
        layer = self.layers[n]
        if (spikes_in := self._spikes_in(n)) is not None:
            return spikes_in.weighted_sum(z, layer.weight, layer.bias, layer.width, self.rows)
        location = (layer.width, self.batch, self.low, self.rows)
        if layer.has_no_weights:
            return partial(compiled_plain(dense.load_input), z, x.reshape(-1), layer.bias, *location)
        return partial(
            compiled_plain(dense.matmul_floats), z, x.reshape(-1), layer.weight, layer.bias, layer.inputs, *location
        )

    def _adjoint(
        self, n: int, x: np.ndarray, d: np.ndarray, below: np.ndarray, g_rate: np.ndarray, sums: Gradients
    ) -> list[Run]:
        """Layer `n` backward: `d` to the gradient of the weighted sums, into those of the weights, and to `below`."""
        layer, traces = self.layers[n], self.traces[n]
        runs: list[Run] = []
        if self.recompute[n]:
            traces = self._empty_traces(layer, self.chunk, self.state[n])
            runs.append(
                partial(self._recompute_chunk, n, traces, self._advance(n, x, self.nothing, traces, full_trace=False))
            )
        kernel = specialised(
            dense.backward, layer.form, self.dtype, uniform=layer.uniform, adjoint=layer.surrogate.slope_of,
            RECURRENT=layer.recurrent.size > 0,
            WINDOWED=self.windows[n].size > 0 and layer.units >= dense.SAMPLED_FROM_UNITS,
        )  # fmt: skip
        runs.append(
            partial(
                kernel, layer.recurrent, layer.recurrent_back, self.windows[n], dense.SAMPLED_TO, self.first_spikes[n],
                *layer.values, self.dtype.type(layer.surrogate.slope), *traces, not self.recompute[n], d,
                *self.state_grads[n], g_rate, sums.bias, *sums.learned, layer.width, self.rows,
            )
        )  # fmt: skip
        if (spikes_in := self._spikes_in(n)) is not None:
            runs.append(spikes_in.weight_grad(sums.weight, d, layer.width, self.rows))
        elif not layer.has_no_weights:
            weight_grad, location = compiled_plain(dense.weight_grad_floats), (self.batch, self.low, self.rows)
            runs.append(partial(weight_grad, sums.weight, d, x.reshape(-1), layer.width, *location))
        if layer.recurrent.size:  # the spikes that step t receives are those of step t - 1
            runs.append(self._fired(n, 0).weight_grad(sums.recurrent, d, layer.width, self.rows))
        if below.size and not layer.has_no_weights:
            runs.append(self._input_gradient(n, d, below))
        return runs

    def _input_gradient(self, n: int, d: np.ndarray, below: np.ndarray) -> Run:
        """Fills `below` with the gradient of layer `n`'s input from that of its weighted sums, `d`."""
        layer = self.layers[n]
        sizes = (padded(layer.inputs), layer.units, layer.width, self.rows)
        product = partial(compiled_plain(dense.input_gradient), below, d, layer.back, *sizes)
        if n == 0 or not self.windows[n - 1].size or layer.units < dense.SAMPLED_FROM_UNITS:
            return product
        window = (self.windows[n - 1], self.fired[n - 1].shape[2], dense.SAMPLED_TO)
        sampled = partial(compiled_plain(dense.sampled_input_gradient), below, d, layer.weight, *window, *sizes)

        def run(start: int, stop: int) -> None:
            if not sampled(start, stop):
                product(start, stop)

        return run

    def _recompute_chunk(self, n: int, traces: list[np.ndarray], run: tuple[Run, Run], start: int, stop: int) -> None:
        """Layer `n` over a chunk again, from the state saved before it, to fill the traces."""
        state = self.state[n]
        for component, saved in zip(state, self.saved[n][start // self.chunk], strict=True):
            component[:] = saved
        self._begin_traces(self.layers[n], traces, state)
        for each in run:
            each(start, stop)

    def _spikes_in(self, n: int) -> Bits | Events | None:
        return self._fired(n - 1, 1) if n > 0 else self.input

    def _fired(self, n: int, since: int) -> Bits:
        """Spikes of layer `n`: from the step before the first on where `since` is 0, else from the first."""
        return Bits(self.fired[n][since:].reshape(-1, self.fired[n].shape[2]))

    def _packed_spikes(self, layer: PackedLayer, s: np.ndarray) -> np.ndarray:
        """Bits for the spikes of all steps, those before the first step filled in."""
        words = (layer.width + 63) // 64
        fired = np.empty((self.steps + 1, self.rows, words), np.uint64)
        compiled_plain(dense.pack_rows)(fired.reshape(-1), s, self.rows, layer.width)
        return fired

    def _empty_traces(self, layer: PackedLayer, steps: int, state: Parts) -> list[np.ndarray]:
        """Arrays for what is kept of every step, each beginning with the state before the first one."""
        traces = [aligned_empty((steps + 1) * self.rows * layer.width, self.dtype) for _ in layer.form.kept]
        self._begin_traces(layer, traces, state)
        return traces

    def _begin_traces(self, layer: PackedLayer, traces: list[np.ndarray], state: Parts) -> None:
        """Write the state before the first step into the traces; the input has none before it."""
        first = dict(zip(layer.equation.full, state, strict=True))
        for name, trace in zip(layer.form.kept, traces, strict=True):
            if name in first:
                trace[: first[name].size] = first[name]
