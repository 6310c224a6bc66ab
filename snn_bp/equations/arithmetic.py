"""The arithmetic a step may be written in: called on symbols, it records what is computed instead of computing it.

A step is a function in plain scalar arithmetic. `record` calls it once with a symbol for each of its arguments; each
operation on a symbol becomes a `Node`. What cannot be recorded is refused there, with the line of the step and what to
write in its place.
"""

import builtins
import math
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from snn_bp.equations.nodes import Node, ordered
from snn_bp.equations.refusals import STEPS, line_of, refuse
from snn_bp.errors import SnnError, is_number, shown

HIGHEST_POWER = 16


class Symbol:
    """A value of a step while it is recorded."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node

    def __add__(self, other: Any) -> Any:
        return _binary("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return _binary("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return _binary("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _binary("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return _binary("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _binary("*", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _binary("/", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _binary("/", other, self)

    def __neg__(self) -> "Symbol":
        return _made("neg", _number(self))

    def __pos__(self) -> "Symbol":
        return self

    def __abs__(self) -> "Symbol":
        return _made("abs", _number(self))

    def __pow__(self, exponent: Any) -> Any:
        """A product for a whole exponent, a root for a half; other powers differ from one machine to another."""
        if isinstance(exponent, Symbol):
            refuse("a power that is no plain number", "exp(exponent * c), with c the logarithm of a base that is one")
        whole = isinstance(exponent, int | float) and float(exponent).is_integer()
        if isinstance(exponent, int | float) and abs(exponent) == 0.5:
            root = _made("sqrt", _number(self))
            return root if exponent > 0 else 1 / root
        if not whole or not 1 <= abs(int(exponent)) <= HIGHEST_POWER:
            refuse(
                f"a power of {shown(exponent)}",
                f"an integer up to {HIGHEST_POWER}, 0.5 or -0.5 as exponent; others by exp",
            )
        product, factor, left = None, Symbol(_number(self)), abs(int(exponent))
        while left:
            if left & 1:
                product = factor if product is None else product * factor
            factor, left = factor * factor if left > 1 else factor, left >> 1
        return product if exponent > 0 else 1 / product  # type: ignore[operator]

    def __rpow__(self, base: Any) -> Any:
        refuse(f"{shown(base)} to the power of a value", "exp(value * c), with c the logarithm of the base as a number")

    def __gt__(self, other: Any) -> "Symbol":
        return _made(">", _number(self), _number(other))

    def __ge__(self, other: Any) -> "Symbol":
        return _made(">=", _number(self), _number(other))

    def __lt__(self, other: Any) -> "Symbol":
        return _made("<", _number(self), _number(other))

    def __le__(self, other: Any) -> "Symbol":
        return _made("<=", _number(self), _number(other))

    def __eq__(self, other: object) -> Any:
        return _made("==", _number(self), _number(other))

    def __ne__(self, other: object) -> Any:
        return _made("!=", _number(self), _number(other))

    __hash__ = object.__hash__

    def __and__(self, other: Any) -> "Symbol":
        return _made("and", _condition(self), _condition(other))

    def __or__(self, other: Any) -> "Symbol":
        return _made("or", _condition(self), _condition(other))

    __rand__, __ror__ = __and__, __or__

    def __invert__(self) -> "Symbol":
        return _made("not", _condition(self))

    def __bool__(self) -> bool:
        refuse("`if`, `and`, `or`, `not` or a chain of comparisons on a value", "where(condition, a, b), and & | ~")

    def __float__(self) -> float:
        refuse("a function that needs a number, as math.exp", KNOWN)

    __int__ = __index__ = __complex__ = __round__ = __floor__ = __ceil__ = __trunc__ = __float__

    def __floordiv__(self, other: Any) -> Any:
        refuse("`//`", "/, or where(value >= 1, 1, 0) for each whole step")

    def __mod__(self, other: Any) -> Any:
        refuse("`%`", "where(value >= period, value - period, value)")

    __rfloordiv__, __rmod__, __divmod__, __rdivmod__ = __floordiv__, __mod__, __mod__, __mod__

    def __xor__(self, other: Any) -> Any:
        refuse("`^`, `<<` or `>>`", "** for a power, & | ~ for conditions")

    __rxor__ = __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __xor__

    def __matmul__(self, other: Any) -> Any:
        refuse("`@`", "a layer of weights around the neuron: a step is the arithmetic of one neuron")

    __rmatmul__ = __matmul__

    def __getitem__(self, index: Any) -> Any:
        refuse("an index", "one name for each number: a step is the arithmetic of one neuron")

    def __iter__(self) -> Any:
        refuse("a loop over a value", "one name for each number: a step is the arithmetic of one neuron")

    def __len__(self) -> int:
        refuse("a length", "one name for each number: a step is the arithmetic of one neuron")

    def __call__(self, *_: Any) -> Any:
        refuse("a value that is called", KNOWN)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        refuse(f"`.{name}` of a value", KNOWN)

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **_: Any) -> Any:
        """Arithmetic with a number of NumPy's."""
        sign = UFUNCS.get(function.__name__)
        if sign is None or method != "__call__" or len(inputs) != 2:
            refuse(f"NumPy's {function.__name__}", KNOWN)
        return _binary(sign, *inputs)

    def __array__(self, *_: Any, **__: Any) -> Any:
        refuse("a function of NumPy's", KNOWN)

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any, **__: Any) -> Any:
        refuse(f"torch's {getattr(function, '__name__', function)}", KNOWN)


