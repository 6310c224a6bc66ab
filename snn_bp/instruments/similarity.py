"""How one gradient lies to another: layer by layer, all parameters of a layer together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snn_bp.model.blocks import every_part, own_weights, parts_of
from snn_bp.model.network import Network


@dataclass(frozen=True)
class Similarity:
    """Direction and size of a gradient beside another: 1 and 1 where they are equal."""

    cosine: float  # NaN where one is zero
    norm_ratio: float  # above 1: longer than the other; NaN where the other is zero

    def __str__(self) -> str:
        return f"{self.cosine:.4f}, {self.norm_ratio:.3g}"


def similarity(mine: Sequence[Tensor], other: Sequence[Tensor]) -> Similarity:
    """Of two gradients of the same parameters, each taken as one vector."""
    a, b = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (mine, other))
    sizes = float(a.norm()), float(b.norm())
    cosine = float(a @ b) / (sizes[0] * sizes[1]) if all(sizes) else math.nan
    return Similarity(cosine, sizes[0] / sizes[1] if sizes[1] else math.nan)


def similarity_by_layer(
    network: Network, mine: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> dict[str, Similarity]:  # fmt: skip
    """For each layer with parameters among `mine`; both gradients go by the names of `network.named_parameters()`."""
    names = {id(weight): name for name, weight in network.named_parameters()}  # layers may share weights
    rows = {}
    for part in every_part(parts_of(network)):
        here = [name for weight in own_weights(part).values() if (name := names[id(weight)]) in mine]
        if here:
            rows[network.name(part.path)] = similarity([mine[name] for name in here], [other[name] for name in here])
    return rows
