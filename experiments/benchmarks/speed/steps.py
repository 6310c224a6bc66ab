"""One training step of a library: how it is run and how its outcome is read, and what torch's libraries share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speed.works import Material, Work

Outcome = tuple[Any, list[Any]]  # spikes of the last layer; gradients of the weights, or of the currents of W2

Weighted = TypeVar("Weighted", nn.Linear, nn.Conv2d)


class Step(NamedTuple):
    """A step without the optimizer; `read` is not timed."""

    run: Callable[[], Outcome]
    read: Callable[[Outcome], tuple[np.ndarray, list[np.ndarray]]]  # in our layout and units


def torch_layers(
    work: Work,
    material: Material,
    dtype: torch.dtype,
    *,
    lif: Callable[[], nn.Module],
    recurrent: Callable[[Tensor], nn.Module],
    scale: float = 1.0,
    device: str = "cpu",
) -> list[nn.Module]:
    """The layers of a work as torch modules; `recurrent` gets its weights. All weights are `scale` times ours."""
    weights = (scale * torch.from_numpy(weight).to(dtype) for weight in material.weights)
    make: dict[str, Callable[[], nn.Module]] = {
        "dense": lambda: dense(next(weights)),
        "conv": lambda: conv(next(weights)),
        "maxpool": lambda: nn.MaxPool2d(2),
        "avgpool": lambda: nn.AvgPool2d(2),
        "flatten": lambda: nn.Flatten(1),
        "lif": lif,
        "recurrent": lambda: recurrent(next(weights)),
    }
    return [make[layer]().to(device) for layer in work.plan]


def dense(weight: Tensor) -> nn.Linear:
    """A layer without bias with these weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    return _loaded(layer, weight)


def conv(weight: Tensor) -> nn.Conv2d:
    """A convolution without bias with these weights."""
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], (weight.shape[2], weight.shape[3]), bias=False)
    return _loaded(layer, weight)


def _loaded(layer: Weighted, weight: Tensor) -> Weighted:
    layer.weight = nn.Parameter(weight)
    if weight.dtype == torch.float64:  # snnTorch's and sinabs's spikes are single whatever their potentials are
        layer.register_forward_pre_hook(lambda _, given: (given[0].double(),))
    return layer


def torch_step(
    forward: Callable[[Tensor], Tensor],
    weights: Sequence[Tensor],
    work: Work,
    material: Material,
    dtype: torch.dtype,
    *,
    scale: float = 1.0,
    batch_first: bool = False,
    device: str = "cpu",
) -> Step:
    """The step of a torch library; `forward` takes and gives `[time, batch, ...]`, or `[batch, time, ...]`."""

    def given(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array).to(dtype).to(device)
        return tensor.transpose(0, 1).contiguous() if batch_first else tensor

    def back(tensor: Tensor) -> np.ndarray:
        return (tensor.transpose(0, 1) if batch_first else tensor).detach().cpu().numpy()

    x, targets = given(material.x), torch.from_numpy(material.targets).to(device)
    if work.units:

        def run() -> Outcome:
            for weight in weights:
                weight.grad = None
            out = forward(x)
            F.cross_entropy(out.sum(1 if batch_first else 0), targets).backward()
            return out, [weight.grad for weight in weights]

        return Step(run, lambda done: (back(done[0]), [scale * gradient.cpu().numpy() for gradient in done[1]]))

    currents, pull = (scale * x).requires_grad_(), given(material.pull)

    def run_neurons() -> Outcome:
        currents.grad = None
        out = forward(currents)
        out.backward(pull)
        return out, [currents.grad]

    return Step(run_neurons, lambda done: (back(done[0]), [scale * back(gradient) for gradient in done[1]]))
