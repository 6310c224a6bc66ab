"""What layers are called in messages, files and pictures: as the user wrote them, with their index in the model."""

import re
from dataclasses import MISSING, fields, is_dataclass
from types import FunctionType
from typing import Any

from snn_bp.errors import SnnError, shown
from snn_bp.surrogates import Surrogate

LONGEST = 3  # values of a tuple that are all shown


def name_of(path: tuple[int, ...], value: Any) -> str:
    """The name of the layer that `value` builds at a path of indexes, as `model.7 Dense(10)`."""
    return f"model.{'.'.join(map(str, path))} {in_short(value)}"


def path_of(name: str) -> tuple[int, ...]:
    """The path in a name of a layer, also in one of 0.1.0, as `layer 7 (Linear)`; raises for other text."""
    found = re.match(r"(?:model\.|layer )(\d+(?:\.\d+)*) ", name)
    if found is None:
        raise SnnError(f"{shown(name)} is not the name of a layer, as model.7 Dense(10).")
    return tuple(map(int, found[1].split(".")))


def name_today(name: str, model: tuple) -> str:
    """The name of a layer of a model in a row that 0.1.0 wrote, as `layer 7 (Linear)`; others as they are."""
    old = re.fullmatch(r"layer (\d+) \(\w+\)", name)
    return name if old is None or int(old[1]) >= len(model) else name_of((int(old[1]),), model[int(old[1])])


def in_short(value: Any) -> str:
    """A value as one would write it: fields at their default left out, numbers rounded, long tuples shortened."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        ends = [value[0], value[-1]] if len(value) > LONGEST else value
        return f"({(', ..., ' if len(value) > LONGEST else ', ').join(map(in_short, ends))}{',' * (len(value) == 1)})"
    if isinstance(value, type):
        return value.__name__
    if not is_dataclass(value):
        own = type(value).__repr__ is object.__repr__  # which has an address in memory, another one in each process
        return f"{type(value).__name__}()" if own else shown(value)
    written, by_name = [], False
    for field in fields(value):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        content = getattr(value, field.name)
        if field.metadata.get("spread"):
            ends = [in_short(content[0]), "...", in_short(content[-1])] if len(content) > LONGEST else None
            written += ends or map(in_short, content)
            by_name = True
        elif field.metadata.get("named"):
            written += [f"{name}={in_short(each)}" for name, each in content]
            by_name = True
        elif not field.init or (type(content) is type(default) and content == default):
            by_name = True
        else:
            by_name = by_name or field.kw_only is True
            written.append(f"{field.name}={in_short(content)}" if by_name else in_short(content))
    return f"{type(value).__name__}({', '.join(written)})"


def written(value: Any) -> str:
    """A value as one would write it, fields at their default left out."""
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))}{',' * (len(value) == 1)})"
    if isinstance(value, type | FunctionType):
        return value.__name__
    if not is_dataclass(value) or isinstance(value, Surrogate):
        return in_short(value) if type(value).__repr__ is object.__repr__ else repr(value)
    parts, by_name = [], not any(field.metadata.get("spread") for field in fields(value))
    for field in fields(value):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        part = getattr(value, field.name)
        if field.metadata.get("spread"):
            parts += map(written, part)
            by_name = True
        elif field.metadata.get("named"):
            parts += [f"{name}={written(each)}" for name, each in part]
        elif field.init and (default is MISSING or part != default):
            parts.append(f"{field.name}={written(part)}" if by_name else written(part))
    return f"{type(value).__name__}({', '.join(parts)})"
