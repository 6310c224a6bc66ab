"""The page of a run, one HTML file that needs nothing else, runs side by side, and pictures of what one has."""

from snn_bp.reports import plots as plots
from snn_bp.reports.comparison import compare as compare
from snn_bp.reports.write import report as report
