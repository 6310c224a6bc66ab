"""What a training on many processes will take, on paper: bytes, steps, communication, and which of them it waits for.

Nothing of the size that is planned is built: shapes and weights are counted on a network without values. What cannot be
known from them is an assumption with a name (`Machine`), or is measured here on a small sample and said so. The
steps W1 and W3 of `experiments/results/gpu.json`, which took an H200 5.5 and 6.4 ms, are planned as 5.5 and 4.9 ms; W4,
which has a recurrence, took 9.4 ms and is planned as 3.6: there a step has to be measured.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from snn_bp.data import Data, Dataset, load
from snn_bp.data.catalogue import SHD_CHANNELS, Sensor
from snn_bp.data.encode import Events, encode
from snn_bp.data.store import hold
from snn_bp.data.transforms import shape_after
from snn_bp.errors import SnnError
from snn_bp.model.blocks import LayerAt, every_part, own_weights, parts_of
from snn_bp.model.network import Network
from snn_bp.runs.experiment import Experiment
from snn_bp.trainer import memory
from snn_bp.trainer.dealt import CHUNK
from snn_bp.trainer.weights import freeze_layers

FLOAT, DOUBLE = 4, 8  # bytes; norms' statistics are sent in doubles
BUCKET, FIRST_BUCKET = 25 * 2**20, 2**20  # bytes of gradients that torch's DistributedDataParallel sends at once
SAMPLE = 300_000  # events of the recording whose encoding is timed
OPTIMIZER = {"adamw": 2, "adam": 2, "sgd": 1}  # numbers kept for each weight


@dataclass(frozen=True)
class Machine:
    """What is assumed of the device of a process and of what connects it: by default an NVIDIA H200, by its data sheet,
    in 32-bit floats, with a network of 400 Gb/s for each."""

    memory_gb: float = 141.0
    tflops: float = 67.0  # 10^12 operations a second in 32-bit floats; a product and its sum are two
    bandwidth_gbs: float = 4800.0  # GB/s between the device and its memory
    link_gbs: float = 50.0  # what a process sends to the next one, GB/s
    latency_us: float = 10.0  # from one process to the next
    disk_gbs: float = 2.0  # what a process reads from the cache, GB/s
    layer_ms: float = 1.6  # a layer of neurons forward and backward, however small: experiments/results/gpu.json

    def __str__(self) -> str:
        return (
            f"for each process {self.memory_gb:g} GB of memory at {self.bandwidth_gbs:g} GB/s, {self.tflops:g} "
            f"TFLOP/s, a link of {self.link_gbs:g} GB/s and {self.latency_us:g} us, a disk of {self.disk_gbs:g} GB/s; "
            f"{self.layer_ms:g} ms for the calls of a layer of neurons"
        )


@dataclass(frozen=True)
class Recordings:
    """The training recordings of a plan: counted, known or given."""

    count: int
    events: int
    shape: tuple[int, ...]  # one frame's
    event_bytes: int  # what an event takes in the cache
    steps: int
    in_bytes: bool  # whether frames are bytes, or else floats
    source: str  # where count and events come from, in words


@dataclass(frozen=True)
class TrainingPlan:
    """A training on paper; bytes, times in seconds, and counts are of one process and one step unless they say else."""

    processes: int
    batch: int  # recordings of a batch, `accumulate` of which make a step
    accumulate: int
    is_dealt: bool  # whether a process runs whole batches, or else a part of every batch
    batches_each: int  # which a process runs for a step, `batch_each` recordings of each
    batch_each: int
    recordings: Recordings
    epochs: int
    steps_per_epoch: int  # the optimizer's
    frames_bytes: int  # a batch's
    parameters: int
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    memory: memory.Estimate
    memory_bytes: int  # at the peak, gradients under way between processes included
    largest_batch_each: int
    norm_bytes: int  # statistics that a process has of what it runs of a batch, for batch norms
    sent_bytes: int
    seconds: dict[str, float]  # computing, communication, encoding, reading
    one_seconds: float  # a step of one process alone on the whole batch
    computing_source: str
    encoding_source: str
    machine: Machine

    @property
    def step_seconds(self) -> float:
        """A step: computing and then communicating, while the next batch is read and encoded in the background."""
        return max(self.seconds["computing"] + self.seconds["communication"], *self._ahead)

    @property
    def efficiency(self) -> float:
        """How much of N times the speed of one process N reach, on the same batch."""
        return self.one_seconds / (self.processes * self.step_seconds)

    @property
    def bottleneck(self) -> str:
        """What a step waits for longest; memory where it does not fit."""
        if self.largest_batch_each < self.batch_each:
            return "memory"
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def _ahead(self) -> tuple[float, float]:
        return self.seconds["encoding"], self.seconds["reading"]

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found |= {name: asdict(found[name]) for name in ("recordings", "memory", "machine")}
        named = ("step_seconds", "efficiency", "bottleneck")
        return found | {name: getattr(self, name) for name in named} | {"advice": self._advice()}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        data, total = self.recordings, self.recordings.events * self.recordings.event_bytes
        way = "over a ring 2 (N - 1) / N of the first, 3 (N - 1) of the second, which are gathered"
        of_each = f"a batch of {self.batch:,} in all: {self.batch_each:,} recording{'s' * (self.batch_each > 1)} each"
        if self.is_dealt:
            way = "(N - 1) / N of the first for each of its batches and once for their sum, (N - 1) of the second"
            of_each = f"whole batches of {self.batch:,}, {self.accumulate} to a step: up to {self.batches_each} each"
        yield f"{self.processes:,} process{'es' * (self.processes > 1)}, {of_each}"
        yield (
            f"events: {data.events:,} in {data.count:,} recordings ({data.source}), {data.event_bytes} bytes each: "
            f"{in_words(total)} in the cache"
        )
        yield (
            f"frames: [{data.steps}, {self.batch_each}, {', '.join(map(str, data.shape))}] in "
            f"{'bytes' if data.in_bytes else 'floats'}: {in_words(self.frames_bytes)} a batch"
        )
        yield (
            f"{self.parameters:,} parameters: weights {in_words(self.weights_bytes)}, gradients "
            f"{in_words(self.gradients_bytes)}, optimizer {in_words(self.optimizer_bytes)}"
        )
        yield (
            f"memory: {in_words(self.memory_bytes)} of {self.machine.memory_gb:g} GB ({in_words(self.memory.step)} for "
            f"what layers keep), by a CPU's estimate; up to {self.largest_batch_each:,} recordings each fit"
        )
        steps = self.steps_per_epoch
        yield f"steps: {steps:,} an epoch, {steps * self.epochs:,} in {self.epochs} epochs"
        yield (
            f"communication: {in_words(self.gradients_bytes)} of gradients and {in_words(self.norm_bytes)} of norms' "
            f"statistics a batch; each process sends {in_words(self.sent_bytes)} a step: {way}"
        )
        yield "a step: " + ", ".join(f"{name} {_time(each)}" for name, each in self.seconds.items())
        yield f"  computing: {self.computing_source}"
        yield f"  encoding: {self.encoding_source}"
        yield (
            f"  so {_time(self.step_seconds)}, read and encoded ahead; {_time(self.step_seconds * steps)} an epoch, "
            f"{_time(self.step_seconds * steps * self.epochs)} in all, without validation"
        )
        yield f"bottleneck: {self.bottleneck}. {self._advice()}"
        yield f"efficiency: {self.efficiency:.1%} of {self.processes:,} times the speed of one process"
        yield f"assumed: {self.machine}"

    def _advice(self) -> str:
        fitting = self.largest_batch_each * (1 if self.is_dealt else self.processes)
        return {
            "memory": f"data.batch={fitting} fits, and train.accumulate makes a step of several."
            if fitting
            else "Not even one recording each fits: fewer data.steps or a smaller network bring it down.",
            "computing": "Where calls of layers are most of it, a larger data.batch costs little more; else more "
            "processes, fewer data.steps or a smaller network shorten it.",
            "communication": "A larger data.batch, train.accumulate, a faster link or fewer processes hide it.",
            "encoding": "More processes, a larger data.downsample or fewer events to a recording shorten it.",
            "reading": "A faster disk, or memory that holds the cache, shortens it.",
        }[self.bottleneck]


def plan_training(
    experiment: Experiment, processes: int, *, events: int | None = None, recordings: int | None = None,
    machine: Machine = Machine(), step_ms: float | None = None,
) -> TrainingPlan:  # fmt: skip
    """The plan of a training on so many processes: parts of batches, or whole ones where a step has one for each.

    Parameters:
        experiment, processes: what is trained, and on how many.
        events (None), recordings (None): of the training split; without events the data are loaded and counted.
        machine (Machine()): what is assumed.
        step_ms (None): a step's computing as it was measured on one process with its part of the batch; None: the
            larger of operations over FLOP/s and bytes over bandwidth, and the calls of its layers.
    """
    data, config = experiment.data, experiment.train
    is_dealt = 1 < processes <= config.accumulate
    found = _counted(data) if events is None else _stated(data, events, recordings)
    batch = min(data.batch, found.count)
    if batch < processes and not is_dealt:
        raise SnnError(
            f"plan: a batch of {batch:,} over {processes:,} processes leaves some without a recording. "
            + (f"data.batch={processes}" if found.count >= processes else f"--processes {found.count}")
            + " gives one to each."
        )
    local_batch = batch if is_dealt else -(-batch // processes)
    rounds = -(-config.accumulate // processes) if is_dealt else config.accumulate
    with torch.device("meta"):
        network = Network(experiment.model_at_step(), found.shape)
    kept = freeze_layers(network, config.freeze)
    parts = list(every_part(parts_of(network)))
    parameters = sum(weight.numel() for weight in network.parameters())
    learned = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    norms = [part.after[0] for part in parts if part.role == "norm" and part.layer not in kept]
    gradients = learned * FLOAT
    pieces = rounds * math.ceil(found.steps / (config.truncate or found.steps))  # forward passes of a process in a step
    if is_dealt:
        statistics = sum(2 * channels for channels in norms) * FLOAT
        sent = math.ceil((rounds + 1) * (processes - 1) / processes * gradients) + (processes - 1) * statistics * pieces
        under_way = math.ceil(gradients * (1 + 1 / processes)) + min(CHUNK, gradients)
        calls = (rounds + 1) * math.ceil(gradients / CHUNK) + 2  # and the figures of all batches
    else:
        statistics = sum(2 * channels + 1 for channels in norms) * DOUBLE
        # summed over a ring; and gathered from all, with gradients as large as all of them together, which are summed
        sent = math.ceil(2 * (processes - 1) / processes * gradients) + 3 * (processes - 1) * statistics * pieces
        under_way = gradients * (processes > 1)
        buckets = 1 + max(0, math.ceil((gradients - FIRST_BUCKET) / BUCKET))
        calls = 2 * len(norms) * pieces + buckets + 2 * rounds  # counts and figures of each batch
    estimate = _estimate(experiment, found, local_batch)
    peak = estimate.total + under_way
    hops = 2 * math.ceil(math.log2(processes))
    computing, computing_source = _computing(parts, found, estimate, local_batch, machine)
    alone, _ = _computing(parts, found, _estimate(experiment, found, batch), batch, machine)
    encoding, encoding_source = _encoding(data, found)
    reading = found.events / found.count * found.event_bytes / (machine.disk_gbs * 1e9)
    computing, alone = computing * rounds, alone * config.accumulate
    if step_ms is not None:
        whole = config.accumulate / rounds if is_dealt else processes  # times that work, on one process alone
        computing, computing_source, alone = step_ms / 1000, f"{step_ms:g} ms, given", whole * step_ms / 1000
    return TrainingPlan(
        processes=processes,
        batch=batch,
        accumulate=config.accumulate,
        is_dealt=is_dealt,
        batches_each=rounds,
        batch_each=local_batch,
        recordings=found,
        epochs=config.epochs,
        steps_per_epoch=math.ceil(math.ceil(found.count / batch) / config.accumulate),
        frames_bytes=found.steps * math.prod(found.shape) * (1 if found.in_bytes else FLOAT) * local_batch,
        parameters=parameters,
        weights_bytes=parameters * FLOAT,
        gradients_bytes=gradients,
        optimizer_bytes=learned * FLOAT * OPTIMIZER[config.optimizer],
        memory=estimate,
        memory_bytes=peak,
        largest_batch_each=_largest(experiment, found, machine.memory_gb * 1e9 - (peak - estimate.total)),
        norm_bytes=statistics,
        sent_bytes=sent,
        seconds={
            "computing": computing,
            "communication": calls * hops * machine.latency_us / 1e6 + sent / (machine.link_gbs * 1e9),
            "encoding": encoding * local_batch * rounds,
            "reading": reading * local_batch * rounds,
        },
        one_seconds=max(alone, *(each * batch * config.accumulate for each in (encoding, reading))),
        computing_source=computing_source,
        encoding_source=encoding_source,
        machine=machine,
    )


def in_words(count: float) -> str:
    """Bytes in words, in powers of ten as devices and links have them; small counts to the byte."""
    if count < 1e7:
        return f"{count:,.0f} bytes"
    scale, unit = next((each for each in ((1e12, "TB"), (1e9, "GB")) if count >= each[0]), (1e6, "MB"))
    return f"{count / scale:,.1f} {unit}"


def _time(seconds: float) -> str:
    scales = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
    scale, unit = next((each for each in scales if seconds >= each[0]), (1e-6, "us"))
    return f"{seconds / scale:.3g} {unit}"


def _counted(data: Data) -> Recordings:
    """The training recordings as they are here."""
    dataset = load(data)
    if not dataset.has_events:
        raise SnnError(f"plan: {data.name} has frames, or values; only events are planned. Give a set of events.")
    part: Any = dataset.parts["train"]
    lengths = np.diff(part.events.offsets)[dataset.ids["train"]]
    width = _width(part.events, rows=len(part.events.y) > 0)
    shape, steps, in_bytes = tuple(dataset.shape), dataset.steps, dataset.in_bytes
    return Recordings(len(lengths), int(lengths.sum()), shape, width, steps, in_bytes, "counted here")


def _stated(data: Data, events: int, recordings: int | None) -> Recordings:
    """The training recordings as they are stated: none is opened."""
    info, known = data.info, data.info.totals.get("train")
    if not data.has_events or data.transforms or not (info.sensor or info.channels or data.name == "shd"):
        raise SnnError(
            f"plan: only with its data one knows which frames {data.name} gives. Without --events they are loaded."
        )
    if recordings is None and known is None:
        raise SnnError(f"plan: nobody knows how many recordings {data.name} has. Give --recordings too.")
    source = "stated"
    if recordings is None:
        recordings = known - round(known * data.validation_fraction)  # type: ignore[operator] - one of them is there
        source = f"those of a full copy less {data.validation_fraction:.0%} for validation; events are stated"
    sensor: Sensor = info.sensor or (info.channels or SHD_CHANNELS, 1, 1)
    nothing = hold((), sensor=sensor, classes=1).events  # in the types of the cache
    _, shape = shape_after(data, nothing, sensor, dtype=info.event_dtype)
    return Recordings(recordings, events, shape, _width(nothing, rows=sensor[1] > 1), data.steps or 1, True, source)


def _width(events: Events, *, rows: bool) -> int:
    return sum(getattr(events, name).itemsize for name in ("xypt" if rows else "xt"))


def _estimate(experiment: Experiment, found: Recordings, batch: int) -> memory.Estimate:
    """What a process takes, by the estimate that training makes before it starts, whose coefficients are a CPU's.

    All recordings have all steps in it; answers are kept by the first process alone, and are left out.
    """
    data = replace(experiment.data, batch=batch, augment=())  # which takes no more than a recording
    train = replace(experiment.train, device="cpu")
    there = SimpleNamespace(
        data=data, ids={"train": range(batch)}, parts={"train": None}, mask=lambda *_: None, **vars(found)
    )
    return memory.estimate(replace(experiment, data=data, train=train), cast(Dataset, there))


def _largest(experiment: Experiment, found: Recordings, room: float) -> int:
    """The largest batch of a process that fits."""
    low, high = 0, 1
    while high < 2**24 and _estimate(experiment, found, high).total <= room:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _estimate(experiment, found, middle).total <= room else (low, middle)
    return low


def products(at: LayerAt) -> int:
    """Products of a layer's weights with one step of one recording, where no input is zero."""
    pixels = max(1, min(math.prod(at.before[1:]), math.prod(at.after[1:])))  # at which a convolution's weights meet
    weights = [weight for name, weight in own_weights(at).items() if not name.startswith("learned.")]
    return sum(weight.numel() * (pixels if weight.dim() > 2 else 1) for weight in weights if weight.dim() > 1)


