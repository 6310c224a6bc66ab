"""tonic's transforms in JSON: the class by its name in `tonic.transforms`, and its fields."""

import dataclasses
import types
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from snn_bp.errors import SnnError, check_choice, is_number, nearest, shown
from snn_bp.errors.fields import as_flag

DEEPEST = 20  # Compose within Compose


def transform_to_json(transform: Any) -> dict[str, Any]:
    """Class name and fields of one of tonic's transforms, as values JSON can hold."""
    kind = type(transform).__name__
    if kind == "Compose" and _tonic_class(kind) is type(transform):
        return {"name": kind, "transforms": [transform_to_json(part) for part in transform.transforms]}
    if _tonic_class(kind) is not type(transform) or not dataclasses.is_dataclass(transform):
        raise SnnError(
            f"transform {transform!r}: a run folder names transforms by their class in tonic.transforms. "
            "Use one of those, or write the recordings changed by yours to files."
        )
    fields = {field.name: getattr(transform, field.name) for field in dataclasses.fields(transform)}
    plain = {name: _plain(value, kind=kind, field=name) for name, value in fields.items()}
    _checked(type(transform), plain)  # what could not be read back is not written
    return {"name": kind} | plain


def transform_from_json(described: Any, *, depth: int = 0) -> Any:
    """The transform that `transform_to_json` described."""
    import tonic.transforms  # slow to import

    if not isinstance(described, dict) or depth > DEEPEST:
        raise SnnError(f"transforms: {shown(described)} should be an object that names a transform of tonic.")
    fields = dict(described)
    kind = fields.pop("name", None)
    known = [name for name in vars(tonic.transforms) if _is_transform(getattr(tonic.transforms, name))]
    check_choice("transform", kind, known)
    if kind == "Compose":
        parts = fields.pop("transforms", None)
        if not isinstance(parts, list) or fields:
            raise SnnError(
                f"transform Compose: it holds a list, transforms, and nothing else; found {shown(described)}."
            )
        return tonic.transforms.Compose([transform_from_json(part, depth=depth + 1) for part in parts])
    made = _tonic_class(str(kind))
    try:
        return made(**{name: _tupled(value) for name, value in _checked(made, fields).items()})
    except SnnError:
        raise
    except Exception as cause:  # each of tonic's transforms looks at its fields in its own way
        raise SnnError(f"transform {kind}: {' '.join(str(cause).split()) or type(cause).__name__}.") from cause


def _checked(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Fields of one of tonic's transforms, refused where one is unknown or of another kind than its annotation."""
    fields, hints = {field.name: field for field in dataclasses.fields(kind)}, _hints(kind)
    checked = {}
    for name, value in given.items():
        if name not in fields:
            raise SnnError(f"transform {kind.__name__}: there is no {name!r}. {nearest(name, fields)}")
        value = as_flag(value) if hints[name] is bool else value
        if not _of_kind(value, hints[name]) and not (value is None and fields[name].default is None):
            wanted = (
                getattr(hints[name], "__name__", str(hints[name])) if isinstance(hints[name], type) else hints[name]
            )
            raise SnnError(f"transform {kind.__name__}: {name}={shown(value)} should be of the type {wanted}.")
        checked[name] = value
    return checked


def _of_kind(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of the kind of an annotation of tonic's; where it says int, a float is taken too."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_of_kind(value, part) for part in get_args(hint))
    if get_origin(hint) in (tuple, list):
        parts, each = get_args(hint), isinstance(value, list) and value
        if get_origin(hint) is list:
            return isinstance(value, list) and all(_of_kind(one, parts[0]) for one in value)
        return bool(each) and len(value) == len(parts) and all(map(_of_kind, value, parts))
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return is_number(value)
    return value is None if hint is type(None) else isinstance(value, str)


_hints = cache(get_type_hints)


def _is_transform(found: Any) -> bool:
    return isinstance(found, type) and found.__module__.startswith("tonic.")


def _tonic_class(name: str) -> Any:
    import tonic.transforms  # slow to import, and there already when a transform of it is given

    return getattr(tonic.transforms, name, None)


def _plain(value: Any, *, kind: str, field: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple | list):
        return [_plain(part, kind=kind, field=field) for part in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise SnnError(f"transform {kind}: {field}={value!r} cannot be written to JSON. Numbers, text and tuples can.")


def _tupled(value: Any) -> Any:
    return tuple(_tupled(part) for part in value) if isinstance(value, list) else value
