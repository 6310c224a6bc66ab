"""Sequential MNIST (LeCun et al. 1998), a part of it: a digit told row by row.

    snn-bp train experiments/smnist.py data.source.root=FOLDER
    snn-bp train experiments/smnist.py data.source.root=FOLDER data.source.pixels=1

FOLDER holds smnist/train-images-idx3-ubyte and the other three idx files: here 3,750 of the 60,000 training images, and
all 10,000 of the test. 28 pixels at a time make 28 steps. The second run tells them one by one in 784 steps, the task
for which others report 89.3 % (recurrent LIF) to 99.2 % with sixteen times as many images: no figure here is comparable
with theirs.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp import ALIF, LI, BatchNorm, Data, Dense, Dropout, Experiment, MembraneCrossEntropy, Tau, Train, main


@dataclass(frozen=True)
class SequentialMNIST:
    """Pixels between 0 and 1, `pixels` of them at each step: [images, 784 / pixels, pixels]."""

    root: str = ""
    pixels: int = 28
    step_ms = 1.0
    class_names = tuple("0123456789")

    def made_from(self) -> list[Any]:
        """The files that are read: images and labels, to train and for the test."""
        folder = Path(self.root or os.environ.get("SNN_BP_DATA", "data"), "smnist")
        kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
        return [folder / f"{part}-{kind}" for part in ("train", "t10k") for kind in kinds]

    def frames(self, part: str) -> tuple[Any, ...]:
        """The images of a part, in the order of the file."""
        images, labels = self.made_from()[:2] if part == "train" else self.made_from()[2:]
        pixels = np.fromfile(images, np.uint8, offset=16).reshape(-1, 784 // self.pixels, self.pixels)
        return pixels.astype(np.float32) / 255, np.fromfile(labels, np.uint8, offset=8)


experiment = Experiment(
    data=Data(SequentialMNIST(), batch=32),
    model=(
        *(Dense(128), BatchNorm(), ALIF(beta=Tau(5), rho=Tau(20), kappa=0.1), Dropout(0.2)),
        *(Dense(128), BatchNorm(), ALIF(beta=Tau(5), rho=Tau(20), kappa=0.1), Dropout(0.2)),
        *(Dense(10), LI(beta=Tau(10))),
    ),
    train=Train(epochs=10, lr=4e-3, loss=MembraneCrossEntropy()),
)

if __name__ == "__main__":
    main(experiment)
