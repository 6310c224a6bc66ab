"""Pictures: they hold the numbers they claim, nothing is cut, and they can be read without colour."""

import copy
import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
import runs
import torch
from matplotlib import colormaps, rcParams
from PIL import Image

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    CountCrossEntropy,
    Dense,
    FirstSpike,
    Flatten,
    MaxCrossEntropy,
    Network,
    Run,
)
from snn_bp.errors import SnnError
from snn_bp.instruments import trace
from snn_bp.reports.plots import save_plots
from snn_bp.reports.plots.backward import error_map, raster, surrogate_window
from snn_bp.reports.plots.epochs import compared_curves, layer_curves, training_curves
from snn_bp.reports.plots.filters import weight_filters, weight_histogram
from snn_bp.reports.plots.recordings import event_movie, event_strip
from snn_bp.reports.plots.results import confusion_matrix
from snn_bp.reports.plots.style import LINES, SEQUENTIAL, light_half, png_bytes, svg_bytes

few_digits, finished = runs.few_digits, runs.finished

STEPS, BATCH = 7, 3
METRICS = [
    {"epoch": 1, "train_loss": 2.0, "train_accuracy": 0.2, "validation_loss": 2.1, "validation_accuracy": 0.3,
     "spike_rate": 0.1, "grad_norm": 3.0},
    {"epoch": 2, "train_loss": 1.0, "train_accuracy": 0.6, "spike_rate": 0.2, "grad_norm": 0.5},
]  # fmt: skip
ROWS = [
    {
        "epoch": epoch,
        "layer": f"model.{index} LIF(beta=0.9)" if index else f"model.0 Spiking({', '.join(map(str, range(60)))})",
        "rate": 0.1 * index,
        "silent": 0.5,
        "saturated": 0.0,
        "window": 0.3,
    }
    for epoch in (1, 2)
    for index in range(9)
]


@pytest.fixture(scope="module")
def network():
    model = (Flatten(), Dense(70), BatchNorm(), LIF(beta=0.8), Dense(5), LI(beta=0.9))
    return Network(model, (2, 6, 4), seed=1).eval()


