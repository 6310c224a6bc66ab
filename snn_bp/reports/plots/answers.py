"""One recording and what a network made of it: its frames, the activity of every layer, its answer and the target."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn_bp.model.losses import Loss, scores_of
from snn_bp.model.targets import UNLABELLED, Targets
from snn_bp.reports.plots.recordings import NAMED, STRIP_FRAMES, _draw_scores, _show, frames_of
from snn_bp.reports.plots.style import LINES, figure, short, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 3  # panels of activity in a row
MANY = 300  # points, from which on they are drawn as a picture within the picture


class StepCounts(NamedTuple):
    """Events or spikes at every step of one recording, `[time]`, and the mean of the recordings it is compared with."""

    name: str
    unit: str  # "" where values are no counts
    counts: np.ndarray
    usual: np.ndarray | None


@styled
def answer(
    x: Tensor, activity: Sequence[StepCounts], out: Tensor, target: Tensor, *, targets: Targets, loss: Loss,
    step_ms: float | None = None,
) -> "Figure":  # fmt: skip
    """What the network saw of one recording, what its layers did at every step, and its answer beside the target.

    `x` is `[time, C, H, W]`, `[time, N]`, or of another shape, which has no picture; `out` is `[time, outputs]`.
    """
    images, rows = x.dim() == 4, -(-len(activity) // ACROSS)
    heights = [1.4] * (x.dim() in (2, 4)) + [1.35 * rows] * bool(rows) + [2.3]
    drawn = figure(8, sum(heights))
    parts = iter(drawn.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    if x.dim() in (2, 4):
        frames = frames_of(x)
        shown = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), STRIP_FRAMES)).astype(int))
        for axis, step in zip(
            next(parts).subplots(1, len(shown) if images else 1, squeeze=False)[0], shown, strict=False
        ):
            _show(axis, frames[step] if images else frames.T, frames)
            axis.set_title(f"step {step}" if images else "input of each channel over time", fontsize=9)
    if rows:
        axes = next(parts).subplots(rows, ACROSS, sharex=True, squeeze=False).ravel()
        for axis, each in zip(axes, activity, strict=False):
            _draw_counts(axis, each)
        for axis in axes[len(activity) :]:
            axis.set_visible(False)
    _draw_answer(next(parts).subplots(), out, target, targets, loss, step_ms)
    return drawn


@torch.no_grad()
def scores_so_far(out: Tensor, targets: Targets, loss: Loss) -> np.ndarray:
    """The scores of one recording's output `[time, outputs]` up to each step, `[time, outputs]`."""
    one = out[:, None].detach().cpu()
    return torch.cat([scores_of(loss, one[: step + 1], kind=targets.kind) for step in range(len(one))]).numpy()


def _draw_counts(axis, each: StepCounts) -> None:
    steps = np.arange(len(each.counts))
    many = len(steps) > MANY
    axis.fill_between(steps, each.counts, step="mid", color="#9aa7b5", linewidth=0, rasterized=many)
    said = f"{_amount(each.counts)} {each.unit}" if each.unit else f"sum {_amount(each.counts)}"
    if each.usual is not None:
        axis.plot(
            each.usual,
            color="black",
            linestyle="--",
            linewidth=0.6 if many else 1.2,
            drawstyle="steps-mid",
            rasterized=many,
        )
        said += f" (usually {_amount(each.usual)})"
    axis.set_title(f"{short(each.name, 42)}\n{said}", loc="left", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.set_ylim(bottom=0)
    axis.xaxis.get_major_locator().set_params(integer=True)


def _amount(counts: np.ndarray) -> str:
    total = float(counts.sum())
    return f"{total:,.0f}" if total >= 10 or total.is_integer() else f"{total:.1f}"


def _draw_answer(axis, out: Tensor, target: Tensor, targets: Targets, loss: Loss, step_ms: float | None) -> None:
    kind, names = targets.kind, targets.names
    if kind == "class":
        _draw_scores(axis, scores_so_far(out, targets, loss), list(names), int(target), step_ms)
        return
    if kind == "class per step":
        _draw_classes(axis, scores_of(loss, out[:, None], kind=kind)[0].argmax(1).numpy(), target.numpy(), names)
    elif kind == "spikes":
        _draw_spikes(axis, out.numpy(), target.numpy(), names)
    elif kind == "vector per step":
        _draw_values(axis, scores_of(loss, out[:, None], kind=kind)[0].numpy(), target.numpy(), names)
    else:
        values = scores_so_far(out, targets, loss)
        wanted = None if kind == "labels" else np.broadcast_to(target.numpy(), values.shape)
        true = [name + ", true" * (kind == "labels" and bool(target[row] > 0.5)) for row, name in enumerate(names)]
        _draw_values(axis, values, wanted, true)
        if kind == "labels":
            axis.axhline(0, color="#8c8c8c", linewidth=0.8)  # above it a label is given
        axis.set_ylabel("scores up to here" if kind == "labels" else "output up to here")
    scale = max(1.0, len(names) / 25) if kind == "spikes" else 1.0  # dots of many outputs are small
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), markerscale=min(4.0, scale))
    axis.set_xlabel("time step" + (f" of {step_ms:g} ms" if step_ms else ""))
    axis.xaxis.get_major_locator().set_params(integer=True)


def _draw_values(axis, values: np.ndarray, wanted: np.ndarray | None, names: Sequence[str]) -> None:
    """Outputs as lines, and thin and dotted in the same colour what was wanted; of many outputs those farthest off."""
    off = np.abs(values[-1]) if wanted is None else np.abs(values - wanted).mean(0)
    for index, (color, _, marker) in zip(np.argsort(-off, kind="stable")[:NAMED], LINES, strict=False):
        every = max(1, len(values) // 12)
        axis.plot(values[:, index], color=color, marker=marker, markersize=4, markevery=every, label=names[index])
        if wanted is not None:
            axis.plot(wanted[:, index], color=color, linestyle=":", label=f"{names[index]}, target")
    if len(names) > NAMED:
        axis.plot([], [], " ", label=f"{len(names) - NAMED} others are not drawn")
    axis.set_ylabel("output")


def _draw_classes(axis, predicted: np.ndarray, true: np.ndarray, names: Sequence[str]) -> None:
    """The class of every step: what was wanted as a broad line, the answer as a thin one."""
    length = min(len(predicted), len(true))
    wanted = np.where(true[:length] == UNLABELLED, np.nan, true[:length].astype(float))
    axis.plot(wanted, color="#9aa7b5", linewidth=6, drawstyle="steps-mid", solid_capstyle="butt", label="target")
    axis.plot(predicted[:length], color=LINES[1][0], linewidth=1.2, drawstyle="steps-mid", label="answer")
    axis.set_yticks(range(len(names)), names)


def _draw_spikes(axis, spikes: np.ndarray, target: np.ndarray, names: Sequence[str]) -> None:
    """Spikes of every output as dots on squares, the target's."""
    size = min(9.0, max(2.0, 100 / len(names)))
    for values, marker, points, color, label in (
        (target, "s", size, "#9aa7b5", "target"), (spikes, "o", 0.5 * size, LINES[1][0], "answer"),
    ):  # fmt: skip
        steps, rows = np.nonzero(values)
        look = {"markersize": points, "color": color, "markeredgewidth": 0, "rasterized": len(steps) > MANY}
        axis.plot(steps, rows, marker, label=label, **look)
    axis.set_xlim(-0.5, len(spikes) - 0.5)
    axis.set_ylim(-0.7, len(names) - 0.3)
    if len(names) > 12:
        axis.set_ylabel("output")
    else:
        axis.set_yticks(range(len(names)), names)
