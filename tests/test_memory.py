"""Memory is estimated before it is taken, and refused where it is not there."""

import platform
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import nn

import snn_bp.runtime.capacity as capacity
from snn_bp import (
    ALIF,
    LI,
    LIF,
    BatchNorm,
    Conv,
    Data,
    Delay,
    Dense,
    Dropout,
    Experiment,
    Flatten,
    Module,
    Network,
    Pool,
    Recurrent,
    Spiking,
    TemporalConv,
    Train,
)
from snn_bp.data import load
from snn_bp.errors import SnnError
from snn_bp.model.blocks import ROLES, Role, parts_of
from snn_bp.runs import memory as answers
from snn_bp.trainer import memory
from snn_bp.trainer.loop import check_trainable

NEURON = LIF(beta=0.9, reset="zero")
DENSE = (Flatten(), Dense(20), BatchNorm(), NEURON, Dense(10), NEURON)
CONV = (Conv(4, 3, stride=2, padding=1), NEURON, Pool(2, kind="max"), Conv(3, (3, 2), dilation=2), NEURON,
        Pool(2, stride=1), Flatten(), Dropout(0.1), Dense(9), Recurrent(NEURON), Delay(1), Dense(10),
        LI(beta=0.9))  # fmt: skip
LEARNS = (
    Flatten(), Dense(5), Spiking(ALIF(beta=0.7, rho=0.9, kappa=0.2), learn=("beta", "kappa")),
    Delay(2.5, learn=True), Dense(3), Recurrent(LIF(beta=0.9), learn=("threshold",)), Delay(1), Dense(2), LI(beta=0.9),
)  # fmt: skip
OWN = (Dense(8), Module(nn.GroupNorm, 2, 8), NEURON, Module(nn.RReLU), Dense(2), LI(beta=0.9))
ROW = (Conv(4, 5, groups=2), NEURON, Pool(3, kind="sum"), Flatten(), Dense(10), NEURON)


def experiment(model=DENSE, **data) -> Experiment:
    return Experiment(Data("digits", **data), model)


@pytest.fixture(scope="module")
def digits():
    return load(Data("digits"), quiet=True)


def refused(asked: Experiment, digits) -> str:
    with pytest.raises(SnnError) as error:
        check_trainable(asked, replace(digits, data=asked.data))
    return str(error.value)


@pytest.mark.parametrize(
    ("model", "shape"),
    [(DENSE, (2, 34, 34)), (CONV, (2, 34, 34)), (ROW, (2, 50)), (LEARNS, (2, 8, 8)), (OWN, (6,))],
    ids=["dense", "conv", "row", "learns", "own"],
)
def test_parameters_are_those_of_the_network(model, shape):
    dataset: Any = SimpleNamespace(shape=shape, steps=6, ids={})
    sizes = answers.Sizes.of(experiment(model), dataset)

    assert sizes.parameters == sum(weight.numel() for weight in Network(model, shape).parameters())


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"step_ms": 0.001, "steps": 310_000}, "data.step_ms"),
        ({"steps": 200_000}, "data.steps"),
        ({"batch": 10**6, "steps": 10**6}, "data.batch"),
    ],
    ids=str,
)
def test_what_no_machine_holds_is_refused_with_figure_and_remedy_before_it_is_taken(digits, changes, remedy):
    tracemalloc.start()

    message = refused(experiment(**changes), digits)

    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "GB of memory" in message and "this process can have" in message and remedy in message
    assert taken < 2**24


def test_weights_no_machine_holds_are_refused_before_the_network_is_built(digits):
    message = refused(experiment((Flatten(), Dense(10**9), NEURON, Dense(10), NEURON)), digits)

    assert "Most of it is weights" in message


def test_the_refusal_can_be_overruled(digits, monkeypatch):
    asked = experiment(steps=10**6)
    monkeypatch.setenv("SNN_BP_CHECK_MEMORY", "0")

    assert memory.check_memory(asked, replace(digits, data=asked.data)).total > 2**40


