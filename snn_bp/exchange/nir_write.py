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
from snn_bp.errors import SnnError, as_path, check_number
from snn_bp.exchange.nir_file import FORMAT, digest_of
from snn_bp.exchange.nir_layers import Context, Nodes, nodes_of
from snn_bp.exchange.nir_node import KEY
from snn_bp.files import replace_file, write_json
from snn_bp.files.hdf5 import entries_of
from snn_bp.kernels.around import is_untouched
from snn_bp.model.blocks import Block, parts_of, tree
from snn_bp.model.exact import why_strange
from snn_bp.model.network import Network
from snn_bp.runs.provenance import version

RESET_UNSAID = "v <- 0 in the step of the spike, as snnTorch and norse read it; by NIR 1.0.4 it is v <- v - v_threshold"


def write_nir(
    network: Network, path: Path | str, *, step_s: float = 1e-4, compatible: Literal["1.0.4"] | None = None
) -> dict[str, Any]:
    """Write a network in evaluation mode, and return the metadata that stands in the file and beside it (`PATH.json`).

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
    try:
        layers = _layers(network, step_s, compatible)
    except SnnError as cause:
        raise SnnError(f"export to {path.name}: {cause}") from cause
    check_writable(path, metadata_path(path))
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(input_type={"input": np.array(network.input_shape)})}
    edges, last = [], "input"
    metadata: dict[str, Any] = {
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
        "neurons": {},
        "kernels": {},
        "folded_or_left_out": [  # named so in all files of this format
            f"layer {index} ({type(network.layers[index]).__name__})"
            for index, layer in enumerate(layers)
            if layer is None
        ],
    }
    for index, layer in enumerate(layers):
        if layer is None:
            continue
        name = f"layer{index:0{len(str(len(layers) - 1))}}_{type(layer.node).__name__.lower()}"
        nodes[name] = layer.node
        edges.append((last, name))
        if layer.recurrence is not None:  # its edges first: norse returns the output of the last one
            back = f"{name}_recurrent"
            nodes[back] = layer.recurrence
            edges += [(name, back), (back, name)]
        metadata["neurons"] |= {} if layer.neurons is None else {name: layer.neurons}
        metadata["kernels"] |= {} if layer.kernel is None else {name: layer.kernel}
        last = name
    nodes["output"] = nir.Output(output_type={"output": np.array(network.output_shape)})
    edges.append((last, "output"))
    if not metadata["kernels"]:
        del metadata["kernels"]
    content = _bytes(nodes, edges, metadata, compatible)
    replace_file(path, content)
    write_json(metadata_path(path), {**metadata, "sha256": hashlib.sha256(content).hexdigest()})
    return metadata


def _layers(network: Network, step_s: float, compatible: str | None) -> list[Nodes | None]:
    """What the file holds for each layer; raises with every reason for which NIR cannot say what the network does."""
    if type(network) is OnChip:
        raise SnnError("this network computes in Loihi's integers, which NIR does not round to. Write a .net file.")
    if type(network) is not Network:
        raise SnnError(f"a {type(network).__name__} may do more than its layers. Give a Network itself.")
    if not is_untouched(network):
        raise SnnError(
            "the network has hooks, or methods put in place of its own, which a file does not hold. Take them off."
        )
    if any(parameter.dtype != torch.float32 for parameter in network.parameters()):
        raise SnnError("its weights are not in single precision. Use network.float().")
    written: dict[int, Nodes | None] = {}
    refused: dict[int, str] = {}
    for block in _sums(network):
        for part in reversed(block.parts):  # a weighted sum last, as it takes in what stands behind it
            alone = part.role == "weights" and not refused.keys().isdisjoint(block.indexes)
            try:
                if (strange := why_strange(part.layer)) is not None:
                    raise SnnError(strange)
                at = Context(part, Block((part,)) if alone else block, step_s, compatible)
                written[part.index] = nodes_of(part.layer, at)
            except SnnError as cause:
                refused[part.index] = f"{network.name(part.index)} {cause}"
    if refused:
        raise SnnError("\n".join(refused[index] for index in sorted(refused)))
    return [written[index] for index in range(len(network.layers))]


def _sums(network: Network) -> Iterator[Block]:
    """The blocks of a network, cut in front of every weighted sum; a joint alone."""
    for each in tree(parts_of(network)):
        parts = each.parts if isinstance(each, Block) else (each.joint,)
        sums = [at for at, part in enumerate(parts) if at and part.role == "weights"]
        yield from (Block(parts[start:end]) for start, end in pairwise([0, *sums, len(parts)]))


def _bytes(
    nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]], metadata: dict[str, Any], compatible: str | None
) -> bytes:
    """The file's content; `metadata` takes its digest in."""
    offsets: dict[str, Any] = {}
    if compatible:  # nodes of NIR 1.0.4 have no reset value, and not all have metadata
        for name, node in nodes.items():
            offsets |= {f"{key} {name}": value for key, value in node.metadata.items()}
            node.metadata = {}
    file = io.BytesIO()
    nir.write(file, nir.NIRGraph(nodes, edges, metadata=offsets))  # type: ignore[arg-type]
    with h5py.File(file, "r+") as content:
        for node in content["node/nodes"].values() if compatible else ():  # type: ignore[union-attr]
            if "v_reset" in node:
                del node["v_reset"]
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
