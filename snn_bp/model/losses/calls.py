"""How losses are called: ours and those of users, with a mask or without, and what is asked of one beforehand."""

from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.errors import SnnError, shown
from snn_bp.errors.calls import misfit
from snn_bp.model.blocks import LayerAt, Layers, parts_of, role_of
from snn_bp.model.joints import KEEP_SPIKES
from snn_bp.model.losses.checks import mean_over_time, text_of
from snn_bp.model.losses.classes import (
    TET,
    CountCrossEntropy,
    CountSquaredError,
    FirstSpike,
    MaxCrossEntropy,
    MembraneCrossEntropy,
    Output,
    check_weights,
)
from snn_bp.model.losses.values import BinaryCrossEntropy, MeanSquaredPotential, VanRossum
from snn_bp.model.signatures import called, takes
from snn_bp.model.targets import PER_STEP, UNLABELLED, Kind, Targets
from snn_bp.neurons import is_binary, is_spiking
from snn_bp.runtime.own_lines import in_words

Loss: TypeAlias = (
    CountCrossEntropy
    | MembraneCrossEntropy
    | MaxCrossEntropy
    | CountSquaredError
    | FirstSpike
    | TET
    | MeanSquaredPotential
    | BinaryCrossEntropy
    | VanRossum
)
LOSSES: tuple[type, ...] = Loss.__args__  # type: ignore[attr-defined]
FOR: dict[Kind, str] = {  # what works for targets of a kind
    "class": "CountCrossEntropy()",
    "class per step": "MembraneCrossEntropy()",
    "vector": "MeanSquaredPotential()",
    "vector per step": "MeanSquaredPotential()",
    "labels": "BinaryCrossEntropy()",
    "spikes": "VanRossum(tau=10)",
}
TRIED = 2  # recordings of silence on which a loss of a user's is tried


