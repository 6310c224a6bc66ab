"""Code of the user's own in an experiment: how JSON names it, its copy in the run folder, and whose code is run.

A class or function is named by file and name, "mine.py:TET". A run folder holds the text of the definitions it stands
on in `code/`, and `experiment.json` a hash of each. Code that came with somebody else's run folder is not run unasked:
hashes of the code that this user's own `train` wrote, or that the user said to trust, stand in the user's cache.
"""

import importlib.abc
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from snn_bp.data.cache import cache_folder
from snn_bp.errors import SnnError, shown
from snn_bp.files import UNFINISHED, append, json_sha256, make_folder, read_text, replace_file
from snn_bp.neurons import kind_of
from snn_bp.runs.definitions import COPY_STARTS, definitions, hashes
from snn_bp.runs.own_modules import COPIED_AS, file_name, is_own_module, module_name
from snn_bp.runtime.own_lines import in_words

FOLDER = "code"  # in a run folder
LARGEST = 2**20  # characters of code that a run carries
_OF_TORCH = {"torch.nn": nn, "torch.nn.functional": nn.functional}  # what JSON may name beside the user's own


@dataclass(frozen=True)
class Code:
    """The texts of files with definitions, by the files' names."""

    files: Mapping[str, str]

    @property
    def hashes(self) -> dict[str, str]:
        """A hash of each definition."""
        return hashes(self.files)

    @property
    def digest(self) -> str:
        """A hash of all the text."""
        return json_sha256(dict(self.files))

    def __str__(self) -> str:
        lines = []
        for name in self.files:
            labels = [label.partition(":")[2] for label in self.hashes if label.startswith(f"{name}:")]
            lines.append(f"{name} ({', '.join(labels)})")
        return ", ".join(lines)

    @staticmethod
    def of(value: Any) -> "Code | None":
        """The code that an experiment stands on; None where all of it is snn_bp's."""
        wanted = [(sys.modules[kind.__module__], kind.__qualname__.partition(".")[0]) for kind in own_kinds(value)]
        if not wanted:
            return None
        code = Code(definitions(wanted))
        if sum(map(len, code.files.values())) > LARGEST:
            raise SnnError(f"own code: {code!s:.200}... is more than {LARGEST} characters. Install what is a library.")
        return code

    @staticmethod
    def read(folder: Path, recorded: Any) -> "Code":
        """The code in the folder of a run, compared definition by definition with the hashes in `experiment.json`."""
        files = {
            str(file.relative_to(folder).as_posix()): read_text(file)
            for file in sorted(folder.rglob("*.py"))
            if not file.is_symlink()
        }
        code = Code(files)
        if sum(map(len, files.values())) > LARGEST:
            raise SnnError(f"{folder}: it holds more than {LARGEST} characters; `train` writes no more than that.")
        try:
            found = code.hashes
        except (SyntaxError, ValueError, RecursionError, MemoryError) as cause:
            raise SnnError(f"{folder}: its code does not parse ({cause}). Put back what `train` wrote.") from None
        recorded = recorded if isinstance(recorded, dict) else {}
        differing = sorted(name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name))
        if differing:
            name = differing[0]
            what = "is missing" if name not in found else "was added" if name not in recorded else "was changed"
            more = f", and {len(differing) - 1} more" if len(differing) > 1 else ""
            raise SnnError(
                f"{folder}: {name} {what} since the run began{more}; experiment.json has its hash. Put back what "
                "`train` wrote."
            )
        return code

    def write(self, folder: Path) -> None:
        """Write the files into a folder of a run."""
        make_folder(folder)
        for name, text in self.files.items():
            file = folder / name
            for parent in reversed(file.relative_to(folder).parents[:-1]):
                make_folder(folder / parent)
            replace_file(file, text.encode())

    def trust(self, path: Path) -> None:
        """Note that this user runs this code; where the cache cannot be written, the next one asks again."""
        if not self.is_trusted():
            with suppress(SnnError, OSError):
                cache_folder().mkdir(parents=True, exist_ok=True)
                append(_trusted_file(), f"{self.digest} {json.dumps(str(path.absolute()))}\n".encode())
                os.chmod(_trusted_file(), 0o600)

    def is_trusted(self) -> bool:
        """Whether this user's `train` wrote this code, or the user said to trust it."""
        file = _trusted_file()
        try:
            found = os.stat(file, follow_symlinks=False)
            if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
                return False  # others could have written it
            return any(line.partition(" ")[0] == self.digest for line in read_text(file).splitlines())
        except (OSError, SnnError):
            return False

    def load(self, folder: Path) -> "Loaded":
        """Run the definitions, or take them as this process ran them before."""
        prefix = f"{COPIED_AS}{self.digest[:16]}"
        names = {module_name(name): name for name in self.files}
        if any(f"{prefix}.{name}" not in sys.modules for name in names):
            with _importing(self, folder, prefix) as run:
                for name in names:
                    run(name)
        return Loaded({file: sys.modules[f"{prefix}.{name}"] for name, file in names.items()})


