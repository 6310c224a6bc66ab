"""Calls that a user gets wrong: each is refused by one `SnnError`, in a line that names it and what would work.

What the fields of values refuse is in `test_fields.py`; here are names, missing arguments, types, shapes, dtypes,
devices, numbers that are none, and paths, of every public function and of the methods of what they give.
"""

import dataclasses  # noqa: F401 - as math and nn, for the calls
import math  # noqa: F401

import numpy as np
import pytest
import runs
import torch
from torch import nn  # noqa: F401

import snn_bp  # noqa: F401
from snn_bp import *  # noqa: F403 - all public names, for the calls
from snn_bp import LI, LIF, Data, Dataset, Dense, Experiment, Flatten, Network, SnnError, neuron, spike, surrogate

finished = runs.finished

LEAKY = LIF(beta=0.9, threshold=0.5)
X = torch.rand(6, 2, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1])
ONE = torch.zeros(2, 4)
STEPS = torch.ones(6, 2, dtype=torch.bool)
NET = Network((Dense(5), LIF(beta=0.9), Dense(3), LIF(beta=0.9)), (4,))
READOUT = Network((Dense(5), LIF(beta=0.9), Dense(3), LI(beta=0.9)), (4,))
MODEL = (Flatten(), Dense(10), LIF(beta=0.9))
SET = Dataset.of((np.ones((8, 5, 4), np.float32), np.arange(8) % 2), validation_fraction=0.25)
EXPERIMENT = Experiment(Data("digits"), MODEL)
OUT = torch.rand(6, 2, 3)


def holding(x: torch.Tensor, value: float) -> torch.Tensor:
    """A copy with this value among its numbers."""
    x = x.clone()
    x.view(-1)[-1] = value
    return x


@neuron(decays=("beta",))
def Plain(v, s, x, *, beta, threshold=1.0):
    """A leaky neuron of one's own."""
    v = beta * v * (1 - s) + x
    return v, spike(v - threshold, threshold)


@surrogate
def Cauchy(u, *, slope=2.0, height=1.0):
    """A surrogate of one's own."""
    return height * slope / (1 + (slope * u) ** 2)


