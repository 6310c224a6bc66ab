"""An evaluation by several processes gives the figures, scores and counts of one, bit for bit."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import evaluated_runs
import pytest
import torch
from evaluated_runs import CASES, dataset_of, experiment_of
from test_distributed import BOTH_AND_THERE, EXPERIMENT, SLOWED, begun, ours, said_where_a_loss_fails, torchrun

from snn_bp import Module, Network, Run
from snn_bp.runs.evaluation import Measurement
from snn_bp.trainer import together
from snn_bp.trainer.together import evaluate_together


class Others:
    """Stands for the team of a process while each of several takes its turn, the first of all last."""

    def __init__(self, monkeypatch, count):
        self.count, self.mine, self.flags, self.rank = count, {}, {}, 0
        monkeypatch.setattr(together, "rank", lambda: self.rank)
        monkeypatch.setattr(together, "processes", lambda: count)
        monkeypatch.setattr(together, "_gathered", self.gathered)

    @property
    def is_first(self):
        return self.rank == 0

    def of_each(self, value):
        self.flags[self.rank] = value
        return list(self.flags.values())

    def gathered(self, mine, team):
        self.mine[self.rank] = pickle.dumps(mine)
        return [pickle.loads(self.mine[rank]) for rank in range(self.count)] if self.is_first else []

    def evaluate(self, of_rank):
        """What each process gives, the first ahead."""
        found = []
        for rank in reversed(range(self.count)):
            self.rank = rank
            found.append(evaluate_together(*of_rank(), self))
        return found[::-1]


def asked_of(name, dataset, **how):
    options = experiment_of(name, dataset).train_at_step()
    return Measurement(dataset, "validation", options.loss, options.metric, **{"counts": True, "keep": True} | how)


def network_of(name, dataset):
    torch.manual_seed(2)
    return experiment_of(name, dataset).network(dataset.shape).eval()


def bits(tensor):
    return None if tensor is None else tensor.numpy().tobytes()


@pytest.mark.parametrize("count", [2, 7])  # of 5 batches
@pytest.mark.parametrize("name", CASES)
def test_several_processes_find_what_one_does(name, count, monkeypatch):
    dataset = dataset_of(name)
    one, kept = evaluate_together(network_of(name, dataset), asked_of(name, dataset), None)

    first, *others = Others(monkeypatch, count).evaluate(lambda: (network_of(name, dataset), asked_of(name, dataset)))

    assert others == [None] * (count - 1)
    assert first[0] == one and repr(first[0].record()) == repr(one.record())
    for each in ("scores", "values", "mask"):
        assert bits(getattr(first[1], each)) == bits(getattr(kept, each)), each
    assert first[1].names == kept.names


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_batch_is_measured_once_by_the_process_whose_turn_it_is(count):
    dataset = dataset_of("plain")
    asked, network = asked_of("plain", dataset, counts=False), network_of("plain", dataset)
    dealt = [list(asked.of_batches(network, slice(rank, None, count))) for rank in range(count)]

    recordings = [[len(found.scores[0]) for found in mine] for mine in dealt]

    assert recordings == [[8, 8, 8, 8, 4][rank::count] for rank in range(count)]


def test_only_what_is_measured_is_loaded(monkeypatch):
    dataset, loaded = dataset_of("plain"), []
    batch = type(dataset).batch
    monkeypatch.setattr(type(dataset), "batch", lambda self, split, ids, **how: (
        loaded.append(list(ids)), batch(self, split, ids, **how)
    )[1])  # fmt: skip
    asked = asked_of("plain", dataset)

    list(asked.of_batches(network_of("plain", dataset), slice(1, None, 2)))

    assert loaded == [list(ids) for ids in dataset.batches("validation")[1::2]]


def test_without_scores_that_are_kept_little_is_sent():
    dataset = dataset_of("steps")

    (found, *_) = asked_of("steps", dataset, counts=False, keep=False).of_batches(network_of("steps", dataset))

    assert found.scores is None and found.counters is None and not found.spikes


def test_a_layer_that_keeps_something_has_it_as_it_was_where_it_does_not_count(monkeypatch):
    dataset = dataset_of("keeps")
    networks = [network_of("keeps", dataset) for _ in range(2)]
    before = [float(network.layers[4].seen) for network in networks]
    turns = iter([networks[1], networks[0]])

    Others(monkeypatch, 2).evaluate(lambda: (next(turns), asked_of("keeps", dataset)))

    assert [float(network.layers[4].seen) - was for network, was in zip(networks, before, strict=True)] == [5, 0]


class Last(torch.nn.Module):
    """Keeps the last input that it has evaluated, whose shape is the batch's."""

    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.last = x[:, 0] + 0
        return x.clone()


