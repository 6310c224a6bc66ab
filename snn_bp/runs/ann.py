"""The artificial network of the same shape as a spiking one, so that accuracy and cost can be compared.

Neurons that spike become `torch.nn.ReLU`, and those that put out the answer `torch.nn.Identity`: every other layer
stays the value that it is, at its index, with the shapes of its weights. What has no counterpart is refused by name.
"""

from dataclasses import replace
from functools import singledispatch
from typing import Any, Literal, TypeAlias, get_args

from torch import nn

from snn_bp.data import Data
from snn_bp.data.description import TONIC, source_of
from snn_bp.data.sources import targets_of
from snn_bp.errors import SnnError, check_choice, check_kind
from snn_bp.errors.calls import checked_call
from snn_bp.model.joints import Parallel, Residual
from snn_bp.model.layers import BatchNorm, Conv, Delay, Dense, Dropout, Flatten, Pool, Recurrent, Spiking
from snn_bp.model.losses import CountCrossEntropy, FirstSpike, Loss, MembraneCrossEntropy
from snn_bp.model.names import name_of
from snn_bp.model.own_module import Module
from snn_bp.model.spatial import ConvTranspose, LayerNorm, Unflatten, Upsample
from snn_bp.model.temporal import DelayedDense, TemporalConv
from snn_bp.neurons import Neuron, is_spiking
from snn_bp.runs.experiment import Experiment

Sees: TypeAlias = Literal["summed", "frames"]
RELU, OUTPUT = Module(nn.ReLU), Module(nn.Identity)


@checked_call
def ann_of(experiment: Experiment, *, sees: Sees = "summed") -> Experiment:
    """The experiment of the artificial network of the same shape: ReLUs in place of neurons, the same layers with
    weights, norms, pools, dropout and joints, the same recordings, training and seed.

    Neurons that spike become a ReLU; the last ones, and a readout, put out the answer as it is. Decays, thresholds and
    resets have no counterpart, learned ones included. A loss on spike counts becomes `MembraneCrossEntropy`, the others
    read potentials already; `train.rates`, `train.truncate` and `train.memory` are left out.

    Parameters:
        experiment: the spiking network's, on a `train.target` of "float".
        sees ("summed"): "summed": the events of a recording in one frame, the sum of all frames, and one pass for each
            inference. It is what a spiking network's operations over all its steps are usually compared with (Rueckauer
            et al. 2017; Deng et al. 2020; Davidson & Furber 2021). "frames": each frame by itself, the mean of the
            outputs is the answer, and operations count at every step.

    Raises where there is none: recurrence, delays, layers over time or with a state, own layers and joints.

    >>> spiking = Experiment(Data("digits"), (Flatten(), Dense(64), LIF(beta=0.9), Dense(10), LIF(beta=0.9)))
    >>> ann = ann_of(spiking)  # to be trained as any other: train(ann, "runs/a-ann")
    >>> ann.model[2], ann.model[4], ann.data.steps
    (Module(ReLU), Module(Identity), 1)
    """
    check_kind("ann_of: the experiment", experiment, Experiment, "As in ann_of(Experiment(data=..., model=...)).")
    check_choice("ann_of: sees", sees, get_args(Sees))
    train = experiment.train
    if train.target != "float":
        raise SnnError(
            f"ann_of: train.target={train.target!r} is the arithmetic of spiking neurons on a chip, which has no ReLU. "
            "The experiment with train.target=float has an artificial network."
        )
    if train.start is not None:
        raise SnnError(
            f"ann_of: train.start={train.start.run!r} has the weights of a spiking network. Leave train.start out."
        )
    return replace(
        experiment,
        data=_summed(experiment) if sees == "summed" else experiment.data,
        model=_row(experiment.model),
        train=replace(train, loss=_loss(train.loss), rates=None, truncate=None, memory="full"),
    )


def _summed(experiment: Experiment) -> Data:
    """The data with one frame, as long as all."""
    data = experiment.data
    otherwise = "Each frame by itself goes: --ann frames, or ann_of(experiment, sees='frames')."
    if not data.has_events:
        raise SnnError(f"ann_of: {data.name} has frames, or values, and only events are counted anew. {otherwise}")
    if data.binary:
        raise SnnError(
            f"ann_of: data.binary keeps of a frame which pixels had events, and their sum is none. {otherwise}"
        )
    source = None if data.name.startswith(TONIC) else source_of(data)
    kind = "class" if source is None else targets_of(source).kind  # tonic's sets have classes, and may not be here yet
    if kind not in ("class", "vector", "labels"):
        raise SnnError(f"ann_of: targets of the kind {kind!r} have a value for every step. {otherwise}")
    return replace(data, step_ms=data.window_us / 1000, steps=1)


