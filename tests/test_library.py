"""The library of neurons: closed forms, other implementations, gradients, what is learned; kernels stand elsewhere."""

import math
import pickle
import warnings

import numpy as np
import pytest
import snntorch
import torch
from catalogue import EVERY_OF_LIBRARY, LIBRARY, assert_same

from snn_bp import (
    ALIF,
    BRF,
    LI,
    LIF,
    PLIF,
    QIF,
    AdEx,
    AdLIF,
    Alpha,
    AlphaLI,
    AlphaLIF,
    CountCrossEntropy,
    Dense,
    GradedLIF,
    Izhikevich,
    Lapicque,
    MembraneCrossEntropy,
    Network,
    RefractoryLIF,
    SEAdLIF,
    SnnError,
    Spiking,
    Tau,
    TwoCompartmentLIF,
    simulate,
    use_backend,
)
from snn_bp.instruments.differences import differences
from snn_bp.neurons import LIBRARY as KINDS
from snn_bp.neurons import at_step, is_spiking
from snn_bp.neurons.parameters import check_range
from snn_bp.runs.changes import parse
from snn_bp.runs.experiment import from_json, to_json

HIGH = 1e9  # a threshold that nothing reaches
ROUNDING = {"rtol": 1e-10, "atol": 1e-10}  # a sum of a hundred terms in another order, in double precision


def run(neuron, x):
    """Outputs and potentials of single neurons under the input `[time, neurons]`, by the reference."""
    x = torch.as_tensor(x, dtype=torch.float64)
    with use_backend("reference"):
        out, _, v = simulate(neuron, x[:, None], potentials=True)
    return out[:, 0], v[:, 0]


def learnable(neuron):
    return tuple(name for name in type(neuron).kind.numbers if name in neuron.equation.learnable)


# Closed forms of the linear membranes, below threshold


def powers(matrix, into, read, x):
    """The response of a linear system by powers of its matrix: sum over k of read . matrix^(t-k) . into x[k]."""
    kernel = [read @ np.linalg.matrix_power(matrix, n) @ into for n in range(len(x))]
    return torch.tensor(np.stack([sum(kernel[t - k] * x[k] for k in range(t + 1)) for t in range(len(x))]))


def linear():
    b, r, a = 0.8, 0.9, 0.3
    k = 1 - b
    yield PLIF(beta=b, threshold=HIGH), np.array([[b]]), np.array([k]), np.array([1.0])
    yield Lapicque(R=3, C=2, threshold=HIGH), np.array([[1 - 1 / 6]]), np.array([0.5]), np.array([1.0])
    # w' = r w + a v; v' = b v + k (x - w')
    matrix = np.array([[b - k * a, -k * r], [a, r]])
    yield AdLIF(beta=b, rho=r, a=a, threshold=HIGH), matrix, np.array([k, 0.0]), np.array([1.0, 0.0])
    q = (1 - r) * 2 * a
    matrix = np.array([[b - k * q, -k * r], [q, r]])
    yield SEAdLIF(beta=b, rho=r, a=a, q=2, threshold=HIGH), matrix, np.array([k, 0.0]), np.array([1.0, 0.0])
    # d' = 0.9 d - 0.2 v + x; v' = b v + 0.5 d'
    matrix = np.array([[0.9, -0.2], [0.45, b - 0.1]])
    neuron = TwoCompartmentLIF(alpha=0.9, beta=b, to_dendrite=-0.2, to_soma=0.5, threshold=HIGH)
    yield neuron, matrix, np.array([1.0, 0.5]), np.array([0.0, 1.0])


@pytest.mark.parametrize("neuron, matrix, into, read", list(linear()), ids=lambda each: type(each).__name__)
def test_below_threshold_a_membrane_is_linear(neuron, matrix, into, read, noise):
    x = noise(60, 3, dtype=torch.float64)

    spikes, v = run(neuron, x)

    assert not spikes.any()
    assert_same(v=(v, powers(matrix, into, read, x.numpy())), **ROUNDING)


@pytest.mark.parametrize("neuron", (AlphaLIF(threshold=HIGH), AlphaLI()), ids=repr)
def test_a_spike_through_an_alpha_synapse_rises_before_it_falls(neuron):
    x, n = torch.zeros(80, 1, dtype=torch.float64), np.arange(80)
    x[0] = 1

    _, v = run(neuron, x)

    current = 0.3 * (n + 1) * 0.7**n  # its charge is 1 / (1 - alpha), that of a CubaLIF
    wanted = np.array([sum(0.9 ** (t - k) * current[k] for k in range(t + 1)) for t in n])
    assert_same(v=(v[:, 0], torch.tensor(wanted)), **ROUNDING)
    assert current.sum() == pytest.approx(1 / 0.3, rel=1e-9)


