"""Pictures by plain names, each of the value one has: a run, a network, a trace, an evaluation, a comparison.

They are functions, as `evaluate` and `report` are: a run stands below the pictures of it. A matplotlib `Figure` is what
they give, which a notebook shows as a cell's last line, once; pyplot has no part in it.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from snn_bp.errors import SnnError, as_path, check_kind, check_number, shown, typed
from snn_bp.errors.calls import checked_call, checked_dataclass
from snn_bp.files import replace_file
from snn_bp.instruments.traces import Trace
from snn_bp.model.losses import CountCrossEntropy, Loss
from snn_bp.model.network import Network, check_network
from snn_bp.reports.comparison import Comparison, Group
from snn_bp.reports.plots import backward, epochs, recordings, results
from snn_bp.reports.plots.filters import weight_filters
from snn_bp.reports.plots.filters import weight_histogram as histogram_of_integers
from snn_bp.reports.plots.pictures import Scene, has_checkpoint, scatter_picture
from snn_bp.reports.plots.steps import Steps, steps_of
from snn_bp.runs.answers import Answers
from snn_bp.runs.evaluation import Evaluation, evaluate
from snn_bp.runs.folder import Run
from snn_bp.runs.records import description_of, metric_of_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABEL = 30  # letters of settings behind a group's number


@checked_dataclass(frozen=True)
class Movie:
    """An animated GIF, which a notebook plays as a cell's last line."""

    title: str
    content: bytes = field(repr=False)
    alt: str = field(repr=False)

    def _repr_html_(self) -> str:
        address = f"data:image/gif;base64,{base64.b64encode(self.content).decode()}"
        return f'<img src="{address}" alt="{escape(self.alt)}" style="max-width:100%">'

    def write(self, file: Path | str) -> None:
        """Write it to `file`, a `.gif`."""
        file = as_path("movie: the file", file)
        if file.suffix != ".gif":
            raise SnnError(f"{file}: a movie is written as .gif.")
        replace_file(file, self.content)


@checked_call
def curves(subject: Run | Comparison) -> "Figure":
    """Loss, metric, learning rate, spike rate, gradient norm and speed of a run, epoch by epoch.

    Of a comparison `subject`, which `compare` gives, loss and metric of all its runs: a line for each, groups alike.

    >>> plots.curves(run).axes[0].get_title(loc="left")  # the run of `train`
    'loss'
    """
    if isinstance(subject, Comparison):
        groups = {_label(number, group): group.paths for number, group in enumerate(subject.groups, 1)}
        rows = {label: [Run(path).metrics() for path in paths] for label, paths in groups.items()}
        if not rows:
            raise SnnError(
                "plots.curves: none of the runs compared is finished. compare(['runs/a', 'runs/b']) says why."
            )
        return epochs.compared_curves(rows, metric_of_rows(next(iter(rows.values()))[0]))
    metrics = _run("curves", subject).metrics()
    if not metrics:
        raise SnnError(
            f"plots.curves: no epoch of {subject.path} is complete. `snn-bp resume {typed(subject.path)}` goes on."
        )
    return epochs.training_curves(metrics, metric_of_rows(metrics))


@checked_call
def layers(run: Run) -> "Figure":
    """Rate, silent fraction and fraction in the surrogate's window of each layer of `run`, epoch by epoch.

    >>> plots.layers(run).axes[1].get_title(loc="left")  # the run of `train`
    'silent'
    """
    rows = _run("layers", run).layers()
    if not any("rate" in row for row in rows):
        raise SnnError(
            f"plots.layers: {run.path} has no figures of its layers yet. `snn-bp resume {typed(run.path)}` goes on."
        )
    return epochs.layer_curves(rows)


@checked_call
def confusion(subject: Run | Evaluation, *, split: str = "test", names: Sequence[str] = ()) -> "Figure":
    """How often each class (row) was taken for each (column), in a run's results or in what `evaluate` gave.

    Parameters:
        subject: a run, or an `Evaluation`.
        split ("test"): of a run; validation and training are evaluated where they are not in its results, test never.
        names (()): what the classes are called; without, a run's own names or numbers.

    >>> plots.confusion(run).axes[0].get_xlabel()  # the run of `train`
    'prediction'
    """
    if isinstance(subject, Evaluation):
        counts = subject.confusion
    else:
        record = (_run("confusion", subject).results() or {}).get(split)
        if record is None and split != "test" and has_checkpoint(subject):
            record = evaluate(subject, split).record()
        if record is None:
            raise SnnError(
                f"plots.confusion: {subject.path} has no results of {split!r}. "
                f"plots.confusion(evaluate(run, {split!r})) evaluates it now."
            )
        counts, names = record.get("confusion"), names or description_of(subject.path / "data.json")[0].names
    if counts is None:
        raise SnnError("plots.confusion: its targets are no classes. plots.predictions(run) shows those of numbers.")
    return results.confusion_matrix(counts, names)


