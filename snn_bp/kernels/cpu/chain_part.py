"""A part of the batch on its way through a chain of dense layers, forward and backward in chunks of time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from snn_bp.kernels.bind import Constants
from snn_bp.kernels.cpu import dense
from snn_bp.kernels.cpu.aligned import empty, zeros
from snn_bp.kernels.cpu.neuron import array, compiled_plain
from snn_bp.kernels.cpu.sparse import Bits, Events, find_bits, find_events
from snn_bp.kernels.cpu.subnormals import without_subnormals
from snn_bp.kernels.cpu.vectors import blocked, padded, panels, unblocked
from snn_bp.neurons import COEFFICIENTS
from snn_bp.surrogates import Surrogate

ROWS = 512  # time steps x samples of a backward chunk: its error signal fits the second-level cache
Run: TypeAlias = Callable[[int, int], None]  # a kernel with all it needs but the first step and the one behind the last


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A layer as the kernels want it: flat, rows of weights padded to whole vectors."""

    constants: Constants
    surrogate: Surrogate
    units: int
    inputs: int
    width: int
    given: bool  # no weights: the input is the weighted sum
    weight: np.ndarray  # [inputs, width], in blocks of columns
    back: np.ndarray  # panels of [units, inputs padded], where the gradient of the input is asked for
    bias: np.ndarray
    recurrent: np.ndarray  # [width, width] in blocks, a row for each neuron that is heard
    recurrent_back: np.ndarray  # panels of its transpose
    state: list[np.ndarray] | None
    parameters: list[Any]  # scalars if uniform, else [width] each
    uniform: bool
    learns: bool
    saves_current: bool

    @classmethod
    def of(
        cls, constants: Constants, surrogate: Surrogate, x: Tensor, tensors: Sequence[Tensor | None], *, back: bool
    ) -> "Prepared":
        weight, bias, recurrent, *others = tensors
        state, parameters = others[:4], [value for value in others[4:] if value is not None]
        units, inputs = (x.shape[2], padded(x.shape[2])) if weight is None else weight.shape
        width, dtype = padded(units), array(x[:0] if weight is None else weight[:0]).dtype
        nothing = np.empty((0, 0), dtype)
        rows, loops = (nothing if matrix is None else array(matrix) for matrix in (weight, recurrent))
        learns = any(value.requires_grad for value in parameters)
        uniform = all(value.dim() == 0 for value in parameters)
        fills = [1.0 if name == "theta" else 0.0 for name in COEFFICIENTS]
        return cls(
            constants=constants,
            surrogate=surrogate,
            units=units,
            inputs=inputs,
            width=width,
            given=weight is None,
            weight=blocked(rows.T, width),
            back=panels(rows if back else nothing, units, padded(inputs)),
            bias=zeros(width, dtype) if bias is None else wide(array(bias), width),
            recurrent=blocked(_square(loops.T, width), width),
            recurrent_back=panels(loops, width, width),
            state=None if state[0] is None else [array(part) for part in state if part is not None],
            parameters=[
                array(value)[()] if uniform else wide(np.broadcast_to(array(value), (units,)), width, fill)
                for value, fill in zip(parameters, fills, strict=True)
            ],
            uniform=uniform,
            learns=learns,
            saves_current=(constants.current and learns) or (constants.reset == "zero_all" and not constants.detach),
        )

    def gradients(self, total: "Sums", carried: list[list[np.ndarray]]) -> list[Tensor]:
        """Gradients of the layer's tensors from their sums over the batch and the first states of its parts."""
        n = self.units
        weight = total.weight if self.given else unblocked(total.weight, self.inputs, n)
        loop = unblocked(total.recurrent, self.width, n)[:, :n] if total.recurrent.size else total.recurrent
        states = [np.concatenate([part[k].reshape(-1, self.width)[:, :n] for part in carried]) for k in range(4)]
        parameters = [values[:n] for values in total.parameters()]
        return list(map(torch.from_numpy, (weight, total.bias[:n], loop, *states, *parameters)))


