"""Pictures of a run, a network, a trace or a comparison: `from snn_bp import plots`, then `plots.curves(run)`.

Each function takes the value that it shows and gives a matplotlib `Figure`, or a `Movie` or `Steps`, which a notebook
shows as a cell's last line. They are readable in colour and in grey, on light and on dark.
"""

from snn_bp.reports.plots.face import (
    Movie,
    confusion,
    curves,
    error_map,
    events,
    layers,
    movie,
    predictions,
    raster,
    steps,
    surrogate_window,
    weight_histogram,
    weights,
)
from snn_bp.reports.plots.pictures import save_plots
from snn_bp.reports.plots.steps import Steps

__all__ = [
    "Movie",
    "Steps",
    "confusion",
    "curves",
    "error_map",
    "events",
    "layers",
    "movie",
    "predictions",
    "raster",
    "save_plots",
    "steps",
    "surrogate_window",
    "weight_histogram",
    "weights",
]
