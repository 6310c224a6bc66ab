"""Several processes train one run as one process would; here mostly what needs no process, the others are slow."""

import atexit
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import distributed_runs
import pytest
import torch
from distributed_runs import AUGMENT, RUNS, WHOLE, OfMean, dataset_of
from runs import DIGITS, tiny

from snn_bp import (
    LI,
    LIF,
    TET,
    BatchNorm,
    BinaryCrossEntropy,
    CountCrossEntropy,
    CountSquaredError,
    DelayedDense,
    Dense,
    Experiment,
    Flatten,
    MembraneCrossEntropy,
    Module,
    Network,
    Recurrent,
    Run,
    SnnError,
    Targets,
    TemporalConv,
    Train,
    VanRossum,
    search,
    train,
    training,
)
from snn_bp.cli import app
from snn_bp.data import load
from snn_bp.files import read_object, write_object
from snn_bp.model.followed import followed_later, take_in
from snn_bp.model.shard import Shard, rows_of
from snn_bp.runs import provenance as provenance_of
from snn_bp.runs.provenance import note_resumed, provenance
from snn_bp.runtime import process, processes, signals, status
from snn_bp.runtime.console import INTERRUPTED, guarded
from snn_bp.runtime.signals import noted_signals
from snn_bp.trainer import dealt, distributed
from snn_bp.trainer.amounts import mean_over
from snn_bp.trainer.course import _draw
from snn_bp.trainer.dealt import Dealt, as_first, check_dealt, takes_whole
from snn_bp.trainer.distributed import Team, check_together, device_of, joined_processes
from snn_bp.trainer.optimizer import make_optimizer, run_batch, train_step
from snn_bp.trainer.sampling import batches_of_epoch

LEFT: list[torch.distributed.ProcessGroup] = []
atexit.register(LEFT.clear)
CPU, THREE = torch.device("cpu"), ("a", "b", "c")
CLOSE = 1e-5  # in singles, over a step


@dataclass(frozen=True)
class Mean:
    """A loss of one's own that is a mean over recordings."""

    def __call__(self, out, targets):
        return torch.nn.functional.cross_entropy(out.mean(0), targets)


@pytest.fixture
def two(monkeypatch):
    """As torchrun starts the second of two processes."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "store", lambda: None)
    processes.ends_first.cache_clear()
    yield
    processes.ends_first.cache_clear()


@pytest.fixture
def alone():
    """A process joined with no other."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    LEFT.append(torch.distributed.group.WORLD)  # its end waits for gloo's thread, which may wait for who waits for it
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_every_recording_of_a_batch_is_run_by_one_process(count, batch):
    shards = [Shard(batch, rank=rank, processes=count, seed=0, device=CPU) for rank in range(count)]

    taken = [n for shard in shards if not shard.is_empty for n in range(batch)[shard.rows]]

    assert taken == list(range(batch))
    assert all(len(range(batch)[rows_of(batch, rank=rank, processes=count)]) >= 1 for rank in range(count))
    assert max(shard.size for shard in shards) - min(shard.size for shard in shards) <= 1


@pytest.mark.parametrize("shape", [(5,), (3, 4, 4)])
def test_a_dropout_draws_in_all_processes_what_it_draws_in_one(shape):
    torch.manual_seed(7)
    whole = torch.empty(9, *shape).bernoulli_(0.6)

    drawn = [Shard(9, rank=rank, processes=2, seed=7, device=CPU).kept(torch.zeros(4 + rank, *shape), 0.6)
             for rank in range(2)]  # fmt: skip

    assert torch.equal(torch.cat(drawn), whole)


