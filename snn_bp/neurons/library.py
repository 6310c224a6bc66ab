"""The library of neurons: each a step of a few lines, with its source. All else is derived from the step.

Time counts in steps, and each neuron's default parameters make sense at a threshold of 1 and weights as `Dense` draws
them. A spike resets one step later, as in the leaky family: the potential that is shown is the one before its reset.
"""

from typing import Literal

from snn_bp.equations.arithmetic import detach, exp, spike, where
from snn_bp.neurons.leaky import Reset, charged
from snn_bp.neurons.making import neuron

# Leaky membranes with something more


@neuron(decays=("beta",), positive=("threshold",))
def PLIF(v, s, x, *, beta=0.5, threshold=1.0, reset: Literal["zero", "subtract"] = "zero", detach_reset: bool = True):
    """Leaky neuron that averages its input over its time constant, which it learns.

        v[t] = v[t-1] + (x[t] - v[t-1]) / tau        with beta = 1 - 1 / tau

    Fang et al. 2021. Theirs is `Spiking(PLIF(), learn=("beta",), per="layer")`: one 1 / tau for a layer, the logistic
    function of what is learned. `beta` (0.5) is the decay per step, 0..1; `threshold` (1.0), `reset` ("zero" or
    "subtract") and `detach_reset` (True) are as in `LIF`, but that a reset comes before the membrane takes the step's
    input in: "subtract" here is "subtract_before_leak" there.

    >>> v = simulate(PLIF(beta=0.5), torch.full((3, 1, 1), 0.5), potentials=True)[2]
    >>> v.flatten().tolist()
    [0.25, 0.375, 0.4375]
    """
    r = detach(s) if detach_reset else s
    v = v * (1 - r) if reset == "zero" else v - threshold * r
    v = beta * v + (1 - beta) * x
    return v, spike(v - threshold, threshold)


