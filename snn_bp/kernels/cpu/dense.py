"""Dense layers and their neurons as event-driven kernels, forward and adjoint.

An input that is zero costs nothing: the rows of weights that met a spike are added, the neurons advance and fire, and
their spikes are packed as bits. The gradient of the weights is summed the same way, over spikes sorted by input.
Where more than `PRODUCT_FROM` of the inputs are not zero, a matrix product is faster and is taken. The loops over
neurons are spread out for one neuron's states and parameters by `expand.py`; all equals the reference up to the order
of summation in the weighted sums.

A kernel sees steps `start..stop` of a shard of the batch, `rows` samples from `low` on; all arrays are flat, `width`
numbers to a row. What belongs to a chunk of time alone (`z`, `d`, `below`) begins with the row of `start`.
"""

# pyright: reportUndefinedVariable=false

import numpy as np

from snn_bp.kernels.cpu.aligned import kernel_empty, kernel_zeros
from snn_bp.kernels.cpu.compile import inner
from snn_bp.kernels.cpu.vectors import (
    BLOCK_COLUMNS,
    DECODED_AT_ONCE,
    DOTS,
    add_product,
    add_products,
    add_rows,
    add_scaled_rows,
    copy,
    count_bits,
    decode,
    differing,
    multiply,
    pack,
    spread,
    store,
    trailing_zeros,
    transpose,
)

PRODUCT_FROM = 0.28  # fraction of inputs not zero; measured by experiments/benchmarks/crossover.py
SAMPLED_TO, SAMPLED_FROM_UNITS = 0.2, 64  # fraction of errors, and units that give them; .../sampled.py


def forward(
    z, recurrent, state_F, value_P, slope, spikes, window, out, trace_T, full_trace, units, width, batch, low, rows,
    start, stop,
):  # fmt: skip
    """Neurons under the input `z`.

    `state_` hold the state, in and out. `spikes` begins with the step before step 0, as traces do with `full_trace`;
    others begin with that before `start`. Traces and `out` that are empty are not written. Recurrence adds to `z`.
    `window` becomes the bits of the neurons whose surrogate is not zero; `z` is lost.
    """
    words, origin, size = (width + 63) // 64, 0 if full_trace else start, rows * width
    for t in range(start, stop):
        here = (t - start) * rows * width
        if RECURRENT:
            at = t * rows * words
            if is_dense(spikes, at, words, width, rows):
                add_bits_matmul(z, here, spikes, at, words, recurrent, rows, width)
            else:
                add_bits(z, here, spikes, at, words, recurrent, rows, width)
        if SAVED_x:
            if trace_x.size > 0:
                store(trace_x, (t + 1 - origin) * size, z, here, size)
        for q in range(rows):
            state = np.uint64(q * width)
            input_row = np.uint64(here) + state
            for m in range(np.uint64(width)):
                k = state + m
                (after_F,) = advance(*state_F[k], z[input_row + m], *of(value_P, m))
                if WINDOWED:
                    z[input_row + m] = slope_here(*state_F[k], z[input_row + m], *after_Q, *of(value_P, m), slope)
                state_F[k] = after_F
            if SPIKING:
                for m in range(np.uint64(units), np.uint64(width)):
                    state_s[state + m] = 0  # whatever a neuron does without input, one that is not there is silent
                pack(spikes, ((t + 1) * rows + q) * words, state_s, q * width, width)
            if WINDOWED:
                for m in range(np.uint64(units), np.uint64(width)):
                    z[input_row + m] = 0
                pack(window, (t * rows + q) * words, z, here + q * width, width)
            if out.size > 0:
                o = np.uint64((t * batch + low + q) * units)
                for m in range(np.uint64(units)):
                    out[o + m] = state_s[state + m] if SPIKING else state_V[state + m]
        if SAVED_F:
            if trace_F.size > 0:
                store(trace_F, (t + 1 - origin) * size, state_F, 0, size)