LOSSES = {
    "class": [CountCrossEntropy(), CountCrossEntropy(class_weights=(1.0, 2.0, 0.5), smoothing=0.1), TET(), Mean(),
              CountSquaredError()],
    "fractions": [CountCrossEntropy(), CountCrossEntropy(class_weights=(1.0, 2.0, 0.5), smoothing=0.1), TET(), Mean(),
                  CountSquaredError()],
    "class per step": [MembraneCrossEntropy(), CountCrossEntropy(class_weights=(1.0, 2.0, 0.0)), TET(weight=0.0)],
    "labels": [BinaryCrossEntropy()],
    "spikes": [VanRossum(tau=5.0)],
}  # fmt: skip


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("kind, loss", [(kind, loss) for kind, losses in LOSSES.items() for loss in losses], ids=str)
def test_parts_of_a_batch_add_up_to_its_loss(kind, loss, masked):
    if masked and isinstance(loss, Mean):
        pytest.skip("it takes no mask")
    draw = torch.Generator().manual_seed(3)
    out = torch.rand(11, 5, 3, generator=draw).round()
    soft = kind == "fractions"
    targets = Targets("class" if soft else kind, THREE)
    values = torch.randint(0, 2, targets.shape(5, 11), generator=draw)
    values = values if targets.are_classes else values.float()
    values = torch.rand(5, 3, generator=draw).softmax(1) if soft else values
    mask = torch.arange(11)[:, None] < torch.tensor([3, 11, 5, 8, 1]) if masked else None
    amount = mean_over(loss, targets, steps=11, masked=masked, soft=soft)

    def of(part):
        given = () if mask is None else (mask[:, part],)
        return float(loss(out[:, part], values[part], *given)), amount(values[part], *given or (None,))

    parts = [of(slice(0, 1)), of(slice(1, 5))]

    total = sum(value * count for value, count in parts) / sum(count for _, count in parts)
    assert total == pytest.approx(of(slice(None))[0], rel=1e-5)


@pytest.mark.parametrize("kind, loss", [("class", OfMean()), ("class", TET(class_weights=(1.0, 2.0, 3.0))),
                                        ("class per step", TET(weight=0.5))], ids=str)  # fmt: skip
def test_a_loss_that_is_no_such_mean_is_refused_by_name(kind, loss, two):
    with pytest.raises(SnnError, match=rf"{type(loss).__name__}: on 2 processes a loss should be the mean"):
        mean_over(loss, Targets(kind, THREE), steps=7, masked=False)


def test_a_layer_that_takes_statistics_of_its_own_is_refused_by_name(two):
    network = Network((Flatten(), Dense(5), Module(torch.nn.BatchNorm1d, 5, affine=False), LIF(beta=0.9), Dense(3),
                       LI(beta=0.9)), (1, 6, 6))  # fmt: skip

    with pytest.raises(SnnError, match="takes statistics of a batch, of which each of 2 processes has a part"):
        check_together(network, Train(), dataset_of(False))


