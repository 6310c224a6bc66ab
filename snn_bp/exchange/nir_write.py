"""Networks as NIR files (Pedersen et al. 2024, https://neuroir.org), as other libraries read them without a difference.

With tau = step_s / (1 - beta), an Euler step of NIR's LIF is v <- beta v + (1 - beta) r x. "unit-r": r = 1 and the
weights in front are divided by 1 - beta. "jump": r = tau / step_s and the weights stay.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import nir
import numpy as np
from torch import Tensor, nn

from snn_bp.errors import SnnError, as_path, check_number
from snn_bp.exchange.nir_file import CONTRACT, FORMAT, digest_of
from snn_bp.exchange.nir_gain import rows, scaled
from snn_bp.exchange.nir_kernel import squared
from snn_bp.exchange.nir_layers import Norm, Pool, Synapse, keeps_all, synapse_before, values_now
from snn_bp.exchange.nir_refusals import refusals
from snn_bp.exchange.nir_ties import settled
from snn_bp.exchange.nir_values import simple
from snn_bp.files import replace_file, write_json
from snn_bp.files.hdf5 import entries_of
from snn_bp.model.layers import Shape
from snn_bp.model.modules import Delays, DropoutOverTime, Neurons, SumPool
from snn_bp.model.network import Network, neuron_of
from snn_bp.neurons import has_current, is_spiking
from snn_bp.runs.provenance import version


def write_nir(
    network: Network, path: Path | str, *, step_s: float = 1e-4, compatible: Literal["1.0.4"] | None = None
) -> dict[str, Any]:
    """Write a network in evaluation mode, and return the contract that stands in the file and beside it (`PATH.json`).

    Norms fold into the weights before them and the bias of a recurrence into the input, both in double precision;
    dropout is left out. `step_s` is the length of a time step in seconds: snnTorch reads 1e-4 only. NIR up to 1.0.4
    reads the file with `compatible="1.0.4"`, but says of a spike that it takes the threshold off: that is sound for
    readers that reset to 0. Kernels with groups or two sizes are written square and without groups, zeros around them.
    Raises with every reason where NIR cannot say what the network does, before anything is written.
    """
    path = as_path("write_nir: path", path)
    check_number("write_nir: step_s", step_s, above=0)
    if compatible not in (None, "1.0.4"):
        raise SnnError(f"write_nir: compatible={compatible!r}; it is None or '1.0.4'.")
    if refused := refusals(network, compatible):
        raise SnnError(f"export to {path.name}: " + "\n".join(refused))
    check_places(path, contract_path(path))
    folds = _folds(network)
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(input_type={"input": np.array(network.input_shape)})}
    edges, last, left_out = [], "input", []
    neurons: dict[str, dict[str, Any]] = {}
    kernels: dict[str, dict[str, Any]] = {}
    for place, layer in enumerate(network.layers):
        if isinstance(layer, DropoutOverTime | Norm):
            left_out.append(network.name(place))
            continue
        name = f"layer{place:0{len(str(len(network.layers) - 1))}}"
        if isinstance(layer, Neurons):
            node, contract = _neurons(network, place, step_s, folds)
            recurrence = layer.recurrence
        else:
            node, contract, recurrence = _stateless(network, place, folds, step_s), None, None
        name = f"{name}_{type(node).__name__.lower()}"
        nodes[name] = node
        edges.append((last, name))
        if (kernel := _oblong(layer)) is not None:
            kernels[name] = kernel
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
        "reset": "v <- v_reset in the step of the spike" if compatible is None else RESET_UNSAID,
        "recurrence": "one step late, 0 in the first step",
        "neurons": neurons,
        **({"kernels": kernels} if kernels else {}),
        "folded_or_left_out": left_out,
    }
    content = _bytes(nodes, edges, contract, compatible)
    replace_file(path, content)
    write_json(contract_path(path), {**contract, "sha256": hashlib.sha256(content).hexdigest()})
    return contract


RESET_UNSAID = "v <- 0 in the step of the spike, as snnTorch and norse read it; by NIR 1.0.4 it is v <- v - v_threshold"


class _Folds(NamedTuple):
    """What goes into the weights at a place: scale and shift of a norm, bias of a recurrence, division by 1 - beta."""

    norms: dict[int, tuple[np.ndarray, np.ndarray]]
    biases: dict[int, np.ndarray]
    gains: dict[int, np.ndarray]  # 1 - beta for the rows of the synapse at a place
    neurons: dict[int, np.ndarray]  # the same by the place of the neurons
    inputs: dict[int, tuple[float, ...]]  # of neurons without weights in front: the least values that they hear


def _folds(network: Network) -> _Folds:
    folds = _Folds({}, {}, {}, {}, {})
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
            at = synapse_before(network, place, Pool | DropoutOverTime)
            assert at is not None
            share = 1.0  # of the shift that each of the values which a window sums takes
            for pool in network.layers[at + 1 : place]:
                share /= pool.size**2 if isinstance(pool, SumPool) else 1
            folds.norms[at] = _norm(layer, share)
        elif isinstance(layer, Neurons):
            neuron = neuron_of(layer)
            if synapse is None:
                folds.inputs[place] = _inputs(network, place)
            elif not has_current(neuron) and not keeps_all(layer):
                factors = rows(1 - _used(values_now(layer)["beta"], shape), between)
                if factors is not None:
                    folds.gains[synapse] = folds.neurons[place] = factors
            if layer.recurrence is not None and layer.recurrence.bias is not None:
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
    shapes = {name: tuple(getattr(layer, name)) for name in ("stride", "padding", "dilation")}
    weight, shapes["padding"] = squared(weight, layer.groups, shapes["padding"], shapes["dilation"])
    arrays, metadata = _arrays(weight, np.zeros(len(weight)) if bias is None else bias, gain)
    given: dict[str, Any] = {**arrays, "groups": 1, "metadata": metadata}
    for name, value in shapes.items():
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


def _neurons(network: Network, place: int, step_s: float, folds: _Folds) -> tuple[nir.NIRNode, dict[str, Any]]:
    """The node of the neurons at `place` and what the contract says of it."""
    layer, shape = network.layers[place], network.shapes[place]
    neuron, values = neuron_of(layer), values_now(layer)
    weightless = place in folds.inputs and is_spiking(neuron)

    def full(value: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, np.float64 if weightless else np.float32), shape).copy()

    zero, spiking, exact = full(0), {}, {}
    alpha, beta = (np.broadcast_to(np.asarray(values[name], np.float32), shape) for name in ("alpha", "beta"))
    if is_spiking(neuron):
        theta = np.broadcast_to(np.asarray(values["theta"], np.float32), shape).copy()
        if weightless:
            exact = {"threshold": _exact(values["theta"], shape)}
            theta = settled(alpha, beta, theta, folds.inputs[place], step=step_s)
        spiking = {"v_threshold": theta, "v_reset": zero}
    if keeps_all(layer):
        return nir.IF(r=full(1 / step_s), **spiking), {"form": "jump", "beta": 1.0, **exact}
    tau = step_s / (1 - _used(beta, shape))
    exact = {"beta": _exact(values["beta"], shape), **exact}
    if has_current(neuron):
        tau_syn = step_s / (1 - _used(alpha, shape))
        exact = {"alpha": _exact(values["alpha"], shape), **exact}
        kind = nir.CubaLIF if spiking else nir.CubaLI
        given: dict[str, Any] = {"tau_syn": full(tau_syn), "tau_mem": full(tau), "w_in": full(tau_syn / step_s)}
        return kind(**given, r=full(tau / step_s), v_leak=zero, **spiking), {"form": "jump", **exact}
    form = "unit-r" if place in folds.neurons else "jump"
    r = full(tau / step_s if form == "jump" else 1)
    return (nir.LIF if spiking else nir.LI)(tau=full(tau), r=r, v_leak=zero, **spiking), {"form": form, **exact}


def _inputs(network: Network, place: int) -> tuple[float, ...]:
    """The least values that neurons without weights in front hear: counts of events, spikes, or what windows make."""
    unit, most = 1.0, 1
    for layer in reversed(list(network.layers)[:place]):
        if isinstance(layer, Neurons):
            break
        if isinstance(layer, Pool):
            window = (
                layer.size**2 if isinstance(layer, SumPool) else int(np.prod(np.broadcast_to(layer.kernel_size, 2)))
            )
            unit, most = (unit, most * window) if isinstance(layer, SumPool) else (unit / window, most * window)
    else:
        most *= 2  # the network's own input may count
    return tuple(unit * count for count in range(min(most, 4) + 1))


def _oblong(layer: nn.Module) -> dict[str, Any] | None:
    """What a kernel was that is written in another shape."""
    if not isinstance(layer, nn.Conv1d | nn.Conv2d) or (layer.groups == 1 and len(set(layer.kernel_size)) == 1):
        return None
    return {"groups": layer.groups, "kernel": list(layer.kernel_size), "padding": list(layer.padding)}


def _used(decay: Any, shape: Shape) -> np.ndarray:
    """A decay as the kernels take it, rounded to single precision, for each neuron."""
    return np.broadcast_to(np.asarray(decay, np.float32).astype(np.float64), shape)


def _exact(decay: Any, shape: Shape) -> float | list:
    """A decay as JSON holds it: one number, or one for each neuron."""
    return simple(np.broadcast_to(np.asarray(decay, np.float64), shape))


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


def _bytes(
    nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]], contract: dict[str, Any], compatible: str | None
) -> bytes:
    """The file's content; `contract` takes its digest in."""
    metadata: dict[str, Any] = {}
    if compatible:  # nodes of NIR 1.0.4 have no reset value, and not all have metadata
        for name, node in nodes.items():
            metadata |= {f"{key} {name}": value for key, value in node.metadata.items()}
            node.metadata = {}
    file = io.BytesIO()
    nir.write(file, nir.NIRGraph(nodes, edges, metadata=metadata))  # type: ignore[arg-type]
    with h5py.File(file, "r+") as content:
        for node in content["node/nodes"].values() if compatible else ():  # type: ignore[union-attr]
            if "v_reset" in node:
                del node["v_reset"]
        contract["digest"] = digest_of(entries_of(content), contract)
        content.create_dataset(f"node/metadata/{CONTRACT}", data=json.dumps(contract), dtype=h5py.string_dtype())
    return file.getvalue()


def contract_path(path: Path) -> Path:
    """The file beside a NIR file that holds its contract."""
    return path.with_name(path.name + ".json")


def check_places(file: Path, beside: Path) -> None:
    """Raise unless a file and the one beside it can be written, before either is."""
    if not file.parent.is_dir():
        raise SnnError(f"export to {file}: there is no folder {file.parent}. Make it, or choose another file.")
    for place in (file, beside):
        if place.exists() and not place.is_file():
            raise SnnError(f"export to {file}: {place} is no file that can be replaced. Choose another name.")
