"""Training as a loop of one's own, and what `Train` can ask for: stopped within an epoch and resumed, bit for bit."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from runs import assert_same_run, few_digits, json_of, rows, same_weights, tiny
from runs import training as loop

from snn_bp import (
    LIF,
    BatchNorm,
    Dense,
    Network,
    Patience,
    Run,
    SnnError,
    Start,
    Train,
    finish,
    resume,
    search,
    start_alive,
    train,
    training,
)  # fmt: skip
from snn_bp.data import load
from snn_bp.runs.changes import override
from snn_bp.runs.experiment import from_json, to_json
from snn_bp.trainer.optimizer import make_optimizer, train_step
from snn_bp.trainer.sampling import batches_of_epoch
from snn_bp.trainer.weights import freeze_layers, start_from

few_digits = few_digits
BATCHES = 5  # an epoch of 150 recordings


def stopped(experiment, path, monkeypatch, *, behind):
    """A run that dies within the call number `behind` of a training step, each step before it saved."""
    real, calls = loop.train_step, []

    def step(*arguments, **options):
        calls.append(1)
        if len(calls) > behind:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        with pytest.raises(KeyboardInterrupt):
            train(experiment, path, quiet=True, save_seconds=0)
    return Run(path)


@dataclass(frozen=True)
class Third:
    """A stop rule of one's own: behind an epoch, by its rows."""

    epoch: int = 3

    def __call__(self, history, rows):
        return rows[-1]["epoch"] >= self.epoch and len(history) == len(rows)