class Centred(torch.nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Follows(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.zeros(5))

    def forward(self, x):
        self.level = 0.9 * self.level + 0.1 * x.mean(0)
        return x.clone()


class Counting(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x):
        self.passes += 1
        return x * (1 + self.passes)


class Bounded(torch.nn.Linear):
    def forward(self, x):
        self.weight.data.clamp_(-0.01, 0.01)
        return super().forward(x)


class OwnNorm(torch.nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(2 * x)


class Late(torch.nn.Module):
    def forward(self, x, state):
        return x + x.mean(1, keepdim=True), state


def with_layer(layer):
    return Network((Flatten(), Dense(5), layer, LIF(beta=0.9), Dense(3), LI(beta=0.9)), (1, 6, 6))


@pytest.mark.parametrize("layer", [Module(Centred), Module(Follows), Module(Late, stateful=True),
                                   Module(Centred, over="time")], ids=str)  # fmt: skip
def test_a_layer_that_looks_at_other_recordings_is_refused_by_name(layer, two):
    if layer.over == "time":  # along time, in each recording by itself
        check_together(with_layer(layer), Train(), dataset_of(False))
        return
    with pytest.raises(SnnError, match=rf"{layer.kind.__name__}.* hangs on others of its batch.* 2 processes"):
        check_together(with_layer(layer), Train(), dataset_of(False))


@pytest.mark.parametrize("layer", [Module(torch.nn.Dropout, 0.5), Module(torch.nn.GELU), TemporalConv(5, 3),
                                   DelayedDense(5, 4), Module(torch.nn.GroupNorm, 1, 5)], ids=str)  # fmt: skip
def test_a_layer_that_sees_each_recording_by_itself_is_trained_together(layer, two):
    network, drawn = with_layer(layer), torch.get_rng_state()

    check_together(network, Train(), dataset_of(False))

    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("layer, name", [(Module(Follows), "level"), (Module(Counting), "passes"),
                                         (Module(OwnNorm, 5), "running_mean")], ids=str)  # fmt: skip
def test_where_batches_are_dealt_whole_a_layer_that_changes_itself_is_refused_by_name(layer, name, two):
    with pytest.raises(SnnError, match=rf"{layer.kind.__name__}.* changes its {name}.* while it trains.* 2 processes"):
        check_together(with_layer(layer), Train(accumulate=2), dataset_of(False))


def test_a_layer_that_changes_itself_once_it_trains_is_refused_by_name(alone):
    network = with_layer(Module(Bounded, 5, 5))
    check_dealt(network)
    network.layers[2].weight.data += 1  # what building it had bounded is bounded again
    x, targets, config = torch.ones(3, 2, 1, 6, 6), torch.tensor([0, 1]), Train(accumulate=2)

    with pytest.raises(SnnError, match=r"Bounded.* changes its weight while it trains"):
        Dealt(network, lambda value: [value]).steps(2, lambda _: run_batch(network, x, targets, config))


def test_a_layer_has_what_it_keeps_in_the_first_process_when_an_epoch_begins(two, monkeypatch):
    mine, first = with_layer(Module(Follows)), with_layer(Module(Follows))
    with torch.inference_mode():  # in which an evaluation makes buffers
        mine(torch.ones(2, 3, 1, 6, 6)), first(torch.zeros(2, 3, 1, 6, 6))
    held = [{"level": first.layers[2].level}], [{"level": torch.arange(3.0)}]
    told = iter(held)
    monkeypatch.setattr(Team, "awaited", lambda self: next(told))

    for (each,) in held:
        Team(Train()).begin_epoch(mine)
        assert torch.equal(mine.layers[2].level, each["level"])


@pytest.mark.parametrize("kind", [torch.int16, torch.bool, torch.float64, torch.complex64], ids=str)
def test_tensors_of_any_type_and_layout_are_those_of_the_first_process(kind, alone, monkeypatch):
    values = [torch.arange(6).view(2, 3).to(kind).t(), torch.ones((), dtype=kind), torch.zeros(0, dtype=kind)]
    before = [value.clone() for value in values]
    monkeypatch.setattr(dealt, "rank", lambda: 1)  # which takes what it is sent

    as_first(values)

    assert all(torch.equal(*pair) for pair in zip(values, before, strict=True))


@pytest.mark.parametrize("layer", [Module(Centred), Module(Late, stateful=True), Module(torch.nn.Dropout, 0.5),
                                   Module(torch.nn.BatchNorm1d, 5, affine=False), BatchNorm()], ids=str)  # fmt: skip
def test_whole_batches_may_be_mixed_and_have_any_loss(layer, two):
    network, drawn = with_layer(layer), torch.get_rng_state()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    check_together(network, Train(accumulate=3, loss=OfMean()), dataset_of(False))

    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [takes_whole(Train(accumulate=count)) for count in (1, 2, 3)] == [False, True, True]


@pytest.mark.parametrize("chunk", [1, 100, 2**24])
def test_dealt_batches_give_the_bits_of_accumulated_ones(chunk, alone, noise, monkeypatch):
    monkeypatch.setattr(dealt, "CHUNK", chunk)
    model = (
        Dense(9),
        BatchNorm(),
        LIF(beta=0.8),
        Dense(5),
        BatchNorm(),
        Recurrent(LIF(beta=0.8)),
        Dense(3),
        LI(beta=0.8),
    )
    x, targets, config = noise(7, 10, 6, scale=3), torch.arange(10) % 3, Train(truncate=4)
    parts, found = [slice(0, 4), slice(4, 8), slice(8, 10)], []
    for is_dealt in (False, True):
        network = Network(model, (6,), seed=1)
        network.layers[0].bias.requires_grad_(False)
        spare = torch.nn.Parameter(torch.ones(3))
        network.register_parameter("spare", spare)  # no batch uses it
        given, optimizer = [(x[:, part], targets[part]) for part in parts], make_optimizer(network, config)
        if is_dealt:
            run = partial(run_batch, network, config=config, fraction=0.3)
            Dealt(network, lambda value: [value]).steps(3, lambda n, run=run, given=given: run(*given[n]))
        else:
            with followed_later() as followed:
                for n, batch in enumerate(given):
                    train_step(network, optimizer, *batch, config, first=n == 0, last=False, fraction=0.3)
            for each in followed:
                take_in(*each)
        assert spare.grad is None and network.layers[0].bias.grad is None
        found.append([value.clone() for value in network.buffers()])
        found[-1] += [weight.grad for weight in network.parameters() if weight.grad is not None]

    assert len(found[0]) > 8 and all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_what_follows_later_is_what_would_have_followed_at_once(noise):
    model = (Dense(9), BatchNorm(), LIF(beta=0.8), Dense(5), BatchNorm(), Recurrent(LIF(beta=0.8)))
    once, later = (Network(model, (6,), seed=1).train() for _ in range(2))
    start = [value.clone() for value in later.buffers()]

    with followed_later() as followed:
        outs = [later(noise(7, 4, 6, seed=seed)) for seed in (1, 2)]
        assert all(torch.equal(*pair) for pair in zip(start, later.buffers(), strict=True))
    for each in followed:
        take_in(*each)

    assert torch.equal(torch.stack(outs), torch.stack([once(noise(7, 4, 6, seed=seed)) for seed in (1, 2)]))
    kernel, torchs = (slice(0, 3), slice(3, 6))  # running mean and variance, and the count of batches
    pairs = list(zip(once.buffers(), later.buffers(), strict=True))
    assert len(pairs) == 6 and all(torch.equal(*pair) for pair in pairs[kernel])
    for one, other in pairs[torchs]:  # torch's own has the variance in doubles on the way, and here it is in floats
        torch.testing.assert_close(one, other, rtol=3e-7, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("dense", "chip"))) for name in RUNS]
)
def test_a_step_in_a_team_is_the_step_of_one_process(name, alone, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: True)
    model, masked, config = RUNS[name]
    dataset = dataset_of(masked, AUGMENT.get(name, ()))
    ids = dataset.ids["train"][:7]
    x, targets = dataset.batch("train", ids, seed=5)
    mask, found = dataset.mask("train", ids), []
    for joined in (False, True):
        network = Experiment(dataset.data, model, config).network(dataset.shape)
        team = None
        if joined:
            team = Team(config)
            team.join(network, config, dataset)
            team.begin_batch(7, seed=5)
        torch.manual_seed(5)
        step = train_step(network, make_optimizer(network, config), x, targets, config, mask, team=team)
        found.append((step, {name: value.clone() for name, value in network.state_dict().items()}))

    (one, mine), (other, theirs) = found
    assert one[1:3] == other[1:3] and one[0] == pytest.approx(other[0], rel=1e-5)
    assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-4)
    moved = {key: float((mine[key].double() - theirs[key].double()).abs().max()) for key in mine}
    assert max(moved.values()) <= CLOSE, moved


