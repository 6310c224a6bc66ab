"""Networks as NIR files (Pedersen et al. 2024, https://neuroir.org) that other libraries read without a difference."""

import hashlib
import io
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import h5py
import nir
import numpy as np
import torch

from snn_bp.chip.network import OnChip
from snn_bp.errors import SnnError, as_path, check_choice, check_number
from snn_bp.exchange.nir_file import FORMAT, SUBTRACTS, digest_of
from snn_bp.exchange.nir_forks import Signal, check_joint, move
from snn_bp.exchange.nir_layers import Context, Nodes, nodes_of
from snn_bp.exchange.nir_node import KEY
from snn_bp.files import replace_file, write_json
from snn_bp.files.hdf5 import entries_of
from snn_bp.kernels.around import is_untouched
from snn_bp.model.blocks import Block, LayerAt, parts_of, tree
from snn_bp.model.blocks import Path as LayerPath
from snn_bp.model.exact import why_strange
from snn_bp.model.network import Network
from snn_bp.runs.provenance import version

RESET_SAID = "v <- v_reset in the step of the spike"
RESET_SUBTRACTS = "v <- v - v_threshold in the step of the spike, as by NIR up to 1.0.5"
RESET_UNSAID = "v <- 0 in the step of the spike, as snnTorch and norse read it; by NIR 1.0.4 it is v <- v - v_threshold"


def write_nir(
    network: Network, path: Path | str, *, step_s: float = 1e-4, compatible: Literal["1.0.4"] | None = None
) -> dict[str, Any]:
    """Write a network in evaluation mode, and return the metadata that stands in the file and beside it (`PATH.json`).

    Norms fold into the weights before them and the bias of a recurrence into the input, both in double precision;
    dropout is left out. `step_s` is the length of a time step in seconds: snnTorch reads 1e-4 only. NIR up to 1.0.4
    reads the file with `compatible="1.0.4"` and says of a spike that it takes the threshold off: that is
    `reset="subtract_before_leak"`. With "zero" the file is sound for readers that reset to 0, as snnTorch and norse do.
    Kernels with groups or two sizes are written square and without groups, zeros around them. Raises with every reason
    where NIR cannot say what the network does, before anything is written.
    """
    path = as_path("write_nir: path", path)
    check_number("write_nir: step_s", step_s, above=0)
    if compatible is not None:
        check_choice("write_nir: compatible", compatible, ("1.0.4",))
    try:
        graph = _graph(network, step_s, compatible)
    except SnnError as cause:
        raise SnnError(f"export to {path.name}: {cause}") from cause
    check_writable(path, metadata_path(path))
    metadata: dict[str, Any] = {
        "format": FORMAT,
        "snn_bp": version("snn_bp"),
        "nir": nir.version,
        "step_s": float(step_s),
        "input_shape": list(network.input_shape),
        "output_shape": list(network.output_shape),
        "step": "Euler: v <- v + step_s / tau * (v_leak - v + r * x); CubaLIF: its current first, in the same way",
        "spike": "v > v_threshold",
        "reset": RESET_SAID if compatible is None else RESET_SUBTRACTS if graph.subtracts else RESET_UNSAID,
        "recurrence": "one step late, 0 in the first step",
        "neurons": graph.neurons,
        "kernels": graph.kernels,
        "folded_or_left_out": graph.left_out,  # named so in all files of this format
    }
    if not metadata["kernels"]:
        del metadata["kernels"]
    content = _bytes(graph, metadata, compatible)
    replace_file(path, content)
    write_json(metadata_path(path), {**metadata, "sha256": hashlib.sha256(content).hexdigest()})
    return metadata


def _graph(network: Network, step_s: float, compatible: str | None) -> "_Graph":
    """What the file holds for a network; raises with every reason for which NIR cannot say what it does."""
    if type(network) is OnChip:
        raise SnnError("this network computes in a chip's integers, which NIR does not round to. Write its own file.")
    if type(network) is not Network:
        raise SnnError(f"a {type(network).__name__} may do more than its layers. Give a Network itself.")
    if not is_untouched(network):
        raise SnnError(
            "the network has hooks, or methods put in place of its own, which a file does not hold. Take them off."
        )
    if any(parameter.dtype != torch.float32 for parameter in network.parameters()):
        raise SnnError("its weights are not in single precision. Use network.float().")
    graph = _Graph(network, step_s, compatible)
    last = graph.row(parts_of(network), ("input",))
    if graph.refused:
        raise SnnError("\n".join(graph.refused[path] for path in sorted(graph.refused)))
    graph.nodes["output"] = nir.Output(output_type={"output": np.array(network.output_shape)})
    graph.lead(last, "output")
    resets = {
        graph.neurons[name].get("reset", "zero") for name in graph.neurons if hasattr(graph.nodes[name], "v_reset")
    }
    if len(resets) > 1:
        raise SnnError(
            f"some layers reset by {SUBTRACTS!r} and some by 'zero'; by NIR 1.0.4 all do alike. Train with one."
        )
    graph.subtracts = resets == {SUBTRACTS}
    return graph


