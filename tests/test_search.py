"""Searching with and without gradients: each method descends, repeats from its seed, and pays for what it looks at."""

import importlib
import json
import os
import signal
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
import runs
import torch
from catalogue import assert_same, quick_first
from torch import Generator, nn

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    CutMix,
    Data,
    Delay,
    Dense,
    Dropout,
    Experiment,
    Flatten,
    Pool,
    Recurrent,
    Run,
    SnnError,
    Train,
)  # fmt: skip
from snn_bp.files import write_object
from snn_bp.model.losses import CountCrossEntropy, RateBounds
from snn_bp.model.network import Network
from snn_bp.model.start import start_alive
from snn_bp.runs.evaluation import evaluate, evaluate_network
from snn_bp.runs.folder import SEARCH_FILE
from snn_bp.runtime.signals import Stopped
from snn_bp.searches import OfOutput, Search, memory, resume_search, search, searchers
from snn_bp.searches import population as valuing
from snn_bp.searches.methods import METHODS, Evolution
from snn_bp.trainer.loop import make_optimizer, resume, train_step

DATA = Data("digits", step_ms=104, steps=3, downsample=2, batch=8, translate_px=2)
MODEL = (Pool(8, kind="sum"), Flatten(), Dense(10), LIF(beta=0.7))  # 90 weights
NORMED = (Pool(8, kind="sum"), Flatten(), Dense(10), BatchNorm(), LIF(beta=0.7))
POPULATION = 6
GOAL = 0.003  # twice as large as the weights at the start
TOGETHER = {
    "dense": (Flatten(), Dense(6), LIF(beta=0.5), Dense(5), LIF(beta=0.5)),
    "readout": (Pool(3), Flatten(), Dense(6, bias=False), LIF(beta=0.5), Dense(5), LI(beta=0.5)),
    "conv": (Conv(4, 3), LIF(beta=0.5), Conv(6, 3, stride=2, groups=2, bias=False), LIF(beta=0.5), Flatten(), Dense(5)),
    "norms": (Conv(3, 3), BatchNorm(), LIF(beta=0.5), Flatten(), Dense(5), BatchNorm(), LIF(beta=0.5)),
    "neurons first": (LIF(beta=0.5), Flatten(), Dropout(0.5), Dense(6), LIF(beta=0.5), Delay(1), Dense(5), LIF(beta=0)),
}


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    """Searches see `runs.SIZES` recordings, and measure a few times only."""
    loop = importlib.import_module("snn_bp.searches.loop")
    monkeypatch.setattr(loop, "ROWS", 5)
    monkeypatch.setattr(loop, "MEASURED", 16)
    for module in (loop, importlib.import_module("snn_bp.runs.folder")):
        monkeypatch.setattr(module, "load", runs.few)


def find(method, budget=1000, *, model=MODEL, seed=0, **how) -> Search:
    population = {} if method == "bptt" else {"population": POPULATION}
    asked = Experiment(DATA, model, Train(lr=0.01))
    return search(asked, method=method, budget=budget, seed=seed, quiet=True, **population, **how)


def distance(network, x, targets):
    """A convex function of the weights, least where all are `GOAL`."""
    weights = nn.utils.parameters_to_vector(network.parameters()).detach()
    return (weights / GOAL - 1).square().mean()


def spends(found: Search) -> list[dict]:
    """The curve without what the clock and the machine say."""
    times = ("seconds", "cpu_seconds", "peak_memory_mb")
    return [{name: value for name, value in asdict(row).items() if name not in times} for row in found.curve]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_comes_to_the_least_of_a_parabola(name):
    method = METHODS[name](5, Generator().manual_seed(0))

    spent = 0
    while spent < 5000:
        points = method.ask()
        spent += len(points)
        method.tell((points - 1).square().sum(1))

    assert float((method.best - 1).square().sum()) < 1e-2  # of 5 at the start


def test_the_strategy_learns_how_wide_each_coordinate_is():
    widths = torch.logspace(0, -2, 10)
    method = Evolution(10, Generator().manual_seed(0))

    for _ in range(250):  # before the end of single precision
        method.tell(((method.ask() - 1) / widths).square().sum(1))

    assert float(((method.best - 1) / widths).square().sum()) < 1e-2  # of 22,000 at the start
    spread = method.variance.sqrt()
    assert_same(spread=(spread / spread.mean(), widths / widths.mean()), rtol=0.75)


