"""The artificial network of the same shape: what it is made of, what has none, and both trained by one command."""

from dataclasses import dataclass

import pytest
import runs
import torch
from runs import assert_same_run, few, tiny
from torch import nn

from snn_bp import (
    LI,
    LIF,
    TET,
    BatchNorm,
    Conv,
    ConvTranspose,
    CountCrossEntropy,
    Data,
    Dataset,
    Delay,
    DelayedDense,
    Dense,
    Dropout,
    EventDrop,
    Experiment,
    FirstSpike,
    Flatten,
    LayerNorm,
    MaxCrossEntropy,
    MeanSquaredPotential,
    MembraneCrossEntropy,
    Module,
    Network,
    Parallel,
    Pool,
    RateBounds,
    Recurrent,
    Residual,
    Run,
    SnnError,
    Spiking,
    Targets,
    TemporalConv,
    TimeJitter,
    Train,
    VanRossum,
    ann_of,
    diagnose,
    evaluate,
    export,
    train,
    training,
)
from snn_bp.cli.beside import train_both
from snn_bp.reports.ann import side_by_side
from snn_bp.reports.plots import save_plots
from snn_bp.runtime.signals import Stopped

few_digits = runs.few_digits
lif = LIF(beta=0.9)
ALL = (
    *(Conv(4, 3, padding=1), BatchNorm(), lif, Pool(2, kind="sum"), Dropout(0.1)),
    Residual(Conv(4, 3, padding=1), BatchNorm(), lif, shortcut=(Conv(4, 1),)),
    Parallel((Conv(2, 1), Spiking(lif, learn=("beta",))), (ConvTranspose(3, 3, padding=1), LayerNorm(), lif)),
    *(Flatten(), Module(nn.GroupNorm, 5, 20), Parallel((Dense(3), LI(beta=0.9)), (Dense(2), lif))),
)


DIGITS = Data("digits", step_ms=31, steps=10)


def of(*model, data=DIGITS, **how) -> Experiment:
    return Experiment(data, model, Train(**how))


def test_every_weight_keeps_its_shape_and_its_name():
    spiking, ann = (Network(each.model, (3, 4, 4)) for each in (of(*ALL), ann_of(of(*ALL))))

    shapes = [{name: weight.shape for name, weight in each.named_parameters()} for each in (spiking, ann)]
    learned = {name for name in shapes[0] if ".learned." in name}
    assert len(learned) == 1 and {name: shapes[0][name] for name in shapes[0].keys() - learned} == shapes[1]
    assert ann.shapes == spiking.shapes


def test_it_is_the_network_of_relus_that_one_would_write():
    network = Network(
        ann_of(of(Conv(4, 3), lif, Flatten(), Dense(6), BatchNorm(), lif, Dense(3), lif)).model, (2, 5, 5)
    )
    conv, dense, norm, last = (network.layers[index] for index in (0, 3, 4, 6))
    plain = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), dense, norm, nn.ReLU(), last).eval()
    x = torch.rand(7, 3, 2, 5, 5)

    torch.testing.assert_close(network.eval()(x), torch.stack([plain(each) for each in x]))


def test_neurons_before_a_pool_of_votes_put_out_the_answer_too():
    ann = ann_of(of(Flatten(), Dense(20), lif, Dense(20), lif, Dropout(0.1), Pool(2)))

    assert [ann.model[index] for index in (2, 4)] == [Module(nn.ReLU), Module(nn.Identity)]


def test_events_summed_are_the_sum_of_the_frames(few_digits):
    augment = (EventDrop(0.3), TimeJitter(5))
    spiking = tiny(data=Data("digits", step_ms=31, steps=10, translate_px=2, augment=augment))
    frames, image = (few(each.data).batch("train", range(9), seed=3)[0] for each in (spiking, ann_of(spiking)))

    assert image.shape == (1, *frames.shape[1:]) and torch.equal(image[0], frames.sum(0))
    assert ann_of(spiking, sees="frames").data == spiking.data


def test_the_experiment_is_made_without_the_recordings():
    asked = Data("tonic:NCALTECH101", root="/nowhere", step_ms=10, steps=30)

    assert ann_of(of(Conv(4, 3), lif, Flatten(), Dense(101), lif, data=asked)).data.step_ms == 300


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        (CountCrossEntropy(smoothing=0.1), MembraneCrossEntropy(smoothing=0.1)),
        (FirstSpike(class_weights=(1.0,) * 10), MembraneCrossEntropy(class_weights=(1.0,) * 10)),
        (MaxCrossEntropy(), MaxCrossEntropy()),
        (TET(), TET()),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_a_loss_on_spikes_becomes_one_on_outputs(loss, wanted):
    train = ann_of(of(Dense(10), lif, loss=loss, rates=RateBounds(), truncate=5, memory="low", lr=0.1)).train

    assert train == Train(loss=wanted, lr=0.1)


@dataclass(frozen=True)
class Double:
    """A layer that nobody knows."""

    def build(self, shape):
        return nn.Identity()


@dataclass(frozen=True)
class Own:
    """A loss that nobody knows."""

    def __call__(self, out, targets):
        return out.mean()


