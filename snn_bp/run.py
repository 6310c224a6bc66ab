"""The run folder: what a run was asked, what it ran on, how far it came, and checkpoints to go on from.

Every file is replaced in one step, so a run killed at any moment leaves whole files.
"""

import csv
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from snn_bp.checkpoint import Checkpoint, checkpoint_bytes, read_checkpoint
from snn_bp.data import Dataset, load
from snn_bp.errors import SnnError
from snn_bp.experiment import Experiment, from_json, to_json
from snn_bp.files import replace_file, write_bytes, write_csv, write_json, write_lines
from snn_bp.network import Network
from snn_bp.provenance import provenance

CHECKPOINTS = ("last", "previous", "best")
METRICS = (
    "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr", "spike_rate",
    "grad_norm", "seconds", "samples_per_s", "peak_memory_mb",
)  # fmt: skip


class Run:
    """A run folder, to read and to go on from. `Run(path)` opens one; `Run.create` makes one."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        file = self.path / "experiment.json"
        if not file.is_file():
            raise SnnError(f"{self.path}: no run is here, experiment.json is missing. `snn-bp list` shows the runs.")
        self.experiment = read_experiment(file)
        self._dataset: Dataset | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def create(cls, experiment: Experiment, path: Path | str, *, command: str, changes: Sequence[str]) -> "Run":
        """Start a run folder; refused where one stands already."""
        cls.check_free(path)
        path, content = Path(path), to_json(experiment)
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise SnnError(f"{path}: the folder cannot be made ({cause.strerror}). Name another --out.") from None
        write_json(path / "provenance.json", provenance(experiment, command=command, changes=changes))
        write_json(path / "experiment.json", content)  # last: its presence says that a run is here
        return cls(path)

    @staticmethod
    def check_free(path: Path | str) -> None:
        """Raise where a new run cannot start."""
        path = Path(path)
        if (path / "experiment.json").exists():
            raise SnnError(f"{path}: a run is here already. Go on with `snn-bp resume {path}`, or name another --out.")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise SnnError(f"{path}: it exists and is not an empty folder. Name another --out.")

    def hold(self, dataset: Dataset) -> None:
        """Use this data set, loaded already, instead of loading it."""
        self._dataset = dataset

    def dataset(self) -> Dataset:
        """The data of the run, loaded at the first call."""
        if self._dataset is None:
            self._dataset = load(self.experiment.data)
        return self._dataset

    def batch(self, split: str = "validation", *, place: int = 0) -> tuple[Tensor, Tensor]:
        """The inputs `[time, batch, ...]` and targets `[batch]` of one batch of a split, unshuffled."""
        dataset = self.dataset()
        batches = dataset.batches(split)
        if place >= len(batches):
            raise SnnError(f"batch {place} of {split!r}: it has {len(batches)}.")
        return dataset.batch(split, batches[place])

    def network(self, checkpoint: str = "best") -> Network:
        """The trained network, in evaluation mode; `checkpoint` is "best" or "last"."""
        network = self.experiment.network(self.dataset().shape)
        weights = self.load(checkpoint).weights
        try:
            network.load_state_dict(weights)
        except RuntimeError:
            raise SnnError(
                f"{self.path}: checkpoint {checkpoint!r} does not fit the model in experiment.json."
            ) from None
        return network.eval()

    def results(self) -> dict[str, Any] | None:
        """What `results.json` holds, None before the run is finished."""
        file = self.path / "results.json"
        if not file.is_file():
            return None
        try:
            results = json.loads(file.read_text())
        except ValueError as cause:
            raise SnnError(f"{file}: it is not JSON ({cause}). Without it, `snn-bp resume` writes it anew.") from None
        if not isinstance(results, dict) or not {"epochs", "best_epoch"} <= results.keys():
            raise SnnError(f"{file}: it holds no results. Without it, `snn-bp resume` writes it anew.")
        return results

    def metrics(self) -> list[dict[str, float]]:
        """The rows of `metrics.csv`, without the fields that are empty; none before the first epoch ends."""
        file = self.path / "metrics.csv"
        if not file.is_file():
            return []
        try:
            with file.open(newline="") as lines:
                return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(lines)]
        except (ValueError, TypeError) as cause:
            raise SnnError(f"{file}: it is not a table of numbers ({cause}).") from None

    def layers(self) -> list[dict[str, Any]]:
        """The rows of `layers.jsonl`, for each epoch and layer; none before the first epoch ends."""
        file = self.path / "layers.jsonl"
        if not file.is_file():
            return []
        try:
            return [json.loads(line) for line in file.read_text().splitlines()]
        except ValueError as cause:
            raise SnnError(f"{file}: a line of it is not JSON ({cause}).") from None

    def log(self, line: str) -> None:
        """Add a line to `log.txt`."""
        with (self.path / "log.txt").open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint "last"; the one before it stays as "previous"."""
        folder = self.path / "checkpoints"
        content = checkpoint_bytes(checkpoint, self.experiment)
        fresh = folder / "last.safetensors.writing"
        write_bytes(fresh, content)
        last = folder / "last.safetensors"
        if last.exists():
            os.replace(last, folder / "previous.safetensors")
        os.replace(fresh, last)
        write_csv(self.path / "metrics.csv", METRICS, checkpoint.metrics)
        write_lines(self.path / "layers.jsonl", checkpoint.layers)

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint "best": weights only."""
        best = Checkpoint(checkpoint.weights, epoch=checkpoint.epoch, metrics=checkpoint.metrics[-1:])
        replace_file(self.path / "checkpoints" / "best.safetensors", checkpoint_bytes(best, self.experiment))

    def load(self, name: str) -> Checkpoint:
        """Read one of the checkpoints "last", "previous", "best"."""
        if name not in CHECKPOINTS:
            raise SnnError(f"checkpoint {name!r} is not known. Known: {', '.join(CHECKPOINTS)}.")
        return read_checkpoint(self.path / "checkpoints" / f"{name}.safetensors", self.experiment)

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that can be trusted, None where there is none, and what was wrong with newer ones."""
        problems = []
        for name in ("last", "previous"):
            file = self.path / "checkpoints" / f"{name}.safetensors"
            if file.exists():
                try:
                    return read_checkpoint(file, self.experiment), problems
                except SnnError as problem:
                    problems.append(str(problem))
        return None, problems


def read_experiment(file: Path) -> Experiment:
    """The experiment in a JSON file."""
    try:
        experiment = from_json(json.loads(file.read_text()))
    except OSError as cause:
        raise SnnError(f"{file}: it cannot be read ({cause.strerror}).") from None
    except RecursionError:
        raise SnnError(f"{file}: it holds no experiment; its JSON is nested too deep.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as cause:
        raise SnnError(f"{file}: it is not JSON ({cause}).") from None
    except SnnError as cause:
        raise SnnError(f"{file}: {cause}") from cause
    if not isinstance(experiment, Experiment):
        raise SnnError(f'{file}: it holds no experiment; an experiment\'s JSON starts with {{"is": "Experiment"}}.')
    return experiment
