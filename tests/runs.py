"""Small runs for tests: a few of the digits, a small network, and what must be equal between two runs.

A test module takes a fixture by `finished = runs.finished`.
"""

import csv
import importlib
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from snn_bp import LIF, BatchNorm, Data, Dense, Experiment, Flatten, Run, Train
from snn_bp.data import Dataset, load
from snn_bp.files import read_object

training = importlib.import_module("snn_bp.trainer.loop")
evaluation = importlib.import_module("snn_bp.runs.evaluation")
cli = importlib.import_module("snn_bp.cli")

SIZES = {"train": 150, "validation": 40, "test": 50}
TIMES = ("seconds", "wait_seconds", "samples_per_s", "peak_memory_mb")  # columns that differ between equal runs
DIGITS = Data("digits", step_ms=104, steps=3, downsample=2, batch=32)


def tiny(*, data: Data = DIGITS, seed: int = 0, **how: Any) -> Experiment:
    """A network that learns something within a second."""
    model = (Flatten(), Dense(12), BatchNorm(), LIF(beta=0.7), Dense(10), BatchNorm(), LIF(beta=0.7))
    return Experiment(data, model, Train(**({"epochs": 2, "lr": 5e-3} | how)), seed=seed)


def few(data: Data, *, quiet: bool = False) -> Dataset:
    """What `load` gives, with `SIZES` recordings of each split."""
    dataset = load(data, quiet=quiet)
    return replace(dataset, ids={split: ids[: SIZES[split]] for split, ids in dataset.ids.items()})


@contextmanager
def loading(loader: Callable[..., Dataset]) -> Iterator[None]:
    """Let runs load their data by `loader`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (training, importlib.import_module("snn_bp.data"), importlib.import_module("snn_bp.runs.folder")):
            patch.setattr(module, "load", loader)
        yield


@pytest.fixture
def few_digits() -> Iterator[None]:
    """Runs see `SIZES` recordings."""
    with loading(few):
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of two epochs, to read only."""
    with loading(few):
        return training.train(tiny(), tmp_path_factory.mktemp("runs") / "finished", quiet=True)


@contextmanager
def heard() -> Iterator[None]:
    """What is begun within hears Ctrl-C and a hangup, also where a job in the background, or under nohup, does not."""
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def rows(run: Run) -> list[dict[str, str]]:
    """The rows of metrics.csv without the times."""
    with (run.path / "metrics.csv").open(encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def same_weights(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two state dicts hold the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def assert_same_run(run: Run, other: Run) -> None:
    """Raise unless both runs learned, measured and found the same, bit for bit."""
    for checkpoint in ("last", "best"):
        assert same_weights(run.load(checkpoint).weights, other.load(checkpoint).weights), checkpoint
    assert rows(run) == rows(other)
    assert (run.path / "layers.jsonl").read_text() == (other.path / "layers.jsonl").read_text()
    results = [{**(part.results() or {}), "train_seconds": 0, "tables": 0} for part in (run, other)]
    assert results[0] == results[1]


def damage(file: Path, *, at: int = -5) -> None:
    """Change one byte of a file."""
    content = bytearray(file.read_bytes())
    content[at] ^= 0x10
    file.write_bytes(bytes(content))


def json_of(file: Path) -> Any:
    """What a JSON file holds."""
    return read_object(file)


def without_phases(errors: str) -> str:
    """What stands on standard error beside what takes over a second, as it does on a slow machine."""
    return re.sub(r"^.* \.\.\. \d+\.\d s\n", "", errors, flags=re.MULTILINE)
