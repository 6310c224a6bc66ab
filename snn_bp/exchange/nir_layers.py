"""What NIR has for each kind of layer and of neuron: its nodes, or a refusal that says what would work.

With tau = step_s / (1 - beta), an Euler step of NIR's LIF is v <- beta v + (1 - beta) r x. There are two conventions
for that gain: by `UNIT_R`, r = 1 and the weights in front are divided by 1 - beta; by `UNIT_GAIN`, r = tau / step_s
and the weights stay. A layer that is not known has no node. One more that has is one more function here.
"""

from collections.abc import Mapping
from functools import singledispatch
from typing import Any, NamedTuple, TypeAlias

import nir
import numpy as np
import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError
from snn_bp.exchange.nir_file import SUBTRACTS
from snn_bp.exchange.nir_node import UNIT_GAIN, UNIT_R, simple
from snn_bp.exchange.nir_own import own_node
from snn_bp.exchange.nir_ties import off_ties
from snn_bp.exchange.nir_weights import rounded, row_gains, scaled, squared
from snn_bp.model.blocks import Block, LayerAt, scale_and_shift
from snn_bp.model.modules import Delays, DropoutOverTime, Neurons, SumPool
from snn_bp.neurons import (
    ALIF,
    IF,
    LI,
    LIF,
    CubaLIF,
    Neuron,
    check_neuron,
    coefficients,
    has_current,
    is_leaky,
    is_spiking,
)  # fmt: skip

EMPTY: Mapping[str, Any] = {}
INSTEAD: dict[type, str] = {
    **dict.fromkeys(
        (nn.MaxPool1d, nn.MaxPool2d),
        "takes a maximum, which NIR does not know. Use Pool(size, kind='sum' or 'average').",
    ),
    nn.AvgPool1d: "pools in one dimension, NIR only in two. Use a Conv with a stride.",
    ALIF: "adapts its threshold, no node of NIR does. Use LIF or CubaLIF.",
}


class Context(NamedTuple):
    """Where a layer stands, and what the file is to be."""

    layer: LayerAt
    block: Block  # from one weighted sum to the next, or to the neurons
    step_s: float
    compatible: str | None
    spikes: int = 1  # that may reach one neuron at once, where there are no weights in front of it


class Nodes(NamedTuple):
    """What the file holds for a layer, and what the metadata says about its neurons or its kernel."""

    node: nir.NIRNode
    recurrence: nir.NIRNode | None = None
    neurons: dict[str, Any] | None = None
    kernel: dict[str, Any] | None = None


@singledispatch
def nodes_of(layer: nn.Module, at: Context) -> Nodes | None:
    """What the file holds for a layer; None where it folds into the weights before it or is left out."""
    raise SnnError(INSTEAD.get(type(layer)) or _unknown(f"is a {type(layer).__qualname__}", nodes_of.registry))


def _unknown(what: str, registry: Mapping[Any, Any]) -> str:
    known = ", ".join(kind.__name__ for kind in registry if kind is not object)
    return f"{what}, for which NIR has no node here. Known: {known}."


@nodes_of.register
def _dropout(layer: DropoutOverTime, at: Context) -> None:
    """In evaluation it does nothing."""


@nodes_of.register(nn.BatchNorm1d)
@nodes_of.register(nn.BatchNorm2d)
def _norm(layer: nn.Module, at: Context) -> None:
    before = at.block.parts[1 : at.block.parts.index(at.layer)]
    if at.block.weights is None or any(part.role not in ("pool", "dropout") for part in before):
        raise SnnError("normalises no weighted sum into which it folds. Put it right behind a Dense or Conv.")


@nodes_of.register
def _flatten(layer: nn.Flatten, at: Context) -> Nodes:
    if (layer.start_dim, layer.end_dim) != (1, -1):
        raise SnnError("flattens some of its axes. Use Flatten().")
    return Nodes(nir.Flatten(input_type={"input": np.array(at.layer.before)}, start_dim=0, end_dim=-1))


@nodes_of.register
def _delays(layer: Delays, at: Context) -> Nodes:
    return Nodes(nir.Delay(delay=layer.steps_now().cpu().numpy() * at.step_s))


@nodes_of.register
def _sum_pool(layer: SumPool, at: Context) -> Nodes:
    if len(at.layer.after) != 3:
        raise SnnError(INSTEAD[nn.AvgPool1d])
    return _pool(nir.SumPool2d, layer.size, layer.stride)


