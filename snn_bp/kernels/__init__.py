"""The equation over time, by backend: the torch reference, numba on the CPU, Triton on a GPU, and integers."""

from snn_bp.kernels.arguments import check_finite as check_finite
from snn_bp.kernels.arguments import first_state as first_state
from snn_bp.kernels.arguments import parameters_of as parameters_of
from snn_bp.kernels.dispatch import BACKENDS as BACKENDS
from snn_bp.kernels.dispatch import runs_compiled as runs_compiled
from snn_bp.kernels.dispatch import runs_reference as runs_reference
from snn_bp.kernels.dispatch import simulate as simulate
from snn_bp.kernels.dispatch import simulate_layer as simulate_layer
from snn_bp.kernels.dispatch import use_backend as use_backend
from snn_bp.kernels.state import potential_of as potential_of
from snn_bp.kernels.state import rest as rest
from snn_bp.kernels.state import state_of as state_of
