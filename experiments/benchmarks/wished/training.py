"""Twenty wishes of training."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from forked import fork
from torch import Tensor, nn

from snn_bp import (
    LI,
    LIF,
    TET,
    BatchNorm,
    CountCrossEntropy,
    Data,
    Dataset,
    Dense,
    Experiment,
    Flatten,
    MembraneCrossEntropy,
    Patience,
    RateBounds,
    Run,
    Start,
    Targets,
    Train,
    finish,
    resume,
    train,
    training,
)  # fmt: skip
from wished.wish import BARS, OUT, SPIKING, Bars, Wish, wish

POTENTIALS = (Flatten(), Dense(12), BatchNorm(), LIF(beta=0.8, reset="zero"), Dense(3), LI(beta=0.8))
TRAIN = Train(epochs=2, lr=5e-3)


@dataclass(frozen=True)
class Temporal:
    """Cross entropy at every step and a pull of potentials towards 1 (TET, Deng et al. 2022), written anew."""

    weight: float = 0.05

    def scores(self, out: Tensor) -> Tensor:
        """The mean potential."""
        return out.mean(0)

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch."""
        each = F.cross_entropy(out.flatten(0, 1), targets.repeat(len(out)))
        return (1 - self.weight) * each + self.weight * F.mse_loss(out, torch.ones_like(out))


@dataclass(frozen=True)
class PotentialToTarget:
    """Mean squared distance of the last potential from 1 for the class, 0 for the others."""

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch."""
        return F.mse_loss(out[-1], F.one_hot(targets, out.shape[-1]).to(out.dtype))


@dataclass(frozen=True)
class Quiet:
    """A regulariser of one's own, as a layer: what passes costs `weight` for each unit of its size."""

    weight: float = 1e-3

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """The module."""
        return Costs(self.weight)


class Costs(nn.Module):
    """Hands its input on, and in training adds the penalty's gradient to the error that comes back."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight_of_penalty = weight

    def forward(self, x: Tensor) -> Tensor:
        """Each value as it is."""
        return Penalty.apply(x, self.weight_of_penalty) if self.training else x


class Penalty(torch.autograd.Function):
    """The identity, whose gradient has that of `weight * |x|` on top."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:  # type: ignore[override]
        """The same."""
        ctx.save_for_backward(x)
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Error and penalty."""
        (x,) = ctx.saved_tensors
        return error + ctx.weight * x.sign(), None


@dataclass(frozen=True)
class WorstClass:
    """A metric of one's own: the accuracy on the class that is known worst."""

    name: ClassVar[str] = "worst_class"
    higher_is_better: ClassVar[bool] = True

    def __call__(self, scores: Tensor, targets: Tensor, mask: Tensor | None) -> float:
        """The figure of a split."""
        right = scores.argmax(1) == targets
        return min(float(right[targets == each].float().mean()) for each in targets.unique())


@dataclass(frozen=True)
class Distilled:
    """Kullback-Leibler divergence of a teacher's answers, softened by `temperature`."""

    temperature: float = 2.0

    def scores(self, out: Tensor) -> Tensor:
        """The mean potential."""
        return out.mean(0)

    def __call__(self, out: Tensor, targets: Tensor) -> Tensor:
        """Targets are the teacher's scores `[batch, classes]`."""
        mine, theirs = (F.log_softmax(each / self.temperature, 1) for each in (out.mean(0), targets.to(out.dtype)))
        return F.kl_div(mine, theirs, log_target=True, reduction="batchmean") * self.temperature**2


@dataclass(frozen=True)
class Taught:
    """Bars, and as targets what a teacher's run says of them, which lies in `scores.npy` of `folder`."""

    folder: str
    step_ms = 5
    targets = Targets("vector", Bars.class_names)

    def frames(self, part: str) -> Any:
        """The frames of a part, and the teacher's scores."""
        return Bars().frames(part)[0], np.load(Path(self.folder, f"{part}.npy"))


