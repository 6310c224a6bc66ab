"""`trace`: one backward pass as data: spikes, potentials and the error signal of every layer and time step."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from snn_bp.errors import SnnError
from snn_bp.errors.calls import checked_call
from snn_bp.instruments.unroll import Steps, check_asked, copied, unroll
from snn_bp.model.activity import Activity, slopes_and_height, spikes_in
from snn_bp.model.blocks import Path, every_block, every_part, own_weights, parts_of
from snn_bp.model.layers import Layer
from snn_bp.model.losses import CountCrossEntropy, Loss, loss_of
from snn_bp.model.network import Network, NetworkState
from snn_bp.neurons import Neuron, is_spiking, range_of
from snn_bp.runtime.screen import html_table, on_screen
from snn_bp.runtime.status import phase
from snn_bp.surrogates import Surrogate

COLUMNS = ("layer", "rate", "silent", "window", "|dL/dv|", "gain")


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """What one layer of neurons did and what came back to it; tensors are `[time, batch, *neurons]`."""

    name: str
    neuron: Neuron
    surrogate: Surrogate
    inputs: Tensor  # synaptic input of the neurons, recurrence included
    potentials: Tensor  # v, before reset
    spikes: Tensor  # the output; of a neuron that does not spike, its potentials
    distances: Tensor | None  # from its (first) threshold, `v - theta - kappa * a` for one; None: it does not spike
    scale: Tensor  # what they are counted in: its threshold, or what stands for it in `spike(u, scale)`
    error: Tensor  # dL/dv: the whole derivative, through all later steps and layers; by the input where v does not fire
    spike_error: Tensor | None  # dL/ds likewise
    slopes: Tensor | None  # the surrogate's derivative at every step (see `slopes_and_height`)
    height: Tensor  # the surrogate's derivative at its largest; one number, or one for each neuron
    decays: dict[str, Tensor]  # learned ones, in 0..1
    path: Path  # the layer's in the network, its value's in the model
    normed: bool  # whether a batch norm stands between its weights and the neurons
    recurrent: bool  # whether its neurons get each other's spikes

    def __repr__(self) -> str:
        rate = "" if self.rates is None else f", {float(self.rates.mean()):.3g} spikes per neuron and step"
        return on_screen(f"LayerTrace({self.name!r}: {list(self.error.shape)}{rate}, |dL/dv| {self.error.norm():.2e})")

    @property
    def rates(self) -> Tensor | None:
        """Spikes per step of each neuron, over time and batch."""
        return spikes_in(self.neuron, self.spikes).mean((0, 1)) if is_spiking(self.neuron) else None

    @property
    def fired(self) -> Tensor | None:
        """The part of its steps in which each neuron fires, over time and batch: its rate, if it fires once a step."""
        return (self.spikes != 0).to(self.spikes.dtype).mean((0, 1)) if is_spiking(self.neuron) else None

    @cached_property
    def activity(self) -> Activity | None:
        """The figures that `layers.jsonl` holds too; None where the neuron does not spike."""
        if self.rates is None or self.fired is None or self.slopes is None:
            return None
        return Activity.of(self.rates, self.slopes, self.height, fired=self.fired)

    @property
    def silent(self) -> float:
        """The fraction of neurons that never fire."""
        return 0.0 if self.activity is None else self.activity.silent

    @property
    def saturated(self) -> float:
        """The fraction of neurons that fire in 95 % of the steps or more."""
        return 0.0 if self.activity is None else self.activity.saturated

    @property
    def window(self) -> float:
        """The fraction of neurons and steps within the surrogate's window: its slope above a tenth of its height."""
        return 1.0 if self.activity is None else self.activity.window


