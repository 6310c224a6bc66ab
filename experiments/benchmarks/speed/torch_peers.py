"""Training steps of snnTorch, SpikingJelly, Norse and sinabs on a work, each in its library's own form.

Every peer is optional: it is imported where its step is built, and only there.
"""

# pyright: reportMissingImports=false

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from speed.steps import Step, dense, torch_layers, torch_step
from speed.works import BETA, SLOPE, THETA, Material, Work

TENTHS = 10.0  # potentials in units of a tenth: a surrogate of slope 1 per unit has slope 10 per threshold
GAIN = 10.0  # 1 / (1 - BETA)
State: TypeAlias = tuple[tuple[Tensor, ...], ...]  # of each layer


def snntorch(
    work: Work, material: Material, dtype: torch.dtype, *, compiled: bool = False, device: str = "cpu"
) -> Step:
    """The loop over time that its tutorials show, or the same with the body of the loop compiled by torch."""
    import snntorch as snn
    from snntorch import surrogate

    numbers: dict[str, Any] = {
        "beta": torch.tensor(BETA, dtype=dtype),
        "threshold": torch.tensor(THETA, dtype=dtype),
        "spike_grad": surrogate.fast_sigmoid(slope=int(SLOPE)),
    }

    def recurrent(weight: Tensor) -> nn.Module:
        layer = snn.RLeaky(linear_features=len(weight), **numbers)
        layer.recurrent = dense(weight)
        return layer

    layers = torch_layers(work, material, dtype, lif=lambda: snn.Leaky(**numbers), recurrent=recurrent, device=device)

    def advance(x: Tensor, states: State) -> tuple[Tensor, State]:
        after: list[tuple[Tensor, ...]] = []
        for layer, state in zip(layers, states, strict=True):
            if isinstance(layer, snn.Leaky):
                x, v = layer(x, *state)
                after.append((v,))
            elif isinstance(layer, snn.RLeaky):
                x, v = layer(x, *state)
                after.append((x, v))
            else:
                x = layer(x)
                after.append(())
        return x, tuple(after)

    once = torch.compile(advance) if compiled else advance

    def forward(x: Tensor) -> Tensor:
        states, spikes = tuple(_rest(layer) for layer in layers), []
        for x_t in x.unbind(0):
            s, states = once(x_t, states)
            spikes.append(s)
        return torch.stack(spikes)

    weights = [weight for layer in layers for weight in layer.parameters()]
    return torch_step(forward, weights, work, material, dtype, device=device)


def _rest(layer: nn.Module) -> tuple[Tensor, ...]:
    """The state of rest of a layer of snnTorch; nothing where it has none."""
    if not hasattr(layer, "reset_mem"):
        return ()
    rest = layer.reset_mem()  # pyright: ignore[reportCallIssue]
    return rest if isinstance(rest, tuple) else (rest,)


def spikingjelly(work: Work, material: Material, dtype: torch.dtype, *, device: str = "cpu") -> Step:
    """Multi-step modules: hard reset to 0, input not decayed. Its SuperSpike has slope 1: potentials in tenths."""
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    def lif(mode: str = "m") -> nn.Module:
        sharp = surrogate.SuperSpike(alpha=1 / TENTHS)
        return neuron.LIFNode(10.0, False, TENTHS * THETA, 0.0, sharp, detach_reset=True, step_mode=mode)

    def recurrent(weight: Tensor) -> nn.Module:
        recurrence = dense(weight)
        container = layer.ElementWiseRecurrentContainer(lif("s"), lambda y, x: x + recurrence(y), step_mode="m")
        container.recurrence = recurrence
        return container

    layers = torch_layers(work, material, dtype, lif=lif, recurrent=recurrent, scale=TENTHS, device=device)
    timed = neuron.LIFNode | layer.ElementWiseRecurrentContainer
    network = nn.Sequential(*(one if isinstance(one, timed) else layer.SeqToANNContainer(one) for one in layers))

    def forward(x: Tensor) -> Tensor:
        functional.reset_net(network)
        return network(x)

    return torch_step(forward, list(network.parameters()), work, material, dtype, scale=TENTHS, device=device)


