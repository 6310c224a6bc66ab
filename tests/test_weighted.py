"""Event-driven weighted sums against torch's own linear layer and convolution."""

import pytest
import torch
from catalogue import assert_near, assert_same, quick_first
from torch import nn

from snn_bp import LIF, Conv, Network, Pool
from snn_bp.kernels import use_backend
from snn_bp.kernels.cpu.pool import max_pool
from snn_bp.kernels.cpu.sparse_ops import convolve, convolve_events, encode_images, linear

CONVOLUTIONS = {
    "stride 1": (2, 12, 5, 1, 0, (34, 34)),
    "stride 2": (2, 16, 5, 2, 2, (34, 34)),
    "strides and padding of their own": (3, 7, (3, 4), (2, 3), (1, 2), (13, 17)),
    "1 x 1": (5, 8, 1, 1, 0, (6, 5)),
    "a row": (2, 3, (1, 5), (1, 2), (0, 2), (1, 40)),
    "stride above the kernel": (2, 3, 2, 3, 0, (11, 11)),
    "padding above the kernel": (1, 4, 3, 1, 4, (5, 6)),
}


def gradients(function, layer, x, *, seed=0):
    """Output, and the gradients of a weighted sum of it."""
    out = function(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=out.dtype)
    return out, torch.autograd.grad((out * weights).sum(), [x, *layer.parameters()])


def sparse(coin, noise, *shape, probability):
    return coin(*shape, probability=probability).double() * noise(*shape, dtype=torch.float64)


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("bias", (False, True))
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_over_events_equals_torchs(name, bias, channels_last, coin, noise):
    channels, outs, kernel, stride, padding, size = CONVOLUTIONS[name]
    layer = nn.Conv2d(channels, outs, kernel, stride=stride, padding=padding, bias=bias).double()
    x = sparse(coin, noise, 37, channels, *size, probability=0.04)
    x = (x.contiguous(memory_format=torch.channels_last) if channels_last else x).requires_grad_()

    got, g_got = gradients(lambda x: convolve_events(x, layer, encode_images(x, max_fraction=1.0)), layer, x)
    wanted, g_wanted = gradients(layer, layer, x)

    assert got.is_contiguous(memory_format=torch.channels_last)
    assert_near(share=1e-13, out=(got, wanted))
    for pair in zip(g_got, g_wanted, strict=True):
        assert_near(share=1e-12, gradient=pair)


@pytest.mark.slow
@pytest.mark.parametrize("window", ((2, 2), (3, 2), (2, 1)), ids=str)
@pytest.mark.parametrize("name", ("stride 1", "strides and padding of their own", "1 x 1"))
def test_a_convolution_and_its_pool_as_one_give_the_bits_of_both(name, window, coin, noise):
    channels, outs, kernel, stride, padding, size = CONVOLUTIONS[name]
    layer, pool = nn.Conv2d(channels, outs, kernel, stride=stride, padding=padding), nn.MaxPool2d(*window)
    x = coin(37, channels, *size, probability=0.05) * noise(37, channels, *size)
    x.requires_grad_()
    events = encode_images(x, max_fraction=1.0)

    got, g_got = gradients(lambda x: convolve_events(x, layer, events, pool), layer, x)
    wanted, g_wanted = gradients(lambda x: max_pool(convolve_events(x, layer, events), pool), layer, x)

    assert torch.equal(got, wanted)
    for place, (one, two) in enumerate(zip(g_got, g_wanted, strict=True)):
        if place < 2:
            assert torch.equal(one, two)
        else:  # the bias's gradient is summed over what was pooled
            assert_near(share=1e-5, bias=(one, two))


def test_a_pool_of_another_kind_is_torchs(coin):
    layer, pool = nn.Conv2d(2, 4, 3), nn.MaxPool2d(2, padding=1)
    x = coin(20, 2, 9, 9, probability=0.05)

    assert_near(share=1e-6, out=(convolve(x, layer, pool), pool(layer(x))))


