"""`Module`: any `torch.nn.Module` class, torch's or the user's, as a layer; and what a network calls in its place.

A layer over rows is the module itself. One that sees all steps, or has a state, is called through a wrapper that says
so, and that a state of any make goes through `Carried`.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError, nearest, shown
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Called, check_fields
from snn_bp.model.modules import Shape


@checked_dataclass(frozen=True, init=False, repr=False)
class Module:
    """A `torch.nn.Module` of your own, or torch's, as a layer: `Module(nn.GroupNorm, 4, 16)`, `Module(Gate, heads=4)`.

    Parameters:
        kind: the class.
        args (()): its arguments in order, which may follow `kind` as they are.
        options (()): its named arguments as pairs, which may be given by their names.
        over ("rows"): what its forward sees, see below.
        stateful (False): whether its forward takes and returns a state.

    | over | forward | sees and gives |
    |---|---|---|
    | "rows" | `forward(x)` | `[time * batch, ...]`: every step of every recording is a row |
    | "time" | `forward(x)`, or `forward(x, mask)` | `[time, batch, ...]`, as many steps out as in |
    | `stateful=True` | `forward(x, state)` | as "time", and returns output and state |

    A state is made of tensors, in tuples or dictionaries; it is None at the start of a recording, `network.run` hands
    it on, and truncated training cuts its gradient. `mask` `[time, batch]` is True where a recording has a step, None
    where all have all of them. Modules are built on the CPU and moved from there. Weights of two axes and more decay as
    synapses do. Such a layer trains, resumes, streams, and is seen by doctor, trace and gradient check; exporters, the
    chip and online rules refuse it by name.

    >>> Network((Dense(8), Module(torch.nn.GroupNorm, 2, 8), LIF(beta=0.9)), (5,)).output_shape
    (8,)
    """

    kind: Annotated[type[nn.Module], Called("a class of modules, as nn.LayerNorm")]
    args: Annotated[tuple[Any, ...], Called("arguments of the class, as a tuple")] = field(
        default=(), metadata={"spread": True}
    )
    options: Annotated[tuple[tuple[str, Any], ...], Called("named arguments of the class")] = field(
        default=(), metadata={"named": True}
    )
    over: Literal["rows", "time"] = "rows"
    stateful: bool = False

    def __init__(
        self, kind: type[nn.Module], *arguments: Any, args: Sequence[Any] = (),
        options: Sequence[Sequence[Any]] = (), over: str = "rows", stateful: bool = False, **named: Any,
    ) -> None:  # fmt: skip
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            made = f" Write its class and what it is built with: Module({type(kind).__name__}, ...)."
            raise SnnError(
                f"Module(kind={shown(kind)}): it should be a class of modules, as nn.LayerNorm."
                + made * isinstance(kind, nn.Module)
            )
        if not isinstance(args, tuple | list):
            raise SnnError(f"Module(args={shown(args)}): it should be a tuple of arguments for {kind.__name__}.")
        content = {
            "kind": kind,
            "args": tuple(_plain("args", each) for each in (*arguments, *args)),
            "options": tuple((name, _plain(name, each)) for name, each in (_pairs(options) | named).items()),
            "over": over,
            "stateful": stateful,
        }
        for name, value in content.items():
            object.__setattr__(self, name, value)
        check_fields(self, but=("kind", "args", "options"))
        parameters = inspect.signature(kind).parameters.values()
        if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
            return
        known = [each.name for each in parameters]
        for name, _ in self.options:
            if name not in known:
                raise SnnError(f"{self!r}: {kind.__name__} has no argument {name!r}. {nearest(name, known)}")

    def build(self, shape: Shape) -> nn.Module:
        """The module, in its wrapper where it has one."""
        with torch.device("cpu"):
            try:
                module = self.kind(*self.args, **dict(self.options))
            except TypeError as cause:
                raise SnnError(f"{cause}.") from cause
        if self.stateful:
            return Stateful(module)
        return OverTime(module) if self.over == "time" else module

    def __repr__(self) -> str:
        parts = [self.kind.__name__, *map(repr, self.args), *(f"{name}={value!r}" for name, value in self.options)]
        parts += ["over='time'"] * (self.over == "time") + ["stateful=True"] * self.stateful
        return f"Module({', '.join(parts)})"


class OverTime(nn.Module):
    """A module without state that sees all steps, `[time, batch, ...]`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    @property
    def takes_mask(self) -> bool:
        """Whether its forward asks which steps there are."""
        return "mask" in inspect.signature(type(self.inner).forward).parameters

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the module makes of `x` `[time, batch, ...]`: as many steps of as many recordings."""
        out = self.inner(x, mask=mask) if self.takes_mask else self.inner(x)
        return _checked(self.inner, out, x)


class Stateful(nn.Module):
    """A module that takes and returns a state, and sees `[time, batch, ...]`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, state: "Carried | None" = None) -> tuple[Tensor, "Carried"]:
        """Output of every step, and the state after the last one; `state` None: the start of a recording."""
        given = self.inner(x, None if state is None else state.value)
        if not isinstance(given, tuple) or len(given) != 2:
            raise SnnError(
                f"{type(self.inner).__name__}: with stateful=True its forward(x, state) should return output and "
                f"state, found {shown(type(given))}."
            )
        return _checked(self.inner, given[0], x), Carried(given[1])


@dataclass(frozen=True, eq=False)
class Carried:
    """What a layer that is no neuron hands from one step to the next: tensors, in tuples, lists or dictionaries."""

    value: Any

    def detach(self) -> "Carried":
        """The same state with no gradient through it."""
        return Carried(_each(self.value, Tensor.detach))


def _pairs(options: Any) -> dict[str, Any]:
    """Named arguments from pairs of a name and a value."""
    pairs: list[Any] = list(options) if isinstance(options, tuple | list) else [None]
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise SnnError(f"Module(options={shown(options)}): it should be pairs of a name and a value, (('heads', 4),).")
    return {pair[0]: pair[1] for pair in pairs}


def _plain(name: str, value: Any) -> Any:
    """An argument that a file can hold and give back; raises for any other."""
    if isinstance(value, tuple | list):
        return tuple(_plain(name, part) for part in value)
    if isinstance(value, int) and type(value) is not bool and abs(value) < 2**63:
        return int(value)
    if value is None or isinstance(value, type) or type(value) in (bool, str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise SnnError(
        f"Module({name}={shown(value)}): an experiment's file cannot hold it. Give numbers, texts, tuples of such or "
        "classes, and make the rest of them within the module."
    )


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _each(part, change) for name, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [_each(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _checked(module: nn.Module, out: Any, x: Tensor) -> Tensor:
    if not isinstance(out, Tensor) or out.shape[:2] != x.shape[:2]:
        found = list(out.shape) if isinstance(out, Tensor) else shown(type(out))
        raise SnnError(
            f"{type(module).__name__}: its forward should give [time, batch, ...] with {list(x.shape[:2])} first, "
            f"found {found}."
        )
    return out
