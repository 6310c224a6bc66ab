"""`search`: spend a budget of sample evaluations by one method, and keep what validation found best."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from snn_bp.data import Dataset, load
from snn_bp.errors import SnnError, check_choice, check_number
from snn_bp.evaluate import Evaluation, evaluate_network
from snn_bp.experiment import Experiment, Train
from snn_bp.network import Network, start_alive
from snn_bp.provenance import peak_memory_mb
from snn_bp.run import Run
from snn_bp.search.methods import METHODS
from snn_bp.search.objective import Kind, Objective, name_of, objective_of
from snn_bp.search.population import norms_of
from snn_bp.search.record import Row, Search
from snn_bp.search.searchers import Backpropagation, Population
from snn_bp.train import check_fit, make_device

MethodName: TypeAlias = Literal["ga", "pso", "es", "bptt"]
ROWS = 40  # of the curve, the budget growing by the same factor from one to the next
MEASURED = 256  # training recordings on which a row's training loss is taken


def search(
    experiment: Experiment, *, method: MethodName, budget: int, seed: int | None = None,
    objective: Kind | Objective = "loss", price: float = 1e-4, population: int | None = None,
    out: Path | str | None = None, command: str = "snn_bp.search", quiet: bool = False,
    numbered: bool = False,
) -> Search:  # fmt: skip
    """Search for the weights of the experiment's network within `budget` sample evaluations.

    One forward of one sample costs 1 and its backward 2 more, so a step of "bptt" on a batch of B costs 3 B and a
    generation of P points P B. "ga", "pso" and "es" are described in `methods.py`; "bptt" is the experiment's
    optimizer, learning rate and schedule, run over the budget. All start from the network that training starts from,
    and generation g of each sees the same mini-batch of `data.batch` recordings, drawn and shifted by (seed, g) alone.

    `objective` is "loss" (the training loss), "accuracy", "spikes" (the share of wrong votes, and `price` for each
    spike of an inference), or a callable on (network, inputs, targets) whose value is minimised: under no gradient, so
    it may count, round or replay in integers. "bptt" follows the training loss whatever the objective, which then only
    chooses among its rows. Dropout is off and norms take the statistics of the mini-batch while points are valued;
    before each validation the norms of the answer take over those of up to 64 training recordings, at that cost.

    Validation chooses: the weights of the row with the lowest objective on the validation split. The test split is
    evaluated once, in the end. `seed` replaces the experiment's. The result is written to the new run folder `out`
    when the search is over; a search that is interrupted leaves nothing.
    """
    check_choice("search: method", method, (*METHODS, "bptt"))
    check_number("search: budget", budget, whole=True, low=1)
    if population is not None:
        check_number("search: population", population, whole=True, low=5)
    aim = objective_of(objective, experiment.train, price=price)
    if out is not None and not numbered:
        Run.check_free(out)
    experiment = experiment if seed is None else replace(experiment, seed=seed)
    dataset = load(experiment.data, quiet=quiet)
    check_fit(experiment, dataset)
    with torch.random.fork_rng(devices=[]):
        found = _spend(experiment, dataset, method, budget, aim, population, quiet)
    if out is not None:
        with Run.claim(out, numbered=numbered) as path:
            found.write(path, command=command, notes=dataset.notes)
        if found.test is not None and not quiet:
            print(f"test accuracy {found.test.accuracy:.4f}; run folder {path}")
    return found


class Clock:
    """Seconds, of the wall and of the processor, between `start` and `stop`, added up."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    def start(self) -> None:
        """Begin to count."""
        self.began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Add what has passed."""
        self.seconds += time.perf_counter() - self.began[0]
        self.cpu_seconds += time.process_time() - self.began[1]


def _spend(
    experiment: Experiment, dataset: Dataset, name: str, budget: int, aim: Objective, population: int | None,
    quiet: bool,
) -> Search:  # fmt: skip
    how, seed, ids = experiment.train, experiment.seed, dataset.ids["train"]
    device, batch = make_device(how), min(experiment.data.batch, len(ids))
    probe = dataset.batch("train", _spaced(ids, min(batch, 64)))[0].to(device)
    network = experiment.network(dataset.shape).to(device)
    start_alive(network, probe)
    if name == "bptt":
        batches = math.ceil(len(ids) / batch)
        searcher = Backpropagation(network, how, steps=max(1, budget // (3 * batch)), batches=batches)
        refresh, points = 0, 1
    else:
        size = sum(weight.numel() for weight in network.parameters())
        method = METHODS[name](size, torch.Generator().manual_seed(seed), population=population)
        searcher, points = Population(network, method, aim), method.count
        refresh = probe.shape[1] if norms_of(network) else 0
    least = searcher.cost * batch + refresh
    if budget < least:
        raise SnnError(
            f"search: budget={budget} is less than one {'step' if name == 'bptt' else 'generation'} of {name} costs "
            f"here, {searcher.cost} sample evaluations for each of {batch} samples. The least that works is {least}."
        )
    marks = list(np.geomspace(least, budget, ROWS))
    rows: list[Row] = []
    weights: dict[str, Tensor] = {}
    spent = generation = best = 0
    clock, over = Clock(), False
    while not over:
        clock.start()
        drawn = np.random.default_rng((seed, generation))
        chosen, moved = drawn.choice(ids, batch, replace=False), int(drawn.integers(2**31))
        x, targets = (part.to(device) for part in dataset.batch("train", chosen, seed=moved))
        torch.manual_seed(moved)
        spent += searcher.cost * batch
        searcher.step(x, targets)
        clock.stop()
        generation += 1
        over = spent + refresh + searcher.cost * batch + refresh > budget
        if not over and spent < marks[0]:
            continue
        clock.start()
        searcher.answer(probe)
        clock.stop()
        spent += refresh
        memory, figures = peak_memory_mb(device), _figures(network, dataset, how, aim)
        lowest = min(figures["value"], rows[-1].best_value if rows else math.inf)
        rows.append(Row(generation, spent, clock.seconds, clock.cpu_seconds, memory, best_value=lowest, **figures))
        if figures["value"] <= lowest:  # of equal ones the later, as in training
            best, weights = len(rows) - 1, {key: part.detach().clone() for key, part in network.state_dict().items()}
        if not quiet:
            print(_line(rows[-1]), flush=True)
        marks = [mark for mark in marks if mark > spent] or [math.inf]
    network.load_state_dict(weights)
    found = {split: _evaluated(network, dataset, split, how) for split in ("validation", "test")}
    weights = {key: part.cpu() for key, part in weights.items()}
    return Search(
        experiment, name, name_of(aim), budget, points, weights, tuple(rows), best, tuple(dataset.shape), **found
    )


def _figures(network: Network, dataset: Dataset, how: Train, aim: Objective) -> dict:
    """What a row says of the network as it is: value, best left out, and losses and accuracies."""
    some = replace(dataset, ids=dataset.ids | {"train": _spaced(dataset.ids["train"], MEASURED)})
    train, validation = (_evaluated(network, some, split, how) for split in ("train", "validation"))
    assert train is not None
    return {
        "value": _value(network, some, "validation" if validation else "train", aim),
        "train_loss": train.loss,
        "train_accuracy": train.accuracy,
        "validation_loss": validation.loss if validation else None,
        "validation_accuracy": validation.accuracy if validation else None,
    }


def _evaluated(network: Network, dataset: Dataset, split: str, how: Train) -> Evaluation | None:
    """Losses and accuracy on a split; None where it is empty."""
    if not len(dataset.ids[split]):
        return None
    return evaluate_network(network, dataset, split, how.loss, counts=split == "test")


@torch.no_grad()
def _value(network: Network, dataset: Dataset, split: str, aim: Objective) -> float:
    """The objective on a split, the mean over its recordings, in evaluation mode."""
    network.eval()
    device, total = next(network.parameters()).device, 0.0
    for ids in dataset.batches(split):
        x, targets = (part.to(device) for part in dataset.batch(split, ids))
        total += float(aim(network, x, targets)) * len(ids)
    return total / len(dataset.ids[split]) if math.isfinite(total) else math.inf


def _spaced(ids: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` of the ids, spread over all."""
    return ids[np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(int)]


def _line(row: Row) -> str:
    validation = "" if row.validation_accuracy is None else f"  validation {row.validation_accuracy:.3f}"
    return (
        f"{row.sample_evaluations:12,} evaluations  value {row.value:.4f}  best {row.best_value:.4f}  "
        f"accuracy {row.train_accuracy:.3f}{validation}  {row.seconds:.1f} s"
    )
