"""Calls that do not fit: a name that nothing has, a value too many, one that is missing.

Python finds such a call before anything runs. What is added here is what it says: an `SnnError` with the nearest name.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from snn_bp.errors import SnnError, nearest, shown
from snn_bp.errors.renamed import new_name

Callee = TypeVar("Callee", bound=Callable[..., Any])


def checked_call(function: Callee) -> Callee:
    """A function of which a call that does not fit its parameters raises an `SnnError`; a class with such methods."""
    if isinstance(function, type):
        for name, method in list(vars(function).items()):
            if inspect.isfunction(method) and (name == "__init__" or not name.startswith("_")):
                setattr(function, name, checked_call(method))
        return function  # type: ignore[return-value]

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except TypeError:
            if (problem := misfit(function, arguments, keywords)) is None:
                raise
        raise SnnError(problem)

    return call  # type: ignore[return-value]


if TYPE_CHECKING:
    from dataclasses import dataclass as checked_dataclass
else:

    def checked_dataclass(**options: Any) -> Callable[[type], type]:
        """A `dataclass` that refuses by an `SnnError` to be made, or to have its methods called, by wrong names."""

        def made(kind: type) -> type:
            kind.__signature__ = Shown()
            return checked_call(dataclasses.dataclass(**options)(kind))

        return made


class Shown:
    """The signature of a class of values as `help` shows it: plain types, without what checks them."""

    def __get__(self, value: Any, kind: type) -> inspect.Signature:
        if value is not None:
            raise AttributeError("__signature__")  # a value that can be called has the signature of its call
        _, *parameters = inspect.signature(kind.__init__).parameters.values()
        return inspect.Signature([_plain(each) for each in parameters])


def _plain(parameter: Parameter) -> Parameter:
    """A parameter with its type alone, and without where that is one of ours, which its docstring says."""
    kind = parameter.annotation
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return parameter.replace(annotation=Parameter.empty if "snn_bp." in inspect.formatannotation(kind) else kind)


def misfit(function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> str | None:
    """Why a call does not fit the parameters of a function, in words; None where it does."""
    signature = inspect.signature(function)
    try:
        signature.bind(*arguments, **keywords)
        return None
    except TypeError:
        name = getattr(function, "__name__", type(function).__name__)
        parameters = list(signature.parameters.values())
    if parameters and parameters[0].name in ("self", "cls"):
        own = arguments[0] if isinstance(arguments[0], type) else type(arguments[0])
        name = own.__name__ if name == "__init__" else f"{own.__name__}.{name}"
        arguments, parameters = arguments[1:], parameters[1:]
    kinds = {each.kind for each in parameters}
    parameters = [each for each in parameters if each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    names = [each.name for each in parameters]
    ordered = [each.name for each in parameters if each.kind is not Parameter.KEYWORD_ONLY]
    unknown = [key for key in keywords if key not in names]
    if unknown and Parameter.VAR_KEYWORD not in kinds:
        within = field_within(function, unknown[0])
        hint = new_name(name, unknown[0]) or (within and f"Did you mean {within!r}?")
        hint = hint or (nearest(unknown[0], names) if names else "It takes nothing.")
        return f"{name}: there is no {unknown[0]!r}. {hint}"
    if len(arguments) > len(ordered) and Parameter.VAR_POSITIONAL not in kinds:
        extra = shown(arguments[len(ordered)])
        named = [each for each in names if each not in ordered and each not in keywords]
        advice = f"As in {named[0]}={extra}; by name it takes {', '.join(named)}" if named else "Leave it out"
        return f"{name}: {extra} is one value too many without a name. {advice}."
    twice = [each for each in ordered[: len(arguments)] if each in keywords]
    if twice:
        return f"{name}: {twice[0]!r} is given twice, by its position and by its name. Leave one of them."
    given = {*keywords, *ordered[: len(arguments)]}
    missing = [each.name for each in parameters if each.default is each.empty and each.name not in given]
    return f"{name}: {missing[0]!r} is missing. It takes {', '.join(names)}."


def field_within(function: Callable[..., Any], name: str) -> str | None:
    """The way to a field of this name in the values that a function takes, as `train.lr`; None where none has it."""
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # an annotation that only a type checker knows
        return None
    for parameter, kind in hints.items():
        if dataclasses.is_dataclass(kind) and parameter != "return":
            known = [field.name for field in dataclasses.fields(kind) if field.init]
            inner = name if name in known else field_within(kind.__init__, name)
            if inner is not None:
                return f"{parameter}.{inner}"
    return None
