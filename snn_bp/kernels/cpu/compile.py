"""What compiles the kernels of the CPU: numba's decorators, the equations in its terms, and a name on disk for each.

No fast-math and no fused multiply-add: spikes equal the torch reference bit for bit. numba's cache on disk knows
neither the globals of a kernel nor the functions it calls, so the name of each specialisation hashes both.
"""

import functools
import hashlib
import importlib
import inspect
import math
import types
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher
from torch import Tensor

from snn_bp import equations
from snn_bp.kernels.bind import Constants, bind, slope_functions
from snn_bp.kernels.cpu.disk import cached
from snn_bp.surrogates import Unit

# Kernels, and what they alone call: wrappers that nobody needs would take a seventh of all compiling. `inner` functions
# crash when called from Python; numba does not compile a cached `kernel` again when only these options change.
kernel: Any = functools.partial(cached, nogil=True, error_model="numpy", no_cfunc_wrapper=True)
inner: Any = functools.partial(cast(Any, njit), error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
# In an adjoint a division by a constant may become a product with its inverse: gradients are not bit-equal anyway.
ADJOINT = {"arcp"}
SHARED = (  # modules that any kernel may be made of
    "snn_bp.equations", "snn_bp.kernels.bind",
    *(f"snn_bp.kernels.cpu.{name}" for name in ("aligned", "compile", "llvm", "vectors")),
)  # fmt: skip


@functools.cache
def specialised(
    loop: Callable, constants: Constants, dtype: np.dtype, *, uniform: bool,
    adjoint: tuple[str, Unit] | None = None, helpers: tuple[Callable, ...] = (), **flags: bool,
) -> Callable:  # fmt: skip
    """A loop over the equations for one kind of neuron and one float type, compiled at its first call.

    `adjoint` is the surrogate's shape and unit where the loop runs backward; `helpers` are functions that it calls and
    that use its free names; `flags` are upper-case names of its own.
    """
    names = {**_operations(constants, dtype, uniform), **flags}
    for equation in (equations.distance, equations.fired, equations.advance):
        names[equation.__name__] = inner(bind(equation, **names))
    if adjoint is not None:
        shape, unit = slope_functions(*adjoint)
        for name, equation in (("shape", shape), ("slope_at", unit), ("advance_vjp", equations.advance_vjp)):
            names[name] = inner(bind(equation, **names), fastmath=ADJOINT)
    for helper in helpers:
        names[helper.__name__] = inner(bind(helper, **names))
    return compiled(
        bind(loop, **names), (constants, adjoint, dtype.str, uniform, flags), adjoint=adjoint is not None
    )  # fmt: skip


@functools.cache
def compiled_plain(function: Callable) -> Callable:
    """A function of arrays without free names, compiled at its first call for each type of its arguments."""
    return compiled(bind(function), ("plain",))


def compiled(function: types.FunctionType, specialisation: tuple, *, adjoint: bool = False) -> Callable:
    """A kernel with its free names bound, cached on disk under a name that knows all it is made of."""
    called = (value for value in function.__globals__.values() if isinstance(value, Dispatcher))
    modules = (*SHARED, function.__module__, *sorted({each.py_func.__module__ for each in called}))
    sources = [inspect.getsource(importlib.import_module(name)) for name in dict.fromkeys(modules)]
    digest = hashlib.sha256(repr((specialisation, sources)).encode()).hexdigest()
    function.__qualname__ = f"{function.__name__}_{digest[:16]}"
    return kernel(function, fastmath=ADJOINT if adjoint else False)


def _operations(constants: Constants, dtype: np.dtype, uniform: bool) -> dict[str, Any]:
    """What the free names of the equations mean to numba."""
    real = dtype.type
    one, zero = real(1), real(0)
    return {
        **constants.names(),
        "heaviside": inner(lambda u, theta: one if u > zero else zero),
        "where": inner(lambda condition, yes, no: yes if condition else no),
        "exp": math.exp,
        "detach": inner(lambda s: s),
        "real": real,
        "of": inner((lambda value, m: value) if uniform else (lambda values, m: values[m])),
    }


def array(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor, contiguous, for a kernel."""
    return tensor.detach().contiguous().numpy()


def flat_or_scalar(tensor: Tensor) -> Any:
    """A scalar tensor as a number of its type, another as a flat array: coefficients, as kernels take them."""
    return array(tensor)[()] if tensor.dim() == 0 else array(tensor).reshape(-1)
