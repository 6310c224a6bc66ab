"""A NIR file as it lies on disk: nodes with their numbers, checked before anything is made of them."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from snn_bp.errors import SnnError, check_choice, is_number
from snn_bp.exchange.nir_flat import flat, without_batch
from snn_bp.exchange.nir_node import KEY, Edge, Node, Value, offset_key
from snn_bp.files.hdf5 import Entry, read_hdf5

FORMAT = 1  # version of what snn_bp writes into the metadata
METADATA = "/node/metadata/"
RESETS_TO_VALUE = (1, 0, 6)  # the version of NIR from which a spike sets v_reset; before, it takes off the threshold
SUBTRACTS = "subtract_before_leak"  # the reset of a neuron that does so, here and in the metadata of snn_bp
AsZero: TypeAlias = Literal["zero"] | None
MAX_NEURONS, MAX_PRODUCTS = 2**24, 2**32  # in one layer, and for one step of it
LEAVE = "Leave reset out."
NO_STEP = "NIR stores no time step and this file has no metadata of snn_bp. Give step_s (--step): "


@dataclass(frozen=True, eq=False)
class NirFile:
    """Nodes by name, edges in the order of the file, and the metadata if `snn_bp` wrote it."""

    version: tuple[int, ...]
    nodes: dict[str, Node]
    edges: list[Edge]
    metadata: dict[str, Any] | None
    zero: bool = False  # whether spikes set 0 all the same where they would subtract by the file's version

    def subtracts(self, node: Node) -> bool:
        """Whether a spike takes the threshold off, as up to NIR 1.0.5, and does not set a value."""
        if self.metadata is not None:
            return self.metadata["neurons"].get(node.name, {}).get("reset") == SUBTRACTS
        return "v_reset" not in node.fields and self.version < RESETS_TO_VALUE and not self.zero

    def step(self, step_s: float | None) -> float:
        """The length of a time step in seconds: that of the metadata, or the one given."""
        ours = self.metadata["step_s"] if self.metadata else step_s
        if step_s is not None and not _is_step(step_s):
            raise SnnError(f"step_s={step_s!r}: the time step is a positive number of seconds.")
        if ours is None:
            raise SnnError(NO_STEP + "read_nir without it says which steps keep the layers alive.")
        if step_s is not None and ours != step_s:
            raise SnnError(f"step_s={step_s}: the file was written for steps of {ours} s. Leave step_s out.")
        return float(ours)


def open_nir(path: Path | str, reset: AsZero = None) -> NirFile:
    """The content of a file, as if its spikes set 0 with `reset="zero"`; raises where it is no NIR graph or broken."""
    entries = read_hdf5(path)
    try:
        file = _graph(entries)
        if reset is None:
            return file
        check_choice("reset", reset, ("zero",))
        if file.metadata is not None or file.version >= RESETS_TO_VALUE:
            raise SnnError(f'reset="zero" is for files from before NIR 1.0.6; this one says what it resets to. {LEAVE}')
        return replace(file, zero=True)
    except SnnError as cause:
        raise SnnError(f"{path}: {cause}") from cause


def _graph(entries: dict[str, Entry]) -> NirFile:
    version = _text(entries, "/version")
    numbers = re.match(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", version)
    if numbers is None:
        raise SnnError(f"its version {version[:20]!r} is no version of NIR.")
    if _text(entries, "/node/type") != "NIRGraph":
        raise SnnError("its top node is no NIRGraph.")
    metadata = _metadata_of(entries)
    parts, edges = flat(entries)
    nodes = {name: _node(name, fields, entries) for name, fields in parts.items()}
    return NirFile(tuple(int(number or 0) for number in numbers.groups()), without_batch(nodes, edges), edges, metadata)


def digest_of(entries: Mapping[str, Entry], metadata: Mapping[str, Any]) -> str:
    """A hash of all nodes and edges and of the metadata, the same however the file stores them."""
    said = {name: value for name, value in metadata.items() if name != "digest"}
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for path, entry in sorted(entries.items()):
        if not path.startswith("/node/") or path == METADATA + KEY or entry is None:
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
            if isinstance(entry, np.ndarray) and key.startswith(KEY):
                metadata[key] = entry
        elif key or (field and not isinstance(entry, np.ndarray | str)):
            raise SnnError(f"node {name!r}: its {field!r} should be numbers or a text.")
        elif field not in ("", "type"):
            assert isinstance(entry, np.ndarray | str)
            fields[field] = entry
    for key in map(offset_key, ("weight", "bias")):  # NIR 1.0.4 holds no metadata in its nodes
        entry = entries.get(f"{METADATA}{key} {name}")
        if isinstance(entry, np.ndarray):
            metadata[key] = entry
    return Node(name, kind, fields, metadata)


def _metadata_of(entries: dict[str, Entry]) -> dict[str, Any] | None:
    """What snn_bp says about a file, checked; None where another library wrote it."""
    if METADATA + KEY not in entries:
        return None
    try:
        metadata = json.loads(_text(entries, METADATA + KEY))
    except (ValueError, RecursionError):
        raise SnnError("the metadata of snn_bp is not JSON.") from None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise SnnError(f"the metadata of snn_bp has another format than {FORMAT}. Update snn_bp.")
    if metadata.get("digest", digest := digest_of(entries, metadata)) != digest:
        raise SnnError(
            "what it holds is not what snn_bp wrote: the file was changed or damaged. Export it again; a file that "
            f"was changed on purpose is read with a step_s once {METADATA}{KEY} is taken out of it."
        )
    if not _is_step(metadata.get("step_s")):
        raise SnnError("the metadata of snn_bp has no step_s, a positive number of seconds.")
    for entry in (metadata.get("neurons"), metadata.setdefault("kernels", {})):
        if not isinstance(entry, dict) or not all(isinstance(each, dict) for each in entry.values()):
            raise SnnError("the metadata of snn_bp does not say what its neurons are.")
    return metadata


def _is_step(value: Any) -> bool:
    return is_number(value) and 0 < value < 1e9
