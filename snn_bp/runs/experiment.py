"""An experiment as a value: what to train, on what, and how; to and from JSON, changed by `key=value`.

Layers, joints, losses and transforms may be the user's own: frozen dataclasses, which JSON names by their file and name
(`own_code.py`).
"""

import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from types import FunctionType
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

from snn_bp import neurons, surrogates
from snn_bp.chip.arithmetic import Fixed
from snn_bp.chip.network import OnChip
from snn_bp.data import Augmentation, Data, Encoder, Folder, TonicSet, transform_from_json, transform_to_json
from snn_bp.errors import SnnError, nearest, shown
from snn_bp.errors.calls import checked_dataclass, misfit
from snn_bp.errors.fields import Called, OrOwn, Within, check_fields, read_words
from snn_bp.errors.renamed import with_new_names
from snn_bp.model import losses
from snn_bp.model.layers import Layer, with_step
from snn_bp.model.losses import Loss
from snn_bp.model.metrics import Metric
from snn_bp.model.names import written
from snn_bp.model.network import Network
from snn_bp.model.targets import Targets
from snn_bp.runs.own_code import Code, Loaded, is_own_dataclass, name_of_kind
from snn_bp.runs.training_options import Patience, Start, Train
from snn_bp.runtime.screen import filled, html_table, on_screen

Seed = Annotated[int, Within(0, 2**64 - 1)]  # what torch and NumPy both take
if TYPE_CHECKING:  # which cannot say "or a dataclass of the user's"
    AnyLayer: TypeAlias = Any
else:
    AnyLayer = Layer
OwnLayer = OrOwn((("build",), ("branches", "combine")))
LAYERS = 15  # more of them do not get a line each
DEEPEST = 50  # levels of JSON; an experiment has a dozen, its transforms more


@checked_dataclass(frozen=True)
class Experiment:
    """Data, model, training and seed: everything that a run depends on. A frozen value.

    Parameters:
        data: a `Data`: which recordings, and how they become frames.
        model: a tuple of layers and neurons, in order.
        train (Train()): how the network learns.
        seed (0): what weights, order, augmentation and dropout are drawn from, 0..2^64 - 1.

    >>> experiment = Experiment(Data("digits"), (Flatten(), Dense(10), LIF(beta=Tau(100))), seed=1)
    >>> experiment.network((2, 16, 16)).output_shape
    (10,)
    """

    data: Annotated[Data, Called("a Data, as Data('digits')")]
    model: tuple[Annotated[AnyLayer, Called("a layer, as Dense(128) or LIF(beta=0.9)"), OwnLayer], ...]
    train: Annotated[Train, Called("a Train, as Train(epochs=20)")] = Train()
    seed: Seed = 0

    def __post_init__(self) -> None:
        if not isinstance(self.model, tuple | list):
            raise SnnError(
                f"Experiment(model={shown(self.model)}): it should be a tuple of layers, as (Dense(10), LIF(beta=0.9))."
            )
        check_fields(self)

    def __repr__(self) -> str:
        """The value as one would write it, a layer a line, or several where they are many."""
        layers = [f"{written(layer)}," for layer in self.model]
        if len(layers) > LAYERS:
            layers = filled(layers, indent=8)
        parts = [f"{written(self.data)},", "(", *(f"    {line}" for line in layers), "),", f"{written(self.train)},"]
        return on_screen("\n".join(["Experiment(", *(f"    {part}" for part in parts), f"    seed={self.seed},", ")"]))

    def _repr_html_(self) -> str:
        rows = [(f"model.{index}", written(layer)) for index, layer in enumerate(self.model)]
        rows = [("data", written(self.data)), *rows, ("train", written(self.train)), ("seed", str(self.seed))]
        return html_table("Experiment", ("setting", "value"), rows, left=2)

    def model_at_step(self) -> tuple[Layer, ...]:
        """The model with time constants turned into decays of the bin width of the data."""
        return with_step(self.model, step_ms=self.data.step_ms or 1.0)

    def train_at_step(self) -> Train:
        """The training, with time constants of its loss and metric turned into steps of the bin width of the data."""
        step_ms, parts = self.data.step_ms or 1.0, {"loss": self.train.loss, "metric": self.train.metric}
        turned: dict[str, Any] = {
            name: part.at_step(step_ms) for name, part in parts.items() if hasattr(part, "at_step")
        }
        return replace(self.train, **turned) if turned else self.train

    def network(self, input_shape: tuple[int, ...]) -> Network:
        """The network as the run starts it, decays computed from the bin width of the data.

        For another `train.target` than "float" it is an `OnChip` around one, which takes the same calls.
        """
        train, model = self.train, self.model_at_step()
        network = Network(model, input_shape, surrogate=train.surrogate, seed=self.seed, memory=train.memory)
        return network if train.target == "float" else cast(Network, OnChip(network, train.target))


