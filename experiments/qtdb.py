"""QT database (Laguna et al. 1997), encoded as Yin et al. 2021 do: which wave of the heartbeat is it, at every step?

    snn-bp train experiments/qtdb.py data.source.root=FOLDER
    snn-bp train experiments/qtdb.py data.source.root=FOLDER data.source.unlabelled=0

FOLDER holds qtdb/QTDB_train.mat and qtdb/QTDB_test.mat: 618 and 141 recordings of 1,301 steps, level crossings of two
leads upwards and downwards, six labels (P, PQ, QR, RS, ST, TP). A tenth of the steps carries no label. The first run
leaves them out, of the loss and of the accuracy; the second counts them as class 0, as is published: an adaptive
recurrent network of 36 neurons, 84.4 % by the name of its script and 85.9 % by that of its checkpoint, which leaves the
first steps out and chose its model by the training accuracy. Here a tenth of the training part chooses the epoch.

Time constants lie evenly on a logarithmic scale when training starts, in another order for each variable and layer,
and are learned with it: 2 to 60 steps of the membrane, 20 to 600 of the adaptation.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from snn_bp import (
    ALIF,
    LI,
    BatchNorm,
    Data,
    Dense,
    Dropout,
    Experiment,
    MembraneCrossEntropy,
    Spiking,
    Targets,
    Train,
    main,
)


@dataclass(frozen=True)
class QTDB:
    """Level crossings [recordings, 1301, 4], and a class for every step."""

    root: str = ""
    unlabelled: int = -1  # the class of steps without a label; -1 is none
    step_ms = 1.0
    targets = Targets("class per step", ("P", "PQ", "QR", "RS", "ST", "TP"))

    def made_from(self) -> list[Any]:
        """The files that are read."""
        folder = Path(self.root or os.environ.get("SNN_BP_DATA", "data"), "qtdb")
        return [folder / "QTDB_train.mat", folder / "QTDB_test.mat"]

    def frames(self, part: str) -> tuple[Any, ...]:
        """All recordings of a part."""
        file = loadmat(self.made_from()[part == "test"])
        return file["x"], np.where(file["y"].any(2), file["y"].argmax(2), self.unlabelled)


def decays(low: float, high: float, *, neurons: int, seed: int) -> tuple[float, ...]:
    """Decays per step of time constants from `low` to `high` steps, evenly on a logarithmic scale, in some order."""
    steps = np.geomspace(low, high, neurons)[np.random.default_rng(seed).permutation(neurons)]
    return tuple(np.exp(-1 / steps).round(6).tolist())


def adaptive(neurons: int, *, seed: int) -> Spiking:
    """Adaptive neurons, each with time constants of its own that are learned."""
    beta, rho = decays(2, 60, neurons=neurons, seed=seed), decays(20, 600, neurons=neurons, seed=seed + 1)
    return Spiking(ALIF(beta=beta, rho=rho, kappa=0.1), learn=("beta", "rho", "kappa"))


experiment = Experiment(
    data=Data(QTDB(), batch=8),
    model=(
        *(Dense(128), BatchNorm(), adaptive(128, seed=0), Dropout(0.1)),
        *(Dense(128), BatchNorm(), adaptive(128, seed=2), Dropout(0.1)),
        *(Dense(128), BatchNorm(), adaptive(128, seed=4), Dropout(0.1)),
        *(Dense(6), Spiking(LI(beta=0.8), learn=("beta",))),
    ),
    train=Train(epochs=12, lr=5e-3, loss=MembraneCrossEntropy()),
)

if __name__ == "__main__":
    main(experiment)
