"""The run folder: what a run was asked, what it ran on, how far it came, and checkpoints to go on from.

Files are replaced in one step, or grow by rows up to the mark of a checkpoint; so a run killed at any moment loses
nothing. One process at a time trains a run; others read beside it.
"""

import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from snn_bp.data import Dataset, load
from snn_bp.data.catalogue import IN_MEMORY
from snn_bp.data.fingerprint import describe
from snn_bp.errors import SnnError, as_path, check_choice, check_flag, check_kind, check_number, typed
from snn_bp.errors.calls import checked_call
from snn_bp.files import (
    UNFINISHED,
    append,
    check_can_write,
    csv_lines,
    is_there,
    json_lines,
    json_sha256,
    make_folder,
    read_json,
    read_text,
    replace_file,
    write_json,
    write_object,
)
from snn_bp.files.folders import SameFolder
from snn_bp.files.lock import LOCK, holder, locked
from snn_bp.files.tables import Table
from snn_bp.model.names import name_today
from snn_bp.model.network import Network
from snn_bp.runs.answers import FOLDER as PREDICTIONS
from snn_bp.runs.checkpoint import Checkpoint, checkpoint_bytes, read_checkpoint
from snn_bp.runs.experiment import Experiment, content_of
from snn_bp.runs.overview import overview, overview_html
from snn_bp.runs.own_code import FOLDER, is_copied
from snn_bp.runs.paths import CHECKPOINTS, run_at
from snn_bp.runs.provenance import made_by, note_resumed, provenance
from snn_bp.runs.records import check_results, columns_of_rows, differing_data, read_with_code, rows_of, shape_of

SEARCH_FILE = "asked.json"  # method, budget, objective of a search
TRAINED = ("checkpoints", "results.json", "search.json", "metrics.csv", "layers.jsonl", "data.json", PREDICTIONS)


