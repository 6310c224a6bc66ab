"""Which layers run as one operation: dense layers each followed by its neurons, and neurons behind their norm.

A norm between weights and neurons folds into the weights in evaluation; in training it needs the whole weighted sum
first, and parts the chain. All equals the layers one by one up to the order of summation.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from snn_bp.kernels import (
    FIRST,
    LAST,
    first_state,
    lies_channels_last,
    parameters_of,
    permuted,
    runs_compiled,
    state_of,
)
from snn_bp.kernels.bind import Constants
from snn_bp.kernels.cpu import chain as fused
from snn_bp.kernels.cpu.chain import Memory
from snn_bp.kernels.cpu.norm_neurons import Norm, Ran
from snn_bp.kernels.cpu.norm_neurons import run_layer as run_tensors
from snn_bp.model.exact import has_all_parts, is_exact, runs_here
from snn_bp.model.modules import Neurons
from snn_bp.neurons import State, is_spiking

LONG = 50  # steps: above, potentials are kept sooner than computed again where no norm keeps the input anyway


class Block(NamedTuple):
    """A dense layer, a norm that only scales, and neurons; recurrent neurons may stand without the dense layer."""

    synapse: nn.Linear | None
    norm: nn.BatchNorm1d | None
    layer: Neurons

    @property
    def neurons(self) -> Neurons:
        """The neurons, recurrent or not."""
        return self.layer

    @property
    def places(self) -> int:
        """How many layers of the network it takes."""
        return sum(part is not None for part in self)


def chain_at(layers: Sequence[nn.Module], place: int, x: Tensor) -> list[Block]:
    """The blocks from `place` on that can run as one operation on the input `x`; none where it is not for them."""
    if x.dim() != 3 or x.numel() == 0 or _block_at(layers, place, first=True) is None or not runs_compiled(x):
        return []
    blocks, inputs, dtype = [], x.shape[2], x.dtype if x.is_floating_point() else torch.float32
    while (block := _block_at(layers, place, first=not blocks)) is not None and _runs(block, inputs, dtype):
        blocks.append(block)
        place += block.places
        (inputs,) = block.neurons.shape
        if not is_spiking(block.neurons.neuron):
            break
    return blocks


def run_chain(
    blocks: list[Block], x: Tensor, states: Sequence[State | None], *, memory: Memory
) -> tuple[Tensor, list[Tensor], list[State]]:
    """Output of the last block, mean output of each neuron of each block, and their states after the last step."""
    constants = [Constants.of(block.neurons.neuron) for block in blocks]
    layers = [_tensors(*each, x) for each in zip(blocks, constants, states, strict=True)]
    chain = fused.Chain(tuple(constants), tuple(block.neurons.surrogate for block in blocks), memory)
    out, rates, last = fused.run_layers(x, layers, chain)
    return out, rates, [state_of(parts, kind) for parts, kind in zip(last, constants, strict=True)]


class Layer(NamedTuple):
    """Neurons and the norm in front of them, if there is one and it is in training."""

    norm: nn.BatchNorm1d | nn.BatchNorm2d | None
    neurons: Neurons

    @property
    def places(self) -> int:
        """How many layers of the network it takes."""
        return 1 if self.norm is None else 2


def layer_at(layers: Sequence[nn.Module], place: int, x: Tensor) -> Layer | None:
    """The neurons at `place`, with the norm in front of them, that can run as one operation on `x`."""
    if x.dim() < 3 or x.numel() == 0:
        return None
    found = list(layers[place : place + 2])
    norm = found.pop(0) if _averages(found[0], x) else None
    if not found or type(found[0]) is not Neurons or (norm is None and len(x) > LONG) or not runs_compiled(x):
        return None
    if not runs_here(found[0], x.dtype) or (norm is not None and not runs_here(norm, x.dtype)):
        return None
    return Layer(norm, found[0])  # type: ignore[arg-type]


def run_layer(layer: Layer, x: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
    """Output of the neurons on `x`, mean output of each, and their state; the norm's running statistics follow."""
    norm, neurons = layer
    constants = Constants.of(neurons.neuron)
    parameters = parameters_of(neurons.neuron, x, neurons.parameters_now())
    parts = None if state is None else first_state(neurons.neuron, x, state, constants)
    last = lies_channels_last(x)
    z = x.permute(LAST) if last else x.contiguous()
    if last:
        parameters = permuted(parameters, LAST)
        parts = None if parts is None else permuted(parts, LAST)
    parameters = tuple(value[0] if value.dim() else value for value in parameters)
    asked = None if norm is None else Norm(norm.weight, norm.bias, norm.eps)
    ran = run_tensors(z, asked, 4 if last else 2, parts, parameters, constants, neurons.surrogate)
    if norm is not None:
        _follow(norm, ran, count=x.numel() // x.shape[2])
    if not last:
        return ran.out, ran.means, state_of(ran.last, constants)
    return ran.out.permute(FIRST), ran.means.permute(2, 0, 1), state_of(permuted(ran.last, FIRST), constants)


def has_chain(network: Iterable[nn.Module]) -> bool:
    """Whether any layers can run as a chain, in the mode they are in."""
    layers = list(network)
    found = (_block_at(layers, place, first=True) for place in range(len(layers)))
    return any(block is not None and all(is_exact(part) for part in block if part is not None) for block in found)


def _block_at(layers: Sequence[nn.Module], place: int, *, first: bool) -> Block | None:
    """The layers at `place` that would be a block if each of them is what its class says."""
    found = list(layers[place : place + 3])
    synapse = found.pop(0) if found and type(found[0]) is nn.Linear else None
    folds = synapse is not None and bool(found) and type(found[0]) is nn.BatchNorm1d and not found[0].training
    norm = found.pop(0) if folds else None
    layer = found[0] if found else None
    if type(layer) is not Neurons:
        return None
    starts = synapse is not None or (first and layer.recurrence is not None)
    return Block(synapse, norm, layer) if starts else None  # type: ignore[arg-type]


def _runs(block: Block, inputs: int, dtype: torch.dtype) -> bool:
    """Whether a block is exactly ours, in numbers of `dtype`, and its sizes fit each other and its inputs."""
    synapse, norm, layer = block
    if not runs_here(layer, dtype):
        return False
    shape = tuple(block.neurons.shape)
    if synapse is not None:
        if not runs_here(synapse, dtype):
            return False
        weights = synapse._parameters
        if _misfits(weights["weight"], (*shape, inputs)) or _misfits(weights["bias"], shape):
            return False
    elif shape != (inputs,):
        return False
    if norm is not None and not (runs_here(norm, dtype) and has_all_parts(norm) and norm.weight.shape == shape):
        return False
    if layer.recurrence is not None:
        loop = layer.recurrence
        return not _misfits(loop.weight, shape * 2) and not _misfits(loop.bias, shape)
    return True


def _misfits(values: Tensor | None, shape: tuple[int, ...]) -> bool:
    return values is not None and values.shape != shape


def _averages(norm: nn.Module, x: Tensor) -> bool:
    """Whether a layer is a norm that takes the statistics of its input, in the way that `run_layer` knows."""
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d):
        return False
    known = has_all_parts(norm) and norm.track_running_stats and norm.momentum is not None
    images = (x.dim() == 5) == (type(norm) is nn.BatchNorm2d) and x.dim() <= 5
    return norm.training and known and images and x.numel() > x.shape[2] and x.shape[2] == norm.num_features


