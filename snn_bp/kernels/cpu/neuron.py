"""The equations compiled for the CPU by numba: a block of neurons stays in cache while time runs over it."""

# pyright: reportUndefinedVariable=false

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from snn_bp.kernels.cpu.threads import parallel_for, split_rows
from snn_bp.kernels.cpu.vectors import store

BLOCK_NEURONS = (
    16384  # neurons: their state fits the second-level cache; memory is read in long runs, which it needs more
)


def forward(x, i, a, v, s, alpha, beta, rho, kappa, theta, spikes, potentials, adaptations, currents, start, stop):
    """Neurons `start..stop` of `x` `[time, neurons]` through all steps; `i, a, v, s` hold the state, in and out."""
    steps, neurons = x.shape
    spikes, potentials = spikes.reshape(-1), potentials.reshape(-1)
    for low in range(start, stop, BLOCK_NEURONS):
        high = min(stop, low + BLOCK_NEURONS)
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
                store(spikes, t * neurons + low, s, low, high - low)
            if RECORD:
                store(potentials, t * neurons + low, v, low, high - low)


def backward(
    potentials, adaptations, currents, i, a, v, s, alpha, beta, rho, kappa, theta, slope,
    g_spikes, g_potentials, gi, ga, gv, gs, gx, g_alpha, g_beta, g_rho, g_kappa, g_theta, start, stop,
):  # fmt: skip
    """The adjoint of `forward`: `gi, ga, gv, gs` hold the gradient of the last state in, of the first state out."""
    steps, neurons = potentials.shape
    gx, gx_row = gx.reshape(-1), np.empty(BLOCK_NEURONS, gx.dtype)
    for low in range(start, stop, BLOCK_NEURONS):
        high = min(stop, low + BLOCK_NEURONS)
        for t in range(steps - 1, -1, -1):
            v0_row = potentials[t - 1] if t > 0 else v
            a0_row = (adaptations[t - 1] if t > 0 else a) if ADAPTS else a
            i0_row = (currents[t - 1] if t > 0 else i) if SAVES_CURRENT else i
            for m in range(np.uint64(low), np.uint64(high)):
                v0 = v0_row[m]
                a0 = a0_row[m]
                s0 = fired(a0, v0, of(kappa, m), of(theta, m)) if SPIKING and t > 0 else s[m]
                gs1 = gs[m] + g_spikes[t, m] if SPIKING and GIVEN_SPIKES else gs[m]
                gv1 = gv[m] + g_potentials[t, m] if GIVEN_POTENTIALS else gv[m]
                di, da, dv, ds, dx, d_alpha, d_beta, d_rho, d_kappa, d_theta = advance_vjp(
                    gi[m], ga[m], gv1, gs1,
                    i0_row[m], a0, v0, s0,
                    currents[t, m] if SAVES_CURRENT else v0, adaptations[t, m] if ADAPTS else a0, potentials[t, m],
                    of(alpha, m), of(beta, m), of(rho, m), of(kappa, m), of(theta, m), slope,
                )  # fmt: skip
                gx_row[m - np.uint64(low)] = dx
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
            store(gx, t * neurons + low, gx_row, 0, high - low)


def over_neurons(kernel: Callable, arguments: Sequence[Any], neurons: int) -> None:
    """Run a kernel for `start..stop` neurons on all of them, in as many threads as torch uses.

    No sum runs over neurons, so the shards may follow the number of threads.
    """
    shards = split_rows(neurons, min_rows=BLOCK_NEURONS // 4, max_shards=torch.get_num_threads())
    parallel_for([functools.partial(kernel, *arguments, *ends) for ends in shards])
