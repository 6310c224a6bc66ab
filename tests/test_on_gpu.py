"""Networks and whole runs on a GPU: the spikes of the CPU, and a resumed run that is the run left alone."""

import pytest
import runs
import torch
from catalogue import assert_same

from snn_bp import (
    ALIF,
    LIF,
    BatchNorm,
    Conv,
    CubaLIF,
    Dense,
    Dropout,
    Experiment,
    Flatten,
    Network,
    Pool,
    Recurrent,
    Spiking,
    Train,
    resume,
    simulate,
    train,
)
from snn_bp.kernels.gpu import neuron as gpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() and gpu.INSTALLED), reason="no GPU, or no triton"),
]
few_digits = runs.few_digits
MODELS = {
    "convolution": (Conv(6, 5, stride=2), BatchNorm(), LIF(beta=0.7), Pool(2, kind="max"), Flatten(), Dropout(0.2)),
    "recurrent": (
        *(Flatten(), Dense(12), BatchNorm(), Recurrent(LIF(beta=0.7))),
        Spiking(ALIF(beta=0.7, rho=0.9, kappa=0.2), learn=("beta",)),
    ),
}


def test_convolutions_give_the_spikes_of_the_cpu(dyadic, coin):
    """Weights of 17 binary digits: their sums are exact in single precision; TF32 would cut each to 11."""
    model = (Conv(6, 5), Pool(2, kind="max"), LIF(beta=0.5, reset="zero"), Conv(4, 3), LIF(beta=0.5))
    network = Network(model, (2, 17, 17))
    with torch.no_grad():
        for n, weight in enumerate(network.parameters()):
            weight.copy_(dyadic(*weight.shape, seed=n, scale=0.2) + dyadic(*weight.shape, seed=9 + n) / 2**11)
    x = coin(7, 5, 2, 17, 17, probability=0.2)

    with torch.no_grad():
        wanted, _ = network.observe(x)
        got, _ = network.cuda().observe(x.cuda())

    assert min(int(layer.spikes.sum()) for layer in wanted) > 100
    assert_same(**{layer.name: (here.spikes.cpu(), layer.spikes) for here, layer in zip(got, wanted, strict=True)})


@pytest.mark.parametrize("neuron", (LIF(beta=0.9), CubaLIF(alpha=0.5, beta=0.9)), ids=repr)
def test_a_graph_of_the_gpu_holds_forward_and_backward_pass(neuron, noise):
    x = noise(11, 3, 7).cuda().requires_grad_()

    def gradient():
        return torch.autograd.grad(simulate(neuron, x)[0].sum(), x)[0]

    with torch.cuda.stream(torch.cuda.Stream()):
        gradient()  # what is compiled and copied once is not the graph's
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = gradient()
    with torch.no_grad():
        x.copy_(noise(11, 3, 7, seed=1))
    graph.replay()

    assert_same(x=(got, gradient()))


@pytest.mark.parametrize("name", MODELS)
def test_a_run_stopped_and_resumed_ends_as_one_left_alone(name, few_digits, tmp_path, monkeypatch):
    model = (*MODELS[name], Dense(10), BatchNorm(), LIF(beta=0.7))
    experiment = Experiment(runs.DIGITS, model, Train(epochs=2, lr=5e-3, device="cuda"))
    alone = train(experiment, tmp_path / "alone", quiet=True)
    step, steps = runs.training.train_step, iter(range(100))

    def stopping(*arguments):
        if next(steps) == 6:
            raise InterruptedError
        return step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(runs.training, "train_step", stopping)
        train(experiment, tmp_path / "stopped", quiet=True, save_seconds=0)
    resumed = resume(tmp_path / "stopped", quiet=True)

    for checkpoint in ("last", "best"):
        weights, wanted = (run.load(checkpoint).weights for run in (resumed, alone))
        assert_same(**{key: (weights[key], value) for key, value in wanted.items()})
