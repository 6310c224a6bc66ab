"""Surrogate spike derivatives: what the backward pass uses in place of the step's zero or infinite derivative.

Each is one line of arithmetic: nine of ours (`ours.py`), and a user's own by `@surrogate` (`making.py`). Names and
default slopes of ours are those of `snntorch.surrogate`. Slopes count per unit of threshold, so that a network
behaves the same when weights and threshold are scaled together; `per="potential"` counts them as snnTorch does. At
threshold 1 both are the same.
"""

from snn_bp.surrogates.making import surrogate as surrogate
from snn_bp.surrogates.ours import SHAPES as SHAPES
from snn_bp.surrogates.ours import ATan as ATan
from snn_bp.surrogates.ours import Boxcar as Boxcar
from snn_bp.surrogates.ours import Exponential as Exponential
from snn_bp.surrogates.ours import FastSigmoid as FastSigmoid
from snn_bp.surrogates.ours import Gaussian as Gaussian
from snn_bp.surrogates.ours import MultiGaussian as MultiGaussian
from snn_bp.surrogates.ours import Sigmoid as Sigmoid
from snn_bp.surrogates.ours import SlopeOf as SlopeOf
from snn_bp.surrogates.ours import StraightThrough as StraightThrough
from snn_bp.surrogates.ours import Surrogate as Surrogate
from snn_bp.surrogates.ours import Triangular as Triangular
from snn_bp.surrogates.ours import Unit as Unit
from snn_bp.surrogates.ours import check_surrogate as check_surrogate
