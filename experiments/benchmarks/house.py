"""How the package is built, in numbers: entries, lines, and how often it asks a layer for its class.

    python experiments/benchmarks/house.py [CHECKOUT ...]

Prints for each checkout (this one by default) the entries at the top of the package, its lines in all, of the median
and of the longest file, and the lines that ask for the class of a layer, a neuron or a module of a network: by
`isinstance`, and by a comparison of `type(...)`.
"""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

NAMED = {  # what layers, neurons and modules are called, with the tuples and unions that stand for several
    *("Neurons", "RecurrentNeurons", "Delays", "DropoutOverTime", "SumPool", "Joint", "Layer", "Neuron", "KINDS"),
    *("Dense", "Conv", "Pool", "Flatten", "Dropout", "Delay", "BatchNorm", "Spiking", "Recurrent"),
    *("IF", "LIF", "CubaLIF", "ALIF", "LI", "NEURONS", "SPIKING"),
    *("Norm", "NORMS", "Synapse", "KNOWN", "PARTS", "FORWARDS"),
    *("Linear", "Conv1d", "Conv2d", "MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d"),
}  # fmt: skip


def main() -> None:
    """Print the numbers of each checkout."""
    for checkout in [Path(argument) for argument in sys.argv[1:]] or [Path(__file__).parents[2]]:
        package = checkout / "snn_bp"
        files = sorted(package.rglob("*.py"))
        lines = [len(file.read_text(encoding="utf-8").splitlines()) for file in files]
        entries = {file.relative_to(package).parts[0] for file in files}
        asked: dict[str, set[tuple[Path, int]]] = {"isinstance": set(), "type": set()}
        for file in files:
            for kind, line in class_questions(ast.parse(file.read_text(encoding="utf-8"))):
                asked[kind].add((file, line))
        by_isinstance, by_type = len(asked["isinstance"]), len(asked["type"])
        print(f"{checkout}: {len(entries)} entries, {len(files)} files, {sum(lines)} lines", end=", ")
        print(f"median {statistics.median(lines):.0f}, longest {max(lines)}", end="; ")
        print(f"classes of layers are asked for in {by_isinstance} lines by isinstance, in {by_type} by type")


def class_questions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The lines that ask for a class of `NAMED`, and by what."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            kind, sides = "isinstance", node.args[1:]
        elif isinstance(node, ast.Compare) and "type(" in ast.unparse(node):
            kind, sides = "type", [node.left, *node.comparators]
        else:
            continue
        if any(names(side) & NAMED for side in sides):
            yield kind, node.lineno


def names(node: ast.AST) -> set[str]:
    """Every name and attribute in an expression."""
    return {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node)}


if __name__ == "__main__":
    main()
