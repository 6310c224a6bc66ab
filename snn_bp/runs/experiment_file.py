"""The experiment that a file of the user's defines: Python, which is run for it, or JSON, which is only read."""

import runpy
import traceback
from pathlib import Path
from typing import Any

from snn_bp.errors import SnnError
from snn_bp.files import is_there
from snn_bp.runs.experiment import Experiment
from snn_bp.runs.records import read_experiment
from snn_bp.runs.renamed import new_name_in
from snn_bp.runtime.signals import Stopped

_NAME = "experiment file"  # the `__name__` under which a file is run, so that it is no program


def read_file(file: Path) -> Experiment:
    """The experiment that a Python file defines, or that a JSON file holds."""
    if file.is_dir():
        file = file / "experiment.json"
    if not file.is_file():
        found = "it is no regular file" if is_there(file) else "there is no such file"
        raise SnnError(f"{file}: {found}. experiments/digits.py is the default experiment.")
    if file.suffix == ".json":
        return read_experiment(file)
    experiment = _run(file).get("experiment")
    if not isinstance(experiment, Experiment):
        raise SnnError(f"{file}: it should define `experiment = Experiment(...)`, found {type(experiment).__name__}.")
    return experiment


def is_read(names: dict[str, Any]) -> bool:
    """Whether the module with these global names is a file that `read_file` runs at this moment."""
    return names.get("__name__") == _NAME


def _run(file: Path) -> dict[str, Any]:
    """The names that a Python file defines. It is the user's own code, and may end in any way at all."""
    try:
        return runpy.run_path(str(file), run_name=_NAME)
    except SnnError as problem:
        raise SnnError(f"{file}: {problem}") from problem
    except (KeyboardInterrupt, Stopped):
        raise
    except SyntaxError as problem:  # which says the line itself
        raise SnnError(f"{file}: {type(problem).__name__}: {problem}") from problem
    except SystemExit as leaving:
        raise SnnError(
            f"{file}: it leaves by sys.exit({leaving.code!r}), an experiment's file should only define `experiment`."
        ) from leaving
    except BaseException as problem:
        line = traceback.extract_tb(problem.__traceback__)[-1]
        raise SnnError(
            f"{file}: {type(problem).__name__}: {problem}{new_name_in(problem)} ({line.filename}, line {line.lineno})"
        ) from problem
