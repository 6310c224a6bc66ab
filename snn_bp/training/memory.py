"""How much memory a training takes, said before it is taken, and how much there is.

An estimate from shapes alone, nothing is built for it. Its coefficients were measured over whole short trainings, the
doctor's looks and the evaluation at the end included (`experiments/benchmarks/memory.py`; its results hold the ratios).
"""

import math
import sys
from dataclasses import dataclass
from typing import Any

from snn_bp.data import Dataset
from snn_bp.errors import SnnError
from snn_bp.model.layers import BatchNorm, Conv, Delay, Dense, Dropout, Flatten, Layer, Pool, Recurrent, Shape, Spiking
from snn_bp.runs.experiment import Experiment
from snn_bp.runtime.capacity import available, is_checked, size

SPARE = 1.6  # an estimate up to so many times what there is may still fit, and is let through with a word
_FLOAT = 4
_WEIGHT = 52  # bytes: the value, its gradient, two of the optimizer, and a checkpoint as it is put together
_HEAP = 1.2  # what the allocator keeps between tensors that come and go
PROBED, TRACED = 64, 16  # recordings on which a training looks at its layers, and the doctor at a backward pass


@dataclass(frozen=True)
class Estimate:
    """Bytes of a training beyond what the process holds before it: what stays, and what comes and goes on top."""

    frames: int  # the batches that are there at the same time
    weights: int  # parameters, gradients, the optimizer's, and a checkpoint on its way to disk
    step: int  # activations and gradients of a training step
    looking: int  # the largest of: the doctor's backward pass, layers' activity, counting operations

    @property
    def total(self) -> int:
        """The peak."""
        return self.frames + self.weights + max(self.step, self.looking)

    def __str__(self) -> str:
        return (
            f"about {size(self.total)} of memory ({size(self.frames)} for frames, {size(self.weights)} for weights "
            f"and optimizer, {size(max(self.step, self.looking))} for what layers keep)"
        )


def estimate(experiment: Experiment, dataset: Dataset) -> Estimate:
    """What training `experiment` on `dataset` takes at its peak, in the memory of the machine (not of a GPU)."""
    data, config = experiment.data, experiment.train
    rows = (data.steps or 0) * min(data.batch, max((len(ids) for ids in dataset.ids.values()), default=0))
    inputs = math.prod(dataset.shape)
    width = 1 + _FLOAT if data.transforms else 1  # frames are bytes; what transforms make passes through floats
    frames = 2 * rows * inputs * width
    sizes = _Sizes.of(experiment.model, dataset.shape)
    if config.device not in ("auto", "cpu"):
        return Estimate(frames, 0, 0, 0)
    piece = rows * min(1.0, (config.truncate or math.inf) / max(1, data.steps or 1))
    if config.target == "loihi":
        step = piece * _FLOAT * (13 * sizes.neurons + 2 * inputs)
    else:
        chain = 0.4 if config.memory == "low" else 1.3
        kept = chain * sizes.chained + 2 * sizes.normed + 6.5 * sizes.recurrent + sizes.passed
        step = piece * _FLOAT * (kept + 2 * max(sizes.largest_normed, sizes.largest_passed) + sizes.floats)
    probed = rows * min(1.0, PROBED / data.batch) * _FLOAT
    traced = rows * min(1.0, TRACED / data.batch) * _FLOAT
    looking = max(
        probed * (2 * sizes.neurons + 6.5 * sizes.largest + inputs),
        traced * (24 * sizes.neurons + 2 * inputs),
        rows * _FLOAT * ((3.5 if sizes.starts_dense else 2.5) * inputs + 4.5 * sizes.largest),
    )
    return Estimate(frames, sizes.parameters * _WEIGHT, int(_HEAP * step), int(_HEAP * looking))


def check_memory(experiment: Experiment, dataset: Dataset) -> Estimate:
    """The estimate; raises where the machine has not the memory for it, and says so where it may not be enough.

    `SNN_BP_CHECK_MEMORY=0` lets it be tried.
    """
    found, there = estimate(experiment, dataset), available()
    if there is None or found.total <= there or not is_checked():
        return found
    told = f"memory: training would take {found}; this process can have {size(there)}."
    if found.total > SPARE * there:
        raise SnnError(f"{told} {_remedy(found, experiment.data)} To try it all the same: SNN_BP_CHECK_MEMORY=0.")
    print(f"{told} It may be killed. {_remedy(found, experiment.data)}", file=sys.stderr)
    return found


