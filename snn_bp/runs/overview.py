"""A run at a glance: how far it came, and its figures."""

from typing import TYPE_CHECKING

from snn_bp.errors import SnnError
from snn_bp.runs.records import digits, figure_note, figure_of, results_line
from snn_bp.runtime.screen import html_table, on_screen

if TYPE_CHECKING:
    from snn_bp.runs.folder import Run


def overview(run: "Run") -> str:
    """Its folder, and its results, how many epochs it has if it is not finished, or why neither can be read."""
    return on_screen(f"Run({str(run.path)!r}): {_line(run)}")


def overview_html(run: "Run") -> str:
    """Its figures as a table of HTML."""
    try:
        results = run.results() or {}
    except SnnError:
        results = {}
    rows = []
    for split in ("test", "validation"):
        if part := results.get(split):
            name, value = figure_of(part)
            rows.append((f"{split} {name.replace('_', ' ')}", digits(value), figure_note(part)))
            rows.append((f"{split} loss", f"{part['loss']:.4f}", ""))
    if "parameters" in results:
        rows.append(("parameters", f"{results['parameters']:,}", ""))
    if "train_seconds" in results:
        rows.append(("training", f"{results['train_seconds']:,.1f} s", f"{results['epochs']} of {_epochs(run)} epochs"))
    rows.append(("data", run.experiment.data.name, ""))
    return html_table(f"Run {run.path}: {_line(run)}", (), rows, left=3, notes=results.get("notes", ()))


def _line(run: "Run") -> str:
    try:
        results = run.results()
        return results_line(results) if results else f"not finished, epoch {len(run.metrics())} of {_epochs(run)}"
    except SnnError as problem:
        return f"cannot be read: {problem}"


def _epochs(run: "Run") -> int:
    return run.experiment.train.epochs
