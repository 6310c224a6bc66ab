"""Work split into parts that do not depend on the number of threads, and run in as many as torch uses."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch

LEAST, PARTS = 16, 8  # rows in a part at least, parts at most


def cut(rows: int, *, least: int = LEAST) -> list[tuple[int, int]]:
    """First and last of each part of `rows`, the same for any number of threads."""
    count = min(PARTS, max(1, rows // least))
    edges = [rows * n // count for n in range(count + 1)]
    return list(pairwise(edges))


def in_threads(tasks: Sequence[Callable[[], None]]) -> None:
    """Run all tasks in as many threads as torch uses."""
    threads = min(torch.get_num_threads(), len(tasks), os.cpu_count() or 1)
    if threads == 1:
        for task in tasks:
            task()
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()
