"""The experiment that a file of the user's defines: Python, which is run for it, or JSON, which is only read."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from snn_bp.data import Data
from snn_bp.errors import SnnError
from snn_bp.errors.fields import read_words
from snn_bp.runs.changes import override, parse
from snn_bp.runs.experiment import Experiment
from snn_bp.runs.own_code import own_kinds_in
from snn_bp.runs.own_modules import READ_AS, is_own_module
from snn_bp.runs.paths import experiment_at, is_path
from snn_bp.runs.records import read_with_code
from snn_bp.runtime.own_lines import in_words
from snn_bp.runtime.signals import Stopped


def read_file(file: Path, *, trust_code: bool = False) -> Experiment:
    """The experiment that a Python file defines, or that a JSON file holds."""
    return read_names(file, trust_code=trust_code)[0]


def read_names(file: Path, *, trust_code: bool = False) -> tuple[Experiment, dict[str, type]]:
    """The same, with the frozen dataclasses of the user's that stand in it, by name.

    Code in the folder of somebody else's run is run with `trust_code` alone.
    """
    file = experiment_at(file)
    if file.suffix == ".json":
        experiment, own = read_with_code(file, trust_code=trust_code)
        return experiment, own.kinds()
    names = _run(file)
    experiment = names.get("experiment")
    if not isinstance(experiment, Experiment):
        raise SnnError(f"{file}: it should define `experiment = Experiment(...)`, found {type(experiment).__name__}.")
    return experiment, own_kinds_in(names)


def data_named(subject: str, changes: list[str], *, trust_code: bool = False) -> tuple[Data, list[str]]:
    """The data of an experiment's file, or of a set by its name, after changes such as `data.root=/data`.

    Also what they changed, in words.
    """
    if is_path(subject):
        experiment, own = read_names(Path(subject), trust_code=trust_code)
        experiment, said = override(experiment, changes, own)
        return experiment.data, said
    fields = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key.startswith("data."):
            raise SnnError(f"{change!r}: a change is written data.key=value, as data.root=/data.")
        fields[key.removeprefix("data.")] = parse(text, at=change)
    return Data(subject, **read_words(Data, fields)), []


def is_read(names: dict[str, Any]) -> bool:
    """Whether the module with these global names is a file that `read_file` runs at this moment."""
    return str(names.get("__name__")).startswith(READ_AS)


def _run(file: Path) -> dict[str, Any]:
    """The names that a Python file defines. It is the user's own code, and may end in any way at all."""
    try:
        code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
        module = ModuleType(f"{READ_AS} {file.absolute()}")
        module.__file__ = str(file.absolute())
        sys.modules[module.__name__] = module  # where Python looks for the module of a class
        with _beside(file):
            exec(code, vars(module))
        return vars(module)
    except SnnError as problem:
        lines = [each.lineno for each in traceback.extract_tb(problem.__traceback__) if each.filename == str(file)]
        raise SnnError(f"{file}: {problem}{f' (line {lines[-1]})' if lines else ''}") from problem
    except (KeyboardInterrupt, Stopped):
        raise
    except SyntaxError as problem:  # which says the line itself
        advice = "" if file.suffix == ".py" else ". An experiment is a Python file, or the experiment.json of a run."
        raise SnnError(f"{file}: {type(problem).__name__}: {problem}{advice}") from problem
    except SystemExit as leaving:
        raise SnnError(
            f"{file}: it leaves by sys.exit({leaving.code!r}), an experiment's file should only define `experiment`."
        ) from leaving
    except BaseException as problem:
        raise SnnError(f"{file}: {in_words(problem)}") from problem


@contextmanager
def _beside(file: Path) -> Iterator[None]:
    """Within the block, modules beside a file are found, as in a program, and `sys.argv` begins with its name.

    A module that an earlier file imported from beside itself makes room for the one of the same name here.
    """
    folder, first = file.absolute().parent, sys.argv[:1]
    for name in [each.stem for each in folder.glob("*.py")]:
        known = sys.modules.get(name)
        if known is not None and is_own_module(known) and Path(str(known.__file__)).parent != folder:
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    sys.argv[:1] = [str(file)]
    try:
        yield
    finally:
        sys.argv[:1] = first
        sys.path.remove(str(folder))
