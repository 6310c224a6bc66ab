"""A NIR file as it lies on disk: nodes with their numbers, checked before anything is made of them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from snn_bp.errors import SnnError
from snn_bp.export.hdf5 import Entry, read_hdf5

Value: TypeAlias = np.ndarray | str
FORMAT = 1  # of our contract
CONTRACT = "snn_bp"  # its name in the graph's metadata, a text of JSON
NODES, CONTRACT_PATH = "/node/nodes/", f"/node/metadata/{CONTRACT}"
RESETS_TO_VALUE = (1, 0, 6)  # the version of NIR from which a spike sets v_reset; before, it takes off the threshold
MOST_NODES, MOST_NEURONS, MOST_PRODUCTS = 10_000, 2**24, 2**32  # of one layer, and of one step of it
NEURONS = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")


@dataclass(frozen=True, eq=False)
class Node:
    """One node; fields are arrays of any shape or texts, metadata those of `snn_bp` alone."""

    name: str
    kind: str
    fields: dict[str, Value]
    metadata: dict[str, np.ndarray]

    def refuse(self, why: str) -> SnnError:
        """The error that says why this node cannot be read."""
        return SnnError(f"node {self.name!r} ({self.kind}): {why}")

    def numbers(self, name: str) -> np.ndarray:
        """A field of finite numbers."""
        value = self.fields.get(name)
        if not isinstance(value, np.ndarray) or value.size == 0 or not (np.abs(value.astype(float)) < 3e38).all():
            raise self.refuse(f"its {name} should be finite numbers, found {'none' if value is None else 'others'}.")
        return value.astype(np.float64)

    def each(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A field with a number for each neuron of `shape`."""
        value = self.numbers(name)
        if value.shape != shape and value.size != 1:
            raise self.refuse(f"its {name} has the shape {list(value.shape)}, its input {list(shape)}.")
        return np.broadcast_to(value.reshape(shape if value.shape == shape else ()), shape)

    def whole(self, name: str, count: int) -> tuple[int, ...]:
        """A field of `count` whole numbers from 0 up, or one for all."""
        value = self.numbers(name).ravel()
        if value.size not in (1, count) or (value != np.trunc(value)).any() or value.min() < 0 or value.max() > 2**24:
            raise self.refuse(f"its {name} should be {count} whole numbers from 0 up, found {value[:4].tolist()}.")
        return tuple(int(number) for number in np.broadcast_to(value, (count,)))


@dataclass(frozen=True, eq=False)
class NirFile:
    """Nodes by name, edges in the order of the file, and the contract if `snn_bp` wrote it."""

    version: tuple[int, ...]
    nodes: dict[str, Node]
    edges: list[tuple[str, str]]
    contract: dict[str, Any] | None

    def step(self, given: float | None) -> float:
        """The length of a time step in seconds: the contract's, or the one given."""
        ours = self.contract["step_s"] if self.contract else given
        if given is not None and (isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 1e9):
            raise SnnError(f"step_s={given!r}: the time step is a positive number of seconds.")
        if ours is None:
            raise SnnError(
                "NIR stores no time step and this file has no contract of snn_bp. Give step_s; 1e-4 is usual."
            )
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
    parts: dict[str, dict[str, Entry]] = {}
    for path, entry in entries.items():
        if path.startswith(NODES):
            name, _, field = path.removeprefix(NODES).partition("/")
            parts.setdefault(name, {})[field] = entry
    if len(parts) > MOST_NODES:
        raise SnnError(f"it has {len(parts)} nodes, at most {MOST_NODES} are read.")
    nodes = {name: _node(name, fields) for name, fields in parts.items()}
    contract = _contract(_text(entries, CONTRACT_PATH)) if CONTRACT_PATH in entries else None
    return NirFile(
        tuple(int(number or 0) for number in numbers.groups()),
        nodes,
        _edges(entries.get("/node/edges"), nodes),
        contract,
    )


def _text(entries: dict[str, Entry], path: str) -> str:
    text = entries.get(path)
    if not isinstance(text, str):
        raise SnnError(
            f"it is no NIR file: {path} should be a text, {'found other' if path in entries else 'missing'}."
        )
    return text


def _node(name: str, entries: dict[str, Entry]) -> Node:
    kind = entries.get("type")
    if not isinstance(kind, str):
        raise SnnError(f"node {name!r}: it has no type. A node whose name has a '/' falls apart in HDF5.")
    fields: dict[str, Value] = {}
    metadata: dict[str, np.ndarray] = {}
    for path, entry in entries.items():
        field, _, key = path.partition("/")
        if field in ("nodes", "edges"):
            raise SnnError(f"node {name!r}: a graph inside the graph is not read. Write it flat.")
        if field == "metadata":
            if isinstance(entry, np.ndarray) and key.startswith(CONTRACT):
                metadata[key] = entry
        elif key or (field and not isinstance(entry, np.ndarray | str)):
            raise SnnError(f"node {name!r}: its {field!r} should be numbers or a text.")
        elif field not in ("", "type"):
            assert isinstance(entry, np.ndarray | str)
            fields[field] = entry
    return Node(name, kind, fields, metadata)


def _edges(entry: Entry, nodes: dict[str, Node]) -> list[tuple[str, str]]:
    if isinstance(entry, np.ndarray) and entry.size == 0:
        return []
    if not isinstance(entry, list) or not all(isinstance(edge, list) and len(edge) == 2 for edge in entry):
        raise SnnError("its edges should be pairs of names.")
    edges = [(str(start), str(end)) for start, end in entry]
    missing = [name for edge in edges for name in edge if name not in nodes]
    if missing:
        raise SnnError(f"an edge names the node {missing[0][:80]!r}, which is not there.")
    if len(set(edges)) < len(edges):
        raise SnnError("an edge stands there twice.")
    return edges


def _contract(text: str) -> dict[str, Any]:
    try:
        contract = json.loads(text)
    except (ValueError, RecursionError):
        raise SnnError("the contract of snn_bp in its metadata is not JSON.") from None
    if not isinstance(contract, dict) or contract.get("format") != FORMAT:
        raise SnnError(f"the contract of snn_bp in its metadata has another format than {FORMAT}. Update snn_bp.")
    step, neurons = contract.get("step_s"), contract.get("neurons")
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < 1e9:
        raise SnnError("the contract of snn_bp in its metadata has no step_s, a positive number of seconds.")
    if not isinstance(neurons, dict) or not all(isinstance(each, dict) for each in neurons.values()):
        raise SnnError("the contract of snn_bp in its metadata does not say what its neurons are.")
    return contract
