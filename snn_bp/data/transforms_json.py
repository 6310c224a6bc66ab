"""tonic's transforms in JSON: the class by its name in `tonic.transforms`, and its fields."""

import dataclasses
from typing import Any

import numpy as np

from snn_bp.errors import SnnError, check_choice


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
    return {"name": kind} | {name: _plain(value, kind=kind, field=name) for name, value in fields.items()}


def transform_from_json(described: dict[str, Any]) -> Any:
    """The transform that `transform_to_json` described."""
    import tonic.transforms  # slow to import

    fields = dict(described)
    kind = fields.pop("name", None)
    known = [name for name in vars(tonic.transforms) if isinstance(getattr(tonic.transforms, name), type)]
    check_choice("transform", kind, known)
    if kind == "Compose":
        return tonic.transforms.Compose([transform_from_json(part) for part in fields["transforms"]])
    try:
        return getattr(tonic.transforms, str(kind))(**{name: _tupled(value) for name, value in fields.items()})
    except TypeError as cause:
        raise SnnError(f"transform {kind}: {cause}. It was written by another version of tonic.") from cause


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