@pytest.mark.parametrize("name", METHODS)
def test_only_the_order_within_a_generation_counts(name):
    one, other = (METHODS[name](7, Generator().manual_seed(0), population=8) for _ in range(2))

    for generation in range(12):
        values = (one.ask() - 1).square().sum(1).double()
        other.ask()
        one.tell(values)
        other.tell(torch.expm1(values / 50) - 3 * generation)

    assert_same(points=(one.ask(), other.ask()), best=(one.best, other.best))


@pytest.mark.parametrize("name", METHODS)
def test_count_is_what_the_next_generation_holds(name):
    method = METHODS[name](7, Generator().manual_seed(0))

    for _ in range(3):
        count, points = method.count, method.ask()
        assert len(points) == count
        method.tell(points.square().sum(1))


@pytest.mark.parametrize("method", METHODS)
def test_a_search_descends_on_a_convex_objective_and_keeps_the_best(method):
    found = find(method, 5000, objective=distance)

    values = [row.value for row in found.curve]
    best_so_far = [row.best_value for row in found.curve]
    assert best_so_far == [min(values[: place + 1]) for place in range(len(values))]
    assert values[found.best] == min(values) < 0.8 * values[0]
    assert float(distance(found.network(), None, None)) == pytest.approx(min(values), rel=1e-6)


@pytest.mark.parametrize("method", quick_first(("bptt", *METHODS), "es"))
def test_a_seed_repeats_a_search_exactly_and_another_does_not(method):
    first, again, other = (find(method, seed=seed, model=NORMED) for seed in (3, 3, 4))

    assert spends(first) == spends(again) != spends(other)
    assert runs.same_weights(first.weights, again.weights)
    assert first.test == again.test


@pytest.mark.parametrize("budget", quick_first((150, 151, 1000, 1999), 151, 1999))
@pytest.mark.parametrize("method", ("bptt", *METHODS))
def test_a_budget_is_spent_and_never_exceeded(method, budget):
    found = find(method, budget, model=NORMED)

    spent = [row.sample_evaluations for row in found.curve]
    assert spent == sorted(set(spent))
    most = 8 * (2 * POPULATION + 2)  # the next generation of the swarm, and the norms of two rows
    assert budget - most < spent[-1] <= budget


@pytest.mark.parametrize("method", METHODS)
def test_every_forward_is_paid_for(method):
    seen = 0

    def counting(network, x, targets):
        nonlocal seen
        seen += len(targets)
        return distance(network, x, targets)

    found = find(method, objective=counting)

    assert found.curve[-1].sample_evaluations == seen - len(found.curve) * runs.SIZES["validation"]


def test_a_step_of_backpropagation_costs_three_forwards(monkeypatch):
    paid = []
    monkeypatch.setattr(searchers, "train_step", lambda *given: paid.append(3 * len(given[3])) or train_step(*given))

    found = find("bptt")

    assert sum(paid) == found.curve[-1].sample_evaluations
    assert len(paid) == found.curve[-1].generation


def test_all_methods_meet_the_same_mini_batches(monkeypatch):
    met = {}

    def note(method, kept, real):
        def noted(*given):
            met.setdefault(method, []).append(given[kept].clone())
            return real(*given)

        return noted

    for method in ("ga", "pso", "es"):
        with monkeypatch.context() as patch:
            patch.setattr(searchers, "value_points", note(method, 3, valuing.value_points))
            find(method)
    monkeypatch.setattr(searchers, "train_step", note("bptt", 2, train_step))
    find("bptt")

    alike = list(zip(*met.values(), strict=False))  # as long as the shortest
    assert len(alike) > 5
    assert all(torch.equal(batch, batches[0]) for batches in alike for batch in batches)
    assert not any(torch.equal(one[0], next_one[0]) for one, next_one in pairwise(alike))


def test_backpropagation_is_the_step_of_training():
    asked = Experiment(DATA, MODEL, Train(lr=0.01, warmup=0, schedule="constant", device="cpu"), seed=5)
    dataset = runs.few(DATA)
    network = asked.network(dataset.shape)
    found = search(asked, method="bptt", budget=24, quiet=True)

    generator = np.random.default_rng((5, 0))
    ids, moved = generator.choice(dataset.ids["train"], 8, replace=False), int(generator.integers(2**31))
    start_alive(network, dataset.batch("train", dataset.ids["train"][np.linspace(0, 149, 8).astype(int)])[0])
    train_step(network, make_optimizer(network, asked.train), *dataset.batch("train", ids, seed=moved), asked.train)

    assert runs.same_weights(found.weights, network.state_dict())


