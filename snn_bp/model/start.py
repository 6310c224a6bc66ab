"""The weights that `start_alive` scales: those in front of spiking layers, also if a mask or function makes them."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snn_bp.errors import SnnError
from snn_bp.model.exact import FORWARDS
from snn_bp.model.modules import Neurons
from snn_bp.neurons import is_spiking

CLOSE = 0.05  # of the spread that is asked for: a weight that is rounded on its way does not give it exactly


class Layers(Protocol):
    """What of a `Network` is looked at."""

    layers: nn.ModuleList

    def name(self, place: int) -> str:
        """What a message calls the layer at `place`."""
        ...


def fronts(network: Layers) -> dict[int, int]:
    """The place of the weights in front of each spiking layer, by its own, where no norm or unknown layer is between.

    Raises where such weights are used elsewhere too: one scale cannot serve two places.
    """
    found, synapse = {}, None
    for place, layer in enumerate(network.layers):
        if isinstance(layer, Neurons):
            if synapse is not None and is_spiking(layer.neuron):
                found[place] = synapse
            synapse = None
        elif isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            synapse = place
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) or type(layer) not in FORWARDS:
            synapse = None
    _check_own(network, set(found.values()))
    return found


def _check_own(network: Layers, places: set[int]) -> None:
    users: dict[int, list[int]] = {}
    for place, layer in enumerate(network.layers):
        for weight in layer.parameters():
            users.setdefault(id(weight), []).append(place)
    for shared in users.values():
        if len(shared) > 1 and places & set(shared):
            names = " and ".join(network.name(place) for place in shared)
            raise SnnError(
                f"start_alive: {names} share weights, one scale cannot serve them all. Share them after start_alive, "
                "or put BatchNorm() in front of their neurons."
            )


def scale_weight(name: str, layer: nn.Module, factor: Tensor) -> None:
    """Multiply the weight that a layer computes with, where it comes from."""
    if parametrize.is_parametrized(layer, "weight"):
        _assign(name, layer, "weight", layer.weight * factor)  # type: ignore[operator]
    elif (source := _source(layer, "weight")) is not None:
        source.mul_(factor)
    else:
        raise SnnError(
            f"start_alive: {name} makes its weight of something else, and what to scale there is not known. Call "
            "start_alive first, or put BatchNorm() in front of its neurons."
        )


def clear_bias(name: str, layer: nn.Module) -> None:
    """Set the bias that a layer adds to zero, if it has one."""
    if getattr(layer, "bias", None) is None:
        return
    if parametrize.is_parametrized(layer, "bias"):
        _assign(name, layer, "bias", torch.zeros_like(layer.bias))  # type: ignore[arg-type]
    elif (source := _source(layer, "bias")) is not None:
        source.zero_()
    else:
        raise SnnError(f"start_alive: {name} makes its bias of something else. Call start_alive first.")


def check_scaled(name: str, size: float, spread: float) -> None:
    """Raise unless a layer of another class follows the scale of its weights."""
    if not abs(size - spread) <= CLOSE * spread:
        raise SnnError(
            f"start_alive: {name} does not follow the scale of its weight: the membrane behind it fluctuates by "
            f"{size:.3g} thresholds, {spread:.3g} were asked for. Put BatchNorm() in front of its neurons."
        )


def _source(layer: nn.Module, name: str) -> nn.Parameter | None:
    """The parameter that a weight or bias is, or is proportional to."""
    own = layer._parameters
    if own.get(name) is not None:
        return own[name]
    if own.get(f"{name}_orig") is not None and f"{name}_mask" in layer._buffers:  # torch.nn.utils.prune
        return own[f"{name}_orig"]
    return own.get(f"{name}_g")  # torch.nn.utils.weight_norm


def _assign(name: str, layer: nn.Module, part: str, value: Tensor) -> None:
    """Give a parametrised weight a value, where its parametrisation knows a way back."""
    try:
        setattr(layer, part, value)
        close = torch.allclose(getattr(layer, part), value, rtol=1e-3, atol=1e-6)
    except (NotImplementedError, RuntimeError, ValueError):
        close = False
    if not close:
        raise SnnError(
            f"start_alive: {name} has a parametrised {part} that does not take another scale. Call start_alive first, "
            "or put BatchNorm() in front of its neurons."
        )
