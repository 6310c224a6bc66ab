"""Runs of a sweep, each by `snn-bp train` or `snn-bp resume` in a process of its own, so many at a time.

A process is a fork of the prepared one where there is one, else a new one; a run is the same in both.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import torch

from snn_bp.files.folders import SameFolder
from snn_bp.files.lock import holder
from snn_bp.runs.records import figure_in_words
from snn_bp.runtime.console import REFUSED
from snn_bp.runtime.prepared import LOST, THREADS, Forked, Prepared, environment_of_each, threads_of_each
from snn_bp.runtime.signals import Stopped, noted_signals
from snn_bp.runtime.status import phase, say
from snn_bp.searches.jobs import Job

PAUSE_S = 0.05  # between two looks at the processes


class Failure(NamedTuple):
    """A run that failed."""

    job: Job
    why: str
    is_refused: bool  # it ended with an error of its own; otherwise something ended it


def train_all(
    jobs: Sequence[Job], file: Path, out: Path, *, prepared: Prepared, parallel: int = 1, command: str = "",
    trust_code: bool = False, quiet: bool = False, done: int = 0, total: int | None = None, last: Sequence[Job] = (),
) -> list[Failure]:  # fmt: skip
    """Train all that is not finished; which runs failed, and why.

    `done` of `total` runs were finished before, beside these. The `last` ones share all cores: there are fewer of them
    than `parallel`, and they begin as the others end.
    """
    total = len(jobs) if total is None else total
    environment = environment_of_each(parallel)
    devices = devices_of_each(parallel)
    waiting = [job for job in jobs if job.results() is None]
    done += len(jobs) - len(waiting)
    running: list[_Running] = []
    failed: list[Failure] = []
    same = SameFolder(out, remedy="The same command goes on with it, its --out where it lies now.")
    held = [job for job in waiting if holder(job.path)]  # a run that a killed sweep left at work counts as one of ours
    with noted_signals() as stop, phase("training", total=total) as shown:
        try:
            if waiting:
                prepared.begin(environment)
            while (waiting or running) and not stop:
                for each in [each for each in running if each.process.poll() is not None]:
                    running.remove(each)
                    job, failure = each.job, each.failure()
                    is_held = holder(job.path) is not None  # asked first: who holds it may finish it meanwhile
                    if (results := job.results()) is not None:
                        done += 1
                        if not quiet:
                            figure = figure_in_words(results["validation"])
                            say(f"{done} of {total}: {job.path}: validation {figure}")
                    elif is_held:  # a process that a killed sweep left was there first
                        waiting.append(job)
                        held.append(job)
                    elif each.process.returncode == LOST:
                        waiting.append(job)
                    else:
                        failed.append(failure)
                        if not quiet:
                            say(f"{job.path}: {failure.why}", file=sys.stderr)
                shown.done = done
                held = [job for job in held if holder(job.path)]
                free = 0 if prepared.is_preparing() else max(0, parallel - len(running) - len(held))
                for job in [job for job in waiting if job not in held][:free]:
                    waiting.remove(job)
                    if job.results() is not None:  # by now, by the process that held it
                        done += 1
                        continue
                    same.check()
                    job.check_source()
                    slot = min({*range(parallel)} - {each.slot for each in running})
                    own = {"CUDA_VISIBLE_DEVICES": devices[slot]} if devices and job.takes_any_gpu else {}
                    if job.path in [each.path for each in last]:
                        own |= {THREADS: str(threads_of_each(len(last)))}
                    words = job.command(file, trust_code=trust_code)
                    running.append(_Running.start(job, slot, words, environment, own, prepared))
                time.sleep(PAUSE_S)
            for each in running:
                each.process.terminate()  # it saves, and stops
            for each in running:
                each.process.wait()
        finally:
            for each in running:
                each.process.kill()
                each.process.wait()
                each.errors.close()
    if stop:
        raise Stopped(out, stop[0], command=command)
    return failed


def program() -> list[str]:
    """What starts `snn-bp` in a process that imports from where this one does; `-m` would look in this folder first."""
    return [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; from snn_bp.cli import entry; entry()"]


def devices_of_each(parallel: int) -> list[str]:
    """The GPU of each of so many runs at a time, as `CUDA_VISIBLE_DEVICES` has it; empty where there are no several."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = map(str, range(torch.cuda.device_count())) if told is None else told.split(",")
    there = [name.strip() for name in named if name.strip()]
    return [there[slot % len(there)] for slot in range(parallel)] if len(there) > 1 else []


class _Running(NamedTuple):
    """A run at work."""

    job: Job
    slot: int  # the lowest that no other had as it began
    process: subprocess.Popen | Forked
    errors: IO[bytes]

    @classmethod
    def start(
        cls, job: Job, slot: int, words: list[str], environment: dict[str, str], variables: dict[str, str],
        prepared: Prepared,
    ) -> "_Running":  # fmt: skip
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed where the process ends
        process = prepared.fork(words, variables, errors.fileno()) or subprocess.Popen(
            [*program(), *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            env=environment | variables, start_new_session=True,
        )  # fmt: skip
        return cls(job, slot, process, errors)

    def failure(self) -> Failure:
        """What the ended process said at last on standard error, which is closed, or by which signal it ended."""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").splitlines()
        self.errors.close()
        code = self.process.returncode
        why = (lines or [f"it ended with code {code} and no word."])[-1].removeprefix("error: ")
        if code is not None and code < 0:  # what it said is not why
            why = f"a signal ended it (code {code})." + f" It had said: {why}" * bool(lines)
        return Failure(self.job, why, code == REFUSED)
