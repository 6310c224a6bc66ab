"""What is seen while something runs: on terminals of any width, in logs, in notebooks, and nothing where quiet."""

import fcntl
import io
import itertools
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numba
import pytest
import runs
from runs import tiny

from snn_bp import Train, train
from snn_bp import training as training_loop
from snn_bp.runtime import status
from snn_bp.runtime.status import Bar, Phase, Status, announced, clock, drawing, in_phase, phase, say, told_to, width
from snn_bp.trainer.optimizer import Step
from snn_bp.trainer.progress import Progress

few_digits = runs.few_digits

COLUMNS = (60, 80, 100, 200)
FIGURES = ("loss 0.412", "accuracy 0.873", "1234/s", "ETA 1:02:31")
DETAILS = ("batch 45/90", "spikes 0.118", "grad 1.3")


class Terminal:
    """A pseudo terminal, as standard error and output are."""

    def __init__(self, columns: int, encoding: str = "utf-8") -> None:
        self._seen = b""
        self._master, slave = pty.openpty()
        self.resize(columns)
        self.stream = open(slave, "w", encoding=encoding, errors="backslashreplace")  # noqa: SIM115 - closed below
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def _read(self) -> None:
        with suppress(OSError):  # that the other side is closed, behind all that was written there
            while part := os.read(self._master, 65536):
                self._seen += part

    def close(self) -> str:
        """End it, and give all that was written."""
        self.stream.close()
        self._reader.join()
        os.close(self._master)
        return self._seen.decode()


def screen(text: str) -> list[str]:
    """The lines that stand on a terminal without end of line, after carriage returns."""
    lines, column = [""], 0
    for each in text:
        if each == "\r":
            column = 0
        elif each == "\n":
            lines.append("")
        else:
            lines[-1] = lines[-1][:column].ljust(column) + each + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


@pytest.fixture
def terminal(monkeypatch) -> Iterator:
    """Makes a terminal of so many columns the streams of the process, drawn on at every step."""
    opened: list[Terminal] = []

    def make(columns: int, encoding: str = "utf-8") -> Terminal:
        opened.append(Terminal(columns, encoding))
        monkeypatch.setattr(sys, "stderr", opened[-1].stream)
        monkeypatch.setattr(sys, "stdout", opened[-1].stream)
        monkeypatch.setattr(status, "TICK", 0.001)
        return opened[-1]

    yield make
    monkeypatch.undo()
    for each in opened:
        if not each.stream.closed:
            each.close()


class Clock:
    """What phases ask for the time: it stands until `passes`."""

    def __init__(self) -> None:
        self.seconds, self._looks = 0.0, 0

    def monotonic(self) -> float:
        self._looks += threading.current_thread() is not threading.main_thread()
        return self.seconds

    def passes(self, seconds: float) -> None:
        """So much later, when the thread that shows phases has looked at it and shown what it shows."""
        self.seconds += seconds
        seen, end = self._looks, time.monotonic() + 60
        while self._looks < seen + 2:
            assert time.monotonic() < end, "nothing looks for how long phases last"
            time.sleep(0.001)


@pytest.fixture
def now(monkeypatch) -> Clock:
    """The clock of phases, of which each is shown behind a second."""
    clock = Clock()
    monkeypatch.setattr(status, "time", clock)
    monkeypatch.setattr(status, "LONG", 1.0)
    monkeypatch.setattr(status, "TICK", 0.001)
    return clock


@pytest.fixture
def log(monkeypatch) -> io.StringIO:
    """Standard error, as a file."""

    class Streams:
        stderr = io.StringIO()

        def __getattr__(self, name: str) -> Any:
            return getattr(sys, name)

    monkeypatch.setattr(status, "sys", Streams())
    return Streams.stderr


# The bar


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("plain", (False, True))
def test_a_bar_has_loss_metric_rate_and_time_left_at_any_width(columns, plain):
    line = Bar("epoch 3/10", 0.25, FIGURES, DETAILS).line(columns - 1, plain=plain)

    assert width(line) < columns
    assert line.split("  ")[0] == "epoch 3/10" and set(FIGURES) <= set(line.split("  "))
    assert line.isascii() == plain or columns == 60  # where there is no room for the graph


def test_a_bar_leaves_out_whole_figures_the_least_important_first():
    bar, kept = Bar("epoch 3/10", 0.25, FIGURES, DETAILS), []
    for columns in range(200, 0, -1):
        parts = [part for part in bar.line(columns, plain=True).split("  ") if part.strip("#-")]
        assert len("  ".join(parts)) <= columns
        kept.append(parts)

    assert all(parts == ["epoch 3/10", *FIGURES, *DETAILS][: len(parts)] for parts in kept)
    assert all(len(narrow) <= len(wide) for wide, narrow in itertools.pairwise(kept))
    assert kept[0][-1] == DETAILS[-1] and kept[-1] == []


def test_letters_of_two_columns_count_twice():
    bar = Bar("epoch 3/10", 0.5, ("精度 0.873", *FIGURES))

    assert width("精度") == 4
    assert all(width(bar.line(columns, plain=False)) <= columns for columns in range(100))


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0:00"), (6.7, "0:07"), (59.6, "1:00"), (3599, "59:59"), (360_001, "100:00:01")]
)
def test_a_time_to_wait_is_said_as_a_clock_does(seconds, told):
    assert clock(seconds) == told


