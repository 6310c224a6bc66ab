"""Networks as NIR files (Pedersen et al. 2024, https://neuroir.org), as other libraries read them without a difference.

With tau = step_s / (1 - beta), an Euler step of NIR's LIF is v <- beta v + (1 - beta) r x. "unit-r": r = 1 and the
weights in front are divided by 1 - beta. "jump": r = tau / step_s and the weights stay.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import nir
import numpy as np
import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError, check_number
from snn_bp.export.nir_file import CONTRACT, FORMAT
from snn_bp.export.nir_gain import rows, scaled
from snn_bp.files import replace_file, write_json
from snn_bp.layers import Delays, DropoutOverTime, Neurons, RecurrentNeurons, Shape, SumPool
from snn_bp.network import Network, has_state, neuron_of
from snn_bp.neurons import ALIF, IF, coefficients, has_current, is_spiking
from snn_bp.provenance import version

Synapse = nn.Linear | nn.Conv1d | nn.Conv2d
Norm = nn.BatchNorm1d | nn.BatchNorm2d
Pool = SumPool | nn.AvgPool2d


def write_nir(
    network: Network, path: Path | str, *, step_s: float = 1e-4, compatible: Literal["1.0.4"] | None = None
) -> dict[str, Any]:
    """Write a network in evaluation mode, and return the contract that stands in the file and beside it (`PATH.json`).

    Norms fold into the weights before them and the bias of a recurrence into the input, both in double precision;
    dropout is left out. `step_s` is the length of a time step in seconds: snnTorch reads 1e-4 only. NIR up to 1.0.4
    reads the file with `compatible="1.0.4"`, but then subtracts the threshold at a reset. Raises with every reason
    where NIR cannot say what the network does.
    """
    path = Path(path)
    check_number("write_nir: step_s", step_s, above=0)
    if compatible not in (None, "1.0.4"):
        raise SnnError(f"write_nir: compatible={compatible!r}; it is None or '1.0.4'.")
    if refused := _refusals(network, compatible):
        raise SnnError(f"export to {path.name}: " + "\n".join(refused))
    folds = _folds(network)
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(input_type={"input": np.array(network.input_shape)})}
    edges, last, neurons, left_out = [], "input", {}, []
    for place, layer in enumerate(network.layers):
        if isinstance(layer, DropoutOverTime | Norm):
            left_out.append(network.name(place))
            continue
        name = f"layer{place:0{len(str(len(network.layers) - 1))}}"
        if isinstance(layer, Neurons | RecurrentNeurons):
            node, contract = _neurons(network, place, step_s, jump=place not in folds.neurons)
            recurrence = layer.recurrence if isinstance(layer, RecurrentNeurons) else None
        else:
            node, contract, recurrence = _stateless(network, place, folds, step_s), None, None
        name = f"{name}_{type(node).__name__.lower()}"
        nodes[name] = node
        edges.append((last, name))
        if recurrence is not None:  # its edges first: norse returns the output of the last one
            back = f"{name}_recurrent"
            nodes[back] = _linear(recurrence.weight, None, folds.neurons.get(place))
            edges += [(name, back), (back, name)]
        if contract is not None:
            neurons[name] = contract
        last = name
    nodes["output"] = nir.Output(output_type={"output": np.array(network.output_shape)})
    edges.append((last, "output"))
    contract = {
        "format": FORMAT,
        "snn_bp": version("snn_bp"),
        "nir": nir.version,
        "step_s": float(step_s),
        "input_shape": list(network.input_shape),
        "output_shape": list(network.output_shape),
        "step": "Euler: v <- v + step_s / tau * (v_leak - v + r * x); CubaLIF: its current first, in the same way",
        "spike": "v > v_threshold",
        "reset": "v <- v_reset in the step of the spike",
        "recurrence": "one step late, 0 in the first step",
        "neurons": neurons,
        "folded_or_left_out": left_out,
    }
    content = _bytes(nir.NIRGraph(nodes, edges, metadata={CONTRACT: json.dumps(contract)}), compatible)
    replace_file(path, content)
    write_json(path.with_name(path.name + ".json"), {**contract, "sha256": hashlib.sha256(content).hexdigest()})
    return contract


class _Folds(NamedTuple):
    """What goes into the weights at a place: scale and shift of a norm, bias of a recurrence, division by 1 - beta."""

    norms: dict[int, tuple[np.ndarray, np.ndarray]]
    biases: dict[int, np.ndarray]
    gains: dict[int, np.ndarray]  # 1 - beta for the rows of the synapse at a place
    neurons: dict[int, np.ndarray]  # the same by the place of the neurons


def _refusals(network: Network, compatible: str | None) -> list[str]:
    if network.target != "float":
        return ["this network computes in Loihi's whole numbers, which NIR does not round to. Write a .net file."]
    if any(parameter.dtype != torch.float32 for parameter in network.parameters()):
        return ["its weights are not in single precision. Use network.float()."]
    reasons = []
    for place, layer in enumerate(network.layers):
        why = _no_neuron(network, place, compatible) if has_state(layer) else _no_node(network, place)
        reasons += [f"{network.name(place)} {why}"] if why else []
    return reasons


def _no_neuron(network: Network, place: int, compatible: str | None) -> str | None:
    """Why NIR has no node for the neurons at `place`, and what would have one."""
    layer = network.layers[place]
    neuron = neuron_of(layer)
    reset, values = getattr(neuron, "reset", "zero"), _values(layer)
    if isinstance(neuron, ALIF):
        return "adapts its threshold, no node of NIR does. Use LIF or CubaLIF."
    if is_spiking(neuron) and reset != "zero":
        return f'resets by "{reset}", NIR knows only reset to a value. Train with reset="zero".'
    kept = [np.float32(values[name]) == 1 for name in ("alpha", "beta")]
    if (has_current(neuron) and kept[0].any()) or (
        kept[1].any() and not (kept[1].all() and is_spiking(neuron) and not has_current(neuron))
    ):
        return "has a decay of 1, which no time constant gives. Keep decays below 1, or use IF."
    if not is_spiking(neuron) and has_current(neuron) and compatible:
        return "has a synaptic current (CubaLI), which NIR up to 1.0.4 does not know. Use LI(alpha=0)."
    if isinstance(layer, RecurrentNeurons):
        weight, bias = layer.recurrence.weight, layer.recurrence.bias
        if bias is not None and _before(network, place, Norm | DropoutOverTime) is None:
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
    if isinstance(layer, Norm) and _before(network, place, Pool | DropoutOverTime) is None:
        return "normalises no weighted sum into which it folds. Put it right behind a Dense or Conv."
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        if layer.groups > 1 or len(set(layer.kernel_size)) > 1:
            return "has groups or a kernel that is not square; NIR's own check takes neither. Use groups=1, one size."
        if isinstance(layer.padding, str):
            return f"has padding={layer.padding!r}. Give it as a number."
    return _no_weights(layer.weight, layer.bias) if isinstance(layer, Synapse) else None


def _no_weights(weight: Tensor, bias: Tensor | None) -> str | None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (weight, bias) if tensor is not None):
        return "has weights that are not finite. Train again, `snn-bp doctor` tells where they come from."
    if not bool((weight != 0).any()):
        return "has only weights of zero: no spike passes. Train it, or leave it out."
    return None


def _before(network: Network, place: int, passes: Any) -> int | None:
    """The place of the weighted sum in front of `place` with only layers of the kinds `passes` between, if there is."""
    for at in range(place - 1, -1, -1):
        if isinstance(network.layers[at], Synapse):
            return at
        if not isinstance(network.layers[at], passes):
            return None
    return None


def _folds(network: Network) -> _Folds:
    folds = _Folds({}, {}, {}, {})
    synapse, between = None, []
    for place, layer in enumerate(network.layers):
        shape = network.shapes[place - 1] if place else network.input_shape
        if isinstance(layer, Synapse):
            synapse, between = place, []
        elif isinstance(layer, Pool):
            between.append(("pool", shape))
        elif isinstance(layer, nn.Flatten | Delays):
            between.append(("flatten" if isinstance(layer, nn.Flatten) else "delay", shape))
        elif isinstance(layer, Norm):
            at = _before(network, place, Pool | DropoutOverTime)
            assert at is not None
            share = 1.0  # of the shift that each of the values which a window sums takes
            for pool in network.layers[at + 1 : place]:
                share /= pool.size**2 if isinstance(pool, SumPool) else 1
            folds.norms[at] = _norm(layer, share)
        elif isinstance(layer, Neurons | RecurrentNeurons):
            neuron = neuron_of(layer)
            if synapse is not None and not has_current(neuron) and not _keeps_all(layer):
                factors = rows(1 - _used(_values(layer)["beta"], shape), between)
                if factors is not None:
                    folds.gains[synapse] = folds.neurons[place] = factors
            if isinstance(layer, RecurrentNeurons) and layer.recurrence.bias is not None:
                assert synapse is not None
                folds.biases[synapse] = _numpy(layer.recurrence.bias)
            synapse = None
    return folds


def _norm(norm: nn.Module, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of a norm in evaluation, in double precision."""
    assert isinstance(norm, Norm) and norm.running_mean is not None and norm.running_var is not None
    scale = _numpy(norm.weight) / np.sqrt(_numpy(norm.running_var) + norm.eps)
    return scale, (_numpy(norm.bias) - _numpy(norm.running_mean) * scale) * share


