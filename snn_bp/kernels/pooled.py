"""A convolution driven by events and the max pooling behind it, image by image: what is pooled stays in cache."""

from collections.abc import Callable

import numba

from snn_bp.kernels import conv, pool
from snn_bp.kernels.lines import room


def _called(kernel: Callable) -> Callable:
    """A kernel as another may call it."""
    return numba.njit(kernel, error_model="numpy")


_convolve, _pool, _put_back = _called(conv.forward), _called(pool.forward), _called(pool.backward)
_weight_gradient, _input_gradient = _called(conv.weight_gradient), _called(conv.input_gradient)


def forward(out, which, begin, end, index, value, weight, bias, table, geometry, sizes, first, rows):
    """Fill images `first .. first + rows` of `out`, as `conv.forward` and `pool.forward` one after the other."""
    channels, height, width, out_height, out_width, _, _ = sizes
    image, size = room(height * width * channels, out), out_height * out_width * channels
    for r in range(rows):
        _convolve(image, begin[r : r + 1], end[r : r + 1], index, value, weight, bias, table, geometry, 0, 1)
        span = slice((first + r) * size, (first + r + 1) * size)
        _pool(out[span], which[span], image, sizes, 0, 1)


def backward(g_weight, g_x, g, which, begin, end, index, value, table, geometry, back, sizes, first, rows):
    """The adjoint: adds to `g_weight`, and fills the same images of `g_x` where it is asked for."""
    channels, height, width, out_height, out_width, _, _ = sizes
    d, size = room(height * width * channels, g), out_height * out_width * channels
    inputs = geometry.channels * geometry.height * geometry.width
    for r in range(rows):
        span = slice((first + r) * size, (first + r + 1) * size)
        _put_back(d, g[span], which[span], sizes, 0, 1)
        _weight_gradient(g_weight, begin[r : r + 1], end[r : r + 1], index, value, d, table, geometry, 0, 1)
        if g_x.size > 0:
            _input_gradient(g_x[(first + r) * inputs : (first + r + 1) * inputs], d, back, geometry, 0, 1)