CONSTRUCTORS = (
    {
        kind.__name__: kind
        for kind in (
            Data,
            Folder,
            TonicSet,
            Train,
            Experiment,
            surrogates.Surrogate,
            neurons.Tau,
            losses.RateBounds,
            Targets,
            Start,
            Patience,
            Fixed,
        )
    }
    | {kind.__name__: kind for union in (Layer, Loss, Metric) for kind in union.__args__ if kind is not neurons.Neuron}
    | {kind.__name__: kind for kind in (*neurons.KINDS, *neurons.LIBRARY)}
    | {name: getattr(surrogates, name) for name in surrogates.SHAPES}
    | {kind.__name__: kind for kind in (*Augmentation.__args__, *Encoder.__args__)}
)  # what a JSON file and an override may name; nothing else is ever constructed


def to_json(value: Any) -> Any:
    """The value as JSON holds it: a dataclass becomes an object whose "is" names its kind.

    A class or function becomes {"named": ...}; those of the user's, "mine.py:TET", come back with `own_code.Loaded`.
    """
    if isinstance(value, type | FunctionType) and not value.__module__.startswith("snn_bp."):
        return {"named": name_of_kind(value)}
    kind = type(value)
    if is_dataclass(value) and CONSTRUCTORS.get(kind.__name__) is kind:
        content = {field.name: getattr(value, field.name) for field in fields(value)}
        transforms = {}
        if isinstance(value, Data):
            transforms = {"transforms": [_transform_to_json(each) for each in content.pop("transforms")]}
        return {"is": kind.__name__, **{name: to_json(part) for name, part in content.items()}, **transforms}
    if is_dataclass(value) and is_own_dataclass(kind):
        name = name_of_kind(kind)
        parts = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        return {
            "is": name,
            **{field: _own_part(part, f"{kind.__name__}({field}=...)") for field, part in parts.items()},
        }
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    own = kind.__name__ in CONSTRUCTORS
    raise SnnError(
        f"{shown(value)} cannot be written to JSON; an experiment holds numbers, text and the types of snn_bp."
        + f" This {kind.__name__} is another's ({kind.__module__}): it would come back as ours." * own
    )


def content_of(experiment: Experiment) -> tuple[dict[str, Any], Code | None]:
    """What `experiment.json` holds, and the code of the user's own in it; raises where either cannot be written."""
    content, code = to_json(experiment), Code.of(experiment)
    return content | ({} if code is None else {"code": code.hashes}), code


def is_same(one: Experiment, other: Experiment) -> bool:
    """Whether `experiment.json` holds the same of both."""
    return content_of(one)[0] == content_of(other)[0]


def _own_part(value: Any, where: str) -> Any:
    """A field of a value of the user's as JSON; what would come back as another value is refused."""
    if isinstance(value, list | dict | set) or (isinstance(value, float) and not math.isfinite(value)):
        raise SnnError(
            f"{where}: {shown(value)} would not come back from JSON as it is. Use a finite number or a tuple."
        )
    return to_json(value)


