"""Random graphs of every kind, those of the benchmark against lava's client.

A package, because two files of tests are called test_simulate.py.
"""

import runpy
from pathlib import Path

_benchmark = runpy.run_path(str(Path(__file__).resolve().parents[2] / "experiments" / "benchmarks" / "lava_client.py"))
KINDS = _benchmark["KINDS"]
compare = _benchmark["compare"]
random_graph = _benchmark["random_graph"]
random_input = _benchmark["random_input"]
