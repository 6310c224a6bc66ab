"""An experiment as a value: what to train, on what, and how; to and from JSON, changed by `key=value`."""

import ast
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from snn_bp import losses, neurons, surrogates
from snn_bp.blocks import TARGETS, Target
from snn_bp.data import Data, transform_from_json, transform_to_json
from snn_bp.errors import SnnError, check_choice, check_number, nearest
from snn_bp.layers import Layer
from snn_bp.losses import CountCrossEntropy, Loss, RateBounds
from snn_bp.network import Network, with_step
from snn_bp.surrogates import ATan, Surrogate


@dataclass(frozen=True)
class Train:
    """How a network learns. The schedule runs over all steps of all epochs, so a resumed run follows the same one."""

    epochs: int = 15
    lr: float = 2e-3
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = 0.9  # of sgd
    nesterov: bool = False  # of sgd
    weight_decay: float = 1e-4  # of synaptic weights; biases, norms and neuron parameters have none
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    step_epochs: int = 10  # schedule "step": every so many epochs the rate falls
    step_factor: float = 0.1  # to this share
    warmup: float = 0.1  # share of all steps in which the rate climbs from 0
    clip: float | None = 1.0  # largest norm of the whole gradient; None leaves it
    loss: Loss = CountCrossEntropy()
    surrogate: Surrogate = ATan()
    rates: RateBounds | None = None
    truncate: int | None = None  # backpropagate through so many steps at a time; None: through all
    keep: Literal["best", "last"] = "best"  # what is evaluated in the end: best on validation, or the last epoch
    autocast: Literal["bfloat16"] | None = None
    memory: Literal["full", "low"] = "full"  # low: dense layers keep no potentials and compute them again
    target: Target = "float"  # loihi: the forward pass is the chip's, in whole numbers
    settle: float = 0.25  # target loihi: the last share of all epochs, in which norms keep their running statistics
    device: str = "auto"  # auto: a GPU where there is one

    def __post_init__(self) -> None:
        for name in ("epochs", "step_epochs"):
            check_number(name, getattr(self, name), whole=True, low=1)
        for name in ("lr", "step_factor"):
            check_number(name, getattr(self, name), above=0)
        for name in ("momentum", "weight_decay", "warmup", "settle"):
            check_number(name, getattr(self, name), low=0, high=1)
        if self.clip is not None:
            check_number("clip", self.clip, above=0)
        if self.truncate is not None:
            check_number("truncate", self.truncate, whole=True, low=1)
        check_choice("train.optimizer", self.optimizer, ("adamw", "adam", "sgd"))
        check_choice("train.schedule", self.schedule, ("constant", "cosine", "step"))
        check_choice("train.keep", self.keep, ("best", "last"))
        check_choice("train.memory", self.memory, ("full", "low"))
        check_choice("train.target", self.target, TARGETS)
        if self.target != "float" and (self.truncate or self.autocast or self.memory == "low"):
            raise SnnError(
                f"train.target={self.target!r}: recordings run whole, in whole numbers. Leave train.truncate, "
                "train.autocast and train.memory as they are."
            )
        if self.autocast is not None:
            check_choice("train.autocast", self.autocast, ("bfloat16",))
        if not isinstance(self.surrogate, Surrogate):
            raise SnnError(f"train.surrogate={self.surrogate!r}: it should be a surrogate, as ATan(slope=2).")
        if not isinstance(self.loss, Loss):
            raise SnnError(f"train.loss={self.loss!r}: it should be a loss, as CountCrossEntropy().")
        if not isinstance(self.rates, RateBounds | None):
            raise SnnError(f"train.rates={self.rates!r}: it should be bounds, as RateBounds(lower=0.01, upper=0.5).")
        if not isinstance(self.nesterov, bool):
            raise SnnError(f"train.nesterov={self.nesterov!r}: it is True or False.")
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0:
            raise SnnError("train.nesterov=True with train.momentum=0: Nesterov's step needs a momentum, 0.9 for one.")
        if not (isinstance(self.device, str) and self.device):
            raise SnnError(f"train.device={self.device!r}: it should be a text, as 'auto', 'cpu' or 'cuda'.")


@dataclass(frozen=True)
class Experiment:
    """Data, model, training and seed: everything that a run depends on."""

    data: Data
    model: tuple[Layer, ...]
    train: Train = Train()
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.model, tuple | list):
            raise SnnError(f"model={self.model!r}: it should be a tuple of layers, as (Dense(10), LIF(beta=0.9)).")
        object.__setattr__(self, "model", tuple(self.model))
        for place, layer in enumerate(self.model):
            if not isinstance(layer, Layer):
                raise SnnError(f"model.{place}={layer!r}: it should be a layer, as Dense(128) or LIF(beta=0.9).")
        if not isinstance(self.data, Data) or not isinstance(self.train, Train):
            raise SnnError(
                "Experiment: data should be a Data, train a Train, as Experiment(Data('digits'), model, Train())."
            )
        check_number("seed", self.seed, whole=True, low=0)

    def network(self, input_shape: tuple[int, ...]) -> Network:
        """The network as the run starts it, decays computed from the bin width of the data."""
        model = with_step(self.model, step_ms=self.data.step_ms or 1.0)
        how = self.train
        return Network(
            model, input_shape, surrogate=how.surrogate, seed=self.seed, memory=how.memory, target=how.target
        )


