"""The package stands in floors: a file imports from lower ones, heavy libraries from one place only."""

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "snn_bp"

# the entries of the package from the ground up; each has a rank of its own and imports from those before it only
FLOORS = (
    "errors", "files", "runtime", "equations", "surrogates", "neurons", "kernels", "model", "data", "chip", "runs",
    "exchange", "instruments", "trainer", "searches", "reports", "verification", "cli", "__main__",
)  # fmt: skip
TOP = {
    "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "CONTRIBUTING.md", "CITATION.cff", "snn_bp",
    "experiments", "tests", "notebooks",
}  # fmt: skip
ONLY_IN = {
    "numba": {"kernels"},
    "triton": {"kernels"},
    "tonic": {"data"},
    "snntorch": {"exchange"},
    "nir": {"exchange"},
    "h5py": {"data", "files", "chip", "exchange"},
    "lava": {"chip"},
    "xylosim": {"chip"},
    "jinja2": {"reports"},
    "matplotlib": {"reports"},
    "optuna": {"searches"},
    "samna": set(),
}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")  # which exports the names


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def imports_of(path: Path, *, running: bool = False) -> tuple[str, ...]:
    """The dotted names that a file imports, wherever in it; `from a import b` gives `a.b`.

    `running=True` leaves out what stands below `if TYPE_CHECKING`, which closes no circle.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(_names(WithoutTypeChecking().visit(tree) if running else tree, path))


def _names(tree: ast.AST, path: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} line {node.lineno}: a relative import; write snn_bp.{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


class WithoutTypeChecking(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.If | None:
        return None if ast.unparse(node.test).endswith("TYPE_CHECKING") else node


def _room(folder: Path) -> str:
    return ".".join(folder.relative_to(PACKAGE).parts)


def entries_below(path: Path) -> set[str]:
    """Which entries of `FLOORS` a file imports from, its own left out."""
    names = [name.split(".") for name in imports_of(path)]
    mine = module_of(path).split(".")[0]
    return {parts[1] for parts in names if parts[0] == "snn_bp" and len(parts) > 1} - {mine}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_has_a_floor_and_imports_from_lower_ones_only(path):
    entry = module_of(path).split(".")[0]
    assert entry in FLOORS, f"{entry} has no floor: give it one in {Path(__file__).name}"

    imported = entries_below(path)

    assert imported <= set(FLOORS), f"import from the module, not from snn_bp: {imported - set(FLOORS)}"
    assert {name for name in imported if FLOORS.index(name) > FLOORS.index(entry)} == set()


def test_the_package_has_few_entries():
    entries = {path.relative_to(PACKAGE).parts[0] for path in FILES} | {"__init__.py"}

    assert len(entries) == len(FLOORS) + 1 <= 20


def test_nothing_that_was_tried_stays_at_the_top():
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=PACKAGE.parent, capture_output=True, text=True)
    except OSError:
        pytest.skip("git is not here")
    if listed.returncode:
        pytest.skip("this is no checkout")

    assert {each.split("/")[0] for each in listed.stdout.splitlines() if each[0] not in '."'} == TOP


def test_the_lowest_floor_imports_nothing_of_ours():
    assert {module_of(path): entries_below(path) for path in FILES if module_of(path) in ("equations", "errors")} == {
        "equations": set(),
        "errors": set(),
    }


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES} - {PACKAGE}), ids=lambda folder: folder.name)
def test_files_of_a_folder_import_each_other_in_no_circle(folder):
    modules = {module_of(path): path for path in FILES if path.parent == folder}
    graph = {name: set() for name in modules}
    for name, path in modules.items():
        for imported in imports_of(path, running=True):
            dotted = imported.removeprefix("snn_bp.")
            graph[name] |= {dotted, dotted.rpartition(".")[0]} & (modules.keys() - {name, _room(folder)})

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
    slow = (
        "tonic", "snntorch", "matplotlib", "pandas", "scipy", "sklearn", "numba", "h5py", "nir", "triton.runtime",
        "IPython", "optuna",
    )  # fmt: skip
    names = (
        "Data, Dense, Experiment, LIF, Network, Run, Train, check_gradients, evaluate, predict, search, sweep, train"
    )
    program = f"import sys; from snn_bp import {names}; print([name for name in {slow} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_waiting_threads_sleep_unless_the_user_says_otherwise():
    program = "import os, snn_bp; print(os.environ['OMP_WAIT_POLICY'])"
    free = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}

    for given, seen in (({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        done = subprocess.run([sys.executable, "-c", program], env=free | given, capture_output=True, text=True)
        assert done.stdout.strip() == seen
