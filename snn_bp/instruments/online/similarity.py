"""How far the gradient of a local rule is from that of backpropagation through time."""

from collections.abc import Mapping

import torch
from torch import Tensor

from snn_bp.instruments.online.instant import Error, objective
from snn_bp.instruments.similarity import Similarity, similarity_by_layer
from snn_bp.model.losses import Loss
from snn_bp.model.network import Network


def compare_to_bptt(
    network: Network, x: Tensor, targets: Tensor, loss: Loss, gradients: Mapping[str, Tensor], *,
    error: Error = "step",
) -> dict[str, Similarity]:  # fmt: skip
    """By the layers' names: `gradients` beside those of BPTT of `objective(out, targets, loss, error)`.

    `gradients` is what `ottt` or `eprop` gave on the same batch, or any other under the names of the parameters.
    """
    weights = {name: weight for name, weight in network.named_parameters() if name in gradients}
    wanted = torch.autograd.grad(objective(network(x), targets, loss, error), list(weights.values()))
    return similarity_by_layer(network, gradients, dict(zip(weights, wanted, strict=True)))
