"""Fixtures: noise from generators in sight, and the folder of real recordings."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from snn_bp.runtime import status

# the workers and the Pythons that tests start compile each file once, also where nothing was to be written
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
torch.set_num_threads(1)  # tensors are small here: more threads only wait for each other

status.LONG = float("inf")  # on a busy machine any phase is long: none is said, but where a test says when

settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("repeatable")

SHORT = (  # files of many short tests: the last ones, so that the workers of pytest-xdist end together
    "test_floors", "test_docstrings", "test_equations", "test_experiment", "test_cli_wrong", "test_formats",
    "test_fields", "test_lava", "test_metrics", "test_losses", "test_surrogates", "test_api", "test_neurons",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Leave the order of the files to what stands below."""
    config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many tests first, which take long on the whole, and those of `SHORT` last."""
    counts = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.stem in SHORT, -counts[item.path], item.path))


@pytest.fixture
def noise() -> Callable[..., Tensor]:
    """Normal input currents of a shape; the same for the same arguments."""

    def draw(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return draw


@pytest.fixture
def dyadic() -> Callable[..., Tensor]:
    """Noise in multiples of 1 / 64: sums of such numbers are exact in any order."""

    def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.round(64 * scale * torch.randn(shape, generator=generator)) / 64

    return draw


@pytest.fixture
def coin() -> Callable[..., Tensor]:
    """Independent spikes of a probability; the same for the same arguments."""

    def draw(*shape: int, probability: float, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return (torch.rand(shape, generator=generator) < probability).float()

    return draw


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings, described in its README."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SNN_BP_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}: set SNN_BP_SHARED to their folder")
    return folder
