"""What a function of a user's takes, so that a loss or metric may leave out what it has no use for."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any


def takes(value: Any, name: str) -> bool:
    """Whether something that can be called has a parameter of this name."""
    if inspect.isfunction(value) or inspect.ismethod(value):
        return name in _parameters(value.__func__ if inspect.ismethod(value) else value)
    return name in _parameters(type(value).__call__)


def called(value: Any) -> str:
    """What a message calls a value of a user's: its class, or a function by its name."""
    return getattr(value, "__name__", type(value).__name__)


@lru_cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(function).parameters)
    except ValueError:  # some that are written in C do not say
        return frozenset()
