"""What runs in the process that a sweep's runs are forks of (`runtime/prepared.py`).

It is a program of its own, whatever the sweep's process has begun, and ends with it. It begins no thread, asks for no
GPU and reads nothing of the user's, so that a fork of it is what a new process would be.
"""

import json
import os
import select
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from snn_bp.kernels import cpu
from snn_bp.runtime.prepared import LONGEST, THREADS

KERNELS = ("chain", "neuron", "norm_neurons", "packed_layer", "pool", "sparse_ops")


def serve(number: int, known: set[str], folder: str) -> None:
    """Prepare, and fork for each run that is asked for by socket `number`; returns in the forks alone.

    `known`: the modules that a new process has imported when it reads an experiment; others may stand in its `folder`.
    """
    connection = socket.socket(fileno=number)
    prepare()
    added = {name.partition(".")[0] for name in sys.modules.keys() - known}
    if (
        added & {each.name.partition(".")[0] for each in Path(folder).iterdir()}
        or torch.cuda.is_initialized()
        or loses_threads()
    ):
        os._exit(0)
    connection.send(b"{}")
    running: dict[int, int] = {}
    while True:
        ready: list[int] = select.select([number, *running], [], [])[0]
        for handle in running.keys() & ready:
            _, status = os.waitpid(running[handle], 0)
            ended = {"ended": running.pop(handle), "code": os.waitstatus_to_exitcode(status)}
            os.close(handle)
            connection.send(json.dumps(ended).encode())
        if number not in ready:
            continue
        message, handles, _, _ = socket.recv_fds(connection, LONGEST, 1)
        if not message:  # the sweep has ended
            os._exit(0)
        (errors,) = handles
        if (process := os.fork()) == 0:
            os.dup2(errors, 2)
            for each in (errors, *running):
                os.close(each)
            connection.close()
            become(*json.loads(message))
            return
        os.close(errors)
        handle = os.pidfd_open(process)
        running[handle] = process
        socket.send_fds(connection, [json.dumps({"began": process}).encode()], [handle])


def prepare() -> None:
    """Import what trains and what reads a command line, and load a first kernel.

    numba then looks through all that it knows, half a second.
    """
    with suppress(Exception):
        import_module("snn_bp.cli").app(["list", "--sort", ""], standalone_mode=False)  # refused
    for name in KERNELS:
        getattr(cpu, name)
    find = import_module("snn_bp.kernels.cpu.sparse").find_events
    find(np.zeros((1, 1, 1), np.uint8), 0, 1, max_fraction=1.0)


def loses_threads() -> bool:
    """Whether a fork would lack a thread of this process; those of OpenBLAS end before a fork and begin anew."""
    if (process := os.fork()) == 0:
        os._exit(0)
    os.close(os.pidfd_open(process))  # some containers refuse it: better now than behind a run
    os.waitpid(process, 0)
    return len(os.listdir("/proc/self/task")) > 1


def become(words: list[str], variables: dict[str, str]) -> None:
    """Make this process, a fork, what a new one with these arguments and variables would be."""
    os.setsid()
    os.environ.update(variables)
    if THREADS in variables:  # which torch read as it was imported
        torch.set_num_threads(int(variables[THREADS]))
    sys.argv[1:] = sys.orig_argv[3:] = words
    np.random.seed()  # as Python's own random numbers, which begin anew in every fork
    torch.default_generator.seed()
