"""A network in the integers of Loihi while it trains: the forward pass is the chip's replay, spike for spike.

Weights lie on the 8-bit grid (straight-through rounding: Bengio et al. 2013), decays are 4096ths that round toward
zero, registers start empty. The export takes its integers from here.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_bp.chip.folding import Sum, folded
from snn_bp.chip.graph import BIAS_HIGH, THRESHOLD_HIGH
from snn_bp.chip.rules import LOIHI, chip_blocks, name_of, neurons_of
from snn_bp.equations.derive import Equation
from snn_bp.errors import SnnError
from snn_bp.kernels.around import first_derivatives, has_hooks_on_every_module, is_plain, is_transformed
from snn_bp.kernels.fixed import ONE, simulate_fixed
from snn_bp.kernels.operator import neuron_adjoint, run_adjoint
from snn_bp.model.blocks import Block, Layers
from snn_bp.neurons import LI, LIF, CubaLIF, coefficients, has_current, is_spiking
from snn_bp.surrogates import Surrogate

WEIGHT_LOW, WEIGHT_HIGH = -128, 127
INPUT_HIGH = 255  # the most that a graded spike of 8 bits carries
ON_CHIP = 'target="loihi"'
SLOPE_RESCALED = "surrogate counts the slope in units of the potential, which the grid rescales. Use per='threshold'."
CLIPS = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)  # how far beyond the largest weight's scale the best one is looked for


class Grid(NamedTuple):
    """A block in integers, as tensors; gradients flow to what they were rounded from."""

    sum: Sum
    recurrent: Tensor | None
    current_kept: Tensor  # 4096 - decay; one number, or one for each neuron
    voltage_kept: Tensor
    threshold: Tensor
    scale: float  # steps of a weight in one unit of the network's


def run_chip(
    network: Layers, x: Tensor, *, batch_statistics: bool = False, mask: Tensor | None = None
) -> Iterator[tuple[Block, Tensor, Tensor, Grid]]:
    """Each block with its output and potentials on the chip, and its numbers; `x` `[time, batch, ...]`.

    Step t of a block is the one in which the input of step t reaches it: every block takes as many steps as the input,
    from empty registers, with its bias from the first of them on and nothing under way from before. On the chip a
    synapse takes a step, so step t of block n is row t + n + 1; a file clears the registers there
    (`chip/graph.py`). Potentials are in steps of a weight; a readout's output is in the network's own units. Norms take
    their running statistics, or with `batch_statistics` those of `x`, which the running ones follow; of the steps alone
    that are True in `mask` `[time, batch]`, where it is given.
    """
    if not torch.equal(x, x.round().clamp(0, INPUT_HIGH)):
        raise SnnError(f"{LOIHI}: the input should be spikes or counts of events, integers. Transforms gave others.")
    if is_transformed():
        raise SnnError(
            f"{ON_CHIP}: integers have no derivatives under torch.func or forward mode, only by backward(). Use "
            "target='float' there."
        )
    if has_hooks_on_every_module():
        raise SnnError(
            f"{ON_CHIP}: a hook is registered for every module, and on the chip layers are not called one by one. Take "
            "it off, or use target='float'."
        )
    found = chip_blocks(network)
    for block in found:
        for part in block.of("delay", "dropout"):
            x = part.layer(x.unflatten(2, block.parts[0].before) if x.dim() == 3 else x)
        rows = x.flatten(0, 1)
        try:
            there = rows if mask is None else rows[mask.flatten()]
            grid = on_grid(block, there if batch_statistics and len(there) else None, like=rows)
        except SnnError as cause:
            raise SnnError(f"{LOIHI}, {name_of(network, block)}: {cause}") from cause
        x, potentials = _neurons(block, grid, rounded(grid.sum(rows)).unflatten(0, x.shape[:2]))
        if not is_spiking(neurons_of(block).neuron):
            x = potentials / grid.scale
        if block is found[-1] and block.indexes.stop < len(network.layers):
            x = x.flatten(2)  # a Flatten behind the last neurons is no block of its own
        yield block, x, potentials, grid


def on_grid(block: Block, x: Tensor | None = None, *, like: Tensor | None = None) -> Grid:
    """The block's numbers as integers; norms take the statistics of `x` `[rows, ...]` where it is given."""
    total = folded(block, x, like=like)
    neurons = neurons_of(block)
    values = {**coefficients(neurons.neuron), **neurons.parameters_now()}
    like = total.weight
    alpha, beta, theta = (
        torch.as_tensor(values[name], dtype=like.dtype, device=like.device) for name in ("alpha", "beta", "theta")
    )
    recurrence = neurons.recurrence
    bias = total.bias
    if recurrence is not None and recurrence.bias is not None:
        bias = recurrence.bias if bias is None else bias + recurrence.bias
    recurrent = None if recurrence is None else recurrence.weight
    spiking = is_spiking(neurons.neuron)
    scale = best_scale(
        [w.detach() for w in (total.weight, recurrent) if w is not None], bias, theta if spiking else None
    )
    threshold = rounded(theta * scale).clamp(1, THRESHOLD_HIGH) if spiking else theta.new_full((), THRESHOLD_HIGH)
    if bias is not None:
        bias = rounded((bias * scale).clamp(-BIAS_HIGH, BIAS_HIGH))
    return Grid(
        sum=Sum(_weights(total.weight, scale), bias, total.geometry),
        recurrent=None if recurrent is None else _weights(recurrent, scale),
        current_kept=rounded(ONE * alpha),
        voltage_kept=rounded(ONE * beta),
        threshold=threshold,
        scale=scale,
    )


