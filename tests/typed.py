"""A program of a user's, for the type checker alone: every public name it uses has the type that it says."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import assert_type

from snn_bp import (
    LIF,
    PLIF,
    CountCrossEntropy,
    Data,
    Dense,
    Experiment,
    Network,
    Run,
    Search,
    Spiking,
    State,
    Tau,
    Train,
    detach,
    evaluate,
    exp,
    neuron,
    rest,
    resume,
    search,
    simulate,
    spike,
    start_alive,
    train,
    where,
)

experiment = Experiment(data=Data("digits"), model=(Dense(10), LIF(beta=Tau(20))), train=Train(epochs=2), seed=1)
assert_type(experiment.train.keep, Literal["best", "last"])
assert_type(train(experiment, Path("runs/a"), quiet=True), Run)
run = resume("runs/a", restart=True)
assert_type(run.results(), dict[str, Any] | None)
assert_type(run.network("last"), Network)
x, targets = run.batch("validation")
assert_type(x, Tensor)
assert_type(evaluate(run).accuracy, float | None)
assert_type(search(experiment, method="es", budget=1000), Search)

lif = LIF(beta=0.9, reset="zero")
spikes, state = simulate(lif, torch.rand(10, 2, 5))
assert_type(spikes, Tensor)
assert_type(state, State)
assert_type(rest(lif, (2, 5), like=spikes), State)


@neuron(decays=("beta",), positive=("threshold",))
def Own(v, w, s, x, *, beta=Tau(20), a: float = 0.1, threshold=1.0, reset: Literal["zero", "none"] = "zero"):
    """A neuron of the user's."""
    v = beta * v * (1 - detach(s)) + x - w if reset == "zero" else beta * v + exp(-abs(x))
    w = where(v > threshold, a * v, w)
    return v, w, spike(v - threshold, threshold)


@neuron
def Bare(v, x, *, beta=0.9):
    """Without options."""
    v = beta * v + x
    return v, v


assert_type(simulate(Own(beta=0.9, a=(0.1, 0.2)), torch.rand(10, 2, 2))[0], Tensor)
network = Network((Dense(10), lif, Spiking(PLIF(beta=0.5), learn=("beta",)), Own(), Bare()), (5,), seed=0)
start_alive(network, x)
assert_type(CountCrossEntropy()(network(x), targets), Tensor)
