"""A network in the integers of Xylo while it trains: the forward pass is the chip's, spike for spike.

Weights lie on grids of 8 bits and a shift, one for each of the chip's three matrices (straight-through rounding: Bengio
et al. 2013). On the chip a weight joins the current before its decay alpha, so the weight of the chip is that of the
network over alpha. A bias goes to the membrane past the current, as large as the current would make it in time, over
1 - alpha: so what a norm takes off is off. A neuron sends a count of spikes, whose derivative is the surrogate's at the
threshold nearest to the potential, of the first to the last that the count knows: so a neuron that fires several times
learns as one that fires once, and best with gradients through the reset (`detach_reset=False`), since it takes as much
off again. The export takes its integers from here.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from snn_bp.chip.arithmetic import FOR_XYLO
from snn_bp.chip.folding import folded
from snn_bp.chip.forward import check_around, rounded
from snn_bp.chip.rules import name_of, neurons_of
from snn_bp.chip.xylo.configuration import (
    HIDDEN_MOST,
    INPUT_MOST,
    OUTPUT_MOST,
    SHIFT_HIGH,
    STATE_HIGH,
    WEIGHT_HIGH,
    WEIGHT_LOW,
)  # fmt: skip
from snn_bp.chip.xylo.rules import xylo_blocks
from snn_bp.errors import SnnError
from snn_bp.kernels.around import first_derivatives, is_plain
from snn_bp.kernels.operator import neuron_adjoint, run_adjoint
from snn_bp.kernels.xylo import simulate_xylo
from snn_bp.model.blocks import Block, Layers
from snn_bp.model.shard import shard
from snn_bp.neurons import coefficients
from snn_bp.surrogates import Surrogate

THRESHOLD = 1024  # about: 31 spikes and as much below zero fit 16 bits, and a decay's last steps of 1 are small


class Shifts(NamedTuple):
    """By how many bits the chip shifts the weights of each matrix."""

    input: int
    recurrent: int
    output: int


class Grid(NamedTuple):
    """A block in integers, as tensors; gradients flow to what they were rounded from."""

    weight: Tensor  # [neurons, inputs], shifted
    recurrent: Tensor | None
    bias: Tensor
    dashes: tuple[Tensor, Tensor]  # the shifts of the decays of current and membrane
    threshold: Tensor
    scale: float  # steps of the chip in one unit of the network's potential


def run_xylo(
    network: Layers, x: Tensor, *, batch_statistics: bool = False, mask: Tensor | None = None
) -> Iterator[tuple[Block, Tensor, Tensor, Grid]]:
    """Each block with its counts of spikes and potentials on the chip, and its numbers; `x` `[time, batch, ...]`.

    Step t of a block is the one in which the input of step t reaches it: of the hidden population n the chip's step
    t + n. From empty registers; the n steps before, in which a bias acts already, are run too. Norms take their running
    statistics, or with `batch_statistics` those of `x`, of the steps alone that are True in `mask` `[time, batch]`.
    """
    if not torch.equal(x, x.round().clamp(0, INPUT_MOST)):
        raise SnnError(
            f"{FOR_XYLO.where}: the input should be counts of spikes, integers in 0..{INPUT_MOST}, found "
            f"{float(x.min()):g}..{float(x.max()):g}. Bin in shorter steps, or use data.binary=True."
        )
    check_around(FOR_XYLO.target)
    found = xylo_blocks(network)
    shifts = shifts_of(network, found)
    for index, block in enumerate(found):
        for part in block.of("dropout"):
            x = part.layer(x)
        x = x.flatten(2)
        rows = x[index:].flatten(0, 1)
        there = rows if mask is None else rows[mask.flatten()]
        has_some = len(there) or shard() is not None  # other processes may have what is not here
        grid = on_grid(network, found, index, shifts, there if batch_statistics and has_some else None)
        x, potentials = _neurons(block, grid, x, HIDDEN_MOST if block is not found[-1] else OUTPUT_MOST)
        yield block, x[index:], potentials[index:], grid
        x = torch.cat([torch.zeros_like(x[:1]), x])  # a step later at the next


@torch.no_grad()
def shifts_of(network: Layers, blocks: list[Block]) -> Shifts:
    """The largest shifts with which thresholds stay below `THRESHOLD`, norms by their running statistics."""
    numbers = [_numbers(network, block) for block in blocks]

    def largest(index: int, *names: str) -> int | None:
        """The shift at which the largest of these weights would be 127; None where none is other than zero."""
        highest = max((float(numbers[index][name].abs().max()) for name in names if name in numbers[index]), default=0)
        ratio = THRESHOLD * highest / (WEIGHT_HIGH * float(numbers[index]["threshold"].max()))
        return min(int(math.log2(max(ratio, 1))), SHIFT_HIGH) if highest else None

    own = largest(0, "recurrent")
    of_recurrent = [own, *(largest(index, "weight", "recurrent") for index in range(1, len(blocks) - 1))]
    recurrent = min((shift for shift in of_recurrent if shift is not None), default=0)
    entering = largest(0, "weight") or 0
    if own is not None:  # both matrices reach the same neurons, at one scale
        ratio = float(numbers[0]["weight"].abs().max() / numbers[0]["recurrent"].abs().max())
        entering = min(max(recurrent + math.ceil(math.log2(ratio)), 0), SHIFT_HIGH)
    return Shifts(entering, recurrent, largest(len(blocks) - 1, "weight") or 0)


def on_grid(network: Layers, blocks: list[Block], index: int, shifts: Shifts, x: Tensor | None = None) -> Grid:
    """A block's numbers as integers; norms take the statistics of `x` `[rows, inputs]` where it is given."""
    block, own = blocks[index], shifts.recurrent
    numbers = _numbers(network, block, x)
    entering = shifts.input if index == 0 else shifts.output if block is blocks[-1] else own
    weight, recurrent, bias, theta = (numbers.get(name) for name in ("weight", "recurrent", "bias", "threshold"))
    assert weight is not None and theta is not None
    with torch.no_grad():
        scale = STATE_HIGH / float(theta.max())
        for values, most in ((weight, WEIGHT_HIGH << entering), (recurrent, WEIGHT_HIGH << own), (bias, STATE_HIGH)):
            if values is not None and bool((values != 0).any()):
                scale = min(scale, most / float(values.abs().max()))
        if theta.numel() == 1 and scale * float(theta) >= 1:
            scale = math.floor(scale * float(theta)) / float(theta)  # the threshold itself is exact
    threshold = rounded(theta * scale)
    name = f"{FOR_XYLO.where}, {name_of(network, block)}"
    if float(threshold.min()) < 1:
        raise SnnError(
            f"{name}: its threshold {float(theta.min()):.3g} is less than a step of its weights, {1 / scale:.3g}. "
            "BatchNorm() keeps weights small."
        )
    grid = Grid(
        weight=_weights(weight, scale, entering),
        recurrent=None if recurrent is None else _weights(recurrent, scale, own),
        bias=torch.zeros_like(weight[:, 0]) if bias is None else rounded(bias * scale),
        dashes=(numbers["dash_syn"], numbers["dash_mem"]),
        threshold=threshold.expand(len(weight)),
        scale=scale,
    )
    if not bool(grid.weight.any()):
        raise SnnError(
            f"{name}: its weights, {float(weight.abs().max()):.3g} at most, round to zero: bias and threshold leave "
            f"steps of {2**entering / scale:.3g}. Make the threshold smaller."
        )
    return grid


