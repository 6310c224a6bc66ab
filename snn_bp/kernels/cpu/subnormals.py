"""Subnormal numbers, which some processors take a hundred cycles to multiply, count as zero.

They are what decay leaves: a potential halved 126 times, the error of a class that a softmax is sure of.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SUBNORMAL = 5e-324


@contextmanager
def without_subnormals() -> Iterator[None]:
    """In this thread, numbers nearer to zero than the smallest normal one (1.2e-38 in single precision) are zero.

    Where the processor knows no such mode (torch asks it), nothing changes.
    """
    if not are_kept():
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def are_kept() -> bool:
    """Whether this thread calculates with subnormal numbers."""
    return _SUBNORMAL * 1.0 != 0.0
