"""How much memory a training takes, said before it is taken, and how much there is.

An estimate from shapes alone: what is built for it holds no values. How many numbers a layer keeps for each that it
gives follows from what it hands to its backward pass; where torch or a look at the layers decides, it was counted in
whole short trainings, step, doctor's trace, look at the layers and evaluation each by itself. That was fitted to the
rows of `experiments/benchmarks/memory.py`, whose results hold the ratios: another network may take more. Evaluation at
the end of a training is in it; what `evaluate`, `predict` and `report` take by themselves nobody estimates.
"""

import math
import sys
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from snn_bp.data import Dataset
from snn_bp.data.store import CachedEvents
from snn_bp.errors import SnnError
from snn_bp.kernels.cpu.threads import split_rows
from snn_bp.model.blocks import LayerAt, Role, every_part, parts_of
from snn_bp.model.modules import Neurons, Shape
from snn_bp.model.network import Network, neuron_of
from snn_bp.model.plan import apply_stateless
from snn_bp.model.temporal import CausalConv
from snn_bp.neurons import is_leaky
from snn_bp.runs.experiment import Experiment, Train
from snn_bp.runtime.capacity import available, is_checked, size
from snn_bp.runtime.status import say

SPARE = 1.6  # an estimate up to so many times what there is may still fit, and is let through with a word
_FLOAT = 4
_COPIES = 3  # a checkpoint has so many, as it is put together and hashed
_KERNEL = 12  # values that the backward pass of learned delays keeps for each value of their kernel
_EVENT = 14  # bytes of one on its way into frames, at most
_HEAP = 1.3  # what the process holds for each byte in use, while tensors of all sizes come and go
_LEFT = 0.75  # the part of what a step leaves in the heap that looking at the layers cannot use, and the reverse
_THREADS = 32 * 2**20  # bytes of threads' own heaps: two runs of one training were up to 29 MB apart
_BATCHES = 3  # the one in use, the next, and the last one until it is let go
_STEPS = 16  # on which the forward of a layer that is none of ours is tried without values
# how many values a layer keeps for its backward pass, for each that it gives; None: its own forward tells. Neurons are
# counted by what stands before them: their input, and in a chain of dense layers what their equation needs of each step
KEPT: dict[Role, float | None] = {
    "weights": 0, "norm": 0, "pool": 1, "flatten": 0, "delay": 2, "dropout": 1, "neurons": 0, "joint": 1,
    "over time": None, "stateful": None, "other": None,
}  # fmt: skip
PROBED = 64  # recordings on which a training looks at its layers
_TRACED, _TRACED_VALUES = 16, 2**26  # recordings of the doctor's backward pass; steps of neurons in them at most


@dataclass(frozen=True)
class Estimate:
    """Bytes of a training beyond what the process holds before it: what stays, and what comes and goes on top."""

    frames: int  # the batches that are there at the same time
    weights: int  # parameters, gradients, the optimizer's, and a checkpoint on its way to disk
    step: int  # activations and gradients of a training step
    looking: int  # the largest of: the doctor's backward pass, layers' activity, evaluation with its operations

    @property
    def total(self) -> int:
        """The peak."""
        return self.frames + self.weights + self.layers + (_THREADS if self.layers else 0)

    @property
    def layers(self) -> int:
        """What layers keep: the larger of the two, and most of what the other one leaves in pieces."""
        return max(self.step, self.looking) + int(_LEFT * min(self.step, self.looking))

    def __str__(self) -> str:
        return (
            f"about {size(self.total)} of memory ({size(self.frames)} for frames, {size(self.weights)} for weights "
            f"and optimizer, {size(self.layers)} for what layers keep)"
        )


def estimate(experiment: Experiment, dataset: Dataset) -> Estimate:
    """What training `experiment` on `dataset` takes at its peak, in the memory of the machine (not of a GPU).

    It is that of one process that runs whole batches: of several, each of which runs a part, it is too large.
    """
    data, config = experiment.data, experiment.train
    steps = data.steps or dataset.steps
    rows = steps * min(data.batch, max((len(ids) for ids in dataset.ids.values()), default=0))
    inputs = math.prod(dataset.shape)
    width = 1 if dataset.in_bytes else 1 + _FLOAT  # what transforms and encoders make passes through floats
    frames = _BATCHES * rows * inputs * width + _of_augmenting(dataset, rows * inputs * width)
    on_gpu = torch.cuda.is_available() if config.device == "auto" else config.device != "cpu"
    if on_gpu:
        return Estimate(frames, 0, 0, 0)
    sizes = _Sizes.of(experiment, dataset.shape, steps)
    piece = rows * min(1.0, (config.truncate or math.inf) / max(1, steps))
    if config.target != "float":
        step = piece * _FLOAT * (8 * sizes.neurons + 2 * inputs)
    else:
        chain = 0.9 if config.memory == "low" else 1.6
        kept = chain * sizes.chained + 1.5 * sizes.normed + 6.5 * sizes.recurrent + sizes.passed
        step = piece * _FLOAT * (kept + 2 * max(sizes.largest_normed, sizes.largest_passed) + sizes.floats)
    probed = rows * min(1.0, PROBED / data.batch) * _FLOAT
    traced = rows * min(1.0, _few(sizes.neurons * steps) / data.batch) * _FLOAT
    seen, stacked = sizes.largest_neurons, sizes.largest_recurrent
    activity = 2 * sizes.neurons + max(6.5 * seen, 2 * sizes.largest) + 2 * sizes.largest_own
    activity += 2.5 * stacked + 7 * sizes.joined + inputs
    trace = 13.5 * sizes.neurons + 16.5 * sizes.all_recurrent + 2 * inputs
    evaluation = (3.5 if sizes.starts_dense else 2.5) * inputs + max(4.5 * seen, 2 * sizes.largest) + 4 * stacked
    evaluation += sizes.largest_counted
    looking = max(probed * activity, traced * trace, rows * _FLOAT * evaluation)
    weights = sizes.parameters * _FLOAT * _values_of_weight(config, data.batch)
    kernels = _FLOAT * _KERNEL * sizes.kernels
    return Estimate(frames, weights, int(_HEAP * step + kernels), int(_HEAP * looking))


