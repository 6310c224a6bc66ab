"""A network as an online rule sees it: blocks of weights and neurons that go one time step at a time.

A block is layers without parameters, then weights, then a norm that only scales, then neurons. The norm is folded into
the weights, and the rules give gradients of these; `Block.unfold` leads them on to the parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp import equations
from snn_bp.errors import SnnError
from snn_bp.kernels import first_state, parameters_of
from snn_bp.kernels.bind import Constants, bind
from snn_bp.kernels.reference import Parts, torch_advance, torch_slope
from snn_bp.model.exact import check_exact, check_whole
from snn_bp.model.modules import Delays, DropoutOverTime, Neurons
from snn_bp.model.network import Network
from snn_bp.neurons import coefficients

Norm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d
Synapse: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d


class Step(NamedTuple):
    """What one block did in one time step: kept until the next one only."""

    given: Tensor  # from the block before; a leaf where layers without parameters stand in front of the weights
    presynaptic: Tensor  # what the weights saw
    before: Parts  # i, a, v, s
    after: Parts


class Block:
    """The layers from one set of neurons to the next, and the chain rule through one time step of them."""

    def __init__(
        self, place: int, layer: Neurons, x: Tensor, front: list[nn.Module],
        synapse: Synapse | None = None, norm: Norm | None = None,
    ) -> None:  # fmt: skip
        self.place, self.layer, self.front, self.synapse, self.norm = place, layer, front, synapse, norm
        self.neurons = layer
        self.constants = Constants.of(self.neurons.neuron)
        self.folded = self._fold()
        self.weight, self.bias, self.recurrent = (None if part is None else part.detach() for part in self.folded)
        like = x.new_zeros(1, x.shape[1], *self.neurons.shape)
        self.rest: Parts = first_state(self.neurons.neuron, like, None, self.constants)
        self.coefficients = parameters_of(self.neurons.neuron, like, {})
        self._advance = torch_advance(self.constants, self.neurons.surrogate)
        slope_at = torch_slope(self.neurons.surrogate)  # which knows its slope
        names = self.constants.names()
        self._vjp = bind(equations.advance_vjp, **names, slope_at=lambda u, theta, _: slope_at(u, theta), real=float)

    @torch.no_grad()
    def forward(self, x: Tensor, state: Parts) -> tuple[Tensor, Step]:
        """The block's output for one step's input `[batch, ...]`, and what the chain rule needs of it."""
        given = x
        if self.front:
            with torch.enable_grad():
                given = x = x.detach().requires_grad_()
                for module in self.front:
                    x = module(x)
        current = self.drive(x.detach())
        if self.recurrent is not None:
            current = current + F.linear(state[3], self.recurrent)
        after = self._advance(*state, current, *self.coefficients)
        return after[3] if self.constants.spiking else after[2], Step(given, x, state, after)

    def drive(self, x: Tensor) -> Tensor:
        """The synaptic input for what the weights see."""
        if isinstance(self.synapse, nn.Linear):
            return F.linear(x, self.weight, self.bias)  # type: ignore[arg-type]
        if self.synapse is not None:
            return self.convolve(x, self.weight, self.bias)
        return x if self.bias is None else x + self.bias

    def convolve(self, x: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The convolution of this block, with the given weights."""
        how = self.synapse
        assert isinstance(how, nn.Conv1d | nn.Conv2d)
        kind = F.conv1d if isinstance(how, nn.Conv1d) else F.conv2d
        return kind(x, weight, bias, how.stride, how.padding, how.dilation, how.groups)  # type: ignore[arg-type]

    def chain_rule(self, step: Step, **at: float | Tensor) -> tuple[Tensor, ...]:
        """`equations.advance_vjp` of one step: gradients `i, a, v, s` at its outputs in, those at i, a, v, s, x out."""
        outputs = [at.get(name, 0.0) for name in "iavs"]
        i1, a1, v1, _ = step.after
        return self._vjp(*outputs, *step.before, i1, a1, v1, *self.coefficients, None)[:5]

    def drive_gradient(self, step: Step, at_output: Tensor) -> Tensor:
        """The gradient at the drive of the neurons, at this very step, from that at their output."""
        return self.chain_rule(step, **{"s" if self.constants.spiking else "v": at_output})[4]

    def zeros(self) -> list[Tensor]:
        """Sums to be filled, for `unfold`."""
        return [torch.zeros_like(part) for part in (self.weight, self.bias, self.recurrent) if part is not None]

    def down(self, step: Step, at_drive: Tensor) -> Tensor:
        """The gradient at the block's input, at this very step, from that at the drive of its neurons."""
        g = at_drive
        if isinstance(self.synapse, nn.Linear):
            g = F.linear(g, self.weight.T)  # type: ignore[union-attr]
        elif self.synapse is not None:
            with torch.enable_grad():
                x = torch.zeros_like(step.presynaptic, requires_grad=True)  # linear: at zero as anywhere
                (g,) = torch.autograd.grad(self.convolve(x, self.weight), x, g)
        if self.front:
            (g,) = torch.autograd.grad(step.presynaptic, step.given, g)
        return g

    def unfold(self, gradients: list[Tensor]) -> dict[Tensor, Tensor]:
        """Gradients of the parameters from those of the folded ones, in the order of `zeros`."""
        own = [part for part in (self.synapse, self.norm, getattr(self.layer, "recurrence", None)) if part is not None]
        parameters = [weight for part in own for weight in part.parameters() if weight.requires_grad]
        if not parameters:
            return {}
        parts = [part for part in self.folded if part is not None]
        learned = [(part, g) for part, g in zip(parts, gradients, strict=True) if part.requires_grad]
        found = torch.autograd.grad([part for part, _ in learned], parameters, [g for _, g in learned])
        return dict(zip(parameters, found, strict=True))

    def _fold(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Weights, bias and recurrent weights as one step uses them."""
        weight, bias = (None, None) if self.synapse is None else (self.synapse.weight, self.synapse.bias)
        if self.norm is not None:
            assert weight is not None and self.norm.running_var is not None and self.norm.running_mean is not None
            scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
            centre = self.norm.running_mean if bias is None else self.norm.running_mean - bias
            weight = weight * scale.view(-1, *(1,) * (weight.dim() - 1))
            bias = self.norm.bias - centre * scale
        if self.layer.recurrence is None:
            return weight, bias, None
        shift = self.layer.recurrence.bias
        bias = shift if bias is None else bias if shift is None else bias + shift
        return weight, bias, self.layer.recurrence.weight


def blocks_of(network: Network, x: Tensor, rule: str) -> list[Block]:
    """The network's blocks; raises where an online rule has no gradient for a layer, and says which and why."""
    if network.floats is not network:
        raise SnnError(f"{rule}: the rules know the float equations only, found {type(network).__name__}. Use .floats.")
    check_whole(rule, network, Network)
    blocks: list[Block] = []
    front: list[nn.Module] = []
    parts: dict[str, Any] = {}
    for place, layer in enumerate(network.layers):

        def refuse(reason: str, place: int = place) -> SnnError:
            return SnnError(f"{rule}: {network.name(place)} {reason}")

        check_exact(rule, network.name(place), layer)
        if isinstance(layer, Neurons):
            block = Block(place, layer, x, front, **parts)
            if len(block.neurons.learned):
                raise refuse("learns parameters of its neurons; the rule has gradients for weights. Leave out learn=.")
            blocks.append(block)
            front, parts = [], {}
        elif isinstance(layer, Synapse) and not parts:
            parts["synapse"] = layer
        elif isinstance(layer, Norm) and parts.keys() == {"synapse"}:
            if layer.training:
                raise refuse(
                    "takes the statistics of all time steps, which one step does not know. Use network.eval()."
                )
            parts["norm"] = layer
        elif isinstance(layer, DropoutOverTime) and not layer.training:
            continue
        elif isinstance(layer, Delays | DropoutOverTime | Norm) or parts or any(True for _ in layer.parameters()):
            raise refuse(
                "is not what a time step takes by itself. An online rule runs layers without parameters, then Dense or "
                "Conv, then BatchNorm in evaluation, then neurons, in this order; Dropout in evaluation."
            )
        else:
            front.append(layer)
    if front or parts or not blocks:
        raise SnnError(f"{rule}: the network should end in neurons, as (Dense(10), LI(beta=0.9)).")
    return blocks


def shared_decays(block: Block, rule: str, name: str) -> tuple[float, float]:
    """alpha and beta where all neurons of the block have the same ones; raises elsewhere."""
    values = coefficients(block.neurons.neuron)
    alpha, beta = values["alpha"], values["beta"]
    if not (isinstance(alpha, float) and isinstance(beta, float)):
        raise SnnError(
            f"{rule}: {name} has decays of its own for each neuron; here one trace of the input serves all of them. "
            "Give the layer one alpha and one beta."
        )
    return alpha, beta


Filter = Callable[[Tensor], Tensor]


def free_response(alpha: float, beta: float) -> Filter:
    """A filter: fed a value a step, it gives the membrane, without threshold or reset, that these add up to.

    v[t] = beta v[t-1] + i[t], i[t] = alpha i[t-1] + x[t]; it holds the last v and i, and nothing older.
    """
    state: list[Tensor] = []

    def after(x: Tensor) -> Tensor:
        if not state:
            state.extend((x.clone(), x.clone()) if alpha else (x.clone(),))
            return state[0]
        if alpha:
            x = state[1].mul_(alpha).add_(x)
        return state[0].mul_(beta).add_(x)

    return after
