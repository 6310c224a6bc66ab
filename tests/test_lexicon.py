"""The words of the package are the field's: a list of words that are not, each with what to say instead.

Where they count: names where they are defined, comments, docstrings and messages. A string of one word is a key of a
file or an option and stays free. `python tests/test_lexicon.py ROOM ...` lists what a room still has.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "snn_bp"
PAGES = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "notebooks" / "site").glob("*.md"))

# in names and in texts; a name is taken apart at its underscores and capitals
ANYWHERE = {
    "(un)?hear(s|d|ing)?": "presynaptic spikes, the recurrent input",
    "weigh(s|ed|ing)?": "sum (of weights), count for",
    "votes?": "scores, prediction",
    "rims?": "padding, halo",
    "settle[sd]?": "freeze_norm, or what stays fixed",
    "proofs?|proves?|proven|proved": "verification, verified on N recordings",
    "witness(es)?": "independent reference",
    "mend(s|ed|ing)?": "fix, repair",
    "planted": "injected",
    "contracts?": "metadata",
    "likeness(es)?": "similarity",
    "takers?": "sinks",
}
IN_NAMES = {
    "shares?": "fraction",
    "places?": "index, layer_index, position, offset",
    "how": "config, options, or the noun",
    "pour(s|ed)?": "stream_into",
    "twins?": "copy",
}
IN_TEXTS = {
    "(an?|the|this|larger|smaller) share|shares? of": "fraction",
    "whole numbers?(?! of)": "integer",
    "held against|holds? (it |them |both )?against": "compared with",
    "circles?": "cycle (of imports)",
    "the interpreter's last round": "interpreter finalisation",
}
# fine in a short function; not as the name of a module, class, function, field or of a public function's parameter
FUNCTION_WORDS = {"given", "said", "found", "own", "most", "whole", "told", "asked", "part", "wanted", "least", "again"}

# written beside every `.net` file as it stands; a script of an older version runs only where it is the same to the byte
AS_WRITTEN = PACKAGE / "chip" / "lava_program.py"
ENTRIES = sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")})


def finds(path: Path) -> Iterator[str]:
    """Every place of a Python file with a word of the list, and what to say instead."""
    text = path.read_text(encoding="utf-8")
    where = path.relative_to(ROOT)
    for line, name in [(1, path.stem), *_names(ast.parse(text))]:
        for word in _words(name):
            for say in _says(word, ANYWHERE | IN_NAMES):
                yield f"{where}:{line}: {name}: {say}"
    for line, name in [(1, path.stem), *_public(ast.parse(text).body)]:
        if name.strip("_").lower() in FUNCTION_WORDS:
            yield f"{where}:{line}: {name}: a noun that says what it is"
    for line, comment in _comments(text):
        if re.match(r"#\s*of\b", comment):
            yield f"{where}:{line}: {comment[:40]}: say of which noun, as a sentence"
        for say in _says(comment, ANYWHERE | IN_TEXTS):
            yield f"{where}:{line}: {say}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            for say in _says(" ".join(node.value.split()), ANYWHERE | IN_TEXTS):
                yield f"{where}:{node.lineno}: {say}"


def _says(text: str, words: dict[str, str]) -> Iterator[str]:
    for pattern, instead in words.items():
        for match in re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE):
            yield f"{match[0]!r} -> {instead}"


def _words(name: str) -> list[str]:
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)


def _names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The names that a file defines, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def _public(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """Names of functions, classes and fields, and the parameters of public functions."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield node.lineno, node.name
            yield from _public(node.body)
        elif isinstance(node, ast.FunctionDef):
            yield node.lineno, node.name
            if not node.name.startswith("_") or node.name == "__init__":
                arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                yield from ((each.lineno, each.arg) for each in arguments)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((node.lineno, each.id) for each in targets if isinstance(each, ast.Name))


def _comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def files_of(entry: str) -> list[Path]:
    """The Python files of one entry of the package."""
    return sorted({*(PACKAGE / entry).rglob("*.py")} - {AS_WRITTEN}) or [PACKAGE / f"{entry}.py"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_documents_say_the_words_of_the_field(name):
    lines = enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)

    assert [f"{name}:{number}: {say}" for number, line in lines for say in _says(line, ANYWHERE | IN_TEXTS)] == []


@pytest.mark.parametrize("entry", ENTRIES)
def test_names_and_texts_say_the_words_of_the_field(entry):
    assert [find for file in files_of(entry) for find in finds(file)] == []


if __name__ == "__main__":
    for entry in sys.argv[1:] or ENTRIES:
        found = [find for file in files_of(entry) for find in finds(file)]
        print(*(found if sys.argv[1:] else [f"{entry}: {len(found)}"]), sep="\n")
