"""Kernels are written once for all neurons, and spread out for the states and parameters of one.

In a kernel's source a name that ends in one of these letters stands for one name for each of several:

    _F  all that is carried from step to step: the states, and the spike `s` if the neuron fires
    _Q  the states alone
    _P  the parameters
    _L  the parameters whose gradients are asked for
    _T  what is kept of every step for the backward pass
    _V  the potential, one name

Among a function's arguments and in a tuple on the left they are spread out, in a call where a star says so
(`advance(*state_F[m], x)`); a statement that holds one elsewhere is written once for each. What an upper-case constant
decides (`if SPIKING:`) is decided here, so that no compiler sees the other branch.
"""

import ast
import copy
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snn_bp.equations.derive import Equation, Learned
from snn_bp.errors import SnnError


@dataclass(frozen=True)
class Form:
    """What a kernel is spread out for: an equation, whose parameters are learned, and what is kept of every step."""

    equation: Equation
    learned: Learned = ()
    kept: tuple[str, ...] = ()
    boxed: bool = False  # the surrogate's window is kept, as bits, and says all of its slope

    def spread(self) -> dict[str, tuple[str, ...]]:
        """The names that each letter stands for."""
        equation = self.equation
        letters = {
            "F": equation.full, "Q": equation.states, "P": equation.parameters, "L": self.learned, "T": self.kept,
            "V": (equation.potential,),
        }  # fmt: skip
        return {letter: tuple(map(marked, names)) for letter, names in letters.items()}

    def constants(self) -> dict[str, Any]:
        """The upper-case names that follow from the form."""
        names = ("x", *self.equation.states, "s")
        return {
            "SPIKING": self.equation.spiking,
            "REFIRES": self.equation.refires,
            "BOXED": self.boxed,
            **{f"SAVED_{marked(name)}": name in self.kept for name in names},
        }

    @property
    def traces(self) -> tuple[str, ...]:
        """What is kept but the input, which is there already."""
        return tuple(name for name in self.kept if name != "x")

    def of_learned(self, values: Sequence[Any]) -> list[Any]:
        """Those of one value for each parameter that belong to a parameter whose gradient is asked for."""
        given = dict(zip(self.equation.parameters, values, strict=True))
        return [given[name] for name in self.learned]

    @property
    def word(self) -> str:
        """The form as a word, for the names of what is compiled."""
        return f"{self.equation.key} {','.join(self.learned)} {','.join(self.kept)} {self.boxed}"


def marked(name: str) -> str:
    """A name as it stands in a kernel: no name of the kernel's own ends so, and a parameter may be called `bias`."""
    return name if name in ("s", "x") else f"{name}_"


def expanded(function: Callable, form: Form, constants: Mapping[str, Any]) -> ast.FunctionDef:
    """The definition of `function`, spread out for a form; `constants` are decided beside those of the form."""
    tree = copy.deepcopy(_definition(function.__module__, function.__name__))
    tree.decorator_list, tree.returns = [], None
    known = {**form.constants(), **constants}
    (done,) = _Spread(form.spread(), {name: value for name, value in known.items() if isinstance(value, bool)}).many(
        [tree]
    )
    return ast.fix_missing_locations(done)  # type: ignore[return-value, type-var]


@functools.cache
def _definition(module: str, name: str) -> ast.FunctionDef:
    for node in _module_tree(module).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise SnnError(f"{module} defines no {name}.")


@functools.cache
def _module_tree(module: str) -> ast.Module:
    return ast.parse(module_text(module))


@functools.cache
def module_text(module: str) -> str:
    """The source of a module of ours."""
    return inspect.getsource(importlib.import_module(module))


