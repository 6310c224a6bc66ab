"""A network as an online rule sees it: blocks of weights and neurons that go one time step at a time.

A block is layers without parameters, then weights, then a norm that only scales, then neurons. The norm is folded into
the weights, and the rules give gradients of these; `OnlineBlock.unfold` leads them on to the parameters.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_bp.errors import SnnError
from snn_bp.kernels import first_state, parameters_of
from snn_bp.kernels.reference import as_tensors, torch_adjoint, torch_advance
from snn_bp.model.blocks import Block, LayerAt, blocks, convolve, fold
from snn_bp.model.exact import check_exact, check_whole
from snn_bp.model.modules import Neurons
from snn_bp.model.network import Network

ORDER = {"pool": 0, "flatten": 0, "other": 0, "weights": 1, "norm": 2, "neurons": 3}  # in a block that a rule runs


Parts: TypeAlias = dict[str, Tensor]  # the parts of a state, in the order of the equation


class Step(NamedTuple):
    """What one block did in one time step: kept until the next one only."""

    before_front: Tensor  # the input; a leaf where layers without parameters stand in front of the weights
    presynaptic: Tensor  # what the weights saw
    current: Tensor  # the neurons' input
    before: Parts
    after: Parts


class OnlineBlock:
    """The layers from one set of neurons to the next, and the chain rule through one time step of them."""

    def __init__(self, block: Block, neurons: Neurons, x: Tensor) -> None:
        self.index, self.neurons = block.parts[-1].index, neurons
        self.front = [part.layer for part in block.front if part.role != "dropout"]
        self.synapse = None if block.weights is None else block.weights.layer
        self.norm = None if block.norm is None else block.norm.layer
        self.equation = neurons.neuron.equation
        self.folded = self._fold()
        self.weight, self.bias, self.recurrent = (None if each is None else each.detach() for each in self.folded)
        like = x.new_zeros(1, x.shape[1], *neurons.shape)
        self.rest = self._named(first_state(neurons.neuron, like, None))
        self.values = tuple(parameters_of(neurons.neuron, like, {}).values())
        self._advance = torch_advance(self.equation, neurons.surrogate)
        self._adjoint = torch_adjoint(self.equation, neurons.surrogate)

    @property
    def output(self) -> str:
        """The part of the state that is given out: the spike, or a readout's potential."""
        return "s" if self.equation.spiking else self.equation.potential

    def _named(self, parts: Sequence[Tensor]) -> Parts:
        return dict(zip(self.equation.full, parts, strict=True))

    @property
    def is_convolution(self) -> bool:
        """Whether weights are shared over positions."""
        return self.weight is not None and self.weight.dim() > 2

    @torch.no_grad()
    def forward(self, x: Tensor, state: Parts) -> tuple[Tensor, Step]:
        """The block's output for one step's input `[batch, ...]`, and what the chain rule needs of it."""
        before_front = x
        if self.front:
            with torch.enable_grad():
                before_front = x = x.detach().requires_grad_()
                for module in self.front:
                    x = module(x)
        current = self.input_current(x.detach())
        if self.recurrent is not None:
            current = current + F.linear(state["s"], self.recurrent)
        after = self._named(as_tensors(self._advance(*state.values(), current, *self.values), current))
        return after[self.output], Step(before_front, x, current, state, after)

    def input_current(self, x: Tensor) -> Tensor:
        """The synaptic input for what the weights see."""
        if self.weight is None:
            return x if self.bias is None else x + self.bias
        return self.convolve(x, self.weight, self.bias) if self.is_convolution else F.linear(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution of this block, with the given weights."""
        assert self.synapse is not None
        return convolve(self.synapse, x, weight, bias)

    def chain_rule(self, step: Step, **at: float | Tensor) -> tuple[Tensor, ...]:
        """The adjoint of one step: gradients at what it gave in, those at what it was given, the current last, out."""
        equation, zero = self.equation, torch.zeros_like(step.current)
        outputs = [zero + at[name] if name in at else zero for name in equation.full]
        after = [step.after[name] for name in equation.states]
        found = self._adjoint(*outputs, *step.before.values(), step.current, *after, *self.values, None)
        return found[: len(equation.full) + 1]

    def current_gradient(self, step: Step, at_output: Tensor) -> Tensor:
        """The gradient at the neurons' input current, at this very step, from that at their output."""
        found = torch.as_tensor(self.chain_rule(step, **{self.output: at_output})[-1])
        return found.to(at_output).expand_as(step.current)

    def zeros(self) -> list[Tensor]:
        """Sums to be filled, for `unfold`."""
        return [torch.zeros_like(each) for each in (self.weight, self.bias, self.recurrent) if each is not None]

    def backpropagate(self, step: Step, at_current: Tensor) -> Tensor:
        """The gradient at the block's input, at this very step, from that at the input current of its neurons."""
        g = at_current
        if self.is_convolution:
            assert self.weight is not None
            with torch.enable_grad():
                x = torch.zeros_like(step.presynaptic, requires_grad=True)  # linear: at zero as anywhere
                (g,) = torch.autograd.grad(self.convolve(x, self.weight), x, g)
        elif self.weight is not None:
            g = F.linear(g, self.weight.T)
        if self.front:
            (g,) = torch.autograd.grad(step.presynaptic, step.before_front, g)
        return g

    def unfold(self, gradients: list[Tensor]) -> dict[Tensor, Tensor]:
        """Gradients of the parameters from those of the folded ones, in the order of `zeros`."""
        modules = [each for each in (self.synapse, self.norm, self.neurons.recurrence) if each is not None]
        parameters = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
        if not parameters:
            return {}
        folded = [each for each in self.folded if each is not None]
        learned = [(each, g) for each, g in zip(folded, gradients, strict=True) if each.requires_grad]
        unfolded = torch.autograd.grad([each for each, _ in learned], parameters, [g for _, g in learned])
        return dict(zip(parameters, unfolded, strict=True))

    def _fold(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Weights, bias and recurrent weights as one step uses them."""
        weight: Tensor | None = getattr(self.synapse, "weight", None)
        bias: Tensor | None = getattr(self.synapse, "bias", None)
        if self.norm is not None:
            assert weight is not None
            weight, bias = fold(self.norm, weight, bias)
        if self.neurons.recurrence is None:
            return weight, bias, None
        shift = self.neurons.recurrence.bias
        bias = shift if bias is None else bias if shift is None else bias + shift
        return weight, bias, self.neurons.recurrence.weight


def online_blocks(network: Network, x: Tensor, rule: str) -> list[OnlineBlock]:
    """The network's blocks; raises where an online rule has no gradient for a layer, and says which and why."""
    if network.floats is not network:
        raise SnnError(f"{rule}: the rules know the float equations only, found {type(network).__name__}. Use .floats.")
    check_whole(rule, network, Network)
    ready = []
    for block in blocks(network, rule):
        last = -1
        for part in block.parts:
            _check(rule, network.name(part.index), part, last)
            last = ORDER.get(part.role, last)
        if block.neurons is None:
            break
        ready.append(OnlineBlock(block, block.neurons, x))
    else:
        if ready:
            return ready
    raise SnnError(f"{rule}: the network should end in neurons, as (Dense(10), LI(beta=0.9)).")


def _check(rule: str, name: str, part: LayerAt, last: int) -> None:
    """Raise unless the rule runs the layer behind one of the rank `last` in `ORDER`."""
    check_exact(rule, name, part.layer)
    rank, learns = ORDER.get(part.role), any(True for _ in part.layer.parameters())
    if part.role == "neurons":
        if len(part.layer.learned):  # type: ignore[arg-type]
            raise SnnError(
                f"{rule}: {name} learns parameters of its neurons; the rule has gradients for weights. "
                "Leave out learn=."
            )
        return
    if part.role == "dropout" and not part.layer.training:
        return
    follows = rank is not None and (rank > last or rank == last == 0) and (rank, last) not in ((2, -1), (2, 0))
    if not follows or (rank == 0 and learns):
        raise SnnError(
            f"{rule}: {name} is not what a time step takes by itself. An online rule runs layers without parameters, "
            "then Dense or Conv, then BatchNorm in evaluation, then neurons, in this order; Dropout in evaluation."
        )
    if part.role == "norm" and part.layer.training:
        raise SnnError(
            f"{rule}: {name} takes the statistics of all time steps, which one step does not know. Use network.eval()."
        )
