"""`python -m snn_bp` is `snn-bp`."""

from snn_bp.cli import entry

entry()
