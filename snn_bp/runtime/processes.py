"""The processes that torchrun started: which of them this is, and that what ends them is said once.

torch is asked where it is there already; a plain start neither imports nor opens anything.
"""

import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from snn_bp.errors import SnnError
from snn_bp.runtime import is_on

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun sets them all
_ENDED, _SAID, _HERE = "snn_bp/ended", "snn_bp/said", "snn_bp/here"
PATIENCE, MEETING = timedelta(seconds=10), timedelta(minutes=5)  # for the line of another process; for all to be there


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


def check_counted() -> None:
    """Raise where the variables count a process that there is none of."""
    rank, count = _variables()
    if rank >= count:
        raise SnnError(
            f"train: RANK={rank} of WORLD_SIZE={count}: processes are counted from 0, so it should be below. torchrun "
            "sets both; without it, `unset RANK WORLD_SIZE`."
        )


def address() -> str:
    """Where the processes meet."""
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def has_agent() -> bool:
    """Whether torchrun holds the store, and notices when a process ends; else the first process holds it."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def store() -> Any:
    """What the processes read and write together, of torch's rendezvous; None where it cannot be reached by now."""
    try:
        return _store()
    except Exception:  # whatever is wrong with it, what ends this process is said all the same
        return None


def arrive() -> None:
    """Count this process among those that are there."""
    store().add(_key(_HERE), 1)


def arrived() -> int:
    """How many processes are there."""
    return store().add(_key(_HERE), 0)


@contextmanager
def interrupted() -> Iterator[None]:
    """Within the block SIGTERM, by which torchrun ends all once one has ended, raises KeyboardInterrupt, once.

    Only where there are several processes, and not behind `ends_first`.
    """
    is_free = _is_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if processes() == 1 or not is_on("SIGNALS") or not is_free:
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def interrupted_later() -> Iterator[None]:
    """Within the block, which imports libraries, what `interrupted` does waits for its end."""
    if signal.getsignal(signal.SIGTERM) is not _interrupt:
        yield
        return
    noted: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, frame: noted.append(signum))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, _interrupt)
    if noted:
        signal.raise_signal(signal.SIGTERM)


@functools.cache
def ends_first() -> bool:
    """Whether this process is the first to end, so that it says why; the answer is the same from then on."""
    if signal.getsignal(signal.SIGTERM) is _interrupt and _is_main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if processes() == 1 or store() is None:
        return True
    try:
        mine = str(rank())  # not a count: interrupted and asked again, it is the same
        return store().compare_set(_key(_ENDED), "", mine) == mine.encode()
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
    rank, count = _variables()
    return (rank, count) if rank < count else (0, 1)


def _variables() -> tuple[int, int]:
    """Rank and count as the variables say them; 0 and 1 where they do not."""
    given = [os.environ.get(name, "") for name in _VARIABLES]
    if not all(given) or not (given[0] + given[1]).isdecimal():
        return 0, 1
    return int(given[0]), int(given[1])


@functools.cache
def _store() -> Any:
    from torch.distributed.rendezvous import rendezvous

    if not has_agent() and not is_first():  # torch would wait for it, deaf to Ctrl-C
        socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timeout=1).close()
    alone = {"rank": rank(), "world_size": 1}  # told of all processes, torch would wait for them
    opened, *_ = next(rendezvous("env://", **alone, timeout=PATIENCE))
    opened.set_timeout(MEETING)
    return opened


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _interrupt(signum: int, frame: Any) -> None:
    signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


def _key(name: str) -> str:
    return f"{name}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
