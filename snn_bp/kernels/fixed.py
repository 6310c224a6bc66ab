"""The equation in the integers of Loihi: a product with a decay is a shift toward zero, `1` is 4096.

Current and membrane are both the one equation, the first without spike or reset. Between them stands what the chip
does to its registers: the current wraps in 24 bits, the membrane saturates. Read from lava-nc's bit-accurate models and
equal to them; see Davies et al. 2018, IEEE Micro.
"""

# pyright: reportUndefinedVariable=false

import ast
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from snn_bp.equations.derive import Equation
from snn_bp.kernels import cpu
from snn_bp.kernels.bind import bind, defined
from snn_bp.neurons import LI, LIF

ONE = 4096  # a decay of 1, and a spike
UNIT = 64  # what one step of a weight, a bias or a threshold's mantissa adds to a membrane
HIGHEST = 1 << 23  # a current beyond wraps; a membrane stays below

CURRENT = LI(beta=1.0).equation
MEMBRANE = LIF(beta=1.0, reset="zero").equation


def run(sums, bias, u, v, s, current_kept, voltage_kept, threshold, spikes, potentials, currents):
    """Neurons `[rows, neurons]` through all steps of `sums` `[time, rows, neurons]`, in the file's units.

    `u, v, s` `[rows, neurons]` hold current, membrane and last spike (4096 or 0), in and out; `bias`, the fractions
    kept in a step (4096 - decay) and `threshold` hold one value for each neuron.
    """
    for t in range(sums.shape[0]):
        for row in range(sums.shape[1]):
            for m in range(sums.shape[2]):
                (i,) = advance_current(u[row, m], sums[t, row, m] * UNIT, current_kept[m])
                i = wrapped(i)
                potential, spike = advance(
                    v[row, m], s[row, m], i + bias[m] * UNIT, voltage_kept[m], threshold[m] * UNIT
                )
                u[row, m] = i
                v[row, m] = min(max(potential, 1 - HIGHEST), HIGHEST - 1)
                s[row, m] = spike
                spikes[t, row, m] = spike != 0
                if RECORD:
                    potentials[t, row, m] = v[row, m]
                    currents[t, row, m] = i


def simulate_fixed(
    sums: Tensor, bias: Tensor, current_kept: Tensor, voltage_kept: Tensor, threshold: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Spikes, potentials (before reset) and currents of every step, and the last (u, v, s), as floats.

    `sums` `[time, batch, *neurons]` and all but the decays is in steps of a weight: integers, potentials and
    currents in 64ths, which single precision holds exactly. The parameters are shaped as one step of one sample.
    """
    steps, batch = sums.shape[:2]

    def integers(values: Tensor, unit: int = 1) -> np.ndarray:
        return (values.detach().cpu() * unit).to(torch.int64).contiguous().numpy()

    u, v, s = (integers(part, unit).reshape(batch, -1) for part, unit in zip(state, (UNIT, UNIT, ONE), strict=True))
    numbers = [integers(value).reshape(-1) for value in (bias, current_kept, voltage_kept, threshold)]
    spikes = np.empty((steps, *v.shape), np.bool_)
    potentials, currents = np.empty(spikes.shape, np.int32), np.empty(spikes.shape, np.int32)
    sums_in_steps = sums.detach().cpu().to(torch.int32).contiguous().view(steps, *v.shape).numpy()
    compiled_run(record=True)(sums_in_steps, numbers[0], u, v, s, *numbers[1:], spikes, potentials, currents)
    units = ((spikes, 1), (potentials, UNIT), (currents, UNIT), (u, UNIT), (v, UNIT), (s, ONE))
    floats = [torch.from_numpy(part).to(sums) / unit for part, unit in units]
    spikes_out, membrane, current = (part.view(sums.shape) for part in floats[:3])
    return spikes_out, membrane, current, tuple(part.view(sums.shape[1:]) for part in floats[3:])


@functools.cache
def compiled_run(*, record: bool) -> Callable:
    """`run`, compiled at its first call; potentials (before reset) and currents are written only where `record`."""
    names = {
        "advance_current": _in_integers(CURRENT),
        "advance": _in_integers(MEMBRANE),
        "wrapped": cpu.compile.inner(wrapped),
        "RECORD": record,
    }
    return cpu.compile.compiled(bind(run, **names), ("fixed", record, CURRENT.key, MEMBRANE.key))


def _in_integers(equation: Equation) -> Callable:
    """The step of an equation in which every product is the chip's."""
    scope = {
        "times": cpu.compile.inner(times),
        "real": cpu.compile.inner(lambda value: int(value * ONE)),
        "heaviside": cpu.compile.inner(lambda u, theta: ONE if u > 0 else 0),
        "detach": cpu.compile.inner(lambda s: s),
    }
    text = ast.unparse(_Products().visit(ast.parse(equation.step_text)))
    return cpu.compile.inner(defined(text, "advance", scope))


def times(first: int, second: int) -> int:
    """The product in units of 1 / 4096, rounded toward zero as the chip does."""
    product = first * second
    return product >> 12 if product >= 0 else -(-product >> 12)


def wrapped(u: int) -> int:
    """A current that has left its 24 bits comes in at the other end; 2**23 itself stays, -2**23 becomes it."""
    if u > HIGHEST:
        u -= 2 * HIGHEST
    elif u <= -HIGHEST:
        u += 2 * HIGHEST
    return u


class _Products(ast.NodeTransformer):
    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Mult):
            return ast.Call(ast.Name("times", ast.Load()), [node.left, node.right], [])
        return node
