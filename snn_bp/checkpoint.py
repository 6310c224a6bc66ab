"""Checkpoints: a safetensors file with its JSON in the header, checked before use. Nothing is ever unpickled."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from snn_bp.errors import SnnError
from snn_bp.experiment import Experiment, to_json

FORMAT = 1
CONTENT = {
    "format": int, "experiment": str, "tensors": str, "groups": list, "plain": dict, "epoch": int, "batch": int,
    "sums": dict, "metrics": list, "layers": list,
}  # fmt: skip


@dataclass
class Checkpoint:
    """Weights, optimizer and position of a run after some number of batches."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any] = field(default_factory=dict)  # torch's state_dict; empty in "best"
    epoch: int = 0  # complete epochs
    batch: int = 0  # complete batches of the next one
    sums: dict[str, Any] = field(default_factory=dict)  # of the epoch under way
    metrics: list[dict[str, Any]] = field(default_factory=list)  # a row for each complete epoch
    layers: list[dict[str, Any]] = field(default_factory=list)


def checkpoint_bytes(checkpoint: Checkpoint, experiment: Experiment) -> bytes:
    """The checkpoint as a safetensors file."""
    tensors = {f"weights/{name}": tensor for name, tensor in checkpoint.weights.items()}
    state = checkpoint.optimizer.get("state", {})
    plain: dict[str, Any] = {}  # what of the optimizer's state is not a tensor
    for index, entries in state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                plain[f"{index}/{name}"] = value
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = {
        "format": FORMAT,
        "experiment": experiment_digest(experiment),
        "tensors": tensor_digest(tensors),
        "groups": checkpoint.optimizer.get("param_groups", []),
        "plain": plain,
        **{name: getattr(checkpoint, name) for name in ("epoch", "batch", "sums", "metrics", "layers")},
    }
    header = json.dumps(content)
    return safetensors_bytes(tensors, metadata={"snn_bp": header, "sha256": text_digest(header)})


def read_checkpoint(file: Path, experiment: Experiment) -> Checkpoint:
    """The checkpoint in `file`; refused where it is missing, truncated, altered, or of another run or program."""
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise SnnError(f"{file}: there is no such checkpoint.") from None
    except (SafetensorError, OSError, ValueError) as cause:
        raise SnnError(f"{file}: the checkpoint is truncated or damaged ({cause}).") from None
    content = _content(file, metadata)
    if content["experiment"] != experiment_digest(experiment):
        raise SnnError(f"{file}: the checkpoint is of another experiment than experiment.json.")
    if content["tensors"] != tensor_digest(tensors):
        raise SnnError(f"{file}: the checkpoint is damaged; its tensors do not match their checksum.")
    try:
        return _checkpoint(content, tensors)
    except ValueError:
        raise SnnError(f"{file}: the checkpoint is damaged; its tensors have names that are not known.") from None


def experiment_digest(experiment: Experiment) -> str:
    """A hash of everything that a run depends on."""
    return hashlib.sha256(json.dumps(to_json(experiment), sort_keys=True).encode()).hexdigest()


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
    if found != FORMAT:
        raise SnnError(f"{file}: checkpoint format {found}, this version reads {FORMAT}.")
    if metadata.get("sha256") != text_digest(header):
        raise SnnError(f"{file}: the checkpoint is damaged; its header does not match its checksum.")
    for name, kind in CONTENT.items():
        if not isinstance(content.get(name), kind):
            raise SnnError(f"{file}: the checkpoint is damaged; {name!r} in its header is {content.get(name)!r:.40}.")
    return content


def _checkpoint(content: dict[str, Any], tensors: Mapping[str, Tensor]) -> Checkpoint:
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        if part == "weights":
            weights[rest] = tensor
        else:
            index, _, entry = rest.partition("/")
            state.setdefault(int(index), {})[entry] = tensor
    for name, value in content["plain"].items():
        index, _, entry = name.partition("/")
        state.setdefault(int(index), {})[entry] = value
    optimizer = {"state": state, "param_groups": content["groups"]} if content["groups"] else {}
    rest = {name: content[name] for name in ("epoch", "batch", "sums", "metrics", "layers")}
    return Checkpoint(weights=weights, optimizer=optimizer, **rest)