OPTIONS = {
    "freeze": {"freeze": (1, 2)},
    "rates per layer": {"lr_of": {1: 0.1, 4: 2.0}},
    "accumulate": {"accumulate": 2},
    "average": {"average": 0.9},
    "balanced": {"sampler": "balanced"},
    "stop": {"stop": Patience(1, margin=2.0), "epochs": 5},
    "own stop": {"stop": Third(2), "epochs": 4},
    "all": {
        "freeze": (2,), "lr_of": ((1, 0.5),), "accumulate": 3, "average": 0.99, "sampler": "balanced", "test": "never",
        "optimizer": "sgd", "lr": 0.1,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("behind", [3, 7])
def test_stopping_within_an_epoch_changes_nothing(name, behind, few_digits, tmp_path, monkeypatch):
    experiment = tiny(**OPTIONS[name])
    whole = train(experiment, tmp_path / "whole", quiet=True)

    halfway = stopped(experiment, tmp_path / "halfway", monkeypatch, behind=behind)
    assert halfway.load("last").batch or halfway.load("last").epoch
    resumed = resume(halfway.path, quiet=True)

    assert_same_run(resumed, whole)
    plain = train(tiny(), tmp_path / "plain", quiet=True)
    assert not same_weights(whole.network("last").state_dict(), plain.network("last").state_dict())


def test_a_start_from_another_run_changes_nothing_when_stopped(finished_elsewhere, few_digits, tmp_path, monkeypatch):
    experiment = tiny(start=str(finished_elsewhere.path), epochs=1)
    whole = train(experiment, tmp_path / "whole", quiet=True)

    halfway = stopped(experiment, tmp_path / "halfway", monkeypatch, behind=3)

    assert_same_run(resume(halfway.path, quiet=True), whole)


@pytest.fixture
def finished_elsewhere(few_digits, tmp_path):
    return train(tiny(seed=7), tmp_path / "elsewhere", quiet=True)


def test_a_start_begins_with_the_best_weights_of_the_other_run_and_says_which(finished_elsewhere, tmp_path):
    given = finished_elsewhere.network().state_dict()
    event = next(iter(events := training(tiny(start=Start(str(finished_elsewhere.path))), tmp_path / "a", quiet=True)))
    events.close()
    first = Run(tmp_path / "a").load("previous")

    assert (first.epoch, first.batch) == (0, 0) and event.batch == 1
    assert same_weights(first.weights, given)
    recorded = json_of(tmp_path / "a/provenance.json")["start"]
    assert recorded["run"] == str(finished_elsewhere.path) and recorded["experiment"] == finished_elsewhere.identity
    assert len(recorded["sha256"]) == 64


def test_a_start_leaves_a_readout_of_its_own_and_names_what_does_not_fit(finished_elsewhere):
    experiment = tiny()
    model = (*experiment.model[:4], Dense(4), BatchNorm(), LIF(beta=0.7))
    network = Network(model, (2, 17, 17))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}

    with pytest.raises(SnnError, match=r"layers\.4\.weight is \[10, 12\] there, \[4, 12\] here.*but=\(4,\)"):
        start_from(network, Start(str(finished_elsewhere.path)))
    start_from(network, Start(str(finished_elsewhere.path), but=(4, 5)))

    given = finished_elsewhere.network().state_dict()
    for name, weight in network.state_dict().items():
        left = name.startswith(("layers.4.", "layers.5."))
        assert torch.equal(weight, before[name] if left else given[name]), name
    with pytest.raises(SnnError, match=r"train\.start='nowhere'.*no run is here"):
        start_from(network, Start("nowhere"))


def test_a_start_that_does_not_fit_leaves_no_folder(finished_elsewhere, tmp_path):
    experiment = replace(tiny(start=str(finished_elsewhere.path)), model=(*tiny().model[:1], Dense(10), LIF(beta=0.5)))

    with pytest.raises(SnnError, match="do not fit this model"):
        train(experiment, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_frozen_layers_stay_and_their_norms_too(few_digits, tmp_path):
    run = train(tiny(freeze=(1, 2)), tmp_path / "run", quiet=True)
    last = run.load("last").weights
    plain = train(tiny(), tmp_path / "plain", quiet=True)

    for name, weight in last.items():
        stays = name.startswith(("layers.1.", "layers.2."))
        assert stays == same_as_started(run, name, weight), name
    assert plain.load("last").weights["layers.2.running_mean"].abs().sum() > 0
    assert {row["layer"] for row in run.layers()} == {row["layer"] for row in plain.layers()}
    assert "frozen layer" not in (run.path / "log.txt").read_text()


def same_as_started(run, name, weight):
    dataset = run.dataset()
    network = run.experiment.network(dataset.shape)
    start_alive(network, dataset.batch("train", dataset.spread("train", min(dataset.data.batch, 64)), in_bytes=True)[0])
    return torch.equal(network.state_dict()[name], weight)


def test_the_gradient_of_other_layers_is_what_it_was(noise):
    model, x, targets = (Dense(9), LIF(beta=0.8), Dense(5), LIF(beta=0.8)), noise(7, 4, 6, scale=3), torch.arange(4)
    networks = [Network(model, (6,), seed=1) for _ in range(2)]
    freeze_layers(networks[1], (0,))
    for network, config in zip(networks, (Train(clip=None), Train(clip=None, freeze=(0,))), strict=True):
        train_step(network, make_optimizer(network, config), x, targets, config)

    assert networks[1].layers[0].weight.grad is None
    assert torch.equal(networks[0].layers[2].weight.grad, networks[1].layers[2].weight.grad)
    assert networks[0].layers[0].weight.grad.abs().max() > 0


def test_layers_learn_at_their_own_rates(noise):
    model, x, targets = (Dense(9), LIF(beta=0.8), Dense(5), LIF(beta=0.8)), noise(7, 4, 6, scale=3), torch.arange(4)
    moved = []
    plain = Train(optimizer="sgd", lr=0.5, clip=None)
    for config in (plain, replace(plain, lr_of={0: 0.1})):
        network = Network(model, (6,), seed=1)
        optimizer, before = make_optimizer(network, config), [w.detach().clone() for w in network.parameters()]
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * group.get("lr_factor", 1.0)
            group["momentum"] = group["weight_decay"] = 0.0
        train_step(network, optimizer, x, targets, config)
        moved.append([(w.detach() - b) for w, b in zip(network.parameters(), before, strict=True)])

    for index, factor in enumerate((0.1, 0.1, 1.0, 1.0)):
        torch.testing.assert_close(moved[1][index], factor * moved[0][index], rtol=1e-4, atol=1e-7)
    assert moved[0][0].abs().max() > 0


def test_accumulated_batches_are_one_large_batch(noise):
    model, config = (Dense(9), LIF(beta=0.8), Dense(5), LIF(beta=0.8)), Train(lr=0.01)
    x, targets = noise(7, 10, 6, scale=3), torch.arange(10) % 5
    large, small = Network(model, (6,), seed=1), Network(model, (6,), seed=1)

    at_once = train_step(large, make_optimizer(large, config), x, targets, config)
    optimizer, parts = make_optimizer(small, config), []
    for first, start, end in ((True, 0, 4), (False, 4, 8), (False, 8, 10)):
        more = {"fraction": (end - start) / 10, "first": first, "last": end == 10}
        parts.append(train_step(small, optimizer, x[:, start:end], targets[start:end], config, **more))

    for one, other in zip(large.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)
    assert sum(part.loss * part.samples for part in parts) / 10 == pytest.approx(at_once.loss, rel=1e-6)
    assert parts[-1].grad_norm == pytest.approx(at_once.grad_norm, rel=1e-5)


def test_of_several_batches_the_gradient_of_each_is_added_whole(noise):
    model, config = (Dense(9), LIF(beta=0.8), Dense(5), LIF(beta=0.8)), Train(truncate=2, clip=None)
    x, targets = noise(7, 10, 6, scale=3), torch.arange(10) % 5
    network = Network(model, (6,), seed=1)
    optimizer, alone = make_optimizer(network, config), []
    for start in (0, 5):
        network.zero_grad()
        train_step(network, optimizer, x[:, start : start + 5], targets[start : start + 5], config, last=False)
        alone.append([weight.grad.clone() for weight in network.parameters()])

    for start in (0, 5):
        given = x[:, start : start + 5], targets[start : start + 5]
        train_step(network, optimizer, *given, config, first=start == 0, last=False)

    assert all(torch.equal(w.grad, a + b) for w, a, b in zip(network.parameters(), *alone, strict=True))


def test_the_average_is_that_of_the_weights_so_far(few_digits, tmp_path):
    seen = []
    for event in training(tiny(average=0.8), tmp_path / "run", quiet=True):
        seen.append({name: value.detach().double().clone() for name, value in event.network.state_dict().items()})
    run = Run(tmp_path / "run")

    wanted = {name: value.double() for name, value in first_weights(tmp_path).items()}
    for step, state in enumerate(seen):
        decay = min(0.8, (1 + step) / (10 + step))
        wanted = {name: decay * wanted[name] + (1 - decay) * state[name] for name in wanted}

    assert len(seen) == 2 * BATCHES
    last = run.load("last")
    for name, value in last.averaged.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), wanted[name], rtol=1e-5, atol=1e-6)
    best = run.load("best")
    assert best.epoch == 2 or not same_weights(best.weights, last.averaged)
    assert same_weights(run.network("last").state_dict(), last.averaged)


