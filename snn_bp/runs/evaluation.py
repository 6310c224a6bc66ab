"""What a trained network does on a split: its metric with the uncertainty, spikes and operations of each inference."""

import math
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp.chip.arithmetic import FOR_XYLO
from snn_bp.data import Dataset
from snn_bp.data.ahead import ahead
from snn_bp.errors import SnnError, check_kind
from snn_bp.errors.calls import checked_call
from snn_bp.model.activity import Activity, slopes_and_height, spikes_in, threshold_distances
from snn_bp.model.losses import Loss, amount_of, loss_of, scores_of
from snn_bp.model.masks import by_length, present
from snn_bp.model.metrics import METRICS, Meter, StepAccuracy, counted, joined, metrics_for, usual_metric
from snn_bp.model.names import path_of
from snn_bp.model.network import Network, has_state, neuron_of
from snn_bp.model.neurobench import AC_PJ, MAC_PJ, Counters, cost_in_words, energy_pj
from snn_bp.model.operations import fan_out, why_uncounted
from snn_bp.model.operations import operations as operations_of
from snn_bp.neurons import is_binary, is_spiking
from snn_bp.runs.answers import Answers
from snn_bp.runs.folder import Run
from snn_bp.runs.interval import ratio_interval, wilson_interval
from snn_bp.runs.memory import in_batches
from snn_bp.runs.records import figure_in_words
from snn_bp.runtime.screen import html_table, on_screen
from snn_bp.runtime.status import in_phase, phase

COUNTED = "they are counted in floats, of networks whose layers are all known"


