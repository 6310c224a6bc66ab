"""What an inference costs, under NeuroBench's names and equal to its numbers (Yik et al. 2025, its package 2.3.0).

They are those of its counters on `to_snntorch(network)`, stepped over the same batches. What is peculiar in them:

- A step of a layer whose inputs are all 0, 1 or -1, in every recording of the batch, is Effective_ACs; all operations
  of another step are Effective_MACs. So the two depend on which recordings share a batch; their sum does not.
- Weights that are 0 count in Dense alone. Biases, norms, pools and the neurons' own steps count nowhere.
- ActivationSparsity is that of neurons, ReLU and Sigmoid; a readout is silent neurons in it.
- Footprint has no states. snnTorch's neurons keep thresholds and decays as buffers, which it counts, ours as numbers.
- It adds in 32-bit floats, which round from 2**24 operations of a layer, batch and step on. The sums here are exact.

Beyond it, which knows dense layers and convolutions alone: other layers with weights count by the same rules, and
steps that a recording does not have are left out.
"""

from collections.abc import Iterator, Mapping
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from snn_bp.errors import check_number, is_number
from snn_bp.model.blocks import LayerAt, every_part, parts_of
from snn_bp.model.masks import by_length, present
from snn_bp.model.modules import Neurons
from snn_bp.model.network import Network
from snn_bp.model.operations import has_synapses, operations
from snn_bp.neurons import is_spiking

OF_ALL = ("ParameterCount", "Footprint", "ConnectionSparsity", "ActivationSparsity")
OF_OPERATIONS = ("Effective_MACs", "Effective_ACs", "Dense")
MAC_PJ, AC_PJ = 4.6, 0.9  # Horowitz 2014: a product takes 3.7 and a sum 0.9, of 32-bit floats in 45 nm at 0.9 V


class Counters:
    """NeuroBench's counters of a network, which `add` takes through it layer by layer and batch by batch."""

    def __init__(self) -> None:
        self.dense, self.macs, self.acs = 0.0, 0.0, 0.0
        self.zeros, self.activations = 0, 0

    def add(self, at: LayerAt, entering: Tensor, out: Tensor, there: Tensor, met: float) -> None:
        """Count one layer, from what enters it and what it puts out, `[time, batch, ...]`, both zero where a recording
        has no step; `there` `[time, batch]` is True where it has one. `met`: its `operations`, by all its weights."""
        layer: Any = at.layer
        if is_activation(layer):
            sends = at.role != "neurons" or is_spiking(layer.neuron)
            total = int(there.sum()) * out[0, 0].numel()
            self.activations += total
            self.zeros += total - int(out.count_nonzero()) * sends
        if at.role == "neurons" and layer.recurrence is not None:
            before = torch.cat((torch.zeros_like(out[:1]), out[:-1]))
            self._connections(layer.recurrence, present(before, there), there, met)
        elif has_synapses(layer):
            self._connections(layer, entering, there, met, over_time=at.role == "stateful")

    def _connections(self, layer: Any, x: Tensor, there: Tensor, met: float, *, over_time: bool = False) -> None:
        """Count the operations of a layer on `x`; `over_time`: those of a step depend on the steps before it."""

        def count(x: Tensor, weights: Tensor | None) -> float:
            pieces = by_length(x, there) if over_time else (x,)
            return sum(operations(layer, piece, weights) or 0.0 for piece in pieces)

        every = torch.ones_like(layer.weight, dtype=torch.bool)
        if over_time:
            self.dense += count(torch.ones_like(x), every)
        else:
            self.dense += count(torch.ones_like(x[:1, :1]), every) * int(there.sum())
        nonzero = None if layer.weight.all() else layer.weight != 0
        in_spikes = ((x == 0) | (x == 1) | (x == -1)).flatten(1).all(1, keepdim=True)
        whole = met if nonzero is None else count(x, nonzero)
        acs = whole if in_spikes.all() else count(present(x, in_spikes), nonzero)
        self.acs += acs
        self.macs += whole - acs

    def plus(self, other: "Counters") -> "Counters":
        """These counts and others."""
        found = Counters()
        for name, count in vars(self).items():
            setattr(found, name, count + getattr(other, name))
        return found

    def figures(self, network: Network, samples: int) -> dict[str, Any]:
        """The figures by NeuroBench's names: of the network, and of an inference, the mean of `samples`."""
        counts = dict(zip(OF_OPERATIONS, (self.macs, self.acs, self.dense), strict=True))
        weights = list(_weights(network))
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        tensors = [*network.parameters(), *network.buffers()]
        return {
            "ParameterCount": sum(weight.numel() for weight in network.parameters()),
            "Footprint": sum(tensor.numel() * tensor.element_size() for tensor in tensors),  # bytes
            "ConnectionSparsity": round(zeros / max(1, sum(weight.numel() for weight in weights)), 4),
            "ActivationSparsity": self.zeros / max(1, self.activations),
            "SynapticOperations": {name: count / samples for name, count in counts.items()},
        }


@singledispatch
def is_activation(layer: nn.Module) -> bool:
    """Whether NeuroBench counts what the layer puts out as activations."""
    return False


@is_activation.register(Neurons)
@is_activation.register(nn.ReLU)
@is_activation.register(nn.Sigmoid)
def _activation(layer: nn.Module) -> bool:
    return True


def is_cost(figures: Any) -> bool:
    """Whether these are what `Counters.figures` gives."""
    if not isinstance(figures, dict) or not isinstance(figures.get("SynapticOperations"), dict):
        return False
    numbers = figures | figures["SynapticOperations"]
    return all(is_number(numbers.get(name)) for name in (*OF_ALL, *OF_OPERATIONS))


def energy_pj(figures: Mapping[str, Any], *, mac_pj: float = MAC_PJ, ac_pj: float = AC_PJ) -> float:
    """An estimate of the energy of an inference in pJ: `mac_pj` for each effective MAC, `ac_pj` for each AC.

    Memory, whose accesses take more than the arithmetic, the neurons' own steps, and leakage are not in it.
    """
    for name, value in {"mac_pj": mac_pj, "ac_pj": ac_pj}.items():
        check_number(f"energy_pj: {name}", value, low=0)
    operations = figures["SynapticOperations"]
    return operations["Effective_MACs"] * mac_pj + operations["Effective_ACs"] * ac_pj


def cost_in_words(figures: Mapping[str, Any]) -> list[str]:
    """NeuroBench's figures, and the energy by the usual values with its assumptions, in two sentences."""
    counts = figures["SynapticOperations"]
    macs, acs, dense = (f"{counts[name]:,.0f}" for name in OF_OPERATIONS)
    sparsity = [f"{figures[f'{what}Sparsity']:.1%} of {what.lower()}s zero" for what in ("Activation", "Connection")]
    return [
        f"NeuroBench: {macs} effective MACs and {acs} ACs of {dense} dense operations for each inference, "
        f"{', '.join(sparsity)}, {figures['ParameterCount']:,} parameters, footprint {figures['Footprint']:,} bytes",
        f"energy estimate: {energy_pj(figures) / 1e6:.3g} uJ for each inference, at {MAC_PJ} pJ a MAC and {AC_PJ} pJ "
        "an AC (32-bit floats in 45 nm, Horowitz 2014), without memory, neurons' own steps and leakage",
    ]


def _weights(network: Network) -> Iterator[Tensor]:
    """The weights of every layer that has synapses."""
    for part in every_part(parts_of(network)):
        layer: Any = part.layer.recurrence if part.role == "neurons" else part.layer  # type: ignore[union-attr]
        if layer is not None and has_synapses(layer):
            yield layer.weight
