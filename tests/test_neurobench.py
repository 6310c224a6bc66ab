"""What an inference costs: NeuroBench's figures, by its own counters, by those recorded, and by hand."""

import json
import runpy
from pathlib import Path

import pytest
import runs
import torch
from torch import nn

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    ConvTranspose,
    CountCrossEntropy,
    DelayedDense,
    Dense,
    Flatten,
    Module,
    Network,
    OnChip,
    Recurrent,
    SnnError,
    TemporalConv,
)
from snn_bp.model.neurobench import Counters, energy_pj
from snn_bp.reports.sections import activity
from snn_bp.runs.evaluation import count_activity, evaluate_network

few_digits = runs.few_digits
ROOT = Path(__file__).parents[1]
BENCHMARK = runpy.run_path(str(ROOT / "experiments/benchmarks/neurobench_counters.py"))
RECORDED = json.loads((ROOT / "experiments/results/neurobench_counters.json").read_text())["networks"]
lif = LIF(beta=0.9, threshold=0.2)


@torch.no_grad()
def figures(network, x, mask=None):
    counters = Counters()
    count_activity(network.eval(), x, {}, {}, set(), mask, counters)
    return counters.figures(network, x.shape[1])


def operations(network, x, mask=None):
    return figures(network, x, mask)["SynapticOperations"]


@pytest.mark.parametrize("name", BENCHMARK["NETWORKS"])
def test_the_figures_are_those_of_the_counters_of_neurobench(name):
    pytest.importorskip("neurobench")

    assert BENCHMARK["compared"](name)["differ"] == []


@pytest.mark.parametrize("name", BENCHMARK["NETWORKS"])
def test_the_figures_are_those_that_neurobench_gave_when_it_was_asked(name):
    recorded = RECORDED[name]

    found = BENCHMARK["ours"](*BENCHMARK["network_and_batches"](name))

    wanted = dict(recorded["NeuroBench"])
    wanted["Footprint"] -= recorded["bytes of buffers in its neurons"]
    assert found.keys() == wanted.keys()
    assert found.pop("ActivationSparsity") == pytest.approx(wanted.pop("ActivationSparsity"), abs=1e-12)
    assert found == wanted and 0 < found["ConnectionSparsity"] < 1


def test_a_step_that_holds_more_than_ones_is_of_multiplications():
    network = Network((Dense(3), lif), (4,))
    x = torch.zeros(3, 2, 4)
    x[0, :, :2] = 1.0  # two inputs of each recording
    x[1, 0, 1], x[1, 1, 2] = 0.5, 1.0  # a spike beside a graded input counts with it
    x[2, 0, 0] = -1.0

    assert operations(network, x) == {"Effective_MACs": 2 * 3 / 2, "Effective_ACs": 5 * 3 / 2, "Dense": 3 * 4 * 3}


def test_weights_that_are_zero_count_in_dense_alone():
    network = Network((Dense(3), lif), (4,))
    with torch.no_grad():
        network.layers[0].weight[:, 0] = 0

    found = figures(network, torch.ones(5, 2, 4))

    assert found["SynapticOperations"] == {"Effective_MACs": 0, "Effective_ACs": 5 * 3 * 3, "Dense": 5 * 4 * 3}
    assert found["ConnectionSparsity"] == 0.25
    assert (found["ParameterCount"], found["Footprint"]) == (15, 60)


