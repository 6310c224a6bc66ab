"""A NIR file as it lies on disk: nodes with their numbers, checked before anything is made of them."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.errors import SnnError, is_number
from snn_bp.exchange.nir_flat import flat, without_batch
from snn_bp.exchange.nir_node import NEURONS, Edge, Node, Value
from snn_bp.files.hdf5 import Entry, read_hdf5

FORMAT = 1  # of our contract
CONTRACT = "snn_bp"  # its name in the graph's metadata, a text of JSON
METADATA = "/node/metadata/"
RESETS_TO_VALUE = (1, 0, 6)  # the version of NIR from which a spike sets v_reset; before, it takes off the threshold
MOST_NEURONS, MOST_PRODUCTS = 2**24, 2**32  # of one layer, and of one step of it
NO_STEP = "NIR stores no time step and this file has no contract of snn_bp. Give step_s (--step): "


@dataclass(frozen=True, eq=False)
class NirFile:
    """Nodes by name, edges in the order of the file, and the contract if `snn_bp` wrote it."""

    version: tuple[int, ...]
    nodes: dict[str, Node]
    edges: list[Edge]
    contract: dict[str, Any] | None

    def subtracts(self, node: Node) -> bool:
        """Whether a spike takes the threshold off, as up to NIR 1.0.5, and does not set a value."""
        return "v_reset" not in node.fields and self.contract is None and self.version < RESETS_TO_VALUE

    def step(self, given: float | None) -> float:
        """The length of a time step in seconds: the contract's, or the one given."""
        ours = self.contract["step_s"] if self.contract else given
        if given is not None and not _is_step(given):
            raise SnnError(f"step_s={given!r}: the time step is a positive number of seconds.")
        if ours is None:
            raise SnnError(NO_STEP + "read_nir without it says which steps keep the layers alive.")
        if given is not None and ours != given:
            raise SnnError(f"step_s={given}: the file was written for steps of {ours} s. Leave step_s out.")
        return float(ours)


def open_nir(path: Path | str) -> NirFile:
    """The content of a file; raises where it is no NIR graph or broken."""
    entries = read_hdf5(path)
    try:
        return _graph(entries)
    except SnnError as cause:
        raise SnnError(f"{path}: {cause}") from cause


def chain_of(file: NirFile) -> tuple[list[str], dict[str, str]]:
    """The nodes from input to output, and the node through which neurons hear themselves."""
    ends = {kind: [name for name, node in file.nodes.items() if node.kind == kind] for kind in ("Input", "Output")}
    for kind, names in ends.items():
        if len(names) != 1:
            raise SnnError(f"it should have one {kind}, found {len(names)}.")
    into: dict[str, list[str]] = {name: [] for name in file.nodes}
    out: dict[str, list[str]] = {name: [] for name in file.nodes}
    for start, end in file.edges:
        out[start].append(end)
        into[end].append(start)
    loops = {}
    for name, node in file.nodes.items():
        if node.kind in ("Linear", "Affine") and len(out[name]) == 1 and out[name] == into[name]:
            neurons = out[name][0]
            if file.nodes[neurons].kind not in NEURONS or neurons in loops:
                raise node.refuse(f"it feeds {neurons!r} back, which is no neuron or hears itself already.")
            loops[neurons] = name
            out[neurons].remove(name)
            into[neurons].remove(name)
    chain = [ends["Input"][0]]
    while file.nodes[chain[-1]].kind != "Output":
        node = file.nodes[chain[-1]]
        if len(out[node.name]) != 1:
            raise node.refuse(f"it leads to {out[node.name]}; snn_bp reads chains, one after the other.")
        (name,) = out[node.name]
        if into[name] != [node.name]:
            raise file.nodes[name].refuse(f"{into[name]} lead to it; snn_bp reads chains, one after the other.")
        chain.append(name)
    left = set(file.nodes) - set(chain) - set(loops.values())
    if left:
        raise file.nodes[min(left)].refuse("no way leads from the input over it to the output.")
    return chain, loops


