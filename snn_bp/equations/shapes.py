"""The shapes of surrogate derivatives, and how they count their slope: plain scalar arithmetic, as steps of neurons.

Free names (`shape`, `exp`, `where`, `real`) are given a meaning by the backend that compiles them.
"""

# pyright: reportUndefinedVariable=false


def relative_slope(u, theta, slope):
    """Derivative of the smoothed spike at a distance `u` from threshold, the slope being per unit of threshold."""
    return shape(u / theta, slope) / theta


def absolute_slope(u, theta, slope):
    """The same with the slope per unit of potential, as snnTorch counts it."""
    return shape(u, slope)


def fast_sigmoid(u, slope):
    """1 / (1 + slope |u|)^2. Zenke & Ganguli 2018 (SuperSpike)."""
    y = real(1) + slope * abs(u)
    return real(1) / (y * y)


def atan(u, slope):
    """slope / 2 / (1 + (pi / 2 slope u)^2), the derivative of an arc tangent. Fang et al. 2021."""
    y = real(1.5707963267948966) * slope * u
    return real(0.5) * slope / (real(1) + y * y)


def sigmoid(u, slope):
    """Derivative of the logistic function of slope * u, in a form that overflows nowhere."""
    e = exp(-abs(slope * u))
    return slope * e / ((real(1) + e) * (real(1) + e))


def triangular(u, slope):
    """slope * max(0, 1 - slope |u|). Esser et al. 2016; Bellec et al. 2018."""
    y = slope * abs(u)
    return where(y < real(1), slope * (real(1) - y), real(0))


def boxcar(u, slope):
    """slope / 2 where slope |u| < 1, else 0."""
    return where(slope * abs(u) < real(1), real(0.5) * slope, real(0))


def straight_through(u, slope):
    """1 everywhere. Bengio et al. 2013."""
    return where(u == u, real(1), u)  # a NaN stays visible


def exponential(u, slope):
    """slope / 2 * exp(-slope |u|). Shrestha & Orchard 2018 (SLAYER)."""
    return real(0.5) * slope * exp(-slope * abs(u))


def gaussian(u, slope):
    """Normal density of standard deviation 1 / slope."""
    y = slope * u
    return real(0.3989422804014327) * slope * exp(-real(0.5) * y * y)


def multi_gaussian(u, slope):
    """Normal density with two negative side lobes (h = 0.15, six times as wide). Yin et al. 2021."""
    y = slope * u
    centre = real(1.15) * exp(-real(0.5) * y * y)
    left = (y + real(1)) / real(6)
    right = (y - real(1)) / real(6)
    lobes = real(0.15 / 6) * (exp(-real(0.5) * left * left) + exp(-real(0.5) * right * right))
    return real(0.3989422804014327) * slope * (centre - lobes)
