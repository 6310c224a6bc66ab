"""What of a known set lies on this machine: recordings of each part, archives, and which files are damaged."""

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snn_bp.data.catalogue import DATA_SETS
from snn_bp.data.origins import ORIGINS, Archive, Origin
from snn_bp.data.recordings import find_root, find_set
from snn_bp.data.tonic_sets import SETS
from snn_bp.errors import SnnError, nearest
from snn_bp.runtime.capacity import size
from snn_bp.runtime.status import in_phase

TONIC = "tonic:"
NAMES = tuple(name for name, info in DATA_SETS.items() if info.tonic_class)
KNOWN = (*NAMES, *(f"{TONIC}{name}" for name in ORIGINS))
_NOT_STATED = "not stated"


@dataclass(frozen=True)
class PartHere:
    """What there is of one part, of how many recordings where that is known."""

    recordings: int
    total: int | None
    bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing, as far as is known."""
        return self.recordings > 0 and self.recordings >= (self.total or 0)


@dataclass(frozen=True)
class Copy:
    """A set as it lies below a folder."""

    name: str
    root: str | None  # the folder that was asked for
    folder: Path
    origin: Origin
    parts: dict[str, PartHere]
    archives: tuple[Archive, ...]  # that lie there
    damaged: tuple[str, ...]  # a sentence for each file
    bytes: int  # all files of recordings and archives, each once
    is_hashed: bool  # whether archives were compared with their hashes

    @property
    def state(self) -> str:
        """In a word."""
        if not any(part.recordings for part in self.parts.values()):
            return "archives" if self.archives else "not here"
        return (
            "damaged" if self.damaged else "whole" if all(part.is_whole for part in self.parts.values()) else "partial"
        )

    @property
    def can_train(self) -> bool:
        """Whether there is a recording to train on, and no file is damaged."""
        return self.parts["train"].recordings > 0 and not self.damaged


def look(name: str, root: str | None = None, *, hashes: bool = False) -> Copy:
    """The copy of a set below `root`; with `hashes` its archives are read and compared with tonic's MD5 hashes."""
    kind = _kind(name)
    origin, folder = ORIGINS[kind], _folder(name, kind, find_root(root))
    damaged: list[str] = []
    sizes: dict[Path, int] = {}
    parts = {part: _part_here(kind, part, folder, damaged, sizes) for part in origin.parts}
    archives = tuple(archive for archive in origin.archives if (folder / archive.name).is_file())
    if hashes:
        damaged += _wrong_hashes(folder, archives)
    sizes |= {folder / archive.name: (folder / archive.name).stat().st_size for archive in archives}
    return Copy(name, root, folder, origin, parts, archives, tuple(damaged), sum(sizes.values()), hashes)


def lines_of(copy: Copy) -> list[str]:
    """All that is known of a copy, line by line."""
    origin = copy.origin
    lines = [f"{copy.name}: {origin.source}; {copy.state}, {size(copy.bytes)} in {copy.folder}"]
    for part, here in copy.parts.items():
        total = "how many a whole copy has is not known" if here.total is None else f"of {here.total:,}"
        lines.append(f"  {part:12}{here.recordings:>9,} {total:14} {size(here.bytes):>10}   {origin.parts[part]}")
    lines += [f"  damaged: {sentence}" for sentence in copy.damaged]
    lines.append(f"licence: {origin.licence or _NOT_STATED}; published at {origin.page}")
    lines += [f"mirror:  {mirror}" for mirror in origin.mirrors]
    for archive in origin.archives:
        compared = ", compared with its hash" * copy.is_hashed
        here = f" (it is there{compared})" if archive in copy.archives else ""
        lines.append(f"archive: {archive.name}{here}, md5 {archive.md5}, {archive.url or 'from no address known here'}")
    return [*lines, f"next:    {_next(copy)}"]


def table_of(root: str | None = None) -> list[str]:
    """A line for each set: how much of it is there, and its licence."""
    lines = [f"{'set':18} {'recordings':>18} {'on disk':>9}  {'':9} licence"]
    read_here = {DATA_SETS[name].tonic_class for name in NAMES}
    for name in (*NAMES, *(f"{TONIC}{kind}" for kind in ORIGINS if kind not in read_here)):
        copy = look(name, root)
        found = sum(part.recordings for part in copy.parts.values())
        total = sum(part.total or 0 for part in copy.parts.values())
        counts = f"{found:,} of {total:,}" if total else f"{found:,}"
        taken = size(copy.bytes) if copy.bytes else "-"
        lines.append(f"{name:18} {counts:>18} {taken:>9}  {copy.state:9} {copy.origin.licence or _NOT_STATED}")
    return lines