def _computing(
    parts: list[LayerAt], found: Recordings, estimate: memory.Estimate, batch: int, machine: Machine
) -> tuple[float, str]:  # fmt: skip
    """Seconds of a step's computing on so many recordings, and where they come from."""
    weights = sum(weight.numel() for part in parts for weight in own_weights(part).values())
    operations = 6 * sum(map(products, parts)) * found.steps * batch  # forward, and both products backward
    moved = 2 * estimate.step + 2 * estimate.frames + 10 * weights * FLOAT
    layers = sum(part.role == "neurons" for part in parts)
    bound = max(operations / (machine.tflops * 1e12), moved / (machine.bandwidth_gbs * 1e9))
    return bound + layers * machine.layer_ms / 1000, (
        f"{_time(bound)} by FLOP/s or bandwidth, of {operations:.3g} operations on {in_words(moved)} that are written "
        f"or read, and the calls of {layers} layers of neurons; a measured step is given by --step-ms"
    )


def _encoding(data: Data, found: Recordings) -> tuple[float, str]:
    """Seconds in which one recording becomes frames, and how that is known: one of random events is timed here."""
    count = max(1, min(SAMPLE, found.events // found.count))
    draw = np.random.default_rng(0)
    height, width = (1, 1, *found.shape)[-2:]
    polarities = found.shape[0] if len(found.shape) == 3 else 1
    row = len(found.shape) == 1
    none = np.empty(0, np.uint8)
    events = Events(
        x=draw.integers(0, width * data.downsample, count).astype(np.uint16),
        y=none if row else draw.integers(0, height * data.downsample, count).astype(np.uint16),
        p=none if row else draw.integers(0, polarities, count).astype(np.uint8),
        t=np.sort(draw.integers(0, data.window_us, count)).astype(np.uint32),
        offsets=np.array([0, count], np.int64),
        labels=np.zeros(1, np.int64),
    )
    options: dict[str, Any] = {"steps": found.steps, "step_us": data.step_us, "downsample": data.downsample}
    shape, took = (polarities, height, width), []
    for _ in range(4):  # the first one compiles
        began = time.perf_counter()
        encode(events, np.zeros(1, np.int64), shape=shape, binary=data.binary, in_bytes=found.in_bytes, **options)
        took.append(time.perf_counter() - began)
    seconds = min(took[1:])
    rate = count / seconds
    each = found.events / found.count
    return max(seconds, each / rate), (
        f"measured here on one thread, {count:,} random events to the frames of a recording in {_time(seconds)}: "
        f"{rate / 1e6:.1f} million events/s{', without what data.augment does' if data.augment else ''}"
    )
