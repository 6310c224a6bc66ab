"""snnTorch's own step loop against ours: the same spikes, potentials and gradients, or a refusal."""

import math

import pytest
import snntorch as snn
import torch
from catalogue import assert_near, assert_same, quick_first
from snntorch import surrogate as theirs
from snntorch import utils
from torch import nn

from snn_bp import (
    ALIF,
    IF,
    LI,
    LIF,
    ATan,
    BatchNorm,
    Boxcar,
    Conv,
    CubaLIF,
    Dense,
    Dropout,
    FastSigmoid,
    Flatten,
    Network,
    Pool,
    Recurrent,
    SnnError,
    Spiking,
    StraightThrough,
    Tau,
    simulate,
)
from snn_bp.exchange.snntorch import from_snntorch, to_snntorch

KINDS = {snn.Leaky: {}, snn.Synaptic: {"alpha": 0.8}, snn.RLeaky: {}, snn.RSynaptic: {"alpha": 0.8}}
RECURRENT = (snn.RLeaky, snn.RSynaptic)
RESETS = ("subtract", "zero", "none")


def theirs_of(kind, neurons, **options):
    """A neuron of snnTorch, its recurrence, if any, in multiples of 1 / 64."""
    torch.manual_seed(3)
    if kind in RECURRENT:
        options["linear_features"] = neurons
    module = kind(**{**KINDS[kind], "beta": 0.9, **options})
    if kind in RECURRENT:
        dyadic_weights(module.recurrent)
    return module


@torch.no_grad()
def dyadic_weights(module, *, scale=1.0):
    """Round every weight to a multiple of 1 / 64, so that sums are exact in any order."""
    for parameter in module.parameters():
        parameter.copy_(torch.round(64 * scale * parameter) / 64)


def step_by_hand(net, x):
    """The spikes and potentials of the last layer, by the loop that snnTorch's documentation shows."""
    states = [()] * len(net)
    spikes, potentials = [], []
    for x_t in x:
        for place, module in enumerate(net):
            if isinstance(module, snn.SpikingNeuron):
                out = module(x_t, *states[place])
                states[place] = out if isinstance(module, RECURRENT) else out[1:]
                x_t, v = out[0], out[-1]
            else:
                x_t = module(x_t)
        spikes.append(x_t)
        potentials.append(v)
    return torch.stack(spikes), torch.stack(potentials)


def step_hidden(net, x):
    """The output of every step of a network that holds its state, as `to_snntorch` says."""
    utils.reset(net)
    outs = [net(x_t) for x_t in x]
    return torch.stack([out[-1] if isinstance(out, tuple) else out for out in outs])


# One neuron, over more than 100,000 neuron-steps


@pytest.mark.parametrize("beta", quick_first((0.5, 0.9, 1.0), 0.9))
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_neuron_equals_snntorch_in_spikes_potentials_and_gradients(kind, reset, beta, noise):
    net = nn.Sequential(theirs_of(kind, 40, beta=beta, reset_mechanism=reset, threshold=0.9))
    network = from_snntorch(net, (40,))
    x = noise(65, 40, 40, scale=0.6).requires_grad_()
    weights = noise(*x.shape, seed=1)

    wanted, wanted_v = step_by_hand(net, x)
    wanted_gradient = torch.autograd.grad((weights * wanted).sum(), x)[0]
    activity = network.observe(x)[0][0]
    gradient = torch.autograd.grad((weights * activity.spikes).sum(), x)[0]

    assert x.numel() > 1e5 and 0.02 < float(wanted.detach().mean()) < 0.7
    assert_same(spikes=(activity.spikes, wanted))
    # a recurrent input is added before the decayed state here, after it there: a rounding of 6e-8 for each step
    assert_near(share=1e-6 if kind in RECURRENT else 0.0, potentials=(activity.potentials, wanted_v))
    # at beta = 1 a potential of 300 thresholds rounds by 1e-4 of one, which the surrogate's slope then feels
    assert_near(share=3e-5 if kind in RECURRENT else 1e-6, x=(gradient, wanted_gradient))


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("kind", RECURRENT, ids=lambda kind: kind.__name__)
def test_a_recurrent_neuron_is_exact_where_its_sums_are(kind, reset, dyadic):
    # everything a multiple of 2^-6, halved at each of 14 steps: 20 bits after the point, 3 before
    options = {"alpha": 0.5} if kind is snn.RSynaptic else {}
    net = nn.Sequential(theirs_of(kind, 61, beta=0.5, reset_mechanism=reset, **options))
    network = from_snntorch(net, (61,))
    x = dyadic(14, 121, 61, scale=0.8)

    wanted, wanted_v = step_by_hand(net, x)
    activity = network.observe(x)[0][0]

    assert x.numel() > 1e5 and 0.02 < float(wanted.detach().mean()) < 0.7
    assert_same(spikes=(activity.spikes, wanted), potentials=(activity.potentials, wanted_v))


