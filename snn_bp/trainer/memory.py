"""How much memory a training takes, said before it is taken, by the terms of `runs/memory.py`.

Step, doctor's trace, look at the layers and evaluation were counted each by itself. That was fitted to the rows of
`experiments/benchmarks/memory.py`, whose results hold the ratios: another network may take more.
"""

import math

import numpy as np
import torch

from snn_bp.data import Dataset
from snn_bp.data.store import CachedEvents
from snn_bp.kernels.cpu.threads import split_rows
from snn_bp.model.blocks import every_part, parts_of
from snn_bp.model.network import Network
from snn_bp.runs.experiment import Experiment, Train
from snn_bp.runs.memory import (
    BATCHES,
    COUNTED,
    FLOAT,
    HEAP,
    Estimate,
    Sizes,
    answers_of,
    check_fits,
    counting,
    tracing,
    width_of,
)

_COPIES = 3  # a checkpoint has so many, as it is put together and hashed
_KERNEL = 12  # values that the backward pass of learned delays keeps for each value of their kernel
_EVENT = 14  # bytes of one on its way into frames, at most
PROBED = 64  # recordings on which a training looks at its layers
_TRACED, _TRACED_VALUES = 16, 2**26  # recordings of the doctor's backward pass; steps of neurons in them at most


def estimate(experiment: Experiment, dataset: Dataset) -> Estimate:
    """What training `experiment` on `dataset` takes at its peak, in the memory of the machine (not of a GPU).

    It is that of one process that runs whole batches: of several, each of which runs a part, it is too large.
    """
    data, config = experiment.data, experiment.train
    steps = data.steps or dataset.steps
    most = min(data.batch, max((len(ids) for ids in dataset.ids.values()), default=0))
    sizes, rows = Sizes.of(experiment, dataset), steps * most
    batch = rows * sizes.inputs * width_of(dataset)
    frames, evaluation = BATCHES * batch + _of_augmenting(dataset, batch), counting(sizes, rows)
    probe = min(PROBED, most)
    answers = max(answers_of(dataset, len(dataset.ids.get(split, ()))) for split in ("validation", "test"))
    frames += batch * probe // max(1, most)  # those on which layers are looked at stay
    on_gpu = torch.cuda.is_available() if config.device == "auto" else config.device != "cpu"
    if on_gpu:  # checkpoints are put together here, and the best one is evaluated here in the end
        weights = sizes.parameters * FLOAT * max(_COPIES * (1 + _kept_of_weight(config)), COUNTED)
        return Estimate(frames, int(weights), 0, int(HEAP * evaluation), answers)
    piece = rows * min(1.0, (config.truncate or math.inf) / max(1, steps))
    if config.target != "float":
        step = piece * FLOAT * (8 * sizes.neurons + 2 * sizes.inputs)
    else:
        chain = 0.9 if config.memory == "low" else 1.6
        kept = chain * sizes.chained + 1.5 * sizes.normed + 6.5 * sizes.recurrent + sizes.passed
        step = piece * FLOAT * (kept + 2 * max(sizes.largest_normed, sizes.largest_passed) + sizes.floats)
    activity = 2 * sizes.neurons + max(6.5 * sizes.largest_neurons, 2 * sizes.largest) + 2 * sizes.largest_own
    activity += 2.5 * sizes.largest_recurrent + 7 * sizes.joined + sizes.inputs
    activity += 3 * sizes.is_masked * sizes.largest_neurons
    activity *= steps * probe * FLOAT
    looking = max(activity, tracing(sizes, steps * min(_few(sizes.neurons * steps), most)), evaluation)
    weights = sizes.parameters * FLOAT * _values_of_weight(config, most)
    kernels = FLOAT * _KERNEL * sizes.kernels
    return Estimate(frames, weights, int(HEAP * step + kernels), int(HEAP * looking), answers)


def _values_of_weight(config: Train, batch: int) -> int:
    """How many numbers there are for each weight: as a checkpoint is put together, or in a step if that is more.

    There are its value, as kernels want it, that before the epoch's last step, that of the network that is evaluated
    in the end, its gradient, and what the optimizer and the average keep; then the copies of a checkpoint, or a
    gradient for each shard and those that join them.
    """
    kept = _kept_of_weight(config)
    return 5 + kept + max(_COPIES * (1 + kept), 2 + len(split_rows(max(1, batch))))


def _kept_of_weight(config: Train) -> int:
    """How many numbers the optimizer and the average keep for each weight."""
    return (2 if config.optimizer != "sgd" else int(config.momentum > 0)) + (config.average is not None)


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
    """The estimate; raises where the machine has not the memory for it, and says so where it may not be enough."""
    found = estimate(experiment, dataset)
    check_fits(found, "memory: training", lambda there: remedy(found, dataset))
    return found


def _few(values: int) -> int:
    """So many recordings, each of so many steps of neurons, are traced."""
    return max(1, min(_TRACED, _TRACED_VALUES // max(1, values)))


def remedy(estimate: Estimate, dataset: Dataset) -> str:
    """What brings an estimate down."""
    data = dataset.data
    if estimate.weights > estimate.total / 2:
        return "Most of it is weights: fewer units or channels do, or data.downsample in front of a Dense."
    return (
        f"It grows with steps x batch x neurons: a data.batch below {data.batch}, fewer data.steps than "
        f"{dataset.steps} (with a data.step_ms above {data.step_ms:g}), data.downsample or fewer neurons bring it down."
    )
