"""Twenty wishes of networks."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp import (
    LIF,
    ATan,
    BatchNorm,
    Conv,
    ConvTranspose,
    DelayedDense,
    Dense,
    Dropout,
    Flatten,
    LayerNorm,
    Module,
    Parallel,
    Pool,
    Recurrent,
    Residual,
    Run,
    Spiking,
    TemporalConv,
    Upsample,
    simulate,
)  # fmt: skip
from wished.wish import OUT, wish

NEURON = LIF(beta=0.8, reset="zero")
CONVOLVED = (Conv(4, 3, padding=1), BatchNorm(), NEURON)


class Gate(nn.Module):
    """Squeeze and excitation: channels count as what the mean of each says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.importance = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Each row for itself."""
        return x * torch.sigmoid(self.importance(x.mean((2, 3))))[..., None, None]


@dataclass(frozen=True)
class Squared:
    """A layer of one's own without a module of torch's: x + a * x^2."""

    a: float = 0.1

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """The module."""
        return Square(self.a)


class Square(nn.Module):
    """What `Squared` builds."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x: Tensor) -> Tensor:
        """Each value for itself."""
        return x + self.a * x.square()


class EachStep(nn.Module):
    """A factor for each time step, as temporally effective batch norm has behind its norm (Duan et al. 2022)."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(steps))

    def forward(self, x: Tensor) -> Tensor:
        """`[time, batch, ...]`."""
        return x * self.factor[: len(x)].view(-1, *(1,) * (x.dim() - 1))


class DropChannels(nn.Module):
    """Whole channels are silent for a recording, at all steps."""

    def forward(self, x: Tensor) -> Tensor:
        """`[time, batch, channels, ...]`."""
        return x * F.dropout(torch.ones_like(x[0, :, :, :1, :1]), 0.2, self.training)


class Attention(nn.Module):
    """A transformer's block over the steps of a recording, which sees no later ones."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """`[time, batch, width]`."""
        later = torch.ones(len(x), len(x), dtype=torch.bool, device=x.device).triu(1)
        x = x + self.attend(x, x, x, attn_mask=later, need_weights=False)[0]
        return x + self.feed(self.norm(x))


class Spike(torch.autograd.Function):
    """A step, with the slope of a triangle."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:  # type: ignore[override]
        """1 above 0."""
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> Tensor:  # type: ignore[override]
        """The gradient of the triangle."""
        (v,) = ctx.saved_tensors
        return error * (1 - v.abs()).clamp(min=0)


class TwoCompartments(nn.Module):
    """Neurons of a dendrite and a soma, coupled both ways."""

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.coupling = nn.Parameter(torch.full((neurons,), 0.5))

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Spikes of every step, and both potentials behind the last one."""
        dendrite, soma = (torch.zeros_like(x[0]), torch.zeros_like(x[0])) if state is None else state
        spikes = []
        for step in x:
            dendrite = 0.9 * dendrite + step - 0.1 * soma
            soma = 0.8 * soma + self.coupling * dendrite
            spike = Spike.apply(soma - 1)
            soma = soma - spike
            spikes.append(spike)
        return torch.stack(spikes), (dendrite, soma)


class ResonateAndFire(nn.Module):
    """Izhikevich 2001: damped oscillations, which spike where they are large."""

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.linspace(0.3, 1.5, neurons))

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Spikes of every step, and both variables behind the last one."""
        u, v = (torch.zeros_like(x[0]), torch.zeros_like(x[0])) if state is None else state
        sine, cosine = self.frequency.sin(), self.frequency.cos()
        spikes = []
        for step in x:
            u, v = 0.9 * (cosine * u - sine * v) + step, 0.9 * (sine * u + cosine * v)
            spikes.append(Spike.apply(v - 1))
        return torch.stack(spikes), (u, v)


class Siamese(nn.Module):
    """One set of weights for both halves of the input, and once more for what neurons make of the sum."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.shared = nn.Linear(half, half)

    def forward(self, x: Tensor) -> Tensor:
        """`[time, batch, 2 * half]`."""
        first, second = (self.shared(part) for part in x.chunk(2, -1))
        spikes, _ = simulate(LIF(beta=0.8), first + second, surrogate=ATan())
        return self.shared(spikes)


@dataclass(frozen=True)
class Pruned:
    """A dense layer of which the smallest weights are left out, at every step those that are smallest then."""

    units: int
    fraction: float = 0.5

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """The module."""
        return PrunedLinear(shape[0], self.units, self.fraction)


class PrunedLinear(nn.Linear):
    """What `Pruned` builds."""

    def __init__(self, inputs: int, units: int, fraction: float) -> None:
        super().__init__(inputs, units)
        self.fraction = fraction

    def forward(self, x: Tensor) -> Tensor:
        """Each row for itself."""
        sizes = self.weight.detach().abs()
        return F.linear(x, self.weight * (sizes > sizes.flatten().quantile(self.fraction)), self.bias)


