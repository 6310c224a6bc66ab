"""Ten faults planted in whole training runs: is each named, does what is said mend it, is health left alone?

A fault is an experiment with changes, recordings that were tampered with, or a network that was. The run is examined,
and the experiment before its first step. What mends it is the change that the finding holds; where the words ask for
something that no override can do (other labels, other files, `requires_grad_`), it is done by hand: `by_hand`.
"""

import contextlib
import runpy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from snn_bp import LIF, BatchNorm, Data, Dense, Experiment, Flatten, Network, Run, Train
from snn_bp.data import Dataset, load
from snn_bp.data.store import CachedEvents
from snn_bp.instruments import Report, diagnose, doctor
from snn_bp.runs import folder as run_folder
from snn_bp.runs.changes import override
from snn_bp.trainer import loop

HEALTHY = Experiment(
    data=Data("digits", step_ms=52, steps=6, downsample=2, batch=32),
    model=(
        *(Flatten(), Dense(64), BatchNorm(), LIF(beta=0.5, reset="zero")),
        *(Dense(10), BatchNorm(), LIF(beta=0.8, reset="zero")),
    ),
    train=Train(epochs=6, lr=4e-3, keep="last"),
)
Loader = Callable[..., Dataset]


@dataclass(frozen=True)
class Fault:
    """What is planted, and what has to be said."""

    kind: str
    changes: tuple[str, ...] = ()
    loader: Callable[[Dataset], Dataset] | None = None
    network: Callable[[Network], None] | None = None
    by_hand: bool = False  # the remedy takes the tampering away; else it is the finding's own changes
    mended: str = "accuracy"  # what shows that it is mended: a higher accuracy, or that nothing is found any more
    before: bool = True  # whether the experiment shows it before its first step


def permuted(dataset: Dataset) -> Dataset:
    """Labels of the training part in another order."""
    return _relabelled(dataset, lambda labels: np.random.default_rng(0).permutation(labels))


def one_class(dataset: Dataset) -> Dataset:
    """Every label the same."""
    return _relabelled(dataset, lambda labels: np.full_like(labels, 3))


def late(dataset: Dataset) -> Dataset:
    """A clock that starts at 400 ms: no event lies in the window."""
    parts = {
        name: replace(part, folder=None, events=replace(part.events, t=np.asarray(part.events.t) + 400_000))
        for name in dataset.parts
        if isinstance(part := dataset.parts[name], CachedEvents)
    }
    return replace(dataset, parts=parts)


def few(dataset: Dataset) -> Dataset:
    """500 recordings to train and to validate on, of all writers, in the shares that are asked for."""
    share = dataset.data.validation_fraction
    counts = {"train": round(500 * (1 - share)), "validation": round(500 * share), "test": 360}
    ids = {
        split: ids[np.linspace(0, len(ids) - 1, min(len(ids), counts[split])).astype(int)]
        for split, ids in dataset.ids.items()
    }
    return replace(dataset, ids=ids)


def shared(dataset: Dataset) -> Dataset:
    """The test part is the training part."""
    part = replace(dataset.parts["train"], folder=None)
    ids = {**dataset.ids, "test": dataset.ids["train"][:360]}
    return replace(dataset, parts={**dataset.parts, "test": part}, ids=ids)


def frozen(network: Network) -> None:
    """The first layer's weights ask for no gradient."""
    network.layers[1].requires_grad_(False)


RUNS: dict[str, Fault] = {
    "window too short": Fault("window too short", ("data.step_ms=1", "data.steps=4")),
    "labels permuted": Fault("unrelated labels", loader=permuted, by_hand=True),
    "learning rate 10": Fault("learning rate too high", ("train.lr=10",)),
    "threshold 500": Fault("silent", ("model.3.threshold=500",)),
    "frozen layer": Fault("frozen layer", network=frozen, by_hand=True),
    "one class": Fault("one class", loader=one_class, by_hand=True, mended="nothing found"),
    "all-zero input": Fault("no input", loader=late),
    "overfitting on 50": Fault(
        "overfitting", ("data.validation_fraction=0.9", "train.epochs=40"), loader=few, before=False
    ),
    "learning rate 1e-7": Fault("learning rate too low", ("train.lr=1e-7",)),
    "test part in training": Fault("shared recordings", loader=shared, by_hand=True, mended="nothing found"),
}