def test_the_shipped_experiments_are_small(digits):
    asked = experiment(CONV, step_ms=52, steps=6, batch=64)

    assert memory.check_memory(asked, digits).total < 2**28


def test_the_estimate_grows_with_steps_batch_and_neurons_and_shrinks_with_pieces(digits):
    base, longer, wider, in_pieces = (
        memory.estimate(asked, digits).total
        for asked in (
            experiment(steps=1000),
            experiment(steps=2000),
            experiment((Flatten(), Dense(4000), BatchNorm(), NEURON, Dense(10), NEURON), steps=1000),
            experiment(steps=1000, batch=16),
        )
    )

    assert 1.8 * base < longer <= 2 * base < wider and in_pieces < base / 2


def groups(tmp_path: Path, lines: str, **files: str) -> list[int]:
    for name, content in files.items():
        file = tmp_path / "cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (tmp_path / "own").write_text(lines)
    return capacity._of_groups(tmp_path / "cgroup", tmp_path / "own")


def test_limits_of_a_control_group_and_of_those_above_count(tmp_path):
    found = groups(
        tmp_path, "0::/user/job\n",
        user__job__memory_DOT_max="max\n", user__job__memory_DOT_current="5\n",
        user__memory_DOT_max="1000\n", user__memory_DOT_current="700\n",
        user__memory_DOT_stat="anon 1\ninactive_file 50\n",
    )  # fmt: skip

    assert found == [350]


def test_limits_of_the_first_kind_of_control_groups_count(tmp_path):
    found = groups(
        tmp_path, "7:cpu:/\n4:memory:/docker/x\n",
        memory__docker__x__memory_DOT_limit_in_bytes="900", memory__docker__x__memory_DOT_usage_in_bytes="100",
    )  # fmt: skip

    assert found == [800]


def test_a_limit_on_the_address_space_counts(monkeypatch):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(capacity, "freed_memory", lambda: 0)  # it changes with every object
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, before[1]))

    try:
        there = capacity.available()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

    assert there is not None and there < 2**31 + 2**28  # a thread that ended meanwhile has given its stack back


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc says so")
def test_what_the_process_has_freed_and_keeps_counts_as_there(monkeypatch):
    experiment().network((2, 34, 34))  # from the first network on it is kept
    for part in ("machine", "groups", "limits"):
        monkeypatch.setattr(capacity, f"_of_{part}", lambda: [1000])
    held = torch.ones(2**27, dtype=torch.uint8)
    before = capacity.available()

    del held
    after = capacity.available()

    assert before is not None and after is not None and abs(after - before - 2**27) < 2**24
    assert capacity.available(others=True) == 1000


def test_a_batch_that_no_machine_holds_is_refused_before_it_is_made(digits, monkeypatch):
    long = replace(digits, data=replace(digits.data, steps=10**9))

    with pytest.raises(SnnError, match=r"a batch of 4 recordings of 1000000000 steps would take .* GB"):
        long.batch("train", range(4), in_bytes=True)


@pytest.mark.parametrize(("share", "said"), [(2.0, ""), (0.9, "It may be killed"), (0.5, None)])
def test_what_may_just_fit_is_let_through_with_a_word(digits, monkeypatch, capsys, share, said):
    asked = experiment(steps=1000)
    monkeypatch.setattr(answers, "available", lambda: int(share * memory.estimate(asked, digits).total))

    if said is None:
        with pytest.raises(SnnError, match="To try it all the same"):
            memory.check_memory(asked, digits)
    else:
        memory.check_memory(asked, digits)
        assert (said in capsys.readouterr().err) if said else capsys.readouterr().err == ""


