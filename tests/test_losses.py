"""Losses against closed forms, and the way their gradients pull."""

import math

import pytest
import torch
import torch.nn.functional as F
from catalogue import assert_same

from snn_bp import (
    ALIF,
    LI,
    LIF,
    CountCrossEntropy,
    CountSquaredError,
    Delay,
    Dense,
    Dropout,
    FirstSpike,
    MaxCrossEntropy,
    MembraneCrossEntropy,
    Network,
    RateBounds,
    Recurrent,
    SnnError,
    Spiking,
)  # fmt: skip
from snn_bp.model.losses import check_loss

ON_SPIKES = (CountCrossEntropy(), CountSquaredError(), FirstSpike())
ON_POTENTIALS = (MembraneCrossEntropy(), MaxCrossEntropy())
LOSSES = (*ON_SPIKES, *ON_POTENTIALS)
ADAPTIVE = {"beta": 0.9, "rho": 0.9, "kappa": 0.1}
TARGETS = torch.tensor([2, 0, 4, 1])  # of 5 classes


def train_of(*steps, length=10):
    """One neuron's spikes at these steps, `[time, 1, 1]`."""
    spikes = torch.zeros(length, 1, 1, dtype=torch.float64)
    spikes[list(steps)] = 1
    return spikes


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_the_gradient_is_that_of_finite_differences(loss, noise):
    out = torch.sigmoid(noise(7, 4, 5, dtype=torch.float64)).requires_grad_()

    assert torch.autograd.gradcheck(lambda out: loss(out, TARGETS), out)


@pytest.mark.parametrize("loss", ON_SPIKES, ids=repr)
def test_the_loss_of_spikes_has_finite_gradients_at_spikes_and_silence(loss, coin):
    out = coin(7, 4, 5, probability=0.3)
    out[:, 0] = 0
    out[:, 1] = 1
    out.requires_grad_()

    loss(out, TARGETS).backward()

    assert out.grad is not None and torch.isfinite(out.grad).all() and out.grad.any()


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_the_loss_does_not_depend_on_the_order_of_the_samples(loss, noise):
    out, order = torch.sigmoid(noise(7, 4, 5, dtype=torch.float64)), torch.tensor([3, 0, 2, 1])

    # a mean in another order: a few roundings of 2.2e-16
    assert_same(loss=(loss(out[:, order], TARGETS[order]), loss(out, TARGETS)), rtol=1e-14)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_votes_go_up_and_the_loss_down_where_the_right_class_does_more(loss):
    little = torch.full((7, 4, 5), 0.2)
    much = little.clone()
    much[:, torch.arange(4), TARGETS] = 0.6

    assert torch.equal(loss.scores(much).argmax(1), TARGETS)
    assert loss(much, TARGETS) < loss(little, TARGETS)


def test_the_cross_entropy_of_counts_is_that_of_summed_spikes(coin):
    out = coin(13, 4, 5, probability=0.3)

    assert_same(loss=(CountCrossEntropy()(out, TARGETS), F.cross_entropy(out.sum(0), TARGETS)))


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_counts_of_half_precision_spikes_are_exact(dtype):
    out = torch.ones(4099, 1, 3, dtype=dtype)  # a sum in half precision would stop or round

    assert CountCrossEntropy().scores(out).tolist() == [[4099.0] * 3]


def test_the_cross_entropy_of_potentials_is_that_of_their_mean_or_maximum(noise):
    out = noise(13, 4, 5)

    assert_same(
        mean=(MembraneCrossEntropy()(out, TARGETS), F.cross_entropy(out.mean(0), TARGETS)),
        maximum=(MaxCrossEntropy()(out, TARGETS), F.cross_entropy(out.max(0).values, TARGETS)),
    )


def test_the_squared_error_of_rates_is_zero_at_the_wanted_rates():
    out = torch.zeros(10, 4, 5)
    out[:2] = 1
    out[:8, torch.arange(4), TARGETS] = 1

    assert CountSquaredError(right=0.8, wrong=0.2)(out, TARGETS).item() == pytest.approx(0, abs=1e-14)


def test_the_squared_error_of_silence_is_the_mean_of_the_wanted_squares():
    loss = CountSquaredError(right=0.8, wrong=0.2)(torch.zeros(10, 4, 5), TARGETS)

    assert loss.item() == pytest.approx((0.8**2 + 4 * 0.2**2) / 5, rel=1e-6)


@pytest.mark.parametrize("steps, time", (((0,), 0), ((3,), 3), ((3, 4, 9), 3), ((9,), 9), ((), 10)), ids=str)
def test_votes_for_the_first_spike_are_minus_its_time(steps, time):
    assert FirstSpike(scale=5.0).scores(train_of(*steps)).item() == -time / 5