def _row(model: tuple[Any, ...], path: tuple[int, ...] = (), *, last: bool = True) -> tuple[Any, ...]:
    """The layers of a row; `last`: what it puts out is the answer."""
    found: list[Any] = []
    for index in reversed(range(len(model))):
        found.append(_layer(model[index], (*path, index), last))
        last = last and _hands_on(model[index])
    return tuple(reversed(found))


@singledispatch
def _hands_on(value: Any) -> bool:
    """Whether what a layer puts out is made of its input alone, without weights: it may stand behind the answer."""
    return False


@_hands_on.register(Pool)
@_hands_on.register(Flatten)
@_hands_on.register(Dropout)
def _(value: Any) -> bool:
    return True


@singledispatch
def _layer(value: Any, path: tuple[int, ...], last: bool) -> Any:
    """What stands in the artificial network in place of a layer."""
    raise _refused(value, path, "what it computes is not known here. A Module(...) of a torch module goes as it is.")


@_layer.register(Dense)
@_layer.register(Conv)
@_layer.register(Pool)
@_layer.register(Flatten)
@_layer.register(Dropout)
@_layer.register(BatchNorm)
@_layer.register(LayerNorm)
@_layer.register(ConvTranspose)
@_layer.register(Upsample)
@_layer.register(Unflatten)
def _(value: Any, path: tuple[int, ...], last: bool) -> Any:
    return value


@_layer.register
def _(value: Neuron, path: tuple[int, ...], last: bool) -> Any:
    if last:
        return OUTPUT
    if is_spiking(value):
        return RELU
    raise _refused(value, path, "its potentials go on to other layers. A neuron that spikes becomes a ReLU.")


@_layer.register
def _(value: Spiking, path: tuple[int, ...], last: bool) -> Any:
    return _layer(value.neuron, path, last)


@_layer.register
def _(value: Residual, path: tuple[int, ...], last: bool) -> Any:
    if value.combine != "add":
        raise _refused(value, path, f"combine={value.combine!r} is of spikes, 0 or 1. combine='add' goes.")
    return _joint(value, path, last)


@_layer.register
def _joint(value: Parallel, path: tuple[int, ...], last: bool) -> Any:
    return value.with_branches([_row(row, (*path, n), last=last) for n, row in enumerate(value.branches())])


@_layer.register
def _(value: Module, path: tuple[int, ...], last: bool) -> Any:
    if value.over == "time" or value.stateful:
        raise _refused(value, path, "it looks over steps. A module over rows, without a state, goes as it is.")
    return value


@_layer.register
def _(value: Recurrent, path: tuple[int, ...], last: bool) -> Any:
    raise _refused(value, path, f"its spikes come back a step later. {type(value.neuron).__name__}(...) alone goes.")


@_layer.register(Delay)
@_layer.register(DelayedDense)
@_layer.register(TemporalConv)
def _(value: Any, path: tuple[int, ...], last: bool) -> Any:
    raise _refused(value, path, "it looks back over steps. Leave it out, or use Dense(...) or Conv(...) in its place.")


def _refused(value: Any, path: tuple[int, ...], why: str) -> SnnError:
    return SnnError(f"ann_of: {name_of(path, value)} has no counterpart in a network of ReLUs: {why}")


@singledispatch
def _loss(loss: Any) -> Loss:
    """The loss on outputs that are no spikes; one of the user's says that it is for them."""
    if "potentials" in getattr(loss, "means", ()):
        return loss
    raise SnnError(
        f"ann_of: train.loss={loss} is for spikes, or does not say what it is for. CountCrossEntropy() goes; a loss of "
        "your own says so by means: ClassVar = ('spikes', 'potentials')."
    )


@_loss.register(CountCrossEntropy)
@_loss.register(FirstSpike)
def _(loss: Any) -> Loss:
    return MembraneCrossEntropy(smoothing=loss.smoothing, class_weights=loss.class_weights)
