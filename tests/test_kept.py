"""What a layer keeps in plain attributes is the same in all processes of a training, or refused by name."""

import threading

import evaluated_runs
import numpy as np
import pytest
import test_distributed
import torch
from distributed_runs import dataset_of
from test_distributed import EXPERIMENT, ours, torchrun, with_layer
from test_evaluated_together import Others, asked_of
from torch import nn
from torch.nn.utils import prune

from snn_bp import Module, Network, SnnError, Train
from snn_bp.trainer import kept
from snn_bp.trainer.distributed import Team, check_together
from snn_bp.trainer.kept import Kept, attributes_of, made_by_calls

two, alone = test_distributed.two, test_distributed.alone


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, x):
        self.seen += 1
        return x * self.seen


class Evaluated(Counting):
    def forward(self, x):
        self.seen += not self.training
        return x * (1 + self.seen)


class Mean(nn.Module):
    def forward(self, x):
        self.mean = x.mean()
        return x - self.mean


class Calibrated(nn.Module):
    """Keeps what it saw first, which is what it is built by."""

    mean = None

    def forward(self, x):
        if self.mean is None:
            self.mean = [x.mean().item()]
        return x - self.mean[0]


class Histogram(nn.Module):
    def __init__(self):
        super().__init__()
        self.counts = {"of": np.zeros(2)}

    def forward(self, x):
        self.counts["of"] += np.histogram(x.numpy(force=True), 2)[0]
        return x * 2


class Within(nn.Module):
    """Has a layer that counts in a list, which torch does not know of."""

    def __init__(self):
        super().__init__()
        self.layers = [Counting()]

    def forward(self, x):
        return self.layers[0](x)


class Membrane(nn.Module):
    def forward(self, x):
        self.v = torch.zeros_like(x[0])
        for step in x:
            self.v = 0.5 * self.v + step
        return x + self.v


CHANGED = {
    "seen": Module(Counting), "inner.seen": Module(Counting, over="time"), "mean": Module(Mean),
    "counts": Module(Histogram), "layers": Module(Within),
    "inner.v": Module(Membrane, over="time"), "seen in evaluation": Module(Evaluated),
}  # fmt: skip


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", CHANGED)
def test_what_calls_change_in_a_plain_attribute_is_refused_by_name(name, accumulate, two):
    network, drawn = with_layer(CHANGED[name]), torch.get_rng_state()
    kind, attribute = CHANGED[name].kind.__name__, name.split(" ")[0]

    with pytest.raises(SnnError, match=rf"{kind}.* keeps {attribute} in plain attributes, .* 2 processes") as refusal:
        check_together(network, Train(accumulate=accumulate), dataset_of(False))

    assert ("register_buffer" in str(refusal.value)) == (accumulate == 1 or name == "seen in evaluation")
    assert torch.equal(torch.get_rng_state(), drawn)


class Table(nn.Module):
    """Makes a table when it is called first, and has much that is no state."""

    table, kinds = None, {"a", "b"}

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 5)
        self.names, self.act, self.device = {"b", "a", "c"}, lambda x: x + 1, torch.device("cpu")
        self.linked, self.turned, self.draw = [self.inner], self.inner.weight.detach().t(), torch.Generator()

    def forward(self, x):
        if self.table is None:
            self.table = torch.arange(5.0)
        self.weight = self.inner.weight.exp()
        return self.act(x) + self.table + x @ self.weight


