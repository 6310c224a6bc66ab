"""Files that are replaced whole: whoever reads one, at any moment, reads the old or the new."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snn_bp.errors import SnnError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on disk."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as cause:
        raise SnnError(
            f"{path}: it cannot be written ({cause.strerror}). What was saved before is untouched."
        ) from cause


def replace_file(path: Path, content: bytes) -> None:
    """Put a whole file in the place of an old one, in one step."""
    fresh = path.with_name(path.name + ".writing")
    write_bytes(fresh, content)
    try:
        os.replace(fresh, path)
    except OSError as cause:
        fresh.unlink(missing_ok=True)
        raise SnnError(f"{path}: it cannot be written ({cause.strerror}).") from cause


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file."""
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace a file of one JSON object a line."""
    replace_file(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def write_csv(path: Path, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    """Replace a table with a header; a column that a row lacks stays empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row.get(column) for column in columns] for row in rows)
    replace_file(path, text.getvalue().encode())
