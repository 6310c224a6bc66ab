"""Numbers of a NIR file on their way into a network: shapes, coefficients, and weights to the last bit."""

from typing import Any

import numpy as np
import torch
from torch import nn

from snn_bp.errors import SnnError
from snn_bp.exchange.nir_file import CONTRACT
from snn_bp.exchange.nir_node import Node
from snn_bp.model.layers import Shape


def shape_of(node: Node) -> Shape:
    """The shape of an Input or Output."""
    value = node.numbers("shape").ravel()
    return node.whole("shape", value.size)


def decay_of(node: Node, value: Any, shape: Shape) -> np.ndarray:
    """A coefficient of the contract for each neuron."""
    try:
        array = np.asarray(value)
        return np.broadcast_to(array.astype(np.float64, casting="safe"), shape)
    except (TypeError, ValueError, OverflowError):
        raise node.refuse("the contract of snn_bp in the file has no numbers for it: the file was changed.") from None


def simple(values: np.ndarray) -> Any:
    """One number where all are the same, else one for each neuron."""
    return float(values.flat[0]) if (values == values.flat[0]).all() else values.astype(np.float64).tolist()


def off_by(node: Node, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How many bits the rounded weights of our file are off, from the node's metadata."""
    found = {name: node.metadata.get(f"{CONTRACT}_{name}_off") for name in weights}
    for name, off in found.items():
        if off is not None and (off.shape != weights[name].shape or np.abs(off).max() > 2):
            raise node.refuse(f"the metadata of snn_bp does not fit its {name}: the file was changed.")
    return {name: off.astype(np.int32) for name, off in found.items() if off is not None}


def load(layer: nn.Module, arrays: dict[str, np.ndarray], off: dict[str, np.ndarray]) -> None:
    """Put weights into a layer in single precision, those of our file to the last bit."""
    target = getattr(layer, "recurrence", None) or layer
    for name, array in arrays.items():
        single = array.astype(np.float32)
        if name in off:
            single = (single.view(np.int32) + off[name]).view(np.float32)
        if not np.isfinite(single).all():
            raise SnnError(f"a {name} of {list(array.shape)} is beyond single precision once its gain is in it.")
        getattr(target, name).copy_(torch.from_numpy(single))
