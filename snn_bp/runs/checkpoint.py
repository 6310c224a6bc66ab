"""Checkpoints: a safetensors file with its JSON in the header, checked before use. Nothing is ever unpickled."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from snn_bp.errors import SnnError
from snn_bp.files import is_there, read_bytes
from snn_bp.runs.provenance import version

FORMAT = 2  # 1 held every row of the run, and none of "seconds", "tables", "version"
CONTENT = {
    "format": int, "experiment": str, "tensors": str, "groups": list, "plain": dict, "epoch": int, "batch": int,
    "sums": dict, "metrics": list, "seconds": float, "tables": dict, "version": str,
}  # fmt: skip
FIRST_CONTENT = {name: kind for name, kind in CONTENT.items() if name not in ("seconds", "tables", "version")}
FIRST_CONTENT["layers"] = list
POSITION = ("epoch", "batch", "sums", "metrics", "seconds", "tables")


@dataclass
class Checkpoint:
    """Weights, optimizer and position of a run after some number of batches."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any] = field(default_factory=dict)  # torch's state_dict; empty in "best"
    averaged: dict[str, Tensor] = field(default_factory=dict)  # by train.average; in "best" they are its weights
    epoch: int = 0  # complete epochs
    batch: int = 0  # complete batches of the next one
    sums: dict[str, Any] = field(default_factory=dict)  # over the batches of the epoch under way
    metrics: list[dict[str, Any]] = field(default_factory=list)  # rows of the best epoch and the last, if another
    seconds: float = 0.0  # all complete epochs took so long
    tables: dict[str, list[Any]] = field(default_factory=dict)  # length and hash of each file of rows up to here
    rows: list[dict[str, Any]] = field(default_factory=list)  # format 1 alone: all rows of metrics.csv
    layers: list[dict[str, Any]] = field(default_factory=list)  # format 1 alone: all rows of layers.jsonl

    @property
    def evaluated(self) -> dict[str, Tensor]:
        """The weights that are evaluated: the averaged ones where there are."""
        return self.averaged or self.weights


def checkpoint_bytes(checkpoint: Checkpoint, experiment: str) -> bytes:
    """The checkpoint as a safetensors file; `experiment` is the `json_sha256` of the run's."""
    tensors = {f"weights/{name}": tensor for name, tensor in checkpoint.weights.items()}
    tensors |= {f"averaged/{name}": tensor for name, tensor in checkpoint.averaged.items()}
    state = checkpoint.optimizer.get("state", {})
    plain: dict[str, Any] = {}  # what of the optimizer's state is not a tensor
    for index, entries in state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                plain[f"{index}/{name}"] = value
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    owners = {tensor.untyped_storage().data_ptr(): name for name, tensor in tensors.items()}
    tensors = {  # the format holds no tensor twice: layers that share weights each get them
        name: tensor if owners[tensor.untyped_storage().data_ptr()] == name else tensor.clone()
        for name, tensor in tensors.items()
    }
    content = {
        "format": FORMAT,
        "version": version("snn_bp") or "unknown",
        "experiment": experiment,
        "tensors": tensor_digest(tensors),
        "groups": checkpoint.optimizer.get("param_groups", []),
        "plain": plain,
        **{name: getattr(checkpoint, name) for name in POSITION},
    }
    header = json.dumps(content)
    return safetensors_bytes(tensors, metadata={"snn_bp": header, "sha256": text_digest(header)})


def read_checkpoint(file: Path, experiment: str) -> Checkpoint:
    """The checkpoint in `file`; refused where it is missing, truncated, altered, or of another run or program."""
    if not is_there(file):
        raise SnnError(f"{file}: there is no such checkpoint.")
    raw = read_bytes(file)
    try:
        tensors = load_tensors(raw)
        metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError) as cause:
        raise SnnError(f"{file}: the checkpoint is truncated or damaged ({cause}).") from None
    content = _content(file, metadata)
    if content["experiment"] != experiment:
        raise SnnError(
            f"{file}: the checkpoint is of another experiment than experiment.json, which was changed since. "
            "Put the one of before back."
        )
    if content["tensors"] != tensor_digest(tensors):
        raise SnnError(f"{file}: the checkpoint is damaged; its tensors do not match their checksum.")
    try:
        return _checkpoint(content, tensors)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise SnnError(f"{file}: the checkpoint is damaged; its rows or tensors are not those of a run.") from None


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of the names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes() if tensors[name].numel() else b"")
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """A hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _content(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON of the header, each part of the type it should have."""
    header = metadata.get("snn_bp")
    if header is None:
        raise SnnError(f"{file}: not a checkpoint of snn_bp; its header is missing.")
    try:
        content = json.loads(header)
    except (ValueError, RecursionError):
        raise SnnError(f"{file}: the checkpoint is damaged; its header is not JSON.") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found not in (1, FORMAT):
        theirs, ours = content.get("version", "unknown") if isinstance(content, dict) else "unknown", version("snn_bp")
        raise SnnError(
            f"{file}: checkpoint format {found!r:.40}, written by snn_bp {theirs!s:.40}; this is snn_bp {ours}, "
            f"which reads 1 to {FORMAT}. Read it with the version that wrote it."
        )
    if metadata.get("sha256") != text_digest(header):
        raise SnnError(f"{file}: the checkpoint is damaged; its header does not match its checksum.")
    for name, kind in (CONTENT if found == FORMAT else FIRST_CONTENT).items():
        if not isinstance(content.get(name), kind):
            raise SnnError(f"{file}: the checkpoint is damaged; {name!r} in its header is {content.get(name)!r:.40}.")
    return content


def _checkpoint(content: dict[str, Any], tensors: Mapping[str, Tensor]) -> Checkpoint:
    weights: dict[str, Tensor] = {}
    averaged: dict[str, Tensor] = {}
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "weights":
            weights[rest] = tensor
        elif kind == "averaged":
            averaged[rest] = tensor
        else:
            index, _, entry = rest.partition("/")
            state.setdefault(int(index), {})[entry] = tensor
    for name, value in content["plain"].items():
        index, _, entry = name.partition("/")
        state.setdefault(int(index), {})[entry] = value
    optimizer = {"state": state, "param_groups": content["groups"]} if content["groups"] else {}
    rest = {name: content[name] for name in (*POSITION, "layers") if name in content}
    if content["format"] == 1:
        rows = rest["rows"] = content["metrics"]
        rest["seconds"] = float(sum(row.get("seconds", 0.0) for row in rows))
        best = max(rows, key=lambda row: (row.get("validation_accuracy", 0), row["epoch"]), default=None)
        rest["metrics"] = [row for row in rows if row is best or row is rows[-1]]
    return Checkpoint(weights=weights, optimizer=optimizer, averaged=averaged, **rest)