def test_the_processes_stay_joined_behind_a_training(alone, monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 2)

    with joined_processes(Train()) as team:
        team.begin_run(None)

    assert torch.distributed.is_initialized()  # to leave at once may wait for ever


@pytest.mark.parametrize("words", [["list"], ["evaluate", "runs/a"], ["train", "mine.py", "--dry-run"]], ids=str)
def test_a_command_that_knows_of_one_process_refuses_more(words, two, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from snn_bp import *\nexperiment = Experiment(Data('digits'), (Flatten(), Dense(10), LIF(beta=0.9)))\n"
    )
    Path("runs/a").mkdir(parents=True)
    Path("runs/a/experiment.json").write_text("{}")

    with pytest.raises(SystemExit):
        guarded(app, words)

    assert "runs in one process, torchrun started 2. Start it without torchrun." in capsys.readouterr().err


def test_a_loop_of_ones_own_and_a_search_refuse_more_than_one_process(two, tmp_path):
    with pytest.raises(SnnError, match="training: it runs in one process"):
        next(iter(training(tiny(), tmp_path / "a")))
    with pytest.raises(SnnError, match="search: it runs in one process"):
        search(tiny(), method="es", budget=400)


def test_one_process_that_torchrun_started_is_a_plain_start(two, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")

    assert processes.processes() == 1 and processes.is_first() and processes.ends_first()


@pytest.mark.parametrize("cores, said", [(2, "processes"), (999, "machine")])
def test_a_run_that_goes_on_in_other_processes_is_on_the_same_machine(cores, said, monkeypatch, tmp_path):
    file = tmp_path / "provenance.json"
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    write_object(file, provenance(tiny(), command="snn-bp train", changes=()))
    monkeypatch.setattr(provenance_of, "processes", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)

    assert note_resumed(file, tiny()) == f"resumed with other {said} than before; provenance.json says which"
    assert read_object(file)["resumed"][0]["machine"]["processes"] == 3


def test_of_several_processes_the_first_prints(two, capsys):
    from snn_bp.runtime.status import say

    say("once")
    os.environ["RANK"] = "0"
    say("twice")

    assert capsys.readouterr().out == "twice\n"


def test_more_processes_than_gpus_are_refused(two, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    for device in ("auto", "cuda:0"):
        with pytest.raises(SnnError, match="2 processes on a machine with 1 GPUs"):
            device_of(Train(device=device))
    assert device_of(Train(device="cpu")) == CPU


def ends(how):
    """How a command ends: what it exits with."""

    def program(arguments, standalone_mode):
        how()

    with pytest.raises(SystemExit) as end:
        guarded(program)
    return end.value.code


def test_a_sigterm_to_one_of_several_processes_ends_it_with_one_line(two, capsys):
    assert ends(lambda: signal.raise_signal(signal.SIGTERM)) == 130
    assert ours(capsys.readouterr().err) == [INTERRUPTED]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_sigterm_behind_an_error_does_not_take_its_line(two, capsys):
    def fail():
        raise SnnError("recording 7 is bad.")

    def terminated():
        signal.raise_signal(signal.SIGTERM)  # as torchrun sends it while this process asks whether it says why

    processes.store, found = terminated, ends(fail)

    assert found == 2 and ours(capsys.readouterr().err) == ["error: recording 7 is bad."]


def test_a_sigterm_while_libraries_are_imported_waits_for_them(two):
    order = []

    def importing():
        with processes.interrupted_later():
            signal.raise_signal(signal.SIGTERM)
            order.append("imported")
        order.append("behind")

    assert ends(importing) == 130 and order == ["imported"]


def test_one_process_leaves_sigterm_as_it_is():
    def program(arguments, standalone_mode):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    guarded(program)


@pytest.mark.parametrize("count, goes_on", [(1, True), (2, False)])
def test_of_several_processes_one_that_does_not_stop_in_time_ends_at_once(count, goes_on, monkeypatch):
    monkeypatch.setattr(signals, "processes", lambda: count)
    monkeypatch.setattr(signals, "STOP_SECONDS", 0.05)
    went_on = False

    try:
        with noted_signals() as noted:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.3 if goes_on else 60)  # a long evaluation
            went_on = True
    except KeyboardInterrupt:
        pass

    assert went_on == goes_on and noted == [signal.SIGTERM]


@pytest.mark.parametrize("rank, count", [(2, 2), (3, 2), (0, 0)])
def test_a_rank_that_there_is_none_of_is_refused_at_once(rank, count, two, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(count))

    with pytest.raises(SnnError, match=f"RANK={rank} of WORLD_SIZE={count}: .*counted from 0"):
        train(tiny(), tmp_path / "a", quiet=True)

    assert processes.ends_first() and not (tmp_path / "a").exists()


@pytest.mark.parametrize("rank, found", [(0, "1 of 2 processes came to"), (1, "process 1 of 2 does not reach")])
def test_a_process_that_waits_for_others_says_so(rank, found, two, monkeypatch, tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    monkeypatch.undo()
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(status, "LONG", 0.0)
    monkeypatch.setattr(status, "TICK", 0.005)
    monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=0.4))

    with pytest.raises(SnnError, match=f"{found}.*localhost:{port}"):
        train(tiny(), tmp_path / "a")

    assert f"waiting for 2 processes at localhost:{port} ..." in capsys.readouterr().err
    processes._store.cache_clear()


ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def torchrun(count: int, *words: object, cwd: Path, **more) -> subprocess.Popen:
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return subprocess.Popen(
        [*program, *map(str, words)], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=ONE_THREAD | more,
    )  # fmt: skip


