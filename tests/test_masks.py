"""Recordings of different length in one batch: what is there computes as it would alone."""

import pytest
import torch
import torch.nn.functional as F
from catalogue import assert_same

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    Delay,
    Dense,
    Dropout,
    Flatten,
    Network,
    OnChip,
    Pool,
    Recurrent,
    SnnError,
    Spiking,
    simulate,
    start_alive,
)
from snn_bp.runs.evaluation import layer_activity

LENGTHS = (9, 4, 7)
MASK = torch.arange(9)[:, None] < torch.tensor(LENGTHS)
MODEL = (Dense(6), BatchNorm(scale=2.0), LIF(beta=0.9), Dense(5), Recurrent(LIF(beta=0.8)), Dense(3), LI(beta=0.9))
THRESHOLDS = (
    LIF(beta=0.9),
    LIF(beta=0.9, threshold=(0.1, 0.2, 0.5, 0.7, 1.0, 2.0)),
    Spiking(LIF(beta=0.9), learn=("threshold",)),
)
DTYPES = (torch.float32, torch.float64)  # by compiled kernels, and by torch's operations


def padded(coin, *shape, dtype=torch.float32):
    """Recordings of LENGTHS, zeros behind each."""
    x = coin(9, 3, *shape, probability=0.5).to(dtype)
    return x * MASK.view(9, 3, *(1,) * len(shape))


