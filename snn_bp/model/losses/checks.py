"""What a loss, or a metric, checks of a batch: output, targets and mask; and sums over the steps that are there."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError
from snn_bp.model.targets import PER_STEP, UNLABELLED

ONE_TO = 1e-3  # to which the fractions of classes add up to 1, in half precision too


def check_batch(loss: Any, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> None:
    """Raise unless `out` is `[time, batch, outputs]`, and targets and mask go with it and with what the loss fits.

    On a GPU the range of the targets is left to the kernels, which stop at a class that is not there: to look from
    here would wait for the network in every step.
    """
    name = type(loss).__name__
    check_output(loss, out, mask)
    for_classes = "class" in loss.fits or "class per step" in loss.fits
    (_check_classes if for_classes else _check_values)(loss, out, targets)
    if targets.device != out.device:
        raise SnnError(f"{name}: targets are on {targets.device}, the output on {out.device}. Use targets.to(device).")


def check_output(loss: Any, out: Any, mask: Any = None) -> None:
    """Raise unless `out` is `[time, batch, outputs]`, floats, and the mask goes with it."""
    name = type(loss).__name__
    if not _are_floats(out) or out.dim() != 3 or 0 in out.shape:
        raise SnnError(f"{name}: the output should be floats [time, batch, classes], found {text_of(out)}.")
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != out.shape[:2]:
        steps, batch = out.shape[:2]
        raise SnnError(f"{name}: the mask should be bool [time, batch] = [{steps}, {batch}], found {text_of(mask)}.")
    if mask.device != out.device:
        raise SnnError(f"{name}: the mask is on {mask.device}, the output on {out.device}. Use mask.to(device).")


def _are_floats(given: Any) -> bool:
    return isinstance(given, Tensor) and given.is_floating_point() and given.layout is torch.strided


def check_scores(metric: Any, scores: Any, targets: Any, mask: Any) -> None:
    """Raise unless scores and targets are finite numbers of a kind that the metric fits, and the mask goes along."""
    name, told = type(metric).__name__, f"found scores {text_of(scores)} and targets {text_of(targets)}"
    if not _are_floats(scores) or scores.is_meta or not isinstance(targets, Tensor):
        raise SnnError(f"{name}: it takes tensors, scores as floats, {told}.")
    words, fitting = [], False
    for kind in metric.fits:
        axes, classes = (
            ("batch", "time", "outputs") if kind in PER_STEP else ("batch", "outputs"),
            kind.startswith("class"),
        )
        shape = scores.shape[: len(axes) - classes]
        right = targets.dtype == torch.int64 if classes else targets.is_floating_point()
        fitting |= right and scores.dim() == len(axes) and targets.shape == shape
        words.append(
            f"scores [{', '.join(axes)}] with {'int64' if classes else 'floats'} [{', '.join(axes[: len(shape)])}]"
        )
    if not fitting:
        raise SnnError(f"{name}: it takes {' or '.join(words)}, {told}.")
    if not all(bool(torch.isfinite(each).all()) for each in (scores, targets)):
        raise SnnError(f"{name}: scores or targets hold NaN or infinity. Leave such recordings out.")
    if not targets.is_floating_point():
        _check_range(name, targets, scores.shape[-1])
    if mask is None:
        return
    ends = scores.shape[1::-1] if scores.dim() == 3 else scores.shape[:1]
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 2 or mask.shape[-len(ends) :] != ends:
        raise SnnError(
            f"{name}: the mask should be bool [time, batch], found {text_of(mask)}, scores {text_of(scores)}."
        )


def check_spikes(loss: Any, out: Tensor) -> None:
    """Raise where the output leaves 0..1, which no spike does; a NaN is for whoever looks for NaNs."""
    if isinstance(out, Tensor) and out.numel() and out.is_floating_point() and _has_values(out):
        least, most = (float(end) for end in out.detach().aminmax())
        if least < 0 or most > 1:
            raise SnnError(
                f"{type(loss).__name__}: it needs spikes, 0 or 1, and the output lies in {least:.4g}..{most:.4g}: "
                "potentials. End the model with a neuron that spikes, as LIF(beta=0.9), or use MaxCrossEntropy()."
            )


def text_of(value: Any) -> str:
    """What a message calls something: type and shape of a tensor."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def present(out: Tensor, mask: Tensor | None, otherwise: float = 0.0) -> Tensor:
    """The output `[time, batch, outputs]`, with another value at steps that a recording does not have."""
    return out if mask is None else out.masked_fill(~mask[..., None], otherwise)


