"""Dense layers and their neurons as event-driven kernels, forward and adjoint.

An input that is zero costs nothing: the rows of weights that met a spike are added, the neurons advance and fire, and
their spikes are packed as bits. The gradient of the weights is gathered the same way, over spikes sorted by input.
Where more than `PRODUCT_FROM` of the inputs are not zero, a matrix product is faster and is taken. The neurons are
`equations.py`, bound as in `cpu.py`; all equals the reference up to the order of summation in the weighted sums.

A kernel sees steps `start..stop` of a part of the batch, `rows` samples from `low` on; all arrays are flat, `width`
numbers to a row. What belongs to a chunk of time alone (`z`, `d`, `below`) begins with the row of `start`.
"""

# pyright: reportUndefinedVariable=false

import functools
from collections.abc import Callable

import numpy as np

from snn_bp import equations
from snn_bp.kernels.bind import Constants, bind
from snn_bp.kernels.cpu.aligned import cleared, room
from snn_bp.kernels.cpu.llvm import inner
from snn_bp.kernels.cpu.neuron import adjoint_operations, compiled, inline, operations
from snn_bp.kernels.cpu.vectors import (
    AT_ONCE,
    BLOCK,
    add_product,
    add_rows,
    add_scaled_rows,
    copy,
    count_bits,
    decode,
    differing,
    multiply,
    pack,
    put,
    trailing_zeros,
    transpose,
)
from snn_bp.surrogates import Unit

PRODUCT_FROM = 0.28  # share of inputs not zero; measured by experiments/benchmarks/crossover.py


def forward(
    z, recurrent, i, a, v, s, alpha, beta, rho, kappa, theta, fired, out, potentials, adaptations, currents,
    whole, units, width, batch, low, rows, start, stop,
):  # fmt: skip
    """Neurons under the input `z`.

    `i, a, v, s` hold the state, in and out. `fired` begins with the step before step 0, as traces do that are `whole`;
    others begin with that before `start`. Traces and `out` that are empty are not written. Recurrence adds to `z`.
    """
    words, origin = (width + 63) // 64, 0 if whole else start
    for t in range(start, stop):
        here = (t - start) * rows * width
        if RECURRENT:
            at = t * rows * words
            if are_many(fired, at, words, width, rows):
                add_many(z, here, fired, at, words, recurrent, rows, width)
            else:
                add_heard(z, here, fired, at, words, recurrent, rows, width)
        for q in range(rows):
            state = np.uint64(q * width)
            input_row = np.uint64(here) + state
            for m in range(np.uint64(width)):
                k = state + m
                i1, a1, v1, s1 = advance(
                    i[k], a[k], v[k], s[k], z[input_row + m],
                    of(alpha, m), of(beta, m), of(rho, m), of(kappa, m), of(theta, m),
                )  # fmt: skip
                v[k] = v1
                if KEEPS_CURRENT:
                    i[k] = i1
                if ADAPTS:
                    a[k] = a1
                if SPIKING:
                    s[k] = s1
            if SPIKING:
                pack(fired, ((t + 1) * rows + q) * words, s, q * width, width)
            if out.size > 0:
                o = np.uint64((t * batch + low + q) * units)
                for m in range(np.uint64(units)):
                    out[o + m] = s[state + m] if SPIKING else v[state + m]
        if potentials.size > 0:
            o, size = (t + 1 - origin) * rows * width, rows * width
            put(potentials, o, v, 0, size)
            if ADAPTS:
                put(adaptations, o, a, 0, size)
            if currents.size > 0:
                put(currents, o, i, 0, size)