def alone(x):
    """Each recording for itself, `[its time, 1, ...]`."""
    return [x[:length, n : n + 1] for n, length in enumerate(LENGTHS)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_masked_batch_trains_as_its_recordings_joined_without_padding(dtype, coin):
    network, other = (Network(MODEL, (4,), seed=1).to(dtype).train() for _ in range(2))
    x = padded(coin, 4, dtype=dtype)

    out, means, _ = network.rates(x, mask=MASK)
    (out[MASK].square().sum() + sum(mean.sum() for mean in means)).backward()

    dense, norm, neurons, *rest = other.layers
    sums = [dense(each) for each in alone(x)]
    rows = torch.cat([each.flatten(0, 1) for each in sums])
    mean, variance = rows.mean(0), (rows - rows.mean(0)).square().mean(0)
    hidden, later, outs = [], [], []
    for each in sums:
        normed = (each - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
        hidden.append(simulate(neurons.neuron, normed)[0])
        later.append(rest[1](rest[0](hidden[-1]))[0])
        outs.append(rest[3](rest[2](later[-1]))[0])
    wanted = [torch.cat([each[:, 0] for each in layer]).mean(0) for layer in (hidden, later)]
    (sum(each.square().sum() for each in outs) + sum(each.sum() for each in wanted)).backward()
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11  # sums of some hundred numbers of up to 10
    assert sum(float(each.detach().sum()) for each in hidden) > 20
    for n, each in enumerate(outs):
        torch.testing.assert_close(out[: LENGTHS[n], n : n + 1], each, rtol=tolerance, atol=tolerance)
    assert_same(atol=tolerance, hidden=(means[0], wanted[0]), later=(means[1], wanted[1]))
    for (name, parameter), right in zip(network.named_parameters(), other.parameters(), strict=True):
        assert parameter.grad is not None and right.grad is not None, name
        torch.testing.assert_close(parameter.grad, right.grad, rtol=tolerance, atol=tolerance, msg=name)
    found = network.layers[1]
    unbiased = (rows - mean).square().sum(0) / (sum(LENGTHS) - 1)
    assert_same(atol=tolerance, mean=(found.running_mean, 0.1 * mean), var=(found.running_var, 0.9 + 0.1 * unbiased))
    assert int(found.num_batches_tracked) == 1


def test_a_masked_image_norm_takes_the_statistics_of_what_is_there(coin):
    model = (Conv(3, 3, padding=1), BatchNorm(), LIF(beta=0.9), Pool(2), Flatten(), Delay(2), Dense(2), LI(beta=0.9))
    network = Network(model, (2, 4, 6), seed=0).train()
    x = padded(coin, 2, 4, 6)

    network(x, MASK)

    conv, norm = network.layers[0], network.layers[1]
    values = torch.cat([conv(each.flatten(0, 1)) for each in alone(x)]).transpose(0, 1).flatten(1).detach()
    assert_same(atol=1e-6, mean=(norm.running_mean, 0.1 * values.mean(1)))
    assert_same(atol=1e-6, variance=(norm.running_var, 0.9 + 0.1 * values.var(1)))


def test_a_mask_without_gaps_changes_nothing(coin):
    networks = [Network(MODEL, (4,), seed=1).train() for _ in range(2)]
    x = coin(9, 3, 4, probability=0.5)

    outs = [networks[0].rates(x), networks[1].rates(x, mask=torch.ones(9, 3, dtype=torch.bool))]

    assert_same(atol=1e-5, out=(outs[0][0], outs[1][0]), rates=(outs[0][1][0], outs[1][1][0]))
    assert_same(atol=1e-6, mean=(networks[0].layers[1].running_mean, networks[1].layers[1].running_mean))


def test_evaluation_with_a_mask_is_evaluation_without(coin):
    network, x = Network(MODEL, (4,), seed=1), padded(coin, 4)
    network.train()(x, MASK)
    network.eval()

    out, (rates, _), state = network.rates(x, mask=MASK)

    plain, _, wanted = network.rates(x)
    assert torch.equal(out, plain) and torch.equal(state[0].v, wanted[0].v)
    spikes = torch.cat([network.observe(each)[0][0].spikes[:, 0] for each in alone(x)])
    assert_same(atol=1e-6, rates=(rates, spikes.mean(0)))


def test_on_the_chip_norms_and_rates_count_by_the_mask(coin):
    model = (Dense(6), BatchNorm(), LIF(beta=0.9, reset="zero"), Dense(3), LI(beta=0.9))
    network, x = Network(model, (4,), seed=1), padded(coin, 4)
    chip = OnChip(network).train()

    _, (rates,), _ = chip.rates(x, mask=MASK)

    dense, norm = network.layers[0], network.layers[1]
    sums = torch.cat([F.linear(each.flatten(0, 1), dense.weight, dense.bias) for each in alone(x)]).detach()
    assert_same(atol=1e-6, mean=(norm.running_mean, 0.1 * sums.mean(0)))
    assert_same(atol=1e-6, variance=(norm.running_var, 0.9 + 0.1 * sums.var(0)))
    spikes = chip.eval().observe(x)[0][0].spikes
    assert rates.shape == (6,) and 0 < rates.mean() < 1
    _, (rates,), _ = chip.rates(x, mask=MASK)
    counts = sum(spikes[:length, n].sum(0) for n, length in enumerate(LENGTHS))
    assert_same(atol=1e-6, rates=(rates, counts / sum(LENGTHS)))


def test_a_piece_without_any_step_leaves_norms_as_they_are(coin):
    network, x = Network(MODEL, (4,), seed=1).train(), padded(coin, 4)
    before = network.layers[1].running_var.clone()

    out, (rates, _), _ = network.rates(x, mask=torch.zeros(9, 3, dtype=torch.bool))

    assert torch.equal(network.layers[1].running_var, before) and int(network.layers[1].num_batches_tracked) == 0
    assert bool(out.isfinite().all()) and torch.equal(rates, torch.zeros(6))


@pytest.mark.parametrize("mask", (torch.ones(9, 3), torch.ones(3, 9, dtype=torch.bool), [True]), ids=repr)
@pytest.mark.parametrize("chip", (False, True))
def test_a_mask_of_another_shape_or_type_is_refused(mask, chip, coin):
    network = Network((Dense(3), LIF(beta=0.9, reset="zero")), (4,))

    with pytest.raises(SnnError, match=r"the mask should be \[time, batch\] of torch\.bool, \[9, 3\] here, found"):
        (OnChip(network) if chip else network)(padded(coin, 4), mask)


def test_a_norm_that_nobody_knows_is_refused_with_a_mask_in_training_only(coin):
    class Batchwise(torch.nn.BatchNorm1d):
        def forward(self, x):
            return 2 * super().forward(x)

    network, x = Network((Dense(4), BatchNorm(), LIF(beta=0.9)), (4,)), padded(coin, 4)
    network.layers[1] = Batchwise(4)

    with pytest.raises(SnnError, match=r"model\.1 BatchNorm\(.*takes statistics over all steps"):
        network.train()(x, MASK)

    assert network.eval()(x, MASK).shape == (9, 3, 4)


@pytest.mark.parametrize("neurons", THRESHOLDS, ids=str)
def test_activity_is_that_of_the_steps_that_are_there(neurons, coin):
    network, x = Network((Dense(6), neurons), (4,), seed=1), padded(coin, 4)

    (found,) = layer_activity(network, x, MASK)

    rows = [layer_activity(network, each)[0] for each in alone(x)]
    for name in ("rate", "window"):
        total = sum(length * row[name] for length, row in zip(LENGTHS, rows, strict=True))
        assert found[name] == pytest.approx(total / sum(LENGTHS), rel=1e-5)


def test_start_alive_measures_what_is_there(coin):
    model = (Dense(6), LIF(beta=0.9), Dense(5), BatchNorm(), LIF(beta=0.8), Dropout(0.3))
    network, x = Network(model, (4,), seed=1), padded(coin, 4)

    start_alive(network, x, mask=MASK)

    first, norm = network.layers[0], network.layers[3]
    free = torch.cat([simulate(LI(beta=0.9), first(each))[0][:, 0] for each in alone(x)]).detach()
    assert float(free.square().mean().sqrt()) == pytest.approx(1.0, rel=1e-4)
    spikes = [simulate(LIF(beta=0.9), first(each))[0] for each in alone(x)]
    sums = torch.cat([network.layers[2](each)[:, 0] for each in spikes]).detach()
    assert_same(atol=1e-5, mean=(norm.running_mean, sums.mean(0)), variance=(norm.running_var, sums.var(0)))
