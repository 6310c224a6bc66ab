"""A chain of layers as one module: time folded into the batch where a layer has no state, state explicit where it has.

Nothing is held between calls. `network(x)` starts from rest; `network.run(x, state)` goes on from a state.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from snn_bp.chip.forward import run_chip
from snn_bp.chip.rules import TARGETS, Target, blocks
from snn_bp.errors import SnnError, check_choice, check_kind, check_number, check_seed, shown
from snn_bp.errors.fields import LARGEST
from snn_bp.kernels import runs_compiled, simulate
from snn_bp.kernels.around import has_hooks_on_every_module
from snn_bp.kernels.cpu.chain import Memory
from snn_bp.kernels.cpu.sparse_ops import convolve
from snn_bp.model.chains import chain_at, layer_at, run_chain, run_layer
from snn_bp.model.exact import is_exact, runs_here
from snn_bp.model.inputs import check_input, check_states
from snn_bp.model.layers import Layer, Recurrent, Shape, Spiking
from snn_bp.model.modules import Delays, DropoutOverTime, Neurons
from snn_bp.model.start import check_scaled, clear_bias, fronts, scale_weight
from snn_bp.model.stateless import apply_stateless, pool_behind, sums_of
from snn_bp.neurons import LI, Neuron, State, at_step, coefficients
from snn_bp.runtime.allocator import keep_freed_memory
from snn_bp.surrogates import ATan, Surrogate, check_surrogate

NetworkState: TypeAlias = tuple[State, ...]  # one for each layer of neurons, in order


SMALL = "As in Network((Dense(10), LIF(beta=0.9)), (700,))."


class Activity(NamedTuple):
    """What one layer of neurons did: `[time, batch, ...]` each."""

    name: str
    neuron: Neuron
    spikes: Tensor  # the output; of a neuron that does not spike, its potentials
    potentials: Tensor


class Stretch(NamedTuple):
    """Layers of a network that ran as one operation."""

    places: range
    how: str  # empty for a layer without state
    out: Tensor
    means: list[Tensor]  # of each neuron, a layer each
    states: list[State]


class Network(nn.Module):
    """The layers of `model` built for an input of `input_shape` (one time step of one sample).

    `x` is `[time, batch, *input_shape]` in floats or bytes (uint8, bool), the output `[time, batch, *output_shape]`:
    spikes, or potentials where the last neuron is an `LI`. Weights are drawn from `seed` alone. Dense layers and their
    neurons run as one event-driven operation on the CPU; with `memory="low"` it keeps no potentials and computes them
    again in the backward pass.
    """

    def __init__(
        self, model: tuple[Layer, ...], input_shape: Shape, *,
        surrogate: Surrogate | None = None, seed: int = 0, memory: Memory = "full", target: Target = "float",
    ) -> None:  # fmt: skip
        super().__init__()
        keep_freed_memory()
        check_choice("Network: memory", memory, ("full", "low"))
        if not isinstance(model, tuple | list) or not isinstance(input_shape, tuple | list):
            given = model if not isinstance(model, tuple | list) else input_shape
            raise SnnError(
                f"Network: it takes a tuple of layers and the shape of a step, found {shown(given)}. {SMALL}"
            )
        if not model:
            raise SnnError("Network: the model is empty. A small one: (Dense(10), LIF(beta=0.9)).")
        self.model, self.input_shape = tuple(model), tuple(input_shape)
        self.surrogate = ATan() if surrogate is None else surrogate
        check_surrogate(self.surrogate)
        check_seed("Network: seed", seed)
        self.memory: Memory = memory
        check_choice("Network: target", target, TARGETS)
        self.target: Target = target
        self.settled = False  # norms of a network for the chip use their running statistics while training too
        self.shapes: list[Shape] = []  # of one step, after each layer
        self.layers = nn.ModuleList()
        shape = self.input_shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for place, layer in enumerate(self.model):
                built, shape = self._build(place, layer, shape)
                self.layers.append(built)
                self.shapes.append(shape)
        self.output_shape = shape
        if target == "loihi":
            blocks(self)  # refuses what the chip cannot hold

    def forward(self, x: Tensor) -> Tensor:
        """The output of every step, from rest."""
        return self.run(x)[0]

    def run(self, x: Tensor, state: NetworkState | None = None) -> tuple[Tensor, NetworkState]:
        """The output of every step and the state after the last one; `state` is what an earlier call returned."""
        out, _, after = self.rates(x, state)
        return out, after

    def rates(self, x: Tensor, state: NetworkState | None = None) -> tuple[Tensor, list[Tensor], NetworkState]:
        """As `run`, and between its two values the mean output of each neuron of every layer but the last.

        For neurons that spike that is their rate, in spikes per step over time and batch; gradients flow through it.
        """
        x, rates, after = self._given(x), [], []
        for stretch in self._stretches(x, self._states(state)):
            x = stretch.out
            rates += stretch.means
            after += stretch.states
        hidden = sum(has_state(layer) for layer in list(self.layers)[:-1])
        return x, rates[:hidden], tuple(after)

    @torch.no_grad()
    def paths(self, x: Tensor) -> list[str]:
        """In words, how the layers run on `x` and which share of each one's input is not zero: a line an operation."""
        x, lines = self._given(x), []
        for stretch in self._stretches(x, self._states(None)):
            names = [self.name(place) for place in stretch.places]
            share = float((x != 0).float().mean())
            how = stretch.how or sums_of(self.layers[stretch.places[0]], share, x)
            lines.append(f"{' - '.join(names)}: {how}; {share:.1%} of its input is not zero")
            x = stretch.out
        return lines

    def _stretches(self, x: Tensor, given: Iterator[State | None]) -> Iterator[Stretch]:
        """The layers in stretches that run as one operation each, with what comes out of them."""
        if self.target == "loihi":
            for block, out, _, _ in run_chip(self, x):
                yield Stretch(block.places, "whole numbers, as the chip", out, [out.mean((0, 1))], [])
            return
        layers, place = list(self.layers), 0  # a slice of a ModuleList makes a new one
        while place < len(layers):
            means, states = [], []
            if blocks := chain_at(layers, place, x):
                x, means, states = run_chain(blocks, x, [next(given) for _ in blocks], memory=self.memory)
                count, how = sum(block.places for block in blocks), "one event-driven operation"
            elif (neurons := layer_at(layers, place, x)) is not None:
                x, mean, state = run_layer(neurons, x, next(given))
                means, states, count, how = [mean], [state], neurons.places, "one compiled operation"
            elif has_state(layer := layers[place]):
                x, state = layer(x, next(given))
                means = [x.mean((0, 1))] if layer is not layers[-1] else []
                states, count, how = [state], 1, "one by one"
            elif (pool := pool_behind(layers, place, x)) is not None:
                x, count, how = convolve(x.flatten(0, 1), layer, pool).unflatten(0, x.shape[:2]), 2, ""  # type: ignore[arg-type]
            else:
                x, count, how = apply_stateless(layer, x), 1, ""
            yield Stretch(range(place, place + count), how, x, means, states)
            place += count

    def observe(self, x: Tensor, state: NetworkState | None = None) -> tuple[list[Activity], NetworkState]:
        """What every layer of neurons did, potentials included; the last one's spikes are the output."""
        activities, after = [], []
        for place, (layer, out) in enumerate(self.walk(x, state, potentials=True)):
            if isinstance(out, tuple):
                activities.append(Activity(self.name(place), neuron_of(layer), out[0], out[2]))
                after.append(out[1])
        return activities, tuple(after)

    def name(self, place: int) -> str:
        """What a message calls the layer at `place`, counted from 0 along the model."""
        layer = self.layers[place]
        return f"layer {place} ({type(neuron_of(layer)).__name__ if has_state(layer) else type(layer).__name__})"

    def walk(self, x: Tensor, state: NetworkState | None = None, *, potentials: bool = False) -> Iterator[tuple]:
        """Each layer with its output; (output, state[, potentials]) where it has state."""
        x, states = self.in_floats(x), self._states(state)
        if self.target == "loihi":
            yield from self._walk_chip(x)
            return
        for place, layer in enumerate(self.layers):
            if has_state(layer):
                given = next(states)
                out = self._observed(place, x, given) if potentials else layer(x, given)
                x = out[0]
            else:
                out = x = apply_stateless(layer, x)
            yield layer, out

    def _observed(self, place: int, x: Tensor, state: State | None) -> tuple[Tensor, State, Tensor]:
        """Output, state and potentials of the neurons at `place`; of a forward of its own only where they agree."""
        layer = self.layers[place]
        assert isinstance(layer, Neurons)
        out, after, potentials = layer.observe(x, state)
        if is_exact(layer) and not has_hooks_on_every_module():
            return out, after, potentials
        ran, after = layer(x, state)  # hooks are called, and a forward of its own is the one that counts
        if ran.shape != out.shape or not torch.equal(ran, out):
            raise SnnError(
                f"network.observe: {self.name(place)} has a forward of its own, and its potentials are not those of "
                f"what it puts out. Give the class an observe(x, state) that returns output, state and potentials."
            )
        return ran, after, potentials

    def _walk_chip(self, x: Tensor) -> Iterator[tuple]:
        """As `walk`; layers without state give what they do in floats, from the spikes that reach them on the chip."""
        for block, out, potentials, grid in run_chip(self, x):
            for place in block.places[:-1]:
                layer, training = self.layers[place], self.layers[place].training
                x = apply_stateless(layer.eval(), x)  # norms have followed this input already
                layer.train(training)
                yield layer, x
            x = out
            state = State(v=potentials[-1] / grid.scale, s=out[-1])
            yield block.layer, (out, state, potentials / grid.scale)

    def _states(self, state: NetworkState | None) -> Iterator[State | None]:
        count = 0 if self.target == "loihi" else sum(has_state(layer) for layer in self.layers)
        if (
            state is not None
            and state != ()
            and (self.target == "loihi" or any(isinstance(layer, Delays) for layer in self.layers))
        ):
            what = 'target="loihi"' if self.target == "loihi" else "a Delay"
            raise SnnError(f"network.run: with {what} a recording runs whole, spikes are under way between its steps.")
        if state is not None:
            check_states(state, count)
        return iter(state) if state is not None else iter([None] * count)

    def _given(self, x: Tensor) -> Tensor:
        """The input, checked; bytes as they are where the layer that meets them looks for what is not zero."""
        self.check_input(x)
        if x.is_floating_point():
            return x
        in_bytes = x.view(torch.uint8)
        flat = (layer for layer in self.layers if type(layer) is not nn.Flatten or not is_exact(layer))
        first = next(flat, None) if self.target == "float" and runs_compiled(in_bytes) else None
        looks = first is not None and type(first) in (nn.Linear, nn.Conv2d) and runs_here(first, torch.float32)
        return in_bytes if looks and self._dtype() == torch.float32 else self.in_floats(x)

    def in_floats(self, x: Tensor) -> Tensor:
        """The input, checked, bytes turned into floats as wide as the weights."""
        self.check_input(x)
        return x if x.is_floating_point() else x.to(self._dtype())

    def _dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next((weight.dtype for weight in self.parameters()), torch.get_default_dtype())

    def check_input(self, x: Tensor) -> None:
        """Raise unless `x` is `[time, batch, *input_shape]`, in floats as wide as the weights or in bytes."""
        check_input(x, self.input_shape, next(self.parameters(), None))

    def _build(self, place: int, layer: Layer, shape: Shape) -> tuple[nn.Module, Shape]:
        if isinstance(layer, Neuron):
            layer = Spiking(layer)
        try:
            if isinstance(layer, Spiking | Recurrent):
                return layer.build(shape, self.surrogate), shape
            built = layer.build(shape)
            if isinstance(built, Delays | DropoutOverTime):
                return built, shape
            training = built.training
            with torch.no_grad():
                out = built.eval()(torch.zeros(1, *shape))  # the module itself knows its output's shape
            built.train(training)
            return built, tuple(out.shape[1:])
        except (SnnError, RuntimeError, AttributeError, TypeError, IndexError) as cause:
            raise SnnError(f"Network: layer {place} of the model, on an input of {list(shape)}: {cause}") from cause


