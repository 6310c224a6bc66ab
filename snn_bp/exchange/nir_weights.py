"""Weights between a network and a NIR file: rows times a gain, kernels made square, and the last bit of each number.

NIR holds groups and oblong kernels, but the check of its own library (1.0.8) counts an output by the first side alone
and the channels of one group, and refuses the file. So kernels are written square, without groups, zeros around them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from snn_bp.errors import SnnError
from snn_bp.exchange.nir_node import Node, offset_key
from snn_bp.model.blocks import Role
from snn_bp.model.layers import Shape


def row_gains(gain: np.ndarray, between: Sequence[tuple[Role, Shape]]) -> np.ndarray | None:
    """The factors of the rows (channels) of a weighted sum that give each neuron behind it its `gain` `[*neurons]`.

    `between` are the layers that lie between, role and shape of the input, in order. None where no factors do it:
    neurons that share a kernel, or a window, have different gains.
    """
    for role, shape in reversed(between):
        if role == "pool":
            channels = by_channel(gain)
            if channels is None:
                return None
            gain = np.broadcast_to(channels.reshape(-1, *[1] * (len(shape) - 1)), shape)
        else:
            gain = gain.reshape(shape)
    return by_channel(gain)


def by_channel(gain: np.ndarray) -> np.ndarray | None:
    """The one value of each channel (of each neuron of a flat layer), None where they differ within one."""
    flat = gain.reshape(gain.shape[0], -1)
    return flat[:, 0] if bool((flat == flat[:, :1]).all()) else None


def scaled(weight: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """A weight `[rows, ...]` with each row times its factor."""
    return weight * factors.reshape(-1, *[1] * (weight.ndim - 1))


def squared(
    weight: np.ndarray, groups: int, padding: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """A kernel `[out, in / groups, ...]` as `[out, in, side, ...]`, and the padding that goes with it.

    The sides should differ by even numbers: as many zeros stand on both ends.
    """
    out, each, *sides = weight.shape
    zeros = [(max(sides) - side) // 2 for side in sides]
    wide = np.pad(weight, [(0, 0), (0, 0), *((count, count) for count in zeros)])
    square = np.zeros((out, each * groups, *wide.shape[2:]), weight.dtype)
    for rows, columns in _group_slices(out, each, groups):
        square[rows, columns] = wide[rows]
    return square, tuple(pad + count * step for pad, count, step in zip(padding, zeros, dilation, strict=True))


def unsquared(square: np.ndarray, groups: int, sides: tuple[int, ...]) -> np.ndarray | None:
    """The kernel that `squared` made `square` of, None where there is none."""
    out, channels, *have = square.shape
    fits = groups > 0 and not out % groups and not channels % groups
    if not fits or not all(0 < side <= size for side, size in zip(sides, have, strict=True)):
        return None
    inner = tuple(slice((size - side) // 2, (size - side) // 2 + side) for size, side in zip(have, sides, strict=True))
    kernel = np.concatenate([square[group] for group in _group_slices(out, channels // groups, groups)])
    kernel = kernel[(slice(None), slice(None), *inner)]
    return kernel if np.count_nonzero(kernel) == np.count_nonzero(square) else None


def _group_slices(out: int, each: int, groups: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each group."""
    rows = out // groups
    return [(slice(g * rows, (g + 1) * rows), slice(g * each, (g + 1) * each)) for g in range(groups)]


def rounded(
    weights: Mapping[str, np.ndarray | None], gain: np.ndarray | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights over the gain in single precision, and by how many units in the last place each is off when read."""
    arrays, offsets = {}, {}
    for name, exact in weights.items():
        if exact is None:
            continue
        arrays[name] = (exact if gain is None else scaled(exact, 1 / gain)).astype(np.float32)
        if gain is not None:
            back = scaled(arrays[name].astype(np.float64), gain).astype(np.float32)
            offset = exact.astype(np.float32).view(np.int32) - back.view(np.int32)
            if offset.any():
                offsets[offset_key(name)] = offset.astype(np.int8)
    return arrays, offsets


def ulp_offsets(node: Node, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By how many units in the last place the weights of our file are off, from the node's metadata."""
    offsets = {name: node.metadata.get(offset_key(name)) for name in weights}
    for name, offset in offsets.items():
        if offset is not None and (offset.shape != weights[name].shape or np.abs(offset).max() > 2):
            raise node.refuse(f"the metadata of snn_bp does not fit its {name}: the file was changed.")
    return {name: offset.astype(np.int32) for name, offset in offsets.items() if offset is not None}


def load(layer: nn.Module, arrays: dict[str, np.ndarray], offsets: dict[str, np.ndarray]) -> None:
    """Put weights into a layer in single precision, those of our file to the last bit."""
    target = getattr(layer, "recurrence", None) or layer
    for name, array in arrays.items():
        single = array.astype(np.float32)
        if name in offsets:
            single = (single.view(np.int32) + offsets[name]).view(np.float32)
        if not np.isfinite(single).all():
            raise SnnError(f"a {name} of {list(array.shape)} is beyond single precision once its gain is in it.")
        getattr(target, name).copy_(torch.from_numpy(single))
