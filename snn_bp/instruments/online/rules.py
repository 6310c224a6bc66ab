"""OTTT and e-prop: gradients of all weights in one pass forward in time, with nothing kept of past steps but traces.

Both give sum_t L[t] * trace[t] for each weight. L is the error of this step's output, led down at this very step
through weights and surrogates; the trace says how the weight has moved this neuron so far. What both leave out are
the ways of an error through other neurons at later steps; they differ in the trace.
"""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.errors import SnnError, check_choice, check_seed
from snn_bp.instruments.online.blocks import Block, Step, blocks_of, free_response, shared_decays
from snn_bp.instruments.online.instant import Error, error_of, run
from snn_bp.model.losses import Loss
from snn_bp.model.network import Network, check_network

Feedback: TypeAlias = Literal["symmetric", "random"]


def ottt(
    network: Network, x: Tensor, targets: Tensor, loss: Loss, *, error: Error = "step"
) -> dict[str, Tensor]:  # fmt: skip
    """Gradients by Online Training Through Time, under the names of `network.named_parameters()`.

        dL/dW = sum_t g[t] xhat[t],   xhat[t] = sum_{k <= t} beta^(t-k) x[k]

    Xiao et al. 2022 (NeurIPS): `g` is the gradient at the neurons' drive, led down through the
    layers at step t alone; `xhat` is the trace of what the weights see, filtered as the membrane behind them does (with
    a synaptic current, by both decays). One trace for each input: memory as that of one time step. Resets, the rise of
    an ALIF's threshold and recurrence are treated as constant; weights of a recurrence have the trace of its spikes.

    Equal to BPTT of `objective(out, targets, loss, error)` for the last layer, and for those below where no layer
    above them has memory, if the resets are detached and "subtract" or "none". With `error="total"` the network runs
    twice, first to sum its outputs. Gradients are summed over all steps and update nothing.
    """
    check_network("ottt", network)
    x = network.in_floats(x)
    blocks = blocks_of(network, x, "ottt")
    error_at = error_of("ottt", blocks, x, targets, loss, error)
    learners = [_InputTraces(block, network.name(block.place)) for block in blocks]
    with torch.no_grad():
        for out, steps in run(blocks, x):
            g = error_at(out)
            for place in reversed(range(len(blocks))):
                g = blocks[place].drive_gradient(steps[place], g)
                learners[place].add(steps[place], g)
                g = blocks[place].down(steps[place], g) if place else g
    return _by_name(network, blocks, [learner.sums for learner in learners])


