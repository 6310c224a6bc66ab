"""Calls that a user gets wrong: each is refused by one `SnnError`, in a line that names it and what would work.

What the fields of values refuse is in `test_fields.py`; here are names, missing arguments, types, shapes, dtypes,
devices, numbers that are none, and paths, of every public function and of the methods of what they give.
"""

import dataclasses  # noqa: F401 - as math and nn, for the calls
import math

import numpy as np
import pytest
import runs
import torch
from torch import nn  # noqa: F401

import snn_bp
from snn_bp import *  # noqa: F403 - all public names, for the calls
from snn_bp import LI, LIF, Data, Dataset, Dense, Experiment, Flatten, Network, SnnError, neuron, spike, surrogate

finished, few_digits = runs.finished, runs.few_digits

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
    ("Train(learn_rate=1e-3)", "Train", "'learn_rate'", "lr"),
    ("Train(epoch=3)", "Train", "'epoch'", "'epochs'"),
    ("Patience(epoch=3)", "Patience", "'epochs'"),
    ("Start()", "Start", "'run' is missing"),
    ("Experiment(Data('digits'))", "Experiment", "'model' is missing"),
    ("Experiment(Data('digits'), MODEL, Train(), 0, 1)", "Experiment", "1"),
    ("Experiment(Data('digits'), MODEL, lr=1e-3)", "Experiment", "'lr'", "'train.lr'"),
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
    ("train(EXPERIMENT, folder / 'a', epochs=3)", "train", "'epochs'", "'experiment.train.epochs'"),
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

NEURONS = (
    ("simulate(LIF, X)", "LIF is a class"),
    ("simulate('LIF', X)", "'LIF'", "no neuron"),
    ("simulate(LEAKY, X.numpy())", "LIF", "tensor of floats", "ndarray"),
    ("simulate(LEAKY, X.tolist())", "LIF", "tensor of floats", "list"),
    ("simulate(LEAKY, None)", "LIF", "NoneType"),
    ("simulate(LEAKY, X.long())", "LIF", "int64", "x.float()"),
    ("simulate(LEAKY, X.bool())", "LIF", "bool"),
    ("simulate(LEAKY, X.to(torch.complex64))", "LIF", "complex64"),
    ("simulate(LEAKY, X.to_sparse())", "LIF", "sparse", "to_dense"),
    ("simulate(LEAKY, X[:, 0, 0])", "LIF", "[time, batch, ...]", "[6]"),
    ("simulate(LEAKY, X[:0])", "LIF", "a step at least", "[0, 2, 4]"),
    ("simulate(LEAKY, holding(X, math.nan))", "LIF", "input", "NaN or infinity", "step 5"),
    ("simulate(LEAKY, holding(X, math.inf))", "LIF", "input", "NaN or infinity", "step 5"),
    ("simulate(LEAKY, holding(X.half(), -math.inf))", "LIF", "input", "NaN or infinity"),
    ("simulate(LIF(beta=(0.9, 0.8)), X)", "LIF", "beta", "[2]", "[4]"),
    ("simulate(LIF(beta=Tau(20)), X)", "time constant"),
    ("simulate(LEAKY, X, State(v=ONE[:1], s=ONE))", "state.v", "[2, 4]", "[1, 4]"),
    ("simulate(LEAKY, X, State(v=ONE, s=None))", "state.s", "nothing"),
    ("simulate(LEAKY, X, State(v=holding(ONE, math.nan), s=ONE))", "state.v", "NaN"),
    ("simulate(ALIF(beta=0.9, rho=0.9, kappa=1.0), X, simulate(LEAKY, X)[1])", "state.a", "nothing"),
    ("simulate(Plain(beta=0.9), X, State(v=ONE, s=ONE))", "Plain", "state should be"),
    ("simulate(LEAKY, X, (ONE, ONE))", "None starts from rest"),
    ("simulate(LEAKY, X, None, 'ATan')", "surrogate", "ATan(slope=2)"),
    ("simulate(LEAKY, X, None, ATan)", "surrogate", "ATan()"),
    ("simulate(LEAKY, X, potentials=1)", "potentials=1", "True or False"),
    ("simulate(LEAKY, X, parameters={'bta': ONE[0]})", "'bta'", "beta"),
    ("simulate(LEAKY, X, parameters={'beta': torch.ones(3)})", "beta", "[3]", "[4]"),
    ("simulate(LEAKY, X, parameters={'beta': holding(torch.ones(4), math.nan)})", "beta", "NaN"),
    ("simulate(LEAKY, X, parameters={'beta': torch.ones(4, device='meta')})", "beta", "meta"),
    ("simulate(LEAKY, X, parameters=[0.9])", "parameters", "under each name"),
    ("rest('LIF', (2, 4), like=X)", "no neuron"),
    ("rest(LEAKY, 4, like=X)", "rest", "(batch, *neurons)", "4"),
    ("rest(LEAKY, (2, -4), like=X)", "rest", "(batch, *neurons)"),
    ("rest(LEAKY, (2, 4), like=X.long())", "rest", "floats", "int64"),
    ("rest(LEAKY, (2, 4), like=X.numpy())", "rest", "tensor of floats"),
    ("use_backend('gpu').__enter__()", "backend='gpu'", "fastest", "reference"),
    ("use_backend(None).__enter__()", "backend=None"),
    ("decay(tau_ms=0, step_ms=1)", "decay", "positive"),
    ("decay(tau_ms='20', step_ms=1)", "decay", "'20'"),
    ("decay(tau_ms=math.nan, step_ms=1)", "decay", "nan"),
    ("LIF(beta=math.nan)", "LIF", "beta", "0..1"),
    ("LIF(beta=torch.tensor([0.5, math.nan]))", "LIF", "beta", "0..1"),
    ("neuron(LIF)", "@neuron", "function"),
    ("neuron('LIF')", "@neuron", "'LIF'"),
    ("neuron(lambda x: x)", "a step takes its states"),
    ("neuron(decays=('beta',))(lambda v, s, x: (v, spike(v)))", "'beta'", "no parameter"),
    ("neuron(decays=3)", "@neuron", "3 for decay"),
    ("neuron(potential=3)(Plain.kind.step)", "potential=3"),
    ("neuron(decay=('beta',))", "neuron", "'decay'", "'decays'"),
    ("surrogate(ATan())", "@surrogate", "function"),
    ("surrogate(lambda v: v)", "u"),
    ("surrogate(kinks='no')(lambda u: 1 / (1 + u * u))", "kinks"),
    ("surrogate(integral=3)(lambda u: 1 / (1 + u * u))", "integral"),
    ("spike('1')", "spike", "'1'", "number"),
    ("spike(ONE)", "spike", "number"),
    ("exp('1')", "exp", "'1'", "number"),
    ("exp(ONE)", "exp", "number", "torch.exp"),
    ("exp(1000.0)", "exp", "1000.0"),
    ("where(ONE > 0, 1, 0)", "where", "torch.where"),
    ("where('yes', 1, 0)", "where", "'yes'"),
    ("detach('1')", "detach", "'1'"),
    ("detach(ONE)", "detach", "tensor.detach()"),
)