def test_the_first_spike_of_the_right_class_is_pulled_earlier():
    out = torch.cat([train_of(6), train_of(2)], dim=2).requires_grad_()

    FirstSpike()(out, torch.tensor([0])).backward()

    right, wrong = out.grad[:, 0, 0], out.grad[:, 0, 1]
    assert (right[:6] < 0).all()  # more spike before the first lowers the loss
    assert not right[7:].any()  # what comes after it does not matter
    assert wrong[2] > 0  # less of the wrong class's first spike lowers it too
    assert (right[:6].diff() >= 0).all()  # the earlier, the more


def test_a_silent_right_class_is_called_upon_at_every_step():
    out = torch.cat([train_of(), train_of(2)], dim=2).requires_grad_()

    FirstSpike()(out, torch.tensor([0])).backward()

    assert (out.grad[:, 0, 0] < 0).all()


# Bounds on rates


def test_rates_within_their_bounds_cost_nothing():
    rates = [torch.full((7,), 0.3), torch.tensor([[0.1, 0.7], [0.2, 0.5]])]

    assert RateBounds(lower=0.1, upper=0.7)(rates).item() == 0


def test_the_penalty_is_the_squared_distance_from_the_bounds():
    silent, busy = torch.zeros(3), torch.ones(3)

    bounds = RateBounds(lower=0.25, upper=0.5, strength=8.0)

    assert bounds([silent]).item() == 8 * 0.25**2
    assert bounds([busy]).item() == 8 * 0.5**2
    assert bounds([silent, busy]).item() == 8 * (0.25**2 + 0.5**2)
    assert bounds([torch.cat([silent, busy])]).item() == 8 * (0.25**2 + 0.5**2) / 2


def test_each_layer_may_have_bounds_of_its_own():
    silent, busy = torch.zeros(3), torch.ones(3)

    assert RateBounds(lower=(0.0, 0.25), upper=(0.5, 1.0))([silent, busy]).item() == 0
    assert RateBounds(lower=(0.25, 0.0), upper=(1.0, 0.5))([silent, busy]).item() == 0.25**2 + 0.5**2


def test_a_rate_below_its_bound_is_pulled_up_and_one_above_down():
    rates = torch.tensor([0.0, 1.0], requires_grad=True)

    RateBounds(lower=0.1, upper=0.5)([rates]).backward()

    assert rates.grad[0] < 0 < rates.grad[1]


def test_the_penalty_has_the_gradient_of_finite_differences(noise):
    rates = torch.sigmoid(noise(7, 3, dtype=torch.float64)).requires_grad_()

    assert torch.autograd.gradcheck(lambda r: RateBounds(lower=0.45, upper=0.55)([r]), rates)


def test_no_hidden_layer_costs_nothing():
    assert RateBounds(lower=0.1, upper=0.5)([]).item() == 0


def test_bounds_for_another_number_of_layers_are_refused():
    with pytest.raises(SnnError, match="2 bounds for 1 hidden layers"):
        RateBounds(lower=(0.1, 0.2))([torch.zeros(5)])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: CountSquaredError(right="x"),
        lambda: CountSquaredError(wrong=1.5),
        lambda: FirstSpike(scale=0),
        lambda: RateBounds(lower="x"),
        lambda: RateBounds(upper=(0.1, 2.0)),
        lambda: RateBounds(strength=-1.0),
    ],
)
def test_numbers_that_mean_nothing_are_refused(wrong):
    with pytest.raises(SnnError, match="it should be a number"):
        wrong()


