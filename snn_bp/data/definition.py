"""What a source of one's own was made from, as a key of the cache: fields, definition, and the files it reads."""

import ast
import dataclasses
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from snn_bp.data.cache import file_sha256
from snn_bp.errors import SnnError, shown


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
    text = definition_of(type(source))
    if text is None:  # typed in where no source is kept
        return None
    fields = [(field.name, repr(getattr(source, field.name))) for field in dataclasses.fields(source) if field.compare]
    return ["source", part_name, text, fields, [_state(each) for each in given]]


def definition_of(kind: type) -> str | None:
    """The hash of a class's text and of what it uses of its own file and of others; None where no text is kept."""
    seen: dict[str, str] = {}
    try:
        for each in kind.__mro__:
            if each is not object and not _is_installed(each.__module__):
                _add(each, seen)
    except (OSError, TypeError, SyntaxError):
        return None
    return hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()


def _add(thing: type | FunctionType, seen: dict[str, str]) -> None:
    name = f"{thing.__module__}.{thing.__qualname__}"
    if name in seen:
        return
    seen[name] = text = textwrap.dedent(inspect.getsource(thing))
    module = sys.modules.get(thing.__module__)
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    for used in sorted(names & vars(module).keys() if module else ()):
        value = getattr(module, used)
        if isinstance(value, type | FunctionType):
            if not _is_installed(value.__module__):
                _add(value, seen)
        elif isinstance(value, ModuleType):
            if not _is_installed(value.__name__) and (file := getattr(value, "__file__", None)):
                seen[value.__name__] = file_sha256(Path(file))
        else:
            seen[f"{thing.__module__}.{used} ="] = repr(value)


def _is_installed(name: str) -> bool:
    """Whether a module is Python's, or of an installed package: its version is part of a run's record."""
    top = name.partition(".")[0]
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    if top in sys.stdlib_module_names or top == "snn_bp":
        return True
    return name != "__main__" and (
        file is None or any(part in ("site-packages", "dist-packages") for part in Path(file).parts)
    )


def _state(given: Any) -> Any:
    """A path with the sizes and times of its file, or of all files below it; any other value as it is."""
    if not isinstance(given, Path):
        return repr(given)
    files: Iterable[Path] = sorted(file for file in given.rglob("*") if file.is_file()) if given.is_dir() else (given,)
    try:
        states = [(str(file), file.stat()) for file in files]
    except OSError as cause:
        raise SnnError(f"{cause.filename}: made_from() names it, and it cannot be read ({cause.strerror}).") from None
    return [str(given.resolve()), *((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in states)]
