"""The law of the house: what a consumer does not know it runs by its own forward, or refuses by name.

Every consumer of a network is handed a layer, neurons, a joint and a loss that it has never seen. And one more law that
keeps it so: what a layer is for is asked of `model/blocks.py`, hardly ever of its class.
"""

import ast
import copy
import re
import runpy
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from test_joints import Residual
from torch import nn

from snn_bp import (
    LI,
    LIF,
    CountCrossEntropy,
    Data,
    DelayedDense,
    Dense,
    Experiment,
    Module,
    Network,
    OnChip,
    SnnError,
    TemporalConv,
    Train,
    diagnose,
    start_alive,
    trace,
    use_backend,
)
from snn_bp.chip.quantize import quantize
from snn_bp.exchange.nir_write import write_nir
from snn_bp.exchange.snntorch import to_snntorch
from snn_bp.instruments import check_gradients
from snn_bp.instruments.cost import cost_of_bptt
from snn_bp.instruments.landscape import loss_slice
from snn_bp.instruments.online import eprop, ottt
from snn_bp.model.finite import first_nonfinite
from snn_bp.model.modules import Neurons
from snn_bp.runs.evaluation import count_activity, layer_activity
from snn_bp.runs.experiment import from_json, to_json
from snn_bp.runs.own_code import Code
from snn_bp.searches.objective import OfOutput
from snn_bp.searches.population import value_points

ROOT = Path(__file__).parents[1]
# lines of the package that ask a layer, a neuron or a module for its class, as experiments/benchmarks/house.py counts;
# they may only become fewer
QUESTIONS = {"isinstance": 12, "type": 15}
NEURON = LIF(beta=0.9, reset="zero")
X = (torch.rand(12, 3, 6, generator=torch.Generator().manual_seed(0)) < 0.4).float()
TARGETS = torch.tensor([0, 1, 2])
DIGITS = Data("digits")


class Doubling(nn.Module):
    """A layer that nobody knows."""

    def forward(self, x):
        return 2 * x


class Cumulated(nn.Module):
    """What came so far, over all steps at once."""

    def forward(self, x):
        return x.cumsum(0)


class Ticking(nn.Module):
    """Every second step, whichever piece of a recording it is in."""

    def forward(self, x, state):
        first = 0 if state is None else state
        steps = torch.arange(first, first + len(x)) % 2
        return x * steps.view(-1, *[1] * (x.dim() - 1)).to(x), first + len(x)


@dataclass(frozen=True)
class Double:
    """The value that builds it."""

    def build(self, shape):
        return Doubling()


class Inverted(Neurons):
    """Neurons that nobody knows: they send where others are silent."""

    def forward(self, x, state=None):
        out, state = super().forward(x, state)
        return 1 - out, state


@dataclass(frozen=True)
class Halved:
    """A loss that nobody knows."""

    def __call__(self, out, targets):
        return torch.nn.functional.cross_entropy(out.mean(0), targets) / 2

    def scores(self, out):
        return out.mean(0)


def network_of(*inner):
    network = Network((Dense(6, bias=False), NEURON, *inner, Dense(3, bias=False), LI(beta=0.9)), (6,), seed=3)
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 2.5  # so that all neurons fire
    return network


def with_neurons():
    network = network_of()
    network.layers[1].__class__ = Inverted
    return network


STRANGERS = {  # a network with one, and the words of which a refusal has one at least
    "layer": (lambda: network_of(Double()), r"Doubl"),
    "neurons": (with_neurons, r"Inverted|model\.1 LIF"),
    "module": (lambda: network_of(Module(Doubling)), r"Module\(Doubling\)"),
    "module over time": (lambda: network_of(Module(Cumulated, over="time")), r"Module\(Cumulated, over='time'\)"),
    "module with state": (lambda: network_of(Module(Ticking, stateful=True)), r"Module\(Ticking, stateful=True\)"),
    "convolution over time": (lambda: network_of(TemporalConv(6, 2)), r"TemporalConv\(6, 2\)"),
    "delays of synapses": (lambda: network_of(DelayedDense(6, 3)).eval(), r"DelayedDense\(6, 3\)"),
    "joint": (lambda: network_of(Residual((Dense(6, bias=False), NEURON))), r"Residual|Joint|joint"),
}


def one_by_one(network, x):
    """The layers by their own forwards, without plan or kernels."""
    with torch.no_grad(), use_backend("reference"):
        for layer in network.layers:
            if hasattr(layer, "branches"):
                inner, _ = layer.branches[0][1](layer.branches[0][0](x))
                x = x + inner
            else:
                out = layer(x)
                x = out[0] if isinstance(out, tuple) else out  # of what has a state
    return x


def loss_now(network):
    return CountCrossEntropy()(one_by_one(network, X), TARGETS)


