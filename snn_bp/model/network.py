"""A chain of layers as one module: time folded into the batch where a layer has no state, state explicit where it has.

Nothing is held between calls. `network(x)` starts from rest; `network.run(x, state)` goes on from a state.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError, check_choice, check_flag, check_kind, check_seed, is_number, shown
from snn_bp.errors.calls import checked_call
from snn_bp.kernels import check_finite, runs_compiled
from snn_bp.kernels.around import has_hooks_on_every_module
from snn_bp.kernels.cpu import Memory
from snn_bp.model.blocks import WITH_STATE, LayerAt, Path, every_part, joined, parts_of, rated_neurons, role_of
from snn_bp.model.build import build_row
from snn_bp.model.exact import is_exact
from snn_bp.model.inputs import check_input, check_states
from snn_bp.model.layers import Layer, Shape
from snn_bp.model.masks import check_mask, mean_of
from snn_bp.model.modules import Neurons
from snn_bp.model.names import name_of
from snn_bp.model.overview import overview, overview_html
from snn_bp.model.plan import Input, apply_stateless, in_words, plan, reads_bytes
from snn_bp.neurons import Neuron, State
from snn_bp.runtime.gpu import convolve_exactly
from snn_bp.runtime.process import keep_freed_memory
from snn_bp.runtime.screen import on_screen
from snn_bp.surrogates import ATan, Surrogate, check_surrogate

Copied = TypeVar("Copied", bound=nn.Module)
NetworkState: TypeAlias = tuple[State, ...]  # one for each layer with state, in order; a `Carried` of other layers


SMALL = "As in Network((Dense(10), LIF(beta=0.9)), (700,))."


class Activity(NamedTuple):
    """What one layer of neurons did: `[time, batch, ...]` each."""

    name: str
    neuron: Neuron
    spikes: Tensor  # the output; of a neuron that does not spike, its potentials
    potentials: Tensor

    def __repr__(self) -> str:
        mean, low, high = (value.item() for value in (self.spikes.mean(), *self.potentials.aminmax()))
        said = f"{list(self.spikes.shape)}, mean output {mean:.3g}, potentials {low:.3g} .. {high:.3g}"
        return on_screen(f"Activity({self.name!r}: {said})")


class Visited(NamedTuple):
    """One layer as it ran: where it stands, what entered it, and its output; (output, state[, potentials]) of neurons.

    An output is `[time, batch, ...]`.
    """

    at: LayerAt
    entering: Tensor
    out: Any

    @property
    def spikes(self) -> Tensor:
        """The output alone."""
        return self.out[0] if isinstance(self.out, tuple) else self.out


class Ran(NamedTuple):
    """What the steps of a plan leave beside the output."""

    means: list[Tensor]  # mean output of each neuron, a layer each
    states: list[Any]
    lines: list[str] | None  # in words how each step ran; None where nobody asks
    mask: Tensor | None = None  # the steps that there are; None: all of them


@checked_call
class Network(nn.Module):
    """The layers of `model` built for an input of `input_shape` (one time step of one sample).

    `x` is `[time, batch, *input_shape]` in floats or bytes (uint8, bool), the output `[time, batch, *output_shape]`:
    spikes, or potentials where the last neuron is an `LI`. Dense layers and their neurons run as one event-driven
    operation on the CPU. NaN and infinity in it are refused, by the states that they lead to; not on a GPU, where a
    look would wait for it, and not by `rates`, which training calls.

    Parameters:
        model: a tuple of layers and neurons.
        input_shape: as (2, 34, 34) or (700,).
        surrogate (None): what a spike's derivative is replaced by; None: `ATan()`.
        seed (0): what weights are drawn from.
        memory ("full"): "low": keeps no potentials and computes them again in the backward pass.

    >>> network = Network((Dense(128), LIF(beta=0.9), Dense(10), LIF(beta=0.9)), (700,))
    >>> spikes, state = network.run(torch.rand(20, 4, 700))  # a torch module; `network(x)` gives the spikes alone
    >>> spikes.shape
    torch.Size([20, 4, 10])
    """

    def __init__(
        self, model: tuple[Layer, ...], input_shape: Shape, *,
        surrogate: Surrogate | None = None, seed: int = 0, memory: Memory = "full",
    ) -> None:  # fmt: skip
        super().__init__()
        keep_freed_memory()
        convolve_exactly()
        check_choice("Network: memory", memory, ("full", "low"))
        if not isinstance(model, tuple | list) or not isinstance(input_shape, tuple | list):
            given = model if not isinstance(model, tuple | list) else input_shape
            raise SnnError(
                f"Network: it takes a tuple of layers and the shape of a step, found {shown(given)}. {SMALL}"
            )
        if not all(is_number(size, integer=True) and size > 0 for size in input_shape):
            raise SnnError(
                f"Network: input_shape={shown(input_shape)}: it should hold the sizes of a step, from 1 up. {SMALL}"
            )
        if not model:
            raise SnnError("Network: the model is empty. A small one: (Dense(10), LIF(beta=0.9)).")
        self.model, self.input_shape = tuple(model), tuple(input_shape)
        self.surrogate = ATan() if surrogate is None else surrogate
        check_surrogate(self.surrogate)
        check_seed("Network: seed", seed)
        self.memory: Memory = memory
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers, self.shapes = build_row(self.model, self.input_shape, self.surrogate)
        self.layers = nn.ModuleList(layers)
        self.output_shape = self.shapes[-1]

    __repr__, _repr_html_ = overview, overview_html  # type: ignore[assignment] - the first has another name

    @property
    def floats(self) -> "Network":
        """The network in floats that has these weights: itself, or what another kind of network is made of."""
        return self

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The output of every step, from rest."""
        return self.run(x, mask=mask)[0]

    def run(
        self, x: Tensor, state: NetworkState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, NetworkState]:
        """The output of every step and the state after the last one; `state` is what an earlier call returned."""
        out, _, after = self.rates(x, state, mask)
        _check_finite(x, state, after)
        return out, after

    def rates(
        self, x: Tensor, state: NetworkState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], NetworkState]:
        """As `run`, and between its two values the mean output of each neuron of every layer but the last.

        Readouts side by side, at the end of the branches of a last joint, are the last layer too. For neurons that
        spike that is their rate, in spikes per step over time and batch; gradients flow through it.
        `mask` `[time, batch]` is True where a recording has a step, None where all have every step: means, and the
        statistics that norms take in training, count those only. What comes out of the others means nothing.
        """
        row, ran = parts_of(self), Ran([], [], None, mask)
        x, states = self._entered(x, row), self._states(state, row)
        if mask is not None:
            check_mask(x, mask, row, self.name)
        x = self._run(row, x, states, ran, final=True)
        if row[-1].role == "joint":
            rated = {part.path for part in rated_neurons(row)}
            neurons = (part.path for part in every_part(row) if part.role == "neurons")
            means = [mean for path, mean in zip(neurons, ran.means, strict=True) if path in rated]
            return x, means, tuple(ran.states)
        hidden = sum(part.role == "neurons" for part in every_part(row)) - (row[-1].role == "neurons")
        return x, ran.means[:hidden], tuple(ran.states)

    @torch.no_grad()
    def plan(self, x: Tensor) -> list[str]:
        """In words, how the layers run on `x` and which fraction of each one's input is not zero: a line a step."""
        row, ran = parts_of(self), Ran([], [], [])
        entered = self._entered(x, row)
        check_finite("network", x)
        self._run(row, entered, self._states(None, row), ran, final=True)
        return ran.lines or []

    def _run(
        self,
        row: Sequence[LayerAt],
        x: Tensor,
        states: Iterator[Any],
        ran: Ran,
        *,
        final: bool = False,
    ) -> Tensor:
        """The output of a row of layers, by its plan; `final`: the mean of its last neurons is not asked for."""
        at = 0
        while at < len(row):
            for step in plan(row[at:], Input.of(x, ran.mask), self.memory):
                at += len(step.parts)
                if ran.lines is not None:
                    fraction, names = float((x != 0).float().mean()), [self.name(part.path) for part in step.parts]
                    words = in_words(step, fraction)
                    ran.lines.append(f"{' - '.join(names)}: {words}; {fraction:.1%} of its input is not zero")
                if step.run is None:
                    x = joined(self, step.parts[0], x, lambda branch, x: self._run(branch, x, states, ran))
                    break
                given = [next(states) for part in step.parts if part.role in WITH_STATE]
                x, means, after = step.run(x, given)
                if means is None or (means and ran.mask is not None):
                    means = [] if final and at == len(row) else [mean_of(x, ran.mask)]
                ran.means.extend(means)
                ran.states.extend(after)
                if not step.is_known or x.shape[2:] != step.parts[-1].after:
                    break
        return x

    def observe(self, x: Tensor, state: NetworkState | None = None) -> tuple[list[Activity], NetworkState]:
        """What every layer of neurons did, potentials included; the last one's spikes are the output."""
        row, after = parts_of(self), []
        visited = self._visit(row, self.in_floats(x), self._states(state, row), True, after)
        activities = [
            Activity(self.name(part.path), neuron_of(part.layer), out[0], out[2])
            for part, _, out in visited
            if part.role == "neurons"
        ]
        _check_finite(x, state, after)
        return activities, tuple(after)

    def name(self, where: int | Path) -> str:
        """What a message calls a layer, at its index or at its path within joints: `model.7 Dense(10)`."""
        path, row = self._path(where), self.model
        for index, branch in zip(path[::2], path[1::2], strict=False):
            row = row[index].branches()[branch]  # type: ignore[union-attr]
        return name_of(path, row[path[-1]] if path[-1] < len(row) else self.layers[path[-1]])

    def parameters_of(self, where: int | Path) -> dict[str, nn.Parameter]:
        """The parameters of a layer, at its index or at its path within joints, as `named_parameters` names them."""
        path, row, prefix = self._path(where), self.layers, "layers"
        for index, branch in zip(path[::2], path[1::2], strict=False):
            row = row[index].branches[branch]  # type: ignore[union-attr, index, assignment]
            prefix = f"{prefix}.{index}.branches.{branch}"
        return dict(row[path[-1]].named_parameters(f"{prefix}.{path[-1]}"))  # type: ignore[union-attr]

    def _path(self, where: int | Path) -> Path:
        """The path of a layer; raises where the row of layers has none there."""
        path, row = (where if isinstance(where, tuple) else (where,)), self.layers
        try:
            for index, branch in zip(path[::2], path[1::2], strict=False):
                row = row[index].branches[branch]  # type: ignore[union-attr, index, assignment]
            if row[path[-1]] is not None and len(path) % 2 and min(path) >= 0:
                return path
        except (IndexError, TypeError, AttributeError, ValueError, OverflowError):
            pass
        last = len(self.layers) - 1
        raise SnnError(f"network: there is no layer {shown(where)}. It has 0..{last}, and within a joint as (2, 0, 1).")

    def learned_by_neurons(self) -> set[str]:
        """Which parameters, as `named_parameters` names them, are decays, thresholds and delays, not of synapses."""
        return {
            name
            for part in every_part(parts_of(self))
            if part.role in ("neurons", "delay", "stateful")
            for name in self.parameters_of(part.path)
            if ".learned." in name
        }

    def walk(self, x: Tensor, state: NetworkState | None = None, *, potentials: bool = False) -> Iterator[tuple]:
        """Each layer with its output, (output, state[, potentials]) of neurons; a joint behind its branches."""
        for part, _, out in self.visit(x, state, potentials=potentials):
            yield part.layer, out

    def visit(self, x: Tensor, state: NetworkState | None = None, *, potentials: bool = False) -> Iterator[Visited]:
        """As `walk`: each layer where it stands, with what enters it and its output."""
        check_flag("network.visit: potentials", potentials)
        x, row, after = self.in_floats(x), parts_of(self), []
        yield from self._visit(row, x, self._states(state, row), potentials, after)
        _check_finite(x, state, after)

    def _visit(
        self, row: list[LayerAt], x: Tensor, states: Iterator[Any], potentials: bool, after: list[Any]
    ) -> Iterator[Visited]:
        """As `visit`, of a row; `after` takes in the states after the last step."""
        for part in row:
            inner: list[Visited] = []

            def run(branch: list[LayerAt], x: Tensor, inner: list[Visited] = inner) -> Tensor:
                visited = list(self._visit(branch, x, states, potentials, after))
                inner.extend(visited)
                return visited[-1].spikes

            entering = x
            if part.role == "neurons":
                given = next(states)
                out = self._observed(part, x, given) if potentials else part.layer(x, given)
                after.append(out[1])
            elif part.role == "stateful":
                out, carried = part.layer(x, next(states))
                after.append(carried)
            elif part.role == "joint":
                out = joined(self, part, x, run)
            else:
                out = apply_stateless(part.layer, x)
            yield from inner
            yield (visited := Visited(part, entering, out))
            x = visited.spikes

    def _observed(self, part: LayerAt, x: Tensor, state: State | None) -> tuple[Tensor, State, Tensor]:
        """Output, state and potentials of neurons; of a forward of their own only where they agree."""
        layer: Neurons = part.layer  # type: ignore[assignment]
        out, after, potentials = layer.observe(x, state)
        if is_exact(layer) and not has_hooks_on_every_module():
            return out, after, potentials
        ran, after = layer(x, state)  # hooks are called, and a forward of its own is the one that counts
        if ran.shape != out.shape or not torch.equal(ran, out):
            raise SnnError(
                f"network.observe: {self.name(part.path)} has a forward of its own, and its potentials are not those "
                f"of what it puts out. Give the class an observe(x, state) that returns output, state and potentials."
            )
        return ran, after, potentials

    def _states(self, state: NetworkState | None, row: list[LayerAt]) -> Iterator[Any]:
        roles = [part.role for part in every_part(row)]
        count = sum(map(roles.count, WITH_STATE))
        if isinstance(state, tuple | list) and len(state) and "delay" in roles:
            raise SnnError("network.run: with a Delay a recording runs whole, spikes are under way between its steps.")
        if state is not None:
            check_states(state, count)
        return iter(state) if state is not None else iter([None] * count)

    def _entered(self, x: Tensor, row: list[LayerAt]) -> Tensor:
        """The input, checked; bytes as they are where the layer that meets them looks for what is not zero."""
        self.check_input(x)
        if x.is_floating_point():
            return x
        in_bytes = x.view(torch.uint8)
        looks = self._dtype() == torch.float32 and runs_compiled(in_bytes) and reads_bytes(row)
        return in_bytes if looks else self.in_floats(x)

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


