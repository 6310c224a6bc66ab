"""Surrogates of one's own: one line of arithmetic, compiled, integrated, checked and kept as ours are."""

import copy
import json
import math
import pickle
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from catalogue import assert_near, assert_same
from runs import assert_same_run, few_digits
from scipy.integrate import quad

from snn_bp import (
    ALIF,
    LI,
    LIF,
    ATan,
    BatchNorm,
    Conv,
    CubaLIF,
    Dense,
    Flatten,
    Network,
    Recurrent,
    SnnError,
    Surrogate,
    Train,
    check_gradients,
    resume,
    simulate,
    surrogate,
    trace,
    train,
    training,
    use_backend,
)
from snn_bp.equations.arithmetic import exp, spike, where
from snn_bp.instruments.quadrature import area
from snn_bp.instruments.smooth import at_edges, kinks_and_edges, smooth_spike
from snn_bp.kernels.gpu import neuron as gpu
from snn_bp.kernels.reference import torch_slope
from snn_bp.model.activity import height_of, in_window
from snn_bp.runs.changes import override
from snn_bp.runs.experiment import from_json, to_json
from snn_bp.runs.experiment_file import read_file, read_names
from snn_bp.surrogates import SHAPES

few_digits = few_digits


@surrogate
def Cauchy(u, *, slope=2.0):
    """A Cauchy density, but for its area."""
    return slope / (1 + (slope * u) ** 2)


@surrogate
def MyATan(u, *, slope=2.0):
    y = 1.5707963267948966 * slope * u
    return 0.5 * slope / (1 + y * y)


@surrogate
def Leaning(u, *, slope=1.0, left=0.5, floor=0.01):
    """A triangle of two widths on a floor: it jumps nowhere, and is asymmetric."""
    return max(slope * min(1 + slope * u / left, 1 - slope * u), floor)


@surrogate
def Ring(u, *, slope=2.0):
    """Nothing at threshold, most beside it."""
    y = slope * u
    return y * y * exp(-abs(y))


@surrogate(kinks=lambda *, slope: (-1 / slope, 1 / slope))
def Bump(u, *, slope=1.5):
    y = slope * u
    return where(y * y < 1, (1 - y * y) ** 2, 0)


@surrogate
def Step(u, *, slope=0.7, right=1.0):
    """Jumps to a half at `-slope`, down at `right`; the lower half counts alone."""
    return where((u > -slope) & ~(u >= right), where(u < 0, 0.5, 1), 0)


@surrogate(integral=lambda u, *, slope: torch.atan(slope * u) + 7)
def Given(u, *, slope=2.0):
    return slope / (1 + (slope * u) ** 2)


OWN = (Cauchy(3), MyATan(), Leaning(slope=1.3, left=0.8), Ring(1.7), Bump(), Step(slope=0.6), Given(1.4))
UNITS = tuple(replace(each, per=per) for each in OWN for per in ("threshold", "potential"))
NEURONS = (
    LIF(beta=0.9, threshold=0.7), CubaLIF(alpha=0.7, beta=0.85, reset="zero", detach_reset=False),
    ALIF(beta=0.9, rho=0.95, kappa=0.4),
)  # fmt: skip


def gradients(neuron, x, own, backend="fastest"):
    x = x.clone().requires_grad_()
    parameters = {name: torch.tensor(getattr(neuron, name), dtype=x.dtype, requires_grad=True) for name in ("beta",)}
    with use_backend(backend):
        spikes, _ = simulate(neuron, x, None, own, parameters=parameters)
        (spikes * torch.linspace(-1, 1, spikes.numel(), dtype=x.dtype).view(spikes.shape)).sum().backward()
    return {"spikes": spikes, "x": x.grad, "beta": parameters["beta"].grad}


@pytest.mark.parametrize("own", [*OWN[1:6], *(pytest.param(own, marks=pytest.mark.slow) for own in UNITS)], ids=repr)
def test_compiled_gradients_are_those_of_the_reference(own, noise):
    x = noise(23, 3, 7, dtype=torch.float64)

    got, wanted = gradients(NEURONS[0], x, own), gradients(NEURONS[0], x, own, "reference")

    assert_same(spikes=(got.pop("spikes"), wanted.pop("spikes")))
    assert float(wanted["x"].abs().max()) > 0
    assert_near(share=1e-12, **{name: (got[name], wanted[name]) for name in got})


