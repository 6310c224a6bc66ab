"""The compiled loops of the CPU, an operation a file. A file is imported, and numba with it, when it is asked for."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from snn_bp.kernels.cpu import aligned as aligned
    from snn_bp.kernels.cpu import chain as chain
    from snn_bp.kernels.cpu import compile as compile
    from snn_bp.kernels.cpu import neuron as neuron
    from snn_bp.kernels.cpu import norm_neurons as norm_neurons
    from snn_bp.kernels.cpu import packed_layer as packed_layer
    from snn_bp.kernels.cpu import pool as pool
    from snn_bp.kernels.cpu import sparse_ops as sparse_ops

Memory: TypeAlias = Literal["full", "low"]
_MODULES = {path.stem for path in Path(__file__).parent.glob("*.py")}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module(f"{__name__}.{name}")