def first_weights(tmp_path):
    next(events := training(tiny(average=0.8), tmp_path / "again", quiet=True))
    events.close()
    return Run(tmp_path / "again").load("previous").weights


def test_balanced_draws_show_every_class_as_often(few_digits):
    dataset = load(tiny().data)
    labels = dataset.labels("train")
    rare = np.concatenate([dataset.ids["train"][labels != 3], dataset.ids["train"][labels == 3][:2]])
    dataset = replace(dataset, ids=dataset.ids | {"train": rare})
    drawn = np.concatenate(batches_of_epoch(dataset, Train(sampler="balanced"), seed=1))
    plain = np.concatenate(batches_of_epoch(dataset, Train(), seed=1))

    assert len(drawn) == len(plain) == len(rare) and sorted(plain) == sorted(rare)
    counts = np.bincount(dataset.parts["train"].targets[drawn], minlength=10)
    expected = len(drawn) / 10  # a binomial: four deviations
    assert abs(counts - expected).max() < 4 * np.sqrt(expected)
    assert len(np.concatenate(batches_of_epoch(dataset, Train(sampler="balanced"), seed=1)) == drawn) == len(drawn)


def test_patience_counts_epochs_that_are_no_better():
    rising, flat = [0.1, 0.2, 0.3], [0.5, 0.5, 0.4, float("nan")]

    assert not Patience(1)(rising)
    assert Patience(3)(flat) and not Patience(4)(flat)
    assert Patience(1)([0.5, 0.505]) is False and Patience(1, margin=0.01)([0.5, 0.505]) is True


