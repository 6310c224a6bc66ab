"""The processes that torchrun started: which of them this is, and that what ends them is said once.

torch is asked where it is there already; a plain start neither imports nor opens anything.
"""

import functools
import os
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any

from snn_bp.errors import SnnError

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun sets them all
_ENDED, _SAID = "snn_bp/ended", "snn_bp/said"
PATIENCE = timedelta(seconds=10)  # for the line of another process


def rank() -> int:
    """Which process this is, from 0 on."""
    return _rank_and_count()[0]


def processes() -> int:
    """How many processes run this program together: 1 unless torchrun started more."""
    return _rank_and_count()[1]


def is_first() -> bool:
    """Whether this process writes and speaks for all."""
    return rank() == 0


def check_alone(asker: str, *, advice: str = "") -> None:
    """Raise where several processes run what only one can."""
    if (count := processes()) > 1:
        raise SnnError(f"{asker}: it runs in one process, torchrun started {count}. {advice or 'Start it without.'}")


@functools.cache
def store() -> Any:
    """What the processes read and write together, of torch's rendezvous; None where it cannot be reached."""
    try:
        from torch.distributed.rendezvous import rendezvous

        return next(rendezvous("env://", timeout=timedelta(minutes=5)))[0]
    except Exception:  # whatever is wrong with it, what ends this process is said all the same
        return None


@functools.cache
def ends_first() -> bool:
    """Whether this process is the first to end, so that it says why; the answer is the same from then on."""
    if processes() == 1 or store() is None:
        return True
    try:
        return store().add(_key(_ENDED), 1) == 1
    except Exception:
        return True


def note_said() -> None:
    """Behind the line that says why all end: others may go now. One that ends later waits for it."""
    if processes() == 1 or store() is None:
        return
    with suppress(Exception):
        if ends_first():
            store().set(_key(_SAID), "1")
        else:
            store().wait([_key(_SAID)], PATIENCE)


def _rank_and_count() -> tuple[int, int]:
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    given = [os.environ.get(name, "") for name in _VARIABLES]
    if not all(given) or not (given[0] + given[1]).isdecimal():
        return 0, 1
    return int(given[0]), int(given[1])


def _key(name: str) -> str:
    return f"{name}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