@dataclass(frozen=True)
class Evaluation:
    """Figures on `samples` recordings of a split; those of classes are None where the targets are no classes."""

    split: str
    samples: int
    loss: float
    metric: str  # the one in force, a name of `metrics`
    metrics: dict[str, float]  # and those of ours that fit the targets
    spikes: dict[str, float]  # by layer of neurons, for one inference
    operations: dict[str, float]  # synaptic: weights added for an input that is not zero, for one inference
    correct: int | None = None
    accuracy: float | None = None  # with a class for every step: over the steps that have a label
    low: float | None = None  # 95 % interval of the accuracy: Wilson 1927; of steps, by how recordings differ
    high: float | None = None
    confusion: list[list[int]] | None = None  # [true class][predicted class]
    steps: int | None = None  # with a label, where every step may have one
    not_counted: tuple[str, ...] = ()  # layers of the user's own: what they compute, and so its operations, is unknown
    neurobench: dict[str, Any] | None = None  # by its names; None in integers, and where a layer is not counted

    @property
    def value(self) -> float:
        """The figure of the metric in force."""
        return self.metrics[self.metric]

    def energy_pj(self, *, mac_pj: float = MAC_PJ, ac_pj: float = AC_PJ) -> float:
        """An estimate of the energy of an inference, in pJ: so much for each effective MAC and AC of `neurobench`.

        The defaults are those of 32-bit floats in 45 nm (Horowitz 2014). Memory, the neurons' own steps and leakage are
        not in it.
        """
        if self.neurobench is None:
            raise SnnError(
                f"energy_pj: it takes MACs and ACs, and this evaluation has none: {COUNTED}. Train with "
                "train.target=None, and with layers of ours."
            )
        return energy_pj(self.neurobench, mac_pj=mac_pj, ac_pj=ac_pj)

    def __str__(self) -> str:
        lines = [self._figures()]
        for name, *counts in self._rows():
            parts = zip(counts, ("spikes", "synaptic operations"), strict=True)
            lines.append(
                f"  {name}: {', '.join(f'{count} {what}' for count, what in parts if count)} for each inference"
            )
        lines += [f"  {line}" for line in self._cost()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return on_screen(str(self))

    def _repr_html_(self) -> str:
        return html_table(
            self._figures(),
            ("for each inference", "spikes", "synaptic operations"),
            self._rows(),
            notes=self._cost(),
        )

    def _figures(self) -> str:
        return f"{self.split} {figure_in_words(self.record())}, loss {self.loss:.4f}"

    def _rows(self) -> list[tuple[str, str, str]]:
        operations = {name: f"{count:,.0f}" for name, count in self.operations.items()}
        operations |= dict.fromkeys(self.not_counted, "unknown")
        spikes = {name: f"{count:,.1f}" for name, count in self.spikes.items()}
        return [
            (name, spikes.get(name, ""), operations.get(name, "")) for name in sorted(spikes | operations, key=path_of)
        ]

    def _cost(self) -> list[str]:
        if self.neurobench is not None:
            return cost_in_words(self.neurobench)
        return [f"no figures of NeuroBench: {COUNTED}"] * bool(self.operations)

    def record(self) -> dict[str, Any]:
        """The figures as JSON holds them; those that there are none of are left out."""
        content = asdict(self) | {"not_counted": self.not_counted or None}
        first = ("split", "samples", "correct", "accuracy", "low", "high", "loss", "confusion", "spikes", "operations")
        return {name: content[name] for name in dict.fromkeys((*first, *content)) if content[name] is not None}


@checked_call
def evaluate(run: Run, split: str = "test", *, checkpoint: str = "best", batch: int | None = None) -> Evaluation:
    """The network of `run` on a split: loss, metrics, spikes and operations for an inference, of classes the accuracy
    with its interval.

    `split` is "test" (the default), "validation" or "train"; `checkpoint` is "best" (the default) or "last". `batch`
    (None) is how many recordings run at a time, by default as in training. With another number figures may differ in
    their last digits, and MACs and ACs are told apart otherwise, as NeuroBench does.

    >>> evaluate(run, "validation").samples  # the run of `train`
    2
    """
    check_kind("evaluate: the run", run, Run, "As in evaluate(Run('runs/mine')).")
    train = run.experiment.train_at_step()
    dataset = in_batches("evaluate", run.experiment, run.dataset(), split, batch)
    return evaluate_network(run.network(checkpoint), dataset, split, train.loss, metric=train.metric)


def evaluate_network(
    network: Network, dataset: Dataset, split: str, loss: Loss, *, metric: Any = None, counts: bool = True
) -> Evaluation:
    """A network on a split, every recording once; leaves the network in the mode it was in.

    `metric` None: what is usual for the targets. `counts=False` leaves out spikes and operations, which cost time.
    """
    return evaluate_and_keep(network, dataset, split, loss, metric=metric, counts=counts, keep=False)[0]


def evaluate_and_keep(
    network: Network, dataset: Dataset, split: str, loss: Loss, *, metric: Any = None, counts: bool = True,
    keep: bool = True,
) -> tuple[Evaluation, Answers | None]:  # fmt: skip
    """As `evaluate_network`, and the scores of every recording beside their targets; None where `keep` is False."""
    measurement = Measurement(dataset, split, loss, metric, counts=counts, keep=keep)
    return measurement.joined(network, measurement.of_batches(network))


@dataclass(frozen=True, eq=False)
class BatchResult:
    """What a network gave on one batch, tensors on the CPU."""

    loss: float  # times `amount`, what it is the mean of
    amount: int
    parts: dict[str, Tensor]  # sums of each metric of ours
    cells: tuple[np.ndarray, np.ndarray] | None  # where the confusion is not 0, row by row; and how often
    of_each: Tensor | None  # recording of classes for every step: how many steps are right, and have a label
    scores: tuple[Tensor, Tensor, Tensor | None] | None  # with targets and mask, where they are kept
    spikes: dict[str, float]
    operations: dict[str, float]
    not_counted: set[str]
    counters: Counters | None


class Measurement:
    """What is asked of a network on a split: every batch is measured by itself, and what all gave joined in order.

    So it is the same to the bit whoever measures which batch. A layer that draws random numbers draws them for each
    batch from its number in the split.
    """

    def __init__(
        self, dataset: Dataset, split: str, loss: Loss, metric: Any = None, *, counts: bool, keep: bool
    ) -> None:
        self.dataset, self.split, self.loss, self.counts, self.keep = dataset, split, loss, counts, keep
        metric = usual_metric(loss, dataset.targets) if metric is None else metric
        self.metrics = metrics_for(metric, dataset.targets)
        self.batches = dataset.batches(split)
        if not self.batches:
            odd = " ".join(dataset.notes)
            raise SnnError(f"evaluate: the {split!r} split of {dataset.data.name} is empty here. {odd}")

    @torch.inference_mode()
    def of_batches(self, network: Network, mine: slice = slice(None)) -> Iterator[BatchResult]:
        """What every batch gives, or those of a slice, one by one; leaves the network in the mode it was in."""
        was_training, device = network.training, next(network.parameters()).device
        numbers = range(len(self.batches))[mine]
        made = ahead(self._made, numbers, on=self.dataset.can_be_read_ahead, fetch=self._fetch)
        network.eval()
        with closing(made):
            for number in in_phase(numbers, f"evaluating the {self.split} split"):
                x, targets = next(made)
                mask = self.dataset.mask(self.split, self.batches[number])
                given = x.to(device), targets.to(device), None if mask is None else mask.to(device)
                with drawing_from(number, device):
                    found = self._of_batch(network, *given)
                yield found
        network.train(was_training)

    def _made(self, number: int) -> tuple[Tensor, Tensor]:
        return self.dataset.batch(self.split, self.batches[number], in_bytes=True)

    def _fetch(self, number: int) -> None:
        self.dataset.fetch(self.split, self.batches[number])

    def _of_batch(self, network: Network, x: Tensor, targets: Tensor, mask: Tensor | None) -> BatchResult:
        kind, spikes, operations, not_counted = self.dataset.targets.kind, {}, {}, set()
        counters = Counters() if self.counts and network.floats is network else None
        counting = (spikes, operations, not_counted, mask, counters)
        out = count_activity(network, x, *counting) if self.counts else network(x)
        amount = amount_of(targets, mask, kind)
        loss = float(loss_of(self.loss, out, targets, mask)) * amount
        scores = scores_of(self.loss, out, mask, kind)
        ours = [each for each in self.metrics if type(each) in METRICS]
        parts = {each.name: each.parts(scores, targets, mask).sum(0).cpu() for each in ours}
        cells = of_each = None
        if self.dataset.targets.are_classes:
            true, predicted = targets.cpu(), scores.argmax(-1).cpu()
            if kind == "class per step":
                of_each = StepAccuracy().parts(scores, targets, mask).cpu()
                labelled = counted(targets, mask).cpu()
                true, predicted = true[labelled], predicted[labelled]
            cells = np.unique((true * self.dataset.classes + predicted).numpy(), return_counts=True)
        kept = None
        if self.keep or len(ours) < len(self.metrics):
            kept = scores.clone().cpu(), targets.cpu(), None if mask is None else mask.cpu()
        return BatchResult(loss, amount, parts, cells, of_each, kept, spikes, operations, not_counted, counters)

    @torch.inference_mode()
    def joined(self, network: Network, results: Iterable[BatchResult]) -> tuple[Evaluation, Answers | None]:
        """The figures of what all batches gave, in their order; and the scores, None where they are not kept."""
        tally = _Tally(self)
        for each in results:
            tally.add(each)
        samples = sum(map(len, self.batches))
        counters = None if tally.not_counted else tally.counters
        evaluation = Evaluation(
            split=self.split,
            samples=samples,
            spikes={name: count / samples for name, count in tally.spikes.items()},
            operations={name: count / samples for name, count in tally.operations.items()},
            not_counted=tuple(sorted(tally.not_counted)),
            neurobench=None if counters is None else counters.figures(network, samples),
            **tally.figures(),
        )
        if not self.keep:
            return evaluation, None
        names = tuple(self.dataset.names(self.split))
        return evaluation, Answers(self.dataset.targets, names, *joined(tally.scores))


class _Tally:
    """Loss, metrics, confusion and counts, added up batch by batch."""

    def __init__(self, measurement: Measurement) -> None:
        self.targets = measurement.dataset.targets
        self.meters = {each.name: Meter(each) for each in measurement.metrics}
        outputs = self.targets.outputs if self.targets.are_classes else 0
        self.confusion = np.zeros((outputs, outputs), np.int64)
        self.total, self.amount = 0.0, 0
        self.of_each: list[Tensor] = []
        self.scores: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self.spikes: dict[str, float] = {}
        self.operations: dict[str, float] = {}
        self.not_counted: set[str] = set()
        self.counters: Counters | None = None

    def add(self, result: BatchResult) -> None:
        self.total += result.loss
        self.amount += result.amount
        for name, meter in self.meters.items():
            meter.take(result.parts.get(name, result.scores))
        if result.cells is not None:
            cells, counts = result.cells
            self.confusion.ravel()[cells] += counts
        if result.of_each is not None:
            self.of_each.append(result.of_each)
        if result.scores is not None:
            self.scores.append(result.scores)
        for total, counts in ((self.spikes, result.spikes), (self.operations, result.operations)):
            for name, count in counts.items():
                total[name] = total.get(name, 0.0) + count
        self.not_counted |= result.not_counted
        if result.counters is not None:
            self.counters = result.counters if self.counters is None else self.counters.plus(result.counters)

    def figures(self) -> dict[str, Any]:
        metrics = {name: meter.value() for name, meter in self.meters.items()}
        found: dict[str, Any] = {"loss": self.total / self.amount if self.amount else math.nan}
        found |= {"metric": next(iter(metrics)), "metrics": metrics}
        if not self.targets.are_classes:
            return found
        correct, total = int(self.confusion.trace()), int(self.confusion.sum())
        found |= {"correct": correct, "accuracy": correct / max(1, total), "confusion": self.confusion.tolist()}
        if self.of_each:
            right, labelled = torch.cat(self.of_each).unbind(1)
            low, high = ratio_interval(right.numpy(), labelled.numpy())
            return found | {"low": low, "high": high, "steps": total}
        low, high = wilson_interval(correct, total)
        return found | {"low": low, "high": high}


@contextmanager
def drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """Within the block, random numbers are drawn from a seed; behind it they go on as if nothing had been between."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index])
    with torch.random.fork_rng([device] * (len(generators) - 1)):
        for generator in generators:
            generator.manual_seed(seed)
        yield


@phase("looking at the layers")
@torch.no_grad()
def layer_activity(network: Network, x: Tensor, mask: Tensor | None = None) -> list[dict[str, Any]]:
    """How alive each layer of neurons is on `x`, in evaluation mode, at the steps that recordings have.

    The figures are those of `Activity`, a row for each layer that spikes.
    """
    was_training, rows = network.training, []
    for part, entering, out in network.eval().visit(x, potentials=True):
        layer: Any = part.layer
        if has_state(layer) and is_spiking(neuron_of(layer)):
            spikes, _, potentials = out
            slopes, height = slopes_and_height(layer, *threshold_distances(layer, entering, potentials, spikes))
            counts = spikes_in(neuron_of(layer), spikes.float())
            counts = counts.flatten(0, 1) if mask is None else counts[mask]
            fired = None if is_binary(neuron_of(layer)) else (counts != 0).to(counts.dtype).mean(0)
            if mask is not None:
                slopes, height = slopes[mask], height.expand_as(slopes)[mask]
            activity = Activity.of(counts.mean(0), slopes, height, fired=fired)
            rows.append({"layer": network.name(part.path), **activity._asdict()})
    network.train(was_training)
    return rows


def count_activity(
    network: Network, x: Tensor, spikes: dict[str, float], operations: dict[str, float],
    not_counted: set[str] | None = None, mask: Tensor | None = None, counters: Counters | None = None,
) -> Tensor:  # fmt: skip
    """The output for `x`, with spikes and operations of every layer added to the two counts.

    A neuron that is read out sends no spikes; one whose spikes have a size sends one where its output is not 0. An
    operation is a weight that an input other than zero meets; on Xylo each spike of a count meets it. Steps that a
    recording does not have are left out.
    Layers with weights of which it is not known what they compute are added to `not_counted`, or else refused.
    `counters` count all that NeuroBench does.
    """
    x = network.in_floats(x)
    there = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
    for part, entering, out in network.visit(x):
        layer: Any = part.layer
        name, met = network.name(part.path), 0.0
        if has_state(layer):
            out = out[0]
            if is_spiking(neuron_of(layer)):
                sent = float(present(spikes_in(neuron_of(layer), out), mask).sum())
                spikes[name] = spikes.get(name, 0.0) + sent
            if layer.recurrence is not None:  # spikes of the last step are not propagated
                behind = present(present(out, mask)[:-1], None if mask is None else mask[1:])
                sent = torch.stack(_met(network, behind))
                active = (sent != 0).to(out.dtype).sum((0, 1, 2))
                met = float((active * fan_out(layer.recurrence)).sum())
                operations[name] = operations.get(name, 0.0) + met
        elif (why := why_uncounted(part)) is not None:
            if not_counted is None:
                raise SnnError(f"evaluate: {name} {why} Its operations are not counted; counts=False asks none.")
            not_counted.add(name)
        else:
            pieces = by_length(entering, mask) if part.role == "stateful" else (present(entering, mask),)
            for sent in (each for piece in pieces for each in _met(network, piece)):
                if (count := operations_of(layer, sent)) is not None:
                    operations[name] = operations.get(name, 0.0) + count
                    met += count
        if counters is not None:
            counters.add(part, present(entering, mask), present(out, mask), there, met)
        x = out
    return x


def _met(network: Network, x: Tensor) -> list[Tensor]:
    """The inputs that meet weights at once: of counts on Xylo the first spikes, the second ones, and so on."""
    if getattr(network, "hardware", None) != FOR_XYLO:
        return [x]
    return [(x >= count).to(x.dtype) for count in range(1, max(1, int(x.max())) + 1)]
