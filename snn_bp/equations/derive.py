"""A neuron's equation: its recorded step, the adjoint that the chain rule makes of it, and both as source text.

The texts are functions over free names (`real`, `exp`, `sqrt`, `where`, `either`, `heaviside`, `slope_at` ...) that a
backend gives a meaning; nothing else stands in them, so that one text is the torch reference, the loop of the CPU and
the kernel of the GPU. Operations are never reordered: all backends spike alike, bit for bit.
"""

import ast
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from snn_bp.equations.nodes import COMPARISONS, Node, ordered
from snn_bp.errors import SnnError

Learned = tuple[str, ...]  # parameters whose gradients are asked for


@dataclass(frozen=True, eq=False)
class Equation:
    """What one neuron does in a step, recorded.

    The step sees `states` and, if it spikes, the spike `s` of the step before; then the input `x` and the parameters.
    It gives new states and `out`: the spike, or one of the states of a neuron that does not spike.
    """

    name: str
    states: tuple[str, ...]
    parameters: tuple[str, ...]
    new: tuple[Node, ...]  # the states after the step
    out: Node | None  # the spike; None of a neuron that does not spike
    potential: str  # the state that is shown as the membrane's potential, and given out where nothing spikes

    @property
    def spiking(self) -> bool:
        """Whether the neuron fires; if not, its output is its potential."""
        return self.out is not None

    @property
    def full(self) -> tuple[str, ...]:
        """All that is carried from step to step: the states, and the spike of a neuron that fires."""
        return (*self.states, "s") if self.spiking else self.states

    @functools.cached_property
    def key(self) -> str:
        """A word that stands for the equation, for torch's operators; `of_key` reads it."""
        text = repr((self.states, self.parameters, self.potential, self.step_text))
        key = hashlib.sha256(text.encode()).hexdigest()[:20]
        _KNOWN[key] = self
        return key

    @staticmethod
    def of_key(key: str) -> "Equation":
        """The equation that a key stands for, in the process that asked for it."""
        return _KNOWN[key]

    @functools.cached_property
    def step_text(self) -> str:
        """`advance(*states, s, x, *parameters)`: the states after a step, and the spike."""
        return self._function("advance", (*self.full, "x", *self.parameters), self._outputs)

    @functools.cached_property
    def distances(self) -> tuple[Node, ...]:
        """How far from each of its thresholds the neuron is: what each spike of the step is above 0 of, in order."""
        return tuple(node.args[0] for node in ordered(self._outputs) if node.op == "spike")

    @functools.cached_property
    def learnable(self) -> frozenset[str]:
        """The parameters that a gradient at an output or potential reaches, through any number of steps."""
        after = dict(zip(self.full, self._outputs, strict=True))
        reached: set[Node] = set()
        stack = [after["s" if self.spiking else self.potential], after[self.potential]]
        while stack:
            node = stack.pop()
            if node not in reached:
                reached.add(node)
                stack += [*_through(node), *([after[node.name]] if node.name in after else [])]
        return frozenset(node.name for node in reached if node.name in self.parameters)

    @functools.cached_property
    def binary(self) -> bool:
        """Whether the output is 0 or 1: one spike, and nothing done to it."""
        return self.out is not None and self.out.op == "spike"

    @functools.cached_property
    def refires(self) -> bool:
        """Whether the spike follows from the states after the step, so that a backward pass need not keep it."""
        if self.out is None:
            return False
        after = self._after()
        return all(node in after or node.name in self.parameters for node in self._needed([self.out]))

    @functools.cached_property
    def fired_text(self) -> str:
        """`fired(*states, *parameters)`: the spike that the states after a step come with."""
        assert self.refires and self.out is not None
        writer = _Writer(self._after())
        out = writer.expression(self.out)
        return writer.function("fired", (*self.states, *self.parameters), out)

    @functools.cached_property
    def slope_text(self) -> str:
        """`slope_here`: what a step multiplies the error of its spike by, from what `adjoint` takes but the errors."""
        assert self.binary and self.out is not None
        writer = _Writer({node: f"after_{name}" for node, name in self._after().items()})
        distance, scale = map(writer.expression, self.out.args)
        arguments = [*self.full, "x", *(f"after_{name}" for name in self.states), *self.parameters, "slope"]
        return writer.function("slope_here", arguments, f"slope_at({distance}, {scale}, slope)")

    def adjoint_text(self, learned: Learned, *, boxed: bool = False) -> str:
        """`adjoint`: the chain rule through one step, gradients at its outputs in, gradients at its inputs out.

        It takes `g_` of each state and the spike after the step, the states and spike before it, the input `x`, the
        states `after_` it, the parameters, and the slope of the surrogate; it returns the gradients at the states and
        spike before, at the input, and at each parameter: 0 for those that are not learned. Where the surrogate is a
        box, `boxed`, it takes too whether the spike's distance is `inside_`, instead of states.
        """
        return self._adjoint(learned, boxed)[0]

    def saved(self, learned: Learned, *, boxed: bool = False) -> tuple[str, ...]:
        """Of which states (also `s` and `x`) a backward pass needs the values of every step."""
        used = self._adjoint(learned, boxed)[1]
        if "s" in used and self.refires:
            used = (used - {"s"}) | {name for name in self.fires_from}
        return tuple(name for name in ("x", *self.states, "s") if name in used)

    @property
    def _outputs(self) -> list[Node]:
        return [*self.new, *([self.out] if self.out is not None else [])]

    def _after(self) -> dict[Node, str]:
        """The names of the states after the step, where they are neither numbers nor parameters."""
        known = zip(self.states, self.new, strict=True)
        return {node: name for name, node in known if node.op != "number" and node.name not in self.parameters}

    @functools.cached_property
    def fires_from(self) -> frozenset[str]:
        """The states after a step that its spike is made of."""
        assert self.out is not None
        after = self._after()
        return frozenset(after[node] for node in self._needed([self.out]) if node in after)

    def _needed(self, nodes: Iterable[Node]) -> list[Node]:
        """What must be known to compute the nodes: states after the step, or else arguments."""
        after, found, seen = self._after(), [], set()
        stack = list(nodes)
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in after or node.op == "argument":
                found.append(node)
            else:
                stack.extend(node.args)
        return found

    def _function(self, name: str, arguments: Sequence[str], outputs: Sequence[Node]) -> str:
        writer = _Writer({})
        return writer.function(name, arguments, _tuple(writer.expression(node) for node in outputs))

    @functools.lru_cache(maxsize=64)  # noqa: B019 - equations live as long as the process
    def _adjoint(self, learned: Learned, boxed: bool) -> tuple[str, frozenset[str]]:
        """The text of the adjoint, and the names of the states, `s` and `x` that it reads."""
        order = ordered(self._outputs)
        leads = {"x", *self.full, *learned}  # to these a gradient is asked for
        reaches: set[Node] = set()
        for node in order:
            if (node.op == "argument" and node.name in leads) or reaches & set(_through(node)):
                reaches.add(node)
        writer = _Writer({node: f"after_{name}" for node, name in self._after().items()})
        gradients: dict[Node, str] = {}

        def add(node: Node, text: str, *, minus: bool = False) -> None:
            if node not in reaches:
                return
            if node not in gradients:
                gradients[node] = f"-{text}" if minus else text
                return
            sign = "-" if minus else "+"
            gradients[node] = writer.assign(f"{gradients[node]} {sign} {text}", "g")

        for name, node in zip(self.full, self._outputs, strict=True):
            add(node, f"g_{name}")
        for node in reversed(order):
            if node not in gradients or node.op == "argument":
                continue
            if not set(_through(node)) & reaches:
                continue
            g = gradients[node]
            if not g.isidentifier():
                g = gradients[node] = writer.assign(g, "g")
            if boxed and node is self.out:
                box = f"slope_at(real(0.0), {writer.expression(node.args[1])}, slope)"
                add(node.args[0], f"{g} * where(inside_, {box}, real(0.0))")
            else:
                _chain_rule(node, g, add, writer, reaches)
        results = []
        for name in (*self.full, "x", *self.parameters):
            found = [text for node, text in gradients.items() if node.op == "argument" and node.name == name]
            results.append(found[0] if found and (name in leads) else "real(0.0)")
        before, after = self.full, [f"after_{name}" for name in self.states]
        arguments = [*(f"g_{name}" for name in self.full), *before, "x", *after, *self.parameters, "slope"]
        arguments += ["inside_"] if boxed else []
        used = writer.read
        names = frozenset(name.removeprefix("after_") for name in used if name not in self.parameters)
        return writer.function("adjoint", arguments, _tuple(results)), names & {*self.states, "s", "x"}


