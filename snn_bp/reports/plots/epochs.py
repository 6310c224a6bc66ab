"""Curves over the epochs of a run: what `metrics.csv` and `layers.jsonl` hold."""

from typing import TYPE_CHECKING, Any

from snn_bp.reports.plots.style import figure, line_styles, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def training_curves(metrics: list[dict[str, float]], name: str = "accuracy") -> "Figure":
    """Loss, the metric of this name, spike rate and gradient norm of every epoch."""
    words = name.replace("_", " ")
    unit_of_metric = "fraction of recordings" if name == "accuracy" else words
    drawn = figure(8, 5.2)
    axes = drawn.subplots(2, 2, sharex=True)
    panels = (
        ("loss", "loss", {"train_loss": "training", "validation_loss": "validation"}),
        (words, unit_of_metric, {f"train_{name}": "training", f"validation_{name}": "validation"}),
        ("spike rate", "spikes per neuron and step", {"spike_rate": "mean of all layers"}),
        ("gradient norm, before clipping", "|dL/dw|", {"grad_norm": "mean of the epoch"}),
    )
    for axis, (title, unit, columns) in zip(axes.ravel(), panels, strict=True):
        for (column, name), look in zip(columns.items(), line_styles(), strict=False):
            rows = [row for row in metrics if column in row]
            if rows:
                axis.plot([row["epoch"] for row in rows], [row[column] for row in rows], label=name, **look)
        axis.set_title(title, loc="left")
        axis.set_ylabel(unit)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if axis.lines:  # a search has no gradient
            axis.legend()
    if any(row.get("grad_norm", 0) > 0 for row in metrics):
        axes[1, 1].set_yscale("log")
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    return drawn


@styled
def layer_curves(layers: list[dict[str, Any]]) -> "Figure":
    """Rate, silent fraction and fraction inside the surrogate's window of every layer of neurons, epoch by epoch."""
    drawn = figure(8, 3.4)
    axes = drawn.subplots(1, 3, sharex=True)
    rows = [row for row in layers if "rate" in row]
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
        axis.xaxis.get_major_locator().set_params(integer=True)
    handles, names = axes[0].get_legend_handles_labels()
    if names:
        columns = int(8 / (0.6 + 0.085 * max(map(len, names))))  # inches: a line and its name
        drawn.legend(handles, names, loc="outside lower center", ncols=max(1, min(4, columns, len(names))))
    return drawn
