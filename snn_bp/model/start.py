"""`start_alive`: weights scaled so that neurons fluctuate about threshold, also if a mask or function makes them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snn_bp.errors import SnnError, check_number
from snn_bp.errors.calls import checked_call
from snn_bp.errors.fields import LARGEST
from snn_bp.kernels import check_finite, first_state, parameters_of, simulate
from snn_bp.kernels.reference import as_tensors, torch_advance
from snn_bp.model.blocks import LayerAt, Path, every_part, joined, own_weights, parts_of, role_of
from snn_bp.model.constrained import ConstrainedLinear
from snn_bp.model.exact import has_known_class, is_exact
from snn_bp.model.masks import check_mask
from snn_bp.model.network import Network, check_network, neuron_of
from snn_bp.model.plan import apply_stateless
from snn_bp.neurons import LI, coefficients, is_leaky, is_spiking
from snn_bp.runtime.status import phase

SMALL = 1e-4  # part of the input from which a linear response is taken
CLOSE = 0.05  # a weight that is rounded on its way misses the spread that is asked for by a part of it


@checked_call
@phase("scaling the first weights")
@torch.no_grad()
def start_alive(network: Network, x: Tensor, *, spread: float = 1.0, mask: Tensor | None = None) -> None:
    """Scale the weights in front of each neuron so that its free membrane fluctuates by `spread` thresholds on `x`.

    The fluctuation-driven initialisation of Rossbroich et al. 2022, with the spread measured on a batch instead of
    estimated from assumed Poisson rates: layer by layer the weights are scaled and biases set to zero, then the
    spikes go on to the next, into every branch of a joint and on behind it. Layers behind a batch norm, neurons that
    follow a joint without weights between, readouts that do not spike and layers of classes that are not
    ours are left as they are; batch norms take over the statistics of the batch, so that evaluation means something
    before the first step. Of a neuron outside the leaky family the membrane's linear response to the input counts,
    seen from its first threshold. Weights that are pruned or parametrised are scaled where they come from. What layers
    of your own draw is the same in every call.

    Parameters:
        network: changed in place.
        x: a batch of inputs `[time, batch, *input_shape]`.
        spread (1.0): standard deviation of the free membrane, in thresholds.
        mask (None): `[time, batch]`, True where a recording has a step; None: all have all of them.

    Raises where no input comes, or a weight takes no other scale.

    >>> network, x = Network((Dense(50), LIF(beta=0.9)), (20,)), torch.eye(20)[:, None]  # a spike a step
    >>> before = network(x).sum().item()
    >>> start_alive(network, x)
    >>> before, network(x).sum().item()
    (18.0, 55.0)
    """
    check_network("start_alive", network)
    check_number("start_alive: spread", spread, above=0, high=LARGEST)
    spread = float(spread)
    found, x = fronts(network), network.in_floats(x)
    check_finite("start_alive", x)
    if mask is not None:
        check_mask(x, mask, parts_of(network), network.name)
    norms: list[Any] = [layer for layer in network.modules() if role_of(layer) == "norm"]
    momenta, was_training = [norm.momentum for norm in norms], network.training
    network.train()
    for norm in norms:
        norm.momentum = 1.0
    try:
        for synapse in found.values():
            clear_bias(network.name(synapse.path), synapse.layer)
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(0)
            if not found and all(part.role != "dropout" for part in every_part(parts_of(network))):
                network.rates(x, mask=mask)  # nothing to scale: the statistics alone, by the kernels of training
            else:
                _scale_fronts(network, found, x, spread, mask)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.train(was_training)


def _scale_fronts(network: Network, found: dict[Path, LayerAt], x: Tensor, spread: float, mask: Tensor | None) -> None:
    """Layer by layer, the weights that `found` gives for the path of each layer of neurons."""
    entered: dict[Path, Tensor] = {}  # what came to weights of which the class may not be linear in them
    scaled = {weights.path for weights in found.values()}

    def passed(part: LayerAt, x: Tensor) -> Tensor:
        if part.role == "joint":
            return joined(network, part, x, run)
        if part.role == "dropout":
            return x  # nothing random: the start depends on the seed of the weights and on x alone
        return part.layer(x)[0] if part.role == "neurons" else apply_stateless(part.layer, x, mask)

    def run(row: list[LayerAt], x: Tensor) -> Tensor:
        for part in row:
            if part.path in scaled and not is_exact(part.layer):
                entered[part.path] = x
            if part.path in found:
                size, weights = _size(part.layer, x, mask), found[part.path]
                if size > 0:
                    scale_weight(network.name(weights.path), weights.layer, spread / size)
                    x = x * (spread / size)
                if size > 0 and weights.path in entered:
                    x = entered[weights.path]
                    for between in row[weights.index : part.index]:
                        x = passed(between, x)
                    check_scaled(network.name(weights.path), float(_size(part.layer, x, mask)), spread)
            x = passed(part, x)
        return x

    run(parts_of(network), x)


def _size(layer: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """How far the free membrane of a layer of neurons fluctuates under `x`, in thresholds."""
    if not is_leaky(neuron_of(layer)):
        return _response(layer, x, mask)
    values = coefficients(neuron_of(layer))
    free, _ = simulate(LI(alpha=values["alpha"], beta=values["beta"]), x)
    free = free if mask is None else free[mask]
    return (free / torch.as_tensor(values["theta"], dtype=x.dtype, device=x.device)).square().mean().sqrt()


def _response(neurons: Any, x: Tensor, mask: Tensor | None) -> Tensor:
    """How far `x` moves a membrane from its course without input, in thresholds: its linear response, and no spike is
    fired, or left out, that would not be without input."""
    neuron, still = neurons.neuron, x[:1, :1].double()
    values = tuple(parameters_of(neuron, still, neurons.parameters_now()).values())
    found: list[tuple[Tensor, Tensor]] = []  # distance and scale of each spike of a step
    fired: list[Tensor] = []

    def fire(u: Tensor, scale: Tensor) -> Tensor:
        found.append((u, scale))
        fired.append((u > 0).to(u.dtype))
        return fired[-1]

    def repeat(u: Tensor, scale: Tensor) -> Tensor:
        found.append((u, scale))
        return fired[len(found) - 1]

    def first(advance: Callable, state: tuple[Tensor, ...], x_t: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        found.clear()
        return as_tensors(advance(*state, x_t, *values), x_t), *found[0]

    alone, moved = (torch_advance(neuron.equation, neurons.surrogate, spike=each) for each in (fire, repeat))
    at_rest, state = first_state(neuron, still, None), first_state(neuron, x[:1].double(), None)
    total, count = still.new_zeros(()), 0
    for t, x_t in enumerate(x.unbind(0)):
        fired.clear()
        at_rest, u, scale = first(alone, at_rest, torch.zeros_like(still[0]))
        state, v, _ = first(moved, state, x_t.double() * SMALL)
        response = ((v - u) / scale / SMALL).expand_as(x_t)
        response = response if mask is None else response[mask[t]]
        total, count = total + response.square().sum(), count + response.numel()
    size = (total / max(1, count)).sqrt()
    if not torch.isfinite(size):
        raise SnnError(
            f"start_alive: {neuron} does not stay finite by itself, so the scale of its weights cannot be found. Put "
            "BatchNorm() in front of it."
        )
    return size.to(x.dtype)


def fronts(network: Network) -> dict[Path, LayerAt]:
    """The weights in front of each spiking layer, by its path, where no norm, joint or unknown layer is between.

    Raises where such weights are used elsewhere too: one scale cannot serve two layers.
    """
    found = dict(_fronts(parts_of(network)))
    users: dict[int, list[Path]] = {}
    for part in every_part(parts_of(network)):
        for weight in own_weights(part).values():
            users.setdefault(id(weight), []).append(part.path)
    scaled = {weights.path for weights in found.values()}
    for shared in users.values():
        if len(shared) > 1 and scaled & set(shared):
            raise SnnError(
                f"start_alive: {' and '.join(map(network.name, shared))} share weights, one scale cannot serve them "
                "all. Share them after start_alive, or put BatchNorm() in front of their neurons."
            )
    return found


def _fronts(row: Iterable[LayerAt]) -> Iterator[tuple[Path, LayerAt]]:
    weights = None
    for part in row:
        for branch in part.branches:
            yield from _fronts(branch)
        if part.role == "neurons":
            if weights is not None and is_spiking(neuron_of(part.layer)):
                yield part.path, weights
            weights = None
        elif part.role == "weights":
            weights = part
        elif part.role in ("norm", "other", "stateful", "over time") or not has_known_class(part.layer):
            weights = None


def scale_weight(name: str, layer: nn.Module, factor: Tensor) -> None:
    """Multiply the weight that a layer computes with, where it comes from."""
    if parametrize.is_parametrized(layer, "weight"):
        _assign(name, layer, "weight", layer.weight * factor)  # type: ignore[operator]
    elif (source := _source(layer, "weight")) is not None:
        source.mul_(factor)
    else:
        raise SnnError(
            f"start_alive: {name} makes its weight of something else, and what to scale there is not known. Call "
            "start_alive first, or put BatchNorm() in front of its neurons."
        )


def clear_bias(name: str, layer: nn.Module) -> None:
    """Set the bias that a layer adds to zero, if it has one."""
    if getattr(layer, "bias", None) is None:
        return
    if parametrize.is_parametrized(layer, "bias"):
        _assign(name, layer, "bias", torch.zeros_like(layer.bias))  # type: ignore[arg-type]
    elif (source := _source(layer, "bias")) is not None:
        source.zero_()
    else:
        raise SnnError(f"start_alive: {name} makes its bias of something else. Call start_alive first.")


def check_scaled(name: str, size: float, spread: float) -> None:
    """Raise unless a layer of another class follows the scale of its weights."""
    if not abs(size - spread) <= CLOSE * spread:
        raise SnnError(
            f"start_alive: {name} does not follow the scale of its weight: the membrane behind it fluctuates by "
            f"{size:.3g} thresholds, {spread:.3g} were asked for. Put BatchNorm() in front of its neurons."
        )


def _source(layer: nn.Module, name: str) -> nn.Parameter | None:
    """The parameter that a weight or bias is, or is proportional to."""
    own = layer._parameters
    if own.get(name) is not None:
        return own[name]
    if name == "weight" and type(layer) is ConstrainedLinear:
        return layer.raw
    if own.get(f"{name}_orig") is not None and f"{name}_mask" in layer._buffers:  # torch.nn.utils.prune
        return own[f"{name}_orig"]
    return own.get(f"{name}_g")  # torch.nn.utils.weight_norm


def _assign(name: str, layer: nn.Module, part: str, value: Tensor) -> None:
    """Give a parametrised weight a value, where its parametrisation knows a way back."""
    try:
        setattr(layer, part, value)
        close = torch.allclose(getattr(layer, part), value, rtol=1e-3, atol=1e-6)
    except (NotImplementedError, RuntimeError, ValueError):
        close = False
    if not close:
        raise SnnError(
            f"start_alive: {name} has a parametrised {part} that does not take another scale. Call start_alive first, "
            "or put BatchNorm() in front of its neurons."
        )
