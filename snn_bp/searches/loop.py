"""`search`: spend a budget of sample evaluations by one method, and keep what validation found best."""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from snn_bp.data import Dataset, load
from snn_bp.errors import SnnError, as_path, check_choice, check_flag, check_kind, check_number
from snn_bp.errors.calls import checked_call
from snn_bp.files import is_there, write_object
from snn_bp.model.network import Network
from snn_bp.model.start import start_alive
from snn_bp.runs.evaluation import Evaluation, evaluate_network
from snn_bp.runs.experiment import Experiment, Train, content_of, is_same
from snn_bp.runs.folder import SEARCH_FILE, Run
from snn_bp.runs.provenance import peak_memory_mb
from snn_bp.runtime.gpu import seed_torch
from snn_bp.runtime.processes import check_alone
from snn_bp.runtime.signals import Stopped, noted_signals
from snn_bp.runtime.status import Bar, announced, clock, drawing, say
from snn_bp.searches.memory import check_memory
from snn_bp.searches.methods import FEWEST, METHODS
from snn_bp.searches.objective import Kind, Objective, name_of, objective_of
from snn_bp.searches.population import norms_of
from snn_bp.searches.record import Row, Search
from snn_bp.searches.saving import Position, position_of, read_asked, save, save_row
from snn_bp.searches.searchers import Backpropagation, Population
from snn_bp.trainer.feasibility import check_soft_targets, check_trainable
from snn_bp.trainer.loop import SAVE_SECONDS
from snn_bp.trainer.memory import PROBED
from snn_bp.trainer.optimizer import make_device

MethodName: TypeAlias = Literal["ga", "pso", "es", "bptt"]
ROWS = 40  # rows of the curve, the budget growing by the same factor from one to the next
MEASURED = 256  # training recordings on which a row's training loss is taken


