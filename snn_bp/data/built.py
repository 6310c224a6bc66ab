"""A set read into the cache before anything is trained on it, and what is there then, in words."""

from snn_bp.data.cache import cache_entries, cache_folder
from snn_bp.data.definition import made_from
from snn_bp.data.description import Data, source_of
from snn_bp.data.frames import CachedFrames
from snn_bp.data.loading import load
from snn_bp.errors import SnnError
from snn_bp.runtime.capacity import size


def build(data: Data) -> list[str]:
    """Read the recordings of `data` into the cache where they are not there yet; a line for each part, and notes."""
    before = {folder for folder, _, _ in cache_entries()}
    dataset, source, lines = load(data), source_of(data), []
    if any(len(cached) and cached.folder is None for cached in dataset.parts.values()):
        raise SnnError(
            f"data build: nothing was built, since the cache folder {cache_folder()} cannot be written. Give the right "
            "to write it, or name another in the environment variable SNN_BP_CACHE."
        )
    sizes = {folder: count for folder, count, _ in cache_entries()}
    is_known = source is None or made_from(source, "train") is not None
    for part, cached in dataset.parts.items():
        if not len(cached) or (part == "test" and cached is dataset.parts["train"]):
            continue
        content = f"{len(cached):,} recordings"
        if isinstance(cached, CachedFrames):
            content += f" of {cached.frames.shape[1]:,} steps"
        else:
            content += f", {len(cached.events.t):,} events"
        if cached.folder is not None:
            state = "was there already" if cached.folder in before else "built"
            content += f", {size(sizes[cached.folder])} in {cached.folder} ({state})"
        lines.append(f"{part} part: {content}")
    if not is_known:
        lines.append(f"{data.name}: read at every start; with made_from() in the source, it would be read once")
    return [*lines, *dataset.notes]
