"""OTTT and e-prop: gradients of all weights in one pass forward in time, with nothing kept of past steps but traces.

Both give sum_t L[t] * trace[t] for each weight. L is the error of this step's output, backpropagated at this very step
through weights and surrogates; the trace says how the weight has moved this neuron so far. What both leave out are
the ways of an error through other neurons at later steps; they differ in the trace.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_bp.errors import SnnError, check_choice, check_seed
from snn_bp.instruments.online.blocks import OnlineBlock, Step, online_blocks
from snn_bp.instruments.online.filters import filter_of, free_response, shared_decays
from snn_bp.instruments.online.instant import Error, error_of, run
from snn_bp.model.losses import Loss
from snn_bp.model.network import Network, check_network

Feedback: TypeAlias = Literal["symmetric", "random"]


def ottt(
    network: Network, x: Tensor, targets: Tensor, loss: Loss, *, error: Error = "step"
) -> dict[str, Tensor]:  # fmt: skip
    """Gradients by Online Training Through Time, under the names of `network.named_parameters()`.

        dL/dW = sum_t g[t] xhat[t],   xhat[t] = sum_{k <= t} beta^(t-k) x[k]

    Xiao et al. 2022 (NeurIPS): `g` is the gradient at the neurons' input current, backpropagated through the
    layers at step t alone; `xhat` is the trace of what the weights see, filtered as the membrane behind them does (with
    a synaptic current, by both decays). One trace for each input: memory as for one time step. Resets, the rise of
    an ALIF's threshold and recurrence are treated as constant; weights of a recurrence have the trace of its spikes.

    Equal to BPTT of `objective(out, targets, loss, error)` for the last layer, and for those below where no layer
    above them has memory, if the resets are detached and subtract (before the leak or after it) or "none". With
    `error="total"` the network runs twice, first to sum its outputs. Gradients are summed over all steps and update
    nothing.
    """
    check_network("ottt", network)
    x = network.in_floats(x)
    blocks = online_blocks(network, x, "ottt")
    error_at = error_of("ottt", blocks, x, targets, loss, error)
    learners = [_InputTraces(block, network.name(block.index)) for block in blocks]
    with torch.no_grad():
        for out, steps in run(blocks, x):
            g = error_at(out)
            for index in reversed(range(len(blocks))):
                g = blocks[index].current_gradient(steps[index], g)
                learners[index].add(steps[index], g)
                g = blocks[index].backpropagate(steps[index], g) if index else g
    return _by_name(network, blocks, [learner.sums for learner in learners])


def eprop(
    network: Network, x: Tensor, targets: Tensor, loss: Loss, *,
    error: Error = "step", feedback: Feedback = "symmetric", seed: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """Gradients by e-prop, under the names of `network.named_parameters()`.

        dL/dW_ji = sum_t L_j[t] F(e_ji)[t],   e_ji[t] = ds_j[t]/dh_j[t] eps_ji[t]
        eps_ji[t] = dh_j[t]/dh_j[t-1] eps_ji[t-1] + dh_j[t]/dW_ji

    Bellec et al. 2020 (Nature Communications). `h` is all that the neuron carries from step to step, any number of
    states: current, adaptation, membrane, and its spike where a reset that is not detached or an adaptation depends on
    it; the derivatives are those of the adjoint of a step, of a neuron of your own too. F filters as the membranes of
    the last layer do, by their leak `kappa`; there a neuron of your own follows its input linearly between spikes.
    `L_j` is the learning signal: "symmetric" backpropagates the error of step t through weights and surrogates of step
    t; "random" takes it from the input current of the last layer to each neuron by fixed weights drawn from `seed`,
    normal with deviation 1 / sqrt(neurons of the layer).

    Equal to BPTT of `objective(out, targets, loss, error)` for a last layer without recurrence and, with symmetric
    feedback, for the layer below it if that has none either and the last is an LI (or its resets are detached and
    subtract or are "none", without adaptation). Memory: a few numbers for each sample, weight and position, whatever
    the number of steps. With `error="total"` the network runs twice. Gradients are summed over all steps.
    """
    check_network("eprop", network)
    check_seed("eprop: seed", seed)
    check_choice("eprop: feedback", feedback, ("symmetric", "random"))
    x = network.in_floats(x)
    blocks = online_blocks(network, x, "eprop")
    error_at = error_of("eprop", blocks, x, targets, loss, error)
    *hidden, last = blocks
    learners = [_Eligibility(block, network.name(block.index)) for block in blocks]
    for learner in learners[:-1]:
        learner.filter = filter_of(last, network.name(last.index))
    generator = torch.Generator().manual_seed(seed)
    feedbacks = [_random_feedback(block, last, generator, like=x) for block in hidden if feedback == "random"]
    with torch.no_grad():
        for out, steps in run(blocks, x):
            learners[-1].add(steps[-1], g := error_at(out))
            at_current = last.current_gradient(steps[-1], g)
            for index in reversed(range(len(hidden))):
                if feedbacks:
                    g = torch.tensordot(at_current.flatten(1), feedbacks[index], dims=1)
                else:
                    g = blocks[index + 1].backpropagate(steps[index + 1], at_current)
                    at_current = blocks[index].current_gradient(steps[index], g)
                learners[index].add(steps[index], g)
    return _by_name(network, blocks, [learner.sums for learner in learners])


class _InputTraces:
    """OTTT's traces of one block: of each input, of the recurrent spikes, and of the bias's constant 1."""

    def __init__(self, block: OnlineBlock, name: str) -> None:
        self.block = block
        self.decays = shared_decays(block, "ottt", name)
        self.filters: list[Callable[[Tensor], Tensor]] = []
        self.sums = block.zeros()

    def add(self, step: Step, at_current: Tensor) -> None:
        """Let the traces follow, and add this step's term to the gradients."""
        block, batch = self.block, len(at_current)
        if not self.filters:
            self.filters = [free_response(*self.decays) for _ in range(3)]
        of_input, of_one, of_spikes = self.filters
        sums = iter(self.sums)
        if block.weight is not None:
            next(sums).add_(_weight_gradient(block, of_input(step.presynaptic), at_current))
        if block.bias is not None:
            one = of_one(at_current.new_ones(()))
            next(sums).add_(one * at_current.reshape(batch, len(block.bias), -1).sum((0, 2)))
        if block.recurrent is not None:
            next(sums).add_(at_current.T @ of_spikes(step.before["s"]))