# Outputs and targets that are not meant


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (torch.tensor([2, 0, 4]), r"the classes of the 4 samples, int64 \[4\], found torch.int64 \[3\]"),
        (torch.tensor([2, 0, 4, 1, 1]), r"found torch.int64 \[5\]"),
        (torch.tensor(2), r"found torch.int64 \[\]"),
        (TARGETS[:, None], r"found torch.int64 \[4, 1\]"),
        (TARGETS.int(), r"found torch.int32 \[4\]. Use targets.long"),
        (TARGETS.float(), "found torch.float32"),
        (TARGETS.bool(), "found torch.bool"),
        (F.one_hot(TARGETS, 5), r"found torch.int64 \[4, 5\]"),
        (F.one_hot(TARGETS, 6).float(), r"found torch.float32 \[4, 6\]. .*Fractions of classes are floats \[4, 5\]"),
        (2 * F.one_hot(TARGETS, 5).float(), "the fraction of each class, .* found values from 0 on and sums of 2..2"),
        (1.5 * F.one_hot(TARGETS, 5) - 0.1, r"found values from -0.1 on and sums of 1..1. Classes .* int64 \[4\]"),
        (F.one_hot(TARGETS, 5) * math.nan, "found values from nan on"),
        ([2, 0, 4, 1], "found a list"),
        (TARGETS.numpy(), "found a ndarray"),
        (None, "found a NoneType"),
        (torch.tensor([2, 0, 5, 1]), r"a target is 5, the output has the classes 0\.\.4"),
        (torch.tensor([2, 0, -1, 1]), "a target is -1"),
        (torch.tensor([2, 0, -100, 1]), "a target is -100"),  # torch would leave it out without a word
    ],
    ids=str,
)
def test_targets_that_are_not_the_classes_of_the_samples_are_refused(loss, targets, told, coin):
    with pytest.raises(SnnError, match=told):
        loss(coin(7, 4, 5, probability=0.3), targets)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize(
    "out",
    [torch.zeros(4, 5), torch.zeros(7, 4, 5, 1), torch.zeros(0, 4, 5), torch.zeros(7, 4, 5, dtype=torch.int64), None],
    ids=lambda out: str(getattr(out, "shape", out)),
)
def test_an_output_without_time_batch_and_classes_is_refused(loss, out):
    with pytest.raises(SnnError, match=r"floats \[time, batch, classes\], found"):
        loss(out, TARGETS)


def test_the_first_spike_of_potentials_is_refused(noise):
    potentials = 3 * noise(7, 4, 5)

    for call in (lambda: FirstSpike()(potentials, TARGETS), lambda: FirstSpike().scores(potentials)):
        with pytest.raises(SnnError, match="it needs spikes, 0 or 1"):
            call()


def test_what_is_not_finite_is_left_to_who_looks_for_it():
    out = torch.full((7, 4, 5), float("nan"))

    assert all(torch.isnan(loss(out, TARGETS)) for loss in LOSSES)


READOUTS = {
    "spikes": (
        (Dense(5), LIF(beta=0.9)), (Dense(5), Recurrent(LIF(beta=0.9))), (Dense(5), Spiking(ALIF(**ADAPTIVE))),
        (Dense(5), LIF(beta=0.9), Delay(2)),
    ),
    "potentials": (
        (Dense(5), LI(beta=0.9)), (Dense(5), Spiking(LI(beta=0.9))), (Dense(5),), (Dense(5), LIF(beta=0.9), Dense(5)),
        (Dense(5), LIF(beta=0.9), Dropout(0.5)),
    ),
}  # fmt: skip
MEANT = {
    CountCrossEntropy(): ("spikes", "potentials"),
    CountSquaredError(): ("spikes", "potentials"),
    MembraneCrossEntropy(): ("spikes", "potentials"),
    MaxCrossEntropy(): ("potentials",),
    FirstSpike(): ("spikes",),
}


@pytest.mark.parametrize(("loss", "meant"), MEANT.items(), ids=repr)
def test_a_loss_is_refused_by_a_network_whose_output_it_does_not_mean(loss, meant):
    for output, models in READOUTS.items():
        for model in models:
            network = Network(model, (3,))
            if output in meant:
                check_loss(loss, network)
            else:
                with pytest.raises(SnnError, match=rf"{type(loss).__name__}.*End the model with"):
                    check_loss(loss, network)


def test_what_is_no_loss_of_ours_is_refused_by_name():
    own = type("Own", (CountCrossEntropy,), {})

    for wrong in (own(), CountCrossEntropy, F.cross_entropy, None):
        with pytest.raises(SnnError, match="it should be a loss"):
            check_loss(wrong, Network((Dense(5), LIF(beta=0.9)), (3,)))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's, of a scatter that is batched
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_checked_loss_still_passes_through_torchs_transforms(loss, coin):
    out = coin(7, 4, 5, probability=0.3)
    wanted = torch.autograd.grad(loss(leaf := out.clone().requires_grad_(), TARGETS), leaf)[0]

    assert_same(gradient=(torch.func.grad(lambda out: loss(out, TARGETS))(out), wanted), rtol=1e-6)
    both = torch.func.vmap(lambda out: loss(out, TARGETS))(torch.stack([out, out]))
    assert_same(batched=(both, loss(out, TARGETS).expand(2)), rtol=1e-6)


@pytest.mark.parametrize("rates", (None, torch.rand(3), [0.5], [None]), ids=("none", "tensor", "number", "nothing"))
def test_rates_that_are_not_those_of_layers_are_refused(rates):
    with pytest.raises(SnnError, match="RateBounds: it takes a list of tensors"):
        RateBounds()(rates)
