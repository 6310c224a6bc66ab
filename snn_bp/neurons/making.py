"""`@neuron`: from one step in plain arithmetic to a kind of neuron that everything in the package runs.

    @neuron(decays=("beta", "rho"), positive=("threshold",))
    def AdLIF(v, w, s, x, *, beta, rho=Tau(100), a=0.1, b=0.2, threshold=1.0):
        w = rho * w + a * v + b * s
        v = beta * v * (1 - s) + x - w
        return v, w, spike(v - threshold, threshold)

Arguments before the star are the states, then `s` (the neuron's own spike of the step before) if it fires, then the
input `x`; those behind it are parameters. The step returns the new states in the same order, and last what the neuron
gives out: a spike, or one of its states.
"""

import inspect
import itertools
import types
from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin, get_type_hints, overload

from torch.nn import ParameterDict

from snn_bp.equations.arithmetic import Absent, record
from snn_bp.equations.derive import Equation, check_names
from snn_bp.equations.nodes import Node, ordered
from snn_bp.errors import SnnError, nearest, shown
from snn_bp.errors.calls import checked_call
from snn_bp.errors.fields import check_fields
from snn_bp.neurons.as_nir import AsNIR, check_mapping
from snn_bp.neurons.formulas import Described, Formulas
from snn_bp.neurons.parameters import Decay, Range, Tau, Values, as_numbers, check_range

MOST_CHOICES = 64  # combinations of what is chosen by name, each of which is another equation


@dataclass(frozen=True, eq=False)
class Kind:
    """What `@neuron` found in a step."""

    step: types.FunctionType
    states: tuple[str, ...]
    spiking: bool  # whether it takes the spike of the step before
    numbers: Mapping[str, Any]  # parameters that are numbers, and their defaults (`inspect.Parameter.empty`: none)
    choices: Mapping[str, tuple[Any, ...]]  # parameters that choose, and what from
    ranges: Mapping[str, Range]
    symbols: Mapping[str, str]  # what the equation calls a parameter, where that is another name
    optional: Mapping[str, str]  # a state that is not there where a parameter is 0, and that parameter
    potential: str
    state_class: Any
    nir: Callable[..., AsNIR] | None = None  # which node of NIR it is, by its parameters
    equations: dict[tuple, Equation] = field(default_factory=dict)

    def symbol(self, name: str) -> str:
        """What the equation calls a parameter."""
        return self.symbols.get(name, name)

    def equation(self, chosen: Mapping[str, Any], absent: frozenset[str]) -> Equation:
        """The equation for what is chosen, without the parameters that are absent."""
        key = (*chosen.items(), absent)
        if key not in self.equations:
            self.equations[key] = self._recorded(chosen, absent)
        return self.equations[key]

    def usual(self) -> tuple[dict[str, Any], Equation]:
        """What is chosen where nobody chooses, and the equation then."""
        parameters = inspect.signature(self.step).parameters
        chosen = {
            name: options[0] if parameters[name].default is _NONE else parameters[name].default
            for name, options in self.choices.items()
        }
        absent = frozenset(name for name in self.optional.values() if self.numbers[name] == 0.0)
        return chosen, self.equation(chosen, absent)

    def _recorded(self, chosen: Mapping[str, Any], absent: frozenset[str]) -> Equation:
        gone = {state for state, name in self.optional.items() if name in absent}
        states = [name for name in self.states if name not in gone]
        arguments = [*states, *(["s"] if self.spiking else []), "x", *(n for n in self.numbers if n not in absent)]
        given = {name: Absent() for name in (*gone, *absent)}
        renamed = {name: self.symbol(name) for name in self.numbers}
        *new, out = record(self.step, arguments, {**given, **chosen}, renamed)  # type: ignore[arg-type] - no method
        if len(new) != len(self.states):
            raise SnnError(
                f"{self.step.__name__}: its step returns {_counted(len(new) + 1, 'value')}, and has "
                f"{_counted(len(self.states), 'state')} ({', '.join(self.states)}). It returns each new state in their "
                "order, and last spike(...) or, where nothing fires, one of them once more."
            )
        kept = [node for name, node in zip(self.states, new, strict=True) if name not in gone]
        spikes = any(node.op == "spike" for node in ordered([out]))
        return Equation(
            name=self.step.__name__,
            states=tuple(states),
            parameters=tuple(self.symbol(name) for name in self.numbers if name not in absent),
            new=tuple(kept),
            out=out if spikes else None,
            potential=self.potential if spikes else self._given_out(states, kept, out),
        )

    def _given_out(self, states: list[str], new: list[Node], out: Node) -> str:
        for name, node in zip(states, new, strict=True):
            if node is out:
                return name
        raise SnnError(
            f"{self.step.__name__}: what a step returns last is spike(...), or one of its new states where nothing "
            f"fires. Keep it as a state: return ..., v, v."
        )


