"""The one parse of a model: blocks, each of neurons and all that lies between them and the neurons before, and joints.

Every consumer reads this: kernels' dispatch, chip, exporters, online rules, search, plots, the doctor. The role of a
layer says what it is for; whether it computes exactly what its class does is `model/exact.py`'s question.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.errors import SnnError
from snn_bp.model.constrained import ConstrainedLinear
from snn_bp.model.followed import take_in
from snn_bp.model.modules import Delays, DropoutOverTime, Joint, Neurons, Shape, SumPool
from snn_bp.model.own_module import OverTime, Stateful
from snn_bp.model.temporal import CausalConv, DelayedLinear
from snn_bp.neurons import is_spiking

Role: TypeAlias = Literal[
    "weights", "norm", "pool", "flatten", "delay", "dropout", "neurons", "joint", "over time", "stateful", "other"
]
Norm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d
Path: TypeAlias = tuple[int, ...]  # the index of a layer; within a joint: its index, the branch's, the layer's there
ROLES: dict[type[nn.Module], Role] = {
    nn.Linear: "weights", ConstrainedLinear: "weights", nn.Conv1d: "weights", nn.Conv2d: "weights",
    nn.BatchNorm1d: "norm", nn.BatchNorm2d: "norm",
    SumPool: "pool", nn.AvgPool1d: "pool", nn.AvgPool2d: "pool", nn.MaxPool1d: "pool", nn.MaxPool2d: "pool",
    nn.Flatten: "flatten", Delays: "delay", DropoutOverTime: "dropout", Neurons: "neurons", Joint: "joint",
    OverTime: "over time", Stateful: "stateful", CausalConv: "stateful", DelayedLinear: "stateful",
}  # fmt: skip
WITH_STATE: tuple[Role, ...] = ("neurons", "stateful")  # a `State` each in that of a network, or a `Carried`


class Layers(Protocol):
    """What the parse reads of a `Network`."""

    layers: nn.ModuleList
    shapes: list[Shape]  # shape of one step behind each layer
    input_shape: Shape

    def name(self, where: int | Path) -> str:
        """What a message calls the layer at an index or path."""
        ...


def role_of(layer: nn.Module) -> Role:
    """What a layer is for; a subclass has the role of its base, a class that is not known is "other"."""
    kind = type(layer)
    if kind in ROLES:
        return ROLES[kind]
    known: list[Role] = [ROLES[base] for base in kind.__mro__ if base in ROLES]
    return known[0] if known else "other"


class LayerAt(NamedTuple):
    """One layer of a model, at its index in its row, between the shapes of one step before and behind it."""

    index: int
    layer: nn.Module
    role: Role
    before: Shape
    after: Shape
    path: Path

    @property
    def branches(self) -> list[list["LayerAt"]]:
        """The rows of layers within a joint; none of any other layer."""
        if self.role != "joint":
            return []
        joint: Joint = self.layer  # type: ignore[assignment]
        rows = enumerate(zip(joint.branches, joint.shapes, strict=True))
        return [row_of(layers, shapes, self.before, (*self.path, n)) for n, (layers, shapes) in rows]  # type: ignore[arg-type]


class Block(NamedTuple):
    """Neurons and all that lies between them and the neurons before; layers behind the last neurons have none."""

    parts: tuple[LayerAt, ...]

    @property
    def neurons(self) -> Neurons | None:
        """The neurons that end the block."""
        last = self.parts[-1]
        return last.layer if last.role == "neurons" else None  # type: ignore[return-value]

    @property
    def indexes(self) -> range:
        """Where its layers stand in the model."""
        return range(self.parts[0].index, self.parts[-1].index + 1)

    @property
    def weights(self) -> LayerAt | None:
        """The last weighted sum of the block."""
        return next(reversed(self.of("weights")), None)

    @property
    def norm(self) -> LayerAt | None:
        """The norm behind the last weighted sum."""
        return next((part for part in self.behind if part.role == "norm"), None)

    @property
    def front(self) -> tuple[LayerAt, ...]:
        """The layers before the last weighted sum; of a block without one, all but its neurons."""
        first = len(self.parts) - (self.neurons is not None) if self.weights is None else self.parts.index(self.weights)
        return self.parts[:first]

    @property
    def behind(self) -> tuple[LayerAt, ...]:
        """The layers between the last weighted sum and the neurons."""
        skipped = len(self.front) + (self.weights is not None)
        return tuple(part for part in self.parts[skipped:] if part.role != "neurons")

    def of(self, *roles: Role) -> tuple[LayerAt, ...]:
        """The layers that have one of these roles, in order."""
        return tuple(part for part in self.parts if part.role in roles)


class Fork(NamedTuple):
    """A joint: branches that see one input, each a row of blocks and joints, and what is made of their outputs."""

    joint: LayerAt
    branches: tuple[tuple["Block | Fork", ...], ...]


def row_of(layers: Iterable[nn.Module], shapes: list[Shape], before: Shape, path: Path = ()) -> list[LayerAt]:
    """The layers of a row one by one, with their roles and the shapes they were built with, `()` of added ones."""
    row: list[LayerAt] = []
    for index, layer in enumerate(layers):
        after = shapes[index] if index < len(shapes) else ()
        row.append(LayerAt(index, layer, role_of(layer), before, after, (*path, index)))
        before = after
    return row


def parts_of(network: Layers) -> list[LayerAt]:
    """The layers of a network one by one, with their roles and shapes; a joint is one of them."""
    return row_of(network.layers, network.shapes, network.input_shape)


def every_part(row: Iterable[LayerAt]) -> Iterator[LayerAt]:
    """The layers of a row in the order in which they compute, those within a joint before it."""
    for part in row:
        for branch in part.branches:
            yield from every_part(branch)
        yield part


def module_at(path: Path) -> str:
    """How one writes the module at a path: `network.layers[2].branches[0][1]`."""
    ends = zip(path[1::2], path[2::2], strict=True)
    return f"network.layers[{path[0]}]" + "".join(f".branches[{branch}][{index}]" for branch, index in ends)


def own_weights(at: LayerAt) -> dict[str, nn.Parameter]:
    """The parameters of a layer by their names in it; of a joint those that lie in none of its branches."""
    named = at.layer.named_parameters()
    return {name: weight for name, weight in named if at.role != "joint" or not name.startswith("branches.")}


def joined(network: Layers, joint: LayerAt, x: Tensor, run: Callable[[list[LayerAt], Tensor], Tensor]) -> Tensor:
    """The output of a joint on `x` `[time, batch, ...]`, whose branches run one after the other, each once."""
    branches = iter(enumerate(joint.branches))

    def next_branch(n: int, x: Tensor) -> Tensor:
        index, branch = next(branches, (None, []))
        if index != n:
            raise SnnError(f"{network.name(joint.path)}: its forward should run each branch once and in order.")
        return run(branch, x) if branch else x

    out = joint.layer(x, next_branch)
    if next(branches, None) is not None:
        raise SnnError(f"{network.name(joint.path)}: its forward should run each branch once and in order.")
    return out


def rated_neurons(row: Sequence[LayerAt]) -> list[LayerAt]:
    """The layers of neurons in order, without readouts side by side: those that end the branches of a last joint."""
    readouts = {part.path for part in _ends(row[-1]) if not is_spiking(part.layer.neuron)}  # type: ignore[arg-type]
    return [part for part in every_part(row) if part.role == "neurons" and part.path not in readouts]


def _ends(part: LayerAt) -> Iterator[LayerAt]:
    """The neurons that end the branches of a joint, or the joints that do."""
    for branch in part.branches:
        if branch and branch[-1].role == "neurons":
            yield branch[-1]
        elif branch:
            yield from _ends(branch[-1])


def tree(row: Iterable[LayerAt]) -> tuple[Block | Fork, ...]:
    """The blocks and joints of a row, in order."""
    found: list[Block | Fork] = []
    open_parts: list[LayerAt] = []
    for part in row:
        if part.role == "joint":
            found += [Block(tuple(open_parts))] * bool(open_parts)
            found.append(Fork(part, tuple(map(tree, part.branches))))
            open_parts = []
            continue
        open_parts.append(part)
        if part.role == "neurons":
            found.append(Block(tuple(open_parts)))
            open_parts = []
    return (*found, *[Block(tuple(open_parts))] * bool(open_parts))


def every_block(row: Iterable[LayerAt]) -> Iterator[Block]:
    """The blocks of a row in the order in which they compute, those within joints too; a joint is in none."""
    for each in tree(row):
        if isinstance(each, Fork):
            for branch in each.joint.branches:
                yield from every_block(branch)
        else:
            yield each


def blocks(network: Layers, asker: str) -> list[Block]:
    """The blocks of a network that is one row, in order; raises for `asker` where it has a joint."""
    found = []
    for each in tree(parts_of(network)):
        if isinstance(each, Fork):
            name = network.name(each.joint.path)
            raise SnnError(f"{asker}: {name} joins branches, and only layers in a row are known here. Leave it out.")
        found.append(each)
    return found


def scale_and_shift(
    norm: nn.Module, mean: Tensor | None = None, variance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A batch norm as `scale * x + shift` for each channel: by its running statistics, or by those that are given."""
    mean = norm.running_mean if mean is None else mean  # type: ignore[assignment]
    variance = norm.running_var if variance is None else variance  # type: ignore[assignment]
    assert mean is not None and variance is not None
    scale = norm.weight * (variance + norm.eps).rsqrt()  # type: ignore[operator]
    return scale, norm.bias - mean * scale  # type: ignore[operator]


def fold(norm: nn.Module, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one weighted sum that equals a weighted sum and the norm behind it in evaluation."""
    running: Tensor = norm.running_mean  # type: ignore[assignment]
    scale, shift = scale_and_shift(norm, running if bias is None else running - bias)
    return weight * scale.view(-1, *(1,) * (weight.dim() - 1)), shift


def convolve(
    layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, groups: int | None = None
) -> Tensor:  # fmt: skip
    """The convolution of `layer` on `x` `[rows, channels, ...]`, with other weights (and groups) than its own."""
    function: Callable[..., Tensor] = F.conv1d if weight.dim() == 3 else F.conv2d
    return function(x, weight, bias, layer.stride, layer.padding, layer.dilation, groups or layer.groups)


def follow(norm: nn.Module, mean: Tensor, variance: Tensor, *, count: int) -> None:
    """Move a norm's running statistics as torch does, to the variance without bias of `count` values a channel."""
    take_in(norm, mean, variance.detach() * (count / (count - 1)))
