"""What the steps of a plan run: kernels for layers that are exactly ours, and a layer's own forward for all others."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor, nn

from snn_bp.errors import SnnError
from snn_bp.kernels import cpu, first_state, parameters_of, state_of
from snn_bp.kernels.cpu import Memory
from snn_bp.kernels.layout import CHANNELS_FIRST, CHANNELS_LAST, lies_channels_last, permuted
from snn_bp.model.blocks import fold, follow, role_of
from snn_bp.model.constrained import ConstrainedLinear
from snn_bp.model.followed import by_torch
from snn_bp.model.modules import Neurons
from snn_bp.model.shard import check_spread, shard
from snn_bp.neurons import State

if TYPE_CHECKING:
    from snn_bp.kernels.cpu.packed_layer import LayerTensors

# input and states before to output, mean output of each neuron (None: not known yet) and states after, a layer each
Run: TypeAlias = Callable[[Tensor, list[State | None]], tuple[Tensor, list[Tensor] | None, list[State]]]
CHAIN, COMPILED, ONE_BY_ONE = "one event-driven operation", "one compiled operation", "one by one"
BY_EVENTS, AS_IT_IS, JOINED = "by events", "as it is", "its branches joined"
MASKED = "over the steps that there are"


def linear(rows: Tensor, *layers: nn.Module) -> Tensor:
    """A dense layer by the kernels, which are imported when the first is called."""
    return cpu.sparse_ops.linear(rows, *layers)  # type: ignore[arg-type]


def convolve(rows: Tensor, *layers: nn.Module) -> Tensor:
    """A convolution, and what pools behind it."""
    return cpu.sparse_ops.convolve(rows, *layers)  # type: ignore[arg-type]


def max_pool(rows: Tensor, layer: nn.MaxPool2d) -> Tensor:
    """A maximum over windows."""
    return cpu.pool.max_pool(rows, layer)


KERNELS: dict[type[nn.Module], Callable] = {
    nn.Linear: linear, ConstrainedLinear: linear, nn.Conv2d: convolve, nn.MaxPool2d: max_pool
}  # fmt: skip


def run_chain(links, memory: Memory, x: Tensor, states: list[State | None]):
    """Dense layers with norms that only scale, each followed by its neurons."""
    equations = tuple(link.neurons.neuron.equation for link in links)
    layers = [_tensors(*each, x) for each in zip(links, states, strict=True)]
    surrogates = tuple(link.neurons.surrogate for link in links)
    out, means, last = cpu.chain.run_layers(x, layers, cpu.chain.Chain(equations, surrogates, memory))
    return out, means, [state_of(link.neurons.neuron, state) for link, state in zip(links, last, strict=True)]


def _tensors(link, state: State | None, x: Tensor) -> "LayerTensors":
    weights, norm, neurons = link
    weight, bias = (None, None) if weights is None else (weights.weight, weights.bias)
    if norm is not None:
        weight, bias = fold(norm, weight, bias)  # type: ignore[arg-type]
    recurrent = None
    if neurons.recurrence is not None:
        recurrent, shift = neurons.recurrence.weight, neurons.recurrence.bias
        bias = shift if bias is None else bias if shift is None else bias + shift
    like = x[:1, :, :1].expand(1, -1, *neurons.shape)
    like = like if weight is None else like.to(weight.dtype)
    first = None if state is None else first_state(neurons.neuron, like, state)
    parameters = parameters_of(neurons.neuron, like, neurons.parameters_now())
    values = tuple(value if value.dim() == 0 else value[0] for value in parameters.values())
    return cpu.packed_layer.LayerTensors(weight, bias, recurrent, first, values)


def run_normed(norm: nn.Module | None, neurons: Neurons, x: Tensor, states: list[State | None]):
    """Neurons, and the norm in front of them if it is in training; its running statistics follow."""
    (state,), neuron = states, neurons.neuron
    values: tuple[Tensor, ...] = tuple(parameters_of(neuron, x, neurons.parameters_now()).values())
    first = None if state is None else first_state(neuron, x, state)
    channels_last = lies_channels_last(x, dims=5)
    z = x.permute(CHANNELS_LAST) if channels_last else x.contiguous()
    if channels_last:
        values = permuted(values, CHANNELS_LAST)
        first = None if first is None else permuted(first, CHANNELS_LAST)
    values = tuple(value[0] if value.dim() else value for value in values)
    scaled = None if norm is None else cpu.norm_neurons.Norm(norm.weight, norm.bias, norm.eps, shard())  # type: ignore[arg-type]
    ran = cpu.norm_neurons.run_layer(
        z, scaled, 4 if channels_last else 2, first, values, neuron.equation, neurons.surrogate
    )
    if norm is not None:
        check_spread(norm, ran.count)
        follow(norm, ran.mean, ran.variance, count=ran.count)  # type: ignore[arg-type]
    if not channels_last:
        return ran.out, [ran.means], [state_of(neuron, ran.last)]
    last = state_of(neuron, permuted(ran.last, CHANNELS_FIRST))
    return ran.out.permute(CHANNELS_FIRST), [ran.means.permute(2, 0, 1)], [last]


def run_neurons(layer: nn.Module, x: Tensor, states: list[State | None]):
    """Neurons by their own forward."""
    out, state = layer(x, *states)
    return out, None, [state]


def run_stateful(layer: nn.Module, x: Tensor, states: list):
    """A layer with a state that is no neuron, by its own forward; without states from its start."""
    out, state = layer(x, *states)
    return out, [], [state]


def over_time(layer: Callable[[Tensor], Tensor]) -> Run:
    """A layer without state that sees all steps as they are."""
    return lambda x, _: (layer(x), [], [])


def on_rows(kernel: Callable, *layers: nn.Module) -> Run:
    """A layer without state, and what runs with it, in one call for all steps."""
    return lambda x, _: (kernel(x.flatten(0, 1), *layers).unflatten(0, x.shape[:2]), [], [])


def by_itself(rows: Tensor, layer: nn.Module) -> Tensor:
    """A layer without state by its own forward; raises where a batch norm would take the spread of one value."""
    if role_of(layer) != "norm":
        return layer(rows)
    if layer.training and 0 < rows.numel() == rows.shape[1]:
        raise SnnError(
            f"{type(layer).__name__} in training: each channel has one value in {list(rows.shape)}, which has no "
            "spread. Give it more recordings or more steps at once, or network.eval()."
        )
    return by_torch(layer, rows)
