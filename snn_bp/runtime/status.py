"""What runs at this moment: a line for each phase that takes over a second, and a bar where something can be redrawn.

Within `announced`, a thread looks ten times a second for how long the innermost `phase` has lasted. Behind a second it
writes the phase's line, and behind its end the seconds that it took, without those of phases within it. Lines that stay
are printed by `say`, above what is drawn over. A terminal is drawn over; logs, pipes and notebooks get plain lines.
"""

import os
import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TextIO, TypeVar

from snn_bp.runtime.processes import is_first

LONG, AGAIN = 1.0, 10.0  # seconds until a phase has a line; until it has another in a log, where it had one before
TICK, TICK_OF_NOTEBOOK = 0.1, 0.5  # seconds between two looks, and two bars
GRAPH, DETAIL = range(8, 41), 12  # columns of the bar itself, and of a detail at least
Item = TypeVar("Item")


@dataclass(eq=False)
class Phase:
    """Something that takes time, and how much of it is done where that can be counted."""

    words: str
    began: float = 0.0
    done: int = 0
    total: int | None = None

    def line(self, seconds: float, columns: int) -> str:
        """Its line while it runs, its words cut where there are too few columns."""
        part = f"{self.done / self.total:.0%}, " if self.total else ""
        end = f" ... {part}{seconds:.0f} s"
        words = self.words
        while words and width(words + end) > columns:
            words = words[:-1]
        return words + end if words else ""


@dataclass(frozen=True)
class Bar:
    """Where something stands that takes many steps: `figures` and `details` fall away from their ends for room."""

    head: str
    fraction: float
    figures: Sequence[str] = ()
    details: Sequence[str] = ()  # these before the graph does

    def line(self, columns: int, *, plain: bool, note: str = "") -> str:
        """As much as there are columns for; a `note` stands in place of figures."""
        figures, details = ((note,), ()) if note else (self.figures, self.details)
        parts, room = [self.head], columns - width(self.head)
        for number, part in enumerate((*figures, *details)):
            is_detail = number >= len(figures)  # a digit more or less does not make one come and go
            if (max(DETAIL, width(part)) + GRAPH[0] + 4 if is_detail else width(part) + 2) > room:
                break
            parts.append(part)
            room -= width(part) + 2
        cells = min(room - 2, GRAPH[-1])
        if cells in GRAPH:
            full = int(cells * min(1.0, self.fraction))
            done, rest = "#-" if plain else "█░"
            parts.insert(1, done * full + rest * (cells - full))
        line = "  ".join(parts)
        return line if width(line) <= columns else ""


class Status:
    """The phases and the bar of a command, and the line that is drawn over with them."""

    def __init__(self) -> None:
        self.in_notebook = _has_kernel()
        self.stream: TextIO = sys.stdout if self.in_notebook else sys.stderr  # which a notebook shows in red
        self.is_terminal = not self.in_notebook and is_terminal(self.stream)
        self.phases: list[Phase] = []
        self._seconds: dict[str, float] = {}  # the phases' own, by their words, within the outermost one
        self._open = ""  # the words of the phase whose line is begun
        self._is_broken_off = False  # something else was printed behind it
        self._said: set[str] = set()
        self._bar: Bar | None = None
        self._drawn = ""  # what is there to be drawn over
        self._due = 0.0
        self._display: Any = None  # what a notebook shows the bar in
        self._over, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        phase.began = time.monotonic()
        for outer in self.phases[-1:]:
            self._add(outer, phase.began)
        self.phases.append(phase)

    def leave(self, phase: Phase) -> None:
        """End a phase, and any within it of which the end was not told."""
        if phase not in self.phases:
            return
        now = time.monotonic()
        self._add(self.phases[-1], now)
        del self.phases[self.phases.index(phase) :]
        if self.phases:
            self.phases[-1].began = now
            return
        with self._alone():
            self._end_line()
            self._seconds.clear()

    def can_draw(self) -> bool:
        """Whether a bar can be seen."""
        return self.is_terminal or self.in_notebook

    def is_due(self) -> bool:
        """Whether it is time to draw the bar again."""
        return time.monotonic() >= self._due

    def draw(self, bar: Bar | None) -> None:
        """Draw a bar, None for none any more."""
        self._due = time.monotonic() + (TICK_OF_NOTEBOOK if self.in_notebook else TICK)
        with self._alone():
            if self.is_terminal:
                self._end_line()
                self._bar = bar
                self._draw_over(self._line_of_bar())
            elif self.in_notebook:
                self._draw_in_notebook(bar)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within the block, nothing is drawn, and what is printed stays."""
        with self._alone():
            if self._open and self._open not in [phase.words for phase in self.phases]:
                self._end_line()
            elif self._open and not self.is_terminal and not self._is_broken_off:
                self._write("\n")
                self._is_broken_off = True
            self._draw_over("")
            try:
                yield
            finally:
                self._draw_over(self._line_of_bar())

    def close(self) -> None:
        """End the thread, what runs, and the line."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        for outermost in self.phases[:1]:
            self.leave(outermost)
        with self._alone():
            self._end_line()
            self._draw_over("")

    def _watch(self) -> None:
        while not self._over.wait(TICK):
            with self._alone():
                for phase in self.phases[-1:]:
                    seconds = self._seconds.get(phase.words, 0.0) + time.monotonic() - phase.began
                    is_known = not self.is_terminal and phase.words in self._said - {self._open}
                    if seconds > (AGAIN if is_known else LONG):
                        self._show(phase, seconds)

    def _show(self, phase: Phase, seconds: float) -> None:
        """The line of a phase that runs."""
        if self._bar is not None:
            self._draw_over(self._line_of_bar(phase.line(seconds, self._columns() - width(self._bar.head) - 2)))
            return
        if phase.words != self._open:
            self._end_line()
            self._open = phase.words
            if not self.is_terminal:
                self._write(f"{phase.words} ...")
        if self.is_terminal:
            self._draw_over(phase.line(seconds, self._columns()))

    def _end_line(self) -> None:
        """Write how long the phase took whose line is begun."""
        if not self._open:
            return
        end = f" ... {self._seconds.pop(self._open, 0.0):.1f} s"
        if self.is_terminal:
            self._draw_over("")
        is_whole = self.is_terminal or self._is_broken_off
        self._write((self._open + end if is_whole else end.removeprefix(" ...")) + "\n")
        self._said.add(self._open)
        self._open, self._is_broken_off = "", False

    def _add(self, phase: Phase, now: float) -> None:
        self._seconds[phase.words] = self._seconds.get(phase.words, 0.0) + now - phase.began
        phase.began = now

    def _line_of_bar(self, note: str = "") -> str:
        return "" if self._bar is None else self._bar.line(self._columns(), plain=_is_plain(self.stream), note=note)

    def _draw_over(self, line: str) -> None:
        """Replace what is drawn."""
        if line != self._drawn:
            old = min(width(self._drawn), self._columns())  # no more blanks than a terminal has room for by now
            self._write("\r" + line + " " * (old - width(line)) + "\r" * (not line))
            self._drawn = line

    def _draw_in_notebook(self, bar: Bar | None) -> None:
        from IPython.display import display  # there is one where a notebook's kernel runs

        shown = {"text/plain": "" if bar is None else bar.line(79, plain=False)}
        if self._display is not None:
            self._display.update(shown, raw=True)
        elif bar is not None:
            self._display = display(shown, raw=True, display_id=True)

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # nobody reads it any more
            self.stream.write(text)
            self.stream.flush()

    def _columns(self) -> int:
        return columns_of(self.stream) - 1  # in the last one the cursor would go to the next line

    @contextmanager
    def _alone(self) -> Iterator[None]:
        taken = self._lock.acquire(timeout=1.0)  # a fork may have copied it as another thread held it
        try:
            yield
        finally:
            if taken:
                self._lock.release()


