"""What the course of a training says: learning rates that cannot work, chance level, overfitting, layers that stay.

Accuracy counts as chance where its 95 % interval holds that of always giving one answer, and lies below half way from
there to all: what few recordings cannot tell is not said.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp.data import Data
from snn_bp.data.catalogue import IN_MEMORY
from snn_bp.instruments.findings import Finding
from snn_bp.model.blocks import Path, every_part, module_at, parts_of
from snn_bp.model.joints import every_value
from snn_bp.model.layers import Dropout, Layer
from snn_bp.model.names import path_of
from snn_bp.model.network import Network
from snn_bp.runs.experiment import Train
from snn_bp.runs.interval import wilson_interval

UPDATE_LOW, UPDATE_HIGH = 1e-5, 0.3  # |update| / |weight| of a step: about 1e-3 is usual, healthy runs reach 0.1
# A step at the full rate over the weights that it starts from, in the layer it moves least; 0.7 is healthy.
STEP_HIGH = 10.0
WAY_LOW = 0.03  # such a step times all steps, in the layer it moves most: how far weights can move at all
STEP_USUAL = 0.1
GAP, GAP_OF_FEW = 0.08, 0.2  # training accuracy above the highest that validation allows
FEW = 40  # among so few validation recordings the best epoch is the luckiest
FEWEST = 10  # validation recordings that a gap is taken from
EARLY = 3  # epochs: before, chance level is where training starts


def at_chance(correct: int, samples: int, chance: float) -> bool:
    """Whether an accuracy says no more than always giving one answer."""
    low, high = wilson_interval(correct, samples)
    return low <= chance < 1 and high < (1 + chance) / 2


def best_constant(labels: np.ndarray) -> float:
    """The accuracy of always giving the most frequent label."""
    return float(np.bincount(labels).max()) / len(labels)


def has_learned(rows: Sequence[dict[str, float]], labels: dict[str, np.ndarray]) -> bool:
    """Whether the best epoch is half way from one answer for all to none wrong."""
    split = "validation" if len(labels["validation"]) else "train"
    best = max((row.get(f"{split}_accuracy", 0.0) for row in rows), default=0.0)
    return bool(len(labels[split])) and best >= (1 + best_constant(labels[split])) / 2


def find_learning_rate(network: Network, config: Train, gradients: dict[str, float], *, steps: int) -> list[Finding]:
    """Whether `config.lr` can move the weights that `network` starts from, and not throw them away.

    `gradients` are |dL/dw| of each layer before the first step, which SGD multiplies; Adam's step is about the rate.
    """
    sizes = _steps_over_weights(network, config, gradients)
    if not sizes:
        return []
    change = (f"train.lr={usual_rate(config, sizes):g}",)
    least, most = min(sizes.values()), max(sizes.values())
    if least > STEP_HIGH:
        measure = "size of a step over that of the weights, in the layer it moves least"
        advice = f"A step of train.lr={config.lr:g} throws away what weights were."
        return [Finding("learning rate too high", "train.lr", measure, least, STEP_HIGH, advice, change)]
    if most * steps < WAY_LOW:
        measure = f"size of all {steps} steps over that of the weights, in the layer they move most"
        advice = f"With train.lr={config.lr:g} weights stay where they are."
        return [Finding("learning rate too low", "train.lr", measure, most * steps, WAY_LOW, advice, change)]
    return []


def usual_rate(config: Train, sizes: dict[str, float]) -> float:
    """A rate at which a step is a tenth of the weights in the layer in the middle, to one digit."""
    middle = sorted(sizes.values())[len(sizes) // 2]
    low, high = (1e-4, 1e-2) if config.optimizer != "sgd" else (1e-4, 1.0)
    return float(f"{min(max(config.lr * STEP_USUAL / middle, low), high):.0e}")


def largest_updates(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The largest |update| / |weight| of each layer in the rows of `layers.jsonl`."""
    largest: dict[str, float] = {}
    for row in rows:
        if "update_over_weight" in row:
            largest[row["layer"]] = max(largest.get(row["layer"], 0.0), row["update_over_weight"])
    return largest


def _is_frozen(path: Path, config: Train) -> bool:
    """Whether an experiment asks that a layer stays as it begins."""
    return any(path[: key.count(".") + 1] == tuple(map(int, key.split("."))) for key in map(str, config.freeze))


def diagnose_updates(rows: Sequence[dict[str, Any]], config: Train | None = None) -> list[Finding]:
    """What the rows of `layers.jsonl` say of the updates; each layer by its largest, for schedules end near zero."""
    largest, found = largest_updates(rows), []
    for layer, ratio in largest.items():
        measure = "largest |update| / |weight| of a step"
        if config is not None and ratio == 0 and _is_frozen(path_of(layer), config):
            continue
        if ratio == 0 and any(largest.values()):
            advice = (
                f"Its weights never moved while others did: {module_at(path_of(layer))}.requires_grad_(True), "
                "and see that the optimizer has them, at a rate above 0."
            )
            found.append(Finding("frozen layer", layer, measure, ratio, UPDATE_LOW, advice))
        elif ratio < UPDATE_LOW:
            advice = "Its weights hardly move: raise train.lr, or see whether error reaches it."
            found.append(Finding("update too small", layer, measure, ratio, UPDATE_LOW, advice))
        if ratio > UPDATE_HIGH:
            advice = "One step rewrites its weights: lower train.lr tenfold, or lengthen train.warmup."
            changes = () if config is None else (f"train.lr={config.lr / 10:.1g}",)
            found.append(Finding("update too large", layer, measure, ratio, UPDATE_HIGH, advice, changes))
    return found


