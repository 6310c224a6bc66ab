"""HDF5 files of SHD's schema: rows of spikes over channels, in seconds, with a label each and the classes' names.

The schema (Cramer et al. 2020): `spikes/times` and `spikes/units`, one array for each recording; `labels`; the names of
the classes in `extra/keys`. Who speaks (`extra/speaker`) is its group, where the file says so for every recording.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.data.raw import as_integers, events_of_row, naming, order_of
from snn_bp.data.store import Recording
from snn_bp.errors import SnnError

_SCHEMA = "spikes/times, spikes/units, labels and extra/keys"


def count_rows(file: Path) -> int:
    """How many recordings a file has."""
    with _opened(file) as content:
        return len(_labels(content, file))


def read_rows(file: Path, first: int = 0) -> Iterator[Recording]:
    """The recordings of a file, from number `first` on."""
    with _opened(file) as content:
        labels = _labels(content, file)
        times, units = (_dataset(content, f"spikes/{field}", file) for field in ("times", "units"))
        if not len(times) == len(units) == len(labels):
            raise SnnError(
                f"{file}: spikes/times, spikes/units and labels should be as many, found {len(times)}, {len(units)} "
                f"and {len(labels)}."
            )
        speakers = _speakers(content, len(labels))
        for n, label in enumerate(labels[first:].tolist(), first):
            source = f"{file}, row {n}"
            with naming(source):
                row = times[n], units[n]
            events = events_of_row(*row, source=source)
            yield Recording(source, events, label, f"row {n}", order_of(events), group=speakers[n])


def read_keys(file: Path) -> tuple[tuple[str, ...], str]:
    """Class names and origin, as a file of SHD's schema states them."""
    with _opened(file) as content:
        keys = _dataset(content, "extra/keys", file)
        with naming(f"{file}, extra/keys"):
            names = tuple(_text(key) for key in np.asarray(keys[()]).reshape(-1))
        if not names:
            raise SnnError(f"{file}: extra/keys should be the name of each class, found none.")
        source = content.get("extra/meta_info/source")
        origin = "nothing"
        if source is not None and hasattr(source, "shape"):
            with contextlib.suppress(Exception):  # what a file calls itself decides nothing
                origin = _text(np.asarray(source[()]).reshape(-1)[0])
        return names, origin


def _speakers(content: Any, count: int) -> list[str]:
    """Who speaks in each row; empty words where the file does not say so of all."""
    found = content.get("extra/speaker")
    if getattr(found, "shape", None) != (count,):
        return [""] * count
    return [f"speaker {_text(speaker)}" for speaker in found[()].tolist()]


def _labels(content: Any, file: Path) -> np.ndarray:
    """The label of each row; a column [N, 1], as MATLAB writes arrays, is read as a row."""
    dataset = _dataset(content, "labels", file)
    with naming(f"{file}, labels"):
        labels = np.asarray(dataset[()])
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.reshape(-1)
    if labels.ndim != 1:
        raise SnnError(f"{file}: labels should be one number a recording, found an array {list(labels.shape)}.")
    return as_integers(labels, "labels", source=str(file))


def _dataset(content: Any, name: str, file: Path) -> Any:
    found = content.get(name)
    if found is None or not getattr(found, "shape", ()):
        there: list[str] = []
        content.visit(there.append)
        raise SnnError(
            f"{file}: a file of SHD's schema has {_SCHEMA}; {name} is {'missing' if found is None else 'no array'}. "
            f"Found: {', '.join(there[:12]) or 'nothing'}."
        )
    return found


def _text(key: Any) -> str:
    return key.decode("utf-8") if isinstance(key, bytes) else str(key)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    import h5py  # only these files need it

    with naming(str(file)):
        opened = h5py.File(file, "r")
    with opened:
        yield opened