@pytest.fixture(scope="module")
def x():
    return 2 * torch.rand(STEPS, BATCH, 2, 6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def traced(network, x):
    return trace(network, x, torch.arange(BATCH))


@pytest.fixture(scope="module")
def figures(network, x, traced):
    out = network(x)
    names = ("an unusually long name of a class", "b", "c", "d", "e")
    return {
        "raster": raster(traced),
        "error_map": error_map(traced),
        "surrogate": surrogate_window(traced),
        "events": event_strip(x, out, target=1, class_names=names, step_ms=2.5),
        "channels": event_strip(x.flatten(2), out, target=1),
        "training": training_curves(METRICS),
        "one epoch": training_curves(METRICS[:1]),
        "compared": compared_curves({f"group {number}": [METRICS, METRICS[:1]] for number in range(12)}),
        "layers": layer_curves(ROWS),
        "confusion": confusion_matrix(np.arange(25).reshape(5, 5).tolist(), names),
        "many classes": confusion_matrix(np.eye(40, dtype=int).tolist()),
        "filters": weight_filters(network, filters=3),
        "kernels": weight_filters(Network((Conv(3, 3),), (9, 8, 8))),
        "matrix": weight_filters(Network((Dense(5),), (12,))),
        "histogram": weight_histogram({"model.2 LIF(beta=0.8)": {-4: 2, 0: 5, 8: 1}, "b": {0: 1}, "c": {1: 3}}),
    }


def test_groups_that_would_look_like_others_are_grey():
    drawn = compared_curves({f"group {number}": [METRICS, METRICS[:1]] for number in range(9)})

    lines = drawn.axes[0].lines
    assert len(lines) == 18 and len({line.get_color() for line in lines}) == 7
    assert [text.get_text() for text in drawn.legends[0].get_texts()][-2:] == ["group 5", "3 more"]


FIGURES = ("raster", "error_map", "surrogate", "events", "channels", "training", "one epoch", "compared", "layers",
           "confusion", "many classes",
           "filters", "kernels", "matrix", "histogram")  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_of_a_picture_is_cut(figures, name):
    drawn = figures[name]

    drawn.draw_without_rendering()

    taken, page = drawn.get_tightbbox(), drawn.bbox_inches.padded(0.01)
    assert page.x0 <= taken.x0 and page.y0 <= taken.y0 and taken.x1 <= page.x1 and taken.y1 <= page.y1


@pytest.mark.parametrize("name", ("raster", "surrogate"))
def test_an_svg_takes_the_readers_colour_of_text(figures, name):
    text = svg_bytes(figures[name]).decode()

    assert "prefers-color-scheme:dark" in text and "currentColor" in text
    assert "#000000" not in text


def test_lines_differ_in_grey_too():
    assert len({(dash, marker) for _, dash, marker in LINES}) == len(LINES)


@pytest.mark.parametrize(
    "shades", (colormaps[SEQUENTIAL], light_half("YlOrBr"), colormaps["gray"]), ids=lambda s: s.name
)
def test_luminance_never_turns_along_a_colour_map(shades):
    luminance = shades(np.arange(shades.N))[:, :3] @ (0.2126, 0.7152, 0.0722)

    moves = np.diff(luminance)

    assert (moves > -1e-3).all() or (moves < 1e-3).all()
    assert abs(luminance[-1] - luminance[0]) > 0.3


def test_raster_shows_every_spike_of_the_neurons_it_shows_over_their_error(traced):
    drawn = raster(traced, sample=1, neurons=20)

    axis, readout = drawn.axes[:2]
    shown = np.linspace(0, 69, 20).astype(int)
    (dots,) = axis.get_lines()
    seen = set(zip(dots.get_xdata().tolist(), dots.get_ydata().tolist(), strict=True))
    spikes = traced.layers[0].spikes[:, 1].numpy()[:, shown]
    assert seen == set(zip(*map(np.ndarray.tolist, np.nonzero(spikes)), strict=True)) and seen
    picture = axis.get_images()[0]
    wanted = traced.layers[0].error[:, 1].abs().numpy()[:, shown].T
    np.testing.assert_array_equal(picture.get_array(), np.maximum(wanted, picture.norm.vmin))
    assert readout.get_lines() == []  # it does not spike
    assert readout.get_images()[0].get_array().shape == (5, STEPS)


@pytest.mark.parametrize("wrong", ({"sample": BATCH}, {"sample": -1}, {"neurons": 0}), ids=str)
def test_raster_refuses_what_the_trace_does_not_hold(traced, wrong):
    with pytest.raises(SnnError, match=next(iter(wrong))):
        raster(traced, **wrong)


def test_error_map_holds_the_errors_of_the_trace(traced, figures):
    axis = figures["error_map"].axes[0]

    np.testing.assert_array_equal(axis.get_images()[0].get_array(), traced.errors.numpy())
    assert [label.get_text() for label in axis.get_yticklabels()] == [layer.name for layer in traced.layers]


def test_pictures_of_a_dead_or_broken_pass_can_be_drawn(network, x):
    still = trace(network, torch.zeros_like(x), torch.arange(BATCH))
    burst = copy.deepcopy(network)
    torch.nn.init.constant_(next(burst.parameters()), torch.inf)
    broken = trace(burst, x, torch.arange(BATCH))

    for each in (still, broken):
        for draw in (raster, error_map, surrogate_window):
            png_bytes(draw(each), dpi=30)


def test_the_windows_histogram_and_slope_are_those_of_the_trace(traced):
    drawn = surrogate_window(traced)

    axis, other = drawn.axes
    layer = traced.layers[0]
    heights, edges, _ = axis.patches[0].get_data()
    inside = (layer.distances >= edges[0]) & (layer.distances <= edges[-1])
    assert heights.sum() == pytest.approx(float(inside.float().mean()), abs=1e-6)
    slope = other.get_lines()[0]
    closed = 1 / (1 + (np.pi / 2 * 2.0 * slope.get_xdata()) ** 2)  # ATan of slope 2 over its height, at threshold 1
    np.testing.assert_allclose(slope.get_ydata(), closed, atol=0.03)  # the mean over a bin is not its middle
    assert f"{layer.window:.0%}" in axis.get_title(loc="left")


def test_a_network_that_does_not_spike_has_no_surrogate_to_show(x):
    readout = Network((Flatten(), Dense(5), LI(beta=0.9)), (2, 6, 4))

    with pytest.raises(SnnError, match="no layer of the trace spikes"):
        surrogate_window(trace(readout, x, torch.arange(BATCH)))


@pytest.mark.parametrize("loss", (CountCrossEntropy(), MaxCrossEntropy(), FirstSpike()), ids=repr)
def test_scores_at_the_last_step_are_those_the_loss_sees(x, loss):
    out = torch.bernoulli(torch.full((STEPS, BATCH, 4), 0.4), generator=torch.Generator().manual_seed(3))

    drawn = event_strip(x, out, target=2, sample=1, loss=loss)

    lines = [line for line in drawn.axes[-1].get_lines() if len(line.get_xdata())]
    ends = sorted(float(line.get_ydata()[-1]) for line in lines)
    assert ends == pytest.approx(sorted(loss.scores(out)[1].tolist()))
    true = next(line for line in lines if line.get_label().startswith("class 2, true"))
    assert true.get_ydata()[2] == pytest.approx(float(loss.scores(out[:3])[1, 2]))


def test_frames_are_on_events_minus_off_events(x):
    drawn = event_strip(x, torch.zeros(STEPS, BATCH, 5), target=0, sample=2)

    shown = [axis.get_images()[0].get_array() for axis in drawn.axes if axis.get_images()]
    np.testing.assert_array_equal(shown[3], (x[3, 2, 1] - x[3, 2, 0]).numpy())


@pytest.mark.parametrize("late", (0, 2))
@pytest.mark.parametrize("row", (False, True), ids=("images", "row"))
def test_a_movie_has_a_picture_for_every_step_of_the_answer(x, late, row):
    x = x[:3].flatten(2) if row else x[:3]
    out = torch.bernoulli(torch.full((3 + late, BATCH, 5), 0.4), generator=torch.Generator().manual_seed(3))

    movie = Image.open(io.BytesIO(event_movie(x, out, target=1, step_ms=300)))

    assert movie.n_frames == 3 + late and movie.info["duration"] == 300
    first = np.asarray(movie.convert("L"))
    movie.seek(2)
    changed = np.argwhere(first != np.asarray(movie.convert("L")))
    assert changed[:, 0].min() < 0.1 * first.shape[0]  # the title says the step
    assert changed[:, 1].max() > 0.4 * first.shape[1]  # the line in the scores moves


@pytest.mark.parametrize(
    "shapes", (((7, 3, 6, 4), (7, 3, 5)), ((7, 3, 8), (6, 3, 5)), ((7, 3, 8), (7, 2, 5)), ((7, 3, 8), (7, 5))), ids=str
)
def test_events_of_another_shape_are_refused(shapes):
    x, out = (torch.zeros(shape) for shape in shapes)

    with pytest.raises(SnnError, match=r"\[time, batch"):
        event_strip(x, out, target=0)


def test_dense_weights_are_laid_out_as_the_sensor(network):
    mosaic = weight_filters(network, filters=10).axes[0].get_images()[0].get_array().filled(np.nan)

    weight = network.layers[1].weight.detach().numpy()
    corners = {(0, 0): (2, 2), (1, 0): (2, 8), (1, 1): (10, 8), (9, 1): (26, 8)}  # a gap of 2 around 6 x 4
    for (unit, channel), (top, left) in corners.items():
        wanted = weight[unit, 24 * channel : 24 * (channel + 1)].reshape(6, 4)
        np.testing.assert_array_equal(mosaic[top : top + 6, left : left + 4], wanted)
    assert np.isfinite(mosaic).sum() == 10 * 48


def test_a_network_without_weights_has_no_filters():
    with pytest.raises(SnnError, match="no layer of weights"):
        weight_filters(Network((LIF(beta=0.5),), (4,)))


def test_confusion_colours_are_fractions_of_the_true_class():
    picture = confusion_matrix([[8, 2], [0, 0]]).axes[0].get_images()[0]

    np.testing.assert_allclose(picture.get_array(), [[0.8, 0.2], [0, 0]])


@pytest.mark.parametrize("wrong", (([[1, 2]],), ([[1]], ("a", "b")), ([],)), ids=str)
def test_confusion_that_is_no_square_is_refused(wrong):
    with pytest.raises(SnnError, match="confusion_matrix"):
        confusion_matrix(*wrong)


def test_the_histogram_of_weights_names_its_grid(figures):
    titles = [axis.get_title(loc="left") for axis in figures["histogram"].axes if axis.get_visible()]

    assert titles == [
        "model.2 LIF(beta=0.8)\n3 values, steps of 4",
        "b\n1 values, steps of 1",
        "c\n1 values, steps of 1",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
def test_a_finished_run_gives_all_pictures_and_keeps_the_users_settings(finished, tmp_path):
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    before = dict(rcParams)

    files = save_plots(run)

    assert sorted(file.name for file in files) == sorted(file.name for file in (run.path / "plots").iterdir())
    assert {file.name for file in files} == {
        "training.png", "layers.png", "confusion.png", "error_map.png", "raster.png", "surrogate.png", "events.png",
        "events.gif", "steps.html", "filters.png",
    }  # fmt: skip
    for file in files:
        if file.suffix != ".html":
            Image.open(file).verify()
    assert dict(rcParams) == before


@pytest.mark.usefixtures("few_digits")
def test_a_run_before_its_first_epoch_gives_no_picture(tmp_path):
    run = Run.create(runs.tiny(), tmp_path / "run", command="", changes=())

    assert save_plots(run) == []


@pytest.mark.slow
def test_drawing_chooses_no_backend():
    program = "import sys; from snn_bp.reports.plots.results import *; from snn_bp.reports.plots.style import *; "
    program += "png_bytes(confusion_matrix([[1, 0], [0, 1]])); print('matplotlib.pyplot' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_curves_that_a_search_does_not_have_are_said_to_be_missing():
    drawn = training_curves([{"epoch": 1.0, "train_loss": 2.0}, {"epoch": 2.0, "train_loss": 1.0}])

    assert [len(axis.lines) for axis in drawn.axes] == [1, 0, 0, 0, 0, 0]
    assert [axis.get_legend() is not None for axis in drawn.axes] == [True, *[False] * 5]
    assert [[text.get_text() for text in axis.texts] for axis in drawn.axes] == [[], *[["not recorded"]] * 5]
