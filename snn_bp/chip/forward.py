"""A network in integers while it trains: the forward pass is the replay of the chip or circuit, spike for spike.

Weights lie on the grid of their bits (straight-through rounding: Bengio et al. 2013), decays are those of the
arithmetic, registers start empty. The export takes its integers from here.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_bp.chip.arithmetic import FOR_LOIHI, Hardware
from snn_bp.chip.folding import Sum, folded
from snn_bp.chip.rules import chip_blocks, hardware_for, name_of, neurons_of
from snn_bp.equations.derive import Equation
from snn_bp.errors import SnnError
from snn_bp.kernels.around import first_derivatives, has_hooks_on_every_module, is_plain, is_transformed
from snn_bp.kernels.fixed import ONE, Arithmetic, simulate_fixed
from snn_bp.kernels.operator import neuron_adjoint, run_adjoint
from snn_bp.model.blocks import Block, Layers
from snn_bp.model.shard import shard
from snn_bp.neurons import LI, LIF, CubaLIF, Neuron, coefficients, has_current, is_spiking
from snn_bp.surrogates import Surrogate

INPUT_HIGH = 255  # the most that a graded spike of 8 bits carries
IN_INTEGERS = "a network in integers"
SLOPE_RESCALED = "surrogate counts the slope in units of the potential, which the grid rescales. Use per='threshold'."
LONGEST_SHIFT = 12  # with which 4096 steps of a state lose one
CLIPS = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)  # how far beyond the largest weight's scale the best one is looked for


class Grid(NamedTuple):
    """A block in integers, as tensors; gradients flow to what they were rounded from."""

    sum: Sum
    recurrent: Tensor | None
    current_kept: Tensor  # 4096 - decay; one number, or one for each neuron
    voltage_kept: Tensor
    threshold: Tensor  # as the bias in the hardware's units
    scale: Tensor | float  # steps of a weight in one unit of the network's; a tensor has one for each neuron or channel


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
    hardware = hardware_for(network)
    if not torch.equal(x, x.round().clamp(0, INPUT_HIGH)):
        raise SnnError(
            f"{hardware.where}: the input should be spikes or counts of events, integers in 0..{INPUT_HIGH}, found "
            "others. Use an encoder that gives spikes, as Rate() or Delta(0.1)."
        )
    check_around(hardware.target)
    found = chip_blocks(network)
    for block in found:
        for part in block.of("delay", "dropout"):
            x = part.layer(x.unflatten(2, block.parts[0].before) if x.dim() == 3 else x)
        rows = x.flatten(0, 1)
        try:
            there = rows if mask is None else rows[mask.flatten()]
            has_some = len(there) or shard() is not None  # other processes may have what is not here
            grid = on_grid(block, there if batch_statistics and has_some else None, like=rows, hardware=hardware)
        except SnnError as cause:
            raise SnnError(f"{hardware.where}, {name_of(network, block)}: {cause}") from cause
        x, potentials = _neurons(hardware, block, grid, rounded(grid.sum(rows)).unflatten(0, x.shape[:2]))
        if not is_spiking(neurons_of(block).neuron):
            x = potentials / grid.scale
        if block is found[-1] and block.indexes.stop < len(network.layers):
            x = x.flatten(2)  # a Flatten behind the last neurons is no block of its own
        yield block, x, potentials, grid


def check_around(target: str) -> None:
    """Raise where torch asks for derivatives that integers do not have, or for calls of layers that do not come."""
    if is_transformed():
        raise SnnError(
            f"{target}: integers have no derivatives under torch.func or forward mode, only by backward(). "
            "Use target='float' there."
        )
    if has_hooks_on_every_module():
        raise SnnError(
            f"{target}: a hook is registered for every module, and in integers layers are not called one by "
            "one. Take it off, or use target='float'."
        )


def on_grid(
    block: Block, x: Tensor | None = None, *, like: Tensor | None = None, hardware: Hardware = FOR_LOIHI
) -> Grid:
    """The block's numbers as integers; norms take the statistics of `x` `[rows, ...]` where it is given."""
    total = folded(block, x, like=like)
    neurons = neurons_of(block)
    values = {**coefficients(neurons.neuron), **neurons.parameters_now()}
    (_, _, current_kept), (_, _, voltage_kept) = decays_on_grid(block, hardware, like=total.weight)
    theta = torch.as_tensor(values["theta"], dtype=total.weight.dtype, device=total.weight.device)
    recurrence = neurons.recurrence
    bias = total.bias
    if recurrence is not None and recurrence.bias is not None:
        bias = recurrence.bias if bias is None else bias + recurrence.bias
    recurrent = None if recurrence is None else recurrence.weight
    spiking, fine = is_spiking(neurons.neuron), hardware.fine
    weights = [w.detach() for w in (total.weight, recurrent) if w is not None]
    if hardware.scale_of_each and spiking:
        scale = scales(weights, bias, theta, hardware)
    else:
        scale = best_scale(weights, bias, theta if spiking else None, hardware)
    threshold = theta.new_full((), hardware.arithmetic.highest_threshold)
    if spiking:
        of_each = scale.view(-1, 1, 1) if isinstance(scale, Tensor) and len(neurons.shape) == 3 else scale
        theta = theta.view(-1, 1, 1) if theta.dim() == 1 and len(neurons.shape) == 3 else theta
        threshold = rounded(theta * (fine * of_each)).clamp(1, hardware.threshold_high)
    if bias is not None:
        bias = rounded((bias * (fine * scale)).clamp(-hardware.bias_high, hardware.bias_high))
    return Grid(
        sum=Sum(_weights(total.weight, scale, hardware), bias, total.geometry),
        recurrent=None if recurrent is None else _weights(recurrent, scale, hardware),
        current_kept=current_kept,
        voltage_kept=voltage_kept,
        threshold=threshold,
        scale=of_each if spiking else scale,
    )