@nodes_of.register
def _average_pool(layer: nn.AvgPool2d, at: Context) -> Nodes:
    square = all(len(set(np.broadcast_to(value, 2))) == 1 for value in (layer.kernel_size, layer.stride))
    if not square or np.any(layer.padding) or layer.ceil_mode or layer.divisor_override is not None:
        raise SnnError("pools with padding, another divisor or a window that is not square. Use Pool(size).")
    return _pool(nir.AvgPool2d, layer.kernel_size, layer.stride)


def _pool(kind: type[nir.SumPool2d | nir.AvgPool2d], size: Any, stride: Any) -> Nodes:
    return Nodes(kind(kernel_size=np.full(2, size), stride=np.full(2, stride), padding=np.zeros(2, int)))


@nodes_of.register
def _dense(layer: nn.Linear, at: Context) -> Nodes:
    _check_weights(layer.weight, layer.bias)
    return Nodes(_linear(*_folded(layer, at.block), _gain_of_rows(at.block)))


@nodes_of.register(nn.Conv1d)
@nodes_of.register(nn.Conv2d)
def _conv(layer: nn.Conv1d | nn.Conv2d, at: Context) -> Nodes:
    if layer.padding_mode != "zeros":
        raise SnnError(f"pads with padding_mode={layer.padding_mode!r}, NIR only with zeros.")
    if isinstance(layer.padding, str):
        raise SnnError(f"has padding={layer.padding!r}. Give it as a number.")
    height, width = layer.kernel_size[0], layer.kernel_size[-1]
    if (height - width) % 2:
        raise SnnError(
            f"has a kernel of {height} x {width}; NIR's own check counts square ones, and no even padding with zeros "
            "makes it one. Use sides that differ by an even number."
        )
    _check_weights(layer.weight, layer.bias)
    weight, bias = _folded(layer, at.block)
    weight, padding = squared(weight, layer.groups, tuple(layer.padding), tuple(layer.dilation))
    bias = np.zeros(len(weight)) if bias is None else bias
    arrays, offsets = rounded({"weight": weight, "bias": bias}, _gain_of_rows(at.block))
    space = at.layer.before[1:]
    sizes = {"stride": layer.stride, "padding": padding, "dilation": layer.dilation, "input_shape": space}
    options: dict[str, Any] = {name: size if len(space) == 2 else size[0] for name, size in sizes.items()}
    options |= {**arrays, "groups": 1, "metadata": offsets}
    kind = nir.Conv2d if len(space) == 2 else nir.Conv1d
    was = {"groups": layer.groups, "kernel": list(layer.kernel_size), "padding": list(layer.padding)}
    return Nodes(kind(**options), kernel=was if layer.groups > 1 or height != width else None)


def _check_weights(weight: Tensor, bias: Tensor | None) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (weight, bias) if tensor is not None):
        raise SnnError("has weights that are not finite. Train again, `snn-bp doctor` tells where they come from.")
    if not bool((weight != 0).any()):
        raise SnnError("has only weights of zero: no spike passes. Train it, or leave it out.")


def _folded(layer: nn.Linear | nn.Conv1d | nn.Conv2d, block: Block) -> tuple[np.ndarray, np.ndarray | None]:
    """Weight and bias in double precision, with the norm behind them and the bias of a recurrence."""
    weight, bias = _double(layer.weight), None if layer.bias is None else _double(layer.bias)
    if block.norm is not None:
        norm: Any = block.norm.layer
        scale, shift = map(_double, scale_and_shift(norm, norm.running_mean.double(), norm.running_var.double()))
        fraction = 1.0  # each of the values that a window sums takes its part of the shift
        for part in Block(block.parts[: block.parts.index(block.norm)]).of("pool"):
            values, divisor = _window(part.layer)
            fraction /= values // divisor
        weight, bias = scaled(weight, scale), shift * fraction if bias is None else bias * scale + shift * fraction
    recurrence = None if block.neurons is None else block.neurons.recurrence
    if recurrence is not None and recurrence.bias is not None:
        bias = _double(recurrence.bias) + (0 if bias is None else bias)
    return weight, bias


def _linear(weight: np.ndarray, bias: np.ndarray | None, gain: np.ndarray | None) -> nir.NIRNode:
    arrays, offsets = rounded({"weight": weight, "bias": bias}, gain)
    fields: dict[str, Any] = {**arrays, "metadata": offsets}
    return (nir.Linear if bias is None else nir.Affine)(**fields)