def _check_finite(x: Tensor, state: NetworkState | None, after: Sequence[Any]) -> None:
    """Raise where NaN or infinity came in, with the input or a state, by the states of neurons after it.

    Of an input the first neurons tell: where a potential is NaN they are silent, and later layers see nothing of it.
    """
    neurons = [each for each in after if hasattr(each, "_fields")]
    parts = [part for each in state or () if hasattr(each, "_fields") for part in each]
    given = {f"state, part {number}": part for number, part in enumerate(parts)}
    check_finite("network", x, given, after=neurons if given else neurons[:1])


def deep_copy(module: Copied) -> Copied:
    """A deep copy; weights that a pruned layer made of others in its last call are copied as numbers."""
    made = [
        value
        for layer in module.modules()
        for value in vars(layer).values()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    return copy.deepcopy(module, {id(value): value.detach().clone() for value in made})


def check_network(asker: str, network: object) -> None:
    """Raise unless `network` is a `Network`, or has one in `floats`."""
    check_kind(f"{asker}: the network", getattr(network, "floats", network), Network, SMALL)


def has_state(layer: nn.Module) -> bool:
    """Whether the layer carries state from step to step."""
    return role_of(layer) == "neurons"


def neuron_of(layer: nn.Module) -> Neuron:
    """The neuron model of a layer with state."""
    assert has_state(layer)
    return layer.neuron  # type: ignore[return-value]
