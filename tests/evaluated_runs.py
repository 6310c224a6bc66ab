"""What `tests/test_evaluated_together.py` has torchrun train, and what one process then finds in those runs.

    torchrun --nproc-per-node 2 tests/evaluated_runs.py train FOLDER NAME ...
    python tests/evaluated_runs.py compare FOLDER NAME ...

The second raises unless every figure and file of an evaluation is that of one process, bit for bit.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distributed_runs import Ageing

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    CountCrossEntropy,
    Dataset,
    Dense,
    Dropout,
    Experiment,
    Flatten,
    MeanSquaredPotential,
    MembraneCrossEntropy,
    Module,
    Recurrent,
    Run,
    Train,
    train,
)
from snn_bp.runs.answers import FOLDER
from snn_bp.runs.evaluation import evaluate_and_keep, evaluate_network

STEPS, BATCH = 6, 8
LEAKY = LIF(beta=0.8)


@dataclass(frozen=True)
class Spread:
    """A metric of one's own, of all recordings together: how far the mean scores of classes lie apart."""

    name = "spread"
    higher_is_better = True

    def __call__(self, scores, targets, mask=None):
        present = 1.0 if mask is None else float(mask.float().mean())
        return float(scores.double().flatten(1).std(0).sum()) + present


class Noise(torch.nn.Module):
    """Draws random numbers in evaluation too."""

    def forward(self, x):
        return x + torch.rand_like(x)


class Alternating(torch.nn.Module):
    """Keeps a count of the batches that it has evaluated, by which its answers change."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if not self.training:
            self.seen += 1
        return x * (1 + self.seen % 3)


def model(*middle: Any, outputs: int = 3, last: Any = LEAKY) -> tuple[Any, ...]:
    return Flatten(), Dense(12, bias=False), BatchNorm(), LEAKY, *middle, Dense(outputs), last


CHIP = (Flatten(), Dense(12), LIF(beta=0.8, reset="zero"), Dense(3), LIF(beta=0.8, reset="zero"))


CASES: dict[str, tuple[str, bool, int, Any, Train]] = {  # targets, lengths that differ, recordings, model, options
    "plain": ("class", False, 120, model(Dropout(0.3)), Train(average=0.9)),  # 5 batches, the last short
    "masked": ("class", True, 120, model(Recurrent(LEAKY)), Train(metric=Spread(), loss=MembraneCrossEntropy())),
    "values": ("vector", False, 120, model(outputs=2, last=LI(beta=0.8)),
               Train(metric=Spread(), loss=MeanSquaredPotential())),
    "steps": ("class per step", True, 120, model(), Train(loss=CountCrossEntropy(class_weights=(1.0, 2.0, 0.5)))),
    "small": ("class", False, 21, model(), Train(test="never")),  # less than a batch of validation
    "chip": ("class", False, 120, CHIP, Train(target="loihi")),
    "draws": ("class", False, 120, model(Module(Noise)), Train()),
    "keeps": ("class", False, 120, model(Module(Alternating)), Train()),
    "ages": ("class", False, 120, model(Module(Ageing, 12, 12)), Train()),
}  # fmt: skip


def dataset_of(name: str) -> Dataset:
    """Recordings whose targets can be told from where spikes are many."""
    kind, masked, count, *_ = CASES[name]
    draw = np.random.default_rng(0)
    classes = np.arange(count) % 3
    chances = np.full((count, STEPS, 1, 4, 6), 0.15)
    chances[np.arange(count), :, :, :, classes * 2] = 0.6
    spikes = (draw.random(chances.shape) < chances).astype(np.uint8)
    values: Any = classes
    if kind == "vector":
        values = draw.random((count, 2)).astype(np.float32)
    elif kind == "class per step":
        values = draw.integers(-1, 3, (count, STEPS))
    lengths = draw.choice([3, STEPS - 1, STEPS], count) if masked else None
    cut = count - count // 4
    parts = [
        (spikes[of], values[of], *([] if lengths is None else [lengths[of]])) for of in (slice(cut), slice(cut, None))
    ]
    return Dataset.of(
        train=parts[0], test=parts[1], targets=kind, step_ms=1, batch=BATCH, validation_fraction=0.4, split_seed=3
    )


def experiment_of(name: str, dataset: Dataset) -> Experiment:
    *_, layers, options = CASES[name]
    return Experiment(dataset.data, layers, replace(options, epochs=2), seed=1)


def compare(folder: Path) -> None:
    """Raise unless one process evaluates the run to the bits that stand in it."""
    run, dataset = Run(folder), dataset_of(folder.name)
    run.hold(dataset)
    options, results = run.experiment.train, run.results()
    assert results is not None
    network = run.network("best")
    for split in ("validation", "test"):
        if options.test == "never" and split == "test":
            assert "test" not in results and not (folder / FOLDER / "test.csv").exists()
            continue
        found, kept = evaluate_and_keep(network, dataset, split, options.loss, metric=options.metric)
        assert json.loads(json.dumps(found.record())) == results[split], split
        assert kept is not None
        (folder / "again").mkdir(exist_ok=True)
        kept.write(folder / "again", split)
        for end in ("csv", "safetensors"):
            mine, theirs = (of / FOLDER / f"{split}.{end}" for of in (folder / "again", folder))
            assert mine.read_bytes() == theirs.read_bytes(), mine
    if folder.name in ("keeps", "ages"):  # what it kept before the last epoch is not in its checkpoint
        return
    row = run.metrics()[-1]
    seen = evaluate_network(run.network("last"), dataset, "validation", options.loss, metric=options.metric)
    assert row["validation_loss"] == seen.loss
    assert row[f"validation_{seen.metric}"] == seen.value


def main(what: str, folder: Path, names: list[str]) -> None:
    """Train each of the runs that are named into the folder, or compare them."""
    for name in names:
        if what == "compare":
            compare(folder / name)
        else:
            dataset = dataset_of(name)
            train(experiment_of(name, dataset), folder / name, dataset=dataset, quiet=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
