"""`Residual` and `Parallel` with every promise: values, names, start, trace, gradients, runs that resume, pages."""

import json
from dataclasses import replace

import pytest
import runs
import torch
from catalogue import assert_near, assert_same
from runs import DIGITS, assert_same_run, rows, training

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    CountCrossEntropy,
    Data,
    Dense,
    Dropout,
    Experiment,
    FirstSpike,
    Flatten,
    MaxCrossEntropy,
    Network,
    Parallel,
    Recurrent,
    Residual,
    SnnError,
    Spiking,
    Tau,
    Train,
    check_gradients,
    diagnose,
    export,
    report,
    resume,
    search,
    simulate,
    start_alive,
    trace,
    train,
)
from snn_bp.exchange.snntorch import to_snntorch
from snn_bp.instruments.cost import cost_of_bptt
from snn_bp.instruments.faults import find_leaked_state
from snn_bp.instruments.landscape import loss_slice
from snn_bp.instruments.optimizer_state import trace_optimizer
from snn_bp.model.losses import check_loss
from snn_bp.model.start import fronts
from snn_bp.reports.plots.pictures import save_plots
from snn_bp.runs.changes import override
from snn_bp.runs.evaluation import count_activity
from snn_bp.runs.experiment import from_json, to_json
from snn_bp.searches.objective import OfOutput
from snn_bp.trainer.dry_run import dry_run
from snn_bp.trainer.memory import estimate

few_digits = runs.few_digits
N = LIF(beta=0.8, threshold=0.5)
INNER = (Dense(6), N)
MODEL = (
    *(Dense(6), N),
    Residual(*INNER, combine="iand", shortcut=(Dense(6), BatchNorm(), N)),
    Parallel((), (Dense(5), N, Residual(Dense(5), Spiking(N, learn=("beta",)), Dropout(0.3))), (Recurrent(N),)),
    *(Dense(3), LI(beta=0.9)),
)
NAMES = ["model.1", "model.2.0.1", "model.2.1.2", "model.3.1.1", "model.3.1.2.0.1", "model.3.2.0", "model.5"]
X = (torch.rand(14, 4, 7, generator=torch.Generator().manual_seed(0)) < 0.4).float()
TARGETS = torch.tensor([0, 1, 2, 1])


def alive(model=MODEL, **how) -> Network:
    network = Network(model, (7,), seed=1, **how)
    start_alive(network, X)
    return network


def numbers(names):
    return [name.partition(" ")[0] for name in names]


# The values


def test_a_model_is_written_to_json_and_read_back():
    experiment = Experiment(Data("digits"), MODEL)

    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment
    assert Residual(layers=INNER) == Residual(*INNER) and Parallel(rows=(INNER, ())) == Parallel(INNER, ())


def test_a_joint_is_shown_as_one_writes_it():
    assert eval(repr(MODEL)) == MODEL
    assert Network((Residual(*INNER),), (6,)).name(0) == "model.0 Residual(Dense(6), LIF(beta=0.8, threshold=0.5))"
    assert Network((Residual(*INNER, *INNER, combine="and"),), (6,)).name(0) == (
        "model.0 Residual(Dense(6), ..., LIF(beta=0.8, threshold=0.5), combine='and')"
    )