NETWORKS = (
    ("Network((), (4,))", "Network", "empty"),
    ("Network(Dense(3), (4,))", "Network", "tuple of layers"),
    ("Network([Dense, LIF], (4,))", "Dense", "Dense(...)"),
    ("Network((nn.Linear(4, 3),), (4,))", "model.0", "Linear", "Module("),
    ("Network((None,), (4,))", "model.0", "None"),
    ("Network(('Dense',), (4,))", "model.0", "'Dense'"),
    ("Network((Dense(3),), (-4,))", "shape", "-4"),
    ("Network((Dense(3),), (0,))", "shape", "0"),
    ("Network((Dense(3),), (4.0,))", "shape", "4.0"),
    ("Network((Dense(3),), ('4',))", "shape", "'4'"),
    ("Network((Dense(3),), (True,))", "shape", "True"),
    ("Network((Dense(3),), (2, 3, 3))", "model.0", "Flatten()"),
    ("Network((Conv(3, 5), LEAKY), (2, 3, 3))", "model.0", "window"),
    ("Network((LIF(beta=(0.9, 0.8)),), (4,))", "model.0", "beta", "[2]"),
    ("Network((LIF(beta=Tau(20)),), (4,))", "time constant"),
    ("Network((Dense(3), LEAKY), (4,), surrogate='ATan')", "surrogate"),
    ("Network((Dense(3), LEAKY), (4,), surrogate=ATan)", "surrogate", "ATan()"),
    ("Network((Dense(3), LEAKY), (4,), memory='little')", "memory='little'", "low"),
    ("Network((Dense(3), LEAKY), (4,), seed='1')", "seed='1'"),
    ("NET(X.numpy())", "network", "torch tensor", "numpy"),
    ("NET(X.tolist())", "network", "torch tensor", "list"),
    ("NET(None)", "network", "torch tensor"),
    ("NET(X.transpose(0, 2))", "network", "[time, batch, 4]", "[4, 2, 6]"),
    ("NET(X[..., :3])", "network", "[time, batch, 4]", "[6, 2, 3]"),
    ("NET(X[0, 0])", "network", "[time, batch, 4]", "[4]"),
    ("NET(X[:0])", "network", "a time step at least"),
    ("NET(X.long())", "network", "int64", "x.float()"),
    ("NET(X.half())", "network", "float16", "x.to(torch.float32)"),
    ("NET(X.double())", "network", "float64", "network.double()"),
    ("NET(X.to(torch.complex64))", "network", "complex64"),
    ("NET(X.to('meta'))", "network", "meta"),
    ("NET(X.to_sparse())", "network", "sparse"),
    ("NET(holding(X, math.nan))", "network", "NaN or infinity", "step 5"),
    ("NET(holding(X, math.inf))", "network", "NaN or infinity", "step 5"),
    ("NET.run(holding(X, math.nan))", "network", "NaN or infinity"),
    ("NET.observe(holding(X, math.nan))", "network", "NaN or infinity"),
    ("NET.plan(holding(X, math.nan))", "network", "NaN or infinity"),
    ("list(NET.walk(holding(X, math.nan)))", "network", "NaN or infinity"),
    ("list(NET.visit(holding(X, math.nan)))", "network", "NaN or infinity"),
    ("OnChip(Network((Dense(3), LIF(beta=0.9, reset='zero')), (4,)))(holding(X, math.nan))", "integers"),
    ("NET(X, STEPS.float())", "mask", "torch.bool"),
    ("NET(X, STEPS[:3])", "mask", "[6, 2]", "[3, 2]"),
    ("NET(X, STEPS.t())", "mask", "[6, 2]", "[2, 6]"),
    ("NET(X, 'mask')", "mask", "'mask'"),
    ("NET(X, STEPS.to('meta'))", "mask", "meta"),
    ("NET.run(X, (rest(LEAKY, (2, 5), like=X),))", "network.run", "2 parts", "found 1"),
    ("NET.run(X, rest(LEAKY, (2, 5), like=X))", "network.run", "None starts from rest"),
    ("NET.run(X, (1, 2))", "state", "None starts from rest"),
    ("NET.run(X, [rest(LEAKY, (2, 4), like=X)] * 2)", "state.v", "[2, 5]", "[2, 4]"),
    ("NET.run(X[:, :1], NET.run(X)[1])", "state.v", "[1, 5]", "[2, 5]"),
    ("NET.observe(X, (1, 2))", "state", "None starts from rest"),
    ("NET.name(9)", "network", "9", "0..3"),
    ("NET.name('1')", "network", "'1'"),
    ("NET.parameters_of(9)", "network", "9", "0..3"),
    ("Network((Recurrent(LEAKY),), (4,)).run(X, (1,))", "state", "None starts from rest"),
    ("Network((Recurrent(LEAKY),), (4,)).run(X, (rest(LEAKY, (2, 5), like=X),))", "state.v", "[2, 4]", "[2, 5]"),
    ("OnChip('network')", "OnChip", "Network"),
    ("OnChip(NET)", "model.1", "reset"),
    ("OnChip(NET, 'fixed')", "target='fixed'", "or 'xylo'"),
    ("start_alive(NET, X.numpy())", "torch tensor"),
    ("start_alive(NET, holding(X, math.nan))", "NaN or infinity"),
    ("start_alive(NET, X, spread=0)", "spread=0"),
    ("start_alive(NET, X, mask=STEPS.float())", "mask", "torch.bool"),
    ("start_alive('net', X)", "start_alive", "Network"),
)