def decays_on_grid(block: Block, hardware: Hardware, *, like: Tensor | None = None) -> list[tuple[str, Tensor, Tensor]]:
    """The decays of current and membrane: name, as the network has it, and 4096ths of what is kept."""
    neurons, like = neurons_of(block), torch.zeros(()) if like is None else like
    values = {**coefficients(neurons.neuron), **neurons.parameters_now()}
    found = []
    for name in ("alpha", "beta"):
        decay = torch.as_tensor(values[name], dtype=like.dtype, device=like.device)
        found.append((name, decay, _kept(decay, hardware.arithmetic)))
    return found


def best_scale(
    weights: list[Tensor], bias: Tensor | None, theta: Tensor | None, hardware: Hardware = FOR_LOIHI
) -> float:
    """The scale with the least squared error of the rounded weights, at which bias and threshold fit too."""
    highest, fine, (low, high) = _largest(weights, bias, theta), hardware.fine, hardware.weights
    most = math.inf
    if bias is not None and bool((bias != 0).any()):
        most = hardware.bias_high / (fine * float(bias.detach().abs().max()))
    if theta is not None:
        most = min(most, hardware.threshold_high / (fine * float(theta.detach().max())))
    even = theta is not None and theta.numel() == 1
    candidates = []
    for clip in CLIPS:
        scale = min(most, clip * high / highest)
        if even and fine * scale * float(theta) >= 1:  # type: ignore[arg-type]
            scale = math.floor(fine * scale * float(theta)) / (fine * float(theta))  # the threshold itself is exact  # type: ignore[arg-type]
        candidates.append(scale)
    errors = [
        sum(float(((w * scale).round().clamp(low, high) / scale - w).square().sum()) for w in weights)
        for scale in candidates
    ]
    best = candidates[errors.index(min(errors))]
    _check_rounded(best, bool((weights[0] * best).round().any()), highest, theta, hardware)
    return best


