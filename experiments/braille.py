"""Braille letters (Mueller-Cleve et al. 2022): 26 letters and a space, read by a robot's fingertip of 12 taxels.

    snn-bp train experiments/braille.py data.source.root=FOLDER
    snn-bp train experiments/braille.py data.source.root=FOLDER 'data.encoder=Current()'
    snn-bp train experiments/braille.py data.source.root=FOLDER train.target=loihi

FOLDER holds braille_taxels.npz. The first run sees level crossings of each taxel, the second its signal as an input
current, the third is the first with the forward pass of Loihi's arithmetic: its network goes into a `.net` file.

Protocol: 50 repetitions of each of 27 letters; 40 to 49 are the test part (270 recordings), a tenth of the others is
the validation split, by which the best epoch is chosen. 76 or 77 steps of 25 ms; one of 76 holds its last value.
Published on these recordings: a recurrent spiking network on events about 80 %, an LSTM on frames about 97 %. Spikes
are not what the task needs: logistic regression on all frames of the signal laid flat makes no error on this very test
part; on the frames of level crossings it reaches 86.3 % (`experiments/benchmarks/beside.py`).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from snn_bp import BatchNorm, CubaLIF, Data, Delta, Dense, Dropout, Experiment, Train, main

LETTERS = (*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "space")


@dataclass(frozen=True)
class Braille:
    """What each taxel feels beyond its first value, in units of 50 of its 256 levels: [recordings, 77, 12]."""

    root: str = ""
    step_ms = 25.0
    class_names = LETTERS

    def made_from(self) -> list[Any]:
        """The file that is read."""
        return [Path(self.root or os.environ.get("SNN_BP_DATA", "data"), "braille_taxels.npz")]

    def frames(self, part: str) -> tuple[Any, ...]:
        """Repetitions 0 to 39 as "train", 40 to 49 as "test"."""
        file = np.load(self.made_from()[0])
        starts, ends = file["offsets"][:-1], file["offsets"][1:]
        steps = np.minimum(starts[:, None] + np.arange(77), ends[:, None] - 1)
        x, labels, repetitions = file["x"][steps], file["label"], file["rep"]
        mine = (repetitions >= 40) == (part == "test")
        names = [f"{LETTERS[labels[number]]} {repetitions[number]}" for number in np.flatnonzero(mine)]
        return (x - x[:, :1])[mine] / 50, labels[mine], {"names": names}


@dataclass(frozen=True)
class SoftCount:
    """Cross entropy of the output's spike counts times `scale`: as they are, 77 steps of counts make it too steep."""

    scale: float = 0.15
    smoothing: float = 0.05
    means = ("spikes",)

    def scores(self, out: Tensor) -> Tensor:
        """Scaled counts [batch, classes]."""
        return self.scale * out.sum(0)

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        """The mean over the batch."""
        return F.cross_entropy(self.scores(out), targets, label_smoothing=self.smoothing)


experiment = Experiment(
    data=Data(Braille(), encoder=Delta(threshold=0.1), batch=32),
    model=(
        *(Dense(256), BatchNorm(), CubaLIF(alpha=0.6, beta=0.9, reset="zero"), Dropout(0.2)),
        *(Dense(256), BatchNorm(), CubaLIF(alpha=0.6, beta=0.9, reset="zero"), Dropout(0.2)),
        *(Dense(27), BatchNorm(), CubaLIF(alpha=0.6, beta=0.9, reset="zero")),
    ),
    train=Train(epochs=20, lr=5e-3, loss=SoftCount()),
)

if __name__ == "__main__":
    main(experiment)
