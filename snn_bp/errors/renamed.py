"""Fields that older versions called otherwise, or had not: a file is read as they read it, a user's own text is told
today's names."""

from typing import Any

from snn_bp.errors import SnnError

RENAMED = {  # kind of value, its old names, today's
    "Data": {"validation": "validation_fraction", "shift": "translate_px", "turn": "rotate_deg"},
    "Delay": {"most": "max_steps"},
    "Dropout": {"share": "p"},
    "Train": {"settle": "freeze_norm"},
}
ADDED = {"CutMix": {"classes": "same"}}  # what a value did before it had the field, where today's default is another


def with_new_names(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """The fields of a value in a file, under today's names; raises where one stands there under both.

    A field that older versions had not says what they did.
    """
    names = RENAMED.get(kind, {})
    for old in names.keys() & content.keys():
        if names[old] in content:
            raise SnnError(f"{kind}: it has {old!r} and {names[old]!r}, which are one. Leave {names[old]!r}.")
    return ADDED.get(kind, {}) | {names.get(name, name): value for name, value in content.items()}


def new_name(kind: str, old: str) -> str | None:
    """The sentence that gives today's name of a field; None where it never had another."""
    name = RENAMED.get(kind, {}).get(old)
    return name and f"It is called {name!r} now."
