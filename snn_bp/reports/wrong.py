"""Which recordings a network gets wrong, and why: what it saw, what its layers did, how its answer came about."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp.data import Dataset
from snn_bp.errors import SnnError, typed
from snn_bp.model.activity import spikes_in
from snn_bp.model.metrics import usual_metric
from snn_bp.model.network import Network, has_state, neuron_of
from snn_bp.neurons import is_spiking
from snn_bp.reports.page import Image, Section, Table, svg_image
from snn_bp.reports.plots.answers import StepCounts, answer, scores_so_far
from snn_bp.runs.answers import FOLDER, Answers
from snn_bp.runs.folder import Run
from snn_bp.runs.memory import check_room_for
from snn_bp.runs.records import digits

TITLE = "Wrong recordings"
DRAWN, LISTED = 4, 12  # recordings, at most
COMPARED = 12  # right recordings that a wrong one is compared with, at most
STRANGE = 2.0  # times as many events or spikes as usual, or as few, are worth a word


def wrong(run: Run, split: str, kept: Answers | None) -> Section:
    """The recordings that are farthest from right, as a table and some of them in pictures."""
    if kept is None:
        other = f"`snn-bp report {typed(run.path)} --split validation` shows those of validation."
        return Section(TITLE, [f"The run keeps no predictions of the {split} split.", other])
    loss = run.experiment.train_at_step().loss
    off, is_wrong = _distances(kept, loss)
    order = torch.argsort(off, descending=True, stable=True)
    order = order[is_wrong[order]]
    if not len(order):
        return Section(TITLE, [f"All {len(kept.names)} recordings of the {split} split are right."])
    sentences, tables = _in_words(kept, split, order.tolist()), [_table(kept, off, order[:LISTED].tolist())]
    more = f"The table has the first {LISTED}; all" if len(order) > LISTED else "All recordings"
    sentences.append(f"{more} stand in {FOLDER}/{split}.csv of the run.")
    try:
        dataset = run.dataset()
        if tuple(dataset.names(split)) != kept.names:
            raise SnnError(f"the recordings of the {split} split are not those that were evaluated.")
        check_room_for(f"{1 + COMPARED} recordings", run.experiment, dataset, 1 + COMPARED)
        images = _Pictures(run.network("best"), dataset, split, kept, loss, off, is_wrong).drawn(order.tolist())
    except SnnError as problem:
        return Section(TITLE, [*sentences, f"They cannot be drawn: {problem}"], tables=tables)
    usual = "the right recordings of its class" if kept.targets.kind == "class" else "the best recordings"
    sentences.append(
        "Pictures show what the network saw, how many events and spikes each step had (grey; dashed and in brackets "
        f"the mean of up to {COMPARED} of {usual}), and how the answer came about."
    )
    return Section(TITLE, sentences, images=images, tables=tables)


def _distances(kept: Answers, loss: Any) -> tuple[Tensor, Tensor]:
    """How far off each recording is, and whether it counts as wrong: of numbers all do that are not met exactly."""
    kind, scores, values = kept.targets.kind, kept.scores, kept.values
    if kind == "class":
        off = scores.amax(1) - scores.gather(1, values[:, None])[:, 0]
        is_wrong = scores.argmax(1) != values
    elif kind == "labels":
        off = ((scores > 0) != (values > 0.5)).sum(1)
        is_wrong = off > 0
    else:
        metric = usual_metric(loss, kept.targets)
        figures = torch.tensor([metric.of(part) for part in metric.parts(scores, values, kept.mask)])
        off = 1 - figures if metric.higher_is_better else figures
        is_wrong = off != 0
    return torch.nan_to_num(off.float(), nan=0.0), is_wrong


def _in_words(kept: Answers, split: str, order: list[int]) -> list[str]:
    kind, names, count = kept.targets.kind, kept.targets.names, len(kept.names)
    said = f"{len(order)} of {count} recordings of the {split} split "
    if kind == "class":
        true, predicted = kept.values[order], kept.scores[order].argmax(1)
        pairs = Counter(zip(true.tolist(), predicted.tolist(), strict=True))
        (first, second), times = pairs.most_common(1)[0]
        close = sum(rank == 2 for rank in _ranks(kept, order))
        return [
            f"{said}are wrong; most often {names[first]} is taken for {names[second]}, {times} times. In {close} of "
            "them the true class comes second. First come those in which the answer is farthest ahead of the truth."
        ]
    if kind == "labels":
        return [f"{said}have a wrong label; those with the most come first."]
    if kind == "class per step":
        return [f"{said}have a wrong step; those with the largest fraction of wrong steps come first."]
    measure = "van Rossum distance" if kind == "spikes" else "mean absolute error"
    return [f"Targets are numbers, or trains of spikes, and hardly ever met exactly. By {measure}, the farthest first."]


def _ranks(kept: Answers, rows: list[int]) -> list[int]:
    """The rank of the true class among the scores, 1 where it is ahead."""
    true = kept.scores[rows].gather(1, kept.values[rows][:, None])
    return (1 + (kept.scores[rows] > true).sum(1)).clamp(min=2).tolist()  # equal scores: another class came first


def _table(kept: Answers, off: Tensor, rows: list[int]) -> Table:
    kind, names = kept.targets.kind, kept.targets.names
    if kind == "class":
        ranks, found = _ranks(kept, rows), []
        for row, rank in zip(rows, ranks, strict=True):
            true, scores = int(kept.values[row]), kept.scores[row]
            predicted = int(scores.argmax())
            figures = (f"{scores[predicted]:.4g}", f"{scores[true]:.4g}", str(rank))
            found.append((kept.names[row], names[true], names[predicted], *figures))
        heads = ("recording", "true class", "answer", "score of the answer", "score of the truth", "rank of the truth")
        return Table("Wrong recordings, scores at their end", heads, found)
    if kind == "labels":
        found = []
        for row in rows:
            true, said = (
                ", ".join(name for name, there in zip(names, part, strict=True) if there) or "none"
                for part in ((kept.values[row] > 0.5).tolist(), (kept.scores[row] > 0).tolist())
            )
            found.append((kept.names[row], true, said))
        return Table("Recordings with wrong labels", ("recording", "true labels", "answer"), found, numbers=False)
    unit = {"class per step": "wrong steps", "spikes": "van Rossum distance"}.get(kind, "mean absolute error")
    found = [
        (kept.names[row], f"{off[row]:.1%}" if kind == "class per step" else digits(float(off[row]))) for row in rows
    ]
    return Table("Recordings that are farthest off", ("recording", unit), found)


@dataclass(frozen=True)
class _Pictures:
    """What is needed to draw some recordings of a split."""

    network: Network
    dataset: Dataset
    split: str
    kept: Answers
    loss: Any
    off: Tensor
    is_wrong: Tensor

    def drawn(self, order: list[int]) -> list[Image]:
        """Pictures of the first of these recordings; of classes, a confusion that was drawn comes again last."""
        if self.kept.targets.kind == "class":
            seen: Counter[tuple[int, int]] = Counter()
            times = []
            for row in order:
                pair = (int(self.kept.values[row]), int(self.kept.scores[row].argmax()))
                times.append(seen[pair])
                seen[pair] += 1
            order = [row for _, _, row in sorted(zip(times, range(len(order)), order, strict=True))]
        return [self._one(row) for row in order[:DRAWN]]

    @torch.no_grad()
    def _one(self, row: int) -> Image:
        others = self._compared_with(row)
        ids = self.dataset.ids[self.split][[row, *others]]
        (x, targets), mask = self.dataset.batch(self.split, ids), self.dataset.mask(self.split, ids)
        activity, out = self._activity(x, mask)
        target, late = targets[0], len(out) - len(x)
        if mask is not None:
            length = int(mask[:, 0].sum())
            x, out = x[:length], out[: length + late]
            target = target[:length] if self.dataset.targets.is_per_step else target
        drawn = answer(
            x[:, 0], activity, out[:, 0], target, targets=self.dataset.targets, loss=self.loss,
            step_ms=self.dataset.data.step_ms,
        )  # fmt: skip
        caption = f"{self.kept.names[row]}: {' '.join(self._why(row, out[:, 0], activity))}"
        counted = ", ".join(f"{each.name} {each.counts.sum():,.0f} {each.unit}".strip() for each in activity)
        return svg_image(drawn, f"The recording step by step: {counted}.", caption)

    def _compared_with(self, row: int) -> list[int]:
        """Recordings that are right and of the same class; of other targets than a class, the best."""
        if self.kept.targets.kind == "class":
            same = ((self.kept.values == self.kept.values[row]) & ~self.is_wrong).nonzero()[:, 0]
            return same[torch.linspace(0, len(same) - 1, min(len(same), COMPARED)).long()].tolist() if len(same) else []
        best = torch.argsort(self.off, stable=True)[: min(COMPARED, len(self.off) // 2)].tolist()
        return [each for each in best if each != row]

    def _activity(self, x: Tensor, mask: Tensor | None) -> tuple[list[StepCounts], Tensor]:
        """Input and spikes at each step of the first recording beside the mean of the others; and the output of all."""
        present = None if mask is None else mask.to(x.dtype)
        found = [_counts("input", "events" if self.dataset.has_events else "", x, present)]
        out = x
        for part, _, result in self.network.visit(x):
            out = result[0] if has_state(part.layer) else result  # type: ignore[index]
            if has_state(part.layer) and is_spiking(neuron := neuron_of(part.layer)):
                found.append(_counts(self.network.name(part.path), "spikes", spikes_in(neuron, out.float()), present))
        return found, out

    def _why(self, row: int, out: Tensor, activity: list[StepCounts]) -> list[str]:
        """What is to be seen, in sentences."""
        kept = self.kept
        kind, names, scores, wanted = kept.targets.kind, kept.targets.names, kept.scores[row], kept.values[row]
        if kind == "class":
            true, answered, (rank,) = int(wanted), int(scores.argmax()), _ranks(kept, [row])
            ahead = (scores_so_far(out, kept.targets, self.loss).argmax(1) == true).nonzero()[0]
            sentences = [
                f"true class {names[true]} (score {scores[true]:.4g}, rank {rank} of {len(names)}), "
                f"answer {names[answered]} (score {scores[answered]:.4g}).",
                f"{names[true]} was last ahead at step {ahead[-1]} of {len(out) - 1}." if len(ahead)
                else f"{names[true]} was ahead at no step.",
            ]  # fmt: skip
        elif kind == "class per step":
            sentences = [f"{self.off[row]:.1%} of its steps are wrong."]
        elif kind == "labels":
            true, said = (
                ", ".join(name for name, there in zip(names, part.tolist(), strict=True) if there) or "none"
                for part in (wanted > 0.5, scores > 0)
            )
            sentences = [f"true labels {true}; answer {said}."]
        elif kind == "spikes":
            sentences = [f"spikes wanted: {int(wanted.sum()):,}; fired: {int((scores != 0).sum()):,}."]
        else:
            sentences = [f"on average {digits(float(self.off[row]))} off."]
        return sentences + [_unusual(each) for each in activity if _is_unusual(each)][:1]


def _is_unusual(each: StepCounts) -> bool:
    """Whether there are many times as many events or spikes as in the others, or as few."""
    if each.usual is None or not (usual := float(each.usual.sum())):
        return False
    return not 1 / STRANGE < float(each.counts.sum()) / usual < STRANGE


def _unusual(each: StepCounts) -> str:
    assert each.usual is not None
    ratio = float(each.counts.sum() / each.usual.sum())
    return f"{'Its input' if each.name == 'input' else each.name} has {ratio:.2g} times the usual {each.unit or 'sum'}."


def _counts(name: str, unit: str, values: Tensor, present: Tensor | None) -> StepCounts:
    """The sum of every step, of the first recording and of the others on average, where they have the step."""
    summed = values.detach().float().abs().flatten(2).sum(2)
    if present is not None:
        late = len(summed) - len(present)
        there = torch.cat([present, present[-1:].expand(late, -1)]) if late else present
        summed = summed * there
        mine = summed[: int(there[:, 0].sum()), 0]
        usual = summed[:, 1:].sum(1) / there[:, 1:].sum(1).clamp(min=1)
    else:
        mine, usual = summed[:, 0], summed[:, 1:].mean(1)
    several = summed.shape[1] > 1
    return StepCounts(name, unit, _array(mine), _array(usual[: len(mine)]) if several else None)


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
