"""A program of a user's, for the type checker alone: every public name it uses has the type that it says."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import assert_type

from snn_bp import (
    LIF,
    CountCrossEntropy,
    Data,
    Dense,
    Experiment,
    Network,
    Run,
    Search,
    State,
    Tau,
    Train,
    evaluate,
    rest,
    resume,
    search,
    simulate,
    start_alive,
    train,
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

neuron = LIF(beta=0.9, reset="zero")
spikes, state = simulate(neuron, torch.rand(10, 2, 5))
assert_type(spikes, Tensor)
assert_type(state, State)
assert_type(rest(neuron, (2, 5), like=spikes), State)

network = Network((Dense(10), neuron), (5,), seed=0)
start_alive(network, x)
assert_type(CountCrossEntropy()(network(x), targets), Tensor)
