"""The graphs that the tests of other packages make, as NIR files for `nir_public.py`.

    python experiments/benchmarks/nir_tests.py FOLDER SOURCES/nir-1.0.8/tests SOURCES/nirtorch-2.6/tests ...

Each argument behind FOLDER is a folder or a file of tests in an unpacked source archive, whose package is installed.
Every graph that a test makes, of three nodes or more and inside no other graph, becomes a file in
FOLDER/made/ARCHIVE, written by the installed nir; numbers are drawn from one seed. Tests may fail: their graphs count.
"""

import argparse
import contextlib
import hashlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch

HANGS = 300  # seconds for the tests of an archive


class Keeper:
    """A plugin of pytest that writes the graphs of each test into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made, self.kept = folder, [], set()
        self.write, start = nir.write, nir.NIRGraph.__post_init__

        def noted(graph: Any, *args: Any, **options: Any) -> None:
            start(graph, *args, **options)
            self.made.append(graph)

        nir.NIRGraph.__post_init__ = noted  # type: ignore[method-assign]

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin with no graphs, and numbers from one seed."""
        self.made.clear()
        np.random.seed(0)
        torch.manual_seed(0)

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Write what was made."""
        inner = {id(node) for graph in self.made for node in graph.nodes.values() if isinstance(node, nir.NIRGraph)}
        for graph in [graph for graph in self.made if id(graph) not in inner and len(graph.nodes) > 2]:
            content = io.BytesIO()
            with contextlib.suppress(Exception):  # a test may make what no file holds
                self.write(content, graph)  # type: ignore[arg-type]
                digest = hashlib.sha256(content.getvalue()).hexdigest()[:10]
                if digest not in self.kept:
                    name = re.sub(r"\W+", "_", item.name)[:60]
                    (self.folder / f"{name}_{digest}.nir").write_bytes(content.getvalue())
                    self.kept.add(digest)


def main() -> None:
    """Run the tests of each archive in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tests", type=Path, nargs="+")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        options = ("-q", "-n", "0", "-p", "no:cacheprovider", "-o", "addopts=", "--continue-on-collection-errors")
        pytest.main([*options, "-W", "ignore", *map(str, given.tests)], plugins=[Keeper(given.folder)])
        return
    archives: dict[Path, list[Path]] = {}
    for path in (path.resolve() for path in given.tests):
        root = next(each for each in path.parents if (each / "PKG-INFO").is_file())
        archives.setdefault(root, []).append(path.relative_to(root))
    for root, tests in archives.items():
        folder = given.folder.resolve() / "made" / root.name
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(Path(__file__).resolve()), str(folder), *map(str, tests), "--here"]
        subprocess.run(command, cwd=root, env={**os.environ, "PYTHONHASHSEED": "0"}, timeout=HANGS, check=False)
        print(f"{root.name}: {len(list(folder.glob('*.nir')))} graphs")


if __name__ == "__main__":
    main()
