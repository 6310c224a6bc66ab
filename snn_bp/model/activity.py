"""How alive neurons are: what counts as silent, as saturated, and as within reach of the threshold.

`layers.jsonl`, the doctor, the pictures and the page all take these figures from here.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from snn_bp.equations.nodes import ordered
from snn_bp.kernels import first_state, parameters_of
from snn_bp.kernels.reference import as_tensors, torch_advance, torch_slope
from snn_bp.model.modules import Neurons
from snn_bp.neurons import Neuron, counts_spikes, has_adaptation, is_leaky
from snn_bp.surrogates import Surrogate

SATURATED = 0.95  # a neuron that fires in more of its steps says nothing of its input
WINDOW = 0.1  # where the surrogate is lower than so much of its height, a spike counts as out of reach


class Activity(NamedTuple):
    """How alive a layer of spiking neurons is: a mean in spikes per neuron and step, and fractions."""

    rate: float
    silent: float  # neurons that never fire
    saturated: float  # neurons that fire in 95 % of the steps or more
    window: float  # neurons and steps within the surrogate's window, seen from the threshold in force

    @classmethod
    def of(cls, rates: Tensor, slopes: Tensor, height: Tensor, *, fired: Tensor | None = None) -> "Activity":
        """From spikes per step of each neuron, and the surrogate's derivative at every step and at its largest.

        `fired`: the part of the steps in which each neuron fires, where it may fire several times in one.
        """
        fired = rates if fired is None else fired
        saturated = float((fired >= SATURATED).float().mean())
        window = float(in_window(slopes, height).float().mean())
        return cls(float(rates.mean()), silent_fraction(fired), saturated, window)


def spikes_in(neuron: Neuron, out: Tensor) -> Tensor:
    """How many spikes an output stands for: of spikes that have a size, one for each output that is not 0."""
    return out if counts_spikes(neuron) else (out != 0).to(out.dtype)


def silent_fraction(rates: Tensor) -> float:
    """The fraction of neurons that never fire."""
    return float((rates == 0).float().mean())


def in_window(slopes: Tensor, height: Tensor) -> Tensor:
    """Where the surrogate's derivative is above a tenth of its height."""
    return slopes > WINDOW * height


def slopes_and_height(neurons: Neurons, distances: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The surrogate's derivative at each distance from threshold, and its height.

    Where the scale `theta` itself changes from step to step, the derivative is given over its height.
    """
    slopes, height = torch_slope(neurons.surrogate)(distances, theta), height_of(neurons.surrogate, theta)
    return (slopes / height, theta.new_ones(())) if theta.dim() == distances.dim() else (slopes, height)


def height_of(surrogate: Surrogate, theta: Tensor) -> Tensor:
    """The surrogate's derivative where it is largest: at threshold, or elsewhere for one of the user's own."""
    unit = theta if surrogate.per == "threshold" else torch.ones_like(theta)
    return torch_slope(surrogate)(surrogate.peak * unit, theta)


def threshold_name(neuron: Neuron) -> str | None:
    """The parameter that is the neuron's threshold: what its first spike takes off, or is counted in."""
    equation, kind = neuron.equation, type(neuron).kind
    spikes = [node for node in ordered([*equation.new, *filter(None, [equation.out])]) if node.op == "spike"]
    if not spikes:
        return None
    distance, scale = spikes[0].args
    taken = []
    while distance.op in ("+", "-"):
        taken += [distance.args[1].name] * (distance.op == "-")
        distance = distance.args[0]
    wanted = [scale.name] if scale.name and scale.name in taken else [*taken, scale.name]
    found = [name for name in wanted if name in equation.parameters]
    return next((name for name in kind.numbers if kind.symbol(name) in found[:1]), None)


def one_scale(scales: list[Tensor]) -> Tensor:
    """What the distances of several steps are counted in: one value for all of them, or `[time, ...]`."""
    first = scales[0]
    same = all(each.data_ptr() == first.data_ptr() or torch.equal(each, first) for each in scales)
    return first if same else torch.stack(scales)


def threshold_distances(neurons: Neurons, x: Tensor, potentials: Tensor, spikes: Tensor) -> tuple[Tensor, Tensor]:
    """How far from firing neurons are at every step of a run from rest on `x`, and the scale of that; learned
    parameters as they are now.

    In the leaky family it is `v - theta - kappa * a`, and `theta`; `a` follows from the spikes `[time, batch,
    *neurons]`. Other neurons run once more, step by step.
    """
    parameters = parameters_of(neurons.neuron, potentials, neurons.parameters_now())
    if not is_leaky(neurons.neuron):
        return _distances(neurons, x.to(potentials.dtype), tuple(parameters.values()))
    theta = parameters["theta"]
    if not has_adaptation(neurons.neuron):
        return potentials - theta, theta
    rho, kappa = parameters["rho"], parameters["kappa"]
    trace, distances = torch.zeros_like(potentials[0]), torch.empty_like(potentials)
    for t, v in enumerate(potentials):
        if t:
            trace = rho * trace + spikes[t - 1].to(potentials.dtype)
        distances[t] = v - theta - kappa * trace
    return distances, theta


def _distances(neurons: Neurons, x: Tensor, values: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The distances from the first threshold of a neuron, as its own equation says them, and their scale."""
    found: list[tuple[Tensor, Tensor]] = []

    def spike(u: Tensor, scale: Tensor) -> Tensor:
        found.append((u, scale))
        return (u > 0).to(u.dtype)

    neuron, recurrence = neurons.neuron, neurons.recurrence
    advance, state = torch_advance(neuron.equation, neurons.surrogate, spike=spike), first_state(neuron, x, None)
    distances, scales = torch.empty_like(x), []
    for t, x_t in enumerate(x.unbind(0)):
        current = x_t if recurrence is None else x_t + recurrence(state[-1])
        found.clear()
        state = as_tensors(advance(*state, current, *values), current)
        distances[t] = found[0][0]
        scales.append(found[0][1])
    return distances, one_scale(scales)
