"""Spike trains that draw a picture of Oxford: SLAYER's spike-time target (Shrestha & Orchard 2018), made by computer.

    snn-bp train experiments/oxford.py data.source.root=FOLDER

FOLDER holds oxford/input.bs1 and oxford/output.bs1: 200 input trains of about nine spikes within 1.9 s, 200 output
trains of about 52. There is one recording, test and training part at once (an epoch shows it 20 times): this shows that
a network can be taught when to spike, and nothing about what it has not seen. The distance is van Rossum's; that of a
network which never spikes is what `experiments/benchmarks/beside.py` gives.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp import CubaLIF, Data, Dense, Experiment, Targets, Train, VanRossum, main


@dataclass(frozen=True)
class Oxford:
    """Spikes of 200 inputs, frames [1900, 200], and those of 200 outputs, in steps of 1 ms."""

    root: str = ""
    step_ms = 1.0
    targets = Targets("spikes", tuple(map(str, range(200))))

    def made_from(self) -> list[Any]:
        """The files that are read."""
        folder = Path(self.root or os.environ.get("SNN_BP_DATA", "data"), "oxford")
        return [folder / "input.bs1", folder / "output.bs1"]

    def frames(self, part: str) -> tuple[Any, ...]:
        """The one recording, whatever the part; the training part has it 20 times."""
        given, wanted = map(read_spikes, self.made_from())
        times = 20 if part == "train" else 1
        return [given] * times, [wanted.astype(np.float32)] * times


def read_spikes(file: Path) -> np.ndarray:
    """The spikes [1900, 200] of a .bs1 file, at most one for each step: 2 bytes of unit, 1 bit, 23 of microseconds."""
    bytes_of = np.fromfile(file, np.uint8).reshape(-1, 5).astype(np.int64)
    units = bytes_of[:, 0] << 8 | bytes_of[:, 1]
    microseconds = (bytes_of[:, 2] & 127) << 16 | bytes_of[:, 3] << 8 | bytes_of[:, 4]
    spikes = np.zeros((1900, 200), np.uint8)
    spikes[microseconds // 1000, units] = 1
    return spikes


experiment = Experiment(
    data=Data(Oxford(), batch=1, validation_fraction=0),
    model=(Dense(256), CubaLIF(alpha=0.9, beta=0.9), Dense(200), CubaLIF(alpha=0.9, beta=0.9)),
    train=Train(epochs=60, lr=5e-3, loss=VanRossum(tau=10), keep="last"),
)

if __name__ == "__main__":
    main(experiment)
