"""Pictures of a run and of one backward pass, as matplotlib figures readable in colour and in grey."""

from snn_bp.reports.plots.backward import error_map as error_map
from snn_bp.reports.plots.backward import raster as raster
from snn_bp.reports.plots.backward import surrogate_window as surrogate_window
from snn_bp.reports.plots.epochs import layer_curves as layer_curves
from snn_bp.reports.plots.epochs import training_curves as training_curves
from snn_bp.reports.plots.filters import weight_filters as weight_filters
from snn_bp.reports.plots.filters import weight_histogram as weight_histogram
from snn_bp.reports.plots.pictures import Picture as Picture
from snn_bp.reports.plots.pictures import save_plots as save_plots
from snn_bp.reports.plots.recordings import event_movie as event_movie
from snn_bp.reports.plots.recordings import event_strip as event_strip
from snn_bp.reports.plots.results import confusion_matrix as confusion_matrix
from snn_bp.reports.plots.results import prediction_scatter as prediction_scatter