def _stateless(network: Network, place: int, folds: _Folds, step_s: float) -> nir.NIRNode:
    layer = network.layers[place]
    shape = network.shapes[place - 1] if place else network.input_shape
    if isinstance(layer, nn.Flatten):
        return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)
    if isinstance(layer, Delays):
        return nir.Delay(delay=layer.steps_now().cpu().numpy() * step_s)
    if isinstance(layer, Pool):
        size, stride = (layer.size, layer.stride) if isinstance(layer, SumPool) else (layer.kernel_size, layer.stride)
        kind = nir.SumPool2d if isinstance(layer, SumPool) else nir.AvgPool2d
        return kind(kernel_size=np.full(2, size), stride=np.full(2, stride), padding=np.zeros(2, int))
    assert isinstance(layer, Synapse)
    weight = _numpy(layer.weight)
    bias = None if layer.bias is None else _numpy(layer.bias)
    if place in folds.norms:
        scale, shift = folds.norms[place]
        weight, bias = scaled(weight, scale), shift if bias is None else bias * scale + shift
    if place in folds.biases:
        bias = folds.biases[place] + (0 if bias is None else bias)
    gain = folds.gains.get(place)
    if isinstance(layer, nn.Linear):
        return _linear(weight, bias, gain)
    arrays, metadata = _arrays(weight, np.zeros(len(weight)) if bias is None else bias, gain)
    given: dict[str, Any] = {**arrays, "groups": 1, "metadata": metadata}
    for name in ("stride", "padding", "dilation"):
        value = tuple(getattr(layer, name))
        given[name] = value if len(value) == 2 else value[0]
    if isinstance(layer, nn.Conv1d):
        return nir.Conv1d(input_shape=shape[1], **given)
    return nir.Conv2d(input_shape=(shape[1], shape[2]), **given)