@checked_call
def predictions(run: Run, *, split: str = "test") -> "Figure":
    """Predictions of numbers over their targets, as `run` kept them of a split.

    `split` ("test") is the only one that a finished run keeps. Raises where targets are no numbers.

    >>> x, y = np.ones((12, 5, 4)), np.linspace(0, 1, 12)[:, None]
    >>> numbers = Dataset.of(train=(x, y), targets="vector", test_fraction=0.25, step_ms=2)
    >>> asked = Experiment(numbers.data, (Dense(1), LI(beta=0.9)), Train(epochs=1, loss=MeanSquaredPotential()))
    >>> plots.predictions(train(asked, "runs/b", dataset=numbers, quiet=True)).axes[0].get_ylabel()
    'prediction'
    """
    kept = Answers.read(_run("predictions", run).path, split)
    if kept is None:
        raise SnnError(
            f"plots.predictions: {run.path} keeps no predictions of {split!r}. A finished run has the test's."
        )
    if kept.targets.kind not in ("vector", "vector per step"):
        raise SnnError(
            f"plots.predictions: targets of the kind {kept.targets.kind!r} are no numbers. plots.confusion(run) shows "
            "classes."
        )
    return scatter_picture(kept).figure


@checked_call
def raster(subject: Run | Trace, *, recording: int | str = 0, split: str | None = None, neurons: int = 64) -> "Figure":
    """Spikes of one recording in each layer, over the size of the error that came back to each neuron.

    Parameters:
        subject: a run, or what `trace` gave.
        recording (0): an index in the trace's batch, or in the run's split; of a run also a name.
        split (None): of a run; None: "validation" where it has one, else "train".
        neurons (64): so many of each layer at most, evenly spaced.

    >>> plots.raster(run, recording=1).axes[0].get_ylabel()  # the run of `train`
    'neuron'
    """
    if isinstance(subject, Trace):
        _check_no_split("raster", split)
        _index("raster", recording, subject.layers[0].error.shape[1])
        return backward.raster(subject, sample=recording, neurons=neurons)  # type: ignore[arg-type] - checked above
    return backward.raster(_traced("raster", subject, split, recording), neurons=neurons)


@checked_call
def error_map(subject: Run | Trace, *, recording: int | str | None = None, split: str | None = None) -> "Figure":
    """The norm of dL/dv of every layer at every step: where the error comes back to, and where it is lost.

    Parameters:
        subject: a run, or what `trace` gave, which is shown over its batch.
        recording (None): of a run one recording, as in `raster`; None: 8 of them.
        split (None): as in `raster`.

    >>> plots.error_map(run).axes[0].get_xlabel()  # the run of `train`
    'time step'
    """
    return backward.error_map(_traced("error_map", subject, split, recording))


@checked_call
def surrogate_window(subject: Run | Trace, *, recording: int | str | None = None, split: str | None = None) -> "Figure":
    """Where potentials lie, and the slope that the surrogate has there.

    `subject`, `recording` (None) and `split` (None) are those of `error_map`.

    >>> plots.surrogate_window(run).axes[0].get_xlabel()  # the run of `train`
    'v - theta'
    """
    return backward.surrogate_window(_traced("surrogate_window", subject, split, recording))


@checked_call
def events(
    subject: Run | Network, x: Tensor | None = None, *, recording: int | str = 0, split: str | None = None,
    target: int | None = None, loss: Loss | None = None,
) -> "Figure":  # fmt: skip
    """Frames of one recording, and the scores up to each step. White: ON events, black: OFF events.

    Parameters:
        subject: a run, or a `Network` or `OnChip`.
        x (None): of a network its inputs, `[time, batch, ...]`; a run has its own.
        recording (0), split (None): as in `raster`; of a network an index in the batch.
        target (None): of a network the recording's class, which names the true one and has scores counted by the loss;
            None: the output itself is shown.
        loss (None): of a network; None: `CountCrossEntropy()`.

    >>> plots.events(run).axes[-1].get_ylabel()  # the run of `train`
    'scores up to here'
    """
    scene = _scene("events", subject, x, recording, split, target, loss)
    return recordings.event_strip(*scene.first, **scene.options)