def test_an_alpha_membrane_is_a_difference_of_two_exponentials():
    x, n = torch.zeros(80, 1, dtype=torch.float64), np.arange(80)
    x[0] = 1

    _, v = run(Alpha(alpha=0.9, beta=0.8, gain=2, threshold=HIGH), x)

    assert_same(v=(v[:, 0], torch.tensor(2 * (0.9**n - 0.8**n))), **ROUNDING)


@pytest.mark.parametrize("omega", (0.1, 0.5, 0.9))
def test_a_balanced_resonator_lasts_at_the_divergence_boundary(omega):
    x, n = torch.zeros(200, 1, dtype=torch.float64), np.arange(200)
    x[0] = 1

    _, u = run(BRF(omega=omega, offset=0, threshold=HIGH), x)

    assert_same(u=(u[:, 0], torch.tensor(np.cos(math.asin(omega) * n))), **ROUNDING)  # amplitude 1, asin(omega) a step


def test_a_balanced_resonator_below_the_boundary_decays(noise):
    x, z, found = noise(200, 4, dtype=torch.float64).numpy(), np.zeros(4, complex), []
    for x_t in x:
        z = (math.sqrt(1 - 0.3**2) - 0.1 + 0.3j) * z + x_t
        found.append(z.real)

    _, u = run(BRF(omega=0.3, offset=0.1, threshold=HIGH), x)

    assert_same(u=(u, torch.tensor(np.stack(found))), **ROUNDING)


# Firing


@pytest.mark.parametrize("period", (0, 1, 3, 7))
def test_a_refractory_neuron_rests_for_its_period(period):
    spikes, v = run(RefractoryLIF(period=period), torch.full((50, 1), 5.0))  # would fire in every step

    assert spikes[:, 0].nonzero()[:, 0].tolist() == list(range(0, 50, period + 1))
    assert (v[spikes == 0] == 0).all()  # it hears nothing


def test_each_neuron_has_a_refractory_period_of_its_own():
    spikes, _ = run(RefractoryLIF(period=(0, 2, 5)), torch.full((60, 3), 5.0))

    assert spikes.sum(0).tolist() == [60, 20, 10]


@pytest.mark.parametrize("levels", (2, 5, 8))
def test_a_graded_neuron_counts_the_multiples_of_its_threshold(levels):
    x = torch.linspace(-2, 8, 101, dtype=torch.float64)[None]

    spikes, _ = run(GradedLIF(threshold=0.75, levels=levels), x)

    wanted = sum((x > k * 0.75).double() for k in range(1, levels + 1))
    assert_same(spikes=(spikes, wanted))
    assert spikes.max() == levels


def test_a_quadratic_neuron_fires_above_its_rheobase_alone():
    rheobase = 0.2 * 0.5**2 / 4  # where a v (v - critical) + x touches 0
    x = torch.tensor([[0.98 * rheobase, 1.02 * rheobase]]).expand(1500, 2)

    spikes, _ = run(QIF(a=0.2, critical=0.5), x)

    assert spikes.sum(0)[0] == 0 and spikes.sum(0)[1] >= 2


def test_strong_inhibition_fires_no_quadratic_neuron():
    x = torch.zeros(100, 1)
    x[0] = -300

    spikes, v = run(QIF(a=0.2, critical=0.5), x)

    assert not spikes.any() and (v.diff(dim=0) >= 0).all()


def other_quadratic(x, a=0.2, critical=0.5, threshold=1.0):
    v, rows = np.zeros(x.shape[1]), []
    for x_t in x:
        v = v + a * np.where(v > -critical, v, -critical) * (v - critical) + x_t
        rows.append(v > threshold)
        v[v > threshold] = 0
    return np.stack(rows)


def other_exponential(x, beta=0.9, rho=0.97, delta=0.2, a=0.1, b=0.1, threshold=0.8, peak=1.0):
    v, w, rows = np.zeros(x.shape[1]), np.zeros(x.shape[1]), []
    for x_t in x:
        slope = delta * np.exp(np.minimum((v - threshold) / delta, 5)) - v - w
        v, w = v + (1 - beta) * slope + x_t, w + (1 - rho) * (a * v - w)
        rows.append(v > peak)
        w[v > peak] += b
        v[v > peak] = 0
    return np.stack(rows)


