"""Any torch module among the layers, and all the newer layers in runs: they resume bit for bit, and pages show them."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import runs
import torch
from catalogue import assert_same
from runs import DIGITS, assert_same_run, training
from torch import nn

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    ConvTranspose,
    CountCrossEntropy,
    DelayedDense,
    Dense,
    Experiment,
    Flatten,
    LayerNorm,
    Module,
    Network,
    OnChip,
    Parallel,
    Recurrent,
    SnnError,
    Spiking,
    TemporalConv,
    Train,
    Unflatten,
    Upsample,
    check_gradients,
    diagnose,
    report,
    resume,
    start_alive,
    trace,
    train,
)
from snn_bp.exchange.nir_write import write_nir
from snn_bp.exchange.snntorch import to_snntorch
from snn_bp.instruments.online import eprop
from snn_bp.reports.plots.pictures import save_plots
from snn_bp.runs.changes import override
from snn_bp.runs.evaluation import count_activity
from snn_bp.runs.experiment import from_json, to_json
from snn_bp.runs.own_code import Code
from snn_bp.trainer.dry_run import dry_run
from snn_bp.trainer.memory import estimate

few_digits = runs.few_digits
N = LIF(beta=0.9)


class Gate(nn.Module):
    """A gate over channels, with weights."""

    def __init__(self, channels, heads=1):
        super().__init__()
        self.inner = nn.Linear(channels, channels)
        self.heads = heads

    def forward(self, x):
        return self.heads * x * torch.sigmoid(self.inner(x))


class Attention(nn.Module):
    """Causal attention over time; it looks at steps that are there, and asks which are."""

    def __init__(self, size):
        super().__init__()
        self.query, self.key = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, x, mask=None):
        scores = torch.einsum("tbn,sbn->bts", self.query(x), self.key(x))
        ahead = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        return torch.einsum("bts,sbn->tbn", scores.masked_fill(ahead, -torch.inf).softmax(2), x)


class Whole(nn.Module):
    """It takes off the mean over all steps, padding included."""

    def forward(self, x):
        return x - x.mean(0)


class Memory(nn.Module):
    """A trace of the input with a state of two parts."""

    def __init__(self, size):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(size))

    def forward(self, x, state):
        trace, count = (torch.zeros_like(x[0]), {"steps": 0}) if state is None else state
        out = []
        for step in x:
            trace = 0.8 * trace + self.gain * step
            out.append(trace)
        return torch.stack(out), (trace, {"steps": count["steps"] + len(x)})


MODEL = (
    Dense(6), Module(nn.GroupNorm, 2, 6), N, Module(Gate, 6, heads=3), Module(Attention, 6, over="time"), N,
    Module(Memory, 6, stateful=True), Dense(3), LI(beta=0.9),
)  # fmt: skip
STREAMING = (*MODEL[:4], *MODEL[6:])
TARGETS = torch.tensor([0, 1, 2])


def test_a_module_over_rows_is_the_module_itself(noise):
    network = Network((Module(Gate, 5, heads=2), LI(beta=0.0)), (5,))
    x = noise(4, 3, 5)

    gate = network.layers[0]
    assert type(gate) is Gate
    assert_same(out=(network(x), 2 * x * torch.sigmoid(x @ gate.inner.weight.T + gate.inner.bias)), atol=1e-6)


def test_a_module_over_time_sees_all_steps(noise):
    network = Network((Module(Attention, 5, over="time"), LI(beta=0.0)), (5,))
    x = noise(6, 2, 5)

    out = network(x)

    inner = network.layers[0].inner
    for batch in range(2):
        query, key = inner.query(x[:, batch]), inner.key(x[:, batch])
        for t in range(6):
            weights = torch.softmax(key[: t + 1] @ query[t], 0)
            torch.testing.assert_close(out[t, batch], weights @ x[: t + 1, batch], rtol=1e-4, atol=1e-5)


def test_a_module_with_state_streams(coin):
    network = Network(STREAMING, (4,), seed=1)
    x = coin(11, 3, 4, probability=0.5)

    whole, last = network.run(x)
    out, state = [], None
    for piece in x.split(3):
        part, state = network.run(piece, state)
        out.append(part)

    assert torch.equal(torch.cat(out), whole)
    assert state[1].value[1] == {"steps": 11} and torch.equal(state[1].value[0], last[1].value[0])
    activities, after = network.observe(x)
    assert [activity.name for activity in activities] == [network.name(2), network.name(6)]
    assert torch.equal(after[1].value[0], last[1].value[0])


def test_a_carried_state_is_cut_where_training_is_truncated(coin):
    network = Network(STREAMING, (4,), seed=1)
    x = coin(6, 3, 4, probability=0.5)

    _, state = network.run(x)
    cut = tuple(each.detach() for each in state)

    assert state[1].value[0].requires_grad and not cut[1].value[0].requires_grad
    assert cut[1].value[1] == {"steps": 6} and torch.equal(cut[1].value[0], state[1].value[0])


def test_torchs_own_recurrent_modules_are_layers(noise):
    network = Network((Module(nn.GRU, 4, 5, stateful=True), LI(beta=0.0)), (4,))
    x = noise(7, 2, 4)

    first, state = network.run(x[:3])
    second, _ = network.run(x[3:], state)

    assert_same(out=(torch.cat((first, second)), network.layers[0].inner(x)[0]), atol=1e-6)


def test_instruments_see_the_neurons_about_modules(coin):
    network = Network(MODEL, (4,), seed=1)
    x = coin(6, 3, 4, probability=0.5)

    seen = trace(network, x, TARGETS)
    checked = check_gradients(network, x.double(), TARGETS, directions=1, truncations=(3,))

    assert [layer.name for layer in seen.layers] == [network.name(n) for n in (2, 5, 8)]
    assert seen.gradients[network.name(3)] > 0 and seen.gradients[network.name(4)] > 0
    assert checked.ok and any(row.conclusive for row in checked.differences), checked
    diagnose(seen)
    before = network.layers[0].weight.clone()
    start_alive(network, x)
    assert torch.equal(network.layers[0].weight, before)  # a norm that nobody knows stands behind it


def test_start_alive_draws_the_same_for_layers_of_ones_own(coin):
    model, x = (Module(nn.Dropout, 0.5), Dense(6), N), coin(6, 3, 4, probability=0.5)
    networks = [Network(model, (4,), seed=1) for _ in range(2)]

    before = torch.get_rng_state()
    for network in networks:
        start_alive(network, x)

    assert torch.equal(networks[0].layers[1].weight, networks[1].layers[1].weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_outputs_and_gradients_of_kernels_begin_on_a_line(noise):
    # products of torch's, in a module behind or in front, differ in rounding with where their input begins
    model = (Dense(8), N, Recurrent(N), BatchNorm(), N)
    for size in range(1, 8):
        x = noise(3, size, 5).requires_grad_()
        for part in (model[:3], model[3:]):
            network, given = Network(part, (5,)).train(), []
            x.register_hook(lambda gradient, given=given: given.append(gradient.data_ptr() % 64))
            out = network(x)
            out.sum().backward()
            assert out.data_ptr() % 64 == 0 and given[-1] == 0


def test_what_stands_around_modules_still_runs_as_kernels(coin):
    network = Network((Dense(8), N, Module(Gate, 8), Dense(5), N), (4,))

    plan = network.plan(coin(6, 3, 4, probability=0.5))

    assert [line.split(":")[1].split(";")[0] for line in plan] == [
        " one event-driven operation", " as it is", " one event-driven operation"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("index", "name"), ((1, "GroupNorm"), (3, "Gate"), (4, "Attention"), (6, "Memory"), (None, "Doubling"))
)
def test_what_reads_weights_refuses_a_module_by_name(index, name, coin, tmp_path):
    layer = Module(nn.ReLU6) if index is None else MODEL[index]
    neuron = LIF(beta=0.9, reset="zero")
    network = Network((Dense(6, bias=False), layer, neuron, Dense(3, bias=False), LI(beta=0.9)), (4,)).eval()

    for attempt in (
        lambda: OnChip(network),
        lambda: write_nir(network, tmp_path / "a.nir"),
        lambda: to_snntorch(network),
        lambda: eprop(network, coin(5, 3, 4, probability=0.5), TARGETS, CountCrossEntropy()),
    ):
        with pytest.raises(SnnError, match=r"model\.1 Module\(\w+") as refusal:
            attempt()
        assert (name if index is not None else "ReLU6") in str(refusal.value)
        assert "Stateful" not in str(refusal.value) and "OverTime" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


LENGTHS = (9, 4, 7)
MASK = torch.arange(9)[:, None] < torch.tensor(LENGTHS)


def test_modules_in_a_padded_batch_compute_what_each_recording_would(coin):
    network = Network(MODEL, (4,), seed=1).train()
    x = coin(9, 3, 4, probability=0.5) * MASK[..., None]

    out = network(x, MASK)

    for n, length in enumerate(LENGTHS):
        alone = network(x[:length, n : n + 1])
        torch.testing.assert_close(out[:length, n : n + 1], alone, rtol=1e-4, atol=1e-5)


class Batchwise(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.norm = nn.BatchNorm1d(size)

    def forward(self, x):
        return self.norm(x)


@pytest.mark.parametrize(
    ("layer", "words"),
    (
        (Module(Whole, over="time"), r"Module\(Whole, over='time'\) sees all steps.*forward\(self, x, mask=None\)"),
        (Module(Batchwise, 4), r"Module\(Batchwise, 4\) takes statistics over all steps"),
    ),
)
def test_what_would_see_the_padding_is_refused_with_a_mask(layer, words, coin):
    network, x = Network((layer, N), (4,)).train(), coin(9, 3, 4, probability=0.5)

    assert network(x).shape == (9, 3, 4)
    with pytest.raises(SnnError, match=rf"model\.0 {words}"):
        network(x, MASK)


def test_a_norm_of_torchs_counts_by_the_mask(coin):
    network = Network((Module(nn.BatchNorm1d, 4), N), (4,)).train()
    x = coin(9, 3, 4, probability=0.5)

    network(x, MASK)

    assert_same(mean=(network.layers[0].running_mean, 0.1 * x[MASK].mean(0)), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    (
        (lambda: Module(nn.GELU()), r"it should be a class of modules.*Module\(GELU, \.\.\.\)"),
        (lambda: Module(Gate, 4, haeds=2), r"Gate has no argument 'haeds'. Did you mean 'heads'"),
        (lambda: Module(Gate, torch.ones(2)), r"Module\(args=.*an experiment's file cannot hold it"),
        (lambda: Module(Gate, 4, over="space"), r"over='space'"),
        (lambda: Network((Module(Gate), N), (4,)), r"model\.0 Module\(Gate\).*missing 1 required"),
        (lambda: Network((Module(Gate, 7), N), (4,)), r"model\.0 Module\(Gate, 7\), on an input of \[4\]"),
        (lambda: Network((Module(nn.GRU, 4, 4, over="time"), N), (4,)), r"GRU: its forward should give \[time, batch"),
        (lambda: Network((Module(Whole, stateful=True), N), (4,)), r"model\.0 Module\(Whole, stateful=True\)"),
        (lambda: Network((Module(Pairs), N), (4,)), r"gives 3 rows for 6 rows of \[4\]"),
    ),
)
def test_what_does_not_fit_is_refused_with_what_would(make, words):
    with pytest.raises(SnnError, match=words):
        make()


class Pairs(nn.Module):
    def forward(self, x):
        return x[::2]


def test_a_module_is_named_in_json_by_its_class():
    value = Module(nn.GroupNorm, 2, 6, eps=1e-3)

    content = to_json(value)

    assert content["kind"] == {"named": "torch.nn:GroupNorm"} and content["args"] == [2, 6]
    assert from_json(json.loads(json.dumps(content))) == value
    assert replace(value, args=(3, 6)) == Module(nn.GroupNorm, 3, 6, eps=1e-3)
    assert eval(repr(value), {"Module": Module, "GroupNorm": nn.GroupNorm}) == value


def test_a_module_of_ones_own_comes_back_from_its_copy(tmp_path):
    experiment = Experiment(DIGITS, (Flatten(), Dense(6), *MODEL[3:7], Dense(10), LI(beta=0.9)))

    code = Code.of(experiment)
    again = from_json(json.loads(json.dumps(to_json(experiment))), code.load(tmp_path))

    assert set(code.files) == {"test_own_module.py"}
    assert {"test_own_module.py:Gate", "test_own_module.py:Memory"} <= set(code.hashes)
    assert "test_own_module.py:Whole" not in code.hashes
    assert again.model[2].kind.__name__ == "Gate" and again.model[2].options == (("heads", 3),)
    assert to_json(again) == to_json(experiment)


def test_an_override_reaches_its_fields():
    experiment = Experiment(DIGITS, (Flatten(), Module(nn.Dropout1d, 0.5), Dense(10), N))

    changed, _ = override(experiment, ["model.1.args=(0.2,)"])

    assert changed.model[1] == Module(nn.Dropout1d, 0.2)


# All the newer layers in runs


def newer(**how) -> Experiment:
    spiking = Spiking(LIF(beta=0.7), learn=("beta", "threshold"), per="channel")
    model = (
        *(TemporalConv(4, 2, 3, stride=2), LayerNorm(), spiking, ConvTranspose(3, 2, stride=2), N),
        *(Upsample(2), Flatten(), Dense(24, density=0.3, sign="dale"), BatchNorm(), N),
        *(Module(Memory, 24, stateful=True), Module(nn.Dropout, 0.1), Module(Gate, 24), Module(nn.LayerNorm, 24), N),
        *(Unflatten((6, 4)), Flatten(), Parallel((DelayedDense(8, 2), N), (Dense(4), Recurrent(N, density=0.5)))),
        *(Dense(10), BatchNorm(), LI(beta=0.8)),
    )
    return Experiment(DIGITS, model, Train(**({"epochs": 2, "lr": 5e-3} | how)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with runs.loading(runs.few):
        return train(newer(), tmp_path_factory.mktemp("newer") / "whole", quiet=True)


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("truncate", (None, 2))
def test_a_run_of_newer_layers_resumes_bit_for_bit(truncate, finished, tmp_path, monkeypatch):
    whole = finished if truncate is None else train(newer(truncate=truncate), tmp_path / "whole", quiet=True)
    count = 0
    step = training.train_step

    def breaking(*given, **how):
        nonlocal count
        count += 1
        if count == 7:  # in the second epoch
            raise InterruptedError
        return step(*given, **how)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(training, "train_step", breaking)
        train(newer(truncate=truncate), tmp_path / "run", quiet=True, save_seconds=0)

    assert_same_run(resume(tmp_path / "run", quiet=True), whole)
    assert {row["layer"] for row in whole.layers() if row.get("rate", 0) > 0}  # something fires


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
def test_results_and_page_tell_of_every_layer(finished):
    test = finished.results()["test"]

    counted = {name.partition(" ")[0] for name in test["operations"]}
    assert counted == {
        "model.0", "model.3", "model.7", "model.17.0.0", "model.17.1.0", "model.17.1.1", "model.18"
    }  # fmt: skip
    assert all(count > 0 for count in test["operations"].values())
    assert {name.partition(" ")[0] for name in test["not_counted"]} == {"model.10", "model.12"}
    page = report(finished).read_text(encoding="utf-8")
    assert "Module(Gate, 24)" in page and {"layers.png", "error_map.png"} <= {
        each.name for each in save_plots(finished)
    }


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
def test_a_dry_run_and_the_estimate_of_memory_know_modules(capsys):
    experiment = newer()
    dataset = training.load(DIGITS)

    dry_run(experiment, dataset)

    assert "Module(Gate, 24)" in capsys.readouterr().out
    without = replace(experiment, model=tuple(each for each in experiment.model if type(each) is not Module))
    assert estimate(experiment, dataset).step > estimate(without, dataset).step


def test_operations_of_what_is_known_are_counted_beside_modules(coin):
    network, counted, missing = Network(STREAMING, (4,), seed=1), {}, set()

    with torch.no_grad():
        count_activity(network, coin(6, 3, 4, probability=0.5), {}, counted, missing)

    assert set(counted) == {network.name(0), network.name(5)}
    assert missing == {network.name(1), network.name(3), network.name(4)}


BUILT = """
import sys, torch
from torch import nn
from snn_bp import LIF, DelayedDense, Dense, LayerNorm, Module, Network, TemporalConv
model = (
    TemporalConv(6, 3), LayerNorm(), LIF(beta=0.9), Dense(8, density=0.5, sign="dale"), Module(nn.GELU),
    Module(nn.GRU, 8, 8, stateful=True), DelayedDense(3, 4), LIF(beta=0.9),
)
with torch.device("meta"):
    network = Network(model, (5,))
assert all(p.device.type == "meta" for p in network.state_dict().values())
print(network.shapes[-1][0], *{"torch._dynamo", "sympy"} & set(sys.modules))
"""


@pytest.mark.slow
def test_a_network_built_to_be_counted_loads_no_compiler():
    told = subprocess.run([sys.executable, "-c", BUILT], capture_output=True, text=True, check=True, timeout=300).stdout

    assert told.split() == ["3"]


def test_convolutions_may_follow_an_unflatten(coin):
    network = Network((Dense(24), N, Unflatten((2, 4, 3)), Conv(3, 2), N), (5,), seed=1)
    x = coin(6, 2, 5, probability=0.6)

    out = network(x)

    spikes = network.observe(x)[0][0].spikes
    conv = network.layers[3]
    sums = torch.stack([conv(step.reshape(2, 2, 4, 3)) for step in spikes])
    assert out.shape == (6, 2, 3, 3, 2)
    assert_same(inputs=(trace(network, x, torch.zeros(2).long(), loss=Sum()).layers[1].inputs, sums), atol=1e-5)


class Sum:
    def __call__(self, out, targets):
        return out.sum()
