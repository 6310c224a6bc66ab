"""Measuring processes: each has its own threads, cores and library settings, and hands back JSON."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from speed import measure
from speed.works import WORKS, Work

SPEED = Path(__file__).resolve().parents[1] / "speed.py"
ONE_CORE = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
WARM_STEPS = 4  # of a run that only loads code


def measured(task: dict[str, Any], *, threads: int) -> Any:
    """What `do` gives for the task in a fresh process on as many cores as threads; an `error` where it dies."""
    counts = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    jax = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": str(int(task.get("dtype") == "float64"))}
    jax |= {"XLA_FLAGS": ONE_CORE} if threads == 1 else {}
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        task = task | {"threads": threads, "answer": str(answer)}
        done = subprocess.run(
            [sys.executable, str(SPEED), "--task", json.dumps(task)],
            env=os.environ | counts | jax,
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if not answer.exists():
            return {"error": (done.stderr or f"exit code {done.returncode}")[-600:]}
        return json.loads(answer.read_text())


def do(task: dict[str, Any]) -> None:
    """Carry out a task in this process and write its answer."""
    torch.set_num_threads(task["threads"])
    Path(task["answer"]).write_text(json.dumps(_answer(task)))


def _answer(task: dict[str, Any]) -> Any:
    if task["do"] == "bandwidth":
        return measure.copy_bandwidth()
    folder = Path(task["folder"])
    if task["do"] == "times":
        return measure.times(_work(task), task["libraries"], repeats=task["repeats"], folder=folder)
    if task["do"] == "memory":
        short = replace(_work(task), steps=WARM_STEPS)
        return measure.peak_memory(_work(task), short, task["library"], folder=folder)
    works = [replace(WORKS[name], batch=batch) for name, batch in task["works"].items()]
    return [
        measure.agreement(work, task["library"], dtype=getattr(torch, task["dtype"]), folder=folder) for work in works
    ]


def _work(task: dict[str, Any]) -> Work:
    return replace(WORKS[task["work"]], **task.get("changes", {}))
