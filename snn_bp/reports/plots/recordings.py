"""What one recording looks like and how the network's scores grow with it: a strip for a page, a movie."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from snn_bp.errors import SnnError, check_number
from snn_bp.model.losses import CountCrossEntropy, Loss, scores_of
from snn_bp.reports.plots.style import LINES, figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRIP_FRAMES, MOVIE_FRAMES = 8, 60  # at most
NAMED = 4  # classes whose scores are told apart; the others are thin lines


@styled
def event_strip(
    x: Tensor, out: Tensor, *, target: int | None, sample: int = 0, loss: Loss = CountCrossEntropy(),  # noqa: B008 - frozen
    class_names: Sequence[str] = (), step_ms: float | None = None,
) -> "Figure":  # fmt: skip
    """Frames of a recording, and below the scores of the output up to each step, without a `target` the output itself.

    `x` is `[time, batch, C, H, W]` or `[time, batch, N]`, `out` `[time, batch, classes]`, longer than `x` where the
    network answers late, as a chip does. Of two channels (OFF, ON) ON is white and OFF black on grey; a row of channels
    is one picture, channel over time.
    """
    frames, scores, names = recording_of(x, out, sample, None if target is None else loss, class_names)
    images = frames.ndim == 3
    shown = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), STRIP_FRAMES)).astype(int)) if images else [0]
    drawn = figure(8, 4.6)
    halves = drawn.subfigures(2, 1, squeeze=False, height_ratios=(1, 2))[:, 0]
    for axis, step in zip(halves[0].subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _show(axis, frames[step] if images else frames.T, frames)
        axis.set_title(f"step {step}" if images else "events of each channel over time", fontsize=9)
    _draw_scores(halves[1].subplots(), scores, names, target, step_ms)
    return drawn


@styled
def event_movie(
    x: Tensor, out: Tensor, *, target: int | None, sample: int = 0, loss: Loss = CountCrossEntropy(),  # noqa: B008 - frozen
    class_names: Sequence[str] = (), step_ms: float | None = None,
) -> bytes:  # fmt: skip
    """An animated GIF of what `event_strip` shows, in the recording's own time but 5 pictures a second at most."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image  # comes with matplotlib

    frames, scores, names = recording_of(x, out, sample, None if target is None else loss, class_names)
    drawn = figure(8, 2.9)
    drawn.set_dpi(100)
    canvas = FigureCanvasAgg(drawn)
    left, right = drawn.subplots(1, 2, width_ratios=(1, 1.2))
    images = frames.ndim == 3
    picture = _show(left, frames[0] if images else frames.T, frames)
    _draw_scores(right, scores, names, target, step_ms)
    now = right.axvline(0, color="black", linewidth=1)
    left.set_title("step", fontsize=9)  # which takes its room
    canvas.draw()
    drawn.set_layout_engine("none")  # the first layout stays, or the picture would jump
    moving, shots = (picture, now, left.title), []
    for artist in moving:
        artist.set_animated(True)
    canvas.draw()
    still = canvas.copy_from_bbox(drawn.bbox)  # what does not move is drawn once
    steps = np.unique(np.linspace(0, len(scores) - 1, min(len(scores), MOVIE_FRAMES)).astype(int))
    for step in steps:
        if images:
            picture.set_data(frames[step] if step < len(frames) else np.zeros_like(frames[0]))
        else:
            picture.set_data(np.where(np.arange(len(frames)) <= step, frames.T, 0))
        left.set_title(f"step {step} of {len(scores) - 1}", fontsize=9)
        now.set_xdata([step, step])
        canvas.restore_region(still)
        for artist in moving:
            drawn.draw_artist(artist)
        shots.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64))
    pause = max(200, round((step_ms or 0) * len(scores) / len(steps)))
    content = io.BytesIO()
    shots[0].save(content, format="GIF", save_all=True, append_images=shots[1:], duration=pause, loop=0)
    return content.getvalue()


@torch.no_grad()
def recording_of(
    x: Tensor, out: Tensor, sample: int, loss: Loss | None, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A sample's frames `[time, H, W]` or `[time, N]`, scores up to each step `[time, classes]`, names of classes."""
    if x.dim() not in (3, 5) or out.dim() != 3 or len(x) > len(out) or x.shape[1] != out.shape[1]:
        raise SnnError(
            "events: x should be [time, batch, C, H, W] or [time, batch, N] and out [time, batch, classes], "
            f"found {list(x.shape)} and {list(out.shape)}."
        )
    check_number("events: sample", sample, integer=True, low=0, high=x.shape[1] - 1)
    frames = frames_of(x[:, sample])
    mine = out[:, sample : sample + 1].detach().cpu()
    if loss is None:
        scores = mine[:, 0].numpy()
    else:
        scores = torch.cat([scores_of(loss, mine[: step + 1]) for step in range(len(mine))]).numpy()
    return frames, scores, list(class_names) or [str(index) for index in range(scores.shape[1])]


def frames_of(x: Tensor) -> np.ndarray:
    """Pictures `[time, H, W]` of a recording `[time, C, H, W]`, ON less OFF of two channels; a row as it is."""
    frames = x.detach().cpu()
    if frames.dim() == 4:
        frames = frames[:, 1] - frames[:, 0] if frames.shape[1] == 2 else frames.sum(1)
    return frames.numpy()


def _show(axis, frame: np.ndarray, frames: np.ndarray):
    """One frame, or a row of channels over time, on the scale of the whole recording."""
    largest = float(np.quantile(np.abs(frames[frames != 0]), 0.99)) if frames.any() else 1.0
    lowest = -largest if frames.min() < 0 else 0.0
    flat = frames.ndim == 2
    picture = axis.imshow(
        frame, cmap="gray" if lowest else "gray_r", vmin=lowest, vmax=largest, interpolation="nearest",
        aspect="auto" if flat else "equal", origin="lower" if flat else "upper",
    )  # fmt: skip
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    return picture


def _draw_scores(axis, scores: np.ndarray, names: list[str], target: int | None, step_ms: float | None) -> None:
    """Scores up to each step: the true class and the strongest others as thick lines of their own, the rest thin."""
    order = sorted(range(len(names)), key=lambda index: (index != target, -scores[-1, index]))
    steps = range(len(scores))
    every = max(1, len(scores) // 12)
    for index in order[NAMED:]:
        axis.plot(steps, scores[:, index], color="#8c8c8c", linewidth=0.7, label="_", rasterized=len(scores) > 300)
    for index, (color, dash, marker) in reversed(list(zip(order[:NAMED], LINES, strict=False))):
        true, winner = index == target, target is not None and index == int(scores[-1].argmax())
        note = f"class {names[index]}" if target is not None else names[index]
        note += ", true" * true + ", predicted" * winner
        axis.plot(steps, scores[:, index], color=color, linestyle=dash, marker=marker, markersize=4, markevery=every,
                  linewidth=2.2 if true else 1.5, label=note)  # fmt: skip
    others = len(order) - NAMED
    if others > 0:
        several = ("output", "outputs") if target is None else ("class", "classes")
        axis.plot([], [], color="#8c8c8c", linewidth=0.7, label=f"{others} other {several[others > 1]}")
    handles, labels = axis.get_legend_handles_labels()
    first = len(order[:NAMED])  # drawn last, named first
    handles, labels = handles[:first][::-1] + handles[first:], labels[:first][::-1] + labels[first:]
    axis.legend(handles, labels, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_xlabel("time step" + (f" of {step_ms:g} ms" if step_ms else ""))
    axis.set_ylabel("output" if target is None else "scores up to here")
    axis.xaxis.get_major_locator().set_params(integer=True)