_status: ContextVar[Status | None] = ContextVar("status", default=None)


def status() -> Status | None:
    """What phases are told to here; None where they go unsaid, as in processes behind the first."""
    return _status.get() if is_first() else None


@contextmanager
def told_to(opened: Status | None) -> Iterator[None]:
    """Within the block, phases are told to a status."""
    token = _status.set(opened)
    try:
        yield
    finally:
        _status.reset(token)


@contextmanager
def announced(on: bool = True) -> Iterator[None]:
    """Within the block phases are said, or not; in a block that says them another changes nothing."""
    if on and _status.get() is not None:
        yield
        return
    opened = Status() if on else None
    try:
        with told_to(opened):
            yield
    finally:
        if opened is not None:
            opened.close()


@contextmanager
def phase(words: str, *, total: int | None = None, of_each: bool = False) -> Iterator[Phase]:
    """Within the block, this is what takes the time; whoever counts adds to `done` of the phase it gives.

    Of several processes the first says it, or with `of_each` each.
    """
    entered, told = Phase(words, total=total), _status.get() if of_each else status()
    if told is None:
        yield entered
        return
    told.enter(entered)
    try:
        yield entered
    finally:
        told.leave(entered)


def in_phase(items: Iterable[Item], words: str, *, total: int | None = None, done: int = 0) -> Iterator[Item]:
    """The same items, counted from `done` on; a phase from the first that is asked for to the end of the last."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with phase(words, total=total) as counting:
        counting.done = done
        for item in items:
            yield item
            counting.done += 1


@contextmanager
def drawing() -> Iterator[Status | None]:
    """Within the block a bar can be drawn, by what this gives; None where nobody would see it."""
    told = status()
    if told is None or not told.can_draw():
        yield None
        return
    try:
        yield told
    finally:
        told.draw(None)


def say(text: str, *, is_row: bool = False, file: TextIO | None = None) -> None:
    """Print lines that stay; on a terminal they are wrapped between words.

    A row of a table loses its last fields instead, which two spaces part. Characters that the stream has no code for
    are shown as escapes. Of the processes that torchrun started the first prints.
    """
    stream, told = sys.stdout if file is None else file, status()
    if not is_first():
        return
    if is_terminal(stream):
        text = "\n".join(_fitted(line, columns_of(stream), is_row=is_row) for line in text.split("\n"))
    with nullcontext() if told is None else told.aside():
        try:
            print(text, file=stream, flush=True)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def _fitted(line: str, columns: int, *, is_row: bool) -> str:
    while is_row and width(line) > columns and "  " in line:
        line = line.rpartition("  ")[0].rstrip()
    if width(line) <= columns:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def columns_of(stream: TextIO) -> int:
    """How wide the terminal is at this moment; 80 where that is not known."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal; what is closed, or no whole stream, is none."""
    try:
        return stream.isatty()
    except (ValueError, AttributeError):
        return False


def width(text: str) -> int:
    """How many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def clock(seconds: float) -> str:
    """A time to wait, as 0:07, 12:34 or 1:23:45."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _has_kernel() -> bool:
    """Whether this is the process of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def _is_plain(stream: TextIO) -> bool:
    """Whether a stream has characters of ASCII alone, or its user's locale has."""
    try:
        "█░".encode(getattr(stream, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return True
    return os.environ.get("LC_ALL") in ("C", "POSIX")
