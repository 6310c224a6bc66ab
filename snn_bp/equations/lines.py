"""A neuron's equation as lines to read: its step over time, and the gradients that come back through it.

    v[t] = beta * v[t-1] + x[t]                 d_v[t] = beta * d_v[t+1] + sigma'(v[t] - theta) * d_s[t]
    s[t] = H(v[t] - theta)                      d_beta = sum_t v[t-1] * d_v[t]

The gradients here are derived once more, symbol by symbol along time, beside the adjoint of one step that backends
compile (`derive.py`); the tests hold the lines against gradients of runs.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from snn_bp.equations.derive import Equation
from snn_bp.equations.nodes import COMPARISONS, Node, ordered

LONG_FROM = 2  # operations from which on a value that is used twice gets a line of its own
OPPOSITE = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!=", "!=": "=="}


@dataclass(frozen=True)
class Term:
    """A part of a line: "value" or "gradient" of a name, "number", or an operation on other terms.

    Beside the operations of a step there are "power" (to `number`), "min", "max", "holds" (1 where a condition is true,
    else 0), "sign", "slope", the surrogate's at a distance from threshold, and "total", the sum over all steps.
    """

    op: str
    parts: tuple["Term", ...] = ()
    name: str = ""
    at: int | None = None  # steps from t; None of what is the same at every step
    number: float = 0.0

    def later(self) -> "Term":
        """The same, one step on."""
        parts = tuple(part.later() for part in self.parts)
        return replace(self, parts=parts, at=None if self.at is None else self.at + 1)


@dataclass(frozen=True)
class Line:
    """`left = right`."""

    left: Term
    right: Term


ONE, ZERO = Term("number", number=1.0), Term("number")


def step_lines(equation: Equation) -> list[Line]:
    """What happens in step t, each line behind those that it reads."""
    names = _named(equation)
    lines = [Line(_value(name, 0), _term(node, names, equation, whole=True)) for node, name in names.items()]
    for name, node in zip(equation.full, _outputs(equation), strict=True):
        if names.get(node) != name:  # a number, what was there before, or what another state holds too
            lines.append(Line(_value(name, 0), _term(node, names, equation)))
    return lines


def adjoint_lines(equation: Equation) -> list[Line]:
    """The gradients at what stands in the step, each line behind those of the same step that it reads."""
    steps = step_lines(equation)
    through = [(line.left.name, _slopes(line.right)) for line in steps]
    out = equation.full[-1] if equation.spiking else equation.potential

    def gradient(name: str) -> Term:
        terms = [_value("e", 0)] if name == out else []
        for at in (-1, 0):  # what the next step makes of it, and this one
            for other, slopes in through:
                slope = slopes.get((name, at), ZERO)
                terms.append(_times(slope, _gradient(other, 0)) if at == 0 else
                             _times(slope, _gradient(other, 0)).later())  # fmt: skip
        return _sum(terms)

    def over_time(name: str) -> Term:
        each = _sum([_times(slopes.get((name, None), ZERO), _gradient(other, 0)) for other, slopes in through])
        if each.op == "neg":
            return _negative(Term("total", each.parts))
        return each if each == ZERO else Term("total", (each,))

    lines = [Line(_gradient(line.left.name, 0), gradient(line.left.name)) for line in reversed(steps)]
    lines.append(Line(_gradient("x", 0), gradient("x")))
    for name in equation.parameters:
        lines.append(Line(_gradient(name, None), over_time(name)))
    return lines


def scales(equation: Equation) -> list[Term]:
    """What the surrogate's slope is counted per, of each spike; each once."""
    names = _named(equation)
    found = [_term(node.args[1], names, equation) for node in ordered(_outputs(equation)) if node.op == "spike"]
    return list(dict.fromkeys(found))


def _outputs(equation: Equation) -> list[Node]:
    return [*equation.new, *([equation.out] if equation.out is not None else [])]


def _value(name: str, at: int | None) -> Term:
    return Term("value", name=name, at=at)


