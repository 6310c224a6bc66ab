"""Why NIR cannot say what a network does, layer by layer, each with what would work. What is not known is refused."""

import numpy as np
import torch
from torch import Tensor, nn

from snn_bp.exchange.nir_layers import Norm, Pool, Synapse, keeps_all, synapse_before, values_now
from snn_bp.kernels.around import is_untouched
from snn_bp.model.exact import why_strange
from snn_bp.model.modules import Delays, DropoutOverTime, Neurons, SumPool
from snn_bp.model.network import Network, has_state
from snn_bp.neurons import ALIF, IF, LI, LIF, CubaLIF, has_current, is_spiking

NEURONS = (IF, LIF, CubaLIF, LI)
KNOWN = Synapse | Norm | Pool | nn.Flatten | Delays | DropoutOverTime


def refusals(network: Network, compatible: str | None) -> list[str]:
    """Every reason not to write `network`, with the layer's name in front; none where NIR says what it does."""
    if getattr(network, "floats", network) is not network:
        return ["this network computes in Loihi's integers, which NIR does not round to. Write a .net file."]
    if type(network) is not Network:
        return [f"a {type(network).__name__} may do more than its layers. Give a Network itself."]
    if not is_untouched(network):
        return ["the network has hooks, or methods put in place of its own, which a file does not hold. Take them off."]
    if any(parameter.dtype != torch.float32 for parameter in network.parameters()):
        return ["its weights are not in single precision. Use network.float()."]
    reasons = []
    for place, layer in enumerate(network.layers):
        why = why_strange(layer)
        if why is None:
            why = _no_neuron(network, place, compatible) if has_state(layer) else _no_node(network, place)
        reasons += [f"{network.name(place)} {why}"] if why else []
    return reasons


def _no_neuron(network: Network, place: int, compatible: str | None) -> str | None:
    """Why NIR has no node for the neurons at `place`, and what would have one."""
    layer = network.layers[place]
    assert isinstance(layer, Neurons)
    neuron = layer.neuron
    if type(neuron) is ALIF:
        return "adapts its threshold, no node of NIR does. Use LIF or CubaLIF."
    if type(neuron) not in NEURONS:
        known = ", ".join(kind.__name__ for kind in NEURONS)
        return f"has the neuron {type(neuron).__qualname__}, for which NIR has no node. Known: {known}."
    reset, values = getattr(neuron, "reset", "zero"), values_now(layer)
    if is_spiking(neuron) and reset != "zero":
        return f'resets by "{reset}", NIR knows only reset to a value. Train with reset="zero".'
    kept = [np.float32(values[name]) == 1 for name in ("alpha", "beta")]
    if (has_current(neuron) and kept[0].any()) or (kept[1].any() and not (is_spiking(neuron) and keeps_all(layer))):
        return "has a decay of 1, which no time constant gives. Keep decays below 1, or use IF."
    if not is_spiking(neuron) and has_current(neuron) and compatible:
        return "has a synaptic current (CubaLI), which NIR up to 1.0.4 does not know. Use LI(alpha=0)."
    if layer.recurrence is not None:
        weight, bias = layer.recurrence.weight, layer.recurrence.bias
        if bias is not None and synapse_before(network, place, Norm | DropoutOverTime) is None:
            return "has a recurrent bias, which goes into the Dense right before it; there is none. Use bias=False."
        return _no_weights(weight, bias)
    return None


def _no_node(network: Network, place: int) -> str | None:
    """Why NIR has no node for the layer without state at `place`, and what would have one."""
    layer = network.layers[place]
    if isinstance(layer, nn.MaxPool1d | nn.MaxPool2d):
        return "takes a maximum, which NIR does not know. Use Pool(size, kind='sum' or 'average')."
    if isinstance(layer, nn.AvgPool1d) or (isinstance(layer, SumPool) and len(network.shapes[place]) != 3):
        return "pools in one dimension, NIR only in two. Use a Conv with a stride."
    if isinstance(layer, nn.AvgPool2d) and not _plain_average(layer):
        return "pools with padding, another divisor or a window that is not square. Use Pool(size)."
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1):
        return "flattens some of its axes. Use Flatten()."
    if isinstance(layer, Norm):
        if synapse_before(network, place, Pool | DropoutOverTime) is None:
            return "normalises no weighted sum into which it folds. Put it right behind a Dense or Conv."
        if layer.running_mean is None or layer.running_var is None or layer.weight is None:
            return "has no running statistics, or no scale and shift of its own. Use BatchNorm()."
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return _no_convolution(layer) or _no_weights(layer.weight, layer.bias)
    if isinstance(layer, Synapse):
        return _no_weights(layer.weight, layer.bias)
    return None if isinstance(layer, KNOWN) else f"is a {type(layer).__qualname__}, for which NIR has no node here."


def _no_convolution(layer: nn.Conv1d | nn.Conv2d) -> str | None:
    if layer.padding_mode != "zeros":
        return f"pads with padding_mode={layer.padding_mode!r}, NIR only with zeros."
    if isinstance(layer.padding, str):
        return f"has padding={layer.padding!r}. Give it as a number."
    tall, wide = layer.kernel_size[0], layer.kernel_size[-1]
    if (tall - wide) % 2:
        return (
            f"has a kernel of {tall} x {wide}; NIR's own check counts square ones, and no even rim of zeros makes it "
            "one. Use sides that differ by an even number."
        )
    return None


def _plain_average(layer: nn.AvgPool2d) -> bool:
    """Whether an average is one over square windows without a rim."""
    sizes = [value if isinstance(value, tuple) else (value, value) for value in (layer.kernel_size, layer.stride)]
    rim = layer.padding if isinstance(layer.padding, tuple) else (layer.padding,)
    square = all(tall == wide for tall, wide in sizes)
    return square and not any(rim) and not layer.ceil_mode and layer.divisor_override is None


def _no_weights(weight: Tensor, bias: Tensor | None) -> str | None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (weight, bias) if tensor is not None):
        return "has weights that are not finite. Train again, `snn-bp doctor` tells where they come from."
    if not bool((weight != 0).any()):
        return "has only weights of zero: no spike passes. Train it, or leave it out."
    return None