_KNOWN: dict[str, Equation] = {}


def function_text(name: str, arguments: Sequence[str], out: Node) -> str:
    """The text of a function of these arguments that returns a node's value."""
    writer = _Writer({})
    return writer.function(name, arguments, writer.expression(out))


def _through(node: Node) -> tuple[Node, ...]:
    """The arguments of an operation to which a gradient flows."""
    if node.op in ("detach", "number", "argument") or node.is_condition:
        return ()
    if node.op == "where":
        return node.args[1:]
    return node.args[:1] if node.op == "spike" else node.args


def _chain_rule(node: Node, g: str, add: Callable, writer: "_Writer", reaches: set[Node]) -> None:
    """Hand the gradient `g` at a node on to those of its arguments that one is asked for."""
    value = writer.expression
    first, second = node.args[0], node.args[min(1, len(node.args) - 1)]
    if node.op in ("+", "-"):
        add(first, g)
        add(second, g, minus=node.op == "-")
    elif node.op == "neg":
        add(first, g, minus=True)
    elif node.op == "*":
        for mine, other in ((first, second), (second, first)):
            if mine in reaches:
                add(mine, f"{g} * {value(other)}")
    elif node.op == "/":
        if first in reaches:
            add(first, f"{g} / {value(second)}")
        if second in reaches:
            add(second, f"{g} * {value(node)} / {value(second)}", minus=True)
    elif node.op == "exp":
        add(first, f"{g} * {value(node)}")
    elif node.op == "sqrt":
        add(first, f"real(0.5) * {g} / {value(node)}")
    elif node.op == "abs":
        x = value(first)
        add(first, f"where({x} > real(0.0), {g}, where({x} < real(0.0), -{g}, real(0.0)))")
    elif node.op == "spike":
        add(first, f"{g} * slope_at({value(first)}, {value(second)}, slope)")
    elif node.op == "where":
        condition = value(first)
        add(second, f"where({condition}, {g}, real(0.0))")
        add(node.args[2], f"where({condition}, real(0.0), {g})")
    else:
        raise AssertionError(f"{node.op}: no chain rule")


