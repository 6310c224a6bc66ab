"""Errors that come from code of the user's own: of which line of it. Python, libraries and snn_bp are installed."""

import functools
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType


@functools.cache
def is_installed(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    path = Path(file).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return any(path.is_relative_to(Path(folder).resolve()) for folder in folders if folder)


def in_words(problem: BaseException) -> str:
    """An error of any kind in words, and the line of the user's own code that it came through, the innermost.

    As in "ZeroDivisionError: division by zero (mine.py, line 7: `x / 0`)".
    """
    text, line = " ".join(str(problem).split()), own_line(problem)
    return type(problem).__name__ + f": {text}" * bool(text) + f" ({line})" * bool(line)


def own_line(problem: BaseException) -> str:
    """That line alone; empty where an error came through none."""
    frames = [(frame, number) for frame, number in traceback.walk_tb(problem.__traceback__) if _is_own(frame)]
    for line in traceback.StackSummary.extract(iter(frames[-1:])):
        return f"{line.filename}, line {line.lineno}" + f": `{line.line}`" * bool(line.line)
    return ""


def own_backward(problem: BaseException) -> str:
    """The user's own code that a backward pass went through which torch ended by itself, so that no line is of theirs.

    It is the function that torch names, or else every class of layers and functions there is; empty of other errors.
    """
    torch, frames = sys.modules.get("torch"), [frame for frame, _ in traceback.walk_tb(problem.__traceback__)]
    if torch is None or not frames or frames[-1].f_code.co_name != "_engine_run_backward":
        return ""
    functions = {kind.__name__: _line_of(kind, "backward") for kind in _own_kinds(torch.autograd.Function)}
    layers = {kind.__name__: _line_of(kind, "forward") for kind in _own_kinds(torch.nn.Module)}
    named = re.search(r"(\w+)Backward\b", str(problem))
    found = {named[1]: functions[named[1]]} if named and named[1] in functions else functions | layers
    return ", ".join(f"{name} ({line})" for name, line in found.items())


def _own_kinds(kind: type) -> Iterator[type]:
    """The classes made of one that are the user's own."""
    for below in kind.__subclasses__():
        file = getattr(sys.modules.get(below.__module__), "__file__", None) or _line_of(below, "forward")
        if not (below.__module__.partition(".")[0] in ("snn_bp", "torch") or is_installed(file.partition(",")[0])):
            yield below
        yield from _own_kinds(below)


def _line_of(kind: type, method: str) -> str:
    """File and line of a method."""
    code = getattr(getattr(kind, method, None), "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code else kind.__module__


def _is_own(frame: FrameType) -> bool:
    file, name = frame.f_code.co_filename, str(frame.f_globals.get("__name__"))
    return file.endswith(".py") and name.partition(".")[0] != "snn_bp" and not is_installed(file)
