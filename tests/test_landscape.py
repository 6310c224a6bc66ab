"""Loss slices: the network itself in the middle, filters of their own length, and a slope where spikes are smooth."""

import pytest
import torch
from catalogue import assert_same

from snn_bp import LI, LIF, BatchNorm, Conv, CountCrossEntropy, Dense, Flatten, MembraneCrossEntropy, Network, SnnError
from snn_bp.instruments.landscape import filter_normalised, loss_slice
from snn_bp.instruments.unroll import Variant, unroll

TARGETS = torch.tensor([2, 0, 1])
LOSS = CountCrossEntropy()


@pytest.fixture
def network():
    return Network((Dense(7), BatchNorm(), LIF(beta=0.8), Dense(4), LIF(beta=0.8)), (5,), seed=1).double()


@pytest.fixture
def x(coin):
    return coin(9, 3, 5, probability=0.5).double()


def convolutional():
    return Network((Conv(3, 3), LIF(beta=0.8), Flatten(), Dense(4), LI(beta=0.9)), (2, 5, 5)).double()


@pytest.mark.parametrize("smoothed", (False, True))
def test_the_middle_of_a_slice_is_the_loss_of_the_network(network, x, smoothed):
    network.eval()

    found = loss_slice(network, x, TARGETS, LOSS, directions=2, points=3, smoothed=smoothed)

    out = unroll(network, x, variant=Variant(smooth=True))[0] if smoothed else network(x)
    assert found.losses.shape == (3, 3)
    assert found.losses[1, 1].item() == pytest.approx(LOSS(out, TARGETS).item(), rel=1e-12)


def test_a_slice_leaves_the_network_as_it_was(network, x):
    before = {name: part.clone() for name, part in network.state_dict().items()}

    loss_slice(network, x, TARGETS, LOSS, points=3)

    assert network.training
    assert all(torch.equal(before[name], part) for name, part in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_at_distance_one_stand_the_weights_plus_the_direction(network, x):
    found = loss_slice(network, x, TARGETS, LOSS, points=3, span=2.0)

    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name in found.directions[0]:
                weight += 2 * found.directions[0][name]
    assert found.grid.tolist() == [-2, 0, 2]
    assert found.losses[2].item() == pytest.approx(LOSS(network.eval()(x), TARGETS).item(), rel=1e-12)


def test_the_first_direction_runs_along_the_first_axis(network, x):
    one = loss_slice(network, x, TARGETS, LOSS, points=5, seed=3)
    two = loss_slice(network, x, TARGETS, LOSS, points=5, seed=3, directions=2)

    assert_same(along=(two.losses[:, 2], one.losses))
    assert not torch.equal(two.losses[2], one.losses)


def test_each_filter_of_a_random_direction_is_as_long_as_its_weights():
    network = convolutional()

    (direction,) = loss_slice(network, torch.zeros(1, 3, 2, 5, 5).double(), TARGETS, LOSS, points=2).directions

    assert direction.keys() == {"layers.0.weight", "layers.3.weight"}  # biases stay
    for name, part in direction.items():
        weight = dict(network.named_parameters())[name].detach()
        assert_same(rtol=1e-12, lengths=(part.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1)))


def test_a_filter_that_does_not_move_stays():
    network = convolutional()
    direction = {"layers.0.weight": torch.zeros(3, 2, 3, 3).double()}

    assert not filter_normalised(network, direction)["layers.0.weight"].any()


def test_the_same_seed_gives_the_same_slice(network, x):
    first, second, other = (loss_slice(network, x, TARGETS, LOSS, points=4, seed=seed) for seed in (5, 5, 6))

    assert torch.equal(first.losses, second.losses)
    assert not torch.equal(first.losses, other.losses)


def test_along_the_gradient_the_smoothed_loss_has_the_slope_of_the_gradient(x):
    network = Network((Dense(7), LIF(beta=0.8, reset="none"), Dense(4), LI(beta=0.9)), (5,)).double()
    loss = MembraneCrossEntropy()
    out, _ = unroll(network, x, variant=Variant(smooth=True))
    names = [name for name, _ in network.named_parameters()]
    found = torch.autograd.grad(loss(out, TARGETS), list(network.parameters()))

    losses = loss_slice(
        network, x, TARGETS, loss, directions=[dict(zip(names, found, strict=True))], span=1e-4, points=3, smoothed=True
    ).losses

    slope = (losses[2] - losses[0]) / 2e-4  # a central difference: off by its square, some 1e-8
    assert slope.item() == pytest.approx(sum(g.square().sum().item() for g in found), rel=1e-6)


def test_hard_spikes_make_a_staircase_of_counts(network, x):
    found = loss_slice(network, x, TARGETS, LOSS, span=1e-9, points=5)

    assert len(set(found.losses.tolist())) == 1  # no spike comes or goes within 1e-9


@pytest.mark.parametrize("directions", (0, 3, []))
def test_another_number_of_directions_is_refused(network, x, directions):
    with pytest.raises(SnnError, match="a slice has 1 or 2"):
        loss_slice(network, x, TARGETS, LOSS, directions=directions)


@pytest.mark.parametrize(
    "direction, message",
    (
        ({"weight": torch.zeros(7, 5)}, r"'weight' .* the network has one of layers.0.weight"),
        ({"layers.0.weight": torch.zeros(5, 7)}, r"shape \[5, 7\], the network has \[7, 5\]"),
    ),
)
def test_a_direction_that_does_not_fit_is_refused(network, x, direction, message):
    with pytest.raises(SnnError, match=message):
        loss_slice(network, x, TARGETS, LOSS, directions=[direction])


@pytest.mark.parametrize("wrong", ({"span": 0}, {"points": 1}, {"points": 2.5}))
def test_numbers_that_mean_nothing_are_refused(network, x, wrong):
    with pytest.raises(SnnError, match="it should be a"):
        loss_slice(network, x, TARGETS, LOSS, **wrong)