# a call, and words that its message has
NAMES = (
    ("LIF(bata=0.9)", "LIF", "'bata'", "'beta'"),
    ("LIF()", "LIF", "'beta' is missing", "threshold"),
    ("LIF(0.9)", "LIF", "0.9", "beta=0.9"),
    ("CubaLIF(beta=0.9)", "CubaLIF", "'alpha' is missing"),
    ("ALIF(beta=0.9, rho=0.9, kapa=1)", "ALIF", "'kapa'", "'kappa'"),
    ("Izhikevich(gian=3)", "Izhikevich", "'gain'"),
    ("Plain(bta=0.9)", "Plain", "'bta'", "'beta'"),
    ("Plain()", "Plain", "'beta' is missing"),
    ("Tau()", "Tau", "'ms' is missing"),
    ("Tau(20, 30)", "Tau", "30"),
    ("decay(20, 1)", "decay", "tau_ms=20"),
    ("decay(tau=20, step_ms=1)", "decay", "'tau'", "'tau_ms'"),
    ("ATan(slop=2)", "ATan", "'slop'", "'slope'"),
    ("ATan(2, 'threshold')", "ATan", "per='threshold'"),
    ("Surrogate('ATan')", "Surrogate", "'slope' is missing"),
    ("Cauchy(hight=2)", "Cauchy", "'hight'", "'height'"),
    ("Cauchy(1.0, 2.0)", "Cauchy", "2.0"),
    ("Dense()", "Dense", "'units' is missing"),
    ("Dense(10, bais=False)", "Dense", "'bais'", "'bias'"),
    ("Dense(10, True)", "Dense", "True", "bias=True"),
    ("Conv(8)", "Conv", "'kernel' is missing"),
    ("Conv(8, 3, strides=2)", "Conv", "'strides'", "'stride'"),
    ("Pool()", "Pool", "'size' is missing"),
    ("Flatten(1)", "Flatten", "1"),
    ("Delay(3, max=5)", "Delay", "'max'", "max_steps"),
    ("Delay(3, most=5)", "Delay", "'most'"),
    ("Spiking()", "Spiking", "'neuron' is missing"),
    ("Spiking(LEAKY, lern=('beta',))", "Spiking", "'lern'", "'learn'"),
    ("Recurrent(LEAKY, dense=0.1)", "Recurrent", "'dense'", "density"),
    ("Residual(Dense(4), combin='add')", "Residual", "'combin'", "'combine'"),
    ("Parallel((), (Dense(3),), how='add')", "Parallel", "'how'", "combine"),
    ("BatchNorm(momentun=0.1)", "BatchNorm", "'momentum'"),
    ("ConvTranspose(8)", "ConvTranspose", "'kernel' is missing"),
    ("Upsample()", "Upsample", "is missing"),
    ("Unflatten()", "Unflatten", "'shape' is missing"),
    ("TemporalConv()", "TemporalConv", "is missing"),
    ("DelayedDense(5, max_step=3)", "DelayedDense", "'max_step'", "'max_steps'"),
    ("Module()", "Module", "'kind' is missing"),
    ("CountCrossEntropy(smooth=0.1)", "CountCrossEntropy", "'smooth'", "'smoothing'"),
    ("RateBounds(low=0.1)", "RateBounds", "'low'", "'lower'"),
    ("F1(treshold=1)", "F1", "'threshold'"),
    ("Accuracy(1)", "Accuracy", "1"),
    ("Delta()", "Delta", "'threshold' is missing"),
    ("Rate(step=3)", "Rate", "'step'", "'steps'"),
    ("Targets('class')", "Targets", "'names' is missing"),
    ("Data('digits', steps_ms=4)", "Data", "'steps_ms'", "'step_ms'"),
    ("Folder('/data')", "Folder", "'sensor' is missing"),
    ("Train(learn_rate=1e-3)", "Train", "'learn_rate'"),
    ("Train(epoch=3)", "Train", "'epoch'", "'epochs'"),
    ("Patience(epoch=3)", "Patience", "'epochs'"),
    ("Start()", "Start", "'run' is missing"),
    ("Experiment(Data('digits'))", "Experiment", "'model' is missing"),
    ("Experiment(Data('digits'), MODEL, Train(), 0, 1)", "Experiment", "1"),
    ("Experiment(Data('digits'), MODEL, lr=1e-3)", "Experiment", "'lr'"),
    ("dataclasses.replace(EXPERIMENT, sed=1)", "Experiment", "'sed'", "'seed'"),
    ("Dataset.of()", "'train' is missing"),
    ("Network(MODEL)", "Network", "'input_shape' is missing"),
    ("Network(MODEL, (4,), sed=1)", "Network", "'sed'", "'seed'"),
    ("Network(MODEL, (4,), ATan())", "Network", "surrogate=ATan(slope=2.0)"),
    ("OnChip()", "OnChip", "'network' is missing"),
    ("Run()", "Run", "'path' is missing"),
    ("NET.run(X, stat=None)", "'stat'", "'state'"),
    ("NET.observe()", "observe", "'x' is missing"),
    ("SET.batch('train')", "Dataset.batch", "'ids' is missing"),
    ("run.network(checkpoints='last')", "Run.network", "'checkpoints'", "'checkpoint'"),
    ("simulate(LEAKY)", "simulate", "'x' is missing"),
    ("simulate(LEAKY, X, parameter={})", "simulate", "'parameter'", "'parameters'"),
    ("rest(LEAKY, (2, 4))", "rest", "'like' is missing"),
    ("use_backend()", "use_backend", "'name' is missing"),
    ("start_alive(NET, X, 2.0)", "start_alive", "spread=2.0"),
    ("trace(NET, X)", "trace", "'targets' is missing"),
    ("trace(NET, X, Y, CountCrossEntropy())", "trace", "loss=CountCrossEntropy()"),
    ("check_gradients(NET, X, Y, direction=1)", "check_gradients", "'direction'", "'directions'"),
    ("diagnose()", "diagnose", "'subject' is missing"),
    ("train(EXPERIMENT)", "train", "'out' is missing"),
    ("train(EXPERIMENT, folder / 'a', epochs=3)", "train", "'epochs'"),
    ("resume()", "resume", "'out' is missing"),
    ("training(EXPERIMENT)", "training", "'out' is missing"),
    ("finish()", "finish", "'run' is missing"),
    ("evaluate()", "evaluate", "'run' is missing"),
    ("evaluate(run, splt='test')", "evaluate", "'splt'", "'split'"),
    ("predict(run)", "predict", "'recordings' is missing"),
    ("export(run)", "export", "'file' is missing"),
    ("export(run, folder / 'a.nir', verify=False)", "export", "'verify'", "verification"),
    ("verify(run)", "verify", "'file' is missing"),
    ("report()", "report", "'run' is missing"),
    ("compare()", "compare", "'runs' is missing"),
    ("search(EXPERIMENT, budget=10)", "search", "'method' is missing"),
    ("search(EXPERIMENT, method='es', buget=10)", "search", "'buget'", "'budget'"),
    ("read_events()", "read_events", "'path' is missing"),
    ("read_events('a.npy', units='s')", "read_events", "'units'", "'unit'"),
)

CALLS = NAMES


@pytest.mark.parametrize(("call", "words"), [(call, words) for call, *words in CALLS], ids=[row[0] for row in CALLS])
def test_a_wrong_call_is_refused_in_a_sentence(call, words, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SnnError) as refusal:
        eval(call, globals() | {"run": finished, "folder": tmp_path})

    said = str(refusal.value)
    assert [word for word in words if word not in said] == [], said
    assert "\n" not in said and len(said) < 600
    assert not list(tmp_path.iterdir()), "something was left behind"