@pytest.mark.parametrize(
    "kind", quick_first((snn.Leaky, snn.Synaptic, snn.RLeaky), snn.Leaky), ids=lambda kind: kind.__name__
)
def test_a_zero_without_delay_is_our_zero_with_gradients_through_the_reset(kind, noise):
    net = nn.Sequential(theirs_of(kind, 7, reset_mechanism="zero", reset_delay=False))
    network = from_snntorch(net, (7,))
    x = noise(65, 5, 7, scale=0.6).requires_grad_()
    weights = noise(*x.shape, seed=1)

    wanted, _ = step_by_hand(net, x)
    spikes = network(x)

    assert network.model[0] in (
        LIF(beta=torch.tensor(0.9), reset="zero", detach_reset=False),
        CubaLIF(alpha=torch.tensor(0.8), beta=torch.tensor(0.9), reset="zero", detach_reset=False),
        Recurrent(LIF(beta=torch.tensor(0.9), reset="zero", detach_reset=False), bias=True),
    )
    assert_same(spikes=(spikes, wanted))
    gradients = [torch.autograd.grad((weights * out).sum(), x)[0] for out in (spikes, wanted)]
    assert_near(share=1e-5, x=(gradients[0], gradients[1]))


@pytest.mark.parametrize("kind", (snn.Leaky, snn.Synaptic), ids=lambda kind: kind.__name__)
def test_the_gradients_of_decays_and_thresholds_equal_snntorch(kind, noise):
    values = {"beta": torch.linspace(0.1, 0.95, 7), "threshold": torch.linspace(0.5, 2, 7)}
    if kind is snn.Synaptic:
        values["alpha"] = torch.linspace(0.9, 0.2, 7)
    module = kind(**{k: v.clone() for k, v in values.items()}, **{f"learn_{name}": True for name in values})
    neuron = CubaLIF(alpha=0.5, beta=0.5) if kind is snn.Synaptic else LIF(beta=0.5)
    x, weights = noise(65, 5, 7), noise(65, 5, 7, seed=1)

    wanted, _ = step_by_hand(nn.Sequential(module), x)
    (weights * wanted).sum().backward()
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    parameters = {"theta" if name == "threshold" else name: leaf for name, leaf in leaves.items()}
    spikes, _, _ = simulate(neuron, x, None, ATan(per="potential"), potentials=True, parameters=parameters)
    (weights * spikes).sum().backward()

    assert_same(spikes=(spikes, wanted))
    assert_near(share=1e-5, **{name: (leaf.grad, getattr(module, name).grad) for name, leaf in leaves.items()})


# Networks


@pytest.mark.slow
def test_a_deep_network_equals_snntorch_with_every_weights_gradient(dyadic):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, stride=(2, 1)),
        snn.Leaky(beta=0.9, reset_mechanism="zero", threshold=0.4),
        nn.AvgPool2d(2),
        snn.Leaky(beta=0.8, threshold=0.2),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(2 * 3 * 2, 11),
        snn.RSynaptic(alpha=0.4, beta=0.9, linear_features=11, threshold=torch.linspace(0.1, 0.3, 11)),
        nn.Linear(11, 5, bias=False),
        snn.Synaptic(alpha=0.5, beta=0.9, reset_mechanism="zero", threshold=0.3),
    )
    dyadic_weights(net)
    network = from_snntorch(net, (2, 11, 7))
    x = dyadic(23, 3, 2, 11, 7)

    wanted, _ = step_by_hand(net, x)
    spikes = network(x)
    wanted.square().sum().backward()
    spikes.square().sum().backward()

    assert 0.02 < float(wanted.detach().mean()) < 0.9
    assert_same(spikes=(spikes, wanted))
    mine, their = list(network.parameters()), [p for p in net.parameters() if p.grad is not None]
    pairs = {f"weight {k}": (a.grad, b.grad) for k, (a, b) in enumerate(zip(mine, their, strict=True))}
    assert_near(share=1e-5, **pairs)