class _Eligibility:
    """e-prop's traces of one block, `[batch, channels, positions, weights of a neuron]` for each state variable."""

    filter: Callable[[Tensor], Tensor] | None = None

    def __init__(self, block: OnlineBlock, name: str) -> None:
        if block.is_convolution and block.synapse.groups > 1:  # type: ignore[union-attr, operator]
            raise SnnError(f"eprop: the convolution before {name} has groups; use groups=1, or ottt.")
        self.block = block
        self.sums = block.zeros()
        self.traces: dict[str, Tensor | float] = dict.fromkeys(block.equation.full, 0.0)

    def add(self, step: Step, signal: Tensor) -> None:
        """Let the traces follow, and add this step's term to the gradients, `signal` being that at the output."""
        if not self.sums:
            return
        inputs, batch = self._inputs(step), len(signal)
        channels = len(self.sums[0])
        after: dict[str, Tensor | float] = {}
        for variable in self.traces:
            *to_state, to_current = self.block.chain_rule(step, **{variable: 1.0})
            after[variable] = _over_weights(to_current, batch, channels) * inputs
            for name, factor in zip(self.traces, to_state, strict=True):
                if torch.as_tensor(factor).any():
                    after[variable] = after[variable] + _over_weights(factor, batch, channels) * self.traces[name]
        self.traces = after
        eligibility = after[self.block.output]
        assert isinstance(eligibility, Tensor)
        eligibility = eligibility.expand(
            -1, channels, -1, -1
        )  # one channel stands for all where no weight has reached it yet
        if self.filter is not None:
            eligibility = self.filter(eligibility)
        gradient = torch.einsum("bcp,bcpk->ck", signal.reshape(batch, channels, -1), eligibility)
        sizes = [total[0].numel() for total in self.sums]
        for total, term in zip(self.sums, gradient.split(sizes, dim=1), strict=True):
            total.add_(term.reshape(total.shape))

    def _inputs(self, step: Step) -> Tensor:
        """The derivative of a neuron's input current by each of its weights, `[batch, 1, positions, weights]`."""
        block, x, columns = self.block, step.presynaptic, []
        if block.is_convolution:
            columns.append(_patches(block.synapse, x).transpose(1, 2)[:, None])
        elif block.weight is not None:
            columns.append(x[:, None, None])
        if block.bias is not None:
            positions = step.current[0].numel() // len(block.bias)
            columns.append(x.new_ones(len(x), 1, positions, 1))
        if block.recurrent is not None:
            columns.append(step.before["s"][:, None, None])
        return torch.cat(columns, dim=-1)


def _patches(convolution: Any, x: Tensor) -> Tensor:
    """What each position of a convolution sees, `[batch, weights, positions]`."""
    shape = (convolution.kernel_size, convolution.dilation, convolution.padding, convolution.stride)
    if x.dim() == 3:
        x, shape = x[:, :, None], [(filler, *value) for filler, value in zip((1, 1, 0, 1), shape, strict=True)]
    return F.unfold(x, *shape)


def _over_weights(factor: float | Tensor, batch: int, channels: int) -> float | Tensor:
    """A factor of each neuron, shaped to multiply its traces."""
    return factor.reshape(batch, channels, -1, 1) if isinstance(factor, Tensor) and factor.dim() else factor


def _weight_gradient(block: OnlineBlock, x: Tensor, at_current: Tensor) -> Tensor:
    assert block.weight is not None
    if not block.is_convolution:
        return at_current.T @ x
    with torch.enable_grad():
        weight = block.weight.detach().requires_grad_()
        return torch.autograd.grad(block.convolve(x, weight), weight, at_current)[0]


def _random_feedback(block: OnlineBlock, last: OnlineBlock, generator: torch.Generator, *, like: Tensor) -> Tensor:
    neurons = block.neurons.shape
    drawn = torch.randn(math.prod(last.neurons.shape), *neurons, generator=generator, dtype=torch.float64)
    return (drawn / drawn[0].numel() ** 0.5).to(like)


def _by_name(network: Network, blocks: list[OnlineBlock], sums: list[list[Tensor]]) -> dict[str, Tensor]:
    by_weight: dict[Tensor, Tensor] = {}
    for block, gradients in zip(blocks, sums, strict=True):
        by_weight |= block.unfold(gradients)
    return {name: by_weight[weight] for name, weight in network.named_parameters() if weight in by_weight}
