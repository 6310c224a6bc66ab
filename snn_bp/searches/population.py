"""Many weight vectors of one network valued on the same mini-batch.

Run together, all points share each layer's call: the weights of the first layer stand side by side over the one input,
later layers multiply in batches, and the points are folded into the batch of the neurons' kernel. With 32 points and
mini-batches of 64 on one thread that is 7 to 12 times as fast as one after the other for dense networks of up to 10,000
weights, 1.6 times for one of 75,000; the convolutions of experiments/digits.py (340,000) are slower for it.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.model.blocks import Norm, convolve, parts_of, role_of
from snn_bp.model.exact import is_exact
from snn_bp.model.network import Network
from snn_bp.model.plan import apply_stateless
from snn_bp.searches.objective import Objective, OfOutput

MAX_WEIGHTS = 100_000  # networks of up to so many weights run their points together
MAX_OUTPUTS = 2**22  # outputs of a layer at once: 16 MB in single precision


def norms_of(network: Network) -> list[Norm]:
    """The layers that keep running statistics."""
    return [layer for layer in network.modules() if role_of(layer) == "norm"]  # type: ignore[misc]


def load_point(network: Network, point: Tensor) -> None:
    """Put a vector of all parameters into the network."""
    with torch.no_grad():
        for weight, piece in zip(network.parameters(), _pieces(network, point[None]), strict=True):
            weight.copy_(piece[0])


@torch.no_grad()
def value_points(network: Network, points: Tensor, objective: Objective, x: Tensor, targets: Tensor) -> Tensor:
    """The objective of each row of `points`, all of the network's parameters; leaves the network with any of them.

    Dropout is off; norms take the statistics of the mini-batch, as in training.
    """
    network.eval()
    for norm in norms_of(network):
        norm.train()
    values = []
    if isinstance(objective, OfOutput) and runs_together(network):
        at_once = max(1, MAX_OUTPUTS // (x.shape[0] * x.shape[1] * max(math.prod(shape) for shape in network.shapes)))
        for some in points.split(at_once):
            values += [objective.of(network, *ran, targets) for ran in run_together(network, some, x)]
        return torch.stack(values).float().cpu()
    for point in points:
        load_point(network, point)
        values.append(float(objective(network, x, targets)))
    return torch.tensor(values)


def runs_together(network: Network) -> bool:
    """Whether points run together: the network is small, not of the chip's numbers, and of layers that are known.

    Recurrence is not, nor neurons or delays that learn, nor layers that share weights.
    """
    weights = list(network.parameters())
    small = sum(weight.numel() for weight in weights) <= MAX_WEIGHTS
    unshared = len(weights) == sum(1 for layer in network.layers for _ in layer.parameters())
    plain = all(
        (part.role in ("weights", "norm") and not hasattr(part.layer, "raw")) or not list(part.layer.parameters())
        for part in parts_of(network)
    )
    return small and unshared and plain and network.floats is network and all(map(is_exact, network.layers))


def run_together(network: Network, points: Tensor, x: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """For each row of `points` what `network.rates(x)` gives, output and means, up to the order of sums."""
    pieces, batch = iter(_pieces(network, points)), x.shape[1]
    x = x[:, None]  # [time, points, batch, ...]; one point while nothing has differed between them
    means: list[Tensor] = []
    parts = parts_of(network)
    for part in parts:
        weights = [next(pieces) for _ in part.layer.parameters()]
        if part.role == "weights":
            x = _summed(part.layer, x, *weights)
        elif part.role == "norm":
            x = _normed(part.layer, x.expand(-1, len(points), *x.shape[2:]), *weights)
        else:
            rows = x.flatten(1, 2)
            rows = part.layer(rows, None)[0] if part.role == "neurons" else apply_stateless(part.layer, rows)
            x = rows.unflatten(1, (-1, batch))
        if part.role == "neurons":
            means.append(x.mean((0, 2)).expand(len(points), *x.shape[3:]))
    x = x.expand(-1, len(points), *x.shape[2:])
    hidden = sum(part.role == "neurons" for part in parts[:-1])
    for index in range(len(points)):
        yield x[:, index], [mean[index] for mean in means[:hidden]]


def _pieces(network: Network, points: Tensor) -> list[Tensor]:
    """Each parameter of all points, `[points, *shape]`."""
    weights = list(network.parameters())
    rows = points.split([weight.numel() for weight in weights], dim=1)
    return [row.unflatten(1, weight.shape) for row, weight in zip(rows, weights, strict=True)]


def _summed(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The weighted sum of each point, dense or a convolution."""
    if weight.dim() > 3:
        return _convolved(layer, x.expand(-1, len(weight), *x.shape[2:]), weight, bias)
    if x.shape[1] == 1:
        out = torch.einsum("tbi,poi->tpbo", x[:, 0], weight)
    else:
        out = torch.einsum("tpbi,poi->tpbo", x, weight)
    return out if bias is None else out + bias[:, None]


def _convolved(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    side_by_side = x.transpose(1, 2).flatten(2, 3)  # [time, batch, points * channels, ...]
    biases, groups = None if bias is None else bias.flatten(), int(layer.groups) * len(weight)  # type: ignore[arg-type]
    out = convolve(layer, side_by_side.flatten(0, 1), weight.flatten(0, 1), biases, groups=groups)
    return out.unflatten(0, side_by_side.shape[:2]).unflatten(2, (len(weight), -1)).transpose(1, 2)


def _normed(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    side_by_side = x.transpose(1, 2).flatten(2, 3)
    rows = side_by_side.flatten(0, 1)
    out = F.batch_norm(rows, None, None, weight.flatten(), bias.flatten(), training=True, eps=layer.eps)
    return out.unflatten(0, side_by_side.shape[:2]).unflatten(2, (len(weight), -1)).transpose(1, 2)