def test_weights_are_copied_and_not_shared():
    net = nn.Sequential(nn.Linear(3, 2), snn.Leaky(beta=0.9))

    network = from_snntorch(net, (3,))
    back = to_snntorch(network)
    with torch.no_grad():
        net[0].weight.zero_()

    assert network.layers[0].weight.any()
    assert back[0].weight.any()
    assert back[0].weight is not network.layers[0].weight


def test_frozen_weights_stay_frozen():
    net = nn.Sequential(nn.Linear(3, 2), snn.RLeaky(beta=0.9, linear_features=2, learn_recurrent=False))
    net[0].bias.requires_grad_(False)

    network = from_snntorch(net, (3,))

    assert [p.requires_grad for p in network.parameters()] == [True, False, False, False]
    assert [p.requires_grad for p in to_snntorch(network).parameters()] == [True, False, False, False]


def test_batch_norm_and_dropout_pass_in_evaluation(noise):
    net = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7, momentum=0.2), snn.Leaky(beta=0.9), nn.Dropout(0.5))
    net[1].train()(3 * noise(50, 7) + 1)
    net.eval()

    network = from_snntorch(net, (5,))
    x = noise(13, 3, 5)

    assert not network.training
    assert network.model[1] == BatchNorm(momentum=0.2) and network.model[3] == Dropout(0.5)
    assert_same(spikes=(network(x), step_by_hand(net, x)[0]))


def test_learned_parameters_keep_their_values_and_stay_learned():
    beta, threshold = torch.linspace(0.1, 0.95, 7), torch.linspace(0.3, 2, 7)
    net = nn.Sequential(
        snn.Leaky(beta=beta.clone(), threshold=threshold.clone(), learn_beta=True, learn_threshold=True)
    )

    network = from_snntorch(net, (7,))
    back = to_snntorch(network)

    # through a logistic function and its inverse: a few roundings
    values = network.layers[0].parameters_now()
    assert_same(beta=(values["beta"], beta), threshold=(values["theta"], threshold), rtol=1e-6)
    assert isinstance(back[0].beta, nn.Parameter) and isinstance(back[0].threshold, nn.Parameter)
    assert_same(beta=(back[0].beta, values["beta"]), threshold=(back[0].threshold, values["theta"]))


MODELS = (
    (LIF(beta=0.9), LIF(beta=0.8, reset="zero"), LIF(beta=0.7, reset="none")),
    (LIF(beta=0.9, reset="zero", detach_reset=False), IF(threshold=1.5), LI(beta=0.9)),
    (CubaLIF(alpha=0.5, beta=0.9), CubaLIF(alpha=0.5, beta=0.9, reset="zero_all"), LI(alpha=0.3, beta=0.9)),
    (CubaLIF(alpha=0.5, beta=0.9, reset="zero", detach_reset=False), CubaLIF(alpha=0.5, beta=0.9, reset="none")),
    (Recurrent(LIF(beta=0.9)), Recurrent(LIF(beta=0.9, reset="zero_all"), bias=True), Recurrent(IF(reset="none"))),
    (Recurrent(CubaLIF(alpha=0.5, beta=0.9)), Recurrent(CubaLIF(alpha=0.5, beta=0.9, reset="zero_all"))),
    (Recurrent(LIF(beta=0.9, reset="zero", detach_reset=False)), LIF(beta=[0.1, 0.2, 0.3, 0.4, 0.5])),
    (Spiking(LIF(beta=0.9, threshold=1.2), learn=("beta", "threshold")), Spiking(LI(beta=0.9), learn=("beta",))),
)


