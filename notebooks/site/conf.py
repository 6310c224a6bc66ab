"""How Sphinx builds the reference: `sphinx-build -W -b html notebooks/site OUT`.

Pages are MyST, names come from docstrings, and where a page says `<!-- README: Your neuron -->` stands that section of
README, with its links leading to where they lead there; `<!-- chips: TOOL; TOOL -->` becomes a table of results.
"""

import inspect
import json
import re
import sys
import textwrap
from pathlib import Path

import snn_bp

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "notebooks" / "site"
README = (ROOT / "README.md").read_text(encoding="utf-8")
CALL = re.compile(r"(\w+)(?:\([^<>]*\))?$")  # a name, or a call of it
CHIPS = re.compile(r"^<!-- chips: (.+) -->$", re.MULTILINE)  # a table of experiments/benchmarks/nir_chips.py
TAKEN = re.compile(r"^<!-- README: (.+) -->$", re.MULTILINE)

sys.modules["snn_bp.plots"] = snn_bp.plots  # so that its functions have the names by which they are called

project, author = "snn_bp", "the authors of snn_bp"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme, html_title, html_static_path, html_css_files = "furo", "snn_bp", ["static"], ["site.css"]
myst_heading_anchors, myst_enable_extensions = 3, ["colon_fence", "dollarmath"]
html_show_copyright, smartquotes, nitpicky = False, False, True
autodoc_typehints, autodoc_member_order = "none", "bysource"


