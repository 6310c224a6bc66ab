"""Search for weights with or without gradients: one objective, one budget, one network, one stream of mini-batches.
Beside it, sweeps over settings (`study.py`), a grid of them (`grid.py`, `sweeping.py`) or trials (`space.py`,
`trials.py`).

The three gradient-free methods are our own, 150 lines in `methods.py`. Kept libraries were judged by their package's
metadata (November 2026), not tried: evox is GPL-3, evosax brings jax and evotorch ray, nevergrad pins one version of
bayesian-optimization and brings pandas, pymoo is 22 MB and brings six more; PyGAD and cma are small, but one method of
three each. cma was run beside our strategy, one seed, spheres and ellipsoids of 10 and 100 dimensions: after as many
evaluations our value is at most four times its, until single precision ends.
"""

from snn_bp.searches.loop import resume_search as resume_search
from snn_bp.searches.loop import search as search
from snn_bp.searches.objective import Objective as Objective
from snn_bp.searches.objective import OfOutput as OfOutput
from snn_bp.searches.record import Search as Search
from snn_bp.searches.study import Sweep as Sweep
from snn_bp.searches.study import sweep as sweep