@pytest.mark.parametrize("neurons", quick_first(MODELS, *MODELS[::3]), ids=str)
def test_there_and_back_gives_the_same_output(neurons, dyadic):
    model = tuple(layer for neuron in neurons for layer in (Dense(5), neuron))
    network = Network(model, (7,), surrogate=FastSigmoid(5, per="potential"), seed=1)
    dyadic_weights(nn.ModuleList([layer for layer in network.layers if isinstance(layer, nn.Linear)]), scale=3)
    x = dyadic(31, 3, 7, scale=2)

    wanted = network(x)
    stepped = step_hidden(to_snntorch(network), x)
    back = from_snntorch(to_snntorch(network), (7,))

    assert wanted.any()
    # a recurrent sum has another order: its potentials may differ by a rounding, its spikes did not
    assert_same(stepped=(stepped, wanted), rtol=1e-6, atol=1e-6)
    assert_same(back=(back(x), wanted), rtol=1e-6, atol=1e-6)
    assert back.surrogate == network.surrogate


def test_there_and_back_keeps_every_layer_without_state(coin):
    model = (
        Conv(4, 3, padding=1, groups=2),
        LIF(beta=0.9, threshold=0.3),
        Pool(2, kind="sum"),
        Conv(3, (2, 3), stride=2, dilation=(1, 2), bias=False),
        BatchNorm(),
        LIF(beta=0.9, threshold=0.3),
        Dropout(0.2),
        Pool(2, kind="max", stride=1),
        Flatten(),
        Dense(5),
        LI(beta=0.9),
    )
    network = Network(model, (2, 13, 17), surrogate=StraightThrough(per="potential")).eval()
    x = coin(11, 3, 2, 13, 17, probability=0.3)

    back = from_snntorch(to_snntorch(network), (2, 13, 17))

    # LIF(threshold=0.3) comes back as the nearest single-precision number, which is what a step uses
    assert [type(layer) for layer in back.model] == [type(layer) for layer in network.model]
    assert back.model[2:4] == (
        Pool(2, kind="sum", stride=2),
        Conv(3, (2, 3), stride=(2, 2), padding=(0, 0), dilation=(1, 2), bias=False),
    )
    assert_same(out=(back(x), network(x)))


def test_one_dimensional_layers_come_over(coin):
    net = nn.Sequential(
        nn.Conv1d(2, 3, 5),
        snn.Leaky(beta=torch.linspace(0.5, 0.95, 3)[:, None]),
        nn.MaxPool1d(2),
        nn.Conv1d(3, 3, 1),
        nn.AvgPool1d(3),
        nn.Flatten(),
    )
    dyadic_weights(net)
    network = from_snntorch(net, (2, 17))
    x = coin(11, 3, 2, 17, probability=0.3)

    assert_same(out=(network(x), step_by_hand(net, x)[0]), atol=1e-6)  # a mean of three is a rounded sum


def test_the_surrogate_comes_over_with_its_slope():
    pairs = {
        None: ATan(2.0, per="potential"),
        theirs.atan(alpha=3.5): ATan(3.5, per="potential"),
        theirs.fast_sigmoid(slope=7): FastSigmoid(7.0, per="potential"),
        theirs.straight_through_estimator(): StraightThrough(per="potential"),
    }

    for spike_grad, surrogate in pairs.items():
        assert from_snntorch(nn.Sequential(snn.Leaky(beta=0.9, spike_grad=spike_grad)), (3,)).surrogate == surrogate


def test_a_subtraction_without_delay_is_ours_before_the_leak_until_a_potential_exceeds_two_thresholds(noise):
    ours = LIF(beta=0.9, reset="subtract_before_leak")
    for scale, equal in ((0.9, True), (3, False)):  # what is left, 1 at most, decays to 0.9: 1.8 with the input
        x = scale * noise(100, 8, 40).abs().clamp(max=1)
        wanted, _ = step_by_hand(nn.Sequential(leaky(reset_delay=False)), x)
        assert torch.equal(simulate(ours, x)[0], wanted.detach()) == equal and wanted.mean() > 0.1


# What is refused


def leaky(**options):
    return snn.Leaky(**{"beta": 0.9, **options})


