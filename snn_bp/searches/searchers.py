"""What spends the budget step by step: a population on a network, or backpropagation."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError
from snn_bp.model.finite import first_nonfinite
from snn_bp.model.network import Network
from snn_bp.runs.checkpoint import Checkpoint
from snn_bp.runs.experiment import Train
from snn_bp.searches.methods import Method
from snn_bp.searches.objective import Objective
from snn_bp.searches.population import load_point, norms_of, value_points
from snn_bp.trainer.optimizer import (
    explain_nonfinite,
    freeze_norm,
    learning_rate,
    make_optimizer,
    sharpen_delays,
    train_step,
)


class Population:
    """A gradient-free method on a network; a point is the start plus its coordinates times the start's spread."""

    def __init__(self, network: Network, method: Method, objective: Objective) -> None:
        self.network, self.method, self.objective = network, method, objective
        self.start = nn.utils.parameters_to_vector(network.parameters()).detach()
        self.spread = spread_of(network)

    @property
    def cost(self) -> int:
        """Sample evaluations of the next generation, for each sample of the mini-batch."""
        return self.method.count

    def step(self, x: Tensor, targets: Tensor) -> None:
        """One generation."""
        points = self.start + self.spread * self.method.ask().to(self.start.device)
        values = value_points(self.network, points, self.objective, x, targets)
        if not values.isfinite().any():
            where = first_nonfinite(self.network, x) or "the objective itself"
            raise SnnError(f"search: no point of the generation has a finite value. First not finite: {where}.")
        self.method.tell(values.nan_to_num(nan=math.inf))

    def state(self) -> dict[str, Any]:
        """What the method holds, in the form of an optimizer's."""
        state: dict[str, Any] = {"generator": self.method.generator.get_state()}
        for name, value in vars(self.method).items():
            if name not in ("generator", "normal"):  # the second lives from `ask` to `tell` only
                state[name] = value.clone() if isinstance(value, Tensor) else value  # no two share their memory
        return {"state": {0: state}, "param_groups": [{"method": type(self.method).__name__}]}

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from what `state` gave."""
        if checkpoint.optimizer["param_groups"] != [{"method": type(self.method).__name__}]:
            raise ValueError("of another method")
        for name, value in checkpoint.optimizer["state"][0].items():
            if name == "generator":
                self.method.generator.set_state(value)
            else:
                setattr(self.method, name, value)

    def answer(self, probe: Tensor) -> None:
        """Put the method's best into the network, with the norms' statistics of `probe`."""
        load_point(self.network, self.start + self.spread * self.method.best.to(self.start.device))
        norms = norms_of(self.network)
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train().momentum = 1.0
        if norms:
            self.network.rates(probe)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


class Backpropagation:
    """Steps of the experiment's optimizer, its schedule run over `steps` of them."""

    cost = 3  # a forward, and a backward that counts as two

    def __init__(self, network: Network, config: Train, *, steps: int, batches: int) -> None:
        self.network, self.config, self.steps, self.batches = network, config, steps, batches
        self.optimizer, self.taken = make_optimizer(network, config), 0

    def step(self, x: Tensor, targets: Tensor) -> None:
        """One step."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, step=self.taken, steps=self.steps, batches=self.batches)
        freeze_norm(self.network, config, self.taken, of=self.steps)
        sharpen_delays(self.network, self.taken, of=self.steps)
        step = train_step(self.network, self.optimizer, x, targets, config)
        if not (math.isfinite(step.loss) and math.isfinite(step.grad_norm)):
            epoch, batch = divmod(self.taken, self.batches)
            raise SnnError(explain_nonfinite(step, self.network, x, epoch=epoch + 1, batch=batch + 1))
        self.taken += 1

    def state(self) -> dict[str, Any]:
        """The optimizer's state."""
        return self.optimizer.state_dict()

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from what `state` gave."""
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.taken = checkpoint.batch

    def answer(self, probe: Tensor) -> None:
        """Nothing to do: the network holds it, and its norms followed every step."""


def spread_of(network: Network) -> Tensor:
    """For each parameter, the root mean square of its tensor; where that is 0, as of biases, of its layer's others."""
    spreads = []
    for layer in network.modules():
        own = list(layer.parameters(recurse=False))
        sizes = [float(weight.detach().square().mean().sqrt()) for weight in own]
        other = max(sizes, default=0.0) or 1.0
        spreads += [torch.full_like(weight, size or other).flatten() for weight, size in zip(own, sizes, strict=True)]
    return torch.cat(spreads).detach()
