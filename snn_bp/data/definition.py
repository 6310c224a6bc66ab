"""What a source of one's own was made from, as a key of the cache: fields, definition, and the files it reads."""

import ast
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Iterable
from enum import Enum
from pathlib import Path, PurePath
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from snn_bp.data.cache import file_sha256
from snn_bp.errors import SnnError, shown

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, PurePath, Enum, np.generic, np.dtype)


def made_from(source: Any, part_name: str) -> Any | None:
    """What the cache's entry of a part depends on, as JSON holds it; None where the source does not say what it reads.

    Besides what `source.made_from()` names (files by path, size and times; other values as they are), the fields of the
    source and the text of its class count, of the classes and functions of one's own that this uses, and the
    values at the top of its file that it names.
    """
    says = getattr(source, "made_from", None)
    if not callable(says):
        return None
    given = says()
    if not isinstance(given, list | tuple):
        raise SnnError(
            f"{type(source).__name__}.made_from(): it should return a list of paths and values, found {shown(given)}."
        )
    values = {field.name: getattr(source, field.name) for field in dataclasses.fields(source) if field.compare}
    text = definition_of(type(source), *map(type, values.values()))
    if text is None:  # typed in where no source is kept
        return None
    try:
        return ["source", part_name, text, _text_of(values), [_state(each) for each in given]]
    except TypeError:  # what shows only part of itself
        return None


def definition_of(*kinds: type) -> str | None:
    """The hash of the text of classes and of what they use of their own files; None where no text is kept."""
    seen: dict[str, str] = {}
    try:
        for each in (each for kind in kinds for each in kind.__mro__):
            if not _is_installed(each.__module__):
                _add(each, seen)
    except (OSError, TypeError, SyntaxError, ImportError):
        return None
    return hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()


def _add(thing: type | FunctionType, seen: dict[str, str]) -> None:
    """The text of a class or function, and all that it names at the top of its file or imports."""
    module = sys.modules.get(thing.__module__)
    if module is None:
        raise OSError(f"{thing.__module__} is no module that can be read")
    file = _file_of(module)
    name = f"{file.stem}.{thing.__qualname__}"  # not the module's name: that of a copy in a run folder is another
    if name in seen:
        return
    seen[name] = text = textwrap.dedent(inspect.getsource(thing))
    nodes = list(ast.walk(ast.parse(text)))
    for used in sorted({node.id for node in nodes if isinstance(node, ast.Name)} & vars(module).keys()):
        value = getattr(module, used)
        if isinstance(value, type | FunctionType):
            if not _is_installed(value.__module__):
                _add(value, seen)
        elif isinstance(value, ModuleType):
            _add_module(value.__name__, seen)
        else:
            seen[f"{file.stem}.{used} ="] = _text_of(value)
            if not _is_installed(type(value).__module__):
                _add(type(value), seen)
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                _add_module(alias.name, seen)
        elif isinstance(node, ast.ImportFrom):
            package = module.__name__ if hasattr(module, "__path__") else module.__name__.rpartition(".")[0]
            _add_module(importlib.util.resolve_name("." * node.level + (node.module or ""), package or None), seen)


def _add_module(name: str, seen: dict[str, str]) -> None:
    """The text of a whole module of one's own, and of those that it holds things of."""
    if _is_installed(name):
        return
    module = importlib.import_module(name)
    file = _file_of(module)
    if str(file) in seen:
        return
    seen[str(file)] = file_sha256(file)
    for value in list(vars(module).values()):
        other = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(other, str) and other in sys.modules and other != "__main__":
            _add_module(other, seen)


def _file_of(module: ModuleType) -> Path:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        raise OSError(f"{module.__name__} comes from no file")
    return Path(file)


def _is_installed(name: str) -> bool:
    """Whether a module is Python's, ours, or of an installed package, whose version is part of a run's record."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top == "snn_bp":
        return name != "__main__"
    module = sys.modules.get(name) or sys.modules.get(top)
    file = getattr(module, "__file__", None)
    if module is None and (found := importlib.util.find_spec(top)) is not None:
        file = found.origin
    return isinstance(file, str) and bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def _text_of(value: Any) -> str:
    """A value as text that no other value has; raises TypeError where nobody knows that of its kind."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufcSUmM":
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"array {value.dtype.str} {value.shape} {content}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return f"{type(value).__qualname__} {_text_of(fields)}"
    if isinstance(value, dict):
        return f"{type(value).__name__} {[(_text_of(key), _text_of(item)) for key, item in value.items()]}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} {[_text_of(item) for item in value]}"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__} {sorted(map(_text_of, value))}"
    if isinstance(value, _PLAIN) or type(value).__module__ == "typing":
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    raise TypeError(f"a {type(value).__name__} may hold more than it shows")


def _state(given: Any) -> Any:
    """A path with the sizes and times of its file, or of all files below it; any other value as it is."""
    if not isinstance(given, Path):
        return _text_of(given)
    files: Iterable[Path] = sorted(file for file in given.rglob("*") if file.is_file()) if given.is_dir() else (given,)
    try:
        states = [(str(file), file.stat()) for file in files]
    except OSError as cause:
        raise SnnError(f"{cause.filename}: made_from() names it, and it cannot be read ({cause.strerror}).") from None
    return [str(given.resolve()), *((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in states)]