class _Graph:
    """Nodes and edges as they are put together, what the metadata says of them, and why layers were refused."""

    def __init__(self, network: Network, step_s: float, compatible: str | None) -> None:
        self.network, self.step_s, self.compatible = network, step_s, compatible
        self.nodes: dict[str, nir.NIRNode] = {"input": nir.Input(input_type={"input": np.array(network.input_shape)})}
        self.edges: list[tuple[str, str]] = []
        self.neurons: dict[str, Any] = {}
        self.kernels: dict[str, Any] = {}
        self.left_out: list[str] = []
        self.refused: dict[LayerPath, str] = {}
        self.subtracts = False  # whether spikes take the threshold off

    def row(self, row: list[LayerAt], enters: Signal) -> Signal:
        """Put in a row of layers that a signal enters; gives the signal behind it."""
        for each in tree(row):
            if isinstance(each, Block):
                for block in _sums(each):
                    enters = self._block(block, enters)
            else:
                enters = self._joint(each.joint, enters)
        return enters

    def lead(self, signal: Signal, end: str) -> None:
        """Put in the edges from a signal to a node."""
        for start in signal:
            self.edges.append((start, end))

    def _block(self, block: Block, enters: Signal) -> Signal:
        written: dict[LayerPath, Nodes | None] = {}
        spikes = sum(2 if name == "input" else 1 for name in enters)  # the network's own input may count
        for part in reversed(block.parts):  # a weighted sum last, as it takes in what stands behind it
            alone = part.role == "weights" and any(each.path in self.refused for each in block.parts)
            try:
                if (strange := why_strange(part.layer)) is not None:
                    raise SnnError(strange)
                at = Context(part, Block((part,)) if alone else block, self.step_s, self.compatible, spikes)
                written[part.path] = nodes_of(part.layer, at)
            except SnnError as cause:
                self.refused[part.path] = f"{self.network.name(part.path)} {cause}"
        for part in block.parts:
            layer = written.get(part.path)
            if layer is not None:
                enters = (self._put(part.path, layer, enters),)
            elif part.path not in self.refused:
                number = ".".join(map(str, part.path))
                self.left_out.append(f"layer {number} ({type(part.layer).__name__})")
        return enters

    def _put(self, path: LayerPath, layer: Nodes, enters: Signal) -> str:
        name = self._name(path, layer.node)
        self.nodes[name] = layer.node
        self.lead(enters, name)
        if layer.recurrence is not None:  # its edges before those that lead on: norse returns the output of the last
            back = f"{name}_recurrent"
            self.nodes[back] = layer.recurrence
            self.edges += [(name, back), (back, name)]
        self.neurons |= {} if layer.neurons is None else {name: layer.neurons}
        self.kernels |= {} if layer.kernel is None else {name: layer.kernel}
        return name

    def _joint(self, joint: LayerAt, enters: Signal) -> Signal:
        try:
            combine = check_joint(joint.layer)
        except SnnError as cause:
            self.refused[joint.path] = f"{self.network.name(joint.path)} {cause}"
            combine = "add"
        signals: dict[str, None] = {}
        first = 0
        for number, branch in enumerate(joint.branches):
            signal, shape = self.row(branch, enters), branch[-1].after if branch else joint.before
            if combine == "concat":
                signal = (self._put((*joint.path, number), Nodes(move(shape, first, joint.after[0])), signal),)
                first += shape[0]
            elif not signals.keys().isdisjoint(
                signal
            ):  # an edge stands there once: what is added twice has a node more
                copy = Nodes(nir.Scale(scale=np.ones(shape, np.float32)))
                signal = (self._put((*joint.path, number), copy, signal),)
            signals |= dict.fromkeys(signal)
        return tuple(signals)

    def _name(self, path: LayerPath, node: nir.NIRNode) -> str:
        digits = len(str(len(self.network.layers) - 1))
        numbers = "_".join((f"{path[0]:0{digits}}", *map(str, path[1:])))
        return f"layer{numbers}_{type(node).__name__.lower()}"


def _sums(block: Block) -> Iterator[Block]:
    """A block cut in front of every weighted sum."""
    sums = [at for at, part in enumerate(block.parts) if at and part.role == "weights"]
    yield from (Block(block.parts[start:end]) for start, end in pairwise([0, *sums, len(block.parts)]))


def _bytes(graph: _Graph, metadata: dict[str, Any], compatible: str | None) -> bytes:
    """The file's content; `metadata` takes its digest in."""
    offsets: dict[str, Any] = {}
    if compatible:  # nodes of NIR 1.0.4 have no reset value, and not all have metadata
        for name, node in graph.nodes.items():
            offsets |= {f"{key} {name}": value for key, value in node.metadata.items()}
            node.metadata = {}
    file = io.BytesIO()
    nir.write(file, nir.NIRGraph(graph.nodes, graph.edges, metadata=offsets))  # type: ignore[arg-type]
    with h5py.File(file, "r+") as content:
        for node in content["node/nodes"].values() if compatible else ():  # type: ignore[union-attr]
            if "v_reset" in node:
                del node["v_reset"]
        if graph.subtracts:  # a newer version says of a file without reset values that spikes set 0
            del content["version"]
            content.create_dataset("version", data=compatible)
        metadata["digest"] = digest_of(entries_of(content), metadata)
        content.create_dataset(f"node/metadata/{KEY}", data=json.dumps(metadata), dtype=h5py.string_dtype())
    return file.getvalue()


def metadata_path(path: Path) -> Path:
    """The file beside a NIR file that holds its metadata."""
    return path.with_name(path.name + ".json")


def check_writable(file: Path, beside: Path) -> None:
    """Raise unless a file and the one beside it can be written, before either is."""
    if not file.parent.is_dir():
        raise SnnError(f"export to {file}: there is no folder {file.parent}. Make it, or choose another file.")
    for path in (file, beside):
        if path.exists() and not path.is_file():
            raise SnnError(f"export to {file}: {path} is no file that can be replaced. Choose another name.")
