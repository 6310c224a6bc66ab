"""Analog series by a source of one's own, made into level crossings: which of three waves, in noise, is it?"""

from dataclasses import dataclass

import numpy as np

from snn_bp import LI, LIF, BatchNorm, Data, Delta, Dense, Experiment, MembraneCrossEntropy, Recurrent, Train


@dataclass(frozen=True)
class Waves:
    """Signals `[recordings, 40, 2]` of three frequencies."""

    recordings: int = 150
    class_names = ("slow", "middle", "fast")
    step_ms = 5

    def frames(self, part: str):
        """Signals, and the number of the frequency of each."""
        rng = np.random.default_rng(("train", "test").index(part))
        labels = np.arange(self.recordings) % 3
        times = np.arange(40)[None, :, None] / 40 + rng.random((self.recordings, 1, 1))
        waves = np.sin(2 * np.pi * times * (2 + 3 * labels[:, None, None]) + (0, np.pi / 2))
        return (waves + rng.normal(0, 0.05, waves.shape)).astype(np.float32), labels


experiment = Experiment(
    Data(Waves(), encoder=Delta(threshold=0.1), batch=16),
    (Dense(24), BatchNorm(), Recurrent(LIF(beta=0.9, reset="zero")), Dense(3), LI(beta=0.9)),
    Train(epochs=8, lr=5e-3, loss=MembraneCrossEntropy()),
)