VALUES = Dataset.of((torch.zeros(8, 5, 4), torch.arange(8) % 2), step_ms=1).data
STEPPED = Dataset.of((torch.zeros(8, 5, 4), torch.zeros(8, 5, 2)), targets=Targets("vector per step", ("x", "y"))).data


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (of(Dense(4), Recurrent(lif), Dense(2), lif), "model.1 Recurrent.*a step later.*LIF"),
        (of(Dense(4), lif, Delay(1), Dense(2), lif), r"model.2 Delay\(\).*Leave it out"),
        (of(DelayedDense(4, 3), lif), "model.0 DelayedDense"),
        (of(TemporalConv(4, 3), lif), "model.0 TemporalConv"),
        (of(Dense(4), LI(beta=0.9), Dense(2), lif), r"model.1 LI\(.*potentials go on"),
        (of(Residual(Dense(4), lif, combine="iand"), Dense(2), lif), "model.0 Residual.*combine='add'"),
        (of(Residual(Dense(4), Recurrent(lif)), Dense(2), lif), r"model\.0\.0\.1 Recurrent"),
        (of(Module(nn.GRU, 4, 4, over="time", stateful=True), Dense(2), lif), "model.0 Module.*over rows"),
        (of(Double(), Dense(2), lif), r"model.0 Double\(\).*not known"),
        (of(Dense(2), lif, loss=Own()), "Own.*means"),
        (of(Dense(2), lif, loss=VanRossum()), "VanRossum.*CountCrossEntropy"),
        (of(Dense(10), lif, target="loihi"), "train.target='loihi'.*float"),
        (of(Dense(10), lif, start="runs/a"), "train.start='runs/a'.*Leave train.start out"),
        (of(Dense(10), lif, data=Data("digits", binary=True)), "data.binary.*--ann frames"),
        (of(Dense(2), lif, data=VALUES), "only events.*--ann frames"),
    ],
    ids=lambda value: None if isinstance(value, Experiment) else value[:20],
)
def test_what_has_no_counterpart_is_refused_by_name(asked, told):
    with pytest.raises(SnnError, match=told):
        ann_of(asked)


def test_frames_of_values_and_targets_of_every_step_are_seen_one_by_one(tmp_path):
    model, how = (Dense(8), lif, Dense(2), LI(beta=0.9)), {"loss": MeanSquaredPotential(), "epochs": 1}
    experiment = of(*model, data=STEPPED, **how)
    dataset = Dataset.of((torch.rand(8, 5, 4), torch.zeros(8, 5, 2)), targets=Targets("vector per step", ("x", "y")))

    run = train(ann_of(experiment, sees="frames"), tmp_path / "ann", dataset=dataset, quiet=True)

    results = run.results()
    assert results is not None and results["validation"]["neurobench"]["SynapticOperations"]["Dense"] == 5 * (
        4 * 8 + 8 * 2
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A spiking run and that of its artificial network, by the command; what was printed."""
    folder = tmp_path_factory.mktemp("both")
    with runs.loading(few):
        train_both(tiny(), ann_of(tiny()), folder / "a", command="again", changes=(), log=None)
    return Run(folder / "a"), Run(folder / "a-ann")


def test_the_command_trains_both_and_says_what_each_reaches_and_costs(both, few_digits):
    spiking, ann = both
    table = side_by_side(spiking, ann)

    counts = ann.results()["test"]["neurobench"]["SynapticOperations"]
    assert counts["Dense"] == 2 * 17 * 17 * 12 + 12 * 10  # one pass
    assert spiking.results()["test"]["neurobench"]["SynapticOperations"]["Dense"] == 3 * counts["Dense"]
    assert table.ann["energy estimate, uJ"] == pytest.approx(evaluate(ann).energy_pj() / 1e6)
    assert table.ann["SynapticOperations"] == counts["Effective_MACs"] + counts["Effective_ACs"]
    assert table.spiking["ParameterCount"] == table.ann["ParameterCount"] == 7122
    assert table.ann["accuracy"] == ann.results()["test"]["accuracy"] > 0.2
    lines = str(table).splitlines()
    assert max(map(len, lines)) <= 80 and "4.6 pJ a MAC" in str(table) and "one frame with all events" in str(table)


def test_the_same_command_goes_on_with_either_to_the_same_bits(both, few_digits, tmp_path, monkeypatch):
    for experiment, name in ((tiny(), "a"), (ann_of(tiny()), "a-ann")):
        for _ in training(experiment, tmp_path / name, quiet=True):
            break

    train_both(tiny(), ann_of(tiny()), tmp_path / "a", command="again", changes=(), log=None)

    for run in both:
        assert_same_run(run, Run(tmp_path / run.path.name))

    def stopped(*_, **__):
        raise Stopped(tmp_path, 2)

    monkeypatch.setattr("snn_bp.trainer.loop.resume", stopped)
    with pytest.raises(Stopped, match=r"Go on with: snn-bp train a\.py --ann summed"):
        command = "snn-bp train a.py --ann summed"
        train_both(tiny(), ann_of(tiny()), tmp_path / "a", command=command, changes=(), log=None)


def test_a_folder_of_another_experiment_is_left_alone(both, few_digits):
    spiking, _ = both

    with pytest.raises(SnnError, match=r"another experiment\. Name another --out"):
        train_both(tiny(lr=1.0), ann_of(tiny(lr=1.0)), spiking.path, command="", changes=(), log=None)


@pytest.mark.slow
def test_its_run_is_one_as_any_other(both, few_digits):
    _, ann = both

    assert {finding.kind for finding in diagnose(ann).findings} == {"overfitting"}  # 150 recordings
    assert {"training.png", "filters.png"} <= {file.name for file in save_plots(ann)}
    with pytest.raises(SnnError, match=r"Module\(ReLU\)"):
        export(ann, ann.path / "a.nir")
