"""Which weights learn and how: a start from another run, frozen layers, rates of their own, and a running average."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError
from snn_bp.model.blocks import LayerAt, Path, every_part, parts_of
from snn_bp.model.network import Network
from snn_bp.runs.checkpoint import tensor_digest
from snn_bp.runs.folder import Run
from snn_bp.runs.training_options import Start, Train

SHOWN = 3  # names that a message has, of many


def layers_at(network: Network, key: int | str, *, asker: str) -> list[LayerAt]:
    """The layers at an index, or at a key as "3.0.1" within joints; those within a joint too."""
    path: Path = tuple(int(part) for part in str(key).split("."))
    found = [part for part in every_part(parts_of(network)) if part.path[: len(path)] == path]
    if not found:
        count = len(network.layers)
        raise SnnError(f"{asker}: there is no layer {key}. The model has the layers 0..{count - 1}.")
    return found


def weights_at(network: Network, key: int | str, *, asker: str) -> list[nn.Parameter]:
    """The parameters of layers, each once."""
    weights = [weight for part in layers_at(network, key, asker=asker) for weight in part.layer.parameters()]
    return list({id(weight): weight for weight in weights}.values())


def freeze_layers(network: Network, keys: Sequence[int | str]) -> list[nn.Module]:
    """Let the weights of layers stay as they are; gives the norms among them, whose statistics stay too."""
    norms: list[nn.Module] = []
    for key in keys:
        parts = layers_at(network, key, asker="train.freeze")
        for weight in weights_at(network, key, asker="train.freeze"):
            weight.requires_grad_(False)
        norms += [module for part in parts for module in part.layer.modules() if "running_mean" in module._buffers]
    if keys and not any(weight.requires_grad for weight in network.parameters()):
        raise SnnError(f"train.freeze={tuple(keys)}: then no weight of the network learns. Leave one layer out of it.")
    return norms


def rate_factors(network: Network, train: Train) -> dict[int, float]:
    """The factor of the learning rate of each parameter that has one of its own, by the `id` of the parameter."""
    factors: dict[int, float] = {}
    for key, factor in train.lr_of:
        for weight in weights_at(network, key, asker="train.lr_of"):
            if not weight.requires_grad:
                raise SnnError(f"train.lr_of: layer {key} stays by train.freeze={train.freeze}. Leave it out of one.")
            factors[id(weight)] = factor
    return factors


def start_from(network: Network, start: Start) -> dict[str, Any]:
    """Put the weights of another run into a network; gives what `provenance.json` says of them.

    Raises where they do not fit, with the names of what does not.
    """
    where = f"train.start={start.run!r}"
    try:
        run = Run(start.run)
        given = run.network(start.checkpoint).floats.state_dict()
    except SnnError as cause:
        raise SnnError(f"{where}: {cause}") from cause
    for key in start.but:
        layers_at(network, key, asker="train.start.but")
    left_out = tuple(_prefix(key) for key in start.but)
    wanted = {name: value for name, value in network.floats.state_dict().items() if not name.startswith(left_out)}
    given = {name: value for name, value in given.items() if not name.startswith(left_out)}
    problems = [f"{name} is missing there" for name in wanted if name not in given]
    problems += [f"{name} is not in this model" for name in given if name not in wanted]
    problems += [
        f"{name} is {list(given[name].shape)} there, {list(wanted[name].shape)} here"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    if problems:
        more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise SnnError(
            f"{where}: its weights do not fit this model: {'; '.join(problems[:SHOWN])}{more}. "
            f"Start({start.run!r}, but=({problems[0].split('.')[1]},)) leaves a layer as it is."
        )
    network.floats.load_state_dict(given, strict=False)
    return {
        "run": str(run.path.absolute()),
        "checkpoint": start.checkpoint,
        "but": list(start.but),
        "experiment": run.identity,
        "sha256": tensor_digest({name: value.cpu() for name, value in given.items()}),
    }


class Average:
    """An average of a network's weights and statistics over its steps, the recent ones counting most.

    a[n] = d[n] a[n-1] + (1 - d[n]) w[n], where d[n] = min(decay, (1 + n) / (10 + n)), so that the first steps are soon
    forgotten (as TensorFlow's ExponentialMovingAverage with its number of updates).
    """

    def __init__(self, network: Network, decay: float, kept: Mapping[str, Tensor] | None = None) -> None:
        self.decay = decay
        state = network.state_dict()
        if kept is not None and {name: value.shape for name, value in kept.items()} != {
            name: value.shape for name, value in state.items()
        }:
            raise SnnError("its averaged weights do not fit the model in experiment.json.")
        device = next(network.parameters()).device
        self.weights = {name: value.detach().clone().to(device) for name, value in (kept or state).items()}

    @torch.no_grad()
    def follow(self, network: Network, step: int) -> None:
        """Take in the weights behind optimizer step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            average = self.weights[name]
            if average.is_floating_point():
                average.mul_(decay).add_(value, alpha=1 - decay)
            else:
                average.copy_(value)

    @contextmanager
    def within(self, network: Network) -> Iterator[None]:
        """Within the block, the network has the averaged weights."""
        own = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.weights)
        try:
            yield
        finally:
            network.load_state_dict(own)


def _prefix(key: int | str) -> str:
    first, *rest = str(key).split(".")
    inner = "".join(f".branches.{branch}.{layer}" for branch, layer in zip(rest[::2], rest[1::2], strict=True))
    return f"layers.{first}{inner}."