class _Spread(ast.NodeTransformer):
    def __init__(self, names: dict[str, tuple[str, ...]], constants: dict[str, bool]) -> None:
        self.names, self.constants = names, constants
        self.chosen: dict[str, str] = {}  # the name that a letter stands for just now

    def many(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Statements, each as often as it has to stand."""
        done: list[ast.stmt] = []
        for statement in body:
            for each, chosen in self._each(statement):
                self.chosen, before = chosen, self.chosen
                made = self.visit(each)
                self.chosen = before
                done += made if isinstance(made, list) else [made]
        return done

    def _each(self, node: Any) -> list[tuple[Any, dict[str, str]]]:
        """A copy of a node for each name that its letter stands for, with that choice; the node alone without one."""
        letters = self._letters(node) - self.chosen.keys()
        if not letters:
            return [(node, self.chosen)]
        assert len(letters) == 1, f"{ast.unparse(node)}: two letters at once"
        (letter,) = letters
        return [(copy.deepcopy(node), {**self.chosen, letter: name}) for name in self.names[letter]]

    def _letters(self, node: Any) -> set[str]:
        """The letters in a node, but for those that its parts spread out themselves."""
        if isinstance(node, ast.Name):
            return {node.id[-1]} if self._letter(node.id) else set()
        if isinstance(node, ast.FunctionDef | ast.Starred):
            return set()
        if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Store):
            return set()
        if isinstance(node, ast.For | ast.While):
            return set().union(*(self._letters(part) for part in ([node.iter] if isinstance(node, ast.For) else [])))
        if isinstance(node, ast.If):
            return self._letters(node.test)
        return set().union(*map(self._letters, ast.iter_child_nodes(node)))

    def _letter(self, name: str) -> str:
        letter = name[-1] if len(name) > 2 and name[-2] == "_" else ""
        return letter if letter in self.names else ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        arguments = []
        for argument in node.args.args:
            letter = self._letter(argument.arg)
            names = [argument.arg[:-1] + name for name in self.names[letter]] if letter else [argument.arg]
            arguments += [ast.arg(name) for name in names]
        node.args.args = arguments
        documented = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
        node.body = self.many(node.body[1:] if documented else node.body) or [ast.Pass()]
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        letter = self._letter(node.id)
        if letter:
            name = node.id[:-1] + self.chosen[letter]
            node = ast.copy_location(ast.Name(name, node.ctx), node)
        if node.id in self.constants and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Constant(self.constants[node.id]), node)
        return node

    def visit_Tuple(self, node: ast.Tuple) -> ast.Tuple:
        node.elts = self._spread_out(node.elts, starred=not isinstance(node.ctx, ast.Store))
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        node.func = self.visit(node.func)
        node.args = self._spread_out(node.args, starred=True)
        node.keywords = [self.visit(keyword) for keyword in node.keywords]
        return node

    def _spread_out(self, parts: list[ast.expr], *, starred: bool) -> list[ast.expr]:
        out = []
        for part in parts:
            if starred and not isinstance(part, ast.Starred):
                out.append(self.visit(part))
                continue
            for each, chosen in self._each(part.value if isinstance(part, ast.Starred) else part):
                self.chosen, before = chosen, self.chosen
                out.append(self.visit(each))
                self.chosen = before
        return out

    def visit_For(self, node: ast.For) -> ast.For:
        node.target, node.iter = self.visit(node.target), self.visit(node.iter)
        node.body = self.many(node.body) or [ast.Pass()]
        return node

    def visit_While(self, node: ast.While) -> ast.While:
        node.test = self.visit(node.test)
        node.body = self.many(node.body) or [ast.Pass()]
        return node

    def visit_If(self, node: ast.If) -> Any:
        test = self.visit(node.test)
        if isinstance(test, ast.Constant):
            return self.many(node.body if test.value else node.orelse)
        node.test, node.body, node.orelse = test, self.many(node.body) or [ast.Pass()], self.many(node.orelse)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        test = self.visit(node.test)
        if isinstance(test, ast.Constant):
            return self.visit(node.body if test.value else node.orelse)
        node.test, node.body, node.orelse = test, self.visit(node.body), self.visit(node.orelse)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        decides = isinstance(node.op, ast.Or)  # the value that ends it
        left: list[ast.expr] = []
        for value in map(self.visit, node.values):
            if not isinstance(value, ast.Constant):
                left.append(value)
            elif bool(value.value) == decides:
                left.append(value)
                break
        if not left:
            return ast.Constant(not decides)
        return left[0] if len(left) == 1 else ast.copy_location(ast.BoolOp(node.op, left), node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        node.operand = self.visit(node.operand)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return ast.Constant(not node.operand.value)
        return node
