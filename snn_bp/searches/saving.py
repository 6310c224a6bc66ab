"""The state of a search in its run folder, saved and read so that it resumes exactly."""

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from snn_bp.errors import SnnError, typed
from snn_bp.files import is_there, read_object
from snn_bp.model.network import Network
from snn_bp.runs.checkpoint import Checkpoint
from snn_bp.runs.folder import SEARCH_FILE, Run
from snn_bp.searches.record import Row
from snn_bp.searches.searchers import Backpropagation, Population
from snn_bp.trainer.saving import check_nothing_trained


@dataclass
class Position:
    """How far a search has come."""

    generation: int = 0
    spent: int = 0  # sample evaluations
    best: int = 0  # index of the best row
    rows: list[Row] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)  # the best row's
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def read_asked(run: Run) -> dict[str, Any]:
    """What the search in a run folder was asked; raises where the folder holds none."""
    file = run.path / SEARCH_FILE
    if not is_there(file):
        raise SnnError(f"{run.path}: it holds no search. `snn-bp resume {typed(run.path)}` goes on with a training.")
    asked = read_object(file)
    if "price" in asked:  # its name until 2026-11
        asked["spike_penalty"] = asked.pop("price")
    if asked.keys() != {"method", "budget", "objective", "own", "spike_penalty", "population"}:
        raise SnnError(f"{file}: it is not what a search writes. Put it back as it was.")
    return asked


def save(run: Run, at: Position, network: Network, searcher: Population | Backpropagation) -> None:
    """Write how far the search has come as the checkpoint "last"."""
    sums = {name: getattr(at, name) for name in ("spent", "best", "seconds", "cpu_seconds")}
    sums["rows"] = [asdict(row) for row in at.rows]
    run.save(
        Checkpoint(
            network.state_dict(),
            searcher.state(),
            epoch=len(at.rows),
            batch=at.generation,
            sums=sums,
            metrics=[metrics_of(at.rows, at.best)] if at.rows else [],
            seconds=at.seconds,
            tables=run.marks(),
        )
    )


def save_row(run: Run, at: Position) -> None:
    """Append the newest row, ahead of the checkpoint that counts it; the best weights where it is the best."""
    index = len(at.rows) - 1
    run.add_rows(metrics_of(at.rows, index), [])
    if at.best == index:
        run.save_best(Checkpoint(at.weights, epoch=index + 1, metrics=[metrics_of(at.rows, index)]))


def position_of(run: Run, network: Network, searcher: Population | Backpropagation) -> Position:
    """The position of the newest readable checkpoint, which is loaded; the beginning if nothing was ever saved."""
    checkpoint, problems = run.latest()
    if checkpoint is None:
        check_nothing_trained(run, problems, remedy="search anew with another --out")
        return Position()
    sums = dict(checkpoint.sums)
    try:
        rows = [Row(**row) for row in sums.pop("rows")]
        at = Position(checkpoint.batch, rows=rows, **sums)
        network.load_state_dict(checkpoint.weights)
        searcher.load(checkpoint)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        raise SnnError(f"{run.path}: its checkpoint is of no search, or of another than experiment.json's.") from None
    run.cut_tables(checkpoint)
    if rows:
        best = run.load("best")
        if best.epoch < at.best + 1:
            raise SnnError(f"{run.path}: its checkpoint 'best' is older than its last one. Put it back as it was.")
        at.weights = best.weights
    return at


def metrics_of(rows: list[Row], index: int) -> dict[str, Any]:
    """A row as `metrics.csv` has it."""
    return {"epoch": index + 1, **asdict(rows[index])}