LOSSES = (
    ("CountCrossEntropy()(OUT, Y.float())", "CountCrossEntropy", "int64", "targets.long()"),
    ("CountCrossEntropy()(OUT, Y.tolist())", "CountCrossEntropy", "int64", "list"),
    ("CountCrossEntropy()(OUT, torch.tensor([0, 3]))", "a target is 3", "0..2"),
    ("CountCrossEntropy()(OUT, torch.tensor([0, -1]))", "a target is -1", "0..2"),
    ("CountCrossEntropy()(OUT, torch.tensor([0, -100]))", "a target is -100"),
    ("CountCrossEntropy()(OUT, torch.tensor([0, 1, 2]))", "int64 [2]", "[3]"),
    ("CountCrossEntropy()(OUT[0], Y)", "[time, batch, classes]", "[2, 3]"),
    ("CountCrossEntropy()(OUT.long(), Y)", "floats", "int64"),
    ("CountCrossEntropy()(OUT.numpy(), Y)", "floats", "ndarray"),
    ("CountCrossEntropy()(OUT[:0], Y)", "[0, 2, 3]"),
    ("CountCrossEntropy()(OUT, Y, STEPS.float())", "mask", "bool [time, batch]"),
    ("CountCrossEntropy()(OUT, Y, STEPS.t())", "mask", "[6, 2]"),
    ("CountCrossEntropy()(OUT, Y, 'mask')", "mask", "bool [time, batch]"),
    ("CountCrossEntropy()(OUT, Y, STEPS.numpy())", "mask", "bool [time, batch]"),
    ("CountCrossEntropy(class_weights=(1, 2))(OUT, Y)", "class_weights", "3 classes"),
    ("CountCrossEntropy().scores('out')", "CountCrossEntropy", "floats [time, batch, classes]"),
    ("CountCrossEntropy().scores(OUT[0])", "CountCrossEntropy", "[time, batch, classes]", "[2, 3]"),
    ("CountCrossEntropy().scores(OUT, kind='clas')", "'clas'", "'class'"),
    ("MeanSquaredPotential()(OUT, Y)", "MeanSquaredPotential", "floats", "int64"),
    ("MeanSquaredPotential()(OUT, holding(torch.zeros(2, 3), math.nan))", "targets", "NaN or infinity"),
    ("BinaryCrossEntropy()(OUT, torch.full((2, 3), 2.0))", "0 or 1", "2"),
    ("BinaryCrossEntropy()(OUT, holding(torch.zeros(2, 3), math.nan))", "targets"),
    ("VanRossum(tau=10)(OUT, torch.zeros(2, 3))", "VanRossum", "[2, 6, 3]"),
    ("VanRossum(tau=Tau(10))(OUT, torch.zeros(2, 6, 3))", "Tau(ms=10)", "steps"),
    ("FirstSpike()(2 * OUT, Y)", "FirstSpike", "0 or 1"),
    ("TET()(OUT, torch.zeros(2, 5, dtype=torch.long))", "TET", "[2, 6]"),
    ("RateBounds(upper=0.5)(OUT)", "RateBounds", "list of tensors"),
    ("RateBounds(upper=(0.5, 0.6))([OUT])", "RateBounds", "2 bounds for 1"),
    ("Accuracy()(OUT[0], Y.float())", "Accuracy", "int64"),
    ("Accuracy()(OUT[0], torch.tensor([0, 1, 2]))", "Accuracy", "[2, 3]", "[3]"),
    ("Accuracy()(OUT, Y)", "Accuracy", "[batch, outputs]", "[6, 2, 3]"),
    ("Accuracy()(OUT[0].numpy(), Y.numpy())", "Accuracy", "ndarray"),
    ("Accuracy()(holding(OUT[0], math.nan), Y)", "Accuracy", "NaN"),
    ("StepAccuracy()(OUT[0], Y)", "StepAccuracy", "[batch, time, outputs]"),
    ("StepAccuracy()(OUT, torch.zeros(6, 2, dtype=torch.long), STEPS)", "StepAccuracy", "mask", "[6, 2]"),
    ("BalancedAccuracy()(OUT[0], torch.tensor([0, 7]))", "BalancedAccuracy", "7", "0..2"),
    ("F1()(OUT[0], torch.zeros(2, 4))", "F1", "[2, 3]", "[2, 4]"),
    ("MeanAbsoluteError()(OUT[0], torch.zeros(2, 1))", "MeanAbsoluteError", "[2, 3]", "[2, 1]"),
    ("MeanAbsoluteError()(OUT[0], [0, 1])", "MeanAbsoluteError", "list"),
    ("R2()(OUT[0], torch.zeros(3))", "R2", "[2, 3]", "[3]"),
    ("VanRossumDistance()(OUT, torch.zeros(6, 2, 4))", "VanRossumDistance", "[6, 2, 3]", "[6, 2, 4]"),
    ("VanRossumDistance(tau=Tau(10))(OUT, torch.zeros(6, 2, 3))", "Tau(ms=10)", "steps"),
)

