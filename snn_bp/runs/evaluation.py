"""What a trained network does on a split: accuracy with its uncertainty, spikes and operations of each inference."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp.data import Dataset
from snn_bp.errors import SnnError, check_kind
from snn_bp.model.activity import Activity, slopes_and_height, threshold_distances
from snn_bp.model.losses import Loss, loss_of, scores_of
from snn_bp.model.network import Network, has_state, neuron_of
from snn_bp.model.operations import fan_out, why_uncounted
from snn_bp.model.operations import operations as operations_of
from snn_bp.neurons import is_spiking
from snn_bp.runs.folder import Run
from snn_bp.runs.interval import wilson_interval


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
    spikes: dict[str, float]  # by layer of neurons, for one inference
    operations: dict[str, float]  # synaptic: weights added for an input that is not zero, for one inference
    not_counted: tuple[str, ...] = ()  # layers of the user's own: what they compute, and so its operations, is unknown

    def record(self) -> dict[str, Any]:
        """The figures as JSON holds them."""
        record = asdict(self)
        if not self.not_counted:
            del record["not_counted"]
        return record


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
    not_counted: set[str] = set()
    total_loss, samples = 0.0, sum(len(ids) for ids in batches)
    for ids in batches:
        x, targets = dataset.batch(split, ids, in_bytes=True)
        x = x.to(device)
        out = count_activity(network, x, spikes, operations, not_counted) if counts else network(x)
        total_loss += float(loss_of(loss, out, targets.to(device))) * len(ids)
        np.add.at(confusion, (targets.numpy(), scores_of(loss, out).argmax(1).cpu().numpy()), 1)
    network.train(was_training)
    correct = int(confusion.trace())
    low, high = wilson_interval(correct, samples)
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
        not_counted=tuple(sorted(not_counted)),
    )


@torch.no_grad()
def layer_activity(network: Network, x: Tensor) -> list[dict[str, Any]]:
    """How alive each layer of neurons is on `x`, in evaluation mode.

    The figures are those of `Activity`, a row for each layer that spikes.
    """
    was_training, rows = network.training, []
    for part, _, out in network.eval().visit(x, potentials=True):
        layer: Any = part.layer
        if has_state(layer) and is_spiking(neuron_of(layer)):
            spikes, _, potentials = out
            slopes, height = slopes_and_height(layer, *threshold_distances(layer, potentials, spikes))
            activity = Activity.of(spikes.float().mean((0, 1)), slopes, height)
            rows.append({"layer": network.name(part.path), **activity._asdict()})
    network.train(was_training)
    return rows


def count_activity(
    network: Network, x: Tensor, spikes: dict[str, float], operations: dict[str, float],
    not_counted: set[str] | None = None,
) -> Tensor:  # fmt: skip
    """The output for `x`, with spikes and operations of every layer added to the two counts.

    A neuron that is read out sends no spikes. An operation is a weight that an input other than zero meets.
    Layers with weights of which it is not known what they compute are added to `not_counted`, or else refused.
    """
    x = network.in_floats(x)
    for part, entering, out in network.visit(x):
        layer: Any = part.layer
        name = network.name(part.path)
        if has_state(layer):
            out = out[0]
            if is_spiking(neuron_of(layer)):
                spikes[name] = spikes.get(name, 0.0) + float(out.sum())
            if layer.recurrence is not None:  # spikes of the last step are not propagated
                recurrent = float((out[:-1].sum((0, 1)) * fan_out(layer.recurrence)).sum())
                operations[name] = operations.get(name, 0.0) + recurrent
        elif (why := why_uncounted(part)) is not None:
            if not_counted is None:
                raise SnnError(f"evaluate: {name} {why} Its operations are not counted; counts=False asks none.")
            not_counted.add(name)
        elif (count := operations_of(layer, entering)) is not None:
            operations[name] = operations.get(name, 0.0) + count
        x = out
    return x
