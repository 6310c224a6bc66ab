"""The plan of a training on many processes: its counts are those of a training, its sizes are not allocated."""

import json
import math
import resource
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from runs import few, tiny

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    ConvTranspose,
    Data,
    Dataset,
    DelayedDense,
    Dense,
    Experiment,
    Flatten,
    Network,
    Pool,
    Recurrent,
    SnnError,
    Spiking,
    TemporalConv,
    Train,
    training,
    use_backend,
)
from snn_bp.cli import app, guarded
from snn_bp.data.store import CachedEvents
from snn_bp.model.blocks import every_part, parts_of
from snn_bp.model.neurobench import Counters
from snn_bp.model.shard import Shard, in_shard
from snn_bp.runs.evaluation import count_activity
from snn_bp.trainer import memory
from snn_bp.trainer.scaling import Machine, plan_training, products

few_digits = runs.few_digits
GPU = json.loads((Path(__file__).parents[1] / "experiments/results/gpu.json").read_text())
lif = LIF(beta=0.9)
SHD = Experiment(Data("shd", batch=256), (Dense(64), BatchNorm(), lif, Dense(20), LI(beta=0.9)), Train(epochs=3))


def stated(experiment=SHD, processes=4, events=65_000_000, **options):
    return plan_training(experiment, processes, events=events, **options)


def test_events_and_memory_are_those_of_the_data_and_steps_those_of_a_training(few_digits, monkeypatch, tmp_path):
    monkeypatch.setattr("snn_bp.trainer.scaling.load", few)
    experiment = tiny(accumulate=2)
    dataset = few(experiment.data)

    plan = plan_training(experiment, 1)

    part = dataset.parts["train"]
    assert isinstance(part, CachedEvents)
    events = part.events
    assert plan.recordings.events == sum(events.offsets[n + 1] - events.offsets[n] for n in dataset.ids["train"])
    assert plan.recordings.event_bytes == sum(getattr(events, name).itemsize for name in "xypt") == 7
    x, _ = dataset.batch("train", dataset.ids["train"][:32], in_bytes=True)
    assert plan.frames_bytes == x.numel() * x.element_size()
    here = memory.estimate(replace(experiment, train=replace(experiment.train, device="cpu")), dataset)
    assert plan.memory == replace(here, answers=0) != here
    steps = sum(1 for _ in training(experiment, tmp_path / "a", quiet=True))
    assert plan.steps_per_epoch * plan.epochs == steps == 6