def dense(*between: Any) -> tuple[Any, ...]:
    """A dense network with something between its layers."""
    return Flatten(), Dense(12), BatchNorm(), NEURON, *between, *OUT


def convolved(*between: Any) -> tuple[Any, ...]:
    """A network of convolutions with something between its layers."""
    return *CONVOLVED, *between, Pool(2), Flatten(), *OUT


def keeps_dales_principle(run: Run) -> str:
    """Whether each input of the constrained layers only excites or only inhibits."""
    network = run.network()
    weights = [network.layers[1].weight, network.layers[3].recurrence.weight]  # type: ignore[union-attr]
    wrong = [bool(((w > 0).any(0) & (w < 0).any(0)).any()) for w in weights]  # type: ignore[operator]
    return "a neuron excites and inhibits" * any(wrong)


def learned_thresholds(run: Run) -> str:
    """Whether the thresholds of channels have moved, and are as many as channels."""
    values = run.network().layers[2].parameters_now()["theta"]  # type: ignore[operator]
    return "" if values.unique().numel() == 4 else f"thresholds {values.unique().tolist()}"


WISHES = {
    "own stateless module": [wish(*dense(Squared(0.2))), wish(*convolved(Module(nn.PReLU, 4)))],
    "LayerNorm, GroupNorm, SE gate": [wish(*convolved(LayerNorm(), Module(nn.GroupNorm, 2, 4), Module(Gate, 4)))],
    "Upsample, ConvTranspose": [
        wish(
            *convolved(
                Conv(3, 3, stride=2, padding=1), NEURON, ConvTranspose(3, 2, stride=2), NEURON, Pool(2), Upsample(2)
            )
        )
    ],
    "depthwise convolution": [wish(*convolved(Conv(8, 3, padding=1, groups=4), BatchNorm(), NEURON))],
    "max pool": [wish(*convolved(Pool(2, kind="max")))],
    "tdBN": [wish(Conv(4, 3), BatchNorm(scale=1.5), NEURON, Flatten(), *OUT)],
    "TEBN, convolution over time, 3-D": [
        wish(Flatten(), Dense(12), BatchNorm(), Module(EachStep, 6, over="time"), NEURON, *OUT),
        wish(TemporalConv(3, 3, 3, padding=1), BatchNorm(), NEURON, Flatten(), *OUT),
    ],
    "dropout variants": [wish(*convolved(Dropout(0.1), Module(nn.Dropout2d, 0.2), Module(DropChannels, over="time")))],
    "SEW residual": [wish(*convolved(Residual(*CONVOLVED, *CONVOLVED)))],
    "branches, concat, multi-readout": [
        wish(*convolved(Parallel((), CONVOLVED, (Pool(1), *CONVOLVED)))),
        wish(Flatten(), Dense(12), NEURON, Parallel((Dense(1), NEURON), (Dense(2), BatchNorm(), NEURON))),
    ],
    "attention, transformer block": [wish(*dense(Module(Attention, 12, heads=2, over="time")))],
    "two-compartment neuron": [
        wish(Flatten(), Dense(12), BatchNorm(), Module(TwoCompartments, 12, stateful=True), *OUT)
    ],
    "resonate-and-fire": [wish(Flatten(), Dense(12), BatchNorm(), Module(ResonateAndFire, 12, stateful=True), *OUT)],
    "threshold per channel": [
        wish(Flatten(), Dense(4), BatchNorm(), LIF(beta=0.8, threshold=(0.5, 0.8, 1.0, 1.5), reset="zero"), *OUT)
    ],
    "the same, learned": [
        wish(
            *(Conv(4, 3), BatchNorm(), Spiking(NEURON, learn=("threshold",), per="channel"), Flatten(), *OUT),
            holds=learned_thresholds,
        )
    ],
    "lateral inhibition": [wish(Flatten(), Dense(12), BatchNorm(), Recurrent(NEURON, sign="negative"), *OUT)],
    "weight sharing": [wish(*dense(Module(Siamese, 6, over="time"), NEURON))],
    "Dale's law": [
        wish(
            *(Flatten(), Dense(12, sign="dale"), BatchNorm(), Recurrent(NEURON, sign="dale"), *OUT),
            holds=keeps_dales_principle,
        )
    ],
    "pruning masks": [
        wish(Flatten(), Dense(12, density=0.3), BatchNorm(), NEURON, *OUT),
        wish(Flatten(), Pruned(12, 0.7), BatchNorm(), NEURON, *OUT),
    ],
    "synaptic delays (DCLS)": [wish(Flatten(), DelayedDense(12, 4), BatchNorm(), NEURON, *OUT)],
}