@pytest.mark.parametrize(
    "neuron", [NEURONS[0], *(pytest.param(neuron, marks=pytest.mark.slow) for neuron in NEURONS[1:])], ids=repr
)
def test_atan_written_anew_is_atan(neuron, noise):
    for dtype, rounding in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
        x = noise(23, 3, 7, dtype=dtype)

        got, wanted = gradients(neuron, x, MyATan(3.1)), gradients(neuron, x, ATan(3.1))

        assert_same(spikes=(got.pop("spikes"), wanted.pop("spikes")))
        assert_near(share=rounding, **{name: (got[name], wanted[name]) for name in got})


def test_ours_written_anew_have_the_same_text():
    texts = {name: kind.recorded(()).text for name, kind in SHAPES.items()}

    assert MyATan().recorded.text == texts["ATan"]
    assert len(set(texts.values())) == len(SHAPES) == 9


@pytest.mark.skipif(not gpu.INSTALLED, reason="triton is not installed: pip install triton (Linux)")
@pytest.mark.parametrize("own", (OWN[2], OWN[3], OWN[5]), ids=repr)
def test_the_gpu_kernel_run_by_its_interpreter_has_the_gradients_of_the_reference(own, noise, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(gpu, "serves", lambda tensor: True)
    gpu.compiled_forward.cache_clear()
    gpu.compiled_backward.cache_clear()
    x = noise(4, 2, 7, dtype=torch.float64)

    wanted, got = gradients(NEURONS[0], x, own, "reference"), gradients(NEURONS[0], x, own)

    gpu.compiled_forward.cache_clear()
    gpu.compiled_backward.cache_clear()
    assert_near(share=1e-12, **{name: (got[name], wanted[name]) for name in got})


@pytest.mark.parametrize("own", OWN, ids=repr)
def test_the_area_is_that_of_quad(own):
    def shape(at: float) -> float:
        return float(own.recorded.at(np.array([at]), own.slope)[0])

    ends = (-40.0, -1.3, -0.21, -1e-5, 1e-9, 0.1, 0.47, 1.0, 2.6, 31.0)
    got = area(torch.tensor(ends, dtype=torch.float64), own)

    for end, found in zip(ends, got.tolist(), strict=True):
        inside = [kink for kink in own.kinks if min(0, end) < kink < max(0, end)] or None
        wanted, unsure = quad(shape, 0, end, points=inside, epsabs=0, epsrel=1e-13, limit=500)
        assert found == pytest.approx(wanted, rel=1e-12, abs=max(unsure, 1e-300) if unsure < 1e-11 else 0)


@pytest.mark.parametrize("ours", [Surrogate(name, 2.3) for name in SHAPES if name != "MultiGaussian"], ids=repr)
def test_the_area_of_ours_is_their_closed_form(ours):
    u = torch.cat([torch.linspace(-5, 5, 801, dtype=torch.float64) * 10.0**n for n in (-6, 0, 3)])

    closed = smooth_spike(u, torch.ones((), dtype=torch.float64), ours) - 0.5

    assert_same(area=(area(u, ours), closed), rtol=1e-12, atol=1e-16)  # 0.5 was added and taken away


def test_a_kink_that_nobody_named_costs_no_digit():
    @surrogate(kinks=())
    def Hidden(u):
        return where(u < 0.3, 1, 0.25)

    u = torch.tensor([0.1, 0.3, 0.7], dtype=torch.float64)

    assert_same(area=(area(u, Hidden()), torch.tensor([0.1, 0.3, 0.4], dtype=torch.float64)), rtol=1e-12)


@pytest.mark.parametrize("own", UNITS, ids=repr)
def test_the_derivative_of_the_smooth_spike_is_the_surrogate(own):
    u = torch.linspace(-4.01, 3.98, 401, dtype=torch.float64).requires_grad_()
    theta = torch.tensor(1.7, dtype=torch.float64)

    derivative = torch.autograd.grad(smooth_spike(u, theta, own).sum(), u)[0]

    assert_same(atol=1e-13, slope=(derivative, torch_slope(own)(u.detach(), theta).expand_as(u)))


def test_kinks_are_read_from_the_conditions():
    found = {repr(own): kinks_and_edges(own) for own in (Cauchy(), Leaning(), Ring(), Step(), Bump(slope=2.0))}

    low, high = -0.5 * (1 - 0.01), 1 - 0.01  # where the triangle meets its floor
    assert found["Cauchy(slope=2.0)"] == ((), ())
    kinks, edges = found["Leaning(slope=1.0, left=0.5, floor=0.01)"]
    assert kinks == pytest.approx((low, 0.0, high), rel=1e-15)
    assert edges == ()
    assert found["Ring(slope=2.0)"] == ((), ())  # its third derivative jumps
    assert found["Step(slope=0.7, right=1.0)"] == ((-0.7, 0.0, 1.0), (-0.7, 0.0, 1.0))
    assert found["Bump(slope=2.0)"] == ((-0.5, 0.5), ())


def test_potentials_on_a_jump_are_counted():
    theta = torch.ones(())

    assert at_edges(torch.tensor([-0.7, 0.3, 1.0]), theta, Step(), rounding=1e-6) == 2


CHECKED = (Cauchy(3), Bump(per="potential"), Given(1.4))
SMALL = (Dense(4), LIF(beta=0.9), Dense(3), LI(beta=0.9))
LARGE = (Dense(5), LIF(beta=0.9), Recurrent(CubaLIF(alpha=0.5, beta=0.8)), Dense(3), LI(beta=0.9))


@pytest.mark.parametrize(
    "own, model",
    [(OWN[2], SMALL), *(pytest.param(own, LARGE, marks=pytest.mark.slow) for own in (*CHECKED, OWN[2]))],
)
def test_gradients_of_the_smoothed_network_are_its_finite_differences(own, model, noise):
    network = Network(model, (4,), surrogate=own, seed=1).double()

    result = check_gradients(network, 2 * noise(5, 2, 4, dtype=torch.float64), torch.tensor([0, 2]))

    assert result.ok, str(result)


@pytest.mark.slow
def test_a_network_of_every_path_takes_it(noise):
    model = (
        Conv(3, 3, padding=1, bias=False), BatchNorm(), LIF(beta=0.8), Flatten(), Dense(6), LIF(beta=0.9),
        Dense(3), LI(beta=0.9),
    )  # fmt: skip
    grads = []

    for backend in ("fastest", "reference"):
        with use_backend(backend):
            network = Network(model, (1, 4, 5), surrogate=Leaning(left=2), seed=1).double()
            network(noise(7, 2, 1, 4, 5, dtype=torch.float64)).square().mean().backward()
        grads.append({name: weight.grad for name, weight in network.named_parameters()})

    assert_near(share=1e-10, **{name: (grads[0][name], grads[1][name]) for name in grads[0]})


def test_the_doctor_sees_a_window_beside_the_threshold(noise):
    network = Network((Dense(20), LIF(beta=0.9), Dense(3), LI(beta=0.9)), (6,), surrogate=Ring(), seed=1)
    theta = torch.ones(())

    height = height_of(Ring(), theta)
    slopes = torch_slope(Ring())(torch.tensor([0.0, 1e-3, 1.0]), theta)
    found = trace(network, 3 * noise(9, 4, 6), torch.tensor([0, 1, 2, 0])).layers[0]

    assert float(height) == pytest.approx(2 * 2 * math.exp(-2), rel=1e-6)
    assert in_window(slopes, height).tolist() == [False, False, True]
    assert 0 < found.window < 1
    assert_same(height=(found.height, height))


@pytest.mark.parametrize("ours", [Surrogate(name, 2.3) for name in SHAPES], ids=repr)
def test_the_height_of_ours_is_at_threshold(ours):
    theta = torch.tensor([0.5, 1.25])

    assert_same(height=(height_of(ours, theta), torch_slope(ours)(torch.zeros(2), theta)))


# As values


def test_it_is_a_value_like_ours():
    assert repr(Cauchy(3)) == "Cauchy(slope=3)"
    assert repr(Leaning(left=2, per="potential")) == "Leaning(slope=1.0, left=2.0, floor=0.01, per='potential')"
    assert Cauchy(3) == Cauchy(slope=3.0) != Cauchy()
    assert len({Cauchy(3), Cauchy(3.0), Given(3)}) == 2
    assert Cauchy.__doc__ == "A Cauchy density, but for its area."
    assert isinstance(Cauchy(), Surrogate)
    with pytest.raises(AttributeError):
        Cauchy().slope = 3  # type: ignore[misc]


@pytest.mark.parametrize("own", OWN, ids=repr)
def test_it_can_be_pickled_and_copied(own):
    for other in (pickle.loads(pickle.dumps(own)), copy.deepcopy(own), copy.copy(own)):
        assert other == own
        assert (other.shape, other.slope_of) == (own.shape, own.slope_of)


def test_other_numbers_are_another_shape_but_for_the_slope():
    assert Leaning(slope=3).shape == Leaning(slope=4).shape
    assert Leaning(left=0.3).shape != Leaning(left=0.4).shape


@pytest.mark.slow
def test_a_pickle_finds_its_shape_in_another_process(tmp_path):
    text = "def Mine(u, *, slope=1.0, width=2.0):\n    return 1 / (width + abs(u))\n"
    (tmp_path / "lab.py").write_text(f"from snn_bp import surrogate\n\n\n@surrogate\n{text}")
    write = "import pickle, lab; print(pickle.dumps(lab.Mine(width=3)).hex())"
    read = (
        "import pickle, sys, torch; s = pickle.loads(bytes.fromhex(sys.argv[1]));"
        "from snn_bp.kernels.reference import torch_slope; print(s, torch_slope(s)(torch.ones(1), torch.ones(())))"
    )

    held = run_python(write, tmp_path).strip()

    assert run_python(read, tmp_path, held) == "Mine(slope=1.0, width=3.0) tensor([0.2500])\n"


def run_python(text, folder, *arguments):
    done = subprocess.run([sys.executable, "-c", text, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# What is refused

SIGNATURES = (
    (lambda v, *, slope=2.0: v, "function of `u`"),
    (lambda: 1.0, "function of `u`"),
    (lambda u, slope=2.0: u, "'slope=2.0' is no parameter"),
    (lambda u, *more: u, "is no parameter"),
    (lambda u, *, slope="steep": u, "is a number"),
    (lambda u, *, per=1.0: u, "no name for a parameter"),
    (lambda u, *, shape=1.0: u, "no name for a parameter"),
    (lambda u, *, kind=1.0: u, "no name for a parameter"),
)
LINES = (
    (lambda u, *, slope=2.0: -slope * exp(-abs(u)), "nowhere above 0"),
    (lambda u, *, slope=2.0: 0 * u, "nowhere above 0"),
    (lambda u, *, slope=2.0: 1 / u, "at u=0 it is inf"),
    (lambda u, *, slope=2.0: exp(u) / (1 + exp(u)) ** 2, "single precision"),
    (lambda u, *, slope=2.0: (u + 1) ** 0.5, "it is nan"),
    (lambda u, *, slope=2.0: math.exp(-u), "math.exp"),
    (lambda u, *, slope=2.0: 1 if u > 0 else 0, "where\\("),
    (lambda u, *, slope=2.0: torch.exp(u), "torch's exp"),
    (lambda u, *, slope=2.0: spike(u), "no spike"),
    (lambda u, *, slope=2.0: (u, u), "one number, found 2"),
    (lambda u, *, slope=2.0: None, "returns nothing"),
    (lambda u, *, slope=2.0: random.random() / (1 + u * u), "called twice"),
    (lambda u, *, slope=2.0: undefined / (1 + u * u), "NameError"),  # type: ignore[name-defined]  # noqa: F821
    (lambda u, *, slope=2.0: where(u * u < 1, 1, 0), "@surrogate\\(kinks="),
)


@pytest.mark.parametrize("function, told", [*SIGNATURES, *LINES], ids=[told for _, told in (*SIGNATURES, *LINES)])
def test_what_is_no_surrogate_is_refused_in_a_sentence(function, told):
    with pytest.raises(SnnError, match=told) as error:
        surrogate(function)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "beside, told",
    (
        ({"integral": lambda u: u}, r"should be a function of \(u, \*, slope\)"),
        ({"kinks": lambda: (1.0,)}, r"should be a function of \(\*, slope\)"),
        ({"kinks": ("left",)}, "points u"),
    ),
)
def test_what_does_not_fit_the_line_is_refused(beside, told):
    with pytest.raises(SnnError, match=told):
        surrogate(**beside)(lambda u, *, slope=2.0: 1 / (1 + abs(u)))


def test_the_integral_of_another_shape_is_refused():
    @surrogate(integral=lambda u, *, slope: torch.atan(slope * u) / 2)
    def Half(u, *, slope=2.0):
        return slope / (1 + (slope * u) ** 2)

    with pytest.raises(SnnError, match="its integral= is that of another shape"):
        smooth_spike(torch.zeros(3), torch.ones(()), Half())


@pytest.mark.parametrize(
    "make, told",
    (
        (lambda: Cauchy(-1.0), "positive number, as in Cauchy"),
        (lambda: Leaning(left="wide"), "Leaning\\(left='wide'\\)"),
        (lambda: Leaning(floor=math.nan), "floor"),
        (lambda: Cauchy(per="volt"), "per='volt'"),
        (lambda: Leaning(left=0.0), "at u=0 it is nan"),
        (lambda: simulate(NEURONS[0], torch.zeros(2, 1, 1), None, Cauchy), r"write Cauchy\(\)"),  # type: ignore[arg-type]
        (lambda: Train(surrogate=Cauchy), r"Cauchy\(...\)"),  # type: ignore[arg-type]
        (lambda: Train(surrogate=type("Mine", (type(Cauchy()),), {})()), "a surrogate"),  # type: ignore[call-arg]
        (lambda: surrogate(3), "above a function"),  # type: ignore[arg-type]
        (lambda: Surrogate("Cauchy", 2.0), "surrogate shape"),
    ),
)
def test_values_that_are_none_are_refused(make, told):
    with pytest.raises(SnnError, match=told):
        make()


# In runs

MINE = """from snn_bp import BatchNorm, Data, Dense, Experiment, Flatten, LI, LIF, Train, main, surrogate

HALF = 0.5


@surrogate(kinks=lambda *, slope, width: (-width, width))
def Mine(u, *, slope=2.0, width=3.0):
    return max(HALF * slope / (1 + abs(slope * u)), 0 * u) * (1 - min((u / width) ** 2, 1))


experiment = Experiment(
    Data("digits", step_ms=104, steps=3, downsample=2, batch=32),
    (Flatten(), Dense(12), BatchNorm(), LIF(beta=0.7), Dense(10), LI(beta=0.7)),
    Train(epochs=2, lr=5e-3, surrogate=Mine(slope=1.5)),
)
if __name__ == "__main__":
    main(experiment)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An experiment file, and a cache of the user's own."""
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def test_json_names_it_by_file_and_name_and_a_change_finds_it(mine):
    experiment, kinds = read_names(mine)

    content = to_json(experiment)["train"]["surrogate"]
    changed, _ = override(experiment, ["train.surrogate=Mine(slope=4, per='potential')"], kinds)
    slower, said = override(experiment, ["train.surrogate.width=7"], kinds)

    assert content == {"is": "mine.py:Mine", "slope": 1.5, "per": "threshold", "width": 3.0}
    assert repr(changed.train.surrogate) == "Mine(slope=4, width=3.0, per='potential')"
    assert repr(slower.train.surrogate) == "Mine(slope=1.5, width=7.0)"
    assert said == ["train.surrogate.width=7 (was 3.0)"]


@pytest.mark.slow
def test_a_run_with_it_trains_resumes_and_is_evaluated_in_another_process(mine, few_digits, tmp_path):
    experiment = read_file(mine)

    whole = train(experiment, tmp_path / "whole", quiet=True)
    for number, _ in enumerate(training(experiment, tmp_path / "cut", quiet=True)):
        if number == 6:
            break
    run = resume(tmp_path / "cut", quiet=True)
    told = run_python(
        "import sys, snn_bp; r = snn_bp.Run(sys.argv[1]); n = r.network();"
        "print(n.surrogate, [p for p in sys.modules if p == 'mine'])",
        tmp_path / "cache", str(tmp_path / "whole"),
    )  # fmt: skip

    assert_same_run(run, whole)
    assert told == "Mine(slope=1.5, width=3.0) []\n"
    assert "HALF = 0.5" in (tmp_path / "whole" / "code" / "mine.py").read_text()
    assert json.loads((tmp_path / "whole" / "experiment.json").read_text())["code"].keys() >= {"mine.py:Mine"}


def test_files_of_ours_are_as_they_were():
    held = {"is": "Surrogate", "shape": "FastSigmoid", "slope": 25.0, "per": "potential"}
    old = (  # of ATan(), from before shapes were recorded
        b"\x80\x04\x95]\x00\x00\x00\x00\x00\x00\x00\x8c\x11snn_bp.surrogates\x94\x8c\tSurrogate\x94\x93\x94)\x81\x94}"
        b"\x94(\x8c\x05shape\x94\x8c\x04ATan\x94\x8c\x05slope\x94G@\x00\x00\x00\x00\x00\x00\x00\x8c\x03per\x94\x8c\tthre"
        b"shold\x94ub."
    )

    value = from_json(held)

    assert (to_json(value), repr(value)) == (held, "FastSigmoid(slope=25.0, per='potential')")
    assert pickle.loads(old) == ATan()
    assert type(ATan()) is Surrogate