def test_a_layer_that_keeps_something_may_be_evaluated_again(monkeypatch):
    dataset, layers = dataset_of("plain"), evaluated_runs.model(Module(Last))
    networks = [Network(layers, dataset.shape, seed=1) for _ in range(2)]
    one = evaluate_together(Network(layers, dataset.shape, seed=1), asked_of("plain", dataset), None)

    for _ in range(2):
        turns = iter([networks[1], networks[0]])
        first, _ = Others(monkeypatch, 2).evaluate(lambda turns=turns: (next(turns), asked_of("plain", dataset)))

    assert first[0] == one[0]


def test_an_evaluation_with_random_numbers_draws_the_same_again_and_leaves_those_of_others_alone():
    dataset = dataset_of("draws")
    network, state, found = network_of("draws", dataset), torch.get_rng_state(), []
    for _ in range(2):
        found.append(evaluate_together(network, asked_of("draws", dataset), None)[1].scores)

    assert torch.equal(*found) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_runs_of_several_processes_hold_what_one_process_finds_in_them(count, tmp_path):
    script = Path(evaluated_runs.__file__)

    several = torchrun(count, script, "train", tmp_path, *CASES, cwd=tmp_path)
    _, said = several.communicate(timeout=600)

    assert several.returncode == 0, said
    subprocess.run(
        [sys.executable, script, "compare", tmp_path, *CASES], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_while_another_evaluates_ends_all_with_one_line(killed, tmp_path):
    (tmp_path / "mine.py").write_text(EXPERIMENT.replace("epochs=8", "epochs=1"))
    (tmp_path / "program.py").write_text(SLOWED)
    where = {"PLACE": "snn_bp.trainer.ending.evaluate_together", "ONLY": "1"}
    process = torchrun(2, "program.py", "train", "mine.py", cwd=tmp_path, **where)
    members = begun(process, tmp_path / "there", lines=BOTH_AND_THERE)
    os.kill(members[killed], signal.SIGKILL)
    _, said = process.communicate(timeout=60)

    assert process.returncode != 0 and len(ours(said)) == 1, said


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [0, 1])
def test_a_signal_in_an_evaluation_stops_all_behind_it_saved_with_one_line(signalled, tmp_path):
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    (tmp_path / "program.py").write_text(SLOWED)
    where = {"PLACE": "snn_bp.trainer.ending.evaluate_together", "ONLY": "1"}
    process = torchrun(2, "program.py", "train", "mine.py", "--out", "a", cwd=tmp_path, **where)
    os.kill(begun(process, tmp_path / "there", lines=BOTH_AND_THERE)[signalled], signal.SIGTERM)
    (tmp_path / "go on").touch()
    _, said = process.communicate(timeout=120)

    assert ours(said) == ["stopped and saved. Go on with: snn-bp resume a"] and process.returncode != 0
    assert Run(tmp_path / "a").load("last").epoch == 1 and len(Run(tmp_path / "a").metrics()) == 1


@pytest.mark.slow
def test_an_error_in_what_another_process_evaluates_ends_all_with_its_line(tmp_path):
    said = said_where_a_loss_fails(tmp_path, "out.is_inference()")

    assert len(ours(said)) == 1 and "recording 7 is bad" in said, said