@pytest.mark.slow
def test_gradients_and_statistics_are_the_bytes_that_torch_sends(monkeypatch):
    network = Network(SHD.model_at_step(), (700,))
    sent, gathered, summed = [], [], []
    all_gather, all_reduce = torch.distributed.all_gather, torch.distributed.all_reduce

    def noted(where, function):
        def call(*given):
            where.append(given[-1].numel() * given[-1].element_size())
            return function(*given)

        return call

    monkeypatch.setattr(torch.distributed, "all_gather", noted(gathered, all_gather))
    monkeypatch.setattr(torch.distributed, "all_reduce", noted(summed, all_reduce))

    def counted(_, bucket):
        sent.append(bucket.buffer().numel() * bucket.buffer().element_size())
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    with tempfile.NamedTemporaryFile() as file:
        torch.distributed.init_process_group("gloo", init_method=f"file://{file.name}-store", rank=0, world_size=1)
        try:
            parallel = torch.nn.parallel.DistributedDataParallel(network)
            parallel.register_comm_hook(None, counted)
            shard = Shard(4, rank=0, processes=1, seed=0, device=torch.device("cpu"))
            with in_shard(shard), use_backend("reference"):  # as on a GPU, where a norm is a step of its own
                parallel(torch.rand(3, 4, 700)).sum().backward()
        finally:
            torch.distributed.destroy_process_group()

    plan = stated()
    assert gathered == summed == [plan.norm_bytes]
    assert sum(sent) == plan.gradients_bytes == plan.weights_bytes == 4 * plan.parameters
    assert plan.sent_bytes == 2 * 3 * sum(sent) // 4 + 3 * 3 * 8 * (2 * 64 + 1)
    assert stated(processes=1).sent_bytes == 0


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Dense(6), (5,)),
        (Conv(4, 3, stride=2), (2, 9, 8)),
        (Conv(4, 3, groups=2), (2, 20)),
        (ConvTranspose(3, 2, stride=2), (2, 4, 5)),
        (TemporalConv(4, 1), (2,)),
        (Spiking(lif, learn=("beta",)), (5, 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_products_are_the_dense_operations_of_an_inference(layer, shape):
    network = Network((layer, lif), shape)
    counters = Counters()
    with torch.no_grad():
        count_activity(network, torch.ones(1, 1, *shape), {}, {}, counters=counters)

    assert sum(map(products, every_part(parts_of(network)))) == counters.dense


def test_products_of_delays_and_of_a_recurrence_count_each_weight():
    network = Network((DelayedDense(6, 3), Recurrent(lif)), (5,))

    assert sum(map(products, every_part(parts_of(network)))) == 5 * 6 + 6 * 6


def test_what_is_planned_is_not_allocated():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB

    plan = stated(replace(SHD, model=(Dense(2_000_000), lif, Dense(20), lif)), events=10**12, recordings=10**9)

    assert plan.weights_bytes > 5e9 and plan.recordings.events == 10**12
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2e5


@pytest.mark.parametrize(
    ("work", "data", "model", "within"),
    [
        ("W1", Data("shd", step_ms=2, steps=500), (Dense(256), lif, Dense(256), lif, Dense(20), lif), 0.1),
        (
            "W3",
            Data("nmnist", steps=25, batch=32),
            (*(Conv(12, 5), Pool(2), lif, Conv(32, 5), Pool(2), lif), Flatten(), Dense(10), lif),
            0.25,
        ),
    ],
    ids=["W1", "W3"],
)
def test_a_step_is_planned_about_as_long_as_one_that_was_measured(work, data, model, within):
    (measured,) = (row["ms"] for row in GPU["step_rows"] if (row["work"], row["library"]) == (work, "snn_bp"))

    assert stated(Experiment(data, model), 1).seconds["computing"] * 1000 == pytest.approx(measured, rel=within)


@pytest.mark.parametrize(
    ("options", "bottleneck"),
    [
        ({"machine": Machine(link_gbs=1e-3)}, "communication"),
        ({"machine": Machine(disk_gbs=1e-4)}, "reading"),
        ({"machine": Machine(tflops=1e-6)}, "computing"),
        ({"step_ms": 1e5}, "computing"),
    ],
)
def test_the_bottleneck_follows_what_is_assumed(options, bottleneck):
    plan = stated(**options)

    assert plan.bottleneck == bottleneck and plan.step_seconds >= plan.seconds[bottleneck]
    assert (plan.efficiency < 0.9) == (bottleneck == "communication")
    assert bottleneck in str(plan) and json.loads(json.dumps(plan.record()))["bottleneck"] == bottleneck


def test_a_step_of_several_batches_takes_as_many_times_all_but_the_gradients():
    once, twice = (stated(replace(SHD, train=Train(accumulate=count))) for count in (1, 2))

    assert twice.seconds["computing"] == 2 * once.seconds["computing"]
    assert twice.sent_bytes - once.sent_bytes == 3 * 3 * once.norm_bytes
    assert twice.steps_per_epoch == math.ceil(once.steps_per_epoch / 2)


def test_whole_batches_send_each_gradient_once_and_their_sum_once():
    whole, parts = (stated(replace(SHD, train=Train(accumulate=count))) for count in (6, 3))  # on four processes

    assert (whole.is_dealt, whole.batches_each, whole.batch_each) == (True, 2, 256)
    assert (parts.is_dealt, parts.batches_each, parts.batch_each) == (False, 3, 64)
    assert whole.norm_bytes == 2 * 64 * 4  # mean and variance, in floats
    assert whole.sent_bytes == 3 * whole.gradients_bytes * 3 // 4 + 3 * 2 * whole.norm_bytes
    assert whole.efficiency < 0.76  # in the second round two of four have nothing
    assert "whole batches of 256, 6 to a step: up to 2 each" in str(whole)


@pytest.mark.parametrize(("memory_gb", "advice"), [(0.5, "data.batch={} fits"), (1e-3, "Not even one")])
def test_what_does_not_fit_is_the_bottleneck(memory_gb, advice):
    plan = stated(replace(SHD, data=replace(SHD.data, batch=2**15)), machine=Machine(memory_gb=memory_gb))

    assert plan.memory_bytes > memory_gb * 1e9 and plan.bottleneck == "memory"
    assert f"bottleneck: memory. {advice.format(plan.largest_batch_each * plan.processes)}" in str(plan)


def test_the_largest_batch_is_the_last_one_that_fits():
    plan = stated(machine=Machine(memory_gb=0.5))
    fits, not_quite = (
        stated(replace(SHD, data=replace(SHD.data, batch=4 * (plan.largest_batch_each + more)))) for more in (0, 1)
    )

    assert fits.memory_bytes <= 0.5e9 < not_quite.memory_bytes


@pytest.mark.parametrize(
    ("experiment", "options", "told"),
    [
        (SHD, {"processes": 512}, "data.batch=512 gives one"),
        (SHD, {"processes": 512, "recordings": 100}, "a batch of 100 over 512 processes.*--processes 100 gives one"),
        (replace(SHD, data=Dataset.of((np.zeros((8, 5, 4)), np.arange(8) % 2)).data), {}, "Without --events"),
        (replace(SHD, data=Data("tonic:ASLDVS", step_ms=10, steps=9)), {}, "--recordings"),
        (replace(SHD, data=Data("shd", transforms=(lambda events: events,))), {}, "Without --events"),
    ],
)
def test_what_cannot_be_planned_says_what_would_do(experiment, options, told):
    with pytest.raises(SnnError, match=told):
        stated(experiment, **options)


def test_the_command_prints_each_assumption_and_how_the_rest_is_known(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(f"from snn_bp import *\nexperiment = {SHD!r}\n")

    guarded(app, ["plan", str(file), "--processes", "64", "--events", "1e9", "--link", "12", "train.epochs=2"])

    said = capsys.readouterr().out
    assert "events: 1,000,000,000 in 7,340 recordings" in said and "29 an epoch, 58 in 2 epochs" in said
    assert "a link of 12 GB/s" in said and "141 GB" in said and "measured here on one thread" in said