def norse(work: Work, material: Material, dtype: torch.dtype) -> Step:
    """Cells in a `SequentialState`, stepped over time: `LIFBoxCell`, which has no synaptic current, and the recurrent
    `LIFRecurrentCell`, its current cut to one step. A tenth of the input enters the membrane, so weights are ten times
    ours. Its SuperSpike ignores the slope it is given, and is replaced by one that does not."""
    import norse.torch as snn
    from norse.torch.functional import lif as lif_functions
    from norse.torch.functional import lif_box

    lif_functions.threshold = lif_box.threshold = lambda u, method, alpha: FastSigmoid.apply(u)
    one, theta = torch.tensor(1.0, dtype=dtype), torch.tensor(THETA, dtype=dtype)
    leak, zero = torch.tensor(1 / GAIN, dtype=dtype), torch.zeros((), dtype=dtype)
    box = snn.LIFBoxParameters(tau_mem_inv=leak, v_leak=zero, v_th=theta, v_reset=zero)
    full = snn.LIFParameters(tau_syn_inv=one, tau_mem_inv=leak, v_leak=zero, v_th=theta, v_reset=zero)

    def lif() -> nn.Module:
        return snn.LIFBoxCell(box, dt=1.0)

    layers = torch_layers(work, material, dtype, lif=lif, recurrent=dense, scale=GAIN)
    if "recurrent" in work.plan:
        into, within = (next(layer.parameters()) for layer in layers[:2])
        size = into.shape[1], into.shape[0]
        given = {"input_weights": into, "recurrent_weights": within, "autapses": True}
        layers[:2] = [snn.LIFRecurrentCell(*size, full, dt=1.0, **given)]
    network = snn.SequentialState(*layers)

    def forward(x: Tensor) -> Tensor:
        state, spikes = None, []
        for x_t in x.unbind(0):  # as `Lift` does, which indexes: quadratic in steps where the input has a gradient
            s, state = network(x_t, state)
            spikes.append(s)
        return torch.stack(spikes)

    return torch_step(forward, list(network.parameters()), work, material, dtype, scale=GAIN)


def sinabs(work: Work, material: Material, dtype: torch.dtype) -> Step:
    """Batch first; one spike a step and reset to zero (it also has a subtracting reset, which acts before the decay
    and so has no equal among ours)."""
    import sinabs.layers as snn
    from sinabs.activation import MembraneReset, SingleSpike

    numbers: dict[str, Any] = {
        "spike_threshold": torch.tensor(THETA, dtype=dtype),
        "spike_fn": SingleSpike,
        "reset_fn": MembraneReset(),
        "surrogate_grad_fn": lambda v, threshold: 1 / (1 + SLOPE * (v - threshold).abs()).square(),
        "norm_input": False,
        "train_alphas": True,  # the decay itself is the parameter, here a fixed one
    }
    conv = "conv" in work.plan

    def fixed(layer: nn.Module) -> nn.Module:
        layer.alpha_mem = nn.Parameter(torch.tensor(BETA, dtype=dtype), requires_grad=False)
        return layer

    def lif() -> nn.Module:
        return fixed(snn.LIFSqueeze(batch_size=work.batch, tau_mem=9.5, **numbers) if conv else snn.LIF(9.5, **numbers))

    def recurrent(weight: Tensor) -> nn.Module:
        return fixed(snn.LIFRecurrent(9.5, dense(weight), **numbers))

    network = nn.Sequential(*torch_layers(work, material, dtype, lif=lif, recurrent=recurrent))
    weights = [weight for weight in network.parameters() if weight.requires_grad]

    def forward(x: Tensor) -> Tensor:
        for layer in network.modules():
            if isinstance(layer, snn.StatefulLayer):
                layer.reset_states()  # pyright: ignore[reportCallIssue]
        return network(x.flatten(0, 1)).unflatten(0, x.shape[:2]) if conv else network(x)

    return torch_step(forward, weights, work, material, dtype, batch_first=True)


class FastSigmoid(torch.autograd.Function):
    """A spike with the derivative 1 / (1 + 10 |u|)^2."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return gradient / (1 + SLOPE * u.abs()).square()