@pytest.mark.usefixtures("few_digits")
def test_a_training_fits_a_terminal_that_changes_while_it_runs(terminal, tmp_path, monkeypatch):
    seen, write = terminal(200), Status._write
    written: list[tuple[int, str]] = []
    monkeypatch.setattr(
        Status, "_write", lambda self, text: (written.append((self._columns(), text)), write(self, text))
    )
    sizes = itertools.cycle(COLUMNS)
    for _ in training_loop(tiny(epochs=3), tmp_path / "run"):
        seen.resize(next(sizes))
    text = seen.close()

    bars = [part for part in re.split(r"[\r\n]+", text) if "ETA" in part]
    assert {columns for columns, _ in written} == {columns - 1 for columns in COLUMNS}
    assert all(len(part) <= columns for columns, line in written for part in line.strip("\r\n").split("\r"))
    assert all(
        re.search(r"^epoch \d/3  .*loss \d\.\d{3}  accuracy \d\.\d{3}  \d+/s  ETA \d+:\d\d", bar) for bar in bars
    )
    assert [line.split("  loss")[0] for line in screen(text) if line.startswith("epoch")] == [
        f"epoch   {epoch}/3" for epoch in (1, 2, 3)
    ]
    assert screen(text)[-1] == ""


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("ascii_by", ("encoding", "locale"))
def test_an_ascii_terminal_gets_ascii(terminal, tmp_path, monkeypatch, ascii_by):
    monkeypatch.delenv("LC_ALL", raising=False)
    seen = terminal(100, encoding="ascii" if ascii_by == "encoding" else "utf-8")
    if ascii_by == "locale":
        monkeypatch.setenv("LC_ALL", "C")

    train(tiny(epochs=1), tmp_path / "run")

    text = seen.close()
    assert "ETA" in text and "--" in text
    assert text.isascii() and "\\" not in text


@pytest.mark.usefixtures("few_digits")
def test_a_log_gets_a_line_for_each_epoch_and_nothing_is_drawn_over(tmp_path, capsys):
    train(tiny(), tmp_path / "run")

    printed, errors = capsys.readouterr()
    assert [line.split("  loss")[0] for line in printed.splitlines()][:2] == ["epoch   1/2", "epoch   2/2"]
    assert "\r" not in printed + errors and "ETA" not in printed + errors


def test_a_step_costs_a_comparison_and_the_bar_is_drawn_ten_times_a_second(terminal, monkeypatch):
    run = types.SimpleNamespace(experiment=types.SimpleNamespace(train=Train(epochs=1)))
    rows, now = [], 0.0
    tally = types.SimpleNamespace(samples=1, seconds=1.0, row=lambda *_: rows.append(now) or ROW)
    terminal(80)
    monkeypatch.setattr(status, "TICK", 0.1)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress(run, quiet=False)

    with told_to(Status()), progress.showing(0, of_epoch=10_000):
        for _ in range(10_000):  # ten seconds
            progress.step(STEP, tally, types.SimpleNamespace(name="accuracy"), None)
            now += 0.001

    assert 98 <= len(rows) <= 101


STEP, ROW = Step(0.5, 1, 2, 1.0, 0.1), {"train_loss": 0.5, "train_accuracy": 0.5}


# Phases


def test_a_phase_is_said_while_it_runs_and_its_seconds_behind_it(log, now):
    with announced(), phase("compiling the kernels"):
        now.passes(1.5)
        assert log.getvalue() == "compiling the kernels ..."

    assert log.getvalue() == "compiling the kernels ... 1.5 s\n"


def test_a_short_phase_is_not_said(log, now):
    with announced():
        for _ in range(9):
            with phase("checking"):
                now.passes(0.9)

    assert log.getvalue() == ""


def test_nothing_is_said_outside_of_what_announces_or_where_quiet(log, now):
    with phase("evaluating"):
        now.seconds += 2
        time.sleep(0.1)
    with announced(), announced(False), phase("evaluating"):
        now.seconds += 2
        time.sleep(0.1)

    assert log.getvalue() == ""


def test_a_phase_within_another_has_its_own_line_and_seconds(log, now):
    with announced(), phase("reporting"):
        now.passes(1.1)
        with phase("evaluating"), phase("evaluating"):
            now.passes(3)
        with announced(), phase("drawing"):
            now.passes(1.2)

    assert log.getvalue() == "reporting ... 1.1 s\nevaluating ... 3.0 s\ndrawing ... 1.2 s\n"


def test_short_phases_of_one_name_add_up_within_another(log, now):
    with announced(), phase("checking"):
        for _ in range(4):
            with phase("compiling the kernels"):
                now.passes(0.3)

    assert log.getvalue() == "compiling the kernels ... 1.2 s\n"


def test_in_a_log_a_phase_that_comes_again_needs_longer(log, now):
    with announced():
        for seconds in (3, 9, 11):
            with phase("evaluating"):
                now.passes(seconds)

    assert log.getvalue() == "evaluating ... 3.0 s\nevaluating ... 11.0 s\n"


