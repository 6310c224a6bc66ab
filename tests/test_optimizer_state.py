"""The optimizer's trace against closed forms for a gradient that stays the same."""

import math

import pytest
import torch

from snn_bp import LIF, Dense, Network, SnnError
from snn_bp.instruments.optimizer_state import trace_optimizer


@pytest.fixture
def network():
    return Network((Dense(7), LIF(beta=0.8), Dense(4, bias=False), LIF(beta=0.8)), (5,)).double()


def constant_gradient(network, *, size=3.0):
    """The same gradient of this size, and of either sign, at every weight."""
    for weight in network.parameters():
        signs = torch.ones(weight.numel(), dtype=weight.dtype)
        signs[::2] = -1
        weight.grad = size * signs.view_as(weight)


def rows_after(network, optimizer, *, steps):
    """The rows of each step's trace, every step taken."""
    found = []
    for _ in range(steps):
        constant_gradient(network)
        found.append(trace_optimizer(optimizer, network))
        optimizer.step()
    return found


def of_layers(network):
    """Weights and their number of each layer that has some."""
    return [list(layer.parameters()) for layer in network.layers if list(layer.parameters())]


def vector(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


@pytest.mark.parametrize("nesterov", (False, True))
def test_momentum_adds_a_constant_gradient_up_to_one_over_one_less_mu(network, nesterov):
    mu, lr = 0.9, 0.01
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=mu, nesterov=nesterov)

    for count, rows in enumerate(rows_after(network, optimizer, steps=150), start=1):
        sum_of_powers = (1 - mu**count) / (1 - mu)
        step = 1 + mu * sum_of_powers if nesterov else sum_of_powers
        for row in rows:
            assert row.momentum == pytest.approx(sum_of_powers * row.gradient)
            assert row.cosine == pytest.approx(1)
            assert row.step_over_gradient == pytest.approx(lr * step)
            assert row.second_moment_root is None

    assert rows[0].step_over_gradient == pytest.approx(lr / (1 - mu), rel=1e-5)


@pytest.mark.parametrize("kind", (torch.optim.Adam, torch.optim.AdamW))
def test_adam_corrected_for_its_start_takes_the_same_step_from_the_first_on(network, kind):
    optimizer = kind(network.parameters(), lr=0.01, eps=0.0, weight_decay=0.0)

    for rows in rows_after(network, optimizer, steps=5):
        for row in rows:
            assert row.momentum == pytest.approx(row.gradient)
            assert row.second_moment_root == pytest.approx(3.0)
            assert row.step_over_gradient == pytest.approx(0.01 / 3.0)


def test_a_gradient_turned_round_stands_against_its_momentum(network):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    rows_after(network, optimizer, steps=10)
    constant_gradient(network, size=-3.0)

    rows = trace_optimizer(optimizer, network)

    assert [row.cosine for row in rows] == [pytest.approx(-1)] * 2


def test_plain_descent_has_no_buffers_and_steps_by_its_rate(network):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.25)
    constant_gradient(network)

    rows = trace_optimizer(optimizer, network)

    assert [row.layer for row in rows] == [network.name(0), network.name(2)]
    for row, weights in zip(rows, of_layers(network), strict=True):
        assert (row.momentum, row.cosine, row.second_moment_root) == (None, None, None)
        assert row.gradient == pytest.approx(3.0 * math.sqrt(sum(weight.numel() for weight in weights)))
        assert row.step_over_gradient == pytest.approx(0.25)


def test_the_decay_of_weights_is_part_of_the_update(network):
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.5)
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)

    rows = trace_optimizer(optimizer, network)

    assert [row.update_over_weight for row in rows] == [pytest.approx(0.01 * 0.5)] * 2


@pytest.mark.parametrize(
    "make",
    (
        lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, fused=True),
        lambda weights: torch.optim.Adam(weights, lr=0.1, weight_decay=0.1, fused=True),
        lambda weights: torch.optim.AdamW(weights, lr=0.1, weight_decay=0.1, foreach=True),
    ),
)
def test_the_step_that_is_told_is_the_step_that_is_taken(network, make, noise):
    optimizer = make(network.parameters())
    for seed in range(4):
        for weight in network.parameters():
            weight.grad = noise(*weight.shape, seed=seed, dtype=torch.float64)

        rows = trace_optimizer(optimizer, network)

        before = [vector(weights) for weights in of_layers(network)]
        optimizer.step()
        for row, weights, old in zip(rows, of_layers(network), before, strict=True):
            update, gradient = (vector(weights) - old).norm(), vector([weight.grad for weight in weights]).norm()
            assert row.step_over_gradient == pytest.approx(float(update / gradient))
            assert row.update_over_weight == pytest.approx(float(update / old.norm()))


def test_tracing_changes_no_step(network):
    untraced = Network((Dense(7), LIF(beta=0.8), Dense(4, bias=False), LIF(beta=0.8)), (5,)).double()
    optimizer, other = (torch.optim.Adam(net.parameters(), lr=0.1) for net in (network, untraced))

    rows_after(network, optimizer, steps=3)
    for _ in range(3):
        constant_gradient(untraced)
        other.step()

    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), untraced.parameters(), strict=True))


def test_without_gradients_the_call_is_refused(network):
    with pytest.raises(SnnError, match=r"layers.0.weight has no gradient. Call it between"):
        trace_optimizer(torch.optim.SGD(network.parameters(), lr=0.1), network)


def test_an_optimizer_that_is_not_known_or_holds_other_weights_is_refused(network):
    constant_gradient(network)
    with pytest.raises(SnnError, match=r"RMSprop is not known\. Known: SGD, Adam, AdamW"):
        trace_optimizer(torch.optim.RMSprop(network.parameters()), network)

    other = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(SnnError, match="weights that the network has not"):
        trace_optimizer(torch.optim.SGD([*network.parameters(), other], lr=0.1), network)