@dataclass(frozen=True)
class Loaded:
    """Modules of the user's by the names of their files; empty where an experiment has none."""

    modules: Mapping[str, ModuleType]

    def find(self, name: str) -> Any:
        """The class or function of a name as "mine.py:TET"; raises where there is none."""
        file, _, path = name.partition(":")
        if file in _OF_TORCH:
            found = getattr(_OF_TORCH[file], path, None)
            if is_of_torch(found):
                return found
            raise SnnError(f"{shown(name)}: {file} has no class or function of this name.")
        if file not in self.modules:
            known = f"Known: {', '.join(self.modules)}." if self.modules else "There is no code beside it."
            raise SnnError(f"{shown(name)} is not in the code of this run. {known}")
        found: Any = self.modules[file]
        for part in path.split("."):
            found = vars(found).get(part) if isinstance(found, ModuleType | type) else None
        if not isinstance(found, type | FunctionType):
            raise SnnError(f"{shown(name)}: {file} defines no class or function of this name.")
        return found

    def kinds(self) -> dict[str, type]:
        """The frozen dataclasses that the modules define, by their own names."""
        return {name: kind for module in self.modules.values() for name, kind in own_kinds_in(vars(module)).items()}


def is_copied(folder: Path) -> bool:
    """Whether a folder holds nothing but what `Code.write` wrote, or was about to."""
    files = [file for file in folder.rglob("*") if not file.is_dir()]
    return not folder.is_symlink() and all(
        file.name.endswith(UNFINISHED) or (file.suffix == ".py" and read_text(file).startswith(COPY_STARTS))
        for file in files
    )


def own_kinds_in(names: Mapping[str, Any]) -> dict[str, type]:
    """The frozen dataclasses of the user's among the names of a module."""
    return {name: kind for name, kind in names.items() if isinstance(kind, type) and is_own_dataclass(kind)}


def is_own_dataclass(kind: type) -> bool:
    """Whether a class is a frozen dataclass that the user has defined, on top of no type of ours."""
    parameters = vars(kind).get("__dataclass_params__")
    module = sys.modules.get(kind.__module__)
    return parameters is not None and parameters.frozen and module is not None and is_own_module(module)


def is_of_torch(kind: Any) -> bool:
    """Whether a class or function is one of torch's that JSON may name."""
    if isinstance(kind, type):
        return issubclass(kind, nn.Module) and getattr(nn, kind.__name__, None) is kind
    return callable(kind) and getattr(nn.functional, getattr(kind, "__name__", ""), None) is kind


def name_of_kind(kind: Any) -> str:
    """How JSON names a class or function, "mine.py:TET" or "torch.nn:LayerNorm"; raises where it would not be found."""
    if is_of_torch(kind):
        return f"{'torch.nn' if isinstance(kind, type) else 'torch.nn.functional'}:{kind.__name__}"
    name, module = kind.__qualname__, sys.modules.get(kind.__module__)
    if "<" in name:
        raise SnnError(
            f"{name}: it is defined within a function; a run copies what stands at the top of a file. Move it there."
        )
    if module is None or not is_own_module(module):
        raise SnnError(
            f"{name} is {kind.__module__}'s; a run copies code of the experiment's file and of files beside it. Define "
            "one there that uses it."
        )
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, FunctionType) and kind_of(kind):
        raise SnnError(
            f"{name}: {file_name(module)} has the step alone under this name, and a run copies definitions by name. "
            f"Let it stand there by decorator: write @neuron above `def {name}`."
        )
    if found is not kind:
        raise SnnError(f"{name}: {file_name(module)} has another one of this name by now. Make the value anew.")
    return f"{file_name(module)}:{name}"


