"""A convolution driven by events and the max pooling behind it, image by image: what is pooled stays in cache."""

from snn_bp.kernels.cpu import conv, pool
from snn_bp.kernels.cpu.aligned import kernel_empty
from snn_bp.kernels.cpu.compile import inner
from snn_bp.kernels.cpu.conv import add_row, convolve_image, inside_halo, weight_grad_image
from snn_bp.kernels.cpu.vectors import store

_pool, _scatter_add, _input_gradient = map(inner, (pool.forward, pool.backward, conv.input_gradient))


def forward(out, argmax, begin, end, index, value, weight, bias, table, geometry, sizes, first, rows):
    """Fill images `first .. first + rows` of `out`, as `conv.forward` and `pool.forward` one after the other."""
    image, inside, size = (
        kernel_empty(geometry.halo_size, out),
        inside_halo(geometry, 0),
        sizes[0] * sizes[3] * sizes[4],
    )
    for r in range(rows):
        convolve_image(image, begin[r], end[r], index, value, weight, bias, table, geometry)
        span = slice((first + r) * size, (first + r + 1) * size)
        _pool(out[span], argmax[span], image[inside:], _over_halo(sizes, geometry), 0, 1)


def backward(g_weight, g_bias, g_x, g, argmax, begin, end, index, value, table, geometry, back, sizes, first, rows):
    """The adjoint: adds to `g_weight` and `g_bias`, and fills the same images of `g_x` where it is asked for."""
    image, inside, size = kernel_empty(geometry.halo_size, g), inside_halo(geometry, 0), sizes[0] * sizes[3] * sizes[4]
    length, inputs = geometry.out_width * geometry.outs, geometry.channels * geometry.height * geometry.width
    d = kernel_empty(geometry.out_height * length if g_x.size > 0 else 0, g)
    image[:] = 0
    for r in range(rows):
        span = slice((first + r) * size, (first + r + 1) * size)
        _scatter_add(image[inside:], g[span], argmax[span], _over_halo(sizes, geometry), 0, 1)
        for at in range(span.start, span.stop, sizes[0] * sizes[4]):
            add_row(g_bias, g, at)
        weight_grad_image(g_weight, image, begin[r], end[r], index, value, table, geometry)
        if g_x.size > 0:
            for row in range(geometry.out_height):
                store(d, row * length, image, inside_halo(geometry, row), length)
            _input_gradient(g_x[(first + r) * inputs : (first + r + 1) * inputs], d, back, geometry, 0, 1)


@inner
def _over_halo(sizes, geometry):
    """The sizes of a pool over an image with its halo."""
    channels, height, _, out_height, out_width, size, stride = sizes
    return channels, height, geometry.halo_width, out_height, out_width, size, stride