@pytest.mark.parametrize("kind", ("loss", "accuracy", "spikes"))
@pytest.mark.parametrize("model", TOGETHER.values(), ids=TOGETHER)
def test_points_together_are_worth_what_they_are_one_by_one(model, kind, dyadic, coin, monkeypatch):
    network = Network(model, (2, 7, 7))
    x, targets = coin(4, 9, 2, 7, 7, probability=0.3), torch.arange(9) % 5
    size = sum(weight.numel() for weight in network.parameters())
    points = dyadic(5, size, scale=0.3)  # sums are the same in any order; those of a norm nearly
    aim = OfOutput(kind, CountCrossEntropy(), RateBounds(upper=0.1) if len(model) > 4 else None)

    assert valuing.runs_together(network)
    one_by_one = valuing.value_points(network, points, lambda *given: aim(*given), x, targets)
    together = valuing.value_points(network, points, aim, x, targets)
    monkeypatch.setattr(valuing, "MAX_OUTPUTS", 1)
    in_parts = valuing.value_points(network, points, aim, x, targets)

    assert_same(together=(together, one_by_one), in_parts=(in_parts, one_by_one), rtol=1e-5)
    assert kind == "accuracy" or len(set(together.tolist())) > 1


@pytest.mark.parametrize("model", ((Flatten(), Dense(5), Recurrent(LIF(beta=0.5))),), ids=("recurrent",))
def test_what_cannot_run_together_runs_one_by_one(model, dyadic, coin):
    network = Network(model, (2, 7, 7))
    x, targets = coin(4, 9, 2, 7, 7, probability=0.3), torch.arange(9) % 5
    points = dyadic(3, sum(weight.numel() for weight in network.parameters()), scale=0.3)

    values = valuing.value_points(network, points, OfOutput("loss", CountCrossEntropy()), x, targets)

    assert not valuing.runs_together(network)
    for point, value in zip(points, values, strict=True):
        valuing.load_point(network, point)
        assert float(value) == CountCrossEntropy()(network(x), targets).item()


def test_spikes_cost_their_price():
    dataset = replace(runs.few(DATA), data=replace(DATA, batch=64))
    model = (Pool(4, kind="sum"), Flatten(), Dense(7), LIF(beta=0.7), Dense(10), LIF(beta=0.7))
    network = Network(model, dataset.shape).eval()
    x, targets = dataset.batch("validation", dataset.ids["validation"])
    start_alive(network, x)

    value = OfOutput("spikes", CountCrossEntropy(), spike_penalty=0.01)(network, x, targets).detach()

    found = evaluate_network(network, dataset, "validation", CountCrossEntropy())
    assert sum(found.spikes.values()) > 1
    assert float(value) == pytest.approx(1 - found.accuracy + 0.01 * sum(found.spikes.values()), rel=1e-5)


def test_norms_of_the_answer_hold_the_statistics_of_training_recordings():
    found = find("es", 100, model=NORMED)

    dataset, network = runs.few(DATA), found.network()
    x, _ = dataset.batch("train", dataset.ids["train"][torch.linspace(0, 149, 8).int().numpy()])
    summed = network.layers[2](network.layers[1](network.layers[0](x.flatten(0, 1))))
    norm = network.layers[3]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None and norm.running_var is not None
    assert_same(mean=(norm.running_mean, summed.mean(0)), variance=(norm.running_var, summed.var(0)), rtol=1e-4)


def test_a_point_without_a_value_is_never_chosen():
    def sometimes(network, x, targets):
        value = float(distance(network, x, targets))
        return value if value < limit else float("nan")

    limit = 1.2 * find("es", 48, objective=distance).curve[0].value
    for method in METHODS:
        found = find(method, objective=sometimes)
        assert all(row.value < limit for row in found.curve)


def test_a_finished_search_is_a_run(tmp_path):
    found = find("es", out=tmp_path / "run")

    run = Run(tmp_path / "run")
    assert run.experiment == found.experiment
    assert runs.same_weights(run.network("best").state_dict(), found.weights)
    assert evaluate(run) == found.test
    assert runs.json_of(run.path / "search.json") == json.loads(json.dumps(found.record()))
    assert [float(row["train_loss"]) for row in runs.rows(run)] == [row.train_loss for row in found.curve]
    with pytest.raises(SnnError, match="a run is here already"):
        find("es", out=tmp_path / "run")