def _remedy(estimate: Estimate, data: Any) -> str:
    if estimate.weights > estimate.total / 2:
        return "Most of it is weights: fewer units or channels do, or data.downsample in front of a Dense."
    return (
        f"It grows with steps x batch x neurons: a data.batch below {data.batch}, fewer data.steps than {data.steps} "
        f"(with a data.step_ms above {data.step_ms:g}), data.downsample or fewer neurons bring it down."
    )


@dataclass
class _Sizes:
    """Numbers a row (one time step of one recording): how many values each kind of layer gives."""

    parameters: int = 0
    neurons: int = 0
    chained: int = 0  # dense layers that run with their neurons as one operation
    normed: int = 0  # neurons behind a norm, a convolution or nothing
    recurrent: int = 0  # recurrent neurons that run step by step
    passed: int = 0  # what pools, dropouts and delays give on
    floats: int = 0  # an input whose first layer wants floats instead of bytes
    largest: int = 0
    largest_normed: int = 0
    largest_passed: int = 0
    starts_dense: bool = False

    @classmethod
    def of(cls, model: tuple[Layer, ...], shape: Shape) -> "_Sizes":
        sizes, before, first = cls(), None, True
        for layer in model:
            if isinstance(layer, Flatten):
                shape = (math.prod(shape),)
                continue
            if first:
                first, sizes.starts_dense = False, isinstance(layer, Dense)
                looks = isinstance(layer, Dense) or (isinstance(layer, Conv) and len(shape) == 3)
                sizes.floats = 0 if looks else math.prod(shape)
            after = _shape_after(layer, shape)
            sizes._add(layer, before, shape, after)
            if not isinstance(layer, Dropout | Delay):
                before = layer
            shape = after
        return sizes

    def _add(self, layer: Layer, before: Layer | None, shape: Shape, after: Shape) -> None:
        """Count one layer, on an input of `shape`; `before` is the layer in front of it."""
        count = math.prod(after)
        if isinstance(layer, Dense):
            self.parameters += math.prod(shape) * count + count
        elif isinstance(layer, Conv):
            kernel = math.prod(_pair(layer.kernel, len(after) - 1))
            self.parameters += after[0] * (shape[0] // max(1, layer.groups) * kernel + 1)
            self.largest_passed = max(self.largest_passed, count)
        elif isinstance(layer, BatchNorm):
            self.parameters += 2 * after[0]
        elif isinstance(layer, Pool | Dropout):
            self.passed += count
            self.largest_passed = max(self.largest_passed, count)
        elif isinstance(layer, Delay):
            self.passed += 3 * count
        else:
            self.neurons += count
            learned = len(layer.learn) if isinstance(layer, Spiking | Recurrent) else 0
            self.parameters += learned * count + (count * count if isinstance(layer, Recurrent) else 0)
            dense = isinstance(before, Dense)
            if dense:
                self.chained += count
            elif isinstance(layer, Recurrent):
                self.recurrent += count
            else:
                self.normed += count
                self.largest_normed = max(self.largest_normed, count)
        self.largest = max(self.largest, count)


def _shape_after(layer: Layer, shape: Shape) -> Shape:
    """The shape of a step behind a layer; as it is where the layer does not take it, which its own error will say."""
    if isinstance(layer, Dense):
        return (layer.units,)
    if isinstance(layer, Conv | Pool) and len(shape) in (2, 3):
        axes = len(shape) - 1
        if isinstance(layer, Conv):
            kernel, stride, padding, dilation = (
                _pair(value, axes) for value in (layer.kernel, layer.stride, layer.padding, layer.dilation)
            )
            channels = layer.channels
        else:
            kernel, stride = _pair(layer.size, axes), _pair(layer.stride or layer.size, axes)
            padding, dilation, channels = (0,) * axes, (1,) * axes, shape[0]
        lengths = zip(shape[1:], kernel, stride, padding, dilation, strict=True)
        return channels, *(max(0, (n + 2 * p - d * (k - 1) - 1) // max(1, s) + 1) for n, k, s, p, d in lengths)
    return shape


def _pair(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)[:axes]
