"""A neuron's equation to read: its step and its adjoint as text, as formulas in a notebook, as MathML on a page."""

import html
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snn_bp.equations.derive import Equation
from snn_bp.equations.lines import Line, Term, adjoint_lines, scales, step_lines
from snn_bp.equations.nodes import COMPARISONS

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η", "theta": "θ",
    "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ",
    "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
}  # fmt: skip
Written = Mapping[
    str, tuple[str, int, tuple[int, ...]]
]  # how an operation is written, its rank, the parts' lowest ranks


@dataclass(frozen=True, eq=False)
class Formulas:
    """The step and the adjoint of a neuron: `print` shows text, a notebook formulas.

    `code` has the functions that every backend compiles, for all parameters learned.
    """

    equation: Equation

    @property
    def step(self) -> list[str]:
        """The lines of the step, as text."""
        return [_line(line, TEXT) for line in step_lines(self.equation)]

    @property
    def adjoint(self) -> list[str]:
        """The lines of the adjoint, as text."""
        return [_line(line, TEXT) for line in adjoint_lines(self.equation)]

    @property
    def legend(self) -> list[str]:
        """What the signs in the text mean, in sentences."""
        return self._legend("d_", "sigma'(u)", [write(each, TEXT) for each in scales(self.equation)])

    @property
    def legend_of_signs(self) -> list[str]:
        """The same for formulas."""
        per = [write(each, TEXT) for each in scales(self.equation)]
        said = self._legend(
            "δ", "σ′(u)", [GREEK.get(_split(each)[0], each) if each.isidentifier() else each for each in per]
        )
        held = any("detach" in line for line in self.step)
        return [*said, *["Under a bar: no gradient goes through it."] * held]

    def _legend(self, gradient: str, slope: str, per: list[str]) -> list[str]:
        out = "s" if self.equation.spiking else self.equation.potential
        said = [f"{gradient}: the gradient of the loss at a value; e[t]: what of it arrives at {out}[t] from behind."]
        if not self.equation.spiking:
            return said
        counted = "" if per == ["1"] else f", counted per unit of {' or '.join(per)}"
        return ["H(u): 1 where u > 0, else 0.", *said, f"{slope}: the slope of the surrogate{counted}."]

    @property
    def code(self) -> str:
        """The functions that every backend compiles."""
        return f"{self.equation.step_text}\n\n{self.equation.adjoint_text(self.equation.parameters)}"

    def __str__(self) -> str:
        rows = ["step", *(f"    {line}" for line in self.step), "adjoint", *(f"    {line}" for line in self.adjoint)]
        return "\n".join([*rows, *self.legend])

    __repr__ = __str__

    def _repr_latex_(self) -> str:
        """What a notebook shows."""
        lines = [*step_lines(self.equation), *adjoint_lines(self.equation)]
        rows = [_line(line, LATEX) for line in lines]
        count = len(step_lines(self.equation))
        body = r" \\ ".join([*rows[: count - 1], rows[count - 1] + r" \\[1ex]"]) + " " + r" \\ ".join(rows[count:])
        return rf"$$\begin{{aligned}} {body} \end{{aligned}}$$"

    def mathml(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Step and adjoint in MathML: of each line what stands left of its sign of equality, and what from it on."""
        step, adjoint = (
            [(_math(_left(line, MATHML)), _math("<mo>=</mo>" + _right(line, MATHML))) for line in lines]
            for lines in (step_lines(self.equation), adjoint_lines(self.equation))
        )
        return step, adjoint


@dataclass(frozen=True)
class Notation:
    """How terms are written."""

    value: Callable[[str, int | None], str]
    gradient: Callable[[str, int | None], str]
    number: Callable[[str], str]
    brackets: str
    operations: Written


def write(term: Term, notation: Notation, lowest: int = 0) -> str:
    """A term in a notation, in brackets where its rank is below the lowest."""
    if term.op == "value":
        return notation.value(term.name, term.at)
    if term.op == "gradient":
        return notation.gradient(term.name, term.at)
    if term.op == "number":
        text = notation.number(_short(term.number))
        return notation.brackets % text if term.number < 0 and lowest > 1 else text
    form, rank, needed = notation.operations[term.op]
    parts = [write(part, notation, rank) for part, rank in zip(term.parts, needed, strict=False)]
    if term.op == "where" and notation is not TEXT:  # value, condition, other value
        parts[:2] = parts[1::-1]
    if term.op == "power":
        parts.append(notation.number(_short(term.number)))
    text = form % tuple(parts)
    return notation.brackets % text if rank < lowest else text


def _line(line: Line, notation: Notation) -> str:
    equal = " &= " if notation is LATEX else " = "
    return f"{_left(line, notation)}{equal}{_right(line, notation)}"


def _left(line: Line, notation: Notation) -> str:
    return write(line.left, notation)


def _right(line: Line, notation: Notation) -> str:
    return write(line.right, notation)


def _short(number: float) -> str:
    return f"{int(number)}" if number == int(number) and abs(number) < 1e15 else repr(number)


def _time(at: int, minus: str = "-") -> str:
    return f"t{minus}{-at}" if at < 0 else f"t+{at}" if at else "t"


def _in_text(name: str, at: int | None) -> str:
    return name if at is None else f"{name}[{_time(at)}]"


def _in_latex(name: str, at: int | None) -> str:
    return _latex_name(name) + ("" if at is None else f"[{_time(at)}]")


def _gradient_in_latex(name: str, at: int | None) -> str:
    if at is None:
        return rf"\frac{{\partial L}}{{\partial {_latex_name(name)}}}"
    return rf"\delta_{{{_latex_name(name)}}}[{_time(at)}]"


def _latex_name(name: str) -> str:
    first, below = _split(name)
    word = first if len(first) == 1 else rf"\{first}" if first in GREEK else rf"\mathrm{{{first}}}"
    return word + (rf"_{{\mathrm{{{below}}}}}" if below else "")


def _split(name: str) -> tuple[str, str]:
    """A name's letter or word, and what is written below the line: `tau_m`, `w2`."""
    name = "theta" if name == "threshold" else name
    first, _, below = name.partition("_")
    digits = first.rstrip("0123456789")
    if digits and digits != first:
        first, below = digits, " ".join(part for part in (first[len(digits) :], below) if part)
    return (first, below.replace("_", " ")) if first else (name.replace("_", " ").strip() or "u", "")


def _math(body: str) -> str:
    return f"<math>{body}</math>"


def _in_mathml(name: str, at: int | None) -> str:
    return f"<mrow>{_mathml_name(name)}{_mathml_time(at)}</mrow>"


def _gradient_in_mathml(name: str, at: int | None) -> str:
    if at is None:
        over, below = "<mrow><mo>∂</mo><mi>L</mi></mrow>", f"<mrow><mo>∂</mo>{_mathml_name(name)}</mrow>"
        return f"<mfrac>{over}{below}</mfrac>"
    return f"<mrow><msub><mi>δ</mi>{_mathml_name(name)}</msub>{_mathml_time(at)}</mrow>"


def _mathml_name(name: str) -> str:
    first, below = _split(name)
    word = f"<mi>{html.escape(GREEK.get(first, first))}</mi>"
    return f"<msub>{word}<mtext>{html.escape(below)}</mtext></msub>" if below else word


def _mathml_time(at: int | None) -> str:
    if at is None:
        return ""
    step = "" if not at else f"<mo>{'−' if at < 0 else '+'}</mo><mn>{abs(at)}</mn>"
    return f'<mo stretchy="false">[</mo><mi>t</mi>{step}<mo stretchy="false">]</mo>'


def _number_in_latex(text: str) -> str:
    mantissa, _, exponent = text.partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else text


def _called(name: str, count: int, around: str = "%s(%s)") -> str:
    return around % (name, ", ".join(["%s"] * count))


_CALLED = ("exp", "sqrt", "abs", "detach", "sign", "min", "max", "where")
_COUNTS = {"min": 2, "max": 2, "where": 3}
_SHARED: Written = {  # where nothing else is said; calls and comparisons
    **{name: (_called(name, _COUNTS.get(name, 1)), 5, (0,) * _COUNTS.get(name, 1)) for name in _CALLED},
    **{sign: (f"%s {sign} %s", 0, (1, 1)) for sign in COMPARISONS},
}
TEXT = Notation(
    value=_in_text, gradient=lambda name, at: f"d_{_in_text(name, at)}", number=str, brackets="(%s)",
    operations={
        **_SHARED,
        "+": ("%s + %s", 1, (1, 2)), "-": ("%s - %s", 1, (1, 2)), "neg": ("-%s", 1, (2,)),
        "*": ("%s * %s", 2, (2, 3)), "/": ("%s / %s", 2, (2, 3)), "power": ("%s**%s", 4, (5,)),
        "and": ("%s & %s", 0, (1, 1)), "or": ("%s | %s", 0, (1, 1)), "not": ("~%s", 3, (3,)),
        "total": ("sum_t %s", 2, (2,)), "holds": ("(%s)", 5, (0,)), "spike": ("H(%s)", 5, (0,)),
        "slope": ("sigma'(%s)", 5, (0,)),
    },
)  # fmt: skip
_LATEX_SIGNS = {">=": r"\ge", "<=": r"\le", "==": "=", "!=": r"\ne"}
LATEX = Notation(
    value=_in_latex, gradient=_gradient_in_latex, number=_number_in_latex, brackets=r"\left(%s\right)",
    operations={
        **{sign: (f"%s {_LATEX_SIGNS.get(sign, sign)} %s", 0, (1, 1)) for sign in COMPARISONS},
        "+": ("%s + %s", 1, (1, 1)), "-": ("%s - %s", 1, (1, 2)), "neg": ("-%s", 1, (2,)),
        "*": (r"%s\,%s", 2, (2, 2)), "/": (r"\frac{%s}{%s}", 4, (0, 0)), "power": ("%s^{%s}", 4, (5,)),
        "and": (r"%s \wedge %s", 0, (1, 1)), "or": (r"%s \vee %s", 0, (1, 1)), "not": (r"\neg %s", 3, (3,)),
        "total": (r"\sum_t %s", 2, (2,)), "holds": (r"\left[%s\right]", 5, (0,)),
        "spike": (r"H\left(%s\right)", 5, (0,)),
        "slope": (r"\sigma'\left(%s\right)", 5, (0,)), "exp": (r"\exp\left(%s\right)", 5, (0,)),
        "sqrt": (r"\sqrt{%s}", 5, (0,)), "abs": (r"\left|%s\right|", 5, (0,)),
        "detach": (r"\overline{%s}", 5, (0,)), "sign": (r"\mathrm{sign}\left(%s\right)", 5, (0,)),
        "min": (r"\min\left(%s, %s\right)", 5, (0, 0)), "max": (r"\max\left(%s, %s\right)", 5, (0, 0)),
        "where": (r"\begin{cases} %s & \text{if } %s \\ %s & \text{else} \end{cases}", 1, (0, 0, 0)),
    },
)  # fmt: skip


def _mathml_operations() -> Written:
    signs = {">": "&gt;", "<": "&lt;", ">=": "≥", "<=": "≤", "==": "=", "!=": "≠"}
    between, comma = "<mrow>%%s<mo>%s</mo>%%s</mrow>", "<mo>,</mo>"

    def called(name: str, count: int = 1) -> tuple[str, int, tuple[int, ...]]:
        inside = comma.join(["%s"] * count)
        return f"<mrow>{name}<mo>(</mo>{inside}<mo>)</mo></mrow>", 5, (0,) * count

    return {
        **{sign: (between % text, 0, (1, 1)) for sign, text in signs.items()},
        **{name: called(f"<mi>{name}</mi>", _COUNTS.get(name, 1)) for name in ("exp", "sign", "min", "max")},
        "+": (between % "+", 1, (1, 1)), "-": (between % "−", 1, (1, 2)),
        "neg": ("<mrow><mo>−</mo>%s</mrow>", 1, (2,)), "*": ('<mrow>%s<mspace width="0.17em"/>%s</mrow>', 2, (2, 2)),
        "/": ("<mfrac>%s%s</mfrac>", 4, (0, 0)), "power": ("<msup>%s%s</msup>", 4, (5,)),
        "and": (between % "∧", 0, (1, 1)), "or": (between % "∨", 0, (1, 1)), "not": ("<mo>¬</mo>%s", 3, (3,)),
        "total": ("<mrow><munder><mo>∑</mo><mi>t</mi></munder>%s</mrow>", 2, (2,)),
        "holds": ("<mrow><mo>[</mo>%s<mo>]</mo></mrow>", 5, (0,)), "spike": called("<mi>H</mi>"),
        "slope": called('<mi>σ</mi><mo lspace="0" rspace="0">′</mo>'), "sqrt": ("<msqrt>%s</msqrt>", 5, (0,)),
        "where": (
            "<mrow><mo>{</mo><mtable><mtr><mtd>%s</mtd><mtd><mtext>if&#160;</mtext>%s</mtd></mtr>"
            "<mtr><mtd>%s</mtd><mtd><mtext>else</mtext></mtd></mtr></mtable></mrow>", 1, (0, 0, 0),
        ),
        "abs": ("<mrow><mo>|</mo>%s<mo>|</mo></mrow>", 5, (0,)), "detach": ('<mrow class="bar">%s</mrow>', 5, (0,)),
    }  # fmt: skip


MATHML = Notation(
    value=_in_mathml, gradient=_gradient_in_mathml, number=lambda text: f"<mn>{text}</mn>",
    brackets="<mrow><mo>(</mo>%s<mo>)</mo></mrow>",
    operations=_mathml_operations(),
)  # fmt: skip


class Described:
    """The docstring of a kind: that of its step, and its equation, written when somebody reads it."""

    def __init__(self, text: str | None, usual: Callable[[], tuple[dict[str, Any], Equation]]) -> None:
        self.text, self.usual = inspect.cleandoc(text or ""), usual

    def __get__(self, neuron: Any, owner: Any = None) -> str:
        """The text."""
        chosen, equation = self.usual()
        given = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
        return "\n\n".join(filter(None, [self.text, f"With {given}:" if given else "", str(Formulas(equation))]))
