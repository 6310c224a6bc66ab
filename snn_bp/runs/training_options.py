"""How a network learns, as values: `Train`, where weights come from (`Start`), and when it is enough (`Patience`)."""

import math
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from snn_bp.chip.arithmetic import Target, hardware_of
from snn_bp.errors import SnnError, as_path, is_number, shown
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Called, OrOwn, Within, check_fields
from snn_bp.model.losses import CountCrossEntropy, Loss, RateBounds
from snn_bp.model.metrics import Metric
from snn_bp.surrogates import ATan, Surrogate

Fraction = Annotated[float, Within(0, 1)]
Positive = Annotated[float, Within(above=0)]
Count = Annotated[int, Within(low=1)]
OwnLoss = OrOwn((("__call__",),))
OwnMetric = OrOwn((("__call__",),))
OwnStop = OrOwn((("__call__",),))
LayerKeys: TypeAlias = Annotated[tuple[int | str, ...], Called('indexes of layers, as (0, 1), or keys as "3.0.1"')]


@checked_dataclass(frozen=True)
class Start:
    """The weights of another run, norm statistics included, from which a training begins: all of them, in place of
    drawn ones. The run's path and a hash of its weights stand in `provenance.json`.

    Parameters:
        run: the folder of that run.
        checkpoint ("best"): "best" or "last".
        but (()): layers that begin as they would without, by index or by key as "3.0.1" within joints: a readout for
            other classes.

    >>> Train(start=Start("runs/a", but=(6,))).start
    Start(run='runs/a', checkpoint='best', but=(6,))
    """

    run: str
    checkpoint: Literal["best", "last"] = "best"
    but: LayerKeys = ()

    def __post_init__(self) -> None:
        if isinstance(self.run, str) and not self.run:
            raise SnnError("Start(run=''): it should be the folder of a run, as Start('runs/a').")
        object.__setattr__(self, "run", str(as_path("Start(run)", self.run)))
        check_fields(self)
        check_keys("Start(but)", self.but)


@checked_dataclass(frozen=True)
class Patience:
    """Stops a training once the figure that `keep` follows has not been better, by more than `margin` (0.0), for so
    many `epochs` (5).

    A rule of your own is a frozen dataclass called with that figure of every epoch so far, larger is better, that says
    whether to stop: `__call__(self, history)`; with `__call__(self, history, rows)` it sees the rows of `metrics.csv`.

    >>> Patience(epochs=2)([0.5, 0.7, 0.7, 0.6])
    True
    """

    epochs: Count = 5
    margin: Annotated[float, Within(low=0)] = 0.0

    __post_init__ = check_fields

    def __call__(self, history: Sequence[float]) -> bool:
        """Whether to stop behind these epochs."""
        if not isinstance(history, tuple | list):
            raise SnnError(f"Patience: it takes the figure of every epoch so far, a list, found {shown(history)}.")
        best, at = -math.inf, 0
        for epoch, value in enumerate(history):
            if value > best + self.margin:
                best, at = value, epoch
        return len(history) - 1 - at >= self.epochs


if TYPE_CHECKING:  # which cannot say "or a dataclass of the user's", nor that a path becomes a `Start`
    AnyLoss: TypeAlias = Any
    AnyMetric: TypeAlias = Any
    AnyStop: TypeAlias = Any
    AnyStart: TypeAlias = Any
else:
    AnyLoss, AnyMetric, AnyStop, AnyStart = Loss, Metric, Patience, Start


