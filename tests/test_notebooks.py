"""Each notebook runs from a fresh kernel without error, warning or network, and ends in a solvable exercise."""

import re
from pathlib import Path

import nbformat
import pytest
from matplotlib import font_manager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
RUNS = [pytest.param(path, id=path.stem, marks=pytest.mark.slow) for path in NOTEBOOKS]
LINES = 10  # of code in a cell, imports and comments aside
BYTES = 300_000  # of a file, pictures included
HANGS = 900  # seconds for a cell
STRICT = """
import socket, warnings
warnings.simplefilter("error")
for kind in (DeprecationWarning, PendingDeprecationWarning):  # what libraries deprecate in each other no reader sees
    warnings.filterwarnings("ignore", category=kind, module="(?!__main__|snn_bp)")
def refuse(*_): raise OSError("a notebook runs offline")
socket.getaddrinfo = refuse
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs cells in a fresh kernel, in an empty folder and without anyone's settings; gives what stood on stderr."""
    assert font_manager.fontManager.ttflist  # now, or matplotlib says on stderr that it takes a moment
    for name, value in {
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "jupyter"),
        "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"),
        "OMP_NUM_THREADS": "1",  # beside other tests, a second thread only waits
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": str(FOLDER.parent),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()

    def execute(cells: list[NotebookNode]) -> str:
        strict = [new_code_cell(STRICT), *cells]
        notebook = nbformat.v4.new_notebook(cells=strict)
        where = {"metadata": {"path": str(tmp_path / "work")}}
        NotebookClient(notebook, timeout=HANGS, kernel_name="python3", resources=where).execute()
        outputs = [output for cell in strict for output in cell.get("outputs", ())]
        return "".join(output.text for output in outputs if output.get("name") == "stderr")

    return execute


@pytest.mark.parametrize("path", RUNS)
def test_it_runs_and_its_solution_is_accepted(path, run):
    cells = nbformat.read(path, as_version=4).cells

    assert run([*cells, *solved(cells)]) == ""


@pytest.mark.parametrize(
    "cell", ("import warnings; warnings.warn('odd', DeprecationWarning)", "1 / 0", "assert 1 + 1 == 3")
)
def test_a_warning_an_error_and_a_wrong_claim_stop_a_notebook(cell, run):
    with pytest.raises(Exception, match=r"DeprecationWarning|ZeroDivisionError|AssertionError"):
        run([new_code_cell(cell)])


@pytest.mark.slow
def test_a_training_says_how_far_it_is_without_a_word_in_red(run):
    cells = [
        "from snn_bp import Data, Dense, Experiment, Flatten, LIF, Train, evaluate, train",
        "model = (Flatten(), Dense(10), LIF(beta=0.8))\n"
        "experiment = Experiment(Data('digits', step_ms=104, steps=3, downsample=2), model, Train(epochs=2))\n"
        "evaluate(train(experiment, 'run')).accuracy",
    ]
    cells = [new_code_cell(cell) for cell in cells]

    assert run(cells) == ""
    assert cells[-1].outputs[-1].output_type == "execute_result"
    assert any("epoch   2/2" in output.get("text", "") for output in cells[-1].outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_ends_in_an_exercise_with_a_folded_solution(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    headings = re.findall(r"^#+ .*", text, flags=re.MULTILINE)

    assert headings[0].startswith(f"# {int(path.stem[:2])}. ")
    assert headings[-1].startswith("## Exercise")
    assert "<details><summary>" in text.rpartition("## Exercise")[2]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_the_file_is_small(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    nbformat.validate(notebook)
    assert [cell.id for cell in code if length(cell.source) > LINES] == []
    assert path.stat().st_size < BYTES
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_link_leads_to_a_file(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)", text)

    assert [link for link in links if not (FOLDER / link).exists()] == []


def solved(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The code of the folded solution, if it has some, and after it the notebook's last cell, which judges it."""
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown").rpartition("<details>")[2]
    found = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    return [] if found is None else [new_code_cell(found[1]), new_code_cell(cells[-1].source)]


def length(source: str) -> int:
    """Lines of code: neither blank, nor a comment, nor an import."""
    code = re.sub(r"^(from|import) (.*\((.|\n)*?\)|.*)$", "", source, flags=re.MULTILINE)
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in code.splitlines())
