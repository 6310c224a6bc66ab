"""How the last layer's membranes follow their input: the filter that e-prop puts behind the traces of hidden layers.

A filter is fed a value a step and gives the membrane that these add up to, without threshold and reset, over what one
value gives at once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from snn_bp.equations.derive import Equation
from snn_bp.equations.nodes import Node, ordered
from snn_bp.errors import SnnError
from snn_bp.instruments.online.blocks import OnlineBlock
from snn_bp.kernels.reference import as_tensors, torch_advance
from snn_bp.neurons import KINDS, coefficients, is_leaky

Filter = Callable[[Tensor], Tensor]
LEAKY = ", ".join(kind.__name__ for kind in KINDS)


def free_response(alpha: float, beta: float) -> Filter:
    """The filter v[t] = beta v[t-1] + i[t], i[t] = alpha i[t-1] + x[t]; it holds the last v and i, nothing older."""
    state: list[Tensor] = []

    def after(x: Tensor) -> Tensor:
        if not state:
            state.extend((x.clone(), x.clone()) if alpha else (x.clone(),))
            return state[0]
        if alpha:
            x = state[1].mul_(alpha).add_(x)
        return state[0].mul_(beta).add_(x)

    return after


def shared_decays(block: OnlineBlock, rule: str, name: str) -> tuple[float, float]:
    """alpha and beta where all neurons of the block have the same ones; raises elsewhere."""
    neuron = block.neurons.neuron
    if not is_leaky(neuron):
        raise SnnError(
            f"{rule}: {name}: {type(neuron).__name__} has no alpha and beta by which a trace of its input would decay. "
            f"One of {LEAKY} would work here, or eprop, which takes the derivatives of the neuron's own step."
        )
    values = coefficients(neuron)
    alpha, beta = values["alpha"], values["beta"]
    if not (isinstance(alpha, float) and isinstance(beta, float)):
        raise SnnError(
            f"{rule}: {name} has decays of its own for each neuron; here one trace of the input serves all of them. "
            "Give the layer one alpha and one beta."
        )
    return alpha, beta


def filter_of(block: OnlineBlock, name: str) -> Filter:
    """The filter of the last layer, whose neurons are all alike; raises where there is none."""
    neuron = block.neurons.neuron
    if is_leaky(neuron):
        return free_response(*shared_decays(block, "eprop", name))
    what = f"eprop: {name} is the last layer, and {type(neuron).__name__}"
    works = f"End with one of {LEAKY}, whose leak all neurons share, as LI(beta=0.9)."
    if any(value.dim() for value in block.values):
        raise SnnError(f"{what} has numbers of its own for each neuron; one filter serves all of them. {works}")
    if not follows_linearly(block.equation):
        raise SnnError(f"{what} does not follow its input linearly between spikes, so no filter is the same. {works}")
    own, once = _own_response(block), _own_response(block)
    at_once = once(block.rest[block.equation.potential].new_ones(()))
    if not at_once:
        raise SnnError(f"{what} does not answer an input in the step in which it comes. {works}")
    return lambda x: own(x) / at_once


def _own_response(block: OnlineBlock) -> Filter:
    """The potential of the block's own equation from rest, without spikes."""
    equation, surrogate = block.equation, block.neurons.surrogate
    advance = torch_advance(equation, surrogate, spike=lambda u, _: torch.zeros_like(u))
    state: list[Tensor] = []

    def after(x: Tensor) -> Tensor:
        before = state or [torch.zeros_like(x)] * len(equation.full)
        state[:] = as_tensors(advance(*before, x, *block.values), x)
        return state[equation.states.index(equation.potential)]

    return after


def follows_linearly(equation: Equation) -> bool:
    """Whether the potential, while nothing fires, is a sum of numbers times states and input."""
    new, needed, waiting = dict(zip(equation.states, equation.new, strict=True)), set(), [equation.potential]
    while waiting:
        name = waiting.pop()
        needed.add(name)
        found = {node.name for node in ordered([new[name]]) if node.op == "argument" and node.name in new}
        waiting += found - needed
    degrees: dict[Node, int | None] = {}
    for node in ordered(new[name] for name in equation.states if name in needed):
        degrees[node] = _degree(node, equation, [degrees[part] for part in node.args])
    return all(degrees[new[name]] in (1, ZERO) for name in needed)


ZERO = -1  # the degree of what is always 0


def _degree(node: Node, equation: Equation, of: list[int | None]) -> int | None:
    """0 of a number, 1 of a sum of numbers times states and input, `ZERO` of 0, None of anything else."""
    if node.op == "argument":
        return ZERO if node.name == "s" else 1 if node.name in (*equation.states, "x") else 0
    if node.op == "number":
        return 0 if node.value else ZERO
    if node.op == "spike":
        return ZERO
    if None in of:
        return None
    known = [degree for degree in of if degree is not None]
    if node.op in ("neg", "detach"):
        return known[0]
    if node.op == "*":
        return ZERO if ZERO in known else sum(known) if sum(known) < 2 else None
    if node.op == "/":
        return known[0] if known[1] == 0 else None
    if node.op == "where" and known[0] != 1:
        known = known[1:]
    elif node.op not in ("+", "-"):
        return 0 if 1 not in known else None
    left = {degree for degree in known if degree != ZERO}
    return ZERO if not left else left.pop() if len(left) == 1 else None