def _numbers(network: Layers, block: Block, x: Tensor | None = None) -> dict[str, Tensor]:
    """The block's numbers in the network's units, weights over alpha, and its shifts."""
    total, neurons = folded(block, x), neurons_of(block)
    like, recurrence, values = total.weight, neurons.recurrence, coefficients(neurons.neuron)
    alpha, beta, theta = (
        torch.as_tensor(values[name], dtype=torch.float64, device=like.device) for name in ("alpha", "beta", "theta")
    )
    numbers = {"weight": total.weight, "bias": total.bias, "threshold": theta.to(like)}
    if recurrence is not None:
        numbers["recurrent"] = recurrence.weight
        if recurrence.bias is not None:
            numbers["bias"] = recurrence.bias if total.bias is None else total.bias + recurrence.bias
    numbers = {name: value for name, value in numbers.items() if value is not None}
    for name, value in numbers.items():
        if not bool(value.isfinite().all()):
            raise SnnError(
                f"{FOR_XYLO.where}, {name_of(network, block)}: its {name}: there is a NaN or infinity, no integer. "
                "`snn-bp doctor` may say why."
            )
    for name in ("weight", "recurrent"):
        if name in numbers:
            numbers[name] = numbers[name] / alpha.to(like).reshape(-1, 1)
    if "bias" in numbers:
        numbers["bias"] = numbers["bias"] / (1 - alpha).to(like)
    if not bool(numbers["weight"].any()):
        raise SnnError(
            f"{FOR_XYLO.where}, {name_of(network, block)}: its weights are all zero; there is nothing to scale."
        )
    for name, decay in (("dash_syn", alpha), ("dash_mem", beta)):
        numbers[name] = -torch.log2(1 - decay).expand(len(like))
    return numbers


