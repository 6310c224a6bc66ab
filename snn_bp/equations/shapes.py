"""Shapes of surrogate derivatives: one line of arithmetic each, recorded, as text and as numbers.

A shape is a function of `u`, the distance from threshold, and of its slope. The texts hold free names (`real`, `exp`,
`where`, `absolute` ...) that a backend gives a meaning, as those of `derive.py`.
"""

import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np

from snn_bp.equations.arithmetic import record
from snn_bp.equations.derive import function_text
from snn_bp.equations.nodes import COMPARISONS, Node, ordered
from snn_bp.errors import SnnError

# how a slope is counted: the derivative of the smoothed spike at a distance `u` from threshold, by the shape
PER_THRESHOLD = "def slope_at(u, theta, slope):\n    return shape(u / theta, slope) / theta\n"
PER_POTENTIAL = "def slope_at(u, theta, slope):\n    return shape(u, slope)\n"  # as snnTorch counts it


@dataclass(frozen=True, eq=False)
class Shape:
    """What a surrogate computes of `u` and `slope`, recorded."""

    name: str
    out: Node

    @classmethod
    def of(cls, function: Callable[..., Any], constants: Mapping[str, float]) -> "Shape":
        """What the function computes; parameters `constants` are numbers in it. Raises where it is no shape."""
        name = function.__name__
        takes_slope = "slope" in inspect.signature(function).parameters
        outs = record(cast(types.FunctionType, function), ("u", "slope") if takes_slope else ("u",), constants)
        if len(outs) != 1:
            raise SnnError(f"{name}: a surrogate is one number, found {len(outs)}. Return the slope at u alone.")
        order = ordered(outs)
        for op in ("spike", "detach"):
            if any(node.op == op for node in order):
                raise SnnError(f"{name}: a surrogate has no {op}(...), which is a neuron's. Leave it out.")
        out = outs[0]
        if not any(node.name == "u" for node in order):  # the same everywhere, but where `u` is not a number
            u = Node("argument", name="u")
            out = Node("where", (Node("==", (u, u)), out, u))
        return cls(name, out)

    @functools.cached_property
    def text(self) -> str:
        """`shape(u, slope)`."""
        return function_text("shape", ("u", "slope"), self.out)

    @property
    def key(self) -> str:
        """A word that stands for the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:20]

    @property
    def is_compact(self) -> bool:
        """Whether it says where it is zero, as `where(..., ..., 0)` does."""
        return self.out.op == "where" and any(part.op == "number" and part.value == 0 for part in self.out.args[1:])

    def is_box(self, slope: float) -> bool:
        """Whether it is one number within a window around the threshold, and zero elsewhere."""
        return self.is_compact and self._is_level(slope)

    @functools.lru_cache(maxsize=64)  # noqa: B019 - shapes live as long as the process
    def _is_level(self, slope: float) -> bool:
        """Whether the two numbers it chooses from, of which one counts at threshold, are the same everywhere."""
        varies = any(node.name == "u" for node in ordered(self.out.args[1:]))
        return not varies and bool(self.at(np.zeros(1), slope)[0] != 0)

    def at(self, u: np.ndarray, slope: float) -> np.ndarray:
        """Its values at `u`, in the precision of `u`."""
        return np.broadcast_to(_values(self.out, u, slope), u.shape)

    def switches(self, slope: float) -> tuple[float, ...] | None:
        """All `u` at which a comparison or an absolute value in it changes sides; None where these cannot be read.

        They are read where both sides are straight lines of `u`, piece by piece.
        """
        found: set[float] = set()
        for node in ordered([self.out]):
            if node.op != "abs" and node.op not in COMPARISONS:
                continue
            left, right = node.args if len(node.args) == 2 else (node.args[0], Node("number"))
            gap = Node("-", (left, right))
            knots = sorted(found)
            for low, high in pairwise((-np.inf, *knots, np.inf)):
                line = _line(gap, _between(low, high), slope)
                if line is None:
                    return None
                rise, start = line
                at = -start / rise + 0.0 if rise else np.inf  # never -0
                if low <= at <= high and np.isfinite(at):
                    found.add(at)
        return tuple(sorted(found))


def _values(out: Node, u: Any, slope: float) -> Any:
    """The value of a node for each of `u`."""
    real = u.dtype.type
    known: dict[Node, Any] = {}
    with np.errstate(all="ignore"):
        for node in ordered([out]):
            if node.op == "argument":
                known[node] = u if node.name == "u" else real(slope)
            elif node.op == "number":
                known[node] = real(node.value)
            else:
                known[node] = _OPERATIONS[node.op](*(known[part] for part in node.args))
    return known[out]


_OPERATIONS: dict[str, Any] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "neg": np.negative, "abs": np.abs,
    "exp": np.exp, "sqrt": np.sqrt, "where": np.where, "and": np.logical_and, "or": np.logical_or,
    "not": np.logical_not, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
    "==": np.equal, "!=": np.not_equal,
}  # fmt: skip


def _between(low: float, high: float) -> float:
    if np.isinf(low):
        return 0.0 if np.isinf(high) else high - max(1.0, abs(high))
    return low + max(1.0, abs(low)) if np.isinf(high) else (low + high) / 2


def _line(node: Node, at: float, slope: float) -> tuple[float, float] | None:
    """Rise and start of the straight line of `u` that a node is around `at`; None where it is none."""
    if node.op == "argument":
        return (1.0, 0.0) if node.name == "u" else (0.0, slope)
    if node.op == "number":
        return 0.0, node.value
    if node.op == "where":
        taken = bool(_values(node.args[0], np.asarray(at), slope))
        return _line(node.args[1 if taken else 2], at, slope)
    lines = [line for part in node.args if (line := _line(part, at, slope)) is not None]
    if len(lines) < len(node.args):
        return None
    (rise, start), *others = lines
    if node.op == "abs":
        sign = 1.0 if rise * at + start >= 0 else -1.0
        return sign * rise, sign * start
    if node.op == "neg":
        return -rise, -start
    if not others:  # exp, sqrt
        return None if rise else (0.0, float(_OPERATIONS[node.op](start)))
    ((rise_2, start_2),) = others
    if node.op in "+-":
        sign = 1.0 if node.op == "+" else -1.0
        return rise + sign * rise_2, start + sign * start_2
    if node.op == "*" and not (rise and rise_2):
        return rise * start_2 + start * rise_2, start * start_2
    if node.op == "/" and not rise_2:
        start_2 = start_2 or np.nan  # what is not finite is found elsewhere
        return rise / start_2, start / start_2
    return None
