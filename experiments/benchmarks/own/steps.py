"""A class for every step, in recordings of different lengths: did the input flip since the step before the last?"""

from dataclasses import dataclass

import numpy as np

from snn_bp import LI, LIF, BatchNorm, Data, Dense, Experiment, MembraneCrossEntropy, Recurrent, Targets, Train


@dataclass(frozen=True)
class Flips:
    """Bits on 6 channels, 10 to 25 steps, and for each step from the third on whether most channels have flipped."""

    recordings: int = 160
    targets = Targets("class per step", ("stays", "flips"))
    step_ms = 1

    def frames(self, part: str):
        """Frames, targets and lengths."""
        rng = np.random.default_rng(("train", "test").index(part))
        lengths = rng.integers(10, 26, self.recordings)
        x = np.repeat(rng.integers(0, 2, (self.recordings, 25, 1)), 6, 2) ^ (rng.random((self.recordings, 25, 6)) < 0.1)
        wanted = (x[:, 2:] != x[:, :-2]).mean(2) > 0.5
        return x.astype(np.uint8), np.pad(wanted.astype(int), ((0, 0), (2, 0)), constant_values=-1), lengths


experiment = Experiment(
    Data(Flips(), batch=16),
    (Dense(24), BatchNorm(), Recurrent(LIF(beta=0.7, reset="zero")), Dense(2), LI(beta=0.5)),
    Train(epochs=8, lr=5e-3, loss=MembraneCrossEntropy()),
)