def _neurons(block: Block, grid: Grid, sent: Tensor, max_spikes: int) -> tuple[Tensor, Tensor]:
    """Counts of spikes and potentials (before reset) under what is sent, `[time, batch, inputs]`."""
    neurons = neurons_of(block)
    options = (*grid.dashes, grid.threshold, max_spikes, neurons.surrogate, neurons.neuron.equation)
    state = tuple(sent.new_zeros(sent.shape[1], len(grid.weight)) for _ in range(3))
    if grid.recurrent is None:
        spikes, potentials, *_ = _XyloNeurons.apply(sent, grid.weight, grid.bias, *state, *options)  # type: ignore[misc]
        return spikes, potentials
    weight, rows = torch.cat([grid.weight, grid.recurrent], dim=1), []
    for step in sent:
        both = torch.cat([step, state[2]], dim=1)
        spikes, potentials, *state = _XyloNeurons.apply(both[None], weight, grid.bias, *state, *options)  # type: ignore[misc]
        rows.append((spikes, potentials))
    return torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows])


class _XyloNeurons(torch.autograd.Function):
    """Neurons in Xylo's integers; backward is the adjoint of their equation, straight through shifts and saturation."""

    @staticmethod
    def forward(
        ctx, sent, weight, bias, u, v, s, dash_syn, dash_mem, threshold, max_spikes: int, surrogate: Surrogate, equation
    ):
        spikes, potentials, _, last = simulate_xylo(
            sent, weight, bias, (dash_syn, dash_mem), threshold, max_spikes, (u, v, s)
        )
        ctx.save_for_backward(sent, weight, potentials, u, v, s, dash_syn, dash_mem, threshold)
        ctx.max_spikes, ctx.surrogate, ctx.equation = max_spikes, surrogate, equation
        return spikes, potentials, *last

    @staticmethod
    @first_derivatives(FOR_XYLO.target, "Train with target='float' for that.")
    def backward(ctx, g_spikes, g_potentials, gu, gv, gs):
        sent, weight, potentials, u, v, s, *dashes, threshold = ctx.saved_tensors
        surrogate, equation = ctx.surrogate, ctx.equation
        below = (potentials / threshold).round().clamp(1, ctx.max_spikes) - 1  # thresholds below the nearest
        alpha, beta = ((1 - torch.exp2(-dash)).to(u).expand(u.shape).contiguous() for dash in dashes)
        values = {"alpha": alpha, "beta": beta, "theta": threshold.expand(u.shape).contiguous()}
        kept = equation.saved(()) or (equation.potential,)
        assert kept == ("v",), kept
        adjoint = run_adjoint if is_plain(potentials) else neuron_adjoint
        gx, *others = adjoint(
            [potentials - below * threshold],
            [{"i": u, "v": v, "s": s}[name] for name in equation.full],
            [values[name] for name in equation.parameters],
            [g_spikes, g_potentials],
            [{"i": gu, "v": gv, "s": gs}[name] for name in equation.full],
            equation.key, surrogate.shape, float(surrogate.slope), surrogate.per, "", ",".join(kept),
        )  # fmt: skip
        found = dict(zip(equation.full, others, strict=True))
        # the adjoint is that of i = alpha i + x; a bias passes by the current, without what that hands back in time
        g_bias = ((1 - alpha) * gx.sum(0) + alpha * gx[0] - gu).sum(0)
        gx = alpha * gx
        g_weight = gx.flatten(0, 1).T @ sent.flatten(0, 1)
        return gx @ weight, g_weight, g_bias, found["i"], found["v"], found.get("s"), *(None,) * 6


def _weights(weight: Tensor, scale: float, shift: int) -> Tensor:
    return rounded((weight * (scale / 2**shift)).clamp(WEIGHT_LOW, WEIGHT_HIGH)) * 2**shift