def test_a_training_that_stops_early_says_so_and_keeps_its_schedule(few_digits, tmp_path):
    run = train(tiny(stop=Patience(1, margin=2.0), epochs=5), tmp_path / "run", quiet=True)
    whole = train(tiny(epochs=5), tmp_path / "whole", quiet=True)

    assert run.results()["epochs"] == 2
    assert run.results()["ended"] == "stopped early behind epoch 2 by Patience(epochs=1, margin=2.0)"
    assert rows(run) == rows(whole)[:2]
    assert "ended" not in whole.results()


def test_the_test_split_can_be_left_alone(few_digits, tmp_path, capsys):
    run = train(tiny(test="never", epochs=1), tmp_path / "run")

    assert "test" not in run.results() and run.results()["untouched"] == ["test"]
    assert "the test split was left alone" in capsys.readouterr().out


def test_a_loop_of_ones_own_is_the_same_run(few_digits, tmp_path):
    whole = train(tiny(), tmp_path / "whole", quiet=True)
    torch.manual_seed(3)
    wanted = [torch.rand(1) for _ in range(2 * BATCHES)]

    torch.manual_seed(3)
    drawn, seen = [], []
    for event in training(tiny(), tmp_path / "loop", quiet=True):
        drawn.append(torch.rand(1))  # the body's own random numbers go on
        seen.append((event.epoch, event.batch, event.row is not None))

    assert_same_run(Run(tmp_path / "loop"), whole)
    assert drawn == wanted
    assert seen == [(epoch, batch, batch == BATCHES) for epoch in (1, 2) for batch in range(1, BATCHES + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, BATCHES, BATCHES + 2, 2 * BATCHES])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "average": 0.9}], ids=["plain", "options"])
def test_leaving_the_loop_and_going_on_changes_nothing(count, options, few_digits, tmp_path):
    whole = train(tiny(**options), tmp_path / "whole", quiet=True)

    for number, _ in enumerate(training(tiny(**options), tmp_path / "loop", quiet=True), 1):
        if number == count:
            break
    for event in training(tiny(**options), tmp_path / "loop", quiet=True, resume=True):
        if event.epoch == 2:
            break
    resumed = resume(tmp_path / "loop", quiet=True)

    assert_same_run(resumed, whole)


def test_a_loop_goes_on_with_the_same_experiment_only(few_digits, tmp_path):
    for _ in training(tiny(), tmp_path / "loop", quiet=True):
        break

    with pytest.raises(SnnError, match="of another experiment"):
        next(training(tiny(lr=0.1), tmp_path / "loop", quiet=True, resume=True))
    with pytest.raises(SnnError, match="a run is here already"):
        next(training(tiny(), tmp_path / "loop", quiet=True))


def test_finish_evaluates_what_there_is_and_says_why(few_digits, tmp_path):
    for event in training(tiny(epochs=9), tmp_path / "pruned", quiet=True):
        if event.epoch == 3 and event.batch == 2:
            break
    run = finish(event.run, why="pruned", quiet=True)

    assert run.results()["ended"] == "pruned" and run.results()["epochs"] == 2
    assert len(run.metrics()) == 2 and run.results()["test"]["samples"] == 50
    assert finish(run, why="again").results() == run.results()
    assert resume(run.path, quiet=True).results() == run.results()