def backward(
    recurrent, recurrent_back, window, limit, first_s, value_P, slope, trace_T, full_trace, d, g_F, g_rate, g_bias, g_L,
    width, rows, start, stop,
):  # fmt: skip
    """The adjoint of `forward`, last step first: `d` comes as the gradient of the output, and leaves as that of `z`.

    `g_` of the states are carried from later steps to earlier ones, `g_rate` is added at every step. `first_s` are the
    spikes before step 0, which are given and need not follow from the state. `window` and `limit` are those of
    `sampled_input_gradient`.
    """
    origin, words = 0 if full_trace else start, (width + 63) // 64
    if BOXED:
        inside = kernel_empty(width, d)
    for t in range(stop - 1, start - 1, -1):
        first = t == 0
        for q in range(rows):
            here, state = np.uint64(((t - start) * rows + q) * width), np.uint64(q * width)
            before = np.uint64(((t - origin) * rows + q) * width)
            after = before + np.uint64(rows * width)
            if BOXED:
                spread(inside, width, window, (t * rows + q) * words)
            for m in range(np.uint64(width)):
                k = state + m
                x = trace_x[after + m] if SAVED_x else real(0)
                before_F = trace_F[before + m] if SAVED_F else real(0)
                after_Q = trace_Q[after + m] if SAVED_Q else real(0)
                if REFIRES:
                    before_s = first_s[k] if first else fired(*before_Q, *of(value_P, m))
                error_F = g_F[k]
                if SPIKING:
                    error_s = error_s + d[here + m] + g_rate[m]
                else:
                    error_V = error_V + d[here + m] + g_rate[m]
                if BOXED:
                    (d_F, dx, d_P) = adjoint(
                        *error_F, *before_F, x, *after_Q, *of(value_P, m), slope, inside[m] != real(0)
                    )
                else:
                    (d_F, dx, d_P) = adjoint(*error_F, *before_F, x, *after_Q, *of(value_P, m), slope)
                d[here + m] = dx
                g_F[k] = d_F
                g_L[m] += d_L
            for m in range(np.uint64(width)):
                g_bias[m] += d[here + m]
        if RECURRENT:
            here = (t - start) * rows * width
            at = (t - 1) * rows * words
            if WINDOWED:
                if t > 0:
                    if count(window, at, rows * words) <= limit * rows * width:
                        index = np.empty(64 * words + DOTS, np.uint32)
                        for q in range(rows):
                            add_products(
                                g_s, q * width, d, here + q * width, recurrent, width, width, window, at + q * words,
                                index,
                            )  # fmt: skip
                        continue
            multiply(g_s, 0, width, d, here, width, recurrent_back, rows, width, width, True)


def sum_events(z, begin, end, index, value, weight, bias, width, rows, start, stop):
    """Fill `z`: bias plus the rows of weights of the events, times their values."""
    inputs, first = weight.size // width, start * rows
    for column in range(0, width, BLOCK_COLUMNS):
        columns = min(BLOCK_COLUMNS, width - column)
        for r in range((stop - start) * rows):
            at, event = r * width + column, begin[first + r]
            copy(z, at, bias, column, columns)
            add_scaled_rows(z, at, weight, column * inputs, columns, index, value, event, end[first + r] - event)


