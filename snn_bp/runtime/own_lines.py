"""Errors that come from code of the user's own: of which line of it. Python, libraries and snn_bp are installed."""

import functools
import sysconfig
import traceback
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


def _is_own(frame: FrameType) -> bool:
    file, name = frame.f_code.co_filename, str(frame.f_globals.get("__name__"))
    return file.endswith(".py") and name.partition(".")[0] != "snn_bp" and not is_installed(file)
