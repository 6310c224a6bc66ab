"""Events in text: a line each, four numbers by commas, semicolons, tabs or blanks.

The first line may name the columns, or state width and height (as in E2VID's). Without names the order is t, x, y, p,
as the event-camera data set (Mueggler et al. 2017) and most others have it.
"""

import itertools
import re
import warnings
from pathlib import Path

import numpy as np

from snn_bp.data.formats.columns import FIELDS, Columns, Layout, columns_of_array
from snn_bp.errors import SnnError

_USUAL = "txyp"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def read_text(path: Path, layout: Layout) -> Columns:
    """Events of a text file."""
    with path.open(encoding="utf-8", errors="strict") as file:
        try:
            lines = list(itertools.islice(file, 100))
        except UnicodeDecodeError:
            raise SnnError(
                f"{path}: it should be text, and is none. It has another format than its ending says."
            ) from None
    skipped, first = next(((n, line) for n, line in enumerate(lines) if line.strip() and line[0] not in "#%"), (0, ""))
    mark = next((mark for mark in (",", ";", "\t") if mark in first), None)
    words = [word.strip().strip('"') for word in (first.split(mark) if mark else first.split())]
    names, size = None, None
    if len(words) == 2 and all(word.isdigit() for word in words):
        size, skipped = (int(words[0]), int(words[1])), skipped + 1
    elif not all(_NUMBER.fullmatch(word) for word in words):
        names, skipped = _named(words, path), skipped + 1
    elif len(words) != 4:
        raise SnnError(f"{path}: a line should be four numbers, t x y p, found {first.strip()[:60]!r}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a file without lines of events; said below
        table = np.loadtxt(
            path, delimiter=mark, skiprows=skipped, comments=("#", "%"), ndmin=2, encoding="utf-8",
            usecols=names,
        )  # fmt: skip
    if names is None and table.size and table.shape[1] != 4:
        raise SnnError(f"{path}: a line should be four numbers, t x y p, found {table.shape[1]}.")
    order = layout.columns or _USUAL if names is None else _USUAL
    found = columns_of_array(table.reshape(-1, 4), str(path), Layout(order, layout.unit), is_text=True)
    return Columns(found.x, found.y, found.t, found.p, size=size, unit=found.unit, is_text=True)


def _named(words: list[str], path: Path) -> list[int]:
    """The positions of t, x, y and p among the names in the first line."""
    lower = [word.lower() for word in words]
    columns = {field: [n for n, word in enumerate(lower) if word in FIELDS[field]] for field in _USUAL}
    for field, at in columns.items():
        if len(at) != 1:
            raise SnnError(
                f"{path}: its first line should name x, y, t and p once each, {field} is named "
                f"{len(at)} times in {', '.join(words)[:80]}. Rename the columns."
            )
    return [columns[field][0] for field in _USUAL]