INSTRUMENTS = (
    ("trace(NET, X.numpy(), Y)", "torch tensor"),
    ("trace(NET, X[..., :3], Y)", "[time, batch, 4]"),
    ("trace(NET, X, Y[:1])", "targets", "[2]", "[1]"),
    ("trace(NET, X, [0, 1])", "targets", "list"),
    ("trace(NET, X, Y.float())", "targets", "targets.long()"),
    ("trace(NET, X, torch.tensor([0, 5]))", "a target is 5"),
    ("trace(NET, holding(X, math.nan), Y)", "NaN or infinity", "step 5"),
    ("trace(NET, X, Y, mask=STEPS.t())", "mask"),
    ("trace(NET, X, Y, state=(1, 2))", "state", "None starts from rest"),
    ("trace(NET, X, Y, state=5)", "state", "None starts from rest"),
    ("trace(NET, X, Y, state=(rest(LEAKY, (2, 5), like=X),))", "state", "2 parts"),
    ("ann_of(NET)", "ann_of: the experiment", "As in ann_of(Experiment("),
    ("ann_of(EXPERIMENT, sees='image')", "ann_of: sees", "summed"),
    ("trace(NET, X, Y, loss='count')", "trace", "the loss should be one"),
    ("trace(NET, X, Y, loss=CountCrossEntropy)", "trace", "CountCrossEntropy()"),
    ("trace(NET, X, Y, loss=lambda out, targets: out)", "loss", "tensor []"),
    ("trace(NET, X, Y, loss=lambda out: out.sum())", "loss", "(out, targets)"),
    ("trace(NET, X, Y, loss=lambda out, targets: 3.0)", "loss", "tensor []", "float"),
    ("trace(Network((Dense(3),), (4,)), X, Y)", "trace", "no neurons"),
    ("check_gradients(NET, X.numpy(), Y)", "torch tensor"),
    ("check_gradients(NET, X, Y[:1])", "targets", "[2]"),
    ("check_gradients(NET, X[..., :3], Y)", "[time, batch, 4]"),
    ("check_gradients(NET, X.long(), Y)", "int64"),
    ("check_gradients(NET, holding(X, math.nan), Y)", "NaN or infinity"),
    ("check_gradients(NET, X, Y, directions=0)", "directions=0"),
    ("check_gradients(NET, X, Y, truncations=3)", "truncations", "3"),
    ("check_gradients(NET, X, Y, truncations=(0,))", "truncations", "0"),
    ("check_gradients(NET, X, Y, truncations=(2.5,))", "truncations", "2.5"),
    ("check_gradients(NET, X, Y, loss=lambda out, targets: out)", "loss", "tensor []"),
    ("diagnose('runs/a')", "diagnose", "Run('runs/a')"),
    ("diagnose(NET)", "diagnose", "trace("),
    ("diagnose(None)", "diagnose", "None"),
)

