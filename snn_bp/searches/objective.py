"""What a search minimises: any callable on a network and a mini-batch, or one of three of the network's output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from snn_bp.errors import SnnError, check_choice, check_number
from snn_bp.model.blocks import parts_of, rated_neurons
from snn_bp.model.losses import Loss, RateBounds, loss_of, scores_of
from snn_bp.model.network import Network, neuron_of
from snn_bp.model.targets import classes_of
from snn_bp.neurons import is_spiking
from snn_bp.runs.experiment import Train

Objective: TypeAlias = Callable[[Network, Tensor, Tensor], float | Tensor]  # network, inputs, targets -> to minimise
Kind: TypeAlias = Literal["loss", "accuracy", "spikes"]


@dataclass(frozen=True)
class OfOutput:
    """An objective of what a network puts out and of its rates, so that many networks can be valued at once.

    "loss": the training loss, bounds on the rates included. "accuracy": the fraction of wrong predictions. "spikes":
    that fraction, and `spike_penalty` for each spike of an inference, of all layers together. Only the first has a
    gradient.
    """

    kind: Kind
    loss: Loss
    rates: RateBounds | None = None
    spike_penalty: float = 1e-4

    def __post_init__(self) -> None:
        check_choice("search: objective", self.kind, ("loss", "accuracy", "spikes"))
        check_number("search: spike_penalty", self.spike_penalty, low=0)

    def __call__(self, network: Network, x: Tensor, targets: Tensor) -> Tensor:
        out, means, _ = network.rates(x)
        return self.of(network, out, means, targets)

    def of(self, network: Network, out: Tensor, means: list[Tensor], targets: Tensor) -> Tensor:
        """The value for an output and the mean outputs of the hidden layers' neurons, as `network.rates` gives them."""
        if self.kind == "loss":
            penalty = 0.0 if self.rates is None else self.rates(means)
            return loss_of(self.loss, out, targets) + penalty
        wrong = (scores_of(self.loss, out).argmax(1) != classes_of(targets)).float().mean()
        if self.kind == "accuracy":
            return wrong
        layers = [part.layer for part in rated_neurons(parts_of(network))]
        every = [*means, out.mean((0, 1))][: len(layers)]
        spikes = [mean.sum() for mean, layer in zip(every, layers, strict=True) if is_spiking(neuron_of(layer))]
        return wrong + self.spike_penalty * len(out) * sum(spikes)


def objective_of(objective: Kind | Objective, config: Train, *, spike_penalty: float) -> Objective:
    """The objective that a name stands for, or the callable as it is."""
    if callable(objective):
        return objective
    if not isinstance(objective, str):
        raise SnnError(f"search: {objective=}: it should be loss, accuracy, spikes, or a callable (see search).")
    return OfOutput(objective, config.loss, config.rates, spike_penalty)


def name_of(objective: Objective) -> str:
    """What a record calls the objective."""
    return objective.kind if isinstance(objective, OfOutput) else getattr(objective, "__name__", repr(objective))
