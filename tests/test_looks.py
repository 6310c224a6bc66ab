"""What a notebook shows: a picture once and without pyplot, one recording step by step, values on a screen."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from IPython.core.formatters import DisplayFormatter
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from test_report import Page

import snn_bp
from snn_bp import (
    LI,
    LIF,
    Conv,
    Data,
    Dataset,
    Dense,
    Experiment,
    Flatten,
    Module,
    Network,
    OnChip,
    Residual,
    Run,
    Search,
    SnnError,
    Targets,
    Tau,
    compare,
    evaluate,
    plots,
    trace,
    use_backend,
)
from snn_bp.instruments import Finding, Report
from snn_bp.instruments.gradients import GradientReport, KernelCheck, LayerCheck
from snn_bp.instruments.similarity import Similarity
from snn_bp.model.activity import spikes_in
from snn_bp.reports.plots.face import Movie
from snn_bp.reports.plots.pictures import Scene
from snn_bp.reports.plots.steps import steps_of
from snn_bp.runs.changes import parse
from snn_bp.runs.evaluation import Evaluation
from snn_bp.runs.prediction import Predictions
from snn_bp.searches.record import Row
from snn_bp.trainer.loop import Event
from snn_bp.trainer.optimizer import Step
from snn_bp.verification.result import Verification

few_digits, finished = runs.few_digits, runs.finished
pytestmark = pytest.mark.usefixtures("few_digits")

OF_A_RUN = ("curves", "layers", "confusion", "raster", "error_map", "surrogate_window", "events", "weights")


@pytest.fixture(scope="module")
def shown(finished):
    """The steps of the second validation recording, as tags, and what its slider moves."""
    with runs.loading(runs.few):
        html = Page(plots.steps(finished, recording=1)._repr_html_())
    return html, json.loads(html.tags[0][1]["data-steps"])


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_picture_of_a_run_is_what_a_notebook_shows_of_it(finished, name):
    drawn = getattr(plots, name)(finished)

    content, _ = DisplayFormatter().format(drawn)
    assert content["image/png"][:8] == b"\x89PNG\r\n\x1a\n"
    assert " at 0x" not in content["text/plain"]


def test_every_public_picture_says_what_it_shows_and_takes_what_it_refuses():
    drawing = [name for name in plots.__all__ if name not in ("save_plots", "weight_histogram")]

    for name in drawing:
        with pytest.raises(SnnError, match=rf"plots\.{name}.*found 'runs/a'"):
            getattr(plots, name)("runs/a")
        with pytest.raises(SnnError, match="there is no 'recordign'"):
            getattr(plots, name)("runs/a", recordign=3)
    with pytest.raises(SnnError, match=r"plots\.weight_histogram.*export"):
        plots.weight_histogram(3)


def test_what_a_run_or_a_trace_has_by_itself_is_refused(finished):
    scene = Scene.of(finished, "validation", 2)

    for own in ({"target": 3}, {"loss": snn_bp.TET()}, {"x": scene.x}):
        with pytest.raises(SnnError, match="its own inputs, targets and loss"):
            plots.events(finished, **own)
    for draw in (plots.raster, plots.error_map, plots.surrogate_window):
        with pytest.raises(SnnError, match="split='test' is for a run"):
            draw(scene.trace, split="test")
    with pytest.raises(SnnError, match="over its whole batch"):
        plots.error_map(scene.trace, recording=0)


def test_a_picture_of_a_trace_is_that_of_the_run_it_was_made_of(finished):
    network, scene = finished.network(), Scene.of(finished, "validation", 2)
    traced = trace(network, scene.x, scene.targets)

    ours, theirs = plots.raster(traced), plots.raster(finished, recording=2)

    for mine, other in zip(ours.axes, theirs.axes, strict=True):
        assert [line.get_xydata().tolist() for line in mine.lines] == [
            line.get_xydata().tolist() for line in other.lines
        ]


def test_curves_of_a_comparison_have_a_line_for_each_run(finished, tmp_path):
    other = shutil.copytree(finished.path, tmp_path / "other")

    drawn = plots.curves(compare([finished, other]))

    assert [len(axis.lines) for axis in drawn.axes] == [2, 2, 2, 2]
    assert drawn.axes[0].lines[0].get_ydata().tolist() == [row["train_loss"] for row in finished.metrics()]
    (other / "results.json").unlink()
    with pytest.raises(SnnError, match="none of the runs"):
        plots.curves(compare([other]))


def test_a_recording_is_called_by_its_index_or_its_name(finished):
    names = finished.dataset().names("train")

    by_name, by_index = (Scene.of(finished, "train", which) for which in (names[5], 5))

    assert torch.equal(by_name.x, by_index.x) and by_name.title == f"{names[5]} of train"


@pytest.mark.parametrize(
    "wrong",
    ({"recording": 40}, {"recording": -1}, {"recording": "digit"}, {"recording": 1.0}, {"split": "tset"}),
    ids=str,
)
def test_a_recording_that_there_is_not_is_refused(finished, wrong):
    with pytest.raises(SnnError, match=next(iter(wrong))):
        plots.events(finished, **wrong)


def test_a_split_that_is_unknown_or_empty_is_refused(finished, monkeypatch):
    dataset = finished.dataset()

    with pytest.raises(SnnError, match="split='tset' is not known"):
        plots.error_map(finished, split="tset")
    monkeypatch.setitem(dataset.ids, "test", dataset.ids["test"][:0])
    for recording in (None, 0):
        with pytest.raises(SnnError, match="'test' has no recordings"):
            plots.error_map(finished, split="test", recording=recording)


def test_the_test_split_is_shown_where_it_is_asked_for_alone(finished):
    assert plots.steps(finished).title.endswith(" of validation")
    assert plots.steps(finished, split="test").title.endswith(" of test")


def test_the_confusion_of_an_evaluation_is_drawn_and_that_of_numbers_refused(finished):
    names = tuple("abcdefghij")
    kept = Evaluation("test", 3, 0.1, "mean_absolute_error", {"mean_absolute_error": 0.2}, {}, {})

    drawn = plots.confusion(Evaluation("test", 3, 0.1, "accuracy", {}, {}, {}, confusion=[[2, 0], [1, 0]]), names="ab")

    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in plots.confusion(finished).axes[0].get_yticklabels()] == list("0123456789")
    with pytest.raises(SnnError, match=r"no classes. plots\.predictions"):
        plots.confusion(kept, names=names)
    with pytest.raises(SnnError, match="no numbers"):
        plots.predictions(finished)


def test_steps_have_the_spikes_and_scores_of_the_network_at_each_step(finished, shown):
    _, moving = shown
    scene = Scene.of(finished, "validation", 1)

    layers = scene.network.observe(scene.x)[0]
    sent = [spikes_in(layer.neuron, layer.spikes[:, 0]).flatten(1).sum(1).tolist() for layer in layers]
    assert moving["spikes"] == [[int(count) for count in row] for row in zip(*sent, strict=True)]
    loss = finished.experiment.train.loss
    for step, row in enumerate(moving["scores"], 1):
        assert row == pytest.approx(loss.scores(scene.out[:step])[0].tolist(), rel=1e-3)
    assert moving["best"][-1] == int(loss.scores(scene.out)[0].argmax())


def test_steps_end_where_the_recording_ends(finished):
    scene = Scene.of(finished, "validation", 0)
    shorter = replace(scene, mask=torch.tensor([[True], [True], [False]]))

    whole, cut = (json.loads(Page(steps_of(each)._repr_html_()).tags[0][1]["data-steps"]) for each in (scene, shorter))

    assert cut["scores"] == whole["scores"][:2] and cut["spikes"] == whole["spikes"][:2]


def test_steps_are_one_piece_of_html_that_asks_for_nothing(shown):
    html, moving = shown

    assert {tag for tag, _ in html.tags} & {"script", "link", "iframe"} == set()
    assert all(
        attrs["src"].startswith("data:image/png;base64,") and attrs["alt"] for tag, attrs in html.tags if tag == "img"
    )
    (slider,) = (attrs for tag, attrs in html.tags if tag == "input")
    assert int(slider["max"]) + 1 == len(moving["scores"]) == 3 and "fetch" not in slider["oninput"]
    assert "http" not in json.dumps(html.tags)


def test_names_are_text_and_no_markup(finished):
    scene, evil = Scene.of(finished, "validation", 0), '"><script>alert(1)</script>'
    scene.options["class_names"] = (evil, *"abcdefghi")

    html = Page(steps_of(scene)._repr_html_())

    assert any(evil in text for text in html.words) and not any(tag == "script" for tag, _ in html.tags)
    movie = Page(Movie("a", b"GIF", evil)._repr_html_())
    assert movie.tags[0][1]["alt"] == evil


def test_files_of_moving_pictures_end_as_they_are(finished, tmp_path):
    plots.steps(finished).write(tmp_path / "steps.html")
    plots.movie(finished).write(tmp_path / "movie.gif")

    assert Page((tmp_path / "steps.html").read_text().partition("\n")[2]).tags
    assert (tmp_path / "movie.gif").read_bytes()[:3] == b"GIF"
    with pytest.raises(SnnError, match=r"written as \.html"):
        plots.steps(finished).write(tmp_path / "steps.png")
    with pytest.raises(SnnError, match=r"written as \.gif"):
        Movie("a", b"", "").write(tmp_path / "movie.mp4")


@pytest.mark.parametrize("shape", ((2, 6, 4), (9,)), ids=("image", "row"))
def test_a_network_of_ones_own_loop_is_shown_on_its_inputs_and_stays_in_training(shape):
    network = Network((Flatten(), Dense(30), LIF(beta=0.9, reset="zero"), Dense(14), LI(beta=0.9)), shape).train()
    x = (torch.rand(7, 3, *shape, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.uint8)

    with use_backend("reference"):  # nothing to compile
        for target in (None, 13):
            html = plots.steps(network, x, recording=2, target=target)._repr_html_()
            assert "14" in html and ("13, true" in html) == (target is not None)
            plots.events(network, x, recording=2, target=target)
    assert network.training
    with pytest.raises(SnnError, match="recording=3"):
        plots.steps(network, x, recording=3)
    with pytest.raises(SnnError, match=r"x \[time, batch"):
        plots.steps(network)
    with pytest.raises(SnnError, match="split='test' is for a run"):
        plots.steps(network, x, split="test")


@pytest.mark.parametrize("size", (0.0, float("inf"), float("nan"), 1e30))
def test_steps_of_a_dead_or_broken_network_can_be_shown(size):
    network = Network((Flatten(), Dense(3), LI(beta=0.9)), (1, 4, 4))
    network.layers[1].weight.data.fill_(size)

    with use_backend("reference"):
        html = Page(plots.steps(network, torch.ones(3, 1, 1, 4, 4))._repr_html_())

    json.loads(html.tags[0][1]["data-steps"], parse_constant=pytest.fail)  # NaN is no JSON
    assert any("not finite" in text for text in html.words) == (not np.isfinite(size))


def test_steps_of_a_network_without_neurons_are_its_input_and_output():
    network = Network((Flatten(), Dense(3)), (1, 4, 4))

    moving = json.loads(Page(plots.steps(network, torch.ones(5, 1, 1, 4, 4))._repr_html_()).tags[0][1]["data-steps"])

    assert moving["spikes"] == [[]] * 5


def test_steps_on_a_chip_are_those_of_its_integers():
    network = OnChip(
        Network((Conv(4, 3), LIF(beta=0.9, reset="zero"), Flatten(), Dense(3), LIF(beta=0.9, reset="zero")), (1, 6, 6))
    )
    x = (torch.rand(5, 1, 1, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()

    moving = json.loads(Page(plots.steps(network, x)._repr_html_()).tags[0][1]["data-steps"])

    assert moving["spikes"][-1][-1] == int(network.eval()(x)[-1].sum())


CELLS = (
    "from snn_bp import LIF, Dense, Network, Run, plots; import torch",
    "plots.curves(Run({path!r}))",
    "import matplotlib.pyplot as plt",
    "plots.curves(Run({path!r}))",
    "plots.steps(Network((Dense(3), LIF(beta=0.9)), (2,)), torch.ones(4, 1, 2))",
    "Run({path!r})",
)
SHOWN = ([], ["image/png"], [], ["image/png"], ["text/html"], ["text/html"])  # by each of them, beside its text


@pytest.mark.slow
def test_a_kernel_shows_a_picture_once_with_and_without_pyplot(finished, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(Path(snn_bp.__file__).parents[1]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    cells = [new_code_cell(source.format(path=str(finished.path))) for source in CELLS]

    NotebookClient(new_notebook(cells=cells), timeout=300, kernel_name="python3").execute()

    outputs = [[sorted({*output["data"]} - {"text/plain"}) for output in cell.outputs] for cell in cells]
    assert outputs == [[kinds] if kinds else [] for kinds in SHOWN]


# Values as a cell's last line


EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def values(finished, tmp_path_factory):
    """What the public functions give, large where it can be."""
    with runs.loading(runs.few):
        dataset, network = finished.dataset(), finished.network()
        deep = (*(Dense(9), LIF(beta=0.9)) * 40, Residual(Dense(9), LIF(beta=0.9)))
        x, targets = finished.batch("validation")
        traced = trace(Network(deep, (9,)), torch.ones(3, 2, 9), torch.tensor([0, 1]))
        many = Predictions(
            tuple(f"{n}{EVIL}" for n in range(99)), Targets("class", ("a", EVIL)), torch.ones(99, 2), (3,) * 99
        )
        finding = Finding("silent", EVIL, "rate", 0.0, 0.1, "word " * 40, ("train.lr=1e-3",))
        layers = {f"model.{n} LIF(beta=0.9)": 1.0 * n for n in range(99)}
        wrong = np.eye(200, dtype=int).tolist()
        evaluation = Evaluation("test", 9, 0.5, "accuracy", {"accuracy": 1.0}, layers, layers, 9, 1.0, 0.7, 1.0, wrong)
        same = Similarity(1.0, 1.0)
        layer = LayerCheck("model.0 Dense(9)", same, same)
        alone = Run(shutil.copytree(finished.path, tmp_path_factory.mktemp("looks") / "not finished"))
        (alone.path / "results.json").unlink()
        return {
            "run": finished,
            "run that is not finished": alone,
            "experiment": finished.experiment,
            "deep experiment": Experiment(Data("digits"), deep),
            "evaluation": evaluate(finished, "validation"),
            "large evaluation": evaluation,
            "trace": trace(network, x[:, :4], targets[:4]),
            "deep trace": traced,
            "layer of a trace": traced.layers[0],
            "activity": network.observe(x[:, :4])[0][0],
            "step of a training": Event(1, 2, 3, Step(0.5, 3, 4, 1.0, 0.1), finished.metrics()[0], network, finished),
            "network": network,
            "deep network": Network(deep, (9,)),
            "chip": OnChip(Network((Dense(3), LIF(beta=0.9, reset="zero")), (2,))),
            "comparison": compare([finished, alone]),
            "data set": dataset,
            "data set in memory": Dataset.of(
                train=(np.ones((9, 2, 3)), np.arange(9) % 3), targets=Targets("class", (EVIL, "b", "c")), step_ms=2
            ),
            "predictions": many,
            "doctor": Report(EVIL, (finding,) * 30),
            "gradients": GradientReport((KernelCheck("float64", 0, 0, {"a": 1e-15}, 0.0),), (), (layer,) * 99, ()),
            "search": Search(
                finished.experiment,
                "es",
                "loss",
                10,
                5,
                network.state_dict(),
                (Row(1, 10, *(1.0,) * 9),),
                0,
                (9,),
                evaluation,
                None,
            ),
            "export": Verification(EVIL, "test", 9, {"float": 1.0}, None, 9, spikes=layers, operations=layers),
        }


VALUES = ("run", "run that is not finished", "experiment", "deep experiment", "evaluation", "large evaluation",
          "trace", "deep trace", "layer of a trace", "activity", "step of a training", "network",
          "deep network", "chip", "comparison", "data set", "data set in memory", "predictions", "doctor",
          "gradients", "search", "export")  # fmt: skip
TEXT_ALONE = ("layer of a trace", "activity", "step of a training", "gradients", "search", "export")


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_a_screen_of_text_without_an_address(values, name):
    lines = repr(values[name]).splitlines()

    assert 0 < len(lines) <= 24 and max(map(len, lines)) <= 100
    assert " at 0x" not in repr(values[name]) and "tensor(" not in repr(values[name])


@pytest.mark.parametrize("name", [name for name in VALUES if name not in TEXT_ALONE])
def test_its_table_is_short_and_takes_no_name_for_markup(values, name):
    shown = values[name]._repr_html_()

    html = Page(shown)

    assert len(shown) < 20_000 and [tag for tag, _ in html.tags].count("tr") <= 25
    assert not any(tag == "img" for tag, _ in html.tags)
    assert html.words and " at 0x" not in shown


def test_every_value_is_looked_at(values):
    assert tuple(values) == VALUES
    assert not any(hasattr(values[name], "_repr_html_") for name in TEXT_ALONE)


def test_an_experiment_is_written_as_one_would_write_it():
    experiment = runs.tiny(seed=3)
    module = Module(torch.nn.GroupNorm, 4, num_channels=12)
    own = Experiment(Data("digits", root="a folder/of mine"), (Flatten(), Dense(12), module, LIF(beta=Tau(20))))

    names = {"GroupNorm": torch.nn.GroupNorm, **{name: getattr(snn_bp, name) for name in snn_bp.__all__}}
    for value in (experiment, own):
        assert eval(repr(value), names) == value
    assert parse(repr(experiment), at="") == experiment


def test_a_run_says_its_result_or_how_far_it_came(values, finished):
    accuracy = finished.results()["test"]["accuracy"]

    assert f"test accuracy {accuracy:.4f}" in repr(finished)
    assert "not finished, epoch 2 of 2" in repr(values["run that is not finished"])
