"""Neurons in integers, as a circuit has them: the equations of the leaky family under one of many arithmetics.

A state is an integer of `state_bits`, of which `unit = 2 ** fraction_bits` are a step of a weight; `1` is 4096, `kept`
is 4096 - decay. One step of a neuron, where `a` is the exact sum of its weights (recurrence included):

    multiply   x times kept: trunc(x * kept / 4096)                   toward zero
    shift      x times kept: x - floor(x * (4096 - kept) / 4096)      a decay of 4096 >> k makes it x - (x >> k)
    saturate   x: max(-highest, min(highest, x)), highest = 2 ** (state_bits - 1) - 1; both ends alike, so that a
               product with -1 stays in range

    1  i = alpha times i + a * unit      wrapped or saturated, once, behind the addition
    2  v = the membrane's equation of i + bias * held, of beta times and theta * held     with 0 or 1 for the last spike
         "zero"                  (s ? 0 : beta times v) + x
         "zero_all"              s ? 0 : beta times v + x
         "subtract"              beta times v + x - s * theta
         "subtract_before_leak"  beta times (v - s * theta) + x
         "none"                  beta times v + x
    3  v = v saturated, once
    4  s = v > theta * held, strictly

The registers hold v before its reset. A bias goes to the membrane past the current; no current is held where `kept` is
0. Loihi (`LOIHI`) multiplies, wraps its current in 24 bits and holds bias and threshold in steps of a weight; read from
lava-nc's bit-accurate models and equal to them (Davies et al. 2018, IEEE Micro). A readout that no arithmetic lets fire
has the threshold `highest`.
"""

# pyright: reportUndefinedVariable=false

import ast
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from snn_bp.equations.derive import Equation
from snn_bp.kernels import cpu
from snn_bp.kernels.bind import bind, defined
from snn_bp.neurons import LI, LIF

ONE = 4096  # a decay of 1, and a spike
CURRENT = LI(beta=1.0).equation
DECAYS = ("alpha", "beta")  # the parameters of an equation with which a product is a decay


@dataclass(frozen=True)
class Arithmetic:
    """How a neuron's numbers are held and rounded; the module says what each does."""

    state_bits: int
    fraction_bits: int  # binary places of a state below a step of a weight
    decay: Literal["multiply", "shift"]
    overflow: Literal["wrap", "saturate"]  # what the current does at its ends; the membrane always saturates
    in_weights: bool = False  # bias and threshold count steps of a weight, else of a state
    synapse_steps: int = 0  # after how many steps a spike arrives

    @property
    def unit(self) -> int:
        """How many steps of a state are one of a weight."""
        return 1 << self.fraction_bits

    @property
    def held(self) -> int:
        """How many steps of a state are one of a bias or threshold."""
        return self.unit if self.in_weights else 1

    @property
    def highest(self) -> int:
        """The largest state, and with a minus the lowest."""
        return (1 << (self.state_bits - 1)) - 1

    @property
    def highest_threshold(self) -> int:
        """The largest threshold, which a readout has; only Loihi's neurons reach above it."""
        return self.highest // self.held


LOIHI = Arithmetic(24, 6, "multiply", "wrap", in_weights=True, synapse_steps=1)


def run(
    unit, held, highest, sums, bias, u, v, s, current_kept, voltage_kept, threshold, spikes, potentials, currents
):  # fmt: skip
    """Neurons `[rows, neurons]` through all steps of `sums` `[time, rows, neurons]`, which are in steps of a weight.

    `u, v, s` `[rows, neurons]` hold current, membrane and last spike (4096 or 0), in and out; `bias`, the fractions
    kept in a step (4096 - decay) and `threshold` hold one value for each neuron.
    """
    for t in range(sums.shape[0]):
        for row in range(sums.shape[1]):
            for m in range(sums.shape[2]):
                theta = threshold[m] * held
                (i,) = advance_current(u[row, m], sums[t, row, m] * unit, current_kept[m])
                i = in_range(i, highest)
                potential, _ = advance(v[row, m], s[row, m], i + bias[m] * held, voltage_kept[m], theta)
                potential = saturated(potential, highest)
                fires = potential > theta
                u[row, m] = i
                v[row, m] = potential
                s[row, m] = ONE if fires else 0
                spikes[t, row, m] = fires
                if RECORD:
                    potentials[t, row, m] = potential
                    currents[t, row, m] = i


