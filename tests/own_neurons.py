"""Neurons of one's own for the tests of what runs any of them: between them, all that a step may hold."""

from snn_bp.equations.arithmetic import detach, exp, spike, where
from snn_bp.kernels.state import state_of
from snn_bp.neurons import neuron


@neuron(decays=("beta", "rho"), positive=("threshold",))
def AdLIF(v, w, s, x, *, beta, rho=0.95, a=0.1, b=0.2, threshold=1.0):
    """Two variables, of which each feeds the other. Bittar & Garner 2022."""
    w = rho * w + a * v + b * s
    v = beta * v * (1 - detach(s)) + x - w
    return v, w, spike(v - threshold, threshold)


@neuron(decays=("beta",), positive=("threshold", "sharpness"))
def Everything(v, u, s, x, *, beta=0.8, threshold=0.7, sharpness=0.5):
    """Each operation that a step knows."""
    charge = sharpness * exp((v - threshold) / sharpness) + (x * x + 0.1) ** 0.5
    charge = min(charge, 2.0) - max(abs(u), 0.25) ** 3
    quiet = ((u > 0.5) & (v <= 1)) | ~((x < 0.5) | (s == 0))
    v = where(quiet, beta * v, beta * v + charge / (1 + u * u)) - threshold * s
    u = -u * exp(-abs(u)) + where(v != u, 1.0, 0.5) - (x >= 0)
    return v, u, spike(v - threshold, threshold)


@neuron(decays=("beta",), positive=("threshold",))
def ResetAtOnce(v, s, x, *, beta=0.9, threshold=1.0, rest=-0.1):
    """Its membrane is at rest after the step of a spike, from which no spike can be told."""
    v = beta * v + x + 0.3 * s
    fired = spike(v - threshold, threshold)
    return where(v > threshold, rest, v), fired


@neuron(decays=("beta",), positive=("threshold",))
def Graded(v, s, x, *, beta=0.9, threshold=0.5):
    """Up to three spikes in a step."""
    v = beta * v + x - threshold * s
    return v, sum(spike(v - k * threshold, threshold) for k in (1, 2, 3))


@neuron(decays=("beta",), positive=("threshold",))
def Held(v, level, half, s, x, *, beta=0.9, threshold=1.0):
    """Two of its states are a parameter and a number after each step."""
    v = beta * v + x + half * level - s
    return v, threshold, 0.5, spike(v - threshold, threshold)


@neuron
def NoNumbers(v, s, x):
    """No parameter at all."""
    v = 0.5 * v + x - s
    return v, spike(v - 1)


@neuron(decays=("alpha", "beta"))
def TwoTraces(v, slow, x, *, alpha=0.95, beta=0.7):
    """A readout of two states, which never fires."""
    slow = alpha * slow + x
    v = beta * v + x - 0.5 * slow
    return v, slow, v


OWN = (
    AdLIF(beta=0.9),
    AdLIF(beta=(0.0, 0.3, 0.55, 0.9, 0.95, 0.99, 1.0), b=(0.1, -0.2, 0.3, 0.0, 0.1, 0.2, 0.3)),
    Everything(),
    ResetAtOnce(),
    Graded(),
    Held(),
    Held(threshold=(0.5, 0.75, 1, 1.1, 1.3, 1.7, 2)),
    NoNumbers(),
    TwoTraces(),
)


def any_state(neuron, x, noise):
    """A state in the middle of things, each part a leaf."""
    parts = [noise(*x.shape[1:], seed=11 + k, dtype=x.dtype) for k, _ in enumerate(neuron.equation.full)]
    if neuron.equation.spiking:
        parts[-1] = (parts[-1] > 0).to(x.dtype)
    return state_of(neuron, [part.requires_grad_() for part in parts])