DATA = (
    ("Dataset.of(train=(X, Y))", "6 recordings", "2 targets"),
    ("Dataset.of(train=(X, torch.arange(6.0)))", "vector"),
    ("Dataset.of(train=(X, -torch.arange(6)))", "class", "-"),
    ("Dataset.of(train=(X, ['a'] * 6))", "targets"),
    ("Dataset.of(train=(X, torch.arange(6)), targets='clas')", "'clas'", "'class'"),
    ("Dataset.of(train=(X, torch.arange(6)), targets=3)", "targets", "3"),
    ("Dataset.of(train=(X, torch.arange(6)), targets=Targets('class', ('a', 'b')))", "2", "0..1"),
    ("Dataset.of(train=(X, torch.arange(6), [1, 2]))", "6 recordings", "lengths"),
    ("Dataset.of(train=(X, torch.arange(6), [1, 2, 2, 2, 2, 3]))", "length is 3", "2 steps"),
    ("Dataset.of(train=(X, torch.arange(6), 3))", "lengths"),
    ("Dataset.of(train=(X, 3))", "targets", "3"),
    ("Dataset.of(train=(3, Y))", "3"),
    ("Dataset.of(train=3)", "Dataset.of", "3"),
    ("Dataset.of(train=None)", "no recording"),
    ("Dataset.of(train=())", "no recording"),
    ("Dataset.of(train='digits')", "recording 0", "'d'"),
    ("Dataset.of(train=(holding(X, math.nan), torch.arange(6)))", "NaN"),
    ("Dataset.of(train=(holding(X, math.inf), torch.arange(6)))", "infinity"),
    ("Dataset.of(train=(X, holding(torch.zeros(6, 2), math.nan)), targets='vector')", "nan"),
    ("Dataset.of(train=(X.to(torch.complex64), torch.arange(6)))", "complex64"),
    ("Dataset.of(train=(X.to('meta'), torch.arange(6)))", "meta"),
    ("Dataset.of(train=([X[0], X[0, :, :3]], Y))", "shape", "[3]", "[4]"),
    ("Dataset.of(train=(X, torch.arange(6)), test=(X[..., :3], torch.arange(6)))", "[4]", "[3]"),
    ("Dataset.of(train=(X, torch.arange(6)), names=['a'])", "6 recordings", "names"),
    ("Dataset.of(train=(X, torch.arange(6)), names=3)", "names", "3"),
    ("Dataset.of(train=(X, torch.arange(6)), groups=3)", "groups", "3"),
    ("Dataset.of(train=(X, torch.arange(6)), batch=0)", "batch=0"),
    ("Dataset.of(train=(X, torch.arange(6)), encoder='rate')", "encoder", "'rate'"),
    ("Dataset.of(train=(X, torch.arange(6)), encoder=Latency)", "Latency(...)"),
    ("Dataset.of(train=(2 * X, torch.arange(6)), encoder=Latency(5))", "0..1"),
    ("Dataset.of(train=(X, torch.arange(6)), transforms=3)", "transforms", "3"),
    ("Dataset.of(train=[(dict(x=[1], y=[1], t=[1], p=[1]), 0)] * 4, steps=3)", "sensor"),
    ("Dataset.of(train=[(dict(x=[1], y=[1], t=[1], p=[1]), 0)] * 4, sensor=(2, 2, 2))", "steps=50"),
    ("Dataset.of(train=[(dict(x=[9], y=[1], t=[1], p=[1]), 0)] * 4, sensor=(2, 2, 2), steps=3)", "x", "9"),
    ("Dataset.of(train=[(dict(x=[1, 1], y=[1], t=[1], p=[1]), 0)] * 4, sensor=(2, 2, 2), steps=3)", "[1, 2]"),
    ("SET.batch('tests', [0])", "split='tests'", "'test'"),
    ("SET.batch('train', [99])", "99", "batches('train')"),
    ("SET.batch('train', [0.5])", "integers"),
    ("SET.batch('train', 0)", "integers"),
    ("SET.batch('train', 'abc')", "integers"),
    ("SET.batch('train', [[0], [1, 2]])", "integers"),
    ("SET.batch('train', [0], seed='1')", "seed='1'"),
    ("SET.batches('tests')", "split='tests'"),
    ("SET.batches('train', seed=-1)", "seed=-1"),
    ("SET.mask('tests', [0])", "split='tests'"),
    ("SET.labels('tests')", "split='tests'", "'test'"),
    ("SET.names('tests')", "split='tests'", "'test'"),
    ("SET.groups('tests')", "split='tests'", "'test'"),
    ("SET.spread('tests', 3)", "split='tests'", "'test'"),
    ("SET.spread('train', -1)", "count=-1"),
    ("SET.checked('digits')", "Data", "'digits'"),
    ("Delta(threshold=0.1)(X.numpy(), None)", "Delta", "[steps, channels]", "[6, 2, 4]"),
    ("Delta(threshold=0.1)(X[0], None)", "Delta", "array", "Tensor"),
    ("Delta(threshold=0.1)(holding(X[0], math.nan).numpy(), None)", "Delta", "NaN"),
    ("Delta(threshold=0.1)([[0.0], [1.0]], None)", "Delta", "array", "list"),
    ("Rate(5)(2 * X.numpy(), np.random.default_rng(0))", "Rate", "0..1"),
    ("Rate(5)(X.numpy(), None)", "Rate", "default_rng"),
    ("Rate(5)(X, np.random.default_rng(0))", "Rate", "array", "Tensor"),
    ("Rate(5)(holding(X, math.nan).numpy(), np.random.default_rng(0))", "Rate", "NaN"),
    ("Latency(5)(X.tolist(), None)", "Latency", "array", "list"),
    ("Latency(5)(holding(X, math.nan).numpy(), None)", "Latency", "NaN"),
    ("Repeat(5)('image', None)", "Repeat", "array", "str"),
    ("Current()('image', None)", "Current", "array", "str"),
    ("Targets('class', 'ab')", "Targets", "names"),
    ("Targets('clas', ('a', 'b'))", "'clas'", "'class'"),
    ("read_events('nope.xyz')", "nope.xyz", ".npy"),
    ("read_events('nope.npy')", "nope.npy"),
    ("read_events(folder)", "ending"),
    ("read_events(3)", "path", "3"),
    ("read_events('nope.npy', sensor=3)", "sensor=3"),
    ("read_events('nope.npy', sensor=(0, 3))", "sensor=(0, 3)"),
    ("read_events('nope.npy', unit='min')", "unit='min'"),
    ("read_events('nope.npy', columns='xyz')", "columns='xyz'"),
    ("read_events('nope.h5', entry=3)", "entry=3"),
    ("read_events('nope.npy', sort='yes')", "sort='yes'"),
    ("Folder('/data', sensor=(346, 260))", "(width, height, polarities)"),
    ("Data('digts')", "'digts'", "'digits'"),
    ("Data(3)", "3"),
    ("Data(nn.Linear(2, 3))", "Linear"),
)

