"""The equations compiled for the CPU by numba: a block of neurons stays in cache while time runs over it.

No fast-math and no fused multiply-add: spikes equal the torch reference bit for bit. numba's cache on disk knows
neither the globals of a kernel nor the functions it calls, so the name of each specialisation hashes both.
"""

# pyright: reportUndefinedVariable=false

import functools
import hashlib
import inspect
import math
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numba.core.dispatcher import Dispatcher
from torch import Tensor

from snn_bp import equations
from snn_bp.kernels import bind as binding
from snn_bp.kernels.bind import Constants, bind, slope_functions
from snn_bp.kernels.cpu import aligned as lines
from snn_bp.kernels.cpu import llvm, vectors
from snn_bp.kernels.cpu.llvm import inner
from snn_bp.kernels.cpu.threads import cut, in_threads
from snn_bp.kernels.cpu.vectors import put
from snn_bp.surrogates import Unit

BLOCK = 16384  # neurons: their state fits the second-level cache; memory is read in long runs, which it needs more
ADJOINT = {"arcp"}  # the one liberty LLVM has in an adjoint


def forward(x, i, a, v, s, alpha, beta, rho, kappa, theta, spikes, potentials, adaptations, currents, start, stop):
    """Neurons `start..stop` of `x` `[time, neurons]` through all steps; `i, a, v, s` hold the state, in and out."""
    steps, neurons = x.shape
    spikes, potentials = spikes.reshape(-1), potentials.reshape(-1)
    for low in range(start, stop, BLOCK):
        high = min(stop, low + BLOCK)
        for t in range(steps):
            for m in range(np.uint64(low), np.uint64(high)):
                i1, a1, v1, s1 = advance(
                    i[m], a[m], v[m], s[m], x[t, m],
                    of(alpha, m), of(beta, m), of(rho, m), of(kappa, m), of(theta, m),
                )  # fmt: skip
                v[m] = v1
                if CURRENT:
                    i[m] = i1
                if ADAPTS:
                    a[m] = a1
                if SPIKING:
                    s[m] = s1
                if RECORD and ADAPTS:
                    adaptations[t, m] = a1
                if RECORD and SAVES_CURRENT:
                    currents[t, m] = i1
            if SPIKING:
                put(spikes, t * neurons + low, s, low, high - low)
            if RECORD:
                put(potentials, t * neurons + low, v, low, high - low)


def backward(
    potentials, adaptations, currents, i, a, v, s, alpha, beta, rho, kappa, theta, slope,
    g_spikes, g_potentials, gi, ga, gv, gs, gx, g_alpha, g_beta, g_rho, g_kappa, g_theta, start, stop,
):  # fmt: skip
    """The adjoint of `forward`: `gi, ga, gv, gs` hold the gradient of the last state in, of the first state out."""
    steps, neurons = potentials.shape
    gx, own = gx.reshape(-1), np.empty(BLOCK, gx.dtype)
    for low in range(start, stop, BLOCK):
        high = min(stop, low + BLOCK)
        for t in range(steps - 1, -1, -1):
            v0_row = potentials[t - 1] if t > 0 else v
            a0_row = (adaptations[t - 1] if t > 0 else a) if ADAPTS else a
            i0_row = (currents[t - 1] if t > 0 else i) if SAVES_CURRENT else i
            for m in range(np.uint64(low), np.uint64(high)):
                v0 = v0_row[m]
                a0 = a0_row[m]
                if t == 0:
                    s0 = s[m]
                elif ADAPTS:
                    s0 = heaviside(v0 - of(theta, m) - of(kappa, m) * a0, of(theta, m))
                elif SPIKING:
                    s0 = heaviside(v0 - of(theta, m), of(theta, m))
                else:
                    s0 = s[m]
                gs1 = gs[m] + g_spikes[t, m] if SPIKING and GIVEN_SPIKES else gs[m]
                gv1 = gv[m] + g_potentials[t, m] if GIVEN_POTENTIALS else gv[m]
                di, da, dv, ds, dx, d_alpha, d_beta, d_rho, d_kappa, d_theta = advance_vjp(
                    gi[m], ga[m], gv1, gs1,
                    i0_row[m], a0, v0, s0,
                    currents[t, m] if SAVES_CURRENT else v0, adaptations[t, m] if ADAPTS else a0, potentials[t, m],
                    of(alpha, m), of(beta, m), of(rho, m), of(kappa, m), of(theta, m), slope,
                )  # fmt: skip
                own[m - np.uint64(low)] = dx
                gv[m] = dv
                gs[m] = ds
                if CURRENT:
                    gi[m] = di
                if ADAPTS:
                    ga[m] = da
                if LEARNS:
                    g_alpha[m] += d_alpha
                    g_beta[m] += d_beta
                    g_rho[m] += d_rho
                    g_kappa[m] += d_kappa
                    g_theta[m] += d_theta
            put(gx, t * neurons + low, own, 0, high - low)


