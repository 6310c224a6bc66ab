"""What the page looks like: a template that escapes all it is given, and its style, light and dark, wide and narrow."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from snn_bp.reports.plots.style import svg_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Table(NamedTuple):
    """Rows under a caption; the first cell of a row names it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True  # whether cells after the first stand at the right


class Image(NamedTuple):
    """A picture as a `data:` address, what it shows in words, and its caption."""

    source: str
    alt: str
    caption: str


class Link(NamedTuple):
    """A sentence, and the title of the section that shows what it speaks of."""

    text: str
    section: str

    @property
    def anchor(self) -> str:
        """What the section is called within the page."""
        return anchor_of(self.section)


class Formula(NamedTuple):
    """An equation: rows of MathML, what stands left of a sign of equality and what from it on; words below."""

    title: str
    parts: Sequence[tuple[str, Sequence[tuple[str, str]]]]  # a heading, and its rows
    sentences: Sequence[str]


class Fact(NamedTuple):
    """A figure to see at once."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in this order."""

    title: str
    sentences: Sequence[str] = ()
    facts: Sequence[Fact] = ()
    listed: Sequence[str | Link] = ()
    tables: Sequence[Table] = ()
    formulas: Sequence[Formula] = ()
    images: Sequence[Image] = ()
    folded: Sequence[Table | Image] = ()  # behind a line to open

    @property
    def anchor(self) -> str:
        """What a link within the page calls it."""
        return anchor_of(self.title)


def anchor_of(title: str) -> str:
    """A title as an address takes it."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in title.lower()).split())


def svg_image(drawn: "Figure", alt: str, caption: str) -> Image:
    """A figure as a picture of the page, in the reader's colours."""
    return Image(_address("image/svg+xml", svg_bytes(drawn)), alt, caption)


def gif_image(content: bytes, alt: str, caption: str) -> Image:
    """A movie as a picture of the page."""
    return Image(_address("image/gif", content), alt, caption)


def render(**content: Any) -> str:
    """The page as HTML. Nothing in `content` is taken for markup but the rows of formulas."""
    from jinja2 import Environment, StrictUndefined  # comes with torch

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(PAGE).render(style=STYLE, **content)


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --page: #fff; --card: #f4f6f8; --line: #d5dae0;
  --accent: #0a5ea8; --shade: rgb(0 0 0 / .28); }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --soft: #a3adb8; --page: #14171a; --card: #1e2328;
  --line: #363d45; --accent: #7cc0ff; --shade: rgb(255 255 255 / .3); } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --page: #fff; --card: #f4f6f8; --line: #ccc; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 64rem; background: var(--page);
  color: var(--ink); font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
p, li { max-width: 46rem; } .soft, caption, figcaption, .note { color: var(--soft); font-size: .9rem; }
a { color: var(--accent); } nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: 1rem 0 0;
  list-style: none; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .7rem; margin: 1rem 0; }
dl > div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; } .value { font-size: 1.4rem; font-weight: 600; }
/* a shadow at an end that hides something: what scrolls covers it at the others */
.scroll { overflow-x: auto; scrollbar-width: thin; scrollbar-color: var(--soft) var(--card); background:
  linear-gradient(to right, var(--page) 60%, transparent) left / 2rem calc(100% + 2px) no-repeat local,
  linear-gradient(to left, var(--page) 60%, transparent) right / 2rem calc(100% + 2px) no-repeat local,
  linear-gradient(to right, var(--shade), transparent) left / .9rem 100% no-repeat scroll,
  linear-gradient(to left, var(--shade), transparent) right / .9rem 100% no-repeat scroll; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
figure { margin: 1.2rem 0; } figure img { display: block; max-width: max(100%, 38rem); height: auto; }
table { border-collapse: collapse; min-width: min(24rem, 100%); margin: 1rem 0; font-size: .92rem; }
caption { text-align: left; padding: .3rem 0; } caption span { display: inline-block; position: sticky; left: 0;
  max-width: min(46rem, calc(100vw - 2rem)); }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; } tbody th { font-weight: 400; min-width: 6rem; }
th, td { overflow-wrap: break-word; } thead th { overflow-wrap: normal; }
.numbers :is(th, td):not(:first-child) { text-align: right; padding: .25rem 0 .25rem 1.1rem;
  font-variant-numeric: tabular-nums; }
.formulas td { border: 0; white-space: nowrap; padding: .2rem .3rem; vertical-align: middle; }
.formulas td:first-child { text-align: right; } .formulas math { font-size: 1.05rem; } .bar { border-top: 1px solid; }
h3 { font-size: 1rem; }
.numbers td { white-space: nowrap; }
@media print { figure, tr, dl > div { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; background: none; } figure img { max-width: 100%; }
  table { font-size: .8rem; } th, td, thead th, .numbers td { white-space: normal; overflow-wrap: anywhere;
  min-width: 0; } .numbers :is(th, td):not(:first-child) { padding-left: .4rem; } tbody th { min-width: 4rem; } }
summary { cursor: pointer; color: var(--accent); }
"""

PAGE = """
{%- macro tabular(table) %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.caption }}">
<table{% if table.numbers %} class="numbers"{% endif %}>
<caption><span>{{ table.caption }}</span></caption>
<thead><tr>{% for cell in table.head %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr><th scope="row">{{ row[0] }}</th>{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro -%}
{%- macro pictured(image) %}
<figure><div class="scroll" tabindex="0" role="region" aria-label="{{ image.caption }}">
<img src="{{ image.source }}" alt="{{ image.alt }}"></div>
<figcaption>{{ image.caption }}</figcaption></figure>
{% endmacro -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
<p class="soft">{{ lead }}</p>
<nav aria-label="Sections"><ul>
{% for section in sections %}
<li><a href="#{{ section.anchor }}">{{ section.title }}</a></li>
{% endfor %}
</ul></nav>
</header>
<main>
{% for section in sections %}
<section aria-labelledby="{{ section.anchor }}">
<h2 id="{{ section.anchor }}">{{ section.title }}</h2>
{% for sentence in section.sentences %}
<p>{{ sentence }}</p>
{% endfor %}
{% if section.facts %}
<dl>
{% for fact in section.facts %}
<div><dt>{{ fact.name }}</dt><dd class="value">{{ fact.value }}</dd>{% if fact.note %}
<dd class="note">{{ fact.note }}</dd>{% endif %}</div>
{% endfor %}
</dl>
{% endif %}
{% if section.listed %}
<ul>
{% for each in section.listed %}
<li>
{% if each.section is defined %}{{ each.text }} <a href="#{{ each.anchor }}">See {{ each.section }}</a>
{% else %}{{ each }}{% endif %}
</li>
{% endfor %}
</ul>
{% endif %}
{% for table in section.tables %}{{ tabular(table) }}{% endfor %}
{% for formula in section.formulas %}
<h3>{{ formula.title }}</h3>
{% for heading, rows in formula.parts %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ formula.title }}: {{ heading }}">
<table class="formulas"><caption>{{ heading }}</caption><tbody>
{% for left, right in rows %}
<tr><td>{{ left | safe }}</td><td>{{ right | safe }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
<p class="soft">{% for sentence in formula.sentences %}{{ sentence }} {% endfor %}</p>
{% endfor %}
{% for image in section.images %}{{ pictured(image) }}{% endfor %}
{% for each in section.folded %}
<details><summary>{{ each.caption }}</summary>
{{ pictured(each) if each.source is defined else tabular(each) }}
</details>
{% endfor %}
</section>
{% endfor %}
</main>
</body>
</html>
"""
