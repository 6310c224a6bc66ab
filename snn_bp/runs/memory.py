"""How much memory a network takes to answer recordings, said before it is taken, and how much there is.

An estimate from shapes alone: what is built for it holds no values. How many numbers a layer keeps for each that it
gives follows from what it hands to its backward pass; where torch or a look at the layers decides, it was counted in
whole short runs, each part by itself. That was fitted to the rows of `experiments/benchmarks/memory.py`, whose results
hold the ratios: another network may take more. A training's estimate (`trainer/memory.py`) is made of the same terms.
"""

import math
import sys
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias, cast

import torch

from snn_bp.data import Dataset
from snn_bp.errors import SnnError, check_number
from snn_bp.model.blocks import LayerAt, Role, every_part, parts_of
from snn_bp.model.modules import Neurons
from snn_bp.model.network import Network, neuron_of
from snn_bp.model.plan import apply_stateless
from snn_bp.model.temporal import CausalConv, DelayedLinear
from snn_bp.neurons import is_leaky
from snn_bp.runs.experiment import Experiment
from snn_bp.runtime.capacity import available, is_checked, size
from snn_bp.runtime.status import say

_COPIES, _TEXT = 3, 100  # tensors of answers there are when they are written; bytes of a number as text and its row
SPARE = 1.6  # an estimate up to so many times what there is may still fit, and is let through with a word
FLOAT = 4
BATCHES = 3  # the one in use, the next, and the last one until it is let go
HEAP = 1.3  # what the process holds for each byte in use, while tensors of all sizes come and go
_LEFT = 0.75  # the part of what a step leaves in the heap that looking at the layers cannot use, and the reverse
_THREADS = 32 * 2**20  # bytes of threads' own heaps: two runs of one training were up to 29 MB apart
LOADED, COUNTED = 4, 5.5  # numbers for each weight: as a checkpoint is read, and as zeros among them are counted too
_CONVOLVED = 4  # values for each of the kernel of delays, and of the input of a convolution over time, as torch has it
_IN_INTEGERS = 4  # values for each neuron of a network for a chip
_STEPS = 16  # on which the forward of a layer that is none of ours is tried without values
# how many values a layer keeps for its backward pass, for each that it gives; None: its own forward tells. Neurons are
# counted by what stands before them: their input, and in a chain of dense layers what their equation needs of each step
KEPT: dict[Role, float | None] = {
    "weights": 0, "norm": 0, "pool": 1, "flatten": 0, "delay": 2, "dropout": 1, "neurons": 0, "joint": 1,
    "over time": None, "stateful": None, "other": None,
}  # fmt: skip

Way: TypeAlias = Literal["counting", "answering", "tracing", "replaying", "replaying integers"]


@dataclass(frozen=True)
class Estimate:
    """Bytes beyond what the process holds before: what stays, and what comes and goes on top."""

    frames: int  # the batches that are there at the same time
    weights: int  # parameters; of a training gradients, the optimizer's, and a checkpoint on its way to disk too
    step: int  # activations and gradients of a training step
    looking: int  # the largest of: a backward pass that is looked at, layers' activity, evaluation with its operations
    answers: int = 0  # what is kept of every recording of a split, and written

    @property
    def total(self) -> int:
        """The peak."""
        return self.frames + self.weights + self.layers + self.answers + (_THREADS if self.layers else 0)

    @property
    def layers(self) -> int:
        """What layers keep: the larger of the two, and most of what the other one leaves in pieces."""
        return max(self.step, self.looking) + int(_LEFT * min(self.step, self.looking))

    def __str__(self) -> str:
        return (
            f"about {size(self.total)} of memory ({size(self.frames)} for frames, {size(self.weights)} for weights"
            f"{' and optimizer' if self.step else ''}, {size(self.layers)} for what layers keep"
            f"{f', {size(self.answers)} for answers' * bool(self.answers)})"
        )


def estimate(
    experiment: Experiment, dataset: Dataset, recordings: int, *, way: Way = "counting", kept: int = 0
) -> Estimate:  # fmt: skip
    """What the network of `experiment` takes for `recordings` at a time, in the memory of the machine.

    The answers of `kept` recordings are kept.
    """
    sizes, rows = Sizes.of(experiment, dataset), (experiment.data.steps or dataset.steps) * recordings
    frames = BATCHES * rows * sizes.inputs * width_of(dataset)
    taken, each_weight = WAYS[way]
    layers = int(HEAP * taken(sizes, rows))
    return Estimate(frames, int(FLOAT * each_weight * sizes.parameters), 0, layers, answers_of(dataset, kept))


