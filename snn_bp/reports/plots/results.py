"""The confusion matrix of a split, and predictions of numbers against their targets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from snn_bp.errors import SnnError
from snn_bp.reports.plots.style import LINES, SEQUENTIAL, figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 1000  # drawn for each output
MAX_NUMBERED = 25  # classes, beyond which numbers in the cells cannot be read


@styled
def confusion_matrix(confusion: Sequence[Sequence[int]], class_names: Sequence[str] = ()) -> "Figure":
    """How often each class (row) was taken for each (column): colour is the fraction of the row, numbers are counts."""
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not len(counts):
        raise SnnError(f"confusion_matrix: it should be [classes, classes], found {list(counts.shape)}.")
    names = list(class_names) or [str(index) for index in range(len(counts))]
    if len(names) != len(counts):
        raise SnnError(f"confusion_matrix: {len(names)} class names for {len(counts)} classes.")
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    longest = max(map(len, names))
    size = min(9.0, max(4.2, 1.8 + 0.38 * len(counts))) + 0.08 * longest
    drawn = figure(size + 0.8, size)
    axis = drawn.subplots()
    picture = axis.imshow(fractions, vmin=0, vmax=1, cmap=SEQUENTIAL)
    axis.set_xticks(range(len(names)), names, rotation=90 if longest > 2 else 0)
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(labelsize=10 if len(names) <= MAX_NUMBERED else 5)
    axis.set_xlabel("prediction")
    axis.set_ylabel("true class")
    if len(names) <= MAX_NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "#0a0a0a" if fractions[row, column] > 0.5 else "#ffffff"
            axis.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=9)
    drawn.colorbar(picture, ax=axis, label="fraction of the true class", shrink=0.8)
    return drawn


@styled
def prediction_scatter(targets: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> "Figure":
    """Predictions over targets `[points, outputs]`, a colour for each output, and the line on which they are right."""
    if targets.ndim != 2 or targets.shape != predicted.shape or targets.shape[1] != len(names):
        raise SnnError(
            f"prediction_scatter: both should be [points, {len(names)} outputs], found {list(targets.shape)} and "
            f"{list(predicted.shape)}."
        )
    drawn = figure(5.6, 4.6)
    axis = drawn.subplots()
    few = np.linspace(0, len(targets) - 1, min(len(targets), MAX_POINTS)).astype(int)
    for index, (name, (color, _, marker)) in enumerate(zip(names, LINES, strict=False)):
        axis.scatter(targets[few, index], predicted[few, index], s=9, color=color, marker=marker or "o", label=name)
    ends = [min(targets.min(), predicted.min()), max(targets.max(), predicted.max())]
    axis.plot(ends, ends, color="#8c8c8c", linewidth=1, label="_")
    axis.set_xlabel("target")
    axis.set_ylabel("prediction")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return drawn