def test_the_doctor_looks_at_fewer_recordings_where_neurons_are_very_many(digits):
    network = experiment().network(digits.shape)

    assert memory.traced_recordings(network, 40) == 16
    assert memory.traced_recordings(network, 2**26 // 30 // 4) == 4  # 30 neurons
    assert memory.traced_recordings(network, 2**40) == 1


def test_what_trains_on_a_gpu_takes_its_frames_and_the_evaluation_at_its_end_here(digits, monkeypatch):
    asked = experiment(CONV, steps=40)
    here, at_the_end = memory.estimate(asked, digits), answers.estimate(asked, digits, 64)

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    there = memory.estimate(asked, digits)

    assert asked.train.device == "auto" and asked.data.batch == 64
    assert there.frames == here.frames and there.step == 0 and there.looking == at_the_end.looking <= here.looking
    assert at_the_end.total < there.total < here.total


def test_recordings_that_are_looked_at_are_counted_where_there_are_fewer_than_a_batch(digits):
    few = replace(digits, ids={split: ids[:20] for split, ids in digits.ids.items()})

    assert memory.estimate(experiment(batch=1000), few) == memory.estimate(experiment(batch=20), few)


def test_every_kind_of_layer_has_a_term():
    assert set(answers.KEPT) == set(get_args(Role)) >= set(ROLES.values())


class Attention(nn.Module):
    """Every step meets every other."""

    def forward(self, x):
        each = x.movedim(0, 1)  # [batch, time, values]
        return ((each @ each.mT).softmax(-1) @ each).movedim(1, 0)


class Twice(nn.Module):
    """Two functions, each of which keeps what it gives."""

    def forward(self, x):
        return x.tanh().tanh()


class Counting(nn.Module):
    """It wants values."""

    def forward(self, x):
        return x * float(x.sum())


def kept(layer, shape, steps: int) -> float:
    with torch.device("meta"):
        network = Network((layer,), shape)
    return answers._kept_by(parts_of(network)[0], steps)


def test_what_a_layer_that_is_none_of_ours_keeps_is_found_by_its_own_forward():
    gelu, twice = kept(Module(nn.GELU), (7,), 500), kept(Module(Twice), (7,), 500)

    assert gelu == 2 * 7  # its input, and what it gives
    assert twice == 3 * 7
    assert kept(Module(Counting), (7,), 500) == 4 * 7


def test_what_an_attention_keeps_of_a_step_grows_with_the_steps():
    few, more, most = (kept(Module(Attention, over="time"), (7,), steps) for steps in (100, 200, 300))

    assert more - few == pytest.approx(most - more) and more - few >= 100


@pytest.mark.parametrize(
    ("layer", "shape", "found"),
    [
        (TemporalConv(128, 5), (140,), 2055),
        (TemporalConv(128, 9), (140,), 3269),
        (TemporalConv(128, 5, groups=4), (140,), 1093),
        (TemporalConv(8, 3, 3, padding=1), (2, 12, 12), 17088),
        (TemporalConv(8, 3, 3, padding=1), (2, 64), 2987),
    ],
)
def test_counting_operations_over_time_takes_what_malloc_was_asked_for(layer, shape, found):
    with torch.device("meta"):
        network = Network((layer,), shape)

    assert answers._counted(parts_of(network)[0], 24) == pytest.approx(found, rel=0.1)


def test_processes_do_not_make_an_estimate_smaller(digits, monkeypatch):
    alone = memory.estimate(experiment(), digits)
    monkeypatch.setattr("snn_bp.runtime.processes._rank_and_count", lambda: (0, 4))

    assert memory.estimate(experiment(), digits) == alone


def test_a_weight_takes_more_with_an_optimizer_that_keeps_more(digits):
    plain, momentum, adam, average = (
        memory.estimate(replace(experiment(), train=train), digits).weights
        for train in (
            Train(optimizer="sgd", momentum=0), Train(optimizer="sgd"), Train(optimizer="adam"), Train(average=0.9)
        )
    )  # fmt: skip

    assert plain < momentum < adam < average