def _transform_to_json(transform: Any) -> Any:
    own = isinstance(transform, FunctionType) or is_own_dataclass(type(transform))
    if not own:
        return transform_to_json(transform)
    try:
        return to_json(transform)
    except SnnError as cause:
        raise SnnError(f"data.transforms: {cause}") from None


def from_json(content: Any, code: Loaded | None = None) -> Any:
    """The value that `to_json` wrote; words such as "no" are read where a truth value belongs.

    `code` holds the definitions of the user's that the JSON names.
    """
    return _from_json(content, (), code or Loaded({}))


def from_json_text(text: str, code: Loaded | None = None) -> Any:
    """As `from_json`, from the text of a file: strict JSON, in which a key stands once."""
    return from_json(strict_json(text), code)


def strict_json(text: str) -> Any:
    """What a JSON text holds, with finite numbers alone, in which a key stands once."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except SnnError:
        raise
    except RecursionError:
        raise SnnError(f"its JSON is nested too deep, an experiment has {DEEPEST} levels at most.") from None
    except ValueError as cause:  # also a number of more digits than Python reads
        raise SnnError(f"it is not JSON ({cause}).") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SnnError(f"the key {shown(twice)} stands twice in one object of its JSON. Leave one of them.")
    return content


def _refuse_constant(name: str) -> Any:
    raise SnnError(f"its JSON holds {name}; JSON has finite numbers, and so has an experiment.")


def _from_json(content: Any, path: tuple[str, ...], own: Loaded) -> Any:
    where = f"{'.'.join(path)}: " if path else ""
    if len(path) > DEEPEST:
        raise SnnError(f"{where[:60]}... is nested too deep, an experiment has {DEEPEST} levels at most.")
    if isinstance(content, list):
        return tuple(_from_json(item, (*path, str(index)), own) for index, item in enumerate(content))
    if not isinstance(content, dict):
        return content
    arguments = dict(content)
    if arguments.keys() == {"named"} and isinstance(arguments["named"], str):
        try:
            return own.find(arguments["named"])
        except SnnError as cause:
            raise SnnError(f"{where}{cause}") from None
    name = arguments.pop("is", None)
    is_own = isinstance(name, str) and ":" in name
    if not isinstance(name, str) or not (is_own or name in CONSTRUCTORS):
        raise SnnError(f'{where}"is": {shown(name)} is not a type of snn_bp. {nearest(str(name), CONSTRUCTORS)}')
    described = arguments.pop("transforms", []) if name == "Data" else []
    parts = {key: _from_json(item, (*path, key), own) for key, item in arguments.items()}
    if not isinstance(described, list):
        raise SnnError(
            f"{where}transforms: {shown(described)} should be a list of objects that each name a transform of tonic."
        )
    try:
        parts = with_new_names(name, parts)
        if name == "Data":
            parts["transforms"] = tuple(_transform_from_json(item, path, own) for item in described)
        if is_own:
            return construct((), parts, _own_kind(own, name))
        return construct((), parts, CONSTRUCTORS[name])
    except SnnError as cause:
        raise SnnError(f"{where}{cause}") from None


def _own_kind(own: Loaded, name: str) -> type:
    kind = own.find(name)
    if not (isinstance(kind, type) and is_own_dataclass(kind)):
        raise SnnError(f"{shown(name)} is no frozen dataclass of the user's; a value is made of those alone.")
    return kind


def _transform_from_json(described: Any, path: tuple[str, ...], own: Loaded) -> Any:
    is_own = isinstance(described, dict) and described.keys() & {"is", "named"}
    return _from_json(described, (*path, "transforms"), own) if is_own else transform_from_json(described)


def construct(arguments: Sequence[Any], keywords: dict[str, Any], kind: Any) -> Any:
    """The value that such arguments make, words read as truth values; raises where they do not fit."""
    if problem := misfit(kind, tuple(arguments), keywords):
        raise SnnError(problem)
    given = inspect.signature(kind).bind(*arguments, **keywords)
    given.arguments.update(read_words(kind, given.arguments))
    return kind(*given.args, **given.kwargs)