RUNS = (
    ("Run('nowhere')", "nowhere", "no run is here"),
    ("Run(run.path / 'experiment.json')", "no run is here"),
    ("Run(3)", "path", "3"),
    ("Run(run)", "path"),
    ("run.network('bset')", "'bset'", "best"),
    ("run.network(None)", "None", "best"),
    ("run.load('frist')", "'frist'", "previous"),
    ("run.batch('tests')", "split='tests'"),
    ("run.batch('train', index=999)", "999"),
    ("run.batch('train', index=-1)", "-1"),
    ("run.batch('train', index='0')", "'0'"),
    ("run.hold('digits')", "Dataset", "'digits'"),
    ("Run.create(EXPERIMENT, run.path, command='', changes=())", "already"),
    ("evaluate(run, 'tests')", "split='tests'", "'test'"),
    ("evaluate(run, None)", "split=None"),
    ("evaluate(run, checkpoint='lst')", "'lst'", "last"),
    ("evaluate('runs/a')", "evaluate", "Run('runs/mine')"),
    ("evaluate(run.path)", "evaluate", "Run("),
    ("predict(run, [])", "no recordings"),
    ("predict(run, None)", "None"),
    ("predict(run, 3)", "3"),
    ("predict(run, ['nope.npy'])", "nope.npy"),
    ("predict(run, X)", "predict"),
    ("predict(run, [None])", "predict"),
    ("predict(run, ['nope.npy'], names=['a', 'b'])", "2 names"),
    ("predict(run, ['nope.npy'], names=3)", "names", "3"),
    ("predict('runs/a', ['a.npy'])", "predict", "Run("),
    ("predict(run, ['nope.npy'], checkpoint='lst')", "'lst'"),
    ("export(run, 'x.txt')", "x.txt", ".nir"),
    ("export(run, 3)", "path", "3"),
    ("export('runs/a', 'x.nir')", "export", "Run("),
    ("export(run, folder / 'x.nir', split='tests')", "split='tests'"),
    ("export(run, folder / 'x.nir', samples=0)", "samples=0"),
    ("export(run, folder / 'x.nir', checkpoint='lst')", "'lst'"),
    ("export(run, folder / 'x.nir', verification='no')", "verification='no'"),
    ("export(run, folder / 'x.nir', step_s=-1)", "step_s=-1"),
    ("export(run, folder / 'x.nir', step_s='1')", "step_s='1'"),
    ("export(run, folder / 'x.nir', compatible='1.0')", "compatible='1.0'", "1.0.4"),
    ("export(run, folder / 'x.net', step_s=1e-3)", "step", ".nir"),
    ("export(run, folder / 'x.net', parallel=4)", "parallel", ".v files"),
    ("export(run, folder / 'x.v', parallel=0, verification=False)", "parallel=0", "1..64"),
    ("verify(run, folder / 'x.net', simulator='iverilog')", "simulator", ".v files"),
    ("verify(run, folder / 'x.v', simulator='vcs')", "simulator='vcs'", "iverilog"),
    ("verify(run, folder / 'x.v', synthesis='spartan')", "synthesis='spartan'", "ecp5"),
    ("verify(run, folder / 'x.v')", "x.v", "snn-bp export"),
    ("verify(run, folder / 'x.nir')", "x.nir"),
    ("verify(run, None)", "path", "None"),
    ("verify('runs/a', 'x.nir')", "verify", "Run("),
    ("verify(run, 'x.net', lava=-1)", "lava=-1"),
    ("report('runs/a')", "report", "Run("),
    ("report(run, split='tests')", "split='tests'"),
    ("compare([])", "no run is named"),
    ("compare([3])", "path", "3"),
    ("compare(3)", "compare", "3"),
    ("compare(['nowhere'])", "nowhere"),
    ("train('digits', folder / 'a')", "train", "Experiment"),
    ("train(EXPERIMENT, 3)", "path", "3"),
    ("train(EXPERIMENT, 3, numbered=True)", "path", "3"),
    ("train(EXPERIMENT, run.path)", "already"),
    ("train(EXPERIMENT, folder / 'a', dataset='digits')", "dataset", "Dataset.of"),
    ("train(EXPERIMENT, folder / 'a', dataset=SET)", "dataset"),
    ("train(EXPERIMENT, folder / 'a', save_seconds='20')", "save_seconds='20'"),
    ("train(EXPERIMENT, folder / 'a', save_seconds=math.nan)", "save_seconds=nan"),
    ("train(EXPERIMENT, folder / 'a', quiet='no')", "quiet='no'"),
    ("train(EXPERIMENT, folder / 'a', numbered='no')", "numbered='no'"),
    ("train(EXPERIMENT, folder / 'a', log='tensorboard')", "log='tensorboard'", "found str", "TensorBoard()"),
    ("resume(run.path, log=3)", "log=3", "found int", "TensorBoard()"),
    ("next(training(EXPERIMENT, folder / 'a', log=TensorBoard))", "log=", "found type", "TensorBoard()"),
    ("TensorBoard(3)", "TensorBoard: the folder", "3"),
    ("TensorBoard(foldr='a')", "TensorBoard", "'foldr'", "'folder'"),
    ("resume('nowhere')", "nowhere", "no run is here"),
    ("resume(run)", "path"),
    ("resume(run.path, restart='no')", "restart='no'"),
    ("resume(run.path, dataset='digits')", "dataset", "Dataset.of"),
    ("next(training('digits', folder / 'a'))", "training", "Experiment"),
    ("next(training(EXPERIMENT, 3))", "path", "3"),
    ("next(training(EXPERIMENT, folder / 'a', resume='no'))", "resume='no'"),
    ("next(training(EXPERIMENT, run.path, resume=True))", "another experiment"),
    ("finish('runs/a')", "finish", "Run("),
    ("finish(run, why=3)", "why=3"),
    ("search(EXPERIMENT, method='gaa', budget=100)", "'gaa'", "'ga'"),
    ("search(EXPERIMENT, method='es', budget=0)", "budget=0"),
    ("search(EXPERIMENT, method='es', budget='100')", "budget='100'"),
    ("search(EXPERIMENT, method='es', budget=100, population=2)", "population=2"),
    ("search(EXPERIMENT, method='es', budget=100, objective='los')", "'los'", "'loss'"),
    ("search(EXPERIMENT, method='es', budget=100, objective=3)", "objective=3"),
    ("search(EXPERIMENT, method='es', budget=100, seed='1')", "seed='1'"),
    ("search(EXPERIMENT, method='es', budget=100, spike_penalty=math.nan)", "spike_penalty=nan"),
    ("search(EXPERIMENT, method='es', budget=100, out=3)", "path", "3"),
    ("search(EXPERIMENT, method='es', budget=100, quiet='no')", "quiet='no'"),
)