@dataclass(frozen=True, eq=False)
class Trace:
    """One forward and one backward pass of a network on one batch.

    Fields:
        loss: its value.
        layers: what each layer of neurons did and what came back to it, tensors `[time, batch, *neurons]`.
        gradients: |dL/dw| of each layer that has weights; `weights`: |w| of the same.
        frozen: layers with no weight that asks for a gradient, by their path.
        model: what the network was made of. `criterion`: the loss.

    >>> network = Network((Dense(8), LIF(beta=0.9), Dense(2), LIF(beta=0.9)), (4,))
    >>> traced = trace(network, torch.ones(10, 3, 4), torch.tensor([0, 1, 0]))
    >>> traced.errors.shape, traced.layers[0].error.shape  # [layer, time], [time, batch, neurons]
    (torch.Size([2, 10]), torch.Size([10, 3, 8]))
    """

    loss: float
    layers: tuple[LayerTrace, ...]
    gradients: dict[str, float]
    weights: dict[str, float]
    frozen: dict[Path, str]
    model: tuple[Layer, ...]
    criterion: Loss

    @property
    def errors(self) -> Tensor:
        """The error map `[layer, time]`: the norm of dL/dv over batch and neurons."""
        return torch.stack([layer.error.flatten(1).norm(dim=1) for layer in self.layers])

    @property
    def gains(self) -> list[float]:
        """How much larger the whole error is in each layer than in the layer after it; from the input on."""
        sizes = self.errors.norm(dim=1).tolist()
        return [ratio(before, after) for before, after in pairwise(sizes)]

    @property
    def time_gains(self) -> list[float]:
        """For each layer, the largest error in the first quarter of the steps over the largest in the last quarter."""
        quarter = max(1, self.errors.shape[1] // 4)
        return [ratio(float(row[:quarter].max()), float(row[-quarter:].max())) for row in self.errors]

    def record(self) -> dict[str, Any]:
        """The figures, without the tensors, as JSON holds them."""
        rows = []
        for layer, row, gain in zip(self.layers, self.errors.tolist(), self.time_gains, strict=True):
            rates = layer.rates
            figures = {"rate": None if rates is None else float(rates.mean()), "silent": layer.silent}
            figures |= {"saturated": layer.saturated, "window": layer.window, "time_gain": gain, "error": row}
            rows.append({"layer": layer.name, **figures})
        return {"loss": self.loss, "layers": rows, "gains": self.gains, "gradients": self.gradients}

    def __str__(self) -> str:
        longest = max(20, *(len(layer.name) for layer in self.layers))
        rows = [
            f"{name:{longest}}{rate:>8}{silent:>8}{window:>8}{size:>10}{gain:>9}"
            for name, rate, silent, window, size, gain in (COLUMNS, *self._rows())
        ]
        return "\n".join([f"loss {self.loss:.4g}", *rows])

    def __repr__(self) -> str:
        return on_screen(str(self))

    def _repr_html_(self) -> str:
        return html_table(f"One backward pass, loss {self.loss:.4g}", COLUMNS, self._rows())

    def _rows(self) -> list[tuple[str, ...]]:
        rows, sizes = [], self.errors.norm(dim=1).tolist()
        for layer, size, gain in zip(self.layers, sizes, [*self.gains, None], strict=True):
            rate = "-" if layer.rates is None else f"{float(layer.rates.mean()):.3f}"
            grown = "-" if gain is None else f"{gain:.3g}"
            rows.append((layer.name, rate, f"{layer.silent:.0%}", f"{layer.window:.0%}", f"{size:.2e}", grown))
        return rows


@checked_call
def trace(
    network: Network, inputs: Tensor, targets: Tensor, *,
    loss: Loss = CountCrossEntropy(), state: NetworkState | None = None,  # noqa: B008 - frozen
    mask: Tensor | None = None,
) -> Trace:  # fmt: skip
    """One backward pass of `network` on `inputs` `[time, batch, ...]` and `targets` `[batch, ...]`, in the mode it is
    in.

    It runs in the torch reference, on a copy: weights, gradients, norm statistics and random numbers stay as they
    are. The copy holds a few tensors for each neuron and step: take a batch of a few dozen. A network for a chip is
    traced in floats, with its weights.

    Parameters:
        network: a `Network` or `OnChip`.
        inputs, targets: a batch.
        loss (CountCrossEntropy()): what is differentiated.
        state (None): where the recordings begin; None: from rest.
        mask (None): `[time, batch]`, true where a recording has a step, for the loss; norms in training see all steps.

    >>> network = Network((Dense(8), LIF(beta=0.9), Dense(2), LIF(beta=0.9)), (4,))
    >>> list(trace(network, torch.ones(10, 3, 4), torch.tensor([0, 1, 0])).gradients)
    ['model.0 Dense(8)', 'model.2 Dense(2)']
    """
    check_asked("trace", network, inputs, loss)
    if not any(part.role == "neurons" for part in every_part(parts_of(network))):
        raise SnnError("trace: the network has no neurons. One with: (Dense(10), LIF(beta=0.9)).")
    return traced(network, inputs, targets, loss, state, mask)


@phase("looking at a backward pass")
def traced(
    network: Network, inputs: Tensor, targets: Tensor, loss: Loss, state: NetworkState | None = None,
    mask: Tensor | None = None,
) -> Trace:  # fmt: skip
    """As `trace`, without checks; of a network without neurons the loss and the gradients of its weights."""
    work = copied(network)
    with forked(inputs), torch.enable_grad():
        out, layers = unroll(work, work.in_floats(inputs).detach().requires_grad_(), state)
        value = loss_of(loss, out, targets, mask)
    named = dict(work.named_parameters())
    nodes = [node for steps in layers for node in (*steps.nodes, *steps.spikes)]
    gradients = torch.autograd.grad(value, [*named.values(), *nodes], allow_unused=True, materialize_grads=True)
    by_weight = dict(zip(map(id, named.values()), gradients, strict=False))  # layers that share one have one gradient
    gradient_norms, weight_norms, frozen = {}, {}, {}
    for part, original in zip(*(every_part(parts_of(each)) for each in (work, network.floats)), strict=True):
        if weights := list(own_weights(part).values()):
            gradient_norms[work.name(part.path)] = _norm([by_weight[id(weight)] for weight in weights])
            weight_norms[work.name(part.path)] = _norm(weights)
            if not any(weight.requires_grad for weight in own_weights(original).values()):
                frozen[part.path] = work.name(part.path)
    normed, errors = _normed(work), iter(gradients[len(named) :])
    traces = []
    for steps in layers:
        error = torch.stack([next(errors) for _ in steps.nodes])
        spike_error = torch.stack([next(errors) for _ in steps.spikes]) if steps.spikes else None
        traces.append(_layer(work.name(steps.path), steps, error, spike_error, normed=steps.path in normed))
    return Trace(value.item(), tuple(traces), gradient_norms, weight_norms, frozen, network.model, loss)


def forked(x: Tensor) -> AbstractContextManager[None]:
    """Within the block, what is drawn on the CPU and on the device of `x` leaves the generators as they were."""
    return torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else [])


