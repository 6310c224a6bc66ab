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
from snn_bp.kernels import first_state, parameters_of, use_backend
from snn_bp.kernels.reference import Spike, torch_advance, torch_slope, whole
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
    theta: Tensor
    inputs: list[Tensor] = field(default_factory=list)  # synaptic input, recurrence included
    potentials: list[Tensor] = field(default_factory=list)  # before reset
    spikes: list[Tensor] = field(default_factory=list)  # empty where the neuron does not spike
    distances: list[Tensor] = field(default_factory=list)  # the potential's from the threshold in force
    resets: list[Tensor] = field(default_factory=list)  # spikes that reset, where the reset is detached

    @property
    def out(self) -> Tensor:
        """What goes on to the next layer, `[time, batch, *neurons]`."""
        return torch.stack(self.spikes if is_spiking(self.neurons.neuron) else self.potentials)


@dataclass(frozen=True)
class Variant:
    """What is different from the network itself."""

    smooth: bool = False  # spikes are the surrogate's integral
    detach: bool | None = None  # in place of every neuron's own detach_reset
    truncate: int | None = None  # cut the gradient through time every so many steps
    held: Sequence[Steps] | None = None  # a run whose detached resets and surrogate scales are kept: they are constants


def unroll(
    network: Network,
    x: Tensor,
    state: NetworkState | None = None,
    variant: Variant = Variant(),
) -> tuple[Tensor, list[Steps]]:
    """The output on `x` `[time, batch, ...]` from `state` (None: rest), and the steps of each layer of neurons."""
    check_whole("trace", network, Network)
    layers: list[Steps] = []
    states = iter(state or ())

    def run(row: list[LayerAt], x: Tensor) -> Tensor:
        for part in row:
            if part.role == "neurons":
                layers.append(_steps(network, part, x, next(states, None), variant, len(layers)))
                x = layers[-1].out
            elif part.role == "joint":
                x = joined(network, part, x, run)
            elif part.role == "stateful":
                x, _ = part.layer(x, next(states, None))
            else:
                x = apply_stateless(part.layer, x)
        return x

    with use_backend("reference"):
        return run(parts_of(network), x), layers


def check_asked(asker: str, network: Network, inputs: Any, loss: object) -> None:
    """Raise unless `asker` is given a network, a batch that it takes, and a loss that can be called."""
    check_network(asker, network)
    if not isinstance(inputs, Tensor):
        network.check_input(inputs)  # raises; of a tensor, precision is the asker's own business
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
    if variant.detach is not None and hasattr(neuron, "detach_reset"):
        neuron = replace(neuron, detach_reset=variant.detach)  # type: ignore[type-var]
    equation, values = neuron.equation, parameters_of(neuron, x, neurons.parameters_now()).values()
    steps = Steps(part.path, neurons, theta=x.new_ones(()))
    held = variant.held[count] if variant.held else None
    surrogate = neurons.surrogate
    slope_at = torch_slope(surrogate)

    def spike(u: Tensor, theta: Tensor) -> Tensor:
        steps.distances.append(u)
        steps.theta = theta.detach()
        scale = (held or steps).theta
        return SmoothSpike.apply(u, scale, surrogate) if variant.smooth else Spike.apply(u, scale, slope_at)  # type: ignore[return-value]

    def stop(s: Tensor) -> Tensor:
        steps.resets.append(s.detach())
        return steps.resets[-1] if held is None else held.resets[len(steps.resets) - 1]

    advance = torch_advance(equation, surrogate, spike=spike, detach=stop)
    variables, at = first_state(neuron, x, state), equation.states.index(equation.potential)
    for step, x_t in enumerate(x.unbind(0)):
        if variant.truncate and step and step % variant.truncate == 0:
            variables = tuple(each.detach() for each in variables)
        current = x_t if recurrence is None else x_t + recurrence(variables[-1])
        variables = whole(advance(*variables, current, *values), current)
        steps.inputs.append(current)
        steps.potentials.append(variables[at])
        if equation.spiking:
            steps.spikes.append(variables[-1])
    return steps
