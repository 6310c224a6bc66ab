"""The error of one time step's output: what an online rule learns from in place of the loss of the whole output."""

from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from snn_bp.errors import SnnError, check_choice
from snn_bp.instruments.online.blocks import OnlineBlock, Step
from snn_bp.model.losses import CountCrossEntropy, CountSquaredError, Loss, MembraneCrossEntropy, loss_of

Error: TypeAlias = Literal["step", "total"]
ErrorAt: TypeAlias = Callable[[Tensor], Tensor]  # from the output of a step to the gradient there


def objective(out: Tensor, targets: Tensor, loss: Loss, error: Error) -> Tensor:
    """What a rule with this `error` goes down on, of the output `[time, batch, classes]`.

    "step": the mean over time of the loss of each step's output alone, as in Xiao et al. 2022 and Bellec et al. 2020.
    "total": the loss itself.
    """
    check_choice("objective: error", error, ("step", "total"))
    if error == "total":
        return loss_of(loss, out, targets)
    return torch.stack([loss_of(loss, out_t[None], targets) for out_t in out]).mean()


def error_of(rule: str, blocks: list[OnlineBlock], x: Tensor, targets: Tensor, loss: Loss, error: Error) -> ErrorAt:
    """The gradient of the objective at the output of a step, from that output.

    With "total" the network runs once ahead to sum its outputs: the gradient of a loss of their sum is the same at
    every step, but known after the last one only.
    """
    check_choice(f"{rule}: error", error, ("step", "total"))
    if type(loss) not in (CountCrossEntropy, MembraneCrossEntropy, CountSquaredError):  # one on top may be otherwise
        raise SnnError(
            f"{rule}: {loss} depends on when the output does something, so a step has no error of its own. "
            "CountCrossEntropy, MembraneCrossEntropy and CountSquaredError, which sum over time, have one."
        )
    steps = len(x)
    if error == "step":
        return lambda out: _gradient(out, lambda leaf: loss(leaf[None], targets) / steps)
    total = sum(out for out, _ in run(blocks, x))
    assert isinstance(total, Tensor)
    g = _gradient(total / steps, lambda leaf: loss(leaf.expand(steps, *leaf.shape), targets)) / steps
    return lambda out: g


def run(blocks: list[OnlineBlock], x: Tensor) -> Iterator[tuple[Tensor, list[Step]]]:
    """The output of each time step from rest, and what each block did in it; the states of one step are held."""
    states = [block.rest for block in blocks]
    for time in range(len(x)):
        out, steps = x[time], []
        for index, block in enumerate(blocks):
            out, step = block.forward(out, states[index])
            states[index] = step.after
            steps.append(step)
        yield out, steps


@torch.enable_grad()
def _gradient(value: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    leaf = value.detach().requires_grad_()
    return torch.autograd.grad(of(leaf), leaf)[0]
