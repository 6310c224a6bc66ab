"""Pictures of a run and of one backward pass, as matplotlib figures readable in colour and in grey."""

from snn_bp.report.plots.backward import error_map as error_map
from snn_bp.report.plots.backward import raster as raster
from snn_bp.report.plots.backward import surrogate_window as surrogate_window
from snn_bp.report.plots.events import event_movie as event_movie
from snn_bp.report.plots.events import event_strip as event_strip
from snn_bp.report.plots.pictures import Picture as Picture
from snn_bp.report.plots.pictures import save_plots as save_plots
from snn_bp.report.plots.results import confusion_matrix as confusion_matrix
from snn_bp.report.plots.training import layer_curves as layer_curves
from snn_bp.report.plots.training import training_curves as training_curves
from snn_bp.report.plots.weights import weight_filters as weight_filters
from snn_bp.report.plots.weights import weight_histogram as weight_histogram
