"""The reference in `notebooks/site`: every public name has its entry, its code runs, and Sphinx builds it."""

import json
import re
import subprocess
import sys

import pytest
import torch
from documents import PAGES, README, ROOT, SITE, blocks, numbers

import snn_bp

LIBRARIES = {"snnTorch": "snntorch", "SpikingJelly": "spikingjelly", "Norse": "norse"}


@pytest.fixture
def in_doubles():
    """The page sets torch's default type; it is set back."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


def test_every_public_name_has_one_entry():
    entry = r"^\.\. auto(?:class|function):: (\w+)$"
    entries = [
        name for page, text in PAGES.items() if page != "plots" for name in re.findall(entry, text, re.MULTILINE)
    ]

    assert sorted(entries) == sorted({*snn_bp.__all__} - {"plots"})
    assert sorted(re.findall(entry, PAGES["plots"], re.MULTILINE)) == sorted(snn_bp.plots.__all__)


def test_every_page_is_in_the_contents():
    contents = re.findall(r"```\{toctree\}\n(.*?)```", PAGES["index"], flags=re.DOTALL)

    assert sorted(re.findall(r"^(\w+)$", "\n".join(contents), re.MULTILINE)) == sorted({*PAGES} - {"index"})


def test_every_section_of_the_readme_that_a_page_shows_is_there():
    shown = re.findall(r"^<!-- README: (.+) -->$", "\n".join(PAGES.values()), re.MULTILINE)

    assert (
        shown and [title for title in shown if not re.search(rf"^##? {re.escape(title)}$", README, re.MULTILINE)] == []
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_same_network_in_another_library_spikes_alike(library, in_doubles):
    pytest.importorskip(LIBRARIES[library], reason=f"{library} is not installed")
    first, *sections = re.split(r"^## ", PAGES["coming_from"], flags=re.MULTILINE)
    section = next(each for each in sections if each.startswith(library))

    names: dict = {}
    for block in (*blocks(first, "python"), *blocks(section, "python")):
        exec(block, names)

    assert 0.02 < names["ours"].mean() < 0.5
    assert torch.equal(names["ours"], names["theirs"].double())


def test_accuracies_of_what_was_tried_are_those_of_the_files():
    rows = re.findall(r"^\| .*", PAGES["tried"], re.MULTILINE)
    sources, checked = [], 0
    for row in rows:
        files = re.findall(r"\((\.\./\.\./experiments/results/\w+\.json)\)", row)
        sources = files or (sources if row.endswith("| the same |") else [])
        shown = re.findall(r"\b(?:0\.\d{3}|\d{2,3}\.\d)\b", row.replace("published 0.859", ""))
        known = [value for file in sources for value in numbers(json.loads((SITE / file).read_text()))]
        assert [text for text in shown if not any(abs(float(text) - value) < 6e-4 for value in known)] == [], row
        checked += len(shown)

    assert checked > 30


@pytest.mark.slow
def test_it_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason='needs Sphinx: pip install -e ".[docs]"')

    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(SITE), str(tmp_path / "site")],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip

    assert built.returncode == 0, built.stderr
    index = (tmp_path / "site" / "genindex.html").read_text(encoding="utf-8")
    assert all(f"#snn_bp.{name}" in index for name in snn_bp.__all__)