CALLS = (*NAMES, *NEURONS, *NETWORKS, *LOSSES, *INSTRUMENTS, *DATA, *RUNS)


@pytest.mark.parametrize(("call", "words"), [(call, words) for call, *words in CALLS], ids=[row[0] for row in CALLS])
@pytest.mark.usefixtures("few_digits")
def test_a_wrong_call_is_refused_in_a_sentence(call, words, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SnnError) as refusal:
        eval(call, globals() | {"run": finished, "folder": tmp_path})

    said = str(refusal.value)
    assert [word for word in words if word not in said] == [], said
    assert "\n" not in said and len(said) < 600
    assert not list(tmp_path.iterdir()), "something was left behind"


NOT_BY_NAME = {"Module", "SnnError", "State", "Trace", "Search", "detach", "exp", "main", "plots", "spike", "where"}


@pytest.mark.parametrize("name", sorted({*snn_bp.__all__} - NOT_BY_NAME))
def test_every_public_value_and_function_says_that_it_has_no_such_parameter(name):
    with pytest.raises(SnnError, match=rf"^{name}: there is no 'nonesuch'\. "):
        getattr(snn_bp, name)(nonesuch=1)


# An argument of each call by odd values, `odd`: taken, or refused in a sentence

CHIP = OnChip(Network((Dense(3), LIF(beta=0.9, reset="zero")), (4,)))  # noqa: F405
TRACE = trace(NET, X, Y)  # noqa: F405
ODD = (
    None, True, "", "text", b"1", 1j, ..., math.nan, -1, 0, 0.5, 10**30, [], [None], {"a": 1}, {1}, object(),
    np.array([1, 2]), np.array(["a"]), torch.tensor(0.5), torch.zeros(0), torch.zeros(6, 2, 4, device="meta"),
    torch.ones(1, requires_grad=True), X, X.long(), X.half(), X.to(torch.complex64), X.to_sparse(), X / 0, X[:0],
    X[:, :0], X[..., :3], X[0, 0], Y, Y.float(), Y + 9, STEPS, STEPS.t(), OUT, OUT[0], LIF, LEAKY, NET, SET,
    range(3), NET.run(X)[1], Dense(3), int, torch.float32, np.int64(1),
)  # fmt: skip
ARGUMENTS = (
    "simulate(odd, X)", "simulate(LEAKY, odd)", "simulate(LEAKY, X, odd)", "simulate(LEAKY, X, None, odd)",
    "simulate(LEAKY, X, potentials=odd)", "simulate(LEAKY, X, parameters=odd)", "rest(odd, (2, 4), like=X)",
    "rest(LEAKY, odd, like=X)", "rest(LEAKY, (2, 4), like=odd)", "decay(tau_ms=odd, step_ms=1)", "exp(odd)",
    "use_backend(odd).__enter__", "Network(odd, (4,))", "Network(MODEL, odd)", "Network(MODEL, (4,), surrogate=odd)",
    "Network(MODEL, (4,), seed=odd)", "Network(MODEL, (4,), memory=odd)", "NET(odd)", "NET(X, odd)", "NET.run(X, odd)",
    "NET.plan(odd)", "NET.observe(X, odd)", "list(NET.walk(X, odd))", "list(NET.walk(X, potentials=odd))",
    "NET.name(odd)", "NET.parameters_of(odd)", "OnChip(odd)", "CHIP(odd)", "CHIP(X.round(), odd)",
    "start_alive(odd, X)", "start_alive(Network((Dense(3), LEAKY), (4,)), odd)", "start_alive(READOUT, X, mask=odd)",
    "trace(odd, X, Y)", "trace(NET, odd, Y)", "trace(NET, X, odd)", "trace(NET, X, Y, loss=odd)",
    "trace(NET, X, Y, state=odd)", "trace(NET, X, Y, mask=odd)", "check_gradients(odd, X, Y)",
    "check_gradients(NET, X, odd)", "diagnose(odd)", "CountCrossEntropy()(odd, Y)", "CountCrossEntropy()(OUT, odd)",
    "CountCrossEntropy()(OUT, Y, odd)", "CountCrossEntropy().scores(OUT, odd)",
    "CountCrossEntropy().scores(OUT, None, odd)", "MeanSquaredPotential()(OUT, odd)", "BinaryCrossEntropy()(OUT, odd)",
    "VanRossum()(OUT.round(), odd)", "FirstSpike()(odd, Y)", "TET()(odd, Y)", "RateBounds()(odd)", "Accuracy()(odd, Y)",
    "Accuracy()(OUT[0], odd)", "Accuracy()(OUT[0], Y, odd)", "StepAccuracy()(odd, Y)", "F1()(OUT[0], odd)",
    "R2()(OUT[0], odd)", "VanRossumDistance()(OUT, odd)", "Delta(threshold=0.1)(odd, None)",
    "Rate(3)(odd, np.random.default_rng(0))", "Rate(3)(X.numpy(), odd)", "Latency(3)(odd, None)",
    "Repeat(3)(odd, None)", "Current()(odd, None)", "Dataset.of(odd)", "Dataset.of((X, torch.arange(6)), odd)",
    "Dataset.of((odd, Y))", "Dataset.of((X[:2], odd))", "Dataset.of((X[:2], Y, odd))",
    "Dataset.of((X, torch.arange(6)), targets=odd)", "Dataset.of((X, torch.arange(6)), names=odd)",
    "Dataset.of((X, torch.arange(6)), groups=odd)", "Dataset.of((X, torch.arange(6)), sensor=odd)",
    "Data('digits', augment=odd)", "Data('digits', augment=(odd,))", "Flip(classes=odd)", "Flip(classes=(odd,))",
    "SET.batch(odd, [0])", "SET.batch('train', odd)", "SET.batch('train', [0], seed=odd)",
    "SET.batch('train', [0], in_bytes=odd)", "SET.batches(odd)", "SET.batches('train', seed=odd)",
    "SET.mask('train', odd)", "SET.labels(odd)", "SET.spread('train', odd)", "SET.checked(odd)", "read_events(odd)",
    "read_events('a.npy', sensor=odd)", "read_events('a.npy', unit=odd)", "Run(odd)", "Run(run.path, trust_code=odd)",
    "run.batch(odd)", "run.batch('train', index=odd)", "run.load(odd)", "run.network(odd)", "evaluate(odd)",
    "evaluate(run, odd)", "predict(odd, [])", "predict(run, [], names=odd)", "export(odd, 'x.nir')",
    "export(run, odd)", "verify(run, odd)", "report(odd)", "report(run, split=odd)", "compare([odd])",
    "train(odd, folder / 'a')", "train(EXPERIMENT, run.path, dataset=odd)", "resume(odd)",
    "resume(run.path, restart=odd)", "next(training(odd, folder / 'a'))", "finish(odd)", "finish(run, odd)",
    "search(odd, method='es', budget=10)", "search(EXPERIMENT, method=odd, budget=10)",
    "search(EXPERIMENT, method='es', budget=10, seed=odd)", "spike(odd)", "spike(1.0, odd)", "where(odd, 1, 0)",
    "where(True, odd, 0)", "detach(odd)", "neuron(odd)", "neuron(decays=odd)(LIF.kind.step)",
    "neuron(potential=odd)(LIF.kind.step)", "neuron(symbols=odd)(LIF.kind.step)", "surrogate(odd)",
    "surrogate(kinks=odd)(lambda u: 1 / (1 + u * u))",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("call", ARGUMENTS)
@pytest.mark.usefixtures("few_digits")
def test_an_odd_argument_is_taken_or_refused_in_a_sentence(call, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = 0

    for odd in ODD:
        try:
            eval(call, globals() | {"run": finished, "folder": tmp_path, "odd": odd})
        except SnnError as refusal:
            refused += 1
            assert "\n" not in str(refusal) and len(str(refusal)) < 900

    assert refused > len(ODD) / 2 or call.endswith("__enter__")