def _graph(entries: dict[str, Entry]) -> NirFile:
    version = _text(entries, "/version")
    numbers = re.match(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", version)
    if numbers is None:
        raise SnnError(f"its version {version[:20]!r} is no version of NIR.")
    if _text(entries, "/node/type") != "NIRGraph":
        raise SnnError("its top node is no NIRGraph.")
    contract = None
    if METADATA + CONTRACT in entries:
        contract = _contract(_text(entries, METADATA + CONTRACT))
        if contract.get("digest", digest := digest_of(entries, contract)) != digest:
            raise SnnError(
                "what it holds is not what snn_bp wrote: the file was changed or damaged. Export it again; a file that "
                f"was changed on purpose is read with a step_s once {METADATA}{CONTRACT} is taken out of it."
            )
        _check_contract(contract)
    parts, edges = flat(entries)
    nodes = {name: _node(name, fields, entries) for name, fields in parts.items()}
    return NirFile(tuple(int(number or 0) for number in numbers.groups()), without_batch(nodes, edges), edges, contract)


def digest_of(entries: Mapping[str, Entry], contract: Mapping[str, Any]) -> str:
    """A hash of all nodes and edges and of the contract, the same however the file stores them."""
    said = {name: value for name, value in contract.items() if name != "digest"}
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for path, entry in sorted(entries.items()):
        if not path.startswith("/node/") or path == METADATA + CONTRACT or entry is None:
            continue
        found.update(f"{path}\n".encode())
        if isinstance(entry, np.ndarray):
            found.update(f"{entry.shape if entry.ndim > 1 else entry.size}\n".encode())
            found.update(np.ascontiguousarray(entry, np.float64).tobytes())
        else:
            found.update(json.dumps(entry).encode())
    return found.hexdigest()


def _text(entries: dict[str, Entry], path: str) -> str:
    text = entries.get(path)
    if not isinstance(text, str):
        raise SnnError(
            f"it is no NIR file: {path} should be a text, {'found other' if path in entries else 'missing'}."
        )
    return text


def _node(name: str, parts: dict[str, Entry], entries: dict[str, Entry]) -> Node:
    kind = parts["type"]
    assert isinstance(kind, str)
    fields: dict[str, Value] = {}
    metadata: dict[str, np.ndarray] = {}
    for path, entry in parts.items():
        field, _, key = path.partition("/")
        if field == "metadata":
            if isinstance(entry, np.ndarray) and key.startswith(CONTRACT):
                metadata[key] = entry
        elif key or (field and not isinstance(entry, np.ndarray | str)):
            raise SnnError(f"node {name!r}: its {field!r} should be numbers or a text.")
        elif field not in ("", "type"):
            assert isinstance(entry, np.ndarray | str)
            fields[field] = entry
    for key in (f"{CONTRACT}_weight_off", f"{CONTRACT}_bias_off"):  # of NIR 1.0.4, whose nodes hold no metadata
        entry = entries.get(f"{METADATA}{key} {name}")
        if isinstance(entry, np.ndarray):
            metadata[key] = entry
    return Node(name, kind, fields, metadata)


def _contract(text: str) -> dict[str, Any]:
    try:
        contract = json.loads(text)
    except (ValueError, RecursionError):
        raise SnnError("the contract of snn_bp in its metadata is not JSON.") from None
    if not isinstance(contract, dict) or contract.get("format") != FORMAT:
        raise SnnError(f"the contract of snn_bp in its metadata has another format than {FORMAT}. Update snn_bp.")
    return contract


def _check_contract(contract: dict[str, Any]) -> None:
    step, neurons = contract.get("step_s"), contract.get("neurons")
    if not _is_step(step):
        raise SnnError("the contract of snn_bp in its metadata has no step_s, a positive number of seconds.")
    kernels = contract.setdefault("kernels", {})
    if not all(isinstance(part, dict) and all(isinstance(each, dict) for each in part.values())
               for part in (neurons, kernels)):  # fmt: skip
        raise SnnError("the contract of snn_bp in its metadata does not say what its neurons are.")


def _is_step(value: Any) -> bool:
    return is_number(value) and 0 < value < 1e9
