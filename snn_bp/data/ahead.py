"""Batches read ahead: while one is used, a thread makes the next."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from snn_bp.runtime import is_on

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(make: Callable[[Item], Made], items: Sequence[Item], *, on: bool) -> Generator[Made, None, None]:
    """What `make` gives for each of the items, in order, the next one made in a thread while its turn comes.

    It is made by the caller where this is not `on`, or turned off by `SNN_BP_READ_AHEAD=0`. What fails in the thread
    is made again by the caller when it is asked for, and fails there. Closing the generator ends the thread.
    """
    if not (on and is_on("READ_AHEAD")):
        yield from map(make, items)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="reading ahead") as pool:
        waiting: Future[Made] | None = None
        for item, following in zip(items, [*items[1:], None], strict=True):
            made = make(item) if waiting is None else _made(waiting, make, item)
            waiting = None if following is None else pool.submit(make, following)
            yield made
            del made  # the next is taken before the caller lets go of this one: hold it no longer than the caller


def _made(waiting: "Future[Made]", make: Callable[[Item], Made], item: Item) -> Made:
    try:
        return waiting.result()
    except Exception:
        return make(item)
