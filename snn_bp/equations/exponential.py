"""e to the power of x in plain arithmetic, so that every backend gives the same bits, and a neuron the same spikes.

The exponent is split as x = k log 2 + r, with k whole and |r| at most log(2) / 2; e^r comes from a polynomial, in
double precision from a quotient of two. Coefficients: Moshier, Cephes (1989), expf and exp. How far the result lies
from the exact one was measured (`tests/test_exponential.py`). Free names: `real`, `where`, `power_of_two`.
"""

# pyright: reportUndefinedVariable=false


def exponential_single(x):
    """In single precision, less than one unit in the last place from the exact result.

    Overflows to infinity, underflows to subnormal numbers and 0.
    """
    x = where(x > real(89.0), real(89.0), where(x < real(-104.0), real(-104.0), x))
    k = x * real(1.4426950408889634) + real(12582912.0) - real(12582912.0)  # rounds: single precision ends here
    r = x - k * real(0.693359375)
    r = r - k * real(-2.12194440e-4)
    p = real(1.9875691500e-4) * r + real(1.3981999507e-3)
    p = p * r + real(8.3334519073e-3)
    p = p * r + real(4.1665795894e-2)
    p = p * r + real(1.6666665459e-1)
    p = p * r + real(5.0000001201e-1)
    y = p * (r * r) + r + real(1.0)
    half = k * real(0.5) + real(12582912.0) - real(12582912.0)
    return y * power_of_two(half) * power_of_two(k - half)


def exponential_double(x):
    """In double precision, less than two units in the last place from the exact result; ends as in single."""
    x = where(x > real(710.0), real(710.0), where(x < real(-746.0), real(-746.0), x))
    k = x * real(1.4426950408889634) + real(6755399441055744.0) - real(6755399441055744.0)
    r = x - k * real(6.93145751953125e-1)
    r = r - k * real(1.42860682030941723212e-6)
    square = r * r
    p = real(1.26177193074810590878e-4) * square + real(3.02994407707441961300e-2)
    p = r * (p * square + real(9.99999999999999999910e-1))
    q = real(3.00198505138664455042e-6) * square + real(2.52448340349684104192e-3)
    q = q * square + real(2.27265548208155028766e-1)
    q = q * square + real(2.00000000000000000005)
    y = real(1.0) + real(2.0) * (p / (q - p))
    half = k * real(0.5) + real(6755399441055744.0) - real(6755399441055744.0)
    return y * power_of_two(half) * power_of_two(k - half)
