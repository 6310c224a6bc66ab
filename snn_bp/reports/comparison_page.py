"""The page of a comparison: figures of each group, what tells the groups apart, and their curves over each other."""

import re
from typing import TYPE_CHECKING

from snn_bp.errors import SnnError
from snn_bp.reports.page import Section, Table, render, svg_image
from snn_bp.reports.plots.epochs import compared_curves
from snn_bp.runs.folder import Run
from snn_bp.runs.records import metric_of_rows

if TYPE_CHECKING:
    from snn_bp.reports.comparison import Comparison

SHORT = 40  # letters of settings that stand beside a group's number
DESCRIBED = 12  # groups of which the picture's text says where their curves end


def page_of(comparison: "Comparison") -> str:
    """The page as HTML: one file that needs nothing else."""
    runs, groups = sum(len(group.paths) for group in comparison.groups), len(comparison.groups)
    return render(
        title=f"{runs} run{'s' * (runs != 1)} compared",
        lead=f"{groups} group{'s' * (groups != 1)}: runs that differ in their seed alone are one group.",
        sections=[_figures(comparison), _curves(comparison), _differences(comparison)],
    )


def _figures(comparison: "Comparison") -> Section:
    columns = [("group", _names(comparison)), *comparison.columns()[1:]]
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    sentences = [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in comparison.chosen]
    sentences += [] if comparison.groups else ["None of the runs is finished; there is nothing to compare yet."]
    sentences += comparison.tests
    caption = "Mean ± deviation over runs; spikes and operations of one inference, all layers"
    return Section(
        "Figures",
        sentences + [f"Note: {note}." for note in comparison.notes],
        tables=[Table(caption, [head for head, _ in columns], rows)] if rows else [],
    )


def _curves(comparison: "Comparison") -> Section:
    """Loss and metric of every run over the epochs; a run whose rows cannot be read is named."""
    rows: dict[str, list[list[dict[str, float]]]] = {}
    sentences, metrics = [], set()
    for name, group in zip(_names(comparison), comparison.groups, strict=True):
        for path in group.paths:
            try:
                mine = Run(path).metrics()
            except SnnError as problem:
                sentences.append(f"{path} is not drawn: {problem}")
                continue
            rows.setdefault(name, []).append(mine)
            metrics.add(metric_of_rows(mine))
    if not rows:
        return Section("Curves", [*sentences, "No run has curves yet."])
    images = []
    for name in sorted(metrics):
        drawn = {
            label: kept
            for label, mine in rows.items()
            if (kept := [run for run in mine if metric_of_rows(run) == name])
        }
        ends = []
        for label, mine in list(drawn.items())[:DESCRIBED]:
            ends.append(f"{label.partition(':')[0]} {', '.join(format(run[-1]['train_loss'], '.3g') for run in mine)}")
        alt = f"Training loss of each run in its last epoch: {'; '.join(ends)}."
        images.append(svg_image(compared_curves(drawn, name), alt, "A line for each run, runs of a group alike"))
    return Section("Curves", sentences, images=images)


def _differences(comparison: "Comparison") -> Section:
    settings = list(comparison.groups[0].settings) if comparison.groups else []
    names = [f"group {number}" for number in range(1, len(comparison.groups) + 1)]
    tables = []
    if settings:
        rows = [("group", *settings)]
        rows += [(name, *group.settings.values()) for name, group in zip(names, comparison.groups, strict=True)]
        if len(names) < len(settings):
            rows = list(zip(*rows, strict=True))
        tables.append(Table("Settings in which the groups differ", rows[0], rows[1:], numbers=False))
    if names:
        rows = [
            (name, ", ".join(map(str, group.seeds)), ", ".join(group.paths))
            for name, group in zip(names, comparison.groups, strict=True)
        ]
        tables.append(Table("Runs of each group", ("group", "seeds", "folders"), rows, numbers=False))
    if comparison.unfinished:
        unfinished = list(comparison.unfinished.items())
        tables.append(Table("Runs that count in no figure", ("run", "state"), unfinished, numbers=False))
    sentences = [] if settings or len(names) < 2 else ["The groups differ in no setting that has a name here."]
    return Section("What was compared", sentences, tables=tables)


def _names(comparison: "Comparison") -> list[str]:
    """What each group is called in the first table and in the picture: its number, and its settings where they fit."""
    names = []
    for number, group in enumerate(comparison.groups, 1):
        short = {re.sub(r"^(train|data)\.", "", key): value for key, value in group.settings.items()}
        settings = ", ".join(f"{key} = {value}" for key, value in short.items())
        names.append(f"group {number}" + f": {settings}" * (0 < len(settings) <= SHORT))
    return names
