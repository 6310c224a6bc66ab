"""Recordings for the tests: the digits made here, and small parts of real sets where they lie."""

import os
from pathlib import Path

import pytest

from snn_bp.data import Data, Dataset, load


def _shared() -> Path:
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return Path(os.environ.get("SNN_BP_SHARED") or beside)


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The folder with small parts of real data sets."""
    folder = _shared()
    if not (folder / "NMNIST").is_dir():
        pytest.skip(f"no real recordings in {folder}; name their folder in SNN_BP_SHARED")
    return folder


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load(Data("digits"), quiet=True)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SNN_BP_CACHE", str(folder))
    return folder


@pytest.fixture
def few_nmnist(recorded, tmp_path) -> Path:
    """A root with 3 training and 2 test recordings of each of two digits of N-MNIST, free to be changed."""
    for part, count in (("Train", 3), ("Test", 2)):
        for digit in "38":
            folder = tmp_path / "root" / "NMNIST" / part / digit
            folder.mkdir(parents=True)
            for file in sorted((recorded / "NMNIST" / part / digit).glob("*.bin"))[:count]:
                (folder / file.name).write_bytes(file.read_bytes())
    return tmp_path / "root"
