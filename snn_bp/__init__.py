"""Train spiking networks by backpropagation through time, and trust what comes out."""

from snn_bp.errors import SnnError
from snn_bp.kernels import rest, simulate, use_backend
from snn_bp.layers import BatchNorm, Conv, Dense, Dropout, Flatten, Pool, Recurrent, Spiking
from snn_bp.losses import (
    CountCrossEntropy,
    CountSquaredError,
    FirstSpike,
    MaxCrossEntropy,
    MembraneCrossEntropy,
    RateBounds,
)
from snn_bp.network import Network, start_alive
from snn_bp.neurons import ALIF, IF, LI, LIF, CubaLIF, State, Tau, decay
from snn_bp.surrogates import (
    ATan,
    Boxcar,
    Exponential,
    FastSigmoid,
    Gaussian,
    MultiGaussian,
    Sigmoid,
    StraightThrough,
    Surrogate,
    Triangular,
)

__all__ = [
    "ALIF",
    "IF",
    "LI",
    "LIF",
    "ATan",
    "BatchNorm",
    "Boxcar",
    "Conv",
    "CountCrossEntropy",
    "CountSquaredError",
    "CubaLIF",
    "Dense",
    "Dropout",
    "Exponential",
    "FastSigmoid",
    "FirstSpike",
    "Flatten",
    "Gaussian",
    "MaxCrossEntropy",
    "MembraneCrossEntropy",
    "MultiGaussian",
    "Network",
    "Pool",
    "RateBounds",
    "Recurrent",
    "Sigmoid",
    "SnnError",
    "Spiking",
    "State",
    "StraightThrough",
    "Surrogate",
    "Tau",
    "Triangular",
    "decay",
    "rest",
    "simulate",
    "start_alive",
    "use_backend",
]
