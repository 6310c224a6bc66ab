"""What runs while training for the chip is the chip's arithmetic, and its gradients are the equation's."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from catalogue import assert_near, assert_same
from torch import Tensor

from snn_bp import (
    ALIF,
    IF,
    LI,
    LIF,
    ATan,
    BatchNorm,
    Conv,
    CubaLIF,
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
)
from snn_bp.chip.arithmetic import FOR_LOIHI
from snn_bp.chip.folding import folded
from snn_bp.chip.forward import _equation, _IntegerNeurons, best_scale, on_grid, run_chip
from snn_bp.chip.netx_rules import check_netx
from snn_bp.chip.quantize import quantize
from snn_bp.chip.rules import chip_blocks, delays_of, neurons_of
from snn_bp.kernels.reference import Spike, torch_slope
from snn_bp.model.network import deep_copy

ZERO = {"reset": "zero"}
HALF = LIF(beta=0.5, **ZERO)
MODELS = {
    "dense": ((9,), (Dense(13), LIF(beta=0.7, **ZERO), Dense(4), LIF(beta=0.9, **ZERO))),
    "current": ((9,), (Dense(13), BatchNorm(), CubaLIF(alpha=0.6, beta=0.7, **ZERO), Dense(4), LI(beta=0.9))),
    "recurrent": ((9,), (Dense(7), Recurrent(CubaLIF(alpha=0.5, beta=0.8, **ZERO), bias=True), Dense(3), IF(**ZERO))),
    "delays": ((9,), (Delay(3), Dense(7), HALF, Delay((0, 1, 2, 3, 4, 5, 6)), Dense(3), HALF)),
    "learned": ((9,), (Dense(7), Spiking(HALF, learn=("beta", "threshold")), Dense(3), HALF)),
    "images": (
        (2, 13, 11),
        (
            *(Pool(2, kind="sum"), Conv(4, 3), BatchNorm(), LIF(beta=0.5, **ZERO)),
            *(Conv(4, (2, 1), padding=1, groups=2), Pool(2), BatchNorm(), LIF(beta=0.6, **ZERO)),
            *(Pool(2, kind="sum"), LIF(beta=0.0, **ZERO), Flatten(), Dense(5), LIF(beta=0.5, **ZERO)),
        ),
    ),
}  # fmt: skip


@pytest.fixture(params=MODELS, ids=str)
def chip(request) -> Network:
    shape, model = MODELS[request.param]
    network = OnChip(Network(model, shape, seed=3))
    with torch.no_grad():
        for layer in network.layers:
            if isinstance(layer, torch.nn.Linear):
                layer.weight *= 2.5  # nobody is silent
            if hasattr(layer, "running_mean"):
                layer.running_mean += 0.1
                layer.running_var *= 0.3
    return network


def obvious(network: Network, x: Tensor) -> list[Tensor]:
    """Spikes (a readout's potential in 64ths) of each block by the chip's registers, one step after the other.

    Step t of a block hears step t of the one before, from empty registers.
    """
    found = chip_blocks(network)
    grids = [on_grid(block) for block in found]
    outs = []
    for block, grid in zip(found, grids, strict=True):
        neurons = (x.shape[1], *neurons_of(block).shape)
        u, v, s = (torch.zeros(neurons, dtype=torch.int64) for _ in range(3))
        each = [value.detach().round().long() for value in (grid.current_kept, grid.voltage_kept, grid.threshold)]
        bias = torch.zeros(1) if grid.sum.bias is None else grid.sum.bias.detach()
        bias, delays = bias.round().long(), delays_of(block)
        delay = delays[0].steps_now() if delays else None
        if bias.dim() == 1 and len(neurons) == 4:
            bias = bias.view(-1, 1, 1)
        rows = []
        for t in range(len(x)):
            heard = x[t]
            if delay is not None:
                heard = torch.zeros_like(x[0])
                for n in range(x.shape[2]):
                    if t >= int(delay[n]):
                        heard[:, n] = x[t - int(delay[n]), :, n]
            a = (
                grid.sum(heard.double())
                if grid.sum.weight.dtype == torch.float64
                else _double(grid.sum)(heard.double())
            )
            if grid.recurrent is not None:
                a = a + F.linear(s.double(), grid.recurrent.double())
            u = _toward_zero(u * each[0]) + a.round().long() * 64
            v = (_toward_zero(v * each[1]) + u + bias * 64).clamp(1 - 2**23, 2**23 - 1)
            s = (v > each[2] * 64).long()
            rows.append((v if grid.threshold.max() == 131071 and block is found[-1] else s).clone())
            v = v * (1 - s)
        x = torch.stack(rows).float()
        outs.append(torch.stack(rows))
    return outs


def _double(total):
    return total._replace(weight=total.weight.detach().double())


def _toward_zero(x: Tensor) -> Tensor:
    return x.sign() * (x.abs() >> 12)


def test_the_forward_pass_is_the_registers(chip, coin):
    x = coin(11, 3, *chip.input_shape, probability=0.3) * 2
    chip.eval()

    ran = list(run_chip(chip, x))

    wanted = obvious(chip, x)
    assert len(ran[-1][1]) == len(x)
    for (block, out, potentials, _), want in zip(ran, wanted, strict=True):
        readout = isinstance(neurons_of(block).neuron, LI)
        assert want.float().abs().sum() > 0, "a silent layer would prove nothing"
        assert_same(spikes=((potentials * 64 if readout else out).long(), want))


def test_training_with_frozen_norms_is_evaluation(chip, coin):
    x = coin(11, 3, *chip.input_shape, probability=0.3)
    chip.train()
    chip.freeze_norm = True

    out = chip(x)

    assert torch.equal(out, chip.eval()(x))


def test_training_norms_as_torch_does_and_gives_every_weight_a_gradient(chip, coin):
    x = coin(11, 3, *chip.input_shape, probability=0.3)

    chip.train()(x).sum().backward()

    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in chip.parameters())
    assert sum(float(weight.grad.abs().sum()) > 0 for weight in chip.parameters()) >= len(list(chip.parameters())) - 3


def test_a_fold_is_the_layers_one_after_the_other(chip, coin):
    for block in chip_blocks(chip.eval()):
        x = coin(5, *block.parts[0].before, probability=0.4)

        total = folded(block)

        wanted = x
        for part in block.parts[:-1]:
            wanted = part.layer(wanted[None])[0] if part.role == "delay" else part.layer(wanted)
        bias = 0 if total.bias is None else total.bias.view(-1, *[1] * (wanted.dim() - 2))
        if not delays_of(block):
            assert_near(share=1e-5, sums=(total(x) + bias, wanted))


@pytest.mark.parametrize("current, spiking", [(False, True), (True, True), (True, False)])
def test_gradients_are_autograds_of_the_same_steps(current, spiking, noise):
    shape = (5,)
    sums = (noise(9, 2, *shape, dtype=torch.float64, scale=60).round()).requires_grad_()
    bias = torch.tensor([3.0, -2, 0, 8, 1], dtype=torch.float64, requires_grad=True)
    kept = [
        torch.tensor([2048.0 if current else 0.0] * 5, dtype=torch.float64),
        torch.full(shape, 3000.0, dtype=torch.float64),
    ]
    kept = [value.requires_grad_() for value in kept]
    threshold = torch.full(shape, 70.0 if spiking else 131071.0, dtype=torch.float64, requires_grad=True)
    state = [noise(2, *shape, seed=5, dtype=torch.float64, scale=9).round().requires_grad_() for _ in range(2)]
    state.append((noise(2, *shape, seed=6, dtype=torch.float64) > (0 if spiking else 9)).double().requires_grad_())
    leaves = [sums, *state, bias, *kept, threshold]
    weigh = [noise(9, 2, *shape, seed=7 + k, dtype=torch.float64) for k in range(2)]
    last = [noise(2, *shape, seed=17 + k, dtype=torch.float64) for k in range(2)]

    neuron = (CubaLIF(alpha=0.5, beta=0.5, **ZERO) if current else HALF) if spiking else LI(beta=0.5, alpha=0.5)
    equation = _equation(neuron)
    spikes, potentials, u, v, _ = _IntegerNeurons.apply(*leaves, ATan(), equation, "zero", FOR_LOIHI)
    loss = (spikes * weigh[0]).sum() * spiking + (potentials * weigh[1]).sum() + (v * last[1]).sum()
    got = torch.autograd.grad(loss + (u * last[0]).sum() * current, leaves, allow_unused=True)

    slope_at, rows, (u, v, s) = torch_slope(ATan()), [], state
    for step in sums:
        u = _floored(u * kept[0] / 4096) + step if current else step
        v = _floored(v * kept[1] / 4096 * ((1 - s.detach()) if spiking else 1)) + u + bias
        s = Spike.apply(v - threshold, threshold, slope_at)
        rows.append((s, v))
    loss = (torch.stack([row[0] for row in rows]) * weigh[0]).sum() * spiking
    loss = loss + (torch.stack([row[1] for row in rows]) * weigh[1]).sum() + (v * last[1]).sum()
    wanted = torch.autograd.grad(loss + (u * last[0]).sum() * current, leaves, allow_unused=True)
    names = ("sums", "u", "v", "s", "bias", "current_kept", "voltage_kept", "threshold")
    for name, mine, theirs in zip(names, got, wanted, strict=True):
        if name in ("s",) or (name in ("u", "current_kept") and not current) or (name == "threshold" and not spiking):
            continue  # the reset is detached; what is not there has no gradient
        assert_near(share=1e-9, **{name: (mine, theirs)})


def _floored(x: Tensor) -> Tensor:
    """Toward zero in 64ths, with a gradient of 1."""
    return x + ((x * 64).trunc() / 64 - x).detach()


def test_the_scale_fits_every_register():
    weights = torch.tensor([[0.5, -2.0], [0.01, 1.0]])

    scale = best_scale([weights], torch.tensor([30.0, 0.0]), torch.tensor(1.0))

    assert scale == int(scale) and 30 * scale <= 4095 and 1.0 * scale <= 131071
    assert 127 / 2 - 1 <= scale <= 2 * 127 / 2


@pytest.mark.parametrize(
    "model, says",
    [
        ((Dense(3), LIF(beta=0.9)), 'subtract.*reset="zero"'),
        ((Dense(3), ALIF(beta=0.9, rho=0.9, kappa=0.1, **ZERO)), "no adaptation"),
        ((Dense(3), LI(beta=0.9), Dense(2), LIF(beta=0.9, **ZERO)), "sends potentials"),
        ((Dense(3), Dense(2), LIF(beta=0.9, **ZERO)), "two weighted sums"),
        ((Dense(3), LIF(beta=0.9, **ZERO), LIF(beta=0.9, **ZERO)), "no synapses"),
        ((Dense(3), Delay(1), LIF(beta=0.9, **ZERO)), "a Delay stands"),
        ((Dense(3),), "no neurons behind"),
        ((Delay(40), Delay(30), Dense(3), HALF), "70 steps, at most 62 are held"),
        ((Delay(1), Dense(3), Recurrent(HALF)), "delay the recurrence"),
        ((Delay(1.5, learn=True, max_steps=100), Dense(3), HALF), "100 steps, at most 62 are held"),
        ((Dense(3), Dropout(0.5), HALF), "Dropout of weighted sums"),
        ((BatchNorm(), Dense(3), LIF(beta=0.9, **ZERO)), "BatchNorm stands behind"),
    ],
)
def test_what_the_chip_cannot_hold_is_refused(model, says):
    with pytest.raises(SnnError, match=says):
        OnChip(Network(model, (4,)))


def test_maximum_pooling_is_refused():
    with pytest.raises(SnnError, match="maximum cannot be"):
        OnChip(Network((Pool(2, kind="max"), Conv(2, 2), LIF(beta=0.5, **ZERO)), (1, 6, 6)))


def test_one_kernel_cannot_hold_overlapping_pools_and_padding():
    model = (Pool(3, kind="sum", stride=1), Conv(2, 3, padding=1), HALF)

    with pytest.raises(SnnError, match="overlap"):
        OnChip(Network(model, (1, 11, 11)))(torch.zeros(2, 1, 1, 11, 11))


@pytest.mark.parametrize("pools", [(3, 1), (3, 2), (2, 2), (2, 3)])
def test_pools_without_padding_fold_whatever_their_stride(pools, coin):
    network = OnChip(Network((Pool(pools[0], stride=pools[1]), Conv(2, 3), HALF), (1, 13, 12)))
    x = coin(3, 1, 13, 12, probability=0.5)
    (block,) = chip_blocks(network)

    total = folded(block)

    assert_near(share=1e-5, sums=(total(x) + total.bias[:, None, None], block.parts[1].layer(block.parts[0].layer(x))))  # type: ignore[index]


def test_each_neuron_of_a_map_cannot_learn_its_own():
    with pytest.raises(SnnError, match="one for each channel"):
        OnChip(Network((Conv(2, 3), Spiking(HALF, learn=("beta",))), (1, 6, 6)))


@pytest.mark.parametrize(
    "name, value, says",
    [("bias", float("nan"), "its bias: there is a NaN"), ("bias", 5e5, "round to zero"), ("weight", 0.0, "all zero"),
     ("weight", float("inf"), "its weights: there is a NaN or infinity"), ("weight", 500.0, "less than a step")],
)  # fmt: skip
def test_numbers_that_fit_no_register_are_named(name, value, says):
    network = OnChip(Network((Dense(3), HALF), (4,)))
    with torch.no_grad():
        getattr(network.layers[0], name).fill_(value)

    with pytest.raises(SnnError, match=says):
        network(torch.ones(2, 1, 4))


def test_a_layer_without_a_positive_weight_stops_at_127(noise):
    network = OnChip(Network((Dense(128), HALF), (700,))).eval()
    with torch.no_grad():
        network.layers[0].weight.copy_(-noise(128, 700).abs())  # type: ignore[union-attr]

    graph = quantize(network)

    assert graph.populations[0].weight.min() == -127
    check_netx(graph)  # refuses -128 here, which lava would deliver as 0


def test_watching_leaves_the_norms_statistics_alone(coin):
    network = OnChip(Network((Dense(3), BatchNorm(), HALF), (4,))).train()

    list(network.walk(coin(3, 2, 4, probability=0.5)))

    assert int(network.layers[1].num_batches_tracked) == 1  # type: ignore[arg-type]


def test_a_learned_delay_of_an_image_has_a_gradient(coin):
    network = OnChip(Network((Flatten(), Delay(1.5, learn=True, max_steps=3), Dense(3), HALF), (2, 3, 3)))

    network(coin(9, 2, 2, 3, 3, probability=0.5)).sum().backward()

    assert network.layers[1].learned["delay"].grad.abs().sum() > 0  # type: ignore[union-attr, index]


def test_fractions_and_pieces_are_refused(coin):
    network = OnChip(Network((Dense(3), LIF(beta=0.5, **ZERO)), (4,)))
    x = coin(5, 2, 4, probability=0.5)
    _, state = network.run(x)

    with pytest.raises(SnnError, match="integers"):
        network(x / 2)
    assert state == ()


def test_dropout_silences_inputs_while_training(coin):
    network = OnChip(Network((Dropout(0.5), Dense(3), LI(beta=0.5)), (40,))).train()
    x = coin(5, 2, 40, probability=0.9)

    assert not torch.equal(network(x), network(x))


@pytest.mark.parametrize("learn", [False, True])
def test_a_delay_is_a_shift_in_time(learn, coin):
    layer = Delay((1, 2, 3) if learn else (0, 2, 9), learn=learn, max_steps=30).build((3,))
    x = coin(8, 2, 3, probability=0.5)

    out = layer(x)

    for n, steps in enumerate(layer.steps_now().tolist()):
        wanted = torch.zeros(8, 2)
        if steps < 8:
            wanted[steps:] = x[: 8 - steps, :, n]
        assert_same(delayed=(out[:, :, n], wanted))


def test_a_delay_learns_to_meet_a_spike():
    """A bump of activity at step 5 should arrive at step 11: the delay is found from 2 by gradient descent."""
    layer = Delay(2.0, learn=True, max_steps=20).build((1,))
    x = torch.exp(-0.02 * (torch.arange(40.0) - 5) ** 2)[:, None, None]
    wanted = torch.exp(-0.02 * (torch.arange(40.0) - 11) ** 2)[:, None, None]
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)

    for _ in range(150):
        optimizer.zero_grad()
        (layer(x) - wanted).square().sum().backward()
        optimizer.step()

    assert layer.steps_now().tolist() == [6]


def test_the_gradient_of_what_is_delayed_comes_back_by_as_much(noise):
    layer = Delay((0, 2, 5)).build((3,))
    x = noise(9, 2, 3, dtype=torch.float64).requires_grad_()

    assert torch.autograd.gradcheck(layer, x)


def test_a_network_on_the_chip_takes_every_call_of_a_network():
    calls = {name: getattr(Network, name) for name in vars(Network) if name[0] != "_" and name != "floats"}

    for name, call in calls.items():
        assert inspect.signature(getattr(OnChip, name)).parameters == inspect.signature(call).parameters, name


def test_a_network_on_the_chip_has_the_weights_names_and_mode_of_its_floats():
    floats = Network((Dense(3), BatchNorm(), HALF), (4,))
    chip = OnChip(floats)

    assert chip.state_dict().keys() == floats.state_dict().keys()
    assert all(one is other for one, other in zip(chip.parameters(), floats.parameters(), strict=True))
    chip.eval()
    assert not floats.training
    twin = deep_copy(chip).double()  # type: ignore[arg-type]
    assert twin.layers is twin.floats.layers and twin.layers is not chip.layers
    assert vars(chip).keys() >= vars(floats).keys() - {"memory"}


def test_a_slope_in_units_of_the_potential_is_refused_where_a_gradient_would_need_it():
    floats = Network((Dense(3), HALF), (4,), surrogate=ATan(per="potential"))

    with pytest.raises(SnnError, match="per='threshold'"):
        OnChip(floats)
    chip = OnChip(floats.eval())  # nothing learns: it runs, as the export of a network trained in floats has to
    with pytest.raises(SnnError, match="per='threshold'"):
        chip(torch.ones(2, 1, 4)).sum().backward()
    with pytest.raises(SnnError, match="per='threshold'"):
        chip.train()
