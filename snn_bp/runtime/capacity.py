"""How much memory this process can still take: of the machine, its control groups, and its own limits."""

import contextlib
import os
from pathlib import Path

from snn_bp.errors import SnnError
from snn_bp.runtime import is_on
from snn_bp.runtime.process import freed_memory

_LARGE = 2**30  # bytes: smaller requests are not checked


def check_room(count: int, *, what: str, remedy: str) -> None:
    """Raise where `count` bytes for `what` are more than there is; `SNN_BP_CHECK_MEMORY=0` lets it be tried."""
    if count < _LARGE or not is_checked():
        return
    there = available()
    if there is not None and count > there:
        raise SnnError(f"{what} would take {size(count)} of memory; {free()}. {remedy}")


def is_checked() -> bool:
    """Whether what is asked for is compared with what there is."""
    return is_on("CHECK_MEMORY")


def available(*, others: bool = False) -> int | None:
    """Bytes that this process can still take: of the machine, its control group and its own limits; None if unknown.

    What it has freed and keeps is among them, as an evaluation behind a training has most of what it takes from there;
    not where `others` shall take them, processes that it starts.
    """
    found = [*_of_machine(), *_of_groups(), *_of_limits()]
    return max(0, min(found)) + (0 if others else freed_memory()) if found else None


def free() -> str:
    """How much this process can still take, in words."""
    there = available()
    return "how much there is, the system does not say" if there is None else f"this process can have {size(there)}"


def size(count: float) -> str:
    """Bytes in words."""
    return f"{count / 2**30:,.1f} GB" if count >= 2**30 else f"{count / 2**20:,.0f} MB"


def _of_machine() -> list[int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return [int(line.split()[1]) * 1024]
    with contextlib.suppress(OSError, ValueError, AttributeError):  # another system: all there is, in use or not
        return [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return []


def _of_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What each control group that the process is in still grants; files it could drop count as free."""
    found = []
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                base, names = root, ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                base = root / "memory"
            else:
                continue
            folder = base / path.strip("/")
            for each in (folder, *folder.parents):
                if each == base.parent:
                    break
                with contextlib.suppress(OSError, ValueError):  # "max": no limit
                    limit, used = (int((each / name).read_text()) for name in names[:2])
                    found.append(limit - used + _reclaimable(each, names[2]))
    return found


def _reclaimable(folder: Path, key: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            if line.startswith(key + " "):
                return int(line.split()[1])
    return 0


def _of_limits() -> list[int]:
    """What the limits on this process's own address space still grant."""
    try:
        import resource  # not on every system
    except ImportError:
        return []
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            found.append(limit - used)
    return found
