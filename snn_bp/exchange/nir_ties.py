"""Thresholds that no rounding decides, for neurons that receive spikes without weights in between.

Such neurons meet their threshold exactly: one spike lifts a potential from 0 to 1, and `v > 1` is false. A reader's
gain, step / tau * r, is 1 only up to rounding, and so is its decay. So the file's tau, r and threshold are in double
precision, and the threshold lies in the gap between the potentials that do not spike here and those that do, as
readers compute them: by the Euler step or by v <- beta v + x, in single or double precision, with > or >=.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

Type = type[np.float32] | type[np.float64]
READERS: tuple[tuple[bool, Type, bool, int], ...] = (  # Euler step (else beta v + x), type, >=, weight of a difference
    (True, np.float64, False, 8), (True, np.float32, False, 2),
    *((*reader, 1) for reader in product((True, False), (np.float32, np.float64), (True, False))),
)  # fmt: skip
STEPS, MAX_POTENTIALS = 24, 4096  # how many steps since rest are followed, and how many potentials of each
NEAR = 2.0**-17  # fraction of the threshold: farther from it, no rounding reaches
ULPS = (0.55, 0.75, 1, 0.45, 0.25, 0, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, -0.25, -0.45, -1, -2)
MAX_KINDS = 256  # with more kinds of neurons in a layer their thresholds are arbitrary numbers already


def off_ties(
    alpha: np.ndarray, beta: np.ndarray, theta: np.ndarray, inputs: Sequence[float], *, step: float
) -> np.ndarray:
    """The thresholds to write, in double precision, for neurons of these coefficients (in single precision).

    `inputs` are the values that may come, 0 among them. Neurons with more than `MAX_KINDS` kinds keep theirs.
    """
    rows = np.stack([each.ravel().astype(np.float32) for each in np.broadcast_arrays(alpha, beta, theta)])
    kinds, which = np.unique(rows, axis=1, return_inverse=True)
    if kinds.shape[1] > MAX_KINDS:
        return theta.astype(np.float64)
    found = np.array([_off_ties(kind[0], kind[1], kind[2], inputs, step) for kind in kinds.T])
    return found[which.ravel()].reshape(theta.shape)


def _off_ties(alpha: np.float32, beta: np.float32, theta: np.float32, inputs: Sequence[float], step: float) -> float:
    """The threshold for which the fewest readers differ, of those a few units in the last place away."""
    walks = [_Walk(alpha, beta, *reader[:2], step) for reader in READERS]
    ours = _Ours(alpha, beta)
    near, spikes = [[] for _ in walks], []
    for t in range(STEPS):
        potentials = ours.advance(inputs)
        fires = potentials > theta
        close = np.abs(potentials.astype(np.float64) - float(theta)) < NEAR * float(theta)
        kept = np.flatnonzero(~fires)
        if len(kept) > MAX_POTENTIALS:
            kept = np.random.default_rng(t).choice(kept, MAX_POTENTIALS, replace=False)
        for found, walk in zip(near, walks, strict=True):
            found.append(walk.advance(inputs)[close])
            walk.keep(kept)
        ours.keep(kept)
        spikes.append(fires[close])
    wanted = np.concatenate(spikes)
    met = [np.concatenate(found) for found in near]
    costs = []
    for ulps in ULPS:
        at = float(theta) + ulps * float(np.spacing(theta))
        costs.append(sum(
            weight * np.count_nonzero((values >= kind(at) if equal else values > kind(at)) != wanted)
            for (_, kind, equal, weight), values in zip(READERS, met, strict=True)
        ))  # fmt: skip
    return float(theta) + ULPS[int(np.argmin(costs))] * float(np.spacing(theta))


class _Ours:
    """All potentials since rest by our own equation, in single precision."""

    def __init__(self, alpha: np.float32, beta: np.float32) -> None:
        self.alpha, self.beta = alpha, beta
        self.i = self.v = np.zeros(1, np.float32)

    def advance(self, inputs: Sequence[float]) -> np.ndarray:
        """One step: each potential so far with each input."""
        x = np.repeat(np.array(inputs, np.float32), len(self.v))
        self.i = self.alpha * np.tile(self.i, len(inputs)) + x
        self.v = self.beta * np.tile(self.v, len(inputs)) + self.i
        return self.v

    def keep(self, kept: np.ndarray) -> None:
        """Go on from these alone."""
        self.i, self.v = self.i[kept], self.v[kept]


class _Walk:
    """The same as a reader computes it from the numbers of the file."""

    def __init__(self, alpha: np.float32, beta: np.float32, euler: bool, kind: Type, step: float) -> None:
        self.euler = euler
        self.stages = [_stage(float(decay), step, kind) for decay in (alpha, beta)]
        self.states = [np.zeros(1, kind), np.zeros(1, kind)]

    def advance(self, inputs: Sequence[float]) -> np.ndarray:
        """One step: each potential so far with each input."""
        x = np.repeat(np.array(inputs, self.states[0].dtype), len(self.states[0]))
        for stage, (rate, gain, decay) in enumerate(self.stages):
            state = np.tile(self.states[stage], len(inputs))
            if self.euler and decay < 1:
                state = state + rate * (gain * x - state)
            else:
                state = decay * state + (rate * gain * x if self.euler else x)
            self.states[stage] = x = state
        return x

    def keep(self, kept: np.ndarray) -> None:
        """Go on from these alone."""
        self.states = [state[kept] for state in self.states]


def _stage(decay: float, step: float, kind: Type) -> tuple[np.floating, np.floating, np.floating]:
    """Rate, gain and decay that a reader of the type `kind` makes of a time constant; a decay of 1 has none."""
    if decay == 1:
        return kind(step), kind(1 / step), kind(1)
    tau = kind(step / (1 - decay))
    return kind(step / float(tau)), kind(step / (1 - decay) / step), kind(1 - step / float(tau))