def differences(one: Run, other: Run) -> tuple[float, float]:
    """The largest difference of a weight, and of a figure of the training."""
    mine, theirs = (run.load("last").weights for run in (one, other))
    weights = max(float((mine[name].double() - theirs[name].double()).abs().max()) for name in mine)
    pairs = [(a, b) for a, b in zip(one.metrics(), other.metrics(), strict=True)]
    named = [name for name in pairs[0][0] if name.startswith(("train_loss", "train_acc", "validation", "grad"))]
    return weights, max(abs(a[name] - b[name]) for a, b in pairs for name in named)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_end_where_one_does(count, tmp_path):
    script = Path(distributed_runs.__file__)
    subprocess.run([sys.executable, script, tmp_path / "one", *RUNS], check=True)

    several = torchrun(count, script, tmp_path / "several", *RUNS, cwd=tmp_path)
    _, said = several.communicate(timeout=600)

    assert several.returncode == 0, said
    for name in RUNS:  # in doubles: what is left is the order of summation
        one, other = Run(tmp_path / "one" / name), Run(tmp_path / "several" / name)
        assert max(differences(one, other)) < 1e-10, name
        assert one.results()["test"]["loss"] == pytest.approx(other.results()["test"]["loss"], abs=1e-10)


TIMES = ("seconds", "wait_seconds", "samples_per_s", "peak_memory_mb")


