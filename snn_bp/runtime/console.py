"""Where a command ends: what goes wrong is one line and an exit code, also where nobody reads it any more."""

import errno
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from snn_bp.errors import SnnError
from snn_bp.runtime import is_on
from snn_bp.runtime.own_lines import in_words, own_backward, own_line
from snn_bp.runtime.processes import ends_first, interrupted, note_said
from snn_bp.runtime.signals import Stopped
from snn_bp.runtime.status import announced, say

REFUSED, LACKING = 2, 3  # exit codes: what was asked is wrong; what was asked is right, and the machine lacks something
LACKS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
INTERRUPTED = (
    "stopped. What was saved before is kept; `snn-bp resume RUN` goes on with a run, the same command with a sweep, "
    "--ann or a build."
)


@interrupted()
def guarded(program: Callable[..., Any], arguments: Sequence[str] | None = None) -> None:
    """Run a command line; what goes wrong is one line on standard error and an exit code that is not zero."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the locale has no character for is shown as an escape
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = say_warning
    try:
        with announced():
            code = program(arguments, standalone_mode=False)
        if not sys.stdout.closed:
            sys.stdout.flush()
    except SnnError as problem:
        if not is_on("SHORT_ERRORS"):
            raise
        _fail(str(problem), problem)
    except Stopped as stopped:
        _leave(str(stopped), 128 + stopped.signum)
    except KeyboardInterrupt:
        _leave(INTERRUPTED, 130)
    except BrokenPipeError:
        _forget_output()
        sys.exit(1)
    except MemoryError:
        _fail("there is not enough memory. A smaller data.batch or data.steps takes less.", MemoryError())
    except OSError as problem:
        _fail(f"{problem.filename or 'a file, or standard output'}: {problem.strerror or problem}.", problem)
    except Exception as problem:
        if type(problem).__name__ == "Abort":  # what typer makes of Ctrl-C
            _leave(INTERRUPTED, 130)
        message = getattr(problem, "format_message", None)  # a wrong command or option: typer's class, or click's
        if message is None:
            if own_line(problem) and is_on("SHORT_ERRORS"):
                _fail(f"{in_words(problem)}: code of your own; SNN_BP_SHORT_ERRORS=0 shows the way to it.", problem)
            if (own := own_backward(problem)) and is_on("SHORT_ERRORS"):
                _fail(
                    f"{in_words(problem)}, in a backward pass through code of your own: {own}. At the top of its file, "
                    "torch.autograd.set_detect_anomaly(True) shows which line of a forward it belongs to.",
                    problem,
                )
            raise
        _fail(f"{message().rstrip('.')}{'' if message().endswith('?') else '.'} {_advice(problem)}")
    else:
        if code == 130:  # Ctrl-C, where typer has taken it for itself
            _leave(INTERRUPTED, code)
        if isinstance(code, int):  # what --help exits with
            sys.exit(code)


def open_streams() -> None:
    """Where a stream was closed before the start (`>&-`), open nothing in its place.

    Else the next file that is opened gets its number, and what C libraries print would go into a file of the run.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - to the end of the process


def say_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    """Print a warning as one line, without the line of code that it comes from: Python's `warnings.showwarning`."""
    say("warning: " + " ".join(str(message).split()), file=sys.stderr)


def _advice(problem: Any) -> str:
    """Where the words of a command line are listed, by an error of typer's."""
    context = getattr(problem, "ctx", None)
    if context is None:
        return "--help lists what there is."
    listed = f"`{context.command_path} --help` lists what there is."
    takes_changes = any(each.name == "changes" for each in context.command.params)
    if takes_changes and type(problem).__name__ == "NoSuchOption":
        return f"Settings are written key=value, as train.lr=1e-3; {listed}"
    return listed


def _fail(message: str, problem: BaseException | None = None) -> NoReturn:
    code = REFUSED
    while problem is not None:
        if isinstance(problem, MemoryError) or getattr(problem, "errno", None) in LACKS:
            code = LACKING
        problem = problem.__cause__ or problem.__context__
    _leave("error: " + " ".join(message.split()), code)


def _leave(line: str, code: int) -> NoReturn:
    """Say a last line, to whoever still listens, and end; of several processes the first that ends says its own."""
    if ends_first():
        with suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)
    note_said()
    _forget_output()
    sys.exit(code)


def _forget_output() -> None:
    """Where nobody reads standard output any more, let what is still to be written go nowhere, without a word."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - to the end of the process