@pytest.mark.parametrize("method", quick_first((*METHODS, "bptt"), "ga", "bptt"))
def test_a_search_killed_again_and_again_ends_as_one_left_alone(method, tmp_path, monkeypatch):
    whole = find(method, 800, model=NORMED)
    kind = searchers.Backpropagation if method == "bptt" else searchers.Population
    real, killed = kind.step, 0

    def dying(after: int):
        count = 0

        def step(*arguments):
            nonlocal count
            count += 1
            if count > after:
                raise InterruptedError
            return real(*arguments)

        return step

    for after in (0, 1, 3):
        with monkeypatch.context() as patch, pytest.raises(InterruptedError):
            patch.setattr(kind, "step", dying(after))
            find(method, 800, model=NORMED, out=tmp_path / "run", save_seconds=0)
        killed += 1
    with Run(tmp_path / "run").locked(), pytest.raises(SnnError, match="at work on it"):
        resume_search(Run(tmp_path / "run"), quiet=True)

    found = resume_search(Run(tmp_path / "run"), quiet=True)

    assert killed == 3 and spends(found) == spends(whole)
    assert runs.same_weights(found.weights, whole.weights) and found.test == whole.test
    run = Run(tmp_path / "run")
    assert [row["epoch"] for row in run.metrics()] == list(range(1, len(found.curve) + 1))
    assert runs.same_weights(run.network("best").state_dict(), whole.weights)


def test_a_signal_stops_a_search_and_nothing_is_lost(tmp_path, monkeypatch):
    real = searchers.Population.step

    def stopped(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="snn-bp resume"):
        patch.setattr(searchers.Population, "step", stopped)
        find("ga", out=tmp_path / "run")

    with pytest.raises(SnnError, match="it holds a search"):
        resume(tmp_path / "run")
    with pytest.raises(SnnError, match="another search is here"):
        find("ga", 2000, out=tmp_path / "run")
    assert spends(find("ga", out=tmp_path / "run")) == spends(find("ga"))


def test_a_search_kept_under_an_old_name_goes_on(tmp_path, monkeypatch):
    whole = find("es", objective="spikes", spike_penalty=0.01)
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(searchers.Population, "step", lambda *arguments: (_ for _ in ()).throw(InterruptedError))
        find("es", out=tmp_path / "run", objective="spikes", spike_penalty=0.01)
    asked = runs.json_of(tmp_path / "run" / SEARCH_FILE)
    asked["price"] = asked.pop("spike_penalty")
    write_object(tmp_path / "run" / SEARCH_FILE, asked)

    found = resume_search(Run(tmp_path / "run"), quiet=True)

    assert spends(found) == spends(whole) and found.test == whole.test