class _Writer:
    """Writes nodes as expressions, each under a name of its own, and reads those that are `given` by their names."""

    def __init__(self, names: dict[Node, str]) -> None:
        self.names, self.written = names, dict[Node, str]()
        self.lines: list[str] = []
        self.read: set[str] = set()  # names of what is given, and of arguments, that were used

    def assign(self, text: str, letter: str = "t") -> str:
        """A line that keeps an expression, and its name."""
        name = f"{letter}{len(self.lines)}_"
        self.lines.append(f"{name} = {text}")
        return name

    def expression(self, node: Node) -> str:
        """The name of a node's value, or the number that it is."""
        if node.op == "number":
            return f"real({node.value!r})"
        if node in self.names or node.op == "argument":
            name = self.names.get(node, node.name)
            self.read.add(name)
            return name
        if node not in self.written:
            self.written[node] = self.assign(self._text(node))
        return self.written[node]

    def function(self, name: str, arguments: Sequence[str], result: str) -> str:
        """The text of a function of these arguments that returns this result."""
        body = [*self.lines, f"return {result}"]
        text = f"def {name}({', '.join(arguments)}):\n" + "".join(f"    {line}\n" for line in body)
        return ast.unparse(_Inlined().visit(ast.parse(text))) + "\n"

    def _text(self, node: Node) -> str:
        args = [self.expression(part) for part in node.args]
        if node.op in ("and", "or"):
            return f"{args[0]} {'&' if node.op == 'and' else '|'} {args[1]}"
        if len(args) == 2 and (node.op in "+-*/" or node.op in COMPARISONS):
            return f"{args[0]} {node.op} {args[1]}"
        if node.op == "neg":
            return f"-{args[0]}"
        if node.op == "where" and all(part.op == "number" for part in node.args[1:]):
            return f"either({', '.join(args)}, {self.expression(_compared(node.args[0]))})"
        return f"{OTHER_NAMES.get(node.op, node.op)}({', '.join(args)})"


def _tuple(parts: Iterable[str]) -> str:
    return f"({', '.join(parts)},)"


def _compared(condition: Node) -> Node:
    """A value that a condition stands on: the two numbers that it chooses from have its type."""
    return next(node for node in ordered([condition]) if node.op != "number" and not node.is_condition)


OTHER_NAMES = {"abs": "absolute", "spike": "heaviside", "not": "opposite"}


class _Inlined(ast.NodeTransformer):
    """Puts what is used once where it is used."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        uses = Counter(each.id for each in ast.walk(node) if isinstance(each, ast.Name) and _is_load(each))
        self.values: dict[str, ast.expr] = {}
        body: list[ast.stmt] = []
        for line in node.body:
            self.visit(line)
            if isinstance(line, ast.Assign) and uses[line.targets[0].id] <= 1:  # type: ignore[attr-defined]
                self.values[line.targets[0].id] = line.value  # type: ignore[attr-defined]
            else:
                body.append(line)
        node.body = body
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.values.get(node.id, node) if _is_load(node) else node


def _is_load(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


def check_names(names: Sequence[str], neuron: str) -> None:
    """Raise where a name of a state or parameter would be mistaken for one of the equation's own."""
    for name in names:
        mistaken = name in RESERVED or name.startswith(("g_", "after_", "_")) or name.endswith("_")
        if mistaken or (name[-2:-1] == "_" and name[-1].isupper()):  # the letters of `kernels/expand.py`
            raise SnnError(f"{neuron}: {name!r} is no name for a state or parameter of a step. Give it another.")


RESERVED = {
    "real", "slope", "where", "exp", "s", "x", "abs", "sqrt", "spike", "detach", "min", "max", *OTHER_NAMES.values(),
    "either", "slope_at", "shape", "power_of_two", "advance", "adjoint", "fired",
    "quotient", "negative", "tl", "spikes", "potentials",  # names in the kernels around a step
}  # fmt: skip
