"""What a trained network does on a split: accuracy with its uncertainty, spikes and operations of each inference."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_bp.data import Dataset
from snn_bp.errors import SnnError, check_kind
from snn_bp.model.activity import saturated_share, silent_share, slopes_and_height, threshold_distances, window_share
from snn_bp.model.exact import FORWARDS, why_strange
from snn_bp.model.losses import Loss
from snn_bp.model.network import Network, has_state, neuron_of
from snn_bp.neurons import is_spiking
from snn_bp.runs.folder import Run


@dataclass(frozen=True)
class Evaluation:
    """Figures on `samples` recordings of a split."""

    split: str
    samples: int
    correct: int
    accuracy: float
    low: float  # 95 % interval of the accuracy, Wilson 1927
    high: float
    loss: float
    confusion: list[list[int]]  # [true class][predicted class]
    spikes: dict[str, float]  # of each layer of neurons, for one inference
    operations: dict[str, float]  # synaptic: weights added for an input that is not zero, for one inference

    def record(self) -> dict[str, Any]:
        """The figures as JSON holds them."""
        return asdict(self)


def evaluate(run: Run, split: str = "test", *, checkpoint: str = "best") -> Evaluation:
    """The run's network at its best (or last) checkpoint, on the "test", "validation" or "train" split."""
    check_kind("evaluate: the run", run, Run, "As in evaluate(Run('runs/mine')).")
    return evaluate_network(run.network(checkpoint), run.dataset(), split, run.experiment.train.loss)


@torch.inference_mode()
def evaluate_network(network: Network, dataset: Dataset, split: str, loss: Loss, *, counts: bool = True) -> Evaluation:
    """A network on a split, every recording once; leaves the network in the mode it was in.

    `counts=False` leaves out spikes and operations, which cost time.
    """
    batches = dataset.batches(split)
    if not batches:
        raise SnnError(f"evaluate: the {split!r} split of {dataset.data.name} is empty here. {' '.join(dataset.notes)}")
    was_training, device = network.training, next(network.parameters()).device
    network.eval()
    confusion = np.zeros((dataset.classes, dataset.classes), np.int64)
    spikes: dict[str, float] = {}
    operations: dict[str, float] = {}
    total_loss, samples = 0.0, sum(len(ids) for ids in batches)
    for ids in batches:
        x, targets = dataset.batch(split, ids, in_bytes=True)
        x = x.to(device)
        out = count_activity(network, x, spikes, operations) if counts else network(x)
        total_loss += float(loss(out, targets.to(device))) * len(ids)
        np.add.at(confusion, (targets.numpy(), loss.scores(out).argmax(1).cpu().numpy()), 1)
    network.train(was_training)
    correct = int(confusion.trace())
    low, high = wilson(correct, samples)
    return Evaluation(
        split=split,
        samples=samples,
        correct=correct,
        accuracy=correct / samples,
        low=low,
        high=high,
        loss=total_loss / samples,
        confusion=confusion.tolist(),
        spikes={name: count / samples for name, count in spikes.items()},
        operations={name: count / samples for name, count in operations.items()},
    )


def wilson(correct: int, samples: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score."""
    z, share = 1.959963984540054, correct / samples
    middle = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    return max(0.0, middle - half), min(1.0, middle + half)


@torch.no_grad()
def layer_activity(network: Network, x: Tensor) -> list[dict[str, Any]]:
    """How alive each layer of neurons is on `x`, in evaluation mode.

    `rate`: spikes per neuron and step. `silent`, `saturated`: share of neurons that never fire, that fire in 95 % of
    the steps. `window`: share of potentials where the surrogate is above a tenth of its height, seen from the threshold
    in force (learned, and raised by adaptation).
    """
    was_training, rows = network.training, []
    for place, (layer, out) in enumerate(network.eval().walk(x, potentials=True)):
        if not (has_state(layer) and is_spiking(neuron_of(layer))):
            continue
        neurons = layer
        spikes, _, potentials = out
        rates = spikes.float().mean((0, 1))
        slopes, height = slopes_and_height(neurons, *threshold_distances(neurons, potentials, spikes))
        rows.append(
            {
                "layer": network.name(place),
                "rate": float(rates.mean()),
                "silent": silent_share(rates),
                "saturated": saturated_share(rates),
                "window": window_share(slopes, height),
            }
        )
    network.train(was_training)
    return rows


def count_activity(network: Network, x: Tensor, spikes: dict[str, float], operations: dict[str, float]) -> Tensor:
    """The output for `x`, with spikes and operations of every layer added to the two counts.

    A neuron that is read out sends no spikes. An operation is a weight that an input other than zero meets.
    """
    x = network.in_floats(x)
    for place, (layer, out) in enumerate(network.walk(x)):
        name = network.name(place)
        if has_state(layer):
            out = out[0]
            if is_spiking(neuron_of(layer)):
                spikes[name] = spikes.get(name, 0.0) + float(out.sum())
            if layer.recurrence is not None:  # spikes of the last step are heard by nobody
                heard = float(out[:-1].sum()) * layer.recurrence.out_features
                operations[name] = operations.get(name, 0.0) + heard
        elif isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            operations[name] = operations.get(name, 0.0) + _operations(layer, x)
        elif type(layer) not in FORWARDS and any(True for _ in layer.parameters()):
            raise SnnError(
                f"evaluate: {name} {why_strange(layer)} Its operations are not counted; counts=False asks none."
            )
        x = out
    return x


def _operations(layer: nn.Module, x: Tensor) -> float:
    """How many weights the inputs of `x` that are not zero meet."""
    active = (x != 0).flatten(0, 1)
    if isinstance(layer, nn.Linear):
        return float(active.sum()) * layer.out_features
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    ones = torch.ones_like(layer.weight[: layer.groups])
    convolve = nn.functional.conv1d if isinstance(layer, nn.Conv1d) else nn.functional.conv2d
    met = convolve(active.to(x.dtype), ones, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return float(met.double().sum()) * layer.out_channels / layer.groups