def _values_of_weight(config: Train, batch: int) -> int:
    """How many numbers there are for each weight: as a checkpoint is put together, or in a step if that is more.

    There are its value, as kernels want it, that before the epoch's last step, that of the network that is evaluated
    in the end, its gradient, and what the optimizer and the average keep; then the copies of a checkpoint, or a
    gradient for each shard and those that join them.
    """
    kept = (2 if config.optimizer != "sgd" else int(config.momentum > 0)) + (config.average is not None)
    return 5 + kept + max(_COPIES * (1 + kept), 2 + len(split_rows(max(1, batch))))


def _of_augmenting(dataset: Dataset, batch: int) -> int:
    """Bytes of what is changed on its way: a recording and its partner, or of frames a batch and its partners."""
    train = dataset.parts["train"]
    if not dataset.data.augment:
        return 0
    if isinstance(train, CachedEvents):
        return 2 * _EVENT * int(np.diff(train.events.offsets).max(initial=0))
    return int(2 * batch * max(1.0, dataset.recorded_steps / dataset.steps))


def traced_recordings(network: Network, steps: int) -> int:
    """On how many recordings the doctor looks at a backward pass: 16, fewer where neurons and steps are very many."""
    neurons = (math.prod(part.after) for part in every_part(parts_of(network)) if part.role == "neurons")
    return _few(steps * sum(neurons))


def check_memory(experiment: Experiment, dataset: Dataset) -> Estimate:
    """The estimate; raises where the machine has not the memory for it, and says so where it may not be enough.

    `SNN_BP_CHECK_MEMORY=0` lets it be tried.
    """
    found, there = estimate(experiment, dataset), available()
    if there is None or found.total <= there or not is_checked():
        return found
    told = f"memory: training would take {found}; this process can have {size(there)}."
    if found.total > SPARE * there:
        raise SnnError(f"{told} {_remedy(found, dataset)} To try it all the same: SNN_BP_CHECK_MEMORY=0.")
    say(f"{told} It may be killed. {_remedy(found, dataset)}", file=sys.stderr)
    return found