def bits(run: Run) -> dict[str, Any]:
    """All that a run has found, but for times and the memory it took."""
    found: dict[str, Any] = {"layers": (run.path / "layers.jsonl").read_bytes()}
    found["rows"] = [{name: value for name, value in row.items() if name not in TIMES} for row in run.metrics()]
    found["test"] = run.results()["test"]
    for name in ("last", "best"):
        at = run.load(name)
        found[name] = plain([at.epoch, at.batch, at.weights, at.averaged, at.optimizer])
    return found


def plain(value: Any) -> Any:
    """A value in which tensors are bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def in_one(tmp_path_factory):
    """The runs whose batches are dealt whole, trained by one process of one thread."""
    folder = tmp_path_factory.mktemp("one")
    subprocess.run([sys.executable, distributed_runs.__file__, folder, *WHOLE], check=True, env=ONE_THREAD)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_whole_batches_on_several_processes_give_the_bits_of_one(count, in_one, tmp_path):
    several = torchrun(count, distributed_runs.__file__, tmp_path, *WHOLE, cwd=tmp_path)
    _, said = several.communicate(timeout=900)

    assert several.returncode == 0, said
    for name in WHOLE:
        assert bits(Run(tmp_path / name)) == bits(Run(in_one / name)), name


HELD = """
import os, time
from pathlib import Path
from snn_bp.cli import entry
from snn_bp.trainer.distributed import Team
end = Team.end_step
def slow(*given, **more):
    rows = Path(os.environ.get("ROWS", "none"))
    if rows.exists() and rows.read_text().count("\\n") > 3:
        time.sleep(1)
    end(*given, **more)
Team.end_step = slow
entry()
"""  # `snn-bp`, which from the fourth epoch on is slow: it does not end before it is killed
PROGRAM = HELD.replace("\nentry()", "\nimport torch\ntorch.set_default_dtype(torch.float64)\nentry()")  # in doubles
EXPERIMENT = """
from snn_bp import *
experiment = Experiment(
    Data("digits", step_ms=26, steps=12, downsample=2, batch=32),
    (Flatten(), Dense(24), LIF(beta=0.8), Dense(10), LIF(beta=0.8)),
    Train(epochs=8, lr=1e-3))