def simulate_fixed(
    sums: Tensor, bias: Tensor, current_kept: Tensor, voltage_kept: Tensor, threshold: Tensor,
    state: tuple[Tensor, ...], arithmetic: Arithmetic = LOIHI, reset: str = "zero",
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """Spikes, potentials (before reset) and currents of every step, and the last (u, v, s), as floats.

    `sums` `[time, batch, *neurons]`, potentials, currents and the state are in steps of a weight, bias and threshold in
    those of the arithmetic: integers and their binary fractions, which single precision holds exactly. The parameters
    are shaped as one step of one sample.
    """
    steps, batch = sums.shape[:2]
    unit = arithmetic.unit

    def integers(values: Tensor, unit: int = 1) -> np.ndarray:
        return (values.detach().cpu() * unit).to(torch.int64).contiguous().numpy()

    u, v, s = (integers(part, unit).reshape(batch, -1) for part, unit in zip(state, (unit, unit, ONE), strict=True))
    numbers = [integers(value).reshape(-1) for value in (bias, current_kept, voltage_kept, threshold)]
    spikes = np.empty((steps, *v.shape), np.bool_)
    potentials, currents = np.empty(spikes.shape, np.int32), np.empty(spikes.shape, np.int32)
    sums_in_steps = sums.detach().cpu().to(torch.int32).contiguous().view(steps, *v.shape).numpy()
    ran = compiled_run(arithmetic, reset, record=True)
    ran(sums_in_steps, numbers[0], u, v, s, *numbers[1:], spikes, potentials, currents)
    units = ((spikes, 1), (potentials, unit), (currents, unit), (u, unit), (v, unit), (s, ONE))
    floats = [torch.from_numpy(part).to(sums) / unit for part, unit in units]
    spikes_out, membrane, current = (part.view(sums.shape) for part in floats[:3])
    return spikes_out, membrane, current, tuple(part.view(sums.shape[1:]) for part in floats[3:])


def compiled_run(arithmetic: Arithmetic = LOIHI, reset: str = "zero", *, record: bool) -> Callable:
    """`run` of an arithmetic, compiled at its first call; potentials (before reset) and currents where `record`."""
    kernel = _compiled(arithmetic.decay, arithmetic.overflow, reset, record)
    return functools.partial(kernel, arithmetic.unit, arithmetic.held, arithmetic.highest)


@functools.cache
def _compiled(decay: str, overflow: str, reset: str, record: bool) -> Callable:
    membrane = LIF(beta=1.0, reset=reset).equation  # type: ignore[arg-type]
    names = {
        "advance_current": _in_integers(CURRENT, decay),
        "advance": _in_integers(membrane, decay),
        "in_range": cpu.compile.inner(wrapped if overflow == "wrap" else saturated),
        "saturated": cpu.compile.inner(saturated),
        "RECORD": record,
    }
    word = ("fixed", decay, overflow, record, CURRENT.key, membrane.key)
    return cpu.compile.compiled(bind(run, **names), word)


def _in_integers(equation: Equation, decay: str) -> Callable:
    """The step of an equation in which every product is the arithmetic's."""
    scope = {
        "times": cpu.compile.inner(times),
        "decayed": cpu.compile.inner(times if decay == "multiply" else shifted),
        "real": cpu.compile.inner(lambda value: int(value * ONE)),
        "heaviside": cpu.compile.inner(lambda u, theta: 0),  # `run` fires, from what is left of a saturated potential
        "detach": cpu.compile.inner(lambda s: s),
    }
    text = ast.unparse(_Products().visit(ast.parse(equation.step_text)))
    return cpu.compile.inner(defined(text, "advance", scope))


def times(first: int, second: int) -> int:
    """The product in units of 1 / 4096, rounded toward zero."""
    product = first * second
    return product >> 12 if product >= 0 else -(-product >> 12)


def shifted(kept: int, x: int) -> int:
    """What a shift leaves of `x`: 1 / 4096 of `x` times the decay is taken off, rounded down."""
    return x - (x * (ONE - kept) >> 12)


def saturated(x: int, highest: int) -> int:
    """The nearest number in -highest..highest."""
    return min(max(x, -highest), highest)


def wrapped(u: int, highest: int) -> int:
    """A current that has left its bits comes in at the other end; highest + 1 itself stays, its negative becomes it."""
    if u > highest + 1:
        u -= 2 * (highest + 1)
    elif u < -highest:
        u += 2 * (highest + 1)
    return u


class _Products(ast.NodeTransformer):
    """Products as calls: with a decay, which stands first, and others, of which one factor is a spike or 1."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Mult):
            return node
        factors = sorted((node.left, node.right), key=lambda each: not _is_decay(each))
        name = "decayed" if _is_decay(factors[0]) else "times"
        return ast.Call(ast.Name(name, ast.Load()), factors, [])


def _is_decay(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in DECAYS