def sum_bits(z, spikes_in, words, weight, bias, width, rows, start, stop):
    """Write `z = bias + weighted sum` of packed spikes. False, and only the bias written, where so many are set that
    `matmul_bits` is faster."""
    at, count = start * rows * words, (stop - start) * rows
    for r in range(count):
        copy(z, r * width, bias, 0, width)
    if is_dense(spikes_in, at, words, weight.size // width, count):
        return False
    add_bits(z, np.int64(0), spikes_in, at, words, weight, count, width)
    return True


def matmul_bits(z, spikes_in, words, weight, bias, width, rows, start, stop):
    """Add to `z` what `sum_bits` left out, by a matrix product. Apart, so that few runs have to compile it."""
    add_bits_matmul(z, np.int64(0), spikes_in, start * rows * words, words, weight, (stop - start) * rows, width)


def matmul_floats(z, x, weight, bias, inputs, width, batch, low, rows, start, stop):
    """Fill `z`: bias plus the product of `x` with the weights."""
    for t in range(start, stop):
        for q in range(rows):
            copy(z, ((t - start) * rows + q) * width, bias, 0, width)
        row = (t * batch + low) * inputs
        for column in range(0, width, BLOCK_COLUMNS):
            columns = min(BLOCK_COLUMNS, width - column)
            to, weights = (t - start) * rows * width + column, column * inputs
            add_product(z, to, width, x, row, inputs, 1, weight, weights, columns, rows, inputs, columns)


def load_input(z, x, bias, width, batch, low, rows, start, stop):
    """Fill `z`: bias plus `x`, which is the weighted sum already."""
    for t in range(start, stop):
        for q in range(rows):
            to, at = ((t - start) * rows + q) * width, (t * batch + low + q) * width
            for m in range(width):
                z[to + m] = x[at + m] + bias[m]


def load_output_grad(d, g_out, every, units, width, low, rows, start, stop):
    """Fill `d` with the gradient of the output, `every` numbers from step to step; zeros from the last unit on."""
    for t in range(start, stop):
        for q in range(rows):
            to, at = np.uint64(((t - start) * rows + q) * width), np.uint64(t * every + (low + q) * units)
            for m in range(np.uint64(units)):
                d[to + m] = g_out[at + m]
            for m in range(np.uint64(units), np.uint64(width)):
                d[to + m] = 0


@inner
def is_dense(spikes_in, at, words, inputs, rows):
    """Whether so many bits of `rows` rows are set that a matrix product is faster."""
    return count(spikes_in, at, rows * words) > PRODUCT_FROM * rows * inputs


@inner
def add_bits_matmul(z, z_at, spikes_in, at, words, weight, rows, width):
    """As `add_bits`, by a matrix product."""
    inputs, unpacked = weight.size // width, kernel_zeros(rows * (weight.size // width), z)
    for q in range(rows):
        unpack(unpacked, q * inputs, spikes_in, at + q * words, words)
    for column in range(0, width, BLOCK_COLUMNS):
        columns, to = min(BLOCK_COLUMNS, width - column), z_at + column
        add_product(z, to, width, unpacked, 0, inputs, 1, weight, column * inputs, columns, rows, inputs, columns)


@inner
def add_bits(z, z_at, spikes_in, at, words, weight, rows, width):
    """Add to `rows` rows of `z` the rows of weights under the bits."""
    inputs, bits = weight.size // width, count(spikes_in, at, rows * words)
    first, index = np.empty(rows + 1, np.int64), np.empty(bits + DECODED_AT_ONCE, np.uint32)
    first[0] = 0
    for q in range(rows):
        first[q + 1] = decode(spikes_in, at + q * words, words, index, first[q])
    for column in range(0, width, BLOCK_COLUMNS):
        columns = min(BLOCK_COLUMNS, width - column)
        for q in range(rows):
            to, found = z_at + q * width + column, first[q + 1] - first[q]
            add_rows(z, to, weight, column * inputs, columns, index, first[q], found)


def weight_grad_bits(g_weight, d, spikes_in, words, width, rows, start, stop):
    """Add to `g_weight` the gradient from bits and the gradient `d` of the weighted sum. False, undone, if many."""
    at, every = start * rows * words, (stop - start) * rows
    inputs, groups = g_weight.size // width, (every + 63) // 64
    if is_dense(spikes_in, at, words, inputs, every):
        return False
    by_input, bits = by_inputs(spikes_in, at, words, every), count(spikes_in, at, every * words)
    first, row = np.empty(inputs + 1, np.int64), np.empty(bits + DECODED_AT_ONCE, np.uint32)
    first[0] = 0
    for k in range(inputs):
        first[k + 1] = decode(by_input, k * groups, groups, row, first[k])
    weight_grad(g_weight, d, first, row, None, width, every)
    return True


def weight_grad_matmul(g_weight, d, spikes_in, words, width, rows, start, stop):
    """As `weight_grad_bits` where the bits are many, by a matrix product."""
    every, inputs = (stop - start) * rows, g_weight.size // width
    groups, unpacked = (every + 63) // 64, kernel_zeros(inputs * every, d)
    by_input = by_inputs(spikes_in, start * rows * words, words, every)
    for k in range(inputs):
        unpack(unpacked, k * every, by_input, k * groups, groups)
    for column in range(0, width, BLOCK_COLUMNS):
        columns = min(BLOCK_COLUMNS, width - column)
        add_product(g_weight, column * inputs, columns, unpacked, 0, every, 1, d, column, width, inputs, every, columns)


def weight_grad_events(g_weight, d, begin, end, index, value, width, rows, start, stop):
    """As `weight_grad_matmul`, from events and their values."""
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
    weight_grad(g_weight, d, first, row, factor, width, (stop - start) * rows)


def weight_grad_floats(g_weight, d, x, width, batch, low, rows, start, stop):
    """As `weight_grad_matmul`, from `x`."""
    inputs = g_weight.size // width
    for t in range(start, stop):
        row = (t * batch + low) * inputs
        for column in range(0, width, BLOCK_COLUMNS):
            columns = min(BLOCK_COLUMNS, width - column)
            errors = (t - start) * rows * width + column
            add_product(g_weight, column * inputs, columns, x, row, 1, inputs, d, errors, width, inputs, rows, columns)


def input_gradient(below, d, back, below_width, units, width, rows, start, stop):
    """Fill `below` with the gradient of the layer's input; `back` are the weights in panels."""
    multiply(below, 0, below_width, d, 0, width, back, (stop - start) * rows, units, below_width, False)


def sampled_input_gradient(below, d, weight, window, words, limit, below_width, units, width, rows, start, stop):
    """As `input_gradient` under the bits of `window`, zero elsewhere. False, undone, if more than `limit` are set."""
    at, every = start * rows * words, (stop - start) * rows
    if count(window, at, every * words) > limit * every * below_width:
        return False
    index, inputs = np.empty(64 * words + DOTS, np.uint32), weight.size // width
    for r in range(every):
        for m in range(np.uint64(below_width)):
            below[np.uint64(r * below_width) + m] = 0
        for m in range(np.uint64(units), np.uint64(width)):
            d[np.uint64(r * width) + m] = 0  # whatever neurons that are not there made of it
        add_products(below, r * below_width, d, r * width, weight, inputs, width, window, at + r * words, index)
    return True


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
def weight_grad(g_weight, d, first, row, factor, width, rows):
    """Add to the gradient of each input k the rows of `d` named by `row[first[k] : first[k + 1]]`, times `factor`."""
    inputs, errors = g_weight.size // width, kernel_empty(rows * BLOCK_COLUMNS, d)
    for column in range(0, width, BLOCK_COLUMNS):
        columns = min(BLOCK_COLUMNS, width - column)
        for r in range(rows):
            copy(errors, r * columns, d, r * width + column, columns)  # close together, they stay in cache
        for k in range(inputs):
            to, found = column * inputs + k * columns, first[k + 1] - first[k]
            if factor is None:
                add_rows(g_weight, to, errors, 0, columns, row, first[k], found)
            else:
                add_scaled_rows(g_weight, to, errors, 0, columns, row, factor, first[k], found)


@inner
def by_inputs(spikes_in, at, words, rows):
    """The bits of `rows` rows the other way round: for each input a bit for each row, 64 rows to a word."""
    groups, block = (rows + 63) // 64, np.empty(64, np.uint64)
    turned = np.empty(64 * words * groups, np.uint64)
    for word in range(words):
        for group in range(groups):
            for r in range(64):
                row = 64 * group + r
                block[r] = spikes_in[at + row * words + word] if row < rows else np.uint64(0)
            transpose(block)
            for k in range(64):
                turned[(64 * word + k) * groups + group] = block[k]
    return turned


def count_spikes(counts, spikes_in, words):
    """Add to `counts` how often each bit is set, over rows of `words` words."""
    rows = spikes_in.size // words
    groups, turned = (rows + 63) // 64, by_inputs(spikes_in, np.int64(0), words, rows)
    for k in range(counts.size):
        counts[k] += count(turned, k * groups, groups)


def pack_rows(words, values, rows, width):
    """Rows of `values` as bits, from the first word on."""
    for r in range(rows):
        pack(words, r * ((width + 63) // 64), values, r * width, width)


def pack_input(words, x, low, rows):
    """Samples `low .. low + rows` of `x` `[time, batch, inputs]` as bits; how many are one, -1 where any is neither."""
    steps, _, inputs = x.shape
    word, total, zero, one = 0, 0, x.dtype.type(0), x.dtype.type(1)
    for t in range(steps):
        for q in range(rows):
            row = x[t, low + q]
            for first in range(0, inputs, 64):
                bits = differing(row, first, zero)
                if bits & differing(row, first, one):
                    return -1
                words[word] = bits
                total += np.int64(count_bits(bits))
                word += 1
    return total
