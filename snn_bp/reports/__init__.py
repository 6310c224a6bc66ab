"""The page of a run, one HTML file that needs nothing else, and runs side by side."""

from snn_bp.reports.comparison import compare as compare
from snn_bp.reports.write import report as report
