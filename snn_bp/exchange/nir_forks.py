"""Branches in NIR: what forks, is added up and put side by side, as edges between nodes, and read back as joints.

Several edges into a node add up. So a signal is a sum of nodes: what leads to one node, or to several. A branch without
layers adds what it starts from. Outputs side by side are a sum too: each passes a node of weights 0 and 1 that moves
it to its place among all neurons or channels, which is exact, and which readers know.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple, TypeAlias

import nir
import numpy as np
from torch import nn

from snn_bp.errors import SnnError
from snn_bp.exchange.nir_node import NEURONS, Node
from snn_bp.kernels.around import is_untouched
from snn_bp.model.joints import COMBINES
from snn_bp.model.layers import Shape
from snn_bp.model.modules import Joint

Signal: TypeAlias = tuple[str, ...]  # the nodes that are added up, in the order in which they are
MAX_LOOKED_AT = 300_000  # signals, until it is found where branches fork: files of others may be any graph
DEEPEST = 50  # levels of joints


class Branches(NamedTuple):
    """A joint of a file: rows of nodes and joints that start from one signal, and how they are joined."""

    start: Signal
    rows: "list[Row]"
    combine: str
    depth: int  # levels of joints, itself one
    moves: Signal  # the nodes that put the rows side by side, one for each


Row: TypeAlias = list[str | Branches]


def check_joint(layer: nn.Module) -> str:
    """How a joint combines, by its name; raises where edges cannot."""
    kind = getattr(layer, "kind", None)
    same = getattr(layer.forward, "__func__", None) is Joint.forward and is_untouched(layer)
    exact = same and layer.combine is COMBINES.get(kind or "")
    if exact and kind in ("add", "concat"):
        return str(kind)
    if exact:
        raise SnnError(f"multiplies spikes ({kind!r}), which no node of NIR does. Use combine='add'.")
    raise SnnError(
        "is a joint with a combine or forward of its own, and edges of NIR can only add. Known: Residual and Parallel "
        "with combine='add' or 'concat'."
    )


def move(shape: Shape, first: int, total: int) -> nir.NIRNode:
    """The node that puts an output of `shape` at the channels (neurons) from `first` on, of `total`."""
    weight = np.eye(total, shape[0], k=-first, dtype=np.float32)
    space = len(shape) - 1
    if not space:
        return nir.Linear(weight=weight)
    ones = {"stride": 1, "padding": 0, "dilation": 1}
    options: dict[str, Any] = {name: value if space == 1 else (value, value) for name, value in ones.items()}
    options["input_shape"] = shape[1] if space == 1 else tuple(shape[1:])
    kind = nir.Conv1d if space == 1 else nir.Conv2d
    return kind(
        weight=weight.reshape(*weight.shape, *(1,) * space), groups=1, bias=np.zeros(total, np.float32), **options
    )


def tree_of(nodes: dict[str, Node], edges: Sequence[tuple[str, str]]) -> tuple[Row, dict[str, str]]:
    """The nodes from the input on, in rows and branches, and the node through which neurons are recurrent."""
    ends = {kind: [name for name, node in nodes.items() if node.kind == kind] for kind in ("Input", "Output")}
    for kind, names in ends.items():
        if len(names) != 1:
            raise SnnError(f"it should have one {kind}, found {len(names)}.")
    into: dict[str, list[str]] = {name: [] for name in nodes}
    out: dict[str, list[str]] = {name: [] for name in nodes}
    for start, end in edges:
        out[start].append(end)
        into[end].append(start)
    loops = _loops(nodes, into, out)
    (first,), (last,) = ends["Input"], ends["Output"]
    try:
        order = {name: at for at, name in enumerate(TopologicalSorter(into).static_order())}
    except CycleError as cause:
        raise SnnError(f"its nodes {cause.args[1]} close a cycle that is no recurrence of neurons.") from None
    used = _connected(into, last) & _connected(out, first)
    left = set(nodes) - used - set(loops.values())
    if left:
        raise nodes[min(left)].refuse("no way leads from the input over it to the output.")
    tree = _Tree(nodes, {name: tuple(starts) for name, starts in into.items()}, order)
    row = tree.row((first,), (last,))
    assert row is not None, "every node lies between input and output, and every sum has a fork"
    return row[:-1], loops


def _loops(nodes: dict[str, Node], into: dict[str, list[str]], out: dict[str, list[str]]) -> dict[str, str]:
    """The weights that lead neurons back to themselves, taken out of the edges."""
    loops: dict[str, str] = {}
    for name, node in nodes.items():
        if node.kind in ("Linear", "Affine") and len(out[name]) == 1 and out[name] == into[name]:
            neurons = out[name][0]
            if nodes[neurons].kind not in NEURONS or neurons in loops:
                raise node.refuse(f"it feeds {neurons!r} back, which is no neuron or has a recurrence already.")
            loops[neurons] = name
            out[neurons].remove(name)
            into[neurons].remove(name)
    return loops


def _connected(edges: dict[str, list[str]], start: str) -> set[str]:
    found, open_names = {start}, [start]
    while open_names:
        for name in edges[open_names.pop()]:
            if name not in found:
                found.add(name)
                open_names.append(name)
    return found


class _Tree:
    """Where signals fork and are added again, found from the output back."""

    def __init__(self, nodes: dict[str, Node], into: dict[str, Signal], order: dict[str, int]) -> None:
        self.nodes, self.into, self.order = nodes, into, order
        self.forks: dict[Signal, Branches | None] = {}
        self.looked_at = 0
        for name in order:  # the first ones first, so that none asks for many others
            if len(into[name]) > 1 and self._fork(into[name]) is None:
                listed = ", ".join(map(repr, into[name][:6]))
                raise nodes[name].refuse(
                    f"it adds up {listed}, whose branches do not all start from one signal, nested as Residual and "
                    "Parallel are: snn_bp reads no other graphs. replay_nir(path, x) runs it as it is."
                )

    def row(self, start: Signal, end: Signal) -> Row | None:
        """What leads from one signal to another; None where it does not start there."""
        found: Row = []
        while set(end) != set(start):
            behind = self._one_back(end, found)
            if not behind:
                return None
            end = behind
        return found[::-1]

    def _one_back(self, end: Signal, passed: Row) -> Signal:
        """The signal behind the node or joint that gives this one, which `passed` takes; none behind the input."""
        self.looked_at += 1
        if self.looked_at > MAX_LOOKED_AT:
            raise SnnError("its branches are too many to find out where they start.")
        if len(end) == 1:
            passed.append(end[0])
            return self.into[end[0]]
        fork = self._fork(end)
        if fork is None:
            return ()
        passed.append(fork)
        return fork.start

    def _behind(self, end: Signal) -> dict[frozenset[str], Signal]:
        """Every signal that this one comes from, itself among them."""
        found: dict[frozenset[str], Signal] = {}
        while end:
            found[frozenset(end)] = end
            end = self._one_back(end, [])
        return found

    def _fork(self, end: Signal) -> Branches | None:
        """The joint that gives a sum, from the latest signal at which all its branches start; None without one."""
        if end not in self.forks:
            self.forks[end] = self._found_fork(end)
        return self.forks[end]

    def _found_fork(self, end: Signal) -> Branches | None:
        behind = {name: self._behind((name,)) for name in end}
        counts = Counter(key for signals in behind.values() for key in signals)
        whole = set(end)
        added = {key for key in counts if key < whole}  # which the sum takes too
        starts = [key for key, count in counts.items() if count + len(key) * (key in added) >= len(end)]
        for key in sorted(starts, key=lambda key: -max(map(self.order.__getitem__, key))):
            ways = [name for name in end if not (key in added and name in key)]
            if not all(key in behind[name] for name in ways):
                continue
            start = tuple(name for name in end if name in key) if key in added else behind[ways[0]][key]
            if ends := self._parted(start, end, ways):
                return self._joined(start, ends)
        return None

    def _parted(self, start: Signal, end: Signal, ways: list[str]) -> list[Signal] | None:
        """The sum in parts that share no node behind `start`, itself where it is added too; None where it is one."""
        parts: list[tuple[Signal, set[str]]] = []
        for name in ways:
            members, nodes = (name,), set(_names(self.row(start, (name,)) or ()))
            for part in [part for part in parts if part[1] & nodes]:
                parts.remove(part)
                members, nodes = (*members, *part[0]), nodes | part[1]
            parts.append((tuple(sorted(members, key=end.index)), nodes))
        ends = [members for members, _ in parts] + [start] * (len(ways) < len(end))
        return sorted(ends, key=lambda members: end.index(members[0])) if len(ends) > 1 else None

    def _joined(self, start: Signal, ends: list[Signal]) -> Branches | None:
        """Rows that are added; those whose ends are moved side by side as one of them."""
        rows: list[Row | None] = []
        at = 0
        while at < len(ends):
            behind = self._behind_side_by_side(ends, at)
            if behind > at:
                moves = tuple(name for (name,) in ends[at:behind])
                whole = self._joint(start, [self.row(start, self.into[name]) for name in moves], "concat", moves)
                rows.append(None if whole is None else [whole])
            else:
                rows.append(self.row(start, ends[at]))
            at = max(at + 1, behind)
        if len(rows) == 1:
            joint = rows[0][0] if rows[0] else None
            return joint if isinstance(joint, Branches) else None
        return self._joint(start, rows, "add")

    def _joint(self, start: Signal, rows: list[Row | None], combine: str, moves: Signal = ()) -> Branches | None:
        whole = [row for row in rows if row is not None]
        if len(whole) < len(rows):
            return None
        inner = [each.depth for row in whole for each in row if isinstance(each, Branches)]
        depth = 1 + max(inner, default=0)
        if depth > DEEPEST:
            raise SnnError(f"its branches are nested too deep, {DEEPEST} levels are read.")
        return Branches(start, whole, combine, depth, moves)

    def _behind_side_by_side(self, ends: list[Signal], first: int) -> int:
        """Behind which of the ends, from the `first` on, all channels are filled in order; `first` where none are."""
        filled, total = 0, 0
        for at in range(first, len(ends)):
            position = _position(self.nodes[ends[at][0]]) if len(ends[at]) == 1 else None
            if position is None or position[0] != filled or (at > first and position[2] != total):
                return first
            filled, total = filled + position[1], position[2]
            if filled == total:
                return at + 1 if at > first else first
        return first


def _position(node: Node) -> tuple[int, int, int] | None:
    """From which channel on, how many and of how many, a node of weights 0 and 1 moves its input to."""
    weight = node.fields.get("weight")
    if node.kind not in ("Linear", "Conv1d", "Conv2d") or not isinstance(weight, np.ndarray) or weight.ndim < 2:
        return None
    total, count = weight.shape[:2]
    if weight.size != total * count or not weight.size or (node.kind != "Linear" and not _is_plain(node)):
        return None
    weight = weight.reshape(total, count)
    first = int(weight[:, 0].argmax())
    return (first, count, total) if np.array_equal(weight, np.eye(total, count, k=-first)) else None


def _is_plain(node: Node) -> bool:
    """Whether a convolution has no bias, and a window of one value at each step."""
    values = {name: node.fields.get(name) for name in ("bias", "padding", "stride", "dilation", "groups")}
    if not all(isinstance(value, np.ndarray) for value in values.values()):
        return False
    zero = not any(np.any(values[name]) for name in ("bias", "padding"))  # type: ignore[arg-type]
    return zero and all(bool(np.all(values[name] == 1)) for name in ("stride", "dilation", "groups"))


def _names(row: Iterable["str | Branches"]) -> Iterator[str]:
    """Every node of a row, those within its branches too."""
    for each in row:
        if isinstance(each, str):
            yield each
            continue
        yield from each.moves
        for inner in each.rows:
            yield from _names(inner)