def answers_of(dataset: Dataset, recordings: int) -> int:
    """Bytes of the answers of so many recordings, as tensors and as rows of texts; of classes for every step as one."""
    if not recordings:
        return 0
    outputs, steps = dataset.targets.outputs, dataset.steps if dataset.targets.is_per_step else 1
    if dataset.targets.kind == "class per step":
        return recordings * steps * (_COPIES * FLOAT * outputs + _TEXT // 2)
    return recordings * steps * outputs * _TEXT


def in_batches(
    asker: str, experiment: Experiment, dataset: Dataset, split: str, batch: int | None, *,
    way: Way = "counting", keep: bool = False,
) -> Dataset:  # fmt: skip
    """The data set in batches of so many recordings, None: as it is; raises where memory is too small for them.

    It never chooses by itself: what is added up over a batch, and which kernel runs it, depends on who is in it.
    """
    if batch is not None:
        check_number(f"{asker}: batch", batch, integer=True, low=1)
        dataset = replace(dataset, data=replace(dataset.data, batch=batch))
    check_batches(asker, experiment, dataset, split, way=way, keep=keep, option="--batch")
    return dataset


def check_batches(
    asker: str, experiment: Experiment, dataset: Dataset, split: str, *,
    way: Way = "counting", keep: bool = False, option: str = "",
) -> None:  # fmt: skip
    """Raise where the machine has not the memory for the batches of a split, whose size an `option` may set.

    `keep`: the answers of all of them are kept.
    """
    sizes = [len(ids) for ids in dataset.batches(split)]
    count, largest = sum(sizes), max(sizes, default=0)
    task = f"{asker}: {count:,} recordings in batches of {largest}"
    check_room_for(task, experiment, dataset, largest, way=way, kept=count * keep, option=option)


def check_room_for(
    task: str, experiment: Experiment, dataset: Dataset, recordings: int, *,
    way: Way = "counting", kept: int = 0, option: str = "",
) -> None:  # fmt: skip
    """Raise where the machine has not the memory for so many recordings at a time, which an `option` may set."""
    estimated = partial(estimate, experiment, dataset, way=way, kept=kept)

    def remedy(there: int) -> str:
        fits = largest_below(lambda count: estimated(count).total <= there, recordings)
        if option and fits:
            return f"{option} {fits} fits."
        return "It grows with steps x recordings x neurons, and takes a machine with more."

    check_fits(estimated(recordings), task, remedy)


def check_fits(need: Estimate, task: str, remedy: Callable[[int], str]) -> None:
    """Raise where the machine has not the memory for `need`, and say so where it may not be enough.

    `remedy` says what would fit into so many bytes. `SNN_BP_CHECK_MEMORY=0` lets it be tried.
    """
    there = available()
    if there is None or need.total <= there or not is_checked():
        return
    told = f"{task} would take {need}; this process can have {size(there)}."
    if need.total > SPARE * there:
        raise SnnError(f"{told} {remedy(there)} To try it all the same: SNN_BP_CHECK_MEMORY=0.")
    say(f"{told} It may be killed. {remedy(there)}", file=sys.stderr)


def width_of(dataset: Dataset) -> int:
    """Bytes of each value of a frame while it is made: what transforms and encoders make passes through floats."""
    return 1 if dataset.in_bytes else 1 + FLOAT


def counting(sizes: "Sizes", rows: int) -> float:
    """Bytes of `rows` steps of recordings that pass layer by layer, spikes and operations counted."""
    first = 3.25 * sizes.inputs + max(sizes.first, sizes.largest_counted)
    layers = max(first + sizes.is_masked * (sizes.inputs + sizes.first), sizes.widest * (1 + sizes.is_masked))
    layers += 1.5 * sizes.within + 4 * sizes.largest_recurrent + sizes.in_integers
    return FLOAT * (rows * layers + _CONVOLVED * sizes.kernels)


def answering(sizes: "Sizes", rows: int) -> float:
    """Bytes of `rows` steps of recordings of which the output alone is asked for."""
    if sizes.in_integers:
        return counting(sizes, rows)  # it runs layer by layer too
    layers = max(sizes.floats + 3 * sizes.largest_open, sizes.largest_forward, sizes.is_masked * sizes.largest_neurons)
    return FLOAT * (rows * layers + _CONVOLVED * sizes.kernels)


def tracing(sizes: "Sizes", rows: int) -> float:
    """Bytes of a backward pass that is looked at, on `rows` steps of recordings."""
    neurons = 13.5 * sizes.neurons + 16.5 * sizes.all_recurrent + 6 * sizes.own_neurons
    return rows * FLOAT * (neurons + 2 * sizes.inputs)


def diagnosing(sizes: "Sizes", rows: int) -> float:
    """Bytes of what the doctor does with `rows` steps of recordings: a backward pass, and what it keeps beside it."""
    return tracing(sizes, rows) + rows * FLOAT * (3.5 * sizes.inputs + 5 * (sizes.neurons - sizes.all_recurrent))


def replaying(sizes: "Sizes", rows: int) -> float:
    """Bytes of `rows` steps of recordings that a network and a file in doubles answer."""
    return rows * FLOAT * (3 * sizes.inputs + 2 * sizes.outputs)


def replaying_integers(sizes: "Sizes", rows: int) -> float:
    """Bytes of `rows` steps of recordings that a network, in floats and in integers, and a file answer."""
    return replaying(sizes, rows) + rows * FLOAT * (1 + _IN_INTEGERS) * sizes.neurons


# what is taken on the way, and how many numbers for each weight
WAYS: dict[Way, tuple[Callable[["Sizes", int], float], float]] = {
    "counting": (counting, COUNTED), "answering": (answering, LOADED), "tracing": (diagnosing, COUNTED),
    "replaying": (replaying, COUNTED), "replaying integers": (replaying_integers, COUNTED),
}  # fmt: skip


def largest_below(fits: Callable[[int], bool], below: int) -> int:
    """The largest number below that fits, 0 where not even 1 does."""
    return bisect_left(range(1, below), True, key=lambda count: not fits(count))


@dataclass
class Sizes:
    """Numbers a row (one time step of one recording): how many values each kind of layer gives."""

    parameters: int = 0
    inputs: int = 0
    neurons: int = 0
    chained: int = 0  # dense layers that run with their neurons as one operation
    normed: int = 0  # neurons behind a norm, a convolution or nothing
    recurrent: int = 0  # recurrent neurons that run step by step
    passed: float = 0  # what pools, dropouts, delays, joints and layers by their own forward give on and keep
    kernels: int = 0  # values in the kernels of learned delays; not for each row
    floats: int = 0  # an input whose first layer wants floats instead of bytes
    outputs: int = 0  # what all layers give
    largest: int = 0
    largest_open: int = 0  # that evaluation holds whole, not as bits within a chain of dense layers
    largest_neurons: int = 0
    own_neurons: int = 0  # neurons outside the leaky family, without a recurrence
    largest_own: int = 0  # neurons outside the leaky family, which run once more for how far they are from threshold
    largest_normed: int = 0
    largest_passed: int = 0
    all_recurrent: int = 0
    largest_recurrent: int = 0  # which a look runs step by step, and stacks
    largest_counted: float = 0  # what counting the operations of a convolution over time takes
    joined: int = 0  # neurons within joints, of which a look holds all until their branches are joined
    first: int = 0  # what the first layer gives
    widest: float = 0  # what a layer takes in evaluation: its input, its output, and the input of the layer before it
    largest_forward: float = 0  # what a layer takes by its own forward
    within: int = 0  # outputs within joints, which evaluation holds until their branches are joined
    in_integers: int = 0  # what neurons in integers take
    is_masked: bool = False  # whether recordings differ in length: what they do not have is taken out of a copy

    @classmethod
    def of(cls, experiment: Experiment, dataset: Dataset) -> "Sizes":
        """The sizes of the network of an experiment for a data set, which is built without the memory for it."""
        model, shape, steps = experiment.model_at_step(), dataset.shape, experiment.data.steps or dataset.steps
        with torch.device("meta"):
            network = Network(model, shape)
        row = [part for part in every_part(parts_of(network)) if part.role != "flatten"]
        parameters = sum(weight.numel() for weight in network.parameters())
        sizes, behind_dense = cls(parameters, math.prod(shape)), False
        if row:
            sizes.first = math.prod(row[0].after)
            sizes.floats = 0 if _axes(row[0]) in (0, 2) else math.prod(shape)
        before, sums = 0, False  # whether those come in of a dense layer, which evaluation may hold for a few rows only
        for part, following in zip(row, [*row[1:], None], strict=True):
            own = _kept_by(part, steps) if KEPT[part.role] is None else 0.0
            sizes._add(part, behind_dense, steps, own, is_first=part is row[0])
            if part.role not in ("dropout", "delay"):
                behind_dense = _axes(part) == 0
            goes_on = part.role == "neurons" and following is not None and _axes(following) == 0
            if not (_axes(part) == 0 or (sums and (part.role == "norm" or goes_on))):
                sizes.largest_open = max(sizes.largest_open, math.prod(part.after))
            sums = _axes(part) == 0 or (sums and part.role == "norm")
            sizes._add_evaluated(part, before, steps, own)
            before = math.prod(part.before)
        sizes.is_masked = any(dataset.mask(split, ids[:1]) is not None for split, ids in dataset.ids.items())
        sizes.in_integers = _IN_INTEGERS * sizes.neurons * (experiment.train.target != "float")
        return sizes

    def _add(self, part: LayerAt, behind_dense: bool, steps: int, own: float, *, is_first: bool) -> None:
        """Count one layer; `behind_dense`: its input is the sums of a dense layer; `own`: what its forward keeps."""
        count = math.prod(part.after)
        self.outputs, self.largest = self.outputs + count, max(self.largest, count)
        self.kernels += getattr(part.layer, "kernel_values", 0)
        kept = KEPT[part.role]
        self.passed += count * kept if kept is not None else own
        if part.role == "neurons":
            self.joined += count if len(part.path) > 1 else 0
            self._add_neurons(cast(Neurons, part.layer), count, behind_dense)
        elif part.role == "delay":  # backward, its gradient is turned about in time, and its slope taken if it learns
            self.largest_passed = max(self.largest_passed, count * (4 if len(part.layer.learned) else 2))  # type: ignore
        elif kept is None:
            if isinstance(part.layer, CausalConv):
                counted = _counted(part, steps) + 3 * math.prod(part.before)
                self.largest_counted = max(self.largest_counted, counted)
            self.largest_passed = max(self.largest_passed, count, math.prod(part.before))
        elif part.role != "norm" and _axes(part) != 0 and not is_first:
            self.largest_passed = max(self.largest_passed, count)
            self.passed += math.prod(part.before) if part.role == "weights" else 0  # what torch's convolution keeps

    def _add_evaluated(self, part: LayerAt, before: int, steps: int, own: float) -> None:
        """Count what one layer takes in evaluation, behind a layer with so many inputs."""
        inputs, count = math.prod(part.before), math.prod(part.after)
        taken = inputs + count + inputs * (part.role == "weights")
        if KEPT[part.role] is None:
            taken = inputs + max(own, _behind_past(part, steps) + count)
            self.largest_forward = max(self.largest_forward, taken)
        self.widest = max(self.widest, before + taken)
        self.within += count if len(part.path) > 1 else 0

    def _add_neurons(self, layer: Neurons, count: int, behind_dense: bool) -> None:
        neuron, kept = neuron_of(layer), 1  # values of each step that a backward pass needs
        self.neurons, self.largest_neurons = self.neurons + count, max(self.largest_neurons, count)
        if layer.recurrence is not None:
            self.all_recurrent += count
            self.largest_recurrent = max(self.largest_recurrent, count)
        if not is_leaky(neuron):
            kept = max(1, len(neuron.equation.saved(tuple(layer.learned))))
            self.own_neurons += count if layer.recurrence is None else 0
            self.largest_own = max(self.largest_own, count)
        if behind_dense:
            self.chained += count * kept
        elif layer.recurrence is not None:
            self.recurrent += count * (1 + kept) // 2
        else:
            self.normed += count
            self.largest_normed = max(self.largest_normed, count)


def _behind_past(part: LayerAt, steps: int) -> float:
    """How many numbers a layer over time makes of its input before it convolves, a step of a recording."""
    if not isinstance(part.layer, CausalConv | DelayedLinear):
        return 0.0
    past = part.layer.past if isinstance(part.layer, CausalConv) else part.layer.max_steps
    return (_CONVOLVED - 1) * math.prod(part.before) * (1 + past / max(1, steps))


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
    return sum(sizes) / FLOAT / batch


def _axes(part: LayerAt) -> int | None:
    """Over how many axes weights are shared: 0 by a dense layer, 1 or 2 by a convolution; None for other layers."""
    return cast(torch.Tensor, part.layer.weight).dim() - 2 if part.role == "weights" else None
