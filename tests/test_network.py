"""A network: its layers one after the other, its state in sight, nothing kept between calls."""

import copy
import pickle

import pytest
import torch
from catalogue import assert_same
from torch import nn

from snn_bp import (
    ALIF,
    IF,
    LI,
    LIF,
    BatchNorm,
    Conv,
    CubaLIF,
    Dense,
    Dropout,
    Flatten,
    Network,
    OnChip,
    Pool,
    Recurrent,
    SnnError,
    Spiking,
    State,
    Tau,
    decay,
    simulate,
    start_alive,
)
from snn_bp.kernels import use_backend
from snn_bp.model.layers import with_step
from snn_bp.model.names import name_today, path_of

CHAIN = (
    Conv(3, 3, padding=1),
    LIF(beta=0.9, reset="zero", threshold=0.2),
    Pool(2, kind="sum"),
    Flatten(),
    Dropout(0.3),
    Dense(11),
    CubaLIF(alpha=0.7, beta=0.85, threshold=0.2),
    Dense(7),
    Recurrent(LIF(beta=0.9, reset="zero", threshold=0.2)),
    Dense(5),
    LI(beta=0.9),
)
SHAPE = (2, 9, 7)


@torch.no_grad()
def dyadic_network(seed=0):
    """The chain in evaluation, its weights in multiples of 1 / 64: sums of weights are exact in any order."""
    network = Network(CHAIN, SHAPE, seed=seed).eval()
    for parameter in network.parameters():
        parameter.copy_(torch.round(64 * parameter) / 64)
    return network


def test_a_network_is_its_layers_one_after_the_other(coin):
    network = Network((Dense(11), LIF(beta=0.9, reset="zero"), Dense(5), LI(beta=0.9)), (7,), seed=1).double()
    x = coin(17, 3, 7, probability=0.4).double()

    first, second = network.layers[0], network.layers[2]
    hidden, _ = simulate(LIF(beta=0.9, reset="zero"), first(x.flatten(0, 1)).unflatten(0, (17, 3)))
    wanted, _ = simulate(LI(beta=0.9), second(hidden.flatten(0, 1)).unflatten(0, (17, 3)))

    assert hidden.any()
    assert_same(out=(network(x), wanted), atol=1e-12)  # sums are taken in another order


def test_shapes_are_those_of_one_step_after_each_layer():
    network = Network(CHAIN, SHAPE)

    assert network.shapes == [(3, 9, 7), (3, 9, 7), (3, 4, 3), (36,), (36,), (11,), (11,), (7,), (7,), (5,), (5,)]
    assert network.output_shape == (5,)
    assert network(torch.zeros(2, 3, *SHAPE)).shape == (2, 3, 5)


def test_layers_without_state_see_all_steps_at_once(coin):
    network = Network(CHAIN, SHAPE)
    calls = []
    for layer in network.layers:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Flatten):
            layer.register_forward_hook(lambda layer, given, out: calls.append((type(layer), given[0].shape[0])))

    network(coin(13, 3, *SHAPE, probability=0.3))

    assert calls == [(kind, 39) for kind in (nn.Conv2d, nn.Flatten, nn.Linear, nn.Linear, nn.Linear)]


@pytest.mark.parametrize("sizes", ((20, 21), (1, 40), (7, 13, 21)), ids=str)
def test_streaming_in_pieces_equals_the_whole(sizes, coin):
    network = dyadic_network()
    x = coin(41, 3, *SHAPE, probability=0.3)

    whole, last = network.run(x)
    state, pieces = None, []
    for piece in x.split(sizes):
        out, state = network.run(piece, state)
        pieces.append(out)

    assert whole.any() and state is not None
    assert_same(out=(torch.cat(pieces), whole))
    for k, (got, wanted) in enumerate(zip(state, last, strict=True)):
        assert_same(**{f"state {k}": (got.v, wanted.v)})


def test_a_network_observed_does_what_it_does_unobserved(coin):
    network = dyadic_network()
    x = coin(17, 3, *SHAPE, probability=0.3)

    out, last = network.run(x)
    activities, state = network.observe(x)

    assert [activity.name for activity in activities] == [
        "model.1 LIF(beta=0.9, threshold=0.2, reset='zero')",
        "model.6 CubaLIF(alpha=0.7, beta=0.85, threshold=0.2)",
        "model.8 Recurrent(LIF(beta=0.9, threshold=0.2, reset='zero'))",
        "model.10 LI(beta=0.9)",
    ]
    assert all(activity.spikes.any() for activity in activities)
    assert_same(out=(activities[-1].spikes, out), potentials=(activities[-1].potentials, out))
    assert_same(state=(state[1].v, last[1].v))