@neuron(positive=("R", "C", "step", "threshold"))
def Lapicque(
    v, s, x, *, R=5.0, C=2.0, step=1.0, threshold=1.0, reset: Literal["subtract", "zero", "none"] = "subtract"
):
    """Integrate and fire as a circuit of a resistor and a capacitor.

        v[t] = step / C * x[t] + (1 - step / (R C)) * v[t-1]

    Lapicque 1907, by Euler's method as in snnTorch's `Lapicque`, which it equals. `R` (5.0) is the resistance, `C`
    (2.0) the capacitance and `step` (1.0) the step's width: what counts are step / C and step / (R C). `threshold`
    (1.0) and `reset` ("subtract", "zero" or "none") are as in `LIF`.

    >>> simulate(Lapicque(), torch.full((10, 1, 1), 0.5))[0].flatten().tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    r = detach(s)
    v = x * R * (1 / (R * C)) * step + (1 - step / (R * C)) * v
    v = v - r * (v if reset == "zero" else threshold) if reset != "none" else v
    return v, spike(v - threshold, threshold)


@neuron(decays=("beta",), positive=("threshold",), not_negative=("period",))
def RefractoryLIF(v, r, s, x, *, beta=0.9, period=3.0, threshold=1.0):
    """Leaky neuron with an absolute refractory period: it rests for `period` steps after a spike.

        r[t] = period after a spike, else r[t-1] - 1
        v[t] = 0 while r[t] > 0, else beta * v[t-1] + x[t]

    Stein 1965; input during the period is lost, as in NEST's `iaf_psc_delta`. Spikes lie at least `period` (3.0) + 1
    steps apart. `period` cannot be learned: no gradient reaches it. `beta` (0.9) is the membrane's decay per step,
    `threshold` (1.0) is as in `LIF`.

    >>> simulate(RefractoryLIF(period=2), torch.full((7, 1, 1), 5.0))[0].flatten().tolist()
    [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """
    r = where(s > 0.5, period, max(r - 1, 0))
    v = where(r > 0, 0, beta * v * (1 - detach(s)) + x)
    return v, r, spike(v - threshold, threshold)


@neuron(decays=("beta",), positive=("threshold",))
def GradedLIF(v, s, x, *, beta=0.9, threshold=1.0, levels: Literal[2, 3, 4, 5, 6, 7, 8] = 4, detach_reset: bool = True):
    """Leaky neuron that sends several spikes in a step, one for each multiple of its threshold, up to `levels` (4;
    2..8).

        s[t] = number of k in 1..levels with v[t] > k * threshold

    Feng et al. 2022 (multi-level firing); subtracts the threshold for each spike, as Luo et al. 2024 (I-LIF). `beta`
    (0.9) is the membrane's decay per step; `threshold` (1.0) and `detach_reset` (True) are as in `LIF`.

    >>> simulate(GradedLIF(), torch.tensor([0.5, 2.5, 9.0]).view(3, 1, 1))[0].flatten().tolist()
    [0.0, 2.0, 4.0]
    """
    v = beta * v + x - threshold * (detach(s) if detach_reset else s)
    spikes = spike(v - threshold, threshold)
    for level in range(2, levels + 1):
        spikes = spikes + spike(v - level * threshold, threshold)
    return v, spikes


# Currents and compartments in front of the membrane


@neuron(decays=("alpha", "beta"), positive=("threshold",))
def AlphaLIF(
    h, i, v, s, x, *, alpha=0.7, beta=0.9, threshold=1.0, reset: Reset = "subtract", detach_reset: bool = True
):  # fmt: skip
    """Leaky neuron behind alpha synapses: a spike's current rises before it falls.

        h[t] = alpha * h[t-1] + x[t]
        i[t] = alpha * i[t-1] + (1 - alpha) * h[t]        a spike's current: (1 - alpha) (n + 1) alpha^n

    Rall 1967. A spike brings as much charge as to a `CubaLIF` of the same `alpha` (0.7, decay per step); `beta` (0.9),
    `threshold`, `reset` and `detach_reset` are those of an `LIF`.

    >>> _, state = simulate(AlphaLIF(alpha=0.5), torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1))
    >>> state.i.item()  # (1 - alpha) * 3 * alpha^2
    0.375
    """
    h = alpha * h + x
    i = alpha * i + (1 - alpha) * h
    v = charged(v, i, s, beta, threshold, reset, detach_reset)
    return h, i, v, spike(v - threshold, threshold)


@neuron(decays=("alpha", "beta"))
def AlphaLI(h, i, v, x, *, alpha=0.7, beta=0.9):
    """Leaky integrator behind alpha synapses, a readout: `AlphaLIF` without spikes. Its output is the membrane
    potential.

    `alpha` (0.7) is the decay of the synapses per step, `beta` (0.9) that of the membrane.

    >>> simulate(AlphaLI(alpha=0.5, beta=0.5), torch.ones(3, 1, 1))[0].flatten().tolist()
    [0.5, 1.25, 2.0]
    """
    h = alpha * h + x
    i = alpha * i + (1 - alpha) * h
    v = beta * v + i
    return h, i, v, v


@neuron(decays=("alpha", "beta"), positive=("threshold",))
def Alpha(
    rise, fall, v, s, x, *, alpha=0.9, beta=0.8, gain=1.8945, threshold=1.0, reset: Literal["zero", "none"] = "zero"
):  # fmt: skip
    """Neuron whose membrane is the difference of two decaying currents: it follows an alpha function.

        v[t] = gain * (rise[t] + fall[t])        rise decays by alpha, fall by beta < alpha, and takes -x

    Gerstner & Kistler 2002 (SRM). With gain = log(alpha) / (log(beta) - log(alpha)) + 1 it is snnTorch's `Alpha`. A
    reset clears everything, this step's input too. snnTorch's `reset_mechanism="subtract"` is another equation. `alpha`
    (0.9) and `beta` (0.8) are decays per step, `gain` (1.8945) is in potential per input; `threshold` (1.0) and `reset`
    ("zero" or "none") are as in `LIF`.

    >>> v = simulate(Alpha(), torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1), potentials=True)[2]
    >>> [round(each, 3) for each in v.flatten().tolist()]
    [0.0, 0.189, 0.322]
    """
    rise, fall = alpha * rise + x, beta * fall - x
    if reset == "zero":
        rise, fall = rise * (1 - detach(s)), fall * (1 - detach(s))
    v = gain * (rise + fall)
    return rise, fall, v, spike(v - threshold, threshold)


@neuron(decays=("alpha", "beta"), positive=("threshold",))
def TwoCompartmentLIF(
    d, v, s, x, *, alpha=0.9, beta=0.9, to_dendrite=-0.2, to_soma=0.5, gamma=0.5, threshold=1.0,
    detach_reset: bool = True,
):  # fmt: skip
    """A dendrite that takes the input, and a soma that fires; each leaks, and feels the other.

        d[t] = alpha * d[t-1] + to_dendrite * v[t-1] + x[t] - gamma * s[t-1]
        v[t] = beta * v[t-1] + to_soma * d[t] - threshold * s[t-1]

    Zhang et al. 2024 (TC-LIF); theirs has alpha = beta = 1, no leak, with -1 < to_dendrite < 0 < to_soma < 1. `alpha`
    (0.9) and `beta` (0.9) are decays per step; `to_dendrite` (-0.2), `to_soma` (0.5) and `gamma` (0.5) are parts of a
    potential per step; `threshold` (1.0) and `detach_reset` (True) are as in `LIF`.

    >>> simulate(TwoCompartmentLIF(), torch.ones(8, 1, 1))[0].flatten().tolist()
    [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    """
    r = detach(s) if detach_reset else s
    d = alpha * d + to_dendrite * v + x - gamma * r
    v = beta * v + to_soma * d - threshold * r
    return d, v, spike(v - threshold, threshold)


# Adaptation


@neuron(decays=("beta", "rho"), positive=("threshold",))
def AdLIF(v, w, s, x, *, beta=0.9, rho=0.97, a=0.1, b=0.2, threshold=1.0, detach_reset: bool = True):
    """Leaky neuron with an adaptation current that follows its membrane and its spikes.

        w[t] = rho * w[t-1] + a * v[t-1] + b * s[t-1]
        v[t] = beta * (v[t-1] - threshold * s[t-1]) + (1 - beta) * (x[t] - w[t])

    Bittar & Garner 2022 (adLIF), as their code has it, at threshold 1. They detach no reset, and learn beta, rho, a in
    -1..1 and b in 0..2. `beta` (0.9) and `rho` (0.97) are decays per step, or `Tau` in ms; `a` (0.1) is current per
    potential, `b` (0.2) current per spike; `threshold` (1.0) and `detach_reset` (True) are as in `LIF`.

    >>> simulate(AdLIF(), torch.full((8, 1, 1), 5.0))[0].flatten().tolist()
    [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """
    w = rho * w + a * v + b * s
    v = beta * (v - threshold * (detach(s) if detach_reset else s)) + (1 - beta) * (x - w)
    return v, w, spike(v - threshold, threshold)


@neuron(decays=("beta", "rho"), positive=("threshold", "q"))
def SEAdLIF(v, w, s, x, *, beta=0.9, rho=0.97, a=0.5, b=1.0, q=30.0, threshold=1.0):
    """Adaptive leaky neuron, discretised by the symplectic Euler method: the adaptation sees the new potential.

        v[t] = beta * u[t-1] + (1 - beta) * (x[t] - w[t-1])        u[t] = v[t] * (1 - s[t])
        w[t] = rho * w[t-1] + (1 - rho) * q * (a * u[t] + b * s[t])

    Baronig et al. 2024 (SE-adLIF), who learn beta, rho, a in 0..1 and b in 0..2, with q = 120. So discretised, v and w
    oscillate without gaining energy from the step's width. The state holds w[t-1] beside v[t]. `beta` (0.9) and `rho`
    (0.97) are decays per step, or `Tau` in ms; `a` (0.5) is current per potential, `b` (1.0) current per spike, `q`
    (30.0) a factor of both; `threshold` (1.0) is as in `LIF`.

    >>> simulate(SEAdLIF(), torch.full((8, 1, 1), 5.0))[0].flatten().tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    """
    v = v * (1 - detach(s))
    w = rho * w + (1 - rho) * (a * v + b * s) * q
    v = beta * v + (1 - beta) * (x - w)
    return v, w, spike(v - threshold, threshold)


@neuron(decays=("beta", "rho", "alpha"), positive=("delta", "threshold", "peak"), optional={"i": "alpha"})
def AdEx(
    i, v, w, s, x, *, beta=0.9, rho=0.97, delta=0.2, a=0.1, b=0.1, threshold=0.8, peak=1.0, v_reset=0.0, alpha=0.0
):  # fmt: skip
    """Adaptive exponential integrate and fire: a smooth threshold, above which the membrane runs away to its peak.

        v[t] = beta * v[t-1] + (1 - beta) * (delta * exp((v[t-1] - threshold) / delta) - w[t-1]) + x[t]
        w[t] = rho * w[t-1] + (1 - rho) * a * v[t-1]        a spike at v > peak: v = v_reset, w = w + b

    Brette & Gerstner 2005, by Euler's method; potentials count from rest, beta = 1 - step / tau. No exponent exceeds 5.
    With peak = threshold it is Norse's `LIFAdEx`, whose input counts 1 - beta times.

    Parameters:
        beta (0.9): decay of the membrane per step, or `Tau` in ms; so are `rho` (0.97), of the adaptation, and `alpha`.
        delta (0.2): how sharply the membrane runs away, in potential.
        a (0.1): adaptation per potential. `b` (0.1): adaptation per spike.
        threshold (0.8): potential at which it begins to run away.
        peak (1.0): potential above which it is a spike. `v_reset` (0.0): where it begins anew.
        alpha (0.0): decay of a synaptic current; 0: there is none.

    >>> simulate(AdEx(), torch.full((8, 1, 1), 0.3))[0].flatten().tolist()
    [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    """
    i = alpha * i + x
    r = detach(s)
    v, w = v * (1 - r) + v_reset * r, w + b * s
    away = delta * exp(min((v - threshold) / delta, 5)) - w
    v, w = beta * v + (1 - beta) * away + i, rho * w + (1 - rho) * a * v
    return i, v, w, spike(v - peak, peak)


# Oscillation, and membranes that run away


@neuron(
    decays=("rho",), fractions=("omega",), positive=("threshold",), not_negative=("offset", "damping"), potential="u"
)
def BRF(u, v, q, s, x, *, omega=0.2, offset=0.02, damping=0.02, rho=0.9, threshold=1.0):
    """Balanced resonate and fire: an oscillator that fires at its peaks, and that no input makes diverge.

        z[t] = (1 + b + i omega) z[t-1] + x[t]        z = u + i v,  b = -1 + sqrt(1 - omega^2) - offset - damping * q[t]
        q[t] = rho * q[t-1] + s[t-1]                  s[t] = 1 if u[t] > threshold + q[t] else 0

    Higuchi et al. 2024. At offset 0 and q = 0 the oscillation lasts: |1 + b + i omega| = 1, an angle of asin(omega) a
    step. Theirs in steps of width dt: omega, offset and input are dt times theirs, damping = dt, rho = 0.9. `omega`
    (0.2, 0..1) is the sine of a step's angle, `offset` (0.02) and `damping` (0.02) are what is lost per step, from 0
    up; `rho` (0.9) is a decay per step, `threshold` (1.0) is in units of u.

    >>> simulate(BRF(), torch.full((12, 1, 1), 0.4))[0].flatten().tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    q = rho * q + s
    b = (1 - omega**2) ** 0.5 - 1 - offset - damping * q
    u, v = u + b * u - omega * v + x, v + omega * u + b * v
    return u, v, q, spike(u - threshold - q, threshold)


@neuron(positive=("a", "critical", "threshold"))
def QIF(v, s, x, *, a=0.2, critical=0.5, threshold=1.0, v_reset=0.0):
    """Quadratic integrate and fire: rest at 0, and above `critical` the membrane runs away to its threshold.

        v[t] = v[t-1] + a * v[t-1] * (v[t-1] - critical) + x[t]

    Ermentrout & Kopell 1986; Latham et al. 2000; by Euler's method. Below -critical the parabola goes on as a straight
    line, so that strong inhibition does not overshoot into a spike. A constant input above a * critical^2 / 4 fires.
    `a` (0.2) is per potential and step; `critical` (0.5), `threshold` (1.0) and `v_reset` (0.0) are potentials.

    >>> simulate(QIF(), torch.full((8, 1, 1), 0.4))[0].flatten().tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    """
    r = detach(s)
    v = v * (1 - r) + v_reset * r
    v = v + a * max(v, -critical) * (v - critical) + x
    return v, spike(v - threshold, threshold)


@neuron(positive=("threshold", "gain"))
def Izhikevich(v, u, s, x, *, a=0.02, b=0.2, c=-65.0, d=8.0, threshold=30.0, gain=40.0):
    """Izhikevich's neuron, with his numbers: regular, bursting, chattering or fast spiking by `a`, `b`, `c`, `d`.

        v' = 0.04 v^2 + 5 v + 140 - u + gain * x        u' = a (b v - u)
        v = c and u = u + d after a spike at v > threshold

    Izhikevich 2003, with the steps of his program: 1 ms, of two halves for v. The state holds v + 65 and u + 65 b, so
    that it starts from 0 where his does. Input counts in his units at gain = 1; v is kept above -95 mV. `a` (0.02) is
    per ms, `b` (0.2) and `d` (8.0) are in his units of u, `c` (-65.0) and `threshold` (30.0) in mV, `gain` (40.0) in mV
    per ms and input.

    >>> spikes, _ = simulate(Izhikevich(), torch.full((200, 1, 1), 0.25))  # 10 in his units, for 200 ms
    >>> spikes.sum().item()
    5.0
    """
    r = detach(s)
    v, u = v * (1 - r) + (c + 65) * r, u + d * s
    v = max(v, -30)
    v = v + 0.5 * (0.04 * (v - 65) ** 2 + 5 * (v - 65) + 140 - (u - 65 * b) + gain * x)
    v = v + 0.5 * (0.04 * (v - 65) ** 2 + 5 * (v - 65) + 140 - (u - 65 * b) + gain * x)
    u = u + a * (b * v - u)
    return v, u, spike(v - 65 - threshold, threshold + 65)