def _kind(name: str) -> str:
    """The name of tonic's class."""
    if name not in KNOWN:
        raise SnnError(f"{name!r}: where its files come from is not known here. {nearest(name, KNOWN)}")
    return name.removeprefix(TONIC) if name.startswith(TONIC) else DATA_SETS[name].tonic_class


def _folder(name: str, kind: str, root: Path) -> Path:
    """Where the set's files lie or belong; a set that is read here may also lie in the root itself."""
    found = find_set(DATA_SETS[name], root) if name in DATA_SETS else None
    return found or root / ("smnist" if kind == "SMNIST" else kind)


def _part_here(kind: str, part: str, folder: Path, damaged: list[str], sizes: dict[Path, int]) -> PartHere:
    """What there is of a part; damaged files are added to the list, the others and their bytes to `sizes`."""
    pattern, total = ORIGINS[kind].parts[part], SETS[kind].totals.get(part)
    files = [file for file in folder.glob(pattern) if not file.name.startswith(".")] if folder.is_dir() else []
    found = taken = 0
    for file in in_phase(files, f"{kind}: looking at the {part} part"):
        try:
            length = file.stat().st_size
            found += _recordings(file, part, length)
        except (OSError, KeyError, ValueError) as cause:
            damaged.append(f"{file} cannot be read ({cause})")
            continue
        taken += length
        sizes[file] = length
    return PartHere(found, total, taken)


def _recordings(file: Path, part: str, length: int) -> int:
    """How many recordings a file holds; raises ValueError or OSError where it is cut short."""
    if not length:
        raise ValueError("it is empty")
    if file.suffix == ".bin" and length % 5:
        raise ValueError(f"its {length} bytes are no multiple of 5, the size of an event")
    if file.suffix in (".h5", ".hdf5"):
        import h5py  # only these files need it

        with h5py.File(file) as content:
            if file.suffix == ".h5":
                return len(content["labels"])  # type: ignore[arg-type]
            samples = content[f"{part}_labels"][()]  # type: ignore[index]
            return sum(len(sample.decode().split("-")[-1]) == 1 for sample in samples)  # type: ignore[union-attr]
    if file.name.endswith("idx3-ubyte"):
        with open(file, "rb") as content:
            count = int.from_bytes(content.read(8)[4:], "big")
        labels = file.with_name(file.name.replace("images-idx3", "labels-idx1"))
        for each, wanted in ((file, 16 + 784 * count), (labels, 8 + count)):
            if each.stat().st_size != wanted:
                raise ValueError(f"for {count} images {each.name} should have {wanted} bytes")
        return count
    if file.suffix == ".npy":
        np.load(file, mmap_mode="r")  # which reads the header alone, and compares the size
    return 1


def _wrong_hashes(folder: Path, archives: tuple[Archive, ...]) -> Iterator[str]:
    for archive in in_phase(archives, "reading the archives"):
        digest = hashlib.md5(usedforsecurity=False)
        with open(folder / archive.name, "rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != archive.md5:
            yield f"{folder / archive.name} has the md5 hash {digest.hexdigest()}, not {archive.md5}"


def _next(copy: Copy) -> str:
    """The command that goes on, or what to do by hand before."""
    whose = SETS[_kind(copy.name)]
    window = "" if whose.window_ms else " data.step_ms=10 data.steps=100"
    root = "" if copy.root is None else f" data.root={shlex.quote(copy.root)}"
    build = f"snn-bp data build {copy.name}{window}{root}"
    if copy.state == "not here":
        if copy.origin.is_fetched:
            return f"{build}    # tonic downloads the archives, unpacks them, and they are read into the cache"
        return f"put the archives into {copy.folder} and unpack them there; tonic cannot download them"
    if copy.state == "archives":
        return f"unpack the archives in {copy.folder}, then {build}"
    if copy.state == "whole":
        return build
    return f"unpack the archives in {copy.folder} for a whole copy; {build} reads what is there"
