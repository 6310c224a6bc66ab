"""Work split into shards that do not depend on the number of threads, and run in as many as torch uses."""

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import torch

MIN_ROWS, MAX_SHARDS = 16, 8  # a shard has this many rows or is alone
_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def split_rows(rows: int, *, min_rows: int = MIN_ROWS, max_shards: int = MAX_SHARDS) -> list[tuple[int, int]]:
    """First and last of each shard of `rows`, the same for any number of threads.

    There are at most `max_shards`, and none has fewer rows than `min_rows` unless it is alone.
    """
    count = min(max_shards, max(1, rows // min_rows))
    edges = [rows * n // count for n in range(count + 1)]
    return list(pairwise(edges))


def parallel_for(tasks: Sequence[Callable[[], None]]) -> None:
    """Run all tasks in as many threads as torch uses."""
    threads = min(torch.get_num_threads(), len(tasks))
    waiting, errors = iter(tasks), []

    def work(_: object = None) -> None:
        try:
            for task in waiting:  # an iterator over a list gives each task to one thread only
                task()
        except BaseException as error:  # a callback cannot raise into its caller
            errors.append(error)

    if threads < 2:
        work()
    elif (team := _torch_team()) is not None:
        team(_Body(work), None, threads, 0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(threads):
                pool.submit(work)
    if errors:
        raise errors[0]


@functools.cache
def _torch_team() -> Callable | None:
    """`GOMP_parallel` of the OpenMP that torch runs on, None where it runs on another.

    torch's threads spin for a while after each of its operations. Threads of our own would have to share the cores with
    them; here the same ones do both.
    """
    for library in Path(torch.__file__).parent.joinpath("lib").glob("libgomp*.so*"):
        try:
            return ctypes.CDLL(str(library), mode=getattr(os, "RTLD_NOLOAD", 0) | os.RTLD_NOW).GOMP_parallel
        except (OSError, AttributeError):
            continue
    return None
