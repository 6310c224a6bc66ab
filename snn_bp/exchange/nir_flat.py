"""One flat graph of what a NIR file holds: inner graphs are put in their place, a batch axis of one is taken off."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from snn_bp.errors import SnnError
from snn_bp.exchange.nir_node import NEURONS, Edge, Node
from snn_bp.files.hdf5 import Entry

MOST_NODES, MOST_GRAPHS = 10_000, 200
RANKS = {"Affine": 1, "Linear": 1, "Conv1d": 2, "Conv2d": 3, "SumPool2d": 3, "AvgPool2d": 3}  # axes of an input
EACH = {**dict.fromkeys(NEURONS, "r"), "Scale": "scale", "Threshold": "threshold", "Delay": "delay"}
Parts = dict[str, dict[str, Entry]]


def flat(entries: dict[str, Entry]) -> tuple[Parts, list[Edge]]:
    """The fields of every node by its name, "graph.node" of one in an inner graph, and the edges between them."""
    found = _Flat({}, [], {}, {})
    _collect({path.removeprefix("/node/"): entry for path, entry in entries.items()}, "", found)
    parts = found.parts
    edges = [(found.ends.get(start, start), found.starts.get(end, end)) for start, end in found.edges]
    missing = [name for edge in edges for name in edge if name not in parts]
    if missing:
        raise SnnError(f"an edge names the node {missing[0][:80]!r}, which is not there.")
    for name in (*found.starts.values(), *found.ends.values()):
        edges = _passed(edges, name)
        del parts[name]
    if len(set(edges)) < len(edges):
        raise SnnError("an edge stands there twice.")
    return parts, edges


class _Flat(NamedTuple):
    """What is collected so far, and for each graph inside the graph which node is its input, which its output."""

    parts: Parts
    edges: list[Edge]
    starts: dict[str, str]
    ends: dict[str, str]


def _collect(graph: dict[str, Entry], label: str, found: _Flat) -> None:
    """Collect the nodes and edges of a graph, and of those inside it."""
    children: Parts = {}
    for path, entry in graph.items():
        if path.startswith("nodes/"):
            name, _, field = path.removeprefix("nodes/").partition("/")
            children.setdefault(name, {})[field] = entry
    found.edges.extend((label + start, label + end) for start, end in _pairs(graph.get("edges")))
    for name, fields in children.items():
        if label + name in found.parts or len(found.parts) >= MOST_NODES or len(found.starts) > MOST_GRAPHS:
            raise SnnError(
                f"it has more than {MOST_NODES} nodes or {MOST_GRAPHS} graphs, or two nodes {(label + name)[:80]!r}."
            )
        if not isinstance(fields.get("type"), str):
            raise SnnError(f"node {name!r}: it has no type. A node whose name has a '/' falls apart in HDF5.")
        if fields["type"] != "NIRGraph":
            found.parts[label + name] = fields
            continue
        _collect(fields, f"{label}{name}.", found)
        for kind, known in (("Input", found.starts), ("Output", found.ends)):
            own = [child for child in _children(fields) if fields.get(f"nodes/{child}/type") == kind]
            if len(own) != 1:
                raise SnnError(f"the graph {(label + name)[:80]!r} inside it has {len(own)} nodes {kind}, not one.")
            known[label + name] = f"{label}{name}.{own[0]}"


def _children(graph: dict[str, Entry]) -> set[str]:
    return {path.split("/")[1] for path in graph if path.startswith("nodes/")}


def _pairs(entry: Entry) -> list[Edge]:
    if isinstance(entry, np.ndarray) and entry.size == 0:
        return []
    if not isinstance(entry, list) or not all(isinstance(edge, list) and len(edge) == 2 for edge in entry):
        raise SnnError("its edges should be pairs of names.")
    return [(str(start), str(end)) for start, end in entry]


def _passed(edges: list[Edge], name: str) -> list[Edge]:
    """The edges without the end `name` of an inner graph: what led to it leads to all that is behind it."""
    before = [start for start, end in edges if end == name]
    if len(before) != 1:
        raise SnnError(f"{len(before)} edges lead to {name[:80]!r}, the end of a graph inside it; one should.")
    return [(before[0] if start == name else start, end) for start, end in edges if end != name]


def without_batch(nodes: dict[str, Node], edges: list[Edge]) -> dict[str, Node]:
    """The nodes with shapes of one sample, where the file's Input has a batch axis of one in front.

    NIR has no batch axis, but libraries write the shape of the sample batch that they traced. It is one where the
    first node that says how many axes it takes says one less.
    """
    starts = [node for node in nodes.values() if node.kind == "Input"]
    if len(starts) != 1 or not _has_batch(starts[0], nodes, edges):
        return nodes
    return {name: _one_sample(node) for name, node in nodes.items()}


def _has_batch(start: Node, nodes: dict[str, Node], edges: list[Edge]) -> bool:
    shape = start.fields.get("shape")
    if not isinstance(shape, np.ndarray) or shape.ndim != 1 or len(shape) < 2 or shape[0] != 1:
        return False
    onward, at = dict(reversed(edges)), start.name  # where several lead on, the first
    for _ in range(len(nodes)):
        if at not in onward:
            return False
        node = nodes[onward[at]]
        if node.kind in RANKS:
            return len(shape) == RANKS[node.kind] + 1
        if node.kind == "Flatten":
            first = node.fields.get("start_dim")
            return isinstance(first, np.ndarray) and first.size == 1 and int(first.flat[0]) in (1, 1 - len(shape))
        each = node.fields.get(EACH.get(node.kind, ""))
        if isinstance(each, np.ndarray) and each.size > 1:
            return len(shape) == each.ndim + 1
        at = node.name
    return False


def _one_sample(node: Node) -> Node:
    fields = dict(node.fields)
    for name in ("shape", "input_type"):
        shape = fields.get(name)
        if isinstance(shape, np.ndarray) and shape.ndim == 1 and len(shape) > 1 and shape[0] == 1:
            fields[name] = shape[1:]
    if node.kind == "Flatten":
        for name in ("start_dim", "end_dim"):
            axis = fields.get(name)
            if isinstance(axis, np.ndarray) and axis.dtype.kind in "iu":
                fields[name] = np.where(axis > 0, axis - 1, axis)
    return replace(node, fields=fields)
