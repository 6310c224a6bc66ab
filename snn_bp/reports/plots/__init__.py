"""Pictures of a run, a network, a trace or a comparison: `from snn_bp import plots`, then `plots.curves(run)`.

Each function takes the value that it shows and gives a matplotlib `Figure`, which a notebook shows as a cell's last
line; `movie` and `steps` give what moves. All are readable in colour and in grey, on light and on dark.

>>> plots.curves(run).savefig("curves.png")  # the run of `train`
"""

from snn_bp.reports.plots.face import (
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

__all__ = [
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