"""


def ours(said: str) -> list[str]:
    """The lines of an end that are ours; torchrun writes its own."""
    return [line for line in said.splitlines() if line.startswith(("error: ", "stopped"))]


def is_told(said: str) -> bool:
    """Whether one line says that all end: by who misses a process, or by whom torchrun ended before it missed one."""
    lines = ours(said)
    return len(lines) == 1 and (lines[0] == INTERRUPTED or "a process of this training has ended" in lines[0])


def begun(process: subprocess.Popen, file: Path, *, lines: int = 4) -> list[int]:
    """The processes of a training once a file has so many lines, in order."""
    until = time.monotonic() + 300
    while not file.exists() or len(file.read_text().splitlines()) < lines:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(word) for word in children.stdout.split()]


@pytest.mark.slow
def test_a_process_that_is_killed_ends_all_with_one_line_and_any_number_goes_on(tmp_path):
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    (tmp_path / "program.py").write_text(PROGRAM)
    subprocess.run([sys.executable, "program.py", "train", "mine.py", "--out", "left"], cwd=tmp_path, check=True)
    for killed, rank, others in (("first", 0, 1), ("second", 1, 3)):
        rows = tmp_path / killed / "metrics.csv"
        process = torchrun(2, "program.py", "train", "mine.py", "--out", killed, cwd=tmp_path, ROWS=str(rows))
        members = begun(process, rows)
        os.kill(members[rank], signal.SIGKILL)
        _, said = process.communicate(timeout=60)

        assert process.returncode != 0
        assert is_told(said) and "snn_bp/" not in said

        on = torchrun(others, "program.py", "resume", killed, cwd=tmp_path)
        _, said = on.communicate(timeout=300)
        assert on.returncode == 0, said
        assert max(differences(Run(tmp_path / "left"), Run(tmp_path / killed))) < 1e-6


@pytest.mark.slow
def test_a_process_that_is_killed_between_whole_batches_leaves_a_run_that_ends_in_the_same_bits(tmp_path):
    (tmp_path / "mine.py").write_text(EXPERIMENT.replace("epochs=8", "epochs=6, accumulate=3"))
    (tmp_path / "program.py").write_text(HELD)
    ways = ["program.py", "train", "mine.py", "--out"]
    subprocess.run([sys.executable, *ways, "left"], cwd=tmp_path, check=True, env=ONE_THREAD)
    for killed, rank, others in (("first", 0, 1), ("second", 1, 3)):
        rows = tmp_path / killed / "metrics.csv"
        process = torchrun(2, *ways, killed, cwd=tmp_path, ROWS=str(rows))
        members = begun(process, rows)
        os.kill(members[rank], signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert is_told(said), said

        on = torchrun(others, "-m", "snn_bp", "resume", killed, cwd=tmp_path)
        found, said = on.communicate(timeout=300)
        assert on.returncode == 0, said
        assert others == 1 or "3 processes, whole batches: 3 make a step" in found
        assert bits(Run(tmp_path / killed)) == bits(Run(tmp_path / "left")), killed


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_another_process_is_the_same_error_as_in_one(tmp_path):
    (tmp_path / "mine.py").write_text(
        EXPERIMENT.replace(
            "experiment = ",
            "import torch\n"
            "from dataclasses import dataclass\n"
            "@dataclass(frozen=True)\n"
            "class Bad:\n"
            "    means = ('spikes', 'potentials')\n"
            "    def __call__(self, out, targets):\n"
            "        bad = out.requires_grad and int(targets.sum()) == SUM\n"
            "        return CountCrossEntropy()(out, targets) * (float('nan') if bad else 1.0)\n"
            "experiment = ",
        ).replace("lr=1e-3", "lr=1e-3, accumulate=2, loss=Bad()")
    )
    made = runpy.run_path(str(tmp_path / "mine.py"))["experiment"]
    dataset = load(made.data)
    ids = batches_of_epoch(dataset, made.train, seed=_draw(made.seed, 0))[3]  # the second of the second step
    text = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(text.replace("SUM", str(int(dataset.batch("train", ids)[1].sum()))))

    said = []
    for count in (1, 2):
        process = torchrun(count, "-m", "snn_bp", "train", "mine.py", "--out", str(count), cwd=tmp_path)
        said.append(ours(process.communicate(timeout=120)[1]))

    assert len(said[0]) == 1 and "epoch 1, batch 4: loss nan" in said[0][0]
    assert said[0] == said[1]


SLOWED = """
import importlib, os, time
from pathlib import Path
from snn_bp.cli import entry
from snn_bp.trainer import distributed
def here():
    with open("there", "a") as file:
        file.write("here\\n")