def deep_copy(network: Network) -> Network:
    """A deep copy; weights that a pruned layer made of others in its last call are copied as numbers."""
    made = [
        value
        for layer in network.modules()
        for value in vars(layer).values()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    return copy.deepcopy(network, {id(value): value.detach().clone() for value in made})


@torch.no_grad()
def first_nonfinite(network: Network, x: Tensor) -> str | None:
    """Where a NaN or infinity first stands on the way through the network, in words; None where there is none."""
    if not torch.isfinite(x).all():
        return f"the input, at time step {_first_step(x)}"
    for place, (layer, out) in enumerate(network.walk(x)):
        for name, weight in layer.named_parameters():
            if not torch.isfinite(weight).all():
                return f"the {name} of {network.name(place)}"
        out = out[0] if isinstance(out, tuple) else out
        if not torch.isfinite(out).all():
            return f"the output of {network.name(place)}, at time step {_first_step(out)}"
    return None


def _first_step(x: Tensor) -> int:
    return int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])


def check_network(asker: str, network: object) -> None:
    """Raise unless `network` is a `Network`."""
    check_kind(f"{asker}: the network", network, Network, SMALL)


def has_state(layer: nn.Module) -> bool:
    """Whether the layer carries state from step to step."""
    return isinstance(layer, Neurons)


