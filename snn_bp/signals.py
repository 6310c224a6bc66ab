"""Signals that ask a program to stop: the first is noted, so that what was reached can be saved; the second ends it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Stopped(Exception):
    """A signal asked the run to stop, and all is saved."""

    def __init__(self, path: Path, signum: int) -> None:
        super().__init__(f"stopped and saved. Go on with: snn-bp resume {path}")
        self.signum = signum


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Within the block, Ctrl-C, SIGTERM and SIGHUP (a terminal that goes) are noted; the second ends it all.

    A SIGHUP that is ignored, as under nohup, stays so.
    """
    noted: list[int] = []

    def note(signum: int, frame: Any) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(signum)

    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    wanted = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        wanted.append(hangup)
    previous = {signum: signal.signal(signum, note) for signum in wanted}
    try:
        yield noted
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
