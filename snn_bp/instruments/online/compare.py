"""How far the gradient of a local rule is from that of backpropagation through time."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from snn_bp.instruments.online.instant import Error, objective
from snn_bp.model.losses import Loss
from snn_bp.model.network import Network


class Agreement(NamedTuple):
    """Of one layer's gradient, all its weights together: direction and size against the wanted one."""

    layer: str
    cosine: float
    norm_ratio: float  # above 1: longer than wanted


def compare_to_bptt(
    network: Network, x: Tensor, targets: Tensor, loss: Loss, gradients: Mapping[str, Tensor], *,
    error: Error = "step",
) -> list[Agreement]:  # fmt: skip
    """A row for each layer with weights: `gradients` against those of BPTT of `objective(out, targets, loss, error)`.

    `gradients` is what `ottt` or `eprop` gave on the same batch, or any other under the names of the parameters. Where
    one of the two is zero, the cosine is NaN.
    """
    names = list(gradients)
    weights = dict(network.named_parameters())
    wanted = torch.autograd.grad(objective(network(x), targets, loss, error), [weights[name] for name in names])
    rows = []
    for place in range(len(network.layers)):
        own = network.parameters_of(place)
        mine = [n for n, name in enumerate(names) if name in own]
        if not mine:
            continue
        got = torch.cat([gradients[names[n]].flatten() for n in mine])
        true = torch.cat([wanted[n].flatten() for n in mine])
        cosine = got @ true / (got.norm() * true.norm())
        rows.append(Agreement(network.name(place), float(cosine), float(got.norm() / true.norm())))
    return rows
