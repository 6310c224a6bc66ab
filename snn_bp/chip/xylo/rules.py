"""What Xylo can hold of a network: a rule for each role that a layer can have, and a refusal where there is none."""

import math
from collections.abc import Callable

import torch
from torch import nn

from snn_bp.chip.arithmetic import FOR_XYLO
from snn_bp.chip.rules import is_behind_weights, name_of, neurons_of
from snn_bp.chip.xylo.configuration import DASH_HIGH, HIDDEN, INPUTS, OUTPUTS
from snn_bp.errors import SnnError
from snn_bp.model.blocks import Block, LayerAt, Layers, Role, blocks
from snn_bp.model.constrained import ConstrainedLinear
from snn_bp.model.exact import check_exact
from snn_bp.neurons import CubaLIF, coefficients

XYLO = FOR_XYLO.where
RESET = "subtract_before_leak"
KNOWN = "Known: Dense, BatchNorm, Flatten, Dropout and CubaLIF, Recurrent around it too."
NEURON = f"CubaLIF(alpha=0.5, beta=0.875, reset={RESET!r}, detach_reset=False)"


def xylo_blocks(network: Layers) -> list[Block]:
    """The blocks of a network, hidden ones and the outputs; raises where a layer has no place on the chip."""
    found = blocks(network, XYLO)
    for block in found:
        if block.neurons is None:
            raise SnnError(
                f"{XYLO}, {network.name(block.parts[-1].index)} has no neurons behind it. End with {NEURON}."
            )
        for part in block.parts:
            check_exact(XYLO, network.name(part.index), part.layer)
            if part.role not in RULES:
                raise SnnError(f"{XYLO}, {network.name(part.index)}: the chip has nothing like it. {KNOWN}")
            if why := RULES[part.role](block, part):
                raise SnnError(f"{XYLO}, {name_of(network, block)}: {why}")
        if not block.of("weights"):
            raise SnnError(f"{XYLO}, {name_of(network, block)}: no synapses lead to it. Put a Dense in front.")
    _check_sizes(network, found)
    return found


def dash_of(decay: float) -> int | None:
    """The shift k that is a decay of 1 - 2 ** -k; None where none is."""
    if not 0 <= decay < 1:
        return None
    dash = -math.log2(1 - decay)
    return int(dash) if dash == int(dash) and dash <= DASH_HIGH else None


def _check_sizes(network: Layers, found: list[Block]) -> None:
    sizes = [math.prod(neurons_of(block).shape) for block in found]
    last = found[-1]
    if len(found) < 2:
        raise SnnError(
            f"{XYLO}: outputs get spikes of hidden neurons only, found one layer. Put Dense(64) and {NEURON} first."
        )
    if neurons_of(last).recurrence is not None:
        raise SnnError(
            f"{XYLO}, {name_of(network, last)}: outputs get spikes of hidden neurons only. Use it without Recurrent."
        )
    inputs = math.prod(network.input_shape)
    for name, count, most, remedy in (
        ("inputs", inputs, INPUTS, "Sum channels up in the data, as by data.downsample"),
        ("hidden neurons", sum(sizes[:-1]), HIDDEN, "Use fewer"),
        ("outputs", sizes[-1], OUTPUTS, "Use fewer classes"),
    ):
        if count > most:
            raise SnnError(f"{XYLO}: the network has {count} {name}, the chip {most}. {remedy}.")


def _neurons(block: Block, part: LayerAt) -> str | None:
    neurons = neurons_of(block)
    neuron = neurons.neuron
    if type(neuron) is not CubaLIF:
        return f"{type(neuron).__name__} is not the chip's neuron, which has a current and fires. Use {NEURON}."
    if neuron.reset != RESET:
        return f"it resets by {neuron.reset!r}, the chip takes the threshold off before it leaks. Use reset={RESET!r}."
    if neurons.learned:
        return f"it learns {', '.join(neurons.learned)}; a decay is a shift here, and weights learn for a threshold."
    if len(neurons.shape) > 1:
        return "its neurons are an image; the chip has a row of them. Use Dense."
    for name in ("alpha", "beta"):
        for decay in torch.as_tensor(coefficients(neuron)[name], dtype=torch.float64).flatten().tolist():
            dash = dash_of(decay)
            if dash is None or (name == "alpha" and dash == 0):
                nearest = min(max(round(-math.log2(max(1 - decay, 2**-20))), 1), DASH_HIGH)
                least = 0.5 if name == "alpha" else 0
                return (
                    f"{name}={decay:.4g}: the chip decays by a shift k, 1 - 2 ** -k, in {least}..1 - 2 ** "
                    f"-{DASH_HIGH}. The nearest is {name}={1 - 2**-nearest}."
                )
    return None


def _weights(block: Block, part: LayerAt) -> str | None:
    if type(part.layer) not in (nn.Linear, ConstrainedLinear):
        return "the chip has no convolutions. Use Dense."
    if len(block.of("weights")) > 1:
        return f"two weighted sums in a row. Put {NEURON} between them, or leave one out."
    return None


def _norm(block: Block, part: LayerAt) -> str | None:
    if not is_behind_weights(block, part):
        return "a BatchNorm stands behind a Dense, into whose weights it folds."
    return None


def _dropout(block: Block, part: LayerAt) -> str | None:
    if is_behind_weights(block, part):
        return "a Dropout of weighted sums; put it in front of the Dense, where it silences inputs."
    return None


RULES: dict[Role, Callable[[Block, LayerAt], str | None]] = {
    "neurons": _neurons, "weights": _weights, "norm": _norm, "flatten": lambda block, part: None, "dropout": _dropout,
}  # fmt: skip
