"""A process that has imported what a training takes, and forks for each run of a sweep: no run imports it again.

Here is what a sweep has of it, which imports nothing heavy: it starts while the sweep itself still imports. What runs
in it is `searches/forking.py`. Where there can be none, every run is a new process.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from snn_bp.runtime import is_on

LOST = 256  # the code of a run of which nobody knows how it ended: no process ends with it
ANSWER_S = 30.0  # a fork takes some milliseconds
THREADS = "OMP_NUM_THREADS"
READY_S = 120.0  # it takes some seconds, where kernels are compiled first half a minute
LONGEST = 2**20  # bytes of a message
LOOK_S = 0.02


class Prepared:
    """The process, in a `with` block: from `begin` on there is one, and at the end of the block there is none."""

    def __init__(self, file: Path) -> None:
        """`file` is the sweep's; one beside which a module has the name of one that is imported has no such process."""
        self.ended: dict[int, int] = {}  # the code of each run that has ended, by the number of its process
        self._folder = file.absolute().parent
        self._environment: Mapping[str, str] | None = None
        self._process: subprocess.Popen | None = None
        self._connection: socket.socket | None = None
        self._is_ready, self._began = False, 0.0

    def __enter__(self) -> "Prepared":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def begin(self, environment: Mapping[str, str]) -> None:
        """Have the process start in this environment, beside what the sweep does; once, even where it ended since."""
        if environment == self._environment or not (sys.platform == "linux" and is_on("FORKED_RUNS")):
            return
        self._close()
        self._environment, self._is_ready, self._began = environment, False, time.monotonic()
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _program(theirs.fileno(), self._folder)], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True,
                pass_fds=[theirs.fileno()],
            )  # fmt: skip

    def is_there(self) -> bool:
        """Whether the process has not ended."""
        self.read()
        return self._connection is not None

    def is_preparing(self) -> bool:
        """Whether runs had better wait for it; one that is never ready is ended."""
        if self.is_there() and not self._is_ready and time.monotonic() - self._began > READY_S:
            self._close()
        return self.is_there() and not self._is_ready

    def fork(self, words: Sequence[str], variables: Mapping[str, str], errors: int) -> "Forked | None":
        """`snn-bp` with these arguments, more variables and this standard error; None where there is no process."""
        if not self.is_there() or self._connection is None:
            return None
        try:
            socket.send_fds(self._connection, [json.dumps([list(words), dict(variables)]).encode()], [errors])
        except OSError:  # it has ended, or the words are too long
            return None
        return self.read(until=time.monotonic() + ANSWER_S)

    def read(self, *, until: float = 0.0) -> "Forked | None":
        """Take what the process has sent; where it should send that a run began, wait for that."""
        while self._connection is not None:
            seconds = max(0.0, until - time.monotonic())
            if not select.select([self._connection], [], [], seconds)[0]:
                if until:
                    self._close()  # it is stopped, or the machine is
                return None
            message, handles = b"", []
            with suppress(ConnectionError):
                message, handles, _, _ = socket.recv_fds(self._connection, LONGEST, 1, socket.MSG_CMSG_CLOEXEC)
            if not message:
                self._close()
                return None
            said: dict[str, int] = json.loads(message)
            if "began" in said:
                return Forked(self, said["began"], handles[0])
            if "ended" in said:
                self.ended[said["ended"]] = said["code"]
            else:
                self._is_ready = True
        return None

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()  # it has nothing to save
            self._process.wait()
            self._process = None


class Forked:
    """A run that the prepared process began: of `subprocess.Popen` what a sweep asks."""

    def __init__(self, prepared: Prepared, number: int, handle: int) -> None:
        self.returncode: int | None = None  # `LOST` where the prepared process ended before it
        self._prepared, self._number, self._handle = prepared, number, handle

    def poll(self) -> int | None:
        """The code with which it ended, None before."""
        if self.returncode is None:
            is_over = bool(select.select([self._handle], [], [], 0)[0])
            is_there = self._prepared.is_there()
            self.returncode = self._prepared.ended.pop(self._number, LOST if is_over and not is_there else None)
            if self.returncode is not None:
                os.close(self._handle)
        return self.returncode

    def wait(self) -> None:
        """Wait for its end."""
        while self.poll() is None:
            time.sleep(LOOK_S)

    def terminate(self) -> None:
        """Ask it to save and stop."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._send(signal.SIGKILL)

    def _send(self, signum: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signum)


def environment_of_each(parallel: int) -> dict[str, str]:
    """The variables of each of so many runs at a time."""
    return os.environ | ({THREADS: str(threads_of_each(parallel))} if parallel > 1 else {})


def threads_of_each(parallel: int) -> int:
    """How many threads a run has where so many share the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(KeyError, ValueError):
        cores = min(cores, int(os.environ[THREADS]) * parallel)
    return max(1, cores // parallel)


def _program(number: int, folder: Path) -> str:
    return (
        f"import sys; sys.path[:] = {sys.path!r}; from snn_bp.cli import entry; import snn_bp.runs.experiment_file; "
        "known = {*sys.modules}; from snn_bp.searches.forking import serve; "
        f"serve({number}, known, {str(folder)!r}); del snn_bp, known, serve; entry()"
    )