# each gives what it found and what is right, or refuses; None: it has no number that the stranger changes
CONSUMERS = {
    "forward": lambda network: (network(X), one_by_one(network, X)),
    "forward in evaluation": lambda network: (network.eval()(X), one_by_one(network, X)),
    "walk": lambda network: (list(network.walk(X))[-1][1][0], one_by_one(network, X)),
    "observe": lambda network: (network.observe(X)[0][-1].spikes, one_by_one(network, X)),
    "trace": lambda network: (trace(network, X, TARGETS).loss, loss_now(network)),
    "diagnose": lambda network: (diagnose(trace(network, X, TARGETS)), None),
    "check_gradients": lambda network: (check_gradients(network, X.double()[:5], TARGETS, directions=1), None),
    "first_nonfinite": lambda network: (first_nonfinite(network, X), None),
    "start_alive": lambda network: (start_alive(network, X), None),
    "activity": lambda network: ([row["rate"] for row in layer_activity(network, X)], rates(network)),
    "operations": lambda network: (torch.no_grad()(count_activity)(network, X, {}, {}), one_by_one(network, X)),
    "landscape": lambda network: (middle(network), loss_now(network)),
    "search": lambda network: (valued(copy.deepcopy(network)), loss_now(network)),
    "cost": lambda network: (cost_of_bptt(network, X, TARGETS, steps=(4,), ways=("full",), repeats=1), None),
    "cost of a rule": lambda network: (cost_of_bptt(network, X, TARGETS, steps=(4,), ways=("ottt",), repeats=1), None),
    "ottt": lambda network: (ottt(network.eval(), X, TARGETS, CountCrossEntropy()), None),
    "eprop": lambda network: (eprop(network.eval(), X, TARGETS, CountCrossEntropy()), None),
    "chip": lambda network: (OnChip(network)(X), None),
    "netx": lambda network: (quantize(network), None),
    "NIR": lambda network: (write_nir(network.eval(), "unwritten.nir", step_s=1e-3), None),
    "snntorch": lambda network: (to_snntorch(network), None),
    "experiment": lambda network: (came_back(Experiment(DIGITS, network.model)), True),
}
# where a stranger may pass without a number to compare: they run the network's own forward for all they say
BY_OWN_FORWARD = {"diagnose", "check_gradients", "first_nonfinite", "cost", "start_alive"}
NOT_IN_VALUES = {("experiment", "neurons")}  # neurons of a class of their own are put in afterwards


def rates(network):
    activities, _ = network.observe(X)
    return [float(activity.spikes.detach().mean()) for activity in activities if isinstance(activity.neuron, LIF)]


def came_back(experiment):
    """Whether an experiment with code of its own is the same behind JSON and the copy of that code."""
    content, code = to_json(experiment), Code.of(experiment)
    return to_json(from_json(content, code and code.load(ROOT / "tests"))) == content


def middle(network):
    """What a slice of the loss says of the weights themselves."""
    return loss_slice(network, X, TARGETS, CountCrossEntropy(), points=3).losses.flatten()[1]


def valued(network):
    """What a search says of the point where the network stands."""
    point = nn.utils.parameters_to_vector(network.parameters()).detach()
    objective = OfOutput("loss", CountCrossEntropy(), None, 0.0)
    return float(value_points(network, torch.stack([point, 2 * point]), objective, X, TARGETS)[0])


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_what_nobody_knows_is_run_truly_or_refused_by_name(consumer, stranger, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, names = STRANGERS[stranger]
    network, plain = make(), network_of()
    assert not torch.equal(one_by_one(network, X), one_by_one(plain, X))  # dropped, it would be noticed

    try:
        found, right = CONSUMERS[consumer](network)
    except SnnError as refusal:
        assert re.search(names, str(refusal)), refusal
        assert not list(tmp_path.iterdir())
        return

    if (consumer, stranger) in NOT_IN_VALUES:
        return
    assert right is not None or consumer in BY_OWN_FORWARD, "it neither refuses the stranger nor shows what it did"
    if right is not None:
        torch.testing.assert_close(
            torch.as_tensor(found).double(), torch.as_tensor(right).double(), rtol=1e-4, atol=1e-5
        )


def test_a_neuron_that_nobody_knows_is_refused_where_it_enters():
    @dataclass(frozen=True)
    class Bursting:
        beta: float = 0.9

    with pytest.raises(SnnError, match=r"model\.1 Bursting\(\)"):
        Network((Dense(6), Bursting()), (6,))


LOSSES = {
    "trace": lambda loss: (trace(network_of(), X, TARGETS, loss=loss).loss, loss(network_of()(X), TARGETS)),
    "check_gradients": lambda loss: check_gradients(network_of(), X.double()[:5], TARGETS, loss=loss, directions=1),
    "eprop": lambda loss: eprop(network_of().eval(), X, TARGETS, loss),
    "ottt": lambda loss: ottt(network_of().eval(), X, TARGETS, loss),
    "train": lambda loss: Train(loss=loss),
    "experiment": lambda loss: to_json(loss),
}


@pytest.mark.parametrize("consumer", LOSSES)
def test_a_loss_that_nobody_knows_is_taken_or_refused_by_name(consumer):
    try:
        found = LOSSES[consumer](Halved())
    except SnnError as refusal:
        assert "Halved" in str(refusal)
        return

    if consumer == "trace":
        assert float(found[0]) == pytest.approx(float(found[1].detach()), rel=1e-5)


def test_layers_are_hardly_ever_asked_for_their_class():
    house = runpy.run_path(str(ROOT / "experiments/benchmarks/house.py"))
    files = sorted((ROOT / "snn_bp").rglob("*.py"))

    asked = {
        (path, kind, line)
        for path in files
        for kind, line in house["class_questions"](ast.parse(path.read_text(encoding="utf-8")))
    }
    counts = Counter(kind for _, kind, _ in asked)

    assert all(counts[kind] <= bound for kind, bound in QUESTIONS.items()), counts