REFUSED = {
    "subtract without delay": (leaky(reset_delay=False), r"subtract.* twice the threshold.*reset_delay=True would"),
    "RSynaptic without delay": (
        snn.RSynaptic(alpha=0.5, beta=0.9, linear_features=3, reset_mechanism="none", reset_delay=False), "reset_delay",
    ),
    "graded spikes": (leaky(graded_spikes_factor=2.0), "graded_spikes_factor"),
    "learned graded spikes": (leaky(learn_graded_spikes_factor=True), "graded_spikes_factor"),
    "quantized state": (leaky(state_quant=lambda v: v), "state_quant"),
    "no surrogate": (leaky(surrogate_disable=True), "surrogate_disable"),
    "beta above 1": (leaky(beta=1.3), r"lies in 0..1"),
    "one learned beta": (leaky(learn_beta=True), r"beta=torch.full\(\(3,\), value\) would work"),
    "double precision": (leaky().double(), r"\.float\(\)"),
    "one-to-one recurrence": (snn.RLeaky(beta=0.9, all_to_all=False), "all_to_all=True"),
    "recurrent convolution": (snn.RLeaky(beta=0.9, conv2d_channels=3, kernel_size=3), "all_to_all=True"),
    "Alpha": (snn.Alpha(alpha=0.9, beta=0.8), "no equal here.*Leaky, Synaptic"),
    "Lapicque": (snn.Lapicque(beta=0.9), "no equal here"),
    "a subclass": (type("Mine", (snn.Leaky,), {})(beta=0.9), "it has no equal"),
    "tanh": (nn.Tanh(), "no equal here"),
    "padding": (nn.Conv1d(1, 1, 3, padding="same"), "Give it as numbers"),
    "circular padding": (nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"), "padding_mode='zeros' would work"),
    "padded pooling": (nn.AvgPool1d(3, padding=1), "padding=0 would work"),
    "oblong pooling": (nn.AvgPool2d((2, 3)), "square"),
    "divided pooling": (nn.AvgPool2d(2, divisor_override=3), "divisor_override=None"),
    "batch norm in training": (nn.BatchNorm1d(3), r"Call .eval\(\)"),
    "dropout in training": (nn.Dropout(), r"Call .eval\(\)"),
    "batch norm without weights": (nn.BatchNorm1d(3, affine=False).eval(), "affine=True"),
    "a flatten of time": (nn.Flatten(0), "start_dim=1"),
    "a surrogate of their own": (leaky(spike_grad=lambda u: u), "atan, fast_sigmoid"),
    **{
        name: (leaky(spike_grad=getattr(theirs, name)()), f"spike_grad '{name}'")
        for name in ("heaviside", "triangular", "SFS", "SSO", "LSO", "spike_rate_escape")
    },
}  # fmt: skip


@pytest.mark.parametrize("module, message", REFUSED.values(), ids=REFUSED)
def test_what_has_no_equal_here_is_refused_with_its_place(module, message):
    with pytest.raises(SnnError, match=rf"^from_snntorch: layer 0 \(\w+\): .*{message}"):
        from_snntorch(nn.Sequential(module), (3,))


def test_inhibition_is_refused():
    with pytest.warns(UserWarning, match="unstable"):
        module = leaky(inhibition=True)

    with pytest.raises(SnnError, match="inhibition=False would work"):
        from_snntorch(nn.Sequential(module), (3,))


def test_a_reset_set_after_construction_is_refused():
    module = leaky()
    module.reset_mechanism = "zero"  # snnTorch goes on subtracting

    with pytest.raises(SnnError, match="Build it with the one you mean"):
        from_snntorch(nn.Sequential(module), (3,))


def test_two_surrogates_in_one_network_are_refused():
    net = nn.Sequential(leaky(), leaky(spike_grad=theirs.atan(3.0)))

    with pytest.raises(SnnError, match=r"one surrogate, found ATan\(slope=2.0.*layer 0, ATan\(slope=3.0.*layer 1"):
        from_snntorch(net, (3,))


def test_states_handed_to_the_next_layer_are_refused():
    net = nn.Sequential(leaky(init_hidden=True, output=True), nn.Linear(3, 2))

    with pytest.raises(SnnError, match="output=False would work"):
        from_snntorch(net, (3,))


@pytest.mark.parametrize("net", (nn.Linear(3, 2), nn.Sequential(), nn.ModuleList([nn.Linear(3, 2)])), ids=str)
def test_what_is_no_sequential_is_refused(net):
    with pytest.raises(SnnError, match=r"takes an nn\.Sequential"):
        from_snntorch(net, (3,))


@pytest.mark.parametrize("net, shape", (((nn.Linear(4, 2),), (3,)), ((snn.RLeaky(beta=0.9, linear_features=4),), (3,))))
def test_weights_for_another_shape_are_refused(net, shape):
    with pytest.raises(SnnError, match="layer 0"):
        from_snntorch(nn.Sequential(*net), shape)


UNKNOWN_THERE = {
    "adaptation": ((ALIF(beta=0.9, rho=0.9, kappa=0.1),), "no adaptive threshold"),
    "LIF zero_all": ((LIF(beta=0.9, reset="zero_all"),), r"snn.Leaky has no reset='zero_all'.*reset='zero', detach"),
    "CubaLIF zero": ((CubaLIF(alpha=0.5, beta=0.9, reset="zero"),), r"Synaptic has no.*detach_reset=False"),
    "gradients through a subtraction": ((LIF(beta=0.9, detach_reset=False),), "with detach_reset=False"),
    "subtract before the leak": (
        (LIF(beta=0.9, reset="subtract_before_leak"),),
        r"Leaky has no.*reset='subtract', det",
    ),
    "recurrent zero": ((Recurrent(LIF(beta=0.9, reset="zero")),), "RLeaky has no reset='zero'"),
    "LI inside": ((LI(beta=0.9), LIF(beta=0.9)), "may stand last"),
    "slope per threshold": ((LIF(beta=0.9, threshold=2.0),), "per='potential'"),
    "learned slope per threshold": ((Spiking(LIF(beta=0.9), learn=("threshold",)),), "per='potential'"),
    "dropout in training": ((LIF(beta=0.9), Dropout(0.5)), r"Call .eval\(\)"),
}


@pytest.mark.parametrize("model, message", UNKNOWN_THERE.values(), ids=UNKNOWN_THERE)
def test_what_has_no_equal_in_snntorch_is_refused_with_its_place(model, message):
    with pytest.raises(SnnError, match=rf"^to_snntorch: model\.\d .*: .*{message}"):
        to_snntorch(Network(model, (3,)))


def test_a_surrogate_that_snntorch_lacks_is_refused():
    with pytest.raises(SnnError, match=r"Boxcar\(slope=2.0\) has no equal in snnTorch. Those that have: ATan"):
        to_snntorch(Network((LIF(beta=0.9),), (3,), surrogate=Boxcar()))


def test_a_network_in_double_precision_is_refused():
    with pytest.raises(SnnError, match=r"weight is torch.float64.*\.float\(\)"):
        to_snntorch(Network((Dense(2), LIF(beta=0.9)), (3,)).double())


def test_a_neuron_that_cannot_fire_is_a_readout():
    net = nn.Sequential(snn.Leaky(beta=0.5, threshold=math.inf, reset_mechanism="none"))

    assert from_snntorch(net, (3,)).model == (LI(beta=0.5),)


def test_a_time_constant_needs_its_step_first():
    with pytest.raises(SnnError, match="at_step"):
        to_snntorch(Network((LIF(beta=Tau(20)),), (3,)))


def test_neurons_at_two_places_are_refused_as_their_state_would_part():
    neurons = snn.Leaky(beta=0.9, init_hidden=True)
    net = nn.Sequential(nn.Linear(4, 3), neurons, nn.Linear(3, 3), neurons)

    with pytest.raises(SnnError, match=r"layer 3 \(Leaky\): it is the same neurons as layer 1"):
        from_snntorch(net, (4,))


@pytest.mark.parametrize("method", ["fire", "mem_reset", "state_function"])
def test_neurons_with_a_method_put_in_place_of_their_own_are_refused(method):
    neurons = snn.Leaky(beta=0.9, init_hidden=True)
    setattr(neurons, method, lambda mem: mem)

    with pytest.raises(SnnError, match="put in place of its own"):
        from_snntorch(nn.Sequential(nn.Linear(4, 3), neurons), (4,))