def test_nothing_is_held_between_calls(coin):
    network = dyadic_network()
    x, other = coin(17, 3, *SHAPE, probability=0.3), coin(5, 2, *SHAPE, probability=0.5, seed=1)

    first = network(x)
    network(other)
    second = network(x)

    assert_same(out=(second, first))


def test_the_state_given_is_left_as_it_was(coin):
    network = dyadic_network()
    x = coin(17, 3, *SHAPE, probability=0.3)
    _, state = network.run(x)
    kept = copy.deepcopy([State(*(p if p is None else p.detach() for p in part)) for part in state])

    network.run(x, state)

    for got, wanted in zip(state, kept, strict=True):
        assert all(p is None or torch.equal(p, w) for p, w in zip(got, wanted, strict=True))


def test_samples_of_a_batch_do_not_meet(coin):
    network = dyadic_network()
    x = coin(17, 5, *SHAPE, probability=0.3)

    assert_same(out=(network(x)[:, 1:3], network(x[:, 1:3])))


@pytest.mark.parametrize("copied", (copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))), ids=("deepcopy", "pickle"))
def test_a_copy_gives_the_same_output(copied, coin):
    network = dyadic_network()
    x = coin(17, 3, *SHAPE, probability=0.3)

    assert_same(out=(copied(network)(x), network(x)))


@pytest.mark.slow
def test_in_double_precision_everything_is_double(coin):
    network = Network((*CHAIN[:-2], Spiking(ALIF(beta=0.9, rho=0.9, kappa=0.1), learn=("beta",))), SHAPE).double()

    out, state = network.run(coin(5, 3, *SHAPE, probability=0.3).double())

    assert out.dtype == torch.float64
    assert {part.dtype for parts in state for part in parts if part is not None} == {torch.float64}


def test_half_precision_goes_through_a_network_under_autocast(coin):
    network = dyadic_network()
    x = coin(7, 3, *SHAPE, probability=0.3)

    with torch.autocast("cpu", torch.bfloat16):
        out, state = network.run(x)

    assert out.shape == (7, 3, 5) and torch.isfinite(out).all()
    assert {part.v.dtype for part in state} == {torch.float32}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, second, other = (Network(CHAIN, SHAPE, seed=seed).state_dict() for seed in (3, 3, 4))

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_building_a_network_leaves_torchs_generator_alone():
    torch.manual_seed(0)
    wanted = torch.rand(3)

    torch.manual_seed(0)
    Network(CHAIN, SHAPE, seed=5)

    assert torch.equal(torch.rand(3), wanted)


# Starting alive


def test_no_layer_of_a_deep_network_starts_silent(coin):
    model = tuple(layer for _ in range(5) for layer in (Dense(64), LIF(beta=0.8, reset="zero")))
    network = Network(model, (200,), seed=0)
    x = coin(100, 16, 200, probability=0.02)
    before = [float(activity.spikes.detach().mean()) for activity in network.observe(x)[0]]

    start_alive(network, x)

    rates = [float(activity.spikes.detach().mean()) for activity in network.observe(x)[0]]
    assert before == [0.0] * 5
    assert all(0.02 < rate < 0.5 for rate in rates)


def test_starting_alive_gives_the_first_layer_the_spread_asked_for(coin):
    network = Network((Dense(31), LIF(beta=0.9, threshold=0.7)), (50,))
    x = coin(60, 8, 50, probability=0.05)

    start_alive(network, x, spread=0.5)

    free, _ = simulate(LI(beta=0.9), network.layers[0](x))
    assert float((free.detach() / 0.7).square().mean().sqrt()) == pytest.approx(0.5, rel=1e-4)
    assert not network.layers[0].bias.any()


def test_starting_alive_leaves_weights_behind_batch_norm_and_of_the_readout_alone(coin):
    network = Network((Dense(7), BatchNorm(), LIF(beta=0.9), Dense(5), LI(beta=0.9)), (11,))
    before = [parameter.detach().clone() for parameter in network.parameters()]

    start_alive(network, coin(20, 4, 11, probability=0.2))

    assert all(torch.equal(*pair) for pair in zip(network.parameters(), before, strict=True))