class Pruned(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = prune.l1_unstructured(nn.Linear(5, 5), "weight", 0.3)

    def forward(self, x):
        return self.inner(x)


class Looped(nn.GRU):
    def forward(self, x):
        return super().forward(x)[0]


MADE = [Module(Table), Module(Calibrated), Module(Pruned), Module(Looped, 5, 5, over="time"), Module(nn.Dropout, 0.5)]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("layer", MADE, ids=str)
def test_what_the_first_call_makes_of_weights_is_trained(layer, accumulate, two):
    network = with_layer(layer)
    check_together(network, Train(accumulate=accumulate), dataset_of(False))
    course = Kept(network, made_by_calls(network, is_dealt=True), is_dealt=True)

    network(torch.ones(2, 3, 1, 6, 6))
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1  # as an optimizer does
    network(torch.zeros(2, 3, 1, 6, 6))

    course.end_step(Told(), has_run=True, last=True)


def test_a_layer_whose_weight_is_made_of_others_is_joined(alone):
    network = with_layer(Module(Pruned))
    network(torch.ones(2, 3, 1, 6, 6))  # of which it keeps a weight with a gradient

    assert Team(Train()).join(network, Train(), dataset_of(False)) == "1 processes, each a part of every batch"


class Told:
    """Stands for a team whose other process tells something else."""

    def __init__(self, other=lambda mine: mine):
        self.other = other

    def of_each(self, mine):
        return [mine, self.other(mine)]


class Waiting(Counting):
    """Counts only once its weight has grown, which no call before a training shows."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        self.seen += bool(self.weight > 10)
        return x * self.weight


def test_what_changes_only_once_it_trains_is_refused_in_all_processes():
    network = with_layer(Module(Waiting))
    course = Kept(network, made_by_calls(network, is_dealt=True), is_dealt=True)
    network.layers[2].weight.data += 10
    course.end_step(Told(), has_run=True, last=False)

    network(torch.ones(2, 3, 1, 6, 6))

    course.end_step(Told(), has_run=True, last=False)  # no edge of the epoch
    for mine, other in (({}, lambda mine: mine), (course, lambda mine: (mine[0], set()))):
        assert mine is not None
        with pytest.raises(SnnError, match=r"Waiting.* keeps seen in plain attributes"):
            course.end_step(Told(other), has_run=True, last=True)


@pytest.mark.parametrize("has_run", [True, False])
def test_what_another_process_holds_otherwise_is_refused_where_both_have_called_it(has_run):
    network = with_layer(Module(Table))
    course = Kept(network, made_by_calls(network, is_dealt=False), is_dealt=False)
    other = with_layer(Module(Table))
    other.layers[2].table = torch.ones(5)

    def step():
        course.end_step(Told(lambda mine: (attributes_of(other), set())), has_run=has_run, last=False)

    if has_run:
        with pytest.raises(SnnError, match=r"Table.* keeps table in plain attributes"):
            step()
    else:
        step()


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x):
        return 2 * x


def test_an_attribute_that_cannot_be_compared_is_refused_by_name(two):
    with pytest.raises(SnnError, match=r"Locked\) keeps in lock what cannot be compared over 2 processes"):
        check_together(with_layer(Module(Locked)), Train(), dataset_of(False))


class Fixed(nn.Module):
    """Takes rows of pairs of recordings, as its batches are."""

    def forward(self, x):
        return x.view(2, -1, 5).flip(0).view(-1, 5) if len(x) > 1 else x.clone()


def test_a_layer_that_does_not_take_any_batch_is_refused_by_name(two):
    with pytest.raises(SnnError, match=r"Fixed\) does not run on 3 recordings of 3 steps.* 2 processes"):
        check_together(with_layer(Module(Fixed)), Train(accumulate=2), dataset_of(False))


def test_a_network_of_known_layers_is_not_tried(monkeypatch):
    network = with_layer(evaluated_runs.LEAKY)
    monkeypatch.setattr(kept, "deep_copy", None)

    assert made_by_calls(network, is_dealt=True) == set() and attributes_of(network) == {}


class Odd(Counting):
    """Counts in evaluation, on inputs of more than one recording alone."""

    def forward(self, x):
        self.seen += int(not self.training and len(x) > 20)
        return x.clone()


def evaluated(monkeypatch, layer, *, count=2):
    dataset = evaluated_runs.dataset_of("plain")
    networks = [Network(evaluated_runs.model(layer), dataset.shape, seed=1).eval() for _ in range(count + 1)]
    turns = iter(networks[:count][::-1])
    found = Others(monkeypatch, count).evaluate(lambda: (next(turns), asked_of("plain", dataset)))
    one = Others(monkeypatch, 1).evaluate(lambda: (networks[-1], asked_of("plain", dataset)))[0]
    return found[0], one, networks


def test_what_an_evaluation_changes_in_a_plain_attribute_is_refused_by_name(monkeypatch):
    with pytest.raises(SnnError, match=r"Odd\) keeps seen in plain attributes.*register_buffer"):
        evaluated(monkeypatch, Module(Odd))


def test_a_weight_that_an_evaluation_changes_is_that_of_one_process(monkeypatch):
    found, one, networks = evaluated(monkeypatch, Module(evaluated_runs.Ageing, 12, 12))

    first, second, alone = (network.layers[4].weight for network in networks)
    assert found[0] == one[0] and torch.equal(first, alone) and not torch.equal(first, second)


WAITING = """
import torch
class Waiting(torch.nn.Module):
    seen = 0
    def forward(self, x):
        self.seen += bool(len(x) > 300)
        return x.clone()
experiment = """  # what it counts is the same in both processes, and not that of one


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_that_come_to_differ_end_with_one_line(accumulate, tmp_path):
    changed = EXPERIMENT.replace("\nexperiment = ", WAITING).replace("Dense(24),", "Dense(24), Module(Waiting),")
    (tmp_path / "mine.py").write_text(changed.replace("lr=1e-3", f"lr=1e-3, accumulate={accumulate}"))

    process = torchrun(2, "-m", "snn_bp", "train", "mine.py", cwd=tmp_path)
    _, said = process.communicate(timeout=120)

    assert process.returncode != 0 and len(ours(said)) == 1
    assert "Module(Waiting) keeps seen in plain attributes, and each of 2 processes" in said, said