@checked_call
def movie(
    subject: Run | Network, x: Tensor | None = None, *, recording: int | str = 0, split: str | None = None,
    target: int | None = None, loss: Loss | None = None,
) -> Movie:  # fmt: skip
    """What `events` shows as an animated GIF, which a notebook plays.

    `subject`, `x` (None), `recording` (0), `split` (None), `target` (None) and `loss` (None) are those of `events`.

    >>> plots.movie(run).write("movie.gif")  # the run of `train`
    """
    scene = _scene("movie", subject, x, recording, split, target, loss)
    return Movie(scene.title, recordings.event_movie(*scene.first, **scene.options), scene.alt)


@checked_call
def steps(
    subject: Run | Network, x: Tensor | None = None, *, recording: int | str = 0, split: str | None = None,
    target: int | None = None, loss: Loss | None = None, neurons: int = 64,
) -> Steps:  # fmt: skip
    """One recording with a slider over time: its input, potentials and spikes of each layer, and the scores.

    It works with or without a kernel. `subject`, `x` (None), `recording` (0), `split` (None), `target` (None) and
    `loss` (None) are those of `events`; up to `neurons` (64) of each layer are shown, evenly spaced.

    >>> plots.steps(run, recording=1).write("steps.html")  # the run of `train`
    """
    return steps_of(_scene("steps", subject, x, recording, split, target, loss), neurons=neurons)


@checked_call
def weights(subject: Run | Network, *, filters: int = 16) -> "Figure":
    """The first layer's weights: kernels, or what each dense neuron sees laid out as the sensor.

    `subject` is a run, or a `Network` or `OnChip`; up to `filters` (16) are shown.

    >>> plots.weights(run).axes[0].get_xlabel()  # the run of `train`
    'input channel'
    """
    if not isinstance(subject, Run):
        check_network("plots.weights", subject)
    return weight_filters(subject.network() if isinstance(subject, Run) else subject.floats, filters=filters)


@checked_call
def weight_histogram(verification: Any) -> "Figure":
    """How often each integer is a weight in what `export` wrote; `verification` is what `export` or `verify` gave.

    >>> plots.weight_histogram(export(run, "a.net")).axes[0].get_xlabel()  # the run of `train`
    'integer'
    """
    counts = getattr(verification, "weights", verification)
    if not isinstance(counts, Mapping):
        raise SnnError(
            f"plots.weight_histogram: it takes what export(run, 'a.net') gives, found {shown(verification)}."
        )
    return histogram_of_integers(counts)


def _label(number: int, group: Group) -> str:
    """The group by what tells it from the others, where that is short."""
    settings = ", ".join(f"{key}={value}" for key, value in group.settings.items())
    return f"group {number}: {settings}" if 0 < len(settings) <= LABEL else f"group {number}"


def _run(asker: str, run: Run) -> Run:
    check_kind(f"plots.{asker}: the run", run, Run, f"As in plots.{asker}(Run('runs/mine')).")
    return run


def _check_no_split(asker: str, split: str | None) -> None:
    if split is not None:
        raise SnnError(
            f"plots.{asker}: split={shown(split)} is for a run, whose recordings lie in splits. Leave it out."
        )


def _index(asker: str, recording: int | str, count: int) -> None:
    check_number(f"plots.{asker}: recording", recording, integer=True, low=0, high=count - 1)


def _traced(asker: str, subject: Run | Trace, split: str | None, recording: int | str | None) -> Trace:
    if not isinstance(subject, Trace):
        return Scene.of(_run(asker, subject), split, recording).trace
    _check_no_split(asker, split)
    if recording is not None:
        raise SnnError(
            f"plots.{asker}: a trace is shown over its whole batch. Trace one recording, x[:, 3:4], for that."
        )
    return subject


def _scene(
    asker: str, subject: Run | Network, x: Tensor | None, recording: int | str, split: str | None,
    target: int | None, loss: Loss | None,
) -> Scene:  # fmt: skip
    if isinstance(subject, Run):
        if not (x is target is loss is None):
            raise SnnError(
                f"plots.{asker}: a run has its own inputs, targets and loss. Of a network: plots.{asker}(network, x)."
            )
        return Scene.of(subject, split, recording)
    check_network(f"plots.{asker}", subject)
    _check_no_split(asker, split)
    if not isinstance(x, Tensor):
        raise SnnError(f"plots.{asker}: of a network it shows x [time, batch, ...], found {shown(x)}.")
    subject.check_input(x)
    _index(asker, recording, x.shape[1])
    x, was_training = subject.in_floats(x[:, recording : recording + 1]), subject.training  # type: ignore[operator]
    with torch.no_grad():
        out = subject.eval()(x)
    subject.train(was_training)
    options = {"target": target, "loss": loss or CountCrossEntropy(), "class_names": (), "step_ms": None}
    return Scene(subject, x, out, options, f"recording {recording} of x")
