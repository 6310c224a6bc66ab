"""Our training step on a work, with any of our resets."""

from collections.abc import Callable
from typing import Literal

import torch

from snn_bp import LIF, Conv, Dense, FastSigmoid, Flatten, Network, Pool, Recurrent, Surrogate
from snn_bp.model.layers import Layer
from speed.steps import Step, torch_step
from speed.works import BETA, SLOPE, THETA, Material, Work


def ours(
    work: Work,
    material: Material,
    dtype: torch.dtype = torch.float32,
    *,
    reset: Literal["subtract", "zero"] = "subtract",
    detach: bool = True,
    detach_recurrent: bool = True,
    memory: Literal["full", "low"] = "full",
    surrogate: Surrogate = FastSigmoid(SLOPE),  # noqa: B008 - frozen
    device: str = "cpu",
) -> Step:
    """A step of ours; the neurons of a recurrent layer may treat the gradient of their reset differently."""
    lif = LIF(beta=BETA, threshold=THETA, reset=reset, detach_reset=detach)
    recurrent = LIF(beta=BETA, threshold=THETA, reset=reset, detach_reset=detach_recurrent)
    network = Network(_model(work, lif, recurrent), work.shape, surrogate=surrogate, memory=memory)
    network = network.to(device, dtype)
    weights = list(network.parameters())
    with torch.no_grad():
        for parameter, weight in zip(weights, material.weights, strict=True):
            parameter.copy_(torch.from_numpy(weight))
    return torch_step(network, weights, work, material, dtype, device=device)


def _model(work: Work, lif: LIF, recurrent: LIF) -> tuple[Layer, ...]:
    units = iter(work.units)
    make: dict[str, Callable[[], Layer]] = {
        "dense": lambda: Dense(next(units), bias=False),
        "conv": lambda: Conv(next(units), 5, bias=False),
        "maxpool": lambda: Pool(2, kind="max"),
        "avgpool": lambda: Pool(2, kind="average"),
        "flatten": Flatten,
        "lif": lambda: lif,
        "recurrent": lambda: (next(units), Recurrent(recurrent))[1],
    }
    return tuple(make[layer]() for layer in work.plan)