def test_a_search_for_an_objective_of_ones_own_goes_on_by_its_program(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(searchers.Population, "step", lambda *arguments: (_ for _ in ()).throw(InterruptedError))
        find("es", out=tmp_path / "run", objective=distance)

    with pytest.raises(SnnError, match="'distance' of your own program"):
        resume_search(Run(tmp_path / "run"))
    found = find("es", out=tmp_path / "run", objective=distance)
    assert spends(found) == spends(find("es", objective=distance))


def test_a_search_without_a_checkpoint_that_serves_is_not_started_over(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(searchers.Population, "step", lambda *arguments: (_ for _ in ()).throw(InterruptedError))
        find("es", out=tmp_path / "run")
    runs.damage(tmp_path / "run" / "checkpoints" / "last.safetensors")

    with pytest.raises(SnnError, match=r"damaged.*Nothing was changed"):
        resume_search(Run(tmp_path / "run"))


@pytest.mark.parametrize(
    "asked, said",
    (
        ({"method": "gaa"}, r"method='gaa' is not known. Did you mean 'ga'"),
        ({"objective": "los"}, r"objective='los' is not known. Did you mean 'loss'"),
        ({"objective": 3}, r"objective=3: it should be"),
        ({"budget": 47}, r"budget=47 is less than one generation of es .* The least that works is 48"),
        ({"method": "bptt", "budget": 23}, r"less than one step of bptt .* The least that works is 24"),
        ({"budget": 1.5}, r"budget=1.5: it should be an integer"),
        ({"population": 2}, r"population=2: it should be an integer from 5 up"),
        ({"spike_penalty": -1.0}, r"spike_penalty=-1.0"),
    ),
)
def test_what_cannot_be_searched_is_refused_in_one_line(asked, said):
    given = {"method": "es", "budget": 100, "population": POPULATION} | asked

    with pytest.raises(SnnError, match=said) as caught:
        search(Experiment(DATA, MODEL), quiet=True, **given)

    assert "\n" not in str(caught.value)


def test_an_objective_of_ones_own_takes_fractions_of_classes_or_is_refused():
    mixed = Experiment(replace(DATA, augment=CutMix()), MODEL)

    with pytest.raises(SnnError, match=r"distance: CutMix\(p=0.5, classes='any'\) mixes .* takes_soft_targets = True"):
        search(mixed, method="es", budget=200, objective=distance, population=POPULATION, quiet=True)

    for asked in (
        {"method": "bptt", "objective": distance},
        {"method": "es", "objective": "accuracy"},
        {"method": "es"},
    ):
        assert search(mixed, budget=200, quiet=True, **asked).curve


@pytest.mark.parametrize("method, least", (("ga", 48), ("pso", 48), ("es", 48), ("bptt", 24)))
def test_the_least_budget_works(method, least):
    assert len(find(method, least).curve) == 1


def test_no_finite_value_is_an_error_that_says_so():
    with pytest.raises(SnnError, match="no point of the generation has a finite value"):
        find("ga", objective=lambda *given: float("nan"))


def test_backpropagation_is_valued_by_an_objective_without_gradient():
    found = find("bptt", objective="accuracy")

    assert all(row.value == pytest.approx(1 - (row.validation_accuracy or 0)) for row in found.curve)
    assert found.curve[-1].best_value < found.curve[0].value


def test_without_validation_training_recordings_choose(monkeypatch):
    empty = replace(DATA, validation_fraction=0.0)

    found = search(Experiment(empty, MODEL), method="es", budget=500, population=POPULATION, quiet=True)

    assert found.validation is None
    assert found.curve[-1].validation_loss is None
    assert found.curve[-1].value == pytest.approx(found.curve[-1].train_loss)


@pytest.mark.slow
@pytest.mark.parametrize("method, above", (("bptt", 0.5), ("es", 0.1), ("ga", 0.1)))  # chance is 0.1
def test_digits_are_learned(method, above, monkeypatch):
    monkeypatch.undo()
    data = Data("digits", step_ms=52, steps=6, downsample=2, batch=64)
    asked = Experiment(data, (Pool(5, kind="sum"), Flatten(), Dense(10), LIF(beta=0.8)), Train(lr=0.01))

    found = search(asked, method=method, budget=500_000, quiet=True)

    assert found.test is not None and found.test.low > above


def test_a_search_whose_points_do_not_fit_names_how_many_do_and_gradients_do_with_less(monkeypatch):
    experiment = Experiment(DATA, (Flatten(), Dense(300), LIF(beta=0.5), Dense(10), LIF(beta=0.5)))
    dataset, options = runs.few(DATA, quiet=True), {"budget": 200, "quiet": True}
    there = memory.estimate(experiment, dataset, "ga", 12).total
    monkeypatch.setattr("snn_bp.runs.memory.available", lambda: there)

    with pytest.raises(SnnError, match=r"search: ga would take .* --population 12 fits\. To try it all the same"):
        search(experiment, method="ga", **options)
    with pytest.raises(SnnError, match="--population"):
        search(experiment, method="pso", **options)

    assert memory.estimate(experiment, dataset, "bptt").total < there
    assert search(experiment, method="ga", population=12, **options).curve


def test_a_search_without_gradients_needs_no_memory_for_them():
    model = (Flatten(), Dense(300), LIF(beta=0.5), Dense(10), LIF(beta=0.5))
    experiment = Experiment(replace(DATA, steps=400, step_ms=1), model)
    dataset = runs.few(experiment.data, quiet=True)

    gradient, none = (memory.estimate(experiment, dataset, method, 5) for method in ("bptt", "es"))

    assert none.step == 0 < gradient.step and none.looking == gradient.looking


@pytest.mark.parametrize(("name", "points"), [("ga", 50), ("pso", 40), ("es", 4 + 14)])
def test_points_of_a_method_are_known_before_they_are_drawn(name, points):
    assert METHODS[name].points_of(120) == METHODS[name](120, Generator()).count == points
    assert METHODS[name].points_of(120, 9) == 9
