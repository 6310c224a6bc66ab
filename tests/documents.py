"""README and the pages of the reference, as tests read them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "notebooks" / "site"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted(SITE.glob("*.md"))}
DOCUMENTS = {"README": README, **PAGES}


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code in a document."""
    return re.findall(rf"^```{language}\n(.*?)```", text, flags=re.MULTILINE | re.DOTALL)


def on_one_line(text: str) -> str:
    """A text without its ends of lines."""
    return " ".join(text.split())


def numbers(content) -> list[float]:
    """All numbers in what JSON holds."""
    if isinstance(content, dict | list):
        parts = content.values() if isinstance(content, dict) else content
        return [number for part in parts for number in numbers(part)]
    return [content] if isinstance(content, float) else []
