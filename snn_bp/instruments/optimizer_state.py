"""What an optimizer makes of a gradient: its momentum, its second moment, and the step that comes out."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from snn_bp.errors import SnnError
from snn_bp.model.blocks import every_part, own_weights, parts_of
from snn_bp.model.network import Network, check_network


class LayerUpdate(NamedTuple):
    """What one step does to a layer, all its weights together; sizes are Euclidean norms."""

    layer: str
    gradient: float
    momentum: float | None  # the buffer with this gradient taken in; Adam's and AdamW's corrected for its start at zero
    cosine: float | None  # between momentum and gradient; NaN where either is zero
    second_moment_root: float | None  # root of its mean over the weights, corrected for its start at zero
    step_over_gradient: float  # the effective step size: |update| / |gradient|
    update_over_weight: float  # |update| / |weight|; weight decay is part of the update


def trace_optimizer(optimizer: torch.optim.Optimizer, network: Network) -> list[LayerUpdate]:
    """A row for each layer with weights, of the step that `optimizer.step()` would take now; changes nothing.

    Call it between `backward()` and `optimizer.step()`. A copy of the optimizer takes the step on copies of the
    weights. Knows SGD, Adam and AdamW; None stands for what SGD has not (the buffer, without momentum).
    """
    if not isinstance(optimizer, torch.optim.SGD | torch.optim.Adam | torch.optim.AdamW):
        raise SnnError(f"trace_optimizer: {type(optimizer).__name__} is not known. Known: SGD, Adam, AdamW.")
    check_network("trace_optimizer", network)
    copied = copy.deepcopy(optimizer)  # with copies of the weights, without their gradients and without hooks
    groups = zip(optimizer.param_groups, copied.param_groups, strict=True)
    copies = {id(w): copy for ours, other in groups for w, copy in zip(ours["params"], other["params"], strict=True)}
    if copies.keys() - {id(weight) for weight in network.parameters()}:
        raise SnnError("trace_optimizer: the optimizer holds weights that the network has not. Give it its network.")
    for name, weight in network.named_parameters():
        if id(weight) not in copies:
            continue
        if weight.grad is None:
            raise SnnError(f"trace_optimizer: {name} has no gradient. Call it between backward() and optimizer.step().")
        copies[id(weight)].grad = weight.grad.detach().clone()
    copied.step()
    rows = []
    for part in every_part(parts_of(network)):
        weights = [weight for weight in own_weights(part).values() if id(weight) in copies]
        if weights:
            rows.append(_row(network.name(part.path), weights, [copies[id(weight)] for weight in weights], copied))
    return rows


def _row(
    name: str, weights: Sequence[Tensor], after: Sequence[Tensor], optimizer: torch.optim.Optimizer
) -> LayerUpdate:
    groups = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    gradient = _flat([weight.grad for weight in weights])  # type: ignore[misc]
    update = _flat([new.detach() - weight.detach() for weight, new in zip(weights, after, strict=True)])
    buffers, squares = [], []
    for weight in after:
        state = optimizer.state[weight]
        if "exp_avg" in state:
            first, second = (1 - beta ** float(state["step"]) for beta in groups[id(weight)]["betas"])
            buffers.append(state["exp_avg"] / first)
            squares.append(state["exp_avg_sq"] / second)
        elif state.get("momentum_buffer") is not None:
            buffers.append(state["momentum_buffer"])
    size, momentum = gradient.norm(), _flat(buffers) if buffers else None
    return LayerUpdate(
        layer=name,
        gradient=float(size),
        momentum=None if momentum is None else float(momentum.norm()),
        cosine=None if momentum is None else float(momentum @ gradient / (momentum.norm() * size)),
        second_moment_root=float(_flat(squares).mean().sqrt()) if squares else None,
        step_over_gradient=float(update.norm() / size),
        update_over_weight=float(update.norm() / _flat(weights).norm()),
    )


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])
