"""What `help(snn_bp.NAME)` says: each public name has an example that runs, and names its parameters and defaults."""

import ast
import dataclasses
import doctest
import inspect
import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import snn_bp
from snn_bp import use_backend

PACKAGE = Path(snn_bp.__file__).parent
PUBLIC = {name: getattr(snn_bp, name) for name in snn_bp.__all__}
METHODS = {
    f"{name}.{method}": getattr(value, method)
    for name, value in PUBLIC.items() if inspect.isclass(value)
    for method, content in vars(value).items() if inspect.isroutine(content) or isinstance(content, classmethod)
    if not method.startswith("_")
}  # fmt: skip
OF_MODULES = {f"{name}.{each}": getattr(value, each)
              for name, value in PUBLIC.items() if inspect.ismodule(value) for each in value.__all__}  # fmt: skip
DOCUMENTED = {name: value for name, value in METHODS.items() if ">>>" in (value.__doc__ or "")} | PUBLIC | OF_MODULES
FIRST = ("train", "Data", "search", "export")  # what their examples make, the others take up
SLOW = ("report", "plots.save_plots", "check_gradients", "sweep", "Sweep")  # draw, compile, or start processes
ENTRY = re.compile(r"^    (?=\S)(.+?):(?: |$)", re.MULTILINE)  # of a list of parameters or fields: "lr (2e-3): ..."
HEAD = re.compile(r"(\w+)(?: \(((?:[^()]|\([^()]*\))*)\))?(?:, |$)")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder with the run of `train`'s example, and the names that examples begin with."""
    folder, names = (
        tmp_path_factory.mktemp("examples"),
        {**PUBLIC, "torch": torch, "np": np, "dataclasses": dataclasses},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in FIRST:
            assert run(name, names) == ""
    yield folder, names


def run(name: str, names: dict[str, Any]) -> str:
    """The examples in a docstring, run with `names`, which take in what they define; what went otherwise, as text."""
    found: list[str] = []
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(DOCUMENTED[name]) or "", names, name, None, None)
    test.globs = names
    with use_backend("reference"):  # which compiles nothing, and spikes as the others do, bit for bit
        doctest.DocTestRunner().run(test, out=found.append, clear_globs=False)
    return "".join(found)


def listed(name: str) -> dict[str, str | None]:
    """The parameters or fields that a docstring lists, each with its default as it is written."""
    text = inspect.getdoc(DOCUMENTED[name]) or ""
    blocks = re.findall(r"^(?:Parameters|Fields):\n((?:    .*\n?)+)", text, re.MULTILINE)
    heads = [head for block in blocks for head in ENTRY.findall(block)]
    return {each: default or None for head in heads for each, default in HEAD.findall(head)}


def taken(name: str) -> dict[str, inspect.Parameter]:
    """The parameters by name."""
    if name == "SnnError" or inspect.ismodule(DOCUMENTED[name]):
        return {}  # a message, as of any error
    parameters = inspect.signature(DOCUMENTED[name]).parameters.values()
    return {each.name: each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}


@pytest.mark.parametrize("name", [pytest.param(each, marks=[pytest.mark.slow] * (each in SLOW)) for each in DOCUMENTED])
def test_its_examples_run(name, begun, monkeypatch):
    folder, names = begun
    monkeypatch.chdir(folder)

    assert ">>>" in (inspect.getdoc(DOCUMENTED[name]) or "")
    assert name in FIRST or run(name, dict(names)) == ""


def test_no_example_in_the_package_is_left_out():
    texts = [
        ast.get_docstring(node)
        for path in PACKAGE.rglob("*.py")
        if ">>>" in (source := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)
    ]

    assert sum(">>>" in (text or "") for text in texts) == len(DOCUMENTED)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_it_names_every_parameter(name):
    text = inspect.getdoc(DOCUMENTED[name]) or ""
    words = {word for quoted in re.findall(r"`([^`]+)`", text) for word in re.findall(r"\w+", quoted)}

    assert [each for each in taken(name) if each not in words | listed(name).keys()] == []


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_defaults_that_it_states_are_those_of_the_signature(name):
    parameters, text, entries = taken(name), inspect.getdoc(DOCUMENTED[name]) or "", listed(name)
    in_prose = re.findall(r"`(\w+)`\s\(([^\s`,;)]+)", text)
    stated = {each: written for each, written in in_prose if each in parameters and re.match(r"-?\d|\"|[A-Z]", written)}
    stated |= {each: written for each, written in entries.items() if written}

    assert {each: eval(written, dict(PUBLIC)) for each, written in stated.items()} == {
        each: parameters[each].default for each in stated
    }
    assert [each for each in entries if each not in parameters and each != "description"] == []
    unsaid = [each for each in entries if each in parameters and each not in stated]
    assert all(parameters[each].default in (inspect.Parameter.empty, None, ()) for each in unsaid)


def test_help_shows_plain_types_and_defaults():
    assert str(inspect.signature(snn_bp.Dense)).startswith(
        "(units: int, *, bias: bool = True, density: float | None = None"
    )
    assert "Within" not in str(inspect.signature(snn_bp.Train)) and "lr: float = 0.002" in pydoc.render_doc(
        snn_bp.Train
    )
    assert list(inspect.signature(snn_bp.TET()).parameters) == ["out", "targets", "mask"]  # a value: that of its call