def _linear(weight: Tensor | np.ndarray, bias: np.ndarray | None, gain: np.ndarray | None) -> nir.NIRNode:
    weight = weight if isinstance(weight, np.ndarray) else _numpy(weight)
    arrays, metadata = _arrays(weight, bias, gain)
    given: dict[str, Any] = {**arrays, "metadata": metadata}
    return (nir.Linear if bias is None else nir.Affine)(**given)


def _arrays(
    weight: np.ndarray, bias: np.ndarray | None, gain: np.ndarray | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights over the gain in single precision, and what is off in the last bit when they are times the gain again."""
    arrays, metadata = {}, {}
    for name, exact in (("weight", weight), ("bias", bias)):
        if exact is None:
            continue
        arrays[name] = (exact if gain is None else scaled(exact, 1 / gain)).astype(np.float32)
        if gain is not None:
            again = scaled(arrays[name].astype(np.float64), gain).astype(np.float32)
            off = exact.astype(np.float32).view(np.int32) - again.view(np.int32)
            if off.any():
                metadata[f"{CONTRACT}_{name}_off"] = off.astype(np.int8)
    return arrays, metadata


def _neurons(network: Network, place: int, step_s: float, *, jump: bool) -> tuple[nir.NIRNode, dict[str, Any]]:
    """The node of the neurons at `place` and what the contract says of it."""
    layer, shape = network.layers[place], network.shapes[place]
    neuron, values = neuron_of(layer), _values(layer)

    def full(value: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, np.float32), shape).copy()

    zero = full(0)
    spiking: dict[str, Any] = {"v_threshold": full(values["theta"]), "v_reset": zero} if is_spiking(neuron) else {}
    if _keeps_all(layer):
        return nir.IF(r=full(1 / step_s), **spiking), {"form": "jump", "beta": 1.0}
    tau = step_s / (1 - _used(values["beta"], shape))
    exact = {"beta": _exact(values["beta"], shape)}
    if has_current(neuron):
        tau_syn = step_s / (1 - _used(values["alpha"], shape))
        exact = {"alpha": _exact(values["alpha"], shape), **exact}
        kind = nir.CubaLIF if spiking else nir.CubaLI
        given: dict[str, Any] = {"tau_syn": full(tau_syn), "tau_mem": full(tau), "w_in": full(tau_syn / step_s)}
        return kind(**given, r=full(tau / step_s), v_leak=zero, **spiking), {"form": "jump", **exact}
    form = "jump" if jump else "unit-r"
    r = full(tau / step_s if jump else 1)
    return (nir.LIF if spiking else nir.LI)(tau=full(tau), r=r, v_leak=zero, **spiking), {"form": form, **exact}


def _values(layer: nn.Module) -> Mapping[str, Any]:
    """The coefficients of a layer of neurons, learned ones as they are now."""
    neurons = layer.neurons if isinstance(layer, RecurrentNeurons) else layer
    assert isinstance(neurons, Neurons)
    learned = {name: value.detach().double().cpu().numpy() for name, value in neurons.parameters_now().items()}
    return {**coefficients(neurons.neuron), **learned}


def _keeps_all(layer: nn.Module) -> bool:
    """Whether the layer integrates without a leak."""
    neuron = neuron_of(layer)
    return isinstance(neuron, IF) or (not has_current(neuron) and bool((np.float32(_values(layer)["beta"]) == 1).all()))


def _used(decay: Any, shape: Shape) -> np.ndarray:
    """A decay as the kernels take it, rounded to single precision, for each neuron."""
    return np.broadcast_to(np.asarray(decay, np.float32).astype(np.float64), shape)


def _exact(decay: Any, shape: Shape) -> float | list:
    """A decay as JSON holds it: one number, or one for each neuron."""
    array = np.asarray(decay, np.float64)
    return float(array.flat[0]) if (array == array.flat[0]).all() else np.broadcast_to(array, shape).tolist()


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


def _bytes(graph: nir.NIRGraph, compatible: str | None) -> bytes:
    file = io.BytesIO()
    nir.write(file, graph)  # type: ignore[arg-type]
    if compatible:
        with h5py.File(file, "r+") as content:
            for node in content["node/nodes"].values():  # type: ignore[union-attr]
                if "v_reset" in node:
                    del node["v_reset"]
    return file.getvalue()