@checked_call
def search(
    experiment: Experiment, *, method: MethodName, budget: int, seed: int | None = None,
    objective: Kind | Objective = "loss", spike_penalty: float = 1e-4, population: int | None = None,
    out: Path | str | None = None, command: str = "snn_bp.searches", quiet: bool = False,
    numbered: bool = False, save_seconds: float = SAVE_SECONDS,
) -> Search:  # fmt: skip
    """Search for the weights of the experiment's network within `budget` sample evaluations.

    One forward of one sample costs 1 and its backward 2 more, so a step of "bptt" on a batch of B costs 3 B and a
    generation of P points P B. All start from the network that training starts from, and generation g of each sees the
    same mini-batch of `data.batch` recordings, drawn and shifted by (seed, g) alone. Dropout is off and norms take the
    statistics of the mini-batch while points are valued; before each validation the norms of the answer take over those
    of up to 64 training recordings, at that cost.

    Parameters:
        experiment: data, model, loss and seed.
        method: "ga", "pso" or "es" (`methods.py` describes them), or "bptt": the experiment's optimizer, learning rate
            and schedule, run over the budget.
        budget: sample evaluations in all.
        seed (None): replaces the experiment's.
        objective ("loss"): what is minimised: "loss" (the training loss), "accuracy" or "spikes" (the fraction of wrong
            predictions, and `spike_penalty` for each spike of an inference), or a callable on (network, inputs,
            targets), under no gradient, so it may count, round or replay in integers. "bptt" follows the training loss
            whatever the objective, which then only chooses among its rows.
        spike_penalty (1e-4): of objective "spikes", per spike.
        population (None): points of a generation; None: 50 of "ga", 40 of "pso", 4 + 3 log(weights) of "es".
        out (None): the new run folder that keeps it; where that holds the same search, stopped or killed, it goes on
            exactly. Of a callable only the name is kept.
        command ("snn_bp.searches"), quiet (False), numbered (False), save_seconds (20.0): as in `train`.

    Validation chooses: the weights of the row with the lowest objective on the validation split. The test split is
    evaluated once, in the end.

    >>> small = Experiment(Data(Lab(), batch=8), (Flatten(), Dense(2), LIF(beta=0.9)))  # the source of `Data`
    >>> found = search(small, method="es", budget=400, quiet=True)
    >>> found.curve[-1].sample_evaluations
    320
    """
    check_alone("search")
    check_kind("search: the experiment", experiment, Experiment, "As in Experiment(data=..., model=..., train=...).")
    check_choice("search: method", method, (*METHODS, "bptt"))
    for name, flag in (("quiet", quiet), ("numbered", numbered)):
        check_flag(f"search: {name}", flag)
    if out is not None:
        out = as_path("search: the folder", out)
    check_number("search: save_seconds", save_seconds, low=0)
    check_number("search: budget", budget, integer=True, low=1)
    if population is not None:
        check_number("search: population", population, integer=True, low=FEWEST)
    function = objective_of(objective, experiment.train, spike_penalty=spike_penalty)
    experiment = experiment if seed is None else replace(experiment, seed=seed)
    asked = {"method": method, "budget": budget, "objective": name_of(function), "own": callable(objective)}
    asked |= {"spike_penalty": spike_penalty, "population": population}
    before = None
    names = (SEARCH_FILE, "experiment.json")
    if out is not None and not numbered and all(is_there(Path(out) / name) for name in names):
        before = Run(out)
    if before is not None and before.results() is None:
        if read_asked(before) != asked or not is_same(before.experiment, experiment):
            raise SnnError(
                f"{out}: another search is here already, as {SEARCH_FILE} and experiment.json say. Name another --out."
            )
    elif out is not None:
        Run.check_free(out, numbered=numbered)
    if only := experiment.train.beyond_steps:
        raise SnnError(f"search: train.{only[0]} is for `train`, a search has no epochs. Leave it as it is by default.")
    with announced(not quiet):
        dataset = load(experiment.data, quiet=quiet)
        check_trainable(experiment, dataset, partial(check_memory, method=method, population=population))
    if callable(objective) and method != "bptt":  # which values labels only
        check_soft_targets(function, experiment.data)
    if dataset.targets.kind != "class" or any(
        dataset.mask(split, ids[:1]) is not None for split, ids in dataset.ids.items()
    ):
        raise SnnError(
            f"search: it knows classes of recordings of one length, {experiment.data.name} has targets of the kind "
            f"{dataset.targets.kind!r} or recordings that differ in length. `snn-bp train` learns those."
        )
    with announced(not quiet), torch.random.fork_rng(devices=[]):
        task = _Task.of(experiment, dataset, method, budget, function, population, quiet)
        if out is None:
            return _spend(task, None, Position(), save_seconds)
        if before is not None and before.results() is None:
            with before.locked():
                return _keep(task, before, quiet, save_seconds)
        content_of(experiment)  # what cannot be written is refused before a folder stands
        with Run.claim(out, numbered=numbered) as path:
            write_object(path / SEARCH_FILE, asked)
            run = Run.create(experiment, path, command=command, changes=())
            return _keep(task, run, quiet, save_seconds)


def resume_search(run: Run, *, quiet: bool = False) -> Search:
    """Go on with a search that was stopped or killed, exactly as if it had not been."""
    check_alone("search")
    asked = read_asked(run)
    if asked.pop("own"):
        raise SnnError(
            f"{run.path}: its objective is the function {asked['objective']!r} of your own program. Call that again "
            f"with out={str(run.path)!r}: it goes on."
        )
    return search(run.experiment, out=run.path, quiet=quiet, **asked)


def _keep(task: "_Task", run: Run, quiet: bool, save_seconds: float) -> Search:
    """Search within a run folder, from where it stands."""
    run.hold(task.dataset)
    run.check_data(task.dataset)
    at = position_of(run, task.network, task.searcher)
    if not at.generation:
        save(run, at, task.network, task.searcher)
        run.begin_tables()  # behind a checkpoint: where there are tables and no checkpoint, it was taken away
    elif not quiet:
        say(f"resumed behind {at.spent:,} evaluations")
    found = _spend(task, run, at, save_seconds)
    found.finish(run, notes=task.dataset.notes)
    if found.test is not None and not quiet:
        say(f"test accuracy {found.test.accuracy:.4f}; run folder {run.path}")
    return found


