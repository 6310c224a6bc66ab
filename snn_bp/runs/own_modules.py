"""Modules of the user's: which they are, what their files are called, and their text.

A module is the user's own where it comes from a file that is not installed: the experiment's, or one beside it. The
cells of a notebook are one file, `notebook.py`.
"""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from snn_bp.errors import SnnError
from snn_bp.files import read_text
from snn_bp.runtime.own_lines import is_installed

READ_AS = "experiment file"  # how the `__name__` begins under which a file is run, so that it is no program
COPIED_AS = "snn_bp_code_"  # how the `__name__` of a module from the folder `code` of a run begins
NOTEBOOK = "notebook.py"


@dataclass(frozen=True)
class Source:
    """The text of a module of the user's."""

    name: str  # as its file is called in the folder `code` of a run: "mine.py", "lab/parts.py"
    path: str  # where it stands, for messages
    text: str
    module: ModuleType

    def full_name(self, name: str, level: int) -> str:
        """What a module is called that this one imports by a name; `level` counts the dots ahead of it."""
        if not level:
            return name
        parts = module_name(self.name).split(".")
        package = parts if self.name.endswith("__init__.py") else parts[:-1]
        return ".".join([*package[: len(package) - level + 1], *([name] if name else [])])


def file_name(module: ModuleType) -> str:
    """The name of the module's file in the folder `code` of a run; raises where the module is no file's."""
    name, file = module.__name__, getattr(module, "__file__", None)
    if name.startswith(COPIED_AS):
        name = name.partition(".")[2]
    elif name == "__main__" and module.__spec__ is not None:
        name = module.__spec__.name  # python -m lab.mine
    elif name == "__main__" or name.startswith(READ_AS):
        if file is None and _cells_of(module):
            return NOTEBOOK
        name = Path(file).stem if file else ""
        return f"{name}.py"
    return name.replace(".", "/") + ("/__init__.py" if hasattr(module, "__path__") else ".py")


def module_name(file: str) -> str:
    """The dotted name by which a file of the folder `code` is imported."""
    name = file.removesuffix(".py").replace("/", ".")
    return name.removesuffix(".__init__")


def source_of_module(module: ModuleType) -> Source:
    """The text of a module of the user's, as it stands in its file now."""
    file = getattr(module, "__file__", None)
    if file is None:
        cells = _cells_of(module)
        if not cells:
            raise SnnError(
                "own code: it was typed at a prompt, and its text cannot be had. Write it into a file, and import it "
                "or run that."
            )
        return Source(NOTEBOOK, "the notebook", "\n\n".join(cells), module)
    copied = module.__name__.startswith(COPIED_AS)  # it was run from this text, and its run's folder may be gone
    text = module.__loader__.get_source(module.__name__) if copied else read_text(Path(file))  # type: ignore[union-attr]
    return Source(file_name(module), str(file), text, module)


def is_own_module(module: ModuleType) -> bool:
    """Whether a module is the user's own: a file that is not installed, a notebook, or the prompt."""
    name, file = module.__name__, getattr(module, "__file__", None)
    if name == "__main__" or name.startswith((READ_AS, COPIED_AS)):
        return True
    if name.partition(".")[0] == "snn_bp" or not isinstance(file, str) or not file.endswith(".py"):
        return False
    return not is_installed(file)


def files_beside(file: Path) -> list[Path]:
    """The files in a file's folder, or below it, from which modules of the user's were imported."""
    folder = file.absolute().parent
    own = [each for each in list(sys.modules.values()) if isinstance(each, ModuleType) and is_own_module(each)]
    named = {str(getattr(each, "__file__", None)) for each in own if not each.__name__.startswith((READ_AS, COPIED_AS))}
    return [path for path in map(Path, sorted(named)) if path.is_relative_to(folder) and path.is_file()]


def module_beside(source: Source, name: str, *, level: int) -> ModuleType | None:
    """The module that a file of the user's imports by a name, where that is a file beside it; else None."""
    full = source.full_name(name, level)
    own = source.module.__name__
    if own.startswith(COPIED_AS):
        return sys.modules.get(f"{own.partition('.')[0]}.{full}")
    found, file = sys.modules.get(full), source.module.__dict__.get("__file__")
    if not isinstance(found, ModuleType) or file is None or not is_own_module(found):
        return None
    root = Path(file).resolve().parents[source.name.count("/")]
    return found if Path(str(found.__file__)).resolve().is_relative_to(root) else None


def _cells_of(module: ModuleType) -> list[str]:
    """The cells of a notebook that parse, in the order in which they were run; none where there is no notebook."""
    cells = module.__dict__.get("In") if module.__name__ == "__main__" else None
    found = []
    for cell in cells if isinstance(cells, list) else ():
        try:
            ast.parse(cell)
        except (SyntaxError, ValueError, TypeError):
            continue
        found.append(cell)
    return [cell for cell in found if cell.strip()]