def test_a_line_that_is_printed_meanwhile_stands_by_itself(log, now, capsys):
    with announced(), phase("reading"):
        now.passes(1.1)
        say("one")
        say("two", file=log)

    assert capsys.readouterr().out == "one\n"
    assert log.getvalue() == "reading ...\ntwo\nreading ... 1.1 s\n"


def test_what_goes_wrong_ends_the_line_and_the_thread(log, now):
    before = {*threading.enumerate()}

    with pytest.raises(KeyboardInterrupt), announced(), phase("reading"):
        (ours,) = {*threading.enumerate()} - before
        numbers = in_phase([1, 2], "counting")
        assert next(numbers) == 1  # and its end is never told
        now.passes(1.1)
        raise KeyboardInterrupt

    assert log.getvalue() == "counting ... 1.1 s\n"
    ours.join(timeout=60)
    assert not ours.is_alive()


def test_what_still_runs_where_a_program_ends_has_its_seconds(log, now):
    with announced():
        status.status().enter(Phase("reading"))
        now.passes(1.1)

    assert log.getvalue() == "reading ... 1.1 s\n"


def test_a_terminal_shows_how_far_a_phase_is_and_one_line_stays(terminal, now):
    seen = terminal(60)
    with announced():
        for _ in in_phase(range(8), f"reading the recordings in {'a very long folder/' * 5}"):
            now.passes(0.3)
    text = seen.close()

    shown = [part.rstrip() for part in re.split(r"[\r\n]+", text)[:-2]]
    assert all(len(line) < 60 for line in shown) and any(line.endswith(" ... 50%, 2 s") for line in shown)
    assert len([line for line in screen(text) if line]) == 1


def test_a_phase_during_a_bar_stands_in_it(terminal, now):
    seen = terminal(80)
    with announced(), drawing() as bar:
        bar.draw(Bar("epoch 1/2", 0.5, FIGURES))
        with phase("evaluating the validation split"):
            now.passes(1.4)
        say("epoch 1/2  loss 0.1")
    text = seen.close()

    assert re.search(r"\repoch 1/2  █+░+  evaluating the validation split \.\.\. 1 s", text)
    assert screen(text) == ["epoch 1/2  loss 0.1", ""]


def test_compiling_is_told_by_numba(monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(Status, "enter", lambda self, phase: told.append(phase.words))

    with announced(), phase("taking the first step"):
        numba.njit(lambda x: x + 1)(2)

    assert told[0] == "taking the first step" and "compiling the kernels" in told[1:]


def test_a_stream_that_is_closed_stops_nothing(log, now):
    with announced(), phase("reading"):
        now.passes(1.1)
        log.close()
        with phase("counting"):
            now.passes(1.1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forks and threads, from Python 3.12 on
def test_a_fork_within_a_phase_ends_by_itself(log, now):
    with announced(), phase("reading"):
        now.passes(1.1)
        with status.status()._alone():  # the worst moment
            child = os.fork()
        if not child:
            with phase("counting"):
                say("one", file=log)
            os._exit(7)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert code == 7


# Lines


@contextmanager
def of_width(terminal, columns: int) -> Iterator[list[str]]:
    seen, found = terminal(columns), []
    yield found
    found += seen.close().replace("\r", "").splitlines()


@pytest.mark.parametrize("columns", COLUMNS)
def test_a_long_line_is_wrapped_between_words_and_a_row_loses_fields(terminal, columns):
    words = "test accuracy 0.8806 (317 of 360, 95 % interval 0.843 .. 0.910) at epoch 2 of 2, and some more of it"
    row = "epoch   1/2  loss 1.1996  精度 0.616  validation 0.810  spikes 0.125  grad 5.1  89 samples/s"

    with of_width(terminal, columns) as lines:
        say(words)
        say(row, is_row=True)

    *wrapped, shown = lines
    assert " ".join(line.strip() for line in wrapped) == words and all(len(line) <= columns for line in wrapped)
    assert row.startswith(shown) and (shown == row or row[len(shown) :].startswith("  ")) and width(shown) <= columns


def test_a_notebook_gets_plain_lines_on_standard_output_and_a_bar_of_its_own(capsys, monkeypatch, now):
    shown: list[str] = []

    class Display:
        def update(self, data: dict[str, str], raw: bool) -> None:
            shown.append(data["text/plain"])

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Display:
        shown.append(data["text/plain"])
        return Display()

    monkeypatch.setattr("IPython.get_ipython", lambda: types.SimpleNamespace(kernel=True))
    monkeypatch.setattr("IPython.display.display", display)
    with announced(), drawing() as bar:
        for done in (0.1, 0.2):
            bar.draw(Bar("epoch 1/2", done, FIGURES))
        with phase("evaluating"):
            now.passes(1.1)

    printed, errors = capsys.readouterr()
    assert [line.split("  ")[0] for line in shown] == ["epoch 1/2", "epoch 1/2", ""]
    assert printed == "evaluating ... 1.1 s\n" and not errors
