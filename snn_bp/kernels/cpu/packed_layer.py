"""A dense layer and its neurons as the kernels want it, and the gradients of its tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn_bp.kernels.bind import Constants
from snn_bp.kernels.cpu.aligned import aligned_zeros
from snn_bp.kernels.cpu.compile import array
from snn_bp.kernels.cpu.vectors import blocked, padded, panels, unblocked
from snn_bp.neurons import Coefficients, FullState
from snn_bp.surrogates import Surrogate


class LayerTensors(NamedTuple):
    """The tensors of one dense layer and its neurons, or their gradients."""

    weight: Any  # [units, inputs]; None, of the first layer: the input is the weighted sum itself
    bias: Any  # [units]
    recurrent: Any  # [units, units]
    state: FullState | None  # [batch, units]; None is rest
    coefficients: Coefficients  # scalars or [units]

    def flat(self) -> tuple[Any, ...]:
        """All of them in a row, `COUNT` in number; `from_flat` reads it."""
        return (*self[:3], *(self.state or (None,) * 4), *self.coefficients)

    @classmethod
    def from_flat(cls, flat: Sequence[Any]) -> "LayerTensors":
        """The tensors in the row that `flat` makes of them."""
        weight, bias, recurrent, *others = flat
        state = None if others[0] is None else FullState(*others[:4])
        return cls(weight, bias, recurrent, state, Coefficients(*others[4:]))


COUNT = 3 + len(FullState._fields) + len(Coefficients._fields)


@dataclass(frozen=True, kw_only=True)
class PackedLayer:
    """A layer as the kernels want it: flat, rows of weights padded to whole vectors."""

    constants: Constants
    surrogate: Surrogate
    units: int
    inputs: int
    width: int
    has_no_weights: bool  # the input is the weighted sum
    weight: np.ndarray  # [inputs, width], in blocks of columns
    back: np.ndarray  # panels of [units, inputs padded], where the gradient of the input is asked for
    bias: np.ndarray
    recurrent: np.ndarray  # [width, width] in blocks, a row for each presynaptic neuron
    recurrent_back: np.ndarray  # panels of its transpose
    state: FullState | None
    coefficients: Coefficients  # scalars if uniform, else [width] each
    uniform: bool
    learns: bool
    saves_current: bool

    @classmethod
    def of(
        cls, constants: Constants, surrogate: Surrogate, x: Tensor, tensors: LayerTensors, *, back: bool
    ) -> "PackedLayer":
        weight, bias, recurrent, state, coefficients = tensors
        units, inputs = (x.shape[2], padded(x.shape[2])) if weight is None else weight.shape
        width, dtype = padded(units), array(x[:0] if weight is None else weight[:0]).dtype
        nothing = np.empty((0, 0), dtype)
        rows, loops = (nothing if matrix is None else array(matrix) for matrix in (weight, recurrent))
        learns = any(value.requires_grad for value in coefficients)
        uniform = all(value.dim() == 0 for value in coefficients)
        fills = Coefficients(0.0, 0.0, 0.0, 0.0, theta=1.0)
        return cls(
            constants=constants,
            surrogate=surrogate,
            units=units,
            inputs=inputs,
            width=width,
            has_no_weights=weight is None,
            weight=blocked(rows.T, width),
            back=panels(rows if back else nothing, units, padded(inputs)),
            bias=aligned_zeros(width, dtype) if bias is None else widened(array(bias), width),
            recurrent=blocked(_square(loops.T, width), width),
            recurrent_back=panels(loops, width, width),
            state=None if state is None else FullState(*map(array, state)),
            coefficients=Coefficients(
                *(
                    array(value)[()] if uniform else widened(np.broadcast_to(array(value), (units,)), width, fill)
                    for value, fill in zip(coefficients, fills, strict=True)
                )
            ),
            uniform=uniform,
            learns=learns,
            saves_current=constants.needs_current(learns),
        )

    def padded_state(self, state: Sequence[np.ndarray | None], samples: slice) -> FullState:
        """These samples of a state, or of its gradients, `width` numbers to a row, flat; zeros for what is None."""
        rows, dtype = samples.stop - samples.start, self.bias.dtype
        padded_rows = [aligned_zeros(rows * self.width, dtype).reshape(rows, self.width) for _ in state]
        for component, values in zip(padded_rows, state, strict=True):
            if values is not None:
                component[:, : self.units] = values[samples]
        return FullState(*(component.reshape(-1) for component in padded_rows))

    def joined_state(self, shards: Sequence[FullState]) -> FullState:
        """A state, or its gradients, from those of the shards."""
        rows = (
            [each.reshape(-1, self.width)[:, : self.units] for each in component]
            for component in zip(*shards, strict=True)
        )
        return FullState(*(torch.from_numpy(np.concatenate(component)) for component in rows))

    def gradients(self, total: "Gradients", g_first: Sequence[FullState]) -> tuple[Tensor, ...]:
        """Gradients of the layer's tensors, flat, from their sums over the batch and those of the shards' states."""
        n = self.units
        weight = total.weight if self.has_no_weights else unblocked(total.weight, self.inputs, n)
        loop = unblocked(total.recurrent, self.width, n)[:, :n] if total.recurrent.size else total.recurrent
        weight, bias, loop = (torch.from_numpy(values) for values in (weight, total.bias[:n], loop))
        coefficients = Coefficients(*(torch.from_numpy(values[:n]) for values in total.coefficients))
        return LayerTensors(weight, bias, loop, self.joined_state(g_first), coefficients).flat()


class Gradients(NamedTuple):
    """Gradients summed over time and a shard of the batch."""

    weight: np.ndarray
    bias: np.ndarray
    recurrent: np.ndarray
    coefficients: Coefficients

    @classmethod
    def zero(cls, layer: PackedLayer) -> "Gradients":
        sizes = (layer.weight.size, layer.width, layer.recurrent.size, *(layer.width,) * len(Coefficients._fields))
        weight, bias, recurrent, *coefficients = (aligned_zeros(size, layer.bias.dtype) for size in sizes)
        return cls(weight, bias, recurrent, Coefficients(*coefficients))

    def add(self, other: "Gradients") -> None:
        """Add those of another shard."""
        for mine, theirs in zip((*self[:3], *self.coefficients), (*other[:3], *other.coefficients), strict=True):
            mine += theirs


def widened(values: np.ndarray, width: int, fill: float = 0.0) -> np.ndarray:
    """`values`, then `fill` up to the width."""
    out = np.full(width, fill, values.dtype)
    out[: len(values)] = values
    return out


def _square(matrix: np.ndarray, width: int) -> np.ndarray:
    """[neurons, neurons] with zeros up to the width; nothing stays nothing."""
    missing = width - len(matrix) if matrix.size else 0
    return np.pad(matrix, (0, missing))
