"""Cue accumulation (Bellec et al. 2020): which side had more cues, asked a second after the last one.

    snn-bp train experiments/cues.py

Seven cues of 100 ms, 50 ms apart, come from the left or from the right, with probabilities of 0.3 and 0.7 in one
recording and 0.7 and 0.3 in the next; after a delay that varies, a recall signal of 150 ms asks for the side that had
more. 40 inputs in four groups: left and right fire at 40 Hz during their cues, recall during recall, noise at 10 Hz all
the time. Made here from a seed, in steps of 10 ms; recordings differ in length, and only the steps of recall have a
label. 1,000 recordings to train, 500 for the test.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from snn_bp import ALIF, LI, Data, Dense, Experiment, MembraneCrossEntropy, Recurrent, Targets, Tau, Train, main

CUES, CUE, BETWEEN, RECALL = 7, 10, 5, 15  # how many; steps of 10 ms


@dataclass(frozen=True)
class Cues:
    """Counts of spikes [steps, 40], and the side at every step of recall."""

    recordings: int = 1000
    shortest_delay: int = 50  # steps
    longest_delay: int = 100
    seed: int = 0
    step_ms = 10.0
    targets = Targets("class per step", ("left", "right"))

    def frames(self, part: str) -> tuple[Any, ...]:
        """The recordings of a part."""
        rng = np.random.default_rng((self.seed, part == "test"))
        frames, targets = [], []
        for _ in range(self.recordings if part == "train" else 500):
            sides = rng.random(CUES) < rng.choice([0.3, 0.7])  # True: right
            recall = CUES * (CUE + BETWEEN) + int(rng.integers(self.shortest_delay, self.longest_delay + 1))
            hertz = np.zeros((recall + RECALL, 4))
            for number, side in enumerate(sides):
                start = number * (CUE + BETWEEN)
                hertz[start : start + CUE, int(side)] = 40
            hertz[recall:, 2], hertz[:, 3] = 40, 10
            frames.append(rng.poisson(np.repeat(hertz, 10, axis=1) * self.step_ms / 1000).astype(np.uint8))
            targets.append(np.full(len(hertz), -1))  # no label
            targets[-1][recall:] = sides.sum() > CUES / 2
        return frames, targets


experiment = Experiment(
    data=Data(Cues(), batch=16),
    model=(
        *(Dense(100), Recurrent(ALIF(beta=Tau(20), rho=Tau(1500), kappa=0.05))),
        *(Dense(2), LI(beta=Tau(20))),
    ),
    train=Train(epochs=12, lr=5e-3, loss=MembraneCrossEntropy()),
)

if __name__ == "__main__":
    main(experiment)
