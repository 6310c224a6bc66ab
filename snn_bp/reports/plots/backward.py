"""Pictures of one backward pass: raster with the error behind the spikes, error map, the surrogate's window."""

from typing import TYPE_CHECKING

import numpy as np

from snn_bp.errors import SnnError, check_number
from snn_bp.instruments.traces import LayerTrace, Trace
from snn_bp.model.activity import WINDOW
from snn_bp.neurons import is_leaky, is_spiking
from snn_bp.reports.plots.style import LINES, SEQUENTIAL, figure, light_half, short, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLOPE = LINES[1][0]
DECADES = 4  # shown decades of the error; what lies below has the colour of the lowest


@styled
def raster(trace: Trace, *, sample: int = 0, neurons: int = 64) -> "Figure":
    """Spikes of one recording as dots over |dL/dv| as colour: up to `neurons` of each layer, evenly spaced.

    Of a layer that does not spike the error alone. The scale of colours is one for all layers, `DECADES` wide.
    """
    from matplotlib.colors import LogNorm

    check_number("raster: neurons", neurons, integer=True, low=1)
    batch = trace.layers[0].error.shape[1]
    check_number("raster: sample", sample, integer=True, low=0, high=batch - 1)
    drawn = figure(8, 0.8 + 1.9 * len(trace.layers))
    axes = drawn.subplots(len(trace.layers), 1, sharex=True, squeeze=False)[:, 0]
    errors = [layer.error[:, sample].flatten(1).abs().cpu().numpy() for layer in trace.layers]
    highest = max(float(np.nan_to_num(error, posinf=0).max()) for error in errors) or 1.0
    lowest = highest / 10**DECADES
    norm = LogNorm(lowest, highest, clip=True)
    shades = light_half("YlOrBr")
    picture = None
    for axis, layer, error in zip(axes, trace.layers, errors, strict=True):
        count = error.shape[1]
        shown = np.linspace(0, count - 1, min(neurons, count)).astype(int)
        extent = (-0.5, len(error) - 0.5, -0.5, len(shown) - 0.5)
        picture = axis.imshow(
            np.maximum(error[:, shown].T, lowest), aspect="auto", origin="lower", norm=norm, cmap=shades,
            extent=extent, interpolation="nearest",
        )  # fmt: skip
        if is_spiking(layer.neuron):
            steps, rows = np.nonzero(layer.spikes[:, sample].flatten(1).cpu().numpy()[:, shown])
            axis.plot(steps, rows, ".", color="#0a0a0a", markersize=4, rasterized=len(steps) > 2000)
        part = f"{count} neurons" if count == len(shown) else f"{len(shown)} of {count} neurons"
        axis.set_title(f"{short(layer.name, 60)}: {part}", loc="left")
        axis.set_ylabel("neuron")
        axis.yaxis.get_major_locator().set_params(integer=True)
    _label_steps(axes[-1])
    assert picture is not None
    bar = drawn.colorbar(picture, ax=list(axes), label="error |dL/dv|", extend="min", aspect=40)
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]
    return drawn


@styled
def error_map(trace: Trace) -> "Figure":
    """The norm of dL/dv of every layer at every step, on a logarithmic scale; white where no error arrives."""
    from matplotlib.colors import LogNorm

    errors = trace.errors.cpu().numpy()
    seen = errors[np.isfinite(errors) & (errors > 0)]
    drawn = figure(8, 1.5 + 0.45 * len(errors))
    axis = drawn.subplots()
    norm = LogNorm(seen.min(), max(seen.max(), seen.min() * 1.001)) if len(seen) else LogNorm(0.1, 1)
    picture = axis.imshow(
        np.ma.masked_less_equal(errors, 0), aspect="auto", norm=norm, cmap=SEQUENTIAL, interpolation="nearest"
    )
    axis.set_yticks(range(len(errors)), [short(layer.name, 40) for layer in trace.layers])
    _label_steps(axis)
    axis.set_title("input above, output below; the error travels up and to the left", loc="left")
    drawn.colorbar(picture, ax=axis, label="norm of dL/dv")
    return drawn


@styled
def surrogate_window(trace: Trace) -> "Figure":
    """The surrogate's slope over the histogram of distances from threshold, v - theta, of each layer that spikes.

    Where neurons adapt, their threshold is the raised one. Shaded: the window, a slope above a tenth of the height.
    """
    spiking = [layer for layer in trace.layers if layer.distances is not None]
    if not spiking:
        raise SnnError("surrogate_window: no layer of the trace spikes, so none has a surrogate.")
    columns = min(2, len(spiking))
    rows = -(-len(spiking) // columns)
    drawn = figure(8, 0.6 + 2.3 * rows)
    axes = drawn.subplots(rows, columns, squeeze=False).ravel()
    for axis, layer in zip(axes, spiking, strict=False):
        _draw_window(axis, layer)
    for axis in axes[len(spiking) :]:
        axis.set_visible(False)
    handles, names = axes[0].get_legend_handles_labels()
    drawn.legend(handles, names, loc="outside upper center", ncols=3)
    return drawn


def _draw_window(axis, layer: LayerTrace) -> None:
    assert layer.distances is not None and layer.slopes is not None
    distances = layer.distances.flatten().cpu().numpy()
    slopes = (layer.slopes / layer.height).flatten().cpu().numpy()
    finite = np.isfinite(distances)
    distances, slopes = distances[finite], slopes[finite]
    low, high = np.quantile(distances, (0.005, 0.995)) if len(distances) else (0, 0)
    low, high = min(low, -1.0), max(high, 1.0)
    edges = np.linspace(low, high, 61)
    counts, _ = np.histogram(distances, edges)
    bins = np.digitize(distances, edges) - 1
    inside = (bins >= 0) & (bins < 60)
    sums = np.bincount(bins[inside], slopes[inside], minlength=60)
    met = counts > 0
    middles, curve = (edges[1:] + edges[:-1])[met] / 2, (sums[met] / counts[met])
    axis.stairs(counts / len(finite), edges, fill=True, color="#9aa7b5", label="neurons and steps")
    axis.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axis.set_xlabel("v - theta" if is_leaky(layer.neuron) else "distance from threshold")
    axis.set_ylabel("fraction")
    axis.set_title(f"{short(layer.name, 42)}\n{layer.window:.0%} in the window", loc="left")
    other = axis.twinx()
    other.plot(middles, curve, color=SLOPE, linewidth=1.6)
    other.fill_between(middles, 0, 1.05, where=curve > WINDOW, color=SLOPE, alpha=0.12, linewidth=0, step="mid")
    other.set_ylim(1.05 * min([0, *curve]), 1.05)  # a shape may have negative lobes
    other.set_ylabel("slope / height")
    other.spines["right"].set_visible(True)
    axis.plot([], [], color=SLOPE, linewidth=1.6, label=f"slope of {layer.surrogate}")
    axis.fill_between([], [], color=SLOPE, alpha=0.2, label="window")


def _label_steps(axis) -> None:
    axis.set_xlabel("time step")
    axis.xaxis.get_major_locator().set_params(integer=True)