def mean_over_time(out: Tensor, mask: Tensor | None) -> Tensor:
    """The mean `[batch, outputs]` over the steps that each recording has."""
    if mask is None:
        return out.mean(0)
    return present(out, mask).sum(0) / mask.sum(0).clamp(min=1)[:, None]


def steps_so_far(out: Tensor, mask: Tensor | None) -> Tensor:
    """How many steps each recording has had up to each step, `[time, batch or 1, 1]`; at least 1."""
    if mask is None:
        return torch.arange(1, len(out) + 1, device=out.device)[:, None, None]
    return mask.cumsum(0).clamp(min=1)[..., None]


def _check_classes(loss: Any, out: Tensor, targets: Tensor) -> None:
    name = type(loss).__name__
    steps, batch, classes = out.shape
    if isinstance(targets, Tensor) and targets.is_floating_point() and targets.shape == (batch, classes):
        _check_fractions(name, targets)
        return
    per_step = "class per step" in loss.fits
    shapes = {(batch,), (batch, steps)} if per_step else {(batch,)}
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64 or tuple(targets.shape) not in shapes:
        raise SnnError(
            f"{name}: targets should be the classes of the {batch} samples, int64 [{batch}], found {text_of(targets)}."
            f"{' Use targets.long().' if isinstance(targets, Tensor) and tuple(targets.shape) in shapes else ''}"
            f"{f' With a class for every step they are int64 [{batch}, {steps}].' if per_step else ''}"
            f" Fractions of classes are floats [{batch}, {classes}]."
        )
    if targets.device.type == "cpu" and _has_values(targets):
        _check_range(name, targets, classes)


def _check_fractions(name: str, targets: Tensor) -> None:
    """Raise unless targets are fractions of classes: none below 0, those of a recording 1 together."""
    if targets.device.type != "cpu" or not _has_values(targets):
        return
    least, sums = float(targets.amin()), targets.sum(1)
    if not (least >= 0 and torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=ONE_TO)):
        raise SnnError(
            f"{name}: targets [batch, classes] should be the fraction of each class, of a recording 1 together, found "
            f"values from {least:.4g} on and sums of {float(sums.amin()):.4g}..{float(sums.amax()):.4g}. Classes "
            f"themselves are int64 [{len(targets)}]."
        )


def _check_range(name: str, targets: Tensor, classes: int) -> None:
    """Raise unless all targets are classes, of steps -1 too."""
    if not targets.numel():
        return
    least, most = (int(end) for end in targets.aminmax())
    lowest = UNLABELLED if targets.dim() == 2 else 0
    if not lowest <= least <= most < classes:
        wrong = least if least < lowest else most
        steps_without = f", {UNLABELLED} where a step has none" if lowest else ""
        raise SnnError(f"{name}: a target is {wrong}, the output has the classes 0..{classes - 1}{steps_without}.")


def _check_values(loss: Any, out: Tensor, targets: Tensor) -> None:
    steps, batch, outputs = out.shape
    shapes = {(batch, steps, outputs) if kind in PER_STEP else (batch, outputs) for kind in loss.fits}
    if not isinstance(targets, Tensor) or not targets.is_floating_point() or tuple(targets.shape) not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in sorted(shapes, key=len))
        raise SnnError(
            f"{type(loss).__name__}: targets should be floats {wanted}, found {text_of(targets)}."
            f"{' Use targets.float().' if isinstance(targets, Tensor) and tuple(targets.shape) in shapes else ''}"
        )
    if targets.device.type == "cpu" and _has_values(targets):
        least, most = (float(end) for end in targets.aminmax())
        if not (math.isfinite(least) and math.isfinite(most)):
            raise SnnError(f"{type(loss).__name__}: targets hold NaN or infinity. Leave such recordings out.")
        if {"labels", "spikes"} & {*loss.fits} and (least < 0 or most > 1):
            raise SnnError(f"{type(loss).__name__}: targets should be 0 or 1, found values in {least:.4g}..{most:.4g}.")


def _has_values(given: Tensor) -> bool:
    """Whether numbers can be read from here: not while torch compiles, captures, batches or only counts shapes."""
    return (
        type(given) in (Tensor, nn.Parameter)
        and given.device.type != "meta"
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(given)  # type: ignore[attr-defined]
        and not (given.is_cuda and torch.cuda.is_current_stream_capturing())
    )