def scales(weights: list[Tensor], bias: Tensor | None, theta: Tensor, hardware: Hardware) -> Tensor:
    """As `best_scale`, one for each neuron or channel `[out]`: its threshold is scaled with its weights."""
    largest, fine, (low, high) = _largest(weights, bias, theta), hardware.fine, hardware.weights
    rows = torch.cat([weight.flatten(1) for weight in weights], 1)
    reach = rows.abs().amax(1)
    reach = torch.where(reach == 0, largest, reach)
    theta = theta.detach()
    theta = theta.expand(len(rows)) if theta.numel() == 1 else theta.reshape(len(rows), -1).amax(1)
    most = hardware.threshold_high / (fine * theta)
    if bias is not None:
        most = torch.minimum(most, hardware.bias_high / (fine * bias.detach().abs()))
    candidates = torch.stack([torch.minimum(most, clip * high / reach) for clip in CLIPS])
    held = (fine * candidates * theta).floor()
    candidates = torch.where(held >= 1, held / (fine * theta), candidates)  # the threshold itself is exact
    errors = [
        ((rows * scale[:, None]).round().clamp(low, high) / scale[:, None] - rows).square().sum(1)
        for scale in candidates
    ]
    best = candidates.gather(0, torch.stack(errors).argmin(0)[None])[0]
    least, some_left = int((best * theta).argmin()), bool((rows * best[:, None]).round().any())
    _check_rounded(float(best[least]), some_left, largest, theta[least], hardware)
    return best


def _largest(weights: list[Tensor], bias: Tensor | None, theta: Tensor | None) -> float:
    """The largest weight; raises where there is none, or a number that is none."""
    given = {"weights": weights, "bias": [] if bias is None else [bias], "threshold": [] if theta is None else [theta]}
    for name, tensors in given.items():
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise SnnError(f"its {name}: there is a NaN or infinity, no integer. `snn-bp doctor` may say why.")
    highest = max(float(weight.abs().max()) for weight in weights)
    if highest == 0:
        raise SnnError("its weights are all zero; there is nothing to scale.")
    return highest


def _check_rounded(scale: float, some_left: bool, highest: float, theta: Tensor | None, hardware: Hardware) -> None:
    """Raise where a scale leaves nothing of the weights or of a threshold."""
    fine, bits = hardware.fine, (hardware.weights[1] + 1).bit_length()
    if not some_left:
        raise SnnError(
            f"its weights, {highest:.3g} at most, round to zero: bias and threshold leave steps of {1 / scale:.3g}. A "
            f"bias (or norm's shift) reaches {hardware.bias_high // fine} steps, a threshold "
            f"{hardware.threshold_high // fine}; make them smaller."
        )
    if theta is not None and fine * scale * float(theta.detach().min()) < 1:
        raise SnnError(
            f"its threshold {float(theta.detach().min()):.3g} is less than a step of its weights, {1 / scale:.3g} "
            f"(the largest is {highest:.3g}); {bits} bits hold no such ratio. BatchNorm() keeps weights small."
        )


def _kept(decay: Tensor, arithmetic: Arithmetic) -> Tensor:
    """4096ths of what is kept in a step; the nearest power of two is lost where a decay is a shift."""
    if arithmetic.decay == "multiply":
        return rounded(ONE * decay)
    shift = (-torch.log2((1 - decay).clamp(min=2.0**-20))).round()  # a gradient goes straight through
    nearest = torch.where(shift > LONGEST_SHIFT, ONE, ONE - 2 ** (LONGEST_SHIFT - shift.clamp(max=LONGEST_SHIFT)))
    return ONE * decay + (nearest - ONE * decay).detach()


def _neurons(hardware: Hardware, block: Block, grid: Grid, sums: Tensor) -> tuple[Tensor, Tensor]:
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
    equation = _equation(neuron)
    options = (neurons.surrogate, equation, getattr(neuron, "reset", "zero"), hardware)
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


