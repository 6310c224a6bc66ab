"""Commands of snn-bp in forked processes, so that a thousand trials need not import torch a thousand times.

The parent imports and warms everything once, on one thread: a fork has the compiled kernels, and no pool of threads to
lose. Each trial has its own process group, standard streams and time limit.
"""

import atexit
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OPERATIONS = ("open", "replace", "rename", "fsync", "write", "unlink", "mkdir", "truncate", "ftruncate")


@dataclass(frozen=True)
class Ended:
    """How a forked process ended; `code` is None where it was still running at its limit, `-signal` where killed."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def traceback(self) -> bool:
        """Whether Python printed a traceback, or the process crashed."""
        crashed = self.code is not None and self.code < 0 and -self.code != signal.SIGKILL
        return crashed or "Traceback (most recent call last)" in self.err + self.out


def fork(
    work: Callable[[], object], *,
    limit_s: float = 60, kill_after_s: float | None = None, environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Ended:  # fmt: skip
    """Run `work` in a fork, with SIGKILL `kill_after_s` seconds after its start where asked for."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _in_child(work, out.fileno(), err.fileno(), environment or {}, cwd)
        code = _wait(child, began, kill_after_s if kill_after_s is not None else limit_s)
        if code is None:
            try:
                os.killpg(child, signal.SIGKILL)
            except ProcessLookupError:  # so early that it has no group of its own
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            code = None if kill_after_s is None else os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
        return Ended(code, texts[0], texts[1], time.monotonic() - began)


def command(*arguments: object, **options: object) -> Ended:
    """`snn-bp ARGUMENTS` in a fork; options are those of `fork`."""
    return fork(lambda: run_command([str(argument) for argument in arguments]), **options)  # type: ignore[arg-type]


def run_command(arguments: Sequence[str]) -> None:
    """`snn-bp ARGUMENTS` in this process, which it ends."""
    from snn_bp.cli import entry

    sys.argv = ["snn-bp", *arguments]
    entry()


def kill_at_operation(number: int) -> None:
    """Let this process kill itself before its `number`-th call that changes a file by name or waits for the disk."""

    def check(count: int) -> None:
        if count >= number:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch_operations(check)


def count_operations(work: Callable[[], object]) -> int:
    """How many such calls `work` makes."""
    counts = [0]
    _watch_operations(counts.append)
    work()
    return counts[-1]


def _watch_operations(met: Callable[[int], object]) -> None:
    """Call `met` with the number of the operation before each one, in this process from now on."""
    count = 0

    def watched(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            met(count)
            return call(*arguments, **options)

        return wrapped

    for name in OPERATIONS:
        setattr(os, name, watched(getattr(os, name)))


def _in_child(work: Callable[[], object], out: int, err: int, environment: Mapping[str, str], cwd: Path | None) -> None:
    code = 1
    try:
        atexit._clear()  # what the parent cleans up at its end is not the child's to remove
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.environ.update(environment)
        if cwd is not None:
            os.chdir(cwd)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, began: float, limit_s: float) -> int | None:
    """The exit code of `child`, or None where it still runs `limit_s` seconds after `began`."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - began > limit_s:
            return None
        time.sleep(0.005)