def neuron_of(layer: nn.Module) -> Neuron:
    """The neuron model of a layer with state."""
    assert isinstance(layer, Neurons)
    return layer.neuron


@torch.no_grad()
def start_alive(network: Network, x: Tensor, *, spread: float = 1.0) -> None:
    """Scale the weights in front of each neuron so that its free membrane fluctuates by `spread` thresholds on `x`.

    The fluctuation-driven initialisation of Rossbroich et al. 2022, with the spread measured on a batch instead of
    estimated from assumed Poisson rates: layer by layer the weights are scaled and biases set to zero, then the
    spikes go on to the next. Layers behind a batch norm, readouts that do not spike and layers of classes that are not
    ours are left as they are; batch norms take over the statistics of the batch, so that evaluation means something
    before the first step. Weights that are pruned or parametrised are scaled where they come from.
    """
    check_network("start_alive", network)
    check_number("start_alive: spread", spread, above=0, high=LARGEST)
    found, x = fronts(network), network.in_floats(x)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta, was_training = [norm.momentum for norm in norms], network.training
    network.train()
    for norm in norms:
        norm.momentum = 1.0
    try:
        for synapse in found.values():
            clear_bias(network.name(synapse), network.layers[synapse])
        if not found and not any(isinstance(layer, DropoutOverTime) for layer in network.layers):
            network.rates(x)  # nothing to scale: the statistics alone, by the kernels that training uses
        else:
            _scale_fronts(network, found, x, spread)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.train(was_training)


