"""The four works of the speed benchmark: one input, one set of weights for all libraries, hidden rates near 5 %.

A work is neutral: a plan of layer names, weights in torch's layout (`[out, in, ...]`) in the order in which the plan
asks for them, and an input `[time, batch, ...]`. Every library builds its own network from these.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from snn_bp import LIF, simulate

BETA, THETA, SLOPE = 0.9, 1.0, 10.0  # of every neuron and surrogate; 0.9 = 1 - 1 / 10
RATE = 0.05  # spikes per step that weights are scaled to


@dataclass(frozen=True)
class Work:
    """What is computed; the neuron-only work has no weights, and its input is a current."""

    name: str
    plan: tuple[str, ...]
    shape: tuple[int, ...]  # of one step of one sample
    units: tuple[int, ...]  # outputs of each weight layer, in order
    steps: int
    batch: int
    density: float = 0.05  # share of ones in the input


class Material(NamedTuple):
    """The arrays of a work."""

    x: np.ndarray  # [time, batch, ...]
    targets: np.ndarray  # [batch], classes
    weights: list[np.ndarray]  # torch's layout
    pull: np.ndarray  # gradient given at the spikes of the neuron-only work, else empty


HIDDEN = ("dense", "lif")
POOLED = ("conv", "{0}pool", "lif", "conv", "{0}pool", "lif", "flatten", *HIDDEN)
WORKS = {
    work.name: work
    for work in (
        Work("W1", HIDDEN * 3, (700,), (256, 256, 20), steps=500, batch=64),
        Work("W2", ("lif",), (16384,), (), steps=500, batch=1),
        Work("W2x4", ("lif",), (16384,), (), steps=500, batch=4),
        Work("W3", tuple(layer.format("max") for layer in POOLED), (2, 34, 34), (12, 32, 10), steps=25, batch=32),
        Work("W3avg", tuple(layer.format("avg") for layer in POOLED), (2, 34, 34), (12, 32, 10), steps=25, batch=32),
        Work("W4", ("dense", "recurrent", *HIDDEN), (700,), (256, 256, 20), steps=250, batch=64),
    )
}  # fmt: skip
TITLES = {
    "W1": "feed-forward LIF 700-256-256-20, T=500, B=64",
    "W2": "one LIF layer of 16384, T=500, B=1, neuron only",
    "W2x4": "one LIF layer of 16384, T=500, B=4, neuron only",
    "W3": "conv5x5 12, maxpool2, LIF, conv5x5 32, maxpool2, LIF, dense 10, LIF on 2x34x34, T=25, B=32",
    "W3avg": "W3 with average pooling",
    "W4": "LIF 700-256-20 with dense recurrence in the hidden layer, T=250, B=64",
}


def material(work: Work, folder: Path) -> Material:
    """The arrays of a work, made once for each folder."""
    file = folder / f"{work.name}-{work.steps}-{work.batch}-{work.density}.npz"
    if not file.exists():
        made = _make(work, folder)
        arrays = {"x": made.x, "targets": made.targets, "pull": made.pull, **_named(made.weights)}
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType] - its other argument has a default
    stored = np.load(file)
    weights = [stored[name] for name in sorted(stored.files) if name.startswith("weight")]
    return Material(stored["x"].astype(np.float32), stored["targets"], weights, stored["pull"])


def _named(weights: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"weight{place}": weight for place, weight in enumerate(weights)}


def _make(work: Work, folder: Path) -> Material:
    draw = np.random.default_rng(0)
    full = (work.steps, work.batch, *work.shape)
    targets = draw.integers(0, work.units[-1] if work.units else 1, work.batch)
    if not work.units:  # currents that make a LIF spike at about the same rate as elsewhere
        x = draw.normal(0.1, 0.35, full).astype(np.float32)
        return Material(x, targets, [], draw.normal(0, 1, full).astype(np.float32))
    x = (draw.random(full, dtype=np.float32) < work.density).astype(np.uint8)
    scale_on = WORKS[work.name].steps, 16  # longer and shorter runs have the same weights
    if (work.steps, work.batch) == (scale_on[0], WORKS[work.name].batch):
        weights = _scaled(work, torch.from_numpy(x[:, : scale_on[1]]).float(), draw)
    else:
        weights = material(replace(work, steps=scale_on[0], batch=WORKS[work.name].batch), folder).weights
    return Material(x, targets, weights, np.empty(0, np.float32))


@torch.no_grad()
def _scaled(work: Work, x: Tensor, draw: np.random.Generator) -> list[np.ndarray]:
    """Normal weights, layer by layer scaled so that the neurons behind them spike at `RATE`."""
    weights: list[Tensor] = []
    units = iter(work.units)
    for place, layer in enumerate(work.plan):
        if layer in ("dense", "conv"):
            fan_in = (x.shape[2],) if layer == "dense" else (x.shape[2], 5, 5)
            shape = (next(units), *fan_in)
            drawn = draw.normal(0, 1 / math.sqrt(math.prod(fan_in)), shape)
            weights.append(torch.from_numpy(drawn.astype(np.float32)))
            x = apply_weights(layer, x, weights[-1])
        elif layer.endswith("pool"):
            x = pool(layer, x)
        elif layer == "flatten":
            x = x.flatten(2)
        else:
            recurrence = None
            if layer == "recurrent":
                neurons = next(units)
                drawn = draw.normal(0, 0.5 / math.sqrt(neurons), (neurons, neurons))
                recurrence = torch.from_numpy(drawn.astype(np.float32))
            gain, x = _gain(x, recurrence)
            weights[-1] *= gain
            if recurrence is not None:
                weights.append(recurrence * gain)
        assert torch.isfinite(x).all(), work.plan[place]
    return [weight.numpy() for weight in weights]


def _gain(current: Tensor, recurrence: Tensor | None) -> tuple[float, Tensor]:
    """By bisection: the factor on the current (and recurrence) at which neurons spike at `RATE`, and their spikes."""
    low, high = 1e-2, 1e2
    for _ in range(16):
        gain = math.sqrt(low * high)
        spikes = _spikes(gain * current, None if recurrence is None else gain * recurrence)
        low, high = (gain, high) if spikes.mean() < RATE else (low, gain)
    return gain, spikes


def _spikes(current: Tensor, recurrence: Tensor | None) -> Tensor:
    neuron = LIF(beta=BETA, threshold=THETA)
    if recurrence is None:
        return simulate(neuron, current)[0]
    s, state, spikes = torch.zeros_like(current[0]), None, []
    for x in current:
        out, state = simulate(neuron, (x + s @ recurrence.T)[None], state)
        s = out[0]
        spikes.append(s)
    return torch.stack(spikes)


def apply_weights(layer: str, x: Tensor, weight: Tensor) -> Tensor:
    """A dense or convolutional layer on `[time, batch, ...]`."""
    if layer == "dense":
        return F.linear(x, weight)
    return F.conv2d(x.flatten(0, 1), weight).unflatten(0, x.shape[:2])


def pool(layer: str, x: Tensor) -> Tensor:
    """Pooling over windows of 2 x 2 on `[time, batch, ...]`."""
    pooled = (F.max_pool2d if layer == "maxpool" else F.avg_pool2d)(x.flatten(0, 1), 2)
    return pooled.unflatten(0, x.shape[:2])