def test_layers_within_joints_are_changed_by_their_path():
    experiment = Experiment(Data("digits"), MODEL)
    changes = [
        "model.2.0.1.threshold=0.7", "model.3.1.2.0.0.bias=no", "model.2.1.0=Dense(6, bias=False)",
        "model.2.combine=and", "model.0=Residual(Dense(7), LIF(beta=0.9), shortcut=(Dense(7),))",
    ]  # fmt: skip

    changed, said = override(experiment, changes)

    assert changed.model[2] == Residual(
        Dense(6), replace(N, threshold=0.7), combine="and", shortcut=(Dense(6, bias=False), BatchNorm(), N)
    )
    assert changed.model[3].rows[1][2].layers[0] == Dense(5, bias=False)
    assert changed.model[0] == Residual(Dense(7), LIF(beta=0.9), shortcut=(Dense(7),))
    assert said[0] == "model.2.0.1.threshold=0.7 (was 0.5)"
    for wrong, what in (
        ("model.2.2.0=1", "no index in 0..1"),
        ("model.3.0.0=1", "without layers"),
        ("model.2.x=1", "x"),
    ):
        with pytest.raises(SnnError, match=what):
            override(experiment, [wrong])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Residual(), "no layers"),
        (lambda: Residual(INNER), "Write them one after the other"),
        (lambda: Residual(Dense(6), combine="or"), "Known: add, and, iand"),
        (lambda: Residual(Dense), "no layer, as"),
        (lambda: Parallel(INNER), "two are the least"),
        (lambda: Parallel(Dense(3), Dense(4)), "a tuple of layers"),
        (lambda: Network((Residual(Dense(5)),), (7,)), r"model\.0 .* \[5\] and \[7\], .*shortcut=\(Dense\(5\),\)"),
        (lambda: Network((Residual(Conv(3, 3)),), (2, 7, 7)), r"\[3, 5, 5\] and \[2, 7, 7\], .*Conv\(3, 1\)"),
        (lambda: Network((Parallel((Conv(3, 3),), ()),), (2, 7, 7)), "the axes behind them should agree"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(make, said):
    with pytest.raises(SnnError, match=said):
        make()


@pytest.mark.parametrize("combine", ["add", "and", "iand"])
def test_the_three_ways_to_join_are_those_of_sew_resnet(combine):
    network = Network((Dense(6), N, Residual(*INNER, combine=combine)), (7,), seed=2)

    x, _ = simulate(N, network.layers[0](2 * X))
    f, _ = simulate(N, network.layers[2].branches[0][0](x))

    known = {"add": f + x, "and": torch.logical_and(f > 0, x > 0), "iand": torch.logical_and(f == 0, x > 0)}[combine]
    assert f.any() and x.any()
    assert_same(out=(network(2 * X), known.float()))


# Before training


def test_weights_within_joints_are_scaled_to_their_neurons():
    network = alive()

    weights = {path: part.path for path, part in fronts(network).items()}
    assert weights == {(1,): (0,), (2, 0, 1): (2, 0, 0), (3, 1, 1): (3, 1, 0), (3, 1, 2, 0, 1): (3, 1, 2, 0, 0)}
    for part, entering, _ in network.train().visit(X):  # the norm by the same statistics
        if part.path in weights:
            free, _ = simulate(LI(beta=0.8), entering.detach())
            assert float(free.square().mean().sqrt()) == pytest.approx(0.5, rel=1e-4)


def test_a_start_leaves_random_numbers_and_dropout_alone():
    torch.manual_seed(5)
    first = alive()
    torch.manual_seed(6)

    assert_same(**{name: (first.state_dict()[name], value) for name, value in alive().state_dict().items()})


def test_the_loss_knows_what_a_joint_at_the_end_gives():
    ends = Parallel((Dense(2), N), (Dense(1), N))

    check_loss(FirstSpike(), Network((ends,), (7,)))
    check_loss(CountCrossEntropy(), Network((ends,), (7,)))
    with pytest.raises(SnnError, match="spikes"):
        check_loss(MaxCrossEntropy(), Network((ends,), (7,)))
    check_loss(MaxCrossEntropy(), Network((replace(ends, rows=((Dense(2), LI(beta=0.9)), (Dense(1), N))),), (7,)))
    with pytest.raises(SnnError, match="neurons that spike"):  # a sum of spikes counts
        check_loss(FirstSpike(), Network((Parallel((Dense(2), N), (Dense(2), N), combine="add"),), (7,)))


# The backward pass


def test_a_trace_sees_every_layer_of_neurons_and_every_gradient():
    network = alive().double().eval()

    traced = trace(network, X.double(), TARGETS)

    assert numbers(layer.name for layer in traced.layers) == NAMES
    assert [layer.normed for layer in traced.layers] == [False, False, True, False, False, False, False]
    loss = CountCrossEntropy()(network(X.double()), TARGETS)
    loss.backward()
    assert traced.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    for name, size in traced.gradients.items():
        path = tuple(map(int, name.partition(" ")[0].split(".")[1:]))
        mine = [weight.grad.square().sum() for weight in network.parameters_of(path).values()]
        assert size == pytest.approx(float(sum(mine).sqrt()), rel=1e-6)
    assert traced.gradients.keys() == traced.weights.keys() and len(traced.gradients) == 9
    for layer, activity in zip(traced.layers, network.observe(X.double())[0], strict=True):
        assert_near(share=1e-9, spikes=(layer.spikes, activity.spikes.detach()))


@pytest.mark.parametrize("combine", ["add", "and", "iand"])
def test_gradients_through_joints_agree_with_finite_differences(combine):
    model = (*INNER, Residual(*INNER, combine=combine), Parallel((), (Dense(4), N)), Dense(3), LI(beta=0.9))
    network = alive(model)

    report = check_gradients(network, X[:8].double(), TARGETS, directions=1)

    assert report.ok and report.conclusive, report.problems
    assert all(row.error < 1e-6 for row in report.differences)
    assert all(check.spikes_differ == 0 for check in report.kernels)
    assert numbers(row.layer for row in report.layers) == ["model.0", "model.2.0.0", "model.3.1.0", "model.4"]


def test_the_doctor_names_a_silent_layer_within_a_joint_and_its_remedy():
    network = alive()
    with torch.no_grad():
        network.layers[3].branches[1][0].weight.zero_()

    found = diagnose(trace(network, X, TARGETS)).findings

    silent = next(finding for finding in found if finding.kind == "silent")
    assert silent.where.startswith("model.3.1.1 LIF")
    (change,) = silent.changes
    experiment, _ = override(Experiment(Data("digits"), MODEL), [change])
    assert experiment.model[3].rows[1][:3] == (Dense(5), BatchNorm(), N)


def test_frozen_layers_within_a_joint_are_named_as_one_writes_them():
    network = alive()
    network.layers[2].branches[0][0].requires_grad_(False)

    (frozen,) = [finding for finding in diagnose(trace(network, X, TARGETS)).findings if "frozen" in finding.kind]

    assert "network.layers[2].branches[0][0].requires_grad_(True)" in frozen.advice


def test_instruments_reach_within_joints():
    network = alive()
    optimizer = torch.optim.Adam(network.parameters())
    CountCrossEntropy()(network(X), TARGETS).backward()

    updates = trace_optimizer(optimizer, network)
    middle = loss_slice(network.eval(), X, TARGETS, CountCrossEntropy(), points=3).losses[1]
    costs = cost_of_bptt(network, X, TARGETS, steps=(4,), ways=("full", "low"), repeats=1)
    spikes, operations = {}, {}
    with torch.no_grad():
        out = count_activity(network, X, spikes, operations)

    assert numbers(row.layer for row in updates) == [
        "model.0", "model.2.0.0", "model.2.1.0", "model.2.1.1", "model.3.1.0", "model.3.1.2.0.0", "model.3.1.2.0.1",
        "model.3.2.0", "model.4",
    ]  # fmt: skip
    assert float(middle) == pytest.approx(float(CountCrossEntropy()(out, TARGETS)), rel=1e-5)
    assert len(costs) == 2 and find_leaked_state(network, X) == []
    assert numbers(spikes) == NAMES[:-1]
    entering = {part.path: entering for part, entering, _ in network.visit(X)}
    assert operations[network.name((3, 1, 0))] == float((entering[3, 1, 0] != 0).sum()) * 5
    assert operations[network.name(4)] == float((entering[4,] != 0).sum()) * 3


def test_a_search_minimises_what_a_network_with_joints_gives():
    network = alive().eval().requires_grad_(False)

    out, means, _ = network.rates(X)

    wrong = float((CountCrossEntropy().scores(out).argmax(1) != TARGETS).float().mean())
    spikes = sum(float(mean.sum()) for mean in means) * len(X)
    assert float(OfOutput("spikes", CountCrossEntropy())(network, X, TARGETS)) == pytest.approx(wrong + 1e-4 * spikes)


def test_readouts_side_by_side_have_no_rates():
    ends = Parallel((Dense(4), LI(beta=0.9)), (Dense(3), N, Parallel((Dense(2), LI(beta=0.8)), (Dense(1), N))))
    network = Network((Dense(8), N, ends), (6,), seed=3)
    x = (torch.rand(9, 3, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()

    out, means, _ = network.rates(x)

    spiking = [each for each in network.observe(x)[0] if isinstance(each.neuron, LIF)]
    assert out.shape == (9, 3, 7) and len(means) == len(spiking) == 3
    for mean, activity in zip(means, spiking, strict=True):
        assert_near(share=1e-6, rate=(mean, activity.spikes.mean((0, 1))))
    wrong = float((CountCrossEntropy().scores(out).argmax(1) != torch.arange(3)).float().mean())
    spikes = sum(float(activity.spikes.detach().sum()) for activity in spiking) / 3
    found = OfOutput("spikes", CountCrossEntropy())(network, x, torch.arange(3))
    assert found.item() == pytest.approx(wrong + 1e-4 * spikes)


# Runs


def residual(**how) -> Experiment:
    spiking = LIF(beta=Tau(200), reset="zero")
    body = (Conv(3, 3, padding=1), BatchNorm(), spiking)
    model = (
        *(Conv(3, 5, stride=3), BatchNorm(), spiking, Residual(*body, *body)),
        *(Parallel((Conv(2, 1), spiking), (), (Residual(*body),)), Dropout(0.1)),
        *(Flatten(), Dense(10), BatchNorm(), spiking),
    )
    return Experiment(DIGITS, model, Train(**({"epochs": 2, "lr": 5e-3} | how)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with runs.loading(runs.few):
        return train(residual(), tmp_path_factory.mktemp("residual") / "whole", quiet=True)


@pytest.mark.usefixtures("few_digits")
def test_a_residual_network_learns_and_resumes_bit_for_bit(finished, tmp_path, monkeypatch):
    count = 0
    step = training.train_step

    def breaking(*given, **how):
        nonlocal count
        count += 1
        if count == 4:
            raise InterruptedError
        return step(*given, **how)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(training, "train_step", breaking)
        train(residual(), tmp_path / "run", quiet=True, save_seconds=0)

    assert_same_run(resume(tmp_path / "run", quiet=True), finished)
    losses = [float(row["train_loss"]) for row in rows(finished)]
    assert losses[1] < 0.95 * losses[0]


@pytest.mark.usefixtures("few_digits")
def test_a_run_tells_of_every_layer_within_joints(finished):
    layers = finished.layers()
    results = finished.results()["test"]

    rated = {row["layer"].partition(" ")[0] for row in layers if "rate" in row}
    assert rated == {"model.2", "model.3.0.2", "model.3.0.5", "model.4.0.1", "model.4.2.0.0.2", "model.9"}
    updated = {row["layer"].partition(" ")[0] for row in layers if row.get("update_over_weight", 0) > 0}
    assert {"model.0", "model.3.0.0", "model.3.0.4", "model.4.0.0", "model.4.2.0.0.0", "model.7"} <= updated
    assert set(numbers(results["spikes"])) == rated
    assert set(numbers(results["operations"])) == {
        "model.0", "model.3.0.0", "model.3.0.3", "model.4.0.0", "model.4.2.0.0.0", "model.7",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
def test_the_page_and_the_pictures_of_a_residual_run_show_its_layers(finished):
    page = report(finished).read_text(encoding="utf-8")
    pictures = {file.name for file in save_plots(finished)}

    assert {"error_map.png", "raster.png", "surrogate.png", "filters.png", "layers.png", "confusion.png"} <= pictures
    assert "model.4.2.0.0.2 LIF" in page and "4.2.0.0.0" in page


@pytest.mark.usefixtures("few_digits")
def test_a_residual_run_is_exported_and_verified_where_the_file_can_hold_it(finished, tmp_path):
    found = export(finished, tmp_path / "net.nir")

    assert found.holds and found.difference is None and set(found.accuracy) == {"trained", "read back", "equations"}
    with pytest.raises(SnnError, match=r"model\.3 Residual.* joins branches"):
        export(finished, tmp_path / "net.net")
    with pytest.raises(SnnError, match=r"to_snntorch: model\.3 Residual.* joins branches"):
        to_snntorch(finished.network())


@pytest.mark.usefixtures("few_digits")
def test_a_search_goes_over_the_weights_within_joints(tmp_path):
    experiment = residual()

    found = search(experiment, method="es", budget=1792, out=tmp_path / "search", quiet=True)

    first = experiment.network(found.network().input_shape)
    moved = {
        name for (name, a), b in zip(first.named_parameters(), found.network().parameters(), strict=True)
        if not torch.equal(a, b)
    }  # fmt: skip
    assert {"layers.3.branches.0.0.weight", "layers.4.branches.2.0.branches.0.0.weight"} <= moved


@pytest.mark.usefixtures("few_digits")
def test_a_dry_run_lists_the_layers_within_joints(capsys):
    dry_run(residual(), training.load(DIGITS))

    printed = capsys.readouterr().out
    assert "\n  [3, 5, 5]                84 parameters    model.3.0.0 Conv(3, 3, padding=1)" in printed
    assert "[8, 5, 5]                 0 parameters  model.4 Parallel(" in printed


@pytest.mark.usefixtures("few_digits")
def test_the_estimate_of_memory_counts_the_layers_within_joints():
    flat = residual()
    dataset = training.load(flat.data)
    deeper = replace(flat, model=(*flat.model[:4], *flat.model[3:]))

    assert estimate(deeper, dataset).step > estimate(flat, dataset).step
