"""Training: exact to repeat, exact to resume, honest about the test split, and loud where numbers break."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch
from catalogue import assert_near, assert_same, quick_first
from runs import DIGITS, assert_same_run, few, json_of, loading, rows, same_weights, tiny, training

from snn_bp import (
    ALIF,
    LI,
    LIF,
    BatchNorm,
    Conv,
    CountCrossEntropy,
    CubaLIF,
    CutMix,
    Data,
    Dense,
    Dropout,
    EventDrop,
    Experiment,
    FirstSpike,
    Flatten,
    MaxCrossEntropy,
    Network,
    NoiseEvents,
    RateBounds,
    Recurrent,
    Run,
    SnnError,
    Spiking,
    Train,
    resume,
    train,
)  # fmt: skip
from snn_bp.model.finite import first_nonfinite
from snn_bp.model.start import start_alive
from snn_bp.trainer.loop import Stopped, learning_rate, make_optimizer, train_step
from snn_bp.trainer.optimizer import explain_nonfinite
from snn_bp.trainer.progress import Progress

few_digits, finished = runs.few_digits, runs.finished
pytestmark = pytest.mark.usefixtures("few_digits")

EVERYTHING = Experiment(
    data=replace(DIGITS, steps=4, translate_px=1, augment=(EventDrop(0.3), CutMix(), NoiseEvents(1))),
    model=(
        *(Conv(2, 5, stride=3), BatchNorm(), Spiking(ALIF(beta=0.7, rho=0.9, kappa=0.2), learn=("beta", "kappa"))),
        *(Flatten(), Dropout(0.2), Dense(8), Recurrent(LIF(beta=0.7), learn=("threshold",), bias=True)),
        *(Dense(10), CubaLIF(alpha=0.3, beta=0.7)),
    ),
    train=Train(
        epochs=2, lr=0.05, optimizer="sgd", momentum=0.8, schedule="step", step_epochs=1, truncate=3,
        rates=RateBounds(lower=0.05, upper=0.2),
    ),
    seed=3,
)  # fmt: skip
RESUMABLE = {
    "plain": tiny(),
    "everything": EVERYTHING,
    "bfloat16": tiny(autocast="bfloat16", optimizer="adam", schedule="constant"),
}
STEPS = 10  # of the experiments above: 150 recordings, batches of 32, 2 epochs
POSITIONS = random.Random(5).sample(range(1, STEPS), 2)  # of stops


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[str], Run]:
    """The runs of `RESUMABLE` without interruption, each made once."""
    made: dict[str, Run] = {}

    def get(name: str) -> Run:
        if name not in made:
            made[name] = train(RESUMABLE[name], tmp_path_factory.mktemp(name) / "whole", quiet=True)
        return made[name]

    return get


def breaking(monkeypatch: pytest.MonkeyPatch, *, after: int, how: Callable[[], None]) -> None:
    """Let training call `how` in place of the step behind the first `after` ones."""
    count = 0

    def step(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == after + 1:
            how()
        return train_step(*arguments)

    monkeypatch.setattr(training, "train_step", step)


def kill() -> None:
    raise InterruptedError("killed")


# Same in, same out


def test_the_same_seed_gives_the_same_run_bit_for_bit(finished, tmp_path):
    assert_same_run(train(tiny(), tmp_path / "again", quiet=True), finished)


def test_another_seed_gives_other_weights(finished, tmp_path):
    other = train(tiny(seed=1), tmp_path / "other", quiet=True)

    assert not same_weights(other.load("last").weights, finished.load("last").weights)


def test_what_others_drew_before_changes_nothing(finished, tmp_path):
    torch.manual_seed(77)
    np.random.seed(77)
    random.seed(77)

    assert_same_run(train(tiny(), tmp_path / "again", quiet=True), finished)


@pytest.mark.slow
def test_training_leaves_random_state_and_signal_handlers_as_they_were(tmp_path, monkeypatch):
    def state() -> tuple[Any, ...]:
        numpy = np.random.get_state()
        handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
        return torch.random.get_rng_state().tolist(), random.getstate(), numpy[1].tolist(), numpy[2:], handlers

    before = state()
    train(EVERYTHING, tmp_path / "whole", quiet=True)
    assert state() == before

    breaking(monkeypatch, after=3, how=kill)
    with pytest.raises(InterruptedError):
        train(EVERYTHING, tmp_path / "broken", quiet=True)
    assert state() == before


def test_training_works_outside_the_main_thread(finished, tmp_path):
    thread = threading.Thread(target=lambda: train(tiny(), tmp_path / "run", quiet=True))
    thread.start()
    thread.join()

    assert_same_run(Run(tmp_path / "run"), finished)


def test_a_network_learns(finished):
    losses = [float(row["train_loss"]) for row in rows(finished)]

    assert losses[1] < 0.9 * losses[0]


# Resume


@pytest.mark.parametrize("name", RESUMABLE)
@pytest.mark.parametrize("after", quick_first(POSITIONS, POSITIONS[0]))
def test_a_run_killed_and_resumed_ends_as_one_left_alone(name, after, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        breaking(patch, after=after, how=kill)
        train(RESUMABLE[name], tmp_path / "run", quiet=True, save_seconds=0)

    resumed = resume(tmp_path / "run", quiet=True)

    assert_same_run(resumed, whole(name))


def test_a_run_killed_before_its_first_checkpoint_starts_over(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        breaking(patch, after=2, how=kill)
        train(tiny(), tmp_path / "run", quiet=True)

    assert_same_run(resume(tmp_path / "run", quiet=True), whole("plain"))


def test_a_run_killed_again_and_again_ends_the_same(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        breaking(patch, after=1, how=kill)
        train(EVERYTHING, tmp_path / "run", quiet=True, save_seconds=0)
    for _ in range(3):
        with monkeypatch.context() as patch, pytest.raises(InterruptedError):
            breaking(patch, after=2, how=kill)
            resume(tmp_path / "run", quiet=True, save_seconds=0)

    assert_same_run(resume(tmp_path / "run", quiet=True), whole("everything"))


def test_a_run_killed_while_it_evaluates_the_test_split_still_finishes(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(training, "end_run", lambda *arguments: kill())
        train(tiny(), tmp_path / "run", quiet=True)

    assert Run(tmp_path / "run").results() is None
    assert_same_run(resume(tmp_path / "run", quiet=True), whole("plain"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", [2, 4])  # within an epoch, and in its last batch
def test_a_signal_stops_after_the_batch_and_loses_nothing(signum, after, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Stopped, match="snn-bp resume") as stopped:
        breaking(patch, after=after, how=lambda: os.kill(os.getpid(), signum))
        train(EVERYTHING, tmp_path / "run", quiet=True)

    checkpoint = Run(tmp_path / "run").load("last")
    assert stopped.value.signum == signum
    assert checkpoint.epoch * STEPS // 2 + checkpoint.batch == after + 1
    assert_same_run(resume(tmp_path / "run", quiet=True), whole("everything"))


def test_a_signal_in_the_last_batch_of_all_lets_the_run_finish(whole, tmp_path, monkeypatch):
    breaking(monkeypatch, after=STEPS - 1, how=lambda: os.kill(os.getpid(), signal.SIGTERM))

    assert_same_run(train(tiny(), tmp_path / "run", quiet=True), whole("plain"))


def test_a_second_signal_ends_at_once(tmp_path, monkeypatch):
    def twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    breaking(monkeypatch, after=2, how=twice)

    with pytest.raises(KeyboardInterrupt):
        train(tiny(), tmp_path / "run", quiet=True)


def test_resuming_a_finished_run_changes_no_file(finished):
    files = {file: file.read_bytes() for file in finished.path.rglob("*") if file.is_file()}

    resume(finished.path, quiet=True)

    assert {file: file.read_bytes() for file in finished.path.rglob("*") if file.is_file()} == files


@pytest.mark.parametrize("name", ("metrics.csv", "layers.jsonl"))
def test_a_finished_run_whose_rows_were_altered_says_so(name, finished, tmp_path):
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    whole = (run.path / name).read_bytes()
    for content in (b"x", whole + b"more\n", None):
        (run.path / name).unlink()
        if content is not None:
            (run.path / name).write_bytes(content)
        with pytest.raises(SnnError, match=f"{name}: it"):
            resume(run.path, quiet=True)


def test_changed_recordings_stop_a_run_and_the_first_one_is_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        breaking(patch, after=3, how=kill)
        train(tiny(), tmp_path / "run", quiet=True, save_seconds=0)
    before = {
        file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.name != "log.txt" and file.is_file()
    }

    def otherwise(data: Data, *, quiet: bool = False) -> Any:
        dataset = few(data, quiet=quiet)
        stored = dataset.parts["train"]
        hashes = stored.hashes.copy()
        hashes[7] = "0" * 64 if hashes.dtype.kind in "US" else ~hashes[7]
        return replace(dataset, parts=dataset.parts | {"train": replace(stored, sha256="0" * 64, hashes=hashes)})

    with loading(otherwise), pytest.raises(SnnError, match=r"recording 7.*changed in its events.*--restart"):
        resume(tmp_path / "run", quiet=True)
    with loading(otherwise), pytest.warns(UserWarning, match=r"not those it was trained on: .*recording 7"):
        Run(tmp_path / "run").dataset()

    assert {file: file.read_bytes() for file in before} == before


def test_a_run_goes_on_beside_a_pipe_that_was_closed(tmp_path, monkeypatch, whole):
    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError(32, "Broken pipe")

        def flush(self) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.stdout", Closed())
    run = train(tiny(), tmp_path / "run")
    monkeypatch.undo()

    log = (run.path / "log.txt").read_text()
    assert log.count("nothing can be printed any more") == 1 and "epoch   2/2" in log
    with loading(few):
        assert_same_run(run, whole("plain"))


def test_a_hangup_saves_and_one_that_is_ignored_stays_so(tmp_path, monkeypatch, whole):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # else nothing is heard of it under nohup
    try:
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            breaking(patch, after=2, how=lambda: os.kill(os.getpid(), signal.SIGHUP))
            train(tiny(), tmp_path / "run", quiet=True)
        assert_same_run(resume(tmp_path / "run", quiet=True), whole("plain"))

        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        breaking(monkeypatch, after=2, how=lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert_same_run(train(tiny(), tmp_path / "other", quiet=True), whole("plain"))
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("moment", ("rows", "best", "last"))
def test_a_kill_at_the_end_of_the_last_epoch_loses_no_row(moment, tmp_path, monkeypatch, whole):
    name = {"rows": "add_rows", "best": "save_best", "last": "save"}[moment]
    real, calls = getattr(Run, name), 0

    def dying(run: Run, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        real(run, *arguments)
        epochs = {"rows": calls, "best": calls, "last": calls - 1}[moment]  # the first save is of the start
        if epochs == 2:
            raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(Run, name, dying)
        train(RESUMABLE["plain"], tmp_path / "run", quiet=True)

    assert_same_run(resume(tmp_path / "run", quiet=True), whole("plain"))


def test_a_run_that_goes_on_elsewhere_says_so_in_its_provenance(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        breaking(patch, after=3, how=kill)
        train(tiny(), tmp_path / "run", quiet=True, save_seconds=0)
    file = tmp_path / "run" / "provenance.json"
    recorded = json_of(file)
    recorded["versions"]["snn_bp"] = "0.0.1"
    file.write_text(json.dumps(recorded))

    resume(tmp_path / "run", quiet=True)

    after = json_of(file)
    assert {**after, "resumed": None} == {**recorded, "resumed": None}
    assert [entry["versions"]["snn_bp"] != "0.0.1" for entry in after["resumed"]] == [True]
    (tmp_path / "run" / "experiment.json").write_text('{"is": "Experiment", "novelty": 3}')
    with pytest.raises(SnnError, match=r"made by snn_bp 0\.0\.1, this is "):
        Run(tmp_path / "run")


def test_a_checkpoint_that_does_not_fit_the_network_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        breaking(patch, after=3, how=kill)
        train(tiny(), tmp_path / "run", quiet=True, save_seconds=0)
    run = Run(tmp_path / "run")
    checkpoint = run.load("last")
    checkpoint.weights["layers.1.weight"] = torch.zeros(3, 3)
    run.save(checkpoint)

    with pytest.raises(SnnError, match="does not fit") as refusal:
        resume(run.path, quiet=True)
    assert "\n" not in str(refusal.value)


# Truncated backpropagation

MODEL = (Dense(6), LIF(beta=0.8), Dense(5), Recurrent(ALIF(beta=0.9, rho=0.8, kappa=0.2)), Dense(4), LIF(beta=0.9))


def gradients(x: torch.Tensor, how: Train) -> dict[str, torch.Tensor]:
    """The gradients of one training step that moves nothing."""
    network = Network(MODEL, (3,), surrogate=how.surrogate)
    train_step(network, make_optimizer(network, how), x, torch.arange(x.shape[1]) % 4, how)
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


STILL = Train(optimizer="sgd", momentum=0, lr=1e-30, weight_decay=0, clip=None)


@pytest.mark.parametrize("truncate", [11, 12, 1000])
def test_truncating_at_the_length_or_above_is_full_backpropagation(truncate, noise):
    x = noise(11, 5, 3, scale=3)

    full, cut = gradients(x, STILL), gradients(x, replace(STILL, truncate=truncate))

    assert_same(**{name.replace(".", "_"): (cut[name], full[name]) for name in full})


@pytest.mark.parametrize("truncate", [1, 4])
def test_truncating_carries_the_state_and_cuts_its_gradient(truncate, noise):
    x, targets = noise(11, 5, 3, scale=3), torch.arange(5) % 4
    network = Network(MODEL, (3,))
    total, state = torch.zeros(()), None
    for first in range(0, 11, truncate):  # one graph for all pieces, its states cut by hand
        piece = x[first : first + truncate]
        out, state = network.run(piece, state)
        state = tuple(type(part)(*(p if p is None else p.detach() for p in part)) for part in state)
        total = total + torch.nn.functional.cross_entropy(out.sum(0), targets) * len(piece) / 11
    total.backward()
    by_hand = {name: weight.grad for name, weight in network.named_parameters()}

    cut, full = gradients(x, replace(STILL, truncate=truncate)), gradients(x, STILL)

    # the pieces are added up in another order: a few roundings of 6e-8
    assert_near(share=1e-5, **{name.replace(".", "_"): (cut[name], by_hand[name]) for name in cut})
    assert any(not torch.equal(cut[name], full[name]) for name in full)


def test_truncating_changes_no_spike(noise):
    network = Network(MODEL, (3,))
    x = noise(11, 5, 3, scale=3)

    steps = [
        train_step(network, make_optimizer(network, STILL), x, torch.arange(5) % 4, replace(STILL, truncate=k))
        for k in (None, 1, 4)
    ]

    assert len({(step.correct, step.samples) for step in steps}) == 1
    assert steps[1].spike_rate > 0


# The optimizer


def test_constant_rates_stay_and_warmup_climbs_linearly():
    how = Train(lr=2.0, schedule="constant", warmup=0.25)

    rates = [learning_rate(how, step=step, steps=16, batches=4) for step in range(16)]

    assert rates == [0.5, 1.0, 1.5, *[2.0] * 13]
    assert learning_rate(replace(how, warmup=0), step=0, steps=16, batches=4) == 2.0
    assert learning_rate(replace(how, warmup=1), step=15, steps=16, batches=4) == 2.0


def test_cosine_rates_start_high_are_half_at_the_middle_and_end_near_zero():
    how = Train(lr=2.0, schedule="cosine", warmup=0.2)

    rates = [learning_rate(how, step=step, steps=100, batches=10) for step in range(100)]

    assert rates[19] == rates[20] == 2.0 and rates[60] == pytest.approx(1.0)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[99] < 2.0 * (math.pi / 80) ** 2  # 1 - cos is below the square
    assert rates[40] + rates[80] == pytest.approx(2.0)  # symmetric about the middle


def test_step_rates_fall_every_so_many_epochs():
    how = Train(lr=2.0, schedule="step", step_epochs=3, step_factor=0.5, warmup=0)

    rates = [learning_rate(how, step=step, steps=40, batches=4) for step in range(40)]

    assert rates == [2.0] * 12 + [1.0] * 12 + [0.5] * 12 + [0.25] * 4


def test_clipping_bounds_the_norm_and_keeps_the_direction(noise):
    x = noise(11, 5, 3, scale=3)

    free, clipped = gradients(x, STILL), gradients(x, replace(STILL, clip=0.01))

    def norm(parts: dict[str, torch.Tensor]) -> float:
        return math.sqrt(sum(float(part.double().square().sum()) for part in parts.values()))

    assert norm(free) > 0.01 and norm(clipped) == pytest.approx(0.01, rel=1e-3)
    share = 0.01 / norm(free)
    assert_near(share=1e-3, **{name.replace(".", "_"): (clipped[name], share * free[name]) for name in free})
    assert_same(**{n.replace(".", "_"): (g, free[n]) for n, g in gradients(x, replace(STILL, clip=1e3)).items()})


@pytest.mark.parametrize("name, kind", [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_a_bare_optimizer_moves_weights_as_torchs_own(name, kind, noise):
    moved = []
    for make in (lambda net: make_optimizer(net, Train(optimizer=name, lr=0.1, weight_decay=0)), own(kind)):
        network = Network((Dense(3), LIF(beta=0.5)), (4,))
        optimizer = make(network)
        for seed in range(3):
            optimizer.zero_grad()
            network(noise(5, 2, 4, seed=seed)).square().sum().backward()
            optimizer.step()
        moved.append(network.layers[0].weight.detach().clone())

    assert torch.equal(*moved)
    assert not torch.equal(moved[0], Network((Dense(3), LIF(beta=0.5)), (4,)).layers[0].weight)


def own(kind):
    return lambda network: kind(network.parameters(), lr=0.1, weight_decay=0, fused=True)


@pytest.mark.slow
def test_a_step_leaves_torchs_compiler_alone():
    program = (
        "import sys, torch; from snn_bp import *; from snn_bp.trainer.loop import *;"
        "n = Network((Dense(2), LIF(beta=0.5)), (3,)); o = make_optimizer(n, Train());"
        "train_step(n, o, torch.ones(4, 2, 3), torch.tensor([0, 1]), Train());"
        "o.load_state_dict(o.state_dict()); print('torch._dynamo' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_only_synaptic_weights_decay(optimizer):
    model = (
        *(Conv(2, 3), BatchNorm(), Spiking(LIF(beta=0.7), learn=("beta", "threshold")), Flatten(), Dense(4)),
        *(Recurrent(LIF(beta=0.7), learn=("beta",), bias=True), Dense(3)),
    )
    network = Network(model, (1, 5, 5))

    groups = make_optimizer(network, Train(optimizer=optimizer, weight_decay=0.3)).param_groups

    decay = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
    decaying = {name for name, weight in network.named_parameters() if decay.pop(id(weight)) == 0.3}
    assert decaying == {"layers.0.weight", "layers.4.weight", "layers.5.recurrence.weight", "layers.6.weight"}
    assert not decay  # nothing else, nothing twice


def test_decay_alone_shrinks_weights_by_its_closed_form():
    network = Network((Dense(3), LIF(beta=0.5)), (2,))
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    how = Train(optimizer="adamw", lr=0.1, weight_decay=0.5)

    train_step(network, make_optimizer(network, how), torch.zeros(3, 2, 2), torch.tensor([0, 1]), how)

    weight = dict(network.named_parameters())["layers.0.weight"]
    assert_near(share=1e-6, weight=(weight, before["layers.0.weight"] * (1 - 0.1 * 0.5)))


# Numbers that break


def breaks(experiment: Experiment, out: Path) -> str:
    """Train, and give the message in which it ended."""
    with pytest.raises(SnnError) as refusal:
        train(experiment, out, quiet=True)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_nan_in_the_input_is_named_with_its_time_step(tmp_path):
    def load_broken(data: Data, *, quiet: bool = False) -> Any:
        dataset = few(data, quiet=quiet)
        real = dataset.batch

        def batch(split: str, ids: Any, *, seed: int | None = None, in_bytes: bool = False) -> Any:
            x, targets = real(split, ids, seed=seed)
            if seed is not None:
                x[2, 0] = math.nan
            return x, targets

        object.__setattr__(dataset, "batch", batch)
        return dataset

    with loading(load_broken):
        message = breaks(tiny(), tmp_path / "run")

    assert "epoch 1, batch 1" in message and "the input, at time step 2" in message


def test_a_nan_in_a_weight_names_the_layer_and_moves_nothing(noise):
    network = Network(MODEL, (3,))
    with torch.no_grad():
        network.layers[2].weight[1, 1] = math.inf
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    x, how = noise(4, 5, 3, scale=3), Train()

    step = train_step(network, make_optimizer(network, how), x, torch.arange(5) % 4, how)
    message = explain_nonfinite(step, network, x, epoch=3, batch=7)

    assert "epoch 3, batch 7" in message and f"the weight of {network.name(2)}" in message
    assert same_weights(network.state_dict(), before)


def test_an_output_that_overflows_names_its_layer_and_time_step():
    network = Network(MODEL, (3,))
    x = torch.zeros(4, 2, 3)
    x[3] = 3e38
    with torch.no_grad():
        network.layers[0].weight.fill_(1.0)

    assert f"the output of {network.name(0)}, at time step 3" in str(first_nonfinite(network, x))


def test_a_nan_in_a_gradient_names_its_weights_alone_and_moves_nothing(noise):
    network = Network(MODEL, (3,))
    network.layers[2].weight.register_hook(lambda grad: grad * math.nan)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    x, how = noise(4, 5, 3, scale=3), Train()

    step = train_step(network, make_optimizer(network, how), x, torch.arange(5) % 4, how)
    message = explain_nonfinite(step, network, x, epoch=1, batch=1)

    assert "the gradient of layers.2.weight." in message
    assert same_weights(network.state_dict(), before)


def test_a_run_that_breaks_keeps_its_last_good_checkpoint(tmp_path, monkeypatch):
    def poison(network: Network, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        step = train_step(network, *arguments)
        return step._replace(loss=math.nan) if count == 4 else step

    count = 0
    monkeypatch.setattr(training, "train_step", poison)

    with pytest.raises(SnnError, match="epoch 1, batch 4: loss nan"):
        train(tiny(), tmp_path / "run", quiet=True, save_seconds=0)
    checkpoint = Run(tmp_path / "run").load("last")
    assert checkpoint.batch == 3 and all(weight.isfinite().all() for weight in checkpoint.weights.values())
    assert " ended: epoch 1, batch 4: loss nan" in (tmp_path / "run" / "log.txt").read_text().splitlines()[-1]


def test_of_several_processes_the_first_alone_writes_into_the_log(finished, tmp_path, monkeypatch):
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    before = (run.path / "log.txt").read_bytes()
    monkeypatch.setenv("RANK", "1")
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)

    Progress(run, quiet=True).say("what all of them say")

    assert (run.path / "log.txt").read_bytes() == before


# The splits


def test_the_test_split_is_seen_once_and_at_the_end(tmp_path):
    asked: list[tuple[str, list[int], int | None]] = []

    def load_watched(data: Data, *, quiet: bool = False) -> Any:
        dataset = few(data, quiet=quiet)
        real = dataset.batch

        def batch(split: str, ids: Any, *, seed: int | None = None, in_bytes: bool = False) -> Any:
            asked.append((split, list(ids), seed))
            return real(split, ids, seed=seed, in_bytes=in_bytes)

        object.__setattr__(dataset, "batch", batch)
        return dataset

    with loading(load_watched):
        run = train(tiny(), tmp_path / "run", quiet=True)

    splits = [split for split, _, _ in asked]
    first = splits.index("test")
    assert set(splits[first:]) == {"test"}
    ids = few(DIGITS).ids
    assert sorted(i for split, part, _ in asked if split == "test" for i in part) == sorted(ids["test"])
    trained = [i for split, part, seed in asked if split == "train" and seed is not None for i in part]
    assert sorted(trained) == sorted([*ids["train"], *ids["train"]])  # every recording once in each of two epochs
    assert {seed for split, _, seed in asked if split != "train"} == {None}  # only training is random
    assert run.results()["test"]["samples"] == len(ids["test"])  # type: ignore[index]


def test_the_order_and_the_draws_of_each_epoch_are_new(tmp_path):
    seeds, orders = [], []

    def load_watched(data: Data, *, quiet: bool = False) -> Any:
        dataset = few(data, quiet=quiet)
        real = dataset.batch

        def batch(split: str, ids: Any, *, seed: int | None = None, in_bytes: bool = False) -> Any:
            if seed is not None:
                seeds.append(seed)
                orders.append(tuple(ids))
            return real(split, ids, seed=seed, in_bytes=in_bytes)

        object.__setattr__(dataset, "batch", batch)
        return dataset

    with loading(load_watched):
        train(tiny(), tmp_path / "run", quiet=True)

    assert len(set(seeds)) == STEPS and orders[:5] != orders[5:]


def test_without_a_validation_split_the_best_epoch_is_the_last(tmp_path):
    run = train(tiny(data=replace(DIGITS, validation_fraction=0)), tmp_path / "run", quiet=True)

    results = run.results()
    assert results is not None and results["best_epoch"] == 2 and "validation" not in results
    assert same_weights(run.load("best").weights, run.load("last").weights)
    assert {row["validation_loss"] for row in rows(run)} == {""}


def test_best_is_the_highest_accuracy_then_the_later_epoch():
    def at(*accuracies: float) -> bool:
        return training.is_best([{"validation_accuracy": accuracy} for accuracy in accuracies])

    assert at(0.5) and at(0.5, 0.6) and at(0.5, 0.5)
    assert not at(0.5, 0.4) and not at(0.7, 0.5, 0.6)


def test_keep_last_evaluates_the_last_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "is_best", lambda rows, *rest: len(rows) == 1)

    best = train(tiny(), tmp_path / "best", quiet=True).results()
    last = train(tiny(keep="last"), tmp_path / "last", quiet=True).results()

    assert best and last and (best["best_epoch"], last["best_epoch"]) == (1, 2)


# Kinds of training


def test_bfloat16_learns_with_weights_in_full_precision(whole):
    run = whole("bfloat16")

    losses = [float(row["train_loss"]) for row in rows(run)]
    assert losses[1] < 0.9 * losses[0]
    assert {weight.dtype for weight in run.load("last").weights.values()} == {torch.float32, torch.int64}


def test_bounds_pull_the_rates_inside(noise):
    x, targets = noise(12, 16, 3, scale=3), torch.arange(16) % 4

    def rate(bounds: RateBounds | None) -> float:
        network, how = Network(MODEL, (3,)), Train(rates=bounds, lr=0.02, schedule="constant")
        start_alive(network, x)
        optimizer = make_optimizer(network, how)
        return [train_step(network, optimizer, x, targets, how) for _ in range(30)][-1].spike_rate

    low, free, high = rate(RateBounds(upper=0.02, strength=30)), rate(None), rate(RateBounds(lower=0.6, strength=30))

    assert low < 0.7 * free and high > 1.3 * free


def test_a_silent_layer_is_warned_of(tmp_path, capsys):
    model = (Flatten(), Dense(4), BatchNorm(), LIF(beta=0.5, threshold=1e4), Dense(10), LIF(beta=0.5))

    train(Experiment(DIGITS, model, Train(epochs=1)), tmp_path / "run")

    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("doctor:")]
    assert (
        sum("model.3 LIF(beta=0.5, threshold=10000): silent" in line for line in said) == 1
    )  # once, before the first epoch


def test_layers_that_fire_are_not_warned_of(finished):
    assert "warning" not in (finished.path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": (Flatten(), Dense(9), LIF(beta=0.5))}, r"shape \[9\].*10 classes.*Dense\(10\)"),
        ({"model": (Conv(10, 3), LIF(beta=0.5))}, "10 classes"),
        ({"model": ()}, "model is empty"),
        ({"model": (Dense(10), LIF(beta=0.5))}, "Flatten"),
        ({"model": (Flatten(), Dense(10), LIF(beta=(0.5, 0.6)))}, "one for each neuron"),
        ({"train": Train(device="nowhere")}, "train.device"),
        ({"train": Train(device="cuda:99")}, "train.device"),
        ({"train": Train(device="meta")}, "train.device"),
        ({"train": Train(rates=RateBounds(lower=(0.1, 0.1)))}, "RateBounds"),
        ({"train": Train(rates=RateBounds(lower=(0.1, 0.1, 0.1)))}, "RateBounds"),
        ({"train": Train(memory="low")}, "train.memory.*BatchNorm"),
        ({"data": replace(DIGITS, steps=1, batch=1)}, "spread of one value"),
        ({"data": replace(DIGITS, transforms=(lambda events: events,))}, "transform"),
        (
            {"model": (Flatten(), Dense(10), LI(beta=0.5)), "train": Train(loss=FirstSpike())},
            r"FirstSpike.*needs neurons that spike, and the last layer \(LI\) does not",
        ),
        ({"train": Train(loss=MaxCrossEntropy())}, r"MaxCrossEntropy.*the last layer \(LIF\) gives spikes"),
    ],
)
def test_an_experiment_that_cannot_run_is_refused_and_leaves_no_folder(change, told, tmp_path):
    with pytest.raises(SnnError, match=told):
        train(replace(tiny(), **change), tmp_path / "run", quiet=True)

    assert not (tmp_path / "run").exists()


def test_tonic_transforms_train_and_resume(tmp_path, monkeypatch):
    import tonic.transforms  # slow to import

    drop = tonic.transforms.DropEvent(p=0.5)
    experiment = tiny(data=replace(DIGITS, transforms=(drop,), batch=50), epochs=1)
    with loading(lambda data, *, quiet=False: _fewer(few(data, quiet=quiet))):
        whole = train(experiment, tmp_path / "whole", quiet=True)
        with monkeypatch.context() as patch, pytest.raises(InterruptedError):
            breaking(patch, after=1, how=kill)
            train(experiment, tmp_path / "run", quiet=True, save_seconds=0)
        resumed = resume(tmp_path / "run", quiet=True)

        assert_same_run(resumed, whole)
    assert json_of(whole.path / "experiment.json")["data"]["transforms"] == [{"name": "DropEvent", "p": 0.5}]


def test_low_memory_trains_the_same_weights(tmp_path):
    model = (Flatten(), Dense(12), Recurrent(LIF(beta=0.7)), Dense(10), LIF(beta=0.7))
    runs_of = [
        train(replace(tiny(memory=memory, truncate=3), model=model), tmp_path / memory, quiet=True)
        for memory in ("full", "low")
    ]

    full, low = (run.network("last").state_dict() for run in runs_of)

    assert all(torch.equal(full[name], low[name]) for name in full)


def _fewer(dataset: Any) -> Any:
    return replace(dataset, ids={split: ids[: len(ids) // 2] for split, ids in dataset.ids.items()})


def test_the_loss_of_a_step_is_the_mean_over_its_samples(noise):
    network = Network(MODEL, (3,))
    x, targets = noise(6, 5, 3, scale=3), torch.arange(5) % 4
    wanted = CountCrossEntropy()(network(x), targets)

    step = train_step(network, make_optimizer(network, STILL), x, targets, STILL)

    assert step.loss == pytest.approx(wanted.item()) and step.samples == 5
