"""Slices of the loss over the weights, along one or two directions."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from snn_bp.errors import SnnError, check_flag, check_number, check_seed
from snn_bp.instruments.unroll import Variant, check_asked, copied, unroll
from snn_bp.model.losses import Loss, loss_of
from snn_bp.model.network import Network, deep_copy

Direction = Mapping[str, Tensor]  # a tensor for each parameter that moves, under its name


class Slice(NamedTuple):
    """Losses at weights + a * direction (+ b * second direction), for each a (and b) of `grid`."""

    grid: Tensor  # [points], from -span to span
    losses: Tensor  # [points], or [points, points]: the first direction along the first axis
    directions: tuple[Direction, ...]


def loss_slice(
    network: Network, x: Tensor, targets: Tensor, loss: Loss, *,
    directions: int | Sequence[Direction] = 1, span: float = 1.0, points: int = 21, seed: int = 0,
    smoothed: bool = False,
) -> Slice:  # fmt: skip
    """The loss on one batch around the network's weights, which stay as they are.

    `directions`: how many random ones, 1 or 2, drawn from `seed` and normalised by `filter_normalised`; or the
    directions themselves (the gradient, for one), taken as they are. An odd number of `points` has the weights
    themselves in the middle. Norms and dropout act as in evaluation. Spikes are hard, so the loss of them is a
    staircase: ever finer grids show steps, not a slope. `smoothed` replaces spikes by the surrogate's integral: the
    network whose exact gradient the surrogate gives, resets that are detached aside.
    """
    check_asked("loss_slice", network, x, loss)
    check_seed("loss_slice: seed", seed)
    check_flag("loss_slice: smoothed", smoothed)
    check_number("loss_slice: span", span, above=0)
    check_number("loss_slice: points", points, integer=True, low=2)
    if isinstance(directions, int):
        generator = torch.Generator().manual_seed(seed)
        found = [filter_normalised(network, _random(network, generator)) for _ in range(directions)]
    else:
        found = list(directions)
    if len(found) not in (1, 2):
        raise SnnError(f"loss_slice: {len(found)} directions; a slice has 1 or 2.")
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    for direction in found:
        _check(weights, direction)
    work = (copied(network) if smoothed else deep_copy(network)).eval()
    grid = torch.linspace(-span, span, points, dtype=torch.float64)
    losses = []
    with torch.no_grad():
        for at in itertools.product(grid.tolist(), repeat=len(found)):
            for name, weight in work.named_parameters():
                moves = (distance * d[name] for distance, d in zip(at, found, strict=True) if name in d)
                weight.copy_(weights[name] + sum(moves))
            out = unroll(work, x, variant=Variant(smooth=True))[0] if smoothed else work(x)
            losses.append(float(loss_of(loss, out, targets)))
    return Slice(grid, torch.tensor(losses, dtype=torch.float64).view([points] * len(found)), tuple(found))


def filter_normalised(network: Network, direction: Direction) -> dict[str, Tensor]:
    """The direction scaled so that the part of each filter is as long as that filter's weights.

    A filter is what goes into one neuron or channel: a row of the weights. Parameters with one axis (biases, norms,
    what neurons learn) do not move. Li et al. 2018 (NeurIPS), section 4. Slices of networks of different scales can
    then be compared.
    """
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    _check(weights, direction)
    normalised, learned = {}, network.learned_by_neurons()
    for name, part in direction.items():
        if part.dim() <= 1 or name in learned:
            continue
        rows = part.flatten(1)
        scale = weights[name].flatten(1).norm(dim=1) / rows.norm(dim=1).clamp_min(torch.finfo(rows.dtype).tiny)
        normalised[name] = (rows * scale[:, None]).view_as(part)
    return normalised


def _random(network: Network, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        name: torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
        for name, weight in network.named_parameters()
    }


def _check(weights: Direction, direction: Direction) -> None:
    for name, part in direction.items():
        if name not in weights or part.shape != weights[name].shape:
            wanted = list(weights[name].shape) if name in weights else f"one of {', '.join(weights)}"
            raise SnnError(f"loss_slice: direction {name!r} of shape {list(part.shape)}, the network has {wanted}.")
