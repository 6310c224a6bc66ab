"""Faults that no gradient shows: state that leaks between batches, labels that shifted, a cache that is stale."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from snn_bp.data import Dataset
from snn_bp.data.description import source_of
from snn_bp.data.encode import Events
from snn_bp.data.recordings import find_root, find_set, read_part
from snn_bp.data.saccades import TRAINING, digit_images, simulate_recordings
from snn_bp.data.store import CachedEvents, Recording
from snn_bp.instruments.findings import Finding
from snn_bp.instruments.learning import at_chance, best_constant
from snn_bp.instruments.unroll import copied
from snn_bp.kernels import use_backend
from snn_bp.model.blocks import every_part, parts_of
from snn_bp.model.network import Network
from snn_bp.runs.interval import wilson_interval

PERMUTED = 0.5  # accuracy; at chance on 40 recordings of 10 classes the best exchange reaches 0.3
CHECKED = 8  # recordings of each part that are read again
COMPARED = 500  # recordings whose class means are learned


@torch.no_grad()
def find_leaked_state(network: Network, x: Tensor) -> list[Finding]:
    """Whether the same batch, seen twice, gives the same bits: layer by layer, and by the fast kernels."""
    work = copied(network).eval()
    advice = "A batch must start from rest: keep no state in modules, and pass none of an earlier batch to network.run."
    measure = "fraction of outputs that differ when the same batch is seen again"
    with use_backend("reference"):
        first, second = ([out[0] if isinstance(out, tuple) else out for _, out in work.walk(x)] for _ in range(2))
    names = [work.name(part.path) for part in every_part(parts_of(work))]
    first.append(work(x))
    second.append(work(x))
    for name, one, other in zip([*names, "the network"], first, second, strict=False):
        differs = float((one != other).float().mean())
        if differs > 0 and not (torch.isnan(one).any() or torch.isnan(other).any()):
            return [Finding("leaked state", name, measure, differs, 0, advice)]
    return []


def find_shifted_labels(confusion: Sequence[Sequence[int]], *, where: str) -> list[Finding]:
    """Whether predictions `[true class][predicted class]` would be right under another order of the classes.

    Of all orders the best is taken (Kuhn 1955). It counts where its 95 % interval lies above that of the accuracy.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    counts = np.asarray(confusion)
    total, right = int(counts.sum()), int(np.trace(counts))
    if not total:
        return []
    _, classes = linear_sum_assignment(counts, maximize=True)
    best = int(counts[np.arange(len(counts)), classes].sum())
    if best / total < PERMUTED or wilson_interval(best, total)[0] <= wilson_interval(right, total)[1]:
        return []
    moved = [(label, int(other)) for label, other in enumerate(classes) if label != other]
    away = {(label - other) % len(counts) for label, other in moved}
    if len(away) == 1 and len(moved) == len(counts):
        by = away.pop()
        order = f"each label is {by - len(counts) * (2 * by > len(counts)):+d} from the class it is in training"
    else:
        order = ", ".join(f"label {label} is class {other} of training" for label, other in moved[:5])
    advice = f"Its labels are not those of training: {order}. See how each split gets its labels."
    measure = f"accuracy is {right / total:.3f}, in another order of the classes"
    return [Finding("shifted labels", where, measure, best / total, wilson_interval(right, total)[1], advice)]


def find_unrelated_labels(dataset: Dataset) -> list[Finding]:
    """Whether frames tell anything of their labels: the nearest class mean on recordings not learned from.

    At chance, labels belong to other recordings, or classes differ in nothing that a mean shows: a hint, not more.
    """
    split = next((name for name in ("validation", "test") if len(dataset.ids[name])), None)
    if split is None or dataset.targets.kind != "class":
        return []
    (frames, labels), (others, wanted) = (_some(dataset, name) for name in ("train", split))
    known = torch.unique(labels)
    means = torch.stack([frames[labels == label].mean(0) for label in known])
    predicted = known[torch.cdist(others, means).argmin(1)]
    confusion = np.zeros((dataset.classes, dataset.classes), np.int64)
    np.add.at(confusion, (wanted.numpy(), predicted.numpy()), 1)
    if shifted := find_shifted_labels(confusion.tolist(), where=f"the {split} split"):
        return shifted
    right, chance = int((predicted == wanted).sum()), best_constant(wanted.numpy())
    if not at_chance(right, len(wanted), chance):
        return []
    where, measure, accuracy = f"the {split} split", "accuracy of the nearest class mean", right / len(wanted)
    advice = "Frames and labels look unrelated: see that both are in the same order, and transforms keep the class."
    return [Finding("unrelated labels", where, measure, accuracy, chance, advice)]


def find_stale_cache(dataset: Dataset) -> list[Finding]:
    """Whether the first recordings of each part, read or made again, give the frames that the cache gives."""
    found = []
    if source_of(dataset.data) is not None:  # found by its content, or by the files that it names
        return found
    for part, stored in dataset.parts.items():
        ids = np.arange(min(CHECKED, len(stored)))
        if not len(ids) or stored.folder is None:  # held in memory: read at this start
            continue
        again = replace(dataset, parts={**dataset.parts, part: _read_again(dataset, part, len(ids))})
        (frames, labels), (fresh, true) = (each.batch(part, ids) for each in (dataset, again))
        differs = (frames != fresh).flatten(2).any(2).any(0) | (labels != true)
        if bool(differs.any()):
            advice = f"Delete {stored.folder}: it was made from other files, and is made anew at the next start."
            measure = f"fraction of the first {len(ids)} recordings that differ from their source"
            found.append(Finding("stale cache", f"the {part} part", measure, float(differs.float().mean()), 0, advice))
    return found


def _some(dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    frames, labels = dataset.batch(split, dataset.spread(split, COMPARED))
    return frames.transpose(0, 1).flatten(1), labels


def _read_again(dataset: Dataset, part: str, count: int) -> CachedEvents:
    """The first recordings of a part from their source, past the cache."""
    recordings = list(itertools.islice(_source(dataset, part, count), count))
    columns = {
        field: np.concatenate([each.events[field] for each in recordings])
        if field in (recordings[0].events.dtype.names or ()) and len(dataset.shape) == 3
        else np.empty(0, np.uint8)
        for field in "yp"
    }
    columns |= {field: np.concatenate([each.events[field] for each in recordings]) for field in "xt"}
    offsets = np.cumsum([0, *(len(each.events) for each in recordings)])
    return CachedEvents(
        Events(**columns, offsets=offsets, labels=np.array([each.label for each in recordings])), "", None
    )


def _source(dataset: Dataset, part: str, count: int) -> Iterator[Recording]:
    info = dataset.info
    if info.tonic_class:
        folder = find_set(info, find_root(dataset.data.root))
        assert folder is not None, "the data set was loaded from there"
        yield from read_part(info, folder, part)
        return
    images, labels = digit_images()
    first = 0 if part == "train" else TRAINING
    for number, events in enumerate(simulate_recordings(images[first : first + count], first=first), start=first):
        yield Recording(f"digit {number}", events, int(labels[number]))