LAYERS = {
    "sparse": (Dense(6, density=0.5), (5,)),
    "transposed": (ConvTranspose(3, 2, stride=2), (2, 4, 5)),
    "temporal": (TemporalConv(4, 3, dilation=2, groups=2), (2,)),
    "temporal in space": (TemporalConv(4, 2, kernel=3, padding=1), (2, 5, 4)),
    "delayed": (DelayedDense(4, 6), (5,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_neurobench_does_not_know_count_by_the_same_rule(name, coin):
    layer, shape = LAYERS[name]
    network = Network((layer, lif), shape).eval()
    x = coin(7, 3, *shape, probability=0.3)
    with torch.no_grad():
        for weight in network.parameters():
            weight *= torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) > 0.3

    found = operations(network, x)

    ones = Network((layer, lif), shape).eval()  # with ones for weights its outputs count
    ones.load_state_dict(network.state_dict())
    with torch.no_grad():
        for name, weight in ones.named_parameters():
            if "weight" in name or "raw" in name:
                weight.copy_(weight != 0)
            elif "bias" in name:
                weight.zero_()
        met = next(out for part, _, out in ones.visit(x) if part.index == 0)
    assert found["Effective_ACs"] == pytest.approx(float(met.double().sum()) / 3, rel=1e-6)
    assert 0 < found["Effective_ACs"] < found["Dense"] and found["Effective_MACs"] == 0


def test_steps_that_a_recording_does_not_have_cost_nothing(coin):
    over_time = (TemporalConv(4, 3), lif, DelayedDense(5, 4), lif)
    network = Network((Dense(6), Recurrent(lif), BatchNorm(), *over_time, Dense(3), LI(beta=0.9)), (4,))
    x, mask = coin(9, 2, 4, probability=0.5), torch.ones(9, 2, dtype=torch.bool)
    mask[5:, 1] = False

    padded = operations(network, x, mask)

    whole, short = operations(network, x[:, :1]), operations(network, x[:5, 1:])
    assert padded["Dense"] == (whole["Dense"] + short["Dense"]) / 2
    together = (sum(each["Effective_MACs"] + each["Effective_ACs"] for each in (whole, short))) / 2
    assert padded["Effective_MACs"] + padded["Effective_ACs"] == together
    counted: dict[str, float] = {}
    with torch.no_grad():
        count_activity(network, x, {}, counted, mask=mask)
    assert sum(counted.values()) / 2 == together > 0


def test_a_rectifier_of_ones_own_is_an_activation():
    network = Network((Module(nn.ReLU), Dense(2), lif), (4,))
    x = torch.tensor([-1.0, -2.0, 3.0, 4.0]).expand(5, 2, 4)
    with torch.no_grad():
        network.layers[1].weight.zero_(), network.layers[1].bias.zero_()

    assert figures(network, x)["ActivationSparsity"] == (2 + 2) / (4 + 2)


@pytest.mark.usefixtures("few_digits")
def test_energy_is_that_of_the_operations_at_what_each_takes():
    network = Network((Flatten(), Dense(10), lif), (2, 17, 17))
    found = evaluate_network(network, runs.few(runs.DIGITS), "test", CountCrossEntropy())

    counts = found.neurobench["SynapticOperations"]
    assert counts["Effective_MACs"] + counts["Effective_ACs"] == sum(found.operations.values()) > 0
    assert found.energy_pj() == pytest.approx(4.6 * counts["Effective_MACs"] + 0.9 * counts["Effective_ACs"])
    assert (
        found.energy_pj(mac_pj=0, ac_pj=2)
        == 2 * counts["Effective_ACs"]
        == energy_pj(found.neurobench, mac_pj=0, ac_pj=2)
    )
    assert "energy estimate" in str(found) and "Horowitz 2014" in found._repr_html_()
    assert found.record()["neurobench"] == found.neurobench
    said = activity(found.record(), "test").sentences
    assert "effective MACs" in said[0] and "energy estimate" in said[1]
    assert activity(found.record() | {"neurobench": None}, "test").sentences == [
        "The results have no figures of NeuroBench."
    ]
    with pytest.raises(SnnError, match="ac_pj"):
        found.energy_pj(ac_pj=-1)


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.scale


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("kind", ["in integers", "with a layer that nobody knows"])
def test_where_not_all_is_known_there_are_no_figures_and_no_energy(kind):
    neurons = LIF(beta=0.9, reset="zero")
    network = OnChip(Network((Flatten(), Dense(10), neurons), (2, 17, 17)))
    if kind != "in integers":
        network = Network((Flatten(), Module(Unknown), Dense(10), neurons), (2, 17, 17))

    found = evaluate_network(network, runs.few(runs.DIGITS), "test", CountCrossEntropy())

    assert found.neurobench is None and "no figures of NeuroBench" in str(found) and "neurobench" not in found.record()
    with pytest.raises(SnnError, match="whose layers are all known"):
        found.energy_pj()