def test_starting_alive_gives_batch_norm_the_statistics_of_the_batch(coin):
    network = Network((Dense(7), BatchNorm(momentum=0.2), LIF(beta=0.9)), (11,))
    x = coin(20, 4, 11, probability=0.2)

    start_alive(network, x)

    norm, current = network.layers[1], network.layers[0](x)
    assert norm.momentum == 0.2
    assert_same(mean=(norm.running_mean, current.mean((0, 1))), var=(norm.running_var, current.var((0, 1))), atol=1e-6)


# Time constants


def test_a_step_turns_every_time_constant_of_a_model_into_a_decay():
    model = (
        Dense(5),
        LIF(beta=Tau(20)),
        Spiking(CubaLIF(alpha=Tau(5), beta=Tau(20)), learn=("beta",)),
        Recurrent(IF()),
        LI(beta=0.9),
    )

    resolved = with_step(model, step_ms=4)

    alpha, beta = decay(tau_ms=5, step_ms=4), decay(tau_ms=20, step_ms=4)
    assert resolved == (
        Dense(5),
        LIF(beta=beta),
        Spiking(CubaLIF(alpha=alpha, beta=beta), learn=("beta",)),
        Recurrent(IF()),
        LI(beta=0.9),
    )


def test_a_time_constant_without_a_step_is_refused():
    with pytest.raises(SnnError, match="needs the width of a step"):
        Network((LIF(beta=Tau(20)),), (3,))(torch.zeros(2, 1, 3))


# Input in bytes

BYTES = {
    "dense": (Flatten(), Dense(9), LIF(beta=0.8), Dense(4), LIF(beta=0.7)),
    "recurrent": (Flatten(), Dense(9), Recurrent(LIF(beta=0.8)), Dense(4), LI(beta=0.7)),
    "norm": (Flatten(), Dense(9), BatchNorm(), LIF(beta=0.8)),
    "convolution": (Conv(3, 3), BatchNorm(), LIF(beta=0.8), Flatten(), Dense(4), LIF(beta=0.7)),
    "neurons": (LIF(beta=0.5), Flatten(), Dense(4), LIF(beta=0.7)),
    "pool": (Pool(2), Flatten(), Dense(4), LIF(beta=0.7)),
}
KINDS = {
    "spikes": (0.2, 2),
    "counts": (0.2, 9),
    "many": (0.9, 250),
    "silence": (0.0, 2),
}  # share not zero, counts below


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", BYTES)
def test_bytes_give_what_the_same_floats_give(model, kind):
    share, below = KINDS[kind]
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(1, below, (30, 4, 2, 6, 7), generator=generator, dtype=torch.uint8)
    x = counts * (torch.rand(counts.shape, generator=generator) < share)
    found = []
    for given in (x.float(), x):
        network = Network(BYTES[model], (2, 6, 7), seed=3)
        out, rates, _ = network.rates(given)
        (out.square().sum() + sum(rate.sum() for rate in rates)).backward()
        found.append([out, *rates, *(weight.grad for weight in network.parameters())])

    assert x.any() == (share > 0)
    assert all(torch.equal(floats, in_bytes) for floats, in_bytes in zip(*found, strict=True))


