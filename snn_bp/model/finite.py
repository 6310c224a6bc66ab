"""Where a NaN or infinity first stands in a network."""

import torch
from torch import Tensor

from snn_bp.model.blocks import every_part, parts_of
from snn_bp.model.network import Network


@torch.no_grad()
def first_nonfinite(network: Network, x: Tensor) -> str | None:
    """Where a NaN or infinity first stands on the way through the network, in words; None where there is none."""
    if not torch.isfinite(x).all():
        return f"the input, at time step {_first_step(x)}"
    for part, (layer, out) in zip(every_part(parts_of(network)), network.walk(x), strict=True):
        for name, weight in layer.named_parameters():
            if not torch.isfinite(weight).all():
                return f"the {name} of {network.name(part.path)}"
        out = out[0] if isinstance(out, tuple) else out
        if not torch.isfinite(out).all():
            return f"the output of {network.name(part.path)}, at time step {_first_step(out)}"
    return None


def _first_step(x: Tensor) -> int:
    return int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
