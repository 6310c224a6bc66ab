"""What a value shows of itself as the last line of a cell: a screen of text at most, or a table of HTML."""

import textwrap
from collections.abc import Callable, Sequence
from html import escape
from typing import TypeVar

LINES, COLUMNS = 24, 100
BELOW = 6  # lines of the end, where the middle is left out
Line = TypeVar("Line")


def on_screen(text: str) -> str:
    """The text on a screen: a long line goes on in the next one, the middle of too many is left out."""
    folded = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        folded += textwrap.wrap(line, COLUMNS, subsequent_indent=indent, drop_whitespace=False) or [""]
    return "\n".join(_shortened([line.rstrip() for line in folded], lambda count: f"... {count} lines ..."))


def filled(parts: Sequence[str], *, indent: int) -> list[str]:
    """The parts in lines, as many in each as there is room for behind an indent."""
    lines = [""]
    for part in parts:
        if lines[-1] and indent + len(lines[-1]) + 1 + len(part) > COLUMNS:
            lines.append("")
        lines[-1] += " " * bool(lines[-1]) + part
    return lines


def html_table(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, notes: Sequence[str] = (), left: int = 1
) -> str:
    """A table as HTML under a line of text, its first `left` columns at the left; nothing in it is taken for markup."""
    shown = _shortened(rows, lambda count: [f"... {count} rows ...", *[""] * (len(rows[0]) - 1)])
    lines = [f"<tr>{''.join(_cell('th', name, index < left) for index, name in enumerate(head))}</tr>"] * bool(head)
    lines += [f"<tr>{''.join(_cell('td', text, index < left) for index, text in enumerate(row))}</tr>" for row in shown]
    table = f'<div style="overflow-x:auto"><table>{"".join(lines)}</table></div>' if rows else ""
    return f"<div>{escape(title)}</div>{table}{''.join(f'<div>{escape(note)}</div>' for note in notes)}"


def _cell(tag: str, text: str, is_left: bool) -> str:
    return f'<{tag} style="text-align:{"left" if is_left else "right"}">{escape(text)}</{tag}>'


def _shortened(lines: Sequence[Line], between: Callable[[int], Line]) -> Sequence[Line]:
    """The first and last lines, and between them what says how many are left out, where they are too many."""
    if len(lines) <= LINES:
        return lines
    first = LINES - 1 - BELOW
    return [*lines[:first], between(len(lines) - first - BELOW), *lines[-BELOW:]]