UFUNCS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "true_divide": "/"}
KNOWN = "+ - * / **, abs, min, max, exp, where, detach, spike and comparisons"


class Absent:
    """A part of a step that is not there: 0 times anything is not there, and added to something it changes nothing."""

    def __mul__(self, other: Any) -> "Absent":
        return self

    def __add__(self, other: Any) -> Any:
        return other

    __rmul__, __radd__ = __mul__, __add__


def exp(x: Any) -> Any:
    """e to the power of a value `x`: the same bits from each backend. For the steps of `neuron` and `surrogate`.

    >>> exp(0.0)
    1.0
    """
    if isinstance(x, Symbol):
        return _made("exp", _number(x))
    try:
        return math.exp(_plain(x, "exp"))
    except OverflowError:
        refuse(f"exp({x})", "a smaller number: it is more than a double holds")


def where(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds, else `no`; gradients flow to the one that was taken.

    Both are computed: where the other one is not finite the gradient is NaN. Bound its argument, as in exp(min(x, 5)).
    `condition` is a comparison of values of a step, or several joined by `& | ~`.

    >>> @neuron
    ... def Rectified(v, x):
    ...     v = where(v + x > 0, v + x, 0)
    ...     return v, v
    >>> simulate(Rectified(), torch.tensor([1.0, -3.0, 2.0]).view(3, 1, 1))[0].flatten().tolist()
    [1.0, 0.0, 2.0]
    """
    if not isinstance(condition, Symbol):
        taken = yes if _plain(condition, "where") else no
        return taken if isinstance(taken, Symbol | Absent) else _plain(taken, "where")
    return _made("where", _condition(condition), _number(yes), _number(no))


def detach(x: Any) -> Any:
    """The value `x`, as a constant to the gradient: in a step, `v * (1 - detach(s))` resets and lets no error through
    it.

    >>> detach(3.0)
    3.0
    """
    if isinstance(x, Symbol):
        return _made("detach", _number(x))
    return x if isinstance(x, Absent) else _plain(x, "detach")


def spike(u: Any, scale: Any = 1.0) -> Any:
    """1 where `u` is above 0, else 0; backward by the surrogate, whose slope counts per unit of `scale` (1.0).

    `u` is the distance from threshold, `scale` the threshold (as in `spike(v - threshold, threshold)`), or a potential
    that is as large as the threshold's distance from rest.

    >>> spike(0.3), spike(0.0)
    (1.0, 0.0)
    """
    if not isinstance(u, Symbol):
        if not isinstance(scale, Symbol):
            _plain(scale, "spike")
        return 1.0 if _plain(u, "spike") > 0 else 0.0
    return _made("spike", _number(u), _number(scale))


def _plain(value: Any, name: str) -> Any:
    """A number, or a truth value, which the arithmetic of a step takes outside one; tensors it does not take."""
    if not is_number(value) and type(value).__name__ not in ("bool", "bool_"):  # NumPy's too
        other = {"detach": "tensor.detach()", "spike": "simulate(neuron, x)"}.get(name, f"torch.{name}")
        refuse(f"`{name}` of {shown(value)}", f"{name} of a number or of a value of a step; for a tensor, {other}")
    return value


def minimum(*values: Any) -> Any:
    """The smallest of some values; of equal ones the first."""
    return _chosen(builtins.min, "<", values)


def maximum(*values: Any) -> Any:
    """The largest of some values; of equal ones the first."""
    return _chosen(builtins.max, ">", values)


def _chosen(plain: Callable, comparison: str, values: Sequence[Any]) -> Any:
    if not any(isinstance(value, Symbol) for value in values):
        return plain(*values)
    first, *others = values
    for other in others:
        condition = Symbol(Node(comparison, (_number(other), _number(first))))
        first = where(condition, other, first)
    return first


IN_A_STEP = {"exp": exp, "where": where, "detach": detach, "spike": spike, "min": minimum, "max": maximum}


def record(
    step: types.FunctionType, arguments: Iterable[str], constants: Mapping[str, Any], renamed: Mapping[str, str] = {}
) -> tuple[Node, ...]:
    """What a step returns, recorded: `arguments` become symbols, `constants` are passed as they are.

    `renamed` says what a recorded argument is called where that is not its name in the step.

    Within the step `exp`, `where`, `detach`, `spike`, `min` and `max` mean the functions here, whatever the file they
    stand in says of these names.
    """
    taken = types.FunctionType(
        step.__code__, {**step.__globals__, **IN_A_STEP}, step.__name__, step.__defaults__, step.__closure__
    )
    taken.__kwdefaults__ = step.__kwdefaults__
    symbols = {name: Symbol(Node("argument", name=renamed.get(name, name))) for name in arguments}
    STEPS.append(step.__code__)
    try:
        with _watched(step.__code__):
            found = _nodes(step, taken(**symbols, **constants))
        if _shape(found) != _shape(_nodes(step, taken(**symbols, **constants))):
            raise SnnError(
                f"{step.__name__}: called twice, its step does not do the same. It stands once for all neurons and "
                "steps: no random numbers, no counting. Noise is part of the input `x`."
            )
        return found
    except SnnError:
        raise
    except Exception as cause:
        raise SnnError(f"{step.__name__}{line_of(cause.__traceback__)}: {type(cause).__name__}: {cause}.") from None
    finally:
        STEPS.pop()


def _nodes(step: types.FunctionType, out: Any) -> tuple[Node, ...]:
    """What a step returned."""
    if out is None:
        raise SnnError(f"{step.__name__}: its step returns nothing. End it with its new states and what it gives out.")
    if isinstance(out, list):
        raise SnnError(f"{step.__name__}: its step returns a list. Write return v, spike(v - threshold, threshold).")
    return tuple(_number(value) for value in (out if isinstance(out, tuple) else (out,)))


def _shape(outputs: Iterable[Node]) -> list[tuple]:
    """All that two recordings of one step have in common."""
    outputs = list(outputs)
    index = {node: n for n, node in enumerate(ordered(outputs))}
    rows = [(node.op, node.value, *(index[part] for part in node.args)) for node in index]
    return [*rows, tuple(index[node] for node in outputs)]


@contextmanager
def _watched(step: types.CodeType) -> Iterator[None]:
    """Within the block, values of the step get the names that it has for them when it returns: formulas show these."""

    def watch(frame: types.FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is step:
            for name, value in frame.f_locals.items():
                if isinstance(value, Symbol) and not value.node.name:
                    object.__setattr__(value.node, "name", name)

    if sys.getprofile() is not None:  # somebody measures the process
        yield
        return
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


def _made(op: str, *args: Node) -> Symbol:
    return Symbol(Node(op, args))


def _binary(op: str, left: Any, right: Any) -> Any:
    if isinstance(left, Absent) or isinstance(right, Absent):
        return NotImplemented if op in "+*" else refuse(f"`{op}` with a part that may be absent", "+ and * with it")
    return _made(op, _number(left), _number(right))


def _number(value: Any) -> Node:
    """The node of a value that stands for a number; a condition counts 1 or 0."""
    if isinstance(value, Symbol):
        one, zero = Node("number", value=1.0), Node("number", value=0.0)
        return Node("where", (value.node, one, zero)) if value.node.is_condition else value.node
    if isinstance(value, bool) or not isinstance(value, int | float):
        try:
            value = float(value) if not isinstance(value, str | bytes) else refuse(f"{shown(value)}", "a number")
        except (TypeError, ValueError, RuntimeError):
            refuse(f"{shown(value)} among its values", "a number, or a value of the neuron")
    if not math.isfinite(value):
        refuse(f"{value}", "a finite number")
    return Node("number", value=float(value))


def _condition(value: Any) -> Node:
    if not (isinstance(value, Symbol) and value.node.is_condition):
        refuse("a condition that is a number", "a comparison, as in where(v > 0, a, b)")
    return value.node
