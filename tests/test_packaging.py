"""What the package says of itself is the same everywhere."""

import inspect
import re
import sys
from importlib import metadata
from pathlib import Path
from types import GenericAlias

import pytest

from snn_bp import SnnError
from snn_bp.cli import app
from snn_bp.data.tonic_sets import TonicSet
from snn_bp.data.transforms import transform_from_json

ROOT = Path(__file__).resolve().parents[1]


def found(pattern: str, file: str) -> str:
    match = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert match, f"{file} has no line like {pattern}"
    return match[1]


def test_the_version_and_its_date_are_the_same_in_every_file():
    version = found(r'^version = "(.+)"$', "pyproject.toml")

    assert found(r"^version: (.+)$", "CITATION.cff") == version
    assert found(r"^## (\d.+) \(", "CHANGELOG.md") == version
    assert found(r'^date-released: "(.+)"$', "CITATION.cff") == found(r"^## \d.+ \((.+)\)$", "CHANGELOG.md")


def test_every_python_that_is_named_is_at_least_the_lowest():
    named = re.findall(r"Python :: 3\.(\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lowest, first, last = (
        found(r'^requires-python = ">=3\.(\d+)"$', "pyproject.toml"),
        *re.search(r"Python 3\.(\d+) to 3\.(\d+)", (ROOT / "README.md").read_text(encoding="utf-8")).groups(),
    )

    assert named == [str(minor) for minor in range(int(lowest), int(last) + 1)]
    assert first == lowest


def test_what_checks_an_argument_takes_no_generic_type():
    """`list[Path]` is a class to Python 3.10, and every command ended there in a traceback of typer's."""
    checks = [
        said.callback
        for command in app.registered_commands
        for parameter in inspect.signature(command.callback).parameters.values()
        for said in getattr(parameter.annotation, "__metadata__", ())
        if getattr(said, "callback", None)
    ]
    annotations = {
        check.__name__: [parameter.annotation for parameter in inspect.signature(check).parameters.values()]
        for check in checks
    }

    assert annotations
    assert not [name for name, said in annotations.items() if any(isinstance(each, GenericAlias) for each in said)]


@pytest.mark.parametrize(
    "ask",
    (
        lambda: transform_from_json({"name": "Denoise", "filter_time": 1e4}),
        lambda: list(TonicSet("POKERDVS", ".").recordings("train")),
        lambda: TonicSet("POKERDVS", ".").made_from(),
    ),
)
def test_without_tonic_what_needs_it_says_what_to_install(ask, monkeypatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    for name in ("tonic", "tonic.datasets", "tonic.transforms"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(SnnError, match=r"tonic.* is not installed\. pip install 'snn_bp\[tonic\]'"):
        ask()