def test_finish_within_the_first_epoch_takes_the_weights_that_there_are(few_digits, tmp_path):
    for event in training(tiny(), tmp_path / "run", quiet=True):
        if event.batch == 2:
            break
    run = finish(event.run, quiet=True)

    assert run.results()["epochs"] == run.results()["best_epoch"] == 0
    assert same_weights(run.load("best").weights, run.load("last").weights)


def test_an_error_of_the_body_leaves_a_run_that_resumes(few_digits, tmp_path):
    whole = train(tiny(), tmp_path / "whole", quiet=True)

    def body():
        for event in training(tiny(), tmp_path / "loop", quiet=True):
            if event.batch == 3:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()

    assert_same_run(resume(tmp_path / "loop", quiet=True), whole)


def test_options_come_back_from_json_and_take_changes():
    experiment = tiny(start="runs/a", freeze=(0, "3.0.1"), lr_of={3: 0.1, "4": 2}, stop=Patience(3), average=0.99)

    content = json.loads(json.dumps(to_json(experiment)))
    changed, _ = override(tiny(), ["train.lr_of={3: 0.1}", "train.freeze=(0,)", "train.stop=Patience(2)"])

    assert from_json(content) == experiment
    assert experiment.train.lr_of == ((3, 0.1), ("4", 2.0)) and experiment.train.start == Start("runs/a")
    assert changed.train.lr_of == ((3, 0.1),) and changed.train.stop == Patience(2)
    for name in ("start", "freeze", "lr_of", "accumulate", "average", "stop", "sampler", "test", "metric"):
        del content["train"][name]  # as a version of before wrote it
    assert from_json(content) == tiny()


REFUSED = {
    "freeze nothing there": ({"freeze": (9,)}, "train.freeze: there is no layer 9"),
    "freeze all": ({"freeze": (1, 2, 3, 4, 5, 6)}, "then no weight of the network learns"),
    "rate of a frozen layer": ({"freeze": (1,), "lr_of": {1: 0.1}}, "layer 1 stays by train.freeze"),
    "rate of no layer": ({"lr_of": {11: 0.1}}, "train.lr_of: there is no layer 11"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_do_not_fit_the_model_are_refused_before_a_folder_stands(case, few_digits, tmp_path):
    options, told = REFUSED[case]

    with pytest.raises(SnnError, match=told):
        train(tiny(**options), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"freeze": ("1.2",)}, r"Train\(freeze\): '1\.2' is no layer"),
        ({"freeze": (-1,)}, r"-1 is no layer"),
        ({"lr_of": {0: 0}}, "factors above 0"),
        ({"lr_of": 3}, "factors above 0"),
        ({"lr_of": ((1, 0.1), (1, 0.2))}, "stands there twice"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"average": 1.0}, "average=1.0"),
        ({"stop": 3}, r"as Patience\(epochs=5\)"),
        ({"test": "now"}, "one of 'at end', 'never'"),
        ({"sampler": "fair"}, "one of 'shuffled', 'balanced'"),
    ],
    ids=str,
)  # fmt: skip
def test_options_are_checked_where_they_enter(options, told):
    with pytest.raises(SnnError, match=told):
        Train(**options)


def test_early_stopping_without_a_validation_split_is_refused(few_digits, tmp_path):
    experiment = tiny(stop=Patience(1), data=replace(tiny().data, validation_fraction=0.0))

    with pytest.raises(SnnError, match="follows the validation split"):
        train(experiment, tmp_path / "run", quiet=True)


def test_a_search_refuses_what_only_a_training_knows():
    with pytest.raises(SnnError, match=r"search: train\.freeze is for `train`"):
        search(tiny(freeze=(1,)), method="es", budget=10)
