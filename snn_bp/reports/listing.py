"""`list`: the runs under a folder, a row each."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from snn_bp.errors import SnnError, check_choice
from snn_bp.files import read_object
from snn_bp.model.metrics import Metric
from snn_bp.reports.comparison import state_of
from snn_bp.runs.folder import Run
from snn_bp.runs.paths import runs_under
from snn_bp.runs.records import digits, figure_of
from snn_bp.runtime.status import in_phase

KEYS = ("run", "date", "data", "metric")
LOWER_IS_BETTER = {kind.name for kind in get_args(Metric) if not kind.higher_is_better}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a list says of a run; what is not known of it is None."""

    run: str
    state: str  # "finished", or how far it came, or why it cannot be read
    date: str | None = None  # when it was started
    data: str | None = None
    split: str | None = None  # on which the metric was taken
    metric: str | None = None
    value: float | None = None
    higher_is_better: bool | None = None
    best_epoch: int | None = None
    epochs: int | None = None

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        result = self.state
        if self.metric is not None and self.value is not None:
            result = f"{self.split} {self.metric.replace('_', ' ')} {digits(self.value)}"
        epoch = "" if self.best_epoch is None else f"epoch {self.best_epoch} of {self.epochs}"
        return [self.run, (self.date or "-")[:10], self.data or "-", result, epoch]


@dataclass(frozen=True)
class Listing:
    """Runs in the order that was asked for."""

    folder: Path
    entries: tuple[Entry, ...]

    def record(self) -> list[dict[str, Any]]:
        """As JSON holds it."""
        return [asdict(entry) for entry in self.entries]

    def __str__(self) -> str:
        if not self.entries:
            return f"no runs under {self.folder}"
        rows = [["run", "date", "data", "result", ""], *(entry.cells for entry in self.entries)]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        widths.append(max(len(row[3]) for row in rows if row[4] or row[3] == "result"))  # a sentence may reach further
        lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)


def listing(folder: Path, *, sort: str = "run") -> Listing:
    """The runs under a folder, sorted by one of `KEYS`: names upwards, the newest and the best first."""
    check_choice("sort", sort, KEYS)
    entries = [_entry(path) for path in in_phase(runs_under(folder), "reading the runs")]
    if sort == "date":
        entries.sort(key=lambda entry: entry.date or "", reverse=True)
    elif sort == "data":
        entries.sort(key=lambda entry: (entry.data is None, entry.data or ""))
    elif sort == "metric":
        entries.sort(key=_rank)
    return Listing(folder, tuple(entries))


def _entry(path: Path) -> Entry:
    try:
        date = read_object(path / "provenance.json").get("started")
    except SnnError:  # its figures are no worse for it
        date = None
    known: dict[str, Any] = {"run": str(path), "date": date if isinstance(date, str) else None}
    try:
        run = Run(path)
        known["data"] = run.experiment.data.name
        results = run.results()
        if results is None:
            return Entry(state=state_of(run), **known)
    except SnnError as problem:
        return Entry(state=f"cannot be read: {problem}", **known)
    known |= {"best_epoch": results["best_epoch"], "epochs": results["epochs"]}
    split = next((name for name in ("test", "validation") if results.get(name)), None)
    if split is not None:
        metric, value = figure_of(results[split])
        lower = metric in LOWER_IS_BETTER or getattr(run.experiment.train.metric, "higher_is_better", True) is False
        known |= {"split": split, "metric": metric, "value": value, "higher_is_better": not lower}
    return Entry(state="finished", **known)


def _rank(entry: Entry) -> tuple[bool, str, float]:
    """Runs of one metric together, the best first; those without any last."""
    if entry.metric is None or entry.value is None:
        return True, "", 0.0
    return False, entry.metric, -entry.value if entry.higher_is_better else entry.value
