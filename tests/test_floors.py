"""The package stands in floors: a file imports from lower ones, heavy libraries from one place only."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "snn_bp"

# the first part of a module's name below snn_bp -> its floor; a folder is one entry
FLOORS = {
    "equations": 0, "errors": 0, "fields": 0, "files": 0, "lock": 0, "capacity": 0, "signals": 0,
    "neurons": 1, "surrogates": 1,
    "kernels": 2,
    "layers": 3, "exact": 3, "stateless": 3, "start": 3, "activity": 3, "inputs": 3,
    "chains": 3, "blocks": 3, "folding": 3, "chip": 3, "network": 3, "losses": 3, "bridge": 3,
    "data": 4, "experiment": 4, "memory": 4, "checkpoint": 4, "provenance": 4, "records": 4, "tables": 4, "run": 4,
    "optimizer": 5, "feasibility": 5,
    "train": 5, "resuming": 5, "evaluate": 5, "progress": 5, "diagnose": 5, "search": 5, "estimate": 5,
    "export": 5, "plots": 5, "report": 5,
    "local": 5, "landscape": 5, "momentum": 5, "cost": 5, "comparison": 5,
    "experiment_file": 5,
    "cli": 6, "__main__": 6,
}  # fmt: skip
ONLY_IN = {
    "numba": {"kernels"},
    "triton": {"kernels"},
    "tonic": {"data"},
    "snntorch": {"bridge"},
    "nir": {"export"},
    "h5py": {"data", "export"},
    "lava": {"export"},
    "jinja2": {"report"},
    "matplotlib": {"plots", "report"},
    "samna": set(),
}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")  # which exports the names


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path, *, running: bool = False) -> Iterator[str]:
    """The dotted names that a file imports, wherever in it; `from a import b` gives `a.b`.

    `running=True` leaves out what stands below `if TYPE_CHECKING`, which closes no circle.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if running:
        tree = WithoutTypeChecking().visit(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} line {node.lineno}: a relative import; write snn_bp.{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


class WithoutTypeChecking(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.If | None:
        return None if ast.unparse(node.test).endswith("TYPE_CHECKING") else node


def entries_below(path: Path) -> set[str]:
    """Which entries of `FLOORS` a file imports from, its own left out."""
    names = [name.split(".") for name in imports_of(path)]
    mine = module_of(path).split(".")[0]
    return {parts[1] for parts in names if parts[0] == "snn_bp" and len(parts) > 1} - {mine}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_has_a_floor_and_imports_from_no_higher_one(path):
    entry = module_of(path).split(".")[0]
    assert entry in FLOORS, f"{entry} has no floor: give it one in {Path(__file__).name}"

    imported = entries_below(path)

    assert imported <= FLOORS.keys(), f"import from the module, not from snn_bp: {imported - FLOORS.keys()}"
    assert {name for name in imported if FLOORS[name] > FLOORS[entry]} == set()


def test_the_lowest_floor_imports_nothing_of_ours():
    assert {module_of(path): entries_below(path) for path in FILES if module_of(path) in ("equations", "errors")} == {
        "equations": set(),
        "errors": set(),
    }


def test_files_import_each_other_in_no_circle():
    graph: dict[str, set[str]] = {}
    for path in FILES:
        graph.setdefault(module_of(path).split(".")[0], set()).update(entries_below(path))

    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as cycle:
        pytest.fail(f"a circle of imports: {' -> '.join(cycle.args[1])}")

    assert order.index("layers") < order.index("network")


@pytest.mark.parametrize("folder", ("kernels", "data", "diagnose", "export", "local", "plots", "report", "search"))
def test_files_of_a_folder_import_each_other_in_no_circle(folder):
    modules = {module_of(path): path for path in FILES if path.parent == PACKAGE / folder}
    graph = {name: set() for name in modules}
    for name, path in modules.items():
        for imported in imports_of(path, running=True):
            dotted = imported.removeprefix("snn_bp.")
            graph[name] |= {dotted, dotted.rpartition(".")[0]} & (modules.keys() - {name, folder})

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as cycle:
        pytest.fail(f"a circle of imports: {' -> '.join(cycle.args[1])}")


@pytest.mark.parametrize("library, entries", ONLY_IN.items(), ids=ONLY_IN)
def test_a_library_is_imported_in_its_place_only(library, entries):
    found = {
        module_of(path).split(".")[0]
        for path in FILES
        if any(name.split(".")[0] == library for name in imports_of(path))
    }

    assert found <= entries


def test_importing_the_package_leaves_slow_libraries_out():
    slow = ("tonic", "snntorch", "matplotlib", "pandas", "sklearn", "triton.runtime", "IPython")
    program = f"import sys, snn_bp; print([name for name in {slow} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_waiting_threads_sleep_unless_the_user_says_otherwise():
    program = "import os, snn_bp; print(os.environ['OMP_WAIT_POLICY'])"
    free = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}

    for given, seen in (({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        done = subprocess.run([sys.executable, "-c", program], env=free | given, capture_output=True, text=True)
        assert done.stdout.strip() == seen
