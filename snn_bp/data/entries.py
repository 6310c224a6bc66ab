"""One way into the cache for whatever is kept there: built once, published whole, and held in memory where it must be.

An entry is found by what it was made from, or, where nobody can say that, by its content: then it is made anew at every
start, and only the copy on disk is shared.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from snn_bp.data.cache import Damaged, building, cache_folder, goes_on, open_entry, publish_entry
from snn_bp.errors import SnnError
from snn_bp.files import json_sha256

Kept = TypeVar("Kept")


def kept(
    name: str,
    key: Any | None,
    *,
    build: Callable[[Path], str],
    read: Callable[[Path, dict[str, Any], tuple[str, ...]], Kept],
    hold: Callable[[], Kept],
) -> Kept:
    """What `read` makes of the cache's entry `name` for `key`, which `build` fills where there is none yet.

    `key` is any value JSON can write, None for an entry found by its content, whose hash `build` gives. `read` gets the
    folder, its record and what was said of it, and raises `Damaged` where the entry is not what it expects. `hold` is
    called instead where the cache cannot be written.
    """
    said: list[str] = []
    if key is not None:
        for folder in _folders(name, key):
            found = _opened(folder, read, said)
            if found is not None:
                return found
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(building(None if key is None else _folders(name, key)[0].name))
        except OSError:
            return hold()
        try:
            content = build(folder)
            shared, own = _folders(name, [content] if key is None else key)
            try:
                record, chosen = publish_entry(folder, shared), shared
            except PermissionError:  # another user's entry stands there, and this one may not read or replace it
                record, chosen = publish_entry(folder, own), own
            return read(chosen, record, tuple(said))
        except (OSError, Damaged) as cause:
            left = (
                f" What was read stays in {folder.parent.name} for the next start to go on with; `snn-bp cache --clean "
                "0` removes it with all that is kept there."
            )
            raise SnnError(
                f"cache {cache_folder()}: writing {name} failed ({cause}). Make room there, or name another folder "
                f"in the environment variable SNN_BP_CACHE.{left * goes_on(folder)}"
            ) from cause


def _folders(name: str, key: Any) -> tuple[Path, Path]:
    """Where an entry lies for all users, and where for this one."""
    shared = cache_folder() / f"{name}-{json_sha256(key)[:20]}"
    user = str(os.getuid()) if hasattr(os, "getuid") else "this-user"
    return shared, shared.with_name(f"{shared.name}-of-{user}")


def _opened(folder: Path, read: Callable[..., Kept], said: list[str]) -> Kept | None:
    """What the cache has at `folder`; None where it has nothing or something damaged, which is added to `said`."""
    try:
        record = open_entry(folder)
        return None if record is None else read(folder, record, ())
    except Damaged as damaged:
        said.append(f"the cache {folder} was damaged ({damaged}); its recordings were read again")
    except PermissionError:  # made by another user, for nobody else
        pass
    return None
