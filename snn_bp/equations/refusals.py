"""What a step may not hold is refused in a sentence, with the line of the step and what to write instead."""

import linecache
import sys
import types
from typing import NoReturn

from snn_bp.errors import SnnError

STEPS: list[types.CodeType] = []  # the step that is being recorded, last


def refuse(what: str, instead: str) -> NoReturn:
    """Raise: the step that is being recorded holds what its arithmetic does not know."""
    name = STEPS[-1].co_name if STEPS else "a step"
    raise SnnError(f"{name}{line_of(None)}: a step has no {what.removeprefix('a ')}. Write {instead}.")


def line_of(traceback: types.TracebackType | None) -> str:
    """Where in the step that is being recorded this is, in words; nothing where that is not known."""
    code, number = (STEPS[-1] if STEPS else None), None
    if traceback is None:
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code is code:
                number = frame.f_lineno
                break
            frame = frame.f_back
    while traceback is not None:
        if traceback.tb_frame.f_code is code:
            number = traceback.tb_lineno
        traceback = traceback.tb_next
    if code is None or number is None:
        return ""
    text = linecache.getline(code.co_filename, number).strip()
    return f", line {number}" + (f" (`{text}`)" if text else "")
