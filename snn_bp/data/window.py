"""How much of the recordings lies in the window that `Data` encodes, in figures."""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from snn_bp.data.encode import Events
from snn_bp.data.mapped import first_at

_AT_ONCE = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Inside:
    """How much of a part lies in the window."""

    events: int
    events_inside: int
    recordings_without: int  # with events, and none of them inside
    recordings_empty: int
    first_ms: float | None  # the earliest first event of all recordings, and the latest last one
    last_ms: float | None
    first_without: int | None  # the first recording that has none inside

    @property
    def fraction(self) -> float | None:
        """Fraction of events that lie in the window; None without any events."""
        return self.events_inside / self.events if self.events else None


def inside(events: Events, window_us: int, spans: np.ndarray | None = None) -> Inside:
    """How much of a part lies in the first `window_us` of its recordings.

    Where `spans` are known (those of `Beside`) only times around the end of the window are read, else all, in pieces.
    """
    lengths = np.diff(events.offsets)
    counts, first, last = _by_times(events, window_us) if spans is None else _by_spans(events, window_us, spans)
    without = np.flatnonzero((counts == 0) & (lengths > 0))
    return Inside(
        events=len(events.t),
        events_inside=int(counts.sum()),
        recordings_without=len(without),
        recordings_empty=int((lengths == 0).sum()),
        first_ms=None if first is None else first / 1000,
        last_ms=None if last is None else last / 1000,
        first_without=int(without[0]) if len(without) else None,
    )


def up_to(events: Events, window_us: int, spans: np.ndarray | None) -> Events:
    """The events without those behind the first `window_us` of recordings whose times are in order by their `spans`."""
    if spans is None:
        return events
    ends = events.offsets[:-1] + _by_spans(events, window_us, spans)[0]
    return replace(events, ends=np.where(spans[:, 2] == 1, ends, events.offsets[1:]))


def _by_spans(events: Events, window_us: int, spans: np.ndarray) -> tuple[np.ndarray, int | None, int | None]:
    """Events inside of each recording, the first time of all and the last one."""
    offsets, counts = events.offsets, np.diff(events.offsets)
    spans = np.where((counts > 0)[:, None], spans, (np.iinfo(np.int64).max, -1, 1))
    late, is_ordered = spans[:, 1] >= window_us, spans[:, 2] == 1
    cut, limits = np.flatnonzero(late & is_ordered), np.full(len(spans), window_us)
    counts[cut] = first_at(events.t, offsets[cut], offsets[cut + 1], limits[cut], fetched=True) - offsets[cut]
    for n in np.flatnonzero(late & ~is_ordered).tolist():
        counts[n] = np.count_nonzero(events.t[offsets[n] : offsets[n + 1]] < window_us)
    first, last = (int(spans[:, 0].min()), int(spans[:, 1].max())) if len(events.t) else (None, None)
    return counts, first, last


def _by_times(events: Events, window_us: int) -> tuple[np.ndarray, int | None, int | None]:
    times, offsets = events.t, events.offsets
    counts, first, last = np.diff(offsets), None, None
    for begin, end in _pieces(offsets):
        span = times[offsets[begin] : offsets[end]]
        if not len(span):
            continue
        first = int(span.min()) if first is None else min(first, int(span.min()))
        last = int(span.max()) if last is None else max(last, int(span.max()))
        if last >= window_us:
            late = offsets[begin] + np.flatnonzero(span >= window_us)
            counts -= np.bincount(np.searchsorted(offsets, late, side="right") - 1, minlength=len(counts))
    return counts, first, last


def _pieces(offsets: np.ndarray) -> list[tuple[int, int]]:
    """Spans of recordings of about `_AT_ONCE` events, none cut."""
    cuts = [0]
    while cuts[-1] < len(offsets) - 1:
        end = int(np.searchsorted(offsets, offsets[cuts[-1]] + _AT_ONCE, side="right")) - 1
        cuts.append(min(max(end, cuts[-1] + 1), len(offsets) - 1))
    return list(itertools.pairwise(cuts))
