"""The equations of the leaky family, their adjoint, and the surrogate slopes: written once, here only.

Bodies are plain scalar arithmetic over a few free names (upper-case constants, `heaviside`, `slope_at`, `exp`,
`where`, `detach`, `real`) that a backend binds: see `kernels/bind.py`. An `if` stands on a compile-time constant.
"""

# pyright: reportUndefinedVariable=false

SUBTRACT, ZERO, ZERO_ALL, NONE = range(4)  # the values of RESET


def advance(i, a, v, s, x, alpha, beta, rho, kappa, theta):
    """One time step: synaptic current, adaptation trace, membrane *before* reset, and spike after input `x`.

    i <- alpha * i + x
    a <- rho * a + s
    v <- reset(beta * v + i, s)           s is the spike of the step before: the reset acts one step later
    s <- H(v - theta - kappa * a)         strictly above threshold
    """
    r = detach(s) if DETACH else s
    i = alpha * i + x if CURRENT else x
    if RESET == SUBTRACT:
        v = beta * v + i - theta * r
    elif RESET == ZERO:
        v = beta * v * (real(1) - r) + i
    elif RESET == ZERO_ALL:
        v = (beta * v + i) * (real(1) - r)
    else:
        v = beta * v + i
    if ADAPTS:
        a = rho * a + s
    if SPIKING:
        s = fired(a, v, kappa, theta)
    return i, a, v, s


def fired(a, v, kappa, theta):
    """The spike of a membrane `v`: strictly above the threshold."""
    return heaviside(distance(a, v, kappa, theta), theta)


def distance(a, v, kappa, theta):
    """How far a membrane `v` lies above its threshold, which adaptation raises."""
    return v - theta - kappa * a if ADAPTS else v - theta


def advance_vjp(gi, ga, gv, gs, i0, a0, v0, s0, i1, a1, v1, alpha, beta, rho, kappa, theta, slope):
    """Chain rule through one `advance`: gradients at its outputs in, gradients at its inputs out.

    `i0, a0, v0, s0` are the state before the step, `i1, a1, v1` after it. Returns the gradients of
    `i0, a0, v0, s0, x` and of `alpha, beta, rho, kappa, theta`.
    """
    g_alpha = g_rho = g_kappa = g_theta = gs0 = ga0 = real(0)
    if SPIKING:
        gu = gs * slope_at(distance(a1, v1, kappa, theta), theta, slope)
        gv = gv + gu
        g_theta = -gu
        if ADAPTS:
            ga = ga - kappa * gu
            g_kappa = -a1 * gu
            ga0 = rho * ga
            gs0 = ga
            g_rho = a0 * ga
    gi = gi + (gv * (real(1) - s0) if RESET == ZERO_ALL else gv)
    kept = gv * (real(1) - s0) if RESET in (ZERO, ZERO_ALL) else gv
    g_beta = v0 * kept
    gv0 = beta * kept
    if RESET == SUBTRACT:
        g_theta = g_theta - s0 * gv
    if not DETACH:
        if RESET == SUBTRACT:
            gs0 = gs0 - theta * gv
        elif RESET == ZERO:
            gs0 = gs0 - beta * v0 * gv
        elif RESET == ZERO_ALL:
            gs0 = gs0 - (beta * v0 + i1) * gv
    gi0 = alpha * gi if CURRENT else real(0)
    if CURRENT:
        g_alpha = i0 * gi
    return gi0, ga0, gv0, gs0, gi, g_alpha, g_beta, g_rho, g_kappa, g_theta


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
