"""The leaky family: integrate and fire with a leak, a synaptic current, an adapting threshold; and the readout."""

from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor

from snn_bp.equations.arithmetic import detach, spike
from snn_bp.neurons.making import neuron
from snn_bp.neurons.parameters import Decay, Values

Reset: TypeAlias = Literal["subtract", "subtract_before_leak", "zero", "zero_all", "none"]
RESETS: tuple[Reset, ...] = ("subtract", "subtract_before_leak", "zero", "zero_all", "none")


class State(NamedTuple):
    """What a layer of the leaky family carries from step to step: `[batch, *neurons]` each, None where it has no such
    part.

    `v` is the membrane potential, `s` the spikes of the last step, `i` the synaptic current, `a` the threshold's
    adaptation.

    >>> _, state = simulate(CubaLIF(alpha=0.5, beta=0.9), torch.ones(10, 4, 7))
    >>> state.v.shape, state.i.shape, state.a
    (torch.Size([4, 7]), torch.Size([4, 7]), None)
    """

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
    if reset == "subtract_before_leak":
        return beta * (v - threshold * r) + i
    if reset == "zero":
        return beta * v * (1 - r) + i
    if reset == "zero_all":
        return (beta * v + i) * (1 - r)
    return beta * v + i


@neuron(positive=("threshold",), symbols={"threshold": "theta"}, state=State)
def IF(v, s, x, *, threshold: Values = 1.0, reset: Reset = "subtract", detach_reset: bool = True):
    """Integrate and fire: the membrane keeps everything (beta = 1).

    `threshold` (1.0) is in units of the potential; `reset` and `detach_reset` are those of `LIF`.

    >>> spikes, _ = simulate(IF(), torch.full((6, 1, 1), 0.4))
    >>> spikes.flatten().tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """
    v = charged(v, x, s, 1.0, threshold, reset, detach_reset)
    return v, spike(v - threshold, threshold)


@neuron(decays=("beta",), positive=("threshold",), symbols={"threshold": "theta"}, state=State)
def LIF(v, s, x, *, beta: Decay, threshold: Values = 1.0, reset: Reset = "subtract", detach_reset: bool = True):
    """Leaky integrate and fire: v[t] = beta * v[t-1] + x[t], less what a spike at t-1 resets.

    Parameters:
        beta: decay of the membrane per step, 0..1, or a time constant, `Tau(20)` in ms.
        threshold (1.0): potential strictly above which a spike is fired; it resets one step later.
        reset ("subtract"): "subtract" takes the threshold off; "subtract_before_leak" does so before the membrane
            decays (NIR up to 1.0.5, SpiNNaker2); "zero" clears the membrane and keeps this step's input (Loihi, NIR);
            "zero_all" clears both; "none" leaves it.
        detach_reset (True): keeps gradients out of the reset.

    Each number may be one for each neuron: a tuple, an array or a tensor. So it is with all neurons.

    >>> spikes, _, v = simulate(LIF(beta=0.5), torch.full((4, 1, 1), 0.75), potentials=True)
    >>> v.flatten().tolist(), spikes.flatten().tolist()
    ([0.75, 1.125, 0.3125, 0.90625], [0.0, 1.0, 0.0, 0.0])
    """
    v = charged(v, x, s, beta, threshold, reset, detach_reset)
    return v, spike(v - threshold, threshold)


@neuron(decays=("alpha", "beta"), positive=("threshold",), symbols={"threshold": "theta"}, state=State)
def CubaLIF(
    i, v, s, x, *, alpha: Decay, beta: Decay, threshold: Values = 1.0, reset: Reset = "subtract",
    detach_reset: bool = True,
):  # fmt: skip
    """Current-based LIF: i[t] = alpha * i[t-1] + x[t] feeds the membrane of an `LIF`. A reset leaves `i` alone.

    `alpha` is the decay of the synaptic current per step, 0..1, or a time constant, `Tau(5)` in ms; `beta`,
    `threshold`, `reset` and `detach_reset` are those of `LIF`.

    >>> _, state = simulate(CubaLIF(alpha=0.5, beta=0.5), torch.tensor([1.0, 0.0]).view(2, 1, 1))
    >>> state.i.item(), state.v.item()
    (0.5, 1.0)
    """
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

    Bellec et al. 2018 (LSNN); their factor 1 - rho is absorbed into `kappa`. A subtracting reset takes off `theta`, not
    the raised threshold. No refractory period.

    Parameters:
        beta: decay of the membrane per step, 0..1, or `Tau(20)` in ms.
        rho: decay of the adaptation per step, 0..1, or `Tau(200)` in ms.
        kappa: how much a spike raises the threshold, in units of the potential, from 0 up.
        alpha (0.0): decay of a synaptic current per step; 0: there is none.
        threshold (1.0): at rest, theta. `reset` ("subtract") and `detach_reset` (True) are those of `LIF`.

    >>> spikes, _ = simulate(ALIF(beta=0.5, rho=0.9, kappa=0.5), torch.full((12, 1, 1), 1.0))
    >>> spikes.flatten().int().tolist()
    [0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1]
    """
    i = alpha * i + x
    v = charged(v, i, s, beta, threshold, reset, detach_reset)
    a = rho * a + s
    return i, a, v, spike(v - threshold - kappa * a, threshold)


@neuron(decays=("beta", "alpha"), optional={"i": "alpha"}, state=State)
def LI(i, v, x, *, beta: Decay, alpha: Decay = 0.0):
    """Leaky integrator, the readout: never spikes, its output is the membrane potential itself.

    `beta` is the decay of the membrane per step, 0..1, or `Tau(20)` in ms; `alpha` (0.0) that of a synaptic current, 0:
    there is none.

    >>> v, _ = simulate(LI(beta=0.5), torch.ones(3, 1, 1))
    >>> v.flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    i = alpha * i + x
    v = beta * v + i
    return i, v, v
