"""Many weight vectors of one network valued on the same mini-batch.

Run together, all points share each layer's call: the weights of the first layer stand side by side over the one input,
later layers multiply in batches, and the points are folded into the batch of the neurons' kernel. With 32 points and
mini-batches of 64 on one thread that is 7 to 12 times as fast as one after the other for dense networks of up to 10,000
weights, 1.6 times for one of 75,000; the convolutions of experiments/digits.py (340,000) are slower for it.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.model.exact import is_exact
from snn_bp.model.modules import Neurons
from snn_bp.model.network import Network, has_state
from snn_bp.model.plan import apply_stateless
from snn_bp.searches.objective import Objective, OfOutput

TOGETHER = 100_000  # weights of a network up to which its points run together
VALUES = 2**22  # most outputs of a layer at once: 16 MB in single precision
Norm = nn.BatchNorm1d | nn.BatchNorm2d


def norms_of(network: Network) -> list[Norm]:
    """The layers that keep running statistics."""
    return [layer for layer in network.modules() if isinstance(layer, Norm)]


def load_point(network: Network, point: Tensor) -> None:
    """Put a vector of all parameters into the network."""
    with torch.no_grad():
        for weight, part in zip(network.parameters(), _parts(network, point[None]), strict=True):
            weight.copy_(part[0])


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
        at_once = max(1, VALUES // (x.shape[0] * x.shape[1] * max(math.prod(shape) for shape in network.shapes)))
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
    known = nn.Linear | nn.Conv1d | nn.Conv2d | Norm
    weights = list(network.parameters())
    small = sum(weight.numel() for weight in weights) <= TOGETHER
    own = len(weights) == sum(1 for layer in network.layers for _ in layer.parameters())
    plain = all(isinstance(layer, known) or not list(layer.parameters()) for layer in network.layers)
    return small and own and plain and network.floats is network and all(map(is_exact, network.layers))


def run_together(network: Network, points: Tensor, x: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """For each row of `points` what `network.rates(x)` gives, output and means, up to the order of sums."""
    parts, batch = iter(_parts(network, points)), x.shape[1]
    x = x[:, None]  # [time, points, batch, ...]; one point while nothing has differed between them
    means: list[Tensor] = []
    for layer in network.layers:
        weights = [next(parts) for _ in layer.parameters()]
        if isinstance(layer, nn.Linear):
            x = _dense(x, *weights)
        elif isinstance(layer, nn.Conv1d | nn.Conv2d):
            x = _convolved(layer, x.expand(-1, len(points), *x.shape[2:]), *weights)
        elif isinstance(layer, Norm):
            x = _normed(layer, x.expand(-1, len(points), *x.shape[2:]), *weights)
        else:
            folded = x.flatten(1, 2)
            folded = layer(folded, None)[0] if isinstance(layer, Neurons) else apply_stateless(layer, folded)
            x = folded.unflatten(1, (-1, batch))
        if isinstance(layer, Neurons):
            means.append(x.mean((0, 2)).expand(len(points), *x.shape[3:]))
    x = x.expand(-1, len(points), *x.shape[2:])
    hidden = sum(has_state(layer) for layer in network.layers[:-1])
    for place in range(len(points)):
        yield x[:, place], [mean[place] for mean in means[:hidden]]


def _parts(network: Network, points: Tensor) -> list[Tensor]:
    """Each parameter of all points, `[points, *shape]`."""
    weights = list(network.parameters())
    pieces = points.split([weight.numel() for weight in weights], dim=1)
    return [piece.unflatten(1, weight.shape) for piece, weight in zip(pieces, weights, strict=True)]


def _dense(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.shape[1] == 1:
        out = torch.einsum("tbi,poi->tpbo", x[:, 0], weight)
    else:
        out = torch.einsum("tpbi,poi->tpbo", x, weight)
    return out if bias is None else out + bias[:, None]


def _convolved(layer: nn.Conv1d | nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    convolve = F.conv1d if isinstance(layer, nn.Conv1d) else F.conv2d
    side_by_side = x.transpose(1, 2).flatten(2, 3)  # [time, batch, points * channels, ...]
    out = convolve(
        side_by_side.flatten(0, 1), weight.flatten(0, 1), None if bias is None else bias.flatten(),
        layer.stride, layer.padding, layer.dilation, layer.groups * len(weight),  # type: ignore[arg-type]
    )  # fmt: skip
    return out.unflatten(0, side_by_side.shape[:2]).unflatten(2, (len(weight), -1)).transpose(1, 2)


def _normed(layer: Norm, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    side_by_side = x.transpose(1, 2).flatten(2, 3)
    rows = side_by_side.flatten(0, 1)
    out = F.batch_norm(rows, None, None, weight.flatten(), bias.flatten(), training=True, eps=layer.eps)
    return out.unflatten(0, side_by_side.shape[:2]).unflatten(2, (len(weight), -1)).transpose(1, 2)
