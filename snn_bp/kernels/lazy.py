"""Functions of arrays that numba compiles when they are first called: it is imported then, and not before."""

import functools
import threading
from collections.abc import Callable
from typing import Any

from snn_bp.kernels import cpu
from snn_bp.kernels.bind import bind

_LOCK = threading.Lock()  # threads that come first together compile once


def kernel(*helpers: Callable) -> Callable[[Callable], Callable]:
    """A function compiled at its first call, with the helpers that it calls; all of them lie in one file.

    A helper may call those named before it.
    """

    def decorated(function: Callable) -> Callable:
        @functools.cache
        def compiled() -> Callable:
            inner: dict[str, Any] = {}
            for helper in helpers:
                inner[helper.__name__] = cpu.compile.inner(bind(helper, **inner))
            return cpu.compile.kernel(bind(function, **inner))

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            with _LOCK:
                run = compiled()
            return run(*arguments)

        return call

    return decorated