@checked_dataclass(frozen=True)
class Train:
    """How a network learns. The schedule runs over all steps of all epochs, so a resumed run follows the same one.

    Parameters:
        epochs (15): passes over the training split.
        lr (2e-3): learning rate at its highest.
        optimizer ("adamw"): "adamw", "adam" or "sgd", torch's.
        momentum (0.9): of "sgd", which alone has one.
        nesterov (False): Nesterov's step, of "sgd".
        weight_decay (1e-4): of synaptic weights alone; biases, norms and neuron parameters do not decay.
        schedule ("cosine"): how the rate falls: "constant", "cosine" (to 0 at the end) or "step".
        step_epochs (10), step_factor (0.1): with "step", after every so many epochs the rate falls by this factor.
        warmup (0.1): in this first fraction of all steps the rate climbs from 0.
        clip (1.0): largest norm of the whole gradient; None leaves it.
        loss (CountCrossEntropy()): what is minimised, one of the losses or your own.
        surrogate (ATan()): what a spike's derivative is replaced by.
        rates (None): a penalty on rates beside the loss, as `RateBounds(lower=0.01, upper=0.5)`.
        truncate (None): backpropagate so many time steps at a time; None: through all.
        keep ("best"): what is evaluated in the end: "best" on validation by the metric, or the "last" epoch.
        autocast (None): "bfloat16" computes layers without state in that precision.
        memory ("full"): "low": dense layers keep no potentials and compute them again.
        target ("float"): "loihi", "fpga", a `Fixed(...)` or "xylo": the forward pass is that chip's or circuit's, in
            integers.
        freeze_norm (0.25): with another target than "float", in this last fraction of all epochs norms keep their
            running statistics.
        device ("auto"): "auto", a GPU where there is one, or "cpu", "cuda:0".
        metric (None): what `keep` and the results go by; None: what is usual for the kind of the targets.
        start (None): the folder of a run, or `Start(...)`, from whose weights it begins.
        freeze (()): layers whose weights, and norms' statistics, stay as they begin; by index, or by key as "3.0.1".
        lr_of (()): layers and the factor of their learning rate: {3: 0.1}, kept as ((3, 0.1),).
        accumulate (1): batches to a step of the optimizer; the last of an epoch may have fewer. Under torchrun each
            is run whole by one process, where there is one for each of them.
        average (None): decay per step of a running average of the weights, 0..0.999999, which is what validation sees
            and the best checkpoint holds.
        stop (None): when to stop early, as `Patience(epochs=5)`.
        sampler ("shuffled"): "balanced": recordings drawn anew, each class as often.
        test ("at end"): "never": the test split is left for later, as in a sweep.

    >>> Train(epochs=50, lr=1e-3, optimizer="sgd", schedule="step").schedule
    'step'
    """

    epochs: Count = 15
    lr: Positive = 2e-3
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: Fraction = 1e-4
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    step_epochs: Count = 10
    step_factor: Positive = 0.1
    warmup: Fraction = 0.1
    clip: Annotated[float | None, Within(above=0)] = 1.0
    loss: Annotated[AnyLoss, Called("a loss, as CountCrossEntropy()"), OwnLoss] = CountCrossEntropy()
    surrogate: Annotated[Surrogate, Called("a surrogate, as ATan(slope=2)")] = ATan()
    rates: Annotated[RateBounds | None, Called("bounds, as RateBounds(lower=0.01, upper=0.5), or None")] = None
    truncate: Annotated[int | None, Within(low=1)] = None
    keep: Literal["best", "last"] = "best"
    autocast: Literal["bfloat16"] | None = None
    memory: Literal["full", "low"] = "full"
    target: Target = "float"
    freeze_norm: Fraction = 0.25
    device: str = "auto"
    metric: Annotated[AnyMetric | None, Called("a metric, as BalancedAccuracy(), or None"), OwnMetric] = None
    start: Annotated[AnyStart | None, Called("the folder of a run, Start('runs/a', but=(6,)), or None")] = None
    freeze: LayerKeys = ()
    lr_of: Any = ()
    accumulate: Count = 1
    average: Annotated[float | None, Within(0, 0.999999)] = None
    stop: Annotated[AnyStop | None, Called("when to stop early, as Patience(epochs=5), or None"), OwnStop] = None
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    test: Literal["at end", "never"] = "at end"

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr_of", _rates_of_layers(self.lr_of))
        if isinstance(self.start, str | PurePath):
            try:
                object.__setattr__(self, "start", Start(str(self.start)))
            except SnnError as cause:
                raise SnnError(f"Train(start): {cause}") from None
        check_fields(self)
        check_keys("Train(freeze)", self.freeze)
        if self.target not in ("float", "xylo"):
            hardware_of(self.target)
        if self.target != "float" and (self.truncate or self.autocast or self.memory == "low"):
            raise SnnError(
                f"train.target={self.target!r}: recordings run whole, in integers. Leave train.truncate, "
                "train.autocast and train.memory as they are."
            )
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0:
            raise SnnError("train.nesterov=True with train.momentum=0: Nesterov's step needs a momentum, 0.9 for one.")
        if not re.fullmatch("[a-z]+(:[0-9]{1,3})?", self.device):
            raise SnnError(f"Train(device={shown(self.device)}): it should be a device, as 'auto', 'cpu' or 'cuda:0'.")

    @property
    def beyond_steps(self) -> list[str]:
        """Which fields are asked for that only the training loop knows, in which epochs follow each other."""
        only = ("start", "freeze", "lr_of", "accumulate", "average", "stop", "sampler", "test")
        usual = type(self)()
        return [name for name in only if getattr(self, name) != getattr(usual, name)]


def check_keys(asker: str, keys: Sequence[int | str]) -> None:
    """Raise unless each is the index of a layer, or a key of one within joints."""
    for key in keys:
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6}\.[0-9]{1,6})*", str(key)):
            raise SnnError(
                f"{asker}: {shown(key)} is no layer. It should be an index from 0 up, or a key as '3.0.1': within the "
                "joint 3, of branch 0 the layer 1."
            )


def _rates_of_layers(value: Any) -> tuple[tuple[int | str, float], ...]:
    pairs = value.items() if isinstance(value, dict) else value
    told = f"Train(lr_of={shown(value)}): it should have layers and factors above 0, as {{3: 0.1}} or ((3, 0.1),)."
    if not isinstance(pairs, tuple | list) and not isinstance(value, dict):
        raise SnnError(told)
    found = []
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise SnnError(told)
        key, factor = pair
        if isinstance(key, bool) or not isinstance(key, int | str) or not is_number(factor) or not factor > 0:
            raise SnnError(told)
        check_keys("Train(lr_of)", (key,))
        found.append((key, float(factor)))
    if len({str(key) for key, _ in found}) < len(found):
        raise SnnError(f"{told} A layer stands there twice.")
    return tuple(found)
