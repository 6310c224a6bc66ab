"""Recordings that lie in memory, as a tensor: a run of them is resumed with the same ones handed in again."""

import torch

from snn_bp import LIF, BatchNorm, Data, Dataset, Dense, Dropout, Experiment, Train

generator = torch.Generator().manual_seed(0)
labels = torch.randint(3, (240,), generator=generator)
chances = torch.rand(3, 1, 12, generator=generator) * 0.4
x = (torch.rand(240, 15, 12, generator=generator) < chances[labels]).float()
dataset = Dataset.of(train=(x, labels), test_fraction=0.2, step_ms=2, batch=16)

experiment = Experiment(
    dataset.data,
    (Dense(24), BatchNorm(), LIF(beta=0.8, reset="zero"), Dropout(0.2), Dense(3), LIF(beta=0.9)),
    Train(epochs=10, lr=5e-3),
)

assert isinstance(dataset.data, Data)