@dataclass(frozen=True)
class Uneven:
    """Bars of which few stand."""

    step_ms = 5
    class_names = Bars.class_names

    def frames(self, part: str) -> Any:
        """The frames of a part, and classes."""
        x, labels = Bars(recordings=90).frames(part)
        kept = (labels != 1) | (np.arange(len(labels)) % 4 == 0)
        return x[kept], labels[kept]


def began_as(run: Run, other: Path) -> str:
    """Whether provenance names the run whose weights a training began with."""
    return "" if str(other) in (run.path / "provenance.json").read_text() else "provenance does not name the start"


def started(folder: Path) -> Experiment:
    """A run with other classes, on the weights of another but for its readout."""
    if not (folder / "pretrained" / "results.json").exists():
        train(Experiment(BARS, SPIKING, TRAIN), folder / "pretrained", quiet=True)
    return Experiment(BARS, SPIKING, replace(TRAIN, start=Start(str(folder / "pretrained"), but=(4, 5))))


def longer(folder: Path) -> Experiment:
    """Recordings of 6 steps, on the weights of a run on 4."""
    short = Data(Bars(short=True), batch=10)
    if not (folder / "short" / "results.json").exists():
        train(Experiment(short, SPIKING, TRAIN), folder / "short", quiet=True)
    return Experiment(BARS, SPIKING, replace(TRAIN, start=str(folder / "short")))


def distilled(folder: Path) -> Experiment:
    """A small network on the answers of a larger one."""
    if not (folder / "test.npy").exists():
        model = (Flatten(), Dense(32), BatchNorm(), LIF(beta=0.8), Dense(3), LI(beta=0.8))
        teacher = train(Experiment(BARS, model, TRAIN), folder / "teacher", quiet=True)
        network = teacher.network().eval()
        for part in ("train", "test"):
            x = torch.from_numpy(Bars().frames(part)[0]).float().transpose(0, 1)
            with torch.no_grad():
                np.save(folder / f"{part}.npy", network(x).mean(0).numpy())
    return Experiment(Data(Taught(str(folder)), batch=10), POTENTIALS, replace(TRAIN, loss=Distilled()))


def frozen(run: Run) -> str:
    """Whether the frozen layer is as it began."""
    names = [name for name in run.load("last").weights if name.startswith("layers.1.")]
    first = run.experiment.network(run.dataset().shape).state_dict()
    moved = run.load("last").weights
    same = [torch.equal(first[name], moved[name]) for name in names]
    scaled = moved[names[0]] / first[names[0]]
    return "" if all(same) or bool((scaled - scaled.flatten()[0]).abs().max() < 1e-5) else "a frozen layer moved"


def is_stopped(run: Run) -> str:
    """Whether results say that the training was stopped."""
    return "" if (run.results() or {}).get("ended") else "nothing says that it was stopped early"


def logged(experiment: Experiment, folder: Path) -> str:
    """A writer of TensorBoard's kind sees each row."""
    written: list[tuple[str, dict[str, float], int]] = []
    for event in training(experiment, folder / "logged", quiet=True):
        if event.row is not None:
            written.append(("run", event.row, event.epoch))
    return "" if [epoch for *_, epoch in written] == [1, 2] else f"seen: {written}"


def rates_found(experiment: Experiment, folder: Path) -> str:
    """A few steps at each of some rates, and the loss behind them."""
    losses = {}
    for rate in (1e-4, 1e-2, 1.0):
        asked = replace(experiment, train=replace(experiment.train, lr=rate, warmup=0.0, test="never"))
        for event in training(asked, folder / f"rate {rate}", quiet=True):
            losses[rate] = event.step.loss
            if event.batch == 3:
                break
    return "" if len(set(losses.values())) == 3 else f"losses: {losses}"


