"""`report`: gather the sections and write the page."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from snn_bp.errors import SnnError, check_choice, check_kind
from snn_bp.errors.calls import checked_call
from snn_bp.files import check_can_write, replace_file
from snn_bp.reports.comparison import state_of
from snn_bp.runs.answers import Answers
from snn_bp.runs.folder import Run
from snn_bp.runs.paths import COPY_IT
from snn_bp.runs.records import results_line
from snn_bp.runtime.status import in_phase

if TYPE_CHECKING:
    from snn_bp.reports.page import Section


@checked_call
def report(run: Run, *, split: str = "test") -> Path:
    """Write `report.html` into the folder of `run` and give its path: one file, no network, no script.

    Figures are those of `results.json` for `split` ("test"; of a finished run without one, validation); validation and
    training are evaluated where they are not there, test never. What the run does not have (yet) is said on the page.

    >>> report(run).name  # the run of `train`
    'report.html'
    """
    from snn_bp.reports import sections  # with all pictures: only where a page is asked for
    from snn_bp.reports.page import render
    from snn_bp.reports.predictions import predictions
    from snn_bp.reports.wrong import wrong

    check_kind("report: the run", run, Run, "As in report(Run('runs/mine')).")
    check_choice("split", split, ("test", "validation", "train"))
    path = run.path / "report.html"
    check_can_write(path, COPY_IT)
    finished = run.results()
    if finished and split == "test" and "test" not in finished and "validation" in finished:
        split = "validation"
    evaluation, kept = sections.evaluated(run, split)
    parts: dict[str, Callable[[], Section]] = {
        "Results": lambda: sections.results(run, evaluation, split),
        "Training": lambda: sections.training(run),
        "Wrong recordings": lambda: wrong(run, split, kept or (Answers.read(run.path, split) if evaluation else None)),
        "Predictions": lambda: predictions(run, evaluation, split),
        "Layers": lambda: sections.layers(run),
        "Doctor": lambda: sections.doctor(run),
        "One backward pass": lambda: sections.backward(run),
        "Spikes and operations": lambda: sections.activity(evaluation, split),
        "Neurons": lambda: sections.neurons(run),
        "What was asked": lambda: sections.configuration(run),
        "Export": lambda: sections.exported(run),
        "Where it comes from": lambda: sections.origin(run),
    }
    page = render(
        title=f"Run {run.path.resolve().name}",
        lead=results_line(finished) if finished else state_of(run),
        sections=[_section(title, part) for title, part in in_phase(list(parts.items()), "writing the page")],
    )
    replace_file(path, page.encode(errors="backslashreplace"))
    return path


def _section(title: str, part: "Callable[[], Section]") -> "Section":
    """The section; where a file that it needs cannot be read or is not what we wrote, the reason."""
    from snn_bp.reports.page import Section

    try:
        return part()
    except SnnError as cause:
        return Section(title, sentences=[f"This part is missing: {cause}"])
    except (OSError, ValueError, KeyError, TypeError) as cause:
        return Section(title, sentences=[f"This part is missing: a file of the run is damaged ({cause!r})."])
