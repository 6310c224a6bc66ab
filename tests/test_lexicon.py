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
CLEAN = (
    "__init__",
    "__main__",
    "chip",
    "cli",
    "data",
    "equations",
    "errors",
    "exchange",
    "files",
    "instruments",