def _scale_fronts(network: Network, found: dict[int, int], x: Tensor, spread: float) -> None:
    """Layer by layer, the weights at the places that `found` gives for each layer of neurons."""
    entered: dict[int, Tensor] = {}  # what came to weights of which the class may not be linear in them

    def passed(place: int, x: Tensor) -> Tensor:
        layer = network.layers[place]
        if isinstance(layer, DropoutOverTime):
            return x  # nothing random: the start depends on the seed of the weights and on x alone
        return layer(x)[0] if has_state(layer) else apply_stateless(layer, x)

    for place, layer in enumerate(network.layers):
        if place in found.values() and not is_exact(layer):
            entered[place] = x
        if place in found:
            size, synapse = _size(layer, x), found[place]
            if size > 0:
                scale_weight(network.name(synapse), network.layers[synapse], spread / size)
                x = x * (spread / size)
            if size > 0 and synapse in entered:
                x = entered[synapse]
                for between in range(synapse, place):
                    x = passed(between, x)
                check_scaled(network.name(synapse), float(_size(layer, x)), spread)
        x = passed(place, x)


def _size(layer: nn.Module, x: Tensor) -> Tensor:
    """How far the free membrane of a layer of neurons fluctuates under `x`, in thresholds."""
    values = coefficients(neuron_of(layer))
    free, _ = simulate(LI(alpha=values["alpha"], beta=values["beta"]), x)
    return (free / torch.as_tensor(values["theta"], dtype=x.dtype, device=x.device)).square().mean().sqrt()


def with_step(model: tuple[Layer, ...], *, step_ms: float) -> tuple[Layer, ...]:
    """The model with every time constant turned into the decay of a step of `step_ms`."""

    def resolved(layer: Layer) -> Layer:
        if isinstance(layer, Spiking | Recurrent):
            return replace(layer, neuron=at_step(layer.neuron, step_ms=step_ms))
        return at_step(layer, step_ms=step_ms) if isinstance(layer, Neuron) else layer

    return tuple(resolved(layer) for layer in model)