def kind_of(made: Any) -> Kind | None:
    """What `@neuron` found in the step of which it made a class; None of any other class, also one below such a one."""
    found = vars(made).get("kind") if isinstance(made, type) else None
    return found if isinstance(found, Kind) else None


class Neuron:
    """A neuron with its numbers: what `@neuron` makes of a step, with its parameters filled in. Frozen."""

    kind: ClassVar[Kind]

    if TYPE_CHECKING:

        def __init__(self, **parameters: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    @staticmethod
    def is_one(value: Any) -> bool:
        """Whether a value is a neuron that `@neuron` made, and not of a class below one."""
        return kind_of(type(value)) is not None

    @property
    def equation(self) -> Equation:
        """What it does in a step."""
        kind = type(self).kind
        chosen = {name: getattr(self, name) for name in kind.choices}
        absent = frozenset(name for name in kind.optional.values() if getattr(self, name) == 0.0)
        return kind.equation(chosen, absent)

    def equations(self) -> Formulas:
        """Its step, and the adjoint that the chain rule makes of it, to read: as text, in a notebook as formulas."""
        return Formulas(self.equation)

    def __post_init__(self) -> None:
        kind, name_of = type(self).kind, type(self).__name__
        check_fields(self, but=tuple(kind.numbers))
        for name, default in kind.numbers.items():
            value = getattr(self, name)
            if type(value) is Tau and kind.ranges[name] != "decay":
                own = "" if type(self).__module__.startswith("snn_bp.") else f", or write @neuron(decays=({name!r},))"
                raise SnnError(
                    f"{name_of}({name}={value}): a time constant becomes a decay; {name} is none. Give a number{own}."
                )
            if type(value) is not Tau:
                value = as_numbers(name_of, name, value)
                object.__setattr__(self, name, value)
                check_range(name_of, name, value, kind.ranges[name], default)
        _ = self.equation  # recorded now: torch.compile, which may be first to ask for it, cannot


@overload
def neuron(step: Callable[..., Any], /) -> type[Neuron]: ...
@overload
def neuron(
    *, decays: tuple[str, ...] = (), fractions: tuple[str, ...] = (), positive: tuple[str, ...] = (),
    not_negative: tuple[str, ...] = (), potential: str | None = None, symbols: Mapping[str, str] | None = None,
    optional: Mapping[str, str] | None = None, state: Any = None, nir: Callable[..., AsNIR] | None = None,
) -> Callable[[Callable[..., Any]], type[Neuron]]: ...  # fmt: skip


@checked_call
def neuron(
    step: Any = None, /, *, decays=(), fractions=(), positive=(), not_negative=(), potential=None, symbols=None,
    optional=None, state=None, nir=None,
) -> Any:  # fmt: skip
    """A kind of neuron, made of a step in plain arithmetic.

    The step's arguments are its states, `s` (its spike of the step before; left out by a neuron that does not fire),
    the input `x`, and behind a star its parameters: numbers, one or one for each neuron, with a default or without;
    one that chooses is annotated with `bool` or `Literal[...]`, and may stand in an `if`. It returns the new states in
    their order, and last `spike(distance, scale)`, or one of the new states for a neuron that does not fire.

    A step knows `+ - * / **`, `abs`, `min`, `max`, `exp`, comparisons and `& | ~` of them, `where(condition, a, b)`,
    `detach(a)` and `spike(u, scale)`. All else is refused here, with its line.

    Parameters:
        step: the function below the decorator.
        decays (()): parameters in 0..1, which may be given as `Tau(ms)`. Learned (`Spiking(..., learn=...)`), each of
            these and the next stays in its range.
        fractions (()): others in 0..1.
        positive (()): those above 0.
        not_negative (()): those from 0 up.
        potential (None): the state that is shown as the membrane's potential: `v`, or else the first.
        optional (None): states that may be absent, `{"i": "alpha"}`: there is no `i` where `alpha` is 0.
        nir (None): a function of the parameters that says which node of NIR it is (`AsNIR`); without it there is none.
        symbols (None), state (None): for the neurons of the package, which keep names that files hold.

    >>> @neuron(decays=("beta",))
    ... def Soft(v, s, x, *, beta=0.9):
    ...     v = beta * v + x - detach(s)
    ...     return v, spike(v - 1, 1)
    >>> simulate(Soft(beta=0.5), torch.full((4, 1, 1), 0.8))[0].flatten().tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    groups: dict[Range, Any] = {"decay": decays, "fraction": fractions, "positive": positive, "from 0": not_negative}

    for within, names in groups.items():
        if not isinstance(names, str | tuple | list | set | frozenset):
            raise SnnError(f"@neuron: {shown(names)} for {within}: it should be names of parameters, as ('beta',).")
    for name, pairs in (("symbols", symbols), ("optional", optional)):
        if pairs is not None and not isinstance(pairs, Mapping):
            raise SnnError(f"@neuron: {name}={shown(pairs)}: it should be a dictionary of names, as {{'i': 'alpha'}}.")
    if potential is not None and not isinstance(potential, str):
        raise SnnError(f"@neuron: potential={shown(potential)}: it should be the name of a state, as 'v'.")

    def made(found: Any) -> type[Neuron]:
        return neuron_of(found, groups, potential, symbols or {}, optional or {}, state, nir)

    return made if step is None else made(step)


def neuron_of(
    step: Any, groups: Mapping[Range, Any], potential: str | None, symbols: Mapping[str, str],
    optional: Mapping[str, str], state: Any, nir: Callable[..., AsNIR] | None = None,
) -> type[Neuron]:  # fmt: skip
    """The kind of neuron that a step describes."""
    if not isinstance(step, types.FunctionType):
        raise SnnError(
            f"@neuron: it stands above a function, found {shown(step)}. As in: @neuron def LIF(v, s, x): ..."
        )
    name, signature = step.__name__, inspect.signature(step)
    before, parameters = _split(name, signature)
    states = tuple(each for each in before if each not in ("s", "x"))
    check_names((*states, *parameters), name)
    reserved = [each for each in (*states, *parameters) if hasattr(Neuron, each) or each in Neuron.__annotations__]
    reserved += [each for each in parameters if hasattr(ParameterDict, each)]  # where what is learned lies
    if reserved:
        raise SnnError(f"{name}: {reserved[0]!r} is no name for a state or parameter of a neuron. Give it another.")
    hints = _hints(step)
    choices, numbers = {}, {}
    for each, parameter in parameters.items():
        options = _options(hints.get(each), parameter.default)
        if options:
            choices[each] = options
        else:
            numbers[each] = parameter.default
    ranges: dict[str, Range] = dict.fromkeys(numbers, "any")
    for within, found in groups.items():
        for each in (found,) if isinstance(found, str) else found:
            if each not in numbers:
                raise SnnError(
                    f"{name}: {shown(each)} is no parameter of its step. {nearest(str(each), list(numbers))}"
                )
            if ranges[each] != "any":
                raise SnnError(f"{name}: {each!r} is named twice, as {ranges[each]} and {within}. Leave one of them.")
            ranges[each] = within
    for each, default in numbers.items():
        if default is not _NONE and type(default) is not Tau:
            check_range(name, each, _number_of(name, each, default), ranges[each])
    if potential is not None and potential not in states:
        raise SnnError(
            f"{name}: potential={shown(potential)} is no state of its step. {nearest(str(potential), states)}"
        )
    for part, each in optional.items():
        if part not in states or each not in numbers:
            raise SnnError(
                f"{name}: optional={{{part!r}: {each!r}}} names a state of the step and the parameter it goes with. It "
                f"has the states {', '.join(states)} and the parameters {', '.join(numbers) or 'none'}."
            )
    spiking = "s" in before
    kind = Kind(
        step=step, states=states, spiking=spiking, numbers=numbers, choices=choices, ranges=ranges, symbols=symbols,
        optional=optional, potential=potential or ("v" if "v" in states else states[0]),
        state_class=state or _state_class(step, states, optional, spiking),
        nir=check_mapping(name, nir, (*numbers, *choices)),
    )  # fmt: skip
    _try(kind)
    annotated = [
        (each, hints.get(each, Decay if ranges.get(each) == "decay" else Values), parameters[each].default)
        for each in parameters
    ]
    made = make_dataclass(
        name,
        [(each, hint) if default is _NONE else (each, hint, default) for each, hint, default in annotated],
        bases=(Neuron,), frozen=True, kw_only=True,
        namespace={"kind": kind, "__doc__": step.__doc__, "__module__": step.__module__},
    )  # fmt: skip
    made.__module__, made.__qualname__ = step.__module__, step.__qualname__
    made.__doc__ = Described(step.__doc__, kind.usual)  # type: ignore[assignment] - what Python asks for the text
    made.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[each.replace(annotation=_NONE) if name in numbers else each for name, each in parameters.items()]
    )
    return checked_call(made)


_NONE = inspect.Parameter.empty


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _split(name: str, signature: inspect.Signature) -> tuple[list[str], dict[str, inspect.Parameter]]:
    """The names before the star, and the parameters behind it; raises where a step has no such form."""
    before, parameters = [], {}
    for each, parameter in signature.parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            parameters[each] = parameter
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is _NONE:
            before.append(each)
        else:
            raise SnnError(
                f"{name}: {str(parameter)!r} is neither a state nor a parameter. A step is written "
                f"`def {name}(v, s, x, *, beta, threshold=1.0)`: states, spike and input, a star, parameters."
            )
    if len(before) < 2 or before[-1] != "x" or ("s" in before and before[-2] != "s") or before == ["s", "x"]:
        raise SnnError(
            f"{name}({', '.join(before)}): a step takes its states, then its own spike `s` unless it never fires, then "
            f"the input `x`, as in `def {name}(v, s, x, *, beta)`."
        )
    return before, parameters


def _hints(step: types.FunctionType) -> dict[str, Any]:
    try:
        return get_type_hints(step, include_extras=True)
    except NameError:  # an annotation that only a type checker knows
        return {}


def _options(hint: Any, default: Any) -> tuple[Any, ...]:
    """What a parameter chooses from; nothing where it is a number."""
    if hint is bool or (hint is None and isinstance(default, bool)):
        return (False, True)
    return get_args(hint) if get_origin(hint) is Literal else ()


def _number_of(name: str, each: str, default: Any) -> Any:
    """The numbers of a parameter's default."""
    if isinstance(default, str):
        raise SnnError(
            f"{name}({each}={default!r}): a parameter that chooses by a word says from which, as "
            f"`{each}: Literal[{default!r}, ...] = {default!r}`."
        )
    return as_numbers(name, each, default)


def _try(kind: Kind) -> None:
    """Record the step for all that can be chosen, so that what it does not know is refused at once."""
    every = list(itertools.islice(itertools.product(*kind.choices.values()), MOST_CHOICES + 1))
    if len(every) > MOST_CHOICES:
        raise SnnError(f"{kind.step.__name__}: more than {MOST_CHOICES} combinations can be chosen. Leave out some.")
    for chosen in every:
        given = dict(zip(kind.choices, chosen, strict=True))
        equation = kind.equation(given, frozenset())
        if equation.spiking != kind.spiking:
            what = "takes `s` and returns no spike(...)" if kind.spiking else "returns a spike and does not take `s`"
            raise SnnError(
                f"{kind.step.__name__}: it {what}. A step that fires takes its last spike `s` before the input `x`, "
                "whether it needs it or not; one that never fires takes none."
            )


def _state_class(step: types.FunctionType, states: tuple[str, ...], optional: Mapping[str, str], spiking: bool) -> Any:
    """A named tuple of tensors for what a layer of these neurons carries from step to step; None: no such part."""
    always = [*(each for each in states if each not in optional), *(["s"] if spiking else [])]
    if not step.__name__.isidentifier():
        raise SnnError(f"{step.__name__}: a neuron is called what its step is. Write def Name(v, s, x): ...")
    made = namedtuple(f"{step.__name__}State", (*always, *optional), defaults=(None,) * len(optional))  # type: ignore[misc]

    def detach(self: Any) -> Any:
        """The same state with no gradient through it: where truncated backpropagation cuts."""
        return type(self)(*(part if part is None else part.detach() for part in self))

    made.detach = detach  # type: ignore[attr-defined]
    made.__module__, made.__qualname__ = (
        step.__module__,
        f"{step.__qualname__}.kind.state_class",
    )  # where pickle finds it
    made.__doc__ = f"What a layer of {step.__name__} carries from step to step: `[batch, *neurons]` each."
    return made


def numbers_of(neuron: Neuron) -> dict[str, Any]:
    """The numbers (or tuples of numbers, one for each neuron) of the equation's parameters, by their symbols."""
    kind, wanted = type(neuron).kind, neuron.equation.parameters
    values = {kind.symbol(name): getattr(neuron, name) for name in kind.numbers}
    for name, value in values.items():
        if isinstance(value, Tau):
            raise SnnError(
                f"{type(neuron).__name__}({name}={value}): a time constant needs the width of a step. "
                f"Use it in an Experiment, or at_step(neuron, step_ms=1)."
            )
    return {name: values[name] for name in wanted}


def range_of(neuron: Neuron, symbol: str) -> Range:
    """The range of the parameter that the equation calls `symbol`."""
    kind = type(neuron).kind
    return next(within for name, within in kind.ranges.items() if kind.symbol(name) == symbol)