def other_resonator(x, dt=0.02, rate=10.0, offset=1.0):
    """The step of Higuchi et al. in their units, whose refractory variable falls by 0.9."""
    u, v, q, rows = *np.zeros((3, x.shape[1])), []
    boundary = (-1 + math.sqrt(1 - (dt * rate) ** 2)) / dt
    for x_t in x:
        b = boundary - offset - q
        u, v = u + b * u * dt - rate * v * dt + x_t / dt * dt, v + rate * u * dt + b * v * dt
        rows.append(u - 1 - q > 0)
        q = 0.9 * q + rows[-1]
    return np.stack(rows)


def other_symplectic(x, alpha=0.9, beta=0.97, a=0.5, b=1.0, q=30.0):
    """The step of Baronig et al., who reset at once."""
    u, w, rows = *np.zeros((2, x.shape[1])), []
    for x_t in x:
        u = alpha * u + (1 - alpha) * (x_t - w)
        rows.append(u > 1)
        u = u * (1 - rows[-1])
        w = beta * w + (1 - beta) * (a * u + b * rows[-1]) * q
    return np.stack(rows)


def other_adaptive(x, alpha=0.9, beta=0.97, a=0.1, b=0.2):
    u, w, s, rows = *np.zeros((3, x.shape[1])), []
    for x_t in x:
        w = beta * w + a * u + b * s
        u = alpha * (u - s) + (1 - alpha) * (x_t - w)
        s = (u > 1).astype(float)
        rows.append(s)
    return np.stack(rows)


OTHERS = (
    (QIF(), other_quadratic, 0.2), (AdEx(), other_exponential, 0.5), (BRF(), other_resonator, 1.0),
    (SEAdLIF(), other_symplectic, 10.0), (AdLIF(), other_adaptive, 10.0),
)  # fmt: skip


@pytest.mark.parametrize("neuron, other, scale", OTHERS, ids=[type(neuron).__name__ for neuron, *_ in OTHERS])
def test_it_fires_as_another_implementation(neuron, other, scale, noise):
    x = scale * noise(300, 5, dtype=torch.float64)

    spikes, _ = run(neuron, x)

    assert_same(spikes=(spikes, torch.tensor(other(x.numpy()).astype(float))))
    assert spikes.sum() > 20


def his_program(current, a, b, c, d, *, ms=500):
    """Spike times of Izhikevich's program of 2003, for one neuron under a constant input."""
    v, u, times = -65.0, b * -65.0, []
    for t in range(ms):
        if v > 30:
            v, u = c, u + d
        for _ in range(2):
            v = v + 0.5 * (0.04 * v**2 + 5 * v + 140 - u + current)
        u = u + a * (b * v - u)
        if v > 30:
            times.append(t)
    return times


