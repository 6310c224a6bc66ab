"""tonic, imported where it is needed: it is slow to import, and an extra from Python 3.12 on."""

import importlib
from importlib import metadata
from types import ModuleType

from snn_bp.errors import SnnError


def tonic_module(name: str) -> ModuleType:
    """`tonic.datasets` or `tonic.transforms`; one error where tonic is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as cause:
        raise _missing(name) from cause


def tonic_version() -> str:
    """The version of tonic that is installed; one error where none is."""
    try:
        return metadata.version("tonic")
    except metadata.PackageNotFoundError as cause:
        raise _missing("tonic") from cause


def _missing(name: str) -> SnnError:
    return SnnError(
        f"{name}: the package tonic, or one that it needs, is not installed. pip install 'snn_bp[tonic]'; from Python "
        "3.12 on that takes a C compiler."
    )