def _few(values: int) -> int:
    """So many recordings, each of so many steps of neurons, are traced."""
    return max(1, min(_TRACED, _TRACED_VALUES // max(1, values)))


def _remedy(estimate: Estimate, dataset: Dataset) -> str:
    data = dataset.data
    if estimate.weights > estimate.total / 2:
        return "Most of it is weights: fewer units or channels do, or data.downsample in front of a Dense."
    return (
        f"It grows with steps x batch x neurons: a data.batch below {data.batch}, fewer data.steps than "
        f"{dataset.steps} (with a data.step_ms above {data.step_ms:g}), data.downsample or fewer neurons bring it down."
    )


@dataclass
class _Sizes:
    """Numbers a row (one time step of one recording): how many values each kind of layer gives."""

    parameters: int = 0
    neurons: int = 0
    chained: int = 0  # dense layers that run with their neurons as one operation
    normed: int = 0  # neurons behind a norm, a convolution or nothing
    recurrent: int = 0  # recurrent neurons that run step by step
    passed: float = 0  # what pools, dropouts, delays, joints and layers by their own forward give on and keep
    kernels: int = 0  # values in the kernels of learned delays; not for each row
    floats: int = 0  # an input whose first layer wants floats instead of bytes
    largest: int = 0
    largest_neurons: int = 0
    largest_own: int = 0  # neurons outside the leaky family, which run once more for how far they are from threshold
    largest_normed: int = 0
    largest_passed: int = 0
    all_recurrent: int = 0
    largest_recurrent: int = 0  # which a look runs step by step, and stacks
    largest_counted: float = 0  # what counting the operations of a convolution over time takes
    joined: int = 0  # neurons within joints, of which a look holds all until their branches are joined
    starts_dense: bool = False

    @classmethod
    def of(cls, experiment: Experiment, shape: Shape, steps: int) -> "_Sizes":
        """The sizes of the network of an experiment for so many steps, which is built without the memory for it."""
        model = experiment.model_at_step()
        with torch.device("meta"):
            network = Network(model, shape)
        row = [part for part in every_part(parts_of(network)) if part.role != "flatten"]
        sizes, behind_dense = cls(sum(weight.numel() for weight in network.parameters())), False
        if row:
            sizes.starts_dense = _axes(row[0]) == 0
            sizes.floats = 0 if _axes(row[0]) in (0, 2) else math.prod(shape)
        for part in row:
            sizes._add(part, behind_dense, steps, is_first=part is row[0])
            if part.role not in ("dropout", "delay"):
                behind_dense = _axes(part) == 0
        return sizes

    def _add(self, part: LayerAt, behind_dense: bool, steps: int, *, is_first: bool) -> None:
        """Count one layer; `behind_dense`: its input is the sums of a dense layer."""
        count = math.prod(part.after)
        self.largest = max(self.largest, count)
        self.kernels += getattr(part.layer, "kernel_values", 0)
        kept = KEPT[part.role]
        self.passed += count * kept if kept is not None else _kept_by(part, steps)
        if part.role == "neurons":
            self.joined += count if len(part.path) > 1 else 0
            self._add_neurons(cast(Neurons, part.layer), count, behind_dense)
        elif part.role == "delay":  # backward, its gradient is turned about in time, and its slope taken if it learns
            self.largest_passed = max(self.largest_passed, count * (4 if len(part.layer.learned) else 2))  # type: ignore
        elif kept is None:
            if isinstance(part.layer, CausalConv):
                self.largest_counted = max(self.largest_counted, _counted(part, steps))
            self.largest_passed = max(self.largest_passed, count, math.prod(part.before))
        elif part.role != "norm" and _axes(part) != 0 and not is_first:
            self.largest_passed = max(self.largest_passed, count)
            self.passed += math.prod(part.before) if part.role == "weights" else 0  # what torch's convolution keeps

    def _add_neurons(self, layer: Neurons, count: int, behind_dense: bool) -> None:
        neuron, kept = neuron_of(layer), 1  # values of each step that a backward pass needs
        self.neurons, self.largest_neurons = self.neurons + count, max(self.largest_neurons, count)
        if layer.recurrence is not None:
            self.all_recurrent += count
            self.largest_recurrent = max(self.largest_recurrent, count)
        if not is_leaky(neuron):
            kept = max(1, len(neuron.equation.saved(tuple(layer.learned))))
            self.largest_own = max(self.largest_own, count)
        if behind_dense:
            self.chained += count * kept
        elif layer.recurrence is not None:
            self.recurrent += count * (1 + kept) // 2
        else:
            self.normed += count
            self.largest_normed = max(self.largest_normed, count)


def _counted(part: LayerAt, steps: int) -> float:
    """How many numbers evaluation takes to count the operations of a convolution over time, a step of a recording.

    It convolves in doubles, for which torch lays out each window by itself, of one group of channels at a time and all
    recordings at once; beside them are the input, behind the steps before it, and that in torch's order.
    """
    layer = cast(CausalConv, part.layer)
    windows = layer.weight[0].numel() * math.prod(part.after[1:])
    return 2 * (windows + 2 * math.prod(part.before) * (1 + layer.past / max(1, steps)) + math.prod(part.after[1:]))


def _kept_by(part: LayerAt, steps: int) -> float:
    """How many numbers a layer's own forward keeps for its backward pass, and gives on, a step of a recording.

    It runs on tensors without values, on few steps: what it keeps of a step may grow with the steps, as that of an
    attention does, and what does not grow at all belongs to its weights. Where it cannot run without values it is taken
    to keep four of each that it gives.
    """
    count = math.prod(part.after)
    try:
        few, more, most = (_saved(part, _STEPS * times) / _STEPS for times in (1, 2, 4))
    except Exception:  # the user's own code fails here; the training runs it, and says why
        return 4.0 * count
    bend = (most - 3 * more + 2 * few) / (6 * _STEPS)  # a parabola goes through the three
    return count + more - few + bend * (steps - 3 * _STEPS)


def _saved(part: LayerAt, steps: int) -> float:
    """The numbers that a layer's own forward keeps on so many steps of one recording, its weights left out."""
    layer, batch = part.layer, 2  # a norm may find no spread in one recording
    known = {weight.untyped_storage()._cdata for weight in layer.parameters()}
    found: dict[int, torch.Tensor] = {}  # by storage, which lives as long as the tensor

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage()._cdata] = tensor
        return tensor

    x = torch.zeros(steps, batch, *part.before, device="meta", requires_grad=True)
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        apply_stateless(layer.train(), x) if part.role != "stateful" else layer(x, None)
    sizes = (tensor.untyped_storage().nbytes() for each, tensor in found.items() if each not in known)
    return sum(sizes) / _FLOAT / batch


def _axes(part: LayerAt) -> int | None:
    """Over how many axes weights are shared: 0 by a dense layer, 1 or 2 by a convolution; None for other layers."""
    return cast(torch.Tensor, part.layer.weight).dim() - 2 if part.role == "weights" else None