def find_chance_level(
    rows: Sequence[dict[str, float]], labels: dict[str, np.ndarray], *, finished: bool, causes: bool,
    counts: dict[str, int] | None = None, data: Data | None = None,
) -> list[Finding]:  # fmt: skip
    """Whether the best epoch answers no better than one answer for all; `causes` stand in other findings.

    `data` may have augmentations. `counts`: how many recordings there are, where they have several labels each, which
    are not independent.
    """
    if not rows or (len(rows) < EARLY and not finished):
        return []
    split = "validation" if len(labels["validation"]) else "train"
    accuracies = [row[f"{split}_accuracy"] for row in rows if f"{split}_accuracy" in row]
    counts = counts or {name: len(each) for name, each in labels.items()}
    count = counts[split]
    if not accuracies or not len(labels[split]):
        return []
    best, chance = max(accuracies), best_constant(labels[split])
    if not at_chance(round(best * count), count, chance):
        return []
    learned = rows[-1]["train_accuracy"]
    samples = counts["train"]
    if causes:
        advice = "It has learned nothing: fix the other findings, each may be the cause."
    elif split == "train" or at_chance(round(learned * samples), samples, best_constant(labels["train"])):
        advice = "It has learned nothing: train longer, at another train.lr, and see that frames differ by class."
    else:
        advice = f"It learned its training recordings ({learned:.2f}), nothing that holds for others: see the labels"
        advice += ", and whether data.augment leaves of a recording what it is." if data and data.augment else "."
    return [Finding("chance level", f"the {split} split", "accuracy of the best epoch", best, chance, advice)]


def find_overfitting(
    rows: Sequence[dict[str, float]], labels: dict[str, np.ndarray], data: Data, model: tuple[Layer, ...], *,
    counts: dict[str, int] | None = None,
) -> list[Finding]:  # fmt: skip
    """Whether training recordings are known by heart while validation lags by more than its few recordings explain."""
    seen = [row for row in rows if "validation_accuracy" in row]
    counts = counts or {name: len(each) for name, each in labels.items()}
    count = counts["validation"]
    if not seen or count < FEWEST:
        return []
    learned, best = seen[-1]["train_accuracy"], max(row["validation_accuracy"] for row in seen)
    _, high = wilson_interval(round(best * count), count)
    gap = GAP if count >= FEW else GAP_OF_FEW
    if learned - high <= gap:
        return []
    measure = f"training accuracy is {learned:.3f}, that of the best epoch in validation"
    advice, changes = _against_overfitting(data, model, counts["train"])
    return [Finding("overfitting", "the validation split", measure, best, learned - gap, advice, changes)]


def _against_overfitting(data: Data, model: tuple[Layer, ...], samples: int) -> tuple[str, tuple[str, ...]]:
    """More recordings where there are some, else moved ones, else augmented ones, else dropout: what is not there."""
    if data.validation_fraction > 0.3:
        advice = f"{samples} recordings are too few for the network: leave fewer to validation."
        return advice, ("data.validation_fraction=0.1",)
    sensor = data.info.sensor
    reach = max(1, (140 if sensor is None else sensor[0]) // 12)
    has_files = data.has_events and data.name != IN_MEMORY  # what is handed in may be frames
    if has_files and data.translate_px < reach and not data.transforms:
        advice = f"It knows its {samples} recordings by heart: take more, or move them anew in each epoch."
        return advice, (f"data.translate_px={reach}",) + (
            ("data.rotate_deg=10",) if sensor is not None and not data.rotate_deg else ()
        )
    if has_files and not data.augment and not data.transforms:
        advice = f"It knows its {samples} recordings by heart: take more, or drop other events of them in each epoch."
        return advice, ("data.augment=EventDrop(0.3)",)
    if not any(isinstance(layer, Dropout) for layer in every_value(model)):
        return f"It knows its {samples} recordings by heart: take more, or put Dropout(0.3) in front of its Dense.", ()
    return f"It knows its {samples} recordings by heart: take more, or a smaller network.", ()


def _steps_over_weights(network: Network, config: Train, gradients: dict[str, float]) -> dict[str, float]:
    """For each layer with synapses, the size of a step at the full rate over that of its weights."""
    total = math.sqrt(sum(size * size for size in gradients.values()))
    clipped = min(1.0, (config.clip or math.inf) / total) if total > 0 else 1.0
    found = {}
    for part in every_part(parts_of(network)):
        if part.role != "weights":
            continue
        weight: Tensor = part.layer.weight.detach()  # type: ignore[operator]
        size = float(torch.linalg.vector_norm(weight))
        name = network.name(part.path)
        if config.optimizer == "sgd":
            step = config.lr * clipped * gradients.get(name, 0.0) / max(1 - config.momentum, 1e-3)
        else:
            step = config.lr * math.sqrt(weight.numel())
        if size > 0 and step > 0:
            found[name] = step / size
    return found
