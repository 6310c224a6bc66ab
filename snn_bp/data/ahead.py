"""Batches read ahead: while one is used, a thread makes the next, and the disk is asked for those behind it."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from snn_bp.runtime import is_on

FETCHED = 3  # batches that the disk is asked for, ahead of the one in use
Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(
    make: Callable[[Item], Made], items: Sequence[Item], *, on: bool, fetch: Callable[[Item], object] | None = None
) -> Generator[Made, None, None]:
    """What `make` gives for each of the items, in order, the next one made in a thread while its turn comes.

    `fetch` asks a disk for what `make` will read of an item, and is called in another thread, up to `FETCHED` items
    ahead of the one in use. It holds nothing; where it fails, `make` reads or fails by itself.

    All is made by the caller where this is not `on`, or turned off by `SNN_BP_READ_AHEAD=0`, and nothing is fetched.
    What fails in the thread is made again by the caller when it is asked for, and fails there. Closing the generator
    ends the threads.
    """
    if not (on and is_on("READ_AHEAD")):
        yield from map(make, items)
        return
    with _thread() as making, _thread() as fetching:
        fetched = (fetching.submit(fetch, item) for item in items) if fetch is not None else iter(())
        for first in islice(fetched, 1):
            first.exception()  # waits: the disk is quicker with all that the first one needs than page by page
        for _ in islice(fetched, FETCHED - 1):
            pass
        waiting: Future[Made] | None = None
        for item, following in zip(items, [*items[1:], None], strict=True):
            made = make(item) if waiting is None else _made(waiting, make, item)
            waiting = None if following is None else making.submit(make, following)
            next(fetched, None)
            yield made
            del made  # the next is taken before the caller lets go of this one: hold it no longer than the caller


@contextmanager
def _thread() -> Generator[ThreadPoolExecutor, None, None]:
    """A thread, which does no more than it has begun once it is left."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="reading ahead")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _made(waiting: "Future[Made]", make: Callable[[Item], Made], item: Item) -> Made:
    try:
        return waiting.result()
    except Exception:
        return make(item)