def _gain_of_rows(block: Block) -> np.ndarray | None:
    """The gain 1 - beta that leaky neurons have by `UNIT_R`, for each row of the weighted sum before them."""
    if block.weights is None or block.neurons is None or not is_leaky(block.neurons.neuron):
        return None
    if has_current(block.neurons.neuron):
        return None
    beta = _values_now(block.neurons)["beta"]
    if (np.float32(beta) == 1).all():
        return None
    gain = np.broadcast_to(1 - _used(beta), block.neurons.shape)
    return row_gains(gain, [(part.role, part.before) for part in block.behind])


@nodes_of.register
def _neurons(layer: Neurons, at: Context) -> Nodes:
    check_neuron(layer.neuron)  # a class below one of ours is another neuron
    node, metadata = neuron_node(layer.neuron, layer, at)
    recurrence = layer.recurrence
    if recurrence is None:
        return Nodes(node, neurons=metadata)
    between = [part.role for part in at.block.parts[1:-1]]
    if recurrence.bias is not None and (at.block.weights is None or set(between) - {"norm", "dropout"}):
        raise SnnError(
            "has a recurrent bias, which goes into the Dense right before it; there is none. Use bias=False."
        )
    _check_weights(recurrence.weight, recurrence.bias)
    gain = 1 - np.broadcast_to(_used(_values_now(layer)["beta"]), layer.shape) if metadata["form"] == UNIT_R else None
    return Nodes(node, recurrence=_linear(_double(recurrence.weight), None, gain), neurons=metadata)


Described: TypeAlias = tuple[nir.NIRNode, dict[str, Any]]  # a node, and what the metadata says about its neurons


@singledispatch
def neuron_node(neuron: Neuron, layer: Neurons, at: Context) -> Described:
    """The node of a layer of neurons, and what the metadata says about them."""
    if type(neuron).kind.nir is not None:
        return own_node(layer, step_s=at.step_s, compatible=at.compatible)
    if is_leaky(neuron):
        raise SnnError(INSTEAD[type(neuron)])
    known = ", ".join(kind.__name__ for kind in neuron_node.registry if kind is not object)
    raise SnnError(
        f"is a neuron of your own, {type(neuron).__name__}, that does not say which node of NIR it is. Known: {known}. "
        "If it is one of these, @neuron(nir=...) says so, with an AsNIR('LIF', tau=..., r=..., v_threshold=...)."
    )


@neuron_node.register(IF)
def _if(neuron: Neuron, layer: Neurons, at: Context) -> Described:
    spiking, exact = _spiking(layer, at)
    return nir.IF(r=_each(1 / at.step_s, layer, at), **spiking), {"form": UNIT_GAIN, "beta": 1.0, **exact}


@neuron_node.register(LIF)
def _lif(neuron: Neuron, layer: Neurons, at: Context) -> Described:
    if (np.float32(_values_now(layer)["beta"]) == 1).all():
        return _if(neuron, layer, at)
    return _leaky(nir.LIF, layer, at, *_spiking(layer, at))


@neuron_node.register(CubaLIF)
def _cuba_lif(neuron: Neuron, layer: Neurons, at: Context) -> Described:
    return _with_current(nir.CubaLIF, layer, at, *_spiking(layer, at))


@neuron_node.register(LI)
def _li(neuron: Neuron, layer: Neurons, at: Context) -> Described:
    if has_current(neuron) and at.compatible:
        raise SnnError("has a synaptic current (CubaLI), which NIR up to 1.0.4 does not know. Use LI(alpha=0).")
    return (_with_current if has_current(neuron) else _leaky)(nir.CubaLI if has_current(neuron) else nir.LI, layer, at)


def _leaky(kind: Any, layer: Neurons, at: Context, spiking: Mapping = EMPTY, exact: Mapping = EMPTY) -> Described:
    tau, beta = _tau("beta", layer, at)
    form = UNIT_GAIN if _gain_of_rows(at.block) is None else UNIT_R
    r = _each(tau / at.step_s if form == UNIT_GAIN else 1, layer, at)
    node = kind(tau=_each(tau, layer, at), r=r, v_leak=_each(0, layer, at), **spiking)
    return node, {"form": form, "beta": beta, **exact}