def section(title: str) -> str:
    """A section of README, its heading included; the title of all is that of what stands ahead of the first."""
    found = re.search(rf"^##? {re.escape(title)}\n.*?(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"README has no section {title!r}.")
    return found[0].strip()


def slug(title: str) -> str:
    """A heading as links name it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def where_slugs_are() -> dict[str, str]:
    """The page on which each heading of README stands."""
    return {
        slug(heading): page.name
        for page in SITE.glob("*.md")
        for title in TAKEN.findall(page.read_text(encoding="utf-8"))
        for heading in re.findall(r"^##+ (.+)$", section(title), re.MULTILINE)
    }


def linked(text: str, here: str) -> str:
    """A section with its links as seen from the page `here`; what no page can show, or is that page, is text alone."""
    pages = where_slugs_are()

    def seen_from_here(found: re.Match) -> str:
        image, words, target = found.groups()
        if target.startswith("http"):
            return found[0]
        if target.startswith("notebooks/site/"):
            page = target.removeprefix("notebooks/site/")
            return words if page == here else f"[{words}]({page})"
        if target.startswith("#"):
            page = pages.get(target[1:])
            return f"[{words}]({page}{target})" if page else words
        if target.endswith(".md") or not (ROOT / target).is_file():
            return words
        return f"{image}[{words}](../../{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", seen_from_here, text)


def take_in(app, page, source):
    """Put sections of README, and the list of notebooks, where a page asks for them."""
    source[0] = TAKEN.sub(lambda found: linked(section(found[1]), f"{page}.md"), source[0])
    source[0] = re.sub(r"\A(# (.+)\n)\n## \2\n", r"\1", source[0])  # a section that is called like its page
    source[0] = source[0].replace("<!-- notebooks -->", notebooks())
    source[0] = CHIPS.sub(lambda found: chips(found[1].split("; ")), source[0])
    parts = re.split(r"(^[`:]{3,}.*?^[`:]{3,}$)", source[0], flags=re.MULTILINE | re.DOTALL)  # prose, and code between
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"(?<!\[)(?<!\*)`([^`\n]+)`", named, parts[index])
    source[0] = "".join(parts)


def named(found: re.Match) -> str:
    """A name of the package in the prose of a page as a link to its entry."""
    called = CALL.match(found[1])
    return f"{{py:obj}}`{found[1]} <snn_bp.{called[1]}>`" if called and called[1] in snn_bp.__all__ else found[0]


def notebooks() -> str:
    """The notebooks as a list, each with its heading and its first paragraph."""
    lines = []
    for file in sorted(SITE.parent.glob("*.ipynb")):
        first = next(cell for cell in json.loads(file.read_text("utf-8"))["cells"] if cell["cell_type"] == "markdown")
        heading, text = "".join(first["source"]).split("\n\n")[:2]
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
        lines.append(f"## {heading.lstrip('# ')}\n\n{text.strip()}\n\n[{file.name}](../{file.name})\n")
    return "\n".join(lines)


def chips(tools: list[str]) -> str:
    """How many outputs of each tool differ from our network's, one row for a network that any of them takes."""
    figures = json.loads((ROOT / "experiments" / "results" / "nir_chips.json").read_text("utf-8"))
    lines = ["| " + " | ".join(["network", "outputs", *tools]) + " |", "|---" * (2 + len(tools)) + "|"]
    for kind, mark in (("drawn", ""), ("trained", ", trained")):
        for name, row in figures[kind].items():
            cells = [row.get(tool, "-") for tool in tools]
            if any(isinstance(cell, int) for cell in cells):
                shown = ["refused" if isinstance(cell, str) and cell != "-" else str(cell) for cell in cells]
                lines.append("| " + " | ".join([name + mark, str(row["entries"]), *shown]) + " |")
    return "\n".join(lines)


def as_rest(app, what, name, obj, options, lines):
    """Turn a docstring as it is written here into what Sphinx reads: blocks, lists, tables, links to names."""
    known = [each for each in snn_bp.__all__ if each not in parameters_of(obj)]
    made = []
    for paragraph in re.split(r"\n{2,}", "\n".join(lines).strip("\n")):
        if paragraph.startswith((">>>", "    ", "step\n")):  # an example; a formula; the equation of a neuron
            language = "pycon" if paragraph.startswith(">>>") else "text"
            made.append(f".. code-block:: {language}\n\n{textwrap.indent(textwrap.dedent(paragraph), '    ')}")
        elif paragraph.startswith(("Parameters:\n", "Fields:\n")):
            made.append(entries(paragraph, known))
        elif paragraph.startswith("|"):
            made.append(table(paragraph, known))
        else:
            made.append(in_words(paragraph, known))
    lines[:] = [*"\n\n".join(made).splitlines(), ""]


def parameters_of(thing) -> list[str]:
    """Names that in a docstring are parameters, also where a name of the package is written alike."""
    try:
        return list(inspect.signature(thing).parameters)
    except (TypeError, ValueError):  # a property, an error
        return []


def entries(text: str, known: list[str]) -> str:
    """A list of parameters, `lr (2e-3): learning rate`, with their names in bold."""
    title, *rows = re.split(r"\n    (?=\S)", text)
    made = [f":{title}", ""]
    for row in rows:
        head, _, rest = row.partition(":")
        head = re.sub(r"(\w+)(?=,| \(|$)(?![^(]*\))", r"**\1**", head)
        made.append(f"    * {head}: {in_words(' '.join(rest.split()), known)}")
    return "\n".join(made)


def table(text: str, known: list[str]) -> str:
    """A table of MyST as one of reStructuredText."""
    rows = [[in_words(cell.strip(), known) for cell in row.strip("|").split("|")] for row in text.splitlines()]
    cells = ["\n      - ".join(row) for row in (rows[0], *rows[2:])]
    return "\n".join([".. list-table::", "    :header-rows: 1", "", *(f"    * - {row}" for row in cells)])


def in_words(text: str, known: list[str]) -> str:
    """Prose: `known` names in backticks become links, all else in them code; no other character is markup."""
    made = ""
    for part in re.split(r"(`[^`]+`)", text):
        if not part.startswith("`"):
            behind = "\\ " if made and re.match(r"\w", part) else ""  # a mark ends at a space alone
            made += behind + re.sub(r"[*|\\]|_(?!\w)", r"\\\g<0>", part)
        elif (called := CALL.match(part[1:-1])) and called[1] in known:
            made += f":py:obj:`{' '.join(part[1:-1].split())} <snn_bp.{called[1]}>`"
        else:
            made += f"`{part}`"
    return made


def short(app, what, name, obj, options, signature, returned):
    """A signature whose default `Train(...)` is not written out: its own entry is near."""
    return signature and signature.replace(repr(snn_bp.Train()), "Train()"), returned


def setup(app):
    """What Sphinx calls."""
    app.connect("source-read", take_in)
    app.connect("autodoc-process-docstring", as_rest)
    app.connect("autodoc-process-signature", short)