class Sums(NamedTuple):
    """Gradients summed over time and a part of the batch."""

    weight: np.ndarray
    bias: np.ndarray
    recurrent: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    rho: np.ndarray
    kappa: np.ndarray
    theta: np.ndarray

    @classmethod
    def zero(cls, layer: Prepared) -> "Sums":
        dtype = layer.bias.dtype
        sizes = (layer.weight.size, layer.width, layer.recurrent.size, *(layer.width,) * len(COEFFICIENTS))
        return cls(*(zeros(size, dtype) for size in sizes))

    def parameters(self) -> tuple[np.ndarray, ...]:
        return self[3:]


class Part:
    """A part of the batch on its way through all layers, and what its backward pass needs."""

    def __init__(
        self, layers: list[Prepared], steps: int, batch: int, low: int, high: int, *, graded: bool, again: list[bool]
    ) -> None:
        """`again` names the layers whose potentials the backward pass computes anew, a chunk at a time."""
        self.layers, self.steps, self.batch, self.low, self.rows = layers, steps, batch, low, high - low
        self.chunk = max(1, ROWS // self.rows)
        self.graded, self.again = graded, again
        self.dtype = layers[0].bias.dtype
        self.state = [self._first(layer) for layer in layers]
        self.first_spikes = [state[3].copy() for state in self.state]
        self.fired = [self._bits(layer, state[3]) for layer, state in zip(layers, self.state, strict=True)]
        self.nothing = np.empty(0, self.dtype)
        self.traces = [  # made here, in the main thread: the allocator keeps its memory for the next step
            self._room(layer, steps, state) if graded and not anew else [self.nothing] * 3
            for layer, state, anew in zip(layers, self.state, again, strict=True)
        ]
        self.saved: list[list[list[np.ndarray]]] = []  # [layer][chunk] the state before it, where computed again
        self.input: Bits | Events | None = None  # None where it is neither zeros and ones nor mostly zero
        self.counts: list[np.ndarray] = []  # spikes of each neuron of each layer
        self.carried: list[list[np.ndarray]] = []

    def listen(self, x: np.ndarray) -> None:
        """Find what is not zero in the input."""
        if not self.layers[0].given:
            self.input = find_bits(x, self.low, self.rows)
            if self.input is None:
                self.input = find_events(x, self.low, self.rows, most=dense.PRODUCT_FROM)

    @without_subnormals()
    def forward(self, x: np.ndarray, out: np.ndarray) -> None:
        """All layers, one after the other, over all time; `x` counts where nothing of it was found."""
        for n, layer in enumerate(self.layers):
            last = layer is self.layers[-1]
            weigh, advance = self._advance(n, x, out.reshape(-1) if last else self.nothing, self.traces[n], whole=True)
            self.saved.append([])
            for start, stop in self._chunks():
                if self.graded and self.again[n]:
                    self.saved[n].append(self._copied_state(n))
                weigh(start, stop)
                advance(start, stop)
        self.counts = [self._counted(fired) for fired in self.fired]

    @without_subnormals()
    def backward(
        self, x: np.ndarray, g_out: np.ndarray, shares: list[np.ndarray], g_states: Sequence[Tensor | None],
        g_x: np.ndarray | None,
    ) -> list[Sums]:  # fmt: skip
        """Gradients of each layer: chunk after chunk from the last, through all layers from the last.

        `g_out` of one step is that of every step. `g_x` is filled; gradients of the first states stay in `carried`.
        """
        sums = [Sums.zero(layer) for layer in self.layers]
        self.carried = [self._carried(layer, g_states[4 * n : 4 * n + 4]) for n, layer in enumerate(self.layers)]
        inputs, first, last = padded(self.layers[0].inputs), self.layers[0], self.layers[-1]
        below = self._sums_room(inputs if g_x is not None and not first.given else 0)
        errors = [self._sums_room(layer.width) for layer in self.layers]
        every = g_out[0].size if len(g_out) > 1 else 0
        runs: list[Run] = [
            partial(
                compiled_plain(dense.take_errors), errors[-1], g_out.reshape(-1), every, last.units, last.width,
                self.low, self.rows,
            )
        ]  # fmt: skip
        for n in reversed(range(len(self.layers))):
            runs += self._adjoint(n, x, errors[n], errors[n - 1] if n else below, shares[n], sums[n])
        for start, stop in reversed(self._chunks()):
            for run in runs:
                run(start, stop)
            if g_x is not None:
                error = (errors[0] if first.given else below)[: (stop - start) * self.rows * inputs]
                here = slice(self.low, self.low + self.rows)
                g_x[start:stop, here] = error.reshape(stop - start, self.rows, inputs)[:, :, : g_x.shape[2]]
        return sums

    def _counted(self, fired: np.ndarray) -> np.ndarray:
        """Spikes of each neuron of a layer, over time and this part of the batch."""
        words = fired.shape[2]
        counts = np.zeros(64 * words, np.int64)
        compiled_plain(dense.count_spikes)(counts, fired[1:].reshape(-1), words)
        return counts

    def _copied_state(self, n: int) -> list[np.ndarray]:
        """The state of layer `n`; parts of it that the neuron has not stay at rest, and need no copy."""
        kind = self.layers[n].constants
        moves = (kind.current or self.layers[n].saves_current, kind.adapts, True, kind.spiking)
        return [part.copy() if moved else part for part, moved in zip(self.state[n], moves, strict=True)]

    def _chunks(self) -> list[tuple[int, int]]:
        """The first step of each chunk of time, and the one behind its last."""
        return [(start, min(start + self.chunk, self.steps)) for start in range(0, self.steps, self.chunk)]

    def _sums_room(self, width: int) -> np.ndarray:
        """Room for `width` numbers of each row of a chunk."""
        return empty(self.chunk * self.rows * width, self.dtype)

    def _advance(
        self, n: int, x: np.ndarray, out: np.ndarray, traces: list[np.ndarray], *, whole: bool
    ) -> tuple[Run, Run]:
        """The weighted sums of layer `n`'s input, and its neurons; `traces` are of all steps, or of a chunk alone."""
        layer = self.layers[n]
        # of a chunk alone the sums lie where the potentials go, which follow them: half the room in cache
        z = self._sums_room(layer.width) if whole else traces[0][self.rows * layer.width :]
        kernel = dense.compiled_forward(
            layer.constants, self.dtype, uniform=layer.uniform, recurrent=layer.recurrent.size > 0
        )  # fmt: skip
        return self._weigh(n, x, z), partial(
            kernel, z, layer.recurrent, *self.state[n], *layer.parameters, self.fired[n].reshape(-1), out, *traces,
            whole, layer.units, layer.width, self.batch, self.low, self.rows,
        )  # fmt: skip

    def _weigh(self, n: int, x: np.ndarray, z: np.ndarray) -> Run:
        """Fills `z` with the weighted sums of layer `n`'s input."""
        layer = self.layers[n]
        if (heard := self._heard(n)) is not None:
            return heard.weigh(z, layer.weight, layer.bias, layer.width, self.rows)
        place = (layer.width, self.batch, self.low, self.rows)
        if layer.given:
            return partial(compiled_plain(dense.take_currents), z, x.reshape(-1), layer.bias, *place)
        return partial(
            compiled_plain(dense.weigh_floats), z, x.reshape(-1), layer.weight, layer.bias, layer.inputs, *place
        )

    def _adjoint(
        self, n: int, x: np.ndarray, d: np.ndarray, below: np.ndarray, share: np.ndarray, sums: Sums
    ) -> list[Run]:
        """Layer `n` backward: `d` to the gradient of the weighted sums, into those of the weights, and to `below`."""
        layer, traces = self.layers[n], self.traces[n]
        runs: list[Run] = []
        if self.again[n]:
            traces = self._room(layer, self.chunk, self.state[n])
            runs.append(partial(self._once_more, n, traces, self._advance(n, x, self.nothing, traces, whole=False)))
        kernel = dense.compiled_backward(
            layer.constants, layer.surrogate.shape, layer.surrogate.per, self.dtype, uniform=layer.uniform,
            RECURRENT=layer.recurrent.size > 0, LEARNS=layer.learns, SAVES_CURRENT=layer.saves_current,
        )  # fmt: skip
        runs.append(
            partial(
                kernel, layer.recurrent_back, self.first_spikes[n], *layer.parameters,
                self.dtype.type(layer.surrogate.slope), *traces, not self.again[n], d, *self.carried[n], share,
                sums.bias, *sums.parameters(), layer.width, self.rows,
            )
        )  # fmt: skip
        if (heard := self._heard(n)) is not None:
            runs.append(heard.gather(sums.weight, d, layer.width, self.rows))
        elif not layer.given:
            gather, place = compiled_plain(dense.gather_floats), (self.batch, self.low, self.rows)
            runs.append(partial(gather, sums.weight, d, x.reshape(-1), layer.width, *place))
        if layer.recurrent.size:  # what step t heard is what step t - 1 fired
            runs.append(self._fired(n, 0).gather(sums.recurrent, d, layer.width, self.rows))
        if below.size and not layer.given:
            kernel, sizes = compiled_plain(dense.input_gradient), (padded(layer.inputs), layer.units, layer.width)
            runs.append(partial(kernel, below, d, layer.back, *sizes, self.rows))
        return runs

    def _once_more(self, n: int, traces: list[np.ndarray], run: tuple[Run, Run], start: int, stop: int) -> None:
        """Layer `n` over a chunk again, from the state saved before it, to fill the traces."""
        for part, saved in zip(self.state[n], self.saved[n][start // self.chunk], strict=True):
            part[:] = saved
        i, a, v, _ = self.state[n]
        for trace, part in zip(traces, (v, a, i), strict=True):
            trace[: part.size] = part[: trace.size]
        for each in run:
            each(start, stop)

    def _heard(self, n: int) -> Bits | Events | None:
        return self._fired(n - 1, 1) if n > 0 else self.input

    def _fired(self, n: int, since: int) -> Bits:
        """Spikes of layer `n`: from the step before the first on where `since` is 0, else from the first."""
        return Bits(self.fired[n][since:].reshape(-1, self.fired[n].shape[2]))

    def _first(self, layer: Prepared) -> list[np.ndarray]:
        parts = []
        for k in range(4):
            part = zeros(self.rows * layer.width, self.dtype).reshape(self.rows, layer.width)
            if layer.state is not None:
                part[:, : layer.units] = layer.state[k][self.low : self.low + self.rows]
            parts.append(part.reshape(-1))
        return parts

    def _bits(self, layer: Prepared, s: np.ndarray) -> np.ndarray:
        words = (layer.width + 63) // 64
        fired = np.empty((self.steps + 1, self.rows, words), np.uint64)
        compiled_plain(dense.pack_rows)(fired.reshape(-1), s, self.rows, layer.width)
        return fired

    def _room(self, layer: Prepared, steps: int, state: list[np.ndarray]) -> list[np.ndarray]:
        """Room for the traces v, a, i, each beginning with the state before the first step."""
        i, a, v, _ = state
        wanted = ((True, v), (layer.constants.adapts, a), (layer.saves_current, i))
        traces = []
        for want, first in wanted:
            trace = empty((steps + 1) * first.size if want else 0, self.dtype)
            if want:
                trace[: first.size] = first
            traces.append(trace)
        return traces

    def _carried(self, layer: Prepared, given: Sequence[Tensor | None]) -> list[np.ndarray]:
        """Gradients of the last state, which the backward pass carries to the first."""
        parts = []
        for g in given:
            part = zeros(self.rows * layer.width, self.dtype).reshape(self.rows, layer.width)
            if g is not None:
                part[:, : layer.units] = array(g)[self.low : self.low + self.rows]
            parts.append(part.reshape(-1))
        return parts


def wide(values: np.ndarray, width: int, fill: float = 0.0) -> np.ndarray:
    """`values`, then `fill` up to the width."""
    out = np.full(width, fill, values.dtype)
    out[: len(values)] = values
    return out


def _square(matrix: np.ndarray, width: int) -> np.ndarray:
    """[neurons, neurons] with zeros up to the width; nothing stays nothing."""
    missing = width - len(matrix) if matrix.size else 0
    return np.pad(matrix, (0, missing))
