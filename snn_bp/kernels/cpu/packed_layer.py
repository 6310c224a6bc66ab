"""A dense layer and its neurons as the kernels want it, and the gradients of its tensors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from snn_bp.equations.derive import Equation
from snn_bp.kernels.cpu.aligned import aligned_zeros
from snn_bp.kernels.cpu.compile import array
from snn_bp.kernels.cpu.vectors import blocked, padded, panels, unblocked
from snn_bp.kernels.expand import Form
from snn_bp.surrogates import Surrogate

Parts: TypeAlias = tuple[Any, ...]  # the parts of a state, or parameters, in the order of the equation


class LayerTensors(NamedTuple):
    """The tensors of one dense layer and its neurons, or their gradients."""

    weight: Any  # [units, inputs]; None, of the first layer: the input is the weighted sum itself
    bias: Any  # [units]
    recurrent: Any  # [units, units]
    state: Parts | None  # [batch, units] each; None is rest
    values: Parts  # the parameters': scalars or [units]

    def flat(self, equation: Equation) -> tuple[Any, ...]:
        """All of them in a row; `from_flat` reads it."""
        return (*self[:3], *(self.state or (None,) * len(equation.full)), *self.values)

    @classmethod
    def from_flat(cls, flat: Iterator[Any], equation: Equation) -> "LayerTensors":
        """The tensors next in the row that `flat` makes of them."""
        weight, bias, recurrent = islice(flat, 3)
        state, values = (tuple(islice(flat, len(names))) for names in (equation.full, equation.parameters))
        return cls(weight, bias, recurrent, None if state[0] is None else state, values)


@dataclass(frozen=True, kw_only=True)
class PackedLayer:
    """A layer as the kernels want it: flat, rows of weights padded to whole vectors."""

    form: Form
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
    state: Parts | None
    values: Parts  # scalars if uniform, else [width] each
    uniform: bool

    @classmethod
    def of(
        cls, equation: Equation, surrogate: Surrogate, x: Tensor, tensors: LayerTensors, *, back: bool
    ) -> "PackedLayer":
        weight, bias, recurrent, state, values = tensors
        units, inputs = (x.shape[2], padded(x.shape[2])) if weight is None else weight.shape
        width, dtype = padded(units), array(x[:0] if weight is None else weight[:0]).dtype
        nothing = np.empty((0, 0), dtype)
        rows, loops = (nothing if matrix is None else array(matrix) for matrix in (weight, recurrent))
        learned = tuple(name for name, value in zip(equation.parameters, values, strict=True) if value.requires_grad)
        boxed = equation.binary and surrogate.recorded.is_box(surrogate.slope)
        boxed = boxed and not equation.saved(learned, boxed=True)
        uniform = all(value.dim() == 0 for value in values)
        return cls(
            form=Form(equation, learned, equation.saved(learned, boxed=boxed), boxed),
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
            state=None if state is None else tuple(map(array, state)),
            values=tuple(
                array(value)[()]
                if uniform
                else widened(np.broadcast_to(array(value), (units,)), width, array(value).flat[0])
                for value in values
            ),
            uniform=uniform,
        )

    @property
    def equation(self) -> Equation:
        """What the neurons do in a step."""
        return self.form.equation

    @property
    def is_windowed(self) -> bool:
        """Whether an error at its spikes goes no further where the surrogate is zero, as some are nearly everywhere."""
        return self.equation.binary and self.surrogate.recorded.is_compact

    def padded_state(self, state: Sequence[np.ndarray | None], samples: slice) -> Parts:
        """These samples of a state, or of its gradients, `width` numbers to a row, flat; zeros for what is None."""
        rows, dtype = samples.stop - samples.start, self.bias.dtype
        padded_rows = [aligned_zeros(rows * self.width, dtype).reshape(rows, self.width) for _ in state]
        for component, values in zip(padded_rows, state, strict=True):
            if values is not None:
                component[:, : self.units] = values[samples]
        return tuple(component.reshape(-1) for component in padded_rows)

    def joined_state(self, shards: Sequence[Parts]) -> Parts:
        """A state, or its gradients, from those of the shards."""
        rows = (
            [each.reshape(-1, self.width)[:, : self.units] for each in component]
            for component in zip(*shards, strict=True)
        )
        return tuple(torch.from_numpy(np.concatenate(component)) for component in rows)

    def gradients(self, total: "Gradients", g_first: Sequence[Parts]) -> tuple[Tensor, ...]:
        """Gradients of the layer's tensors, flat, from their sums over the batch and those of the shards' states."""
        n = self.units
        weight = total.weight if self.has_no_weights else unblocked(total.weight, self.inputs, n)
        loop = unblocked(total.recurrent, self.width, n)[:, :n] if total.recurrent.size else total.recurrent
        weight, bias, loop = (torch.from_numpy(values) for values in (weight, total.bias[:n], loop))
        learned = {
            name: torch.from_numpy(part[:n]) for name, part in zip(self.form.learned, total.learned, strict=True)
        }
        values = tuple(learned.get(name) for name in self.equation.parameters)
        return LayerTensors(weight, bias, loop, self.joined_state(g_first), values).flat(self.equation)


class Gradients(NamedTuple):
    """Gradients summed over time and a shard of the batch."""

    weight: np.ndarray
    bias: np.ndarray
    recurrent: np.ndarray
    learned: Parts  # a gradient for each parameter that learns

    @classmethod
    def zero(cls, layer: PackedLayer) -> "Gradients":
        sizes = (layer.weight.size, layer.width, layer.recurrent.size, *(layer.width,) * len(layer.form.learned))
        weight, bias, recurrent, *learned = (aligned_zeros(size, layer.bias.dtype) for size in sizes)
        return cls(weight, bias, recurrent, tuple(learned))

    def add(self, other: "Gradients") -> None:
        """Add those of another shard."""
        for mine, theirs in zip((*self[:3], *self.learned), (*other[:3], *other.learned), strict=True):
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