def ratio(above: float, below: float) -> float:
    """One size over another; 1 where both are zero."""
    return above / below if below else (math.inf if above else 1.0)


def _normed(network: Network) -> set[Path]:
    """The layers of neurons with a batch norm between them and the weights or neurons before."""
    found = set()
    for block in every_block(parts_of(network)):
        learned = [
            part.role for part in block.parts
            if part.role == "norm" or (part.role != "neurons" and any(True for _ in part.layer.parameters()))
        ]  # fmt: skip
        if learned[-1:] == ["norm"]:
            found.add(block.parts[-1].path)
    return found


def _layer(name: str, steps: Steps, error: Tensor, spike_error: Tensor | None, *, normed: bool) -> LayerTrace:
    neurons, scale = steps.neurons, steps.scale
    distances = torch.stack(steps.distances).detach() if steps.distances else None
    slopes, height = slopes_and_height(neurons, scale.new_zeros(1) if distances is None else distances, scale)
    return LayerTrace(
        name=name,
        neuron=neurons.neuron,
        surrogate=neurons.surrogate,
        inputs=torch.stack(steps.inputs).detach(),
        potentials=torch.stack(steps.potentials).detach(),
        spikes=steps.out.detach(),
        distances=distances,
        scale=scale,
        error=error,
        spike_error=spike_error,
        slopes=None if distances is None else slopes,
        height=height,
        decays={
            name: value.detach()
            for name, value in neurons.parameters_now().items()
            if range_of(neurons.neuron, name) == "decay"
        },
        path=steps.path,
        normed=normed,
        recurrent=neurons.recurrence is not None,
    )


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.detach().square().sum()) for tensor in tensors))