def best_scale(weights: list[Tensor], bias: Tensor | None, theta: Tensor | None) -> float:
    """The scale with the least squared error of the rounded weights, at which bias and threshold fit too."""
    given = {"weights": weights, "bias": [] if bias is None else [bias], "threshold": [] if theta is None else [theta]}
    for name, tensors in given.items():
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise SnnError(f"its {name}: there is a NaN or infinity, no integer. `snn-bp doctor` may say why.")
    highest = max(float(weight.abs().max()) for weight in weights)
    if highest == 0:
        raise SnnError("its weights are all zero; there is nothing to scale.")
    most = math.inf
    if bias is not None and bool((bias != 0).any()):
        most = BIAS_HIGH / float(bias.detach().abs().max())
    if theta is not None:
        most = min(most, THRESHOLD_HIGH / float(theta.detach().max()))
    even = theta is not None and theta.numel() == 1
    candidates = []
    for clip in CLIPS:
        scale = min(most, clip * WEIGHT_HIGH / highest)
        if even and scale * float(theta) >= 1:  # type: ignore[arg-type]
            scale = math.floor(scale * float(theta)) / float(theta)  # the threshold itself is exact  # type: ignore[arg-type]
        candidates.append(scale)
    errors = [
        sum(float(((w * scale).round().clamp(WEIGHT_LOW, WEIGHT_HIGH) / scale - w).square().sum()) for w in weights)
        for scale in candidates
    ]
    best = candidates[errors.index(min(errors))]
    if not bool((weights[0] * best).round().any()):
        raise SnnError(
            f"its weights, {highest:.3g} at most, round to zero: bias and threshold leave steps of {1 / best:.3g}. A "
            f"bias (or norm's shift) reaches {BIAS_HIGH} steps, a threshold {THRESHOLD_HIGH}; make them smaller."
        )
    if theta is not None and best * float(theta.detach().min()) < 1:
        raise SnnError(
            f"its threshold {float(theta.detach().min()):.3g} is less than a step of its weights, {1 / best:.3g} "
            f"(the largest is {highest:.3g}); 8 bits hold no such ratio. BatchNorm() keeps weights small."
        )
    return best