@functools.cache
def compiled_forward(
    constants: Constants, dtype: np.dtype, *, uniform: bool, record: bool, saves_current: bool
) -> Callable:
    """`forward` for one kind of neuron and one float type, compiled at its first call."""
    flags = {"RECORD": record, "SAVES_CURRENT": saves_current}
    names = {**operations(constants, dtype, uniform), **flags}
    names["advance"] = inline(bind(equations.advance, **names))
    return compiled(bind(forward, **names), (constants, dtype.str, uniform, flags))


@functools.cache
def compiled_backward(
    constants: Constants, shape: str, per: Unit, dtype: np.dtype, *, uniform: bool, **flags: bool
) -> Callable:
    """`backward` for one kind of neuron, one shape of surrogate and one float type, compiled at its first call."""
    names = adjoint_operations(constants, shape, per, dtype, uniform, flags)
    return compiled(bind(backward, **names), (constants, shape, per, dtype.str, uniform, flags), adjoint=True)


def over_neurons(kernel: Callable, arguments: Sequence[Any], neurons: int) -> None:
    """Run a kernel for `start..stop` neurons on all of them, in as many threads as torch uses.

    No sum runs over neurons, so the parts may follow the number of threads.
    """
    parts = cut(neurons, least=BLOCK // 4, most=torch.get_num_threads())
    in_threads([functools.partial(kernel, *arguments, *part) for part in parts])


def array(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor, contiguous, for a kernel."""
    return tensor.detach().contiguous().numpy()


def flat_or_scalar(tensor: Tensor) -> Any:
    """A scalar tensor as a number of its type, another as a flat array: parameters, as kernels take them."""
    return array(tensor)[()] if tensor.dim() == 0 else array(tensor).reshape(-1)


@functools.cache
def compiled_plain(function: Callable) -> Callable:
    """A function of arrays without free names, compiled at its first call for each type of its arguments."""
    return compiled(bind(function), ("plain",))


def operations(constants: Constants, dtype: np.dtype, uniform: bool) -> dict:
    """What the free names of the equations mean to numba."""
    real = dtype.type
    one, zero = real(1), real(0)
    return {
        **constants.names(),
        "heaviside": inner(lambda u, theta: one if u > zero else zero),
        "where": inner(lambda condition, yes, no: yes if condition else no),
        "exp": math.exp,
        "detach": inner(lambda s: s),
        "real": real,
        "of": inner((lambda value, m: value) if uniform else (lambda values, m: values[m])),
    }


def adjoint_operations(
    constants: Constants, shape: str, per: Unit, dtype: np.dtype, uniform: bool, flags: dict[str, bool]
) -> dict:
    """`operations`, and `advance_vjp` with the slope of a surrogate."""
    names = {**operations(constants, dtype, uniform), **flags}
    equation, unit = slope_functions(shape, per)
    names["slope_at"] = inline(bind(unit, shape=inline(bind(equation, **names), adjoint=True)), adjoint=True)
    names["advance_vjp"] = inline(bind(equations.advance_vjp, **names), adjoint=True)
    return names


def inline(function: Callable, *, adjoint: bool = False) -> Callable:
    """An equation as a kernel may call it.

    In an adjoint a division by a constant may become a product with its inverse: gradients are not bit-equal anyway.
    """
    return inner(function, fastmath=ADJOINT if adjoint else False)


def compiled(kernel: types.FunctionType, specialisation: tuple, *, adjoint: bool = False) -> Callable:
    """A kernel with its free names bound, cached on disk under a name that knows all it is made of."""
    called = (value for value in kernel.__globals__.values() if isinstance(value, Dispatcher))
    others = (kernel.__module__, *sorted({function.py_func.__module__ for function in called}))
    ours = (equations, binding, lines, llvm, vectors, sys.modules[__name__], *(sys.modules[name] for name in others))
    sources = [inspect.getsource(module) for module in dict.fromkeys(ours)]
    digest = hashlib.sha256(repr((specialisation, sources)).encode()).hexdigest()
    kernel.__qualname__ = f"{kernel.__name__}_{digest[:16]}"
    fast = ADJOINT if adjoint else False
    return llvm.kernel(kernel, fastmath=fast)