def loss_of(loss: Any, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """The loss of a batch, by a loss of ours or of the user's; one that takes no mask is refused where there is one."""
    if type(loss) in LOSSES:
        return loss(out, targets, mask)
    options = {"mask": mask} if takes(loss, "mask") else {}
    if mask is not None and not options:
        raise SnnError(
            f"{called(loss)}: recordings have different lengths, and it takes no mask. Let it be called with "
            "(self, out, targets, mask): mask is bool [time, batch], true where a recording has a step."
        )
    try:
        value = loss(out, targets, **options)
    except TypeError:
        if (problem := misfit(loss, (out, targets), options)) is None:
            raise
        raise SnnError(f"{problem} A loss is called with (out, targets), or with (out, targets, mask).") from None
    if not isinstance(value, Tensor) or value.dim():
        raise SnnError(
            f"{called(loss)}: a loss should give a tensor [] that depends on the output, found {text_of(value)}."
        )
    return value


def scores_of(loss: Any, out: Tensor, mask: Tensor | None = None, kind: Kind = "class") -> Tensor:
    """What an answer is made of: `[batch, outputs]`, of targets for every step `[batch, time, outputs]`.

    Of a loss without `scores`: the mean over time, or the output of every step.
    """
    if type(loss) in LOSSES:
        return loss.scores(out, mask, kind)
    scores = getattr(loss, "scores", None)
    if scores is None:
        return out.transpose(0, 1) if kind in PER_STEP else mean_over_time(out, mask)
    if mask is not None and not takes(scores, "mask"):
        raise SnnError(
            f"{called(loss)}: recordings have different lengths, and its scores take no mask. Let them be called with "
            "(self, out, mask): mask is bool [time, batch], true where a recording has a step."
        )
    found = scores(out, **{name: value for name, value in (("mask", mask), ("kind", kind)) if takes(scores, name)})
    steps, batch, _ = out.shape
    wanted = (batch, steps) if kind in PER_STEP else (batch,)
    if not isinstance(found, Tensor) or found.shape[:-1] != wanted or not found.is_floating_point():
        shape = "[batch, time, outputs]" if kind in PER_STEP else "[batch, outputs]"
        raise SnnError(
            f"{called(loss)}: of targets of the kind {kind!r} its scores should be floats {shape}, batch and time "
            f"{list(wanted)} here, found {text_of(found)}."
        )
    return found


def amount_of(targets: Tensor, mask: Tensor | None, kind: Kind) -> int:
    """How many recordings, or of targets for every step how many steps with one, the loss of a batch is the mean of."""
    if kind == "class per step":
        labelled = targets != UNLABELLED
        return int((labelled if mask is None else labelled & mask.t()).sum())
    if kind == "vector per step" and mask is not None:
        return int(mask.sum())
    return len(targets)


def check_loss(loss: Any, network: Layers, targets: Targets | None = None) -> None:
    """Raise unless a loss is for what the network's last layer gives, spikes or potentials, and for such targets.

    A loss of the user's says both by `means` and `fits`, or neither.
    """
    known = type(loss) in LOSSES
    if not known and (not callable(loss) or "__dataclass_fields__" not in vars(type(loss))):
        raise SnnError(
            f"loss={shown(loss)}: it should be a loss, as CountCrossEntropy(), or a frozen dataclass of your own that "
            "can be called with (out, targets)."
        )
    kind = "class" if targets is None else targets.kind
    fits = getattr(loss, "fits", None)
    if fits is not None and kind not in fits:
        raise SnnError(
            f"{loss}: it is for targets of the kind {' or '.join(map(repr, fits))}, these are of the kind {kind!r}. "
            f"train.loss={FOR[kind]} works."
        )
    if targets is not None:
        check_weights(loss, targets.outputs)
    means = getattr(loss, "means", None)
    if means is not None:
        _check_output(loss, network, means)


def takes_soft_targets(loss: Any) -> bool:
    """Whether a loss takes fractions of classes, floats `[batch, classes]`, as it takes classes."""
    return "class" in loss.fits if type(loss) in LOSSES else getattr(loss, "takes_soft_targets", False) is True


def try_loss(loss: Any, targets: Targets, *, steps: int, masked: bool, soft: bool = False) -> None:
    """Raise unless a loss of the user's gives a number with a gradient for an output of silence.

    `soft`: where it is given classes, and in training fractions of them.
    """
    if type(loss) in LOSSES:
        return
    silence = targets.silence(TRIED, steps)
    for given in (silence, F.one_hot(silence, targets.outputs).float()) if soft else (silence,):
        _try_on(loss, given, targets, steps=steps, masked=masked)


def _try_on(loss: Any, given: Tensor, targets: Targets, *, steps: int, masked: bool) -> None:
    out = torch.zeros(steps, TRIED, targets.outputs, requires_grad=True)
    mask = torch.ones(steps, TRIED, dtype=torch.bool) if masked else None
    with torch.enable_grad():
        try:
            value = loss_of(loss, out, given, mask)
            scores_of(loss, out, mask, targets.kind)
        except SnnError:
            raise
        except Exception as cause:  # whatever a user's code may raise
            raise SnnError(
                f"{called(loss)}: it breaks on an output [time, batch, outputs] of zeros {list(out.shape)} and targets "
                f"of the kind {targets.kind!r} {list(given.shape)}: {in_words(cause)}"
            ) from cause
    if not value.requires_grad:
        raise SnnError(
            f"{called(loss)}: a loss should give a tensor [] that depends on the output, found a number without a "
            "gradient."
        )


def smooth_loss(loss: Any, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """The loss of spikes that have been made smooth, which may leave 0..1."""
    return loss.formula(out, targets, mask) if type(loss) in LOSSES else loss_of(loss, out, targets, mask)


def _check_output(loss: Any, network: Layers, means: tuple[Output, ...]) -> None:
    last = next((part.layer for part in reversed(parts_of(network)) if not _keeps_spikes(part)), None)
    neuron: Any = last.neuron if last is not None and role_of(last) == "neurons" else None
    output: Output = "spikes" if _gives_spikes(parts_of(network)) else "potentials"
    name = type(neuron or last).__name__
    if neuron is not None and is_spiking(neuron) and not is_binary(neuron):  # spikes, and of different sizes
        if type(loss) is not FirstSpike:
            return
        raise SnnError(
            f"{loss}: it needs spikes, 0 or 1, and the last layer ({name}) gives other values. Let its step return "
            "spike(...) alone, or use CountCrossEntropy()."
        )
    if output in means:
        return
    if output == "spikes" and type(loss) is not MaxCrossEntropy:
        raise SnnError(
            f"{loss}: it is for potentials, and the last layer ({name}) gives spikes. End the model with LI(beta=0.9)."
        )
    if output == "spikes":
        raise SnnError(
            f"{loss}: it looks for the largest potential, and the last layer ({name}) gives spikes, which are all as "
            "large. End the model with LI(beta=0.9), or use CountCrossEntropy()."
        )
    other = ", or use MaxCrossEntropy()" if type(loss) is FirstSpike else ""
    raise SnnError(
        f"{loss}: it needs neurons that spike, and the last layer ({name}) does not. End the model with one that does, "
        f"as LIF(beta=0.9){other}."
    )


def _gives_spikes(row: list[LayerAt], enters: bool = False) -> bool:
    """Whether a row of layers gives nothing but spikes, where spikes enter it or not."""
    for part in row:
        if part.role == "joint":
            branches = [_gives_spikes(branch, enters) for branch in part.branches]
            enters = part.layer.kind in KEEP_SPIKES and all(branches)
        elif part.role == "neurons":
            enters = is_spiking(part.layer.neuron)  # type: ignore[arg-type]
        else:
            enters = enters and _keeps_spikes(part)
    return enters


def _keeps_spikes(part: LayerAt) -> bool:
    """Whether a layer makes spikes of spikes."""
    return part.role in ("flatten", "delay") or isinstance(part.layer, nn.MaxPool1d | nn.MaxPool2d)
