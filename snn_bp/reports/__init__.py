"""`report`: the page of a run, one HTML file that needs nothing else."""

from snn_bp.reports.write import report as report