@checked_call
class Run:
    """A run folder, to read and to go on from. `Run(path)` opens one; `Run.create` makes one.

    Code in it that this user's `train` did not write is refused; `trust_code=True` (False) runs it from now on.

    >>> Run("runs/a").metrics()[0]["epoch"]  # the run of `train`
    1.0
    """

    def __init__(self, path: Path | str, *, trust_code: bool = False) -> None:
        self.path = as_path("Run: the folder", path)
        check_flag("Run: trust_code", trust_code)
        file = run_at(self.path) / "experiment.json"
        try:
            self.experiment, _ = read_with_code(file, trust_code=trust_code)
        except SnnError as cause:
            raise SnnError(f"{cause}{made_by(self.path / 'provenance.json')}") from cause
        self.identity = json_sha256(read_json(file))  # the file's: other types or defaults of the day change nothing
        self.tables = {name: Table(self.path / name) for name in ("metrics.csv", "layers.jsonl")}
        self._columns: Sequence[str] = ()  # in metrics.csv
        self._dataset: Dataset | None = None
        self._folder: SameFolder | None = None  # known from the first write on

    __repr__, _repr_html_ = overview, overview_html  # type: ignore[assignment] - the first has another name

    @classmethod
    def create(cls, experiment: Experiment, path: Path | str, *, command: str, changes: Sequence[str]) -> "Run":
        """Start a run folder; refused where one stands already."""
        cls.check_free(path)
        path, (content, code) = Path(path), content_of(experiment)
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise SnnError(f"{path}: the folder cannot be made ({cause.strerror}). Name another --out.") from None
        write_object(path / "provenance.json", provenance(experiment, command=command, changes=changes))
        if code is not None:
            code.write(path / FOLDER)
            code.trust(path)
        write_json(path / "experiment.json", content)  # last: its presence says that a run is here
        return cls(path, trust_code=True)

    @staticmethod
    def check_free(path: Path | str, *, numbered: bool = False) -> None:
        """Raise where a new run cannot start; what a start left that was killed does not count.

        `numbered`: where another number would do, too.
        """
        path = as_path("the folder of a new run", path)
        if numbered:
            return check_can_write(path.parent, "Name another --out.", is_folder=True)
        if is_there(path / "experiment.json"):
            raise SnnError(
                f"{path}: a run is here already. Go on with `snn-bp resume {typed(path)}`, or name another --out."
            )
        if is_there(path) and not (path.is_dir() and all(map(_is_left_by_a_start, path.iterdir()))):
            raise SnnError(f"{path}: it exists and is not an empty folder. Name another --out.")
        check_can_write(path, "Name another --out.", is_folder=True)

    @staticmethod
    @contextmanager
    def claim(path: Path | str, *, numbered: bool = False) -> Iterator[Path]:
        """Within the block, the folder of a new run is there, and no other process's.

        `numbered` takes the first number behind the name at which nothing stands, also where others do so meanwhile.
        """
        path = wanted = as_path("the folder of a new run", path)
        number = 1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    path.mkdir(exist_ok=not numbered)
                    break
                except FileExistsError:
                    if not numbered:
                        raise
                number += 1
                path = wanted.with_name(f"{wanted.name}-{number}")
        except OSError as cause:
            raise SnnError(f"{path}: the folder cannot be made ({cause.strerror}). Name another --out.") from None
        with locked(path):
            Run.check_free(path)
            yield path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block no other process trains the run; raises where one does."""
        with locked(self.path):
            yield

    def note(self) -> str | None:
        """That another process trains the run, in a sentence; None where none does."""
        return (who := holder(self.path)) and f"{self.path} is being trained by {who} and changes while it is read"

    def hold(self, dataset: Dataset) -> None:
        """Use this data set instead of loading one; warns where recordings in memory are not what the run has seen."""
        check_kind("the dataset", dataset, Dataset, "As in Dataset.of(train=(x, y)).")
        self._dataset = dataset
        if dataset.data.name == IN_MEMORY:
            self._warn_of_difference(dataset)

    def dataset(self) -> Dataset:
        """The data of the run, loaded at the first call; warns where they are not what the run has seen."""
        if self._dataset is None:
            self._dataset = load(self.experiment.data)
            self._warn_of_difference(self._dataset)
        return self._dataset

    def _warn_of_difference(self, dataset: Dataset) -> None:
        file = self.path / "data.json"
        if is_there(file) and (difference := differing_data(file, dataset)) is not None:
            warnings.warn(f"{self.path}: its recordings are not those it was trained on: {difference}", stacklevel=4)

    def shape(self) -> tuple[int, ...]:
        """The shape of one step of an input: as `data.json` has it, so that recordings need not be here."""
        file = self.path / "data.json"
        if self._dataset is None and is_there(file):
            return shape_of(file)
        return tuple(self.dataset().shape)

    def batch(self, split: str = "validation", *, index: int = 0) -> tuple[Tensor, Tensor]:
        """The inputs `[time, batch, ...]` and targets `[batch]` of one batch of a split, unshuffled."""
        dataset = self.dataset()
        batches = dataset.batches(split)
        check_number(f"batch of {split!r}: index", index, integer=True, low=0, high=len(batches) - 1)
        return dataset.batch(split, batches[index])

    def network(self, checkpoint: str = "best") -> Network:
        """The trained network, in evaluation mode; `checkpoint` is "best" or "last". Needs no recordings."""
        try:
            weights = self.load(checkpoint).evaluated
        except SnnError as cause:
            if self.has_trained():
                raise
            raise SnnError(f"{cause} `snn-bp resume {typed(self.path)}` trains the network.") from None
        network = self.experiment.network(self.shape())
        try:
            network.load_state_dict(weights)
        except RuntimeError:
            told = f"{self.path}: checkpoint {checkpoint!r} does not fit the model in experiment.json."
            raise SnnError(told) from None
        return network.eval()

    def results(self) -> dict[str, Any] | None:
        """What `results.json` holds, None before the run is finished."""
        file = self.path / "results.json"
        return check_results(file) if is_there(file) else None

    def metrics(self) -> list[dict[str, float]]:
        """The rows of `metrics.csv`, without the fields that are empty; none before the first epoch ends."""
        file = self.path / "metrics.csv"
        rows = rows_of(file, self._lines(file))
        epochs = (self.results() or {}).get("epochs", len(rows))
        if [row.get("epoch") for row in rows] != list(range(1, len(rows) + 1)) or len(rows) < epochs:
            raise SnnError(f"{file}: it should hold a row for each epoch, 1 to {epochs}; some are missing or altered.")
        return rows

    def layers(self) -> list[dict[str, Any]]:
        """The rows of `layers.jsonl`, for each epoch and layer, those of 0.1.0 with the layers' names of today."""
        file, rows, model = self.path / "layers.jsonl", [], self.experiment.model_at_step()
        for number, line in enumerate(self._lines(file), 1):
            try:
                row = json.loads(line)
                good = isinstance(row["epoch"], int) and isinstance(row["layer"], str)
            except (ValueError, TypeError, KeyError, RecursionError):
                good = False
            if not good:
                raise SnnError(f"{file}: line {number} is not a row of a layer.")
            rows.append(row | {"layer": name_today(row["layer"], model)})
        return rows

    def check_same_folder(self) -> None:
        """Raise where the folder is not the one any more into which this run was first written."""
        self._folder = self._folder or SameFolder(self.path, remedy="Where it lies now, `snn-bp resume` goes on.")
        self._folder.check()

    def log(self, line: str) -> None:
        """Add a line to `log.txt`."""
        self.check_same_folder()
        append(self.path / "log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n".encode("utf-8", "replace"))

    def begin_tables(self, metrics: Sequence[dict[str, Any]] = (), layers: Sequence[dict[str, Any]] = ()) -> None:
        """Make the files of rows anew, with these rows."""
        self._columns = columns_of_rows(self.experiment.train, self.dataset().targets)
        header: dict[str, Any] = {name: name for name in self._columns}
        self.tables["metrics.csv"].begin(csv_lines(self._columns, [header, *metrics]))
        self.tables["layers.jsonl"].begin(json_lines(layers))

    def cut_tables(self, checkpoint: Checkpoint) -> None:
        """Take out of the files of rows what was written behind a checkpoint."""
        if not checkpoint.epoch or checkpoint.rows:  # none yet; or of a version that kept all rows in the checkpoint
            self.begin_tables(checkpoint.rows, checkpoint.layers)
            return
        for name, table in self.tables.items():
            table.cut(checkpoint.tables.get(name), run=self.path)
        self._columns = self._lines(self.path / "metrics.csv")[0].split(",")  # another version may have had others

    def check_tables(self) -> None:
        """Raise if the files of rows of a finished run have changed since its results were written."""
        for name, mark in self._marks().items():
            if name in self.tables:
                self.tables[name].read(mark, run=self.path)

    def add_rows(self, row: dict[str, Any], layers: Sequence[dict[str, Any]]) -> None:
        """Append what an epoch has to say to the files of rows, ahead of its checkpoint."""
        self.check_same_folder()
        self.tables["metrics.csv"].add(csv_lines(self._columns, [row]))
        self.tables["layers.jsonl"].add(json_lines(layers))

    def marks(self) -> dict[str, list[Any]]:
        """How far the files of rows have come, for a checkpoint."""
        return {name: table.mark for name, table in self.tables.items()}

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint "last"; the one before it stays as "previous"."""
        self.check_same_folder()
        folder = self.path / "checkpoints"
        make_folder(folder)
        content = checkpoint_bytes(checkpoint, self.identity)
        replace_file(folder / "last.safetensors", content, keep=folder / "previous.safetensors")

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint "best": the weights that are evaluated, and nothing else."""
        self.check_same_folder()
        best = Checkpoint(checkpoint.evaluated, epoch=checkpoint.epoch, metrics=checkpoint.metrics[-1:])
        make_folder(self.path / "checkpoints")
        replace_file(self.path / "checkpoints" / "best.safetensors", checkpoint_bytes(best, self.identity))

    def load(self, name: str) -> Checkpoint:
        """Read one of the checkpoints "last", "previous", "best"."""
        check_choice("checkpoint", name, CHECKPOINTS)
        file = self.path / "checkpoints" / f"{name}.safetensors"
        checkpoint = read_checkpoint(file, self.identity)
        if name == "best" and (checkpoint.optimizer or checkpoint.epoch != self._best_epoch(checkpoint.epoch)):
            raise SnnError(f"{file}: another checkpoint, of epoch {checkpoint.epoch}, stands in its place.")
        return checkpoint

    def _best_epoch(self, otherwise: int) -> int:
        """The best epoch by the results; `otherwise` where there are none that can be read."""
        try:
            return (self.results() or {}).get("best_epoch", otherwise)
        except SnnError:
            return otherwise

    def problem_of(self, name: str) -> str | None:
        """Why a checkpoint cannot be read, None where it can."""
        try:
            self.load(name)
        except SnnError as problem:
            return str(problem)
        return None

    def has_trained(self) -> bool:
        """Whether there ever was a checkpoint: tables are written behind the first."""
        written = ("metrics.csv", "layers.jsonl", "checkpoints/best.safetensors")
        return any(is_there(self.path / name) for name in written)

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that can be trusted, None where there is none, and what was wrong with newer ones."""
        problems = []
        for name in ("last", "previous"):
            if is_there(self.path / "checkpoints" / f"{name}.safetensors"):
                try:
                    return self.load(name), problems
                except SnnError as problem:
                    problems.append(str(problem))
        return None, problems

    def start_again(self) -> Path | None:
        """Move what was trained into a folder of its own within the run folder, and give that; None where nothing is.

        Checkpoints go first: without them, whatever else still stands there, nobody takes the run for whole.
        """
        there = [name for name in TRAINED if is_there(self.path / name)]
        if not there:
            return None
        number = 1
        while is_there(aside := self.path / f"before-{number}"):
            number += 1
        try:
            aside.mkdir()
            for name in there:
                os.rename(self.path / name, aside / name)
            make_folder(self.path / "checkpoints")
        except OSError as cause:
            raise SnnError(f"{aside}: what was trained cannot be moved there ({cause.strerror}).") from None
        return aside

    def is_search(self) -> bool:
        """Whether a search keeps its weights here, instead of a training."""
        return is_there(self.path / SEARCH_FILE)

    def leftovers(self) -> list[Path]:
        """Files half written, which killed processes left."""
        return sorted(file for file in self.path.rglob(f"*{UNFINISHED}") if file.is_file() and not file.is_symlink())

    def check_data(self, dataset: Dataset) -> None:
        """Raise where recordings are not those that `data.json` says the run has seen; write it where it is not there.

        What another process or version wrote is never written over.
        """
        file = self.path / "data.json"
        if not is_there(file):
            write_object(file, describe(dataset))
            return
        if (difference := differing_data(file, dataset)) is not None:
            raise SnnError(
                f"{self.path}: its recordings are not those it was trained on: {difference}. Put those back, or start "
                f"anew with `snn-bp resume {typed(self.path)} --restart`."
            )

    def note_version(self) -> str | None:
        """Add to `provenance.json` that the run goes on, where program or machine are others; says it in a sentence."""
        return note_resumed(self.path / "provenance.json", self.experiment)

    def _lines(self, file: Path) -> list[str]:
        """The lines of a file of rows; one that is being written, or was when the run was killed, is not there yet."""
        mark = self._marks().get(file.name)
        if mark is None and not is_there(file):
            return []
        text = read_text(file) if mark is None else self.tables[file.name].read(mark, run=self.path).decode()
        *lines, rest = text.split("\n")
        if rest and is_there(self.path / "results.json"):
            raise SnnError(f"{file}: its last line is cut short.")
        return lines

    def _marks(self) -> dict[str, Any]:
        """The marks of the files of rows in the results of a finished run; empty before."""
        return (self.results() or {}).get("tables", {})


def _is_left_by_a_start(entry: Path) -> bool:
    """Whether a run that was killed before its folder was whole left this, or one that begins just now."""
    if entry.name == FOLDER:
        return is_copied(entry)
    if entry.name == "checkpoints":
        return entry.is_dir() and not entry.is_symlink() and not any(entry.iterdir())
    return entry.name in (LOCK, SEARCH_FILE, "provenance.json") or entry.name.endswith(UNFINISHED)