def planted(fault: Fault, *, seed: int = 0) -> dict[str, Any]:
    """The run with the fault, what the doctor says of it, and the run with what it says followed."""
    experiment, _ = override(replace(HEALTHY, seed=seed), list(fault.changes))
    with tampered(fault.loader, fault.network):
        ill, report = trained(experiment)
        start = diagnose(experiment)
    named = [finding for finding in report.findings if finding.kind == fault.kind]
    result = {
        "named": bool(named),
        "named_before_the_first_step": fault.kind in {finding.kind for finding in start.findings},
        "said": str(report).partition("\n")[2],
        "accuracy": ill,
        "changes": [] if fault.by_hand else [change for finding in named for change in finding.changes],
        "by_hand": fault.by_hand,
    }
    if not named or not (fault.by_hand or result["changes"]):
        return {**result, "mended": False}
    followed, _ = override(experiment, result["changes"])
    tampering = (None, None) if fault.by_hand else (fault.loader, fault.network)
    with tampered(*tampering):
        well, after = trained(followed)
    gone = fault.kind not in {finding.kind for finding in after.findings}
    better = well > ill + 0.02 if fault.mended == "accuracy" else after.ok
    return {**result, "accuracy_mended": well, "found_after": [str(each) for each in after.findings], "gone": gone,
            "mended": better and gone}  # fmt: skip


def healthy(experiment: Experiment) -> dict[str, Any]:
    """What the doctor says of a run that is well: before its first step, while it trains and in the end."""
    start = diagnose(experiment)
    with tempfile.TemporaryDirectory() as folder:
        run = loop.train(experiment, Path(folder, "run"), quiet=True)
        report, rows = diagnose(Run(run.path)), run.metrics()
        said = [line for line in (run.path / "log.txt").read_text(encoding="utf-8").splitlines() if "doctor: " in line]
    alarms = [*map(str, start.findings), *said, *map(str, report.findings)]
    return {"validation_accuracy": _best(rows), "alarms": alarms}


def trained(experiment: Experiment) -> tuple[float, Report]:
    """The best validation accuracy of a run and what the doctor says of it."""
    with tempfile.TemporaryDirectory() as folder:
        run = loop.train(experiment, Path(folder, "run"), quiet=True)
        return _best(run.metrics()), diagnose(run)


@contextlib.contextmanager
def tampered(loader: Callable[[Dataset], Dataset] | None, change: Callable[[Network], None] | None) -> Iterator[None]:
    """Within the block, runs see other recordings, and networks that were tampered with."""
    made = Experiment.network

    def loading(data: Data, *, quiet: bool = False) -> Dataset:
        dataset = load(data, quiet=quiet)
        return dataset if loader is None else loader(dataset)

    def network(self: Experiment, shape: Any) -> Network:
        built = made(self, shape)
        if change is not None:
            change(built)
        return built

    with contextlib.ExitStack() as stack:
        for module in (loop, run_folder, doctor):
            stack.enter_context(mock.patch.object(module, "load", loading))
        stack.enter_context(mock.patch.object(Experiment, "network", network))
        yield


def shipped(
    roots: dict[str, Path | None], *, seeds: Sequence[int], epochs: dict[str, int]
) -> Iterator[tuple[str, Experiment]]:  # fmt: skip
    """The experiments of this folder whose recordings are here, by name and seed; epochs may be fewer.

    `roots` are folders by the experiment's name. The output has as many classes as the recordings that are there.
    """
    for name, count in epochs.items():
        experiment: Experiment = runpy.run_path(str(Path(__file__).parents[1] / f"{name}.py"))["experiment"]
        data = experiment.data
        if data.name != "digits":
            if roots.get(name) is None:
                continue
            data = replace(data, root=str(roots[name]))
        last = max(place for place, layer in enumerate(experiment.model) if isinstance(layer, Dense))
        model = list(experiment.model)
        model[last] = replace(model[last], units=load(data, quiet=True).classes)
        for seed in seeds:
            how = replace(experiment.train, epochs=count)
            yield f"{name}, seed {seed}", replace(experiment, data=data, model=tuple(model), train=how, seed=seed)


def _relabelled(dataset: Dataset, change: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    part = dataset.parts["train"]
    assert isinstance(part, CachedEvents)
    events = replace(part.events, labels=change(part.events.labels))
    return replace(dataset, parts={**dataset.parts, "train": replace(part, folder=None, events=events)})


def _best(rows: list[dict[str, float]]) -> float:
    return max(row.get("validation_accuracy", 0.0) for row in rows)
