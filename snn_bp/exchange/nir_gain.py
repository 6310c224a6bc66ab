"""Where the input gain of a neuron goes: back into the weights in front of it, one factor for each of their rows."""

from collections.abc import Sequence

import numpy as np

from snn_bp.model.layers import Shape


def rows(gain: np.ndarray, between: Sequence[tuple[str, Shape]]) -> np.ndarray | None:
    """The factors of the rows (channels) of a weighted sum that give each neuron behind it its `gain` `[*neurons]`.

    `between` are the layers that lie between, ("pool", "flatten" or "delay", shape of the input), in order. None where
    no factors do it: neurons that share a kernel, or a window, have different gains.
    """
    for kind, shape in reversed(between):
        if kind == "pool":
            channels = by_channel(gain)
            if channels is None:
                return None
            gain = np.broadcast_to(channels.reshape(-1, *[1] * (len(shape) - 1)), shape)
        else:
            gain = gain.reshape(shape)
    return by_channel(gain)


def by_channel(gain: np.ndarray) -> np.ndarray | None:
    """The one value of each channel (of each neuron of a flat layer), None where they differ within one."""
    flat = gain.reshape(gain.shape[0], -1)
    return flat[:, 0] if bool((flat == flat[:, :1]).all()) else None


def scaled(weight: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """A weight `[rows, ...]` with each row times its factor."""
    return weight * factors.reshape(-1, *[1] * (weight.ndim - 1))
