"""A convolution driven by events and the max pooling behind it, image by image: what is pooled stays in cache."""

from snn_bp.kernels.cpu import conv, pool
from snn_bp.kernels.cpu.aligned import room
from snn_bp.kernels.cpu.conv import add_row, convolve_image, gather_image, within_rim
from snn_bp.kernels.cpu.llvm import inner
from snn_bp.kernels.cpu.vectors import put

_pool, _put_back, _input_gradient = map(inner, (pool.forward, pool.backward, conv.input_gradient))


def forward(out, which, begin, end, index, value, weight, bias, table, geometry, sizes, first, rows):
    """Fill images `first .. first + rows` of `out`, as `conv.forward` and `pool.forward` one after the other."""
    image, inside, size = room(geometry.size, out), within_rim(geometry, 0), sizes[0] * sizes[3] * sizes[4]
    for r in range(rows):
        convolve_image(image, begin[r], end[r], index, value, weight, bias, table, geometry)
        span = slice((first + r) * size, (first + r + 1) * size)
        _pool(out[span], which[span], image[inside:], _in_rim(sizes, geometry), 0, 1)


def backward(g_weight, g_bias, g_x, g, which, begin, end, index, value, table, geometry, back, sizes, first, rows):
    """The adjoint: adds to `g_weight` and `g_bias`, and fills the same images of `g_x` where it is asked for."""
    image, inside, size = room(geometry.size, g), within_rim(geometry, 0), sizes[0] * sizes[3] * sizes[4]
    length, inputs = geometry.out_width * geometry.outs, geometry.channels * geometry.height * geometry.width
    d = room(geometry.out_height * length if g_x.size > 0 else 0, g)
    image[:] = 0
    for r in range(rows):
        span = slice((first + r) * size, (first + r + 1) * size)
        _put_back(image[inside:], g[span], which[span], _in_rim(sizes, geometry), 0, 1)
        for at in range(span.start, span.stop, sizes[0] * sizes[4]):
            add_row(g_bias, g, at)
        gather_image(g_weight, image, begin[r], end[r], index, value, table, geometry)
        if g_x.size > 0:
            for row in range(geometry.out_height):
                put(d, row * length, image, within_rim(geometry, row), length)
            _input_gradient(g_x[(first + r) * inputs : (first + r + 1) * inputs], d, back, geometry, 0, 1)


@inner
def _in_rim(sizes, geometry):
    """The sizes of a pool over an image with its rim."""
    channels, height, _, out_height, out_width, size, stride = sizes
    return channels, height, geometry.with_rim, out_height, out_width, size, stride