class Clock:
    """Seconds, of the wall and of the processor, between `start` and `stop`, added up."""

    def __init__(self, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self.seconds, self.cpu_seconds = seconds, cpu_seconds

    def start(self) -> None:
        """Begin to count."""
        self.began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Add what has passed."""
        self.seconds += time.perf_counter() - self.began[0]
        self.cpu_seconds += time.process_time() - self.began[1]


@dataclass
class _Task:
    """What a search works on."""

    experiment: Experiment
    dataset: Dataset
    name: str
    budget: int
    objective: Objective
    quiet: bool
    batch: int
    probe: Tensor
    network: Network
    searcher: Population | Backpropagation
    points: int  # in the first generation
    refresh: int  # what the statistics of norms cost ahead of each row
    minimum: int  # what one generation and its row cost

    @classmethod
    def of(
        cls, experiment: Experiment, dataset: Dataset, name: str, budget: int, objective: Objective,
        population: int | None, quiet: bool,
    ) -> "_Task":  # fmt: skip
        """The network at its start, and what searches; raises where the budget is too small."""
        config, seed, ids = experiment.train, experiment.seed, dataset.ids["train"]
        device, batch = make_device(config), min(experiment.data.batch, len(ids))
        probe = dataset.batch("train", dataset.spread("train", min(batch, PROBED)))[0].to(device)
        network = experiment.network(dataset.shape).to(device)
        start_alive(network, probe)
        if name == "bptt":
            batches = math.ceil(len(ids) / batch)
            searcher = Backpropagation(network, config, steps=max(1, budget // (3 * batch)), batches=batches)
            refresh, points = 0, 1
        else:
            size = sum(weight.numel() for weight in network.parameters())
            method = METHODS[name](size, torch.Generator().manual_seed(seed), population=population)
            searcher, points = Population(network, method, objective), method.count
            refresh = probe.shape[1] if norms_of(network) else 0
        minimum = searcher.cost * batch + refresh
        if budget < minimum:
            raise SnnError(
                f"search: budget={budget} is less than one {'step' if name == 'bptt' else 'generation'} of {name} "
                f"costs here, {searcher.cost} sample evaluations for each of {batch} samples. The least that works is "
                f"{minimum}."
            )
        return cls(
            experiment, dataset, name, budget, objective, quiet, batch, probe, network, searcher, points, refresh,
            minimum,
        )  # fmt: skip

    @property
    def next_cost(self) -> int:
        """What a generation and a row behind it cost."""
        return self.searcher.cost * self.batch + self.refresh


def _spend(task: _Task, run: Run | None, at: Position, save_seconds: float) -> Search:
    """Spend the rest of the budget."""
    network, dataset, searcher, config = task.network, task.dataset, task.searcher, task.experiment.train
    device, ids, rows = task.probe.device, dataset.ids["train"], at.rows
    marks = list(np.geomspace(task.minimum, task.budget, ROWS))
    if rows:
        marks = [mark for mark in marks if mark > rows[-1].sample_evaluations] or [math.inf]
    clock, saved = Clock(at.seconds, at.cpu_seconds), time.monotonic()
    over = bool(rows) and rows[-1].generation == at.generation and at.spent + task.next_cost > task.budget
    began, entered = time.monotonic(), at.spent
    with noted_signals() if run else nullcontext([]) as stop, drawing() as bar:
        while not over:
            if bar is not None and bar.is_due():
                bar.draw(_bar(at, task.budget, rate=(at.spent - entered) / max(1e-9, time.monotonic() - began)))
            clock.start()
            drawn = np.random.default_rng((task.experiment.seed, at.generation))
            chosen, moved = drawn.choice(ids, task.batch, replace=False), int(drawn.integers(2**31))
            x, targets = (part.to(device) for part in dataset.batch("train", chosen, seed=moved))
            seed_torch(moved)
            at.spent += searcher.cost * task.batch
            searcher.step(x, targets)
            clock.stop()
            at.generation += 1
            over = at.spent + task.refresh + task.next_cost > task.budget
            row = over or at.spent >= marks[0]
            if row:
                clock.start()
                searcher.answer(task.probe)
                clock.stop()
                at.spent += task.refresh
                _measure(task, at, clock)
                marks = [mark for mark in marks if mark > at.spent] or [math.inf]
            at.seconds, at.cpu_seconds = clock.seconds, clock.cpu_seconds
            if run is not None and (row or stop or time.monotonic() - saved > save_seconds):
                if row:
                    save_row(run, at)
                save(run, at, network, searcher)
                saved = time.monotonic()
            if row and not task.quiet:
                say(_line(rows[-1]), is_row=True)
            if run is not None and stop and not over:
                raise Stopped(run.path, stop[0])
    network.load_state_dict(at.weights)
    found = {split: _evaluated(network, dataset, split, config) for split in ("validation", "test")}
    weights = {key: part.cpu() for key, part in at.weights.items()}
    return Search(
        task.experiment, task.name, name_of(task.objective), task.budget, task.points, weights, tuple(rows), at.best,
        tuple(dataset.shape), **found,
    )  # fmt: skip


def _measure(task: _Task, at: Position, clock: Clock) -> None:
    """Add the row of the answer that stands in the network, and keep its weights where it is the best."""
    network, rows = task.network, at.rows
    memory = peak_memory_mb(task.probe.device)
    figures = _figures(network, task.dataset, task.experiment.train, task.objective)
    lowest = min(figures["value"], rows[-1].best_value if rows else math.inf)
    rows.append(Row(at.generation, at.spent, clock.seconds, clock.cpu_seconds, memory, best_value=lowest, **figures))
    if figures["value"] <= lowest:  # the later of equal ones, as in training
        at.best, at.weights = len(rows) - 1, {key: part.detach().clone() for key, part in network.state_dict().items()}


def _figures(network: Network, dataset: Dataset, config: Train, objective: Objective) -> dict:
    """What a row says of the network as it is: value, best left out, and losses and accuracies."""
    some = replace(dataset, ids=dataset.ids | {"train": dataset.spread("train", MEASURED)})
    train, validation = (_evaluated(network, some, split, config) for split in ("train", "validation"))
    assert train is not None
    return {
        "value": _value(network, some, "validation" if validation else "train", objective),
        "train_loss": train.loss,
        "train_accuracy": train.accuracy,
        "validation_loss": validation.loss if validation else None,
        "validation_accuracy": validation.accuracy if validation else None,
    }


def _evaluated(network: Network, dataset: Dataset, split: str, config: Train) -> Evaluation | None:
    """Losses and accuracy on a split; None where it is empty."""
    if not len(dataset.ids[split]):
        return None
    return evaluate_network(network, dataset, split, config.loss, counts=split == "test")


@torch.no_grad()
def _value(network: Network, dataset: Dataset, split: str, objective: Objective) -> float:
    """The objective on a split, the mean over its recordings, in evaluation mode."""
    network.eval()
    device, total = next(network.parameters()).device, 0.0
    for ids in dataset.batches(split):
        x, targets = (part.to(device) for part in dataset.batch(split, ids))
        total += float(objective(network, x, targets)) * len(ids)
    return total / len(dataset.ids[split]) if math.isfinite(total) else math.inf


def _bar(at: Position, budget: int, *, rate: float) -> Bar:
    """Where a search stands that spends so many evaluations a second."""
    best = (f"best {at.rows[at.best].value:.4f}",) if at.rows else ()
    figures = (*best, *((f"{rate:.0f}/s", f"ETA {clock((budget - at.spent) / rate)}") if rate else ()))
    return Bar(f"{at.spent:,}/{budget:,} evaluations", at.spent / budget, figures, (f"generation {at.generation}",))


def _line(row: Row) -> str:
    validation = "" if row.validation_accuracy is None else f"  validation {row.validation_accuracy:.3f}"
    return (
        f"{row.sample_evaluations:12,} evaluations  value {row.value:.4f}  best {row.best_value:.4f}  "
        f"accuracy {row.train_accuracy:.3f}{validation}  {row.seconds:.1f} s"
    )