def _equation(neuron: Neuron) -> Equation:
    """The equation whose adjoint neurons in integers take."""
    if not is_spiking(neuron):
        return LI(beta=1.0, alpha=1.0 if has_current(neuron) else 0.0).equation
    resets = {"reset": neuron.reset, "detach_reset": neuron.detach_reset}
    return CubaLIF(alpha=1.0, beta=1.0, **resets).equation if has_current(neuron) else LIF(beta=1.0, **resets).equation


class _IntegerNeurons(torch.autograd.Function):
    """Neurons in integers; backward is the adjoint of the equation, straight through shifts, wrap and saturation."""

    @staticmethod
    def forward(
        ctx, sums, u, v, s, bias, current_kept, voltage_kept, threshold, surrogate: Surrogate, equation: Equation,
        reset, hardware: Hardware,
    ):  # fmt: skip
        spikes, potentials, currents, last = simulate_fixed(
            sums, bias, current_kept, voltage_kept, threshold, (u, v, s), hardware.arithmetic, reset
        )
        ctx.save_for_backward(potentials, currents, u, v, s, current_kept, voltage_kept, threshold)
        ctx.surrogate, ctx.equation, ctx.hardware = surrogate, equation, hardware
        ctx.mark_non_differentiable(*() if equation.spiking else (spikes,))
        return spikes, potentials, *last

    @staticmethod
    @first_derivatives(IN_INTEGERS, "Train with target='float' for that.")
    def backward(ctx, g_spikes, g_potentials, gu, gv, gs):
        potentials, currents, u, v, s, current_kept, voltage_kept, threshold = ctx.saved_tensors
        surrogate, equation, fine = ctx.surrogate, ctx.equation, ctx.hardware.fine
        if surrogate.per != "threshold":  # a network in evaluation runs with any surrogate
            raise SnnError(f"{ctx.hardware.where}: its {SLOPE_RESCALED}")
        alpha, beta = (kept.expand(v.shape) / ONE for kept in (current_kept, voltage_kept))
        learns = any(ctx.needs_input_grad[5:8])
        learned = equation.parameters if learns else ()
        kept = equation.saved(learned) or (equation.potential,)
        values = {"alpha": alpha, "beta": beta, "theta": (threshold / fine).expand(v.shape)}
        adjoint = run_adjoint if is_plain(potentials) else neuron_adjoint
        gx, *others = adjoint(
            [{"v": potentials, "i": currents}[name] for name in kept],
            [{"i": u, "v": v, "s": s}[name] for name in equation.full],
            [values[name].contiguous() for name in equation.parameters],
            [g_spikes if equation.spiking else None, g_potentials],
            [{"i": gu, "v": gv, "s": gs}[name] for name in equation.full],
            equation.key, surrogate.shape, float(surrogate.slope), surrogate.per, ",".join(learned), ",".join(kept),
        )  # fmt: skip
        found = dict(zip((*equation.full, *learned), others, strict=True))
        g_alpha, g_beta, g_theta = (found.get(name, torch.zeros_like(v)) for name in values)
        gi0, gv0, gs0 = (found.get(name) for name in ("i", "v", "s"))
        g_bias = gx.sum(0)
        if "i" in equation.states:  # a bias goes to the membrane: without what the current hands back in time
            g_bias = (1 - alpha) * g_bias + alpha * gx[0] - (gu if gu is not None else 0)
        over_batch = [total.sum(0) for total in (g_bias / fine, g_alpha / ONE, g_beta / ONE, g_theta / fine)]
        return gx, gi0, gv0, gs0, *over_batch, None, None, None, None


def rounded(x: Tensor) -> Tensor:
    """The nearest integers; the gradient goes straight through."""
    return x + (x.round() - x).detach()


def _weights(weight: Tensor, scale: Tensor | float, hardware: Hardware) -> Tensor:
    low, high = hardware.weights
    if hardware == FOR_LOIHI and bool((weight <= 0).all()):
        low = -127  # lava misreads -128 where no weight is positive
    each = scale.view(-1, *[1] * (weight.dim() - 1)) if isinstance(scale, Tensor) else scale
    return rounded((weight * each).clamp(low, high))