def pruned(experiment: Experiment, folder: Path) -> str:
    """A trial is left behind its first epoch, says so, and goes on exactly."""
    for event in training(experiment, folder / "pruned", quiet=True):
        if event.row is not None and event.epoch == 1:
            break
    run = finish(Run(folder / "pruned"), why="pruned", quiet=True)
    if (run.results() or {}).get("ended") != "pruned":
        return f"results: {run.results()}"
    for event in training(experiment, folder / "left", quiet=True):
        if event.epoch == 1 and event.batch == 2:
            break
    left, whole = resume(folder / "left", quiet=True), train(experiment, folder / "not left", quiet=True)
    first, second = left.load("last").weights, whole.load("last").weights
    return "" if all(torch.equal(first[name], second[name]) for name in first) else "it went on to other weights"


def preempted(experiment: Experiment, folder: Path) -> str:
    """A job that is told to end by SIGTERM saves, and goes on exactly."""

    def work() -> None:
        for event in training(experiment, folder / "preempted", quiet=True):
            if event.batch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    if fork(work).code == 0:
        return "it trained on behind SIGTERM"
    first = resume(folder / "preempted", quiet=True).load("last").weights
    second = train(experiment, folder / "not preempted", quiet=True).load("last").weights
    return "" if all(torch.equal(first[name], second[name]) for name in first) else "it went on to other weights"


def in_a_loop(work: Callable[[Experiment, Path], str]) -> list[Wish]:
    """A wish that is a loop of one's own around a training."""
    return [replace(wish(), work=work)]


WISHES: dict[str, list[Wish] | str] = {
    "own loss (TET, van Rossum, membrane MSE)": [
        *(wish(*POTENTIALS, loss=Temporal(0.1)), wish(*POTENTIALS, loss=TET(0.1))),
        wish(*POTENTIALS, loss=PotentialToTarget()),
    ],
    "own regulariser": [
        wish(Flatten(), Dense(12), BatchNorm(), LIF(beta=0.8, reset="zero"), Quiet(1e-2), *OUT),
        wish(rates=RateBounds(lower=0.05, upper=0.3)),
    ],
    "label smoothing, class weights": [
        wish(loss=CountCrossEntropy(smoothing=0.1, class_weights=(1.0, 2.0, 0.5))),
        wish(*POTENTIALS, loss=MembraneCrossEntropy(smoothing=0.1)),
    ],
    "rate per layer": [wish(lr_of={1: 0.1, 4: 2.0})],
    "freezing": [wish(freeze=(1,), holds=frozen)],
    "warm start from a run": [Wish(started, holds=lambda run: began_as(run, run.path.parent / "pretrained"))],
    "accumulation": [wish(accumulate=3)],
    "averaged weights (EMA)": [wish(average=0.9)],
    "bfloat16": [wish(autocast="bfloat16")],
    "curriculum in T": [Wish(longer, holds=lambda run: began_as(run, run.path.parent / "short"))],
    "distillation": [Wish(distilled)],
    "samplers, imbalance": [wish(data=Data(Uneven(), batch=10), sampler="balanced")],
    "early stopping": [wish(stop=Patience(1, margin=1.0), epochs=6, holds=is_stopped)],
    "k-fold": [
        Wish(lambda folder: Experiment(pooled(1).data, SPIKING, TRAIN), dataset=lambda: pooled(1)),
        wish(data=Data(Bars(), batch=10, folds=3, fold=2)),
    ],
    "own metrics": [wish(metric=WorstClass())],
    "TensorBoard, W&B": in_a_loop(logged),
    "rate finder": in_a_loop(rates_found),
    "callbacks, pruning of trials": in_a_loop(pruned),
    "job arrays, preemption": in_a_loop(preempted),
    "Lightning": (
        "Network is a torch module: notebooks/13_as_a_library.ipynb trains it in a LightningModule, outside of a run. "
        "Kernels, trace and gradient check stay; run folder, resume, report and export do not."
    ),
}


def pooled(fold: int) -> Dataset:
    """Bars in memory, of which a fold is the test split."""
    x, labels = Bars().frames("train")
    return Dataset.of(train=(x, labels), step_ms=5, batch=10, folds=3, fold=fold)