def eprop(
    network: Network, x: Tensor, targets: Tensor, loss: Loss, *,
    error: Error = "step", feedback: Feedback = "symmetric", seed: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """Gradients by e-prop, under the names of `network.named_parameters()`.

        dL/dW_ji = sum_t L_j[t] F(e_ji)[t],   e_ji[t] = ds_j[t]/dh_j[t] eps_ji[t]
        eps_ji[t] = dh_j[t]/dh_j[t-1] eps_ji[t-1] + dh_j[t]/dW_ji

    Bellec et al. 2020 (Nature Communications). `h` is all that the neuron carries from step to
    step: current, adaptation, membrane, and its spike where a reset that is not detached or an adaptation hears it; the
    derivatives are those of `equations.advance_vjp`. F filters as the membranes of the last layer do: their leak
    `kappa`. `L_j` is the learning signal: "symmetric" leads the error of step t down through weights and
    surrogates of step t; "random" takes it from the drive of the last layer to each neuron by fixed weights drawn from
    `seed`, normal with deviation 1 / sqrt(neurons of the layer).

    Equal to BPTT of `objective(out, targets, loss, error)` for a last layer without recurrence and, with symmetric
    feedback, for the layer below it if that has none either and the last is an LI (or resets detached by "subtract" or
    "none", without adaptation). Memory: a few numbers for each sample, weight and place of its use, whatever the
    number of steps. With `error="total"` the network runs twice. Gradients are summed over all steps.
    """
    check_network("eprop", network)
    check_seed("eprop: seed", seed)
    check_choice("eprop: feedback", feedback, ("symmetric", "random"))
    x = network.in_floats(x)
    blocks = blocks_of(network, x, "eprop")
    error_at = error_of("eprop", blocks, x, targets, loss, error)
    *hidden, last = blocks
    learners = [_Eligibility(block, network.name(block.place)) for block in blocks]
    for learner in learners[:-1]:
        learner.filter = free_response(*shared_decays(last, "eprop", network.name(last.place)))
    generator = torch.Generator().manual_seed(seed)
    feedbacks = [_random_feedback(block, last, generator, like=x) for block in hidden if feedback == "random"]
    with torch.no_grad():
        for out, steps in run(blocks, x):
            learners[-1].add(steps[-1], g := error_at(out))
            drive = last.drive_gradient(steps[-1], g)
            for place in reversed(range(len(hidden))):
                if feedbacks:
                    g = torch.tensordot(drive.flatten(1), feedbacks[place], dims=1)
                else:
                    g = blocks[place + 1].down(steps[place + 1], drive)
                    drive = blocks[place].drive_gradient(steps[place], g)
                learners[place].add(steps[place], g)
    return _by_name(network, blocks, [learner.sums for learner in learners])


class _InputTraces:
    """OTTT's traces of one block: of each input, of the recurrent spikes, and of the bias's constant 1."""

    def __init__(self, block: Block, name: str) -> None:
        self.block, self.name = block, name
        self.filters: list[Callable[[Tensor], Tensor]] = []
        self.sums = block.zeros()

    def add(self, step: Step, at_drive: Tensor) -> None:
        """Let the traces follow, and count this step's part of the gradients."""
        block, batch = self.block, len(at_drive)
        if not self.filters:
            alpha, beta = shared_decays(block, "ottt", self.name)
            self.filters = [free_response(alpha, beta) for _ in range(3)]
        of_input, of_one, of_spikes = self.filters
        parts = iter(self.sums)
        if block.weight is not None:
            next(parts).add_(_weight_gradient(block, of_input(step.presynaptic), at_drive))
        if block.bias is not None:
            one = of_one(at_drive.new_ones(()))
            next(parts).add_(one * at_drive.reshape(batch, len(block.bias), -1).sum((0, 2)))
        if block.recurrent is not None:
            next(parts).add_(at_drive.T @ of_spikes(step.before[3]))


class _Eligibility:
    """e-prop's traces of one block, `[batch, channels, places, weights of a neuron]` for each part of the state."""

    filter: Callable[[Tensor], Tensor] | None = None

    def __init__(self, block: Block, name: str) -> None:
        if isinstance(block.synapse, nn.Conv1d | nn.Conv2d) and block.synapse.groups > 1:
            raise SnnError(f"eprop: the convolution before {name} has groups; use groups=1, or ottt.")
        self.block = block
        self.sums = block.zeros()
        constants = block.constants
        flags = {"i": constants.current, "a": constants.adapts, "v": True, "s": constants.spiking}
        self.traces: dict[str, Tensor | float] = {part: 0.0 for part, has in flags.items() if has}

    def add(self, step: Step, signal: Tensor) -> None:
        """Let the traces follow, and count this step's part of the gradients, `signal` being that at the output."""
        if not self.sums:
            return
        inputs, batch = self._inputs(step), len(signal)
        channels = len(self.sums[0])
        fresh: dict[str, Tensor | float] = {}
        for part in self.traces:
            *to_state, to_drive = self.block.chain_rule(step, **{part: 1.0})
            fresh[part] = _over_weights(to_drive, batch, channels) * inputs
            for name, factor in zip("iavs", to_state, strict=True):
                if torch.as_tensor(factor).any():
                    fresh[part] = fresh[part] + _over_weights(factor, batch, channels) * self.traces[name]
        self.traces = fresh
        eligibility = fresh["s" if self.block.constants.spiking else "v"]
        assert isinstance(eligibility, Tensor)
        if self.filter is not None:
            eligibility = self.filter(eligibility)
        gradient = torch.einsum("bcp,bcpk->ck", signal.reshape(batch, channels, -1), eligibility)
        sizes = [part[0].numel() for part in self.sums]
        for total, found in zip(self.sums, gradient.split(sizes, dim=1), strict=True):
            total.add_(found.reshape(total.shape))

    def _inputs(self, step: Step) -> Tensor:
        """The derivative of a neuron's drive by each of its weights, `[batch, 1, places, weights]`."""
        block, x, found = self.block, step.presynaptic, []
        if isinstance(block.synapse, nn.Conv1d | nn.Conv2d):
            how = block.synapse
            flat = isinstance(how, nn.Conv1d)
            shape = [(i, *v) if flat else v for i, v in zip((1, 1, 0, 1), _geometry(how), strict=True)]
            patches = F.unfold(x[:, :, None] if flat else x, *shape)  # type: ignore[arg-type]
            found.append(patches.transpose(1, 2)[:, None])
        elif block.weight is not None:
            found.append(x[:, None, None])
        if block.bias is not None:
            places = step.after[2][0].numel() // len(block.bias)
            found.append(x.new_ones(len(x), 1, places, 1))
        if block.recurrent is not None:
            found.append(step.before[3][:, None, None])
        return torch.cat(found, dim=-1)


def _geometry(how: nn.Conv1d | nn.Conv2d) -> tuple:
    return how.kernel_size, how.dilation, how.padding, how.stride


def _over_weights(factor: float | Tensor, batch: int, channels: int) -> float | Tensor:
    """A factor of each neuron, shaped to multiply its traces."""
    return factor.reshape(batch, channels, -1, 1) if isinstance(factor, Tensor) and factor.dim() else factor


def _weight_gradient(block: Block, x: Tensor, at_drive: Tensor) -> Tensor:
    if isinstance(block.synapse, nn.Linear):
        return at_drive.T @ x
    assert block.weight is not None
    with torch.enable_grad():
        weight = block.weight.detach().requires_grad_()
        return torch.autograd.grad(block.convolve(x, weight), weight, at_drive)[0]


def _random_feedback(block: Block, last: Block, generator: torch.Generator, *, like: Tensor) -> Tensor:
    neurons = block.neurons.shape
    drawn = torch.randn(math.prod(last.neurons.shape), *neurons, generator=generator, dtype=torch.float64)
    return (drawn / drawn[0].numel() ** 0.5).to(like)


def _by_name(network: Network, blocks: list[Block], sums: list[list[Tensor]]) -> dict[str, Tensor]:
    found: dict[Tensor, Tensor] = {}
    for block, gradients in zip(blocks, sums, strict=True):
        found |= block.unfold(gradients)
    return {name: found[weight] for name, weight in network.named_parameters() if weight in found}
