"""One node of a NIR file: its fields, checked where they are asked for."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from snn_bp.errors import SnnError

Value: TypeAlias = np.ndarray | str
Edge: TypeAlias = tuple[str, str]
KEY = "snn_bp"  # where what snn_bp writes about a file stands in its metadata
UNIT_R, UNIT_GAIN = "unit-r", "jump"  # the conventions for the input gain, as the metadata names them
NEURONS = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")


@dataclass(frozen=True, eq=False)
class Node:
    """One node; fields are arrays of any shape or texts, metadata those of `snn_bp` alone."""

    name: str
    kind: str
    fields: dict[str, Value]
    metadata: dict[str, np.ndarray]

    def refuse(self, why: str) -> SnnError:
        """The error that says why this node cannot be read."""
        return SnnError(f"node {self.name!r} ({self.kind}): {why}")

    def numbers(self, name: str) -> np.ndarray:
        """A field of finite numbers."""
        value = self.fields.get(name)
        if not isinstance(value, np.ndarray) or value.size == 0 or not (np.abs(value.astype(float)) < 3e38).all():
            raise self.refuse(f"its {name} should be finite numbers, found {'none' if value is None else 'others'}.")
        return value.astype(np.float64)

    def each(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A field with a number for each neuron of `shape`."""
        value = self.numbers(name)
        if value.shape not in (shape, (1, *shape)) and value.size != 1:
            raise self.refuse(f"its {name} has the shape {list(value.shape)}, its input {list(shape)}.")
        return np.broadcast_to(value.reshape(() if value.size == 1 else shape), shape)

    def integers(self, name: str, count: int) -> tuple[int, ...]:
        """A field of `count` integers from 0 up, or one for all."""
        value = self.numbers(name).ravel()
        if value.size not in (1, count) or (value != np.trunc(value)).any() or value.min() < 0 or value.max() > 2**24:
            raise self.refuse(f"its {name} should be {count} integers from 0 up, found {value[:4].tolist()}.")
        return tuple(int(number) for number in np.broadcast_to(value, (count,)))

    def shape(self) -> tuple[int, ...]:
        """The shape of an Input or Output."""
        return self.integers("shape", self.numbers("shape").size)


def offset_key(name: str) -> str:
    """Where the metadata of a node keeps by how many units in the last place its weights `name` are off."""
    return f"{KEY}_{name}_off"


def simple(values: np.ndarray) -> Any:
    """One number where all are the same, else one for each neuron."""
    return float(values.flat[0]) if (values == values.flat[0]).all() else values.astype(np.float64).tolist()
