"""What the weights look like: filters of the first layer, and how often each integer stands in an export."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from snn_bp.errors import SnnError, check_number
from snn_bp.model.blocks import every_part, own_weights, parts_of
from snn_bp.model.exact import check_exact, has_known_class
from snn_bp.model.network import Network
from snn_bp.reports.plots.style import LINES, SEQUENTIAL, figure, short, styled, whole_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PER_ROW = 8  # filters next to each other


@styled
def weight_filters(network: Network, *, filters: int = 16) -> "Figure":
    """Up to `filters` of the first layer's weights: kernels, or what each dense neuron sees laid out as the sensor.

    A column is a filter, a row an input channel. Where the input is no image, the matrix of all weights.
    """
    check_number("weight_filters: filters", filters, integer=True, low=1)
    name, weight = _first_weights(network)
    largest = float(np.abs(weight).max()) or 1.0
    look = {"vmin": -largest, "vmax": largest, "cmap": SEQUENTIAL, "interpolation": "nearest"}
    if weight.ndim != 4:
        drawn = figure(8, 3.6)
        axis = drawn.subplots()
        picture = axis.imshow(weight.reshape(len(weight), -1), aspect="auto", **look)
        axis.set_xlabel("input channel" if weight.ndim == 2 else "input channel and position in the kernel")
        axis.set_ylabel("neuron or channel")
        whole_ticks(axis)
        axis.set_title(f"{name}: all {len(weight)} x {weight[0].size} weights", loc="left")
        drawn.colorbar(picture, ax=axis, label="weight")
        return drawn
    shown, channels = weight[:filters], min(weight.shape[1], 4)
    mosaic, gap = _mosaic(shown[:, :channels])
    height, width = shown.shape[2] + gap, shown.shape[3] + gap
    drawn = figure(8, min(12.0, 0.8 + 6.6 * mosaic.shape[0] / mosaic.shape[1]))
    axis = drawn.subplots()
    axis.set_axis_off()
    picture = axis.imshow(mosaic, **look)
    for index in range(len(shown)):
        row, column = index // PER_ROW * channels, index % PER_ROW
        axis.text(column * width + gap, row * height + gap - 0.7, str(index), fontsize=7, va="bottom")
        for channel in range(channels if column == 0 else 0):
            at = (row + channel + 0.5) * height + gap / 2
            axis.text(gap - 0.8, at, f"channel {channel}", fontsize=7, rotation=90, ha="right", va="center")
    cut = f", input channels 0..{channels - 1} of {weight.shape[1]}" if channels < weight.shape[1] else ""
    axis.set_title(f"{name}: {len(shown)} of {len(weight)} filters{cut}")
    drawn.colorbar(picture, ax=axis, label="weight", aspect=30)
    return drawn


@styled
def weight_histogram(weights: Mapping[str, Mapping[int, int]]) -> "Figure":
    """How often each integer stands in each population of an export: its grid, and what of it is used."""
    if not weights:
        raise SnnError("weight_histogram: the verification names no weights; that of a .net, .xylo or .v file does.")
    rows = -(-len(weights) // 2)
    drawn = figure(8, 0.4 + 2 * rows)
    axes = drawn.subplots(rows, 2 if len(weights) > 1 else 1, sharex=True, squeeze=False).ravel()
    for axis, (name, counts) in zip(axes, weights.items(), strict=False):
        values = np.array(sorted(counts))
        axis.vlines(values, 0, [counts[value] for value in values], color=LINES[0][0], linewidth=1.2)
        spacing = np.gcd.reduce(np.diff(values)) if len(values) > 1 else 1
        axis.set_title(f"{short(name, 46)}\n{len(values)} values, steps of {spacing}", loc="left")
        axis.set_ylabel("weights")
        axis.set_ylim(bottom=0)
        axis.set_xlabel("integer")
    for axis in axes[len(weights) :]:
        axis.set_visible(False)
    return drawn


def _mosaic(kernels: np.ndarray) -> tuple[np.ndarray, int]:
    """Kernels `[filters, channels, H, W]` as one picture, `PER_ROW` across, channels below each other; and the gap."""
    filters, channels, height, width = kernels.shape
    gap = max(1, round(0.3 * height))
    columns, rows = min(PER_ROW, filters), -(-filters // PER_ROW) * channels
    mosaic = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap), np.nan, np.float32)
    for index, channel in np.ndindex(filters, channels):
        top = (index // PER_ROW * channels + channel) * (height + gap) + gap
        left = index % PER_ROW * (width + gap) + gap
        mosaic[top : top + height, left : left + width] = kernels[index, channel]
    return mosaic, gap


def _first_weights(network: Network) -> tuple[str, np.ndarray]:
    """The name and weights of the first layer that has some; of dense ones `[units, *shape]` where that is an image."""
    parts = list(every_part(parts_of(network)))
    for at, part in enumerate(parts):
        if part.role == "weights":
            weight: np.ndarray = part.layer.weight.detach().cpu().numpy()  # type: ignore[operator, union-attr]
            while at and parts[at - 1].role == "flatten" and parts[at - 1].path[:-1] == parts[at].path[:-1]:
                at -= 1
            shape = parts[at].before
            is_image = weight.ndim == 2 and len(shape) == 3
            return network.name(part.path), weight.reshape(-1, *shape) if is_image else weight
        if not has_known_class(part.layer) and own_weights(part):
            check_exact("weight_filters", network.name(part.path), part.layer)
    raise SnnError("weight_filters: the network has no layer of weights.")