def _with_current(
    kind: Any, layer: Neurons, at: Context, spiking: Mapping = EMPTY, exact: Mapping = EMPTY
) -> Described:
    (tau_syn, alpha), (tau_mem, beta) = (_tau(name, layer, at) for name in ("alpha", "beta"))
    fields = {
        "tau_syn": tau_syn,
        "tau_mem": tau_mem,
        "r": tau_mem / at.step_s,
        "v_leak": 0,
        "w_in": tau_syn / at.step_s,
    }
    node = kind(**{name: _each(value, layer, at) for name, value in fields.items()}, **spiking)
    return node, {"form": UNIT_GAIN, "alpha": alpha, "beta": beta, **exact}


def _spiking(layer: Neurons, at: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Threshold and reset for the node, and the threshold for the metadata where the node's is moved off a tie."""
    values, said = _values_now(layer), _reset(layer, at)
    alpha, beta, theta = (
        np.broadcast_to(np.asarray(values[name], np.float32), layer.shape).copy() for name in ("alpha", "beta", "theta")
    )
    if at.block.weights is not None:
        return {"v_threshold": theta, "v_reset": _each(0, layer, at)}, said
    moved = off_ties(alpha, beta, theta, _inputs(at), step=at.step_s)
    exact = simple(np.broadcast_to(np.asarray(values["theta"], np.float64), layer.shape))
    return {"v_threshold": moved, "v_reset": _each(0, layer, at)}, {"threshold": exact}


def _reset(layer: Neurons, at: Context) -> dict[str, str]:
    """What the metadata says about a reset that NIR has; of NIR up to 1.0.4 the file does not tell it from another."""
    reset = layer.neuron.reset  # type: ignore[union-attr]
    if reset == "zero":
        return {}
    if reset != SUBTRACTS:
        other = f' or "{SUBTRACTS}"' if at.compatible else ""
        raise SnnError(f'resets by "{reset}", NIR knows only reset to a value. Train with reset="zero"{other}.')
    if not at.compatible:
        raise SnnError(
            f'resets by "{reset}", as NIR did up to 1.0.5. Write it with compatible="1.0.4" (--compatible 1.0.4), or '
            'train with reset="zero".'
        )
    if at.block.weights is None:
        raise SnnError(
            "subtracts its threshold from sums of spikes that meet it exactly: rounding would decide in readers. Put a "
            'Dense or Conv in front of it, or train with reset="zero".'
        )
    return {"reset": reset}


def _tau(symbol: str, layer: Neurons, at: Context) -> tuple[np.ndarray, Any]:
    """The time constant of a decay, and the decay as JSON holds it: one number, or one for each neuron."""
    decay = np.broadcast_to(np.asarray(_values_now(layer)[symbol], np.float64), layer.shape)
    if (_used(decay) == 1).any():
        raise SnnError("has a decay of 1, which no time constant gives. Keep decays below 1, or use IF.")
    return at.step_s / (1 - _used(decay)), simple(decay)


def _each(value: Any, layer: Neurons, at: Context) -> np.ndarray:
    """A number for each neuron; in double precision where no weights take up a rounding."""
    exact = at.block.weights is None and is_spiking(layer.neuron)
    return np.broadcast_to(np.asarray(value, np.float64 if exact else np.float32), layer.shape).copy()


def _inputs(at: Context) -> tuple[float, ...]:
    """The smallest inputs of neurons without weights in front: counts of spikes, or what windows make of them."""
    unit, count = 1.0, at.spikes
    for part in reversed(at.block.of("pool")):
        values, divisor = _window(part.layer)
        unit, count = unit / divisor, count * values
    return tuple(unit * number for number in range(min(count, 4) + 1))


def _window(pool: nn.Module) -> tuple[int, int]:
    """How many values an output of a pool sums, and what it divides the sum by."""
    if isinstance(pool, SumPool):
        return pool.size**2, 1
    values = int(np.prod(np.broadcast_to(pool.kernel_size, 2)))  # type: ignore[arg-type]
    return values, values


def _values_now(layer: Neurons) -> Mapping[str, Any]:
    """The coefficients of a layer of neurons, learned ones as they are now."""
    learned = {name: _double(value) for name, value in layer.parameters_now().items()}
    return {**coefficients(layer.neuron), **learned}


def _used(decay: Any) -> np.ndarray:
    """A decay as the kernels take it, rounded to single precision."""
    return np.asarray(decay, np.float32).astype(np.float64)


def _double(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()