def own_kinds(value: Any) -> Iterator[Any]:
    """The classes and functions of the user's in a value, and in all its parts."""
    if isinstance(value, type | FunctionType):
        if not is_of_torch(value):
            yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from own_kinds(part)
    elif is_dataclass(value):
        if is_own_dataclass(type(value)):
            yield type(value)
        if type(value).__module__.partition(".")[0] != "tonic":
            for each in fields(value):
                yield from own_kinds(getattr(value, each.name))


def open_code(folder: Path, recorded: Any, *, trust: bool) -> Loaded:
    """The definitions in the folder `code` of a run, run where this user trusts them; refused otherwise."""
    code = Code.read(folder, recorded)
    if not code.is_trusted():
        if not trust:
            raise SnnError(
                f"{folder.parent}: it came with code of its own, which this user's `train` did not write: {code}. Read "
                f"it in {folder}; then `--trust-code`, or Run({str(folder.parent)!r}, trust_code=True), runs it."
            )
        code.trust(folder.parent)
    return code.load(folder)


def _trusted_file() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return cache_folder() / f"trusted-code-{user}.txt"


class _Files(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports among the files of a run, while they are run: each module gets a name that no other run's has."""

    def __init__(self, code: Code, folder: Path, prefix: str) -> None:
        self.code, self.folder, self.prefix = code, folder, prefix
        self.files = {module_name(name): name for name in code.files}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """The module of a file; of a folder that holds some, an empty package."""
        if fullname in self.files:
            file = self.files[fullname]
            return importlib.util.spec_from_file_location(
                fullname, self.folder / file, loader=self,
                submodule_search_locations=[] if file.endswith("__init__.py") else None,
            )  # fmt: skip
        if any(name.startswith(f"{fullname}.") for name in self.files):
            return importlib.util.spec_from_loader(fullname, self, is_package=True)
        return None

    def get_source(self, fullname: str) -> str:
        """The text of a module that was run."""
        return self.code.files[self.files[fullname.removeprefix(f"{self.prefix}.")]]

    def create_module(self, spec: Any) -> None:
        """Python's own."""
        return

    def exec_module(self, module: ModuleType) -> None:
        """Run the text of a file."""
        plain = module.__name__
        module.__name__ = f"{self.prefix}.{plain}"
        sys.modules[module.__name__] = module
        file = self.files.get(plain)
        if file is not None:
            exec(compile(self.code.files[file], str(self.folder / file), "exec"), vars(module))


@contextmanager
def _importing(code: Code, folder: Path, prefix: str) -> Iterator[Any]:
    """Within the block, files of a run import each other; gives what runs one by its name."""
    finder = _Files(code, folder, prefix)
    names = {part for name in finder.files for part in _with_parents(name)}
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.meta_path.insert(0, finder)

    def run(name: str) -> None:
        if f"{prefix}.{name}" in sys.modules:
            return
        try:
            if "." in name:
                importlib.import_module(name)
                return
            spec = finder.find_spec(name)
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            finder.exec_module(module)
        except SnnError:
            raise
        except Exception as problem:
            raise SnnError(
                f"{folder / finder.files[name]}: the definitions that were copied cannot be run by themselves "
                f"({in_words(problem)}). They should need nothing but imports and each other."
            ) from problem

    done = False
    try:
        yield run
        done = True
    finally:
        sys.meta_path.remove(finder)
        for name in names:
            sys.modules.pop(name, None)
            if not done:
                sys.modules.pop(f"{prefix}.{name}", None)
        sys.modules.update(before)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))