PATTERNS = {
    "regular": (0.02, 0.2, -65.0, 8.0), "bursting": (0.02, 0.2, -55.0, 4.0),
    "chattering": (0.02, 0.2, -50.0, 2.0), "fast": (0.1, 0.2, -65.0, 2.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def patterns():
    """Spike times of each published pattern, under an input of 10."""
    found = {}
    for name, (a, b, c, d) in PATTERNS.items():
        spikes, _ = run(Izhikevich(a=a, b=b, c=c, d=d, gain=1), torch.full((500, 1), 10.0))
        found[name] = spikes[:, 0].nonzero()[:, 0].tolist()
    return found


def test_an_izhikevich_neuron_fires_when_his_program_does(patterns):
    his = {name: his_program(10.0, *numbers) for name, numbers in PATTERNS.items()}

    until = {"fast": 150}  # then rounding has grown: fast spiking is not periodic in steps of 1 ms
    for name, times in patterns.items():
        assert [t for t in times if t < until.get(name, 500)] == [t for t in his[name] if t < until.get(name, 500)]


def test_an_izhikevich_neuron_has_the_published_patterns(patterns):
    gaps = {name: np.diff(times) for name, times in patterns.items()}

    assert gaps["regular"][0] < gaps["regular"][-1] and gaps["regular"].min() > 5  # adapts, one by one
    assert gaps["bursting"][0] <= 5 and gaps["bursting"][-1] > 10  # a burst, then one by one
    assert (gaps["chattering"] <= 5).sum() > 10 and (gaps["chattering"] > 20).sum() > 3  # burst after burst
    assert len(patterns["fast"]) > 1.5 * len(patterns["regular"])


@pytest.mark.parametrize("neuron", EVERY_OF_LIBRARY, ids=repr)
def test_silence_in_gives_silence_out(neuron):
    out, v = run(neuron, torch.zeros(100, 2))

    if type(neuron) is not Izhikevich:  # which starts at -65 mV and settles at -70
        assert_same(v=(v, torch.zeros_like(v) if type(neuron) is not AdEx else v))
    assert not is_spiking(neuron) or not out.any()


# Others' neurons


def snntorch_steps(cell, x, count):
    """Spikes and membranes of a cell of snnTorch with `count` states, of which the membrane is the last."""
    state, rows = (torch.zeros_like(x[0]),) * count, []
    for x_t in x:
        spikes, *state = cell(x_t, *state)
        rows.append((spikes, state[-1]))
    return [torch.stack(row).detach() for row in zip(*rows, strict=True)]


@pytest.mark.parametrize("reset", ("subtract", "zero", "none"))
def test_lapicque_equals_snntorch(reset, noise):
    x = 4 * noise(100, 3, 5)
    spikes, v = snntorch_steps(snntorch.Lapicque(R=3.0, C=2.0, time_step=0.7, reset_mechanism=reset), x, 1)

    with use_backend("reference"):
        mine, _, potentials = simulate(Lapicque(R=3, C=2, step=0.7, reset=reset), x, potentials=True)

    assert_same(spikes=(mine, spikes), v=(potentials, v))
    assert 0.02 < spikes.mean() < 0.7


@pytest.mark.parametrize("reset", ("zero", "none"))  # "subtract" there is another equation
def test_alpha_equals_snntorch(reset, noise):
    x, a, b = 2 * noise(100, 3, 5), torch.tensor(0.9), torch.tensor(0.8)
    spikes, v = snntorch_steps(snntorch.Alpha(alpha=0.9, beta=0.8, reset_mechanism=reset), x, 3)
    gain = float(torch.log(a) / (torch.log(b) - torch.log(a)) + 1)

    with use_backend("reference"):
        mine, _, potentials = simulate(Alpha(alpha=0.9, beta=0.8, gain=gain, reset=reset), x, potentials=True)

    assert_same(spikes=(mine, spikes), v=(potentials, v))
    assert 0.02 < spikes.mean() < 0.7
    assert Alpha().gain == pytest.approx(gain, rel=1e-4)


@pytest.fixture(scope="module")
def norse():
    """The functions of Norse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("norse.torch", reason='needs norse: pip install -e ".[benchmark]"')
        from norse.torch.functional import lif_adex, lsnn
    return lif_adex, lsnn


def as_double(**values):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def test_an_lsnn_of_norse_is_an_alif_whose_input_comes_a_step_later(norse, noise):
    _, lsnn = norse
    x = 3 * noise(300, 2, 5, dtype=torch.float64)
    p = lsnn.LSNNParameters(
        **as_double(tau_syn_inv=200.0, tau_mem_inv=100.0, tau_adapt_inv=50.0),
        **as_double(v_leak=0.0, v_th=1.0, v_reset=0.0, beta=1.8),
    )
    zero, rows = torch.zeros_like(x[0]), []
    state = lsnn.LSNNFeedForwardState(v=zero, i=zero, b=zero + 1)
    for x_t in x:
        spikes, state = lsnn.lsnn_feed_forward_step(x_t, state, p, dt=0.001)
        rows.append(spikes)

    late = torch.cat([zero[None], 0.1 * x[:-1]])
    with use_backend("reference"):
        mine, _ = simulate(ALIF(alpha=0.8, beta=0.9, rho=0.95, kappa=0.95 * 1.8, reset="zero"), late)

    assert_same(spikes=(mine, torch.stack(rows)))
    assert mine.sum() > 50


def test_an_adex_of_norse_is_one_whose_peak_is_its_threshold(norse, noise):
    lif_adex, _ = norse
    x = 6 * noise(300, 2, 5, dtype=torch.float64)
    p = lif_adex.LIFAdExParameters(
        **as_double(adaptation_current=0.4, adaptation_spike=0.2, delta_T=0.5, tau_ada_inv=30.0, tau_syn_inv=200.0),
        **as_double(tau_mem_inv=100.0, v_leak=0.0, v_th=1.0, v_reset=0.0),
    )
    zero, rows = torch.zeros_like(x[0]), []
    state = lif_adex.LIFAdExFeedForwardState(v=zero, i=zero, a=zero)
    for x_t in x:
        spikes, state = lif_adex.lif_adex_feed_forward_step(x_t, state, p, dt=0.001)
        rows.append(spikes)

    neuron = AdEx(beta=0.9, rho=0.97, delta=0.5, a=0.4, b=0.2, threshold=1, peak=1, alpha=0.8)
    with use_backend("reference"):
        mine, _ = simulate(neuron, 0.1 * x)

    assert_same(spikes=(mine, torch.stack(rows)))
    assert mine.sum() > 50


# Gradients, and what is learned


def network_of(neuron, *, dtype=torch.float64):
    """The neuron, all of whose parameters learn, behind and in front of weights that let all fire."""
    layer = Spiking(neuron, learn=learnable(neuron))
    first, last = (layer, LI(beta=0.9)) if is_spiking(neuron) else (LIF(beta=0.8), layer)
    network = Network((Dense(5), first, Dense(3), last), (4,), seed=3).to(dtype)
    network.layers[0].weight.data *= 4
    return network


OTHER_CHOICES = [pytest.param(each, marks=pytest.mark.slow) for each in EVERY_OF_LIBRARY if each not in LIBRARY]


@pytest.mark.parametrize("neuron", [*LIBRARY, *OTHER_CHOICES], ids=repr)
def test_the_smoothed_gradient_equals_finite_differences(neuron, noise):
    x, targets = noise(7, 2, 4, dtype=torch.float64), torch.tensor([0, 2])

    rows = differences(network_of(neuron), x, targets, CountCrossEntropy(), directions=1, seed=0)

    checked = [row for row in rows if row.conclusive]
    assert all(row.within(1e-6) for row in checked)
    assert len(checked) >= 0.8 * len(rows) and {row.name for row in rows} > {"input"}


@pytest.mark.parametrize("neuron", LIBRARY, ids=repr)
def test_every_parameter_learns_and_stays_in_its_range(neuron, noise):
    network, kind = network_of(neuron, dtype=torch.float32), type(neuron).kind
    layer = next(each for each in network.layers if getattr(each, "neuron", None) == neuron)
    before = {name: value.clone() for name, value in layer.parameters_now().items()}

    with use_backend("reference"):
        for seed in range(4):
            out = network(noise(7, 4, 4, seed=seed, scale=2))
            MembraneCrossEntropy()(out, torch.tensor([0, 1, 2, 0])).backward()
            for weight in network.parameters():
                weight.data -= 0.5 * weight.grad.sign()
                weight.grad = None

    for name, value in layer.parameters_now().items():
        assert not torch.equal(value, before[name]), name
        check_range(kind.step.__name__, name, value.tolist(), kind.ranges[name])


def test_what_no_gradient_reaches_is_not_learned():
    with pytest.raises(SnnError, match=r"cannot learn 'period'.*no gradient.*It can learn: beta, threshold"):
        Spiking(RefractoryLIF(), learn=("period",))


# Values


@pytest.mark.parametrize("neuron", EVERY_OF_LIBRARY, ids=repr)
def test_a_neuron_is_a_value(neuron):
    assert eval(repr(neuron)) == neuron == pickle.loads(pickle.dumps(neuron)) == from_json(to_json(neuron))
    assert parse(repr(neuron), at="") == neuron and hash(neuron) == hash(from_json(to_json(neuron)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_kind_fires_as_it_comes_and_pickles_its_state(kind, noise):
    x = 0.5 + 3 * noise(100, 2, 3)
    with use_backend("reference"):
        out, state = simulate(kind(), x * (8 if kind in (AdLIF, SEAdLIF) else 1))

    assert 0 < float(out.abs().mean()) < 1 or not kind.kind.spiking
    again = pickle.loads(pickle.dumps(state))
    assert type(again) is type(state)
    assert all(torch.equal(a, b) for a, b in zip(again, state, strict=True) if a is not None)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_kind_names_its_source(kind):
    text = kind.kind.step.__doc__

    assert kind is AlphaLI or any(str(year) in text for year in range(1900, 2026))


def test_time_constants_are_decays_alone():
    assert at_step(AdLIF(beta=Tau(10), rho=Tau(50)), step_ms=5) == AdLIF(beta=math.exp(-0.5), rho=math.exp(-0.1))
    with pytest.raises(SnnError, match=r"BRF\(omega=Tau"):
        BRF(omega=Tau(20))
    with pytest.raises(SnnError, match=r"BRF\(omega=1.5\): it lies in 0..1"):
        BRF(omega=1.5)


def test_a_whole_number_can_be_chosen_from():
    assert GradedLIF(levels=np.int64(3)) == GradedLIF(levels=3)
    for wrong in (1, 9, 2.0, "3", True):
        with pytest.raises(SnnError, match=r"GradedLIF\(levels=.*it should be one of 2, 3, 4, 5, 6, 7, 8"):
            GradedLIF(levels=wrong)


def test_a_misspelt_neuron_is_answered_with_the_nearest():
    with pytest.raises(SnnError, match="Did you mean 'Izhikevich'"):
        parse("Izikevich(a=0.1)", at="model.1")
