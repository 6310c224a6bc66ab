"""What `tests/test_distributed.py` has torchrun run: the same few trainings, in one process or in several.

    torchrun --nproc-per-node 2 tests/distributed_runs.py FOLDER NAME ...

Those of `RUNS` in doubles: a sum in another order flips no spike there, so that runs are equal up to the order of
summation. Those of `WHOLE`, whose batches are dealt whole, in singles: they are equal.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from snn_bp import (
    LI,
    LIF,
    TET,
    BalancedAccuracy,
    BatchNorm,
    Conv,
    CountCrossEntropy,
    CutMix,
    Data,
    Dataset,
    Dense,
    Dropout,
    Experiment,
    Flatten,
    LayerNorm,
    MembraneCrossEntropy,
    Module,
    Pool,
    RateBounds,
    Recurrent,
    Residual,
    Train,
    train,
)

STEPS, BATCH, RECORDINGS = 6, 13, 36  # of which 27 train: the last batch has one recording
NEURON = LIF(beta=0.8)
DENSE = (Flatten(), Dense(12), NEURON, Dropout(0.3), Dense(3), NEURON)
NORMED = (
    Conv(4, 3, padding=1, bias=False), BatchNorm(), NEURON, Pool(2), Residual(Conv(4, 3, padding=1), NEURON),
    Flatten(), Dense(10, bias=False), BatchNorm(), NEURON, Dense(3), LI(beta=0.8),
)  # fmt: skip
RECURRENT = (Flatten(), Dense(12), LayerNorm(), Recurrent(NEURON), Dense(3), LI(beta=0.8))
CHIP = (
    Flatten(),
    Dense(12, bias=False),
    BatchNorm(),
    LIF(beta=0.8, reset="zero"),
    Dense(3),
    LIF(beta=0.8, reset="zero"),
)
WEIGHED = CountCrossEntropy(class_weights=(1.0, 3.0, 0.5))
AUGMENT = {"mixed": (CutMix(p=0.8),)}
RUNS = {  # model, whether recordings differ in length, options
    "dense": (DENSE, False, Train(epochs=3, loss=WEIGHED, clip=0.5)),
    "normed": (NORMED, False, Train(epochs=3, accumulate=2, loss=TET(), average=0.9)),
    "recurrent": (RECURRENT, False, Train(epochs=3, truncate=4, rates=RateBounds(lower=0.2, upper=0.3, strength=5.0))),
    "masked": (NORMED, True, Train(epochs=3, truncate=4, loss=MembraneCrossEntropy())),
    "mixed": (NORMED, True, Train(epochs=3, truncate=4, loss=WEIGHED)),
    "chip": (CHIP, False, Train(epochs=3, target="loihi", freeze_norm=0.3)),
}


@dataclass(frozen=True)
class OfMean:
    """A loss that is no mean over recordings: it asks the mean output of a batch."""

    def __call__(self, out, targets):
        return torch.nn.functional.cross_entropy(out.mean(0), targets) + (out.mean() - 0.2).square()


class Watched(torch.nn.Module):
    """Counts how often it was looked at or evaluated, which shows in training; and draws random numbers then."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.int16))

    def forward(self, x):
        if self.training:
            return x * (1 + 0.1 * (self.seen % 7))
        self.seen += 1
        return x + 0.3 * torch.rand_like(x)


class Ageing(torch.nn.Linear):
    """Its weight shrinks with each batch that it evaluates."""

    def forward(self, x):
        if not self.training:
            self.weight.data *= 0.99
        return super().forward(x)


class Positive(torch.nn.Linear):
    """Keeps what it makes of its weight in a call."""

    def forward(self, x):
        self.positive = self.weight.abs()
        return x @ self.positive


MIXING = (
    Flatten(), Dense(12), Module(torch.nn.BatchNorm1d, 12, affine=False), NEURON, Module(torch.nn.Dropout, 0.2),
    Dense(3), LI(beta=0.8),
)  # fmt: skip
WATCHED = (Flatten(), Dense(12), Module(Watched), NEURON, Dense(3), LI(beta=0.8))
AGEING = (
    Flatten(), Dense(12), Module(Ageing, 12, 12), NEURON, Module(Positive, 12, 12), NEURON, Dense(3), LI(beta=0.8),
)  # fmt: skip
LOOPED = (Flatten(), Dense(12, bias=False), BatchNorm(), Recurrent(NEURON), Dropout(0.2), Dense(3), LI(beta=0.8))
WHOLE = {  # as above, each of seven batches to an epoch, of which four or three make a step
    "whole dense": (DENSE, False, Train(epochs=3, accumulate=4, loss=WEIGHED, clip=0.5, average=0.9)),
    "whole normed": (NORMED, False, Train(epochs=3, accumulate=4, loss=TET(), optimizer="sgd")),
    "whole truncated": (LOOPED, False, Train(epochs=3, accumulate=4, truncate=4, rates=RateBounds(lower=0.2))),
    "whole masked": (NORMED, True, Train(epochs=3, accumulate=4, truncate=4, loss=MembraneCrossEntropy())),
    "whole mixing": (MIXING, False, Train(epochs=3, accumulate=4, loss=OfMean(), metric=BalancedAccuracy())),
    "whole watched": (WATCHED, False, Train(epochs=3, accumulate=4)),
    "whole ageing": (AGEING, False, Train(epochs=3, accumulate=4)),
    "whole chip": (CHIP, False, Train(epochs=3, accumulate=3, target="loihi", freeze_norm=0.3)),
}


def dataset_of(masked: bool, augment: tuple = (), batch: int = BATCH) -> Dataset:
    """Recordings of three classes, each with a column that is more often active."""
    draw = np.random.default_rng(0)
    labels = np.arange(RECORDINGS + 12) % 3
    chances = np.full((len(labels), STEPS, 1, 6, 6), 0.15)
    chances[np.arange(len(labels)), :, :, :, labels * 2] = 0.6
    spikes = (draw.random(chances.shape) < chances).astype(np.uint8)
    lengths = draw.choice([2, 3, STEPS], len(labels)) if masked else None  # nothing is left of some behind step 4
    split = slice(0, RECORDINGS), slice(RECORDINGS, None)
    parts = [(spikes[of], labels[of], *([] if lengths is None else [lengths[of]])) for of in split]
    return Dataset.of(train=parts[0], test=parts[1], step_ms=1, batch=batch, validation_fraction=0.25, augment=augment)


def main(folder: Path, names: list[str]) -> None:
    """Train each of the runs that are named into the folder."""
    for name in names:
        torch.set_default_dtype(torch.float64 if name in RUNS else torch.float32)
        model, masked, config = (RUNS | WHOLE)[name]
        dataset = dataset_of(masked, AUGMENT.get(name, ()), BATCH if name in RUNS else 4)
        assert isinstance(dataset.data, Data) and len(dataset.ids["train"]) == 2 * BATCH + 1
        train(Experiment(dataset.data, model, config, seed=1), folder / name, dataset=dataset, quiet=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
