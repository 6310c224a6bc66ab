"""The leaky family: integrate and fire with a leak, a synaptic current, an adapting threshold; and the readout."""

from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor

from snn_bp.equations.arithmetic import detach, spike
from snn_bp.neurons.making import neuron
from snn_bp.neurons.parameters import Decay, Values

Reset: TypeAlias = Literal["subtract", "zero", "zero_all", "none"]
RESETS: tuple[Reset, ...] = ("subtract", "zero", "zero_all", "none")


class State(NamedTuple):
    """What a layer carries from step to step: `[batch, *neurons]` each, None where the neuron has no such part."""

    v: Tensor
    s: Tensor | None = None
    i: Tensor | None = None
    a: Tensor | None = None

    def detach(self) -> "State":
        """The same state with no gradient through it: where truncated backpropagation cuts."""
        s, i, a = (part if part is None else part.detach() for part in self[1:])
        return State(self.v.detach(), s, i, a)


def charged(v, i, s, beta, threshold, reset, detach_reset):
    """The membrane after a step, before its own reset: the reset by the spike `s` of the step before is in it."""
    r = detach(s) if detach_reset else s
    if reset == "subtract":
        return beta * v + i - threshold * r
    if reset == "zero":
        return beta * v * (1 - r) + i
    if reset == "zero_all":
        return (beta * v + i) * (1 - r)
    return beta * v + i


@neuron(positive=("threshold",), symbols={"threshold": "theta"}, state=State)
def IF(v, s, x, *, threshold: Values = 1.0, reset: Reset = "subtract", detach_reset: bool = True):
    """Integrate and fire: the membrane keeps everything (beta = 1)."""
    v = charged(v, x, s, 1.0, threshold, reset, detach_reset)
    return v, spike(v - threshold, threshold)


@neuron(decays=("beta",), positive=("threshold",), symbols={"threshold": "theta"}, state=State)
def LIF(v, s, x, *, beta: Decay, threshold: Values = 1.0, reset: Reset = "subtract", detach_reset: bool = True):
    """Leaky integrate and fire: v[t] = beta * v[t-1] + x[t], less what a spike at t-1 resets.

    `reset`: "subtract" takes the threshold off; "zero" clears the membrane and keeps this step's input (Loihi, NIR);
    "zero_all" clears both; "none" leaves it. `detach_reset=True` keeps gradients out of the reset. A spike is fired
    strictly above the threshold, and resets one step later.
    """
    v = charged(v, x, s, beta, threshold, reset, detach_reset)
    return v, spike(v - threshold, threshold)


@neuron(decays=("alpha", "beta"), positive=("threshold",), symbols={"threshold": "theta"}, state=State)
def CubaLIF(
    i, v, s, x, *, alpha: Decay, beta: Decay, threshold: Values = 1.0, reset: Reset = "subtract",
    detach_reset: bool = True,
):  # fmt: skip
    """Current-based LIF: i[t] = alpha * i[t-1] + x[t] feeds the membrane of an `LIF`. A reset leaves `i` alone."""
    i = alpha * i + x
    v = charged(v, i, s, beta, threshold, reset, detach_reset)
    return i, v, spike(v - threshold, threshold)


@neuron(
    decays=("beta", "rho", "alpha"), positive=("threshold",), not_negative=("kappa",), optional={"i": "alpha"},
    symbols={"threshold": "theta"}, state=State,
)  # fmt: skip
def ALIF(
    i, a, v, s, x, *, beta: Decay, rho: Decay, kappa: Values, alpha: Decay = 0.0, threshold: Values = 1.0,
    reset: Reset = "subtract", detach_reset: bool = True,
):  # fmt: skip
    """LIF whose threshold rises with its own recent spikes.

        a[t] = rho * a[t-1] + s[t-1]
        s[t] = 1 if v[t] > theta + kappa * a[t] else 0

    Bellec et al. 2018 (LSNN); their factor 1 - rho is absorbed into `kappa`. `alpha` adds a synaptic current.
    A subtracting reset takes off `theta`, not the raised threshold. No refractory period.
    """
    i = alpha * i + x
    v = charged(v, i, s, beta, threshold, reset, detach_reset)
    a = rho * a + s
    return i, a, v, spike(v - threshold - kappa * a, threshold)


@neuron(decays=("beta", "alpha"), optional={"i": "alpha"}, state=State)
def LI(i, v, x, *, beta: Decay, alpha: Decay = 0.0):
    """Leaky integrator, the readout: never spikes, its output is the membrane potential itself."""
    i = alpha * i + x
    v = beta * v + i
    return i, v, v
