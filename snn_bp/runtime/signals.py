"""Signals that ask a program to stop: after the first the run saves and stops, the second ends it at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snn_bp.errors import typed
from snn_bp.runtime import is_on
from snn_bp.runtime.processes import processes
from snn_bp.runtime.status import status

STOP_SECONDS = 20.0  # torchrun, as SLURM, kills what it has asked to stop behind 30


class Stopped(Exception):
    """A signal asked the run in `path` to stop, and all is saved; `command` goes on with it (`snn-bp resume`)."""

    def __init__(self, path: Path, signum: int, *, command: str = "") -> None:
        super().__init__(f"stopped and saved. Go on with: {command or f'snn-bp resume {typed(path)}'}")
        self.signum = signum


def end_in_silence() -> None:
    """While our own program imports libraries, let Ctrl-C end it with one line instead of a traceback."""
    ours = Path(sys.argv[0] or "-").name.split(".")[0] == "snn-bp" or "-m snn_bp" in " ".join(sys.orig_argv)
    if ours and is_on("SIGNALS") and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def end_with_interrupt() -> None:
    """Make Ctrl-C an exception again, which `guarded` reports in one line."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Within the block, Ctrl-C, SIGTERM and SIGHUP (a terminal that goes) are noted; the second ends it all.

    A SIGHUP that is ignored, as under nohup, stays so. `SNN_BP_SIGNALS=0` leaves all three to Python. Of several
    processes one that is still in the block `STOP_SECONDS` seconds later sends itself the second.
    """
    noted: list[int] = []
    second = threading.Timer(STOP_SECONDS, lambda: os.kill(os.getpid(), noted[0]))
    second.daemon = True

    def note(signum: int, frame: Any) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(signum)
        if processes() > 1:
            second.start()

    try:
        with _handled_by(note):
            yield noted
    finally:
        second.cancel()


@contextmanager
def stopped_at_once(path: Path, *, command: str) -> Iterator[None]:
    """Within the block, which keeps what it finds as it finds it, such a signal ends it with `Stopped`."""
    noted: list[int] = []

    def note(signum: int, frame: Any) -> None:
        noted.append(signum)
        raise KeyboardInterrupt  # which nobody takes for an error

    try:
        with _handled_by(note):
            yield
    except KeyboardInterrupt:
        if not noted:  # it is another's
            raise
        raise Stopped(path, noted[0], command=command) from None


@contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Within the block, signals that ask to stop are handled so, where they are ours to handle."""
    if not is_on("SIGNALS") or threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        wanted.append(hangup)
    previous = {signum: signal.signal(signum, handler) for signum in wanted}
    try:
        yield
    finally:
        for signum, before in previous.items():
            signal.signal(signum, before)


@contextmanager
def raised_signals() -> Iterator[Callable[[], None]]:
    """Within the block SIGTERM and SIGHUP raise SystemExit, so that what was begun is cleared away.

    What it gives is called once there is something to clear away, and raises for a signal that came before. Where
    someone else handles or ignores them it stays so.
    """
    noted: list[int] = []
    has_begun = False

    def note(signum: int, frame: Any) -> None:
        noted.append(signum)
        if has_begun:
            sys.exit(128 + signum)

    def begun() -> None:
        nonlocal has_begun
        has_begun = True
        for signum in noted:
            sys.exit(128 + signum)

    if not is_on("SIGNALS") or threading.current_thread() is not threading.main_thread():
        yield begun
        return
    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [signum for signum in wanted if signal.getsignal(signum) is signal.SIG_DFL]
    for signum in ours:
        signal.signal(signum, note)
    try:
        yield begun
    finally:
        for signum in ours:
            signal.signal(signum, signal.SIG_DFL)


def _end(signum: int, frame: Any) -> None:
    if (told := status()) is not None:
        told.close()  # the line of a start that takes long
    os.write(2, b"stopped before anything began.\n")
    os._exit(130)
