"""Curves over the epochs of a run: what `metrics.csv` and `layers.jsonl` hold."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snn_bp.reports.plots.style import LINES, figure, line_styles, short, styled, whole_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def training_curves(metrics: list[dict[str, float]], name: str = "accuracy") -> "Figure":
    """Loss, the metric of this name, learning rate, spike rate, gradient norm and speed of every epoch."""
    from matplotlib.ticker import LogFormatter

    words = name.replace("_", " ")
    drawn = figure(8, 6.9)
    axes = drawn.subplots(3, 2, sharex=True)
    panels = (
        ("loss", "loss", {"train_loss": "training", "validation_loss": "validation"}),
        (words, unit_of(name), {f"train_{name}": "training", f"validation_{name}": "validation"}),
        ("learning rate", "at the end of the epoch", {"lr": "learning rate"}),
        ("spike rate", "per neuron and step", {"spike_rate": "mean of all layers"}),
        ("gradient norm, before clipping", "|dL/dw|", {"grad_norm": "mean of the epoch"}),
        ("speed of training", "recordings per second", {"samples_per_s": "mean of the epoch"}),
    )
    for axis, (heading, unit, columns) in zip(axes.ravel(), panels, strict=True):
        for (column, label), look in zip(columns.items(), line_styles(), strict=False):
            rows = [row for row in metrics if column in row]
            if rows:
                axis.plot([row["epoch"] for row in rows], [row[column] for row in rows], label=label, **look)
        axis.set_title(heading, loc="left")
        axis.set_ylabel(unit)
        whole_ticks(axis, len(metrics))
        if axis.lines:
            axis.legend()
        else:  # a search has no gradient
            axis.set_yticks([])
            axis.text(0.5, 0.5, "not recorded", transform=axis.transAxes, ha="center")
    if any(row.get("grad_norm", 0) > 0 for row in metrics):
        axes[2, 0].set_yscale("log")
        for ticks in (axes[2, 0].yaxis.set_major_formatter, axes[2, 0].yaxis.set_minor_formatter):
            ticks(LogFormatter(labelOnlyBase=False))  # 2 and 0.5, where a decade would be too coarse
    if axes[2, 1].lines:
        axes[2, 1].set_ylim(bottom=0)
    for axis in axes[2]:
        axis.set_xlabel("epoch")
    return drawn


@styled
def compared_curves(groups: Mapping[str, Sequence[list[dict[str, float]]]], name: str = "accuracy") -> "Figure":
    """Loss and the metric of this name in training and validation, over each other: a line for each run.

    `groups` has the rows of `metrics.csv` of every run by the name of its group. Runs of a group look alike; groups
    behind the first six, which would look like those, are grey.
    """
    labels = [*list(groups)[: len(LINES)], *["more"] * (len(groups) > len(LINES))]
    across = _across(labels)
    drawn = figure(8, 5.2 + 0.2 * -(-len(labels) // across))
    first, rest = list(groups.items())[: len(LINES)], list(groups.values())[len(LINES) :]
    looks: list[tuple[str, Sequence[list[dict[str, float]]], dict[str, Any]]] = []
    if rest:
        grey = {"color": "#888888", "linewidth": 0.5, "marker": ".", "markersize": 2, "alpha": 0.6, "zorder": 1}
        looks.append((f"{len(rest)} more", [rows for runs in rest for rows in runs], grey))
    for (label, runs), look in zip(first, line_styles(), strict=False):
        thin = {"linewidth": 0.9, "markersize": 2.5, "alpha": 0.8} if len(runs) > 1 else {}
        looks.append((label, runs, look | thin))
    axes = drawn.subplots(2, 2, sharex=True)
    for row, (column, unit) in zip(axes, (("loss", "loss"), (name, unit_of(name))), strict=True):
        for axis, (split, word) in zip(row, (("train", "training"), ("validation", "validation")), strict=True):
            for label, runs, look in looks:
                for number, rows in enumerate(runs):
                    there = [each for each in rows if f"{split}_{column}" in each]
                    values = [each[f"{split}_{column}"] for each in there]
                    axis.plot([each["epoch"] for each in there], values, label="_" if number else label, **look)
            axis.set_title(f"{column.replace('_', ' ')}, {word}", loc="left")
            axis.set_ylabel(unit)
            whole_ticks(axis, max(len(rows) for runs in groups.values() for rows in runs))
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if rest:
        handles, labels = [*handles[1:], handles[0]], [*labels[1:], labels[0]]
    drawn.legend(handles, labels, loc="outside lower center", ncols=across)
    return drawn


@styled
def layer_curves(layers: list[dict[str, Any]]) -> "Figure":
    """Rate, silent fraction and fraction inside the surrogate's window of every layer of neurons, epoch by epoch."""
    rows = [row for row in layers if "rate" in row]
    names = [short(name, 80) for name in dict.fromkeys(row["layer"] for row in rows)]
    across = _across(names)
    drawn = figure(8, 3.0 + 0.2 * -(-len(names) // across))
    axes = drawn.subplots(1, 3, sharex=True)
    panels = {
        "rate": ("rate", "spikes per neuron and step"),
        "silent": ("silent", "fraction of neurons"),
        "window": ("in the surrogate's window", "fraction of neurons and steps"),
    }
    for axis, (column, (title, unit)) in zip(axes, panels.items(), strict=True):
        for name, look in zip(dict.fromkeys(row["layer"] for row in rows), line_styles(), strict=False):
            mine = [row for row in rows if row["layer"] == name]
            axis.plot([row["epoch"] for row in mine], [row[column] for row in mine], label=name, **look)
        axis.set_title(title, loc="left")
        axis.set_ylabel(unit)
        axis.set_xlabel("epoch")
        axis.set_ylim(bottom=0)
        whole_ticks(axis, len({row["epoch"] for row in rows}))
    if names:
        drawn.legend(axes[0].lines, names, loc="outside lower center", ncols=across)
    return drawn


def unit_of(name: str) -> str:
    """What stands at the axis of a metric."""
    return "fraction of recordings" if name == "accuracy" else name.replace("_", " ")


def _across(names: Sequence[str]) -> int:
    """How many columns of a legend stand beside each other below a figure."""
    fitting = int(8 / (0.6 + 0.085 * max(map(len, names), default=0)))  # inches: a line and its name
    return max(1, min(4, fitting, len(names)))
