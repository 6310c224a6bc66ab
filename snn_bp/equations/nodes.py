"""A recorded step: values, and the operations that made them."""

from collections.abc import Iterable
from dataclasses import dataclass

COMPARISONS = (">", ">=", "<", "<=", "==", "!=")


@dataclass(frozen=True, eq=False)
class Node:
    """One value of a step: an argument, a number, or an operation on other values.

    `op` is "argument", "number", one of `+ - * /`, "neg", "abs", "sqrt", "exp", "detach", "spike", "where", a
    comparison, or "and", "or", "not" of comparisons.
    """

    op: str
    args: tuple["Node", ...] = ()
    name: str = ""  # an argument's; what the step calls another value, where it has a name for it
    value: float = 0.0  # a number's

    @property
    def is_condition(self) -> bool:
        """Whether this is true or false."""
        return self.op in COMPARISONS or self.op in ("and", "or", "not")


def ordered(outputs: Iterable[Node]) -> list[Node]:
    """All nodes that the outputs stand on, each behind those that it stands on."""
    order: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node in order:
            return
        for part in node.args:
            visit(part)
        order[node] = None

    for node in outputs:
        visit(node)
    return list(order)