def backward(
    recurrent_back, s_first, alpha, beta, rho, kappa, theta, slope, potentials, adaptations, currents, whole,
    d, gi, ga, gv, gs, g_rate, g_bias, g_alpha, g_beta, g_rho, g_kappa, g_theta, width, rows, start, stop,
):  # fmt: skip
    """The adjoint of `forward`, last step first: `d` comes as the gradient of the output, and leaves as that of `z`.

    `gi, ga, gv, gs` are carried from later steps to earlier ones, `g_rate` is added at every step. `s_first` are the
    spikes before step 0, which are given and need not follow from `v`.
    """
    origin = 0 if whole else start
    for t in range(stop - 1, start - 1, -1):
        first = t == 0
        for q in range(rows):
            here, state = np.uint64(((t - start) * rows + q) * width), np.uint64(q * width)
            before = np.uint64(((t - origin) * rows + q) * width)
            after = before + np.uint64(rows * width)
            for m in range(np.uint64(width)):
                k = state + m
                v0 = potentials[before + m]
                a0 = adaptations[before + m] if ADAPTS else v0
                if SPIKING:
                    level = v0 - of(theta, m) - of(kappa, m) * a0 if ADAPTS else v0 - of(theta, m)
                    s0 = s_first[k] if first else heaviside(level, of(theta, m))
                    gs1, gv1 = gs[k] + d[here + m] + g_rate[m], gv[k]
                else:
                    s0 = real(0)
                    gs1, gv1 = gs[k], gv[k] + d[here + m] + g_rate[m]
                di, da, dv, ds, dx, d_alpha, d_beta, d_rho, d_kappa, d_theta = advance_vjp(
                    gi[k], ga[k], gv1, gs1,
                    currents[before + m] if SAVES_CURRENT else v0, a0, v0, s0,
                    currents[after + m] if SAVES_CURRENT else v0,
                    adaptations[after + m] if ADAPTS else v0, potentials[after + m],
                    of(alpha, m), of(beta, m), of(rho, m), of(kappa, m), of(theta, m), slope,
                )  # fmt: skip
                d[here + m] = dx
                gv[k] = dv
                gs[k] = ds
                if CURRENT:
                    gi[k] = di
                if ADAPTS:
                    ga[k] = da
                if LEARNS:
                    g_alpha[m] += d_alpha
                    g_beta[m] += d_beta
                    g_rho[m] += d_rho
                    g_kappa[m] += d_kappa
                    g_theta[m] += d_theta
            for m in range(np.uint64(width)):
                g_bias[m] += d[here + m]
        if RECURRENT:
            here = (t - start) * rows * width
            multiply(gs, 0, width, d, here, width, recurrent_back, rows, width, width, True)


def weigh_events(z, begin, end, index, value, weight, bias, width, rows, start, stop):
    """Fill `z`: bias plus the rows of weights of the events, times their values."""
    inputs, first = weight.size // width, start * rows
    for column in range(0, width, BLOCK):
        wide = min(BLOCK, width - column)
        for r in range((stop - start) * rows):
            at, event = r * width + column, begin[first + r]
            copy(z, at, bias, column, wide)
            add_scaled_rows(z, at, weight, column * inputs, wide, index, value, event, end[first + r] - event)