def _gradient(name: str, at: int | None) -> Term:
    return Term("gradient", name=name, at=at)


def _named(equation: Equation) -> dict[Node, str]:
    """What gets a line of its own, and its name, in order: the spike, the states, and what is used more than once."""
    names: dict[Node, str] = {}
    outputs = dict(zip(equation.full, _outputs(equation), strict=True))
    for name in sorted(outputs, key=lambda name: (name != "s", name != equation.potential)):
        if outputs[name].op not in ("number", "argument"):
            names.setdefault(outputs[name], name)
    order = _order(_outputs(equation))
    uses = Counter(part for node in order for part in set(_parts(node)))
    taken = {*equation.full, *equation.parameters, "x", "e", "H", "t"}
    for node in order:
        plain = node.op in ("number", "argument", "detach") or node.is_condition or _power(node) is not None
        if node in names or plain or uses[node] < 2 or _size(node) < LONG_FROM:
            continue
        name = node.name if node.name not in {"", *taken} else next(
            each for each in (f"h{number}" for number in itertools.count(1)) if each not in taken
        )  # fmt: skip
        taken.add(name)
        names[node] = name
    return {node: names[node] for node in order if node in names}


def _order(outputs: list[Node]) -> list[Node]:
    """What a reader meets of the outputs, each behind its parts."""
    order: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in order:
            for part in _parts(node):
                visit(part)
            order[node] = None

    for node in outputs:
        visit(node)
    return list(order)


def _parts(node: Node) -> tuple[Node, ...]:
    """What a reader meets of an operation: a power has a base, the smaller of two values two parts."""
    if (power := _power(node)) is not None:
        return power[:1]
    if node.op == "where" and (chosen := _chosen(node)):
        return chosen
    return node.args


def _size(node: Node) -> int:
    return sum(each.op not in ("number", "argument", "detach") for each in _order([node]))


def _term(node: Node, names: dict[Node, str], equation: Equation, *, whole: bool = False) -> Term:
    """What was recorded as a term to read; `whole`: not by its name, if it has one."""

    def term(part: Node) -> Term:
        return _term(part, names, equation)

    if node in names and not whole:
        return _value(names[node], 0)
    if node.op == "argument":
        return _value(node.name, None if node.name in equation.parameters else 0 if node.name == "x" else -1)
    if node.op == "number":
        return Term("number", number=node.value)
    if (power := _power(node)) is not None:
        return Term("power", (term(power[0]),), number=power[1])
    if node.op == "where":
        if (chosen := _chosen(node)) is not None:
            return Term("min" if node.args[0].op == "<" else "max", tuple(map(term, chosen)))
        condition, yes, no = map(term, node.args)
        if (yes, no) == (ONE, ZERO):
            return Term("holds", (condition,))
    return Term(node.op, tuple(map(term, node.args)))


def _power(node: Node) -> tuple[Node, int] | None:
    """Base and exponent, where a product is a power."""
    if node.op != "*":
        return None
    (base, first), (other, second) = (_power(part) or (part, 1) for part in node.args)
    return (base, first + second) if base is other and base.op != "number" else None


def _chosen(node: Node) -> tuple[Node, Node] | None:
    """The two values of which a choice takes the smaller or the larger."""
    condition, yes, no = node.args
    if condition.op not in ("<", ">"):
        return None
    same = (
        first is second or (first.op == second.op == "number" and first.value == second.value)
        for first, second in zip(condition.args, (yes, no), strict=True)
    )
    return (no, yes) if all(same) else None


def _slopes(right: Term) -> dict[tuple[str, int | None], Term]:
    """The derivative of a term by each value in it."""
    found: dict[tuple[str, int | None], list[Term]] = {}
    for name, at, slope in _through(right, ONE):
        found.setdefault((name, at), []).append(slope)
    return {key: _sum(slopes) for key, slopes in found.items()}


