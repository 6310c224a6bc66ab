"""Measuring processes: each has its own library, threads, cores and settings, and hands back JSON."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from speed import measure
from speed.works import WORKS, Work

SPEED = Path(__file__).resolve().parents[1] / "speed.py"
ONE_CORE = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
LONG_S, LONG_RUNS = 10.0, 3  # a step that takes longer is timed less often
SHORT_S = 3.0  # a step that takes less is timed behind another, as in training: what it reads is in the caches again
WARM_STEPS = 4  # of a run that only loads code


def measured(task: dict[str, Any], *, threads: int) -> Any:
    """What `do` gives for the task in a fresh process on as many cores as threads; an `error` where it dies."""
    with Worker(task, threads=threads) as worker:
        return worker.answer()


def in_turns(task: dict[str, Any], libraries: list[str], *, repeats: int, threads: int) -> list[dict[str, Any]]:
    """Milliseconds of a step of each library: each in a process of its own, one after the other in every repeat.

    So no library runs under another's settings (ours keeps freed memory, which speeds its neighbours up), and a
    disturbance of the machine meets all alike.
    """
    with ExitStack() as stack:
        workers, warm = {}, {}
        for name in libraries:  # one after the other: the first one makes the arrays of the work
            task = task | {"do": "times", "library": name}
            workers[name] = stack.enter_context(Worker(task, threads=threads))
            warm[name] = workers[name].answer()
        seconds: dict[str, list[float]] = {name: [] for name in libraries}
        for repeat in range(repeats):
            for name, worker in workers.items():
                if "error" not in warm[name] and (repeat < LONG_RUNS or warm[name]["seconds"] < LONG_S):
                    if "error" in (answer := worker.ask()):
                        warm[name] = answer
                    else:
                        seconds[name].append(answer["seconds"])
    return [measure.row(_work(task), name, seconds[name], error=warm[name].get("error")) for name in libraries]


class Worker:
    """A process that answers a task, and again each time it is asked, in lines of JSON; stopped in between.

    Peers that wait may do so busily: ours took 21 ms on W2 beside seven that were not stopped, 12 ms beside one.
    """

    def __init__(self, task: dict[str, Any], *, threads: int) -> None:
        counts = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
        jax = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": str(int(task.get("dtype") == "float64"))}
        jax |= {"XLA_FLAGS": ONE_CORE} if threads == 1 else {}
        cores = sorted(os.sched_getaffinity(0))[-threads:]
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed on exit
        self._process = subprocess.Popen(
            [sys.executable, str(SPEED), "--task", json.dumps(task | {"threads": threads})],
            env=os.environ | counts | jax,
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,
        )

    def ask(self) -> Any:
        """The next answer."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGCONT)
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """The answer under way; an `error` where the process has died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            os.killpg(self._process.pid, signal.SIGSTOP)
            return json.loads(line)
        code = self._process.wait()
        self._said.seek(0)
        return {"error": (self._said.read() or f"exit code {code}")[-600:]}

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with what it started
        self._process.communicate()
        self._said.close()


def do(task: dict[str, Any]) -> None:
    """Carry out a task in this process and print its answer; a timed step again for each line that comes in."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    torch.set_num_threads(task["threads"])
    for answer in _timed(task) if task["do"] == "times" else [_answer(task)]:
        print(json.dumps(answer), file=answers, flush=True)


def _timed(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The shorter of two steps that compile, then the seconds of another for each line."""
    try:
        step = measure.build(task["library"], _work(task), Path(task["folder"]))
        shorter = min(measure.seconds(step), measure.seconds(step))
        yield {"seconds": shorter}
    except Exception as error:  # a peer may fail in any way; the others are measured all the same
        yield {"error": f"{type(error).__name__}: {error}"[:300]}
        return
    for _ in sys.stdin:
        if shorter < SHORT_S:
            step.run()
        yield {"seconds": measure.seconds(step)}


def _answer(task: dict[str, Any]) -> Any:
    if task["do"] == "bandwidth":
        return measure.copy_bandwidth()
    if task["do"] == "product":
        return measure.product(_work(task))
    folder = Path(task["folder"])
    if task["do"] == "memory":
        short = replace(_work(task), steps=WARM_STEPS)
        return measure.peak_memory(_work(task), short, task["library"], folder=folder)
    works = [replace(WORKS[name], batch=batch) for name, batch in task["works"].items()]
    return [
        measure.agreement(work, task["library"], dtype=getattr(torch, task["dtype"]), folder=folder) for work in works
    ]


def _work(task: dict[str, Any]) -> Work:
    return replace(WORKS[task["work"]], **task.get("changes", {}))
