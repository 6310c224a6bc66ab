"""Compiled kernels on disk, where there is a folder for them: numba's cache, and what to do where it fails.

numba stops a program when it finds no folder that it can write to, when the disk is full, or when a file of its cache
is cut. None of that is a reason to stop: the kernel is compiled in memory, and once it is said that it takes time.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any, cast

from numba import njit
from numba.core import event

from snn_bp.runtime.status import phase, say


class _Compiling(event.Listener):
    """What numba tells of its compiling, as a phase."""

    def __init__(self) -> None:
        self._entered: list[Any] = []  # a function compiles those that it calls

    def on_start(self, event: Any) -> None:
        """A function is being compiled from here on."""
        self._entered.append(phase("compiling the kernels"))
        self._entered[-1].__enter__()

    def on_end(self, event: Any) -> None:
        """It is compiled, or cannot be."""
        self._entered.pop().__exit__(None, None, None)


event.register("numba:compile", _Compiling())


def cached(function: Callable, **options: Any) -> Callable:
    """`function` compiled by numba, from its cache where there is one that works."""
    try:
        dispatcher: Any = cast(Any, njit)(function, cache=True, **options)
    except (RuntimeError, OSError) as cause:
        _say_once(str(cause), "compiled in memory, at every start anew")
        return cast(Any, njit)(function, **options)
    dispatcher._cache = _Lenient(dispatcher._cache)
    return dispatcher


class _Lenient:
    """A cache of numba's whose faults cost time and nothing else."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """What was compiled before; None where there is nothing, or nothing that can be read."""
        try:
            return self._cache.load_overload(signature, target_context)
        except Exception as cause:  # a cut file raises any error at all
            _say_once(f"{self._cache.cache_path}: {type(cause).__name__} {cause}", "compiled anew")
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep what was compiled, where that is possible."""
        for again in (True, False):
            try:
                self._cache.save_overload(signature, compiled)
                return
            except Exception as cause:
                if again and _emptied(self._cache):
                    continue
                reason = f"{self._cache.cache_path}: {type(cause).__name__} {cause}"
                _say_once(reason, "compiled in memory, at every start anew")
                return


def _emptied(cache: Any) -> bool:
    """Whether an index that could not be read is gone."""
    try:
        cache.flush()
    except Exception:
        return False
    return True


_warned = threading.Event()  # a process says it once


def _say_once(reason: str, what: str) -> None:
    if not _warned.is_set():
        _warned.set()
        say(
            f"kernels are {what}: numba's cache fails ({' '.join(reason.split())}). "
            "NUMBA_CACHE_DIR names another folder.",
            file=sys.stderr,
        )