@torch.no_grad()
def _follow(norm: nn.BatchNorm1d | nn.BatchNorm2d, ran: Ran, *, count: int) -> None:
    """Move the running statistics as torch does, to the variance without bias."""
    assert ran.mean is not None and ran.variance is not None and norm.momentum is not None
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(ran.mean, norm.momentum)
    norm.running_var.lerp_(ran.variance * (count / (count - 1)), norm.momentum)


def _tensors(block: Block, constants: Constants, state: State | None, x: Tensor) -> fused.Layer:
    weight, bias = (None, None) if block.synapse is None else (block.synapse.weight, block.synapse.bias)
    if block.norm is not None:
        assert weight is not None and block.norm.running_var is not None and block.norm.running_mean is not None
        scale = block.norm.weight * (block.norm.running_var + block.norm.eps).rsqrt()
        centre = block.norm.running_mean if bias is None else block.norm.running_mean - bias
        weight, bias = weight * scale[:, None], block.norm.bias - centre * scale
    recurrent = None
    if block.layer.recurrence is not None:
        recurrent, shift = block.layer.recurrence.weight, block.layer.recurrence.bias
        bias = shift if bias is None else bias if shift is None else bias + shift
    neurons = block.neurons
    like = x[:1, :, :1].expand(1, -1, *neurons.shape)
    like = like if weight is None else like.to(weight.dtype)
    parts = None if state is None else first_state(neurons.neuron, like, state, constants)
    parameters = parameters_of(neurons.neuron, like, neurons.parameters_now())
    each = tuple(value if value.dim() == 0 else value[0] for value in parameters)
    return fused.Layer(weight, bias, recurrent, parts, each)  # type: ignore[arg-type]
