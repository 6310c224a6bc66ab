"""Kernels compile and run whatever becomes of numba's cache on disk."""

import importlib.util
import shutil
from pathlib import Path

import numba
import numpy as np
import pytest

from snn_bp.kernels.cpu import disk

SOURCE = "def doubled(values):\n    return 2 * values\n"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The only folder that numba may cache in; nothing has been said yet."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.setattr(disk, "_warned", type(disk._warned)())
    return tmp_path / "numba"


def written(tmp_path: Path):
    """A function in a file of its own."""
    file = tmp_path / "kernel_of_a_test.py"
    file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("kernel_of_a_test", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.doubled


def test_a_kernel_is_kept_and_found_again(folder, tmp_path, capsys):
    first, second = disk.cached(written(tmp_path)), disk.cached(written(tmp_path))

    assert first(np.arange(3)).tolist() == second(np.arange(3)).tolist() == [0, 2, 4]
    assert sum(second.stats.cache_hits.values()) == 1
    assert capsys.readouterr().err == ""


def test_without_any_folder_a_kernel_is_compiled_in_memory_and_that_is_said_once(folder, capsys):
    names: dict = {}
    exec(compile(SOURCE, "<nowhere>", "exec"), names)

    kernels = [disk.cached(names["doubled"]) for _ in range(2)]

    assert [kernel(np.arange(3)).tolist() for kernel in kernels] == [[0, 2, 4]] * 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "compiled in memory" in said and "NUMBA_CACHE_DIR" in said


@pytest.mark.slow
def test_a_folder_that_stops_being_one_costs_time_only(folder, tmp_path, capsys):
    kernel = disk.cached(written(tmp_path))
    shutil.rmtree(folder)
    folder.write_text("no folder")

    assert kernel(np.arange(3)).tolist() == [0, 2, 4]
    assert "numba's cache fails" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_a_cut_file_of_the_cache_is_made_again(folder, tmp_path, ending, capsys):
    disk.cached(written(tmp_path))(np.arange(3))
    for file in folder.rglob(f"*.{ending}"):
        file.write_bytes(file.read_bytes()[:9])

    again, later = disk.cached(written(tmp_path)), disk.cached(written(tmp_path))

    assert again(np.arange(3)).tolist() == later(np.arange(3)).tolist() == [0, 2, 4]
    assert sum(later.stats.cache_hits.values()) == 1
    assert "compiled anew" in capsys.readouterr().err