@pytest.mark.parametrize("bias", (False, True))
@pytest.mark.parametrize("units", (1, 8, 20, 71))
def test_a_linear_layer_over_events_equals_torchs(units, bias, coin, noise):
    layer = nn.Linear(101, units, bias=bias).double()
    x = sparse(coin, noise, 1237, 101, probability=0.1).requires_grad_()

    got, g_got = gradients(lambda x: linear(x, layer), layer, x)
    wanted, g_wanted = gradients(layer, layer, x)

    assert "Linear" in type(got.grad_fn).__name__
    assert_near(share=1e-13, out=(got, wanted))
    for pair in zip(g_got, g_wanted, strict=True):
        assert_near(share=1e-12, gradient=pair)


@pytest.mark.parametrize("option", ({"groups": 2}, {"dilation": 2}, {"padding": "same"}, {"padding_mode": "circular"}))
def test_a_convolution_it_does_not_know_is_torchs(option, coin):
    layer = nn.Conv2d(2, 4, 3, **{"padding": 1, **option})
    x = coin(20, 2, 9, 9, probability=0.05)

    assert_same(out=(convolve(x, layer), layer(x.contiguous(memory_format=torch.channels_last))))


def test_an_input_that_is_mostly_not_zero_goes_to_torch(noise):
    dense_layer, convolution = nn.Linear(50, 3), nn.Conv2d(2, 3, 3)
    x, images = noise(40, 50), noise(20, 2, 9, 9)

    assert_same(linear=(linear(x, dense_layer), dense_layer(x)))
    assert_near(share=1e-6, convolution=(convolve(images, convolution), convolution(images)))


@pytest.mark.parametrize("channels", (3, 4, 12, 21))
@pytest.mark.parametrize(("size", "stride"), ((2, 2), (3, 2), (2, 3), (3, 1)))
def test_max_pooling_equals_torchs_to_the_bit(size, stride, channels, noise):
    layer = nn.MaxPool2d(size, stride)
    x = noise(19, channels, 9, 11).mul(2).round().contiguous(memory_format=torch.channels_last)  # many equal values
    x[3, 0, 4, 4] = torch.nan
    x.requires_grad_()

    got, wanted = max_pool(x, layer), layer(x)
    weights = noise(*wanted.shape, seed=1)

    assert "MaxPoolBackward" in type(got.grad_fn).__name__ and "MaxPool2D" in type(wanted.grad_fn).__name__
    assert_same(out=(got, wanted))
    g_got, g_wanted = (torch.autograd.grad(out, x, weights)[0] for out in (got, wanted))
    assert_same(gradient=(g_got, g_wanted), atol=0.0 if stride >= size else 1e-6)


def test_nan_in_the_input_is_an_event():
    x = torch.zeros(20, 9)
    x[3, 4] = torch.nan

    assert linear(x, nn.Linear(9, 2))[3].isnan().all()


def test_any_number_of_threads_gives_the_same_bits(coin):
    layer, x, found = nn.Conv2d(2, 5, 3), coin(150, 2, 12, 13, probability=0.05).requires_grad_(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        out = convolve_events(x, layer, encode_images(x, max_fraction=1.0))
        found.append([out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])])
    torch.set_num_threads(1)

    for one, two, three in zip(*found, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


@pytest.mark.parametrize("kind", quick_first(("max", "average", "sum"), "max"))
def test_a_convolutional_network_equals_the_reference(kind, coin):
    model = (Conv(6, 3), Pool(2, kind=kind), LIF(beta=0.9), Conv(5, 3, padding=1), LIF(beta=0.8, reset="zero"))
    network = Network(model, (2, 14, 12)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.round(256 * parameter) / 64)
    x = coin(13, 5, 2, 14, 12, probability=0.05).double().requires_grad_()

    def run():
        out, state = network.run(x)
        return out, state, torch.autograd.grad((out.sum(0) ** 2).sum(), [x, *network.parameters()])

    got, state, g_got = run()
    with use_backend("reference"):
        wanted, wanted_state, g_wanted = run()

    assert wanted.any()
    assert_same(out=(got, wanted), state=(state[1].v, wanted_state[1].v), atol=1e-13)
    for pair in zip(g_got, g_wanted, strict=True):
        assert_near(share=1e-11, gradient=pair)
