"""Neurons compiled for the CPU by numba: a block of them stays in cache while time runs over it.

The loops are spread out for one neuron's states and parameters by `expand.py`.
"""

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


def forward(x, state_F, value_P, spikes, trace_T, start, stop):
    """Neurons `start..stop` of `x` `[time, neurons]` through all steps; `state_` hold the state, in and out."""
    steps, neurons = x.shape
    spikes = spikes.reshape(-1)
    trace_T = trace_T.reshape(-1)
    for low in range(start, stop, BLOCK_NEURONS):
        high = min(stop, low + BLOCK_NEURONS)
        for t in range(steps):
            for m in range(np.uint64(low), np.uint64(high)):
                (after_F,) = advance(*state_F[m], x[t, m], *of(value_P, m))
                state_F[m] = after_F
            if SPIKING:
                store(spikes, t * neurons + low, state_s, low, high - low)
            store(trace_T, t * neurons + low, state_T, low, high - low)


def backward(trace_T, first_F, value_P, slope, g_spikes, g_potentials, g_F, gx, g_L, start, stop):
    """The adjoint of `forward`: `g_` of a state hold the gradient of the last one in, of the first one out."""
    steps, neurons = gx.shape
    gx, gx_row = gx.reshape(-1), np.empty(BLOCK_NEURONS, gx.dtype)
    for low in range(start, stop, BLOCK_NEURONS):
        high = min(stop, low + BLOCK_NEURONS)
        for t in range(steps - 1, -1, -1):
            if SAVED_F:
                row_F = trace_F[t - 1] if t > 0 else first_F
            for m in range(np.uint64(low), np.uint64(high)):
                x = trace_x[t, m] if SAVED_x else real(0)
                before_F = row_F[m] if SAVED_F else real(0)
                after_Q = trace_Q[t, m] if SAVED_Q else real(0)
                if REFIRES:
                    before_s = fired(*before_Q, *of(value_P, m)) if t > 0 else first_s[m]
                error_F = g_F[m]
                if GIVEN_SPIKES:
                    error_s = error_s + g_spikes[t, m]
                if GIVEN_POTENTIALS:
                    error_V = error_V + g_potentials[t, m]
                (d_F, dx, d_P) = adjoint(*error_F, *before_F, x, *after_Q, *of(value_P, m), slope)
                gx_row[m - np.uint64(low)] = dx
                g_F[m] = d_F
                g_L[m] += d_L
            store(gx, t * neurons + low, gx_row, 0, high - low)


def over_neurons(kernel: Callable, arguments: Sequence[Any], neurons: int) -> None:
    """Run a kernel for `start..stop` neurons on all of them, in as many threads as torch uses.

    No sum runs over neurons, so the shards may follow the number of threads.
    """
    shards = split_rows(neurons, min_rows=BLOCK_NEURONS // 4, max_shards=torch.get_num_threads())
    parallel_for([functools.partial(kernel, *arguments, *ends) for ends in shards])
