"""Free Spoken Digit Dataset (FSDD): ten digits by six speakers, as spikes of a simple filter bank in SHD's file schema.

    snn-bp train experiments/fsdd.py data.source.root=FOLDER
    snn-bp train experiments/fsdd.py data.source.root=FOLDER data.source.pooled=yes 'data.test_groups=("speaker 0",)'

FOLDER holds fsdd/shd_train.h5 and fsdd/shd_test.h5: 2,700 and 300 recordings, 140 channels. These are not the
Heidelberg digits (SHD), and no figure of SHD is to be held against them. The first run takes the files' own test part,
in which every speaker is known; the second holds out a whole speaker, the harder and the more useful question. The last
epoch is kept, not the best on validation.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from snn_bp import ALIF, LI, BatchNorm, Data, Dense, Dropout, Experiment, MembraneCrossEntropy, Tau, Train, main


@dataclass(frozen=True)
class FSDD:
    """Spoken digits as events of a row of 140 channels; each speaker is a group."""

    root: str = ""
    pooled: bool = False  # all recordings in one part, to be split by speaker
    sensor = (140, 1, 1)
    step_ms, window_ms = 10.0, 700.0
    class_names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    def made_from(self) -> list[Any]:
        """The files that are read."""
        folder = Path(self.root or os.environ.get("SNN_BP_DATA", "data"), "fsdd")
        return [folder / "shd_train.h5", folder / "shd_test.h5"]

    def recordings(self, part: str) -> Iterator[tuple[Any, ...]]:
        """The recordings of a part; of both in the part "train" where they are pooled."""
        both = {"train": self.made_from(), "test": []}
        own = {"train": self.made_from()[:1], "test": self.made_from()[1:]}
        for path in (both if self.pooled else own)[part]:
            with h5py.File(path) as file:
                names = ("extra/speaker", "labels", "spikes/times", "spikes/units")
                columns = [np.asarray(file[name]) for name in names]
            for number, (speaker, label, seconds, units) in enumerate(zip(*columns, strict=True)):
                events = {"t": np.rint(seconds * 1e6).astype(np.int64), "x": units}
                yield events, int(label), {"name": f"{path.stem} {number}", "group": f"speaker {speaker}"}


experiment = Experiment(
    data=Data(FSDD(), batch=32, translate_px=4),
    model=(
        *(Dense(128), BatchNorm(), ALIF(beta=Tau(20), rho=Tau(150), kappa=0.1), Dropout(0.2)),
        *(Dense(128), BatchNorm(), ALIF(beta=Tau(20), rho=Tau(150), kappa=0.1), Dropout(0.2)),
        *(Dense(10), LI(beta=Tau(100))),
    ),
    train=Train(epochs=20, lr=4e-3, loss=MembraneCrossEntropy(), keep="last"),
)

if __name__ == "__main__":
    main(experiment)