CONSTRUCTORS = (
    {kind.__name__: kind for kind in (Data, Train, Experiment, surrogates.Surrogate, neurons.Tau, losses.RateBounds)}
    | {kind.__name__: kind for union in (Layer, Loss) for kind in union.__args__}
    | {name: getattr(surrogates, name) for name in surrogates.SHAPES}
)  # what a JSON file and an override may name; nothing else is ever constructed


def to_json(value: Any) -> Any:
    """The value as JSON holds it: a dataclass becomes an object whose "is" names its kind."""
    if is_dataclass(value) and type(value).__name__ in CONSTRUCTORS:
        content = {field.name: getattr(value, field.name) for field in fields(value)}
        if isinstance(value, Data):
            content["transforms"] = [transform_to_json(transform) for transform in value.transforms]
            return {"is": "Data", **content}
        return {"is": type(value).__name__, **{name: to_json(part) for name, part in content.items()}}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise SnnError(f"{value!r} cannot be written to JSON; an experiment holds numbers, text and the types of snn_bp.")


def from_json(content: Any) -> Any:
    """The value that `to_json` wrote."""
    if isinstance(content, list):
        return tuple(from_json(item) for item in content)
    if not isinstance(content, dict):
        return content
    arguments = dict(content)
    name = arguments.pop("is", None)
    if not isinstance(name, str) or name not in CONSTRUCTORS:
        raise SnnError(f'"is": {name!r} is not a type of snn_bp. {nearest(str(name), CONSTRUCTORS)}')
    if name == "Data":
        described = arguments.pop("transforms", [])
        if not isinstance(described, list) or not all(isinstance(item, dict) for item in described):
            raise SnnError(
                f"transforms: {described!r} should be a list of objects that each name a transform of tonic."
            )
        transforms = tuple(transform_from_json(item) for item in described)
        return _construct(name, (), {**{k: from_json(v) for k, v in arguments.items()}, "transforms": transforms})
    return _construct(name, (), {key: from_json(item) for key, item in arguments.items()})


def override(experiment: Experiment, changes: list[str]) -> tuple[Experiment, list[str]]:
    """The experiment after changes such as `train.lr=1e-3` or `model.1=LIF(beta=0.8)`, and what they changed."""
    said = []
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise SnnError(f"{change!r}: a change is written key=value, as train.lr=1e-3.")
        value, path = parse(text, at=change), key.split(".")
        experiment, before = _changed(experiment, path, value, key)
        said.append(f"{key}={value!r} (was {before!r})")
        if key == "data.step_ms" and not any(other.startswith("data.steps=") for other in changes):
            data = experiment.data
            assert data.step_ms and data.steps
            steps = max(1, round(before * data.steps / data.step_ms))
            experiment = replace(experiment, data=replace(data, steps=steps))
            said.append(f"data.steps={steps} (keeps the window)")
    return experiment, said


def parse(text: str, *, at: str) -> Any:
    """A number, text, True, None, a tuple, or a value of snn_bp such as `ATan(slope=3)`, from text."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return text
    try:
        return _evaluate(tree)
    except LookupError as cause:
        if isinstance(tree, ast.Name | ast.Attribute | ast.BinOp):
            return text  # a bare word or a path
        raise SnnError(f"{at}: {cause.args[0]}") from None


def _evaluate(tree: ast.AST) -> Any:
    if isinstance(tree, ast.Constant):
        return tree.value
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        value = _evaluate(tree.operand)
        if isinstance(value, int | float):
            return -value
    if isinstance(tree, ast.Tuple | ast.List):
        return tuple(_evaluate(item) for item in tree.elts)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        if tree.func.id not in CONSTRUCTORS:
            raise LookupError(f"{tree.func.id} is not a type of snn_bp. {nearest(tree.func.id, CONSTRUCTORS)}")
        if any(item.arg is None for item in tree.keywords):
            raise LookupError(f"{ast.unparse(tree)}: write each argument out; ** is not read.")
        keywords = {str(item.arg): _evaluate(item.value) for item in tree.keywords}
        return _construct(tree.func.id, [_evaluate(item) for item in tree.args], keywords)
    raise LookupError(f"{ast.unparse(tree)} is neither a number, a text, a tuple nor a value such as ATan(slope=2).")


def _construct(name: str, arguments: Any, keywords: dict[str, Any]) -> Any:
    try:
        return CONSTRUCTORS[name](*arguments, **keywords)
    except TypeError as cause:
        raise SnnError(f"{name}: {str(cause).removeprefix(name + '.__init__() ')}.") from None


def _changed(value: Any, path: list[str], new: Any, key: str) -> tuple[Any, Any]:
    """`value` with the part at `path` replaced, and what stood there."""
    if not path:
        if isinstance(new, int) and isinstance(value, float) and not isinstance(new, bool):
            new = float(new)
        return new, value
    head, *rest = path
    if isinstance(value, tuple):
        if not head.isdigit() or int(head) >= len(value):
            raise SnnError(f"{key}: {head!r} is no place among 0..{len(value) - 1}.")
        part, before = _changed(value[int(head)], rest, new, key)
        return (*value[: int(head)], part, *value[int(head) + 1 :]), before
    if not is_dataclass(value) or isinstance(value, type):
        raise SnnError(f"{key}: there is no {head!r}, {value!r} has no parts.")
    known = [field.name for field in fields(value)]
    if head not in known:
        raise SnnError(f"{key}: there is no {head!r}. {nearest(head, known)}")
    part, before = _changed(getattr(value, head), rest, new, key)
    try:
        return replace(value, **{head: part}), before
    except TypeError as cause:
        raise SnnError(f"{key}={new!r}: {cause}.") from None
