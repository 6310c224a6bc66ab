"""What a user imports: `snn_bp.__all__`, nothing else, each name documented, typed and in the table of names."""

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import snn_bp

ROOT = Path(__file__).resolve().parents[1]
TABLE = (ROOT / "notebooks" / "site" / "names.md").read_text(encoding="utf-8").partition("\n| for ")[2]
OVERLOADED = {"neuron", "simulate"}  # their types stand in overloads, which tests/typed.py has the type checker read
FUNCTIONS = [name for name in snn_bp.__all__ if inspect.isfunction(getattr(snn_bp, name))]


def members(value):
    """A public function, a module's functions, or the methods and the initialiser of a class that are our own code."""
    if inspect.ismodule(value):
        return [each for name in value.__all__ for each in members(getattr(value, name))]
    if not inspect.isclass(value):
        return [value]
    own = [each for name, each in vars(value).items() if inspect.isfunction(each) and not name.startswith("_")]
    return [*own, value.__init__] if "__init__" in vars(value) and not is_dataclass(value) else own


def test_the_table_lists_every_public_name_and_no_other():
    assert set(re.findall(r"`(\w+)`", TABLE)) == set(snn_bp.__all__)
    assert sorted(snn_bp.__all__) == sorted(set(snn_bp.__all__))


@pytest.mark.parametrize("name", snn_bp.__all__)
def test_a_public_name_says_in_a_line_what_one_gets(name):
    value = getattr(snn_bp, name)
    own = not inspect.isclass(value) or "__doc__" in vars(value)  # not a parent's
    text = value.__doc__ if own else ""
    first = (text or "").strip().partition("\n")[0]

    assert len(first) > 20 and not first.startswith(f"{name}(")  # which is what a dataclass writes by itself


@pytest.mark.parametrize("name", [name for name in snn_bp.__all__ if name not in OVERLOADED])
def test_a_public_name_has_all_its_types(name):
    value = getattr(snn_bp, name)
    bare = [
        f"{member.__qualname__}: {parameter}"
        for member in members(value)
        for parameter, kind in inspect.signature(member).parameters.items()
        if parameter not in ("self", "cls") and kind.annotation is inspect.Parameter.empty
    ]
    bare += [
        member.__qualname__ for member in members(value)
        if member.__name__ != "__init__" and inspect.signature(member).return_annotation is inspect.Signature.empty
    ]  # fmt: skip

    assert bare == []
    assert not is_dataclass(value) or all(field.type for field in fields(value))


def test_no_module_has_the_name_of_a_public_function():
    loops = {
        ROOT / "snn_bp" / "kernels" / device / "neuron.py" for device in ("cpu", "gpu")
    }  # imported by kernels alone
    modules = {path.stem for path in (ROOT / "snn_bp").rglob("*.py") if path not in loops}
    rooms = {path.parent.name for path in (ROOT / "snn_bp").rglob("__init__.py")}

    assert [name for name in FUNCTIONS if name in modules | rooms] == []


def test_every_folder_of_the_package_is_installed():
    folders = {path.parent for path in (ROOT / "snn_bp").rglob("*.py")}

    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []  # setuptools skips those


def test_the_types_are_installed_with_the_package():
    setup = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert (ROOT / "snn_bp" / "py.typed").exists()
    assert '[tool.setuptools.package-data]\nsnn_bp = ["py.typed", ' in setup
    assert re.search(r'^include = \[.*"tests/typed.py"', setup, flags=re.MULTILINE)  # what pyright reads
