"""Networks that are graphs, against others: SEW residual ones of SpikingJelly, U-shaped and concat ones in torch.

    python experiments/benchmarks/graphs.py

Needs spikingjelly beside snn_bp for the first. Both sides get the same weights and random spikes, in training mode: how
many spikes of all layers of neurons differ, and how far outputs and gradients do, as a fraction of the largest output
and of the norm of each gradient, the worst of all parameters. Writes experiments/results/graphs.json.

In double precision no spike differs, and gradients agree to rounding; in single precision sums are taken in another
order, and a potential within rounding of its threshold may spike on one side only.
"""

import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
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
    Dense,
    Flatten,
    Network,
    Parallel,
    Residual,
    Upsample,
)
from snn_bp.files import write_json
from snn_bp.runs.provenance import machine, version

STEPS, BATCH, CLASSES, SIDE = 12, 5, 6, 12
BETA = 0.5  # SpikingJelly's tau of 2
N = LIF(beta=BETA, reset="zero")
WITH_WEIGHTS = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.Linear)
head = (Flatten(), Dense(CLASSES))


def conv(channels: int, kernel: int = 3, stride: int = 1) -> tuple:
    """A convolution, its norm and its neurons."""
    return Conv(channels, kernel, padding=kernel // 2, stride=stride, bias=False), BatchNorm(), N


def sew(combine: Any) -> tuple:
    """Three blocks of SEW ResNet (Fang et al. 2021), the middle one with half the sides and a shortcut."""
    return (
        *conv(8),
        Residual(*conv(8), *conv(8), combine=combine),
        Residual(*conv(12, stride=2), *conv(12), combine=combine, shortcut=conv(12, 1, 2)),
        Residual(*conv(12), *conv(12), combine=combine),
        *head,
    )


INNER = Parallel((), (*conv(8, stride=2), Upsample(2), *conv(6)))
UP = ConvTranspose(4, 2, stride=2, bias=False)
U_SHAPED = (*conv(4), Parallel((), (*conv(6, stride=2), INNER, *conv(6), UP, BatchNorm(), N)), *conv(4), *head)
CONCAT = (*conv(4), Parallel(conv(3, 1), conv(4, 3), conv(2, 5), ()), Parallel((), conv(3)), *head)


class Spike(torch.autograd.Function):
    """A step, and the derivative of an arc tangent of slope 2 in its place."""

    @staticmethod
    def forward(ctx, distance: Tensor) -> Tensor:
        ctx.save_for_backward(distance)
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (distance,) = ctx.saved_tensors
        return grad / (1 + (torch.pi * distance) ** 2)


class Leaky(nn.Module):
    """Leaky neurons that are reset to zero, step by step in torch; what they sent is kept in `sent`."""

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of `x` `[time, batch, ...]`."""
        v, sent = torch.zeros_like(x[0]), []
        for x_t in x:
            v = BETA * v + x_t
            sent.append(Spike.apply(v - 1))
            v = v * (1 - sent[-1].detach())
        self.sent = torch.stack(sent)
        return self.sent


class Unit(nn.Module):
    """A convolution (or a transposed one), its norm and its neurons, in torch."""

    def __init__(self, inputs: int, channels: int, kernel: int = 3, stride: int = 1, *, up: bool = False) -> None:
        super().__init__()
        if up:
            self.weights: nn.Module = nn.ConvTranspose2d(inputs, channels, kernel, stride, bias=False)
        else:
            self.weights = nn.Conv2d(inputs, channels, kernel, stride, kernel // 2, bias=False)
        self.norm, self.neurons = nn.BatchNorm2d(channels), Leaky()

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of `x` `[time, batch, channels, height, width]`."""
        rows = self.norm(self.weights(x.flatten(0, 1)))
        return self.neurons(rows.unflatten(0, x.shape[:2]))


class TorchU(nn.Module):
    """`U_SHAPED` written out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down, self.lower, self.middle = Unit(2, 4), Unit(4, 6, 3, 2), Unit(6, 8, 3, 2), Unit(8, 6)
        self.back, self.up, self.last = Unit(12, 6), Unit(6, 4, 2, 2, up=True), Unit(8, 4)
        self.head = nn.Linear(4 * SIDE * SIDE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """The output of every step."""
        x = self.first(x)
        down = self.down(x)
        wide = self.lower(down).repeat_interleave(2, 3).repeat_interleave(2, 4)
        inner = self.back(torch.cat([down, self.middle(wide)], 2))
        return self.head(self.last(torch.cat([x, self.up(inner)], 2)).flatten(2))


class TorchConcat(nn.Module):
    """`CONCAT` written out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.three, self.five = Unit(2, 4), Unit(4, 3, 1), Unit(4, 4, 3), Unit(4, 2, 5)
        self.dense, self.head = Unit(13, 3), nn.Linear(16 * SIDE * SIDE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """The output of every step."""
        x = self.first(x)
        x = torch.cat([self.one(x), self.three(x), self.five(x), x], 2)
        return self.head(torch.cat([x, self.dense(x)], 2).flatten(2))


def spikingjelly_sew(combine: str) -> nn.Module:
    """The same of SpikingJelly's own blocks; its file asks torchvision for a downloader, which nobody calls."""
    if "torchvision.models.utils" not in sys.modules:
        stand_in: Any = types.ModuleType("torchvision.models.utils")
        stand_in.load_state_dict_from_url = None
        sys.modules |= {name: types.ModuleType(name) for name in ("torchvision", "torchvision.models")}
        sys.modules["torchvision.models.utils"] = stand_in
    from spikingjelly.activation_based import functional, layer, neuron, surrogate  # pyright: ignore[reportMissingImports]
    from spikingjelly.activation_based.model import sew_resnet  # pyright: ignore[reportMissingImports]

    def cell(**how: Any) -> nn.Module:
        options = {"decay_input": False, "v_reset": 0.0, "detach_reset": True}
        return neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(alpha=2.0), **options)

    def block(inputs: int, channels: int, stride: int = 1) -> nn.Module:
        down = None
        if stride > 1:
            down = nn.Sequential(sew_resnet.conv1x1(inputs, channels, stride), layer.BatchNorm2d(channels))
        how = {"norm_layer": layer.BatchNorm2d, "cnf": combine.upper(), "spiking_neuron": cell}
        return sew_resnet.BasicBlock(inputs, channels, stride, down, **how)

    stem = (layer.Conv2d(2, 8, 3, padding=1, bias=False), layer.BatchNorm2d(8), cell())
    blocks = (block(8, 8), block(8, 12, 2), block(12, 12))
    network = nn.Sequential(*stem, *blocks, layer.Flatten(), layer.Linear(12 * (SIDE // 2) ** 2, CLASSES))
    functional.set_step_mode(network, "m")
    return network


NETWORKS: dict[str, tuple[tuple, Callable[[], nn.Module]]] = {
    **{f"SEW {way}, SpikingJelly": (sew(way), lambda way=way: spikingjelly_sew(way)) for way in ("add", "and", "iand")},
    "U-shaped, torch": (U_SHAPED, TorchU),
    "concat, torch": (CONCAT, TorchConcat),
}


def compare(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """One network on both sides: differing spikes, outputs and gradients."""
    model, make = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(STEPS, BATCH, 2, SIDE, SIDE, generator=generator) < 0.3).to(dtype)
    targets = torch.arange(BATCH) % CLASSES
    network = Network(model, (2, SIDE, SIDE), surrogate=ATan(slope=2), seed=1).to(dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        other = make().to(dtype)
    mine, theirs = ([each for each in net.modules() if isinstance(each, WITH_WEIGHTS)] for net in (network, other))
    with torch.no_grad():
        for ours, copy in zip(mine, theirs, strict=True):
            copy.load_state_dict(ours.state_dict())
    sent: list[Tensor] = []
    for cell in other.modules():
        if type(cell).__name__ in ("LIFNode", "Leaky"):
            cell.register_forward_hook(lambda cell, given, out: sent.append(out.detach()))
    with torch.no_grad():
        activities, _ = network.observe(x)
    outs = [network(x), other(x)]
    for out in outs:
        F.cross_entropy(out.mean(0), targets).backward()
    spikes = [(each.spikes, there) for each, there in zip(activities, sent, strict=True)]
    gradients: list[tuple[Any, Any]] = [
        (weight.grad, copy.grad)
        for ours, at in zip(mine, theirs, strict=True)
        for weight, copy in zip(ours.parameters(), at.parameters(), strict=True)
    ]
    return {
        "neurons_and_steps": sum(a.numel() for a, _ in spikes),
        "mean_spikes": round(sum(float(a.sum()) for a, _ in spikes) / sum(a.numel() for a, _ in spikes), 4),
        "least_of_a_layer": round(min(float(a.mean()) for a, _ in spikes), 5),
        "spikes_differ": sum(int((a != b).sum()) for a, b in spikes),
        "output_error": float((outs[0] - outs[1]).detach().abs().max() / outs[1].detach().abs().max()),
        "gradient_error": max(float((a - b).norm() / b.norm()) for a, b in gradients),
    }


def main() -> None:
    """Measure and write the result."""
    torch.set_num_threads(1)
    packages = ("snn_bp", "torch", "spikingjelly")
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in packages},
        "steps": STEPS,
        "batch": BATCH,
    }
    for name in NETWORKS:
        result[name] = {
            str(dtype).removeprefix("torch."): compare(name, dtype) for dtype in (torch.float64, torch.float32)
        }
        print(name, result[name], flush=True)
    write_json(Path(__file__).parents[1] / "results" / "graphs.json", result)


if __name__ == "__main__":
    main()
