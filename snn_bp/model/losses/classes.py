"""Losses on classes: one for each recording, or one for every time step, where steps without a label count nothing.

Of recordings that are mixed of two classes targets are soft, the fraction of each class, floats `[batch, classes]`. A
cross entropy is then the sum over classes of theirs, by their fractions: as if so much of a recording had that class,
which by weights of classes counts as much in the mean. Fractions of 0 and 1 give the loss of labels.
"""

from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_bp.errors import SnnError, check_choice, shown
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Called, Within, check_fields
from snn_bp.model.losses.checks import check_batch, check_output, check_spikes, mean_over_time, present, steps_so_far
from snn_bp.model.targets import UNLABELLED, Kind

Output: TypeAlias = Literal["spikes", "potentials"]
Fraction: TypeAlias = Annotated[float, Within(0, 1)]
ClassWeights: TypeAlias = Annotated[
    tuple[float, ...] | None, Within(low=0), Called("numbers, one for each class, as (1.0, 2.5), or None")
]
NO_CLASS = -(2**31)  # what torch leaves out of a cross entropy: no class has this number, -100 is refused as any other


def _scores(loss: Any, out: Tensor, mask: Tensor | None = None, kind: Kind = "class") -> Tensor:
    """What the decision is made of: `[batch, classes]`, of classes for every step `[batch, time, classes]`."""
    check_output(loss, out, mask)
    check_choice(f"{type(loss).__name__}: kind", kind, loss.fits)
    return loss._of_steps(out, mask).transpose(0, 1) if kind == "class per step" else loss._of_recordings(out, mask)


def _cross_entropy(loss: Any, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """The loss without checks."""
    if targets.is_floating_point():
        return _entropy_of_fractions(loss, loss._of_recordings(out, mask), targets)
    if targets.dim() == 1:
        return _entropy(loss, loss._of_recordings(out, mask), targets)
    return _entropy_of_steps(loss, loss._of_steps(out, mask), targets.t(), mask)


def _text(self: Any) -> str:
    """As one would write it: fields at their default left out."""
    given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
    return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in given)})"


