"""The points of a sweep: the grid that changes with several values span, and what each point's folder is called."""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence

from snn_bp.errors import SnnError, shown

MOST_RUNS = 10_000  # runs; more are a slip of the pen
NAME = 100  # letters of a folder's name
_RANGE = re.compile(r"(-?\d{1,19})\.\.(-?\d{1,19})")
SEARCHED = re.compile(r"(log|uniform|choice)\((.*)\)", re.DOTALL)  # what a search by trials has for a value
_PAIRS = {"(": ")", "[": "]", "{": "}"}


def points_of(changes: Sequence[str]) -> list[dict[str, str]]:
    """Every combination of the values, by key, the last key changing fastest.

    `train.lr=1e-3,3e-3` gives a key two values, `seed=0..4` five. A comma within brackets or quotes belongs to the
    value: `train.freeze=(0,1)` is one.
    """
    axes: dict[str, list[str]] = {}
    for key, text in parted(changes).items():
        change = f"{key}={text}"
        if SEARCHED.fullmatch(text):
            raise SnnError(f"{change!r}: that is searched with --trials 20; a grid has values, as {key}=1,2.")
        axes[key] = values_of(text, at=change)
    count = 1
    for values in axes.values():
        count *= len(values)
    if not 2 <= count <= MOST_RUNS:
        raise SnnError(
            f"sweep: it takes 2 to {MOST_RUNS:,} runs, found {count:,}. Give a key several values, as "
            "train.lr=1e-3,3e-3 or seed=0..4; `snn-bp train` trains one run."
        )
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def parted(changes: Sequence[str]) -> dict[str, str]:
    """What stands behind each key."""
    found: dict[str, str] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise SnnError(f"{change!r}: values are written key=a,b, as train.lr=1e-3,3e-3 or seed=0..4.")
        if key in found:
            raise SnnError(f"{change!r}: {key} stands there twice. Write all its values behind one, {key}=a,b.")
        found[key] = text.strip()
    return found


def values_of(text: str, *, at: str) -> list[str]:
    """The values in a text, ranges of integers counted out; `at` is the change they stand in."""
    values: list[str] = []
    for part in _split(text):
        if not part:
            raise SnnError(f"{shown(at)}: a value is missing between commas, or behind the =. As in seed=0,1,2.")
        if not (ends := _RANGE.fullmatch(part)):
            values.append(part)
            continue
        low, high = map(int, ends.groups())
        if not 0 <= high - low < MOST_RUNS:
            raise SnnError(f"{shown(at)}: {part} should go upwards, by less than {MOST_RUNS:,}. As in seed=0..4.")
        values += map(str, range(low, high + 1))
    twice, times = Counter(values).most_common(1)[0]
    if times > 1:
        raise SnnError(f"{shown(at)}: {twice} stands there twice, which would be the same run. Leave one.")
    return values


def name_of(point: dict[str, str], axes: Sequence[str]) -> str:
    """The name of a point's folder by its values on these axes, a hash behind it where letters had to go."""
    whole = ",".join(f"{key}={point[key]}" for key in axes)
    name = re.sub(r"[^\w.,=+-]", "_", whole, flags=re.ASCII)[:NAME]
    return name if name == whole else f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _split(text: str) -> list[str]:
    """The text at its commas outside brackets and quotes."""
    parts, awaited = [""], ""  # the closing letters that are still to come, the innermost first
    for letter in text:
        if awaited and letter == awaited[0]:
            awaited = awaited[1:]
        elif awaited[:1] not in ("'", '"') and letter in "([{'\"":
            awaited = _PAIRS.get(letter, letter) + awaited
        if letter == "," and not awaited:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
