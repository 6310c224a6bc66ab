"""How alive neurons are: what counts as silent, as saturated, and as within reach of the threshold.

`layers.jsonl`, the doctor, the pictures and the page all take these figures from here.
"""

import torch
from torch import Tensor

from snn_bp.kernels import parameters_of
from snn_bp.kernels.reference import torch_slope
from snn_bp.model.modules import Neurons
from snn_bp.neurons import has_adaptation

SATURATED = 0.95  # of the steps: from here on a neuron says nothing of its input
WINDOW = 0.1  # of the surrogate's height: where it is lower, a spike counts as out of reach


def silent_share(rates: Tensor) -> float:
    """Share of neurons that never fire; `rates` in spikes per step."""
    return float((rates == 0).float().mean())


def saturated_share(rates: Tensor) -> float:
    """Share of neurons that fire in 95 % of the steps or more."""
    return float((rates >= SATURATED).float().mean())


def window_share(slopes: Tensor, height: Tensor) -> float:
    """Share of neurons and steps whose surrogate `slopes` lie above a tenth of its `height` at threshold."""
    return float((slopes > WINDOW * height).float().mean())


def slopes_and_height(neurons: Neurons, distances: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The surrogate's derivative at each distance from threshold, and at threshold."""
    slope_at = torch_slope(neurons.surrogate)
    return slope_at(distances, theta), slope_at(torch.zeros_like(theta), theta)


def threshold_distances(neurons: Neurons, potentials: Tensor, spikes: Tensor) -> tuple[Tensor, Tensor]:
    """`v - theta - kappa * a` of every step of a run from rest, and `theta`; learned parameters as they are now.

    The adaptation trace `a` follows from the spikes `[time, batch, *neurons]`, as in `equations.advance`.
    """
    *_, rho, kappa, theta = parameters_of(neurons.neuron, potentials, neurons.parameters_now())
    if not has_adaptation(neurons.neuron):
        return potentials - theta, theta
    trace, distances = torch.zeros_like(potentials[0]), []
    before = torch.cat((torch.zeros_like(spikes[:1]), spikes[:-1])).to(potentials.dtype)
    for v, s in zip(potentials, before, strict=True):
        trace = rho * trace + s
        distances.append(v - theta - kappa * trace)
    return torch.stack(distances), theta