@pytest.mark.parametrize("how", ("bool", "double", "reference", "loihi", "observed"))
def test_bytes_are_taken_wherever_floats_are(how):
    x = (torch.rand(30, 4, 11, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.uint8)
    model = (Dense(9, bias=False), LIF(beta=0.75, reset="zero", threshold=0.25)) * 2
    network = OnChip(Network(model, (11,))) if how == "loihi" else Network(model, (11,))
    network = network.double() if how == "double" else network

    with use_backend("reference" if how == "reference" else "fastest"):
        floats, given = x.to(next(network.parameters()).dtype), x.bool() if how == "bool" else x
        if how == "observed":
            (wanted, *_), _ = network.observe(floats)
            (got, *_), _ = network.observe(given)
            assert_same(spikes=(got.spikes, wanted.spikes), potentials=(got.potentials, wanted.potentials))
        else:
            assert network(floats).any() and torch.equal(network(given), network(floats))
            assert network.plan(given) == network.plan(floats)


# What is refused


def test_an_empty_model_is_refused():
    with pytest.raises(SnnError, match="the model is empty"):
        Network((), (3,))


@pytest.mark.parametrize("shape", ((5, 3, 8), (5, 7), (7,), (5, 3, 7, 1)), ids=str)
def test_an_input_of_another_shape_is_refused(shape):
    with pytest.raises(SnnError, match=r"input should be \[time, batch, 7\], found"):
        Network((Dense(3), LIF(beta=0.9)), (7,))(torch.zeros(shape))


@pytest.mark.parametrize("dtype", (torch.int64, torch.int8))
def test_an_input_of_whole_numbers_other_than_bytes_is_refused(dtype):
    with pytest.raises(SnnError, match="float"):
        Network((Dense(3), LIF(beta=0.9)), (7,))(torch.zeros(5, 3, 7, dtype=dtype))


def test_a_state_for_another_number_of_layers_is_refused():
    network = Network((Dense(3), LIF(beta=0.9), Dense(3), LIF(beta=0.9)), (7,))
    x = torch.zeros(5, 2, 7)
    _, state = network.run(x)

    with pytest.raises(SnnError, match="should have 2 parts, found 1"):
        network.run(x, state[:1])


def test_a_state_for_another_batch_is_refused():
    network = Network((Dense(3), LIF(beta=0.9)), (7,))
    _, state = network.run(torch.zeros(5, 2, 7))

    with pytest.raises(SnnError, match=r"state.v should have the shape \[3, 3\]"):
        network.run(torch.zeros(5, 3, 7), state)


def test_a_layer_that_does_not_fit_is_named_with_its_place():
    with pytest.raises(SnnError, match=r"model\.2 Conv\(3, 3\), on an input of \[5\]: Conv: it takes"):
        Network((Dense(5), LIF(beta=0.9), Conv(3, 3)), (7,))


def test_a_plan_says_how_each_layer_runs(coin):
    model = (Conv(12, 5), BatchNorm(), LIF(beta=0.9), Flatten(), Dense(20), LIF(beta=0.9), Dense(5), LIF(beta=0.9))
    network = Network(model, (2, 9, 8))

    sparse = network.plan(coin(6, 4, 2, 9, 8, probability=0.02))
    busy = network.plan(coin(6, 4, 2, 9, 8, probability=0.9))

    assert [line.partition(":")[0] for line in sparse] == [
        "model.0 Conv(12, 5)",
        "model.1 BatchNorm() - model.2 LIF(beta=0.9)",
        "model.3 Flatten()",
        "model.4 Dense(20) - model.5 LIF(beta=0.9) - model.6 Dense(5) - model.7 LIF(beta=0.9)",
    ]
    assert "events" in sparse[0] and "a product" in busy[0] and "one event-driven operation" in sparse[3]


def test_layers_that_are_taken_off_or_added_afterwards_run_as_they_are(coin):
    network = Network((Dense(9), LIF(beta=0.9, threshold=0.2), Dense(5), LIF(beta=0.9)), (7,))
    x, whole = coin(12, 3, 7, probability=0.5), list(network.layers)

    network.layers = nn.ModuleList(whole[:2])
    hidden = network(x)
    network.layers = nn.ModuleList((*whole[:2], nn.Linear(9, 4)))
    out = network(x)
    network.layers = nn.ModuleList((*whole, nn.Linear(5, 2)))
    longer = network(x)

    assert hidden.shape == (12, 3, 9) and hidden.any()
    assert out.shape == (12, 3, 4) and longer.shape == (12, 3, 2)
    assert network.name(4).startswith("model.4 Linear(")


def test_a_name_is_what_the_user_wrote():
    model = (Conv(4, (3, 5), padding=1), Pool(2, kind="max"), Flatten(), Dropout(), Dense(4, bias=False))
    neurons = (Spiking(ALIF(beta=(0.25, 0.5, 0.75, 1.0), rho=0.9, kappa=0.1), learn=("rho",)), BatchNorm(scale=0.5))
    network = Network((*model, *neurons), (2, 9, 9))

    assert [network.name(index) for index in range(7)] == [
        "model.0 Conv(4, (3, 5), padding=1)",
        "model.1 Pool(2, kind='max')",
        "model.2 Flatten()",
        "model.3 Dropout()",
        "model.4 Dense(4, bias=False)",
        "model.5 Spiking(ALIF(beta=(0.25, ..., 1), rho=0.9, kappa=0.1), learn=('rho',))",
        "model.6 BatchNorm(scale=0.5)",
    ]


def test_a_name_of_the_version_before_has_todays():
    model = (Dense(4), LIF(beta=0.9))

    assert name_today("layer 1 (LIF)", model) == "model.1 LIF(beta=0.9)"
    assert name_today("model.1 LIF(beta=0.9)", model) == "model.1 LIF(beta=0.9)"
    assert path_of("layer 11 (LIF)") == (11,) and path_of("model.3.0.1 Dense(4)") == (3, 0, 1)