def _checked(loss: Any, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """The loss of a batch, once output and targets have been checked."""
    check_batch(loss, out, targets, mask)
    return loss.formula(out, targets, mask)


@checked_dataclass(frozen=True)
class CountCrossEntropy:
    """Cross entropy of the spike counts (of a readout that does not spike: its summed potentials).

    With a class for every step: at every step, of the counts up to there. `smoothing` (0.0, within 0..1) spreads that
    part of each target over all classes; `class_weights` (None) has a weight for each class, and the mean is over the
    weights, as torch's. Output `[time, batch, classes]`, targets `[batch]` or `[batch, time]`, or the fraction of each
    class, floats `[batch, classes]`: the sum over classes of their cross entropies by it.

    >>> CountCrossEntropy()(torch.ones(10, 2, 4), torch.tensor([0, 3]))  # log 4: all classes count alike
    tensor(1.3863)
    """

    smoothing: Fraction = 0.0
    class_weights: ClassWeights = None
    means: ClassVar[tuple[Output, ...]] = ("spikes", "potentials")
    fits: ClassVar[tuple[Kind, ...]] = ("class", "class per step")

    __post_init__ = check_fields
    __repr__ = _text

    def _of_recordings(self, out: Tensor, mask: Tensor | None) -> Tensor:
        out = present(out.float() if out.dtype in (torch.float16, torch.bfloat16) else out, mask)
        return out.sum(0)

    def _of_steps(self, out: Tensor, mask: Tensor | None) -> Tensor:
        return present(out.float() if out.dtype in (torch.float16, torch.bfloat16) else out, mask).cumsum(0)

    scores = _scores
    formula = _cross_entropy
    __call__ = _checked


@checked_dataclass(frozen=True)
class MembraneCrossEntropy:
    """Cross entropy of the potentials' mean over time (of neurons that spike: of their rates).

    With a class for every step: of the potentials of each step. `smoothing` and `class_weights` as in
    `CountCrossEntropy`.

    >>> MembraneCrossEntropy()(torch.zeros(10, 2, 4), torch.tensor([0, 3]))
    tensor(1.3863)
    """

    smoothing: Fraction = 0.0
    class_weights: ClassWeights = None
    means: ClassVar[tuple[Output, ...]] = ("spikes", "potentials")
    fits: ClassVar[tuple[Kind, ...]] = ("class", "class per step")

    __post_init__ = check_fields
    __repr__ = _text

    def _of_recordings(self, out: Tensor, mask: Tensor | None) -> Tensor:
        return mean_over_time(out, mask)

    def _of_steps(self, out: Tensor, mask: Tensor | None) -> Tensor:
        return out

    scores = _scores
    formula = _cross_entropy
    __call__ = _checked


@checked_dataclass(frozen=True)
class MaxCrossEntropy:
    """Cross entropy of the potentials' maximum over time. Zenke & Vogels 2021.

    With a class for every step: of the maximum up to there. `smoothing` and `class_weights` as in `CountCrossEntropy`.

    >>> MaxCrossEntropy(smoothing=0.1)(torch.zeros(10, 2, 4), torch.tensor([0, 3]))
    tensor(1.3863)
    """

    smoothing: Fraction = 0.0
    class_weights: ClassWeights = None
    means: ClassVar[tuple[Output, ...]] = ("potentials",)
    fits: ClassVar[tuple[Kind, ...]] = ("class", "class per step")

    __post_init__ = check_fields
    __repr__ = _text

    def _of_recordings(self, out: Tensor, mask: Tensor | None) -> Tensor:
        return present(out, mask, torch.finfo(out.dtype).min).amax(0)

    def _of_steps(self, out: Tensor, mask: Tensor | None) -> Tensor:
        return present(out, mask, torch.finfo(out.dtype).min).cummax(0).values

    scores = _scores
    formula = _cross_entropy
    __call__ = _checked


@checked_dataclass(frozen=True)
class CountSquaredError:
    """Mean squared distance of the rates (spikes per step) from `right` (0.8) for the true class, `wrong` (0.2) for the
    others.

    Of a readout that does not spike: of its mean potentials. With a class for every step: of the rates up to there. Of
    fractions of classes: from the mixed rates, `wrong` + (`right` - `wrong`) * fraction.

    >>> CountSquaredError()(torch.zeros(10, 1, 2), torch.tensor([0]))  # (0.8^2 + 0.2^2) / 2
    tensor(0.3400)
    """

    right: Fraction = 0.8
    wrong: Fraction = 0.2
    means: ClassVar[tuple[Output, ...]] = ("spikes", "potentials")
    fits: ClassVar[tuple[Kind, ...]] = ("class", "class per step")

    __post_init__ = check_fields

    def _of_recordings(self, out: Tensor, mask: Tensor | None) -> Tensor:
        return mean_over_time(out, mask)

    def _of_steps(self, out: Tensor, mask: Tensor | None) -> Tensor:
        return present(out, mask).cumsum(0) / steps_so_far(out, mask)

    scores = _scores

    def formula(self, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss without checks."""
        if targets.is_floating_point():
            rates = self._of_recordings(out, mask)
            return F.mse_loss(rates, self.wrong + (self.right - self.wrong) * targets.to(rates))
        if targets.dim() == 1:
            rates = self._of_recordings(out, mask)
            wanted = torch.full_like(rates, self.wrong).scatter_(1, targets[:, None], self.right)
            return F.mse_loss(rates, wanted)
        rates, classes = self._of_steps(out, mask), _labelled(targets.t(), mask)
        wanted = torch.full_like(rates, self.wrong).scatter_(2, classes.clamp(min=0)[..., None], self.right)
        return mean_of_steps((rates - wanted).square().mean(2), classes != UNLABELLED)

    __call__ = _checked


@checked_dataclass(frozen=True)
class FirstSpike:
    """Cross entropy of minus the time of the first spike, in units of `scale` (5.0) steps; one class for each
    recording.

    The time is sum_t prod_{k <= t} (1 - s[k]): the steps before the first spike, all steps where none comes. As a
    polynomial in the spikes it has a gradient that pulls spikes earlier, and calls for one where none is. `smoothing`
    and `class_weights` as in `CountCrossEntropy`.

    >>> FirstSpike().scores(torch.eye(10)[:, None, :3])  # spikes at the steps 0, 1 and 2
    tensor([[-0.0000, -0.2000, -0.4000]])
    """

    scale: Annotated[float, Within(above=0)] = 5.0
    smoothing: Fraction = 0.0
    class_weights: ClassWeights = None
    means: ClassVar[tuple[Output, ...]] = ("spikes",)
    fits: ClassVar[tuple[Kind, ...]] = ("class",)

    __post_init__ = check_fields
    __repr__ = _text

    def scores(self, out: Tensor, mask: Tensor | None = None, kind: Kind = "class") -> Tensor:
        """Minus the time of the first spike, in steps / scale."""
        check_output(self, out, mask)
        check_spikes(self, out)
        return self._of_recordings(out, mask)

    def _of_recordings(self, out: Tensor, mask: Tensor | None) -> Tensor:
        before = torch.cumprod(1 - present(out, mask), 0)
        return -present(before, mask).sum(0) / self.scale

    formula = _cross_entropy  # also of smooth spikes that leave 0..1

    def __call__(self, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        check_batch(self, out, targets, mask)
        check_spikes(self, out)
        return self.formula(out, targets, mask)


@checked_dataclass(frozen=True)
class TET:
    """Temporal efficient training: the mean over all steps of the cross entropy at each, and a pull of outputs to
    `mean` (1.0). Deng et al. 2022.

        (1 - weight) * mean_t CE(out[t], class) + weight * mean (out - mean)^2

    `weight` (0.05) lies in 0..1. The decision is made of the mean over time, with a class for every step of each step's
    output. `smoothing` and `class_weights` as in `CountCrossEntropy`.

    >>> TET(weight=0.0)(torch.zeros(10, 2, 4), torch.tensor([0, 3]))
    tensor(1.3863)
    """

    weight: Fraction = 0.05
    mean: float = 1.0
    smoothing: Fraction = 0.0
    class_weights: ClassWeights = None
    means: ClassVar[tuple[Output, ...]] = ("spikes", "potentials")
    fits: ClassVar[tuple[Kind, ...]] = ("class", "class per step")

    __post_init__ = check_fields
    __repr__ = _text

    def _of_recordings(self, out: Tensor, mask: Tensor | None) -> Tensor:
        return mean_over_time(out, mask)

    def _of_steps(self, out: Tensor, mask: Tensor | None) -> Tensor:
        return out

    scores = _scores

    def formula(self, out: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss without checks."""
        distance = (out - self.mean).square().mean(2)
        pull = distance.mean() if mask is None else mean_of_steps(distance, mask)
        if targets.is_floating_point():
            entropy = _entropy_of_fractions(self, out, targets.expand(len(out), *targets.shape), mask)
        else:
            classes = targets.expand(len(out), -1) if targets.dim() == 1 else targets.t()
            entropy = _entropy_of_steps(self, out, classes, mask)
        return (1 - self.weight) * entropy + self.weight * pull

    __call__ = _checked


def mean_of_steps(each: Tensor, counted: Tensor) -> Tensor:
    """The mean of the values `[time, batch]` that count; 0 where none does."""
    return each.masked_fill(~counted, 0.0).sum() / counted.sum().clamp(min=1)


def _labelled(classes: Tensor, mask: Tensor | None) -> Tensor:
    """The classes `[time, batch]`, those behind the end of a recording taken away."""
    return classes if mask is None else classes.masked_fill(~mask, UNLABELLED)


def _entropy(loss: Any, scores: Tensor, targets: Tensor) -> Tensor:
    weights = _weights(loss, scores)
    return F.cross_entropy(scores, targets, weights, ignore_index=NO_CLASS, label_smoothing=loss.smoothing)


def _entropy_of_steps(loss: Any, scores: Tensor, classes: Tensor, mask: Tensor | None) -> Tensor:
    """The mean cross entropy over the steps that have a label, of scores `[time, batch, classes]`; 0 without any."""
    wanted, weights = _labelled(classes, mask).reshape(-1), _weights(loss, scores)
    total = F.cross_entropy(
        scores.reshape(-1, scores.shape[2]), wanted, weights,
        ignore_index=UNLABELLED, label_smoothing=loss.smoothing, reduction="sum",
    )  # fmt: skip
    labelled = wanted != UNLABELLED
    if weights is None:
        return total / labelled.sum().clamp(min=1)
    return total / (weights[wanted.clamp(min=0)] * labelled).sum().clamp(min=torch.finfo(weights.dtype).tiny)


def _entropy_of_fractions(loss: Any, scores: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean cross entropy of scores and targets `[..., classes]` where the mask is true; 0 where it nowhere is."""
    weights, wanted = _weights(loss, scores), targets.to(scores).flatten(0, -2)
    each = F.cross_entropy(scores.flatten(0, -2), wanted, weights, label_smoothing=loss.smoothing, reduction="none")
    counts = torch.ones_like(each) if weights is None else wanted @ weights
    if mask is not None:
        each, counts = each.masked_fill(~mask.flatten(), 0.0), counts * mask.flatten()
    return each.sum() / counts.sum().clamp(min=torch.finfo(counts.dtype).tiny)


def _weights(loss: Any, scores: Tensor) -> Tensor | None:
    if loss.class_weights is None:
        return None
    check_weights(loss, scores.shape[-1])
    return torch.tensor(loss.class_weights, dtype=scores.dtype, device=scores.device)


def check_weights(loss: Any, classes: int) -> None:
    """Raise unless there is a weight for each class, and one that is not 0."""
    weights = getattr(loss, "class_weights", None)
    if weights is not None and (len(weights) != classes or not any(weights)):
        raise SnnError(
            f"{type(loss).__name__}(class_weights={shown(weights)}): there should be one for each of the {classes} "
            "classes, not all of them 0."
        )
