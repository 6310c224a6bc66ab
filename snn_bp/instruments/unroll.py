"""A network in the torch reference with every time step of every neuron in sight of autograd.

The same equation runs with a hard spike, differentiated by the surrogate, or with a smooth one, the surrogate's own
integral, whose derivative is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from snn_bp.errors import SnnError, shown
from snn_bp.instruments.smooth import SmoothSpike
from snn_bp.kernels import check_finite, first_state, parameters_of, use_backend
from snn_bp.kernels.reference import Spike, as_tensors, torch_advance, torch_slope
from snn_bp.model.activity import one_scale
from snn_bp.model.blocks import LayerAt, Path, joined, parts_of
from snn_bp.model.exact import check_exact, check_whole
from snn_bp.model.modules import Neurons
from snn_bp.model.network import Network, NetworkState, check_network, deep_copy
from snn_bp.model.plan import apply_stateless
from snn_bp.neurons import State, is_spiking


@dataclass
class Steps:
    """One layer of neurons, step by step: nodes of the graph, each `[batch, *neurons]`."""

    path: Path  # the layer's in the network
    neurons: Neurons
    thresholds: int  # how many a step compares with; 0: the neuron does not spike
    inputs: list[Tensor] = field(default_factory=list)  # synaptic input, recurrence included
    potentials: list[Tensor] = field(default_factory=list)  # before reset
    spikes: list[Tensor] = field(default_factory=list)  # empty where the neuron does not spike
    every: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # distance and scale of each spike of each step
    constants: list[Tensor] = field(default_factory=list)  # what the step detaches, as the spikes of a detached reset
    conditions: list[Tensor] = field(default_factory=list)  # which way each of a smooth network's steps went

    @property
    def out(self) -> Tensor:
        """What goes on to the next layer, `[time, batch, *neurons]`."""
        return torch.stack(self.spikes if is_spiking(self.neurons.neuron) else self.potentials)

    @property
    def distances(self) -> list[Tensor]:
        """How far from its first threshold the neuron is at every step; empty where it does not spike."""
        return [distance for distance, _ in self.every[:: self.thresholds or 1]]

    @property
    def scale(self) -> Tensor:
        """What the distances are counted in: for all steps, or `[time, ...]`; 1 where the neuron does not spike."""
        scales = [scale for _, scale in self.every[:: self.thresholds or 1]]
        return one_scale(scales) if scales else self.potentials[0].new_ones(())

    @property
    def by_threshold(self) -> list[tuple[Tensor, Tensor]]:
        """Distances `[time, ...]` and scale of each threshold."""
        found = []
        for first in range(self.thresholds):
            distances, scales = zip(*self.every[first :: self.thresholds], strict=True)
            found.append((torch.stack(distances).detach(), one_scale(list(scales))))
        return found

    @property
    def nodes(self) -> list[Tensor]:
        """Where a step's error is read: the potential; or the input, where the potential is not what fires."""
        equation = self.neurons.neuron.equation
        fires = not equation.spiking or (equation.refires and equation.potential in equation.fires_from)
        return self.potentials if fires else self.inputs


@dataclass(frozen=True)
class Variant:
    """What is different from the network itself."""

    smooth: bool = False  # spikes are the surrogate's integral
    detach: bool | None = None  # in place of every neuron's own detach_reset; False: what a step detaches, too, is not
    truncate: int | None = None  # cut the gradient through time every so many steps
    held: Sequence[Steps] | None = None  # a run whose detached values and surrogate scales are kept: they are constants


def unroll(
    network: Network,
    x: Tensor,
    state: NetworkState | None = None,
    variant: Variant = Variant(),
) -> tuple[Tensor, list[Steps]]:
    """The output on `x` `[time, batch, ...]` from `state` (None: rest), and the steps of each layer of neurons."""
    check_whole("trace", network, Network)
    layers: list[Steps] = []
    states = network._states(state, parts_of(network))

    def run(row: list[LayerAt], x: Tensor) -> Tensor:
        for part in row:
            if part.role == "neurons":
                layers.append(_steps(network, part, x, next(states), variant, len(layers)))
                x = layers[-1].out
            elif part.role == "joint":
                x = joined(network, part, x, run)
            elif part.role == "stateful":
                x, _ = part.layer(x, next(states))
            else:
                x = apply_stateless(part.layer, x)
        return x

    with use_backend("reference"):
        return run(parts_of(network), x), layers


def check_asked(asker: str, network: Network, inputs: Any, loss: object) -> None:
    """Raise unless `asker` is given a network, a batch that it takes, and a loss that can be called."""
    check_network(asker, network)
    floats = isinstance(inputs, Tensor) and inputs.is_floating_point()  # their precision is the asker's own business
    network.check_input(inputs.to(next(network.parameters(), inputs).dtype) if floats else inputs)
    check_finite(asker, inputs)
    if not callable(loss) or isinstance(loss, type):
        raise SnnError(f"{asker}: the loss should be one, as CountCrossEntropy(), found {shown(loss)}.")


def copied(network: Network, *, double: bool = False) -> Network:
    """A copy to work on: the network's gradients, statistics and mode stay as they are.

    Of a network for a chip it is the float network with the same weights.
    """
    network = deep_copy(network.floats)
    network.zero_grad(set_to_none=True)
    for weight in network.parameters():
        weight.requires_grad_()
    return network.double() if double else network


def _steps(network: Network, part: LayerAt, x: Tensor, state: State | None, variant: Variant, count: int) -> Steps:
    check_exact("trace", network.name(part.path), part.layer)
    neurons: Neurons = part.layer  # type: ignore[assignment]
    recurrence = neurons.recurrence
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    neuron = neurons.neuron
    if variant.detach is not None and "detach_reset" in type(neuron).kind.choices:
        neuron = replace(neuron, detach_reset=variant.detach)  # type: ignore[type-var]
    equation, values = neuron.equation, parameters_of(neuron, x, neurons.parameters_now()).values()
    steps = Steps(part.path, neurons, thresholds=len(equation.distances))
    held = variant.held[count] if variant.held else None
    surrogate = neurons.surrogate
    slope_at = torch_slope(surrogate)

    def spike(u: Tensor, scale: Tensor) -> Tensor:
        steps.every.append((u if u.shape == x.shape[1:] else u.expand(x.shape[1:]), scale.detach()))
        scale = (held or steps).every[len(steps.every) - 1][1]
        return SmoothSpike.apply(u, scale, surrogate) if variant.smooth else Spike.apply(u, scale, slope_at)  # type: ignore[return-value]

    def stop(value: Tensor) -> Tensor:
        if variant.detach is False:
            return value
        steps.constants.append(value.detach())
        return (held or steps).constants[len(steps.constants) - 1]

    seen = steps.conditions.append if variant.smooth else None
    advance = torch_advance(equation, surrogate, spike=spike, detach=stop, seen=seen)
    variables, at = first_state(neuron, x, state), equation.states.index(equation.potential)
    for step, x_t in enumerate(x.unbind(0)):
        if variant.truncate and step and step % variant.truncate == 0:
            variables = tuple(each.detach() for each in variables)
        current = x_t if recurrence is None else x_t + recurrence(variables[-1])
        variables = as_tensors(advance(*variables, current, *values), current)
        steps.inputs.append(current)
        steps.potentials.append(variables[at])
        if equation.spiking:
            steps.spikes.append(variables[-1])
    return steps
