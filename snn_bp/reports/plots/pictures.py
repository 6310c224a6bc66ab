"""All pictures of a run: what there is to see so far, each with a sentence for those who cannot see it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn_bp.data import Dataset
from snn_bp.errors import SnnError, check_choice, check_number
from snn_bp.errors.calls import checked_call
from snn_bp.files import check_can_write, is_there, make_folder, replace_file
from snn_bp.instruments.traces import Trace, trace
from snn_bp.model.losses import scores_of
from snn_bp.model.network import Network, has_state
from snn_bp.neurons import is_spiking
from snn_bp.reports.plots.backward import error_map, raster, surrogate_window
from snn_bp.reports.plots.epochs import layer_curves, training_curves
from snn_bp.reports.plots.filters import weight_filters
from snn_bp.reports.plots.recordings import event_movie, event_strip
from snn_bp.reports.plots.results import confusion_matrix, prediction_scatter
from snn_bp.reports.plots.steps import steps_of
from snn_bp.reports.plots.style import png_bytes
from snn_bp.runs.answers import Answers
from snn_bp.runs.folder import Run
from snn_bp.runs.memory import check_room_for
from snn_bp.runs.paths import COPY_IT
from snn_bp.runs.records import metric_of_rows
from snn_bp.runtime.status import phase

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORDINGS = 8  # that a trace for pictures takes


class Picture(NamedTuple):
    """A figure and what it shows, in a sentence."""

    figure: "Figure"
    alt: str


@checked_call
@phase("drawing the pictures")
def save_plots(run: Run) -> list[Path]:
    """Write the run's pictures into its folder `plots/`, as PNG, `events.gif` and `steps.html`; gives the files.

    A `run` that is not finished gives those it has something for.

    >>> "training.png" in [file.name for file in plots.save_plots(run)]  # the run of `train`
    True
    """
    check_can_write(folder := run.path / "plots", COPY_IT, is_folder=True)
    drawn = training_pictures(run)
    test = (run.results() or {}).get("test")
    if test and "confusion" in test:
        drawn["confusion"] = confusion_picture(test, run.dataset().class_names)
    kept = Answers.read(run.path, "test") if test else None
    if kept is not None and kept.targets.kind in ("vector", "vector per step"):
        drawn["predictions"] = scatter_picture(kept)
    files = {}
    if has_checkpoint(run):
        scene = Scene.of(run)
        drawn |= scene.pictures()
        if "events" in drawn:
            files["events.gif"] = event_movie(*scene.first, **scene.options)
            files["steps.html"] = steps_of(scene).page()
    files |= {f"{name}.png": png_bytes(picture.figure) for name, picture in drawn.items()}
    make_folder(folder)
    for name, content in files.items():
        replace_file(folder / name, content)
    return [folder / name for name in files]


def training_pictures(run: Run) -> dict[str, Picture]:
    """Curves over the epochs; none before the first ends."""
    metrics, layers = run.metrics(), run.layers()
    drawn = {}
    if metrics:
        first, last = metrics[0], metrics[-1]
        alt = f"Over {len(metrics)} epochs the training loss goes from {first['train_loss']:.3g}"
        alt += f" to {last['train_loss']:.3g}"
        name = metric_of_rows(metrics)
        if f"validation_{name}" in last and f"validation_{name}" in first:
            began, ended = (row[f"validation_{name}"] for row in (first, last))
            alt += f", the validation {name.replace('_', ' ')} from {began:.3f} to {ended:.3f}"
        drawn["training"] = Picture(training_curves(metrics, name), alt + ".")
    if rows := [row for row in layers if "rate" in row]:
        ends = {row["layer"]: row["rate"] for row in rows}
        alt = "Rates in the last epoch: " + ", ".join(f"{name} {rate:.3f}" for name, rate in ends.items()) + "."
        drawn["layers"] = Picture(layer_curves(layers), alt)
    return drawn


def confusion_picture(evaluation: Mapping[str, Any], names: tuple[str, ...]) -> Picture:
    """The confusion matrix of an evaluation's record, and its most frequent confusion in words."""
    counts = np.array(evaluation["confusion"])
    wrong = counts - np.diag(np.diag(counts))
    alt = f"Confusion matrix of {counts.sum()} recordings, {np.trace(counts)} of them on the diagonal."
    if wrong.any():
        true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
        alt += f" Most often wrong: class {names[true]} taken for {names[predicted]}, {wrong.max()} times."
    return Picture(confusion_matrix(evaluation["confusion"], names), alt)


def scatter_picture(kept: Answers) -> Picture:
    """Predictions of numbers against their targets, at the steps that recordings have."""
    scores, wanted = kept.scores, kept.values
    if kept.targets.is_per_step:
        there = torch.ones(wanted.shape[:2], dtype=torch.bool) if kept.mask is None else kept.mask.t()
        scores, wanted = scores[there], wanted[there]
    away = float((scores - wanted).abs().mean())
    alt = f"{len(wanted)} predictions of {', '.join(kept.targets.names)} over their targets, {away:.3g} off on average."
    return Picture(prediction_scatter(wanted.numpy(), scores.float().numpy(), kept.targets.names), alt)


