"""Changes of an experiment: `key=value`, as they are written on a command line."""

import ast
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

from snn_bp.errors import SnnError, is_number, nearest, shown
from snn_bp.errors.fields import WORDS, read_words
from snn_bp.errors.renamed import new_name
from snn_bp.runs.experiment import CONSTRUCTORS, Experiment, construct


def override(
    experiment: Experiment, changes: list[str], own_kinds: Mapping[str, type] | None = None
) -> tuple[Experiment, list[str]]:
    """The experiment after changes such as `train.lr=1e-3` or `model.1=LIF(beta=0.8)`, and what they changed.

    One that does not go with what stands there waits for the others, unless a key is there twice: then the order
    counts. `own_kinds`: classes of the user's that a change may name beside the types of snn_bp.
    """
    said, waiting = [], changes
    is_ordered = len({change.partition("=")[0] for change in changes}) < len(changes)
    while waiting:
        refused: dict[str, SnnError] = {}
        for change in waiting:
            try:
                experiment, lines = _after(experiment, change, changes, own_kinds)
                said += lines
            except SnnError as cause:
                refused[change] = cause
        if refused and (is_ordered or len(refused) == len(waiting)):
            raise next(iter(refused.values()))
        waiting = list(refused)
    return experiment, said


def _after(
    experiment: Experiment, change: str, others: Sequence[str], own_kinds: Mapping[str, type] | None
) -> tuple[Experiment, list[str]]:
    """The experiment after one of several changes, and what it changed."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise SnnError(f"{change!r}: a change is written key=value, as train.lr=1e-3.")
    value, path = parse(text, at=change, own_kinds=own_kinds), key.split(".")
    experiment, before, value = _changed(experiment, path, value, key, experiment)
    said, data = [f"{key}={value!r} (was {before!r})"], experiment.data
    if key == "data.step_ms" and data.steps and not any(other.startswith("data.steps=") for other in others):
        assert data.step_ms
        steps = max(1, round(before * data.steps / data.step_ms))
        experiment = replace(experiment, data=replace(data, steps=steps))
        said.append(f"data.steps={steps} (keeps the window)")
    return experiment, said


def parse(text: str, *, at: str, own_kinds: Mapping[str, type] | None = None) -> Any:
    """A number, text, True, None, a tuple, or a value of snn_bp such as `ATan(slope=3)`, from text."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # also null bytes, and brackets without end
        return text
    try:
        return _evaluate(tree, CONSTRUCTORS | dict(own_kinds or {}))
    except RecursionError:
        raise SnnError(f"{shown(at)}: it is nested too deep.") from None
    except LookupError as cause:
        if isinstance(tree, ast.Name | ast.Attribute | ast.BinOp):
            return text  # a bare word or a path
        raise SnnError(f"{at}: {cause.args[0]}") from None


def _evaluate(tree: ast.AST, known: Mapping[str, Any]) -> Any:
    if isinstance(tree, ast.Constant):
        return tree.value
    if isinstance(tree, ast.Name) and tree.id.lower() in WORDS:
        return tree.id  # a truth value in words; refused where none belongs
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        value = _evaluate(tree.operand, known)
        if isinstance(value, int | float):
            return -value
    if isinstance(tree, ast.Tuple | ast.List):
        return tuple(_evaluate(item, known) for item in tree.elts)
    if isinstance(tree, ast.Dict) and all(key is not None for key in tree.keys):
        pairs = zip(tree.keys, tree.values, strict=True)
        return tuple((_evaluate(key, known), _evaluate(item, known)) for key, item in pairs if key is not None)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        if tree.func.id not in known:
            raise LookupError(f"{tree.func.id} is not a type of snn_bp. {nearest(tree.func.id, known)}")
        if any(item.arg is None for item in tree.keywords):
            raise LookupError(f"{ast.unparse(tree)}: write each argument out; ** is not read.")
        keywords = {str(item.arg): _evaluate(item.value, known) for item in tree.keywords}
        return construct([_evaluate(item, known) for item in tree.args], keywords, known[tree.func.id])
    raise LookupError(f"{ast.unparse(tree)} is neither a number, a text, a tuple nor a value such as ATan(slope=2).")


def _changed(value: Any, path: list[str], new: Any, key: str, whole: Experiment) -> tuple[Any, Any, Any]:
    """`value` with the part at `path` replaced, what stood there, and what was put there."""
    if not path:
        return float(new) if isinstance(value, float) and is_number(new, integer=True) else new, value, new
    head, *rest = path
    if isinstance(value, tuple):
        if not (head.isascii() and head.isdigit()) or len(head) > 9 or int(head) >= len(value):
            within = f"no index in 0..{len(value) - 1}" if value else "an index into a row without layers"
            raise SnnError(f"{key}: {head!r} is {within}.")
        part, before, new = _changed(value[int(head)], rest, new, key, whole)
        return (*value[: int(head)], part, *value[int(head) + 1 :]), before, new
    if not is_dataclass(value) or isinstance(value, type):
        raise SnnError(f"{key}: there is no {head!r}, {value!r} has no parts.")
    known = [field.name for field in fields(value)]
    if hasattr(value, "with_branches") and head.isdigit():  # by the path of a layer within a joint
        joint = cast(Any, value)
        rows, before, new = _changed(tuple(joint.branches()), path, new, key, whole)
        return joint.with_branches(rows), before, new
    if head not in known:
        hint = new_name(type(value).__name__, head) or _nearest_key(head, known, whole)
        raise SnnError(f"{key}: there is no {head!r}. {hint}")
    if not rest:
        new = read_words(type(value), {head: new})[head]
    part, before, new = _changed(getattr(value, head), rest, new, key, whole)
    return replace(value, **{head: part}), before, new


def _nearest_key(head: str, known: list[str], whole: Experiment) -> str:
    """Points to the part of this very name elsewhere, else to the nearest of those that are there, or elsewhere."""
    names: dict[str, str] = {}
    for key in _keys(whole, ""):
        names.setdefault(key.rpartition(".")[2], key)
    close = [names[head]] if head in names else difflib.get_close_matches(head, known, n=1)
    if not close:
        close = [names[name] for name in difflib.get_close_matches(head, names, n=1)]
    return f"Did you mean {close[0]!r}?" if close else nearest(head, known)


def _keys(value: Any, at: str) -> Iterator[str]:
    """The keys of all parts of a value, those of the outer ones first."""
    parts = dict(enumerate(value)) if isinstance(value, tuple) else {}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
    keys = {f"{at}{name}": part for name, part in parts.items()}
    yield from keys
    for key, part in keys.items():
        yield from _keys(part, f"{key}.")