def _neurons(block: Block, grid: Grid, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes and potentials (before reset) under the weighted sums `[time, batch, *neurons]`."""
    neurons, shape = neurons_of(block), sums.shape[2:]

    def each(value: Tensor) -> Tensor:
        """One number, or one a channel, for each neuron."""
        if value.dim() == 1 and len(shape) == 3:
            value = value.view(-1, 1, 1)
        return value.expand(shape).to(sums.dtype)

    bias = sums.new_zeros(shape) if grid.sum.bias is None else each(grid.sum.bias)
    numbers = (bias, each(grid.current_kept), each(grid.voltage_kept), each(grid.threshold))
    neuron = neurons.neuron
    options = (neurons.surrogate, has_current(neuron), is_spiking(neuron), getattr(neuron, "detach_reset", True))
    rest = tuple(sums.new_zeros(sums.shape[1:]) for _ in range(3))
    if grid.recurrent is None:
        spikes, potentials, *_ = _IntegerNeurons.apply(sums, *rest, *numbers, *options)  # type: ignore[misc]
        return spikes, potentials
    rows, state = [], rest
    for step in sums.unbind(0):
        current = step + rounded(F.linear(state[2], grid.recurrent))
        spikes, potentials, *state = _IntegerNeurons.apply(current[None], *state, *numbers, *options)  # type: ignore[misc]
        rows.append((spikes, potentials))
    return torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows])


def _equation(*, current: bool, spiking: bool, detach: bool) -> Equation:
    """The equation whose adjoint the chip's neurons take."""
    if not spiking:
        return LI(beta=1.0, alpha=1.0 if current else 0.0).equation
    if current:
        return CubaLIF(alpha=1.0, beta=1.0, reset="zero", detach_reset=detach).equation
    return LIF(beta=1.0, reset="zero", detach_reset=detach).equation


class _IntegerNeurons(torch.autograd.Function):
    """Neurons in integers; backward is the adjoint of the equation, straight through shifts, wrap and saturation."""

    @staticmethod
    def forward(
        ctx, sums, u, v, s, bias, current_kept, voltage_kept, threshold, surrogate: Surrogate, current, spiking, detach
    ):
        spikes, potentials, currents, last = simulate_fixed(
            sums, bias, current_kept, voltage_kept, threshold, (u, v, s)
        )
        ctx.save_for_backward(potentials, currents, u, v, s, current_kept, voltage_kept, threshold)
        ctx.surrogate, ctx.current, ctx.spiking, ctx.detach = surrogate, current, spiking, detach
        ctx.mark_non_differentiable(*() if spiking else (spikes,))
        return spikes, potentials, *last

    @staticmethod
    @first_derivatives(ON_CHIP, "Train with target='float' for that.")
    def backward(ctx, g_spikes, g_potentials, gu, gv, gs):
        potentials, currents, u, v, s, current_kept, voltage_kept, threshold = ctx.saved_tensors
        surrogate, current, spiking = ctx.surrogate, ctx.current, ctx.spiking
        if surrogate.per != "threshold":  # a network in evaluation runs with any surrogate
            raise SnnError(f"{LOIHI}: its {SLOPE_RESCALED}")
        alpha, beta = (kept.expand(v.shape) / ONE for kept in (current_kept, voltage_kept))
        learns = any(ctx.needs_input_grad[5:8])
        equation = _equation(current=current, spiking=spiking, detach=ctx.detach)
        learned = equation.parameters if learns else ()
        kept = equation.saved(learned) or (equation.potential,)
        values = {"alpha": alpha, "beta": beta, "theta": threshold.expand(v.shape)}
        adjoint = run_adjoint if is_plain(potentials) else neuron_adjoint
        gx, *others = adjoint(
            [{"v": potentials, "i": currents}[name] for name in kept],
            [{"i": u, "v": v, "s": s}[name] for name in equation.full],
            [values[name].contiguous() for name in equation.parameters],
            [g_spikes if spiking else None, g_potentials],
            [{"i": gu, "v": gv, "s": gs}[name] for name in equation.full],
            equation.key, surrogate.shape, float(surrogate.slope), surrogate.per, ",".join(learned), ",".join(kept),
        )  # fmt: skip
        found = dict(zip((*equation.full, *learned), others, strict=True))
        g_alpha, g_beta, g_theta = (found.get(name, torch.zeros_like(v)) for name in values)
        gi0, gv0, gs0 = (found.get(name) for name in ("i", "v", "s"))
        g_bias = gx.sum(0)
        if current:  # a bias goes to the membrane: without what the current hands back in time
            g_bias = (1 - alpha) * g_bias + alpha * gx[0] - (gu if gu is not None else 0)
        over_batch = [total.sum(0) for total in (g_bias, g_alpha / ONE, g_beta / ONE, g_theta)]
        return gx, gi0, gv0, gs0, *over_batch, None, None, None, None


def rounded(x: Tensor) -> Tensor:
    """The nearest integers; the gradient goes straight through."""
    return x + (x.round() - x).detach()


def _weights(weight: Tensor, scale: float) -> Tensor:
    low = -127 if bool((weight <= 0).all()) else WEIGHT_LOW  # lava misreads -128 where no weight is positive
    return rounded((weight * scale).clamp(low, WEIGHT_HIGH))