def weigh_heard(z, heard, words, weight, bias, width, rows, start, stop):
    """Fill `z`: bias plus the rows of weights under the bits of `heard`. False, and bias alone, where bits are many."""
    at, count = start * rows * words, (stop - start) * rows
    for r in range(count):
        copy(z, r * width, bias, 0, width)
    if are_many(heard, at, words, weight.size // width, count):
        return False
    add_heard(z, np.int64(0), heard, at, words, weight, count, width)
    return True


def weigh_many(z, heard, words, weight, bias, width, rows, start, stop):
    """What `weigh_heard` leaves undone, by a matrix product. Apart, so that few runs have to compile it."""
    add_many(z, np.int64(0), heard, start * rows * words, words, weight, (stop - start) * rows, width)


def weigh_floats(z, x, weight, bias, inputs, width, batch, low, rows, start, stop):
    """Fill `z`: bias plus the product of `x` with the weights."""
    for t in range(start, stop):
        for q in range(rows):
            copy(z, ((t - start) * rows + q) * width, bias, 0, width)
        row = (t * batch + low) * inputs
        for column in range(0, width, BLOCK):
            wide = min(BLOCK, width - column)
            to, weights = (t - start) * rows * width + column, column * inputs
            add_product(z, to, width, x, row, inputs, 1, weight, weights, wide, rows, inputs, wide)


def take_currents(z, x, bias, width, batch, low, rows, start, stop):
    """Fill `z`: bias plus `x`, which is the weighted sum already."""
    for t in range(start, stop):
        for q in range(rows):
            to, at = ((t - start) * rows + q) * width, (t * batch + low + q) * width
            for m in range(width):
                z[to + m] = x[at + m] + bias[m]


def take_errors(d, g_out, every, units, width, low, rows, start, stop):
    """Fill `d` with the gradient of the output, `every` numbers from step to step; zeros from the last unit on."""
    for t in range(start, stop):
        for q in range(rows):
            to, at = np.uint64(((t - start) * rows + q) * width), np.uint64(t * every + (low + q) * units)
            for m in range(np.uint64(units)):
                d[to + m] = g_out[at + m]
            for m in range(np.uint64(units), np.uint64(width)):
                d[to + m] = 0


@inner
def are_many(heard, at, words, inputs, rows):
    """Whether so many bits of `rows` rows are set that a matrix product is faster."""
    return count(heard, at, rows * words) > PRODUCT_FROM * rows * inputs


@inner
def add_many(z, z_at, heard, at, words, weight, rows, width):
    """As `add_heard`, by a matrix product."""
    inputs, unpacked = weight.size // width, cleared(rows * (weight.size // width), z)
    for q in range(rows):
        unpack(unpacked, q * inputs, heard, at + q * words, words)
    for column in range(0, width, BLOCK):
        wide, to = min(BLOCK, width - column), z_at + column
        add_product(z, to, width, unpacked, 0, inputs, 1, weight, column * inputs, wide, rows, inputs, wide)


@inner
def add_heard(z, z_at, heard, at, words, weight, rows, width):
    """Add to `rows` rows of `z` the rows of weights under the bits."""
    inputs, bits = weight.size // width, count(heard, at, rows * words)
    first, index = np.empty(rows + 1, np.int64), np.empty(bits + AT_ONCE, np.uint32)
    first[0] = 0
    for q in range(rows):
        first[q + 1] = decode(heard, at + q * words, words, index, first[q])
    for column in range(0, width, BLOCK):
        wide = min(BLOCK, width - column)
        for q in range(rows):
            to, found = z_at + q * width + column, first[q + 1] - first[q]
            add_rows(z, to, weight, column * inputs, wide, index, first[q], found)


def gather_heard(g_weight, d, heard, words, width, rows, start, stop):
    """Add to `g_weight` the gradient from bits and the gradient `d` of the weighted sum. False, undone, if many."""
    at, every = start * rows * words, (stop - start) * rows
    inputs, groups = g_weight.size // width, (every + 63) // 64
    if are_many(heard, at, words, inputs, every):
        return False
    by_input, bits = by_inputs(heard, at, words, every), count(heard, at, every * words)
    first, row = np.empty(inputs + 1, np.int64), np.empty(bits + AT_ONCE, np.uint32)
    first[0] = 0
    for k in range(inputs):
        first[k + 1] = decode(by_input, k * groups, groups, row, first[k])
    gather(g_weight, d, first, row, None, width, every)
    return True


def gather_many(g_weight, d, heard, words, width, rows, start, stop):
    """As `gather_heard` where the bits are many, by a matrix product."""
    every, inputs = (stop - start) * rows, g_weight.size // width
    groups, unpacked = (every + 63) // 64, cleared(inputs * every, d)
    by_input = by_inputs(heard, start * rows * words, words, every)
    for k in range(inputs):
        unpack(unpacked, k * every, by_input, k * groups, groups)
    for column in range(0, width, BLOCK):
        wide = min(BLOCK, width - column)
        add_product(g_weight, column * inputs, wide, unpacked, 0, every, 1, d, column, width, inputs, every, wide)


def gather_events(g_weight, d, begin, end, index, value, width, rows, start, stop):
    """As `gather_many`, from events and their values."""
    inputs = g_weight.size // width
    first = np.zeros(inputs + 2, np.int64)
    for r in range(start * rows, stop * rows):
        for n in range(begin[r], end[r]):
            first[index[n] + np.uint32(2)] += 1
    for k in range(inputs):
        first[k + 2] += first[k + 1]
    row = np.empty(max(first[inputs + 1], 1), np.uint32)
    factor = np.empty(max(first[inputs + 1], 1), d.dtype)
    for r in range(start * rows, stop * rows):
        for n in range(begin[r], end[r]):
            k = index[n] + np.uint32(1)
            row[first[k]] = r - start * rows
            factor[first[k]] = value[n]
            first[k] += 1
    gather(g_weight, d, first, row, factor, width, (stop - start) * rows)


def gather_floats(g_weight, d, x, width, batch, low, rows, start, stop):
    """As `gather_many`, from `x`."""
    inputs = g_weight.size // width
    for t in range(start, stop):
        row = (t * batch + low) * inputs
        for column in range(0, width, BLOCK):
            wide = min(BLOCK, width - column)
            errors = (t - start) * rows * width + column
            add_product(g_weight, column * inputs, wide, x, row, 1, inputs, d, errors, width, inputs, rows, wide)


def input_gradient(below, d, back, below_width, units, width, rows, start, stop):
    """Fill `below` with the gradient of the layer's input; `back` are the weights in panels."""
    multiply(below, 0, below_width, d, 0, width, back, (stop - start) * rows, units, below_width, False)


@inner
def count(words, at, number):
    """How many bits are set in `number` words."""
    total = 0
    for word in range(at, at + number):
        total += np.int64(count_bits(words[word]))
    return total


@inner
def unpack(values, at, words, words_at, number):
    """Set to 1 the numbers whose bit is set in `number` words; the others are left as they are."""
    for word in range(number):
        bits = words[words_at + word]
        while bits != np.uint64(0):
            values[at + 64 * word + np.int64(trailing_zeros(bits))] = 1
            bits &= bits - np.uint64(1)


@inner
def gather(g_weight, d, first, row, factor, width, rows):
    """Add to the gradient of each input k the rows of `d` named by `row[first[k] : first[k + 1]]`, times `factor`."""
    inputs, errors = g_weight.size // width, room(rows * BLOCK, d)
    for column in range(0, width, BLOCK):
        wide = min(BLOCK, width - column)
        for r in range(rows):
            copy(errors, r * wide, d, r * width + column, wide)  # close together, they stay in cache
        for k in range(inputs):
            to, found = column * inputs + k * wide, first[k + 1] - first[k]
            if factor is None:
                add_rows(g_weight, to, errors, 0, wide, row, first[k], found)
            else:
                add_scaled_rows(g_weight, to, errors, 0, wide, row, factor, first[k], found)


@inner
def by_inputs(heard, at, words, rows):
    """The bits of `rows` rows the other way round: for each input a bit for each row, 64 rows to a word."""
    groups, block = (rows + 63) // 64, np.empty(64, np.uint64)
    turned = np.empty(64 * words * groups, np.uint64)
    for word in range(words):
        for group in range(groups):
            for r in range(64):
                row = 64 * group + r
                block[r] = heard[at + row * words + word] if row < rows else np.uint64(0)
            transpose(block)
            for k in range(64):
                turned[(64 * word + k) * groups + group] = block[k]
    return turned


def count_spikes(counts, heard, words):
    """Add to `counts` how often each bit is set, over rows of `words` words."""
    rows = heard.size // words
    groups, turned = (rows + 63) // 64, by_inputs(heard, np.int64(0), words, rows)
    for k in range(counts.size):
        counts[k] += count(turned, k * groups, groups)


def pack_rows(words, values, rows, width):
    """Rows of `values` as bits, from the first word on."""
    for r in range(rows):
        pack(words, r * ((width + 63) // 64), values, r * width, width)


def pack_input(words, x, low, rows):
    """Samples `low .. low + rows` of `x` `[time, batch, inputs]` as bits; how many are one, -1 where any is neither."""
    steps, _, inputs = x.shape
    place, total, zero, one = 0, 0, x.dtype.type(0), x.dtype.type(1)
    for t in range(steps):
        for q in range(rows):
            row = x[t, low + q]
            for first in range(0, inputs, 64):
                bits = differing(row, first, zero)
                if bits & differing(row, first, one):
                    return -1
                words[place] = bits
                total += np.int64(count_bits(bits))
                place += 1
    return total


@functools.cache
def compiled_forward(constants: Constants, dtype: np.dtype, *, uniform: bool, recurrent: bool) -> Callable:
    """`forward` for one kind of neuron and one float type, compiled at its first call."""
    # a reset that clears the input is differentiated by it, also where the neuron has no synaptic current
    keeps = constants.current or (constants.reset == "zero_all" and not constants.detach)
    names = {**operations(constants, dtype, uniform), "RECURRENT": recurrent, "KEEPS_CURRENT": keeps}
    names["advance"] = inline(bind(equations.advance, **names))
    return compiled(bind(forward, **names), ("dense", constants, dtype.str, uniform, recurrent))


@functools.cache
def compiled_backward(
    constants: Constants, shape: str, per: Unit, dtype: np.dtype, *, uniform: bool, **flags: bool
) -> Callable:
    """`backward` for one kind of neuron, one shape of surrogate and one float type, compiled at its first call."""
    names = adjoint_operations(constants, shape, per, dtype, uniform, flags)
    return compiled(bind(backward, **names), ("dense", constants, shape, per, dtype.str, uniform, flags), adjoint=True)
