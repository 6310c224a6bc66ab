"""Neurons of one's own with two states: behind a norm, with parameters that are learned, and in a recurrent layer."""

from snn_bp import LI, BatchNorm, Data, Dense, Experiment, Flatten, MembraneCrossEntropy, Recurrent, Spiking, Tau, Train
from snn_bp.equations.arithmetic import detach, spike
from snn_bp.neurons import neuron

PULL = 0.1  # how much of the adaptation's growth comes from the membrane


def adapted(w, v, s, rho, pull, jump):
    """The adaptation after a step."""
    return rho * w + pull * v + jump * s


@neuron(decays=("beta", "rho"), positive=("threshold",))
def Adaptive(v, w, s, x, *, beta, rho=Tau(300), pull=PULL, jump=0.2, threshold=1.0):
    """LIF with an adaptation that follows the membrane and its spikes."""
    w = adapted(w, v, s, rho, pull, jump)
    v = beta * v * (1 - detach(s)) + x - w
    return v, w, spike(v - threshold, threshold)


experiment = Experiment(
    Data("digits", step_ms=52, steps=6, batch=64, downsample=2),
    (
        *(Flatten(), Dense(32), BatchNorm(), Spiking(Adaptive(beta=Tau(200)), learn=("beta", "pull"))),
        *(Dense(24), Recurrent(Adaptive(beta=0.8))),
        *(Dense(10), LI(beta=0.8)),
    ),
    Train(epochs=3, lr=4e-3, loss=MembraneCrossEntropy()),
)
