"""Layers of one's own: one by `build`, and a torch module with a state of its own by `Module`."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snn_bp import LIF, BatchNorm, Data, Dense, Experiment, Flatten, Module, Train


@dataclass(frozen=True)
class Gain:
    """A learned factor for each neuron."""

    start: float = 1.0

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """The module for an input of `shape`."""
        return Times(self.start, shape)


class Times(nn.Module):
    """Its input times what it has learned."""

    def __init__(self, start: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full(shape, start))

    def forward(self, x: Tensor) -> Tensor:
        """One product for each row."""
        return x * self.factor


class Trace(nn.Module):
    """An average over the past, with dropout: a state, and random numbers of its own."""

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.zeros(neurons))

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """All steps, and the average behind the last one."""
        state, seen = torch.zeros_like(x[0]) if state is None else state, []
        for step in nn.functional.dropout(x, 0.1, self.training):
            state = state + torch.sigmoid(self.decay) * (step - state)
            seen.append(state)
        return torch.stack(seen), state


experiment = Experiment(
    Data("digits", step_ms=52, steps=6, batch=64, downsample=2),
    (
        *(Flatten(), Dense(32), Gain(1.5), BatchNorm(), LIF(beta=0.8), Module(Trace, 32, stateful=True)),
        *(Dense(10), BatchNorm(), LIF(beta=0.8)),
    ),
    Train(epochs=3, lr=4e-3),
)