module, name = os.environ["PLACE"].rsplit(".", 1)
module = importlib.import_module(module)
was = getattr(module, name)
def slow(*given, **more):
    if os.environ["RANK"] == os.environ.get("ONLY", "0"):
        here()
        until = time.monotonic() + 600
        while not Path("go on").exists() and time.monotonic() < until:
            time.sleep(0.05)
    return was(*given, **more)
setattr(module, name, slow)
meet = distributed._meet
def met():
    here()
    meet()
distributed._meet = met
entry()
"""  # `snn-bp`, which stays for long at one place; `there` has a line of each process that has begun, and of that place
BOTH_AND_THERE = 3


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize(
    "place", ["distributed._meet", "loop.load", "course.start_alive", "ending.evaluate_together", "loop.end_run"]
)
def test_a_process_that_is_killed_before_the_first_step_or_in_an_evaluation_ends_all_with_one_line(
    place, killed, tmp_path
):
    (tmp_path / "mine.py").write_text(EXPERIMENT.replace("epochs=8", "epochs=1"))
    (tmp_path / "program.py").write_text(SLOWED)
    process = torchrun(2, "program.py", "train", "mine.py", cwd=tmp_path, PLACE=f"snn_bp.trainer.{place}")
    members = begun(process, tmp_path / "there", lines=BOTH_AND_THERE)
    os.kill(members[killed], signal.SIGKILL)
    _, said = process.communicate(timeout=60)

    assert process.returncode != 0 and len(ours(said)) == 1, said


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_saved_with_one_line(tmp_path):
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    (tmp_path / "program.py").write_text(HELD)
    rows = tmp_path / "a" / "metrics.csv"
    process = torchrun(2, "program.py", "train", "mine.py", "--out", "a", cwd=tmp_path, ROWS=str(rows))
    os.kill(begun(process, rows)[1], signal.SIGTERM)
    _, said = process.communicate(timeout=120)

    assert ours(said) == ["stopped and saved. Go on with: snn-bp resume a"] and process.returncode != 0
    assert Run(tmp_path / "a").load("last").epoch >= 2
    assert read_object(tmp_path / "a" / "provenance.json")["machine"]["processes"] == 2


FAILING = """
import os
from dataclasses import dataclass
from snn_bp.errors import SnnError
@dataclass(frozen=True)
class Late:
    means = ("spikes", "potentials")
    def __call__(self, out, targets):
        if os.environ["RANK"] == "1" and WHEN:
            raise SnnError("recording 7 is bad")
        return CountCrossEntropy()(out, targets)
experiment = """  # a loss that fails in the second process


def said_where_a_loss_fails(folder: Path, when: str) -> str:
    """What two processes say of a training, whose loss fails in the second of them."""
    broken = EXPERIMENT.replace("\nexperiment = ", FAILING.replace("WHEN", when))
    (folder / "mine.py").write_text(broken.replace("lr=1e-3", "lr=1e-3, loss=Late()"))
    process = torchrun(2, "-m", "snn_bp", "train", "mine.py", "--out", "a", cwd=folder)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    return said


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_with_its_line(tmp_path):
    said = said_where_a_loss_fails(tmp_path, "bool(out.detach().sum() > 0) and out.grad_fn is not None")

    assert len(ours(said)) == 1 and "recording 7 is bad" in said, said


@pytest.mark.slow
def test_one_process_under_torchrun_is_the_plain_run_bit_for_bit(tmp_path):
    experiment = tiny()
    script = "from runs import tiny\nfrom snn_bp import train\ntrain(tiny(), 'b', quiet=True)\n"
    (tmp_path / "script.py").write_text(script)
    train(experiment, tmp_path / "a", quiet=True)

    places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    process = torchrun(1, "script.py", cwd=tmp_path, PYTHONPATH=os.pathsep.join(filter(None, places)))
    _, said = process.communicate(timeout=120)

    assert process.returncode == 0, said
    assert differences(Run(tmp_path / "a"), Run(tmp_path / "b")) == (0.0, 0.0)
    assert experiment.data == replace(DIGITS)


@pytest.mark.parametrize(("is_joined", "leaving", "parts"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_a_program_that_ends_by_itself_leaves_the_other_processes(is_joined, leaving, parts, monkeypatch):
    left = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: is_joined)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: left.append(1))
    monkeypatch.setattr(process, "leaving", leaving)

    distributed._leave_others()

    assert len(left) == parts