def _through(term: Term, g: Term) -> Iterator[tuple[str, int | None, Term]]:
    """Each value that a term stands on, and the derivative along one way to it, times `g`."""
    first, second, third = (*term.parts, ZERO, ZERO, ZERO)[:3]
    plain = tuple(map(_bare, term.parts))
    if term.op == "value":
        yield term.name, term.at, g
    elif term.op in ("+", "-"):
        yield from _through(first, g)
        yield from _through(second, _negative(g) if term.op == "-" else g)
    elif term.op == "neg":
        yield from _through(first, _negative(g))
    elif term.op == "*":
        yield from _through(first, _times(plain[1], g))
        yield from _through(second, _times(plain[0], g))
    elif term.op == "/":
        yield from _through(first, _over(g, plain[1]))
        yield from _through(second, _negative(_over(_times(plain[0], g), _powered(plain[1], 2))))
    elif term.op == "power":
        inner = _times(Term("number", number=term.number), _powered(plain[0], int(term.number) - 1))
        yield from _through(first, _times(inner, g))
    elif term.op == "exp":
        yield from _through(first, _times(_bare(term), g))
    elif term.op == "sqrt":
        yield from _through(first, _over(g, _times(Term("number", number=2.0), _bare(term))))
    elif term.op == "abs":
        yield from _through(first, _times(Term("sign", plain), g))
    elif term.op == "spike":
        yield from _through(first, _times(Term("slope", plain), g))
    elif term.op == "where":
        yield from _through(second, _times(_holds(plain[0]), g))
        yield from _through(third, _times(_holds(_opposite(plain[0])), g))
    elif term.op in ("min", "max"):
        other = Term("<" if term.op == "min" else ">", (plain[1], plain[0]))
        yield from _through(first, _times(_holds(_opposite(other)), g))
        yield from _through(second, _times(_holds(other), g))
    else:
        assert term.op in ("number", "detach", "holds"), term.op


def _bare(term: Term) -> Term:
    """A term as a factor in a gradient, where it makes no difference what is held constant."""
    if term.op == "detach":
        return _bare(term.parts[0])
    return replace(term, parts=tuple(map(_bare, term.parts)))


def _holds(condition: Term) -> Term:
    return Term("holds", (condition,))


def _opposite(condition: Term) -> Term:
    if condition.op in OPPOSITE:
        return replace(condition, op=OPPOSITE[condition.op])
    if condition.op == "not":
        return condition.parts[0]
    if condition.op in ("and", "or"):
        return Term("or" if condition.op == "and" else "and", tuple(map(_opposite, condition.parts)))
    assert condition.op not in COMPARISONS
    return Term("not", (condition,))


def _times(first: Term, second: Term) -> Term:
    if ZERO in (first, second):
        return ZERO
    if ONE in (first, second):
        return second if first == ONE else first
    for mine, other in ((first, second), (second, first)):
        if mine.op == "neg":
            inner = (mine.parts[0], other) if mine is first else (other, mine.parts[0])
            return _negative(_times(*inner))
    if second.op == "*":  # to read from left to right
        return _times(_times(first, second.parts[0]), second.parts[1])
    if second.op == "/":
        return _over(_times(first, second.parts[0]), second.parts[1])
    return Term("*", (first, second))


def _over(above: Term, below: Term) -> Term:
    if above.op == "neg":
        return _negative(_over(above.parts[0], below))
    return above if below == ONE or above == ZERO else Term("/", (above, below))


def _powered(base: Term, exponent: int) -> Term:
    if base.op == "power":
        return _powered(base.parts[0], int(base.number) * exponent)
    return base if exponent == 1 else Term("power", (base,), number=exponent)


def _negative(term: Term) -> Term:
    if term.op == "neg":
        return term.parts[0]
    return term if term == ZERO else Term("neg", (term,))


def _sum(terms: list[Term]) -> Term:
    whole = ZERO
    for term in terms:
        if term == ZERO:
            continue
        if whole == ZERO:
            whole = term
        elif term.op == "neg":
            whole = Term("-", (whole, term.parts[0]))
        else:
            whole = Term("+", (whole, term))
    return whole
