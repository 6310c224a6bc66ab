"""Layers that make a graph of a model: `Residual` and `Parallel`, nested as deep as wanted.

A joint is a value with `branches()`, the rows of layers that see one input, and `combine`, which makes one output of
theirs: one of `COMBINES` by its name, or a method of its own that takes the outputs. A joint that can be given other
rows by `with_branches(rows)` takes changes by the path of a layer, as `model.2.0.1.threshold=0.5`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field, replace
from typing import Annotated, Any, Literal, TypeAlias

import torch
from torch import Tensor

from snn_bp.errors import SnnError, shown
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Called, check_fields
from snn_bp.neurons import Neuron

Row: TypeAlias = tuple[Any, ...]
SPREAD = {"spread": True}  # a field that is written as arguments, one after the other


@checked_dataclass(frozen=True, init=False)
class Residual:
    """`f(x)` joined with `x`: what `layers` make of their input, and the input or what `shortcut` makes of it.

    Parameters:
        layers: the layers of f, one after the other; `layers=` takes them as one tuple.
        combine ("add"): "add" is f(x) + x, of spikes a count 0, 1, 2 ...; "and" is f(x) * x and "iand" is (1 - f(x)) *
            x, which make spikes of spikes (Fang et al. 2021, "Deep Residual Learning in Spiking Neural Networks").
            There x is the shortcut's output.
        shortcut (()): layers that the input goes through on its way past f. Both outputs have one shape: where `layers`
            change it, so does it, as `shortcut=(Conv(32, 1, stride=2), BatchNorm(), LIF(beta=0.9))`.

    >>> model = (Dense(20), LIF(beta=0.9), Residual(Dense(20), LIF(beta=0.9), combine="iand"))
    >>> Network(model, (5,)).output_shape
    (20,)
    """

    layers: Annotated[Row, Called("layers, as Residual(Dense(10), LIF(beta=0.9))")] = field(metadata=SPREAD)
    combine: Literal["add", "and", "iand"] = "add"
    shortcut: Annotated[Row, Called("a tuple of layers, as (Conv(32, 1), BatchNorm())")] = ()

    def __init__(self, *row: Any, layers: Sequence[Any] = (), combine: str = "add", shortcut: Row = ()) -> None:
        _check_tuple("Residual", "layers", layers)
        _fill(self, layers=(*row, *layers), combine=combine, shortcut=shortcut)
        check_row(self, "layers", self.layers)
        check_row(self, "shortcut", self.shortcut)
        if not self.layers:
            raise SnnError("Residual(): it has no layers. As in Residual(Dense(10), LIF(beta=0.9)).")

    def branches(self) -> tuple[Row, ...]:
        """The layers, and the shortcut."""
        return self.layers, self.shortcut

    def with_branches(self, rows: Sequence[Row]) -> "Residual":
        """This joint of other layers and another shortcut."""
        return replace(self, layers=rows[0], shortcut=rows[1])

    def __repr__(self) -> str:
        return _written(self, *map(repr, self.layers), shortcut=self.shortcut)


@checked_dataclass(frozen=True, init=False)
class Parallel:
    """Rows of layers that see the same input, a tuple each, and their outputs side by side or added up.

    Parameters:
        rows: the branches, two or more; a branch `()` hands the input on. `rows=` takes them as one tuple.
        combine ("concat"): "concat" puts outputs one behind the other along the first axis of a step, that of neurons
            or channels; the other axes agree. "add" takes outputs of one shape.

    `Parallel((), (Conv(8, 3, padding=1),))` is a dense skip; two readouts stand at the end:

    >>> Network((Parallel((Dense(10), LI(beta=0.9)), (Dense(3), LI(beta=0.8))),), (5,)).output_shape
    (13,)
    """

    rows: tuple[Annotated[Row, Called("a tuple of layers, as (Dense(10), LIF(beta=0.9))")], ...] = field(
        metadata=SPREAD
    )
    combine: Literal["concat", "add"] = "concat"

    def __init__(self, *row: Row, rows: Sequence[Row] = (), combine: str = "concat") -> None:
        _check_tuple("Parallel", "rows", rows)
        _fill(self, rows=(*row, *rows), combine=combine)
        for number, branch in enumerate(self.rows):
            check_row(self, f"branch {number}", branch)
        if len(self.rows) < 2:
            raise SnnError(
                f"{type(self).__name__}: it has {len(self.rows)} branches, two are the least. Each is a tuple of "
                "layers, as in Parallel((Dense(10),), (Dense(5), LIF(beta=0.9)))."
            )

    def branches(self) -> tuple[Row, ...]:
        """The rows."""
        return self.rows

    def with_branches(self, rows: Sequence[Row]) -> "Parallel":
        """This joint of other rows."""
        return replace(self, rows=tuple(rows))

    def __repr__(self) -> str:
        return _written(self, *map(repr, self.rows))


def add(outs: list[Tensor]) -> Tensor:
    """The sum of outputs `[time, batch, ...]` of one shape."""
    _check_alike("add", outs)
    total = outs[0]
    for out in outs[1:]:
        total = total + out
    return total


def both(outs: list[Tensor]) -> Tensor:
    """The product of two outputs: of spikes, where both have one ("and")."""
    _check_alike("and", outs)
    return outs[0] * outs[1]


def only_second(outs: list[Tensor]) -> Tensor:
    """The second output where the first has no spike ("iand")."""
    _check_alike("iand", outs)
    return (1 - outs[0]) * outs[1]


def concat(outs: list[Tensor]) -> Tensor:
    """Outputs `[time, batch, channels, ...]` one behind the other along their channels."""
    shapes = [list(out.shape[2:]) for out in outs]
    if any(not shape or shape[1:] != shapes[0][1:] for shape in shapes):
        raise SnnError(
            f'its branches give {_listed(shapes)}, and "concat" joins channels: the axes behind them should agree. '
            "Give the branches the same stride and padding, or Flatten() each."
        )
    return torch.cat(outs, 2)


COMBINES: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "add": add, "and": both, "iand": only_second, "concat": concat,
}  # fmt: skip
KEEP_SPIKES = ("and", "iand", "concat")  # spikes in, spikes out; a sum of spikes is a count


def _check_alike(combine: str, outs: list[Tensor]) -> None:
    shapes = [list(out.shape[2:]) for out in outs]
    if any(shape != shapes[0] for shape in shapes):
        first = shapes[0]
        layer = f"(Dense({first[0]}),)" if len(first) == 1 else f"(Conv({first[0] if first else 1}, 1),)"
        raise SnnError(
            f'its branches give {_listed(shapes)}, and "{combine}" takes outputs of one shape. A layer in the branch '
            f"that differs brings it to the other's: of a Residual, shortcut={layer}, with a stride where sides differ."
        )


def _listed(shapes: list[list[int]]) -> str:
    return f"{', '.join(map(str, shapes[:-1]))} and {shapes[-1]}"


def _check_tuple(kind: str, name: str, given: Any) -> None:
    if not isinstance(given, tuple | list):
        raise SnnError(f"{kind}({name}={shown(given)}): it should be a tuple, of {name}.")


def _fill(value: Any, **content: Any) -> None:
    for name, part in content.items():
        object.__setattr__(value, name, part)
    check_fields(value)


def every_value(row: Iterable[Any]) -> Iterator[Any]:
    """The values of a model one by one, those within joints before them."""
    for value in row:
        if hasattr(value, "branches"):
            for branch in value.branches():
                yield from every_value(branch)
        yield value


def check_row(joint: Any, name: str, row: Sequence[Any]) -> None:
    """Raise unless each value of a row of a joint is a layer: it has `build` or `branches`, or is a neuron."""
    for index, layer in enumerate(row):
        made = not isinstance(layer, type) and any(hasattr(layer, part) for part in ("build", "branches"))
        if not (made or isinstance(layer, Neuron)):
            spread = " Write them one after the other, not as a tuple." if isinstance(layer, tuple | list) else ""
            raise SnnError(
                f"{type(joint).__name__}: {name} has {shown(layer)} at {index}, which is no layer, as Dense(128) or "
                f"LIF(beta=0.9).{spread}"
            )


def _written(value: Any, *parts: str, shortcut: Row = ()) -> str:
    usual = type(value).__dataclass_fields__["combine"].default
    named = [f"combine={value.combine!r}"] * (value.combine != usual) + [f"shortcut={shortcut!r}"] * bool(shortcut)
    return f"{type(value).__name__}({', '.join([*parts, *named])})"