def has_checkpoint(run: Run) -> bool:
    """Whether there is a network to load."""
    return is_there(run.path / "checkpoints" / "best.safetensors") or run.results() is not None


@dataclass(frozen=True, eq=False)
class Scene:
    """A few recordings and what a network puts out for them."""

    network: Network
    x: Tensor
    out: Tensor
    options: dict[str, Any]  # what the pictures of events ask for
    title: str
    targets: Tensor | None = None
    mask: Tensor | None = None
    check_trace: Callable[[], None] = lambda: None  # raises where memory is too small for one

    @classmethod
    def of(cls, run: Run, split: str | None = None, recording: int | str | None = None) -> "Scene":
        """One recording of a split, by its index or name, or a few; of a run's best network. Not of the test split
        unless that is asked for.

        Raises where the run has no checkpoint yet, or its data are not here.
        """
        dataset, loss = run.dataset(), run.experiment.train_at_step().loss
        if split is None:
            split = "validation" if len(dataset.ids["validation"]) else "train"
        check_choice("split", split, dataset.ids)
        if not len(dataset.ids[split]):
            raise SnnError(f"{run.path}: its split {split!r} has no recordings. split='train' has some.")
        ids = dataset.spread(split, RECORDINGS) if recording is None else _one(dataset, split, recording)
        some = f"{len(ids)} recording{'s' * (len(ids) != 1)}"
        check = partial(check_room_for, f"{run.path}: {some}", run.experiment, dataset, len(ids))
        check(way="answering")
        network, (x, targets), mask = run.network("best"), dataset.batch(split, ids), dataset.mask(split, ids)
        with torch.no_grad():
            out = network(x)
        target = int(targets[0]) if dataset.targets.kind == "class" else None
        options = {"target": target, "loss": loss, "class_names": dataset.class_names}
        options["step_ms"] = run.experiment.data.step_ms
        title = dataset.names(split)[dataset.ids[split].tolist().index(ids[0])]
        return cls(network, x, out, options, f"{title} of {split}", targets, mask, partial(check, way="tracing"))

    @cached_property
    def trace(self) -> Trace:
        """The backward pass on the recordings."""
        assert self.targets is not None
        self.check_trace()
        return trace(self.network, self.x, self.targets, loss=self.options["loss"], mask=self.mask)

    @property
    def first(self) -> tuple[Tensor, Tensor]:
        """Inputs and outputs of the first recording, `[time, 1, ...]`, as many steps as it has."""
        steps = len(self.x) if self.mask is None else int(self.mask[:, 0].sum())
        return self.x[:steps, :1], self.out[:steps, :1]

    @property
    def alt(self) -> str:
        """What the pictures of events show, in words."""
        if self.options["target"] is None:
            return "One recording, and the network's output at each step."
        scores = scores_of(self.options["loss"], self.first[1])[0]
        names = self.options["class_names"] or range(len(scores))
        true, predicted = names[self.options["target"]], names[int(scores.argmax())]
        return f"One recording of class {true}; the network predicts {predicted} at its end."

    def pictures(self) -> dict[str, Picture]:
        """Pictures of the backward pass, where there are neurons, of the events and of the weights."""
        drawn = self._of_backward_pass() if any(map(has_state, self.network.modules())) else {}
        if self.x.dim() in (3, 5):
            drawn["events"] = Picture(event_strip(*self.first, **self.options), self.alt)
        drawn["filters"] = Picture(weight_filters(self.network), "Weights of the first layer, filter by filter.")
        return drawn

    def _of_backward_pass(self) -> dict[str, Picture]:
        trace = self.trace
        sizes = trace.errors.norm(dim=1).tolist()
        listed = ", ".join(f"{layer.name} {size:.2g}" for layer, size in zip(trace.layers, sizes, strict=True))
        fired = ", ".join(
            f"{layer.name} {int(layer.spikes[:, 0].sum())}" for layer in trace.layers if is_spiking(layer.neuron)
        )
        drawn = {
            "error_map": Picture(error_map(trace), f"Norm of dL/dv over all steps of each layer: {listed}."),
            "raster": Picture(raster(trace), f"Spikes of one recording in each layer: {fired or 'none spikes'}."),
        }
        if fired:
            inside = ", ".join(f"{layer.name} {layer.window:.0%}" for layer in trace.layers if layer.rates is not None)
            drawn["surrogate"] = Picture(surrogate_window(trace), f"Fraction inside the surrogate's window: {inside}.")
        return drawn


def _one(dataset: Dataset, split: str, recording: int | str) -> np.ndarray:
    """The id of a recording of a split, which is called by its index or name."""
    names = dataset.names(split)
    if isinstance(recording, str):
        check_choice(f"recording of {split!r}", recording, names)
        recording = names.index(recording)
    check_number(f"recording of {split!r}", recording, integer=True, low=0, high=len(names) - 1)
    return dataset.ids[split][[recording]]
